//! Offsets and sizes of the areas of rows, and the header that says what memory was formatted for.
//!
//! Pure arithmetic but for the header's words; every sum is checked.
//!
//! Invariants: 1. Areas do not overlap and each starts on a cache line. 2. Memory without the magic
//! number is formatted; memory with it is used only if version, schema, capacity and kind agree.

use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::blocks::{Blocks, SPARE_BLOCKS};
use crate::free_hints::FreeHints;
use crate::list::record_words;
use crate::schema::Schema;
use crate::sync::AtomicU64;
use crate::word::{LINE_WORDS, MAX_ITEMS};

/// First word of formatted memory: "dunlin01".
const MAGIC: u64 = u64::from_be_bytes(*b"dunlin01");
/// Grows with every change of the layout.
const LAYOUT_VERSION: u64 = 2;
const HEADER_WORDS: usize = LINE_WORDS;

/// Head and current word, the first words of an entry.
pub(crate) const ENTRY_WORDS: usize = 2;

/// Most rows of one table.
pub const MAX_ROWS: u32 = MAX_ITEMS - SPARE_BLOCKS;

/// Laying a structure over memory failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    /// Nothing would fit.
    #[error("a capacity of 0 {what} holds nothing")]
    Empty {
        /// Of what.
        what: &'static str,
    },
    /// More than can be numbered.
    #[error("{count} {what} are more than {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// Asked for.
        count: u32,
        /// The bound.
        most: u32,
    },
    /// More than an address can name.
    #[error("{count} {what} do not fit the address space")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// Asked for.
        count: u32,
    },
    /// A block size of 0, not a multiple of 8, or beyond the bound.
    #[error("blocks of {bytes} bytes cannot be: a multiple of 8 from 8 to {most} can")]
    BlockBytes {
        /// Asked for.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// The memory given is too small.
    #[error("{given} words were given where {needed} are needed")]
    TooFewWords {
        /// Words given.
        given: usize,
        /// Words needed.
        needed: usize,
    },
    /// The memory was formatted by something else or for something else.
    #[error("the memory was formatted for another {what}: {found:#x} instead of {expected:#x}")]
    FormattedFor {
        /// What differs.
        what: &'static str,
        /// In the memory.
        found: u64,
        /// Asked for.
        expected: u64,
    },
}

/// Where the areas of rows lie: header, entries, hints, counters, deadlines, blocks.
#[derive(Clone, Debug)]
pub(crate) struct RowsLayout {
    header: [u64; 6],
    entries: usize,
    entry_stride: usize,
    hints: usize,
    counters: usize,
    counter_stride: usize,
    deadlines: usize,
    deadline_words: usize,
    blocks: usize,
    words: usize,
}

impl RowsLayout {
    pub(crate) fn new(schema: &Schema, capacity: u32, keyed: bool) -> Result<Self, LayoutError> {
        let what = "rows";
        if capacity == 0 {
            return Err(LayoutError::Empty { what });
        }
        if capacity > MAX_ROWS {
            return Err(LayoutError::TooMany { what, count: capacity, most: MAX_ROWS });
        }
        let too_large = LayoutError::TooLarge { what, count: capacity };
        let count = Blocks::count_for(capacity);
        Self::lay(schema, capacity, keyed, count).ok_or(too_large)
    }

    fn lay(schema: &Schema, capacity: u32, keyed: bool, blocks: u32) -> Option<Self> {
        let line = |words: usize| words.checked_next_multiple_of(LINE_WORDS);
        let entries = HEADER_WORDS;
        let entry_stride =
            if keyed { line(ENTRY_WORDS + record_words(schema.key_limit()))? } else { ENTRY_WORDS };
        let entry_words = line((capacity as usize).checked_mul(entry_stride)?)?;
        let hints = entries.checked_add(entry_words)?;
        let counters = hints.checked_add(FreeHints::words_needed(capacity))?;
        let counter_stride = line(capacity as usize)?;
        let counter_words = counter_stride.checked_mul(schema.counter_count())?;
        let deadlines = counters.checked_add(counter_words)?;
        let deadline_words = if schema.has_deadlines() { capacity as usize } else { 0 };
        let blocks_at = deadlines.checked_add(line(deadline_words)?)?;
        let block_words = Blocks::words_needed(blocks, schema.row_words())?;
        let words = blocks_at.checked_add(block_words)?;
        let kind = u64::from(keyed);
        let header = [
            MAGIC,
            LAYOUT_VERSION,
            schema.hash(),
            u64::from(capacity),
            kind,
            u64::from(SPARE_BLOCKS),
        ];
        Some(Self {
            header,
            entries,
            entry_stride,
            hints,
            counters,
            counter_stride,
            deadlines,
            deadline_words,
            blocks: blocks_at,
            words,
        })
    }

    pub(crate) fn words(&self) -> usize {
        self.words
    }

    pub(crate) fn entries(&self) -> Range<usize> {
        self.entries..self.hints
    }

    /// Words of one entry. Without keys several share a cache line; with keys each begins one, so that
    /// what a search touches of a row with a short key is in one.
    pub(crate) fn entry_stride(&self) -> usize {
        self.entry_stride
    }

    pub(crate) fn hints(&self) -> Range<usize> {
        self.hints..self.counters
    }

    pub(crate) fn counters(&self) -> Range<usize> {
        self.counters..self.deadlines
    }

    pub(crate) fn counter_stride(&self) -> usize {
        self.counter_stride
    }

    /// A word a row; empty if the schema has no deadlines.
    pub(crate) fn deadlines(&self) -> Range<usize> {
        self.deadlines..self.deadlines + self.deadline_words
    }

    pub(crate) fn blocks(&self) -> Range<usize> {
        self.blocks..self.words
    }

    /// Whether `words` are formatted for this layout already.
    pub(crate) fn check(&self, words: &[AtomicU64]) -> Result<bool, LayoutError> {
        let names =
            ["kind of memory", "layout version", "schema", "capacity", "use", "spare blocks"];
        check_header(&self.header, &names, words, self.words)
    }

    /// Marks formatted words as such; the last step of formatting.
    pub(crate) fn stamp(&self, words: &[AtomicU64]) {
        stamp_header(&self.header, words);
    }
}

/// Compares a header. `Ok(false)`: the memory was never formatted.
pub(crate) fn check_header(
    header: &[u64],
    names: &[&'static str],
    words: &[AtomicU64],
    needed: usize,
) -> Result<bool, LayoutError> {
    if words.len() < needed {
        return Err(LayoutError::TooFewWords { given: words.len(), needed });
    }
    if words[0].load(Acquire) == 0 {
        return Ok(false);
    }
    for ((expected, what), word) in header.iter().zip(names).zip(words) {
        let found = word.load(Relaxed);
        if found != *expected {
            return Err(LayoutError::FormattedFor { what, found, expected: *expected });
        }
    }
    Ok(true)
}

/// Writes a header, the magic number last.
pub(crate) fn stamp_header(header: &[u64], words: &[AtomicU64]) {
    for (word, value) in words.iter().zip(header).rev() {
        word.store(*value, Release);
    }
}
