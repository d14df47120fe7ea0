//! The end of a turn: mail out, output out, state words clean, what is over closed, a share of it in a
//! turn.
//!
//! Knows the order that makes a death harmless: mail leaves first, then output; a connection is called
//! CLEAN only when both are with the kernel.

use super::Worker;
use super::connection::{Connection, Stage};
use super::core::Core;
use crate::app::{App, Closed, ClosedBy};
use crate::clock::Millis;
use crate::outbox::Crossing;
use crate::scoreboard::{Cell, End, Errand};
use crate::sessions::Service;
use crate::sys::{descriptor, socket};
use mio::unix::SourceFd;
use std::io::{self, IoSlice};

/// How long an HTTP connection that is over may take to end its half.
const LINGER_MS: u64 = 1_000;
/// From so much on the output of a connection does not wait for the end of the turn.
const SEND_EARLY_BYTES: usize = 8 << 10;
/// Connections that are closed in one turn: a close takes the kernel some 10 µs, and thousands may end at
/// once while others want to log in.
const CLOSES_PER_TURN: usize = 128;
/// Slices of one write.
const SLICES: usize = 16;

impl<A: App> Worker<'_, A> {
    /// Settles every connection touched in this turn, and those that this touches.
    pub(super) fn settle(&mut self) {
        self.save_gathered();
        loop {
            self.core.flush_mail();
            let touched = std::mem::take(&mut self.core.touched);
            if touched.is_empty() {
                self.core.marks.set();
                break;
            }
            for key in &touched {
                if let Some(connection) = self.core.connections.get_mut(*key) {
                    connection.touched = false;
                    self.core.flush_output(*key);
                    self.core.queue_late_pong(*key);
                }
            }
            self.core.marks.set();
            for key in touched {
                self.settle_one(key);
            }
        }
    }

    /// Sends much output of a connection before the next one is served: nothing is gained by waiting for
    /// more, and its buffer is still in the processor's cache when the next connection takes it.
    pub(super) fn send_early(&mut self, key: usize) {
        let much = |connection: &Connection| {
            connection.writable && connection.outbox.queued_bytes() >= SEND_EARLY_BYTES
        };
        if self.core.connections.get(key).is_some_and(much) {
            // Mail first, as at the end of the turn.
            self.core.flush_mail();
            self.core.flush_output(key);
            self.core.keep_warm(key);
        }
    }

    fn settle_one(&mut self, key: usize) {
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        linger(connection, self.core.now);
        if connection.parting {
            return;
        }
        if connection.is_over() {
            self.core.part(key);
            return;
        }
        let crossing = connection.outbox.crossing();
        // Input that is read and not served would be lost with this worker.
        let done = connection.outbox.is_empty() && connection.held.is_empty();
        if done && !connection.touched {
            self.core.keep_warm(key);
            self.core.mark(key, Service::Clean);
        }
        if let Some(crossing) = crossing
            && let Some(conn) = self.core.connections[key].conn()
        {
            self.hook_for(Errand::Buffer, Some(conn), |app, context| match crossing {
                Crossing::Full => app.buffer_full(context, conn),
                Crossing::Empty => app.buffer_empty(context, conn),
            });
        }
    }

    /// Once a turn: closes connections that are over, [`CLOSES_PER_TURN`] at most.
    pub(super) fn close_some(&mut self) {
        for _ in 0..CLOSES_PER_TURN {
            let Some(key) = self.core.parting.pop_front() else { break };
            self.finish(key);
        }
        // What their hooks have said.
        self.settle();
        if !self.core.parting.is_empty() || !self.core.ended.is_empty() {
            self.core.row.add(Cell::ClosesDelayed, 1);
        }
    }

    /// Ends a connection: `close` hook, row, descriptor, in the order that no death can confuse.
    pub(super) fn finish(&mut self, key: usize) {
        let Some(connection) = self.core.connections.get(key) else { return };
        if let Stage::Open(open) = &connection.stage {
            let (conn, announced) = (open.conn, open.announced);
            let closed = open.closing.as_ref().map_or(
                Closed { code: 1006, reason: String::new(), by: ClosedBy::Server },
                |closing| closing.closed.clone(),
            );
            if announced {
                self.hook_for(Errand::Close, Some(conn), |app, context| {
                    app.close(context, conn, &closed);
                });
            }
            let core = &mut self.core;
            core.unbind_row(conn);
            core.gatherings.forget(conn);
            core.shared.pool.free(core.shared.sessions.message_chain(conn.row()));
            core.shared.pool.free(core.shared.sessions.cut_chain(conn.row()));
            // The row first: a row must never name a number that may be another's.
            core.shared.sessions.free(conn);
            core.sessions_open = core.sessions_open.saturating_sub(1);
        } else {
            self.core.note_place_free();
        }
        self.drop_connection(key);
    }

    /// Takes a connection out of this worker and closes its descriptor.
    fn drop_connection(&mut self, key: usize) {
        let core = &mut self.core;
        let connection = core.connections.remove(key);
        core.uncount(&connection);
        if let Stage::Http(http) = &connection.stage
            && let Some(pending) = &http.pending
        {
            core.pending.remove(&pending.id);
        }
        // Before the close: another process may hold a copy for a moment, and the epoll would go on
        // telling of it.
        let _ = core.poll.registry().deregister(&mut SourceFd(&connection.descriptor));
        core.shared.ledger.clear(connection.descriptor);
        descriptor::close(connection.descriptor);
        core.row.add(Cell::Closed, 1);
        core.row.note_end(match &connection.stage {
            Stage::Http(_) => End::Plain,
            Stage::Open(open) => {
                End::Code(open.closing.as_ref().map_or(1006, |closing| closing.closed.code))
            }
        });
    }
}

