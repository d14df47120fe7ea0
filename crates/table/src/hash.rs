//! The hashes of keys: SipHash-1-3, written out because it must be the same in every process of one
//! server and std's is only stable with a key of zero; and a faster one for the buckets of a table.
//!
//! Both are seeded, so that a peer who chooses keys cannot aim them at one bucket. The faster one
//! multiplies 64 by 64 bits and folds the 128 of the product (as wyhash does): no proof of its strength
//! is known, but to aim at a bucket one would have to learn the seed, and no answer of a table tells
//! anything of it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use crate::value::last_word;
use crate::word::word_of;

/// The hash of `bytes` under `seed`; equal in all processes and on all machines.
#[must_use]
pub fn hash_key(bytes: &[u8], seed: u64) -> u64 {
    // The second half of SipHash's key: any fixed function of the seed will do.
    sip13(bytes, seed, seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15)
}

/// An unpredictable seed for [`hash_key`]; draw it once, before the first fork, and share it.
#[must_use]
pub fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The hash of a table's key of bytes, made for keys of a few words.
pub(crate) fn hash_short(bytes: &[u8], seed: u64) -> u64 {
    let [first, second] = secrets(seed);
    let mut state = first;
    let (pairs, rest) = bytes.as_chunks::<16>();
    let (pairs, rest) = match pairs.split_last() {
        Some((last, pairs)) if rest.is_empty() => (pairs, last.as_slice()),
        _ => (pairs, rest),
    };
    for pair in pairs {
        let [low, high] = halves_of(pair);
        state = fold(low ^ second, high ^ state);
    }
    let (low, high) = match rest.first_chunk::<8>() {
        Some(low) if rest.len() == 16 => (u64::from_le_bytes(*low), last_eight(rest)),
        Some(low) => (u64::from_le_bytes(*low), last_word(rest)),
        None => (last_word(rest), 0),
    };
    // The length tells a key from the same with zeros behind it.
    fold(fold(low ^ second, high ^ state), (first ^ MULTIPLIER).wrapping_add(word_of(bytes.len())))
}

/// The hash of a table's key that is a number.
pub(crate) fn hash_number(number: u64, seed: u64) -> u64 {
    let [first, second] = secrets(seed);
    fold(fold(number ^ second, first.wrapping_sub(1)), first ^ MULTIPLIER)
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

fn secrets(seed: u64) -> [u64; 2] {
    // Full of ones and zeros whatever the seed: a factor of a product must not be 0.
    [fold(seed ^ MULTIPLIER, 0xd6e8_feb8_6659_fd93), seed ^ 0xa076_1d64_78bd_642f]
}

/// Low and high half of the product, mixed into one word.
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

fn halves_of(pair: &[u8; 16]) -> [u64; 2] {
    let (words, _) = pair.as_chunks::<8>();
    [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
}

fn last_eight(bytes: &[u8]) -> u64 {
    bytes.last_chunk::<8>().map_or(0, |last| u64::from_le_bytes(*last))
}

fn sip13(bytes: &[u8], key0: u64, key1: u64) -> u64 {
    let mut state = [
        key0 ^ 0x736f_6d65_7073_6575,
        key1 ^ 0x646f_7261_6e64_6f6d,
        key0 ^ 0x6c79_6765_6e65_7261,
        key1 ^ 0x7465_6462_7974_6573,
    ];
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        absorb(&mut state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    // The length modulo 256 is the top byte of the last word.
    last[7] = bytes.len().to_le_bytes()[0];
    absorb(&mut state, u64::from_le_bytes(last));

    state[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut state);
    }
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    state[0] ^= word;
}

fn round(state: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *state;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    *state = [a, b, c, d];
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::DefaultHasher;

    #[test]
    fn it_is_siphash_1_3() {
        let bytes: Vec<u8> = (0..100).collect();
        for len in 0..bytes.len() {
            let mut std_hasher = DefaultHasher::new(); // SipHash-1-3 with a key of zero
            std_hasher.write(&bytes[..len]);
            assert_eq!(sip13(&bytes[..len], 0, 0), std_hasher.finish(), "{len} bytes");
        }
    }

    #[test]
    fn the_short_hash_spreads_keys_over_buckets() {
        for seed in [0, 1, random_seed()] {
            let mut hashes = std::collections::BTreeSet::new();
            let mut buckets = vec![0_u32; 4096];
            for number in 0..20_000_u64 {
                let padded = format!("a prefix of 16 by {number:030}");
                for key in [format!("user:{number}"), number.to_string(), padded] {
                    let hash = hash_short(key.as_bytes(), seed);
                    assert!(hashes.insert(hash), "{key}");
                    buckets[usize::try_from(hash % 4096).unwrap()] += 1;
                }
                let hash = hash_number(number, seed);
                assert!(hashes.insert(hash), "{number}");
                buckets[usize::try_from(hash % 4096).unwrap()] += 1;
            }
            // 19.5 on average; a Poisson distribution has no more than this in practice.
            assert!(*buckets.iter().max().unwrap() < 50, "{seed}: {:?}", buckets.iter().max());
        }
    }

    #[test]
    fn every_byte_and_the_length_change_the_short_hash() {
        let mut hashes = std::collections::BTreeSet::new();
        for len in 0..70 {
            assert!(hashes.insert(hash_short(&vec![0; len], 7)), "{len} zeros");
            for at in 0..len {
                let mut bytes = vec![0; len];
                bytes[at] = 1;
                assert!(hashes.insert(hash_short(&bytes, 7)), "{len} bytes, byte {at}");
            }
        }
    }

    #[test]
    fn the_seed_matters() {
        assert_ne!(hash_short(b"ann", 1), hash_short(b"ann", 2));
        assert_ne!(hash_number(1, 1), hash_number(1, 2));
        assert_ne!(hash_key(b"ann", 1), hash_key(b"ann", 2));
        assert_ne!(random_seed(), random_seed());
    }
}
