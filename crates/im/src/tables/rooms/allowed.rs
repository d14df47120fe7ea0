//! Which rooms a session may join, where its token says so.
//!
//! Knows hashes of names: a name that has the hash of an allowed one would be allowed, too, and with a seed
//! that nobody knows nobody finds one. Words of the session's row, written by the worker that serves it; a
//! session of which the first word is 0 may join any room.

use super::{ROOMS_BOUND, Rooms};
use dunlin_server::{ConnId, Sessions};
use dunlin_table::hash_key;
use std::sync::atomic::Ordering;

/// In the first word where no room is allowed: no name has this hash.
const NONE_ALLOWED: u64 = 1;

impl Rooms {
    /// From now on a session may join these rooms and no other; any with `None`.
    pub(crate) fn set_allowed<'n>(
        &self,
        sessions: &Sessions,
        conn: ConnId,
        names: Option<impl Iterator<Item = &'n str>>,
    ) {
        let mut hashes = [0; ROOMS_BOUND];
        if let Some(names) = names {
            hashes[0] = NONE_ALLOWED;
            for (place, name) in hashes.iter_mut().zip(names) {
                *place = self.name_hash(name);
            }
        }
        for (column, hash) in self.allowed.iter().zip(hashes) {
            if let Some(word) = sessions.counter(conn, *column) {
                word.store(hash, Ordering::Relaxed);
            }
        }
    }

    /// Whether a session may join a room.
    pub(crate) fn is_allowed(&self, sessions: &Sessions, conn: ConnId, name: &str) -> bool {
        let mut words = self.allowed.iter().map(|column| {
            sessions
                .counter(conn, *column)
                .map_or(NONE_ALLOWED, |word| word.load(Ordering::Relaxed))
        });
        match words.next() {
            Some(0) => true,
            first => {
                let hash = self.name_hash(name);
                first == Some(hash) || words.any(|allowed| allowed == hash)
            }
        }
    }

    fn name_hash(&self, name: &str) -> u64 {
        hash_key(name.as_bytes(), self.seed).max(NONE_ALLOWED + 1)
    }
}
