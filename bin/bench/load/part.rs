//! What was measured of one kind of traffic, in all its rounds.
//!
//! Pure.

use super::meter::Used;
use crate::bench::client::moment::Moment;
use hdrhistogram::Histogram;
use std::time::Duration;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Its name, such as `send`.
    pub(super) name: &'static str,
    /// What is counted, such as `messages`.
    pub(super) unit: &'static str,
    pub(super) count: u64,
    pub(super) used: Used,
    /// Workers whose processor time is in `used`.
    pub(super) workers: usize,
    /// Microseconds each took.
    pub(super) latency: Histogram<u64>,
    pub(super) late: Late,
}

/// How far behind its schedule this program sent: only where there is one.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Late {
    pub(super) longest_us: u64,
    /// Of all that were sent.
    pub(super) sent: u64,
    /// Later than [`LATE_US`].
    pub(super) times: u64,
}

/// Later than this a message was sent late.
pub(super) const LATE_US: u64 = 5_000;
/// From here on the generator's core is taken for full.
const BUSY: f64 = 0.9;

impl Part {
    pub(super) fn new(name: &'static str, unit: &'static str) -> Self {
        // From 1 us to 10 minutes to three digits: bounds that the crate takes.
        let latency = Histogram::new_with_bounds(1, 600_000_000, 3)
            .expect("1 is at least 1, and the upper bound twice the lower");
        let (used, late) = (Used::default(), Late::default());
        Self { name, unit, count: 0, used, workers: 0, latency, late }
    }

    /// One more, that was due at `since` and done at `now`.
    pub(super) fn done(&mut self, since: Moment, now: Moment) {
        self.count += 1;
        self.latency.saturating_record(now.us_since(since).max(1));
    }

    /// Adds what another round of the same was.
    pub(super) fn add(&mut self, round: &Self) {
        self.count += round.count;
        self.used.add(&round.used);
        self.workers = round.workers;
        // Both have the same bounds.
        let _ = self.latency.add(&round.latency);
        self.late.longest_us = self.late.longest_us.max(round.late.longest_us);
        self.late.sent += round.late.sent;
        self.late.times += round.late.times;
    }

    pub(super) fn per_second(&self) -> f64 {
        number(self.count) / self.used.wall.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Processor time of the workers for each, in microseconds.
    pub(super) fn server_us(&self) -> Option<f64> {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / number(self.count.max(1));
        (self.workers > 0 && self.count > 0).then(|| each(self.used.workers))
    }

    /// The share of one core that this program used.
    pub(super) fn generator_busy(&self) -> f64 {
        share(self.used.generator, self.used.wall)
    }

    /// The cores that the workers used.
    pub(super) fn server_busy(&self) -> f64 {
        share(self.used.workers, self.used.wall)
    }

    /// Whether this program was what held the figures down.
    pub(super) fn is_bound_by_generator(&self) -> bool {
        self.generator_busy() >= BUSY || self.late.times * 100 > self.late.sent
    }
}

impl Late {
    /// A message that was due at `due` was sent.
    pub(super) fn sent(&mut self, due: Moment, now: Moment) {
        let late_us = now.us_since(due);
        self.sent += 1;
        self.longest_us = self.longest_us.max(late_us);
        self.times += u64::from(late_us > LATE_US);
    }
}

fn share(used: Duration, wall: Duration) -> f64 {
    used.as_secs_f64() / wall.as_secs_f64().max(f64::MIN_POSITIVE)
}

fn number(count: u64) -> f64 {
    // Exact below 2^32, and no run counts that far.
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::default().plus_ms(ms)
    }

    #[test]
    fn rounds_add_up() {
        let mut whole = Part::new("echo", "messages");
        for _ in 0..2 {
            let mut round = Part::new("echo", "messages");
            round.done(at(0), at(10));
            round.done(at(0), at(30));
            let ms = Duration::from_millis;
            round.used = Used { wall: ms(1_000), workers: ms(500), generator: ms(910) };
            round.workers = 2;
            whole.add(&round);
        }
        assert_eq!((whole.count, whole.latency.len()), (4, 4));
        assert!((whole.per_second() - 2.0).abs() < 1e-9);
        assert!((whole.server_us().unwrap() - 250_000.0).abs() < 1e-6);
        assert!(whole.is_bound_by_generator());
        whole.workers = 0;
        assert_eq!(whole.server_us(), None, "nobody's clock was read");
    }

    #[test]
    fn a_generator_that_sends_late_says_so() {
        let mut part = Part::new("rate", "messages");
        part.used.wall = Duration::from_secs(1);
        for _ in 0..99 {
            part.late.sent(at(0), at(5));
        }
        part.late.sent(at(0), at(6));
        assert!(!part.is_bound_by_generator(), "one in a hundred");
        part.late.sent(at(0), at(7));
        assert!(part.is_bound_by_generator());
        assert_eq!((part.late.longest_us, part.late.times), (7_000, 2));
    }
}
