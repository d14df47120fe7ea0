//! permessage-deflate with a client that speaks frames by hand, and what it costs.

use crate::client::Raw;
use crate::runner::tests;
use crate::server::Server;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write};

tests![
    compression_is_agreed_on_and_used,
    without_an_agreement_nothing_is_compressed,
    what_is_too_short_or_too_random_is_sent_as_it_is,
    a_message_for_many_is_compressed_once,
    a_compressed_message_goes_on_after_a_reload_and_a_death,
    a_bomb_is_refused_without_the_memory_it_asks_for,
    much_to_inflate_waits_its_turn,
    what_breaks_the_rules_of_compression_is_closed,
    a_changed_setting_is_for_new_connections,
];

const ON: (&str, &str) = ("websocket.compression", "true");
const ANY_LENGTH: (&str, &str) = ("websocket.compression_threshold", "0");
const OFFER: &str = "permessage-deflate; client_max_window_bits";
const NARROW: &str = "permessage-deflate; server_max_window_bits=9";

/// First byte of a frame: last of its message, compressed, and the kinds.
const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;

/// A WebSocket whose frames are written and read by hand.
struct Hand {
    raw: Raw,
    /// The value of `Sec-WebSocket-Extensions` in the answer.
    agreed: Option<String>,
}

impl Hand {
    fn open(server: &Server, offer: &str) -> Self {
        let mut raw = Raw::connect(server.address);
        let request = format!(
            "GET / HTTP/1.1\r\nHost: dunlin\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Extensions: {offer}\r\n\r\n"
        );
        raw.stream.write_all(request.as_bytes()).expect("the connection takes it");
        let (status, head, _) = raw.hear();
        assert_eq!(status, 101, "{head}");
        let line = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
        Self { agreed: line.map(str::to_owned), raw }
    }

    fn write(&mut self, first: u8, payload: &[u8]) {
        self.raw.write(Self::frame(first, payload));
    }

    /// A frame, masked with zeros.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, 0x80 | 127];
        match payload.len() {
            short @ 0..=125 => frame[1] = 0x80 | u8::try_from(short).expect("short"),
            medium @ 126..=0xFFFF => {
                frame[1] = 0x80 | 126;
                frame.extend(u16::try_from(medium).expect("medium").to_be_bytes());
            }
            long => frame.extend((long as u64).to_be_bytes()),
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        frame
    }

    fn say(&mut self, text: &str) {
        self.write(FIN | RSV1 | TEXT, &deflated(text.as_bytes()));
    }

    /// The next frame as it comes: first byte and payload.
    fn read(&mut self) -> (u8, Vec<u8>) {
        let head = self.take(2);
        let length = match head[1] {
            126 => self.take(2).iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            127 => self.take(8).iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            short => usize::from(short),
        };
        (head[0], self.take(length))
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        while self.raw.heard.len() < length {
            let mut piece = [0; 16 << 10];
            let more = self.raw.stream.read(&mut piece).expect("more in time");
            assert!(more > 0, "the end came within a frame");
            self.raw.heard.extend(&piece[..more]);
        }
        self.raw.heard.drain(..length).collect()
    }

    /// The next text, and whether it came compressed.
    fn hear(&mut self) -> (String, bool) {
        let (first, payload) = self.read();
        assert_eq!(first & !RSV1, FIN | TEXT, "{first:x} {payload:?}");
        let compressed = first & RSV1 != 0;
        let bytes = if compressed { inflated(&payload) } else { payload };
        (String::from_utf8(bytes).expect("text"), compressed)
    }

    fn ask(&mut self, text: &str) -> (String, bool) {
        self.say(text);
        self.hear()
    }

    /// The code of the close frame that comes next.
    fn close_code(&mut self) -> u16 {
        let (first, payload) = self.read();
        assert_eq!(first, FIN | CLOSE, "{payload:?}");
        u16::from_be_bytes([payload[0], payload[1]])
    }

    fn pong(&mut self) {
        self.write(FIN | PING, b"");
        assert_eq!(self.read(), (FIN | 0xA, Vec::new()));
    }
}

fn deflated(message: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(message.len() + 64);
    let mut stream = Compress::new(Compression::best(), false);
    stream.compress_vec(message, &mut output, FlushCompress::Sync).expect("compresses");
    assert!(output.ends_with(&[0, 0, 0xFF, 0xFF]));
    output.truncate(output.len() - 4);
    output
}

