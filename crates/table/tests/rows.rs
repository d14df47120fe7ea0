//! Rows without keys, on the heap: what the interface promises, one process.
#![cfg(not(dunlin_loom))]

use std::sync::atomic::Ordering::Relaxed;

use dunlin_table::{
    LayoutError, MAX_ROWS, Row, RowId, Rows, SPARE_BLOCKS, Schema, Value, ValueRef, WriteError,
    heap_words,
};

fn schema() -> Schema {
    let schema = Schema::builder().int("state").float("load").string("user", 12);
    schema.bytes("raw", 4).counter("deadline").counter("sent").build().unwrap()
}

fn rows(capacity: u32) -> Rows {
    let words = heap_words(Rows::words_needed(&schema(), capacity).unwrap());
    Rows::new(schema(), capacity, words).unwrap()
}

#[test]
fn exactly_capacity_rows_can_be_claimed_again_and_again() {
    for capacity in [1, 2, 63, 64, 65, 300] {
        let rows = rows(capacity);
        let mut earlier = Vec::new();
        for round in 1..4 {
            let ids: Vec<RowId> = (0..capacity).map(|_| rows.claim(7).unwrap()).collect();
            assert_eq!(rows.claim(7), None);
            assert_eq!((rows.count(), rows.iter().count()), (capacity, capacity as usize));
            assert!(ids.iter().all(|id| id.generation == round && !earlier.contains(id)));
            assert!(ids.iter().all(|id| rows.free(*id)));
            assert!(ids.iter().all(|id| !rows.free(*id) && !rows.is_live(*id)));
            earlier = ids;
        }
    }
}

#[test]
fn a_row_is_written_in_part_and_read_as_a_whole() {
    let rows = rows(2);
    let [state, load, user, raw] =
        ["state", "load", "user", "raw"].map(|name| rows.schema().column(name).unwrap());
    let id = rows.claim(1).unwrap();
    let vacant = rows.read(id).unwrap();
    assert_eq!((vacant.int(state), vacant.float(load)), (0, 0.0));
    assert_eq!((vacant.str(user), vacant.bytes(raw)), ("", &b""[..]));

    rows.write(id, &[(user, "ann".into()), (state, (-3).into())]).unwrap();
    rows.write(id, &[(raw, ValueRef::Bytes(b"\0\xff")), (load, 0.5.into())]).unwrap();
    let row = rows.read(id).unwrap();
    assert_eq!((row.int(state), row.float(load)), (-3, 0.5));
    assert_eq!((row.str(user), row.bytes(raw)), ("ann", &b"\0\xff"[..]));
    assert_eq!(rows.read_column(id, user), Some(Value::Str("ann".into())));
    assert_eq!(rows.read_int(id, state), Some(-3));
    let mut bytes = b"before".to_vec();
    assert!(rows.read_bytes_into(id, user, &mut bytes));
    assert_eq!(bytes, b"ann");
    let mut reused = Row::empty(rows.schema());
    assert!(rows.read_into(id, &mut reused));
    assert_eq!(reused.str(user), "ann");
}

#[test]
fn a_refused_write_changes_nothing() {
    let rows = rows(1);
    let state = rows.schema().column("state").unwrap();
    let user = rows.schema().column("user").unwrap();
    let id = rows.claim(1).unwrap();
    let long = "thirteen byte";
    let error = rows.write(id, &[(state, 1.into()), (user, long.into())]).unwrap_err();
    assert_eq!(error, WriteError::TooLong { column: "user".into(), len: 13, limit: 12 });
    let error = rows.write(id, &[(state, 1.into()), (user, 1.into())]).unwrap_err();
    assert_eq!(error, WriteError::WrongType { column: "user".into() });
    assert_eq!(rows.read_int(id, state), Some(0));

    let refused = rows.update(id, |draft| {
        draft.add_int(state, 5)?;
        draft.set(user, long.into())?;
        Ok(true)
    });
    assert!(refused.is_err());
    let declined = rows.update(id, |draft| Ok(draft.add_int(state, 5)? < 0));
    assert_eq!((declined, rows.read_int(id, state)), (Ok(false), Some(0)));
    let taken = rows.update(id, |draft| draft.add_int(state, 5).map(|sum| sum == 5));
    assert_eq!((taken, rows.read_int(id, state)), (Ok(true), Some(5)));
    let over = rows.update(id, |draft| draft.add_int(state, i64::MAX).map(|_| true));
    assert_eq!(over, Err(WriteError::OutOfRange { column: "state".into() }));
    assert_eq!(rows.stats().blocks_free, rows.stats().blocks - 1, "every try gave its block back");
}

#[test]
fn a_stale_id_reaches_nothing() {
    let rows = rows(1);
    let user = rows.schema().column("user").unwrap();
    let old = rows.claim(1).unwrap();
    rows.write(old, &[(user, "old".into())]).unwrap();
    assert!(rows.free(old));
    let new = rows.claim(2).unwrap();
    assert_eq!(new.index, old.index);
    assert_eq!(rows.write(old, &[(user, "late".into())]), Err(WriteError::Stale));
    assert!(rows.read(old).is_none() && rows.read_column(old, user).is_none());
    assert!(!rows.set_owner(old, 9) && rows.owner(old).is_none());
    assert_eq!(rows.read(new).unwrap().str(user), "", "nothing of the earlier life shows");
    assert_eq!(rows.at(0), Some(new));
    assert_eq!(RowId::from_bits(new.to_bits()), new);
    assert!(!rows.is_live(RowId { index: 99, generation: 1 }));
}

