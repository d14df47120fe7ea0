//! The deadlines of a session, run by the timer process: login and heartbeat.

use crate::support::{Client, Server, wait};
use serde_json::json;
use std::time::{Duration, Instant};

const TOML: &str = "[server]\nworkers = 2\n[im]\nlogin_timeout = \"500ms\"\nheartbeat = \"700ms\"\n\
                    [websocket]\nping_interval = \"0s\"\n";
const HEARTBEAT: Duration = Duration::from_millis(700);
const LOGIN_TIMEOUT: Duration = Duration::from_millis(500);
/// How late a close may come on a busy machine.
const LATE: Duration = Duration::from_millis(1_500);

/// Reads to the close: it is neither early nor late, and a `bye` with the same code goes before.
fn expect_timeout(client: &mut Client, since: Instant, timeout: Duration, code: u16) {
    let (closed_with, bye) = client.expect_close();
    let took = since.elapsed();
    assert_eq!(closed_with, code);
    let bye = bye.expect("a bye before the close");
    assert_eq!(bye["code"], code);
    assert_eq!(bye["reconnect"], code < 4500);
    // The clocks of the two sides tick in milliseconds of their own.
    let early = Duration::from_millis(20);
    assert!(took + early >= timeout && took < timeout + LATE, "{code} after {took:?}");
}

#[test]
fn who_does_not_log_in_is_closed_with_4501() {
    let server = Server::start(TOML);
    let began = Instant::now();
    let mut client = server.client();
    // Life is no login.
    client.result("ping", json!({}));
    client.ping_frame();
    expect_timeout(&mut client, began, LOGIN_TIMEOUT, 4501);
    server.wait_until("the row is free", |status| status.number("/sessions/used") == 0);
}

#[test]
fn who_is_silent_is_closed_with_4002() {
    let server = Server::start(TOML);
    let mut client = server.client().login("ann");
    let mut began = Instant::now();
    expect_timeout(&mut client, began, HEARTBEAT, 4002);
    // After the last sign of life, not after the login.
    let mut client = server.client().login("ann");
    for _ in 0..3 {
        while began.elapsed() < Duration::from_millis(300) {
            client.ping_frame();
        }
        began = Instant::now();
        client.result("ping", json!({}));
    }
    expect_timeout(&mut client, began, HEARTBEAT, 4002);
    server.wait_until("the row is free", |status| status.number("/sessions/used") == 0);
}

#[test]
fn websocket_pings_and_ping_requests_keep_a_session() {
    let server = Server::start(TOML);
    let mut frames = server.client().login("frames");
    let mut requests = server.client().login("requests");
    let mut silent = server.client().login("silent");
    wait::holds_for("both live", HEARTBEAT * 3, || {
        frames.ping_frame();
        requests.result("ping", json!({}))["time"].is_u64()
    });
    assert!(frames.sees_online("requests") && requests.sees_online("frames"));
    assert_eq!(silent.expect_close().0, 4002);
}

#[test]
fn logout_starts_the_login_timer_again() {
    let server = Server::start(TOML);
    let mut client = server.client().login("ann");
    client.result("logout", json!({}));
    let began = Instant::now();
    expect_timeout(&mut client, began, LOGIN_TIMEOUT, 4501);
}

#[test]
fn the_pings_of_the_server_keep_a_client_that_answers_them() {
    // A worker looks for the silent four times a second: the heartbeat leaves room for that, and for a
    // busy machine.
    let toml = TOML.replace("\"0s\"", "\"200ms\"").replace("\"700ms\"", "\"1500ms\"");
    let server = Server::start(&toml);
    let mut client = server.client().login("ann");
    let mut other = server.client().login("bob");
    // This client only reads: its library answers the pings.
    wait::holds_for("the reader lives", Duration::from_millis(3_500), || {
        other.send_to("ann", &json!("are you there?"));
        client.message_body() == "are you there?"
    });
    assert!(client.sees_online("ann"));
}

#[test]
fn deadlines_hold_over_a_reload_and_the_death_of_timer_and_worker() {
    let server = Server::start(TOML);
    let began = Instant::now();
    let mut reloaded = server.client().login("ann");
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    expect_timeout(&mut reloaded, began, HEARTBEAT, 4002);

    let mut client = server.client().login("ann");
    let began = Instant::now();
    let timer = server.status().number("/timer/pid").cast_signed();
    crate::support::process::signal("KILL", timer);
    expect_timeout(&mut client, began, HEARTBEAT, 4002);

    let mut client = server.client();
    let began = Instant::now();
    for pid in server.status().worker_pids() {
        crate::support::process::signal("KILL", pid);
    }
    expect_timeout(&mut client, began, LOGIN_TIMEOUT, 4501);
}

/// Login and heartbeat, at rest, over a reload, and with the timer process killed shortly before: the times are
/// printed (`--nocapture`).
#[test]
fn every_timeout_comes_soon_after_its_time() {
    let shortly_before = LOGIN_TIMEOUT - Duration::from_millis(60);
    for (what, user, meanwhile) in [
        ("login", None, &(|_: &Server| {}) as &dyn Fn(&Server)),
        ("heartbeat", Some("ann"), &|_| {}),
        ("login over a reload", None, &|server| {
            assert_eq!(server.verb(&["reload"]).code, Some(0));
        }),
        ("login with the timer process killed", None, &|server| {
            let began = Instant::now();
            let timer = server.status().number("/timer/pid").cast_signed();
            wait::until("its time has nearly come", || began.elapsed() >= shortly_before);
            crate::support::process::signal("KILL", timer);
        }),
    ] {
        let server = Server::start(TOML);
        let (timeout, code) =
            if user.is_some() { (HEARTBEAT, 4002) } else { (LOGIN_TIMEOUT, 4501) };
        let mut clients: Vec<(Instant, Client)> = (0..9)
            .map(|number| {
                let client = server.client();
                let client = match user {
                    Some(user) => client.login(&format!("{user}{number}")),
                    None => client,
                };
                (Instant::now(), client)
            })
            .collect();
        meanwhile(&server);
        let mut late: Vec<Duration> = clients
            .iter_mut()
            .map(|(began, client)| {
                assert_eq!(client.expect_close().0, code, "{what}");
                began.elapsed().saturating_sub(timeout)
            })
            .collect();
        late.sort();
        println!("{what}: median {:?} late, longest {:?}", late[4], late[8]);
        // Within 100 ms where nothing else runs; here hundreds of other tests may.
        assert!(late[4] < Duration::from_millis(500), "{what}: {late:?}");
    }
}

#[test]
fn a_session_that_is_gone_leaves_no_deadline_behind() {
    let server = Server::start("[server]\nworkers = 2\n");
    let clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    server.wait_until("their login deadlines", |status| status.number("/timer/armed") == 4);
    drop(clients);
    server.wait_until("none", |status| status.number("/timer/armed") == 0);
}

#[test]
fn half_a_frame_header_is_no_sign_of_life() {
    let server = Server::start(TOML);
    let mut client = server.client().login("ann");
    let began = Instant::now();
    client.send_bytes(&[0x81]);
    expect_timeout(&mut client, began, HEARTBEAT, 4002);
}
