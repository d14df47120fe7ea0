//! An upgrade in place as clients and operators live through it: the process stays, the connections stay,
//! and a file that cannot take over changes nothing.

use crate::support::process::{descriptors, expect_descriptors, is_alive, run, signal};
use crate::support::server::{DUNLIN, dunlin};
use crate::support::{Client, Server, Status, wait};
use serde_json::json;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CONFIG: &str = "[server]\nworkers = 2\ntask_workers = 1";

/// A file in the server's directory, with this content and mode.
fn file(server: &Server, name: &str, content: &str, mode: u32) -> PathBuf {
    let path = server.dir().path().join(name);
    fs::write(&path, content).expect("the test's own directory");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its own file");
    path
}

/// Upgrades, and asserts that it went well.
fn upgrade(server: &Server, words: &[&str]) -> String {
    let ended = server.verb(&[&["upgrade"], words].concat());
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{ended:?}");
    ended.stdout
}

/// An upgrade to this file is refused with a sentence of these words, and what runs goes on.
fn refuses(server: &Server, file: &str, words: &[&str]) {
    let before = server.status();
    let ended = server.verb(&["upgrade", file]);
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is not in {:?}", ended.stderr);
    }
    let after = server.status();
    assert_eq!(after.child_pids(), before.child_pids(), "nobody was replaced");
    assert_eq!(after.number("/upgrades/refused"), before.number("/upgrades/refused") + 1);
    assert_eq!(after.number("/upgrades/done"), before.number("/upgrades/done"));
    assert_eq!(after.0["last_upgrade"]["ok"], false);
    assert_eq!(after.number("/generation"), before.number("/generation"));
    assert!(!server.run_dir().join("next").exists(), "nothing is left of the rehearsal");
}

/// Connects again and again; counts those that were taken in, and panics at one that is refused.
fn storm(
    server: &Server,
    ends: &Arc<AtomicBool>,
    count: &Arc<AtomicU64>,
) -> thread::JoinHandle<()> {
    let (address, ends, count) = (server.address, ends.clone(), count.clone());
    thread::spawn(move || {
        while !ends.load(Ordering::SeqCst) {
            let connected = TcpStream::connect_timeout(&address, wait::DEADLINE);
            drop(connected.expect("no connect is refused"));
            count.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(2));
        }
    })
}

#[test]
fn clients_that_talk_all_the_time_lose_nothing_over_upgrades() {
    const MESSAGES: usize = 600;
    const UPGRADES: u64 = 4;
    let server = Server::start(CONFIG);
    let mut ann = server.client().login("ann");
    let mut bob = server.client_apart_from(&mut [&mut ann]).login("bob");
    let session = bob.hello["session"].clone();
    let (ends, connects) = (Arc::default(), Arc::default());
    let storm = storm(&server, &ends, &connects);
    let sender = thread::spawn(move || {
        for number in 0..MESSAGES {
            let sent = ann.send_to("bob", &json!(number));
            assert_eq!(sent["sessions"], 1, "message {number}");
            thread::sleep(Duration::from_millis(10));
        }
        ann
    });
    let before = server.status();
    for number in 1..=UPGRADES {
        let said = upgrade(&server, &[]);
        assert!(said.contains("0 connections dropped"), "{said}");
        let status = server.status();
        assert_eq!(status.number("/pid"), before.number("/pid"), "the same process");
        assert_eq!(status.number("/upgrades/done"), number);
        assert_eq!(status.number("/generation"), 1 + number);
        assert_eq!(status.workers()[0]["generation"], 1 + number);
        assert_eq!(status.text("/started_at"), before.text("/started_at"));
        assert!(status.child_pids().iter().all(|pid| !before.child_pids().contains(pid)));
    }
    for number in 0..MESSAGES {
        assert_eq!(bob.message_body(), number, "each once, in the order they were sent");
    }
    let mut ann = sender.join().expect("the sender is content");
    assert_eq!(bob.unread(), 0);
    ends.store(true, Ordering::SeqCst);
    storm.join().expect("the storm is content");
    assert!(connects.load(Ordering::SeqCst) > UPGRADES * 10, "it stormed");
    // Each session is the one it was.
    let sessions = bob.result("sessions", json!({}));
    assert_eq!(sessions["sessions"][0]["session"], session);
    assert!(ann.sees_online("bob"));
    let restarts = |status: &Status| status.workers()[0]["restarts"].clone();
    assert_eq!(restarts(&server.status()), restarts(&before), "a replacement is no restart");
}

