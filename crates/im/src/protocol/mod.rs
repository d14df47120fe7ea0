//! The IM protocol: JSON-RPC 2.0 texts to what is meant, and back. See `docs/protocol.md`.
//!
//! Pure: knows no connection, no session, no clock. Invariants: 1. No text panics or costs stack by its
//! depth. 2. Strings and bodies are borrowed from the text wherever they can be.

pub mod code;
pub mod notification;
pub(crate) mod object;
pub mod params;
pub mod reply;
pub mod request;

pub use code::{CallError, Code};
pub use request::{Call, Id, METHODS, Method, Refused, decode};
