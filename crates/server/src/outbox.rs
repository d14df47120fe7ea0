//! Bounded writes of one connection: bytes in, bytes out, a verdict.
//!
//! Knows nothing of sockets, frames, users or the event loop.
//!
//! Invariants:
//! 1. `queued_bytes` is what `parts` and `tail` hold beyond `written`, and never exceeds the limit.
//! 2. After [`Verdict::Overflow`] nothing of that push is queued.
//! 3. Small pushes share one contiguous buffer; a part of its own is at least [`SHARED_MIN`] bytes, so an
//!    outbox has at most `2 * limit / SHARED_MIN + 2` parts.
//! 4. An empty outbox holds no heap memory after [`Outbox::release`].
//! 5. After [`Outbox::advance`] the contiguous buffer holds at most three times what is queued and
//!    [`SPARE_MAX`], so that what is counted is what is held.
//! 6. The [`Load`] that several outboxes share is the sum of their `queued_bytes`, at any time.

use std::{cell::Cell, collections::VecDeque, fmt, io::IoSlice, mem, rc::Rc};

/// Shared bytes under this length are copied into the contiguous buffer: a copy is cheaper than a slice.
pub const SHARED_MIN: usize = 4096;

/// Dead bytes at the front of the contiguous buffer that are borne before it is moved together.
const DEAD_MAX: usize = 4096;

/// Memory beyond three times what is queued that is borne: less is not worth the moving.
pub const SPARE_MAX: usize = 64 << 10;

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "after an overflow nothing was queued"]
pub enum Verdict {
    /// All of it is queued.
    Queued,
    /// It would pass the limit: nothing of it is queued.
    Overflow,
}

/// A watermark that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// At or over the high watermark, for the first time since the last `Empty`.
    Full,
    /// At or under the low watermark again, after a `Full`.
    Empty,
}

/// How much may be queued, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Most bytes queued at any time.
    pub limit_bytes: usize,
    /// From here on the connection counts as slow ([`Crossing::Full`]).
    pub high_watermark_bytes: usize,
    /// Down here it counts as quick again ([`Crossing::Empty`]).
    pub low_watermark_bytes: usize,
}

impl OutboxLimits {
    /// A limit with watermarks at three quarters and at one quarter of it.
    #[must_use]
    pub const fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            high_watermark_bytes: limit_bytes - limit_bytes / 4,
            low_watermark_bytes: limit_bytes / 4,
        }
    }
}

/// The unsent bytes of several outboxes together: those that count in it.
#[derive(Clone, Debug, Default)]
pub struct Load(Rc<Cell<usize>>);

impl Load {
    /// Bytes that wait in all of them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.get()
    }

    fn change(&self, from: usize, to: usize) {
        self.0.set(self.0.get() - from + to);
    }
}

/// The unsent bytes of one connection.
pub struct Outbox {
    limits: OutboxLimits,
    /// What goes before `tail`, oldest first. None of them is empty.
    parts: VecDeque<Part>,
    /// The contiguous buffer that small pushes go into.
    tail: Vec<u8>,
    /// Bytes of the front part (of `tail`, if there is no part) that are written already.
    written: usize,
    queued_bytes: usize,
    /// Where they count, too.
    load: Option<Load>,
    /// `Full` was told and `Empty` was not yet.
    told_full: bool,
}

enum Part {
    Own(Vec<u8>),
    Shared(Rc<[u8]>),
}

impl Outbox {
    /// An empty outbox of `limit_bytes`, with the watermarks of [`OutboxLimits::new`]. Allocates nothing.
    #[must_use]
    pub const fn new(limit_bytes: usize) -> Self {
        Self::with_limits(OutboxLimits::new(limit_bytes))
    }

    /// An empty outbox with watermarks of the caller's. Allocates nothing.
    #[must_use]
    pub const fn with_limits(limits: OutboxLimits) -> Self {
        Self {
            limits,
            parts: VecDeque::new(),
            tail: Vec::new(),
            written: 0,
            queued_bytes: 0,
            load: None,
            told_full: false,
        }
    }

    /// The same outbox, counted in a load, too.
    #[must_use]
    pub fn counted_in(mut self, load: &Load) -> Self {
        load.change(0, self.queued_bytes);
        self.load = Some(load.clone());
        self
    }

