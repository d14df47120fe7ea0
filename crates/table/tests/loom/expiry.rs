//! A touch against a sweep, a sweep against the next life of a row, and a sweeper that is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use dunlin_table::{ColumnId, Rows, Schema, Table, heap_words};
use loom::thread;

use crate::kills::{
    OTHER, VICTIM, assert_usable, killed_at_every_access, table_with_writer, with_writer,
};
use crate::{assert_nothing_leaked, explore, read_twin, twin};

/// When the rows of the models are due, and a deadline that is far.
const NOW: u64 = 5;
const FAR: u64 = 100;

fn schema() -> (Schema, [ColumnId; 2]) {
    let schema = Schema::builder().int("a").int("b").key_limit(8).expires().build().unwrap();
    let columns = ["a", "b"].map(|name| schema.column(name).unwrap());
    (schema, columns)
}

fn rows(capacity: u32) -> (Rows, [ColumnId; 2]) {
    let (schema, columns) = schema();
    let words = heap_words(Rows::words_needed(&schema, capacity).unwrap());
    (Rows::new(schema, capacity, words).unwrap(), columns)
}

fn table(capacity: u32) -> (Table, [ColumnId; 2]) {
    let (schema, columns) = schema();
    let words = heap_words(Table::words_needed(&schema, capacity).unwrap());
    (Table::new(schema, capacity, words).unwrap(), columns)
}

#[test]
fn a_row_is_touched_or_swept() {
    explore(3, || {
        let (rows, columns) = rows(1);
        let id = rows.claim(7).unwrap();
        rows.write(id, &twin(columns, 1)).unwrap();
        assert!(rows.touch(id, NOW));
        let other = with_writer(&rows, OTHER);
        let thread = thread::spawn(move || other.touch(id, FAR));
        let swept = rows.sweep(NOW, 0, 1).swept;
        let touched = thread.join().unwrap();
        assert_ne!(touched, !swept.is_empty(), "both or neither");
        assert_eq!(rows.deadline(id), touched.then_some(FAR));
        assert_eq!(rows.is_live(id), touched);
        assert_nothing_leaked(&rows);
    });
}

#[test]
fn a_write_is_in_what_is_swept_or_refused() {
    explore(3, || {
        let (rows, columns) = rows(1);
        let id = rows.claim(7).unwrap();
        rows.write(id, &twin(columns, 1)).unwrap();
        rows.touch(id, NOW);
        let other = with_writer(&rows, OTHER);
        let thread = thread::spawn(move || other.write(id, &twin(columns, 2)).is_ok());
        let sweep = rows.sweep(NOW, 0, 1);
        let value = sweep.swept[0].row.int(columns[0]);
        assert_eq!(value, sweep.swept[0].row.int(columns[1]), "a torn row");
        assert_eq!(value, if thread.join().unwrap() { 2 } else { 1 });
        assert_nothing_leaked(&rows);
    });
}

#[test]
fn a_late_touch_does_not_reach_the_next_life() {
    explore(3, || {
        let (rows, _) = rows(1);
        let old = rows.claim(7).unwrap();
        rows.touch(old, NOW);
        let other = with_writer(&rows, OTHER);
        let thread = thread::spawn(move || other.touch(old, FAR));
        assert!(rows.free(old));
        let new = rows.claim(8).unwrap();
        assert_eq!(rows.deadline(new), Some(0));
        assert!(rows.touch(new, NOW));
        thread.join().unwrap();
        assert_eq!(rows.sweep(NOW, 0, 1).swept.len(), 1, "extended by a holder of an old handle");
    });
}

#[test]
fn a_late_sweep_does_not_reach_the_next_life() {
    explore(3, || {
        let (rows, columns) = rows(1);
        let old = rows.claim(7).unwrap();
        rows.touch(old, NOW);
        let other = with_writer(&rows, OTHER);
        let thread = thread::spawn(move || other.sweep(NOW, 0, 1).swept.len());
        let freed = rows.free(old);
        // The sweeper may hold the only row for some instructions.
        if let Some(new) = rows.claim(8) {
            assert!(rows.touch(new, FAR), "a new row is nobody's to sweep");
            rows.write(new, &twin(columns, 2)).unwrap();
            assert_eq!(thread.join().unwrap(), usize::from(!freed));
            assert_eq!((read_twin(&rows, columns, new), rows.deadline(new)), (Some(2), Some(FAR)));
        } else {
            assert_eq!(thread.join().unwrap(), usize::from(!freed));
        }
        assert_nothing_leaked(&rows);
    });
}