impl Core {
    /// A connection is over: it is closed with this turn or one of the next. For others it is gone already.
    fn part(&mut self, key: usize) {
        self.mark_busy(key);
        let (peers, slot) = (self.shared.peers, self.slot.index());
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.parting = true;
        if std::mem::take(&mut connection.counted) {
            peers.remove(slot, connection.address);
        }
        self.parting.push_back(key);
    }

    /// Sends what was queued in this turn before its end: to whoever reads quickly, for room.
    pub(super) fn flush_touched(&mut self) {
        // Mail first, as at the end of the turn.
        self.post.flush();
        for place in 0..self.touched.len() {
            self.flush_output(self.touched[place]);
        }
        self.marks.set();
    }

    /// Sends what is queued, as far as the kernel takes it.
    pub(super) fn flush_output(&mut self, key: usize) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.outbox.is_empty() || !connection.writable {
            return;
        }
        self.mark(key, Service::Writing);
        let sent = match send_all(&mut self.connections[key]) {
            Ok(sent) => sent,
            Err(_) => {
                self.transport_lost(key);
                0
            }
        };
        self.row.add(Cell::BytesOut, sent);
        let connection = &mut self.connections[key];
        connection.half_out = !connection.outbox.is_empty() && (sent > 0 || connection.half_out);
        if !connection.half_out {
            // Nothing of the next frame is out: after this worker's death it may be closed in order.
            self.mark(key, Service::Handling);
        }
    }
}

/// A connection that has said its last word and listens no more ends its half, and waits a moment for
/// the peer's: a close with unread input would send a reset, which may overtake what was said.
fn linger(connection: &mut Connection, now: Millis) {
    if !connection.outbox.is_empty() {
        return;
    }
    let descriptor = connection.descriptor;
    match &mut connection.stage {
        Stage::Http(http) if http.ending && !http.lingering && !http.gone => {
            http.lingering = true;
            http.deadline = now + LINGER_MS;
            socket::end_output(descriptor);
        }
        Stage::Open(open) => {
            if let Some(closing) = &mut open.closing
                && closing.deaf
                && !closing.half_closed
            {
                closing.half_closed = true;
                socket::end_output(descriptor);
            }
        }
        Stage::Http(_) => {}
    }
}

/// Writes until the outbox is empty or the kernel takes no more. Gives the bytes sent.
fn send_all(connection: &mut Connection) -> io::Result<u64> {
    let mut sent = 0_u64;
    while !connection.outbox.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = connection.outbox.slices(&mut slices);
        let queued: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        match socket::write(connection.descriptor, &slices[..count]) {
            Ok(written) => {
                connection.outbox.advance(written);
                sent += u64::try_from(written).unwrap_or(0);
                if written < queued {
                    connection.writable = false;
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                connection.writable = false;
                connection.outbox.give_spare_back();
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
