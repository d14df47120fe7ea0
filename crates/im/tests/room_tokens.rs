//! Rooms that a token names: joined with the login, and no others.

use crate::support::House;
use crate::support::tokens::{Keys, NOW, claims, hs256};
use dunlin_server::ConnId;
use serde_json::{Value, json};

fn house(keys: &Keys, more: &[(&'static str, &str)]) -> House {
    let lines = keys.lines(&["h"]);
    let mut words = vec![
        ("auth.mode", "token"),
        ("auth.keys", lines.as_str()),
        ("auth.issuer", "https://id.example"),
        ("auth.audience", "dunlin"),
    ];
    words.extend_from_slice(more);
    House::new(&words, 8)
}

fn token(user: &str, rooms: &Value) -> String {
    hs256(Some("h"), &claims(&json!({"sub": user, "exp": NOW + 60, "rooms": rooms})))
}

/// Logs in with these rooms; gives the `rooms` of the answer.
fn login(house: &mut House, user: &str, rooms: &Value) -> (ConnId, Value) {
    let conn = house.open();
    let params = json!({"token": token(user, rooms), "device": {"id": "p"}});
    let mut answer = house.call(conn, "login", params);
    assert!(answer["result"].is_object(), "{answer}");
    (conn, answer["result"]["rooms"].take())
}

fn is_in(house: &mut House, conn: ConnId, room: &str) -> bool {
    house.call(conn, "members", json!({"room": room}))["result"].is_object()
}

#[test]
fn a_login_joins_the_rooms_of_its_token_and_no_other() {
    let keys = Keys::new();
    // What the token names is not bound by this.
    let mut house = house(&keys, &[("im.max_rooms", "1")]);
    let (bob, rooms) = login(&mut house, "bob", &Value::Null);
    assert_eq!(rooms, Value::Null);
    house.call(bob, "join", json!({"room": "tea"}));
    let conn = house.open();
    let device = json!({"id": "p"});
    let params = json!({"token": token("ann", &json!(["tea", "milk", "tea"])), "device": device});
    let text = crate::support::request("login", params);
    let said = house.say(conn, &text);
    assert_eq!(said.answers[0]["result"]["rooms"], json!(["tea", "milk"]));
    assert_eq!(said.told.len(), 1);
    assert_eq!(said.told[0].1["params"], json!({"room": "tea", "user": "ann", "count": 2}));
    assert!(is_in(&mut house, conn, "tea") && is_in(&mut house, conn, "milk"));
    let refused = (-32003, "room_not_allowed".to_owned());
    assert_eq!(house.fail(conn, "join", json!({"room": "sugar"})), refused);
    // One that was left may be joined again.
    house.call(conn, "leave", json!({"room": "milk"}));
    house.call(conn, "leave", json!({"room": "tea"}));
    assert!(house.call(conn, "join", json!({"room": "milk"}))["result"].is_object());
}

#[test]
fn a_token_may_name_no_room_at_all() {
    let keys = Keys::new();
    let mut house = house(&keys, &[]);
    let (ann, rooms) = login(&mut house, "ann", &json!([]));
    assert_eq!(rooms, json!([]));
    let refused = (-32003, "room_not_allowed".to_owned());
    assert_eq!(house.fail(ann, "join", json!({"room": "tea"})), refused);
    let sixteen: Vec<String> = (0..16).map(|n| n.to_string()).collect();
    let (_, rooms) = login(&mut house, "bob", &json!(sixteen));
    assert_eq!(rooms, json!(sixteen));
}

#[test]
fn a_refresh_changes_the_rooms() {
    let keys = Keys::new();
    let mut house = house(&keys, &[]);
    let (ann, _) = login(&mut house, "ann", &json!(["tea", "milk"]));
    let mut refresh = |rooms: Value| {
        let answer = house.call(ann, "refresh", json!({"token": token("ann", &rooms)}));
        assert!(answer["result"].is_object(), "{answer}");
        let found = ["tea", "milk", "sugar"].map(|room| is_in(&mut house, ann, room));
        (answer["result"]["rooms"].clone(), found)
    };
    let (rooms, found) = refresh(json!(["milk", "sugar"]));
    assert_eq!((rooms, found), (json!(["milk", "sugar"]), [false, true, true]));
    let (rooms, found) = refresh(Value::Null);
    assert_eq!((rooms, found), (Value::Null, [false, true, true]), "nothing is forbidden now");
    let (rooms, found) = refresh(json!([]));
    assert_eq!((rooms, found), (json!([]), [false; 3]));
}

#[test]
fn what_a_token_forbids_ends_with_its_login() {
    let keys = Keys::new();
    let mut house = house(&keys, &[]);
    let (conn, _) = login(&mut house, "ann", &json!(["tea"]));
    house.call(conn, "logout", json!({}));
    let params = json!({"token": token("bob", &Value::Null), "device": {"id": "p"}});
    assert!(house.call(conn, "login", params)["result"].get("rooms").is_none());
    assert!(house.call(conn, "join", json!({"room": "sugar"}))["result"].is_object());
}

#[test]
fn a_room_that_is_full_is_missing_and_may_be_joined_later() {
    let keys = Keys::new();
    let mut house = house(&keys, &[("im.max_room_members", "1")]);
    let (bob, _) = login(&mut house, "bob", &json!(["tea"]));
    let (ann, rooms) = login(&mut house, "ann", &json!(["tea", "milk"]));
    assert_eq!(rooms, json!(["milk"]));
    house.drop_connection(bob);
    assert!(house.call(ann, "join", json!({"room": "tea"}))["result"].is_object());
}
