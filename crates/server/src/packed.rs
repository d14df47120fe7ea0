//! Bytes in words of shared memory, eight to a word, the first lowest.
//!
//! Knows no reader and no writer: who may read while another one writes brackets both with a word of his own
//! and with fences, since every access here is relaxed.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Puts bytes into words, as many as they need; what the words have no room for is left out.
pub fn store<'w>(words: impl IntoIterator<Item = &'w AtomicU64>, bytes: &[u8]) {
    for (word, eight) in words.into_iter().zip(bytes.chunks(8)) {
        let mut padded = [0; 8];
        padded[..eight.len()].copy_from_slice(eight);
        word.store(u64::from_le_bytes(padded), Relaxed);
    }
}

/// So many bytes out of words; fewer if the words end before.
pub fn load<'w>(words: impl IntoIterator<Item = &'w AtomicU64>, length: usize) -> Vec<u8> {
    let words = words.into_iter().take(length.div_ceil(8));
    let mut bytes: Vec<u8> = words.flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_far_as_there_is_room() {
        let words: [AtomicU64; 2] = Default::default();
        for bytes in [&b""[..], b"a", b"eight by", b"nine byte", b"sixteen bytes ok"] {
            store(&words, bytes);
            assert_eq!(load(&words, bytes.len()), bytes);
        }
        store(&words, b"more than the words have room for");
        assert_eq!(load(&words, 40), b"more than the wo");
        store(&words, b"x");
        assert_eq!(load(&words, 8), b"x\0\0\0\0\0\0\0", "the rest of a word is zero");
    }
}
