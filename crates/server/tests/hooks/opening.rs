//! The opening handshake on real sockets: what is refused and how, what is taken, and wherever it is cut.

use crate::client::{Raw, frame};
use crate::runner::tests;
use crate::server::Server;

tests![
    wrong_upgrades_are_told_what_is_wrong,
    unusual_but_right_upgrades_are_taken,
    only_an_offered_subprotocol_is_chosen,
    listed_origins_may_and_others_may_not,
    the_same_host_may_where_no_origin_is_listed,
    a_frame_may_come_with_the_upgrade,
    an_upgrade_may_be_cut_anywhere,
    an_upgrade_may_follow_plain_requests,
];

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What RFC 6455 answers to that key.
const ACCEPT: &str = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=";
const RIGHT: &str = "GET / HTTP/1.1\r\nHost: dunlin\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The right request with `from` in it replaced.
fn but(from: &str, to: &str) -> String {
    assert!(RIGHT.contains(from), "{from}");
    RIGHT.replacen(from, to, 1)
}

/// Status and head, in small letters, of the answer to a request on a connection of its own.
fn ask(server: &Server, request: impl AsRef<[u8]>) -> (u16, String, Raw) {
    let mut raw = Raw::connect(server.address);
    raw.write(request);
    let (status, head, _) = raw.hear();
    (status, head.to_ascii_lowercase(), raw)
}

fn wrong_upgrades_are_told_what_is_wrong() {
    let server = Server::start(&[]);
    let line = |line: &str| but("Host: dunlin", &format!("Host: dunlin\r\n{line}"));
    let key = |key: &str| but(KEY, key);
    let version = "Sec-WebSocket-Version: 13\r\n";
    for (request, expected) in [
        (key(""), 400),
        (key("dGhlIHNhbXBsZSBub25jZQ"), 400),
        (key("dGhlIHNhbXBsZSBub25jZQ=="[1..].into()), 400),
        (key("dGhlIHNhbXBsZSBub25jZSE="), 400),
        (key("not base64 at all!!!!!=="), 400),
        (but(&format!("Sec-WebSocket-Key: {KEY}\r\n"), ""), 400),
        (line(&format!("Sec-WebSocket-Key: {KEY}")), 400),
        (but("13", "12"), 426),
        (but("13", "0"), 426),
        (but("13", "013"), 426),
        (but("13", "13, 8"), 426),
        (but("13", ""), 426),
        (but(version, ""), 426),
        (line("Sec-WebSocket-Version: 8"), 400),
        (but("Connection: Upgrade", "Connection: keep-alive"), 400),
        (but("Connection: Upgrade", "Connection: Upgraded"), 400),
        (but("Connection: Upgrade\r\n", ""), 400),
        (but("Upgrade: websocket", "Upgrade: websockets"), 426),
        (but("Upgrade: websocket\r\n", ""), 426),
        (but("GET", "POST"), 405),
        (but("GET", "get"), 405),
        (but("HTTP/1.1", "HTTP/1.0"), 400),
        (but("HTTP/1.1", "HTTP/2.0"), 505),
        (but("Host: dunlin\r\n", ""), 400),
        (but("Host: dunlin", "Host:"), 400),
        (line("Host: dunlin"), 400),
        (but("Host: dunlin", "Host: dunlin:port"), 400),
        (line("Content-Length: 3") + "abc", 400),
        (line("Transfer-Encoding: chunked") + "0\r\n\r\n", 411),
        (line("Origin: http://dunlin\r\nOrigin: http://dunlin"), 400),
        (line("Sec-WebSocket-Protocol: tea, tea"), 400),
        (line("Sec-WebSocket-Protocol: tea\r\nSec-WebSocket-Protocol: tea"), 400),
        (line("Sec-WebSocket-Protocol: t{e}a"), 400),
        (line("X: a\r\n b"), 400),
        (line(" X: a"), 400),
        (line("X : a"), 400),
        (line("X: a\0b"), 400),
        (line("Grün: a"), 400),
        (but("Upgrade: websocket\r\n", "Upgrade: websocket\n"), 400),
    ] {
        let (status, head, mut raw) = ask(&server, &request);
        assert_eq!(status, expected, "{request}\n{head}");
        if status == 426 {
            for header in
                ["sec-websocket-version: 13", "upgrade: websocket", "connection: upgrade, close"]
            {
                assert!(head.contains(&format!("\r\n{header}\r\n")), "{request}\n{head}");
            }
        } else {
            assert!(head.contains("\r\nconnection: close\r\n"), "{request}\n{head}");
        }
        assert!(head.contains("\r\ndate: "), "{head}");
        assert_eq!(head.contains("\r\nallow: get\r\n"), status == 405, "{head}");
        assert!(raw.is_ended(), "{request}");
    }
    assert!(server.calls("handshake").is_empty(), "the application is asked for none of them");
    assert_eq!(server.status()["sessions"]["used"], 0);
}

