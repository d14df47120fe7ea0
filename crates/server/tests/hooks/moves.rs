//! Connections change their worker, and nobody notices.

use crate::client::{Client, Heard, frame};
use crate::runner::tests;
use crate::server::{Server, wait_until};
use dunlin_server::control::{self, ControlAnswer, ControlRequest};
use nix::sys::signal::Signal;
use serde_json::Value as Json;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

tests![
    a_drain_moves_everybody_and_nobody_notices,
    a_balance_evens_out,
    what_cannot_be_moved_is_said,
    unsent_output_moves_along,
    a_slow_reader_holds_up_no_mailbox,
    half_messages_and_deadlines_move_along,
    what_was_said_before_a_move_comes_first_even_after_a_death,
    mail_that_dies_with_its_home_is_told_by_a_close,
    a_broadcast_reaches_everybody_once_wherever_they_are,
    who_is_moved_for_the_first_time_hears_a_broadcast_once,
    order_holds_while_everybody_moves,
    order_holds_through_moves_and_reloads,
    kills_in_the_middle_of_moves_lose_nothing_unsaid,
    a_stop_delivers_by_way_of_an_empty_home,
    uneven_workers_are_evened_out_by_themselves,
];

const ASK: Duration = Duration::from_secs(70);

fn ask(server: &Server, request: &ControlRequest) -> ControlAnswer {
    control::ask(&server.place.run_dir(), request, ASK).expect("an answer")
}

fn drain(server: &Server, worker: u16) -> Json {
    let answer = ask(server, &ControlRequest::Drain { worker });
    assert!(answer.ok, "{answer:?}");
    answer.result
}

fn a_drain_moves_everybody_and_nobody_notices() {
    let server = Server::start(&[("server.workers", "2")]);
    let mut clients: Vec<Client> = (0..120).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("count"), "count 1");
    }
    let at_first: Vec<u16> = clients.iter().map(|client| client.slot).collect();
    assert!(at_first.contains(&0) && at_first.contains(&1), "the kernel gives to both");
    server.wait_quiet();
    let before = server.descriptors();
    for round in 2..=7_usize {
        let (drained, full) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        let result = drain(&server, drained);
        let moved = result["moved"].as_u64().expect("a number");
        if round == 2 {
            let there = at_first.iter().filter(|slot| **slot == drained).count();
            assert_eq!(moved, u64::try_from(there).expect("few"), "{result}");
        } else {
            assert_eq!(moved, 120, "{result}");
        }
        assert_eq!(result["left"], serde_json::json!({"http": 0, "unsent": 0, "other": 0}));
        assert_eq!(result["connections"][usize::from(full)], 120, "{result}");
        for client in &mut clients {
            assert_eq!(client.ask("count"), format!("count {round}"), "the row is the same");
            let (id, slot, _) = client.who();
            assert_eq!((&id, slot), (&client.id, full));
        }
        // By their homes, to wherever they are.
        let [left, right] = [3, 77].map(|place| clients[place].id.clone());
        clients[9].say(&format!("many {left} {right}"));
        assert_eq!(clients[9].hear_text(), "many 2");
        for place in [3, 77] {
            assert_eq!(clients[place].hear_text(), "to many");
        }
        server.wait_descriptors(&before);
    }
    assert!(server.calls("close").is_empty(), "nobody was closed");
    let left: Vec<_> = server.calls("moved_away");
    let came: Vec<_> = server.calls("adopt");
    assert_eq!((left.len(), came.len()), (came.len(), left.len()), "each left and came");
    assert!(came.iter().all(|line| line.word(1) == "Balance"));
    let status = server.status();
    assert_eq!(status["balance"]["asked"], 6);
    assert_eq!(status["balance"]["moved"], u64::try_from(left.len()).expect("few"));
    assert!(status["balance"]["last_at"].is_string());
    assert_eq!(status["sessions"]["used"], 120);
    // It closes where it is, and is told once.
    let last = clients.pop().expect("many");
    let id = last.id.clone();
    last.close(1000, "bye");
    assert_eq!(server.wait_call("close", &id).role, "worker0");
    let other = clients[0].id.clone();
    assert_eq!(clients[1].ask(&format!("disconnect {other} 4001 enough")), "true");
    assert_eq!(clients[0].hear_close(), (4001, "enough".into()));
}

