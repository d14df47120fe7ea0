//! Upgrades and requests that are refused, answered later, or answered by a panic.

use crate::client::{Client, Raw, frame, upgrade};
use crate::runner::tests;
use crate::server::{Server, wait_until};
use nix::sys::signal::Signal;
use std::net::Shutdown;
use tungstenite::WebSocket;
use tungstenite::protocol::Role;

tests![
    a_handshake_is_refused,
    a_handshake_is_answered_later,
    fragments_behind_a_handshake_are_one_message,
    a_handshake_that_nobody_answers,
    a_subprotocol_is_chosen,
    a_request_is_answered_after_a_reload,
    a_request_that_is_half_read_crosses_a_reload,
    a_handshake_is_answered_after_a_reload,
    what_was_asked_before_a_half_close_is_answered,
    a_panic_closes_one_connection,
    panics_elsewhere_cost_one_client,
];

fn a_handshake_is_refused() {
    let server = Server::start(&[]);
    let response = upgrade(server.address, "/refuse", &[]).expect_err("refused");
    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()["X-Why"], "closed");
    assert!(server.calls("open").is_empty());
    assert_eq!(server.status()["sessions"]["used"], 0);
}

fn a_handshake_is_answered_later() {
    let server = Server::start(&[]);
    let mut waiting = Raw::connect(server.address);
    waiting.ask_upgrade("/later");
    let id = server.wait_call("handshake", "/later").word(0).to_owned();
    let mut other = server.client();
    assert_eq!(other.ask(&format!("accept {id}")), "true");
    let (status, head, _) = waiting.hear();
    assert_eq!(status, 101);
    assert!(head.contains("X-Answered: later"), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "RFC 6455's own example: {head}");
    let mut client = waiting.into_client();
    assert_eq!(client.ask("echo tea"), "tea");
    assert_eq!(other.ask(&format!("accept {id}")), "false", "once");
}

/// A long frame of a client's, masked with zeros.
fn long_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | 127];
    frame.extend((payload.len() as u64).to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

fn fragments_behind_a_handshake_are_one_message() {
    let server = Server::start(&[]);
    let mut waiting = Raw::connect(server.address);
    waiting.ask_upgrade("/later");
    let id = server.wait_call("handshake", "/later").word(0).to_owned();
    let mut other = server.client();
    let came = || server.status()["workers"][0]["bytes_in"].as_u64().expect("a number");
    let before = came();
    // Nothing of it is served before the answer, so both frames lie whole in one buffer then.
    let first = "a".repeat((64 << 10) - "echo ".len());
    waiting.write(long_frame(0x01, format!("echo {first}").as_bytes()));
    waiting.write(frame(true, 0, b"END"));
    wait_until("all of it is read", || came() == before + (64 << 10) + 14 + 9);
    assert_eq!(other.ask(&format!("accept {id}")), "true");
    assert_eq!(waiting.hear().0, 101);
    let mut socket =
        WebSocket::from_partially_read(waiting.stream, waiting.heard, Role::Client, None);
    let heard = socket.read().expect("the answer").into_text().expect("a text");
    assert!(heard.as_str() == format!("{first}END"), "{} bytes", heard.len());
    let mut client = Client::over(socket);
    client.write_raw(&frame(false, 1, b"echo second"));
    client.write_raw(&frame(true, 0, b"-whole"));
    assert_eq!(client.hear_text(), "second-whole");
}

fn a_handshake_that_nobody_answers() {
    let server = Server::start(&[("websocket.handshake_timeout", "300ms")]);
    let mut waiting = Raw::connect(server.address);
    waiting.ask_upgrade("/later");
    let id = server.wait_call("handshake", "/later").word(0).to_owned();
    assert_eq!(waiting.hear().0, 503);
    assert_eq!(server.client().ask(&format!("accept {id}")), "false", "its client is gone");
}

fn a_subprotocol_is_chosen() {
    let server = Server::start(&[]);
    let offered = [("Sec-WebSocket-Protocol", "tea, coffee")];
    let (socket, response) = upgrade(server.address, "/protocol", &offered).expect("accepted");
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "coffee");
    let mut client = Client::over(socket);
    let id = client.id.clone();
    assert!(server.wait_call("open", &id).arguments.ends_with("[\"tea\", \"coffee\"]"));
    let info = client.ask(&format!("info {id}"));
    assert!(info.contains("subprotocol: \"coffee\""), "{info}");
    server.reload(Signal::SIGUSR1);
    let info = client.ask(&format!("info {id}"));
    assert!(info.contains("subprotocol: \"coffee\""), "kept over a reload: {info}");
}

