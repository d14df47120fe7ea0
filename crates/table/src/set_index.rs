//! Hints from a hash to sets of rows, of any size: who is in a room, who watches a user.
//!
//! A [`HintIndex`] keeps all rows of a hash in one window. Here a set goes on in the windows behind its
//! own. How many it has ever used is its *reach*, a word that only grows, and that sets whose hashes fall
//! together share: one that reaches far costs the others a longer look and nothing else.
//!
//! Knows no key and no row, as [`HintIndex`]. Invariants: 1. The reach of a set is raised before a hint is
//! put beyond it, so whoever looks after an insertion is done finds it. 2. A row that
//! is inserted twice may be found twice.

use std::ops::Range;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use crate::death;
use crate::index::{HintIndex, IndexFull};
use crate::layout::LayoutError;
use crate::sync::AtomicU64;

/// Most windows of one set. An insertion looks no further.
pub const STEPS_MAX: u32 = if cfg!(dunlin_loom) { 3 } else { 1024 };

/// Hints of sets in shared words.
#[derive(Clone, Debug)]
pub struct SetIndex {
    hints: HintIndex,
    reaches: &'static [AtomicU64],
}

impl SetIndex {
    /// Words of an index of so many windows and reaches. Twice as many cells as hints, so
    /// `hints / 32 + 1` windows, leave room for the uneven spread of keys; a reach for each set keeps
    /// small ones apart from large ones.
    ///
    /// # Errors
    /// No windows, or no reaches.
    pub fn words_needed(windows: u32, reaches: u32) -> Result<usize, LayoutError> {
        if reaches == 0 {
            return Err(LayoutError::Empty { what: "reaches" });
        }
        Ok(HintIndex::words_needed(windows)? + reaches as usize)
    }

    /// Lays an index over `words`: zeroed ones are formatted (before other processes use them),
    /// formatted ones checked.
    ///
    /// # Errors
    /// As [`HintIndex::new`].
    pub fn new(
        windows: u32,
        reaches: u32,
        words: &'static [AtomicU64],
    ) -> Result<Self, LayoutError> {
        let needed = Self::words_needed(windows, reaches)?;
        if words.len() < needed {
            return Err(LayoutError::TooFewWords { given: words.len(), needed });
        }
        let (reaches, hints) = words[..needed].split_at(reaches as usize);
        Ok(Self { hints: HintIndex::new(windows, hints)?, reaches })
    }

    /// Adds the hint that `row_index` is in the set of this hash.
    ///
    /// # Errors
    /// [`IndexFull`]: there is no free cell in [`STEPS_MAX`] windows.
    ///
    /// # Panics
    /// As [`HintIndex::insert`].
    pub fn insert(&self, hash: u64, row_index: u32) -> Result<(), IndexFull> {
        let reach = self.reach(hash);
        for step in 0..STEPS_MAX.min(self.hints.windows()) {
            if reach.load(Acquire) <= u64::from(step) {
                death::deed();
                // Before the hint is there, so that nobody who looks for it stops short of it.
                reach.fetch_max(u64::from(step) + 1, AcqRel);
            }
            if self.hints.insert_at(hash, step, row_index).is_ok() {
                return Ok(());
            }
        }
        Err(IndexFull)
    }

    /// Removes a hint. False if it is not there.
    pub fn remove(&self, hash: u64, row_index: u32) -> bool {
        let mut removed = false;
        for step in self.steps(hash) {
            removed |= self.hints.remove_at(hash, step, row_index);
        }
        removed
    }

    /// Calls `visit` with each row index that may be in the set of this hash. Verify it against the row.
    pub fn find(&self, hash: u64, visit: &mut impl FnMut(u32)) {
        self.steps(hash).for_each(|step| self.hints.find_at(hash, step, visit));
    }

    /// Removes stale hints from the windows of `hash`, those of other sets too: as [`HintIndex::sweep`].
    pub fn sweep(&self, hash: u64, mut keep: impl FnMut(u32, u32) -> bool) -> u32 {
        self.steps(hash).map(|step| self.hints.sweep_at(hash, step, &mut keep)).sum()
    }

