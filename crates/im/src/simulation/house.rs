//! The server, its clients, and the steps that the dice choose.

use super::checks;
use super::client::{Ask, Client, Repeats, To};
use crate::app::ImApp;
use crate::config::IM_KEYS;
use dunlin_server::config::SERVER_KEYS;
use dunlin_server::settings::{Layers, Settings};
use dunlin_server::simulation::{Bounds, Dice, FakeServer, Said, Share};
use dunlin_server::{ConnId, SlotId};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

const USERS: [&str; 5] = ["ann", "bob", "cat", "dan", "eve"];
const DEVICES: [&str; 4] = ["phone", "desk", "tab", "watch"];
const KINDS: [&str; 3] = ["mobile", "web", ""];
const ROOMS: [&str; 4] = ["tea", "den", "hall", "attic"];
/// Deaths come before deed 2^this of a hook or a turn, early ones as likely as late ones.
const DEATH_BITS: u32 = 8;

/// What a seed chooses once.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) policy: &'static str,
    pub(super) max_devices: usize,
    rooms: [usize; 3],
    workers: u16,
    clients: usize,
    steps: usize,
    bounds: Bounds,
    /// One step in so many kills.
    peace: usize,
}

impl Plan {
    fn new(dice: &mut Dice) -> Self {
        let bounds = Bounds {
            sessions: [6, 12, 40][dice.below(3)],
            timers: 64,
            mailbox: [3, 40, 10_000][dice.below(3)],
            send_buffer: [1_500, 100_000][dice.below(2)],
            tasks: 16,
        };
        Self {
            policy: ["many", "one_per_kind", "one"][dice.below(3)],
            max_devices: 1 + dice.below(4),
            rooms: [1 + dice.below(4), 1 + dice.below(6), 1 + dice.below(5)],
            workers: 1 + u16::try_from(dice.below(4)).unwrap_or_default(),
            clients: 2 + dice.below(12),
            steps: 40 + dice.below(160),
            bounds,
            peace: [6, 30, 1_000][dice.below(3)],
        }
    }

    /// Whether no mailbox is ever full.
    pub(super) fn has_room(&self) -> bool {
        self.bounds.mailbox > 1_000
    }

    fn settings(&self) -> Settings {
        let mut layers = Layers::default();
        layers.flag_words("table.max_sessions", &self.bounds.sessions.to_string(), "--set");
        layers.flag_words("table.watches", "32", "--set");
        layers.flag_words("table.last_seen", "16", "--set");
        // Enough for all there is in a life; memory of a seed is never given back.
        layers.flag_words("im.idempotency_entries", "1024", "--set");
        layers.flag_words("im.rate_entries", "256", "--set");
        layers.flag_words("im.devices", self.policy, "--set");
        let [rooms, members, all] = self.rooms.map(|most| most.to_string());
        layers.flag_words("im.max_rooms", &rooms, "--set");
        layers.flag_words("im.max_room_members", &members, "--set");
        layers.flag_words("table.rooms", &all, "--set");
        layers.flag_words("im.max_devices", &self.max_devices.to_string(), "--set");
        Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers).expect("the plan is well formed")
    }
}

/// A send with a key, which may be said again by the same user on the same device.
#[derive(Clone)]
struct Keyed {
    user: String,
    device: String,
    params: serde_json::Value,
    to: To,
    number: u64,
    at_ms: u64,
}

/// Keys are kept for 5 minutes.
const KEYS_LIVE_MS: u64 = 290_000;

/// A server and its clients.
pub(super) struct House {
    seed: u64,
    pub(super) plan: Plan,
    pub(super) server: FakeServer<ImApp>,
    pub(super) clients: BTreeMap<ConnId, Client>,
    dice: Dice,
    pub(super) step: u64,
    messages: u64,
    keyed: Vec<Keyed>,
    /// Numbers that another session than their first has said again: what one session says comes in order,
    /// what two say need not.
    said_by_others: BTreeSet<u64>,
    deaths: u64,
    story: Vec<String>,
    aloud: bool,
}

