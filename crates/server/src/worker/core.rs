//! What a worker has in hand: its loop's sources, its connections, its mail; without the application.
//!
//! Knows how to touch, queue, close and find connections; calls no hook, so that a hook may be given
//! this as its context. Invariants: 1. A connection that is read from or queued to is in `touched` and
//! its state word says HANDLING until the end of the turn. 2. `keys` maps the row of every open
//! connection to its place in `connections`.

use super::Birth;
use super::compression::{Compression, Outgoing};
use super::connection::{Answer, Closing, Connection, Stage};
use super::deliver::Finished;
use super::gather::Gatherings;
use super::goodbye::Goodbyes;
use super::moving::Moving;
use super::open_tasks::OpenTasks;
use super::pool_limits::ReceiveLimits;
use super::routing::{Routing, Speaking};
use super::standing_in::StandingIn;
use super::state::Life;
use super::times::TurnTimes;
use super::trace::Tracing;
use crate::app::{Closed, ClosedBy};
use crate::clock::{self, Millis};
use crate::config::Config;
use crate::ids::{ConnId, RequestId, SlotId};
use crate::ipc::journal::Keeper;
use crate::ipc::mailbox::Mailbox;
use crate::ipc::pipe::Pipe;
use crate::ipc::post::Post;
use crate::ledger::Holder;
use crate::marks::Marks;
use crate::outbox::{Load, Verdict};
use crate::scoreboard::{Cell, ProcessRow};
use crate::sessions::{Phase, Service};
use crate::shared::Shared;
use crate::websocket::{CloseCode, FrameKind, Limits, Opcode, encode_close, encode_frame};
use crate::wiring::Wiring;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

/// Tokens below this are the worker's own sources; connections come behind.
pub(super) const FIRST_CONNECTION: usize = 16;
pub(super) const PIPE: Token = Token(0);
pub(super) const SIGNALS: Token = Token(1);
pub(super) const MAILBOX: Token = Token(2);
pub(super) const LISTENER: Token = Token(3);
pub(super) const STOOD_IN_MAILBOX: Token = Token(4);

/// How long a closing connection may take to answer our close frame and take what is queued.
pub(super) const CLOSE_GRACE_MS: u64 = 3_000;
/// Bytes of the read buffer that all connections share.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// Room in every outbox, beyond `websocket.send_buffer`, for control frames and a last goodbye.
pub(super) const CONTROL_ROOM_BYTES: usize = 4 << 10;
/// Warm buffers kept for outboxes, so that a message allocates none: as many as one turn may need.
const WARM_BUFFERS: usize = 1_024;
/// Bytes of all of them.
const WARM_BYTES: usize = 4 << 20;

/// See the module.
pub(crate) struct Core {
    pub(super) slot: SlotId,
    pub(super) holder: Holder,
    pub(super) shared: Shared,
    pub(super) config: Rc<Config>,
    pub(super) wiring: Wiring,
    pub(super) poll: Poll,
    /// What it waits on at rest; the one for service while it does.
    other_poll: Poll,
    pub(super) signals: RawFd,
    pub(super) pipe: Pipe,
    pub(super) mailbox: Option<Mailbox>,
    pub(super) mail_ready: bool,
    /// Whose mailbox is read: this slot's but for moments.
    pub(super) reading: SlotId,
    pub(super) standing_in: Option<StandingIn>,
    pub(super) finished: Finished,
    pub(super) accept_ready: bool,
    /// What is to be marked when what was pushed has left.
    pub(super) marks: Marks,
    pub(super) post: Post,
    pub(super) row: ProcessRow,
    pub(super) life: Life,
    pub(super) now: Millis,
    pub(super) times: TurnTimes,
    pub(super) connections: Slab<Connection>,
    /// By row index: place in `connections` + 1; 0: not this worker's.
    keys: Vec<u32>,
    pub(super) pending: HashMap<RequestId, usize>,
    pub(super) answers: VecDeque<(RequestId, Answer)>,
    pub(super) touched: Vec<usize>,
    pub(super) ready: VecDeque<usize>,
    /// The same, of peers that have ended their half: behind the others, since thousands may end at once.
    pub(super) ended: VecDeque<usize>,
    /// Connections that are over and not closed yet.
    pub(super) parting: VecDeque<usize>,
    pub(super) read_buffer: Vec<u8>,
    pub(super) message_buffer: Vec<u8>,
    warm: Vec<Vec<u8>>,
    warm_bytes: usize,
    pub(super) gatherings: Gatherings,
    /// Unsent output of all connections.
    pub(super) load: Load,
    /// Whose hook is running.
    pub(super) speaking: Speaking,
    pub(super) routing: Routing,
    pub(super) moving: Moving,
    /// Room for output is being made.
    pub(super) shedding: bool,
    pub(super) compression: Compression,
    pub(super) limits: Limits,
    pub(super) receive_limits: ReceiveLimits,
    pub(super) http_open: u64,
    /// Since when all places for plain connections are taken, and none was given back.
    pub(super) crowded_since: Option<Millis>,
    pub(super) sessions_open: u64,
    /// Messages of this life, for `server.max_request`.
    pub(super) served: u64,
    pub(super) next_sweep: Millis,
    /// The memfd of what was laid down at rest.
    pub(super) rest: Option<RawFd>,
    /// [`App::goodbye`](crate::app::App::goodbye).
    pub(super) goodbye: fn(u16, &str, u64) -> Option<String>,
    /// How many clients of the server are told to come back at about the same time.
    pub(super) returning: u64,
    /// There while the server stops.
    pub(super) goodbyes: Option<Goodbyes>,
    pub(super) open_tasks: OpenTasks,
    /// What is gathered for who traces.
    pub(super) tracing: Tracing,
}

