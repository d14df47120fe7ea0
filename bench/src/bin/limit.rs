//! The least a WebSocket echo server can do: what every other server is measured against.
//!
//! Edge-triggered epoll, one read buffer for all connections, frames unmasked on their way into one
//! output buffer, one send per readable event. Large frames are passed on as they come; nothing is
//! checked but the mask bit, nothing is bounded, nobody is timed out: it is no server to be used.

use clap::Parser;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const LISTENER: Token = Token(0);
const BUFFER_BYTES: usize = 256 << 10;
/// Longest header of a client's frame.
const HEADER_MAX: usize = 14;

#[derive(Parser)]
struct Arguments {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// Threads, each with a listener and an epoll of its own.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let others: Vec<_> =
        (1..arguments.threads).map(|_| thread::spawn(move || serve(arguments.listen))).collect();
    serve(arguments.listen)?;
    for other in others {
        other.join().map_err(|_| io::Error::other("a thread panicked"))??;
    }
    Ok(())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn serve(address: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut listener = listen(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    let mut input = vec![0; BUFFER_BYTES];
    let mut output = Vec::with_capacity(BUFFER_BYTES);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let key = free.pop().unwrap_or_else(|| {
                        connections.push(None);
                        connections.len() - 1
                    });
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(key + 1), both)?;
                    connections[key] = Some(Connection::new(stream));
                }
                continue;
            }
            let key = event.token().0 - 1;
            let Some(connection) = connections[key].as_mut() else { continue };
            if !connection.turn(event.is_writable(), &mut input, &mut output) {
                connections[key] = None;
                free.push(key);
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// An unfinished request or frame header.
    cut: Vec<u8>,
    /// What the kernel did not take yet; nothing is read meanwhile.
    unsent: Vec<u8>,
    /// Payload bytes of the open frame that are still to come.
    left: u64,
    /// Its mask, turned to the next byte.
    mask: [u8; 4],
    open: bool,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { stream, cut: Vec::new(), unsent: Vec::new(), left: 0, mask: [0; 4], open: false }
    }

    /// Serves an event. False: the connection is over.
    fn turn(&mut self, writable: bool, input: &mut [u8], output: &mut Vec<u8>) -> bool {
        if !self.unsent.is_empty() {
            if !writable {
                return true;
            }
            let mut rest = std::mem::take(&mut self.unsent);
            match self.stream.write(&rest) {
                Ok(written) => self.unsent = rest.split_off(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.unsent = rest,
                Err(_) => return false,
            }
        }
        while self.unsent.is_empty() {
            let held = self.cut.len();
            input[..held].copy_from_slice(&self.cut);
            self.cut.clear();
            let length = match self.stream.read(&mut input[held..]) {
                Ok(0) => return false,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.cut.extend_from_slice(&input[..held]);
                    return true;
                }
                Err(_) => return false,
            };
            output.clear();
            let alive = if self.open {
                self.echo(&input[..held + length], output)
            } else {
                self.shake_hands(&input[..held + length], output)
            };
            if !alive || !self.send(output) {
                return false;
            }
            // A short read has emptied the socket.
            if held + length < input.len() {
                return true;
            }
        }
        true
    }

    fn send(&mut self, output: &[u8]) -> bool {
        if output.is_empty() {
            return true;
        }
        match self.stream.write(output) {
            Ok(written) => self.unsent.extend_from_slice(&output[written..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.unsent.extend_from_slice(output);
            }
            Err(_) => return false,
        }
        true
    }

    fn shake_hands(&mut self, input: &[u8], output: &mut Vec<u8>) -> bool {
        if !input.ends_with(b"\r\n\r\n") {
            self.cut.extend_from_slice(input);
            return input.len() < 8192;
        }
        let Ok(text) = std::str::from_utf8(input) else { return false };
        let key = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
        });
        let Some(key) = key else { return false };
        let _ = write!(
            output,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        );
        self.open = true;
        self.cut = Vec::new();
        true
    }

    /// Answers what is there; an unfinished header is kept. False: a close or an unmasked frame.
    fn echo(&mut self, mut input: &[u8], output: &mut Vec<u8>) -> bool {
        loop {
            let length = usize::try_from(self.left).map_or(input.len(), |l| l.min(input.len()));
            if length > 0 {
                unmask_into(output, &input[..length], &mut self.mask);
                self.left -= length as u64;
                input = &input[length..];
            }
            let Some((header_bytes, payload_bytes)) = header(input) else {
                self.cut.extend_from_slice(input);
                return true;
            };
            if input[1] & 0x80 == 0 || input[0] & 0x0F == 8 {
                return false;
            }
            output.push(input[0]);
            output.push(input[1] & 0x7F);
            output.extend_from_slice(&input[2..header_bytes - 4]);
            self.mask.copy_from_slice(&input[header_bytes - 4..header_bytes]);
            self.left = payload_bytes;
            input = &input[header_bytes..];
        }
    }
}

/// Length of the header at the front, and of the payload it announces; `None`: it is not all there.
fn header(input: &[u8]) -> Option<(usize, u64)> {
    let short = *input.get(1)? & 0x7F;
    let (header_bytes, payload_bytes) = match short {
        126 => (8, u64::from(u16::from_be_bytes(*input.get(2..4)?.first_chunk()?))),
        127 => (HEADER_MAX, u64::from_be_bytes(*input.get(2..10)?.first_chunk()?)),
        _ => (6, u64::from(short)),
    };
    (input.len() >= header_bytes).then_some((header_bytes, payload_bytes))
}

fn unmask_into(output: &mut Vec<u8>, input: &[u8], mask: &mut [u8; 4]) {
    let narrow = u32::from_le_bytes(*mask);
    let wide = u64::from(narrow) << 32 | u64::from(narrow);
    let at = output.len();
    output.extend_from_slice(input);
    let (words, rest) = output[at..].as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_le_bytes(*word) ^ wide).to_le_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    mask.rotate_left(input.len() % 4);
}
