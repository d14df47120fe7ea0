//! The owner's backend, as a test has it: a small HTTP server that writes down what it is told, and answers
//! as it is asked to.

use super::wait;
use serde_json::Value as Json;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// By their names in small letters.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Told {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.body).expect("a body of JSON")
    }

    pub(crate) fn event(&self) -> String {
        self.json()["event"].as_str().expect("every event has a name").to_owned()
    }

    pub(crate) fn seq(&self) -> u64 {
        let seq = self.json()["seq"].as_u64().expect("every event has a number");
        assert_eq!(self.headers["dunlin-sequence"], seq.to_string());
        seq
    }
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// With this status and body.
    Answer(u16, String),
    /// As the function says, for the body.
    Decide(fn(&Json) -> String),
    /// Never.
    Hang,
    /// By ending the connection.
    HangUp,
    /// With these bytes, whatever they are.
    Raw(Vec<u8>),
}

impl Manner {
    pub(crate) fn take() -> Self {
        Self::Answer(200, String::new())
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    manner: Manner,
    told: Vec<Told>,
}

impl Backend {
    /// One that takes everything.
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"))
    }

    /// The same at an address where one was before.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let state = State { manner: Manner::take(), told: Vec::new() };
        let backend = Self { address, state: Arc::new(Mutex::new(state)) };
        let shared = backend.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                thread::spawn(move || while shared.serve(&stream).is_some() {});
            }
        });
        backend
    }

    /// The place of one that is not there.
    pub(crate) fn absent() -> Self {
        let place = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = place.local_addr().expect("an address");
        let state = State { manner: Manner::take(), told: Vec::new() };
        Self { address, state: Arc::new(Mutex::new(state)) }
    }

    /// From now on.
    pub(crate) fn behave(&self, manner: Manner) {
        self.state.lock().expect("no test panics here").manner = manner;
    }

    /// The config that names it, with the secret in `hush.key` of the server's folder.
    pub(crate) fn config(&self, more: &str) -> String {
        format!(
            "[backend]\nurl = \"http://{}/told?by=dunlin\"\nsecret_file = \"hush.key\"\n{more}\n",
            self.address
        )
    }

    /// All it was told so far, whatever it answered.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.state.lock().expect("no test panics here").told.clone()
    }

    pub(crate) fn told_of(&self, event: &str) -> Vec<Json> {
        let told = self.told().into_iter().filter(|told| told.event() == event);
        told.map(|told| told.json()).collect()
    }

    /// The first event of this name and user; waits for it.
    pub(crate) fn wait_for(&self, event: &str, user: &str) -> Json {
        wait::for_some(&format!("{event} of {user}"), || {
            self.told_of(event).into_iter().find(|told| told["user"] == user)
        })
    }

    /// Waits for a `boot` of this reason that is told to its end; gives who is online by it.
    pub(crate) fn wait_for_boot(&self, reason: &str) -> Vec<String> {
        wait::for_some(&format!("a boot by {reason}"), || {
            let boots = self.told_of("boot");
            let last =
                boots.iter().rfind(|boot| boot["reason"] == reason && boot["more"] == false)?;
            let pages = boots.iter().filter(|page| page["boot"] == last["boot"]);
            let online =
                pages.flat_map(|page| page["online"].as_array().cloned().unwrap_or_default());
            Some(online.map(|one| one["user"].as_str().expect("a user").to_owned()).collect())
        })
    }

    /// One request of a connection; none when it ends.
    fn serve(&self, mut stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        assert_eq!(line, "POST /told?by=dunlin HTTP/1.1\r\n");
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        let body = String::from_utf8(body).expect("a body of text");
        let told = Told { headers, body };
        let json = told.json();
        let manner = {
            let mut state = self.state.lock().expect("no test panics here");
            state.told.push(told);
            state.manner.clone()
        };
        match manner {
            Manner::Answer(status, body) => answer(stream, status, &body),
            Manner::Decide(decide) => answer(stream, 200, &decide(&json)),
            Manner::Hang => {
                // Until the other side has had enough.
                let _ = stream.read(&mut [0]);
                None
            }
            Manner::HangUp => None,
            Manner::Raw(bytes) => {
                let _ = stream.write_all(&bytes);
                None
            }
        }
    }
}

fn answer(mut stream: &TcpStream, status: u16, body: &str) -> Option<()> {
    let head = format!("HTTP/1.1 {status} As Asked\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).ok()
}
