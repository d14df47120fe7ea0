//! Deadlines of the rows of a keyed table; see `rows/expiry.rs` for how they are kept.

use super::operations::{check_all, put_all};
use super::{Entry, Table, TableError};
use crate::key::Key;
use crate::rows::{Kept, RowId, Sweep};
use crate::schema::ColumnId;
use crate::value::{Row, ValueRef};

impl Table {
    /// [`Table::set`], and the row lives until `deadline` (0: for ever) unless it is touched. A new row
    /// has its deadline from its first instant. Of a row that is there the deadline is moved first: a
    /// process that is killed in between leaves the old value with the new deadline. One that a sweep
    /// has marked is deleted and made anew; the sweep does not return it then.
    ///
    /// # Errors
    /// As [`Table::set`], and `NoDeadlines`; nothing is changed then, but for two things that go first: the
    /// deadline of a row that is there, which `NoSpareBlock` leaves moved; and the deletion of a row that a
    /// sweep has marked. If the row cannot be made anew then (`Full`: another took its place), it is gone,
    /// as its deadline had passed, and its last value is returned by nobody.
    pub fn set_until<'k>(
        &self,
        key: impl Into<Key<'k>>,
        values: &[(ColumnId, ValueRef<'_>)],
        deadline: u64,
    ) -> Result<RowId, TableError> {
        if !self.schema().has_deadlines() {
            return Err(TableError::NoDeadlines);
        }
        check_all(self.schema(), values)?;
        let placed = self.place(key.into(), deadline, &mut put_all(values), |id, put| {
            if !self.rows.touch(id, deadline) {
                // Marked by a sweep that may never go on: nobody waits for it. Or gone.
                self.remove(id);
                return Ok(None);
            }
            self.refill(id, Kept::Others, put)
        })?;
        Ok(placed.any())
    }

    /// Moves the deadline of a key's row; see [`Rows::touch`](crate::Rows::touch), which does it by handle.
    pub fn touch<'k>(&self, key: impl Into<Key<'k>>, deadline: u64) -> bool {
        let key = key.into();
        while let Some(id) = self.find(key) {
            if self.rows.touch(id, deadline) {
                return true;
            }
            if self.rows.is_live(id) {
                return false; // a sweep has it, or there are no deadlines
            }
        }
        false
    }

    /// Deletes the rows whose deadline is `now` or earlier among `slice` rows from row `from` on, returns
    /// them with their last values, and says where to go on. Any number of processes may sweep at a time;
    /// each row is returned by one.
    ///
    /// What a sweeper that was killed had marked, the next sweep returns; what it had deleted is gone and
    /// returned by nobody.
    ///
    /// ```
    /// # use dunlin_table::{Schema, Table};
    /// # let schema = Schema::builder().int("n").expires().build()?;
    /// # let table = Table::create(schema, 1000)?;
    /// # let now = 5_000;
    /// table.set_until("ann", &[], now + 100)?;
    /// // Each turn of a loop looks at a tenth of the table.
    /// let mut from = 0;
    /// let sweep = table.sweep(now + 100, from, table.capacity() / 10);
    /// from = sweep.next;
    /// # assert_eq!((sweep.swept.len(), from), (1, 100));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sweep(&self, now: u64, from: u32, slice: u32) -> Sweep<Entry> {
        self.rows.sweep_with(now, from, slice, |id| {
            let key = self.key(id)?;
            let mut row = Row::empty(self.schema());
            self.remove_into(id, &mut row).then_some(Entry { id, key, row })
        })
    }
}
