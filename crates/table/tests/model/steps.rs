//! Random schemas, keys, values and operations.

use dunlin_table::{ColumnKind, OwnedKey, Value};
use proptest::prelude::*;

pub(crate) const KEY_LIMIT_MAX: usize = 20;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Set(OwnedKey, Values),
    SetUntil(OwnedKey, Values, u64),
    Add(OwnedKey, Values),
    GetOrInsert(OwnedKey, Values),
    Update(OwnedKey, Values),
    /// What is expected (the truth if so said), and what is set then.
    CompareSet(OwnedKey, Values, bool, Values),
    CompareDel(OwnedKey, Values, bool),
    Del(OwnedKey),
    GetDel(OwnedKey),
    /// By the handle of the key.
    Remove(OwnedKey),
    Get(OwnedKey),
    Incr(OwnedKey, i64),
    Count(OwnedKey, u64),
    Touch(OwnedKey, u64),
    /// So much later, so many rows.
    Sweep(u64, u32),
    /// Use of all handles of rows that are gone.
    Stale,
    /// Iterates; after each row it deletes one key and sets another.
    IterateWhileOthersChange(Vec<(OwnedKey, OwnedKey)>),
}

/// The columns whose bit is set get values made of the number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values {
    mask: u8,
    seed: u64,
}

impl Values {
    /// For columns of these kinds, by their place.
    pub(crate) fn of(self, kinds: &[ColumnKind]) -> Vec<(usize, Value)> {
        let seed_of = |at: usize| self.seed.wrapping_mul(at as u64 * 2 + 1);
        (0..kinds.len())
            .filter(|at| self.mask >> (at % 8) & 1 == 1)
            .map(|at| (at, value_of(kinds[at], seed_of(at))))
            .collect()
    }
}

/// Few keys, so that they meet; short ones, empty ones, numbers, and bytes that look like numbers and
/// have their hash.
pub(crate) fn keys() -> impl Strategy<Value = OwnedKey> {
    prop_oneof![
        3 => (0_u64..12).prop_map(OwnedKey::Number),
        2 => (0_u64..4).prop_map(|number| OwnedKey::Bytes(number.to_le_bytes().to_vec())),
        2 => proptest::collection::vec(0_u8..2, 0..3).prop_map(OwnedKey::Bytes),
        1 => proptest::collection::vec(any::<u8>(), KEY_LIMIT_MAX - 1..KEY_LIMIT_MAX + 2)
            .prop_map(OwnedKey::Bytes),
    ]
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let values = || (any::<u8>(), any::<u64>()).prop_map(|(mask, seed)| Values { mask, seed });
    let later = || 0_u64..40;
    let pairs = proptest::collection::vec((keys(), keys()), 0..6);
    let step = prop_oneof![
        4 => (keys(), values()).prop_map(|(key, values)| Step::Set(key, values)),
        3 => (keys(), values(), later()).prop_map(|(key, values, at)| Step::SetUntil(key, values, at)),
        3 => (keys(), values()).prop_map(|(key, values)| Step::Add(key, values)),
        1 => (keys(), values()).prop_map(|(key, values)| Step::GetOrInsert(key, values)),
        2 => (keys(), values()).prop_map(|(key, values)| Step::Update(key, values)),
        3 => (keys(), values(), any::<bool>(), values())
            .prop_map(|(key, expected, truth, values)| Step::CompareSet(key, expected, truth, values)),
        1 => (keys(), values(), any::<bool>())
            .prop_map(|(key, expected, truth)| Step::CompareDel(key, expected, truth)),
        1 => keys().prop_map(Step::Del),
        1 => keys().prop_map(Step::GetDel),
        1 => keys().prop_map(Step::Remove),
        2 => keys().prop_map(Step::Get),
        1 => (keys(), any::<i64>()).prop_map(|(key, by)| Step::Incr(key, by)),
        1 => (keys(), any::<u64>()).prop_map(|(key, by)| Step::Count(key, by)),
        2 => (keys(), later()).prop_map(|(key, at)| Step::Touch(key, at)),
        1 => (0_u64..12, 0_u32..24).prop_map(|(later, slice)| Step::Sweep(later, slice)),
        1 => Just(Step::Stale),
        1 => pairs.prop_map(Step::IterateWhileOthersChange),
    ];
    proptest::collection::vec(step, 1..120)
}

pub(crate) fn columns() -> impl Strategy<Value = Vec<ColumnKind>> {
    let kind = prop_oneof![
        Just(ColumnKind::Int),
        Just(ColumnKind::Float),
        (1_usize..40).prop_map(ColumnKind::Str),
        (1_usize..40).prop_map(ColumnKind::Bytes),
        Just(ColumnKind::Counter),
    ];
    proptest::collection::vec(kind, 0..7)
}

/// A value of a column made of a number; every 16th is too long.
fn value_of(kind: ColumnKind, seed: u64) -> Value {
    let len = |limit: usize| match seed % 16 {
        0 => limit + 1,
        _ => usize::try_from(seed).unwrap() % (limit + 1),
    };
    match kind {
        ColumnKind::Int | ColumnKind::Counter => Value::Int(seed.cast_signed()),
        ColumnKind::Float => Value::Float(f64::from(u32::try_from(seed % 1000).unwrap()) / 8.0),
        ColumnKind::Str(limit) => Value::Str("x".repeat(len(limit))),
        ColumnKind::Bytes(limit) => Value::Bytes(vec![seed.to_le_bytes()[1]; len(limit)]),
    }
}
