//! One frame: its header on the way in, header and payload on the way out, and the mask.
//!
//! Knows what a single frame may look like; what may follow what is the receiver's (`receiver.rs`).

use super::{CloseCode, Violation};

/// Largest payload of a control frame, in bytes.
pub const CONTROL_MAX: usize = 125;

/// Longest header of a client's frame, in bytes: two, eight of length, four of mask.
pub const HEADER_MAX: usize = 14;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// The first frame of a text message.
    Text,
    /// The first frame of a binary message.
    Binary,
    /// A later frame of a message in several frames.
    Continuation,
    /// The end of the connection.
    Close,
    /// Asks for a pong with the same payload.
    Ping,
    /// Answers a ping, or tells unasked that the peer lives.
    Pong,
}

impl FrameKind {
    /// Whether this is a close, ping or pong: never fragmented, at most [`CONTROL_MAX`] bytes.
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    /// The four bits of RFC 6455 section 11.8.
    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }
}

/// Appends a server's frame (unmasked, shortest length form) to `out`. `finish`: last frame of its message.
///
/// Control frames must be final and at most [`CONTROL_MAX`] bytes, which is checked in debug builds.
pub fn encode_frame(out: &mut Vec<u8>, kind: FrameKind, finish: bool, payload: &[u8]) {
    out.reserve(payload.len() + HEADER_MAX);
    encode_header(out, kind, finish, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a whole message, compressed already, as one frame.
pub fn encode_compressed(out: &mut Vec<u8>, kind: FrameKind, payload: &[u8]) {
    debug_assert!(!kind.is_control(), "control frames are never compressed");
    let first = out.len();
    encode_frame(out, kind, true, payload);
    out[first] |= COMPRESSED_BIT;
}

/// Appends only the header of a server's frame, for a payload of `payload_bytes` that follows by itself.
pub fn encode_header(out: &mut Vec<u8>, kind: FrameKind, finish: bool, payload_bytes: usize) {
    debug_assert!(
        !kind.is_control() || (finish && payload_bytes <= CONTROL_MAX),
        "a control frame is final and small"
    );
    let first = kind.bits() | if finish { FINISH_BIT } else { 0 };
    if let Ok(short @ 0..=125) = u8::try_from(payload_bytes) {
        out.extend_from_slice(&[first, short]);
    } else if let Ok(medium) = u16::try_from(payload_bytes) {
        let [high, low] = medium.to_be_bytes();
        out.extend_from_slice(&[first, LENGTH_16, high, low]);
    } else {
        out.extend_from_slice(&[first, LENGTH_64]);
        out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
    }
}

/// Undoes (or does) the masking of `payload`, whose first byte goes with `mask[0]`.
///
/// Returns whether the unmasked payload is all ASCII.
pub fn unmask(payload: &mut [u8], mask: [u8; 4]) -> bool {
    unmask_word(payload, u32::from_le_bytes(mask))
}

/// [`unmask`] with the mask as one word, its first byte lowest.
#[inline]
pub(super) fn unmask_word(payload: &mut [u8], mask: u32) -> bool {
    let wide = u64::from(mask) << 32 | u64::from(mask);
    let (words, rest) = payload.as_chunks_mut::<8>();
    let mut seen = 0u64;
    for word in words {
        let plain = u64::from_le_bytes(*word) ^ wide;
        seen |= plain;
        *word = plain.to_le_bytes();
    }
    let (quads, rest) = rest.as_chunks_mut::<4>();
    for quad in quads {
        let plain = u32::from_le_bytes(*quad) ^ mask;
        seen |= u64::from(plain);
        *quad = plain.to_le_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.to_le_bytes()) {
        *byte ^= key;
        seen |= u64::from(*byte);
    }
    seen & 0x8080_8080_8080_8080 == 0
}

/// The mask for what follows `length` bytes that were unmasked with `mask`.
#[inline]
pub(super) const fn turn_mask(mask: u32, length: usize) -> u32 {
    let bits = match length % 4 {
        0 => 0,
        1 => 8,
        2 => 16,
        _ => 24,
    };
    mask.rotate_right(bits)
}

/// The header of a client's frame that is right in itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientHead {
    pub(super) kind: FrameKind,
    pub(super) finish: bool,
    /// It begins a message that is compressed.
    pub(super) compressed: bool,
    /// Its first byte lowest.
    pub(super) mask: u32,
    /// Length of the header itself.
    pub(super) header_bytes: usize,
    pub(super) payload_bytes: u64,
}

impl ClientHead {
    /// Reads the header at the front of `input`; `None` when it is not all there.
    ///
    /// What the first two bytes tell is refused on sight of them, before the rest is waited for.
    /// `may_compress`: permessage-deflate was agreed on.
    #[inline]
    pub(super) fn parse(input: &[u8], may_compress: bool) -> Result<Option<Self>, Violation> {
        let [first, second, ..] = *input else { return Ok(None) };
        if first & RESERVED_BITS != 0 {
            // Only the first frame of a message says that it is compressed.
            let begins = matches!(first & OPCODE_BITS, 0x1 | 0x2);
            if !(may_compress && begins && first & RESERVED_BITS == COMPRESSED_BIT) {
                return Err(Violation::protocol("reserved bit set"));
            }
        }
        if second & MASK_BIT == 0 {
            return Err(Violation::protocol("frame of a client is not masked"));
        }
        if first & CONTROL_BIT != 0 {
            if first & FINISH_BIT == 0 {
                return Err(Violation::protocol("fragmented control frame"));
            }
            if usize::from(second & !MASK_BIT) > CONTROL_MAX {
                return Err(Violation::protocol("control frame over 125 bytes"));
            }
        }
        if matches!(first & OPCODE_BITS, 0x3..=0x7 | 0xB..=0xF) {
            return Err(Violation::protocol("reserved opcode"));
        }
        let Some((header_bytes, payload_bytes, mask)) = rest_of_header(second, input) else {
            return Ok(None);
        };
        let least = match header_bytes {
            8 => 126,
            14 => 1 << 16,
            _ => 0,
        };
        if payload_bytes < least {
            return Err(Violation::protocol("length in a longer form than it needs"));
        }
        if payload_bytes >> 63 != 0 {
            return Err(Violation::protocol("length with its highest bit set"));
        }
        let kind = match first & OPCODE_BITS {
            0x0 => FrameKind::Continuation,
            0x1 => FrameKind::Text,
            0x2 => FrameKind::Binary,
            0x8 => FrameKind::Close,
            0x9 => FrameKind::Ping,
            // The reserved ones were refused above.
            _ => FrameKind::Pong,
        };
        let (finish, compressed) = (first & FINISH_BIT != 0, first & COMPRESSED_BIT != 0);
        Ok(Some(Self { kind, finish, compressed, mask, header_bytes, payload_bytes }))
    }
}

/// Length of a masked header, of its payload, and the mask, its first byte lowest. `None`: not all there.
#[inline]
const fn rest_of_header(second: u8, input: &[u8]) -> Option<(usize, u64, u32)> {
    match (second & !MASK_BIT, input) {
        (LENGTH_16, &[_, _, a, b, m0, m1, m2, m3, ..]) => {
            let length = u16::from_be_bytes([a, b]);
            Some((8, length as u64, u32::from_le_bytes([m0, m1, m2, m3])))
        }
        (LENGTH_64, &[_, _, a, b, c, d, e, f, g, h, m0, m1, m2, m3, ..]) => {
            let length = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            Some((HEADER_MAX, length, u32::from_le_bytes([m0, m1, m2, m3])))
        }
        (short @ 0..LENGTH_16, &[_, _, m0, m1, m2, m3, ..]) => {
            Some((6, short as u64, u32::from_le_bytes([m0, m1, m2, m3])))
        }
        _ => None,
    }
}

impl Violation {
    /// The peer broke the protocol: close 1002.
    pub(super) const fn protocol(reason: &'static str) -> Self {
        Self { code: CloseCode::PROTOCOL, reason }
    }
}

const FINISH_BIT: u8 = 0x80;
/// RSV1 to RSV3.
const RESERVED_BITS: u8 = 0x70;
/// RSV1: on the first frame of a message it says that the message is compressed.
const COMPRESSED_BIT: u8 = 0x40;
const OPCODE_BITS: u8 = 0x0F;
const CONTROL_BIT: u8 = 0x08;
const MASK_BIT: u8 = 0x80;
/// Says that the length follows in 16 bits.
const LENGTH_16: u8 = 126;
/// Says that the length follows in 64 bits.
const LENGTH_64: u8 = 127;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(input: &[u8]) -> &'static str {
        let violation = ClientHead::parse(input, false).expect_err("is a violation");
        assert_eq!(violation.code, CloseCode::PROTOCOL);
        violation.reason
    }

    #[test]
    fn a_header_is_as_short_as_its_length_allows() {
        let header = |length| {
            let mut out = Vec::new();
            encode_header(&mut out, FrameKind::Binary, true, length);
            out
        };
        assert_eq!(header(0), [0x82, 0]);
        assert_eq!(header(125), [0x82, 125]);
        assert_eq!(header(126), [0x82, 126, 0, 126]);
        assert_eq!(header(65_535), [0x82, 126, 0xFF, 0xFF]);
        assert_eq!(header(65_536), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn kinds_and_the_finish_bit_are_in_the_first_byte() {
        let first = |kind, finish| {
            let mut out = Vec::new();
            encode_frame(&mut out, kind, finish, b"x");
            assert_eq!(&out[1..], b"\x01x");
            out[0]
        };
        assert_eq!(first(FrameKind::Text, true), 0x81);
        assert_eq!(first(FrameKind::Text, false), 0x01);
        assert_eq!(first(FrameKind::Continuation, false), 0x00);
        assert_eq!(first(FrameKind::Continuation, true), 0x80);
        assert_eq!(first(FrameKind::Close, true), 0x88);
        assert_eq!(first(FrameKind::Ping, true), 0x89);
        assert_eq!(first(FrameKind::Pong, true), 0x8A);
    }

    #[test]
    fn unmasking_is_bytewise_xor_at_every_length() {
        let mask = [0x11, 0x82, 0x37, 0xF4];
        for length in 0..70 {
            let plain: Vec<u8> = (0..length).map(|byte| byte * 3).collect();
            let mut masked = plain.clone();
            masked.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
            let seen = unmask(&mut masked, mask);
            assert_eq!(masked, plain);
            assert_eq!(seen, plain.is_ascii());
        }
    }

    #[test]
    fn what_two_bytes_tell_is_refused_at_once() {
        for bit in [0x40, 0x20, 0x10] {
            assert_eq!(refused(&[0x81 | bit, 0x85]), "reserved bit set");
        }
        assert_eq!(refused(&[0x81, 0x05]), "frame of a client is not masked");
        for opcode in (0x3..=0x7).chain(0xB..=0xF) {
            assert_eq!(refused(&[0x80 | opcode, 0x80]), "reserved opcode");
        }
        assert_eq!(refused(&[0x09, 0x80]), "fragmented control frame");
        assert_eq!(refused(&[0x88, 0x80 | 126]), "control frame over 125 bytes");
    }

    #[test]
    fn the_compressed_bit_begins_a_message_where_it_was_agreed_on() {
        let parse = |first| ClientHead::parse(&[first, 0x80, 1, 2, 3, 4], true);
        for first in [0xC1, 0x41, 0xC2, 0x42] {
            assert!(parse(first).unwrap().unwrap().compressed, "{first:x}");
            assert!(!parse(first & !0x40).unwrap().unwrap().compressed, "{first:x}");
        }
        for first in [0xC0, 0x40, 0xC8, 0xC9, 0xCA, 0xE1, 0xD1, 0xA1, 0x91, 0xC3] {
            assert_eq!(parse(first).unwrap_err().reason, "reserved bit set", "{first:x}");
        }
        let mut out = Vec::from(*b"before");
        encode_compressed(&mut out, FrameKind::Text, b"x");
        assert_eq!(out, b"before\xC1\x01x");
    }

    #[test]
    fn lengths_must_be_in_their_shortest_form() {
        let long = "length in a longer form than it needs";
        assert_eq!(refused(&[0x82, 0xFE, 0, 125, 1, 2, 3, 4]), long);
        assert_eq!(refused(&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 255, 255, 1, 2, 3, 4]), long);
        let high = [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!(refused(&high), "length with its highest bit set");
    }

    #[test]
    fn a_header_is_read_once_it_is_whole() {
        let input = [0x02, 0xFE, 0, 126, 9, 8, 7, 6];
        for cut in 0..input.len() {
            assert_eq!(ClientHead::parse(&input[..cut], false), Ok(None));
        }
        let head = ClientHead::parse(&input, false).unwrap().unwrap();
        assert_eq!(head.kind, FrameKind::Binary);
        assert_eq!((head.finish, head.mask), (false, 0x0607_0809));
        assert_eq!((head.header_bytes, head.payload_bytes), (8, 126));
    }

    /// tungstenite reads the same header, for every pair of first bytes and at every length of input.
    #[test]
    fn headers_are_read_as_tungstenite_reads_them() {
        use std::io::Cursor;
        use tungstenite::protocol::frame::FrameHeader;
        let tails = [[0, 0, 0, 0, 0, 1, 0, 0], [0, 200, 9, 8, 7, 6, 5, 4], [0; 8], [0xFF; 8]];
        let (mut accepted, mut short) = (0, 0);
        for (first, second) in (0..=u8::MAX).flat_map(|a| (0..=u8::MAX).map(move |b| (a, b))) {
            for tail in tails {
                let whole = [&[first, second][..], &tail, &[0xA1, 0xB2, 0xC3, 0xD4]].concat();
                for length in [0, 1, 2, 5, 6, 7, 8, 13, 14] {
                    let input = &whole[..length];
                    let Ok(ours) = ClientHead::parse(input, true) else { continue };
                    let mut cursor = Cursor::new(input);
                    let theirs = FrameHeader::parse(&mut cursor).unwrap();
                    let Some(ours) = ours else {
                        short += 1;
                        assert!(theirs.is_none(), "{input:x?}");
                        continue;
                    };
                    let (header, payload_bytes) = theirs.unwrap();
                    accepted += 1;
                    assert_eq!(ours.header_bytes as u64, cursor.position(), "{input:x?}");
                    assert_eq!(ours.payload_bytes, payload_bytes, "{input:x?}");
                    assert_eq!(Some(ours.mask.to_le_bytes()), header.mask, "{input:x?}");
                    assert_eq!(ours.finish, header.is_final, "{input:x?}");
                    assert_eq!(ours.compressed, header.rsv1, "{input:x?}");
                    assert_eq!(ours.kind.bits(), u8::from(header.opcode), "{input:x?}");
                }
            }
        }
        assert!(accepted > 10_000 && short > 10_000, "{accepted} {short}");
    }
}
