//! Sending mail: what one turn has for one slot is packed into few packets, and what a full mailbox
//! does not take waits in a bounded list.
//!
//! Knows the write ends of the mailboxes, nothing of who reads them. Invariants: 1. Once something
//! waits for a slot, everything later for it waits behind it, so order holds. 2. What waits for one
//! slot never exceeds [`SPILL_MAX_BYTES`]; beyond it a post is refused, never dropped in the middle.

use super::codec::CodecError;
use super::journal::{Journal, Keeper, Progress};
use super::mail::{Mail, ParcelHead};
use crate::context::SendError;
use crate::ids::SlotId;
use crate::sys::{descriptor, packet};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::RawFd;

/// The most bytes that wait for one slot in one process.
pub(crate) const SPILL_MAX_BYTES: usize = 16 << 20;
/// The largest packet, whatever the socket would take.
const PACKET_MAX_BYTES: usize = 64 << 10;
/// The most mails in a packet: those it is for are under way together, and lost together if the worker that
/// takes it dies. More would save hardly anything.
const PACKET_MAX_MAILS: usize = 64;

/// A mail was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    #[error("{SPILL_MAX_BYTES} bytes wait for that slot already")]
    Full,
    #[error("there is no such slot")]
    NoSuchSlot,
    #[error("the mail does not encode")]
    Encode(#[from] CodecError),
}

impl PostError {
    /// As a hook sees it that sent something to a slot.
    pub(crate) fn sending_to(self, to: SlotId) -> SendError {
        match self {
            Self::NoSuchSlot => SendError::NoSuchSlot(to),
            Self::Full => SendError::MailboxFull,
            Self::Encode(error) => SendError::Encode(error),
        }
    }
}

/// The sending side of all mailboxes, in one process.
#[derive(Debug)]
pub(crate) struct Post {
    targets: Vec<Target>,
    /// When the turn began that causes what is put in now; see [`Mail::append_to`].
    cause_us: u64,
    /// Targets with something packed in this turn.
    packed: Vec<usize>,
    spilled_bytes: usize,
    keeper: Option<Keeper>,
    /// Files in which what waits is written down, by number; new records go to the last.
    journals: BTreeMap<u64, Journal>,
}

#[derive(Debug)]
struct Target {
    write_end: RawFd,
    packet_max: usize,
    packing: Vec<u8>,
    packing_cause_us: u64,
    packed_mails: usize,
    spill: VecDeque<Spilled>,
    spill_bytes: usize,
}

/// A packet that waits, and where it is written down: the number of the file and its record.
#[derive(Debug)]
struct Spilled {
    waiting: Waiting,
    written: Option<(u64, u64)>,
}

/// A packet that waits, whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) packet: Vec<u8>,
    /// The content of a parcel's memfd.
    pub(crate) parcel: Option<Vec<u8>>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.packet.len() + self.parcel.as_ref().map_or(0, Vec::len)
    }
}

impl Post {
    /// A post over the mailboxes' write ends, by slot.
    pub(crate) fn new(write_ends: &[RawFd]) -> Self {
        let targets = write_ends
            .iter()
            .map(|end| Target {
                write_end: *end,
                packet_max: (packet::send_buffer(*end).unwrap_or(0) / 16)
                    .clamp(4 << 10, PACKET_MAX_BYTES),
                packing: Vec::new(),
                packing_cause_us: 0,
                packed_mails: 0,
                spill: VecDeque::new(),
                spill_bytes: 0,
            })
            .collect();
        Self {
            targets,
            cause_us: 0,
            packed: Vec::new(),
            spilled_bytes: 0,
            keeper: None,
            journals: BTreeMap::new(),
        }
    }

    /// The same for a worker: what waits is written down where whoever serves its slot next finds it.
    pub(crate) fn kept(write_ends: &[RawFd], keeper: Keeper) -> Self {
        Self { keeper: Some(keeper), ..Self::new(write_ends) }
    }

    /// Takes over what dead senders of a slot could not send, before anything that is put later; gives
    /// what may have arrived or not.
    pub(crate) fn take_over(&mut self, slot: SlotId) -> Vec<(usize, Waiting)> {
        let Some(keeper) = self.keeper else { return Vec::new() };
        let mut in_doubt = Vec::new();
        for (journal, found) in Journal::take_over(keeper, slot) {
            in_doubt.extend(found.in_doubt);
            if journal.is_empty() {
                journal.close();
                continue;
            }
            let number = self.next_number();
            self.journals.insert(number, journal);
            for (slot, waiting, at) in found.waiting {
                self.let_wait(slot, Spilled { waiting, written: Some((number, at)) });
            }
        }
        self.retry();
        in_doubt
    }

