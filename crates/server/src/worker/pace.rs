//! How fast the clients of a stopping server are told: decisions, no I/O.
//!
//! Knows counts and times; knows no connection. Invariants: 1. At the deadline everybody is due. 2. Before
//! it never more than [`CATCH_UP_MS`] of its speed is due at once: a turn that took long is made up for by
//! going a little faster from then on, not by a burst.

use crate::clock::Millis;

/// The most time that one look makes up for.
const CATCH_UP_MS: u64 = 50;
/// Parts that a client is counted in.
const MILLIONTHS: u64 = 1_000_000;

/// The pace of one worker.
#[derive(Debug)]
pub(super) struct Pace {
    /// Millionths of a client in a millisecond; `None`: everybody at once.
    speed: Option<u64>,
    /// When the last one is due.
    deadline: Millis,
    looked_at: Millis,
    /// Millionths of a client that were due and made no whole one.
    credit: u64,
}

impl Pace {
    /// A pace for `own` clients of `total` in the whole server, which tells `rate` of them a second, 0 for
    /// all at once. The workers share the rate as they share the clients, so all of them end together.
    pub(super) fn new(now: Millis, deadline: Millis, rate: u64, own: u64, total: u64) -> Self {
        let share = |rate: u64| {
            let in_a_second = rate.saturating_mul(MILLIONTHS).saturating_mul(own);
            in_a_second.div_ceil(1_000 * total.max(own).max(1))
        };
        let speed = (rate > 0).then(|| share(rate));
        Self { speed, deadline, looked_at: now, credit: 0 }
    }

    /// How many of the `left` clients are to be told now.
    pub(super) fn due(&mut self, now: Millis, left: u64) -> u64 {
        let since = self.looked_at;
        self.looked_at = now.max(since);
        let Some(speed) = self.speed.filter(|_| now < self.deadline) else { return left };
        let needed = (left * MILLIONTHS).saturating_sub(self.credit);
        let needed = needed.div_ceil(self.deadline.since(since).max(1));
        let passed_ms = now.since(since).min(CATCH_UP_MS);
        self.credit += passed_ms * speed.max(needed);
        let due = (self.credit / MILLIONTHS).min(left);
        self.credit -= due * MILLIONTHS;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Looks after each of these steps until nobody is left; gives (time, told) of each look.
    fn walk(pace: &mut Pace, from: Millis, mut left: u64, steps: &[u64]) -> Vec<(u64, u64)> {
        let mut now = from;
        let mut told = Vec::new();
        for step in steps.iter().cycle() {
            if left == 0 {
                return told;
            }
            now = now + *step;
            let due = pace.due(now, left);
            left -= due;
            told.push((now.since(from), due));
        }
        told
    }

    #[test]
    fn a_rate_is_kept_evenly() {
        let mut pace = Pace::new(Millis(7), Millis(30_007), 200, 500, 500);
        let told = walk(&mut pace, Millis(7), 500, &[10]);
        let (end, _) = told[told.len() - 1];
        assert!((2_490..=2_510).contains(&end), "{end}");
        assert!(told.iter().all(|(_, due)| *due <= 2), "{told:?}");
        // Half of the clients: half of the rate.
        let mut pace = Pace::new(Millis(0), Millis(30_000), 200, 250, 500);
        let told = walk(&mut pace, Millis(0), 250, &[10]);
        assert!((2_490..=2_510).contains(&told[told.len() - 1].0));
    }

    #[test]
    fn the_deadline_is_kept_where_the_rate_would_miss_it() {
        let mut pace = Pace::new(Millis(0), Millis(1_600), 10, 100, 100);
        let told = walk(&mut pace, Millis(0), 100, &[20]);
        assert!(told[told.len() - 1].0 <= 1_600);
        assert!(told.iter().all(|(_, due)| *due <= 2), "{told:?}");
    }

    #[test]
    fn no_rate_is_everybody_at_once() {
        let mut pace = Pace::new(Millis(0), Millis(1_600), 0, 100, 100);
        assert_eq!(pace.due(Millis(0), 100), 100);
        let mut pace = Pace::new(Millis(0), Millis(0), 1, 100, 100);
        assert_eq!(pace.due(Millis(0), 100), 100, "no time");
    }

    proptest! {
        #[test]
        fn everybody_is_told_by_the_deadline_and_nobody_in_a_burst(
            rate in 1..=1_000_000_u64,
            own in 1..=100_000_u64,
            others in 0..=100_000_u64,
            time_ms in 1..=100_000_u64,
            steps in prop::collection::vec(1..=3_000_u64, 1..20),
        ) {
            let total = own + others;
            let mut pace = Pace::new(Millis(9), Millis(9 + time_ms), rate, own, total);
            let told = walk(&mut pace, Millis(9), own, &steps);
            prop_assert_eq!(told.iter().map(|(_, due)| due).sum::<u64>(), own);
            let mut left = own;
            let mut before = 0;
            for (at, due) in told {
                if at < time_ms {
                    let needed = left.div_ceil(time_ms - before);
                    let fastest = (rate * own).div_ceil(total * 1_000).max(needed) + 1;
                    prop_assert!(due <= fastest * CATCH_UP_MS + 1, "{} at {}", due, at);
                } else {
                    prop_assert_eq!(due, left, "the deadline has passed");
                }
                left -= due;
                before = at;
            }
        }

        #[test]
        fn a_quick_look_never_falls_behind_the_rate(
            rate in 100..=10_000_u64,
            own in 1..=1_000_u64,
            step in 1..=CATCH_UP_MS,
        ) {
            let mut pace = Pace::new(Millis(0), Millis(u64::from(u32::MAX)), rate, own, own);
            let told = walk(&mut pace, Millis(0), own, &[step]);
            let (end, _) = told[told.len() - 1];
            prop_assert!(end <= (own * 1_000).div_ceil(rate) + step, "{} of {}", end, own);
        }
    }
}
