//! The parameters of each method: from JSON to what is meant, with errors that name the field.
//!
//! Knows the shape of parameters and the rules of ids; knows no session. Unknown fields are ignored,
//! and an optional field may be `null`.

use crate::auth::TOKEN_MAX;
use crate::ids::{DeviceId, RoomId, UserId, check_name};
use crate::protocol::code::{CallError, Code};
use crate::protocol::object::{self, ElementsError, Fields, ObjectError};
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Longest device model, in bytes.
pub const MODEL_MAX: usize = 64;
/// Longest kind of device, in bytes.
pub const KIND_MAX: usize = 32;
/// Longest idempotency key of a `send`, in bytes.
pub const KEY_MAX: usize = 64;
/// Most users one `presence`, `watch` or `unwatch` may name.
pub const PRESENCE_USERS_MAX: usize = 100;
/// Most users that one `members` gives.
pub const MEMBERS_MAX: usize = 1_000;
/// So many where it does not say how many.
pub const MEMBERS_DEFAULT: usize = 100;
/// How deep a body may be nested: JSON readers with a limit of 128 can still read the notification
/// around it.
pub const BODY_DEPTH_MAX: usize = 100;

/// `login` in open mode.
#[derive(Debug)]
pub struct Login<'a> {
    /// Who it is.
    pub user: UserId<'a>,
    /// On what.
    pub device: Device<'a>,
}

/// `login` with a token.
#[derive(Debug)]
pub struct TokenLogin<'a> {
    /// What says who it is.
    pub token: Token<'a>,
    /// On what.
    pub device: Device<'a>,
}

/// `refresh`
#[derive(Debug)]
pub struct Refresh<'a> {
    /// The token in place of the one before.
    pub token: Token<'a>,
}

/// A token as it was sent, of at most [`TOKEN_MAX`] bytes.
pub struct Token<'a>(pub Cow<'a, str>);

/// Nobody may see it.
impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A device as its client describes it.
#[derive(Debug)]
pub struct Device<'a> {
    /// Its id, chosen by the client.
    pub id: DeviceId<'a>,
    /// Such as `Pixel 9`; empty if not told.
    pub model: Cow<'a, str>,
    /// Such as `phone`; empty if not told.
    pub kind: Cow<'a, str>,
}

/// `send`
#[derive(Debug)]
pub struct Send<'a> {
    /// To whom.
    pub to: Target<'a>,
    /// What, as it was sent.
    pub body: &'a RawValue,
    /// What makes a retry the same message.
    pub key: Option<Cow<'a, str>>,
}

/// `signal`
#[derive(Debug)]
pub struct Signal<'a> {
    /// To whom.
    pub to: Target<'a>,
    /// What, as it was sent.
    pub body: &'a RawValue,
}

/// Whom a message is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target<'a> {
    /// All sessions of a user.
    User(UserId<'a>),
    /// All members of a room.
    Room(RoomId<'a>),
}

/// `join` and `leave`
#[derive(Debug)]
pub struct InRoom<'a> {
    /// Which room.
    pub room: RoomId<'a>,
}

/// `members`
#[derive(Debug)]
pub struct Members<'a> {
    /// Of which room.
    pub room: RoomId<'a>,
    /// At most so many, 1 to [`MEMBERS_MAX`].
    pub limit: usize,
    /// Where the last answer ended; 0 at first.
    pub from: u32,
}

/// `presence`, `watch` and `unwatch`
#[derive(Debug)]
pub struct Presence<'a> {
    /// Of whom, each once, in the order asked.
    pub users: Vec<UserId<'a>>,
}

/// `kick`
#[derive(Debug)]
pub struct Kick<'a> {
    /// Which of one's own devices.
    pub device: DeviceId<'a>,
}

type Params<'a> = Option<&'a RawValue>;

impl<'a> Login<'a> {
    /// Reads `{user, device: {id, model?, kind?}}`.
    ///
    /// # Errors
    /// -32602 that names the field.
    pub fn read(params: Params<'a>) -> Result<Self, CallError> {
        let [user, device] = members(params, ["user", "device"])?;
        let user = text(required(user, "user")?, "user")?;
        let device = Device::read(device)?;
        Ok(Self {
            user: UserId::new(user).map_err(|error| CallError::param("user", error))?,
            device,
        })
    }
}

