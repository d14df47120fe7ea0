//! How fast something may be done, and how long one must wait: pure arithmetic on one word a bucket.
//!
//! Knows no session, user or clock. A bucket is the moment, in nanoseconds, at which it is full again
//! (GCRA): 0, and every moment gone by, is a full one, so a bucket that is thrown away while nobody uses it
//! loses nothing. Invariants: 1. What a rate allows in any time is at most its burst, and what its pace gives
//! in that time, but for what one deed costs beyond one unit. 2. No sum overflows, whatever stands in a word.

use dunlin_server::clock::Millis;

const NS_PER_S: u64 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// A pace, and how much may come at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Units a second; 0 is no limit.
    pub per_second: u64,
    /// Units at once, from a full bucket. At least one is.
    pub burst: u64,
}

/// Too early: so many milliseconds, at least 1, until it may be tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooSoon {
    /// The wait.
    pub wait_ms: u64,
}

impl Rate {
    /// Whether there is no limit: then no bucket need be looked at.
    #[must_use]
    pub fn is_off(self) -> bool {
        self.per_second == 0
    }

    /// Takes `cost` units out of a bucket that is full again at `full_at_ns`; gives when it is full then. It
    /// needs one unit to be there: what costs more is owed, so that nothing is too large to ever be done.
    ///
    /// # Errors
    /// No unit is there, and nothing was taken.
    pub fn take(self, full_at_ns: u64, now: Millis, cost: u64) -> Result<u64, TooSoon> {
        if self.is_off() {
            return Ok(full_at_ns);
        }
        let now_ns = now.0.saturating_mul(NS_PER_MS);
        let level_ns = full_at_ns.max(now_ns);
        let one_ns = self.time_of(1);
        let most_ns = now_ns.saturating_add(self.time_of(self.burst).max(one_ns));
        if level_ns.saturating_add(one_ns) > most_ns {
            let wait_ns = level_ns.saturating_add(one_ns) - most_ns;
            return Err(TooSoon { wait_ms: wait_ns.div_ceil(NS_PER_MS) });
        }
        Ok(level_ns.saturating_add(self.time_of(cost)))
    }

    /// In how many nanoseconds so many units come back.
    fn time_of(self, units: u64) -> u64 {
        units.saturating_mul(NS_PER_S) / self.per_second
    }
}

/// How failures make one wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// Failures that cost nothing.
    pub free: u64,
    /// The wait after the next one, in milliseconds; doubled by each further.
    pub first_ms: u64,
    /// The longest wait.
    pub most_ms: u64,
    /// After how long without a failure all are forgotten.
    pub forgotten_ms: u64,
}

/// Failures and when the last one was: `count:8 | milliseconds:40`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Failures(u64);

impl Failures {
    const TIME_BITS: u32 = 40;

    /// As [`Failures::to_bits`] gave it.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// In 48 bits; 0 is no failure.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    fn count(self) -> u64 {
        self.0 >> Self::TIME_BITS & 0xff
    }

    fn last(self) -> Millis {
        Millis(self.0 & ((1 << Self::TIME_BITS) - 1))
    }
}

impl Patience {
    /// Whether there is no failure to be remembered any more.
    #[must_use]
    pub fn is_forgotten(self, failures: Failures, now: Millis) -> bool {
        let since_ms = now.0.saturating_sub(failures.last().0);
        failures.count() == 0 || since_ms >= self.forgotten_ms
    }

    /// One failure more.
    #[must_use]
    pub fn after_one_more(self, failures: Failures, now: Millis) -> Failures {
        let known = if self.is_forgotten(failures, now) { 0 } else { failures.count() };
        let count = (known + 1).min(0xff);
        Failures(count << Failures::TIME_BITS | now.0 & ((1 << Failures::TIME_BITS) - 1))
    }

