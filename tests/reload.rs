//! A reload as clients live through it: they notice nothing. A bad one changes nothing.

use crate::support::{Client, Server, process};
use serde_json::json;
use std::fs;

const CLIENTS: usize = 200;

fn user(number: usize) -> String {
    format!("user-{number}")
}

fn many(server: &Server) -> Vec<Client> {
    (0..CLIENTS).map(|number| server.client().login(&user(number))).collect()
}

#[test]
fn two_hundred_clients_stay_logged_in_over_a_reload() {
    let server = Server::start("[server]\nworkers = 2");
    let mut clients = many(&server);
    let before = server.status();
    let first_id = clients[0].send_to(&user(1), &json!("before"))["id"].clone();
    let reload = server.verb(&["reload"]);
    assert_eq!((reload.code, &*reload.stderr), (Some(0), ""), "{reload:?}");
    assert!(reload.stdout.contains(&format!("{CLIENTS} connections handed on")), "{reload:?}");
    assert!(reload.stdout.contains("0 connections dropped"), "{reload:?}");
    let after = server.status();
    assert_eq!(after.number("/sessions/logged_in"), CLIENTS as u64);
    assert_eq!(after.connections(), CLIENTS as u64);
    assert!(after.worker_pids().iter().all(|pid| !before.worker_pids().contains(pid)));
    assert_eq!(after.workers()[0]["generation"], 2);
    assert_eq!(after.number("/last_reload/adopted"), CLIENTS as u64);
    assert_eq!(after.number("/last_reload/dropped"), 0);

    // Everybody still is who he was, sends to his neighbour, and is heard in order.
    let mut last_id = first_id;
    for (number, client) in clients.iter_mut().enumerate() {
        let sent = client.send_to(&user((number + 1) % CLIENTS), &json!(number));
        assert_eq!(sent["sessions"], 1, "to {}", (number + 1) % CLIENTS);
        assert!(sent["id"].as_str() > last_id.as_str(), "message ids never go back");
        last_id = sent["id"].clone();
    }
    assert_eq!(clients[1].message_body(), "before");
    for number in 0..CLIENTS {
        assert_eq!(clients[(number + 1) % CLIENTS].message_body(), number);
    }
    // And each session is the one it was.
    for client in &mut clients {
        let session = client.hello["session"].clone();
        let sessions = client.result("sessions", json!({}));
        assert_eq!(sessions["sessions"][0]["session"], session);
    }
}

#[test]
fn one_worker_is_replaced_and_nobody_notices() {
    let server = Server::start("[server]\nworkers = 2\ntask_workers = 1");
    let mut ann = server.client().login("ann");
    let mut bob = server.client_apart_from(&mut [&mut ann]).login("bob");
    let slot = server.worker_of(&mut ann);
    let before = server.status();
    let reload = server.verb(&["reload", "--worker", &slot.to_string()]);
    assert_eq!((reload.code, &*reload.stderr), (Some(0), ""), "{reload:?}");
    assert!(reload.stdout.starts_with(&format!("worker {slot} replaced in ")), "{reload:?}");
    assert!(reload.stdout.contains("1 connection handed on, 0 connections dropped"), "{reload:?}");
    let after = server.status();
    let mut new = after.child_pids();
    new.retain(|pid| !before.child_pids().contains(pid));
    assert_eq!(new, [after.worker_pid(slot)], "that one and no other process");
    assert_eq!(after.number("/reloads/done"), 1);
    assert_eq!(bob.send_to("ann", &json!("still there?"))["sessions"], 1);
    assert_eq!(ann.message_body(), "still there?");

    let wrong = server.verb(&["reload", "--worker", "2"]);
    assert_eq!(wrong.code, Some(1));
    assert_eq!(wrong.stderr, "dunlin: reload refused: there is no worker 2: the last is 1\n");
    assert_eq!(server.verb(&["reload", "--worker", "0", "--tasks"]).code, Some(2));
    assert_eq!(server.status().number("/reloads/asked"), 1);
}

