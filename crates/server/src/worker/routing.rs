//! Mail for connections that are served elsewhere than at their home.
//!
//! Everybody sends to the home of a connection; whoever reads that mailbox sends on what is for those
//! that other workers serve. Knows the ways and the words of a row; calls no hook.
//! Invariants: 1. Mail of one sender for one connection goes one way at any time, and a way is changed
//! only behind everything that went the old one: so it arrives in its order. 2. What is taken out of the
//! home mailbox to be sent on is marked in the row until it is in the next mailbox: if this process dies
//! in between, its connection is closed. 3. A packet for a connection that is on its way here is left in
//! the mailbox, for [`PATIENCE_MS`] at most.

use super::core::Core;
use super::moving::Moving;
use crate::clock::Millis;
use crate::ids::{ConnId, SlotId};
use crate::ipc::mail::{Mail, Recipients};
use crate::scoreboard::Cell;
use crate::sessions::{Passage, Phase, Sessions};
use crate::websocket::Opcode;
use std::collections::HashSet;

/// How long a mailbox waits for a connection that is on its way here. Then its message is lost, and it
/// is closed.
const PATIENCE_MS: u64 = 1_000;
/// So many connections that were moved are remembered without a look at which are still there.
const FORGET_AT: usize = 1_024;
/// Recipients named by one mail: their list must fit a packet.
pub(super) const RECIPIENTS_PER_MAIL: usize = 1_024;

/// Whose hook is running: what it sends to its own connection goes there straight, wherever its home is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Speaking {
    /// A hook of no connection, or none.
    Nobody,
    /// One of this connection.
    Of(ConnId),
    /// The last one, before all connections are closed: behind the close frame nothing can be said.
    LastWords,
}

/// Where a connection is, as the reader of a mailbox sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Served here, at this place in `connections`.
    Here(usize),
    /// This worker's, and not taken up yet.
    Ours,
    /// With its home here, served by the worker of this slot.
    There(SlotId),
    /// On its way here.
    Coming,
    /// Neither here nor on its way, as it seems from here.
    Astray,
    /// Closed, or closing.
    Gone,
}

/// Something that another slot is to be told, as soon as there is room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owed {
    /// To its new owner: nothing more comes from here.
    LastWord(ConnId),
    /// To its owner: hand it over.
    Go(ConnId),
    /// To its owner: a message for it was lost.
    Lost(ConnId),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Routing {
    /// Connections with their home here that have ever been moved, wherever they are now.
    moved: HashSet<ConnId>,
    /// From so many on those are forgotten that are gone.
    forget_at: usize,
    /// Whom the mail in this worker's hands is for, and where it goes.
    in_transit: Vec<(ConnId, SlotId)>,
    owed: Vec<Owed>,
    /// Since when the first packet of the mailbox waits for a connection.
    waits_since: Option<Millis>,
}

impl Routing {
    /// Whether the mailbox waits for a connection that is on its way.
    pub(super) fn is_waiting(&self) -> bool {
        self.waits_since.is_some()
    }

    /// The first packet of the mailbox cannot be taken now.
    pub(super) fn wait(&mut self, now: Millis) {
        self.waits_since.get_or_insert(now);
    }

    /// The first packet was taken.
    pub(super) fn go_on(&mut self) {
        self.waits_since = None;
    }

    /// Whether packets may still wait.
    pub(super) fn is_patient(&self, now: Millis) -> bool {
        self.waits_since.is_none_or(|since| now.since(since) < PATIENCE_MS)
    }

    pub(super) fn owe(&mut self, owed: Owed) {
        self.owed.push(owed);
    }

    pub(super) fn take_owed(&mut self) -> Vec<Owed> {
        std::mem::take(&mut self.owed)
    }

    /// A connection with its home here is moved.
    pub(super) fn note_moved(&mut self, conn: ConnId, sessions: &Sessions) {
        if self.moved.len() >= self.forget_at {
            self.moved.retain(|conn| sessions.phase(*conn).is_some());
            self.forget_at = (2 * self.moved.len()).max(FORGET_AT);
        }
        self.moved.insert(conn);
    }

    /// Whether mail was taken that is to be sent on.
    pub(super) fn has_in_transit(&self) -> bool {
        !self.in_transit.is_empty()
    }

    /// The mailbox of a slot is another's to read.
    pub(super) fn forget_home(&mut self, slot: SlotId, sessions: &Sessions) {
        self.moved.retain(|conn| sessions.home(*conn).is_some_and(|home| home != slot));
    }

