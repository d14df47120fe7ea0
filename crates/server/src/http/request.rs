//! A request: read from the front of a buffer, whole or not at all.
//!
//! Parsing keeps no state between two reads: it starts again at the first byte, which the limit on the head
//! keeps cheap.

use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};

use httparse::{Error as ParseError, Header, Status};
use serde::{Deserialize, Serialize};

use super::{
    Headers, HttpLimits, Refusal,
    target::{is_host, parse_target, query_pairs},
};

/// Most header lines that any configuration may allow.
pub const HEADERS_CAP: usize = 128;

/// A whole request. It can be written down, since a request under way goes on in the next worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// As sent, in the case it was sent.
    pub method: String,
    /// The target as sent.
    pub target: String,
    /// The path, percent-decoded: no `.` or `..` segment, no control character, no escaped slash.
    pub path: String,
    /// What follows the `?`, raw.
    pub query: Option<String>,
    /// All headers. `Host` is the authority of the target where that names one.
    pub headers: Headers,
    /// The body, `Content-Length` bytes.
    pub body: Vec<u8>,
    /// Whether the client expects the connection to stay open after the answer.
    pub keep_alive: bool,
    /// 0 or 1: HTTP/1.0 or HTTP/1.1.
    pub http_minor: u8,
    /// How it came here; not part of what was sent.
    pub arrival: Arrival,
}

/// How a request came here: told by who has the socket, not by the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// The client's address: of the other side of the socket, or what a trusted proxy
    /// (`http.trusted_proxies`) says.
    pub client: SocketAddr,
    /// Which of the listeners took it.
    pub door: Door,
}

impl Default for Arrival {
    /// From nowhere in particular, by `server.listen`.
    fn default() -> Self {
        Self { client: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), door: Door::Public }
    }
}

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Door {
    /// Everybody: `server.listen`.
    Public,
    /// Who runs the server: `http.admin_listen`.
    Admin,
}

impl Request {
    /// The cookies, in their order, values as sent.
    #[must_use]
    pub fn cookies(&self) -> Vec<(&str, &str)> {
        self.headers
            .all("cookie")
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect()
    }

    /// The name-value pairs of the query, decoded as browsers encode forms.
    #[must_use]
    pub fn query_pairs(&self) -> Vec<(String, String)> {
        self.query.as_deref().map(query_pairs).unwrap_or_default()
    }
}

/// Reads the request at the front of `bytes`, and says how many bytes it takes. `None`: it is not all there;
/// see also [`awaits_continue`]. Blank lines before it are skipped.
///
/// # Errors
/// A [`Refusal`] to answer before closing: 400 malformed or ambiguous, 413 body over the limit (told by the
/// head, before the body comes), 411 a chunked body, 414 or 431 head over the limit, 501 any other transfer
/// encoding and CONNECT, 505 another version of HTTP.
pub fn parse_request(
    bytes: &[u8],
    limits: &HttpLimits,
) -> Result<Option<(Request, usize)>, Refusal> {
    let Some((mut request, body_from, body_to)) = parse_head(bytes, limits)? else {
        return Ok(None);
    };
    let Some(body) = bytes.get(body_from..body_to) else { return Ok(None) };
    request.body = body.to_vec();
    Ok(Some((request, body_to)))
}

/// Whether `bytes`, of which [`parse_request`] says that they are not a whole request, are a head whose
/// sender waits for a 100 (Continue) before the body. Once a byte of the body has come nobody waits.
#[must_use]
pub fn awaits_continue(bytes: &[u8], limits: &HttpLimits) -> bool {
    matches!(
        parse_head(bytes, limits),
        Ok(Some((request, body_from, body_to)))
            if bytes.len() == body_from
                && body_from < body_to
                && request.http_minor >= 1
                && request.headers.has_token("expect", "100-continue")
    )
}

