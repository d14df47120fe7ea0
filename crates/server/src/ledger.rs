//! The ledger: one shared word per descriptor number that says what it is and whose.
//!
//! Master and workers share one descriptor table, so a dead worker's descriptors stay open. The word
//! is written right after each open and cleared right before each close; after a death the master
//! closes what was private to the dead. Knows nothing of what the descriptors carry.
//! Invariants: 1. A number with an entry is open, or is about to be closed by the one who clears it.
//! 2. Entries of a dead process are settled (closed or handed on) before its successor commits.

use crate::ids::Generation;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a descriptor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DescriptorKind {
    /// The master's own: status, control socket, listeners, mailboxes, process handles.
    Master,
    /// Private to one worker: its epoll, its end of the pipe, its signal pipe.
    Private,
    /// A connection that has no row in the session table yet: plain HTTP or a handshake.
    Handshaking,
    /// A connection with a row in the session table.
    Session,
    /// A memfd with what a worker at rest left to its successor.
    Rest,
    /// A memfd with mail that waits for full mailboxes: whoever serves its sender's slot next sends it.
    Spill,
}

impl DescriptorKind {
    fn code(self) -> u64 {
        match self {
            Self::Master => 1,
            Self::Private => 2,
            Self::Handshaking => 3,
            Self::Session => 4,
            Self::Rest => 5,
            Self::Spill => 6,
        }
    }

    fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    const ALL: [Self; 6] =
        [Self::Master, Self::Private, Self::Handshaking, Self::Session, Self::Rest, Self::Spill];

    /// Every kind with its code, by which two programs agree on them.
    pub(crate) fn codes() -> [(Self, u64); 6] {
        Self::ALL.map(|kind| (kind, kind.code()))
    }
}

/// Who holds a descriptor: a worker slot in one generation, or the master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The slot; [`Holder::MASTER`]'s is none of the workers'.
    pub slot: u16,
    /// The life of the slot.
    pub generation: Generation,
}

impl Holder {
    /// The master.
    pub const MASTER: Self = Self { slot: u16::MAX, generation: Generation(0) };
}

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: DescriptorKind,
    /// Whose it is.
    pub holder: Holder,
}

/// The shared words, one per descriptor number.
#[derive(Clone, Copy, Debug)]
pub struct Ledger {
    words: &'static [AtomicU64],
}

impl Ledger {
    /// A ledger over one word per descriptor number, from 0.
    #[must_use]
    pub fn new(words: &'static [AtomicU64]) -> Self {
        Self { words }
    }

    /// Notes a descriptor that was just opened, or that changed its kind or holder.
    pub fn note(&self, descriptor: RawFd, kind: DescriptorKind, holder: Holder) {
        if let Some(word) = self.word(descriptor) {
            let value =
                kind.code() << 56 | u64::from(holder.slot) << 32 | u64::from(holder.generation.0);
            // Release: whoever reads the entry after a death sees what was written before it.
            word.store(value, Ordering::Release);
        }
    }

    /// Forgets a descriptor that is about to be closed.
    pub fn clear(&self, descriptor: RawFd) {
        if let Some(word) = self.word(descriptor) {
            word.store(0, Ordering::Release);
        }
    }

    /// What is noted of a descriptor.
    #[must_use]
    pub fn entry(&self, descriptor: RawFd) -> Option<Entry> {
        let value = self.word(descriptor)?.load(Ordering::Acquire);
        let kind = DescriptorKind::from_code(value >> 56)?;
        let slot = u16::try_from(value >> 32 & 0xffff).ok()?;
        let generation = Generation(u32::try_from(value & 0xffff_ffff).ok()?);
        Some(Entry { kind, holder: Holder { slot, generation } })
    }

    /// All noted descriptors of a holder.
    pub fn held_by(&self, holder: Holder) -> impl Iterator<Item = (RawFd, DescriptorKind)> + '_ {
        (0..self.words.len()).filter_map(move |index| {
            let descriptor = RawFd::try_from(index).ok()?;
            let entry = self.entry(descriptor)?;
            (entry.holder == holder).then_some((descriptor, entry.kind))
        })
    }

    /// How many descriptor numbers the ledger covers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether it covers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    fn word(&self, descriptor: RawFd) -> Option<&'static AtomicU64> {
        self.words.get(usize::try_from(descriptor).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(numbers: usize) -> Ledger {
        Ledger::new(Box::leak((0..numbers).map(|_| AtomicU64::new(0)).collect()))
    }

    #[test]
    fn what_was_noted_is_found_until_it_is_cleared() {
        let ledger = ledger(16);
        let holder = Holder { slot: 3, generation: Generation(9) };
        ledger.note(7, DescriptorKind::Session, holder);
        ledger.note(8, DescriptorKind::Private, Holder::MASTER);
        assert_eq!(ledger.entry(7), Some(Entry { kind: DescriptorKind::Session, holder }));
        assert_eq!(ledger.held_by(holder).collect::<Vec<_>>(), [(7, DescriptorKind::Session)]);
        ledger.clear(7);
        assert_eq!(ledger.entry(7), None);
        assert_eq!(ledger.held_by(holder).count(), 0);
    }

    #[test]
    fn numbers_it_does_not_cover_are_ignored() {
        let ledger = ledger(4);
        ledger.note(-1, DescriptorKind::Session, Holder::MASTER);
        ledger.note(99, DescriptorKind::Session, Holder::MASTER);
        assert_eq!(ledger.entry(99), None);
    }
}
