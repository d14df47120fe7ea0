//! The control socket, spoken to by hand: one request, one answer, the end.

use crate::support::{Server, wait};
use serde_json::{Value as Json, json};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

fn connect(server: &Server) -> UnixStream {
    let stream = UnixStream::connect(server.run_dir().join("control.sock")).expect("the socket");
    stream.set_read_timeout(Some(wait::DEADLINE)).expect("a socket option");
    stream
}

/// All that is answered to these bytes.
fn ask(server: &Server, bytes: &[u8]) -> String {
    let mut stream = connect(server);
    // The server may hang up before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn ask_object(server: &Server, request: &Json) -> Json {
    let answer = ask(server, format!("{request}\n").as_bytes());
    assert_eq!(answer.lines().count(), 1, "one line: {answer:?}");
    serde_json::from_str(&answer).expect("one JSON object")
}

#[test]
fn each_request_gets_one_answer() {
    let server = Server::start("[server]\nworkers = 2");
    let status = ask_object(&server, &json!({"verb": "status"}));
    assert_eq!((&status["ok"], &status["result"]["pid"]), (&json!(true), &json!(server.pid)));
    let reload = ask_object(&server, &json!({"verb": "reload"}));
    assert_eq!((&reload["ok"], &reload["result"]["ok"]), (&json!(true), &json!(true)));
    // A second request on the same connection is not read.
    let twice = ask(&server, b"{\"verb\":\"status\"}\n{\"verb\":\"status\"}\n");
    assert!(twice.lines().count() <= 1, "{twice:?}");
}

#[test]
fn a_request_may_come_in_pieces_and_end_with_the_half_close() {
    let server = Server::start("[server]\nworkers = 1");
    let mut stream = connect(&server);
    stream.write_all(b"{\"verb\":").expect("bytes are sent");
    assert_eq!(server.status().ready_workers(), 1, "the master does not wait for the rest");
    stream.write_all(b"\"status\"}").expect("bytes are sent");
    stream.shutdown(Shutdown::Write).expect("a half-close");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let answer: Json = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["ok"], true);
}

#[test]
fn garbage_is_refused_and_disturbs_nobody() {
    let server = Server::start("[server]\nworkers = 1");
    let long = format!("{{\"verb\":\"{}\"}}\n", "x".repeat(100_000));
    let endless = "x".repeat(100_000);
    for bytes in [
        &b"\n"[..],
        b"hello\n",
        b"{}\n",
        b"[]\n",
        b"{\"verb\":\"dance\"}\n",
        b"{\"verb\":7}\n",
        b"{\"verb\":\"reload\",\"tasks\":\"yes\"}\n",
        b"{\"verb\":\"drain\"}\n",
        b"\xff\xfe\x00\n",
        long.as_bytes(),
        endless.as_bytes(),
        "[".repeat(10_000).as_bytes(),
        b"",
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        let mut stream = connect(&server);
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        // What is over the bound may be hung up on.
        if answer.is_empty() && bytes.len() > 16 << 10 {
            continue;
        }
        let answer: Json = serde_json::from_str(&answer)
            .unwrap_or_else(|error| panic!("{shown:?}: {error}: {answer:?}"));
        assert_eq!(answer["ok"], false, "{shown:?}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{shown:?}");
    }
    assert_eq!(server.status().number("/reloads/asked"), 0);
}

#[test]
fn many_who_connect_and_say_nothing_keep_nobody_from_asking() {
    let server = Server::start("[server]\nworkers = 1");
    let _silent: Vec<_> = (0..40).map(|_| connect(&server)).collect();
    assert_eq!(ask_object(&server, &json!({"verb": "status"}))["ok"], true);
}

#[test]
fn the_verb_stop_on_the_socket_stops() {
    let mut server = Server::start("[server]\nworkers = 1");
    assert_eq!(ask_object(&server, &json!({"verb": "stop"}))["ok"], true);
    assert_eq!(server.wait_end().code(), Some(0));
}
