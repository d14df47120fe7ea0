//! RFC 6455 after the opening handshake: bytes to events, events to bytes.
//!
//! Knows nothing of sockets, connections, users or clocks; it allocates nothing while receiving.
//!
//! Invariants:
//! 1. What is half received is three words ([`Progress`]) and at most [`CUT_MAX`] bytes that the caller
//!    keeps; nothing else has to survive between two reads, or between two processes.
//! 2. The events of a stream do not depend on where reads cut it, but for how a message is cut into pieces.
//! 3. What breaks the protocol is answered by a [`Violation`] that names the close code; nothing a peer
//!    sends panics.
//!
//! Compression (RFC 7692) is negotiated by [`Agreement`] and done by [`Inflater`] and [`Deflater`] on whole
//! messages; the receiver only tells which messages are compressed, and lends their bytes as they are.

mod close;
mod deflate;
mod extension;
mod frame;
mod opcode;
mod receiver;
mod utf8;

pub use close::{CloseCode, REASON_MAX, encode_close};
pub use deflate::{Deflated, Deflater, InflateError, Inflater, Serial};
pub use extension::Agreement;
pub use frame::{
    CONTROL_MAX, FrameKind, HEADER_MAX, encode_compressed, encode_frame, encode_header, unmask,
};
pub use opcode::Opcode;
pub use receiver::{CUT_MAX, Event, Limits, Progress, Violation};
pub use utf8::{InvalidUtf8, Utf8Tail};
