//! What the operations are done on.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dunlin_table::{ColumnId, CounterId, Row, Schema, SchemaError, Table, TableError, ValueRef};

use crate::jobs::{Job, Op, Pattern, What};
use crate::walk::CONTENT;

/// The operations, each once for every key given.
pub(crate) trait Subject {
    fn set(&mut self, keys: &[Box<str>], number: i64);
    fn get(&mut self, keys: &[Box<str>]);
    fn get_one(&mut self, keys: &[Box<str>]);
    fn incr(&mut self, keys: &[Box<str>]);
    fn exists(&mut self, keys: &[Box<str>]);
    fn insert_delete(&mut self, keys: &[Box<str>], number: i64);
    /// Walks through all rows; how many there were.
    fn iterate(&mut self) -> u64;

    /// Does one operation of `job` for each key; how many were done.
    fn work(&mut self, op: Op, keys: &[Box<str>], number: i64) -> u64 {
        match op {
            Op::Set => self.set(keys, number),
            Op::Get => self.get(keys),
            Op::GetOne => self.get_one(keys),
            Op::Incr => self.incr(keys),
            Op::Exists => self.exists(keys),
            Op::InsertDelete => self.insert_delete(keys, number),
            Op::Iterate => return self.iterate(),
            Op::Counter => {}
        }
        keys.len() as u64
    }
}

#[derive(Debug)]
pub(crate) struct SharedTable {
    table: Table,
    row: Row,
    columns: [ColumnId; 7],
    state: ColumnId,
    hits: CounterId,
}

impl SharedTable {
    /// Before the first fork.
    pub(crate) fn create(rows: u32) -> Result<Self, Box<dyn std::error::Error>> {
        let schema = schema()?;
        let names = ["user", "device", "state", "ip", "port", "last_active", "recv_pool"];
        let mut columns = Vec::new();
        for name in names {
            columns.push(schema.column(name).ok_or("the schema has it")?);
        }
        let columns: [ColumnId; 7] = columns.try_into().map_err(|_| "seven columns")?;
        let hits = schema.counter_column("hits").ok_or("the schema has it")?;
        let row = Row::empty(&schema);
        let table = Table::create(schema, rows)?;
        Ok(Self { table, row, columns, state: columns[2], hits })
    }

    pub(crate) fn fill(&mut self, keys: &[Box<str>]) {
        self.set(keys, 0);
    }

    pub(crate) fn set_writer(&mut self, writer: u16) {
        self.table.set_writer(writer);
    }

    /// The counters of the keys' rows.
    pub(crate) fn counters(&self, keys: &[Box<str>]) -> Vec<&'static AtomicU64> {
        let rows = self.table.rows();
        let ids = keys.iter().filter_map(|key| self.table.find(&**key));
        ids.map(|id| rows.counter(self.hits, id.index)).collect()
    }

    fn put(&self, key: &str, number: i64) -> Result<(), TableError> {
        let values: [ValueRef<'_>; 7] = [
            CONTENT.user.into(),
            CONTENT.device.into(),
            number.into(),
            CONTENT.ip.into(),
            8080.into(),
            number.into(),
            CONTENT.recv_pool.into(),
        ];
        let mut at = 0;
        let row = self.columns.map(|column| {
            at += 1;
            (column, values[at - 1])
        });
        self.table.set(key, &row).map(drop)
    }
}

impl Subject for SharedTable {
    fn set(&mut self, keys: &[Box<str>], number: i64) {
        for key in keys {
            self.put(key, number).expect("the row is there or fits");
        }
    }

    fn get(&mut self, keys: &[Box<str>]) {
        for key in keys {
            assert!(self.table.get_into(&**key, &mut self.row).is_some(), "the row is there");
            black_box(&self.row);
        }
    }

    fn get_one(&mut self, keys: &[Box<str>]) {
        for key in keys {
            black_box(self.table.get_column(&**key, self.state).expect("the row is there"));
        }
    }

    fn incr(&mut self, keys: &[Box<str>]) {
        for key in keys {
            black_box(self.table.incr(&**key, self.state, 1).expect("the row is there"));
        }
    }

    fn exists(&mut self, keys: &[Box<str>]) {
        for key in keys {
            assert!(self.table.exists(&**key), "the row is there");
        }
    }

    fn insert_delete(&mut self, keys: &[Box<str>], number: i64) {
        for key in keys {
            self.put(key, number).expect("there is room");
            // On one hot row the other process may have deleted it.
            black_box(self.table.del(&**key));
        }
    }

    fn iterate(&mut self) -> u64 {
        self.table.iter().map(|entry| u64::from(black_box(entry).id.generation > 0)).sum()
    }
}

