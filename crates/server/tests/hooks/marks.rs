//! Marks that stand once what was pushed before has left, and turns that are over or not.

use crate::runner::tests;
use crate::server::{Server, wait_until};

tests![
    a_mark_stands_when_the_turn_is_over,
    a_worker_that_dies_in_its_turn_marks_nothing,
    a_mark_from_a_task_process,
];

fn a_mark_stands_when_the_turn_is_over() {
    let server = Server::start(&[("server.workers", "2")]);
    let (mut client, mut watcher) = (server.client_at(0), server.client_at(1));
    let turn = client.ask("mark 0 hello to the other");
    assert_eq!(client.hear_text(), "marked 0", "not yet in the hook that asks for it");
    // The answer is output of the same turn, and the mark comes before its end.
    wait_until("the mark", || watcher.ask("marked 0") == "1");
    wait_until("the turn is over", || watcher.ask(&format!("under_way {turn}")) == "false");
    let own = client.ask("turn");
    assert_ne!(own, turn, "another turn has another name");
    assert_eq!(client.ask("under_way_now"), "true", "the one that asks goes on");
    assert_eq!(watcher.ask("under_way 0"), "false", "no turn");
    assert_eq!(watcher.ask(&format!("under_way {}", u64::MAX >> 2)), "false", "of no slot");
}

fn a_worker_that_dies_in_its_turn_marks_nothing() {
    let server = Server::start(&[("server.workers", "2")]);
    let (mut client, mut watcher) = (server.client_at(0), server.client_at(1));
    client.say("mark_and_die");
    wait_until("the turn", || watcher.ask("marked 1") != "0");
    let turn = watcher.ask("marked 1");
    wait_until("its death is noticed", || watcher.ask(&format!("under_way {turn}")) == "false");
    assert_eq!(watcher.ask("marked 0"), "0", "what it pushed may not have left");
    assert_eq!(client.hear_close().0, 1012);
}

fn a_mark_from_a_task_process() {
    let server = Server::start(&[("server.task_workers", "1")]);
    let mut client = server.client();
    client.ask("task mark");
    wait_until("the mark", || client.ask("marked 0") == "1");
}
