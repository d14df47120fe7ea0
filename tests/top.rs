//! `dunlin top` on a terminal: it shows the server, does what its keys say, and gives the terminal back.

use crate::support::full_screen::FullScreen;
use crate::support::{Server, process};
use serde_json::json;

fn top(server: &Server) -> FullScreen {
    FullScreen::start(&server.verb_command(&["top", "--every", "100ms"]))
}

#[test]
fn it_shows_the_workers_and_q_leaves_the_terminal_as_it_was() {
    let server = Server::start("[server]\nworkers = 2\ntask_workers = 1");
    let mut ann = server.client().login("ann");
    ann.result("ping", json!({}));
    let mut screen = top(&server);
    screen.wait_for_redrawn("pid");
    screen.wait_for_redrawn("sessions 1 of");
    screen.wait_for_redrawn("WORKER");
    // The chosen one is drawn with what is around it.
    screen.wait_for_redrawn(" 0  running");
    screen.wait_for_redrawn(" 1 running");
    screen.wait_for_redrawn("1 tasks busy");
    screen.wait_for_redrawn("q quit");
    screen.press("?");
    screen.wait_for_redrawn("Any key goes on");
    screen.press("xq");
    let left = screen.wait_end();
    assert_eq!((left.code, left.restored), (0, true), "{left:?}");
    assert_eq!(server.status().number("/reloads/asked"), 0);
}

#[test]
fn keys_ask_first_and_then_replace_one_worker_and_reload() {
    let server = Server::start("[server]\nworkers = 2\ntask_workers = 1");
    let before = server.status();
    let mut screen = top(&server);
    screen.wait_for_redrawn("q quit");
    screen.press("jw");
    screen.wait_for_redrawn("replace worker 1?");
    screen.press("y");
    let after = server.wait_until("one reload", |status| status.number("/reloads/done") == 1);
    assert_eq!(after.worker_pid(0), before.worker_pid(0));
    assert_ne!(after.worker_pid(1), before.worker_pid(1));
    screen.wait_for_redrawn("reloaded in");
    screen.press("r");
    screen.wait_for_redrawn("re-read the config");
    // No: the next question is another.
    screen.press("nd");
    screen.wait_for_redrawn("connections of worker 1");
    screen.press("y");
    server.wait_until("a drain", |status| status.number("/balance/asked") == 1);
    assert_eq!(server.status().number("/reloads/asked"), 1);
    screen.press("\u{3}");
    let left = screen.wait_end();
    assert_eq!((left.code, left.restored), (0, true), "{left:?}");
}

#[test]
fn it_goes_on_while_no_server_runs_and_a_signal_ends_it_orderly() {
    let mut server = Server::start("[server]\nworkers = 1");
    let mut screen = top(&server);
    screen.wait_for_redrawn(" 0  running");
    assert_eq!(server.verb(&["stop"]).code, Some(0));
    server.wait_end();
    screen.wait_for_redrawn("no server is running in");
    let server = server.start_again();
    screen.wait_for_redrawn("another server");
    process::signal("KILL", server.status().worker_pid(0));
    screen.wait_for_redrawn("worker 0 died");
    process::signal("TERM", screen.pid);
    let left = screen.wait_end();
    assert_eq!((left.code, left.restored), (0, true), "{left:?}");
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let server = Server::start("[server]\nworkers = 1");
    let ended = server.verb(&["top"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
    assert!(ended.stderr.contains("dunlin status --watch"), "{ended:?}");
}

#[test]
fn the_status_on_a_terminal_is_redrawn_in_place_and_fits() {
    let server = Server::start("[server]\nworkers = 2");
    let watch = server.verb_command(&["status", "--watch", "--every", "100ms"]);
    let mut screen = FullScreen::start(&watch);
    screen.wait_for("MAILBOX");
    screen.wait_for("MAILBOX");
    let text = String::from_utf8_lossy(&screen.bytes).into_owned();
    assert!(text.contains("\u{1b}[H") && text.contains("\u{1b}[K") && text.contains("\u{1b}[1m"));
    let plain = screen.text();
    let widest = plain.lines().map(|line| line.trim_end().chars().count()).max();
    assert!(widest.is_some_and(|widest| widest <= 81), "with the space of a jump: {plain}");
    assert!(!plain.contains("OUT B/S"), "what does not fit is left out");
    process::signal("INT", screen.pid);
    let left = screen.wait_end();
    assert_eq!((left.code, left.restored), (-2, true), "{left:?}");

    let mut plain = server.verb_command(&["status"]);
    plain.env("NO_COLOR", "1");
    let left = FullScreen::start(&plain).wait_end();
    assert_eq!(left.code, 0);
    assert!(!left.bytes.contains(&0x1b), "{left:?}");
}

#[test]
fn a_bench_shows_on_a_terminal_how_its_times_are_spread() {
    let server = Server::start("[server]\nworkers = 1");
    let words = ["bench", "im", "--only", "rate", "--connections", "2", "--rate", "50"];
    let mut bench = server.verb_command(&words);
    bench.args(["--duration", "500ms"]);
    let left = FullScreen::start(&bench).wait_end();
    assert_eq!(left.code, 0, "{left:?}");
    assert!(left.text.contains("generator busy") && left.text.contains("█"), "{left:?}");
    let piped = process::run(&mut bench);
    assert!(piped.code == Some(0) && !piped.stdout.contains("█"), "{piped:?}");
}
