//! `send` with a key, against the real binary: whatever is killed or replaced, what has a result was sent
//! once, under the id of the result.

use crate::support::client::Client;
use crate::support::client::code_and_reason;
use crate::support::{Server, process, wait};
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

fn keyed(key: &str) -> Json {
    json!({"to": {"user": "bob"}, "body": key, "key": key})
}

#[test]
fn a_retry_after_a_reload_or_an_upgrade_gets_the_first_result() {
    let server = Server::start("[server]\nworkers = 2");
    let mut bob = server.client().login("bob");
    let mut ann = server.client().login("ann");
    let first = ann.result("send", keyed("k1"));
    assert_eq!(first["sessions"], 1);
    for verb in ["reload", "upgrade"] {
        assert_eq!(server.verb(&[verb]).code, Some(0), "{verb}");
        assert_eq!(ann.result("send", keyed("k1")), first, "after {verb}");
        // On another worker, by another connection of the same device.
        let mut back = server.client_apart_from(&mut [&mut ann]).login("ann");
        assert_eq!(back.result("send", keyed("k1")), first, "after {verb}, elsewhere");
        ann = back;
    }
    let other = json!({"to": {"user": "bob"}, "body": "another", "key": "k1"});
    let error = ann.call("send", other).expect_err("the key was of another message");
    assert_eq!(code_and_reason(&error), (-32602, "key_reused".into()));
    assert_eq!(bob.message_body(), "k1");
    assert_eq!(bob.unread(), 0, "once");
    assert_eq!(server.status().number("/idempotency/repeated"), 4);
}

/// Senders that retry until they have a result, on workers that are killed; the recipient's is spared, so
/// that no message is lost behind it.
#[test]
fn retries_over_kills_lose_nothing_and_double_nothing_unseen() {
    const SENDERS: usize = 10;
    const KILLS: usize = 12;
    // A kill hits a message between its key and its result by chance, about one in five on an idle machine.
    const MOST_KILLS: usize = 120;
    let server = Server::start(
        "[server]\nworkers = 3\n[im]\nrequest_rate = 0\nsend_rate = 0\nidempotency_entries = 65536",
    );
    let mut bob = server.client().login("bob");
    let spared = server.worker_of(&mut bob);
    let done = AtomicBool::new(false);
    let (results, received) = thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                scope.spawn({
                    let (server, done) = (&server, &done);
                    move || send_until(server, &format!("ann{sender}"), done)
                })
            })
            .collect();
        let receiver = scope.spawn(move || receive_to_the_end(&mut bob));
        for kill in 0..MOST_KILLS {
            if kill >= KILLS && hits(&server.status().0["idempotency"]) > 0 {
                break;
            }
            let slot = (spared + 1 + kill % 2) % 3;
            let status = server.wait_until("workers", |status| status.ready_workers() == 3);
            process::signal("KILL", status.worker_pid(slot));
            // Not so fast that the next start is delayed.
            thread::sleep(Duration::from_millis(300));
        }
        done.store(true, Ordering::SeqCst);
        let results: Vec<_> =
            senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect();
        let mut last = server.client().login("zoe");
        last.result("send", json!({"to": {"user": "bob"}, "body": "end"}));
        (results, receiver.join().unwrap())
    });
    let mut doubled = 0;
    for (key, result) in &results {
        let ids =
            received.get(key).unwrap_or_else(|| panic!("{key} has a result, and did not come"));
        assert!(ids.iter().all(|id| *id == result["id"]), "{key}: {ids:?}, {result}");
        assert!(ids.len() <= MOST_KILLS, "{key}: {ids:?}");
        doubled += ids.len() - 1;
    }
    let figures = server.status().0["idempotency"].clone();
    println!("{} sent, {doubled} doubled, {figures}", results.len());
    assert!(results.len() > 500, "there was load: {}", results.len());
    let sent_again = figures["sent_again"].as_u64().expect("a number");
    assert!(doubled as u64 <= sent_again, "a double is one that was sent again");
    assert!(hits(&figures) > 0, "some were hit: {figures}");
}

/// How many retries there were of what had its key already.
fn hits(figures: &Json) -> u64 {
    ["repeated", "sent_again"].iter().map(|name| figures[name].as_u64().expect("a number")).sum()
}

/// Sends with one key after the other, over as many connections as it takes; keys with their results.
fn send_until(server: &Server, user: &str, done: &AtomicBool) -> Vec<(String, Json)> {
    let mut results = Vec::new();
    let mut client = log_in(server, user);
    while !done.load(Ordering::SeqCst) {
        let key = format!("{user}-{}", results.len());
        let result = wait::for_some("a result", || match client.call_or_end("send", keyed(&key)) {
            Some(mut answer) if answer["error"].is_null() => Some(answer["result"].take()),
            Some(answer) => {
                assert_eq!(answer["error"]["code"], -32006, "{answer}");
                None
            }
            None => {
                client = log_in(server, user);
                None
            }
        });
        results.push((key, result));
        if results.len() % 200 == 0 {
            // Not all on the worker that is spared.
            client = log_in(server, user);
        }
    }
    results
}

fn log_in(server: &Server, user: &str) -> Client {
    wait::for_some("a login", || {
        let mut client = Client::connect_or_end(server.address)?;
        let params = json!({"user": user, "device": {"id": "phone"}});
        client.call_or_end("login", params).map(|_| client)
    })
}

/// The ids under which each body came, to the last.
fn receive_to_the_end(bob: &mut Client) -> HashMap<String, Vec<Json>> {
    let mut received: HashMap<String, Vec<Json>> = HashMap::new();
    loop {
        let mut message = bob.notification("message");
        let body = message["body"].as_str().expect("a text").to_owned();
        if body == "end" {
            return received;
        }
        received.entry(body).or_default().push(message["id"].take());
    }
}
