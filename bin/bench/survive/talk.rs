//! What a client does with what comes, and how it writes: whole, in fragments, cut with pauses.

use super::compose::user;
use super::ledger::Asked;
use super::load::{Due, Load};
use crate::bench::client::connection::End;
use crate::bench::client::connection::LifeId;
use crate::bench::client::connection::{Connection, Over, Stage};
use crate::bench::client::faults::Fault;
use crate::bench::client::moment::Moment;
use crate::bench::client::protocol::{self, Credential, Said};
use crate::bench::client::wire::{self, Incoming};
use serde_json::value::RawValue;

/// The code of an error that says: nobody could take it now.
const BUSY: i64 = -32006;

impl Load {
    /// Writes and reads what can be on a client's connection.
    pub(super) fn serve(&mut self, client: usize, now: Moment) {
        let Some(mut connection) = self.clients[client].connection.take() else { return };
        let outcome = self.exchange(client, &mut connection, now);
        match outcome {
            Ok(()) => self.clients[client].connection = Some(connection),
            Err(over) => self.over(client, &connection, over, now),
        }
    }

    fn exchange(
        &mut self,
        client: usize,
        connection: &mut Connection,
        now: Moment,
    ) -> Result<(), Over> {
        self.write(client, connection, now);
        if let Some(until) = self.clients[client].slow_until
            && connection.stage == Stage::Open
        {
            return self.read_slowly(client, connection, until, now);
        }
        while connection.readable {
            let mut input = std::mem::take(&mut self.input);
            let outcome = connection.read(&mut input);
            self.input = input;
            let heard = self.hear(client, connection, now);
            if !outcome? {
                heard?;
                break;
            }
            heard?;
        }
        self.write(client, connection, now);
        Ok(())
    }

    /// Reads a few bytes and then not for a while.
    fn read_slowly(
        &mut self,
        client: usize,
        connection: &mut Connection,
        until: Moment,
        now: Moment,
    ) -> Result<(), Over> {
        if !connection.readable || now < until {
            return Ok(());
        }
        let most = self.random.between(256, 16 << 10);
        let most = usize::try_from(most).unwrap_or(self.input.len());
        let mut input = std::mem::take(&mut self.input);
        let outcome = connection.read(&mut input[..most]);
        self.input = input;
        self.hear(client, connection, now)?;
        outcome?;
        let until = now.plus_us(self.random.between(1_000, 100_000));
        self.clients[client].slow_until = Some(until);
        self.later(until, client, Due::Read);
        self.write(client, connection, now);
        Ok(())
    }

    pub(super) fn write(&mut self, client: usize, connection: &mut Connection, now: Moment) {
        connection.write(now);
        let due = connection.outbound.next_due().filter(|due| *due > connection.wakes_at.max(now));
        if let Some(due) = due {
            connection.wakes_at = due;
            self.later(due, client, Due::Write);
        }
    }

    /// Serves what has wholly come.
    fn hear(
        &mut self,
        client: usize,
        connection: &mut Connection,
        now: Moment,
    ) -> Result<(), Over> {
        while let Some(incoming) = connection.next()? {
            match incoming {
                Incoming::Text(text) => self.said(client, connection, &text, now),
                Incoming::Ping(content) => {
                    let mut frame = Vec::new();
                    wire::write_pong(&content, &mut self.random, &mut frame);
                    let due = connection.outbound.earliest(now);
                    connection.outbound.push(&frame, due);
                }
                Incoming::Pong(content) => self.pong(connection, &content),
                Incoming::Close(code) => {
                    let mut frame = Vec::new();
                    let said = if code == 1005 { 1000 } else { code };
                    wire::write_close(said, &mut self.random, &mut frame);
                    connection.outbound.push(&frame, now);
                    connection.write(now);
                    return Err(Over::Ended(End::Closed(code)));
                }
            }
            let (unanswered, undelivered) = self.ledger.debts();
            self.timing.heard(now, unanswered + undelivered > 0);
        }
        Ok(())
    }

