//! A worker that serves a second slot, whose own worker does not come up.
//!
//! It takes up the slot's connections as after a crash, reads its mailbox as the home of what has its home
//! there, and accepts from its listeners; and gives back all but what it has accepted, as a worker at rest
//! does. No connection changes its owner or its home by it.
//! Invariants: 1. What is sent to a connection of that slot goes by its home's mailbox also from here
//! (`OpenStage::moved`), so that it is in order with what lies there, and with what comes when the slot is
//! given back. 2. A slot is given back when nothing waits for other mailboxes: what its connections have
//! said stands there before what they say next. (A worker that is replaced itself cannot wait for it.)

use super::Worker;
use super::connection::{Connection, OpenStage};
use super::core::{Core, LISTENER, STOOD_IN_MAILBOX};
use super::handover::{Adopted, lay_down_connection};
use super::leftover::{Leftover, LeftoverError};
use crate::app::{Adoption, App};
use crate::clock::Millis;
use crate::ids::{ConnId, Generation, SlotId};
use crate::ipc::mailbox::Mailbox;
use crate::ipc::pipe::Control;
use crate::ledger::{DescriptorKind, Holder};
use crate::scoreboard::Cell;
use crate::sys::descriptor;
use mio::Interest;
use mio::unix::SourceFd;
use std::io;
use std::mem;
use std::os::fd::RawFd;
use tracing::{error, warn};

/// How long the slot's own worker waits for mail that waits here.
const GIVE_BACK_MS: u64 = 1_000;
/// The most a mailbox is read at once, in shares of a turn, where what comes next must stand behind it.
const SHARES_AT_ONCE: usize = 256;

/// The slot that a worker serves beside its own.
#[derive(Debug)]
pub(super) struct StandingIn {
    pub(super) slot: SlotId,
    /// Its mailbox; this worker's own while that one is read.
    mailbox: Option<Mailbox>,
    mail_ready: bool,
    /// Since when the first packet of its mailbox waits for a connection.
    waits_since: Option<Millis>,
    /// It is to be given back, at the latest then.
    until: Option<Millis>,
}

impl Core {
    /// Whether this worker does what is the worker's of a slot.
    pub(super) fn acts_for(&self, slot: SlotId) -> bool {
        slot == self.slot || self.standing_in.as_ref().is_some_and(|other| other.slot == slot)
    }

    /// The listeners it accepts from.
    pub(super) fn listeners(&self) -> Vec<RawFd> {
        let mut listeners = self.wiring.listeners[self.slot.index()].clone();
        if let Some(other) = &self.standing_in {
            listeners.extend(&self.wiring.listeners[other.slot.index()]);
        }
        listeners
    }

    /// Its mailbox has something to read.
    pub(super) fn note_stood_in_mail(&mut self) {
        if let Some(other) = &mut self.standing_in {
            other.mail_ready = true;
        }
    }

    /// Whether its mailbox may hold something that was not read.
    pub(super) fn stood_in_mail_ready(&self) -> bool {
        self.standing_in.as_ref().is_some_and(|other| other.mail_ready)
    }

    /// Whether its mailbox is to be read on at once.
    pub(super) fn has_stood_in_mail(&self) -> bool {
        self.standing_in
            .as_ref()
            .is_some_and(|other| other.mail_ready && other.waits_since.is_none())
    }

    /// Whether it is to be looked at again soon.
    pub(super) fn stands_in_restlessly(&self) -> bool {
        self.standing_in
            .as_ref()
            .is_some_and(|other| other.until.is_some() || other.waits_since.is_some())
    }

    fn watch_slot(&mut self, slot: SlotId) -> io::Result<()> {
        let registry = self.poll.registry();
        let mailbox = self.wiring.mailboxes[slot.index()];
        registry.register(&mut SourceFd(&mailbox), STOOD_IN_MAILBOX, Interest::READABLE)?;
        for listener in &self.wiring.listeners[slot.index()] {
            registry.register(&mut SourceFd(listener), LISTENER, Interest::READABLE)?;
        }
        Ok(())
    }

