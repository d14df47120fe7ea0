//! The deeds of a worker's hooks: what [`Context`](crate::context::Context) does there.
//!
//! Knows who is served here and who elsewhere; calls no hook.

use super::compression::Outgoing;
use super::connection::{Answer, OpenStage};
use super::core::Core;
use super::routing::RECIPIENTS_PER_MAIL;
use crate::app::{Closed, ClosedBy, Handshake, Response, Sender, TraceWay};
use crate::clock::Millis;
use crate::context::{Effects, MasterDeed, PushError, Role, SendError, TimerError, Urgency};
use crate::ids::{ConnId, RequestId, SlotId, TaskId, TimerId, Turn};
use crate::ipc::codec;
use crate::ipc::mail::{Mail, TaskMail, cut_reason};
use crate::ipc::pipe::Control;
use crate::ipc::post::PostError;
use crate::scoreboard::Cell;
use crate::sessions::Sessions;
use crate::shared::Areas;
use crate::status;
use crate::sys::packet;
use crate::task::TASK_MAX_BYTES;
use crate::timer::{PAYLOAD_MAX, SWEEP_MS};
use crate::websocket::Opcode;
use serde_json::Value as Json;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicU64;

impl Core {
    fn push_here(
        &mut self,
        key: usize,
        message: Outgoing<'_>,
        urgency: Urgency,
    ) -> Result<(), PushError> {
        if self.connections[key].open().is_none_or(|open| open.closing.is_some()) {
            return Err(PushError::NotOpen);
        }
        let droppable = urgency == Urgency::Droppable;
        if droppable && (self.connections[key].outbox.is_high() || self.output_is_high()) {
            self.row.add(Cell::Dropped, 1);
            return Err(PushError::OutboxFull);
        }
        if self.queue_message(key, message) {
            if let Some(conn) = self.connections[key].conn() {
                self.note_delivered(conn);
            }
            return Ok(());
        }
        match urgency {
            Urgency::Droppable => self.row.add(Cell::Dropped, 1),
            Urgency::Keep => self.close_slow(key),
        }
        Err(PushError::OutboxFull)
    }

    /// Queues a message for a connection of this worker that came by mail.
    pub(super) fn deliver_here(&mut self, key: usize, message: Outgoing<'_>, droppable: bool) {
        let urgency = if droppable { Urgency::Droppable } else { Urgency::Keep };
        // A full outbox has closed the connection, which tells its client.
        let _ = self.push_here(key, message, urgency);
    }

    /// Queues a message for everybody served here who is `wanted`.
    fn broadcast_here(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        wanted: impl Fn(&OpenStage) -> bool,
    ) {
        let keys: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
        let message = self.compression.outgoing(opcode, payload);
        for key in keys {
            if self.connections[key].open().is_some_and(|open| open.announced && wanted(open)) {
                // A full outbox has closed the connection, which tells its client.
                let _ = self.push_here(key, message, Urgency::Keep);
            }
        }
    }

    /// A message for everybody with their home here: those who are served here, and those who are not.
    pub(super) fn broadcast_at_home(&mut self, opcode: Opcode, payload: &[u8]) {
        let home = self.reading;
        self.broadcast_here(opcode, payload, |open| open.home == home);
        if self.routing.has_moved() {
            let away = self.away_from(home);
            self.send_on_to_many(&away, opcode, payload);
        }
    }

    /// Connections of this worker's own slot that a broadcast of this instant does not reach straight.
    fn moved_of_own_home(&mut self) -> Vec<ConnId> {
        if !self.routing.has_moved() {
            return Vec::new();
        }
        let mut moved = self.away_from(self.slot);
        let open = self.connections.iter().filter_map(|(_, connection)| connection.open());
        let back = open.filter(|open| open.announced && open.moved && open.home == self.slot);
        moved.extend(back.map(|open| open.conn));
        moved
    }

    /// Where a connection is in this worker, if what the running hook sends it goes there straight.
    fn straight_to(&self, conn: ConnId) -> Option<usize> {
        self.key_of(conn).filter(|key| self.goes_straight(*key))
    }

    /// Closes a connection of this worker, behind last words where there is room for them.
    pub(super) fn disconnect_here(
        &mut self,
        conn: ConnId,
        last_words: Option<(Opcode, &[u8])>,
        code: u16,
        reason: &str,
    ) -> bool {
        let Some(key) = self.key_of(conn) else { return false };
        if let Some((opcode, payload)) = last_words {
            let message = self.compression.outgoing(opcode, payload);
            // Where there is no room the close frame alone must do.
            let _ = self.push_here(key, message, Urgency::Droppable);
        }
        let closed = Closed { code, reason: cut_reason(reason).to_owned(), by: ClosedBy::Server };
        self.begin_close(key, closed);
        true
    }

