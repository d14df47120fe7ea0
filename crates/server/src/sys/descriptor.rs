//! Descriptors by number: closing, duplicating, memfds, process handles, what is open.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// The descriptor as the borrowed type that nix wants.
pub(crate) fn borrow(descriptor: RawFd) -> BorrowedFd<'static> {
    assert!(descriptor >= 0, "{descriptor} is no descriptor");
    // SAFETY: the number is not -1 (checked above), the only value `BorrowedFd` forbids. Whether it
    // is open is the ledger's matter: a call on a closed number fails with EBADF, it is never memory
    // unsafe, since no code of ours treats a descriptor as proof of anything in memory.
    unsafe { BorrowedFd::borrow_raw(descriptor) }
}

/// The number of an owned descriptor that is from now on the ledger's to close.
pub(crate) fn release(descriptor: OwnedFd) -> RawFd {
    descriptor.into_raw_fd()
}

/// A descriptor as an owned one, for what must hold one: who gives the number away owns it and forgets
/// it.
pub(crate) fn own(descriptor: RawFd) -> OwnedFd {
    assert!(descriptor >= 0, "{descriptor} is no descriptor");
    // SAFETY: not -1 (checked above). The caller gives the number away, so it is closed once; and as
    // with `borrow`, no code of ours takes a descriptor for a proof of anything in memory.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Closes a descriptor. Errors are of no use to anybody: the number is free afterwards.
pub(crate) fn close(descriptor: RawFd) {
    let _ = nix::unistd::close(descriptor);
}

/// Duplicates into the lowest free number not below `at_least`, close-on-exec.
pub(crate) fn duplicate(descriptor: RawFd, at_least: RawFd) -> io::Result<RawFd> {
    Ok(fcntl(borrow(descriptor), FcntlArg::F_DUPFD_CLOEXEC(at_least))?)
}

/// Makes sure that 0, 1 and 2 are open: whatever else got one of these numbers would be taken for
/// standard input, output or error.
pub(crate) fn hold_standard_numbers() -> io::Result<()> {
    loop {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        let _ = null.into_raw_fd();
    }
}

/// Grows the descriptor table to hold `highest` at once: the kernel grows a shared table under an
/// RCU grace period of tens of milliseconds, which must not happen while connections are served.
pub(crate) fn reserve_table(highest: RawFd) -> io::Result<()> {
    close(duplicate(0, highest)?);
    Ok(())
}

/// Makes a descriptor non-blocking, or blocking.
pub(crate) fn set_nonblocking(descriptor: RawFd, on: bool) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(borrow(descriptor), FcntlArg::F_GETFL)?);
    let wanted = if on { flags | OFlag::O_NONBLOCK } else { flags - OFlag::O_NONBLOCK };
    fcntl(borrow(descriptor), FcntlArg::F_SETFL(wanted))?;
    Ok(())
}

/// A memfd with these bytes.
pub(crate) fn memfd_with(bytes: &[u8]) -> io::Result<RawFd> {
    let mut file = empty_memfd()?;
    file.write_all(bytes)?;
    Ok(file.into_raw_fd())
}

/// A memfd without content; the caller's to close.
pub(crate) fn empty_memfd() -> io::Result<File> {
    Ok(File::from(memfd_create(c"dunlin", MFdFlags::MFD_CLOEXEC)?))
}

/// All bytes of a memfd, from its beginning; it stays open.
pub(crate) fn read_memfd(descriptor: RawFd) -> io::Result<Vec<u8>> {
    let mut file = lend(descriptor);
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads from a descriptor.
pub(crate) fn read(descriptor: RawFd, into: &mut [u8]) -> io::Result<usize> {
    Ok(nix::unistd::read(borrow(descriptor), into)?)
}

/// Writes to a descriptor.
pub(crate) fn write(descriptor: RawFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(nix::unistd::write(borrow(descriptor), bytes)?)
}

/// Puts `descriptor` also at the number `at`, replacing what is there.
pub(crate) fn duplicate_onto(descriptor: RawFd, at: RawFd) -> io::Result<()> {
    loop {
        // SAFETY: `dup2` takes two plain numbers and touches no memory of ours; whose numbers they
        // are is the caller's knowledge (standard input and output of a child that just forked).
        match Errno::result(unsafe { libc::dup2(descriptor, at) }) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A handle of a child that becomes readable when the child ends.
pub(crate) fn open_pidfd(pid: i32) -> io::Result<RawFd> {
    // SAFETY: `pidfd_open` takes two integers, touches no memory of ours, and returns a descriptor or
    // -1 with errno; it sets close-on-exec itself.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let descriptor = Errno::result(result)?;
    RawFd::try_from(descriptor).map_err(io::Error::other)
}

/// Every open descriptor number of this table, but the one that was opened to look.
pub(crate) fn open_numbers() -> io::Result<Vec<RawFd>> {
    let mut numbers = listed_numbers()?;
    // The directory itself was open while it was read, and is closed by now.
    numbers.retain(|number| identity(*number).is_some());
    Ok(numbers)
}

/// The same with the one that was opened to look, and without a call for each number.
pub(crate) fn listed_numbers() -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        if let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// What object a descriptor is, by device and inode; `None` if it is closed.
pub(crate) fn identity(descriptor: RawFd) -> Option<(u64, u64)> {
    let stat = nix::sys::stat::fstat(borrow(descriptor)).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// Whether a descriptor is a memfd of this crate.
pub(crate) fn is_our_memfd(descriptor: RawFd) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{descriptor}"))
        .is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:dunlin"))
}

/// A `File` over a number that must not be closed by it.
pub(crate) fn lend(descriptor: RawFd) -> ManuallyDrop<File> {
    // SAFETY: `ManuallyDrop` keeps the `File` from closing the number, so nothing is owned twice; a
    // number that is not open only makes the reads fail.
    ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) })
}
