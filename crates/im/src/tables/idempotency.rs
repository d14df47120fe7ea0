//! Sends that had a key: which message each became, so that a retry is told the same and not sent again.
//!
//! Knows hashes, ids of messages and turns of workers; knows no user and no connection. Without locks, and
//! whoever writes may die at any instruction. Entries lie in windows of [`WINDOW`]; the identity of a send
//! (user, device, key) has one window, and an entry has five words there: the *head*, which is the message's
//! id and is never given twice; two of the identity, one of what is sent, and the *state*, each mixed with
//! the head, so that a word of another entry is not taken for this one's.
//!
//! Invariants: 1. An entry is found only when head and identity go together, and the identity is written
//! last: what is found is whole. 2. A word is only changed from what its writer saw before it took the head,
//! so who was stopped in between and was overtaken changes nothing. 3. Of several claims of one identity at
//! one time at most one is kept: each is published before its claimer looks for others, and whoever sees
//! another gives up. 4. The state says sent only after the message has left its worker (a mark of the
//! engine's, `Context::mark_when_sent`). A claim whose turn is over without it belongs to a worker that died,
//! or to a hook that did not come to its end: nobody knows whether it was sent, and the next retry sends it
//! under the same id.

use crate::message_id::{MessageId, drawn_at_ms};
use dunlin_server::Turn;
use dunlin_table::{death, hash_key};
use serde_json::{Value as Json, json};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

/// For how long a key is kept, in milliseconds.
const KEPT_MS: u64 = 300_000;
/// Entries of a window.
const WINDOW: usize = 16;
/// Words of an entry. Those of a window lie kind by kind, so that a search touches four cache lines.
const WORDS: usize = 5;
/// How often a claim that others overtake is tried.
const TRIES: u32 = 8;

const CLAIMED: u64 = 1 << Turn::BITS;
const SENT: u64 = 2 << Turn::BITS;

/// What is counted of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KeyCount {
    /// A retry that got the first result.
    Repeated,
    /// A retry of what may have been lost with a worker, sent again under its id.
    SentAgain,
    /// A key that came with another message.
    Reused,
    /// A key that was dropped before its time, for another.
    Dropped,
}

const COUNTS: usize = 8;

/// What makes a send the same as another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SendKey {
    /// Who sends, on what, and the key, hashed twice.
    identity: [u64; 2],
    /// To whom and what.
    content: u64,
}

/// What is known of a key.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is to be sent, under the claim's id.
    Claimed(Claim),
    /// It was sent.
    Done {
        /// As which message.
        id: MessageId,
        /// To how many sessions.
        sessions: u64,
    },
    /// It is being sent right now, or many are in this window.
    UnderWay,
    /// It was another message's.
    Reused,
}

/// The right to send, under an id, what has a key.
#[derive(Debug)]
#[must_use = "a claim that is not ended keeps its key busy"]
pub(crate) struct Claim {
    head: &'static AtomicU64,
    state: &'static AtomicU64,
    id: MessageId,
    turn: Turn,
    /// It may have been sent before.
    again: bool,
}

/// Handles on the shared words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idempotency {
    counts: &'static [AtomicU64],
    words: &'static [AtomicU64],
}

/// One kind of word of the entries of a window.
#[derive(Clone, Copy)]
enum Kind {
    Head,
    Content,
    State,
    First,
    Second,
}

/// An entry as it was read.
struct Found {
    place: usize,
    head: u64,
    content: u64,
    state: u64,
}

impl SendKey {
    /// A user's send, on a device, with a key. `content` is to whom and what, in pieces.
    pub(crate) fn new(seed: u64, user: &str, device: &str, key: &str, content: &[&[u8]]) -> Self {
        let mut who = Vec::with_capacity(user.len() + device.len() + key.len() + 2);
        for part in [user, device, key] {
            who.extend_from_slice(part.as_bytes());
            // No part has such a byte, so no two splits look alike.
            who.push(0xff);
        }
        let seeds = [1, 2, 3].map(|use_of| hash_key(&[use_of], seed));
        let content = content.iter().fold(seeds[2], |hash, piece| hash_key(piece, hash));
        Self { identity: [hash_key(&who, seeds[0]), hash_key(&who, seeds[1])], content }
    }
}