#[test]
fn owners_are_found_and_changed() {
    let rows = rows(8);
    let ids: Vec<RowId> = (0..6).map(|number| rows.claim(number % 2).unwrap()).collect();
    assert_eq!(rows.owned_by(1).count(), 3);
    assert!(rows.set_owner(ids[0], 1));
    assert_eq!(rows.owner(ids[0]), Some(1));
    assert_eq!((rows.owned_by(1).count(), rows.owned_by(0).count()), (4, 2));
}

#[test]
fn counters_are_dense_and_zero_in_a_new_row() {
    let rows = rows(9);
    let deadline = rows.schema().counter_column("deadline").unwrap();
    let sent = rows.schema().counter_column("sent").unwrap();
    let ids: Vec<RowId> = (0..9).map(|_| rows.claim(1).unwrap()).collect();
    for id in &ids {
        rows.counter(deadline, id.index).store(u64::from(id.index) + 1, Relaxed);
    }
    let column: Vec<u64> = rows.counters(deadline).iter().map(|word| word.load(Relaxed)).collect();
    assert_eq!(column, (1..=9).collect::<Vec<u64>>());
    assert!(rows.counters(sent).iter().all(|word| word.load(Relaxed) == 0));
    rows.free(ids[4]);
    let again = rows.claim(1).unwrap();
    assert_eq!(again.index, ids[4].index);
    assert_eq!(rows.counter(deadline, again.index).load(Relaxed), 0);
}

#[test]
fn every_row_can_be_rewritten_while_all_are_taken() {
    let rows = rows(200);
    let state = rows.schema().column("state").unwrap();
    let ids: Vec<RowId> = (0..200).map(|_| rows.claim(1).unwrap()).collect();
    for round in 0..20 {
        for id in &ids {
            rows.write(*id, &[(state, round.into())]).unwrap();
        }
    }
    let stats = rows.stats();
    assert_eq!((stats.blocks_linked, stats.blocks_free), (200, SPARE_BLOCKS));
}

#[test]
fn a_text_is_compared_where_it_lies() {
    let schema = Schema::builder().int("n").string("s", 20).bytes("b", 8).build().unwrap();
    let words = heap_words(Rows::words_needed(&schema, 2).unwrap());
    let rows = Rows::new(schema.clone(), 2, words).unwrap();
    let [n, s, b] = ["n", "s", "b"].map(|name| schema.column(name).unwrap());
    let id = rows.claim(1).unwrap();
    assert!(rows.str_is(id, s, "") && !rows.str_is(id, s, "x"), "a row nobody has written");
    assert!(!rows.str_is(id, n, ""), "a number is no text");
    for text in ["", "a", "exactly8", "exactly8b", "sixteen bytes of", "twenty bytes of text"] {
        rows.write(id, &[(s, text.into()), (b, ValueRef::Bytes(b"exactly8"))]).unwrap();
        assert!(rows.str_is(id, s, text) && rows.str_is(id, b, "exactly8"), "{text}");
        // One more, one less, another one; what was there before is not seen behind the end.
        let mut others = vec![format!("{text}x"), format!("{text}\0")];
        if let Some((last, _)) = text.char_indices().next_back() {
            others.extend([text[..last].to_owned(), format!("{}x", &text[..last])]);
        }
        assert!(others.iter().all(|other| !rows.str_is(id, s, other)), "{text}");
    }
    rows.free(id);
    assert!(!rows.str_is(id, s, "twenty bytes of text"), "it is gone");
}

#[test]
fn a_writer_that_panics_gives_its_block_back() {
    let rows = rows(1);
    let id = rows.claim(1).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = rows.update(id, |_| panic!("in the closure"));
    }));
    assert!(panicked.is_err());
    assert_eq!(rows.stats().blocks_free, rows.stats().blocks);
}

#[test]
fn memory_is_checked_when_it_is_opened_again() {
    let needed = Rows::words_needed(&schema(), 10).unwrap();
    let words = heap_words(needed);
    let first = Rows::new(schema(), 10, words).unwrap();
    let id = first.claim(1).unwrap();
    assert!(Rows::new(schema(), 10, words).unwrap().is_live(id), "opened, not formatted anew");
    assert!(matches!(
        Rows::new(schema(), 9, words),
        Err(LayoutError::FormattedFor { what: "capacity", found: 10, expected: 9 })
    ));
    let other = Schema::builder().int("x").build().unwrap();
    assert!(matches!(
        Rows::new(other, 10, words),
        Err(LayoutError::FormattedFor { what: "schema", .. })
    ));
    let error = Rows::new(schema(), 10, &words[1..]).unwrap_err();
    assert_eq!(error, LayoutError::TooFewWords { given: needed - 1, needed });
    assert!(Rows::words_needed(&schema(), 0).unwrap_err().to_string().contains("capacity of 0"));
    let error = Rows::words_needed(&schema(), u32::MAX).unwrap_err();
    assert_eq!(error, LayoutError::TooMany { what: "rows", count: u32::MAX, most: MAX_ROWS });
}
