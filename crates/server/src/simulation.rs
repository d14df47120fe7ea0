//! Running an application's hooks without processes, sockets or clocks: for its unit tests and for
//! simulations of several workers in one process.
//!
//! [`FakeWorker`] implements [`Effects`] over session rows and areas on the heap (leaked: they are
//! `'static` as shared memory is) and writes down every deed. Its time stands still until the test
//! moves it. Invariant: what it does to rows is what a worker does, and it does nothing else.
//!
//! [`FakeServer`] is all workers of a server, with mail between them, clients, time and deaths.

mod dice;
mod fake_server;
mod hands;
mod seat;
#[cfg(test)]
mod tests;
mod world;

pub use self::dice::Dice;
pub use self::fake_server::{FakeServer, Share};
pub use self::world::{Bounds, Heard, Said};

use crate::app::{App, Handshake, Response, TaskFailure, UpgradeRequest};
use crate::clock::Millis;
use crate::context::{
    Context, Effects, MasterContext, MasterDeed, PushError, Role, SendError, TimerError, Urgency,
};
use crate::http::{Arrival, Headers, Request};
use crate::ids::{ConnId, RequestId, SlotId, TaskId, TimerId, Turn};
use crate::ipc::codec;
use crate::marks::Marks;
use crate::scoreboard::Scoreboard;
use crate::sessions::{Phase, Service, Sessions, Writer};
use crate::shared::Areas;
use crate::websocket::Opcode;
use dunlin_table::{Rows, heap_words};
use serde_json::Value as Json;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// Something an application did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// A message was queued for a connection.
    Push {
        /// For whom.
        conn: ConnId,
        /// Text or binary.
        opcode: Opcode,
        /// What.
        payload: Vec<u8>,
        /// Whether it might have been dropped.
        urgency: Urgency,
    },
    /// A message went to everybody.
    Broadcast {
        /// Text or binary.
        opcode: Opcode,
        /// What.
        payload: Vec<u8>,
    },
    /// A connection is being closed; last words are a [`Deed::Push`] right before.
    Disconnect {
        /// Which.
        conn: ConnId,
        /// The close code.
        code: u16,
        /// The reason.
        reason: String,
    },
    /// A pipe message was sent.
    PipeMessage {
        /// To which slot.
        to: SlotId,
        /// It, encoded.
        message: Vec<u8>,
    },
    /// A task was handed out.
    Task {
        /// Its id.
        task: TaskId,
        /// It, encoded.
        work: Vec<u8>,
    },
    /// A timer was armed.
    Arm {
        /// Its id.
        timer: TimerId,
        /// After how long.
        after_ms: u64,
        /// 0: once.
        period_ms: u64,
        /// What comes back with it.
        payload: Vec<u8>,
    },
    /// A timer was disarmed.
    ClearTimer(TimerId),
    /// An upgrade was answered late.
    AnswerHandshake(RequestId),
    /// A request was answered late.
    Respond(RequestId, Response),
    /// The master was asked for something.
    Ask(MasterDeed),
}

/// A worker that only writes down what an application does.
#[derive(Debug)]
pub struct FakeWorker {
    sessions: Sessions,
    areas: Areas,
    slot: SlotId,
    /// Whether it plays a task process for the moment.
    in_task: bool,
    now: Millis,
    unix_ms: u64,
    deeds: Vec<Deed>,
    /// Connections that take no message.
    full: HashSet<ConnId>,
    next_id: u64,
    /// Stamps of the turns, as all workers of the server see them.
    scoreboard: Scoreboard,
    marks: Marks,
    /// Whether the turn goes on until [`FakeWorker::settle`].
    in_turn: bool,
}

/// Slots a server of fake workers may have.
const SLOTS: usize = 64;

impl FakeWorker {
    /// Worker 0 of a server with room for `capacity` sessions, for which [`App::start`] has run.
    ///
    /// # Panics
    /// When the application's columns make no schema, or there is no room for no session.
    #[must_use]
    pub fn start<A: App>(app: &mut A, capacity: u32) -> Self {
        let schema = Sessions::schema(app.columns()).expect("the columns make a schema");
        let words = Rows::words_needed(&schema, capacity).expect("there is room for a session");
        let sessions = Sessions::new(schema, capacity, heap_words(words))
            .expect("the words are as many as needed");
        let areas = Areas::on_heap(&app.areas());
        let worker = Self {
            sessions,
            areas,
            slot: SlotId(0),
            in_task: false,
            now: Millis(1_000_000),
            unix_ms: 1_800_000_000_000,
            deeds: Vec::new(),
            full: HashSet::new(),
            next_id: 1,
            scoreboard: Scoreboard::new(
                heap_words(Scoreboard::words_needed(SLOTS, 0, 0)),
                SLOTS,
                0,
                A::close_codes(),
            ),
            marks: Marks::default(),
            in_turn: false,
        };
        worker.in_master(|master| app.start(master));
        worker
    }

