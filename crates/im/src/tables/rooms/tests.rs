//! Rooms as they lie in shared memory.

use super::*;
use crate::app::ImApp;
use crate::config::IM_KEYS;
use dunlin_server::config::SERVER_KEYS;
use dunlin_server::settings::Layers;
use dunlin_server::simulation::FakeWorker;

/// A server with so many open connections.
pub(super) struct House {
    app: ImApp,
    worker: FakeWorker,
    pub(super) conns: Vec<ConnId>,
}

impl House {
    pub(super) fn new(connections: u32, words: &[(&'static str, &str)]) -> Self {
        let capacity = connections.to_string();
        let mut layers = Layers::default();
        layers.flag_words("table.max_sessions", &capacity, "--set");
        for (key, word) in words {
            layers.flag_words(key, word, "--set");
        }
        let settings = Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers).unwrap();
        let mut app = ImApp::new(&settings).unwrap();
        let mut worker = FakeWorker::start(&mut app, connections);
        let peer = "127.0.0.1:1".parse().unwrap();
        let conns = (0..connections).map(|_| worker.open(&mut app, peer, "/ws")).collect();
        Self { app, worker, conns }
    }

    pub(super) fn rooms(&self) -> &Rooms {
        &self.app.tables().rooms
    }

    pub(super) fn sessions(&self) -> &Sessions {
        self.worker.table()
    }

    /// A session of this number enters; its user is its number.
    fn enter(&self, number: usize, name: &str) -> Result<Room, JoinError> {
        let join = Join {
            conn: self.conns[number],
            user: number as u64,
            has_other: &|_| false,
            limits: Limits { rooms: ROOMS_BOUND, members: 100 },
            unix_ms: 1_000_000,
        };
        self.rooms().enter(self.sessions(), name, &join).map(|newcomer| newcomer.room)
    }

    fn leave(&self, number: usize, room: Room) {
        let conn = self.conns[number];
        let leaving = self.rooms().begin_leaving(self.sessions(), conn, room).unwrap();
        self.rooms().end_leaving(self.sessions(), conn, leaving);
    }
}

#[test]
fn rooms_come_in_parts() {
    let house = House::new(8, &[]);
    for (number, name) in [(0, "a"), (1, "a"), (0, "b"), (2, "c"), (3, "d"), (4, "e")] {
        house.enter(number, name).unwrap();
    }
    house.leave(3, house.rooms().find("d").unwrap());
    let (mut from, mut found) = (Some(0), Vec::new());
    while let Some(at) = from {
        let part = house.rooms().rooms_page(house.sessions(), at, 2);
        found.extend(part.rooms.into_iter().map(|room| (room.name, room.users, room.sessions)));
        from = part.next;
    }
    found.sort();
    let expected = [("a", 2, 2), ("b", 1, 1), ("c", 1, 1), ("e", 1, 1)];
    assert_eq!(found, expected.map(|(name, users, sessions)| (name.to_owned(), users, sessions)));
}

/// As where a maker died before it entered, and where somebody died while he looked whether a room is empty.
#[test]
fn rooms_that_nobody_is_in_are_swept_when_names_run_out() {
    let house = House::new(4, &[("table.rooms", "3")]);
    let kept = house.enter(0, "kept").unwrap();
    for name in ["made", "looked at"] {
        house.rooms().find_or_make(house.sessions(), name, 0).unwrap();
    }
    let looked_at = house.rooms().find("looked at").unwrap();
    house.rooms().life(looked_at).store(7, Ordering::Relaxed);
    house.rooms().life(kept).store(8, Ordering::Relaxed);
    assert_eq!(house.rooms().used(), 3);
    let new = house.enter(1, "new").unwrap();
    assert_eq!(house.rooms().used(), 2);
    assert_eq!(house.rooms().name(new).as_deref(), Some("new"));
    assert!(house.rooms().is_member(house.sessions(), house.conns[0], kept));
    assert_eq!(house.rooms().find("kept"), Some(kept));
}

#[test]
fn a_room_that_died_is_made_anew_by_who_meets_it() {
    let house = House::new(4, &[]);
    let room = house.rooms().find_or_make(house.sessions(), "tea", 0).unwrap();
    house.rooms().life(room).store(u64::MAX, Ordering::Relaxed);
    let next = house.enter(0, "tea").unwrap();
    assert_ne!(next, room);
    assert_eq!(house.rooms().members(house.sessions(), next).len(), 1);
    // Who knows the old handle changes nothing.
    house.rooms().reclaim(house.sessions(), room);
    assert_eq!(house.rooms().find("tea"), Some(next));
}

#[test]
fn stale_hints_are_swept_where_room_is_needed() {
    let house = House::new(4, &[("table.room_members", "1")]);
    let room = house.rooms().find_or_make(house.sessions(), "tea", 0).unwrap();
    let hash = house.rooms().hash(room);
    for row_index in 0..128 {
        house.rooms().hints.insert(hash ^ (u64::from(row_index) << 33), row_index).unwrap();
    }
    assert_eq!(house.enter(0, "tea"), Ok(room));
    assert_eq!(house.rooms().members(house.sessions(), room).len(), 1);
}
