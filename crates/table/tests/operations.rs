//! What the operations of a keyed table promise, one process and two threads.
#![cfg(not(dunlin_loom))]

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use dunlin_table::{
    Added, ColumnId, Compared, Row, Schema, Table, TableError, ValueRef, WriteError, heap_words,
};

struct Fixture {
    table: Table,
    n: ColumnId,
    s: ColumnId,
    f: ColumnId,
}

fn fixture(capacity: u32) -> Fixture {
    let schema = Schema::builder().int("n").string("s", 10).float("f").counter("c").key_limit(8);
    let schema = schema.build().unwrap();
    let words = heap_words(Table::words_needed(&schema, capacity).unwrap());
    let [n, s, f] = ["n", "s", "f"].map(|name| schema.column(name).unwrap());
    Fixture { table: Table::new(schema, capacity, words).unwrap(), n, s, f }
}

#[test]
fn a_key_is_added_once() {
    let Fixture { table, n, s, .. } = fixture(1);
    let Added::New(id) = table.add("ann", &[(n, 1.into())]).unwrap() else { panic!("it is new") };
    assert_eq!(table.add("ann", &[(n, 2.into())]).unwrap(), Added::There(id));
    assert_eq!(table.get("ann").unwrap().int(n), 1);
    assert!(matches!(table.add("bob", &[]), Err(TableError::Full { capacity: 1 })));
    assert!(matches!(table.add("a key too long", &[]), Err(TableError::KeyTooLong { .. })));
    let long = table.add("ann", &[(s, "eleven char".into())]);
    assert!(matches!(long, Err(TableError::Write(WriteError::TooLong { len: 11, .. }))));
    let (there, row) = table.get_or_insert("ann", &[(n, 9.into())]).unwrap();
    assert_eq!((there, row.int(n)), (id, 1));
    assert!(table.del("ann"));
    assert_eq!(table.get_or_insert("ann", &[(n, 9.into())]).unwrap().1.int(n), 9);
}

#[test]
fn only_what_is_there_is_updated() {
    let Fixture { table, n, s, .. } = fixture(2);
    assert_eq!(table.update("ann", &[(n, 1.into())]).unwrap(), None);
    assert_eq!(table.count(), 0);
    let id = table.set("ann", &[(n, 1.into()), (s, "x".into())]).unwrap();
    assert_eq!(table.update("ann", &[(n, 2.into())]).unwrap(), Some(id));
    let row = table.get("ann").unwrap();
    assert_eq!((row.int(n), row.str(s)), (2, "x"));
    let declined = table.update_with("ann", |draft| Ok(draft.add_int(n, 5)? > 100)).unwrap();
    assert_eq!((declined, table.get("ann").unwrap().int(n)), (Compared::Differs, 2));
    let mut reused = Row::empty(table.schema());
    assert_eq!(table.get_into("ann", &mut reused), Some(id));
    assert_eq!(reused.int(n), 2);
    assert_eq!(table.get_into("bob", &mut reused), None);
}

#[test]
fn several_columns_are_compared_and_set_as_one() {
    let Fixture { table, n, s, f } = fixture(2);
    let absent = table.compare_set("ann", &[], &[(n, 1.into())]).unwrap();
    assert_eq!(absent, Compared::Absent);
    let id = table.set("ann", &[(n, 1.into()), (s, "red".into()), (f, f64::NAN.into())]).unwrap();
    for other in [
        [(n, ValueRef::Int(2)), (s, "red".into())],
        [(n, ValueRef::Int(1)), (s, "re".into())],
        [(n, ValueRef::Int(1)), (s, "reds".into())],
        [(n, ValueRef::Int(1)), (s, "".into())],
        [(n, ValueRef::Int(1)), (f, (-f64::NAN).into())],
    ] {
        let differs = table.compare_set("ann", &other, &[(n, 9.into())]).unwrap();
        assert_eq!(differs, Compared::Differs, "{other:?}");
    }
    let same = [(n, 1.into()), (s, "red".into()), (f, f64::NAN.into())];
    let done = table.compare_set("ann", &same, &[(n, 2.into()), (s, "blue".into())]).unwrap();
    assert_eq!(done, Compared::Done(id));
    let row = table.get("ann").unwrap();
    assert_eq!((row.int(n), row.str(s)), (2, "blue"));
    let wrong = table.compare_set("ann", &[(n, "2".into())], &[]);
    assert!(matches!(wrong, Err(TableError::Write(WriteError::WrongType { .. }))));

    assert_eq!(table.compare_del("ann", &[(n, 1.into())]).unwrap(), Compared::Differs);
    assert!(table.exists("ann"));
    assert_eq!(table.compare_del("ann", &[(n, 2.into())]).unwrap(), Compared::Done(id));
    assert_eq!(table.compare_del("ann", &[(n, 2.into())]).unwrap(), Compared::Absent);
    assert_eq!(table.stats().blocks_linked + table.stats().blocks_free, table.stats().blocks);
}

