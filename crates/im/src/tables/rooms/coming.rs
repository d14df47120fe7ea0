//! How a session comes into a room and goes out of it.
//!
//! In: the word with *entering*, the hint, the word with *member*, then the room is confirmed ([`super::life`]).
//! Out: the word with *leaving*, the hint is removed, the room is freed if it is empty, the word is cleared.
//! A process that dies between any two of these leaves a word that names the room, and the session, which was
//! being served, is closed by whoever serves its slot next: the same way out.
//!
//! Who tells the others that a *user* came or went has to know whether it is the user's first or last session
//! in the room, while another worker may be at the same with another session of his. Therefore a newcomer looks
//! while it is still *entering*, and counts only members; who goes looks while it is *leaving*, and counts
//! members and who is entering. With the fences, of two that come both may tell, of two that go at least one
//! tells, and where one goes and one comes either nobody tells or the one who came does so.

use super::membership::{Membership, Room, Stage};
use super::{ROOMS_BOUND, RoomCount, Rooms, step};
use dunlin_server::{ConnId, Sessions};
use std::sync::atomic::{Ordering, fence};

/// How often a newcomer begins anew because the room was just being freed.
const ENTER_ATTEMPTS: usize = 64;

/// What a join may use of what is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// Rooms of one session, at most [`ROOMS_BOUND`].
    pub(crate) rooms: usize,
    /// Sessions in one room. Of several that come in the same instant on different workers each sees the
    /// room as it was before.
    pub(crate) members: usize,
}

/// Who comes, and under which conditions.
#[derive(Clone, Copy)]
pub(crate) struct Join<'a> {
    /// The session.
    pub(crate) conn: ConnId,
    /// The hash of its user.
    pub(crate) user: u64,
    /// Whether another session of the user is a member.
    pub(crate) has_other: &'a dyn Fn(Room) -> bool,
    /// What it may use.
    pub(crate) limits: Limits,
    /// The wall clock.
    pub(crate) unix_ms: u64,
}

/// A session that is in the room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Newcomer {
    /// Which.
    pub(crate) room: Room,
    /// Whether its user was not in it before, with any session.
    pub(crate) is_first: bool,
}

/// A session did not come into a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// It is in as many as it may be.
    #[error("the session is in as many rooms as it may be")]
    TooManyRooms,
    /// As many sessions are in the room as may be.
    #[error("the room has as many members as it may have")]
    RoomFull,
    /// There are as many rooms as there may be.
    #[error("the server has as many rooms as it may have")]
    NamesFull,
    /// There is no cell for another membership.
    #[error("the server has no room for another member")]
    MembersFull,
    /// Its row is gone, or the room was freed again and again.
    #[error("the room could not be entered")]
    Busy,
}

/// A session that is on its way out of a room; [`Rooms::end_leaving`] ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaving {
    /// Which room.
    pub(crate) room: Room,
    place: usize,
}

impl Rooms {
    /// Makes a session a member. Only the worker that serves it may.
    ///
    /// # Errors
    /// See [`JoinError`]; it is as if it had not been tried.
    pub(crate) fn enter(
        &self,
        sessions: &Sessions,
        name: &str,
        join: &Join<'_>,
    ) -> Result<Newcomer, JoinError> {
        let Join { conn, user, has_other, limits, unix_ms } = *join;
        if let Some(room) = self.find(name).filter(|room| self.is_member(sessions, conn, *room)) {
            return Ok(Newcomer { room, is_first: false });
        }
        let place = self.free_place(sessions, conn, limits.rooms).ok_or(JoinError::TooManyRooms)?;
        let user_word = sessions.counter(conn, self.user).ok_or(JoinError::Busy)?;
        user_word.store(user, Ordering::Release);
        for _ in 0..ENTER_ATTEMPTS {
            let made = self.find_or_make(sessions, name, unix_ms);
            let room = made.ok_or(JoinError::NamesFull)?;
            step();
            if self.is_full(sessions, room, limits.members) {
                return Err(JoinError::RoomFull);
            }
            let leaving = Leaving { room, place };
            self.set(sessions, conn, place, Membership::new(room, Stage::Entering));
            if !self.insert_hint(sessions, conn, room) {
                self.go_out(sessions, conn, leaving);
                return Err(JoinError::MembersFull);
            }
            // See the module.
            fence(Ordering::SeqCst);
            step();
            let is_first = !has_other(room);
            self.set(sessions, conn, place, Membership::new(room, Stage::Member));
            if self.confirm(room) {
                return Ok(Newcomer { room, is_first });
            }
            self.go_out(sessions, conn, leaving);
        }
        Err(JoinError::Busy)
    }