impl Claim {
    /// Under which id to send.
    pub(crate) fn id(&self) -> MessageId {
        self.id
    }

    /// It is pushed: the word to change when it has left, from what and to what.
    pub(crate) fn sent_to(self, sessions: u64) -> (&'static AtomicU64, u64, u64) {
        let sent = SENT | sessions.min(CLAIMED - 1);
        (self.state, self.claimed(), sent ^ mixed(self.id.to_bits(), 4))
    }

    /// It is not sent after all: the next retry begins anew, under the same id if the message may be out.
    pub(crate) fn give_up(self) {
        if self.again {
            // The claim of no turn: nobody knows.
            let nobodys = claimed(self.id, Turn::default());
            let _ = self.state.compare_exchange(self.claimed(), nobodys, AcqRel, Relaxed);
        } else {
            release(self.head, self.id.to_bits());
        }
    }

    fn claimed(&self) -> u64 {
        claimed(self.id, self.turn)
    }
}

impl Idempotency {
    /// Windows for so many entries.
    fn windows(entries: usize) -> usize {
        entries.div_ceil(WINDOW).max(1)
    }

    /// Words of shared memory for so many entries.
    pub(crate) fn words_needed(entries: usize) -> usize {
        COUNTS + Self::windows(entries) * WINDOW * WORDS
    }

    /// Over words that were zero at first, as many as [`Idempotency::words_needed`] says.
    pub(crate) fn new(words: &'static [AtomicU64]) -> Self {
        let (counts, words) = words.split_at(COUNTS.min(words.len()));
        Self { counts, words }
    }

    /// Finds or claims the entry of a key. `draw` gives the message's id, and is called if it needs one.
    pub(crate) fn begin(
        &self,
        key: &SendKey,
        unix_ms: u64,
        turn: Turn,
        draw: &mut dyn FnMut() -> MessageId,
        is_under_way: &dyn Fn(Turn) -> bool,
    ) -> Begun {
        let mut id = None;
        for _ in 0..TRIES {
            let Some(found) = self.find(key, unix_ms, None) else {
                let id = *id.get_or_insert_with(&mut *draw);
                match self.claim(key, unix_ms, turn, id) {
                    Some(begun) => return begun,
                    None => continue,
                }
            };
            if found.content != key.content {
                self.count(KeyCount::Reused);
                return Begun::Reused;
            }
            let known = MessageId::from_bits(found.head);
            if found.state & SENT != 0 {
                self.count(KeyCount::Repeated);
                return Begun::Done { id: known, sessions: found.state & (CLAIMED - 1) };
            }
            if is_under_way(Turn::from_bits(found.state)) {
                return Begun::UnderWay;
            }
            let state = self.word(key, Kind::State, found.place);
            let theirs = found.state ^ mixed(found.head, 4);
            death::deed();
            // It may have been marked as sent before its turn was over: then this fails, and it is looked
            // at again.
            if state.compare_exchange(theirs, claimed(known, turn), AcqRel, Relaxed).is_ok() {
                self.count(KeyCount::SentAgain);
                let head = self.word(key, Kind::Head, found.place);
                return Begun::Claimed(Claim { head, state, id: known, turn, again: true });
            }
        }
        Begun::UnderWay
    }

    /// As the status shows it.
    pub(crate) fn status(&self, unix_ms: u64) -> Json {
        json!({
            "capacity": self.capacity(),
            "kept": self.kept(unix_ms),
            "repeated": self.counted(KeyCount::Repeated),
            "sent_again": self.counted(KeyCount::SentAgain),
            "reused": self.counted(KeyCount::Reused),
            "dropped": self.counted(KeyCount::Dropped),
        })
    }

    /// How many keys are kept, by a scan.
    fn kept(&self, unix_ms: u64) -> usize {
        let windows = self.words.chunks(WINDOW * WORDS);
        let heads = windows.flat_map(|window| &window[..WINDOW.min(window.len())]);
        heads.filter(|head| is_kept(head.load(Relaxed), unix_ms)).count()
    }

    /// How many there is room for.
    fn capacity(&self) -> usize {
        self.words.len() / WORDS
    }

    /// How many were counted since the start.
    fn counted(&self, what: KeyCount) -> u64 {
        self.counts.get(what as usize).map_or(0, |count| count.load(Relaxed))
    }

