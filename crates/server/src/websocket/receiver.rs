//! The receiving side of a connection: what may follow what, and how far the half-received message is.
//!
//! Knows no socket and keeps no bytes: it unmasks and checks in the caller's buffer and lends pieces of it.
//!
//! Invariants:
//! 1. `Progress` is all zeroes exactly when nothing is half received.
//! 2. `Event::Incomplete` takes no byte, and fewer than [`CUT_MAX`] are then left in the buffer.
//! 3. Every byte of a data message is unmasked once, checked once and lent once.
//! 4. Any three words make a `Progress` that never panics: they may come from shared memory.

use super::{
    CloseCode, Opcode,
    frame::{CONTROL_MAX, ClientHead, FrameKind, HEADER_MAX, turn_mask, unmask_word},
    utf8::{TAIL_BITS, Utf8Tail},
};

/// Most bytes that [`Event::Incomplete`] leaves for the next read: an unfinished header or control frame.
pub const CUT_MAX: usize = HEADER_MAX + CONTROL_MAX;

/// What a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most payload bytes of one message, over all its fragments.
    pub max_message_bytes: u64,
    /// Whether messages may be compressed: permessage-deflate was agreed on with this client.
    pub may_compress: bool,
}

/// How far the half-received message is: pure state in three plain words, so that it can rest in shared
/// memory between two turns and go on in another process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress([u64; 3]);

/// What stands at the front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// More bytes are needed. Nothing was taken: the rest of the input, at most [`CUT_MAX`] bytes, must be
    /// given again in front of the next bytes.
    Incomplete,
    /// A piece of a data message, unmasked and, if text that is not compressed, valid UTF-8 so far (a piece
    /// may end within a character). An unfragmented message that is whole in the buffer is one piece with `start` and `finish`.
    Data {
        /// Text or binary, the same for all pieces of a message.
        opcode: Opcode,
        /// First piece of the message.
        start: bool,
        /// Last piece of the message.
        finish: bool,
        /// Last piece of its frame.
        frame_finish: bool,
        /// The message is compressed, the same for all pieces of it: what they make together is for the
        /// [`Inflater`](super::Inflater), and nobody has looked whether it is text.
        compressed: bool,
        /// May be empty: a frame without payload is a piece, too.
        payload: &'b [u8],
    },
    /// A ping; the answer is a pong with the same payload, at most 125 bytes.
    Ping(&'b [u8]),
    /// A pong, asked for or not.
    Pong(&'b [u8]),
    /// The peer's close. What follows it in the stream must be ignored.
    Close {
        /// The peer's code, which may be sent back; `None` for an empty close frame.
        code: Option<u16>,
        /// Valid UTF-8, at most 123 bytes.
        reason: &'b str,
    },
}

/// The peer broke the protocol. Answer with a close frame of this code, then read no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (close {})", .code.0)]
pub struct Violation {
    /// 1002, 1007 or 1009.
    pub code: CloseCode,
    /// Which rule, for the close frame and the log; never anything the peer sent.
    pub reason: &'static str,
}

impl Progress {
    /// A progress that rested as words. Any words are taken; only those of [`Self::words`] make sense.
    #[must_use]
    pub const fn from_words(words: [u64; 3]) -> Self {
        Self(words)
    }

    /// The progress as plain words.
    #[must_use]
    pub const fn words(self) -> [u64; 3] {
        self.0
    }

    /// Whether nothing is half received: the next byte starts a message or a control frame.
    ///
    /// (An unfinished header or control frame is in the caller's rest, not in here.)
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.0 == [0; 3]
    }

    /// How much of the payload of the frame under way is still to come; 0 between frames.
    #[must_use]
    pub fn frame_bytes_left(&self) -> u64 {
        State::unpack(self.0).frame_left
    }

    /// Takes one event from the front of `input`, unmasking in place, and says how many bytes it took.
    ///
    /// Call again with what follows until [`Event::Incomplete`]. Bytes that were taken must not be given again.
    ///
    /// # Errors
    /// A [`Violation`]: the stream is over, and `self` means nothing any more. A message over
    /// `limits.max_message_bytes` is refused by the header that announces it.
    #[inline]
    pub fn next<'b>(
        &mut self,
        input: &'b mut [u8],
        limits: &Limits,
    ) -> Result<(usize, Event<'b>), Violation> {
        let mut state = State::unpack(self.0);
        if state.frame_open {
            if input.is_empty() {
                return Ok((0, Event::Incomplete));
            }
            return self.take_piece(state, input, 0);
        }
        let Some(head) = ClientHead::parse(input, limits.may_compress)? else {
            return Ok((0, Event::Incomplete));
        };
        if head.kind.is_control() {
            return take_control(head, input);
        }
        state.open_frame(head, limits)?;
        if state.frame_left > 0 && input.len() == head.header_bytes {
            return Ok((0, Event::Incomplete));
        }
        self.take_piece(state, input, head.header_bytes)
    }

    /// Takes what is there of the open frame, whose next byte is at `from`.
    #[inline]
    fn take_piece<'b>(
        &mut self,
        mut state: State,
        input: &'b mut [u8],
        from: usize,
    ) -> Result<(usize, Event<'b>), Violation> {
        let body = &mut input[from..];
        let length =
            usize::try_from(state.frame_left).map_or(body.len(), |left| left.min(body.len()));
        let payload = &mut body[..length];
        let is_ascii = unmask_word(payload, state.mask);
        state.frame_left -= length as u64;
        state.mask = turn_mask(state.mask, length);
        let frame_finish = state.frame_left == 0;
        let finish = frame_finish && state.frame_final;
        if state.opcode == Opcode::Text && !state.compressed {
            // An ASCII piece between characters is valid without a second look.
            if !(is_ascii && state.tail.is_complete()) {
                state.tail.check(payload).map_err(|_| INVALID_TEXT)?;
            }
            if finish && !state.tail.is_complete() {
                return Err(INVALID_TEXT);
            }
        }
        let start = !state.started;
        if finish {
            *self = Self::default();
        } else {
            state.started = true;
            state.frame_open = !frame_finish;
            self.0 = state.pack();
        }
        let State { opcode, compressed, .. } = state;
        Ok((
            from + length,
            Event::Data { opcode, start, finish, frame_finish, compressed, payload },
        ))
    }
}

