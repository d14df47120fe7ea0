//! The rows of a table as lines of JSON, out and in.
//!
//! One object a row, and a line feed:
//!
//! ```json
//! {"key":"ann","columns":{"name":"Ann","score":3,"blob":"AP8="},"counters":{"visits":7},"deadline":1700}
//! ```
//!
//! A key is text, a number, or `{"base64":"…"}` if its bytes are not UTF-8. Bytes columns are base64. Floats
//! that JSON lacks are the texts `"NaN"`, `"inf"` and `"-inf"`. `counters` is there if the schema has some,
//! `deadline` if the row has one.
//!
//! Invariants: 1. What is exported is imported as it was (a NaN as some NaN). 2. A line that cannot be
//! taken changes nothing, and the error says which line it is. 3. No line is read further than the
//! schema's longest row can be.

mod base64;

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::key::OwnedKey;
use crate::rows::RowId;
use crate::schema::{ColumnId, ColumnKind, CounterId, Schema};
use crate::table::{Entry, Table, TableError};
use crate::value::{Value, check};

/// Reading rows from lines failed. The rows of the lines before are in the table.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source cannot be read.
    #[error("line {line} cannot be read")]
    Read {
        /// Counted from 1.
        line: u64,
        /// What the source said.
        source: io::Error,
    },
    /// Longer than any row of the schema.
    #[error("line {line} is longer than {limit} bytes, which no row of this schema is")]
    LineTooLong {
        /// Counted from 1.
        line: u64,
        /// The longest that is read.
        limit: usize,
    },
    /// Not an object of the right form.
    #[error("line {line} is no row")]
    NoRow {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The key's base64 is none.
    #[error("line {line}: the key is not base64")]
    BadKey {
        /// Counted from 1.
        line: u64,
    },
    /// The table has no such column, or a counter where a column was named, or the other way round.
    #[error("line {line}: the table has no {what} {name:?}")]
    NoColumn {
        /// Counted from 1.
        line: u64,
        /// `column` or `counter`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The value is not of the column's kind.
    #[error("line {line}: column {name:?} is {kind:?} and cannot hold {value}")]
    BadValue {
        /// Counted from 1.
        line: u64,
        /// The column.
        name: String,
        /// What it holds.
        kind: ColumnKind,
        /// The value, cut after some characters.
        value: String,
    },
    /// The table refuses the row.
    #[error("line {line}: the table refuses the row")]
    Refused {
        /// Counted from 1.
        line: u64,
        /// Why.
        source: TableError,
    },
}

impl Table {
    /// Writes each row as a line of JSON and returns how many. As with [`Table::iter`], a row that is
    /// there throughout is written exactly once, as a whole; rows may come and go meanwhile, and a row's
    /// counters and deadline are read a little later than its columns.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn export(&self, mut out: impl Write) -> io::Result<u64> {
        let mut count = 0;
        for entry in self.iter() {
            // `None`: the row was deleted after its columns were read.
            let Some(counters) = self.counters_of(entry.id) else { continue };
            serde_json::to_writer(&mut out, &Line { table: self, entry: &entry, counters })?;
            out.write_all(b"\n")?;
            count += 1;
        }
        out.flush()?;
        Ok(count)
    }

    /// Takes in lines as [`Table::export`] writes them, and returns how many rows they were; empty lines
    /// are none. A key that is there keeps the columns, counters and deadline that its line does not name.
    ///
    /// # Errors
    /// See [`ImportError`]; the first one ends the import.
    pub fn import(&self, mut lines: impl BufRead) -> Result<u64, ImportError> {
        let limit = line_limit(self.schema());
        let (mut rows, mut text) = (0, Vec::new());
        for line in 1.. {
            text.clear();
            // One more than the limit, and the line feed.
            let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(2);
            let mut bounded = lines.by_ref().take(most);
            let read = bounded.read_until(b'\n', &mut text);
            if read.map_err(|source| ImportError::Read { line, source })? == 0 {
                break;
            }
            let row = text.trim_ascii();
            if row.len() > limit || text.len() > limit + 1 {
                return Err(ImportError::LineTooLong { line, limit });
            }
            if !row.is_empty() {
                self.take_in(line, row)?;
                rows += 1;
            }
        }
        Ok(rows)
    }

    fn take_in(&self, line: u64, text: &[u8]) -> Result<(), ImportError> {
        let read: ReadLine =
            serde_json::from_slice(text).map_err(|source| ImportError::NoRow { line, source })?;
        let key = read.key.into_key().ok_or(ImportError::BadKey { line })?;
        let refused = |source: TableError| ImportError::Refused { line, source };
        let mut values = Vec::new();
        for (name, raw) in read.columns {
            let column = self.schema().column(&name);
            let column = column.ok_or_else(|| no_column(line, "column", &name))?;
            let kind = self.schema().slot(column).kind;
            let value = value_of(kind, raw.get()).ok_or_else(|| {
                let value = raw.get().chars().take(80).collect();
                ImportError::BadValue { line, name: name.clone(), kind, value }
            })?;
            check(self.schema(), column, value.as_ref()).map_err(|error| refused(error.into()))?;
            values.push((column, value));
        }
        let mut counters: Vec<(CounterId, u64)> = Vec::new();
        for (name, count) in read.counters {
            let counter = self.schema().counter_column(&name);
            counters.push((counter.ok_or_else(|| no_column(line, "counter", &name))?, count));
        }
        let values: Vec<_> =
            values.iter().map(|(column, value)| (*column, value.as_ref())).collect();
        let id = match read.deadline {
            Some(deadline) => self.set_until(&key, &values, deadline),
            None => self.set(&key, &values),
        };
        let id = id.map_err(refused)?;
        for (counter, count) in counters {
            // Of a row that was deleted meanwhile there is nothing to count.
            let _ = self.rows().counter_of(id, counter).and_then(|counter| counter.set(count));
        }
        Ok(())
    }

    /// What a row counts; `None` if it is gone.
    fn counters_of(&self, id: RowId) -> Option<BTreeMap<&str, u64>> {
        let schema = self.schema();
        let named = schema.columns().iter().filter_map(|column| {
            Some((column.name.as_str(), schema.counter_column(&column.name)?))
        });
        named
            .map(|(name, counter)| Some((name, self.rows().counter_of(id, counter)?.get()?)))
            .collect()
    }
}

