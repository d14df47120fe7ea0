//! A client of a server under load, for all modes: sockets that never block, WebSocket and the IM
//! protocol as a client speaks them, and promises that can be broken.
//!
//! Knows no mode and judges nothing.

pub(crate) mod connection;
pub(crate) mod faults;
pub(crate) mod moment;
pub(crate) mod outbound;
pub(crate) mod protocol;
pub(crate) mod target;
pub(crate) mod wire;
