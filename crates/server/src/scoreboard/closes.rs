//! Ended connections by close code: a word for each code that is known, one for all others.
//!
//! Knows RFC 6455's codes and those that the application names. Invariant: every connection that ends is
//! counted in exactly one of these words, so their sum is what has ended.

use super::ProcessRow;
use std::sync::atomic::Ordering;

/// The first and the last of RFC 6455's codes that are told apart.
const RFC: (u16, u16) = (1000, 1014);
const RFC_CODES: usize = (RFC.1 - RFC.0) as usize + 1;
/// Most codes of an application that are told apart.
pub const APP_CODES_MAX: usize = 15;
/// Behind the codes: connections that never were WebSockets, and all other codes.
const PLAIN: usize = RFC_CODES + APP_CODES_MAX;
const OTHER: usize = PLAIN + 1;
/// Words in a row.
pub(super) const WORDS: usize = OTHER + 1;

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// A WebSocket, with this code; 1005 and 1006 stand for none, as in RFC 6455.
    Code(u16),
    /// It never became a WebSocket.
    Plain,
}

impl ProcessRow {
    /// Process: a connection ended.
    pub fn note_end(&self, end: End) {
        let place = match end {
            End::Plain => PLAIN,
            End::Code(code) if (RFC.0..=RFC.1).contains(&code) => usize::from(code - RFC.0),
            End::Code(code) => {
                let known = self.close_codes.iter().take(APP_CODES_MAX);
                let place = known.into_iter().position(|known| *known == code);
                place.map_or(OTHER, |place| RFC_CODES + place)
            }
        };
        let word = &self.words[super::ENDS + place];
        word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// How many ended with each code, by its name: the number, `none` for what never was a WebSocket, `other`.
    /// Codes with which none ended are left out.
    pub fn ends(&self) -> impl Iterator<Item = (String, u64)> {
        let rfc = (RFC.0..=RFC.1).enumerate();
        let own = self.close_codes.iter().take(APP_CODES_MAX).enumerate();
        let codes = rfc.chain(own.map(|(place, code)| (RFC_CODES + place, *code)));
        let codes = codes.map(|(place, code)| (place, code.to_string()));
        let rest = [(PLAIN, "none".to_owned()), (OTHER, "other".to_owned())];
        let words = self.words;
        let count = move |place: usize| words[super::ENDS + place].load(Ordering::Relaxed);
        codes.chain(rest).map(move |(place, name)| (name, count(place))).filter(|end| end.1 > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ROW_WORDS, Scoreboard};
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn every_end_is_counted_once_under_its_name() {
        let words = (0..2 * ROW_WORDS).map(|_| AtomicU64::new(0)).collect();
        let row = Scoreboard::new(Box::leak(words), 1, 0, &[4002, 4511]).worker(0);
        let ends = [
            (End::Code(1000), "1000"),
            (End::Code(1014), "1014"),
            (End::Code(4002), "4002"),
            (End::Code(4511), "4511"),
            (End::Code(999), "other"),
            (End::Code(1015), "other"),
            (End::Code(4003), "other"),
            (End::Plain, "none"),
        ];
        for (number, (end, name)) in ends.into_iter().enumerate() {
            let before: Vec<_> = row.ends().collect();
            row.note_end(end);
            let after: Vec<_> = row.ends().collect();
            assert_eq!(after.iter().map(|end| end.1).sum::<u64>(), number as u64 + 1);
            let count = |ends: &[(String, u64)]| {
                ends.iter().find(|end| end.0 == name).map_or(0, |end| end.1)
            };
            assert_eq!(count(&after), count(&before) + 1, "{end:?}");
        }
    }

    #[test]
    fn codes_beyond_the_bound_are_others() {
        let codes: Vec<u16> = (4000..4016).collect();
        let words = (0..2 * ROW_WORDS).map(|_| AtomicU64::new(0)).collect();
        let row = Scoreboard::new(Box::leak(words), 1, 0, codes.leak()).worker(0);
        row.note_end(End::Code(4014));
        row.note_end(End::Code(4015));
        let ends: Vec<_> = row.ends().collect();
        assert_eq!(ends, [("4014".to_owned(), 1), ("other".to_owned(), 1)]);
    }
}
