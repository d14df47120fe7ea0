//! Deaths for simulations: a process may be killed between any two deeds on shared words, and here it
//! is, without a process.
//!
//! Every deed of this crate that changes shared words, or lends a word for it, asks first. Others that
//! change words of their own areas may ask, too. Invariant: who is killed has done all deeds before and
//! none after; unwinding does none, so a deed must not be asked for by a destructor.
//!
//! Costs a look at a flag of the thread in builds with debug assertions, and nothing in others.

use crate::sync::AtomicU64;
use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;

/// What the killed unwinds with.
#[derive(Debug)]
pub struct Killed;

std::thread_local! {
    static DEEDS_LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    /// The word that was lent last, and what stood there.
    static LENT: Cell<Option<(&'static AtomicU64, u64)>> = const { Cell::new(None) };
}

/// Kills what this thread does before its deed number `deeds` from now on (from 0), as `kill -9` would
/// kill a process: it unwinds with [`Killed`], for who armed it to catch. In builds without debug
/// assertions nobody dies.
pub fn die_after(deeds: u32) {
    LENT.set(None);
    DEEDS_LEFT.set(Some(deeds));
}

/// Ends what [`die_after`] began.
pub fn spare() {
    DEEDS_LEFT.set(None);
}

/// A deed is about to be done.
#[inline]
pub fn deed() {
    if cfg!(debug_assertions) && DEEDS_LEFT.get().is_some() {
        settle_lent();
        count();
    }
}

/// A word is lent, to be looked at or to be changed: only what changed it was a deed, which is noticed
/// when the next one is about to be done.
#[inline]
pub(crate) fn lend(word: &'static AtomicU64) -> &'static AtomicU64 {
    if cfg!(debug_assertions) && DEEDS_LEFT.get().is_some() {
        settle_lent();
        LENT.set(Some((word, word.load(Relaxed))));
    }
    word
}

fn settle_lent() {
    if LENT.take().is_some_and(|(word, before)| word.load(Relaxed) != before) {
        count();
    }
}

fn count() {
    if let Some(left) = DEEDS_LEFT.get() {
        DEEDS_LEFT.set(left.checked_sub(1));
        if left == 0 {
            std::panic::resume_unwind(Box::new(Killed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HintIndex, heap_words};

    #[test]
    fn the_killed_has_done_what_was_before_and_nothing_after() {
        let words = heap_words(HintIndex::words_needed(1).unwrap());
        let index = HintIndex::new(1, words).unwrap();
        die_after(2);
        let killed =
            std::panic::catch_unwind(|| (0..9).for_each(|row| index.insert(5, row).unwrap()));
        assert!(killed.unwrap_err().is::<Killed>());
        let mut found = Vec::new();
        index.find(5, &mut |row| found.push(row));
        assert_eq!(found, [0, 1]);
        index.insert(5, 2).unwrap();
        die_after(0);
        spare();
        assert!(index.remove(5, 2), "who is spared lives");
    }

    #[test]
    fn to_look_at_a_word_is_no_deed_and_to_change_it_is() {
        let words = heap_words(2);
        die_after(1);
        let killed = std::panic::catch_unwind(|| {
            for _ in 0..10 {
                lend(&words[0]).load(Relaxed);
            }
            lend(&words[0]).store(7, Relaxed);
            lend(&words[1]).store(8, Relaxed);
            lend(&words[0]).store(9, Relaxed);
        });
        assert!(killed.unwrap_err().is::<Killed>());
        assert_eq!(words.iter().map(|word| word.load(Relaxed)).collect::<Vec<_>>(), [7, 8]);
        spare();
    }
}
