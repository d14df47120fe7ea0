//! Messages from user to user: each writes to the next one, in a ring.

use super::exchange::{Came, Exchange};
use super::logins::{damaged, refused};
use super::net::{Net, Talk};
use super::pace::Traffic;
use super::part::Part;
use super::payload::{Name, Payload};
use super::users::Users;
use crate::bench::client::faults::Fault;
use crate::bench::client::moment::Moment;
use crate::bench::client::protocol::{self, Message, Said, Sent};
use serde_json::value::RawValue;

/// See the module.
#[derive(Debug)]
pub(super) struct Sends<'u> {
    users: &'u Users,
    payload: Payload,
    exchanges: Vec<Exchange>,
    owed: u64,
    goes_on: bool,
    /// Messages that no session could take now (-32006).
    busy: u64,
    text: String,
    part: Part,
    name: &'static str,
}

const UNIT: &str = "messages";
/// The code of an error that says: nobody could take it now.
const BUSY: i64 = -32006;
/// Requests are told from those of the login by their ids.
const FIRST_ID: u64 = 1 << 40;

impl<'u> Sends<'u> {
    /// Among the first so many users.
    pub(super) fn new(name: &'static str, users: &'u Users, senders: usize, bytes: usize) -> Self {
        Self {
            users,
            payload: Payload::new(bytes),
            exchanges: (0..senders).map(|_| Exchange::default()).collect(),
            owed: 0,
            goes_on: false,
            busy: 0,
            text: String::new(),
            part: Part::new(name, UNIT),
            name,
        }
    }

    pub(super) fn busy(&self) -> u64 {
        self.busy
    }

    fn delivered(&mut self, net: &mut Net, link: usize, text: &str, message: &Message<'_>) {
        let sender = self.payload.read(&message.body).filter(|name| {
            name.sender < self.exchanges.len()
                && (name.sender + 1) % self.exchanges.len() == link
                && message.from.user == self.users.name(name.sender)
                && message.to.user.as_deref() == Some(self.users.name(link))
        });
        let Some((name, id)) = sender.zip(message.id()) else {
            return damaged(net, link, text);
        };
        let owed = self.exchanges[name.sender].owed();
        let came = self.exchanges[name.sender].delivered(name.number, id);
        if let Ok(came) = came {
            self.part.done(came.due, net.now);
        }
        self.came(net, name.sender, owed, came, name.number);
    }

    fn answered(&mut self, net: &mut Net, link: usize, id: u64, outcome: Result<&RawValue, i64>) {
        let Some(number) = id.checked_sub(FIRST_ID) else {
            net.faults.add(Fault::Doubled, || format!("user {link}: an answer to {id}"));
            return;
        };
        let owed = self.exchanges[link].owed();
        let came = match outcome {
            Ok(result) => {
                let sent = serde_json::from_str::<Sent<'_>>(result.get()).ok();
                match sent.and_then(|sent| sent.id().filter(|_| sent.sessions == 1)) {
                    Some(id) => self.exchanges[link].answered(number, id),
                    None => Err(Fault::Untrue),
                }
            }
            Err(BUSY) => {
                self.busy += 1;
                self.exchanges[link].not_taken(number)
            }
            Err(code) => return refused(net, link, "a message", code),
        };
        self.came(net, link, owed, came, number);
    }

    /// Something came of a message of `sender`, that was owed `owed` before.
    fn came(
        &mut self,
        net: &mut Net,
        sender: usize,
        owed: u64,
        came: Result<Came, Fault>,
        number: u64,
    ) {
        self.owed -= owed - self.exchanges[sender].owed();
        match came {
            Ok(came) if came.is_done && self.goes_on => self.send(net, sender, net.now),
            Ok(_) => {}
            Err(fault) => net.faults.add(fault, || format!("message {number} of user {sender}")),
        }
    }
}

impl Talk for Sends<'_> {
    fn heard(&mut self, net: &mut Net, link: usize, text: &str) {
        match protocol::read(text) {
            Some(Said::Message(message)) => self.delivered(net, link, text, &message),
            Some(Said::Answer { id, outcome }) if link < self.exchanges.len() => {
                self.answered(net, link, id, outcome);
            }
            Some(Said::Other) => {}
            _ => damaged(net, link, text),
        }
    }
}

impl Traffic for Sends<'_> {
    fn senders(&self) -> usize {
        self.exchanges.len()
    }

    fn send(&mut self, net: &mut Net, link: usize, due: Moment) {
        let number = self.exchanges[link].sent(due);
        self.owed += 2;
        let to = self.users.name((link + 1) % self.exchanges.len());
        self.text.clear();
        let body = |into: &mut String| self.payload.write(Name { sender: link, number }, into);
        protocol::send(FIRST_ID + number, to, body, &mut self.text);
        net.say(link, &self.text);
    }

    fn go_on(&mut self, on: bool) {
        self.goes_on = on;
    }

    fn owed(&self) -> u64 {
        self.owed
    }

    fn settle(&mut self, net: &mut Net) {
        // Where something else was broken the run was cut short, and all that was under way is missing.
        let count = !net.is_broken();
        for (sender, exchange) in self.exchanges.iter_mut().enumerate() {
            let (answers, deliveries) = exchange.give_up();
            for (fault, missing) in [(Fault::Unanswered, answers), (Fault::Lost, deliveries)] {
                for _ in (0..missing).filter(|_| count) {
                    net.faults.add(fault, || format!("a message of user {sender}"));
                }
            }
        }
        self.owed = 0;
    }

    fn take(&mut self) -> Part {
        std::mem::replace(&mut self.part, Part::new(self.name, UNIT))
    }
}
