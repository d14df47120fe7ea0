//! Small values by hash, in a bounded number of shared words: buckets of users and addresses.
//!
//! Knows hashes and values of 48 bits, 0 of which is nothing. A cell is one word, `tag of the hash:16 |
//! value:48`, and the cells of a hash are one window, a cache line. Invariants: 1. A cell is changed by a
//! swap of the whole word: whoever dies leaves it as it was or as it is to be. 2. Where all cells of a window
//! are taken, the one with the least value makes room, which is counted: what it said is forgotten, never
//! the other way round. 3. Two hashes of one window and one tag share a value (one pair of 65,536).

use dunlin_table::death;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// Cells of a window.
const WINDOW: usize = 8;
const VALUE_BITS: u32 = 48;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;
/// How often a cell that others change at the same time is tried.
const TRIES: u32 = 64;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cells {
    evicted: &'static AtomicU64,
    cells: &'static [AtomicU64],
}

impl Cells {
    /// Words for so many values.
    pub(crate) fn words_needed(values: usize) -> usize {
        // The first words count; a line of their own keeps the windows on lines.
        WINDOW + values.div_ceil(WINDOW).max(1) * WINDOW
    }

    /// Over words that were zero at first, as many as [`Cells::words_needed`] says.
    pub(crate) fn new(words: &'static [AtomicU64]) -> Self {
        let (counts, cells) = words.split_at(WINDOW);
        Self { evicted: &counts[0], cells }
    }

    /// The value of a hash, 0 if there is none.
    pub(crate) fn read(&self, hash: u64) -> u64 {
        let window = self.window(hash).iter().map(|cell| cell.load(Acquire));
        let own = window.filter(|seen| seen & !VALUE_MASK == tag(hash)).max();
        own.map_or(0, |seen| seen & VALUE_MASK)
    }

    /// Changes the value of a hash by `change`, which is given 0 where there is none, and may refuse.
    /// `is_idle` says of any value whether it means no more than 0 by now.
    ///
    /// # Errors
    /// As `change`, and nothing is changed.
    pub(crate) fn update<E>(
        &self,
        hash: u64,
        is_idle: impl Fn(u64) -> bool,
        mut change: impl FnMut(u64) -> Result<u64, E>,
    ) -> Result<(), E> {
        for _ in 0..TRIES {
            let (cell, seen) = self.place(hash, &is_idle);
            let is_own = seen & !VALUE_MASK == tag(hash) && seen != 0;
            let value = change(if is_own { seen & VALUE_MASK } else { 0 })?;
            let word = tag(hash) | value.min(VALUE_MASK);
            death::deed();
            if cell.compare_exchange(seen, word, AcqRel, Relaxed).is_ok() {
                if !is_own && seen != 0 && !is_idle(seen & VALUE_MASK) {
                    self.evicted.fetch_add(1, Relaxed);
                }
                return Ok(());
            }
        }
        // Others have it all the time: this once it goes uncounted.
        Ok(())
    }

    /// How many values were forgotten to make room.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// The cell of a hash and its word; else one that is free, idle, or has the least value.
    fn place(&self, hash: u64, is_idle: &impl Fn(u64) -> bool) -> (&'static AtomicU64, u64) {
        let window = self.window(hash);
        let mut best: (&AtomicU64, u64) = (&window[0], u64::MAX);
        let mut least = u64::MAX;
        for cell in window {
            let seen = cell.load(Acquire);
            let value = seen & VALUE_MASK;
            if seen != 0 && seen & !VALUE_MASK == tag(hash) {
                return (cell, seen);
            }
            let weight = if seen == 0 || is_idle(value) { 0 } else { value.max(1) };
            if weight < least {
                least = weight;
                best = (cell, seen);
            }
        }
        best
    }

    fn window(&self, hash: u64) -> &'static [AtomicU64] {
        let windows = u64::try_from(self.cells.len() / WINDOW).unwrap_or(u64::MAX);
        // Below the number of windows, which is a usize; the tag is of other bits.
        let window = usize::try_from((hash & 0xffff_ffff) % windows.max(1)).unwrap_or(0);
        &self.cells[window * WINDOW..(window + 1) * WINDOW]
    }
}

/// The tag of a hash in its place; never 0, so that no cell that is taken looks free.
fn tag(hash: u64) -> u64 {
    (hash >> VALUE_BITS).max(1) << VALUE_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn cells(values: usize) -> Cells {
        Cells::new(dunlin_table::heap_words(Cells::words_needed(values)))
    }

    fn add(cells: &Cells, hash: u64, by: u64) {
        let added: Result<(), ()> = cells.update(hash, |_| false, |value| Ok(value + by));
        added.unwrap();
    }

    #[test]
    fn values_are_kept_by_hash_and_a_refusal_changes_nothing() {
        let cells = cells(64);
        let (ann, bob) = (1 << 50, 2 << 50);
        add(&cells, ann, 3);
        add(&cells, bob, 5);
        add(&cells, ann, 1);
        assert_eq!((cells.read(ann), cells.read(bob), cells.read(3 << 50)), (4, 5, 0));
        assert_eq!(cells.update(ann, |_| false, Err), Err(4));
        assert_eq!(cells.read(ann), 4);
        // A tag of zero bits is one, too.
        add(&cells, 0, 1);
        assert_eq!(cells.read(0), 1);
    }

    #[test]
    fn a_full_window_forgets_what_is_idle_first_and_then_the_least() {
        let cells = cells(1);
        for hash in 1..=8_u64 {
            add(&cells, hash << 50, 10 + hash);
        }
        let nine: Result<(), ()> = cells.update(9 << 50, |value| value == 15, |_| Ok(99));
        nine.unwrap();
        assert_eq!((cells.read(5 << 50), cells.read(9 << 50)), (0, 99), "it was idle");
        assert_eq!(cells.evicted(), 0);
        add(&cells, 10 << 50, 50);
        assert_eq!((cells.read(1 << 50), cells.read(10 << 50)), (0, 50), "it was the least");
        assert_eq!(cells.evicted(), 1);
        assert_eq!(cells.read(2 << 50), 12);
    }

    #[test]
    fn threads_lose_no_addition() {
        let cells = cells(8);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|n| add(&cells, (n % 3 + 1) << 50, 1)));
            }
        });
        let sum: u64 = (1..4_u64).map(|hash| cells.read(hash << 50)).sum();
        assert_eq!(sum, 40_000);
    }

    proptest! {
        #[test]
        fn as_a_map_while_there_is_room(steps in prop::collection::vec((0..8_u64, 1..9_u64), 0..200)) {
            let cells = cells(8);
            let mut map: HashMap<u64, u64> = HashMap::new();
            for (hash, by) in steps {
                add(&cells, hash << 50, by);
                *map.entry(hash).or_default() += by;
            }
            for hash in 0..8 {
                prop_assert_eq!(cells.read(hash << 50), map.get(&hash).copied().unwrap_or(0));
            }
        }
    }
}
