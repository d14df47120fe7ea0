//! The steps by which rows are claimed, changed, read and freed, each a swap of one word.
//!
//! See `docs/table.md` for what a kill between any two of them leaves behind.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::{Kept, RowId, Rows};
use crate::death;
use crate::free_hints::start_of;
use crate::schema::ColumnId;
use crate::sync::{AtomicU64, fence};
use crate::value::{Draft, ValueRef, WriteError, clear_row, copy_row};
use crate::word::{Head, Life, Link, RowState, Stamp};

/// Head and current word of one row.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) head: &'static AtomicU64,
    pub(super) current: &'static AtomicU64,
}

impl Rows {
    pub(crate) fn entry(&self, index: u32) -> Option<Entry> {
        self.place(index).map(|(entry, _)| entry)
    }

    /// An entry, and the words behind it that a keyed table has for link and key.
    pub(crate) fn place(&self, index: u32) -> Option<(Entry, &'static [AtomicU64])> {
        if index >= self.capacity {
            return None; // the last line may be longer than the rows
        }
        let at = index as usize * self.entry_stride;
        match self.entries.get(at..at + self.entry_stride)? {
            [head, current, beside @ ..] => Some((Entry { head, current }, beside)),
            _ => None,
        }
    }

    /// Claims a row that stays in the state `Claiming` until it is published or given back.
    pub(crate) fn claim_hidden(&self) -> Option<RowId> {
        while let Some(index) = self.hints.take(start_of(self.writer, self.capacity)) {
            if let Some(id) = self.try_claim(index) {
                return Some(id);
            }
        }
        self.claim_by_scan()
    }

    /// Makes a claimed row live. False if a recovery took this process for dead and the row back.
    pub(crate) fn publish(&self, id: RowId, owner: u16) -> bool {
        let claiming = Head::new(id.generation, self.writer, RowState::Claiming);
        let live = Head::new(id.generation, owner, RowState::Live);
        self.entry(id.index).is_some_and(|entry| entry.swap_head(claiming, live))
    }

    /// Moves a row from one state to another and returns the head it left; `None` if the row is not,
    /// or no longer, in that state. The holder stays; `Dead` gets this writer, `Free` none.
    pub(crate) fn leave(&self, id: RowId, from: RowState, to: RowState) -> Option<Head> {
        let entry = self.entry(id.index)?;
        loop {
            let head = entry.head();
            if head.generation() != id.generation || head.state() != from {
                return None;
            }
            let holder = match to {
                RowState::Free => 0,
                RowState::Dead => self.writer,
                RowState::Claiming | RowState::Live => head.holder(),
            };
            if entry.swap_head(head, Head::new(id.generation, holder, to)) {
                return Some(head);
            }
        }
    }

    /// Frees a row that is claiming or dead, which scans see. False if it is not in that state any more.
    pub(crate) fn release(&self, id: RowId, from: RowState) -> bool {
        self.hints.announce();
        let freed = self.leave(id, from, RowState::Free).is_some();
        if freed {
            self.hints.restore(id.index);
        }
        freed
    }

