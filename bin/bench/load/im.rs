//! `dunlin bench im`: logins, messages from user to user, the same at a fixed rate, and a room.
//!
//! A server beside the IM gets the same load in the same rounds, so that both meet the same machine.

use super::echo::Echo;
use super::fanout::Fanout;
use super::logins::Logins;
use super::net::Net;
use super::pace::{self, Pace, Times, Traffic};
use super::part::Part;
use super::report::Note;
use super::room::Room;
use super::send::Sends;
use super::users::Users;
use super::{Server, UNDER_WAY, count, find, find_beside, meter, say};
use crate::bench::client::faults::Faults;
use crate::bench::client::target::raise_limit;
use crate::bench::flags::{Im, ImPart};
use crate::bench::progress::{Progress, in_round};
use crate::failure::Failure;
use dunlin_server::exit::ExitCode;
use std::time::Duration;

/// What a run has come to.
#[derive(Default)]
struct Outcome {
    parts: Vec<Part>,
    notes: Vec<Note>,
    faults: Faults,
    progress: Progress,
}

/// A server whose turn it is not hears nothing, and closes who does not answer its pings.
const ROUND_BESIDE_MAX: Duration = Duration::from_secs(20);

/// Runs the parts that are asked for.
pub(crate) fn run(flags: &Im) -> Result<ExitCode, Failure> {
    let beside = flags.echo.is_some() || flags.broadcast.is_some();
    if beside && flags.load.message.duration > ROUND_BESIDE_MAX {
        let line = "with a server beside it a round takes 20s at most: ask for more --rounds";
        return Err(Failure::bad_usage(line));
    }
    let server = find(&flags.place)?;
    let echo = flags.echo.as_deref().map(find_beside).transpose()?;
    let broadcast = flags.broadcast.as_deref().map(find_beside).transpose()?;
    raise_limit(2 * u64::from(flags.load.connections.max(flags.members)))?;
    let load_average = meter::load_average();
    let progress = Progress::begin(planned(flags), flags.place.json)?;
    let mut outcome = Outcome { progress, ..Outcome::default() };
    let asked = |part| flags.only.is_empty() || flags.only.contains(&part);
    if [ImPart::Login, ImPart::Send, ImPart::Rate].into_iter().any(asked) {
        among_users(flags, &server, echo.as_ref(), &mut outcome)?;
    }
    if asked(ImPart::Room) && outcome.faults.broken().next().is_none() {
        room(flags, &server, broadcast.as_ref(), &mut outcome)?;
    }
    let Outcome { parts, notes, faults, progress } = outcome;
    progress.clear();
    say(&flags.place, &faults, "im", &parts, &notes, load_average)
}

/// How long all parts take, but for what is neither sent nor measured.
fn planned(flags: &Im) -> Duration {
    let asked = |part| flags.only.is_empty() || flags.only.contains(&part);
    let turns = |beside: bool| flags.rounds * (1 + u32::from(beside));
    let rounds = [
        (ImPart::Login, 1),
        (ImPart::Send, turns(flags.echo.is_some())),
        (ImPart::Rate, 1),
        (ImPart::Room, turns(flags.broadcast.is_some())),
    ];
    let rounds: u32 = rounds.into_iter().filter(|(part, _)| asked(*part)).map(|(_, n)| n).sum();
    flags.load.message.duration * rounds
}

/// The parts whose users are `--connections`.
fn among_users(
    flags: &Im,
    server: &Server,
    echo: Option<&Server>,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let asked = |part| flags.only.is_empty() || flags.only.contains(&part);
    let users = Users::new(count(flags.load.connections), flags.secret_file.as_deref())?;
    let mut net = Net::new(server.target.clone(), outcome.progress.clone())?;
    let mut logins = Logins::new(&users);
    let Some(first) = logins.begin(&mut net, &server.meter)? else {
        outcome.faults = net.faults;
        return Ok(());
    };
    if asked(ImPart::Login) {
        net.progress.starts("login", flags.load.message.duration);
        let mut part = logins.measure(&mut net, flags.load.message.duration, &server.meter)?;
        part.add(&first);
        outcome.parts.push(part);
    }
    let bytes = count(flags.load.message.size);
    let sends = |name| Sends::new(name, &users, users.count(), bytes);
    if asked(ImPart::Send) && !net.is_broken() {
        let traffic = sends("send");
        let mut mine = Loaded { net, traffic, server, part: Part::new("send", "messages") };
        let mut beside = echo
            .map(|echo| {
                let (users, progress) = (users.count(), outcome.progress.clone());
                Loaded::beside(echo, Echo::new("echo", users, bytes), users, progress)
            })
            .transpose()?;
        let pace = Pace::Closed { depth: flags.depth };
        in_turn(flags, pace, &mut mine, beside.as_mut(), outcome)?;
        note_busy(&mine.traffic, &mut outcome.notes);
        net = mine.net;
    }
    if asked(ImPart::Rate) && !net.is_broken() {
        let (mut traffic, times) = (sends("rate"), Times::of(flags.load.message.duration));
        let pace = Pace::Open { rate: flags.rate };
        net.progress.starts("rate", flags.load.message.duration);
        outcome.parts.push(pace::round(&mut net, &mut traffic, pace, times, &server.meter)?);
        note_busy(&traffic, &mut outcome.notes);
    }
    if outcome.faults.broken().next().is_none() {
        outcome.faults = net.faults;
    }
    Ok(())
}

