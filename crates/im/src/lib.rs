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
//! - `attendance`: what follows when a user comes and goes.
//! - `tasks`: what may block, handed to task processes.
//! - `methods`, `http`, `app`: the shell.
#![forbid(unsafe_code)]

mod app;
mod attendance;
pub mod auth;
pub mod close;
pub mod config;
mod http;
pub mod ids;
pub mod message_id;
mod methods;
mod presence;
pub mod protocol;
mod router;
mod session;
mod tables;
mod tasks;

pub use app::{ImApp, NewError};
pub use config::{IM_KEYS, ImConfig};
