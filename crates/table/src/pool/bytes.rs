//! The bytes of the blocks.
//!
//! Knows nothing of chains. The caller holds the block, so that nobody else touches it now; models
//! prove that all that earlier holders did with it happened before.

#[cfg(not(dunlin_loom))]
use crate::region::{copy_in, copy_out};
use crate::sync::AtomicU64;
#[cfg(dunlin_loom)]
use crate::value::{load_bytes as copy_out, store_at as copy_in};
use crate::word::{LINE_WORDS, WORD_BYTES};

#[derive(Clone, Debug)]
pub(super) struct BlockBytes {
    words: &'static [AtomicU64],
    block_bytes: usize,
    /// Fails a model when two touch a block and neither happens before the other.
    #[cfg(dunlin_loom)]
    holders: &'static [loom::cell::UnsafeCell<()>],
}

impl BlockBytes {
    /// `None` if they do not fit an address.
    pub(super) fn words_needed(blocks: u32, block_bytes: usize) -> Option<usize> {
        stride_of(block_bytes).checked_mul(blocks as usize)
    }

    pub(super) fn new(block_bytes: usize, words: &'static [AtomicU64]) -> Self {
        Self {
            words,
            block_bytes,
            #[cfg(dunlin_loom)]
            holders: Vec::leak(
                words
                    .chunks(stride_of(block_bytes))
                    .map(|_| loom::cell::UnsafeCell::new(()))
                    .collect(),
            ),
        }
    }

    pub(super) fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Stores bytes into a block from byte `at` on.
    pub(super) fn store(&self, block: u32, at: usize, bytes: &[u8]) {
        copy_in(self.held(block), at, bytes);
    }

    /// Appends the first `len` bytes of a block to `out`.
    pub(super) fn load_into(&self, block: u32, len: usize, out: &mut Vec<u8>) {
        copy_out(self.held(block), len, out);
    }

    fn held(&self, block: u32) -> &'static [AtomicU64] {
        #[cfg(dunlin_loom)]
        self.holders[block as usize].with_mut(|_| ());
        let from = block as usize * stride_of(self.block_bytes);
        &self.words[from..from + self.block_bytes / WORD_BYTES]
    }
}

/// Blocks start on cache lines.
fn stride_of(block_bytes: usize) -> usize {
    (block_bytes / WORD_BYTES).next_multiple_of(LINE_WORDS)
}
