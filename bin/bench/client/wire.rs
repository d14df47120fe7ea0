//! WebSocket as a client speaks it: masked frames out, the server's frames in.
//!
//! Pure: bytes in, bytes out. Reads strictly: what a server must not send is an error that says what.

use crate::random::Random;
use std::ops::Range;
use thiserror::Error;

/// What a server sent that RFC 6455 forbids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum WireError {
    #[error("a frame with reserved bits or a reserved opcode")]
    Reserved,
    #[error("a masked frame")]
    Masked,
    #[error("a control frame that is cut or too long")]
    BadControl,
    #[error("a fragment out of place")]
    Fragment,
    #[error("a length that is not written in its shortest form, or over 16 MiB")]
    Length,
    #[error("a binary message")]
    Binary,
    #[error("text that is not UTF-8")]
    Utf8,
    #[error("bytes behind its close frame")]
    BehindClose,
}

/// A whole message, or a control frame.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Incoming {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// 1005 if it names no code.
    Close(u16),
}

/// The same where it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard<'a> {
    Text(&'a str),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    Close(u16),
}

impl From<Heard<'_>> for Incoming {
    fn from(heard: Heard<'_>) -> Self {
        match heard {
            Heard::Text(text) => Self::Text(text.to_owned()),
            Heard::Ping(content) => Self::Ping(content.to_owned()),
            Heard::Pong(content) => Self::Pong(content.to_owned()),
            Heard::Close(code) => Self::Close(code),
        }
    }
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;
/// No answer of ours is a tenth of this.
const MESSAGE_MAX_BYTES: u64 = 16 << 20;
/// A buffer that is empty keeps no more than this.
const KEPT_BYTES: usize = 16 << 10;

/// What has come of a connection's frames.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were read.
    read: usize,
    /// The fragments of a message that came, while more are to come, and until the next has begun.
    message: Vec<u8>,
    is_fragmented: bool,
    closed: bool,
}

/// Where a whole message lies, or a control frame.
enum Place {
    /// Between these bytes of the buffer.
    Frame(u8, Range<usize>),
    Message,
}

impl Inbound {
    /// Takes bytes as they came.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether a frame or a message has begun and not ended.
    pub(crate) fn is_partial(&self) -> bool {
        self.read < self.buffer.len() || self.is_fragmented
    }

    /// The next message or control frame that has wholly come, a copy of it.
    ///
    /// # Errors
    /// The server broke the protocol; nothing more can be read.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming>, WireError> {
        self.hear().map(|heard| heard.map(Incoming::from))
    }

    /// The next message or control frame that has wholly come.
    ///
    /// # Errors
    /// The server broke the protocol; nothing more can be read.
    pub(crate) fn hear(&mut self) -> Result<Option<Heard<'_>>, WireError> {
        loop {
            let Some(frame) = frame(&self.buffer[self.read..])? else {
                self.shrink();
                return Ok(None);
            };
            if self.closed {
                return Err(WireError::BehindClose);
            }
            let start = self.read + frame.head_bytes;
            self.read = start + frame.content_bytes;
            match self.place(frame.first, start..self.read)? {
                None => {}
                Some(Place::Message) => return text(&self.message).map(Some),
                Some(Place::Frame(TEXT, content)) => return text(&self.buffer[content]).map(Some),
                Some(Place::Frame(opcode, content)) => {
                    let content = &self.buffer[content];
                    self.closed |= opcode == CLOSE;
                    return control(opcode, content).map(Some);
                }
            }
        }
    }

    /// Where what is whole with this frame lies.
    fn place(&mut self, first: u8, content: Range<usize>) -> Result<Option<Place>, WireError> {
        let last = first & FIN != 0;
        match (first & 0x0F, self.is_fragmented) {
            (TEXT, false) if last => return Ok(Some(Place::Frame(TEXT, content))),
            (TEXT, false) => {
                self.message.clear();
                self.message.extend_from_slice(&self.buffer[content]);
                self.is_fragmented = true;
            }
            (0, true) => {
                self.message.extend_from_slice(&self.buffer[content]);
                if self.message.len() as u64 > MESSAGE_MAX_BYTES {
                    return Err(WireError::Length);
                }
                self.is_fragmented = !last;
                return Ok(last.then_some(Place::Message));
            }
            (BINARY, false) => return Err(WireError::Binary),
            (0 | TEXT | BINARY, _) => return Err(WireError::Fragment),
            (opcode, _) => return Ok(Some(Place::Frame(opcode, content))),
        }
        Ok(None)
    }

    /// Forgets what was read.
    fn shrink(&mut self) {
        self.buffer.drain(..self.read);
        self.read = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES {
            self.buffer = Vec::new();
        }
    }
}

