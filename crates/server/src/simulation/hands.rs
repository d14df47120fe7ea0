//! The deeds of a process of a [`FakeServer`](super::FakeServer): what a worker or task process has in
//! hand, and what its hooks may do.
//!
//! Invariants: 1. What is on a desk dies with its process. 2. Mail and output of a turn leave at its end,
//! mail first; a connection is CLEAN only when its output is with the client. 3. What is sent to a
//! connection that is served elsewhere, or ever was, goes by its home's mailbox, but for what its own
//! hooks send.

use super::world::{Frame, Mail, Output, Packet, Work, World};
use crate::app::{Closed, ClosedBy, Handshake, Response, Sender};
use crate::clock::Millis;
use crate::context::{Effects, MasterDeed, PushError, Role, SendError, TimerError, Urgency};
use crate::ids::{ConnId, RequestId, SlotId, TaskId, TimerId, Turn};
use crate::marks::Marks;
use crate::sessions::{Phase, Service, Sessions, Writer};
use crate::shared::Areas;
use crate::timer::PAYLOAD_MAX;
use crate::websocket::Opcode;
use dunlin_table::death;
use serde_json::Value as Json;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::AtomicU64;

/// What a process has in hand.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) role: Role,
    pub(super) generation: u32,
    /// Its own handle, that writes under its number.
    pub(super) sessions: Sessions,
    /// The connections it serves.
    pub(super) known: BTreeSet<ConnId>,
    /// Of these, those that nothing is read from yet: who had them before may still have mail out.
    pub(super) arriving: BTreeSet<ConnId>,
    /// Connections that are over but for their last hook.
    pub(super) parting: VecDeque<ConnId>,
    /// Connections of this turn.
    pub(super) touched: BTreeSet<ConnId>,
    /// Mail of this turn, by slot.
    pub(super) mail: Vec<Packet>,
    /// Connections served elsewhere whose mail is in this process's hands.
    pub(super) in_transit: Vec<ConnId>,
    /// The connection whose hook runs.
    pub(super) hook_of: Option<ConnId>,
    /// What is to be marked when what was pushed has left.
    pub(super) marks: Marks,
}

impl Desk {
    pub(super) fn new(world: &World, role: Role, generation: u32) -> Self {
        let mut sessions = world.sessions.clone();
        sessions.set_writer(writer(role, generation));
        Self {
            role,
            generation,
            sessions,
            known: BTreeSet::new(),
            arriving: BTreeSet::new(),
            parting: VecDeque::new(),
            touched: BTreeSet::new(),
            mail: vec![Packet::new(); world.slots],
            in_transit: Vec::new(),
            hook_of: None,
            marks: Marks::default(),
        }
    }

    pub(super) fn writer(&self) -> Writer {
        writer(self.role, self.generation)
    }

    pub(super) fn slot(&self) -> Option<SlotId> {
        match self.role {
            Role::Worker(slot) => Some(slot),
            Role::Task(_) => None,
        }
    }

    fn sender(&self, world: &World) -> usize {
        self.slot().map_or_else(|| world.task_process(), SlotId::index)
    }
}

fn writer(role: Role, generation: u32) -> Writer {
    match role {
        Role::Worker(slot) => Writer::Worker(slot.0, generation),
        Role::Task(place) => Writer::Task(place, generation),
    }
}

/// A process at work.
#[derive(Debug)]
pub(super) struct Hands<'w> {
    pub(super) world: &'w mut World,
    pub(super) desk: &'w mut Desk,
}

