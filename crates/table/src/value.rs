//! Values of columns, and a row copied out.
//!
//! Knows the layout of one row and nothing of how it is shared. What is read is not trusted: lengths
//! are clamped to the column's limit, text is checked.

mod bytes;

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use crate::schema::{ColumnId, ColumnKind, Schema, Slot};
use crate::sync::AtomicU64;
use crate::word::{WORD_BYTES, index_of, word_of};

pub(crate) use bytes::{are_stored, into_text, last_word, load_bytes, store_at, store_bytes};
use bytes::{take_over, valid_text};

/// A value of its own.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Of an int column.
    Int(i64),
    /// Of a float column.
    Float(f64),
    /// Of a string column.
    Str(String),
    /// Of a bytes column.
    Bytes(Vec<u8>),
}

/// A value to write.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ValueRef<'a> {
    /// For an int column.
    Int(i64),
    /// For a float column.
    Float(f64),
    /// For a string column.
    Str(&'a str),
    /// For a bytes column.
    Bytes(&'a [u8]),
}

impl Value {
    /// Borrows it, to be written.
    #[must_use]
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Int(value) => ValueRef::Int(*value),
            Self::Float(value) => ValueRef::Float(*value),
            Self::Str(value) => ValueRef::Str(value),
            Self::Bytes(value) => ValueRef::Bytes(value),
        }
    }
}

impl From<i64> for ValueRef<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for ValueRef<'_> {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl<'a> From<&'a str> for ValueRef<'a> {
    fn from(value: &'a str) -> Self {
        Self::Str(value)
    }
}

impl<'a> From<&'a [u8]> for ValueRef<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(value)
    }
}

/// Changing a row failed; the row is as it was.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// The row was freed, or belongs to another by now.
    #[error("the row is gone")]
    Stale,
    /// The value is of another type than the column.
    #[error("column {column:?} is of another type")]
    WrongType {
        /// The column's name.
        column: Box<str>,
    },
    /// The value is longer than the column's limit.
    #[error("{len} bytes are too long for column {column:?}, which holds {limit}")]
    TooLong {
        /// The column's name.
        column: Box<str>,
        /// Bytes of the value.
        len: usize,
        /// Bytes the column holds.
        limit: usize,
    },
    /// Adding would leave the range of a signed 64-bit number.
    #[error("column {column:?} cannot count that far")]
    OutOfRange {
        /// The column's name.
        column: Box<str>,
    },
    /// More processes are in the middle of a write (or died there and were not yet recovered) than
    /// there are spare blocks.
    #[error("no spare block: too many writers at once, or dead ones not recovered")]
    NoSpareBlock,
}

/// A snapshot of a row's columns, never half a write. Counters are not in it.
#[derive(Clone)]
pub struct Row {
    schema: Schema,
    /// The row's words in native byte order.
    data: Vec<u8>,
}

impl Row {
    /// A row of zeros and empty strings, to be filled by [`Rows::read_into`](crate::Rows::read_into).
    #[must_use]
    pub fn empty(schema: &Schema) -> Self {
        Self { schema: schema.clone(), data: vec![0; schema.row_words() * WORD_BYTES] }
    }

    /// The value of an int column.
    ///
    /// # Panics
    /// When the column is of another type.
    #[must_use]
    pub fn int(&self, column: ColumnId) -> i64 {
        let slot = self.slot(column, "int", |kind| kind == ColumnKind::Int);
        self.word(slot.offset).cast_signed()
    }

    /// The value of a float column.
    ///
    /// # Panics
    /// When the column is of another type.
    #[must_use]
    pub fn float(&self, column: ColumnId) -> f64 {
        let slot = self.slot(column, "float", |kind| kind == ColumnKind::Float);
        f64::from_bits(self.word(slot.offset))
    }

    /// The text of a string column; what is not UTF-8 (only a foreign write can leave it) is cut off.
    ///
    /// # Panics
    /// When the column is of another type.
    #[must_use]
    pub fn str(&self, column: ColumnId) -> &str {
        let slot = self.slot(column, "string", |kind| matches!(kind, ColumnKind::Str(_)));
        valid_text(self.tail(slot))
    }