    /// Leaves what is written down to a successor, or takes it back.
    pub(crate) fn leave_journals(&self, left: bool) {
        self.journals.values().for_each(|journal| journal.leave(left));
    }

    /// What waits is the successor's.
    pub(crate) fn forget_spilled(&mut self) {
        self.journals.clear();
        self.spilled_bytes = 0;
        for target in &mut self.targets {
            target.spill.clear();
            target.spill_bytes = 0;
        }
    }

    /// What is put from here on is caused by what a turn did that began then. Mails of two causes are not in
    /// one packet, whose head says when.
    pub(crate) fn set_cause(&mut self, cause_us: u64) {
        self.cause_us = cause_us;
    }

    /// Takes a mail for a slot. It goes out at [`Post::flush`] at the latest.
    pub(crate) fn put(&mut self, slot: usize, mail: &Mail<'_>) -> Result<(), PostError> {
        let target = self.targets.get(slot).ok_or(PostError::NoSuchSlot)?;
        if target.spill_bytes + target.packing.len() > SPILL_MAX_BYTES {
            return Err(PostError::Full);
        }
        self.put_word(slot, mail)
    }

    /// As [`Post::put`], whatever waits already: for the few bytes that say what becomes of a connection.
    /// There is at most one of a kind per connection.
    pub(crate) fn put_word(&mut self, slot: usize, mail: &Mail<'_>) -> Result<(), PostError> {
        let cause_us = self.cause_us;
        let target = self.targets.get(slot).ok_or(PostError::NoSuchSlot)?;
        if target.packing_cause_us != cause_us {
            self.send_packed(slot);
        }
        let target = &mut self.targets[slot];
        target.packing_cause_us = cause_us;
        let before = target.packing.len();
        mail.append_to(&mut target.packing, cause_us)?;
        if target.packing.len() > target.packet_max {
            let alone = if before == 0 {
                std::mem::take(&mut target.packing)
            } else {
                target.packing.truncate(before);
                let mut alone = Vec::new();
                mail.append_to(&mut alone, cause_us)?;
                alone
            };
            self.send_packed(slot);
            let target = &mut self.targets[slot];
            if alone.len() > target.packet_max {
                let packet = ParcelHead::of(mail).packet()?;
                self.send(slot, Waiting { packet, parcel: Some(alone) });
                return Ok(());
            }
            target.packing = alone;
        }
        let target = &mut self.targets[slot];
        target.packed_mails += 1;
        if target.packed_mails >= PACKET_MAX_MAILS {
            self.send_packed(slot);
        } else if !self.packed.contains(&slot) {
            self.packed.push(slot);
        }
        Ok(())
    }

    /// Sends what this turn packed. Once per turn.
    pub(crate) fn flush(&mut self) {
        while let Some(slot) = self.packed.pop() {
            self.send_packed(slot);
        }
    }

    /// Tries again what waits; to be called when a mailbox became writable. True if nothing waits.
    pub(crate) fn retry(&mut self) -> bool {
        if self.spilled_bytes == 0 {
            return true;
        }
        for slot in 0..self.targets.len() {
            self.retry_slot(slot);
        }
        self.spilled_bytes == 0
    }

    /// Bytes that wait for full mailboxes.
    pub(crate) fn spilled_bytes(&self) -> usize {
        self.spilled_bytes
    }

    /// Bytes that wait for the full mailbox of one slot.
    pub(crate) fn spilled_for(&self, slot: usize) -> usize {
        self.targets.get(slot).map_or(0, |target| target.spill_bytes)
    }

    /// What waits and is not written down, by slot, in its order, for the successor. Everything packed
    /// was flushed before.
    pub(crate) fn spilled(&self) -> impl Iterator<Item = (usize, &Waiting)> {
        let by_slot = self.targets.iter().enumerate();
        by_slot.flat_map(|(slot, target)| {
            let unwritten = target.spill.iter().filter(|one| one.written.is_none());
            unwritten.map(move |one| (slot, &one.waiting))
        })
    }

    /// Puts in what a predecessor could not send, before anything of this process's own.
    pub(crate) fn restore(&mut self, slot: usize, waiting: Waiting) {
        self.send(slot, waiting);
    }

    fn send_packed(&mut self, slot: usize) {
        let target = &mut self.targets[slot];
        target.packed_mails = 0;
        let packet = std::mem::take(&mut target.packing);
        if !packet.is_empty() {
            self.send(slot, Waiting { packet, parcel: None });
        }
    }

    fn send(&mut self, slot: usize, waiting: Waiting) {
        let Some(target) = self.targets.get_mut(slot) else { return };
        if target.spill.is_empty() && transmit(target.write_end, &waiting) {
            if target.packing.is_empty() {
                // The buffer of a packet that went out serves the next turn.
                target.packing = waiting.packet;
                target.packing.clear();
            }
            return;
        }
        let written = self.write_down(slot, &waiting);
        self.let_wait(slot, Spilled { waiting, written });
    }

