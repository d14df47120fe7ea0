//! Events that wait to be told to the backend: a ring in shared memory. Every worker puts in, one task
//! process at a time takes out.
//!
//! Knows bytes and no event. A record is a run of slots: it is claimed by one swap of `tail`, and can be
//! read once its first slot says so. Invariants: 1. Whoever dies between the claim and that word leaves
//! slots that the reader passes over when [`PATIENCE_MS`] are up; nothing waits for ever. 2. A slot's
//! state holds its position, which never comes again: what lies there from an earlier round is no
//! record. Data never lies in a state word. 3. A slot is claimed again only when `head` has passed it, so
//! a reader that finds `head` where it was has read what was written. 4. What is full refuses the newest.

use dunlin_server::packed;
use dunlin_table::hash_key;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words of a slot; its first is its state.
const SLOT_WORDS: usize = 32;
/// Of the first slot of a record, before its bytes: state, sequence number, length, check sum.
const HEAD_WORDS: usize = 4;
/// Words before the slots: head, tail, and what the reader notes.
const CONTROL_WORDS: usize = 8;
const HEAD: usize = 0;
const TAIL: usize = 1;
/// Since when the slot at the head is claimed and not filled, and where the tail was then.
const STUCK_SINCE: usize = 2;
const STUCK_TAIL: usize = 3;
/// Positions that were passed over.
const LOST: usize = 4;

/// How long a claimed slot may stay unfilled; filling takes microseconds.
pub(crate) const PATIENCE_MS: u64 = 1_000;
/// What part of the ring one record may take.
const RECORD_SHARE: u64 = 4;

/// Stages of a slot, in its state beside its position and, in the first, the slots of its record.
const CLAIMED: u64 = 1;
const FILLED: u64 = 2;
const GOES_ON: u64 = 3;

/// How much of the ring may be taken for a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Share {
    /// All of it.
    All,
    /// Half of it: the rest is kept for what matters more.
    Half,
}

/// A record was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PutError {
    /// There is no room now.
    Full,
    /// It is larger than any record may be.
    TooLong,
}

/// What is at the head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Nothing.
    Empty,
    /// Something that is being put in.
    Unfilled,
    /// A record, copied out; it stays there until [`EventQueue::pass`].
    Record(Record),
}

/// A record, copied out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    /// Where it lies.
    pub(crate) position: u64,
    slots: u64,
    /// Its sequence number.
    pub(crate) seq: u64,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

/// The ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventQueue {
    control: &'static [AtomicU64],
    slots: &'static [AtomicU64],
    capacity: u64,
}

impl EventQueue {
    /// Words for a ring of so many bytes.
    pub(crate) fn words_needed(bytes: u64) -> usize {
        let slots = usize::try_from(bytes).unwrap_or(usize::MAX) / (SLOT_WORDS * 8);
        CONTROL_WORDS + slots.max(1) * SLOT_WORDS
    }

    /// A ring over words that were zero at first, at least [`EventQueue::words_needed`] for one slot.
    pub(crate) fn new(words: &'static [AtomicU64]) -> Self {
        let (control, slots) = words.split_at(CONTROL_WORDS);
        let capacity = u64::try_from(slots.len() / SLOT_WORDS).unwrap_or(u64::MAX);
        Self { control, slots, capacity }
    }

    /// Bytes of all slots.
    pub(crate) fn bytes(&self) -> u64 {
        self.capacity * SLOT_WORDS as u64 * 8
    }

    /// Bytes of the slots that are taken.
    pub(crate) fn used_bytes(&self) -> u64 {
        let head = self.word(HEAD).load(Ordering::Acquire);
        self.tail().saturating_sub(head).min(self.capacity) * SLOT_WORDS as u64 * 8
    }

