//! The receive pool on the heap, one process.
#![cfg(not(dunlin_loom))]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use dunlin_table::{
    Chain, LayoutError, MAX_POOL_GROUPS, Pool, PoolError, PoolLimits, RowId, heap_words,
};
use proptest::prelude::*;

const ANN: RowId = RowId { index: 1, generation: 4 };
const BOB: RowId = RowId { index: 2, generation: 9 };
const EVE: RowId = RowId { index: 3, generation: 1 };

fn pool(blocks: u32, block_bytes: usize) -> Pool {
    pool_with_groups(blocks, block_bytes, 0)
}

fn pool_with_groups(blocks: u32, block_bytes: usize, groups: u16) -> Pool {
    let words = heap_words(Pool::words_needed(blocks, block_bytes, groups).unwrap());
    Pool::new(blocks, block_bytes, groups, words).unwrap()
}

const fn limit(bytes: usize) -> PoolLimits {
    PoolLimits::bytes(bytes)
}

fn chain() -> Chain<'static> {
    let words: &'static [AtomicU64] = heap_words(2);
    Chain { ends: &words[0], length: &words[1] }
}

fn content(pool: &Pool, chain: Chain<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    assert_eq!(pool.read_into(chain, &mut out), pool.len(chain));
    out
}

#[test]
fn an_append_is_all_or_nothing() {
    let pool = pool(3, 16);
    let (ann, bob) = (chain(), chain());
    pool.append(ann, ANN, &[1; 20], limit(64)).unwrap();
    assert_eq!(pool.append(ann, ANN, &[2; 45], limit(64)), Err(PoolError::ChainFull));
    assert_eq!(pool.append(bob, BOB, &[3; 17], limit(64)), Err(PoolError::PoolFull));
    assert_eq!((content(&pool, ann), content(&pool, bob)), (vec![1; 20], vec![]));
    assert_eq!(pool.free_blocks(), 1);
    pool.append(bob, BOB, &[3; 16], limit(64)).unwrap();
    pool.append(ann, ANN, &[4; 12], limit(32)).unwrap();
    assert_eq!(content(&pool, ann), [vec![1; 20], vec![4; 12]].concat());
    assert_eq!((pool.free(ann), pool.free(ann), pool.free(bob)), (2, 0, 1));
    assert_eq!((pool.len(ann), pool.free_blocks()), (0, 3));
}

#[test]
fn blocks_of_rows_that_are_gone_are_found() {
    let pool = pool(8, 8);
    let (ann, bob) = (chain(), chain());
    pool.append(ann, ANN, &[1; 30], limit(64)).unwrap();
    pool.append(bob, BOB, &[2; 30], limit(64)).unwrap();
    assert_eq!(pool.recover(|owner| owner == BOB), 4);
    assert_eq!((content(&pool, bob), pool.free_blocks()), (vec![2; 30], 4));
}

/// What an append leaves that was killed right before the store of the length: everything but that.
#[test]
fn an_unfinished_append_is_cut_off() {
    for before in [0, 5, 8, 16] {
        let pool = pool(8, 8);
        let ann = chain();
        pool.append(ann, ANN, &vec![1; before], limit(64)).unwrap();
        let length = ann.length.load(Relaxed);
        pool.append(ann, ANN, &[2; 21], limit(64)).unwrap();
        ann.length.store(length, Relaxed);

        assert_eq!(content(&pool, ann), vec![1; before]);
        pool.append(ann, ANN, &[3; 10], limit(64)).unwrap();
        assert_eq!(content(&pool, ann), [vec![1; before], vec![3; 10]].concat());
        let blocks = u32::try_from((before + 10).div_ceil(8)).unwrap();
        assert_eq!(pool.free_blocks(), 8 - blocks, "before {before}");
        assert_eq!(pool.free(ann), blocks);
    }
}