    fn post(&mut self, slot: SlotId, mail: &Mail<'_>) -> Result<(), PostError> {
        let posted = self.post.put(slot.index(), mail);
        if posted.is_err() {
            self.row.add(Cell::MailRefused, 1);
        }
        posted
    }

    /// Posts a message for several connections of one home; gives for how many it was taken.
    fn post_to_many(
        &mut self,
        home: SlotId,
        conns: &[ConnId],
        opcode: Opcode,
        payload: &[u8],
    ) -> usize {
        let chunks = conns.chunks(RECIPIENTS_PER_MAIL);
        let taken = chunks
            .filter(|some| self.post(home, &Mail::deliver_many(some, opcode, payload)).is_ok());
        taken.map(<[ConnId]>::len).sum()
    }
}

impl Effects for Core {
    fn push(
        &mut self,
        conn: ConnId,
        opcode: Opcode,
        payload: &[u8],
        urgency: Urgency,
    ) -> Result<(), PushError> {
        if let Some(key) = self.straight_to(conn) {
            let message = self.compression.outgoing(opcode, payload);
            return self.push_here(key, message, urgency);
        }
        let home = self.shared.sessions.home(conn).ok_or(PushError::NotOpen)?;
        if !self.shared.sessions.is_established(conn) {
            return Err(PushError::NotOpen);
        }
        let droppable = urgency == Urgency::Droppable;
        self.post(home, &Mail::deliver(conn, opcode, droppable, payload)).map_err(|error| {
            match error {
                PostError::Full | PostError::NoSuchSlot => PushError::MailboxFull,
                PostError::Encode(_) => PushError::TooLarge,
            }
        })
    }

    fn push_many(&mut self, conns: &[ConnId], opcode: Opcode, payload: &[u8]) -> usize {
        let mut taken = 0;
        let message = self.compression.outgoing(opcode, payload);
        let mut elsewhere: Vec<(SlotId, Vec<ConnId>)> = Vec::new();
        for conn in conns.iter().copied() {
            if let Some(key) = self.straight_to(conn) {
                taken += usize::from(self.push_here(key, message, Urgency::Keep).is_ok());
            } else if self.shared.sessions.is_established(conn)
                && let Some(home) = self.shared.sessions.home(conn)
            {
                match elsewhere.iter_mut().find(|(slot, _)| *slot == home) {
                    Some((_, some)) => some.push(conn),
                    None => elsewhere.push((home, vec![conn])),
                }
            }
        }
        for (slot, conns) in elsewhere {
            taken += self.post_to_many(slot, &conns, opcode, payload);
        }
        taken
    }

