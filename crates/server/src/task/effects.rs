//! The deeds of a task process's hooks: everything goes by mail.

use super::Core;
use crate::app::{Handshake, Response, Sender, StopReason};
use crate::clock::{self, Millis};
use crate::context::{Effects, MasterDeed, PushError, Role, SendError, TimerError, Urgency};
use crate::ids::{ConnId, RequestId, SlotId, TaskId, TimerId, Turn};
use crate::ipc::mail::Mail;
use crate::ipc::pipe::Control;
use crate::sessions::Sessions;
use crate::shared::Areas;
use crate::status;
use crate::websocket::Opcode;
use serde_json::Value as Json;
use std::sync::atomic::AtomicU64;

impl Effects for Core {
    fn push(
        &mut self,
        conn: ConnId,
        opcode: Opcode,
        payload: &[u8],
        urgency: Urgency,
    ) -> Result<(), PushError> {
        let home = self.shared.sessions.home(conn).ok_or(PushError::NotOpen)?;
        if !self.shared.sessions.is_established(conn) {
            return Err(PushError::NotOpen);
        }
        let mail = Mail::deliver(conn, opcode, urgency == Urgency::Droppable, payload);
        self.post.put(home.index(), &mail).map_err(|_| PushError::MailboxFull)
    }

    fn push_many(&mut self, conns: &[ConnId], opcode: Opcode, payload: &[u8]) -> usize {
        let keep = Urgency::Keep;
        conns.iter().filter(|conn| self.push(**conn, opcode, payload, keep).is_ok()).count()
    }

    fn broadcast(&mut self, opcode: Opcode, payload: &[u8]) {
        for slot in 0..self.shared.scoreboard.workers() {
            // Refused where that worker has not read for long.
            let _ = self.post.put(slot, &Mail::broadcast(opcode, payload));
        }
    }

    fn disconnect(
        &mut self,
        conn: ConnId,
        last_words: Option<(Opcode, &[u8])>,
        code: u16,
        reason: &str,
    ) -> bool {
        let Some(home) = self.shared.sessions.home(conn) else { return false };
        let mail = Mail::disconnect(conn, last_words, code, reason);
        self.shared.sessions.is_established(conn) && self.post.put(home.index(), &mail).is_ok()
    }

    fn mark_when_sent(&mut self, word: &'static AtomicU64, from: u64, to: u64) {
        self.marks.note(word, from, to);
    }

    fn turn(&self) -> Turn {
        Turn::default()
    }

    fn is_under_way(&self, turn: Turn) -> bool {
        self.shared.scoreboard.is_under_way(turn)
    }

    fn connections(&self) -> Vec<ConnId> {
        Vec::new()
    }

    fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    fn areas(&self) -> &Areas {
        &self.shared.areas
    }

    fn set_heartbeat(&mut self, conn: ConnId, after_ms: Option<u64>) {
        self.shared.sessions.set_heartbeat(conn, after_ms);
    }

    fn send_pipe_message(&mut self, to: SlotId, message: Vec<u8>) -> Result<(), SendError> {
        let from = Sender::Task(self.place).into();
        let mail = Mail::Pipe { from, message: &message };
        self.post.put(to.index(), &mail).map_err(|error| error.sending_to(to))
    }

    fn write_process(&mut self, process: &str, bytes: &[u8]) -> Result<(), SendError> {
        self.wiring.write_process(process, bytes)
    }

    fn task(&mut self, _work: Vec<u8>) -> Result<TaskId, SendError> {
        Err(SendError::NotAWorker)
    }

    fn arm_timer(
        &mut self,
        _after_ms: u64,
        _period_ms: u64,
        _payload: &[u8],
    ) -> Result<TimerId, TimerError> {
        Err(TimerError::NotAWorker)
    }

    fn clear_timer(&mut self, timer: TimerId) -> bool {
        self.shared.timers.clear(timer)
    }

    fn answer_handshake(&mut self, _request: RequestId, _answer: Handshake) -> bool {
        false
    }

    fn respond(&mut self, _request: RequestId, _response: Response) -> bool {
        false
    }

    fn stats(&self) -> Json {
        status::figures(&self.shared)
    }

    fn ask_master(&mut self, deed: MasterDeed) {
        // A master that does not read its pipe is gone, and so will this process be.
        let _ = self.control.send(&Control::Ask(deed.into()));
    }

    fn is_stopping(&self) -> bool {
        self.stop == Some(StopReason::Shutdown)
    }

    fn role(&self) -> Role {
        Role::Task(self.place)
    }

    fn now(&self) -> Millis {
        clock::now()
    }
}
