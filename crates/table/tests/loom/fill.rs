//! A row that is made anew is filled in the block it had: nobody who still means its earlier life sees
//! or harms what is filled, and a maker that is killed half way leaves nothing.

use loom::thread;

use crate::kills::{VICTIM, assert_usable, killed_at_every_access, table_with_writer};
use crate::{assert_nothing_leaked, explore, read_twin, table, twin};

#[test]
fn a_late_reader_never_sees_the_next_life() {
    explore(2, || {
        let (table, columns) = table(1);
        let id = table.set("a", &twin(columns, 1)).unwrap();
        let mut other = table.clone();
        other.set_writer(1);
        let thread = thread::spawn(move || {
            assert!(other.del("a"));
            other.set("b", &twin(columns, 2)).unwrap();
        });
        let seen = read_twin(table.rows(), columns, id);
        assert!(matches!(seen, None | Some(1)), "{seen:?}");
        thread.join().unwrap();
        assert_nothing_leaked(table.rows());
    });
}

#[test]
fn a_late_writer_never_changes_the_next_life() {
    explore(2, || {
        let (table, columns) = table(1);
        let id = table.set("a", &twin(columns, 1)).unwrap();
        let mut other = table.clone();
        other.set_writer(1);
        let thread = thread::spawn(move || {
            assert!(other.del("a"));
            other.set("b", &twin(columns, 2)).unwrap();
        });
        // All columns, for which nothing is copied, and then one.
        let _ = table.rows().write(id, &twin(columns, 3));
        let _ = table.rows().write(id, &twin(columns, 4)[..1]);
        thread.join().unwrap();
        let row = table.get("b").unwrap();
        assert_eq!([row.int(columns[0]), row.int(columns[1])], [2, 2]);
        assert_nothing_leaked(table.rows());
    });
}

#[test]
fn a_maker_in_a_block_that_is_there() {
    killed_at_every_access(1, |mortal| {
        let (table, columns) = table(1);
        let id = table.set("a", &twin(columns, 1)).unwrap();
        let victim = table_with_writer(&table, VICTIM);
        let reader = table.clone();
        let thread = thread::spawn(move || read_twin(reader.rows(), columns, id));
        mortal.run(|| {
            assert!(victim.del("a"));
            victim.set("b", &twin(columns, 2)).unwrap();
        });
        assert!(matches!(thread.join().unwrap(), None | Some(1)));
        if let Some(row) = table.get("b") {
            assert_eq!([row.int(columns[0]), row.int(columns[1])], [2, 2]);
        }
        table.del("b");
        assert_usable(&table, columns);
    });
}
