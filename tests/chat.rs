//! `dunlin chat` without a terminal: each line one message, whatever becomes of the server meanwhile.

use crate::support::server::dunlin;
use crate::support::talker::Talker;
use crate::support::{Server, process, wait};
use crate::tokens::mint;
use serde_json::{Value as Json, json};
use std::fs;
use std::net::TcpListener;

const TWO_WORKERS: &str = "[server]\nworkers = 2";

fn url(server: &Server) -> String {
    format!("ws://{}", server.address)
}

#[test]
fn two_line_clients_talk_and_a_reload_in_the_middle_disturbs_neither() {
    let server = Server::start(TWO_WORKERS);
    let run_dir = server.run_dir();
    let run_dir = run_dir.to_str().expect("UTF-8");
    let mut ann = Talker::connected(&[&url(&server), "--user", "ann", "--to", "bob"]);
    // Found by its run directory.
    let mut bob = Talker::connected(&["--run-dir", run_dir, "--user", "bob", "--to", "ann"]);
    for round in 0..3 {
        ann.say(&format!("tea {round}?"));
        assert_eq!(bob.message(), format!("ann: tea {round}?"));
        bob.say("yes");
        assert_eq!(ann.message(), "bob: yes");
        assert_eq!(server.verb(&["reload"]).code, Some(0));
    }
    let (code, printed, said) = ann.finish();
    assert_eq!((code, printed, said), (Some(0), vec![], vec![]), "no connection was lost");
    assert_eq!(bob.finish().0, Some(0));
}

#[test]
fn rooms_json_and_texts_that_would_steer_a_terminal() {
    let server = Server::start(TWO_WORKERS);
    let url = url(&server);
    let mut bob = Talker::connected(&[&url, "--user", "bob", "--room", "tea"]);
    let mut zoe = Talker::connected(&[&url, "--user", "zoe", "--room", "tea,milk", "--json"]);
    wait::until("all are in the room", || {
        let mut eve = server.client().login("eve");
        eve.result("join", json!({"room": "tea"}))["count"] == 3
    });
    bob.say("a\u{1b}[2Jb");
    let message: Json = serde_json::from_str(&zoe.line()).expect("JSON");
    assert_eq!(message["body"]["text"], "a\u{1b}[2Jb");
    assert_eq!((&message["from"]["user"], &message["to"]["room"]), (&json!("bob"), &json!("tea")));
    zoe.say("c\u{1b}[2Jd");
    assert_eq!(bob.message(), "#tea zoe: c\\u{1b}[2Jd");
}

#[test]
fn what_was_typed_while_the_server_was_down_is_sent_once_when_it_is_back() {
    let mut server = Server::start("[server]\nworkers = 2\nstop_timeout = \"5s\"");
    // To herself, so that nobody else has to be back before her.
    let mut ann = Talker::connected(&[&url(&server), "--user", "ann", "--to", "ann"]);
    ann.say("before");
    assert_eq!(ann.message(), "→ ann ann: before");
    for round in 0..2 {
        server.signal("TERM");
        assert!(server.wait_end().success());
        ann.wait_said("the server is stopping (1001); coming back in");
        ann.say(&format!("meanwhile {round}"));
        ann.say(&format!("and then {round}"));
        server = server.start_again_for_its_clients();
        ann.wait_said("connected as ann");
        assert_eq!(ann.message(), format!("→ ann ann: meanwhile {round}"));
        assert_eq!(ann.message(), format!("→ ann ann: and then {round}"));
    }
    ann.say("after");
    assert_eq!(ann.message(), "→ ann ann: after", "nothing came twice");
    let (code, printed, _) = ann.finish();
    assert_eq!((code, printed), (Some(0), vec![]));
}

#[test]
fn a_long_input_arrives_whole_and_in_order_over_killed_workers() {
    const LINES: usize = 2_000;
    let server = Server::start("[server]\nworkers = 2\n[im]\nrequest_rate = 0\nsend_rate = 0");
    let mut bob = server.client().login("bob");
    let spared = server.worker_of(&mut bob);
    let mut ann = Talker::connected(&[&url(&server), "--user", "ann", "--to", "bob"]);
    let mut ids = Vec::new();
    let mut bodies = Vec::new();
    let mut take = |bob: &mut crate::support::Client, bodies: &mut Vec<Json>| {
        let message = bob.notification("message");
        // A retry of what nobody can tell whether it had left comes under the same id.
        if !ids.contains(&message["id"]) {
            ids.push(message["id"].clone());
            bodies.push(message["body"]["text"].clone());
        }
    };
    for line in 0..LINES {
        ann.say(&line.to_string());
        if line % 500 == 250 {
            process::signal("KILL", server.status().worker_pid(1 - spared));
        }
    }
    let expected: Vec<Json> = (0..LINES).map(|line| json!(line.to_string())).collect();
    while bodies.len() < LINES {
        take(&mut bob, &mut bodies);
    }
    assert_eq!(bodies, expected);
    let (code, _, said) = ann.finish();
    assert_eq!(code, Some(0), "{said:?}");
}

