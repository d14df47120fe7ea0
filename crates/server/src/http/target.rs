//! The target of a request: its path and query, decoded so that no two readers can read them differently.

use std::net::Ipv6Addr;

use super::Refusal;

/// A request target, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Percent-decoded; starts with `/`, or is `*`.
    pub(super) path: String,
    /// Raw, without the `?`.
    pub(super) query: Option<String>,
    /// What stands for the `Host` header where the target names one.
    pub(super) authority: Option<String>,
}

/// Takes a target apart: origin form (`/chat?a=b`), absolute form (`http://host/chat`), or `*` for OPTIONS.
pub(super) fn parse_target(method: &str, target: &str) -> Result<Target, Refusal> {
    if method == "CONNECT" {
        return Err(Refusal::new(501, "this is no proxy"));
    }
    if target == "*" && method == "OPTIONS" {
        return Ok(Target { path: "*".to_owned(), query: None, authority: None });
    }
    let (authority, origin) = split_authority(target)?;
    if origin.contains('#') {
        return Err(Refusal::new(400, "the target has a fragment"));
    }
    let (path, query) = match origin.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (origin, None),
    };
    let path = if path.is_empty() { "/".to_owned() } else { decode_path(path)? };
    Ok(Target { path, query, authority })
}

/// Whether `host` may stand in a `Host` header: nothing, or a name or an address, and perhaps a port.
pub(super) fn is_host(host: &str) -> bool {
    let (is_name, port) = if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        (address.parse::<Ipv6Addr>().is_ok(), port)
    } else {
        let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte);
        ((port.is_empty() || !name.is_empty()) && name.bytes().all(is_plain), port)
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    is_name
        && (port.is_empty() || port.len() > digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The name-value pairs of a query, decoded as browsers encode forms: `+` is a space, a `%` that starts no
/// escape stands for itself, bytes that are not UTF-8 become U+FFFD.
pub(super) fn query_pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let bytes = decode_percent(text.replace('+', " ").as_bytes(), false).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

/// Splits an absolute target into authority and the rest; an origin-form target has no authority.
fn split_authority(target: &str) -> Result<(Option<String>, &str), Refusal> {
    if target.starts_with('/') {
        return Ok((None, target));
    }
    let malformed = Refusal::new(400, "malformed request target");
    let Some((scheme, rest)) = target.split_once("://") else { return Err(malformed) };
    if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(malformed);
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, origin) = rest.split_at(end);
    if authority.is_empty() || !is_host(authority) {
        return Err(malformed);
    }
    Ok((Some(authority.to_owned()), origin))
}

/// Decodes a path, and refuses those whose meaning depends on when they are decoded: an escaped slash,
/// control characters, broken escapes, `.` and `..` segments, bytes that are not UTF-8.
fn decode_path(path: &str) -> Result<String, Refusal> {
    let malformed = || Refusal::new(400, "malformed path");
    if !path.starts_with('/') {
        return Err(malformed());
    }
    if !path.contains('%') {
        return check_path(path.to_owned());
    }
    let slashes = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'/').count();
    let decoded = decode_percent(path.as_bytes(), true).ok_or_else(malformed)?;
    if slashes(&decoded) != slashes(path.as_bytes()) {
        return Err(malformed());
    }
    check_path(String::from_utf8(decoded).map_err(|_| malformed())?)
}

fn check_path(path: String) -> Result<String, Refusal> {
    let hidden = path.chars().any(|character| character.is_control() || character == '\\');
    if hidden || path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(Refusal::new(400, "malformed path"));
    }
    Ok(path)
}

/// Undoes percent escapes. A broken one is an error if `strict`, else it stands for itself.
fn decode_percent(text: &[u8], strict: bool) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                decoded.push(hex_value(*high) << 4 | hex_value(*low));
                rest = after;
            }
            (b'%', _) if strict => return None,
            _ => decoded.push(byte),
        }
    }
    Some(decoded)
}

/// The value of an ASCII hexadecimal digit.
const fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20).wrapping_sub(b'a').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(target: &str) -> Result<String, u16> {
        parse_target("GET", target).map(|target| target.path).map_err(|refusal| refusal.status)
    }

    #[test]
    fn paths_are_decoded_once() {
        assert_eq!(path("/").as_deref(), Ok("/"));
        assert_eq!(path("/a%20b%C3%a9?x=%2F").as_deref(), Ok("/a bé"));
        assert_eq!(path("/%252e%252e/").as_deref(), Ok("/%2e%2e/"));
        assert_eq!(path("/a..b/...").as_deref(), Ok("/a..b/..."));
    }

    #[test]
    fn paths_that_two_readers_could_read_differently_are_refused() {
        for target in [
            "/a%2Fb",
            "/a%00",
            "/a%0d%0aX: y",
            "/%",
            "/%4",
            "/%zz",
            "/%ff",
            "/..",
            "/a/../b",
            "/%2e%2E/b",
            "/./a",
            "/a\\b",
            "/a%5cb",
            "/a#b",
            "a",
            "example.org:80",
            "ftp://a/",
            "http://",
            "http://a@b/",
            "*",
        ] {
            assert_eq!(path(target), Err(400), "{target}");
        }
    }

    #[test]
    fn an_absolute_target_names_the_host() {
        let target = parse_target("GET", "HTTP://Example.org:80?x=1").unwrap();
        assert_eq!(target.authority.as_deref(), Some("Example.org:80"));
        assert_eq!((target.path.as_str(), target.query.as_deref()), ("/", Some("x=1")));
        assert_eq!(parse_target("OPTIONS", "*").unwrap().path, "*");
        assert_eq!(parse_target("CONNECT", "a:1").unwrap_err().status, 501);
    }

    #[test]
    fn queries_are_read_as_forms() {
        let pairs = query_pairs("user=a%20b+c&&user=%C3%A9&flag&bad=%zz%f&raw=%ff=1");
        let expected = [
            ("user", "a b c"),
            ("user", "é"),
            ("flag", ""),
            ("bad", "%zz%f"),
            ("raw", "\u{FFFD}=1"),
        ];
        assert!(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(expected));
    }
}