    fn unwatch_slot(&mut self, slot: SlotId) {
        let registry = self.poll.registry();
        let mailbox = self.wiring.mailboxes[slot.index()];
        for source in self.wiring.listeners[slot.index()].iter().chain([&mailbox]) {
            // It fails only where it is not registered, which is what is wanted.
            let _ = registry.deregister(&mut SourceFd(source));
        }
    }

    /// Changes places with the other slot's mailbox: what reads the mailbox reads that one then.
    fn swap_mailboxes(&mut self) {
        let Some(other) = &mut self.standing_in else { return };
        mem::swap(&mut self.mailbox, &mut other.mailbox);
        mem::swap(&mut self.mail_ready, &mut other.mail_ready);
        self.routing.swap_wait(&mut other.waits_since);
        self.reading = if self.reading == self.slot { other.slot } else { self.slot };
    }

    /// Lays down what is left of the slot's connections, and forgets them without closing any.
    fn lay_down_slot(&mut self, slot: SlotId) -> Result<Option<RawFd>, LeftoverError> {
        let sessions = &self.shared.sessions;
        let of_slot = |conn: ConnId| sessions.owner(conn) == Some(slot);
        let keys: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.conn().is_some_and(of_slot))
            .map(|(key, _)| key)
            .collect();
        let rest = self.lay_down_connections(&keys);
        if let Ok(Some(memfd)) = rest {
            // The slot's, of no life in it: it goes with whoever dies there next.
            let holder = Holder { slot: slot.0, generation: Generation(0) };
            self.shared.ledger.note(memfd, DescriptorKind::Rest, holder);
        }
        keys.into_iter().for_each(|key| self.hand_back(key));
        rest
    }

    fn lay_down_connections(&mut self, keys: &[usize]) -> Result<Option<RawFd>, LeftoverError> {
        let mut writer = None;
        for key in keys {
            lay_down_connection(&mut writer, &mut self.connections[*key])?;
        }
        writer.map(|writer| Ok(descriptor::release(writer.end()?.into()))).transpose()
    }

    /// Forgets a WebSocket without closing it; what is left of it is laid down.
    fn hand_back(&mut self, key: usize) {
        // Whoever gets the key next must not be taken for it.
        for list in [&mut self.ready, &mut self.ended, &mut self.parting] {
            list.retain(|listed| *listed != key);
        }
        self.touched.retain(|touched| *touched != key);
        let connection = self.connections.remove(key);
        // It fails only where it is not registered, which is what is wanted.
        let _ = self.poll.registry().deregister(&mut SourceFd(&connection.descriptor));
        self.uncount(&connection);
        if let Some(conn) = connection.conn() {
            self.gatherings.forget(conn);
            self.unbind_row(conn);
            self.sessions_open = self.sessions_open.saturating_sub(1);
        }
    }
}

