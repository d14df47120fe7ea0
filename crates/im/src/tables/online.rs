//! What all processes know of Redis: whether it is there, what is asked of it, what was counted.
//!
//! Knows words and no connection. Everything here is a hint that may be late or lost: whoever is misled
//! asks once more, or is answered from this node alone. Invariants: 1. Tickets are never drawn twice, and a
//! user's word holds the latest drawn for him, or for another who shares the word. 2. The sentence of an
//! error is named by the last word written of it.

use super::settle_time;
use crate::online::upkeep::{
    Beats, Place, SweepDue, Sweeps, beat_is_due, retry_delay_ms, sweep_due,
};
use dunlin_server::clock::Millis;
use dunlin_server::{AreaRequest, Areas, TaskId, packed};
use std::sync::atomic::{AtomicU64, Ordering, fence};

const BOARD_AREA: &str = "im.online";
const TICKETS_AREA: &str = "im.online.tickets";

/// Words with one meaning each.
#[derive(Clone, Copy)]
enum Word {
    /// 1 after a call that went well, 0 after one that did not.
    Connected,
    Failures,
    RetryAt,
    BeatAsked,
    BeatOver,
    SweepPlace,
    SweepWanted,
    SweepBegan,
    SweepAsked,
    SweepOver,
    /// The last ticket drawn.
    Ticket,
    /// Which sentence is the latest, from 1; and when it was written, Unix milliseconds.
    Error,
    ErrorAt,
}

const WORDS: usize = 13;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnlineCount {
    /// Connections made.
    Connected,
    /// Calls and attempts to connect that failed.
    Failed,
    /// Users written with the sessions they have.
    Written,
    /// Users written as having none.
    Cleared,
    /// Changes that were left to the next sweep.
    Dropped,
    /// Sweeps done.
    Swept,
    /// Entries of nodes without a lease that were removed.
    Buried,
    /// Questions asked of Redis.
    Asked,
    /// Questions answered from this node alone.
    Partial,
}

const COUNTS: usize = 9;

/// Sentences are written in turn, so that a reader of one is seldom overtaken by its next writer.
const SENTENCES: usize = 4;
/// Longest sentence, in words of 8 bytes.
const SENTENCE_WORDS: usize = 32;
const SENTENCE_ROOM: usize = SENTENCE_WORDS + 1;
/// Questions that were answered before their outcome came, by their task's number.
const EARLY: usize = 1_024;

const COUNTS_AT: usize = WORDS;
const SENTENCES_AT: usize = COUNTS_AT + COUNTS;
const EARLY_AT: usize = SENTENCES_AT + SENTENCES * SENTENCE_ROOM;
const BOARD_WORDS: usize = EARLY_AT + EARLY;

