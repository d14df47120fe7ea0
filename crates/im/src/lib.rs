//! The instant-messaging application of dunlin: one implementor of `dunlin_server::App`.
//!
//! It knows users, devices, sessions, presence and the JSON-RPC protocol. It has never heard of
//! processes, descriptors, sockets or signals: what it does, it does through `Context`, and what must
//! outlive a worker stands in the session table and in areas of shared memory. A worker keeps nothing
//! of its own between two hooks, so there is nothing to rebuild when it adopts a connection.
//!
//! - [`protocol`]: texts to meaning and back, pure.
//! - [`ids`], [`message_id`], [`close`]: names, message ids, close codes with their policy, pure.
//! - [`auth`]: keys and tokens, pure but for the reading of key files.
//! - `session`, `presence`, `router`: decisions, pure.
//! - `tables`: what is shared, in one place; a file a feature.
//! - `rooms`: coming, going, and who is told of it.
//! - [`online`]: the list of all users over several nodes, in Redis.
//! - `attendance`: what follows when a user comes and goes.
//! - [`backend`]: what the owner's backend is told, and asked.
//! - `tasks`: what may block, handed to task processes.
//! - [`extension`]: what programs add to it.
//! - `api`: the server's own API over HTTP.
//! - `watching`: what watchers are told of that.
//! - `methods`, `http`, `app`: the shell.
//!
//! # The IM in a program of yours
//!
//! [`ImApp`] is an application as any other: give it to [`dunlin_server::Server`], with an
//! [`Extension`] that brings methods, rules and columns of your own. Its hooks run in a test without a
//! server, as those of any application do:
//!
//! ```
//! use dunlin_im::protocol::CallError;
//! use dunlin_im::{CallContext, Extension, IM_KEYS, ImApp};
//! use dunlin_server::config::SERVER_KEYS;
//! use dunlin_server::settings::{Layers, Settings};
//! use dunlin_server::simulation::{Deed, FakeWorker};
//! use dunlin_server::{App, Message};
//! use serde_json::{Value, json, value::RawValue};
//!
//! struct Greeter;
//!
//! impl Extension for Greeter {
//!     fn methods(&self) -> &[&str] {
//!         &["app.greet"]
//!     }
//!
//!     fn call(
//!         &self,
//!         caller: &mut CallContext<'_>,
//!         _method: &str,
//!         _params: Option<&RawValue>,
//!     ) -> Result<Value, CallError> {
//!         Ok(json!({"text": format!("hello, {}", caller.user())}))
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::resolve(&[SERVER_KEYS, IM_KEYS], Layers::default())?;
//! let mut app = ImApp::new(&settings)?.with_extension(Greeter)?;
//! // With the server: `Server::new(app, Config::from_settings(settings)?).run()`.
//! let mut worker = FakeWorker::start(&mut app, 16);
//! let ann = worker.open(&mut app, "127.0.0.1:4711".parse()?, "/ws");
//! for text in [
//!     r#"{"id":1,"method":"login","params":{"user":"ann","device":{"id":"phone"}}}"#,
//!     r#"{"id":2,"method":"app.greet"}"#,
//! ] {
//!     app.message(&mut worker.context(), ann, Message::Text(text));
//! }
//! let Some(Deed::Push { payload, .. }) = worker.take_deeds().pop() else { unreachable!() };
//! let answer: Value = serde_json::from_slice(&payload)?;
//! assert_eq!(answer["result"]["text"], "hello, ann");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod api;
mod app;
mod attendance;
pub mod auth;
pub mod backend;
pub mod close;
pub mod config;
pub mod extension;
mod http;
pub mod ids;
mod limits;
pub mod message_id;
mod methods;
pub mod online;
mod page;
mod presence;
pub mod protocol;
pub mod rate;
mod rooms;
mod router;
mod session;
#[cfg(test)]
mod simulation;
mod tables;
mod tasks;
mod traced;
mod watching;

pub use api::ApiKeyError;
pub use app::{ImApp, NewError};
pub use config::{IM_KEYS, ImConfig};
pub use extension::{CallContext, Extension, LoginAttempt, read_params};
pub use limits::RateLimits;
