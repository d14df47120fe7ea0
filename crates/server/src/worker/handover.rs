//! Resting and adopting: what a worker leaves to its successor, and how a successor takes over.
//!
//! Knows what lies where: rows, pool and listener need nothing; unsent output, HTTP connections and
//! mail that waits go through a memfd. Invariants: 1. A resting worker keeps its own state as it was,
//! so that it can go on if the successor fails. 2. After the commit it touches nothing.

use super::Worker;
use super::connection::{Closing, HttpStage, OpenStage, Pending, Stage};
use super::core::Core;
use crate::app::{Adoption, App, Closed, ClosedBy};
use crate::clock::Millis;
use crate::ids::ConnId;
use crate::ipc::codec;
use crate::ipc::post::Waiting;
use crate::ledger::DescriptorKind;
use crate::scoreboard::Cell;
use crate::sessions::{Phase, Service};
use crate::sys::{descriptor, socket};
use crate::websocket::{FrameKind, encode_frame};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use tracing::error;

/// What does not fit into rows and pool, at rest.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Leftover {
    http: Vec<HttpLeftover>,
    outputs: Vec<OutputLeftover>,
    mail: Vec<(usize, Vec<Waiting>)>,
}

/// A connection without a row.
#[derive(Debug, Serialize, Deserialize)]
struct HttpLeftover {
    descriptor: RawFd,
    peer: SocketAddr,
    input: Vec<u8>,
    output: Vec<u8>,
    deadline: Millis,
    pending: Option<Pending>,
    ending: bool,
}

/// A WebSocket whose output is not all with the kernel, whose input is not all served, or that is
/// closing.
#[derive(Debug, Serialize, Deserialize)]
struct OutputLeftover {
    conn: ConnId,
    output: Vec<u8>,
    /// Read, and not served yet.
    input: Vec<u8>,
    /// The output begins in the middle of a frame.
    half_out: bool,
    closing: Option<ClosingLeftover>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ClosingLeftover {
    code: u16,
    reason: String,
    by_client: bool,
    answered: bool,
    deaf: bool,
    until: Millis,
}

/// How an adoption went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Adopted {
    pub(super) adopted: u32,
    pub(super) lost: u32,
}

impl Core {
    /// Puts what is left into a memfd; gives its number, or none if nothing is left.
    pub(super) fn lay_down(&mut self) -> io::Result<Option<RawFd>> {
        let mut leftover = Leftover { mail: self.post.take_spilled(), ..Leftover::default() };
        for (_, connection) in &mut self.connections {
            if let Some(pong) = connection.open_mut().and_then(|open| open.pong.take()) {
                // There is room: messages leave some for control frames.
                let _ = connection
                    .outbox
                    .push_with(|tail| encode_frame(tail, FrameKind::Pong, true, &pong));
            }
            let mut output = Vec::new();
            // Out and in again: this worker goes on with it if the successor fails.
            connection.outbox.drain_into(&mut output);
            let _ = connection.outbox.push(&output);
            match &connection.stage {
                Stage::Http(http) => leftover.http.push(HttpLeftover {
                    descriptor: connection.descriptor,
                    peer: connection.peer,
                    input: http.input.clone(),
                    output,
                    deadline: http.deadline,
                    pending: http.pending.clone(),
                    ending: http.ending,
                }),
                Stage::Open(open)
                    if !output.is_empty()
                        || !connection.held.is_empty()
                        || open.closing.is_some() =>
                {
                    leftover.outputs.push(OutputLeftover {
                        conn: open.conn,
                        output,
                        input: connection.held.clone(),
                        half_out: connection.half_out,
                        closing: open.closing.as_ref().map(ClosingLeftover::of),
                    });
                }
                Stage::Open(_) => {}
            }
        }
        if leftover.http.is_empty() && leftover.outputs.is_empty() && leftover.mail.is_empty() {
            return Ok(None);
        }
        let bytes = codec::encode_value(&leftover).map_err(io::Error::other)?;
        self.post.keep_spilled(leftover.mail);
        let memfd = descriptor::memfd_with(&bytes)?;
        self.shared.ledger.note(memfd, DescriptorKind::Rest, self.holder);
        self.rest = Some(memfd);
        Ok(Some(memfd))
    }

