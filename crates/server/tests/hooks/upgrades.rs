//! Another program takes a running server's place, here the same one: what was under way goes on, and one
//! that would read the shared memory otherwise is refused.

use crate::runner::tests;
use crate::server::{PATIENCE, Server, wait_until};
use dunlin_server::control::{self, ControlAnswer, ControlRequest};

tests![
    another_layout_is_refused_by_the_fact_that_differs,
    a_program_that_cannot_start_a_worker_is_refused,
    timers_and_tasks_go_on_over_an_upgrade,
    an_added_process_is_not_rehearsed_and_starts_anew,
];

fn upgrade(server: &Server) -> ControlAnswer {
    let request = ControlRequest::Upgrade { file: None };
    control::ask(&server.place.run_dir(), &request, PATIENCE).expect("an answer")
}

/// An upgrade now is refused with these words, and nobody notices.
fn refuses(server: &Server, words: &str) {
    let before = server.children();
    let answer = upgrade(server);
    let sentence = answer.error.unwrap_or_default();
    assert!(!answer.ok && sentence.contains(words), "{words:?} is not in {sentence:?}");
    assert_eq!(server.children(), before, "the old generation serves");
}

fn another_layout_is_refused_by_the_fact_that_differs() {
    let server = Server::start(&[]);
    let mut client = server.client();
    server.place.mark("one_more_column");
    refuses(&server, "column more: not there in what runs, Counter in the new program");
    server.place.unmark("one_more_column");
    server.place.mark("another_meaning");
    refuses(&server, "the application's layout version: 0 in what runs, 1 in the new program");
    server.place.unmark("another_meaning");
    let answer = upgrade(&server);
    assert!(answer.ok, "{answer:?}");
    assert_eq!(client.ask("count"), "count 1");
    assert_eq!(server.status()["upgrades"]["refused"], 2);
}

fn a_program_that_cannot_start_a_worker_is_refused() {
    let server = Server::start(&[]);
    let mut client = server.client();
    server.place.mark("fail_worker_start");
    refuses(&server, "as the test wants it");
    assert_eq!(client.ask("echo on"), "on");
}

fn timers_and_tasks_go_on_over_an_upgrade() {
    let server = Server::start(&[("server.workers", "2"), ("server.task_workers", "1")]);
    let mut client = server.client_at(1);
    assert_eq!(client.ask("count"), "count 1");
    client.ask("after 4000 later");
    // In hand when the processes are to make way, and behind it in the queue.
    let slow = client.ask("task sleep 2500").replace("task ", "");
    let queued = client.ask("task say queued").replace("task ", "");
    let answer = upgrade(&server);
    assert!(answer.ok, "{answer:?}");
    assert_eq!(client.ask("count"), "count 2", "the row is the same");
    let finished = |task: &str| server.wait_call("finish", &format!("{task} "));
    assert!(!finished(&slow).arguments.contains("ProcessLost"));
    assert!(finished(&queued).arguments.contains("queued"));
    assert_eq!(finished(&queued).pid, server.pid("workers/1"), "the successor's hook");
    let adopted = server.wait_call("adopt", &client.id);
    assert_eq!(adopted.word(1), "Reload", "it rested, though nothing was left to write down");
    server.wait_call("timer", "later");
    wait_until("nothing is armed", || server.status()["timer"]["armed"] == 0);
    assert_eq!(server.calls("timer").len(), 1, "once");
    assert_eq!(server.calls("open").iter().filter(|line| line.word(0) == client.id).count(), 1);
}

fn an_added_process_is_not_rehearsed_and_starts_anew() {
    let server = Server::prepare(&[]);
    server.place.mark("with_helper");
    let server = server.start();
    server.wait_call("pipe_message", "hello from the helper");
    let answer = upgrade(&server);
    assert!(answer.ok, "{answer:?}");
    wait_until("two lives", || {
        let said = server.calls("process");
        let words: Vec<&str> = said.iter().map(|line| line.arguments.as_str()).collect();
        words == ["begins", "stops", "begins"]
    });
    let masters: Vec<_> = server.calls("start");
    assert_eq!(masters.first().map(|line| line.pid), masters.last().map(|line| line.pid));
    assert!(server.calls("shutdown").iter().all(|line| line.pid != server.master()));
}
