//! Rows without keys: claimed, written, read, freed by any process, with no lock.
//!
//! Knows no process, no key, no clock. A row is named by its index and generation; a stale name is
//! noticed.
//!
//! Invariants: 1. A row's value is the block its current word names; a write fills a block of its own
//! and swaps the word, so it is there as a whole or not at all; but the maker of a row, which is
//! claiming and vacant then, fills the block it had before. 2. The current word changes with each write
//! and each claim and never returns to an earlier value; a write that began before the row was freed
//! and claimed again fails. 3. Readers and writers never wait; somebody who is killed holds at most one
//! row that was being claimed and one block, and [`Rows::recover`] finds both. 4. Nothing is done to a
//! row or a block whose holder is alive.

mod expiry;
mod protocol;
mod take;

pub(crate) use protocol::Entry;

use std::sync::atomic::Ordering::Relaxed;

use crate::blocks::{Blocks, SpareHint};
use crate::death;
use crate::free_hints::FreeHints;
use crate::layout::{LayoutError, RowsLayout};
use crate::schema::{ColumnId, CounterId, Schema};
use crate::sync::AtomicU64;
use crate::value::{
    Draft, Row, Value, ValueRef, WriteError, check, is_whole, load, load_tail, tail_is,
};
use crate::word::{Head, RowState, halves, high_half, low_half};

pub use expiry::{Sweep, Swept};
pub(crate) use take::Taking;

/// Names one life of one row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RowId {
    /// Which row, below the capacity.
    pub index: u32,
    /// Which life of it; never 0.
    pub generation: u32,
}

impl RowId {
    /// `generation << 32 | index`; never 0.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        halves(self.generation, self.index)
    }

    /// The other way round. Any number makes an id; one that names no live row is stale.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self { index: low_half(bits), generation: high_half(bits) }
    }
}

/// What a write keeps of the row's earlier value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kept {
    /// The columns it does not name.
    Others,
    /// It names all, so that nothing need be copied.
    Nothing,
}

