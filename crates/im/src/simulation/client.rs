//! One connection as its client sees it: what it has asked, what it has heard, and what it may never
//! hear.

use dunlin_server::ConnId;
use dunlin_server::simulation::Heard;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Something a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    Login {
        user: String,
        device: String,
    },
    Logout,
    Join {
        room: String,
    },
    Leave {
        room: String,
    },
    /// A message; the number is unique in the house.
    Send {
        to: To,
        number: u64,
        repeats: Repeats,
    },
    Presence,
    Other,
}

/// Whom a message is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum To {
    User(String),
    Room(String),
}

/// Whether a send may be repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeats {
    /// It has no key.
    Never,
    /// It has a key, and is the first.
    First,
    /// It is said again.
    Again,
}

/// A message that a client has sent, and what it was told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) repeats: Repeats,
    pub(super) from: Option<String>,
    pub(super) to: To,
    /// When it was said.
    pub(super) at: u64,
    /// Id and number of sessions, or the code of the error.
    pub(super) told: Result<(String, u64), i64>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) conn: ConnId,
    /// Who it is logged in as, and since when it knows.
    pub(super) login: Option<(String, u64)>,
    /// On what it is logged in.
    pub(super) device: Option<String>,
    /// Everybody it has asked to be.
    pub(super) been: BTreeSet<String>,
    /// The rooms it is in, and since when it knows.
    pub(super) rooms: BTreeMap<String, u64>,
    /// Every room it has asked to be in.
    pub(super) visited: BTreeSet<String>,
    /// How often it was told that a user came into a room that it is in, and that he went.
    pub(super) told_of: BTreeMap<(String, String), [u64; 2]>,
    pub(super) asked: VecDeque<(u64, Ask, u64)>,
    pub(super) sent: Vec<Sent>,
    /// Numbers of the messages it has got, by whom they were from.
    pub(super) got: BTreeMap<ConnId, Vec<u64>>,
    /// Of these, those that were for its own user, and not copies.
    pub(super) received: BTreeSet<u64>,
    ids: BTreeSet<String>,
    last_id: String,
    next: u64,
    pub(super) hello: bool,
    /// What it was told last of who is online.
    pub(super) presence: Option<Json>,
    pub(super) bye: Option<u64>,
    /// The code it was closed with; 1006 if the transport ended.
    pub(super) closed: Option<u16>,
    pub(super) stalled: bool,
}

