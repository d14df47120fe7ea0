//! Bytes in words of shared memory, stored and copied out word by word.
//!
//! Knows no column and no row. Invariant: bytes of a word come back in the order in which they went in, in
//! the machine's own byte order; behind the last byte a whole store leaves zeros.

use std::sync::atomic::Ordering::Relaxed;

use crate::sync::AtomicU64;
use crate::word::WORD_BYTES;

/// Stores `bytes` from the start of `words`, the rest of the last word zeroed. Word by word: bytes in
/// shared memory are never behind a `&[u8]`.
pub(crate) fn store_bytes(words: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<WORD_BYTES>();
    for (word, chunk) in words.iter().zip(whole) {
        word.store(u64::from_ne_bytes(*chunk), Relaxed);
    }
    if !rest.is_empty() {
        words[whole.len()].store(last_word(bytes), Relaxed);
    }
}

/// The bytes behind the last whole word, followed by zeros: one word, made without a loop or a call.
pub(crate) fn last_word(bytes: &[u8]) -> u64 {
    let rest = bytes.len() % WORD_BYTES;
    let little = if let Some(last) = bytes.last_chunk::<WORD_BYTES>() {
        // What is in front of the rest is shifted out; twice, because there may be no rest.
        u64::from_le_bytes(*last) >> 8 >> (8 * (WORD_BYTES - 1 - rest) % 64)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        u64::from(u32::from_le_bytes(*first))
            | u64::from(u32::from_le_bytes(*last)) << (8 * (rest - 4))
    } else if let (Some(first), Some(last)) = (bytes.first(), bytes.last()) {
        let middle = rest / 2;
        u64::from(*first)
            | u64::from(bytes[middle]) << (8 * middle)
            | u64::from(*last) << (8 * (rest - 1))
    } else {
        0
    };
    u64::from_ne_bytes(little.to_le_bytes())
}

/// Stores bytes from byte `at` of `words` on, which may be in the middle of a word.
pub(crate) fn store_at(words: &[AtomicU64], at: usize, bytes: &[u8]) {
    let (word, inside) = (at / WORD_BYTES, at % WORD_BYTES);
    if inside == 0 || bytes.is_empty() {
        return store_bytes(&words[word.min(words.len())..], bytes);
    }
    let (first, rest) = bytes.split_at(bytes.len().min(WORD_BYTES - inside));
    let mut merged = words[word].load(Relaxed).to_ne_bytes();
    merged[inside..inside + first.len()].copy_from_slice(first);
    words[word].store(u64::from_ne_bytes(merged), Relaxed);
    store_bytes(&words[word + 1..], rest);
}

/// Whether `bytes` stand at the start of `words`, stored as a whole. Compares word by word, copies nothing.
pub(crate) fn are_stored(words: &[AtomicU64], bytes: &[u8]) -> bool {
    let (whole, rest) = bytes.as_chunks::<WORD_BYTES>();
    let is = |word: Option<&AtomicU64>, expected: u64| {
        word.is_some_and(|word| word.load(Relaxed) == expected)
    };
    whole.iter().enumerate().all(|(at, chunk)| is(words.get(at), u64::from_ne_bytes(*chunk)))
        && (rest.is_empty() || is(words.get(whole.len()), last_word(bytes)))
}

/// Appends `len` bytes from the start of `words` to `out`.
pub(crate) fn load_bytes(words: &[AtomicU64], len: usize, out: &mut Vec<u8>) {
    let from = out.len();
    out.resize(from + len, 0);
    let (whole, rest) = out[from..].as_chunks_mut::<WORD_BYTES>();
    for (chunk, word) in whole.iter_mut().zip(words) {
        *chunk = word.load(Relaxed).to_ne_bytes();
    }
    if !rest.is_empty() {
        let last = words[whole.len()].load(Relaxed).to_ne_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// Copies words over as many bytes.
pub(super) fn take_over(chunks: &mut [[u8; WORD_BYTES]], words: &[AtomicU64]) {
    for (chunk, word) in chunks.iter_mut().zip(words) {
        *chunk = word.load(Relaxed).to_ne_bytes();
    }
}

/// Text of checked bytes; what is not UTF-8 is cut off.
pub(crate) fn into_text(mut bytes: Vec<u8>) -> String {
    let valid = valid_text(&bytes).len();
    bytes.truncate(valid);
    String::from_utf8(bytes).unwrap_or_default()
}

/// The bytes up to the first that is not UTF-8.
pub(super) fn valid_text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}
