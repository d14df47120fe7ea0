//! What the master last said of itself, for every process to read: a text in shared memory.
//!
//! Knows no content. Nobody waits: neither the master for readers nor a reader for the master.
//! Invariants: 1. Only the master writes. 2. There are two places; the head names the one that is whole, by
//! a number that grows. The other is written first, the head last, so a master that dies in between has
//! changed nothing. 3. A reader who was overtaken while it copied sees another head, and looks again.

use crate::packed;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

/// Longest text, in bytes.
pub(crate) const TEXT_MAX: usize = 16 << 10;
const TEXT_WORDS: usize = TEXT_MAX / 8;
/// How often a reader looks again. The master says something new a few times a second at most.
const LOOKS: usize = 8;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bulletin {
    words: &'static [AtomicU64],
}

impl Bulletin {
    /// Words needed.
    pub(crate) const WORDS: usize = 1 + 2 * TEXT_WORDS;

    /// A bulletin over zeroed words, or those of a master before.
    pub(crate) fn new(words: &'static [AtomicU64]) -> Self {
        assert!(words.len() >= Self::WORDS, "a bulletin of {} words", words.len());
        Self { words }
    }

    /// Master: puts a text in the place of the last. False: it is too long, and the last one stays.
    pub(crate) fn publish(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        if bytes.len() > TEXT_MAX {
            return false;
        }
        let number = (self.words[0].load(Relaxed) >> 32) + 1;
        // Whoever reads a word of what follows sees, behind its own fence, the head that was before.
        fence(Release);
        packed::store(self.place(number), bytes);
        let length = u64::try_from(bytes.len()).unwrap_or(0);
        self.words[0].store(number << 32 | length, Release);
        true
    }

    /// The last text; `None` if there is none yet, or the master speaks faster than it is read.
    pub(crate) fn read(&self) -> Option<String> {
        (0..LOOKS).find_map(|_| {
            let head = self.words[0].load(Acquire);
            let length = usize::try_from(head & 0xffff_ffff).ok().filter(|length| *length > 0)?;
            let bytes = packed::load(self.place(head >> 32), length);
            fence(Acquire);
            let whole = self.words[0].load(Relaxed) == head;
            String::from_utf8(bytes).ok().filter(|_| whole)
        })
    }

    fn place(&self, number: u64) -> &'static [AtomicU64] {
        let from = if number.is_multiple_of(2) { 1 } else { 1 + TEXT_WORDS };
        &self.words[from..from + TEXT_WORDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn bulletin() -> Bulletin {
        Bulletin::new(Box::leak((0..Bulletin::WORDS).map(|_| AtomicU64::new(0)).collect()))
    }

    #[test]
    fn the_last_text_is_read() {
        let bulletin = bulletin();
        assert_eq!(bulletin.read(), None);
        for text in ["a", "longer than eight bytes: é", "", &"x".repeat(TEXT_MAX)] {
            assert!(bulletin.publish(text));
            assert_eq!(bulletin.read().as_deref(), Some(text).filter(|text| !text.is_empty()));
        }
        assert!(bulletin.publish("short again") && !bulletin.publish(&"x".repeat(TEXT_MAX + 1)));
        assert_eq!(bulletin.read().as_deref(), Some("short again"));
    }

    #[test]
    fn a_reader_never_sees_two_texts_in_one() {
        let (bulletin, over) = (bulletin(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut seen = 0_u64;
                    while !over.load(Relaxed) {
                        let Some(text) = bulletin.read() else { continue };
                        let first = text.as_bytes()[0];
                        assert!(text.bytes().all(|byte| byte == first), "{text}");
                        seen += 1;
                    }
                    assert!(seen > 0);
                });
            }
            for round in 0..20_000_usize {
                let letter = char::from(b'a' + u8::try_from(round % 26).unwrap());
                bulletin.publish(&letter.to_string().repeat(1 + round % 200));
                if round % 64 == 0 {
                    std::thread::yield_now();
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            over.store(true, Relaxed);
        });
    }
}
