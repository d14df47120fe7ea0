//! How rows and their blocks are used, counted by a scan.
//!
//! Changes nothing; while others work, the numbers are of slightly different instants.

use std::sync::atomic::Ordering::Acquire;

use crate::rows::Rows;
use crate::word::{RowState, Stamp};

/// What a scan found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Rows there can be.
    pub capacity: u32,
    /// Rows that are there.
    pub live: u32,
    /// Rows being made at this moment, or left so by somebody who died.
    pub claiming: u32,
    /// Rows being taken out at this moment, or left so by somebody who died.
    pub dead: u32,
    /// Blocks there are for the copies of rows: one a row and [`SPARE_BLOCKS`](crate::SPARE_BLOCKS).
    pub blocks: u32,
    /// Blocks that belong to a row.
    pub blocks_linked: u32,
    /// Blocks nobody has. What is neither linked nor free is being filled at this moment, or was left
    /// so by somebody who died.
    pub blocks_free: u32,
    /// Bytes of shared memory.
    pub memory_bytes: usize,
}

impl Rows {
    /// How the rows are used, by a scan.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let words = Self::words_needed(self.schema(), self.capacity()).unwrap_or_default();
        let mut stats = Stats {
            capacity: self.capacity(),
            blocks: self.blocks.count(),
            memory_bytes: words * size_of::<u64>(),
            ..Stats::default()
        };
        for entry in (0..self.capacity()).filter_map(|index| self.entry(index)) {
            match entry.head().state() {
                RowState::Live => stats.live += 1,
                RowState::Claiming => stats.claiming += 1,
                RowState::Dead => stats.dead += 1,
                RowState::Free => {}
            }
            stats.blocks_linked += u32::from(entry.current().item().is_some());
        }
        for block in (0..self.blocks.count()).filter_map(|number| self.blocks.block(number)) {
            stats.blocks_free += u32::from(!Stamp(block.stamp.load(Acquire)).is_taken());
        }
        stats
    }
}