    /// The bytes of a bytes or string column.
    ///
    /// # Panics
    /// When the column is of another type.
    #[must_use]
    pub fn bytes(&self, column: ColumnId) -> &[u8] {
        let slot = self.slot(column, "bytes", |kind| {
            matches!(kind, ColumnKind::Bytes(_) | ColumnKind::Str(_))
        });
        self.tail(slot)
    }

    /// The value of any row column.
    #[must_use]
    pub fn value(&self, column: ColumnId) -> Value {
        match self.schema.slot(column).kind {
            ColumnKind::Float => Value::Float(self.float(column)),
            ColumnKind::Str(_) => Value::Str(self.str(column).to_owned()),
            ColumnKind::Bytes(_) => Value::Bytes(self.bytes(column).to_vec()),
            // A counter has no `ColumnId`.
            ColumnKind::Int | ColumnKind::Counter => Value::Int(self.int(column)),
        }
    }

    /// Takes over the words of a row (`None`: zeros). They may be torn; the caller checks that before
    /// showing them.
    pub(crate) fn copy_from(&mut self, schema: &Schema, words: Option<&[AtomicU64]>) {
        if self.schema.hash() != schema.hash() {
            *self = Self::empty(schema);
        }
        let (chunks, _) = self.data.as_chunks_mut::<WORD_BYTES>();
        let (whole, _) = chunks.split_at_mut(schema.whole_words());
        let Some(words) = words else { return whole.fill([0; WORD_BYTES]) };
        take_over(whole, words);
        for tail in schema.tails() {
            let length = u64::from_ne_bytes(chunks[tail.length]);
            let used = index_of(length).min(tail.limit).div_ceil(WORD_BYTES);
            take_over(&mut chunks[tail.from..tail.from + used], &words[tail.from..]);
        }
    }

    fn slot(&self, column: ColumnId, asked: &str, fits: impl Fn(ColumnKind) -> bool) -> &Slot {
        let slot = self.schema.slot(column);
        assert!(
            fits(slot.kind),
            "column {:?} is {:?} and was read as {asked}",
            self.schema.column_name(column),
            slot.kind
        );
        slot
    }

    fn word(&self, offset: usize) -> u64 {
        let (chunks, _) = self.data.as_chunks::<WORD_BYTES>();
        u64::from_ne_bytes(chunks[offset])
    }

    fn tail(&self, slot: &Slot) -> &[u8] {
        let from = slot.tail * WORD_BYTES;
        let len = index_of(self.word(slot.offset)).min(slot.limit);
        &self.data[from..from + len]
    }
}

/// Names and values. What lies behind the end of a text may be another row's and is shown to nobody.
impl fmt::Debug for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.schema.columns().iter();
        let named = columns.filter_map(|column| {
            self.schema.column(&column.name).map(|id| (&column.name, self.value(id)))
        });
        formatter.debug_map().entries(named).finish()
    }
}

/// A row being changed, seen by the closure of [`Rows::update`](crate::Rows::update): a private copy
/// that becomes the row when the closure is done.
#[derive(Debug)]
pub struct Draft<'a> {
    schema: &'a Schema,
    words: &'a [AtomicU64],
}

impl<'a> Draft<'a> {
    pub(crate) fn new(schema: &'a Schema, words: &'a [AtomicU64]) -> Self {
        Self { schema, words }
    }

    /// The value of any row column, changes made so far included.
    #[must_use]
    pub fn value(&self, column: ColumnId) -> Value {
        load(self.schema.slot(column), self.words)
    }

    /// The words of the row, changes made so far included.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        self.words
    }

    /// Sets one column.
    ///
    /// # Errors
    /// `WrongType` or `TooLong`; nothing is changed then.
    pub fn set(&mut self, column: ColumnId, value: ValueRef<'_>) -> Result<(), WriteError> {
        check(self.schema, column, value)?;
        self.put(column, value);
        Ok(())
    }

    /// Sets one column to a value that was checked already.
    pub(crate) fn put(&mut self, column: ColumnId, value: ValueRef<'_>) {
        store(self.schema.slot(column), self.words, value);
    }

    /// Adds to an int column and returns the sum.
    ///
    /// # Errors
    /// `WrongType`, or `OutOfRange` when the sum does not fit.
    pub fn add_int(&mut self, column: ColumnId, by: i64) -> Result<i64, WriteError> {
        let name = || Box::from(self.schema.column_name(column));
        let slot = self.schema.slot(column);
        if slot.kind != ColumnKind::Int {
            return Err(WriteError::WrongType { column: name() });
        }
        let word = &self.words[slot.offset];
        let sum = word.load(Relaxed).cast_signed().checked_add(by);
        let sum = sum.ok_or_else(|| WriteError::OutOfRange { column: name() })?;
        word.store(sum.cast_unsigned(), Relaxed);
        Ok(sum)
    }

    /// Adds to a float column and returns the sum.
    ///
    /// # Errors
    /// `WrongType`.
    pub fn add_float(&mut self, column: ColumnId, by: f64) -> Result<f64, WriteError> {
        let Value::Float(before) = self.value(column) else {
            let column = Box::from(self.schema.column_name(column));
            return Err(WriteError::WrongType { column });
        };
        self.set(column, ValueRef::Float(before + by)).map(|()| before + by)
    }
}

