//! A client of the IM protocol that blocks, with a deadline on every read. On tungstenite.

use super::wait;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, WebSocket};

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    socket: WebSocket<Patient>,
    /// Notifications that came while something else was waited for.
    inbox: VecDeque<Json>,
    last_id: u64,
    /// The `params` of the greeting.
    pub(crate) hello: Json,
}

impl Client {
    /// Connects to `/ws` and reads the greeting.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|status| panic!("refused with HTTP {status}"))
    }

    /// The same; the status if the server refuses the upgrade.
    pub(crate) fn try_connect(address: SocketAddr) -> Result<Self, u16> {
        Self::try_connect_through(address, b"", &[])
    }

    /// The same as a proxy does it: bytes before the request, and lines of `X-Forwarded-For` in it.
    pub(crate) fn try_connect_through(
        address: SocketAddr,
        before: &[u8],
        forwarded_for: &[&str],
    ) -> Result<Self, u16> {
        let mut stream =
            TcpStream::connect_timeout(&address, wait::DEADLINE).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(wait::DEADLINE)).expect("a socket option");
        stream.set_write_timeout(Some(wait::DEADLINE)).expect("a socket option");
        stream.write_all(before).expect("an open connection");
        let mut request = format!("ws://{address}/ws").into_client_request().expect("a URL");
        for line in forwarded_for {
            request.headers_mut().append("X-Forwarded-For", line.parse().expect("a header"));
        }
        let socket = match tungstenite::client(request, Patient(stream)) {
            Ok((socket, _)) => socket,
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                return Err(response.status().as_u16());
            }
            Err(error) => panic!("the handshake failed: {error}"),
        };
        let inbox = VecDeque::new();
        let mut client = Self { socket, inbox, last_id: 0, hello: Json::Null };
        client.hello = client.notification("hello");
        Ok(client)
    }

    /// The same; none if the connection ends before the greeting, as where its worker is killed.
    pub(crate) fn connect_or_end(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, wait::DEADLINE).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(wait::DEADLINE)).ok()?;
        stream.set_write_timeout(Some(wait::DEADLINE)).ok()?;
        let (socket, _) =
            tungstenite::client(format!("ws://{address}/ws"), Patient(stream)).ok()?;
        let mut client = Self { socket, inbox: VecDeque::new(), last_id: 0, hello: Json::Null };
        let mut hello = client.object_or_end(Instant::now() + wait::DEADLINE)?;
        client.hello = hello["params"].take();
        Some(client)
    }

    /// Logs in, on a device named after the user.
    pub(crate) fn login(mut self, user: &str) -> Self {
        self.log_in(user, &format!("{user}-device"));
        self
    }

    pub(crate) fn log_in(&mut self, user: &str, device: &str) -> Json {
        self.result("login", json!({"user": user, "device": {"id": device}}))
    }

    /// Sends a request and waits for its response: the result, or the error.
    pub(crate) fn call(&mut self, method: &str, params: Json) -> Result<Json, Json> {
        self.last_id += 1;
        let id = json!(self.last_id);
        self.send_json(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        let mut response = self.response();
        assert_eq!(response["id"], id, "{response}");
        match response["error"].take() {
            Json::Null => Ok(response["result"].take()),
            error => Err(error),
        }
    }

    /// The result of a request that must succeed.
    pub(crate) fn result(&mut self, method: &str, params: Json) -> Json {
        let outcome = self.call(method, params);
        outcome.unwrap_or_else(|error| panic!("{method} failed: {error}"))
    }

    /// The error of a request that must fail: its code and its reason.
    pub(crate) fn error(&mut self, method: &str, params: Json) -> (i64, String) {
        let outcome = self.call(method, params);
        let error = outcome.expect_err("the request must fail");
        code_and_reason(&error)
    }

    /// Sends a text to a user; gives the result.
    pub(crate) fn send_to(&mut self, user: &str, body: &Json) -> Json {
        self.result("send", json!({"to": {"user": user}, "body": body}))
    }

    /// Whether a user is online, as this client is told.
    pub(crate) fn sees_online(&mut self, user: &str) -> bool {
        let users = self.result("presence", json!({"users": [user]}));
        users["users"][user]["online"].as_bool().expect("true or false")
    }

    /// Sends a text as it is and waits for the next response, whatever it answers.
    pub(crate) fn ask_raw(&mut self, text: &str) -> Json {
        self.send_text(text);
        self.response()
    }

    /// The next response; notifications before it are kept.
    pub(crate) fn response(&mut self) -> Json {
        let until = Instant::now() + wait::DEADLINE;
        loop {
            let object = self.read_object(until);
            if object.get("method").is_none() {
                return object;
            }
            self.inbox.push_back(object);
        }
    }

    /// The `params` of the next notification with this method; others are kept.
    pub(crate) fn notification(&mut self, method: &str) -> Json {
        if let Some(place) = self.inbox.iter().position(|kept| kept["method"] == method) {
            return self.inbox.remove(place).expect("it was found")["params"].take();
        }
        let until = Instant::now() + wait::DEADLINE;
        loop {
            let mut object = self.read_object(until);
            if object["method"] == method {
                return object["params"].take();
            }
            self.inbox.push_back(object);
        }
    }

    /// The next notification, whichever it is: its method and its `params`.
    pub(crate) fn next_notification(&mut self) -> (String, Json) {
        let until = Instant::now() + wait::DEADLINE;
        let kept = self.inbox.pop_front();
        let mut object = kept.unwrap_or_else(|| self.read_object(until));
        let method = object["method"].as_str().expect("nothing was asked for").to_owned();
        (method, object["params"].take())
    }

    /// The body of the next message.
    pub(crate) fn message_body(&mut self) -> Json {
        self.notification("message")["body"].take()
    }

    /// How many notifications came that nobody has asked for; a request goes first, so that all that was
    /// sent before its answer has come.
    pub(crate) fn unread(&mut self) -> usize {
        self.result("ping", json!({}));
        self.inbox.len()
    }

    /// Reads to the close by the server: its code, and the `bye` if there was one.
    pub(crate) fn expect_close(&mut self) -> (u16, Option<Json>) {
        let until = Instant::now() + wait::DEADLINE;
        loop {
            match self.read(until) {
                Ok(Message::Close(frame)) => {
                    let code = frame.map_or(1005, |frame| frame.code.into());
                    let place = self.inbox.iter().position(|kept| kept["method"] == "bye");
                    let bye = place.and_then(|place| self.inbox.remove(place));
                    // Lets tungstenite answer, so that the server sees a clean end.
                    let _ = self.socket.flush();
                    return (code, bye.map(|mut bye| bye["params"].take()));
                }
                Ok(Message::Text(text)) => {
                    self.inbox.push_back(serde_json::from_str(&text).expect("JSON"));
                }
                Ok(_) => {}
                Err(error) => panic!("the connection ended without a close frame: {error}"),
            }
        }
    }

    /// Reads to the close by the server as [`Self::expect_close`] does, and shows every other object.
    pub(crate) fn until_close(&mut self, mut each: impl FnMut(&Json)) -> (u16, Option<Json>) {
        let closed = self.expect_close();
        self.inbox.drain(..).for_each(|object| each(&object));
        closed
    }

    /// Whether the server has ended this connection, looking for a moment.
    pub(crate) fn is_open(&mut self) -> bool {
        self.call_or_end("ping", json!({})).is_some()
    }

    /// The outcome of a request; none if the connection ends before it comes.
    pub(crate) fn call_or_end(&mut self, method: &str, params: Json) -> Option<Json> {
        self.last_id += 1;
        let request = json!({"id": self.last_id, "method": method, "params": params});
        self.socket.send(Message::text(request.to_string())).ok()?;
        let until = Instant::now() + wait::DEADLINE;
        loop {
            let object = self.object_or_end(until)?;
            if object["id"] == self.last_id {
                return Some(object);
            }
            self.inbox.push_back(object);
        }
    }

    /// The body of the next message; none if the connection ends before.
    pub(crate) fn body_or_end(&mut self) -> Option<Json> {
        let until = Instant::now() + wait::DEADLINE;
        loop {
            if let Some(place) = self.inbox.iter().position(|kept| kept["method"] == "message") {
                let mut message = self.inbox.remove(place)?;
                return Some(message["params"]["body"].take());
            }
            let object = self.object_or_end(until)?;
            self.inbox.push_back(object);
        }
    }

    /// Sends a WebSocket ping and waits for its pong.
    pub(crate) fn ping_frame(&mut self) {
        self.socket.send(Message::Ping("life".into())).expect("a ping is sent");
        let until = Instant::now() + wait::DEADLINE;
        loop {
            match self.read(until).expect("a pong") {
                Message::Pong(_) => return,
                Message::Text(text) => {
                    self.inbox.push_back(serde_json::from_str(&text).expect("JSON"));
                }
                _ => {}
            }
        }
    }

    pub(crate) fn send_json(&mut self, object: &Json) {
        self.send_text(&object.to_string());
    }

    /// The same; false if the connection has ended.
    pub(crate) fn try_send_json(&mut self, object: &Json) -> bool {
        self.socket.send(Message::text(object.to_string())).is_ok()
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("a text is sent");
    }

    pub(crate) fn send_binary(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).expect("a binary message is sent");
    }

    /// One frame of a text message.
    pub(crate) fn send_fragment(&mut self, text: &str, first: bool, last: bool) {
        let data = if first { Data::Text } else { Data::Continue };
        let frame = Frame::message(text.as_bytes().to_vec(), OpCode::Data(data), last);
        self.socket.send(Message::Frame(frame)).expect("a frame is sent");
    }

    /// Bytes as they are, below the WebSocket.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).expect("bytes are sent");
    }

    /// Closes in good order and waits for the end.
    pub(crate) fn close(mut self) {
        self.socket.close(None).expect("a close is sent");
        let until = Instant::now() + wait::DEADLINE;
        while self.read(until).is_ok() {}
    }

    fn read_object(&mut self, until: Instant) -> Json {
        loop {
            match self.read(until).unwrap_or_else(|error| panic!("reading: {error}")) {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Close(frame) => panic!("closed by the server: {frame:?}"),
                _ => {}
            }
        }
    }

    fn object_or_end(&mut self, until: Instant) -> Option<Json> {
        loop {
            match self.read(until) {
                Ok(Message::Text(text)) => return serde_json::from_str(&text).expect("JSON"),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    fn read(&mut self, until: Instant) -> tungstenite::Result<Message> {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.get_ref().0.set_read_timeout(Some(left)).expect("a socket option");
        self.socket.read()
    }
}

/// A socket that goes on where a system call was interrupted, which tungstenite takes for an error.
/// Calls with a timeout are interrupted when the whole machine is frozen for a moment, too.
#[derive(Debug)]
struct Patient(TcpStream);

impl Read for Patient {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.read(into))
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// `code` and `data.reason` of an error.
pub(crate) fn code_and_reason(error: &Json) -> (i64, String) {
    let code = error["code"].as_i64().expect("a number");
    (code, error["data"]["reason"].as_str().unwrap_or_default().to_owned())
}
