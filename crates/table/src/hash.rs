//! The hash of keys: SipHash-1-3, written out because it must be the same in every process of one
//! server and std's is only stable with a key of zero.
//!
//! Seeded, so that a peer who chooses keys cannot aim them at one bucket.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

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
    fn the_seed_matters() {
        assert_ne!(hash_key(b"ann", 1), hash_key(b"ann", 2));
        assert_ne!(random_seed(), random_seed());
    }
}
