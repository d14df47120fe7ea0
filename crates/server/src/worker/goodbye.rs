//! A stopping server's goodbyes: the door is shut, every client is told, in its turn.
//!
//! Knows who has not been told yet; how fast is [`super::pace`]'s. Invariants: 1. Nobody is told before what
//! it had sent was read and answered, tasks included, and what others had sent it was delivered, unless the
//! time is up. 2. Whoever is not told yet is
//! served as ever. 3. Nobody stays in the kernel's queue: who had come is answered, who comes is refused.

use super::Worker;
use super::core::{CLOSE_GRACE_MS, Core};
use super::pace::Pace;
use super::receive::Reading;
use super::routing::Speaking;
use super::sweep::SWEEP_EVERY_MS;
use crate::app::{App, Closed, ClosedBy, StopReason};
use crate::clock::{self, Millis};
use crate::ids::{ConnId, SlotId};
use crate::scoreboard::Cell;
use crate::sys::{packet, socket};
use std::collections::VecDeque;
use std::rc::Rc;

/// The reason in the close frame.
const STOPPING: &str = "the server is stopping";
/// How long a client whose turn has come may go on sending, and wait for tasks it has asked for.
const LAST_ORDERS_MS: u64 = 1_000;
/// How long who has just connected may take to ask for something.
const FIRST_REQUEST_MS: u64 = 1_000;
/// How long clients are told in a turn, before the others are served.
const TELL_MS: u64 = 20;
/// How often is looked whose turn has come.
pub(super) const LOOK_EVERY_MS: u64 = 10;

/// The goodbyes of a worker.
#[derive(Debug)]
pub(super) struct Goodbyes {
    pace: Pace,
    /// When everybody has been told.
    deadline: Millis,
    /// When the worker leaves.
    until: Millis,
    /// Whose turn has not come.
    waiting: VecDeque<ConnId>,
    /// Whose turn has come.
    leaving: VecDeque<LastOrders>,
    /// More are to be told in the next turn, at once.
    hurry: bool,
}

/// A client whose turn has come.
#[derive(Debug)]
struct LastOrders {
    conn: ConnId,
    /// Told then at the latest.
    until: Millis,
    /// Tasks up to this one may be its.
    tasks: Option<u64>,
    step: Step,
}

/// How far a client is whose turn has come.
#[derive(Debug)]
enum Step {
    /// What it has sent is read and answered.
    Serving,
    /// Its row says that it goes; workers that had these stamps may not have seen that yet.
    Leaving(Rc<[u64]>),
    /// Nobody sends to it any more; what was sent to its home elsewhere is being read there.
    AtHome(SlotId),
    /// All of it was read there; that worker may be in the turn in which it did.
    FromHome(Rc<[u64]>),
    /// What was sent is here, and is delivered.
    LastMail,
}

impl Goodbyes {
    /// How long the worker may wait for events: not beyond its end, at which it closes who is left before
    /// the master kills it.
    pub(super) fn wait_ms(&self, now: Millis) -> u64 {
        match (self.hurry, self.waiting.is_empty() && self.leaving.is_empty()) {
            (true, _) => 0,
            (false, false) => LOOK_EVERY_MS,
            (false, true) => self.until.since(now).clamp(1, SWEEP_EVERY_MS),
        }
    }
}