/// Takes a control frame, which comes whole or not at all.
fn take_control(head: ClientHead, input: &mut [u8]) -> Result<(usize, Event<'_>), Violation> {
    let end = usize::try_from(head.payload_bytes)
        .map_or(usize::MAX, |length| length.saturating_add(head.header_bytes));
    let Some(payload) = input.get_mut(head.header_bytes..end) else {
        return Ok((0, Event::Incomplete));
    };
    unmask_word(payload, head.mask);
    let event = match head.kind {
        FrameKind::Ping => Event::Ping(payload),
        FrameKind::Pong => Event::Pong(payload),
        _ => read_close(payload)?,
    };
    Ok((end, event))
}

/// The code and the reason of a close frame.
fn read_close(payload: &[u8]) -> Result<Event<'_>, Violation> {
    let (code, reason) = match *payload {
        [] => return Ok(Event::Close { code: None, reason: "" }),
        [_] => return Err(Violation::protocol("close frame of one byte")),
        [high, low, ref reason @ ..] => (u16::from_be_bytes([high, low]), reason),
    };
    if !CloseCode(code).is_sendable() {
        return Err(Violation::protocol("close code that may not be sent"));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| INVALID_REASON)?;
    Ok(Event::Close { code: Some(code), reason })
}

/// A [`Progress`] taken apart. `opcode` means something only while a message or a frame is open.
///
/// Word 0 from its low end: 32 bits of mask, 26 of the UTF-8 tail, then the flags below. Word 1 is
/// `frame_left`, word 2 is `message_bytes`.
#[derive(Clone, Copy)]
struct State {
    opcode: Opcode,
    /// A frame's header is taken and not all of its payload.
    frame_open: bool,
    frame_final: bool,
    /// A piece of the message was lent: a message is half received.
    started: bool,
    /// The message is compressed.
    compressed: bool,
    tail: Utf8Tail,
    /// The mask, turned so that its first byte goes with the next byte of payload.
    mask: u32,
    /// Payload bytes of the open frame that are still to come.
    frame_left: u64,
    /// Payload bytes that the headers of this message announced so far.
    message_bytes: u64,
}

/// The low 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "the other half is taken elsewhere")]
const fn low_half(word: u64) -> u32 {
    word as u32
}

/// The high 32 bits.
const fn high_half(word: u64) -> u32 {
    low_half(word >> 32)
}

const TAIL_SHIFT: u32 = 32;
const BINARY_BIT: u64 = 1 << (TAIL_SHIFT + TAIL_BITS);
const FRAME_OPEN_BIT: u64 = 1 << (TAIL_SHIFT + TAIL_BITS + 1);
const FRAME_FINAL_BIT: u64 = 1 << (TAIL_SHIFT + TAIL_BITS + 2);
const STARTED_BIT: u64 = 1 << (TAIL_SHIFT + TAIL_BITS + 3);
// Bit 62 is free.
const COMPRESSED_BIT: u64 = 1 << (TAIL_SHIFT + TAIL_BITS + 5);

