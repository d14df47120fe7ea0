//! What clients write, and how: whole, in fragments, cut with pauses.

use super::ledger::Asked;
use super::load::Load;
use crate::bench::client::connection::LifeId;
use crate::bench::client::connection::{Connection, Stage};
use crate::bench::client::moment::Moment;
use crate::bench::client::protocol;
use crate::bench::client::wire;
use crate::random;

/// A client writes to itself and so many others.
const PEERS: usize = 8;
/// So many users that are online are asked about in one question.
const ASKED_USERS: usize = 20;

impl Load {
    /// Sends a message from a random client to one of those it writes to.
    pub(super) fn send_one(&mut self, now: Moment) {
        if self.open.is_empty() {
            return;
        }
        let client = self.open[self.random.below(self.open.len())];
        let choice = self.random.below(PEERS + 1) as u64;
        let peer = match choice {
            0 => client,
            _ => {
                let far = random::mix(self.plan.seed ^ (client as u64) << 8 ^ choice);
                // Those behind only come and go.
                let clients = self.plan.connections as usize;
                (client + random::below(far, clients)) % clients
            }
        };
        let to = self.clients[peer].connection.as_ref();
        let Some(to) = to.filter(|to| to.stage == Stage::Open).map(|to| to.life) else { return };
        self.write_message(client, to, now);
    }

    /// Writes a message, and sometimes a ping beside it.
    pub(super) fn write_message(&mut self, client: usize, to: LifeId, now: Moment) {
        let Some(mut connection) = self.clients[client].connection.take() else { return };
        let pauses = if self.random.one_in(16) { self.random.between(1, 3) } else { 0 };
        let pauses: Vec<u64> = (0..pauses).map(|_| self.random.between(500, 30_000)).collect();
        let since = connection.outbound.earliest(now).plus_us(pauses.iter().sum());
        let name = self.ledger.name(connection.life, to);
        let id = self.ledger.ask(connection.life, Asked::Send(name), since);
        let mut text = String::new();
        let bodies = &self.bodies;
        protocol::send(id, &self.user(to), |into| bodies.write(name, into), &mut text);
        let frames = if self.random.one_in(8) { 2 + self.random.below(3) } else { 1 };
        let mut bytes = Vec::with_capacity(text.len() + 16 * frames);
        wire::write_text(&text, frames, &mut self.random, &mut bytes);
        self.push_cut(&mut connection, &bytes, &pauses, now);
        match self.random.below(16) {
            0 => self.push_ping(&mut connection, now),
            1 => {
                let since = connection.outbound.earliest(now);
                let id = self.ledger.ask(connection.life, Asked::Ping, since);
                let mut text = String::new();
                protocol::ping(id, &mut text);
                self.push_whole(&mut connection, &text, now);
            }
            _ => {}
        }
        self.timing.asked(now);
        self.write(client, &mut connection, now);
        self.clients[client].connection = Some(connection);
    }

    /// Asks over a random connection who of some users is online.
    pub(super) fn ask_presence(&mut self, now: Moment) {
        let quick: Vec<usize> = (0..4).filter_map(|_| self.random_open()).collect();
        let quick = quick.into_iter().find(|client| self.clients[*client].slow_until.is_none());
        let Some(client) = quick else { return self.presence.postpone(now) };
        let open: Vec<usize> = (0..ASKED_USERS).filter_map(|_| self.random_open()).collect();
        let mut open: Vec<LifeId> = open.into_iter().map(|client| self.life(client)).collect();
        open.sort_unstable();
        open.dedup();
        let Some(mut connection) = self.clients[client].connection.take() else { return };
        let since = connection.outbound.earliest(now);
        let id = self.ledger.ask(connection.life, Asked::Presence, since);
        let asked = self.presence.ask(connection.life, id, open, since);
        let users: Vec<String> = asked.iter().map(|life| self.user(*life)).collect();
        let mut text = String::new();
        protocol::presence(id, users.iter().map(String::as_str), &mut text);
        self.push_whole(&mut connection, &text, now);
        self.write(client, &mut connection, now);
        self.clients[client].connection = Some(connection);
    }

    fn random_open(&mut self) -> Option<usize> {
        let place = self.random.below(self.open.len());
        self.open.get(place).copied()
    }

    /// The life of a client that is open.
    fn life(&self, client: usize) -> LifeId {
        // Open clients have a connection.
        self.clients[client].connection.as_ref().map_or(LifeId(0), |connection| connection.life)
    }

    /// The user of a life: another for each, so that who is online is known.
    pub(super) fn user(&self, life: LifeId) -> String {
        user(&self.plan.prefix, life)
    }

    pub(super) fn push_whole(&mut self, connection: &mut Connection, text: &str, now: Moment) {
        let mut bytes = Vec::new();
        wire::write_text(text, 1, &mut self.random, &mut bytes);
        let due = connection.outbound.earliest(now);
        connection.outbound.push(&bytes, due);
        self.timing.asked(now);
    }

    /// Appends bytes cut at random places, one more than there are pauses; also in a frame's head.
    fn push_cut(&mut self, connection: &mut Connection, bytes: &[u8], pauses: &[u64], now: Moment) {
        let mut due = connection.outbound.earliest(now);
        let mut start = 0;
        for pause in pauses {
            let left = bytes.len() - start;
            let head = if self.random.one_in(2) { 8.min(left) } else { left };
            let end = start + self.random.below(head);
            connection.outbound.push(&bytes[start..end], due);
            (start, due) = (end, due.plus_us(*pause));
        }
        connection.outbound.push(&bytes[start..], due);
    }

    fn push_ping(&mut self, connection: &mut Connection, now: Moment) {
        let number = self.random.next();
        connection.pings.push_back(number);
        let mut bytes = Vec::new();
        wire::write_ping(&number.to_be_bytes(), &mut self.random, &mut bytes);
        let due = connection.outbound.earliest(now);
        connection.outbound.push(&bytes, due);
    }
}

/// The user of a life, in the run with this prefix.
pub(super) fn user(prefix: &str, life: LifeId) -> String {
    format!("{prefix}{}", life.0)
}
