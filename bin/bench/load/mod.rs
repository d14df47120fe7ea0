//! `dunlin bench echo`, `rate`, `fanout`, `connect` and `im`: load, figures, and every byte checked.
//!
//! `net` has the connections and their one loop; `pace` says when messages are sent; each kind of
//! traffic has a file and judges what comes; `meter`, `part` and `report` are the figures.

mod connect;
mod echo;
mod exchange;
mod fanout;
mod histogram;
pub(crate) mod im;
mod logins;
mod meter;
mod net;
mod pace;
mod part;
mod payload;
mod report;
mod room;
mod send;
mod spread;
mod users;

use super::client::connection::Target;
use super::client::faults::Faults;
use super::client::target::{find_target, raise_limit, read_status};
use super::flags::{self, Load, Where};
use super::progress::Progress;
use crate::failure::Failure;
use crate::settings_file::run_dir;
use crate::terminal;
use dunlin_server::exit::ExitCode;
use echo::Echo;
use fanout::Fanout;
use meter::Meter;
use net::Net;
use pace::{Pace, Times};
use part::Part;
use report::{Note, Report};
use std::io::{self, IsTerminal};
use std::path::Path;

/// Handshakes under way at once, where nobody measures them.
const UNDER_WAY: usize = 64;

/// The server that is loaded, and the clocks of its workers.
struct Server {
    target: Target,
    meter: Meter,
}

/// Finds the server. Its workers' clocks are read if its status is at hand.
fn find(place: &Where) -> Result<Server, Failure> {
    let run_dir = run_dir(&place.server);
    let known = place.url.is_none() || place.server.run_dir.is_some();
    let target = find_target(place.url.as_deref(), &run_dir, known)?;
    let status = if known { Some(read_status(&run_dir)?) } else { None };
    Ok(Server { target, meter: Meter::new(status.as_deref())? })
}

/// A server that is loaded beside another one, by its run directory.
fn find_beside(run_dir: &Path) -> Result<Server, Failure> {
    let mut target = find_target(None, run_dir, true)?;
    "/".clone_into(&mut target.path);
    Ok(Server { target, meter: Meter::new(Some(&read_status(run_dir)?))? })
}

/// `dunlin bench echo`.
pub(super) fn echo(flags: &flags::Echo) -> Result<ExitCode, Failure> {
    echoes("echo", &flags.load, Pace::Closed { depth: flags.depth }, &flags.place)
}

/// `dunlin bench rate`.
pub(super) fn rate(flags: &flags::Rate) -> Result<ExitCode, Failure> {
    echoes("rate", &flags.load, Pace::Open { rate: flags.rate }, &flags.place)
}

fn echoes(name: &'static str, load: &Load, pace: Pace, place: &Where) -> Result<ExitCode, Failure> {
    let server = find(place)?;
    raise_limit(load.connections.into())?;
    let load_average = meter::load_average();
    let progress = Progress::begin(load.message.duration, place.json)?;
    let mut net = Net::new(server.target, progress)?;
    let connections = count(load.connections);
    let mut traffic = Echo::new(name, connections, count(load.message.size));
    let mut parts = Vec::new();
    if net.open(connections, UNDER_WAY, &mut traffic)? {
        let times = Times::of(load.message.duration);
        net.progress.starts(name, load.message.duration);
        parts.push(pace::round(&mut net, &mut traffic, pace, times, &server.meter)?);
    }
    net.progress.clear();
    say(place, &net.faults, name, &parts, &[], load_average)
}

/// `dunlin bench fanout`.
pub(super) fn fanout(flags: &flags::Fanout) -> Result<ExitCode, Failure> {
    let server = find(&flags.place)?;
    raise_limit(flags.connections.into())?;
    let load_average = meter::load_average();
    let progress = Progress::begin(flags.message.duration, flags.place.json)?;
    let mut net = Net::new(server.target, progress)?;
    let connections = count(flags.connections);
    let mut traffic = Fanout::new("fanout", connections, count(flags.message.size));
    let mut parts = Vec::new();
    if net.open(connections, UNDER_WAY, &mut traffic)? {
        let (pace, times) =
            (Pace::Closed { depth: flags.depth }, Times::of(flags.message.duration));
        net.progress.starts("fanout", flags.message.duration);
        parts.push(pace::round(&mut net, &mut traffic, pace, times, &server.meter)?);
    }
    net.progress.clear();
    say(&flags.place, &net.faults, "fanout", &parts, &[], load_average)
}

/// `dunlin bench connect`.
pub(super) fn connect(flags: &flags::Connect) -> Result<ExitCode, Failure> {
    let server = find(&flags.place)?;
    raise_limit(flags.connections.into())?;
    let load_average = meter::load_average();
    let progress = Progress::begin(flags.duration, flags.place.json)?;
    let mut net = Net::new(server.target, progress)?;
    net.progress.starts("connect", flags.duration);
    let (connections, under_way) = (count(flags.connections), count(flags.under_way));
    let part = connect::run(&mut net, connections, under_way, flags.duration, &server.meter)?;
    net.progress.clear();
    say(&flags.place, &net.faults, "connect", &[part], &[], load_average)
}

/// Prints it all; the exit code says whether every promise was kept.
fn say(
    place: &Where,
    faults: &Faults,
    mode: &'static str,
    parts: &[Part],
    notes: &[Note],
    load_average: Option<f64>,
) -> Result<ExitCode, Failure> {
    let report = Report { mode, parts, notes, faults, load_average };
    if place.json {
        terminal::print(&format!("{}\n", report.json()))?;
    } else {
        terminal::print(&report.text())?;
        if io::stdout().is_terminal() {
            let bars = parts.iter().map(|part| histogram::lines(part.name, &part.latency));
            terminal::print(&bars.collect::<String>())?;
        }
    }
    let mut code = ExitCode::Ok;
    for (fault, count) in faults.broken() {
        terminal::complain(&format!("promise broken: {count} {}", fault.words()));
        code = ExitCode::Failed;
    }
    Ok(code)
}

fn count(number: u32) -> usize {
    // A usize has 64 bits where this server runs.
    usize::try_from(number).unwrap_or(usize::MAX)
}