fn a_balance_evens_out() {
    let server = Server::start(&[("server.workers", "3")]);
    let mut clients: Vec<Client> = (0..90).map(|_| server.client()).collect();
    drain(&server, 0);
    drain(&server, 1);
    let answer = ask(&server, &ControlRequest::Balance);
    assert!(answer.ok, "{answer:?}");
    assert_eq!(answer.result["connections"], serde_json::json!([30, 30, 30]), "{answer:?}");
    server.wait_status("the same in the status", |status| {
        (0..3).all(|slot| status["workers"][slot]["connections"] == 30)
    });
    for client in &mut clients {
        assert_eq!(client.ask("echo on"), "on");
    }
    for (worker, reason) in [(3, "there is no worker 3"), (900, "there is no worker 900")] {
        let refused = ask(&server, &ControlRequest::Drain { worker });
        assert!(!refused.ok && refused.error.is_some_and(|error| error.contains(reason)));
    }
    let alone = Server::start(&[("server.workers", "1")]);
    for request in [ControlRequest::Balance, ControlRequest::Drain { worker: 0 }] {
        let refused = ask(&alone, &request);
        assert_eq!(refused.error.as_deref(), Some("there is only one worker"));
    }
}

fn what_cannot_be_moved_is_said() {
    let server = Server::start(&[("server.workers", "2")]);
    let (mut closing, mut other) = (server.client_at(0), server.client_at(0));
    let mut raw = loop {
        let mut raw = crate::client::Raw::connect(server.address);
        raw.get("/now");
        assert_eq!(raw.hear().0, 200);
        let plain = server.status()["workers"][0]["connections"] == 3;
        if plain {
            break raw;
        }
    };
    // Its close frame is out, and the client has not answered it yet.
    assert_eq!(other.ask(&format!("disconnect {} 4001 enough", closing.id)), "true");
    let result = drain(&server, 0);
    assert_eq!(result["moved"], 1, "{result}");
    assert_eq!(result["left"], serde_json::json!({"http": 1, "unsent": 0, "other": 1}));
    assert_eq!(other.who().1, 1);
    assert_eq!(closing.hear_close(), (4001, "enough".into()));
    raw.get("/now");
    assert_eq!(raw.hear().0, 200);
}

/// A slow reader takes along what it has not taken.
fn unsent_output_moves_along() {
    let server = Server::start(&[("server.workers", "3"), ("websocket.send_buffer", "8MiB")]);
    let mut slow = crate::order::slow_client(&server);
    let mut sender = server.client_at(slow.slot);
    server.wait_status("only these", |status| status["sessions"]["used"] == 2);
    let before = server.descriptors();
    let mut taken = 0_u64;
    wait_until("a full outbox", || {
        let answer = sender.ask(&format!("drop {} 16 65536", slow.id));
        let count = answer.split(' ').next().expect("how many were taken");
        taken += count.parse::<u64>().expect("a number");
        !server.calls("buffer_full").is_empty()
    });
    // From home, then by way of it, and home again.
    let holds = |status: &Json, slot: usize| {
        status["workers"][slot]["unsent_bytes"].as_u64() > Some(1 << 20)
    };
    let mut at = usize::from(slow.slot);
    for step in 0..4 {
        let result = drain(&server, u16::try_from(at).expect("small"));
        assert!(result["moved"].as_u64() >= Some(1), "{result}");
        assert_eq!(result["left"], serde_json::json!({"http": 0, "unsent": 0, "other": 0}));
        let status = server.wait_status("another that holds it", |status| {
            !holds(status, at) && (0..3).any(|slot| holds(status, slot))
        });
        at = (0..3).find(|slot| holds(&status, *slot)).expect("it was waited for");
        if step == 1 {
            server.reload(Signal::SIGUSR1);
        }
    }
    assert_eq!(sender.ask(&format!("push {} the end", slow.id)), "Ok(())");
    for number in 0..taken {
        let whole = slow.hear() == Heard::Binary(vec![b'x'; 65536]);
        assert!(whole, "message {number} of {taken}");
    }
    assert_eq!(slow.hear_text(), "the end", "in order");
    assert!(server.calls("close").iter().all(|line| line.word(0) != slow.id));
    server.wait_descriptors(&before);
}

