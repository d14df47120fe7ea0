//! Workers that die, or never come back, of their own: what they were doing is closed, the rest goes on.

use crate::client::{Client, Heard};
use crate::runner::tests;
use crate::server::{Server, pid_in, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::time::{Duration, Instant};

tests![
    what_kills_its_adopter_three_times_is_closed,
    what_kills_even_whoever_closes_it_is_dropped,
    a_hook_that_aborts_loses_one,
    a_worker_without_memory_loses_one,
    a_hook_that_never_returns_loses_one,
    mail_that_waits_outlives_its_sender,
];

/// A client of slot 0, others of it, and one elsewhere.
fn company() -> (Server, Client, Vec<Client>, Client) {
    let server = Server::start(&[("server.workers", "2"), ("server.stuck_after", "1s")]);
    let one = server.client_at(0);
    let others = (0..5).map(|_| server.client_at(0)).collect();
    let elsewhere = server.client_at(1);
    server.wait_quiet();
    (server, one, others, elsewhere)
}

/// All others of the slot are served by a new worker, and nobody else was closed.
fn expect_others_live(server: &Server, others: &mut [Client], killed: i32) {
    for other in others {
        let (id, _, pid) = other.who();
        assert_eq!(id, other.id);
        assert_ne!(pid, killed, "by a successor");
    }
    let closes = server.calls("close");
    let lost = closes.iter().filter(|line| line.word(1) == "1012").count();
    assert!(lost <= 1, "{closes:?}");
}

fn what_kills_its_adopter_three_times_is_closed() {
    let (server, mut poisonous, mut others, mut elsewhere) = company();
    let before = server.descriptors();
    server.place.mark(&format!("poison_{}", poisonous.id));
    let pid = server.pid("workers/0");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
    assert_eq!(poisonous.hear_close(), (1012, "worker lost".into()));
    expect_others_live(&server, &mut others, pid);
    let tries = server.calls("adopt").iter().filter(|line| line.word(0) == poisonous.id).count();
    assert_eq!(tries, 3, "not adopted a fourth time");
    let close = server.wait_call("close", &poisonous.id);
    assert!(close.arguments.ends_with("WorkerLost"), "{}", close.arguments);
    assert_eq!(elsewhere.ask(&format!("established {}", poisonous.id)), "false");
    let status = server.status();
    assert_eq!(status["sessions"]["poisonous"], 1);
    // The last try may be a sibling's, where the slot was without a worker for long.
    let restarts = |slot: usize| status["workers"][slot]["restarts"].as_u64().expect("a number");
    assert_eq!(restarts(0) + restarts(1), 4, "one kill and three tries");
    drop(poisonous);
    wait_until("its descriptor is closed", || server.descriptors().len() + 1 == before.len());
}

fn what_kills_even_whoever_closes_it_is_dropped() {
    let (server, mut poisonous, mut others, _elsewhere) = company();
    server.place.mark(&format!("poison_{}", poisonous.id));
    server.place.mark(&format!("poison_close_{}", poisonous.id));
    let pid = server.pid("workers/0");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
    // Its close frame may be out before the hook.
    let poisonous_id = poisonous.id.clone();
    wait_until("its end", || !matches!(poisonous.hear(), Heard::Silence | Heard::Text(_)));
    drop(poisonous);
    server.wait_status("its row is free", |status| status["sessions"]["used"] == 6);
    for other in &mut others {
        assert_eq!(other.ask("echo on"), "on");
    }
    let tries =
        |hook: &str| server.calls(hook).iter().filter(|line| line.word(0) == poisonous_id).count();
    assert_eq!((tries("adopt"), tries("close")), (3, 3));
}

fn a_hook_that_aborts_loses_one() {
    let (server, mut unlucky, mut others, mut elsewhere) = company();
    let pid = server.pid("workers/0");
    unlucky.say("abort");
    assert_eq!(unlucky.hear_close(), (1012, "worker lost".into()));
    expect_others_live(&server, &mut others, pid);
    assert_eq!(elsewhere.ask(&format!("established {}", unlucky.id)), "false");
    let error = server.wait_call("worker_error", &pid.to_string());
    assert!(error.arguments.ends_with("None Some(6)"), "{}", error.arguments);
}

fn a_worker_without_memory_loses_one() {
    let prepared = Server::prepare(&[("server.workers", "2")]);
    prepared.place.mark("little_memory");
    let server = prepared.start();
    let mut greedy = server.client_at(0);
    let mut others: Vec<Client> = (0..5).map(|_| server.client_at(0)).collect();
    server.wait_quiet();
    let pid = server.pid("workers/0");
    greedy.say("devour");
    assert_eq!(greedy.hear_close(), (1012, "worker lost".into()));
    expect_others_live(&server, &mut others, pid);
    let error = server.wait_call("worker_error", &pid.to_string());
    assert!(error.arguments.ends_with("None Some(6)"), "aborted: {}", error.arguments);
}

fn a_hook_that_never_returns_loses_one() {
    let (server, mut endless, mut others, mut elsewhere) = company();
    let pid = server.pid("workers/0");
    let began = Instant::now();
    endless.say("loop");
    assert_eq!(endless.hear_close(), (1012, "worker lost".into()));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900), "not before its time: {took:?}");
    expect_others_live(&server, &mut others, pid);
    assert_eq!(elsewhere.ask("echo on"), "on");
    let status = server.status();
    assert_eq!(
        (pid_in(&status, "workers/0") != pid, &status["workers"][0]["stuck_killed"]),
        (true, &1.into())
    );
    assert_eq!(status["workers"][1]["stuck_killed"], 0);
    let log = fs::read_to_string(server.place.log()).expect("the log");
    let line = log.lines().find(|line| line.contains("stuck in one turn")).expect("a line");
    for part in [
        format!("pid={pid}"),
        format!("conn=\"{}\"", endless.id),
        "errand=\"message\"".into(),
        "state=\"R\"".into(),
        "connections=6".into(),
        "generation=1".into(),
    ] {
        assert!(line.contains(&part), "no {part} in {line}");
    }
}

