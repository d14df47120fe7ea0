//! The timer process: tells workers of deadlines and timers that are due.
//!
//! An added process like any other (see [`crate::process`]). It sweeps one dense column of the session
//! table and the timer table, both in shared memory, so that its death forgets nothing; it knows no
//! connection and calls no hook.

mod state;
mod table;

pub(crate) use table::missed;
pub use table::{ArmedTimer, PAYLOAD_MAX, TimerTable};

/// Words of a timer.
pub(crate) const ROW_WORDS: usize = table::ROW_WORDS;

use crate::clock::{self, Millis};
use crate::ipc::mail::Mail;
use crate::process::{AddedProcess, ProcessContext, ProcessEvent};
use crate::scoreboard::{Cell, Times};
use crate::sessions::Phase;
use state::Reports;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The longest sleep between two sweeps: a deadline is noticed at most this late.
pub const SWEEP_MS: u64 = 50;

/// The timer process.
pub(crate) fn added_process() -> AddedProcess {
    AddedProcess { sandboxed: true, ..AddedProcess::new("timer", run) }
}

fn run(process: &mut ProcessContext) {
    let mut reports = Reports::default();
    loop {
        let now = clock::now();
        let sleep_ms = sweep_timers(process, now).min(SWEEP_MS);
        sweep_deadlines(process, &mut reports, now);
        process.flush_mail();
        if process.wait(Some(Duration::from_millis(sleep_ms))) == ProcessEvent::Stop {
            return;
        }
    }
}

/// Tells the slots of timers that are due; gives the time until the next one.
fn sweep_timers(process: &mut ProcessContext, now: Millis) -> u64 {
    let timers = process.shared().timers;
    let mut next_ms = SWEEP_MS;
    for timer in timers.armed() {
        if timer.due > now {
            next_ms = next_ms.min(timer.due.since(now));
            continue;
        }
        let ticks = missed(&timer, now);
        // Posted first: if this process dies in between it is told twice, and the worker notices.
        if process.post(timer.slot, &Mail::timer(timer.id, ticks, timer.due)) {
            timers.reported(&timer, now);
            note_fired(process, timer.due, now);
        }
    }
    next_ms.max(1)
}

fn note_fired(process: &ProcessContext, due: Millis, now: Millis) {
    process.row().add(Cell::TimersFired, 1);
    process.row().note_times(Times::Late, now.since(due).saturating_mul(1_000), 1);
}

fn sweep_deadlines(process: &mut ProcessContext, reports: &mut Reports, now: Millis) {
    let mut armed = 0;
    let mut overdue = Vec::new();
    for (index, word) in process.shared().sessions.deadlines().iter().enumerate() {
        let deadline = word.load(Ordering::Relaxed);
        if deadline == 0 {
            continue;
        }
        armed += 1;
        if deadline <= now.0
            && let Ok(index) = u32::try_from(index)
        {
            overdue.push((index, Millis(deadline)));
        }
    }
    reports.forget_all_but(&overdue);
    for (index, deadline) in overdue {
        let sessions = &process.shared().sessions;
        let Some(conn) = sessions.at(index) else { continue };
        if sessions.phase(conn) != Some(Phase::Open) || !reports.is_due(index, deadline, now) {
            continue;
        }
        let Some(home) = sessions.home(conn) else { continue };
        if process.post(home, &Mail::overdue(conn, deadline)) {
            reports.told(index, deadline, now);
            note_fired(process, deadline, now);
        }
    }
    let timers = process.shared().timers.armed().count();
    process.row().set(Cell::TimersArmed, armed + u64::try_from(timers).unwrap_or(0));
}
