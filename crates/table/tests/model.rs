//! The keyed table against a `HashMap`: random schemas, keys and operations.
#![cfg(not(dunlin_loom))]

use std::collections::HashMap;

use dunlin_table::{
    Column, ColumnKind, Key, OwnedKey, Schema, Stats, Table, TableError, Value, ValueRef,
    WriteError, heap_words,
};
use proptest::prelude::*;

const KEY_LIMIT: usize = 20;

fn table(columns: Vec<Column>, capacity: u32) -> Table {
    let schema = Schema::with_key_limit(columns, KEY_LIMIT).unwrap();
    let words = heap_words(Table::words_needed(&schema, capacity).unwrap());
    Table::new(schema, capacity, words).unwrap()
}

fn two_columns() -> Vec<Column> {
    let column = |name: &str, kind| Column { name: name.into(), kind };
    vec![column("n", ColumnKind::Int), column("s", ColumnKind::Str(10))]
}

#[derive(Clone, Debug)]
enum Step {
    /// Sets the columns whose bit is set.
    Set(OwnedKey, u8, u64),
    Del(OwnedKey),
    Get(OwnedKey),
    Incr(OwnedKey, i64),
}

/// Few keys, so that they meet; short ones, empty ones, numbers, and bytes that look like numbers.
fn keys() -> impl Strategy<Value = OwnedKey> {
    prop_oneof![
        (0_u64..12).prop_map(OwnedKey::Number),
        (0_u64..4).prop_map(|number| OwnedKey::Bytes(number.to_ne_bytes().to_vec())),
        proptest::collection::vec(0_u8..2, 0..3).prop_map(OwnedKey::Bytes),
        proptest::collection::vec(any::<u8>(), KEY_LIMIT - 1..KEY_LIMIT + 2)
            .prop_map(OwnedKey::Bytes),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (keys(), any::<u8>(), any::<u64>()).prop_map(|(key, mask, seed)| Step::Set(key, mask, seed)),
        2 => keys().prop_map(Step::Del),
        2 => keys().prop_map(Step::Get),
        1 => (keys(), any::<i64>()).prop_map(|(key, by)| Step::Incr(key, by)),
    ];
    proptest::collection::vec(step, 1..120)
}

fn columns() -> impl Strategy<Value = Vec<ColumnKind>> {
    let kind = prop_oneof![
        Just(ColumnKind::Int),
        Just(ColumnKind::Float),
        (1_usize..40).prop_map(ColumnKind::Str),
        (1_usize..40).prop_map(ColumnKind::Bytes),
        Just(ColumnKind::Counter),
    ];
    proptest::collection::vec(kind, 0..7)
}

