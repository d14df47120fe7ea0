//! Keys of what a terminal sends: UTF-8, control characters, and the sequences that begin with ESC.
//!
//! Knows no terminal. What is not known is passed over. Invariant: what waits for its rest is bounded by
//! [`SEQUENCE_MAX`] and [`PASTE_MAX`].

/// A key, or a text that was pasted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    Enter,
    Tab,
    BackTab,
    Backspace,
    Delete,
    Left,
    Right,
    WordLeft,
    WordRight,
    Up,
    Down,
    Home,
    End,
    PageUp,
    PageDown,
    /// With the letter, in lower case.
    Control(char),
    Paste(String),
}

/// Bytes of a sequence; the longest known one has seven.
const SEQUENCE_MAX: usize = 32;
/// Bytes of a paste; the rest of a longer one is passed over.
const PASTE_MAX: usize = 64 << 10;

const ESC: u8 = 0x1b;
const PASTE_BEGINS: &[u8] = b"\x1b[200~";
const PASTE_ENDS: &[u8] = b"\x1b[201~";

/// Bytes on their way to be keys.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    bytes: Vec<u8>,
    /// What was pasted so far.
    pasted: Option<Vec<u8>>,
}

impl Keys {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next key that is whole.
    pub(crate) fn next(&mut self) -> Option<Key> {
        loop {
            if self.pasted.is_some() {
                return self.paste();
            }
            let first = *self.bytes.first()?;
            if first == ESC {
                if self.bytes.starts_with(PASTE_BEGINS) {
                    self.bytes.drain(..PASTE_BEGINS.len());
                    self.pasted = Some(Vec::new());
                    continue;
                }
                match self.sequence()? {
                    Some(key) => return Some(key),
                    None => continue,
                }
            }
            if first < 0x20 || first == 0x7f {
                self.bytes.remove(0);
                match control(first) {
                    Some(key) => return Some(key),
                    None => continue,
                }
            }
            if let Some(letter) = self.letter()? {
                return Some(Key::Char(letter));
            }
        }
    }

    /// Of a sequence that is whole: its key, or none that is known. Nothing yet of one that is not.
    #[expect(clippy::option_option, reason = "not yet is not the same as not known")]
    fn sequence(&mut self) -> Option<Option<Key>> {
        let second = *self.bytes.get(1)?;
        if second != b'[' && second != b'O' {
            // The key Esc, or one with Alt: as if it had been without.
            self.bytes.remove(0);
            return Some(None);
        }
        let ends = |byte: &u8| (0x40..=0x7e).contains(byte);
        let Some(length) = self.bytes[2..].iter().position(ends).map(|at| at + 3) else {
            if self.bytes.len() > SEQUENCE_MAX {
                self.bytes.drain(..2);
                return Some(None);
            }
            return None;
        };
        let sequence: Vec<u8> = self.bytes.drain(..length).collect();
        let (last, middle) = (sequence[length - 1], &sequence[2..length - 1]);
        Some(known(middle, last))
    }

