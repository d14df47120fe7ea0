//! `dunlin bench survive`: against this server, which must keep its promises; and against one that
//! lies, which must be caught.

use crate::support::Server;
use crate::support::liar::{Liar, Lie};
use crate::support::process::{self, Ended};
use crate::support::server::dunlin;
use serde_json::Value as Json;
use std::time::{SystemTime, UNIX_EPOCH};

const TOML: &str = "[server]\nworkers = 2";

/// Sixty clients for three seconds; the report.
fn survive(server: &Server, flags: &[&str]) -> (Ended, Json) {
    let words = ["bench", "survive", "--json", "--connections", "60", "--rate", "600"];
    let ended = server.verb(&[&words, flags].concat());
    let report = serde_json::from_str(&ended.stdout);
    let report = report.unwrap_or_else(|error| panic!("no report: {error}: {ended:?}"));
    (ended, report)
}

#[test]
fn reloads_lose_nothing() {
    let server = Server::start(TOML);
    let (ended, report) =
        survive(&server, &["--seconds", "3", "--do", "reload", "--every", "600ms"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!((&ended.stderr[..], &report["kept"]), ("", &Json::Bool(true)));
    let reloads = report["deeds"]["reload"]["times"].as_u64().expect("a number");
    assert!(reloads >= 3, "{report}");
    assert_eq!(server.status().number("/reloads/done"), reloads);
    let messages = &report["messages"];
    assert!(messages["sent"].as_u64() >= Some(1_500), "{report}");
    assert_eq!(messages["sent"], messages["delivered"]);
    assert_eq!(messages["sent"], messages["taken"]);
}

#[test]
fn killed_workers_lose_no_message_of_a_connection_that_stays() {
    let server = Server::start(TOML);
    let flags = ["--seconds", "3", "--do", "kill-worker", "--every", "700ms"];
    let (ended, report) = survive(&server, &flags);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(report["deeds"]["kill-worker"]["times"].as_u64() >= Some(2), "{report}");
    assert_eq!(report["lost_connections"]["unexplained"], 0, "{report}");
    assert!(report["presence"]["asked"].as_u64() >= Some(20), "{report}");
}

#[test]
fn connections_that_move_lose_nothing() {
    let server = Server::start("[server]\nworkers = 3");
    let flags = ["--seconds", "3", "--do", "drain,balance", "--every", "200ms"];
    let (ended, report) = survive(&server, &flags);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(report["deeds"]["drain"]["times"].as_u64() >= Some(1), "{report}");
    assert_eq!(report["messages"]["sent"], report["messages"]["delivered"], "{report}");
}

#[test]
fn upgrades_lose_nothing() {
    let server = Server::start(TOML);
    let flags = ["--seconds", "2", "--do", "upgrade", "--every", "500ms", "--times", "2"];
    let (ended, report) = survive(&server, &[&flags[..], &["--storm", "30"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(report["deeds"]["upgrade"]["times"], 2, "{report}");
    assert_eq!(report["messages"]["sent"], report["messages"]["delivered"], "{report}");
}

#[test]
fn reloads_turn_no_connect_away() {
    let server = Server::start(TOML);
    let flags = ["--seconds", "2", "--do", "reload", "--every", "200ms", "--storm", "150"];
    let (ended, report) = survive(&server, &flags);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(report["deeds"]["reload"]["times"].as_u64() >= Some(3), "{report}");
    assert!(report["storm"]["done"].as_u64() >= Some(250), "{report}");
}

/// All at once, chosen at random; `DUNLIN_TEST_SEED` repeats the choices.
#[test]
fn reloads_and_kills_into_each_other_lose_nothing_untold() {
    let seed = std::env::var("DUNLIN_TEST_SEED").unwrap_or_else(|_| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        now.subsec_nanos().to_string()
    });
    println!("DUNLIN_TEST_SEED={seed}");
    let server = Server::start("[server]\nworkers = 3\ntask_workers = 1");
    let deeds = "reload,upgrade,drain,balance,kill-worker,kill-timer,kill-task";
    let flags = ["--seconds", "4", "--do", deeds, "--every", "250ms", "--overlap", "--seed", &seed];
    let (ended, report) = survive(&server, &flags);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let times = deeds.split(',').filter_map(|deed| report["deeds"][deed]["times"].as_u64());
    assert!(times.sum::<u64>() >= 8, "{report}");
}

#[test]
fn a_killed_timer_or_task_process_loses_nobody() {
    let server = Server::start(TOML);
    let flags =
        ["--times", "4", "--seconds", "3", "--every", "300ms", "--do", "kill-timer,kill-task"];
    let (ended, report) = survive(&server, &flags);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let times = |deed: &str| report["deeds"][deed]["times"].as_u64().unwrap_or(0);
    assert_eq!(times("kill-timer") + times("kill-task"), 4, "{report}");
    let lost = &report["lost_connections"];
    assert_eq!((&lost["closed_1012"], &lost["reset"]), (&Json::from(0), &Json::from(0)));
}

#[test]
fn without_a_server_or_with_wrong_flags_nothing_is_begun() {
    let server = Server::start(TOML);
    for flags in [
        &["--connections", "0"][..],
        &["--do", "dance"],
        &["--every", "1"],
        &["--url", "http://127.0.0.1/ws"],
    ] {
        let ended = server.verb(&[&["bench", "survive"], flags].concat());
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{ended:?}");
    }
    let nowhere = server.dir().path().join("nowhere");
    let mut command = dunlin();
    command.args(["bench", "survive", "--run-dir"]).arg(nowhere);
    assert_eq!(process::run(&mut command).code, Some(3));
}

/// A run against a server that lies once: the exit code, and the names of the broken promises.
fn caught(lie: Lie) -> (Option<i32>, Vec<String>) {
    let liar = Liar::start(lie);
    let url = format!("ws://{}/ws", liar.address);
    let mut command = dunlin();
    command.args(["bench", "survive", "--json", "--connections", "4", "--slow", "1"]);
    command.args(["--rate", "300", "--seconds", "1", "--seed", "7", "--url", &url]);
    let ended = process::run(&mut command);
    assert_eq!(liar.has_lied(), lie != Lie::None, "{lie:?}: {ended:?}");
    let report: Json = serde_json::from_str(&ended.stdout).expect("a report");
    let broken: Vec<String> =
        serde_json::from_value(report["broken"].clone()).expect("a list of names");
    for name in &broken {
        assert_eq!(report["faults"][name], 1, "{lie:?}: {ended:?}");
    }
    let lines = ended.stderr.lines().filter(|line| line.starts_with("dunlin: promise broken: 1 "));
    assert_eq!(lines.count(), broken.len(), "a line for each: {ended:?}");
    (ended.code, broken)
}

fn named(names: &[&str]) -> (Option<i32>, Vec<String>) {
    let code = if names.is_empty() { 0 } else { 1 };
    (Some(code), names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn an_honest_server_keeps_its_promises() {
    assert_eq!(caught(Lie::None), named(&[]));
}

#[test]
fn a_server_that_drops_a_message_is_caught() {
    assert_eq!(caught(Lie::Drop), named(&["lost"]));
}

#[test]
fn a_server_that_delivers_twice_is_caught() {
    assert_eq!(caught(Lie::Double), named(&["doubled"]));
}

#[test]
fn a_server_that_swaps_two_messages_is_caught() {
    assert_eq!(caught(Lie::Swap), named(&["reordered"]));
}

#[test]
fn a_server_that_damages_a_byte_is_caught() {
    // The message that it was is missing, too.
    assert_eq!(caught(Lie::Damage), named(&["lost", "damaged"]));
}

#[test]
fn a_server_that_closes_without_a_reason_is_caught() {
    assert_eq!(caught(Lie::Close), named(&["disconnected"]));
}

#[test]
fn a_server_that_does_not_answer_is_caught() {
    assert_eq!(caught(Lie::Silent), named(&["unanswered"]));
}

#[test]
fn a_server_that_denies_what_it_did_is_caught() {
    assert_eq!(caught(Lie::Deny), named(&["untrue"]));
}

#[test]
fn a_server_that_refuses_a_connect_is_caught() {
    assert_eq!(caught(Lie::Refuse), named(&["refused"]));
}
