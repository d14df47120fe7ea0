//! `server.sandbox`: a process that speaks with clients gives up system calls that it does not need.
//!
//! Knows when, and where it is told; which ones is `sys::sandbox`'s. Workers do so after `worker_start` and
//! before they see a client, the timer process before its first look. The master, task processes and added
//! processes do not: they start programs, or may.

use crate::scoreboard::{Cell, ProcessRow};
use crate::sys::sandbox;

/// Gives them up, if that is wanted. A kernel that does not have it is no reason not to serve.
pub(crate) fn enter(wanted: bool, row: &ProcessRow) {
    let entered = wanted
        && match sandbox::lock_in() {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "this process goes on without its sandbox (server.sandbox)");
                false
            }
        };
    row.set(Cell::Sandboxed, u64::from(entered));
}
