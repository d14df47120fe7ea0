//! Many clients that are gone at once: others are served meanwhile.

use crate::client::{Client, Raw};
use crate::runner::tests;
use crate::server::{Server, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

tests![thousands_that_vanish_are_closed_in_slices];

fn thousands_that_vanish_are_closed_in_slices() {
    const CLIENTS: usize = 1_500;
    let server = Server::start(&[("table.max_sessions", "2048")]);
    let mut stays = server.client();
    let crowd: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    let worker = Pid::from_raw(server.pid("workers/0"));
    // All of it lies there when the worker goes on: the ends, and a newcomer behind them.
    kill(worker, Signal::SIGSTOP).expect("the worker lives");
    drop(crowd);
    let mut newcomer = Raw::connect(server.address);
    newcomer.ask_upgrade("/new");
    stays.say("echo still");
    kill(worker, Signal::SIGCONT).expect("the worker lives");
    assert_eq!(newcomer.hear().0, 101);
    assert_eq!(stays.hear_text(), "still");
    wait_until("all are closed", || server.calls("close").len() == CLIENTS);
    let record = server.record();
    let opened = record.iter().position(|line| line.hook == "open" && line.word(1) == "/new");
    let before = opened.expect("it was opened");
    let closed = record[..before].iter().filter(|line| line.hook == "close").count();
    // Taken in with one turn, upgraded with the next or the one after.
    assert!(closed <= 4 * 128, "{closed} were closed before somebody new was let in");
    let delayed = server.status()["workers"][0]["closes_delayed"].as_u64().expect("a count");
    assert!(delayed >= 3, "{delayed} turns left some for the next");
    assert_eq!(server.status()["sessions"]["used"], 2);
    assert_eq!(stays.ask("echo on"), "on");
}
