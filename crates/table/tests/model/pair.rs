//! The table and its reference, and each step done to both.

use std::collections::HashMap;

use dunlin_table::{
    Added, ColumnId, Compared, CounterId, OwnedKey, RowId, Table, TableError, Value, ValueRef,
    WriteError,
};

use crate::reference::{Reference, Row};
use crate::steps::{Step, Values};

pub(crate) struct Pair {
    pub(crate) table: Table,
    pub(crate) reference: Reference,
    pub(crate) columns: Vec<ColumnId>,
    pub(crate) counter: CounterId,
    pub(crate) now: u64,
    pub(crate) from: u32,
}

type Said = Result<RowId, TableError>;

impl Pair {
    pub(crate) fn take(&mut self, step: &Step) {
        match step {
            Step::Set(key, values) => {
                self.write(key, *values, true, |table, values| table.set(key, values));
            }
            Step::SetUntil(key, values, later) => {
                let deadline = self.deadline(*later);
                let expires = self.reference.expires;
                let done = self.write(key, *values, expires, |table, values| {
                    table.set_until(key, values, deadline)
                });
                if let Some(row) = done {
                    row.deadline = deadline;
                }
            }
            Step::Add(key, values) => self.add(key, *values),
            Step::GetOrInsert(key, values) => self.get_or_insert(key, *values),
            Step::Update(key, values) => self.update(key, *values),
            Step::CompareSet(key, expected, truth, values) => {
                self.compare_set(key, *expected, *truth, *values);
            }
            Step::CompareDel(key, expected, truth) => self.compare_del(key, *expected, *truth),
            Step::Del(key) => {
                assert_eq!(self.table.del(key), self.reference.remove(key).is_some());
            }
            Step::GetDel(key) => {
                let row = self.table.get_del(key).map(|row| self.values_of(&row));
                assert_eq!(row, self.reference.remove(key).map(|row| row.values));
            }
            Step::Remove(key) => {
                let id = self.table.find(key);
                assert_eq!(id, self.reference.rows.get(key).map(|row| row.id));
                let removed = id.is_some_and(|id| self.table.remove(id));
                assert_eq!(removed, self.reference.remove(key).is_some());
            }
            Step::Get(key) => {
                let row = self.table.get(key).map(|row| self.values_of(&row));
                assert_eq!(row, self.reference.rows.get(key).map(|row| row.values.clone()));
            }
            Step::Incr(key, by) => self.incr(key, *by),
            Step::Count(key, by) => self.count(key, *by),
            Step::Touch(key, later) => {
                let deadline = self.deadline(*later);
                let touched = self.table.touch(key, deadline);
                let row = self.reference.rows.get_mut(key).filter(|_| self.reference.expires);
                assert_eq!(touched, row.is_some());
                row.into_iter().for_each(|row| row.deadline = deadline);
            }
            Step::Sweep(later, slice) => {
                self.now += later;
                self.sweep(*slice);
            }
            Step::Stale => self.use_what_is_gone(),
            Step::IterateWhileOthersChange(pairs) => self.iterate(pairs),
        }
    }

    fn count(&mut self, key: &OwnedKey, by: u64) {
        let sum = self.table.counter(key, self.counter).map(|count| count.incr(by));
        let row = self.reference.rows.get_mut(key).map(|row| {
            row.count = row.count.wrapping_add(by);
            Some(row.count)
        });
        assert_eq!(sum, row);
    }

    /// So much later than now; 0: none.
    fn deadline(&self, later: u64) -> u64 {
        if later == 0 { 0 } else { self.now + later }
    }

    fn values_of(&self, row: &dunlin_table::Row) -> Vec<Value> {
        self.columns.iter().map(|column| row.value(*column)).collect()
    }

