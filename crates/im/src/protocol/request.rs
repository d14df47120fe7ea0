//! From the text of a message to a [`Call`]: JSON-RPC 2.0, one request each.
//!
//! Knows the envelope and no method's parameters. Invariants: 1. No input panics. 2. What is refused
//! here is always answered; what is decoded is answered exactly if it has an id.

use crate::protocol::code::{CallError, Code};
use crate::protocol::object::{self, ObjectError};
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Longest request id as it was sent, in bytes with quotes and escapes.
pub const ID_MAX: usize = 256;

/// A request or a notification.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Of a request; `None` for a notification, which gets no answer, not even an error.
    pub id: Option<Id<'a>>,
    /// The name of what is asked for, which may be a method of an extension.
    pub name: Cow<'a, str>,
    /// What is asked for; the error if there is no such method.
    pub method: Result<Method, UnknownMethod>,
    /// `params` as sent; `None` if absent or null.
    pub params: Option<&'a RawValue>,
}

/// The id of a request: a number or a string, kept and given back as it was sent.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub struct Id<'a>(&'a RawValue);

/// A message that is not a request; it is answered with this error.
#[derive(Clone, Debug)]
pub struct Refused<'a> {
    /// The request's id if it could be read, else the answer's id is null.
    pub id: Option<Id<'a>>,
    /// Why.
    pub error: CallError,
}

/// The IM has no such method in this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownMethod;

/// A method that clients may call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// `login`
    Login,
    /// `refresh`
    Refresh,
    /// `logout`
    Logout,
    /// `ping`
    Ping,
    /// `send`
    Send,
    /// `signal`
    Signal,
    /// `join`
    Join,
    /// `leave`
    Leave,
    /// `members`
    Members,
    /// `presence`
    Presence,
    /// `watch`
    Watch,
    /// `unwatch`
    Unwatch,
    /// `sessions`
    Sessions,
    /// `kick`
    Kick,
}

/// Every method by its name.
pub const METHODS: [(&str, Method); 14] = [
    ("login", Method::Login),
    ("refresh", Method::Refresh),
    ("logout", Method::Logout),
    ("ping", Method::Ping),
    ("send", Method::Send),
    ("signal", Method::Signal),
    ("join", Method::Join),
    ("leave", Method::Leave),
    ("members", Method::Members),
    ("presence", Method::Presence),
    ("watch", Method::Watch),
    ("unwatch", Method::Unwatch),
    ("sessions", Method::Sessions),
    ("kick", Method::Kick),
];

impl Method {
    /// The method of a name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        METHODS.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
    }
}

impl<'a> Id<'a> {
    /// The id of a request whose `id` member is this value.
    #[must_use]
    pub fn from_raw(value: &'a RawValue) -> Option<Self> {
        let text = value.get();
        let begins_well = text.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit());
        // A raw value may hold half a surrogate pair, as no string does: many readers refuse it, and our
        // answer with it.
        let readable =
            || !text.contains("\\u") || serde_json::from_str::<Cow<'_, str>>(text).is_ok();
        (begins_well && text.len() <= ID_MAX && readable()).then_some(Self(value))
    }

    /// The id as it was sent.
    #[must_use]
    pub fn as_json(&self) -> &'a str {
        self.0.get()
    }
}

/// Decodes a message.
///
/// # Errors
/// It is no request: -32700 if it is no JSON, else -32600.
pub fn decode(text: &str) -> Result<Call<'_>, Refused<'_>> {
    let names = ["jsonrpc", "id", "method", "params"];
    let [version, id, method, params] =
        object::fields(text, names).map_err(|error| refuse(None, not_a_request(text, error)))?;
    let id = match id.map(Id::from_raw) {
        None => None,
        Some(Some(id)) => Some(id),
        Some(None) => return Err(refuse(None, invalid("the id must be a number or a string"))),
    };
    if version.is_some_and(|version| object::string(version).as_deref() != Some("2.0")) {
        return Err(refuse(id, invalid("jsonrpc must be \"2.0\" where it is given")));
    }
    let Some(name) = method.and_then(object::string) else {
        return Err(refuse(id, invalid("method must be there and a string")));
    };
    Ok(Call {
        id,
        method: Method::by_name(&name).ok_or(UnknownMethod),
        name,
        params: params.filter(|params| !object::is_null(params)),
    })
}

