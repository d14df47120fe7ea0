//! The receive pool on the heap, one process.
#![cfg(not(dunlin_loom))]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use dunlin_table::{Chain, LayoutError, Pool, PoolError, RowId, heap_words};
use proptest::prelude::*;

const ANN: RowId = RowId { index: 1, generation: 4 };
const BOB: RowId = RowId { index: 2, generation: 9 };

fn pool(blocks: u32, block_bytes: usize) -> Pool {
    let words = heap_words(Pool::words_needed(blocks, block_bytes).unwrap());
    Pool::new(blocks, block_bytes, words).unwrap()
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
    pool.append(ann, ANN, &[1; 20], 64).unwrap();
    assert_eq!(pool.append(ann, ANN, &[2; 45], 64), Err(PoolError::ChainFull));
    assert_eq!(pool.append(bob, BOB, &[3; 17], 64), Err(PoolError::PoolFull));
    assert_eq!((content(&pool, ann), content(&pool, bob)), (vec![1; 20], vec![]));
    assert_eq!(pool.free_blocks(), 1);
    pool.append(bob, BOB, &[3; 16], 64).unwrap();
    pool.append(ann, ANN, &[4; 12], 32).unwrap();
    assert_eq!(content(&pool, ann), [vec![1; 20], vec![4; 12]].concat());
    assert_eq!((pool.free(ann), pool.free(ann), pool.free(bob)), (2, 0, 1));
    assert_eq!((pool.len(ann), pool.free_blocks()), (0, 3));
}

#[test]
fn blocks_of_rows_that_are_gone_are_found() {
    let pool = pool(8, 8);
    let (ann, bob) = (chain(), chain());
    pool.append(ann, ANN, &[1; 30], 64).unwrap();
    pool.append(bob, BOB, &[2; 30], 64).unwrap();
    assert_eq!(pool.recover(|owner| owner == BOB), 4);
    assert_eq!((content(&pool, bob), pool.free_blocks()), (vec![2; 30], 4));
}

/// What an append leaves that was killed right before the store of the length: everything but that.
#[test]
fn an_unfinished_append_is_cut_off() {
    for before in [0, 5, 8, 16] {
        let pool = pool(8, 8);
        let ann = chain();
        pool.append(ann, ANN, &vec![1; before], 64).unwrap();
        let length = ann.length.load(Relaxed);
        pool.append(ann, ANN, &[2; 21], 64).unwrap();
        ann.length.store(length, Relaxed);

        assert_eq!(content(&pool, ann), vec![1; before]);
        pool.append(ann, ANN, &[3; 10], 64).unwrap();
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
    pool.append(ann, ANN, &[1; 20], 64).unwrap();
    // Claimed for the same row, and killed before it was linked.
    pool.append(lost, ANN, &[2; 20], 64).unwrap();
    assert_eq!(pool.recover(|_| true), 0);
    assert_eq!(pool.reclaim(|owner| (owner == ANN).then_some(ann)), 3);
    assert_eq!((content(&pool, ann), pool.free_blocks()), (vec![1; 20], 5));
    assert_eq!(pool.reclaim(|_| None), 0);
}

#[test]
fn hostile_chains_end() {
    let pool = pool(4, 8);
    let ann = chain();
    pool.append(ann, ANN, &[1; 8], 64).unwrap();
    for ends in [u64::MAX, u64::from(u32::MAX), 99 << 32 | 99] {
        ann.ends.store(ends, Relaxed);
        ann.length.store(u64::MAX, Relaxed);
        pool.read_into(ann, &mut Vec::new());
        let _ = pool.append(ann, ANN, &[1], usize::MAX);
        pool.free(ann);
    }
}

#[test]
fn bad_sizes_are_errors_that_say_the_number() {
    for bytes in [0, 7, 12, (1 << 20) + 8] {
        let error = Pool::words_needed(1, bytes).unwrap_err();
        assert!(matches!(error, LayoutError::BlockBytes { bytes: said, .. } if said == bytes));
    }
    assert!(matches!(Pool::words_needed(0, 8), Err(LayoutError::Empty { .. })));
    assert!(matches!(Pool::words_needed(u32::MAX, 8), Err(LayoutError::TooMany { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]
    #[test]
    fn chains_are_byte_strings(
        block_words in 1_usize..4,
        steps in proptest::collection::vec((0_usize..3, 0_usize..40, any::<u8>(), 0..8), 1..60),
    ) {
        let pool = pool(12, block_words * 8);
        let chains = [chain(), chain(), chain()];
        let mut model: [Vec<u8>; 3] = Default::default();
        for (who, len, byte, kind) in steps {
            let owner = RowId { index: u32::try_from(who).unwrap(), generation: 1 };
            if kind == 0 {
                pool.free(chains[who]);
                model[who].clear();
            } else {
                let bytes: Vec<u8> = (0..len).map(|at| byte ^ at.to_le_bytes()[0]).collect();
                match pool.append(chains[who], owner, &bytes, 100) {
                    Ok(()) => model[who].extend_from_slice(&bytes),
                    Err(PoolError::ChainFull) => prop_assert!(model[who].len() + len > 100),
                    Err(PoolError::PoolFull) => {
                        let more = (model[who].len() + len).div_ceil(block_words * 8)
                            - model[who].len().div_ceil(block_words * 8);
                        prop_assert!(pool.free_blocks() < u32::try_from(more).unwrap());
                    }
                }
            }
            let used: usize = model.iter().map(|bytes| bytes.len().div_ceil(block_words * 8)).sum();
            prop_assert_eq!(pool.free_blocks(), 12 - u32::try_from(used).unwrap());
            for (chain, bytes) in chains.iter().zip(&model) {
                prop_assert_eq!(&content(&pool, *chain), bytes);
            }
        }
    }
}
