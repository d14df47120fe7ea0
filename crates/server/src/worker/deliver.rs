//! Mail of the slot's mailbox to connections and hooks.
//!
//! Knows what each envelope means here. The recipients of a packet are marked HANDLING before it is
//! taken out of the socket: if this process dies with it in hand, they are closed and so know. What is
//! for connections that other workers serve is sent on (see [`super::routing`]).

use super::Worker;
use super::event_loop::UNDER_WAY_MAX;
use super::routing::{Owed, Place};
use crate::app::{Adoption, App, Closed, ClosedBy, TaskFailure, TimerDue};
use crate::clock::Millis;
use crate::ids::{ConnId, SlotId, TaskId, TimerId};
use crate::ipc::codec;
use crate::ipc::mail::{LastWords, Mail, Recipients, failure_of};
use crate::ipc::mailbox::{Reader, Taken};
use crate::scoreboard::{Cell, Errand};
use crate::websocket::Opcode;
use std::collections::VecDeque;
use tracing::error;

/// Packets taken per turn; what is left is taken in the next, at once.
const PACKETS_PER_TURN: usize = 32;

/// Recipients served from the mailbox in a turn, and then to the end of the packet: a message to each
/// is a send, and connections of this worker must not wait for many rooms' worth.
const RECIPIENTS_PER_TURN: usize = 2_048;

/// Tasks whose ends came last; more than all task processes can have in hand.
const FINISHED_MAX: usize = 1_024;

/// The tasks whose ends came last: a process that is killed when its result is on the way is told lost,
/// behind the result.
#[derive(Debug, Default)]
pub(super) struct Finished {
    tasks: VecDeque<u64>,
}

impl Finished {
    fn note(&mut self, task: u64) {
        if self.tasks.len() >= FINISHED_MAX {
            self.tasks.pop_front();
        }
        self.tasks.push_back(task);
    }

    fn has(&self, task: u64) -> bool {
        self.tasks.contains(&task)
    }
}

/// Whom the packet in hand is for.
#[derive(Debug, Default)]
struct Marked {
    here: Vec<usize>,
    elsewhere: Vec<ConnId>,
}

impl Marked {
    fn clear(&mut self) {
        self.here.clear();
        self.elsewhere.clear();
    }
}

/// Looks at whom a packet is for before it is taken.
struct Sorter<'s, 'a, A: App> {
    worker: &'s mut Worker<'a, A>,
    marked: &'s mut Marked,
    patient: bool,
}

impl<A: App> Reader for Sorter<'_, '_, A> {
    fn may_take(&mut self, recipients: Recipients<'_>) -> bool {
        !self.patient || !self.worker.core.must_wait(recipients)
    }

    fn mark(&mut self, recipients: Recipients<'_>) {
        self.worker.mark_recipients(recipients, self.marked);
    }
}

