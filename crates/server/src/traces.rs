//! Which subjects are traced, and where what is seen of them goes: a few places in shared memory, so that
//! every worker knows of them in its next turn, also one that has just taken another's place.
//!
//! Knows no socket and no application: a subject is a number that the application gives
//! ([`crate::Sessions::set_subject`]). Invariants: 1. Only the master writes, but for the counts. 2. A place
//! is read whole or not at all: its number is odd while it is written, and another afterwards. 3. While
//! nobody traces a worker's turn costs one load of a word that nobody writes.

use crate::packed;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

/// Traces at once.
pub(crate) const TRACES_MAX: usize = 4;
/// The longest path of a socket that the kernel takes, in bytes.
pub(crate) const PATH_MAX: usize = 107;
const PATH_WORDS: usize = 14;

const ACTIVE: usize = 0;
const SENT: usize = 1;
const DROPPED: usize = 2;
const FIRST_PLACE: usize = 3;

const NUMBER: usize = 0;
const SUBJECT: usize = 1;
const OWN_SENT: usize = 2;
const OWN_DROPPED: usize = 3;
const PATH_LENGTH: usize = 4;
const PATH: usize = 5;
const PLACE_WORDS: usize = PATH + PATH_WORDS;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traces {
    words: &'static [AtomicU64],
}

/// A trace as a worker sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Trace {
    pub(crate) place: usize,
    pub(crate) subject: u64,
    pub(crate) path: PathBuf,
}

/// Lines that went out, and lines that nobody took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
}

impl Traces {
    /// Words needed.
    pub(crate) const WORDS: usize = FIRST_PLACE + TRACES_MAX * PLACE_WORDS;

    /// Over zeroed words, or those of a master before.
    pub(crate) fn new(words: &'static [AtomicU64]) -> Self {
        assert!(words.len() >= Self::WORDS, "traces in {} words", words.len());
        Self { words }
    }

    /// Master: begins a trace in a place. False: the path is too long.
    pub(crate) fn begin(&self, place: usize, subject: u64, path: &Path) -> bool {
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() > PATH_MAX {
            return false;
        }
        let words = self.place(place);
        let number = words[NUMBER].load(Relaxed) & !1;
        words[NUMBER].store(number + 1, Relaxed);
        // Whoever reads a word of what follows sees the odd number, too.
        fence(Release);
        words[SUBJECT].store(subject, Relaxed);
        words[OWN_SENT].store(0, Relaxed);
        words[OWN_DROPPED].store(0, Relaxed);
        words[PATH_LENGTH].store(u64::try_from(bytes.len()).unwrap_or(0), Relaxed);
        packed::store(&words[PATH..], bytes);
        words[NUMBER].store(number + 2, Release);
        self.words[ACTIVE].fetch_or(1 << place, Release);
        true
    }

    /// Master: ends the trace in a place.
    pub(crate) fn end(&self, place: usize) {
        self.words[ACTIVE].fetch_and(!(1 << place), Release);
    }

    /// Master: ends all, as where a new program does not know of them.
    pub(crate) fn end_all(&self) {
        self.words[ACTIVE].store(0, Release);
    }

    /// A bit for each place in which there is a trace; 0: nobody traces.
    pub(crate) fn active(&self) -> u64 {
        self.words[ACTIVE].load(Relaxed)
    }

    /// How many there have been: each has moved the number of its place by two.
    pub(crate) fn begun(&self) -> u64 {
        (0..TRACES_MAX).map(|place| self.place(place)[NUMBER].load(Relaxed) / 2).sum()
    }

    /// All there are.
    pub(crate) fn read(&self) -> Vec<Trace> {
        let active = self.words[ACTIVE].load(Acquire);
        (0..TRACES_MAX)
            .filter(|place| active >> place & 1 == 1)
            .filter_map(|place| self.read_place(place))
            .collect()
    }