impl Core {
    /// A worker that has just been born. Its sources are not registered yet.
    pub(super) fn new(
        birth: Birth,
        goodbye: fn(u16, &str, u64) -> Option<String>,
    ) -> io::Result<Self> {
        let Birth { slot, generation, pipe, sources, shared, config, wiring } = birth;
        let holder = Holder { slot: slot.0, generation };
        let row = shared.scoreboard.worker(slot.index());
        let rows = usize::try_from(shared.sessions.capacity()).map_err(io::Error::other)?;
        let limits = Limits { max_message_bytes: config.max_message_bytes, may_compress: false };
        let receive_limits = ReceiveLimits::new(&config, &shared.pool);
        let max_messages = jittered(config.max_request, slot);
        Ok(Self {
            slot,
            holder,
            poll: sources.service,
            other_poll: sources.rest,
            signals: sources.signals,
            pipe: Pipe::new(pipe),
            mailbox: Some(Mailbox::new(wiring.mailboxes[slot.index()])),
            mail_ready: true,
            reading: slot,
            standing_in: None,
            finished: Finished::default(),
            accept_ready: true,
            marks: Marks::default(),
            post: Post::kept(&wiring.post, Keeper { ledger: shared.ledger, holder }),
            row,
            life: Life::new(max_messages),
            now: clock::now(),
            times: TurnTimes::default(),
            connections: Slab::new(),
            keys: vec![0; rows],
            pending: HashMap::new(),
            answers: VecDeque::new(),
            touched: Vec::new(),
            ready: VecDeque::new(),
            ended: VecDeque::new(),
            parting: VecDeque::new(),
            read_buffer: vec![0; READ_BUFFER_BYTES],
            message_buffer: Vec::new(),
            warm: Vec::new(),
            warm_bytes: 0,
            gatherings: Gatherings::default(),
            load: Load::default(),
            speaking: Speaking::Nobody,
            routing: Routing::default(),
            moving: Moving::default(),
            shedding: false,
            compression: Compression::new(&config),
            limits,
            receive_limits,
            http_open: 0,
            crowded_since: None,
            sessions_open: 0,
            served: 0,
            next_sweep: Millis(0),
            rest: None,
            goodbye,
            returning: 1,
            goodbyes: None,
            open_tasks: OpenTasks::default(),
            tracing: Tracing::default(),
            shared,
            config,
            wiring,
        })
    }

    /// Watches what a worker watches before it serves: its pipe and its signals.
    pub(super) fn watch_control(&mut self) -> io::Result<()> {
        for registry in [self.poll.registry(), self.other_poll.registry()] {
            registry.register(&mut SourceFd(&self.pipe.descriptor()), PIPE, Interest::READABLE)?;
            registry.register(&mut SourceFd(&self.signals), SIGNALS, Interest::READABLE)?;
        }
        Ok(())
    }

    /// Watches what a serving worker watches too: its mailbox and its listeners.
    pub(super) fn watch_service(&mut self) -> io::Result<()> {
        let registry = self.poll.registry();
        let mailbox = self.wiring.mailboxes[self.slot.index()];
        registry.register(&mut SourceFd(&mailbox), MAILBOX, Interest::READABLE)?;
        for listener in &self.wiring.listeners[self.slot.index()] {
            registry.register(&mut SourceFd(listener), LISTENER, Interest::READABLE)?;
        }
        self.mail_ready = true;
        self.accept_ready = true;
        Ok(())
    }

