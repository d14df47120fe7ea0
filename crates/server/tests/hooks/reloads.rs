//! Processes are replaced in order, and nobody's connection notices.

use crate::client::{Client, frame};
use crate::runner::tests;
use crate::server::{Server, pid_in, wait_until};
use nix::sys::signal::Signal;

tests![
    a_reload_keeps_200_connections,
    a_reload_adopts_and_does_not_open,
    a_failing_worker_start_changes_nothing,
    a_reload_that_fails_midway_is_undone,
    sigusr2_replaces_only_tasks,
    max_request_recycles_without_loss,
    a_worker_asked_by_sigterm_is_recycled,
    a_closing_connection_closes_over_a_reload,
    unsent_output_crosses_a_reload,
    reloads_in_a_row_close_nobody_s_descriptor,
    a_resting_worker_touches_nobody,
];

fn a_reload_keeps_200_connections() {
    let server = Server::start(&[("server.workers", "2"), ("server.task_workers", "1")]);
    let mut clients: Vec<Client> = (0..200).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("count"), "count 1");
    }
    let mut halves = [server.client_at(0), server.client_at(1), server.client_at(0)];
    // One is in the middle of a message and of its next frame's payload, one in the middle of a
    // header, one between two fragments.
    let (first, second) = (frame(false, 1, b"echo one "), frame(true, 0, b"and two"));
    let cuts = [second.len() - 3, 4, 0];
    for (client, cut) in halves.iter_mut().zip(cuts) {
        client.write_raw(&first);
        client.write_raw(&second[..cut]);
    }
    server.wait_status("only these connections", |status| {
        let open = |slot: usize| status["workers"][slot]["connections"].as_u64();
        open(0).zip(open(1)).map(|(left, right)| left + right) == Some(203)
    });
    let before = server.descriptors();
    let report = server.reload(Signal::SIGUSR1);
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!((&report["adopted"], &report["dropped"]), (&203.into(), &0.into()));
    for (client, cut) in halves.iter_mut().zip(cuts) {
        client.write_raw(&second[cut..]);
        assert_eq!(client.hear_text(), "one and two");
    }
    for client in &mut clients {
        assert_eq!(client.ask("count"), "count 2", "the row is the same");
        let (id, slot, pid) = client.who();
        assert_eq!((&id, slot), (&client.id, client.slot));
        assert_ne!(pid, client.pid, "served by another process");
    }
    let status = server.status();
    assert_eq!(status["sessions"]["used"], 203);
    let closed: u64 =
        (0..2).map(|slot| status["workers"][slot]["closed"].as_u64().expect("a count")).sum();
    let opened = server.calls("open").len() as u64;
    assert_eq!(opened - closed, 203, "only what tests for a slot was closed");
    server.wait_descriptors(&before);
}

fn a_reload_adopts_and_does_not_open() {
    let server = Server::start(&[("server.workers", "2")]);
    let (left, right) = (server.client_at(0), server.client_at(1));
    let opened = server.calls("open").len();
    server.reload(Signal::SIGUSR1);
    server.reload(Signal::SIGUSR1);
    assert_eq!(server.calls("open").len(), opened, "`open` is not called again");
    for client in [&left, &right] {
        let adopted: Vec<_> =
            server.calls("adopt").into_iter().filter(|line| line.word(0) == client.id).collect();
        assert_eq!(adopted.len(), 2);
        assert!(adopted.iter().all(|line| line.word(1) == "Reload"));
        assert!(adopted.iter().all(|line| line.role == format!("worker{}", client.slot)));
        assert_eq!(adopted[1].pid, server.pid(&format!("workers/{}", client.slot)));
    }
    // Replaced, not stopped, and before that the successor's `worker_start`.
    wait_until("the last words", || server.calls("worker_stop").len() >= 4);
    let record = server.record();
    assert!(server.calls("worker_stop").iter().all(|line| line.arguments == "Replaced"));
    let of_worker_0: Vec<_> = record.iter().filter(|line| line.role == "worker0").collect();
    let starts: Vec<_> = of_worker_0.iter().filter(|line| line.hook == "worker_start").collect();
    let stop = of_worker_0.iter().position(|line| line.hook == "worker_stop").expect("stopped");
    let second = of_worker_0.iter().position(|line| line == starts[1]).expect("started");
    assert!(second < stop, "the successor is up before the old one leaves");
}

