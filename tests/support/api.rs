//! A caller of the server's HTTP API.

use super::Server;
use super::http::{Answer, Http};
use serde_json::Value as Json;
use std::fs;
use std::net::SocketAddr;

/// Where the API is and what opens it.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    address: SocketAddr,
    key: String,
}

impl Api {
    /// With the key in the run directory of a server.
    pub(crate) fn of(server: &Server) -> Self {
        let key = fs::read_to_string(server.run_dir().join("api.key")).expect("the key's file");
        Self::new(server.address, key.trim_end())
    }

    pub(crate) fn new(address: SocketAddr, key: &str) -> Self {
        Self { address, key: key.to_owned() }
    }

    /// The same at another address.
    pub(crate) fn at(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }

    /// `GET`, on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "")
    }

    /// `POST` of JSON, on a connection of its own.
    pub(crate) fn post(&self, path: &str, body: &Json) -> Answer {
        self.ask("POST", path, "Content-Type: application/json\r\n", &body.to_string())
    }

    /// Any request; `headers` are whole lines.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let Self { address, key } = self;
        Http::connect(*address).ask(format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\
             Content-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        ))
    }

    /// The body of an answer that must be a success.
    pub(crate) fn read(&self, path: &str) -> Json {
        success(&self.get(path))
    }

    /// The same for a `POST`.
    pub(crate) fn tell(&self, path: &str, body: &Json) -> Json {
        success(&self.post(path, body))
    }
}

fn success(answer: &Answer) -> Json {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}
