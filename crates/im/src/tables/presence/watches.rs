//! Who watches whom: entries in shared memory, found from the watched user by an index and from the
//! watching session by a list.
//!
//! An entry is five words: its owner (the watching connection, 0 for a free entry), the hash of the watched
//! user, the next entry of the same session, and what the watcher was last told: the version, and a print
//! of the state bound to that version. The session's first entry stands in a column of its row.
//!
//! Invariants: 1. An entry is claimed by one swap of its owner word, and only the worker that serves its owner
//! changes hash and list from then on. 2. Somebody else may take over only an entry whose owner has no
//! row any more: its `close` hook is over then, and nobody will free it. 3. A hint is put into the index
//! only for an established owner, and taken out before the owner word is freed; so whoever finds an
//! entry, and reads the same owner before and after its hash, has a true watcher. 4. `VERSION` only grows during an
//! entry's life. A version is drawn before entries are looked for, so a teller that comes to an entry of a
//! later life has a smaller one than anybody of that life, and keeps nothing from it.
//!
//! Who dies between two steps leaves, while its session is closed as lost: a claimed entry (taken over when
//! its row is gone), one in the list without a hint (freed by `close`), or one without a list and hint.
//!
//! What it costs: a look for the watchers of a user nobody watches is one window of the index, 64 words. An
//! entry is found after `1 / (share of free entries)` probes; where none is, the next search waits for
//! [`FULL_MS`] or for an entry that is freed.

use dunlin_server::clock::Millis;
use dunlin_server::{AreaRequest, Areas, ConnId, Sessions};
use dunlin_table::{Column, ColumnKind, CounterId, SetIndex};
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Most entries there can be: what an index of rows can name.
pub(crate) const WATCHES_MAX: u64 = 16_000_000;

const FIRST: &str = "im_watches";
const ENTRIES_AREA: &str = "im.watches";
const INDEX_AREA: &str = "im.watch_index";
const SEARCH_AREA: &str = "im.watch_search";

const OWNER: usize = 0;
const HASH: usize = 1;
const NEXT: usize = 2;
const VERSION: usize = 3;
const PRINT: usize = 4;
const ENTRY_WORDS: usize = 5;

/// In an owner word: the entry is being made. No connection's bits have it, since rows are fewer.
const CLAIMING: u64 = 1 << 31;

/// How long a search is not tried again that found no free entry.
const FULL_MS: u64 = 100;

/// No entry of the table is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("all entries of the table of watches are taken")]
pub(crate) struct WatchTableFull;

/// One watch of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Watch {
    /// Its entry.
    pub(crate) entry: u32,
    /// Whom it watches.
    pub(crate) hash: u64,
}

/// Somebody who watches a user.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Watcher {
    /// The entry that says so.
    pub(crate) entry: u32,
    /// Who.
    pub(crate) conn: ConnId,
}

/// Handles on the table.
#[derive(Clone, Debug)]
pub(crate) struct Watches {
    first: CounterId,
    entries: &'static [AtomicU64],
    index: SetIndex,
    /// Where the next search begins.
    next_search: &'static AtomicU64,
    /// Until when there is no use in one.
    full_until: &'static AtomicU64,
}

impl Watches {
    pub(super) fn columns() -> Vec<Column> {
        vec![Column { name: FIRST.into(), kind: ColumnKind::Counter }]
    }

    pub(super) fn areas(capacity: u32) -> Vec<AreaRequest> {
        let (windows, reaches) = index_size(capacity);
        let index = SetIndex::words_needed(windows, reaches);
        let index =
            index.expect("there is a window and a reach, and far fewer than can be addressed");
        vec![
            AreaRequest { name: ENTRIES_AREA, words: capacity as usize * ENTRY_WORDS },
            AreaRequest { name: INDEX_AREA, words: index },
            AreaRequest { name: SEARCH_AREA, words: 2 },
        ]
    }

    pub(super) fn new(sessions: &Sessions, areas: &Areas, capacity: u32) -> Self {
        let asked = "the server makes what `columns` and `areas` ask for";
        let (windows, reaches) = index_size(capacity);
        let index = areas.words(INDEX_AREA).expect(asked);
        let search = areas.words(SEARCH_AREA).expect(asked);
        Self {
            first: sessions.counter_column(FIRST).expect(asked),
            entries: areas.words(ENTRIES_AREA).expect(asked),
            index: SetIndex::new(windows, reaches, index).expect(asked),
            next_search: &search[0],
            full_until: &search[1],
        }
    }

