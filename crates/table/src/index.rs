//! Hints from a hash to row indexes: which rows may have a key.
//!
//! Knows no key and no row: the caller verifies each hint against the row and may find it wrong. So a
//! hint that somebody left behind by dying costs a look and nothing else.
//!
//! Invariants: 1. The cells of a hash lie in one window of [`WINDOW_CELLS`] cells that is read whole;
//! a free cell names no row, and nothing moves. 2. Each insertion, of a hint that is there or into a free
//! cell, raises the cell's version, which outlives the hint: a sweeper that judged the old hint stale
//! fails to remove the new one, until 256 insertions into that cell later.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use crate::death;
use crate::layout::{LayoutError, check_header, stamp_header};
use crate::sync::AtomicU64;
use crate::word::{MAX_ITEMS, low_half};

/// Cells of a window, and so most hints that hashes falling into it have together.
pub const WINDOW_CELLS: usize = if cfg!(dunlin_loom) { 4 } else { 64 };

/// First word of formatted memory: "dunlinix".
const MAGIC: u64 = u64::from_be_bytes(*b"dunlinix");
const LAYOUT_VERSION: u64 = 2;
const HEADER_WORDS: usize = 8;

/// Hints in shared words.
#[derive(Clone, Debug)]
pub struct HintIndex {
    windows: u32,
    cells: &'static [AtomicU64],
}

/// All cells of the window are taken: either too many rows have keys of this window, or stale hints
/// wait for [`HintIndex::sweep`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("all {WINDOW_CELLS} cells of the key's window are taken")]
pub struct IndexFull;

/// One cell: `tag of the hash:32 | version:8 | row + 1:24`. A free one has tag and row 0, and the version
/// of the last hint that was in it.
#[derive(Clone, Copy)]
struct Cell(u64);

impl HintIndex {
    /// Words of an index of so many windows. Two cells a row, so `rows / 32 + 1` windows, leave room
    /// for the uneven spread of keys.
    ///
    /// # Errors
    /// No windows.
    pub fn words_needed(windows: u32) -> Result<usize, LayoutError> {
        if windows == 0 {
            return Err(LayoutError::Empty { what: "windows" });
        }
        let too_large = LayoutError::TooLarge { what: "windows", count: windows };
        let cells = WINDOW_CELLS.checked_mul(windows as usize).ok_or(too_large)?;
        Ok(HEADER_WORDS + cells)
    }

    /// Lays an index over `words`: zeroed ones are formatted (before other processes use them),
    /// formatted ones checked.
    ///
    /// # Errors
    /// No windows, too few words, or words formatted for something else.
    pub fn new(windows: u32, words: &'static [AtomicU64]) -> Result<Self, LayoutError> {
        let needed = Self::words_needed(windows)?;
        let header = [MAGIC, LAYOUT_VERSION, u64::from(windows)];
        let names = ["kind of memory", "layout version", "number of windows"];
        if !check_header(&header, &names, words, needed)? {
            stamp_header(&header, words);
        }
        Ok(Self { windows, cells: &words[HEADER_WORDS..needed] })
    }

    /// Adds the hint that `row_index` may have a key of this hash. One that is there already is
    /// renewed. Insert after the row is live, remove before it is freed.
    ///
    /// # Errors
    /// [`IndexFull`].
    ///
    /// # Panics
    /// When `row_index` is no row of any table ([`MAX_ROWS`](crate::MAX_ROWS)).
    pub fn insert(&self, hash: u64, row_index: u32) -> Result<(), IndexFull> {
        self.insert_at(hash, 0, row_index)
    }