    fn read_place(&self, place: usize) -> Option<Trace> {
        let words = self.place(place);
        let number = words[NUMBER].load(Acquire);
        let subject = words[SUBJECT].load(Relaxed);
        let length = usize::try_from(words[PATH_LENGTH].load(Relaxed)).unwrap_or(0);
        let bytes = packed::load(&words[PATH..], length.min(PATH_MAX));
        fence(Acquire);
        let whole = number.is_multiple_of(2) && words[NUMBER].load(Relaxed) == number;
        let path = PathBuf::from(OsStr::from_bytes(&bytes));
        (whole && subject != 0).then_some(Trace { place, subject, path })
    }

    /// Counts lines of a trace that went out, or that nobody took.
    pub(crate) fn count(&self, place: usize, counts: Counts) {
        for (word, own, number) in
            [(SENT, OWN_SENT, counts.sent), (DROPPED, OWN_DROPPED, counts.dropped)]
        {
            if number > 0 {
                self.words[word].fetch_add(number, Relaxed);
                self.place(place)[own].fetch_add(number, Relaxed);
            }
        }
    }

    /// Of the trace in a place.
    pub(crate) fn counts_of(&self, place: usize) -> Counts {
        let words = self.place(place);
        Counts { sent: words[OWN_SENT].load(Relaxed), dropped: words[OWN_DROPPED].load(Relaxed) }
    }

    /// Of all there have been.
    pub(crate) fn counts(&self) -> Counts {
        Counts { sent: self.words[SENT].load(Relaxed), dropped: self.words[DROPPED].load(Relaxed) }
    }

    fn place(&self, place: usize) -> &'static [AtomicU64] {
        let from = FIRST_PLACE + place.min(TRACES_MAX - 1) * PLACE_WORDS;
        &self.words[from..from + PLACE_WORDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn traces() -> Traces {
        Traces::new(Box::leak((0..Traces::WORDS).map(|_| AtomicU64::new(0)).collect()))
    }

    #[test]
    fn traces_begin_are_read_counted_and_end() {
        let traces = traces();
        assert_eq!((traces.active(), traces.read()), (0, vec![]));
        let longest = "/".repeat(PATH_MAX);
        assert!(traces.begin(2, 7, Path::new("/run/dunlin/trace.1.sock")));
        assert!(traces.begin(0, 9, Path::new(&longest)));
        assert!(!traces.begin(1, 8, Path::new(&"/".repeat(PATH_MAX + 1))));
        let read = traces.read();
        assert_eq!(
            read.iter().map(|trace| (trace.place, trace.subject)).collect::<Vec<_>>(),
            [(0, 9), (2, 7)]
        );
        assert_eq!(
            (read[0].path.as_path(), read[1].path.as_path()),
            (Path::new(&longest), Path::new("/run/dunlin/trace.1.sock"))
        );
        traces.count(2, Counts { sent: 3, dropped: 1 });
        traces.count(0, Counts { sent: 1, dropped: 0 });
        assert_eq!(traces.counts(), Counts { sent: 4, dropped: 1 });
        assert_eq!(traces.counts_of(2), Counts { sent: 3, dropped: 1 });
        traces.end(2);
        assert_eq!(traces.read().len(), 1);
        assert!(traces.begin(2, 5, Path::new("x")));
        assert_eq!(traces.counts_of(2), Counts::default(), "of the new one alone");
        traces.end_all();
        assert_eq!((traces.active(), traces.begun(), traces.counts().sent), (0, 3, 4));
    }

    #[test]
    fn a_reader_never_sees_two_traces_in_one() {
        let (traces, over) = (traces(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut seen = 0_u64;
                while !over.load(Relaxed) || seen == 0 {
                    for trace in traces.read() {
                        let expected = trace.subject.to_string().repeat(5);
                        assert_eq!(trace.path, Path::new(&expected));
                        seen += 1;
                    }
                }
            });
            for round in 1..20_000_u64 {
                traces.begin(0, round, Path::new(&round.to_string().repeat(5)));
                if round % 64 == 0 {
                    std::thread::yield_now();
                }
            }
            over.store(true, Relaxed);
        });
    }
}
