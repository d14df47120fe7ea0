//! A reader of client frames as the worker is one, and tungstenite as the second opinion.

use std::io::{self, Cursor, Read, Write};

use dunlin_server::websocket::{CUT_MAX, Event, Limits, Opcode, Progress};
use tungstenite::{
    Message,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

/// Small, so that inputs of a fuzzer reach it.
pub const LIMITS: Limits = Limits { max_message_bytes: 600, may_compress: false };

/// What a reader of a stream saw, without where it was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A whole message; a compressed one as it came, and marked so.
    Message(Opcode, Vec<u8>, bool),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// A close; the stream ends with it.
    Close(Option<u16>, String),
}

/// Reads a stream as a worker does: what is left goes in front of the next read, the progress rests as words.
#[derive(Debug, PartialEq, Eq)]
pub struct FrameReader {
    limits: Limits,
    words: [u64; 3],
    rest: Vec<u8>,
    message: Option<(Opcode, Vec<u8>, bool)>,
    /// What was seen.
    pub seen: Vec<Seen>,
    /// The close code of a violation, which ended the stream.
    pub violation: Option<u16>,
    closed: bool,
}

impl FrameReader {
    /// What was seen, as [`second_opinion`] would have it.
    #[must_use]
    pub fn seen_as_tungstenite(&self) -> Vec<Seen> {
        let mut seen = self.seen.clone();
        if let Some(last @ Seen::Close(Some(1014), _)) = seen.last_mut() {
            *last = Seen::Close(Some(1002), "Protocol violation".into());
        }
        seen
    }

    /// The state of a reader behind these reads.
    #[must_use]
    pub fn behind<'s>(reads: impl IntoIterator<Item = &'s [u8]>, limits: Limits) -> Self {
        let mut reader = Self {
            limits,
            words: [0; 3],
            rest: vec![],
            message: None,
            seen: vec![],
            violation: None,
            closed: false,
        };
        reads.into_iter().for_each(|read| reader.read(read));
        if reader.violation.is_some() {
            // It means nothing any more, and a half message was dropped wherever the reads were cut.
            (reader.words, reader.message) = ([0; 3], None);
        }
        reader
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut input = std::mem::take(&mut self.rest);
        input.extend_from_slice(bytes);
        let mut at = 0;
        while !self.closed && self.violation.is_none() {
            let mut progress = Progress::from_words(self.words);
            let step = progress.next(&mut input[at..], &self.limits);
            self.words = progress.words();
            match step {
                Ok((taken, Event::Incomplete)) => {
                    assert_eq!(taken, 0);
                    self.rest = input.split_off(at);
                    assert!(self.rest.len() < CUT_MAX, "{} bytes are left", self.rest.len());
                    return;
                }
                Ok((taken, event)) => {
                    assert!(taken > 0, "every event takes bytes, or the loop would not end");
                    at += taken;
                    self.closed = matches!(event, Event::Close { .. });
                    note(&mut self.message, &mut self.seen, event);
                }
                Err(violation) => self.violation = Some(violation.code.0),
            }
        }
    }
}

fn note(message: &mut Option<(Opcode, Vec<u8>, bool)>, seen: &mut Vec<Seen>, event: Event<'_>) {
    match event {
        Event::Incomplete => unreachable!("handled by the caller"),
        Event::Ping(payload) => seen.push(Seen::Ping(payload.to_vec())),
        Event::Pong(payload) => seen.push(Seen::Pong(payload.to_vec())),
        Event::Close { code, reason } => seen.push(Seen::Close(code, reason.to_owned())),
        Event::Data { opcode, start, finish, frame_finish, compressed, payload } => {
            assert_eq!(start, message.is_none());
            assert!(frame_finish || !finish);
            let half = message.get_or_insert((opcode, vec![], compressed));
            assert_eq!((half.0, half.2), (opcode, compressed));
            half.1.extend_from_slice(payload);
            assert!(half.1.len() as u64 <= LIMITS.max_message_bytes);
            if finish && let Some((opcode, payload, compressed)) = message.take() {
                let is_text = std::str::from_utf8(&payload).is_ok();
                assert!(opcode == Opcode::Binary || compressed || is_text);
                seen.push(Seen::Message(opcode, payload, compressed));
            }
        }
    }
}

/// What tungstenite sees in a stream of a client, or of a server, up to its first error. A close with code
/// 1014, which was registered later than it knows, is 1002 to it.
#[must_use]
pub fn second_opinion(stream: &[u8], role: Role) -> Vec<Seen> {
    let mut source = Source(Cursor::new(stream));
    let mut context = WebSocketContext::new(role, Some(WebSocketConfig::default()));
    let mut seen = Vec::new();
    while let Ok(message) = context.read(&mut source) {
        seen.push(match message {
            Message::Text(text) => Seen::Message(Opcode::Text, text.as_bytes().to_vec(), false),
            Message::Binary(bytes) => Seen::Message(Opcode::Binary, bytes.to_vec(), false),
            Message::Ping(bytes) => Seen::Ping(bytes.to_vec()),
            Message::Pong(bytes) => Seen::Pong(bytes.to_vec()),
            Message::Close(None) => Seen::Close(None, String::new()),
            Message::Close(Some(frame)) => {
                Seen::Close(Some(frame.code.into()), frame.reason.as_str().to_owned())
            }
            Message::Frame(_) => unreachable!("never given by read"),
        });
    }
    seen
}

/// Bytes to read, and nowhere to write that matters.
struct Source<'a>(Cursor<&'a [u8]>);

impl Read for Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Source<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
