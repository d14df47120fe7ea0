//! `dunlin bench` without `survive`: each mode in small against a server that keeps its promises, and
//! against one that lies, which must be caught.

use crate::support::Server;
use crate::support::full_screen::{FullScreen, Left};
use crate::support::liar::{Liar, Lie, Speech};
use crate::support::process::{self, Ended};
use crate::support::server::{DUNLIN, dunlin};
use serde_json::Value as Json;
use std::process::Command;

fn report(ended: &Ended) -> Json {
    serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|error| panic!("no report: {error}: {ended:?}"))
}

/// `dunlin bench im` of a server; what it printed must say that every promise was kept.
fn im(server: &Server, flags: &[&str]) -> Json {
    let words = ["bench", "im", "--json", "--connections", "20", "--duration", "700ms"];
    let ended = server.verb(&[&words, flags].concat());
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{ended:?}");
    let report = report(&ended);
    assert_eq!((&report["mode"], &report["kept"]), (&"im".into(), &true.into()), "{report}");
    report
}

fn number(value: &Json) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn im_measures_logins_messages_and_a_fixed_rate() {
    let server = Server::start("[server]\nworkers = 2");
    let report = im(&server, &["--rate", "500", "--only", "login,send,rate"]);
    let parts = &report["parts"];
    for part in ["login", "send", "rate"] {
        let part = &parts[part];
        assert!(number(&part["count"]) >= 20.0 && number(&part["per_second"]) > 0.0, "{report}");
        assert!(number(&part["server_cpu_us"]) > 0.0, "{report}");
        assert_eq!(part["workers"], 2, "{report}");
        let at = |name: &str| number(&part["latency"][name]);
        assert!(0.0 < at("p50_ms") && at("p50_ms") <= at("p99_ms"), "{report}");
        assert!(at("p99_ms") <= at("max_ms"), "{report}");
    }
    // The fifth that is not measured is sent, too.
    let sent = number(&parts["rate"]["late"]["sent"]);
    assert!((250.0..=290.0).contains(&sent), "500 a second for 0.56 s: {report}");
    assert_eq!(number(&parts["send"]["late"]["sent"]), 0.0, "nothing was due: {report}");
    // What the clients counted the server has counted, too; it received the requests behind them.
    assert!(server.status().messages_out() as f64 >= 2.0 * number(&parts["send"]["count"]));
}