    /// Calls `visit` with the tag and row index of every hint of any set, as [`HintIndex::each`].
    pub fn each(&self, visit: &mut impl FnMut(u32, u32)) {
        self.hints.each(visit);
    }

    fn steps(&self, hash: u64) -> Range<u32> {
        let reach = u32::try_from(self.reach(hash).load(Acquire)).unwrap_or(STEPS_MAX);
        0..reach.min(STEPS_MAX).min(self.hints.windows())
    }

    fn reach(&self, hash: u64) -> &'static AtomicU64 {
        // Neighbouring windows would share neighbouring reaches: the product scatters them.
        let scattered = u128::from(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let number = (scattered * self.reaches.len() as u128) >> 64;
        &self.reaches[usize::try_from(number).unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::heap_words;
    use std::collections::{BTreeMap, BTreeSet};

    fn index(windows: u32, reaches: u32) -> SetIndex {
        let words = heap_words(SetIndex::words_needed(windows, reaches).unwrap());
        SetIndex::new(windows, reaches, words).unwrap()
    }

    fn found(index: &SetIndex, hash: u64) -> Vec<u32> {
        let mut rows = Vec::new();
        index.find(hash, &mut |row| rows.push(row));
        rows.sort_unstable();
        rows
    }

    #[test]
    fn each_hint_of_any_set_is_shown() {
        let index = index(8, 2);
        for (hash, row) in [(1 << 60 | 3, 5), (1 << 62 | 4, 6), (1 << 60 | 3, 7)] {
            index.insert(hash, row).unwrap();
        }
        index.remove(1 << 60 | 3, 5);
        let mut hints = Vec::new();
        index.each(&mut |tag, row| hints.push((tag, row)));
        hints.sort_unstable();
        assert_eq!(hints, [(3, 7), (4, 6)]);
    }

    #[test]
    fn a_set_is_as_large_as_the_index_has_room() {
        let index = index(64, 8);
        for row in 0..2_000 {
            index.insert(7 << 40 | 1, row).unwrap();
        }
        assert_eq!(found(&index, 7 << 40 | 1), (0..2_000).collect::<Vec<_>>());
        assert!((0..2_000).step_by(2).all(|row| index.remove(7 << 40 | 1, row)));
        assert!(!index.remove(7 << 40 | 1, 0));
        assert_eq!(found(&index, 7 << 40 | 1), (1..2_000).step_by(2).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_index_is_an_error_and_a_sweep_helps() {
        let index = index(2, 1);
        let taken = (0..1_000).take_while(|row| index.insert(9, *row).is_ok()).count();
        assert_eq!(taken, 128, "every cell of both windows");
        assert_eq!(index.insert(5, 1), Err(IndexFull));
        assert_eq!(index.sweep(9, |tag, row| tag == 9 && row < 100), 28);
        index.insert(5, 1).unwrap();
        assert_eq!(found(&index, 5), [1]);
        assert_eq!(found(&index, 9), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn bad_sizes_are_errors() {
        assert!(SetIndex::words_needed(1, 0).unwrap_err().to_string().contains("0 reaches"));
        assert!(SetIndex::words_needed(0, 1).is_err());
        assert!(SetIndex::new(1, 9, heap_words(9 + 64)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn sets_are_what_a_map_of_sets_is(
            deeds in proptest::collection::vec((0..3_u8, 0..6_u64, 0..300_u32), 0..1_500),
        ) {
            let index = index(40, 3);
            let mut model: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
            // Some share their tag, some their window.
            let hash = |set: u64| ((set / 2) << 62) | (set % 2);
            for (deed, set, row) in deeds {
                let known = model.entry(set).or_default();
                match deed {
                    0 => assert_eq!(index.remove(hash(set), row), known.remove(&row)),
                    _ if known.insert(row) => index.insert(hash(set), row).unwrap(),
                    _ => {}
                }
            }
            for (set, rows) in &model {
                assert_eq!(found(&index, hash(*set)), rows.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}
