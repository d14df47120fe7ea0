//! The end of a token during a session: `refresh`, and what comes without it.

use crate::support::tokens::{Keys, NOW, claims, hs256};
use crate::support::{House, request};
use dunlin_server::{App, ConnId, SlotId};
use serde_json::{Value, json};

/// A house by one key; a token's end and the session's are 5 s + 10 s apart.
fn house(keys: &Keys) -> House {
    let lines = keys.lines(&["h"]);
    let words = [
        ("auth.mode", "token"),
        ("auth.keys", lines.as_str()),
        ("auth.issuer", "https://id.example"),
        ("auth.audience", "dunlin"),
        ("im.heartbeat", "30s"),
    ];
    House::new(&words, 8)
}

/// A token that ends so many seconds after the start.
fn token(user: &str, ends: u64) -> String {
    hs256(Some("h"), &claims(&json!({"sub": user, "exp": NOW + ends})))
}

fn log_in(house: &mut House, token: &str) -> ConnId {
    let conn = house.open();
    let answer = house.call(conn, "login", json!({"token": token, "device": {"id": "p"}}));
    assert!(answer["result"].is_object(), "{answer}");
    conn
}

/// Lets time pass with a frame every second; gives after how many the deadline hook closed it.
fn stay_busy(house: &mut House, conn: ConnId, seconds: u64) -> Option<(u64, u16)> {
    for second in 1..=seconds {
        house.worker.pass(1_000);
        if house.worker.expire(&mut house.app, conn) {
            let said = house.heard(conn);
            assert_eq!(said.told[0].1["params"]["reconnect"], said.closed[0].1 == 4002);
            return Some((second, said.closed[0].1));
        }
        house.worker.touch(conn);
    }
    None
}

#[test]
fn a_busy_client_is_closed_the_moment_the_grace_is_over() {
    let keys = Keys::new();
    let mut house = house(&keys);
    let conn = log_in(&mut house, &token("ann", 100));
    assert_eq!(stay_busy(&mut house, conn, 114), None);
    house.worker.pass(999);
    assert!(!house.worker.expire(&mut house.app, conn));
    // A frame in the last millisecond moves nothing.
    house.worker.touch(conn);
    house.worker.pass(1);
    assert!(house.worker.expire(&mut house.app, conn));
    assert_eq!(house.heard(conn).closed, [(conn, 4502)]);
    let status = house.worker.in_master(|master| house.app.status(master));
    assert_eq!(status["auth"]["expired"], 1);
}

#[test]
fn a_silent_client_is_closed_by_what_comes_first() {
    let keys = Keys::new();
    let mut house = house(&keys);
    let (early, late) =
        (log_in(&mut house, &token("ann", 10)), log_in(&mut house, &token("bob", 100)));
    house.worker.pass(24_999);
    assert!(!house.worker.expire(&mut house.app, early));
    house.worker.pass(1);
    assert!(house.worker.expire(&mut house.app, early));
    assert_eq!(house.heard(early).closed, [(early, 4502)]);
    house.worker.pass(5_000);
    assert!(house.worker.expire(&mut house.app, late));
    assert_eq!(house.heard(late).closed, [(late, 4002)]);
}

#[test]
fn a_refresh_moves_the_end_also_in_the_grace() {
    let keys = Keys::new();
    let mut house = house(&keys);
    let conn = log_in(&mut house, &token("ann", 20));
    assert_eq!(stay_busy(&mut house, conn, 34), None);
    let answer = house.call(conn, "refresh", json!({"token": token("ann", 60)}));
    assert_eq!(answer["result"], json!({"expires": (NOW + 60) * 1_000}));
    assert_eq!(stay_busy(&mut house, conn, 100), Some((41, 4502)), "60 + 15 s after the start");
    // One that ends earlier moves it, too: the last one counts.
    let conn = log_in(&mut house, &token("ann", 1_000));
    house.call(conn, "refresh", json!({"token": token("ann", 80)}));
    assert_eq!(stay_busy(&mut house, conn, 100), Some((20, 4502)));
}

#[test]
fn a_refresh_is_for_the_same_user_and_device_and_a_bad_one_changes_nothing() {
    let keys = Keys::new();
    let mut house = house(&keys);
    let conn = log_in(&mut house, &token("ann", 20));
    let mut refresh = |token: String| house.fail(conn, "refresh", json!({"token": token}));
    assert_eq!(refresh(token("bob", 500)), (-32003, "wrong_user".into()));
    let other = hs256(Some("h"), &claims(&json!({"exp": NOW + 500, "device": "q"})));
    assert_eq!(refresh(other), (-32003, "wrong_device".into()));
    assert_eq!(refresh("a.b.c".into()), (-32001, "auth_failed".into()));
    assert_eq!(house.fail(conn, "refresh", json!({})), (-32602, "invalid_params".into()));
    assert_eq!(stay_busy(&mut house, conn, 100), Some((35, 4502)));
    let conn = log_in(&mut house, &token("ann", 100));
    house.worker.pass(30_000);
    let late = house.fail(conn, "refresh", json!({"token": token("ann", 60)}));
    assert_eq!(late, (-32001, "token_expired".into()));
}

#[test]
fn refreshes_that_are_refused_close_as_logins_do() {
    let keys = Keys::new();
    let mut house = house(&keys);
    let conn = log_in(&mut house, &token("ann", 20));
    let bad = request("refresh", json!({"token": "a.b.c"}));
    for _ in 0..4 {
        assert!(house.say(conn, &bad).closed.is_empty());
    }
    assert_eq!(house.say(conn, &bad).closed, [(conn, 4502)]);
}

#[test]
fn a_logout_ends_the_end() {
    let keys = Keys::new();
    let mut house = house(&keys);
    let conn = log_in(&mut house, &token("ann", 1));
    house.worker.pass(14_000);
    house.call(conn, "logout", json!({}));
    assert_eq!(house.fail(conn, "refresh", json!({"token": token("ann", 60)})).0, -32000);
    house.worker.pass(9_999);
    assert!(!house.worker.expire(&mut house.app, conn));
    let answer: Value =
        house.call(conn, "login", json!({"token": token("ann", 60), "device": {"id": "p"}}));
    assert!(answer["result"].is_object());
    assert_eq!(stay_busy(&mut house, conn, 100), Some((52, 4502)));
}

/// What another process sees that takes the connection over: the row alone.
#[test]
fn whoever_takes_the_connection_over_knows_its_end() {
    let keys = Keys::new();
    let mut house = house(&keys);
    let conn = log_in(&mut house, &token("ann", 100));
    let mut successor = house.worker.sibling(SlotId(0));
    successor.pass(115_000);
    successor.touch(conn);
    assert!(successor.expire(&mut house.app, conn));
    assert!(!successor.table().is_established(conn));
}
