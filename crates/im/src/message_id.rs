//! Message ids: fixed width, sorted as text by time, never going back.
//!
//! Knows one shared word and the time it is given. Invariant: of two ids drawn anywhere in the server
//! the one drawn later is larger, whatever the wall clock does and whichever process died in between.

use serde::{Serialize, Serializer};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits below the milliseconds: about a million ids fit one millisecond; more borrow from the next.
const SEQUENCE_BITS: u32 = 20;

/// Names a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageId(u64);

impl MessageId {
    /// The next id after all that were drawn from `last`, a word that all processes share.
    #[must_use]
    pub fn next(last: &AtomicU64, unix_ms: u64) -> Self {
        Self(draw(last, unix_ms))
    }

    /// The id as one word, never 0.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// The id that [`MessageId::to_bits`] gave.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// When it was drawn, Unix milliseconds: as monotonic as the ids themselves.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        drawn_at_ms(self.0)
    }
}

/// The next number after all that were drawn from `last`, a word that all processes share: as late as
/// the time it is given, if it can be, and later than every other.
pub(crate) fn draw(last: &AtomicU64, unix_ms: u64) -> u64 {
    // 44 bits of milliseconds last until the year 2527; what is cut off then, `last + 1` replaces.
    let at_least = unix_ms << SEQUENCE_BITS;
    // Relaxed: only the word itself is shared by it, and one word has one order for everybody.
    let mut seen = last.load(Ordering::Relaxed);
    loop {
        let next = seen.saturating_add(1).max(at_least);
        match last.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return next,
            Err(newer) => seen = newer,
        }
    }
}

/// When a number was drawn, Unix milliseconds.
pub(crate) fn drawn_at_ms(number: u64) -> u64 {
    number >> SEQUENCE_BITS
}

/// Sixteen hexadecimal digits.
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Twice a message: a table instead of the machinery of `format`.
        let mut digits = [0; 16];
        for (byte, pair) in self.0.to_be_bytes().iter().zip(digits.as_chunks_mut::<2>().0) {
            *pair = [byte >> 4, byte & 0xf].map(|nibble| HEX[usize::from(nibble)]);
        }
        serializer.serialize_str(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_clock_but_never_back() {
        let last = AtomicU64::new(0);
        let first = MessageId::next(&last, 1_700_000_000_000);
        assert_eq!(first.unix_ms(), 1_700_000_000_000);
        let back = MessageId::next(&last, 1_600_000_000_000);
        assert!(back > first && back.to_string() > first.to_string());
        assert_eq!(back.unix_ms(), first.unix_ms());
        let on = MessageId::next(&last, 1_700_000_000_001);
        assert!(on.to_string() > back.to_string());
        assert_eq!(on.to_string().len(), 16);
    }

    #[test]
    fn an_id_is_shown_and_sent_alike() {
        for number in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            let id = MessageId(number);
            assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
        }
    }

    #[test]
    fn threads_never_draw_the_same_id_nor_an_earlier_one() {
        let last = AtomicU64::new(0);
        let draw = |thread: u64| {
            let last = &last;
            move || -> Vec<MessageId> {
                (0..20_000).map(|n| MessageId::next(last, 1_000 + (n * thread) % 7)).collect()
            }
        };
        let mut all: Vec<MessageId> = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..5).map(|thread| scope.spawn(draw(thread))).collect();
            threads
                .into_iter()
                .flat_map(|thread| {
                    let ids = thread.join().unwrap();
                    assert!(ids.is_sorted_by(|a, b| a < b));
                    ids
                })
                .collect()
        });
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 80_000);
    }
}
