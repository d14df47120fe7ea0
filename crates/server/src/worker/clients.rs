//! Whose a connection is: the address it counts for, and the door it came by.
//!
//! Invariant: a connection that is counted is counted for `Connection::address`, once.

use super::accept::{Full, TOO_FAST, TOO_MANY_OF_ONE};
use super::connection::Connection;
use super::core::{CONTROL_ROOM_BYTES, Core};
use crate::http::Door;
use crate::sys::socket;
use std::net::SocketAddr;
use std::os::fd::RawFd;

impl Core {
    /// A connection with an outbox of the configured size, counted among those of its client.
    pub(super) fn connection(&self, descriptor: RawFd, peer: SocketAddr) -> Connection {
        let outbox_bytes = self.config.send_buffer_bytes + CONTROL_ROOM_BYTES;
        let address = self.shared.peers.address(peer.ip());
        let mut connection = Connection::new(descriptor, peer, address, outbox_bytes, self.now);
        connection.outbox = connection.outbox.counted_in(&self.load);
        connection.counted = self.shared.peers.add(self.slot.index(), address);
        if !self.wiring.admin_addresses.is_empty() {
            let local = socket::local(descriptor);
            connection.door = local.map_or(Door::Public, |local| self.wiring.door(local));
        }
        connection
    }

    /// From now on a connection is another client's, as a trusted proxy says. An error: there is no
    /// room for that one, as at the door, and nothing has changed.
    pub(super) fn count_as(&mut self, key: usize, client: SocketAddr) -> Result<(), &'static Full> {
        let peers = self.shared.peers;
        let (slot, address) = (self.slot.index(), peers.address(client.ip()));
        let most = u64::from(self.config.max_connections_per_ip);
        let proxy = self.config.trusted_proxies.trusts(client.ip());
        if !proxy && !peers.may_open(address, self.now, self.config.accept_rate_per_ip) {
            return Err(&TOO_FAST);
        }
        let counted = peers.add(slot, address);
        // Counted first and then looked at, as at the door.
        if !proxy && most > 0 && counted && peers.count(address) > most {
            peers.remove(slot, address);
            return Err(&TOO_MANY_OF_ONE);
        }
        self.uncount(&self.connections[key]);
        let connection = &mut self.connections[key];
        (connection.peer, connection.address, connection.counted) = (client, address, counted);
        Ok(())
    }

    /// A connection is no more: its client has one less.
    pub(super) fn uncount(&self, connection: &Connection) {
        if connection.counted {
            self.shared.peers.remove(self.slot.index(), connection.address);
        }
    }
}