/// A value of a column made of a number; every 16th is too long.
fn value_of(kind: ColumnKind, seed: u64) -> Value {
    let len = |limit: usize| match seed % 16 {
        0 => limit + 1,
        _ => usize::try_from(seed).unwrap() % (limit + 1),
    };
    match kind {
        ColumnKind::Int | ColumnKind::Counter => Value::Int(seed.cast_signed()),
        ColumnKind::Float => Value::Float(f64::from(u32::try_from(seed % 1000).unwrap()) / 8.0),
        ColumnKind::Str(limit) => Value::Str("x".repeat(len(limit))),
        ColumnKind::Bytes(limit) => Value::Bytes(vec![seed.to_le_bytes()[1]; len(limit)]),
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

fn fits(kind: ColumnKind, value: &Value) -> bool {
    match (kind, value) {
        (ColumnKind::Str(limit), Value::Str(text)) => text.len() <= limit,
        (ColumnKind::Bytes(limit), Value::Bytes(bytes)) => bytes.len() <= limit,
        _ => true,
    }
}

/// What the table should do.
struct Model {
    /// Row columns after the int column that `incr` uses.
    kinds: Vec<ColumnKind>,
    capacity: usize,
    rows: HashMap<OwnedKey, Vec<Value>>,
}

impl Model {
    /// Applies a change as the table should; whether it should succeed.
    fn change(&mut self, key: &OwnedKey, change: impl FnOnce(&mut Vec<Value>) -> bool) -> bool {
        if matches!(key, OwnedKey::Bytes(bytes) if bytes.len() > KEY_LIMIT) {
            return false;
        }
        let before = self.rows.get(key).cloned();
        if before.is_none() && self.rows.len() == self.capacity {
            return false;
        }
        let mut row =
            before.unwrap_or_else(|| self.kinds.iter().map(|kind| zero_of(*kind)).collect());
        let changed = change(&mut row);
        if changed {
            self.rows.insert(key.clone(), row);
        }
        changed
    }

    fn set(&mut self, key: &OwnedKey, values: &[(usize, Value)]) -> bool {
        if !values.iter().all(|(at, value)| fits(self.kinds[*at], value)) {
            return false;
        }
        self.change(key, |row| {
            for (at, value) in values {
                row[*at] = value.clone();
            }
            true
        })
    }

    fn incr(&mut self, key: &OwnedKey, by: i64) -> Option<i64> {
        let mut sum = None;
        self.change(key, |row| {
            if let Value::Int(before) = row[0] {
                sum = before.checked_add(by);
            }
            if let Some(sum) = sum {
                row[0] = Value::Int(sum);
            }
            sum.is_some()
        });
        sum
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..Default::default() })]
    #[test]
    fn a_table_is_a_bounded_hash_map(kinds in columns(), capacity in 1_u32..20, steps in steps()) {
        let mut list = vec![Column { name: "n".into(), kind: ColumnKind::Int }];
        for (number, kind) in kinds.iter().enumerate() {
            list.push(Column { name: number.to_string(), kind: *kind });
        }
        let rows: Vec<(String, ColumnKind)> = list
            .iter()
            .filter(|column| column.kind != ColumnKind::Counter)
            .map(|column| (column.name.clone(), column.kind))
            .collect();
        let table = table(list, capacity);
        let ids: Vec<_> = rows.iter().map(|(name, _)| table.schema().column(name).unwrap()).collect();
        let kinds = rows.iter().map(|(_, kind)| *kind).collect();
        let mut model = Model { kinds, capacity: capacity as usize, rows: HashMap::new() };

        for step in steps {
            match step {
                Step::Set(key, mask, seed) => {
                    let chosen = (0..ids.len()).filter(|at| mask >> (at % 8) & 1 == 1);
                    let values: Vec<(usize, Value)> = chosen
                        .map(|at| (at, value_of(model.kinds[at], seed.wrapping_mul(at as u64 * 2 + 1))))
                        .collect();
                    let borrowed: Vec<_> =
                        values.iter().map(|(at, value)| (ids[*at], value.as_ref())).collect();
                    let done = table.set(&key, &borrowed);
                    prop_assert_eq!(done.is_ok(), model.set(&key, &values), "{:?}", done);
                }
                Step::Del(key) => {
                    prop_assert_eq!(table.del(&key), model.rows.remove(&key).is_some());
                }
                Step::Get(key) => {
                    let row = table.get(&key);
                    let read = row.map(|row| ids.iter().map(|id| row.value(*id)).collect::<Vec<_>>());
                    prop_assert_eq!(read.as_ref(), model.rows.get(&key));
                }
                Step::Incr(key, by) => {
                    prop_assert_eq!(table.incr(&key, ids[0], by).ok(), model.incr(&key, by));
                }
            }
            prop_assert_eq!(table.count() as usize, model.rows.len());
        }
        let mut seen: Vec<OwnedKey> = table.iter().map(|entry| entry.key).collect();
        seen.sort();
        let mut expected: Vec<OwnedKey> = model.rows.keys().cloned().collect();
        expected.sort();
        prop_assert_eq!(seen, expected);
        assert_whole(table.stats());
    }
}

fn assert_whole(stats: Stats) {
    assert_eq!((stats.claiming, stats.dead), (0, 0));
    assert_eq!(stats.blocks_linked + stats.blocks_free, stats.blocks);
}

