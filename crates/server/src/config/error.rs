//! Why settings that are each within their bounds do not make a config.

use super::{LISTEN_MAX, POOL_MESSAGES, TOTAL_OUTPUTS};
use std::net::SocketAddr;

/// The settings are each within their bounds, but do not go together or mean nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The program whose place this one is to take has handed over what cannot be used.
    #[error("the upgrade cannot be: {sentence}")]
    HandOff {
        /// What is wrong.
        sentence: String,
    },
    /// There is nothing to listen on.
    #[error("{origin}: server.listen is empty; name at least one address")]
    NoListen {
        /// Where it was written.
        origin: String,
    },
    /// There is too much to listen on.
    #[error("{origin}: {key} has {got} addresses, but at most {LISTEN_MAX} are allowed")]
    TooManyListen {
        /// Where it was written.
        origin: String,
        /// The key.
        key: &'static str,
        /// How many there are.
        got: usize,
    },
    /// A listen address is none.
    #[error("{origin}: {key} wants addresses such as 127.0.0.1:9502 or [::1]:9502, not {text:?}")]
    BadListen {
        /// Where it was written.
        origin: String,
        /// The key.
        key: &'static str,
        /// What was written.
        text: String,
    },
    /// The same address stands twice.
    #[error("{origin}: {key} names {address}, which is named before")]
    ListenTwice {
        /// Where it was written.
        origin: String,
        /// The key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// A proxy is no address and no network.
    #[error(
        "{origin}: http.trusted_proxies wants addresses and networks such as 10.0.0.1, 10.0.0.0/8 or \
         2001:db8::/32 (no bits behind the prefix), not {text:?}"
    )]
    BadProxy {
        /// Where it was written.
        origin: String,
        /// What was written.
        text: String,
    },
    /// The pool could be filled by too few clients.
    #[error(
        "{origin}: table.receive_pool is {pool} bytes, but must be at least {POOL_MESSAGES} times \
         websocket.max_message, which is {message} bytes"
    )]
    PoolTooSmall {
        /// Where the one of the two that was set stands.
        origin: String,
        /// The pool's size.
        pool: u64,
        /// The largest message.
        message: u64,
    },
    /// A group is named, and nobody who is to be in it.
    #[error("{origin}: server.group is set without server.user; name the user, too")]
    GroupAlone {
        /// Where it was written.
        origin: String,
    },
    /// A single connection could take what all have together.
    #[error(
        "{origin}: websocket.send_buffer_total is {total} bytes, but must be at least {TOTAL_OUTPUTS} \
         times websocket.send_buffer, which is {one} bytes"
    )]
    OutputTooSmall {
        /// Where the one of the two that was set stands.
        origin: String,
        /// What all connections of a worker may have unsent.
        total: u64,
        /// What one may.
        one: u64,
    },
    /// A relative path cannot be made absolute.
    #[error("{origin}: {key} is relative, and the working directory cannot be read: {problem}")]
    NoWorkingDirectory {
        /// Where it was written.
        origin: String,
        /// The key.
        key: &'static str,
        /// Why not.
        problem: String,
    },
}
