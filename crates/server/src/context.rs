//! What a hook may do: [`Context`] in workers and task processes, [`MasterContext`] in the master.
//!
//! Knows nothing of how it is done: every deed is one method of [`Effects`], which the worker and
//! the task process implement, and which a test may implement to watch an application.

mod error;

pub use self::error::{PushError, SendError, TimerError};
use crate::app::{App, Handshake, Message, Response, TraceWay};
use crate::clock::{self, Millis};
use crate::ids::{ConnId, RequestId, SlotId, TaskId, TimerId, Turn};
use crate::sessions::{SessionInfo, Sessions};
use crate::shared::Areas;
use crate::status;
use crate::websocket::Opcode;
use serde_json::Value as Json;
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// What a hook may do, in a worker or a task process.
pub struct Context<'a, A: App> {
    effects: &'a mut dyn Effects,
    app: PhantomData<fn(A)>,
}

impl<'a, A: App> Context<'a, A> {
    /// A context over the deeds of a process; tests give their own.
    pub fn new(effects: &'a mut dyn Effects) -> Self {
        Self { effects, app: PhantomData }
    }

    /// The same for a shorter time: for a value that holds a context beside what else it needs.
    pub fn reborrow(&mut self) -> Context<'_, A> {
        Context { effects: &mut *self.effects, app: PhantomData }
    }

    /// Sends a message to a connection of any worker. It is queued; output is sent once per turn.
    ///
    /// # Errors
    /// See [`PushError`]; nothing was queued.
    pub fn push(&mut self, conn: ConnId, message: Message<'_>) -> Result<(), PushError> {
        let (opcode, payload) = split(message);
        self.effects.push(conn, opcode, payload, Urgency::Keep)
    }

    /// As [`Context::push`], but dropped, and counted, where the receiver is slow.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn push_droppable(&mut self, conn: ConnId, message: Message<'_>) -> Result<(), PushError> {
        let (opcode, payload) = split(message);
        self.effects.push(conn, opcode, payload, Urgency::Droppable)
    }

    /// Sends one message to several connections: encoded once, and once per worker on its way.
    /// Gives the number of connections whose outbox or mailbox took it.
    pub fn push_many(&mut self, conns: &[ConnId], message: Message<'_>) -> usize {
        let (opcode, payload) = split(message);
        self.effects.push_many(conns, opcode, payload)
    }

    /// Sends a message to every open connection of every worker.
    pub fn broadcast(&mut self, message: Message<'_>) {
        let (opcode, payload) = split(message);
        self.effects.broadcast(opcode, payload);
    }

    /// Closes a connection of any worker with a close frame, after what is queued. `reason` is cut
    /// to the 123 bytes a close frame holds. False if the connection is not there.
    pub fn disconnect(&mut self, conn: ConnId, code: u16, reason: &str) -> bool {
        self.effects.disconnect(conn, None, code, reason)
    }

    /// The same with last words right before the close frame. Both go, or neither does, and nothing comes
    /// between them; where the outbox has no room the words alone are dropped, and counted, as by
    /// [`Context::push_droppable`].
    pub fn disconnect_saying(
        &mut self,
        conn: ConnId,
        last_words: Message<'_>,
        code: u16,
        reason: &str,
    ) -> bool {
        self.effects.disconnect(conn, Some(split(last_words)), code, reason)
    }

    /// Sets a word of an area from `from` to `to` when everything pushed so far has left this process: mail
    /// is in the mailboxes, or written down for who serves this slot next; output is with the kernel, as far
    /// as it takes it now. That is before the turn is over. If this process dies before, the word stays as
    /// it is.
    pub fn mark_when_sent(&mut self, word: &'static AtomicU64, from: u64, to: u64) {
        self.effects.mark_when_sent(word, from, to);
    }

    /// The turn of the loop that the hook runs in; none in a task process.
    #[must_use]
    pub fn turn(&self) -> Turn {
        self.effects.turn()
    }

    /// Whether a turn, of whichever worker, still goes on: false once it is over, its marks
    /// ([`Context::mark_when_sent`]) set, or once its worker's death is noticed.
    #[must_use]
    pub fn is_under_way(&self, turn: Turn) -> bool {
        self.effects.is_under_way(turn)
    }

    /// Whether the connection is open, in whichever worker.
    #[must_use]
    pub fn is_established(&self, conn: ConnId) -> bool {
        self.effects.sessions().is_established(conn)
    }

    /// Address, times and worker of a connection; `None` if it is not open.
    #[must_use]
    pub fn session_info(&self, conn: ConnId) -> Option<SessionInfo> {
        self.effects.sessions().info(conn)
    }

    /// The open connections of this worker. Empty in a task process.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnId> {
        self.effects.connections()
    }

    /// The session table: the framework's columns and the application's.
    #[must_use]
    pub fn table(&self) -> &Sessions {
        self.effects.sessions()
    }

    /// An area of shared memory asked for by [`App::areas`]; `None` if it was not.
    #[must_use]
    pub fn area(&self, name: &str) -> Option<&'static [AtomicU64]> {
        self.effects.areas().words(name)
    }

    /// Whether somebody traces this connection of this worker ([`Sessions::set_subject`]). Costs nothing
    /// while nobody traces anything.
    #[must_use]
    pub fn is_traced(&self, conn: ConnId) -> bool {
        self.effects.is_traced(conn)
    }

    /// Tells who traces the connection; of what is sent to it the framework tells by itself.
    pub fn trace(&mut self, conn: ConnId, way: TraceWay, text: &str) {
        self.effects.trace(conn, way, text);
    }

    /// Sets when [`App::deadline`] is to be called for a connection of this worker; `None`: never.
    pub fn set_deadline(&mut self, conn: ConnId, at: Option<Millis>) {
        self.effects.sessions().set_deadline(conn, at);
    }

    /// Sets a moment beyond which neither [`Context::set_deadline`] nor a heartbeat moves the deadline of
    /// a connection of this worker, so that [`App::deadline`] is called then, however much the client
    /// says; `None` ends that.
    pub fn set_deadline_limit(&mut self, conn: ConnId, at: Option<Millis>) {
        self.effects.sessions().set_deadline_limit(conn, at);
    }

    /// From now on every frame of the connection moves its deadline to `after_ms` from then; `None`
    /// ends that, and the deadline. Costs no message between processes.
    pub fn set_heartbeat(&mut self, conn: ConnId, after_ms: Option<u64>) {
        self.effects.set_heartbeat(conn, after_ms);
    }

    /// Sends a message to [`App::pipe_message`] of another worker (or of this one).
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_pipe_message(
        &mut self,
        to: SlotId,
        message: &A::PipeMessage,
    ) -> Result<(), SendError> {
        let bytes = crate::ipc::codec::encode_value(message).map_err(SendError::Encode)?;
        self.effects.send_pipe_message(to, bytes)
    }

    /// Writes into the pipe of an added process, which reads it by
    /// [`ProcessContext::wait`](crate::process::ProcessContext::wait) or on its standard input.
    ///
    /// # Errors
    /// There is no such process, or it does not read.
    pub fn write_process(&mut self, process: &str, bytes: &[u8]) -> Result<(), SendError> {
        self.effects.write_process(process, bytes)
    }

    /// Hands work to a task process; its result comes to [`App::finish`] of this slot.
    ///
    /// # Errors
    /// See [`SendError`]; in a task process always [`SendError::NotAWorker`].
    pub fn task(&mut self, work: &A::Task) -> Result<TaskId, SendError> {
        let bytes = crate::ipc::codec::encode_value(work).map_err(SendError::Encode)?;
        self.effects.task(bytes)
    }

    /// Calls [`App::timer`] of this slot once, `after_ms` from now. Survives the death of the timer
    /// process and of this worker.
    ///
    /// # Errors
    /// See [`TimerError`].
    pub fn after(&mut self, after_ms: u64, payload: &[u8]) -> Result<TimerId, TimerError> {
        self.effects.arm_timer(after_ms, 0, payload)
    }

    /// Calls [`App::timer`] of this slot every `period_ms`, without drift; missed ticks collapse
    /// into one call with their count.
    ///
    /// # Errors
    /// See [`TimerError`].
    pub fn tick(&mut self, period_ms: u64, payload: &[u8]) -> Result<TimerId, TimerError> {
        if period_ms == 0 {
            return Err(TimerError::ZeroPeriod);
        }
        self.effects.arm_timer(period_ms, period_ms, payload)
    }

    /// Disarms a timer of any slot. False if it is not armed.
    pub fn clear_timer(&mut self, timer: TimerId) -> bool {
        self.effects.clear_timer(timer)
    }

    /// Answers an upgrade that [`App::handshake`] left open. False if its client is gone.
    pub fn answer_handshake(&mut self, request: RequestId, answer: Handshake) -> bool {
        self.effects.answer_handshake(request, answer)
    }

    /// Answers a request that [`App::request`] left open. False if its client is gone.
    pub fn respond(&mut self, request: RequestId, response: Response) -> bool {
        self.effects.respond(request, response)
    }

    /// The server's counters: `sessions`, `workers` and `tasks` of the status pipe's object.
    #[must_use]
    pub fn stats(&self) -> Json {
        self.effects.stats()
    }

    /// The object of the status pipe, as far as it can be told here: in a worker all of it, with the
    /// application's part as [`App::status`] gives it; elsewhere [`Context::stats`] and that part.
    #[must_use]
    pub fn status(&self, app: &A) -> Json {
        let mut asked = Vec::new();
        let effects = &*self.effects;
        let master = MasterContext {
            sessions: effects.sessions(),
            areas: effects.areas(),
            listen: effects.listen(),
            run_dir: effects.run_dir(),
            asked: &mut asked,
        };
        let mut object = effects.status();
        status::merge(&mut object, app.status(&master));
        object
    }

    /// Asks the master for a reload.
    pub fn reload(&mut self) {
        self.effects.ask_master(MasterDeed::Reload);
    }

    /// Asks the master for a graceful stop of the server.
    pub fn shutdown(&mut self) {
        self.effects.ask_master(MasterDeed::Shutdown);
    }

    /// Whether the server, and with it this process, is stopping.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.effects.is_stopping()
    }

    /// What this process is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.effects.role()
    }

    /// The moment this turn of the loop began.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.effects.now()
    }

    /// The wall clock as integer Unix milliseconds.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        self.effects.unix_ms()
    }
}