    /// A worker of the same server in another slot.
    #[must_use]
    pub fn sibling(&self, slot: SlotId) -> Self {
        let mut sessions = self.sessions.clone();
        sessions.set_writer(Writer::Worker(slot.0, 1));
        let areas = self.areas.clone();
        let (deeds, full, marks) = (Vec::new(), HashSet::new(), Marks::default());
        Self { sessions, areas, slot, deeds, full, marks, in_turn: false, ..*self }
    }

    /// Calls a hook of the master.
    pub fn in_master<R>(&self, hook: impl FnOnce(&mut MasterContext<'_>) -> R) -> R {
        let mut asked = Vec::new();
        let (listen, run_dir) =
            ([SocketAddr::from(([127, 0, 0, 1], 9502))], Path::new("/dev/null"));
        hook(&mut MasterContext::new(&self.sessions, &self.areas, &listen, run_dir, &mut asked))
    }

    /// The context of a hook in this worker.
    pub fn context<A: App>(&mut self) -> Context<'_, A> {
        Context::new(self)
    }

    /// The session table.
    #[must_use]
    pub fn table(&self) -> &Sessions {
        &self.sessions
    }

    /// Takes a connection in and calls [`App::open`] as for `GET path`.
    ///
    /// # Panics
    /// When the session table is full.
    pub fn open<A: App>(&mut self, app: &mut A, peer: SocketAddr, path: &str) -> ConnId {
        let conn = self.sessions.claim(self.slot, -1, peer).expect("the session table has room");
        self.sessions.set_state(conn, Phase::Open, Service::Clean);
        let http = get(path);
        let request = UpgradeRequest { http: &http, peer, subprotocols: &[] };
        app.open(&mut self.context(), conn, &request);
        conn
    }

    /// Notes a frame of a connection, as the engine does before it gives it on.
    pub fn touch(&mut self, conn: ConnId) {
        self.sessions.touch(conn, self.now, self.sessions.heartbeat(conn));
    }

    /// If the deadline of a connection has passed, clears it and calls [`App::deadline`], and says so.
    pub fn expire<A: App>(&mut self, app: &mut A, conn: ConnId) -> bool {
        let due = self.sessions.deadline(conn).is_some_and(|at| at <= self.now);
        if due {
            self.sessions.set_deadline(conn, None);
            app.deadline(&mut self.context(), conn);
        }
        due
    }

    /// Marks a connection as one whose worker died.
    pub fn lose(&mut self, conn: ConnId) {
        self.sessions.set_state(conn, Phase::Lost, Service::Handling);
    }

    /// Ends a connection: [`App::close`], then its row is freed.
    pub fn end<A: App>(&mut self, app: &mut A, conn: ConnId, closed: &crate::app::Closed) {
        if self.sessions.phase(conn) == Some(Phase::Open) {
            self.sessions.set_state(conn, Phase::Closing, Service::Clean);
        }
        app.close(&mut self.context(), conn, closed);
        self.sessions.free(conn);
    }

    /// Does in a task process what a hook handed out ([`Deed::Task`]); what it gives is for
    /// [`App::finish`], which may be called at once, later, or in another worker of the slot. What the hook
    /// does is among the deeds of this worker.
    ///
    /// # Errors
    /// As [`App::finish`] would be told.
    pub fn do_task<A: App>(
        &mut self,
        app: &mut A,
        task: TaskId,
        work: &[u8],
    ) -> Result<A::TaskResult, TaskFailure> {
        let work = codec::decode_value(work).map_err(|_| TaskFailure::Undecodable)?;
        self.in_task = true;
        let result = app.task(&mut self.context(), task, work);
        self.in_task = false;
        let bytes = codec::encode_value(&result.ok_or(TaskFailure::NoResult)?);
        let decoded = bytes.and_then(|bytes| codec::decode_value(&bytes));
        decoded.map_err(|_| TaskFailure::Undecodable)
    }

    /// From now on the connection takes no message, or takes them again.
    pub fn set_full(&mut self, conn: ConnId, full: bool) {
        if full {
            self.full.insert(conn);
        } else {
            self.full.remove(&conn);
        }
    }

    /// Moves time on.
    pub fn pass(&mut self, ms: u64) {
        self.now = self.now + ms;
        self.unix_ms += ms;
    }

    /// From now on what is pushed stays in the worker until [`FakeWorker::settle`] or
    /// [`FakeWorker::die`]: hooks run in one turn. Otherwise each push leaves at once.
    pub fn begin_turn(&mut self) {
        self.scoreboard.worker(self.slot.index()).turn_begins(self.now);
        self.in_turn = true;
    }

    /// The end of a turn: everything pushed has left, and the marks say so.
    pub fn settle(&mut self) {
        self.marks.set();
        self.end_turn();
    }

    /// The worker is killed in the middle of its turn, and that is noticed; another takes its place. What
    /// it had done of deeds can be taken still: whoever tests decides what of it had left.
    pub fn die(&mut self) {
        self.marks.forget();
        self.end_turn();
    }

    fn end_turn(&mut self) {
        self.scoreboard.worker(self.slot.index()).turn_ends();
        self.in_turn = false;
    }

