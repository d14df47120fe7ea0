//! The texts of the IM protocol, as a client writes and reads them.
//!
//! Pure. Reads strictly: a text that is not as the protocol says is `None`, whatever it is.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;

/// What the server said.
#[derive(Debug)]
pub(crate) enum Said<'a> {
    Hello,
    Message(Message<'a>),
    Answer {
        id: u64,
        /// The result, or the error's code.
        outcome: Result<&'a RawValue, i64>,
    },
    /// A notification that nobody here asked for; `bye`, too: the close frame behind it says the same.
    Other,
}

/// A message that came.
#[derive(Debug, Deserialize)]
pub(crate) struct Message<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) from: Party<'a>,
    #[serde(borrow)]
    pub(crate) to: Recipient<'a>,
    #[serde(borrow)]
    pub(crate) body: Cow<'a, str>,
}

/// Whom a message is for: one of the two.
#[derive(Debug, Deserialize)]
pub(crate) struct Recipient<'a> {
    #[serde(borrow)]
    pub(crate) user: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) room: Option<Cow<'a, str>>,
}

/// A user, as `from` names one.
#[derive(Debug, Deserialize)]
pub(crate) struct Party<'a> {
    #[serde(borrow)]
    pub(crate) user: Cow<'a, str>,
}

impl Message<'_> {
    pub(crate) fn id(&self) -> Option<u64> {
        message_id(&self.id)
    }
}

/// The result of `send`.
#[derive(Debug, Deserialize)]
pub(crate) struct Sent<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    pub(crate) sessions: u64,
}

impl Sent<'_> {
    pub(crate) fn id(&self) -> Option<u64> {
        message_id(&self.id)
    }
}

/// The result of `login`.
#[derive(Debug, Deserialize)]
pub(crate) struct LoggedIn<'a> {
    #[serde(borrow)]
    pub(crate) user: Cow<'a, str>,
}

/// The result of `presence`.
#[derive(Debug, Deserialize)]
pub(crate) struct Presence<'a> {
    #[serde(borrow)]
    pub(crate) users: HashMap<Cow<'a, str>, Online>,
}

/// One user of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Online {
    pub(crate) online: bool,
}

/// Reads a text.
pub(crate) fn read(text: &str) -> Option<Said<'_>> {
    let said: Envelope<'_> = serde_json::from_str(text).ok()?;
    if said.jsonrpc != "2.0" {
        return None;
    }
    match said {
        Envelope { method: Some(method), params: Some(params), id: None, .. } => {
            notification(&method, params)
        }
        Envelope { id: Some(id), result: Some(result), error: None, method: None, .. } => {
            Some(Said::Answer { id, outcome: Ok(result) })
        }
        Envelope { id: Some(id), result: None, error: Some(error), method: None, .. } => {
            Some(Said::Answer { id, outcome: Err(error.code) })
        }
        _ => None,
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    id: Option<u64>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<ErrorObject>,
}

#[derive(Deserialize)]
struct ErrorObject {
    code: i64,
}

fn notification<'a>(method: &str, params: &'a RawValue) -> Option<Said<'a>> {
    match method {
        "hello" => Some(Said::Hello),
        "message" => serde_json::from_str(params.get()).ok().map(Said::Message),
        _ => Some(Said::Other),
    }
}

/// Sixteen hexadecimal digits.
fn message_id(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16)
}

