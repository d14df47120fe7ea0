//! How rows or a table lie in memory, for people and for programs: areas, columns, sizes, known before
//! anything is created.
//!
//! Pure arithmetic on a schema and a capacity; touches no memory.
//!
//! Invariants: 1. The areas follow one another without a gap and sum up to `bytes`.

use std::fmt;

use crate::blocks::{Blocks, SPARE_BLOCKS};
use crate::free_hints::FreeHints;
use crate::layout::{LayoutError, RowsLayout};
use crate::list::Lists;
use crate::rows::Rows;
use crate::schema::{ColumnKind, Schema};
use crate::table::Table;
use crate::word::WORD_BYTES;

/// The layout of rows or of a table. Its `Display` is a table of several lines.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Description {
    /// How many rows there can be.
    pub capacity: u32,
    /// Bytes of shared memory for all of it.
    pub bytes: usize,
    /// `bytes` by `capacity`, rounded up.
    pub bytes_per_row: usize,
    /// Most bytes of a key; `None` for rows without keys.
    pub key_limit: Option<usize>,
    /// Whether rows have deadlines.
    pub deadlines: bool,
    /// The columns in the order they were named.
    pub columns: Vec<ColumnDescription>,
    /// The areas in the order they lie.
    pub areas: Vec<AreaDescription>,
}

/// A column, and where it lies.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ColumnDescription {
    /// Its name.
    pub name: String,
    /// `int`, `float`, `string`, `bytes` or `counter`.
    pub kind: &'static str,
    /// Most bytes of a string or bytes column.
    pub limit: Option<usize>,
    /// Bytes from the start of the row's copied part to the number, or to the length of a text, whose
    /// bytes lie behind those of all columns; `None` for a counter, which lies outside it.
    pub offset: Option<usize>,
    /// Bytes it takes in a row, its length word included.
    pub bytes: usize,
}

/// A part of the memory.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct AreaDescription {
    /// Its name.
    pub name: &'static str,
    /// Bytes from the start of the memory.
    pub offset: usize,
    /// Bytes it takes, what fills up its last cache line included.
    pub bytes: usize,
    /// What is in it.
    pub holds: String,
}

impl Description {
    /// Of [`Rows`] that are yet to be made.
    ///
    /// # Errors
    /// No rows, or more than can be numbered or addressed.
    pub fn of_rows(schema: &Schema, capacity: u32) -> Result<Self, LayoutError> {
        let layout = RowsLayout::new(schema, capacity, false)?;
        let mut areas = Areas::default();
        areas.add_rows(&layout, schema, capacity, false);
        Ok(Self::new(schema, capacity, None, areas.list))
    }

    /// Of a [`Table`] that is yet to be made.
    ///
    /// # Errors
    /// As [`Description::of_rows`].
    pub fn of_table(schema: &Schema, capacity: u32) -> Result<Self, LayoutError> {
        let words = Table::words_needed(schema, capacity)?;
        let buckets = Lists::bucket_count(capacity);
        let layout = RowsLayout::new(schema, capacity, true)?;
        let mut areas = Areas::default();
        areas.add_rows(&layout, schema, capacity, true);
        let before = words - buckets;
        areas.add("keys header", before, "magic number, version, seed of the hash".into());
        areas.add("buckets", words, format!("{buckets} first links of lists"));
        Ok(Self::new(schema, capacity, Some(schema.key_limit()), areas.list))
    }

    fn new(
        schema: &Schema,
        capacity: u32,
        key_limit: Option<usize>,
        areas: Vec<AreaDescription>,
    ) -> Self {
        let bytes = areas.last().map_or(0, |last| last.offset + last.bytes);
        let rows = usize::try_from(capacity).unwrap_or(usize::MAX);
        Self {
            capacity,
            bytes,
            bytes_per_row: bytes.div_ceil(rows.max(1)),
            key_limit,
            deadlines: schema.has_deadlines(),
            columns: columns(schema),
            areas,
        }
    }
}

