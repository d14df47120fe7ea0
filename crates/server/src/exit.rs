//! The exit codes of the command line. `docs/commands.md` lists the same four.

use std::process;

/// How a command ended, for scripts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitCode {
    /// It did what it was asked to; a server ended after a graceful stop.
    Ok = 0,
    /// It failed: a start that did not succeed, a reload that was refused, a promise that a check
    /// found broken. What ran before goes on.
    Failed = 1,
    /// Flags or config are wrong, and nothing was begun.
    BadUsage = 2,
    /// No server runs in the run directory.
    NotRunning = 3,
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