/// Inflates a message; none of ours needs more than a megabyte.
fn inflated(message: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(1 << 20);
    let whole = [message, &[0, 0, 0xFF, 0xFF]].concat();
    let mut stream = Decompress::new(false);
    stream.decompress_vec(&whole, &mut output, FlushDecompress::Sync).expect("inflates");
    output
}

/// The sum of a figure over all workers, once it is so.
fn wait_sum(server: &Server, figure: &str, expected: u64) {
    server.wait_status(&format!("{figure} to be {expected}"), |status| {
        let workers = status["workers"].as_array().expect("the workers");
        workers.iter().filter_map(|worker| worker[figure].as_u64()).sum::<u64>() == expected
    });
}

fn compression_is_agreed_on_and_used() {
    let server = Server::start(&[ON]);
    let mut client = Hand::open(&server, OFFER);
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(client.agreed.as_deref(), Some(both));
    let text = "grüße ".repeat(1000);
    for _ in 0..3 {
        assert_eq!(client.ask(&format!("echo {text}")), (text.clone(), true));
    }
    wait_sum(&server, "compressed_in", 3);
    wait_sum(&server, "compressed_out", 3);
    wait_sum(&server, "compressions", 3);
    let saved = server.status()["workers"][0]["saved_bytes"].as_u64().expect("a count");
    assert!(saved > 3 * 7000 && saved < 3 * 8000, "of 24,000 bytes {saved} are saved");
    // Half of its messages may be plain, and fragments of both kinds.
    client.write(FIN | TEXT, b"echo plain");
    assert_eq!(client.hear(), ("plain".into(), false), "below the threshold");
    let message = deflated(b"echo in fragments");
    client.write(RSV1 | TEXT, &message[..3]);
    client.write(FIN | PING, b"");
    client.write(0, &message[3..9]);
    client.write(FIN, &message[9..]);
    assert_eq!(client.read().0, FIN | 0xA);
    assert_eq!(client.hear().0, "in fragments");
    client.write(FIN | RSV1 | TEXT, &[]);
    client.write(FIN | RSV1 | TEXT, &[0]);
    assert_eq!((client.hear().0, client.hear().0), unknown_twice(), "empty messages");
    let narrow = Hand::open(&server, &format!("x-other, {NARROW}")).agreed;
    assert_eq!(narrow, Some(format!("{both}; server_max_window_bits=9")));
}

fn unknown_twice() -> (String, String) {
    ("no such command: ".into(), "no such command: ".into())
}

fn without_an_agreement_nothing_is_compressed() {
    let server = Server::start(&[ANY_LENGTH]);
    let mut client = Hand::open(&server, OFFER);
    assert_eq!(client.agreed, None, "off by default");
    client.write(FIN | TEXT, format!("echo {}", "a".repeat(5000)).as_bytes());
    assert_eq!(client.hear(), ("a".repeat(5000), false));
    client.say("echo not agreed on");
    assert_eq!(client.close_code(), 1002);
    let server = Server::start(&[ON, ANY_LENGTH]);
    let insists = "permessage-deflate; server_max_window_bits=8";
    let mut client = Hand::open(&server, insists);
    assert_eq!(client.agreed, None, "no compressor has such a window");
    client.write(FIN | TEXT, format!("echo {}", "a".repeat(5000)).as_bytes());
    assert_eq!(client.hear(), ("a".repeat(5000), false));
    for figure in ["compressed_in", "compressed_out", "compressions"] {
        wait_sum(&server, figure, 0);
    }
}

fn what_is_too_short_or_too_random_is_sent_as_it_is() {
    let server = Server::start(&[ON, ("websocket.compression_threshold", "100")]);
    let mut client = Hand::open(&server, OFFER);
    for (length, compressed) in [(99, false), (100, true), (101, true)] {
        let (text, was) = client.ask(&format!("echo {}", "a".repeat(length)));
        assert_eq!((text.len(), was), (length, compressed));
    }
    let id = client.ask("id").0;
    let to = id.split(' ').nth(1).expect("a session").to_owned();
    let mut noise = 7_u64;
    let random = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        noise.to_be_bytes()[0]
    });
    let random: Vec<u8> = random.take(70_000).collect();
    client.write(FIN | BINARY, &[to.as_bytes(), &random].concat());
    assert_eq!(client.read(), (FIN | BINARY, random));
    wait_sum(&server, "compressions", 3);
    wait_sum(&server, "compressed_out", 2);
}

