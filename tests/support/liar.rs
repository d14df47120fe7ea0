//! A server that speaks just enough of the IM protocol to be loaded by `dunlin bench`, or repeats what
//! it hears, and that lies once, as it is told. Not dunlin: what is tested with it is who watches.

use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;
use tungstenite::{Message, WebSocket};

/// What it does once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lie {
    None,
    /// Takes a message and does not deliver it.
    Drop,
    /// Delivers one twice.
    Double,
    /// Delivers one behind the next of the same sender for the same recipient.
    Swap,
    /// Changes a byte of one.
    Damage,
    /// Ends a connection without a word.
    Close,
    /// Does not answer a request.
    Silent,
    /// Delivers one and says that nobody took it.
    Deny,
    /// Ends a connection before it is upgraded.
    Refuse,
}

/// What it does with what it hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Speech {
    /// Serves it, as the IM does.
    Im,
    /// Says it again to who said it.
    Echo,
    /// Says it again to everybody.
    Broadcast,
}

/// See the module. Its threads end with their connections, or with the test.
#[derive(Debug)]
pub(crate) struct Liar {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    speech: Speech,
    lie: Lie,
    /// Messages to be served before it lies.
    truths: u32,
    told: bool,
    accepted: u32,
    users: HashMap<String, Sender<String>>,
    /// A message that waits to be overtaken: sender, recipient, text.
    held: Option<(String, String, String)>,
    last_id: u64,
}

/// How often a connection's thread looks for what others have for it.
const LOOK_EVERY: Duration = Duration::from_millis(1);

impl Liar {
    pub(crate) fn start(lie: Lie) -> Self {
        Self::speaking(Speech::Im, lie)
    }

