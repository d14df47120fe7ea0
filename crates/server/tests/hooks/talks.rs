//! Clients that talk to each other while their connections change workers: order holds, and whoever stays open
//! misses nothing.

use crate::client::{Client, Heard, frame};
use crate::moves::drain;
use crate::runner::tests;
use crate::server::Server;
use nix::sys::signal::Signal;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

tests![
    order_holds_while_everybody_moves,
    order_holds_through_moves_and_reloads,
    kills_in_the_middle_of_moves_lose_nothing_unsaid,
];

/// Clients that send numbered messages to each other, from a thread of each, and check what they get.
struct Crowd {
    clients: Vec<Client>,
}

impl Crowd {
    fn new(server: &Server, size: usize) -> Self {
        Self { clients: (0..size).map(|_| server.client()).collect() }
    }

    /// Everybody sends `rounds` messages to everybody, himself among them, while `meanwhile` runs again
    /// and again. Each must come once and in its order.
    fn talk(&mut self, rounds: u32, mut meanwhile: impl FnMut(usize)) {
        let names: Vec<String> = self.clients.iter().map(|client| client.id.clone()).collect();
        let size = names.len();
        let over = AtomicBool::new(false);
        let writers: Vec<TcpStream> = self
            .clients
            .iter()
            .map(|client| client.socket.get_ref().try_clone().expect("the same socket"))
            .collect();
        thread::scope(|scope| {
            for (sender, mut stream) in writers.into_iter().enumerate() {
                let names = &names;
                scope.spawn(move || {
                    for round in 0..rounds {
                        let batch: Vec<u8> = names
                            .iter()
                            .flat_map(|name| {
                                frame(true, 2, format!("{name}{sender} {round}").as_bytes())
                            })
                            .collect();
                        stream.write_all(&batch).expect("the connection takes it");
                        if round % 2 == 0 {
                            thread::sleep(Duration::from_millis(3));
                        }
                    }
                });
            }
            let readers: Vec<_> = self
                .clients
                .iter_mut()
                .map(|client| scope.spawn(move || hear_all(client, size, rounds)))
                .collect();
            let over = &over;
            scope.spawn(move || {
                let all: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
                over.store(true, Ordering::Relaxed);
                assert!(all.iter().all(Result::is_ok), "somebody missed something");
            });
            let mut times = 0;
            while !over.load(Ordering::Relaxed) {
                meanwhile(times);
                times += 1;
            }
        });
    }
}

/// To how many others each one talks who is under fire, himself among them.
const TALKS_TO: usize = 4;

impl Crowd {
    /// Everybody sends to some for a while, and somebody may be closed; gives how many were. Whoever
    /// stays open must hear whoever else does wholly, and of the others all up to some point.
    fn talk_under_fire(&mut self, time: Duration, mut meanwhile: impl FnMut()) -> usize {
        let names: Vec<String> = self.clients.iter().map(|client| client.id.clone()).collect();
        let size = names.len();
        let closed: Vec<AtomicBool> = (0..size).map(|_| AtomicBool::new(false)).collect();
        let said: Vec<AtomicU32> = (0..size).map(|_| AtomicU32::new(u32::MAX)).collect();
        let until = Instant::now() + time;
        let writers: Vec<TcpStream> = self
            .clients
            .iter()
            .map(|client| client.socket.get_ref().try_clone().expect("the same socket"))
            .collect();
        thread::scope(|scope| {
            for (sender, mut stream) in writers.into_iter().enumerate() {
                let (names, closed, said) = (&names, &closed, &said);
                scope.spawn(move || {
                    let mut round = 0;
                    while Instant::now() < until && !closed[sender].load(Ordering::Relaxed) {
                        let some = (0..TALKS_TO).flat_map(|after| {
                            let name = &names[(sender + after) % size];
                            frame(true, 2, format!("{name}{sender} {round}").as_bytes())
                        });
                        // Whoever is closed cannot write; its reader tells.
                        let _ = stream.write_all(&some.collect::<Vec<u8>>());
                        round += 1;
                        thread::sleep(Duration::from_millis(12));
                    }
                    said[sender].store(round, Ordering::Release);
                });
            }
            for (place, client) in self.clients.iter_mut().enumerate() {
                let (closed, said) = (&closed, &said);
                scope.spawn(move || hear_under_fire(place, client, closed, said));
            }
            while Instant::now() < until {
                meanwhile();
            }
        });
        closed.iter().filter(|closed| closed.load(Ordering::Relaxed)).count()
    }
}

