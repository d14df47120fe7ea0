//! Deadlines of rows: one dense word a row, and the sweep that frees rows whose time has come.
//!
//! Knows no clock: `now` and deadlines are milliseconds of whatever clock the caller has.
//!
//! Invariants: 1. A deadline word carries the life of its row, so a late touch or sweep of an earlier
//! life fails. 2. A sweep frees a row only after it moved the word from the due value to `SWEPT`; a
//! touch never moves it from there. So a row that was touched in time is not swept, and nobody extends
//! a row that is being swept. 3. What a killed sweeper marked, the next sweep frees. 4. A sweep looks at
//! as many rows as it is told, and waits for nobody.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::{RowId, Rows};
use crate::value::Row;
use crate::word::{Due, Link, RowState};

/// What one call of a sweep did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sweep<T> {
    /// The rows that this call freed, and no other.
    pub swept: Vec<T>,
    /// Where the next call begins; 0 when the last row was looked at.
    pub next: u32,
}

/// A row that a sweep freed.
#[derive(Clone, Debug)]
pub struct Swept {
    /// The handle it had.
    pub id: RowId,
    /// Whose it was.
    pub owner: u16,
    /// Its last value: no write that was done came later.
    pub row: Row,
}

impl Rows {
    /// Moves the deadline of a row; 0 is none, beyond [`MAX_DEADLINE`](crate::MAX_DEADLINE) is that.
    ///
    /// True: no sweep frees the row before its new deadline. False: the row is gone, or a sweep has taken
    /// it and is about to free it, or the schema has no deadlines
    /// ([`SchemaBuilder::expires`](crate::SchemaBuilder::expires)).
    pub fn touch(&self, id: RowId, deadline: u64) -> bool {
        let Some(word) = self.deadlines.get(id.index as usize) else { return false };
        let moved = Due::new(id.generation, deadline);
        let mut due = Due(word.load(Acquire));
        loop {
            // The head after the word: what is freed and made anew in between has another word by then.
            if !due.is_of(id.generation) || due.is_swept() || !self.is_live(id) {
                return false;
            }
            match word.compare_exchange(due.0, moved.0, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(now) => due = Due(now),
            }
        }
    }

    /// The deadline of a row, 0 if it has none. `None` if the row is gone, or taken by a sweep, or if
    /// the schema has no deadlines.
    #[must_use]
    pub fn deadline(&self, id: RowId) -> Option<u64> {
        let due = Due(self.deadlines.get(id.index as usize)?.load(Acquire));
        (due.is_of(id.generation) && !due.is_swept() && self.is_live(id)).then(|| due.at())
    }

    /// Frees the rows whose deadline is `now` or earlier among `slice` rows from row `from` on, and says
    /// where to go on. Any number of processes may sweep at a time; each row is returned by one.
    ///
    /// Reads still see a row between its mark and its end, a few instructions later. Does nothing to the
    /// rows of a keyed table: [`Table::sweep`](crate::Table::sweep) does.
    pub fn sweep(&self, now: u64, from: u32, slice: u32) -> Sweep<Swept> {
        if self.keyed {
            return Sweep { swept: Vec::new(), next: 0 };
        }
        self.sweep_with(now, from, slice, |id| {
            let mut row = Row::empty(&self.schema);
            let owner = self.free_into(id, &mut row)?;
            Some(Swept { id, owner, row })
        })
    }

    /// Frees a row of plain rows and copies its last value into `row`: of all writes that said they were
    /// done, none came later. Returns whose it was. `None` if it is gone already, or if these are the
    /// rows of a keyed table; `row` has no meaning then.
    pub fn free_into(&self, id: RowId, row: &mut Row) -> Option<u16> {
        if self.keyed {
            return None;
        }
        let entry = self.entry(id.index)?;
        let left = self.leave(id, RowState::Live, RowState::Dead)?;
        // Writers that found the row live may still swap the current word. After this they fail.
        let current = entry.renew(Link::flagged);
        // Nobody claims a dead row, so its block stays as it is while it is copied.
        let block = current.item().filter(|_| !current.flagged());
        let block = block.and_then(|number| self.blocks.block(number));
        row.copy_from(&self.schema, block.map(|block| block.payload));
        self.release(id, RowState::Dead);
        Some(left.holder())
    }

    /// Sets the word of a row that only the caller holds.
    pub(crate) fn begin_deadline(&self, id: RowId, deadline: u64) {
        if let Some(word) = self.deadlines.get(id.index as usize) {
            // A swap and not a store, so that this and a late touch have an order in loom's models too.
            word.swap(Due::new(id.generation, deadline).0, AcqRel);
        }
    }

    pub(crate) fn sweep_with<T>(
        &self,
        now: u64,
        from: u32,
        slice: u32,
        free: impl FnMut(RowId) -> Option<T>,
    ) -> Sweep<T> {
        let from = if from < self.capacity { from } else { 0 };
        let to = from.saturating_add(slice).min(self.capacity);
        let swept = (from..to).filter_map(|index| self.take_due(index, now)).filter_map(free);
        let swept = swept.collect();
        Sweep { swept, next: if to == self.capacity { 0 } else { to } }
    }

    /// Marks a row that is due. `Some`: it is marked, by this sweep or by one that did not get further,
    /// and the caller frees it.
    fn take_due(&self, index: u32, now: u64) -> Option<RowId> {
        let word = self.deadlines.get(index as usize)?;
        let due = Due(word.load(Relaxed));
        if !due.is_due(now) {
            return None;
        }
        let head = self.entry(index)?.head();
        let id = RowId { index, generation: head.generation() };
        match head.state() {
            RowState::Live if due.is_of(id.generation) => {}
            // Gone: so that no later sweep looks here. The next claim stores another life's word.
            RowState::Free | RowState::Dead => {
                let _ = word.compare_exchange(due.0, due.without().0, AcqRel, Relaxed);
                return None;
            }
            RowState::Live | RowState::Claiming => return None,
        }
        let marked =
            due.is_swept() || word.compare_exchange(due.0, due.swept().0, AcqRel, Relaxed).is_ok();
        marked.then_some(id)
    }
}
