//! What becomes of everybody when a process is killed.

use crate::client::{Client, Heard};
use crate::ledger::{Random, seed};
use crate::runner::tests;
use crate::server::{Server, is_alive, pid_in, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

tests![
    a_killed_worker_loses_no_connection,
    a_large_message_outlives_the_workers_that_received_it,
    a_worker_that_dies_in_a_hook_loses_one,
    a_worker_that_dies_again_and_again,
    a_killed_timer_forgets_nothing,
    a_killed_task_process_is_told_to_its_asker,
    every_task_is_done_or_told_lost_whoever_is_killed,
    a_task_that_takes_too_long,
    a_killed_master_takes_everybody_along,
    a_second_server_is_refused,
    an_added_process_is_restarted_and_stopped,
    redirected_stdio_does_not_keep_a_process_from_stopping,
];

fn a_killed_worker_loses_no_connection() {
    let server = Server::start(&[("server.workers", "2"), ("server.task_workers", "1")]);
    let mut clients: Vec<Client> = (0..40).map(|_| server.client()).collect();
    let mut watcher = server.client_at(1);
    for client in &mut clients {
        assert_eq!(client.ask("count"), "count 1");
    }
    let before = server.descriptors();
    for round in 2..=4 {
        let pid = server.kill_and_wait("workers/0");
        for client in &mut clients {
            let here = watcher.ask(&format!("established {}", client.id));
            assert_eq!(here, "true", "presence is right");
            assert_eq!(client.ask("count"), format!("count {round}"));
            assert_eq!(client.who().2 == pid, client.slot == 0);
        }
        server.wait_descriptors(&before);
    }
    let served = clients.iter().filter(|client| client.slot == 0).count();
    let adopted: Vec<_> = server.calls("adopt");
    assert_eq!(adopted.iter().filter(|line| line.word(1) == "Crash").count(), adopted.len());
    assert!(adopted.len() >= 3 * served, "{} of 3 * {served}", adopted.len());
    assert!(server.calls("close").iter().all(|line| line.word(1) != "1012"));
    let status = server.status();
    assert_eq!(status["workers"][0]["restarts"], 3);
    assert_eq!(status["workers"][0]["generation"], 4);
    // New connections find the slot, too.
    server.client_at(0);
}

fn a_large_message_outlives_the_workers_that_received_it() {
    let server = Server::start(&[("server.workers", "1"), ("server.task_workers", "1")]);
    let (mut client, mut watcher) = (server.client(), server.client());
    let text: String = (0..60_000).map(|number| format!("{number:05} ")).collect();
    let message = format!("echo {text}");
    let length = (message.len() as u64).to_be_bytes();
    let frame = [&[0x81, 0xFF], &length[..], &[0; 4], message.as_bytes()].concat();
    for round in 0..3 {
        let pieces: Vec<&[u8]> = frame.chunks(frame.len().div_ceil(6)).collect();
        for (place, piece) in pieces.into_iter().enumerate() {
            client.write_raw(piece);
            // What came before is served, and the turn is over, when this is answered.
            watcher.ask("count");
            // Gathered over several turns, then by a successor; and from another first piece on.
            if place % 3 == round {
                server.kill_and_wait("workers/0");
            }
        }
        assert!(client.hear_text() == text, "round {round}");
    }
}

fn a_worker_that_dies_in_a_hook_loses_one() {
    let server = Server::start(&[("server.workers", "2")]);
    let (mut unlucky, mut neighbour) = (server.client_at(0), server.client_at(0));
    let mut elsewhere = server.client_at(1);
    unlucky.say("die");
    assert_eq!(unlucky.hear_close(), (1012, "worker lost".into()));
    let close = server.wait_call("close", &unlucky.id);
    assert_eq!(close.word(1), "1012");
    assert!(close.arguments.ends_with("WorkerLost"));
    assert_eq!(close.pid, server.pid("workers/0"), "the successor cleans up");
    assert_eq!(elsewhere.ask(&format!("established {}", unlucky.id)), "false");
    assert_eq!(neighbour.ask("count"), "count 1");
    wait_until("the row is free", || {
        server.status()["sessions"]["lost_handling"] == 1
            && elsewhere.ask(&format!("info {}", unlucky.id)) == "None"
    });
}

fn a_worker_that_dies_again_and_again() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for _ in 0..4 {
        server.kill_and_wait("workers/0");
    }
    assert_eq!(client.ask("count"), "count 1", "the connection is served by the fifth");
    assert_eq!(server.status()["workers"][0]["restarts"], 4);
    assert_eq!(server.calls("worker_error").len(), 4);
}