impl<'a> TokenLogin<'a> {
    /// Reads `{token, device: {id, model?, kind?}}`.
    ///
    /// # Errors
    /// -32602 that names the field.
    pub fn read(params: Params<'a>) -> Result<Self, CallError> {
        let [token, device] = members(params, ["token", "device"])?;
        Ok(Self { token: Token::read(token)?, device: Device::read(device)? })
    }
}

impl<'a> Refresh<'a> {
    /// Reads `{token}`.
    ///
    /// # Errors
    /// -32602 that names the field.
    pub fn read(params: Params<'a>) -> Result<Self, CallError> {
        let [token] = members(params, ["token"])?;
        Ok(Self { token: Token::read(token)? })
    }
}

impl<'a> Token<'a> {
    fn read(value: Option<&'a RawValue>) -> Result<Self, CallError> {
        let token = text(required(value, "token")?, "token")?;
        if token.len() > TOKEN_MAX {
            let problem = format_args!("must have at most {TOKEN_MAX} bytes");
            return Err(CallError::param("token", problem));
        }
        Ok(Self(token))
    }
}

impl<'a> Device<'a> {
    fn read(value: Option<&'a RawValue>) -> Result<Self, CallError> {
        let device = required(value, "device")?;
        let [id, model, kind] = object_at(device, "device", ["id", "model", "kind"])?;
        let id = text(required(id, "device.id")?, "device.id")?;
        Ok(Self {
            id: DeviceId::new(id).map_err(|error| CallError::param("device.id", error))?,
            model: label(model, "device.model", MODEL_MAX)?,
            kind: label(kind, "device.kind", KIND_MAX)?,
        })
    }
}

impl<'a> Send<'a> {
    /// Reads `{to, body, key?}`; the body may have `body_max` bytes.
    ///
    /// # Errors
    /// -32602 that names the field; -32005 for the body.
    pub fn read(params: Params<'a>, body_max: usize) -> Result<Self, CallError> {
        let [to, body_field, key] = members(params, ["to", "body", "key"])?;
        let key = match key.filter(|key| !object::is_null(key)) {
            None => None,
            Some(key) => {
                let key = text(key, "key")?;
                if key.is_empty() || key.len() > KEY_MAX {
                    return Err(CallError::param("key", bytes_wanted(1, KEY_MAX)));
                }
                Some(key)
            }
        };
        Ok(Self { to: target(to)?, body: body(body_field, body_max)?, key })
    }
}

impl<'a> Signal<'a> {
    /// Reads `{to, body}`; the body may have `body_max` bytes.
    ///
    /// # Errors
    /// -32602 that names the field; -32005 for the body.
    pub fn read(params: Params<'a>, body_max: usize) -> Result<Self, CallError> {
        let [to, body_field] = members(params, ["to", "body"])?;
        Ok(Self { to: target(to)?, body: body(body_field, body_max)? })
    }
}

impl<'a> InRoom<'a> {
    /// Reads `{room}`.
    ///
    /// # Errors
    /// -32602 that names the field.
    pub fn read(params: Params<'a>) -> Result<Self, CallError> {
        let [room] = members(params, ["room"])?;
        Ok(Self { room: room_id(room)? })
    }
}

impl<'a> Members<'a> {
    /// Reads `{room, limit?, cursor?}`.
    ///
    /// # Errors
    /// -32602 that names the field.
    pub fn read(params: Params<'a>) -> Result<Self, CallError> {
        let [room, limit, cursor] = members(params, ["room", "limit", "cursor"])?;
        let given = |value: Option<&'a RawValue>| value.filter(|value| !object::is_null(value));
        let limit = given(limit).map_or(Ok(MEMBERS_DEFAULT), |limit| {
            let limit = limit.get().parse().ok().filter(|limit| (1..=MEMBERS_MAX).contains(limit));
            let problem = format_args!("must be a whole number from 1 to {MEMBERS_MAX}");
            limit.ok_or_else(|| CallError::param("limit", problem))
        })?;
        let from = given(cursor).map_or(Ok(0), |cursor| {
            let cursor = text(cursor, "cursor")?;
            let from = cursor.parse().ok().filter(|from: &u32| from.to_string() == cursor);
            from.ok_or_else(|| CallError::param("cursor", "must be one that members gave"))
        })?;
        Ok(Self { room: room_id(room)?, limit, from })
    }
}

