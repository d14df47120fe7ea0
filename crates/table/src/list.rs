//! The rows of one bucket of a keyed table, as a list through the rows: Michael's lock-free list with
//! tags instead of hazard pointers, unordered, with insertion at the end only.
//!
//! Knows rows by index and state, keys by their words.
//!
//! Invariants: 1. A key is in a list at most once while its row is claiming or live: a row is linked
//! by swapping the very last link of the whole list that was just searched, so of two inserters of one
//! key the second finds the first. 2. A row that is linked is complete: whoever finds it still
//! claiming makes it live, so nobody waits for its maker. 3. A row is taken out only after its own link
//! is flagged, and a flagged link never changes again until the row is made anew: no insertion is
//! lost behind it. 4. A row becomes free only after a whole search of its list no longer saw it.
//! 5. Each change of a link raises its tag: what was read of a row counts only if the link that led to
//! it is still the same afterwards. 6. A search ends: one that meets more rows than there are is tried
//! once more, and then says that the list is broken.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use crate::key::{Key, key_words};
use crate::rows::{Entry, RowId, Rows};
use crate::sync::{AtomicU64, fence};
use crate::word::{Link, RowState, index_of};

/// How many more rows a search may meet than there are: some may be taken out and made anew ahead of it,
/// and of a deleted one each step is seen.
const STEPS_BEYOND_ROWS: u32 = 64;

/// Link and hash in front of the key.
const RECORD_HEADER_WORDS: usize = 2;

/// The buckets of a keyed table.
#[derive(Clone, Debug)]
pub(crate) struct Lists {
    /// A power of two of first links.
    firsts: &'static [AtomicU64],
}

/// Link, hash and key of one row, which lie behind its head and current word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    next: &'static AtomicU64,
    hash: &'static AtomicU64,
    pub(crate) key: &'static [AtomicU64],
}

#[derive(Debug)]
pub(crate) enum Sought {
    Found(RowId),
    /// The last link of the list, and what it was.
    Absent(&'static AtomicU64, Link),
    /// The list leads in a circle, which only a foreign write makes. Where it ends nobody knows.
    Broken,
}

impl Lists {
    /// One word each; there are more than rows, because a word costs little beside a row looked at in
    /// vain.
    pub(crate) fn bucket_count(capacity: u32) -> usize {
        // Models have one, so that all keys are neighbours whatever the seed.
        if cfg!(dunlin_loom) { 1 } else { (capacity as usize).next_power_of_two() * 2 }
    }

    /// `words` has at least [`Lists::bucket_count`] words.
    pub(crate) fn new(capacity: u32, words: &'static [AtomicU64]) -> Self {
        Self { firsts: &words[..Self::bucket_count(capacity)] }
    }

    /// Searches the list of `hash` for a row whose key words satisfy `matches`, taking out deleted
    /// rows on the way. The row found may be gone by the time the caller looks; ids tell.
    pub(crate) fn seek(
        &self,
        rows: &Rows,
        hash: u64,
        matches: impl Fn(u32, &[AtomicU64]) -> bool,
    ) -> Sought {
        let first = &self.firsts[index_of(hash) & (self.firsts.len() - 1)];
        let mut tried = false;
        'again: loop {
            let mut from = first;
            let mut link = Link(from.load(Acquire));
            let mut steps_left = rows.capacity().saturating_add(STEPS_BEYOND_ROWS);
            loop {
                let Some(row) = link.item() else { return Sought::Absent(from, link) };
                let Some(left) = steps_left.checked_sub(1) else {
                    // A row met twice may have been made anew ahead of us; not so many, and not again.
                    if std::mem::replace(&mut tried, true) {
                        return Sought::Broken;
                    }
                    continue 'again;
                };
                steps_left = left;
                let Some((entry, record)) = Record::of(rows, row) else {
                    return Sought::Absent(from, link); // no such row: a foreign write
                };
                let next = Link(record.next.load(Acquire));
                let matched = record.hash.load(Relaxed) == hash
                    && !next.flagged()
                    && matches(row, record.key);
                let head = entry.head();
                fence(Acquire);
                if from.load(Acquire) != link.0 {
                    continue 'again; // what was read may be of another life of the row
                }
                if next.flagged() {
                    let without = link.successor(next.item(), false);
                    match from.compare_exchange(link.0, without.0, AcqRel, Acquire) {
                        Ok(_) => link = without,
                        Err(_) => continue 'again,
                    }
                    continue;
                }
                if matched {
                    let id = RowId { index: row, generation: head.generation() };
                    match head.state() {
                        RowState::Live => return Sought::Found(id),
                        RowState::Claiming => {
                            rows.leave(id, RowState::Claiming, RowState::Live);
                            return Sought::Found(id);
                        }
                        RowState::Dead => {
                            record.flag(next);
                            continue; // the same row once more, now flagged
                        }
                        RowState::Free => {} // never while linked
                    }
                }
                from = record.next;
                link = next;
            }
        }
    }

