//! Mail of the slot's mailbox to connections and hooks.
//!
//! Knows what each envelope means here. The recipients of a packet are marked HANDLING before it is
//! taken out of the socket: if this process dies with it in hand, they are closed and so know.

use super::Worker;
use super::event_loop::UNDER_WAY_MAX;
use crate::app::{App, Closed, ClosedBy, TimerDue};
use crate::clock::Millis;
use crate::ids::{ConnId, TaskId, TimerId};
use crate::ipc::codec;
use crate::ipc::mail::{Mail, Recipients, failure_of};
use crate::ipc::mailbox::Taken;
use crate::scoreboard::{Cell, Errand};
use crate::websocket::Opcode;
use tracing::error;

/// Packets taken per turn; what is left is taken in the next, at once.
const PACKETS_PER_TURN: usize = 32;

impl<A: App> Worker<'_, A> {
    pub(super) fn read_mailbox(&mut self) {
        if !self.core.mail_ready || !self.core.life.serving() {
            return;
        }
        let Some(mut mailbox) = self.core.mailbox.take() else { return };
        // One for the turn: a packet costs no allocation of its own.
        let mut marked = Vec::new();
        for _ in 0..PACKETS_PER_TURN {
            marked.clear();
            match mailbox.take_next(|recipients| self.mark_recipients(recipients, &mut marked)) {
                Taken::Packet => {
                    self.core.row.add(Cell::MailIn, 1);
                    for mail in mailbox.mails() {
                        self.deliver(&mail);
                    }
                    if self.core.touched.len() >= UNDER_WAY_MAX {
                        self.settle();
                    }
                }
                Taken::Unreadable => {}
                Taken::Lost => marked.drain(..).for_each(|key| self.close_for_lost_mail(key)),
                Taken::Nothing => {
                    self.core.mail_ready = false;
                    break;
                }
            }
        }
        self.core.mailbox = Some(mailbox);
    }

    /// A message for this connection was lost on the way: its client must not go on as if nothing was.
    fn close_for_lost_mail(&mut self, key: usize) {
        let reason = "a message was lost: try again later".to_owned();
        self.core.close_by_engine(key, Closed { code: 1013, reason, by: ClosedBy::Server });
    }

    fn mark_recipients(&mut self, recipients: Recipients<'_>, marked: &mut Vec<usize>) {
        match recipients {
            Recipients::None => {}
            Recipients::Some(some) => {
                for bits in some {
                    if let Some(key) = self.core.key_of(ConnId::from_bits(*bits)) {
                        self.core.touch(key);
                        marked.push(key);
                    }
                }
            }
            Recipients::All => {
                let keys: Vec<usize> = self.core.connections.iter().map(|(key, _)| key).collect();
                keys.iter().for_each(|key| self.core.touch(*key));
                marked.extend(keys);
            }
        }
    }

    fn deliver(&mut self, mail: &Mail<'_>) {
        let opcode = |text: bool| if text { Opcode::Text } else { Opcode::Binary };
        match mail {
            Mail::Deliver { to, text, droppable, payload } => {
                let message = self.core.compression.outgoing(opcode(*text), payload);
                self.core.deliver_here(ConnId::from_bits(*to), message, *droppable);
            }
            Mail::DeliverMany { to, text, payload } => {
                let message = self.core.compression.outgoing(opcode(*text), payload);
                for bits in to {
                    self.core.deliver_here(ConnId::from_bits(*bits), message, false);
                }
            }
            Mail::Broadcast { text, payload } => self.core.broadcast_here(opcode(*text), payload),
            Mail::Disconnect { conn, code, reason } => {
                self.core.disconnect_here(ConnId::from_bits(*conn), *code, reason);
            }
            Mail::Overdue { conn, .. } => self.act_on_deadline(ConnId::from_bits(*conn)),
            Mail::Timer { timer, ticks, due } => self.run_timer(TimerId(*timer), *ticks, *due),
            Mail::Finish { task, failure, result } => self.finish_task(*task, *failure, result),
            Mail::Pipe { from, message } => match codec::decode_value(message) {
                Ok(message) => {
                    self.hook_for(Errand::PipeMessage, None, |app, context| {
                        app.pipe_message(context, (*from).into(), message);
                    });
                }
                Err(error) => error!(%error, "a pipe message was left out"),
            },
        }
    }

    /// A deadline has passed, says the timer process: believed only after everything the client sent
    /// so far was read.
    fn act_on_deadline(&mut self, conn: ConnId) {
        let Some(key) = self.core.key_of(conn) else { return };
        self.read_before_judging(key, conn);
        if self.core.key_of(conn).is_none() {
            return;
        }
        match self.core.shared.sessions.deadline(conn) {
            Some(due) if due <= self.core.now => {}
            _ => return,
        }
        self.core.shared.sessions.set_deadline(conn, None);
        let called =
            self.hook_for(Errand::Deadline, Some(conn), |app, context| app.deadline(context, conn));
        if called.is_none() {
            self.close_after_panic(key);
        }
    }

    fn run_timer(&mut self, timer: TimerId, ticks: u64, due: u64) {
        let Some(payload) = self.core.shared.timers.take(timer, self.core.slot) else { return };
        let due = TimerDue { payload: &payload, ticks, due: Millis(due) };
        self.hook_for(Errand::Timer, None, |app, context| app.timer(context, timer, &due));
    }

    fn finish_task(&mut self, task: u64, failure: u8, result: &[u8]) {
        let result = match failure_of(failure) {
            Some(failure) => Err(failure),
            None => codec::decode_value(result).map_err(|error| {
                error!(%error, "a task's result was left out");
                crate::app::TaskFailure::Undecodable
            }),
        };
        self.hook_for(Errand::Finish, None, |app, context| {
            app.finish(context, TaskId(task), result)
        });
    }
}
