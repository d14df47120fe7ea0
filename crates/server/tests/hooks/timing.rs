//! Timers and deadlines: when they fire, and that they do not when they must not.

use crate::runner::tests;
use crate::server::{Line, Server, wait_until};
use std::time::{Duration, Instant};
use tungstenite::Message;

tests![
    a_timer_fires_once_and_not_early,
    ticks_do_not_drift,
    missed_ticks_collapse,
    a_cleared_timer_is_silent,
    a_deadline_fires_once_and_not_early,
    frames_move_a_heartbeat,
];

/// A call of the `timer` hook: ticks, due, now.
fn figures(line: &Line) -> (u64, u64, u64) {
    let figure = |place| line.word(place).parse().expect("a number");
    (figure(2), figure(3), figure(4))
}

fn calls_of(server: &Server, timer: &str) -> Vec<Line> {
    server.calls("timer").into_iter().filter(|line| line.word(0) == timer).collect()
}

fn a_timer_fires_once_and_not_early() {
    let server = Server::start(&[("server.workers", "2")]);
    let mut client = server.client_at(1);
    let late = client.ask("after 300 later");
    let soon = client.ask("after 1 soon");
    let first = server.wait_call("timer", "soon");
    assert_eq!((first.word(0), first.role.as_str()), (soon.as_str(), "worker1"));
    let second = server.wait_call("timer", "later");
    assert_eq!((second.word(0), second.pid), (late.as_str(), client.pid));
    let (ticks, due, now) = figures(&second);
    assert_eq!(ticks, 1);
    assert!(now >= due, "never early");
    wait_until("nothing is armed", || server.status()["timer"]["armed"] == 0);
    assert_eq!(calls_of(&server, &late).len(), 1, "once");
    assert_eq!(client.ask(&format!("clear {late}")), "false", "it is gone");
}

fn ticks_do_not_drift() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let tick = client.ask("tick 30 beat");
    wait_until("twenty ticks", || calls_of(&server, &tick).len() >= 20);
    assert_eq!(client.ask(&format!("clear {tick}")), "true");
    let calls = calls_of(&server, &tick);
    let first = figures(&calls[0]).1;
    let mut expected = first;
    for call in &calls {
        let (ticks, due, now) = figures(call);
        assert_eq!(due, expected, "each is due a whole number of periods after the first");
        assert!(now >= due);
        expected = due + 30 * ticks;
    }
}

fn missed_ticks_collapse() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let tick = client.ask("tick 20 beat");
    wait_until("it beats", || calls_of(&server, &tick).len() >= 2);
    // Nobody is told while the timer process stands still: what it missed is one call with a count.
    let timer = nix::unistd::Pid::from_raw(server.pid("timer"));
    nix::sys::signal::kill(timer, nix::sys::signal::Signal::SIGSTOP).expect("it lives");
    let stopped = Instant::now();
    let before = calls_of(&server, &tick).len();
    wait_until("some time", || stopped.elapsed() > Duration::from_millis(500));
    nix::sys::signal::kill(timer, nix::sys::signal::Signal::SIGCONT).expect("it lives");
    wait_until("it goes on", || calls_of(&server, &tick).len() >= before + 4);
    let calls = calls_of(&server, &tick);
    let most = calls.iter().map(|line| figures(line).0).max().expect("a call");
    assert!(most >= 20, "{most} ticks in one call");
    let told: u64 = calls.iter().map(|line| figures(line).0).sum();
    let (last, first) = (figures(&calls[calls.len() - 1]), figures(&calls[0]));
    assert_eq!(told, (last.1 - first.1) / 20 + last.0, "each tick is counted once");
}

fn a_cleared_timer_is_silent() {
    let server = Server::start(&[("server.max_timers", "2"), ("server.workers", "2")]);
    let mut client = server.client_at(0);
    let first = client.ask("after 200 never");
    let second = client.ask("tick 200 never");
    assert_eq!(client.ask("after 1 full"), "refused", "server.max_timers are armed");
    // From another slot, too.
    let mut other = server.client_at(1);
    assert_eq!(other.ask(&format!("clear {first}")), "true");
    assert_eq!(client.ask(&format!("clear {second}")), "true");
    assert_eq!(client.ask(&format!("clear {second}")), "false");
    client.ask("after 400 later");
    server.wait_call("timer", "later");
    assert_eq!(server.calls("timer").len(), 1, "the cleared ones were silent");
}

fn a_deadline_fires_once_and_not_early() {
    let server = Server::start(&[("server.workers", "2")]);
    let mut client = server.client_at(1);
    let answer = client.ask("deadline 200");
    let due: u64 = answer.strip_prefix("deadline ").expect("when").parse().expect("a number");
    let call = server.wait_call("deadline", &client.id);
    assert_eq!(call.pid, client.pid, "in the worker that serves it");
    assert!(call.word(1).parse::<u64>().expect("when") >= due, "never early");
    client.ask("after 300 a while");
    server.wait_call("timer", "a while");
    assert_eq!(server.calls("deadline").len(), 1, "once");
    assert_eq!(client.ask("echo open"), "open", "what follows is the application's matter");
}

fn frames_move_a_heartbeat() {
    let server = Server::start(&[]);
    let mut client = server.client();
    assert_eq!(client.ask("heartbeat 1000"), "heartbeat");
    let began = Instant::now();
    let mut last = began;
    wait_until("two heartbeats long", || {
        if last.elapsed() > Duration::from_millis(100) {
            client.socket.send(Message::Ping(Vec::new().into())).expect("taken");
            last = Instant::now();
        }
        began.elapsed() > Duration::from_millis(2_200)
    });
    assert!(server.calls("deadline").is_empty(), "a ping is a sign of life");
    let silent = Instant::now();
    server.wait_call("deadline", &client.id);
    assert!(silent.elapsed() > Duration::from_millis(700), "a second after the last sign");
}
