//! The descriptors that all processes of a server have in common, by number: made by the master before
//! the first fork and never closed while it runs.
//!
//! Knows which process needs which; knows no protocol.

use crate::context::SendError;
use crate::http::Door;
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
    /// The addresses listened on, for everybody.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Those for who runs the server alone.
    #[serde(default)]
    pub(crate) admin_addresses: Vec<SocketAddr>,
    /// By slot: one listener per address, of both kinds.
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
    /// What workers tell who traces by: bound to nothing, it sends to any name.
    #[serde(default)]
    pub(crate) tracer: Option<RawFd>,
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

    /// For whom the listener is that took a connection, by the address that was connected to.
    pub(crate) fn door(&self, local: SocketAddr) -> Door {
        let fits = |addresses: &[SocketAddr]| {
            let fit = |address: &SocketAddr| match address.port() == local.port() {
                true if address.ip() == local.ip() => 2,
                true if address.ip().is_unspecified() => 1,
                _ => 0,
            };
            addresses.iter().map(fit).max().unwrap_or(0)
        };
        // The kernel, too, gives a connection to the listener whose address fits best.
        match fits(&self.admin_addresses) > fits(&self.addresses) {
            true => Door::Admin,
            false => Door::Public,
        }
    }

    /// Bytes waiting in each slot's mailbox, for master and workers.
    pub(crate) fn mailbox_bytes(&self) -> Vec<u64> {
        self.mailboxes.iter().map(|end| packet::waiting_bytes(*end)).collect()
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
        all.extend(self.tracer);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_came_by_the_listener_that_fits_best() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let door = |public: &[&str], admin: &[&str], local: &str| {
            let (addresses, admin_addresses) = (addresses(public), addresses(admin));
            let wiring = Wiring { addresses, admin_addresses, ..Wiring::default() };
            wiring.door(local.parse().unwrap())
        };
        let public = ["0.0.0.0:1", "[::]:1"];
        assert_eq!(door(&public, &["127.0.0.1:2"], "127.0.0.1:2"), Door::Admin);
        assert_eq!(door(&public, &["127.0.0.1:2"], "127.0.0.1:1"), Door::Public);
        assert_eq!(door(&public, &["127.0.0.1:1"], "127.0.0.1:1"), Door::Admin);
        assert_eq!(door(&public, &["127.0.0.1:1"], "10.0.0.1:1"), Door::Public);
        assert_eq!(door(&public, &["127.0.0.1:1"], "[::1]:1"), Door::Public);
        assert_eq!(door(&["10.0.0.1:1"], &["0.0.0.0:1"], "10.0.0.1:1"), Door::Public);
        assert_eq!(door(&["10.0.0.1:1"], &["0.0.0.0:1"], "10.0.0.2:1"), Door::Admin);
        assert_eq!(door(&public, &[], "127.0.0.1:1"), Door::Public);
        assert_eq!(door(&[], &[], "127.0.0.1:9"), Door::Public);
    }
}
