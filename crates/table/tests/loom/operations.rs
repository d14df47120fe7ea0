//! The operations of a keyed table that compare, add or take a row, against each other and with one of
//! the two killed before each of its accesses in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use dunlin_table::{Added, Compared};
use loom::thread;

use crate::kills::{OTHER, VICTIM, assert_usable, killed_at_every_access, table_with_writer};
use crate::{assert_nothing_leaked, explore, table, twin};

#[test]
fn a_key_is_added_by_one() {
    explore(2, || {
        let (table, columns) = table(2);
        let other = table_with_writer(&table, OTHER);
        let thread = thread::spawn(move || other.add("k", &twin(columns, 1)).unwrap());
        let here = table.add("k", &twin(columns, 2)).unwrap();
        let there = thread.join().unwrap();
        let row = table.get("k").unwrap();
        let values = [row.int(columns[0]), row.int(columns[1])];
        match (here, there) {
            (Added::New(new), Added::There(same)) => assert!(new == same && values == [2, 2]),
            (Added::There(same), Added::New(new)) => assert!(new == same && values == [1, 1]),
            both => panic!("not made by one: {both:?}"),
        }
        assert_nothing_leaked(table.rows());
    });
}

/// Both say they are done: what was added is in what was taken, or in the row that is left.
#[test]
fn an_addition_is_not_lost_to_who_takes_the_row() {
    explore(2, || {
        let (table, columns) = table(2);
        table.set("k", &twin(columns, 1)).unwrap();
        let other = table_with_writer(&table, OTHER);
        let thread = thread::spawn(move || other.get_del("k"));
        table.incr("k", columns[0], 1).unwrap();
        let taken = thread.join().unwrap().expect("it was there throughout").int(columns[0]);
        let left = table.get("k").map_or(0, |row| row.int(columns[0]));
        assert_eq!(taken + left, 2, "{taken} were taken");
        table.del("k");
        assert_nothing_leaked(table.rows());
    });
}

#[test]
fn of_two_who_delete_one_does() {
    explore(2, || {
        let (table, columns) = table(1);
        table.set("k", &twin(columns, 1)).unwrap();
        let other = table_with_writer(&table, OTHER);
        let thread = thread::spawn(move || other.get_del("k").is_some());
        let here = table.compare_del("k", &twin(columns, 1)).unwrap();
        let there = thread.join().unwrap();
        assert_ne!(matches!(here, Compared::Done(_)), there, "{here:?}");
        assert!(!table.exists("k"));
        assert_nothing_leaked(table.rows());
    });
}

#[test]
fn what_is_deleted_is_what_was_compared() {
    explore(2, || {
        let (table, columns) = table(2);
        table.set("k", &twin(columns, 1)).unwrap();
        let other = table_with_writer(&table, OTHER);
        let thread = thread::spawn(move || {
            other.compare_set("k", &twin(columns, 1), &twin(columns, 2)).unwrap()
        });
        let deleted = table.compare_del("k", &twin(columns, 1)).unwrap();
        let set = thread.join().unwrap();
        let left = table.get("k").map(|row| row.int(columns[0]));
        match deleted {
            Compared::Done(_) => assert_eq!((set, left), (Compared::Absent, None)),
            Compared::Differs => assert!(matches!(set, Compared::Done(_)) && left == Some(2)),
            Compared::Absent => panic!("it was there"),
        }
        table.del("k");
        assert_nothing_leaked(table.rows());
    });
}

/// A full table: the row of who takes it is the only one there is, and somebody else may bury it.
#[test]
fn a_row_that_is_taken_goes_on_with_its_value() {
    explore(2, || {
        let (table, columns) = table(1);
        table.set("a", &twin(columns, 1)).unwrap();
        let other = table_with_writer(&table, OTHER);
        let thread = thread::spawn(move || other.get_del("a").expect("it was there throughout"));
        let made = table.add("b", &twin(columns, 2)).is_ok();
        let taken = thread.join().unwrap();
        assert_eq!([taken.int(columns[0]), taken.int(columns[1])], [1, 1], "of another life");
        assert_eq!((table.exists("a"), table.exists("b")), (false, made));
        assert_nothing_leaked(table.rows());
    });
}

#[test]
fn who_takes_a_row_is_killed_beside_who_adds_to_it() {
    killed_at_every_access(1, |mortal| {
        let (table, columns) = table(2);
        table.set("a", &twin(columns, 1)).unwrap();
        let other = table_with_writer(&table, OTHER);
        let thread = thread::spawn(move || other.incr("a", columns[0], 1).unwrap());
        let victim = table_with_writer(&table, VICTIM);
        let taken = Arc::new(AtomicI64::new(0));
        let seen = taken.clone();
        let finished = mortal.run(|| {
            let row = victim.get_del("a").expect("it was there throughout");
            seen.store(row.int(columns[0]), Relaxed);
        });
        let sum = thread.join().unwrap();
        let left = table.get("a").map_or(0, |row| row.int(columns[0]));
        if finished {
            assert_eq!(taken.load(Relaxed) + left, 2);
        } else {
            // Not yet taken; or taken before the addition, which made the row anew; or after it.
            assert!(matches!((sum, left), (2, 2 | 0) | (1, 1)), "{sum} and {left}");
        }
        assert_usable(&table, columns);
    });
}

#[test]
fn who_takes_a_row_is_killed_and_the_rest_can_have_it() {
    killed_at_every_access(1, |mortal| {
        let (table, columns) = table(1);
        table.set("a", &twin(columns, 1)).unwrap();
        let victim = table_with_writer(&table, VICTIM);
        mortal.run(|| assert!(victim.get_del("a").is_some()));
        // Nobody is recovered: what was decided is finished by whoever meets it.
        let gone = table.get("a").is_none();
        assert_eq!(table.exists("a"), !gone, "one says it is gone and another that it is there");
        assert_eq!(table.add("b", &twin(columns, 2)).is_ok(), gone, "the row of a dead deleter");
        table.del("b");
        assert_usable(&table, columns);
    });
}