    /// Whether nothing is taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.used_bytes() == 0
    }

    /// Where the next record will lie.
    pub(crate) fn tail(&self) -> u64 {
        self.word(TAIL).load(Ordering::Acquire)
    }

    /// How many positions were passed over because their writer died.
    pub(crate) fn lost(&self) -> u64 {
        self.word(LOST).load(Ordering::Relaxed)
    }

    /// The longest record there may be, in bytes.
    pub(crate) fn record_max(&self) -> usize {
        let slots = usize::try_from((self.capacity / RECORD_SHARE).max(1)).unwrap_or(usize::MAX);
        (slots * (SLOT_WORDS - 1) - (HEAD_WORDS - 1)) * 8
    }

    /// Puts a record in. Costs a swap, and a store for each eight bytes.
    pub(crate) fn put(&self, seq: u64, bytes: &[u8], share: Share) -> Result<(), PutError> {
        if bytes.len() > self.record_max() {
            return Err(PutError::TooLong);
        }
        let slots = slots_of(bytes.len());
        let room = if share == Share::Half { self.capacity / 2 } else { self.capacity };
        let claim = self.word(TAIL).fetch_update(Ordering::AcqRel, Ordering::Acquire, |tail| {
            let head = self.word(HEAD).load(Ordering::Acquire);
            (tail.saturating_sub(head) + slots <= room).then_some(tail + slots)
        });
        let position = claim.map_err(|_| PutError::Full)?;
        let claimed = state(position, slots, CLAIMED);
        self.state(position).store(claimed, Ordering::Release);
        for next in position + 1..position + slots {
            self.state(next).store(state(next, 1, GOES_ON), Ordering::Release);
        }
        let first = self.slot(position);
        first[1].store(seq, Ordering::Relaxed);
        first[2].store(bytes.len() as u64, Ordering::Relaxed);
        first[3].store(check_sum(seq, bytes), Ordering::Relaxed);
        packed::store(self.data_words(position, slots), bytes);
        // Release: who sees it filled sees the bytes. A swap, so that one who was held up for so long
        // that the reader passed it over says nothing of a slot that is another's by now.
        let filled = state(position, slots, FILLED);
        let done = self.state(position).compare_exchange(
            claimed,
            filled,
            Ordering::Release,
            Ordering::Relaxed,
        );
        done.map(|_| ()).map_err(|_| PutError::Full)
    }

    /// What is at the head; passes over what the dead have left there.
    pub(crate) fn next(&self, now_ms: u64) -> Next {
        loop {
            let position = self.word(HEAD).load(Ordering::Acquire);
            if position >= self.tail() {
                return Next::Empty;
            }
            let found = self.state(position).load(Ordering::Acquire);
            let slots = found >> 2 & SLOTS_MASK;
            if found == state(position, slots, FILLED) {
                match self.read(position, slots) {
                    Some(record) => return Next::Record(record),
                    None => self.pass_over(position, slots),
                }
            } else if found == state(position, 1, GOES_ON) {
                // The rest of a record whose first slot was never marked.
                self.pass_over(position, 1);
            } else if self.is_given_up(position, now_ms) {
                let is_claimed = found == state(position, slots, CLAIMED);
                self.pass_over(position, if is_claimed { slots } else { 1 });
            } else {
                return Next::Unfilled;
            }
        }
    }

    /// Done with a record. False if another reader was first.
    pub(crate) fn pass(&self, record: &Record) -> bool {
        self.advance(record.position, record.slots)
    }

    fn read(&self, position: u64, slots: u64) -> Option<Record> {
        let first = self.slot(position);
        let seq = first[1].load(Ordering::Relaxed);
        let length = usize::try_from(first[2].load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let sum = first[3].load(Ordering::Relaxed);
        if slots_of(length) != slots {
            return None;
        }
        let bytes = packed::load(self.data_words(position, slots), length);
        // Where another reader has passed it meanwhile the sum need not fit, and the caller finds out.
        (check_sum(seq, &bytes) == sum).then_some(Record { position, slots, seq, bytes })
    }

    /// Whether a slot has been claimed and not filled for so long that its writer must be dead. Every
    /// slot that was claimed when the first of them was noticed has waited as long.
    fn is_given_up(&self, position: u64, now_ms: u64) -> bool {
        if self.word(STUCK_TAIL).load(Ordering::Relaxed) <= position {
            self.word(STUCK_SINCE).store(now_ms, Ordering::Relaxed);
            self.word(STUCK_TAIL).store(self.tail(), Ordering::Relaxed);
        }
        now_ms.saturating_sub(self.word(STUCK_SINCE).load(Ordering::Relaxed)) >= PATIENCE_MS
    }

    fn pass_over(&self, position: u64, slots: u64) {
        if self.advance(position, slots.max(1)) {
            self.word(LOST).fetch_add(1, Ordering::Relaxed);
        }
    }

    fn advance(&self, position: u64, slots: u64) -> bool {
        let next = (position + slots).min(self.tail());
        let head = self.word(HEAD);
        head.compare_exchange(position, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn word(&self, which: usize) -> &'static AtomicU64 {
        &self.control[which]
    }

    fn slot(&self, position: u64) -> &'static [AtomicU64] {
        let index = usize::try_from(position % self.capacity).unwrap_or(0);
        &self.slots[index * SLOT_WORDS..(index + 1) * SLOT_WORDS]
    }

    fn state(&self, position: u64) -> &'static AtomicU64 {
        &self.slot(position)[0]
    }

    /// The words of a record that hold its bytes, in order.
    fn data_words(&self, position: u64, slots: u64) -> impl Iterator<Item = &'static AtomicU64> {
        let ring = *self;
        (0..slots).flat_map(move |n| {
            let before = if n == 0 { HEAD_WORDS } else { 1 };
            ring.slot(position + n)[before..].iter()
        })
    }
}

