//! The IM protocol through the real binary: two users on two workers, every method, every error.

use crate::support::{Client, Server, http, wait};
use serde_json::{Value as Json, json};

const TOML: &str = "[server]\nworkers = 2";

/// Ann and Bob, on different workers.
fn ann_and_bob(server: &Server) -> (Client, Client) {
    let mut ann = server.client().login("ann");
    let bob = server.client_apart_from(&mut [&mut ann]).login("bob");
    (ann, bob)
}

#[test]
fn two_users_on_different_workers_exchange_messages() {
    let server = Server::start(TOML);
    let (mut ann, mut bob) = ann_and_bob(&server);
    let sent = ann.send_to("bob", &json!({"text": "tea?", "n": 1.0}));
    assert_eq!(sent["sessions"], 1);
    let message = bob.notification("message");
    assert_eq!(message["id"], sent["id"]);
    assert_eq!(message["time"], sent["time"]);
    assert_eq!(message["from"], json!({"user": "ann", "device": "ann-device"}));
    assert_eq!(message["to"], json!({"user": "bob"}));
    assert_eq!(message["body"], json!({"text": "tea?", "n": 1.0}));
    bob.send_to("ann", &json!("yes"));
    assert_eq!(ann.message_body(), "yes");
    assert_eq!((ann.unread(), bob.unread()), (0, 0), "the sender gets no copy on his own session");
}

#[test]
fn five_hundred_messages_arrive_in_the_order_sent() {
    const MESSAGES: usize = 500;
    let server = Server::start(TOML);
    let (mut ann, mut bob) = ann_and_bob(&server);
    // All at once, without waiting for an answer.
    for number in 0..MESSAGES {
        ann.send_json(&json!({"id": number, "method": "send",
            "params": {"to": {"user": "bob"}, "body": number}}));
    }
    let mut last_id = json!("");
    for number in 0..MESSAGES {
        let response = ann.response();
        assert_eq!((&response["id"], &response["result"]["sessions"]), (&json!(number), &json!(1)));
        let message = bob.notification("message");
        assert_eq!(message["body"], number);
        assert!(message["id"].as_str() > last_id.as_str(), "ids sort as text by time");
        last_id = message["id"].clone();
    }
    assert_eq!(bob.unread(), 0);
}

#[test]
fn the_greeting_tells_what_a_client_needs() {
    let server = Server::start(
        "[server]\nworkers = 1\n[im]\nlogin_timeout = \"7s\"\nheartbeat = \"9s\"\n\
         [websocket]\nmax_message = \"64KiB\"\n[table]\nreceive_pool = \"1MiB\"",
    );
    let hello = server.client().hello;
    assert_eq!(
        (&hello["login_timeout_ms"], &hello["heartbeat_ms"]),
        (&json!(7_000), &json!(9_000))
    );
    assert_eq!(hello["max_message"], 65_536);
    let reconnect = &hello["reconnect"];
    assert!(reconnect["base_ms"].as_u64() <= reconnect["max_ms"].as_u64());
    assert!(reconnect["jitter"].is_number());
    assert!(hello["session"].is_string() && hello["node"].is_string());
    assert_eq!(server.client().hello["node"], hello["node"]);
}

#[test]
fn every_method_does_what_the_contract_says() {
    let server = Server::start(TOML);
    let mut ann = server.client();
    let session = ann.hello["session"].clone();
    assert!(ann.result("ping", json!({}))["time"].is_u64(), "ping is served before the login");
    let login = ann.result(
        "login",
        json!({"user": "ann", "device": {"id": "p1", "model": "Pixel 9", "kind": "phone"}}),
    );
    assert_eq!((&login["user"], &login["device"]), (&json!("ann"), &json!("p1")));
    assert_eq!((&login["session"], &login["heartbeat_ms"]), (&session, &json!(60_000)));

    let presence = ann.result("presence", json!({"users": ["ann", "zoe"]}));
    let device = &presence["users"]["ann"]["devices"][0];
    assert_eq!(presence["users"]["ann"]["online"], true);
    assert_eq!(
        (&device["id"], &device["model"], &device["kind"]),
        (&json!("p1"), &json!("Pixel 9"), &json!("phone"))
    );
    let zoe = &presence["users"]["zoe"];
    assert_eq!((&zoe["online"], &zoe["devices"]), (&json!(false), &json!([])));
    assert_eq!((zoe["last_seen"].is_null(), zoe["version"].is_u64()), (true, true));

    let mut tablet = server.client();
    next_millisecond(&mut ann);
    tablet.log_in("ann", "p2");
    let sessions = ann.result("sessions", json!({}))["sessions"].clone();
    let devices: Vec<&Json> =
        sessions.as_array().expect("a list").iter().map(|one| &one["device"]).collect();
    assert_eq!(devices, ["p1", "p2"], "the oldest login first");
    assert_eq!((&sessions[0]["session"], &sessions[0]["ip"]), (&session, &json!("127.0.0.1")));

    // The sender's other devices get a copy, which is not counted.
    assert_eq!(ann.send_to("zoe", &json!(1))["sessions"], 0, "nobody online is no error");
    assert_eq!(tablet.message_body(), 1);
    let mut bob = server.client().login("bob");
    assert_eq!(bob.send_to("ann", &json!(2))["sessions"], 2);
    assert_eq!((ann.message_body(), tablet.message_body()), (json!(2), json!(2)));
    assert_eq!(bob.result("signal", json!({"to": {"user": "ann"}, "body": "typing"})), json!({}));
    assert_eq!(tablet.notification("signal")["from"]["user"], "bob");

    assert_eq!(ann.result("kick", json!({"device": "p2"}))["kicked"], 1);
    let (code, bye) = tablet.expect_close();
    assert_eq!((code, &bye.expect("a bye")["reconnect"]), (4510, &json!(false)));
    assert_eq!(ann.result("kick", json!({"device": "p2"}))["kicked"], 0);

    assert_eq!(ann.result("logout", json!({})), json!({}));
    assert_eq!(ann.error("sessions", json!({})).1, "login_required");
    assert!(!bob.sees_online("ann"));
    ann.log_in("ann", "p3");
    assert!(bob.sees_online("ann"));
}

