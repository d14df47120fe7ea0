//! Answers: a status, headers, a body whose length is always told.

use super::{Refusal, headers::is_token};

/// Appends an answer to `out`. `head_only` (for HEAD) leaves the body out, but tells its length.
///
/// `Content-Length` and `Connection` are written here and taken from nobody else; with an `Upgrade` header
/// (426) `Connection` names it, as it must. Headers whose name is no token or whose value holds a control
/// character are not sent. Statuses without a body (1xx, 204, 304) get none.
pub fn encode_response(
    out: &mut Vec<u8>,
    status: u16,
    headers: &[(String, String)],
    body: &[u8],
    keep_alive: bool,
    head_only: bool,
) {
    let lines = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    write_response(out, status, lines, body, keep_alive, head_only);
}

/// Appends the answer that a refusal is: its reason as plain text. The connection is then to be closed
/// unless `keep_alive`.
pub fn encode_refusal(out: &mut Vec<u8>, refusal: &Refusal, keep_alive: bool, head_only: bool) {
    let body = format!("{}\n", refusal.reason);
    let own = refusal.headers.iter().map(|(name, value)| (*name, value.as_str()));
    let lines = [("Content-Type", "text/plain; charset=utf-8")].into_iter().chain(own);
    write_response(out, refusal.status, lines, body.as_bytes(), keep_alive, head_only);
}

/// Appends the answer that comes before the answer: the client may send its body.
pub fn encode_continue(out: &mut Vec<u8>) {
    write_status(out, 100);
    out.extend_from_slice(b"\r\n");
}

/// The phrase that goes with a status; empty for one this server never sends.
#[must_use]
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

fn write_response<'a>(
    out: &mut Vec<u8>,
    status: u16,
    headers: impl Iterator<Item = (&'a str, &'a str)>,
    body: &[u8],
    keep_alive: bool,
    head_only: bool,
) {
    let bodiless = matches!(status, 100..=199 | 204 | 304);
    write_status(out, status);
    let mut upgrade = false;
    for (name, value) in headers {
        let ours = ["content-length", "transfer-encoding", "connection"];
        if ours.iter().all(|kept| !name.eq_ignore_ascii_case(kept)) {
            let sent = write_header(out, name, value);
            upgrade |= sent && name.eq_ignore_ascii_case("upgrade");
        }
    }
    if !bodiless {
        write_header(out, "Content-Length", &body.len().to_string());
    }
    let connection = match (upgrade, keep_alive) {
        (false, true) => "keep-alive",
        (false, false) => "close",
        (true, true) => "Upgrade, keep-alive",
        (true, false) => "Upgrade, close",
    };
    write_header(out, "Connection", connection);
    out.extend_from_slice(b"\r\n");
    if !bodiless && !head_only {
        out.extend_from_slice(body);
    }
}

/// Appends the status line.
pub(super) fn write_status(out: &mut Vec<u8>, status: u16) {
    debug_assert!((100..=599).contains(&status), "{status} is no status");
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends one header line, and says whether it did: not if it could break out of its line.
pub(super) fn write_header(out: &mut Vec<u8>, name: &str, value: &str) -> bool {
    let harmless = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7F);
    if !is_token(name) || !value.bytes().all(harmless) {
        return false;
    }
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], keep_alive: bool, head_only: bool) -> String {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut out = Vec::new();
        encode_response(&mut out, status, &headers, b"body", keep_alive, head_only);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn length_and_connection_are_always_told() {
        assert_eq!(
            answer(200, &[("X-A", "b")], true, false),
            "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\nbody"
        );
        assert_eq!(
            answer(404, &[("Content-Length", "9"), ("connection", "x")], false, true),
            "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(
            answer(204, &[], true, false),
            "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n"
        );
    }

    #[test]
    fn a_continue_is_a_status_alone() {
        let mut out = Vec::new();
        encode_continue(&mut out);
        assert_eq!(out, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    #[test]
    fn nothing_breaks_out_of_a_header() {
        let odd = [
            ("A", "b\r\nSet-Cookie: c"),
            ("A\r\nB", "c"),
            ("", "d"),
            ("E", "f\0"),
            ("G ", "h"),
            ("I", "é\t"),
        ];
        assert_eq!(
            answer(200, &odd, false, true),
            "HTTP/1.1 200 OK\r\nI: é\t\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let mut out = Vec::new();
        let refusal = Refusal::new(426, "speak WebSocket").with("Upgrade", "websocket");
        encode_refusal(&mut out, &refusal, false, false);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 426 Upgrade Required\r\nContent-Type: text/plain; charset=utf-8\r\nUpgrade: websocket\r\n\
             Content-Length: 16\r\nConnection: Upgrade, close\r\n\r\nspeak WebSocket\n"
        );
        assert_eq!(refusal.to_string(), "426 Upgrade Required: speak WebSocket");
    }
}
