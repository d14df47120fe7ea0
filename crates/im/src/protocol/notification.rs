//! What the server says unasked: `hello`, `message`, `signal`, `joined`, `left`, `room`, `presence`, `bye`.
//!
//! Knows the shapes; fills in nothing by itself.

use crate::ids::{DeviceId, RoomId, UserId};
use crate::message_id::MessageId;
use crate::protocol::params::Target;
use crate::protocol::reply::{TEXT_BYTES, UserPresence, to_text};
use serde::Serialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The text of a notification.
#[must_use]
pub fn encode<N: Notification>(params: &N) -> String {
    params.to_text()
}

/// The text of a notification that is not one of ours.
#[must_use]
pub fn encode_named(method: &str, params: &Json) -> String {
    to_text(&Envelope { jsonrpc: "2.0", method, params }, TEXT_BYTES)
}

#[derive(Serialize)]
struct Envelope<'a, N: ?Sized> {
    jsonrpc: &'static str,
    method: &'a str,
    params: &'a N,
}

/// Something the server says unasked.
pub trait Notification: Serialize {
    /// Its `method`.
    const METHOD: &'static str;

    /// Its whole text.
    fn to_text(&self) -> String {
        to_text(&Envelope { jsonrpc: "2.0", method: Self::METHOD, params: self }, TEXT_BYTES)
    }
}

/// The first message on every connection.
#[derive(Serialize, Debug)]
pub struct Hello {
    /// The session's id.
    pub session: String,
    /// The server's id, the same for all its workers until it is started anew.
    pub node: String,
    /// How long a client has to log in.
    pub login_timeout_ms: u64,
    /// After how much silence a session that is logged in is closed.
    pub heartbeat_ms: u64,
    /// The largest message taken, in bytes.
    pub max_message: u64,
    /// How to come back after a close.
    pub reconnect: Reconnect,
}

/// How to come back: wait `base_ms`, doubled each time up to `max_ms`, each wait shortened by a random
/// part of up to `jitter` of it.
#[derive(Serialize, Debug, Clone, Copy, PartialEq)]
pub struct Reconnect {
    /// The first wait, in milliseconds.
    pub base_ms: u64,
    /// The longest wait, in milliseconds.
    pub max_ms: u64,
    /// From 0 to 1.
    pub jitter: f64,
}

/// A message for a user or a room.
#[derive(Serialize, Debug)]
pub struct Message<'a> {
    /// Its id.
    pub id: MessageId,
    /// Who sent it; `None` for the server's owner.
    pub from: Option<From<'a>>,
    /// For whom.
    pub to: &'a Target<'a>,
    /// What, as it was sent.
    pub body: &'a RawValue,
    /// When it was taken, Unix milliseconds.
    pub time: u64,
}

/// A message from the server's owner to everybody who is logged in.
#[derive(Serialize, Debug)]
pub struct Announcement<'a> {
    id: MessageId,
    /// Always `null`.
    from: (),
    to: &'static str,
    body: &'a RawValue,
    time: u64,
}

impl<'a> Announcement<'a> {
    /// With this id and body.
    #[must_use]
    pub fn new(id: MessageId, body: &'a RawValue) -> Self {
        Self { id, from: (), to: "all", body, time: id.unix_ms() }
    }
}

/// Something fleeting for a user or a room, such as typing.
#[derive(Serialize, Debug)]
pub struct Signal<'a> {
    /// Who sent it.
    pub from: From<'a>,
    /// For whom.
    pub to: &'a Target<'a>,
    /// What, as it was sent.
    pub body: &'a RawValue,
}

/// A user who is watched has come, gone, or changed his devices.
#[derive(Serialize, Debug)]
pub struct Presence<'a> {
    /// Who.
    pub user: &'a str,
    /// As `presence` would answer.
    #[serde(flatten)]
    pub presence: &'a UserPresence,
}

/// Who sent something, and from which device.
#[derive(Serialize, Debug)]
pub struct From<'a> {
    /// The user.
    pub user: &'a UserId<'a>,
    /// The device.
    pub device: &'a DeviceId<'a>,
}

/// A user has come into a room.
#[derive(Serialize, Debug)]
pub struct Joined<'a>(pub InRoom<'a>);

/// A user has gone out of a room.
#[derive(Serialize, Debug)]
pub struct Left<'a>(pub InRoom<'a>);

/// Users have come into a large room or gone out of it.
#[derive(Serialize, Debug)]
pub struct RoomChanged<'a> {
    /// The room.
    pub room: &'a RoomId<'a>,
    /// Users in it now.
    pub count: usize,
}

/// Who came or went, and how many users are in the room now.
#[derive(Serialize, Debug)]
pub struct InRoom<'a> {
    /// The room.
    pub room: &'a RoomId<'a>,
    /// The user.
    pub user: &'a UserId<'a>,
    /// Users in the room.
    pub count: usize,
}

