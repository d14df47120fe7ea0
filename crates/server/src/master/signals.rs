//! The table of signals: what each means to the master, in Swoole's meanings.
//!
//! Handlers only record; the loop acts on what came in the order of [`Meaning::ORDER`].

use crate::sys::signals::{Came, real_time};
use nix::libc::{SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

/// What a signal asks the master for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    /// Stop gracefully; a second time: at once.
    Stop,
    /// Stop at once.
    StopNow,
    /// Replace every process.
    Reload,
    /// Replace the task processes.
    ReloadTasks,
    /// Open the log anew.
    ReopenLog,
    /// Start the binary again in place.
    Upgrade,
    /// Nothing: it must only not end the process.
    Ignore,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignalRow {
    pub(super) signal: i32,
    pub(super) meaning: Meaning,
}

/// The table.
pub(super) fn table() -> [SignalRow; 9] {
    let row = |signal, meaning| SignalRow { signal, meaning };
    [
        row(SIGTERM, Meaning::Stop),
        row(SIGINT, Meaning::Stop),
        row(SIGQUIT, Meaning::StopNow),
        row(SIGUSR1, Meaning::Reload),
        row(SIGHUP, Meaning::Reload),
        row(SIGUSR2, Meaning::ReloadTasks),
        row(real_time(0), Meaning::ReopenLog),
        row(real_time(1), Meaning::Upgrade),
        row(SIGPIPE, Meaning::Ignore),
    ]
}

/// Every signal that has a handler.
pub(crate) fn all() -> Vec<i32> {
    table().iter().map(|row| row.signal).collect()
}

impl Meaning {
    /// The order in which the master acts on what came in one turn.
    const ORDER: [Self; 6] = [
        Self::StopNow,
        Self::Stop,
        Self::Reload,
        Self::ReloadTasks,
        Self::ReopenLog,
        Self::Upgrade,
    ];
}

/// What the signals that came ask for, in the order to act.
pub(super) fn meanings(came: Came) -> impl Iterator<Item = Meaning> {
    Meaning::ORDER.into_iter().filter(move |meaning| {
        table().iter().any(|row| row.meaning == *meaning && came.has(row.signal))
    })
}
