//! Which overdue deadlines were told already: decisions, no I/O.
//!
//! Invariant: a deadline is told at once, and again only if nobody moved it for [`REPEAT_MS`].

use crate::clock::Millis;
use std::collections::HashMap;

/// After this time an overdue deadline that nobody moved is told again: its worker may have died with
/// the first report in hand.
const REPEAT_MS: u64 = 1_000;

/// Reports of overdue deadlines, by row.
#[derive(Debug, Default)]
pub(super) struct Reports {
    told: HashMap<u32, (Millis, Millis)>,
}

impl Reports {
    /// Whether a row's deadline should be told now.
    pub(super) fn is_due(&self, row: u32, deadline: Millis, now: Millis) -> bool {
        match self.told.get(&row) {
            Some((known, at)) if *known == deadline => now.since(*at) >= REPEAT_MS,
            _ => true,
        }
    }

    /// It was told.
    pub(super) fn told(&mut self, row: u32, deadline: Millis, now: Millis) {
        self.told.insert(row, (deadline, now));
    }

    /// Forgets the rows that are no longer overdue.
    pub(super) fn forget_all_but(&mut self, overdue: &[(u32, Millis)]) {
        if self.told.is_empty() {
            return;
        }
        let current: HashMap<u32, Millis> = overdue.iter().copied().collect();
        self.told.retain(|row, (deadline, _)| current.get(row) == Some(deadline));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_told_once_and_again_only_if_nobody_acts() {
        let mut reports = Reports::default();
        let (due, now) = (Millis(100), Millis(120));
        assert!(reports.is_due(4, due, now));
        reports.told(4, due, now);
        assert!(!reports.is_due(4, due, now + 999));
        assert!(reports.is_due(4, due, now + 1_000));
        assert!(reports.is_due(4, Millis(130), now + 20), "a new deadline is a new matter");
        reports.forget_all_but(&[(5, due)]);
        assert!(reports.is_due(4, due, now), "moved away and back");
    }
}
