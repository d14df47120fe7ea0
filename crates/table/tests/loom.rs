//! Every interleaving, within the bound of preemptions, of the steps that rows, tables and the pool
//! take on shared words:
//! `RUSTFLAGS="--cfg dunlin_loom" cargo test -p dunlin-table --release --test loom`.
#![cfg(dunlin_loom)]

#[path = "loom/kills.rs"]
mod kills;
#[path = "loom/pool.rs"]
mod pool;

#[path = "loom/expiry.rs"]
mod expiry;

#[path = "loom/operations.rs"]
mod operations;

#[path = "loom/fill.rs"]
mod fill;

use dunlin_table::sync::Ordering::{Acquire, Relaxed, Release};
use dunlin_table::{
    ColumnId, HintIndex, RowId, Rows, Schema, SetIndex, Table, ValueRef, heap_words,
};
use loom::thread;

fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

fn pair_schema() -> (Schema, [ColumnId; 2]) {
    let schema = Schema::builder().int("a").int("b").counter("c").key_limit(8).build().unwrap();
    let columns = ["a", "b"].map(|name| schema.column(name).unwrap());
    (schema, columns)
}

fn rows(capacity: u32) -> (Rows, [ColumnId; 2]) {
    let (schema, columns) = pair_schema();
    let words = heap_words(Rows::words_needed(&schema, capacity).unwrap());
    (Rows::new(schema, capacity, words).unwrap(), columns)
}

fn table(capacity: u32) -> (Table, [ColumnId; 2]) {
    let (schema, columns) = pair_schema();
    let words = heap_words(Table::words_needed(&schema, capacity).unwrap());
    (Table::new(schema, capacity, words).unwrap(), columns)
}

