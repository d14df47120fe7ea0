//! The programs that the pages quote do what the pages say.

use crate::im::upgrade_request;
use crate::support::Server;
use crate::support::http::Http;
use crate::support::process;
use crate::support::raw::{Raw, TEXT, frame};
use crate::support::server::Starter;
use crate::support::wait;
use std::fs;

/// A client of a server of texts.
struct Guest(Raw);

impl Guest {
    fn of(server: &Server, path: &str) -> Self {
        let mut http = Http::connect(server.address);
        http.send(upgrade_request(path));
        assert_eq!(http.head().status, 101);
        Self(Raw::over(http))
    }

    fn says(&mut self, text: &str) {
        self.0.send(frame(TEXT, text.as_bytes()));
    }

    fn hears(&mut self) -> String {
        let frame = self.0.frame().expect("an open connection");
        assert_eq!(frame.opcode, 1, "{frame:?}");
        String::from_utf8(frame.payload).expect("UTF-8")
    }

    /// Reads up to this text.
    fn hears_of(&mut self, text: &str) {
        while self.hears() != text {}
    }
}

fn two_workers(example: &str) -> Starter {
    Server::example(example).args(&["-w", "2"])
}

/// Kills every worker; gives back when each has another.
fn kill_workers(server: &Server) {
    let before = server.status().worker_pids();
    before.iter().for_each(|pid| process::signal("KILL", *pid));
    server.wait_until("other workers", |status| {
        status.ready_workers() == 2 && status.worker_pids().iter().all(|pid| !before.contains(pid))
    });
}

fn get(server: &Server, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    Http::connect(server.address).ask(request).body
}

#[test]
fn the_smallest_server_repeats_what_it_hears() {
    let starter = Server::example("smallest").env("DUNLIN_SERVER__LISTEN", "127.0.0.1:0");
    let run_dir = starter.dir().run_dir();
    let server = starter.env("DUNLIN_SERVER__RUN_DIR", &run_dir.to_string_lossy()).start();
    let mut guest = Guest::of(&server, "/");
    guest.says("tea");
    assert_eq!(guest.hears(), "tea");

    let wrong = Server::example("smallest").env("DUNLIN_SERVER__WORKER", "2").run();
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("DUNLIN_SERVER__WORKERS"), "{wrong:?}");
}

#[test]
fn the_poll_counts_every_vote_whoever_dies() {
    let server = two_workers("poll").start();
    let nameless = Http::connect(server.address).ask(upgrade_request("/"));
    assert_eq!((nameless.status, &*nameless.body), (400, "say who you are: /?name=ann\n"));

    let mut ann = Guest::of(&server, "/?name=ann");
    assert_eq!(ann.hears(), "hello ann, say one of: tea, coffee");
    ann.says("tea");
    ann.hears_of("tea: 1 (ann) · coffee: 0 ()");
    let mut bob = Guest::of(&server, "/?name=bob");
    bob.says("tea");
    ann.hears_of("tea: 2 (ann, bob) · coffee: 0 ()");
    bob.hears_of("tea: 2 (ann, bob) · coffee: 0 ()");
    ann.says("save");
    ann.hears_of("saved: tea: 2 (ann, bob) · coffee: 0 ()");
    let saved = fs::read_to_string(server.dir().path().join("poll.txt")).expect("the file");
    assert_eq!(saved, "tea: 2 (ann, bob) · coffee: 0 ()\n");

    kill_workers(&server);
    for guest in [&mut ann, &mut bob] {
        guest.hears_of("the process that served you has died; I go on");
    }
    bob.says("cofee");
    bob.hears_of("say tea, coffee or save");
    bob.says("coffee");
    ann.hears_of("tea: 1 (ann) · coffee: 1 (bob)");
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    assert_eq!(get(&server, "/result"), "tea: 1 (ann) · coffee: 1 (bob)\n");
    drop(bob);
    ann.hears_of("tea: 1 (ann) · coffee: 0 ()");

    server.signal("TERM");
    ann.hears_of("the poll is over");
    assert_eq!(ann.0.close_code(), 1001);
}

#[test]
fn a_poll_that_cannot_write_says_so() {
    let server = two_workers("poll").args(&["--set", "poll.file=no/such/folder"]).start();
    let mut ann = Guest::of(&server, "/?name=ann");
    assert_eq!(ann.hears(), "hello ann, say one of: tea, coffee");
    ann.says("save");
    let answer = ann.hears();
    assert!(answer.starts_with("saved: not saved: No such file"), "{answer}");
}

#[test]
fn the_hall_does_what_its_model_in_php_does() {
    let server = two_workers("hall").args(&["-t", "2"]).start();
    let mut ann = Guest::of(&server, "/?name=ann");
    assert_eq!(ann.hears(), "welcome ann, visit 1");
    let mut bob = Guest::of(&server, "/?name=bob");
    assert_eq!(bob.hears(), "welcome bob, visit 1");
    ann.says("all hello");
    ann.hears_of("ann: hello");
    bob.hears_of("ann: hello");
    ann.says("note buy tea");
    ann.hears_of("noted, 13 bytes");
    let notes = fs::read_to_string(server.dir().path().join("notes.txt")).expect("the file");
    assert_eq!(notes, "ann: buy tea\n");
    ann.says("what");
    ann.hears_of("all, note, visits, bye or reload?");
    // The timer of the one session, and what the process beside the workers tells.
    bob.hears_of("say: all hello");
    while !bob.hears().starts_with("load ") {}

    ann.says("reload");
    server.wait_until("the reload", |status| status.number("/reloads/done") == 1);
    kill_workers(&server);
    ann.says("bye");
    assert_eq!(ann.0.close_code(), 1000);
    let mut again = Guest::of(&server, "/?name=ann");
    assert_eq!(again.hears(), "welcome ann, visit 2");
    again.says("visits");
    again.hears_of("visits: 2");
    // The tick of the first worker's first life.
    again.hears_of("2 here");
}

#[test]
fn visitors_counted_by_each_process_are_counted_twice() {
    let server = two_workers("visitors_alone").start();
    let mut guests = Vec::new();
    // The kernel spreads connections as it likes: sooner or later both workers have one.
    let firsts = wait::for_some("a first visitor of each worker", || {
        let mut guest = Guest::of(&server, "/");
        let first = guest.hears().starts_with("you are visitor 1, ");
        guests.push((guest, first));
        let firsts = guests.iter().filter(|(_, first)| *first).count();
        (firsts == 2).then_some(firsts)
    });
    assert_eq!(firsts, 2);
}

#[test]
fn visitors_counted_in_shared_memory_are_counted_once() {
    let server = two_workers("visitors").start();
    let mut guests: Vec<Guest> = Vec::new();
    for number in 1..=8 {
        let mut guest = Guest::of(&server, "/");
        assert_eq!(guest.hears(), format!("you are visitor {number}, {number} here now"));
        guests.push(guest);
    }
    server.wait_until("all of them in the counts of two workers", |status| {
        let of = |slot: usize| status.number(&format!("/workers/{slot}/connections"));
        of(0) + of(1) == 8
    });
    guests[3].says("tea");
    guests.iter_mut().for_each(|guest| guest.hears_of("tea"));
    kill_workers(&server);
    assert_eq!(Guest::of(&server, "/").hears(), "you are visitor 9, 9 here now");
}
