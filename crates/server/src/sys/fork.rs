//! Starting processes: the only place that forks.
//!
//! The caller has one thread, ever. All signals are blocked around the fork, so a child is born with
//! them blocked; it leaves by [`exit_now`] only, so that nothing it inherited is ever dropped there.

use super::descriptor;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid};
use std::io;
use std::os::fd::RawFd;

/// Which of the two this is after a fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Forked {
    /// The child.
    Child,
    /// The parent, with the child's process id.
    Parent(i32),
}

/// How a process is to be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Descriptors {
    /// One descriptor table with the parent (`CLONE_FILES`): a worker.
    Shared,
    /// A table of its own, a copy at first: every other process.
    Own,
}

/// Forks. In the child all signals are blocked until [`unblock_signals`].
pub(crate) fn fork(descriptors: Descriptors) -> io::Result<Forked> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let forked = match descriptors {
        Descriptors::Shared => clone_sharing_descriptors(),
        Descriptors::Own => fork_plainly(),
    };
    if !matches!(forked, Ok(Forked::Child)) {
        before.thread_set_mask()?;
    }
    forked
}

fn clone_sharing_descriptors() -> io::Result<Forked> {
    let flags = libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with a null stack, `clone` goes on in the child like `fork`, on a
    // copy of this stack; all further arguments are null and not looked at under these flags. The
    // process has one thread (module contract), so no lock is held by a thread that is not copied.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match Errno::result(result)? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(i32::try_from(pid).map_err(io::Error::other)?)),
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that may")]
fn fork_plainly() -> io::Result<Forked> {
    // SAFETY: the process has one thread (module contract), so the child may use everything.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Forked::Child),
        ForkResult::Parent { child } => Ok(Forked::Parent(child.as_raw())),
    }
}

/// Keeps signals from coming in; gives what was kept from it before.
pub(crate) fn block_signals() -> io::Result<Mask> {
    Ok(Mask(SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?))
}

/// Which signals are kept from coming in.
#[derive(Debug)]
pub(crate) struct Mask(SigSet);

impl Mask {
    /// Makes it so again.
    pub(crate) fn restore(&self) -> io::Result<()> {
        Ok(self.0.thread_set_mask()?)
    }
}

/// A process group of this process's own, so that all it starts can be ended with it.
pub(crate) fn lead_group() -> io::Result<()> {
    Ok(nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))?)
}

/// Sends SIGKILL to a process group of a child's own. Its leader must not be reaped yet.
pub(crate) fn kill_group(leader: i32) {
    // Where it has not become a group yet, the leader alone.
    if nix::sys::signal::killpg(Pid::from_raw(leader), Signal::SIGKILL).is_err() {
        kill(leader);
    }
}

/// Sends SIGTERM to a child.
pub(crate) fn terminate(pid: i32) {
    // It may have ended meanwhile.
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGTERM);
}

/// Lets signals come in again, in a child whose handlers are its own by now.
pub(crate) fn unblock_signals() -> io::Result<()> {
    Ok(SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK).map(drop)?)
}

/// First thing in a child: it ends when `parent` ends, also if that was a moment ago. To be called
/// after privileges were dropped, which would clear it.
pub(crate) fn die_with(parent: u32) {
    let armed = prctl::set_pdeathsig(Signal::SIGKILL).is_ok();
    let orphaned = u32::try_from(nix::unistd::getppid().as_raw()) != Ok(parent);
    if !armed || orphaned {
        exit_now(1);
    }
}

/// Names the process as `ps -o comm` shows it; cut to 15 bytes.
pub(crate) fn set_title(title: &str) {
    let cut: Vec<u8> = title.bytes().filter(|byte| *byte != 0).take(15).collect();
    if let Ok(name) = std::ffi::CString::new(cut) {
        // A name is a courtesy; without it the process works as well.
        let _ = prctl::set_name(&name);
    }
}

/// Ends this process at once: no destructor, no `atexit`.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes an integer, runs no code of ours and does not return.
    unsafe { libc::_exit(code) }
}

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

/// A signal as people call it: `SIGKILL`.
pub(crate) fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| number.to_string(), |signal| signal.to_string())
}

/// Reaps the child of a process handle, if it has ended.
pub(crate) fn reap(pidfd: RawFd) -> io::Result<Option<Ended>> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    match waitid(Id::PIDFd(descriptor::borrow(pidfd)), flags)? {
        WaitStatus::Exited(_, code) => Ok(Some(Ended { exit_code: Some(code), signal: None })),
        WaitStatus::Signaled(_, signal, _) => {
            Ok(Some(Ended { exit_code: None, signal: Some(signal as i32) }))
        }
        _ => Ok(None),
    }
}

/// Reaps a child, if it has ended.
pub(crate) fn reap_pid(pid: i32) -> io::Result<Option<Ended>> {
    Ok(match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG))? {
        WaitStatus::Exited(_, code) => Some(Ended { exit_code: Some(code), signal: None }),
        WaitStatus::Signaled(_, signal, _) => {
            Some(Ended { exit_code: None, signal: Some(signal as i32) })
        }
        _ => None,
    })
}

/// Waits for a child to end.
pub(crate) fn wait_for(pid: i32) -> io::Result<Ended> {
    loop {
        match waitpid(Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, code)) => {
                return Ok(Ended { exit_code: Some(code), signal: None });
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return Ok(Ended { exit_code: None, signal: Some(signal as i32) });
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends SIGKILL to a child.
pub(crate) fn kill(pid: i32) {
    // It may have ended meanwhile; as it is not reaped yet the number is still its own.
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// Detaches from the terminal: a session of its own.
pub(crate) fn new_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    Ok(())
}