fn a_killed_timer_forgets_nothing() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let timer = client.ask("after 600 once");
    let tick = client.ask("tick 250 again");
    client.ask("deadline 500");
    let pid = server.kill_and_wait("timer");
    assert_ne!(pid, 0);
    server.wait_call("timer", &format!("{timer} once"));
    server.wait_call("deadline", &client.id);
    wait_until("ticks go on", || {
        server.calls("timer").iter().filter(|line| line.word(0) == tick).count() >= 3
    });
    assert_eq!(server.calls("timer").iter().filter(|line| line.word(0) == timer).count(), 1);
    assert_eq!(server.calls("deadline").len(), 1);
    assert_eq!(server.status()["timer"]["restarts"], 1);
    // A worker's death forgets no timer either, and its successor gets what it armed.
    let late = client.ask("after 400 late");
    server.kill_and_wait("workers/0");
    let call = server.wait_call("timer", &format!("{late} late"));
    assert_eq!(call.pid, server.pid("workers/0"));
}

fn a_killed_task_process_is_told_to_its_asker() {
    let server = Server::start(&[("server.task_workers", "1")]);
    let mut client = server.client();
    let asked = client.ask("task sleep 60000");
    let task = asked.strip_prefix("task ").expect("a number").to_owned();
    server.wait_call("task", &task);
    let queued = client.ask("task say next");
    let queued = queued.strip_prefix("task ").expect("a number").to_owned();
    server.kill_and_wait("tasks/0");
    assert_eq!(server.wait_call("finish", &task).arguments, format!("{task} Err(ProcessLost)"));
    let next = server.wait_call("finish", &queued);
    assert_eq!(next.arguments, format!("{queued} Ok(\"next\")"), "what waits in the queue is kept");
    let status = server.status();
    assert_eq!(
        (&status["tasks"][0]["restarts"], &status["tasks"][0]["failed"]),
        (&1.into(), &1.into())
    );
    client.say("task die");
    client.hear_text();
    server.wait_status("the second", |status| status["tasks"][0]["failed"] == 2);
}

/// Each task ends in `finish`, with its result or as lost, wherever its process is killed.
fn every_task_is_done_or_told_lost_whoever_is_killed() {
    const ROUNDS: u64 = 12;
    const TASKS: u64 = 60;
    let seed = seed();
    println!("DUNLIN_TEST_SEED={seed}");
    let mut random = Random(seed);
    let server = Server::start(&[("server.task_workers", "3")]);
    let mut client = server.client();
    for round in 1..=ROUNDS {
        let running = |status: &serde_json::Value| {
            (0..3).all(|place| status["tasks"][place]["state"] == "running")
        };
        let status = server.wait_status("all task processes", running);
        for _ in 0..TASKS {
            client.say(&format!("task sleep {}", random.below(2)));
        }
        let place = random.below(3);
        std::thread::sleep(Duration::from_micros(random.below(15_000) as u64));
        let pid = pid_in(&status, &format!("tasks/{place}"));
        // It may be that of the round before, whose end has not been noticed yet.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        for _ in 0..TASKS {
            assert!(client.hear_text().starts_with("task "), "taken");
        }
        wait_until(&format!("seed {seed}, round {round}: every task's end"), || {
            server.calls("finish").len() as u64 >= round * TASKS
        });
    }
    let finished = server.calls("finish");
    let lost = finished.iter().filter(|line| line.arguments.contains("ProcessLost")).count();
    println!("{lost} of {} were lost with {ROUNDS} processes", finished.len());
    assert!(lost as u64 <= ROUNDS, "one each at most");
    assert_eq!(finished.len() as u64, ROUNDS * TASKS, "and nobody is told twice");
}

