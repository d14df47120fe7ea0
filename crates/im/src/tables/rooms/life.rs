//! When a room begins and ends: it is made for the first who comes, and freed by the last who goes.
//!
//! One word of the room's row decides: LIVE; an *inquiry*, while somebody finds out whether anybody is left;
//! DEAD, after which whoever meets the row deletes it. Who wants to free the room puts an inquiry of his own
//! in the word (also over that of another, who may have died), looks at who is in the room, and makes it
//! DEAD or LIVE again only if his inquiry is still there. Who comes makes himself a member first and
//! looks at the word after that; an inquiry he replaces by LIVE; if it is DEAD he goes out again and begins
//! anew.
//!
//! Why no member is in a dead room: both write first and look then, with a fence between. Either the newcomer
//! sees the inquiry, takes it away, and the room does not become DEAD by it; or he was before it, and who put
//! it there sees him. Inquiries never come twice, so no late look can decide about a later state; one that
//! reached the row's next life says so (its handle is stale then) and takes its inquiry back.
//!
//! Nobody waits: every step that fails does so because another one has succeeded. A death leaves: an inquiry,
//! which the next one replaces; DEAD, which the next one acts on, or a room that was made and never entered.
//! The first two are met again by whoever closes the row of the dead's session, since its word still
//! names the room; the last is swept when names run out.

use super::membership::Room;
use super::{INQUIRY_WORD, Rooms, SWEPT_WORD, step};
use dunlin_server::Sessions;
use dunlin_table::{Added, TableError};
use std::sync::atomic::{AtomicU64, Ordering, fence};

const LIVE: u64 = 0;
const DEAD: u64 = u64::MAX;

/// How often one who goes looks again where newcomers come in between. Each of them is a member who goes,
/// too, and looks then.
const RECLAIM_ATTEMPTS: usize = 64;

/// Names are swept once in so many milliseconds at most: it is a look at every room.
const SWEEP_EVERY_MS: u64 = 1_000;

impl Rooms {
    /// The room of a name, made if there is none: whoever makes it must enter it. `None`: all are taken.
    pub(super) fn find_or_make(
        &self,
        sessions: &Sessions,
        name: &str,
        unix_ms: u64,
    ) -> Option<Room> {
        loop {
            match self.names.add(name, &[]) {
                Ok(Added::New(id) | Added::There(id)) => return Some(Room(id)),
                Err(TableError::Full { .. }) if self.sweep_names(sessions, unix_ms) => {}
                Err(error) => {
                    tracing::debug!(%error, "no room was made");
                    return None;
                }
            }
        }
    }

    /// Whether a room that the caller has just entered is one to stay in.
    pub(super) fn confirm(&self, room: Room) -> bool {
        let life = self.life(room);
        // Behind the newcomer's own words: see the module.
        fence(Ordering::SeqCst);
        loop {
            step();
            let seen = life.load(Ordering::Acquire);
            if seen == DEAD {
                self.names.remove(room.0);
                return false;
            }
            step();
            // Looked at after the word: it was this life's if the room is live.
            if !self.is_live(room) {
                return false;
            }
            if seen == LIVE {
                return true;
            }
            step();
            // Whether it is taken away or has become another: the next look tells.
            let _ = life.compare_exchange(seen, LIVE, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Frees a room if nobody is in it.
    pub(super) fn reclaim(&self, sessions: &Sessions, room: Room) {
        for _ in 0..RECLAIM_ATTEMPTS {
            match self.try_reclaim(sessions, room) {
                Reclaim::Decided => return,
                Reclaim::LookAgain => {}
            }
        }
    }

    fn try_reclaim(&self, sessions: &Sessions, room: Room) -> Reclaim {
        let life = self.life(room);
        step();
        let seen = life.load(Ordering::Acquire);
        if !self.is_live(room) {
            return Reclaim::Decided;
        }
        if seen == DEAD {
            self.names.remove(room.0);
            return Reclaim::Decided;
        }
        let inquiry = self.words[INQUIRY_WORD].fetch_add(1, Ordering::Relaxed) + 1;
        let put = |from, to| {
            step();
            life.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
        };
        if put(seen, inquiry).is_err() {
            return Reclaim::LookAgain;
        }
        if !self.is_live(room) {
            // It is the word of the row's next life.
            let _ = put(inquiry, LIVE);
            return Reclaim::Decided;
        }
        fence(Ordering::SeqCst);
        step();
        let inhabited = self.has_anybody(sessions, room);
        match put(inquiry, if inhabited { LIVE } else { DEAD }) {
            Ok(_) if inhabited => Reclaim::Decided,
            Ok(_) => {
                step();
                self.names.remove(room.0);
                Reclaim::Decided
            }
            // Taken away by a newcomer; by one of the life before, perhaps, who does not stay.
            Err(LIVE) => Reclaim::LookAgain,
            // Another one decides, who looks later than this one did.
            Err(_) => Reclaim::Decided,
        }
    }

    /// Frees every room that nobody is in: those whose maker died. False if that was done a moment ago, or
    /// freed nothing.
    fn sweep_names(&self, sessions: &Sessions, unix_ms: u64) -> bool {
        let swept = &self.words[SWEPT_WORD];
        let last = swept.load(Ordering::Relaxed);
        let due = unix_ms.abs_diff(last) >= SWEEP_EVERY_MS;
        if !due
            || swept.compare_exchange(last, unix_ms, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return false;
        }
        let before = self.names.count();
        for index in 0..self.names.capacity() {
            if let Some(id) = self.names.rows().at(index) {
                self.reclaim(sessions, Room(id));
            }
        }
        self.names.count() < before
    }

    pub(super) fn is_live(&self, room: Room) -> bool {
        self.names.rows().is_live(room.0)
    }

    pub(super) fn life(&self, room: Room) -> &'static AtomicU64 {
        self.names.rows().counter(self.life, room.0.index)
    }
}

enum Reclaim {
    Decided,
    LookAgain,
}
