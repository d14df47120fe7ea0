//! One request to the backend: HTTP, signed, bounded in time and in what is read. Blocks: for task
//! processes.
//!
//! Knows no event. Invariants: 1. No answer is read beyond [`ANSWER_MAX_BYTES`]. 2. No redirect is
//! followed and no proxy asked: what is signed for one address goes to no other. 3. A call takes no longer
//! than the timeout.

use super::config::Target;
use super::signature::{SEQUENCE_HEADER, SIGNATURE_HEADER, SigningKey, TIMESTAMP_HEADER};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// Most bytes of an answer that are read.
pub(crate) const ANSWER_MAX_BYTES: u64 = 64 << 10;
/// Most bytes of an answer's head.
const HEAD_MAX_BYTES: usize = 16 << 10;
/// How long a connection that is not used is kept.
const IDLE: Duration = Duration::from_secs(30);

/// Where systems keep the roots they trust: Debian and Alpine; Fedora; openSUSE; BSD-like.
const ROOT_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// It was taken (2xx), with this body.
    Taken(Vec<u8>),
    /// The backend does not want it, and will not later (4xx but 408 and 429).
    Unwanted(u16),
    /// It may be tried again.
    Failed(Failure),
}

/// Why a request has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// Another status.
    Status(u16),
    /// Not in time.
    TimedOut,
    /// No connection.
    Unreachable,
    /// There is no such host.
    NoSuchHost,
    /// TLS was not agreed on: a certificate, or roots that are not there.
    Tls,
    /// The connection ended, or what came is no HTTP.
    Broken,
    /// What came is longer than is read.
    TooLong,
}

impl Failure {
    /// As one word, for shared memory; never 0.
    pub(crate) fn to_word(self) -> u64 {
        match self {
            Self::Status(status) => 1 << 16 | u64::from(status),
            Self::TimedOut => 2 << 16,
            Self::Unreachable => 3 << 16,
            Self::NoSuchHost => 4 << 16,
            Self::Tls => 5 << 16,
            Self::Broken => 6 << 16,
            Self::TooLong => 7 << 16,
        }
    }

    /// The sentence for a word that [`Failure::to_word`] gave; `None` for another.
    pub(crate) fn text(word: u64) -> Option<String> {
        let text = match word >> 16 {
            1 => return Some(format!("the backend answered with status {}", word & 0xffff)),
            2 => "the backend did not answer in time",
            3 => "no connection to the backend",
            4 => "there is no such host as backend.url names",
            5 => "no TLS with the backend: its certificate is not trusted, or no roots were found",
            6 => "the backend ended the connection, or speaks no HTTP",
            7 => "the backend's answer is too long",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// Calls one backend, over connections that it keeps.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
    key: SigningKey,
}

impl Client {
    pub(crate) fn new(target: &Target, key: SigningKey, timeout_ms: u64) -> Self {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("dunlin/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(Duration::from_millis(timeout_ms)))
            .max_response_header_size(HEAD_MAX_BYTES)
            .max_idle_connections(2)
            .max_idle_age(IDLE);
        if target.url.starts_with("https:") {
            config = config.tls_config(tls(target.roots.as_deref()));
        }
        Self { agent: config.build().new_agent(), url: target.url.clone(), key }
    }

    /// Sends a body, and waits for the answer. `seq`: its number, if it has one.
    pub(crate) fn post(&self, seq: Option<u64>, unix_ms: u64, body: &[u8]) -> Answer {
        let timestamp = unix_ms / 1_000;
        let mut request = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/json")
            .header(TIMESTAMP_HEADER, timestamp.to_string())
            .header(SIGNATURE_HEADER, self.key.sign(timestamp, body));
        if let Some(seq) = seq {
            request = request.header(SEQUENCE_HEADER, seq.to_string());
        }
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error) => return Answer::Failed(failure(&error)),
        };
        match response.status().as_u16() {
            // The whole answer is read, also where nobody wants it, so that the connection can be kept.
            200..=299 => read(response.body_mut().as_reader()),
            status @ (408 | 429) => Answer::Failed(Failure::Status(status)),
            status @ 400..=499 => Answer::Unwanted(status),
            status => Answer::Failed(Failure::Status(status)),
        }
    }
}

fn read(reader: impl Read) -> Answer {
    let mut bytes = Vec::new();
    match reader.take(ANSWER_MAX_BYTES + 1).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() as u64 > ANSWER_MAX_BYTES => Answer::Failed(Failure::TooLong),
        Ok(_) => Answer::Taken(bytes),
        Err(error) => Answer::Failed(failure(&ureq::Error::from(error))),
    }
}

fn failure(error: &ureq::Error) -> Failure {
    match error {
        ureq::Error::Timeout(_) => Failure::TimedOut,
        ureq::Error::HostNotFound => Failure::NoSuchHost,
        ureq::Error::ConnectionFailed => Failure::Unreachable,
        ureq::Error::Tls(_) | ureq::Error::Pem(_) | ureq::Error::Rustls(_) => Failure::Tls,
        ureq::Error::LargeResponseHeader(..) => Failure::TooLong,
        ureq::Error::Io(error) => match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Failure::TimedOut,
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable => Failure::Unreachable,
            // What rustls has to say of a certificate comes as such.
            io::ErrorKind::InvalidData => Failure::Tls,
            _ => Failure::Broken,
        },
        _ => Failure::Broken,
    }
}

fn tls(roots: Option<&Path>) -> TlsConfig {
    let known = || ROOT_FILES.iter().map(PathBuf::from).find(|file| file.exists());
    let file = roots.map(Path::to_owned).or_else(known);
    let pem = file.and_then(|file| fs::read(file).ok()).unwrap_or_default();
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        tracing::error!("no roots to trust an https backend by: name a file by backend.ca_file");
    }
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(RootCerts::new_with_certs(&certificates))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_a_word_and_a_sentence() {
        let all = [
            Failure::Status(503),
            Failure::TimedOut,
            Failure::Unreachable,
            Failure::NoSuchHost,
            Failure::Tls,
            Failure::Broken,
            Failure::TooLong,
        ];
        let sentences: std::collections::HashSet<String> =
            all.iter().map(|failure| Failure::text(failure.to_word()).unwrap()).collect();
        assert_eq!(sentences.len(), all.len());
        assert!(Failure::text(Failure::Status(503).to_word()).unwrap().contains("503"));
        assert_eq!((Failure::text(0), Failure::text(u64::MAX)), (None, None));
    }
}
