//! `send` with a key: once, on whichever worker the retry lands, and whoever dies in between.

use crate::support::{House, Said, request};
use dunlin_server::{ConnId, SlotId};
use serde_json::{Value, json};
use std::mem;

fn keyed(body: &str) -> Value {
    json!({"to": {"user": "bob"}, "body": body, "key": "k1"})
}

/// A send with the key, the answer's `result`, and whom it reached.
fn send(house: &mut House, from: ConnId, params: Value) -> (Value, Vec<ConnId>) {
    let mut said = house.say(from, &request("send", params));
    assert!(said.answers[0]["result"].is_object(), "{said:?}");
    (said.answers[0]["result"].take(), reached(&said))
}

fn reached(said: &Said) -> Vec<ConnId> {
    said.told.iter().map(|(conn, _)| *conn).collect()
}

fn figures(house: &House) -> Value {
    use dunlin_server::App;
    house.worker.in_master(|master| house.app.status(master))["idempotency"].take()
}

#[test]
fn a_retry_gets_the_first_result_and_is_not_sent_again() {
    let mut house = House::new(&[], 8);
    let (ann, bob) = (house.login("ann", "phone"), house.login("bob", "desk"));
    let (first, to) = send(&mut house, ann, keyed("tea?"));
    assert_eq!((&first["sessions"], to), (&json!(1), vec![bob]));
    // Not the state of now counts: the first result does.
    house.drop_connection(bob);
    house.worker.pass(299_999);
    assert_eq!(send(&mut house, ann, keyed("tea?")), (first.clone(), vec![]));
    house.worker.pass(1);
    let (later, _) = send(&mut house, ann, keyed("tea?"));
    assert!(later["id"].as_str() > first["id"].as_str(), "five minutes are over");
    assert_eq!(figures(&house)["repeated"], 1);
}

#[test]
fn the_key_is_the_users_and_the_devices() {
    let mut house = House::new(&[], 8);
    let (ann, desk) = (house.login("ann", "phone"), house.login("ann", "desk"));
    let (zoe, bob) = (house.login("zoe", "phone"), house.login("bob", "phone"));
    let mut ids = Vec::new();
    for from in [ann, desk, zoe] {
        let (result, to) = send(&mut house, from, keyed("tea?"));
        assert!(to.contains(&bob));
        ids.push(result["id"].clone());
    }
    // The same device comes back on another connection.
    house.drop_connection(ann);
    let back = house.login("ann", "phone");
    let (again, to) = send(&mut house, back, keyed("tea?"));
    assert_eq!((&again["id"], to), (&ids[0], vec![]));
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[test]
fn another_message_with_the_key_is_refused() {
    let mut house = House::new(&[], 8);
    let (ann, _bob) = (house.login("ann", "phone"), house.login("bob", "phone"));
    send(&mut house, ann, keyed("tea?"));
    for params in [
        keyed("no tea"),
        json!({"to": {"user": "zoe"}, "body": "tea?", "key": "k1"}),
        json!({"to": {"room": "bob"}, "body": "tea?", "key": "k1"}),
    ] {
        let said = house.say(ann, &request("send", params));
        let error = &said.answers[0]["error"];
        assert_eq!(error["code"], -32602, "{error}");
        assert_eq!(error["data"]["reason"], "key_reused", "{error}");
        assert!(said.told.is_empty());
    }
    assert_eq!(figures(&house)["reused"], 3);
}

#[test]
fn what_was_not_sent_leaves_its_key_free() {
    let mut house = House::new(&[], 8);
    let (ann, bob) = (house.login("ann", "phone"), house.login("bob", "phone"));
    house.worker.set_full(bob, true);
    assert_eq!(house.fail(ann, "send", keyed("tea?")), (-32006, "busy".into()));
    assert_eq!(figures(&house)["kept"], 0);
    house.worker.set_full(bob, false);
    assert_eq!(send(&mut house, ann, keyed("tea?")).1, [bob]);
}

#[test]
fn a_retry_on_another_worker_waits_for_the_first_and_gets_its_result() {
    let mut house = House::new(&[], 8);
    let (ann, bob) = (house.login("ann", "phone"), house.login("bob", "desk"));
    let mut other = house.worker.sibling(SlotId(1));
    mem::swap(&mut house.worker, &mut other);
    let back = house.login("ann", "phone");
    // The device replaced its session: it is the same user and device, on the other worker.
    mem::swap(&mut house.worker, &mut other);
    house.worker.begin_turn();
    let (first, to) = send_from_closing(&mut house, ann);
    assert_eq!(to, [bob, back], "the recipient, and a copy");
    mem::swap(&mut house.worker, &mut other);
    let answer = house.call(back, "send", keyed("tea?"));
    assert_eq!(answer["error"]["code"], -32006);
    assert_eq!(answer["error"]["data"], json!({"reason": "key_under_way", "retry_after_ms": 250}));
    other.settle();
    assert_eq!(send(&mut house, back, keyed("tea?")), (first, vec![]));
}

/// Sends by a session that a newer login is closing, whose request came before that.
fn send_from_closing(house: &mut House, ann: ConnId) -> (Value, Vec<ConnId>) {
    // Its answer goes nowhere, so the result is what a recipient sees.
    let said = house.say(ann, &request("send", keyed("tea?")));
    let (_, message) = &said.told[0];
    let result = json!({
        "id": message["params"]["id"], "time": message["params"]["time"], "sessions": 1,
    });
    (result, reached(&said))
}

#[test]
fn a_message_that_may_be_lost_with_its_worker_is_sent_again_under_its_id() {
    let mut house = House::new(&[], 8);
    let (ann, bob) = (house.login("ann", "phone"), house.login("bob", "desk"));
    let mut successor = house.worker.sibling(SlotId(0));
    house.worker.begin_turn();
    let said = house.say(ann, &request("send", keyed("tea?")));
    let first = said.told[0].1["params"]["id"].clone();
    // Killed before its mail left, or right after: nobody knows.
    house.worker.die();
    house.worker.lose(ann);
    house.drop_connection(ann);
    mem::swap(&mut house.worker, &mut successor);
    let back = house.login("ann", "phone");
    house.worker.begin_turn();
    let (result, to) = send(&mut house, back, keyed("tea?"));
    assert_eq!((&result["id"], to), (&first, vec![bob]));
    house.worker.settle();
    house.worker.begin_turn();
    assert_eq!(send(&mut house, back, keyed("tea?")), (result, vec![]), "now it is known");
    assert_eq!(figures(&house)["sent_again"], 1);
}

#[test]
fn more_keys_than_there_is_room_for_drop_the_oldest() {
    let mut house = House::new(&[("im.idempotency_entries", "16")], 4);
    let ann = house.login("ann", "phone");
    let mut one = |n: u32| {
        let params = json!({"to": {"user": "bob"}, "body": 1, "key": n.to_string()});
        send(&mut house, ann, params).0["id"].clone()
    };
    let ids: Vec<Value> = (0..17).map(&mut one).collect();
    assert_eq!(one(16), ids[16]);
    assert_eq!(one(1), ids[1]);
    assert_ne!(one(0), ids[0], "it was dropped");
    assert_eq!(figures(&house)["dropped"], 2);
}
