//! Rooms through the real binary: across workers, over reloads, deaths and moves.

use crate::support::{Client, Server, process, wait};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const TOML: &str = "[server]\nworkers = 2";

fn join(client: &mut Client, room: &str) -> u64 {
    client.result("join", json!({"room": room}))["count"].as_u64().expect("a number")
}

fn send(client: &mut Client, room: &str, body: &Json) -> u64 {
    let sent = client.result("send", json!({"to": {"room": room}, "body": body}));
    sent["sessions"].as_u64().expect("a number")
}

fn members(client: &mut Client, room: &str) -> BTreeSet<String> {
    let answer = client.result("members", json!({"room": room, "limit": 1_000}));
    let users = answer["members"].as_array().expect("a list");
    users.iter().map(|user| user.as_str().expect("a name").to_owned()).collect()
}

/// Ann and Bob in a room, on different workers.
fn ann_and_bob(server: &Server) -> (Client, Client) {
    let mut ann = server.client().login("ann");
    let mut bob = server.client_apart_from(&mut [&mut ann]).login("bob");
    assert_eq!(join(&mut ann, "tea"), 1);
    assert_eq!(join(&mut bob, "tea"), 2);
    assert_eq!(ann.notification("joined"), json!({"room": "tea", "user": "bob", "count": 2}));
    (ann, bob)
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_room_spans_workers() {
    let server = Server::start(TOML);
    let (mut ann, mut bob) = ann_and_bob(&server);
    assert_eq!(send(&mut ann, "tea", &json!("hello")), 1);
    let message = bob.notification("message");
    assert_eq!((&message["to"], &message["body"]), (&json!({"room": "tea"}), &json!("hello")));
    assert_eq!(members(&mut ann, "tea"), names(&["ann", "bob"]));
    let signal = json!({"to": {"room": "tea"}, "body": "typing"});
    assert_eq!(bob.result("signal", signal), json!({}));
    assert_eq!(ann.notification("signal")["from"]["user"], "bob");
    let mut zoe = server.client().login("zoe");
    let message = json!({"to": {"room": "tea"}, "body": 1});
    assert_eq!(zoe.error("send", message), (-32003, "not_a_member".into()));
    bob.close();
    assert_eq!(ann.notification("left"), json!({"room": "tea", "user": "bob", "count": 1}));
    assert_eq!(server.status().number("/rooms/used"), 1);
    assert_eq!(ann.result("leave", json!({"room": "tea"}))["count"], 0);
    server.wait_until("the room is gone", |status| status.number("/rooms/used") == 0);
}

#[test]
fn members_stay_over_a_reload_and_over_an_upgrade() {
    let server = Server::start(TOML);
    let (mut ann, mut bob) = ann_and_bob(&server);
    for verb in ["reload", "upgrade"] {
        let done = server.verb(&[verb]);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(members(&mut bob, "tea"), names(&["ann", "bob"]));
        assert_eq!(send(&mut ann, "tea", &json!(verb)), 1);
        assert_eq!(bob.message_body(), verb);
        assert_eq!((ann.unread(), bob.unread()), (0, 0), "nobody has come or gone");
    }
}

/// Who was idle is a member all along, who was being served has left at once; the times are printed
/// (`--nocapture`).
#[test]
fn members_are_right_within_100_ms_of_a_kill() {
    const LIMIT: Duration = Duration::from_millis(100);
    let mut times: Vec<Duration> = (0..5).map(|_| until_right_after_a_kill()).collect();
    times.sort();
    println!("members right after a kill: median {:?}, longest {:?}", times[2], times[4]);
    // The median, since the machine may be busy with other tests.
    assert!(times[2] < LIMIT, "{times:?}");
}

fn until_right_after_a_kill() -> Duration {
    let server = Server::start("[server]\nworkers = 2\n[websocket]\nsend_buffer = \"16MiB\"");
    let (mut ann, bob) = ann_and_bob(&server);
    let mut zoe = server.client_apart_from(&mut [&mut ann]).login("zoe");
    assert_eq!(join(&mut zoe, "tea"), 3);
    let slot = server.worker_of(&mut zoe);
    // Bob reads nothing: what waits for him is lost with his worker, and he with it.
    let big = json!("x".repeat(60_000));
    let unsent = format!("/workers/{slot}/unsent_bytes");
    wait::until("output waits for bob", || {
        ann.send_to("bob", &big);
        server.status().0.pointer(&unsent).and_then(Json::as_u64).is_some_and(|bytes| bytes > 0)
    });
    process::signal("KILL", server.status().worker_pid(slot));
    let killed = Instant::now();
    wait::until("bob has left", || members(&mut ann, "tea") == names(&["ann", "zoe"]));
    let right = killed.elapsed();
    let left = ann.notification("left");
    assert_eq!((&left["user"], &left["count"]), (&json!("bob"), &json!(2)));
    assert_eq!(send(&mut ann, "tea", &json!("still here?")), 1);
    assert_eq!(zoe.message_body(), "still here?");
    drop(bob);
    right
}

#[test]
fn who_is_moved_between_workers_hears_each_message_once_and_in_order() {
    const MESSAGES: usize = 400;
    const HEARERS: usize = 8;
    let server = Server::start("[server]\nworkers = 2\nbalance_above = 0");
    let moving = AtomicBool::new(true);
    let mut ann = server.client().login("ann");
    join(&mut ann, "tea");
    let hearers: Vec<Client> = (0..HEARERS)
        .map(|number| {
            let mut hearer = server.client().login(&format!("hearer-{number}"));
            join(&mut hearer, "tea");
            hearer
        })
        .collect();
    thread::scope(|scope| {
        let hearers: Vec<_> = hearers
            .into_iter()
            .map(|mut hearer| {
                scope.spawn(move || {
                    for awaited in 0_usize.. {
                        let body = hearer.message_body();
                        if body == "the end" {
                            return (hearer, awaited);
                        }
                        assert_eq!(body, awaited, "each once, in the order they were sent");
                    }
                    unreachable!("there is an end")
                })
            })
            .collect();
        let moving = &moving;
        let sender = scope.spawn(move || {
            let mut said = 0;
            while said < MESSAGES || moving.load(Ordering::Relaxed) {
                assert_eq!(send(&mut ann, "tea", &json!(said)), HEARERS as u64, "message {said}");
                said += 1;
            }
            send(&mut ann, "tea", &json!("the end"));
            (ann, said)
        });
        for round in 0..10 {
            let drained = server.verb(&["drain", ["0", "1"][round % 2]]);
            assert_eq!(drained.code, Some(0), "{drained:?}");
        }
        moving.store(false, Ordering::Relaxed);
        let (_ann, said) = sender.join().expect("the sender is content");
        let ended = hearers.into_iter().map(|hearer| hearer.join().expect("a hearer is content"));
        for (hearer, heard) in &mut ended.collect::<Vec<_>>() {
            assert_eq!(*heard, said);
            assert_eq!(members(hearer, "tea").len(), HEARERS + 1);
        }
    });
    assert!(server.status().number("/balance/moved") >= 10);
}

#[test]
fn a_thousand_members_hear_a_message_each_once() {
    const MEMBERS: usize = 1_000;
    let server = Server::start(TOML);
    let mut clients: Vec<Client> = (0..MEMBERS)
        .map(|number| {
            let mut client = server.client().login(&format!("user-{number}"));
            assert_eq!(join(&mut client, "square"), number as u64 + 1);
            client
        })
        .collect();
    let (ann, others) = clients.split_first_mut().expect("a thousand");
    for round in 0..3 {
        assert_eq!(send(ann, "square", &json!(round)), MEMBERS as u64 - 1);
    }
    for other in others.iter_mut() {
        for round in 0..3 {
            assert_eq!(other.message_body(), round);
        }
    }
    assert_eq!(members(ann, "square").len(), MEMBERS);
    much_mail_is_delivered_in_parts(&server, &mut clients);
    drop(clients);
    server.wait_until("everybody has left", |status| {
        status.number("/rooms/members") == 0 && status.number("/rooms/used") == 0
    });
}

/// What waits for thousands of recipients is not sent in one turn: others of that worker have theirs between.
fn much_mail_is_delivered_in_parts(server: &Server, clients: &mut [Client]) {
    const MESSAGES: usize = 20;
    let (ann, others) = clients.split_first_mut().expect("a thousand");
    let there = 1 - server.worker_of(ann);
    let full = format!("/workers/{there}/turns_full");
    let (before, pid) = (server.status().number(&full), server.status().worker_pid(there));
    let hearers = server.status().number(&format!("/workers/{there}/connections"));
    process::signal("STOP", pid);
    for round in 0..MESSAGES {
        assert_eq!(send(ann, "square", &json!(round)), others.len() as u64);
    }
    process::signal("CONT", pid);
    for other in others {
        for round in 0..MESSAGES {
            assert_eq!(other.message_body(), round);
        }
    }
    // About 500 hear on that worker, each a message of every packet; a turn ends after 2,048 of them.
    let turns = hearers * MESSAGES as u64 / 2_048;
    let counted = server.status().number(&full) - before;
    assert!(
        turns > 1 && counted >= turns / 2,
        "{counted} of some {turns} turns, {hearers} hearers"
    );
}