    fn let_wait(&mut self, slot: usize, spilled: Spilled) {
        let Some(target) = self.targets.get_mut(slot) else { return };
        target.spill_bytes += spilled.waiting.bytes();
        self.spilled_bytes += spilled.waiting.bytes();
        target.spill.push_back(spilled);
    }

    /// `None`: short of descriptors or room, or nobody takes it over. It waits in memory alone, and so does
    /// what comes behind it: whoever goes on with both takes what is written down first.
    fn write_down(&mut self, slot: usize, waiting: &Waiting) -> Option<(u64, u64)> {
        let keeper = self.keeper?;
        if self.targets.get(slot)?.spill.back().is_some_and(|last| last.written.is_none()) {
            return None;
        }
        let youngest = self.journals.iter_mut().max_by_key(|(_, journal)| journal.age());
        let mut age = 0;
        if let Some((number, journal)) = youngest {
            if let Some(at) = journal.append(slot, waiting) {
                return Some((*number, at));
            }
            age = journal.age();
        }
        let number = self.next_number();
        let mut journal = Journal::begin(keeper, age).ok()?;
        let at = journal.append(slot, waiting);
        self.journals.insert(number, journal);
        Some((number, at?))
    }

    /// Closes files of which nothing waits, but for the one that is written to.
    fn close_empty_journals(&mut self) {
        let youngest = self.journals.values().map(Journal::age).max();
        let done = |journal: &Journal| journal.is_empty() && Some(journal.age()) != youngest;
        let empty = self.journals.extract_if(.., |_, journal| done(journal));
        empty.for_each(|(_, journal)| journal.close());
    }

    fn next_number(&self) -> u64 {
        self.journals.keys().next_back().map_or(0, |last| last + 1)
    }

    fn retry_slot(&mut self, slot: usize) {
        let target = &mut self.targets[slot];
        while let Some(first) = target.spill.front() {
            // Asked first: where there is no room a record need not be called `Sending`, over and over, and be
            // in doubt when its sender dies.
            if !packet::has_room(target.write_end) {
                return;
            }
            let journal = first.written.and_then(|(number, at)| {
                self.journals.get_mut(&number).map(|journal| (journal, at))
            });
            let sent = match journal {
                None => transmit(target.write_end, &first.waiting),
                Some((journal, at)) => {
                    journal.note(at, Progress::Sending);
                    let sent = transmit(target.write_end, &first.waiting);
                    journal.note(at, if sent { Progress::Sent } else { Progress::Waiting });
                    sent
                }
            };
            if !sent {
                return;
            }
            let bytes = first.waiting.bytes();
            target.spill_bytes -= bytes;
            self.spilled_bytes -= bytes;
            target.spill.pop_front();
        }
        if self.spilled_bytes == 0 {
            std::mem::take(&mut self.journals).into_values().for_each(Journal::close);
        } else if self.journals.len() > 1 {
            self.close_empty_journals();
        }
    }
}

/// Sends a packet, with its parcel if it has one. False: it must wait.
fn transmit(write_end: RawFd, waiting: &Waiting) -> bool {
    let result = match &waiting.parcel {
        None => packet::send_packet(write_end, &waiting.packet),
        Some(parcel) => send_parcel(write_end, &waiting.packet, parcel),
    };
    match result {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(error) if packet::is_too_long(&error) => {
            // It would wait for ever, and everything behind it.
            tracing::error!(bytes = waiting.packet.len(), "a packet no mailbox takes was left out");
            true
        }
        // ENOBUFS, ETOOMANYREFS, EMFILE: short of something that comes back.
        Err(_) => false,
    }
}

