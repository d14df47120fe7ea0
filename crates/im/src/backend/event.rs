//! What the backend is told, as JSON.
//!
//! Pure. Every event has `event`, `node`, `seq` and `time` first, and then its own members.

use crate::ids::NodeId;
use crate::protocol::params::Target;
use serde::Serialize;
use serde_json::value::RawValue;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// Most sessions one page of a `boot` names. With the longest names a page stays below 100 kB, which is what
/// servers often take by default.
pub(crate) const BOOT_PAGE: usize = 250;

/// Where an event comes from, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    /// This server.
    pub(crate) node: NodeId,
    /// The number of the event; each is above those before.
    pub(crate) seq: u64,
    /// Unix milliseconds.
    pub(crate) unix_ms: u64,
}

/// Something to tell.
pub(crate) trait Event: Serialize {
    /// Its `event`.
    const NAME: &'static str;
}

/// The body of the request that tells an event.
pub(crate) fn encode<E: Event>(stamp: Stamp, event: &E) -> String {
    let Stamp { node, seq, unix_ms } = stamp;
    // As in `protocol::reply`: our own types have string keys and do not fail.
    let own = serde_json::to_string(event).expect("our own types have string keys and do not fail");
    let mut text = String::with_capacity(own.len() + 96);
    let name = E::NAME;
    // Writing to a string does not fail.
    let _ = write!(
        text,
        r#"{{"event":"{name}","node":"{node}","seq":{seq},"time":{unix_ms},{}"#,
        &own[1..]
    );
    text
}

/// Whether somebody may log in. `params`: as they were sent, where no token is among them.
pub(crate) fn question_of_login(
    node: NodeId,
    unix_ms: u64,
    login: &Login<'_>,
    params: Option<&RawValue>,
) -> String {
    #[derive(Serialize)]
    struct Asks<'a> {
        action: &'static str,
        user: &'a str,
        device: DeviceOf<'a>,
        session: &'a str,
        ip: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        params: Option<&'a RawValue>,
    }
    let Login { who, ip } = login;
    let (user, device, session) = (who.user, who.device, &*who.session);
    let ip = ip.as_deref();
    question(node, unix_ms, &Asks { action: "login", user, device, session, ip, params })
}

/// Whether somebody may join a room.
pub(crate) fn question_of_join(node: NodeId, unix_ms: u64, who: &Who<'_>, room: &str) -> String {
    #[derive(Serialize)]
    struct Asks<'a> {
        action: &'static str,
        room: &'a str,
        user: &'a str,
        device: DeviceOf<'a>,
        session: &'a str,
    }
    let (user, device, session) = (who.user, who.device, &*who.session);
    question(node, unix_ms, &Asks { action: "join", room, user, device, session })
}

/// A question has no number: one that is not answered is asked again by its client, and is no loss.
fn question<Q: Serialize>(node: NodeId, unix_ms: u64, asks: &Q) -> String {
    let own = serde_json::to_string(asks).expect("our own types have string keys and do not fail");
    format!(r#"{{"event":"authorise","node":"{node}","time":{unix_ms},{}"#, &own[1..])
}

/// A session that is, or was, logged in.
#[derive(Serialize, Debug)]
pub(crate) struct Who<'a> {
    pub(crate) user: &'a str,
    pub(crate) device: DeviceOf<'a>,
    pub(crate) session: String,
}

#[derive(Serialize, Clone, Copy, Debug)]
pub(crate) struct DeviceOf<'a> {
    pub(crate) id: &'a str,
    pub(crate) model: &'a str,
    pub(crate) kind: &'a str,
}

/// Somebody has logged in.
#[derive(Serialize, Debug)]
pub(crate) struct Login<'a> {
    #[serde(flatten)]
    pub(crate) who: Who<'a>,
    pub(crate) ip: Option<String>,
}

