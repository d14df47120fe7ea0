//! Every signal of the contract, sent to the master as a script would.

use crate::support::server::A_WHILE;
use crate::support::{Server, Status, process, wait};
use std::fs;
use std::time::{Duration, Instant};

const TOML: &str = "[server]\nworkers = 2\ntask_workers = 2";

fn task_pids(status: &Status) -> Vec<u64> {
    (0..2).map(|slot| status.number(&format!("/tasks/{slot}/pid"))).collect()
}

/// No process of the earlier status is in the later one.
fn all_replaced(before: &Status, now: &Status) -> bool {
    let pids = now.child_pids();
    pids.len() == before.child_pids().len()
        && before.child_pids().iter().all(|pid| !pids.contains(pid))
}

#[test]
fn usr1_and_hup_replace_every_process() {
    for name in ["USR1", "HUP"] {
        let server = Server::start(TOML);
        let mut ann = server.client().login("ann");
        let before = server.status();
        server.signal(name);
        let after = server.wait_until("the reload is done", |status| {
            status.number("/reloads/done") == 1 && status.text("/state") == "running"
        });
        assert!(all_replaced(&before, &after), "{name}: {} then {}", before.0, after.0);
        assert_eq!(after.number("/generation"), before.number("/generation") + 1);
        assert_eq!(after.number("/pid"), before.number("/pid"));
        assert_eq!(after.ready_workers(), 2);
        assert!(ann.sees_online("ann"), "{name}: the connection is still there and logged in");
    }
}

#[test]
fn usr2_replaces_the_task_processes_only() {
    let server = Server::start(TOML);
    let before = server.status();
    server.signal("USR2");
    let after =
        server.wait_until("the reload is done", |status| status.number("/reloads/done") == 1);
    assert!(task_pids(&after).iter().all(|pid| !task_pids(&before).contains(pid)));
    assert_eq!(before.worker_pids(), after.worker_pids());
    assert_eq!(before.number("/timer/pid"), after.number("/timer/pid"));
}

#[test]
fn term_and_int_stop_gracefully() {
    for name in ["TERM", "INT"] {
        let mut server = Server::start(TOML);
        let mut clients: Vec<_> = (0..8).map(|n| server.client().login(&format!("u{n}"))).collect();
        let children = server.status().child_pids();
        server.signal(name);
        for client in &mut clients {
            let (code, bye) = client.expect_close();
            assert_eq!(code, 1001, "{name}");
            let bye = bye.expect("a bye before the close");
            assert_eq!(bye["code"], 1001);
            assert!(bye["after_ms"][0].as_u64() < bye["after_ms"][1].as_u64());
        }
        assert_eq!(server.wait_end().code(), Some(0), "{name}");
        assert!(!server.run_dir().exists());
        assert!(children.into_iter().all(|pid| !process::is_alive(pid)), "{name}");
    }
}

/// Ctrl-C in a terminal goes to the whole group, and so do the SIGTERM of `timeout`, of shells and of
/// supervisors: every process gets it, in any order.
#[test]
fn a_signal_to_the_whole_group_is_a_graceful_stop_as_well() {
    for name in ["INT", "TERM", "INT", "TERM"] {
        let mut server = Server::start(TOML);
        let mut clients: Vec<_> = (0..8).map(|n| server.client().login(&format!("u{n}"))).collect();
        process::signal(name, -server.pid);
        for client in &mut clients {
            let (code, bye) = client.expect_close();
            assert_eq!((code, bye.is_some()), (1001, true));
        }
        assert_eq!(server.wait_end().code(), Some(0));
        assert!(!server.run_dir().exists());
        let log = server.dir().log();
        assert!(!log.contains("died"), "nobody died: {log}");
        let (_, since_stop) = log.split_once(" stopping").expect("it says that it stops");
        assert!(!since_stop.contains("WARN"), "nothing to warn of: {log}");
    }
}

#[test]
fn a_term_to_the_children_just_before_the_master_is_no_death() {
    let mut server = Server::start(TOML);
    for pid in server.status().child_pids() {
        process::signal("TERM", pid);
    }
    server.signal("TERM");
    assert_eq!(server.wait_end().code(), Some(0));
    let log = server.dir().log();
    assert!(!log.contains("died"), "nobody died: {log}");
}

#[test]
fn a_term_to_a_task_process_or_the_timer_replaces_it_and_is_no_death() {
    let server = Server::start(TOML);
    for seat in ["/tasks/0", "/timer"] {
        let pid = server.status().number(&format!("{seat}/pid"));
        process::signal("TERM", pid.cast_signed());
        server.wait_until("another process in its seat", |status| {
            status.number(&format!("{seat}/pid")) != pid
                && status.text(&format!("{seat}/state")) == "running"
        });
    }
    let log = server.dir().log();
    assert!(!log.contains("died"), "nobody died: {log}");
}

#[test]
fn a_second_term_stops_at_once() {
    let mut server = Server::start("[server]\nworkers = 2\nstop_timeout = \"60s\"");
    // It never answers the close, so that a graceful stop has to wait for it.
    let _silent = server.client().login("ann");
    server.signal("TERM");
    server.wait_until("the stop has begun", |status| status.text("/state") == "stopping");
    let began = Instant::now();
    server.signal("TERM");
    server.wait_end();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(!server.run_dir().exists());
}

#[test]
fn quit_stops_now() {
    let mut server = Server::start("[server]\nworkers = 2\nstop_timeout = \"60s\"");
    let mut silent = server.client().login("ann");
    let children = server.status().child_pids();
    let began = Instant::now();
    server.signal("QUIT");
    server.wait_end();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(!silent.is_open());
    assert!(!server.run_dir().exists());
    assert!(children.into_iter().all(|pid| !process::is_alive(pid)));
}

#[test]
fn rtmin_opens_the_log_file_anew() {
    let starter = Server::configure(TOML).args(&["--set", "log.file=server.log"]);
    let (log, rotated) =
        (starter.dir().path().join("server.log"), starter.dir().path().join("server.log.1"));
    let server = starter.start();
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    assert!(text(&log).contains("ready on"));
    fs::rename(&log, &rotated).expect("the log is renamed");
    server.signal("RTMIN");
    wait::until("a new log file", || log.exists());
    // Every process writes to the new one: the master, and workers that end and begin.
    let old = text(&rotated);
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    wait::until("the reload in the new file", || {
        let new = text(&log);
        new.contains("reloaded") && new.contains("worker[0.2]")
    });
    let late = &text(&rotated)[old.len()..];
    assert!(!late.contains("master"), "the master wrote to the old file: {late}");
    assert!(!late.contains("worker"), "a worker wrote to the old file: {late}");
}

#[test]
fn pipe_does_no_harm() {
    let server = Server::start(TOML);
    let mut ann = server.client().login("ann");
    let before = server.status();
    server.signal("PIPE");
    wait::holds_for("the server runs", A_WHILE, || server.status().text("/state") == "running");
    assert_eq!(before.child_pids(), server.status().child_pids());
    assert!(ann.sees_online("ann"));
}
