//! The receive pool: equal blocks in shared memory, chained by their owners to hold bytes of any
//! length.
//!
//! Knows no connection: an owner is the id of a row, a chain is two words that the owner keeps, most
//! often two counters of its row. A chain has one holder at a time. A group is a number that the caller
//! gives to some owners, to bound what they hold together.
//!
//! Invariants: 1. A block whose stamp names an owner is touched by that owner's holder alone, so bytes
//! go in and out by plain copies. 2. The content of a chain is its first `length` bytes; the store of
//! `length` commits an append. What is linked behind that was left by a kill and is freed by the next
//! append. 3. Each block knows its ordinal in the chain, so that an unfinished append is noticed without
//! a walk. 4. A kill loses no block for longer than its owner's row lives: [`Pool::recover`] frees what
//! is stamped with rows that are gone, [`Pool::reclaim`] what a living row lost. 5. A block is marked as
//! moving before it is counted, and before it is taken out of the counts, and whoever finds it so
//! never subtracts it: a kill leaves counts too high, never too low, and [`Pool::recount`] mends them.

mod bytes;
mod chains;
mod counts;
mod place;
mod recover;

use std::sync::atomic::Ordering::{Acquire, Release};

use crate::free_hints::FreeHints;
use crate::layout::{LayoutError, check_header, stamp_header};
use crate::rows::RowId;
use crate::sync::AtomicU64;
use crate::word::{LINE_WORDS, WORD_BYTES, index_of, word_of};

use bytes::BlockBytes;
use counts::{Counted, Counts};
pub use place::{MAX_POOL_BLOCKS, MAX_POOL_GROUPS};

/// Most bytes of one block.
pub const MAX_POOL_BLOCK_BYTES: usize = 1 << 20;

/// First word of formatted memory: "dunlinpl".
const MAGIC: u64 = u64::from_be_bytes(*b"dunlinpl");
const LAYOUT_VERSION: u64 = 3;
const HEADER_WORDS: usize = 8;

/// A block arena in shared words.
#[derive(Clone, Debug)]
pub struct Pool {
    blocks: u32,
    counts: Counts,
    hints: FreeHints,
    /// Bits of the owner's [`RowId`], and [`chains::CLAIMING`]; 0 for a free block.
    stamps: &'static [AtomicU64],
    /// A [`place::Place`] each; that of a free block has no meaning.
    places: &'static [AtomicU64],
    bytes: BlockBytes,
}

/// The two words that make a chain; both zero is the empty one.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    /// `first block + 1 << 32 | last block + 1`.
    pub ends: &'a AtomicU64,
    /// Bytes of content.
    pub length: &'a AtomicU64,
}

/// What an append may take. Each of the bounds keeps something from somebody: the first from one
/// chain, the second from few owners with many chains, the third from long chains.
///
/// ```
/// # use dunlin_table::PoolLimits;
/// // 1 MiB a message, 2,000 blocks for all that comes from one address, 64 blocks kept for the first
/// // bytes of other chains.
/// let hash_of_address = 0x9e37_79b9;
/// let limits = PoolLimits::bytes(1 << 20).in_group(hash_of_address, 2_000).keep_free(64);
/// assert_eq!(limits.chain_bytes, 1 << 20);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolLimits {
    /// Most bytes of the chain.
    pub chain_bytes: usize,
    /// The group whose blocks these will be; none, and nobody counts them.
    pub share: Option<PoolShare>,
    /// Blocks that are left for the first ones of chains: no chain gets its second or any further block
    /// beyond the others. A chain of one block never fails for it.
    pub keep_free: u32,
}

/// The part of a pool that a group of owners may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolShare {
    /// Any number, a hash for instance; taken modulo the pool's number of groups. A pool made with 0
    /// groups counts none, and this share bounds nothing.
    pub group: u32,
    /// Most blocks of all the group's chains together.
    pub blocks: u32,
}

/// Appending failed; the chain is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PoolError {
    /// The chain would grow beyond its limit.
    #[error("the chain would be longer than its limit")]
    ChainFull,
    /// The owner's group would hold more than its share.
    #[error("the owners of group {group} would hold more than their share of {blocks} blocks")]
    GroupFull {
        /// Number of the group, below the pool's number of groups.
        group: u16,
        /// Its bound.
        blocks: u32,
    },
    /// What is left is kept for the first blocks of other chains.
    #[error("the last {blocks} blocks of the pool are kept for short chains")]
    KeptForShort {
        /// How many are kept.
        blocks: u32,
    },
    /// Not enough free blocks.
    #[error("the pool has too few free blocks")]
    PoolFull,
}

impl PoolLimits {
    /// Only the chain is bounded.
    #[must_use]
    pub const fn bytes(chain_bytes: usize) -> Self {
        Self { chain_bytes, share: None, keep_free: 0 }
    }

    /// Bounds what a group holds, too. See [`PoolShare`].
    #[must_use]
    pub const fn in_group(self, group: u32, blocks: u32) -> Self {
        Self { share: Some(PoolShare { group, blocks }), ..self }
    }

    /// Leaves blocks to the beginnings of other chains.
    #[must_use]
    pub const fn keep_free(self, blocks: u32) -> Self {
        Self { keep_free: blocks, ..self }
    }
}