    /// Takes new connections no longer.
    pub(super) fn unwatch_listeners(&mut self) {
        for listener in &self.listeners() {
            // It fails only where it is not registered, which is what is wanted.
            let _ = self.poll.registry().deregister(&mut SourceFd(listener));
        }
        self.accept_ready = false;
    }

    /// Forgets every connection, without closing any.
    pub(super) fn forget_connections(&mut self) {
        self.connections.clear();
        self.keys.fill(0);
        self.pending.clear();
        self.touched.clear();
        self.ready.clear();
        self.ended.clear();
        self.parting.clear();
        self.gatherings.clear();
    }

    /// From service to rest, or back.
    pub(super) fn swap_polls(&mut self) {
        std::mem::swap(&mut self.poll, &mut self.other_poll);
    }

    /// Watches a connection, both ways, for its whole life.
    pub(super) fn watch(&mut self, key: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get(key) else { return Ok(()) };
        self.poll.registry().register(
            &mut SourceFd(&connection.descriptor),
            Token(FIRST_CONNECTION + key),
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    /// Notes that the row of a session is served by the connection at `key`.
    pub(super) fn bind_row(&mut self, conn: ConnId, key: usize) {
        if let Some(place) = self.keys.get_mut(row_place(conn)) {
            *place = u32::try_from(key + 1).unwrap_or(0);
        }
    }

    pub(super) fn unbind_row(&mut self, conn: ConnId) {
        if let Some(place) = self.keys.get_mut(row_place(conn)) {
            *place = 0;
        }
    }

    /// Where a session's connection is, if this worker serves it.
    pub(super) fn key_of(&self, conn: ConnId) -> Option<usize> {
        let place = *self.keys.get(row_place(conn))?;
        let key = usize::try_from(place).ok()?.checked_sub(1)?;
        (self.connections.get(key)?.conn() == Some(conn)).then_some(key)
    }

    /// To be called before reading from a connection or queueing to it: marks it HANDLING, once per
    /// turn, and lists it for the end of the turn.
    pub(super) fn touch(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.touched {
            return;
        }
        connection.touched = true;
        self.touched.push(key);
        self.mark_busy(key);
    }

    /// Not CLEAN; WRITING where half a frame is out.
    pub(super) fn mark_busy(&self, key: usize) {
        let half_out = self.connections.get(key).is_some_and(|connection| connection.half_out);
        self.mark(key, if half_out { Service::Writing } else { Service::Handling });
    }

    /// Writes the state word of a WebSocket.
    pub(super) fn mark(&self, key: usize, service: Service) {
        if let Some(open) = self.connections.get(key).and_then(Connection::open) {
            let phase = match open.lost || open.closing.is_some() {
                true => Phase::Closing,
                false if open.leaving => Phase::Leaving,
                false => Phase::Open,
            };
            self.shared.sessions.set_state(open.conn, phase, service);
        }
    }

    /// Serves a connection again in the next turn.
    pub(super) fn make_ready(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.queued
        {
            connection.queued = true;
            let list = if connection.peer_ended { &mut self.ended } else { &mut self.ready };
            list.push_back(key);
        }
    }

    /// Queues a message to an open connection. False: its outbox is full.
    pub(super) fn queue_message(&mut self, key: usize, message: Outgoing<'_>) -> bool {
        let limit = self.config.send_buffer_bytes;
        self.touch(key);
        self.make_output_room(message.payload.len());
        let Some(connection) = self.connections.get_mut(key) else { return false };
        if connection.open().is_none_or(|open| open.closing.is_some()) {
            // It was itself among those that were closed to make room.
            return false;
        }
        if connection.outbox.wants_buffer()
            && let Some(warm) = self.warm.pop()
        {
            self.warm_bytes -= warm.capacity();
            connection.outbox.lend(warm);
        }
        let agreement = connection.open().and_then(|open| open.agreement);
        let (wire, ran) = self.compression.wire(message, agreement);
        let bytes = wire.payload_bytes();
        self.row.add(Cell::Compressions, u64::from(ran));
        // A single message may always be as large as the whole outbox; the rest must fit beside.
        if connection.outbox.queued_bytes() + bytes > limit.max(bytes) {
            return false;
        }
        let queued = connection.outbox.push_with(|tail| wire.encode(tail)) == Verdict::Queued;
        if queued {
            self.row.add(Cell::MessagesOut, 1);
            if wire.is_compressed() {
                let saved = message.payload.len() - bytes;
                self.row.add(Cell::CompressedOut, 1);
                self.row.add(Cell::SavedBytes, u64::try_from(saved).unwrap_or(0));
            }
        }
        if queued && self.tracing.is_on() {
            self.trace_out(key, message.opcode, message.payload);
        }
        queued
    }

    /// Queues a control frame.
    pub(super) fn queue_control(&mut self, key: usize, kind: FrameKind, payload: &[u8]) {
        self.touch(key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let verdict = connection.outbox.push_with(|tail| encode_frame(tail, kind, true, payload));
        if verdict == Verdict::Overflow {
            self.close_slow(key);
        }
    }

    /// Begins to close a WebSocket for a reason of the engine's: the application's last word first.
    pub(super) fn close_by_engine(&mut self, key: usize, closed: Closed) {
        let still_open = self
            .connections
            .get(key)
            .and_then(Connection::open)
            .is_some_and(|open| open.closing.is_none());
        if still_open
            && let Some(text) = (self.goodbye)(closed.code, &closed.reason, self.returning)
        {
            // Where there is no room the close frame says it alone.
            let message = self.compression.outgoing(Opcode::Text, text.as_bytes());
            self.queue_message(key, message);
        }
        self.begin_close(key, closed);
    }

    /// The same, and what still comes has no meaning.
    pub(super) fn close_deaf(&mut self, key: usize, closed: Closed) {
        self.close_by_engine(key, closed);
        if let Some(closing) =
            self.connections[key].open_mut().and_then(|open| open.closing.as_mut())
        {
            closing.deaf = true;
        }
    }

    /// Begins to close a WebSocket: a close frame behind what is queued; the row is closing at once.
    pub(super) fn begin_close(&mut self, key: usize, closed: Closed) {
        let until = self.now + CLOSE_GRACE_MS;
        self.touch(key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(open) = connection.open_mut() else { return };
        if open.closing.is_some() {
            return;
        }
        // Nothing will be made of what is half received: others may need its place.
        self.shared.pool.free(self.shared.sessions.message_chain(open.conn.row()));
        // 1005 stands for a close frame without a code: answered by one without.
        let code = Some(CloseCode(closed.code)).filter(|code| code.is_sendable());
        let reason = closed.reason.clone();
        let answered = closed.by == ClosedBy::Client;
        let deaf = closed.by == ClosedBy::WorkerLost;
        open.closing = Some(Closing { closed, answered, deaf, half_closed: false, until });
        let told = connection.outbox.push_with(|tail| encode_close(tail, code, &reason));
        if told == Verdict::Overflow {
            // Not even a goodbye fits: it ends with the grace.
            connection.outbox.release();
        }
        self.mark_busy(key);
    }

    /// The transport is gone: nothing can be said any more.
    pub(super) fn transport_lost(&mut self, key: usize) {
        self.touch(key);
        let until = self.now;
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.outbox.discard();
        match &mut connection.stage {
            Stage::Http(http) => {
                http.ending = true;
                http.gone = true;
            }
            Stage::Open(open) => {
                let lost = Closing {
                    closed: Closed { code: 1006, reason: String::new(), by: ClosedBy::Client },
                    answered: true,
                    deaf: true,
                    half_closed: true,
                    until,
                };
                let closing = open.closing.get_or_insert(lost);
                closing.answered = true;
                // An end of our half would look like one in good order.
                closing.half_closed = true;
            }
        }
    }

    /// A connection whose outbox is full is closed with 1013, once, and logged once.
    pub(super) fn close_slow(&mut self, key: usize) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.open().is_none_or(|open| open.closing.is_some()) {
            return;
        }
        self.row.add(Cell::SlowClosed, 1);
        crate::limited!(warn, peer = %connection.peer, queued = connection.outbox.queued_bytes(),
            "a client reads too slowly: closed with 1013");
        let reason = "the client reads too slowly".into();
        self.close_by_engine(key, Closed { code: 1013, reason, by: ClosedBy::Server });
    }

    /// Gives the buffer of an empty outbox to the next message.
    pub(super) fn keep_warm(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(buffer) = connection.outbox.reclaim()
            && self.warm.len() < WARM_BUFFERS
            && self.warm_bytes + buffer.capacity() <= WARM_BYTES
        {
            self.warm_bytes += buffer.capacity();
            self.warm.push(buffer);
        }
    }
}

fn row_place(conn: ConnId) -> usize {
    usize::try_from(conn.row().index).unwrap_or(usize::MAX)
}

/// `max_request` plus up to a tenth, by slot, so that workers are not all replaced at once.
fn jittered(max_request: u64, slot: SlotId) -> u64 {
    max_request + max_request / 10 * (u64::from(slot.0) % 10) / 10
}