    /// Begins to take a session out of a room that it is in, in whatever stage. From now on it is no member.
    pub(crate) fn begin_leaving(
        &self,
        sessions: &Sessions,
        conn: ConnId,
        room: Room,
    ) -> Option<Leaving> {
        let (place, _) = self.place_of(sessions, conn, room)?;
        self.set(sessions, conn, place, Membership::new(room, Stage::Leaving));
        step();
        self.hints.remove(self.hash(room), conn.row().index);
        // See the module.
        fence(Ordering::SeqCst);
        step();
        Some(Leaving { room, place })
    }

    /// Frees the room if it was the last one, and lets go of it.
    pub(crate) fn end_leaving(&self, sessions: &Sessions, conn: ConnId, leaving: Leaving) {
        self.reclaim(sessions, leaving.room);
        self.set(sessions, conn, leaving.place, Membership::NONE);
    }

    /// The rooms that a session's row names, in whatever stage.
    pub(crate) fn rooms_of(
        &self,
        sessions: &Sessions,
        conn: ConnId,
    ) -> impl Iterator<Item = Room> + use<'_> {
        let words = (0..ROOMS_BOUND).map(|place| self.membership(sessions, conn, place));
        let rooms: [Option<Room>; ROOMS_BOUND] = {
            let mut words = words;
            std::array::from_fn(|_| words.next().and_then(Membership::room))
        };
        rooms.into_iter().flatten()
    }

    /// Whether a session is a member of a room.
    pub(crate) fn is_member(&self, sessions: &Sessions, conn: ConnId, room: Room) -> bool {
        self.place_of(sessions, conn, room).is_some_and(|(_, stage)| stage == Stage::Member)
    }

    /// Whether a session is a member, or on its way to be one.
    pub(crate) fn is_coming(&self, sessions: &Sessions, conn: ConnId, room: Room) -> bool {
        self.place_of(sessions, conn, room).is_some_and(|(_, stage)| stage != Stage::Leaving)
    }

    fn free_place(&self, sessions: &Sessions, conn: ConnId, most: usize) -> Option<usize> {
        let is_free = |place: &usize| self.membership(sessions, conn, *place) == Membership::NONE;
        let free = (0..ROOMS_BOUND).filter(is_free).count();
        (ROOMS_BOUND - free < most).then(|| (0..ROOMS_BOUND).find(is_free))?
    }

    fn insert_hint(&self, sessions: &Sessions, conn: ConnId, room: Room) -> bool {
        step();
        let (hash, row_index) = (self.hash(room), conn.row().index);
        if self.hints.insert(hash, row_index).is_ok() {
            return true;
        }
        let swept = self.hints.sweep(hash, |tag, row| self.is_hinted(sessions, tag, row));
        swept > 0 && self.hints.insert(hash, row_index).is_ok()
    }

    fn go_out(&self, sessions: &Sessions, conn: ConnId, leaving: Leaving) {
        // Nobody was told that it came.
        self.begin_leaving(sessions, conn, leaving.room);
        self.end_leaving(sessions, conn, leaving);
    }

    fn set(&self, sessions: &Sessions, conn: ConnId, place: usize, membership: Membership) {
        step();
        if let Some(word) = self.word(sessions, conn, place) {
            // Release: whoever sees a membership sees the hash of its user, too.
            word.store(membership.0, Ordering::Release);
        }
    }
}

impl JoinError {
    /// What is counted of it.
    pub(crate) fn count(self) -> Option<RoomCount> {
        match self {
            Self::TooManyRooms => Some(RoomCount::TooManyRooms),
            Self::RoomFull => Some(RoomCount::RoomFull),
            Self::NamesFull => Some(RoomCount::NamesFull),
            Self::MembersFull => Some(RoomCount::MembersFull),
            Self::Busy => None,
        }
    }
}
