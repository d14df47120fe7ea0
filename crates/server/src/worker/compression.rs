//! Compressed messages of this worker's connections: inflated once whole, deflated once for all recipients.
//!
//! Knows who has agreed on compression and what is worth it; the codec is [`crate::websocket`]'s. One
//! compressor for each size of window, one inflater and one buffer serve all connections of the worker.

use super::Worker;
use super::core::Core;
use crate::app::App;
use crate::config::Config;
use crate::http::Request;
use crate::ids::ConnId;
use crate::scoreboard::Cell;
use crate::websocket::{
    Agreement, CloseCode, Deflater, FrameKind, InflateError, Inflater, Opcode, Serial, Violation,
    encode_compressed, encode_frame,
};
use std::mem;

/// What compresses and inflates, and what is worth it.
pub(super) struct Compression {
    deflater: Deflater,
    inflater: Inflater,
    /// The inflated form of the message in hand.
    inflated: Vec<u8>,
    /// Bytes that inflating has made so far.
    inflated_bytes: u64,
    /// Shorter messages are sent as they are.
    threshold_bytes: usize,
}

/// A message on its way to one or many connections of this worker.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'p> {
    pub(super) opcode: Opcode,
    pub(super) payload: &'p [u8],
    serial: Serial,
}

/// A message in the form in which one connection gets it.
#[derive(Clone, Copy)]
pub(super) struct Wire<'w> {
    kind: FrameKind,
    compressed: bool,
    bytes: &'w [u8],
}

impl Compression {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            deflater: Deflater::new(config.compression_level),
            inflater: Inflater::default(),
            inflated: Vec::new(),
            inflated_bytes: 0,
            threshold_bytes: config.compression_threshold_bytes,
        }
    }

    /// Bytes that inflating has made so far, refused ones included: a measure of the time it took.
    pub(super) fn inflated_bytes(&self) -> u64 {
        self.inflated_bytes
    }

    /// A message to send; the same one for all its recipients, so that it is compressed once.
    pub(super) fn outgoing<'p>(&mut self, opcode: Opcode, payload: &'p [u8]) -> Outgoing<'p> {
        Outgoing { opcode, payload, serial: self.deflater.next_serial() }
    }

    /// What a connection with this agreement is sent, and whether it had to be compressed for that now.
    pub(super) fn wire<'w>(
        &'w mut self,
        message: Outgoing<'w>,
        agreement: Option<Agreement>,
    ) -> (Wire<'w>, bool) {
        let kind = match message.opcode {
            Opcode::Text => FrameKind::Text,
            Opcode::Binary => FrameKind::Binary,
        };
        let plain = Wire { kind, compressed: false, bytes: message.payload };
        match agreement {
            Some(agreement) if message.payload.len() >= self.threshold_bytes => {
                let deflated = self.deflater.deflate(agreement, message.serial, message.payload);
                let compressed = deflated.bytes.map(|bytes| Wire { kind, compressed: true, bytes });
                (compressed.unwrap_or(plain), deflated.ran)
            }
            _ => (plain, false),
        }
    }
}

impl Wire<'_> {
    /// Bytes of the payload as it is sent.
    pub(super) fn payload_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.compressed
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        if self.compressed {
            encode_compressed(out, self.kind, self.bytes);
        } else {
            encode_frame(out, self.kind, true, self.bytes);
        }
    }
}

impl Core {
    /// What is agreed on with a client that asks for an upgrade, and how the answer says so.
    pub(super) fn agree_on_compression(&self, request: &Request) -> Option<(Agreement, String)> {
        let offers = request.headers.all("sec-websocket-extensions");
        if self.config.compression { Agreement::negotiate(offers) } else { None }
    }

    /// Puts the inflated form of a message into `output`.
    fn inflate(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        self.row.add(Cell::CompressedIn, 1);
        let limit = usize::try_from(self.limits.max_message_bytes).unwrap_or(usize::MAX);
        let inflated = self.compression.inflater.inflate(payload, limit, output);
        self.compression.inflated_bytes += u64::try_from(output.len()).unwrap_or(0);
        inflated.map_err(|error| match error {
            InflateError::TooLong => {
                self.row.add(Cell::BombsRefused, 1);
                Violation {
                    code: CloseCode::TOO_BIG,
                    reason: "message inflates over the size limit",
                }
            }
            InflateError::Corrupt => BAD_COMPRESSION,
        })?;
        if opcode == Opcode::Text && simdutf8::basic::from_utf8(output).is_err() {
            return Err(BAD_TEXT);
        }
        Ok(())
    }
}

const BAD_COMPRESSION: Violation =
    Violation { code: CloseCode::INVALID_DATA, reason: "message is not rightly compressed" };
const BAD_TEXT: Violation =
    Violation { code: CloseCode::INVALID_DATA, reason: "text is not UTF-8" };

impl<A: App> Worker<'_, A> {
    /// Delivers a message that came compressed.
    pub(super) fn deliver_compressed(
        &mut self,
        key: usize,
        conn: ConnId,
        opcode: Opcode,
        payload: &[u8],
    ) -> Result<(), Violation> {
        let mut message = mem::take(&mut self.core.compression.inflated);
        let inflated = self.core.inflate(opcode, payload, &mut message);
        if inflated.is_ok() {
            self.deliver_message(key, conn, opcode, &message);
        }
        self.core.compression.inflated = message;
        inflated
    }
}
