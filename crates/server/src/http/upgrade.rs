//! The opening handshake: whether a request may become a WebSocket, and the answer that makes it one.
//!
//! Knows RFC 6455 section 4.2; whether the path serves WebSockets, whether the origin may
//! ([`super::OriginPolicy`]) and which subprotocol is taken are the caller's decisions.

use tungstenite::handshake::derive_accept_key;

use super::{
    Refusal, Request,
    headers::is_token,
    response::{write_header, write_status},
};

/// What a right upgrade request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The key to answer, as sent.
    pub key: String,
    /// The subprotocols the client speaks, its favourite first; each a token, none twice.
    pub subprotocols: Vec<String>,
}

/// Whether a request is meant as a WebSocket upgrade, right or wrong; one that is not is a plain request.
#[must_use]
pub fn wants_upgrade(request: &Request) -> bool {
    request.headers.has_token("upgrade", "websocket")
        || request.headers.first("sec-websocket-key").is_some()
}

/// Checks an upgrade request.
///
/// # Errors
/// A [`Refusal`]: 405 for another method than GET, 426 without `Upgrade: websocket` or with another version
/// than 13, 400 for anything else that is wrong. The connection is then to be closed.
pub fn check_upgrade(request: &Request) -> Result<Upgrade, Refusal> {
    let headers = &request.headers;
    if request.method != "GET" {
        let refusal = Refusal::new(405, "a WebSocket is opened by GET");
        return Err(refusal.with("Allow", "GET"));
    }
    if request.http_minor < 1 {
        return Err(Refusal::new(400, "a WebSocket needs HTTP/1.1"));
    }
    if headers.only("host").is_none_or(str::is_empty) {
        return Err(Refusal::new(400, "a WebSocket needs one Host header"));
    }
    if !headers.has_token("upgrade", "websocket") {
        return Err(upgrade_required("this is a WebSocket"));
    }
    if !headers.has_token("connection", "upgrade") {
        return Err(Refusal::new(400, "Connection does not name upgrade"));
    }
    if !request.body.is_empty() {
        return Err(Refusal::new(400, "an upgrade has no body"));
    }
    check_version(request)?;
    let Some(key) = headers.only("sec-websocket-key") else {
        return Err(Refusal::new(400, "a WebSocket needs one Sec-WebSocket-Key"));
    };
    if !is_key(key) {
        return Err(Refusal::new(400, "Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    if headers.all("origin").nth(1).is_some() {
        return Err(Refusal::new(400, "more than one Origin"));
    }
    Ok(Upgrade { key: key.to_owned(), subprotocols: subprotocols(request)? })
}

/// Appends the answer that turns the connection into a WebSocket. `extensions` is the value of that header,
/// if any was agreed on; `extra` may add headers, such as cookies, but none that the handshake itself writes.
pub fn encode_switching(
    out: &mut Vec<u8>,
    key: &str,
    subprotocol: Option<&str>,
    extensions: Option<&str>,
    extra: &[(String, String)],
) {
    write_status(out, 101);
    write_header(out, "Upgrade", "websocket");
    write_header(out, "Connection", "Upgrade");
    write_header(out, "Sec-WebSocket-Accept", &derive_accept_key(key.as_bytes()));
    if let Some(subprotocol) = subprotocol {
        write_header(out, "Sec-WebSocket-Protocol", subprotocol);
    }
    if let Some(extensions) = extensions {
        write_header(out, "Sec-WebSocket-Extensions", extensions);
    }
    for (name, value) in extra {
        if OWN_HEADERS.iter().all(|own| !name.eq_ignore_ascii_case(own)) {
            write_header(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Headers of the answer that nobody else may write.
const OWN_HEADERS: [&str; 7] = [
    "upgrade",
    "connection",
    "sec-websocket-accept",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "content-length",
    "transfer-encoding",
];

/// The only version there is.
const VERSION: &str = "13";

fn upgrade_required(reason: &'static str) -> Refusal {
    Refusal::new(426, reason).with("Upgrade", "websocket").with("Sec-WebSocket-Version", VERSION)
}

fn check_version(request: &Request) -> Result<(), Refusal> {
    let mut versions = request.headers.all("sec-websocket-version");
    match (versions.next(), versions.next()) {
        (Some(VERSION), None) => Ok(()),
        (_, Some(_)) => Err(Refusal::new(400, "more than one Sec-WebSocket-Version")),
        _ => Err(upgrade_required("only version 13 of the WebSocket protocol is served")),
    }
}

/// Whether `key` is 16 bytes in base64: 22 digits and the padding.
fn is_key(key: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    key.strip_suffix("==").is_some_and(|digits| digits.len() == 22 && digits.bytes().all(is_digit))
}

fn subprotocols(request: &Request) -> Result<Vec<String>, Refusal> {
    let mut found: Vec<String> = Vec::new();
    for name in request.headers.tokens("sec-websocket-protocol") {
        if !is_token(name) || found.iter().any(|earlier| earlier == name) {
            return Err(Refusal::new(400, "malformed Sec-WebSocket-Protocol"));
        }
        found.push(name.to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{HttpLimits, parse_request},
        *,
    };

    const RIGHT: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn request(text: &str) -> Request {
        parse_request(text.as_bytes(), &HttpLimits::default()).unwrap().unwrap().0
    }

    /// The status with which the right request is refused once `from` in it reads `to`.
    fn status(from: &str, to: &str) -> u16 {
        assert!(RIGHT.contains(from));
        check_upgrade(&request(&RIGHT.replace(from, to))).expect_err(to).status
    }

    #[test]
    fn a_right_request_is_answered_as_the_standard_shows() {
        let offers =
            "Host: a\r\nSec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Protocol: v2";
        let request = request(&RIGHT.replace("Host: a", offers));
        assert!(wants_upgrade(&request));
        let upgrade = check_upgrade(&request).unwrap();
        assert_eq!(upgrade.subprotocols, ["chat", "superchat", "v2"]);
        let extra = [
            ("Set-Cookie".to_owned(), "a=b".to_owned()),
            ("Connection".to_owned(), "close".to_owned()),
            ("Sec-WebSocket-Extensions".to_owned(), "x-made-up".to_owned()),
            ("X".to_owned(), "a\r\nb".to_owned()),
        ];
        let mut out = Vec::new();
        encode_switching(&mut out, &upgrade.key, Some("chat"), None, &extra);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
             Set-Cookie: a=b\r\n\r\n"
        );
    }

    #[test]
    fn an_agreed_extension_is_named_in_the_answer() {
        let mut out = Vec::new();
        encode_switching(&mut out, "key", None, Some("permessage-deflate; a=1"), &[]);
        let line = "\r\nSec-WebSocket-Extensions: permessage-deflate; a=1\r\n";
        assert!(String::from_utf8(out).unwrap().contains(line));
    }

    #[test]
    fn what_is_wrong_names_its_status() {
        assert_eq!(status("GET", "POST"), 405);
        assert_eq!(status("HTTP/1.1", "HTTP/1.0"), 400);
        assert_eq!(status("Host: a", "Host:"), 400);
        assert_eq!(status("Upgrade: WebSocket", "Upgrade: h2c"), 426);
        assert_eq!(status("keep-alive, Upgrade", "keep-alive"), 400);
        assert_eq!(status("Version: 13", "Version: 8"), 426);
        assert_eq!(status("Version: 13", "Version: 13, 8"), 426);
        assert_eq!(status("Sec-WebSocket-Version: 13\r\n", ""), 426);
        assert_eq!(status("Host: a", "Host: a\r\nSec-WebSocket-Version: 13"), 400);
        assert_eq!(status("Host: a", "Host: a\r\nSec-WebSocket-Protocol: a b"), 400);
        assert_eq!(status("Host: a", "Host: a\r\nSec-WebSocket-Protocol: a, a"), 400);
        assert_eq!(status("Host: a", "Host: a\r\nOrigin: b\r\nOrigin: c"), 400);
        assert_eq!(status("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx"), 400);
    }

    #[test]
    fn the_key_is_one_of_sixteen_bytes() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        for wrong in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQAA",
            "dGhlIHNhbXBsZSBub25j==",
            "dGhlIHNhbXBsZSBub2-jZQ==",
        ] {
            assert_eq!(status(key, wrong), 400, "{wrong}");
        }
        assert_eq!(status("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400);
        assert_eq!(status(key, &format!("{key}\r\nSec-WebSocket-Key: {key}")), 400);
    }

    #[test]
    fn a_version_that_is_not_served_learns_which_is() {
        let refusal = check_upgrade(&request(&RIGHT.replace("13", "8"))).unwrap_err();
        let expected =
            [("Upgrade", "websocket".to_owned()), ("Sec-WebSocket-Version", "13".to_owned())];
        assert_eq!(refusal.headers, expected);
    }

    #[test]
    fn plain_requests_and_other_upgrades_are_not_meant() {
        let plain = |lines: &str| {
            wants_upgrade(&request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")))
        };
        assert!(!plain(""));
        assert!(!plain("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"));
        assert!(plain("Upgrade: foo, websocket\r\n"));
        assert!(plain("Sec-WebSocket-Key: x\r\n"));
    }
}
