//! A user's own devices: `sessions`, `kick`, and who must go when one more logs in.

use crate::support::{House, Said, request, small_settings};
use dunlin_im::ImApp;
use dunlin_server::simulation::FakeWorker;
use dunlin_server::{App, ConnId, Message, SlotId};
use serde_json::{Value, json};
use std::sync::Barrier;

#[test]
fn one_sees_ones_own_sessions_and_nobody_elses() {
    let mut house = House::new(&[], 8);
    let phone = house.login("ann", "phone");
    house.worker.pass(5);
    let desk = house.login("ann", "desk");
    house.login("bob", "phone");
    let answer = house.call(desk, "sessions", json!(null));
    let sessions = answer["result"]["sessions"].as_array().unwrap();
    let seen: Vec<_> = sessions.iter().map(|one| (&one["session"], &one["device"])).collect();
    let (phone, desk) = (json!(phone.to_string()), json!(desk.to_string()));
    assert_eq!(seen, [(&phone, &json!("phone")), (&desk, &json!("desk"))]);
    assert_eq!(sessions[0]["ip"], "192.0.2.7");
    assert!(sessions[0]["connected_at"].is_u64() && sessions[0]["last_active"].is_u64());
}

#[test]
fn a_kick_closes_ones_own_other_devices_only() {
    let mut house = House::new(&[], 8);
    let (desk, phone) = (house.login("ann", "desk"), house.login("ann", "phone"));
    let bob = house.login("bob", "phone");
    let said = house.say(desk, &request("kick", json!({"device": "phone"})));
    assert_eq!(said.answers[0]["result"], json!({"kicked": 1}));
    assert_eq!(said.closed, [(phone, 4510)]);
    let bye = &said.told[0].1["params"];
    assert_eq!((&bye["code"], &bye["reconnect"]), (&json!(4510), &json!(false)));
    assert_eq!(bye["after_ms"], json!([0, 0]));
    assert!(house.worker.table().is_established(bob));
    let again = house.call(desk, "kick", json!({"device": "phone"}));
    assert_eq!(again["result"], json!({"kicked": 0}));
    let own = house.fail(desk, "kick", json!({"device": "desk"}));
    assert_eq!(own, (-32003, "own_device".into()));
}

#[test]
fn the_newest_login_wins_over_the_oldest() {
    let mut house = House::new(&[("im.max_devices", "2")], 8);
    let first = house.login("ann", "a");
    let second = house.login("ann", "b");
    let third = house.open();
    let login = json!({"user": "ann", "device": {"id": "c"}});
    let said = house.say(third, &request("login", login));
    assert!(said.answers[0]["result"].is_object());
    assert_eq!(said.closed, [(first, 4510)]);
    assert_eq!(said.told[0].0, first);
    assert_eq!(said.told[0].1["method"], "bye");
    let answer = house.call(second, "sessions", json!({}));
    assert_eq!(answer["result"]["sessions"].as_array().unwrap().len(), 2);
}

/// Logs in on a device of a kind; gives the connection and what the login led to.
fn log_in(house: &mut House, device: &str, kind: &str) -> (ConnId, Said) {
    let conn = house.open();
    let login = json!({"user": "ann", "device": {"id": device, "kind": kind}});
    let said = house.say(conn, &request("login", login));
    assert!(said.answers[0]["result"].is_object(), "{said:?}");
    (conn, said)
}

#[test]
fn each_policy_closes_whom_it_must() {
    for (policy, gone) in [("many", vec![]), ("one_per_kind", vec![0, 2]), ("one", vec![0, 1, 2])] {
        let mut house = House::new(&[("im.devices", policy)], 8);
        let mut conns = Vec::new();
        let mut closed = Vec::new();
        for (device, kind) in [("p1", "phone"), ("w", "web"), ("x", ""), ("p2", "phone"), ("y", "")]
        {
            let (conn, said) = log_in(&mut house, device, kind);
            conns.push(conn);
            closed.extend(said.closed);
        }
        // Under "one" the last but one goes, too.
        let gone: Vec<ConnId> = match policy {
            "one" => conns[..4].to_vec(),
            _ => gone.into_iter().map(|place: usize| conns[place]).collect(),
        };
        let expected: Vec<(ConnId, u16)> = gone.iter().map(|conn| (*conn, 4510)).collect();
        assert_eq!(closed, expected, "{policy}");
        let stay = conns.iter().filter(|conn| house.worker.table().is_established(**conn)).count();
        assert_eq!(stay, 5 - gone.len());
        // Others are not concerned.
        assert!(house.login("bob", "p1") != conns[0]);
    }
}

