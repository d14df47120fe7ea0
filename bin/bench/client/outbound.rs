//! What is to be written on one connection, and when: bytes may have to wait, in the middle of a frame.
//!
//! Pure: bytes in, bytes out, `now` passed in. Invariant: bytes leave in the order they were pushed;
//! those behind bytes that wait, wait, too.

use super::moment::Moment;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    parts: VecDeque<Part>,
    /// Bytes of the first part that were written.
    written: usize,
    /// The buffer of a part that has left.
    spare: Vec<u8>,
}

#[derive(Debug)]
struct Part {
    due: Moment,
    bytes: Vec<u8>,
}

/// A buffer that is empty keeps no more than this.
const KEPT_BYTES: usize = 16 << 10;

impl Outbound {
    /// The earliest moment at which bytes pushed now could leave.
    pub(crate) fn earliest(&self, now: Moment) -> Moment {
        self.parts.back().map_or(now, |last| last.due.max(now))
    }

    /// Appends bytes that may leave from `due` on.
    pub(crate) fn push(&mut self, bytes: &[u8], due: Moment) {
        if let Some(last) = self.parts.back_mut().filter(|last| last.due >= due) {
            last.bytes.extend_from_slice(bytes);
        } else if !bytes.is_empty() {
            let mut part = std::mem::take(&mut self.spare);
            part.extend_from_slice(bytes);
            self.parts.push_back(Part { due, bytes: part });
        }
    }

    /// What may leave now; empty if nothing may.
    pub(crate) fn ready(&self, now: Moment) -> &[u8] {
        match self.parts.front() {
            Some(first) if first.due <= now => &first.bytes[self.written..],
            _ => &[],
        }
    }

    /// So many bytes of [`Self::ready`] have left.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.parts.front().is_some_and(|first| self.written >= first.bytes.len()) {
            if let Some(mut part) =
                self.parts.pop_front().filter(|part| part.bytes.capacity() <= KEPT_BYTES)
            {
                part.bytes.clear();
                self.spare = part.bytes;
            }
            self.written = 0;
        }
    }

    /// When the next bytes may leave.
    pub(crate) fn next_due(&self) -> Option<Moment> {
        self.parts.front().map(|first| first.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_and_not_before_they_are_due() {
        let at = |us| Moment::default().plus_us(us);
        let mut outbound = Outbound::default();
        outbound.push(b"", at(1));
        assert_eq!((outbound.next_due(), outbound.earliest(at(5))), (None, at(5)));
        outbound.push(b"ab", at(1));
        outbound.push(b"c", at(10));
        assert_eq!(outbound.earliest(at(2)), at(10));
        outbound.push(b"d", at(3));
        assert_eq!(outbound.ready(at(0)), b"");
        assert_eq!(outbound.ready(at(2)), b"ab");
        outbound.wrote(1);
        assert_eq!(outbound.ready(at(2)), b"b");
        outbound.wrote(1);
        assert_eq!((outbound.ready(at(9)), outbound.next_due()), (&b""[..], Some(at(10))));
        assert_eq!(outbound.ready(at(10)), b"cd");
        outbound.wrote(2);
        assert_eq!(outbound.next_due(), None);
    }
}