impl State {
    #[inline]
    fn unpack([word, frame_left, message_bytes]: [u64; 3]) -> Self {
        Self {
            opcode: if word & BINARY_BIT == 0 { Opcode::Text } else { Opcode::Binary },
            frame_open: word & FRAME_OPEN_BIT != 0,
            frame_final: word & FRAME_FINAL_BIT != 0,
            started: word & STARTED_BIT != 0,
            compressed: word & COMPRESSED_BIT != 0,
            tail: Utf8Tail::from_bits(high_half(word)),
            mask: low_half(word),
            frame_left,
            message_bytes,
        }
    }

    #[inline]
    fn pack(self) -> [u64; 3] {
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        // Between frames neither the mask nor what is left of a frame means anything: one state, one form.
        let mask = if self.frame_open { self.mask } else { 0 };
        let word = u64::from(mask)
            | u64::from(self.tail.to_bits()) << TAIL_SHIFT
            | flag(self.opcode == Opcode::Binary, BINARY_BIT)
            | flag(self.frame_open, FRAME_OPEN_BIT)
            | flag(self.frame_open && self.frame_final, FRAME_FINAL_BIT)
            | flag(self.started, STARTED_BIT)
            | flag(self.compressed, COMPRESSED_BIT);
        [word, self.frame_left, self.message_bytes]
    }

    /// Starts a data frame, which must be the first of a message exactly if none is half received.
    #[inline]
    fn open_frame(&mut self, head: ClientHead, limits: &Limits) -> Result<(), Violation> {
        match (head.kind, self.started) {
            (FrameKind::Continuation, false) => {
                return Err(Violation::protocol("continuation of no message"));
            }
            (FrameKind::Continuation, true) => {}
            (_, true) => return Err(Violation::protocol("new message within a fragmented one")),
            (FrameKind::Binary, false) => self.opcode = Opcode::Binary,
            (_, false) => self.opcode = Opcode::Text,
        }
        if !self.started {
            self.compressed = head.compressed;
        }
        self.message_bytes = self.message_bytes.saturating_add(head.payload_bytes);
        if self.message_bytes > limits.max_message_bytes {
            return Err(TOO_BIG);
        }
        self.frame_open = true;
        self.frame_final = head.finish;
        self.mask = head.mask;
        self.frame_left = head.payload_bytes;
        Ok(())
    }
}

const INVALID_TEXT: Violation =
    Violation { code: CloseCode::INVALID_DATA, reason: "text is not UTF-8" };
const INVALID_REASON: Violation =
    Violation { code: CloseCode::INVALID_DATA, reason: "close reason is not UTF-8" };