#[test]
fn a_row_is_taken_out_with_its_value() {
    let Fixture { table, n, .. } = fixture(1);
    assert!(table.get_del("ann").is_none());
    let id = table.set("ann", &[(n, 7.into())]).unwrap();
    assert_eq!(table.get_del("ann").unwrap().int(n), 7);
    assert!(table.get_del("ann").is_none() && !table.remove(id));
    let mut row = Row::empty(table.schema());
    assert!(!table.remove_into(id, &mut row));
    let id = table.set("bob", &[(n, 8.into())]).expect("the row is free again");
    assert!(table.remove_into(id, &mut row));
    assert_eq!(row.int(n), 8);
}

/// What was added, and what was taken out with the rows, is the same sum: nothing slips in between.
#[test]
fn nothing_added_is_lost_to_who_takes_the_row() {
    const ROUNDS: i64 = 20_000;
    let Fixture { table, n, .. } = fixture(2);
    let taken = AtomicI64::new(0);
    thread::scope(|scope| {
        for writer in 1..3 {
            let mut table = table.clone();
            table.set_writer(writer);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    table.incr("k", n, 1).unwrap();
                }
            });
        }
        let mut table = table.clone();
        table.set_writer(3);
        let taken = &taken;
        scope.spawn(move || {
            for _ in 0..ROUNDS {
                if let Some(row) = table.get_del("k") {
                    taken.fetch_add(row.int(n), Relaxed);
                }
            }
        });
    });
    let left = table.get_del("k").map_or(0, |row| row.int(n));
    assert_eq!(taken.load(Relaxed) + left, 2 * ROUNDS);
    assert_eq!((table.stats().live, table.stats().dead), (0, 0));
}

/// Made by the first call of the closure, found by the second, made anew by the third.
#[test]
fn what_an_upsert_was_told_is_what_is_stored() {
    let Fixture { table, n, .. } = fixture(8);
    let (mut calls, mut sum) = (0, 0);
    let change = |draft: &mut dunlin_table::Draft<'_>| {
        calls += 1;
        match calls {
            1 => drop(table.set("a", &[(n, 5.into())]).unwrap()),
            2 => assert!(table.del("a")),
            _ => {}
        }
        sum = draft.add_int(n, 1)?;
        Ok(())
    };
    table.upsert("a", change).unwrap();
    assert_eq!((calls, sum, table.get("a").unwrap().int(n)), (3, 1, 1));
    assert_eq!(table.stats().claiming, 0, "the row that was made first is given back");
}

#[test]
fn a_closure_that_says_stale_is_refused_and_not_called_for_ever() {
    let Fixture { table, n, .. } = fixture(2);
    let stale = |result| matches!(result, Err(TableError::Write(WriteError::Stale)));
    let mut calls = 0;
    let mut refuse = || {
        calls += 1;
        assert!(calls <= 3, "called for ever");
        Err(WriteError::Stale)
    };
    assert!(stale(table.upsert("a", |_| refuse()).map(drop)), "a row to be made");
    table.set("a", &[(n, 1.into())]).unwrap();
    assert!(stale(table.upsert("a", |_| refuse()).map(drop)), "one that is there");
    assert!(stale(table.update_with("a", |_| refuse().map(|()| true)).map(drop)));
    assert_eq!((calls, table.get("a").unwrap().int(n), table.count()), (3, 1, 1));
}

#[test]
fn a_ring_that_a_foreign_write_made_is_an_error() {
    let schema = Schema::builder().int("n").build().unwrap();
    let words = heap_words(Table::words_needed(&schema, 1).unwrap());
    let table = Table::new(schema, 1, words).unwrap();
    let id = table.set("a", &[]).unwrap();
    // Its own next: behind the header, entries of two lines, head and current word.
    words[8 + 16 * id.index as usize + 2].store(u64::from(id.index) + 1, Relaxed);
    assert!(table.exists("a"));
    // Of two buckets each key has one.
    let broken = |key: u64| matches!(table.set(key, &[]), Err(TableError::BrokenList));
    assert!(
        (0..64).any(broken)
            && (0..64).all(|key| !table.exists(key) && table.set(key, &[]).is_err())
    );
    table.del("a");
    assert!((0..64).any(broken), "its end is not known, so nothing was taken out");
    table.recover(|_| true);
    assert!((0..64).all(|key| !table.exists(key)));
}
