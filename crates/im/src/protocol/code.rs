//! Error codes: their numbers and reasons never change; clients rely on them.
//!
//! Knows nothing of who asks what. Messages are for people and may change.

use serde::{Serialize, Serializer};
use std::borrow::Cow;

/// What kind of error a request met.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Code {
    /// The message is no JSON.
    ParseError,
    /// It is JSON, but no request.
    InvalidRequest,
    /// There is no such method.
    MethodNotFound,
    /// A parameter is missing or wrong; the message names it.
    InvalidParams,
    /// The server failed; it is not the client's fault.
    InternalError,
    /// Only `login` and `ping` are served before a login.
    LoginRequired,
    /// The token is not accepted.
    AuthFailed,
    /// Too many of these in too little time.
    RateLimited,
    /// The user may not do this, or not now.
    Forbidden,
    /// What was named is not there.
    NotFound,
    /// The body is over `im.max_body`.
    TooLarge,
    /// Nobody could take it now.
    Busy,
    /// A table of the server has no room.
    TableFull,
}

/// Every code, for tables and tests.
pub const CODES: [Code; 13] = [
    Code::ParseError,
    Code::InvalidRequest,
    Code::MethodNotFound,
    Code::InvalidParams,
    Code::InternalError,
    Code::LoginRequired,
    Code::AuthFailed,
    Code::RateLimited,
    Code::Forbidden,
    Code::NotFound,
    Code::TooLarge,
    Code::Busy,
    Code::TableFull,
];

impl Code {
    /// `error.code`.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::ParseError => -32700,
            Self::InvalidRequest => -32600,
            Self::MethodNotFound => -32601,
            Self::InvalidParams => -32602,
            Self::InternalError => -32603,
            Self::LoginRequired => -32000,
            Self::AuthFailed => -32001,
            Self::RateLimited => -32002,
            Self::Forbidden => -32003,
            Self::NotFound => -32004,
            Self::TooLarge => -32005,
            Self::Busy => -32006,
            Self::TableFull => -32007,
        }
    }

    /// `error.data.reason` where nothing more exact is known.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ParseError => "parse_error",
            Self::InvalidRequest => "invalid_request",
            Self::MethodNotFound => "method_not_found",
            Self::InvalidParams => "invalid_params",
            Self::InternalError => "internal_error",
            Self::LoginRequired => "login_required",
            Self::AuthFailed => "auth_failed",
            Self::RateLimited => "rate_limited",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::TooLarge => "too_large",
            Self::Busy => "busy",
            Self::TableFull => "table_full",
        }
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(self.number())
    }
}

/// Why a call failed: the `error` of its response.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, thiserror::Error)]
#[error("{} {}: {message}", code.number(), data.reason)]
pub struct CallError {
    /// Which kind.
    pub code: Code,
    /// A sentence for people.
    pub message: Cow<'static, str>,
    /// What a program may act on.
    pub data: ErrorData,
}

/// `error.data`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct ErrorData {
    /// A short word that never changes.
    pub reason: &'static str,
    /// When trying again may help, in milliseconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl CallError {
    /// An error with its code's own reason.
    #[must_use]
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let data = ErrorData { reason: code.reason(), retry_after_ms: None };
        Self { code, message: message.into(), data }
    }

    /// The same with a more exact reason.
    #[must_use]
    pub fn because(mut self, reason: &'static str) -> Self {
        self.data.reason = reason;
        self
    }

    /// The same with the advice to try again.
    #[must_use]
    pub fn retry_after(mut self, ms: u64) -> Self {
        self.data.retry_after_ms = Some(ms);
        self
    }

    /// A parameter is missing or wrong: `field` is its path below `params`, empty for `params` itself.
    #[must_use]
    pub fn param(field: &str, problem: impl std::fmt::Display) -> Self {
        let dot = if field.is_empty() { "" } else { "." };
        Self::new(Code::InvalidParams, format!("params{dot}{field} {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_has_its_own_number_and_reason() {
        let numbers: HashSet<i32> = CODES.iter().map(|code| code.number()).collect();
        let reasons: HashSet<&str> = CODES.iter().map(|code| code.reason()).collect();
        assert_eq!((numbers.len(), reasons.len()), (CODES.len(), CODES.len()));
    }

    #[test]
    fn an_error_reads_as_the_contract_says() {
        let error = CallError::new(Code::Busy, "later").retry_after(250);
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"code":-32006,"message":"later","data":{"reason":"busy","retry_after_ms":250}}"#
        );
        let error = CallError::new(Code::Forbidden, "no").because("not_a_member");
        assert!(serde_json::to_string(&error).unwrap().contains(r#""reason":"not_a_member"}"#));
        assert_eq!(CallError::param("to.user", "is missing").message, "params.to.user is missing");
        assert_eq!(CallError::param("", "must be an object").message, "params must be an object");
    }
}
