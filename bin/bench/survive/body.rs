//! The body of a message: known to its last byte from who sent it, to whom, and its number.
//!
//! Pure. A body is `FROM.TO.NUMBER ` and a piece of one long text; which piece is told by the three
//! numbers. Whoever reads one compares it with the only one there can be, so any byte that changed
//! on the way is seen. Bodies differ in length, and have characters of one to four bytes.

use crate::bench::client::connection::LifeId;
use crate::random::{self, Random};
use std::fmt::Write;

/// Which message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Name {
    pub(super) from: LifeId,
    pub(super) to: LifeId,
    /// From 0, for this sender and this recipient.
    pub(super) number: u32,
}

/// Writes bodies and reads them.
#[derive(Debug)]
pub(super) struct Bodies {
    filler: String,
}

/// The longest piece of the text: well below `im.max_body` at its default.
const PIECE_MAX_BYTES: usize = 32 << 10;
/// Where pieces may begin.
const STARTS: usize = 64 << 10;

impl Bodies {
    pub(super) fn new() -> Self {
        // The same in every run: what is compared is not the text but which piece of it.
        let mut random = Random::new(1);
        let mut filler = String::with_capacity(STARTS + PIECE_MAX_BYTES + 4);
        while filler.len() < STARTS + PIECE_MAX_BYTES {
            filler.push(match random.below(40) {
                0 => 'é',
                1 => '漢',
                2 => '🐦',
                // Printable, but what JSON escapes.
                _ => char::from(
                    b"abcdefghijklmnopqrstuvwxyzABCDEF0123456789 .,;-_"[random.below(48)],
                ),
            });
        }
        Self { filler }
    }

    /// Appends the body of a message.
    pub(super) fn write(&self, name: Name, into: &mut String) {
        let Name { from, to, number } = name;
        // Writing to a String cannot fail.
        let _ = write!(into, "{}.{}.{number} ", from.0, to.0);
        into.push_str(self.piece(name));
    }

    /// The message whose body this is; `None` if it is nobody's.
    pub(super) fn read(&self, body: &str) -> Option<Name> {
        let (head, piece) = body.split_once(' ')?;
        let mut numbers = head.split('.').map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        let name = Name { from: LifeId(next()?), to: LifeId(next()?), number: next()? };
        let plain = format!("{}.{}.{}", name.from.0, name.to.0, name.number);
        (head == plain && piece == self.piece(name)).then_some(name)
    }

    fn piece(&self, name: Name) -> &str {
        let pair = u64::from(name.from.0) << 32 | u64::from(name.to.0);
        let chosen = random::mix(random::mix(pair) ^ u64::from(name.number));
        let most = match chosen % 128 {
            0 => PIECE_MAX_BYTES,
            1..=8 => 4 << 10,
            _ => 200,
        };
        let start = self.filler.floor_char_boundary(random::below(chosen >> 8, STARTS));
        let bytes = random::below(random::mix(chosen), most);
        &self.filler[start..self.filler.floor_char_boundary(start + bytes)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(from: u32, to: u32, number: u32) -> Name {
        Name { from: LifeId(from), to: LifeId(to), number }
    }

    #[test]
    fn a_body_is_read_as_it_was_written_and_no_other() {
        let bodies = Bodies::new();
        let (mut long, mut wide) = (0, 0);
        for number in 0..2_000 {
            let mut body = String::new();
            bodies.write(name(7, 8, number), &mut body);
            assert_eq!(bodies.read(&body), Some(name(7, 8, number)));
            let json = serde_json::to_string(&body).unwrap();
            assert_eq!(json.len(), body.len() + 2, "nothing is escaped");
            long += usize::from(body.len() > 10_000);
            wide += usize::from(!body.is_ascii());
            for cut in [1, body.len() / 2] {
                let cut = body.floor_char_boundary(cut);
                let without = format!(
                    "{}{}",
                    &body[..cut],
                    body[cut..].chars().as_str().get(1..).unwrap_or("")
                );
                assert_eq!(bodies.read(&without).filter(|_| without != body), None);
            }
        }
        assert!(long > 3 && wide > 1_000, "{long} {wide}");
    }

    #[test]
    fn any_byte_that_changed_is_seen() {
        let bodies = Bodies::new();
        let mut body = String::new();
        bodies.write(name(12, 345, 6_789), &mut body);
        for at in 0..body.len() {
            let mut bytes = body.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert_eq!(bodies.read(&changed), None, "byte {at}");
        }
        for wrong in ["", " ", "1.2 ", "1.2.3", "1.2.3.4 ", "01.2.3 ", "+1.2.3 ", "a.b.c d"] {
            assert_eq!(bodies.read(wrong), None, "{wrong:?}");
        }
    }
}
