//! Taking in connections of the slot's listeners.
//!
//! Knows the bounds on connections that are not open yet; knows nothing of what they will ask.

use super::Worker;
use crate::app::App;
use crate::http::{Refusal, encode_refusal};
use crate::ledger::DescriptorKind;
use crate::scoreboard::Cell;
use crate::sys::{descriptor, socket};
use std::io::IoSlice;
use std::os::fd::RawFd;
use tracing::error;

/// Connections taken in per turn, so that a storm of them does not keep others waiting.
const ACCEPTS_PER_TURN: usize = 64;

impl<A: App> Worker<'_, A> {
    /// Takes in what waits, up to the turn's share.
    pub(super) fn accept_ready(&mut self) {
        if !self.core.accept_ready || !self.core.life.accepting() {
            return;
        }
        let listeners = self.core.wiring.listeners[self.core.slot.index()].clone();
        let mut empty = 0;
        for turn in 0..ACCEPTS_PER_TURN {
            let listener = listeners[turn % listeners.len()];
            match socket::accept(listener) {
                Ok(Some(connection)) => {
                    empty = 0;
                    self.take_in(connection);
                }
                Ok(None) => empty += 1,
                Err(error) => {
                    // Out of descriptors: what waits stays in the queue until one is free.
                    error!(%error, "no connection can be taken in");
                    empty += 1;
                }
            }
            if empty >= listeners.len() {
                self.core.accept_ready = false;
                return;
            }
        }
    }

    fn take_in(&mut self, connection: RawFd) {
        let core = &mut self.core;
        core.shared.ledger.note(connection, DescriptorKind::Handshaking, core.holder);
        core.row.add(Cell::Accepted, 1);
        let Some(peer) = socket::peer(connection) else {
            core.shared.ledger.clear(connection);
            descriptor::close(connection);
            core.row.add(Cell::Closed, 1);
            return;
        };
        let open: u64 = core.shared.scoreboard.worker_sum(Cell::HttpOpen);
        if open >= u64::from(core.config.http_max_connections) {
            self.turn_away(connection);
            return;
        }
        socket::set_user_timeout(connection, core.config.tcp_user_timeout_ms);
        let mut fresh = core.connection(connection, peer);
        if let Some(http) = fresh.http_mut() {
            http.deadline = core.now + core.config.handshake_timeout_ms;
        }
        let key = core.connections.insert(fresh);
        core.http_open += 1;
        core.row.set(Cell::HttpOpen, core.http_open);
        if let Err(error) = core.watch(key) {
            error!(%error, "a connection cannot be watched");
            core.transport_lost(key);
            return;
        }
        self.hook(|app, context| app.connect(context, peer));
    }

    fn turn_away(&mut self, connection: RawFd) {
        let core = &mut self.core;
        core.row.add(Cell::HttpFull, 1);
        let mut answer = Vec::new();
        let refusal = Refusal::new(503, "http.max_connections are open").with("Retry-After", "1");
        encode_refusal(&mut answer, &refusal, false, false);
        // Best effort: there is no place to keep what the kernel does not take.
        let _ = socket::write(connection, &[IoSlice::new(&answer)]);
        socket::end_output(connection);
        core.shared.ledger.clear(connection);
        descriptor::close(connection);
        core.row.add(Cell::Closed, 1);
    }
}
