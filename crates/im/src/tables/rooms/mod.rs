//! Rooms and who is in them, in shared memory alone: no worker keeps anything of it.
//!
//! Three structures. *Words* of a session's row, [`ROOMS_BOUND`] of them: the rooms it is in, each with a
//! stage ([`membership`]), written by the worker that serves it and by nobody else; they are the truth.
//! *Hints* from a room to rows: where to look; each is verified against the row. *Names*: a table row for
//! each room, found by its name, whose handle ([`Room`]) is what the words hold.
//!
//! Knows rows and users by a hash; sends nothing and decides nothing of who may come.
//!
//! Invariants: 1. A session is a member exactly while its connection is open and a word says *member* of
//! the room. 2. While a hint of a session is in the index, a word of the row names the room: on the way in
//! the word is written first, on the way out it is cleared last. So whoever closes the row, also after a
//! crash at any instruction, finds every room that it has to leave. 3. A room is live as long as it has a
//! member ([`life`]): the last one out frees it, and nobody waits for who died on the way.

mod allowed;
mod coming;
mod life;
mod looking;
mod membership;
mod news;

#[cfg(test)]
mod interleaving;
#[cfg(test)]
mod tests;

pub(crate) use coming::{Join, JoinError, Limits};
pub(crate) use looking::count_users;
pub(crate) use membership::Room;

use crate::ids::NAME_MAX;
use dunlin_server::settings::Settings;
use dunlin_server::{AreaRequest, Areas, ConnId, Sessions};
use dunlin_table::{
    Column, ColumnKind, CounterId, Schema, SetIndex, Table, WINDOW_CELLS, hash_key,
};
use membership::{Membership, Stage};
use std::sync::atomic::{AtomicU64, Ordering};

/// Most rooms that a session can be in, whatever `im.max_rooms` says: a column of the session table each.
pub(crate) const ROOMS_BOUND: usize = 16;

const NAMES_AREA: &str = "im.rooms";
const MEMBERS_AREA: &str = "im.room_members";
const WORDS_AREA: &str = "im.room_words";

/// Memberships there is room for, for each row of the session table, where `table.room_members` is 0.
const MEMBERS_PER_SESSION: u32 = 4;
/// Cells of the index for each membership: keys spread unevenly.
const CELLS_PER_MEMBER: u64 = 2;

/// Words of [`WORDS_AREA`]: the last inquiry, when names were last swept, and a count each.
const INQUIRY_WORD: usize = 0;
const SWEPT_WORD: usize = 1;
const COUNT_WORDS: usize = 2;

/// What is counted of rooms since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RoomCount {
    /// A `join` refused by `im.max_rooms`.
    TooManyRooms,
    /// A `join` refused by `im.max_room_members`.
    RoomFull,
    /// A `join` refused since all `table.rooms` are taken.
    NamesFull,
    /// A `join` refused since the index of members (`table.room_members`) has no cell for it.
    MembersFull,
}

const COUNTS: usize = 4;

/// How much there is to be room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoomSizes {
    /// `table.rooms`.
    rooms: u32,
    /// `table.room_members`.
    members: u32,
}

/// Where another process may come in between, for the test that tries every order.
#[cfg(not(test))]
const fn step() {}
#[cfg(test)]
use interleaving::step;

impl RoomSizes {
    /// As the settings say.
    pub(crate) fn from_settings(settings: &Settings) -> Self {
        let count = |key| u32::try_from(settings.count(key)).unwrap_or(u32::MAX);
        let members = match count("table.room_members") {
            0 => count("table.max_sessions").saturating_mul(MEMBERS_PER_SESSION),
            members => members,
        };
        Self { rooms: count("table.rooms"), members }
    }

    fn windows(&self) -> u32 {
        let cells = u64::from(self.members) * CELLS_PER_MEMBER;
        u32::try_from(cells.div_ceil(WINDOW_CELLS as u64)).unwrap_or(u32::MAX).saturating_add(1)
    }
}

/// The columns of the session table.
pub(super) fn columns() -> Vec<Column> {
    let counter = |name: String| Column { name, kind: ColumnKind::Counter };
    let mut columns: Vec<Column> =
        (0..ROOMS_BOUND).map(|place| counter(membership_column(place))).collect();
    columns.push(counter(USER_HASH.into()));
    columns.extend((0..ROOMS_BOUND).map(|place| counter(allowed_column(place))));
    columns
}

fn membership_column(place: usize) -> String {
    format!("im_room_{place}")
}

fn allowed_column(place: usize) -> String {
    format!("im_room_allowed_{place}")
}

