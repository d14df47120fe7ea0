//! What can be known from outside of a worker that does not come out of a turn, for the log.

use crate::clock;
use crate::scoreboard::{Cell, ProcessRow};
use crate::sessions::Sessions;
use std::fs;
use tracing::error;

/// Longest text of the kernel's that is logged.
const SHOWN_MAX: usize = 512;

/// Logs a stuck worker's state, right before it is killed.
pub(super) fn log(slot: usize, pid: i32, row: ProcessRow, sessions: &Sessions) {
    let (errand, conn) = row.errand();
    let began = row.value(Cell::TurnBegan);
    error!(
        slot,
        pid,
        generation = row.generation(),
        busy_ms = clock::now().0.saturating_sub(began),
        errand = errand.name(),
        conn = conn.map(|conn| conn.to_string()),
        peer = conn.and_then(|conn| sessions.peer(conn)).map(|peer| peer.to_string()),
        connections = row.value(Cell::Connections),
        state = run_state(pid),
        wchan = kernel_text(pid, "wchan"),
        syscall = kernel_text(pid, "syscall"),
        // Only root may read it.
        stack = kernel_text(pid, "stack"),
        "a worker is stuck in one turn: killed"
    );
}

/// `R` is a loop, `S` and `D` wait in the kernel, `T` is stopped.
fn run_state(pid: i32) -> Option<String> {
    let stat = kernel_text(pid, "stat")?;
    // The name in parentheses may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').next().map(str::to_owned)
}

fn kernel_text(pid: i32, file: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.trim().replace('\n', " < ");
    let end = line.char_indices().map(|(at, _)| at).nth(SHOWN_MAX).unwrap_or(line.len());
    Some(line[..end].to_owned()).filter(|line| !line.is_empty())
}