/// Whether writing `values` leaves nothing of what a row had before.
pub(crate) fn is_whole(schema: &Schema, values: &[(ColumnId, ValueRef<'_>)]) -> bool {
    let columns = schema.row_columns();
    if values.len() < columns || columns > 64 {
        return false;
    }
    let mut named = 0_u64;
    for (column, _) in values {
        named |= 1 << schema.slot(*column).offset;
    }
    named.count_ones() as usize == columns
}

/// Copies a row into words that only the caller holds. The copy may be torn.
pub(crate) fn copy_row(schema: &Schema, from: &[AtomicU64], to: &[AtomicU64]) {
    let copy = |from: &[AtomicU64], to: &[AtomicU64]| {
        for (to, from) in to.iter().zip(from) {
            to.store(from.load(Relaxed), Relaxed);
        }
    };
    copy(from, &to[..schema.whole_words()]);
    for tail in schema.tails() {
        // What was copied, not what is there by now.
        let length = index_of(to[tail.length].load(Relaxed));
        let used = length.min(tail.limit).div_ceil(WORD_BYTES);
        copy(&from[tail.from..], &to[tail.from..tail.from + used]);
    }
}

/// Makes words that only the caller holds a row of zeros and empty strings.
pub(crate) fn clear_row(schema: &Schema, words: &[AtomicU64]) {
    words[..schema.row_columns()].iter().for_each(|word| word.store(0, Relaxed));
}

/// Whether `value` may be written to `column`.
pub(crate) fn check(
    schema: &Schema,
    column: ColumnId,
    value: ValueRef<'_>,
) -> Result<(), WriteError> {
    let slot = schema.slot(column);
    let len = match (slot.kind, value) {
        (ColumnKind::Int, ValueRef::Int(_)) | (ColumnKind::Float, ValueRef::Float(_)) => 0,
        (ColumnKind::Str(_), ValueRef::Str(text)) => text.len(),
        (ColumnKind::Bytes(_), ValueRef::Bytes(bytes)) => bytes.len(),
        _ => return Err(WriteError::WrongType { column: name_of(schema, column) }),
    };
    if len > slot.limit {
        let column = name_of(schema, column);
        return Err(WriteError::TooLong { column, len, limit: slot.limit });
    }
    Ok(())
}

#[cold]
fn name_of(schema: &Schema, column: ColumnId) -> Box<str> {
    Box::from(schema.column_name(column))
}

/// Writes a checked value into the words of a row that only the caller holds.
fn store(slot: &Slot, words: &[AtomicU64], value: ValueRef<'_>) {
    let bytes = match value {
        ValueRef::Int(value) => return words[slot.offset].store(value.cast_unsigned(), Relaxed),
        ValueRef::Float(value) => return words[slot.offset].store(value.to_bits(), Relaxed),
        ValueRef::Str(text) => text.as_bytes(),
        ValueRef::Bytes(bytes) => bytes,
    };
    words[slot.offset].store(word_of(bytes.len()), Relaxed);
    store_bytes(&words[slot.tail..], bytes);
}

/// Reads one column. What it returns may be torn; the caller checks that before showing it.
pub(crate) fn load(slot: &Slot, words: &[AtomicU64]) -> Value {
    let first = words[slot.offset].load(Relaxed);
    match slot.kind {
        ColumnKind::Float => Value::Float(f64::from_bits(first)),
        ColumnKind::Str(_) => {
            let mut bytes = Vec::new();
            load_tail(slot, words, &mut bytes);
            Value::Str(into_text(bytes))
        }
        ColumnKind::Bytes(_) => {
            let mut bytes = Vec::new();
            load_tail(slot, words, &mut bytes);
            Value::Bytes(bytes)
        }
        ColumnKind::Int | ColumnKind::Counter => Value::Int(first.cast_signed()),
    }
}

/// Whether a string or bytes column has these bytes. What is compared may be torn; the caller checks
/// that before it believes the answer.
pub(crate) fn tail_is(slot: &Slot, words: &[AtomicU64], bytes: &[u8]) -> bool {
    words[slot.offset].load(Relaxed) == word_of(bytes.len())
        && are_stored(&words[slot.tail..], bytes)
}

/// Appends the bytes of a string or bytes column to `out`; they may be torn.
pub(crate) fn load_tail(slot: &Slot, words: &[AtomicU64], out: &mut Vec<u8>) {
    let len = index_of(words[slot.offset].load(Relaxed)).min(slot.limit);
    load_bytes(&words[slot.tail..], len, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::heap_words;

    #[test]
    fn values_come_back_as_they_went_in() {
        let schema =
            Schema::builder().int("i").float("f").string("s", 9).bytes("b", 3).build().unwrap();
        let words = heap_words(schema.row_words());
        let columns = ["i", "f", "s", "b"].map(|name| schema.column(name).unwrap());
        let values = [
            Value::Int(-7),
            Value::Float(0.5),
            Value::Str("neunBytes".into()),
            Value::Bytes(vec![0, 255, 1]),
        ];
        let mut draft = Draft::new(&schema, words);
        for (column, value) in columns.iter().zip(&values) {
            draft.set(*column, value.as_ref()).unwrap();
        }
        let mut row = Row::empty(&schema);
        row.copy_from(&schema, Some(words));
        for (column, value) in columns.iter().zip(&values) {
            assert_eq!(row.value(*column), *value);
            assert_eq!(draft.value(*column), *value);
        }
        let error = draft.set(columns[3], ValueRef::Bytes(&[0; 4])).unwrap_err();
        assert!(error.to_string().contains("\"b\"") && error.to_string().contains('4'), "{error}");
        assert!(matches!(draft.set(columns[0], "x".into()), Err(WriteError::WrongType { .. })));
    }

    #[test]
    fn the_last_word_is_the_rest_and_zeros() {
        let bytes: Vec<u8> = (1..=30).collect();
        for len in 0..bytes.len() {
            let mut expected = [0; WORD_BYTES];
            let rest = &bytes[len - len % WORD_BYTES..len];
            expected[..rest.len()].copy_from_slice(rest);
            assert_eq!(last_word(&bytes[..len]), u64::from_ne_bytes(expected), "{len}");
        }
    }

    #[test]
    fn a_row_shows_nothing_behind_the_end_of_its_texts() {
        let schema = Schema::builder().int("n").string("s", 20).build().unwrap();
        let words = heap_words(schema.row_words());
        let column = schema.column("s").unwrap();
        let mut draft = Draft::new(&schema, words);
        draft.set(column, "a secret of ann".into()).unwrap();
        draft.set(column, "bob".into()).unwrap();
        let mut row = Row::empty(&schema);
        row.copy_from(&schema, Some(words));
        assert_eq!(format!("{row:?}"), r#"{"n": Int(0), "s": Str("bob")}"#);
    }

    #[test]
    fn hostile_memory_is_clamped() {
        let schema = Schema::builder().string("s", 5).build().unwrap();
        let words = heap_words(schema.row_words());
        words[0].store(u64::MAX, Relaxed);
        words[1].store(u64::from_ne_bytes(*b"ab\xffdefgh"), Relaxed);
        let mut row = Row::empty(&schema);
        row.copy_from(&schema, Some(words));
        let column = schema.column("s").unwrap();
        assert_eq!(row.str(column), "ab");
        assert_eq!(row.bytes(column), b"ab\xffde");
        assert_eq!(load(schema.slot(column), words), Value::Str("ab".into()));
    }

    #[test]
    #[should_panic(expected = "was read as int")]
    fn reading_as_another_type_panics() {
        let schema = Schema::builder().string("s", 5).build().unwrap();
        let _ = Row::empty(&schema).int(schema.column("s").unwrap());
    }
}
