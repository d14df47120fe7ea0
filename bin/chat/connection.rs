//! The socket: opened in a thread of its own, since names, TLS and the upgrade block, and then read and
//! written without ever blocking.
//!
//! Knows nothing of what is said on it. Invariant: an opening thread ends by itself, each of its waits
//! being bounded by [`STEP_TIMEOUT`].

use super::news::OpenFailure;
use super::place::Place;
use super::policy::NO_CLOSE_FRAME;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

/// A connect, a read or a write while opening.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that are read in a turn, so that keys are served meanwhile.
const READS_A_TURN: usize = 64;
/// How long the close frame may take to leave.
const LAST_WORD: Duration = Duration::from_millis(200);

/// What came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    Text(String),
    /// A ping, a pong, or what we do not understand.
    Something,
    Closed {
        code: u16,
        reason: String,
    },
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: WebSocket<Stream>,
    /// Output waits for the socket.
    unflushed: bool,
}

/// A connection that is being opened.
#[derive(Debug)]
pub(crate) struct Opening(Receiver<Result<Connection, OpenFailure>>);

impl Opening {
    /// Begins; `wake` becomes readable when there is an outcome.
    pub(crate) fn begin(place: &Place, wake: &UnixStream) -> io::Result<Self> {
        let (tell, told) = mpsc::channel();
        let mut wake = wake.try_clone()?;
        let place = place.clone();
        thread::Builder::new().name("open".to_owned()).spawn(move || {
            // Nobody listens where the attempt was given up.
            let _ = tell.send(open(&place));
            let _ = wake.write(&[0]);
        })?;
        Ok(Self(told))
    }

    /// The outcome, if there is one.
    pub(crate) fn outcome(&self) -> Option<Result<Connection, OpenFailure>> {
        self.0.try_recv().ok()
    }
}

impl Connection {
    /// What came, as much as a turn takes. It is to be called again at once if [`may_have_more`].
    pub(crate) fn read(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        while heard.len() < READS_A_TURN {
            match self.socket.read() {
                Ok(Message::Text(text)) => heard.push(Heard::Text(text.as_str().to_owned())),
                Ok(Message::Close(frame)) => {
                    let said = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                    let (code, reason) = said.unwrap_or((1005, String::new()));
                    let _ = self.socket.flush();
                    heard.push(Heard::Closed { code, reason });
                    break;
                }
                Ok(_) => heard.push(Heard::Something),
                Err(Error::Io(error)) if is_not_yet(&error) => break,
                Err(_) => {
                    heard.push(Heard::Closed { code: NO_CLOSE_FRAME, reason: String::new() });
                    break;
                }
            }
        }
        // An answer to a ping may wait.
        self.flush();
        heard
    }

    /// Queues a text and sends what goes. A connection that is broken says so when it is read.
    pub(crate) fn send(&mut self, text: String) {
        let _ = self.socket.write(Message::text(text));
        self.flush();
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) {
        let outcome = self.socket.flush();
        self.unflushed = matches!(outcome, Err(Error::Io(error)) if is_not_yet(&error));
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.unflushed
    }

