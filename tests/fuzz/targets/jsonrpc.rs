//! The IM protocol: texts of two users, one a line (a line that begins with `!` is the second user's). Every
//! request gets one answer, a notification none, and everything that is said is JSON-RPC.
#![no_main]

use std::cell::RefCell;

use dunlin_im::{
    IM_KEYS, ImApp,
    auth::TOKEN_MAX,
    protocol::{decode, params},
};
use dunlin_server::{
    App, Closed, ClosedBy, ConnId, Message,
    config::SERVER_KEYS,
    settings::{Layers, Settings},
    simulation::{Deed, FakeWorker},
};
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// Most texts of one input.
const TEXTS_MAX: usize = 24;
/// Small, so that inputs of a fuzzer reach it.
const BODY_MAX: usize = 64;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    thread_local!(static HOUSE: RefCell<House> = RefCell::new(House::new()));
    HOUSE.with_borrow_mut(|house| house.live(text));
});

/// The application, made once: a fake worker's memory is never given back.
struct House {
    app: ImApp,
    worker: FakeWorker,
}

impl House {
    fn new() -> Self {
        let mut layers = Layers::default();
        layers.flag_words("table.max_sessions", "8", "--set");
        layers.flag_words("im.max_body", &BODY_MAX.to_string(), "--set");
        let settings = Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers).expect("right settings");
        let mut app = ImApp::new(&settings).expect("they go together");
        let worker = FakeWorker::start(&mut app, 8);
        Self { app, worker }
    }

    /// Two connections, of which the first is logged in, and what they say.
    fn live(&mut self, text: &str) {
        let peer = "192.0.2.7:4711".parse().expect("an address");
        let mut open = [0, 1].map(|_| Some(self.worker.open(&mut self.app, peer, "/ws")));
        let all = open;
        self.worker.take_deeds();
        let login = r#"{"id":1,"method":"login","params":{"user":"ann","device":{"id":"d"}}}"#;
        self.say(&mut open, 0, login);
        for text in text.split('\n').take(TEXTS_MAX) {
            self.worker.pass(1);
            match text.strip_prefix('!') {
                Some(text) => self.say(&mut open, 1, text),
                None => self.say(&mut open, 0, text),
            }
        }
        let closed = Closed { code: 1006, reason: String::new(), by: ClosedBy::Client };
        for conn in all.into_iter().flatten() {
            self.worker.end(&mut self.app, conn, &closed);
        }
    }

    /// One text of a connection, unless it was closed before.
    fn say(&mut self, open: &mut [Option<ConnId>; 2], who: usize, text: &str) {
        let Some(conn) = open[who] else { return };
        let expected = read(text);
        self.worker.touch(conn);
        self.app.message(&mut self.worker.context(), conn, Message::Text(text));
        let mut answers = 0;
        for deed in self.worker.take_deeds() {
            match deed {
                Deed::Push { conn: to, payload, .. } => {
                    let said = Said::read(&payload);
                    if said.method.is_none() {
                        assert_eq!(to, conn, "an answer goes to who asked");
                        assert_eq!(
                            said.id.map_or("null", RawValue::get),
                            expected.as_deref().unwrap_or("?")
                        );
                        answers += 1;
                    }
                }
                Deed::Disconnect { conn, .. } => {
                    open.iter_mut()
                        .filter(|open| **open == Some(conn))
                        .for_each(|open| *open = None);
                }
                other => panic!("the application has no business with {other:?}"),
            }
        }
        assert_eq!(answers, usize::from(expected.is_some()), "answers to {text:?}");
    }
}

/// The id that the answer to a text must have; `None` if it must have none.
fn read(text: &str) -> Option<String> {
    match decode(text) {
        Err(refused) => {
            Some(refused.id.map_or_else(|| "null".to_owned(), |id| id.as_json().to_owned()))
        }
        Ok(call) => {
            read_params(call.params);
            call.id.map(|id| id.as_json().to_owned())
        }
    }
}

/// What the parameters of any method would be, whichever was called.
fn read_params(given: Option<&RawValue>) {
    let _ = params::read_none(given);
    let _ = params::Kick::read(given);
    let _ = params::Login::read(given);
    let _ = params::TokenLogin::read(given);
    if let Ok(refresh) = params::Refresh::read(given) {
        assert!(refresh.token.0.len() <= TOKEN_MAX);
    }
    if let Ok(send) = params::Send::read(given, BODY_MAX) {
        assert!(send.body.get().len() <= BODY_MAX);
        assert!(send.key.is_none_or(|key| (1..=params::KEY_MAX).contains(&key.len())));
    }
    if let Ok(presence) = params::Presence::read(given) {
        assert!(presence.users.len() <= params::PRESENCE_USERS_MAX);
    }
}

/// What the server says, one level deep and as it was written.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    jsonrpc: String,
}

#[derive(Deserialize)]
struct CallError {
    code: i32,
    message: String,
}

impl<'a> Said<'a> {
    fn read(payload: &'a [u8]) -> Self {
        let said: Self = serde_json::from_slice(payload)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(payload)));
        assert_eq!(said.jsonrpc, "2.0");
        // Numbers that no reader holds are given on as they came.
        if let Err(error) = serde_json::from_slice::<Value>(payload) {
            assert!(error.to_string().starts_with("number out of range"), "{error}");
        }
        match said.method {
            Some(_) => assert!(said.params.is_some() && said.id.is_none()),
            None => assert_ne!(said.result.is_some(), said.error.is_some()),
        }
        if let Some(error) = said.error {
            let error: CallError = serde_json::from_str(error.get()).expect("code and message");
            assert_ne!(error.code, -32603, "an internal error: {}", error.message);
        }
        said
    }
}