impl Pool {
    /// Words of a pool whose owners are in one of `groups` groups; 0, and there are none.
    ///
    /// # Errors
    /// No blocks, too many, too many groups, or a block size that is 0, no multiple of 8, or too large.
    pub fn words_needed(
        blocks: u32,
        block_bytes: usize,
        groups: u16,
    ) -> Result<usize, LayoutError> {
        let what = "pool blocks";
        if blocks == 0 {
            return Err(LayoutError::Empty { what });
        }
        for (what, count, most) in [
            (what, blocks, MAX_POOL_BLOCKS),
            ("groups of pool owners", u32::from(groups), u32::from(MAX_POOL_GROUPS)),
        ] {
            if count > most {
                return Err(LayoutError::TooMany { what, count, most });
            }
        }
        let most = MAX_POOL_BLOCK_BYTES;
        if block_bytes == 0 || block_bytes > most || !block_bytes.is_multiple_of(WORD_BYTES) {
            return Err(LayoutError::BlockBytes { bytes: block_bytes, most });
        }
        let per_list = (blocks as usize).next_multiple_of(LINE_WORDS);
        BlockBytes::words_needed(blocks, block_bytes)
            .and_then(|data| data.checked_add(HEADER_WORDS + 2 * per_list))
            .and_then(|words| words.checked_add(Counts::words_needed(groups)))
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
        groups: u16,
        words: &'static [AtomicU64],
    ) -> Result<Self, LayoutError> {
        let needed = Self::words_needed(blocks, block_bytes, groups)?;
        let header =
            [MAGIC, LAYOUT_VERSION, u64::from(blocks), word_of(block_bytes), u64::from(groups)];
        let names = [
            "kind of memory",
            "layout version",
            "number of blocks",
            "block size",
            "number of groups",
        ];
        let formatted = check_header(&header, &names, words, needed)?;
        let count = blocks as usize;
        let per_list = count.next_multiple_of(LINE_WORDS);
        let (header_words, rest) = words.split_at(HEADER_WORDS);
        let (counts, rest) = rest.split_at(Counts::words_needed(groups));
        let (hints, rest) = rest.split_at(FreeHints::words_needed(blocks));
        let (stamps, rest) = rest.split_at(per_list);
        let (places, data) = rest.split_at(per_list);
        let pool = Self {
            blocks,
            counts: Counts::new(groups, counts),
            hints: FreeHints::new(blocks, hints),
            stamps: &stamps[..count],
            places: &places[..count],
            bytes: BlockBytes::new(block_bytes, data),
        };
        if !formatted {
            pool.hints.format(blocks);
            stamp_header(&header, header_words);
        }
        Ok(pool)
    }

    /// Appends bytes to the chain of `owner`, all or none of them. A chain has one holder at a time,
    /// and its owner's chains, if it has several, the same one.
    ///
    /// # Errors
    /// `ChainFull`, `GroupFull`, `KeptForShort` where a limit would be passed, or `PoolFull`; the chain
    /// is as it was then, and so is what others may take.
    pub fn append(
        &self,
        chain: Chain<'_>,
        owner: RowId,
        bytes: &[u8],
        limits: PoolLimits,
    ) -> Result<(), PoolError> {
        let length = self.len(chain);
        let total = length.checked_add(bytes.len()).filter(|total| *total <= limits.chain_bytes);
        let total = total.ok_or(PoolError::ChainFull)?;
        self.trim(chain);
        let have = self.blocks_for(length);
        let run = self.claim_run(owner, have, self.blocks_for(total), limits)?;

        let (head, tail) = self.ends_of(chain);
        let room = (have * self.block_bytes() - length).min(bytes.len());
        let (into_tail, mut rest) = bytes.split_at(room);
        if let Some(tail) = tail {
            let from = self.block_bytes() - (have * self.block_bytes() - length);
            self.bytes.store(tail, from, into_tail);
        }
        let mut next = run.first;
        while let Some(block) = next {
            let (here, behind) = rest.split_at(rest.len().min(self.block_bytes()));
            self.bytes.store(block, 0, here);
            rest = behind;
            next = self.settle(block);
        }
        if let Some(first) = run.first {
            if let Some(tail) = tail {
                self.set_next(tail, Some(first));
            }
            chain.ends.store(chains::ends(head.or(Some(first)), run.last), Release);
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
            let here = left.min(self.block_bytes());
            self.bytes.load_into(block, here, out);
            left -= here;
            next = self.next(block);
        }
        length - left
    }

    /// Empties the chain and returns how many blocks were freed. Free the chain before its row.
    pub fn free(&self, chain: Chain<'_>) -> u32 {
        chain.length.store(0, Release);
        self.release_all(chain)
    }

    /// Bytes in the chain.
    #[must_use]
    pub fn len(&self, chain: Chain<'_>) -> usize {
        let most = (self.blocks as usize).saturating_mul(self.block_bytes());
        index_of(chain.length.load(Acquire)).min(most)
    }

    /// How many blocks a group holds; more than that for a while if one of its processes was killed in
    /// the middle of an append or a free ([`Pool::recount`]). `group` is taken modulo the number of
    /// groups, as in [`PoolShare`]; without groups it is 0.
    #[must_use]
    pub fn group_blocks(&self, group: u32) -> u32 {
        let group = self.group_of(group);
        group.map_or(0, |group| self.counts.look(Counted::Group(group)).number())
    }

    /// How many blocks are not the first ones of their chains; see [`PoolLimits::keep_free`].
    #[must_use]
    pub fn further_blocks(&self) -> u32 {
        self.counts.look(Counted::Further).number()
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
        self.bytes.block_bytes()
    }

    /// How many groups owners may be in; 0 for none.
    #[must_use]
    pub fn groups(&self) -> u16 {
        self.counts.groups()
    }

    fn group_of(&self, number: u32) -> Option<u16> {
        let group = number.checked_rem(u32::from(self.groups()))?;
        u16::try_from(group).ok()
    }

    fn blocks_for(&self, bytes: usize) -> usize {
        bytes.div_ceil(self.block_bytes())
    }
}
