//! How many blocks each group of owners holds, and how many blocks are further ones of a chain.
//!
//! Knows words and numbers, nothing of blocks or chains. A count may be too high for a while (a
//! process was killed between a block and its count), never too low.
//!
//! Invariants: 1. A word changes only by compare-and-swap, and its tag grows with each change: whoever
//! finds it unchanged knows that nothing was counted in between. Its upper bits grow when the count is
//! set by a recount: whoever finds those unchanged knows that there was none. 2. [`Counts::add`] never
//! takes a count beyond its bound, however many do it at one time.

use std::sync::atomic::Ordering::{AcqRel, Acquire};

use super::place::Place;
use crate::sync::AtomicU64;
use crate::word::{LINE_WORDS, halves, high_half, low_half};

const CHANGE_BITS: u32 = 24;
const CHANGE_MASK: u32 = (1 << CHANGE_BITS) - 1;

/// What a count is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counted {
    /// All blocks but the first ones of their chains.
    Further,
    /// The blocks of a group.
    Group(u16),
}

impl Counted {
    /// Where a block at this place is counted.
    pub(super) fn at(place: Place) -> impl Iterator<Item = Self> {
        let further = place.is_further().then_some(Self::Further);
        further.into_iter().chain(place.group().map(Self::Group))
    }

    /// Its place in [`Counts::all`].
    pub(super) fn number(self) -> usize {
        match self {
            Self::Further => 0,
            Self::Group(group) => 1 + usize::from(group),
        }
    }
}

/// `recounts:8 | changes:24 | count:32` for each [`Counted`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    further: &'static AtomicU64,
    groups: &'static [AtomicU64],
}

/// A word as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Count(u64);

impl Counts {
    pub(super) fn words_needed(groups: u16) -> usize {
        LINE_WORDS + usize::from(groups).next_multiple_of(LINE_WORDS)
    }

    /// `words` has at least [`Counts::words_needed`] words.
    pub(super) fn new(groups: u16, words: &'static [AtomicU64]) -> Self {
        let (further, rest) = words.split_at(LINE_WORDS);
        Self { further: &further[0], groups: &rest[..usize::from(groups)] }
    }

    pub(super) fn groups(&self) -> u16 {
        u16::try_from(self.groups.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Counted> + use<> {
        std::iter::once(Counted::Further).chain((0..self.groups()).map(Counted::Group))
    }

    pub(super) fn look(&self, of: Counted) -> Count {
        // Acquire: whoever sees a count sees the places of the blocks in it.
        Count(self.word(of).map_or(0, |word| word.load(Acquire)))
    }

    /// Adds unless the count would pass `most`.
    pub(super) fn add(&self, of: Counted, by: u32, most: u32) -> bool {
        let add = |seen: Count| seen.number().checked_add(by).filter(|count| *count <= most);
        self.change(of, by, add)
    }

    /// Subtracts; not below 0, where only a foreign write could lead.
    pub(super) fn subtract(&self, of: Counted, by: u32) {
        self.change(of, by, |seen| Some(seen.number().saturating_sub(by)));
    }

    /// Subtracts one that was counted when the word was `seen`, unless a recount has set the count since:
    /// it may have left out that one.
    pub(super) fn subtract_one_since(&self, of: Counted, seen: Count) {
        self.change(of, 1, |now| {
            (now.recounts() == seen.recounts()).then(|| now.number().saturating_sub(1))
        });
    }

    /// Sets a count if it is another and nothing was counted since `seen`. False if something was.
    pub(super) fn settle(&self, of: Counted, seen: Count, count: u32) -> bool {
        let Some(word) = self.word(of) else { return true };
        let next = seen.recounted(count);
        // AcqRel, as every change: a later look at the word sees all that was done before each of them.
        seen.number() == count || word.compare_exchange(seen.0, next.0, AcqRel, Acquire).is_ok()
    }

    fn change(&self, of: Counted, by: u32, to: impl Fn(Count) -> Option<u32>) -> bool {
        let Some(word) = self.word(of).filter(|_| by > 0) else { return true };
        let mut seen = Count(word.load(Acquire));
        loop {
            let Some(count) = to(seen) else { return false };
            match word.compare_exchange(seen.0, seen.successor(count).0, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(now) => seen = Count(now),
            }
        }
    }

    /// `None` for a group that there is not; only a foreign write can name it.
    fn word(&self, of: Counted) -> Option<&'static AtomicU64> {
        match of {
            Counted::Further => Some(self.further),
            Counted::Group(group) => self.groups.get(usize::from(group)),
        }
    }
}

impl Count {
    pub(super) fn number(self) -> u32 {
        low_half(self.0)
    }

    fn recounts(self) -> u32 {
        high_half(self.0) >> CHANGE_BITS
    }

    fn successor(self, count: u32) -> Self {
        let changes = high_half(self.0).wrapping_add(1) & CHANGE_MASK;
        Self(halves(self.recounts() << CHANGE_BITS | changes, count))
    }

    fn recounted(self, count: u32) -> Self {
        let next = self.successor(count);
        Self(halves(high_half(next.0).wrapping_add(1 << CHANGE_BITS), count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::heap_words;

    #[test]
    fn a_count_stays_within_its_bounds_and_notices_changes() {
        let counts = Counts::new(2, heap_words(Counts::words_needed(2)));
        let (group, other) = (Counted::Group(1), Counted::Group(0));
        assert!(counts.add(group, 3, 5) && !counts.add(group, 3, 5) && counts.add(group, 2, 5));
        assert!(!counts.add(group, u32::MAX, u32::MAX), "no overflow");
        let seen = counts.look(group);
        assert_eq!((seen.number(), counts.look(other).number()), (5, 0));
        counts.subtract(group, 1);
        assert!(counts.add(group, 1, 5));
        assert!(!counts.settle(group, seen, 4), "there and back is a change");
        assert!(counts.settle(group, counts.look(group), 4));
        let seen = counts.look(group);
        assert!(counts.add(group, 2, 9));
        counts.subtract_one_since(group, seen);
        assert_eq!(counts.look(group).number(), 5);
        assert!(counts.settle(group, counts.look(group), 3));
        counts.subtract_one_since(group, seen);
        assert_eq!(counts.look(group).number(), 3, "a recount came in between");
        counts.subtract(group, 9);
        assert_eq!(counts.look(group).number(), 0);
        let last = Count(halves(u32::MAX >> 8, 1)).successor(2);
        assert_eq!((last.recounts(), last.number()), (0, 2), "changes wrap among themselves");
        assert_eq!(counts.all().count(), 3);
        assert!(counts.add(Counted::Group(2), 9, 1), "a group that there is not has no bound");
    }
}