/// Logins are ordered by milliseconds of the server's clock; within one there is no order.
fn next_millisecond(client: &mut Client) {
    let time = client.result("ping", json!({}))["time"].as_u64();
    wait::until("the next millisecond", || {
        client.result("ping", json!({}))["time"].as_u64() > time
    });
}

#[test]
fn what_is_asked_before_the_login_is_refused() {
    let server = Server::start(TOML);
    let mut client = server.client();
    for (method, params) in [
        ("logout", json!({})),
        ("send", json!({"to": {"user": "bob"}, "body": 1})),
        ("signal", json!({"to": {"user": "bob"}, "body": 1})),
        ("presence", json!({"users": ["bob"]})),
        ("watch", json!({"users": ["bob"]})),
        ("unwatch", json!({"users": ["bob"]})),
        ("sessions", json!({})),
        ("kick", json!({"device": "d"})),
    ] {
        assert_eq!(client.error(method, params), (-32000, "login_required".into()), "{method}");
    }
}

#[test]
fn wrong_parameters_are_refused_and_named() {
    let server = Server::start(TOML);
    let mut ann = server.client();
    let long = "x".repeat(65);
    let mut refused = |method: &str, params: Json, field: &str| {
        let error = ann.call(method, params.clone()).expect_err("it must be refused");
        assert_eq!(error["code"], -32602, "{method} {params}: {error}");
        assert_eq!(error["data"]["reason"], "invalid_params", "{error}");
        let message = error["message"].as_str().expect("a sentence");
        assert!(message.contains(field), "{method} {params}: {message}");
    };
    for (params, field) in [
        (json!({}), "user"),
        (json!(null), "params"),
        (json!({"user": "ann"}), "device"),
        (json!({"user": 7, "device": {"id": "d"}}), "user"),
        (json!({"user": "", "device": {"id": "d"}}), "user"),
        (json!({"user": long, "device": {"id": "d"}}), "user"),
        (json!({"user": "a\u{0}b", "device": {"id": "d"}}), "user"),
        (json!({"user": "ann", "device": "d"}), "device"),
        (json!({"user": "ann", "device": {"id": long}}), "device.id"),
        (json!({"user": "ann", "device": {"id": "d", "model": long}}), "device.model"),
        (json!([1]), "params"),
        (json!("ann"), "params"),
    ] {
        refused("login", params, field);
    }
    refused("ping", json!(7), "params");
    ann.log_in("ann", "d");
    let mut refused = |method: &str, params: Json, field: &str| {
        let error = ann.call(method, params.clone()).expect_err("it must be refused");
        assert_eq!(error["code"], -32602, "{method} {params}: {error}");
        let message = error["message"].as_str().expect("a sentence");
        assert!(message.contains(field), "{method} {params}: {message}");
    };
    for (method, params, field) in [
        ("send", json!({"body": 1}), "to"),
        ("send", json!({"to": {}, "body": 1}), "to"),
        ("send", json!({"to": {"user": "a", "room": "b"}, "body": 1}), "to"),
        ("send", json!({"to": {"user": long}, "body": 1}), "to.user"),
        ("send", json!({"to": {"room": long}, "body": 1}), "to.room"),
        ("send", json!({"to": {"user": "bob"}}), "body"),
        ("send", json!({"to": {"user": "bob"}, "body": 1, "key": long}), "key"),
        ("signal", json!({"to": "bob", "body": 1}), "to"),
        ("signal", json!({"to": {"user": "bob"}}), "body"),
        ("presence", json!({}), "users"),
        ("presence", json!({"users": "bob"}), "users"),
        ("presence", json!({"users": [7]}), "users[0]"),
        ("presence", json!({"users": vec!["u"; 101]}), "users"),
        ("watch", json!({"users": {}}), "users"),
        ("unwatch", json!({"users": [null]}), "users[0]"),
        ("kick", json!({}), "device"),
        ("kick", json!({"device": 7}), "device"),
        ("logout", json!([]), "params"),
        ("sessions", json!(1), "params"),
    ] {
        refused(method, params, field);
    }
    assert!(ann.sees_online("ann"), "an error never closes the connection nor ends the login");
}

