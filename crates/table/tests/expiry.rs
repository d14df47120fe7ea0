//! Deadlines of rows and their sweep, with a clock that the test turns.
#![cfg(not(dunlin_loom))]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use dunlin_table::{
    Added, ColumnId, MAX_DEADLINE, OwnedKey, Row, Rows, Schema, Table, TableError, ValueRef,
    heap_words,
};

fn schema() -> Schema {
    Schema::builder().int("n").counter("c").key_limit(8).expires().build().unwrap()
}

fn table(capacity: u32) -> (Table, ColumnId) {
    let words = heap_words(Table::words_needed(&schema(), capacity).unwrap());
    let n = schema().column("n").unwrap();
    (Table::new(schema(), capacity, words).unwrap(), n)
}

fn rows(capacity: u32) -> (Rows, ColumnId) {
    let words = heap_words(Rows::words_needed(&schema(), capacity).unwrap());
    (Rows::new(schema(), capacity, words).unwrap(), schema().column("n").unwrap())
}

#[test]
fn a_row_lives_until_its_deadline() {
    let (table, n) = table(4);
    let id = table.set_until("ann", &[(n, 7.into())], 100).unwrap();
    table.set("bob", &[]).unwrap();
    assert_eq!((table.rows().deadline(id), table.sweep(99, 0, 4).swept.len()), (Some(100), 0));
    assert!(table.touch("ann", 200) && !table.touch("eve", 200));
    assert_eq!(table.sweep(199, 0, 4).swept.len(), 0);
    let sweep = table.sweep(200, 0, 4);
    assert_eq!((sweep.swept.len(), sweep.next), (1, 0));
    let entry = &sweep.swept[0];
    assert_eq!((entry.id, entry.key.clone()), (id, OwnedKey::Bytes(b"ann".to_vec())));
    assert_eq!(entry.row.int(n), 7);
    assert!(!table.exists("ann") && !table.rows().touch(id, 300));
    assert_eq!(table.rows().deadline(id), None);
    assert!(table.exists("bob"), "no deadline");
    assert!(table.sweep(u64::MAX, 0, 4).swept.is_empty());
}

#[test]
fn set_until_moves_the_deadline_and_set_does_not() {
    let (table, n) = table(2);
    let id = table.set_until("ann", &[(n, 1.into())], 100).unwrap();
    table.set("ann", &[(n, 2.into())]).unwrap();
    assert_eq!(table.rows().deadline(id), Some(100));
    assert_eq!(table.set_until("ann", &[(n, 3.into())], 150).unwrap(), id);
    assert_eq!(table.rows().deadline(id), Some(150));
    assert_eq!(table.set_until("ann", &[], 0).unwrap(), id);
    assert_eq!((table.rows().deadline(id), table.sweep(u64::MAX, 0, 2).swept.len()), (Some(0), 0));
    assert!(table.touch("ann", u64::MAX));
    assert_eq!(table.rows().deadline(id), Some(MAX_DEADLINE));
    assert_eq!(table.sweep(MAX_DEADLINE, 0, 2).swept.len(), 1);
}

#[test]
fn a_sweep_looks_at_one_slice() {
    let (table, _) = table(10);
    for key in 0..10 {
        table.set_until(key, &[], 5).unwrap();
    }
    let mut sizes = Vec::new();
    let mut from = 0;
    loop {
        let sweep = table.sweep(5, from, 4);
        sizes.push((sweep.swept.len(), sweep.next));
        from = sweep.next;
        if from == 0 {
            break;
        }
    }
    assert_eq!(sizes, [(4, 4), (4, 8), (2, 0)]);
    assert_eq!(table.count(), 0);
    table.set_until("ann", &[], 5).unwrap();
    assert_eq!(table.sweep(5, 4, 0).next, 4, "an empty slice stays where it is");
    assert_eq!(table.sweep(5, u32::MAX, u32::MAX).swept.len(), 1, "from the start, all of it");
}

