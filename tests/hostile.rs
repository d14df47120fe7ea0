//! Slow, silent and hostile clients: each meets a bound that has a name, and nobody else notices.

use crate::support::http::Http;
use crate::support::raw::{GOES_ON, PING, Raw, TEXT, TEXT_GOES_ON, frame};
use crate::support::{Server, process, wait};
use dunlin_server::logging::PEER_LINES_PER_SECOND;
use serde_json::json;
use std::time::{Duration, Instant};

const MESSAGE_TIMEOUT: Duration = Duration::from_secs(1);
/// How late a close may come on a busy machine.
const LATE: Duration = Duration::from_millis(2_500);
const SLOW_MESSAGE: &str = "[server]\nworkers = 1\n[websocket]\nmessage_timeout = \"1s\"\n";

/// What a worker counted.
fn count(server: &Server, name: &str) -> u64 {
    server.status().number(&format!("/workers/0/{name}"))
}

fn expect_message_timeout(client: &mut Raw, began: Instant) {
    assert_eq!(client.close_code(), 1008);
    let took = began.elapsed();
    assert!(took >= MESSAGE_TIMEOUT - Duration::from_millis(20), "early: {took:?}");
    assert!(took < MESSAGE_TIMEOUT + LATE, "late: {took:?}");
}

#[test]
fn what_is_begun_and_not_ended_is_closed_with_1008() {
    let server = Server::start(SLOW_MESSAGE);
    let hello = frame(TEXT, b"{}");
    let begun = [
        // Half a header, a header alone, half a payload, half a ping, half a message.
        hello[..1].to_vec(),
        hello[..6].to_vec(),
        hello[..7].to_vec(),
        frame(PING, b"life")[..8].to_vec(),
        frame(TEXT_GOES_ON, b"{"),
        // A message and a ping that were whole do not hide the one that is not.
        [hello.clone(), frame(PING, b""), hello[..3].to_vec()].concat(),
    ];
    let began = Instant::now();
    let mut clients: Vec<Raw> = begun
        .iter()
        .map(|bytes| {
            let mut client = Raw::connect(server.address);
            client.send(bytes);
            client
        })
        .collect();
    for client in &mut clients {
        expect_message_timeout(client, began);
    }
    assert_eq!(count(&server, "message_timeouts"), 6);
    server.wait_until("nothing is left", |status| {
        let [all, free] = ["pool_blocks", "pool_blocks_free"]
            .map(|name| status.number(&format!("/sessions/{name}")));
        status.number("/sessions/used") == 0 && all == free
    });
}

#[test]
fn a_message_that_never_ends_is_closed_however_busy_it_is() {
    let server = Server::start(SLOW_MESSAGE);
    let mut endless = Raw::connect(server.address);
    let mut trickle = Raw::connect(server.address);
    let began = Instant::now();
    endless.send(frame(TEXT_GOES_ON, b""));
    trickle.send([TEXT, 0xfe, 0xff, 0xff, 0, 0, 0, 0]);
    wait::holds_for("both send", MESSAGE_TIMEOUT - Duration::from_millis(100), || {
        // Empty fragments, pings between them; a frame that comes byte by byte.
        endless.send([frame(GOES_ON, b""), frame(PING, b"")].concat().repeat(10));
        trickle.send(b" ");
        true
    });
    expect_message_timeout(&mut endless, began);
    expect_message_timeout(&mut trickle, began);
}