impl Rows {
    /// Bytes of shared memory that `capacity` rows of `schema` take.
    ///
    /// # Errors
    /// No rows, or more than can be numbered or addressed.
    pub fn memory_needed(schema: &Schema, capacity: u32) -> Result<usize, LayoutError> {
        Ok(Self::words_needed(schema, capacity)? * WORD_BYTES)
    }

    /// How the rows lie in memory.
    #[must_use]
    pub fn describe(&self) -> Description {
        let description =
            if self.is_keyed() { Description::of_table } else { Description::of_rows };
        description(self.schema(), self.capacity())
            .expect("rows of this schema and capacity were laid out when this handle was made")
    }
}

impl Table {
    /// Bytes of shared memory that a table takes. [`Table::create`] reserves exactly so many.
    ///
    /// # Errors
    /// No rows, or more than can be numbered or addressed.
    pub fn memory_needed(schema: &Schema, capacity: u32) -> Result<usize, LayoutError> {
        Ok(Self::words_needed(schema, capacity)? * WORD_BYTES)
    }

    /// How the table lies in memory.
    #[must_use]
    pub fn describe(&self) -> Description {
        self.rows().describe()
    }
}

/// Areas by their ends, in words.
#[derive(Default)]
struct Areas {
    list: Vec<AreaDescription>,
}

impl Areas {
    /// Adds the area from the last one's end to `end`; an empty one is no area.
    fn add(&mut self, name: &'static str, end: usize, holds: String) {
        let offset = self.list.last().map_or(0, |last| last.offset + last.bytes);
        let bytes = (end * WORD_BYTES).saturating_sub(offset);
        if bytes > 0 {
            self.list.push(AreaDescription { name, offset, bytes, holds });
        }
    }

    fn add_rows(&mut self, layout: &RowsLayout, schema: &Schema, capacity: u32, keyed: bool) {
        let blocks = Blocks::count_for(capacity);
        let blocks_at = layout.blocks().start + FreeHints::words_needed(blocks);
        let counters = schema.counter_count();
        self.add(
            "header",
            layout.entries().start,
            "magic number, version, schema, capacity".into(),
        );
        let entries = if keyed {
            "head, current word, link and key of each row"
        } else {
            "head and current word of each row"
        };
        self.add("entries", layout.entries().end, entries.into());
        self.add("row hints", layout.hints().end, "a bit for each row that may be free".into());
        self.add("counters", layout.counters().end, format!("a word a row for each of {counters}"));
        self.add("deadlines", layout.blocks().start, "a word a row".into());
        self.add("block hints", blocks_at, "a bit for each block that may be free".into());
        let holds =
            format!("{blocks} copies of a row's columns: one a row and {SPARE_BLOCKS} spare");
        self.add("blocks", layout.blocks().end, holds);
    }
}

fn columns(schema: &Schema) -> Vec<ColumnDescription> {
    let describe = |column: &crate::Column| {
        let offset = schema.column(&column.name).map(|id| schema.slot(id).offset * WORD_BYTES);
        let (kind, limit) = match column.kind {
            ColumnKind::Int => ("int", None),
            ColumnKind::Float => ("float", None),
            ColumnKind::Str(limit) => ("string", Some(limit)),
            ColumnKind::Bytes(limit) => ("bytes", Some(limit)),
            ColumnKind::Counter => ("counter", None),
        };
        let bytes = WORD_BYTES + limit.unwrap_or(0).next_multiple_of(WORD_BYTES);
        ColumnDescription { name: column.name.clone(), kind, limit, offset, bytes }
    };
    schema.columns().iter().map(describe).collect()
}