fn a_failing_worker_start_changes_nothing() {
    let server = Server::start(&[("server.workers", "2"), ("server.task_workers", "1")]);
    let mut client = server.client();
    let before = server.children();
    server.place.mark("fail_worker_start");
    let report = server.reload(Signal::SIGUSR1);
    assert_eq!(report["ok"], false);
    let sentence = report["error"].as_str().expect("a sentence");
    assert!(sentence.contains("as the test wants it"), "{sentence}");
    assert_eq!(server.calls("after_reload")[0].arguments, "1 Some(false)");
    assert_eq!(server.children(), before, "the old generation serves");
    assert_eq!(client.ask("echo on"), "on");
    assert!(server.calls("adopt").is_empty());
    server.place.unmark("fail_worker_start");
    let report = server.reload(Signal::SIGUSR1);
    assert_eq!((&report["ok"], &report["adopted"]), (&true.into(), &1.into()));
    assert!(server.children().iter().all(|pid| !before.contains(pid)));
    assert_eq!(client.ask("echo on"), "on");
    let restarts = server.status()["workers"][0]["restarts"].clone();
    assert_eq!(restarts, 0, "a replacement in order is no restart");
}

fn a_reload_that_fails_midway_is_undone() {
    let server = Server::start(&[("server.workers", "2"), ("server.task_workers", "1")]);
    let mut client = server.client();
    let before = server.status();
    server.place.mark("fail_worker_start_in_slot_1");
    let report = server.reload(Signal::SIGUSR1);
    assert_eq!(report["ok"], false);
    // Slot 0 had its successor with the new settings, and gets another with the old ones.
    server.wait_status("slot 0 in its third life", |status| {
        status["workers"][0]["generation"] == 3 && status["workers"][0]["state"] == "running"
    });
    let after = server.status();
    assert_eq!(pid_in(&before, "workers/1"), pid_in(&after, "workers/1"), "it goes on");
    assert_eq!(pid_in(&before, "timer"), pid_in(&after, "timer"), "its turn never came");
    assert_eq!(server.calls("before_reload").len(), 2, "the new settings, and the old ones back");
    assert_eq!(after["generation"], 1, "no reload was applied");
    assert_eq!(client.ask("echo on"), "on");
}

fn sigusr2_replaces_only_tasks() {
    let server = Server::start(&[("server.workers", "2"), ("server.task_workers", "2")]);
    let before = server.status();
    let report = server.reload(Signal::SIGUSR2);
    assert_eq!(report["ok"], true);
    let after = server.status();
    for same in ["workers/0", "workers/1", "timer"] {
        assert_eq!(pid_in(&before, same), pid_in(&after, same));
    }
    for other in ["tasks/0", "tasks/1"] {
        assert_ne!(pid_in(&before, other), pid_in(&after, other));
    }
    let mut client = server.client();
    client.ask("task say fresh");
    server.wait_call("finish", "Ok(\"fresh\")");
}

fn max_request_recycles_without_loss() {
    let server = Server::start(&[("server.max_request", "50")]);
    let mut clients = [server.client(), server.client()];
    let mut number = 0;
    wait_until("the fourth life", || {
        for _ in 0..25 {
            number += 1;
            for client in &mut clients {
                assert_eq!(client.ask("count"), format!("count {number}"));
            }
        }
        server.status()["workers"][0]["generation"].as_u64() >= Some(4)
    });
    let status = server.status();
    assert_eq!(status["workers"][0]["restarts"], 0);
    assert_eq!(status["reloads"]["asked"], 0, "not a reload");
    assert!(server.calls("worker_error").is_empty());
    assert!(server.calls("adopt").iter().all(|line| line.word(1) == "Reload"));
}