#[test]
fn messages_that_follow_each_other_have_each_their_own_time() {
    let server = Server::start(SLOW_MESSAGE);
    let mut client = Raw::connect(server.address);
    let message = frame(TEXT, br#"{"method":"ping","id":1}"#);
    let (front, back) = message.split_at(9);
    client.send(front);
    // There is always one half received, but never the same for long.
    wait::holds_for("it lives", MESSAGE_TIMEOUT * 2, || {
        client.send([back, front].concat());
        client.frame().is_some_and(|frame| frame.opcode == 1)
    });
    assert_eq!(count(&server, "message_timeouts"), 0);
}

#[test]
fn the_time_of_a_message_goes_on_over_a_reload_and_a_kill() {
    let server = Server::start(SLOW_MESSAGE);
    let begin = || {
        let mut clients = [Raw::connect(server.address), Raw::connect(server.address)];
        let began = Instant::now();
        clients[0].send(&frame(TEXT, b"{}")[..1]);
        clients[1].send(frame(TEXT_GOES_ON, b"{"));
        // Whoever is being served at a kill is closed for that.
        wait::holds_for("nothing happens", Duration::from_millis(400), || true);
        (clients, began)
    };
    let (mut clients, began) = begin();
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    clients.iter_mut().for_each(|client| expect_message_timeout(client, began));

    let (mut clients, began) = begin();
    process::signal("KILL", server.status().worker_pid(0));
    clients.iter_mut().for_each(|client| expect_message_timeout(client, began));
    assert_eq!(count(&server, "message_timeouts"), 4);
}

#[test]
fn who_answers_no_ping_is_dead() {
    let server = Server::start("[server]\nworkers = 1\n[websocket]\nping_interval = \"400ms\"\n");
    let mut dead = Raw::connect(server.address);
    let began = Instant::now();
    loop {
        let frame = dead.frame().expect("a ping");
        if frame.opcode == 9 {
            break;
        }
    }
    let pinged = began.elapsed();
    assert!(pinged >= Duration::from_millis(350), "{pinged:?}");
    assert_eq!(dead.close_code(), 1001);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(750) && took < LATE, "{took:?}");
    assert_eq!(count(&server, "dead_closed"), 1);
    // Who answers, even by a message only, lives.
    let mut other = server.client().login("ann");
    wait::holds_for("the other lives", Duration::from_millis(1_200), || other.is_open());
    assert_eq!(count(&server, "dead_closed"), 1);
}

#[test]
fn output_that_nobody_takes_ends_by_tcp_user_timeout() {
    let server = Server::start(
        "[server]\nworkers = 1\ntcp_user_timeout = \"500ms\"\n\
         [websocket]\nping_interval = \"0s\"\nsend_buffer = \"256MiB\"\n\
         send_buffer_total = \"512MiB\"\n",
    );
    let silent = server.client().login("silent");
    let mut talker = server.client().login("talker");
    let body = json!("x".repeat(60_000));
    wait::until("the kernel gives up", || {
        // Its kernel's buffers are full at some time; until then all is acknowledged.
        let _ = talker.call("send", json!({"to": {"user": "silent"}, "body": body}));
        count(&server, "dead_closed") == 1
    });
    assert!(!talker.sees_online("silent"));
    assert_eq!(count(&server, "slow_closed"), 0, "it was not the send buffer");
    drop(silent);
}

#[test]
fn pings_of_a_client_that_does_not_read_cost_one_answer() {
    let server = Server::start("[server]\nworkers = 1\n");
    let mut client = Raw::connect(server.address);
    let mut sent = 0_u64;
    let payload = |number: u64| format!("{number:0>125}").into_bytes();
    wait::until("an answer is left out", || {
        for _ in 0..2_000 {
            sent += 1;
            client.send(frame(PING, &payload(sent)));
        }
        count(&server, "pongs_skipped") > 0
    });
    // One write may have been refused in the middle: that is all there is.
    let unsent = count(&server, "unsent_bytes");
    assert!(unsent < 64 << 10, "{unsent} bytes of output");
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    for _ in 0..2_000 {
        sent += 1;
        client.send(frame(PING, &payload(sent)));
    }
    // Read to the last one: its answer comes, and they come in order.
    let mut last = 0;
    while last < sent {
        let frame = client.frame().expect("the last pong");
        if frame.opcode == 10 {
            let number: u64 = String::from_utf8_lossy(&frame.payload).parse().expect("a number");
            assert!(number > last, "{number} after {last}");
            last = number;
        }
    }
}

#[test]
fn ten_pings_in_a_row_are_ten_pongs() {
    let server = Server::start("[server]\nworkers = 1\n");
    let mut client = Raw::connect(server.address);
    client.send((0..10).flat_map(|number| frame(PING, &[number])).collect::<Vec<u8>>());
    let mut pongs = Vec::new();
    while pongs.len() < 10 {
        let frame = client.frame().expect("a pong");
        if frame.opcode == 10 {
            pongs.extend(frame.payload);
        }
    }
    assert_eq!(pongs, (0..10).collect::<Vec<u8>>());
}