fn text(content: &[u8]) -> Result<Heard<'_>, WireError> {
    std::str::from_utf8(content).map(Heard::Text).map_err(|_| WireError::Utf8)
}

fn control(opcode: u8, content: &[u8]) -> Result<Heard<'_>, WireError> {
    match (opcode, content) {
        (PING, _) => Ok(Heard::Ping(content)),
        (PONG, _) => Ok(Heard::Pong(content)),
        (CLOSE, []) => Ok(Heard::Close(1005)),
        (CLOSE, [high, low, reason @ ..]) if std::str::from_utf8(reason).is_ok() => {
            Ok(Heard::Close(u16::from_be_bytes([*high, *low])))
        }
        (CLOSE, _) => Err(WireError::BadControl),
        _ => Err(WireError::Reserved),
    }
}

struct Frame {
    first: u8,
    head_bytes: usize,
    content_bytes: usize,
}

/// The frame that `bytes` begin with, if it has wholly come.
fn frame(bytes: &[u8]) -> Result<Option<Frame>, WireError> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (first, second) = (*first, *second);
    if first & 0x70 != 0 || !matches!(first & 0x0F, 0..=BINARY | CLOSE..=PONG) {
        return Err(WireError::Reserved);
    }
    if second & 0x80 != 0 {
        return Err(WireError::Masked);
    }
    if first & 0x08 != 0 && (first & FIN == 0 || second > 125) {
        return Err(WireError::BadControl);
    }
    let (length_bytes, least) = match second {
        126 => (2, 126),
        127 => (8, 65_536),
        _ => (0, 0),
    };
    let Some(long) = rest.get(..length_bytes) else { return Ok(None) };
    let length = match length_bytes {
        0 => u64::from(second),
        _ => long.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    if length < least || length > MESSAGE_MAX_BYTES {
        return Err(WireError::Length);
    }
    let content_bytes = usize::try_from(length).map_err(|_| WireError::Length)?;
    let whole = rest.len() - length_bytes >= content_bytes;
    Ok(whole.then_some(Frame { first, head_bytes: 2 + length_bytes, content_bytes }))
}