#[test]
fn half_a_message_and_unsent_output_survive_an_upgrade() {
    let server = Server::start(&format!("{CONFIG}\n[websocket]\nsend_buffer = \"8MiB\""));
    let mut ann = server.client().login("ann");
    let mut slow = server.client_apart_from(&mut [&mut ann]).login("slow");
    // More than the sockets of both sides hold.
    let body = "grüße 🎉 ".repeat(2_000);
    for number in 0..200 {
        ann.send_to("slow", &json!([number, body]));
    }
    let request = json!({"id": 7, "method": "send", "params":
        {"to": {"user": "slow"}, "body": "half"}})
    .to_string();
    let (first, rest) = request.split_at(20);
    ann.send_fragment(first, true, false);
    upgrade(&server, &[]);
    ann.send_fragment(rest, false, true);
    assert_eq!(ann.response()["result"]["sessions"], 1);
    for number in 0..200 {
        assert_eq!(slow.message_body(), json!([number, body]));
    }
    assert_eq!(slow.message_body(), "half");
    assert_eq!(slow.unread(), 0);
}

#[test]
fn upgrades_in_a_row_leak_no_descriptor_and_two_hundred_clients_stay() {
    let server = Server::start(CONFIG);
    let mut clients: Vec<Client> =
        (0..200).map(|number| server.client().login(&format!("user-{number}"))).collect();
    upgrade(&server, &[]);
    let before = descriptors(server.pid);
    for _ in 0..5 {
        let said = upgrade(&server, &[DUNLIN]);
        assert!(said.contains("200 connections handed on, 0 connections dropped"), "{said}");
    }
    expect_descriptors(server.pid, &before);
    let status = server.status();
    assert_eq!(status.number("/sessions/logged_in"), 200);
    assert_eq!(status.connections(), 200);
    assert_eq!(status.0["upgrades"], json!({"asked": 6, "done": 6, "refused": 0}));
    assert_eq!(status.text("/state"), "running");
    for (number, client) in clients.iter_mut().enumerate() {
        let sent = client.send_to(&format!("user-{}", (number + 1) % 200), &json!(number));
        assert_eq!(sent["sessions"], 1);
    }
    for number in 0..200 {
        assert_eq!(clients[(number + 1) % 200].message_body(), number);
    }
}

#[test]
fn a_file_that_cannot_take_over_changes_nothing() {
    let server = Server::start(CONFIG);
    let mut ann = server.client().login("ann");
    let path = |path: PathBuf| path.to_str().expect("a path of ours").to_owned();
    let script = |name: &str, lines: &str| {
        path(file(&server, name, &format!("#!/bin/sh\n{lines}\n"), 0o755))
    };
    refuses(&server, "/no/such/file", &["/no/such/file", "No such file"]);
    let plain = path(file(&server, "plain", "#!/bin/sh\nexit 0\n", 0o644));
    refuses(&server, &plain, &["cannot be started", "Permission denied"]);
    let text = path(file(&server, "text", "no program\n", 0o755));
    refuses(&server, &text, &["cannot be started", "Exec format error"]);
    refuses(&server, "/tmp", &["is no file"]);
    refuses(
        &server,
        &script("fails", "echo tea is out >&2; exit 1"),
        &["exit code 1", "tea is out"],
    );
    refuses(&server, &script("crashes", "kill -SEGV $$"), &["signal 11"]);
    refuses(&server, &script("does_nothing", "exit 0"), &["without a word of the rehearsal"]);
    let late = format!("\"{DUNLIN}\" \"$@\"; exit 3");
    refuses(&server, &script("ends_badly", &late), &["exit code 3"]);
    ann.result("ping", json!({}));
    // And one that only passes everything on is as good as the program itself.
    upgrade(&server, &[&script("wraps", &format!("exec \"{DUNLIN}\" \"$@\""))]);
    ann.result("ping", json!({}));
}

