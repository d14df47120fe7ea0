//! The words of a row that tell where a connection is served, and how far it is on its way elsewhere.
//!
//! Knows who may write each word; knows no mail. The *owner* is the slot whose worker serves the
//! connection; the *home* is the slot whose mailbox takes what is for it, and never changes; the *route*
//! is where the reader of that mailbox sends it on.
//! Invariants: 1. `route` and `in_transit` are written by the reader of the home mailbox only, `passage`
//! and `left` by the owner only, `strikes` by the master only. 2. A row whose route was never written has never
//! been elsewhere than at home: its mail needs no detour. 3. The ledger names the next owner before the
//! row does.

use super::Sessions;
use crate::ids::{ConnId, SlotId};
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

/// How far a connection is on its way to another slot, as its owner knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Passage {
    /// It is not on its way.
    None,
    /// Everything that its home had sent to the owner is read: it may be handed over.
    Going,
    /// The worker of this slot has handed it over. Nothing is read from it until that worker's `Moved`
    /// is read from the mailbox, since what the connection had said before lies there in front of it.
    Handed(SlotId),
}

const GOING: u64 = 1 << 32;

/// Deaths that taking up one connection may cost; then it is closed.
pub(crate) const STRIKES_MAX: u64 = 3;

impl Sessions {
    /// The slot whose worker serves the connection; `None` if it is gone.
    #[must_use]
    pub fn owner(&self, conn: ConnId) -> Option<SlotId> {
        self.rows.owner(conn.row()).map(SlotId)
    }

    /// Gives the row to the worker of another slot. Only its owner may, or, for a slot without a worker,
    /// whoever stands in. The ledger must name the new owner already. False: the row is gone.
    pub(crate) fn set_owner(&self, conn: ConnId, owner: SlotId) -> bool {
        self.rows.set_owner(conn.row(), owner.0)
    }

    /// Where the reader of the home mailbox sends on what is for the connection; `None`: it has never
    /// been moved.
    pub(crate) fn route(&self, conn: ConnId) -> Option<SlotId> {
        let word = self.word(conn, self.columns.route)?;
        u16::try_from(word.checked_sub(1)?).ok().map(SlotId)
    }

    /// Sets the route; only the reader of the home mailbox may. It never becomes unset again: whoever
    /// sends to the connection goes by its home for good, or a message could overtake one on the way.
    pub(crate) fn set_route(&self, conn: ConnId, to: SlotId) {
        self.store(conn, self.columns.route, u64::from(to.0) + 1);
    }

    /// Whether mail for the connection is in the hands of the reader of its home mailbox.
    pub(crate) fn in_transit(&self, conn: ConnId) -> bool {
        self.word(conn, self.columns.in_transit).is_some_and(|word| word != 0)
    }

    pub(crate) fn set_in_transit(&self, conn: ConnId, on: bool) {
        self.store(conn, self.columns.in_transit, u64::from(on));
    }

    pub(crate) fn passage(&self, conn: ConnId) -> Passage {
        match self.word(conn, self.columns.passage) {
            None | Some(0) => Passage::None,
            Some(GOING) => Passage::Going,
            Some(word) => {
                u16::try_from(word - 1).map_or(Passage::None, |slot| Passage::Handed(SlotId(slot)))
            }
        }
    }

    pub(crate) fn set_passage(&self, conn: ConnId, passage: Passage) {
        let word = match passage {
            Passage::None => 0,
            Passage::Going => GOING,
            Passage::Handed(from) => u64::from(from.0) + 1,
        };
        self.store(conn, self.columns.passage, word);
    }

    /// The memfd with what the worker that handed the connection over had in its hands: unsent output,
    /// input not served. Whoever takes it up reads and closes it.
    pub(crate) fn left(&self, conn: ConnId) -> Option<RawFd> {
        RawFd::try_from(self.word(conn, self.columns.left)?.checked_sub(1)?).ok()
    }

    pub(crate) fn set_left(&self, conn: ConnId, memfd: Option<RawFd>) {
        let word = memfd.and_then(|memfd| u64::try_from(memfd).ok()).map_or(0, |memfd| memfd + 1);
        self.store(conn, self.columns.left, word);
    }

    /// How often taking up this very connection has killed the worker that did.
    pub(crate) fn strikes(&self, conn: ConnId) -> u64 {
        self.word(conn, self.columns.strikes).unwrap_or(0)
    }

    /// Notes that taking up this connection killed a worker; gives how often it has. Master only.
    pub(crate) fn add_strike(&self, conn: ConnId) -> u64 {
        self.counter(conn, self.columns.strikes)
            .map_or(0, |word| word.fetch_add(1, Ordering::AcqRel) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_table::{Rows, heap_words};

    #[test]
    fn a_row_tells_its_owner_its_route_and_its_passage() {
        let schema = Sessions::schema(Vec::new()).expect("a schema");
        let words = Rows::words_needed(&schema, 4).expect("room");
        let sessions = Sessions::new(schema, 4, heap_words(words)).expect("as many as needed");
        let peer = "127.0.0.1:7".parse().expect("an address");
        let conn = sessions.claim(SlotId(2), 9, peer).expect("a row");
        assert_eq!((sessions.owner(conn), sessions.home(conn)), (Some(SlotId(2)), Some(SlotId(2))));
        assert_eq!((sessions.route(conn), sessions.passage(conn)), (None, Passage::None));
        for to in [SlotId(0), SlotId(u16::MAX)] {
            sessions.set_route(conn, to);
            assert_eq!(sessions.route(conn), Some(to));
            sessions.set_passage(conn, Passage::Handed(to));
            assert_eq!(sessions.passage(conn), Passage::Handed(to));
        }
        sessions.set_passage(conn, Passage::Going);
        assert_eq!(sessions.passage(conn), Passage::Going);
        assert_eq!(sessions.left(conn), None);
        sessions.set_left(conn, Some(0));
        assert_eq!(sessions.left(conn), Some(0));
        assert!(sessions.set_owner(conn, SlotId(0)));
        assert_eq!((sessions.owner(conn), sessions.home(conn)), (Some(SlotId(0)), Some(SlotId(2))));
        assert_eq!((sessions.add_strike(conn), sessions.add_strike(conn)), (1, 2));
        sessions.set_in_transit(conn, true);
        assert!(sessions.in_transit(conn));
        assert!(sessions.free(conn));
        let next = sessions.claim(SlotId(1), 9, peer).expect("a row");
        assert_eq!((sessions.route(next), sessions.left(next)), (None, None));
        assert_eq!(sessions.strikes(next), 0, "nothing is left");
        assert!(!sessions.in_transit(next) && sessions.passage(next) == Passage::None);
        assert!(!sessions.set_owner(conn, SlotId(0)), "it is gone");
    }
}
