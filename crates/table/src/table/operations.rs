//! What can be done to the row of a key beyond `set`, `get` and `del`: adding it only if it is not
//! there, changing it only if it is, comparing before either, taking it out, counting.
//!
//! Knows no process and no clock. What an operation compares, returns and changes is one value of one
//! row: nothing slips in between.
//!
//! Invariants: 1. Of several that add one key at a time, exactly one makes the row. 2. Of several that
//! delete a row, exactly one is told so, with the value that no later write has changed. 3. A change is
//! made of the very value that was compared.

use std::sync::atomic::Ordering::Relaxed;

use super::insert::Placed;
use super::{Table, TableError};
use crate::death;
use crate::key::{Key, equal};
use crate::rows::{Kept, RowId, Taking};
use crate::schema::{ColumnId, Schema};
use crate::sync::AtomicU64;
use crate::value::{Draft, Row, ValueRef, WriteError, check};
use crate::word::index_of;

/// What [`Table::add`] found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Added {
    /// Nothing: the row was made.
    New(RowId),
    /// The key's row, which was left as it is.
    There(RowId),
}

/// How a change ended that depends on what is in the row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Compared {
    /// The key has no row.
    Absent,
    /// A column holds something else than expected; nothing was changed.
    Differs,
    /// All columns were as expected, and the change was made to this row.
    Done(RowId),
}

/// Columns and what they hold or shall hold.
type Values<'a> = [(ColumnId, ValueRef<'a>)];