impl<A: App> Worker<'_, A> {
    /// The server stops: everybody is told within `tell_ms`, the worker leaves after `timeout_ms`.
    pub(super) fn begin_goodbyes(&mut self, tell_ms: u64, timeout_ms: u64) {
        self.give_up_moving();
        self.shut_the_door();
        self.core.speaking = Speaking::LastWords;
        self.hook(|app, context| app.worker_stop(context, StopReason::Shutdown));
        self.core.speaking = Speaking::Nobody;
        let core = &mut self.core;
        let (now, rate) = (core.now, core.config.drain_rate);
        let (deadline, until) = (now + tell_ms.min(timeout_ms), now + timeout_ms);
        let waiting = still_open(core);
        let own = u64::try_from(waiting.len()).unwrap_or(u64::MAX);
        // A predecessor that died had told some.
        core.row.set(Cell::StopTotal, core.row.value(Cell::StopTold) + own);
        let total = clients_at_stop(core);
        core.returning = total.max(1);
        core.goodbyes = Some(Goodbyes {
            pace: Pace::new(now, deadline, rate.into(), own, total),
            deadline,
            until,
            waiting,
            leaving: VecDeque::new(),
            hurry: true,
        });
        self.hurry_requests(deadline);
    }

    /// Takes in who has come already, and no more.
    fn shut_the_door(&mut self) {
        self.core.unwatch_listeners();
        let listeners = self.core.listeners();
        for listener in listeners {
            for _ in 0..self.core.config.backlog {
                match socket::accept(listener) {
                    Ok(Some(connection)) => self.take_in(connection),
                    Ok(None) | Err(_) => break,
                }
            }
            socket::stop_listening(listener);
        }
    }

    /// Requests under way have their time; connections without one end.
    fn hurry_requests(&mut self, deadline: Millis) {
        let first_request = self.core.now + FIRST_REQUEST_MS;
        let keys: Vec<usize> = self.core.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            if self.core.connections.get_mut(key).is_none_or(|one| one.http_mut().is_none()) {
                continue;
            }
            // A request may have come since.
            self.serve_readable(key);
            self.core.make_ready(key);
            self.core.touch(key);
            let Some(http) = self.core.connections.get_mut(key).and_then(|c| c.http_mut()) else {
                continue;
            };
            if http.pending.is_some() {
                continue;
            }
            let begun = !http.input.is_empty();
            http.ending |= !begun && http.answered;
            let last = if begun { deadline } else { first_request };
            if !http.ending {
                http.deadline = http.deadline.min(last);
            }
        }
    }

    /// Tells whoever is due, for [`TELL_MS`] at most.
    pub(super) fn say_goodbyes(&mut self) {
        let Some(mut goodbyes) = self.core.goodbyes.take() else { return };
        let now = self.core.now;
        let left = u64::try_from(goodbyes.waiting.len()).unwrap_or(u64::MAX);
        let due = usize::try_from(goodbyes.pace.due(now, left)).unwrap_or(usize::MAX);
        let tasks = self.core.open_tasks.latest();
        let until = goodbyes.deadline.min(now + LAST_ORDERS_MS);
        let due = goodbyes.waiting.drain(..due.min(goodbyes.waiting.len()));
        let step = |conn| LastOrders { conn, until, tasks, step: Step::Serving };
        goodbyes.leaving.extend(due.map(step));
        goodbyes.hurry = self.take_last_orders(&mut goodbyes.leaving);
        self.core.goodbyes = Some(goodbyes);
    }

    /// True: some have not been looked at.
    fn take_last_orders(&mut self, leaving: &mut VecDeque<LastOrders>) -> bool {
        let until = self.core.now + TELL_MS;
        let stamps = busy_stamps(&self.core);
        for _ in 0..leaving.len() {
            if clock::now() >= until {
                return true;
            }
            let Some(mut one) = leaving.pop_front() else { break };
            let Some(key) = self.core.key_of(one.conn) else { continue };
            if self.core.now < one.until && self.has_more_to_do(key, &mut one, &stamps) {
                leaving.push_back(one);
            } else {
                self.tell(one.conn);
            }
        }
        false
    }

    /// Whether something is still to come before the goodbye: from the client, from tasks, and last from
    /// other workers.
    fn has_more_to_do(&mut self, key: usize, one: &mut LastOrders, stamps: &Rc<[u64]>) -> bool {
        if self.is_served(key, one.tasks) {
            return true;
        }
        match &one.step {
            Step::Serving if stamps.len() <= 1 => false,
            Step::Serving => {
                if let Some(open) = self.core.connections[key].open_mut() {
                    open.leaving = true;
                }
                self.core.touch(key);
                one.step = Step::Leaving(stamps.clone());
                true
            }
            Step::Leaving(seen) if have_passed(seen, stamps) => {
                let home = self.core.shared.sessions.home(one.conn);
                one.step = match home.filter(|home| !self.core.is_home(*home)) {
                    Some(home) => Step::AtHome(home),
                    None => self.last_mail(),
                };
                true
            }
            Step::AtHome(home) => {
                let mailbox = self.core.wiring.mailboxes[home.index()];
                if packet::waiting_bytes(mailbox) == 0 {
                    one.step = Step::FromHome(stamps.clone());
                }
                true
            }
            Step::FromHome(seen) if have_passed(seen, stamps) => {
                one.step = self.last_mail();
                true
            }
            Step::Leaving(_) | Step::FromHome(_) => true,
            Step::LastMail => self.core.mail_ready || self.core.stood_in_mail_ready(),
        }
    }

    fn last_mail(&mut self) -> Step {
        self.core.mail_ready = true;
        self.core.note_stood_in_mail();
        Step::LastMail
    }

    /// Reads what has come; whether more is to be read or answered.
    fn is_served(&mut self, key: usize, tasks: Option<u64>) -> bool {
        let reading = self.serve_readable(key);
        if reading == Reading::More {
            self.core.make_ready(key);
            return true;
        }
        let Some(connection) = self.core.connections.get(key) else { return false };
        let half_received = connection.open().is_some_and(|open| open.began.is_some());
        half_received || !connection.held.is_empty() || self.core.open_tasks.any_up_to(tasks)
    }

    fn tell(&mut self, conn: ConnId) {
        let Some(key) = self.core.key_of(conn) else { return };
        let closed = Closed { code: 1001, reason: STOPPING.to_owned(), by: ClosedBy::Server };
        self.core.close_by_engine(key, closed);
        self.core.row.add(Cell::StopTold, 1);
    }

    /// With each sweep: who is still to be told is listed, who reads slowly gets time.
    pub(super) fn review_goodbyes(&mut self) {
        let core = &mut self.core;
        let Some(goodbyes) = &mut core.goodbyes else { return };
        let grace = (core.now + CLOSE_GRACE_MS).min(goodbyes.until);
        for (_, connection) in &mut core.connections {
            if !connection.outbox.is_empty()
                && let Some(closing) = connection.open_mut().and_then(|open| open.closing.as_mut())
            {
                closing.until = closing.until.max(grace);
            }
        }
        if goodbyes.waiting.is_empty() && goodbyes.leaving.is_empty() {
            let waiting = still_open(core);
            if let Some(goodbyes) = &mut core.goodbyes {
                goodbyes.waiting = waiting;
            }
        }
    }

    /// The time is up: whoever is still there is cut off, and the application told.
    pub(super) fn cut_off(&mut self) {
        let keys: Vec<usize> = self.core.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(connection) = self.core.connections.get(key)
                && connection.half_out
            {
                // It must not look like an end.
                socket::reset_on_close(connection.descriptor);
            }
            self.finish(key);
        }
    }
}

/// Sessions that have not been told that they end.
fn still_open(core: &Core) -> VecDeque<ConnId> {
    let open = core.connections.iter().filter_map(|(_, connection)| connection.open());
    open.filter(|open| open.closing.is_none()).map(|open| open.conn).collect()
}

/// Whether every worker has ended the turn that it was in.
fn have_passed(seen: &[u64], now: &[u64]) -> bool {
    seen.iter().zip(now).all(|(seen, now)| *seen & 1 == 0 || seen != now)
}

/// The turns of the other workers: odd ones are under way. This worker's own stands as 0.
fn busy_stamps(core: &Core) -> Rc<[u64]> {
    let board = &core.shared.scoreboard;
    let stamp = |slot: usize| match slot == core.slot.index() {
        true => 0,
        false => board.worker(slot).stamp(),
    };
    (0..board.workers()).map(stamp).collect()
}

/// Clients of the whole server when it began to stop, those told since among them.
fn clients_at_stop(core: &Core) -> u64 {
    let board = &core.shared.scoreboard;
    (0..board.workers())
        .map(|slot| board.worker(slot))
        .map(|row| row.value(Cell::StopTotal).max(row.value(Cell::Sessions)))
        .sum()
}
