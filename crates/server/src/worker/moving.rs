//! Connections that change their worker while they are open.
//!
//! Knows how one is let go of, how one is taken up, and the order of the master that is carried out;
//! decides nothing about who goes where. At the end of a turn a connection is given away by the words of
//! its row, what is in this worker's hands of it (unsent output, input not served) in a memfd that the row
//! names; then its new owner is told by mail.
//! Invariants: 1. What is let go of stays open: its descriptor, its row and what lies in the pool are
//! the next owner's. 2. A connection is given away only when its route leads to the new owner and what
//! came by the old one is served: with its home here at once, else after the home's `Go`. 3. It is given
//! away only when what it said is in the mailboxes, or behind it on the way to the new owner.

use super::Worker;
use super::connection::{Connection, Stage};
use super::core::Core;
use super::leftover::Leftover;
use super::routing::{Owed, Place};
use crate::app::{Adoption, App, Closed, ClosedBy};
use crate::clock::Millis;
use crate::ids::{ConnId, Generation, SlotId};
use crate::ipc::mail::Mail;
use crate::ipc::pipe::Control;
use crate::ledger::{DescriptorKind, Holder};
use crate::scoreboard::Cell;
use crate::sessions::{Passage, Phase, Service};
use mio::unix::SourceFd;
use std::collections::HashSet;
use std::os::fd::RawFd;
use tracing::error;

/// Connections given away, or asked for at their homes, in one turn.
const MOVES_PER_TURN: usize = 64;

/// What is left of an order of the master.
#[derive(Debug)]
struct Order {
    id: u32,
    to: SlotId,
    wanted: usize,
    moved: u32,
    until: Millis,
    /// Their homes were asked to send elsewhere.
    asked: HashSet<ConnId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Moving {
    order: Option<Order>,
    /// Whatever came for them by their old way is served: to be given away at the end of the turn.
    leaving: Vec<ConnId>,
}

impl Moving {
    /// Whether something is to be done at the end of the turn.
    pub(super) fn is_busy(&self) -> bool {
        self.order.is_some() || !self.leaving.is_empty()
    }

    /// Whatever came for the connection by its old way is served.
    pub(super) fn leaves(&mut self, conn: ConnId) {
        if !self.leaving.contains(&conn) {
            self.leaving.push(conn);
        }
    }
}

/// What came of an attempt to give a connection away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Given {
    Away,
    /// Later perhaps: mail of this worker waits, or it is being closed.
    NotNow,
    /// It is not here, or stays.
    No,
}

impl Core {
    /// Forgets a WebSocket without closing it. It must not be among the touched; what it had in hand is
    /// laid down, or lost.
    pub(super) fn let_go(&mut self, key: usize) {
        self.connections[key].outbox.discard();
        self.keep_warm(key);
        let connection = self.connections.remove(key);
        debug_assert!(!connection.touched);
        if connection.queued {
            self.ready.retain(|other| *other != key);
            self.ended.retain(|other| *other != key);
        }
        // It fails only where it is not registered, which is what is wanted.
        let _ = self.poll.registry().deregister(&mut SourceFd(&connection.descriptor));
        self.uncount(&connection);
        if let Some(conn) = connection.conn() {
            self.gatherings.forget(conn);
            self.unbind_row(conn);
            self.sessions_open = self.sessions_open.saturating_sub(1);
        }
    }

    /// Whether a WebSocket may be given away at the end of this turn.
    fn may_go(&self, key: usize) -> bool {
        let Some(connection) = self.connections.get(key) else { return false };
        let Some(open) = connection.open() else { return false };
        !connection.touched
            && open.announced
            && !open.lost
            && !open.arriving
            && open.closing.is_none()
            && self.shared.sessions.phase(open.conn) == Some(Phase::Open)
    }

    /// Whether mail waits for another slot than this: what a connection said may be among it.
    fn mail_waits_beside(&self, to: SlotId) -> bool {
        self.post.spilled_bytes() > self.post.spilled_for(to.index())
    }

    /// Writes the words that make a connection another slot's: the ledger first, the owner last. What was
    /// laid down is named by the row, so that whoever dies now, it has one owner.
    fn give_row(&mut self, conn: ConnId, descriptor: RawFd, left: Option<RawFd>, to: SlotId) {
        let sessions = &self.shared.sessions;
        let generation = self.shared.scoreboard.worker(to.index()).generation();
        let generation = Generation(u32::try_from(generation).unwrap_or(u32::MAX));
        let holder = Holder { slot: to.0, generation };
        sessions.set_left(conn, left);
        self.shared.ledger.note(descriptor, DescriptorKind::Session, holder);
        sessions.set_passage(conn, Passage::Handed(self.slot));
        if let Some(left) = left {
            self.shared.ledger.note(left, DescriptorKind::Rest, holder);
        }
        sessions.set_owner(conn, to);
    }