    /// A letter; none where the bytes are no UTF-8, nothing yet where its rest is to come.
    #[expect(clippy::option_option, reason = "not yet is not the same as none")]
    fn letter(&mut self) -> Option<Option<char>> {
        let longest = &self.bytes[..self.bytes.len().min(4)];
        let text = match std::str::from_utf8(longest) {
            Ok(text) => text,
            Err(error) if error.valid_up_to() > 0 => {
                std::str::from_utf8(&longest[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(error) if error.error_len().is_none() => return None,
            Err(_) => "",
        };
        let letter = text.chars().next();
        self.bytes.drain(..letter.map_or(1, char::len_utf8));
        Some(letter.filter(|letter| !letter.is_control()))
    }

    fn paste(&mut self) -> Option<Key> {
        let pasted = self.pasted.as_mut()?;
        let end = self.bytes.windows(PASTE_ENDS.len()).position(|bytes| bytes == PASTE_ENDS);
        // The mark may be cut: its beginning stays.
        let whole = end.unwrap_or_else(|| self.bytes.len().saturating_sub(PASTE_ENDS.len() - 1));
        let room = PASTE_MAX.saturating_sub(pasted.len());
        pasted.extend(self.bytes.drain(..whole).take(room));
        end?;
        self.bytes.drain(..PASTE_ENDS.len());
        let pasted = self.pasted.take()?;
        Some(Key::Paste(String::from_utf8_lossy(&pasted).into_owned()))
    }
}

fn control(byte: u8) -> Option<Key> {
    match byte {
        b'\r' | b'\n' => Some(Key::Enter),
        b'\t' => Some(Key::Tab),
        0x08 | 0x7f => Some(Key::Backspace),
        0x01..=0x1a => Some(Key::Control(char::from(byte - 1 + b'a'))),
        _ => None,
    }
}

/// The key of a sequence: what stands between, and its last byte.
fn known(middle: &[u8], last: u8) -> Option<Key> {
    // `1;5` is with Ctrl, `1;3` with Alt.
    let by_word = middle.ends_with(b";5") || middle.ends_with(b";3");
    Some(match (middle, last) {
        (_, b'A') => Key::Up,
        (_, b'B') => Key::Down,
        (_, b'C') if by_word => Key::WordRight,
        (_, b'D') if by_word => Key::WordLeft,
        (_, b'C') => Key::Right,
        (_, b'D') => Key::Left,
        (_, b'H') | (b"1" | b"7", b'~') => Key::Home,
        (_, b'F') | (b"4" | b"8", b'~') => Key::End,
        (_, b'Z') => Key::BackTab,
        (b"3", b'~') => Key::Delete,
        (b"5", b'~') => Key::PageUp,
        (b"6", b'~') => Key::PageDown,
        (b"", b'M') => Key::Enter,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(keys: &mut Keys) -> Vec<Key> {
        std::iter::from_fn(|| keys.next()).collect()
    }

    const TYPED: &[u8] =
        b"a\xe8\x8c\xb6\x1b[A\x1b[1;5D\x1bOH\x1b[5~\x1b[Z\r\x7f\x03\t\x1bx\x1b[99~\xffz\
        \x1b[200~two\rlines \x1b[A\x1b[201~\x1b[3~";

    fn meant() -> Vec<Key> {
        vec![
            Key::Char('a'),
            Key::Char('茶'),
            Key::Up,
            Key::WordLeft,
            Key::Home,
            Key::PageUp,
            Key::BackTab,
            Key::Enter,
            Key::Backspace,
            Key::Control('c'),
            Key::Tab,
            Key::Char('x'),
            Key::Char('z'),
            Key::Paste("two\rlines \u{1b}[A".to_owned()),
            Key::Delete,
        ]
    }

    #[test]
    fn keys_are_found_however_their_bytes_are_cut() {
        for step in 1..=TYPED.len() {
            let mut keys = Keys::default();
            let mut found = Vec::new();
            for piece in TYPED.chunks(step) {
                keys.push(piece);
                found.extend(all(&mut keys));
            }
            assert_eq!(found, meant(), "in steps of {step}");
        }
    }

    #[test]
    fn nothing_waits_without_a_bound() {
        let mut keys = Keys::default();
        for _ in 0..100 {
            keys.push(b"\x1b[;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;");
            let _ = all(&mut keys);
            assert!(keys.bytes.len() <= 2 * SEQUENCE_MAX);
        }
        let mut keys = Keys::default();
        keys.push(PASTE_BEGINS);
        for _ in 0..100 {
            keys.push(&[b'x'; 4_096]);
            assert_eq!(keys.next(), None);
            assert!(keys.bytes.len() < PASTE_ENDS.len());
        }
        keys.push(PASTE_ENDS);
        assert!(matches!(keys.next(), Some(Key::Paste(text)) if text.len() == PASTE_MAX));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut keys = Keys::default();
            for piece in pieces {
                keys.push(&piece);
                let _ = all(&mut keys);
            }
        }
    }
}
