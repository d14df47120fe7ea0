//! `dunlin chat` on a terminal.

use crate::support::full_screen::FullScreen;
use crate::support::process;
use crate::support::server::dunlin;
use crate::support::{Client, Server, wait};
use serde_json::json;
use std::fs;

fn chat(server: &Server, words: &[&str]) -> FullScreen {
    let mut command = dunlin();
    command.arg("chat").arg(format!("ws://{}", server.address)).args(words);
    FullScreen::start(&command)
}

/// To the alternate screen, and back from it.
const TAKES: &str = "\u{1b}[?1049h";
const GIVES_BACK: &str = "\u{1b}[?1049l";

#[test]
fn two_talk_across_a_reload_and_a_restart_and_quit_leaves_the_terminal_as_it_was() {
    let mut server = Server::start("[server]\nworkers = 2");
    let mut screen = chat(&server, &["--user", "ann", "--room", "tea"]);
    screen.wait_for("nobody else is here");
    let come = |server: &Server| -> Client {
        let mut bob = server.client().login("bob");
        bob.result("join", json!({"room": "tea"}));
        bob
    };
    let mut bob = come(&server);
    screen.wait_for("bob came in");
    bob.result("signal", json!({"to": {"room": "tea"}, "body": {"typing": true}}));
    screen.wait_for("bob is typing");
    bob.result("send", json!({"to": {"room": "tea"}, "body": {"text": "milk\u{1b}[2J?"}}));
    screen.wait_for("milk\\u{1b}[2J?");
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    screen.press("no, thanks\r");
    assert_eq!(bob.notification("signal")["body"], json!({"typing": true}));
    assert_eq!(bob.message_body(), json!({"text": "no, thanks"}));
    server.signal("TERM");
    assert!(server.wait_end().success());
    screen.wait_for("the server is stopping (1001)");
    server = server.start_again_for_its_clients();
    screen.wait_for("connected as ann");
    let mut bob = come(&server);
    // Whoever of the two was first there, she is in the room again by herself.
    wait::until("ann is in the room", || {
        let members = bob.result("members", json!({"room": "tea"}));
        members["members"].as_array().is_some_and(|members| members.contains(&json!("ann")))
    });
    bob.result("send", json!({"to": {"room": "tea"}, "body": {"text": "welcome back"}}));
    screen.wait_for("welcome back");
    screen.press("/msg bob psst\r");
    assert_eq!(bob.message_body(), json!({"text": "psst"}));
    screen.press("/quit\r");
    let left = screen.wait_end();
    assert_eq!((left.code, left.restored), (0, true));
}

#[test]
fn whatever_ends_it_gives_the_terminal_back() {
    let server = Server::start("[server]\nworkers = 2");
    for signal in ["TERM", "HUP", "INT"] {
        let mut screen = chat(&server, &["--user", "ann", "--to", "bob"]);
        screen.wait_for("ws://");
        process::signal(signal, screen.pid);
        let left = screen.wait_end();
        assert_eq!((left.code, left.restored), (0, true), "{signal}: {}", left.text);
    }
    // Closed by the server: one line, on the screen that was there before.
    let mut screen = chat(&server, &["--user", "ann", "--device", "d"]);
    screen.wait_for("online");
    server.client().log_in("ann", "d");
    let left = screen.wait_end();
    assert_eq!((left.code, left.restored), (1, true), "{}", left.text);
    assert!(left.text.contains("dunlin: the server closed the connection"), "{}", left.text);
}

#[test]
fn a_refusal_is_a_line_and_no_screen() {
    let server = Server::start("[server]\nworkers = 1\n[table]\nmax_sessions = 1");
    let _taken = server.client();
    let screen = chat(&server, &["--user", "ann"]);
    let left = screen.wait_end();
    assert_eq!((left.code, left.restored), (1, true));
    assert_eq!(
        left.text.trim(),
        "dunlin: the server is full or stopping (HTTP 503): try again in 1 s"
    );
}

#[test]
fn it_sleeps_while_nothing_happens() {
    let server = Server::start("[server]\nworkers = 1");
    let mut screen = chat(&server, &["--user", "ann"]);
    screen.wait_for("online");
    assert!(contains(&screen.bytes, TAKES));
    // Ticks of the processor it has used, in user and in system mode.
    let used = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", screen.pid)).expect("it runs");
        let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    };
    let before = used();
    // A busy loop would use 100 ticks a second.
    wait::holds_for("the processor is left alone", std::time::Duration::from_secs(1), || {
        used() - before < 20
    });
    screen.press("\u{3}");
    let bytes = screen.bytes.clone();
    let left = screen.wait_end();
    assert_eq!((left.code, left.restored), (0, true));
    assert!(!contains(&bytes, GIVES_BACK));
}

fn contains(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|found| found == words.as_bytes())
}