    fn count(&self, what: KeyCount) {
        if let Some(count) = self.counts.get(what as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// The entry of a key, another than that in `but`.
    fn find(&self, key: &SendKey, unix_ms: u64, but: Option<usize>) -> Option<Found> {
        (0..WINDOW).filter(|place| Some(*place) != but).find_map(|place| {
            let head = self.word(key, Kind::Head, place).load(Acquire);
            if !is_kept(head, unix_ms) {
                return None;
            }
            let read = |kind| self.word(key, kind, place).load(Acquire);
            let is_own = read(Kind::First) ^ mixed(head, 1) == key.identity[0]
                && read(Kind::Second) ^ mixed(head, 2) == key.identity[1];
            if !is_own {
                return None;
            }
            let content = read(Kind::Content) ^ mixed(head, 3);
            let state = read(Kind::State) ^ mixed(head, 4);
            // If any of it was another entry's already, the head was its before.
            let still = self.word(key, Kind::Head, place).load(Acquire) == head;
            still.then_some(Found { place, head, content, state })
        })
    }

    /// Takes the place of the oldest entry of the window. `None`: somebody was quicker.
    fn claim(&self, key: &SendKey, unix_ms: u64, turn: Turn, id: MessageId) -> Option<Begun> {
        let heads = (0..WINDOW).map(|place| self.word(key, Kind::Head, place).load(Acquire));
        let (place, oldest) = heads.enumerate().min_by_key(|(_, head)| *head)?;
        let wanted = [
            (Kind::Content, key.content ^ mixed(id.to_bits(), 3)),
            (Kind::State, claimed(id, turn)),
            (Kind::First, key.identity[0] ^ mixed(id.to_bits(), 1)),
            (Kind::Second, key.identity[1] ^ mixed(id.to_bits(), 2)),
        ];
        let words = wanted.map(|(kind, to)| {
            let word = self.word(key, kind, place);
            (word, word.load(Acquire), to)
        });
        let head = self.word(key, Kind::Head, place);
        death::deed();
        head.compare_exchange(oldest, id.to_bits(), AcqRel, Relaxed).ok()?;
        if is_kept(oldest, unix_ms) {
            self.count(KeyCount::Dropped);
        }
        for (word, from, to) in words {
            death::deed();
            if word.compare_exchange(from, to, AcqRel, Relaxed).is_err() {
                release(head, id.to_bits());
                return None;
            }
        }
        // Each of two claimers publishes and then looks; without the fence both might look too early.
        fence(SeqCst);
        if self.find(key, unix_ms, Some(place)).is_some() {
            release(head, id.to_bits());
            return Some(Begun::UnderWay);
        }
        let state = self.word(key, Kind::State, place);
        Some(Begun::Claimed(Claim { head, state, id, turn, again: false }))
    }

    fn word(&self, key: &SendKey, kind: Kind, place: usize) -> &'static AtomicU64 {
        let windows = self.words.len() / (WINDOW * WORDS);
        let windows = u128::from(u64::try_from(windows).unwrap_or(u64::MAX));
        let window = (u128::from(key.identity[0]) * windows) >> 64;
        // Below the number of windows, which is a usize.
        let window = usize::try_from(window).unwrap_or(0);
        &self.words[(window * WORDS + kind as usize) * WINDOW + place]
    }
}

/// The state of an entry that a turn is sending.
fn claimed(id: MessageId, turn: Turn) -> u64 {
    (CLAIMED | turn.to_bits()) ^ mixed(id.to_bits(), 4)
}

/// Frees an entry, if it is still this one.
fn release(head: &AtomicU64, id: u64) {
    death::deed();
    let _ = head.compare_exchange(id, 0, AcqRel, Relaxed);
}

/// Whether there is an entry, and its time is not over.
fn is_kept(head: u64, unix_ms: u64) -> bool {
    head != 0 && unix_ms.saturating_sub(drawn_at_ms(head)) < KEPT_MS
}

/// A word that goes with a head, another for each use: the end of splitmix64, which is one to one.
fn mixed(head: u64, use_of: u64) -> u64 {
    let mut word = head.wrapping_add(use_of.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
#[path = "idempotency_tests.rs"]
mod tests;