/// The home is busy while its `Go` is waited for, and the connection does not read: it goes with what has
/// come for it, and nobody waits for it.
fn a_slow_reader_holds_up_no_mailbox() {
    let server = Server::start(&[
        ("server.workers", "2"),
        ("websocket.send_buffer", "64MiB"),
        ("websocket.send_buffer_total", "256MiB"),
    ]);
    let mut slow = crate::order::slow_client(&server);
    let (home, away) = (slow.slot, 1 - slow.slot);
    let mut busy = server.client_at(home);
    drain(&server, home);
    let mut others: Vec<Client> = (0..2).map(|_| server.client_at(home)).collect();
    assert_eq!(slow.who().1, away);
    assert_eq!(busy.who().1, away);
    others[0].say("sleep 400");
    thread::sleep(Duration::from_millis(50));
    thread::scope(|scope| {
        let drained = scope.spawn(|| drain(&server, away));
        thread::sleep(Duration::from_millis(50));
        // By its own hook: straight, and much more than the kernel takes.
        slow.say(&format!("flood {} 256 65536", slow.id));
        let moved = drained.join().expect("a drain");
        assert_eq!(moved["moved"], 2, "{moved}");
    });
    assert_eq!(others[0].hear_text(), "slept");
    let began = Instant::now();
    assert_eq!(others[1].ask(&format!("push {} behind it all", slow.id)), "Ok(())");
    assert_eq!(busy.ask(&format!("push {} hello", others[1].id)), "Ok(())");
    assert_eq!(others[1].hear_text(), "hello");
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    for number in 0..256 {
        let whole = slow.hear() == Heard::Binary(vec![b'x'; 65536]);
        assert!(whole, "message {number}");
    }
    let mut texts = [slow.hear_text(), slow.hear_text()];
    texts.sort();
    assert_eq!(texts, ["256 taken", "behind it all"]);
    assert_eq!(slow.who().1, home);
}

fn half_messages_and_deadlines_move_along() {
    let server = Server::start(&[("server.workers", "2")]);
    let mut halves: Vec<Client> = (0..3).map(|_| server.client_at(0)).collect();
    let (first, second) = (frame(false, 1, b"echo one "), frame(true, 0, b"and two"));
    let cuts = [second.len() - 3, 4, 0];
    for (client, cut) in halves.iter_mut().zip(cuts) {
        client.write_raw(&first);
        client.write_raw(&second[..cut]);
    }
    let mut timed = server.client_at(0);
    timed.ask("deadline 700");
    server.wait_quiet();
    assert_eq!(drain(&server, 0)["moved"], 4);
    for (client, cut) in halves.iter_mut().zip(cuts) {
        client.write_raw(&second[cut..]);
        assert_eq!(client.hear_text(), "one and two");
        assert_eq!(client.who().1, 1);
    }
    let call = server.wait_call("deadline", &timed.id);
    assert_eq!(call.role, "worker1", "its home has sent it on");
    assert_eq!(server.calls("deadline").len(), 1);
}

