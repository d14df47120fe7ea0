//! Upgrade of the program in place: another file takes over the process, the descriptors and the shared
//! memory of a running server.
//!
//! Knows both sides of the exec: what is handed over and how the program that gets it finds it. When an
//! upgrade may be, and what becomes of the processes, is the master's (`master::upgrade`).
//!
//! ```text
//! the program that runs                                      the new one
//! fork, exec with a hand-off of purpose Rehearsal ─────────► rehearse: compare, look, serve one upgrade
//!                                        verdict ◄────────── through its report pipe
//! all workers rest and end
//! exec with a hand-off of purpose Succession ══════════════► succeed: same pid, same descriptors
//! ```
//!
//! Invariants: 1. The new program is told by one environment variable, which it forgets before it forks.
//! 2. Keys that need a restart keep the values of the program that runs. 3. A hand-off of another
//! version is refused by the rehearsal, never guessed at.

mod hand_off;
mod inherited;
mod rehearsal;
mod start;
mod succession;

pub(crate) use hand_off::{HandOff, Purpose, VARIABLE, Verdict};
pub(crate) use inherited::{inherited, keep_running_values, kept_changes};
pub(crate) use start::Start;
