//! What each client sent, what was answered, what came: who owes whom what.
//!
//! Pure: knows no socket and no clock. A *life* is one connection of one client, with a user of its
//! own; a client that lost its connection begins another. Messages are numbered for each pair of
//! sender and recipient. Invariants: 1. `unanswered` is the number of requests of open lives without
//! an answer. 2. `undelivered` is the number of messages that were taken and have not come, for
//! lives that are open. 3. What a closed life sent or was to get is no debt: it was told.

use super::body::Name;
use crate::bench::client::connection::LifeId;
use crate::bench::client::faults::{Fault, Faults};
use crate::bench::client::moment::Moment;
use std::collections::{HashMap, VecDeque};

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    Login,
    Ping,
    Presence,
    Send(Name),
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) asked: Asked,
    /// When its last byte was due to be written.
    pub(super) since: Moment,
}

/// How much there was of everything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) answers: u64,
    pub(super) sent: u64,
    /// Answered with at least one session.
    pub(super) taken: u64,
    /// Answered with none, or refused as busy.
    pub(super) not_taken: u64,
    pub(super) delivered: u64,
    /// Owed by or to a connection when it closed: nobody can know of them.
    pub(super) in_doubt: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    lives: Vec<Life>,
    pairs: HashMap<(LifeId, LifeId), Pair>,
    counts: Counts,
    unanswered: u64,
    undelivered: u64,
}

#[derive(Debug, Default)]
struct Life {
    closed: bool,
    last_id: u64,
    requests: VecDeque<Request>,
    wrote_to: Vec<LifeId>,
    read_from: Vec<LifeId>,
}

/// Messages from one life to another.
#[derive(Debug, Default)]
struct Pair {
    /// The number of the first entry; those before are done with.
    base: u32,
    entries: VecDeque<Entry>,
    /// One more than the highest number that came.
    came: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    answer: Answer,
    /// The id it came with.
    came: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Answer {
    #[default]
    None,
    Taken(u64),
    NotTaken,
}

impl Entry {
    fn is_owed(self) -> bool {
        matches!(self.answer, Answer::Taken(_)) && self.came.is_none()
    }
}

impl Ledger {
    /// A new life.
    pub(super) fn begin(&mut self) -> LifeId {
        self.lives.push(Life::default());
        // More lives than that take years.
        LifeId(u32::try_from(self.lives.len() - 1).unwrap_or(u32::MAX))
    }

    /// A new request: its id.
    pub(super) fn ask(&mut self, life: LifeId, asked: Asked, since: Moment) -> u64 {
        let asker = &mut self.lives[life.0 as usize];
        asker.last_id += 1;
        let id = asker.last_id;
        asker.requests.push_back(Request { id, asked, since });
        self.unanswered += 1;
        self.counts.requests += 1;
        id
    }

    /// A new message, to be asked for next.
    pub(super) fn name(&mut self, from: LifeId, to: LifeId) -> Name {
        let pair = self.pairs.entry((from, to)).or_insert_with(|| {
            self.lives[from.0 as usize].wrote_to.push(to);
            self.lives[to.0 as usize].read_from.push(from);
            Pair::default()
        });
        pair.entries.push_back(Entry::default());
        self.counts.sent += 1;
        Name { from, to, number: pair.end() - 1 }
    }

    /// An answer came: what it answers.
    pub(super) fn answer(&mut self, life: LifeId, id: u64, faults: &mut Faults) -> Option<Request> {
        let asker = &mut self.lives[life.0 as usize];
        let place = asker.requests.iter().position(|request| request.id == id);
        let Some(request) = place.and_then(|place| asker.requests.remove(place)) else {
            let fault = if id > asker.last_id { Fault::Damaged } else { Fault::Doubled };
            faults.add(fault, || format!("client life {}: an answer to request {id}", life.0));
            return None;
        };
        self.unanswered -= 1;
        self.counts.answers += 1;
        Some(request)
    }

    /// The answer to a message says that somebody took it, and its id.
    pub(super) fn taken(&mut self, name: Name, id: u64, faults: &mut Faults) {
        self.counts.taken += 1;
        let Some(pair) = self.pairs.get_mut(&(name.from, name.to)) else { return };
        let Some(entry) = pair.entry(name.number) else { return };
        entry.answer = Answer::Taken(id);
        match entry.came {
            Some(came) => check_id(name, id, came, faults),
            None => self.undelivered += 1,
        }
        pair.forget();
    }

