//! Connections that change their worker, as users live through it: they notice nothing.

use crate::support::server::dunlin;
use crate::support::{Client, Server, Status, process};
use serde_json::{Value as Json, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const CLIENTS: usize = 300;

fn user(number: usize) -> String {
    format!("user-{number}")
}

fn many(server: &Server) -> Vec<Client> {
    (0..CLIENTS).map(|number| server.client().login(&user(number))).collect()
}

fn sessions(server: &Server) -> Vec<u64> {
    let sessions = |worker: &Json| worker["sessions"].as_u64().expect("a number");
    server.status().workers().iter().map(sessions).collect()
}

/// Everybody asks, and sends to his neighbour.
fn everybody_is_served(clients: &mut [Client]) {
    let count = clients.len();
    for (number, client) in clients.iter_mut().enumerate() {
        let sent = client.send_to(&user((number + 1) % count), &json!(number));
        assert_eq!(sent["sessions"], 1, "from {number}");
    }
    for number in 0..count {
        assert_eq!(clients[(number + 1) % count].message_body(), number);
    }
}

#[test]
fn three_hundred_on_one_worker_are_evened_out_and_notice_nothing() {
    let server = Server::start("[server]\nworkers = 2\nbalance_above = 0");
    let mut clients = many(&server);
    let drained = server.verb(&["drain", "0"]);
    assert_eq!((drained.code, &*drained.stderr), (Some(0), ""), "{drained:?}");
    assert!(drained.stdout.starts_with("worker 0 drained in "), "{drained:?}");
    assert!(drained.stdout.contains("\nworker 0: 0, worker 1: 300\n"), "{drained:?}");
    server.wait_until("all on one", |_| sessions(&server) == [0, 300]);
    everybody_is_served(&mut clients);
    let before = server.status();
    let balanced = server.verb(&["balance"]);
    assert_eq!((balanced.code, &*balanced.stderr), (Some(0), ""), "{balanced:?}");
    assert!(balanced.stdout.contains("; 150 connections moved\n"), "{balanced:?}");
    server.wait_until("evened out", |_| sessions(&server) == [150, 150]);
    everybody_is_served(&mut clients);
    let after = server.status();
    assert_eq!(after.number("/sessions/logged_in"), CLIENTS as u64);
    assert_eq!(after.number("/balance/asked"), 2);
    let figure = |status: &Status, slot: usize, name: &str| {
        status.number(&format!("/workers/{slot}/{name}"))
    };
    assert_eq!(figure(&after, 0, "moved_in"), 150);
    assert_eq!(
        figure(&after, 1, "moved_out") - figure(&before, 1, "moved_out"),
        150,
        "what came to one left the other"
    );
    for slot in 0..2 {
        assert_eq!(figure(&after, slot, "closed"), figure(&before, slot, "closed"));
        assert_eq!(figure(&after, slot, "lost_mail"), 0);
    }
    // Where they are is no secret to those who ask.
    assert!(clients[7].sees_online(&user(8)));
    // A worker's death finds its connections at whoever has them now.
    process::signal("KILL", after.worker_pid(0));
    server.wait_until("a successor", |status| {
        status.ready_workers() == 2 && status.number("/workers/0/restarts") == 1
    });
    everybody_is_served(&mut clients);
    // They go as they came.
    drop(clients);
    server.wait_until("nobody is left", |status| status.number("/sessions/used") == 0);
}

#[test]
fn messages_keep_their_order_while_everybody_is_moved_back_and_forth() {
    const MESSAGES: usize = 600;
    const PAIRS: usize = 8;
    let server = Server::start("[server]\nworkers = 2\nbalance_above = 0");
    let moving = AtomicBool::new(true);
    thread::scope(|scope| {
        let pairs: Vec<_> = (0..PAIRS)
            .map(|pair| {
                let mut ann = server.client().login(&format!("ann-{pair}"));
                let mut bob = server.client().login(&format!("bob-{pair}"));
                let name = format!("bob-{pair}");
                let moving = &moving;
                let sender = scope.spawn(move || {
                    let mut said = 0;
                    while said < MESSAGES || moving.load(Ordering::Relaxed) {
                        let sent = ann.send_to(&name, &json!(said));
                        assert_eq!(sent["sessions"], 1, "message {said}");
                        said += 1;
                    }
                    assert!(ann.send_to(&name, &json!("the end"))["id"].is_string());
                    (ann, said)
                });
                let hearer = scope.spawn(move || {
                    for awaited in 0_usize.. {
                        let body = bob.message_body();
                        if body == "the end" {
                            return (bob, awaited);
                        }
                        assert_eq!(body, awaited, "each once, in the order they were sent");
                    }
                    unreachable!("there is an end")
                });
                (sender, hearer)
            })
            .collect();
        for round in 0..20 {
            let drained = server.verb(&["drain", ["0", "1"][round % 2]]);
            assert_eq!(drained.code, Some(0), "{drained:?}");
        }
        moving.store(false, Ordering::Relaxed);
        for (sender, hearer) in pairs {
            let (_ann, said) = sender.join().expect("the sender is content");
            let (mut bob, heard) = hearer.join().expect("the hearer is content");
            assert_eq!(said, heard);
            assert_eq!(bob.unread(), 0, "nothing behind the end");
        }
    });
    let status = server.status();
    assert!(status.number("/balance/moved") >= 100, "{}", status.0["balance"]);
    assert_eq!(status.number("/sessions/lost_handling"), 0);
}

#[test]
fn what_cannot_be_balanced_or_drained_is_refused_with_a_sentence() {
    let server = Server::start("[server]\nworkers = 1");
    for words in [&["balance"][..], &["drain", "0"]] {
        let refused = server.verb(words);
        assert_eq!((refused.code, &*refused.stdout), (Some(1), ""), "{refused:?}");
        assert!(refused.stderr.contains("there is only one worker"), "{refused:?}");
    }
    let two = Server::start("[server]\nworkers = 2");
    let refused = two.verb(&["drain", "2"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("there is no worker 2: the last is 1"), "{refused:?}");
    for words in [&["balance"][..], &["drain", "0"]] {
        let nowhere = crate::support::dir::Dir::new();
        let run_dir = nowhere.run_dir();
        let run_dir = run_dir.to_str().expect("a path of ours");
        let ended = process::run(dunlin().args(words).args(["--run-dir", run_dir]));
        assert_eq!(ended.code, Some(3), "{ended:?}");
    }
}