fn no_column(line: u64, what: &'static str, name: &str) -> ImportError {
    ImportError::NoColumn { line, what, name: name.to_owned() }
}

/// A row to be written.
struct Line<'a> {
    table: &'a Table,
    entry: &'a Entry,
    counters: BTreeMap<&'a str, u64>,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { table, entry, counters } = self;
        let mut line = serializer.serialize_map(None)?;
        match &entry.key {
            OwnedKey::Number(number) => line.serialize_entry("key", number)?,
            OwnedKey::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => line.serialize_entry("key", text)?,
                Err(_) => {
                    let key = BTreeMap::from([("base64", base64::encode(bytes))]);
                    line.serialize_entry("key", &key)?;
                }
            },
        }
        line.serialize_entry("columns", &Columns(self))?;
        if !counters.is_empty() {
            line.serialize_entry("counters", counters)?;
        }
        if let Some(deadline) = table.rows().deadline(entry.id).filter(|deadline| *deadline != 0) {
            line.serialize_entry("deadline", &deadline)?;
        }
        line.end()
    }
}

/// The columns of a row, in the order they were named.
struct Columns<'a>(&'a Line<'a>);

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Line { table, entry, .. } = self.0;
        let mut columns = serializer.serialize_map(None)?;
        let named = table.schema().columns().iter();
        let known = named.filter_map(|column| {
            let id: ColumnId = table.schema().column(&column.name)?;
            Some((&column.name, id))
        });
        for (name, id) in known {
            match entry.row.value(id) {
                Value::Int(value) => columns.serialize_entry(name, &value)?,
                Value::Float(value) if value.is_finite() => {
                    columns.serialize_entry(name, &value)?
                }
                Value::Float(value) => columns.serialize_entry(name, &value.to_string())?,
                Value::Str(value) => columns.serialize_entry(name, &value)?,
                Value::Bytes(value) => columns.serialize_entry(name, &base64::encode(&value))?,
            }
        }
        columns.end()
    }
}

/// A row that was read. Values stay text until the column says what they are: a float must come back
/// to the last bit, and serde_json's own numbers may not.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadLine {
    key: ReadKey,
    #[serde(default)]
    columns: BTreeMap<String, Box<RawValue>>,
    #[serde(default)]
    counters: BTreeMap<String, u64>,
    deadline: Option<u64>,
}

#[derive(serde::Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "a key is text, a number from 0 on, or {\"base64\": text}"
)]
enum ReadKey {
    Number(u64),
    Text(String),
    Base64 { base64: String },
}

impl ReadKey {
    fn into_key(self) -> Option<OwnedKey> {
        Some(match self {
            Self::Number(number) => OwnedKey::Number(number),
            Self::Text(text) => OwnedKey::Bytes(text.into_bytes()),
            Self::Base64 { base64 } => OwnedKey::Bytes(base64::decode(&base64)?),
        })
    }
}

/// The value that a piece of JSON is for a column.
fn value_of(kind: ColumnKind, json: &str) -> Option<Value> {
    let text = || serde_json::from_str::<String>(json).ok();
    match kind {
        ColumnKind::Int => serde_json::from_str(json).ok().map(Value::Int),
        ColumnKind::Float => match text().as_deref() {
            Some("NaN") => Some(Value::Float(f64::NAN)),
            Some("inf") => Some(Value::Float(f64::INFINITY)),
            Some("-inf") => Some(Value::Float(f64::NEG_INFINITY)),
            Some(_) => None,
            // What is valid JSON and a number to Rust is a number to both.
            None => json.parse().ok().filter(|value: &f64| value.is_finite()).map(Value::Float),
        },
        ColumnKind::Str(_) => text().map(Value::Str),
        ColumnKind::Bytes(_) => base64::decode(&text()?).map(Value::Bytes),
        ColumnKind::Counter => None,
    }
}

/// Bytes of the longest line that can be a row: each byte of text at most six (`\u0000`), each number at
/// most 32, and room for blanks and for the names of the fields.
fn line_limit(schema: &Schema) -> usize {
    const FIELDS: usize = 1024;
    let columns = schema.columns().iter().map(|column| {
        let value = match column.kind {
            ColumnKind::Str(limit) | ColumnKind::Bytes(limit) => limit * 6,
            ColumnKind::Int | ColumnKind::Float | ColumnKind::Counter => 32,
        };
        column.name.len() * 6 + value + 64
    });
    FIELDS + schema.key_limit() * 6 + columns.sum::<usize>()
}
