//! Descriptors: whoever dies when, none leaks, none is closed twice, and the ledger says what is open.

use crate::client::{Client, Heard, Raw};
use crate::runner::tests;
use crate::server::{PATIENCE, Server, is_alive, pid_in, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value as Json;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tungstenite::Message;

tests![
    what_nobody_noted_is_closed_after_a_death,
    the_table_is_reserved_and_the_limit_is_told,
    random_kills_leave_no_descriptor_and_close_none_twice,
];

/// What a worker has of its own: two epolls, a pipe for signals, its end of the control pipe.
const PRIVATE_PER_WORKER: u64 = 5;

fn what_nobody_noted_is_closed_after_a_death() {
    let server = Server::start(&[("server.workers", "2")]);
    let (mut leaky, mut other) = (server.client_at(0), server.client_at(1));
    let before = server.descriptors();
    let leaked = leaky.ask(&format!("leak {}", server.address.port()));
    let numbers: Vec<&str> = leaked.split(' ').skip(1).collect();
    assert_eq!(numbers.len(), 2, "{leaked}");
    server.wait_status("they show", |status| status["descriptors"]["unknown"] == 2);
    server.wait_quiet();
    assert_eq!(server.descriptors().len(), before.len() + 2, "a living worker's are left alone");
    server.kill_and_wait("workers/0");
    server.wait_status("they are closed", |status| status["descriptors"]["unknown"] == 0);
    server.wait_descriptors(&before);
    assert_eq!(leaky.ask("echo on"), "on");
    assert_eq!(other.ask("echo on"), "on");
    let log = fs::read_to_string(server.place.log()).expect("the log");
    for number in numbers {
        assert!(log.contains(&format!("number={number}")), "{number} is not told: {log}");
    }
}

fn the_table_is_reserved_and_the_limit_is_told() {
    let server = Server::start(&[("server.workers", "2"), ("table.max_sessions", "3000")]);
    let client = server.client();
    let descriptors = server.status()["descriptors"].take();
    let reserved = descriptors["reserved"].as_u64().expect("a count");
    assert!(reserved > 3_000 && reserved <= descriptors["limit"].as_u64().expect("a count"));
    // All that share the table have it at its full size: it never grows while they serve.
    for pid in [server.master(), client.pid] {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
        let size: u64 = size.expect("a line").trim().parse().expect("a count");
        assert!(size >= reserved, "{size} of {reserved}");
    }
    assert_eq!(descriptors["sessions"], 1);
    assert_eq!(descriptors["private"], 2 * PRIVATE_PER_WORKER);
}

/// Workers, timer, task processes and an added process are killed at random moments of a mixed traffic,
/// with reloads in between. After each the traffic pauses, and what is open is held against the ledger.
fn random_kills_leave_no_descriptor_and_close_none_twice() {
    const ROUNDS: usize = 25;
    let seed = seed();
    println!("DUNLIN_TEST_SEED={seed}");
    let mut random = Random(seed);
    let settings = [
        ("server.workers", "3"),
        ("server.task_workers", "2"),
        ("http.max_connections", "64"),
        ("websocket.send_buffer", "4MiB"),
    ];
    let prepared = Server::prepare(&settings);
    prepared.place.mark("quiet");
    prepared.place.mark("with_helper");
    let server = prepared.start();
    let before = server.descriptors();
    let master_before = server.status()["descriptors"]["master"].clone();
    let traffic = Traffic::default();
    thread::scope(|scope| {
        let (server, traffic) = (&server, &traffic);
        for number in 0..6 {
            scope.spawn(move || traffic.ask_again_and_again(server, number));
        }
        scope.spawn(move || traffic.send_parcels(server));
        scope.spawn(move || traffic.come_and_go(server, Random(seed ^ 0x5555)));
        // Whatever fails below, the threads must end.
        let over = EndsTraffic(traffic);
        for round in 0..ROUNDS {
            traffic.go_on();
            if random.below(3) == 0 {
                server.signal(Signal::SIGUSR1);
            }
            thread::sleep(Duration::from_micros(random.below(60_000) as u64));
            let victims = 1 + random.below(2);
            let killed: Vec<String> = (0..victims).map(|_| kill_one(server, &mut random)).collect();
            traffic.pause();
            let what = format!("seed {seed}, round {round}, killed {killed:?}");
            wait_calm(server, &what);
            hold_against_ledger(server, &master_before, &what);
        }
        drop(over);
    });
    server.wait_status("nobody is left", |status| {
        status["descriptors"]["sessions"] == 0 && status["descriptors"]["handshaking"] == 0
    });
    server.wait_descriptors(&before);
}

fn kill_one(server: &Server, random: &mut Random) -> String {
    let status = server.status();
    let of = match random.below(10) {
        0 => "timer".to_owned(),
        1 => "processes/1".to_owned(),
        2 => format!("tasks/{}", random.below(2)),
        _ => format!("workers/{}", random.below(3)),
    };
    let pid = pid_in(&status, &of);
    if pid > 0 && is_alive(pid) {
        // It may have ended in between.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    of
}

/// Waits until every process serves and nobody is in the middle of anything.
fn wait_calm(server: &Server, what: &str) {
    let mut calm = 0;
    wait_until(what, || {
        let status = server.status();
        let running = |kind: &str| {
            let all = status[kind].as_array().expect("a kind of process");
            all.iter()
                .all(|one| one["state"] == "running" && one["busy_ms"].as_u64().unwrap_or(0) == 0)
        };
        let serves = running("workers") && running("tasks") && running("processes");
        calm = if serves && status["state"] == "running" { calm + 1 } else { 0 };
        calm == 3
    });
}

/// No number without an entry that stays, no entry without an open number, no connection without a row
/// or a worker; and what the kernel shows is as many.
fn hold_against_ledger(server: &Server, master: &Json, what: &str) {
    let began = Instant::now();
    loop {
        let status = server.status();
        let open = fs::read_dir(format!("/proc/{}/fd", server.master())).expect("it lives").count();
        match disagreement(&status, master, open as u64) {
            None => return,
            Some(why) if began.elapsed() > PATIENCE => {
                panic!("{what}: {why}\n{}", status["descriptors"]);
            }
            Some(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn disagreement(status: &Json, master: &Json, open: u64) -> Option<String> {
    let descriptors = &status["descriptors"];
    let count = |name: &str| descriptors[name].as_u64().expect("a count");
    let workers = status["workers"].as_array().expect("the workers");
    let sum = |name: &str| workers.iter().map(|one| one[name].as_u64().expect("a count")).sum();
    let (sessions, connections): (u64, u64) = (sum("sessions"), sum("connections"));
    let rows = status["sessions"]["used"].as_u64().expect("a count");
    let private = PRIVATE_PER_WORKER * workers.len() as u64;
    let noted =
        ["sessions", "handshaking", "private", "master", "rest", "spill"].map(count).iter().sum();
    [
        ("nobody's", count("unknown"), 0),
        ("noted and closed", count("stale"), 0),
        ("for a successor", count("rest"), 0),
        ("mail that waits", count("spill"), 0),
        ("private", count("private"), private),
        ("the master's", count("master"), master.as_u64().expect("a count")),
        ("sessions by their workers", count("sessions"), sessions),
        ("sessions by their rows", count("sessions"), rows),
        ("plain connections", count("handshaking"), connections.saturating_sub(sessions)),
        ("all by their entries", count("open"), noted),
        ("all by /proc", count("open"), open),
    ]
    .into_iter()
    .find(|(_, is, ought)| is != ought)
    .map(|(name, is, ought)| format!("{name}: {is}, not {ought}"))
}

/// What clients do until they are told to pause, and how many of them do.
#[derive(Default)]
struct Traffic {
    paused: AtomicBool,
    over: AtomicBool,
    /// Threads that do something.
    busy: AtomicUsize,
}

struct EndsTraffic<'a>(&'a Traffic);

impl Drop for EndsTraffic<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

impl Traffic {
    fn go_on(&self) {
        self.paused.store(false, Ordering::SeqCst);
    }

    fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        wait_until("the traffic pauses", || self.busy.load(Ordering::SeqCst) == 0);
    }

    /// Calls `step` until the end, but for pauses.
    fn drive(&self, mut step: impl FnMut()) {
        while !self.over.load(Ordering::SeqCst) {
            self.busy.fetch_add(1, Ordering::SeqCst);
            if self.paused.load(Ordering::SeqCst) {
                self.busy.fetch_sub(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            step();
            self.busy.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// A client that asks, and comes again where it was closed.
    fn ask_again_and_again(&self, server: &Server, number: usize) {
        let mut client = None;
        let mut asked = 0_u64;
        self.drive(|| {
            let Some(open) = &mut client else {
                client = Client::try_connect(server.address);
                return;
            };
            asked += 1;
            let text = format!("echo {number} {asked}");
            match open.try_ask(&text) {
                Some(answer) => assert_eq!(answer, text["echo ".len()..], "mixed up"),
                None => client = None,
            }
        });
    }

    /// Messages too large for a packet, from worker to worker.
    fn send_parcels(&self, server: &Server) {
        let mut pair: Option<(Client, Client)> = None;
        self.drive(|| {
            let Some((from, to)) = &mut pair else {
                pair = Client::try_connect(server.address).zip(Client::try_connect(server.address));
                return;
            };
            let message = [to.id.as_bytes(), &vec![b'x'; 300_000]].concat();
            let sent = from.socket.send(Message::binary(message)).is_ok();
            // It is lost with a worker that dies with it, or arrives whole.
            let came =
                sent && matches!(to.hear_soon(), Heard::Binary(bytes) if bytes.len() == 300_000);
            if !came {
                pair = None;
            }
        });
    }

    /// Connections at every stage, left in every way.
    fn come_and_go(&self, server: &Server, mut random: Random) {
        self.drive(|| {
            let Some(mut raw) = Raw::try_connect(server.address) else { return };
            match random.below(5) {
                0 => {}
                1 => raw.try_write(b"GET /now HT"),
                2 => raw.try_write(b"GET /later HTTP/1.1\r\nHost: dunlin\r\n\r\n"),
                3 => raw.reset(),
                _ => drop(Client::try_connect(server.address)),
            }
        });
    }
}

/// The seed of this run: of the clock, or `DUNLIN_TEST_SEED` to repeat one.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("DUNLIN_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        u64::from(now.subsec_nanos()) | 1
    })
}

/// xorshift64: enough to choose who dies.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % bound
    }
}