    fn said(&mut self, client: usize, connection: &mut Connection, text: &str, now: Moment) {
        match protocol::read(text) {
            Some(Said::Hello) if connection.stage == Stage::Greeting => {
                connection.stage = Stage::LoggingIn;
                let id = self.ledger.ask(connection.life, Asked::Login, now);
                let mut text = String::new();
                let user = self.user(connection.life);
                protocol::login(id, Credential::User(&user), &mut text);
                self.push_whole(connection, &text, now);
            }
            Some(Said::Message(message)) => {
                let name = self.bodies.read(&message.body).filter(|name| {
                    message.from.user == self.user(name.from)
                        && message.to.user.as_deref() == Some(&*self.user(name.to))
                });
                let life = connection.life;
                match name.zip(message.id()) {
                    Some((name, id)) => {
                        self.absences.came(name);
                        self.ledger.delivered(life, name, id, &mut self.faults);
                    }
                    None => self.damaged(life, text),
                }
            }
            Some(Said::Answer { id, outcome }) => {
                self.answered(client, connection, id, outcome, now);
            }
            Some(Said::Other) => {}
            Some(Said::Hello) | None => self.damaged(connection.life, text),
        }
    }

    fn damaged(&mut self, life: LifeId, text: &str) {
        self.faults.add(Fault::Damaged, || {
            let shown: String = text.chars().take(160).collect();
            format!("client life {} got {shown:?}", life.0)
        });
    }

    fn answered(
        &mut self,
        client: usize,
        connection: &mut Connection,
        id: u64,
        outcome: Result<&RawValue, i64>,
        now: Moment,
    ) {
        let Some(request) = self.ledger.answer(connection.life, id, &mut self.faults) else {
            return;
        };
        if self.clients[client].slow_until.is_none() && self.timing.answered(request.since, now) {
            let ms = now.ms_since(request.since);
            self.faults.add(Fault::Stall, || format!("{:?}: {ms} ms", request.asked));
        }
        match (request.asked, outcome) {
            (Asked::Login, Ok(_)) => self.logged_in(client, connection, now),
            (Asked::Ping, Ok(_)) => {}
            (Asked::Presence, Ok(result)) => self.online(connection.life, id, result, now),
            (Asked::Send(name), Err(BUSY)) => {
                self.ledger.not_taken(name, &mut self.faults);
            }
            (Asked::Send(name), Ok(result)) => {
                match serde_json::from_str::<protocol::Sent<'_>>(result.get()) {
                    Ok(sent) if sent.sessions == 0 => {
                        if self.ledger.not_taken(name, &mut self.faults) {
                            self.absences.note(name);
                        }
                    }
                    Ok(sent) if sent.sessions == 1 && sent.id().is_some() => {
                        let id = sent.id().unwrap_or_default();
                        self.ledger.taken(name, id, &mut self.faults);
                    }
                    _ => self.damaged(connection.life, result.get()),
                }
            }
            (asked, Err(code)) => self
                .faults
                .add(Fault::Untrue, || format!("{asked:?} was answered with error {code}")),
        }
    }

    /// An answer says who is online.
    fn online(&mut self, asker: LifeId, id: u64, result: &RawValue, now: Moment) {
        let Ok(said) = serde_json::from_str::<protocol::Presence<'_>>(result.get()) else {
            return self.damaged(asker, result.get());
        };
        let (prefix, ledger) = (&self.plan.prefix, &self.ledger);
        let says = |life: LifeId| Some(said.users.get(&*user(prefix, life))?.online);
        let stayed = self.presence.answer(asker, id, says, |life| ledger.is_open(life), now);
        if let Some(case) = stayed {
            self.faults.add(Fault::Presence, || case);
        }
    }

    fn logged_in(&mut self, client: usize, connection: &mut Connection, now: Moment) {
        if self.clients[client].storms {
            return self.go(connection, now);
        }
        connection.stage = Stage::Open;
        self.opening -= 1;
        self.longest_connect_us = self.longest_connect_us.max(now.us_since(connection.began));
        self.clients[client].place = self.open.len();
        self.open.push(client);
    }

    /// The latest ping may be the only one that is answered.
    fn pong(&mut self, connection: &mut Connection, content: &[u8]) {
        let number = content.try_into().map(u64::from_be_bytes).ok();
        let place = connection.pings.iter().position(|ping| Some(*ping) == number);
        match place {
            Some(place) => drop(connection.pings.drain(..=place)),
            None => self.faults.add(Fault::Damaged, || {
                format!("client life {}: a pong nobody asked for", connection.life.0)
            }),
        }
    }
}