    /// Other limits from now on. What is queued stays queued, even over a smaller limit.
    pub const fn set_limits(&mut self, limits: OutboxLimits) {
        self.limits = limits;
    }

    /// Queues a copy of `bytes`.
    pub fn push(&mut self, bytes: &[u8]) -> Verdict {
        if bytes.len() > self.room_bytes() {
            return Verdict::Overflow;
        }
        self.compact_tail();
        self.tail.extend_from_slice(bytes);
        self.note_queued(self.queued_bytes + bytes.len());
        self.check_invariants();
        Verdict::Queued
    }

    /// Queues bytes that several outboxes send: not copied from [`SHARED_MIN`] bytes on.
    pub fn push_shared(&mut self, bytes: Rc<[u8]>) -> Verdict {
        if bytes.len() < SHARED_MIN {
            return self.push(&bytes);
        }
        if bytes.len() > self.room_bytes() {
            return Verdict::Overflow;
        }
        if !self.tail.is_empty() {
            // `written` goes on counting in the same buffer: it is the front part exactly if it was before.
            self.parts.push_back(Part::Own(mem::take(&mut self.tail)));
        }
        self.note_queued(self.queued_bytes + bytes.len());
        self.parts.push_back(Part::Shared(bytes));
        self.check_invariants();
        Verdict::Queued
    }

    /// Queues what `encode` appends to the buffer it is lent. On overflow that is taken away again.
    ///
    /// # Panics
    /// If `encode` shortens the buffer, which holds earlier bytes.
    pub fn push_with(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Verdict {
        let room = self.room_bytes();
        self.compact_tail();
        let before = self.tail.len();
        encode(&mut self.tail);
        assert!(self.tail.len() >= before, "an encoder appends, it never takes from the buffer");
        let added = self.tail.len() - before;
        if added > room {
            self.tail.truncate(before);
            return Verdict::Overflow;
        }
        self.note_queued(self.queued_bytes + added);
        self.check_invariants();
        Verdict::Queued
    }

    /// Lends the oldest bytes as slices for one vectored write; returns how many slices of `into` it set.
    pub fn slices<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut set = 0;
        for (slot, bytes) in into.iter_mut().zip(self.pieces()) {
            *slot = IoSlice::new(bytes);
            set += 1;
        }
        set
    }