#[test]
fn what_a_living_row_lost_is_reclaimed() {
    let pool = pool(8, 8);
    let (ann, lost) = (chain(), chain());
    pool.append(ann, ANN, &[1; 20], limit(64)).unwrap();
    // Claimed for the same row, and killed before it was linked.
    pool.append(lost, ANN, &[2; 20], limit(64)).unwrap();
    assert_eq!(pool.recover(|_| true), 0);
    assert_eq!(pool.reclaim(|owner| (owner == ANN).then_some([ann])), 3);
    assert_eq!((content(&pool, ann), pool.free_blocks()), (vec![1; 20], 5));
    assert_eq!(pool.reclaim(|_| None::<[Chain<'_>; 1]>), 0);
    // A second chain of the row is not taken for what it lost.
    let second = chain();
    pool.append(second, ANN, &[5; 9], limit(64)).unwrap();
    assert_eq!(pool.reclaim(|owner| (owner == ANN).then_some([ann, second])), 0);
    assert_eq!((content(&pool, ann), content(&pool, second)), (vec![1; 20], vec![5; 9]));
    assert_eq!(pool.reclaim(|owner| (owner == ANN).then_some([second])), 3);
}

#[test]
fn a_group_holds_no_more_than_its_share() {
    let pool = pool_with_groups(8, 8, 2);
    let (ann, bob, eve) = (chain(), chain(), chain());
    let (odd, even) = (limit(64).in_group(1, 3), limit(64).in_group(2, 3));
    pool.append(ann, ANN, &[1; 12], odd).unwrap();
    let full = Err(PoolError::GroupFull { group: 1, blocks: 3 });
    assert_eq!(pool.append(bob, BOB, &[2; 9], odd), full);
    assert_eq!((pool.group_blocks(1), pool.free_blocks(), pool.len(bob)), (2, 6, 0));
    pool.append(bob, BOB, &[2; 8], odd).unwrap();
    pool.append(ann, ANN, &[1; 4], odd).unwrap();
    assert_eq!(pool.append(ann, ANN, &[1], odd), full, "its own chain counts, too");
    pool.append(eve, EVE, &[3; 24], even).unwrap();
    assert_eq!((pool.group_blocks(0), pool.group_blocks(1), pool.group_blocks(3)), (3, 3, 3));
    pool.append(eve, EVE, &[3; 16], limit(64)).unwrap();
    assert_eq!(pool.group_blocks(0), 3, "what is in no group counts for none");
    pool.free(ann);
    pool.append(bob, BOB, &[2; 16], odd).unwrap();
    pool.free(eve);
    pool.free(bob);
    assert_eq!((pool.group_blocks(0), pool.group_blocks(1), pool.further_blocks()), (0, 0, 0));
}

#[test]
fn the_last_blocks_are_kept_for_short_chains() {
    let pool = pool(6, 8);
    let chains = [chain(), chain(), chain(), chain()];
    let owner = |index| RowId { index, generation: 1 };
    let limits = limit(64).keep_free(3);
    pool.append(chains[0], owner(0), &[1; 32], limits).unwrap();
    let kept = Err(PoolError::KeptForShort { blocks: 3 });
    assert_eq!(pool.append(chains[0], owner(0), &[1], limits), kept);
    assert_eq!(pool.append(chains[1], owner(1), &[2; 9], limits), kept);
    pool.append(chains[1], owner(1), &[2; 8], limits).unwrap();
    pool.append(chains[2], owner(2), &[3; 1], limits).unwrap();
    assert_eq!(pool.append(chains[3], owner(3), &[4], limits), Err(PoolError::PoolFull));
    assert_eq!((pool.further_blocks(), pool.free_blocks()), (3, 0));
    for chain in chains {
        pool.free(chain);
    }
    assert_eq!((pool.further_blocks(), pool.free_blocks()), (0, 6));
}

/// A process that was killed between a block and its count left the count too high.
#[test]
fn counts_that_kills_left_too_high_are_mended() {
    let words = heap_words(Pool::words_needed(8, 8, 2).unwrap());
    let pool = Pool::new(8, 8, 2, words).unwrap();
    let ann = chain();
    pool.append(ann, ANN, &[1; 24], limit(64).in_group(1, 8)).unwrap();
    let (further, first_group) = (&words[8], &words[16]);
    for (word, count) in [(further, 2), (first_group, 0)] {
        assert_eq!(word.load(Relaxed) & 0xffff_ffff, count, "these are the words");
        word.fetch_add(5, Relaxed);
    }
    assert_eq!((pool.further_blocks(), pool.group_blocks(0), pool.group_blocks(1)), (7, 5, 3));
    assert_eq!(pool.recount(), 0);
    assert_eq!((pool.further_blocks(), pool.group_blocks(0), pool.group_blocks(1)), (2, 0, 3));
    further.fetch_add(1, Relaxed);
    pool.recover(|_| false);
    assert_eq!((pool.further_blocks(), pool.group_blocks(1), pool.free_blocks()), (0, 0, 8));
}

#[test]
fn hostile_chains_end() {
    let pool = pool(4, 8);
    let ann = chain();
    pool.append(ann, ANN, &[1; 8], limit(64)).unwrap();
    for ends in [u64::MAX, u64::from(u32::MAX), 99 << 32 | 99] {
        ann.ends.store(ends, Relaxed);
        ann.length.store(u64::MAX, Relaxed);
        pool.read_into(ann, &mut Vec::new());
        let _ = pool.append(ann, ANN, &[1], limit(usize::MAX));
        pool.free(ann);
    }
}

#[test]
fn bad_sizes_are_errors_that_say_the_number() {
    for bytes in [0, 7, 12, (1 << 20) + 8] {
        let error = Pool::words_needed(1, bytes, 0).unwrap_err();
        assert!(matches!(error, LayoutError::BlockBytes { bytes: said, .. } if said == bytes));
    }
    assert!(matches!(Pool::words_needed(0, 8, 0), Err(LayoutError::Empty { .. })));
    assert!(matches!(Pool::words_needed(u32::MAX, 8, 0), Err(LayoutError::TooMany { .. })));
    let groups = Pool::words_needed(1, 8, MAX_POOL_GROUPS + 1);
    assert!(matches!(groups, Err(LayoutError::TooMany { what: "groups of pool owners", .. })));
    let words = heap_words(Pool::words_needed(4, 8, 9).unwrap());
    Pool::new(4, 8, 9, words).unwrap();
    let error = Pool::new(4, 8, 8, words).unwrap_err();
    assert!(error.to_string().contains("number of groups"), "{error}");
}

const PROPERTY_BLOCKS: u32 = 12;
const CHAINS: usize = 4;
const SHARE: u32 = 5;
const KEPT: u32 = 4;

/// Chains in a model: their bytes, and the group and number of each one's blocks.
#[derive(Default)]
struct Model {
    bytes: [Vec<u8>; CHAINS],
    /// Group of each block, in the order of the chain.
    blocks: [Vec<Option<u32>>; CHAINS],
}

impl Model {
    fn used(&self) -> u32 {
        count(self.blocks.iter().map(Vec::len).sum())
    }

    fn further(&self) -> u32 {
        count(self.blocks.iter().map(|blocks| blocks.len().saturating_sub(1)).sum())
    }

    fn in_group(&self, group: u32) -> u32 {
        count(self.blocks.iter().flatten().filter(|block| **block == Some(group)).count())
    }

    /// Whether an append is refused, and why.
    fn append(
        &mut self,
        who: usize,
        bytes: &[u8],
        group: Option<u32>,
        block_bytes: usize,
    ) -> Result<(), PoolError> {
        let total = self.bytes[who].len() + bytes.len();
        if total > 100 {
            return Err(PoolError::ChainFull);
        }
        let have = self.blocks[who].len();
        let more = count(total.div_ceil(block_bytes) - have);
        let further = more - u32::from(have == 0 && more > 0);
        if count(have) + more > PROPERTY_BLOCKS {
            return Err(PoolError::PoolFull);
        }
        if let Some(group) = group.filter(|group| more > 0 && self.in_group(*group) + more > SHARE)
        {
            let group = u16::try_from(group).unwrap();
            return Err(PoolError::GroupFull { group, blocks: SHARE });
        }
        if further > 0 && self.further() + further > PROPERTY_BLOCKS - KEPT {
            return Err(PoolError::KeptForShort { blocks: KEPT });
        }
        if self.used() + more > PROPERTY_BLOCKS {
            return Err(PoolError::PoolFull);
        }
        self.bytes[who].extend_from_slice(bytes);
        self.blocks[who].extend((0..more).map(|_| group));
        Ok(())
    }
}

fn count(blocks: usize) -> u32 {
    u32::try_from(blocks).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]
    #[test]
    fn chains_are_byte_strings_and_counts_are_true(
        block_words in 1_usize..4,
        steps in proptest::collection::vec(
            (0..CHAINS, 0_usize..40, any::<u8>(), 0..8, proptest::option::of(0_u32..2)), 1..60),
    ) {
        let pool = pool_with_groups(PROPERTY_BLOCKS, block_words * 8, 2);
        let chains = std::array::from_fn::<_, CHAINS, _>(|_| chain());
        let mut model = Model::default();
        for (who, len, byte, kind, group) in steps {
            let owner = RowId { index: count(who), generation: 1 };
            if kind == 0 {
                pool.free(chains[who]);
                model.bytes[who].clear();
                model.blocks[who].clear();
            } else {
                let bytes: Vec<u8> = (0..len).map(|at| byte ^ at.to_le_bytes()[0]).collect();
                let limits = limit(100).keep_free(KEPT);
                // Numbers beyond the groups mean them, too.
                let limits = group.map_or(limits, |group| limits.in_group(group + 6, SHARE));
                let expected = model.append(who, &bytes, group, block_words * 8);
                prop_assert_eq!(pool.append(chains[who], owner, &bytes, limits), expected);
            }
            prop_assert_eq!(pool.free_blocks(), PROPERTY_BLOCKS - model.used());
            for (chain, bytes) in chains.iter().zip(&model.bytes) {
                prop_assert_eq!(&content(&pool, *chain), bytes);
            }
            for recounted in [false, true] {
                prop_assert!(!recounted || pool.recount() == 0);
                let counts = [pool.further_blocks(), pool.group_blocks(0), pool.group_blocks(1)];
                prop_assert_eq!(counts, [model.further(), model.in_group(0), model.in_group(1)]);
            }
        }
    }
}
