//! What the server answers: the response of a request, and the result of each method.
//!
//! Knows the shapes; fills in nothing by itself.

use crate::ids::{DeviceId, RoomId, UserId};
use crate::message_id::MessageId;
use crate::protocol::code::CallError;
use crate::protocol::request::Id;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// The text of a response with a result.
#[must_use]
pub fn result<R: Serialize>(id: Id<'_>, result: &R) -> String {
    #[derive(Serialize)]
    struct Response<'a, R> {
        jsonrpc: &'static str,
        id: Id<'a>,
        result: &'a R,
    }
    to_text(&Response { jsonrpc: "2.0", id, result }, TEXT_BYTES)
}

/// The text of a response with an error; without an id it is `null`.
#[must_use]
pub fn error(id: Option<Id<'_>>, error: &CallError) -> String {
    #[derive(Serialize)]
    struct Response<'a> {
        jsonrpc: &'static str,
        id: Option<Id<'a>>,
        error: &'a CallError,
    }
    to_text(&Response { jsonrpc: "2.0", id, error }, TEXT_BYTES)
}

/// What most texts without a body fit in, so that they are not moved while they grow.
pub(crate) const TEXT_BYTES: usize = 256;

/// The JSON text of a value whose shape is one of ours, of about so many bytes.
pub(crate) fn to_text<T: Serialize>(value: &T, bytes: usize) -> String {
    let mut text = Vec::with_capacity(bytes);
    // Writing JSON fails on maps whose keys are no strings and on a failing `Serialize`; the types of
    // this module and of `notification` have neither.
    serde_json::to_writer(&mut text, value)
        .expect("our own types have string keys and do not fail");
    String::from_utf8(text).expect("JSON is UTF-8: its strings are")
}

/// The result of a method that has nothing to say.
#[derive(Serialize, Debug)]
pub struct Done {}

/// The result of `login`.
#[derive(Serialize, Debug)]
pub struct LoggedIn<'a> {
    /// Who is logged in.
    pub user: UserId<'a>,
    /// On what.
    pub device: DeviceId<'a>,
    /// The session's id.
    pub session: String,
    /// After how much silence the session is closed, in milliseconds.
    pub heartbeat_ms: u64,
    /// When the token expires, Unix milliseconds; not there in the open mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// The rooms of the token that the session is in; not there if the token does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<RoomId<'static>>>,
    /// The server's clock, Unix milliseconds.
    pub time: u64,
}

/// The result of `refresh`.
#[derive(Serialize, Debug)]
pub struct Refreshed {
    /// When the new token expires, Unix milliseconds.
    pub expires: u64,
    /// The rooms of the token that the session is in; not there if the token does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<RoomId<'static>>>,
}

/// The result of `ping`.
#[derive(Serialize, Debug)]
pub struct Pong {
    /// The server's clock, Unix milliseconds.
    pub time: u64,
}

/// The result of `send`.
#[derive(Serialize, Debug)]
pub struct Sent {
    /// The message's id.
    pub id: MessageId,
    /// When it was taken, Unix milliseconds.
    pub time: u64,
    /// How many live sessions of the recipient took it.
    pub sessions: usize,
}

/// The result of `join` and `leave`.
#[derive(Serialize, Debug)]
pub struct RoomCount<'a> {
    /// The room.
    pub room: RoomId<'a>,
    /// Users in it then; 0 for who was not in it.
    pub count: usize,
}

/// The result of `members`.
#[derive(Serialize, Debug)]
pub struct RoomMembers<'a> {
    /// The room.
    pub room: RoomId<'a>,
    /// Users in it, each once.
    pub members: Vec<String>,
    /// What to ask the rest with, if there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Whether users of servers that cannot be asked now are missing.
    pub partial: bool,
}

/// The result of `kick`.
#[derive(Serialize, Debug)]
pub struct Kicked {
    /// How many sessions were closed.
    pub kicked: usize,
}

