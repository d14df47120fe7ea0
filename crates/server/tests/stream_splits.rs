//! Properties of the wire cores: a stream means the same wherever reads cut it, tungstenite reads the same
//! in it, and no bytes panic.

use std::io::{self, Cursor, Read, Write};

use dunlin_server::{
    http::{HttpLimits, Request, check_upgrade, parse_request},
    outbox::{Outbox, SHARED_MIN, Verdict},
    websocket::{CUT_MAX, Event, FrameKind, Limits, Opcode, Progress, encode_frame, unmask},
};
use proptest::{collection::vec, prelude::*, sample::Index};
use tungstenite::{
    Message,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

const LIMITS: Limits = Limits { max_message_bytes: 1 << 20, may_compress: false };

/// What a reader of a stream saw, without where it was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// A whole message, and the length of each of its frames.
    Message(Opcode, Vec<u8>, Vec<usize>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Violation(u16),
}

/// Reads a stream as a worker does: what is left goes in front of the next read, the progress rests as words.
#[derive(Default)]
struct Reader {
    words: [u64; 3],
    rest: Vec<u8>,
    message: Option<(Opcode, Vec<u8>, Vec<usize>)>,
    seen: Vec<Seen>,
    over: bool,
}

impl Reader {
    /// What was seen, and whether the stream ended with nothing half received.
    fn read_all(stream: &[u8], cuts: &[Index]) -> (Vec<Seen>, bool) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let mut reader = Self::default();
        let mut from = 0;
        for to in cuts.into_iter().chain([stream.len()]) {
            reader.read(&stream[from..to]);
            from = to;
        }
        // After a violation the progress means nothing.
        (reader.seen, reader.over || Progress::from_words(reader.words).is_idle())
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut input = std::mem::take(&mut self.rest);
        input.extend_from_slice(bytes);
        let mut at = 0;
        while !self.over {
            let mut progress = Progress::from_words(self.words);
            let step = progress.next(&mut input[at..], &LIMITS);
            self.words = progress.words();
            match step {
                Ok((taken, Event::Incomplete)) => {
                    assert_eq!(taken, 0);
                    self.rest = input.split_off(at);
                    assert!(self.rest.len() <= CUT_MAX);
                    return;
                }
                Ok((taken, event)) => {
                    assert!(taken > 0, "every event takes bytes, or the loop would not end");
                    at += taken;
                    Self::note(&mut self.message, &mut self.seen, event);
                    self.over = matches!(event, Event::Close { .. });
                }
                Err(violation) => {
                    self.seen.push(Seen::Violation(violation.code.0));
                    self.over = true;
                }
            }
        }
    }

    fn note(
        message: &mut Option<(Opcode, Vec<u8>, Vec<usize>)>,
        seen: &mut Vec<Seen>,
        event: Event<'_>,
    ) {
        match event {
            Event::Incomplete => unreachable!("handled by the caller"),
            Event::Ping(payload) => seen.push(Seen::Ping(payload.to_vec())),
            Event::Pong(payload) => seen.push(Seen::Pong(payload.to_vec())),
            Event::Close { code, reason } => seen.push(Seen::Close(code, reason.to_owned())),
            Event::Data { opcode, start, finish, frame_finish, payload, .. } => {
                assert_eq!(start, message.is_none());
                assert!(frame_finish || !finish);
                let half = message.get_or_insert((opcode, vec![], vec![0]));
                assert_eq!(half.0, opcode);
                half.1.extend_from_slice(payload);
                *half.2.last_mut().unwrap() += payload.len();
                if frame_finish && !finish {
                    half.2.push(0);
                }
                if finish {
                    let (opcode, payload, frames) = message.take().unwrap();
                    seen.push(Seen::Message(opcode, payload, frames));
                }
            }
        }
    }
}

/// Ping or else pong, and its payload.
type Control = (bool, Vec<u8>);

