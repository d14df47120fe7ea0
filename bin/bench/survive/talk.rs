//! What a client does with what comes, and how it writes: whole, in fragments, cut with pauses.

use super::connection::{Connection, Over, Stage};
use super::deeds::Event as DeedEvent;
use super::faults::Fault;
use super::ledger::{Asked, LifeId};
use super::load::{Due, Load};
use super::losses::End;
use super::moment::Moment;
use super::protocol::{self, Said};
use super::wire::{self, Incoming};
use serde_json::value::RawValue;

/// The code of an error that says: nobody could take it now.
const BUSY: i64 = -32006;

impl Load {
    /// A deed has begun, or is over.
    pub(super) fn note(&mut self, event: &DeedEvent, now: Moment) {
        match event {
            DeedEvent::WorkerDies => self.losses.kill(now, self.open.len() as u64),
            DeedEvent::Done(outcome) => {
                self.outcomes.push(outcome.clone());
                if let Some(problem) = &outcome.problem {
                    let name = outcome.deed.name();
                    self.faults.add(Fault::Deed, || format!("{name}: {problem}"));
                }
            }
            DeedEvent::Over => {}
        }
    }

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
        if outcome? {
            let until = now.plus_us(self.random.between(1_000, 100_000));
            self.clients[client].slow_until = Some(until);
            self.later(until, client, Due::Read);
        }
        self.write(client, connection, now);
        Ok(())
    }

    fn write(&mut self, client: usize, connection: &mut Connection, now: Moment) {
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
                protocol::login(id, &self.user(connection.life), &mut text);
                self.push_whole(connection, &text, now);
            }
            Some(Said::Message(message)) => {
                let name = self.bodies.read(&message.body).filter(|name| {
                    message.from.user == self.user(name.from)
                        && message.to.user == self.user(name.to)
                });
                let life = connection.life;
                match name.zip(message.id()) {
                    Some((name, id)) => {
                        self.ledger.delivered(life, name, id, &mut self.faults);
                    }
                    None => self.damaged(life, text),
                }
            }
            Some(Said::Answer { id, outcome }) => {
                self.answered(client, connection, id, outcome, now);
            }
            Some(Said::Bye { .. } | Said::Other) => {}
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
            (Asked::Ping | Asked::Presence, Ok(_)) => {}
            (Asked::Send(name), Err(BUSY)) => self.ledger.not_taken(name, &mut self.faults),
            (Asked::Send(name), Ok(result)) => {
                match serde_json::from_str::<protocol::Sent<'_>>(result.get()) {
                    Ok(sent) if sent.sessions == 0 => {
                        self.ledger.not_taken(name, &mut self.faults);
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

    fn logged_in(&mut self, client: usize, connection: &mut Connection, now: Moment) {
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

    /// A client's connection ended; it comes back.
    fn over(&mut self, client: usize, connection: &Connection, over: Over, now: Moment) {
        let was_open = connection.stage == Stage::Open;
        let life = connection.life;
        match over {
            Over::Damaged(error) => {
                self.faults.add(Fault::Damaged, || format!("client life {}: {error}", life.0));
            }
            Over::TurnedAway(line) => {
                self.faults.add(Fault::Refused, || format!("answered {line:?}"));
            }
            Over::Ended(end) if was_open => {
                if !self.losses.lost(now, end) {
                    let half =
                        if connection.is_partial() { " in the middle of a frame" } else { "" };
                    let case = || format!("client life {}: {end}{half}", life.0);
                    self.faults.add(Fault::Disconnected, case);
                }
            }
            Over::Ended(end) => {
                if !self.losses.cut(now, end) {
                    let stage = connection.stage;
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
        let wait_us = self.random.between(20_000, 200_000);
        self.later(now.plus_us(wait_us), client, Due::Connect);
    }

    /// A client should be logged in by now, if it is still that life.
    pub(super) fn expect_login(&mut self, client: usize, life: LifeId, now: Moment) {
        let late =
            |connection: &mut Connection| connection.life == life && connection.stage < Stage::Open;
        if let Some(connection) = self.clients[client].connection.take_if(late) {
            self.over(client, &connection, Over::TurnedAway("nothing in 15 s".to_owned()), now);
        }
    }

    /// The user of a life: another for each, so that who is online is known.
    pub(super) fn user(&self, life: LifeId) -> String {
        format!("{}{}", self.plan.prefix, life.0)
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

    fn push_whole(&mut self, connection: &mut Connection, text: &str, now: Moment) {
        let mut bytes = Vec::new();
        wire::write_text(text, 1, &mut self.random, &mut bytes);
        let due = connection.outbound.earliest(now);
        connection.outbound.push(&bytes, due);
        self.timing.asked(now);
    }
}