fn a_task_that_takes_too_long() {
    let server = Server::start(&[("server.task_workers", "1"), ("server.task_timeout", "300ms")]);
    let mut client = server.client();
    let asked = client.ask("task sleep 60000");
    let task = asked.strip_prefix("task ").expect("a number").to_owned();
    let finish = server.wait_call("finish", &task);
    assert_eq!(finish.arguments, format!("{task} Err(TimedOut)"));
    client.ask("task say after that");
    server.wait_call("finish", "Ok(\"after that\")");
    assert_eq!(server.status()["tasks"][0]["failed"], 1);
}

fn a_killed_master_takes_everybody_along() {
    let prepared = Server::prepare(&[("server.workers", "2"), ("server.task_workers", "1")]);
    prepared.place.mark("with_helper");
    let mut server = prepared.start();
    let children = server.children();
    assert_eq!(children.len(), 5);
    let mut client = server.client();
    server.signal(Signal::SIGKILL);
    let killed = Instant::now();
    while children.iter().any(|pid| is_alive(*pid)) {
        assert!(killed.elapsed() < Duration::from_secs(1), "an orphan lives on");
        std::thread::sleep(Duration::from_millis(2));
    }
    server.wait_end();
    assert_eq!(client.hear(), Heard::End, "its connection has ended with everybody");
    let server = server.start_again();
    let mut client = server.client();
    assert_eq!(client.ask("count"), "count 1");
    assert_eq!(server.status()["sessions"]["used"], 1);
    assert!(server.children().iter().all(|pid| !children.contains(pid)));
}

fn a_second_server_is_refused() {
    let mut server = Server::start(&[]);
    let other = std::process::Command::new(std::env::current_exe().expect("this binary"))
        .env(crate::server::SERVER_OF, server.place.dir())
        .output()
        .expect("it starts");
    assert_eq!(other.status.code(), Some(1));
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(said.contains(&server.master().to_string()), "it names the pid: {said}");
    assert_eq!(server.client().ask("echo on"), "on", "the first is not disturbed");
    assert!(server.stop().success());
}

fn an_added_process_is_restarted_and_stopped() {
    let prepared = Server::prepare(&[]);
    prepared.place.mark("with_helper");
    let mut server = prepared.start();
    let told = server.wait_call("pipe_message", "hello from the helper");
    assert_eq!((told.role.as_str(), told.word(0)), ("worker0", "Process(1)"));
    assert_eq!(server.status()["processes"][1]["name"], "helper");
    let before = server.descriptors();
    let pid = server.kill_and_wait("processes/1");
    wait_until("the second greets, too", || server.calls("pipe_message").len() == 2);
    server.wait_descriptors(&before);
    // It has its own descriptors, and not one of a client's.
    let client = server.client();
    let held = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count();
    assert!(held < 24, "{held} descriptors");
    drop(client);
    let report = server.reload(Signal::SIGUSR1);
    assert_eq!(report["ok"], true);
    assert!(server.record().iter().any(|line| line.pid == pid && line.arguments == "stops"));
    let last = pid_in(&server.status(), "processes/1");
    assert!(server.stop().success());
    assert!(server.record().iter().any(|line| line.pid == last && line.arguments == "stops"));
    assert!(kill(Pid::from_raw(last), None).is_err(), "it has ended");
}

fn redirected_stdio_does_not_keep_a_process_from_stopping() {
    let prepared = Server::prepare(&[]);
    prepared.place.mark("with_helper");
    prepared.place.mark("helper_with_stdio");
    let mut server = prepared.start();
    let pid = server.pid("processes/1");
    server.wait_call("pipe_message", "hello from the helper");
    assert!(server.stop().success());
    let record = server.record();
    assert!(record.iter().any(|line| line.pid == pid && line.arguments == "stops"));
}
