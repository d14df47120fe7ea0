//! Which pages may open a WebSocket here or call the API: a browser names the page's origin.
//!
//! This keeps strangers' pages from using a visitor's browser; a program that is no browser sends what it likes.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Which `Origin` headers are allowed. A request without one does not come from a page, and always is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPolicy {
    /// Any.
    Any,
    /// These, such as `https://chat.example.org`: scheme, host and port (or the scheme's own) must be the same.
    List(Vec<String>),
    /// Those of the host that the request was sent to, whatever the scheme.
    SameHostOrNone {
        /// Also pages served from this machine by any port (`localhost`, 127.0.0.0/8, `::1`).
        allow_loopback: bool,
    },
}

impl OriginPolicy {
    /// As `websocket.allowed_origins` says: none named is the server's own host and loopback, `*` is any.
    #[must_use]
    pub fn from_allowed(allowed: &[String]) -> Self {
        match allowed {
            [] => Self::SameHostOrNone { allow_loopback: true },
            [any] if any == "*" => Self::Any,
            list => Self::List(list.to_vec()),
        }
    }

    /// Whether a request with these `Origin` and `Host` headers is allowed.
    #[must_use]
    pub fn allows(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        match self {
            Self::Any => true,
            Self::List(allowed) => allowed.iter().any(|other| is_same_origin(origin, other)),
            Self::SameHostOrNone { allow_loopback } => {
                let Some(origin) = Origin::parse(origin) else { return false };
                host.is_some_and(|host| origin.is_at(host))
                    || (*allow_loopback && is_loopback(origin.host))
            }
        }
    }
}

/// An origin taken apart; all in the case it came in.
struct Origin<'a> {
    scheme: &'a str,
    /// A name or an address; IPv6 in its brackets.
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    fn parse(origin: &'a str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
        let (host, port) = split_port(authority)?;
        let port = port.or_else(|| default_port(scheme));
        Some(Self { scheme, host, port })
    }

    /// Whether the origin is served by `host`, the value of a `Host` header.
    fn is_at(&self, host: &str) -> bool {
        split_port(host).is_some_and(|(host, port)| {
            host.eq_ignore_ascii_case(self.host)
                && port.or_else(|| default_port(self.scheme)) == self.port
        })
    }
}

/// Whether two origins are the same; those that are no URL, such as `null`, must be the same text.
fn is_same_origin(left: &str, right: &str) -> bool {
    match (Origin::parse(left), Origin::parse(right.trim_end_matches('/'))) {
        (Some(left), Some(right)) => {
            left.scheme.eq_ignore_ascii_case(right.scheme)
                && left.host.eq_ignore_ascii_case(right.host)
                && left.port == right.port
        }
        _ => left == right,
    }
}

/// Splits `host:port`; `None` if it is neither a host nor a host with a port.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let host_end = if authority.starts_with('[') { authority.find(']')? + 1 } else { 0 };
    let (host, port) = match authority[host_end..].find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(host_end + colon);
            let digits = &port[1..];
            // `parse` alone would take a sign.
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            (host, Some(digits.parse().ok().filter(|_| is_number)?))
        }
        None => (authority, None),
    };
    let plain = |byte: u8| byte > b' ' && !b"/?#@\\".contains(&byte);
    (!host.is_empty() && host.bytes().all(plain)).then_some((host, port))
}

fn default_port(scheme: &str) -> Option<u16> {
    let is = |known: &str| scheme.eq_ignore_ascii_case(known);
    if is("http") || is("ws") {
        Some(80)
    } else if is("https") || is("wss") {
        Some(443)
    } else {
        None
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        || address
            .is_some_and(|text| text.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_origin_is_no_page() {
        for policy in [
            OriginPolicy::Any,
            OriginPolicy::List(vec![]),
            OriginPolicy::SameHostOrNone { allow_loopback: false },
        ] {
            assert!(policy.allows(None, Some("a")));
        }
    }

    #[test]
    fn a_list_names_whole_origins() {
        let policy = OriginPolicy::List(vec!["https://Chat.example.org/".into(), "null".into()]);
        assert!(policy.allows(Some("https://chat.example.org"), None));
        assert!(policy.allows(Some("https://chat.example.org:443"), None));
        assert!(policy.allows(Some("null"), None));
        for stranger in [
            "http://chat.example.org",
            "https://chat.example.org:444",
            "https://chat.example.org.evil.test",
            "https://evil.test/https://chat.example.org",
            "https://chat.example.org/",
            "https://chat.example.org:+443",
            "https://chat.example.org:",
            "https://chat.example.org:443:443",
            "https://chat.example.org@evil.test",
            "https://chat.example.org https://evil.test",
            "wss://chat.example.org",
            "chat.example.org",
            "NULL",
            "",
        ] {
            assert!(!policy.allows(Some(stranger), Some("chat.example.org")), "{stranger}");
        }
    }

    #[test]
    fn the_same_host_is_the_same_port() {
        let policy = OriginPolicy::SameHostOrNone { allow_loopback: false };
        let allows = |origin, host| policy.allows(Some(origin), Some(host));
        assert!(allows("http://a.test:9502", "A.test:9502"));
        assert!(allows("https://a.test", "a.test"));
        assert!(allows("https://a.test", "a.test:443"));
        assert!(allows("http://[2001:db8::1]:8080", "[2001:db8::1]:8080"));
        assert!(!allows("http://a.test", "a.test:9502"));
        assert!(!allows("http://b.test", "a.test"));
        assert!(!allows("null", "null"));
        assert!(!allows("http://", ""));
        assert!(!allows("http://x@a.test", "a.test"));
        assert!(!allows("http://localhost:1", "a.test"));
        assert!(!policy.allows(Some("http://a.test"), None));
    }

    #[test]
    fn loopback_pages_are_of_this_machine() {
        let policy = OriginPolicy::SameHostOrNone { allow_loopback: true };
        let allows = |origin| policy.allows(Some(origin), Some("a.test"));
        assert!(allows("http://localhost:3000"));
        assert!(allows("http://127.8.0.1"));
        assert!(allows("https://[::1]:8443"));
        assert!(!allows("http://localhost.evil.test"));
        assert!(!allows("http://127.0.0.1.evil.test"));
        assert!(!allows("http://10.0.0.1"));
        assert!(!allows("http://[::1"));
    }
}