impl fmt::Display for Description {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capacity, bytes, bytes_per_row, .. } = self;
        write!(out, "{capacity} rows, {bytes} bytes, {bytes_per_row} a row")?;
        if let Some(limit) = self.key_limit {
            write!(out, ", keys up to {limit} bytes")?;
        }
        writeln!(out, "{}", if self.deadlines { ", deadlines" } else { "" })?;
        let widest = |names: &mut dyn Iterator<Item = &str>| {
            names.map(|name| name.chars().count()).max().unwrap_or(0).max("column".len())
        };
        let width = widest(&mut self.columns.iter().map(|column| column.name.as_str()));
        writeln!(
            out,
            "\n{:width$}  {:8} {:>8} {:>8} {:>8}",
            "column", "kind", "limit", "offset", "bytes"
        )?;
        for ColumnDescription { name, kind, limit, offset, bytes } in &self.columns {
            let number = |number: &Option<usize>| number.map_or("-".into(), |n| n.to_string());
            let (limit, offset) = (number(limit), number(offset));
            writeln!(out, "{name:width$}  {kind:8} {limit:>8} {offset:>8} {bytes:>8}")?;
        }
        let width = widest(&mut self.areas.iter().map(|area| area.name));
        writeln!(out, "\n{:width$}  {:>14} {:>14}  holds", "area", "offset", "bytes")?;
        for AreaDescription { name, offset, bytes, holds } in &self.areas {
            writeln!(out, "{name:width$}  {offset:>14} {bytes:>14}  {holds}")?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(dunlin_loom)))]
mod tests {
    use super::*;
    use crate::sync::heap_words;

    fn schema() -> Schema {
        let schema = Schema::builder().string("name", 30).int("score").counter("visits");
        schema.bytes("blob", 16).float("ratio").expires().build().unwrap()
    }

    #[test]
    fn areas_cover_the_memory_without_a_gap() {
        let plain = Schema::builder().int("n").build().unwrap();
        for schema in [schema(), plain] {
            for capacity in [1, 3, 64, 1000] {
                let table = Description::of_table(&schema, capacity).unwrap();
                let rows = Description::of_rows(&schema, capacity).unwrap();
                assert_eq!(table.bytes, Table::memory_needed(&schema, capacity).unwrap());
                assert_eq!(rows.bytes, Rows::memory_needed(&schema, capacity).unwrap());
                for description in [table, rows] {
                    let mut end = 0;
                    for area in &description.areas {
                        assert_eq!(area.offset, end, "{area:?}");
                        end += area.bytes;
                    }
                    assert_eq!(end, description.bytes);
                }
            }
        }
        assert!(Description::of_table(&schema(), 0).unwrap_err().to_string().contains("of 0"));
    }

    #[test]
    fn columns_say_where_they_lie() {
        let description = Description::of_rows(&schema(), 10).unwrap();
        let places: Vec<_> = description
            .columns
            .iter()
            .map(|column| (column.kind, column.offset, column.bytes))
            .collect();
        let expected = [
            ("string", Some(0), 40),
            ("int", Some(8), 8),
            ("counter", None, 8),
            ("bytes", Some(16), 24),
            ("float", Some(24), 8),
        ];
        assert_eq!(places, expected);
        assert_eq!((description.key_limit, description.deadlines), (None, true));
    }

    #[test]
    fn a_table_describes_itself_in_words_and_as_json() {
        let words = heap_words(Table::words_needed(&schema(), 10).unwrap());
        let table = Table::new(schema(), 10, words).unwrap();
        let description = table.describe();
        assert_eq!(description, Description::of_table(&schema(), 10).unwrap());
        let text = description.to_string();
        for part in ["10 rows", "keys up to 64 bytes", "deadlines", "visits", "string", "buckets"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.lines().all(|line| line.len() < 120), "{text}");
        #[cfg(feature = "serde")]
        {
            let json = serde_json::to_value(&description).unwrap();
            assert_eq!(json["columns"][0]["limit"], 30);
            assert_eq!(json["bytes"], description.bytes);
        }
    }
}
