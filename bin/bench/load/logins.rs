//! Sessions that log in and out on connections that stay open.

use super::meter::Meter;
use super::net::{Net, Talk};
use super::part::Part;
use super::users::Users;
use crate::bench::client::faults::Fault;
use crate::bench::client::moment::Moment;
use crate::bench::client::protocol::{self, LoggedIn, Said};
use crate::failure::Failure;
use serde_json::value::RawValue;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct Logins<'u> {
    users: &'u Users,
    sessions: Vec<Session>,
    /// Which way all go now.
    want: Want,
    /// The session that is next to be begun with.
    next: usize,
    under_way: usize,
    greeted: usize,
    part: Part,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Want {
    In,
    Out,
}

#[derive(Clone, Copy, Debug, Default)]
struct Session {
    is_greeted: bool,
    /// A request is under way since then.
    asked: Option<Moment>,
    requests: u64,
}

const NAME: &str = "login";
const UNIT: &str = "logins";
/// Logins under way at once.
const UNDER_WAY: usize = 64;
/// Nothing came for so long: nothing more will.
const SILENCE_MS: u64 = 10_000;
/// The code of an error that says: a rate limit is reached.
const RATE_LIMITED: i64 = -32002;

impl<'u> Logins<'u> {
    pub(super) fn new(users: &'u Users) -> Self {
        Self {
            users,
            sessions: vec![Session::default(); users.count()],
            want: Want::In,
            next: 0,
            under_way: 0,
            greeted: 0,
            part: Part::new(NAME, UNIT),
            text: String::new(),
        }
    }

    /// Connects everybody and logs them in; `None` where a promise was broken.
    ///
    /// # Errors
    /// The system gives no more sockets, or polling fails.
    pub(super) fn begin(&mut self, net: &mut Net, meter: &Meter) -> Result<Option<Part>, Failure> {
        if !net.open(self.users.count(), UNDER_WAY, self)? || !self.greet(net)? {
            return Ok(None);
        }
        let part = self.log_in(net, meter)?;
        Ok(Some(part).filter(|_| !net.is_broken()))
    }

    /// Waits for the greeting of all connections, which are open.
    fn greet(&mut self, net: &mut Net) -> Result<bool, Failure> {
        self.serve(net, |logins| logins.greeted == logins.sessions.len())
    }

    /// Logs everybody in, and measures it.
    fn log_in(&mut self, net: &mut Net, meter: &Meter) -> Result<Part, Failure> {
        let before = meter.read();
        self.all(net, Want::In)?;
        let mut part = std::mem::replace(&mut self.part, Part::new(NAME, UNIT));
        part.used = meter.read().since(&before);
        part.workers = meter.workers();
        Ok(part)
    }

    /// Logs everybody in again and again, and out between, which is not measured. In the end all are in.
    ///
    /// # Errors
    /// Polling fails.
    pub(super) fn measure(
        &mut self,
        net: &mut Net,
        duration: Duration,
        meter: &Meter,
    ) -> Result<Part, Failure> {
        let end = Moment::now().plus(duration);
        let mut whole = Part::new(NAME, UNIT);
        while Moment::now() < end && self.all(net, Want::Out)? {
            let part = self.log_in(net, meter)?;
            whole.add(&part);
            if net.is_broken() {
                break;
            }
        }
        Ok(whole)
    }

    fn all(&mut self, net: &mut Net, want: Want) -> Result<bool, Failure> {
        (self.want, self.next) = (want, 0);
        net.now = Moment::now();
        while self.next < self.sessions.len().min(UNDER_WAY) {
            self.ask_next(net);
        }
        self.serve(net, |logins| logins.next == logins.sessions.len() && logins.under_way == 0)
    }

    /// Serves until it is done; false: a promise was broken.
    fn serve(&mut self, net: &mut Net, done: impl Fn(&Self) -> bool) -> Result<bool, Failure> {
        net.heard_at = Moment::now();
        while !done(self) && !net.is_broken() {
            let until = Moment::now().plus_ms(20);
            net.turn(until, self)?;
            if Moment::now().ms_since(net.heard_at) > SILENCE_MS {
                net.faults.add(Fault::Unanswered, || {
                    format!(
                        "{} of {} were greeted, {} requests are open",
                        self.greeted,
                        self.sessions.len(),
                        self.under_way
                    )
                });
            }
        }
        Ok(!net.is_broken())
    }

    fn ask_next(&mut self, net: &mut Net) {
        let Some(session) = self.sessions.get_mut(self.next) else { return };
        session.asked = Some(net.now);
        session.requests += 1;
        self.text.clear();
        match self.want {
            Want::In => {
                let credential = self.users.credential(self.next);
                protocol::login(session.requests, credential, &mut self.text);
            }
            Want::Out => protocol::logout(session.requests, &mut self.text),
        }
        net.say(self.next, &self.text);
        self.next += 1;
        self.under_way += 1;
    }

    fn answered(&mut self, net: &mut Net, link: usize, id: u64, outcome: Result<&RawValue, i64>) {
        let session = &mut self.sessions[link];
        let Some(asked) = session.asked.take_if(|_| session.requests == id) else {
            net.faults.add(Fault::Doubled, || format!("user {link}: an answer to {id}"));
            return;
        };
        self.under_way -= 1;
        match (self.want, outcome) {
            (Want::In, Ok(result)) => {
                let said = serde_json::from_str::<LoggedIn<'_>>(result.get());
                match said {
                    Ok(said) if said.user == self.users.name(link) => {
                        self.part.done(asked, net.now);
                    }
                    _ => net.faults.add(Fault::Untrue, || format!("user {link} is {result}")),
                }
            }
            (Want::Out, Ok(_)) => {}
            (_, Err(code)) => refused(net, link, "a login", code),
        }
        self.ask_next(net);
    }
}

/// A request was answered with an error that should not be.
pub(super) fn refused(net: &mut Net, link: usize, what: &str, code: i64) {
    let fault = if code == RATE_LIMITED { Fault::Limited } else { Fault::Untrue };
    net.faults.add(fault, || format!("{what} of user {link} was answered with error {code}"));
}

/// A text that is not the protocol, or not what was sent.
pub(super) fn damaged(net: &mut Net, link: usize, text: &str) {
    let shown: String = text.chars().take(160).collect();
    net.faults.add(Fault::Damaged, || format!("user {link} got {shown:?}"));
}

impl Talk for Logins<'_> {
    fn heard(&mut self, net: &mut Net, link: usize, text: &str) {
        match protocol::read(text) {
            Some(Said::Hello) if !self.sessions[link].is_greeted => {
                self.sessions[link].is_greeted = true;
                self.greeted += 1;
            }
            Some(Said::Answer { id, outcome }) => self.answered(net, link, id, outcome),
            Some(Said::Other) => {}
            _ => damaged(net, link, text),
        }
    }
}