    /// All unwritten bytes, oldest first: how output rests in a handover.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let parts = self.parts.iter().map(Part::bytes);
        let all = parts.chain((!self.tail.is_empty()).then_some(self.tail.as_slice()));
        let mut written = self.written;
        all.map(move |bytes| &bytes[mem::take(&mut written)..])
    }

    /// The oldest bytes that lie together: all of them, unless a big shared part is queued.
    #[must_use]
    pub fn front(&self) -> &[u8] {
        let bytes = self.parts.front().map_or(self.tail.as_slice(), Part::bytes);
        &bytes[self.written..]
    }

    /// The `count` oldest bytes are written.
    ///
    /// # Panics
    /// If that is more than was queued: the caller's count is wrong, and the stream would be.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.queued_bytes, "wrote {count} of {} bytes", self.queued_bytes);
        self.note_queued(self.queued_bytes - count);
        self.written += count;
        while let Some(part) = self.parts.front() {
            let length = part.bytes().len();
            if self.written < length {
                break;
            }
            self.written -= length;
            let done = self.parts.pop_front();
            if let (Some(Part::Own(buffer)), true) = (done, self.tail.capacity() == 0) {
                self.tail = buffer;
                self.tail.clear();
            }
        }
        if self.queued_bytes == 0 {
            self.tail.clear();
            self.written = 0;
        } else {
            self.give_spare_back();
        }
        self.check_invariants();
    }

    /// Gives back memory that is out of proportion to what is queued: the reader does not keep up, and
    /// one byte must not hold a buffer of many. Three times, as a buffer grows by doubling: one that has
    /// just grown must not shrink with the next bytes that are taken. So it moves at most about twice as
    /// many bytes as are written.
    pub fn give_spare_back(&mut self) {
        let most = 3 * self.queued_bytes + SPARE_MAX;
        match self.parts.front_mut() {
            None => shrink(&mut self.tail, &mut self.written, most),
            Some(Part::Own(front)) => shrink(front, &mut self.written, most),
            Some(Part::Shared(_)) => {}
        }
        if !self.parts.is_empty() {
            shrink(&mut self.tail, &mut 0, most);
        }
    }

    /// Whether all is written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.queued_bytes == 0
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub const fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Bytes that may still be pushed.
    #[must_use]
    pub const fn room_bytes(&self) -> usize {
        self.limits.limit_bytes.saturating_sub(self.queued_bytes)
    }

    /// Throws away all unwritten bytes, and the memory they took.
    pub fn discard(&mut self) {
        self.advance(self.queued_bytes);
        self.release();
    }

    /// At or over the high watermark.
    #[must_use]
    pub const fn is_high(&self) -> bool {
        self.queued_bytes >= self.limits.high_watermark_bytes
    }

    /// The watermark passed since the last call, if any. A peak between two calls is not told.
    pub const fn crossing(&mut self) -> Option<Crossing> {
        if !self.told_full && self.queued_bytes >= self.limits.high_watermark_bytes {
            self.told_full = true;
            return Some(Crossing::Full);
        }
        if self.told_full && self.queued_bytes <= self.limits.low_watermark_bytes {
            self.told_full = false;
            return Some(Crossing::Empty);
        }
        None
    }

    /// Gives back memory that holds no unwritten byte: all of it if the outbox is empty.
    pub fn release(&mut self) {
        if self.is_empty() {
            self.tail = Vec::new();
            self.parts = VecDeque::new();
        } else {
            self.tail.shrink_to_fit();
            self.parts.shrink_to_fit();
        }
    }

    /// Whether it has no buffer, and would allocate one for the next message.
    #[must_use]
    pub const fn wants_buffer(&self) -> bool {
        self.tail.capacity() == 0
    }

    /// Lends it a warm buffer, so that a worker allocates none per message; one it has already stays.
    pub fn lend(&mut self, mut buffer: Vec<u8>) {
        if self.wants_buffer() {
            buffer.clear();
            self.tail = buffer;
        }
    }

    /// Takes the buffer out of an empty outbox, for the next one; as [`Self::release`], it then holds none.
    pub fn reclaim(&mut self) -> Option<Vec<u8>> {
        if !self.is_empty() || self.tail.capacity() == 0 {
            return None;
        }
        self.parts = VecDeque::new();
        Some(mem::take(&mut self.tail))
    }

    fn note_queued(&mut self, bytes: usize) {
        if let Some(load) = &self.load {
            load.change(self.queued_bytes, bytes);
        }
        self.queued_bytes = bytes;
    }

    /// Moves `tail` together when its written front is the larger half: so it moves no more bytes than were written.
    fn compact_tail(&mut self) {
        if self.parts.is_empty() && self.written >= DEAD_MAX && self.written * 2 >= self.tail.len()
        {
            self.tail.drain(..mem::take(&mut self.written));
        }
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            let held = self.parts.iter().map(|part| part.bytes().len()).sum::<usize>();
            assert_eq!(held + self.tail.len(), self.queued_bytes + self.written);
            assert!(self.queued_bytes > 0 || (self.written == 0 && self.parts.is_empty()));
            assert!(self.parts.iter().all(|part| !part.bytes().is_empty()));
        }
    }
}