const TOO_BIG: Violation =
    Violation { code: CloseCode::TOO_BIG, reason: "message over the size limit" };

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_message_bytes: 1000, may_compress: false };
    const MASK: [u8; 4] = [0xA1, 0x0B, 0x7C, 0xD4];

    /// A client's frame with this first byte.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | u8::try_from(short).unwrap()),
            medium => {
                frame.push(0xFE);
                frame.extend_from_slice(&u16::try_from(medium).unwrap().to_be_bytes());
            }
        }
        frame.extend_from_slice(&MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    }

    /// The outcome of a stream that is read in one go: all events as text, then how it ended.
    fn outcome(stream: &[u8]) -> String {
        outcome_within(&LIMITS, stream)
    }

    fn outcome_within(limits: &Limits, stream: &[u8]) -> String {
        let mut progress = Progress::default();
        let mut input = stream.to_vec();
        let (mut at, mut told) = (0, String::new());
        loop {
            match progress.next(&mut input[at..], limits) {
                Ok((taken, Event::Incomplete)) => {
                    assert_eq!(taken, 0);
                    assert!(input.len() - at <= CUT_MAX);
                    let idle = if progress.is_idle() { "idle" } else { "half" };
                    return format!("{told}{idle}+{}", input.len() - at);
                }
                Ok((taken, event)) => {
                    at += taken;
                    told += &match event {
                        Event::Data {
                            opcode,
                            start,
                            finish,
                            frame_finish,
                            compressed,
                            payload,
                        } => {
                            let flag = |set: bool, name| if set { name } else { "" };
                            let marks = [
                                flag(compressed, "*"),
                                flag(start, "<"),
                                flag(frame_finish, "|"),
                                flag(finish, ">"),
                            ];
                            let text = String::from_utf8_lossy(payload);
                            format!("{opcode:?}{}:{text} ", marks.concat())
                        }
                        other => format!("{other:?} "),
                    };
                }
                Err(violation) => return format!("{told}{}", violation.code.0),
            }
        }
    }

    fn outcome_of(frames: &[Vec<u8>]) -> String {
        outcome(&frames.concat())
    }

    #[test]
    fn a_whole_message_is_one_piece() {
        assert_eq!(outcome_of(&[frame(0x81, "hé".as_bytes())]), "Text<|>:hé idle+0");
        assert_eq!(outcome_of(&[frame(0x82, b"")]), "Binary<|>: idle+0");
        let mut long = frame(0x82, &[b'x'; 300]);
        let (taken, event) = Progress::default().next(&mut long, &LIMITS).unwrap();
        assert_eq!(taken, 308);
        let Event::Data { start: true, finish: true, frame_finish: true, payload, .. } = event
        else {
            panic!("{event:?}")
        };
        assert_eq!(payload, [b'x'; 300]);
    }

    #[test]
    fn fragments_keep_their_opcode_and_let_control_frames_through() {
        let stream = [
            frame(0x01, "h\u{e9}".as_bytes().split_at(2).0),
            frame(0x89, b"are you there"),
            frame(0x00, b""),
            frame(0x80, b"\xA9!"),
            frame(0x8A, b""),
            frame(0x02, b"a"),
        ];
        let told = outcome_of(&stream);
        assert!(told.starts_with("Text<|:h\u{FFFD} Ping([97, "), "{told}");
        let rest = "Text|: Text|>:\u{FFFD}! Pong([]) Binary<|:a half+0";
        assert!(told.ends_with(rest), "{told}");
    }

    #[test]
    fn a_frame_that_is_not_all_there_comes_in_pieces() {
        let whole = frame(0x81, b"abcdef");
        assert_eq!(outcome(&whole[..5]), "idle+5");
        assert_eq!(outcome(&whole[..6]), "idle+6", "a header alone is no piece");
        assert_eq!(outcome(&whole[..8]), "Text<:ab half+0");
        let mut progress = Progress::default();
        progress.next(&mut whole[..7].to_vec(), &LIMITS).unwrap();
        let mut rested = Progress::from_words(progress.words());
        let mut rest = whole[7..].to_vec();
        let (taken, event) = rested.next(&mut rest, &LIMITS).unwrap();
        let expected = Event::Data {
            opcode: Opcode::Text,
            start: false,
            finish: true,
            frame_finish: true,
            compressed: false,
            payload: b"bcdef",
        };
        assert_eq!((taken, event), (5, expected));
        assert!(rested.is_idle());
        assert_eq!(rested.frame_bytes_left(), 0);
    }

    #[test]
    fn frames_out_of_order_are_1002() {
        assert_eq!(outcome_of(&[frame(0x80, b"")]), "1002");
        assert_eq!(outcome_of(&[frame(0x00, b"a")]), "1002");
        assert_eq!(outcome_of(&[frame(0x01, b"a"), frame(0x81, b"b")]), "Text<|:a 1002");
        assert_eq!(outcome_of(&[frame(0x01, b""), frame(0x02, b"b")]), "Text<|: 1002");
        let after = [frame(0x01, b"a"), frame(0x80, b"b"), frame(0x80, b"c")];
        assert_eq!(outcome_of(&after), "Text<|:a Text|>:b 1002");
        assert_eq!(outcome(b"\x81\x00"), "1002", "unmasked");
    }

    #[test]
    fn a_compressed_message_is_told_of_and_lent_as_it_is() {
        let limits = Limits { may_compress: true, ..LIMITS };
        let told = |frames: &[Vec<u8>]| outcome_within(&limits, &frames.concat());
        assert_eq!(told(&[frame(0xC1, b"\xFF\xC3")]), "Text*<|>:\u{FFFD}\u{FFFD} idle+0");
        let fragments = [
            frame(0x42, b"a"),
            frame(0x89, b""),
            frame(0x00, b"b"),
            frame(0x80, b"c"),
            frame(0x81, b"d"),
        ];
        let expected = "Binary*<|:a Ping([]) Binary*|:b Binary*|>:c Text<|>:d idle+0";
        assert_eq!(told(&fragments), expected);
        assert_eq!(told(&[frame(0x41, b"a"), frame(0xC0, b"b")]), "Text*<|:a 1002");
        assert_eq!(told(&[frame(0x01, b"a"), frame(0x40, b"b")]), "Text<|:a 1002");
        assert_eq!(told(&[frame(0xC9, b"")]), "1002");
        assert_eq!(outcome_of(&[frame(0xC1, b"")]), "1002", "not agreed on");
        // Half received, it rests as words: the successor knows that it is compressed.
        let mut progress = Progress::default();
        progress.next(&mut frame(0x41, b"\xC3"), &limits).unwrap();
        let mut rested = Progress::from_words(progress.words());
        let mut rest = frame(0x80, b"\xFF");
        let (_, event) = rested.next(&mut rest, &limits).unwrap();
        assert!(matches!(event, Event::Data { compressed: true, finish: true, .. }), "{event:?}");
        assert!(rested.is_idle());
    }

    #[test]
    fn text_is_refused_at_its_first_bad_byte() {
        assert_eq!(outcome_of(&[frame(0x81, b"a\xFFb")]), "1007");
        assert_eq!(outcome_of(&[frame(0x81, b"a\xE6\xBC")]), "1007", "cut at the end");
        assert_eq!(
            outcome_of(&[frame(0x01, b"\xF4"), frame(0x00, b"\x90")]),
            "Text<|:\u{FFFD} 1007"
        );
        assert_eq!(outcome_of(&[frame(0x01, b"\xC3"), frame(0x80, b"")]), "Text<|:\u{FFFD} 1007");
        let ascii_in_a_character = [frame(0x01, b"\xC3"), frame(0x00, b"a"), frame(0x80, b"\xA9")];
        assert_eq!(outcome_of(&ascii_in_a_character), "Text<|:\u{FFFD} 1007");
        let whole = frame(0x81, b"ok\xF4\x90 and a long rest");
        assert_eq!(outcome(&whole[..8]), "Text<:ok half+0");
        assert_eq!(outcome(&whole[..10]), "1007", "before the frame is there");
        assert_eq!(outcome_of(&[frame(0x82, b"\xFF\xC3")]), "Binary<|>:\u{FFFD}\u{FFFD} idle+0");
    }

    #[test]
    fn a_message_over_the_limit_is_refused_by_its_header() {
        let fits = frame(0x02, &[0; 1000]);
        assert!(outcome(&fits).starts_with("Binary<|"));
        let over = frame(0x82, &[0; 1001]);
        assert_eq!(outcome(&over[..7]), "idle+7");
        assert_eq!(outcome(&over[..8]), "1009");
        let fragments = [frame(0x02, &[b'a'; 2]), frame(0x00, &[0; 999])].concat();
        assert_eq!(outcome(&fragments[..8 + 8]), "Binary<|:aa 1009");
        let huge = [0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
        assert_eq!(outcome(&huge), "1009");
        assert_eq!(
            outcome(&[&frame(0x02, b"a")[..], b"\0", &huge[1..]].concat()),
            "Binary<|:a 1009"
        );
    }

    #[test]
    fn a_close_is_checked() {
        let close = |payload: &[u8]| outcome_of(&[frame(0x88, payload)]);
        assert_eq!(close(b""), "Close { code: None, reason: \"\" } idle+0");
        assert_eq!(close(b"\x03\xE8"), "Close { code: Some(1000), reason: \"\" } idle+0");
        assert_eq!(close(b"\x0F\xA0ok"), "Close { code: Some(4000), reason: \"ok\" } idle+0");
        assert_eq!(close(b"\x03"), "1002");
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535_u16] {
            assert_eq!(close(&code.to_be_bytes()), "1002", "{code}");
        }
        assert_eq!(close(b"\x03\xE8\xC3"), "1007");
        assert_eq!(
            outcome(&frame(0x88, b"\x03\xE8ok")[..9]),
            "idle+9",
            "control frames come whole"
        );
    }

    #[test]
    fn any_words_go_on_without_a_panic() {
        let words = [
            0,
            1,
            u64::MAX,
            u64::MAX - 1,
            1 << 58,
            1 << 59,
            1 << 60,
            1 << 61,
            1 << 63,
            0x0323_C3C3 << 32,
        ];
        for first in words {
            for left in words {
                for total in words {
                    let mut progress = Progress::from_words([first, left, total]);
                    let mut input = frame(0x80, b"\x80abc");
                    let mut at = 0;
                    while let Ok((taken @ 1.., _)) = progress.next(&mut input[at..], &LIMITS) {
                        at += taken;
                    }
                }
            }
        }
    }

    #[test]
    fn idle_is_all_zeroes_and_between_fragments_is_not() {
        let mut progress = Progress::default();
        assert!(progress.is_idle());
        progress.next(&mut frame(0x01, b""), &LIMITS).unwrap();
        assert!(!progress.is_idle());
        progress.next(&mut frame(0x80, b""), &LIMITS).unwrap();
        assert_eq!(progress.words(), [0; 3]);
    }
}