    /// The answer to a message says that nobody took it. Whether that is not known to be wrong.
    pub(super) fn not_taken(&mut self, name: Name, faults: &mut Faults) -> bool {
        self.counts.not_taken += 1;
        let Some(pair) = self.pairs.get_mut(&(name.from, name.to)) else { return true };
        let Some(entry) = pair.entry(name.number) else { return true };
        entry.answer = Answer::NotTaken;
        let came = entry.came.is_some();
        if came {
            untrue(name, faults);
        }
        pair.forget();
        !came
    }

    /// A message came, with this id.
    pub(super) fn delivered(&mut self, on: LifeId, name: Name, id: u64, faults: &mut Faults) {
        self.counts.delivered += 1;
        let pair = self.pairs.get_mut(&(name.from, name.to)).filter(|_| name.to == on);
        let Some(pair) = pair.filter(|pair| name.number < pair.end()) else {
            faults.add(Fault::Damaged, || format!("{name:?} came to {}: never sent so", on.0));
            return;
        };
        let (came, number) = (pair.came, name.number);
        let Some(entry) = pair.entry(number).filter(|entry| entry.came.is_none()) else {
            faults.add(Fault::Doubled, || format!("{name:?} came twice"));
            return;
        };
        entry.came = Some(id);
        match entry.answer {
            Answer::Taken(said) => {
                check_id(name, said, id, faults);
                self.undelivered -= 1;
            }
            Answer::NotTaken => untrue(name, faults),
            Answer::None => {}
        }
        if number < came {
            faults.add(Fault::Reordered, || format!("{name:?} came behind number {}", came - 1));
        }
        pair.came = came.max(number + 1);
        pair.forget();
    }

    /// A life ended.
    pub(super) fn close(&mut self, life: LifeId) {
        let ended = &mut self.lives[life.0 as usize];
        if std::mem::replace(&mut ended.closed, true) {
            return;
        }
        let requests = std::mem::take(&mut ended.requests).len() as u64;
        self.unanswered -= requests;
        self.counts.in_doubt += requests;
        for from in std::mem::take(&mut ended.read_from) {
            if let Some(pair) = self.pairs.remove(&(from, life)) {
                let owed = pair.entries.iter().filter(|entry| entry.is_owed()).count() as u64;
                self.undelivered -= owed;
                self.counts.in_doubt += owed;
            }
        }
        // Those it wrote to may still get what it wrote, and nothing else.
        let wrote_to = std::mem::take(&mut ended.wrote_to);
        self.lives[life.0 as usize].wrote_to =
            wrote_to.into_iter().filter(|to| self.pairs.contains_key(&(life, *to))).collect();
    }

    pub(super) fn is_open(&self, life: LifeId) -> bool {
        !self.lives[life.0 as usize].closed
    }

    /// Requests without an answer, and messages that were taken and have not come.
    pub(super) fn debts(&self) -> (u64, u64) {
        (self.unanswered, self.undelivered)
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// The end: what is owed now will not come.
    pub(super) fn settle(&self, faults: &mut Faults) {
        for (life, asker) in self.lives.iter().enumerate() {
            for request in &asker.requests {
                faults.add(Fault::Unanswered, || {
                    format!("client life {life}: request {} ({:?})", request.id, request.asked)
                });
            }
        }
        for ((from, to), pair) in &self.pairs {
            for (number, entry) in (pair.base..).zip(&pair.entries) {
                if entry.is_owed() {
                    let later = pair.came > number;
                    faults.add(Fault::Lost, || {
                        let name = Name { from: *from, to: *to, number };
                        format!(
                            "{name:?}; a later one {}",
                            if later { "came" } else { "did not come" }
                        )
                    });
                }
            }
        }
    }
}

impl Pair {
    fn end(&self) -> u32 {
        self.base + u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    fn entry(&mut self, number: u32) -> Option<&mut Entry> {
        let place = number.checked_sub(self.base)?;
        self.entries.get_mut(place as usize)
    }

    /// Lets go of the first entries, as far as nothing more can be said of them.
    fn forget(&mut self) {
        while let Some(entry) = self.entries.front() {
            let done = match entry.answer {
                Answer::None => false,
                Answer::Taken(_) => entry.came.is_some(),
                Answer::NotTaken => self.came > self.base,
            };
            if !done {
                return;
            }
            self.entries.pop_front();
            self.base += 1;
        }
    }
}

fn check_id(name: Name, said: u64, came: u64, faults: &mut Faults) {
    if said != came {
        let case = || format!("{name:?} was answered with id {said:x} and came with {came:x}");
        faults.add(Fault::Untrue, case);
    }
}

fn untrue(name: Name, faults: &mut Faults) {
    faults.add(Fault::Untrue, || format!("{name:?} came, though the answer says nobody took it"));
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
