//! One process is killed before each of its accesses to shared words in turn, in every interleaving
//! with another one that lives. This is "at any instruction": only accesses to shared words show.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use dunlin_table::sync::{Killed, die_after, spare};
use dunlin_table::{Rows, Table};
use loom::thread;

use crate::{assert_nothing_leaked, explore, read_twin, rows, table, twin};

/// The writer number of who is killed, and of who is not.
pub(crate) const VICTIM: u16 = 1;
pub(crate) const OTHER: u16 = 2;

#[derive(Clone)]
pub(crate) struct Mortal {
    accesses: u32,
    died: Arc<AtomicBool>,
}

impl Mortal {
    /// Does the work, or as much of it as the kill leaves. Whether it was finished.
    pub(crate) fn run(&self, work: impl FnOnce()) -> bool {
        die_after(self.accesses);
        let end = catch_unwind(AssertUnwindSafe(work));
        spare();
        match end {
            Ok(()) => true,
            Err(cause) if cause.is::<Killed>() => {
                self.died.store(true, Relaxed);
                false
            }
            Err(cause) => resume_unwind(cause),
        }
    }
}

pub(crate) fn killed_at_every_access(
    preemptions: usize,
    model: impl Fn(&Mortal) + Clone + Sync + Send + 'static,
) {
    for accesses in 0.. {
        let mortal = Mortal { accesses, died: Arc::default() };
        let died = mortal.died.clone();
        let model = model.clone();
        explore(preemptions, move || model(&mortal));
        if !died.load(Relaxed) {
            assert!(accesses > 5, "it did nothing");
            return;
        }
    }
}

pub(crate) fn with_writer(rows: &Rows, writer: u16) -> Rows {
    let mut rows = rows.clone();
    rows.set_writer(writer);
    rows
}

pub(crate) fn table_with_writer(table: &Table, writer: u16) -> Table {
    let mut table = table.clone();
    table.set_writer(writer);
    table
}

/// The row's first block carries the number of a writer that lives, or died long ago: only the debt
/// noted in the block that replaced it can free it.
#[test]
fn a_writer() {
    killed_at_every_access(2, |mortal| {
        let (rows, columns) = rows(1);
        let id = rows.claim(0).unwrap();
        rows.write(id, &twin(columns, 1)).unwrap();
        let victim = with_writer(&rows, VICTIM);
        let finished = mortal.run(|| victim.write(id, &twin(columns, 2)).unwrap());
        let value = read_twin(&rows, columns, id).unwrap();
        assert!(value == 2 || (value == 1 && !finished));
        rows.recover(|writer| writer == VICTIM);
        assert_nothing_leaked(&rows);
        assert_eq!(read_twin(&rows, columns, id), Some(value));
    });
}

#[test]
fn a_writer_beside_another() {
    killed_at_every_access(2, |mortal| {
        let (rows, columns) = rows(1);
        let id = rows.claim(0).unwrap();
        rows.write(id, &twin(columns, 1)).unwrap();
        let other = with_writer(&rows, OTHER);
        let thread = thread::spawn(move || other.write(id, &twin(columns, 3)).unwrap());
        let victim = with_writer(&rows, VICTIM);
        mortal.run(|| victim.write(id, &twin(columns, 2)).unwrap());
        thread.join().unwrap();
        let value = read_twin(&rows, columns, id).unwrap();
        assert!(matches!(value, 2 | 3), "the other's write is lost: {value}");
        rows.recover(|writer| writer == VICTIM);
        assert_nothing_leaked(&rows);
        rows.write(id, &twin(columns, 4)).unwrap();
        assert_nothing_leaked(&rows);
    });
}

#[test]
fn a_writer_while_another_recovers_it_and_a_third_writes() {
    killed_at_every_access(2, |mortal| {
        let (rows, columns) = rows(1);
        let id = rows.claim(0).unwrap();
        rows.write(id, &twin(columns, 1)).unwrap();
        let victim = with_writer(&rows, VICTIM);
        mortal.run(|| victim.write(id, &twin(columns, 2)).unwrap());
        let other = with_writer(&rows, OTHER);
        let thread = thread::spawn(move || other.write(id, &twin(columns, 3)).unwrap());
        rows.recover(|writer| writer == VICTIM);
        thread.join().unwrap();
        assert_eq!(read_twin(&rows, columns, id), Some(3));
        assert_nothing_leaked(&rows);
    });
}

