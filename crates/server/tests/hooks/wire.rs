//! Frames on real sockets, where Autobahn|Testsuite does not look: all close codes, the contents of large
//! messages, what is refused before it has come, order.

use crate::client::Raw;
use crate::runner::tests;
use crate::server::Server;
use std::time::{Duration, Instant};

tests![
    close_codes_are_answered_or_refused,
    broken_rules_have_their_code,
    a_message_over_the_limit_is_refused_by_its_header,
    invalid_text_is_refused_at_its_first_bad_byte,
    a_character_may_be_cut_by_fragments_and_pings,
    control_frames_go_between_fragments,
    pings_are_answered_in_order,
    nothing_is_heard_after_a_close,
    a_close_is_heard_behind_what_nobody_hears,
    nothing_is_said_behind_a_close,
    large_messages_come_back_as_they_were,
    fragments_come_back_as_one_message,
];

const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

/// What `websocket.max_message` is where nothing is set.
const MAX_MESSAGE: usize = 1 << 20;

/// An open WebSocket, spoken by hand.
struct Wire(Raw);

impl Wire {
    fn open(server: &Server) -> Self {
        let mut raw = Raw::connect(server.address);
        raw.ask_upgrade("/");
        assert_eq!(raw.hear().0, 101);
        Self(raw)
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write(bytes);
    }

    /// The next frame of the server: its first byte and its payload.
    fn hear(&mut self) -> (u8, Vec<u8>) {
        let head = self.0.take(2);
        let length = match head[1] {
            126 => {
                let length = u16::from_be_bytes(self.0.take(2).try_into().expect("two"));
                assert!(length > 125, "the shortest form");
                usize::from(length)
            }
            127 => {
                let length = u64::from_be_bytes(self.0.take(8).try_into().expect("eight"));
                assert!(length > 65_535, "the shortest form");
                usize::try_from(length).expect("a length")
            }
            short => {
                assert!(short < 126, "a server masks nothing");
                usize::from(short)
            }
        };
        (head[0], self.0.take(length))
    }

    /// The close frame that must come next: its code. The end must follow.
    fn hear_close(&mut self, about: &str) -> Option<u16> {
        let (first, payload) = self.hear();
        assert_eq!(first, CLOSE, "{about}: {payload:?}");
        assert!(self.0.is_ended(), "{about}");
        payload.first_chunk().map(|code| u16::from_be_bytes(*code))
    }
}

/// A client's frame with this first byte.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    let mask: [u8; 4] = *frame.last_chunk().expect("the header ends in its mask");
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The header of a client's frame, for a payload that may never come.
fn header(first: u8, length: u64) -> Vec<u8> {
    let mut frame = vec![first];
    if let Ok(short @ 0..=125) = u8::try_from(length) {
        frame.push(0x80 | short);
    } else if let Ok(length) = u16::try_from(length) {
        frame.push(0xFE);
        frame.extend(length.to_be_bytes());
    } else {
        frame.push(0xFF);
        frame.extend(length.to_be_bytes());
    }
    frame.extend([0x5A, 0xC3, 0x0F, 0x96]);
    frame
}

/// The front of a frame: all of its header, and of its payload only this.
fn front(first: u8, length: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, length);
    let whole = masked(BINARY, payload);
    frame.extend(&whole[whole.len() - payload.len()..]);
    frame
}

fn close_codes_are_answered_or_refused() {
    let server = Server::start(&[]);
    let close = |payload: &[u8]| {
        let mut wire = Wire::open(&server);
        wire.send(masked(CLOSE, payload));
        wire.hear_close(&format!("{payload:?}"))
    };
    let sendable: Vec<u16> =
        (1000..=1003).chain(1007..=1014).chain([3000, 3001, 3999, 4000, 4500, 4999]).collect();
    for code in sendable {
        assert_eq!(close(&code.to_be_bytes()), Some(code));
    }
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1017, 1999, 2000, 2998, 2999, 5000, 5001,
        65_535_u16,
    ] {
        assert_eq!(close(&code.to_be_bytes()), Some(1002), "{code}");
    }
    assert_eq!(close(b""), None);
    assert_eq!(close(b"\x03"), Some(1002));
    assert_eq!(close(&[b"\x03\xE8", &[b'x'; 123][..]].concat()), Some(1000));
    assert_eq!(close(b"\x03\xE8ok\xC3\xA9"), Some(1000));
    assert_eq!(close(b"\x03\xE8ok\xC3"), Some(1007));
    assert_eq!(close(b"\x03\xE8ok\xED\xA0\x80"), Some(1007));
}