#[test]
fn a_file_that_is_gone_after_its_rehearsal_loses_nobody() {
    let server = Server::start(CONFIG);
    let mut ann = server.client().login("ann");
    let mut bob = server.client_apart_from(&mut [&mut ann]).login("bob");
    let request =
        json!({"id": 7, "method": "send", "params": {"to": {"user": "bob"}, "body": "x"}});
    let request = request.to_string();
    ann.send_fragment(&request[..20], true, false);
    let before = server.status();
    let script = format!("#!/bin/sh\nrm \"$0\"\nexec \"{DUNLIN}\" \"$@\"\n");
    let gone = file(&server, "gone", &script, 0o755);
    let ended = server.verb(&["upgrade", gone.to_str().expect("a path of ours")]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("cannot be started: No such file"), "{ended:?}");
    // All processes had made way: others came in their place, and found everything at rest.
    let after = server.wait_until("all workers", |status| status.ready_workers() == 2);
    assert!(after.child_pids().iter().all(|pid| !before.child_pids().contains(pid)));
    assert_eq!(after.connections(), 2);
    ann.send_fragment(&request[20..], false, true);
    assert_eq!(ann.response()["result"]["sessions"], 1);
    assert_eq!(bob.message_body(), "x");
    upgrade(&server, &[]);
    assert!(ann.sees_online("bob"));
}

#[test]
fn a_program_that_dies_after_the_exec_leaves_a_place_to_start_anew() {
    let mut server = Server::start(CONFIG);
    let children = server.status().child_pids();
    let script = format!("#!/bin/sh\nmkdir once || exit 9\nexec \"{DUNLIN}\" \"$@\"\n");
    let once = file(&server, "once.sh", &script, 0o755);
    let ended = server.verb(&["upgrade", once.to_str().expect("a path of ours")]);
    assert_ne!(ended.code, Some(0), "{ended:?}");
    assert_eq!(server.wait_end().code(), Some(9));
    wait::until("nobody is left", || children.iter().all(|child| !is_alive(*child)));
    let server = server.start_again();
    server.client().login("ann").result("ping", json!({}));
}

#[test]
fn a_file_that_hangs_is_given_up() {
    let server = Server::start(CONFIG);
    let mut ann = server.client().login("ann");
    let hangs = file(&server, "hangs", "#!/bin/sh\nsleep 600 & echo $! > child; wait\n", 0o755);
    refuses(&server, hangs.to_str().expect("a path of ours"), &["took longer than"]);
    let child = fs::read_to_string(server.dir().path().join("child")).expect("it began");
    let child = child.trim().parse().expect("a pid");
    wait::until("the end of what it had started", || !is_alive(child));
    ann.result("ping", json!({}));
}

#[test]
fn a_config_that_is_wrong_refuses_the_upgrade_and_names_the_key() {
    let server = Server::start(CONFIG);
    server.dir().write_config("[server]\nworkers = 2\ntask_workers = 1\nstop_timout = \"7s\"");
    refuses(&server, DUNLIN, &["exit code 2", "server.stop_timout", "server.stop_timeout"]);
}

#[test]
fn an_upgrade_takes_new_settings_and_keeps_what_needs_a_restart() {
    let server = Server::start(CONFIG);
    let mut ann = server.client().login("ann");
    let body = json!({"to": {"user": "ann"}, "body": "x".repeat(2_000)});
    server.dir().write_config(
        "[server]\nworkers = 5\ntask_workers = 1\n[table]\nmax_sessions = 99\n[im]\nmax_body = \"1KiB\"",
    );
    let said = upgrade(&server, &[]);
    assert!(said.contains("applied: im.max_body\n"), "{said}");
    assert!(said.contains("needs a restart: server.workers, table.max_sessions\n"), "{said}");
    assert_eq!(ann.error("send", body.clone()).0, -32005);
    let status = server.status();
    assert_eq!(status.workers().len(), 2);
    assert_eq!(status.number("/sessions/capacity"), 16_384);
    // A reload afterwards says the same of them.
    let reload = server.verb(&["reload"]);
    assert!(reload.stdout.contains("needs a restart: server.workers, table.max_sessions"));
    server.dir().write_config(CONFIG);
    upgrade(&server, &[]);
    ann.result("send", body);
}

#[test]
fn a_signal_starts_the_file_anew_that_has_the_name_now() {
    let server = Server::start(CONFIG);
    let mut ann = server.client().login("ann");
    let link = server.dir().path().join("current");
    std::os::unix::fs::symlink(DUNLIN, &link).expect("a link");
    upgrade(&server, &[link.to_str().expect("a path of ours")]);
    signal("RTMIN+1", server.pid);
    server.wait_until("the upgrade", |status| status.number("/upgrades/done") == 2);
    assert_eq!(server.status().text("/last_upgrade/file"), link.to_str().expect("as above"));
    fs::remove_file(&link).expect("the link");
    signal("RTMIN+1", server.pid);
    let status = server.wait_until("the refusal", |status| status.number("/upgrades/refused") == 1);
    assert!(status.text("/last_upgrade/error").contains("No such file"));
    ann.result("ping", json!({}));
}

