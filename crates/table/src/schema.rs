//! What columns a row has, and where each lies in it.
//!
//! Knows nothing of memory: offsets are word numbers within one row.
//!
//! Invariants: 1. Names are unique and not empty, every limit is at least 1. 2. A row begins with one
//! word a column, a number or the length of a text, in the order they were named; the bytes of the
//! texts follow, without overlap, those of short columns first. Whoever copies a row copies the words
//! and the short texts as a whole, and of each long text what its length says. 3. Two schemas with the
//! same columns, limits, key limit and deadlines have the same hash.

mod builder;

use std::fmt;
use std::sync::Arc;

use crate::hash::hash_key;
use crate::word::word_of;

pub use builder::SchemaBuilder;

/// Most columns of one schema, counters included.
pub const MAX_COLUMNS: usize = 1024;
/// Most bytes of one string or bytes column.
pub const MAX_COLUMN_BYTES: usize = 1 << 20;
/// Most bytes of a key of a [`Table`](crate::Table).
pub const MAX_KEY_BYTES: usize = 4096;
/// Bytes of a key unless [`SchemaBuilder::key_limit`] says otherwise.
pub const DEFAULT_KEY_BYTES: usize = 64;
/// Columns of so many bytes are copied without a look at how many are used.
const SHORT_TEXT_BYTES: usize = 64;
/// Most words of a row's copied part (8 MiB).
const MAX_ROW_WORDS: usize = 1 << 20;

/// The columns of a table. Cheap to clone.
#[derive(Clone)]
pub struct Schema {
    inner: Arc<Inner>,
}

struct Inner {
    columns: Vec<Column>,
    /// Row columns in the order of their [`ColumnId`].
    slots: Vec<Slot>,
    /// Words at the beginning of a row that are copied as a whole.
    whole_words: usize,
    /// The bytes of the others, of which only what is used is copied.
    tails: Vec<Tail>,
    /// Names of counters in the order of their [`CounterId`].
    counters: Vec<String>,
    row_words: usize,
    key_limit: usize,
    deadlines: bool,
    hash: u64,
}

/// A column of the row's copied part. Only meaningful with the schema that gave it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ColumnId(u16);

/// A counter column: one word a row, outside its copies. Only meaningful with the schema that gave it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CounterId(u16);

/// A column as an application lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// Unique within the schema.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
}

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ColumnKind {
    /// A signed 64-bit number.
    Int,
    /// A 64-bit float.
    Float,
    /// UTF-8 text of at most so many bytes.
    Str(usize),
    /// At most so many bytes.
    Bytes(usize),
    /// One word outside the row's copies, changed wait-free and not part of a write's atomicity.
    Counter,
}

/// A schema that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SchemaError {
    /// There is nothing to store.
    #[error("a schema needs at least one column")]
    NoColumn,
    /// More columns than can be numbered.
    #[error("{count} columns are more than {most}")]
    TooManyColumns {
        /// Columns named.
        count: usize,
        /// The bound.
        most: usize,
    },
    /// A column without a name.
    #[error("column number {position} has an empty name")]
    EmptyName {
        /// Its place in the list, from 0.
        position: usize,
    },
    /// Two columns of one name.
    #[error("column {name:?} is there twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A limit of 0, or one beyond the bound.
    #[error("column {name:?} cannot hold {limit} bytes: 1 to {most} can be")]
    ColumnBytes {
        /// The column.
        name: String,
        /// The limit asked for.
        limit: usize,
        /// The bound.
        most: usize,
    },
    /// A key length of 0, or one beyond the bound.
    #[error("keys cannot be limited to {limit} bytes: 1 to {most} can be")]
    KeyBytes {
        /// The limit asked for.
        limit: usize,
        /// The bound.
        most: usize,
    },
    /// All columns together are too large.
    #[error("a row of {words} words is larger than {most}")]
    RowTooLarge {
        /// Words of the row.
        words: usize,
        /// The bound.
        most: usize,
    },
}

/// Where a row column lies and what it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) kind: ColumnKind,
    /// Word of the number or of the length within the row.
    pub(crate) offset: usize,
    /// First word of the bytes.
    pub(crate) tail: usize,
    /// Most bytes; 0 for a number.
    pub(crate) limit: usize,
    /// Position in the list of all columns, for the name.
    position: usize,
}

/// Where the bytes of a long string or bytes column lie in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    /// Word of the length.
    pub(crate) length: usize,
    /// First word.
    pub(crate) from: usize,
    /// Most bytes.
    pub(crate) limit: usize,
}

impl Schema {
    /// Starts an empty schema.
    #[must_use]
    pub fn builder() -> SchemaBuilder {
        SchemaBuilder { columns: Vec::new(), key_limit: DEFAULT_KEY_BYTES, deadlines: false }
    }

