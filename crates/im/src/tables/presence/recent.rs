//! Which users' changes were told a short time ago, or are to be told, and by whom: what a worker's
//! successor looks after, since what the dead had packed in its last turn is lost.
//!
//! A ring of [`RECORDS`] records that all workers write. Invariants: 1. A record counts only while its stamp is
//! not 0; the stamp is written last and taken away first. 2. A record may be wrong (two writers that met
//! in it after a whole round of the ring): then it names a user of whom nothing is to be told, and the
//! state that is told is read anew in any case.
//!
//! Bound: of more than [`RECORDS`] changes of users that are watched, within one turn of all workers, the
//! oldest are not told again.

use crate::ids::{NAME_MAX, check_name};
use dunlin_server::clock::Millis;
use dunlin_server::{AreaRequest, Areas, SlotId, packed};
use std::cmp::Reverse;
use std::sync::atomic::{AtomicU64, Ordering, fence};

const AREA: &str = "im.presence_recent";

/// Records of the ring.
pub(crate) const RECORDS: usize = 2_048;

const STAMP: usize = 0;
const LIFE: usize = 1;
const SLOT: usize = 2;
const TOLD: usize = 3;
const LENGTH: usize = 4;
const NAME: usize = 5;
const RECORD_WORDS: usize = NAME + NAME_MAX / 8;

/// A process that tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Teller {
    /// Its slot.
    pub(crate) slot: SlotId,
    /// Which of the processes that were in it.
    pub(crate) life: u64,
}

/// A change that a process which is gone was telling, or had told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RecentChange {
    /// In which turn of its worker.
    pub(crate) at: Millis,
    /// Of whom.
    pub(crate) user: String,
    /// Whether it was told, or only about to happen.
    pub(crate) told: bool,
}

/// Handles on the ring.
#[derive(Clone, Debug)]
pub(crate) struct RecentChanges {
    cursor: &'static AtomicU64,
    records: &'static [AtomicU64],
}

impl RecentChanges {
    pub(super) fn area() -> AreaRequest {
        AreaRequest { name: AREA, words: 1 + RECORDS * RECORD_WORDS }
    }

    pub(super) fn new(areas: &Areas) -> Self {
        let words = areas.words(AREA).expect("the server makes what `areas` asks for");
        let (cursor, records) = words.split_first().expect("there is a cursor and a ring");
        Self { cursor, records }
    }

    /// A process is about to tell of a user, or to change his state. Costs a dozen stores.
    pub(crate) fn note(&self, teller: Teller, user: &str, now: Millis, told: bool) {
        let turn = self.cursor.fetch_add(1, Ordering::Relaxed) % RECORDS as u64;
        let start = usize::try_from(turn).unwrap_or(0) * RECORD_WORDS;
        let record = &self.records[start..start + RECORD_WORDS];
        record[STAMP].store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        record[LIFE].store(teller.life, Ordering::Relaxed);
        record[SLOT].store(u64::from(teller.slot.0), Ordering::Relaxed);
        record[TOLD].store(u64::from(told), Ordering::Relaxed);
        record[LENGTH].store(user.len() as u64, Ordering::Relaxed);
        packed::store(&record[NAME..], user.as_bytes());
        record[STAMP].store(now.0.max(1), Ordering::Release);
    }

    /// Takes out what other processes of a slot than this one noted, and gives what they noted last and so
    /// long before: each user once, with his last change.
    pub(crate) fn take_of_the_dead(&self, heir: Teller, window_ms: u64) -> Vec<RecentChange> {
        let mut changes = self.take(|teller| teller.slot == heir.slot && teller.life != heir.life);
        let newest = changes.iter().map(|change| change.at).max().unwrap_or_default();
        changes.retain(|change| newest.since(change.at) <= window_ms);
        let latest = |change: &RecentChange| Reverse((change.at, change.told));
        changes.sort_unstable_by(|a, b| a.user.cmp(&b.user).then(latest(a).cmp(&latest(b))));
        changes.dedup_by(|later, kept| later.user == kept.user);
        changes
    }

    /// A process ends in good order: what it had packed goes its way.
    pub(crate) fn settle(&self, teller: Teller) {
        self.take(|writer| writer == teller);
    }

    fn take(&self, mut wanted: impl FnMut(Teller) -> bool) -> Vec<RecentChange> {
        let take = |record: &[AtomicU64]| {
            let stamp = record[STAMP].load(Ordering::Acquire);
            let slot = u16::try_from(record[SLOT].load(Ordering::Relaxed)).ok()?;
            let life = record[LIFE].load(Ordering::Relaxed);
            if stamp == 0 || !wanted(Teller { slot: SlotId(slot), life }) {
                return None;
            }
            let (user, told) = (read_name(record), record[TOLD].load(Ordering::Relaxed) != 0);
            fence(Ordering::Acquire);
            let taken =
                record[STAMP].compare_exchange(stamp, 0, Ordering::AcqRel, Ordering::Relaxed);
            taken.ok().and(user).map(|user| RecentChange { at: Millis(stamp), user, told })
        };
        self.records.chunks_exact(RECORD_WORDS).filter_map(take).collect()
    }
}

fn read_name(record: &[AtomicU64]) -> Option<String> {
    let length = usize::try_from(record[LENGTH].load(Ordering::Relaxed)).ok()?;
    let bytes = packed::load(&record[NAME..], length.min(NAME_MAX));
    String::from_utf8(bytes).ok().filter(|name| check_name(name).is_ok())
}
