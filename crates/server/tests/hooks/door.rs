//! Who is let in: connections of one address, and how fast they come, over all workers and their
//! replacements.

use crate::client::{Raw, frame};
use crate::runner::tests;
use crate::server::{PATIENCE, Server, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value as Json;
use socket2::{Domain, Socket, Type};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

tests![
    an_address_has_so_many_connections_and_no_more,
    no_reload_and_no_death_loses_count,
    an_address_that_opens_too_fast_is_refused,
    an_accept_rate_makes_everybody_wait,
    plain_answers_that_nobody_reads_end,
    an_address_holds_its_share_of_the_pool_and_no_more,
    beginnings_of_messages_find_room_in_a_full_pool,
    a_crowd_waits_and_a_siege_is_turned_away,
];

fn a_crowd_waits_and_a_siege_is_turned_away() {
    let server = Server::start(&[("server.workers", "1"), ("http.max_connections", "4")]);
    // More than there are places for, and all are silent before the first one asks.
    let mut crowd: Vec<Raw> = (0..40).map(|_| Raw::connect(server.address)).collect();
    crowd.iter_mut().for_each(|raw| raw.ask_upgrade("/"));
    for raw in &mut crowd {
        assert_eq!(raw.hear().0, 101);
    }
    let siege: Vec<Raw> = (0..4).map(|_| Raw::connect(server.address)).collect();
    server.wait_status("every place is held", |status| sum(status, "accepted") == 44);
    let mut late = Raw::connect(server.address);
    late.ask_upgrade("/");
    assert_eq!(late.hear().0, 503, "nobody gives a place back");
    assert_eq!(sum(&server.status(), "http_refused"), 1);
    drop(siege);
    wait_until("there is room again", || {
        let mut raw = Raw::connect(server.address);
        raw.ask_upgrade("/");
        raw.hear().0 == 101
    });
}

const ANN: Ipv4Addr = Ipv4Addr::LOCALHOST;
const BOB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const MOST: usize = 6;

/// A connection from this address of the machine's own.
fn connect(server: &Server, from: Ipv4Addr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddrV4::new(from, 0).into()).expect("an address of this machine");
    let address: SocketAddr = server.address;
    socket.connect_timeout(&address.into(), PATIENCE).expect("somebody listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.into()
}

/// Asks for an upgrade; the connection if it was given, else the head of the refusal.
fn upgrade(server: &Server, from: Ipv4Addr) -> Result<Raw, String> {
    let mut raw = Raw { stream: connect(server, from), heard: Vec::new() };
    raw.ask_upgrade("/");
    match raw.hear() {
        (101, _, _) => Ok(raw),
        (503, head, _) => Err(head),
        other => panic!("{other:?}"),
    }
}

fn sum(status: &Json, name: &str) -> u64 {
    let workers = status["workers"].as_array().expect("workers");
    workers.iter().map(|worker| worker[name].as_u64().expect("a number")).sum()
}

fn full_house() -> (Server, Vec<Raw>) {
    let most = MOST.to_string();
    let server =
        Server::start(&[("server.workers", "3"), ("server.max_connections_per_ip", &most)]);
    let taken = (0..MOST).map(|_| upgrade(&server, ANN).expect("there is room")).collect();
    (server, taken)
}

/// Exactly the room of those that are closed is free, however often it is tried.
fn expect_full(server: &Server, taken: &mut Vec<Raw>) {
    for _ in 0..10 {
        let head = upgrade(server, ANN).err().expect("the house is full");
        assert!(head.contains("Retry-After: 10"), "{head}");
    }
    upgrade(server, BOB).expect("another address is not concerned");
    drop(taken.pop());
    wait_until("there is room for one", || match upgrade(server, ANN) {
        Ok(raw) => {
            taken.push(raw);
            true
        }
        Err(_) => false,
    });
    upgrade(server, ANN).err().expect("for one");
}

fn an_address_has_so_many_connections_and_no_more() {
    let (server, mut taken) = full_house();
    expect_full(&server, &mut taken);
    let status = server.status();
    assert!(sum(&status, "refused_per_ip") >= 11, "{status}");
    // Connections that are no WebSocket count, too; and all are given back.
    drop(taken);
    server.wait_status("all are gone", |status| sum(status, "connections") == 0);
    let plain: Vec<TcpStream> = (0..MOST).map(|_| connect(&server, ANN)).collect();
    server.wait_status("all are in", |status| sum(status, "connections") == MOST as u64);
    upgrade(&server, ANN).err().expect("the house is full");
    drop(plain);
}

fn no_reload_and_no_death_loses_count() {
    let (server, mut taken) = full_house();
    for _ in 0..2 {
        assert_eq!(server.reload(Signal::SIGUSR1)["ok"], true);
        expect_full(&server, &mut taken);
        for slot in 0..3 {
            server.kill_and_wait(&format!("workers/{slot}"));
        }
        expect_full(&server, &mut taken);
    }
    assert_eq!(taken.len(), MOST);
}

fn an_address_that_opens_too_fast_is_refused() {
    let server = Server::start(&[("server.workers", "2"), ("server.accept_rate_per_ip", "5")]);
    let began = Instant::now();
    let outcomes: Vec<Result<Raw, String>> = (0..40).map(|_| upgrade(&server, ANN)).collect();
    let let_in = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let most = 5 + 5 * (began.elapsed().as_millis() as usize / 1_000 + 1);
    assert!((5..=most).contains(&let_in), "{let_in} of at most {most}");
    assert!(outcomes.iter().flat_map(|o| o.as_ref().err()).all(|h| h.contains("Retry-After: 1")));
    assert_eq!(sum(&server.status(), "refused_rate_per_ip"), 40 - let_in as u64);
    upgrade(&server, BOB).expect("another address is not concerned");
    wait_until("it may come again", || upgrade(&server, ANN).is_ok());
}

fn an_accept_rate_makes_everybody_wait() {
    let server = Server::start(&[("server.workers", "2"), ("server.accept_rate", "20")]);
    let began = Instant::now();
    let all: Vec<TcpStream> = (0..60).map(|_| connect(&server, ANN)).collect();
    let status = server.wait_status("all are in", |status| sum(status, "accepted") == 60);
    // 20 at once, the others at 20 a second.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1_800), "{took:?}");
    assert!(sum(&status, "accept_delayed") > 0 && sum(&status, "http_refused") == 0, "{status}");
    drop(all);
}

fn plain_answers_that_nobody_reads_end() {
    let server = Server::start(&[
        ("websocket.send_buffer", "64KiB"),
        ("websocket.handshake_timeout", "500ms"),
        ("http.max_connections", "4"),
    ]);
    let mut slow: Vec<TcpStream> = (0..4).map(|_| connect(&server, ANN)).collect();
    for stream in &mut slow {
        stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        // Until nobody takes any more of it.
        let request = b"GET /now HTTP/1.1\r\nHost: dunlin\r\n\r\n".repeat(1_000);
        while stream.write_all(&request).is_ok() {}
    }
    let worst = server.status();
    assert!(sum(&worst, "unsent_bytes") <= 4 * (68 << 10), "{worst}");
    server.wait_status("they are cut off", |status| sum(status, "connections") == 0);
    assert!(upgrade(&server, ANN).is_ok());
}

/// A pool of 4096 blocks; an address may hold 1024, and 256 are kept.
const SMALL_POOL: [(&str, &str); 3] = [
    ("table.receive_pool", "4MiB"),
    ("websocket.max_message", "1MiB"),
    ("websocket.receive_share", "25"),
];
const SHARE: u64 = 1_024;
const KEPT: u64 = 256;

fn free_blocks(server: &Server) -> u64 {
    server.status()["sessions"]["pool_blocks_free"].as_u64().expect("a number")
}

/// A text frame of so many bytes that does not end its message; that asks for an echo.
fn unfinished(bytes: u16) -> Vec<u8> {
    let length = bytes.to_be_bytes();
    let head = [0x01, 0xfe, length[0], length[1], 0, 0, 0, 0];
    let payload = b"echo ".iter().copied().chain(std::iter::repeat(b'x'));
    head.into_iter().chain(payload.take(usize::from(bytes))).collect()
}

/// Leaves unfinished messages of 60 KB until no more are taken; gives the connections.
fn fill(server: &Server, from: Ipv4Addr) -> Vec<Raw> {
    let before = sum(&server.status(), "pool_share_full");
    let mut taken = Vec::new();
    while sum(&server.status(), "pool_share_full") == before {
        assert!(taken.len() < 40, "an address may hold {SHARE} blocks");
        let mut raw = upgrade(server, from).expect("there is room");
        let free = free_blocks(server);
        raw.stream.write_all(&unfinished(60_000)).expect("the connection takes it");
        wait_until("it is held or refused", || {
            free_blocks(server) != free || sum(&server.status(), "pool_share_full") > before
        });
        taken.push(raw);
    }
    taken
}

fn an_address_holds_its_share_of_the_pool_and_no_more() {
    let server = Server::start(&[&SMALL_POOL[..], &[("server.workers", "2")]].concat());
    let all = free_blocks(&server);
    for round in 0..2 {
        let greedy = fill(&server, ANN);
        assert_eq!(greedy.len(), 18, "59 blocks each");
        assert!(free_blocks(&server) >= all - SHARE);
        // Another address is not concerned, and of the same one whole messages go on.
        for from in [ANN, BOB] {
            let mut client = upgrade(&server, from).expect("there is room").into_client();
            assert_eq!(client.ask("echo tea"), "tea");
        }
        let mut bob = upgrade(&server, BOB).expect("there is room").into_client();
        bob.write_raw(&unfinished(50_000));
        bob.write_raw(&frame(true, 0, b"end"));
        assert_eq!(bob.hear_text().len(), 50_003 - "echo ".len());
        // Even one in two pieces, if they are short.
        let mut cut = upgrade(&server, ANN).expect("there is room").into_client();
        let whole = frame(true, 1, b"echo cut");
        cut.write_raw(&whole[..3]);
        wait_until("it is held", || free_blocks(&server) < all - SHARE + 60);
        cut.write_raw(&whole[3..]);
        assert_eq!(cut.hear_text(), "cut");
        match round {
            0 => drop(server.reload(Signal::SIGUSR1)),
            _ => drop(server.kill_and_wait("workers/0")),
        }
        upgrade(&server, ANN).expect("there is room");
        drop(greedy);
        wait_until("all is given back", || free_blocks(&server) == all);
    }
    assert_eq!(sum(&server.status(), "pool_full"), 0);
}

fn beginnings_of_messages_find_room_in_a_full_pool() {
    let server = Server::start(&SMALL_POOL);
    let all = free_blocks(&server);
    let held: Vec<Vec<Raw>> =
        (3..6).map(|number| fill(&server, Ipv4Addr::new(127, 0, 0, number))).collect();
    // The fourth address meets what is kept before it has its share.
    let mut last = Vec::new();
    wait_until("the pool is full but for what is kept", || {
        let mut raw = upgrade(&server, BOB).expect("there is room");
        let _ = raw.stream.write_all(&unfinished(60_000));
        last.push(raw);
        sum(&server.status(), "pool_full") > 0
    });
    assert!(free_blocks(&server) >= KEPT - 60, "{} free", free_blocks(&server));
    let mut cut = upgrade(&server, ANN).expect("there is room").into_client();
    cut.write_raw(&frame(true, 1, b"echo cut")[..3]);
    server.wait_quiet();
    cut.write_raw(&frame(true, 1, b"echo cut")[3..]);
    assert_eq!(cut.hear_text(), "cut");
    drop((held, last));
    wait_until("all is given back", || free_blocks(&server) == all);
}
