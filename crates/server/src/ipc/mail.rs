//! What travels through mailboxes: a closed, versioned enum, several to a packet.
//!
//! Knows nothing of who sends or reads it. A packet is a kind byte and the time of its cause, then mails one
//! behind the other.
//! A packet too large for the socket travels as a parcel: its bytes in a memfd attached to a small
//! packet that names the connections it is for, so that the reader can mark them before it takes it.

use super::codec::{CodecError, settings};
use crate::app::{Sender, TaskFailure};
use crate::clock::Millis;
use crate::ids::{ConnId, SlotId, TaskId, TimerId};
use crate::websocket::{Opcode, REASON_MAX};
use bincode::{BorrowDecode, Decode, Encode};

/// First byte of a packet: mails follow. Raised when a mail changes its meaning.
pub(crate) const MAILS: u8 = 0x13;
/// First byte of a packet: the mails are in the attached memfd; a [`ParcelHead`] follows.
const PARCEL: u8 = 0x91;
/// Bytes of a packet before its first mail.
const HEAD_BYTES: usize = 1 + size_of::<u64>();

/// One envelope to a worker slot.
#[derive(Encode, BorrowDecode, Clone, PartialEq, Debug)]
pub(crate) enum Mail<'a> {
    /// A message for one connection.
    Deliver { to: u64, text: bool, droppable: bool, payload: &'a [u8] },
    /// A message for several connections of the slot.
    DeliverMany { to: Vec<u64>, text: bool, payload: &'a [u8] },
    /// A message for all open connections of the slot.
    Broadcast { text: bool, payload: &'a [u8] },
    /// Close a connection, behind its last words.
    Disconnect { conn: u64, last_words: Option<LastWords<'a>>, code: u16, reason: &'a str },
    /// A connection's deadline, of this value, has passed.
    Overdue { conn: u64, deadline: u64 },
    /// A timer is due.
    Timer { timer: u64, ticks: u64, due: u64 },
    /// A task is over: its result, or the code of its failure.
    Finish { task: u64, failure: u8, result: &'a [u8] },
    /// A message of the application.
    Pipe { from: WireSender, message: &'a [u8] },
    /// From the worker that has handed a connection over: the last that it sends for it.
    Moved { conn: u64 },
    /// To the home of a connection: send what is for it to the slot `to` from now on, and tell the
    /// worker that serves it.
    Recall { conn: u64, to: u16 },
    /// From the home of a connection to the worker that serves it: nothing more comes by this way, hand
    /// it over to where its route leads.
    Go { conn: u64 },
    /// Mail for a connection was lost with a worker: it must be closed, so that its client knows.
    Lost { conn: u64 },
}

/// A message before the close frame that comes with it: on its own it might arrive alone.
#[derive(Encode, BorrowDecode, Clone, Copy, PartialEq, Debug)]
pub(crate) struct LastWords<'a> {
    text: bool,
    payload: &'a [u8],
}

impl<'a> LastWords<'a> {
    /// What is to be queued.
    pub(crate) fn message(self) -> (Opcode, &'a [u8]) {
        (if self.text { Opcode::Text } else { Opcode::Binary }, self.payload)
    }
}

/// [`Sender`] on the wire.
#[derive(Encode, Decode, Clone, Copy, PartialEq, Debug)]
pub(crate) struct WireSender {
    kind: u8,
    place: u16,
}

impl From<Sender> for WireSender {
    fn from(sender: Sender) -> Self {
        match sender {
            Sender::Worker(slot) => Self { kind: 0, place: slot.0 },
            Sender::Task(place) => Self { kind: 1, place },
            Sender::Process(place) => Self { kind: 2, place },
            Sender::Master => Self { kind: 3, place: 0 },
        }
    }
}

impl From<WireSender> for Sender {
    fn from(wire: WireSender) -> Self {
        match wire.kind {
            0 => Self::Worker(SlotId(wire.place)),
            1 => Self::Task(wire.place),
            2 => Self::Process(wire.place),
            _ => Self::Master,
        }
    }
}

impl<'a> Mail<'a> {
    pub(crate) fn deliver(to: ConnId, opcode: Opcode, droppable: bool, payload: &'a [u8]) -> Self {
        Self::Deliver { to: to.to_bits(), text: opcode == Opcode::Text, droppable, payload }
    }

    pub(crate) fn deliver_many(to: &[ConnId], opcode: Opcode, payload: &'a [u8]) -> Self {
        let to = to.iter().map(|conn| conn.to_bits()).collect();
        Self::DeliverMany { to, text: opcode == Opcode::Text, payload }
    }

    pub(crate) fn broadcast(opcode: Opcode, payload: &'a [u8]) -> Self {
        Self::Broadcast { text: opcode == Opcode::Text, payload }
    }

    /// `reason` is cut to what a close frame holds.
    pub(crate) fn disconnect(
        conn: ConnId,
        last_words: Option<(Opcode, &'a [u8])>,
        code: u16,
        reason: &'a str,
    ) -> Self {
        let last_words =
            last_words.map(|(opcode, payload)| LastWords { text: opcode == Opcode::Text, payload });
        Self::Disconnect { conn: conn.to_bits(), last_words, code, reason: cut_reason(reason) }
    }

    pub(crate) fn overdue(conn: ConnId, deadline: Millis) -> Self {
        Self::Overdue { conn: conn.to_bits(), deadline: deadline.0 }
    }

    pub(crate) fn timer(timer: TimerId, ticks: u64, due: Millis) -> Self {
        Self::Timer { timer: timer.0, ticks, due: due.0 }
    }

    pub(crate) fn finish(task: TaskId, result: &'a Result<Vec<u8>, TaskFailure>) -> Self {
        match result {
            Ok(result) => Self::Finish { task: task.0, failure: 0, result },
            Err(failure) => {
                Self::Finish { task: task.0, failure: failure_code(*failure), result: &[] }
            }
        }
    }

    /// Whom the mail is for, so that the reader can mark them before it takes the packet.
    pub(crate) fn recipients(&self) -> Recipients<'_> {
        match self {
            Self::Deliver { to, .. } => Recipients::Some(std::slice::from_ref(to)),
            Self::DeliverMany { to, .. } => Recipients::Some(to),
            Self::Broadcast { .. } => Recipients::All,
            Self::Disconnect { conn, .. } | Self::Lost { conn } => {
                Recipients::Some(std::slice::from_ref(conn))
            }
            Self::Moved { conn } => Recipients::Arrived(*conn),
            Self::Go { conn } => Recipients::Leaving(*conn),
            // What dies in the reader's hands of these is told again, or not for a connection.
            Self::Recall { .. }
            | Self::Overdue { .. }
            | Self::Timer { .. }
            | Self::Finish { .. }
            | Self::Pipe { .. } => Recipients::None,
        }
    }

    /// Appends the mail to a packet, beginning one if it is empty. `cause_us` goes to its head: when the turn
    /// began in which its mails were caused, in monotonic microseconds; 0: that of the reader will do.
    pub(crate) fn append_to(&self, packet: &mut Vec<u8>, cause_us: u64) -> Result<(), CodecError> {
        if packet.is_empty() {
            packet.push(MAILS);
            packet.extend_from_slice(&cause_us.to_le_bytes());
        }
        let writer = VecWriter(packet);
        Ok(bincode::encode_into_writer(self, writer, settings())?)
    }
}

/// Connections a mail is for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Recipients<'a> {
    /// None.
    None,
    /// These.
    Some(&'a [u64]),
    /// All with their home in the slot.
    All,
    /// None, but this one has been handed over, and what it said elsewhere was read before.
    Arrived(u64),
    /// None, but this one is to be handed over, and what came for it by the old way was read before.
    Leaving(u64),
}

/// What the small packet of a parcel says.
#[derive(Encode, Decode, Clone, PartialEq, Debug, Default)]
pub(crate) struct ParcelHead {
    /// The connections it is for.
    pub(crate) recipients: Vec<u64>,
    /// It is for all connections of the slot.
    pub(crate) all: bool,
}

impl ParcelHead {
    /// The head for a mail.
    pub(crate) fn of(mail: &Mail<'_>) -> Self {
        match mail.recipients() {
            Recipients::None | Recipients::Arrived(_) | Recipients::Leaving(_) => Self::default(),
            Recipients::Some(some) => Self { recipients: some.to_vec(), all: false },
            Recipients::All => Self { recipients: Vec::new(), all: true },
        }
    }

    /// The packet that carries the parcel's memfd.
    pub(crate) fn packet(&self) -> Result<Vec<u8>, CodecError> {
        let mut packet = vec![PARCEL];
        bincode::encode_into_writer(self, VecWriter(&mut packet), settings())?;
        Ok(packet)
    }
}

/// What a packet holds.
#[derive(Debug, PartialEq)]
pub(crate) enum Packet<'a> {
    /// These mails, and when the turn began in which they were caused; see [`Mail::append_to`].
    Mails(Vec<Mail<'a>>, u64),
    /// The memfd that comes with it holds the mails.
    Parcel(ParcelHead),
}

/// Reads a packet.
///
/// # Errors
/// It is of another version, or cut.
pub(crate) fn read_packet(packet: &[u8]) -> Result<Packet<'_>, MailError> {
    match packet.split_first() {
        Some((&MAILS, _)) => {
            let (head, mut rest) = packet.split_at_checked(HEAD_BYTES).ok_or(MailError::Cut)?;
            let cause_us = head[1..].try_into().map_or(0, u64::from_le_bytes);
            let mut mails = Vec::with_capacity(1);
            while !rest.is_empty() {
                let (mail, used) = bincode::borrow_decode_from_slice(rest, settings())
                    .map_err(CodecError::from)?;
                mails.push(mail);
                rest = &rest[used..];
            }
            Ok(Packet::Mails(mails, cause_us))
        }
        Some((&PARCEL, rest)) => {
            let (head, _) =
                bincode::decode_from_slice(rest, settings()).map_err(CodecError::from)?;
            Ok(Packet::Parcel(head))
        }
        Some((&other, _)) => Err(MailError::UnknownKind(other)),
        None => Err(MailError::Empty),
    }
}

/// Whom all mails of a packet are for.
pub(crate) fn recipients_of(packet: &[u8]) -> ParcelHead {
    let mut head = ParcelHead::default();
    match read_packet(packet) {
        Ok(Packet::Parcel(head)) => return head,
        Ok(Packet::Mails(mails, _)) => {
            for mail in mails {
                let ParcelHead { recipients, all } = ParcelHead::of(&mail);
                head.recipients.extend(recipients);
                head.all |= all;
            }
        }
        // Nobody else could read it either.
        Err(_) => {}
    }
    head
}

/// Panics unless what a packet reads as is written, and read again, as the same. For the fuzzer.
#[cfg(any(test, fuzzing))]
pub fn check_packet(packet: &[u8]) {
    let again = |packet: &Packet<'_>| match packet {
        Packet::Parcel(head) => head.packet(),
        Packet::Mails(mails, cause_us) => {
            // An empty packet is none; the head alone is a packet without mails.
            let mut packet = [&[MAILS][..], &cause_us.to_le_bytes()].concat();
            mails.iter().try_for_each(|mail| mail.append_to(&mut packet, 0)).map(|()| packet)
        }
    };
    let Ok(read) = read_packet(packet) else { return };
    let written = again(&read).expect("what was read can be written");
    let reread = read_packet(&written).expect("what was written can be read");
    assert_eq!(read, reread);
    assert_eq!(again(&reread).ok(), Some(written));
}

/// A packet could not be read. It is counted and left out: mails come from our own processes only, so
/// this means that two versions of the program share one mailbox.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MailError {
    #[error("a packet of unknown kind {0:#x}: from another version of this program?")]
    UnknownKind(u8),
    #[error("an empty packet")]
    Empty,
    #[error("a packet that ends in its head")]
    Cut,
    #[error(transparent)]
    Codec(#[from] CodecError),
}

pub(crate) fn failure_code(failure: TaskFailure) -> u8 {
    match failure {
        TaskFailure::ProcessLost => 1,
        TaskFailure::TimedOut => 2,
        TaskFailure::Panicked => 3,
        TaskFailure::NoResult => 4,
        TaskFailure::Undecodable => 5,
    }
}

pub(crate) fn failure_of(code: u8) -> Option<TaskFailure> {
    match code {
        0 => None,
        1 => Some(TaskFailure::ProcessLost),
        2 => Some(TaskFailure::TimedOut),
        3 => Some(TaskFailure::Panicked),
        4 => Some(TaskFailure::NoResult),
        _ => Some(TaskFailure::Undecodable),
    }
}

/// A task on its way to a task process.
#[derive(Encode, Decode, Clone, PartialEq, Debug)]
pub(crate) struct TaskMail {
    pub(crate) task: u64,
    pub(crate) asker: u16,
    pub(crate) work: Vec<u8>,
}

/// A close reason short enough for a close frame.
pub(crate) fn cut_reason(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

struct VecWriter<'v>(&'v mut Vec<u8>);

impl bincode::enc::write::Writer for VecWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mails_of_one_packet_come_out_in_order() {
        let conn = ConnId::from_bits(7 << 32 | 1);
        let mails = [
            Mail::deliver(conn, Opcode::Text, false, b"one"),
            Mail::broadcast(Opcode::Binary, &[0, 255]),
            Mail::deliver_many(&[conn, conn], Opcode::Text, b"two"),
            Mail::disconnect(conn, None, 4002, "silent"),
            Mail::disconnect(conn, Some((Opcode::Text, b"farewell")), 4510, "replaced"),
            Mail::Pipe { from: Sender::Task(3).into(), message: b"x" },
        ];
        let mut packet = Vec::new();
        for mail in &mails {
            mail.append_to(&mut packet, 5).expect("encodes");
        }
        let Ok(Packet::Mails(read, cause_us)) = read_packet(&packet) else { panic!("mails") };
        assert_eq!((&read[..], cause_us), (&mails[..], 5));
        assert_eq!(read[0].recipients(), Recipients::Some(&[conn.to_bits()]));
        assert_eq!(read[1].recipients(), Recipients::All);
        let Mail::Disconnect { last_words, .. } = &read[4] else { panic!("a disconnect") };
        let said = last_words.map(LastWords::message);
        assert_eq!(said, Some((Opcode::Text, &b"farewell"[..])));
        assert_eq!(read[4].recipients(), read[3].recipients(), "whatever is said");
        assert!(read_packet(&packet[..packet.len() - 1]).is_err(), "cut");
        assert!(matches!(read_packet(&packet[..HEAD_BYTES - 1]), Err(MailError::Cut)));
        assert!(matches!(read_packet(&[0x77]), Err(MailError::UnknownKind(0x77))));
        assert!(matches!(read_packet(&[]), Err(MailError::Empty)));
    }

    #[test]
    fn a_parcel_names_whom_it_is_for() {
        let mail = Mail::broadcast(Opcode::Text, b"large");
        let packet = ParcelHead::of(&mail).packet().expect("encodes");
        let Ok(Packet::Parcel(head)) = read_packet(&packet) else { panic!("a parcel") };
        assert!(head.all);
    }

    proptest::proptest! {
        #[test]
        fn hostile_packets_are_read_as_they_are_written_or_not_at_all(
            kind in proptest::sample::select(&[MAILS, PARCEL, 0][..]),
            rest in proptest::collection::vec(0..=16_u8, 0..60),
        ) {
            check_packet(&[&[kind][..], &rest].concat());
        }
    }

    #[test]
    fn failures_keep_their_codes() {
        for failure in [
            TaskFailure::ProcessLost,
            TaskFailure::TimedOut,
            TaskFailure::Panicked,
            TaskFailure::NoResult,
            TaskFailure::Undecodable,
        ] {
            assert_eq!(failure_of(failure_code(failure)), Some(failure));
        }
        assert_eq!(failure_of(0), None);
    }
}
