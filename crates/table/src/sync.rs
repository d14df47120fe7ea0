//! The atomics this crate is built on: std's, or loom's under `cfg(dunlin_loom)`.
//!
//! Every structure of the crate works on `&'static [AtomicU64]` and never asks where they live: in a
//! [`Region`](crate::Region) shared between processes, or on the heap ([`heap_words`]) for tests,
//! Miri and loom, whose atomics are larger than eight bytes and cannot be laid over a mapping.

#[cfg(dunlin_loom)]
pub use model::{AtomicU64, Killed, die_after, spare};
#[cfg(not(dunlin_loom))]
pub use std::sync::atomic::AtomicU64;

pub use std::sync::atomic::Ordering;

#[cfg(dunlin_loom)]
pub(crate) use loom::sync::atomic::fence;
#[cfg(not(dunlin_loom))]
pub(crate) use std::sync::atomic::fence;

/// `count` zeroed words on this process's own heap, leaked on purpose.
///
/// For tests and for programs that want the structures of this crate without sharing them.
#[must_use]
pub fn heap_words(count: usize) -> &'static [AtomicU64] {
    Vec::leak((0..count).map(|_| AtomicU64::new(0)).collect())
}

#[cfg(dunlin_loom)]
mod model {
    use std::cell::Cell;

    use super::Ordering;
    use loom::sync::atomic::AtomicU64 as Word;
    use loom::thread::ThreadId;

    /// loom's atomic, with a second one that is touched by a relaxed read-modify-write before each
    /// access.
    ///
    /// loom 0.7 remembers only the last access to an object when it looks for races to reverse. A
    /// thread that loads a word and then swaps it hides the other's earlier load behind its own: of
    /// `a_reader_sees_whole_rows` it explored one execution. Read-modify-writes all conflict, so none
    /// hides another. Relaxed, they order nothing the fences do not.
    #[derive(Debug)]
    pub struct AtomicU64 {
        turn: Word,
        word: Word,
    }

    #[expect(missing_docs, reason = "the methods of std's type, for models only")]
    impl AtomicU64 {
        pub fn new(value: u64) -> Self {
            Self { turn: Word::new(0), word: Word::new(value) }
        }

        pub fn load(&self, order: Ordering) -> u64 {
            self.word().map_or(0, |word| word.load(order))
        }

        pub fn store(&self, value: u64, order: Ordering) {
            if let Some(word) = self.word() {
                word.store(value, order);
            }
        }

        pub fn compare_exchange(
            &self,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            let swap = |word: &Word| word.compare_exchange(current, new, success, failure);
            self.word().map_or(Err(0), swap)
        }

        pub fn fetch_add(&self, by: u64, order: Ordering) -> u64 {
            self.word().map_or(0, |word| word.fetch_add(by, order))
        }

        pub fn swap(&self, value: u64, order: Ordering) -> u64 {
            self.word().map_or(0, |word| word.swap(value, order))
        }

        pub fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
            self.word().map_or(0, |word| word.fetch_max(value, order))
        }

        pub fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
            self.word().map_or(0, |word| word.fetch_and(bits, order))
        }

        pub fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
            self.word().map_or(0, |word| word.fetch_or(bits, order))
        }

        /// `None` for the dead: what they do while they unwind does not happen.
        fn word(&self) -> Option<&Word> {
            if !lives() {
                return None;
            }
            self.turn.fetch_add(0, Ordering::Relaxed);
            Some(&self.word)
        }
    }

    /// What a thread killed by [`die_after`] unwinds with.
    #[derive(Debug)]
    pub struct Killed;

    std::thread_local! {
        /// The thread to be killed and the accesses it still may do. loom runs all threads of a model
        /// on one thread of the system.
        static VICTIM: Cell<Option<(ThreadId, Option<u32>)>> = const { Cell::new(None) };
    }

    /// Kills the calling thread of a model before its access number `accesses` (from 0) to shared
    /// words, as `kill -9` would: it unwinds with [`Killed`], and its destructors change nothing.
    pub fn die_after(accesses: u32) {
        VICTIM.set(Some((loom::thread::current().id(), Some(accesses))));
    }

    /// Ends what [`die_after`] began.
    pub fn spare() {
        VICTIM.set(None);
    }

    fn lives() -> bool {
        match VICTIM.get() {
            Some((thread, left)) if thread == loom::thread::current().id() => {
                let Some(left) = left else { return false };
                VICTIM.set(Some((thread, left.checked_sub(1))));
                if left == 0 {
                    std::panic::resume_unwind(Box::new(Killed));
                }
                true
            }
            _ => true,
        }
    }
}
