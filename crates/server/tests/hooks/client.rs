//! A small blocking client: a WebSocket that was not written for this server, and raw HTTP for what it
//! would hide.

use crate::server::PATIENCE;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Response;
use tungstenite::http::{HeaderName, HeaderValue};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Error, HandshakeError, Message, WebSocket};

/// An open WebSocket.
pub(crate) struct Client {
    pub(crate) socket: WebSocket<TcpStream>,
    /// Its session id.
    pub(crate) id: String,
    /// The slot that served it when it opened.
    pub(crate) slot: u16,
    /// The pid of the worker that did.
    pub(crate) pid: i32,
}

/// What a client reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Close(u16, String),
    /// The transport has ended without a close frame.
    End,
    /// Nothing came in the time given.
    Silence,
}

impl Client {
    /// Connects and asks who it is.
    pub(crate) fn connect(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let (socket, _) = upgrade(address, path, headers).expect("the upgrade is accepted");
        Self::over(socket)
    }

    /// The same over an upgrade that was done elsewhere.
    pub(crate) fn over(socket: WebSocket<TcpStream>) -> Self {
        let mut client = Self { socket, id: String::new(), slot: 0, pid: 0 };
        let (id, slot, pid) = client.who();
        (client.id, client.slot, client.pid) = (id, slot, pid);
        client
    }

    /// The same where the server may die under it: `None` if it did.
    pub(crate) fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let (socket, _) = tungstenite::client(format!("ws://{address}/"), stream).ok()?;
        let mut client = Self { socket, id: String::new(), slot: 0, pid: 0 };
        let answer = client.try_ask("id")?;
        let words: Vec<&str> = answer.split(' ').collect();
        let ["id", id, slot, pid] = words[..] else { panic!("not an id: {answer}") };
        (client.id, client.slot, client.pid) = (id.into(), slot.parse().ok()?, pid.parse().ok()?);
        Some(client)
    }

    /// The answer; `None` if the connection ends first.
    pub(crate) fn try_ask(&mut self, text: &str) -> Option<String> {
        self.socket.send(Message::text(text)).ok()?;
        match self.hear() {
            Heard::Text(answer) => Some(answer),
            Heard::Silence => panic!("neither an answer nor an end came: {text}"),
            _ => None,
        }
    }

    /// Ends a message that was begun; gives the answer.
    pub(crate) fn ask_rest(&mut self, rest: &[u8]) -> String {
        self.write_raw(&frame(true, 0, rest));
        self.hear_text()
    }

    /// What comes within a second.
    pub(crate) fn hear_soon(&mut self) -> Heard {
        self.set_patience(Duration::from_secs(1));
        let heard = self.hear();
        self.set_patience(PATIENCE);
        heard
    }

    /// Session id, slot and worker's pid, as of now.
    pub(crate) fn who(&mut self) -> (String, u16, i32) {
        let answer = self.ask("id");
        let words: Vec<&str> = answer.split(' ').collect();
        let ["id", id, slot, pid] = words[..] else { panic!("not an id: {answer}") };
        (id.into(), slot.parse().expect("a slot"), pid.parse().expect("a pid"))
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("the connection takes it");
    }

    pub(crate) fn ask(&mut self, text: &str) -> String {
        self.say(text);
        self.hear_text()
    }

    /// What comes next, pings aside.
    pub(crate) fn hear(&mut self) -> Heard {
        loop {
            return match self.socket.read() {
                Ok(Message::Text(text)) => Heard::Text(text.to_string()),
                Ok(Message::Binary(bytes)) => Heard::Binary(bytes.to_vec()),
                Ok(Message::Close(frame)) => frame
                    .map_or(Heard::Close(1005, String::new()), |frame| {
                        Heard::Close(frame.code.into(), frame.reason.to_string())
                    }),
                Ok(_) => continue,
                Err(Error::Io(error)) if would_block(&error) => Heard::Silence,
                Err(_) => Heard::End,
            };
        }
    }

    pub(crate) fn hear_text(&mut self) -> String {
        match self.hear() {
            Heard::Text(text) => text,
            other => panic!("a text was awaited, and came {other:?}"),
        }
    }

    /// The close frame, after whatever comes before it.
    pub(crate) fn hear_close(&mut self) -> (u16, String) {
        loop {
            match self.hear() {
                Heard::Close(code, reason) => return (code, reason),
                Heard::End | Heard::Silence => panic!("the end came without a close frame"),
                _ => {}
            }
        }
    }

    /// Nothing has come and nothing comes for a moment: the connection is open and quiet.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.set_patience(Duration::from_millis(50));
        let heard = self.hear();
        self.set_patience(PATIENCE);
        heard == Heard::Silence
    }

    /// Raw bytes, past the frame layer.
    pub(crate) fn write_raw(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).expect("the connection takes it");
    }

    /// Closes in order, and waits for the answer.
    pub(crate) fn close(mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        self.socket.close(Some(frame)).expect("the connection takes it");
        while !matches!(self.hear(), Heard::End | Heard::Silence) {}
    }

    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.socket.get_mut().set_read_timeout(Some(patience)).expect("a timeout");
    }
}