    pub(crate) fn speaking(speech: Speech, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let users = HashMap::new();
        let (held, last_id) = (None, 0);
        let truths = if speech == Speech::Im { 40 } else { 10 };
        let (told, accepted) = (false, 0);
        let state = State { speech, lie, truths, told, accepted, users, held, last_id };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                // What fails is a client that went away: nothing to tell.
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    /// Whether the time for the lie came.
    pub(crate) fn has_lied(&self) -> bool {
        lock(&self.state).told
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no thread panicked")
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> tungstenite::Result<()> {
    if lock(state).refuses() {
        return Ok(());
    }
    stream.set_nodelay(true)?;
    let Ok(mut socket) = tungstenite::accept(stream) else { return Ok(()) };
    socket.get_ref().set_read_timeout(Some(LOOK_EVERY))?;
    let (tell, told) = mpsc::channel();
    let mut user = String::new();
    if lock(state).speech == Speech::Im {
        socket.send(Message::text(r#"{"jsonrpc":"2.0","method":"hello","params":{}}"#))?;
    } else {
        user = format!("{:?}", socket.get_ref().peer_addr()?);
        lock(state).users.insert(user.clone(), tell.clone());
    }
    let outcome = talk(&mut socket, &mut user, &tell, &told, state);
    lock(state).users.remove(&user);
    outcome
}

fn talk(
    socket: &mut WebSocket<TcpStream>,
    user: &mut String,
    tell: &Sender<String>,
    told: &Receiver<String>,
    state: &Mutex<State>,
) -> tungstenite::Result<()> {
    loop {
        for text in told.try_iter() {
            socket.send(Message::text(text))?;
        }
        let text = match socket.read() {
            Ok(Message::Text(text)) => text,
            Ok(_) => continue,
            Err(tungstenite::Error::Io(error)) if is_timeout(&error) => continue,
            Err(error) => return Err(error),
        };
        if lock(state).speech != Speech::Im {
            if lock(state).repeat(user, &text) {
                return Ok(());
            }
            continue;
        }
        let request: Json = serde_json::from_str(&text).expect("JSON");
        let params = &request["params"];
        let result = match request["method"].as_str().expect("a method") {
            "login" => {
                params["user"].as_str().expect("a user").clone_into(user);
                lock(state).users.insert(user.clone(), tell.clone());
                json!({"user": user})
            }
            "send" => match lock(state).send(user, &params["to"], &params["body"]) {
                Served::Answer(result) => result,
                Served::Silence => continue,
                Served::End => return Ok(()),
            },
            _ => json!({}),
        };
        // Before its own messages to itself or behind them: both are right.
        let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
        socket.send(Message::text(answer.to_string()))?;
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// What becomes of a request.
enum Served {
    Answer(Json),
    Silence,
    End,
}

impl State {
    fn refuses(&mut self) -> bool {
        self.accepted += 1;
        let refuses = self.lie == Lie::Refuse && self.accepted == 3;
        self.told |= refuses;
        refuses
    }

    fn send(&mut self, from: &str, to: &Json, body: &Json) -> Served {
        let recipient = to["user"].as_str().expect("a user");
        self.last_id += 1;
        let id = format!("{:016x}", self.last_id);
        let from_object = json!({"user": from, "device": "d"});
        let message = json!({"id": id, "from": from_object, "to": to, "body": body, "time": 1});
        let text = json!({"jsonrpc": "2.0", "method": "message", "params": message}).to_string();
        let answer =
            |sessions: u32| Served::Answer(json!({"id": id, "time": 1, "sessions": sessions}));
        let Some(inbox) = self.users.get(recipient).cloned() else { return answer(0) };
        let deliver = |text: &str| {
            let _ = inbox.send(text.to_owned());
        };
        if let Some((sender, reader, held)) = &self.held
            && (&**sender, &**reader) == (from, recipient)
        {
            deliver(&text);
            deliver(held);
            self.held = None;
            return answer(1);
        }
        if !self.lies_now(&text) {
            deliver(&text);
            return answer(1);
        }
        match self.lie {
            Lie::Drop => return answer(1),
            Lie::Double => deliver(&text),
            Lie::Swap => {
                self.held = Some((from.to_owned(), recipient.to_owned(), text));
                return answer(1);
            }
            Lie::Damage => {
                deliver(&text.replacen(DAMAGED, "#", 1));
                return answer(1);
            }
            Lie::Close => return Served::End,
            Lie::Silent => {
                deliver(&text);
                return Served::Silence;
            }
            Lie::Deny => {
                deliver(&text);
                return answer(0);
            }
            Lie::None | Lie::Refuse => {}
        }
        deliver(&text);
        answer(1)
    }

    /// Says a text again; true: the connection ends instead.
    fn repeat(&mut self, from: &str, text: &str) -> bool {
        let held = self.held.take_if(|(sender, ..)| sender == from);
        let lies = held.is_none() && self.lies_now(text);
        match self.lie {
            Lie::Close if lies => return true,
            Lie::Swap if lies => {
                self.held = Some((from.to_owned(), String::new(), text.to_owned()));
                return false;
            }
            _ => {}
        }
        let everybody = self.speech == Speech::Broadcast;
        let mut lies = lies;
        for (_, inbox) in self.users.iter().filter(|(user, _)| everybody || *user == from) {
            // About one of them, if there are several.
            let said = match (self.lie, std::mem::take(&mut lies)) {
                (Lie::Drop, true) => vec![],
                (Lie::Double, true) => vec![text.to_owned(); 2],
                (Lie::Damage, true) => vec![text.replacen(DAMAGED, "#", 1)],
                _ => vec![text.to_owned()],
            };
            let behind = held.iter().map(|(_, _, text)| text.clone());
            for text in said.into_iter().chain(behind) {
                let _ = inbox.send(text);
            }
        }
        false
    }

    /// Whether this is the message it lies about.
    fn lies_now(&mut self, text: &str) -> bool {
        self.truths = self.truths.saturating_sub(1);
        let fits = match self.lie {
            Lie::None | Lie::Refuse => false,
            Lie::Damage => text.contains(DAMAGED),
            _ => true,
        };
        let now = self.truths == 0 && fits && !self.told;
        self.told |= now;
        now
    }
}

/// Stands in the bodies of many messages, and nowhere else in them.
const DAMAGED: char = ';';
