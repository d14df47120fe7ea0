//! The receive pool: one holder a block, and counts of groups that are never too low.

use dunlin_table::sync::Ordering::{Acquire, Relaxed, Release};
use dunlin_table::{Chain, Pool, PoolError, PoolLimits, RowId, heap_words};
use loom::thread;

use crate::explore;
use crate::kills::killed_at_every_access;

const ANN: RowId = RowId { index: 0, generation: 1 };
const BOB: RowId = RowId { index: 1, generation: 1 };
const LIMIT: PoolLimits = PoolLimits::bytes(64);

/// Blocks of 8 bytes.
fn pool(blocks: u32, groups: u16) -> Pool {
    let words = heap_words(Pool::words_needed(blocks, 8, groups).unwrap());
    Pool::new(blocks, 8, groups, words).unwrap()
}

fn chain() -> Chain<'static> {
    let words = heap_words(2);
    Chain { ends: &words[0], length: &words[1] }
}

fn blocks_of(pool: &Pool, chain: Chain<'_>) -> u32 {
    u32::try_from(pool.len(chain).div_ceil(8)).unwrap()
}

#[test]
fn a_pool_block_has_one_holder() {
    explore(3, || {
        let pool = pool(1, 0);
        let work = |pool: &Pool, owner: RowId, byte: u8| {
            let chain = chain();
            if pool.append(chain, owner, &[byte; 8], LIMIT).is_err() {
                return false;
            }
            let mut out = Vec::new();
            pool.read_into(chain, &mut out);
            assert_eq!(out, [byte; 8], "another wrote into the block");
            assert_eq!(pool.free(chain), 1);
            true
        };
        let other = pool.clone();
        let thread = thread::spawn(move || work(&other, BOB, 1));
        let here = work(&pool, ANN, 2);
        assert!(thread.join().unwrap() || here);
        assert_eq!(pool.free_blocks(), 1);
        assert!(work(&pool, ANN, 3), "usable again");
    });
}

#[test]
fn a_chain_is_handed_over_whole() {
    explore(3, || {
        let pool = pool(2, 0);
        let (chain, handed) = (chain(), &heap_words(1)[0]);
        let other = pool.clone();
        let thread = thread::spawn(move || {
            other.append(chain, ANN, b"0123456789", LIMIT).unwrap();
            handed.store(1, Release);
        });
        if handed.load(Acquire) == 1 {
            let mut out = Vec::new();
            pool.read_into(chain, &mut out);
            assert_eq!(out, b"0123456789");
            assert_eq!(pool.free(chain), 2);
        }
        thread.join().unwrap();
    });
}

#[test]
fn a_recovery_frees_nothing_of_the_living() {
    explore(2, || {
        let (pool, chain) = (pool(2, 1), chain());
        let other = pool.clone();
        let limits = LIMIT.in_group(0, 2);
        let thread =
            thread::spawn(move || other.append(chain, ANN, b"0123456789", limits).unwrap());
        assert_eq!(pool.recover(|id| id == ANN), 0);
        thread.join().unwrap();
        let mut out = Vec::new();
        pool.read_into(chain, &mut out);
        assert_eq!((&out[..], pool.group_blocks(0)), (&b"0123456789"[..], 2));
    });
}

#[test]
fn an_appender() {
    for before in [0, 5, 8] {
        killed_at_every_access(1, move |mortal| {
            let pool = pool(4, 0);
            let chain = chain();
            pool.append(chain, ANN, &vec![1; before], LIMIT).unwrap();
            mortal.run(|| pool.append(chain, ANN, &[2; 13], LIMIT).unwrap());
            let mut content = Vec::new();
            pool.read_into(chain, &mut content);
            let after = [vec![1; before], vec![2; 13]].concat();
            assert!(content == vec![1; before] || content == after, "{content:?}");

            pool.reclaim(|_| Some([chain]));
            let used = u32::try_from(content.len().div_ceil(8)).unwrap();
            assert_eq!(pool.free_blocks(), 4 - used);
            pool.append(chain, ANN, &[3; 4], LIMIT).unwrap();
            pool.free(chain);
            assert_eq!(pool.free_blocks(), 4);
            pool.append(chain, ANN, &[4; 32], LIMIT).expect("the whole pool is usable");
        });
    }
}

