//! One socket of a client: connect, upgrade, bytes in and out. Never blocks.
//!
//! Decides nothing: what came is handed on, and how it ended.

use super::moment::Moment;
use super::outbound::Outbound;
use super::wire::{Inbound, Incoming, WireError};
use mio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where the server is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
}

/// One connection of one client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct LifeId(pub(crate) u32);

/// How a connection ended, seen from the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// A close frame with this code.
    Closed(u16),
    Reset,
    /// The end of the stream without a close frame.
    HungUp,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(code) => write!(f, "closed with {code}"),
            Self::Reset => f.write_str("reset"),
            Self::HungUp => f.write_str("hung up without a close"),
        }
    }
}

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) enum Stage {
    Connecting,
    Upgrading,
    /// Upgraded; the greeting is due.
    Greeting,
    LoggingIn,
    Open,
    /// We said that we close.
    Closing,
}

/// Why nothing more comes.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Over {
    Ended(End),
    /// Another answer than 101 to the upgrade: its first line.
    TurnedAway(String),
    /// Bytes that no server may send.
    Damaged(WireError),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) stage: Stage,
    pub(crate) life: LifeId,
    pub(crate) began: Moment,
    pub(crate) outbound: Outbound,
    /// A timer is set for output that is due then.
    pub(crate) wakes_at: Moment,
    /// Numbers of the pings that may still be answered.
    pub(crate) pings: VecDeque<u64>,
    pub(crate) inbound: Inbound,
    /// The answer to the upgrade, as far as it came.
    answer: Vec<u8>,
    /// A write failed.
    reset: bool,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// An answer to an upgrade is shorter.
const ANSWER_MAX_BYTES: usize = 16 << 10;
/// What the fixed key of our requests must be answered with.
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Addresses that clients on this machine come from.
const SOURCES: u32 = 200;

impl Connection {
    /// Begins to connect.
    ///
    /// # Errors
    /// The system has no socket or port for it, or refuses at once.
    pub(crate) fn begin(
        server: &Target,
        number: u32,
        life: LifeId,
        now: Moment,
    ) -> io::Result<Self> {
        let socket =
            Socket::new(Domain::for_address(server.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let IpAddr::V4(address) = server.address.ip()
            && address.is_loopback()
        {
            // One address has too few ports for all, and servers count by address.
            let source = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + number % SOURCES);
            // The port is chosen with the server's address, so that it may serve others, too.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        match socket.connect(&server.address.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => {
                return Err(error);
            }
            _ => {}
        }
        let mut outbound = Outbound::default();
        outbound.push(upgrade(server).as_bytes(), now);
        Ok(Self {
            stream: TcpStream::from_std(socket.into()),
            stage: Stage::Connecting,
            life,
            began: now,
            outbound,
            wakes_at: now,
            pings: VecDeque::new(),
            inbound: Inbound::default(),
            answer: Vec::new(),
            reset: false,
            readable: false,
            writable: false,
        })
    }

    /// Writes what may leave now, as far as the kernel takes it. That it takes no more since the
    /// connection has ended is left to the reads: a close frame may still be there.
    pub(crate) fn write(&mut self, now: Moment) {
        if self.stage == Stage::Connecting {
            if !self.writable {
                return;
            }
            self.stage = Stage::Upgrading;
        }
        while self.writable {
            let ready = self.outbound.ready(now);
            if ready.is_empty() {
                return;
            }
            match self.stream.write(ready) {
                Ok(written) => self.outbound.wrote(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.writable = false;
                    let over = error.kind() != io::ErrorKind::WouldBlock;
                    self.readable |= over;
                    self.reset |= over;
                }
            }
        }
    }

    /// Reads once, at most what `into` holds; false: nothing more is there now.
    ///
    /// # Errors
    /// The connection is over.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<bool, Over> {
        match self.stream.read(into) {
            // The kernel tells of a reset once: here a write was told.
            Ok(0) if self.reset => Err(Over::Ended(End::Reset)),
            Ok(0) => Err(Over::Ended(End::HungUp)),
            Ok(length) if self.stage == Stage::Upgrading => {
                self.upgraded(&into[..length]).map(|()| true)
            }
            Ok(length) => {
                self.inbound.take(&into[..length]);
                // Less than was asked for is all there is: the next bytes raise an event of their own.
                self.readable = length == into.len();
                Ok(self.readable)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Err(Over::TurnedAway("connection refused".to_owned()))
            }
            Err(_) => Err(Over::Ended(End::Reset)),
        }
    }

    /// The next message or control frame that came.
    ///
    /// # Errors
    /// The server broke the protocol.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming>, Over> {
        self.inbound.next().map_err(Over::Damaged)
    }

    /// Whether it ended in the middle of a message of the server's.
    pub(crate) fn is_partial(&self) -> bool {
        self.inbound.is_partial()
    }

    fn upgraded(&mut self, bytes: &[u8]) -> Result<(), Over> {
        self.answer.extend_from_slice(bytes);
        let end = self.answer.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end.map(|at| at + 4) else {
            return match self.answer.len() {
                0..ANSWER_MAX_BYTES => Ok(()),
                _ => Err(Over::TurnedAway("an answer without an end".to_owned())),
            };
        };
        let answer = std::mem::take(&mut self.answer);
        let (head, frames) = answer.split_at(end);
        let accepted = head.windows(ACCEPT.len()).any(|part| part == ACCEPT);
        if !head.starts_with(b"HTTP/1.1 101 ") || !accepted {
            let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
            return Err(Over::TurnedAway(String::from_utf8_lossy(line).into_owned()));
        }
        self.inbound.take(frames);
        self.stage = Stage::Greeting;
        Ok(())
    }
}

fn upgrade(server: &Target) -> String {
    let Target { address, path } = server;
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}
