//! A WebSocket client by hand: bytes out as they are, frames in, nothing answered by itself.

use super::http::{Answer, Http};
use crate::im::upgrade_request;
use std::net::SocketAddr;

/// The first byte of a whole text message, of one that goes on, of a continuation that goes on.
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const TEXT_GOES_ON: u8 = 0x01;
pub(crate) const GOES_ON: u8 = 0x00;
pub(crate) const PING: u8 = 0x89;

/// See the module.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) http: Http,
}

/// A frame of the server's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    /// Upgrades; the greeting of the IM is not read.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|answer| panic!("refused: {answer:?}"))
    }

    /// The same; the answer if it is none that switches.
    pub(crate) fn try_connect(address: SocketAddr) -> Result<Self, Answer> {
        let mut http = Http::connect(address);
        http.send(upgrade_request("/ws"));
        let answer = http.head();
        if answer.status == 101 { Ok(Self::over(http)) } else { Err(answer) }
    }

    /// A connection that is not upgraded yet.
    pub(crate) fn over(http: Http) -> Self {
        Self { http }
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.http.send(bytes);
    }

    /// The next frame; none at the end of the connection.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        let head = self.http.bytes(2)?;
        let length = match head[1] {
            126 => self.http.bytes(2)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            127 => self.http.bytes(8)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            short => usize::from(short),
        };
        Some(Frame { opcode: head[0] & 0x0f, payload: self.http.bytes(length)? })
    }

    /// Reads to the close frame; gives its code. Panics if the connection ends without one.
    pub(crate) fn close_code(&mut self) -> u16 {
        loop {
            let frame = self.frame().expect("a close frame before the end");
            if frame.opcode == 8 {
                return u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
            }
        }
    }
}

/// A masked frame of at most 125 bytes, with a mask of zeros.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short frame");
    assert!(length <= 125, "a short frame");
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}