/// Appends a text message cut into so many frames, at random bytes.
pub(crate) fn write_text(text: &str, frames: usize, random: &mut Random, into: &mut Vec<u8>) {
    if frames <= 1 {
        return write_frame(FIN | TEXT, text.as_bytes(), random, into);
    }
    let mut cuts: Vec<usize> = (1..frames).map(|_| random.below(text.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(text.len());
    let mut start = 0;
    for (place, end) in cuts.iter().enumerate() {
        let opcode = if place == 0 { TEXT } else { 0 };
        let fin = if place + 1 == cuts.len() { FIN } else { 0 };
        write_frame(fin | opcode, &text.as_bytes()[start..*end], random, into);
        start = *end;
    }
}

/// Appends a ping.
pub(crate) fn write_ping(content: &[u8], random: &mut Random, into: &mut Vec<u8>) {
    write_frame(FIN | PING, content, random, into);
}

/// Appends the answer to a ping.
pub(crate) fn write_pong(content: &[u8], random: &mut Random, into: &mut Vec<u8>) {
    write_frame(FIN | PONG, content, random, into);
}

/// Appends a close.
pub(crate) fn write_close(code: u16, random: &mut Random, into: &mut Vec<u8>) {
    write_frame(FIN | CLOSE, &code.to_be_bytes(), random, into);
}

fn write_frame(first: u8, content: &[u8], random: &mut Random, into: &mut Vec<u8>) {
    into.push(first);
    match (u8::try_from(content.len()), u16::try_from(content.len())) {
        (Ok(short @ 0..=125), _) => into.push(0x80 | short),
        (_, Ok(length)) => {
            into.push(0x80 | 126);
            into.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            into.push(0x80 | 127);
            into.extend_from_slice(&(content.len() as u64).to_be_bytes());
        }
    }
    let [a, b, c, d, ..] = random.next().to_le_bytes();
    let mask = [a, b, c, d];
    into.extend_from_slice(&mask);
    let start = into.len();
    into.extend_from_slice(content);
    for four in into[start..].chunks_mut(mask.len()) {
        for (byte, key) in four.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server would send what we send: without masks.
    fn unmasked(mut bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        while let [first, second, rest @ ..] = bytes {
            let length_bytes = match second & 0x7F {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let (long, rest) = rest.split_at(length_bytes);
            let length = match length_bytes {
                0 => usize::from(second & 0x7F),
                _ => long.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
            };
            let (mask, rest) = rest.split_at(4);
            let (content, rest) = rest.split_at(length);
            plain.extend([*first, second & 0x7F]);
            plain.extend_from_slice(long);
            plain.extend(content.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
            bytes = rest;
        }
        plain
    }

    #[test]
    fn what_is_written_is_read_however_it_is_cut() {
        let mut random = Random::new(5);
        for bytes in [0, 1, 125, 126, 65_535, 65_536, 70_000] {
            let sent: String = "aé漢🐦".chars().cycle().take(bytes / 3).collect();
            let mut wire = Vec::new();
            write_ping(b"life", &mut random, &mut wire);
            let frames = 1 + random.below(4);
            write_text(&sent, frames, &mut random, &mut wire);
            write_pong(b"", &mut random, &mut wire);
            write_close(1000, &mut random, &mut wire);
            let wire = unmasked(&wire);
            let (mut inbound, mut came) = (Inbound::default(), Vec::new());
            let mut rest = wire.as_slice();
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at((1 + random.below(9_000)).min(rest.len()));
                inbound.take(piece);
                while let Some(whole) = inbound.next().unwrap() {
                    came.push(whole);
                }
                rest = behind;
            }
            let expected = [
                Incoming::Ping(b"life".to_vec()),
                Incoming::Text(sent),
                Incoming::Pong(Vec::new()),
                Incoming::Close(1000),
            ];
            assert_eq!(came, expected, "{bytes}");
            assert!(!inbound.is_partial());
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_named() {
        let cases: [(&[u8], WireError); 14] = [
            (&[0xC1, 0], WireError::Reserved),
            (&[0x83, 0], WireError::Reserved),
            (&[0x8B, 0], WireError::Reserved),
            (&[0x81, 0x80], WireError::Masked),
            (&[0x09, 0], WireError::BadControl),
            (&[0x89, 126], WireError::BadControl),
            (&[0x88, 1, 3], WireError::BadControl),
            (&[0x80, 0], WireError::Fragment),
            (&[0x01, 0, 0x81, 0], WireError::Fragment),
            (&[0x81, 126, 0, 125], WireError::Length),
            (&[0x81, 127, 1, 0, 0, 0, 0, 0, 0, 0], WireError::Length),
            (&[0x82, 0], WireError::Binary),
            (&[0x81, 1, 0xFF], WireError::Utf8),
            (&[0x88, 0, 0x81, 0], WireError::BehindClose),
        ];
        for (bytes, error) in cases {
            let mut inbound = Inbound::default();
            inbound.take(bytes);
            let outcome = loop {
                match inbound.next() {
                    Ok(Some(_)) => {}
                    other => break other,
                }
            };
            assert_eq!(outcome, Err(error), "{bytes:?}");
        }
    }
}
