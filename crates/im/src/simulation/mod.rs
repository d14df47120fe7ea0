//! A whole server of several workers in one process, driven by a seed: users come and go, talk, fall
//! silent and are cut off; workers are killed in the middle of anything, replaced and relieved; mail is
//! late, lost with who had it in hand, and of no use any more when it comes. After each step what must
//! always hold is checked, and what must hold in the end whenever all is quiet.
//!
//! `DUNLIN_SEEDS` says how many seeds are played, `DUNLIN_FIRST_SEED` from which on, `DUNLIN_SEED` plays one
//! and prints each step. What a seed had in shared memory is never given back: many thousands are played by
//! several processes, one after the other.
//!
//! - `client`: what one connection has asked and heard, and what it may never hear.
//! - `house`: the steps.
//! - `checks`: what must hold of what is shared.

mod checks;
mod client;
mod house;

use dunlin_server::clock;
use house::House;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds that are played where nobody says how many; `.ci/run` says more.
const SEEDS: u64 = 1_000;
/// No more seeds are begun after so long, unless somebody says how many.
const TIME_MS: u64 = 15_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number of seeds, or a seed"))
}

#[test]
fn whatever_happens_the_promises_hold() {
    if let Some(seed) = number("DUNLIN_SEED") {
        return House::new(seed, true).live();
    }
    let asked = number("DUNLIN_SEEDS");
    let (seeds, began) = (asked.unwrap_or(SEEDS), clock::now());
    let first = number("DUNLIN_FIRST_SEED").unwrap_or(0);
    let seeds = first + seeds;
    let next = AtomicU64::new(first);
    let played = AtomicU64::new(0);
    let play = || {
        while asked.is_some() || clock::now() < began + TIME_MS {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            let lived = catch_unwind(AssertUnwindSafe(|| House::new(seed, false).live()));
            if let Err(broken) = lived {
                next.store(seeds, Ordering::Relaxed);
                eprintln!("\nseed {seed} broke a promise: DUNLIN_SEED={seed} shows its steps\n");
                resume_unwind(broken);
            }
            played.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(play);
        play();
    });
    let played = played.into_inner();
    println!("{played} seeds in {} ms", clock::now().0 - began.0);
    assert!(played > 50, "only {played} seeds were played in {TIME_MS} ms");
}

#[test]
fn a_seed_repeats_itself() {
    let told = || {
        let mut house = House::new(11, false);
        house.live();
        // Presence tells by the clock of the machine when somebody was last active.
        let timeless = |line: &String| !line.contains("last_active");
        house.story().iter().filter(|line| timeless(line)).cloned().collect::<Vec<_>>()
    };
    let (once, again) = (told(), told());
    let differs = once.iter().zip(&again).position(|(once, again)| once != again);
    assert_eq!((differs, once.len()), (None, again.len()));
    assert!(once.len() > 100);
}
