//! The pipe between the master and one child: control only, made anew at each start.
//!
//! Knows the closed set of control messages and their version; decides nothing. Neither end stops
//! reading because it cannot write: what the other side does not take waits in a bounded backlog, and
//! a child at the master's bound is killed as stuck.

use super::codec::settings;
use crate::app::Adoption;
use crate::context::MasterDeed;
use crate::sys::packet::{self, Received};
use bincode::{Decode, Encode};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

/// First byte of a control packet. Raised when a message changes its meaning.
const VERSION: u8 = 1;
/// The most messages that wait for one other side.
const BACKLOG_MAX: usize = 64;
/// Room for the longest control message: an error sentence.
const BUFFER_BYTES: usize = 8 << 10;
/// Longest sentence a control message carries.
const SENTENCE_MAX: usize = 4 << 10;

/// How long a process beside the workers that got SIGTERM waits before it asks to be replaced. A signal to
/// the whole group comes to the master as well, in any order, which then stops everybody in its own.
pub(crate) const TERM_PATIENCE_MS: u64 = 100;

/// Master and child, to each other.
#[derive(Encode, Decode, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Control {
    /// To a worker: stop reading, put what is left where the successor, of this generation, finds it.
    Rest { successor: u32 },
    /// To a worker at rest: the successor failed, go on.
    Resume,
    /// To a prepared worker: the slot is yours; adopt what belongs to it. `rest` is the memfd of what
    /// the predecessor left.
    Commit { rest: Option<i32>, why: WireAdoption, empty: bool },
    /// To any child: the slot is a successor's, leave.
    Leave,
    /// To any child: the server stops; leave within this time. A worker tells its clients within
    /// `tell_ms`.
    Stop { timeout_ms: u64, tell_ms: u64 },
    /// To any child with a descriptor table of its own: open the log anew.
    ReopenLog,
    /// From a child: `worker_start` is done.
    Prepared,
    /// From a child: `worker_start` failed.
    PrepareFailed { sentence: String },
    /// From a worker: it rests for this successor; `rest` is the memfd of what is left.
    Rested { successor: u32, rest: Option<i32>, connections: u32 },
    /// From a worker: it serves.
    Ready { adopted: u32, lost: u32 },
    /// From a child: the application asks for this.
    Ask(WireDeed),
    /// From a worker: it has served `server.max_request` messages, or got SIGTERM; replace it.
    Recycle,
    /// From a worker: it cannot rest for this successor, and waits for [`Self::Resume`].
    RestFailed { successor: u32, sentence: String },
    /// To a worker: give so many of your connections to the worker of another slot, in this time.
    Move { id: u32, to: u16, count: u32, within_ms: u64 },
    /// From a worker: so many went; these did not: plain HTTP, those with unsent output, others. `pending`
    /// of them may still go, when their homes answer.
    MoveDone { id: u32, moved: u32, pending: u32, http: u32, unsent: u32, other: u32 },
    /// To a worker that serves: serve this slot, too, whose own worker does not come up. `rest` is the
    /// memfd of what whoever stood in before has left.
    StandIn { slot: u16, rest: Option<i32>, why: WireAdoption },
    /// From a worker: it serves that slot.
    StoodIn { slot: u16, adopted: u32, lost: u32 },
    /// To a worker: give that slot back.
    StandDown { slot: u16 },
    /// From a worker: it serves that slot no more, or never did; `rest` is the memfd of what is left.
    StoodDown { slot: u16, rest: Option<i32> },
}

/// [`Adoption`] on the wire.
#[derive(Encode, Decode, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WireAdoption {
    Reload,
    Crash,
    /// A reload for the application: another slot's worker has served meanwhile, and has laid it down.
    GivenBack,
}

impl From<WireAdoption> for Adoption {
    fn from(wire: WireAdoption) -> Self {
        match wire {
            WireAdoption::Reload | WireAdoption::GivenBack => Self::Reload,
            WireAdoption::Crash => Self::Crash,
        }
    }
}

/// [`MasterDeed`] on the wire.
#[derive(Encode, Decode, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WireDeed {
    Reload,
    Shutdown,
}

impl From<MasterDeed> for WireDeed {
    fn from(deed: MasterDeed) -> Self {
        match deed {
            MasterDeed::Reload => Self::Reload,
            MasterDeed::Shutdown => Self::Shutdown,
        }
    }
}

