//! HTTP on the listeners: what is not a WebSocket, and what is no HTTP.

use crate::im::upgrade_request;
use crate::support::http::{Http, get};
use crate::support::{Server, wait};
use std::time::Duration;

const TOML: &str = "[server]\nworkers = 2";
const HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

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
        ("/api/nope", 401),
        ("/healthz?verbose=1", 200),
        ("/../etc/passwd", 400),
        ("/%00", 400),
    ] {
        let answer = get(server.address, path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.header("content-length").is_some(), "{path}: {answer:?}");
        // Such as `Sun, 06 Nov 1994 08:49:37 GMT`.
        let date = answer.header("date").unwrap_or_default();
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{path}: {answer:?}");
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
    let whole = "POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab";
    for part in ["G", "GET /ws HTTP/1.1\r\nHost: a\r\n", whole, "\r\n"] {
        let mut slow = Http::connect(server.address);
        let answer = slow.ask(part);
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")), "{part:?}");
        assert!(slow.is_ended(), "{part:?}");
    }
    // Who has begun nothing is told nothing.
    assert!(Http::connect(server.address).is_ended());
    let mut kept = Http::connect(server.address);
    assert_eq!(kept.ask(HEALTHZ).status, 200);
    assert!(kept.is_ended());
}

#[test]
fn each_request_of_a_connection_has_the_whole_time() {
    let server = Server::start("[server]\nworkers = 1\n[websocket]\nhandshake_timeout = \"2s\"");
    let pause = || wait::holds_for("time passes", Duration::from_millis(1_400), || true);
    let mut http = Http::connect(server.address);
    assert_eq!(http.ask(HEALTHZ).status, 200);
    pause();
    // Begun 1.4 s after the last one, and 1.4 s under way.
    let (begin, end) = HEALTHZ.split_at(20);
    http.send(begin);
    pause();
    assert_eq!(http.ask(end).status, 200);
}

#[test]
fn a_head_is_answered_as_a_get_without_its_body() {
    let server = Server::start(TOML);
    let mut http = Http::connect(server.address);
    for path in ["/", "/healthz", "/readyz", "/nope", "/ws", "/api/nope"] {
        let get = http.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        http.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = http.head();
        assert_eq!(head.status, get.status, "{path}");
        for name in ["content-length", "content-type", "upgrade", "connection"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
    }
    // Nothing of a body came, or this would not be an answer.
    assert_eq!(http.ask(HEALTHZ).body, "ok\n");
}

#[test]
fn pipelined_requests_are_all_answered_in_order() {
    const PAIRS: usize = 1_000;
    let server = Server::start(TOML);
    let mut http = Http::connect(server.address);
    // Far more than a worker reads at once; requests are cut wherever its reads end.
    http.send(format!("GET /nope HTTP/1.1\r\nHost: a\r\n\r\n{HEALTHZ}").repeat(PAIRS));
    for pair in 0..PAIRS {
        let statuses = (http.answer().status, http.answer().status);
        assert_eq!(statuses, (404, 200), "pair {pair}");
    }
    // A body is not the next request, and the next request is not a body.
    http.send("POST /nope HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /");
    http.send("GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((http.answer().status, http.answer().status), (404, 200));
    // Behind `Connection: close` nothing is served.
    http.send("GET /nope HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    http.send(HEALTHZ);
    assert_eq!(http.answer().status, 404);
    assert!(http.is_ended());
}

#[test]
fn who_has_ended_his_half_still_gets_his_answers() {
    let server = Server::start(TOML);
    let mut http = Http::connect(server.address);
    http.send(HEALTHZ.repeat(3));
    http.end_output();
    assert_eq!(http.rest().matches("HTTP/1.1 200 OK\r\n").count(), 3);
    let mut http = Http::connect(server.address);
    http.send("GET / HTT");
    http.end_output();
    assert_eq!(http.rest(), "", "half a request is none");
}

#[test]
fn a_client_that_waits_to_be_told_sends_its_body() {
    let server = Server::start(TOML);
    let post = |length: usize, more: &str| {
        format!("POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{more}\r\n")
    };
    let mut http = Http::connect(server.address);
    for expect in ["100-continue", "100-Continue"] {
        http.send(post(3, &format!("Expect: {expect}\r\n")));
        let told = http.head();
        assert_eq!((told.status, told.headers.len()), (100, 0));
        http.send("abc");
        assert_eq!(http.answer().status, 405);
    }
    // Nobody waits: the body is there, there is none, or it is HTTP/1.0, which has no such thing.
    for request in [
        post(3, "Expect: 100-continue\r\n") + "abc",
        post(0, "Expect: 100-continue\r\n"),
        post(3, "Expect: 100-continue\r\nConnection: keep-alive\r\n")
            .replace("HTTP/1.1", "HTTP/1.0")
            + "abc",
    ] {
        assert_eq!(http.ask(&request).status, 405, "{request}");
    }
    http.send(post(3, "Expect: 100-continue\r\n").replace("HTTP/1.1", "HTTP/1.0"));
    wait::holds_for("it is not told", Duration::from_millis(100), || true);
    assert_eq!(http.ask("abc").status, 405);
    // A body that is not wanted is refused before it is sent.
    let answer = Http::connect(server.address).ask(post(1 << 20, "Expect: 100-continue\r\n"));
    assert_eq!(answer.status, 413);
}

#[test]
fn limits_are_reached_and_not_passed() {
    let server = Server::start("[server]\nworkers = 1\n[http]\nmax_body = \"1KiB\"");
    let ask = |request: String| Http::connect(server.address).ask(request).status;
    // 8 KiB of head, 64 headers: these are the most, and one more is too much.
    let line = |bytes: usize| format!("GET /{} HTTP/1.1\r\n", "x".repeat(bytes - 16));
    let rest = "Host: a\r\n\r\n";
    assert_eq!(ask(line(8_192 - rest.len()) + rest), 404);
    assert_eq!(ask(line(8_193 - rest.len()) + rest), 431);
    assert_eq!(ask(line(8_193) + rest), 414);
    let headers = |count: usize| {
        format!("{}{}\r\n", line(20), "Host: a\r\n".to_owned() + &"X: y\r\n".repeat(count - 1))
    };
    assert_eq!(ask(headers(64)), 404);
    assert_eq!(ask(headers(65)), 431);
    let post = |length: usize| {
        format!(
            "POST /nope HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}",
            "x".repeat(length)
        )
    };
    assert_eq!(ask(post(1_024)), 404);
    assert_eq!(ask(post(1_025)), 413);
    // Told by the first bytes that show it: the rest need not come.
    let mut http = Http::connect(server.address);
    http.send(&line(9_000)[..8_192]);
    assert_eq!(http.answer().status, 414);
    assert!(http.is_ended());
}
