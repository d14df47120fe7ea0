//! `dunlin bench im`: logins, messages from user to user, and the same at a fixed rate.

use super::echo::Echo;
use super::logins::Logins;
use super::net::Net;
use super::pace::{self, Pace, Times};
use super::part::Part;
use super::report::Note;
use super::send::Sends;
use super::users::Users;
use super::{Server, UNDER_WAY, count, find, find_beside, meter, say};
use crate::bench::client::target::raise_limit;
use crate::bench::flags::{Im, ImPart};
use crate::failure::Failure;
use dunlin_server::exit::ExitCode;

/// Runs the parts that are asked for.
pub(crate) fn run(flags: &Im) -> Result<ExitCode, Failure> {
    let server = find(&flags.place)?;
    let echo = flags.echo.as_deref().map(find_beside).transpose()?;
    let asked = |part| flags.only.is_empty() || flags.only.contains(&part);
    let connections = count(flags.load.connections);
    raise_limit(2 * u64::from(flags.load.connections))?;
    let load_average = meter::load_average();
    let users = Users::new(connections, flags.secret_file.as_deref())?;
    let mut net = Net::new(server.target.clone())?;
    let (mut parts, mut notes) = (Vec::new(), Vec::new());
    let mut logins = Logins::new(&users);
    if net.open(connections, UNDER_WAY, &mut logins)? && logins.greet(&mut net)? {
        let first = logins.log_in(&mut net, &server.meter)?;
        if asked(ImPart::Login) && !net.is_broken() {
            let mut part = logins.measure(&mut net, flags.load.message.duration, &server.meter)?;
            part.add(&first);
            parts.push(part);
        }
        if asked(ImPart::Send) && !net.is_broken() {
            sends(flags, &mut net, &server, echo.as_ref(), &users, (&mut parts, &mut notes))?;
        }
        if asked(ImPart::Rate) && !net.is_broken() {
            let mut traffic = traffic("rate", &users, flags);
            let (pace, times) = (Pace::Open { rate: flags.rate }, times(flags));
            parts.push(pace::round(&mut net, &mut traffic, pace, times, &server.meter)?);
            note_busy(&traffic, &mut notes);
        }
    }
    say(&flags.place, &net, "im", &parts, &notes, load_average)
}

fn traffic<'u>(name: &'static str, users: &'u Users, flags: &Im) -> Sends<'u> {
    Sends::new(name, users, users.count(), count(flags.load.message.size))
}

fn times(flags: &Im) -> Times {
    Times::of(flags.load.message.duration)
}

/// Messages from user to user; if there is an echo server, both in turn, round by round.
fn sends(
    flags: &Im,
    net: &mut Net,
    server: &Server,
    echo: Option<&Server>,
    users: &Users,
    (parts, notes): (&mut Vec<Part>, &mut Vec<Note>),
) -> Result<(), Failure> {
    let (pace, times) = (Pace::Closed { depth: flags.depth }, times(flags));
    let mut sends = traffic("send", users, flags);
    let mut whole = Part::new("send", "messages");
    let mut beside = match echo {
        Some(echo) => Some(Beside::new(echo, flags)?),
        None => None,
    };
    for _ in 0..flags.rounds {
        if let Some(beside) = &mut beside {
            beside.round(pace, times)?;
            if beside.net.is_broken() {
                net.faults = std::mem::take(&mut beside.net.faults);
                return Ok(());
            }
        }
        whole.add(&pace::round(net, &mut sends, pace, times, &server.meter)?);
        if net.is_broken() {
            break;
        }
    }
    note_busy(&sends, notes);
    if let Some(beside) = beside {
        notes.extend(compare(&whole, &beside.part));
        parts.push(beside.part);
    }
    parts.push(whole);
    Ok(())
}

/// An echo server with the same load.
struct Beside<'s> {
    server: &'s Server,
    net: Net,
    traffic: Echo,
    part: Part,
}

impl<'s> Beside<'s> {
    fn new(server: &'s Server, flags: &Im) -> Result<Self, Failure> {
        let mut net = Net::new(server.target.clone())?;
        let connections = count(flags.load.connections);
        let mut traffic = Echo::new("echo", connections, count(flags.load.message.size));
        net.open(connections, UNDER_WAY, &mut traffic)?;
        Ok(Self { server, net, traffic, part: Part::new("echo", "messages") })
    }

    fn round(&mut self, pace: Pace, times: Times) -> Result<(), Failure> {
        if self.net.is_broken() {
            return Ok(());
        }
        let meter = &self.server.meter;
        let round = pace::round(&mut self.net, &mut self.traffic, pace, times, meter)?;
        self.part.add(&round);
        Ok(())
    }
}

/// What a message costs the IM's workers beside an echo.
fn compare(send: &Part, echo: &Part) -> Option<Note> {
    let (send, echo) = (send.server_us()?, echo.server_us()?);
    let words = format!(
        "a message takes {send:.2} µs of the workers, an echo {echo:.2}: {:.2} µs more, {:.2} times",
        send - echo,
        send / echo
    );
    Some(Note { name: "beside", words })
}

fn note_busy(sends: &Sends<'_>, notes: &mut Vec<Note>) {
    if sends.busy() > 0 {
        let words = format!("{} messages were not taken: nobody could (-32006)", sends.busy());
        notes.push(Note { name: "busy", words });
    }
}