    /// Another mailbox is read: whether that one waits is another matter.
    pub(super) fn swap_wait(&mut self, other: &mut Option<Millis>) {
        std::mem::swap(&mut self.waits_since, other);
    }

    pub(super) fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }
}

impl Core {
    /// Whether this worker reads the mailbox of a slot.
    pub(super) fn is_home(&self, slot: SlotId) -> bool {
        self.acts_for(slot)
    }

    /// Whether what the running hook sends to this connection goes there straight. If not it goes by the
    /// connection's home, behind what others, or this worker, have sent it there before.
    pub(super) fn goes_straight(&self, key: usize) -> bool {
        let open = self.connections.get(key).and_then(|connection| connection.open());
        open.is_some_and(|open| {
            !open.moved
                || self.speaking == Speaking::Of(open.conn)
                || self.speaking == Speaking::LastWords
        })
    }

    /// Whether another worker's last word about a connection of this one is still to come.
    pub(super) fn awaits_last_word(&self, conn: ConnId) -> bool {
        matches!(self.shared.sessions.passage(conn), Passage::Handed(from) if !self.acts_for(from))
    }

    /// Where a connection is.
    pub(super) fn place_of(&self, conn: ConnId) -> Place {
        if let Some(key) = self.key_of(conn) {
            return Place::Here(key);
        }
        let sessions = &self.shared.sessions;
        let open = match sessions.phase(conn) {
            Some(Phase::Open) => true,
            // What was sent before is delivered, if there is time.
            Some(Phase::Leaving | Phase::Closing) => false,
            _ => return Place::Gone,
        };
        let (Some(home), Some(owner)) = (sessions.home(conn), sessions.owner(conn)) else {
            return Place::Gone;
        };
        match sessions.route(conn) {
            Some(to) if !self.acts_for(owner) && !self.acts_for(to) && self.is_home(home) => {
                Place::There(to)
            }
            _ if !open => Place::Gone,
            _ if self.acts_for(owner) => Place::Ours,
            Some(to) if self.acts_for(to) => Place::Coming,
            _ => Place::Astray,
        }
    }

    /// Whether mail for these waits for a connection that is on its way here.
    pub(super) fn must_wait(&self, recipients: Recipients<'_>) -> bool {
        let coming = |conn: ConnId| self.place_of(conn) == Place::Coming;
        match recipients {
            Recipients::Some(some) => some.iter().any(|bits| coming(ConnId::from_bits(*bits))),
            Recipients::All => self.routing.moved.iter().any(|conn| coming(*conn)),
            Recipients::None | Recipients::Arrived(_) | Recipients::Leaving(_) => false,
        }
    }

    /// Mail for a connection is about to be taken, and sent on to `to`.
    pub(super) fn mark_in_transit(&mut self, conn: ConnId, to: SlotId) {
        self.shared.sessions.set_in_transit(conn, true);
        self.routing.in_transit.push((conn, to));
    }