fn broken_rules_have_their_code() {
    let server = Server::start(&[]);
    for (about, bytes) in [
        ("125 bytes in 16 bits of length", b"\x82\xFE\x00\x7D\0\0\0\0".to_vec()),
        ("no byte in 16 bits of length", b"\x82\xFE\x00\x00\0\0\0\0".to_vec()),
        ("65535 bytes in 64 bits of length", b"\x82\xFF\0\0\0\0\0\0\xFF\xFF\0\0\0\0".to_vec()),
        ("a length's highest bit", b"\x82\xFF\x80\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
        ("a length of all bits", b"\x82\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0".to_vec()),
        ("an unmasked text", b"\x81\x03tea".to_vec()),
        ("an unmasked ping", b"\x89\x00".to_vec()),
        ("an unmasked close", b"\x88\x02\x03\xE8".to_vec()),
        ("a ping of 126 bytes, by its first two", b"\x89\xFE".to_vec()),
        ("a close of 126 bytes", masked(CLOSE, &[b'x'; 126])),
        ("a ping in pieces", masked(0x09, b"")),
        ("RSV1", masked(0xC1, b"tea")),
        ("RSV2 on a ping", masked(0xA9, b"")),
        ("RSV3 on the end of a message", [masked(TEXT_BEGINS, b"a"), masked(0x90, b"b")].concat()),
        ("opcode 3", masked(0x83, b"")),
        ("opcode 11", masked(0x8B, b"")),
        ("the middle of no message", masked(GOES_ON, b"a")),
        ("a message within a message", [masked(TEXT_BEGINS, b"a"), masked(TEXT, b"b")].concat()),
    ] {
        let mut wire = Wire::open(&server);
        wire.send(bytes);
        assert_eq!(wire.hear_close(about), Some(1002), "{about}");
    }
    let status = server.status();
    assert_eq!(status["workers"][0]["restarts"], 0);
    assert!(server.calls("message").is_empty(), "nothing of it was a message");
}

fn a_message_over_the_limit_is_refused_by_its_header() {
    let server = Server::start(&[]);
    for length in [MAX_MESSAGE as u64 + 1, 1 << 32, (1 << 63) - 1] {
        let mut wire = Wire::open(&server);
        wire.send(header(BINARY, length));
        assert_eq!(wire.hear_close("one frame"), Some(1009), "{length}");
    }
    let mut wire = Wire::open(&server);
    wire.send(masked(TEXT_BEGINS, &vec![b'a'; MAX_MESSAGE - 10]));
    wire.send(header(ENDS, 11));
    assert_eq!(wire.hear_close("in fragments"), Some(1009));
    // As much as is allowed is taken, in fragments, too.
    let mut wire = Wire::open(&server);
    let most = [b"echo ", &vec![b'a'; MAX_MESSAGE - 5][..]].concat();
    wire.send(masked(TEXT, &most));
    assert!(wire.hear() == (TEXT, most[5..].to_vec()));
    wire.send([masked(TEXT_BEGINS, &most[..7]), masked(ENDS, &most[7..])].concat());
    assert!(wire.hear() == (TEXT, most[5..].to_vec()));
}

fn invalid_text_is_refused_at_its_first_bad_byte() {
    let server = Server::start(&[]);
    let bad: [&[u8]; 12] = [
        b"\x80",
        b"\xBF",
        b"\xC0",
        b"\xC1",
        b"\xE0\x80",
        b"\xED\xA0",
        b"\xF0\x80",
        b"\xF4\x90",
        b"\xF5",
        b"\xFF",
        b"\xC3a",
        b"\xE6\xBCa",
    ];
    for sequence in bad {
        let about = format!("{sequence:x?}");
        let text = [b"echo \xC3\xA9", sequence].concat();
        // 92 bytes more are announced, and never come.
        let mut wire = Wire::open(&server);
        wire.send(front(TEXT, text.len() as u64 + 92, &text));
        assert_eq!(wire.hear_close(&about), Some(1007), "{about} in a frame");
        let (most, last) = text.split_at(text.len() - 1);
        let mut wire = Wire::open(&server);
        wire.send([masked(TEXT_BEGINS, most), front(GOES_ON, 92, last)].concat());
        assert_eq!(wire.hear_close(&about), Some(1007), "{about} over two frames");
    }
    for cut in [&b"\xC3"[..], b"\xE6\xBC", b"\xF0\x9F\x98"] {
        let mut wire = Wire::open(&server);
        wire.send(masked(TEXT, cut));
        assert_eq!(wire.hear_close("a cut character"), Some(1007));
        let mut wire = Wire::open(&server);
        wire.send([masked(TEXT_BEGINS, cut), masked(ENDS, b"")].concat());
        assert_eq!(wire.hear_close("a cut character, and an empty end"), Some(1007));
    }
}

fn a_character_may_be_cut_by_fragments_and_pings() {
    let server = Server::start(&[]);
    let text = "echo é漢😀".as_bytes();
    let mut wire = Wire::open(&server);
    for (at, byte) in text.iter().enumerate() {
        wire.send(masked(if at == 0 { TEXT_BEGINS } else { GOES_ON }, &[*byte]));
        wire.send(masked(PING, &[*byte]));
        assert_eq!(wire.hear(), (PONG, vec![*byte]));
    }
    wire.send(masked(ENDS, b""));
    assert_eq!(wire.hear(), (TEXT, text[5..].to_vec()));
}

fn control_frames_go_between_fragments() {
    let server = Server::start(&[]);
    let mut wire = Wire::open(&server);
    let frames = [
        masked(TEXT_BEGINS, b"echo one"),
        masked(PING, &[b'p'; 125]),
        masked(GOES_ON, b" two"),
        masked(PONG, b"nobody asked"),
        masked(GOES_ON, b""),
        masked(PING, b""),
        masked(ENDS, b" three"),
        masked(PING, b"last"),
    ];
    wire.send(frames.concat());
    assert_eq!(wire.hear(), (PONG, vec![b'p'; 125]));
    assert_eq!(wire.hear(), (PONG, vec![]));
    assert_eq!(wire.hear(), (TEXT, b"one two three".to_vec()));
    assert_eq!(wire.hear(), (PONG, b"last".to_vec()));
    wire.send([masked(TEXT_BEGINS, b"echo one"), masked(CLOSE, b"\x0F\xA0")].concat());
    assert_eq!(wire.hear_close("within a message"), Some(4000));
}

fn pings_are_answered_in_order() {
    const PINGS: u32 = 5_000;
    let server = Server::start(&[]);
    let mut wire = Wire::open(&server);
    let mut flood: Vec<u8> =
        (0..PINGS).flat_map(|number| masked(PING, &number.to_be_bytes())).collect();
    flood.extend(masked(TEXT, b"echo after"));
    wire.send(flood);
    for number in 0..PINGS {
        assert_eq!(wire.hear(), (PONG, number.to_be_bytes().to_vec()));
    }
    assert_eq!(wire.hear(), (TEXT, b"after".to_vec()));
}

fn nothing_is_heard_after_a_close() {
    let server = Server::start(&[]);
    let after = [masked(TEXT, b"echo tea"), masked(PING, b"x"), b"\xFF\xFF\xFF".to_vec()].concat();
    let mut wire = Wire::open(&server);
    wire.send([masked(CLOSE, b"\x03\xE9bye"), after.clone()].concat());
    assert_eq!(wire.hear_close("in order"), Some(1001));
    let mut wire = Wire::open(&server);
    wire.send([masked(0x83, b""), after].concat());
    assert_eq!(wire.hear_close("a broken rule"), Some(1002));
    assert!(server.calls("message").is_empty());
}

/// Bytes that differ everywhere: a piece that is lost, doubled or moved shows.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_u32;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[2]
    };
    (0..length).map(next).collect()
}