/// The areas for so many sessions.
pub(super) fn areas(max_sessions: u32) -> [AreaRequest; 2] {
    // As many words as sessions: few users share one.
    let tickets = usize::try_from(max_sessions).unwrap_or(usize::MAX).max(64);
    [
        AreaRequest { name: BOARD_AREA, words: BOARD_WORDS },
        AreaRequest { name: TICKETS_AREA, words: tickets },
    ]
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnlineBoard {
    words: &'static [AtomicU64],
    tickets: &'static [AtomicU64],
}

impl OnlineBoard {
    /// # Panics
    /// When the memory was not made from [`areas`].
    pub(super) fn new(areas: &Areas) -> Self {
        let words = |name| areas.words(name).expect("the server makes what `areas` asks for");
        Self { words: words(BOARD_AREA), tickets: words(TICKETS_AREA) }
    }

    /// Whether the last call to Redis went well.
    pub(crate) fn is_connected(&self) -> bool {
        self.load(Word::Connected) == 1
    }

    /// Whether it went well, and a beat was over not longer ago than a lease.
    pub(crate) fn is_fresh(&self, now: Millis, lease_ms: u64) -> bool {
        self.is_connected() && now.since(Millis(self.load(Word::BeatOver))) <= lease_ms
    }

    /// A call went well.
    pub(crate) fn note_success(&self) {
        self.store(Word::Failures, 0);
        self.store(Word::Connected, 1);
    }

    /// A connection was made: what went over an earlier one may be lost.
    pub(crate) fn note_connected(&self) {
        self.count(OnlineCount::Connected, 1);
        self.note_success();
        self.want_sweep();
    }

    /// A call failed, for this reason; Redis is left alone for a while.
    pub(crate) fn note_failure(
        &self,
        now: Millis,
        unix_ms: u64,
        lease_ms: u64,
        random: u64,
        reason: &str,
    ) {
        self.count(OnlineCount::Failed, 1);
        let failures = self.word(Word::Failures).fetch_add(1, Ordering::Relaxed) + 1;
        let delay = retry_delay_ms(failures, lease_ms, random);
        self.store(Word::RetryAt, (now + delay).0);
        self.store(Word::Connected, 0);
        self.write_error(unix_ms, reason);
    }

    /// Until when Redis is left alone.
    pub(crate) fn retry_at(&self) -> Millis {
        Millis(self.load(Word::RetryAt))
    }

    /// True for one caller, when a beat is due.
    pub(crate) fn claim_beat(&self, now: Millis, lease_ms: u64, timeout_ms: u64) -> bool {
        let asked = self.load(Word::BeatAsked);
        let beats = Beats {
            connected: self.is_connected(),
            asked: Millis(asked),
            over: Millis(self.load(Word::BeatOver)),
            retry_at: self.retry_at(),
        };
        beat_is_due(beats, now, lease_ms, timeout_ms)
            && settle_time(self.word(Word::BeatAsked), asked, now.0)
    }

    /// Nobody took the beat that was claimed: it is due again.
    pub(crate) fn give_beat_back(&self) {
        self.store(Word::BeatAsked, 0);
    }

    /// A beat is over, well or not.
    pub(crate) fn note_beat(&self, now: Millis) {
        self.store(Word::BeatOver, now.0);
    }

    /// Redis may not have what it should: everything is to be written soon.
    pub(crate) fn want_sweep(&self) {
        self.store(Word::SweepWanted, 1);
    }

    /// True for one caller, when a piece of a sweep is due.
    pub(crate) fn claim_sweep(&self, now: Millis, lease_ms: u64, timeout_ms: u64) -> bool {
        let asked = self.load(Word::SweepAsked);
        let sweeps = Sweeps {
            place: self.sweep_place(),
            wanted: self.load(Word::SweepWanted) == 1,
            began: Millis(self.load(Word::SweepBegan)),
            asked: Millis(asked),
            over: Millis(self.load(Word::SweepOver)),
        };
        let due = sweep_due(sweeps, now, lease_ms, timeout_ms);
        if due == SweepDue::Nothing || !settle_time(self.word(Word::SweepAsked), asked, now.0) {
            return false;
        }
        if due == SweepDue::Begin {
            // First: what is wanted from now on is wanted of the sweep after this one.
            self.store(Word::SweepWanted, 0);
            self.store(Word::SweepBegan, now.0);
            self.store(Word::SweepPlace, sweeps.place.next_sweep().to_word());
        }
        true
    }

    /// Nobody took the piece that was claimed: it is due again.
    pub(crate) fn give_sweep_back(&self) {
        self.store(Word::SweepAsked, self.load(Word::SweepOver));
    }

    /// A piece of a sweep is over, well or not.
    pub(crate) fn note_sweep(&self, now: Millis) {
        self.store(Word::SweepOver, now.0);
    }

    /// Where the sweep is.
    pub(crate) fn sweep_place(&self) -> Place {
        Place::from_word(self.load(Word::SweepPlace))
    }

    /// Moves the sweep on, if it is where it was.
    pub(crate) fn move_sweep(&self, from: Place, to: Place) -> bool {
        let place = self.word(Word::SweepPlace);
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        place.compare_exchange(from.to_word(), to.to_word(), order.0, order.1).is_ok()
    }

    /// Draws a ticket for a user, by his hash. What is read of him afterwards is at least as new.
    pub(crate) fn draw(&self, hash: u64) -> u64 {
        let ticket = self.word(Word::Ticket).fetch_add(1, Ordering::Relaxed) + 1;
        self.ticket(hash).store(ticket, Ordering::SeqCst);
        // The store before the reads that follow: of two who draw and read at one time, at least the one
        // whose ticket is gone finds that out.
        fence(Ordering::SeqCst);
        ticket
    }

    /// Whether nobody has drawn a later one.
    pub(crate) fn is_latest(&self, hash: u64, ticket: u64) -> bool {
        self.ticket(hash).load(Ordering::SeqCst) == ticket
    }

    /// A question is being answered before its outcome has come.
    pub(crate) fn note_early(&self, task: TaskId) {
        self.early(task).store(task.0, Ordering::Release);
    }

    /// Whether a question was answered before; asked by who does not remember it. More than [`EARLY`]
    /// later ones make it forgotten.
    pub(crate) fn was_early(&self, task: TaskId) -> bool {
        self.early(task).load(Ordering::Acquire) == task.0
    }

    /// Counts so many more.
    pub(crate) fn count(&self, what: OnlineCount, number: usize) {
        let word = &self.words[COUNTS_AT + what as usize];
        word.fetch_add(u64::try_from(number).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many were counted since the start.
    pub(crate) fn counted(&self, what: OnlineCount) -> u64 {
        self.words[COUNTS_AT + what as usize].load(Ordering::Relaxed)
    }

    /// The last error and when it was, Unix milliseconds.
    pub(crate) fn last_error(&self) -> Option<(String, u64)> {
        let number = usize::try_from(self.load(Word::Error)).ok()?.checked_sub(1)?;
        let words = self.sentence(number);
        let length = usize::try_from(words[0].load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let text = String::from_utf8_lossy(&packed::load(&words[1..], length)).into_owned();
        Some((text, self.load(Word::ErrorAt)))
    }

    fn write_error(&self, unix_ms: u64, reason: &str) {
        let number = self.load(Word::Error) + 1;
        let words = self.sentence(usize::try_from(number - 1).unwrap_or(0));
        let end = (0..=reason.len().min(8 * SENTENCE_WORDS)).rev();
        let end = end.into_iter().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
        let bytes = &reason.as_bytes()[..end];
        words[0].store(bytes.len() as u64, Ordering::Relaxed);
        packed::store(&words[1..], bytes);
        self.store(Word::ErrorAt, unix_ms);
        // Last: it names the sentence.
        self.store(Word::Error, number);
    }

    fn sentence(&self, number: usize) -> &'static [AtomicU64] {
        let at = SENTENCES_AT + number % SENTENCES * SENTENCE_ROOM;
        &self.words[at..at + SENTENCE_ROOM]
    }

    fn ticket(&self, hash: u64) -> &'static AtomicU64 {
        let place = (u128::from(hash) * self.tickets.len() as u128) >> 64;
        &self.tickets[usize::try_from(place).unwrap_or(0)]
    }

    fn early(&self, task: TaskId) -> &'static AtomicU64 {
        // The number of a slot's tasks below, the slot above: neighbours fall apart.
        let place = (task.0 ^ ((task.0 >> 48) * 37)) % EARLY as u64;
        &self.words[EARLY_AT + usize::try_from(place).unwrap_or(0)]
    }

    fn word(&self, word: Word) -> &'static AtomicU64 {
        &self.words[word as usize]
    }

    fn load(&self, word: Word) -> u64 {
        self.word(word).load(Ordering::Acquire)
    }

    fn store(&self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::online::upkeep::Step;

    fn board() -> OnlineBoard {
        OnlineBoard::new(&Areas::on_heap(&areas(100)))
    }

    #[test]
    fn one_caller_gets_a_beat_and_it_is_due_again_when_it_is_given_back() {
        let board = board();
        let claim = |now| board.claim_beat(Millis(now), 15_000, 1_000);
        assert!(claim(10) && !claim(10) && !claim(11));
        board.give_beat_back();
        assert!(claim(12));
        board.note_beat(Millis(13));
        board.note_connected();
        assert!(!claim(5_011) && claim(5_012) && !claim(5_012));
        assert!(board.is_fresh(Millis(15_013), 15_000) && !board.is_fresh(Millis(15_014), 15_000));
    }

    #[test]
    fn a_sweep_goes_on_by_pieces_and_a_late_piece_moves_nothing() {
        let board = board();
        let claim = |now| board.claim_sweep(Millis(now), 15_000, 1_000);
        board.note_connected();
        assert!(claim(10) && !claim(10));
        let first = board.sweep_place();
        assert_eq!(first.step, Step::Rows(0));
        assert!(board.move_sweep(first, first.at(Step::Rows(7))));
        board.note_sweep(Millis(11));
        assert!(claim(12));
        let second = board.sweep_place();
        board.note_sweep(Millis(12));
        board.want_sweep();
        assert!(claim(13), "anew");
        assert!(!board.move_sweep(second, second.at(Step::Rest)));
        assert_eq!(board.sweep_place().step, Step::Rows(0));
        board.give_sweep_back();
        assert!(claim(14));
        let place = board.sweep_place();
        assert!(board.move_sweep(place, place.at(Step::Rest)));
        board.note_sweep(Millis(15));
        assert!(!claim(15_012) && claim(15_013));
    }

    #[test]
    fn failures_are_told_and_make_redis_be_left_alone() {
        let board = board();
        assert_eq!(board.last_error(), None);
        board.note_connected();
        board.note_failure(Millis(100), 1_800, 15_000, 0, "it is gone");
        assert_eq!((board.is_connected(), board.retry_at()), (false, Millis(175)));
        assert_eq!(board.last_error(), Some(("it is gone".into(), 1_800)));
        board.note_failure(Millis(200), 1_900, 15_000, 0, &"ä".repeat(200));
        assert_eq!(board.last_error(), Some(("ä".repeat(128), 1_900)));
        assert_eq!(board.retry_at(), Millis(350));
        board.note_success();
        board.note_failure(Millis(300), 2_000, 15_000, 0, "");
        assert_eq!(
            (board.retry_at(), board.last_error()),
            (Millis(375), Some((String::new(), 2_000)))
        );
        assert_eq!(board.counted(OnlineCount::Failed), 3);
        for n in 0..9 {
            let reason = format!("x{n}");
            board.note_failure(Millis(1), 1, 15_000, 0, &reason);
            assert_eq!(board.last_error(), Some((reason, 1)));
        }
    }

    #[test]
    fn tickets_tell_who_was_overtaken() {
        let board = board();
        let (ann, bob) = (1 << 40, u64::MAX);
        let first = board.draw(ann);
        let other = board.draw(bob);
        assert!(board.is_latest(ann, first) && board.is_latest(bob, other));
        let second = board.draw(ann);
        assert!(!board.is_latest(ann, first) && board.is_latest(ann, second));
    }

    #[test]
    fn early_answers_are_remembered_for_a_while() {
        let board = board();
        let task = |number: u64| TaskId(3 << 48 | number);
        board.note_early(task(5));
        assert!(board.was_early(task(5)) && !board.was_early(task(6)));
        assert!(!board.was_early(TaskId(4 << 48 | 5)));
        board.note_early(task(5 + EARLY as u64));
        assert!(!board.was_early(task(5)), "the bound");
    }
}
