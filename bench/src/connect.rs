//! Opening connections: TCP and the upgrade, many at a time.

use crate::frames::Frames;
use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// More from one address make the kernel search for free ports.
const PER_SOURCE: usize = 8_000;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
/// What the key above must be answered with.
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Longer than this a handshake has lost a packet to a full queue: the kernel tries again after 1 s.
const SLOW: Duration = Duration::from_millis(900);
const GIVE_UP: Duration = Duration::from_secs(20);

/// An open WebSocket of the load generator.
pub struct Link {
    pub stream: TcpStream,
    /// Messages wholly answered.
    pub answered: u64,
    /// Bytes of the next answer that came already.
    pub in_bytes: usize,
    /// Messages wholly given to the kernel.
    pub sent: u64,
    /// Bytes of the next message that the kernel took already.
    pub out_bytes: usize,
    /// Messages that may be sent now.
    pub due: u64,
    /// When the messages on their way were sent, by number modulo its length.
    pub sent_at: Vec<Instant>,
}

/// How opening many connections went.
pub struct Opening {
    pub links: Vec<Link>,
    /// Refused, reset, or answered with something else than a right 101.
    pub refused: usize,
    /// Took more than [`SLOW`].
    pub slow: usize,
    pub took: Duration,
    /// Nanoseconds from connect to the 101.
    pub latency: Histogram<u64>,
}

enum Stage {
    Connecting,
    Asked(Vec<u8>),
    Done,
}

struct Attempt {
    stream: Option<TcpStream>,
    stage: Stage,
    began: Instant,
}

/// Opens `count` connections, `in_flight` handshakes at a time, all registered with `poll`: the token is
/// the index in [`Opening::links`] as long as none was refused.
pub fn open(
    poll: &mut Poll,
    address: SocketAddr,
    count: usize,
    in_flight: usize,
) -> io::Result<Opening> {
    let mut events = Events::with_capacity(1024);
    let mut attempts: Vec<Attempt> = Vec::with_capacity(count);
    let mut latency = histogram();
    let (mut done, mut refused, mut slow) = (0, 0, 0);
    let began = Instant::now();
    while done < count {
        while attempts.len() < count && attempts.len() - done < in_flight {
            let key = attempts.len();
            let mut stream = begin(address, key / PER_SOURCE)?;
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(key), both)?;
            let began = Instant::now();
            attempts.push(Attempt { stream: Some(stream), stage: Stage::Connecting, began });
        }
        poll.poll(&mut events, Some(Duration::from_millis(100)))?;
        for event in &events {
            let Some(attempt) = attempts.get_mut(event.token().0) else { continue };
            if matches!(attempt.stage, Stage::Done) {
                continue;
            }
            match attempt.proceed(event) {
                Ok(false) => continue,
                Ok(true) => {
                    let took = attempt.began.elapsed();
                    slow += usize::from(took > SLOW);
                    latency.saturating_record(nanos(took));
                }
                Err(_) => {
                    refused += 1;
                    attempt.stream = None;
                }
            }
            attempt.stage = Stage::Done;
            done += 1;
        }
        if began.elapsed() > GIVE_UP {
            refused += count - done;
            break;
        }
    }
    let took = began.elapsed();
    let links = attempts.into_iter().filter_map(|attempt| attempt.stream).map(Link::new).collect();
    Ok(Opening { links, refused, slow, took, latency })
}

/// A histogram of nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn begin(address: SocketAddr, source: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if source > 0 {
        let last = u8::try_from(source + 1).map_err(io::Error::other)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

impl Attempt {
    /// True: the WebSocket is open.
    fn proceed(&mut self, event: &Event) -> io::Result<bool> {
        let Some(stream) = self.stream.as_mut() else { return Ok(false) };
        if matches!(self.stage, Stage::Connecting) && event.is_writable() {
            if stream.write(REQUEST)? != REQUEST.len() {
                return Err(io::Error::other("a fresh socket takes no request"));
            }
            self.stage = Stage::Asked(Vec::new());
        }
        if let Stage::Asked(answer) = &mut self.stage
            && event.is_readable()
        {
            let mut piece = [0; 1024];
            match stream.read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => answer.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            if answer.ends_with(b"\r\n\r\n") {
                let right = answer.starts_with(b"HTTP/1.1 101 ")
                    && answer.windows(ACCEPT.len()).any(|part| part == ACCEPT);
                return if right { Ok(true) } else { Err(io::Error::other("no right 101")) };
            }
        }
        Ok(false)
    }
}

impl Link {
    fn new(stream: TcpStream) -> Self {
        let sent_at = Vec::new();
        Self { stream, answered: 0, in_bytes: 0, sent: 0, out_bytes: 0, due: 0, sent_at }
    }

    /// Sends what is due, as far as the kernel takes it.
    pub fn send(&mut self, key: usize, frames: &Frames, scratch: &mut Vec<u8>) -> io::Result<()> {
        /// Frames up to this size are put together into one write.
        const SMALL_BYTES: usize = 2_048;
        let now = Instant::now();
        while self.due > 0 {
            scratch.clear();
            let small = frames.request_bytes() <= SMALL_BYTES;
            for number in self.sent..self.sent + if small { self.due } else { 1 } {
                frames.request_front(key, number, scratch);
                if small {
                    scratch.extend_from_slice(frames.masked_tail());
                }
                let place = usize::try_from(number).unwrap_or(0) % self.sent_at.len();
                self.sent_at[place] = now;
            }
            let written = if small {
                self.stream.write(&scratch[self.out_bytes..])
            } else if let Some(in_tail) = self.out_bytes.checked_sub(scratch.len()) {
                self.stream.write(&frames.masked_tail()[in_tail..])
            } else {
                let slices =
                    [&scratch[self.out_bytes..], frames.masked_tail()].map(io::IoSlice::new);
                self.stream.write_vectored(&slices)
            };
            match written {
                Ok(written) => {
                    let whole = self.out_bytes + written;
                    let messages = whole / frames.request_bytes();
                    self.out_bytes = whole % frames.request_bytes();
                    self.sent += messages as u64;
                    self.due -= messages as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.out_bytes > 0 && small {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Ends it at once, without leaving a port in TIME_WAIT.
    pub fn cut(self) {
        let socket: std::net::TcpStream = self.stream.into();
        // Where it fails the port only rests for a minute.
        let _ = Socket::from(socket).set_linger(Some(Duration::ZERO));
    }
}