/// A server that takes messages of 16 MiB, a WebSocket to it, and how it is called: a binary message
/// that begins with this comes back without it.
fn roomy() -> (Server, Wire, Vec<u8>) {
    let server = Server::start(&[
        ("websocket.max_message", "16MiB"),
        ("table.receive_pool", "64MiB"),
        ("websocket.send_buffer", "32MiB"),
    ]);
    let mut wire = Wire::open(&server);
    wire.send(masked(TEXT, b"id"));
    let answer = String::from_utf8(wire.hear().1).expect("text");
    let id = answer.split(' ').nth(1).expect("an id").as_bytes().to_vec();
    assert_eq!(id.len(), 16);
    (server, wire, id)
}

/// The server closes; the client's own close, which ends the connection, comes behind more than a turn
/// takes, and in two pieces.
fn a_close_is_heard_behind_what_nobody_hears() {
    let server = Server::start(&[("websocket.frames_per_turn", "4")]);
    for cut in [0, 1] {
        let mut wire = Wire::open(&server);
        wire.send(masked(TEXT, b"id"));
        let id = String::from_utf8(wire.hear().1).expect("text");
        let id = id.split(' ').nth(1).expect("an id").to_owned();
        let mut bytes = masked(TEXT, format!("disconnect {id} 4000 bye").as_bytes());
        let frames = if cut == 0 { 20 } else { 0 };
        bytes.extend(masked(TEXT, b"echo nobody").repeat(frames));
        let close = masked(CLOSE, &4000_u16.to_be_bytes());
        let (front, back) = close.split_at(close.len() - 3 * cut);
        let began = Instant::now();
        wire.send([&bytes, front].concat());
        // So that what is behind the cut is read by itself.
        assert_eq!(wire.hear(), (CLOSE, b"\x0F\xA0bye".to_vec()));
        wire.send(back);
        assert!(wire.0.is_ended());
        assert!(began.elapsed() < Duration::from_secs(2), "no grace: {:?}", began.elapsed());
    }
    assert_eq!(server.status()["workers"][0]["violations"], 0);
}

