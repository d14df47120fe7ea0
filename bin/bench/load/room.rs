//! Messages of one member of a room, which all others must get.

use super::logins::{damaged, refused};
use super::net::{Net, Talk};
use super::pace::Traffic;
use super::part::Part;
use super::payload::{Name, Payload};
use super::spread::Spread;
use super::users::Users;
use crate::bench::client::faults::Fault;
use crate::bench::client::moment::Moment;
use crate::bench::client::protocol::{self, Said, Sent};
use crate::failure::Failure;
use serde_json::value::RawValue;
use std::collections::HashMap;

/// See the module. The first user sends, and gets none of them himself.
#[derive(Debug)]
pub(super) struct Room<'u> {
    users: &'u Users,
    room: String,
    payload: Payload,
    /// Joins that were answered, in place of traffic until all are.
    joined: usize,
    asked: usize,
    /// The other members, the second user first.
    spread: Spread,
    /// What is known of the messages under way, by number.
    known: HashMap<u64, Known>,
    /// The text that came last, and what it was found to be: the same bytes are the same message.
    latest: (String, Option<Delivery>),
    goes_on: bool,
    text: String,
    part: Part,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The message id, by whoever named it first.
    id: Option<u64>,
    is_answered: bool,
    is_delivered: bool,
}

#[derive(Clone, Copy, Debug)]
struct Delivery {
    number: u64,
    id: u64,
}

const UNIT: &str = "deliveries";
const NAME: &str = "room";
/// Joins under way at once.
const UNDER_WAY: usize = 64;
/// Nothing came for so long: nothing more will.
const SILENCE_MS: u64 = 10_000;
/// Requests are told from those of the login by their ids.
const JOIN_ID: u64 = 1 << 39;
const FIRST_ID: u64 = 1 << 40;

impl<'u> Room<'u> {
    pub(super) fn new(users: &'u Users, bytes: usize) -> Self {
        Self {
            users,
            room: format!("room-of-{}", users.name(0)),
            payload: Payload::new(bytes),
            joined: 0,
            asked: 0,
            spread: Spread::new(users.count() - 1),
            known: HashMap::new(),
            latest: (String::new(), None),
            goes_on: false,
            text: String::new(),
            part: Part::new(NAME, UNIT),
        }
    }

    /// How many bytes a delivery has: the body and what the protocol puts around it.
    pub(super) fn delivery_bytes(&self) -> usize {
        let mut body = String::new();
        self.payload.write(Name { sender: 0, number: 0 }, &mut body);
        let (user, room) = (self.users.name(0), &self.room);
        format!(
            r#"{{"jsonrpc":"2.0","method":"message","params":{{"id":"0123456789abcdef","from":{{"user":"{user}","device":"bench"}},"to":{{"room":"{room}"}},"body":"{body}","time":1800000000000}}}}"#
        )
        .len()
    }

    /// Has all users join, and what comes of that come.
    ///
    /// # Errors
    /// Polling fails.
    pub(super) fn join(&mut self, net: &mut Net) -> Result<bool, Failure> {
        (net.now, net.heard_at) = (Moment::now(), Moment::now());
        for _ in 0..UNDER_WAY {
            self.ask_next(net);
        }
        while self.joined < self.users.count() && !net.is_broken() {
            net.turn(Moment::now().plus_ms(20), self)?;
            if Moment::now().ms_since(net.heard_at) > SILENCE_MS {
                let (joined, asked) = (self.joined, self.asked);
                net.faults.add(Fault::Unanswered, || format!("{joined} of {asked} could join"));
            }
        }
        // Who joined late is told of by notifications: they are no part of what is measured.
        let calm = Moment::now().plus_ms(200);
        while Moment::now() < calm {
            net.turn(calm, self)?;
        }
        Ok(!net.is_broken())
    }

    fn ask_next(&mut self, net: &mut Net) {
        if self.asked == self.users.count() {
            return;
        }
        self.text.clear();
        protocol::join(JOIN_ID, &self.room, &mut self.text);
        net.say(self.asked, &self.text);
        self.asked += 1;
    }

    /// What a text is that says that a message came.
    fn delivery(&self, text: &str) -> Option<Delivery> {
        let Some(Said::Message(message)) = protocol::read(text) else { return None };
        let name = self.payload.read(&message.body).filter(|name| name.sender == 0)?;
        let right = message.from.user == self.users.name(0)
            && message.to.room.as_deref() == Some(&*self.room);
        let id = message.id().filter(|_| right)?;
        Some(Delivery { number: name.number, id })
    }

