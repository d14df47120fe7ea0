//! What a caller of the API is told when it does not get what it asked for.
//!
//! Knows the shape `{"error": reason, "message": sentence}` and nothing of why.

use dunlin_server::Response;
use serde_json::json;
use std::borrow::Cow;

/// An answer that is no success.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// The status: 400 or above.
    pub(super) status: u16,
    /// A word for programs, stable.
    pub(super) reason: &'static str,
    /// A sentence for people; never anything secret.
    message: Cow<'static, str>,
    header: Option<(&'static str, &'static str)>,
}

impl ApiError {
    pub(super) fn new(
        status: u16,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, reason, message: message.into(), header: None }
    }

    /// 400 for a parameter or member, which is named.
    pub(super) fn parameter(name: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(400, "bad_request", format!("{} {problem}", cut(name)))
    }

    /// 503: nobody can take it now.
    pub(super) fn busy(message: &'static str) -> Self {
        Self::new(503, "busy", message).with("Retry-After", "1")
    }

    /// The same with a header that the status asks for.
    pub(super) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    /// As an answer.
    pub(super) fn response(&self) -> Response {
        let response = Response::json(self.status, &body(self.reason, &self.message));
        match self.header {
            Some((name, value)) => response.header(name, value),
            None => response,
        }
    }
}

/// The body of every answer that is no success.
pub(super) fn body(reason: &str, message: &str) -> serde_json::Value {
    json!({ "error": reason, "message": message })
}

/// A name that somebody else chose, short enough for a sentence.
fn cut(name: &str) -> Cow<'_, str> {
    const CHARS: usize = 64;
    match name.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &name[..end]).into(),
        None => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_what_it_is_about_and_stays_short() {
        let error = ApiError::parameter(&"é".repeat(500), "is not known");
        let response = error.response();
        assert_eq!(response.status, 400);
        let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(body["error"], "bad_request");
        assert_eq!(body["message"], format!("{}… is not known", "é".repeat(64)));
        let busy = ApiError::busy("not now").response();
        assert!(busy.headers.contains(&("Retry-After".into(), "1".into())));
    }
}
