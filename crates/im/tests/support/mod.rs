//! A server of one process in a test's hand: the application, a fake worker, and what was said.

pub(crate) mod tokens;
pub(crate) mod town;

use dunlin_im::{IM_KEYS, ImApp};
use dunlin_server::config::SERVER_KEYS;
use dunlin_server::settings::{Layers, Settings};
use dunlin_server::simulation::{Deed, FakeWorker};
use dunlin_server::{App, Closed, ClosedBy, ConnId, Message};
use serde_json::{Value, json};

/// Settings as flags give them.
pub(crate) fn settings(words: &[(&'static str, &str)]) -> Settings {
    let mut layers = Layers::default();
    for (key, word) in words {
        layers.flag_words(key, word, "--set");
    }
    Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers).expect("the settings are well formed")
}

/// The same with small tables, since a test's memory is never given back.
pub(crate) fn small_settings(words: &[(&'static str, &str)]) -> Settings {
    let small = [("table.watches", "256"), ("table.last_seen", "64"), ("table.rooms", "64")];
    let small = small.into_iter().filter(|(key, _)| words.iter().all(|(known, _)| known != key));
    settings(&small.chain(words.iter().copied()).collect::<Vec<_>>())
}

/// An application and the worker that runs its hooks.
pub(crate) struct House {
    pub(crate) app: ImApp,
    pub(crate) worker: FakeWorker,
}

/// What one message led to.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Responses to the connection that spoke.
    pub(crate) answers: Vec<Value>,
    /// Notifications, and to whom.
    pub(crate) told: Vec<(ConnId, Value)>,
    /// Connections closed, with their codes.
    pub(crate) closed: Vec<(ConnId, u16)>,
}

impl House {
    pub(crate) fn new(words: &[(&'static str, &str)], capacity: u32) -> Self {
        let size = capacity.to_string();
        let mut words = words.to_vec();
        words.push(("table.max_sessions", &size));
        Self::of(ImApp::new(&small_settings(&words)).expect("the settings go together"), capacity)
    }

    /// The same with an application that is made.
    pub(crate) fn of(mut app: ImApp, capacity: u32) -> Self {
        let worker = FakeWorker::start(&mut app, capacity);
        Self { app, worker }
    }

    /// A new connection; its hello is thrown away.
    pub(crate) fn open(&mut self) -> ConnId {
        let conn = self.worker.open(&mut self.app, "192.0.2.7:4711".parse().unwrap(), "/ws");
        self.worker.take_deeds();
        conn
    }

    /// A new connection that is logged in.
    pub(crate) fn login(&mut self, user: &str, device: &str) -> ConnId {
        let conn = self.open();
        let params = json!({"user": user, "device": {"id": device, "model": "M", "kind": "k"}});
        let result = self.call(conn, "login", params);
        assert!(result["result"].is_object(), "{result}");
        conn
    }

    /// A request and its answer, which must be the only one.
    pub(crate) fn call(&mut self, conn: ConnId, method: &str, params: Value) -> Value {
        let mut said = self.say(conn, &request(method, params));
        assert_eq!(said.answers.len(), 1, "{said:?}");
        said.answers.remove(0)
    }

    /// The error of a request: code and reason.
    pub(crate) fn fail(&mut self, conn: ConnId, method: &str, params: Value) -> (i64, String) {
        let answer = self.call(conn, method, params);
        let error = &answer["error"];
        let reason = error["data"]["reason"].as_str().unwrap_or_else(|| panic!("{answer}"));
        (error["code"].as_i64().expect("a code is a number"), reason.to_owned())
    }

    /// Everything a text leads to.
    pub(crate) fn say(&mut self, conn: ConnId, text: &str) -> Said {
        self.worker.touch(conn);
        self.app.message(&mut self.worker.context(), conn, Message::Text(text));
        self.heard(conn)
    }

    /// What was done since the last time, seen from a connection.
    pub(crate) fn heard(&mut self, conn: ConnId) -> Said {
        let mut said = Said::default();
        for deed in self.worker.take_deeds() {
            match deed {
                Deed::Push { conn: to, payload, .. } => {
                    let value: Value = serde_json::from_slice(&payload).expect("we send JSON");
                    assert_eq!(value["jsonrpc"], "2.0");
                    if value.get("method").is_some() {
                        said.told.push((to, value));
                    } else {
                        assert_eq!(to, conn, "an answer goes to who asked");
                        said.answers.push(value);
                    }
                }
                Deed::Disconnect { conn, code, .. } => said.closed.push((conn, code)),
                other => panic!("the application has no business with {other:?}"),
            }
        }
        said
    }

    /// The transport of a connection is gone.
    pub(crate) fn drop_connection(&mut self, conn: ConnId) {
        let closed = Closed { code: 1006, reason: String::new(), by: ClosedBy::Client };
        self.worker.end(&mut self.app, conn, &closed);
    }
}

/// The text of a request with id 1.
pub(crate) fn request(method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}
