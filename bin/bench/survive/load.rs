//! The clients and their one event loop: who connects, who writes to whom, and when.
//!
//! `talk` has what is done with what comes; the ledger judges it. No thread but this one touches a
//! socket. A turn, always in this order: poll, deeds, sockets, timers, connects, messages.

use super::body::Bodies;
use super::deeds::{Event as DeedEvent, Outcome};
use super::ledger::Ledger;
use super::losses::Losses;
use super::presence::Presence;
use super::storm::{self, Storm};
use super::timing::Timing;
use super::verdict::Absences;
use crate::bench::client::connection::LifeId;
use crate::bench::client::connection::{Connection, Target};
use crate::bench::client::faults::{Fault, Faults};
use crate::bench::client::moment::Moment;
use crate::bench::progress::Progress;
use crate::failure::Failure;
use crate::random::Random;
use mio::{Events, Poll};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// What a run is.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) target: Target,
    /// What the users of this run begin with.
    pub(super) prefix: String,
    pub(super) connections: u32,
    pub(super) slow: u32,
    pub(super) rate: u32,
    /// Connections a second that come and go.
    pub(super) storm: u32,
    pub(super) seed: u64,
    pub(super) max_stall: Option<Duration>,
}

/// One of many; its connection may change, it stays.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) connection: Option<Connection>,
    /// Its place in [`Load::open`] while it is logged in.
    pub(super) place: usize,
    /// It reads slowly: not before this moment.
    pub(super) slow_until: Option<Moment>,
    /// It only comes and goes.
    pub(super) storms: bool,
}

impl Client {
    pub(super) fn new(storms: bool, slow: bool) -> Self {
        Self { connection: None, place: 0, slow_until: slow.then(Moment::default), storms }
    }
}

/// What is due at a moment, for a client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    Write,
    Read,
    Connect,
    /// To have logged in with this life.
    LogIn(u32),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) plan: Plan,
    pub(super) poll: Poll,
    pub(super) clients: Vec<Client>,
    /// Clients that are logged in.
    pub(super) open: Vec<usize>,
    /// Clients that connect, upgrade or log in.
    pub(super) opening: usize,
    pub(super) ledger: Ledger,
    pub(super) absences: Absences,
    pub(super) faults: Faults,
    pub(super) timing: Timing,
    pub(super) losses: Losses,
    pub(super) bodies: Bodies,
    pub(super) random: Random,
    pub(super) timers: BinaryHeap<Reverse<(Moment, usize, Due)>>,
    pub(super) input: Vec<u8>,
    pub(super) presence: Presence,
    pub(super) storm: Storm,
    /// What came of the deeds.
    pub(super) outcomes: Vec<Outcome>,
    pub(super) connects: u64,
    pub(super) longest_connect_us: u64,
    progress: Progress,
}

const EVENTS_PER_TURN: usize = 1_024;
/// A turn sends no more than this, and then reads.
const SENDS_PER_TURN: u32 = 256;
/// The longest wait of a turn.
const TURN: Duration = Duration::from_millis(100);

impl Load {
    pub(super) fn new(plan: Plan, poll: Poll, progress: Progress) -> Self {
        let clients = (0..plan.connections).map(|number| Client::new(false, number < plan.slow));
        let clients: Vec<Client> = clients.collect();
        let max_stall_us =
            plan.max_stall.map(|most| u64::try_from(most.as_micros()).unwrap_or(u64::MAX));
        Self {
            poll,
            clients,
            open: Vec::new(),
            opening: 0,
            ledger: Ledger::default(),
            faults: Faults::default(),
            timing: Timing::new(max_stall_us),
            losses: Losses::default(),
            bodies: Bodies::new(),
            random: Random::new(plan.seed),
            timers: BinaryHeap::new(),
            input: vec![0; 64 << 10],
            presence: Presence::default(),
            storm: Storm::new(plan.storm),
            outcomes: Vec::new(),
            absences: Absences::default(),
            connects: 0,
            longest_connect_us: 0,
            progress,
            plan,
        }
    }

    /// Sends until `end`, and on until the deeds are over if `deeds` has some.
    ///
    /// # Errors
    /// Polling fails.
    pub(super) fn talk(&mut self, end: Moment, deeds: &Receiver<DeedEvent>) -> Result<(), Failure> {
        let (begun, mut sent, mut doing) = (Moment::now(), 0, true);
        loop {
            let now = Moment::now();
            if now >= end && !doing {
                return Ok(());
            }
            let others = [self.storm_due(begun), self.presence.due()];
            let due = others.into_iter().flatten().fold(self.due(begun, sent), Moment::min);
            let events: Vec<DeedEvent> = deeds.try_iter().collect();
            doing &= !events.iter().any(|event| matches!(event, DeedEvent::Over));
            self.turn(&events, due)?;
            let now = Moment::now();
            self.timing.turn(due, now);
            for _ in 0..SENDS_PER_TURN {
                if self.due(begun, sent) > now {
                    break;
                }
                sent += 1;
                self.send_one(now);
            }
            if now < end || doing {
                self.blow(begun, now)?;
            }
            if self.presence.due().is_some_and(|due| due <= now) {
                self.ask_presence(now);
            }
        }
    }