    /// A schema of a list of columns, keys up to [`DEFAULT_KEY_BYTES`].
    ///
    /// # Errors
    /// See [`SchemaError`].
    pub fn new(columns: Vec<Column>) -> Result<Self, SchemaError> {
        Self::with_key_limit(columns, DEFAULT_KEY_BYTES)
    }

    /// A schema of a list of columns for a table whose keys have at most `key_limit` bytes.
    ///
    /// # Errors
    /// See [`SchemaError`].
    pub fn with_key_limit(columns: Vec<Column>, key_limit: usize) -> Result<Self, SchemaError> {
        Self::checked(columns, key_limit, false)
    }

    fn checked(
        columns: Vec<Column>,
        key_limit: usize,
        deadlines: bool,
    ) -> Result<Self, SchemaError> {
        check_columns(&columns)?;
        if key_limit == 0 || key_limit > MAX_KEY_BYTES {
            return Err(SchemaError::KeyBytes { limit: key_limit, most: MAX_KEY_BYTES });
        }
        let is_counter = |column: &&Column| column.kind == ColumnKind::Counter;
        let counters: Vec<String> =
            columns.iter().filter(is_counter).map(|column| column.name.clone()).collect();
        let in_row = columns.iter().enumerate().filter(|(_, column)| !is_counter(column));
        let numbered = in_row.enumerate();
        let mut slots: Vec<Slot> = numbered
            .map(|(offset, (position, column))| {
                let limit = column.kind.limit();
                Slot { kind: column.kind, offset, tail: 0, limit, position }
            })
            .collect();
        let mut row_words = slots.len();
        for slot in slots.iter_mut().filter(|slot| slot.limit <= SHORT_TEXT_BYTES) {
            slot.tail = row_words;
            row_words += slot.limit.div_ceil(8);
        }
        let whole_words = row_words;
        let mut tails = Vec::new();
        for slot in slots.iter_mut().filter(|slot| slot.limit > SHORT_TEXT_BYTES) {
            slot.tail = row_words;
            tails.push(Tail { length: slot.offset, from: slot.tail, limit: slot.limit });
            row_words += slot.limit.div_ceil(8);
        }
        if row_words > MAX_ROW_WORDS {
            return Err(SchemaError::RowTooLarge { words: row_words, most: MAX_ROW_WORDS });
        }
        let hash = hash_of(&columns, key_limit, deadlines);
        let inner = Inner {
            columns,
            slots,
            whole_words,
            tails,
            counters,
            row_words,
            key_limit,
            deadlines,
            hash,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The row column of that name; `None` if there is none or it is a counter.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<ColumnId> {
        let is_named = |slot: &Slot| self.inner.columns[slot.position].name == name;
        let number = self.inner.slots.iter().position(is_named)?;
        u16::try_from(number).ok().map(ColumnId)
    }

    /// The counter column of that name; `None` if there is none or it is a row column.
    #[must_use]
    pub fn counter_column(&self, name: &str) -> Option<CounterId> {
        let number = self.inner.counters.iter().position(|counter| counter == name)?;
        u16::try_from(number).ok().map(CounterId)
    }

    /// All columns in the order they were named.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.inner.columns
    }

    /// The name of a row column.
    ///
    /// # Panics
    /// When `column` is of another schema that has more columns.
    #[must_use]
    pub fn column_name(&self, column: ColumnId) -> &str {
        &self.inner.columns[self.slot(column).position].name
    }

    /// Most bytes of a key.
    #[must_use]
    pub fn key_limit(&self) -> usize {
        self.inner.key_limit
    }

    /// Whether rows have deadlines; see [`SchemaBuilder::expires`].
    #[must_use]
    pub fn has_deadlines(&self) -> bool {
        self.inner.deadlines
    }

    /// A number that tells schemas apart; kept in the memory's header.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.inner.hash
    }

    /// Panics when `column` is of another schema that has more columns.
    pub(crate) fn slot(&self, column: ColumnId) -> &Slot {
        &self.inner.slots[usize::from(column.0)]
    }

    /// Row columns, each of which has one word at the beginning of a row.
    pub(crate) fn row_columns(&self) -> usize {
        self.inner.slots.len()
    }

    /// Words at the beginning of a row that are copied as a whole.
    pub(crate) fn whole_words(&self) -> usize {
        self.inner.whole_words
    }

    /// Where the bytes of long columns lie behind them.
    pub(crate) fn tails(&self) -> &[Tail] {
        &self.inner.tails
    }

    /// Words of the row's copied part.
    pub(crate) fn row_words(&self) -> usize {
        self.inner.row_words
    }