impl Table {
    /// Makes a key's row if there is none; the columns that are not given are zero and empty. One that
    /// is there is left as it is.
    ///
    /// # Errors
    /// `KeyTooLong`, `Full`, or `Write`; nothing is changed then.
    pub fn add<'k>(
        &self,
        key: impl Into<Key<'k>>,
        values: &Values<'_>,
    ) -> Result<Added, TableError> {
        check_all(self.schema(), values)?;
        let placed = self.place(key.into(), 0, &mut put_all(values), |id, _| Ok(Some(id)))?;
        Ok(match placed {
            Placed::Made(id) => Added::New(id),
            Placed::Found(id) => Added::There(id),
        })
    }

    /// The row of a key, made of `values` if there is none.
    ///
    /// # Errors
    /// As [`Table::add`].
    pub fn get_or_insert<'k>(
        &self,
        key: impl Into<Key<'k>>,
        values: &Values<'_>,
    ) -> Result<(RowId, Row), TableError> {
        let key = key.into();
        loop {
            let (Added::New(id) | Added::There(id)) = self.add(key, values)?;
            // One that was deleted meanwhile is made anew.
            if let Some(row) = self.rows.read(id) {
                return Ok((id, row));
            }
        }
    }

    /// Sets columns of a key's row if there is one. All columns or none.
    ///
    /// # Errors
    /// `KeyTooLong` or `Write`; nothing is changed then.
    pub fn update<'k>(
        &self,
        key: impl Into<Key<'k>>,
        values: &Values<'_>,
    ) -> Result<Option<RowId>, TableError> {
        check_all(self.schema(), values)?;
        let done = self.update_with(key, |draft| put_all(values)(draft).map(|()| true))?;
        Ok(match done {
            Compared::Done(id) => Some(id),
            Compared::Absent | Compared::Differs => None,
        })
    }

    /// Changes a key's row, if there is one, by a closure that sees it as it is and returns whether the
    /// change is to be made (`Differs` if not). It may be called several times and must not depend on
    /// how often.
    ///
    /// # Errors
    /// `KeyTooLong`, or what the closure returned; nothing is changed then.
    pub fn update_with<'k>(
        &self,
        key: impl Into<Key<'k>>,
        mut change: impl FnMut(&mut Draft<'_>) -> Result<bool, WriteError>,
    ) -> Result<Compared, TableError> {
        let key = self.checked(key.into())?;
        while let Some(id) = self.find(key) {
            if let Some(changed) = self.rewrite(id, Kept::Others, &mut change)? {
                return Ok(if changed { Compared::Done(id) } else { Compared::Differs });
            }
        }
        Ok(Compared::Absent)
    }

    /// Sets columns of a key's row if others (or the same) hold what is `expected`; with nothing expected,
    /// if there is a row. Floats are compared by their bits, so that what was read always equals itself.
    ///
    /// # Errors
    /// `KeyTooLong` or `Write`, the latter also for an expectation that the column cannot hold; nothing
    /// is changed then.
    pub fn compare_set<'k>(
        &self,
        key: impl Into<Key<'k>>,
        expected: &Values<'_>,
        values: &Values<'_>,
    ) -> Result<Compared, TableError> {
        check_all(self.schema(), expected)?;
        check_all(self.schema(), values)?;
        self.update_with(key, |draft| {
            let as_expected = holds_all(self.schema(), Some(draft.words()), expected);
            if as_expected {
                put_all(values)(draft)?;
            }
            Ok(as_expected)
        })
    }

    /// Deletes a key's row if its columns hold what is `expected`, compared as in [`Table::compare_set`].
    ///
    /// # Errors
    /// `KeyTooLong`, or `Write` for an expectation that the column cannot hold.
    pub fn compare_del<'k>(
        &self,
        key: impl Into<Key<'k>>,
        expected: &Values<'_>,
    ) -> Result<Compared, TableError> {
        check_all(self.schema(), expected)?;
        let key = self.checked(key.into())?;
        while let Some(id) = self.find(key) {
            match self.remove_if(id, |words| holds_all(self.schema(), words, expected)) {
                Taking::Done => return Ok(Compared::Done(id)),
                Taking::Declined => return Ok(Compared::Differs),
                Taking::Gone => {}
            }
        }
        Ok(Compared::Absent)
    }

    /// Deletes a key's row and returns its last value: of all writes that said they were done, none came
    /// later. `None` if there is no row, or if another took it. Counters are not in it.
    pub fn get_del<'k>(&self, key: impl Into<Key<'k>>) -> Option<Row> {
        let key = key.into();
        let mut row = Row::empty(self.schema());
        while let Some(id) = self.find(key) {
            if self.remove_into(id, &mut row) {
                return Some(row);
            }
        }
        None
    }

    /// [`Table::get_del`] by handle, into a row that is there. If the handle's row is gone, false, and
    /// `row` has no meaning.
    pub fn remove_into(&self, id: RowId, row: &mut Row) -> bool {
        let copy = |words: Option<&[AtomicU64]>| {
            row.copy_from(self.schema(), words);
            true
        };
        self.remove_if(id, copy) == Taking::Done
    }

    /// [`Table::get`] into a row that is there, which saves an allocation. `None` if the key has no row;
    /// `row` has no meaning then.
    pub fn get_into<'k>(&self, key: impl Into<Key<'k>>, row: &mut Row) -> Option<RowId> {
        let key = key.into();
        while let Some(id) = self.find(key) {
            if self.rows.read_into(id, row) {
                return Some(id);
            }
        }
        None
    }

    /// Adds to an int column, making the row if it is not there, and returns the sum.
    ///
    /// # Errors
    /// As [`Table::set`], and `OutOfRange` when the sum does not fit.
    pub fn incr<'k>(
        &self,
        key: impl Into<Key<'k>>,
        column: ColumnId,
        by: i64,
    ) -> Result<i64, TableError> {
        let mut sum = 0;
        self.upsert(key, |draft| draft.add_int(column, by).map(|added| sum = added))?;
        Ok(sum)
    }

    /// Takes from an int column; see [`Table::incr`].
    ///
    /// # Errors
    /// As [`Table::incr`].
    pub fn decr<'k>(
        &self,
        key: impl Into<Key<'k>>,
        column: ColumnId,
        by: i64,
    ) -> Result<i64, TableError> {
        let negated = by.checked_neg().ok_or_else(|| WriteError::OutOfRange {
            column: Box::from(self.schema().column_name(column)),
        })?;
        self.incr(key, column, negated)
    }

    /// Adds to a float column, making the row if it is not there, and returns the sum.
    ///
    /// # Errors
    /// As [`Table::set`].
    pub fn incr_float<'k>(
        &self,
        key: impl Into<Key<'k>>,
        column: ColumnId,
        by: f64,
    ) -> Result<f64, TableError> {
        let mut sum = 0.0;
        self.upsert(key, |draft| draft.add_float(column, by).map(|added| sum = added))?;
        Ok(sum)
    }

    /// Deletes the row of a handle if `look` at its words says so; see [`Rows::take`].
    pub(super) fn remove_if(
        &self,
        id: RowId,
        look: impl FnMut(Option<&'static [AtomicU64]>) -> bool,
    ) -> Taking {
        death::deed();
        let taking = self.rows.take(id, look);
        if taking == Taking::Done {
            self.lists.bury(&self.rows, id);
        }
        taking
    }
}

pub(super) fn check_all(schema: &Schema, values: &Values<'_>) -> Result<(), WriteError> {
    values.iter().try_for_each(|(column, value)| check(schema, *column, *value))
}

/// Sets values that were checked.
pub(super) fn put_all(values: &Values<'_>) -> impl Fn(&mut Draft<'_>) -> Result<(), WriteError> {
    move |draft| {
        for (column, value) in values {
            draft.put(*column, *value);
        }
        Ok(())
    }
}

/// Whether the words of a row (`None`: all zero) hold checked values. They may be torn; the caller
/// checks that before it believes the answer.
fn holds_all(schema: &Schema, words: Option<&[AtomicU64]>, values: &Values<'_>) -> bool {
    values.iter().all(|(column, value)| {
        let slot = schema.slot(*column);
        let first = words.map_or(0, |words| words[slot.offset].load(Relaxed));
        let bytes = match value {
            ValueRef::Int(value) => return first == value.cast_unsigned(),
            ValueRef::Float(value) => return first == value.to_bits(),
            ValueRef::Str(text) => text.as_bytes(),
            ValueRef::Bytes(bytes) => bytes,
        };
        index_of(first) == bytes.len()
            && words.is_none_or(|words| equal(bytes, &words[slot.tail..]))
    })
}
