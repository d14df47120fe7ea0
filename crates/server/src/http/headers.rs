//! The headers of a request, in the order they came.

use serde::{Deserialize, Serialize};

/// Header lines in their order; names are compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No headers, with room for `capacity` lines.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Adds a line at the end.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// Puts one line of this name in the place of all there were.
    pub fn replace(&mut self, name: &str, value: impl Into<String>) {
        self.0.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.push(name, value);
    }

    /// The value of the first line of this name.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of all lines of this name.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The value of this name if there is exactly one line of it.
    #[must_use]
    pub fn only(&self, name: &str) -> Option<&str> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// The elements of the comma-separated list that all lines of this name make together, trimmed, none empty.
    pub fn tokens<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(|token| token.trim_matches([' ', '\t']))
            .filter(|token| !token.is_empty())
    }

    /// Whether that list has `token` in it, without regard to case.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|other| other.eq_ignore_ascii_case(token))
    }

    /// All lines: name as it came, value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many lines.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether `byte` may stand in a header name, a method or a subprotocol (`tchar` of RFC 9110).
pub(super) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Whether `text` is a token of RFC 9110.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Headers {
        let mut headers = Headers::default();
        headers.push("Connection", "keep-alive, , Upgrade");
        headers.push("Host", "a");
        headers.push("connection", "\tfoo ");
        headers
    }

    #[test]
    fn names_have_no_case_and_lines_keep_their_order() {
        let headers = sample();
        assert_eq!(headers.first("CONNECTION"), Some("keep-alive, , Upgrade"));
        assert_eq!(headers.all("connection").count(), 2);
        assert_eq!(
            headers.tokens("connection").collect::<Vec<_>>(),
            ["keep-alive", "Upgrade", "foo"]
        );
        assert!(headers.has_token("connection", "UPGRADE"));
        assert!(!headers.has_token("connection", "up"));
        assert_eq!((headers.only("host"), headers.only("connection")), (Some("a"), None));
    }

    #[test]
    fn replace_leaves_one_line() {
        let mut headers = sample();
        headers.replace("CONNECTION", "close");
        assert_eq!(headers.only("connection"), Some("close"));
        assert_eq!(headers.len(), 2);
    }
}