#[test]
fn what_is_not_sent_is_said_and_the_exit_code_says_it_too() {
    let server = Server::start("[server]\nworkers = 1\n[im]\nmax_body = \"1KiB\"");
    let mut ann = Talker::connected(&[&url(&server), "--user", "ann", "--to", "ann"]);
    ann.say(&"x".repeat(2_000));
    ann.say("");
    ann.say("short");
    assert_eq!(ann.message(), "→ ann ann: short");
    ann.wait_said("was not sent");
    let (code, printed, said) = ann.finish();
    assert_eq!((code, printed), (Some(1), vec![]));
    assert_eq!(said, ["dunlin: 1 line was not sent"]);
}

#[test]
fn without_a_target_it_listens_and_leaves_its_input_alone() {
    let server = Server::start("[server]\nworkers = 1");
    let mut bob = Talker::connected(&[&url(&server), "--user", "bob"]);
    let mut ann = server.client().login("ann");
    assert_eq!(ann.send_to("bob", &json!([1, "x"]))["sessions"], 1);
    assert_eq!(bob.message(), "ann: [1,\"x\"]");
    // Replaced by a newer login of its own device it ends, and says so.
    let bob = Talker::connected(&[&url(&server), "--user", "zoe", "--device", "d"]);
    server.client().log_in("zoe", "d");
    let (code, _, said) = bob.finish();
    assert_eq!(code, Some(1));
    assert!(said[0].contains("4510"), "{said:?}");
}

#[test]
fn refusals_are_one_line_and_an_exit_code() {
    let server = Server::start("[server]\nworkers = 1\n[table]\nmax_sessions = 1");
    let _taken = server.client();
    let url = url(&server);
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let closed = format!("ws://{}", closed.expect("an address"));
    let other_path = format!("{url}/elsewhere");
    let empty = server.dir().path().join("empty");
    fs::write(&empty, "\n").expect("a file");
    let empty = empty.to_str().expect("UTF-8");
    let nobody = server.dir().path().to_str().expect("UTF-8");
    let long = "x".repeat(65);
    for (words, code, said) in [
        (
            vec![url.as_str(), "--user", "ann"],
            1,
            "the server is full or stopping (HTTP 503): try again in",
        ),
        (vec![&other_path, "--user", "ann"], 1, "refuses with HTTP 404"),
        (vec![&closed, "--user", "ann"], 3, "no server answers at"),
        (vec!["--run-dir", nobody, "--user", "ann"], 3, "no server is running in"),
        (vec!["http://h", "--user", "ann"], 2, "is no URL such as"),
        (vec![&url, "--user", ""], 2, "--user is no name"),
        (vec![&url, "--user", "ann", "--room", &long], 2, "--room is no name"),
        (vec![&url, "--token-file", "missing"], 2, "cannot read the token in missing"),
        (vec![&url, "--token-file", empty], 2, "has no token"),
    ] {
        let ended = process::run(dunlin().arg("chat").args(&words));
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        assert!(ended.stderr.starts_with("dunlin: ") && ended.stderr.contains(said), "{ended:?}");
    }
}

#[test]
fn a_token_logs_in_and_a_wrong_one_is_refused_in_a_line() {
    let server = Server::configure(
        "[server]\nworkers = 2\n[auth]\nmode = \"token\"\nsecret_file = \"token.key\"\n",
    );
    server.dir().write_key("token.key", "0123456789abcdef0123456789abcdef", 0o600);
    let server = server.start();
    let token = mint(server.dir(), &["--user", "ann"]);
    let file = server.dir().path().join("token");
    fs::write(&file, format!("{token}\n")).expect("a file");
    let file = file.to_str().expect("UTF-8");
    let url = url(&server);
    let mut ann = Talker::connected(&[&url, "--token-file", file, "--to", "ann"]);
    ann.say("tea?");
    assert_eq!(ann.message(), "→ ann ann: tea?");
    assert_eq!(ann.finish().0, Some(0));
    for (words, said) in [
        (vec![url.as_str(), "--token", "a.b.c"], "(auth_failed)"),
        (vec![&url, "--token", token.trim(), "--user", "bob"], "knows this token as \"ann\""),
        (vec![&url, "--user", "ann"], "the login was refused"),
    ] {
        let ended = process::run(dunlin().arg("chat").args(&words));
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let last = ended.stderr.lines().last().unwrap_or_default();
        assert!(last.contains(said) && !last.contains(token.trim()), "{ended:?}");
    }
}
