//! What a child with a descriptor table of its own keeps: a written list, nothing else.
//!
//! Otherwise a connection that a worker closes would stay open in every other process.

use nix::errno::Errno;
use std::io;
use std::os::fd::RawFd;

/// Closes every descriptor but standard input, output and error and those in `keep`. Only for a
/// process that shares its table with nobody.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep.iter().filter_map(|number| u32::try_from(*number).ok()).collect();
    kept.extend([0, 1, 2]);
    kept.sort_unstable();
    kept.dedup();
    let mut first = 0;
    for number in kept {
        if number > first {
            close_range(first, number - 1, 0)?;
        }
        first = number + 1;
    }
    close_range(first, u32::MAX, 0)
}

/// An exec will close every descriptor but standard input, output and error. Now nothing changes.
pub(super) fn close_all_on_exec() -> io::Result<()> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: `close_range` takes three integers and touches no memory. Where it closes, the table is
    // this process's own (contract above), and the objects that thought they owned these numbers are
    // never dropped: a child ends by `exit_now`, or is another program soon.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    Errno::result(result)?;
    Ok(())
}
