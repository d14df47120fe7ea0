//! Every method: good input, wrong type, missing field, too long, wrong state.

use crate::support::House;
use dunlin_im::protocol::METHODS;
use serde_json::{Value, json};

/// Good parameters of each method.
fn good(method: &str) -> Value {
    match method {
        "login" => json!({"user": "zoe", "device": {"id": "d"}}),
        "send" | "signal" => json!({"to": {"user": "bob"}, "body": 1}),
        "join" | "leave" | "members" => json!({"room": "tea"}),
        "presence" | "watch" | "unwatch" => json!({"users": ["bob"]}),
        "kick" => json!({"device": "other"}),
        _ => json!({}),
    }
}

#[test]
fn before_a_login_only_login_and_ping_are_served() {
    let mut house = House::new(&[], 8);
    for (method, _) in METHODS {
        let conn = house.open();
        let answer = house.call(conn, method, good(method));
        match method {
            "login" | "ping" => assert!(answer["result"].is_object(), "{method}: {answer}"),
            _ => {
                assert_eq!(answer["error"]["code"], -32000, "{method}");
                assert_eq!(answer["error"]["data"]["reason"], "login_required");
            }
        }
        house.drop_connection(conn);
    }
}

#[test]
fn after_a_login_every_method_is_served() {
    let mut house = House::new(&[], 8);
    for (method, _) in METHODS {
        let conn = house.login("ann", "phone");
        let answer = house.call(conn, method, good(method));
        match method {
            "login" => assert_eq!(answer["error"]["data"]["reason"], "already_logged_in"),
            "refresh" => assert_eq!(answer["error"]["data"]["reason"], "open_mode"),
            "members" => assert_eq!(answer["error"]["data"]["reason"], "not_a_member"),
            _ => assert!(answer["result"].is_object(), "{method}: {answer}"),
        }
        house.drop_connection(conn);
    }
}

#[test]
fn wrong_parameters_are_refused_and_change_nothing() {
    let long = "x".repeat(65);
    let user = json!({"user": "bob"});
    let cases = [
        ("login", json!({"device": {"id": "d"}})),
        ("login", json!({"user": 7, "device": {"id": "d"}})),
        ("login", json!({"user": long, "device": {"id": "d"}})),
        ("login", json!({"user": "a\u{1}", "device": {"id": "d"}})),
        ("login", json!({"user": "a", "device": {"id": long}})),
        ("login", json!({"user": "a", "device": {"id": "d", "kind": "x".repeat(33)}})),
        ("login", json!(["a", {"id": "d"}])),
        ("ping", json!([])),
        ("logout", json!(7)),
        ("send", json!({"to": user})),
        ("send", json!({"body": 1})),
        ("send", json!({"to": "bob", "body": 1})),
        ("send", json!({"to": {"user": long}, "body": 1})),
        ("send", json!({"to": {"user": "a", "room": "b"}, "body": 1})),
        ("send", json!({"to": user, "body": 1, "key": long})),
        ("signal", json!({"to": {"user": 7}, "body": 1})),
        ("signal", json!({"to": user})),
        ("join", json!({"room": 7})),
        ("leave", json!({})),
        ("members", json!({"room": "tea", "limit": 0})),
        ("presence", json!({"users": "bob"})),
        ("presence", json!({"users": [7]})),
        ("presence", json!({"users": vec!["u"; 101]})),
        ("presence", json!({})),
        ("sessions", json!("all")),
        ("kick", json!({})),
        ("kick", json!({"device": long})),
    ];
    let mut house = House::new(&[], 8);
    let fresh = house.open();
    let ann = house.login("ann", "phone");
    for (method, params) in cases {
        let conn = if method == "login" { fresh } else { ann };
        let failed = house.fail(conn, method, params.clone());
        assert_eq!(failed, (-32602, "invalid_params".into()), "{method} {params}");
        // As a notification it is not even refused.
        let said = house.say(conn, &json!({"method": method, "params": params}).to_string());
        assert!(said.answers.is_empty() && said.told.is_empty() && said.closed.is_empty());
    }
    assert_eq!(house.fail(fresh, "sessions", json!({})).0, -32000);
    assert_eq!(house.call(ann, "sessions", json!({}))["result"]["sessions"][0]["device"], "phone");
}

#[test]
fn what_is_not_there_yet_is_an_unknown_method() {
    let mut house = House::new(&[], 4);
    let ann = house.login("ann", "phone");
    for method in ["", "Login", "hello"] {
        let failed = house.fail(ann, method, json!({}));
        assert_eq!(failed, (-32601, "method_not_found".into()), "{method}");
    }
}

#[test]
fn a_login_tells_what_it_means_and_presence_shows_it() {
    let mut house = House::new(&[("im.heartbeat", "45s")], 4);
    let conn = house.open();
    let params = json!({"user": "ann", "device": {"id": "p", "model": "Pixel", "kind": "phone"}});
    let answer = house.call(conn, "login", params);
    assert_eq!(
        answer["result"],
        json!({
            "user": "ann", "device": "p", "session": conn.to_string(), "heartbeat_ms": 45_000,
            "time": 1_800_000_000_000_u64,
        })
    );
    let answer = house.call(conn, "presence", json!({"users": ["ann", "bob", "ann"]}));
    let ann = &answer["result"]["users"]["ann"];
    assert_eq!((&ann["online"], &ann["last_seen"]), (&json!(true), &Value::Null));
    assert_eq!(ann["devices"][0]["id"], "p");
    assert_eq!(ann["devices"][0]["model"], "Pixel");
    assert_eq!(ann["devices"][0]["kind"], "phone");
    assert!(ann["devices"][0]["last_active"].is_u64());
    let bob = &answer["result"]["users"]["bob"];
    let (version, earlier) = (bob["version"].as_u64(), ann["version"].as_u64());
    assert!(version > earlier && earlier.is_some());
    assert_eq!(
        bob,
        &json!({"online": false, "devices": [], "last_seen": null, "version": version})
    );
}

#[test]
fn a_logout_leaves_the_socket_and_lets_another_user_in() {
    let mut house = House::new(&[], 4);
    let (ann, bob) = (house.login("ann", "p"), house.login("bob", "p"));
    assert_eq!(house.call(ann, "logout", json!({}))["result"], json!({}));
    assert!(house.worker.table().is_established(ann));
    let users = json!({"users": ["ann", "zoe"]});
    let answer = house.call(bob, "presence", users.clone());
    assert_eq!(answer["result"]["users"]["ann"]["online"], false);
    assert_eq!(house.fail(ann, "logout", json!({})).0, -32000);
    let login = json!({"user": "zoe", "device": {"id": "d"}});
    assert_eq!(house.call(ann, "login", login)["result"]["user"], "zoe");
    let answer = house.call(bob, "presence", users);
    assert_eq!(answer["result"]["users"]["zoe"]["online"], true);
    assert_eq!(answer["result"]["users"]["ann"]["online"], false);
}
