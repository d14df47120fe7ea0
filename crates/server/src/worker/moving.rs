//! Connections that change their worker while they are open.
//!
//! Knows how one is let go of and how one is taken up; decides nothing about who goes where.
//! Invariants: 1. What is let go of stays open: its descriptor, its row and what lies in the pool are
//! the next owner's. 2. Whoever's row names this slot as owner is taken up at most once.

use super::Worker;
use super::core::Core;
use super::leftover::Leftover;
use crate::app::{Adoption, App};
use crate::ids::ConnId;
use crate::scoreboard::Cell;
use crate::sessions::{Phase, Service};
use mio::unix::SourceFd;

impl Core {
    /// Forgets a WebSocket without closing it. Nothing of it may be in this worker's hands: no output, no
    /// input that is read and not served, no place in the lists of the turn.
    pub(super) fn let_go(&mut self, key: usize) {
        self.keep_warm(key);
        let connection = self.connections.remove(key);
        debug_assert!(connection.outbox.is_empty() && !connection.touched && !connection.queued);
        // It fails only where it is not registered, which is what is wanted.
        let _ = self.poll.registry().deregister(&mut SourceFd(&connection.descriptor));
        self.uncount(&connection);
        if let Some(conn) = connection.conn() {
            self.gatherings.forget(conn);
            self.unbind_row(conn);
            self.sessions_open = self.sessions_open.saturating_sub(1);
        }
    }
}

impl<A: App> Worker<'_, A> {
    /// Where the connection is in this worker; takes it up if its row names this slot as owner and it is
    /// not here yet. `None`: it is not this worker's, is over, or something of it is in other hands.
    pub(super) fn take_up_row(&mut self, conn: ConnId, why: Adoption) -> Option<usize> {
        if let Some(key) = self.core.key_of(conn) {
            return Some(key);
        }
        let sessions = &self.core.shared.sessions;
        let ours = sessions.owner(conn) == Some(self.core.slot)
            && sessions.phase(conn) == Some(Phase::Open)
            && sessions.service(conn) == Some(Service::Clean);
        if !ours {
            return None;
        }
        self.adopt_session(conn, &Leftover::default(), why);
        self.core.row.add(Cell::MovedIn, 1);
        self.core.key_of(conn)
    }
}