    /// Throws away what was laid down: the successor failed, this worker goes on.
    pub(super) fn forget_rest(&mut self) {
        if let Some(memfd) = self.rest.take() {
            self.shared.ledger.clear(memfd);
            descriptor::close(memfd);
        }
    }
}

impl<A: App> Worker<'_, A> {
    /// Takes over what belongs to the slot: first what the predecessor left in the memfd, then every
    /// row of the slot.
    pub(super) fn adopt(&mut self, rest: Option<RawFd>, why: Adoption, empty: bool) -> Adopted {
        let mut adopted = Adopted::default();
        self.core.shared.peers.clear(self.core.slot.index());
        let leftover = rest.map_or_else(Leftover::default, |memfd| self.read_leftover(memfd));
        // Before any hook: what waited goes before what is sent now.
        self.core.post.restore_spilled(leftover.mail);
        let mut outputs: std::collections::HashMap<ConnId, OutputLeftover> =
            leftover.outputs.into_iter().map(|output| (output.conn, output)).collect();
        let sessions: Vec<ConnId> = self.core.shared.sessions.owned_by(self.core.slot).collect();
        for conn in sessions {
            let left = outputs.remove(&conn);
            if empty || !self.fit_for_adoption(conn, left.is_some()) {
                self.close_lost(conn);
                adopted.lost += 1;
            } else {
                self.adopt_session(conn, left, why);
                adopted.adopted += 1;
            }
        }
        for http in leftover.http {
            self.adopt_http(http);
        }
        self.core.row.add(Cell::Adopted, u64::from(adopted.adopted));
        adopted
    }

    fn read_leftover(&mut self, memfd: RawFd) -> Leftover {
        let read = descriptor::read_memfd(memfd).map_err(codec_error);
        self.core.shared.ledger.clear(memfd);
        descriptor::close(memfd);
        match read.and_then(|bytes| codec::decode_value(&bytes).map_err(codec_error)) {
            Ok(leftover) => leftover,
            Err(error) => {
                error!(%error, "what the predecessor left cannot be read: its unsent output is lost");
                Leftover::default()
            }
        }
    }

    fn fit_for_adoption(&self, conn: ConnId, output_left: bool) -> bool {
        let sessions = &self.core.shared.sessions;
        let open = matches!(sessions.phase(conn), Some(Phase::Open | Phase::Closing));
        open && (output_left || sessions.service(conn) == Some(Service::Clean))
    }

    fn adopt_session(&mut self, conn: ConnId, left: Option<OutputLeftover>, why: Adoption) {
        let Some(key) = self.take_up_session(conn) else { return };
        let closing = self.core.shared.sessions.phase(conn) == Some(Phase::Closing);
        let now = self.core.now;
        let sessions = &self.core.shared.sessions;
        let (heartbeat_ms, progress) = (sessions.heartbeat(conn), sessions.progress(conn));
        let began = sessions.message_began(conn);
        let has_cut = self.core.shared.pool.len(sessions.cut_chain(conn.row())) > 0;
        if let Some(open) = self.core.connections[key].open_mut() {
            open.heartbeat_ms = heartbeat_ms;
            open.progress = progress;
            open.began = began;
            open.has_cut = has_cut;
            open.announced = true;
            if closing {
                open.closing.get_or_insert(Closing {
                    // A predecessor that died has told the client; the code died with it.
                    closed: Closed { code: 1006, reason: String::new(), by: ClosedBy::Server },
                    answered: false,
                    deaf: false,
                    half_closed: false,
                    until: now + super::core::CLOSE_GRACE_MS,
                });
            }
        }
        if let Some(left) = left {
            self.restore_output(key, left);
        }
        if !closing {
            self.hook(|app, context| app.adopt(context, conn, why));
        }
    }

    fn restore_output(&mut self, key: usize, left: OutputLeftover) {
        self.core.connections[key].half_out = left.half_out;
        self.core.connections[key].held = left.input;
        // Nobody tells of input that is read already.
        self.core.make_ready(key);
        self.core.touch(key);
        let connection = &mut self.core.connections[key];
        connection.make_room_for(left.output.len());
        if connection.outbox.push(&left.output) == crate::outbox::Verdict::Overflow {
            crate::limited!(warn, peer = %connection.peer, "unsent output exceeds a smaller websocket.send_buffer");
            self.core.transport_lost(key);
            return;
        }
        if let Some(open) = connection.open_mut() {
            open.closing =
                left.closing.map(ClosingLeftover::into_closing).or_else(|| open.closing.take());
        }
    }

    /// A connection whose worker died serving it: told so by 1012, or reset where half a frame is out.
    fn close_lost(&mut self, conn: ConnId) {
        let half_a_frame = self.core.shared.sessions.service(conn) == Some(Service::Writing);
        let cell = if half_a_frame { Cell::LostWriting } else { Cell::LostHandling };
        self.core.row.add(cell, 1);
        let Some(key) = self.take_up_session(conn) else { return };
        if let Some(open) = self.core.connections[key].open_mut() {
            open.announced = true;
            open.lost = true;
        }
        let reason = "worker lost".to_owned();
        self.core.close_by_engine(key, Closed { code: 1012, reason, by: ClosedBy::WorkerLost });
        if half_a_frame {
            socket::reset_on_close(self.core.connections[key].descriptor);
            self.core.transport_lost(key);
        }
    }

    /// Makes a connection of a row: registered, noted in the ledger as this worker's.
    fn take_up_session(&mut self, conn: ConnId) -> Option<usize> {
        let core = &mut self.core;
        let descriptor = core.shared.sessions.descriptor(conn)?;
        let peer = core.shared.sessions.peer(conn)?;
        let mut connection = core.connection(descriptor, peer);
        let agreement = core.shared.sessions.agreement(conn);
        connection.stage = Stage::Open(OpenStage::new(conn, agreement));
        connection.last_read = core.shared.sessions.last_active(conn).unwrap_or(core.now);
        core.shared.ledger.note(descriptor, DescriptorKind::Session, core.holder);
        let key = core.connections.insert(connection);
        core.bind_row(conn, key);
        core.sessions_open += 1;
        if let Err(error) = core.watch(key) {
            crate::limited!(error, %error, "an adopted connection cannot be watched");
            core.transport_lost(key);
        }
        Some(key)
    }

    fn adopt_http(&mut self, left: HttpLeftover) {
        let core = &mut self.core;
        let mut connection = core.connection(left.descriptor, left.peer);
        connection.make_room_for(left.output.len());
        // What was queued fits.
        let _ = connection.outbox.push(&left.output);
        let pending = left.pending.as_ref().map(|pending| pending.id);
        connection.stage = Stage::Http(Box::new(HttpStage {
            // They may be whole.
            waits: !left.input.is_empty(),
            input: left.input,
            deadline: left.deadline,
            pending: left.pending,
            ending: left.ending,
            // Whoever has sent nothing yet has the time of a kept connection.
            answered: true,
            ..HttpStage::default()
        }));
        core.shared.ledger.note(left.descriptor, DescriptorKind::Handshaking, core.holder);
        let key = core.connections.insert(connection);
        core.http_open += 1;
        if let Some(id) = pending {
            core.pending.insert(id, key);
        }
        if let Err(error) = core.watch(key) {
            crate::limited!(error, %error, "an adopted connection cannot be watched");
            core.transport_lost(key);
        }
        core.touch(key);
        // Requests that came whole and waited for their turn are told of by no edge.
        core.make_ready(key);
    }
}

impl ClosingLeftover {
    fn of(closing: &Closing) -> Self {
        Self {
            code: closing.closed.code,
            reason: closing.closed.reason.clone(),
            by_client: closing.closed.by == ClosedBy::Client,
            answered: closing.answered,
            deaf: closing.deaf,
            until: closing.until,
        }
    }

    fn into_closing(self) -> Closing {
        let by = if self.by_client { ClosedBy::Client } else { ClosedBy::Server };
        Closing {
            closed: Closed { code: self.code, reason: self.reason, by },
            answered: self.answered,
            deaf: self.deaf,
            half_closed: false,
            until: self.until,
        }
    }
}

fn codec_error(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
