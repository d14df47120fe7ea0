//! Where to look for something free: two levels of bits in shared memory.
//!
//! Knows nothing of what is free. A bit is a hint; the truth is in the row's head, the block's stamp,
//! and is taken there by compare-and-swap.
//!
//! Invariants: 1. A wrong bit costs time, never correctness: a set bit of something taken is cleared by
//! whoever tries it, a missing bit of something free is found by the caller's scan and put back. 2.
//! Bits go missing only by a kill (or, transiently, while the taker is on its way to the claim). 3.
//! `exhausted` says "a scan found nothing since the last release", so that a full structure is not
//! scanned again and again. It must not outlive a release that is cut off before the bit is set, so a
//! release of something scanned is [announced](FreeHints::announce) while a scan sees it coming: after
//! it is marked as leaving, before it is free; and a scan that meets something leaving is no proof. 4.
//! Any words make hints: an item that is taken exists.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::sync::AtomicU64;

/// The two words of the memo, on a line of their own.
const MEMO_WORDS: usize = 8;

#[derive(Clone, Debug)]
pub(crate) struct FreeHints {
    /// Items there are.
    count: u32,
    /// How often something was offered.
    releases: &'static AtomicU64,
    /// `releases` + 1 as it was before a scan that found nothing; 0: never.
    exhausted: &'static AtomicU64,
    /// A bit per word of `bits` that may have bits.
    summary: &'static [AtomicU64],
    /// A bit per item that may be free.
    bits: &'static [AtomicU64],
}

impl FreeHints {
    pub(crate) fn words_needed(count: u32) -> usize {
        let (summary, bits) = sizes(count);
        MEMO_WORDS + (summary + bits).next_multiple_of(8)
    }

    /// `words` has at least [`FreeHints::words_needed`] words.
    pub(crate) fn new(count: u32, words: &'static [AtomicU64]) -> Self {
        let (summary, bits) = sizes(count);
        let (memo, rest) = words.split_at(MEMO_WORDS);
        let (summary, rest) = rest.split_at(summary);
        Self { count, releases: &memo[0], exhausted: &memo[1], summary, bits: &rest[..bits] }
    }

    /// Marks items 0 to `count` as free in zeroed memory nobody else sees yet.
    pub(crate) fn format(&self, count: u32) {
        for (level, mut left) in [(self.bits, count as usize), (self.summary, self.bits.len())] {
            for word in level {
                let here = left.min(64);
                left -= here;
                word.store(if here == 64 { u64::MAX } else { (1 << here) - 1 }, Relaxed);
            }
        }
    }

    /// Takes a hint, searching from item `start` on and around.
    pub(crate) fn take(&self, start: u32) -> Option<u32> {
        let group = start as usize / 64 % self.bits.len();
        let (first, bit) = (group / 64, group % 64);
        // The first word is visited twice: from `start` on, and at the end as a whole.
        for step in 0..=self.summary.len() {
            let number = (first + step) % self.summary.len();
            let mut left = self.summary[number].load(Acquire);
            if step == 0 {
                left &= u64::MAX << bit;
            }
            while left != 0 {
                let group = number * 64 + left.trailing_zeros() as usize;
                if let Some(item) = self.take_from(group) {
                    return Some(item);
                }
                left &= left - 1;
            }
        }
        None
    }

    /// Something that every scan sees leaving is about to become free: ends the memo of exhaustion.
    pub(crate) fn announce(&self) {
        self.releases.fetch_add(1, AcqRel);
    }

    /// Something became free: sets its bit and ends the memo of exhaustion.
    pub(crate) fn offer(&self, item: u32) {
        self.restore(item);
        self.releases.fetch_add(1, AcqRel);
    }

    /// Sets the bit of something free if it is missing.
    pub(crate) fn restore(&self, item: u32) {
        let group = item as usize / 64;
        let bit = 1 << (item % 64);
        if self.bits[group].load(Relaxed) & bit == 0
            && self.bits[group].fetch_or(bit, AcqRel) != 0
            && self.summary[group / 64].load(Relaxed) & (1 << (group % 64)) != 0
        {
            return;
        }
        self.summary[group / 64].fetch_or(1 << (group % 64), AcqRel);
    }

