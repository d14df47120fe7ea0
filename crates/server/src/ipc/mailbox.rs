//! Reading a slot's mailbox: peek, ask whether it may be taken, mark, take.
//!
//! Knows packets, not connections: the [`Reader`] is shown whom a packet is for before the packet is
//! taken out of the socket, so that what dies in this process's hands is known to be lost, and so that
//! it can be left where it is.

use super::mail::{self, Mail, Packet, Recipients};
use crate::sys::descriptor;
use crate::sys::packet::{self, Received};
use std::os::fd::RawFd;
use tracing::error;

/// Longest packet a mailbox holds; [`super::post`] sends none longer.
const BUFFER_BYTES: usize = 80 << 10;

/// A mailbox in the hands of its slot's worker.
#[derive(Debug)]
pub(crate) struct Mailbox {
    read_end: RawFd,
    buffer: Vec<u8>,
    /// The packet taken last, for [`Mailbox::mails`].
    length: usize,
    parcel: Option<Vec<u8>>,
}

/// Who decides about a packet before it is taken.
pub(crate) trait Reader {
    /// Whether what is for these may be taken now.
    fn may_take(&mut self, recipients: Recipients<'_>) -> bool;
    /// A packet for these is about to be taken.
    fn mark(&mut self, recipients: Recipients<'_>);
}

/// What a take gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// A packet; [`Mailbox::mails`] reads it.
    Packet,
    /// The reader does not take the next packet now: it is still there.
    NotNow,
    /// A packet that could not be read: left out.
    Unreadable,
    /// A parcel whose content is gone: those it was for must be told by a close.
    Lost,
    /// The mailbox is empty.
    Nothing,
}

impl Mailbox {
    /// A mailbox over its read end.
    pub(crate) fn new(read_end: RawFd) -> Self {
        Self { read_end, buffer: vec![0; BUFFER_BYTES], length: 0, parcel: None }
    }

    /// Takes the next packet, after the reader was shown whom it is for.
    pub(crate) fn take_next(&mut self, reader: &mut impl Reader) -> Taken {
        self.parcel = None;
        self.length = match packet::peek(self.read_end, &mut self.buffer) {
            Ok(Received::Packet(length)) => length,
            Ok(Received::Cut) => {
                error!("a packet longer than {BUFFER_BYTES} bytes was left out of a mailbox");
                return self.discard();
            }
            Ok(Received::Nothing | Received::End) => return Taken::Nothing,
            Err(error) => {
                error!(%error, "the mailbox cannot be read");
                return Taken::Nothing;
            }
        };
        let whole;
        let all: Vec<Recipients<'_>> = match mail::read_packet(&self.buffer[..self.length]) {
            Ok(packet) => {
                whole = packet;
                match &whole {
                    Packet::Mails(mails, _) => mails.iter().map(Mail::recipients).collect(),
                    Packet::Parcel(head) if head.all => vec![Recipients::All],
                    Packet::Parcel(head) => vec![Recipients::Some(&head.recipients)],
                }
            }
            Err(error) => {
                error!(%error, "a packet was left out of a mailbox");
                return self.discard();
            }
        };
        if !all.iter().all(|recipients| reader.may_take(*recipients)) {
            self.length = 0;
            return Taken::NotNow;
        }
        all.into_iter().for_each(|recipients| reader.mark(recipients));
        let is_parcel = matches!(whole, Packet::Parcel(_));
        self.take_away(is_parcel)
    }

    /// The mails of the packet taken last, and when the turn began that caused them; 0: not told.
    pub(crate) fn mails(&self) -> (Vec<Mail<'_>>, u64) {
        let packet = self.parcel.as_deref().unwrap_or(&self.buffer[..self.length]);
        match mail::read_packet(packet) {
            Ok(Packet::Mails(mails, cause_us)) => (mails, cause_us),
            _ => (Vec::new(), 0),
        }
    }

    fn take_away(&mut self, is_parcel: bool) -> Taken {
        match packet::take(self.read_end) {
            Ok(None) if is_parcel => {
                error!("a parcel came without its content: out of descriptors?");
                Taken::Lost
            }
            Ok(None) => Taken::Packet,
            Ok(Some(memfd)) => {
                let parcel = descriptor::read_memfd(memfd);
                descriptor::close(memfd);
                match parcel {
                    Ok(bytes) => {
                        self.parcel = Some(bytes);
                        Taken::Packet
                    }
                    Err(error) => {
                        error!(%error, "a parcel cannot be read");
                        Taken::Lost
                    }
                }
            }
            Err(error) => {
                error!(%error, "a packet cannot be taken out of the mailbox");
                Taken::Nothing
            }
        }
    }

    fn discard(&mut self) -> Taken {
        self.length = 0;
        if let Ok(Some(memfd)) = packet::take(self.read_end) {
            descriptor::close(memfd);
        }
        Taken::Unreadable
    }
}