fn a_message_for_many_is_compressed_once() {
    let server = Server::start(&[ON, ANY_LENGTH, ("server.workers", "2")]);
    let mut clients: Vec<(Hand, bool)> = Vec::new();
    for number in 0..60 {
        let offer = [OFFER, NARROW, "x-other"][number % 3];
        clients.push((Hand::open(&server, offer), number % 3 < 2));
    }
    let ids: Vec<(String, String)> = clients
        .iter_mut()
        .map(|(client, _)| {
            client.write(FIN | TEXT, b"id");
            let answer = client.hear().0;
            let mut words = answer.split(' ').skip(1).map(str::to_owned);
            words.next().zip(words.next()).expect("id and slot")
        })
        .collect();
    // In each worker one compressor for each window that is asked for there.
    let mut kinds: Vec<_> =
        ids.iter().enumerate().map(|(at, (_, slot))| (at % 3, slot)).filter(|k| k.0 < 2).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let (before, slots) = (server.status(), kinds.len() as u64);
    assert!((2..=4).contains(&slots));
    let count = |status: &serde_json::Value, figure: &str| -> u64 {
        let workers = status["workers"].as_array().expect("the workers").iter();
        workers.filter_map(|worker| worker[figure].as_u64()).sum()
    };
    let text = "to all ".repeat(300);
    clients[0].0.write(FIN | TEXT, format!("broadcast {text}").as_bytes());
    for (client, compressed) in &mut clients {
        assert_eq!(client.hear(), (text.clone(), *compressed));
    }
    wait_sum(&server, "compressions", count(&before, "compressions") + slots);
    wait_sum(&server, "compressed_out", count(&before, "compressed_out") + 40);
    // The same for a list of recipients, though nothing is saved here.
    let all: Vec<&str> = ids.iter().map(|(id, _)| id.as_str()).collect();
    clients[2].0.write(FIN | TEXT, format!("many {}", all.join(" ")).as_bytes());
    for (client, _) in &mut clients {
        assert_eq!(client.hear().0, "to many");
    }
    assert_eq!(clients[2].0.hear().0, "many 60");
    wait_sum(&server, "compressions", count(&before, "compressions") + 2 * slots);
}

fn a_compressed_message_goes_on_after_a_reload_and_a_death() {
    let server = Server::start(&[ON, ANY_LENGTH]);
    let mut client = Hand::open(&server, NARROW);
    let text: String = (0..2000).map(|number| format!("{number} ")).collect();
    let message = deflated(format!("echo {text}").as_bytes());
    let mut pieces = message.chunks(message.len() / 4 + 1);
    client.write(RSV1 | TEXT, pieces.next().expect("four pieces"));
    client.pong();
    assert_eq!(server.reload(Signal::SIGUSR1)["ok"], true);
    client.write(0, pieces.next().expect("four pieces"));
    client.pong();
    server.kill_and_wait("workers/0");
    client.write(0, pieces.next().expect("four pieces"));
    // In the middle of a frame.
    let last = pieces.next().expect("four pieces");
    let mut frame = vec![FIN, 0x80 | 126];
    frame.extend(u16::try_from(last.len()).expect("medium").to_be_bytes());
    frame.extend([0; 4]);
    let (front, back) = last.split_at(last.len() / 2);
    client.raw.stream.write_all(&[&frame, front].concat()).expect("the connection takes it");
    assert_eq!(server.reload(Signal::SIGUSR1)["ok"], true);
    client.raw.stream.write_all(back).expect("the connection takes it");
    assert_eq!(client.hear(), (text, true), "and what was agreed on holds");
    assert_eq!(client.ask("echo tea").0, "tea");
    assert_eq!(server.status()["sessions"]["lost_handling"], 0);
}

/// The most memory that the worker has had so far, in KiB, without the shared segment: that is counted
/// by pages it has looked at, which may be of 2 MiB, and never grows.
fn peak_kib(server: &Server) -> u64 {
    let pid = server.pid("workers/0");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let figure = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the figure");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    figure("VmHWM:") - figure("RssShmem:")
}

