//! What the dead held is found and given back, while the living go on.
//!
//! Knows nothing of processes: the caller says which writer numbers are dead.
//!
//! Invariants: 1. Only what a dead writer held is touched; by compare-and-swap, so that two
//! recoveries, or one and a helping writer, do no harm to each other. 2. A block is linked if the row
//! it names has it as its current block. A dead writer links nothing any more, so "not linked" stays
//! true once it is seen.

use crate::rows::Rows;
use crate::word::{Head, Life, RowState, Stamp};

use std::sync::atomic::Ordering::Acquire;

/// What a recovery gave back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// Rows whose claim or removal was under way.
    pub rows: u32,
    /// Blocks of writes under way.
    pub blocks: u32,
}

impl Rows {
    /// Gives back what dead writers held: rows in the middle of a claim, blocks in the middle of a
    /// write. Live rows stay, whoever owns them. One pass over rows and blocks; nobody waits for it.
    ///
    /// Call it when a process was reaped. `is_dead` must be true only for numbers that no living
    /// process writes under (see [`Rows::set_writer`]). The rows of a keyed table are recovered by
    /// [`Table::recover`](crate::Table::recover); here only their blocks are.
    pub fn recover(&self, is_dead: impl Fn(u16) -> bool) -> Recovered {
        let rows = if self.is_keyed() { 0 } else { self.recover_claims(&is_dead) };
        Recovered { rows, blocks: self.recover_blocks(&is_dead) }
    }

    fn recover_claims(&self, is_dead: &impl Fn(u16) -> bool) -> u32 {
        let mut freed = 0;
        for index in 0..self.capacity() {
            let Some(entry) = self.entry(index) else { break };
            let head = entry.head();
            // Dead: being freed with its value read; nobody else frees it.
            if matches!(head.state(), RowState::Claiming | RowState::Dead) && is_dead(head.holder())
            {
                let free = Head::new(head.generation(), 0, RowState::Free);
                freed += u32::from(entry.swap_head(head, free));
            }
        }
        self.restore_row_hints();
        freed
    }

    /// A kill between the taking of a hint and the claim, or between the freeing and the hint, leaves
    /// a free row that no hint leads to.
    pub(crate) fn restore_row_hints(&self) {
        for index in 0..self.capacity() {
            if self.entry(index).is_some_and(|entry| entry.head().state() == RowState::Free) {
                self.hints().restore(index);
            }
        }
        self.hints().forget_exhaustion();
    }

    pub(crate) fn recover_blocks(&self, is_dead: &impl Fn(u16) -> bool) -> u32 {
        let mut freed = 0;
        for number in 0..self.blocks.count() {
            let Some(block) = self.blocks.block(number) else { break };
            let stamp = Stamp(block.stamp.load(Acquire));
            if !stamp.is_taken() {
                self.blocks.restore_hint(number);
            } else if is_dead(stamp.writer()) {
                let linked =
                    self.entry(block.row()).filter(|entry| entry.current().item() == Some(number));
                let released = match linked {
                    // Its writer may have died before it released what the block replaced.
                    Some(entry) => self.settle(entry.current(), entry),
                    None => self.blocks.release(Life::new(number, stamp), None),
                };
                freed += u32::from(released);
            }
        }
        freed
    }
}
