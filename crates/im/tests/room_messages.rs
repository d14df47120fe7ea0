//! `send` and `signal` to a room.

use crate::support::{House, request};
use dunlin_server::context::Urgency;
use dunlin_server::simulation::Deed;
use dunlin_server::{App, ConnId, Message};
use serde_json::json;

/// A house with these sessions in a room, by user and device.
fn room(sessions: &[(&str, &str)]) -> (House, Vec<ConnId>) {
    let mut house = House::new(&[], 16);
    let conns: Vec<ConnId> =
        sessions.iter().map(|(user, device)| house.login(user, device)).collect();
    for conn in &conns {
        let answer = house.call(*conn, "join", json!({"room": "tea"}));
        assert!(answer["result"].is_object(), "{answer}");
    }
    (house, conns)
}

#[test]
fn a_message_reaches_every_other_session_in_the_room_once() {
    let (mut house, conns) = room(&[("ann", "p"), ("ann", "desk"), ("bob", "p"), ("bob", "q")]);
    let beside = house.login("ann", "beside");
    house.login("zoe", "p");
    let said = house.say(conns[0], &request("send", json!({"to": {"room": "tea"}, "body": "hi"})));
    let result = &said.answers[0]["result"];
    assert_eq!(result["sessions"], 3, "the copy beside the room is not counted");
    let mut to: Vec<ConnId> = said.told.iter().map(|(conn, _)| *conn).collect();
    assert_eq!(to.pop(), Some(beside));
    assert_eq!(to, conns[1..]);
    for (_, message) in &said.told {
        assert_eq!(
            message["params"],
            json!({
                "id": result["id"], "from": {"user": "ann", "device": "p"},
                "to": {"room": "tea"}, "body": "hi", "time": result["time"],
            })
        );
    }
}

#[test]
fn alone_in_a_room_nobody_hears_and_that_is_no_error() {
    let (mut house, conns) = room(&[("ann", "p")]);
    let answer = house.call(conns[0], "send", json!({"to": {"room": "tea"}, "body": 1}));
    assert_eq!(answer["result"]["sessions"], 0);
}

#[test]
fn a_room_of_which_nobody_can_take_it_is_busy() {
    let (mut house, conns) = room(&[("ann", "p"), ("bob", "p"), ("cid", "p")]);
    let message = json!({"to": {"room": "tea"}, "body": 1});
    house.worker.set_full(conns[1], true);
    assert_eq!(house.call(conns[0], "send", message.clone())["result"]["sessions"], 1);
    house.worker.set_full(conns[2], true);
    assert_eq!(house.fail(conns[0], "send", message), (-32006, "busy".into()));
}

#[test]
fn who_has_left_neither_sends_nor_hears() {
    let (mut house, conns) = room(&[("ann", "p"), ("bob", "p"), ("cid", "p")]);
    house.call(conns[1], "leave", json!({"room": "tea"}));
    let message = json!({"to": {"room": "tea"}, "body": 1});
    for method in ["send", "signal"] {
        assert_eq!(house.fail(conns[1], method, message.clone()), (-32003, "not_a_member".into()));
    }
    house.worker.lose(conns[2]);
    let said = house.say(conns[0], &request("send", message));
    assert_eq!((said.answers[0]["result"]["sessions"].as_u64(), said.told.len()), (Some(0), 0));
}

#[test]
fn a_signal_reaches_the_others_and_may_be_dropped() {
    let (mut house, conns) = room(&[("ann", "p"), ("bob", "p"), ("cid", "p")]);
    house.worker.set_full(conns[2], true);
    let text = request("signal", json!({"to": {"room": "tea"}, "body": "typing"}));
    house.app.message(&mut house.worker.context(), conns[0], Message::Text(&text));
    let deeds = house.worker.take_deeds();
    let [Deed::Push { conn, payload, urgency, .. }, Deed::Push { conn: asker, .. }] = &deeds[..]
    else {
        panic!("{deeds:?}")
    };
    assert_eq!((*conn, *urgency, *asker), (conns[1], Urgency::Droppable, conns[0]));
    let signal: serde_json::Value = serde_json::from_slice(payload).unwrap();
    let expected =
        json!({"from": {"user": "ann", "device": "p"}, "to": {"room": "tea"}, "body": "typing"});
    assert_eq!(signal["params"], expected);
}
