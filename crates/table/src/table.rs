//! A keyed table: rows found by any bytes or a number as key.
//!
//! Knows no process and no clock. Exactly `capacity` rows fit, whatever their keys.
//!
//! Invariants: 1. A key has at most one live row. 2. An insertion is done when its row is linked into
//! the list of its bucket, a deletion when the head of its row says `Dead`, which sealing its value
//! decided before (`rows/take.rs`); each is one swap of one word. 3. What is half done belongs to nobody's
//! lock: a linked row is made live, and a dead row taken out, by whoever meets it; [`Table::recover`]
//! finds the rest.

mod expiry;
mod insert;
mod operations;

use crate::key::{Key, OwnedKey};
use crate::layout::{LayoutError, check_header, stamp_header};
use crate::list::{Lists, Record, Sought};
use crate::recover::Recovered;
#[cfg(not(dunlin_loom))]
use crate::region::{Region, RegionError};
use crate::rows::{Kept, RowId, Rows, Taking};
use crate::schema::{ColumnId, Schema};
use crate::stats::Stats;
use crate::sync::AtomicU64;
use crate::value::{Draft, Row, Value, ValueRef, WriteError};
use crate::word::{RowState, word_of};

use insert::Placed;
pub use operations::{Added, Compared};
use operations::{check_all, put_all};

/// First word of a table's own header: "dunlinkt".
const MAGIC: u64 = u64::from_be_bytes(*b"dunlinkt");
const LAYOUT_VERSION: u64 = 3;
const HEADER_WORDS: usize = 8;
/// Where the header keeps the seed of the hash.
const SEED_WORD: usize = 5;

/// Making or using a table failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The memory cannot be laid out.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The shared segment cannot be made.
    #[cfg(not(dunlin_loom))]
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The key is longer than the schema allows.
    #[error("a key of {len} bytes is longer than {limit}")]
    KeyTooLong {
        /// Bytes of the key.
        len: usize,
        /// The schema's limit.
        limit: usize,
    },
    /// All rows are taken, those included that others are just making. Updates of rows that are there
    /// still work.
    #[error("all {capacity} rows are taken")]
    Full {
        /// Rows of the table.
        capacity: u32,
    },
    /// The rows of the key's bucket lead in a circle: something else wrote into the table's memory. Reads
    /// find what they meet before; rows of other buckets are not concerned.
    #[error("the list of the key's bucket is a ring: something else wrote into the table's memory")]
    BrokenList,
    /// The schema gives rows no deadline.
    #[error("the schema has no deadlines: SchemaBuilder::expires adds them")]
    NoDeadlines,
    /// The values cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A keyed table in shared words.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Rows,
    lists: Lists,
    seed: u64,
}

/// A row with its key, copied out.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The handle.
    pub id: RowId,
    /// The key.
    pub key: OwnedKey,
    /// The columns.
    pub row: Row,
}

impl Table {
    /// Creates a table in a shared segment of its own. Call it before the first fork.
    ///
    /// # Errors
    /// See [`LayoutError`] and [`RegionError`]; each names the number that is wrong.
    #[cfg(not(dunlin_loom))]
    pub fn create(schema: Schema, capacity: u32) -> Result<Self, TableError> {
        let words = Self::words_needed(&schema, capacity)?;
        Self::new(schema, capacity, Region::create(words)?.words(0..words))
    }

    /// Words that a table takes.
    ///
    /// # Errors
    /// No rows, or more than can be numbered or addressed.
    pub fn words_needed(schema: &Schema, capacity: u32) -> Result<usize, LayoutError> {
        let too_large = LayoutError::TooLarge { what: "rows", count: capacity };
        let rows = rows_area(schema, capacity)?;
        let lists = HEADER_WORDS + Lists::bucket_count(capacity);
        rows.checked_add(lists).ok_or(too_large)
    }

