//! `join`, `leave`, `members`: who is in a room, who is told, and every limit.

use crate::support::{House, Said, request};
use dunlin_server::{ConnId, SlotId};
use serde_json::{Value, json};

fn join(house: &mut House, conn: ConnId, room: &str) -> u64 {
    let answer = house.call(conn, "join", json!({"room": room}));
    answer["result"]["count"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

fn members(house: &mut House, conn: ConnId, room: &str) -> Vec<String> {
    let answer = house.call(conn, "members", json!({"room": room}));
    let members = answer["result"]["members"].as_array().unwrap_or_else(|| panic!("{answer}"));
    members.iter().map(|user| user.as_str().unwrap().to_owned()).collect()
}

/// What was told, as connection, method, user and count.
fn told(said: &Said) -> Vec<(ConnId, &str, &str, u64)> {
    said.told.iter().map(tell).collect()
}

fn tell((conn, value): &(ConnId, Value)) -> (ConnId, &str, &str, u64) {
    let params = &value["params"];
    let method = value["method"].as_str().expect("a notification has a method");
    let user = params["user"].as_str().unwrap_or_else(|| panic!("{value}"));
    (*conn, method, user, params["count"].as_u64().unwrap_or_else(|| panic!("{value}")))
}

#[test]
fn users_come_and_go_and_the_others_are_told() {
    let mut house = House::new(&[], 8);
    let ann = house.login("ann", "p");
    let answer = house.call(ann, "join", json!({"room": "tea"}));
    assert_eq!(answer["result"], json!({"room": "tea", "count": 1}));
    let bob = house.login("bob", "p");
    let said = house.say(bob, &request("join", json!({"room": "tea"})));
    assert_eq!(said.answers[0]["result"]["count"], 2);
    assert_eq!(told(&said), [(ann, "joined", "bob", 2)]);
    assert_eq!(members(&mut house, ann, "tea"), ["ann", "bob"]);

    let said = house.say(ann, &request("leave", json!({"room": "tea"})));
    assert_eq!(said.answers[0]["result"], json!({"room": "tea", "count": 1}));
    assert_eq!(told(&said), [(bob, "left", "ann", 1)]);
    assert_eq!(members(&mut house, bob, "tea"), ["bob"]);
    let not_in = (-32003, "not_a_member".to_owned());
    assert_eq!(house.fail(ann, "members", json!({"room": "tea"})), not_in);
}

#[test]
fn joining_and_leaving_again_change_nothing() {
    let mut house = House::new(&[], 8);
    let (ann, bob) = (house.login("ann", "p"), house.login("bob", "p"));
    join(&mut house, bob, "tea");
    assert_eq!(join(&mut house, ann, "tea"), 2);
    let said = house.say(ann, &request("join", json!({"room": "tea"})));
    assert_eq!((said.answers[0]["result"]["count"].as_u64(), said.told.len()), (Some(2), 0));
    for count in [1, 0] {
        let said = house.say(ann, &request("leave", json!({"room": "tea"})));
        assert_eq!(said.answers[0]["result"]["count"], count);
        assert_eq!(said.told.len(), usize::from(count == 1));
    }
    let answer = house.call(ann, "leave", json!({"room": "nobody is here"}));
    assert_eq!(answer["result"], json!({"room": "nobody is here", "count": 0}));
}

#[test]
fn a_user_is_told_once_however_many_sessions_he_has() {
    let mut house = House::new(&[], 8);
    let zoe = house.login("zoe", "p");
    let (phone, desk) = (house.login("ann", "phone"), house.login("ann", "desk"));
    join(&mut house, zoe, "tea");
    let mut said_by = |conn, method| house.say(conn, &request(method, json!({"room": "tea"})));
    assert_eq!(told(&said_by(phone, "join")), [(zoe, "joined", "ann", 2)]);
    let said = said_by(desk, "join");
    assert_eq!((told(&said), &said.answers[0]["result"]["count"]), (vec![], &json!(2)));
    let said = said_by(phone, "leave");
    assert_eq!((told(&said), &said.answers[0]["result"]["count"]), (vec![], &json!(2)));
    assert_eq!(told(&said_by(desk, "leave")), [(zoe, "left", "ann", 1)]);
}

#[test]
fn whoever_logs_out_or_goes_has_left() {
    let mut house = House::new(&[], 8);
    let zoe = house.login("zoe", "p");
    join(&mut house, zoe, "tea");
    let ann = house.login("ann", "p");
    join(&mut house, ann, "tea");
    join(&mut house, ann, "milk");
    let said = house.say(ann, &request("logout", json!({})));
    assert_eq!(told(&said), [(zoe, "left", "ann", 1)]);
    let login = json!({"user": "bob", "device": {"id": "p"}});
    assert!(house.call(ann, "login", login)["result"].is_object());
    let not_in = (-32003, "not_a_member".to_owned());
    assert_eq!(house.fail(ann, "members", json!({"room": "milk"})), not_in);

    join(&mut house, ann, "tea");
    house.drop_connection(ann);
    assert_eq!(told(&house.heard(zoe)), [(zoe, "left", "bob", 1)]);
    assert_eq!(members(&mut house, zoe, "tea"), ["zoe"]);
    // The row's next life is in no room.
    let next = house.login("cid", "p");
    assert_eq!(next.row().index, ann.row().index);
    assert_eq!(house.fail(next, "members", json!({"room": "tea"})), not_in);
}

#[test]
fn members_of_other_workers_and_of_dead_ones_are_right_at_once() {
    let mut house = House::new(&[], 8);
    let ann = house.login("ann", "p");
    join(&mut house, ann, "tea");
    let mut other = house.worker.sibling(SlotId(1));
    std::mem::swap(&mut house.worker, &mut other);
    let bob = house.login("bob", "p");
    let said = house.say(bob, &request("join", json!({"room": "tea"})));
    assert_eq!(told(&said), [(ann, "joined", "bob", 2)]);

    std::mem::swap(&mut house.worker, &mut other);
    house.worker.lose(bob);
    assert_eq!(members(&mut house, ann, "tea"), ["ann"], "before anybody has closed the row");
    house.drop_connection(bob);
    assert_eq!(told(&house.heard(ann)), [(ann, "left", "bob", 1)]);
}

#[test]
fn members_come_in_parts_each_user_once() {
    let mut house = House::new(&[], 64);
    let ann = house.login("ann", "p");
    join(&mut house, ann, "tea");
    for n in 0..20 {
        let conn = house.login(&format!("u{}", n / 2), &format!("d{n}"));
        join(&mut house, conn, "tea");
    }
    let mut found = Vec::new();
    let mut cursor = Value::Null;
    for part in 0..4 {
        let params = json!({"room": "tea", "limit": 3, "cursor": cursor});
        let result = house.call(ann, "members", params)["result"].take();
        let some = result["members"].as_array().unwrap();
        assert_eq!((some.len(), &result["partial"]), (if part < 3 { 3 } else { 2 }, &json!(false)));
        found.extend(some.iter().map(|user| user.as_str().unwrap().to_owned()));
        cursor = result["cursor"].clone();
        assert_eq!(cursor.is_string(), part < 3);
    }
    found.sort();
    let mut all: Vec<String> = (0..10).map(|n| format!("u{n}")).collect();
    all.insert(0, "ann".into());
    assert_eq!(found, all);
    assert!(house.call(ann, "members", json!({"room": "tea"}))["result"].get("cursor").is_none());
}

#[test]
fn wrong_parameters_are_named() {
    let mut house = House::new(&[], 4);
    let ann = house.login("ann", "p");
    join(&mut house, ann, "tea");
    let long = "x".repeat(65);
    for (method, params, field) in [
        ("join", json!({}), "params.room"),
        ("join", json!({"room": 7}), "params.room"),
        ("join", json!({"room": ""}), "params.room"),
        ("join", json!({"room": long}), "params.room"),
        ("leave", json!({"room": "a\u{0}"}), "params.room"),
        ("leave", json!(null), "params is missing"),
        ("members", json!({"room": null}), "params.room"),
        ("members", json!({"room": "tea", "limit": 0}), "params.limit"),
        ("members", json!({"room": "tea", "limit": 1_001}), "params.limit"),
        ("members", json!({"room": "tea", "limit": "7"}), "params.limit"),
        ("members", json!({"room": "tea", "limit": 1.5}), "params.limit"),
        ("members", json!({"room": "tea", "cursor": 7}), "params.cursor"),
        ("members", json!({"room": "tea", "cursor": "07"}), "params.cursor"),
        ("members", json!({"room": "tea", "cursor": "-1"}), "params.cursor"),
        ("members", json!({"room": "tea", "cursor": "99999999999"}), "params.cursor"),
    ] {
        let answer = house.call(ann, method, params.clone());
        assert_eq!(answer["error"]["code"], -32602, "{method} {params}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.starts_with(field), "{method} {params}: {message}");
    }
    let longest = "é".repeat(32);
    assert_eq!(join(&mut house, ann, &longest), 1);
    assert_eq!(members(&mut house, ann, &longest), ["ann"]);
}

#[test]
fn a_session_is_in_so_many_rooms_at_most() {
    let mut house = House::new(&[("im.max_rooms", "2")], 4);
    let ann = house.login("ann", "p");
    join(&mut house, ann, "a");
    join(&mut house, ann, "b");
    let refused = (-32003, "too_many_rooms".to_owned());
    assert_eq!(house.fail(ann, "join", json!({"room": "c"})), refused);
    assert_eq!(join(&mut house, ann, "a"), 1, "it is in that one");
    house.call(ann, "leave", json!({"room": "a"}));
    assert_eq!(join(&mut house, ann, "c"), 1);
    assert_eq!(figure(&house, "refused_too_many_rooms"), 1);

    let mut house = House::new(&[], 4);
    let ann = house.login("ann", "p");
    for n in 0..16 {
        join(&mut house, ann, &n.to_string());
    }
    assert_eq!(house.fail(ann, "join", json!({"room": "16"})), refused);
    assert_eq!(members(&mut house, ann, "15"), ["ann"]);
}

#[test]
fn a_room_has_so_many_members_at_most() {
    let mut house = House::new(&[("im.max_room_members", "2")], 8);
    let conns = ["ann", "bob", "cid"].map(|user| house.login(user, "p"));
    join(&mut house, conns[0], "tea");
    join(&mut house, conns[1], "tea");
    let refused = (-32007, "room_full".to_owned());
    assert_eq!(house.fail(conns[2], "join", json!({"room": "tea"})), refused);
    assert_eq!(figure(&house, "refused_room_full"), 1);
    // Who is gone takes no place, also before his row is closed.
    house.worker.lose(conns[0]);
    assert_eq!(join(&mut house, conns[2], "tea"), 2);
}

#[test]
fn there_are_so_many_rooms_at_most_and_empty_ones_take_no_place() {
    let mut house = House::new(&[("table.rooms", "3")], 8);
    let (ann, bob) = (house.login("ann", "p"), house.login("bob", "p"));
    for room in ["a", "b", "c"] {
        join(&mut house, ann, room);
    }
    let refused = (-32007, "table_full".to_owned());
    assert_eq!(house.fail(bob, "join", json!({"room": "d"})), refused);
    assert_eq!((figure(&house, "refused_rooms_full"), figure(&house, "used")), (1, 3));
    join(&mut house, bob, "a");
    house.call(ann, "leave", json!({"room": "a"}));
    assert_eq!(house.fail(ann, "join", json!({"room": "d"})), refused, "bob is in a");
    house.call(ann, "leave", json!({"room": "b"}));
    assert_eq!(join(&mut house, bob, "d"), 1);
    house.drop_connection(ann);
    house.drop_connection(bob);
    assert_eq!((figure(&house, "used"), figure(&house, "members")), (0, 0));
}

#[test]
fn there_are_so_many_memberships_at_most() {
    let mut house =
        House::new(&[("table.room_members", "1"), ("im.room_quiet_above", "1000")], 256);
    let conns: Vec<ConnId> = (0..130).map(|n| house.login(&format!("u{n}"), "p")).collect();
    let mut taken = 0;
    let refused = (-32007, "table_full".to_owned());
    for conn in &conns {
        let answer = house.call(*conn, "join", json!({"room": "tea"}));
        match answer["error"]["code"].as_i64() {
            None => taken += 1,
            Some(code) => {
                let reason = answer["error"]["data"]["reason"].as_str().unwrap().to_owned();
                assert_eq!((code, reason), refused);
            }
        }
    }
    assert_eq!(taken, 128, "two windows of cells");
    assert_eq!((figure(&house, "refused_members_full"), figure(&house, "members")), (2, 128));
    house.drop_connection(conns[5]);
    assert_eq!(join(&mut house, conns[129], "tea"), 128);
}

fn figure(house: &House, name: &str) -> u64 {
    use dunlin_server::App;
    let status = house.worker.in_master(|master| house.app.status(master));
    status["rooms"][name].as_u64().unwrap_or_else(|| panic!("{name}: {status}"))
}