/// What a client logs in with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Credential<'a> {
    /// The open mode: who it says it is.
    User(&'a str),
    /// A token that says who it is.
    Token(&'a str),
}

/// Writes `login`.
pub(crate) fn login(id: u64, credential: Credential<'_>, into: &mut String) {
    call(id, "login", into);
    let (name, value) = match credential {
        Credential::User(user) => ("user", user),
        Credential::Token(token) => ("token", token),
    };
    let _ = write!(into, r#"{{"{name}":"{value}","device":{{"id":"bench"}}}}}}"#);
}

/// Writes `logout`.
pub(crate) fn logout(id: u64, into: &mut String) {
    call(id, "logout", into);
    into.push_str("{}}");
}

/// Writes `ping`.
pub(crate) fn ping(id: u64, into: &mut String) {
    call(id, "ping", into);
    into.push_str("{}}");
}

/// Writes `presence`.
pub(crate) fn presence<'a>(id: u64, users: impl Iterator<Item = &'a str>, into: &mut String) {
    call(id, "presence", into);
    into.push_str(r#"{"users":["#);
    for (place, user) in users.enumerate() {
        let comma = if place > 0 { "," } else { "" };
        let _ = write!(into, r#"{comma}"{user}""#);
    }
    into.push_str("]}}");
}

/// Writes `send`; the body is one of ours, in which JSON escapes nothing.
pub(crate) fn send(id: u64, user: &str, body: impl FnOnce(&mut String), into: &mut String) {
    call(id, "send", into);
    let _ = write!(into, r#"{{"to":{{"user":"{user}"}},"body":""#);
    body(into);
    into.push_str(r#""}}"#);
}

/// Writes `send` to a room; the body as above.
pub(crate) fn send_room(id: u64, room: &str, body: impl FnOnce(&mut String), into: &mut String) {
    call(id, "send", into);
    let _ = write!(into, r#"{{"to":{{"room":"{room}"}},"body":""#);
    body(into);
    into.push_str(r#""}}"#);
}

/// Writes `join`.
pub(crate) fn join(id: u64, room: &str, into: &mut String) {
    call(id, "join", into);
    let _ = write!(into, r#"{{"room":"{room}"}}}}"#);
}

/// The front of a request. Writing to a String cannot fail, here and above.
fn call(id: u64, method: &str, into: &mut String) {
    let _ = write!(into, r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":"#);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn parsed(write: impl FnOnce(&mut String)) -> Json {
        let mut text = String::new();
        write(&mut text);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn requests_are_those_of_the_protocol() {
        let asked = parsed(|text| login(1, Credential::User("ann"), text));
        assert_eq!(asked["params"], json!({"user": "ann", "device": {"id": "bench"}}));
        let asked = parsed(|text| login(1, Credential::Token("a.b.c"), text));
        assert_eq!(asked["params"], json!({"token": "a.b.c", "device": {"id": "bench"}}));
        assert_eq!(parsed(|text| logout(2, text))["method"], "logout");
        assert_eq!(parsed(|text| ping(2, text))["params"], json!({}));
        let asked = parsed(|text| presence(3, ["a", "b"].into_iter(), text));
        assert_eq!((&asked["id"], &asked["params"]["users"]), (&json!(3), &json!(["a", "b"])));
        let asked = parsed(|text| send(4, "bob", |text| text.push('x'), text));
        assert_eq!(asked["params"], json!({"to": {"user": "bob"}, "body": "x"}));
        assert_eq!(asked["jsonrpc"], "2.0");
        let asked = parsed(|text| send_room(5, "r", |text| text.push('x'), text));
        assert_eq!(asked["params"], json!({"to": {"room": "r"}, "body": "x"}));
        assert_eq!(parsed(|text| join(6, "r", text))["params"], json!({"room": "r"}));
    }

    #[test]
    fn what_the_server_says_is_read_and_nothing_else() {
        let message = r#"{"jsonrpc":"2.0","method":"message","params":{"id":"00000000001000ff",
            "from":{"user":"a","device":"d"},"to":{"user":"b"},"body":"é","time":1}}"#;
        let Some(Said::Message(message)) = read(message) else { panic!() };
        assert_eq!((message.id(), &*message.body), (Some(0x10_00FF), "é"));
        let answer =
            read(r#"{"jsonrpc":"2.0","id":7,"result":{"id":"0000000000000001","sessions":2}}"#);
        let Some(Said::Answer { id: 7, outcome: Ok(result) }) = answer else { panic!() };
        let sent: Sent<'_> = serde_json::from_str(result.get()).unwrap();
        assert_eq!((sent.id(), sent.sessions), (Some(1), 2));
        let refused = read(r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32006,"message":"x"}}"#);
        assert!(matches!(refused, Some(Said::Answer { id: 7, outcome: Err(-32006) })));
        let bye = read(r#"{"jsonrpc":"2.0","method":"bye","params":{"code":1012}}"#);
        assert!(matches!(bye, Some(Said::Other)));
        for wrong in [
            "",
            "{}",
            "[]",
            r#"{"jsonrpc":"1.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}} x"#,
            r#"{"jsonrpc":"2.0","method":"message","params":{"id":"1"}}"#,
        ] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }
}