    fn borrowed<'a>(&self, values: &'a [(usize, Value)]) -> Vec<(ColumnId, ValueRef<'a>)> {
        values.iter().map(|(at, value)| (self.columns[*at], value.as_ref())).collect()
    }

    fn write(
        &mut self,
        key: &OwnedKey,
        values: Values,
        allowed: bool,
        write: impl FnOnce(&Table, &[(ColumnId, ValueRef<'_>)]) -> Said,
    ) -> Option<&mut Row> {
        let values = values.of(&self.reference.kinds);
        let done = write(&self.table, &self.borrowed(&values));
        assert_eq!(done.is_ok(), allowed && self.reference.takes(key, &values), "{done:?}");
        let row = self.reference.place(key, done.ok()?);
        row.put(&values);
        Some(row)
    }

    fn add(&mut self, key: &OwnedKey, values: Values) {
        let values = values.of(&self.reference.kinds);
        let added = self.table.add(key, &self.borrowed(&values));
        assert_eq!(added.is_ok(), self.reference.takes(key, &values), "{added:?}");
        let there = self.reference.rows.get(key).map(|row| row.id);
        match added {
            Ok(Added::There(id)) => assert_eq!(Some(id), there),
            Ok(Added::New(id)) => {
                assert_eq!(there, None);
                self.reference.place(key, id).put(&values);
            }
            Err(_) => {}
        }
    }

    fn get_or_insert(&mut self, key: &OwnedKey, values: Values) {
        let values = values.of(&self.reference.kinds);
        let got = self.table.get_or_insert(key, &self.borrowed(&values));
        assert_eq!(got.is_ok(), self.reference.takes(key, &values), "{got:?}");
        let Ok((id, row)) = got else { return };
        if !self.reference.rows.contains_key(key) {
            self.reference.place(key, id).put(&values);
        }
        assert_eq!(self.values_of(&row), self.reference.rows[key].values);
        assert_eq!(id, self.reference.rows[key].id);
    }

    fn update(&mut self, key: &OwnedKey, values: Values) {
        let values = values.of(&self.reference.kinds);
        let done = self.table.update(key, &self.borrowed(&values));
        let allowed = self.reference.key_fits(key) && self.reference.fits(&values);
        assert_eq!(done.is_ok(), allowed, "{done:?}");
        if allowed {
            let row = self.reference.rows.get_mut(key);
            assert_eq!(done.unwrap(), row.as_ref().map(|row| row.id));
            row.into_iter().for_each(|row| row.put(&values));
        }
    }

    /// What to expect: of a row that is there the truth, if so said.
    fn expected(&self, key: &OwnedKey, values: Values, truth: bool) -> Vec<(usize, Value)> {
        let mut values = values.of(&self.reference.kinds);
        if let Some(row) = self.reference.rows.get(key).filter(|_| truth) {
            values.iter_mut().for_each(|(at, value)| value.clone_from(&row.values[*at]));
        }
        values
    }

    /// What a comparison should say, if its arguments are allowed.
    fn compared(&self, key: &OwnedKey, expected: &[(usize, Value)]) -> Compared {
        match self.reference.holds(key, expected) {
            None => Compared::Absent,
            Some(false) => Compared::Differs,
            Some(true) => Compared::Done(self.reference.rows[key].id),
        }
    }

    fn compare_set(&mut self, key: &OwnedKey, expected: Values, truth: bool, values: Values) {
        let expected = self.expected(key, expected, truth);
        let values = values.of(&self.reference.kinds);
        let (old, new) = (self.borrowed(&expected), self.borrowed(&values));
        let done = self.table.compare_set(key, &old, &new);
        let fit = self.reference.fits(&expected) && self.reference.fits(&values);
        assert_eq!(done.is_ok(), fit && self.reference.key_fits(key), "{done:?}");
        let Ok(done) = done else { return };
        assert_eq!(done, self.compared(key, &expected));
        if let (Compared::Done(_), Some(row)) = (done, self.reference.rows.get_mut(key)) {
            row.put(&values);
        }
    }

    fn compare_del(&mut self, key: &OwnedKey, expected: Values, truth: bool) {
        let expected = self.expected(key, expected, truth);
        let done = self.table.compare_del(key, &self.borrowed(&expected));
        let allowed = self.reference.fits(&expected) && self.reference.key_fits(key);
        assert_eq!(done.is_ok(), allowed, "{done:?}");
        let Ok(done) = done else { return };
        assert_eq!(done, self.compared(key, &expected));
        if matches!(done, Compared::Done(_)) {
            self.reference.remove(key);
        }
    }

    fn incr(&mut self, key: &OwnedKey, by: i64) {
        let sum = self.table.incr(key, self.columns[0], by);
        let before = self.reference.rows.get(key).map(|row| row.values[0].clone());
        let Value::Int(before) = before.unwrap_or(Value::Int(0)) else { panic!("an int column") };
        let expected = before.checked_add(by).filter(|_| self.reference.takes(key, &[]));
        assert_eq!(sum.ok(), expected);
        if let Some(sum) = expected {
            let id = self.table.find(key).expect("it was just made");
            self.reference.place(key, id).put(&[(0, Value::Int(sum))]);
        }
    }

    fn sweep(&mut self, slice: u32) {
        let sweep = self.table.sweep(self.now, self.from, slice);
        let to = (self.from + slice).min(self.table.capacity());
        let looked_at = self.from..to;
        assert_eq!(sweep.next, if to == self.table.capacity() { 0 } else { to });
        let mut found = HashMap::new();
        for entry in sweep.swept {
            let values = self.values_of(&entry.row);
            assert!(found.insert(entry.key, (entry.id, values)).is_none(), "returned twice");
        }
        let due: Vec<OwnedKey> = self
            .reference
            .rows
            .iter()
            .filter(|(_, row)| looked_at.contains(&row.id.index))
            .filter(|(_, row)| row.deadline != 0 && row.deadline <= self.now)
            .map(|(key, _)| key.clone())
            .collect();
        let expected: HashMap<_, _> = due
            .into_iter()
            .filter_map(|key| {
                let row = self.reference.remove(&key)?;
                Some((key, (row.id, row.values)))
            })
            .collect();
        assert_eq!(found, expected);
        self.from = sweep.next;
    }

    /// Nothing can be done with the handle of a row that is gone.
    fn use_what_is_gone(&self) {
        let rows = self.table.rows();
        for id in &self.reference.gone {
            assert!(!rows.is_live(*id) && self.table.key(*id).is_none());
            let late = rows.write(*id, &[(self.columns[0], ValueRef::Int(1))]);
            assert_eq!(late, Err(WriteError::Stale));
            assert!(!rows.touch(*id, 1) && rows.deadline(*id).is_none());
            assert!(!self.table.remove(*id) && rows.counter_of(*id, self.counter).is_none());
        }
    }

    /// A row that is there throughout is seen exactly once, and no row twice.
    fn iterate(&mut self, pairs: &[(OwnedKey, OwnedKey)]) {
        let mut throughout = self.reference.rows.clone();
        let mut seen = HashMap::new();
        let table = self.table.clone();
        let mut changes = pairs.iter();
        for entry in table.iter() {
            assert!(seen.insert(entry.id, entry.key).is_none(), "seen twice");
            let Some((deleted, set)) = changes.next() else { continue };
            assert_eq!(table.del(deleted), self.reference.remove(deleted).is_some());
            throughout.remove(deleted);
            let id = table.set(set, &[]);
            assert_eq!(id.is_ok(), self.reference.takes(set, &[]));
            if let Ok(id) = id {
                self.reference.place(set, id);
            }
        }
        for (key, row) in throughout {
            assert_eq!(seen.get(&row.id), Some(&key), "it was there throughout");
        }
    }

    /// Everything that both know.
    pub(crate) fn compare(&self) {
        assert_eq!(self.table.count() as usize, self.reference.rows.len());
        let mut seen = 0;
        for entry in self.table.iter() {
            let row = &self.reference.rows[&entry.key];
            assert_eq!((entry.id, self.values_of(&entry.row)), (row.id, row.values.clone()));
            let count = self.table.counter(&entry.key, self.counter).and_then(|count| count.get());
            assert_eq!(count, Some(row.count));
            let deadline = self.reference.expires.then_some(row.deadline);
            assert_eq!(self.table.rows().deadline(entry.id), deadline);
            seen += 1;
        }
        assert_eq!(seen, self.reference.rows.len());
    }
}