/// The result of `sessions`.
#[derive(Serialize, Debug)]
pub struct OwnSessions {
    /// One's own sessions, oldest first.
    pub sessions: Vec<OwnSession>,
}

/// One of one's own sessions.
#[derive(Serialize, Debug, PartialEq, Eq)]
pub struct OwnSession {
    /// Its id.
    pub session: String,
    /// The device it is on.
    pub device: String,
    /// The client's address, without the port.
    pub ip: String,
    /// Since when it is connected, Unix milliseconds.
    pub connected_at: u64,
    /// When it last sent something, Unix milliseconds.
    pub last_active: u64,
}

/// The result of `presence`, `watch` and `unwatch`: in the order asked, each user once.
#[derive(Debug)]
pub struct PresenceAnswer<'a>(pub Vec<(UserId<'a>, UserPresence)>);

/// The result of `presence`, over all nodes where there are several.
#[derive(Serialize, Debug)]
pub struct FoundPresence<'a> {
    /// Of each user.
    #[serde(flatten)]
    pub answer: PresenceAnswer<'a>,
    /// Whether it is from one node alone though there are others, which could not be asked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// Whether a user is online, and where.
#[derive(Serialize, Debug, Default, Clone, PartialEq, Eq)]
pub struct UserPresence {
    /// Whether there is any live session.
    pub online: bool,
    /// The devices with a live session, the most recently active first.
    pub devices: Vec<DevicePresence>,
    /// When the user's last session ended, Unix milliseconds; `None` while he is online, and if that is not
    /// kept.
    pub last_seen: Option<u64>,
    /// Of two of these, and of notifications, the one with the larger version is the newer.
    pub version: u64,
}

/// A device that is online.
#[derive(Serialize, Debug, Clone, PartialEq, Eq)]
pub struct DevicePresence {
    /// Its id.
    pub id: String,
    /// Its model, empty if not told.
    pub model: String,
    /// Its kind, empty if not told.
    pub kind: String,
    /// When it last sent something, Unix milliseconds.
    pub last_active: u64,
}

impl Serialize for PresenceAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Users<'a>(&'a [(UserId<'a>, UserPresence)]);
        impl Serialize for Users<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(user, presence)| (user, presence)))
            }
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("users", &Users(&self.0))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::code::Code;
    use serde_json::value::RawValue;

    #[test]
    fn responses_have_the_shape_of_json_rpc() {
        let raw: &RawValue = serde_json::from_str(r#""a\u0062""#).unwrap();
        let id = Id::from_raw(raw).unwrap();
        assert_eq!(
            result(id, &Pong { time: 7 }),
            r#"{"jsonrpc":"2.0","id":"a\u0062","result":{"time":7}}"#
        );
        assert_eq!(result(id, &Done {}), r#"{"jsonrpc":"2.0","id":"a\u0062","result":{}}"#);
        let failed = CallError::new(Code::ParseError, "no \"JSON\"");
        assert_eq!(
            error(None, &failed),
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no \"JSON\"","data":{"reason":"parse_error"}}}"#
        );
    }

    #[test]
    fn presence_is_a_map_by_user() {
        let ann = UserId::new("a\"n").unwrap();
        let bob = UserId::new("bob").unwrap();
        let device = DevicePresence {
            id: "d".into(),
            model: String::new(),
            kind: "phone".into(),
            last_active: 5,
        };
        let online =
            UserPresence { online: true, devices: vec![device], last_seen: None, version: 8 };
        let answer = PresenceAnswer(vec![(ann, online), (bob, UserPresence::default())]);
        assert_eq!(
            serde_json::to_string(&answer).unwrap(),
            r#"{"users":{"a\"n":{"online":true,"devices":[{"id":"d","model":"","kind":"phone","last_active":5}],"last_seen":null,"version":8},"bob":{"online":false,"devices":[],"last_seen":null,"version":0}}}"#
        );
    }
}