    fn broadcast(&mut self, opcode: Opcode, payload: &[u8]) {
        self.broadcast_here(opcode, payload, |open| !open.moved);
        // Behind what was sent to them before. By name: who is moved only now has got it straight. Refused
        // where this worker has not read for long; counted.
        let moved = self.moved_of_own_home();
        self.post_to_many(self.slot, &moved, opcode, payload);
        for slot in 0..self.wiring.post.len() {
            let slot = SlotId(u16::try_from(slot).unwrap_or(u16::MAX));
            if slot != self.slot {
                // Refused where that worker has not read for long; counted.
                let _ = self.post(slot, &Mail::broadcast(opcode, payload));
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
        if self.straight_to(conn).is_some() {
            return self.disconnect_here(conn, last_words, code, reason);
        }
        let Some(home) = self.shared.sessions.home(conn) else { return false };
        self.shared.sessions.is_established(conn)
            && self.post(home, &Mail::disconnect(conn, last_words, code, reason)).is_ok()
    }

    fn mark_when_sent(&mut self, word: &'static AtomicU64, from: u64, to: u64) {
        self.marks.note(word, from, to);
    }

    fn turn(&self) -> Turn {
        self.shared.scoreboard.turn(self.slot)
    }

    fn is_under_way(&self, turn: Turn) -> bool {
        self.shared.scoreboard.is_under_way(turn)
    }

    fn connections(&self) -> Vec<ConnId> {
        self.connections
            .iter()
            .filter_map(|(_, connection)| connection.open())
            .filter(|open| open.announced && open.closing.is_none())
            .map(|open| open.conn)
            .collect()
    }

    fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    fn areas(&self) -> &Areas {
        &self.shared.areas
    }

    fn is_traced(&self, conn: ConnId) -> bool {
        self.tracing.is_on() && self.tracing.follows(self.shared.sessions.subject(conn))
    }

    fn trace(&mut self, conn: ConnId, way: TraceWay, text: &str) {
        self.trace_line(conn, way, text);
    }

    fn set_heartbeat(&mut self, conn: ConnId, after_ms: Option<u64>) {
        self.shared.sessions.set_heartbeat(conn, after_ms);
        let now = self.now;
        if let Some(key) = self.key_of(conn)
            && let Some(open) = self.connections[key].open_mut()
        {
            open.heartbeat_ms = after_ms;
        }
        self.shared.sessions.set_deadline(conn, after_ms.map(|after| now + after));
    }

    fn send_pipe_message(&mut self, to: SlotId, message: Vec<u8>) -> Result<(), SendError> {
        let from = Sender::Worker(self.slot).into();
        self.post(to, &Mail::Pipe { from, message: &message }).map_err(|error| error.sending_to(to))
    }

    fn write_process(&mut self, process: &str, bytes: &[u8]) -> Result<(), SendError> {
        self.wiring.write_process(process, bytes)
    }

    fn task(&mut self, work: Vec<u8>) -> Result<TaskId, SendError> {
        let queue = self.wiring.tasks_in.ok_or(SendError::NoTaskProcess)?;
        let task = TaskId(u64::from(self.slot.0) << 48 | self.row.next_serial());
        let size = work.len();
        if size > TASK_MAX_BYTES {
            return Err(SendError::TooLarge(size));
        }
        let mail = TaskMail { task: task.0, asker: self.slot.0, work };
        let packet = bincode::encode_to_vec(&mail, codec::settings())
            .map_err(|error| SendError::Encode(error.into()))?;
        match packet::send_packet(queue, &packet) {
            Ok(()) => {
                self.row.add(Cell::TasksAsked, 1);
                self.open_tasks.asked(task.0);
                Ok(task)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SendError::MailboxFull),
            Err(_) => Err(SendError::TooLarge(size)),
        }
    }

    fn arm_timer(
        &mut self,
        after_ms: u64,
        period_ms: u64,
        payload: &[u8],
    ) -> Result<TimerId, TimerError> {
        if payload.len() > PAYLOAD_MAX {
            return Err(TimerError::PayloadTooLarge);
        }
        let due = self.now + after_ms;
        let timer = self
            .shared
            .timers
            .arm(self.slot, due, period_ms, payload)
            .ok_or(TimerError::TableFull)?;
        if after_ms < SWEEP_MS {
            // The timer process sleeps for at most a sweep; what is due sooner wakes it.
            let _ = packet::send_packet(self.wiring.process_outer[0], &[1]);
        }
        Ok(timer)
    }

    fn clear_timer(&mut self, timer: TimerId) -> bool {
        self.shared.timers.clear(timer)
    }

    fn answer_handshake(&mut self, request: RequestId, answer: Handshake) -> bool {
        let there = self.pending.contains_key(&request);
        if there {
            self.answers.push_back((request, Answer::Handshake(answer)));
        }
        there
    }

    fn respond(&mut self, request: RequestId, response: Response) -> bool {
        let there = self.pending.contains_key(&request);
        if there {
            self.answers.push_back((request, Answer::Response(response)));
        }
        there
    }

    fn stats(&self) -> Json {
        status::figures(&self.shared)
    }

    fn status(&self) -> Json {
        let told = self.shared.bulletin.read();
        let told = told.and_then(|text| serde_json::from_str(&text).ok());
        let told = told.unwrap_or_else(|| Json::Object(serde_json::Map::new()));
        let mailbox_bytes = self.wiring.mailbox_bytes();
        status::status(told, &self.wiring.process_names, &mailbox_bytes, &self.shared)
    }

    fn listen(&self) -> &[SocketAddr] {
        &self.wiring.addresses
    }

    fn run_dir(&self) -> &Path {
        &self.config.run_dir
    }

    fn ask_master(&mut self, deed: MasterDeed) {
        // A master that does not read its pipe is gone, and so will this process be.
        let _ = self.pipe.send(&Control::Ask(deed.into()));
    }

    fn is_stopping(&self) -> bool {
        !self.life.accepting()
    }

    fn role(&self) -> Role {
        Role::Worker(self.slot)
    }

    fn now(&self) -> Millis {
        self.now
    }
}