    /// Lays a table over `words`. Zeroed words are formatted, which must be done before other
    /// processes use them; formatted ones are checked.
    ///
    /// # Errors
    /// A bad capacity, too few words, or words formatted for something else.
    pub fn new(
        schema: Schema,
        capacity: u32,
        words: &'static [AtomicU64],
    ) -> Result<Self, TableError> {
        let needed = Self::words_needed(&schema, capacity)?;
        if words.len() < needed {
            return Err(LayoutError::TooFewWords { given: words.len(), needed }.into());
        }
        let key_limit = schema.key_limit();
        let (rows_words, words) = words.split_at(rows_area(&schema, capacity)?);
        let (header, lists) = words.split_at(HEADER_WORDS);
        let buckets = word_of(Lists::bucket_count(capacity));
        let expected = [MAGIC, LAYOUT_VERSION, u64::from(capacity), buckets, word_of(key_limit)];
        let names = ["kind of memory", "layout version", "capacity", "buckets", "key limit"];
        let formatted = check_header(&expected, &names, header, HEADER_WORDS)?;
        let rows = Rows::open(schema, capacity, rows_words, true)?;
        let seed_word = &header[SEED_WORD];
        if !formatted {
            seed_word.store(crate::random_seed(), std::sync::atomic::Ordering::Relaxed);
            stamp_header(&expected, header);
        }
        let seed = seed_word.load(std::sync::atomic::Ordering::Relaxed);
        Ok(Self { rows, lists: Lists::new(capacity, lists), seed })
    }

    /// Says who this process is in its claims; see [`Rows::set_writer`].
    pub fn set_writer(&mut self, writer: u16) {
        self.rows.set_writer(writer);
    }

    /// Sets columns of a key's row, which is made if it is not there (the other columns zero and
    /// empty then). All columns or none.
    ///
    /// # Errors
    /// `KeyTooLong`, `Full`, or `Write`; nothing is changed then.
    pub fn set<'k>(
        &self,
        key: impl Into<Key<'k>>,
        values: &[(ColumnId, ValueRef<'_>)],
    ) -> Result<RowId, TableError> {
        check_all(self.schema(), values)?;
        let kept = Kept::by(self.schema(), values);
        self.place(key.into(), 0, &mut put_all(values), |id, put| self.refill(id, kept, put))
            .map(Placed::any)
    }

    /// Changes a key's row by a closure, which sees zeros and empty strings if the row is not there
    /// yet. The closure may be called several times and must not depend on how often.
    ///
    /// # Errors
    /// `KeyTooLong`, `Full`, or what the closure returned; nothing is changed then.
    pub fn upsert<'k>(
        &self,
        key: impl Into<Key<'k>>,
        mut change: impl FnMut(&mut Draft<'_>) -> Result<(), WriteError>,
    ) -> Result<RowId, TableError> {
        self.place(key.into(), 0, &mut change, |id, change| self.refill(id, Kept::Others, change))
            .map(Placed::any)
    }

    /// [`Table::rewrite`] by a closure that always changes the row, for [`Table::place`].
    fn refill(
        &self,
        id: RowId,
        kept: Kept,
        change: &mut impl FnMut(&mut Draft<'_>) -> Result<(), WriteError>,
    ) -> Result<Option<RowId>, TableError> {
        Ok(self.rewrite(id, kept, |draft| change(draft).map(|()| true))?.map(|_| id))
    }

    /// Changes the row that was found for a key, by a closure that says whether the change is to be made.
    /// `None`: it was deleted meanwhile.
    fn rewrite(
        &self,
        id: RowId,
        kept: Kept,
        mut change: impl FnMut(&mut Draft<'_>) -> Result<bool, WriteError>,
    ) -> Result<Option<bool>, TableError> {
        // The closure's own error, which may be `Stale` too, says nothing of the row.
        let mut refused = None;
        let edit = |draft: &mut Draft<'_>| {
            Ok(change(draft).unwrap_or_else(|error| {
                refused = Some(error);
                false
            }))
        };
        let changed = match self.rows.replace(id, RowState::Live, kept, edit) {
            Err(WriteError::Stale) => None,
            changed => Some(changed?),
        };
        refused.map_or(Ok(changed), |error| Err(error.into()))
    }

    /// The row of a key, copied out.
    pub fn get<'k>(&self, key: impl Into<Key<'k>>) -> Option<Row> {
        let mut row = Row::empty(self.schema());
        self.get_into(key, &mut row).map(|_| row)
    }

    /// One column of a key's row.
    pub fn get_column<'k>(&self, key: impl Into<Key<'k>>, column: ColumnId) -> Option<Value> {
        let key = key.into();
        while let Some(id) = self.find(key) {
            if let Some(value) = self.rows.read_column(id, column) {
                return Some(value);
            }
        }
        None
    }

