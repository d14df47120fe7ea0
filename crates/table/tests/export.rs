//! Rows as lines of JSON: whatever is in a table comes back, whatever is no row is refused.
#![cfg(all(not(dunlin_loom), feature = "serde"))]

use std::sync::atomic::Ordering::Relaxed;

use dunlin_table::{
    ColumnKind, ImportError, Key, OwnedKey, Schema, SchemaBuilder, Table, TableError, Value,
    ValueRef, heap_words,
};
use proptest::prelude::*;

fn schema() -> SchemaBuilder {
    let schema = Schema::builder().int("n").float("f").string("s", 20).counter("c");
    schema.bytes("b", 20).counter("d").key_limit(12)
}

fn table(schema: SchemaBuilder, capacity: u32) -> Table {
    let schema = schema.build().unwrap();
    let words = heap_words(Table::words_needed(&schema, capacity).unwrap());
    Table::new(schema, capacity, words).unwrap()
}

fn exported(table: &Table) -> String {
    let mut out = Vec::new();
    let rows = table.export(&mut out).unwrap();
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    assert_eq!(rows, text.lines().count() as u64);
    text
}

#[test]
fn a_row_is_a_line() {
    let table = table(schema().expires(), 4);
    let [n, s, b] = ["n", "s", "b"].map(|name| table.schema().column(name).unwrap());
    let values = [(n, ValueRef::Int(-3)), (s, "a\"\n".into()), (b, ValueRef::Bytes(b"\0\xff"))];
    let id = table.set_until("ann", &values, 1700).unwrap();
    let c = table.schema().counter_column("c").unwrap();
    table.rows().counter(c, id.index).store(u64::MAX, Relaxed);
    assert_eq!(
        exported(&table),
        "{\"key\":\"ann\",\"columns\":{\"n\":-3,\"f\":0.0,\"s\":\"a\\\"\\n\",\"b\":\"AP8=\"},\
         \"counters\":{\"c\":18446744073709551615,\"d\":0},\"deadline\":1700}\n"
    );
    table.del("ann");
    table.set(u64::MAX, &[]).unwrap();
    assert!(exported(&table).starts_with("{\"key\":18446744073709551615,"));
    table.del(u64::MAX);
    table.set(&b"\xff"[..], &[]).unwrap();
    assert!(exported(&table).starts_with("{\"key\":{\"base64\":\"/w==\"},"));
    assert!(!exported(&table).contains("deadline"), "it has none");
}

/// Everything that says what a row is, floats by their bits.
fn content(table: &Table) -> Vec<(OwnedKey, String, Vec<u64>, Option<u64>)> {
    let columns: Vec<_> =
        table.schema().columns().iter().filter_map(|c| table.schema().column(&c.name)).collect();
    let counters: Vec<_> = table
        .schema()
        .columns()
        .iter()
        .filter_map(|c| table.schema().counter_column(&c.name))
        .collect();
    let mut rows: Vec<_> = table
        .iter()
        .map(|entry| {
            let values: Vec<_> = columns
                .iter()
                .map(|column| match entry.row.value(*column) {
                    Value::Float(value) if value.is_nan() => "NaN".to_owned(),
                    Value::Float(value) => format!("{:x}", value.to_bits()),
                    other => format!("{other:?}"),
                })
                .collect();
            let counts = counters.iter();
            let counts =
                counts.map(|id| table.rows().counter(*id, entry.id.index).load(Relaxed)).collect();
            (entry.key, values.join(","), counts, table.rows().deadline(entry.id))
        })
        .collect();
    rows.sort();
    rows
}

fn keys() -> impl Strategy<Value = OwnedKey> {
    prop_oneof![
        any::<u64>().prop_map(OwnedKey::Number),
        proptest::collection::vec(any::<u8>(), 0..13).prop_map(OwnedKey::Bytes),
        "[a-z\u{0}\"\\\\é]{0,5}".prop_map(|text| OwnedKey::Bytes(text.into_bytes())),
    ]
}