    /// Begins a scan: `None` if one found nothing since the last release, else what to give to
    /// [`FreeHints::found_nothing`].
    pub(crate) fn begin_scan(&self) -> Option<u64> {
        let releases = self.releases.load(Acquire);
        (self.exhausted.load(Acquire) != releases.wrapping_add(1)).then_some(releases)
    }

    /// Everything was taken, and nothing of it leaving.
    pub(crate) fn found_nothing(&self, scan: u64) {
        self.exhausted.store(scan.wrapping_add(1), Release);
    }

    /// Ends the memo of exhaustion: a recovery may have missed nothing.
    pub(crate) fn forget_exhaustion(&self) {
        self.exhausted.store(0, Release);
    }

    fn take_from(&self, group: usize) -> Option<u32> {
        // Bits of no word and of no item can only be a foreign write.
        let word = self.bits.get(group)?;
        loop {
            let bits = word.load(Acquire);
            if bits == 0 {
                self.close(group);
                return None;
            }
            let bit = bits & bits.wrapping_neg();
            if word.fetch_and(!bit, AcqRel) & bit != 0 {
                let item = u32::try_from(group * 64 + bit.trailing_zeros() as usize).ok()?;
                if item < self.count {
                    return Some(item);
                }
            }
        }
    }

    /// Clears the summary bit of an empty word. Whoever offers sets the bit below before the one
    /// above, we clear above and then look below: one of the two sees the other.
    fn close(&self, group: usize) {
        let summary = &self.summary[group / 64];
        let bit = 1 << (group % 64);
        summary.fetch_and(!bit, AcqRel);
        if self.bits[group].load(Acquire) != 0 {
            summary.fetch_or(bit, AcqRel);
        }
    }
}

/// Where a writer begins to search, so that processes keep to different cache lines.
pub(crate) fn start_of(writer: u16, count: u32) -> u32 {
    // Multiples of the golden ratio spread evenly over any range.
    u32::from(writer).wrapping_mul(0x9e37_79b9) % count.max(1)
}

fn sizes(count: u32) -> (usize, usize) {
    let bits = (count as usize).div_ceil(64).max(1);
    (bits.div_ceil(64), bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::heap_words;
    use std::collections::BTreeSet;

    fn hints(count: u32) -> FreeHints {
        let hints = FreeHints::new(count, heap_words(FreeHints::words_needed(count)));
        hints.format(count);
        hints
    }

    #[test]
    fn every_item_is_given_once_from_any_start() {
        for count in [1, 63, 64, 65, 5000] {
            let hints = hints(count);
            let start = count / 2;
            let taken: BTreeSet<u32> = std::iter::from_fn(|| hints.take(start)).collect();
            assert_eq!(taken, (0..count).collect(), "{count}");
            assert_eq!(hints.take(0), None);
            hints.offer(count - 1);
            assert_eq!(hints.take(start), Some(count - 1));
        }
    }

    #[test]
    fn foreign_bits_lead_to_no_item_that_is_not_there() {
        for count in [1, 6, 64, 65] {
            let words = heap_words(FreeHints::words_needed(count));
            let hints = FreeHints::new(count, words);
            words.iter().for_each(|word| word.store(u64::MAX, Relaxed));
            let taken: BTreeSet<u32> = std::iter::from_fn(|| hints.take(0)).collect();
            assert_eq!(taken, (0..count).collect(), "{count}");
            let scan = hints.begin_scan().unwrap();
            hints.found_nothing(scan);
            assert!(hints.begin_scan().is_none());
        }
    }

    #[test]
    fn exhaustion_is_remembered_until_a_release() {
        let hints = hints(8);
        let scan = hints.begin_scan().unwrap();
        hints.found_nothing(scan);
        assert!(hints.begin_scan().is_none());
        hints.offer(3);
        let scan = hints.begin_scan().unwrap();
        hints.offer(4);
        hints.found_nothing(scan);
        assert!(hints.begin_scan().is_some(), "a release during the scan");
    }
}