    /// Gives a row that only the caller holds its key, ready to be linked.
    pub(crate) fn prepare(&self, rows: &Rows, id: RowId, hash: u64, key: Key<'_>) {
        let Some((_, record)) = Record::of(rows, id.index) else { return };
        // The fence of a claim, as for blocks: who reads these and an earlier life's link notices.
        fence(std::sync::atomic::Ordering::Release);
        record.hash.store(hash, Relaxed);
        key.store(record.key);
        // No late swap hits this store: a flagged link has none, and one that was never linked is
        // known to nobody.
        let next = Link(record.next.load(Relaxed)).successor(None, false);
        record.next.store(next.0, Relaxed);
    }

    /// Links a prepared row behind the end that a search found. False if the list changed there.
    pub(crate) fn link(&self, id: RowId, from: &AtomicU64, end: Link) -> bool {
        // Release: key and value are seen by whoever sees the link. The commit point of an insertion.
        let linked = end.successor(Some(id.index), false);
        from.compare_exchange(end.0, linked.0, AcqRel, Relaxed).is_ok()
    }

    /// Takes a dead row out of its list and frees it. Anybody may; only one gets `true`.
    pub(crate) fn bury(&self, rows: &Rows, id: RowId) -> bool {
        let Some((entry, record)) = Record::of(rows, id.index) else { return false };
        loop {
            let next = Link(record.next.load(Acquire));
            // After the load of the link: if the row is still this dead one, the link was its own, and
            // if it is made anew before our swap, its tag has moved.
            let head = entry.head();
            if head.generation() != id.generation || head.state() != RowState::Dead {
                return false;
            }
            if next.flagged() || record.flag(next) {
                break;
            }
        }
        let sought = self.seek(rows, record.hash.load(Relaxed), |_, _| false);
        // A search that did not see the end proves nothing.
        !matches!(sought, Sought::Broken) && rows.release(id, RowState::Dead)
    }

    /// Whether the row is, or may be, in the list of the hash it carries.
    pub(crate) fn is_linked(&self, rows: &Rows, index: u32) -> bool {
        let Some((_, record)) = Record::of(rows, index) else { return false };
        let hash = record.hash.load(Relaxed);
        !matches!(self.seek(rows, hash, |row, _| row == index), Sought::Absent(..))
    }
}

impl Record {
    /// What a row of a keyed table has.
    pub(crate) fn of(rows: &Rows, row: u32) -> Option<(Entry, Self)> {
        match rows.place(row)? {
            (entry, [next, hash, key @ ..]) => Some((entry, Self { next, hash, key })),
            _ => None,
        }
    }

    /// Flags the row as deleted in its own link.
    fn flag(self, next: Link) -> bool {
        let flagged = next.successor(next.item(), true);
        self.next.compare_exchange(next.0, flagged.0, AcqRel, Relaxed).is_ok()
    }
}

/// Words of a record.
pub(crate) fn record_words(key_limit: usize) -> usize {
    RECORD_HEADER_WORDS + key_words(key_limit)
}
