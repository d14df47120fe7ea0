//! The receive pool: equal blocks in shared memory, chained by their owners to hold bytes of any
//! length.
//!
//! Knows no connection: an owner is the id of a row, a chain is two words that the owner keeps, most
//! often two counters of its row. A chain has one holder at a time.
//!
//! Invariants: 1. A block whose stamp names an owner is touched by that owner's holder alone, so bytes
//! go in and out by plain copies of words. 2. The content of a chain is its first `length` bytes; the
//! store of `length` commits an append. What is linked behind that was left by a kill and is freed by
//! the next append. 3. Each block knows its ordinal in the chain, so that an unfinished append is
//! noticed without a walk. 4. A kill loses no block for longer than its owner's row lives:
//! [`Pool::recover`] frees what is stamped with rows that are gone, [`Pool::reclaim`] what a living row
//! lost.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::free_hints::{FreeHints, start_of};
use crate::layout::{LayoutError, check_header, stamp_header};
use crate::rows::RowId;
use crate::sync::AtomicU64;
use crate::value::{load_bytes, store_bytes};
use crate::word::{halves, high_half, index_of, low_half, word_of};

/// Most bytes of one block.
pub const MAX_POOL_BLOCK_BYTES: usize = 1 << 20;
/// Most blocks of one pool.
pub const MAX_POOL_BLOCKS: u32 = 1 << 30;

/// First word of formatted memory: "dunlinpl".
const MAGIC: u64 = u64::from_be_bytes(*b"dunlinpl");
const LAYOUT_VERSION: u64 = 1;
const HEADER_WORDS: usize = 8;
const LINE_WORDS: usize = 8;
const WORD_BYTES: usize = 8;

/// A block arena in shared words.
#[derive(Clone, Debug)]
pub struct Pool {
    blocks: u32,
    block_bytes: usize,
    hints: FreeHints,
    /// Bits of the owner's [`RowId`], 0 for a free block.
    stamps: &'static [AtomicU64],
    /// `ordinal in the chain << 32 | next block + 1`.
    links: &'static [AtomicU64],
    data: &'static [AtomicU64],
    data_stride: usize,
}

/// The two words that make a chain; both zero is the empty one.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    /// `first block + 1 << 32 | last block + 1`.
    pub ends: &'a AtomicU64,
    /// Bytes of content.
    pub length: &'a AtomicU64,
}

/// Appending failed; the chain is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PoolError {
    /// The chain would grow beyond the limit given.
    #[error("the chain would be longer than its limit")]
    ChainFull,
    /// Not enough free blocks.
    #[error("the pool has too few free blocks")]
    PoolFull,
}

/// Blocks claimed and linked to one another, not yet to a chain.
#[derive(Clone, Copy, Default)]
struct Run {
    first: Option<u32>,
    last: Option<u32>,
}

impl Pool {
    /// Words of a pool.
    ///
    /// # Errors
    /// No blocks, too many, or a block size that is 0, no multiple of 8, or too large.
    pub fn words_needed(blocks: u32, block_bytes: usize) -> Result<usize, LayoutError> {
        let what = "pool blocks";
        if blocks == 0 {
            return Err(LayoutError::Empty { what });
        }
        if blocks > MAX_POOL_BLOCKS {
            return Err(LayoutError::TooMany { what, count: blocks, most: MAX_POOL_BLOCKS });
        }
        let most = MAX_POOL_BLOCK_BYTES;
        if block_bytes == 0 || block_bytes > most || !block_bytes.is_multiple_of(WORD_BYTES) {
            return Err(LayoutError::BlockBytes { bytes: block_bytes, most });
        }
        let per_list = (blocks as usize).next_multiple_of(LINE_WORDS);
        stride_of(block_bytes)
            .checked_mul(blocks as usize)
            .and_then(|data| data.checked_add(HEADER_WORDS + 2 * per_list))
            .and_then(|words| words.checked_add(FreeHints::words_needed(blocks)))
            .ok_or(LayoutError::TooLarge { what, count: blocks })
    }