    /// As [`HintIndex::insert`], into the window that lies `step` windows behind the hash's own.
    pub(crate) fn insert_at(&self, hash: u64, step: u32, row_index: u32) -> Result<(), IndexFull> {
        assert!(row_index <= MAX_ITEMS, "row {row_index} is beyond {MAX_ITEMS}");
        death::deed();
        let window = self.window(hash, step);
        loop {
            let mut free = None;
            let mut raced = false;
            for cell in window {
                let seen = Cell(cell.load(Acquire));
                if seen.is_for(hash, row_index) {
                    let renewed = seen.successor(hash, row_index);
                    if cell.compare_exchange(seen.0, renewed.0, AcqRel, Relaxed).is_ok() {
                        return Ok(());
                    }
                    raced = true;
                } else if seen.row_index().is_none() && free.is_none() {
                    free = Some((cell, seen));
                }
            }
            let Some((cell, free)) = free else {
                return if raced { continue } else { Err(IndexFull) };
            };
            let hint = free.successor(hash, row_index);
            if !raced && cell.compare_exchange(free.0, hint.0, AcqRel, Relaxed).is_ok() {
                return Ok(());
            }
        }
    }

    /// Removes a hint. False if it is not there.
    pub fn remove(&self, hash: u64, row_index: u32) -> bool {
        self.remove_at(hash, 0, row_index)
    }

    /// As [`HintIndex::remove`], from the window that lies `step` windows behind the hash's own.
    pub(crate) fn remove_at(&self, hash: u64, step: u32, row_index: u32) -> bool {
        death::deed();
        let mut removed = false;
        for cell in self.window(hash, step) {
            let mut seen = Cell(cell.load(Acquire));
            while seen.is_for(hash, row_index) {
                match cell.compare_exchange(seen.0, seen.freed().0, AcqRel, Acquire) {
                    Ok(_) => {
                        removed = true;
                        break;
                    }
                    Err(now) => seen = Cell(now),
                }
            }
        }
        removed
    }

    /// Calls `visit` with each row index that may have a key of this hash. Verify it against the row.
    pub fn find(&self, hash: u64, visit: &mut impl FnMut(u32)) {
        self.find_at(hash, 0, visit);
    }

    /// As [`HintIndex::find`], in the window that lies `step` windows behind the hash's own.
    pub(crate) fn find_at(&self, hash: u64, step: u32, visit: &mut impl FnMut(u32)) {
        for cell in self.window(hash, step) {
            let seen = Cell(cell.load(Acquire));
            if seen.tag() == low_half(hash)
                && let Some(row_index) = seen.row_index()
            {
                visit(row_index);
            }
        }
    }

    /// Removes the stale hints from the window of `hash`: `keep` gets the tag ([`HintIndex::tag`]) and
    /// row index of each. A hint renewed, or removed and
    /// inserted, after `keep` saw it stays. Returns how many were removed.
    pub fn sweep(&self, hash: u64, mut keep: impl FnMut(u32, u32) -> bool) -> u32 {
        self.sweep_at(hash, 0, &mut keep)
    }

    /// As [`HintIndex::sweep`], of the window that lies `step` windows behind the hash's own.
    pub(crate) fn sweep_at(
        &self,
        hash: u64,
        step: u32,
        keep: &mut impl FnMut(u32, u32) -> bool,
    ) -> u32 {
        let mut removed = 0;
        for cell in self.window(hash, step) {
            let seen = Cell(cell.load(Acquire));
            if let Some(row_index) = seen.row_index()
                && !keep(seen.tag(), row_index)
            {
                death::deed();
                let swapped = cell.compare_exchange(seen.0, seen.freed().0, AcqRel, Relaxed);
                removed += u32::from(swapped.is_ok());
            }
        }
        removed
    }

    /// Calls `visit` with the tag and row index of every hint: for who checks the index as a whole.
    pub fn each(&self, visit: &mut impl FnMut(u32, u32)) {
        for cell in self.cells {
            let seen = Cell(cell.load(Acquire));
            if let Some(row_index) = seen.row_index() {
                visit(seen.tag(), row_index);
            }
        }
    }

    /// What a cell keeps of a hash.
    #[must_use]
    pub fn tag(hash: u64) -> u32 {
        low_half(hash)
    }

    pub(crate) fn windows(&self) -> u32 {
        self.windows
    }