/// The head at the front of `bytes`: a request that still lacks its body, and where that begins and ends.
fn parse_head(
    bytes: &[u8],
    limits: &HttpLimits,
) -> Result<Option<(Request, usize, usize)>, Refusal> {
    let mut lines = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_CAP];
    let lines = &mut lines[..limits.max_headers.min(HEADERS_CAP)];
    let mut parsed = httparse::Request::new(&mut []);
    // No byte behind the limit is looked at for the head, so that a long head costs no more than a short one.
    let window = &bytes[..bytes.len().min(limits.max_head_bytes)];
    let head_bytes = match parsed.parse_with_uninit_headers(window, lines) {
        Ok(Status::Complete(head_bytes)) => head_bytes,
        Err(error) if !(error == ParseError::Version && is_version_cut(window)) => {
            return Err(refuse_head(error, window));
        }
        _ if bytes.len() < limits.max_head_bytes => return Ok(None),
        _ => return Err(head_too_large(window)),
    };
    if has_bare_line_feed(&window[..head_bytes]) {
        return Err(Refusal::new(400, "a line does not end in CR LF"));
    }
    // All three are set once the head is complete.
    let (Some(method), Some(target), Some(http_minor)) =
        (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::new(400, "malformed request"));
    };
    let mut headers = Headers::with_capacity(parsed.headers.len());
    for line in &*parsed.headers {
        headers.push(line.name, String::from_utf8_lossy(line.value));
    }
    let body_bytes = body_length(&headers, http_minor, limits)?;
    check_host(&headers, http_minor)?;
    let parts = parse_target(method, target)?;
    if let Some(authority) = parts.authority {
        headers.replace("Host", authority);
    }
    let request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        path: parts.path,
        query: parts.query,
        keep_alive: keeps_alive(&headers, http_minor),
        headers,
        body: Vec::new(),
        http_minor,
        arrival: Arrival::default(),
    };
    Ok(Some((request, head_bytes, head_bytes.saturating_add(body_bytes))))
}

/// The length of the body, from a head that leaves no doubt about it.
fn body_length(headers: &Headers, http_minor: u8, limits: &HttpLimits) -> Result<usize, Refusal> {
    let mut lengths = headers.all("content-length");
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(Refusal::new(400, "more than one Content-Length"));
    }
    if let Some(coding) = headers.first("transfer-encoding") {
        let alone = headers.only("transfer-encoding").is_some();
        return Err(match length {
            Some(_) => Refusal::new(400, "both Content-Length and Transfer-Encoding"),
            None if http_minor < 1 => Refusal::new(400, "HTTP/1.0 has no Transfer-Encoding"),
            None if alone && coding.eq_ignore_ascii_case("chunked") => {
                Refusal::new(411, "no chunked body is taken: send a Content-Length")
            }
            None => Refusal::new(501, "no transfer encoding is supported: send a Content-Length"),
        });
    }
    let Some(length) = length else { return Ok(0) };
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::new(400, "malformed Content-Length"));
    }
    // Digits that do not fit are a length over any limit.
    match length.parse::<usize>() {
        Ok(length) if length <= limits.max_body_bytes => Ok(length),
        _ => Err(Refusal::new(413, "body over the size limit")),
    }
}

/// HTTP/1.1 wants exactly one `Host`; two are ambiguous in any version.
fn check_host(headers: &Headers, http_minor: u8) -> Result<(), Refusal> {
    let mut hosts = headers.all("host");
    match (hosts.next(), hosts.next()) {
        (None, _) if http_minor >= 1 => Err(Refusal::new(400, "no Host header")),
        (Some(_), Some(_)) => Err(Refusal::new(400, "more than one Host header")),
        (Some(host), None) if !is_host(host) => Err(Refusal::new(400, "malformed Host header")),
        _ => Ok(()),
    }
}

fn keeps_alive(headers: &Headers, http_minor: u8) -> bool {
    let asked_to_keep = http_minor >= 1 || headers.has_token("connection", "keep-alive");
    asked_to_keep && !headers.has_token("connection", "close")
}

/// Whether a line ends in LF alone, which the parser takes for a line's end and others may not: a second
/// reader in front of this one would see other headers.
fn has_bare_line_feed(head: &[u8]) -> bool {
    head.first() == Some(&b'\n')
        || head.windows(2).any(|pair| matches!(pair, [before, b'\n'] if *before != b'\r'))
}

/// The head fills its limit and is not finished.
fn head_too_large(head: &[u8]) -> Refusal {
    let line = head.trim_ascii_start();
    if line.contains(&b'\n') {
        Refusal::new(431, "headers over the size limit")
    } else {
        Refusal::new(414, "request line over the size limit")
    }
}

fn refuse_head(error: ParseError, head: &[u8]) -> Refusal {
    match error {
        ParseError::TooManyHeaders => Refusal::new(431, "too many headers"),
        ParseError::Version if names_other_version(head) => {
            Refusal::new(505, "only HTTP/1.0 and HTTP/1.1 are served")
        }
        ParseError::HeaderName | ParseError::HeaderValue => Refusal::new(400, "malformed header"),
        ParseError::NewLine => Refusal::new(400, "malformed line end"),
        _ => Refusal::new(400, "malformed request line"),
    }
}

/// Whether the request line names a version of HTTP, which is then one that the parser refused.
fn names_other_version(head: &[u8]) -> bool {
    version_of(head).first_chunk().is_some_and(|version: &[u8; 8]| begins_version(version))
}

