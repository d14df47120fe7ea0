//! What waits for full mailboxes, also in a file: so that it does not die with its sender.
//!
//! A file is a number that tells its age, then records: where to, how far it is, a packet, its parcel. It
//! lies in a memfd of the table that all workers share; the ledger says whose it is. Whoever serves the
//! sender's slot next goes on with it. Knows no connection and no socket.
//! Invariants: 1. A record is `Sending` from before its packet is given to a mailbox until it is known
//! whether that took it: what a death leaves so may have arrived or not, and is told, not sent again.
//! 2. A record that is cut is the last, of a turn that did not end: its sender's clients are told by a
//! close.

use super::post::Waiting;
use crate::clock;
use crate::ids::{Generation, SlotId};
use crate::ledger::{DescriptorKind, Holder, Ledger};
use crate::sys::descriptor;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;

/// The longest a file becomes; what waits beyond it goes into the next. It is emptied whenever nothing of
/// it waits.
const FILE_MAX_BYTES: u64 = 64 << 20;
const HEAD_BYTES: u64 = 8;
/// State, slot, length of the packet, length of the parcel and 1; 0: none.
const RECORD_HEAD_BYTES: usize = 8 * 4;

/// How far a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// It waits.
    Waiting,
    /// It is being given to its mailbox.
    Sending,
    /// It was.
    Sent,
}

impl Progress {
    fn code(self) -> u64 {
        match self {
            Self::Waiting => 1,
            Self::Sending => 2,
            Self::Sent => 3,
        }
    }
}

/// Where the files are noted, and as whose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeper {
    pub(crate) ledger: Ledger,
    pub(crate) holder: Holder,
}

/// One file.
#[derive(Debug)]
pub(crate) struct Journal {
    keeper: Keeper,
    memfd: RawFd,
    age: u64,
    end: u64,
    /// Records that are not sent.
    waiting: usize,
}

/// What a file of a dead sender holds, in its order.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Slot, what waits, and its record.
    pub(crate) waiting: Vec<(usize, Waiting, u64)>,
    /// Slot and what was in its hands: it may have arrived.
    pub(crate) in_doubt: Vec<(usize, Waiting)>,
}

impl Journal {
    /// An empty file, younger than those of the age `after`.
    pub(crate) fn begin(keeper: Keeper, after: u64) -> io::Result<Self> {
        let file = descriptor::empty_memfd()?;
        let age = clock::now().0.max(after + 1);
        file.write_all_at(&age.to_le_bytes(), 0)?;
        let memfd = descriptor::release(file.into());
        keeper.ledger.note(memfd, DescriptorKind::Spill, keeper.holder);
        Ok(Self { keeper, memfd, age, end: HEAD_BYTES, waiting: 0 })
    }

    /// The files that were left for a slot, the oldest first, with what they hold. They are this sender's
    /// from now on.
    pub(crate) fn take_over(keeper: Keeper, slot: SlotId) -> Vec<(Self, Found)> {
        let left = Holder { slot: slot.0, generation: Generation(0) };
        let files = keeper.ledger.held_by(left).filter(|(_, kind)| *kind == DescriptorKind::Spill);
        let mut files: Vec<(u64, RawFd)> =
            files.map(|(memfd, _)| (age(memfd).unwrap_or(0), memfd)).collect();
        files.sort_unstable();
        let mut taken = Vec::new();
        for (age, memfd) in files {
            keeper.ledger.note(memfd, DescriptorKind::Spill, keeper.holder);
            let (found, end) = read(memfd);
            let mut journal = Self { keeper, memfd, age, end, waiting: found.waiting.len() };
            journal.forget_if_empty();
            taken.push((journal, found));
        }
        taken
    }

    /// Writes down what begins to wait; gives its record, or none if the file takes no more.
    pub(crate) fn append(&mut self, slot: usize, waiting: &Waiting) -> Option<u64> {
        let parcel = waiting.parcel.as_deref();
        let lengths = [
            Progress::Waiting.code(),
            wide(slot),
            wide(waiting.packet.len()),
            parcel.map_or(0, |parcel| wide(parcel.len()) + 1),
        ];
        let mut record: Vec<u8> = lengths.iter().flat_map(|word| word.to_le_bytes()).collect();
        record.extend_from_slice(&waiting.packet);
        record.extend_from_slice(parcel.unwrap_or_default());
        if self.end + wide(record.len()) > FILE_MAX_BYTES {
            return None;
        }
        let at = self.end;
        descriptor::lend(self.memfd).write_all_at(&record, at).ok()?;
        self.end += wide(record.len());
        self.waiting += 1;
        Some(at)
    }

    /// Notes how far a record is.
    pub(crate) fn note(&mut self, at: u64, progress: Progress) {
        // Eight bytes in place: a memfd that took them once takes them again.
        let _ = descriptor::lend(self.memfd).write_all_at(&progress.code().to_le_bytes(), at);
        if progress == Progress::Sent {
            self.waiting = self.waiting.saturating_sub(1);
            self.forget_if_empty();
        }
    }

    /// When it was begun: whoever takes files over reads the older first.
    pub(crate) fn age(&self) -> u64 {
        self.age
    }

    /// Whether every record is sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Leaves the file to whoever serves the sender's slot next, or takes it back.
    pub(crate) fn leave(&self, left: bool) {
        let generation = if left { Generation(0) } else { self.keeper.holder.generation };
        let holder = Holder { slot: self.keeper.holder.slot, generation };
        self.keeper.ledger.note(self.memfd, DescriptorKind::Spill, holder);
    }