impl<A: App> Worker<'_, A> {
    /// Serves a slot that has no worker, beside its own.
    pub(super) fn stand_in(&mut self, slot: SlotId, rest: Option<RawFd>, why: Adoption) {
        if !self.core.life.accepting() || self.core.standing_in.is_some() {
            let _ = self.core.pipe.send(&Control::StoodDown { slot: slot.0, rest });
            return;
        }
        self.give_up_moving();
        // What the dead worker had to send goes before what its connections say from now on, and so does
        // what it had sent here.
        let left = rest.map_or_else(Leftover::default, Leftover::read);
        let in_doubt = self.core.post.take_over(slot);
        self.restore_mail(&left);
        self.read_mailbox_out();
        self.core.post.flush();
        self.core.standing_in = Some(StandingIn {
            slot,
            mailbox: Some(Mailbox::new(self.core.wiring.mailboxes[slot.index()])),
            mail_ready: true,
            waits_since: None,
            until: None,
        });
        if let Err(error) = self.core.watch_slot(slot) {
            error!(%error, slot = slot.0, "the mailbox or a listener of a slot cannot be watched");
        }
        self.core.accept_ready = true;
        self.core.shared.peers.clear(slot.index());
        self.core.take_up_routes_of(slot, why == Adoption::Crash);
        self.core.tell_in_doubt(&in_doubt);
        let adopted = self.adopt_rows(slot, &left, why, false);
        // Where its last owner has laid it down, and no sibling.
        for (head, blobs) in &left.http {
            self.adopt_http(&left, head, *blobs);
        }
        if let Some(memfd) = rest {
            self.core.shared.ledger.clear(memfd);
            descriptor::close(memfd);
        }
        let Adopted { adopted, lost } = adopted;
        self.core.row.add(Cell::Adopted, u64::from(adopted));
        let _ = self.core.pipe.send(&Control::StoodIn { slot: slot.0, adopted, lost });
        warn!(slot = slot.0, adopted, lost, "standing in for a slot without a worker");
        // What lies there was sent before, also from here.
        self.core.swap_mailboxes();
        self.read_mailbox_out();
        self.core.swap_mailboxes();
    }

    /// Reads on in the mailbox until it is empty, within bounds.
    pub(super) fn read_mailbox_out(&mut self) {
        self.core.mail_ready = true;
        for _ in 0..SHARES_AT_ONCE {
            self.core.post.retry();
            self.read_mailbox();
            // Whoever reads quickly has room for what comes next.
            self.settle();
            if !self.core.mail_ready || self.core.routing.is_waiting() {
                return;
            }
        }
    }

    /// Reads the mailbox of the slot that it stands in for, a turn's share.
    pub(super) fn read_stood_in_mailbox(&mut self) {
        if self.core.standing_in.is_some() {
            self.core.swap_mailboxes();
            self.read_mailbox();
            self.core.swap_mailboxes();
        }
    }

    /// The slot's own worker is there: the slot is to be given back, as soon as no mail waits here.
    pub(super) fn begin_standing_down(&mut self, slot: SlotId) {
        let until = self.core.now + GIVE_BACK_MS;
        match &mut self.core.standing_in {
            Some(other) if other.slot == slot => other.until = Some(until),
            // It never began, and has said so.
            _ => return,
        }
        self.stand_down_if_due();
    }

    /// Gives the slot back if it is to be.
    pub(super) fn stand_down_if_due(&mut self) {
        let Some(other) = &self.core.standing_in else { return };
        let Some(until) = other.until else { return };
        self.finish_what_is_begun();
        if self.core.post.retry() || self.core.now >= until {
            self.stand_down();
        }
    }

    /// Gives back the slot that it stands in for, if it does.
    pub(super) fn stand_down(&mut self) {
        let Some(slot) = self.core.standing_in.as_ref().map(|other| other.slot) else { return };
        self.finish_what_is_begun();
        self.core.unwatch_slot(slot);
        let theirs = |open: &OpenStage| {
            open.closing.is_none() && self.core.shared.sessions.owner(open.conn) == Some(slot)
        };
        let open =
            self.core.connections.iter().filter_map(|(_, connection)| Connection::open(connection));
        let away: Vec<ConnId> = open.filter(|open| theirs(open)).map(|open| open.conn).collect();
        let rest = self.core.lay_down_slot(slot).unwrap_or_else(|error| {
            // They are not CLEAN: whoever is next closes them.
            error!(%error, slot = slot.0, "what is left of a slot cannot be laid down");
            None
        });
        self.core.routing.forget_home(slot, &self.core.shared.sessions);
        self.core.standing_in = None;
        for conn in away {
            self.hook(|app, context| app.moved_away(context, conn));
        }
        self.core.post.flush();
        let _ = self.core.pipe.send(&Control::StoodDown { slot: slot.0, rest });
    }
}