#[test]
fn upgrades_and_reloads_wait_for_each_other() {
    let server = Server::start(CONFIG);
    let mut ann = server.client().login("ann");
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    upgrade(&server, &[]);
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    upgrade(&server, &[]);
    let verb = |words: &[&str]| {
        let mut command = server.verb_command(words);
        thread::spawn(move || run(&mut command))
    };
    let upgrading = verb(&["upgrade"]);
    server.wait_until("the upgrade", |status| status.text("/state") == "upgrading");
    let second = server.verb(&["upgrade"]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("under way already"), "{second:?}");
    let reload = server.verb(&["reload"]);
    assert_eq!(reload.code, Some(0), "the new program does it and answers: {reload:?}");
    let upgraded = upgrading.join().expect("an outcome");
    assert_eq!(upgraded.code, Some(0), "{upgraded:?}");
    let status = server.status();
    assert_eq!(status.0["upgrades"], json!({"asked": 4, "done": 3, "refused": 1}));
    assert_eq!(status.0["reloads"], json!({"asked": 3, "done": 3, "refused": 0}));
    assert_eq!(status.number("/generation"), 1 + 3 + 3);
    ann.result("ping", json!({}));
}

#[test]
fn a_stop_during_an_upgrade_is_a_stop() {
    let mut server = Server::start(CONFIG);
    let mut ann = server.client().login("ann");
    let mut command = server.verb_command(&["upgrade"]);
    let upgrading = thread::spawn(move || run(&mut command));
    server.wait_until("the upgrade", |status| status.text("/state") == "upgrading");
    server.signal("TERM");
    assert_eq!(ann.expect_close().0, 1001);
    assert_eq!(server.wait_end().code(), Some(0));
    let upgraded = upgrading.join().expect("an outcome");
    assert_eq!(upgraded.code, Some(1), "{upgraded:?}");
    assert!(!server.run_dir().exists(), "nothing is left behind");
}

#[test]
fn a_second_stop_during_an_upgrade_is_one_at_once() {
    // One goodbye a second: in order it would take 20 s.
    let mut server = Server::start("[server]\nworkers = 2\ntask_workers = 1\ndrain_rate = 1");
    let children = server.status().child_pids();
    let _clients: Vec<Client> = (0..20).map(|n| server.client().login(&format!("u{n}"))).collect();
    let mut command = server.verb_command(&["upgrade"]);
    let upgrading = thread::spawn(move || run(&mut command));
    server.wait_until("the upgrade", |status| status.text("/state") == "upgrading");
    let began = Instant::now();
    server.signal("TERM");
    // Signals that come together are one: the first must have been seen before another comes.
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(200));
        server.signal("TERM");
    }
    assert_eq!(server.wait_end().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(children.iter().all(|child| !is_alive(*child)));
    let upgraded = upgrading.join().expect("an outcome");
    assert_eq!(upgraded.code, Some(1), "{upgraded:?}");
    assert!(!server.run_dir().exists(), "nothing is left behind");
}

#[test]
fn the_death_of_the_new_program_is_the_death_of_the_server() {
    let mut server = Server::start(CONFIG);
    upgrade(&server, &[]);
    let children = server.status().child_pids();
    server.signal("KILL");
    server.wait_end();
    let took =
        wait::until("the end of the children", || children.iter().all(|child| !is_alive(*child)));
    assert!(took.as_secs() < 1, "they took {took:?}");
    let server = server.start_again();
    server.client().login("ann").result("ping", json!({}));
}

#[test]
fn a_daemon_stays_one_over_an_upgrade() {
    let mut starter = Server::configure(CONFIG);
    starter = starter.args(&["-d"]);
    let log = starter.dir().path().join("daemon.log");
    starter = starter.args(&["--set", &format!("log.file={}", log.display())]);
    let started = starter.run();
    assert_eq!(started.code, Some(0), "{started:?}");
    let run_dir = starter.dir().run_dir();
    let verb = |word: &str| run(dunlin().arg(word).arg("--run-dir").arg(&run_dir));
    let upgraded = verb("upgrade");
    let stopped = verb("stop");
    let log = fs::read_to_string(log).unwrap_or_default();
    assert_eq!(upgraded.code, Some(0), "{upgraded:?}\n{log}");
    assert_eq!(stopped.code, Some(0), "{stopped:?}\n{log}");
    assert_eq!(log.matches("dunlin ready on").count(), 1, "one ready line: {log}");
}