    /// Closes the file.
    pub(crate) fn close(self) {
        self.keeper.ledger.clear(self.memfd);
        descriptor::close(self.memfd);
    }

    fn forget_if_empty(&mut self) {
        if self.waiting == 0 && descriptor::lend(self.memfd).set_len(HEAD_BYTES).is_ok() {
            self.end = HEAD_BYTES;
        }
    }
}

fn age(memfd: RawFd) -> Option<u64> {
    let mut age = [0; 8];
    descriptor::lend(memfd).read_exact_at(&mut age, 0).ok()?;
    Some(u64::from_le_bytes(age))
}

/// What a file holds that is not sent, and where its whole records end.
fn read(memfd: RawFd) -> (Found, u64) {
    let mut found = Found::default();
    let mut at = HEAD_BYTES;
    while let Some((progress, slot, waiting, end)) = read_record(memfd, at) {
        if progress == Progress::Waiting.code() {
            found.waiting.push((slot, waiting, at));
        } else if progress == Progress::Sending.code() {
            found.in_doubt.push((slot, waiting));
        }
        at = end;
    }
    (found, at)
}

fn read_record(memfd: RawFd, at: u64) -> Option<(u64, usize, Waiting, u64)> {
    let file = descriptor::lend(memfd);
    let length = file.metadata().ok()?.len();
    let mut head = [0; RECORD_HEAD_BYTES];
    file.read_exact_at(&mut head, at).ok()?;
    let mut words = [0_u64; RECORD_HEAD_BYTES / 8];
    for (word, bytes) in words.iter_mut().zip(head.chunks_exact(8)) {
        // Chunks of exactly eight.
        *word = bytes.try_into().map_or(u64::MAX, u64::from_le_bytes);
    }
    let [progress, slot, packet, parcel] = words;
    let body = at + wide(RECORD_HEAD_BYTES);
    let packet_end = body.checked_add(packet).filter(|end| *end <= length)?;
    let end = packet_end.checked_add(parcel.saturating_sub(1)).filter(|end| *end <= length)?;
    let bytes = |from: u64, to: u64| {
        let mut bytes = vec![0; usize::try_from(to - from).ok()?];
        file.read_exact_at(&mut bytes, from).ok()?;
        Some(bytes)
    };
    let waiting = Waiting {
        packet: bytes(body, packet_end)?,
        parcel: if parcel > 0 { Some(bytes(packet_end, end)?) } else { None },
    };
    Some((progress, usize::try_from(slot).ok()?, waiting, end))
}

fn wide(bytes: usize) -> u64 {
    // No machine of ours counts memory in more than 64 bits.
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: SlotId = SlotId(3);

    fn keeper(ledger: Ledger, generation: u32) -> Keeper {
        let holder = Holder { slot: SLOT.0, generation: Generation(generation) };
        Keeper { ledger, holder }
    }

    fn waiting(byte: u8, parcel: Option<usize>) -> Waiting {
        Waiting { packet: vec![byte; 9], parcel: parcel.map(|length| vec![byte; length]) }
    }

    #[test]
    fn a_successor_finds_what_waits_in_order_and_what_is_in_doubt() {
        let ledger = Ledger::new(dunlin_table::heap_words(1 << 12));
        let mut journal = Journal::begin(keeper(ledger, 1), 0).expect("a memfd");
        let first = journal.append(0, &waiting(1, None)).expect("room");
        let second = journal.append(2, &waiting(2, Some(70_000))).expect("room");
        let third = journal.append(0, &waiting(3, Some(0))).expect("room");
        let fourth = journal.append(1, &waiting(4, None)).expect("room");
        journal.note(first, Progress::Sending);
        journal.note(first, Progress::Sent);
        journal.note(second, Progress::Sending);
        assert!(Journal::take_over(keeper(ledger, 2), SLOT).is_empty(), "its sender lives");
        journal.leave(true);
        let mut taken = Journal::take_over(keeper(ledger, 2), SLOT);
        let (mut next, found) = taken.pop().expect("the file");
        assert!(taken.is_empty());
        assert_eq!(found.in_doubt, [(2, waiting(2, Some(70_000)))]);
        assert_eq!(found.waiting, [(0, waiting(3, Some(0)), third), (1, waiting(4, None), fourth)]);
        // It goes on in the same file, and empties it.
        next.note(third, Progress::Sent);
        next.note(fourth, Progress::Sent);
        assert!(next.is_empty());
        assert_eq!(next.append(0, &waiting(5, None)), Some(HEAD_BYTES));
        next.close();
        assert_eq!(ledger.held_by(keeper(ledger, 2).holder).count(), 0);
    }

    #[test]
    fn a_record_that_is_cut_ends_the_file_and_a_full_file_takes_no_more() {
        let ledger = Ledger::new(dunlin_table::heap_words(1 << 12));
        let mut journal = Journal::begin(keeper(ledger, 1), 0).expect("a memfd");
        journal.append(0, &waiting(1, None)).expect("room");
        let cut = journal.append(0, &waiting(2, Some(500))).expect("room");
        descriptor::lend(journal.memfd).set_len(journal.end - 1).expect("a memfd is cut");
        let (found, end) = read(journal.memfd);
        assert_eq!((found.waiting.len(), end), (1, cut));
        let large = waiting(3, Some(1 << 20));
        let taken = (0..100).take_while(|_| journal.append(0, &large).is_some()).count();
        assert!((60..64).contains(&taken), "{taken}");
        journal.close();
    }
}