impl<'a> Presence<'a> {
    /// Reads `{users: [...]}`; a user named twice counts once.
    ///
    /// # Errors
    /// -32602 that names the field.
    pub fn read(params: Params<'a>) -> Result<Self, CallError> {
        let [list] = members(params, ["users"])?;
        let list = required(list, "users")?;
        let elements = object::elements(list, PRESENCE_USERS_MAX).map_err(|error| match error {
            ElementsError::NotAnArray => CallError::param("users", "must be an array of users"),
            ElementsError::TooMany => CallError::param(
                "users",
                format_args!("must have at most {PRESENCE_USERS_MAX} users"),
            ),
        })?;
        let mut users = Vec::with_capacity(elements.len());
        for (place, element) in elements.into_iter().enumerate() {
            let field = || format!("users[{place}]");
            let name = object::string(element)
                .ok_or_else(|| CallError::param(&field(), "must be a string"))?;
            let user = UserId::new(name).map_err(|error| CallError::param(&field(), error))?;
            if !users.contains(&user) {
                users.push(user);
            }
        }
        Ok(Self { users })
    }
}

impl<'a> Kick<'a> {
    /// Reads `{device}`.
    ///
    /// # Errors
    /// -32602 that names the field.
    pub fn read(params: Params<'a>) -> Result<Self, CallError> {
        let [device] = members(params, ["device"])?;
        let device = text(required(device, "device")?, "device")?;
        Ok(Self {
            device: DeviceId::new(device).map_err(|error| CallError::param("device", error))?,
        })
    }
}

/// Checks the parameters of a method that takes none: absent, or any object.
///
/// # Errors
/// -32602.
pub fn read_none(params: Option<&RawValue>) -> Result<(), CallError> {
    params.map_or(Ok(()), |params| object_at(params, "", []).map(|_: Fields<'_, 0>| ()))
}

/// The named members of `params`, which must be an object.
fn members<'a, const N: usize>(
    params: Params<'a>,
    names: [&'static str; N],
) -> Result<Fields<'a, N>, CallError> {
    let params = params.ok_or_else(|| CallError::param("", "is missing"))?;
    object_at(params, "", names)
}

fn object_at<'a, const N: usize>(
    value: &'a RawValue,
    field: &str,
    names: [&'static str; N],
) -> Result<Fields<'a, N>, CallError> {
    object::fields(value.get(), names).map_err(|error| match error {
        ObjectError::Duplicate(name) => {
            let dot = if field.is_empty() { "" } else { "." };
            CallError::param(&format!("{field}{dot}{name}"), "stands twice")
        }
        ObjectError::NotAnObject | ObjectError::Syntax => {
            CallError::param(field, "must be an object")
        }
    })
}

fn required<'a>(value: Option<&'a RawValue>, field: &str) -> Result<&'a RawValue, CallError> {
    value.ok_or_else(|| CallError::param(field, "is missing"))
}

fn text<'a>(value: &'a RawValue, field: &str) -> Result<Cow<'a, str>, CallError> {
    object::string(value).ok_or_else(|| CallError::param(field, "must be a string"))
}

/// An optional text of at most `most` bytes, which follows the rules of a name or is empty.
fn label<'a>(
    value: Option<&'a RawValue>,
    field: &str,
    most: usize,
) -> Result<Cow<'a, str>, CallError> {
    let Some(value) = value.filter(|value| !object::is_null(value)) else {
        return Ok(Cow::Borrowed(""));
    };
    let text = text(value, field)?;
    if text.len() > most {
        return Err(CallError::param(field, format_args!("must have at most {most} bytes")));
    }
    if !text.is_empty() {
        check_name(&text).map_err(|error| CallError::param(field, error))?;
    }
    Ok(text)
}

fn room_id(value: Option<&RawValue>) -> Result<RoomId<'_>, CallError> {
    let room = text(required(value, "room")?, "room")?;
    RoomId::new(room).map_err(|error| CallError::param("room", error))
}

fn target(value: Option<&RawValue>) -> Result<Target<'_>, CallError> {
    let value = required(value, "to")?;
    match object_at(value, "to", ["user", "room"])? {
        [Some(user), None] => UserId::new(text(user, "to.user")?)
            .map(Target::User)
            .map_err(|error| CallError::param("to.user", error)),
        [None, Some(room)] => RoomId::new(text(room, "to.room")?)
            .map(Target::Room)
            .map_err(|error| CallError::param("to.room", error)),
        _ => Err(CallError::param("to", "must have one of user and room")),
    }
}

