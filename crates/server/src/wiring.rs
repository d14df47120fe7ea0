//! The descriptors that all processes of a server have in common, by number: made by the master before
//! the first fork and never closed while it runs.
//!
//! Knows which process needs which; knows no protocol.

use crate::context::SendError;
use crate::sys::{descriptor, packet};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::time::Duration;

/// How long the rest of a write may wait for an added process that reads slowly.
const PROCESS_WAIT: Duration = Duration::from_millis(100);

/// The common descriptors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Wiring {
    /// The addresses listened on.
    pub(crate) addresses: Vec<SocketAddr>,
    /// By slot: one listener per address.
    pub(crate) listeners: Vec<Vec<RawFd>>,
    /// By slot: where its worker reads mail.
    pub(crate) mailboxes: Vec<RawFd>,
    /// By slot: where everybody puts mail for it.
    pub(crate) post: Vec<RawFd>,
    /// Where task processes read tasks; they all read one queue.
    pub(crate) tasks_out: Option<RawFd>,
    /// Where workers put tasks.
    pub(crate) tasks_in: Option<RawFd>,
    /// By place of an added process: its name.
    pub(crate) process_names: Vec<String>,
    /// By place of an added process: its side of its pipe.
    pub(crate) process_inner: Vec<RawFd>,
    /// By place of an added process: everybody else's side.
    pub(crate) process_outer: Vec<RawFd>,
    /// The master's process id.
    pub(crate) master_pid: u32,
}

impl Wiring {
    /// Writes into the pipe of an added process; waits at most [`PROCESS_WAIT`] where a stream took only
    /// a part.
    pub(crate) fn write_process(&self, process: &str, bytes: &[u8]) -> Result<(), SendError> {
        let place = self.process_names.iter().position(|name| name == process);
        let outer = place.and_then(|place| self.process_outer.get(place));
        let outer = *outer.ok_or(SendError::NoSuchProcess)?;
        let mut left = bytes;
        while !left.is_empty() {
            match descriptor::write(outer, left) {
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let begun = left.len() < bytes.len();
                    if !begun || !packet::wait_writable(outer, PROCESS_WAIT).unwrap_or(false) {
                        return Err(SendError::MailboxFull);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(SendError::TooLarge(bytes.len())),
            }
        }
        Ok(())
    }

    /// What a process with a table of its own keeps: everybody's mail, the task queue.
    pub(crate) fn kept_by_others(&self) -> Vec<RawFd> {
        let mut keep = self.post.clone();
        keep.extend(self.tasks_out);
        keep.extend(&self.process_outer);
        keep
    }

    /// Every number, for the ledger.
    pub(crate) fn all(&self) -> Vec<RawFd> {
        let mut all: Vec<RawFd> = self.listeners.iter().flatten().copied().collect();
        all.extend(&self.mailboxes);
        all.extend(&self.post);
        all.extend(self.tasks_out);
        all.extend(self.tasks_in);
        all.extend(&self.process_inner);
        all.extend(&self.process_outer);
        all
    }
}
