//! The hooks beside `message`: hello, refusals, status, stop, reload, start.

use crate::support::{House, settings};
use dunlin_im::{ImApp, config::IM_KEYS};
use dunlin_server::simulation::get;
use dunlin_server::{App, Closed, ClosedBy, Handshake, Message, Reply, RequestId, UpgradeRequest};
use serde_json::{Value, json};

#[test]
fn hello_is_first_and_says_what_a_client_needs() {
    let mut house = House::new(&[("im.login_timeout", "3s")], 4);
    let conn = house.worker.open(&mut house.app, "192.0.2.7:1".parse().unwrap(), "/");
    let said = house.heard(conn);
    let hello = &said.told[0].1;
    assert_eq!(hello["method"], "hello");
    let node = hello["params"]["node"].as_str().unwrap();
    assert_eq!(node.len(), 16);
    assert_eq!(
        hello["params"],
        json!({
            "session": conn.to_string(), "node": node, "login_timeout_ms": 3_000,
            "heartbeat_ms": 60_000, "max_message": 1_048_576,
            "reconnect": {"base_ms": 500, "max_ms": 30_000, "jitter": 0.5},
        })
    );
    assert_eq!(said.told.len(), 1);
}

#[test]
fn binary_messages_close_with_1003() {
    let mut house = House::new(&[], 4);
    let conn = house.open();
    house.app.message(&mut house.worker.context(), conn, Message::Binary(b"\x00"));
    let said = house.heard(conn);
    assert_eq!(said.closed, [(conn, 1003)]);
    assert_eq!(said.told[0].1["params"]["reconnect"], false);
}

#[test]
fn what_is_no_request_is_answered_and_the_connection_stays() {
    let mut house = House::new(&[], 4);
    let conn = house.open();
    for (text, code, id) in [
        ("{", -32700, Value::Null),
        ("[{\"id\":1,\"method\":\"ping\"}]", -32600, Value::Null),
        ("{\"id\":null,\"method\":\"ping\"}", -32600, Value::Null),
        ("{\"jsonrpc\":\"1.0\",\"id\":\"a\",\"method\":\"ping\"}", -32600, json!("a")),
        ("{\"jsonrpc\":\"1.0\",\"method\":\"ping\"}", -32600, Value::Null),
        ("{\"id\":1.5,\"method\":\"nope\"}", -32601, json!(1.5)),
    ] {
        let said = house.say(conn, text);
        assert_eq!(said.answers.len(), 1, "{text}");
        assert_eq!(said.answers[0]["error"]["code"], code, "{text}");
        assert_eq!(said.answers[0]["id"], id, "{text}");
        assert!(said.closed.is_empty());
    }
}

#[test]
fn upgrades_are_taken_on_two_paths_only() {
    let mut house = House::new(&[], 4);
    let peer = "192.0.2.7:1".parse().unwrap();
    for (path, status) in [("/ws", 101), ("/", 101), ("/chat", 404), ("/api/x", 401)] {
        let http = get(path);
        let request = UpgradeRequest { http: &http, peer, subprotocols: &[] };
        let answer = house.app.handshake(&mut house.worker.context(), RequestId(1), &request);
        match answer {
            Handshake::Accept { .. } => assert_eq!(status, 101, "{path}"),
            Handshake::Refuse(response) => assert_eq!(response.status, status, "{path}"),
            Handshake::Later => panic!("nothing to wait for"),
        }
        let reply = house.app.request(&mut house.worker.context(), RequestId(2), &http);
        assert!(matches!(reply, Reply::Now(_)));
    }
}

#[test]
fn the_status_counts_who_is_logged_in_from_rows_alone() {
    let mut house = House::new(&[], 8);
    let logged_in = |house: &House| {
        let status = house.worker.in_master(|master| house.app.status(master));
        for (field, value) in
            [("configured", json!(false)), ("connected", json!(false)), ("last_error", Value::Null)]
        {
            assert_eq!(status["redis"][field], value);
        }
        status["sessions"]["logged_in"].clone()
    };
    house.open();
    let (ann, bob) = (house.login("ann", "p"), house.login("bob", "p"));
    assert_eq!(logged_in(&house), 2);
    house.worker.lose(bob);
    assert_eq!(logged_in(&house), 1);
    house.drop_connection(ann);
    assert_eq!(logged_in(&house), 0);
}

#[test]
fn who_was_lost_with_a_worker_is_offline_at_once_and_leaves_nothing_behind() {
    let mut house = House::new(&[], 4);
    let (ann, bob) = (house.login("ann", "p"), house.login("bob", "p"));
    house.worker.lose(bob);
    let send = json!({"to": {"user": "bob"}, "body": 1});
    assert_eq!(house.call(ann, "send", send.clone())["result"]["sessions"], 0);
    let closed = Closed { code: 1012, reason: String::new(), by: ClosedBy::WorkerLost };
    house.worker.end(&mut house.app, bob, &closed);
    // Another user in the same row is not taken for the one before.
    let zoe = house.login("zoe", "p");
    assert_eq!(zoe.row().index, bob.row().index);
    assert_eq!(house.call(ann, "send", send)["result"]["sessions"], 0);
}

#[test]
fn a_bye_spreads_those_who_are_told_together() {
    let bye = |code, returning| -> Value {
        let text = ImApp::goodbye(code, "why", returning).expect("a text");
        serde_json::from_str::<Value>(&text).unwrap()["params"].take()
    };
    let stopping = bye(1001, 10_000);
    assert_eq!((&stopping["code"], &stopping["reconnect"]), (&json!(1001), &json!(true)));
    assert_eq!(stopping["after_ms"], json!([500, 10_500]));
    assert_eq!(bye(1001, 1)["after_ms"], json!([500, 2_000]));
    assert_eq!(bye(1008, 10_000)["after_ms"], json!([0, 0]), "it is not to come back");
}

#[test]
fn a_reload_takes_all_or_nothing() {
    let mut house = House::new(&[], 4);
    let worker = &house.worker;
    let app = &mut house.app;
    let bad = settings(&[("auth.mode", "token"), ("im.max_body", "1")]);
    let refused = worker.in_master(|master| app.before_reload(master, &bad)).unwrap_err();
    assert!(refused.contains("needs a key"), "{refused}");
    let good = settings(&[("im.heartbeat", "7s")]);
    worker.in_master(|master| app.before_reload(master, &good)).unwrap();
    let conn = house.open();
    let answer = house.call(conn, "login", json!({"user": "ann", "device": {"id": "d"}}));
    assert_eq!(answer["result"]["heartbeat_ms"], 7_000);
    let body = json!({"to": {"user": "ann"}, "body": "longer than one byte"});
    assert!(house.call(conn, "send", body)["result"].is_object());
}

#[test]
fn what_cannot_be_served_is_refused_at_start() {
    let refused = |words| ImApp::new(&settings(words)).expect_err("refused").to_string();
    assert!(refused(&[("auth.mode", "token")]).contains("needs a key"));
    let open = refused(&[("server.listen", "127.0.0.1:0,0.0.0.0:9502")]);
    assert!(open.contains("0.0.0.0:9502") && open.contains("auth.allow_open"), "{open}");
    let allowed = [("server.listen", "0.0.0.0:9502"), ("auth.allow_open", "true")];
    assert!(ImApp::new(&settings(&allowed)).is_ok());
    let secrets = IM_KEYS.iter().filter(|key| key.secret).map(|key| key.key);
    assert_eq!(secrets.collect::<Vec<_>>(), ["auth.secret", "redis.password"]);
    assert!(IM_KEYS.iter().all(|key| !key.doc.is_empty()));
}