fn body(value: Option<&RawValue>, most: usize) -> Result<&RawValue, CallError> {
    let value = required(value, "body")?;
    let bytes = value.get().len();
    if bytes > most {
        let message = format!("params.body has {bytes} bytes, and at most {most} are taken");
        return Err(CallError::new(Code::TooLarge, message));
    }
    if object::depth(value.get()) > BODY_DEPTH_MAX {
        let problem = format_args!("must not be nested deeper than {BODY_DEPTH_MAX}");
        return Err(CallError::param("body", problem));
    }
    Ok(value)
}

fn bytes_wanted(least: usize, most: usize) -> String {
    format!("must have {least} to {most} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Option<&RawValue> {
        Some(serde_json::from_str(text).unwrap())
    }

    fn problem<T: fmt::Debug>(result: Result<T, CallError>) -> String {
        let error = result.expect_err("it must be refused");
        assert_eq!(error.code, Code::InvalidParams);
        error.message.into_owned()
    }

    #[test]
    fn a_login_names_user_and_device() {
        let login = Login::read(raw(
            r#"{"user":"ann","device":{"id":"d1","model":"Pixel \"9\"","kind":null,"x":1},"y":2}"#,
        ))
        .unwrap();
        assert_eq!((login.user.as_str(), login.device.id.as_str()), ("ann", "d1"));
        assert_eq!((&*login.device.model, &*login.device.kind), ("Pixel \"9\"", ""));
    }

    #[test]
    fn a_token_is_bounded_and_never_shown() {
        let params = |token: &str| format!(r#"{{"token":"{token}","device":{{"id":"d"}}}}"#);
        let (longest, long) = (params(&"t".repeat(TOKEN_MAX)), params(&"t".repeat(TOKEN_MAX + 1)));
        let login = TokenLogin::read(raw(&longest)).unwrap();
        assert_eq!((login.token.0.len(), login.device.id.as_str()), (TOKEN_MAX, "d"));
        assert!(!format!("{login:?}").contains("tt"));
        assert_eq!(Refresh::read(raw(&longest)).unwrap().token.0.len(), TOKEN_MAX);
        for (text, field) in [
            (&*long, "params.token must have at most 8192 bytes"),
            (r#"{"device":{"id":"d"}}"#, "params.token is missing"),
            (r#"{"user":"ann","device":{"id":"d"}}"#, "params.token is missing"),
            (r#"{"token":7,"device":{"id":"d"}}"#, "params.token must be a string"),
            (r#"{"token":"","token":"","device":{"id":"d"}}"#, "params.token stands twice"),
            (r#"{"token":"t"}"#, "params.device is missing"),
        ] {
            let said = problem(TokenLogin::read(raw(text)));
            assert!(said.starts_with(field), "{said}");
        }
        assert!(problem(Refresh::read(raw(&long))).contains("at most 8192 bytes"));
        assert!(problem(Refresh::read(raw("{}"))).starts_with("params.token is missing"));
    }

    #[test]
    fn a_wrong_login_says_which_field() {
        let long = format!(r#"{{"user":"{}","device":{{"id":"d"}}}}"#, "x".repeat(65));
        let model = format!(r#"{{"user":"a","device":{{"id":"d","model":"{}"}}}}"#, "x".repeat(65));
        let kind = format!(r#"{{"user":"a","device":{{"id":"d","kind":"{}"}}}}"#, "x".repeat(33));
        for (text, field) in [
            ("{}", "params.user is missing"),
            // A token in the open mode: docs/troubleshooting.md names this answer.
            (r#"{"token":"t","device":{"id":"d"}}"#, "params.user is missing"),
            ("[]", "params must be an object"),
            ("7", "params must be an object"),
            (r#"{"user":"a"}"#, "params.device is missing"),
            (r#"{"user":1,"device":{"id":"d"}}"#, "params.user must be a string"),
            (r#"{"user":null,"device":{"id":"d"}}"#, "params.user must be a string"),
            (r#"{"user":"","device":{"id":"d"}}"#, "params.user must not be empty"),
            (&long, "params.user must have at most 64 bytes"),
            (r#"{"user":"a\u0000","device":{"id":"d"}}"#, "params.user must not have control"),
            (r#"{"user":"a","user":"b","device":{"id":"d"}}"#, "params.user stands twice"),
            (r#"{"user":"a","device":"d"}"#, "params.device must be an object"),
            (r#"{"user":"a","device":["d"]}"#, "params.device must be an object"),
            (r#"{"user":"a","device":{}}"#, "params.device.id is missing"),
            (r#"{"user":"a","device":{"id":1}}"#, "params.device.id must be a string"),
            (r#"{"user":"a","device":{"id":"d","id":"e"}}"#, "params.device.id stands twice"),
            (r#"{"user":"a","device":{"id":"d","model":7}}"#, "params.device.model must be a str"),
            (&model, "params.device.model must have at most 64 bytes"),
            (&kind, "params.device.kind must have at most 32 bytes"),
        ] {
            let said = problem(Login::read(raw(text)));
            assert!(said.starts_with(field), "{text}: {said}");
        }
        assert_eq!(problem(Login::read(None)), "params is missing");
    }

    #[test]
    fn a_send_takes_any_body_within_its_bounds() {
        for body in ["null", "1", r#""é""#, "[ 1 , 2 ]", r#"{"a": {"b":[]}}"#] {
            let text = format!(r#"{{"to":{{"user":"bob"}},"body": {body} ,"key":"k"}}"#);
            let send = Send::read(raw(&text), 100).unwrap();
            assert_eq!(send.body.get(), body);
            assert_eq!(send.key.as_deref(), Some("k"));
        }
        let text = format!(r#"{{"to":{{"room":"r"}},"body":"{}"}}"#, "x".repeat(99));
        let error = Send::read(raw(&text), 100).unwrap_err();
        assert_eq!((error.code, error.data.reason), (Code::TooLarge, "too_large"));
        assert!(Send::read(raw(&text), 101).is_ok());
        let nested = |n: usize| {
            format!(r#"{{"to":{{"user":"b"}},"body":{}{}}}"#, "[".repeat(n), "]".repeat(n))
        };
        assert!(Send::read(raw(&nested(BODY_DEPTH_MAX)), 1_000).is_ok());
        let said = problem(Send::read(raw(&nested(BODY_DEPTH_MAX + 1)), 1_000));
        assert!(said.starts_with("params.body"), "{said}");
    }

    #[test]
    fn a_wrong_target_or_key_says_so() {
        let key = format!(r#"{{"to":{{"user":"a"}},"body":1,"key":"{}"}}"#, "x".repeat(65));
        for (text, field) in [
            (r#"{"body":1}"#, "params.to is missing"),
            (r#"{"to":"bob","body":1}"#, "params.to must be an object"),
            (r#"{"to":{},"body":1}"#, "params.to must have one of"),
            (r#"{"to":{"user":"a","room":"b"},"body":1}"#, "params.to must have one of"),
            (r#"{"to":{"user":7},"body":1}"#, "params.to.user must be a string"),
            (r#"{"to":{"room":""},"body":1}"#, "params.to.room must not be empty"),
            (r#"{"to":{"user":"a"}}"#, "params.body is missing"),
            (r#"{"to":{"user":"a"},"body":1,"key":7}"#, "params.key must be a string"),
            (r#"{"to":{"user":"a"},"body":1,"key":""}"#, "params.key must have 1 to 64 bytes"),
            (&key, "params.key must have 1 to 64 bytes"),
        ] {
            let said = problem(Send::read(raw(text), 100));
            assert!(said.starts_with(field), "{text}: {said}");
        }
        assert!(problem(Signal::read(raw(r#"{"to":{"user":"a"}}"#), 9)).contains("params.body"));
        assert!(problem(Kick::read(raw("{}"))).starts_with("params.device is missing"));
        assert!(problem(Kick::read(raw(r#"{"device":{}}"#))).contains("must be a string"));
    }

    #[test]
    fn presence_asks_for_at_most_100_users_once_each() {
        let users = |n: usize| {
            let list: Vec<String> = (0..n).map(|n| format!("\"u{n}\"")).collect();
            format!(r#"{{"users":[{}]}}"#, list.join(","))
        };
        assert_eq!(Presence::read(raw(&users(100))).unwrap().users.len(), 100);
        assert!(problem(Presence::read(raw(&users(101)))).contains("at most 100"));
        assert_eq!(Presence::read(raw(r#"{"users":["a","b","a"]}"#)).unwrap().users.len(), 2);
        assert!(Presence::read(raw(r#"{"users":[]}"#)).unwrap().users.is_empty());
        let said = problem(Presence::read(raw(r#"{"users":["a",7]}"#)));
        assert!(said.starts_with("params.users[1] must be a string"), "{said}");
        assert!(problem(Presence::read(raw(r#"{"users":"a"}"#))).contains("array"));
        assert!(problem(Presence::read(raw("{}"))).contains("params.users is missing"));
        assert!(read_none(None).is_ok() && read_none(raw(r#"{"x":1}"#)).is_ok());
        assert_eq!(problem(read_none(raw("[]"))), "params must be an object");
    }
}