#[test]
fn two_sweepers_return_a_row_once() {
    explore(2, || {
        let (table, columns) = table(1);
        table.set_until("k", &twin(columns, 1), NOW).unwrap();
        let other = table_with_writer(&table, OTHER);
        let thread = thread::spawn(move || other.sweep(NOW, 0, 1).swept.len());
        let here = table.sweep(NOW, 0, 1).swept.len();
        let both = here + thread.join().unwrap();
        // Who finds the row marked by the other takes it, or is beaten to it.
        assert_eq!(both, 1);
        assert!(!table.exists("k"));
        assert_nothing_leaked(table.rows());
    });
}

#[test]
fn a_key_set_until_later_is_there_after_a_sweep() {
    explore(2, || {
        let (table, columns) = table(2);
        table.set_until("k", &twin(columns, 1), NOW).unwrap();
        let other = table_with_writer(&table, OTHER);
        let thread = thread::spawn(move || {
            let swept = other.sweep(NOW, 0, 2).swept;
            swept.iter().map(|entry| entry.row.int(columns[0])).collect::<Vec<_>>()
        });
        let id = table.set_until("k", &twin(columns, 2), FAR).unwrap();
        let swept = thread.join().unwrap();
        assert!(swept.is_empty() || swept == [1], "{swept:?}");
        assert_eq!(table.find("k"), Some(id));
        assert_eq!(read_twin(table.rows(), columns, id), Some(2));
        assert_eq!(table.rows().deadline(id), Some(FAR));
        assert_nothing_leaked(table.rows());
    });
}

#[test]
fn a_sweeper_is_killed_beside_a_touch() {
    killed_at_every_access(1, |mortal| {
        let (rows, columns) = rows(1);
        let id = rows.claim(7).unwrap();
        rows.write(id, &twin(columns, 1)).unwrap();
        rows.touch(id, NOW);
        let other = with_writer(&rows, OTHER);
        let thread = thread::spawn(move || other.touch(id, FAR));
        let victim = with_writer(&rows, VICTIM);
        let swept = Arc::new(AtomicUsize::new(0));
        let count = swept.clone();
        mortal.run(|| count.store(victim.sweep(NOW, 0, 1).swept.len(), Relaxed));
        let touched = thread.join().unwrap();
        rows.recover(|writer| writer == VICTIM);
        let left = rows.sweep(NOW, 0, 1).swept.len();
        assert!(swept.load(Relaxed) + left <= 1, "returned twice");
        assert_eq!(rows.is_live(id), touched, "extended and freed, or neither");
        assert_eq!(rows.deadline(id), touched.then_some(FAR));
        rows.free(id);
        assert!(rows.claim(0).is_some(), "the capacity is usable again");
        assert_nothing_leaked(&rows);
    });
}

#[test]
fn a_sweeper_of_a_table_is_killed_beside_who_sets_the_key() {
    killed_at_every_access(1, |mortal| {
        let (table, columns) = table(2);
        table.set_until("a", &twin(columns, 1), NOW).unwrap();
        let other = table_with_writer(&table, OTHER);
        let thread = thread::spawn(move || other.set_until("a", &twin(columns, 2), FAR).unwrap());
        let victim = table_with_writer(&table, VICTIM);
        mortal.run(|| {
            victim.sweep(NOW, 0, 2);
        });
        let id = thread.join().unwrap();
        assert!(table.sweep(NOW, 0, 2).swept.is_empty(), "it is not due");
        assert_eq!(table.find("a"), Some(id));
        assert_eq!(read_twin(table.rows(), columns, id), Some(2));
        assert_usable(&table, columns);
    });
}

#[test]
fn who_sets_a_key_until_is_killed_beside_a_sweep() {
    killed_at_every_access(1, |mortal| {
        let (table, columns) = table(2);
        table.set_until("a", &twin(columns, 1), NOW).unwrap();
        let other = table_with_writer(&table, OTHER);
        let thread = thread::spawn(move || other.sweep(NOW, 0, 2).swept.len());
        let victim = table_with_writer(&table, VICTIM);
        let finished =
            mortal.run(|| assert!(victim.set_until("a", &twin(columns, 2), FAR).is_ok()));
        thread.join().unwrap();
        table.sweep(NOW, 0, 2);
        let value = table.find("a").and_then(|id| read_twin(table.rows(), columns, id));
        assert!(value == Some(2) || !finished && matches!(value, None | Some(1)), "{value:?}");
        assert_usable(&table, columns);
    });
}