/// More mail than a turn takes lies in front of the last word about a connection that its next worker's
/// successor finds among its rows.
fn what_was_said_before_a_move_comes_first_even_after_a_death() {
    let server = Server::start(&[("server.workers", "2")]);
    let (mut teller, mut hearer) = (server.client_at(0), server.client_at(1));
    let mut unlucky = server.client_at(1);
    server.wait_status("only these", |status| status["sessions"]["used"] == 3);
    unlucky.say("sleep 60000");
    server
        .wait_status("a busy worker", |status| status["workers"][1]["busy_ms"].as_u64() > Some(50));
    let mut tell = |number: u32| {
        let text = format!("{}{number}", hearer.id);
        teller.write_raw(&frame(true, 2, text.as_bytes()));
    };
    for number in 0..100 {
        // A packet each.
        tell(number);
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(drain(&server, 0)["moved"], 1);
    (100..110).for_each(&mut tell);
    let stuck = nix::unistd::Pid::from_raw(server.pid("workers/1"));
    nix::sys::signal::kill(stuck, Signal::SIGKILL).expect("it lives");
    for number in 0..110_u32 {
        assert_eq!(hearer.hear(), Heard::Binary(number.to_string().into_bytes()));
    }
    assert_eq!(unlucky.hear_close().0, 1012);
    assert_eq!(teller.who().1, 1);
}

fn mail_that_dies_with_its_home_is_told_by_a_close() {
    let server = Server::start(&[("server.workers", "2")]);
    let (mut moved, mut bystander) = (server.client_at(0), server.client_at(0));
    let mut sender = server.client_at(1);
    server.wait_status("only these", |status| status["sessions"]["used"] == 3);
    assert_eq!(drain(&server, 0)["moved"], 2);
    assert_eq!(sender.ask(&format!("push {} one", moved.id)), "Ok(())");
    assert_eq!(moved.hear_text(), "one");
    assert_eq!(sender.ask(&format!("lose {} 0", moved.id)), "Ok(()) true");
    assert_eq!(moved.hear_close(), (1012, "a message was lost".into()));
    let close = server.wait_call("close", &moved.id);
    assert!(close.arguments.ends_with("WorkerLost") && close.role == "worker1", "{close:?}");
    assert_eq!(server.status()["workers"][1]["lost_mail"], 1);
    // Whom nothing was for has lost nothing, and is found again by way of the next worker at home.
    assert_eq!(sender.ask(&format!("push {} two", bystander.id)), "Ok(())");
    assert_eq!(bystander.hear_text(), "two");
}

fn a_broadcast_reaches_everybody_once_wherever_they_are() {
    let server = Server::start(&[("server.workers", "3")]);
    let mut clients: Vec<Client> = (0..24).map(|_| server.client()).collect();
    let mut senders: Vec<Client> = (0..3).map(|slot| server.client_at(slot)).collect();
    server.wait_status("only these connections", |status| status["sessions"]["used"] == 27);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut worker = 0;
            while !stop.load(Ordering::Relaxed) {
                drain(&server, worker % 3);
                worker += 1;
            }
        });
        for round in 0..60 {
            for (place, sender) in senders.iter_mut().enumerate() {
                sender.say(&format!("broadcast {place} {round}"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
    });
    for client in clients.iter_mut().chain(&mut senders) {
        let mut next = [0; 3];
        for _ in 0..180 {
            let text = client.hear_text();
            let (place, round) = text.split_once(' ').expect("two numbers");
            let place: usize = place.parse().expect("a number");
            assert_eq!(round.parse::<u32>(), Ok(next[place]), "in order, each once");
            next[place] += 1;
        }
        assert_eq!(client.ask("echo the end"), "the end", "and nothing behind it");
    }
    assert!(server.status()["balance"]["moved"].as_u64() > Some(100));
}

/// A broadcast goes straight to who was never moved, and by mail to who was: who becomes the one while it
/// is on its way is still one of the others.
fn who_is_moved_for_the_first_time_hears_a_broadcast_once() {
    const ROUNDS: u32 = 12;
    const BROADCASTS: u32 = 300;
    let server = Server::start(&[("server.workers", "2")]);
    let mut clients: Vec<Client> = (0..4).map(|_| server.client_at(0)).collect();
    server.wait_status("only these", |status| status["sessions"]["used"] == 4);
    assert_eq!(drain(&server, 0)["moved"], 4, "so that broadcasts go by mail, too");
    for round in 0..ROUNDS {
        let new: Vec<Client> = (0..8).map(|_| server.client_at(0)).collect();
        let mut sender = new[0].socket.get_ref().try_clone().expect("the same socket");
        clients.extend(new);
        thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..BROADCASTS {
                    let text = format!("broadcast {round} {number}");
                    sender.write_all(&frame(true, 1, text.as_bytes())).expect("written");
                }
            });
            drain(&server, 0);
        });
        for client in &mut clients {
            for number in 0..BROADCASTS {
                assert_eq!(client.hear_text(), format!("{round} {number}"), "in order, each once");
            }
            assert_eq!(client.ask("echo the end"), "the end", "and nothing behind it");
        }
        // The first ones stay: they are at home there, and elsewhere.
        clients.truncate(4);
    }
    assert!(server.status()["balance"]["moved"].as_u64() > Some(u64::from(ROUNDS)));
}

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