#[test]
fn a_freer_of_a_chain() {
    killed_at_every_access(1, |mortal| {
        let pool = pool(3, 0);
        let chain = chain();
        pool.append(chain, ANN, &[1; 24], LIMIT).unwrap();
        mortal.run(|| assert_eq!(pool.free(chain), 3));
        let mut content = Vec::new();
        pool.read_into(chain, &mut content);
        assert!(content.is_empty() || content == [1; 24]);
        pool.reclaim(|_| Some([chain]));
        pool.free(chain);
        assert_eq!(pool.free_blocks(), 3);
        pool.append(chain, ANN, &[4; 24], LIMIT).expect("the whole pool is usable");
    });
}

/// Both see a share that has room for one of them.
#[test]
fn a_share_is_not_passed_by_two_at_once() {
    explore(2, || {
        let pool = pool(4, 1);
        let limits = LIMIT.in_group(0, 3);
        let (here, there) = (chain(), chain());
        let other = pool.clone();
        let thread = thread::spawn(move || other.append(there, BOB, &[2; 16], limits));
        let mine = pool.append(here, ANN, &[1; 16], limits);
        let full = Err(PoolError::GroupFull { group: 0, blocks: 3 });
        let both = [mine, thread.join().unwrap()];
        assert!(both == [Ok(()), full] || both == [full, Ok(())], "{both:?}");
        assert_eq!((pool.group_blocks(0), pool.further_blocks(), pool.free_blocks()), (2, 1, 2));
        assert_eq!(pool.free(here) + pool.free(there), 2);
        assert_eq!((pool.group_blocks(0), pool.further_blocks(), pool.free_blocks()), (0, 0, 4));
    });
}

/// A recount, of a count that a kill left too high, while another appends and frees.
#[test]
fn a_recount_takes_no_block_from_the_living() {
    for (count_word, blocks) in [(8, 2), (16, 1)] {
        explore(3, move || {
            let words = heap_words(Pool::words_needed(2, 8, 1).unwrap());
            let pool = Pool::new(2, 8, 1, words).unwrap();
            words[count_word].fetch_add(1, Relaxed);
            let (limits, chain) = (LIMIT.in_group(0, 3), chain());
            let bytes = vec![1; 8 * blocks];
            let other = pool.clone();
            let thread = thread::spawn(move || {
                other.append(chain, BOB, &bytes, limits).unwrap();
                other.free(chain);
                other.append(chain, BOB, &bytes, limits).unwrap();
            });
            pool.recount();
            thread.join().unwrap();
            let (used, further) = (blocks_of(&pool, chain), blocks_of(&pool, chain) - 1);
            assert!(pool.group_blocks(0) >= used && pool.further_blocks() >= further, "too low");
            assert_eq!(pool.recount(), 0);
            assert_eq!((pool.group_blocks(0), pool.further_blocks()), (used, further));
        });
    }
}

