//! One counter of one row, by handle: a word that anybody changes without waiting.
//!
//! Knows the row's head only to notice that the row is gone.
//!
//! Invariant: 1. Each call touches the word by one instruction that cannot fail for another's sake: it
//! is wait-free, and a kill leaves it done or not done.

#[cfg(feature = "serde")]
use std::sync::atomic::Ordering::Release;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use crate::key::Key;
use crate::rows::{RowId, Rows};
use crate::schema::CounterId;
use crate::sync::AtomicU64;
use crate::table::Table;
use crate::word::Head;

/// A counter column of one life of one row. Sums wrap at 2^64.
///
/// Every call answers `None` when the row is gone. Row and counter are two words, so this is sure only
/// of a row that was gone before the call: when the row is freed *during* it, the change may be made
/// nowhere, or be found by the row's next life. A counter that must not be touched so late belongs to
/// who frees the row.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    word: &'static AtomicU64,
    head: &'static AtomicU64,
    generation: u32,
}

impl Counter {
    /// The count.
    #[must_use]
    pub fn get(self) -> Option<u64> {
        self.if_live(|word| word.load(Acquire))
    }

    #[cfg(feature = "serde")]
    pub(crate) fn set(self, value: u64) -> Option<()> {
        self.if_live(|word| word.store(value, Release))
    }

    /// Adds and returns the sum.
    pub fn incr(self, by: u64) -> Option<u64> {
        self.fetch_add(by).map(|before| before.wrapping_add(by))
    }

    /// Adds and returns what was there before.
    pub fn fetch_add(self, by: u64) -> Option<u64> {
        self.if_live(|word| word.fetch_add(by, AcqRel))
    }

    /// Raises the count to `value` if it is lower; returns the count that is there then.
    pub fn max(self, value: u64) -> Option<u64> {
        self.if_live(|word| word.fetch_max(value, AcqRel).max(value))
    }

    /// Sets the count if it is `expected`; the error says what it is instead.
    pub fn compare_set(self, expected: u64, value: u64) -> Option<Result<(), u64>> {
        self.if_live(|word| word.compare_exchange(expected, value, AcqRel, Acquire).map(|_| ()))
    }

    fn if_live<R>(self, touch: impl FnOnce(&AtomicU64) -> R) -> Option<R> {
        if !self.is_live() {
            return None;
        }
        let result = touch(self.word);
        self.is_live().then_some(result)
    }

    fn is_live(self) -> bool {
        Head(self.head.load(Acquire)).is_live(self.generation)
    }
}

impl Rows {
    /// A counter of a row. `None` if the row is gone.
    ///
    /// # Panics
    /// When `column` is of another schema.
    #[must_use]
    pub fn counter_of(&self, id: RowId, column: CounterId) -> Option<Counter> {
        let head = self.entry(id.index)?.head;
        let word = self.counter(column, id.index);
        let counter = Counter { word, head, generation: id.generation };
        counter.is_live().then_some(counter)
    }
}

impl Table {
    /// A counter of a key's row, found once and then used without a search. `None` if the key has no
    /// row; [`Table::add`] makes one.
    ///
    /// # Panics
    /// When `column` is of another schema.
    pub fn counter<'k>(&self, key: impl Into<Key<'k>>, column: CounterId) -> Option<Counter> {
        let key = key.into();
        while let Some(id) = self.find(key) {
            if let Some(counter) = self.rows().counter_of(id, column) {
                return Some(counter);
            }
        }
        None
    }
}

#[cfg(all(test, not(dunlin_loom)))]
mod tests {
    use super::*;
    use crate::schema::Schema;
    use crate::sync::heap_words;
    use std::sync::atomic::Ordering::Relaxed;

    fn table() -> (Table, CounterId) {
        let schema = Schema::builder().int("n").counter("hits").counter("peak").build().unwrap();
        let words = heap_words(Table::words_needed(&schema, 2).unwrap());
        let column = schema.counter_column("peak").unwrap();
        (Table::new(schema, 2, words).unwrap(), column)
    }

    #[test]
    fn a_counter_counts_by_handle_until_its_row_is_gone() {
        let (table, peak) = table();
        assert!(table.counter("ann", peak).is_none());
        let id = table.set("ann", &[]).unwrap();
        let counter = table.counter("ann", peak).unwrap();
        assert_eq!(
            (counter.get(), counter.incr(3), counter.fetch_add(2)),
            (Some(0), Some(3), Some(3))
        );
        assert_eq!((counter.max(4), counter.max(9)), (Some(5), Some(9)));
        assert_eq!(counter.compare_set(5, 1), Some(Err(9)));
        assert_eq!(counter.compare_set(9, u64::MAX), Some(Ok(())));
        assert_eq!(counter.incr(2), Some(1), "sums wrap");
        table.set("ann", &[]).unwrap();
        assert_eq!(counter.get(), Some(1), "a write of the row does not touch it");
        assert_eq!(table.rows().counter(peak, id.index).load(Acquire), 1);

        assert!(table.del("ann"));
        assert_eq!((counter.get(), counter.incr(1), counter.max(7)), (None, None, None));
        assert_eq!(counter.compare_set(1, 5), None);
        assert!(table.rows().counter_of(id, peak).is_none());
        let next = table.set("ann", &[]).unwrap();
        assert_eq!((next.index, counter.incr(1)), (id.index, None), "the next life is not its row");
        assert_eq!(table.counter("ann", peak).unwrap().get(), Some(0));
    }

    #[test]
    fn an_id_beyond_the_rows_is_stale() {
        let schema = Schema::builder().counter("c").expires().build().unwrap();
        let column = schema.counter_column("c").unwrap();
        let words = heap_words(Rows::words_needed(&schema, 10).unwrap());
        // The padding of the last line says that it is live, as a foreign write may.
        words[8 + 20..8 + 24].iter().for_each(|word| word.store(2, Relaxed));
        let rows = Rows::new(schema, 10, words).unwrap();
        for index in [10, 11, 12, u32::MAX] {
            let id = RowId { index, generation: 0 };
            assert!(rows.counter_of(id, column).is_none() && rows.at(index).is_none());
            assert!(!rows.is_live(id) && !rows.touch(id, 1) && rows.deadline(id).is_none());
            assert!(rows.read(id).is_none() && !rows.free(id) && !rows.set_owner(id, 1));
            assert!(rows.write(id, &[]).is_err() && rows.owner(id).is_none());
        }
    }

    #[test]
    fn nothing_is_lost_between_many() {
        let (table, peak) = table();
        table.set("ann", &[]).unwrap();
        let counter = table.counter("ann", peak).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| assert!(counter.incr(1).is_some())));
            }
        });
        assert_eq!(counter.get(), Some(40_000));
    }
}