/// A client's frame; its mask is of zeros, which leaves the payload as it is.
pub(crate) fn frame(finish: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126);
    let mut bytes = vec![u8::from(finish) << 7 | opcode, 0x80 | length.expect("a short frame")];
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Upgrades; gives the socket and the response, or the response that refused.
pub(crate) fn upgrade(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(WebSocket<TcpStream>, Response), Box<Response>> {
    let mut request = format!("ws://{address}{path}").into_client_request().expect("a request");
    for (name, value) in headers {
        let name: HeaderName = name.parse().expect("a header's name");
        request.headers_mut().append(name, HeaderValue::from_str(value).expect("its value"));
    }
    match tungstenite::client(request, stream(address)) {
        Ok(opened) => Ok(opened),
        Err(HandshakeError::Failure(Error::Http(response))) => Err(response),
        Err(error) => panic!("the handshake failed: {error}"),
    }
}

pub(crate) fn stream(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// A connection on which HTTP is spoken by hand.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    pub(crate) heard: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self { stream: stream(address), heard: Vec::new() }
    }

    /// The same where the server may be short of everything.
    pub(crate) fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        Some(Self { stream, heard: Vec::new() })
    }

    pub(crate) fn try_write(&mut self, bytes: &[u8]) {
        // Whoever is gone does not take it.
        let _ = self.stream.write_all(bytes);
    }

    /// Ends it by a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("an option");
    }

    pub(crate) fn get(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: dunlin\r\n\r\n");
        self.stream.write_all(request.as_bytes()).expect("the connection takes it");
    }

    pub(crate) fn ask_upgrade(&mut self, path: &str) {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: dunlin\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes()).expect("the connection takes it");
    }

    /// The rest of an upgrade whose first line was sent.
    pub(crate) fn ask_upgrade_rest(&mut self) {
        self.write(
            "Host: dunlin\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
    }

    /// Status, head and body of the next response.
    pub(crate) fn hear(&mut self) -> (u16, String, String) {
        let end = self.read_until(|heard| find(heard, b"\r\n\r\n").map(|end| end + 4));
        let head = String::from_utf8(self.heard.drain(..end).collect()).expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let length = head.to_ascii_lowercase().lines().find_map(|line| {
            line.strip_prefix("content-length: ").map(|length| length.parse().expect("a length"))
        });
        let length = length.unwrap_or(0);
        self.read_until(|heard| (heard.len() >= length).then_some(length));
        let body = String::from_utf8_lossy(&self.heard[..length]).into_owned();
        self.heard.drain(..length);
        (status, head, body)
    }

    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the connection takes it");
    }

    /// The next so many bytes.
    pub(crate) fn take(&mut self, length: usize) -> Vec<u8> {
        self.read_until(|heard| (heard.len() >= length).then_some(length));
        self.heard.drain(..length).collect()
    }

    /// Whether the server ends the connection, and says nothing more before.
    pub(crate) fn is_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty() && self.heard.is_empty(),
            // An end, too: what this side sent last was not read.
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// The WebSocket that an upgrade has made of it.
    pub(crate) fn into_client(self) -> Client {
        assert!(self.heard.is_empty(), "nothing comes before the client has spoken");
        Client::over(WebSocket::from_raw_socket(self.stream, Role::Client, None))
    }

    fn read_until(&mut self, so: impl Fn(&[u8]) -> Option<usize>) -> usize {
        let began = Instant::now();
        loop {
            if let Some(found) = so(&self.heard) {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "no response");
            let mut piece = [0; 65_536];
            let length = self.stream.read(&mut piece).expect("a response in time");
            assert!(length > 0, "the end came in the middle of a response");
            self.heard.extend(&piece[..length]);
        }
    }
}

fn find(heard: &[u8], what: &[u8]) -> Option<usize> {
    heard.windows(what.len()).position(|window| window == what)
}

fn would_block(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
