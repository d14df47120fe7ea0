//! What a connection may take of the receive pool, so that a few clients cannot fill it for all.
//!
//! Knows blocks and percents, and the group of an address; pure. The pool keeps the counts.

use crate::config::Config;
use crate::peers::Address;
use crate::shared::{POOL_BLOCK_BYTES, POOL_GROUPS};
use crate::websocket::CUT_MAX;
use dunlin_table::{Pool, PoolLimits};

/// One block in so many is kept for cut frames and the beginnings of messages.
const KEPT_PART: u32 = 16;

/// The bounds in force, in blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ReceiveLimits {
    max_message_bytes: usize,
    share_blocks: u32,
    kept_blocks: u32,
}

impl ReceiveLimits {
    pub(super) fn new(config: &Config, pool: &Pool) -> Self {
        Self::of(pool.blocks(), config.max_message_bytes, config.receive_share_percent)
    }

    /// One message may always come, however small the share.
    fn of(blocks: u32, max_message_bytes: u64, percent: u32) -> Self {
        let max_message_bytes = usize::try_from(max_message_bytes).unwrap_or(usize::MAX);
        let message = u32::try_from(max_message_bytes.div_ceil(POOL_BLOCK_BYTES));
        let part = u64::from(blocks) * u64::from(percent.min(100)) / 100;
        let share = u32::try_from(part).unwrap_or(blocks);
        Self {
            max_message_bytes,
            share_blocks: share.max(message.unwrap_or(blocks)),
            kept_blocks: blocks / KEPT_PART,
        }
    }

    /// For the pieces of a message.
    pub(super) fn message(self, address: Address) -> PoolLimits {
        PoolLimits::bytes(self.max_message_bytes)
            .in_group(group(address), self.share_blocks)
            .keep_free(self.kept_blocks)
    }

    /// For a cut header or control frame: the share of its address is larger by what is kept, so that
    /// one client's messages do not stop another of the same address from sending at all.
    pub(super) fn cut(self, address: Address) -> PoolLimits {
        let blocks = self.share_blocks.saturating_add(self.kept_blocks);
        PoolLimits::bytes(CUT_MAX).in_group(group(address), blocks)
    }
}

fn group(address: Address) -> u32 {
    u32::try_from(address.group(usize::from(POOL_GROUPS))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_part_of_the_pool_and_at_least_a_message() {
        let limits = ReceiveLimits::of(16_384, 1 << 20, 25);
        assert_eq!((limits.share_blocks, limits.kept_blocks), (4_096, 1_024));
        assert_eq!(ReceiveLimits::of(16_384, 1 << 20, 1).share_blocks, 1_024, "one message");
        assert_eq!(ReceiveLimits::of(16_384, 1 << 20, 100).share_blocks, 16_384);
        assert_eq!(ReceiveLimits::of(4, 1_000, 25).share_blocks, 1);
    }
}