impl House {
    pub(super) fn new(seed: u64, aloud: bool) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::new(&mut dice);
        let (settings, random) = (plan.settings(), [dice.word(), dice.word()]);
        let make = move || {
            let mut app = ImApp::new(&settings).expect("the settings go together");
            app.random = random;
            app
        };
        let server = FakeServer::start(Box::new(make), plan.workers, plan.bounds);
        let mut house = Self {
            seed,
            plan,
            server,
            clients: BTreeMap::new(),
            dice,
            step: 0,
            messages: 0,
            keyed: Vec::new(),
            said_by_others: BTreeSet::new(),
            deaths: 0,
            story: Vec::new(),
            aloud,
        };
        let plan = format!("{:?}", house.plan);
        house.tell(&plan);
        house
    }

    /// Everything that a seed has in store.
    pub(super) fn live(&mut self) {
        for _ in 0..self.plan.steps {
            self.step();
            checks::always(self);
            if self.dice.one_in(60) {
                self.rest();
            }
        }
        self.rest();
        self.end();
    }

    /// How often a worker may have died so far.
    pub(super) fn deaths(&self) -> u64 {
        self.deaths
    }

    /// What has happened.
    pub(super) fn story(&self) -> &[String] {
        &self.story
    }

    fn tell(&mut self, what: &str) {
        if self.aloud {
            println!("{:4} {what}", self.step);
        }
        self.story.push(what.to_owned());
    }

    fn step(&mut self) {
        self.step += 1;
        match self.dice.below(100) {
            0..28 => self.a_client_speaks(),
            28..66 => self.a_worker_works(),
            66..74 => self.a_client_comes(),
            74..77 => self.a_client_goes(),
            77..80 => self.a_client_stalls(),
            80..82 => self.a_worker_is_replaced(),
            82..86 => self.a_worker_starts_again(),
            86..90 => self.a_client_is_moved(),
            90..96 => self.time_passes(),
            96..98 => self.a_deadline_is_told(),
            _ => {
                let deeds = self.death();
                self.server.run_task(deeds);
            }
        }
        self.clients_hear();
    }

    /// Sometimes, after how many deeds one dies.
    fn death(&mut self) -> Option<u32> {
        let dies = self.dice.one_in(self.plan.peace);
        self.deaths += u64::from(dies);
        dies.then(|| self.dice.magnitude(DEATH_BITS))
    }

    fn slot(&mut self) -> SlotId {
        let slots: Vec<SlotId> = self.server.slots().collect();
        self.dice.pick(&slots).copied().expect("there is a worker")
    }

    fn some_client(&mut self) -> Option<ConnId> {
        let open = self.clients.values().filter(|client| client.is_open());
        let open: Vec<ConnId> = open.map(|client| client.conn).collect();
        self.dice.pick(&open).copied()
    }

    fn user(&mut self) -> &'static str {
        USERS[self.dice.below(USERS.len())]
    }

    fn a_worker_works(&mut self) {
        let (slot, deeds) = (self.slot(), self.death());
        let share = Share {
            packets: self.dice.below(4),
            messages: self.dice.below(4),
            closes: self.dice.below(3),
        };
        let lives = self.server.turn(slot, &mut self.dice, share, deeds);
        self.tell(&format!("worker {slot} works {share:?}, lives: {lives}"));
    }

    fn a_client_comes(&mut self) {
        if self.clients.values().filter(|client| client.is_open()).count() >= self.plan.clients {
            return;
        }
        let (slot, deeds) = (self.slot(), self.death());
        let peer = ([192, 0, 2, 1], 4_711).into();
        let request = dunlin_server::simulation::get("/ws");
        if let Some(conn) = self.server.connect(slot, peer, &request, deeds) {
            self.clients.insert(conn, Client::new(conn));
            self.tell(&format!("{conn} comes to worker {slot}"));
            if !self.dice.one_in(5) {
                self.log_in(conn);
            }
        }
    }

    fn a_client_goes(&mut self) {
        let Some(conn) = self.some_client() else { return };
        let code = if self.dice.one_in(2) { 1000 } else { 1006 };
        self.go(conn, code);
    }

    fn go(&mut self, conn: ConnId, code: u16) {
        self.tell(&format!("{conn} goes with {code}"));
        self.server.say(conn, Said::End(code));
        if let Some(client) = self.clients.get_mut(&conn) {
            client.closed = Some(code);
        }
    }

    fn a_client_stalls(&mut self) {
        let Some(conn) = self.some_client() else { return };
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.stalled = !client.stalled;
        let stalled = client.stalled;
        self.server.set_stalled(conn, stalled);
        self.tell(&format!("{conn} stalled: {stalled}"));
    }

    fn a_worker_is_replaced(&mut self) {
        let (slot, deeds) = (self.slot(), self.death());
        if self.dice.one_in(3) {
            self.server.kill(slot);
            self.tell(&format!("worker {slot} is killed"));
        } else {
            let lives = self.server.reload(slot, deeds);
            self.tell(&format!("worker {slot} is replaced, lives: {lives}"));
        }
    }

    fn a_worker_starts_again(&mut self) {
        let dead: Vec<SlotId> =
            self.server.slots().filter(|slot| !self.server.lives(*slot)).collect();
        if let Some(slot) = self.dice.pick(&dead).copied() {
            let deeds = self.death();
            let lives = self.server.start_again(slot, deeds);
            self.tell(&format!("worker {slot} starts again, lives: {lives}"));
        }
    }

    fn a_client_is_moved(&mut self) {
        let Some(conn) = self.some_client() else { return };
        let slot = self.slot();
        if self.server.move_to(conn, slot) {
            self.tell(&format!("{conn} is moved to worker {slot}"));
        }
    }

    fn time_passes(&mut self) {
        let ms = match self.dice.below(12) {
            0 => 70_000,
            1 => 11_000,
            _ => u64::from(self.dice.magnitude(12)),
        };
        self.server.pass(ms);
        self.tell(&format!("{ms} ms pass"));
    }

    fn a_deadline_is_told(&mut self) {
        if let Some(conn) = self.some_client() {
            self.tell(&format!("{conn} is told overdue"));
            self.server.tell_overdue(conn);
        }
    }

    fn a_client_speaks(&mut self) {
        let Some(conn) = self.some_client() else { return };
        let user = self.user();
        let device = DEVICES[self.dice.below(DEVICES.len())];
        let room = ROOMS[self.dice.below(ROOMS.len())];
        match self.dice.below(36) {
            0..4 => self.log_in(conn),
            4 => self.ask(conn, "logout", &json!({}), Ask::Logout),
            5..14 => {
                self.send(conn, To::User(user.to_owned()));
            }
            14 => self.ask(conn, "kick", &json!({"device": device}), Ask::Other),
            15 => self.ask(conn, "signal", &json!({"to": {"user": user}, "body": 1}), Ask::Other),
            16 => self.ask(conn, "presence", &json!({"users": USERS}), Ask::Presence),
            17 => self.ask(conn, "sessions", &json!({}), Ask::Other),
            18 => self.ask(conn, "ping", &json!({}), Ask::Other),
            19 => self.ask(conn, "nope", &json!({}), Ask::Other),
            20 => self.server.say(conn, Said::Life),
            21 => self.server.say(conn, Said::Text(r#"{"method":"ping"}"#.into())),
            24 | 25 => {
                let ask = Ask::Join { room: room.to_owned() };
                self.ask(conn, "join", &json!({"room": room}), ask);
            }
            26 => {
                let ask = Ask::Leave { room: room.to_owned() };
                self.ask(conn, "leave", &json!({"room": room}), ask);
            }
            27 => self.ask(conn, "members", &json!({"room": room, "limit": 2}), Ask::Other),
            32.. => self.send_again(),
            28..31 => self.send(conn, To::Room(room.to_owned())),
            31 => self.ask(conn, "signal", &json!({"to": {"room": room}, "body": 1}), Ask::Other),
            22 if self.dice.one_in(10) => self.server.say(conn, Said::Binary(vec![0])),
            _ => self.ask(conn, "send", &json!({"to": 7}), Ask::Other),
        }
    }

    fn send(&mut self, conn: ConnId, to: To) {
        self.messages += 1;
        let (number, session) = (self.messages, conn.to_string());
        let target = match &to {
            To::User(user) => json!({"user": user}),
            To::Room(room) => json!({"room": room}),
        };
        let keyed = self.dice.one_in(3);
        let body = json!({"number": number, "session": session, "keyed": keyed});
        let mut params = json!({"to": target, "body": body});
        let mut repeats = Repeats::Never;
        if keyed {
            params["key"] = json!(format!("k{number}"));
            repeats = Repeats::First;
            let client = &self.clients[&conn];
            if let (Some((user, _)), Some(device)) = (&client.login, &client.device)
                && client.is_settled()
            {
                let (user, device) = (user.clone(), device.clone());
                let (params, to, at_ms) = (params.clone(), to.clone(), self.server.unix_ms());
                self.keyed.push(Keyed { user, device, params, to, number, at_ms });
            }
        }
        self.ask(conn, "send", &params, Ask::Send { to, number, repeats });
    }

    /// What was sent with a key is sent again, by whoever is its user on its device now.
    fn send_again(&mut self) {
        let Some(keyed) = self.dice.pick(&self.keyed).cloned() else { return };
        let is_sender = |client: &&Client| {
            client.is_open()
                && client.is_settled()
                && client.login.as_ref().is_some_and(|(user, _)| *user == keyed.user)
                && client.device.as_ref() == Some(&keyed.device)
        };
        let conn = self.clients.values().find(is_sender).map(|client| client.conn);
        if let Some(conn) = conn.filter(|_| self.server.unix_ms() < keyed.at_ms + KEYS_LIVE_MS) {
            let Keyed { params, to, number, .. } = keyed;
            if params["body"]["session"] != conn.to_string() {
                self.said_by_others.insert(number);
            }
            self.ask(conn, "send", &params, Ask::Send { to, number, repeats: Repeats::Again });
        }
    }

    fn log_in(&mut self, conn: ConnId) {
        let user = self.user();
        let device = DEVICES[self.dice.below(DEVICES.len())];
        let kind = KINDS[self.dice.below(KINDS.len())];
        let params = json!({"user": user, "device": {"id": device, "kind": kind}});
        let ask = Ask::Login { user: user.to_owned(), device: device.to_owned() };
        self.ask(conn, "login", &params, ask);
    }

    fn ask(&mut self, conn: ConnId, method: &str, params: &serde_json::Value, ask: Ask) {
        let step = self.step;
        if let Some(client) = self.clients.get_mut(&conn) {
            let text = client.ask(method, params, ask, step);
            self.tell(&format!("{conn} says {text}"));
            self.server.say(conn, Said::Text(text));
        }
    }

    fn clients_hear(&mut self) {
        let mut news = Vec::new();
        for (conn, client) in &mut self.clients {
            if !client.is_open() {
                // It has gone by itself, or was closed.
                self.server.hear(*conn);
                continue;
            }
            for heard in self.server.hear(*conn) {
                news.push(format!("{conn} hears {heard:?}"));
                client.hear(heard, self.step, &self.said_by_others);
            }
        }
        for line in news {
            self.tell(&line);
        }
    }

    /// Everybody reads, the dead live again, everything that is under way arrives.
    fn rest(&mut self) {
        self.tell("all comes to rest");
        let stalled: Vec<ConnId> = self
            .clients
            .values()
            .filter(|client| client.stalled)
            .map(|client| client.conn)
            .collect();
        self.settle();
        for conn in stalled {
            self.server.set_stalled(conn, false);
            if let Some(client) = self.clients.get_mut(&conn) {
                client.stalled = false;
            }
        }
        self.settle();
        checks::always(self);
        checks::at_rest(self);
        let somebody =
            self.clients.values().find(|client| client.login.is_some() && client.is_open());
        if let Some(conn) = somebody.map(|client| client.conn) {
            self.ask(conn, "presence", &json!({"users": USERS}), Ask::Presence);
            self.settle();
            let answer = self.clients[&conn].presence.clone();
            checks::presence_is_true(self, &answer.expect("an answer"));
        }
    }

    fn settle(&mut self) {
        self.step += 1;
        assert!(self.server.settle_down(&mut self.dice), "seed {} never rests", self.seed);
        self.clients_hear();
    }

    /// Everybody goes, and nothing is left.
    fn end(&mut self) {
        let open: Vec<ConnId> =
            self.clients.values().filter(|client| client.is_open()).map(|c| c.conn).collect();
        for conn in open {
            self.go(conn, 1000);
        }
        self.settle();
        checks::at_the_end(self);
    }
}