    /// How many entries there are.
    pub(crate) fn capacity(&self) -> usize {
        self.entries.len() / ENTRY_WORDS
    }

    /// How many entries are taken, by a scan.
    pub(crate) fn count(&self) -> usize {
        let owners = self.entries.iter().step_by(ENTRY_WORDS);
        owners.filter(|owner| owner.load(Ordering::Relaxed) != 0).count()
    }

    /// What a session watches. Only for the worker that serves it.
    pub(crate) fn of_session(&self, sessions: &Sessions, conn: ConnId) -> Vec<Watch> {
        let mut watches = Vec::new();
        let mut next = self.first(sessions, conn);
        // As many steps as there are entries: only a foreign write makes a circle.
        while let Some(entry) = self.owned(next, conn)
            && watches.len() < self.capacity()
        {
            let words = self.words(entry);
            watches.push(Watch { entry, hash: words[HASH].load(Ordering::Relaxed) });
            next = words[NEXT].load(Ordering::Relaxed);
        }
        watches
    }

    /// Has a session watch a user it does not watch yet. Who changes the user's state after this has returned
    /// finds the watcher. Only for the worker that serves the session.
    ///
    /// # Errors
    /// [`WatchTableFull`]; nothing has changed.
    pub(crate) fn add(
        &self,
        sessions: &Sessions,
        conn: ConnId,
        hash: u64,
        now: Millis,
    ) -> Result<u32, WatchTableFull> {
        let entry = self.claim(sessions, conn, now)?;
        let words = self.words(entry);
        words[VERSION].store(0, Ordering::Relaxed);
        words[PRINT].store(0, Ordering::Relaxed);
        words[HASH].store(hash, Ordering::Relaxed);
        words[NEXT].store(self.first(sessions, conn), Ordering::Relaxed);
        self.set_first(sessions, conn, u64::from(entry) + 1);
        // Release: who reads the owner from now on reads this life's hash and version.
        words[OWNER].store(conn.to_bits(), Ordering::Release);
        if self.index.insert(hash, entry).is_err() {
            self.set_first(sessions, conn, words[NEXT].load(Ordering::Relaxed));
            words[OWNER].store(0, Ordering::Release);
            return Err(WatchTableFull);
        }
        // With the fence of `is_watched`: either whoever changes the state finds the hint, or we read the
        // changed state.
        fence(Ordering::SeqCst);
        Ok(entry)
    }

    /// Ends one watch of a session. Only for the worker that serves it.
    pub(crate) fn remove(&self, sessions: &Sessions, conn: ConnId, watch: Watch) {
        let words = self.words(watch.entry);
        self.index.remove(watch.hash, watch.entry);
        let place = u64::from(watch.entry) + 1;
        let next = words[NEXT].load(Ordering::Relaxed);
        if self.first(sessions, conn) == place {
            self.set_first(sessions, conn, next);
        } else {
            let all = self.of_session(sessions, conn);
            let before = all.iter().map(|known| &self.words(known.entry)[NEXT]);
            for link in before.filter(|link| link.load(Ordering::Relaxed) == place) {
                link.store(next, Ordering::Relaxed);
            }
        }
        self.free(watch.entry);
    }

    /// Ends all watches of a session: of one that is served by this worker, or lost with another.
    pub(crate) fn clear(&self, sessions: &Sessions, conn: ConnId) {
        for watch in self.of_session(sessions, conn) {
            self.index.remove(watch.hash, watch.entry);
            let next = self.words(watch.entry)[NEXT].load(Ordering::Relaxed);
            self.set_first(sessions, conn, next);
            self.free(watch.entry);
        }
    }

    /// Whether there may be somebody who watches a user. To be asked after a change of the user's state.
    pub(crate) fn is_watched(&self, hash: u64) -> bool {
        // See `add`.
        fence(Ordering::SeqCst);
        let mut found = false;
        self.index.find(hash, &mut |_| found = true);
        found
    }

    /// The established connections that watch a user.
    pub(crate) fn watchers(&self, sessions: &Sessions, hash: u64) -> Vec<Watcher> {
        let mut watchers = Vec::new();
        self.index.find(hash, &mut |entry| {
            let Some(words) = self.words_of(entry) else { return };
            let owner = words[OWNER].load(Ordering::Acquire);
            if owner == 0 || owner & CLAIMING != 0 {
                return;
            }
            let is_for = words[HASH].load(Ordering::Relaxed) == hash;
            fence(Ordering::Acquire);
            let conn = ConnId::from_bits(owner);
            if is_for
                && words[OWNER].load(Ordering::Relaxed) == owner
                && sessions.is_established(conn)
            {
                watchers.push(Watcher { entry, conn });
            }
        });
        // A hint may stand twice where somebody died over one.
        watchers.sort_unstable();
        watchers.dedup();
        watchers
    }

