//! Whether the members of a large room are to be told soon how many are in it.
//!
//! One word of the room's row: when that is due, 0 for never. Who has changed the room, and finds nothing due,
//! arms a timer and then says so here; whoever has the timer takes the word away first and looks at
//! the members then. So a change is in that look, or its author finds the word gone and arms another timer. A
//! timer outlives every process; a word whose time is long over counts for nothing, should its timer
//! not have come.

use super::Rooms;
use super::membership::Room;
use dunlin_server::clock::Millis;
use std::sync::atomic::{Ordering, fence};

/// So late a timer does not come any more.
const LOST_AFTER_MS: u64 = 1_000;

/// That nothing was due: shown to [`Rooms::set_news_due`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NothingDue(u64);

impl Rooms {
    /// Whether the members are to be told soon already. The caller's change of the room is done, with a fence
    /// behind it ([`Rooms::enter`], [`Rooms::begin_leaving`]).
    pub(crate) fn news_due(&self, room: Room, now: Millis) -> Result<(), NothingDue> {
        let due = self.names.rows().counter(self.news, room.0.index).load(Ordering::Acquire);
        let counts = due != 0 && now.0 <= due.saturating_add(LOST_AFTER_MS);
        if counts { Ok(()) } else { Err(NothingDue(due)) }
    }

    /// Says that the members are told at that time. False if another one has said so first.
    pub(crate) fn set_news_due(&self, room: Room, nothing: NothingDue, at: Millis) -> bool {
        let word = self.names.rows().counter(self.news, room.0.index);
        word.compare_exchange(nothing.0, at.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The members are about to be told: what changes from now on is for the next time. False if the room is
    /// gone.
    pub(crate) fn take_news(&self, room: Room) -> bool {
        if !self.is_live(room) {
            return false;
        }
        self.names.rows().counter(self.news, room.0.index).store(0, Ordering::Release);
        fence(Ordering::SeqCst);
        true
    }
}