/// Bits of a state that hold how many slots a record has.
const SLOTS_BITS: u32 = 18;
const SLOTS_MASK: u64 = (1 << SLOTS_BITS) - 1;

/// The state of the slot at a position. Never 0, as slots are at first.
fn state(position: u64, slots: u64, stage: u64) -> u64 {
    position << (SLOTS_BITS + 2) | slots << 2 | stage
}

/// How many slots a record of so many bytes takes.
fn slots_of(length: usize) -> u64 {
    let words = length.div_ceil(8).saturating_add(HEAD_WORDS - 1);
    u64::try_from(words.div_ceil(SLOT_WORDS - 1)).unwrap_or(u64::MAX).max(1)
}

fn check_sum(seq: u64, bytes: &[u8]) -> u64 {
    hash_key(bytes, seq)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "bytes that a test writes and knows again")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::thread;

    fn ring(slots: usize) -> EventQueue {
        let words = CONTROL_WORDS + slots * SLOT_WORDS;
        EventQueue::new(Box::leak((0..words).map(|_| AtomicU64::new(0)).collect()))
    }

    fn take(ring: &EventQueue) -> Option<(u64, Vec<u8>)> {
        match ring.next(0) {
            Next::Record(record) => {
                assert!(ring.pass(&record) && !ring.pass(&record), "once");
                Some((record.seq, record.bytes))
            }
            Next::Empty => None,
            Next::Unfilled => panic!("nobody is putting in"),
        }
    }

    /// As a writer that dies after the claim (0), after it has marked the first slot (1), or before it
    /// says that it is done (2).
    fn die(ring: &EventQueue, length: usize, after: u8) {
        let slots = slots_of(length);
        let position = ring.word(TAIL).fetch_add(slots, Ordering::AcqRel);
        if after > 0 {
            ring.state(position).store(state(position, slots, CLAIMED), Ordering::Release);
        }
        if after > 1 {
            for next in position + 1..position + slots {
                ring.state(next).store(state(next, 1, GOES_ON), Ordering::Release);
            }
        }
    }

    #[test]
    fn a_full_ring_refuses_the_newest_and_keeps_half_for_what_matters() {
        let ring = ring(8);
        for seq in 0..4 {
            assert_eq!(ring.put(seq, b"message", Share::Half), Ok(()));
        }
        assert_eq!(ring.put(4, b"message", Share::Half), Err(PutError::Full));
        for seq in 4..8 {
            assert_eq!(ring.put(seq, b"login", Share::All), Ok(()));
        }
        assert_eq!(ring.put(8, b"login", Share::All), Err(PutError::Full));
        assert_eq!((ring.used_bytes(), ring.bytes()), (2_048, 2_048));
        assert_eq!(take(&ring), Some((0, b"message".to_vec())));
        assert_eq!(ring.put(9, b"login", Share::All), Ok(()));
        let seqs: Vec<u64> = std::iter::from_fn(|| take(&ring)).map(|(seq, _)| seq).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7, 9]);
        assert!(ring.is_empty() && ring.lost() == 0);
    }

    #[test]
    fn a_record_of_many_slots_comes_out_as_it_went_in_and_a_longer_one_is_refused() {
        let ring = ring(64);
        let longest: Vec<u8> = (0..ring.record_max()).map(|n| n as u8).collect();
        assert!(longest.len() > 3_900, "a quarter of the ring: {}", longest.len());
        for _ in 0..20 {
            assert_eq!(ring.put(1, &longest, Share::All), Ok(()));
            assert_eq!(take(&ring), Some((1, longest.clone())));
        }
        assert_eq!(ring.put(2, &[0; 4_096], Share::All), Err(PutError::TooLong));
        assert_eq!(ring.put(2, &[], Share::All), Ok(()));
        assert_eq!(take(&ring), Some((2, vec![])));
    }

    #[test]
    fn what_a_dead_writer_left_is_passed_over_after_a_while() {
        for after in 0..3 {
            let ring = ring(32);
            die(&ring, 700, after);
            die(&ring, 10, after);
            assert_eq!(ring.put(7, b"alive", Share::All), Ok(()));
            assert_eq!(ring.next(5), Next::Unfilled);
            assert_eq!(ring.next(4 + PATIENCE_MS), Next::Unfilled);
            let Next::Record(record) = ring.next(5 + PATIENCE_MS) else { panic!("{after}") };
            assert_eq!((record.seq, &*record.bytes), (7, &b"alive"[..]));
            assert!(ring.lost() >= 2 && ring.pass(&record) && ring.is_empty());
            // The next one that dies is waited for anew.
            die(&ring, 10, after);
            assert_eq!(ring.next(6 + PATIENCE_MS), Next::Unfilled);
        }
    }

    #[test]
    fn bytes_that_were_overwritten_by_one_held_up_are_not_believed() {
        let ring = ring(8);
        ring.put(3, b"a login", Share::All).unwrap();
        ring.slot(0)[HEAD_WORDS].store(7, Ordering::Relaxed);
        assert_eq!(ring.next(0), Next::Empty);
        assert_eq!(ring.lost(), 1);
        // Nor does one that was passed over say anything of a slot of others.
        die(&ring, 7, 1);
        assert_eq!(ring.next(0), Next::Unfilled);
        assert_eq!(ring.next(PATIENCE_MS), Next::Empty);
        for seq in 0..8 {
            ring.put(seq, b"new", Share::All).unwrap();
        }
        let late = state(1, 1, CLAIMED);
        let filled = state(1, 1, FILLED);
        let swap =
            ring.state(9).compare_exchange(late, filled, Ordering::AcqRel, Ordering::Relaxed);
        assert!(swap.is_err());
        assert_eq!(std::iter::from_fn(|| take(&ring)).count(), 8);
    }

    #[test]
    fn writers_at_one_time_lose_nothing() {
        let ring = ring(256);
        let (mut seen, writers) = (Vec::new(), 3);
        thread::scope(|scope| {
            for writer in 0..writers {
                scope.spawn(move || {
                    for n in 0..2_000_u64 {
                        let bytes = vec![writer as u8; (n % 900) as usize];
                        while ring.put(writer << 32 | n, &bytes, Share::All).is_err() {
                            thread::yield_now();
                        }
                    }
                });
            }
            while seen.len() < 2_000 * writers as usize {
                if let Next::Record(record) = ring.next(0) {
                    let writer = (record.seq >> 32) as u8;
                    assert!(record.bytes.iter().all(|byte| *byte == writer));
                    assert!(ring.pass(&record));
                    seen.push(record.seq);
                }
            }
        });
        for writer in 0..writers {
            let of_writer: Vec<u64> =
                seen.iter().filter(|seq| **seq >> 32 == writer).map(|seq| seq & 0xffff).collect();
            assert!(of_writer.iter().copied().eq(0..2_000), "in order, each once");
        }
    }

    proptest! {
        /// Against a queue that never dies: what is put in comes out, in order, but for what the dead took.
        #[test]
        fn it_is_a_queue(steps in prop::collection::vec((0_u8..8, 0_usize..1_500), 1..200)) {
            let ring = ring(24);
            let (mut model, mut seq, mut now) = (VecDeque::new(), 0, 0);
            for (what, length) in steps {
                match what {
                    0..=3 => {
                        seq += 1;
                        let bytes = vec![seq as u8; length];
                        let put = ring.put(seq, &bytes, Share::All);
                        prop_assert_eq!(put == Err(PutError::TooLong), length > ring.record_max());
                        if put.is_ok() {
                            model.push_back((seq, bytes));
                        }
                    }
                    4 => {
                        let room = ring.capacity - ring.used_bytes() / 256;
                        let length = length.min(ring.record_max());
                        if slots_of(length) <= room {
                            die(&ring, length, (length % 3) as u8);
                        }
                    }
                    _ => {
                        let mut next = ring.next(now);
                        if next == Next::Unfilled {
                            now += PATIENCE_MS;
                            next = ring.next(now);
                        }
                        match next {
                            Next::Record(record) => {
                                prop_assert!(ring.pass(&record));
                                prop_assert_eq!(Some((record.seq, record.bytes)), model.pop_front());
                            }
                            // One that died later than the first that was noticed.
                            Next::Unfilled => {}
                            Next::Empty => prop_assert!(model.is_empty()),
                        }
                    }
                }
            }
        }
    }
}