impl<A: App> Worker<'_, A> {
    pub(super) fn read_mailbox(&mut self) {
        if !self.core.mail_ready || !self.core.life.serving() {
            return;
        }
        let Some(mut mailbox) = self.core.mailbox.take() else { return };
        // One for the turn: a packet costs no allocation of its own.
        let mut marked = Marked::default();
        let mut recipients = 0;
        for _ in 0..PACKETS_PER_TURN {
            marked.clear();
            let patient = self.core.routing.is_patient(self.core.now);
            let mut sorter = Sorter { worker: self, marked: &mut marked, patient };
            match mailbox.take_next(&mut sorter) {
                Taken::Packet => {
                    self.core.routing.go_on();
                    self.core.row.add(Cell::MailIn, 1);
                    let (mails, cause_us) = mailbox.mails();
                    self.core.set_cause(Some(cause_us).filter(|cause_us| *cause_us > 0));
                    for mail in mails {
                        self.deliver(&mail);
                    }
                    self.core.set_cause(None);
                    if self.core.touched.len() >= UNDER_WAY_MAX {
                        self.settle();
                    }
                    recipients += marked.here.len() + marked.elsewhere.len();
                    if recipients >= RECIPIENTS_PER_TURN {
                        self.core.row.add(Cell::TurnsFull, 1);
                        break;
                    }
                }
                Taken::NotNow => {
                    self.core.routing.wait(self.core.now);
                    break;
                }
                Taken::Unreadable => {}
                Taken::Lost => {
                    self.core.routing.go_on();
                    marked.here.drain(..).for_each(|key| self.close_for_lost_mail(key));
                    for conn in marked.elsewhere.drain(..) {
                        self.core.routing.owe(Owed::Lost(conn));
                    }
                }
                Taken::Nothing => {
                    self.core.mail_ready = false;
                    break;
                }
            }
        }
        self.core.mailbox = Some(mailbox);
        self.pay_owed();
        if self.core.routing.has_in_transit() {
            // What is in this worker's hands is lost if it dies: not for longer than need be.
            self.core.post.flush();
            self.core.unmark_in_transit();
        }
    }

    /// A message for this connection was lost on the way: its client must not go on as if nothing was.
    fn close_for_lost_mail(&mut self, key: usize) {
        let reason = "a message was lost: try again later".to_owned();
        self.core.close_by_engine(key, Closed { code: 1013, reason, by: ClosedBy::Server });
    }

    fn mark_recipients(&mut self, recipients: Recipients<'_>, marked: &mut Marked) {
        match recipients {
            Recipients::None => {}
            Recipients::Some(some) => {
                some.iter().for_each(|bits| self.mark(ConnId::from_bits(*bits), marked));
            }
            Recipients::All => {
                let keys: Vec<usize> = self.core.connections.iter().map(|(key, _)| key).collect();
                keys.iter().for_each(|key| self.core.touch(*key));
                marked.here.extend(keys);
                if self.core.routing.has_moved() {
                    let away = self.core.away_from(self.core.reading);
                    away.into_iter().for_each(|conn| self.mark(conn, marked));
                }
            }
            Recipients::Arrived(bits) => self.note_arrived(ConnId::from_bits(bits)),
            Recipients::Leaving(bits) => self.note_leaving(ConnId::from_bits(bits)),
        }
    }

    fn mark(&mut self, conn: ConnId, marked: &mut Marked) {
        match self.core.place_of(conn) {
            Place::Here(_) | Place::Ours => {
                if let Some(key) = self.take_up_row(conn, Adoption::Balance) {
                    self.core.touch(key);
                    marked.here.push(key);
                }
            }
            Place::There(to) => {
                self.core.mark_in_transit(conn, to);
                marked.elsewhere.push(conn);
            }
            Place::Coming | Place::Astray | Place::Gone => {}
        }
    }

    fn deliver(&mut self, mail: &Mail<'_>) {
        let opcode = |text: bool| if text { Opcode::Text } else { Opcode::Binary };
        match mail {
            Mail::Deliver { to, text, droppable, payload } => {
                let conn = ConnId::from_bits(*to);
                let Some(key) = self.core.key_of(conn) else {
                    return self.core.send_on(conn, mail);
                };
                let message = self.core.compression.outgoing(opcode(*text), payload);
                self.core.deliver_here(key, message, *droppable);
            }
            Mail::DeliverMany { to, text, payload } => {
                let message = self.core.compression.outgoing(opcode(*text), payload);
                let mut elsewhere = Vec::new();
                for conn in to.iter().copied().map(ConnId::from_bits) {
                    match self.core.key_of(conn) {
                        Some(key) => self.core.deliver_here(key, message, false),
                        None => elsewhere.push(conn),
                    }
                }
                self.core.send_on_to_many(&elsewhere, opcode(*text), payload);
            }
            Mail::Broadcast { text, payload } => {
                self.core.broadcast_at_home(opcode(*text), payload);
            }
            Mail::Disconnect { conn, last_words, code, reason } => {
                let conn = ConnId::from_bits(*conn);
                let last_words = last_words.map(LastWords::message);
                if !self.core.disconnect_here(conn, last_words, *code, reason) {
                    self.core.send_on(conn, mail);
                }
            }
            Mail::Overdue { conn, .. } => self.act_on_overdue(ConnId::from_bits(*conn), mail),
            // What it tells was noted when the packet was marked.
            Mail::Moved { .. } => {}
            Mail::Recall { conn, to } => {
                self.core.change_route(ConnId::from_bits(*conn), SlotId(*to));
            }
            Mail::Go { conn } => self.core.moving.leaves(ConnId::from_bits(*conn)),
            Mail::Lost { conn } => {
                let conn = ConnId::from_bits(*conn);
                match self.core.key_of(conn) {
                    Some(key) => self.close_for_mail_lost_elsewhere(key),
                    None => self.core.routing.owe(Owed::Lost(conn)),
                }
            }
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

    /// The timer process tells the home; it tells again what nobody acted on.
    fn act_on_overdue(&mut self, conn: ConnId, mail: &Mail<'_>) {
        match self.core.place_of(conn) {
            Place::Here(_) => self.act_on_deadline(conn),
            Place::There(_) => self.core.send_on(conn, mail),
            Place::Ours | Place::Coming | Place::Astray | Place::Gone => {}
        }
    }

    /// A deadline has passed, says the timer process: believed only after everything the client sent
    /// so far was read.
    fn act_on_deadline(&mut self, conn: ConnId) {
        let Some(key) = self.core.key_of(conn) else { return };
        if self.core.connections[key].open().is_some_and(|open| open.arriving) {
            // Nothing may be read from it yet; the deadline is told again.
            return;
        }
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
        let Some(payload) = self.core.shared.timers.take(timer, self.core.reading) else { return };
        let due = TimerDue { payload: &payload, ticks, due: Millis(due) };
        self.hook_for(Errand::Timer, None, |app, context| app.timer(context, timer, &due));
    }

    fn finish_task(&mut self, task: u64, failure: u8, result: &[u8]) {
        self.core.open_tasks.over(task);
        let result = match failure_of(failure) {
            // Told by the master.
            Some(TaskFailure::ProcessLost | TaskFailure::TimedOut)
                if self.core.finished.has(task) =>
            {
                return;
            }
            Some(failure) => Err(failure),
            None => codec::decode_value(result).map_err(|error| {
                error!(%error, "a task's result was left out");
                TaskFailure::Undecodable
            }),
        };
        self.core.finished.note(task);
        self.hook_for(Errand::Finish, None, |app, context| {
            app.finish(context, TaskId(task), result)
        });
    }
}
