//! Workers that do not come out of a turn: found by their stamps, decided without I/O.
//!
//! Only the time between two looks of the master counts, and each look for at most
//! [`LOOK_MAX_MS`], so a machine that was paused accuses nobody. One worker is named at a time.

use crate::clock::Millis;

/// The most one look may add.
const LOOK_MAX_MS: u64 = 500;

/// How long each slot's worker has been in the same turn, as far as the master has seen.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    last_look: Option<Millis>,
    /// By slot: the stamp seen last, and for how long.
    seen: Vec<(u64, u64)>,
}

impl Stuck {
    /// Looks at the stamps (odd: busy), by slot; gives a slot that has been busy in one turn for
    /// `limit_ms`, if there is one. 0: never.
    pub(super) fn look(&mut self, now: Millis, stamps: &[u64], limit_ms: u64) -> Option<usize> {
        let passed = self.last_look.map_or(0, |last| now.since(last)).min(LOOK_MAX_MS);
        self.last_look = Some(now);
        self.seen.resize(stamps.len(), (0, 0));
        for ((known, for_ms), stamp) in self.seen.iter_mut().zip(stamps) {
            if *known == *stamp && *stamp & 1 == 1 {
                *for_ms += passed;
            } else {
                (*known, *for_ms) = (*stamp, 0);
            }
        }
        if limit_ms == 0 {
            return None;
        }
        let slot = self.seen.iter().position(|(_, for_ms)| *for_ms >= limit_ms)?;
        self.seen[slot].1 = 0;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_turn_that_does_not_end_counts() {
        let mut stuck = Stuck::default();
        let mut now = Millis(1_000);
        let mut named = Vec::new();
        for look in 0..45_u64 {
            now = now + 250;
            // Slot 0 is stuck, slot 1 waits, slot 2 is busy but turns.
            if let Some(slot) = stuck.look(now, &[7, 8, 2 * look + 1], 10_000) {
                named.push((slot, look));
            }
        }
        assert_eq!(named, [(0, 40)], "once, after ten seconds");
    }

    #[test]
    fn a_pause_of_the_machine_accuses_nobody() {
        let mut stuck = Stuck::default();
        stuck.look(Millis(0), &[7], 10_000);
        assert_eq!(stuck.look(Millis(3_600_000), &[7], 10_000), None);
        assert_eq!(stuck.look(Millis(7_200_000), &[7], 0), None, "0: never");
    }
}
