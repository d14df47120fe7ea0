//! The whole terminal for one verb: raw mode and the alternate screen, given back whatever happens.
//!
//! Knows nothing of what is shown. Invariants: 1. The terminal is as it was when [`Screen`] is dropped,
//! and before a panic is printed. 2. SIGTERM, SIGHUP, SIGINT and a changed size come as readable bytes
//! ([`Screen::signals`]), so that a loop that polls them ends in an orderly way.

use crate::failure::Failure;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ratatui::layout::{Position, Rect};
use ratatui::{DefaultTerminal, Frame};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// Text that is pasted comes between marks, so that a line end in it is no Enter.
const MARK_PASTES: &[u8] = b"\x1b[?2004h";
const NO_MARKS: &[u8] = b"\x1b[?2004l";

/// See the module.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: DefaultTerminal,
    signals: SignalFd,
}

/// What asks a program to end.
const ENDS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT];

/// The signals that ask for an end, as something readable. Threads that are started from now on do not get
/// them either.
pub(crate) fn ending_signals() -> Result<SignalFd, Failure> {
    caught(&ENDS)
}

fn caught(signals: &[Signal]) -> Result<SignalFd, Failure> {
    let failed = |error: nix::errno::Errno| Failure::failed(format!("signals: {error}"));
    let set: SigSet = signals.iter().copied().collect();
    set.thread_block().map_err(failed)?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    SignalFd::with_flags(&set, flags).map_err(failed)
}

/// Whether there is a terminal to read keys from and to draw on.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

impl Screen {
    /// Takes the terminal. Threads that are started from now on do not get the signals either.
    pub(crate) fn open() -> Result<Self, Failure> {
        let failed =
            |what: &str, error: &dyn std::fmt::Display| Failure::failed(format!("{what}: {error}"));
        let signals = caught(&[&ENDS[..], &[Signal::SIGWINCH]].concat())?;
        // It also has a panic give the terminal back before its message is printed.
        let terminal = ratatui::try_init().inspect_err(|_| give_back());
        let terminal = terminal.map_err(|error| failed("the terminal", &error))?;
        write_out(MARK_PASTES);
        Ok(Self { terminal, signals })
    }

    /// Draws what has changed.
    pub(crate) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> Result<(), Failure> {
        let drawn = self.terminal.draw(render);
        drawn.map(|_| ()).map_err(|error| Failure::failed(format!("the terminal: {error}")))
    }

    /// Forgets what stands on the screen, so that the next `draw` draws all of it.
    pub(crate) fn forget(&mut self) {
        // Not by `clear`: it asks the terminal where the cursor is, and waits for an answer among the keys.
        let size = self.terminal.size();
        let _ = size.and_then(|size| self.terminal.resize(Rect::from((Position::ORIGIN, size))));
    }

    /// Readable when a signal has come.
    pub(crate) fn signals(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// Whether one of the signals that came asks for an end.
    pub(crate) fn must_end(&self) -> bool {
        let mut ends = false;
        while let Ok(Some(came)) = self.signals.read_signal() {
            ends |= Signal::SIGWINCH as u32 != came.ssi_signo;
        }
        ends
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        write_out(NO_MARKS);
        give_back();
    }
}

/// There is nobody to tell if that fails: the terminal is gone.
fn give_back() {
    let _ = ratatui::try_restore();
}

fn write_out(bytes: &[u8]) {
    let mut out = io::stdout();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}
