//! What a session tells whoever shows it.

use super::outgoing::Waiting;
use super::words::{Target, text_of};
use dunlin_server::clock::Millis;
use dunlin_server::exit::ExitCode;
use serde_json::Value as Json;
use std::fmt;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum News {
    /// Trying again.
    Connecting,
    /// Logged in as this user.
    Online {
        user: String,
    },
    /// The connection has ended; the next attempt is after so long.
    Offline {
        why: String,
        wait_ms: u64,
    },
    Message(Message),
    Typing {
        from: String,
        /// Where it will be read.
        to: Target,
        at: Millis,
    },
    Presence {
        user: String,
        online: bool,
        /// A word for each: its kind, or its id.
        devices: Vec<String>,
    },
    /// We are in a room.
    Joined {
        room: String,
        count: u64,
    },
    NotJoined {
        room: String,
        why: String,
    },
    /// Somebody came into a room, or went.
    Moved {
        room: String,
        user: String,
        came: bool,
        count: u64,
    },
    Count {
        room: String,
        count: u64,
    },
    Members {
        room: String,
        members: Vec<String>,
        more: bool,
        /// Somebody has asked for it.
        told: bool,
    },
    Who {
        states: Vec<(String, bool)>,
    },
    Sent {
        message: Waiting,
        time: u64,
        sessions: u64,
    },
    NotSent {
        message: Waiting,
        why: String,
    },
    /// Something that was asked for is not to be had.
    Refused {
        why: String,
    },
}

/// A message that came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    /// None: from whoever runs the server.
    pub(crate) from: Option<String>,
    /// The conversation it belongs to.
    pub(crate) within: Option<Target>,
    /// From another device of ours.
    pub(crate) own: bool,
    pub(crate) text: String,
    pub(crate) time: u64,
    /// As it came.
    pub(crate) params: Json,
}

impl News {
    /// The `params` of a `message`.
    pub(crate) fn message(params: &Json, me: Option<&str>) -> Self {
        let from = params["from"]["user"].as_str().map(str::to_owned);
        let own = from.is_some() && from.as_deref() == me;
        Self::Message(Message {
            within: within(&params["to"], from.as_deref(), me),
            own,
            text: text_of(&params["body"]),
            time: params["time"].as_u64().unwrap_or(0),
            from,
            params: params.clone(),
        })
    }

    /// The `params` of a `signal`, if somebody else is typing.
    pub(crate) fn signal(params: &Json, me: Option<&str>, at: Millis) -> Option<Self> {
        let from = params["from"]["user"].as_str().filter(|from| Some(*from) != me)?;
        let to = within(&params["to"], Some(from), me)?;
        (params["body"]["typing"] == true).then(|| Self::Typing { from: from.to_owned(), to, at })
    }
}

/// The conversation of what goes from one to another: the room, or the other of the two.
fn within(to: &Json, from: Option<&str>, me: Option<&str>) -> Option<Target> {
    match Target::from_json(to)? {
        Target::User(user) if Some(user.as_str()) == me => {
            from.map(|from| Target::User(from.to_owned()))
        }
        target => Some(target),
    }
}

/// Why a connection could not be opened.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum OpenFailure {
    #[error("no server answers at {place}: {why}")]
    NoServer { place: String, why: String },
    #[error("the server is full or stopping (HTTP 503)")]
    Full { retry_after_s: Option<u64> },
    #[error("{place} refuses with HTTP {status}{}", scheme_hint(place, *status))]
    Http { place: String, status: u16 },
    #[error("no TLS with {place}: {why}")]
    Tls { place: String, why: String },
    #[error("{place} does not speak WebSocket: {why}")]
    NoWebSocket { place: String, why: String },
    #[error("the server did not answer in time")]
    TimedOut,
}

/// What a proxy says to plain HTTP where it speaks TLS.
fn scheme_hint(place: &str, status: u16) -> &'static str {
    if status == 400 && place.starts_with("ws://") { ": is it a wss:// address?" } else { "" }
}

impl OpenFailure {
    /// Whether it would be the same the next time.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Http { status, .. } => *status < 500 && *status != 429,
            Self::NoServer { .. } | Self::Full { .. } | Self::TimedOut => false,
            // What stands before the server may be in the middle of its own restart.
            Self::NoWebSocket { .. } | Self::Tls { .. } => false,
        }
    }

    pub(crate) fn retry_after_ms(&self) -> u64 {
        match self {
            Self::Full { retry_after_s: Some(seconds) } => seconds.min(&600) * 1_000,
            _ => 0,
        }
    }

    /// What is said where there is no second attempt.
    pub(crate) fn ending(&self) -> Ending {
        let code = match self {
            Self::NoServer { .. } => ExitCode::NotRunning,
            _ => ExitCode::Failed,
        };
        let line = match self {
            Self::Full { retry_after_s: Some(seconds) } => {
                format!("{self}: try again in {seconds} s")
            }
            _ => self.to_string(),
        };
        Ending { code, line: Some(line) }
    }
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ending {
    pub(crate) code: ExitCode,
    /// Why, where it was not asked for.
    pub(crate) line: Option<String>,
}

impl Ending {
    pub(crate) fn done() -> Self {
        Self { code: ExitCode::Ok, line: None }
    }

    pub(crate) fn failed(line: String) -> Self {
        Self { code: ExitCode::Failed, line: Some(line) }
    }
}

impl fmt::Display for Message {
    /// One line, without its time: `#tea bob: milk?`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use super::words::plain;
        match &self.within {
            Some(room @ Target::Room(_)) => write!(f, "{room} ")?,
            Some(Target::User(user)) if self.own => write!(f, "→ {} ", plain(user))?,
            _ => {}
        }
        let from = self.from.as_deref().unwrap_or("(server)");
        write!(f, "{}: {}", plain(from), plain(&self.text))
    }
}
