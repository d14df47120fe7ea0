//! HTTP by hand: bytes out, an answer in, with a deadline.

use super::wait;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Http {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, wait::DEADLINE).expect("a connection");
        stream.set_read_timeout(Some(wait::DEADLINE)).expect("a socket option");
        stream.set_write_timeout(Some(wait::DEADLINE)).expect("a socket option");
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes; a peer that has hung up is seen by the reads.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.get_mut().write_all(bytes.as_ref());
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Answer {
        self.send(bytes);
        self.answer()
    }

    /// Reads an answer by its `Content-Length`.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let length =
            answer.header("content-length").map_or(0, |text| text.parse().expect("a length"));
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("the body");
        answer.body = String::from_utf8(body).expect("UTF-8");
        answer
    }

    /// Reads an answer up to its body.
    pub(crate) fn head(&mut self) -> Answer {
        let first = self.line();
        let mut words = first.split(' ');
        assert_eq!(words.next(), Some("HTTP/1.1"), "{first:?}");
        let status = words.next().and_then(|word| word.parse().ok()).expect("a status");
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').expect("a header");
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Answer { status, headers, body: String::new() }
    }

    /// All that comes to the end of the connection.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("neither an answer nor the end: {error}"),
        }
        String::from_utf8(rest).expect("UTF-8")
    }

    /// Ends this side's half: nothing more will be sent.
    pub(crate) fn end_output(&mut self) {
        self.stream.get_ref().shutdown(Shutdown::Write).expect("an open connection");
    }

    /// Whether the server hangs up, with an answer that is an error or with none.
    pub(crate) fn is_refused(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {
                rest.is_empty()
                    || rest.starts_with(b"HTTP/1.1 4")
                    || rest.starts_with(b"HTTP/1.1 5")
            }
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Whether the server has ended the connection, without another byte.
    pub(crate) fn is_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            // An end too: there may have been bytes of ours that nobody read.
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// So many bytes; none if the connection ends before.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line of an answer");
        assert!(line.ends_with("\r\n"), "an answer that is cut: {line:?}");
        line.trim_end().to_owned()
    }
}

impl Answer {
    /// The body, which must be JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

/// `GET` on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    Http::connect(address).ask(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}
