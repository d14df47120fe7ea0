//! Taking in connections of the slot's listeners.
//!
//! Knows the bounds on connections that are not open yet; knows nothing of what they will ask.

use super::Worker;
use super::core::Core;
use crate::app::App;
use crate::http::{Refusal, encode_refusal};
use crate::ledger::DescriptorKind;
use crate::scoreboard::{Cell, End, Errand};
use crate::sys::{descriptor, socket};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

/// Connections taken in per turn, so that a storm of them does not keep others waiting.
const ACCEPTS_PER_TURN: usize = 64;

/// How long newcomers stay in the kernel's queue when all places for plain connections are taken, if none
/// is given back meanwhile; then they are turned away.
const PATIENCE_MS: u64 = 1_000;

/// Why a connection is turned away at the door, with 503.
pub(super) struct Full {
    pub(super) cell: Cell,
    pub(super) text: &'static str,
    /// In seconds.
    pub(super) retry_after: &'static str,
}

const TOO_MANY_PLAIN: Full =
    Full { cell: Cell::HttpFull, text: "http.max_connections are open", retry_after: "1" };
pub(super) const TOO_MANY_OF_ONE: Full = Full {
    cell: Cell::FullPerIp,
    text: "server.max_connections_per_ip are open",
    retry_after: "10",
};
pub(super) const TOO_FAST: Full = Full {
    cell: Cell::TooFastPerIp,
    text: "server.accept_rate_per_ip is reached",
    retry_after: "1",
};

impl Core {
    /// All places for plain connections are taken, but a moment ago some were still given back: a crowd
    /// that is being served, which waits, and no siege, which is turned away.
    fn is_crowded(&mut self) -> bool {
        let open = self.shared.scoreboard.worker_sum(Cell::HttpOpen);
        if open < u64::from(self.config.http_max_connections) {
            self.crowded_since = None;
            return false;
        }
        let since = *self.crowded_since.get_or_insert(self.now);
        self.now.since(since) < PATIENCE_MS
    }

    /// A connection is plain HTTP no more: upgraded or closed.
    pub(super) fn note_place_free(&mut self) {
        self.http_open = self.http_open.saturating_sub(1);
        self.row.set(Cell::HttpOpen, self.http_open);
        if self.crowded_since.take().is_some() {
            self.accept_ready = self.life.accepting();
        }
    }
}

impl<A: App> Worker<'_, A> {
    /// Takes in what waits, up to the turn's share.
    pub(super) fn accept_ready(&mut self) {
        if !self.core.accept_ready || !self.core.life.accepting() {
            return;
        }
        let listeners = self.core.listeners();
        let rate = self.core.config.accept_rate;
        let mut empty = 0;
        for turn in 0..ACCEPTS_PER_TURN {
            if !self.core.shared.peers.may_accept(self.core.now, rate) {
                // They wait in the kernel's queue; the next sweep looks again.
                self.core.row.add(Cell::AcceptDelayed, 1);
                self.core.accept_ready = false;
                return;
            }
            if self.core.is_crowded() {
                // As soon as a handshake is done; the next sweep looks again at the latest.
                self.core.accept_ready = false;
                return;
            }
            let listener = listeners[turn % listeners.len()];
            match socket::accept(listener) {
                Ok(Some(connection)) => {
                    empty = 0;
                    self.core.shared.peers.note_accepted(self.core.now, rate);
                    self.take_in(connection);
                }
                Ok(None) => empty += 1,
                Err(error) => {
                    // Out of descriptors: what waits stays in the queue until one is free.
                    crate::limited!(error, %error, "no connection can be taken in");
                    empty += 1;
                }
            }
            if empty >= listeners.len() {
                self.core.accept_ready = false;
                return;
            }
        }
    }

    pub(super) fn take_in(&mut self, connection: RawFd) {
        let core = &mut self.core;
        core.shared.ledger.note(connection, DescriptorKind::Handshaking, core.holder);
        core.row.add(Cell::Accepted, 1);
        let Some(peer) = socket::peer(connection) else {
            core.shared.ledger.clear(connection);
            descriptor::close(connection);
            core.row.add(Cell::Closed, 1);
            core.row.note_end(End::Plain);
            return;
        };
        if let Some(why) = self.full(peer.ip()) {
            return self.turn_away(connection, peer, &why);
        }
        let core = &mut self.core;
        socket::set_user_timeout(connection, core.config.tcp_user_timeout_ms);
        let mut fresh = core.connection(connection, peer);
        // Counted first and then looked at: two workers never let in one each where there is room for one.
        let most = u64::from(core.config.max_connections_per_ip);
        // Whose it is, and whether there is room for it, is known when the proxy has said so.
        let proxy = core.config.trusted_proxies.trusts(peer.ip());
        if most > 0 && !proxy && fresh.counted && core.shared.peers.count(fresh.address) > most {
            core.uncount(&fresh);
            return self.turn_away(connection, peer, &TOO_MANY_OF_ONE);
        }
        if let Some(http) = fresh.http_mut() {
            http.deadline = core.now + core.config.handshake_timeout_ms;
            http.begins = proxy;
        }
        let key = core.connections.insert(fresh);
        core.http_open += 1;
        core.row.set(Cell::HttpOpen, core.http_open);
        if let Err(error) = core.watch(key) {
            crate::limited!(error, %error, "a connection cannot be watched");
            core.transport_lost(key);
            return;
        }
        self.hook_for(Errand::Connect, None, |app, context| app.connect(context, peer));
    }

    /// Why a client at this address cannot be let in, but for the number of its connections.
    fn full(&self, ip: IpAddr) -> Option<Full> {
        let core = &self.core;
        if core.shared.scoreboard.worker_sum(Cell::HttpOpen)
            >= u64::from(core.config.http_max_connections)
        {
            return Some(TOO_MANY_PLAIN);
        }
        let address = core.shared.peers.address(ip);
        let rate = core.config.accept_rate_per_ip;
        let may_open = core.config.trusted_proxies.trusts(ip)
            || core.shared.peers.may_open(address, core.now, rate);
        (!may_open).then_some(TOO_FAST)
    }

    fn turn_away(&mut self, connection: RawFd, peer: SocketAddr, why: &Full) {
        crate::limited!(info, %peer, why = why.text, "a connection is turned away");
        let core = &mut self.core;
        core.row.add(why.cell, 1);
        let mut answer = Vec::new();
        let refusal = Refusal::new(503, why.text).with("Retry-After", why.retry_after);
        encode_refusal(&mut answer, &refusal, false, false);
        // Best effort: there is no place to keep what the kernel does not take.
        let _ = socket::write(connection, &[IoSlice::new(&answer)]);
        // What came already is read, so that the close is no reset that overtakes the answer.
        let _ = socket::read(connection, &mut core.read_buffer);
        socket::end_output(connection);
        core.shared.ledger.clear(connection);
        descriptor::close(connection);
        core.row.add(Cell::Closed, 1);
        core.row.note_end(End::Plain);
    }
}