    /// Says goodbye, for as long as that may take.
    pub(crate) fn close(mut self) {
        let stream = self.socket.get_ref().tcp();
        let bounded =
            stream.set_nonblocking(false).and_then(|()| stream.set_write_timeout(Some(LAST_WORD)));
        if bounded.is_ok() {
            let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            let _ = self.socket.close(Some(frame));
            let _ = self.socket.flush();
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().tcp().as_fd()
    }
}

/// Whether a turn may have left something that no socket tells of.
pub(crate) fn may_have_more(heard: &[Heard]) -> bool {
    heard.len() >= READS_A_TURN
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(from),
            Self::Tls(stream) => stream.write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Everything up to the end of the upgrade; blocks.
fn open(place: &Place) -> Result<Connection, OpenFailure> {
    let stream = connect(place)?;
    let stream = if place.tls { secure(place, stream)? } else { Stream::Plain(stream) };
    let (socket, _) = tungstenite::client(place.url.as_str(), stream)
        .map_err(|error| upgrade_failure(place, error))?;
    let unusable = |error: io::Error| no_server(place, &error);
    socket.get_ref().tcp().set_nonblocking(true).map_err(unusable)?;
    Ok(Connection { socket, unflushed: false })
}

fn connect(place: &Place) -> Result<TcpStream, OpenFailure> {
    let found = (place.host.as_str(), place.port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = found.map_err(|error| no_server(place, &error))?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, STEP_TIMEOUT) {
            Ok(stream) => {
                let set = stream
                    .set_nodelay(true)
                    .and_then(|()| stream.set_read_timeout(Some(STEP_TIMEOUT)))
                    .and_then(|()| stream.set_write_timeout(Some(STEP_TIMEOUT)));
                return set.map(|()| stream).map_err(|error| no_server(place, &error));
            }
            Err(error) => last = error,
        }
    }
    Err(no_server(place, &last))
}

/// TLS by the roots this system trusts (`SSL_CERT_FILE` names others).
fn secure(place: &Place, mut stream: TcpStream) -> Result<Stream, OpenFailure> {
    let failed = |why: String| OpenFailure::Tls { place: place.to_string(), why };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let why = "this system has no certificates to trust: install ca-certificates, or name a \
                   file in SSL_CERT_FILE";
        return Err(failed(why.to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(place.host.clone());
    let name = name.map_err(|error| failed(error.to_string()))?;
    let mut tls =
        ClientConnection::new(Arc::new(config), name).map_err(|error| failed(error.to_string()))?;
    while tls.is_handshaking() {
        match tls.complete_io(&mut stream) {
            Ok((0, 0)) => return Err(failed("the connection ended".to_owned())),
            Ok(_) => {}
            Err(error) if is_not_yet(&error) => return Err(OpenFailure::TimedOut),
            Err(error) => return Err(failed(in_words_of_tls(&error, &place.host))),
        }
    }
    Ok(Stream::Tls(Box::new(StreamOwned::new(tls, stream))))
}

/// Why there is no TLS, so that somebody can do something about it.
fn in_words_of_tls(error: &io::Error, host: &str) -> String {
    use CertificateError as Bad;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let bad = match inner {
        Some(rustls::Error::InvalidCertificate(bad)) => bad,
        Some(rustls::Error::InvalidMessage(_)) => {
            return "it does not speak TLS: is it a ws:// address?".to_owned();
        }
        _ => return in_words(error),
    };
    match bad {
        Bad::UnknownIssuer => {
            "its certificate is of nobody this system trusts; SSL_CERT_FILE=FILE \
                               trusts the authorities of a file"
                .to_owned()
        }
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            format!("its certificate is not for {host}")
        }
        Bad::Expired | Bad::ExpiredContext { .. } => "its certificate has expired".to_owned(),
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            "its certificate is not valid yet: is the clock right?".to_owned()
        }
        // What `openssl req -x509` makes, and browsers take.
        Bad::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "its certificate is an authority's own: make one with basicConstraints CA:FALSE"
                .to_owned()
        }
        bad => format!("its certificate is refused: {bad}"),
    }
}

fn no_server(place: &Place, error: &io::Error) -> OpenFailure {
    if error.kind() == io::ErrorKind::TimedOut {
        return OpenFailure::TimedOut;
    }
    OpenFailure::NoServer { place: place.to_string(), why: in_words(error) }
}

/// Without the number behind it.
fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn upgrade_failure(
    place: &Place,
    error: HandshakeError<tungstenite::ClientHandshake<Stream>>,
) -> OpenFailure {
    let error = match error {
        HandshakeError::Interrupted(_) => return OpenFailure::TimedOut,
        HandshakeError::Failure(error) => error,
    };
    match error {
        Error::Http(response) if response.status() == 503 => {
            let after = response.headers().get("retry-after");
            let seconds = after.and_then(|after| after.to_str().ok()?.parse().ok());
            OpenFailure::Full { retry_after_s: seconds }
        }
        Error::Http(response) => {
            OpenFailure::Http { place: place.to_string(), status: response.status().as_u16() }
        }
        Error::Io(error) if is_not_yet(&error) => OpenFailure::TimedOut,
        Error::Io(error) => no_server(place, &error),
        // So answers who speaks TLS and was spoken to without.
        Error::Protocol(ProtocolError::WrongHttpVersion) if !place.tls => {
            OpenFailure::NoWebSocket {
                place: place.to_string(),
                why: "it answers by HTTP/1.0: is it a wss:// address?".to_owned(),
            }
        }
        error => OpenFailure::NoWebSocket { place: place.to_string(), why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::OtherError;

    fn said(error: rustls::Error) -> String {
        in_words_of_tls(&io::Error::new(io::ErrorKind::InvalidData, error), "chat.example")
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_so_that_it_can_be_mended() {
        // As webpki says it; `tests/install/proxies` meets the others for real.
        let own = OtherError(Arc::new(io::Error::other("CaUsedAsEndEntity")));
        let refused = |bad| said(rustls::Error::InvalidCertificate(bad));
        assert!(refused(CertificateError::Other(own)).contains("CA:FALSE"));
        assert_eq!(refused(CertificateError::Expired), "its certificate has expired");
        assert!(refused(CertificateError::NotValidYet).contains("clock"));
        assert!(refused(CertificateError::Revoked).starts_with("its certificate is refused: "));
        assert!(refused(CertificateError::UnknownIssuer).contains("SSL_CERT_FILE"));
        assert!(refused(CertificateError::NotValidForName).ends_with("chat.example"));
    }

    #[test]
    fn other_ends_of_a_handshake_stay_what_they_are() {
        let reset = io::Error::from_raw_os_error(104);
        assert_eq!(in_words_of_tls(&reset, "chat.example"), "Connection reset by peer");
    }
}
