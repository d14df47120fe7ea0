//! The keyed table against a `HashMap`: random schemas, keys and operations.
#![cfg(not(dunlin_loom))]

#[path = "model/pair.rs"]
mod pair;
#[path = "model/reference.rs"]
mod reference;
#[path = "model/steps.rs"]
mod steps;

use std::collections::HashMap;

use dunlin_table::{
    Column, ColumnKind, Key, OwnedKey, Schema, Stats, Table, TableError, ValueRef, WriteError,
    heap_words,
};
use proptest::prelude::*;

use pair::Pair;
use reference::Reference;
use steps::{KEY_LIMIT_MAX, columns, steps};

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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 600, ..Default::default() })]
    #[test]
    fn a_table_is_a_bounded_hash_map(
        kinds in columns(),
        capacity in 1_u32..20,
        key_limit in 1..=KEY_LIMIT_MAX,
        expires in any::<bool>(),
        steps in steps(),
    ) {
        let mut pair = pair(&kinds, capacity, key_limit, expires);
        for step in &steps {
            pair.take(step);
            prop_assert_eq!(pair.table.count() as usize, pair.reference.rows.len(), "{:?}", step);
        }
        pair.compare();
        assert_whole(pair.table.stats());
    }
}

fn pair(kinds: &[ColumnKind], capacity: u32, key_limit: usize, expires: bool) -> Pair {
    let mut builder = Schema::builder().int("n").counter("count").key_limit(key_limit);
    if expires {
        builder = builder.expires();
    }
    for (number, kind) in kinds.iter().enumerate() {
        let name = number.to_string();
        builder = match *kind {
            ColumnKind::Int => builder.int(&name),
            ColumnKind::Float => builder.float(&name),
            ColumnKind::Str(limit) => builder.string(&name, limit),
            ColumnKind::Bytes(limit) => builder.bytes(&name, limit),
            ColumnKind::Counter => builder.counter(&name),
        };
    }
    let schema = builder.build().unwrap();
    let (columns, kinds) = schema
        .columns()
        .iter()
        .filter_map(|column| Some((schema.column(&column.name)?, column.kind)))
        .unzip();
    let words = heap_words(Table::words_needed(&schema, capacity).unwrap());
    let counter = schema.counter_column("count").unwrap();
    let table = Table::new(schema, capacity, words).unwrap();
    let (rows, gone) = (HashMap::new(), Vec::new());
    let capacity = capacity as usize;
    let reference = Reference { kinds, capacity, key_limit, expires, rows, gone };
    Pair { table, reference, columns, counter, now: 100, from: 0 }
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
