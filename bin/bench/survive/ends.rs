//! How connections end, and what that means.

use super::deeds::Event as DeedEvent;
use super::load::{Due, Load};
use super::storm;
use crate::bench::client::connection::End;
use crate::bench::client::connection::LifeId;
use crate::bench::client::connection::{Connection, Over, Stage};
use crate::bench::client::faults::Fault;
use crate::bench::client::moment::Moment;
use crate::bench::client::wire;

impl Load {
    /// A deed has begun, or is over.
    pub(super) fn note(&mut self, event: &DeedEvent, now: Moment) {
        match event {
            DeedEvent::WorkerDies => {
                self.losses.kill(now, self.open.len() as u64);
                self.presence.kill(now);
            }
            DeedEvent::Done(outcome) => {
                self.outcomes.push(outcome.clone());
                if let Some(problem) = outcome.problem.as_ref().filter(|_| !outcome.excused) {
                    let name = outcome.deed.name();
                    self.faults.add(Fault::Deed, || format!("{name}: {problem}"));
                }
            }
            DeedEvent::Over => {}
        }
    }

    /// A client's connection ended; it comes back.
    pub(super) fn over(&mut self, client: usize, connection: &Connection, over: Over, now: Moment) {
        let was_open = connection.stage == Stage::Open;
        let life = connection.life;
        match over {
            Over::Damaged(error) => {
                self.faults.add(Fault::Damaged, || format!("client life {}: {error}", life.0));
            }
            Over::TurnedAway(line) => {
                self.faults.add(Fault::Refused, || format!("answered {line:?}"));
            }
            Over::Ended(End::Closed(storm::CODE)) if connection.stage == Stage::Closing => {
                self.storm.done += 1;
            }
            Over::Ended(end) if was_open => {
                self.presence.closed(life, now);
                if !self.losses.lost(now, end) {
                    let half =
                        if connection.is_partial() { " in the middle of a frame" } else { "" };
                    let case = || format!("client life {}: {end}{half}", life.0);
                    self.faults.add(Fault::Disconnected, case);
                }
            }
            Over::Ended(end) => {
                let stage = connection.stage;
                if !self.losses.cut(now, end, stage >= Stage::Greeting) {
                    self.faults.add(Fault::Refused, || format!("{end} while {stage:?}"));
                }
            }
        }
        self.ledger.close(life);
        if was_open {
            let place = self.clients[client].place;
            self.open.swap_remove(place);
            if let Some(moved) = self.open.get(place) {
                self.clients[*moved].place = place;
            }
        } else {
            self.opening -= 1;
        }
        if self.clients[client].storms {
            return self.gone(client);
        }
        let wait_us = self.random.between(20_000, 200_000);
        self.later(now.plus_us(wait_us), client, Due::Connect);
    }

    /// A client should be logged in by now, or gone if it only came to go, if it is still that life.
    pub(super) fn expect_login(&mut self, client: usize, life: LifeId, now: Moment) {
        let late = |connection: &mut Connection| {
            connection.life == life && connection.stage != Stage::Open
        };
        if let Some(connection) = self.clients[client].connection.take_if(late) {
            self.over(client, &connection, Over::TurnedAway("nothing in 15 s".to_owned()), now);
        }
    }

    /// The end of the run: all say that they go. Nobody waits for what is said to that.
    pub(super) fn leave(&mut self) {
        for client in 0..self.clients.len() {
            if let Some(mut connection) = self.clients[client].connection.take() {
                let mut bytes = Vec::new();
                wire::write_close(storm::CODE, &mut self.random, &mut bytes);
                let now = Moment::now();
                connection.outbound.push(&bytes, now);
                connection.write(now);
            }
        }
    }
}