    fn window(&self, hash: u64, step: u32) -> &'static [AtomicU64] {
        // The high bits choose the window, the low ones are the tag.
        let own = (u128::from(hash) * u128::from(self.windows)) >> 64;
        let number = (own + u128::from(step)) % u128::from(self.windows);
        let from = usize::try_from(number).unwrap_or_default() * WINDOW_CELLS;
        &self.cells[from..from + WINDOW_CELLS]
    }
}

impl Cell {
    const VERSION: u64 = 0xff << 24;

    fn tag(self) -> u32 {
        low_half(self.0 >> 32)
    }

    fn row_index(self) -> Option<u32> {
        low_half(self.0 & 0xff_ffff).checked_sub(1)
    }

    fn is_for(self, hash: u64, row_index: u32) -> bool {
        self.tag() == low_half(hash) && self.row_index() == Some(row_index)
    }

    /// The hint that takes this one's place, or this free cell.
    fn successor(self, hash: u64, row_index: u32) -> Self {
        let version = self.0.wrapping_add(1 << 24) & Self::VERSION;
        Self(u64::from(low_half(hash)) << 32 | version | (u64::from(row_index) + 1))
    }

    fn freed(self) -> Self {
        Self(self.0 & Self::VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::heap_words;

    fn index(windows: u32) -> HintIndex {
        let words = heap_words(HintIndex::words_needed(windows).unwrap());
        HintIndex::new(windows, words).unwrap()
    }

    fn found(index: &HintIndex, hash: u64) -> Vec<u32> {
        let mut rows = Vec::new();
        index.find(hash, &mut |row| rows.push(row));
        rows.sort_unstable();
        rows
    }

    #[test]
    fn hints_come_and_go() {
        let index = index(3);
        for row in [7, 0, MAX_ITEMS, 7] {
            index.insert(u64::MAX, row).unwrap();
        }
        index.insert(0, 5).unwrap();
        assert_eq!(found(&index, u64::MAX), [0, 7, MAX_ITEMS]);
        assert_eq!(found(&index, 0), [5]);
        assert!(index.remove(u64::MAX, 7) && !index.remove(u64::MAX, 7));
        assert_eq!(found(&index, u64::MAX), [0, MAX_ITEMS]);
    }

    #[test]
    fn a_full_window_is_an_error_and_a_sweep_helps() {
        let index = index(1);
        for row in 0..64 {
            index.insert(u64::from(row), row).unwrap();
        }
        assert_eq!(index.insert(99, 99), Err(IndexFull));
        index.insert(3, 3).unwrap();
        assert_eq!(index.sweep(0, |tag, row| tag == row && row % 2 == 0), 32);
        index.insert(99, 99).unwrap();
        assert!(found(&index, 3).is_empty());
    }

    #[test]
    fn a_renewed_hint_survives_a_sweeper_that_saw_the_old_one() {
        let index = index(1);
        index.insert(9, 1).unwrap();
        let removed = index.sweep(9, |_, _| {
            index.insert(9, 1).unwrap(); // the row came back to life with the same key
            false
        });
        assert_eq!((removed, found(&index, 9)), (0, vec![1]));
    }

    #[test]
    fn a_hint_in_the_cell_of_a_removed_one_survives_a_sweeper_that_saw_that() {
        let index = index(1);
        index.insert(9, 1).unwrap();
        let removed = index.sweep(9, |_, _| {
            assert!(index.remove(9, 1)); // its owner goes
            index.insert(9, 1).unwrap(); // the row's next life has the same key
            false
        });
        assert_eq!((removed, found(&index, 9)), (0, vec![1]));
    }

    #[test]
    fn bad_sizes_are_errors() {
        assert!(HintIndex::words_needed(0).unwrap_err().to_string().contains("0 windows"));
        assert!(HintIndex::new(2, heap_words(HEADER_WORDS + 64)).is_err());
        let words = heap_words(HintIndex::words_needed(2).unwrap());
        HintIndex::new(2, words).unwrap();
        assert!(HintIndex::new(1, words).unwrap_err().to_string().contains("0x2 instead of 0x1"));
    }
}