fn a_worker_asked_by_sigterm_is_recycled() {
    let server = Server::start(&[]);
    let mut client = server.client();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(client.pid), Signal::SIGTERM).expect("lives");
    wait_until("a successor", || client.who().2 != client.pid);
    assert!(server.calls("worker_error").is_empty());
    assert_eq!(client.ask("count"), "count 1");
}

fn a_closing_connection_closes_over_a_reload() {
    let server = Server::start(&[]);
    let (mut closing, mut other) = (server.client(), server.client());
    // Its close frame is out, and the client has not answered it yet.
    assert_eq!(other.ask(&format!("disconnect {} 4001 enough", closing.id)), "true");
    assert_eq!(other.ask(&format!("established {}", closing.id)), "false");
    server.reload(Signal::SIGUSR1);
    assert_eq!(closing.hear_close(), (4001, "enough".into()));
    let close = server.wait_call("close", &closing.id);
    assert_eq!(close.arguments, format!("{} 4001 \"enough\" Server", closing.id));
    assert_eq!(server.calls("close").len(), 1, "once");
}

fn unsent_output_crosses_a_reload() {
    let server = Server::start(&[("websocket.send_buffer", "8MiB")]);
    let mut sender = server.client();
    let mut slow = crate::order::slow_client(&server);
    let mut taken = 0_u64;
    // More than the kernel takes, so that some waits in the outbox at the reload.
    wait_until("a full outbox", || {
        let answer = sender.ask(&format!("drop {} 16 65536", slow.id));
        let count = answer.split(' ').next().expect("how many were taken");
        taken += count.parse::<u64>().expect("a number");
        !server.calls("buffer_full").is_empty()
    });
    let report = server.reload(Signal::SIGUSR1);
    assert_eq!((&report["ok"], &report["dropped"]), (&true.into(), &0.into()));
    assert_eq!(sender.ask(&format!("push {} the end", slow.id)), "Ok(())");
    for number in 0..taken {
        let heard = slow.hear();
        let whole = heard == crate::client::Heard::Binary(vec![b'x'; 65536]);
        assert!(whole, "message {number} of {taken}");
    }
    assert_eq!(slow.hear_text(), "the end", "in order");
}

/// The workers that leave and those that come share one descriptor table, and each hook opens the
/// record's file in it: a number that is closed twice hits somebody.
fn reloads_in_a_row_close_nobody_s_descriptor() {
    let server = Server::start(&[("server.workers", "4"), ("server.task_workers", "2")]);
    let mut clients: Vec<Client> = (0..24).map(|_| server.client()).collect();
    let before = server.descriptors();
    for round in 1..=25 {
        server.signal(Signal::SIGUSR1);
        wait_until("the end of the reload", || {
            for client in &mut clients {
                client.say("count");
            }
            for client in &mut clients {
                assert!(client.hear_text().starts_with("count "), "round {round}");
            }
            server.calls("after_reload").len() == round
        });
    }
    assert!(server.calls("after_reload").iter().all(|line| line.arguments.ends_with("Some(true)")));
    let status = server.status();
    for worker in status["workers"].as_array().expect("the workers") {
        assert_eq!((&worker["hook_panics"], &worker["restarts"]), (&0.into(), &0.into()));
    }
    assert!(server.calls("worker_error").is_empty());
    server.wait_descriptors(&before);
}

fn a_resting_worker_touches_nobody() {
    // Pings are due all the time, also in the turn in which a worker is asked to rest.
    let settings = [("server.workers", "2"), ("websocket.ping_interval", "100ms")];
    let server = Server::start(&settings);
    let mut clients: Vec<Client> = (0..16).map(|_| server.client()).collect();
    for round in 1..=20 {
        server.signal(Signal::SIGUSR1);
        wait_until("the end of the reload", || server.calls("after_reload").len() == round);
    }
    for client in &mut clients {
        assert_eq!(client.ask("echo on"), "on");
    }
    let lost = server.status()["sessions"]["lost_handling"].clone();
    assert_eq!(lost, 0);
}