impl<A: App> fmt::Debug for Context<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("role", &self.effects.role()).finish_non_exhaustive()
    }
}

fn split<'m>(message: Message<'m>) -> (Opcode, &'m [u8]) {
    match message {
        Message::Text(text) => (Opcode::Text, text.as_bytes()),
        Message::Binary(bytes) => (Opcode::Binary, bytes),
    }
}

/// The deeds of a process, without the application's types: implemented by workers and task
/// processes, and by tests that want to see what an application does.
pub trait Effects {
    /// See [`Context::push`].
    ///
    /// # Errors
    /// See [`PushError`].
    fn push(
        &mut self,
        conn: ConnId,
        opcode: Opcode,
        payload: &[u8],
        urgency: Urgency,
    ) -> Result<(), PushError>;
    /// See [`Context::push_many`].
    fn push_many(&mut self, conns: &[ConnId], opcode: Opcode, payload: &[u8]) -> usize;
    /// See [`Context::broadcast`].
    fn broadcast(&mut self, opcode: Opcode, payload: &[u8]);
    /// See [`Context::disconnect`] and [`Context::disconnect_saying`].
    fn disconnect(
        &mut self,
        conn: ConnId,
        last_words: Option<(Opcode, &[u8])>,
        code: u16,
        reason: &str,
    ) -> bool;
    /// See [`Context::mark_when_sent`].
    fn mark_when_sent(&mut self, word: &'static AtomicU64, from: u64, to: u64);
    /// See [`Context::turn`].
    fn turn(&self) -> Turn;
    /// See [`Context::is_under_way`].
    fn is_under_way(&self, turn: Turn) -> bool;
    /// See [`Context::connections`].
    fn connections(&self) -> Vec<ConnId>;
    /// See [`Context::table`].
    fn sessions(&self) -> &Sessions;
    /// The application's areas of shared memory.
    fn areas(&self) -> &Areas;
    /// See [`Context::is_traced`].
    fn is_traced(&self, _conn: ConnId) -> bool {
        false
    }
    /// See [`Context::trace`].
    fn trace(&mut self, _conn: ConnId, _way: TraceWay, _text: &str) {}
    /// See [`Context::set_heartbeat`].
    fn set_heartbeat(&mut self, conn: ConnId, after_ms: Option<u64>);
    /// See [`Context::send_pipe_message`].
    ///
    /// # Errors
    /// See [`SendError`].
    fn send_pipe_message(&mut self, to: SlotId, message: Vec<u8>) -> Result<(), SendError>;
    /// See [`Context::write_process`].
    ///
    /// # Errors
    /// See [`SendError`].
    fn write_process(&mut self, process: &str, bytes: &[u8]) -> Result<(), SendError>;
    /// See [`Context::task`].
    ///
    /// # Errors
    /// See [`SendError`].
    fn task(&mut self, work: Vec<u8>) -> Result<TaskId, SendError>;
    /// Arms a timer of this slot; `period_ms` 0: once.
    ///
    /// # Errors
    /// See [`TimerError`].
    fn arm_timer(
        &mut self,
        after_ms: u64,
        period_ms: u64,
        payload: &[u8],
    ) -> Result<TimerId, TimerError>;
    /// See [`Context::clear_timer`].
    fn clear_timer(&mut self, timer: TimerId) -> bool;
    /// See [`Context::answer_handshake`].
    fn answer_handshake(&mut self, request: RequestId, answer: Handshake) -> bool;
    /// See [`Context::respond`].
    fn respond(&mut self, request: RequestId, response: Response) -> bool;
    /// See [`Context::stats`].
    fn stats(&self) -> Json;
    /// The framework's part of [`Context::status`].
    fn status(&self) -> Json {
        self.stats()
    }
    /// The addresses that are listened on, where they are known.
    fn listen(&self) -> &[SocketAddr] {
        &[]
    }
    /// The run directory, where it is known.
    fn run_dir(&self) -> &Path {
        Path::new("")
    }
    /// Asks the master to do something.
    fn ask_master(&mut self, deed: MasterDeed);
    /// See [`Context::is_stopping`].
    fn is_stopping(&self) -> bool;
    /// See [`Context::role`].
    fn role(&self) -> Role;
    /// See [`Context::now`].
    fn now(&self) -> Millis;
    /// See [`Context::unix_ms`].
    fn unix_ms(&self) -> u64 {
        clock::unix_ms()
    }
}

/// Whether a message may be left out where its receiver is slow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// It is delivered, or the receiver is closed with 1013.
    Keep,
    /// It is dropped and counted.
    Droppable,
}