/// The first block is there, the second one is appended, then all are freed.
#[test]
fn an_appender_and_freer_in_a_group_beside_another() {
    killed_at_every_access(1, |mortal| {
        let pool = pool(4, 1);
        let limits = LIMIT.in_group(0, 4);
        let (here, there) = (chain(), chain());
        pool.append(here, ANN, &[1; 4], limits).unwrap();
        let other = pool.clone();
        let thread = thread::spawn(move || other.append(there, BOB, &[2; 16], limits).unwrap());
        mortal.run(|| {
            pool.append(here, ANN, &[1; 8], limits).unwrap();
            pool.free(here);
        });
        thread.join().unwrap();
        assert!(pool.group_blocks(0) >= blocks_of(&pool, here) + 2, "too low");
        assert!(pool.further_blocks() >= 1, "too low");

        pool.recover(|owner| owner == BOB);
        assert_eq!((pool.group_blocks(0), pool.further_blocks(), pool.free_blocks()), (2, 1, 2));
        assert_eq!(pool.free(there), 2);
        assert_eq!((pool.group_blocks(0), pool.further_blocks(), pool.free_blocks()), (0, 0, 4));
        pool.append(chain(), ANN, &[3; 32], limits).expect("the whole share is usable");
    });
}

/// The row lives on, and its new holder goes on with the chain.
#[test]
fn an_appender_in_a_group_whose_row_is_taken_over() {
    killed_at_every_access(1, |mortal| {
        let pool = pool(3, 1);
        let (limits, chain) = (LIMIT.in_group(0, 3), chain());
        pool.append(chain, ANN, &[1; 4], limits).unwrap();
        mortal.run(|| pool.append(chain, ANN, &[1; 16], limits).unwrap());
        pool.reclaim(|_| Some([chain]));
        let used = blocks_of(&pool, chain);
        assert!(pool.group_blocks(0) >= used && pool.further_blocks() >= used - 1, "too low");
        assert_eq!(pool.recount(), 0);
        assert_eq!((pool.group_blocks(0), pool.further_blocks()), (used, used - 1));
        assert_eq!((pool.free_blocks(), pool.free(chain)), (3 - used, used));
        pool.append(chain, ANN, &[4; 24], limits).expect("the whole share is usable");
    });
}

/// One of them is a process that took the other for dead.
#[test]
fn two_recoveries_at_once() {
    explore(2, || {
        let pool = pool(2, 1);
        let limits = LIMIT.in_group(0, 2);
        pool.append(chain(), ANN, &[1; 16], limits).unwrap();
        let other = pool.clone();
        let thread = thread::spawn(move || other.recover(|_| false));
        assert_eq!(pool.recover(|_| false) + thread.join().unwrap(), 2);
        assert_eq!(pool.recount(), 0);
        assert_eq!((pool.group_blocks(0), pool.further_blocks(), pool.free_blocks()), (0, 0, 2));
    });
}

/// Not even for an instant: another would pass the share then.
#[test]
fn a_recovery_never_makes_a_count_too_low() {
    killed_at_every_access(2, |mortal| {
        let pool = pool(4, 1);
        let limits = LIMIT.in_group(0, 4);
        pool.append(chain(), BOB, &[2; 16], limits).unwrap();
        let lost = chain();
        mortal.run(|| {
            pool.append(lost, ANN, &[1; 16], limits).unwrap();
            pool.free(lost);
        });
        let other = pool.clone();
        let thread = thread::spawn(move || other.recover(|owner| owner == BOB));
        assert!(pool.group_blocks(0) >= 2 && pool.further_blocks() >= 1, "too low");
        thread.join().unwrap();
        assert_eq!((pool.group_blocks(0), pool.further_blocks(), pool.free_blocks()), (2, 1, 2));
    });
}

/// One of two recoveries is late, and the block has a new, living owner, who is counted.
#[test]
fn a_late_recovery_beside_a_new_owner() {
    explore(2, || {
        let pool = pool(1, 1);
        let limits = LIMIT.in_group(0, 1);
        pool.append(chain(), ANN, &[1; 8], limits).unwrap();
        let other = pool.clone();
        let thread = thread::spawn(move || {
            other.recover(|owner| owner == BOB);
            other.append(chain(), BOB, &[2; 8], limits).is_ok()
        });
        pool.recover(|owner| owner == BOB);
        let appended = thread.join().unwrap();
        assert_eq!(pool.group_blocks(0), u32::from(appended), "of the living");
        assert_eq!(pool.recount(), 0);
    });
}
