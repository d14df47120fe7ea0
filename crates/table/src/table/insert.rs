//! How a key gets its row: found, or made whole and then linked.
//!
//! Invariants: 1. A row that was claimed and not linked is given back, whatever ends the call. 2. What is
//! linked was filled by the last call of the closure: the caller may have kept what that call told it.

use super::{Table, TableError};
use crate::death;
use crate::key::Key;
use crate::list::Sought;
use crate::rows::{RowId, Rows};
use crate::value::{Draft, WriteError};
use crate::word::RowState;

/// Where [`Table::place`] got a row.
pub(super) enum Placed<T> {
    Made(RowId),
    Found(T),
}

impl Placed<RowId> {
    pub(super) fn any(self) -> RowId {
        match self {
            Self::Made(id) | Self::Found(id) => id,
        }
    }
}

impl Table {
    /// Finds the row of a key and calls `found`, or makes one by `fill`, due at `deadline`. `found` says
    /// `None` when the row it was given is gone, and the search begins again.
    pub(super) fn place<T, F>(
        &self,
        key: Key<'_>,
        deadline: u64,
        fill: &mut F,
        found: impl Fn(RowId, &mut F) -> Result<Option<T>, TableError>,
    ) -> Result<Placed<T>, TableError>
    where
        F: FnMut(&mut Draft<'_>) -> Result<(), WriteError>,
    {
        let key = self.checked(key)?;
        death::deed();
        let hash = key.hash(self.seed);
        let mut made = Unlinked { rows: &self.rows, id: None };
        loop {
            match self.seek(hash, key) {
                Sought::Found(id) => {
                    // Filled before `found` calls the closure again.
                    made.give_back();
                    if let Some(result) = found(id, fill)? {
                        return Ok(Placed::Found(result));
                    }
                }
                Sought::Broken => return Err(TableError::BrokenList),
                Sought::Absent(from, end) => {
                    let id = match made.id {
                        Some(id) => id,
                        None => {
                            let Some(id) = self.claim() else {
                                // Whoever took the last row may have taken it for this key.
                                if matches!(self.seek(hash, key), Sought::Found(_)) {
                                    continue;
                                }
                                return Err(TableError::Full { capacity: self.capacity() });
                            };
                            self.make(&mut made, id, hash, key, fill)?;
                            self.rows.begin_deadline(id, deadline);
                            id
                        }
                    };
                    if self.lists.link(id, from, end) {
                        made.id = None;
                        // Whoever finds it linked does the same.
                        self.rows.leave(id, RowState::Claiming, RowState::Live);
                        return Ok(Placed::Made(id));
                    }
                }
            }
        }
    }

    /// Fills a row that was claimed with key and value, invisible until it is linked.
    fn make(
        &self,
        made: &mut Unlinked<'_>,
        id: RowId,
        hash: u64,
        key: Key<'_>,
        change: &mut impl FnMut(&mut Draft<'_>) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        made.id = Some(id);
        self.rows.fill(id, change)?;
        self.lists.prepare(&self.rows, id, hash, key);
        Ok(())
    }

    fn claim(&self) -> Option<RowId> {
        // A deleter that was stopped half way keeps nobody from its row.
        let buried = || self.bury_all().then(|| self.rows.claim_hidden()).flatten();
        self.rows.claim_hidden().or_else(buried)
    }

    /// Takes out every row that is dead; whether there was one.
    fn bury_all(&self) -> bool {
        let mut any = false;
        for id in (0..self.capacity()).filter_map(|index| self.rows.dead_at(index)) {
            any = true;
            self.lists.bury(&self.rows, id);
        }
        any
    }
}

/// A row that was claimed and not linked; dropped, it is given back.
struct Unlinked<'a> {
    rows: &'a Rows,
    id: Option<RowId>,
}

impl Unlinked<'_> {
    fn give_back(&mut self) {
        if let Some(id) = self.id.take() {
            self.rows.release(id, RowState::Claiming);
        }
    }
}

impl Drop for Unlinked<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}
