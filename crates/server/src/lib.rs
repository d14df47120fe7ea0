//! A prefork WebSocket framework: a master, worker processes, a timer process, task processes, and
//! connections that outlive the worker that serves them.
//!
//! Implement [`App`], give it to [`Server`]:
//!
//! ```no_run
//! use dunlin_server::{App, ConnId, Context, Message, Server};
//!
//! struct Echo;
//!
//! impl App for Echo {
//!     type PipeMessage = ();
//!     type Task = ();
//!     type TaskResult = ();
//!
//!     fn message(&mut self, context: &mut Context<'_, Self>, conn: ConnId, message: Message<'_>) {
//!         // A client that went away meanwhile is no error of ours.
//!         let _ = context.push(conn, message);
//!     }
//! }
//!
//! # fn config() -> dunlin_server::config::Config { unimplemented!() }
//! let code = Server::new(Echo, config()).run();
//! ```
//!
//! The processes, and what each knows:
//!
//! ```text
//! master    one thread; listeners, mailboxes, status pipe, control socket; never in a message's way
//! worker    one loop; shares the master's descriptor table; a cache of what lives outside it
//! timer     sweeps deadlines and timers in shared memory
//! task      runs what may block
//! ```
//!
//! This crate has never heard of users, rooms, logins or Redis.

pub mod app;
mod bulletin;
pub mod clock;
pub mod config;
pub mod context;
pub mod control;
pub mod exit;
pub mod http;
pub mod ids;
pub mod ipc;
mod layout;
pub mod ledger;
pub mod logging;
mod marks;
mod master;
pub mod outbox;
pub mod packed;
pub mod peers;
pub mod privileges;
pub mod process;
pub mod run_dir;
mod sandbox;
pub mod scoreboard;
pub mod server;
pub mod sessions;
pub mod settings;
pub mod shared;
pub mod simulation;
pub mod status;
mod sys;
pub mod task;
pub mod timer;
mod traces;
mod upgrade;
pub mod websocket;
mod wiring;
mod worker;

pub use app::{
    Adoption, App, AreaRequest, Closed, ClosedBy, Handshake, Message, Reply, Response, Sender,
    StopReason, TaskFailure, TimerDue, TraceWay, UpgradeRequest, WorkerError,
};
pub use context::{Context, MasterContext, PushError, Role, SendError, TimerError};
pub use http::Request;
pub use ids::{ConnId, Generation, RequestId, SlotId, TaskId, TimerId, Turn};
pub use process::{AddedProcess, PipeKind, Process, ProcessContext, ProcessEvent};
pub use server::Server;
pub use sessions::{SessionInfo, Sessions};
pub use shared::Areas;
pub use status::ReloadReport;