    /// Lays a pool over `words`: zeroed ones are formatted (before other processes use them),
    /// formatted ones checked.
    ///
    /// # Errors
    /// Bad sizes, too few words, or words formatted for something else.
    pub fn new(
        blocks: u32,
        block_bytes: usize,
        words: &'static [AtomicU64],
    ) -> Result<Self, LayoutError> {
        let needed = Self::words_needed(blocks, block_bytes)?;
        let header = [MAGIC, LAYOUT_VERSION, u64::from(blocks), word_of(block_bytes)];
        let names = ["kind of memory", "layout version", "number of blocks", "block size"];
        let formatted = check_header(&header, &names, words, needed)?;
        let count = blocks as usize;
        let per_list = count.next_multiple_of(LINE_WORDS);
        let (header_words, rest) = words.split_at(HEADER_WORDS);
        let (hints, rest) = rest.split_at(FreeHints::words_needed(blocks));
        let (stamps, rest) = rest.split_at(per_list);
        let (links, data) = rest.split_at(per_list);
        let pool = Self {
            blocks,
            block_bytes,
            hints: FreeHints::new(blocks, hints),
            stamps: &stamps[..count],
            links: &links[..count],
            data,
            data_stride: stride_of(block_bytes),
        };
        if !formatted {
            pool.hints.format(blocks);
            stamp_header(&header, header_words);
        }
        Ok(pool)
    }

    /// Appends bytes to the chain of `owner`, all or none of them.
    ///
    /// # Errors
    /// `ChainFull` if it would grow beyond `limit` bytes, `PoolFull`; the chain is as it was then.
    pub fn append(
        &self,
        chain: Chain<'_>,
        owner: RowId,
        bytes: &[u8],
        limit: usize,
    ) -> Result<(), PoolError> {
        let length = self.len(chain);
        let total = length.checked_add(bytes.len()).filter(|total| *total <= limit);
        let total = total.ok_or(PoolError::ChainFull)?;
        self.trim(chain);
        let have = self.blocks_for(length);
        let run = self.claim_run(owner, have, self.blocks_for(total))?;

        let (head, tail) = self.ends_of(chain);
        let room = (have * self.block_bytes - length).min(bytes.len());
        let (into_tail, mut rest) = bytes.split_at(room);
        if let Some(tail) = tail {
            store_at(
                self.block(tail),
                self.block_bytes - (have * self.block_bytes - length),
                into_tail,
            );
        }
        let mut next = run.first;
        while let Some(block) = next {
            let (here, behind) = rest.split_at(rest.len().min(self.block_bytes));
            store_bytes(self.block(block), here);
            rest = behind;
            next = self.next(block);
        }
        if let Some(first) = run.first {
            if let Some(tail) = tail {
                self.set_next(tail, Some(first));
            }
            chain.ends.store(ends(head.or(Some(first)), run.last), Release);
        }
        // The commit point. Release: whoever takes the chain over sees what is in it.
        chain.length.store(word_of(total), Release);
        Ok(())
    }

    /// Appends the content of the chain to `out` and returns its length.
    pub fn read_into(&self, chain: Chain<'_>, out: &mut Vec<u8>) -> usize {
        let length = self.len(chain);
        let mut left = length;
        let (mut next, _) = self.ends_of(chain);
        while left > 0 {
            // A chain shorter than its length can only be a foreign write.
            let Some(block) = next else { break };
            let here = left.min(self.block_bytes);
            load_bytes(self.block(block), here, out);
            left -= here;
            next = self.next(block);
        }
        length - left
    }

    /// Empties the chain and returns how many blocks were freed. Free the chain before its row.
    pub fn free(&self, chain: Chain<'_>) -> u32 {
        chain.length.store(0, Release);
        let (head, tail) = self.ends_of(chain);
        let Some(head) = head else { return 0 };
        let Some(owner) = self.owner(head) else {
            chain.ends.store(0, Release);
            return 0;
        };
        let mut freed = 0;
        let mut next = Some(head);
        while let Some(block) = next {
            next = self.next(block);
            // The chain never names a block that is not its own any more.
            chain.ends.store(ends(next, next.and(tail)), Release);
            if !self.release(block, owner) {
                break;
            }
            freed += 1;
        }
        chain.ends.store(0, Release);
        freed
    }

