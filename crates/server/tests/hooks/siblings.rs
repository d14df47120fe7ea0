//! A slot whose worker does not come up is served by another's, whole, and given back.

use crate::client::{Client, Heard};
use crate::order::slow_client;
use crate::runner::tests;
use crate::server::{Server, pid_in, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

tests![
    a_slot_without_a_worker_is_served_and_given_back,
    a_slot_that_dies_again_and_again_is_served_meanwhile,
    messages_keep_their_order_from_worker_to_sibling_and_back,
    unsent_output_and_half_messages_are_given_back,
    a_sibling_that_is_killed_is_followed_by_another,
    a_reload_while_a_sibling_stands_in,
    a_stop_while_a_sibling_stands_in,
    one_worker_alone_comes_back_within_its_delay,
];

/// Much more than the 300 ms, since the machine may be busy.
const SOON: Duration = Duration::from_millis(1_500);

fn kill_worker(server: &Server, slot: u16) -> i32 {
    server.wait_quiet();
    let pid = server.pid(&format!("workers/{slot}"));
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
    pid
}

fn wait_sibling(server: &Server, sibling: u16) {
    server.wait_status("a sibling", |status| status["workers"][0]["stood_in_by"] == sibling);
}

fn wait_own_worker(server: &Server, killed: i32) -> i32 {
    let status = server.wait_status("the slot's own worker", |status| {
        let own = &status["workers"][0];
        own["state"] == "running" && own["stood_in_by"].is_null() && own["pid"] != killed
    });
    pid_in(&status, "workers/0")
}

/// But those who went themselves.
fn expect_nobody_closed(server: &Server) {
    let closes = server.calls("close");
    let by_us = |line: &&crate::server::Line| !line.arguments.ends_with(" Client");
    assert!(closes.iter().find(by_us).is_none(), "{closes:?}");
}

fn a_slot_without_a_worker_is_served_and_given_back() {
    let server = Server::start(&[("server.workers", "2")]);
    let mut clients: Vec<Client> = (0..10).map(|_| server.client_at(0)).collect();
    let mut elsewhere = server.client_at(1);
    for client in &mut clients {
        assert_eq!(client.ask("count"), "count 1");
    }
    let before = server.descriptors();
    server.place.mark("slow_worker_start_in_slot_0");
    let sibling = server.pid("workers/1");
    let killed = kill_worker(&server, 0);
    let began = Instant::now();
    assert_eq!(clients[0].ask("count"), "count 2", "the row is the same");
    let took = began.elapsed();
    println!("served by a sibling {took:?} after the kill");
    assert!(took < SOON, "{took:?}");
    for client in &mut clients {
        let who = client.who();
        assert_eq!(who, (client.id.clone(), 0, sibling), "served by the sibling, in its own slot");
        assert_eq!(elsewhere.ask(&format!("push {} by mail", client.id)), "Ok(())");
        assert_eq!(client.hear_text(), "by mail");
    }
    let status = server.status();
    assert_eq!(
        (&status["workers"][0]["stood_in_by"], &status["workers"][0]["connections"]),
        (&1.into(), &0.into())
    );
    assert_eq!(status["workers"][1]["connections"], 11);
    // Both listeners are served; what comes in now stays with the sibling.
    let mut newcomers: Vec<Client> = (0..20).map(|_| server.client()).collect();
    assert!(newcomers.iter().all(|client| (client.slot, client.pid) == (1, sibling)));
    assert_eq!(clients[1].ask(&format!("push {} to a newcomer", newcomers[0].id)), "Ok(())");
    assert_eq!(newcomers[0].hear_text(), "to a newcomer");
    elsewhere.say("broadcast to all");
    for client in clients.iter_mut().chain(&mut newcomers).chain([&mut elsewhere]) {
        assert_eq!(client.hear_text(), "to all");
        assert_eq!(client.ask("echo once"), "once");
    }
    // Back in its own worker's hands, with its count; nobody was closed by all this.
    let own = wait_own_worker(&server, killed);
    for client in &mut clients {
        assert_eq!(client.who(), (client.id.clone(), 0, own));
    }
    assert_eq!(clients[0].ask("count"), "count 3");
    assert!(newcomers.iter_mut().all(|client| client.who() == (client.id.clone(), 1, sibling)));
    let adopted: Vec<_> =
        server.calls("adopt").into_iter().filter(|line| line.word(0) == clients[0].id).collect();
    let told: Vec<_> =
        adopted.iter().map(|line| (line.role.as_str(), line.word(1), line.pid)).collect();
    assert_eq!(told, [("worker1", "Crash", sibling), ("worker0", "Reload", own)]);
    expect_nobody_closed(&server);
    drop(newcomers);
    server.place.unmark("slow_worker_start_in_slot_0");
    server.wait_descriptors(&before);
}

fn a_slot_that_dies_again_and_again_is_served_meanwhile() {
    let server = Server::start(&[("server.workers", "3")]);
    let mut client = server.client_at(0);
    server.place.mark("fail_worker_start_in_slot_0");
    let killed = kill_worker(&server, 0);
    let began = Instant::now();
    let mut asked = 0;
    let mut longest = Duration::ZERO;
    while began.elapsed() < Duration::from_millis(2_500) {
        let before = Instant::now();
        asked += 1;
        assert_eq!(client.ask("count"), format!("count {asked}"));
        longest = longest.max(before.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    println!("longest silence {longest:?}");
    assert!(longest < SOON, "{longest:?}");
    server.wait_status("it says so", |status| status["workers"][0]["state"] == "crash_looping");
    assert_eq!(client.who(), (client.id.clone(), 0, server.pid("workers/1")), "by the next slot's");
    let restarts = server.status()["workers"][0]["restarts"].as_u64().expect("a count");
    assert!((3..=12).contains(&restarts), "with growing delay: {restarts}");
    assert_eq!(server.calls("adopt").len(), 1, "given back to nobody who could not start");
    server.place.unmark("fail_worker_start_in_slot_0");
    let own = wait_own_worker(&server, killed);
    assert_eq!(client.who().2, own);
}

/// Numbers go from every slot to every slot all the while, small ones and parcels, from before the sibling
/// stands in until after the slot's own worker is back.
fn messages_keep_their_order_from_worker_to_sibling_and_back() {
    let server = Server::start(&[("server.workers", "2"), ("websocket.send_buffer", "32MiB")]);
    let pairs: Vec<(Client, Client)> = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 1), (1, 0)]
        .map(|(from, to)| (server.client_at(from), server.client_at(to)))
        .into();
    server.place.mark("slow_worker_start_in_slot_0");
    let killed = kill_worker(&server, 0);
    let over = AtomicBool::new(false);
    let sent_in_all = AtomicU64::new(0);
    thread::scope(|scope| {
        let (over, sent_in_all) = (&over, &sent_in_all);
        for (place, (mut from, mut to)) in pairs.into_iter().enumerate() {
            let large = "x".repeat(if place >= 4 { 100_000 } else { 3 });
            let receiver = to.id.clone();
            let sent = scope.spawn(move || {
                let mut sent = 0_u64;
                let burst = if place >= 4 { 2 } else { 32 };
                while !over.load(Ordering::Relaxed) {
                    for _ in 0..burst {
                        sent += 1;
                        from.say(&format!("push {receiver} {sent} {large}"));
                    }
                    for _ in 0..burst {
                        assert_eq!(from.hear_text(), "Ok(())");
                    }
                    if place >= 4 {
                        thread::sleep(Duration::from_millis(4));
                    }
                }
                assert_eq!(from.ask(&format!("push {receiver} the end")), "Ok(())");
                sent_in_all.fetch_add(sent, Ordering::Relaxed);
                sent
            });
            scope.spawn(move || {
                let mut expected = 0_u64;
                loop {
                    let text = to.hear_text();
                    if text == "the end" {
                        break;
                    }
                    expected += 1;
                    let number = text.split(' ').next().and_then(|word| word.parse().ok());
                    assert_eq!(
                        number,
                        Some(expected),
                        "pair {place}: lost, doubled or out of order"
                    );
                }
                assert_eq!(sent.join().ok(), Some(expected), "pair {place}");
            });
        }
        wait_sibling(&server, 1);
        wait_own_worker(&server, killed);
        thread::sleep(Duration::from_millis(300));
        over.store(true, Ordering::Relaxed);
    });
    println!("{} messages", sent_in_all.load(Ordering::Relaxed));
    expect_nobody_closed(&server);
}

fn unsent_output_and_half_messages_are_given_back() {
    let server = Server::start(&[("server.workers", "2"), ("websocket.send_buffer", "16MiB")]);
    let mut sender = server.client_at(1);
    let mut slow = loop {
        let slow = slow_client(&server);
        if slow.slot == 0 {
            break slow;
        }
        slow.close(1000, "");
    };
    let mut half = server.client_at(0);
    server.place.mark("slow_worker_start_in_slot_0");
    let killed = kill_worker(&server, 0);
    wait_sibling(&server, 1);
    half.write_raw(&crate::client::frame(false, 1, b"echo one "));
    let mut taken = 0_u64;
    wait_until("a full outbox", || {
        let answer = sender.ask(&format!("drop {} 16 65536", slow.id));
        if answer == "16 taken" {
            taken += 16;
        }
        server.status()["workers"][1]["unsent_bytes"].as_u64() > Some(4 << 20)
    });
    let own = wait_own_worker(&server, killed);
    assert_eq!(half.ask_rest(b"and two"), "one and two");
    assert_eq!(half.who().2, own);
    assert_eq!(sender.ask(&format!("push {} the end", slow.id)), "Ok(())");
    for number in 0..taken {
        let heard = slow.hear();
        let whole = heard == Heard::Binary(vec![b'x'; 65536]);
        assert!(whole, "message {number} of {taken}");
    }
    assert_eq!(slow.hear_text(), "the end", "in order");
}

fn a_sibling_that_is_killed_is_followed_by_another() {
    let server = Server::start(&[("server.workers", "3")]);
    let mut clients: Vec<Client> = [0, 0, 0, 1, 1, 1, 2].map(|slot| server.client_at(slot)).into();
    let before = server.descriptors();
    server.place.mark("fail_worker_start_in_slot_0");
    let killed = kill_worker(&server, 0);
    wait_sibling(&server, 1);
    for client in &mut clients {
        assert_eq!(client.ask("count"), "count 1");
    }
    kill_worker(&server, 1);
    wait_sibling(&server, 2);
    for client in &mut clients {
        assert_eq!(client.ask("count"), "count 2", "nobody is lost");
    }
    server.place.unmark("fail_worker_start_in_slot_0");
    let own = wait_own_worker(&server, killed);
    for client in &mut clients {
        assert_eq!(client.ask("count"), "count 3");
    }
    assert_eq!(clients[0].who().2, own);
    expect_nobody_closed(&server);
    server.wait_descriptors(&before);
}

fn a_reload_while_a_sibling_stands_in() {
    let server = Server::start(&[("server.workers", "3")]);
    let mut clients: Vec<Client> = [0, 0, 0, 1, 2].map(|slot| server.client_at(slot)).into();
    server.place.mark("slow_worker_start_in_slot_0");
    let killed = kill_worker(&server, 0);
    wait_sibling(&server, 1);
    let sibling = server.pid("workers/1");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let over = &over;
        for client in &mut clients {
            scope.spawn(move || {
                let mut asked = 0;
                while !over.load(Ordering::Relaxed) {
                    asked += 1;
                    assert_eq!(client.ask("count"), format!("count {asked}"));
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let report = server.reload(Signal::SIGUSR1);
        over.store(true, Ordering::Relaxed);
        assert_eq!((&report["ok"], &report["dropped"]), (&true.into(), &0.into()), "{report}");
    });
    let own = wait_own_worker(&server, killed);
    assert_ne!(server.pid("workers/1"), sibling, "replaced, too");
    assert_eq!(clients[0].who().2, own);
    expect_nobody_closed(&server);
}

fn a_stop_while_a_sibling_stands_in() {
    let mut server = Server::start(&[("server.workers", "2")]);
    let mut clients: Vec<Client> = [0, 0, 1].map(|slot| server.client_at(slot)).into();
    server.place.mark("fail_worker_start_in_slot_0");
    kill_worker(&server, 0);
    wait_sibling(&server, 1);
    server.signal(Signal::SIGTERM);
    for client in &mut clients {
        assert_eq!(client.hear_text(), "last words");
        assert_eq!(client.hear(), Heard::Close(1001, "the server is stopping".into()));
    }
    drop(clients);
    assert!(server.wait_end().success());
}

fn one_worker_alone_comes_back_within_its_delay() {
    let server = Server::start(&[]);
    let mut client = server.client();
    server.place.mark("fail_worker_start_in_slot_0");
    let killed = kill_worker(&server, 0);
    server.wait_status("some tries", |status| status["workers"][0]["restarts"].as_u64() >= Some(5));
    server.place.unmark("fail_worker_start_in_slot_0");
    let began = Instant::now();
    assert_eq!(client.ask("count"), "count 1");
    let took = began.elapsed();
    assert!(took < Duration::from_millis(1_000) + SOON, "a second's delay at most: {took:?}");
    wait_own_worker(&server, killed);
    assert_eq!(server.calls("adopt").len(), 1);
}