    fn delivered(&mut self, net: &mut Net, link: usize, delivery: Delivery) {
        let Delivery { number, id } = delivery;
        // Who sent it has no place among those who get it.
        let member = link.checked_sub(1).ok_or(Fault::Doubled);
        let came = member.and_then(|member| self.spread.came(member, number));
        let came = came.and_then(|came| self.agree(number, id).map(|()| came));
        match came {
            Ok(came) => {
                self.part.done(came.due, net.now);
                if came.is_last {
                    self.over(net, number, |known| known.is_delivered = true);
                }
            }
            Err(fault) => {
                net.faults.add(fault, || format!("message {number} of the room, to user {link}"));
            }
        }
    }

    fn answered(&mut self, net: &mut Net, link: usize, id: u64, outcome: Result<&RawValue, i64>) {
        let sent = match outcome {
            Ok(_) if id == JOIN_ID => {
                self.joined += 1;
                return self.ask_next(net);
            }
            Ok(result) => serde_json::from_str::<Sent<'_>>(result.get()).ok(),
            Err(code) => return refused(net, link, "a join or a message", code),
        };
        let number = id.wrapping_sub(FIRST_ID);
        let open = self.known.get(&number).is_some_and(|known| !known.is_answered) && link == 0;
        let members = self.spread.members() as u64;
        let outcome = match sent.and_then(|sent| sent.id().filter(|_| sent.sessions == members)) {
            _ if !open => Err(Fault::Doubled),
            Some(id) => self.agree(number, id),
            None => Err(Fault::Untrue),
        };
        match outcome {
            Ok(()) => self.over(net, number, |known| known.is_answered = true),
            Err(fault) => net.faults.add(fault, || format!("the answer to message {number}")),
        }
    }

    /// All who name the id of a message name the same.
    fn agree(&mut self, number: u64, id: u64) -> Result<(), Fault> {
        let known = self.known.get_mut(&number).ok_or(Fault::Doubled)?;
        if *known.id.get_or_insert(id) == id { Ok(()) } else { Err(Fault::Untrue) }
    }

    /// One of the two things that come of a message is over; the next one behind both.
    fn over(&mut self, net: &mut Net, number: u64, note: impl FnOnce(&mut Known)) {
        let Some(known) = self.known.get_mut(&number) else { return };
        note(known);
        if known.is_answered && known.is_delivered {
            self.known.remove(&number);
            if self.goes_on {
                self.send(net, 0, net.now);
            }
        }
    }
}

impl Talk for Room<'_> {
    fn heard(&mut self, net: &mut Net, link: usize, text: &str) {
        if let (latest, Some(delivery)) = &self.latest
            && text == latest
        {
            return self.delivered(net, link, *delivery);
        }
        match protocol::read(text) {
            Some(Said::Message(_)) => match self.delivery(text) {
                Some(delivery) => {
                    self.latest.0.clear();
                    self.latest.0.push_str(text);
                    self.latest.1 = Some(delivery);
                    self.delivered(net, link, delivery);
                }
                None => damaged(net, link, text),
            },
            Some(Said::Answer { id, outcome }) => self.answered(net, link, id, outcome),
            Some(Said::Other) => {}
            _ => damaged(net, link, text),
        }
    }
}

impl Traffic for Room<'_> {
    fn senders(&self) -> usize {
        1
    }

    fn send(&mut self, net: &mut Net, link: usize, due: Moment) {
        let number = self.spread.sent(due);
        self.known.insert(number, Known::default());
        self.text.clear();
        let body = |into: &mut String| self.payload.write(Name { sender: 0, number }, into);
        protocol::send_room(FIRST_ID + number, &self.room, body, &mut self.text);
        net.say(link, &self.text);
    }

    fn go_on(&mut self, on: bool) {
        self.goes_on = on;
    }

    fn owed(&self) -> u64 {
        self.spread.owed() + self.known.values().filter(|known| !known.is_answered).count() as u64
    }

    fn settle(&mut self, net: &mut Net) {
        // Where something else was broken the run was cut short, and all that was under way is missing.
        let count = !net.is_broken();
        let answers = self.known.drain().filter(|(_, known)| !known.is_answered).count();
        for (fault, missing) in
            [(Fault::Unanswered, answers as u64), (Fault::Lost, self.spread.give_up())]
        {
            for _ in (0..missing).filter(|_| count) {
                net.faults.add(fault, || "one of the last messages to the room".to_owned());
            }
        }
    }

    fn take(&mut self) -> Part {
        std::mem::replace(&mut self.part, Part::new(NAME, UNIT))
    }
}
