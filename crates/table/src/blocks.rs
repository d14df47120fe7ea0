//! The blocks that hold the copies of rows: claimed by one writer, filled, linked to a row, released.
//!
//! Knows nothing of keys or owners. There are more blocks than rows, so that every process that
//! writes has one to fill.
//!
//! Invariants: 1. Between its claim and its link a block is touched by its writer alone; while it is linked
//! nobody stores into it, but for the maker of a row that is claiming and vacant. 2. A stamp
//! is `taken` from the claim to the release, with one tag; whoever releases names that tag, so a late
//! release is a failed compare-and-swap. 3. `previous` and `row` of a block are written before it is
//! linked and not changed while it is. 4. Only the block linked right now can owe the release of its
//! predecessor: whoever replaces a block settles its debt first.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::free_hints::{FreeHints, start_of};
use crate::sync::{AtomicU64, fence};
use crate::word::{LINE_WORDS, Life, Stamp, low_half};

/// Blocks beyond one a row: most processes that may be inside a write at one time, those that died
/// there and were not yet recovered included.
pub const SPARE_BLOCKS: u32 = if cfg!(dunlin_loom) { 2 } else { 128 };

/// Stamp, life of the predecessor, row.
const HEADER_WORDS: usize = 3;

#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    count: u32,
    stride: usize,
    payload: usize,
    words: &'static [AtomicU64],
    hints: FreeHints,
}

/// The words of one block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) stamp: &'static AtomicU64,
    /// The [`Life`] this block replaced at its link; its release is owed until it is done.
    pub(crate) previous: &'static AtomicU64,
    pub(crate) row: &'static AtomicU64,
    pub(crate) payload: &'static [AtomicU64],
}

/// A block that this process has claimed. Dropped without [`Held::linked`] it is released.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    blocks: &'a Blocks,
    spare: &'a SpareHint,
    pub(crate) number: u32,
    pub(crate) block: Block,
    stamp: Stamp,
    linked: bool,
}

/// The block this process released last and so most likely gets again, number + 1. Process-local and
/// only a hint: copied by fork, it leads two processes to one stamp, where one of them loses.
#[derive(Debug, Default)]
pub(crate) struct SpareHint(AtomicU32);

impl Blocks {
    pub(crate) fn count_for(capacity: u32) -> u32 {
        capacity + SPARE_BLOCKS
    }

    pub(crate) fn words_needed(count: u32, payload: usize) -> Option<usize> {
        let blocks = stride_of(payload)?.checked_mul(count as usize)?;
        blocks.checked_add(FreeHints::words_needed(count))
    }

    /// `words` has at least [`Blocks::words_needed`] words.
    pub(crate) fn new(count: u32, payload: usize, words: &'static [AtomicU64]) -> Self {
        let stride = stride_of(payload).unwrap_or(usize::MAX);
        let (hints, words) = words.split_at(FreeHints::words_needed(count));
        Self { count, stride, payload, words, hints: FreeHints::new(count, hints) }
    }

    pub(crate) fn format(&self) {
        self.hints.format(self.count);
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// `None` for a number that no block has (only a foreign write can bring one up).
    pub(crate) fn block(&self, number: u32) -> Option<Block> {
        let from = (number as usize).checked_mul(self.stride)?;
        let words = self.words.get(from..from + HEADER_WORDS + self.payload)?;
        let (header, payload) = words.split_at(HEADER_WORDS);
        Some(Block { stamp: &header[0], previous: &header[1], row: &header[2], payload })
    }

    /// Claims a free block for `writer`; `None` if there is none. Never waits.
    pub(crate) fn claim<'a>(&'a self, writer: u16, spare: &'a SpareHint) -> Option<Held<'a>> {
        if let Some(number) = spare.take()
            && let Some(held) = self.try_claim(number, writer, spare)
        {
            return Some(held);
        }
        while let Some(number) = self.hints.take(start_of(writer, self.count)) {
            if let Some(held) = self.try_claim(number, writer, spare) {
                return Some(held);
            }
        }
        self.claim_by_scan(writer, spare)
    }

    /// Releases the life `life` if it is not released yet. Anybody may: the tag makes it happen once.
    pub(crate) fn release(&self, life: Life, spare: Option<&SpareHint>) -> bool {
        let Some(number) = life.block() else { return false };
        let Some(block) = self.block(number) else { return false };
        let stamp = Stamp(block.stamp.load(Acquire));
        // Release: what we did with the block happens before its next holder's claim.
        let released = life.is_of(stamp)
            && block.stamp.compare_exchange(stamp.0, stamp.freed().0, AcqRel, Relaxed).is_ok();
        if released && !spare.is_some_and(|spare| spare.put(number)) {
            self.hints.offer(number);
        }
        released
    }

    /// Puts back the hint of a free block.
    pub(crate) fn restore_hint(&self, number: u32) {
        self.hints.restore(number);
    }

    fn try_claim<'a>(&'a self, number: u32, writer: u16, spare: &'a SpareHint) -> Option<Held<'a>> {
        let block = self.block(number)?;
        let free = Stamp(block.stamp.load(Relaxed));
        if free.is_taken() {
            return None;
        }
        let stamp = free.claimed(writer);
        // Acquire: the last holder's release, and with it that the block was unlinked, happened before.
        block.stamp.compare_exchange(free.0, stamp.0, AcqRel, Relaxed).ok()?;
        // A reader that still copies this block and sees one of our stores must, after its own
        // acquire fence, also see that the row left the block: the other half of its check.
        fence(Release);
        Some(Held { blocks: self, spare, number, block, stamp, linked: false })
    }

    /// For when hints went missing by kills: finds a free block and puts all hints back.
    #[cold]
    fn claim_by_scan<'a>(&'a self, writer: u16, spare: &'a SpareHint) -> Option<Held<'a>> {
        let mut claimed = None;
        for number in 0..self.count {
            let Some(block) = self.block(number) else { break };
            if Stamp(block.stamp.load(Relaxed)).is_taken() {
                continue;
            }
            if claimed.is_none() {
                claimed = self.try_claim(number, writer, spare);
            } else {
                self.hints.restore(number);
            }
        }
        claimed
    }
}

impl Held<'_> {
    /// It became a row's block: from now on whoever replaces it releases it.
    pub(crate) fn linked(mut self) {
        self.linked = true;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.linked {
            self.blocks.release(Life::new(self.number, self.stamp), Some(self.spare));
        }
    }
}

impl SpareHint {
    // Plain loads and stores: a race between threads of one process loses or doubles a hint.
    fn take(&self) -> Option<u32> {
        let number = self.0.load(Relaxed);
        self.0.store(0, Relaxed);
        number.checked_sub(1)
    }

    /// False if there is one already.
    fn put(&self, number: u32) -> bool {
        let empty = self.0.load(Relaxed) == 0;
        if empty {
            self.0.store(number + 1, Relaxed);
        }
        empty
    }
}

impl Block {
    /// The row it was last meant for; meaningless while its writer is between claim and link.
    pub(crate) fn row(&self) -> u32 {
        low_half(self.row.load(Relaxed))
    }
}

/// Blocks start on a cache line of their own.
fn stride_of(payload: usize) -> Option<usize> {
    payload.checked_add(HEADER_WORDS)?.checked_next_multiple_of(LINE_WORDS)
}
