//! `join`, `leave`, `members`, and whom a message to a room is for.

use super::{Caller, Outcome};
use crate::backend::Asking;
use crate::ids::RoomId;
use crate::protocol::params::{self, InRoom};
use crate::protocol::reply::{RoomCount, RoomMembers};
use crate::protocol::{CallError, Code};
use crate::tables::rooms::{JoinError, Room};
use serde_json::value::RawValue;

/// When to try again where there is no room for another member, in milliseconds.
const RETRY_JOIN_MS: u64 = 1_000;

impl Caller<'_, '_> {
    pub(super) fn join<'a>(
        &mut self,
        params: Option<&'a RawValue>,
    ) -> Result<Outcome<'a>, CallError> {
        let InRoom { room } = InRoom::read(params)?;
        let rooms = &self.app.tables().rooms;
        if !rooms.is_allowed(self.context.table(), self.conn, room.as_str()) {
            let message = "the token of this session does not name this room";
            return Err(CallError::new(Code::Forbidden, message).because("room_not_allowed"));
        }
        self.app.extension.may_join(&self.seen(), &room)?;
        if self.app.config.backend.authorise.join
            && matches!(self.ask_join(&room)?, Asking::Later(_))
        {
            return Ok(Outcome::Later);
        }
        let (user, most) = (&self.account.user, self.app.config.rooms.rooms);
        let joined = self.app.join_room(self.context, self.conn, user, room.as_str(), most);
        let count = joined.map_err(refuse)?;
        Ok(Outcome::Room(RoomCount { room, count }))
    }

    pub(super) fn leave<'a>(
        &mut self,
        params: Option<&'a RawValue>,
    ) -> Result<Outcome<'a>, CallError> {
        let InRoom { room } = InRoom::read(params)?;
        let found = self.app.tables().rooms.find(room.as_str());
        let left = found.filter(|found| {
            self.app.leave_room(self.context, self.conn, &self.account.user, *found)
        });
        let count = left.map_or(0, |left| self.app.users_in(self.context, left));
        Ok(Outcome::Room(RoomCount { room, count }))
    }

    pub(super) fn members<'a>(
        &mut self,
        params: Option<&'a RawValue>,
    ) -> Result<Outcome<'a>, CallError> {
        let params::Members { room, limit, from } = params::Members::read(params)?;
        let found = self.room_of_member(&room)?;
        let (tables, sessions) = (self.app.tables(), self.context.table());
        let page = tables.rooms.members_page(sessions, found, from, limit);
        // One that went away since it was found is no member.
        let members = page.members.iter();
        let members = members.filter_map(|member| tables.named_user(sessions, member.conn));
        Ok(Outcome::Members(RoomMembers {
            room,
            members: members.collect(),
            cursor: page.next.map(|next| next.to_string()),
            partial: false,
        }))
    }

    /// The room of a name, if this session is in it.
    pub(super) fn room_of_member(&self, room: &RoomId<'_>) -> Result<Room, CallError> {
        let rooms = &self.app.tables().rooms;
        let found = rooms.find(room.as_str());
        found.filter(|found| rooms.is_member(self.context.table(), self.conn, *found)).ok_or_else(
            || {
                CallError::new(Code::Forbidden, "you are no member of this room")
                    .because("not_a_member")
            },
        )
    }
}

pub(super) fn refuse(error: JoinError) -> CallError {
    match error {
        JoinError::TooManyRooms => {
            let message = "this session is in as many rooms as it may be: leave one first";
            CallError::new(Code::Forbidden, message).because("too_many_rooms")
        }
        JoinError::RoomFull => {
            CallError::new(Code::TableFull, "the room has as many members as it may have")
                .because("room_full")
                .retry_after(RETRY_JOIN_MS)
        }
        JoinError::NamesFull | JoinError::MembersFull => {
            CallError::new(Code::TableFull, "the server has no place for this in its tables")
                .retry_after(RETRY_JOIN_MS)
        }
        JoinError::Busy => {
            CallError::new(Code::Busy, "the room could not be entered").retry_after(RETRY_JOIN_MS)
        }
    }
}