    /// Writes checked values to a live row.
    pub(crate) fn write_checked(
        &self,
        id: RowId,
        values: &[(ColumnId, ValueRef<'_>)],
    ) -> Result<(), WriteError> {
        death::deed();
        let written = self.replace(id, RowState::Live, Kept::by(&self.schema, values), |draft| {
            for (column, value) in values {
                draft.put(*column, *value);
            }
            Ok(true)
        });
        written.map(|_| ())
    }

    /// Fills a block with what the row has and `edit` makes of it, and swaps the current word to it.
    /// With [`Kept::Nothing`], `edit` sets every column, and is called once.
    pub(crate) fn replace(
        &self,
        id: RowId,
        state: RowState,
        kept: Kept,
        mut edit: impl FnMut(&mut Draft<'_>) -> Result<bool, WriteError>,
    ) -> Result<bool, WriteError> {
        let entry = self.entry(id.index).ok_or(WriteError::Stale)?;
        let held = self.blocks.claim(self.writer, &self.spare).ok_or(WriteError::NoSpareBlock)?;
        let mut draft = Draft::new(&self.schema, held.block.payload);
        if kept == Kept::Nothing && !edit(&mut draft)? {
            return Ok(false);
        }
        loop {
            let current = Link(entry.current.load(Acquire));
            // After the load of the current word: a later claim of the row changes that word before
            // the row is live again, so what we found live is what our swap will find.
            entry.check_state(id, state)?;
            let old = current.item().and_then(|number| self.blocks.block(number));
            let replaced = match (current.item(), old) {
                // Taken throughout if the swap succeeds, so the tag read here is that of its life.
                (Some(number), Some(old)) => Life::new(number, Stamp(old.stamp.load(Relaxed))),
                _ => Life::NONE,
            };
            if kept == Kept::Others {
                match old.filter(|_| !current.flagged()) {
                    Some(old) => copy_row(&self.schema, old.payload, held.block.payload),
                    None => clear_row(&self.schema, held.block.payload),
                }
            }
            fence(Acquire);
            if entry.current.load(Relaxed) != current.0 {
                continue; // the copy may be torn
            }
            if state == RowState::Live && self.is_sealed(current) {
                self.finish_taking(id);
                return Err(WriteError::Stale);
            }
            self.settle(current, entry);
            if kept == Kept::Others && !edit(&mut draft)? {
                return Ok(false);
            }
            held.block.previous.store(replaced.0, Relaxed);
            held.block.row.store(u64::from(id.index), Relaxed);
            let next = current.successor(Some(held.number), false);
            // Release: the filled block is seen by whoever sees the new word. The commit point.
            if entry.current.compare_exchange(current.0, next.0, AcqRel, Relaxed).is_ok() {
                held.linked();
                self.blocks.release(replaced, Some(&self.spare));
                return Ok(true);
            }
        }
    }

    /// Gives a row that this process is claiming its first value. Nobody else knows of the row, and it
    /// is vacant, so that its block can be filled where it is.
    pub(crate) fn fill(
        &self,
        id: RowId,
        mut edit: impl FnMut(&mut Draft<'_>) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let entry = self.entry(id.index).ok_or(WriteError::Stale)?;
        let current = entry.current();
        let block = current.item().filter(|_| current.flagged());
        let Some(block) = block.and_then(|number| self.blocks.block(number)) else {
            let edit = |draft: &mut Draft<'_>| edit(draft).map(|()| true);
            return self.replace(id, RowState::Claiming, Kept::Others, edit).map(drop);
        };
        entry.check_state(id, RowState::Claiming)?;
        // As after the claim of a block: a reader of the row's earlier life that sees one of our stores
        // must see that the current word is another since the row was vacated.
        fence(Release);
        clear_row(&self.schema, block.payload);
        edit(&mut Draft::new(&self.schema, block.payload))?;
        // No swap hits this store: a writer that loaded the current word before the row was vacated
        // fails, and one that loaded it later sees that its row is gone. Release: as at every link.
        entry.current.store(current.successor(current.item(), false).0, Release);
        Ok(())
    }

    /// Releases what the row's block replaced, if its writer died before it could. Done before the
    /// block itself is replaced: afterwards nobody would know of the debt.
    pub(crate) fn settle(&self, current: Link, entry: Entry) -> bool {
        let Some(block) = current.item().and_then(|number| self.blocks.block(number)) else {
            return false;
        };
        let owed = Life(block.previous.load(Relaxed));
        fence(Acquire);
        // Still linked: so what we read is what its writer stored before it linked it.
        entry.current.load(Relaxed) == current.0 && self.blocks.release(owed, None)
    }

    /// Runs `copy` on the row's words (`None`: vacant) until it has seen one consistent value.
    pub(super) fn snapshot<R>(
        &self,
        id: RowId,
        mut copy: impl FnMut(Option<&'static [AtomicU64]>) -> R,
    ) -> Option<R> {
        let entry = self.entry(id.index)?;
        loop {
            let current = Link(entry.current.load(Acquire));
            if !entry.head().is_live(id.generation) {
                return None;
            }
            let value = current.item().filter(|_| !current.flagged());
            let copied =
                copy(value.and_then(|number| self.blocks.block(number)).map(|b| b.payload));
            // Pairs with the fence after a block's claim: if a word of a later filling was copied,
            // this load sees that the row has left the block.
            fence(Acquire);
            if entry.current.load(Relaxed) == current.0 {
                if self.is_sealed(current) {
                    self.finish_taking(id);
                    return None;
                }
                return Some(copied);
            }
        }
    }

    fn try_claim(&self, index: u32) -> Option<RowId> {
        let entry = self.entry(index)?;
        let free = entry.head();
        if free.state() != RowState::Free {
            return None;
        }
        let generation = free.next_generation();
        if !entry.swap_head(free, Head::new(generation, self.writer, RowState::Claiming)) {
            return None;
        }
        entry.vacate();
        for column in self.counters.chunks_exact(self.counter_stride) {
            column[index as usize].store(0, Relaxed);
        }
        let id = RowId { index, generation };
        self.begin_deadline(id, 0);
        Some(id)
    }

    /// For when no hint leads to a free row: all are taken, or kills lost hints. Puts those back.
    #[cold]
    fn claim_by_scan(&self) -> Option<RowId> {
        let scan = self.hints.begin_scan()?;
        let mut claimed = None;
        let mut all_live = true;
        for index in 0..self.capacity {
            let Some(state) = self.entry(index).map(|row| row.head().state()) else { break };
            match state {
                RowState::Free if claimed.is_some() => self.hints.restore(index),
                RowState::Free => claimed = self.try_claim(index),
                RowState::Live => {}
                RowState::Claiming | RowState::Dead => all_live = false,
            }
        }
        // A row that is live now is dead before its release is announced, and free after that.
        if claimed.is_none() && all_live {
            self.hints.found_nothing(scan);
        }
        claimed
    }
}

impl Entry {
    pub(crate) fn head(self) -> Head {
        Head(self.head.load(Acquire))
    }

    pub(crate) fn current(self) -> Link {
        Link(self.current.load(Acquire))
    }

    pub(crate) fn swap_head(self, from: Head, to: Head) -> bool {
        self.head.compare_exchange(from.0, to.0, AcqRel, Relaxed).is_ok()
    }

    fn check_state(self, id: RowId, state: RowState) -> Result<(), WriteError> {
        let head = self.head();
        let there = head.generation() == id.generation && head.state() == state;
        if there { Ok(()) } else { Err(WriteError::Stale) }
    }

    /// Forgets the value and keeps the block, so that the row needs none anew. Late writers of the
    /// row's earlier life fail from here on.
    fn vacate(self) {
        self.renew(|_| true);
    }

    /// Raises the tag of the current word, so that whoever loaded it before fails, makes it vacant if
    /// `vacant` says so of the word that is there, and returns that.
    pub(super) fn renew(self, vacant: impl Fn(Link) -> bool) -> Link {
        let mut current = self.current();
        loop {
            let next = current.successor(current.item(), vacant(current));
            match self.current.compare_exchange(current.0, next.0, AcqRel, Acquire) {
                Ok(_) => return current,
                Err(now) => current = Link(now),
            }
        }
    }
}