#[derive(Clone, Debug)]
enum Item {
    /// A message: text or binary, its payload, where it is cut into fragments, a control frame after each.
    Message(Opcode, Vec<u8>, Vec<(Index, Option<Control>)>),
    Control(Control),
    Close(u16, String),
}

fn masked(out: &mut Vec<u8>, kind: FrameKind, finish: bool, payload: &[u8], mask: [u8; 4]) {
    let start = out.len();
    encode_frame(out, kind, finish, payload);
    let header = out.len() - start - payload.len();
    out[start + 1] |= 0x80;
    let body = start + header;
    out.splice(body..body, mask);
    unmask(&mut out[body + 4..], mask);
}

/// The bytes of a stream and what every reader must see in it.
fn encode(items: &[Item], mask: [u8; 4]) -> (Vec<u8>, Vec<Seen>) {
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    let control = |stream: &mut Vec<u8>, expected: &mut Vec<Seen>, ping: bool, payload: &[u8]| {
        let kind = if ping { FrameKind::Ping } else { FrameKind::Pong };
        masked(stream, kind, true, payload, mask);
        expected.push(if ping { Seen::Ping(payload.into()) } else { Seen::Pong(payload.into()) });
    };
    for item in items {
        match item {
            Item::Control((ping, payload)) => control(&mut stream, &mut expected, *ping, payload),
            Item::Close(code, reason) => {
                let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
                masked(&mut stream, FrameKind::Close, true, &payload, mask);
                expected.push(Seen::Close(Some(*code), reason.clone()));
            }
            Item::Message(opcode, payload, fragments) => {
                let mut cuts: Vec<_> = fragments
                    .iter()
                    .map(|(cut, between)| (cut.index(payload.len() + 1), between))
                    .collect();
                cuts.sort_unstable_by_key(|(cut, _)| *cut);
                let mut kind = match opcode {
                    Opcode::Text => FrameKind::Text,
                    Opcode::Binary => FrameKind::Binary,
                };
                let mut from = 0;
                let mut frames = Vec::new();
                for (cut, between) in cuts {
                    masked(&mut stream, kind, false, &payload[from..cut], mask);
                    frames.push(cut - from);
                    (kind, from) = (FrameKind::Continuation, cut);
                    if let Some((ping, payload)) = between {
                        control(&mut stream, &mut expected, *ping, payload);
                    }
                }
                masked(&mut stream, kind, true, &payload[from..], mask);
                frames.push(payload.len() - from);
                expected.push(Seen::Message(*opcode, payload.clone(), frames));
            }
        }
    }
    (stream, expected)
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..40_usize, 3 => 120..132_usize, 1 => 65_530..65_542_usize]
}