#[test]
fn what_may_not_be_done_says_why() {
    let server = Server::start("[server]\nworkers = 1\n[im]\nmax_body = \"1KiB\"");
    let mut ann = server.client().login("ann");
    let login = json!({"user": "bob", "device": {"id": "d"}});
    assert_eq!(ann.error("login", login), (-32003, "already_logged_in".into()));
    assert_eq!(ann.error("kick", json!({"device": "ann-device"})), (-32003, "own_device".into()));
    for method in ["send", "signal"] {
        let to_room = json!({"to": {"room": "r"}, "body": 1});
        assert_eq!(ann.error(method, to_room), (-32003, "not_a_member".into()));
        let body = |bytes: usize| json!({"to": {"user": "ann"}, "body": "x".repeat(bytes - 2)});
        assert_eq!(ann.error(method, body(1_025)), (-32005, "too_large".into()));
        ann.result(method, body(1_024));
    }
}

#[test]
fn what_is_no_request_gets_the_code_of_json_rpc_and_an_id_if_it_had_one() {
    let server = Server::start(TOML);
    let mut client = server.client();
    let long_id = format!("{{\"id\":\"{}\",\"method\":\"ping\"}}", "x".repeat(300));
    let deep = format!("{{\"id\":1,\"method\":{}", "[".repeat(50_000));
    for (text, code, id) in [
        ("", -32700, json!(null)),
        ("{", -32700, json!(null)),
        ("ping", -32700, json!(null)),
        ("{\"id\":1,\"method\":\"ping\"} x", -32700, json!(null)),
        (deep.as_str(), -32700, json!(null)),
        ("[]", -32600, json!(null)),
        ("[{\"id\":1,\"method\":\"ping\"},{\"id\":2,\"method\":\"ping\"}]", -32600, json!(null)),
        ("7", -32600, json!(null)),
        ("null", -32600, json!(null)),
        ("{}", -32600, json!(null)),
        ("{\"id\":1}", -32600, json!(1)),
        ("{\"id\":null,\"method\":\"ping\"}", -32600, json!(null)),
        ("{\"id\":true,\"method\":\"ping\"}", -32600, json!(null)),
        ("{\"id\":[1],\"method\":\"ping\"}", -32600, json!(null)),
        ("{\"id\":\"a\",\"method\":7}", -32600, json!("a")),
        ("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}", -32600, json!(1)),
        ("{\"id\":1,\"id\":2,\"method\":\"ping\"}", -32600, json!(null)),
        (long_id.as_str(), -32600, json!(null)),
        ("{\"id\":\"x\",\"method\":\"dance\"}", -32601, json!("x")),
        ("{\"id\":-1.5,\"method\":\"rpc.ping\"}", -32601, json!(-1.5)),
    ] {
        let shown = &text[..text.len().min(60)];
        let response = client.ask_raw(text);
        assert_eq!(response["jsonrpc"], "2.0", "{shown}");
        assert_eq!((&response["error"]["code"], &response["id"]), (&json!(code), &id), "{shown}");
        assert!(response["error"]["data"]["reason"].is_string(), "{shown}: {response}");
        assert!(response.get("result").is_none(), "{shown}");
    }
    // Nobody was disturbed, and the version may be left out.
    let response = client.ask_raw("{\"id\":\"last\",\"method\":\"ping\"}");
    assert_eq!((&response["jsonrpc"], &response["id"]), (&json!("2.0"), &json!("last")));
}

#[test]
fn a_notification_is_done_and_gets_no_answer() {
    let server = Server::start(TOML);
    let (mut ann, mut bob) = ann_and_bob(&server);
    for text in [
        "{\"method\":\"send\",\"params\":{\"to\":{\"user\":\"bob\"},\"body\":\"quiet\"}}",
        "{\"method\":\"send\",\"params\":{}}",
        "{\"method\":\"dance\"}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"ping\"}",
    ] {
        ann.send_text(text);
    }
    // The first answer is that of the first request.
    let response = ann.ask_raw("{\"id\":\"first\",\"method\":\"ping\"}");
    assert_eq!(response["id"], "first");
    assert_eq!(bob.message_body(), "quiet");
}

