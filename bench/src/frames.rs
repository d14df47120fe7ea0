//! What the load generator sends and what it must get back: every message is different, and known.
//!
//! A message begins with its number and its connection's, in hexadecimal; behind that all are alike.

/// Bytes of a message that differ from one to the next.
pub const HEAD_BYTES: usize = 20;
const MASK: [u8; 4] = [0x3A, 0xC5, 0x91, 0x6E];

/// The frames of one case.
pub struct Frames {
    payload_bytes: usize,
    request_header: Vec<u8>,
    answer_header: Vec<u8>,
    /// Masked, as it is sent behind the head.
    masked_tail: Vec<u8>,
    plain_tail: Vec<u8>,
}

impl Frames {
    /// Frames of text messages of so many ASCII bytes, or of binary ones; at least [`HEAD_BYTES`].
    pub fn new(payload_bytes: usize, binary: bool) -> Self {
        assert!(payload_bytes >= HEAD_BYTES, "a message holds its number: {HEAD_BYTES} bytes");
        let first = if binary { 0x82 } else { 0x81 };
        let plain_tail: Vec<u8> = (HEAD_BYTES..payload_bytes).map(filler).collect();
        let masked_tail =
            plain_tail.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        let mut request_header = header(first, payload_bytes, 0x80);
        request_header.extend_from_slice(&MASK);
        let answer_header = header(first, payload_bytes, 0);
        Self { payload_bytes, request_header, answer_header, masked_tail, plain_tail }
    }

    /// Bytes of one frame of the client.
    pub fn request_bytes(&self) -> usize {
        self.request_header.len() + self.payload_bytes
    }

    /// The front of a request: header and masked head. [`Self::masked_tail`] follows.
    pub fn request_front(&self, connection: usize, number: u64, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.request_header);
        let mut head = head(connection, number);
        head.iter_mut().zip(MASK.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        into.extend_from_slice(&head);
    }

    /// What follows the front of every request.
    pub fn masked_tail(&self) -> &[u8] {
        &self.masked_tail
    }

    /// Compares what came with the answer due, of which `at` bytes came before. Gives how many bytes
    /// belong to it and whether it is whole; `None`: it is not what was sent.
    pub fn check(
        &self,
        connection: usize,
        number: u64,
        at: usize,
        came: &[u8],
    ) -> Option<(usize, bool)> {
        let front_bytes = self.answer_header.len() + HEAD_BYTES;
        let whole = front_bytes + self.plain_tail.len();
        let came = &came[..came.len().min(whole - at)];
        let end = at + came.len();
        let (mut from, mut rest) = (at, came);
        if from < front_bytes {
            let mut front = [0; 10 + HEAD_BYTES];
            let split = self.answer_header.len();
            front[..split].copy_from_slice(&self.answer_header);
            front[split..front_bytes].copy_from_slice(&head(connection, number));
            let stop = end.min(front_bytes);
            let (mine, behind) = rest.split_at(stop - from);
            if mine != &front[from..stop] {
                return None;
            }
            (from, rest) = (stop, behind);
        }
        let tail = if rest.is_empty() {
            &[][..]
        } else {
            &self.plain_tail[from - front_bytes..][..rest.len()]
        };
        (rest == tail).then_some((came.len(), end == whole))
    }
}

fn header(first: u8, payload_bytes: usize, mask_bit: u8) -> Vec<u8> {
    match payload_bytes {
        0..126 => vec![first, mask_bit | u8::try_from(payload_bytes).unwrap_or(0)],
        126..65_536 => {
            let [high, low] = u16::try_from(payload_bytes).unwrap_or(0).to_be_bytes();
            vec![first, mask_bit | 126, high, low]
        }
        _ => [&[first, mask_bit | 127][..], &(payload_bytes as u64).to_be_bytes()].concat(),
    }
}

fn head(connection: usize, number: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let value = u128::from(number) << 32 | (connection as u128 & 0xFFFF_FFFF);
    for (place, byte) in head.iter_mut().enumerate() {
        let digit = (value >> (4 * (HEAD_BYTES - 1 - place))) & 0xF;
        *byte = b"0123456789abcdef"[usize::try_from(digit).unwrap_or(0)];
    }
    head
}

/// Printable, and with a period that no power of two divides.
fn filler(at: usize) -> u8 {
    b' ' + u8::try_from((at * 7 + at / 89) % 95).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_answer_passes_in_any_pieces_and_a_wrong_byte_never() {
        for bytes in [20, 125, 126, 1024, 70_000] {
            let frames = Frames::new(bytes, false);
            let mut answer = header(0x81, bytes, 0);
            answer.extend_from_slice(&head(5, 77));
            answer.extend((HEAD_BYTES..bytes).map(filler));
            let (taken, whole) = frames.check(5, 77, 0, &answer).expect("right");
            assert_eq!((taken, whole), (answer.len(), true));
            for cut in [1, 3, 9, 15, answer.len() - 1] {
                assert_eq!(frames.check(5, 77, 0, &answer[..cut]), Some((cut, false)));
                let rest = answer.len() - cut;
                assert_eq!(frames.check(5, 77, cut, &answer[cut..]), Some((rest, true)));
            }
            assert_eq!(frames.check(5, 78, 0, &answer), None, "another number");
            assert_eq!(frames.check(6, 77, 0, &answer), None, "another connection");
            for place in [0, 1, answer.len() / 2, answer.len() - 1] {
                let mut wrong = answer.clone();
                wrong[place] ^= 1;
                assert_eq!(frames.check(5, 77, 0, &wrong), None, "byte {place} of {bytes}");
            }
        }
    }
}
