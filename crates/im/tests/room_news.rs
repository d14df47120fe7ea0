//! `joined` and `left` in large rooms: a count once a second in place of names, whoever dies.

use crate::support::{House, request};
use dunlin_server::simulation::Deed;
use dunlin_server::{App, ConnId, Message, TimerDue, TimerId};
use serde_json::{Value, json};

/// What one deed of a session led to.
#[derive(Debug, Default)]
struct Led {
    /// Notifications, and to whom.
    told: Vec<(ConnId, Value)>,
    /// Timers armed: when they are due, and what they come back with.
    armed: Vec<(u64, Vec<u8>)>,
}

impl Led {
    fn methods(&self) -> Vec<(ConnId, &str)> {
        self.told.iter().map(|(conn, value)| (*conn, value["method"].as_str().unwrap())).collect()
    }
}

fn led(house: &mut House) -> Led {
    let mut led = Led::default();
    for deed in house.worker.take_deeds() {
        match deed {
            Deed::Push { conn, payload, .. } => {
                let value: Value = serde_json::from_slice(&payload).unwrap();
                if value.get("method").is_some() {
                    led.told.push((conn, value));
                }
            }
            Deed::Arm { after_ms, period_ms: 0, payload, .. } => {
                led.armed.push((after_ms, payload))
            }
            other => panic!("{other:?}"),
        }
    }
    led
}

fn deed(house: &mut House, conn: ConnId, method: &str) -> Led {
    let text = request(method, json!({"room": "square"}));
    house.app.message(&mut house.worker.context(), conn, Message::Text(&text));
    led(house)
}

fn fire(house: &mut House, payload: &[u8]) -> Led {
    let due = TimerDue { payload, ticks: 1, due: dunlin_server::clock::Millis(0) };
    house.app.timer(&mut house.worker.context(), TimerId(1), &due);
    led(house)
}

/// So many sessions of as many users in the room, of which more than two are many.
fn square(count: usize) -> (House, Vec<ConnId>) {
    let mut house = House::new(&[("im.room_quiet_above", "2")], 32);
    let conns: Vec<ConnId> = (0..count).map(|n| house.login(&format!("u{n}"), "p")).collect();
    for conn in &conns {
        deed(&mut house, *conn, "join");
    }
    (house, conns)
}

#[test]
fn where_many_are_the_count_is_told_once_a_second() {
    let (mut house, conns) = square(2);
    let ann = house.login("ann", "p");
    let joined = deed(&mut house, ann, "join");
    assert!(joined.told.is_empty(), "{joined:?}");
    let [(1_000, payload)] = &joined.armed[..] else { panic!("{joined:?}") };
    house.worker.pass(400);
    let bob = house.login("bob", "p");
    let joined = deed(&mut house, bob, "join");
    assert!(joined.told.is_empty() && joined.armed.is_empty(), "one timer does for both");
    house.worker.pass(600);
    let news = fire(&mut house, payload);
    let everybody = [conns[0], conns[1], ann, bob];
    assert_eq!(news.methods(), everybody.map(|conn| (conn, "room")));
    assert_eq!(news.told[0].1["params"], json!({"room": "square", "count": 4}));
    // What comes behind is told anew.
    let left = deed(&mut house, bob, "leave");
    assert_eq!((left.told.len(), left.armed.len()), (0, 1));
    house.worker.pass(1_000);
    let news = fire(&mut house, &left.armed[0].1);
    assert_eq!(news.told[0].1["params"]["count"], 3);
    assert_eq!(news.told.len(), 3);
}

#[test]
fn where_few_are_left_names_are_told_again() {
    let (mut house, conns) = square(4);
    for conn in &conns[2..] {
        let left = deed(&mut house, *conn, "leave");
        let _ = left;
    }
    let left = deed(&mut house, conns[1], "leave");
    assert_eq!(left.methods(), [(conns[0], "left")]);
    assert_eq!(left.told[0].1["params"]["count"], 1);
}

#[test]
fn a_timer_that_never_came_keeps_nobody_silent() {
    let (mut house, conns) = square(3);
    let late = house.login("ann", "p");
    assert!(deed(&mut house, late, "join").armed.is_empty(), "the third has armed it");
    house.worker.pass(2_001);
    assert_eq!(deed(&mut house, conns[0], "leave").armed.len(), 1);
}

#[test]
fn a_timer_of_a_room_that_is_gone_tells_nobody() {
    let (mut house, conns) = square(2);
    let ann = house.login("ann", "p");
    let payload = deed(&mut house, ann, "join").armed.remove(0).1;
    for conn in [conns[0], conns[1], ann] {
        deed(&mut house, conn, "leave");
    }
    for conn in &conns {
        deed(&mut house, *conn, "join");
    }
    assert!(fire(&mut house, &payload).told.is_empty(), "it is another room of that name");
    for foreign in [&b""[..], b"im.room", b"im.room1234567", b"something else"] {
        assert!(fire(&mut house, foreign).told.is_empty());
    }
}