/// What a process asks of the master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MasterDeed {
    /// A rolling reload.
    Reload,
    /// A graceful stop.
    Shutdown,
}

/// What a process is, and its place among its like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A worker, by its slot.
    Worker(SlotId),
    /// A task process, by its place.
    Task(u16),
}

/// What a hook may do in the master.
pub struct MasterContext<'a> {
    /// The session table.
    pub sessions: &'a Sessions,
    /// The application's areas of shared memory.
    pub areas: &'a Areas,
    /// The addresses that are listened on.
    pub listen: &'a [SocketAddr],
    /// The run directory.
    pub run_dir: &'a Path,
    pub(crate) asked: &'a mut Vec<MasterDeed>,
}

impl<'a> MasterContext<'a> {
    /// A context over the given parts; what the hook asks for is appended to `asked`.
    pub fn new(
        sessions: &'a Sessions,
        areas: &'a Areas,
        listen: &'a [SocketAddr],
        run_dir: &'a Path,
        asked: &'a mut Vec<MasterDeed>,
    ) -> Self {
        Self { sessions, areas, listen, run_dir, asked }
    }

    /// Asks for a reload, done after the hook returned.
    pub fn reload(&mut self) {
        self.asked.push(MasterDeed::Reload);
    }

    /// Asks for a graceful stop, begun after the hook returned.
    pub fn shutdown(&mut self) {
        self.asked.push(MasterDeed::Shutdown);
    }
}

impl fmt::Debug for MasterContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterContext").field("listen", &self.listen).finish_non_exhaustive()
    }
}