    /// The handle of a key's row. With it, [`Table::rows`] reads, writes and counts without a search.
    pub fn find<'k>(&self, key: impl Into<Key<'k>>) -> Option<RowId> {
        let key = self.checked(key.into()).ok()?;
        match self.seek(key.hash(self.seed), key) {
            Sought::Found(id) => Some(id),
            Sought::Absent(..) | Sought::Broken => None,
        }
    }

    /// Whether a key has a row.
    pub fn exists<'k>(&self, key: impl Into<Key<'k>>) -> bool {
        self.find(key).is_some()
    }

    /// Deletes a key's row. False if there is none.
    pub fn del<'k>(&self, key: impl Into<Key<'k>>) -> bool {
        let key = key.into();
        while let Some(id) = self.find(key) {
            if self.remove(id) {
                return true;
            }
        }
        false
    }

    /// Deletes the row of a handle. False if it is gone already.
    pub fn remove(&self, id: RowId) -> bool {
        self.remove_if(id, |_| true) == Taking::Done
    }

    /// The key of a handle's row.
    #[must_use]
    pub fn key(&self, id: RowId) -> Option<OwnedKey> {
        let (_, record) = Record::of(&self.rows, id.index)?;
        if !self.rows.is_live(id) {
            return None;
        }
        let key = OwnedKey::load(record.key, self.schema().key_limit());
        crate::sync::fence(std::sync::atomic::Ordering::Acquire);
        // A key is written only while its row is not live.
        self.rows.is_live(id).then_some(key)
    }

    /// All rows in the order of their place. A row that is there throughout is seen exactly once; any
    /// number of iterations may run at once, and rows may come and go meanwhile.
    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.rows.iter().filter_map(|id| {
            let row = self.rows.read(id)?;
            Some(Entry { id, key: self.key(id)?, row })
        })
    }

    /// Access by handle: read, write, counters. (Its `claim` and `free` do nothing here: rows of a
    /// table come and go by their key.)
    #[must_use]
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The columns.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        self.rows.schema()
    }

    /// How many rows there can be.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.rows.capacity()
    }

    /// How many rows there are, by a scan.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.rows.count()
    }

    /// How the table is filled, by a scan.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let words = Self::words_needed(self.schema(), self.capacity()).unwrap_or_default();
        Stats { memory_bytes: words * size_of::<u64>(), ..self.rows.stats() }
    }

    /// Finishes or gives back what dead writers had under way; see [`Rows::recover`].
    pub fn recover(&self, is_dead: impl Fn(u16) -> bool) -> Recovered {
        let mut rows = 0;
        for index in 0..self.capacity() {
            let Some(head) = self.rows.entry(index).map(|entry| entry.head()) else { break };
            let id = RowId { index, generation: head.generation() };
            match head.state() {
                // Being linked is what makes it live, and finding it linked does that.
                RowState::Claiming
                    if is_dead(head.holder()) && !self.lists.is_linked(&self.rows, index) =>
                {
                    rows += u32::from(self.rows.release(id, RowState::Claiming));
                }
                _ => {}
            }
            // Whoever lives and is about to do the same finds it done.
            if let Some(dead) = self.rows.dead_at(index) {
                rows += u32::from(self.lists.bury(&self.rows, dead));
            }
        }
        self.rows.restore_row_hints();
        Recovered { rows, blocks: self.rows.recover_blocks(&is_dead) }
    }

    fn checked<'k>(&self, key: Key<'k>) -> Result<Key<'k>, TableError> {
        let (len, limit) = (key.len(), self.schema().key_limit());
        if len > limit { Err(TableError::KeyTooLong { len, limit }) } else { Ok(key) }
    }

    fn seek(&self, hash: u64, key: Key<'_>) -> Sought {
        self.lists.seek(&self.rows, hash, |_, words| key.is_in(words))
    }
}

/// Words of the rows' part, padded so that the table's header starts on a cache line.
fn rows_area(schema: &Schema, capacity: u32) -> Result<usize, LayoutError> {
    let rows = crate::layout::RowsLayout::new(schema, capacity, true)?.words();
    rows.checked_next_multiple_of(HEADER_WORDS)
        .ok_or(LayoutError::TooLarge { what: "rows", count: capacity })
}