fn unusual_but_right_upgrades_are_taken() {
    let server = Server::start(&[]);
    let line = |line: &str| but("Host: dunlin", &format!("Host: dunlin\r\n{line}"));
    let connection = |line: &str| but("Connection: Upgrade", line);
    for request in [
        connection("Connection: keep-alive, Upgrade"),
        connection("Connection: \t,, UPGRADE ,close"),
        connection("Connection: keep-alive\r\nConnection: upgrade"),
        but("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
        but("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: WEBSOCKET"),
        RIGHT.replace("Sec-WebSocket", "sec-websocket").replace("Host", "hOST"),
        RIGHT.replace(": ", ":").replace("13\r\n", "13 \t\r\n"),
        but("GET /", "GET http://dunlin/"),
        but("GET /", "GET ws://dunlin:9502/x?y"),
        but("Host: dunlin", "Host: [::1]:9502"),
        line("Content-Length: 0"),
        line("X-Name: Grün"),
        line("X-Empty:"),
        line("Sec-WebSocket-Extensions: x-unknown; a=\"b;c\", ;=,"),
        line("Sec-WebSocket-Protocol:"),
        line("Sec-WebSocket-Protocol: tea"),
        format!("\r\n\r\n{RIGHT}"),
    ] {
        let (status, head, mut raw) = ask(&server, &request);
        assert_eq!(status, 101, "{request}\n{head}");
        assert!(head.contains(ACCEPT), "{head}");
        assert!(head.contains("\r\nupgrade: websocket\r\nconnection: upgrade\r\n"), "{head}");
        for header in ["content-length", "sec-websocket-protocol", "sec-websocket-extensions"] {
            assert!(!head.contains(header), "nothing that was not agreed on: {head}");
        }
        raw.write(frame(true, 1, b"echo tea"));
        assert_eq!(raw.take(5), b"\x81\x03tea", "{request}");
    }
}

fn only_an_offered_subprotocol_is_chosen() {
    let server = Server::start(&[]);
    let offer = |path: &str, lines: &str| {
        let request = but("GET /", &format!("GET {path}")).replacen("Host: dunlin", lines, 1);
        let (status, head, _) = ask(&server, request);
        assert_eq!(status, 101, "{head}");
        let chosen = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        chosen.map(ToOwned::to_owned)
    };
    let offered =
        "Host: dunlin\r\nSec-WebSocket-Protocol: v1.tea ,\r\nSec-WebSocket-Protocol: v2.tea";
    assert_eq!(offer("/protocol", offered).as_deref(), Some("v2.tea"));
    assert_eq!(offer("/protocol", "Host: dunlin"), None, "nothing offered, nothing chosen");
    assert_eq!(offer("/", offered), None, "the application wants none");
}

fn listed_origins_may_and_others_may_not() {
    let listed = "https://chat.example.org,http://localhost:3000,null";
    let server = Server::start(&[("websocket.allowed_origins", listed)]);
    let from = |origin: &str| {
        let request = but("Host: dunlin", &format!("Host: dunlin\r\nOrigin: {origin}"));
        ask(&server, request).0
    };
    for origin in [
        "https://chat.example.org",
        "HTTPS://Chat.Example.ORG",
        "https://chat.example.org:443",
        "http://localhost:3000",
        "null",
    ] {
        assert_eq!(from(origin), 101, "{origin}");
    }
    for origin in [
        "http://chat.example.org",
        "https://chat.example.org:8443",
        "https://chat.example.org.evil.test",
        "https://evil.test/?https://chat.example.org",
        "https://chat.example.org@evil.test",
        "http://localhost",
        "http://dunlin",
        "",
        "*",
    ] {
        assert_eq!(from(origin), 403, "{origin}");
    }
    assert_eq!(ask(&server, RIGHT).0, 101, "no page asks");
}

fn the_same_host_may_where_no_origin_is_listed() {
    let server = Server::start(&[]);
    let from = |origin: &str| {
        let lines = format!("Host: dunlin:9502\r\nOrigin: {origin}");
        ask(&server, but("Host: dunlin", &lines)).0
    };
    for origin in
        ["http://dunlin:9502", "https://DUNLIN:9502", "http://localhost:3000", "http://[::1]"]
    {
        assert_eq!(from(origin), 101, "{origin}");
    }
    for origin in ["http://dunlin", "http://dunlin:80", "http://evil.test", "null"] {
        assert_eq!(from(origin), 403, "{origin}");
    }
}

fn a_frame_may_come_with_the_upgrade() {
    let server = Server::start(&[]);
    // A whole frame, and half of the next.
    let next = frame(true, 1, b"echo and more");
    let (status, _, mut raw) =
        ask(&server, [RIGHT.as_bytes(), &frame(true, 1, b"echo tea"), &next[..9]].concat());
    assert_eq!(status, 101);
    assert_eq!(raw.take(5), b"\x81\x03tea");
    raw.write(&next[9..]);
    assert_eq!(raw.take(10), b"\x81\x08and more");
    // Also where the answer comes later.
    let request = but("GET /", "GET /later");
    let mut waiting = Raw::connect(server.address);
    waiting.write([request.as_bytes(), &frame(true, 1, b"echo tea")].concat());
    let id = server.wait_call("handshake", "/later").word(0).to_owned();
    assert_eq!(server.client().ask(&format!("accept {id}")), "true");
    assert_eq!(waiting.hear().0, 101);
    assert_eq!(waiting.take(5), b"\x81\x03tea");
}

fn an_upgrade_may_be_cut_anywhere() {
    let server = Server::start(&[("http.max_connections", "1024")]);
    let stream = [RIGHT.as_bytes(), &frame(true, 1, b"echo tea")].concat();
    let mut halves: Vec<(usize, Raw)> =
        (1..stream.len()).map(|cut| (cut, Raw::connect(server.address))).collect();
    for (cut, raw) in &mut halves {
        raw.write(&stream[..*cut]);
    }
    // There is one worker: when it has answered this, it has read what was sent before.
    let mut other = Raw::connect(server.address);
    other.get("/now");
    assert_eq!(other.hear().0, 200);
    for (cut, mut raw) in halves {
        raw.write(&stream[cut..]);
        assert_eq!(raw.hear().0, 101, "cut at {cut}");
        assert_eq!(raw.take(5), b"\x81\x03tea", "cut at {cut}");
    }
    let mut raw = Raw::connect(server.address);
    for byte in stream {
        raw.write([byte]);
    }
    assert_eq!((raw.hear().0, raw.take(5)), (101, b"\x81\x03tea".to_vec()));
}

fn an_upgrade_may_follow_plain_requests() {
    let server = Server::start(&[]);
    let plain = "GET /now HTTP/1.1\r\nHost: dunlin\r\n\r\n";
    let mut raw = Raw::connect(server.address);
    raw.write([plain.as_bytes(), RIGHT.as_bytes(), &frame(true, 1, b"echo tea")].concat());
    assert_eq!(raw.hear().2, "at once");
    assert_eq!((raw.hear().0, raw.take(5)), (101, b"\x81\x03tea".to_vec()));
    // Behind a refused upgrade nothing is served.
    let mut raw = Raw::connect(server.address);
    raw.write(but("13", "8") + plain);
    assert_eq!(raw.hear().0, 426);
    assert!(raw.is_ended());
}