#[test]
fn a_binary_message_closes_with_1003_and_a_long_one_with_1009() {
    let server = Server::start(
        "[server]\nworkers = 1\n[websocket]\nmax_message = \"1KiB\"\n[table]\nreceive_pool = \"1MiB\"",
    );
    let mut ann = server.client().login("ann");
    ann.send_binary(b"no");
    let (code, bye) = ann.expect_close();
    assert_eq!((code, &bye.expect("a bye")["reconnect"]), (1003, &json!(false)));
    let mut bob = server.client().login("bob");
    bob.send_text(&"x".repeat(1_025));
    assert_eq!(bob.expect_close().0, 1009);
    let mut zoe = server.client().login("zoe");
    zoe.send_fragment(&"x".repeat(600), true, false);
    zoe.send_fragment(&"x".repeat(600), false, true);
    assert_eq!(zoe.expect_close().0, 1009);
    server.wait_until("all rows are free", |status| status.number("/sessions/used") == 0);
}

#[test]
fn a_login_over_max_devices_closes_the_oldest() {
    let server = Server::start("[server]\nworkers = 2\n[im]\nmax_devices = 2");
    let mut first = server.client();
    first.log_in("ann", "p1");
    let mut second = server.client();
    next_millisecond(&mut first);
    second.log_in("ann", "p2");
    let mut third = server.client();
    third.log_in("ann", "p3");
    assert_eq!(first.expect_close().0, 4510);
    assert!(second.sees_online("ann") && third.sees_online("ann"));
}

#[test]
fn whoever_leaves_is_offline_and_his_row_is_free() {
    let server = Server::start(TOML);
    let (mut ann, bob) = ann_and_bob(&server);
    bob.close();
    wait::until("bob is offline", || !ann.sees_online("bob"));
    // Without a close frame, too.
    let zoe = server.client().login("zoe");
    assert!(ann.sees_online("zoe"));
    drop(zoe);
    wait::until("zoe is offline", || !ann.sees_online("zoe"));
    let status =
        server.wait_until("one row is left", |status| status.number("/sessions/used") == 1);
    assert_eq!(status.number("/sessions/logged_in"), 1);
    assert_eq!(ann.send_to("bob", &json!(1))["sessions"], 0);
}

#[test]
fn a_full_table_refuses_with_503_and_accepts_again() {
    let server = Server::start("[server]\nworkers = 2\n[table]\nmax_sessions = 4");
    let mut clients: Vec<Client> =
        (0..4).map(|n| server.client().login(&format!("u{n}"))).collect();
    for _ in 0..3 {
        let mut refused = http::Http::connect(server.address);
        let answer = refused.ask(upgrade_request("/ws"));
        assert_eq!(answer.status, 503, "{answer:?}");
        let seconds = answer.header("retry-after").expect("Retry-After").parse::<u32>();
        assert!(seconds.is_ok_and(|seconds| seconds > 0));
        for path in ["/healthz", "/readyz"] {
            assert_eq!(http::get(server.address, path).status, 200, "{path}");
        }
    }
    assert!(Client::try_connect(server.address).is_err());
    let status =
        server.wait_until("four were refused", |status| status.number("/sessions/refused") == 4);
    assert_eq!((status.number("/sessions/used"), status.number("/sessions/peak")), (4, 4));
    assert!(clients[0].sees_online("u3"), "nobody else is disturbed");
    for round in 0..3 {
        clients.pop().expect("four").close();
        let next = wait::for_some("a free row", || Client::try_connect(server.address).ok());
        clients.push(next.login(&format!("next-{round}")));
        assert!(Client::try_connect(server.address).is_err(), "full again");
    }
}

/// A right upgrade request.
pub(crate) fn upgrade_request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

#[test]
fn a_slow_receiver_is_closed_and_disturbs_nobody() {
    let server = Server::start(
        "[server]\nworkers = 2\n[websocket]\nsend_buffer = \"64KiB\"\nping_interval = \"0s\"",
    );
    let (mut ann, bob) = ann_and_bob(&server);
    let mut zoe = server.client().login("zoe");
    // Bob reads nothing. What the kernel does not take stands in his outbox, and then he is closed.
    let body = json!("x".repeat(60_000));
    wait::until("bob is closed", || ann.send_to("bob", &body)["sessions"] == 0);
    assert_eq!(ann.send_to("zoe", &json!("hello"))["sessions"], 1);
    assert_eq!(zoe.message_body(), "hello");
    let slow = |status: &crate::support::Status| {
        (0..2).map(|slot| status.number(&format!("/workers/{slot}/slow_closed"))).sum::<u64>()
    };
    server.wait_until("he is counted", |status| slow(status) == 1);
    drop(bob);
}