fn hear_under_fire(place: usize, client: &mut Client, closed: &[AtomicBool], said: &[AtomicU32]) {
    let mut next = vec![0_u32; closed.len()];
    let mut silent_since = Instant::now();
    client.set_patience(Duration::from_millis(100));
    loop {
        let lacks = |sender: usize| {
            let all = next[sender] == said[sender].load(Ordering::Acquire);
            !all && !closed[sender].load(Ordering::Relaxed)
        };
        let all = closed.len();
        let talks = |sender: &usize| (place + all - sender) % all < TALKS_TO;
        let missing: Vec<usize> = (0..all).filter(talks).filter(|sender| lacks(*sender)).collect();
        if missing.is_empty() {
            return;
        }
        match client.hear() {
            Heard::Binary(bytes) => {
                let text = String::from_utf8(bytes).expect("a text");
                let (sender, round) = text.split_once(' ').expect("two numbers");
                let (sender, round): (usize, u32) =
                    (sender.parse().expect("a number"), round.parse().expect("a number"));
                assert_eq!(round, next[sender], "{}: from {sender}, of {next:?}", client.id);
                next[sender] += 1;
                silent_since = Instant::now();
            }
            Heard::Silence => assert!(
                silent_since.elapsed() < Duration::from_secs(12),
                "{}: misses what {missing:?} said, of {next:?}",
                client.id
            ),
            over @ (Heard::Close(..) | Heard::End) => {
                println!("closed: {over:?}");
                return closed[place].store(true, Ordering::Relaxed);
            }
            Heard::Text(text) => panic!("nobody sends {text:?}"),
        }
    }
}

fn hear_all(client: &mut Client, senders: usize, rounds: u32) {
    let mut next = vec![0_u32; senders];
    let name = client.id.clone();
    while next.iter().any(|next| *next < rounds) {
        let heard = client.hear();
        let Heard::Binary(bytes) = heard else { panic!("{name}: {heard:?} after {next:?}") };
        let text = String::from_utf8(bytes).expect("a text");
        let (sender, round) = text.split_once(' ').expect("two numbers");
        let (sender, round): (usize, u32) =
            (sender.parse().expect("a number"), round.parse().expect("a number"));
        assert_eq!(round, next[sender], "{name}: from {sender}, of {next:?}");
        next[sender] += 1;
    }
}

fn order_holds_while_everybody_moves() {
    let server = Server::start(&[("server.workers", "3")]);
    let mut crowd = Crowd::new(&server, 12);
    crowd.talk(2_000, |times| {
        let result = drain(&server, u16::try_from(times % 3).expect("small"));
        assert_eq!(result["left"]["http"], 0);
    });
    let status = server.status();
    let moved = status["balance"]["moved"].as_u64().expect("a number");
    assert!(moved > 200, "{moved} moves");
    assert!(server.calls("close").is_empty());
    for slot in 0..3 {
        let worker = &status["workers"][slot];
        assert_eq!((&worker["lost_mail"], &worker["hook_panics"]), (&0.into(), &0.into()));
    }
}

fn order_holds_through_moves_and_reloads() {
    let server = Server::start(&[("server.workers", "3")]);
    let mut crowd = Crowd::new(&server, 12);
    server.wait_quiet();
    let before = server.descriptors();
    let mut reloads = 0;
    crowd.talk(3_000, |times| {
        if times % 4 == 3 {
            let report = server.reload(Signal::SIGUSR1);
            assert_eq!((&report["ok"], &report["dropped"]), (&true.into(), &0.into()));
            reloads += 1;
        } else {
            // Now and then in the middle of a drain.
            if times % 4 == 1 {
                server.signal(Signal::SIGUSR1);
            }
            drain(&server, u16::try_from(times % 3).expect("small"));
        }
    });
    assert!(reloads > 0, "the talk was too short");
    assert!(server.calls("close").is_empty());
    server.wait_descriptors(&before);
}

/// Workers are killed at random, homes, givers and takers, while everybody is moved back and forth.
/// Whoever stays open misses nothing, doubles nothing, and hears everything in order.
fn kills_in_the_middle_of_moves_lose_nothing_unsaid() {
    let seed = match std::env::var("HOOKS_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => u64::from(std::process::id()) ^ 0x5eed,
    };
    println!("HOOKS_SEED={seed}");
    let mut dice = seed;
    let mut roll = move |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    let server = Server::start(&[("server.workers", "3")]);
    let mut crowd = Crowd::new(&server, 24);
    server.wait_quiet();
    let before = server.descriptors();
    let over = AtomicBool::new(false);
    let mut kills = 0;
    let closed = thread::scope(|scope| {
        scope.spawn(|| {
            let mut worker = 0;
            while !over.load(Ordering::Relaxed) {
                drain(&server, worker % 3);
                worker += 1;
            }
        });
        let closed = crowd.talk_under_fire(Duration::from_secs(6), || {
            thread::sleep(Duration::from_millis(100 + roll(400)));
            if roll(5) == 0 {
                server.signal(Signal::SIGUSR1);
            }
            let pid = server.pid(&format!("workers/{}", roll(3)));
            if pid != 0 {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
                kills += 1;
            }
        });
        over.store(true, Ordering::Relaxed);
        closed
    });
    println!("{kills} kills, {closed} of 24 connections closed");
    assert!(kills > 5);
    assert!(server.status()["balance"]["moved"].as_u64() > Some(24));
    drop(crowd);
    server.wait_status("nobody is left", |status| status["sessions"]["used"] == 0);
    let now = server.descriptors();
    assert!(
        now.len() <= before.len() - 24 + 3,
        "{} before, {} now: {now:?}",
        before.len(),
        now.len()
    );
}
