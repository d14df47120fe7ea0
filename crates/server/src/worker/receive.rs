//! Reading: bytes of the kernel to messages of the application.
//!
//! Knows where half-received bytes lie between turns; the rules of the protocol are
//! [`crate::websocket`]'s. One buffer serves all connections of the worker.

use super::Worker;
use super::connection::{OpenStage, Stage};
use crate::app::{App, Closed, ClosedBy, Message};
use crate::ids::ConnId;
use crate::scoreboard::{Cell, Errand};
use crate::sys::socket;
use crate::websocket::{Event, Opcode, Violation};
use dunlin_table::PoolError;
use std::io;
use std::mem;
use tracing::debug;

/// Most bytes read at once from a connection, beside what is missing of the frame under way: enough to
/// batch, little enough that a busy connection gives way to others soon.
const READ_SMALL_BYTES: usize = 32 << 10;

/// Bytes that compressed frames of a connection may inflate to before the others have their turn: some
/// hundred bytes of a frame can make a megabyte.
const INFLATED_PER_TURN_BYTES: u64 = 256 << 10;

/// Reads before a client is judged; one that keeps sending longer is not silent.
const READS_BEFORE_JUDGING: usize = 8;

/// Whether a connection may have more to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reading {
    /// There may be more; it is served again in the next turn.
    More,
    /// Nothing more for now.
    Drained,
}

/// How many bytes were served.
enum Taken {
    /// All whole frames; what is behind them is one that is cut.
    All(usize),
    /// As many frames as one turn takes; behind them may be more.
    Share(usize),
}

