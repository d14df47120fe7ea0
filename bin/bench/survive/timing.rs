//! How long answers took, how long nothing came at all, and whether the client itself was late.
//!
//! Pure: `now` is passed in.

use crate::bench::client::moment::Moment;
use hdrhistogram::Histogram;

/// See the module.
#[derive(Debug)]
pub(super) struct Timing {
    /// Microseconds from when a request was due to its answer.
    answers: Histogram<u64>,
    silence: Silence,
    late: Late,
    max_stall_us: Option<u64>,
    over_max_stall: u64,
}

/// The longest time in which nothing came from the whole server though something was owed.
#[derive(Debug, Default)]
struct Silence {
    since: Option<Moment>,
    longest_us: u64,
    over: bool,
}

/// When this program did its work later than it should have: then an answer only seems late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Late {
    pub(super) longest_us: u64,
    /// Turns in which it was late by more than [`LATE_US`].
    pub(super) times: u64,
}

/// From here on the client itself is the bottleneck.
pub(super) const LATE_US: u64 = 50_000;

/// What is reported of all answers, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answers {
    pub(super) count: u64,
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) longest: u64,
}

impl Timing {
    pub(super) fn new(max_stall_us: Option<u64>) -> Self {
        // From 1 us to 10 minutes to three digits: bounds that the crate takes.
        let answers = Histogram::new_with_bounds(1, 600_000_000, 3)
            .expect("1 is at least 1, and the upper bound twice the lower");
        let (silence, late) = (Silence::default(), Late::default());
        Self { answers, silence, late, max_stall_us, over_max_stall: 0 }
    }

    /// An answer to a request that was due at `since`; true if it took longer than it may.
    pub(super) fn answered(&mut self, since: Moment, now: Moment) -> bool {
        let took_us = now.us_since(since);
        self.answers.saturating_record(took_us.max(1));
        let over = self.max_stall_us.is_some_and(|most| took_us > most);
        self.over_max_stall += u64::from(over);
        over
    }

    /// Something came, and whether anything more is owed.
    pub(super) fn heard(&mut self, now: Moment, owed: bool) {
        let silence = &mut self.silence;
        if let Some(since) = silence.since.take() {
            silence.longest_us = silence.longest_us.max(now.us_since(since));
        }
        silence.since = (owed && !silence.over).then_some(now);
    }

    /// Something was asked.
    pub(super) fn asked(&mut self, now: Moment) {
        if !self.silence.over {
            self.silence.since.get_or_insert(now);
        }
    }

    /// From here on little is asked, and who reads slowly makes the silence.
    pub(super) fn rest(&mut self) {
        self.silence.over = true;
    }

    /// A turn that did at `now` what was due at `due`.
    pub(super) fn turn(&mut self, due: Moment, now: Moment) {
        let late_us = now.us_since(due);
        self.late.longest_us = self.late.longest_us.max(late_us);
        self.late.times += u64::from(late_us > LATE_US);
    }

    pub(super) fn answers(&self) -> Answers {
        let at = |quantile| self.answers.value_at_quantile(quantile);
        Answers {
            count: self.answers.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            longest: self.answers.max(),
        }
    }

    pub(super) fn longest_silence_us(&self) -> u64 {
        self.silence.longest_us
    }

    pub(super) fn late(&self) -> Late {
        self.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::default().plus_ms(ms)
    }

    #[test]
    fn silence_counts_only_while_something_is_owed() {
        let mut timing = Timing::new(None);
        timing.asked(at(100));
        timing.asked(at(130));
        timing.heard(at(140), true);
        timing.heard(at(150), false);
        assert_eq!(timing.longest_silence_us(), 40_000);
        timing.asked(at(5_000));
        timing.heard(at(5_001), false);
        assert_eq!(timing.longest_silence_us(), 40_000);
        timing.rest();
        timing.asked(at(6_000));
        timing.heard(at(7_000), true);
        assert_eq!(timing.longest_silence_us(), 40_000);
    }

    #[test]
    fn an_answer_over_the_limit_is_told() {
        let mut timing = Timing::new(Some(250_000));
        assert!(!timing.answered(at(0), at(250)));
        assert!(timing.answered(at(0), at(251)));
        let answers = timing.answers();
        assert_eq!(answers.count, 2);
        assert!((251_000..251_500).contains(&answers.longest), "{answers:?}");
    }

    #[test]
    fn a_late_client_says_so() {
        let mut timing = Timing::new(None);
        timing.turn(at(10), at(20));
        timing.turn(at(10), at(61));
        assert_eq!((timing.late().longest_us, timing.late().times), (51_000, 1));
    }
}
