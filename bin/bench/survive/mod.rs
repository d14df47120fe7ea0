//! `dunlin bench survive`: proof by load that nothing is lost while a server is reloaded or killed.
//!
//! `load`, `open`, `talk`, `compose`, `ends` and `storm` are the clients, one loop for all; `deeds` the thread that does it to the server;
//! `ledger`, `losses`, `presence`, `timing` and `faults` judge, and know neither sockets nor clocks.

mod body;
mod compose;
mod deeds;
mod ends;
mod ledger;
mod load;
mod losses;
mod open;
mod presence;
mod report;
mod storm;
mod talk;
mod timing;
mod verdict;

use crate::bench::client::connection::Target;
use crate::bench::client::moment::Moment;
use crate::bench::client::target::{find_target, raise_limit};
use crate::bench::flags::Survive;
use crate::bench::progress::Progress;
use crate::failure::Failure;
use crate::random::{self, Random};
use crate::settings_file::run_dir;
use crate::terminal;
use deeds::{Doer, SoFar};
use dunlin_server::clock;
use dunlin_server::exit::ExitCode;
use load::{Load, Plan};
use mio::{Poll, Token, Waker};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Runs it all, and says what came of it.
pub(super) fn run(flags: &Survive) -> Result<ExitCode, Failure> {
    let run_dir = run_dir(&flags.server);
    let target = find_target(flags.url.as_deref(), &run_dir, !flags.deeds.is_empty())?;
    let storm = if flags.storm > 0 { storm::UNDER_WAY_MAX as u64 } else { 0 };
    raise_limit(u64::from(flags.connections) + storm)?;
    let seed = flags.seed.unwrap_or_else(|| random::mix(clock::now_us()) >> 16);
    let poll = Poll::new().map_err(|error| Failure::failed(format!("no epoll: {error}")))?;
    let waker = Waker::new(poll.registry(), Token(usize::MAX))
        .map_err(|error| Failure::failed(format!("no waker: {error}")))?;
    let talks = Duration::from_secs(flags.seconds.into());
    // Before the thread is started: it must not get the signals that this one takes.
    let progress = Progress::begin(talks, flags.json)?;
    let mut load = Load::new(plan(flags, target, seed), poll, progress.clone());
    let begun = Moment::now();
    let mut outcomes = Vec::new();
    if load.open_all()? {
        let until = Moment::now().plus(talks);
        progress.starts("talking", talks);
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
        load.talk(until, &told)?;
        progress.waits("settling");
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
    progress.clear();
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
