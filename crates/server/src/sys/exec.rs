//! Another program in the place of this one: what it is started with, and which descriptors it keeps.
//!
//! Knows paths, arguments and flags of descriptors; knows nothing of what the program is to do with
//! them. The caller has one thread, ever (as in [`super::fork`]).

use super::{descriptor, inherit};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;

/// A program to be started, all of it made before: from a fork to the exec nothing is allocated.
#[derive(Debug)]
pub(crate) struct Program {
    file: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    /// The file with these arguments (the first is the program's name), in this process's environment
    /// with one more variable.
    pub(crate) fn new(
        file: &OsStr,
        arguments: &[OsString],
        (name, value): (&str, &str),
    ) -> io::Result<Self> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::from);
        let others = std::env::vars_os().filter(|(known, _)| known != name);
        let mut environment = others
            .map(|(name, value)| text(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
            .collect::<io::Result<Vec<_>>>()?;
        environment.push(text(format!("{name}={value}").as_bytes())?);
        let arguments =
            arguments.iter().map(|word| text(word.as_bytes())).collect::<io::Result<_>>()?;
        Ok(Self { file: text(file.as_bytes())?, arguments, environment })
    }

    /// Becomes the program. Comes back only where it cannot be started, with the reason.
    pub(crate) fn exec(&self) -> io::Error {
        match nix::unistd::execve(&self.file, &self.arguments, &self.environment) {
            Err(error) => error.into(),
            Ok(never) => match never {},
        }
    }
}

/// Takes a variable out of this process's environment: children must not find it.
pub(crate) fn forget_variable(name: &str) {
    // SAFETY: the process has one thread (module contract), so nobody reads the environment meanwhile.
    unsafe { std::env::remove_var(name) };
}

/// From now on an exec closes every descriptor but standard input, output and error and these.
pub(crate) fn keep_over_exec(keep: impl IntoIterator<Item = RawFd>) -> io::Result<()> {
    inherit::close_all_on_exec()?;
    for number in keep {
        fcntl(descriptor::borrow(number), FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}

/// An exec closes this one again, which came through one. An error: it is not open.
pub(crate) fn close_on_exec(number: RawFd) -> io::Result<()> {
    fcntl(descriptor::borrow(number), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// Whether an exec leaves a descriptor open.
pub(crate) fn is_kept(number: RawFd) -> bool {
    fcntl(descriptor::borrow(number), FcntlArg::F_GETFD)
        .is_ok_and(|flags| !FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC))
}
