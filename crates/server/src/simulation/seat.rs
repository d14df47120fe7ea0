//! A worker, or the task process, of a [`FakeServer`](super::FakeServer): what it does with mail, with
//! what clients say, and with what its predecessor has left.
//!
//! Knows no other process but by mail. Invariant: whoever is read from or queued to is HANDLING first.

use super::dice::Dice;
use super::hands::{Desk, Hands};
use super::world::{Frame, Mail, Said, World};
use crate::app::{Adoption, App, Closed, ClosedBy, Message, TaskFailure, TimerDue};
use crate::context::{Context, Urgency};
use crate::ids::{ConnId, SlotId};
use crate::ipc::codec;
use crate::sessions::Phase;
use crate::websocket::Opcode;
use dunlin_table::death;

/// A process of the server: its copy of the application, and what it has in hand.
pub(super) struct Seat<A> {
    pub(super) app: A,
    pub(super) desk: Desk,
    pub(super) lives: bool,
}

impl<A: App> Seat<A> {
    pub(super) fn hands<'h>(&'h mut self, world: &'h mut World) -> Hands<'h> {
        Hands { world, desk: &mut self.desk }
    }

    pub(super) fn hook<R>(
        &mut self,
        world: &mut World,
        conn: Option<ConnId>,
        call: impl FnOnce(&mut A, &mut Context<'_, A>) -> R,
    ) -> R {
        self.desk.hook_of = conn;
        let mut hands = Hands { world, desk: &mut self.desk };
        let result = call(&mut self.app, &mut Context::new(&mut hands));
        self.desk.hook_of = None;
        result
    }

    /// Takes up every row of the slot, and closes what its predecessor was serving when it died.
    pub(super) fn adopt_all(&mut self, world: &mut World, slot: SlotId, why: Adoption) {
        let rows: Vec<ConnId> = self.desk.sessions.owned_by(slot).collect();
        for conn in rows {
            match self.desk.sessions.phase(conn) {
                Some(Phase::Lost) => self.close_lost(world, conn),
                Some(Phase::Closing) => {
                    self.desk.known.insert(conn);
                    self.desk.parting.push_back(conn);
                }
                Some(Phase::Open) => self.take_up(world, conn, why),
                _ => {}
            }
        }
        self.hands(world).settle();
    }

    fn take_up(&mut self, world: &mut World, conn: ConnId, why: Adoption) {
        if self.desk.known.insert(conn) {
            self.hook(world, Some(conn), |app, context| app.adopt(context, conn, why));
        }
    }

    fn close_lost(&mut self, world: &mut World, conn: ConnId) {
        self.desk.known.insert(conn);
        world.wires.entry(conn).or_default().closing = None;
        self.close_by_engine(world, conn, 1012, "worker lost", ClosedBy::WorkerLost);
    }

    /// A close that the engine itself begins: with the application's last word.
    fn close_by_engine(
        &mut self,
        world: &mut World,
        conn: ConnId,
        code: u16,
        reason: &str,
        by: ClosedBy,
    ) {
        let goodbye = A::goodbye(code, reason, 1).map(|goodbye| {
            let payload = goodbye.into_bytes().into();
            Frame { opcode: Opcode::Text, payload }
        });
        let reason = reason.to_owned();
        self.hands(world).close_saying(conn, goodbye, Closed { code, reason, by });
    }

    /// Takes a packet out of the mailbox. False: there is none.
    pub(super) fn read_mailbox(
        &mut self,
        world: &mut World,
        slot: SlotId,
        dice: &mut Dice,
    ) -> bool {
        let full: Vec<usize> = (0..world.post[slot.index()].len())
            .filter(|sender| !world.post[slot.index()][*sender].is_empty())
            .collect();
        let Some(sender) = dice.pick(&full).copied() else { return false };
        // Whom it is for is noted before it is taken: if it dies in this process's hands, they know.
        let packet = world.post[slot.index()][sender].front().cloned().unwrap_or_default();
        for conn in packet.iter().flat_map(Mail::recipients).copied() {
            self.mark(world, slot, conn);
        }
        if let Some(Mail::Broadcast(_)) = packet.first() {
            let all: Vec<ConnId> = self.desk.known.iter().copied().collect();
            all.into_iter().for_each(|conn| self.hands(world).touch(conn));
        }
        death::deed();
        world.post[slot.index()][sender].pop_front();
        for mail in packet {
            self.deliver(world, slot, mail);
        }
        true
    }

    fn mark(&mut self, world: &mut World, slot: SlotId, conn: ConnId) {
        match self.desk.sessions.owner(conn) {
            Some(owner) if owner == slot => {
                if !self.desk.known.contains(&conn) && self.desk.sessions.is_established(conn) {
                    // Its last worker's `Moved` is still on the way.
                    self.desk.arriving.insert(conn);
                    self.take_up(world, conn, Adoption::Balance);
                }
                self.hands(world).touch(conn);
            }
            Some(_) => self.desk.in_transit.push(conn),
            None => {}
        }
    }

    fn deliver(&mut self, world: &mut World, slot: SlotId, mail: Mail) {
        match mail {
            Mail::Deliver { to, frame, droppable } => {
                let urgency = if droppable { Urgency::Droppable } else { Urgency::Keep };
                for conn in to {
                    if self.desk.known.contains(&conn) {
                        let _ = self.hands(world).push_here(conn, frame.clone(), urgency);
                    } else {
                        let on = Mail::Deliver { to: vec![conn], frame: frame.clone(), droppable };
                        self.send_on(slot, conn, on);
                    }
                }
            }
            Mail::Broadcast(frame) => {
                let home = |conn: &ConnId| world.sessions.home(*conn) == Some(slot);
                let all: Vec<ConnId> = world.sessions.established().filter(home).collect();
                for conn in all {
                    if self.desk.known.contains(&conn) {
                        let _ = self.hands(world).push_here(conn, frame.clone(), Urgency::Keep);
                    } else if world.wires.get(&conn).is_some_and(|wire| wire.moved) {
                        let frame = frame.clone();
                        let on = Mail::Deliver { to: vec![conn], frame, droppable: false };
                        self.send_on(slot, conn, on);
                    }
                }
            }
            Mail::Disconnect { conn, ref last_words, code, ref reason } => {
                if self.desk.known.contains(&conn) {
                    let closed = Closed { code, reason: reason.clone(), by: ClosedBy::Server };
                    self.hands(world).close_saying(conn, last_words.clone(), closed);
                } else {
                    self.send_on(slot, conn, mail);
                }
            }
            Mail::Overdue(conn) => {
                if self.desk.known.contains(&conn) {
                    self.act_on_overdue(world, conn);
                } else {
                    self.send_on(slot, conn, mail);
                }
            }
            Mail::Lost(conn) => {
                if self.desk.known.contains(&conn) {
                    self.close_by_engine(world, conn, 1012, "worker lost", ClosedBy::WorkerLost);
                } else {
                    self.send_on(slot, conn, mail);
                }
            }
            Mail::Moved(conn) => {
                self.desk.arriving.remove(&conn);
                if self.desk.sessions.owner(conn) == Some(slot) {
                    self.take_up(world, conn, Adoption::Balance);
                }
            }
            Mail::Timer { timer, ticks, due } => {
                let Some(payload) = world.timers.take(timer, slot) else { return };
                let due = TimerDue { payload: &payload, ticks, due };
                self.hook(world, None, |app, context| app.timer(context, timer, &due));
            }
            Mail::Pipe { from, message } => {
                if let Ok(message) = codec::decode_value(&message) {
                    self.hook(world, None, |app, context| app.pipe_message(context, from, message));
                }
            }
            Mail::Finish { task, result } => {
                let result = result.and_then(|result| {
                    codec::decode_value(&result).map_err(|_| TaskFailure::Undecodable)
                });
                self.hook(world, None, |app, context| app.finish(context, task, result));
            }
        }
    }

    /// Mail for a connection that another worker serves goes there; for one that is gone, nowhere.
    fn send_on(&mut self, slot: SlotId, conn: ConnId, mail: Mail) {
        let Some(owner) = self.desk.sessions.owner(conn) else { return };
        if owner != slot && self.desk.sessions.is_established(conn) {
            // Mail under way is always taken: the bound is for who brings more.
            self.desk.mail[owner.index()].push(mail);
        }
    }

    /// Believed only after everything the client has said was read.
    fn act_on_overdue(&mut self, world: &mut World, conn: ConnId) {
        if self.desk.arriving.contains(&conn) {
            return;
        }
        while self.read_from(world, conn) {}
        let due = self.desk.sessions.deadline(conn).is_some_and(|at| at <= world.now);
        if due && self.desk.known.contains(&conn) {
            self.hands(world).touch(conn);
            self.desk.sessions.set_deadline(conn, None);
            self.hook(world, Some(conn), |app, context| app.deadline(context, conn));
        }
    }

    /// Reads from one of the clients that have said something. False: there is none.
    pub(super) fn read_client(&mut self, world: &mut World, dice: &mut Dice) -> bool {
        let speaks = |conn: &ConnId| {
            let wire = world.wires.get(conn);
            wire.is_some_and(|wire| !wire.said.is_empty() && wire.closing.is_none())
                && !self.desk.arriving.contains(conn)
        };
        let speakers: Vec<ConnId> = self.desk.known.iter().copied().filter(speaks).collect();
        let Some(conn) = dice.pick(&speakers).copied() else { return false };
        self.read_from(world, conn)
    }

    fn read_from(&mut self, world: &mut World, conn: ConnId) -> bool {
        self.hands(world).touch(conn);
        let Some(wire) = world.wires.get_mut(&conn).filter(|wire| wire.closing.is_none()) else {
            return false;
        };
        let Some(said) = wire.said.pop_front() else { return false };
        let heartbeat = self.desk.sessions.heartbeat(conn);
        self.desk.sessions.touch(conn, world.now, heartbeat);
        match said {
            Said::Text(text) => self.hook(world, Some(conn), |app, context| {
                app.message(context, conn, Message::Text(&text));
            }),
            Said::Binary(bytes) => self.hook(world, Some(conn), |app, context| {
                app.message(context, conn, Message::Binary(&bytes));
            }),
            Said::Life => {}
            Said::End(code) => {
                let closed = Closed { code, reason: String::new(), by: ClosedBy::Client };
                self.hands(world).close_here(conn, closed);
            }
        }
        true
    }

    /// Ends a connection: its last hook, then its row.
    pub(super) fn finish(&mut self, world: &mut World, conn: ConnId) {
        let wire = world.wires.entry(conn).or_default();
        let lost = Closed { code: 1006, reason: String::new(), by: ClosedBy::Server };
        let closed = wire.closing.clone().unwrap_or(lost);
        self.hook(world, Some(conn), |app, context| app.close(context, conn, &closed));
        self.desk.known.remove(&conn);
        self.desk.arriving.remove(&conn);
        self.desk.touched.remove(&conn);
        self.desk.sessions.free(conn);
        if let Some(wire) = world.wires.get_mut(&conn) {
            wire.cut();
            wire.said.clear();
        }
    }
}