fn a_bomb_is_refused_without_the_memory_it_asks_for() {
    let server = Server::start(&[ON]);
    let bomb = deflated(&vec![b'0'; 256 << 20]);
    assert!(bomb.len() < 262_000, "255 KiB: {}", bomb.len());
    let mut neighbour = Hand::open(&server, OFFER);
    assert_eq!(neighbour.ask("echo tea").0, "tea");
    let before = peak_kib(&server);
    for round in 0..4 {
        let mut client = Hand::open(&server, OFFER);
        if round % 2 == 0 {
            client.write(FIN | RSV1 | TEXT, &bomb);
        } else {
            client.write(RSV1 | TEXT, &bomb[..100_000]);
            client.write(FIN, &bomb[100_000..]);
        }
        assert_eq!(client.close_code(), 1009);
    }
    let grown = peak_kib(&server) - before;
    println!("four bombs of 256 MiB: the worker's peak grew by {grown} KiB");
    assert!(grown < 4 << 10, "{grown} KiB");
    wait_sum(&server, "bombs_refused", 4);
    wait_sum(&server, "violations", 4);
    assert_eq!(neighbour.ask("echo tea").0, "tea");
    // The limit itself is no bomb.
    let most = deflated(&vec![b'x'; 1 << 20]);
    neighbour.write(FIN | RSV1 | TEXT, &most);
    assert!(neighbour.hear().0.starts_with("no such command: xxx"));
    assert_eq!(server.status()["workers"][0]["restarts"], 0);
}

fn much_to_inflate_waits_its_turn() {
    const MESSAGES: usize = 20;
    let server = Server::start(&[ON]);
    let mut client = Hand::open(&server, OFFER);
    // Few bytes, few frames, and much to do: 20 MiB.
    let half = deflated(&vec![b'x'; 1 << 19]);
    let mut frames = Vec::new();
    for _ in 0..MESSAGES {
        frames.extend(Hand::frame(FIN | RSV1 | TEXT, &half));
    }
    assert!(frames.len() < 32 << 10, "one read takes them all: {}", frames.len());
    client.raw.write(frames);
    for _ in 0..MESSAGES {
        assert!(client.hear().0.starts_with("no such command: xxx"));
    }
    let full = server.status()["workers"][0]["turns_full"].as_u64().expect("a number");
    assert!(full >= MESSAGES as u64 / 2, "nearly each of them ends a turn: {full}");
}

fn what_breaks_the_rules_of_compression_is_closed() {
    let server = Server::start(&[ON]);
    let closes = |frames: &[(u8, &[u8])]| {
        let mut client = Hand::open(&server, OFFER);
        frames.iter().for_each(|(first, payload)| client.write(*first, payload));
        client.close_code()
    };
    let hello = deflated(b"echo hello");
    let not_text = deflated(b"echo \xFF\xFE");
    let cut_character = deflated("echo é".as_bytes().split_last().expect("bytes").1);
    assert_eq!(closes(&[(FIN | RSV1 | TEXT, b"no such stream")]), 1007);
    assert_eq!(closes(&[(FIN | RSV1 | TEXT, &hello[..hello.len() - 2])]), 1007, "cut");
    assert_eq!(closes(&[(RSV1 | TEXT, &hello), (FIN, &[0x07])]), 1007);
    assert_eq!(closes(&[(FIN | RSV1 | TEXT, &not_text)]), 1007);
    assert_eq!(closes(&[(FIN | RSV1 | TEXT, &cut_character)]), 1007);
    assert_eq!(closes(&[(RSV1 | TEXT, &hello), (FIN | RSV1, &[0])]), 1002);
    assert_eq!(closes(&[(TEXT, b"echo "), (FIN | RSV1, &hello)]), 1002);
    assert_eq!(closes(&[(FIN | RSV1 | PING, b"")]), 1002);
    assert_eq!(closes(&[(FIN | 0x20 | TEXT, &hello)]), 1002);
    assert!(server.calls("message").is_empty());
    wait_sum(&server, "bombs_refused", 0);
}

fn a_changed_setting_is_for_new_connections() {
    let server = Server::start(&[ON, ANY_LENGTH]);
    let mut agreed = Hand::open(&server, OFFER);
    server.place.set("websocket.compression", "false");
    let report = server.reload(Signal::SIGUSR1);
    assert_eq!(report["applied"][0], "websocket.compression", "{report}");
    assert_eq!(Hand::open(&server, OFFER).agreed, None);
    assert_eq!(agreed.ask(&format!("echo {}", "a".repeat(500))), ("a".repeat(500), true));
}
