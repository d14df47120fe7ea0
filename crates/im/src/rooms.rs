//! Coming into a room, going out of it, and who is told.
//!
//! Knows who is where by the tables; decides nothing of who may come. Invariants: 1. A user who comes with
//! his first session in a room is told to the other members, and one who goes with his last; what
//! another worker does at the same time may make that twice, never none. 2. Whoever goes is told
//! while his session's row still names the room, so that a worker that dies in between leaves it to the one
//! that closes the session.

use crate::app::ImApp;
use crate::ids::{RoomId, UserId};
use crate::protocol::notification::{self, InRoom, Joined, Left};
use crate::tables::rooms::{Join, JoinError, Room, RoomCount, count_users};
use dunlin_server::{ConnId, Context, Message, Sessions};
use serde_json::{Value as Json, json};
use std::borrow::Cow;

/// What the members of a room are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum News {
    Joined,
    Left,
}

impl ImApp {
    /// Takes a session of a user into a room; gives how many users are in it.
    ///
    /// # Errors
    /// See [`JoinError`]; it is counted.
    pub(crate) fn join_room(
        &self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        user: &str,
        name: &str,
    ) -> Result<usize, JoinError> {
        let (tables, sessions) = (self.tables(), context.table());
        let rooms = &tables.rooms;
        let has_other = |room| {
            let is_in = |other| rooms.is_member(sessions, other, room);
            tables.has_other_in(sessions, user, conn, is_in)
        };
        let newcomer = rooms.enter(
            sessions,
            name,
            &Join {
                conn,
                user: tables.hash(user),
                has_other: &has_other,
                limits: self.config.rooms,
                unix_ms: context.unix_ms(),
            },
        );
        let newcomer = newcomer.inspect_err(|error| {
            if let Some(count) = error.count() {
                rooms.count(count);
            }
        })?;
        Ok(if newcomer.is_first {
            self.tell(context, newcomer.room, name, News::Joined, user, conn)
        } else {
            self.users_in(context, newcomer.room)
        })
    }

    /// Takes a session of a user out of a room; gives how many users are left, 0 if it was not in it.
    pub(crate) fn leave_room(
        &self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        user: &str,
        room: Room,
    ) -> usize {
        let (tables, sessions) = (self.tables(), context.table());
        let rooms = &tables.rooms;
        let Some(leaving) = rooms.begin_leaving(sessions, conn, room) else { return 0 };
        let is_in = |other| rooms.is_coming(sessions, other, room);
        let is_last = !tables.has_other_in(sessions, user, conn, is_in);
        // Who is told that the server stops need not hear who goes before.
        let count = match rooms.name(room) {
            Some(name) if is_last && !context.is_stopping() => {
                self.tell(context, room, &name, News::Left, user, conn)
            }
            _ => self.users_in(context, room),
        };
        rooms.end_leaving(context.table(), conn, leaving);
        count
    }

    /// Takes a session out of every room that its row names.
    pub(crate) fn leave_rooms(&self, context: &mut Context<'_, Self>, conn: ConnId) {
        let mut rooms = self.tables().rooms.rooms_of(context.table(), conn).peekable();
        if rooms.peek().is_none() {
            return;
        }
        let user = self.tables().named_user(context.table(), conn).unwrap_or_default();
        for room in rooms {
            self.leave_room(context, conn, &user, room);
        }
    }

    /// The sessions that are in a room.
    pub(crate) fn sessions_in(&self, context: &Context<'_, Self>, room: Room) -> Vec<ConnId> {
        let members = self.tables().rooms.members(context.table(), room);
        members.into_iter().map(|member| member.conn).collect()
    }

    /// For the status.
    pub(crate) fn room_figures(&self, sessions: &Sessions) -> Json {
        let rooms = &self.tables().rooms;
        let (capacity, members_capacity) = rooms.capacity();
        json!({
            "capacity": capacity,
            "used": rooms.used(),
            "members_capacity": members_capacity,
            "members": rooms.count_memberships(sessions),
            "refused_too_many_rooms": rooms.counted(RoomCount::TooManyRooms),
            "refused_room_full": rooms.counted(RoomCount::RoomFull),
            "refused_rooms_full": rooms.counted(RoomCount::NamesFull),
            "refused_members_full": rooms.counted(RoomCount::MembersFull),
        })
    }

    fn users_in(&self, context: &Context<'_, Self>, room: Room) -> usize {
        count_users(&self.tables().rooms.members(context.table(), room))
    }

    /// Tells the members of a room, but for one session, of a user; gives how many users are in it.
    fn tell(
        &self,
        context: &mut Context<'_, Self>,
        room: Room,
        name: &str,
        news: News,
        user: &str,
        except: ConnId,
    ) -> usize {
        let members = self.tables().rooms.members(context.table(), room);
        let count = count_users(&members);
        let names = (RoomId::new(Cow::Borrowed(name)), UserId::new(Cow::Borrowed(user)));
        let (Ok(room), Ok(user)) = names else {
            return count; // Only a foreign write to shared memory can leave such a name.
        };
        let others = members.into_iter().map(|member| member.conn).filter(|conn| *conn != except);
        let others: Vec<ConnId> = others.collect();
        if !others.is_empty() {
            let who = InRoom { room: &room, user: &user, count };
            let text = match news {
                News::Joined => notification::encode(&Joined(who)),
                News::Left => notification::encode(&Left(who)),
            };
            context.push_many(&others, Message::Text(&text));
        }
        count
    }
}
