//! Texts of one connection that a broadcasting server sends to all.

use super::net::{Net, Talk};
use super::pace::Traffic;
use super::part::Part;
use super::payload::{Name, Payload};
use super::spread::Spread;
use crate::bench::client::faults::Fault;
use crate::bench::client::moment::Moment;

/// See the module.
#[derive(Debug)]
pub(super) struct Fanout {
    payload: Payload,
    spread: Spread,
    goes_on: bool,
    text: String,
    part: Part,
    name: &'static str,
}

const UNIT: &str = "deliveries";

impl Fanout {
    pub(super) fn new(name: &'static str, connections: usize, bytes: usize) -> Self {
        Self {
            payload: Payload::new(bytes),
            spread: Spread::new(connections),
            goes_on: false,
            text: String::new(),
            part: Part::new(name, UNIT),
            name,
        }
    }
}

impl Talk for Fanout {
    fn heard(&mut self, net: &mut Net, link: usize, text: &str) {
        let name = self.payload.read(text).filter(|name| name.sender == 0);
        let came = name.ok_or(Fault::Damaged).and_then(|name| self.spread.came(link, name.number));
        match came {
            Ok(came) => {
                self.part.done(came.due, net.now);
                if came.is_last && self.goes_on {
                    self.send(net, 0, net.now);
                }
            }
            Err(fault) => {
                let shown: String = text.chars().take(80).collect();
                net.faults.add(fault, || format!("connection {link} got {shown:?}"));
            }
        }
    }
}

impl Traffic for Fanout {
    fn senders(&self) -> usize {
        1
    }

    fn send(&mut self, net: &mut Net, link: usize, due: Moment) {
        let number = self.spread.sent(due);
        self.text.clear();
        self.payload.write(Name { sender: 0, number }, &mut self.text);
        net.say(link, &self.text);
    }

    fn go_on(&mut self, on: bool) {
        self.goes_on = on;
    }

    fn owed(&self) -> u64 {
        self.spread.owed()
    }

    fn settle(&mut self, net: &mut Net) {
        // Where something else was broken the run was cut short, and all that was under way is missing.
        let count = !net.is_broken();
        for _ in 0..self.spread.give_up() {
            if count {
                net.faults.add(Fault::Lost, || "a delivery of the last messages".to_owned());
            }
        }
    }

    fn take(&mut self) -> Part {
        std::mem::replace(&mut self.part, Part::new(self.name, UNIT))
    }
}