#[test]
fn im_measures_a_room_across_workers() {
    let server = Server::start("[server]\nworkers = 2");
    let report = im(&server, &["--only", "room", "--members", "30"]);
    let room = &report["parts"]["room"];
    // Whole messages but for those that were on their way when it began or ended.
    assert!(number(&room["count"]) >= 29.0 && number(&room["server_cpu_us"]) > 0.0, "{report}");
    // A room of one has nobody who gets anything.
    let ended = server.verb(&["bench", "im", "--only", "room", "--members", "1"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

#[test]
fn a_server_beside_it_that_is_no_echo_is_found_out() {
    let server = Server::start("[server]\nworkers = 1");
    // An IM server greets.
    let run_dir = server.run_dir();
    let run_dir = run_dir.to_str().expect("UTF-8");
    let words = ["bench", "im", "--json", "--duration", "500ms", "--only", "send", "--echo"];
    let ended = server.verb(&[&words[..], &[run_dir]].concat());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(report(&ended)["broken"][0], "damaged", "{ended:?}");
}

#[test]
fn im_mints_the_tokens_it_logs_in_with() {
    let starter = Server::configure("[auth]\nmode = \"token\"\nsecret_file = \"s.key\"");
    let secret = starter.dir().write_key("s.key", "0123456789abcdef0123456789abcdef", 0o600);
    let server = starter.start();
    let path = secret.to_str().expect("UTF-8");
    im(&server, &["--only", "send", "--secret-file", path]);
    let ended = server.verb(&["bench", "im", "--json", "--duration", "100ms"]);
    assert_eq!(ended.code, Some(1), "who brings no token is not let in: {ended:?}");
    assert_eq!(report(&ended)["broken"][0], "untrue", "{ended:?}");
}

#[test]
fn connects_are_counted() {
    let server = Server::start("[server]\nworkers = 1");
    let words = ["bench", "connect", "--json", "--connections", "50", "--duration", "200ms"];
    let ended = server.verb(&words);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let part = &report(&ended)["parts"]["connect"];
    let count = number(&part["count"]);
    assert!(count >= 50.0 && count % 50.0 == 0.0, "whole rounds: {part}");
    server.wait_until("all are gone", |status| status.connections() == 0);
    assert!(server.status().number("/workers/0/accepted") as f64 >= count);
}

#[test]
fn the_table_for_people_has_the_figures_of_each_part() {
    let server = Server::start("[server]\nworkers = 1");
    let words = ["bench", "im", "--connections", "4", "--duration", "200ms", "--only", "send"];
    let ended = server.verb(&words);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for words in ["p99.9", "µs server", "send       generator busy", "load average"] {
        assert!(ended.stdout.contains(words), "{words:?}: {}", ended.stdout);
    }
}

#[test]
fn without_a_server_or_with_wrong_flags_nothing_is_begun() {
    let server = Server::start("[server]\nworkers = 1");
    for flags in [
        &["echo", "--size", "15"][..],
        &["echo", "--connections", "0"],
        &["rate", "--rate", "0"],
        &["fanout", "--url", "http://127.0.0.1/"],
        &["connect", "--duration", "1"],
        &["im", "--only", "dance"],
        &["im", "--echo", "x", "--duration", "21s"],
        &["im", "--secret-file", "/nowhere/at/all"],
    ] {
        let ended = server.verb(&[&["bench"], flags].concat());
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{ended:?}");
    }
    let nowhere = server.dir().path().join("nowhere");
    for mode in ["echo", "rate", "fanout", "connect", "im"] {
        let mut command = dunlin();
        command.args(["bench", mode, "--run-dir"]).arg(&nowhere);
        assert_eq!(process::run(&mut command).code, Some(3), "{mode}");
    }
}

/// A run of these words against a server that lies once: the exit code, and the names of the broken
/// promises.
fn caught(words: &[&str], speech: Speech, lie: Lie) -> (Option<i32>, Vec<String>) {
    let liar = Liar::speaking(speech, lie);
    let url = format!("ws://{}/ws", liar.address);
    let mut command = dunlin();
    command.arg("bench").args(words).args(["--json", "--connections", "4", "--size", "80"]);
    command.args(["--duration", "800ms", "--url", &url]);
    let ended = process::run(&mut command);
    assert_eq!(liar.has_lied(), lie != Lie::None, "{lie:?}: {ended:?}");
    let report = report(&ended);
    let broken = serde_json::from_value(report["broken"].clone()).expect("a list of names");
    (ended.code, broken)
}

fn named(names: &[&str]) -> (Option<i32>, Vec<String>) {
    let code = if names.is_empty() { 0 } else { 1 };
    (Some(code), names.iter().map(|name| (*name).to_owned()).collect())
}

const IM: &[&str] = &["im", "--only", "send", "--depth", "4"];
const ECHO: &[&str] = &["echo", "--depth", "4"];
const ECHO_ONE: &[&str] = &["echo"];
const FANOUT: &[&str] = &["fanout", "--depth", "1"];

#[test]
fn honest_servers_keep_their_promises() {
    assert_eq!(caught(IM, Speech::Im, Lie::None), named(&[]));
    assert_eq!(caught(ECHO, Speech::Echo, Lie::None), named(&[]));
    assert_eq!(caught(&["rate", "--rate", "500"], Speech::Echo, Lie::None), named(&[]));
    assert_eq!(caught(FANOUT, Speech::Broadcast, Lie::None), named(&[]));
}

#[test]
fn a_lost_message_is_caught() {
    assert_eq!(caught(IM, Speech::Im, Lie::Drop), named(&["lost"]));
    assert_eq!(caught(ECHO_ONE, Speech::Echo, Lie::Drop), named(&["lost"]));
    assert_eq!(caught(FANOUT, Speech::Broadcast, Lie::Drop), named(&["lost"]));
}

#[test]
fn a_doubled_message_is_caught() {
    assert_eq!(caught(IM, Speech::Im, Lie::Double), named(&["doubled"]));
    assert_eq!(caught(ECHO, Speech::Echo, Lie::Double), named(&["doubled"]));
    assert_eq!(caught(FANOUT, Speech::Broadcast, Lie::Double), named(&["doubled"]));
}

#[test]
fn swapped_messages_are_caught() {
    assert_eq!(caught(IM, Speech::Im, Lie::Swap), named(&["reordered"]));
    assert_eq!(caught(ECHO, Speech::Echo, Lie::Swap), named(&["reordered"]));
    let fanout = &["fanout", "--depth", "2"];
    let (code, broken) = caught(fanout, Speech::Broadcast, Lie::Swap);
    // What is held back when the time is over comes no more.
    assert!(code == Some(1) && (broken == ["reordered"] || broken == ["lost"]), "{broken:?}");
}

#[test]
fn a_damaged_byte_is_caught() {
    assert_eq!(caught(IM, Speech::Im, Lie::Damage), named(&["damaged"]));
    assert_eq!(caught(ECHO, Speech::Echo, Lie::Damage), named(&["damaged"]));
    assert_eq!(caught(FANOUT, Speech::Broadcast, Lie::Damage), named(&["damaged"]));
}

#[test]
fn what_only_the_im_promises_is_checked() {
    assert_eq!(caught(IM, Speech::Im, Lie::Silent), named(&["unanswered"]));
    assert_eq!(caught(IM, Speech::Im, Lie::Deny), named(&["untrue"]));
}

#[test]
fn a_closed_or_refused_connection_is_caught() {
    // Or somebody is told first that the one who wrote to him is gone.
    assert_eq!(caught(IM, Speech::Im, Lie::Close).0, Some(1));
    assert_eq!(caught(ECHO, Speech::Echo, Lie::Close), named(&["disconnected"]));
    assert_eq!(caught(ECHO, Speech::Echo, Lie::Refuse), named(&["refused"]));
}

/// What the line of progress ends with, before it is taken away.
const LEFT: &str = " s left";
/// A terminal clears a line by this.
const CLEAR_LINE: &[u8] = b"\x1b[2K";

/// What the terminal got behind the last line of progress.
fn behind_progress(left: &Left) -> &[u8] {
    let last = left.bytes.windows(LEFT.len()).rposition(|bytes| bytes == LEFT.as_bytes());
    &left.bytes[last.unwrap_or_else(|| panic!("no progress: {left:?}"))..]
}

#[test]
fn a_terminal_shows_which_part_and_round_runs_and_then_the_table_alone() {
    let server = Server::start("[server]\nworkers = 2");
    let words = ["bench", "im", "--only", "send,room", "--rounds", "2", "--duration", "500ms"];
    let small = ["--connections", "10", "--members", "10"];
    let mut screen = FullScreen::start(&server.verb_command(&[&words[..], &small].concat()));
    screen.wait_for("connecting [");
    screen.wait_for("send, round 1 of 2 [");
    screen.wait_for("s left");
    screen.wait_for("send, round 2 of 2 [");
    screen.wait_for("room, round 2 of 2 [");
    screen.wait_for("a second");
    let left = screen.wait_end();
    assert_eq!((left.code, left.restored), (0, true), "{left:?}");
    let table = behind_progress(&left);
    assert!(table.windows(4).any(|bytes| bytes == CLEAR_LINE), "it is taken away: {left:?}");
    assert!(String::from_utf8_lossy(table).contains("generator busy"), "{left:?}");
}

#[test]
fn control_c_ends_a_run_on_a_clean_line() {
    let server = Server::start("[server]\nworkers = 2");
    for mode in [
        &["im", "--only", "send", "--duration", "60s"][..],
        &["connect", "--duration", "60s", "--connections", "50"],
        &["survive", "--seconds", "60", "--connections", "10", "--do", "reload"],
    ] {
        let mut screen = FullScreen::start(&server.verb_command(&[&["bench"], mode].concat()));
        screen.wait_for("about 60 s left");
        screen.press("\u{3}");
        let left = screen.wait_end();
        assert_eq!((left.code, left.restored), (-2, true), "as who does not catch it: {left:?}");
        let behind = behind_progress(&left);
        assert!(behind.windows(4).any(|bytes| bytes == CLEAR_LINE), "{mode:?}: {left:?}");
    }
}

#[test]
fn a_dumb_terminal_and_one_that_gets_json_show_no_progress() {
    let server = Server::start("[server]\nworkers = 1");
    let run_dir = server.run_dir();
    let run = |terminal: &str, flags: &[&str]| {
        let mut command = Command::new("env");
        command.args([terminal, DUNLIN, "bench", "connect", "--duration", "300ms", "--run-dir"]);
        let left = FullScreen::start(command.arg(&run_dir).args(flags)).wait_end();
        assert_eq!(left.code, 0, "{left:?}");
        left.text.contains(LEFT)
    };
    assert!(run("NO_COLOR=1", &[]), "it has no colours");
    assert!(!run("TERM=dumb", &[]));
    assert!(!run("TERM=xterm", &["--json"]));
}
