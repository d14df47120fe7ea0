//! The trait an application implements, and the types its hooks take and give.
//!
//! Knows nothing of processes or sockets: it says what is called, where, and in which order.
//! The order in one server:
//!
//! ```text
//! master   columns, areas · start · (first forks) · manager_start · … worker_error … ·
//!          before_reload · after_reload · process_output · … · shutdown (after the last child)
//! worker   worker_start · adopt* · connect · handshake · open · message* · buffer_full ·
//!          buffer_empty · deadline · moved_away · close · … · worker_stop
//!          request, pipe_message, finish, timer: whenever they come
//! task     worker_start · task* · worker_stop
//! ```
//!
//! A panic in a hook of a connection closes that connection with 1011 and is counted and logged; the
//! worker lives.

use crate::clock::Millis;
use crate::context::{Context, MasterContext};
use crate::http::Request;
use crate::ids::{ConnId, RequestId, SlotId, TaskId, TimerId};
use crate::settings::Settings;
use crate::status::ReloadReport;
use dunlin_table::Column;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::net::SocketAddr;

/// An application: hooks, all optional but `message`.
///
/// One value is made before the first fork; every process has its own copy of it from then on, and
/// each new process starts from the master's. What must be shared lives in the session table
/// ([`App::columns`]) or in areas of shared memory ([`App::areas`]).
pub trait App: Sized + 'static {
    /// What processes of the application send each other by [`Context::send_pipe_message`].
    type PipeMessage: Serialize + DeserializeOwned;
    /// What [`Context::task`] hands to a task process.
    type Task: Serialize + DeserializeOwned;
    /// What a task process gives back to [`App::finish`].
    type TaskResult: Serialize + DeserializeOwned;

    /// Columns the application adds to the session table. Called once in the master, before the
    /// shared memory is made.
    fn columns(&self) -> Vec<Column> {
        Vec::new()
    }

    /// Areas of shared memory the application wants, all zero at first. Called once in the master.
    fn areas(&self) -> Vec<AreaRequest> {
        Vec::new()
    }

    /// What the words of the application's columns and areas mean, and what it sends by tasks, timers
    /// and pipe messages, where their names and sizes do not tell. A program takes the place of a running
    /// one by an upgrade only if both give the same number: raise it with each such change.
    fn layout_version(&self) -> u32 {
        0
    }

    /// The application's part of the status: an object that is merged into the top level. Runs in
    /// the master, and in a worker that asks by [`Context::status`]; from shared memory only; must not
    /// block.
    fn status(&self, _master: &MasterContext<'_>) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// The number by which sessions of this name are known ([`crate::Sessions::set_subject`]), for who
    /// asks to trace them; `None`: nobody here has this name, or can be traced. Never 0.
    fn subject(&self, _name: &str) -> Option<u64> {
        None
    }

    /// What is told to who begins to trace this name, such as the sessions there are.
    fn traced(&self, _master: &MasterContext<'_>, _name: &str) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Master, once: shared memory is made and the listeners are bound, nothing is forked yet. In a program
    /// that takes a running server over by an upgrade it is called, too, on columns and areas as they are;
    /// `shutdown` was not called in the program before.
    fn start(&mut self, _master: &mut MasterContext<'_>) {}

    /// Master, once: the first processes are forked.
    fn manager_start(&mut self, _master: &mut MasterContext<'_>) {}

    /// Master: a child ended that was not asked to.
    fn worker_error(&mut self, _master: &mut MasterContext<'_>, _error: &WorkerError) {}

    /// Master: a reload was asked for and the server's own keys are valid. Take over what the
    /// application needs of `settings`: all or nothing. An error refuses the reload, and nothing
    /// has changed.
    ///
    /// # Errors
    /// A sentence for the operator.
    fn before_reload(
        &mut self,
        _master: &mut MasterContext<'_>,
        _settings: &Settings,
    ) -> Result<(), String> {
        Ok(())
    }

    /// Master: a reload is over, well or not.
    fn after_reload(&mut self, _master: &mut MasterContext<'_>, _report: &ReloadReport) {}

    /// Master: an added process wrote this into its pipe: a packet, or a piece of its stream or standard
    /// output. Left to itself it becomes a line of the log.
    fn process_output(&mut self, _master: &mut MasterContext<'_>, process: &str, bytes: &[u8]) {
        tracing::info!(process, output = %String::from_utf8_lossy(bytes).trim_end(), "says");
    }

    /// Master, once, last: every child has ended.
    fn shutdown(&mut self, _master: &mut MasterContext<'_>) {}

    /// Worker and task process, first of all. On a reload it runs while the predecessor still
    /// serves; an error there leaves the predecessor in service and the reload is reported failed.
    ///
    /// # Errors
    /// A sentence for the operator.
    fn worker_start(&mut self, _context: &mut Context<'_, Self>) -> Result<(), String> {
        Ok(())
    }

    /// Worker and task process, last of all, unless it was killed. On [`StopReason::Shutdown`] the
    /// worker's connections are still open: what is pushed here reaches them before the close frame, they
    /// are served until each is told in its turn, and their [`App::close`] follows. On the others they
    /// already belong to the successor.
    fn worker_stop(&mut self, _context: &mut Context<'_, Self>, _reason: StopReason) {}

    /// Worker: a TCP connection was accepted.
    fn connect(&mut self, _context: &mut Context<'_, Self>, _peer: SocketAddr) {}

    /// Worker: a valid WebSocket upgrade was read. May refuse it, add headers, choose a subprotocol,
    /// or answer later by [`Context::answer_handshake`].
    fn handshake(
        &mut self,
        _context: &mut Context<'_, Self>,
        _id: RequestId,
        _request: &UpgradeRequest<'_>,
    ) -> Handshake {
        Handshake::accept()
    }

    /// Worker: the connection is open and has a row in the session table. `request` has path,
    /// query, headers and cookies of its upgrade.
    fn open(
        &mut self,
        _context: &mut Context<'_, Self>,
        _conn: ConnId,
        _request: &UpgradeRequest<'_>,
    ) {
    }

    /// Worker: a connection that another process served is this one's now; rebuild from its row
    /// what the worker keeps in memory. `open` is not called again.
    fn adopt(&mut self, _context: &mut Context<'_, Self>, _conn: ConnId, _why: Adoption) {}

    /// Worker: a connection that this worker served is another's now (see [`Adoption::Balance`]): forget
    /// what the worker keeps of it in memory. It is open; its row is no longer this worker's to write,
    /// and what is sent to it goes by mail.
    fn moved_away(&mut self, _context: &mut Context<'_, Self>, _conn: ConnId) {}

    /// Worker: a whole message came.
    fn message(&mut self, context: &mut Context<'_, Self>, conn: ConnId, message: Message<'_>);

    /// Worker: a plain HTTP request came on the port. May answer later by [`Context::respond`].
    fn request(
        &mut self,
        _context: &mut Context<'_, Self>,
        _id: RequestId,
        _request: &Request,
    ) -> Reply {
        Reply::Now(Response::text(404, "not found\n"))
    }

    /// Worker: the session's deadline ([`Context::set_deadline`]) has passed, and everything the
    /// client had sent by now has been read. The deadline is cleared already; set another if one is
    /// wanted.
    fn deadline(&mut self, _context: &mut Context<'_, Self>, _conn: ConnId) {}

    /// Worker: the connection's unsent output passed the high watermark.
    fn buffer_full(&mut self, _context: &mut Context<'_, Self>, _conn: ConnId) {}

    /// Worker: the connection's unsent output fell to the low watermark again.
    fn buffer_empty(&mut self, _context: &mut Context<'_, Self>, _conn: ConnId) {}

    /// A last text message before a close frame that the engine itself sends (a protocol violation, a
    /// limit, a lost worker, a server that stops; not after [`Context::disconnect`]), where the outbox has
    /// room for it. `returning` is how many clients of this server are closed at about the same time, and
    /// had better not all come back at once. Knows no connection, so that it may be asked anywhere.
    #[must_use]
    fn goodbye(_code: u16, _reason: &str, _returning: u64) -> Option<String> {
        None
    }

    /// Close codes of the application's own that are counted apart, at most
    /// [`APP_CODES_MAX`](crate::scoreboard::APP_CODES_MAX): `closed_by_code` of the status. Those of RFC 6455 always are; all
    /// others are counted together.
    #[must_use]
    fn close_codes() -> &'static [u16] {
        &[]
    }

    /// Media type and body of an answer that the engine itself gives, to a request that does not come to
    /// [`App::request`] (malformed, too large, too late); `None`: the reason as plain text. `target` is
    /// what the client asked for, as far as it can be told. Knows no connection.
    #[must_use]
    fn refusal_body(_target: &str, _status: u16, _reason: &str) -> Option<(&'static str, Vec<u8>)> {
        None
    }

    /// Worker: an opened connection is over; its row is freed right after. Called exactly once for
    /// each `open`; for one that a dead worker served, in its successor.
    fn close(&mut self, _context: &mut Context<'_, Self>, _conn: ConnId, _closed: &Closed) {}

    /// Worker: another process of the application sent a message.
    fn pipe_message(
        &mut self,
        _context: &mut Context<'_, Self>,
        _from: Sender,
        _message: Self::PipeMessage,
    ) {
    }

    /// Task process: do the work. It may block. What it returns goes to [`App::finish`] of the
    /// worker that asked.
    fn task(
        &mut self,
        _context: &mut Context<'_, Self>,
        _task: TaskId,
        _work: Self::Task,
    ) -> Option<Self::TaskResult> {
        None
    }

    /// Worker: a task this slot asked for is over.
    fn finish(
        &mut self,
        _context: &mut Context<'_, Self>,
        _task: TaskId,
        _result: Result<Self::TaskResult, TaskFailure>,
    ) {
    }

    /// Worker: a timer this slot armed is due.
    fn timer(&mut self, _context: &mut Context<'_, Self>, _timer: TimerId, _due: &TimerDue<'_>) {}
}

/// A named area of shared memory, in 64-bit words.
#[derive(Clone, Copy, Debug)]
pub struct AreaRequest {
    /// By which [`Context::area`] finds it.
    pub name: &'static str,
    /// Its size in 64-bit words.
    pub words: usize,
}

/// A whole message of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message, valid UTF-8.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

impl Message<'_> {
    /// The payload.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// What `handshake` and `open` see of an upgrade.
#[derive(Clone, Copy, Debug)]
pub struct UpgradeRequest<'a> {
    /// The request: path, query, headers, cookies.
    pub http: &'a Request,
    /// The client's address.
    pub peer: SocketAddr,
    /// What `Sec-WebSocket-Protocol` offered, in order.
    pub subprotocols: &'a [String],
}

/// The application's answer to an upgrade.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Handshake {
    /// 101, with these additions.
    Accept {
        /// One of those offered, if any.
        subprotocol: Option<String>,
        /// Further headers of the answer.
        headers: Vec<(String, String)>,
    },
    /// No upgrade: this response instead.
    Refuse(Response),
    /// The answer comes by [`Context::answer_handshake`], at the latest within
    /// `websocket.handshake_timeout`.
    Later,
}

impl Handshake {
    /// 101 without additions.
    #[must_use]
    pub fn accept() -> Self {
        Self::Accept { subprotocol: None, headers: Vec::new() }
    }
}

/// The application's answer to a plain request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// This response.
    Now(Response),
    /// It comes by [`Context::respond`].
    Later,
}

/// An HTTP response. `Content-Length` and `Connection` are the engine's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Headers, `Content-Type` among them.
    pub headers: Vec<(String, String)>,
    /// The body; not sent in answer to HEAD.
    pub body: Vec<u8>,
}

impl Response {
    /// A plain text response.
    #[must_use]
    pub fn text(status: u16, body: &str) -> Self {
        Self::with_type(status, "text/plain; charset=utf-8", body.as_bytes().to_vec())
    }

    /// A JSON response.
    #[must_use]
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::with_type(status, "application/json", body.to_string().into_bytes())
    }

    /// A response with a body of the given media type.
    #[must_use]
    pub fn with_type(status: u16, media_type: &str, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("Content-Type".into(), media_type.into())], body }
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Why a worker has a connection that it did not accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Adoption {
    /// The slot's process was replaced in order, by a reload or by an upgrade.
    Reload,
    /// The slot's process died.
    Crash,
    /// The connection was moved between slots.
    Balance,
}

/// How a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Closed {
    /// The close code; 1006 if the transport ended without a close frame.
    pub code: u16,
    /// The reason given, empty if none.
    pub reason: String,
    /// Who began it.
    pub by: ClosedBy,
}

/// Who ended a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClosedBy {
    /// The client, by a close frame or by its transport.
    Client,
    /// This server: application, limit or protocol violation.
    Server,
    /// The worker that served it died in the middle of it (`worker_lost`).
    WorkerLost,
}

/// Why a worker or task process stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// The server stops.
    Shutdown,
    /// A successor took the slot over.
    Replaced,
}

/// A child that ended without being asked to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerError {
    /// `worker`, `task`, or the name of an added process.
    pub role: String,
    /// Its slot among its like.
    pub slot: u16,
    /// Its process id.
    pub pid: i32,
    /// How it exited, if it did.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
}

/// Where a pipe message came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Sender {
    /// A worker slot.
    Worker(SlotId),
    /// A task process, by its place.
    Task(u16),
    /// An added process, by its place.
    Process(u16),
    /// The master.
    Master,
}

/// Why a task gave no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum TaskFailure {
    /// The task process died or was killed while it had the task in hand.
    #[error("the task process died with the task in hand")]
    ProcessLost,
    /// The task ran longer than `server.task_timeout`.
    #[error("the task ran longer than server.task_timeout")]
    TimedOut,
    /// The hook panicked.
    #[error("the task hook panicked")]
    Panicked,
    /// The hook returned `None`.
    #[error("the task gave no result")]
    NoResult,
    /// The task or its result could not be decoded by the process that got it.
    #[error("the task or its result does not decode")]
    Undecodable,
}

/// A timer that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerDue<'a> {
    /// What was given when it was armed, at most [`crate::timer::PAYLOAD_MAX`] bytes.
    pub payload: &'a [u8],
    /// How many ticks have come due since the last call: 1, or more if some were missed.
    pub ticks: u64,
    /// When it was due.
    pub due: Millis,
}

/// What is told of a connection to who traces it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TraceWay {
    /// It sent a text.
    In,
    /// A text was sent to it.
    Out,
    /// A message that is no text was sent to it.
    OutBinary,
    /// It has ended.
    Closed,
}

impl TraceWay {
    /// The word for programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::OutBinary => "binary",
            Self::Closed => "closed",
        }
    }
}