    /// Whether it may be tried now.
    ///
    /// # Errors
    /// Not yet.
    pub fn permit(self, failures: Failures, now: Millis) -> Result<(), TooSoon> {
        let over = failures.count().saturating_sub(self.free);
        if over == 0 || self.is_forgotten(failures, now) {
            return Ok(());
        }
        let doublings = u32::try_from(over - 1).unwrap_or(u32::MAX);
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        let delay_ms = self.first_ms.saturating_mul(factor).min(self.most_ms);
        let since_ms = now.0.saturating_sub(failures.last().0);
        match delay_ms.saturating_sub(since_ms) {
            0 => Ok(()),
            wait_ms => Err(TooSoon { wait_ms }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_000_000;

    /// How many of so many tries at one time are let through, and the bucket then.
    fn tries(rate: Rate, mut bucket: u64, at: u64, times: usize) -> (usize, u64) {
        let mut through = 0;
        for _ in 0..times {
            if let Ok(next) = rate.take(bucket, Millis(at), 1) {
                bucket = next;
                through += 1;
            }
        }
        (through, bucket)
    }

    #[test]
    fn a_burst_and_then_the_pace() {
        let rate = Rate { per_second: 10, burst: 5 };
        let (through, bucket) = tries(rate, 0, NOW, 20);
        assert_eq!(through, 5);
        assert_eq!(rate.take(bucket, Millis(NOW), 1), Err(TooSoon { wait_ms: 100 }));
        assert_eq!(rate.take(bucket, Millis(NOW + 99), 1), Err(TooSoon { wait_ms: 1 }));
        let (through, bucket) = tries(rate, bucket, NOW + 100, 20);
        assert_eq!(through, 1);
        let (through, bucket) = tries(rate, bucket, NOW + 350, 20);
        assert_eq!(through, 2);
        let (through, _) = tries(rate, bucket, NOW + 60_000, 20);
        assert_eq!(through, 5, "what is not used is not kept");
    }

    #[test]
    fn what_costs_more_than_is_there_is_owed() {
        let rate = Rate { per_second: 1_000, burst: 100 };
        let bucket = rate.take(0, Millis(NOW), 5_000).unwrap();
        assert_eq!(rate.take(bucket, Millis(NOW), 1), Err(TooSoon { wait_ms: 4_901 }));
        assert_eq!(rate.take(bucket, Millis(NOW + 4_900), 1), Err(TooSoon { wait_ms: 1 }));
        assert!(rate.take(bucket, Millis(NOW + 4_901), 9).is_ok());
    }

    #[test]
    fn no_rate_is_no_limit_and_no_burst_is_one() {
        assert_eq!(Rate { per_second: 0, burst: 9 }.take(7, Millis(1), u64::MAX), Ok(7));
        let (through, _) = tries(Rate { per_second: 10, burst: 0 }, 0, NOW, 20);
        assert_eq!(through, 1);
    }

    #[test]
    fn failures_double_the_wait_and_are_forgotten() {
        let patience = Patience { free: 3, first_ms: 100, most_ms: 1_000, forgotten_ms: 5_000 };
        let mut failures = Failures::default();
        let mut now = NOW;
        let mut waits = Vec::new();
        for _ in 0..9 {
            failures = patience.after_one_more(failures, Millis(now));
            let wait =
                patience.permit(failures, Millis(now)).map_or_else(|soon| soon.wait_ms, |()| 0);
            waits.push(wait);
            now += wait;
            assert_eq!(patience.permit(failures, Millis(now)), Ok(()), "after the wait it may");
        }
        assert_eq!(waits, [0, 0, 0, 100, 200, 400, 800, 1_000, 1_000]);
        assert!(!patience.is_forgotten(failures, Millis(now - 1_000 + 4_999)));
        let later = now - 1_000 + 5_000;
        assert!(patience.is_forgotten(failures, Millis(later)));
        let anew = patience.after_one_more(failures, Millis(later));
        assert_eq!(patience.permit(anew, Millis(later)), Ok(()), "it is the first again");
    }

    proptest! {
        #[test]
        fn no_more_than_the_burst_and_the_pace_comes_through(
            per_second in 1..2_000_u64,
            burst in 1..500_u64,
            steps in prop::collection::vec((0..300_u64, 1..40_usize), 1..60),
        ) {
            let rate = Rate { per_second, burst };
            let (mut now, mut bucket, mut through) = (NOW, 0, 0);
            for (pass, times) in steps {
                now += pass;
                let (some, next) = tries(rate, bucket, now, times);
                bucket = next;
                through += some;
                let most = burst + (now - NOW) * per_second / 1_000 + 1;
                prop_assert!(u64::try_from(through).unwrap() <= most);
                // Whoever waits as told is let through, and not a millisecond sooner.
                if let Err(TooSoon { wait_ms }) = rate.take(bucket, Millis(now), 1) {
                    prop_assert!(rate.take(bucket, Millis(now + wait_ms), 1).is_ok());
                    prop_assert!(rate.take(bucket, Millis(now + wait_ms - 1), 1).is_err());
                }
            }
        }

        #[test]
        fn any_word_and_any_time_are_survived(
            word in any::<u64>(), now in any::<u64>(), cost in any::<u64>(),
            per_second in any::<u64>(), burst in any::<u64>(),
        ) {
            let _ = Rate { per_second, burst }.take(word, Millis(now), cost);
            let patience =
                Patience { free: burst, first_ms: cost, most_ms: per_second, forgotten_ms: 1 };
            let failures = patience.after_one_more(Failures::from_bits(word), Millis(now));
            let _ = patience.permit(failures, Millis(now));
            prop_assert!(failures.to_bits() < 1 << 48);
        }
    }
}
