//! The JSON body of a POST, each member of it known.
//!
//! Pure. Invariant: what nobody reads is refused and named.

use super::error::ApiError;
use crate::ids::{DeviceId, IdError, RoomId, UserId};
use crate::protocol::object::{self, Fields, ObjectError};
use crate::protocol::params::BODY_DEPTH_MAX;
use dunlin_server::Request;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The members of the object that the body of a request is, all of which are among `names`.
pub(super) fn members<'a, const N: usize>(
    request: &'a Request,
    names: [&'static str; N],
) -> Result<Fields<'a, N>, ApiError> {
    let text = std::str::from_utf8(&request.body)
        .map_err(|_| ApiError::parameter("the body", "is no UTF-8"))?;
    object_at(text, "", names)
}

/// To whom something goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Audience<'a> {
    User(UserId<'a>),
    Room(RoomId<'a>),
    /// Everybody who is logged in.
    All,
}

pub(super) fn audience(value: Option<&RawValue>) -> Result<Audience<'_>, ApiError> {
    const WANTED: &str = "must be {\"user\": …}, {\"room\": …} or \"all\"";
    let value = required(value, "to")?;
    if let Some(word) = object::string(value) {
        return if word == "all" {
            Ok(Audience::All)
        } else {
            Err(ApiError::parameter("to", WANTED))
        };
    }
    if !value.get().starts_with('{') {
        return Err(ApiError::parameter("to", WANTED));
    }
    match object_at(value.get(), "to.", ["user", "room"])? {
        [Some(name), None] => user(name, "to.user").map(Audience::User),
        [None, Some(room)] => name(room, "to.room", RoomId::new).map(Audience::Room),
        _ => Err(ApiError::parameter("to", WANTED)),
    }
}

pub(super) fn user<'a>(value: &'a RawValue, field: &str) -> Result<UserId<'a>, ApiError> {
    name(value, field, UserId::new)
}

pub(super) fn device<'a>(value: &'a RawValue, field: &str) -> Result<DeviceId<'a>, ApiError> {
    name(value, field, DeviceId::new)
}

/// A body to be sent on, of at most so many bytes.
pub(super) fn message(value: Option<&RawValue>, most: usize) -> Result<&RawValue, ApiError> {
    let value = required(value, "body")?;
    let bytes = value.get().len();
    if bytes > most {
        let message = format!("body has {bytes} bytes, and im.max_body allows {most}");
        return Err(ApiError::new(413, "too_large", message));
    }
    if object::depth(value.get()) > BODY_DEPTH_MAX {
        let problem = format_args!("must not be nested deeper than {BODY_DEPTH_MAX}");
        return Err(ApiError::parameter("body", problem));
    }
    Ok(value)
}

pub(super) fn required<'a>(
    value: Option<&'a RawValue>,
    field: &str,
) -> Result<&'a RawValue, ApiError> {
    value.ok_or_else(|| ApiError::parameter(field, "is missing"))
}

/// An optional member; `null` is as if it were not there.
pub(super) fn optional(value: Option<&RawValue>) -> Option<&RawValue> {
    value.filter(|value| !object::is_null(value))
}

pub(super) fn text<'a>(value: &'a RawValue, field: &str) -> Result<Cow<'a, str>, ApiError> {
    object::string(value).ok_or_else(|| ApiError::parameter(field, "must be a string"))
}

fn name<'a, I>(
    value: &'a RawValue,
    field: &str,
    id: impl FnOnce(Cow<'a, str>) -> Result<I, IdError>,
) -> Result<I, ApiError> {
    id(text(value, field)?).map_err(|error| ApiError::parameter(field, error))
}

fn object_at<'a, const N: usize>(
    text: &'a str,
    prefix: &str,
    names: [&'static str; N],
) -> Result<Fields<'a, N>, ApiError> {
    let fields = object::fields(text, names).map_err(|error| match error {
        ObjectError::Duplicate(name) => {
            ApiError::parameter(&format!("{prefix}{name}"), "stands twice")
        }
        ObjectError::NotAnObject => ApiError::parameter("the body", "must be a JSON object"),
        ObjectError::Syntax => ApiError::parameter("the body", "is no JSON"),
    })?;
    match object::unknown_name(text, &names) {
        Some(unknown) => {
            Err(ApiError::parameter(&format!("{prefix}{unknown}"), "is no member of this object"))
        }
        None => Ok(fields),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_server::simulation::get;

    fn post(body: &str) -> Request {
        Request { method: "POST".into(), body: body.into(), ..get("/api/x") }
    }

    fn raw(text: &str) -> Option<&RawValue> {
        Some(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn a_body_is_an_object_of_known_members() {
        let request = post(r#" {"to":1,"body":{"x":1}} "#);
        let [to, body] = members(&request, ["to", "body"]).unwrap();
        assert_eq!((to.unwrap().get(), body.unwrap().get()), ("1", r#"{"x":1}"#));
        for (body, says) in [
            ("", "the body is no JSON"),
            ("{", "the body is no JSON"),
            ("[]", "the body must be a JSON object"),
            ("null", "the body must be a JSON object"),
            (r#"{"to":1,"to":1}"#, "to stands twice"),
            (r#"{"to":1,"bdy":1}"#, "bdy is no member"),
            (r#"{"to":1,"key":"k","x":[{}]}"#, "key is no member"),
            (r#"{"":1}"#, " is no member"),
        ] {
            let error = members(&post(body), ["to", "body"]).unwrap_err();
            let said = String::from_utf8(error.response().body).unwrap();
            assert!(error.status == 400 && said.contains(says), "{body}: {said}");
        }
        let request = Request { body: vec![0xff], ..post("") };
        assert!(members(&request, ["to"]).is_err());
    }

    #[test]
    fn an_audience_is_one_of_three() {
        let to = |text| audience(raw(text));
        assert_eq!(to(r#""all""#), Ok(Audience::All));
        assert_eq!(to(r#"{"user":"ann"}"#), Ok(Audience::User(UserId::new("ann").unwrap())));
        assert_eq!(to(r#"{"room":"r"}"#), Ok(Audience::Room(RoomId::new("r").unwrap())));
        for wrong in [
            r#""ALL""#,
            r#""""#,
            "7",
            "null",
            "[]",
            "{}",
            r#"{"user":"a","room":"b"}"#,
            r#"{"user":7}"#,
            r#"{"user":""}"#,
            r#"{"room":null}"#,
            r#"{"all":true}"#,
            r#"{"user":"a","user":"b"}"#,
            r#"{"user":"a","x":1}"#,
        ] {
            assert_eq!(to(wrong).unwrap_err().status, 400, "{wrong}");
        }
        assert!(audience(None).is_err());
    }

    #[test]
    fn a_message_has_its_bounds() {
        assert!(message(raw("12345"), 5).is_ok());
        let error = message(raw("123456"), 5).unwrap_err();
        assert_eq!((error.status, error.reason), (413, "too_large"));
        let nested = |n| "[".repeat(n) + &"]".repeat(n);
        assert!(message(raw(&nested(BODY_DEPTH_MAX)), 999).is_ok());
        assert_eq!(message(raw(&nested(BODY_DEPTH_MAX + 1)), 999).unwrap_err().status, 400);
        assert!(message(None, 5).is_err());
    }
}