#[test]
fn a_late_handle_neither_extends_nor_ends_the_next_life() {
    let (rows, n) = rows(1);
    let old = rows.claim(1).unwrap();
    assert!(rows.touch(old, 100) && rows.free(old));
    assert!(!rows.touch(old, 500));
    assert!(rows.sweep(1000, 0, 1).swept.is_empty(), "the word of a row that is gone");
    let new = rows.claim(2).unwrap();
    assert_eq!((rows.deadline(new), rows.deadline(old)), (Some(0), None));
    assert!(!rows.touch(old, 500) && rows.touch(new, 50));
    rows.write(new, &[(n, 3.into())]).unwrap();
    let sweep = rows.sweep(50, 0, 1);
    let swept = &sweep.swept[0];
    assert_eq!((swept.id, swept.owner, swept.row.int(n)), (new, 2, 3));
    assert_eq!(rows.count(), 0);
    let mut row = Row::empty(rows.schema());
    assert_eq!(rows.free_into(new, &mut row), None);
    let third = rows.claim(3).unwrap();
    assert_eq!(rows.free_into(third, &mut row), Some(3));
    assert_eq!(row.int(n), 0, "vacant");
    assert_eq!(rows.stats().blocks_linked + rows.stats().blocks_free, rows.stats().blocks);
}

#[test]
fn without_deadlines_nothing_expires() {
    let schema = Schema::builder().int("n").build().unwrap();
    let words = heap_words(Table::words_needed(&schema, 2).unwrap());
    let table = Table::new(schema, 2, words).unwrap();
    let id = table.set("ann", &[]).unwrap();
    assert!(matches!(table.set_until("ann", &[], 1), Err(TableError::NoDeadlines)));
    assert!(!table.touch("ann", 1) && table.rows().deadline(id).is_none());
    assert!(table.sweep(u64::MAX, 0, 2).swept.is_empty());
    let (keyed, _) = self::table(1);
    keyed.set_until("ann", &[], 1).unwrap();
    assert!(keyed.rows().sweep(9, 0, 1).swept.is_empty() && keyed.exists("ann"), "by key only");
    let id = keyed.find("ann").unwrap();
    assert!(keyed.rows().free_into(id, &mut Row::empty(keyed.schema())).is_none());
}

/// Threads set and touch a few keys while two others sweep: a touch that said yes is kept, and each row
/// is returned once.
#[test]
fn what_was_touched_in_time_is_never_swept() {
    const KEYS: u64 = 4;
    const ROUNDS: u64 = 20_000;
    let (table, n) = table(8);
    let clock = AtomicU64::new(1);
    let made = AtomicU64::new(0);
    let swept = AtomicU64::new(0);
    thread::scope(|scope| {
        for (writer, key) in (1..).zip(0..KEYS) {
            let (mut table, clock, made) = (table.clone(), &clock, &made);
            table.set_writer(writer);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let far = 1_000_000 + round;
                    if table.touch(key, far) {
                        let id = table.find(key).expect("touched, and its deadline is far");
                        assert_eq!(table.rows().deadline(id), Some(far));
                        let near = clock.fetch_add(1, Relaxed);
                        assert!(table.rows().touch(id, near), "nobody sweeps what is not due");
                    } else if let Added::New(id) = table.add(key, &[(n, 1.into())]).unwrap() {
                        made.fetch_add(1, Relaxed);
                        assert!(table.rows().touch(id, clock.load(Relaxed)), "it was not yet due");
                    }
                }
            });
        }
        for writer in [11, 12] {
            let (mut table, clock, swept) = (table.clone(), &clock, &swept);
            table.set_writer(writer);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let found = table.sweep(clock.load(Relaxed), 0, 8).swept;
                    swept.fetch_add(found.len() as u64, Relaxed);
                }
            });
        }
    });
    let left = table.sweep(MAX_DEADLINE, 0, 8).swept.len() as u64;
    assert_eq!(made.load(Relaxed), swept.load(Relaxed) + left);
    assert!(swept.load(Relaxed) > 0, "nothing was swept");
    table.set("new", &[(n, ValueRef::Int(1))]).unwrap();
    assert_eq!((table.stats().live, table.stats().dead), (1, 0));
}
