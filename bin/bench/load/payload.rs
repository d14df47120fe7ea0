//! Bodies whose whole content follows from sender and number, so that each byte of one that comes back
//! can be checked.
//!
//! Pure. A body is sixteen hexadecimal digits and letters behind them up to its size; JSON and HTML
//! escape none of its characters.

/// The shortest body: the digits alone.
pub(super) const HEAD_BYTES: usize = 16;
/// Senders are told apart by so many bits, their messages by the others.
const SENDER_BITS: u32 = 24;
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz;ABCDEFGHIJKLMNOPQRSTUVWXYZ -.";

/// Which message a body is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Name {
    pub(super) sender: usize,
    /// The n-th of this sender.
    pub(super) number: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Payload {
    /// What stands behind the head of each.
    tail: String,
}

impl Payload {
    /// Bodies of so many bytes; shorter ones than a head are as long as it.
    pub(super) fn new(bytes: usize) -> Self {
        let tail = LETTERS.iter().cycle().take(bytes.saturating_sub(HEAD_BYTES));
        Self { tail: tail.map(|letter| char::from(*letter)).collect() }
    }

    /// Appends a body.
    pub(super) fn write(&self, name: Name, into: &mut String) {
        let word = (name.sender as u64) << (64 - SENDER_BITS) | name.number;
        let digit = |place: u32| char::from_digit(nibble(word, place), 16).unwrap_or('0');
        into.extend((0..16).map(digit));
        into.push_str(&self.tail);
    }

    /// What a body is of; `None` if it is none of ours, to the last byte.
    pub(super) fn read(&self, body: &str) -> Option<Name> {
        let (head, tail) = body.split_at_checked(HEAD_BYTES)?;
        if tail != self.tail {
            return None;
        }
        let lower_case = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        let word = u64::from_str_radix(head, 16).ok().filter(|_| head.bytes().all(lower_case))?;
        let sender = usize::try_from(word >> (64 - SENDER_BITS)).ok()?;
        Some(Name { sender, number: word & (u64::MAX >> SENDER_BITS) })
    }
}

fn nibble(word: u64, place: u32) -> u32 {
    // Four bits fit.
    u32::try_from(word >> (60 - 4 * place) & 0xF).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_back_and_no_other_byte_is_taken() {
        for bytes in [0, 16, 17, 100, 3_000] {
            let payload = Payload::new(bytes);
            let name = Name { sender: 0xAB_CDEF, number: 0x12_3456_789A };
            let mut body = String::new();
            payload.write(name, &mut body);
            assert_eq!(body.len(), bytes.max(HEAD_BYTES));
            assert_eq!(payload.read(&body), Some(name));
            assert_eq!(serde_json::to_string(&body).unwrap(), format!("\"{body}\""));
            for at in [0, 7, 15, bytes.max(HEAD_BYTES) - 1] {
                let mut damaged = body.clone().into_bytes();
                damaged[at] ^= 0x20;
                let damaged = String::from_utf8(damaged).unwrap();
                assert_ne!(payload.read(&damaged), Some(name), "{at}: {damaged}");
            }
            assert_eq!(payload.read(&body[1..]), None);
            assert_eq!(payload.read(&format!("{body}x")), None);
        }
    }
}
