//! What a table should do, as a `HashMap`.

use std::collections::HashMap;

use dunlin_table::{ColumnKind, OwnedKey, RowId, Value};

pub(crate) struct Reference {
    /// The row columns; the first is the int column that `incr` uses.
    pub(crate) kinds: Vec<ColumnKind>,
    pub(crate) capacity: usize,
    pub(crate) key_limit: usize,
    pub(crate) expires: bool,
    pub(crate) rows: HashMap<OwnedKey, Row>,
    /// Handles of rows that are gone.
    pub(crate) gone: Vec<RowId>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Row {
    pub(crate) values: Vec<Value>,
    pub(crate) count: u64,
    /// 0: none.
    pub(crate) deadline: u64,
    /// What the table said when it was made.
    pub(crate) id: RowId,
}

impl Reference {
    pub(crate) fn fits(&self, values: &[(usize, Value)]) -> bool {
        values.iter().all(|(at, value)| match (self.kinds[*at], value) {
            (ColumnKind::Str(limit), Value::Str(text)) => text.len() <= limit,
            (ColumnKind::Bytes(limit), Value::Bytes(bytes)) => bytes.len() <= limit,
            _ => true,
        })
    }

    pub(crate) fn key_fits(&self, key: &OwnedKey) -> bool {
        !matches!(key, OwnedKey::Bytes(bytes) if bytes.len() > self.key_limit)
    }

    /// Whether a write that may make the row of this key is taken.
    pub(crate) fn takes(&self, key: &OwnedKey, values: &[(usize, Value)]) -> bool {
        let room = self.rows.contains_key(key) || self.rows.len() < self.capacity;
        room && self.key_fits(key) && self.fits(values)
    }

    /// The row of a key, made if it is not there; `id` is what the table said.
    pub(crate) fn place(&mut self, key: &OwnedKey, id: RowId) -> &mut Row {
        let values = || self.kinds.iter().map(|kind| zero_of(*kind)).collect();
        self.rows.entry(key.clone()).or_insert_with(|| Row {
            values: values(),
            count: 0,
            deadline: 0,
            id,
        })
    }

    pub(crate) fn holds(&self, key: &OwnedKey, values: &[(usize, Value)]) -> Option<bool> {
        let row = self.rows.get(key)?;
        Some(values.iter().all(|(at, value)| row.values[*at] == *value))
    }

    pub(crate) fn remove(&mut self, key: &OwnedKey) -> Option<Row> {
        let row = self.rows.remove(key)?;
        self.gone.push(row.id);
        Some(row)
    }
}

impl Row {
    pub(crate) fn put(&mut self, values: &[(usize, Value)]) {
        for (at, value) in values {
            self.values[*at] = value.clone();
        }
    }
}

fn zero_of(kind: ColumnKind) -> Value {
    match kind {
        ColumnKind::Int | ColumnKind::Counter => Value::Int(0),
        ColumnKind::Float => Value::Float(0.0),
        ColumnKind::Str(_) => Value::Str(String::new()),
        ColumnKind::Bytes(_) => Value::Bytes(Vec::new()),
    }
}