/// A worker that is stopped reads no mail: what its neighbour sends it waits there, and outlives it twice.
fn mail_that_waits_outlives_its_sender() {
    let settings = [("server.workers", "2"), ("websocket.send_buffer", "32MiB")];
    let server = Server::start(&settings);
    let (mut sender, mut receiver) = (server.client_at(0), server.client_at(1));
    let before = server.descriptors();
    let reader = Pid::from_raw(server.pid("workers/1"));
    server.wait_quiet();
    kill(reader, Signal::SIGSTOP).expect("it lives");
    let mut sent = 0_u64;
    let mut send_until_waiting = |sender: &mut Client, bytes: u64| {
        wait_until("mail waits", || {
            for size in [20, 3_000, 30_000, 200_000] {
                sent += 1;
                let text = "x".repeat(size);
                assert_eq!(sender.ask(&format!("push {} {sent} {text}", receiver.id)), "Ok(())");
            }
            server.status()["workers"][0]["spilled_bytes"].as_u64() > Some(bytes)
        });
        sent
    };
    send_until_waiting(&mut sender, 1 << 20);
    assert_eq!(server.status()["descriptors"]["spill"], 1);
    // Its own worker each time: the other one cannot stand in for it.
    server.kill_and_wait("workers/0");
    send_until_waiting(&mut sender, 3 << 20);
    let pid = server.kill_and_wait("workers/0");
    assert_eq!(sender.who().2, pid, "nobody is lost");
    let sent = send_until_waiting(&mut sender, 4 << 20);
    kill(reader, Signal::SIGCONT).expect("it lives");
    for number in 1..=sent {
        let text = receiver.hear_text();
        let heard = text.split(' ').next().and_then(|word| word.parse().ok());
        assert_eq!(heard, Some(number), "of {sent}");
    }
    server.wait_status("nothing waits", |status| status["descriptors"]["spill"] == 0);
    server.wait_descriptors(&before);
}
