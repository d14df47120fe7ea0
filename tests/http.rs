//! HTTP on the listeners: what is not a WebSocket, and what is no HTTP.

use crate::im::upgrade_request;
use crate::support::http::{Http, get};
use crate::support::{Server, wait};

const TOML: &str = "[server]\nworkers = 2";

#[test]
fn each_path_has_its_answer() {
    let server = Server::start(TOML);
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/", 200),
        ("/ws", 426),
        ("/nope", 404),
        ("/ws/", 404),
        ("/api/nope", 404),
        ("/healthz?verbose=1", 200),
        ("/../etc/passwd", 400),
        ("/%00", 400),
    ] {
        let answer = get(server.address, path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.header("content-length").is_some(), "{path}: {answer:?}");
    }
    assert_eq!(get(server.address, "/healthz").body, "ok\n");
    assert!(
        get(server.address, "/healthz")
            .header("content-type")
            .is_some_and(|t| t.starts_with("text/plain"))
    );
    assert_eq!(get(server.address, "/ws").header("upgrade"), Some("websocket"));
    let missing = get(server.address, "/api/nope");
    assert_eq!(missing.header("content-type"), Some("application/json"));
    assert!(serde_json::from_str::<serde_json::Value>(&missing.body).is_ok(), "{missing:?}");
}

#[test]
fn other_methods_are_refused_with_what_is_allowed() {
    let server = Server::start(TOML);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let request = format!("{method} /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let answer = Http::connect(server.address).ask(request);
        assert_eq!(answer.status, 405, "{method}: {answer:?}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    }
    let mut http = Http::connect(server.address);
    http.send("HEAD /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    // An answer to HEAD has the length and not the body: the end follows.
    let head = http.head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("3")));
    assert!(http.is_ended());
}

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let server = Server::start(TOML);
    let mut http = Http::connect(server.address);
    for path in ["/healthz", "/nope", "/ws", "/healthz"] {
        http.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    // Several at once are answered in order.
    http.send("GET /nope HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((http.answer().status, http.answer().status), (404, 200));
    let close = "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(http.ask(close).status, 200);
    assert!(http.is_ended());
    let mut old = Http::connect(server.address);
    assert_eq!(old.ask("GET /healthz HTTP/1.0\r\n\r\n").status, 200);
    assert!(old.is_ended(), "HTTP/1.0 does not keep");
}

#[test]
fn a_request_may_come_a_byte_at_a_time() {
    let server = Server::start(TOML);
    let mut http = Http::connect(server.address);
    for byte in b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" {
        http.send([*byte]);
    }
    assert_eq!(http.answer().status, 200);
}

#[test]
fn malformed_requests_are_answered_and_the_connection_is_closed() {
    let server = Server::start(TOML);
    let mut ann = server.client().login("ann");
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20_000));
    let long_header = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let many_headers = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200));
    let get = |headers: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    for (bytes, statuses) in [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &[400][..]),
        (b"hello\r\n\r\n".to_vec(), &[400]),
        (b"GET\r\n\r\n".to_vec(), &[400]),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_vec(), &[400, 505]),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_vec(), &[400]),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n".to_vec(), &[400]),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n".to_vec(), &[400]),
        (get("Content-Length: x\r\n").into_bytes(), &[400]),
        (get("Content-Length: 1\r\nContent-Length: 2\r\n").into_bytes(), &[400]),
        (get("Content-Length: -1\r\n").into_bytes(), &[400]),
        (get("Content-Length: 99999999999999999999\r\n").into_bytes(), &[400, 413]),
        (get("Content-Length: 9999999\r\n").into_bytes(), &[413]),
        (get("Transfer-Encoding: chunked\r\n").into_bytes(), &[400, 411, 501]),
        (long_path.into_bytes(), &[431, 414]),
        (long_header.into_bytes(), &[431]),
        (many_headers.into_bytes(), &[431]),
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let mut http = Http::connect(server.address);
        let answer = http.ask(&bytes);
        assert!(statuses.contains(&answer.status), "{shown:?}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{shown:?}: {answer:?}");
        assert!(http.is_ended(), "{shown:?}");
    }
    assert!(ann.sees_online("ann"), "nobody else is disturbed");
}

#[test]
fn wrong_upgrades_are_refused_with_the_status_of_their_fault() {
    let server = Server::start(TOML);
    let right = upgrade_request("/ws");
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (from, to, status) in [
        ("Version: 13", "Version: 8", 426),
        ("Upgrade: websocket", "Upgrade: h2c", 426),
        ("GET", "POST", 405),
        (key, "", 400),
        (key, "Sec-WebSocket-Key: short\r\n", 400),
        ("Connection: Upgrade", "Connection: keep-alive", 400),
        ("Host: localhost\r\n", "", 400),
        ("/ws", "/nope", 404),
        ("Host: localhost", "Host: localhost\r\nOrigin: https://evil.example", 403),
    ] {
        assert!(right.contains(from), "{from}");
        let answer = Http::connect(server.address).ask(right.replacen(from, to, 1));
        assert_eq!(answer.status, status, "{to:?}: {answer:?}");
        if status == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{answer:?}");
        }
    }
    let answer =
        Http::connect(server.address).ask(right.replace("localhost", &server.address.to_string()));
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(Http::connect(server.address).ask(upgrade_request("/")).status, 101);
}

#[test]
fn origins_of_browsers_are_held_to_the_rule() {
    let server = Server::start(
        "[server]\nworkers = 1\n[websocket]\nallowed_origins = [\"https://chat.example\"]",
    );
    let ask = |origin: &str| {
        let request = upgrade_request("/ws")
            .replace("Host: localhost", &format!("Host: localhost\r\nOrigin: {origin}"));
        Http::connect(server.address).ask(request).status
    };
    assert_eq!(ask("https://chat.example"), 101);
    assert_eq!(ask("https://evil.example"), 403);
    assert_eq!(ask("https://chat.example.evil.example"), 403);
    assert_eq!(ask("null"), 403);
}

#[test]
fn more_connections_than_max_connections_wait_for_nobody() {
    let server = Server::start("[server]\nworkers = 1\n[http]\nmax_connections = 4");
    let mut silent: Vec<Http> = (0..4).map(|_| Http::connect(server.address)).collect();
    for http in &mut silent {
        http.send("GET /healthz HTTP/1.1\r\n");
    }
    server.wait_until("they are counted", |status| status.number("/workers/0/accepted") >= 4);
    // One more is told so, or hung up on: at once.
    let mut more = Http::connect(server.address);
    more.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(more.is_refused());
    for http in &mut silent {
        http.send("Host: a\r\n\r\n");
        assert_eq!(http.answer().status, 200, "who was there first is served");
    }
    drop(silent);
    wait::until("there is room again", || {
        let mut http = Http::connect(server.address);
        http.send("GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        !http.is_refused()
    });
}

#[test]
fn who_never_finishes_a_request_is_cut_off() {
    let server = Server::start("[server]\nworkers = 1\n[websocket]\nhandshake_timeout = \"300ms\"");
    let mut slow = Http::connect(server.address);
    slow.send("GET /ws HTTP/1.1\r\nHost: a\r\n");
    assert!(slow.is_refused(), "408, or nothing and the end");
    let mut silent = Http::connect(server.address);
    assert!(silent.is_refused());
}