impl Hands<'_> {
    /// The connection is about to be read from or queued to.
    pub(super) fn touch(&mut self, conn: ConnId) {
        if self.desk.known.contains(&conn) {
            self.desk.touched.insert(conn);
            if let Some(phase) = self.desk.sessions.phase(conn) {
                self.desk.sessions.set_state(conn, phase, Service::Handling);
            }
        }
    }

    /// Queues a message for a connection of this process.
    pub(super) fn push_here(
        &mut self,
        conn: ConnId,
        frame: Frame,
        urgency: Urgency,
    ) -> Result<(), PushError> {
        let bound = self.world.bounds.send_buffer;
        let wire = self.world.wires.entry(conn).or_default();
        if wire.closing.is_some() {
            return Err(PushError::NotOpen);
        }
        let queued = wire.outbox_bytes();
        if urgency == Urgency::Droppable && queued * 2 >= bound {
            return Err(PushError::OutboxFull);
        }
        if queued + frame.payload.len() > bound {
            if urgency == Urgency::Keep {
                let reason = "the client reads too slowly".to_owned();
                self.close_here(conn, Closed { code: 1013, reason, by: ClosedBy::Server });
            }
            return Err(PushError::OutboxFull);
        }
        // First: what is in the outbox of somebody who is CLEAN would outlive this process.
        self.touch(conn);
        self.world.wires.entry(conn).or_default().outbox.push(Output::Message(frame));
        Ok(())
    }

    /// Begins to close a connection of this process, behind last words where there is room for them.
    pub(super) fn close_saying(&mut self, conn: ConnId, last_words: Option<Frame>, closed: Closed) {
        if let Some(frame) = last_words {
            let _ = self.push_here(conn, frame, Urgency::Droppable);
        }
        self.close_here(conn, closed);
    }

    /// Begins to close a connection of this process. What it says from now on is not read.
    pub(super) fn close_here(&mut self, conn: ConnId, closed: Closed) {
        let wire = self.world.wires.entry(conn).or_default();
        if wire.closing.is_some() {
            return;
        }
        if closed.by != ClosedBy::Client {
            let (code, reason) = (closed.code, closed.reason.clone());
            wire.outbox.push(Output::Close { code, reason });
        }
        wire.closing = Some(closed);
        if self.desk.sessions.phase(conn) != Some(Phase::Lost) {
            self.desk.sessions.set_state(conn, Phase::Closing, Service::Handling);
        }
        self.desk.touched.insert(conn);
        self.desk.parting.push_back(conn);
    }

    /// The end of a turn.
    pub(super) fn settle(&mut self) {
        let sender = self.desk.sender(self.world);
        for slot in 0..self.world.slots {
            if !self.desk.mail[slot].is_empty() {
                death::deed();
                let packet = std::mem::take(&mut self.desk.mail[slot]);
                self.world.post[slot][sender].push_back(packet);
            }
        }
        self.desk.in_transit.clear();
        let touched = std::mem::take(&mut self.desk.touched);
        for conn in &touched {
            death::deed();
            self.world.wires.entry(*conn).or_default().flush();
        }
        if !self.desk.marks.is_empty() {
            death::deed();
            self.desk.marks.set();
        }
        for conn in touched {
            let done = self.world.wires.get(&conn).is_some_and(|wire| wire.outbox.is_empty());
            if done && self.desk.sessions.is_established(conn) {
                self.desk.sessions.set_state(conn, Phase::Open, Service::Clean);
            }
        }
    }

    /// Whether what the running hook sends to a connection goes there straight.
    fn goes_straight(&self, conn: ConnId) -> bool {
        let moved = || self.world.wires.get(&conn).is_some_and(|wire| wire.moved);
        self.desk.known.contains(&conn) && (self.desk.hook_of == Some(conn) || !moved())
    }

    /// Connections of a home that a broadcast of this instant by its worker does not reach straight.
    fn moved_of_home(&self, slot: SlotId) -> Vec<ConnId> {
        let sessions = &self.desk.sessions;
        let moved = |conn: &ConnId| self.world.wires.get(conn).is_some_and(|wire| wire.moved);
        let at_home = |conn: &ConnId| sessions.home(*conn) == Some(slot);
        sessions.established().filter(|conn| at_home(conn) && moved(conn)).collect()
    }

    pub(super) fn post(&mut self, slot: SlotId, mail: Mail) -> bool {
        let Some(packet) = self.desk.mail.get_mut(slot.index()) else { return false };
        let taken = packet.len() + self.world.waiting(slot) < self.world.bounds.mailbox;
        if taken {
            packet.push(mail);
        }
        taken
    }
}