/// Moves a buffer of more than `most` bytes together, without its written front.
fn shrink(buffer: &mut Vec<u8>, written: &mut usize, most: usize) {
    if buffer.capacity() > most {
        buffer.drain(..mem::take(written));
        buffer.shrink_to_fit();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.note_queued(0);
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Outbox")
            .field("limits", &self.limits)
            .field("queued_bytes", &self.queued_bytes)
            .field("parts", &self.parts.len())
            .finish_non_exhaustive()
    }
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 16];
        let count = outbox.slices(&mut slices);
        assert!(count < slices.len());
        let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(all.len(), outbox.queued_bytes());
        assert_eq!(
            outbox.front(),
            slices.first().filter(|_| count > 0).map_or(&[][..], |slice| slice)
        );
        all
    }

    fn big(byte: u8) -> Rc<[u8]> {
        vec![byte; SHARED_MIN].into()
    }

    #[test]
    fn small_pushes_are_one_slice() {
        let mut outbox = Outbox::new(100);
        assert_eq!(outbox.push(b"ab"), Verdict::Queued);
        assert_eq!(outbox.push_with(|out| out.extend_from_slice(b"cd")), Verdict::Queued);
        assert_eq!(outbox.push_shared(Rc::from(*b"ef")), Verdict::Queued);
        assert_eq!(outbox.slices(&mut [IoSlice::new(&[]); 4]), 1);
        assert_eq!(contents(&outbox), b"abcdef");
        outbox.advance(3);
        assert_eq!(contents(&outbox), b"def");
    }

    #[test]
    fn big_shared_bytes_are_not_copied() {
        let mut outbox = Outbox::new(1 << 20);
        let shared = big(b'x');
        let _ = outbox.push(b"before");
        outbox.advance(2);
        assert_eq!(outbox.push_shared(Rc::clone(&shared)), Verdict::Queued);
        let _ = outbox.push(b"between");
        assert_eq!(outbox.push_shared(Rc::clone(&shared)), Verdict::Queued);
        let _ = outbox.push(b"after");
        assert_eq!(Rc::strong_count(&shared), 3);
        let expected = [b"fore", &shared[..], b"between", &shared[..], b"after"].concat();
        assert_eq!(contents(&outbox), expected);
        for step in [3, 2, 4000, 120, 5000, 1] {
            let before = contents(&outbox);
            let step = step.min(before.len());
            outbox.advance(step);
            assert_eq!(contents(&outbox), before[step..]);
        }
        outbox.advance(outbox.queued_bytes());
        assert_eq!(Rc::strong_count(&shared), 1);
        assert!(outbox.is_empty());
    }

    #[test]
    fn an_overflow_queues_nothing() {
        let mut outbox = Outbox::new(SHARED_MIN + 4);
        assert_eq!(outbox.push(b"12345"), Verdict::Queued);
        assert_eq!(outbox.push_shared(big(b'x')), Verdict::Overflow);
        assert_eq!(outbox.push(&[0; SHARED_MIN]), Verdict::Overflow);
        assert_eq!(
            outbox.push_with(|out| out.resize(out.len() + SHARED_MIN, 0)),
            Verdict::Overflow
        );
        assert_eq!(contents(&outbox), b"12345");
        outbox.advance(1);
        assert_eq!(outbox.push(&[7; SHARED_MIN]), Verdict::Queued, "exactly full");
        assert_eq!((outbox.room_bytes(), outbox.push(b"")), (0, Verdict::Queued));
        assert_eq!(outbox.push(b"x"), Verdict::Overflow);
    }

    #[test]
    fn watermarks_are_told_once_per_crossing() {
        let limits =
            OutboxLimits { limit_bytes: 100, high_watermark_bytes: 80, low_watermark_bytes: 20 };
        let mut outbox = Outbox::with_limits(limits);
        assert_eq!(outbox.crossing(), None);
        let _ = outbox.push(&[0; 79]);
        assert_eq!(outbox.crossing(), None);
        let _ = outbox.push(&[0; 1]);
        assert_eq!((outbox.crossing(), outbox.crossing()), (Some(Crossing::Full), None));
        outbox.advance(59);
        assert_eq!(outbox.crossing(), None);
        outbox.advance(1);
        assert_eq!((outbox.crossing(), outbox.crossing()), (Some(Crossing::Empty), None));
    }

    #[test]
    fn an_empty_outbox_gives_all_memory_back() {
        let mut outbox = Outbox::new(1 << 20);
        let _ = outbox.push_shared(big(b'x'));
        let _ = outbox.push(b"tail");
        outbox.release();
        assert_eq!(outbox.queued_bytes(), SHARED_MIN + 4, "release loses nothing");
        outbox.advance(SHARED_MIN + 4);
        outbox.release();
        assert_eq!((outbox.tail.capacity(), outbox.parts.capacity()), (0, 0));
        assert!(size_of::<Outbox>() <= 112, "{}", size_of::<Outbox>());
    }

    #[test]
    fn a_warm_buffer_goes_round() {
        let mut outbox = Outbox::new(1 << 20);
        assert!(outbox.wants_buffer());
        outbox.lend(Vec::with_capacity(512));
        assert!(!outbox.wants_buffer());
        outbox.lend(Vec::with_capacity(64));
        let _ = outbox.push(b"abc");
        assert_eq!(outbox.reclaim(), None, "bytes wait in it");
        outbox.advance(3);
        assert_eq!(
            outbox.reclaim().map(|buffer| (buffer.len(), buffer.capacity())),
            Some((0, 512))
        );
        assert_eq!(outbox.reclaim(), None);
    }

    #[test]
    fn a_load_is_the_sum_of_its_outboxes() {
        let load = Load::default();
        let mut some: Vec<Outbox> =
            (0..3).map(|_| Outbox::new(2 * SHARED_MIN).counted_in(&load)).collect();
        let _ = some[0].push(b"abc");
        let _ = some[1].push_with(|out| out.extend_from_slice(b"de"));
        let _ = some[2].push_shared(big(b'x'));
        let _ = some[2].push(&[0; SHARED_MIN + 1]);
        assert_eq!(load.bytes(), 5 + SHARED_MIN);
        some[0].advance(1);
        some[1].advance(2);
        assert_eq!(load.bytes(), 2 + SHARED_MIN);
        some[2].discard();
        assert_eq!((load.bytes(), some[2].tail.capacity()), (2, 0));
        some.clear();
        assert_eq!(load.bytes(), 0, "one that is gone counts no more");
    }

    #[test]
    fn pieces_are_all_of_it_in_order() {
        let mut outbox = Outbox::new(1 << 20);
        assert_eq!(outbox.pieces().count(), 0);
        let _ = outbox.push(b"abc");
        outbox.advance(1);
        let _ = outbox.push_shared(big(b'x'));
        let _ = outbox.push(b"def");
        let pieces: Vec<&[u8]> = outbox.pieces().collect();
        assert_eq!(pieces, [b"bc", &big(b'x')[..], b"def"]);
    }

    #[test]
    fn a_reader_that_never_catches_up_costs_no_more_than_the_limit() {
        let limit = 64 * 1024;
        let mut outbox = Outbox::new(limit);
        let _ = outbox.push(&vec![0; limit]);
        for _ in 0..10_000 {
            outbox.advance(500);
            assert_eq!(outbox.push(&[1; 500]), Verdict::Queued);
        }
        assert!(outbox.tail.capacity() <= 4 * limit, "{}", outbox.tail.capacity());
    }

    #[test]
    fn what_waits_holds_no_more_than_it_needs() {
        const MIB: usize = 1 << 20;
        let held = |outbox: &Outbox| {
            let own = |part: &Part| match part {
                Part::Own(bytes) => bytes.capacity(),
                Part::Shared(_) => 0,
            };
            outbox.tail.capacity() + outbox.parts.iter().map(own).sum::<usize>()
        };
        let numbered: Vec<u8> = (0..MIB).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for shared_behind in [false, true] {
            let mut outbox = Outbox::new(4 * MIB);
            let _ = outbox.push(&numbered);
            if shared_behind {
                let _ = outbox.push_shared(big(b'x'));
            }
            while outbox.queued_bytes() > SHARED_MIN + 7 {
                outbox.advance(7_777.min(outbox.queued_bytes() - SHARED_MIN - 7));
                assert!(held(&outbox) <= 3 * outbox.queued_bytes() + SPARE_MAX);
                let whole: Vec<u8> = outbox.pieces().flatten().copied().collect();
                let from = MIB + usize::from(shared_behind) * SHARED_MIN - outbox.queued_bytes();
                assert!(whole.starts_with(&numbered[from..]), "nothing is lost");
            }
        }
        let mut outbox = Outbox::new(4 * MIB);
        outbox.lend(Vec::with_capacity(MIB));
        let _ = outbox.push(b"a word");
        outbox.give_spare_back();
        assert_eq!(contents(&outbox), b"a word");
        assert!(held(&outbox) <= SPARE_MAX, "a warm buffer that nobody takes");
    }

    #[test]
    fn shrinking_moves_little_beside_what_is_written() {
        let mut outbox = Outbox::new(1 << 20);
        let (mut taken, mut moved) = (0, 0);
        for round in 0..20_000_usize {
            while outbox.push(&[0; 9_999]) == Verdict::Queued && round % 64 == 0 {}
            let capacity = outbox.tail.capacity();
            let step = (round * 7_919 % 30_000).min(outbox.queued_bytes() - 1);
            outbox.advance(step);
            taken += step;
            if outbox.tail.capacity() < capacity {
                moved += outbox.queued_bytes();
            }
        }
        assert!(moved <= 2 * taken, "{moved} of {taken}");
    }
}