    /// Unmarks whatever is in the next mailbox by now. To be called when mail was flushed.
    pub(super) fn unmark_in_transit(&mut self) {
        if self.routing.in_transit.is_empty() {
            return;
        }
        let all = std::mem::take(&mut self.routing.in_transit);
        let (stuck, through): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, to)| self.post.spilled_for(to.index()) > 0);
        for (conn, _) in through {
            if !stuck.iter().any(|(other, _)| *other == conn) {
                self.shared.sessions.set_in_transit(conn, false);
            }
        }
        self.routing.in_transit = stuck;
    }

    /// Sends on what is for a connection that is not here.
    pub(super) fn send_on(&mut self, conn: ConnId, mail: &Mail<'_>) {
        match self.place_of(conn) {
            Place::There(to) => {
                self.row.add(Cell::Forwarded, 1);
                if self.post.put(to.index(), mail).is_err() {
                    self.routing.owe(Owed::Lost(conn));
                }
            }
            Place::Coming | Place::Astray => self.routing.owe(Owed::Lost(conn)),
            Place::Here(_) | Place::Ours | Place::Gone => self.row.add(Cell::MailStale, 1),
        }
    }

    /// Sends on a message for several connections that are not here: once to each slot.
    pub(super) fn send_on_to_many(&mut self, conns: &[ConnId], opcode: Opcode, payload: &[u8]) {
        let mut by_slot: Vec<(SlotId, Vec<ConnId>)> = Vec::new();
        for conn in conns.iter().copied() {
            match self.place_of(conn) {
                Place::There(to) => match by_slot.iter_mut().find(|(slot, _)| *slot == to) {
                    Some((_, some)) => some.push(conn),
                    None => by_slot.push((to, vec![conn])),
                },
                Place::Coming | Place::Astray => self.routing.owe(Owed::Lost(conn)),
                Place::Here(_) | Place::Ours | Place::Gone => self.row.add(Cell::MailStale, 1),
            }
        }
        for (to, conns) in by_slot {
            for some in conns.chunks(RECIPIENTS_PER_MAIL) {
                self.row.add(Cell::Forwarded, u64::try_from(some.len()).unwrap_or(0));
                if self.post.put(to.index(), &Mail::deliver_many(some, opcode, payload)).is_err() {
                    some.iter().for_each(|conn| self.routing.owe(Owed::Lost(*conn)));
                }
            }
        }
    }

    /// Connections with this home that are open and served elsewhere; forgets those that are gone.
    pub(super) fn away_from(&mut self, home: SlotId) -> Vec<ConnId> {
        let mut moved = std::mem::take(&mut self.routing.moved);
        let mut away = Vec::new();
        moved.retain(|conn| match self.place_of(*conn) {
            Place::Gone => self.shared.sessions.phase(*conn).is_some(),
            Place::Here(_) => true,
            Place::Ours | Place::There(_) | Place::Coming | Place::Astray => {
                if self.shared.sessions.home(*conn) == Some(home) {
                    away.push(*conn);
                }
                true
            }
        });
        self.routing.moved = moved;
        away
    }

    /// Whether somebody whose home is here is served elsewhere.
    pub(super) fn anybody_away(&mut self) -> bool {
        self.routing.has_moved() && !self.away_from(self.reading).is_empty()
    }

    /// The home of a connection is asked to send what is for it elsewhere. Nothing comes of it while an
    /// earlier move is under way.
    pub(super) fn change_route(&mut self, conn: ConnId, to: SlotId) {
        let sessions = &self.shared.sessions;
        let home_is_here = sessions.home(conn).is_some_and(|home| self.is_home(home));
        let owner = sessions.owner(conn);
        let ours = owner.is_some_and(|owner| self.acts_for(owner));
        if !home_is_here || sessions.phase(conn) != Some(Phase::Open) || ours {
            return;
        }
        let route = sessions.route(conn);
        if route == owner {
            sessions.set_route(conn, to);
        }
        if route == owner || route == Some(to) {
            self.routing.owe(Owed::Go(conn));
        }
    }

    /// What a new worker of a slot goes on with: mail that its predecessor had in its hands, and
    /// connections that were on their way. Before any hook.
    pub(super) fn take_up_routes(&mut self, after_crash: bool) {
        self.routing = Routing::default();
        self.moving = Moving::default();
        self.take_up_routes_of(self.slot, after_crash);
    }

    /// The same for a slot, beside what there is.
    pub(super) fn take_up_routes_of(&mut self, slot: SlotId, after_crash: bool) {
        let all: Vec<ConnId> = self.shared.sessions.all().collect();
        for conn in all {
            let sessions = &self.shared.sessions;
            let (Some(home), Some(owner)) = (sessions.home(conn), sessions.owner(conn)) else {
                continue;
            };
            let (here, ours) = (home == slot, owner == slot);
            let passage = sessions.passage(conn);
            let Some(route) = sessions.route(conn) else { continue };
            if here {
                self.routing.moved.insert(conn);
                if sessions.in_transit(conn) && !after_crash {
                    self.routing.in_transit.push((conn, route));
                } else if sessions.in_transit(conn) {
                    sessions.set_in_transit(conn, false);
                    self.routing.owe(Owed::Lost(conn));
                }
                if !ours && route != owner {
                    self.routing.owe(Owed::Go(conn));
                }
            }
            let fence_passed = here || passage == Passage::Going;
            if passage == Passage::Handed(slot) && !ours {
                self.routing.owe(Owed::LastWord(conn));
            } else if ours && route != slot {
                let begun = passage == Passage::Handed(slot);
                if begun {
                    self.shared.sessions.set_passage(conn, Passage::Going);
                }
                if begun || fence_passed {
                    self.moving.leaves(conn);
                }
            }
        }
    }
}