impl Effects for Hands<'_> {
    fn push(
        &mut self,
        conn: ConnId,
        opcode: Opcode,
        payload: &[u8],
        urgency: Urgency,
    ) -> Result<(), PushError> {
        death::deed();
        let frame = Frame { opcode, payload: payload.into() };
        if self.goes_straight(conn) {
            return self.push_here(conn, frame, urgency);
        }
        let home = self.desk.sessions.home(conn).ok_or(PushError::NotOpen)?;
        if !self.desk.sessions.is_established(conn) {
            return Err(PushError::NotOpen);
        }
        let droppable = urgency == Urgency::Droppable;
        let posted = self.post(home, Mail::Deliver { to: vec![conn], frame, droppable });
        posted.then_some(()).ok_or(PushError::MailboxFull)
    }

    fn push_many(&mut self, conns: &[ConnId], opcode: Opcode, payload: &[u8]) -> usize {
        let frame = Frame { opcode, payload: payload.into() };
        let mut taken = 0;
        let mut elsewhere: Vec<Vec<ConnId>> = vec![Vec::new(); self.world.slots];
        for conn in conns.iter().copied() {
            death::deed();
            if self.goes_straight(conn) {
                taken += usize::from(self.push_here(conn, frame.clone(), Urgency::Keep).is_ok());
            } else if self.desk.sessions.is_established(conn)
                && let Some(home) = self.desk.sessions.home(conn)
            {
                elsewhere[home.index()].push(conn);
            }
        }
        for (slot, to) in (0..).map(SlotId).zip(elsewhere) {
            let count = to.len();
            if count > 0 {
                let mail = Mail::Deliver { to, frame: frame.clone(), droppable: false };
                taken += if self.post(slot, mail) { count } else { 0 };
            }
        }
        taken
    }

    fn broadcast(&mut self, opcode: Opcode, payload: &[u8]) {
        let frame = Frame { opcode, payload: payload.into() };
        let own = self.desk.slot();
        for conn in self.connections() {
            death::deed();
            if self.goes_straight(conn) && self.world.wires.get(&conn).is_some_and(|w| !w.moved) {
                let _ = self.push_here(conn, frame.clone(), Urgency::Keep);
            }
        }
        for slot in (0..).map(SlotId).take(self.world.slots) {
            if own == Some(slot) {
                let to = self.moved_of_home(slot);
                if !to.is_empty() {
                    self.post(slot, Mail::Deliver { to, frame: frame.clone(), droppable: false });
                }
            } else {
                self.post(slot, Mail::Broadcast(frame.clone()));
            }
        }
    }

    fn disconnect(
        &mut self,
        conn: ConnId,
        last_words: Option<(Opcode, &[u8])>,
        code: u16,
        reason: &str,
    ) -> bool {
        death::deed();
        let reason = reason.to_owned();
        let last_words =
            last_words.map(|(opcode, payload)| Frame { opcode, payload: payload.into() });
        if self.goes_straight(conn) {
            self.close_saying(conn, last_words, Closed { code, reason, by: ClosedBy::Server });
            return true;
        }
        let Some(home) = self.desk.sessions.home(conn) else { return false };
        self.desk.sessions.is_established(conn)
            && self.post(home, Mail::Disconnect { conn, last_words, code, reason })
    }

    fn mark_when_sent(&mut self, word: &'static AtomicU64, from: u64, to: u64) {
        self.desk.marks.note(word, from, to);
    }

    fn turn(&self) -> Turn {
        let slot = self.desk.slot();
        slot.map_or_else(Turn::default, |slot| self.world.scoreboard.turn(slot))
    }

    fn is_under_way(&self, turn: Turn) -> bool {
        self.world.scoreboard.is_under_way(turn)
    }

    fn connections(&self) -> Vec<ConnId> {
        let open = |conn: &ConnId| self.desk.sessions.is_established(*conn);
        self.desk.known.iter().copied().filter(open).collect()
    }

    fn sessions(&self) -> &Sessions {
        &self.desk.sessions
    }

    fn areas(&self) -> &Areas {
        &self.world.areas
    }

    fn set_heartbeat(&mut self, conn: ConnId, after_ms: Option<u64>) {
        self.desk.sessions.set_heartbeat(conn, after_ms);
        let at = after_ms.map(|after| self.world.now + after);
        self.desk.sessions.set_deadline(conn, at);
    }

    fn send_pipe_message(&mut self, to: SlotId, message: Vec<u8>) -> Result<(), SendError> {
        death::deed();
        let from = match self.desk.role {
            Role::Worker(slot) => Sender::Worker(slot),
            Role::Task(place) => Sender::Task(place),
        };
        if to.index() >= self.world.slots {
            return Err(SendError::NoSuchSlot(to));
        }
        self.post(to, Mail::Pipe { from, message }).then_some(()).ok_or(SendError::MailboxFull)
    }

    fn write_process(&mut self, _process: &str, _bytes: &[u8]) -> Result<(), SendError> {
        Err(SendError::NoSuchProcess)
    }

    fn task(&mut self, work: Vec<u8>) -> Result<TaskId, SendError> {
        death::deed();
        let asker = self.desk.slot().ok_or(SendError::NotAWorker)?;
        if self.world.tasks.len() >= self.world.bounds.tasks {
            return Err(SendError::MailboxFull);
        }
        let task = TaskId(self.world.next_id());
        self.world.tasks.push_back(Work { task, asker, work });
        Ok(task)
    }

    fn arm_timer(
        &mut self,
        after_ms: u64,
        period_ms: u64,
        payload: &[u8],
    ) -> Result<TimerId, TimerError> {
        death::deed();
        if payload.len() > PAYLOAD_MAX {
            return Err(TimerError::PayloadTooLarge);
        }
        let slot = self.desk.slot().ok_or(TimerError::NotAWorker)?;
        let due = self.world.now + after_ms;
        self.world.timers.arm(slot, due, period_ms, payload).ok_or(TimerError::TableFull)
    }

    fn clear_timer(&mut self, timer: TimerId) -> bool {
        death::deed();
        self.world.timers.clear(timer)
    }

    fn answer_handshake(&mut self, _request: RequestId, _answer: Handshake) -> bool {
        false // No upgrade is left open here.
    }

    fn respond(&mut self, request: RequestId, response: Response) -> bool {
        death::deed();
        self.world.responses.push((request, response));
        true
    }

    fn stats(&self) -> Json {
        Json::Null
    }

    fn ask_master(&mut self, deed: MasterDeed) {
        self.world.asked.push(deed);
    }

    fn is_stopping(&self) -> bool {
        false
    }

    fn role(&self) -> Role {
        self.desk.role
    }

    fn now(&self) -> Millis {
        self.world.now
    }

    fn unix_ms(&self) -> u64 {
        self.world.unix_ms
    }
}
