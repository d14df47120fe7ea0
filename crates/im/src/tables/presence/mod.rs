//! What presence keeps in shared memory: who watches whom, versions, when users were last seen, which
//! changes are being told, and what is counted.
//!
//! Knows users by their hash under the shared seed (64 bits: two users with one hash are taken for one,
//! which nobody can bring about without the seed). Invariant: of two versions the one drawn later, in
//! whichever process, is larger, and who draws it sees all that was written before the earlier was drawn.

mod last_seen;
mod recent;
mod watches;

pub(crate) use self::last_seen::LastSeen;
pub(crate) use self::recent::{RecentChanges, Teller};
pub(crate) use self::watches::{WATCHES_MAX, Watch, WatchTableFull, Watcher, Watches};
use dunlin_server::{AreaRequest, Areas, Sessions};
use dunlin_table::Column;
use serde_json::{Value as Json, json};
use std::sync::atomic::{AtomicU64, Ordering};

const VERSION_AREA: &str = "im.presence_version";
const COUNTS_AREA: &str = "im.presence_counts";
const LIVES_AREA: &str = "im.presence_lives";

/// Versions that fit one millisecond; more borrow from the next. With it a version stays below 2^53, which
/// every reader of JSON reads exactly, until the year 2248.
const VERSIONS_PER_MS: u64 = 1_000;

/// What is counted of presence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PresenceCount {
    /// Notifications that went to a watcher.
    Told,
    /// Notifications that no mailbox took.
    Refused,
    /// Times no timer was left, so that something was told at once, or not again.
    NoTimer,
    /// Changes told again for a worker that had died.
    Healed,
    /// Watches refused because the table was full.
    TableFull,
}

const COUNTS: usize = 5;

/// How much there is to be room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PresenceSizes {
    /// `table.watches`.
    pub(crate) watches: u32,
    /// `table.last_seen`.
    pub(crate) last_seen: u32,
}

/// Handles on all of it.
#[derive(Clone, Debug)]
pub(crate) struct PresenceTables {
    /// Who watches whom.
    pub(crate) watches: Watches,
    /// When users were last seen.
    pub(crate) last_seen: LastSeen,
    /// Changes that were told a short time ago.
    pub(crate) recent: RecentChanges,
    version: &'static AtomicU64,
    counts: &'static [AtomicU64],
    lives: &'static AtomicU64,
}

impl PresenceTables {
    /// The columns it adds to the session table.
    pub(crate) fn columns() -> Vec<Column> {
        Watches::columns()
    }

    /// The areas it asks for.
    pub(crate) fn areas(sizes: PresenceSizes) -> Vec<AreaRequest> {
        let mut areas = Watches::areas(sizes.watches);
        areas.push(LastSeen::area(sizes.last_seen));
        areas.push(RecentChanges::area());
        areas.extend([
            AreaRequest { name: VERSION_AREA, words: 1 },
            AreaRequest { name: COUNTS_AREA, words: COUNTS },
            AreaRequest { name: LIVES_AREA, words: 1 },
        ]);
        areas
    }

    /// Finds everything by name.
    ///
    /// # Panics
    /// When the memory was not made from [`PresenceTables::columns`] and [`PresenceTables::areas`].
    pub(crate) fn new(sessions: &Sessions, areas: &Areas, sizes: PresenceSizes) -> Self {
        let asked = "the server makes what `areas` asks for";
        let word = |name| areas.words(name).and_then(|words| words.first()).expect(asked);
        Self {
            watches: Watches::new(sessions, areas, sizes.watches),
            last_seen: LastSeen::new(areas),
            recent: RecentChanges::new(areas),
            version: word(VERSION_AREA),
            counts: areas.words(COUNTS_AREA).expect(asked),
            lives: word(LIVES_AREA),
        }
    }

    /// The next version. What is read afterwards may be told under it.
    pub(crate) fn draw_version(&self, unix_ms: u64) -> u64 {
        let at_least = unix_ms.saturating_mul(VERSIONS_PER_MS);
        let next = |last: u64| Some(last.saturating_add(1).max(at_least));
        // Acquire and release: who draws the later of two versions sees what the other's drawer had written.
        let drawn = self.version.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        drawn.ok().and_then(next).unwrap_or(at_least)
    }

    /// A number for a life of a process, which no other has.
    pub(crate) fn begin_life(&self) -> u64 {
        self.lives.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts some more.
    pub(crate) fn count(&self, what: PresenceCount, more: usize) {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        self.counts[what as usize].fetch_add(more, Ordering::Relaxed);
    }

    /// `presence` of the status, by a scan of both tables.
    pub(crate) fn status(&self) -> Json {
        let counted = |what: PresenceCount| self.counts[what as usize].load(Ordering::Relaxed);
        json!({
            "watches": self.watches.count(),
            "watches_capacity": self.watches.capacity(),
            "watches_refused": counted(PresenceCount::TableFull),
            "told": counted(PresenceCount::Told),
            "untold": counted(PresenceCount::Refused),
            "without_timer": counted(PresenceCount::NoTimer),
            "healed": counted(PresenceCount::Healed),
            "last_seen": self.last_seen.count(),
            "last_seen_capacity": self.last_seen.capacity(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::IM_KEYS;
    use crate::{ImApp, tables::Tables};
    use dunlin_server::config::SERVER_KEYS;
    use dunlin_server::settings::{Layers, Settings};
    use dunlin_server::simulation::FakeWorker;

    /// Handles of a server with these settings, and a worker of it.
    pub(super) fn tables(words: &[(&'static str, &str)]) -> (ImApp, FakeWorker, Tables) {
        let mut layers = Layers::default();
        for (key, word) in words {
            layers.flag_words(key, word, "--set");
        }
        let settings = Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers).unwrap();
        let mut app = ImApp::new(&settings).unwrap();
        let worker = FakeWorker::start(&mut app, 64);
        let tables = app.tables().clone();
        (app, worker, tables)
    }

    #[test]
    fn versions_follow_the_clock_but_never_back_and_json_holds_them() {
        let (_, _, tables) = tables(&[]);
        let presence = tables.presence;
        let first = presence.draw_version(1_800_000_000_000);
        assert_eq!(first, 1_800_000_000_000_000);
        assert_eq!(presence.draw_version(1_700_000_000_000), first + 1);
        assert_eq!(presence.draw_version(1_800_000_000_001), first + 1_000);
        let in_2248 = presence.draw_version(8_789_000_000_000);
        assert!(in_2248 < 1 << 53, "{in_2248}");
        presence.draw_version(u64::MAX);
        assert_eq!(presence.draw_version(1), u64::MAX, "at the end of all times it stands still");
    }
}