    /// Connections that may be given to `to` now: first those of which nothing is in hand, and of these
    /// those that come home there, whose mail then needs no detour.
    fn movable(&self, to: SlotId, most: usize, asked: &HashSet<ConnId>) -> Vec<ConnId> {
        let sessions = &self.shared.sessions;
        let mut movable: Vec<(bool, bool, ConnId)> = Vec::new();
        for (key, connection) in &self.connections {
            let Some(open) = connection.open() else { continue };
            let conn = open.conn;
            let settled = sessions.route(conn).is_none_or(|route| route == self.slot);
            let stays = sessions.passage(conn) == Passage::None && !asked.contains(&conn);
            if settled && stays && !self.moving.leaving.contains(&conn) && self.may_go(key) {
                let clean = !connection.queued && sessions.service(conn) == Some(Service::Clean);
                movable.push((!clean, open.home != to, conn));
            }
        }
        movable.sort_unstable();
        movable.into_iter().take(most).map(|(_, _, conn)| conn).collect()
    }

    /// What of this worker's is not moved: plain HTTP, slow readers, and others.
    fn unmoved(&self) -> [u32; 3] {
        let mut unmoved = [0; 3];
        for (_, connection) in &self.connections {
            let kind = match &connection.stage {
                Stage::Http(_) => 0,
                Stage::Open(_) if !connection.outbox.is_empty() => 1,
                Stage::Open(_) => 2,
            };
            unmoved[kind] += 1;
        }
        unmoved
    }
}

