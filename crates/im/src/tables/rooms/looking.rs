//! Who is in a room, and which rooms there are.
//!
//! What is found is of one moment for each session and not for all together. A hint costs two looks at the
//! row's head and one at each of its words up to the right one; nothing is allocated but the list.

use super::membership::Room;
use super::{ROOMS_BOUND, Rooms};
use dunlin_server::{ConnId, Sessions};
use dunlin_table::HintIndex;
use std::collections::HashSet;
use std::sync::atomic::Ordering;

/// A session that is in a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    /// Its connection.
    pub(crate) conn: ConnId,
    /// The hash of its user.
    pub(crate) user: u64,
}

/// A part of a room's members: a session for each user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MembersPage {
    /// In the order of their rows.
    pub(crate) members: Vec<Member>,
    /// Where the next part begins; `None`: there is none.
    pub(crate) next: Option<u32>,
}

/// How many are in a room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RoomFigures {
    /// Its name.
    pub(crate) name: String,
    /// Users that are in it.
    pub(crate) users: usize,
    /// Sessions that are in it.
    pub(crate) sessions: usize,
}

/// A part of all rooms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RoomsPage {
    /// In the order of their rows.
    pub(crate) rooms: Vec<RoomFigures>,
    /// Where the next part begins; `None`: there is none.
    pub(crate) next: Option<u32>,
}

impl Rooms {
    /// The sessions that are in a room, in the order of their rows, each once.
    pub(crate) fn members(&self, sessions: &Sessions, room: Room) -> Vec<Member> {
        let mut members: Vec<Member> = Vec::new();
        self.hints.find(self.hash(room), &mut |row_index| {
            let Some(conn) = sessions.established_at(row_index) else { return };
            if !self.is_member(sessions, conn, room) {
                return;
            }
            let user = sessions.counter(conn, self.user);
            let user = user.map_or(0, |word| word.load(Ordering::Relaxed));
            members.push(Member { conn, user });
        });
        members.sort_unstable_by_key(|member| member.conn.row().index);
        members.dedup_by_key(|member| member.conn.row().index);
        members
    }

    /// Whether a session that is in any room is of the user of this hash.
    pub(crate) fn is_user(&self, sessions: &Sessions, conn: ConnId, user: u64) -> bool {
        let word = sessions.counter(conn, self.user);
        word.is_some_and(|word| word.load(Ordering::Relaxed) == user)
    }

    /// A part of the members of a room, from a row on, each user once.
    pub(crate) fn members_page(
        &self,
        sessions: &Sessions,
        room: Room,
        from: u32,
        most: usize,
    ) -> MembersPage {
        page(&self.members(sessions, room), from, most)
    }

    /// A part of the rooms, from a row on: those that somebody is in.
    pub(crate) fn rooms_page(&self, sessions: &Sessions, from: u32, most: usize) -> RoomsPage {
        let mut rooms = Vec::new();
        for index in from..self.names.capacity() {
            let Some(room) = self.names.rows().at(index).map(Room) else { continue };
            if rooms.len() == most {
                return RoomsPage { rooms, next: Some(index) };
            }
            let members = self.members(sessions, room);
            if let Some(name) = self.name(room).filter(|_| !members.is_empty()) {
                let (users, sessions) = (count_users(&members), members.len());
                rooms.push(RoomFigures { name, users, sessions });
            }
        }
        RoomsPage { rooms, next: None }
    }

    /// How many hints there are for a room: about as many as it has members, and cheaper.
    pub(crate) fn hinted(&self, room: Room) -> usize {
        let mut hinted = 0;
        self.hints.find(self.hash(room), &mut |_| hinted += 1);
        hinted
    }

    /// Rooms that there are.
    pub(crate) fn used(&self) -> u32 {
        self.names.count()
    }

    /// Rooms that there may be, and memberships.
    pub(crate) fn capacity(&self) -> (u32, u32) {
        (self.sizes.rooms, self.sizes.members)
    }

    /// How many memberships there are, by a look at every session.
    pub(crate) fn count_memberships(&self, sessions: &Sessions) -> usize {
        let of = |conn| self.rooms_of(sessions, conn).count();
        sessions.established().map(of).sum()
    }

    /// Whether as many are in a room as may be.
    pub(super) fn is_full(&self, sessions: &Sessions, room: Room, most: usize) -> bool {
        // Hints are never fewer than members.
        self.hinted(room) >= most && self.members(sessions, room).len() >= most
    }

    /// Whether anybody is in a room, or on the way in.
    pub(super) fn has_anybody(&self, sessions: &Sessions, room: Room) -> bool {
        let mut anybody = false;
        self.hints.find(self.hash(room), &mut |row_index| {
            anybody = anybody
                || sessions
                    .established_at(row_index)
                    .is_some_and(|conn| self.is_coming(sessions, conn, room));
        });
        anybody
    }

    /// The rows of the hints that name no row in their room.
    #[cfg(test)]
    pub(crate) fn stale_hints(&self, sessions: &Sessions) -> Vec<u32> {
        let mut stale = Vec::new();
        self.hints.each(&mut |tag, row_index| {
            if !self.is_hinted(sessions, tag, row_index) {
                stale.push(row_index);
            }
        });
        stale
    }

    /// Whether a hint stands rightly in the index, in whatever phase its session is.
    pub(super) fn is_hinted(&self, sessions: &Sessions, tag: u32, row_index: u32) -> bool {
        let Some(conn) = sessions.at(row_index) else { return false };
        (0..ROOMS_BOUND).any(|place| {
            let room = self.membership(sessions, conn, place).room();
            room.is_some_and(|room| HintIndex::tag(self.hash(room)) == tag)
        })
    }
}

/// How many users these sessions are of.
pub(crate) fn count_users(members: &[Member]) -> usize {
    let mut users: Vec<u64> = members.iter().map(|member| member.user).collect();
    users.sort_unstable();
    users.dedup();
    users.len()
}

/// The members from a row on, of each user the session in the lowest row of all.
fn page(members: &[Member], from: u32, most: usize) -> MembersPage {
    let mut seen = HashSet::with_capacity(members.len());
    let mut page = MembersPage { members: Vec::new(), next: None };
    for member in members {
        let row_index = member.conn.row().index;
        if !seen.insert(member.user) || row_index < from {
            continue;
        }
        if page.members.len() == most {
            page.next = Some(row_index);
            break;
        }
        page.members.push(*member);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_table::RowId;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn member(index: u32, user: u64) -> Member {
        let row = RowId { index, generation: 1 };
        Member { conn: ConnId::from_row(row), user }
    }

    proptest! {
        #[test]
        fn pages_together_have_every_user_once(
            users in prop::collection::vec((any::<bool>(), 0..30_u64), 0..80), most in 1..9_usize,
        ) {
            let members: Vec<Member> = (0..)
                .zip(&users)
                .filter(|(_, (there, _))| *there)
                .map(|(index, (_, user))| member(index, *user))
                .collect();
            let (mut from, mut found) = (Some(0), Vec::new());
            while let Some(at) = from {
                let part = page(&members, at, most);
                prop_assert!(part.members.len() <= most);
                prop_assert!(part.next.is_none() || part.members.len() == most);
                found.extend(part.members.iter().map(|member| member.user));
                from = part.next;
            }
            let all: BTreeSet<u64> = members.iter().map(|member| member.user).collect();
            prop_assert_eq!(found.len(), all.len());
            prop_assert_eq!(count_users(&members), all.len());
            prop_assert_eq!(found.into_iter().collect::<BTreeSet<u64>>(), all);
        }
    }
}