const USER_HASH: &str = "im_room_user";

/// The areas of shared memory.
pub(super) fn areas(sizes: &RoomSizes) -> Vec<AreaRequest> {
    let planned = "the bounds of `table.rooms` and `table.room_members` are far below what can be \
                   addressed";
    let names = Table::words_needed(&schema().0, sizes.rooms).expect(planned);
    let members = SetIndex::words_needed(sizes.windows(), sizes.rooms).expect(planned);
    vec![
        AreaRequest { name: NAMES_AREA, words: names },
        AreaRequest { name: MEMBERS_AREA, words: members },
        AreaRequest { name: WORDS_AREA, words: COUNT_WORDS + COUNTS },
    ]
}

/// The schema of the names, with the counters that tell whether a room lives, and whether its members are to
/// be told something soon.
fn schema() -> (Schema, CounterId, CounterId) {
    let schema = Schema::builder().counter("life").counter("news").key_limit(NAME_MAX).build();
    let schema = schema.expect("two columns of different names make a schema");
    let counter = |name| schema.counter_column(name).expect("it was named above");
    (schema.clone(), counter("life"), counter("news"))
}

/// Handles on what is shared.
#[derive(Clone, Debug)]
pub(crate) struct Rooms {
    sizes: RoomSizes,
    memberships: [CounterId; ROOMS_BOUND],
    /// The hash of the user of a session that is in a room.
    user: CounterId,
    /// What a session may join, where its token says so.
    allowed: [CounterId; ROOMS_BOUND],
    names: Table,
    life: CounterId,
    news: CounterId,
    hints: SetIndex,
    words: &'static [AtomicU64],
    seed: u64,
}

impl Rooms {
    /// Finds everything by name.
    ///
    /// # Panics
    /// When the memory was not made from [`columns`] and [`areas`].
    pub(super) fn new(sessions: &Sessions, areas: &Areas, sizes: &RoomSizes, seed: u64) -> Self {
        let asked = "the server makes what `columns` and `areas` ask for";
        let column = |name: &str| sessions.counter_column(name).expect(asked);
        let area = |name| areas.words(name).expect(asked);
        let (schema, life, news) = schema();
        Self {
            sizes: *sizes,
            memberships: std::array::from_fn(|place| column(&membership_column(place))),
            user: column(USER_HASH),
            allowed: std::array::from_fn(|place| column(&allowed_column(place))),
            names: Table::new(schema, sizes.rooms, area(NAMES_AREA)).expect(asked),
            life,
            news,
            hints: SetIndex::new(sizes.windows(), sizes.rooms, area(MEMBERS_AREA)).expect(asked),
            words: area(WORDS_AREA),
            seed,
        }
    }

    /// The room of a name, if anybody is in it.
    pub(crate) fn find(&self, name: &str) -> Option<Room> {
        self.names.find(name).map(Room)
    }

    /// The name of a room; `None` if it is gone.
    pub(crate) fn name(&self, room: Room) -> Option<String> {
        let dunlin_table::OwnedKey::Bytes(name) = self.names.key(room.0)? else { return None };
        String::from_utf8(name).ok()
    }

    /// Counts one more.
    pub(crate) fn count(&self, what: RoomCount) {
        self.words[COUNT_WORDS + what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were counted since the start.
    pub(crate) fn counted(&self, what: RoomCount) -> u64 {
        self.words[COUNT_WORDS + what as usize].load(Ordering::Relaxed)
    }

    /// The word of a session at a place; `None` if its row is gone.
    fn word(&self, sessions: &Sessions, conn: ConnId, place: usize) -> Option<&'static AtomicU64> {
        sessions.counter(conn, self.memberships[place])
    }

    fn membership(&self, sessions: &Sessions, conn: ConnId, place: usize) -> Membership {
        // Acquire: whoever sees a membership sees the hash of its user, too.
        let word = self.word(sessions, conn, place);
        Membership(word.map_or(0, |word| word.load(Ordering::Acquire)))
    }

    /// In which stage a session is with a room, and where that stands.
    fn place_of(&self, sessions: &Sessions, conn: ConnId, room: Room) -> Option<(usize, Stage)> {
        (0..ROOMS_BOUND).find_map(|place| {
            let stage = self.membership(sessions, conn, place).stage_in(room)?;
            Some((place, stage))
        })
    }

    /// Of a room among the hints.
    fn hash(&self, room: Room) -> u64 {
        hash_key(&room.0.to_bits().to_ne_bytes(), self.seed)
    }
}
