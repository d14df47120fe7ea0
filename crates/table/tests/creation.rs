//! What cannot be made is refused when it is to be made, with the number that is wrong.
#![cfg(not(dunlin_loom))]

use std::time::{Duration, Instant};

use dunlin_table::{
    Column, ColumnKind, Description, LayoutError, MAX_COLUMN_BYTES, MAX_COLUMNS, MAX_KEY_BYTES,
    MAX_ROWS, Region, RegionError, Rows, Schema, SchemaError, Table, TableError,
};
use nix::sys::statvfs::statvfs;

fn one_column() -> Schema {
    Schema::builder().int("n").build().unwrap()
}

#[test]
fn a_capacity_of_nothing_or_too_much() {
    let schema = one_column();
    let empty = Table::create(schema.clone(), 0).unwrap_err();
    assert!(matches!(empty, TableError::Layout(LayoutError::Empty { what: "rows" })));
    assert_eq!(empty.to_string(), "a capacity of 0 rows holds nothing");
    for capacity in [MAX_ROWS + 1, u32::MAX] {
        let many = LayoutError::TooMany { what: "rows", count: capacity, most: MAX_ROWS };
        assert_eq!(many.to_string(), format!("{capacity} rows are more than {MAX_ROWS}"),);
        assert_eq!(Table::words_needed(&schema, capacity), Err(many.clone()));
        assert_eq!(Rows::memory_needed(&schema, capacity), Err(many.clone()));
        assert_eq!(Description::of_table(&schema, capacity), Err(many.clone()));
        let refused = Table::create(schema.clone(), capacity).unwrap_err();
        assert!(matches!(refused, TableError::Layout(error) if error == many));
    }
    assert!(Table::memory_needed(&schema, MAX_ROWS).is_ok());
}

#[test]
fn schemas_that_cannot_be() {
    let too_many = (0..=MAX_COLUMNS)
        .map(|number| Column { name: number.to_string(), kind: ColumnKind::Int })
        .collect();
    let wide = (0..9).fold(Schema::builder(), |schema, number| {
        schema.string(&number.to_string(), MAX_COLUMN_BYTES)
    });
    let int = || Schema::builder().int("n");
    for (refused, says) in [
        (Schema::builder().build(), "at least one column"),
        (Schema::new(Vec::new()), "at least one column"),
        (Schema::new(too_many), "1025 columns are more than 1024"),
        (int().float("").build(), "column number 1 has an empty name"),
        (int().counter("n").build(), "column \"n\" is there twice"),
        (int().string("s", 0).build(), "column \"s\" cannot hold 0 bytes: 1 to 1048576"),
        (int().bytes("b", MAX_COLUMN_BYTES + 1).build(), "column \"b\" cannot hold 1048577 bytes"),
        (int().bytes("b", usize::MAX).build(), "18446744073709551615 bytes"),
        (wide.build(), "a row of 1179657 words is larger than 1048576"),
        (int().key_limit(0).build(), "keys cannot be limited to 0 bytes: 1 to 4096"),
        (int().key_limit(MAX_KEY_BYTES + 1).build(), "keys cannot be limited to 4097 bytes"),
    ] {
        let error: SchemaError = refused.expect_err(says);
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(int().key_limit(MAX_KEY_BYTES).bytes("b", MAX_COLUMN_BYTES).build().is_ok());
}

#[test]
fn a_row_may_have_nothing_but_counters() {
    let schema = Schema::builder().counter("c").build().unwrap();
    let counter = schema.counter_column("c").unwrap();
    let table = Table::create(schema, 2).unwrap();
    table.add("ann", &[]).unwrap();
    assert_eq!(table.counter("ann", counter).unwrap().incr(2), Some(2));
    assert!(table.get("ann").is_some() && table.get_del("ann").is_some() && !table.exists("ann"));
}

fn free_bytes() -> u64 {
    let space = statvfs("/dev/shm").unwrap();
    space.blocks_free() * space.fragment_size()
}

/// Also when it is less than the file system could hold if it were empty: then the kernel alone would
/// fill all that is free before it gives up.
#[test]
#[expect(clippy::disallowed_methods, reason = "how long a refusal takes is what is tested")]
fn more_than_the_machine_has_free() {
    let too_much = free_bytes() + (64 << 20);
    let started = Instant::now();
    let error = Region::create(usize::try_from(too_much / 8).unwrap()).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(1), "it filled the memory first");
    let RegionError::Reserve { bytes, free, .. } = &error else { panic!("{error}") };
    assert!(*bytes as u64 == too_much / 8 * 8 && *free < too_much, "{error}");
    let text = error.to_string();
    assert!(text.contains(&bytes.to_string()) && text.contains(&free.to_string()), "{text}");

    let huge = Schema::builder().bytes("b", 1 << 20).build().unwrap();
    let needed = Table::memory_needed(&huge, 16_000_000).unwrap();
    let refused = Table::create(huge, 16_000_000).unwrap_err();
    assert!(refused.to_string().contains(&needed.to_string()), "{refused}");
}

#[test]
fn the_size_is_known_before() {
    let schema = Schema::builder().int("n").string("s", 30).counter("c").expires().build().unwrap();
    for capacity in [1, 77, 1000] {
        let needed = Table::memory_needed(&schema, capacity).unwrap();
        let table = Table::create(schema.clone(), capacity).unwrap();
        assert_eq!((table.stats().memory_bytes, table.describe().bytes), (needed, needed));
    }
}
