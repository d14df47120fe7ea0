//! Keys of a table: any bytes, or a number, stored in words beside the row.
//!
//! Invariant: a number and its eight bytes are different keys.

use std::sync::atomic::Ordering::Relaxed;

use crate::hash::{hash_number, hash_short};
use crate::sync::AtomicU64;
use crate::value::{last_word, load_bytes, store_bytes};
use crate::word::{index_of, word_of};

/// Bit of the length word that says "a number".
const IS_NUMBER: u64 = 1 << 32;

/// A key to look for. Made by `into()` from `&str`, `&[u8]` or an integer; signed and unsigned
/// integers with the same 64 bits are the same key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Key<'a> {
    /// A number; needs no formatting.
    Number(u64),
    /// Any bytes, also none.
    Bytes(&'a [u8]),
}

/// A key that was read out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OwnedKey {
    /// A number.
    Number(u64),
    /// Any bytes.
    Bytes(Vec<u8>),
}

impl Key<'_> {
    pub(crate) fn hash(self, seed: u64) -> u64 {
        match self {
            Self::Number(number) => hash_number(number, seed),
            Self::Bytes(bytes) => hash_short(bytes, seed),
        }
    }

    /// Bytes that count towards the key limit; a number always fits.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Number(_) => 0,
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Stores it into the key words of a row that only the caller holds.
    pub(crate) fn store(self, words: &[AtomicU64]) {
        match self {
            Self::Number(number) => {
                words[0].store(IS_NUMBER, Relaxed);
                words[1].store(number, Relaxed);
            }
            Self::Bytes(bytes) => {
                words[0].store(word_of(bytes.len()), Relaxed);
                store_bytes(&words[1..], bytes);
            }
        }
    }

    /// Whether the key words hold it. They may be torn; the caller checks that the row did not move.
    pub(crate) fn is_in(self, words: &[AtomicU64]) -> bool {
        let length = words[0].load(Relaxed);
        match self {
            Self::Number(number) => length == IS_NUMBER && words[1].load(Relaxed) == number,
            Self::Bytes(bytes) => length == word_of(bytes.len()) && equal(bytes, &words[1..]),
        }
    }
}

impl OwnedKey {
    /// Borrows it, to look for it again.
    #[must_use]
    pub fn as_key(&self) -> Key<'_> {
        match self {
            Self::Number(number) => Key::Number(*number),
            Self::Bytes(bytes) => Key::Bytes(bytes),
        }
    }

    /// Reads the key words; they may be torn.
    pub(crate) fn load(words: &[AtomicU64], limit: usize) -> Self {
        let length = words[0].load(Relaxed);
        if length == IS_NUMBER {
            return Self::Number(words[1].load(Relaxed));
        }
        let mut bytes = Vec::new();
        load_bytes(&words[1..], index_of(length).min(limit), &mut bytes);
        Self::Bytes(bytes)
    }
}

/// Words of a key: its length and at least one word for a number.
pub(crate) fn key_words(limit: usize) -> usize {
    1 + limit.div_ceil(8).max(1)
}

/// Whether `words` begin with `bytes`, as `store_bytes` leaves them.
pub(crate) fn equal(bytes: &[u8], words: &[AtomicU64]) -> bool {
    let (whole, rest) = bytes.as_chunks::<8>();
    let head = whole
        .iter()
        .zip(words)
        .all(|(chunk, word)| word.load(Relaxed) == u64::from_ne_bytes(*chunk));
    // The bytes behind the end are zeros on both sides.
    head && (rest.is_empty() || words[whole.len()].load(Relaxed) == last_word(bytes))
}

impl<'a> From<&'a str> for Key<'a> {
    fn from(text: &'a str) -> Self {
        Self::Bytes(text.as_bytes())
    }
}

impl<'a> From<&'a String> for Key<'a> {
    fn from(text: &'a String) -> Self {
        Self::Bytes(text.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for Key<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Key<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a OwnedKey> for Key<'a> {
    fn from(key: &'a OwnedKey) -> Self {
        key.as_key()
    }
}

impl From<u64> for Key<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<i64> for Key<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number.cast_unsigned())
    }
}

impl From<u32> for Key<'_> {
    fn from(number: u32) -> Self {
        Self::Number(u64::from(number))
    }
}

impl From<i32> for Key<'_> {
    fn from(number: i32) -> Self {
        Self::from(i64::from(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::heap_words;

    #[test]
    fn keys_come_back_and_differ() {
        let keys: [Key<'_>; 7] = [
            "".into(),
            "a".into(),
            "a\0".into(),
            "abcdefgh".into(),
            "abcdefghi".into(),
            u64::from_ne_bytes(*b"abcdefgh").into(),
            0_i32.into(),
        ];
        for stored in keys {
            let words = heap_words(key_words(9));
            Key::from(u64::MAX).store(words); // something was there before
            Key::Bytes(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff").store(words);
            stored.store(words);
            assert_eq!(OwnedKey::load(words, 9).as_key(), stored);
            for other in keys {
                assert_eq!(other.is_in(words), other == stored, "{other:?} in {stored:?}");
            }
        }
        assert_eq!(Key::from(-1_i32), Key::from(u64::MAX));
    }

    #[test]
    fn hostile_lengths_are_clamped() {
        let words = heap_words(key_words(9));
        words[0].store(u64::MAX, Relaxed);
        assert_eq!(OwnedKey::load(words, 9), OwnedKey::Bytes(vec![0; 9]));
    }
}
