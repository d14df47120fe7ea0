//! `send` and `signal`: who gets what, and what the sender is told.

use crate::support::{House, request};
use dunlin_im::protocol::METHODS;
use dunlin_server::context::Urgency;
use dunlin_server::simulation::Deed;
use dunlin_server::{App, Message, SlotId};
use serde_json::json;

#[test]
fn a_message_reaches_every_session_of_the_recipient_and_the_senders_others() {
    let mut house = House::new(&[], 8);
    let (ann, desk) = (house.login("ann", "phone"), house.login("ann", "desk"));
    let (bob, tablet) = (house.login("bob", "phone"), house.login("bob", "tablet"));
    house.login("zoe", "phone");
    let body = json!({"text": "tea?", "n": [1, 2.50]});
    let said = house.say(ann, &request("send", json!({"to": {"user": "bob"}, "body": body})));
    let result = &said.answers[0]["result"];
    assert_eq!(result["sessions"], 2);
    assert_eq!(result["time"], 1_800_000_000_000_u64);
    let to: Vec<_> = said.told.iter().map(|(conn, _)| *conn).collect();
    assert_eq!(to, [bob, tablet, desk]);
    for (_, message) in &said.told {
        assert_eq!(message["method"], "message");
        assert_eq!(
            message["params"],
            json!({
                "id": result["id"], "from": {"user": "ann", "device": "phone"},
                "to": {"user": "bob"}, "body": body, "time": result["time"],
            })
        );
    }
}

#[test]
fn nobody_online_is_no_error_and_the_senders_other_devices_still_see_it() {
    let mut house = House::new(&[], 8);
    let (ann, desk) = (house.login("ann", "phone"), house.login("ann", "desk"));
    let said = house.say(ann, &request("send", json!({"to": {"user": "bob"}, "body": null})));
    assert_eq!(said.answers[0]["result"]["sessions"], 0);
    assert_eq!(said.told.len(), 1);
    assert_eq!(said.told[0].0, desk);
}

#[test]
fn a_message_to_oneself_reaches_each_session_once() {
    let mut house = House::new(&[], 8);
    let (ann, desk) = (house.login("ann", "phone"), house.login("ann", "desk"));
    let said = house.say(ann, &request("send", json!({"to": {"user": "ann"}, "body": 1})));
    assert_eq!(said.answers[0]["result"]["sessions"], 2);
    let to: Vec<_> = said.told.iter().map(|(conn, _)| *conn).collect();
    assert_eq!(to, [ann, desk]);
}

#[test]
fn a_recipient_who_cannot_take_it_is_busy() {
    let mut house = House::new(&[], 8);
    let (ann, desk) = (house.login("ann", "phone"), house.login("ann", "desk"));
    let (bob, tablet) = (house.login("bob", "phone"), house.login("bob", "tablet"));
    house.worker.set_full(bob, true);
    let message = json!({"to": {"user": "bob"}, "body": 1});
    assert_eq!(house.call(ann, "send", message.clone())["result"]["sessions"], 1);
    house.worker.set_full(tablet, true);
    let said = house.say(ann, &request("send", message));
    let error = &said.answers[0]["error"];
    assert_eq!((&error["code"], &error["data"]["reason"]), (&json!(-32006), &json!("busy")));
    assert!(error["data"]["retry_after_ms"].as_u64().unwrap() > 0);
    assert!(said.told.is_empty(), "no copy of what was not sent to {desk}");
}

#[test]
fn ids_sort_by_time_also_when_the_clock_stands() {
    let mut house = House::new(&[], 4);
    let ann = house.login("ann", "phone");
    let mut ids = Vec::new();
    for pass in [0, 0, 1, 0, 1_000] {
        house.worker.pass(pass);
        let answer = house.call(ann, "send", json!({"to": {"user": "bob"}, "body": 1}));
        ids.push(answer["result"]["id"].as_str().unwrap().to_owned());
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert!(ids.iter().all(|id| id.len() == 16));
}

#[test]
fn rooms_need_a_membership() {
    let mut house = House::new(&[], 4);
    let ann = house.login("ann", "phone");
    for method in ["send", "signal"] {
        let failed = house.fail(ann, method, json!({"to": {"room": "tea"}, "body": 1}));
        assert_eq!(failed, (-32003, "not_a_member".into()));
    }
}

#[test]
fn a_body_over_the_limit_is_too_large() {
    let mut house = House::new(&[("im.max_body", "10")], 4);
    let ann = house.login("ann", "phone");
    for method in ["send", "signal"] {
        let params = |body: &str| json!({"to": {"user": "bob"}, "body": body});
        assert!(house.call(ann, method, params("12345678"))["result"].is_object());
        let failed = house.fail(ann, method, params("123456789"));
        assert_eq!(failed, (-32005, "too_large".into()));
    }
}

#[test]
fn a_signal_may_be_dropped_and_leaves_no_trace() {
    let mut house = House::new(&[], 8);
    let (ann, _desk) = (house.login("ann", "phone"), house.login("ann", "desk"));
    let (bob, slow) = (house.login("bob", "phone"), house.login("bob", "tablet"));
    house.worker.set_full(slow, true);
    let text = request("signal", json!({"to": {"user": "bob"}, "body": "typing"}));
    house.app.message(&mut house.worker.context(), ann, Message::Text(&text));
    let deeds = house.worker.take_deeds();
    let [Deed::Push { conn, payload, urgency, .. }, Deed::Push { conn: asker, .. }] = &deeds[..]
    else {
        panic!("{deeds:?}")
    };
    assert_eq!((*conn, *urgency, *asker), (bob, Urgency::Droppable, ann));
    let signal: serde_json::Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(
        signal["params"],
        json!({"from": {"user": "ann", "device": "phone"}, "to": {"user": "bob"}, "body": "typing"})
    );
}

#[test]
fn users_meet_across_workers() {
    let mut house = House::new(&[], 8);
    let ann = house.login("ann", "phone");
    let mut other = house.worker.sibling(SlotId(1));
    std::mem::swap(&mut house.worker, &mut other);
    let bob = house.login("bob", "phone");
    let said = house.say(bob, &request("send", json!({"to": {"user": "ann"}, "body": "hi"})));
    assert_eq!(said.answers[0]["result"]["sessions"], 1);
    assert_eq!(said.told[0].0, ann);
    let answer = house.call(bob, "presence", json!({"users": ["ann"]}));
    assert_eq!(answer["result"]["users"]["ann"]["online"], true);
}

#[test]
fn notifications_are_done_and_not_answered() {
    let mut house = House::new(&[], 8);
    let (ann, bob) = (house.login("ann", "phone"), house.login("bob", "phone"));
    let send = json!({"method": "send", "params": {"to": {"user": "bob"}, "body": 1}});
    let said = house.say(ann, &send.to_string());
    assert!(said.answers.is_empty());
    assert_eq!(said.told[0].0, bob);
    for (method, _) in METHODS {
        let said = house.say(ann, &json!({"method": method, "params": 7}).to_string());
        assert!(said.answers.is_empty(), "{method}");
    }
}