    /// What was done since this was last called.
    pub fn take_deeds(&mut self) -> Vec<Deed> {
        std::mem::take(&mut self.deeds)
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl Effects for FakeWorker {
    fn push(
        &mut self,
        conn: ConnId,
        opcode: Opcode,
        payload: &[u8],
        urgency: Urgency,
    ) -> Result<(), PushError> {
        if !self.sessions.is_established(conn) {
            return Err(PushError::NotOpen);
        }
        if self.full.contains(&conn) {
            return Err(PushError::OutboxFull);
        }
        self.deeds.push(Deed::Push { conn, opcode, payload: payload.to_vec(), urgency });
        Ok(())
    }

    fn push_many(&mut self, conns: &[ConnId], opcode: Opcode, payload: &[u8]) -> usize {
        let mut taken = 0;
        for conn in conns {
            taken += usize::from(self.push(*conn, opcode, payload, Urgency::Keep).is_ok());
        }
        taken
    }

    fn broadcast(&mut self, opcode: Opcode, payload: &[u8]) {
        self.deeds.push(Deed::Broadcast { opcode, payload: payload.to_vec() });
    }

    fn disconnect(
        &mut self,
        conn: ConnId,
        last_words: Option<(Opcode, &[u8])>,
        code: u16,
        reason: &str,
    ) -> bool {
        if !self.sessions.is_established(conn) {
            return false;
        }
        if let Some((opcode, payload)) = last_words {
            // Where it takes no message the close alone must do.
            let _ = self.push(conn, opcode, payload, Urgency::Droppable);
        }
        self.sessions.set_state(conn, Phase::Closing, Service::Handling);
        self.deeds.push(Deed::Disconnect { conn, code, reason: reason.to_owned() });
        true
    }

    fn mark_when_sent(&mut self, word: &'static AtomicU64, from: u64, to: u64) {
        self.marks.note(word, from, to);
        if !self.in_turn {
            self.marks.set();
        }
    }

    fn turn(&self) -> Turn {
        self.scoreboard.turn(self.slot)
    }

    fn is_under_way(&self, turn: Turn) -> bool {
        self.scoreboard.is_under_way(turn)
    }

    fn connections(&self) -> Vec<ConnId> {
        if self.in_task {
            return Vec::new();
        }
        let own = self.sessions.owned_by(self.slot);
        own.filter(|conn| self.sessions.is_established(*conn)).collect()
    }

    fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    fn areas(&self) -> &Areas {
        &self.areas
    }

    fn set_heartbeat(&mut self, conn: ConnId, after_ms: Option<u64>) {
        self.sessions.set_heartbeat(conn, after_ms);
        self.sessions.set_deadline(conn, after_ms.map(|after| self.now + after));
    }

    fn send_pipe_message(&mut self, to: SlotId, message: Vec<u8>) -> Result<(), SendError> {
        self.deeds.push(Deed::PipeMessage { to, message });
        Ok(())
    }

    fn write_process(&mut self, _process: &str, _bytes: &[u8]) -> Result<(), SendError> {
        Err(SendError::NoSuchProcess)
    }

    fn task(&mut self, work: Vec<u8>) -> Result<TaskId, SendError> {
        if self.in_task {
            return Err(SendError::NotAWorker);
        }
        let task = TaskId(self.next_id());
        self.deeds.push(Deed::Task { task, work });
        Ok(task)
    }

    fn arm_timer(
        &mut self,
        after_ms: u64,
        period_ms: u64,
        payload: &[u8],
    ) -> Result<TimerId, TimerError> {
        if self.in_task {
            return Err(TimerError::NotAWorker);
        }
        let timer = TimerId(self.next_id());
        self.deeds.push(Deed::Arm { timer, after_ms, period_ms, payload: payload.to_vec() });
        Ok(timer)
    }

    fn clear_timer(&mut self, timer: TimerId) -> bool {
        self.deeds.push(Deed::ClearTimer(timer));
        true
    }

    fn answer_handshake(&mut self, request: RequestId, _answer: Handshake) -> bool {
        self.deeds.push(Deed::AnswerHandshake(request));
        true
    }

    fn respond(&mut self, request: RequestId, response: Response) -> bool {
        self.deeds.push(Deed::Respond(request, response));
        true
    }

    fn stats(&self) -> Json {
        Json::Null
    }

    fn ask_master(&mut self, deed: MasterDeed) {
        self.deeds.push(Deed::Ask(deed));
    }

    fn is_stopping(&self) -> bool {
        false
    }

    fn role(&self) -> Role {
        if self.in_task { Role::Task(0) } else { Role::Worker(self.slot) }
    }

    fn now(&self) -> Millis {
        self.now
    }

    fn unix_ms(&self) -> u64 {
        self.unix_ms
    }
}

/// A request as a client that asks for a path and nothing else sends it.
#[must_use]
pub fn get(path: &str) -> Request {
    Request {
        method: "GET".into(),
        target: path.into(),
        path: path.into(),
        query: None,
        headers: Headers::default(),
        body: Vec::new(),
        keep_alive: true,
        http_minor: 1,
        arrival: Arrival::default(),
    }
}