    /// Bytes in the chain.
    #[must_use]
    pub fn len(&self, chain: Chain<'_>) -> usize {
        let most = (self.blocks as usize).saturating_mul(self.block_bytes);
        index_of(chain.length.load(Acquire)).min(most)
    }

    /// Frees every block whose owner is not live any more, and returns how many. For after the rows of
    /// a dead process were freed; the living may go on meanwhile.
    pub fn recover(&self, is_live: impl Fn(RowId) -> bool) -> u32 {
        let mut freed = 0;
        for block in 0..self.blocks {
            match self.owner(block) {
                None => self.hints.restore(block),
                Some(owner) if !is_live(owner) => freed += u32::from(self.release(block, owner)),
                Some(_) => {}
            }
        }
        self.hints.forget_exhaustion();
        freed
    }

    /// Frees the blocks that an append or a free left behind when its process was killed, for rows
    /// that live on: `chain_of` gives the chain of each row the caller now holds alone, `None` for all
    /// others. Returns how many were freed.
    pub fn reclaim<'a>(&self, chain_of: impl Fn(RowId) -> Option<Chain<'a>>) -> u32 {
        let mut freed = 0;
        for block in 0..self.blocks {
            let Some(owner) = self.owner(block) else { continue };
            let Some(chain) = chain_of(owner) else { continue };
            freed += self.trim(chain);
            let ordinal = high_half(self.links[block as usize].load(Acquire));
            if self.nth(chain, ordinal as usize) != Some(block) {
                freed += u32::from(self.release(block, owner));
            }
        }
        freed
    }

    /// How many blocks are free, by a scan.
    #[must_use]
    pub fn free_blocks(&self) -> u32 {
        (0..self.blocks).map(|block| u32::from(self.owner(block).is_none())).sum()
    }

    /// How many blocks there are.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Bytes of one block.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }
}

impl Pool {
    /// Claims the blocks with the ordinals from `from` to before `to`.
    fn claim_run(&self, owner: RowId, from: usize, to: usize) -> Result<Run, PoolError> {
        let mut run = Run::default();
        for ordinal in from..to {
            let Some(block) = self.claim(owner) else {
                self.release_run(run.first, owner);
                return Err(PoolError::PoolFull);
            };
            let ordinal = u32::try_from(ordinal).unwrap_or(u32::MAX);
            self.links[block as usize].store(halves(ordinal, 0), Relaxed);
            match run.last {
                Some(last) => self.set_next(last, Some(block)),
                None => run.first = Some(block),
            }
            run.last = Some(block);
        }
        Ok(run)
    }

    fn claim(&self, owner: RowId) -> Option<u32> {
        // Owners start to search at different places, as writers do.
        let start = start_of((owner.index & 0xffff).try_into().unwrap_or_default(), self.blocks);
        while let Some(block) = self.hints.take(start) {
            if self.try_claim(block, owner) {
                return Some(block);
            }
        }
        self.claim_by_scan(owner)
    }

    fn try_claim(&self, block: u32, owner: RowId) -> bool {
        // Acquire: the last holder is done with the block.
        let stamp = &self.stamps[block as usize];
        stamp.compare_exchange(0, owner.to_bits(), AcqRel, Relaxed).is_ok()
    }

    /// For when no hint leads to a free block: all are taken, or kills lost hints. Puts those back.
    #[cold]
    fn claim_by_scan(&self, owner: RowId) -> Option<u32> {
        let scan = self.hints.begin_scan()?;
        let mut claimed = None;
        for block in 0..self.blocks {
            if self.owner(block).is_some() {
                continue;
            }
            if claimed.is_some() {
                self.hints.restore(block);
            } else if self.try_claim(block, owner) {
                claimed = Some(block);
            }
        }
        if claimed.is_none() {
            self.hints.found_nothing(scan);
        }
        claimed
    }

    /// Frees a block if it is still this owner's.
    fn release(&self, block: u32, owner: RowId) -> bool {
        // Release: what we did with the block happens before its next holder's claim.
        let stamp = &self.stamps[block as usize];
        let freed = stamp.compare_exchange(owner.to_bits(), 0, AcqRel, Relaxed).is_ok();
        if freed {
            self.hints.offer(block);
        }
        freed
    }

