//! UTF-8 over pieces: a text is checked as it arrives, wherever it is cut.
//!
//! Invariants: 1. A text is refused at the first byte that no valid text could have there, not later.
//! 2. What is remembered between pieces is the start of one character: at most 3 bytes.

/// The text so far holds a byte that valid UTF-8 cannot have in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid UTF-8")]
pub struct InvalidUtf8;

/// The character in which a text stopped: its first bytes, none if the text ended between characters.
///
/// Its bytes from the low end up, then their number in bits 24 and 25; one word, so that it stays in a
/// register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utf8Tail(u32);

/// How many bits [`Utf8Tail::to_bits`] uses.
pub(super) const TAIL_BITS: u32 = 26;

const LENGTH_SHIFT: u32 = 24;

impl Utf8Tail {
    /// Takes the next piece of the text.
    ///
    /// # Errors
    /// [`InvalidUtf8`] as soon as a byte cannot stand where it is; the text is then lost.
    pub fn check(&mut self, piece: &[u8]) -> Result<(), InvalidUtf8> {
        let mut rest = piece;
        while !self.is_complete() {
            let Some((&byte, after)) = rest.split_first() else { return Ok(()) };
            self.push(byte)?;
            rest = after;
        }
        let (body, cut) = rest.split_at(rest.len() - cut_character(rest));
        if simdutf8::basic::from_utf8(body).is_err() {
            return Err(InvalidUtf8);
        }
        cut.iter().try_for_each(|&byte| self.push(byte))
    }

    /// Whether the text so far ends between two characters, as a whole text must.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        self.0 >> LENGTH_SHIFT == 0
    }

    /// The tail in the low 26 bits of a word.
    pub(super) const fn to_bits(self) -> u32 {
        self.0
    }

    /// The tail in the low 26 bits of a word. Any word gives a tail; one that [`Self::to_bits`] never makes
    /// is refused by the next `check`, or is a tail of some text.
    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << TAIL_BITS) - 1))
    }

    /// Takes one byte of the character in hand, or the first of the next one.
    fn push(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        let [first, second, third, length] = self.0.to_le_bytes();
        let held = usize::from(length);
        let mut character = [first, second, third, 0];
        character[held] = byte;
        match std::str::from_utf8(&character[..=held]) {
            Ok(_) => *self = Self::default(),
            // Nothing but the start of one character: three bytes at most.
            Err(error) if error.error_len().is_none() && error.valid_up_to() == 0 && held < 3 => {
                character[3] = length + 1;
                self.0 = u32::from_le_bytes(character);
            }
            Err(_) => return Err(InvalidUtf8),
        }
        Ok(())
    }
}

/// How many bytes at the end of `text` start a character that goes on behind it: 0 to 3.
fn cut_character(text: &[u8]) -> usize {
    for (back, &byte) in text.iter().rev().take(3).enumerate() {
        let width = match byte {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        return if width > back + 1 { back + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where an incremental check refuses `text` when it comes byte by byte: the index of the bad byte.
    fn refused_at(text: &[u8]) -> Option<usize> {
        let mut tail = Utf8Tail::default();
        (0..text.len()).find(|&at| {
            let refused = tail.check(&text[at..=at]).is_err();
            tail = Utf8Tail::from_bits(tail.to_bits());
            refused
        })
    }

    #[test]
    fn every_cut_of_a_valid_text_is_valid() {
        let text = "aé漢😀\u{7FF}\u{800}\u{FFFF}\u{10000}\u{10FFFF}".as_bytes();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let mut tail = Utf8Tail::default();
                tail.check(&text[..first]).unwrap();
                assert_eq!(tail.is_complete(), std::str::from_utf8(&text[..first]).is_ok());
                tail.check(&text[first..second]).unwrap();
                tail.check(&text[second..]).unwrap();
                assert!(tail.is_complete());
            }
        }
    }

    #[test]
    fn the_first_bad_byte_is_refused() {
        assert_eq!(refused_at(b"a\xC0\x80"), Some(1), "overlong");
        assert_eq!(refused_at(b"\xE0\x80\x80"), Some(1), "overlong of three");
        assert_eq!(refused_at(b"\xED\xA0\x80"), Some(1), "surrogate");
        assert_eq!(refused_at(b"\xF4\x90\x80\x80"), Some(1), "over U+10FFFF");
        assert_eq!(refused_at(b"\xF5"), Some(0));
        assert_eq!(refused_at(b"\x80"), Some(0));
        assert_eq!(refused_at(b"\xCE\xBA\xFF"), Some(2));
        assert_eq!(refused_at(b"\xE6\xBC"), None, "cut, not yet wrong");
    }

    #[test]
    fn a_piece_is_judged_as_its_bytes_are() {
        let pieces: [&[u8]; 6] =
            [b"ok \xE0\x80", b"ok \xED\xA0", b"\xF4\x90", b"abc\xC1", b"\x80\x80\x80\x80", b"\xF8"];
        for piece in pieces {
            assert_eq!(Utf8Tail::default().check(piece), Err(InvalidUtf8), "{piece:x?}");
        }
    }

    #[test]
    fn no_word_panics() {
        for word in [0, u32::MAX, 0x03FF_FFFF, 0x0261_C3C3, 0x0341_4141, 0x0180_8080] {
            let _ = Utf8Tail::from_bits(word).check(b"\x80\x80abc");
        }
    }
}