/// The server is about to close the connection.
#[derive(Serialize, Debug)]
pub struct Bye {
    /// The close code that follows.
    pub code: u16,
    /// A sentence for people.
    pub reason: Cow<'static, str>,
    /// Whether to connect again.
    pub reconnect: bool,
    /// Between how many milliseconds and how many a client waits before it does.
    pub after_ms: [u64; 2],
}

impl Notification for Hello {
    const METHOD: &'static str = "hello";
}

impl Notification for Message<'_> {
    const METHOD: &'static str = "message";

    /// As serde would write it, which a test compares. This is the text that is written most of all, and
    /// of its names and marks only those of users, devices and rooms have to be looked at.
    fn to_text(&self) -> String {
        let mut text = Vec::with_capacity(TEXT_BYTES + self.body.get().len());
        text.extend_from_slice(br#"{"jsonrpc":"2.0","method":"message","params":{"id":"#);
        append(&mut text, &self.id);
        match &self.from {
            None => text.extend_from_slice(br#","from":null"#),
            Some(from) => {
                text.extend_from_slice(br#","from":{"user":"#);
                append(&mut text, from.user);
                text.extend_from_slice(br#","device":"#);
                append(&mut text, from.device);
                text.push(b'}');
            }
        }
        text.extend_from_slice(br#","to":"#);
        append(&mut text, self.to);
        text.extend_from_slice(br#","body":"#);
        text.extend_from_slice(self.body.get().as_bytes());
        text.extend_from_slice(br#","time":"#);
        append(&mut text, &self.time);
        text.extend_from_slice(b"}}");
        String::from_utf8(text).expect("JSON is UTF-8: its strings are")
    }
}

impl Notification for Announcement<'_> {
    const METHOD: &'static str = "message";
}

/// Appends what is one of ours, as JSON.
fn append<T: Serialize + ?Sized>(text: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(text, value).expect("a name, a number or a recipient does not fail");
}

impl Notification for Signal<'_> {
    const METHOD: &'static str = "signal";
}

impl Notification for Joined<'_> {
    const METHOD: &'static str = "joined";
}

impl Notification for Left<'_> {
    const METHOD: &'static str = "left";
}

impl Notification for RoomChanged<'_> {
    const METHOD: &'static str = "room";
}

impl Notification for Presence<'_> {
    const METHOD: &'static str = "presence";
}

impl Notification for Bye {
    const METHOD: &'static str = "bye";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn a_message_is_written_as_serde_would() {
        let user = |name: &str| UserId::new(name.to_owned()).unwrap();
        let (plain, odd) = (user("ann"), user("a\"n\\n \u{e9}\u{1f426}/<"));
        let device = DeviceId::new("p\"").unwrap();
        let id = MessageId::next(&AtomicU64::new(0), 1_800_000_000_000);
        let room = RoomId::new("the \"room\"").unwrap();
        for to in [Target::User(plain.clone()), Target::User(odd.clone()), Target::Room(room)] {
            for from in [None, Some(&plain), Some(&odd)] {
                for body in ["null", "\"x\"", r#"{"a" : [1.0, "é"]}"#] {
                    let body: &RawValue = serde_json::from_str(body).unwrap();
                    let from = from.map(|user| From { user, device: &device });
                    let message = Message { id, from, to: &to, body, time: 1_800_000_000_001 };
                    let by_serde = Envelope { jsonrpc: "2.0", method: "message", params: &message };
                    assert_eq!(encode(&message), serde_json::to_string(&by_serde).unwrap());
                }
            }
        }
    }

    #[test]
    fn a_message_carries_its_body_as_it_was_sent() {
        let (ann, phone) = (UserId::new("ann").unwrap(), DeviceId::new("p").unwrap());
        let to = Target::User(UserId::new("bob").unwrap());
        let id = MessageId::next(&AtomicU64::new(0), 1);
        let body: &RawValue = serde_json::from_str(r#"{"a" : 1.0}"#).unwrap();
        let from = Some(From { user: &ann, device: &phone });
        assert_eq!(
            encode(&Message { id, from, to: &to, body, time: 1 }),
            r#"{"jsonrpc":"2.0","method":"message","params":{"id":"0000000000100000","from":{"user":"ann","device":"p"},"to":{"user":"bob"},"body":{"a" : 1.0},"time":1}}"#
        );
        assert!(
            encode(&Message { id, from: None, to: &to, body, time: 1 }).contains("\"from\":null")
        );
        assert_eq!(
            encode(&Announcement::new(id, body)),
            r#"{"jsonrpc":"2.0","method":"message","params":{"id":"0000000000100000","from":null,"to":"all","body":{"a" : 1.0},"time":1}}"#
        );
    }

    #[test]
    fn a_presence_notification_is_flat() {
        let presence = UserPresence { version: 9, last_seen: Some(7), ..UserPresence::default() };
        assert_eq!(
            encode(&Presence { user: "a\"n", presence: &presence }),
            r#"{"jsonrpc":"2.0","method":"presence","params":{"user":"a\"n","online":false,"devices":[],"last_seen":7,"version":9}}"#
        );
    }
}