#[test]
fn a_device_that_comes_back_replaces_itself_and_stays_online_all_the_time() {
    let mut house = House::new(&[], 8);
    let bob = house.login("bob", "desk");
    let (old, _) = log_in(&mut house, "p", "phone");
    let devices = |house: &mut House| {
        let answer = house.call(bob, "presence", json!({"users": ["ann"]}));
        let ann = answer["result"]["users"]["ann"].clone();
        assert_eq!(ann["online"], !ann["devices"].as_array().unwrap().is_empty());
        ann["devices"].as_array().unwrap().len()
    };
    let (new, said) = log_in(&mut house, "p", "phone");
    assert_eq!(said.closed, [(old, 4510)]);
    let bye = &said.told[0].1["params"];
    assert_eq!((&bye["code"], &bye["reconnect"]), (&json!(4510), &json!(false)));
    assert_eq!(devices(&mut house), 1);
    // The old one's end comes after the new one's begin, and takes nothing away.
    house.drop_connection(old);
    assert_eq!(devices(&mut house), 1);
    let send = json!({"to": {"user": "ann"}, "body": 1});
    assert_eq!(house.call(bob, "send", send)["result"]["sessions"], 1);
    // Nor is it found in whoever has its row now.
    let zoe = house.login("zoe", "p");
    assert_eq!(zoe.row().index, old.row().index);
    assert_eq!(devices(&mut house), 1);
    house.drop_connection(new);
    assert_eq!(devices(&mut house), 0);
}

#[test]
fn a_login_after_a_logout_is_a_new_one() {
    let mut house = House::new(&[("im.devices", "one")], 8);
    let (first, _) = log_in(&mut house, "a", "");
    house.call(first, "logout", json!({}));
    let (second, said) = log_in(&mut house, "b", "");
    assert!(said.closed.is_empty(), "who is logged out is nobody's device");
    let login = json!({"user": "ann", "device": {"id": "a"}});
    let said = house.say(first, &request("login", login));
    assert_eq!(said.closed, [(second, 4510)]);
}

/// A worker of the same server with an application of its own, as another process has it.
fn second_process(house: &House, words: &[(&'static str, &str)]) -> (ImApp, FakeWorker) {
    let mut app = ImApp::new(&small_settings(words)).unwrap();
    house.worker.in_master(|master| app.start(master));
    (app, house.worker.sibling(SlotId(1)))
}

/// Two logins of a user on two workers in the same instant, again and again: one is left each time.
#[test]
fn of_two_logins_at_one_time_exactly_one_stays() {
    let words = [("im.devices", "one"), ("table.max_sessions", "8")];
    let mut house = House::new(&words[..1], 8);
    let (mut other_app, mut other) = second_process(&house, &words);
    let peer = "192.0.2.7:4711".parse().unwrap();
    for round in 0..2_000 {
        let here = house.open();
        let there = other.open(&mut other_app, peer, "/ws");
        let barrier = Barrier::new(2);
        let login = |app: &mut ImApp, worker: &mut FakeWorker, conn: ConnId| {
            let device = conn.to_string();
            let text = request("login", json!({"user": "ann", "device": {"id": device}}));
            barrier.wait();
            app.message(&mut worker.context(), conn, Message::Text(&text));
        };
        let House { app, worker } = &mut house;
        std::thread::scope(|scope| {
            scope.spawn(|| login(&mut other_app, &mut other, there));
            login(app, worker, here);
        });
        let open = |conn| house.worker.table().is_established(conn);
        assert!(open(here) != open(there), "round {round}: {} {}", open(here), open(there));
        other.take_deeds();
        house.drop_connection(here);
        house.drop_connection(there);
    }
}

/// Kicks cross workers: the row says whose the session is.
#[test]
fn a_kick_reaches_a_session_on_another_worker() {
    let words = [("table.max_sessions", "8")];
    let mut house = House::new(&[], 8);
    let (mut other_app, mut other) = second_process(&house, &words);
    let desk = house.login("ann", "desk");
    let phone = other.open(&mut other_app, "192.0.2.8:1".parse().unwrap(), "/ws");
    let text = request("login", json!({"user": "ann", "device": {"id": "phone"}}));
    other_app.message(&mut other.context(), phone, Message::Text(&text));
    let answer = house.call(desk, "sessions", json!({}));
    let ips: Vec<&Value> =
        answer["result"]["sessions"].as_array().unwrap().iter().map(|one| &one["ip"]).collect();
    assert_eq!(ips, ["192.0.2.7", "192.0.2.8"]);
    let said = house.say(desk, &request("kick", json!({"device": "phone"})));
    assert_eq!(said.answers[0]["result"], json!({"kicked": 1}));
    assert_eq!(said.closed, [(phone, 4510)]);
}