impl Kept {
    pub(crate) fn by(schema: &Schema, values: &[(ColumnId, ValueRef<'_>)]) -> Self {
        if is_whole(schema, values) { Self::Nothing } else { Self::Others }
    }
}

/// A fixed number of rows of one schema in shared words.
#[derive(Debug)]
pub struct Rows {
    schema: Schema,
    capacity: u32,
    /// Rows of a keyed table: they come and go by their key only.
    keyed: bool,
    writer: u16,
    /// Head and current word of each row; behind them, in a keyed table, its link and key.
    entries: &'static [AtomicU64],
    entry_stride: usize,
    hints: FreeHints,
    counters: &'static [AtomicU64],
    counter_stride: usize,
    /// A word a row, or none.
    deadlines: &'static [AtomicU64],
    pub(crate) blocks: Blocks,
    spare: SpareHint,
}

impl Rows {
    /// Words that `capacity` rows of `schema` take.
    ///
    /// # Errors
    /// No rows, or more than can be numbered or addressed.
    pub fn words_needed(schema: &Schema, capacity: u32) -> Result<usize, LayoutError> {
        Ok(RowsLayout::new(schema, capacity, false)?.words())
    }

    /// Lays rows over `words`. Zeroed words are formatted, which must be done before other processes
    /// use them; formatted ones are checked against `schema` and `capacity`.
    ///
    /// # Errors
    /// A bad capacity, too few words, or words formatted for something else.
    pub fn new(
        schema: Schema,
        capacity: u32,
        words: &'static [AtomicU64],
    ) -> Result<Self, LayoutError> {
        Self::open(schema, capacity, words, false)
    }

    pub(crate) fn open(
        schema: Schema,
        capacity: u32,
        words: &'static [AtomicU64],
        keyed: bool,
    ) -> Result<Self, LayoutError> {
        let layout = RowsLayout::new(&schema, capacity, keyed)?;
        let formatted = layout.check(words)?;
        let blocks_area = &words[layout.blocks()];
        let rows = Self {
            capacity,
            keyed,
            writer: 0,
            entries: &words[layout.entries()],
            entry_stride: layout.entry_stride(),
            hints: FreeHints::new(capacity, &words[layout.hints()]),
            counters: &words[layout.counters()],
            counter_stride: layout.counter_stride(),
            deadlines: &words[layout.deadlines()],
            blocks: Blocks::new(Blocks::count_for(capacity), schema.row_words(), blocks_area),
            spare: SpareHint::default(),
            schema,
        };
        if !formatted {
            rows.hints.format(capacity);
            rows.blocks.format();
            layout.stamp(words);
        }
        Ok(rows)
    }

    /// Says who this process is in its claims, most often a slot number.
    ///
    /// Two processes that are alive at one time must not have the same number if [`Rows::recover`]
    /// may ever be told that the number is dead: what the living one is filling would be freed.
    pub fn set_writer(&mut self, writer: u16) {
        self.writer = writer;
    }

    /// Claims a free row for `owner`: vacant (zeros, empty strings), its counters zero. `None` if all
    /// rows are taken, or if these are the rows of a keyed table.
    #[must_use]
    pub fn claim(&self, owner: u16) -> Option<RowId> {
        if self.keyed {
            return None;
        }
        death::deed();
        let id = self.claim_hidden()?;
        death::deed();
        self.publish(id, owner).then_some(id)
    }

    /// Frees a row. False if it is gone already, or if these are the rows of a keyed table.
    pub fn free(&self, id: RowId) -> bool {
        if self.keyed {
            return false;
        }
        death::deed();
        let left = self.leave(id, RowState::Live, RowState::Dead).is_some();
        if left {
            death::deed();
            self.release(id, RowState::Dead);
        }
        left
    }

    /// Whether the row is there.
    #[must_use]
    pub fn is_live(&self, id: RowId) -> bool {
        self.entry(id.index).is_some_and(|entry| entry.head().is_live(id.generation))
    }

    /// The live row at an index.
    #[must_use]
    pub fn at(&self, index: u32) -> Option<RowId> {
        let head = self.entry(index)?.head();
        (head.state() == RowState::Live).then(|| RowId { index, generation: head.generation() })
    }

    /// Whose the row is.
    #[must_use]
    pub fn owner(&self, id: RowId) -> Option<u16> {
        let head = self.entry(id.index)?.head();
        head.is_live(id.generation).then(|| head.holder())
    }

    /// Gives the row to another owner. False if it is gone.
    pub fn set_owner(&self, id: RowId, owner: u16) -> bool {
        let Some(entry) = self.entry(id.index) else { return false };
        death::deed();
        loop {
            let head = entry.head();
            if !head.is_live(id.generation) {
                return false;
            }
            let owned = Head::new(id.generation, owner, RowState::Live);
            if entry.swap_head(head, owned) {
                return true;
            }
        }
    }

    /// Copies out all row columns. `None` if the row is gone.
    #[must_use]
    pub fn read(&self, id: RowId) -> Option<Row> {
        let mut row = Row::empty(&self.schema);
        self.read_into(id, &mut row).then_some(row)
    }

    /// [`Rows::read`] into a row that is there, which saves an allocation. If the row is gone, false,
    /// and `row` has no meaning.
    pub fn read_into(&self, id: RowId, row: &mut Row) -> bool {
        self.snapshot(id, |words| row.copy_from(&self.schema, words)).is_some()
    }

    /// Copies out one column. `None` if the row is gone.
    #[must_use]
    pub fn read_column(&self, id: RowId, column: ColumnId) -> Option<Value> {
        let slot = self.schema.slot(column);
        self.snapshot(id, |words| match words {
            Some(words) => load(slot, words),
            None => Row::empty(&self.schema).value(column),
        })
    }

    /// The word of an int column, without allocation. `None` if the row is gone.
    ///
    /// # Panics
    /// When `column` is of another type.
    #[must_use]
    pub fn read_int(&self, id: RowId, column: ColumnId) -> Option<i64> {
        let slot = self.schema.slot(column);
        assert!(
            slot.kind == crate::ColumnKind::Int,
            "column {:?} is {:?} and was read as int",
            self.schema.column_name(column),
            slot.kind
        );
        self.snapshot(id, |words| {
            words.map_or(0, |words| words[slot.offset].load(Relaxed).cast_signed())
        })
    }

    /// Copies the bytes of a string or bytes column into `out`, replacing what is in it. False if the
    /// row is gone; other columns leave `out` empty.
    pub fn read_bytes_into(&self, id: RowId, column: ColumnId, out: &mut Vec<u8>) -> bool {
        let slot = self.schema.slot(column);
        let copied = self.snapshot(id, |words| {
            out.clear();
            if let Some(words) = words {
                load_tail(slot, words, out);
            }
        });
        copied.is_some()
    }

    /// Whether a string or bytes column has this text, compared where it lies: no copy, no allocation.
    /// False if the row is gone; no other column has a text.
    #[must_use]
    pub fn str_is(&self, id: RowId, column: ColumnId, text: &str) -> bool {
        let slot = self.schema.slot(column);
        if !matches!(slot.kind, crate::ColumnKind::Str(_) | crate::ColumnKind::Bytes(_)) {
            return false;
        }
        let same = self.snapshot(id, |words| match words {
            Some(words) => tail_is(slot, words, text.as_bytes()),
            None => text.is_empty(),
        });
        same.unwrap_or(false)
    }

    /// Sets some columns, all or none of them, also under `kill -9`. The others keep their values.
    ///
    /// # Errors
    /// See [`WriteError`]; the row is as it was then.
    pub fn write(&self, id: RowId, values: &[(ColumnId, ValueRef<'_>)]) -> Result<(), WriteError> {
        for (column, value) in values {
            check(&self.schema, *column, *value)?;
        }
        self.write_checked(id, values)
    }

    /// Changes a row by a closure that sees it as it is. The closure returns whether the change is to
    /// be made; it is called again when another process changed the row in between, and must not
    /// depend on how often. Returns whether the change was made.
    ///
    /// # Errors
    /// Those of the closure, `Stale`, or `NoSpareBlock`; the row is as it was then.
    pub fn update(
        &self,
        id: RowId,
        change: impl FnMut(&mut Draft<'_>) -> Result<bool, WriteError>,
    ) -> Result<bool, WriteError> {
        death::deed();
        self.replace(id, RowState::Live, Kept::Others, change)
    }

    /// The word of a counter in one row. It belongs to whoever has the row; a holder of a stale id
    /// still reaches it.
    ///
    /// # Panics
    /// When `index` is not below the capacity or `column` is of another schema.
    #[must_use]
    pub fn counter(&self, column: CounterId, index: u32) -> &'static AtomicU64 {
        death::lend(&self.counters(column)[index as usize])
    }

    /// All words of a counter, one a row in the order of their index.
    ///
    /// # Panics
    /// When `column` is of another schema.
    #[must_use]
    pub fn counters(&self, column: CounterId) -> &'static [AtomicU64] {
        let from = column.number() * self.counter_stride;
        &self.counters[from..from + self.capacity as usize]
    }

    /// How many rows there can be.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How many rows are live, by a scan.
    #[must_use]
    pub fn count(&self) -> u32 {
        (0..self.capacity).map(|index| u32::from(self.at(index).is_some())).sum()
    }

    /// The live rows in the order of their index. A row that is there throughout is seen exactly once.
    pub fn iter(&self) -> impl Iterator<Item = RowId> + '_ {
        (0..self.capacity).filter_map(|index| self.at(index))
    }

    /// The live rows of one owner.
    pub fn owned_by(&self, owner: u16) -> impl Iterator<Item = RowId> + '_ {
        self.iter().filter(move |id| self.owner(*id) == Some(owner))
    }

    /// The columns.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    pub(crate) fn is_keyed(&self) -> bool {
        self.keyed
    }

    pub(crate) fn hints(&self) -> &FreeHints {
        &self.hints
    }
}

/// A clone is another handle on the same rows.
impl Clone for Rows {
    fn clone(&self) -> Self {
        Self {
            schema: self.schema.clone(),
            blocks: self.blocks.clone(),
            hints: self.hints.clone(),
            spare: SpareHint::default(),
            ..*self
        }
    }
}