    pub(crate) fn counter_count(&self) -> usize {
        self.inner.counters.len()
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Schema")
            .field("columns", &self.inner.columns)
            .field("key_limit", &self.inner.key_limit)
            .field("deadlines", &self.inner.deadlines)
            .finish_non_exhaustive()
    }
}

impl CounterId {
    pub(crate) fn number(self) -> usize {
        usize::from(self.0)
    }
}

impl ColumnKind {
    /// Most bytes behind the word of the column.
    fn limit(self) -> usize {
        match self {
            Self::Int | Self::Float | Self::Counter => 0,
            Self::Str(limit) | Self::Bytes(limit) => limit,
        }
    }
}

fn check_columns(columns: &[Column]) -> Result<(), SchemaError> {
    if columns.is_empty() {
        return Err(SchemaError::NoColumn);
    }
    if columns.len() > MAX_COLUMNS {
        return Err(SchemaError::TooManyColumns { count: columns.len(), most: MAX_COLUMNS });
    }
    for (position, Column { name, kind }) in columns.iter().enumerate() {
        if name.is_empty() {
            return Err(SchemaError::EmptyName { position });
        }
        if columns[..position].iter().any(|earlier| earlier.name == *name) {
            return Err(SchemaError::DuplicateName { name: name.clone() });
        }
        if let ColumnKind::Str(limit) | ColumnKind::Bytes(limit) = *kind
            && (limit == 0 || limit > MAX_COLUMN_BYTES)
        {
            let most = MAX_COLUMN_BYTES;
            return Err(SchemaError::ColumnBytes { name: name.clone(), limit, most });
        }
    }
    Ok(())
}

fn hash_of(columns: &[Column], key_limit: usize, deadlines: bool) -> u64 {
    let mut text = word_of(key_limit).to_le_bytes().to_vec();
    for Column { name, kind } in columns {
        let (tag, limit) = match *kind {
            ColumnKind::Int => (b'i', 0),
            ColumnKind::Float => (b'f', 0),
            ColumnKind::Str(limit) => (b's', limit),
            ColumnKind::Bytes(limit) => (b'b', limit),
            ColumnKind::Counter => (b'c', 0),
        };
        text.extend_from_slice(&word_of(name.len()).to_le_bytes());
        text.extend_from_slice(name.as_bytes());
        text.push(tag);
        text.extend_from_slice(&word_of(limit).to_le_bytes());
    }
    if deadlines {
        text.push(b'd');
    }
    hash_key(&text, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_kind() {
        let schema = Schema::builder().int("a").counter("c").string("s", 9).build().unwrap();
        assert_eq!(schema.column("s").map(|column| schema.slot(column).offset), Some(1));
        assert_eq!((schema.row_words(), schema.counter_count()), (1 + 1 + 2, 1));
        assert!(schema.column("c").is_none() && schema.counter_column("c").is_some());
        assert!(schema.counter_column("a").is_none());
        assert_eq!(schema.column_name(schema.column("s").unwrap()), "s");
    }

    #[test]
    fn bad_schemas_are_errors_that_say_the_number() {
        assert_eq!(Schema::builder().build().unwrap_err(), SchemaError::NoColumn);
        let twice = Schema::builder().int("a").float("a").build().unwrap_err();
        assert!(twice.to_string().contains("\"a\""), "{twice}");
        let empty = Schema::builder().string("s", 0).build().unwrap_err();
        assert!(empty.to_string().contains("0 bytes"), "{empty}");
        let large = Schema::builder().bytes("b", usize::MAX).build().unwrap_err();
        assert!(large.to_string().contains(&usize::MAX.to_string()), "{large}");
        let mut many = Schema::builder();
        for number in 0..9 {
            many = many.bytes(&number.to_string(), MAX_COLUMN_BYTES);
        }
        assert!(matches!(many.build(), Err(SchemaError::RowTooLarge { words: 1_179_657, .. })));
        assert!(Schema::builder().int("").build().is_err());
        assert!(Schema::builder().int("a").key_limit(0).build().is_err());
    }

    #[test]
    fn the_hash_tells_schemas_apart() {
        let one = Schema::builder().int("a").string("b", 8).build().unwrap();
        let same = Schema::builder().int("a").string("b", 8).build().unwrap();
        assert_eq!(one.hash(), same.hash());
        for other in [
            Schema::builder().int("a").string("b", 9),
            Schema::builder().int("a").bytes("b", 8),
            Schema::builder().string("b", 8).int("a"),
            Schema::builder().int("a").string("b", 8).key_limit(63),
            Schema::builder().int("a").string("b", 8).expires(),
        ] {
            assert_ne!(one.hash(), other.build().unwrap().hash());
        }
    }
}
