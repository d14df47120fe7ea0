//! Texts that must come back as they were sent, in their order.

use super::net::{Net, Talk};
use super::pace::Traffic;
use super::part::Part;
use super::payload::{Name, Payload};
use crate::bench::client::faults::Fault;
use crate::bench::client::moment::Moment;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug)]
pub(super) struct Echo {
    payload: Payload,
    senders: Vec<Sender>,
    owed: u64,
    goes_on: bool,
    text: String,
    part: Part,
    name: &'static str,
}

#[derive(Debug, Default)]
struct Sender {
    /// The number of the first message under way.
    first: u64,
    /// When those under way were due, in order.
    due: VecDeque<Moment>,
}

impl Echo {
    pub(super) fn new(name: &'static str, connections: usize, bytes: usize) -> Self {
        Self {
            payload: Payload::new(bytes),
            senders: (0..connections).map(|_| Sender::default()).collect(),
            owed: 0,
            goes_on: false,
            text: String::new(),
            part: Part::new(name, "messages"),
            name,
        }
    }

    /// The promise that is broken where something else came than the next message.
    fn judge(&self, link: usize, text: &str) -> Fault {
        let sender = &self.senders[link];
        match self.payload.read(text) {
            Some(name) if name.sender == link && name.number < sender.first => Fault::Doubled,
            Some(name)
                if name.sender == link && name.number - sender.first < sender.due.len() as u64 =>
            {
                Fault::Reordered
            }
            _ => Fault::Damaged,
        }
    }
}

impl Talk for Echo {
    fn heard(&mut self, net: &mut Net, link: usize, text: &str) {
        let next = Name { sender: link, number: self.senders[link].first };
        if self.payload.read(text) != Some(next) || self.senders[link].due.is_empty() {
            let shown: String = text.chars().take(80).collect();
            let fault = self.judge(link, text);
            net.faults.add(fault, || format!("connection {link} got {shown:?}"));
            if fault == Fault::Damaged {
                // It stands where the next message should: that one is no second fault.
                let sender = &mut self.senders[link];
                let took = u64::from(sender.due.pop_front().is_some());
                (sender.first, self.owed) = (sender.first + took, self.owed - took);
            }
            return;
        }
        let sender = &mut self.senders[link];
        sender.first += 1;
        if let Some(due) = sender.due.pop_front() {
            self.owed -= 1;
            self.part.done(due, net.now);
        }
        if self.goes_on {
            self.send(net, link, net.now);
        }
    }
}

impl Traffic for Echo {
    fn senders(&self) -> usize {
        self.senders.len()
    }

    fn send(&mut self, net: &mut Net, link: usize, due: Moment) {
        let sender = &mut self.senders[link];
        let number = sender.first + sender.due.len() as u64;
        sender.due.push_back(due);
        self.owed += 1;
        self.text.clear();
        self.payload.write(Name { sender: link, number }, &mut self.text);
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
        for (link, sender) in self.senders.iter_mut().enumerate() {
            for _ in sender.due.drain(..).filter(|_| count) {
                net.faults.add(Fault::Lost, || format!("a message of connection {link}"));
            }
        }
        self.owed = 0;
    }

    fn take(&mut self) -> Part {
        std::mem::replace(&mut self.part, Part::new(self.name, "messages"))
    }
}
