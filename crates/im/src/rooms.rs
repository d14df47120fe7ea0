//! Coming into a room, going out of it, and who is told.
//!
//! Knows who is where by the tables; decides nothing of who may come. Invariants: 1. A user who comes with
//! his first session in a room is told to the other members, and one who goes with his last; what
//! another worker does at the same time may make that twice, never none. 2. Whoever goes is told
//! while his session's row still names the room, so that a worker that dies in between leaves it to the one
//! that closes the session. 3. In a room of more than `im.room_quiet_above` members nobody is named: who is
//! in it is told how many there are, once in [`QUIET_MS`] at most, and at the latest so long after a change.

use crate::app::ImApp;
use crate::ids::{RoomId, UserId};
use crate::protocol::notification::{self, InRoom, Joined, Left, RoomChanged};
use crate::tables::rooms::{Join, JoinError, Limits, ROOMS_BOUND, Room, RoomCount, count_users};
use dunlin_server::{ConnId, Context, Message, Sessions, limited};
use serde_json::{Value as Json, json};
use std::borrow::Cow;

/// How often the members of a large room are told how many they are, in milliseconds.
const QUIET_MS: u64 = 1_000;

/// What a timer for that comes back with, before the room.
const NEWS_TIMER: &[u8] = b"im.room";

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
        most_rooms: usize,
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
                limits: Limits { rooms: most_rooms, ..self.config.rooms },
                unix_ms: context.unix_ms(),
            },
        );
        let newcomer = newcomer.inspect_err(|error| {
            if let Some(count) = error.count() {
                rooms.count(count);
            }
        })?;
        let told = newcomer
            .is_first
            .then(|| self.tell(context, newcomer.room, name, News::Joined, user, conn));
        Ok(told.flatten().unwrap_or_else(|| self.users_in(context, newcomer.room)))
    }

    /// Takes a session of a user out of a room. False if it was not in it.
    pub(crate) fn leave_room(
        &self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        user: &str,
        room: Room,
    ) -> bool {
        let (tables, sessions) = (self.tables(), context.table());
        let rooms = &tables.rooms;
        let Some(leaving) = rooms.begin_leaving(sessions, conn, room) else { return false };
        let is_in = |other| rooms.is_coming(sessions, other, room);
        let is_last = !tables.has_other_in(sessions, user, conn, is_in);
        // Who is told that the server stops need not hear who goes before.
        if is_last
            && !context.is_stopping()
            && let Some(name) = rooms.name(room)
        {
            self.tell(context, room, &name, News::Left, user, conn);
        }
        rooms.end_leaving(context.table(), conn, leaving);
        true
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

    /// Notes which rooms a session may join: those its token names, or any.
    pub(crate) fn allow_rooms(
        &self,
        context: &Context<'_, Self>,
        conn: ConnId,
        named: Option<&[RoomId<'static>]>,
    ) {
        let named = named.map(|named| named.iter().map(RoomId::as_str));
        self.tables().rooms.set_allowed(context.table(), conn, named);
    }

    /// Takes a session into the rooms of its token, and out of those that it does not name; gives those it
    /// is in. It may join no others from now on. `None`: the token does not say, and it may join any.
    pub(crate) fn keep_to_rooms(
        &self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        user: &str,
        named: Option<&[RoomId<'static>]>,
    ) -> Option<Vec<RoomId<'static>>> {
        self.allow_rooms(context, conn, named);
        let (rooms, named) = (&self.tables().rooms, named?);
        for room in rooms.rooms_of(context.table(), conn) {
            let name = rooms.name(room).unwrap_or_default();
            if named.iter().all(|allowed| allowed.as_str() != name) {
                self.leave_room(context, conn, user, room);
            }
        }
        let mut joined = Vec::new();
        for name in named {
            // What the token names is not bound by `im.max_rooms`. One that is full may be joined later.
            match self.join_room(context, conn, user, name.as_str(), ROOMS_BOUND) {
                Ok(_) if joined.contains(name) => {}
                Ok(_) => joined.push(name.clone()),
                Err(error) => {
                    limited!(info, session = %conn, room = %name, %error, "a room of a token was not joined");
                }
            }
        }
        Some(joined)
    }

    /// A timer came. False if it is not for the members of a room.
    pub(crate) fn tell_news(&self, context: &mut Context<'_, Self>, payload: &[u8]) -> bool {
        let Some(bits) = payload.strip_prefix(NEWS_TIMER).and_then(|bits| bits.try_into().ok())
        else {
            return false;
        };
        let room = Room::from_bits(u64::from_ne_bytes(bits));
        if self.tables().rooms.take_news(room) {
            self.tell_count(context, room);
        }
        true
    }

    pub(crate) fn users_in(&self, context: &Context<'_, Self>, room: Room) -> usize {
        count_users(&self.tables().rooms.members(context.table(), room))
    }

    /// Tells the members of a room, but for one session, of a user, and gives how many users are in it;
    /// `None` where it is large, and they are told later.
    fn tell(
        &self,
        context: &mut Context<'_, Self>,
        room: Room,
        name: &str,
        news: News,
        user: &str,
        except: ConnId,
    ) -> Option<usize> {
        if self.tables().rooms.hinted(room) > self.config.room_quiet_above {
            self.tell_room_later(context, room);
            return None;
        }
        let members = self.tables().rooms.members(context.table(), room);
        let count = count_users(&members);
        let names = (RoomId::new(Cow::Borrowed(name)), UserId::new(Cow::Borrowed(user)));
        let (Ok(room), Ok(user)) = names else {
            return Some(count); // Only a foreign write to shared memory can leave such a name.
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
        Some(count)
    }

    fn tell_room_later(&self, context: &mut Context<'_, Self>, room: Room) {
        let (rooms, now) = (&self.tables().rooms, context.now());
        let Err(nothing) = rooms.news_due(room, now) else { return };
        let payload = [NEWS_TIMER, &room.to_bits().to_ne_bytes()].concat();
        match context.after(QUIET_MS, &payload) {
            // Armed before it is said: who dies in between leaves a timer too many, and none too few.
            Ok(timer) if !rooms.set_news_due(room, nothing, now + QUIET_MS) => {
                context.clear_timer(timer);
            }
            Ok(_) => {}
            Err(error) => {
                limited!(warn, %error, "the members of a room are told at once, not once a second");
                self.tell_count(context, room);
            }
        }
    }

    fn tell_count(&self, context: &mut Context<'_, Self>, room: Room) {
        let name = self.tables().rooms.name(room).map(RoomId::new);
        let Some(Ok(name)) = name else { return };
        let members = self.tables().rooms.members(context.table(), room);
        let count = count_users(&members);
        let text = notification::encode(&RoomChanged { room: &name, count });
        let members: Vec<ConnId> = members.into_iter().map(|member| member.conn).collect();
        context.push_many(&members, Message::Text(&text));
    }
}