/// A look at the clock finds one connection late, whose last message, read before it is judged, closes
/// another one that is due for a ping.
fn nothing_is_said_behind_a_close() {
    let server = Server::start(&[
        ("websocket.message_timeout", "700ms"),
        ("websocket.ping_interval", "700ms"),
    ]);
    let (mut late, mut silent) = (Wire::open(&server), Wire::open(&server));
    silent.send(masked(TEXT, b"id"));
    let id = String::from_utf8(silent.hear().1).expect("text");
    let id = id.split(' ').nth(1).expect("an id").to_owned();
    let mut sleepers: Vec<Wire> = (0..3).map(|_| Wire::open(&server)).collect();
    late.send(masked(TEXT_BEGINS, b"disconnect "));
    late.send(masked(PING, b""));
    assert_eq!(late.hear().0, PONG, "it is read");
    sleepers[0].send(masked(TEXT, b"sleep 200"));
    server.wait_call("message", "sleep 200");
    // Each takes a turn for itself, and the last one's looks at the clock before the end is read.
    sleepers[1].send(masked(TEXT, b"sleep 800"));
    sleepers[2].send(masked(TEXT, b"sleep 100"));
    late.send(masked(ENDS, format!("{id} 4000 bye").as_bytes()));
    assert_eq!(silent.hear(), (CLOSE, b"\x0F\xA0bye".to_vec()));
    silent.send(masked(CLOSE, &4000_u16.to_be_bytes()));
    assert!(silent.0.is_ended(), "no ping behind it");
}

fn large_messages_come_back_as_they_were() {
    let (_server, mut wire, id) = roomy();
    for length in [125, 126, 65_519, 65_520, 65_536, 1 << 20, (16 << 20) - 16] {
        let payload = noise(length);
        wire.send(masked(BINARY, &[&id[..], &payload].concat()));
        assert!(wire.hear() == (BINARY, payload), "{length} bytes");
    }
    let text = "aé漢😀".repeat((4 << 20) / 10);
    wire.send(masked(TEXT, format!("echo {text}").as_bytes()));
    assert!(wire.hear() == (TEXT, text.into_bytes()));
}

fn fragments_come_back_as_one_message() {
    let (server, mut wire, id) = roomy();
    let payload = noise(4 << 20);
    let message = [&id[..], &payload].concat();
    for size in [64, 1_000, 4_096, 65_536, 1 << 20] {
        let mut stream = Vec::new();
        let mut first = 0x02;
        for piece in message.chunks(size) {
            stream.extend(masked(first, piece));
            first = GOES_ON;
        }
        stream.extend(masked(ENDS, b""));
        wire.send(stream);
        assert!(wire.hear() == (BINARY, payload.clone()), "fragments of {size} bytes");
    }
    let sessions = &server.status()["sessions"];
    assert_eq!(sessions["pool_blocks"], sessions["pool_blocks_free"]);
}