fn twin(columns: [ColumnId; 2], value: i64) -> [(ColumnId, ValueRef<'static>); 2] {
    columns.map(|column| (column, ValueRef::Int(value)))
}

/// Both columns, which every writer sets to one value.
fn read_twin(rows: &Rows, columns: [ColumnId; 2], id: RowId) -> Option<i64> {
    let row = rows.read(id)?;
    assert_eq!(row.int(columns[0]), row.int(columns[1]), "a torn row");
    Some(row.int(columns[0]))
}

fn assert_nothing_leaked(rows: &Rows) {
    let stats = rows.stats();
    assert_eq!((stats.claiming, stats.dead), (0, 0));
    assert_eq!(stats.blocks_linked + stats.blocks_free, stats.blocks);
}

#[test]
fn a_row_is_claimed_by_one() {
    explore(3, || {
        let (rows, _) = rows(1);
        let other = rows.clone();
        let thread = thread::spawn(move || {
            let id = other.claim(1);
            if let Some(id) = id {
                assert_eq!(other.owner(id), Some(1));
                assert!(other.free(id));
            }
            id
        });
        let here = rows.claim(2);
        let there = thread.join().unwrap();
        assert!(here.is_some() || there.is_some());
        assert_ne!(here, there, "one life given twice");
        if let Some(id) = here {
            assert!(rows.free(id) && !rows.free(id));
        }
        assert!(rows.claim(3).is_some(), "the capacity is usable again");
    });
}

#[test]
fn a_reader_sees_whole_rows() {
    explore(3, || {
        let (rows, columns) = rows(1);
        let id = rows.claim(0).unwrap();
        rows.write(id, &twin(columns, 1)).unwrap();
        let writer = rows.clone();
        let thread = thread::spawn(move || {
            writer.write(id, &twin(columns, 2)).unwrap();
            // Takes the block that the row had at the beginning.
            writer.write(id, &twin(columns, 3)).unwrap();
        });
        let first = read_twin(&rows, columns, id).unwrap();
        let second = read_twin(&rows, columns, id).unwrap();
        assert!(1 <= first && first <= second, "went back from {first} to {second}");
        thread.join().unwrap();
        assert_eq!(read_twin(&rows, columns, id), Some(3));
        assert_nothing_leaked(&rows);
    });
}

#[test]
fn two_writers_lose_no_update() {
    explore(3, || {
        let (rows, columns) = rows(1);
        let id = rows.claim(0).unwrap();
        let add = move |rows: &Rows| {
            rows.update(id, |draft| {
                assert_eq!(draft.value(columns[0]), draft.value(columns[1]), "torn in the closure");
                for column in columns {
                    draft.add_int(column, 1)?;
                }
                Ok(true)
            })
            .unwrap();
        };
        let mut other = rows.clone();
        other.set_writer(1);
        let thread = thread::spawn(move || add(&other));
        add(&rows);
        thread.join().unwrap();
        assert_eq!(read_twin(&rows, columns, id), Some(2));
        assert_nothing_leaked(&rows);
    });
}

#[test]
fn a_late_write_never_reaches_the_next_life() {
    explore(3, || {
        let (rows, columns) = rows(1);
        let id = rows.claim(0).unwrap();
        rows.write(id, &twin(columns, 1)).unwrap();
        let mut other = rows.clone();
        other.set_writer(1);
        let thread = thread::spawn(move || {
            let _ = other.write(id, &twin(columns, 2));
            read_twin(&other, columns, id)
        });
        assert!(rows.free(id));
        let next = rows.claim(0).unwrap();
        assert_eq!(read_twin(&rows, columns, next), Some(0), "a new row is vacant");
        let seen = thread.join().unwrap();
        assert!(matches!(seen, None | Some(1 | 2)), "{seen:?}");
        assert_eq!(read_twin(&rows, columns, next), Some(0));
        assert_nothing_leaked(&rows);
    });
}

#[test]
fn a_recovery_takes_nothing_from_the_living() {
    explore(3, || {
        let (rows, columns) = rows(1);
        let id = rows.claim(0).unwrap();
        let mut other = rows.clone();
        other.set_writer(1);
        let thread = thread::spawn(move || {
            other.write(id, &twin(columns, 1)).unwrap();
            other.write(id, &twin(columns, 2)).unwrap();
        });
        rows.recover(|writer| writer != 1);
        thread.join().unwrap();
        assert_eq!(read_twin(&rows, columns, id), Some(2));
        assert_nothing_leaked(&rows);
    });
}

#[test]
fn a_key_is_inserted_once() {
    explore(3, || {
        let (table, columns) = table(2);
        let mut other = table.clone();
        other.set_writer(1);
        let thread = thread::spawn(move || other.incr("k", columns[0], 1).unwrap());
        let here = table.incr("k", columns[0], 1).unwrap();
        let there = thread.join().unwrap();
        assert_eq!(here + there, 3, "one made the row, the other found it");
        assert_eq!(table.count(), 1);
        assert_nothing_leaked(table.rows());
    });
}

#[test]
fn deleting_and_inserting_neighbours_lose_nothing() {
    explore(2, || {
        // One bucket: every key is a neighbour of every other.
        let (table, columns) = table(1);
        table.set("a", &twin(columns, 1)).unwrap();
        let mut other = table.clone();
        other.set_writer(1);
        let thread = thread::spawn(move || other.del("a"));
        let set = table.set("a", &twin(columns, 2));
        assert!(thread.join().unwrap());
        match table.get("a") {
            Some(row) => {
                assert!(set.is_ok());
                assert_eq!([row.int(columns[0]), row.int(columns[1])], [2, 2]);
            }
            // Set before the deletion, or refused because the row was not yet free.
            None => assert_eq!(table.count(), 0),
        }
        table.del("a");
        table.set("b", &twin(columns, 3)).unwrap();
        assert_nothing_leaked(table.rows());
    });
}

#[test]
fn a_row_reused_elsewhere_misleads_nobody() {
    explore(2, || {
        let (table, columns) = table(2);
        table.set("a", &twin(columns, 1)).unwrap();
        table.set("b", &twin(columns, 2)).unwrap();
        let mut other = table.clone();
        other.set_writer(1);
        let thread = thread::spawn(move || {
            assert!(other.del("a"));
            // The same row, now behind "b".
            other.set("c", &twin(columns, 3)).unwrap();
        });
        let row = table.get("b").expect("it was there throughout");
        assert_eq!([row.int(columns[0]), row.int(columns[1])], [2, 2]);
        thread.join().unwrap();
        assert!(table.exists("b") && table.exists("c") && !table.exists("a"));
        assert_nothing_leaked(table.rows());
    });
}

#[test]
fn a_row_is_free_only_when_its_list_has_left_it() {
    explore(2, || {
        let (table, columns) = table(2);
        table.set("a", &twin(columns, 1)).unwrap();
        table.set("b", &twin(columns, 2)).unwrap();
        let mut other = table.clone();
        other.set_writer(1);
        let thread = thread::spawn(move || assert!(other.del("a")));
        // Gets the row of "a", or finds the table full.
        let set = table.set("c", &twin(columns, 3));
        thread.join().unwrap();
        assert!(table.exists("b"), "cut off with a row that was made anew");
        assert_eq!(table.exists("c"), set.is_ok());
        assert_nothing_leaked(table.rows());
    });
}

#[test]
fn a_block_goes_from_writer_to_writer_under_a_reader() {
    explore(2, || {
        let (rows, columns) = rows(1);
        let id = rows.claim(0).unwrap();
        rows.write(id, &twin(columns, 1)).unwrap();
        let threads = [1, 2].map(|writer| {
            let mut rows = rows.clone();
            rows.set_writer(writer);
            thread::spawn(move || rows.write(id, &twin(columns, i64::from(writer) + 1)).unwrap())
        });
        assert!(matches!(read_twin(&rows, columns, id), Some(1..=3)));
        for thread in threads {
            thread.join().unwrap();
        }
        assert_nothing_leaked(&rows);
    });
}

#[test]
fn two_deleters_and_a_reader() {
    explore(2, || {
        let (table, columns) = table(1);
        table.set("a", &twin(columns, 1)).unwrap();
        let mut other = table.clone();
        other.set_writer(1);
        let thread = thread::spawn(move || other.del("a"));
        if let Some(row) = table.get("a") {
            assert_eq!([row.int(columns[0]), row.int(columns[1])], [1, 1]);
        }
        let here = table.del("a");
        assert_ne!(here, thread.join().unwrap(), "exactly one deleted it");
        assert_eq!(table.stats().live, 0);
        assert_nothing_leaked(table.rows());
    });
}

#[test]
fn a_sweeper_does_not_remove_a_renewed_hint() {
    explore(3, || {
        let index = HintIndex::new(1, heap_words(HintIndex::words_needed(1).unwrap())).unwrap();
        let alive = &heap_words(1)[0];
        index.insert(9, 1).unwrap();
        let other = index.clone();
        let thread = thread::spawn(move || {
            other.sweep(9, |_, _| alive.load(Acquire) == 1);
        });
        alive.store(1, Release);
        index.insert(9, 1).unwrap();
        thread.join().unwrap();
        let mut found = 0;
        index.find(9, &mut |_| found += 1);
        assert!(found >= 1, "{}", alive.load(Relaxed));
    });
}

#[test]
fn a_sweeper_does_not_remove_a_hint_that_took_the_cell_of_a_removed_one() {
    explore(3, || {
        let index = HintIndex::new(1, heap_words(HintIndex::words_needed(1).unwrap())).unwrap();
        let alive = &heap_words(1)[0];
        index.insert(9, 1).unwrap();
        let other = index.clone();
        let thread = thread::spawn(move || {
            other.sweep(9, |_, _| alive.load(Acquire) == 1);
        });
        index.remove(9, 1);
        alive.store(1, Release);
        index.insert(9, 1).unwrap();
        thread.join().unwrap();
        let mut found = 0;
        index.find(9, &mut |_| found += 1);
        assert_eq!(found, 1);
    });
}

#[test]
fn whoever_hears_of_a_member_finds_it_however_far_its_set_reaches() {
    explore(3, || {
        let words = heap_words(SetIndex::words_needed(8, 1).unwrap());
        let index = SetIndex::new(8, 1, words).unwrap();
        // The set's first window is full.
        (0..4).for_each(|row| index.insert(9, row).unwrap());
        let told = loom::sync::Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let (other, tell) = (index.clone(), told.clone());
        let thread = thread::spawn(move || {
            other.insert(9, 7).unwrap();
            tell.store(true, Release);
        });
        let heard = told.load(Acquire);
        let mut found = Vec::new();
        index.find(9, &mut |row| found.push(row));
        assert!(!heard || found.contains(&7), "{found:?}");
        assert!((0..4).all(|row| found.contains(&row)), "{found:?}");
        assert!(index.remove(9, 0));
        thread.join().unwrap();
    });
}