/// The home of those who are told last has nobody of its own, and stays as long as something may come.
fn a_stop_delivers_by_way_of_an_empty_home() {
    let mut server = Server::start(&[("server.workers", "2"), ("server.drain_rate", "20")]);
    let mut pairs: Vec<(Client, Client)> =
        (0..8).map(|_| (server.client_at(0), server.client_at(1))).collect();
    server.wait_status("only these", |status| status["sessions"]["used"] == 16);
    assert_eq!(drain(&server, 0)["moved"], 8);
    let stop = server.master();
    thread::scope(|scope| {
        for (hearer, teller) in &mut pairs {
            let name = hearer.id.clone();
            let told = scope.spawn(move || {
                let mut taken = 0_u32;
                loop {
                    teller.say(&format!("push {name} {taken}"));
                    let mut answer = teller.hear();
                    if answer == Heard::Text("last words".into()) {
                        answer = teller.hear();
                    }
                    match answer {
                        Heard::Text(text) if text == "Ok(())" => taken += 1,
                        _ => return taken,
                    }
                }
            });
            scope.spawn(move || {
                let mut heard = 0_u32;
                let over = loop {
                    match hearer.hear() {
                        Heard::Text(text) if text == "last words" => {}
                        Heard::Text(text) => {
                            assert_eq!(text, heard.to_string());
                            heard += 1;
                        }
                        over => break over,
                    }
                };
                assert!(matches!(over, Heard::Close(1001, _)), "{over:?}");
                let taken = told.join().expect("a teller");
                assert_eq!(heard, taken, "what was taken is delivered");
            });
        }
        thread::sleep(Duration::from_millis(200));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(stop), Signal::SIGTERM)
            .expect("it lives");
    });
    assert!(server.wait_end().success());
}

fn uneven_workers_are_evened_out_by_themselves() {
    let settings = [
        ("server.workers", "2"),
        ("server.balance_above", "0"),
        ("server.balance_above_connections", "20"),
        ("server.balance_rate", "16"),
    ];
    let server = Server::start(&settings);
    let mut clients: Vec<Client> = (0..80).map(|_| server.client()).collect();
    drain(&server, 0);
    let moved = server.status()["balance"]["moved"].clone();
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(server.status()["balance"]["moved"], moved, "it is turned off");
    server.place.set("server.balance_above", "20");
    assert_eq!(server.reload(Signal::SIGUSR1)["ok"], true);
    let began = Instant::now();
    server.wait_status("even workers", |status| {
        let at = |slot: usize| status["workers"][slot]["sessions"].as_u64().expect("a number");
        at(0) >= 32 && at(0) + at(1) == 80
    });
    assert!(began.elapsed() > Duration::from_millis(900), "a few per second");
    for client in &mut clients {
        assert_eq!(client.ask("count"), "count 1");
    }
    assert!(server.calls("close").is_empty());
}