fn send_parcel(write_end: RawFd, packet: &[u8], parcel: &[u8]) -> io::Result<()> {
    let memfd = descriptor::memfd_with(parcel)?;
    let sent = packet::send_packet_with(write_end, packet, memfd);
    descriptor::close(memfd);
    sent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ConnId;
    use crate::ids::Generation;
    use crate::ipc::mail::Recipients;
    use crate::ipc::mailbox::{Mailbox, Reader, Taken};
    use crate::ledger::{Holder, Ledger};
    use crate::websocket::Opcode;

    /// Takes whatever comes.
    struct Anything;

    impl Reader for Anything {
        fn may_take(&mut self, _: Recipients<'_>) -> bool {
            true
        }

        fn mark(&mut self, _: Recipients<'_>) {}
    }

    fn payloads(mailbox: &mut Mailbox) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        while let Taken::Packet = mailbox.take_next(&mut Anything) {
            for mail in mailbox.mails().0 {
                if let Mail::Deliver { payload, .. } = mail {
                    got.push(payload.to_vec());
                }
            }
        }
        got
    }

    #[test]
    fn order_holds_through_packing_parcels_and_a_full_mailbox() {
        let (read, write) = packet::pair(64 << 10).expect("pair");
        let mut post = Post::new(&[write]);
        let mut mailbox = Mailbox::new(read);
        let conn = ConnId::from_bits(1 << 32);
        let sizes = [10, 100_000, 3, 20_000, 5, 900, 40_000, 1];
        let mut expected = Vec::new();
        for round in 0..40_u8 {
            for size in sizes {
                let payload = vec![round; size];
                post.put(0, &Mail::deliver(conn, Opcode::Binary, false, &payload)).expect("room");
                expected.push(payload);
            }
            post.flush();
        }
        assert!(post.spilled_bytes() > 0, "the mailbox was full");
        let mut got = Vec::new();
        while got.len() < expected.len() {
            let more = payloads(&mut mailbox);
            assert!(!more.is_empty(), "nothing came, {} of {}", got.len(), expected.len());
            got.extend(more);
            post.retry();
        }
        assert!(got == expected, "same messages, same order");
        for end in [read, write] {
            descriptor::close(end);
        }
    }

    #[test]
    fn a_spill_list_is_bounded_and_refuses() {
        let (read, write) = packet::pair(64 << 10).expect("pair");
        let mut post = Post::new(&[write]);
        let payload = vec![0; 1 << 20];
        let conn = ConnId::from_bits(1 << 32);
        let mail = Mail::deliver(conn, Opcode::Binary, false, &payload);
        // Parcels live in memfds: the socket itself takes a good many before it is full.
        let refused = (0..100_000).find(|_| matches!(post.put(0, &mail), Err(PostError::Full)));
        assert!(refused.is_some());
        assert!(post.spilled_bytes() <= SPILL_MAX_BYTES + 2 * payload.len());
        assert!(matches!(post.put(9, &mail), Err(PostError::NoSuchSlot)));
        for end in [read, write] {
            descriptor::close(end);
        }
    }

    fn keeper(ledger: Ledger, generation: u32) -> Keeper {
        let holder = Holder { slot: 3, generation: Generation(generation) };
        Keeper { ledger, holder }
    }

    fn small(byte: u8) -> Waiting {
        Waiting { packet: vec![byte; 9], parcel: None }
    }

    fn waits(post: &Post) -> Vec<u8> {
        post.targets[0].spill.iter().map(|one| one.waiting.packet[0]).collect()
    }

    #[test]
    fn what_is_not_written_down_is_overtaken_by_nothing_that_is() {
        let ledger = Ledger::new(dunlin_table::heap_words(1 << 12));
        let (read, write) = packet::pair(64 << 10).expect("pair");
        let mut old = Post::kept(&[write], keeper(ledger, 1));
        while transmit(write, &Waiting { packet: vec![0; 2_000], parcel: None }) {}
        // As where no descriptor is left for a moment.
        let kept = old.keeper.take();
        old.send(0, small(1));
        old.keeper = kept;
        old.send(0, small(2));
        old.leave_journals(true);
        let mut next = Post::kept(&[write], keeper(ledger, 2));
        next.take_over(SlotId(3));
        for (slot, waiting) in old.spilled() {
            next.restore(slot, small(waiting.packet[0]));
        }
        assert_eq!(waits(&next), [1, 2]);
        for end in [read, write] {
            descriptor::close(end);
        }
    }

    #[test]
    fn what_follows_is_written_behind_the_youngest_file_wherever_that_came_from() {
        let ledger = Ledger::new(dunlin_table::heap_words(1 << 12));
        let (read, write) = packet::pair(64 << 10).expect("pair");
        while transmit(write, &Waiting { packet: vec![0; 2_000], parcel: None }) {}
        // Of another slot, older than what this sender has written itself, and taken over later.
        let other = Holder { slot: 4, generation: Generation(0) };
        let mut older = Journal::begin(Keeper { ledger, holder: other }, 0).expect("a memfd");
        older.append(0, &small(1)).expect("room");
        let mut old = Post::kept(&[write], keeper(ledger, 1));
        let own = Journal::begin(keeper(ledger, 1), older.age()).expect("a memfd");
        old.journals.insert(0, own);
        old.send(0, small(2));
        old.take_over(SlotId(4));
        old.send(0, small(3));
        old.leave_journals(true);
        let mut next = Post::kept(&[write], keeper(ledger, 2));
        next.take_over(SlotId(3));
        let order = waits(&next);
        let place = |byte| order.iter().position(|one| *one == byte);
        assert!(place(2) < place(3), "{order:?}");
        for end in [read, write] {
            descriptor::close(end);
        }
    }
}
