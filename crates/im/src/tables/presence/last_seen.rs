//! When users went offline last, for as many as there is room for.
//!
//! Pairs of words, the hash of a user and a time, in windows of [`WINDOW`] pairs. A user's pair is in the
//! window of his hash; where it is full the oldest goes.
//!
//! Invariants: 1. A pair changes its user only while its time is 0, which stands for no time: who dies in
//! between leaves a pair that says nothing. 2. Times only grow while a pair has its user. Two who take over one pair
//! at the same time may leave the later of their two times with either user, which is off by as
//! little as they were apart.

use dunlin_server::{AreaRequest, Areas};
use std::sync::atomic::{AtomicU64, Ordering};

const AREA: &str = "im.last_seen";

/// Pairs of a window: two cache lines.
const WINDOW: usize = 8;
const PAIR_WORDS: usize = 2;

/// Handles on the table.
#[derive(Clone, Debug)]
pub(crate) struct LastSeen {
    /// Empty if it is not kept.
    words: &'static [AtomicU64],
}

impl LastSeen {
    /// For at least so many users; 0 keeps none.
    pub(super) fn area(users: u32) -> AreaRequest {
        let windows = (users as usize).div_ceil(WINDOW);
        // A word at least: an area of none is no area.
        AreaRequest { name: AREA, words: (windows * WINDOW * PAIR_WORDS).max(1) }
    }

    pub(super) fn new(areas: &Areas) -> Self {
        let words = areas.words(AREA).expect("the server makes what `areas` asks for");
        Self { words: if words.len() < WINDOW * PAIR_WORDS { &[] } else { words } }
    }

    /// How many users there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.words.len() / PAIR_WORDS
    }

    /// Of how many users something is kept, by a scan.
    pub(crate) fn count(&self) -> usize {
        let times = self.words.iter().skip(1).step_by(PAIR_WORDS);
        times.filter(|time| time.load(Ordering::Relaxed) != 0).count()
    }

    /// A user's session has ended.
    pub(crate) fn note(&self, hash: u64, unix_ms: u64) {
        let Some(window) = self.window(hash) else { return };
        // A swap fails only where another has taken the pair meanwhile; with as many tries as pairs
        // something has gone in that is newer than what was oldest.
        for _ in 0..WINDOW {
            let known = window.chunks_exact(PAIR_WORDS).find(|pair| holds(pair, hash));
            if let Some(pair) = known {
                pair[1].fetch_max(unix_ms, Ordering::AcqRel);
                return;
            }
            let time = |pair: &&[AtomicU64]| pair[1].load(Ordering::Acquire);
            let Some(oldest) = window.chunks_exact(PAIR_WORDS).min_by_key(time) else { return };
            if take_over(oldest, hash) {
                oldest[1].fetch_max(unix_ms, Ordering::AcqRel);
                return;
            }
        }
    }

    /// When a user's last session ended, Unix milliseconds; `None` if that is not kept.
    pub(crate) fn of(&self, hash: u64) -> Option<u64> {
        let pair = self.window(hash)?.chunks_exact(PAIR_WORDS).find(|pair| holds(pair, hash))?;
        let time = pair[1].load(Ordering::Acquire);
        // Another user may have come into the pair since it was found.
        (time != 0 && holds(pair, hash)).then_some(time)
    }

    fn window(&self, hash: u64) -> Option<&'static [AtomicU64]> {
        let windows = self.words.len() / (WINDOW * PAIR_WORDS);
        let number = (u128::from(hash) * windows as u128) >> 64;
        let start = usize::try_from(number).ok()? * WINDOW * PAIR_WORDS;
        self.words.get(start..start + WINDOW * PAIR_WORDS)
    }
}

fn holds(pair: &[AtomicU64], hash: u64) -> bool {
    pair[0].load(Ordering::Acquire) == hash
}

/// Gives a pair another user, with no time. False if somebody else was quicker.
fn take_over(pair: &[AtomicU64], hash: u64) -> bool {
    let (user, time) = (pair[0].load(Ordering::Acquire), pair[1].load(Ordering::Acquire));
    let swap = |word: &AtomicU64, from, to| {
        word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    };
    (time == 0 || swap(&pair[1], time, 0)) && swap(&pair[0], user, hash)
}