/// Adds to words, one after the other.
pub(crate) fn count(words: &[&AtomicU64]) -> u64 {
    for word in words {
        word.fetch_add(1, Relaxed);
    }
    words.len() as u64
}

/// Changes words by load and compare-and-swap, as a write of a row changes its current word.
pub(crate) fn count_by_swap(words: &[&AtomicU64]) -> u64 {
    for word in words {
        let mut seen = word.load(Relaxed);
        while let Err(now) = word.compare_exchange(seen, seen.wrapping_add(1), Relaxed, Relaxed) {
            seen = now;
        }
    }
    words.len() as u64
}

/// Whether a job is a walk over words instead of keys.
pub(crate) fn is_of_words(job: &Job) -> bool {
    job.op == Op::Counter
}

/// The words of such a job.
pub(crate) fn words_of(
    job: &Job,
    table: &SharedTable,
    keys: &[Box<str>],
    bare: &'static AtomicU64,
) -> Vec<&'static AtomicU64> {
    match (job.what, job.pattern) {
        (What::FetchAdd | What::CompareSwap, _) => vec![bare; 4096],
        (_, Pattern::Hot) => table.counters(&keys[..1]).repeat(4096),
        (_, Pattern::Disjoint) => table.counters(keys),
    }
}

#[derive(Clone, Default, Debug)]
struct PlainRow {
    user: String,
    device: String,
    state: i64,
    ip: String,
    port: i64,
    last_active: i64,
    recv_pool: String,
}

/// The yardstick: what a program of one process would use.
#[derive(Debug)]
pub(crate) struct MutexHashMap {
    rows: Mutex<HashMap<String, PlainRow>>,
    out: PlainRow,
}

impl MutexHashMap {
    pub(crate) fn create(keys: &[Box<str>]) -> Self {
        let rows = Mutex::new(HashMap::with_capacity(keys.len()));
        let mut map = Self { rows, out: PlainRow::default() };
        map.set(keys, 0);
        map
    }

    fn with<R>(&self, work: impl FnOnce(&mut HashMap<String, PlainRow>) -> R) -> R {
        work(&mut self.rows.lock().expect("nobody panics with it"))
    }
}

impl PlainRow {
    fn put(&mut self, number: i64) {
        put(&mut self.user, CONTENT.user);
        put(&mut self.device, CONTENT.device);
        self.state = number;
        put(&mut self.ip, CONTENT.ip);
        self.port = 8080;
        self.last_active = number;
        put(&mut self.recv_pool, CONTENT.recv_pool);
    }
}

/// Into the allocation that is there.
fn put(text: &mut String, content: &str) {
    text.clear();
    text.push_str(content);
}

impl Subject for MutexHashMap {
    fn set(&mut self, keys: &[Box<str>], number: i64) {
        for key in keys {
            self.with(|rows| match rows.get_mut(&**key) {
                Some(row) => row.put(number),
                None => rows.entry(key.to_string()).or_default().put(number),
            });
        }
    }

    fn get(&mut self, keys: &[Box<str>]) {
        for key in keys {
            let mut out = std::mem::take(&mut self.out);
            self.with(|rows| {
                let row = rows.get(&**key).expect("the row is there");
                put(&mut out.user, &row.user);
                put(&mut out.device, &row.device);
                put(&mut out.ip, &row.ip);
                put(&mut out.recv_pool, &row.recv_pool);
                (out.state, out.port, out.last_active) = (row.state, row.port, row.last_active);
            });
            self.out = out;
            black_box(&self.out);
        }
    }

    fn get_one(&mut self, keys: &[Box<str>]) {
        for key in keys {
            black_box(self.with(|rows| rows.get(&**key).expect("the row is there").state));
        }
    }

    fn incr(&mut self, keys: &[Box<str>]) {
        for key in keys {
            self.with(|rows| rows.get_mut(&**key).expect("the row is there").state += 1);
        }
    }

    fn exists(&mut self, keys: &[Box<str>]) {
        for key in keys {
            assert!(self.with(|rows| rows.contains_key(&**key)), "the row is there");
        }
    }

    fn insert_delete(&mut self, keys: &[Box<str>], number: i64) {
        for key in keys {
            self.with(|rows| rows.entry(key.to_string()).or_default().put(number));
            self.with(|rows| black_box(rows.remove(&**key)));
        }
    }

    fn iterate(&mut self) -> u64 {
        self.with(|rows| rows.iter().map(|row| u64::from(!black_box(row).0.is_empty())).sum())
    }
}

fn schema() -> Result<Schema, SchemaError> {
    Schema::builder()
        .string("user", 32)
        .string("device", 32)
        .int("state")
        .string("ip", 46)
        .int("port")
        .int("last_active")
        .string("recv_pool", 256)
        .counter("hits")
        .build()
}
