//! Marks in shared memory that stand once something has left: how an application tells, after a death, what
//! was sent from what was lost with the worker.
//!
//! Knows words and nothing of what they mean. Invariants: 1. A mark is set after everything that was pushed
//! before it was asked for is with the kernel, or written down for whoever serves the slot next, and before
//! the turn is over. 2. A word that has changed meanwhile is left as it is. 3. A process that dies takes the
//! marks it has not set with it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};

/// Marks to be set, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks(Vec<Mark>);

#[derive(Clone, Debug)]
struct Mark {
    word: &'static AtomicU64,
    from: u64,
    to: u64,
}

impl Marks {
    /// Notes that `word` is to become `to`, if it is `from` then.
    pub(crate) fn note(&mut self, word: &'static AtomicU64, from: u64, to: u64) {
        self.0.push(Mark { word, from, to });
    }

    /// Sets them all. Costs nothing where there is none.
    pub(crate) fn set(&mut self) {
        for mark in self.0.drain(..) {
            // Who changed it meanwhile knew why.
            let _ = mark.word.compare_exchange(mark.from, mark.to, AcqRel, Relaxed);
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets them, as a death does.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn a_mark_is_set_once_and_never_over_another_value() {
        let words: &'static [AtomicU64] = Box::leak(Box::new([1, 1, 1].map(AtomicU64::new)));
        let mut marks = Marks::default();
        marks.note(&words[0], 1, 2);
        marks.note(&words[1], 7, 2);
        marks.note(&words[0], 2, 3);
        marks.set();
        words[0].store(1, Relaxed);
        marks.set();
        marks.note(&words[2], 1, 2);
        marks.forget();
        marks.set();
        let now: Vec<u64> = words.iter().map(|word| word.load(Relaxed)).collect();
        assert_eq!(now, [1, 1, 1]);
    }
}
