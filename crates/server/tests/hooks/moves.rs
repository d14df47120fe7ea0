//! Connections change their worker, and nobody notices.

use crate::client::{Client, Heard, frame};
use crate::runner::tests;
use crate::server::{Server, wait_until};
use dunlin_server::control::{self, ControlAnswer, ControlRequest};
use nix::sys::signal::Signal;
use serde_json::Value as Json;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
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
    a_stop_delivers_by_way_of_an_empty_home,
    uneven_workers_are_evened_out_by_themselves,
];

const ASK: Duration = Duration::from_secs(70);

fn ask(server: &Server, request: &ControlRequest) -> ControlAnswer {
    control::ask(&server.place.run_dir(), request, ASK).expect("an answer")
}

pub(crate) fn drain(server: &Server, worker: u16) -> Json {
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