#[test]
fn a_claimer_and_freer() {
    killed_at_every_access(2, |mortal| {
        let (rows, columns) = rows(1);
        let other = with_writer(&rows, OTHER);
        let thread = thread::spawn(move || {
            other.claim(OTHER).is_some_and(|id| {
                assert_eq!(read_twin(&other, columns, id), Some(0));
                other.free(id)
            })
        });
        let victim = with_writer(&rows, VICTIM);
        mortal.run(|| {
            if let Some(id) = victim.claim(VICTIM) {
                victim.write(id, &twin(columns, 1)).unwrap();
                assert!(victim.free(id));
            }
        });
        thread.join().unwrap();
        rows.recover(|writer| writer == VICTIM);
        // What a server does with the rows of a dead owner.
        rows.owned_by(VICTIM).for_each(|id| assert!(rows.free(id)));
        let id = rows.claim(0).expect("the capacity is usable again");
        assert_eq!(read_twin(&rows, columns, id), Some(0));
        assert_nothing_leaked(&rows);
    });
}

#[test]
fn an_inserter_beside_another_of_the_same_key() {
    killed_at_every_access(1, |mortal| {
        let (table, columns) = table(2);
        let other = table_with_writer(&table, OTHER);
        let thread = thread::spawn(move || other.set("a", &twin(columns, 2)).unwrap());
        let victim = table_with_writer(&table, VICTIM);
        mortal.run(|| assert!(victim.set("a", &twin(columns, 1)).is_ok()));
        thread.join().unwrap();
        assert!(table.exists("a"), "an acknowledged insertion is lost");
        assert_usable(&table, columns);
    });
}

#[test]
fn a_deleter_beside_an_inserter_of_the_same_key() {
    killed_at_every_access(1, |mortal| {
        let (table, columns) = table(2);
        table.set("a", &twin(columns, 1)).unwrap();
        let other = table_with_writer(&table, OTHER);
        let thread = thread::spawn(move || other.set("a", &twin(columns, 2)).unwrap());
        let victim = table_with_writer(&table, VICTIM);
        mortal.run(|| assert!(victim.del("a")));
        thread.join().unwrap();
        if let Some(row) = table.get("a") {
            assert_eq!([row.int(columns[0]), row.int(columns[1])], [2, 2]);
        }
        assert_usable(&table, columns);
    });
}

#[test]
fn a_deleter_beside_its_neighbour() {
    killed_at_every_access(1, |mortal| {
        let (table, columns) = table(2);
        table.set("a", &twin(columns, 1)).unwrap();
        table.set("b", &twin(columns, 2)).unwrap();
        let other = table_with_writer(&table, OTHER);
        let thread = thread::spawn(move || assert!(other.del("b"), "it was there throughout"));
        let victim = table_with_writer(&table, VICTIM);
        mortal.run(|| assert!(victim.del("a")));
        thread.join().unwrap();
        assert!(!table.exists("b"));
        assert_usable(&table, columns);
    });
}

/// After a recovery: nothing half done, nothing leaked, and every row can be had.
pub(crate) fn assert_usable(table: &Table, columns: [dunlin_table::ColumnId; 2]) {
    table.recover(|writer| writer == VICTIM);
    assert_nothing_leaked(table.rows());
    table.del("a");
    for key in 0..table.capacity() {
        table.set(key, &twin(columns, 9)).expect("the capacity is usable again");
    }
    assert_eq!(table.count(), table.capacity());
}

/// Nobody recovers: what the freer did not hold when it was killed, the next one gets.
#[test]
fn a_freer_of_a_full_table_beside_a_claimer() {
    killed_at_every_access(2, |mortal| {
        let (rows, _) = rows(1);
        let id = rows.claim(VICTIM).unwrap();
        assert!(rows.claim(OTHER).is_none(), "full, which is remembered");
        let other = with_writer(&rows, OTHER);
        let thread = thread::spawn(move || other.claim(OTHER));
        let victim = with_writer(&rows, VICTIM);
        let finished = mortal.run(|| assert!(victim.free(id)));
        let claimed = thread.join().unwrap();
        let stats = rows.stats();
        assert!(!finished || stats.dead == 0);
        if claimed.is_none() && stats.live + stats.dead == 0 {
            assert!(
                rows.claim(OTHER).is_some(),
                "a row is free, and the table says that it is full"
            );
        }
        rows.recover(|writer| writer == VICTIM);
        rows.iter().for_each(|id| assert!(rows.free(id)));
        assert!(rows.claim(OTHER).is_some(), "usable again");
    });
}

#[test]
fn a_deleter_from_a_full_table_beside_an_inserter() {
    killed_at_every_access(1, |mortal| {
        let (table, columns) = table(1);
        table.set("a", &twin(columns, 1)).unwrap();
        assert!(table.set("b", &twin(columns, 2)).is_err(), "full, which is remembered");
        let other = table_with_writer(&table, OTHER);
        let thread = thread::spawn(move || other.set("b", &twin(columns, 2)).is_ok());
        let victim = table_with_writer(&table, VICTIM);
        mortal.run(|| assert!(victim.del("a")));
        if !thread.join().unwrap() && !table.exists("a") {
            table
                .set("c", &twin(columns, 3))
                .expect("a row is free, and the table says it is full");
        }
        table.del("b");
        table.del("c");
        assert_usable(&table, columns);
    });
}