impl From<WireDeed> for MasterDeed {
    fn from(wire: WireDeed) -> Self {
        match wire {
            WireDeed::Reload => Self::Reload,
            WireDeed::Shutdown => Self::Shutdown,
        }
    }
}

/// One end of a pipe.
#[derive(Debug)]
pub(crate) struct Pipe {
    end: RawFd,
    backlog: VecDeque<Vec<u8>>,
}

/// The other side does not read.
#[derive(Debug, thiserror::Error)]
#[error("{BACKLOG_MAX} control messages wait for a process that does not read")]
pub(crate) struct Stuck;

impl Pipe {
    /// An end, which the caller closes.
    pub(crate) fn new(end: RawFd) -> Self {
        Self { end, backlog: VecDeque::new() }
    }

    /// The end to watch.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.end
    }

    /// Sends a message, or lets it wait behind those that wait.
    pub(crate) fn send(&mut self, message: &Control) -> Result<(), Stuck> {
        let mut bytes = vec![VERSION];
        match bincode::encode_to_vec(message, settings()) {
            Ok(encoded) => bytes.extend(encoded),
            // A closed enum of numbers and strings always encodes.
            Err(error) => unreachable!("a control message does not encode: {error}"),
        }
        self.backlog.push_back(bytes);
        self.retry();
        if self.backlog.len() > BACKLOG_MAX { Err(Stuck) } else { Ok(()) }
    }

    /// Sends what waits, as far as the other side takes it.
    pub(crate) fn retry(&mut self) {
        while let Some(first) = self.backlog.front() {
            match packet::send_packet(self.end, first) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Taken, or the other side is gone and nobody will miss it.
                Ok(()) | Err(_) => self.backlog.pop_front(),
            };
        }
    }

    /// The next message. `None`: none is there now.
    pub(crate) fn receive(&mut self) -> Option<Control> {
        let mut buffer = [0; BUFFER_BYTES];
        loop {
            let length = match packet::receive(self.end, &mut buffer) {
                Ok(Received::Packet(length)) => length,
                Ok(Received::Cut) => continue,
                Ok(Received::Nothing | Received::End) | Err(_) => return None,
            };
            match buffer[..length].split_first() {
                Some((&VERSION, rest)) => match bincode::decode_from_slice(rest, settings()) {
                    Ok((message, _)) => return Some(message),
                    Err(error) => tracing::error!(%error, "a control message was left out"),
                },
                _ => tracing::error!("a control message of another version was left out"),
            }
        }
    }
}

/// Panics unless what bytes read as is written, and read again, as the same. For the fuzzer.
#[cfg(fuzzing)]
pub fn check_control(bytes: &[u8]) {
    let read = |bytes: &[u8]| bincode::decode_from_slice::<Control, _>(bytes, settings());
    let Ok((message, _)) = read(bytes) else { return };
    let written =
        bincode::encode_to_vec(&message, settings()).expect("what was read can be written");
    let (again, used) = read(&written).expect("what was written can be read");
    assert_eq!((again, used), (message, written.len()));
}

/// A sentence short enough for a control message.
pub(crate) fn cut_sentence(sentence: &str) -> String {
    let mut end = sentence.len().min(SENTENCE_MAX);
    while !sentence.is_char_boundary(end) {
        end -= 1;
    }
    sentence[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::descriptor;

    #[test]
    fn messages_arrive_in_order_and_a_deaf_side_is_noticed() {
        let (a, b) = packet::pair(32 << 10).expect("pair");
        let (mut ours, mut theirs) = (Pipe::new(a), Pipe::new(b));
        let failed = Control::PrepareFailed { sentence: cut_sentence(&"é".repeat(5000)) };
        ours.send(&failed).expect("room");
        let rested = Control::Rested { successor: 2, rest: Some(9), connections: 3 };
        ours.send(&rested).expect("room");
        assert_eq!(theirs.receive(), Some(failed));
        assert_eq!(theirs.receive(), Some(rested));
        assert_eq!(theirs.receive(), None);
        let stuck = (0..100_000).find(|_| ours.send(&Control::Leave).is_err());
        assert!(stuck.is_some(), "a backlog has an end");
        while theirs.receive().is_some() {
            ours.retry();
        }
        ours.send(&Control::Resume).expect("room again");
        descriptor::close(a);
        assert_eq!(theirs.receive(), Some(Control::Resume));
        assert_eq!(theirs.receive(), None, "the end is quiet");
        descriptor::close(b);
    }
}
