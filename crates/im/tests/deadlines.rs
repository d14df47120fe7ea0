//! Login timeout and heartbeat: when, by which code, and what moves them.

use crate::support::{House, request};
use dunlin_server::{App, ConnId};
use serde_json::json;

/// Calls the deadline hook as the worker would, if the deadline has passed.
fn expire(house: &mut House, conn: ConnId) -> Option<(u16, bool)> {
    if !house.worker.expire(&mut house.app, conn) {
        return None;
    }
    let said = house.heard(conn);
    let (closed, code) = said.closed[0];
    assert_eq!((closed, said.closed.len()), (conn, 1));
    assert_eq!(said.told[0].1["method"], "bye");
    assert_eq!(said.told[0].1["params"]["code"], code);
    Some((code, said.told[0].1["params"]["reconnect"] == true))
}

#[test]
fn who_does_not_log_in_in_time_is_closed_for_good() {
    let mut house = House::new(&[("im.login_timeout", "10s")], 4);
    let conn = house.open();
    house.worker.pass(9_999);
    assert_eq!(expire(&mut house, conn), None);
    // Frames do not move it: only a login does.
    house.say(conn, &request("ping", json!({})));
    house.worker.pass(1);
    assert_eq!(expire(&mut house, conn), Some((4501, false)));
}

#[test]
fn who_falls_silent_is_closed_and_may_come_back() {
    let mut house = House::new(&[("im.heartbeat", "60s")], 4);
    let conn = house.login("ann", "phone");
    house.worker.pass(59_999);
    assert_eq!(expire(&mut house, conn), None);
    house.worker.touch(conn); // any frame, such as a WebSocket ping
    house.worker.pass(59_999);
    assert_eq!(expire(&mut house, conn), None);
    house.worker.pass(1);
    assert_eq!(expire(&mut house, conn), Some((4002, true)));
}

#[test]
fn a_logout_starts_the_login_timer_again() {
    let mut house = House::new(&[("im.login_timeout", "10s"), ("im.heartbeat", "60s")], 4);
    let conn = house.login("ann", "phone");
    house.worker.pass(30_000);
    house.call(conn, "logout", json!({}));
    house.worker.pass(9_999);
    house.worker.touch(conn);
    assert_eq!(expire(&mut house, conn), None);
    house.worker.pass(1);
    assert_eq!(expire(&mut house, conn), Some((4501, false)));
}

#[test]
fn a_deadline_that_moved_meanwhile_closes_nobody() {
    let mut house = House::new(&[], 4);
    let conn = house.login("ann", "phone");
    house.app.deadline(&mut house.worker.context(), conn);
    assert!(house.heard(conn).closed.is_empty());
}