/// The part whose users are `--members`.
fn room(
    flags: &Im,
    server: &Server,
    broadcast: Option<&Server>,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let (members, bytes) = (count(flags.members), count(flags.load.message.size));
    let users = Users::new(members, flags.secret_file.as_deref())?;
    let mut net = Net::new(server.target.clone(), outcome.progress.clone())?;
    net.progress.waits("connecting");
    let mut traffic = Room::new(&users, bytes);
    if Logins::new(&users).begin(&mut net, &server.meter)?.is_none() || !traffic.join(&mut net)? {
        outcome.faults = net.faults;
        return Ok(());
    }
    // As many bytes to as many connections.
    let bytes = traffic.delivery_bytes();
    let mut mine = Loaded { net, traffic, server, part: Part::new("room", "deliveries") };
    let progress = outcome.progress.clone();
    let fanout = |server| {
        Loaded::beside(server, Fanout::new("broadcast", members, bytes), members, progress)
    };
    let mut beside = broadcast.map(fanout).transpose()?;
    // One waits for nothing while the other is on its way.
    let pace = Pace::Closed { depth: flags.depth.max(2) };
    in_turn(flags, pace, &mut mine, beside.as_mut(), outcome)?;
    if outcome.faults.broken().next().is_none() {
        outcome.faults = mine.net.faults;
    }
    Ok(())
}

/// A server under load, and what came of it so far.
struct Loaded<'s, T> {
    server: &'s Server,
    net: Net,
    traffic: T,
    part: Part,
}

impl<'s, T: Traffic> Loaded<'s, T> {
    fn beside(
        server: &'s Server,
        mut traffic: T,
        connections: usize,
        progress: Progress,
    ) -> Result<Self, Failure> {
        let mut net = Net::new(server.target.clone(), progress)?;
        net.progress.waits("connecting");
        net.open(connections, UNDER_WAY, &mut traffic)?;
        let part = traffic.take();
        Ok(Self { server, net, traffic, part })
    }

    fn round(&mut self, pace: Pace, times: Times) -> Result<(), Failure> {
        if !self.net.is_broken() {
            let meter = &self.server.meter;
            let round = pace::round(&mut self.net, &mut self.traffic, pace, times, meter)?;
            self.part.add(&round);
        }
        Ok(())
    }
}

/// Rounds of the IM, and of a server beside it if there is one, one after the other.
fn in_turn<T: Traffic, B: Traffic>(
    flags: &Im,
    pace: Pace,
    mine: &mut Loaded<'_, T>,
    mut beside: Option<&mut Loaded<'_, B>>,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let times = Times::of(flags.load.message.duration);
    let starts = |part: &Part, round| {
        let name = in_round(part.name, round, flags.rounds);
        outcome.progress.starts(&name, flags.load.message.duration);
    };
    for round in 1..=flags.rounds {
        if let Some(beside) = &mut beside {
            starts(&beside.part, round);
            beside.round(pace, times)?;
            if beside.net.is_broken() {
                outcome.faults = std::mem::take(&mut beside.net.faults);
                break;
            }
        }
        starts(&mine.part, round);
        mine.round(pace, times)?;
    }
    if let Some(beside) = beside {
        outcome.notes.extend(compare(&mine.part, &beside.part));
        outcome.parts.push(beside.part.clone());
    }
    outcome.parts.push(mine.part.clone());
    Ok(())
}

/// What one of the IM's costs its workers beside one of the other server's.
fn compare(mine: &Part, beside: &Part) -> Option<Note> {
    let (mine_us, beside_us) = (mine.server_us()?, beside.server_us()?);
    let words = format!(
        "{} takes {mine_us:.2} µs of the workers, {} {beside_us:.2}: {:.2} more, {:.2} times; \
         {:.0} % as many a second",
        mine.name,
        beside.name,
        mine_us - beside_us,
        mine_us / beside_us,
        mine.per_second() / beside.per_second() * 100.0,
    );
    Some(Note { name: mine.name, words })
}

fn note_busy(sends: &Sends<'_>, notes: &mut Vec<Note>) {
    if sends.busy() > 0 {
        let words = format!("{} messages were not taken: nobody could (-32006)", sends.busy());
        notes.push(Note { name: "busy", words });
    }
}