impl<A: App> Worker<'_, A> {
    /// Where the connection is in this worker; takes it up if its row names this slot as owner and it is
    /// not here yet. `None`: it is not this worker's, is over, or something of it is in other hands.
    pub(super) fn take_up_row(&mut self, conn: ConnId, why: Adoption) -> Option<usize> {
        if let Some(key) = self.core.key_of(conn) {
            return Some(key);
        }
        let sessions = &self.core.shared.sessions;
        if self.core.place_of(conn) != Place::Ours {
            return None;
        }
        let clean = sessions.service(conn) == Some(Service::Clean);
        let left = sessions.left(conn).map_or_else(Leftover::default, Leftover::read);
        if !clean && !left.open.contains_key(&conn) {
            return None;
        }
        self.adopt_session(conn, &left, why);
        self.core.forget_left(conn);
        self.core.row.add(Cell::MovedIn, 1);
        self.core.key_of(conn)
    }

    /// An order of the master: to give so many connections to another worker, within this time.
    pub(super) fn begin_moving(&mut self, id: u32, to: SlotId, count: u32, within_ms: u64) {
        self.give_up_moving();
        self.core.moving.order = Some(Order {
            id,
            to,
            wanted: usize::try_from(count).unwrap_or(usize::MAX),
            moved: 0,
            until: self.core.now + within_ms,
            asked: HashSet::new(),
        });
    }

    /// Ends the order under way as far as it has come.
    pub(super) fn give_up_moving(&mut self) {
        if let Some(order) = self.core.moving.order.take() {
            let [http, unsent, other] = self.core.unmoved();
            let Order { id, moved, .. } = order;
            let pending = u32::try_from(order.asked.len()).unwrap_or(u32::MAX);
            let done = Control::MoveDone { id, moved, pending, http, unsent, other };
            // A master that does not read its pipe is gone, and so will this process be.
            let _ = self.core.pipe.send(&done);
        }
    }

    /// At the end of a turn, when all is settled: gives away what may go.
    pub(super) fn go_on_moving(&mut self) {
        self.core.unmark_in_transit();
        if !self.core.moving.is_busy() {
            return;
        }
        if !self.core.life.accepting() {
            // The server stops: whom one gives to may be gone.
            self.core.moving = Moving::default();
            return;
        }
        for conn in std::mem::take(&mut self.core.moving.leaving) {
            let to = self.core.shared.sessions.route(conn);
            let given = to.map_or(Given::No, |to| self.give_away(conn, to));
            if given == Given::NotNow {
                self.core.moving.leaving.push(conn);
            }
        }
        if let Some(order) = self.core.moving.order.take() {
            self.carry_out(order);
        }
        self.pay_owed();
        self.core.post.flush();
    }

    fn carry_out(&mut self, mut order: Order) {
        let core = &self.core;
        // Given away meanwhile, or closed.
        order.asked.retain(|conn| core.key_of(*conn).is_some());
        let most = order.wanted.saturating_sub(order.asked.len()).min(MOVES_PER_TURN);
        // All connections are looked at: not where none may go.
        let movable =
            if most == 0 { Vec::new() } else { core.movable(order.to, most, &order.asked) };
        let mut recalled = Vec::new();
        let to = order.to;
        self.core.moving.order = Some(order);
        for conn in movable {
            let home = self.core.shared.sessions.home(conn);
            if home.is_some_and(|home| self.core.is_home(home)) {
                if self.give_away(conn, to) == Given::NotNow {
                    break; // mail waits, or memory is short: none may go
                }
            } else if let Some(home) = home {
                recalled.push((conn, home));
            }
        }
        self.recall(recalled, to);
        let Some(order) = &self.core.moving.order else { return };
        let done = order.wanted == 0 || self.core.sessions_open == 0;
        if done || self.core.now >= order.until {
            self.give_up_moving();
        }
    }

    /// Asks the homes of connections to send what is for them to `to`. In packets of their own: what lies
    /// behind them in the mailbox must be looked at when the route is changed.
    fn recall(&mut self, conns: Vec<(ConnId, SlotId)>, to: SlotId) {
        if conns.is_empty() {
            return;
        }
        self.core.post.flush();
        for (conn, home) in conns {
            let recall = Mail::Recall { conn: conn.to_bits(), to: to.0 };
            if self.core.post.put_word(home.index(), &recall).is_ok()
                && let Some(order) = &mut self.core.moving.order
            {
                order.asked.insert(conn);
            }
        }
        self.core.post.flush();
    }

    /// Gives a connection to another worker.
    fn give_away(&mut self, conn: ConnId, to: SlotId) -> Given {
        let core = &mut self.core;
        let Some(key) = core.key_of(conn) else { return Given::No };
        if to == core.slot || core.connections[key].open().is_none_or(|o| o.closing.is_some()) {
            return Given::No;
        }
        if !core.may_go(key) || core.mail_waits_beside(to) {
            return Given::NotNow;
        }
        let left = match core.lay_down_one(key) {
            Ok(left) => left,
            Err(error) => {
                crate::limited!(warn, %error, "a connection is not moved: what it left cannot be kept");
                return Given::NotNow;
            }
        };
        let (home, descriptor) =
            (home_of(&core.connections[key]), core.connections[key].descriptor);
        if home.is_some_and(|home| core.is_home(home)) {
            core.shared.sessions.set_route(conn, to);
            core.routing.note_moved(conn, &core.shared.sessions);
        }
        core.let_go(key);
        core.give_row(conn, descriptor, left, to);
        core.routing.owe(Owed::LastWord(conn));
        core.row.add(Cell::MovedOut, 1);
        if let Some(order) = &mut core.moving.order {
            order.asked.remove(&conn);
            order.wanted = order.wanted.saturating_sub(1);
            order.moved += 1;
        }
        self.hook(|app, context| app.moved_away(context, conn));
        Given::Away
    }

    /// Tells other slots what they are owed.
    pub(super) fn pay_owed(&mut self) {
        for owed in self.core.routing.take_owed() {
            let (Owed::LastWord(conn) | Owed::Go(conn) | Owed::Lost(conn)) = owed;
            let sessions = &self.core.shared.sessions;
            let Some(owner) = sessions.owner(conn) else { continue };
            let bits = conn.to_bits();
            let told = match owed {
                Owed::Lost(_) if self.core.acts_for(owner) => {
                    if let Some(key) = self.take_up_row(conn, Adoption::Balance) {
                        self.close_for_mail_lost_elsewhere(key);
                    }
                    Ok(())
                }
                Owed::Lost(_) => self.core.post.put_word(owner.index(), &Mail::Lost { conn: bits }),
                Owed::LastWord(_) if matches!(sessions.passage(conn), Passage::Handed(from) if self.core.acts_for(from)) => {
                    self.core.post.put_word(owner.index(), &Mail::Moved { conn: bits })
                }
                Owed::Go(_) if owner != self.core.slot && sessions.route(conn) != Some(owner) => {
                    self.core.post.put_word(owner.index(), &Mail::Go { conn: bits })
                }
                // It is done, or no longer true.
                Owed::LastWord(_) | Owed::Go(_) => Ok(()),
            };
            if let Err(error) = told {
                error!(%error, %conn, "a word about a moved connection cannot be sent");
            }
        }
    }

    /// A packet with another worker's last word about a connection is about to be taken: what the
    /// connection had said there was read before.
    pub(super) fn note_arrived(&mut self, conn: ConnId) {
        let Some(key) = self.take_up_row(conn, Adoption::Balance) else { return };
        // Whoever gave it: it may have been a worker that this one stands in for.
        if matches!(self.core.shared.sessions.passage(conn), Passage::Handed(_)) {
            self.core.shared.sessions.set_passage(conn, Passage::None);
        }
        if let Some(open) = self.core.connections[key].open_mut() {
            open.arriving = false;
        }
        self.core.make_ready(key);
    }

    /// A packet with the home's `Go` is about to be taken: whatever came by the old way was read before.
    pub(super) fn note_leaving(&mut self, conn: ConnId) {
        if self.take_up_row(conn, Adoption::Balance).is_none() {
            return;
        }
        let sessions = &self.core.shared.sessions;
        let leads_away = sessions.route(conn) != sessions.owner(conn);
        if leads_away && sessions.passage(conn) == Passage::None {
            sessions.set_passage(conn, Passage::Going);
        }
    }

    /// Mail for a connection of this worker died in another's hands: its client must not go on as if
    /// nothing was.
    pub(super) fn close_for_mail_lost_elsewhere(&mut self, key: usize) {
        self.core.row.add(Cell::LostMail, 1);
        let reason = "a message was lost".to_owned();
        self.core.close_by_engine(key, Closed { code: 1012, reason, by: ClosedBy::WorkerLost });
    }
}

fn home_of(connection: &Connection) -> Option<SlotId> {
    connection.open().map(|open| open.home)
}