/// Swoole's table of 64 rows refuses the 45th.
#[test]
fn exactly_capacity_rows_fit_whatever_their_keys() {
    for capacity in [1, 3, 64, 1000] {
        let table = table(two_columns(), capacity);
        let n = table.schema().column("n").unwrap();
        for round in 0..3_u32 {
            let key = |number: u32| number * 7919 + round;
            for number in 0..capacity {
                table.set(key(number), &[(n, ValueRef::Int(i64::from(number)))]).unwrap();
            }
            let refused = table.set(u64::MAX, &[]);
            assert!(
                matches!(refused, Err(TableError::Full { capacity: said }) if said == capacity)
            );
            table.set(key(0), &[(n, ValueRef::Int(-1))]).expect("updates still work");
            assert_eq!(table.count(), capacity);
            for number in 0..capacity {
                let expected = if number == 0 { -1 } else { i64::from(number) };
                assert_eq!(table.get(key(number)).unwrap().int(n), expected);
                assert!(table.del(key(number)) && !table.exists(key(number)));
            }
        }
        assert_whole(table.stats());
    }
}

#[test]
fn a_handle_reaches_one_life_of_a_key() {
    let table = table(two_columns(), 4);
    let n = table.schema().column("n").unwrap();
    let old = table.set("ann", &[(n, 1.into())]).unwrap();
    assert_eq!(table.find("ann"), Some(old));
    assert_eq!(table.key(old), Some(OwnedKey::Bytes(b"ann".to_vec())));
    table.rows().write(old, &[(n, 2.into())]).unwrap();
    assert_eq!(table.get("ann").unwrap().int(n), 2);
    assert!(table.remove(old) && !table.remove(old));
    let new = table.set("ann", &[]).unwrap();
    assert_eq!(table.rows().write(old, &[(n, 9.into())]), Err(WriteError::Stale));
    assert!(table.key(old).is_none());
    assert_eq!(table.rows().read_int(new, n), Some(0), "nothing of the earlier life shows");
    assert!(!table.rows().free(new) && table.rows().claim(1).is_none(), "by key only");
}

#[test]
fn keys_have_a_limit() {
    let table = table(two_columns(), 4);
    let long = vec![b'k'; KEY_LIMIT + 1];
    let refused = table.set(&long, &[]).unwrap_err();
    assert!(refused.to_string().contains("21 bytes") && refused.to_string().contains("20"));
    assert!(!table.exists(&long) && !table.del(&long));
    table.set(&long[..KEY_LIMIT], &[]).unwrap();
    assert!(table.exists(&long[..KEY_LIMIT]));
    assert!(table.exists(Key::Bytes(&long[..KEY_LIMIT])) && !table.exists(""));
}

#[test]
fn a_table_opened_twice_is_one_table() {
    let schema = Schema::new(two_columns()).unwrap();
    let words = heap_words(Table::words_needed(&schema, 5).unwrap());
    let first = Table::new(schema.clone(), 5, words).unwrap();
    first.set("ann", &[]).unwrap();
    let second = Table::new(schema.clone(), 5, words).unwrap();
    assert!(second.exists("ann"), "the seed of the hash is the table's");
    assert!(Table::new(schema, 6, words).is_err());
}

#[test]
fn a_table_in_shared_memory_says_its_size_before() {
    let schema = Schema::new(two_columns()).unwrap();
    let table = Table::create(schema.clone(), 1000).unwrap();
    assert_eq!(table.stats().memory_bytes, Table::words_needed(&schema, 1000).unwrap() * 8);
    assert!(Table::create(schema, 0).unwrap_err().to_string().contains("capacity of 0"));
    let huge = Schema::builder().bytes("b", 1 << 20).build().unwrap();
    let needed = (Table::words_needed(&huge, 16_000_000).unwrap() * 8).to_string();
    let refused = Table::create(huge, 16_000_000).unwrap_err();
    assert!(refused.to_string().contains(&needed), "{refused}");
}