/// Whether the head ends within the name of a version. The parser refuses another version on sight of its
/// first digit; the answer must not depend on how much more came with that.
fn is_version_cut(head: &[u8]) -> bool {
    let version = version_of(head);
    version.len() < 8 && begins_version(version)
}

/// What stands where a version should, behind the method and the target, with all that follows.
fn version_of(head: &[u8]) -> &[u8] {
    head.trim_ascii_start().splitn(3, |&byte| byte == b' ').nth(2).unwrap_or_default()
}

/// Whether `HTTP/` and two digits around a dot begin like this.
fn begins_version(bytes: &[u8]) -> bool {
    bytes.iter().zip(b"HTTP/0.0").all(|(byte, like)| {
        if like.is_ascii_digit() { byte.is_ascii_digit() } else { byte == like }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HttpLimits =
        HttpLimits { max_head_bytes: 512, max_headers: 8, max_body_bytes: 100 };

    fn parse(text: &str) -> Result<Option<(Request, usize)>, Refusal> {
        parse_request(text.as_bytes(), &LIMITS)
    }

    fn status(text: &str) -> u16 {
        parse(text).expect_err(text).status
    }

    fn request(text: &str) -> Request {
        parse(text).unwrap().unwrap().0
    }

    #[test]
    fn a_request_is_read_at_every_split() {
        let text = "POST /api/push?a=b%20c HTTP/1.1\r\nHost: a\r\nCookie: s=1; t=x=y\r\n\
                    Content-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\n";
        let end = text.find("GET /").unwrap();
        for cut in 0..end {
            assert_eq!(parse(&text[..cut]), Ok(None), "cut at {cut}");
        }
        let (request, taken) = parse(text).unwrap().unwrap();
        assert_eq!(taken, end);
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("POST", "/api/push?a=b%20c")
        );
        assert_eq!(
            (request.path.as_str(), request.query.as_deref()),
            ("/api/push", Some("a=b%20c"))
        );
        assert_eq!(request.body, b"body");
        assert_eq!(request.cookies(), [("s", "1"), ("t", "x=y")]);
        assert_eq!(request.query_pairs(), [("a".to_owned(), "b c".to_owned())]);
        assert_eq!((request.keep_alive, request.http_minor), (true, 1));
    }

    #[test]
    fn another_version_is_told_wherever_the_request_is_cut() {
        for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9"] {
            let text = format!("\r\nGET / {version}\r\n\r\n");
            let told = text.find(version).unwrap() + version.len();
            for cut in 0..told {
                assert_eq!(parse(&text[..cut]), Ok(None), "{version} cut at {cut}");
            }
            assert_eq!(status(&text[..told]), 505);
        }
        let long = format!("GET /{} HTTP/2", "a".repeat(LIMITS.max_head_bytes - 12));
        assert_eq!(status(&long), 414);
    }

    #[test]
    fn versions_and_connection_tell_whether_to_stay() {
        let keeps = |version, connection| {
            request(&format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n"))
                .keep_alive
        };
        assert!(keeps("1.1", "foo"));
        assert!(!keeps("1.1", "foo, Close"));
        assert!(!keeps("1.0", "foo"));
        assert!(keeps("1.0", "Keep-Alive"));
        assert!(!keeps("1.0", "keep-alive, close"));
        assert_eq!(status("GET / HTTP/2.0\r\n\r\n"), 505);
        assert_eq!(status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
        assert_eq!(status("GET / HTTP/1.2\r\n\r\n"), 505);
        assert_eq!(status("GET / HTTP/2.0x\r\n\r\n"), 505);
        assert_eq!(status("GET / HTTX/1.1\r\n\r\n"), 400);
        assert_eq!(status("GET /\r\n\r\n"), 400);
    }

    #[test]
    fn smuggling_is_refused() {
        let post = |lines: &str| status(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n"));
        assert_eq!(post("Content-Length: 1\r\nContent-Length: 1"), 400);
        assert_eq!(post("Content-Length: 1\r\ncontent-length: 2"), 400);
        for length in ["1, 1", "+1", "-1", "0x1", "1 1", "", "1.0", "१"] {
            assert_eq!(post(&format!("Content-Length: {length}")), 400, "{length}");
        }
        assert_eq!(post("Content-Length: 1\r\nTransfer-Encoding: chunked"), 400);
        assert_eq!(post("Transfer-Encoding: identity\r\nContent-Length: 1"), 400);
        for coding in ["chunked", "CHUNKED", "\tchunked "] {
            assert_eq!(post(&format!("Transfer-Encoding:{coding}")), 411, "{coding:?}");
        }
        for coding in [
            "xchunked",
            "gzip, chunked",
            "chunked, identity",
            "\"chunked\"",
            "chunked;q=1",
            "",
            "\u{b}x",
        ] {
            let refused = post(&format!("Transfer-Encoding: {coding}"));
            assert!(refused == 501 || refused == 400, "{coding:?}: {refused}");
        }
        assert_eq!(post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"), 501);
        assert_eq!(status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
        for line in
            ["Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked", "Transfer\0Encoding: x"]
        {
            assert_eq!(post(line), 400, "{line:?}");
        }
        assert_eq!(post("Content-Length : 1"), 400);
        assert_eq!(post("X: a\r\n Content-Length: 1"), 400, "folded");
        assert_eq!(post("X: a\rContent-Length: 1"), 400, "bare CR");
        assert_eq!(post("X: a\nContent-Length: 1"), 400, "bare LF");
        assert_eq!(post("X: a\r\r\nContent-Length: 1"), 400, "two CRs");
        assert_eq!(post(": a"), 400, "no name");
        assert_eq!(post("X\u{e9}: a"), 400, "a name that is not ASCII");
        assert_eq!(post("X: a\0b"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), 400);
        assert_eq!(status("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1 \r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status(" GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    }

    #[test]
    fn a_line_ends_in_cr_and_lf() {
        for text in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\rHost: a\r\r",
        ] {
            assert_eq!(status(text), 400, "{text:?}");
        }
    }

    #[test]
    fn one_host_is_needed() {
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400);
        for host in
            ["u@a", "a:b", "a:1:2", "a:+80", "[::1", "::1", "a]", "[::1]x", "a, b", ":80", "\u{e9}"]
        {
            assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), 400, "{host}");
        }
        for host in ["a", "a:", "a:80", "[::1]", "[::1]:9502", "A-1.b.", "127.0.0.1:1", "a_b"] {
            let text = format!("GET / HTTP/1.1\r\nHost: \t{host} \r\n\r\n");
            assert_eq!(request(&text).headers.only("host"), Some(host));
        }
        assert_eq!(request("GET / HTTP/1.0\r\n\r\n").headers.len(), 0);
        let absolute = request("GET http://b:80/x HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((absolute.headers.only("host"), absolute.path.as_str()), (Some("b:80"), "/x"));
    }

    #[test]
    fn limits_are_reached_and_told_early() {
        let line = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(600));
        assert_eq!(status(&line), 414);
        assert_eq!(parse(&line[..511]), Ok(None));
        assert_eq!(status(&line[..512]), 414);
        let head = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(600));
        assert_eq!(status(&head), 431);
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(8));
        assert_eq!(status(&many), 431);
        let most = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(7));
        assert_eq!(request(&most).headers.len(), 8);
        let body = |length: &str| {
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
        };
        assert_eq!(parse(&body("100")), Ok(None));
        assert_eq!(status(&body("101")), 413);
        assert_eq!(status(&body("99999999999999999999999999")), 413);
        let wide = HttpLimits { max_headers: usize::MAX, ..LIMITS };
        assert!(parse_request(most.as_bytes(), &wide).unwrap().is_some());
    }

    #[test]
    fn who_expects_to_be_told_to_go_on_is_told_once() {
        let head = |version: &str, length: usize, expect: &str| {
            format!(
                "POST / HTTP/{version}\r\nHost: a\r\nContent-Length: {length}\r\nExpect: {expect}\r\n\r\n"
            )
        };
        let awaits = |text: &str| awaits_continue(text.as_bytes(), &LIMITS);
        let text = head("1.1", 2, "100-Continue");
        assert!(awaits(&text));
        assert!((0..text.len()).all(|cut| !awaits(&text[..cut])));
        assert!(!awaits(&format!("{text}a")), "it did not wait");
        assert!(!awaits(&head("1.1", 0, "100-continue")), "there is nothing to wait for");
        assert!(!awaits(&head("1.0", 2, "100-continue")));
        assert!(!awaits(&head("1.1", 2, "tea")));
        assert!(!awaits(&head("1.1", 101, "100-continue")), "refused instead");
    }

    #[test]
    fn odd_but_harmless_requests_are_served() {
        assert_eq!(request("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").path, "/");
        assert_eq!(request("GET / HTTP/1.1\r\nHost:\r\n\r\n").headers.first("host"), Some(""));
        assert_eq!(
            request("DELETE /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").method,
            "DELETE"
        );
        let latin = b"GET / HTTP/1.1\r\nHost: a\r\nX: \xE9\r\n\r\n";
        let (request, _) = parse_request(latin, &LIMITS).unwrap().unwrap();
        assert_eq!(request.headers.first("x"), Some("\u{FFFD}"));
    }
}