fn not_a_request(text: &str, error: ObjectError) -> CallError {
    match error {
        ObjectError::Syntax => CallError::new(Code::ParseError, "the message is no JSON"),
        ObjectError::NotAnObject if text.trim_start().starts_with('[') => {
            invalid("batches are not served: send one request a message")
        }
        ObjectError::NotAnObject => invalid("a request is an object"),
        ObjectError::Duplicate(name) => {
            CallError::new(Code::InvalidRequest, format!("{name} stands twice"))
        }
    }
}

fn invalid(message: &'static str) -> CallError {
    CallError::new(Code::InvalidRequest, message)
}

fn refuse(id: Option<Id<'_>>, error: CallError) -> Refused<'_> {
    Refused { id, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (i32, Option<String>) {
        let refused = decode(text).expect_err(text);
        (refused.error.code.number(), refused.id.map(|id| id.as_json().to_owned()))
    }

    #[test]
    fn requests_and_notifications_are_told_apart() {
        let call = decode(r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":1}}"#).unwrap();
        assert_eq!(call.id.map(|id| id.as_json()), Some("7"));
        assert_eq!(call.method, Ok(Method::Ping));
        assert_eq!(call.params.map(RawValue::get), Some(r#"{"a":1}"#));
        let call = decode(r#"{"method":"p\u0069ng","more":[1]}"#).unwrap();
        assert!(call.id.is_none() && call.params.is_none());
        assert_eq!(call.method, Ok(Method::Ping));
        let call = decode(r#"{"method":"n\u006fpe"}"#).unwrap();
        assert_eq!((call.method, &*call.name), (Err(UnknownMethod), "nope"));
        assert!(decode(r#"{"method":"ping","params":null}"#).unwrap().params.is_none());
    }

    #[test]
    fn ids_come_back_as_they_were_sent() {
        for id in ["0", "-1", "1.50", "1e3", "18446744073709551616", r#""""#, r#""a\u0062\"""#] {
            let text = format!(r#"{{"id": {id} ,"method":"ping"}}"#);
            assert_eq!(decode(&text).unwrap().id.map(|id| id.as_json()), Some(id));
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_right_code() {
        for text in ["", "{", "nope", "{\"id\":1,\"method\":\"ping\"", "\u{0}", "{\"id\":01}"] {
            assert_eq!(refused(text), (-32700, None), "{text:?}");
        }
        for text in [
            "[]",
            r#"[{"id":1,"method":"ping"}]"#,
            "5",
            "\"ping\"",
            "null",
            r#"{"id":null,"method":"ping"}"#,
            r#"{"id":true,"method":"ping"}"#,
            r#"{"id":{},"method":"ping"}"#,
            r#"{"id":[1],"method":"ping"}"#,
            r#"{"id":"\ud800","method":"ping"}"#,
            r#"{"id":1,"id":2,"method":"ping"}"#,
            r#"{"method":7}"#,
            "{}",
        ] {
            assert_eq!(refused(text), (-32600, None), "{text:?}");
        }
        for text in [
            r#"{"id":1}"#,
            r#"{"id":1,"result":{}}"#,
            r#"{"id":1,"method":null}"#,
            r#"{"id":1,"method":"ping","jsonrpc":"1.0"}"#,
            r#"{"id":1,"method":"ping","jsonrpc":2.0}"#,
            r#"{"id":1,"method":"ping","jsonrpc":null}"#,
        ] {
            assert_eq!(refused(text), (-32600, Some("1".into())), "{text:?}");
        }
        let long = format!(r#"{{"id":"{}","method":"ping"}}"#, "x".repeat(ID_MAX));
        assert_eq!(refused(&long), (-32600, None));
    }
}