fn a_request_is_answered_after_a_reload() {
    let server = Server::start(&[]);
    let mut waiting = Raw::connect(server.address);
    waiting.get("/later");
    // Pipelined behind it, and half of a third: all of it travels.
    waiting.get("/now");
    std::io::Write::write_all(&mut waiting.stream, b"GET /now HTTP/1.1\r\nHo").expect("taken");
    let id = server.wait_call("request", "/later").word(0).to_owned();
    let mut other = server.client();
    let report = server.reload(Signal::SIGUSR1);
    assert_eq!(report["ok"], true);
    assert_eq!(other.ask(&format!("respond {id} here you are")), "true");
    let (status, _, body) = waiting.hear();
    assert_eq!((status, body.as_str()), (200, "here you are"));
    assert_eq!(waiting.hear().2, "at once");
    std::io::Write::write_all(&mut waiting.stream, b"st: dunlin\r\n\r\n").expect("taken");
    assert_eq!(waiting.hear().2, "at once");
    assert_eq!(server.calls("request").len(), 3, "each once");
}

fn a_request_that_is_half_read_crosses_a_reload() {
    let server = Server::start(&[]);
    let (mut cut, mut asks) = (Raw::connect(server.address), Raw::connect(server.address));
    cut.write("GET /now HTTP/1.1\r\nHos");
    asks.write(
        "POST /now HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(asks.hear().0, 100);
    wait_until("both are read", || server.status()["workers"][0]["bytes_in"] == 94);
    assert_eq!(server.reload(Signal::SIGUSR1)["ok"], true);
    cut.write("t: d\r\n\r\n");
    assert_eq!(cut.hear().0, 200);
    // In two pieces, so that it is looked at again before it is whole: it is told to go on once.
    asks.write("a");
    wait_until("the first piece is read", || server.status()["workers"][0]["bytes_in"] == 103);
    asks.write("bc");
    assert_eq!(asks.hear().0, 200);
}

fn a_handshake_is_answered_after_a_reload() {
    let server = Server::start(&[]);
    let mut waiting = Raw::connect(server.address);
    waiting.ask_upgrade("/later");
    let id = server.wait_call("handshake", "/later").word(0).to_owned();
    server.reload(Signal::SIGUSR1);
    let mut other = server.client();
    assert_eq!(other.ask(&format!("accept {id}")), "true");
    assert_eq!(waiting.hear().0, 101);
    let mut client = waiting.into_client();
    assert_eq!(client.ask("echo tea"), "tea");
    assert!(server.wait_call("open", &client.id).arguments.contains("/later"));
}

fn what_was_asked_before_a_half_close_is_answered() {
    let server = Server::start(&[]);
    let mut waiting = Raw::connect(server.address);
    for path in ["/later", "/now", "/later", "/now"] {
        waiting.get(path);
    }
    waiting.stream.shutdown(Shutdown::Write).expect("half of it is closed");
    let mut other = server.client();
    for round in 0..2 {
        wait_until("the request", || server.calls("request").len() == 2 * round + 1);
        let id = server.calls("request")[2 * round].word(0).to_owned();
        assert_eq!(other.ask(&format!("respond {id} here")), "true");
        assert_eq!(waiting.hear().2, "here");
        let (_, head, body) = waiting.hear();
        assert_eq!(body, "at once");
        assert_eq!(head.contains("Connection: close"), round == 1, "the last one: {head}");
    }
    assert!(waiting.is_ended());
}

fn a_panic_closes_one_connection() {
    let server = Server::start(&[]);
    let (mut unlucky, mut neighbour) = (server.client(), server.client());
    unlucky.say("panic");
    assert_eq!(unlucky.hear_close(), (1011, "internal error".into()));
    let close = server.wait_call("close", &unlucky.id);
    assert_eq!(close.arguments, format!("{} 1011 \"internal error\" Server", unlucky.id));
    assert_eq!(neighbour.ask("echo tea"), "tea");
    assert_eq!(neighbour.who().2, unlucky.pid, "the worker lives");
    let status = server.wait_status("the count", |status| status["workers"][0]["hook_panics"] == 1);
    assert_eq!(
        (&status["workers"][0]["restarts"], &status["sessions"]["used"]),
        (&0.into(), &1.into())
    );
}

fn panics_elsewhere_cost_one_client() {
    let server = Server::start(&[]);
    let response = upgrade(server.address, "/panic", &[]).expect_err("a panic in handshake");
    assert_eq!(response.status(), 500);
    let mut raw = Raw::connect(server.address);
    raw.get("/panic");
    assert_eq!(raw.hear().0, 500);
    raw.get("/now");
    assert_eq!(raw.hear().0, 200, "the connection goes on");
    let (mut socket, _) = upgrade(server.address, "/panic_in_open", &[]).expect("accepted");
    let closed = socket.read().expect("a close frame");
    let tungstenite::Message::Close(Some(frame)) = closed else { panic!("{closed:?}") };
    assert_eq!(u16::from(frame.code), 1011);
    assert_eq!(socket.close(None).ok(), Some(()));
    server.wait_call("close", "1011");
    server.wait_status("the count", |status| status["workers"][0]["hook_panics"] == 3);
    assert_eq!(server.client().ask("echo tea"), "tea");
}