    /// Offers news to a watcher: a state by its print, under a version that was drawn before the
    /// watcher was looked for. True if he is to be told: not where he knows of newer news, and, unless they
    /// are to be told `again`, not where his last news were the same.
    pub(crate) fn offer(&self, entry: u32, version: u64, print: u64, again: bool) -> bool {
        let words = self.words(entry);
        let mut known = words[VERSION].load(Ordering::Acquire);
        loop {
            if known >= version {
                return false;
            }
            let same = words[PRINT].load(Ordering::Acquire) == bound(print, known);
            let taken = words[VERSION].compare_exchange(
                known,
                version,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match taken {
                Ok(_) => {
                    // Until this is there, and if we die before, the news after these are told in any case.
                    words[PRINT].store(bound(print, version), Ordering::Release);
                    return again || !same;
                }
                Err(newer) => known = newer,
            }
        }
    }

    /// What was told did not arrive: the next news are told even if they are the same.
    pub(crate) fn forget_told(&self, entry: u32) {
        self.words(entry)[PRINT].store(0, Ordering::Release);
    }

    fn claim(&self, sessions: &Sessions, conn: ConnId, now: Millis) -> Result<u32, WatchTableFull> {
        if now.0 < self.full_until.load(Ordering::Relaxed) {
            return Err(WatchTableFull);
        }
        let capacity = self.capacity();
        let start = self.next_search.fetch_add(1, Ordering::Relaxed);
        let start = usize::try_from(start % capacity.max(1) as u64).unwrap_or(0);
        for entry in (start..capacity).chain(0..start) {
            let words = &self.entries[entry * ENTRY_WORDS..(entry + 1) * ENTRY_WORDS];
            let owner = words[OWNER].load(Ordering::Acquire);
            if owner != 0 && sessions.phase(ConnId::from_bits(owner & !CLAIMING)).is_some() {
                continue;
            }
            let claimed = conn.to_bits() | CLAIMING;
            let swap =
                words[OWNER].compare_exchange(owner, claimed, Ordering::AcqRel, Ordering::Relaxed);
            let Ok(entry) = u32::try_from(entry) else { break };
            if swap.is_ok() {
                if owner != 0 {
                    // Whoever had it may have left its hint.
                    self.index.remove(words[HASH].load(Ordering::Relaxed), entry);
                }
                self.next_search.store(u64::from(entry) + 1, Ordering::Relaxed);
                return Ok(entry);
            }
        }
        self.full_until.store(now.0 + FULL_MS, Ordering::Relaxed);
        Err(WatchTableFull)
    }

    fn free(&self, entry: u32) {
        self.words(entry)[OWNER].store(0, Ordering::Release);
        self.full_until.store(0, Ordering::Relaxed);
    }

    /// The entry at a place of a session's list, if it is that session's.
    fn owned(&self, place: u64, conn: ConnId) -> Option<u32> {
        let entry = u32::try_from(place.checked_sub(1)?).ok()?;
        let owner = self.words_of(entry)?[OWNER].load(Ordering::Acquire);
        (owner & !CLAIMING == conn.to_bits()).then_some(entry)
    }

    fn first(&self, sessions: &Sessions, conn: ConnId) -> u64 {
        sessions.counter(conn, self.first).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn set_first(&self, sessions: &Sessions, conn: ConnId, place: u64) {
        if let Some(word) = sessions.counter(conn, self.first) {
            word.store(place, Ordering::Release);
        }
    }

    fn words(&self, entry: u32) -> &'static [AtomicU64] {
        self.words_of(entry).expect("entries are named by this table's own index and lists")
    }

    fn words_of(&self, entry: u32) -> Option<&'static [AtomicU64]> {
        let start = entry as usize * ENTRY_WORDS;
        self.entries.get(start..start + ENTRY_WORDS)
    }
}

/// A print as it is kept beside a version: one that was stored for another version is no print.
fn bound(print: u64, version: u64) -> u64 {
    print ^ version.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Windows and reaches of the index: two cells an entry, and a reach for every fourth, so that the sets
/// of users with few watchers are short.
fn index_size(capacity: u32) -> (u32, u32) {
    (capacity / 32 + 1, capacity / 4 + 1)
}