type Row = (OwnedKey, i64, u64, String, Vec<u8>, u64, u64);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..21);
    let text = "\\PC{0,5}|[\u{0}-\u{1f}]{0,20}";
    let row = (keys(), any::<i64>(), any::<u64>(), text, bytes, any::<u64>(), any::<u64>());
    proptest::collection::vec(row, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_exported_is_imported(rows in rows(), expires in any::<bool>()) {
        let schema = || if expires { schema().expires() } else { schema() };
        let (from, to) = (table(schema(), 20), table(schema(), 20));
        let [n, f, s, b] = ["n", "f", "s", "b"].map(|name| from.schema().column(name).unwrap());
        let c = from.schema().counter_column("c").unwrap();
        for (key, int, float, text, bytes, count, deadline) in &rows {
            let values = [
                (n, ValueRef::Int(*int)),
                (f, ValueRef::Float(f64::from_bits(*float))),
                (s, ValueRef::Str(text)),
                (b, ValueRef::Bytes(bytes)),
            ];
            let Ok(id) = from.set(key, &values) else { continue };
            from.rows().counter(c, id.index).store(*count, Relaxed);
            from.rows().touch(id, *deadline >> (count % 64));
        }
        let text = exported(&from);
        prop_assert_eq!(to.import(text.as_bytes()).unwrap(), u64::from(from.count()));
        prop_assert_eq!(content(&from), content(&to));
        prop_assert_eq!(to.import(text.as_bytes()).unwrap(), u64::from(from.count()), "twice is once");
        prop_assert_eq!(content(&from), content(&to));
    }

    #[test]
    fn any_bytes_are_a_row_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let table = table(schema(), 4);
        if let Err(error) = table.import(&bytes[..]) {
            prop_assert!(error.to_string().contains("line "), "{}", error);
        }
    }

    /// A line that is right but for one byte.
    #[test]
    fn a_line_with_a_wrong_byte_leaves_no_half_row(at in 0_usize..90, byte in any::<u8>()) {
        let table = table(schema().expires(), 4);
        let line = "{\"key\":\"ann\",\"columns\":{\"n\":-3,\"f\":1.5,\"s\":\"text\",\"b\":\"AP8=\"},\"counters\":{\"c\":7},\"deadline\":9}";
        let mut bytes = line.as_bytes().to_vec();
        bytes[at] = byte;
        if table.import(&bytes[..]).is_err() {
            prop_assert_eq!(table.count(), 0);
        }
    }
}

/// The error of a third line, behind one that is empty and one that is a row.
fn refuse(line: &str) -> ImportError {
    let table = table(schema(), 2);
    let text = format!("\n{{\"key\":1}}\n{line}\n");
    let error = table.import(text.as_bytes()).expect_err(line);
    assert!(error.to_string().contains("line 3"), "{error}");
    assert_eq!(table.count(), 1, "the line before is in");
    error
}

#[test]
fn what_is_no_row_is_refused_with_its_line() {
    for line in [
        "[]",
        "{}",
        "{\"key\":-1}",
        "{\"key\":1.5}",
        "{\"key\":null}",
        "{\"key\":{\"base64\":\"AA==\",\"x\":1}}",
        "{\"key\":2,\"colums\":{}}",
        "{\"key\":2,\"counters\":{\"c\":-1}}",
        "{\"key\":2} {\"key\":3}",
        "{\"key\":2",
        "\u{feff}{\"key\":2}",
    ] {
        assert!(matches!(refuse(line), ImportError::NoRow { .. }), "{line}");
    }
    assert!(matches!(refuse("{\"key\":{\"base64\":\"A\"}}"), ImportError::BadKey { line: 3 }));
    for (what, line) in [
        ("column", "{\"key\":2,\"columns\":{\"m\":1}}"),
        ("column", "{\"key\":2,\"columns\":{\"c\":1}}"),
        ("counter", "{\"key\":2,\"counters\":{\"n\":1}}"),
    ] {
        assert!(matches!(refuse(line), ImportError::NoColumn { what: said, .. } if said == what));
    }
}

#[test]
fn a_value_of_another_kind_and_a_row_that_does_not_fit_are_refused() {
    for (kind, value) in [
        (ColumnKind::Int, "\"n\":1.5"),
        (ColumnKind::Int, "\"n\":9223372036854775808"),
        (ColumnKind::Int, "\"n\":\"1\""),
        (ColumnKind::Int, "\"n\":null"),
        (ColumnKind::Float, "\"f\":\"nan\""),
        (ColumnKind::Float, "\"f\":true"),
        (ColumnKind::Float, "\"f\":1e999"),
        (ColumnKind::Str(20), "\"s\":1"),
        (ColumnKind::Bytes(20), "\"b\":\"A\""),
        (ColumnKind::Bytes(20), "\"b\":[1]"),
    ] {
        let error = refuse(&format!("{{\"key\":2,\"columns\":{{{value}}}}}"));
        assert!(
            matches!(error, ImportError::BadValue { kind: said, .. } if said == kind),
            "{error:?}"
        );
    }
    for line in [
        "{\"key\":2,\"deadline\":5}",
        "{\"key\":\"a key too long\"}",
        "{\"key\":2,\"columns\":{\"s\":\"twenty-one characters\"}}",
    ] {
        assert!(matches!(refuse(line), ImportError::Refused { .. }), "{line}");
    }
    let full = "{\"key\":2}\n{\"key\":3}";
    let error = table(schema(), 1).import(full.as_bytes()).unwrap_err();
    let ImportError::Refused { line: 2, source: TableError::Full { .. } } = error else {
        panic!("{error}")
    };
}

#[test]
fn a_line_without_end_is_not_read_to_its_end() {
    let table = table(schema(), 1);
    let endless = std::io::BufReader::new(std::io::repeat(b' '));
    let error = table.import(endless).unwrap_err();
    let ImportError::LineTooLong { line: 1, limit } = error else { panic!("{error}") };
    // The longest text there can be, each byte escaped, is no such line.
    let text = "\\u0000".repeat(20);
    let key = "\\u0000".repeat(12);
    let longest = format!("{{\"key\":\"{key}\",\"columns\":{{\"s\":\"{text}\"}}}}");
    assert!(longest.len() < limit);
    table.import(longest.as_bytes()).unwrap();
    assert!(table.exists(Key::Bytes(&[0; 12])));
}
