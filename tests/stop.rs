//! A stop as clients and operators see it: what was accepted is delivered, everybody is told, progress shows.

use crate::support::{Client, Server, wait};
use serde_json::{Value as Json, json};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

const SENDERS: usize = 10;
const EACH: usize = 195;

/// Swoole lost 728 of such 1,950 messages, and closed every connection without a frame.
#[test]
fn no_accepted_message_is_lost_and_everybody_hears_bye() {
    let mut server = Server::start("[server]\nworkers = 2\ndrain_rate = 0");
    let mut sink = server.client().login("sink");
    let mut senders: Vec<Client> =
        (0..SENDERS).map(|n| server.client().login(&format!("sender{n}"))).collect();
    // All that lies in the kernel when the signal comes, and all that is sent after it.
    let pid = server.pid;
    let signal = thread::spawn(move || crate::support::process::signal("TERM", pid));
    let heard = thread::scope(|scope| {
        let heard: Vec<_> = senders
            .iter_mut()
            .enumerate()
            .map(|(n, sender)| scope.spawn(move || backlog(sender, n)))
            .collect();
        heard.into_iter().map(|one| one.join().expect("a sender")).collect::<Vec<_>>()
    });
    signal.join().expect("the signal is sent");
    let (sunk, goodbye) = messages_until_close(&mut sink);
    expect_bye(&goodbye);
    let mut accepted = 0;
    for (n, (taken, goodbye)) in heard.iter().enumerate() {
        expect_bye(goodbye);
        accepted += taken.len();
        let came: Vec<&Json> =
            sunk.iter().filter(|body| body[0] == n).map(|body| &body[1]).collect();
        let lost: Vec<&u64> = taken.iter().filter(|one| !came.contains(&&json!(one))).collect();
        assert!(lost.is_empty(), "accepted of {n} and lost: {lost:?}");
        assert!(came.is_sorted_by_key(|one| one.as_u64()), "in order, and once");
    }
    assert!(accepted > 0, "the stop came before everything");
    assert_eq!(server.wait_end().code(), Some(0));
}

/// Sends what there is to send, and hears what came of it: the numbers that somebody took, and the bye.
fn backlog(sender: &mut Client, number: usize) -> (Vec<u64>, (u16, Option<Json>)) {
    for n in 0..EACH {
        let params = json!({"to": {"user": "sink"}, "body": [number, n]});
        if !sender.try_send_json(&json!({"id": n, "method": "send", "params": params})) {
            break;
        }
    }
    let mut taken = Vec::new();
    let goodbye = sender.until_close(|object| {
        if object["result"]["sessions"] == 1 {
            taken.extend(object["id"].as_u64());
        }
    });
    (taken, goodbye)
}

fn messages_until_close(sink: &mut Client) -> (Vec<Json>, (u16, Option<Json>)) {
    let mut bodies = Vec::new();
    let goodbye = sink.until_close(|object| {
        if object["method"] == "message" {
            bodies.push(object["params"]["body"].clone());
        }
    });
    (bodies, goodbye)
}

fn expect_bye((code, bye): &(u16, Option<Json>)) {
    assert_eq!(*code, 1001);
    let bye = bye.as_ref().expect("a bye before the close frame");
    assert_eq!((&bye["code"], &bye["reconnect"]), (&json!(1001), &json!(true)));
    assert_eq!(bye["after_ms"], json!([500, 2_000]), "the shortest spread, for so few");
}

#[test]
fn status_and_verb_show_how_far_a_stop_is() {
    let mut server = Server::start("[server]\nworkers = 2\ndrain_rate = 2");
    assert!(server.status().0["stopping"].is_null());
    let mut clients: Vec<Client> =
        (0..6).map(|n| server.client().login(&format!("u{n}"))).collect();
    let mut late = server.client();
    let stop = thread::scope(|scope| {
        let stop = scope.spawn(|| server.verb(&["stop"]));
        let status = server.wait_until("some are told", |status| {
            status.0["stopping"]["told"].as_u64().is_some_and(|told| told >= 2)
        });
        assert_eq!(status.text("/state"), "stopping");
        let stopping = &status.0["stopping"];
        assert_eq!(stopping["total"], 7);
        assert!(stopping["asked_at"].as_str() < stopping["until"].as_str(), "{stopping}");
        assert!(stopping["left_ms"].as_u64().is_some_and(|left| left <= 30_000), "{stopping}");
        assert!(stopping["left"].as_u64().is_some_and(|left| left <= 7), "{stopping}");
        // Not told yet: served as ever. Whoever comes now is refused.
        assert!(TcpStream::connect(server.address).is_err());
        late.log_in("late", "phone");
        for client in clients.iter_mut().chain([&mut late]) {
            assert_eq!(client.expect_close().0, 1001);
        }
        stop.join().expect("the verb ends")
    });
    assert_eq!(stop.code, Some(0), "{stop:?}");
    assert!(stop.stderr.contains(" of 7 clients told, "), "{}", stop.stderr);
    assert!(stop.stdout.contains("dunlin stopped"), "{}", stop.stdout);
    assert_eq!(server.wait_end().code(), Some(0));
    let log = server.dir().log();
    assert!(log.contains("stopping") && log.contains("told="), "{log}");
}

#[test]
fn after_ms_grows_with_the_clients() {
    let mut server = Server::start(
        "[server]\nworkers = 2\ndrain_rate = 0\nstop_timeout = \"20s\"\n[table]\nmax_sessions = 4096",
    );
    let mut clients: Vec<Client> = (0..2_000).map(|_| server.client()).collect();
    server.signal("TERM");
    let (_, bye) = clients[0].expect_close();
    assert_eq!(bye.expect("a bye")["after_ms"], json!([500, 2_500]));
    for client in &mut clients[1..] {
        assert_eq!(client.expect_close().0, 1001);
    }
    assert_eq!(server.wait_end().code(), Some(0));
    wait::holds_for("nobody listens", Duration::from_millis(50), || {
        TcpStream::connect(server.address).is_err()
    });
}