impl<A: App> Worker<'_, A> {
    /// Reads from a connection once, and serves what came.
    pub(super) fn serve_readable(&mut self, key: usize) -> Reading {
        let mut buffer = mem::take(&mut self.core.read_buffer);
        let reading = match self.core.connections.get(key).map(|connection| &connection.stage) {
            Some(Stage::Open(open)) if open.arriving => Reading::Drained,
            Some(Stage::Open(_)) => self.read_open(key, &mut buffer),
            Some(Stage::Http(_)) => self.read_http(key, &mut buffer),
            None => Reading::Drained,
        };
        self.core.read_buffer = buffer;
        reading
    }

    /// Reads what a client has sent so far, before it is closed for what has not come: this worker may
    /// have been the one that was late.
    pub(super) fn read_before_judging(&mut self, key: usize, conn: ConnId) {
        for _ in 0..READS_BEFORE_JUDGING {
            if self.serve_readable(key) == Reading::Drained || self.core.key_of(conn).is_none() {
                return;
            }
        }
    }

    fn read_open(&mut self, key: usize, buffer: &mut [u8]) -> Reading {
        self.core.touch(key);
        if !self.core.connections[key].held.is_empty() {
            let mut held = mem::take(&mut self.core.connections[key].held);
            self.take_bytes(key, &mut held);
            return Reading::More;
        }
        if let Some(reading) = self.go_on_gathering(key) {
            return reading;
        }
        let held = self.take_cut(key, buffer);
        let missing =
            self.core.connections[key].open().map_or(0, |o| o.progress.frame_bytes_left());
        let missing = usize::try_from(missing).unwrap_or(usize::MAX);
        let room = missing.saturating_add(READ_SMALL_BYTES).min(buffer.len());
        let (reading, length) = self.read_into(key, &mut buffer[held..room]);
        if length > 0 {
            self.take_bytes(key, &mut buffer[..held + length]);
            if let Some(reading) = self.go_on_gathering(key) {
                return reading;
            }
        } else if held > 0
            && let Some(conn) = self.core.connections[key].conn()
        {
            // Looked at, and nothing new: no sign of life.
            self.save_rest(key, conn, &buffer[..held]);
        }
        reading
    }

    /// One read. The transport's end is noted; gives whether there may be more, and how much came.
    pub(super) fn read_into(&mut self, key: usize, room: &mut [u8]) -> (Reading, usize) {
        let now = self.core.now;
        let connection = &mut self.core.connections[key];
        match socket::read(connection.descriptor, room) {
            Ok(0) => {
                match &mut connection.stage {
                    // It may have ended its half only, and wait for its answers.
                    Stage::Http(http) => {
                        http.gone = true;
                        http.ending |= http.pending.is_none();
                    }
                    Stage::Open(_) => self.core.transport_lost(key),
                }
                (Reading::Drained, 0)
            }
            Ok(length) => {
                connection.last_read = now;
                // A short read has emptied the socket, but for the end of the stream behind it.
                let more = length == room.len() || connection.peer_ended;
                self.core.row.add(Cell::BytesIn, u64::try_from(length).unwrap_or(0));
                (if more { Reading::More } else { Reading::Drained }, length)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (Reading::Drained, 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (Reading::More, 0),
            Err(error) => {
                // What `server.tcp_user_timeout` ends.
                let dead = error.kind() == io::ErrorKind::TimedOut;
                self.core.row.add(Cell::DeadClosed, u64::from(dead));
                debug!(%error, peer = %connection.peer, "a connection broke");
                self.core.transport_lost(key);
                (Reading::Drained, 0)
            }
        }
    }

    /// Serves bytes of a WebSocket; what is not a whole frame yet goes to the pool.
    pub(super) fn take_bytes(&mut self, key: usize, bytes: &mut [u8]) {
        let Some(open) = self.core.connections[key].open_mut() else { return };
        if open.is_deaf() {
            return;
        }
        let conn = open.conn;
        open.pinged = None;
        match self.take_events(key, conn, bytes) {
            Ok(Taken::All(taken)) => {
                self.note_life(key, conn);
                self.save_rest(key, conn, &bytes[taken..]);
            }
            Ok(Taken::Share(taken)) => {
                self.note_life(key, conn);
                self.save_rest(key, conn, &[]);
                self.hold(key, &bytes[taken..]);
            }
            Err(violation) => self.refuse(key, violation),
        }
    }

    /// Keeps bytes for the next turn: this one has served enough frames of the connection.
    fn hold(&mut self, key: usize, rest: &[u8]) {
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        if rest.is_empty() || connection.open().is_none_or(OpenStage::is_deaf) {
            return;
        }
        connection.held = rest.to_vec();
        self.core.row.add(Cell::TurnsFull, 1);
        self.core.make_ready(key);
    }

    fn take_events(
        &mut self,
        key: usize,
        conn: ConnId,
        bytes: &mut [u8],
    ) -> Result<Taken, Violation> {
        let mut limits = self.core.limits;
        let mut at = 0;
        let inflated_most = self.core.compression.inflated_bytes() + INFLATED_PER_TURN_BYTES;
        for _ in 0..self.core.config.frames_per_turn {
            if self.core.compression.inflated_bytes() > inflated_most {
                break;
            }
            let Some(open) = self.core.connections.get_mut(key).and_then(|c| c.open_mut()) else {
                return Ok(Taken::All(bytes.len()));
            };
            limits.may_compress = open.agreement.is_some();
            let closing = open.closing.is_some();
            let (used, event) = open.progress.next(&mut bytes[at..], &limits)?;
            at += used;
            if used > 0 && open.progress.is_idle() {
                // What follows is another message, and has its own time.
                open.began = None;
            }
            match event {
                Event::Incomplete => return Ok(Taken::All(at)),
                Event::Close { code, reason } => {
                    self.peer_closes(key, code, reason);
                    return Ok(Taken::All(bytes.len()));
                }
                // Our close frame is out: the peer may still be sending, nobody listens.
                _ if closing => {}
                Event::Ping(payload) => self.core.answer_ping(key, payload),
                Event::Pong(_) => {}
                Event::Data { opcode, start: true, finish: true, compressed, payload, .. } => {
                    self.deliver_whole(key, conn, opcode, compressed, payload)?;
                }
                Event::Data { opcode, finish: true, compressed, payload, .. } => {
                    self.take_last_piece(key, conn, opcode, compressed, payload)?;
                }
                Event::Data { start, compressed, payload, .. } => {
                    let gathers = start && !compressed;
                    if !(gathers && self.begin_gathering(key, conn, payload)) {
                        self.keep_piece(key, conn, payload);
                    }
                }
            }
        }
        Ok(Taken::Share(at))
    }

    /// A piece of a message, kept in the pool until the last one comes. False: it is refused.
    pub(super) fn keep_piece(&mut self, key: usize, conn: ConnId, payload: &[u8]) -> bool {
        let core = &mut self.core;
        let chain = core.shared.sessions.message_chain(conn.row());
        let limits = core.receive_limits.message(core.connections[key].address);
        let kept = core.shared.pool.append(chain, conn.row(), payload, limits);
        kept.map_err(|error| self.pool_refuses(key, error)).is_ok()
    }

    /// The last piece of a message, whose other pieces lie in the pool.
    fn take_last_piece(
        &mut self,
        key: usize,
        conn: ConnId,
        opcode: Opcode,
        compressed: bool,
        payload: &[u8],
    ) -> Result<(), Violation> {
        let core = &mut self.core;
        let chain = core.shared.sessions.message_chain(conn.row());
        let mut message = mem::take(&mut core.message_buffer);
        message.clear();
        core.shared.pool.read_into(chain, &mut message);
        core.shared.pool.free(core.shared.sessions.message_chain(conn.row()));
        message.extend_from_slice(payload);
        let delivered = self.deliver_whole(key, conn, opcode, compressed, &message);
        self.core.message_buffer = message;
        delivered
    }

    fn deliver_whole(
        &mut self,
        key: usize,
        conn: ConnId,
        opcode: Opcode,
        compressed: bool,
        payload: &[u8],
    ) -> Result<(), Violation> {
        if compressed {
            return self.deliver_compressed(key, conn, opcode, payload);
        }
        self.deliver_message(key, conn, opcode, payload);
        Ok(())
    }

    fn pool_refuses(&mut self, key: usize, error: PoolError) {
        let (code, reason, cell) = match error {
            PoolError::ChainFull => (1009, "the message is too large", None),
            PoolError::GroupFull { .. } => {
                let reason = "too many unfinished messages of this address";
                (1013, reason, Some(Cell::PoolShareFull))
            }
            PoolError::KeptForShort { .. } | PoolError::PoolFull => {
                (1013, "too many unfinished messages: try again later", Some(Cell::PoolFull))
            }
        };
        if let Some(cell) = cell {
            self.core.row.add(cell, 1);
        }
        let closed = Closed { code, reason: reason.into(), by: ClosedBy::Server };
        self.core.close_by_engine(key, closed);
    }

    pub(super) fn deliver_message(
        &mut self,
        key: usize,
        conn: ConnId,
        opcode: Opcode,
        payload: &[u8],
    ) {
        self.core.row.add(Cell::MessagesIn, 1);
        self.core.served += 1;
        let message = match opcode {
            Opcode::Binary => Message::Binary(payload),
            Opcode::Text => match simdutf8::basic::from_utf8(payload) {
                Ok(text) => Message::Text(text),
                // The receiver has checked every piece; this would be its bug, and costs one client.
                Err(_) => return self.core.transport_lost(key),
            },
        };
        let called = self.hook_for(Errand::Message, Some(conn), |app, context| {
            app.message(context, conn, message);
        });
        if called.is_none() {
            self.close_after_panic(key);
        }
    }

    /// A hook of this connection panicked.
    pub(super) fn close_after_panic(&mut self, key: usize) {
        let reason = "internal error".into();
        self.core.close_by_engine(key, Closed { code: 1011, reason, by: ClosedBy::Server });
    }

    /// The peer's close frame: answered with the same code, or it answers ours.
    fn peer_closes(&mut self, key: usize, code: Option<u16>, reason: &str) {
        let closed =
            Closed { code: code.unwrap_or(1005), reason: reason.to_owned(), by: ClosedBy::Client };
        if let Some(closing) =
            self.core.connections[key].open_mut().and_then(|open| open.closing.as_mut())
        {
            closing.answered = true;
            return;
        }
        self.core.begin_close(key, closed);
    }

    pub(super) fn refuse(&mut self, key: usize, violation: Violation) {
        self.core.row.add(Cell::Violations, 1);
        let peer = self.core.connections[key].peer;
        crate::limited!(info, %peer, %violation, "a client breaks the protocol");
        let already = self.core.connections[key]
            .open_mut()
            .and_then(|open| open.closing.as_mut())
            .map(|closing| closing.answered = true);
        if already.is_none() {
            let closed = Closed {
                code: violation.code.0,
                reason: violation.reason.to_owned(),
                by: ClosedBy::Server,
            };
            self.core.close_deaf(key, closed);
        }
    }

    /// Every frame counts as life: two stores, no call to the kernel.
    pub(super) fn note_life(&mut self, key: usize, conn: ConnId) {
        if let Some(open) = self.core.connections[key].open() {
            self.core.shared.sessions.touch(conn, self.core.now, open.heartbeat_ms);
        }
    }

    /// Takes the bytes of a cut header or control frame back in front of the buffer.
    fn take_cut(&mut self, key: usize, buffer: &mut [u8]) -> usize {
        let core = &mut self.core;
        let Some(open) = core.connections[key].open_mut() else { return 0 };
        if !mem::take(&mut open.has_cut) {
            return 0;
        }
        let mut cut = Vec::new();
        core.shared.pool.read_into(core.shared.sessions.cut_chain(open.conn.row()), &mut cut);
        core.shared.pool.free(core.shared.sessions.cut_chain(open.conn.row()));
        let length = cut.len().min(buffer.len());
        buffer[..length].copy_from_slice(&cut[..length]);
        length
    }

    /// Puts what is half received where a successor finds it: the progress into the row, the bytes of
    /// a cut header or control frame into the pool.
    pub(super) fn save_rest(&mut self, key: usize, conn: ConnId, rest: &[u8]) {
        let core = &mut self.core;
        let Some(connection) = core.connections.get_mut(key) else { return };
        let limits = core.receive_limits.cut(connection.address);
        let Some(open) = connection.open_mut() else { return };
        core.shared.sessions.set_progress(conn, open.progress);
        let half = !rest.is_empty() || !open.progress.is_idle();
        open.began = half.then(|| open.began.unwrap_or(core.now));
        core.shared.sessions.set_message_began(conn, open.began);
        if rest.is_empty() || open.is_deaf() {
            return;
        }
        let chain = core.shared.sessions.cut_chain(conn.row());
        match (core.shared.pool.append(chain, conn.row(), rest, limits), &mut open.closing) {
            (Ok(()), _) => open.has_cut = true,
            // It is closing anyway; what follows the lost bytes could not be understood.
            (Err(_), Some(closing)) => closing.deaf = true,
            (Err(error), None) => self.pool_refuses(key, error),
        }
    }
}