#[test]
fn a_message_in_fragments_survives_reloads_between_any_two_of_its_parts() {
    let server = Server::start("[server]\nworkers = 2");
    let mut ann = server.client().login("ann");
    let mut bob = server.client().login("bob");
    let request = json!({"id": 7, "method": "send", "params":
        {"to": {"user": "bob"}, "body": "grüße 🎉 ".repeat(500)}})
    .to_string();
    let reload = || assert_eq!(server.verb(&["reload"]).code, Some(0));
    let (first, rest) = request.split_at(100);
    ann.send_fragment(first, true, false);
    reload();
    // The head of the next frame and half of its content, cut within a character.
    let (second, third) = rest.split_at(rest.find('🎉').expect("it is there"));
    let length = u16::try_from(second.len() + third.len()).expect("a short message");
    let mut frame = vec![0x00, 0x80 | 126];
    frame.extend(length.to_be_bytes());
    frame.extend(MASK);
    let masked = rest.bytes().enumerate().map(|(place, byte)| byte ^ MASK[place % 4]);
    frame.extend(masked);
    let cut = 8 + second.len() + 2;
    for (from, to) in [(0, 1), (1, 5), (5, cut), (cut, frame.len() - 1)] {
        ann.send_bytes(&frame[from..to]);
        reload();
    }
    ann.send_bytes(&frame[frame.len() - 1..]);
    reload();
    ann.send_fragment("", false, true);
    let sent = ann.response();
    assert_eq!((&sent["id"], &sent["result"]["sessions"]), (&json!(7), &json!(1)), "{sent}");
    assert_eq!(bob.message_body(), "grüße 🎉 ".repeat(500));
}

const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

#[test]
fn clients_that_talk_all_the_time_lose_nothing_over_reloads() {
    const MESSAGES: usize = 400;
    let server = Server::start("[server]\nworkers = 2");
    let mut ann = server.client().login("ann");
    let mut bob = server.client_apart_from(&mut [&mut ann]).login("bob");
    let sender = std::thread::spawn(move || {
        for number in 0..MESSAGES {
            let sent = ann.send_to("bob", &json!(number));
            assert_eq!(sent["sessions"], 1, "message {number}");
        }
        ann
    });
    for _ in 0..5 {
        assert_eq!(server.verb(&["reload"]).code, Some(0));
    }
    for number in 0..MESSAGES {
        assert_eq!(bob.message_body(), number, "each once, in the order they were sent");
    }
    sender.join().expect("the sender is content");
    assert_eq!(bob.unread(), 0);
}

#[test]
fn a_reload_takes_what_it_may_and_names_what_needs_a_restart() {
    let server = Server::start("[server]\nworkers = 2\n[im]\nmax_body = \"1KiB\"\n");
    let mut ann = server.client().login("ann");
    let body = json!({"to": {"user": "ann"}, "body": "x".repeat(2_000)});
    assert_eq!(ann.error("send", body.clone()).0, -32005);
    server
        .dir()
        .write_config("[server]\nworkers = 3\nstop_timeout = \"7s\"\n[im]\nmax_body = \"4KiB\"\n");
    let reload = server.verb(&["reload"]);
    assert_eq!(reload.code, Some(0), "{reload:?}");
    let line = |start: &str| {
        let found = reload.stdout.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no {start:?}: {reload:?}")).to_owned()
    };
    let applied = line("applied: ");
    assert!(
        applied.contains("im.max_body") && applied.contains("server.stop_timeout"),
        "{applied}"
    );
    assert_eq!(line("needs a restart: "), "needs a restart: server.workers");
    ann.result("send", body);
    let status = server.status();
    assert_eq!(status.workers().len(), 2);
    assert_eq!(status.0["last_reload"]["needs_restart"], json!(["server.workers"]));
}

