//! What one session, user or address may do in a time, and what becomes of who goes on.

use crate::support::tokens::{Keys, claims, hs256};
use crate::support::{House, request};
use dunlin_server::{App, ConnId, SlotId};
use serde_json::{Value, json};
use std::mem;

fn figures(house: &House) -> Value {
    house.worker.in_master(|master| house.app.status(master))["limits"].take()
}

/// How many of so many pings are answered with a result, and the last error.
fn pings(house: &mut House, conn: ConnId, times: usize) -> (usize, Value) {
    let (mut through, mut last) = (0, Value::Null);
    for _ in 0..times {
        let mut answer = house.call(conn, "ping", json!({}));
        match answer["error"].take() {
            Value::Null => through += 1,
            error => last = error,
        }
    }
    (through, last)
}

#[test]
fn a_session_has_a_burst_and_a_pace_and_is_told_when() {
    let mut house = House::new(&[("im.request_rate", "10"), ("im.request_burst", "5")], 8);
    let (ann, bob) = (house.open(), house.open());
    let (through, error) = pings(&mut house, ann, 12);
    assert_eq!(through, 5);
    assert_eq!(error["code"], -32002);
    assert_eq!(error["data"], json!({"reason": "rate_limited", "retry_after_ms": 100}));
    assert_eq!(pings(&mut house, bob, 1).0, 1, "another session has its own");
    house.worker.pass(99);
    assert_eq!(pings(&mut house, ann, 1).0, 0);
    house.worker.pass(1);
    assert_eq!(pings(&mut house, ann, 3).0, 1);
    house.worker.pass(60_000);
    assert_eq!(pings(&mut house, ann, 9).0, 5, "what is not used is not kept");
    assert_eq!(figures(&house)["requests"], 7 + 1 + 2 + 4);
}

