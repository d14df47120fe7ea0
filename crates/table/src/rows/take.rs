//! How the row of a keyed table is deleted: its value is sealed, then its head moves to `Dead`.
//!
//! Two words have to agree, the head (is there a row) and the current word (what is its value), or a
//! write could slip in between the reading of a row and its deletion and be lost although both said
//! that they were done. So a deletion first makes the current word *vacant*, by a compare-and-swap with
//! the value it has read: that decides who deletes the row and with which value. A live row of a keyed
//! table is vacant for no other reason, since it is made complete before it is linked.
//!
//! Invariants: 1. A keyed row becomes dead only after its current word was made vacant in that life; who
//! made it so is the one who deleted it. 2. Nobody says that a row is gone before its head says so:
//! whoever meets a sealed row that is still live moves the head first. 3. Nobody waits for who sealed.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::{RowId, Rows};
use crate::sync::{AtomicU64, fence};
use crate::word::{Link, RowState};

/// How a deletion ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taking {
    /// This call, and no other, deleted the row. It is dead and still in its list.
    Done,
    /// The look at its value said no.
    Declined,
    /// It is gone.
    Gone,
}

impl Rows {
    /// Deletes the row of a keyed table if `look` at its words says so. `look` is called again when the
    /// row changed meanwhile; what it saw last is the value that was deleted.
    pub(crate) fn take(
        &self,
        id: RowId,
        mut look: impl FnMut(Option<&'static [AtomicU64]>) -> bool,
    ) -> Taking {
        let Some(entry) = self.entry(id.index) else { return Taking::Gone };
        loop {
            let current = entry.current();
            if !entry.head().is_live(id.generation) {
                return Taking::Gone;
            }
            let block = current.item().and_then(|number| self.blocks.block(number));
            let wanted = look(block.map(|block| block.payload));
            fence(Acquire);
            if entry.current.load(Relaxed) != current.0 {
                continue; // what was looked at may be torn
            }
            if self.is_sealed(current) {
                self.finish_taking(id);
                return Taking::Gone;
            }
            if !wanted {
                return Taking::Declined;
            }
            // The block stays the row's, and its debt with it. Writers that loaded the word before
            // fail from here on; those that load it now see that the row is going.
            let sealed = current.successor(current.item(), true);
            if entry.current.compare_exchange(current.0, sealed.0, AcqRel, Relaxed).is_ok() {
                self.leave(id, RowState::Live, RowState::Dead);
                return Taking::Done;
            }
        }
    }

    /// Whether a current word says that the deletion of its row is decided. It does so only if it was
    /// still the same after the row was found live: a row in the making is vacant too.
    pub(super) fn is_sealed(&self, current: Link) -> bool {
        self.is_keyed() && current.flagged()
    }

    /// Moves the head of a sealed row, for who sealed it and may have been stopped.
    pub(super) fn finish_taking(&self, id: RowId) {
        self.leave(id, RowState::Live, RowState::Dead);
    }

    /// The row at an index if it is dead: its head says so, or was made to say so because it was sealed.
    pub(crate) fn dead_at(&self, index: u32) -> Option<RowId> {
        let entry = self.entry(index)?;
        let current = entry.current();
        let head = entry.head();
        let id = RowId { index, generation: head.generation() };
        let dead = match head.state() {
            RowState::Dead => true,
            RowState::Live if self.is_sealed(current) && entry.current() == current => {
                self.finish_taking(id);
                true
            }
            RowState::Live | RowState::Free | RowState::Claiming => false,
        };
        dead.then_some(id)
    }
}
