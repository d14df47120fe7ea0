//! How long turns take, and messages on their way to others.
//!
//! Knows two moments of a turn: when the kernel's answer came, and when all was done; no clock is read for a
//! message. A message to another connection than the one whose hook sends it takes from the beginning of the turn
//! that sent it, of whichever worker, to the end of the turn that put it into the recipient's outbox, and to the
//! kernel where that took it: never less than it really took. Mail carries the beginning in the head of its packet.
//! Invariant: what was put into an outbox is counted when its turn ends, or the worker rests.

use super::core::Core;
use super::routing::Speaking;
use crate::clock::{self, Millis};
use crate::ids::ConnId;
use crate::scoreboard::Times;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct TurnTimes {
    began_us: u64,
    /// When the turn began, here or elsewhere, that is the cause of what is sent now.
    cause_us: u64,
    /// Messages put into outboxes of others in this turn, by when their causes began. No more than packets are
    /// taken in a turn, twice over.
    delivered: Vec<(u64, u64)>,
}

impl TurnTimes {
    fn note_delivered(&mut self) {
        let cause_us = self.cause_us;
        match self.delivered.last_mut() {
            Some((cause, count)) if *cause == cause_us => *count += 1,
            _ => self.delivered.push((cause_us, 1)),
        }
    }
}

impl Core {
    /// The kernel has answered: reads the clock for the turn.
    pub(super) fn begin_turn(&mut self) {
        let now_us = clock::now_us();
        self.now = Millis(now_us / 1_000);
        self.times.began_us = now_us;
        self.set_cause(None);
    }

    /// What is sent from here on was caused by a turn that began then; `None`: by this one.
    pub(super) fn set_cause(&mut self, cause_us: Option<u64>) {
        self.times.cause_us = cause_us.unwrap_or(self.times.began_us);
        self.post.set_cause(self.times.cause_us);
    }

    /// A message is in the outbox of a connection. What a hook says to its own is an answer, and no way to others.
    pub(super) fn note_delivered(&mut self, to: ConnId) {
        if self.speaking != Speaking::Of(to) {
            self.times.note_delivered();
        }
    }

    /// All of the turn is done: its time and those of its messages go to the scoreboard, if that is this worker's.
    pub(super) fn end_turn(&mut self) {
        let began_us = std::mem::take(&mut self.times.began_us);
        if !self.life.serving() {
            self.times.delivered.clear();
            return;
        }
        let now_us = clock::now_us();
        if began_us > 0 {
            self.row.note_times(Times::Turn, now_us.saturating_sub(began_us), 1);
        }
        for (cause_us, count) in self.times.delivered.drain(..) {
            self.row.note_times(Times::Latency, now_us.saturating_sub(cause_us), count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_kept_apart_by_what_caused_them() {
        let mut times = TurnTimes::default();
        for cause_us in [7, 7, 9, 7, 7, 7] {
            times.cause_us = cause_us;
            times.note_delivered();
        }
        assert_eq!(times.delivered, [(7, 2), (9, 1), (7, 3)]);
    }
}