#[test]
fn whatever_is_said_counts_and_a_notification_is_refused_in_silence() {
    let mut house = House::new(&[("im.request_rate", "1"), ("im.request_burst", "2")], 8);
    let ann = house.open();
    assert_eq!(house.say(ann, "no JSON").answers[0]["error"]["code"], -32700);
    assert_eq!(house.say(ann, r#"{"method":"ping"}"#).answers.len(), 0);
    let said = house.say(ann, "no JSON");
    assert_eq!(
        (&said.answers[0]["error"]["code"], &said.answers[0]["id"]),
        (&json!(-32002), &Value::Null)
    );
    let said = house.say(ann, r#"{"id":"x","method":7}"#);
    assert_eq!(
        (&said.answers[0]["error"]["code"], &said.answers[0]["id"]),
        (&json!(-32002), &json!("x"))
    );
    assert!(house.say(ann, r#"{"method":"ping"}"#).answers.is_empty());
    assert_eq!(figures(&house)["requests"], 3);
}

#[test]
fn the_bucket_goes_with_the_session_to_the_next_worker() {
    let mut house = House::new(&[("im.request_rate", "10"), ("im.request_burst", "5")], 8);
    let ann = house.open();
    assert_eq!(pings(&mut house, ann, 5).0, 5);
    house.worker = house.worker.sibling(SlotId(0));
    assert_eq!(pings(&mut house, ann, 5).0, 0);
    // And not to the next session in its row.
    house.drop_connection(ann);
    let next = house.open();
    assert_eq!(next.row().index, ann.row().index);
    assert_eq!(pings(&mut house, next, 5).0, 5);
}

#[test]
fn bytes_have_a_pace_and_a_large_message_is_owed() {
    let keys = [("im.byte_rate", "1000"), ("im.byte_burst", "500")];
    let mut house = House::new(&keys, 8);
    let ann = house.login("ann", "phone");
    house.worker.pass(1_000);
    let send = |house: &mut House, length: usize| {
        let params = json!({"to": {"user": "bob"}, "body": "x".repeat(length)});
        house.call(ann, "send", params)["error"].take()
    };
    assert_eq!(send(&mut house, 3_000), Value::Null, "nothing is too large to ever be sent");
    let error = send(&mut house, 1);
    assert_eq!(error["code"], -32002);
    let wait = error["data"]["retry_after_ms"].as_u64().unwrap();
    assert!((2_500..2_700).contains(&wait), "{wait}");
    house.worker.pass(wait - 1);
    assert_eq!(send(&mut house, 1)["code"], -32002);
    house.worker.pass(1);
    assert_eq!(send(&mut house, 1), Value::Null);
    assert_eq!(figures(&house)["bytes"], 2);
}

#[test]
fn all_sessions_of_a_user_share_what_he_may_send_over_all_workers() {
    let mut house = House::new(&[("im.send_rate", "10"), ("im.send_burst", "6")], 8);
    let (phone, zoe) = (house.login("ann", "phone"), house.login("zoe", "phone"));
    let mut other = house.worker.sibling(SlotId(1));
    mem::swap(&mut house.worker, &mut other);
    let desk = house.login("ann", "desk");
    let params = json!({"to": {"user": "bob"}, "body": 1});
    for method in ["send", "signal", "send"] {
        assert!(house.call(desk, method, params.clone())["result"].is_object());
    }
    mem::swap(&mut house.worker, &mut other);
    for _ in 0..3 {
        assert!(house.call(phone, "send", params.clone())["result"].is_object());
    }
    for method in ["send", "signal"] {
        assert_eq!(house.fail(phone, method, params.clone()), (-32002, "rate_limited".into()));
    }
    assert!(house.call(zoe, "send", params.clone())["result"].is_object());
    assert!(house.call(phone, "ping", json!({}))["result"].is_object(), "only what he sends");
    house.worker.pass(100);
    assert!(house.call(phone, "send", params.clone())["result"].is_object());
    let wrong = house.fail(phone, "send", json!({"to": 7}));
    assert_eq!(wrong, (-32602, "invalid_params".into()), "what is wrong costs nothing");
    assert_eq!(figures(&house)["sends"], 2);
}

#[test]
fn who_goes_on_far_over_the_limit_is_closed() {
    let keys = [("im.request_rate", "1"), ("im.request_burst", "1"), ("im.max_refused", "50")];
    let mut house = House::new(&keys, 8);
    let (hasty, patient) = (house.open(), house.open());
    let ping = request("ping", json!({}));
    let mut refused = 0;
    let closed = loop {
        let said = house.say(hasty, &ping);
        refused += usize::from(said.answers[0]["error"]["code"] == -32002);
        if let Some((conn, code)) = said.closed.first() {
            assert_eq!(said.told[0].1["params"]["code"], 1008, "a bye goes first");
            break (*conn, *code);
        }
        assert!(refused <= 51, "the bound has no effect");
    };
    assert_eq!((closed, refused), ((hasty, 1008), 51));
    // Who is a little over it is slowed down and stays: ten refusals a second are forgotten.
    for _ in 0..600 {
        house.worker.pass(100);
        assert!(house.say(patient, &ping).closed.is_empty());
    }
    let figures = figures(&house);
    assert_eq!(figures["closed"], 1);
    assert!(figures["requests"].as_u64() > Some(500), "{figures}");
}

#[test]
fn zero_is_no_limit() {
    let keys = ["im.request_rate", "im.byte_rate", "im.send_rate", "im.max_refused"];
    let mut house = House::new(&keys.map(|key| (key, "0")), 8);
    let ann = house.login("ann", "phone");
    for _ in 0..30_000 {
        let said =
            house.say(ann, r#"{"method":"send","params":{"to":{"user":"bob"},"body":1},"id":1}"#);
        assert!(said.answers[0]["result"].is_object());
    }
    assert_eq!(figures(&house)["requests"], 0);
}

#[test]
fn the_defaults_leave_an_honest_client_alone() {
    let mut house = House::new(&[], 8);
    let ann = house.login("ann", "phone");
    let params = json!({"to": {"user": "bob"}, "body": "x".repeat(1_000)});
    let sent = |house: &mut House, times: usize| {
        (0..times).filter(|_| house.call(ann, "send", params.clone())["result"].is_object()).count()
    };
    // What waited while it was offline, at once; then five thousand a second for as long as it likes.
    assert_eq!(sent(&mut house, 19_900), 19_900);
    for _ in 0..10 {
        house.worker.pass(100);
        assert_eq!(sent(&mut house, 500), 500);
    }
    assert!(sent(&mut house, 900) < 300);
}

#[test]
fn logins_from_one_address_have_a_pace() {
    let mut house = House::new(&[("im.login_rate", "1"), ("im.login_burst", "3")], 16);
    let open = |house: &mut House, ip: &str| {
        let conn = house.worker.open(&mut house.app, ip.parse().unwrap(), "/ws");
        house.worker.take_deeds();
        conn
    };
    let log_in = |house: &mut House, ip: &str| {
        let conn = open(house, ip);
        let answer = house.call(conn, "login", json!({"user": "ann", "device": {"id": "d"}}));
        house.drop_connection(conn);
        answer["error"]["data"].clone()
    };
    // One client is given a /64, and changes its port as it likes.
    for ip in ["[2001:db8::1]:1", "[2001:db8::2]:2", "[2001:db8::ffff:3]:3"] {
        assert_eq!(log_in(&mut house, ip), Value::Null, "{ip}");
    }
    let refused = json!({"reason": "rate_limited", "retry_after_ms": 1_000});
    assert_eq!(log_in(&mut house, "[2001:db8::4]:4"), refused);
    assert_eq!(log_in(&mut house, "[2001:db8:0:1::4]:4"), Value::Null, "another /64");
    assert_eq!(log_in(&mut house, "10.0.0.1:1"), Value::Null);
    house.worker.pass(1_000);
    assert_eq!(log_in(&mut house, "[2001:db8::4]:4"), Value::Null);
    assert_eq!(figures(&house)["logins"], 1);
}

#[test]
fn refused_tokens_make_their_address_wait_longer_and_longer() {
    let keys = Keys::new();
    let lines = keys.lines(&["h"]);
    let words = [
        ("auth.mode", "token"),
        ("auth.keys", &*lines),
        ("auth.max_failures", "1000"),
        ("im.login_failures", "3"),
        ("im.login_delay", "200ms"),
        ("im.login_delay_max", "1s"),
        ("im.login_forget", "1m"),
    ];
    let mut house = House::new(&words, 16);
    let good = hs256(None, &claims(&json!({"aud": null})));
    let open = |house: &mut House, ip: &str| {
        let conn = house.worker.open(&mut house.app, ip.parse().unwrap(), "/ws");
        house.worker.take_deeds();
        conn
    };
    let log_in = |house: &mut House, conn: ConnId, token: &str| {
        house.call(conn, "login", json!({"token": token, "device": {"id": "d"}}))["error"].take()
    };
    // Each try is another connection of another address of one /64, and of another worker.
    let mut tries = 0;
    let mut fail = |house: &mut House| {
        tries += 1;
        let conn = open(house, &format!("[2001:db8::{tries}]:1"));
        house.worker = house.worker.sibling(SlotId(tries % 2));
        let error = log_in(house, conn, "bad");
        house.drop_connection(conn);
        (error["code"].as_i64().unwrap(), error["data"]["retry_after_ms"].as_u64().unwrap_or(0))
    };
    for wait in [0, 0, 0, 0, 200, 400, 800, 1_000, 1_000] {
        if wait > 0 {
            assert_eq!(fail(&mut house), (-32002, wait));
            house.worker.pass(wait - 1);
            assert_eq!(fail(&mut house), (-32002, 1), "and that costs nothing more");
            house.worker.pass(1);
        }
        assert_eq!(fail(&mut house), (-32001, 0), "{wait}");
    }
    // A right token waits, too: whoever tries must not learn which it is. Others do not.
    let waits = open(&mut house, "[2001:db8::99]:1");
    assert_eq!(log_in(&mut house, waits, &good)["code"], -32002);
    let other = open(&mut house, "10.0.0.1:1");
    assert_eq!(log_in(&mut house, other, &good), Value::Null);
    house.worker.pass(60_000);
    assert_eq!(log_in(&mut house, waits, &good), Value::Null, "forgotten");
    assert_eq!(figures(&house)["failed_logins"], 11);
}

#[test]
fn a_refresh_by_guesses_waits_too() {
    let keys = Keys::new();
    let lines = keys.lines(&["h"]);
    let words = [
        ("auth.mode", "token"),
        ("auth.keys", &*lines),
        ("auth.max_failures", "1000"),
        ("im.login_failures", "2"),
    ];
    let mut house = House::new(&words, 16);
    let good = hs256(None, &claims(&json!({"aud": null})));
    let ann = house.open();
    let params = json!({"token": good, "device": {"id": "d"}});
    assert!(house.call(ann, "login", params)["result"].is_object());
    let mut refresh = |token: &str| house.fail(ann, "refresh", json!({"token": token})).0;
    assert_eq!(
        [refresh("a"), refresh("b"), refresh("c"), refresh("d")],
        [-32001, -32001, -32001, -32002]
    );
}

#[test]
fn more_users_than_rates_are_known_of_forget_the_idle_first() {
    let keys = [("im.rate_entries", "8"), ("im.send_rate", "1"), ("im.send_burst", "100")];
    let mut house = House::new(&keys, 32);
    let send = |house: &mut House, user: &str, times: usize| {
        let conn = house.login(user, "phone");
        let params = json!({"to": {"user": "bob"}, "body": 1});
        let sent =
            (0..times).filter(|_| house.call(conn, "send", params.clone())["result"].is_object());
        let sent = sent.count();
        house.drop_connection(conn);
        sent
    };
    assert_eq!(send(&mut house, "flooder", 200), 100);
    for n in 0..20 {
        assert_eq!(send(&mut house, &format!("user{n}"), 1), 1);
    }
    assert_eq!(send(&mut house, "flooder", 200), 0, "who has done the most is known the longest");
    assert!(figures(&house)["users_evicted"].as_u64() >= Some(13));
    house.worker.pass(1_000);
    let before = figures(&house)["users_evicted"].clone();
    assert_eq!(send(&mut house, "late", 1), 1);
    assert_eq!(figures(&house)["users_evicted"], before, "the others are idle by now");
}