    /// Waits until nobody owes anything, or nothing has come for a while.
    ///
    /// # Errors
    /// Polling fails.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        self.timing.rest();
        let (mut owed, mut since) = (self.owed(), Moment::now());
        while owed != (0, 0, 0) || self.storm.under_way() > 0 {
            let now = Moment::now();
            self.turn(&[], now.plus_ms(20))?;
            if self.owed() != owed {
                (owed, since) = (self.owed(), now);
            }
            if now.ms_since(since) > SETTLE_MS {
                break;
            }
        }
        for _ in 0..owed.2 {
            self.faults.add(Fault::Unanswered, || "the last ping of a client".to_owned());
        }
        self.ledger.settle(&mut self.faults);
        let open = self.open.iter().filter_map(|client| self.clients[*client].connection.as_ref());
        self.absences.judge(&open.map(|open| open.life).collect(), &mut self.faults);
        for case in self.presence.settle() {
            self.faults.add(Fault::Presence, || case);
        }
        self.calm();
        Ok(())
    }

    /// Requests without an answer, messages that have not come, clients with a ping that is not
    /// answered.
    fn owed(&self) -> (u64, u64, usize) {
        let (unanswered, undelivered) = self.ledger.debts();
        let open = self.open.iter().filter_map(|client| self.clients[*client].connection.as_ref());
        (unanswered, undelivered, open.filter(|open| !open.pings.is_empty()).count())
    }

    /// When the storm goes on; not while it waits for those under way.
    fn storm_due(&self, begun: Moment) -> Option<Moment> {
        let waits = self.storm.under_way() >= storm::UNDER_WAY_MAX;
        self.storm.due(begun).filter(|_| !waits)
    }

    /// When the message behind `sent` others is due.
    fn due(&self, begun: Moment, sent: u64) -> Moment {
        begun.plus_us(sent.saturating_mul(1_000_000) / u64::from(self.plan.rate))
    }

    /// One turn, that ends at `until` if nothing happens.
    pub(super) fn turn(&mut self, deeds: &[DeedEvent], until: Moment) -> Result<(), Failure> {
        let now = Moment::now();
        let due = self.timers.peek().map_or(until, |Reverse((due, ..))| until.min(*due));
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        match self.poll.poll(&mut events, Some(now.until(due).min(TURN))) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(Failure::failed(format!("cannot wait for sockets: {error}")));
            }
            _ => {}
        }
        let now = Moment::now();
        for event in deeds {
            self.note(event, now);
        }
        for event in &events {
            let Some(client) = self.clients.get_mut(event.token().0) else { continue };
            let Some(connection) = &mut client.connection else { continue };
            connection.readable |=
                event.is_readable() || event.is_read_closed() || event.is_error();
            connection.writable |= event.is_writable();
            self.serve(event.token().0, now);
        }
        while let Some(Reverse((due, client, what))) = self.timers.peek().copied() {
            if due > now {
                break;
            }
            self.timers.pop();
            self.timer(client, what, now)?;
        }
        self.progress.turn_with(now, || self.so_far());
        Ok(())
    }

    /// What is told beside how far it is.
    fn so_far(&self) -> String {
        let broken: u64 = self.faults.broken().map(|(_, count)| count).sum();
        let (open, sent) = (self.open.len(), self.ledger.counts().sent);
        format!("{open} open, {sent} sent, {} deeds, {broken} broken", self.outcomes.len())
    }

    fn timer(&mut self, client: usize, what: Due, now: Moment) -> Result<(), Failure> {
        match what {
            Due::Write | Due::Read => self.serve(client, now),
            Due::Connect if self.clients[client].connection.is_none() => {
                self.connect(client, now)?;
            }
            Due::Connect => {}
            Due::LogIn(life) => self.expect_login(client, LifeId(life), now),
        }
        Ok(())
    }

    pub(super) fn later(&mut self, due: Moment, client: usize, what: Due) {
        self.timers.push(Reverse((due, client, what)));
    }
}

/// So long nothing may come before what is owed is given up.
const SETTLE_MS: u64 = 5_000;
