//! Times of a process by how long they took: so many words of its row, each with a bound.
//!
//! Knows no clock. Invariants: 1. A time is counted in one word only, that of the first bound that it does
//! not exceed; readers add them up. 2. The sum grows with every time that is counted.

use super::ProcessRow;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds in microseconds; what takes longer than the last is counted behind it.
pub const BOUNDS_US: [u64; 17] = [
    20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000,
];

/// Words of a histogram: a count for each bound, one for what is longer, the sum; a whole number of cache lines
/// for two.
pub(super) const WORDS: usize = 20;

const SUM: usize = BOUNDS_US.len() + 1;

/// Which times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Times {
    /// Worker: how long a turn took, from the kernel's answer to the wait for the next.
    Turn,
    /// Worker: from the beginning of the turn that sent a message to the end of the turn that put it out.
    Latency,
    /// Timer process, in the place of [`Times::Latency`], which it has none of: how late something due was told.
    Late,
}

impl Times {
    /// First word in the row.
    const fn at(self) -> usize {
        match self {
            Self::Turn => super::TURN_TIMES,
            Self::Latency | Self::Late => super::TURN_TIMES + WORDS,
        }
    }
}

/// What a histogram says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spread {
    /// How many took no longer than each of [`BOUNDS_US`] and longer than the one before; the last: longer.
    pub counts: [u64; BOUNDS_US.len() + 1],
    /// All times together, in microseconds.
    pub sum_us: u64,
}

impl ProcessRow {
    /// Process: so many times of this length.
    pub fn note_times(&self, times: Times, us: u64, count: u64) {
        let words = self.words_of(times);
        let place = BOUNDS_US.partition_point(|bound| *bound < us);
        // Its one writer: no locked addition is needed.
        let add = |place: usize, more: u64| {
            let word = &words[place];
            word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        };
        add(place, count);
        add(SUM, us.saturating_mul(count));
    }

    /// The histogram as it is now.
    #[must_use]
    pub fn spread(&self, times: Times) -> Spread {
        let words = self.words_of(times);
        let read = |place: usize| words[place].load(Ordering::Relaxed);
        Spread { counts: std::array::from_fn(read), sum_us: read(SUM) }
    }

    fn words_of(&self, times: Times) -> &'static [AtomicU64] {
        &self.words[times.at()..times.at() + WORDS]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ROW_WORDS, Scoreboard};
    use super::*;

    fn row() -> ProcessRow {
        let words = (0..2 * ROW_WORDS).map(|_| AtomicU64::new(0)).collect();
        Scoreboard::new(Box::leak(words), 1, 0, &[]).worker(0)
    }

    #[test]
    fn a_time_is_counted_at_the_first_bound_that_it_does_not_exceed() {
        let row = row();
        for (us, place) in [(0, 0), (20, 0), (21, 1), (50, 1), (5_000_000, 16), (5_000_001, 17)] {
            let before = row.spread(Times::Turn);
            row.note_times(Times::Turn, us, 3);
            let after = row.spread(Times::Turn);
            assert_eq!(after.sum_us - before.sum_us, 3 * us, "{us}");
            for at in 0..after.counts.len() {
                let more = after.counts[at] - before.counts[at];
                assert_eq!(more, if at == place { 3 } else { 0 }, "{us} at {at}");
            }
        }
    }

    #[test]
    fn two_histograms_of_a_row_share_no_word() {
        let row = row();
        row.note_times(Times::Turn, u64::MAX, 1);
        assert_eq!(row.spread(Times::Latency).counts.iter().sum::<u64>(), 0);
        row.note_times(Times::Latency, 10, 7);
        assert_eq!(row.spread(Times::Latency).counts[0], 7);
        assert_eq!(row.spread(Times::Turn).counts.iter().sum::<u64>(), 1);
        assert_eq!(row.value(super::super::Cell::DeathsKilled), 0);
    }
}