impl Client {
    pub(super) fn new(conn: ConnId) -> Self {
        Self {
            conn,
            login: None,
            device: None,
            been: BTreeSet::new(),
            rooms: BTreeMap::new(),
            visited: BTreeSet::new(),
            told_of: BTreeMap::new(),
            asked: VecDeque::new(),
            sent: Vec::new(),
            got: BTreeMap::new(),
            received: BTreeSet::new(),
            ids: BTreeSet::new(),
            last_id: String::new(),
            next: 0,
            hello: false,
            presence: None,
            bye: None,
            closed: None,
            stalled: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// Whether who it is will be the same when what it says now is read.
    pub(super) fn is_settled(&self) -> bool {
        let changes = |ask: &Ask| matches!(ask, Ask::Login { .. } | Ask::Logout);
        self.asked.iter().all(|(_, ask, _)| !changes(ask))
    }

    /// The text of a request.
    pub(super) fn ask(&mut self, method: &str, params: &Json, ask: Ask, now: u64) -> String {
        self.next += 1;
        if let Ask::Login { user, .. } = &ask {
            self.been.insert(user.clone());
        }
        if let Ask::Join { room } = &ask {
            self.visited.insert(room.clone());
        }
        self.asked.push_back((self.next, ask, now));
        json!({"jsonrpc": "2.0", "id": self.next, "method": method, "params": params}).to_string()
    }

    /// Hears what the server said; everything that is not as promised panics. `by_others`: numbers that another
    /// session than their first has said again, which may overtake what that one said.
    pub(super) fn hear(&mut self, heard: Heard, now: u64, by_others: &BTreeSet<u64>) {
        assert!(self.is_open(), "{} hears {heard:?} after its end", self.conn);
        match heard {
            Heard::Text(text) => {
                assert_eq!(self.bye, None, "nothing follows a bye, but {text}");
                let said: Json = serde_json::from_str(&text).expect("the server says JSON");
                assert_eq!(said["jsonrpc"], "2.0");
                match said["method"].as_str() {
                    Some(method) => self.told(method, &said["params"], by_others),
                    None => self.answered(&said, now),
                }
            }
            Heard::Binary(_) => panic!("the server sends no binary messages"),
            Heard::Close { code, .. } => {
                let bye = self.bye.unwrap_or_else(|| u64::from(code));
                assert_eq!(bye, u64::from(code), "a bye says what the close frame says");
                self.closed = Some(code);
            }
            Heard::Gone => {
                assert_eq!(self.bye, None, "its close frame follows a bye");
                self.closed = Some(1006);
            }
        }
    }

    fn told(&mut self, method: &str, params: &Json, by_others: &BTreeSet<u64>) {
        // A worker that dies in the middle of an upgrade leaves a connection that was never greeted.
        let in_order = method == "bye" || self.hello == (method != "hello");
        assert!(in_order, "hello comes first and once, not {method}");
        match method {
            "hello" => {
                self.hello = true;
                assert_eq!(params["session"], self.conn.to_string());
            }
            "bye" => self.bye = params["code"].as_u64(),
            "message" => self.message(params, by_others),
            "signal" => {}
            "room" => assert!(self.visited.contains(params["room"].as_str().expect("a name"))),
            "joined" | "left" => self.neighbour(method, params),
            other => panic!("{other} is no notification"),
        }
    }

    fn neighbour(&mut self, method: &str, params: &Json) {
        let name = |member: &str| params[member].as_str().expect("a name").to_owned();
        let (room, user) = (name("room"), name("user"));
        assert!(self.visited.contains(&room), "{} was never in {room}", self.conn);
        let told = self.told_of.entry((room, user)).or_default();
        told[usize::from(method == "left")] += 1;
    }

    fn message(&mut self, params: &Json, by_others: &BTreeSet<u64>) {
        let from = params["from"]["user"].as_str().expect("it is from a user");
        let for_it = match (params["to"]["user"].as_str(), params["to"]["room"].as_str()) {
            (Some(user), None) => self.been.contains(user),
            (None, Some(room)) => self.visited.contains(room),
            _ => panic!("{params} is for nobody"),
        };
        assert!(for_it || self.been.contains(from), "{} gets {params}", self.conn);
        let id = params["id"].as_str().expect("it has an id").to_owned();
        let keyed = params["body"]["keyed"] == true;
        if !self.ids.insert(id) {
            assert!(keyed, "{} gets {params} twice", self.conn);
            return; // One whose first attempt was in doubt; a client tells it once, by its id.
        }
        let number = params["body"]["number"].as_u64().expect("it has a number");
        let sender = params["body"]["session"].as_str().and_then(ConnId::parse);
        let sender = sender.expect("it has a sender");
        let to_himself = params["to"]["user"] == from;
        assert!(sender != self.conn || keyed || to_himself, "{} hears itself: {params}", self.conn);
        let from_it = self.got.entry(sender).or_default();
        assert!(!from_it.contains(&number), "{} gets {number} under two ids", self.conn);
        let last = from_it.iter().rfind(|number| !by_others.contains(number));
        assert!(
            keyed || last.is_none_or(|last| *last < number),
            "{} gets {number} from {sender} behind {from_it:?}",
            self.conn
        );
        from_it.push(number);
        if for_it {
            self.received.insert(number);
        }
    }

    fn answered(&mut self, said: &Json, now: u64) {
        let (id, ask, at) = self.asked.pop_front().expect("an answer has its request");
        assert_eq!(said["id"], id, "answers come in the order of the requests: {said}");
        let ok = said.get("result");
        assert_ne!(ok.is_some(), said.get("error").is_some(), "{said}");
        match ask {
            Ask::Login { user, device } if ok.is_some() => {
                self.device = Some(device);
                assert_eq!(said["result"]["session"], self.conn.to_string());
                self.login = Some((user, now));
            }
            Ask::Logout if ok.is_some() => {
                self.device = None;
                self.login = None;
                self.rooms.clear();
                self.told_of.clear();
            }
            Ask::Join { room } if ok.is_some() => {
                assert!(said["result"]["count"].as_u64() >= Some(1), "{said}");
                if !self.rooms.contains_key(&room) {
                    self.told_of.retain(|(told_of, _), _| *told_of != room);
                    self.rooms.insert(room, now);
                }
            }
            Ask::Presence => self.presence = ok.cloned(),
            Ask::Leave { room } if ok.is_some() => _ = self.rooms.remove(&room),
            Ask::Send { to, number, repeats } => {
                let told = match ok {
                    Some(result) => {
                        let id = result["id"].as_str().expect("a message has an id").to_owned();
                        if repeats == Repeats::Never {
                            assert!(id > self.last_id, "{id} follows {}", self.last_id);
                            self.last_id.clone_from(&id);
                        }
                        Ok((id, result["sessions"].as_u64().expect("a number")))
                    }
                    None => Err(said["error"]["code"].as_i64().expect("a number")),
                };
                let from = self.login.as_ref().map(|(user, _)| user.clone());
                self.sent.push(Sent { number, repeats, from, to, at, told });
            }
            _ => {}
        }
    }
}