fn message() -> impl Strategy<Value = Item> {
    let text = (length(), "[a-zé漢😀\u{7FF}\u{800}\u{10FFFF}]{1,12}").prop_map(|(length, seed)| {
        let mut text = seed.repeat(length / seed.len() + 1);
        text.truncate(text.floor_char_boundary(length));
        (Opcode::Text, text.into_bytes())
    });
    let binary = (length(), any::<u8>(), any::<u8>()).prop_map(|(length, start, step)| {
        let bytes = (0..length).scan(start, |byte, _| {
            *byte = byte.wrapping_add(step);
            Some(*byte)
        });
        (Opcode::Binary, bytes.collect())
    });
    let between = proptest::option::of((any::<bool>(), vec(any::<u8>(), 0..=125)));
    let fragments = vec((any::<Index>(), between), 0..4);
    (prop_oneof![text, binary], fragments)
        .prop_map(|((opcode, payload), fragments)| Item::Message(opcode, payload, fragments))
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let control = (any::<bool>(), vec(any::<u8>(), 0..=125));
    let item = prop_oneof![
        4 => message(),
        1 => control.prop_map(Item::Control),
    ];
    let close = proptest::option::of((3000..5000_u16, "[a-zé]{0,20}"));
    (vec(item, 0..8), close).prop_map(|(mut items, close)| {
        items.extend(close.map(|(code, reason)| Item::Close(code, reason)));
        items
    })
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

/// What tungstenite sees in a stream, up to its first error or close. Frames are not told apart.
fn oracle(stream: &[u8], role: Role) -> Vec<Seen> {
    let mut source = Source(Cursor::new(stream));
    let mut context = WebSocketContext::new(role, Some(WebSocketConfig::default()));
    let mut seen = Vec::new();
    while let Ok(message) = context.read(&mut source) {
        seen.push(match message {
            Message::Text(text) => Seen::Message(Opcode::Text, text.as_bytes().to_vec(), vec![]),
            Message::Binary(bytes) => Seen::Message(Opcode::Binary, bytes.to_vec(), vec![]),
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

fn without_frames(seen: &[Seen]) -> Vec<Seen> {
    let strip = |seen: &Seen| match seen {
        Seen::Message(opcode, payload, _) => Seen::Message(*opcode, payload.clone(), vec![]),
        other => other.clone(),
    };
    seen.iter().map(strip).collect()
}

proptest! {
    #[test]
    fn a_valid_stream_means_the_same_however_it_is_cut(
        items in items(), mask in any::<[u8; 4]>(), cuts in vec(any::<Index>(), 0..20),
    ) {
        let (stream, expected) = encode(&items, mask);
        let whole = Reader::read_all(&stream, &[]);
        prop_assert_eq!(&whole.0, &expected);
        prop_assert!(whole.1, "nothing is half received at the end");
        prop_assert_eq!(&Reader::read_all(&stream, &cuts), &whole);
        prop_assert_eq!(oracle(&stream, Role::Server), without_frames(&expected));
    }

    #[test]
    fn small_streams_may_be_cut_at_every_byte(
        mut items in items(), mask in any::<[u8; 4]>(),
    ) {
        items.retain(|item| !matches!(item, Item::Message(_, payload, _) if payload.len() > 1000));
        let (stream, expected) = encode(&items, mask);
        let mut reader = Reader::default();
        stream.chunks(1).for_each(|byte| reader.read(byte));
        prop_assert_eq!(reader.seen, expected);
    }

    #[test]
    fn a_damaged_stream_fails_the_same_however_it_is_cut(
        items in items(), mask in any::<[u8; 4]>(), cuts in vec(any::<Index>(), 0..20),
        damage in vec((any::<Index>(), any::<u8>()), 1..4), end in any::<Index>(),
    ) {
        let (mut stream, _) = encode(&items, mask);
        if !stream.is_empty() {
            for (at, bits) in damage {
                *at.get_mut(&mut stream) ^= bits;
            }
            stream.truncate(end.index(stream.len() + 1));
        }
        prop_assert_eq!(Reader::read_all(&stream, &cuts), Reader::read_all(&stream, &[]));
    }

    #[test]
    fn garbage_never_panics(
        stream in vec(any::<u8>(), 0..200), words in any::<[u64; 3]>(), cuts in vec(any::<Index>(), 0..5),
    ) {
        let whole = Reader::read_all(&stream, &[]);
        prop_assert_eq!(Reader::read_all(&stream, &cuts), whole);
        let (mut progress, mut input, mut at) = (Progress::from_words(words), stream.clone(), 0);
        while let Ok((taken @ 1.., _)) = progress.next(&mut input[at..], &LIMITS) {
            at += taken;
        }
    }

    #[test]
    fn a_client_reads_what_the_server_encodes(
        text in "\\PC{0,200}", length in length(), control in vec(any::<u8>(), 0..=125),
    ) {
        let payload = vec![0xA5; length];
        let (front, back) = payload.split_at(length / 2);
        let mut stream = Vec::new();
        encode_frame(&mut stream, FrameKind::Text, true, text.as_bytes());
        encode_frame(&mut stream, FrameKind::Binary, false, front);
        encode_frame(&mut stream, FrameKind::Ping, true, &control);
        encode_frame(&mut stream, FrameKind::Continuation, true, back);
        encode_frame(&mut stream, FrameKind::Pong, true, &control);
        encode_frame(&mut stream, FrameKind::Close, true, b"\x03\xE8bye");
        let expected = [
            Seen::Message(Opcode::Text, text.into_bytes(), vec![]),
            Seen::Ping(control.clone()),
            Seen::Message(Opcode::Binary, payload.clone(), vec![]),
            Seen::Pong(control),
            Seen::Close(Some(1000), "bye".to_owned()),
        ];
        prop_assert_eq!(oracle(&stream, Role::Client), expected);
    }

    #[test]
    fn a_request_is_the_same_however_it_is_cut(
        target in "/[a-z/%.?&=]{0,20}", lines in vec("[A-Za-z-]{1,8}: ?[ -~]{0,20}", 0..6),
        body in vec(any::<u8>(), 0..30), next in vec(any::<u8>(), 0..30),
    ) {
        let length = body.len();
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\n{}Content-Length: {length}\r\n\r\n",
            lines.iter().map(|line| format!("{line}\r\n")).collect::<String>()
        );
        let stream = [head.as_bytes(), &body, &next].concat();
        let whole = parse_request(&stream, &HttpLimits::default());
        for cut in 0..stream.len() {
            match parse_request(&stream[..cut], &HttpLimits::default()) {
                Ok(None) => prop_assert!(whole.is_err() || cut < head.len() + length),
                outcome => prop_assert_eq!(&outcome, &whole),
            }
        }
        if let Ok(Some((request, taken))) = whole {
            prop_assert_eq!((request.body.as_slice(), taken), (body.as_slice(), head.len() + length));
            let rested = serde_json::to_vec(&request).unwrap();
            let woken = serde_json::from_slice::<Request>(&rested).unwrap();
            prop_assert_eq!(woken, request);
        }
    }

    #[test]
    fn no_request_panics(
        noise in vec(any::<u8>(), 0..100),
        lines in vec("[A-Za-z-]{0,20} ?:[ -~\\t]{0,30}", 0..6), target in "[ -~]{0,30}",
    ) {
        let limits = HttpLimits::default();
        let _ = parse_request(&noise, &limits);
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n{}\r\n\r\n", lines.join("\r\n"));
        if let Ok(Some((request, _))) = parse_request(text.as_bytes(), &limits) {
            let _ = check_upgrade(&request);
            let _ = (request.cookies(), request.query_pairs());
        }
    }

    #[test]
    fn an_outbox_is_a_bounded_queue_of_bytes(
        steps in vec((0..6_u8, prop_oneof![0..50_usize, 4000..4200_usize]), 0..60),
    ) {
        const LIMIT: usize = 3 * SHARED_MIN;
        let mut outbox = Outbox::new(LIMIT);
        let mut model: Vec<u8> = Vec::new();
        for (at, (verb, count)) in steps.into_iter().enumerate() {
            let bytes = vec![u8::try_from(at).unwrap(); count];
            let verdict = match verb {
                0 => outbox.push(&bytes),
                1 => outbox.push_shared(bytes.as_slice().into()),
                2 => outbox.push_with(|out| out.extend_from_slice(&bytes)),
                3 | 4 => {
                    let count = count.min(model.len());
                    outbox.advance(count);
                    model.drain(..count);
                    continue;
                }
                _ => {
                    outbox.release();
                    continue;
                }
            };
            let fits = model.len() + count <= LIMIT;
            prop_assert_eq!(verdict == Verdict::Queued, fits);
            if fits {
                model.extend(bytes);
            }
            let mut slices = [io::IoSlice::new(&[]); 64];
            let set = outbox.slices(&mut slices);
            let held: Vec<u8> = slices[..set].iter().flat_map(|slice| slice.to_vec()).collect();
            prop_assert_eq!(&held, &model);
            prop_assert_eq!(outbox.queued_bytes(), model.len());
        }
        let pieces: Vec<&[u8]> = outbox.pieces().collect();
        prop_assert_eq!(pieces.concat(), model);
    }
}
