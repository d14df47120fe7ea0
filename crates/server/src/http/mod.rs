//! HTTP/1 as far as a WebSocket server needs it: requests in, answers out, and the opening handshake.
//!
//! Knows nothing of sockets, routes, keys or clocks; timeouts and what a path means are the caller's.
//!
//! Invariants:
//! 1. Everything that is ambiguous about where a request ends is refused, never guessed: a second or odd
//!    `Content-Length`, any `Transfer-Encoding`, folded headers, a space before the colon, a
//!    line that ends in LF alone.
//! 2. After a [`Refusal`] from [`parse_request`] the connection must be closed: what follows has no known start.
//! 3. No header that leaves here holds a line break, whatever the caller passed.

mod headers;
mod origin;
mod proxies;
mod request;
mod response;
mod target;
mod upgrade;

use std::fmt;

pub use headers::Headers;
pub use origin::OriginPolicy;
pub use proxies::{PROXY_HEADER_MAX, ProxyHeader, TrustedProxies, read_proxy_header};
pub use request::{Arrival, Door, HEADERS_CAP, Request, awaits_continue, parse_request};
pub use response::{encode_continue, encode_refusal, encode_response, reason_phrase};
pub use upgrade::{Upgrade, check_upgrade, encode_switching, wants_upgrade};

/// What a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Most bytes of request line and headers together.
    pub max_head_bytes: usize,
    /// Most header lines; never more than [`HEADERS_CAP`].
    pub max_headers: usize,
    /// Most bytes of a body.
    pub max_body_bytes: usize,
}

impl Default for HttpLimits {
    /// 8 KiB of head, 64 headers, 64 KiB of body.
    fn default() -> Self {
        Self { max_head_bytes: 8 * 1024, max_headers: 64, max_body_bytes: 64 * 1024 }
    }
}

/// Why a request is not served, and the answer that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer: 400 or above.
    pub status: u16,
    /// One sentence for people; never anything the peer sent.
    pub reason: &'static str,
    /// Headers that the status asks for, such as `Allow` with 405.
    pub headers: Vec<(&'static str, String)>,
}

impl Refusal {
    /// A refusal without headers of its own.
    #[must_use]
    pub const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason, headers: Vec::new() }
    }

    /// The same refusal with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}: {}", self.status, reason_phrase(self.status), self.reason)
    }
}

impl std::error::Error for Refusal {}
