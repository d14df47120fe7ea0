//! `dunlin bench survive`: proof by load that nothing is lost while a server is reloaded or killed.
//!
//! `load`, `open`, `talk`, `compose`, `ends` and `storm` are the clients, one loop for all; `deeds` the thread that does it to the server;
//! `ledger`, `losses`, `presence`, `timing` and `faults` judge, and know neither sockets nor clocks.

mod body;
mod compose;
mod connection;
mod deeds;
mod ends;
mod faults;
mod ledger;
mod load;
mod losses;
mod moment;
mod open;
mod outbound;
mod presence;
mod protocol;
mod random;
mod report;
mod storm;
mod talk;
mod timing;
mod verdict;
mod wire;

use super::flags::Survive;
use crate::failure::Failure;
use crate::settings_file::run_dir;
use crate::terminal;
use connection::Target;
use deeds::{Doer, SoFar};
use dunlin_server::clock;
use dunlin_server::control;
use dunlin_server::exit::ExitCode;
use load::{Load, Plan};
use mio::{Poll, Token, Waker};
use moment::Moment;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use random::Random;
use serde_json::Value as Json;
use std::io::{self, IsTerminal};
use std::net::ToSocketAddrs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Runs it all, and says what came of it.
pub(super) fn run(flags: &Survive) -> Result<ExitCode, Failure> {
    let run_dir = run_dir(&flags.server);
    let target = target(flags, &run_dir)?;
    let storm = if flags.storm > 0 { storm::UNDER_WAY_MAX as u64 } else { 0 };
    raise_limit(u64::from(flags.connections) + storm)?;
    let seed = flags.seed.unwrap_or_else(|| random::mix(clock::now_us()) >> 16);
    let poll = Poll::new().map_err(|error| Failure::failed(format!("no epoll: {error}")))?;
    let waker = Waker::new(poll.registry(), Token(usize::MAX))
        .map_err(|error| Failure::failed(format!("no waker: {error}")))?;
    let mut load = Load::new(plan(flags, target, seed), poll);
    let begun = Moment::now();
    let mut outcomes = Vec::new();
    if load.open_all()? {
        let until = Moment::now().plus_ms(u64::from(flags.seconds) * 1_000);
        let (tell, told) = mpsc::channel();
        let doer = Doer {
            run_dir,
            deeds: flags.deeds.clone(),
            every: flags.every,
            times: flags.times,
            until,
            overlap: flags.overlap,
            random: Random::new(seed ^ 1),
            tell,
            waker,
            so_far: SoFar::default(),
        };
        let doer = thread::spawn(move || doer.run());
        let mut progress = Progress::new(flags.json, begun);
        load.talk(until, &told, |load, now| progress.show(load, now))?;
        progress.clear();
        // It has said that it is over.
        let _ = doer.join();
        load.settle()?;
        outcomes = std::mem::take(&mut load.outcomes);
        verdict::judge_deeds(&flags.deeds, &outcomes, &mut load.faults);
    } else {
        load.never_opened();
    }
    let took_ms = Moment::now().ms_since(begun);
    load.leave();
    say(&load, flags, &outcomes, took_ms)
}

fn say(
    load: &Load,
    flags: &Survive,
    outcomes: &[deeds::Outcome],
    took_ms: u64,
) -> Result<ExitCode, Failure> {
    if flags.json {
        terminal::print(&format!("{}\n", report::json(load, outcomes, took_ms)))?;
    } else {
        terminal::print(&report::text(load, outcomes, took_ms))?;
    }
    let mut code = ExitCode::Ok;
    for (fault, count) in load.faults.broken() {
        terminal::complain(&format!("promise broken: {count} {}", fault.words()));
        code = ExitCode::Failed;
    }
    Ok(code)
}

fn plan(flags: &Survive, target: Target, seed: u64) -> Plan {
    Plan {
        target,
        // Several runs may load one server, also with the same seed.
        prefix: format!(
            "survive-{:x}-",
            random::mix(clock::now_us() ^ u64::from(std::process::id())) >> 32
        ),
        connections: flags.connections,
        slow: flags.slow.unwrap_or(flags.connections / 20).min(flags.connections),
        rate: flags.rate,
        storm: flags.storm,
        seed,
        max_stall: flags.max_stall,
    }
}

/// How long the server may take to write its status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the server is. Its status is asked for where it is needed: without an address, or for deeds.
fn target(flags: &Survive, run_dir: &Path) -> Result<Target, Failure> {
    let wrong =
        |url: &str| Failure::bad_usage(format!("{url:?} is no URL such as ws://127.0.0.1:9502/ws"));
    let named = match &flags.url {
        Some(url) => {
            let rest = url.strip_prefix("ws://").ok_or_else(|| wrong(url))?;
            let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let mut found = address.to_socket_addrs().map_err(|_| wrong(url))?;
            let address = found.next().ok_or_else(|| wrong(url))?;
            let path = if path.is_empty() { "/ws" } else { path };
            Some(Target { address, path: path.to_owned() })
        }
        None => None,
    };
    match named {
        Some(target) if flags.deeds.is_empty() => Ok(target),
        named => {
            let status = control::read_status(run_dir, STATUS_TIMEOUT)?;
            named.map_or_else(|| listens(&status), Ok)
        }
    }
}

/// The first address that a status names.
fn listens(status: &str) -> Result<Target, Failure> {
    let status: Json = serde_json::from_str(status)
        .map_err(|error| Failure::failed(format!("the status cannot be read: {error}")))?;
    let mut address = status["listen"][0].as_str().and_then(|text| text.parse().ok());
    if let Some(address) =
        address.as_mut().filter(|address: &&mut std::net::SocketAddr| address.ip().is_unspecified())
    {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let address = address.ok_or_else(|| Failure::failed("the status names no address"))?;
    Ok(Target { address, path: "/ws".to_owned() })
}

/// Beside the sockets: standard streams, epoll, the status, and what the system's libraries open.
const OTHER_DESCRIPTORS: u64 = 32;

fn raise_limit(connections: u64) -> Result<(), Failure> {
    let needed = connections + OTHER_DESCRIPTORS;
    let failed = |errno| Failure::failed(format!("the limit of descriptors: {errno}"));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    if needed > hard {
        let line = format!(
            "{connections} connections need {needed} descriptors; `ulimit -Hn` allows {hard}"
        );
        return Err(Failure::bad_usage(line));
    }
    if needed > soft {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard).map_err(failed)?;
    }
    Ok(())
}

/// A line on the terminal that is written over each second.
struct Progress {
    shown: bool,
    begun: Moment,
    next: Moment,
}

impl Progress {
    fn new(json: bool, begun: Moment) -> Self {
        Self { shown: !json && io::stderr().is_terminal(), begun, next: begun }
    }

    fn show(&mut self, load: &Load, now: Moment) {
        if !self.shown || now < self.next {
            return;
        }
        self.next = now.plus_ms(1_000);
        let counts = load.ledger.counts();
        let broken: u64 = load.faults.broken().map(|(_, count)| count).sum();
        eprint!(
            "\r\x1b[K{} s: {} open, {} sent, {} delivered, {} deeds, {broken} broken",
            now.ms_since(self.begun) / 1_000,
            load.open.len(),
            counts.sent,
            counts.delivered,
            load.outcomes.len(),
        );
    }

    fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