    /// Frees the blocks linked from `first` on, as long as they are this owner's.
    fn release_run(&self, first: Option<u32>, owner: RowId) -> u32 {
        let mut freed = 0;
        let mut next = first;
        while let Some(block) = next {
            next = self.next(block);
            if !self.release(block, owner) {
                break;
            }
            freed += 1;
        }
        freed
    }

    /// Cuts off what an append that was killed left behind the content. Without a walk if there is
    /// nothing to cut.
    fn trim(&self, chain: Chain<'_>) -> u32 {
        let (head, tail) = self.ends_of(chain);
        let (Some(head), Some(tail)) = (head, tail) else { return 0 };
        let Some(owner) = self.owner(head) else { return 0 };
        let keep = self.blocks_for(self.len(chain));
        let Some(last) = keep.checked_sub(1) else {
            chain.ends.store(0, Release);
            return self.release_run(Some(head), owner);
        };
        let ordinal = high_half(self.links[tail as usize].load(Acquire));
        let end = if ordinal as usize == last { Some(tail) } else { self.nth(chain, last) };
        let Some(end) = end else { return 0 };
        let Some(first) = self.next(end) else { return 0 };
        chain.ends.store(ends(Some(head), Some(end)), Release);
        self.set_next(end, None);
        self.release_run(Some(first), owner)
    }

    /// The block of an ordinal, within the content.
    fn nth(&self, chain: Chain<'_>, ordinal: usize) -> Option<u32> {
        if ordinal >= self.blocks_for(self.len(chain)) {
            return None;
        }
        let (head, _) = self.ends_of(chain);
        (0..ordinal).try_fold(head?, |block, _| self.next(block))
    }

    /// First and last block. Numbers that no block has can only be a foreign write.
    fn ends_of(&self, chain: Chain<'_>) -> (Option<u32>, Option<u32>) {
        let word = chain.ends.load(Acquire);
        let block = |half: u32| half.checked_sub(1).filter(|block| *block < self.blocks);
        (block(high_half(word)), block(low_half(word)))
    }

    fn blocks_for(&self, bytes: usize) -> usize {
        bytes.div_ceil(self.block_bytes)
    }

    fn owner(&self, block: u32) -> Option<RowId> {
        match self.stamps.get(block as usize)?.load(Acquire) {
            0 => None,
            bits => Some(RowId::from_bits(bits)),
        }
    }

    fn next(&self, block: u32) -> Option<u32> {
        let link = self.links[block as usize].load(Acquire);
        low_half(link).checked_sub(1).filter(|next| *next < self.blocks)
    }

    fn set_next(&self, block: u32, next: Option<u32>) {
        let link = &self.links[block as usize];
        let ordinal = high_half(link.load(Relaxed));
        link.store(halves(ordinal, next.map_or(0, |next| next + 1)), Release);
    }

    fn block(&self, block: u32) -> &'static [AtomicU64] {
        let from = block as usize * self.data_stride;
        &self.data[from..from + self.block_bytes / WORD_BYTES]
    }
}

fn ends(head: Option<u32>, tail: Option<u32>) -> u64 {
    let number = |block: Option<u32>| block.map_or(0, |block| block + 1);
    halves(number(head), number(tail))
}

/// Stores bytes from byte `at` of `words` on, which may be in the middle of a word.
fn store_at(words: &[AtomicU64], at: usize, bytes: &[u8]) {
    let (word, inside) = (at / WORD_BYTES, at % WORD_BYTES);
    if inside == 0 || bytes.is_empty() {
        return store_bytes(&words[word.min(words.len())..], bytes);
    }
    let (first, rest) = bytes.split_at(bytes.len().min(WORD_BYTES - inside));
    let mut merged = words[word].load(Relaxed).to_ne_bytes();
    merged[inside..inside + first.len()].copy_from_slice(first);
    words[word].store(u64::from_ne_bytes(merged), Relaxed);
    store_bytes(&words[word + 1..], rest);
}

fn stride_of(block_bytes: usize) -> usize {
    (block_bytes / WORD_BYTES).next_multiple_of(LINE_WORDS)
}
