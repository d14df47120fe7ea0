//! Signals on signal-hook: a handler only records, the loop acts.
//!
//! Registered once, in the master. A handler sets a bit of a word and writes a byte into a pipe; both
//! are static words of the process, so a child that is born with the handlers only points them at a
//! pipe of its own (or at none). Nothing is ever registered anew: signal-hook cannot do that after a
//! fork that reset a signal.

use super::descriptor;
use serde::{Deserialize, Serialize};
use signal_hook::low_level;
use std::io;
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// Bit n: signal n came.
static CAME: AtomicU64 = AtomicU64::new(0);
/// Where a handler writes its byte; -1: nowhere.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// Registers the handlers of these signals. Once per server, before the first fork.
pub(crate) fn register(signals: &[i32]) -> io::Result<()> {
    for signal in signals.iter().copied() {
        let note = move || {
            CAME.fetch_or(1 << (signal & 63), Ordering::SeqCst);
            let wake = WAKE.load(Ordering::SeqCst);
            if wake >= 0 {
                // SAFETY: `write` is async-signal-safe; the buffer is one static byte; the descriptor
                // is a plain number, and a full or closed pipe only fails the call.
                unsafe { libc::write(wake, [1_u8].as_ptr().cast(), 1) };
            }
        };
        // SAFETY: the closure does only what a signal handler may: two atomic accesses and `write`.
        // It does not allocate, lock or panic (`signal & 63` keeps the shift in range).
        unsafe { low_level::register(signal, note) }?;
    }
    Ok(())
}

/// A pipe for signals: the end to watch and the end that [`wake_by`] takes.
pub(crate) fn pipe() -> io::Result<(RawFd, RawFd)> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    write.set_nonblocking(true)?;
    Ok((read.into_raw_fd(), write.into_raw_fd()))
}

/// From now on signals to this process are told by this pipe; what was recorded before, at once.
pub(crate) fn wake_by(write: RawFd) {
    WAKE.store(write, Ordering::SeqCst);
    if CAME.load(Ordering::SeqCst) != 0 {
        // A pipe that is full tells it already.
        let _ = descriptor::write(write, &[1]);
    }
}

/// Makes such a pipe for this process. Both ends are returned so that they can be noted in the ledger.
pub(crate) fn own_pipe() -> io::Result<(RawFd, RawFd)> {
    let (read, write) = pipe()?;
    wake_by(write);
    Ok((read, write))
}

/// No pipe: signals are only recorded. For a child before it has one.
pub(crate) fn forget_pipe() {
    WAKE.store(-1, Ordering::SeqCst);
    CAME.store(0, Ordering::SeqCst);
}

/// Empties the pipe and gives the signals that came, as bits.
pub(crate) fn drain(pipe: RawFd) -> Came {
    let mut bytes = [0; 64];
    while matches!(descriptor::read(pipe, &mut bytes), Ok(count) if count == bytes.len()) {}
    Came(CAME.swap(0, Ordering::SeqCst))
}

/// Notes signals that came as if they came now: those of a program whose place this one has taken.
pub(crate) fn put_back(came: Came) {
    CAME.fetch_or(came.0, Ordering::SeqCst);
    let wake = WAKE.load(Ordering::SeqCst);
    if wake >= 0 && came.0 != 0 {
        // A pipe that is full tells it already.
        let _ = descriptor::write(wake, &[1]);
    }
}

/// The first real-time signal that is free for applications.
pub(crate) fn real_time(offset: i32) -> i32 {
    libc::SIGRTMIN() + offset
}

/// Signals that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Came(u64);

impl Came {
    /// Whether this one is among them.
    pub(crate) fn has(self, signal: i32) -> bool {
        self.0 & 1 << (signal & 63) != 0
    }
}