/// A login is over.
#[derive(Serialize, Debug)]
pub(crate) struct Logout<'a> {
    #[serde(flatten)]
    pub(crate) who: Who<'a>,
    /// `logout`, `client`, `server` or `worker_lost`.
    pub(crate) by: &'static str,
    /// The close code; none after `logout`.
    pub(crate) code: Option<u16>,
    pub(crate) reason: &'a str,
}

/// A message was sent.
#[derive(Serialize, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) id: String,
    pub(crate) from: Option<Sender<'a>>,
    pub(crate) to: &'a Target<'a>,
    /// None where it was too large for the queue.
    pub(crate) body: Option<&'a RawValue>,
    /// How long it was then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) omitted_bytes: Option<usize>,
    pub(crate) sessions: usize,
}

#[derive(Serialize, Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) user: &'a str,
    pub(crate) device: &'a str,
}

/// Who is online, so that the backend can put right what it believes.
#[derive(Serialize, Debug)]
pub(crate) struct Boot<'a> {
    /// `start`, `reload`, `recovered` or `lost`.
    pub(crate) reason: &'static str,
    /// Where clients reach this server.
    pub(crate) listen: &'a [SocketAddr],
    /// The number of the first page.
    pub(crate) boot: u64,
    pub(crate) page: u64,
    /// Whether another page follows.
    pub(crate) more: bool,
    pub(crate) online: Vec<Online>,
}

/// One session of a [`Boot`].
#[derive(Serialize, Debug)]
pub(crate) struct Online {
    pub(crate) user: String,
    pub(crate) device: String,
    pub(crate) session: String,
}

impl Event for Login<'_> {
    const NAME: &'static str = "login";
}

impl Event for Logout<'_> {
    const NAME: &'static str = "logout";
}

impl Event for Message<'_> {
    const NAME: &'static str = "message";
}

impl Event for Boot<'_> {
    const NAME: &'static str = "boot";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserId;

    const STAMP: Stamp = Stamp { node: NodeId(0xab), seq: 7, unix_ms: 1_764_529_200_123 };
    const HEAD: &str = r#""node":"00000000000000ab","seq":7,"time":1764529200123,"#;

    fn who() -> Who<'static> {
        let device = DeviceOf { id: "p\"1", model: "", kind: "phone" };
        Who { user: "ann", device, session: "0000000100000002".into() }
    }

    #[test]
    fn logins_and_their_ends_say_who_and_why() {
        let login = Login { who: who(), ip: Some("192.0.2.1".into()) };
        let who_text = r#""user":"ann","device":{"id":"p\"1","model":"","kind":"phone"},"session":"0000000100000002""#;
        assert_eq!(
            encode(STAMP, &login),
            format!(r#"{{"event":"login",{HEAD}{who_text},"ip":"192.0.2.1"}}"#)
        );
        let logout = Logout { who: who(), by: "client", code: Some(1006), reason: "" };
        assert_eq!(
            encode(STAMP, &logout),
            format!(
                r#"{{"event":"logout",{HEAD}{who_text},"by":"client","code":1006,"reason":""}}"#
            )
        );
    }

    #[test]
    fn a_message_carries_its_body_as_it_was_sent_or_says_how_long_it_was() {
        let to = Target::User(UserId::new("bob").unwrap());
        let body: &RawValue = serde_json::from_str(r#"{"a" : 1.0}"#).unwrap();
        let from = Some(Sender { user: "ann", device: "d" });
        let id = "0000000000100000".to_owned();
        let mut message =
            Message { id, from, to: &to, body: Some(body), omitted_bytes: None, sessions: 2 };
        let start =
            r#""id":"0000000000100000","from":{"user":"ann","device":"d"},"to":{"user":"bob"},"#;
        assert_eq!(
            encode(STAMP, &message),
            format!(r#"{{"event":"message",{HEAD}{start}"body":{{"a" : 1.0}},"sessions":2}}"#)
        );
        (message.body, message.omitted_bytes) = (None, Some(70_000));
        let short = encode(STAMP, &message);
        assert!(short.contains(r#""body":null,"omitted_bytes":70000,"#), "{short}");
    }
}