/// So many requests in one piece, numbered from 1.
fn requests(count: usize) -> Vec<u8> {
    (1..=count)
        .flat_map(|id| frame(TEXT, format!("{{\"method\":\"ping\",\"id\":{id}}}").as_bytes()))
        .collect()
}

/// Reads so many answers, in their order.
fn expect_answers(client: &mut Raw, count: usize) {
    let mut expected = 1;
    while expected <= count {
        let frame = client.frame().expect("an answer");
        let object: serde_json::Value = serde_json::from_slice(&frame.payload).expect("JSON");
        if object["method"].is_null() {
            assert_eq!(object["id"], expected, "{object}");
            expected += 1;
        }
    }
}

#[test]
fn a_busy_client_is_served_in_shares_and_loses_nothing() {
    let server = Server::start("[server]\nworkers = 1\n[websocket]\nframes_per_turn = 4\n");
    let mut busy = Raw::connect(server.address);
    busy.send(requests(1_000));
    let mut quiet = server.client().login("quiet");
    quiet.result("ping", json!({}));
    expect_answers(&mut busy, 1_000);
    let turns = count(&server, "turns_full");
    assert!(turns >= 200, "{turns} turns");
    // Frames that come in one piece with the upgrade are no exception, nor are plain requests.
    let mut early = Raw::over(Http::connect(server.address));
    early.send([crate::im::upgrade_request("/ws").as_bytes(), &requests(100)].concat());
    assert_eq!(early.http.head().status, 101);
    expect_answers(&mut early, 100);
    let before = count(&server, "turns_full");
    let mut plain = Http::connect(server.address);
    plain.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3_000));
    for _ in 0..3_000 {
        assert_eq!(plain.answer().status, 200);
    }
    assert!(count(&server, "turns_full") > before);
    // Nor is who has ended his half: what he asked before is answered.
    let mut ended = Http::connect(server.address);
    ended.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100));
    ended.end_output();
    for _ in 0..100 {
        assert_eq!(ended.answer().status, 200);
    }
}

#[test]
fn what_waits_for_its_turn_survives_a_reload() {
    let server = Server::start("[server]\nworkers = 1\n[websocket]\nframes_per_turn = 1\n");
    let mut clients: Vec<Raw> = (0..8).map(|_| Raw::connect(server.address)).collect();
    for client in &mut clients {
        client.send(requests(2_000));
    }
    let mut plain = Http::connect(server.address);
    plain.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1_500));
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    // All of them were being served when the worker was replaced, or the test shows nothing.
    let answered = count(&server, "messages_out");
    assert!(answered < 16_000, "{answered}");
    for client in &mut clients {
        expect_answers(client, 2_000);
    }
    for _ in 0..1_500 {
        assert_eq!(plain.answer().status, 200);
    }
}

#[test]
fn a_hostile_client_costs_a_line_of_log_and_many_cost_few() {
    let server = Server::start("[server]\nworkers = 1\n");
    let offend = || {
        let mut client = Raw::connect(server.address);
        // Unmasked frames.
        for _ in 0..100 {
            client.send([TEXT, 1, b'x']);
        }
        assert_eq!(client.close_code(), 1002);
    };
    let lines = || -> Vec<String> {
        let log = server.dir().log();
        let about = log.lines().filter(|line| line.contains("breaks the protocol"));
        about.map(ToOwned::to_owned).collect()
    };
    offend();
    assert_eq!(lines().len(), 1);
    let began = Instant::now();
    (0..60).for_each(|_| offend());
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("a few") + 2;
    assert!(lines().len() <= PEER_LINES_PER_SECOND as usize * seconds, "{:#?}", lines());
    wait::until("a line that says how many were left out", || {
        offend();
        lines().iter().any(|line| line.contains("suppressed="))
    });
    let told = |line: &String| -> usize {
        let count = line.split("suppressed=").nth(1).and_then(|rest| rest.split(' ').next());
        1 + count.map_or(0, |count| count.parse().expect("a number"))
    };
    let all: usize = lines().iter().map(told).sum();
    let violations = count(&server, "violations");
    assert!(all as u64 <= violations && all >= 60, "{all} told of {violations}");
}