#[test]
fn a_bad_reload_changes_nothing_says_where_and_is_counted() {
    let good = "[server]\nworkers = 2\n[im]\nmax_body = \"1KiB\"\n";
    let server = Server::start(good);
    let mut ann = server.client().login("ann");
    let before = server.status();
    for (count, (toml, words)) in [
        ("[server]\nworkers = 2\nwrokers = 3\n", ["dunlin.toml:3", "server.workers"]),
        ("[server]\nworkers = 2\n[im\n", ["dunlin.toml:3", ""]),
        ("[im]\nmax_body = \"4KiB\"\nheartbeat = 5\n", ["dunlin.toml:3", "im.heartbeat"]),
        (
            "[im]\nmax_body = \"4KiB\"\n[table]\nreceive_pool = 5\n",
            ["dunlin.toml:4", "table.receive_pool"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        server.dir().write_config(toml);
        let reload = server.verb(&["reload"]);
        assert_eq!((reload.code, &*reload.stdout), (Some(1), ""), "{toml}: {reload:?}");
        for word in words {
            assert!(reload.stderr.contains(word), "{toml}: {reload:?}");
        }
        let status = server.status();
        assert_eq!(status.child_pids(), before.child_pids(), "{toml}");
        assert_eq!(status.number("/reloads/refused"), count as u64 + 1);
        assert_eq!(status.0["last_reload"]["ok"], false);
        assert!(status.text("/last_reload/error").contains("dunlin.toml"));
        assert_eq!(status.text("/state"), "running");
    }
    // Nothing of it was taken over in part.
    let body = json!({"to": {"user": "ann"}, "body": "x".repeat(2_000)});
    assert_eq!(ann.error("send", body).0, -32005);
    // A signal is refused in the same way.
    server.signal("HUP");
    server.wait_until("the fifth is refused", |status| status.number("/reloads/refused") == 5);
    // A file that is gone is a bad config too.
    fs::remove_file(server.dir().config_file()).expect("it was written");
    assert_eq!(server.verb(&["reload"]).code, Some(1));
    // And a good one is taken again.
    server.dir().write_config(good);
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    assert!(ann.sees_online("ann"));
    let status = server.status();
    assert_eq!(status.number("/reloads/done"), 1);
    assert_eq!(status.number("/generation"), before.number("/generation") + 1);
}

#[test]
fn reload_of_the_tasks_leaves_the_workers() {
    let server = Server::start("[server]\nworkers = 2\ntask_workers = 2");
    let before = server.status();
    let reload = server.verb(&["reload", "--tasks"]);
    assert_eq!(reload.code, Some(0), "{reload:?}");
    let after = server.status();
    assert_eq!(before.worker_pids(), after.worker_pids());
    assert_ne!(before.0["tasks"][0]["pid"], after.0["tasks"][0]["pid"]);
}

#[test]
fn reloads_asked_for_at_once_all_end_well() {
    let server = Server::start("[server]\nworkers = 2");
    let mut ann = server.client().login("ann");
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(|| server.verb(&["reload"]))).collect();
        for one in asked {
            let ended = one.join().expect("the verb ends");
            assert_eq!(ended.code, Some(0), "{ended:?}");
        }
    });
    assert_eq!(server.status().ready_workers(), 2);
    assert!(ann.sees_online("ann"));
}

#[test]
fn a_reload_that_cannot_replace_a_worker_fails_and_the_worker_goes_on() {
    let server = Server::start("[server]\nworkers = 2\nhandover_timeout = \"500ms\"");
    let mut ann = server.client().login("ann");
    let slot = server.worker_of(&mut ann);
    let before = server.status();
    // It can neither rest nor say so.
    process::signal("STOP", before.worker_pid(slot));
    let reload = server.verb(&["reload"]);
    process::signal("CONT", before.worker_pid(slot));
    assert_eq!((reload.code, &*reload.stdout), (Some(1), ""), "{reload:?}");
    assert!(reload.stderr.starts_with("dunlin: reload refused: "), "{reload:?}");
    let after = server.wait_until("both serve", |status| {
        status.ready_workers() == 2 && status.text("/state") == "running"
    });
    assert_eq!(after.worker_pid(slot), before.worker_pid(slot));
    assert_eq!(after.number("/reloads/refused"), 1);
    assert!(ann.sees_online("ann"));
    let line = |words: &str| {
        server.dir().log().lines().find(|line| line.contains(words)).map(str::to_owned)
    };
    let failed = line(": the reload failed, the old settings go on ").expect("it is logged");
    assert!(failed.contains(" ERROR ") && failed.contains("dropped=0"), "{failed}");
    assert_eq!(line(": reloaded "), None);
    // The next one finds nothing in its way.
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    assert!(ann.sees_online("ann"));
    assert_eq!(server.status().ready_workers(), 2);
    assert!(line(": reloaded ").is_some_and(|line| line.contains(" took_ms=")));
}
