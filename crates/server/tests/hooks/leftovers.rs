//! What a worker lays down for its successor: all of it arrives, or the worker goes on.

use crate::client::{Client, Heard, Raw};
use crate::order::slow_client;
use crate::runner::tests;
use crate::server::Server;
use nix::sys::signal::Signal;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

tests![hundreds_of_megabytes_cross_a_reload, a_worker_that_cannot_lay_down_goes_on,];

/// Messages of a MiB that a client has before it in the first test: of five clients more than 256 MiB.
const MESSAGES: usize = 58;

fn hundreds_of_megabytes_cross_a_reload() {
    let server = Server::start(&[
        ("server.workers", "1"),
        ("websocket.send_buffer", "64MiB"),
        ("websocket.send_buffer_total", "512MiB"),
    ]);
    let mut sender = server.client();
    let mut slow: Vec<Client> = (0..5).map(|_| slow_client(&server)).collect();
    for client in &slow {
        let answer = sender.ask(&format!("flood {} {MESSAGES} 1048576", client.id));
        assert_eq!(answer, format!("{MESSAGES} taken"));
    }
    let mut waiting = Raw::connect(server.address);
    let body = "b".repeat(5_000);
    let head = format!("POST /later HTTP/1.1\r\nHost: dunlin\r\nContent-Length: {}\r\n\r\n", 5_000);
    waiting.write(format!("{head}{body}GET /now HTTP/1.1\r\nHost: dunlin\r\n\r\n"));
    let id = server.wait_call("request", "/later").word(0).to_owned();
    server.wait_status("most of it unsent", |status| {
        status["workers"][0]["unsent_bytes"].as_u64() > Some(257 << 20)
    });
    let report = server.reload(Signal::SIGUSR1);
    assert_eq!((&report["ok"], &report["dropped"]), (&true.into(), &0.into()), "{report}");
    assert_eq!(sender.ask(&format!("respond {id} here you are")), "true");
    assert_eq!((waiting.hear().2, waiting.hear().2), ("here you are".into(), "at once".into()));
    for client in &mut slow {
        assert_eq!(sender.ask(&format!("push {} the end", client.id)), "Ok(())");
        for number in 0..MESSAGES {
            let Heard::Binary(bytes) = client.hear() else { panic!("message {number}") };
            assert!(bytes.len() == 1 << 20 && bytes.iter().all(|byte| *byte == b'x'), "{number}");
        }
        assert_eq!(client.hear_text(), "the end", "in order");
    }
}

/// Out of descriptors in the one process that rests, for as long as a reload takes.
fn a_worker_that_cannot_lay_down_goes_on() {
    let server = Server::start(&[("server.workers", "1"), ("server.handover_timeout", "60s")]);
    let mut client = server.client();
    let mut waiting = Raw::connect(server.address);
    waiting.get("/later");
    let id = server.wait_call("request", "/later").word(0).to_owned();
    let worker = client.pid;
    let limit_descriptors = |soft: &str| {
        let done = Command::new("prlimit")
            .args(["--pid", &worker.to_string(), &format!("--nofile={soft}:")])
            .status();
        assert!(done.expect("prlimit runs").success());
    };
    let before = server.descriptors();
    limit_descriptors("3");
    let began = Instant::now();
    let report = server.reload(Signal::SIGUSR1);
    limit_descriptors("1024");
    assert!(began.elapsed() < Duration::from_secs(5), "told at once, not by a timeout");
    assert_eq!(report["ok"], false);
    let sentence = report["error"].as_str().expect("a sentence");
    assert!(sentence.contains("what is left cannot be written"), "{sentence}");
    assert_eq!((client.ask("echo on"), client.who().2), ("on".into(), worker), "it serves");
    assert_eq!(client.ask(&format!("respond {id} here you are")), "true");
    assert_eq!(waiting.hear().2, "here you are");
    server.wait_descriptors(&before);
    assert_eq!(server.reload(Signal::SIGUSR1)["ok"], true, "with descriptors it rests");
    waiting.stream.write_all(b"GET /now HTTP/1.1\r\nHost: dunlin\r\n\r\n").expect("taken");
    assert_eq!(waiting.hear().2, "at once");
}
