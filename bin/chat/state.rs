//! The session with a server: what is said to it, what is made of what it says, when to come back.
//!
//! The same machine as `crates/im/clients/dunlin.js`, written from docs/protocol.md. Frames and `now`
//! in, actions out; knows no socket, no clock and no screen.
//! Invariants: 1. What waits is bounded, see [`Outgoing`], [`SEEN_MAX`](super::seen::SEEN_MAX), [`WATCHED_MAX`]. 2. A message
//! is told once, however often it comes. 3. News of presence older than what is known is not told.
//! 4. Nothing is asked before the login is answered, nor between a `bye` and the next login.

mod hearing;

use super::asked::{Asked, Calls};
use super::news::{Ending, News, OpenFailure};
use super::outgoing::Outgoing;
use super::policy::{self, Policy};
use super::seen::Seen;
use super::words::Target;
use crate::random::Random;
use dunlin_server::clock::Millis;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, VecDeque};

/// From the first packet to the answer of the login.
pub(crate) const CONNECT_TIMEOUT_MS: u64 = 15_000;
/// People who are watched: what servers allow out of the box.
pub(crate) const WATCHED_MAX: usize = 100;
/// Most that a `ping` is apart from the next.
const PING_MAX_MS: u64 = 20_000;
const PING_MIN_MS: u64 = 100;

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Connect; answered by `opened` or `open_failed`.
    Open,
    /// Send a text.
    Send(String),
    /// Give the connection up.
    Close,
    /// Get the token anew; answered by `token_read`.
    ReadToken,
    /// Show it.
    Tell(News),
    /// There is nothing more to do.
    End(Ending),
}

/// Who logs in.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Without a token this is who logs in; with one, who it must be of.
    pub(crate) user: Option<String>,
    pub(crate) token: Option<String>,
    /// Whether the shell can get a new token.
    pub(crate) renews: bool,
    /// As the protocol writes it.
    pub(crate) device: Json,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Connecting, or logging in.
    Arriving {
        since: Millis,
    },
    Online,
    /// The server has said `bye`.
    Leaving,
    Waiting {
        until: Millis,
    },
    Ended,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    identity: Identity,
    phase: Phase,
    /// Who the server says one is.
    me: Option<String>,
    policy: Policy,
    max_message: usize,
    failures: u32,
    bye: Option<Json>,
    calls: Calls,
    outgoing: Outgoing,
    rooms: Vec<String>,
    watched: Vec<String>,
    versions: BTreeMap<String, u64>,
    seen: Seen,
    /// When to say something, and whether nothing was heard since it was said last.
    ping_at: Millis,
    ping_every_ms: u64,
    silent: bool,
    refresh_at: Option<Millis>,
    /// End when nothing waits any more.
    finishing: bool,
    random: Random,
    actions: VecDeque<Action>,
}

impl State {
    /// A session that is to begin; `key_base` is a text that no other client has.
    pub(crate) fn new(now: Millis, identity: Identity, key_base: String, seed: u64) -> Self {
        let mut state = Self {
            identity,
            phase: Phase::Arriving { since: now },
            me: None,
            policy: Policy::default(),
            max_message: usize::MAX,
            failures: 0,
            bye: None,
            calls: Calls::default(),
            outgoing: Outgoing::new(key_base),
            rooms: Vec::new(),
            watched: Vec::new(),
            versions: BTreeMap::new(),
            seen: Seen::default(),
            ping_at: now,
            ping_every_ms: PING_MAX_MS,
            silent: false,
            refresh_at: None,
            finishing: false,
            random: Random::new(seed),
            actions: VecDeque::new(),
        };
        state.actions.push_back(Action::Open);
        state
    }

    pub(crate) fn take_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Messages that are not yet answered.
    pub(crate) fn unsent(&self) -> usize {
        self.outgoing.len()
    }

    /// Whether it has ever been online.
    fn has_arrived(&self) -> bool {
        self.me.is_some()
    }

    // What the shell says.

    /// The connection could not be opened.
    pub(crate) fn open_failed(&mut self, now: Millis, failure: &OpenFailure) {
        if !matches!(self.phase, Phase::Arriving { .. }) {
            return;
        }
        if !self.has_arrived() || failure.is_final() {
            return self.end(failure.ending());
        }
        self.come_back(now, &failure.to_string(), failure.retry_after_ms());
    }

    /// A text came.
    pub(crate) fn hear(&mut self, now: Millis, text: &str) {
        self.silent = false;
        let Ok(said) = serde_json::from_str::<Json>(text) else {
            return; // The server sends JSON only: this is none of ours.
        };
        match said["method"].as_str() {
            Some(method) => self.told(now, method, &said["params"]),
            None => self.answered(now, &said),
        }
    }

    /// Something came that is no text.
    pub(crate) fn heard_something(&mut self) {
        self.silent = false;
    }

    /// The connection has ended.
    pub(crate) fn closed(&mut self, now: Millis, code: u16, reason: &str) {
        if !matches!(self.phase, Phase::Arriving { .. } | Phase::Online | Phase::Leaving) {
            return;
        }
        let said = self.bye.as_ref().and_then(|bye| bye["reason"].as_str()).unwrap_or(reason);
        let why = match (code, said) {
            (policy::NO_CLOSE_FRAME, "") => "the connection broke".to_owned(),
            (code, "") => format!("closed with {code}"),
            (code, said) => format!("{said} ({code})"),
        };
        let was_in = self.failures == 0 && !matches!(self.phase, Phase::Arriving { .. });
        let renewed = code == policy::TOKEN_OVER && self.identity.renews && was_in;
        if policy::comes_back(code) || renewed {
            self.come_back(now, &why, 0);
        } else {
            self.end(Ending::failed(format!("the server closed the connection: {why}")));
        }
    }

    /// The token as it is now; none where it cannot be read.
    pub(crate) fn token_read(&mut self, token: Option<String>) {
        let Some(token) = token.filter(|token| self.identity.token.as_ref() != Some(token)) else {
            return;
        };
        self.identity.token = Some(token.clone());
        if self.phase == Phase::Online {
            self.ask(Asked::Refresh, "refresh", &json!({"token": token}));
        }
    }

    // What the user says.

    /// Sends a text; its number, or none where too many wait.
    pub(crate) fn send(&mut self, now: Millis, to: Target, text: String) -> Option<u64> {
        let number = self.outgoing.push(now, to, text);
        self.pump(now);
        number
    }

    /// Says that one is typing, if anybody can be told.
    pub(crate) fn typing(&mut self, to: &Target) {
        if self.phase == Phase::Online {
            let params = json!({"to": to.to_json(), "body": {"typing": true}});
            let text = json!({"jsonrpc": "2.0", "method": "signal", "params": params});
            self.actions.push_back(Action::Send(text.to_string()));
        }
    }

    /// Joins a room, now and after each return.
    pub(crate) fn join(&mut self, room: &str) {
        if !self.rooms.iter().any(|joined| joined == room) {
            self.rooms.push(room.to_owned());
        }
        if self.phase == Phase::Online {
            self.ask_join(room);
        }
    }

    pub(crate) fn leave(&mut self, room: &str) {
        self.rooms.retain(|joined| joined != room);
        if self.phase == Phase::Online {
            self.ask(Asked::Leave, "leave", &json!({"room": room}));
        }
    }

    pub(crate) fn members(&mut self, room: &str) {
        self.ask_online(Asked::Members { room: room.to_owned(), told: true }, "members");
    }

    pub(crate) fn presence(&mut self, users: Vec<String>) {
        self.ask_online(Asked::Presence { users }, "presence");
    }

    /// Watches people, now and after each return; as many as may be watched.
    pub(crate) fn watch(&mut self, users: &[String]) {
        let mut new = Vec::new();
        for user in users {
            if self.watched.len() < WATCHED_MAX && !self.watched.contains(user) {
                self.watched.push(user.clone());
                new.push(user.clone());
            }
        }
        if !new.is_empty() && self.phase == Phase::Online {
            self.ask_watch(new);
        }
    }

    /// Ends at once, whatever waits.
    pub(crate) fn quit(&mut self) {
        self.end(Ending::done());
    }

    /// Ends when everything is sent.
    pub(crate) fn finish(&mut self) {
        self.finishing = true;
        self.end_if_finished();
    }

    // Time.

    /// When `expire` is to be called at the latest.
    pub(crate) fn next_due(&self) -> Option<Millis> {
        let own = match self.phase {
            Phase::Arriving { since } => Some(since + CONNECT_TIMEOUT_MS),
            Phase::Online => Some(self.refresh_at.map_or(self.ping_at, |at| at.min(self.ping_at))),
            Phase::Leaving => Some(self.ping_at),
            Phase::Waiting { until } => Some(until),
            Phase::Ended => return None,
        };
        own.into_iter().chain(self.outgoing.next_due()).min()
    }

    /// Does what is due.
    pub(crate) fn expire(&mut self, now: Millis) {
        while let Some(late) = self.outgoing.take_late(now) {
            let why = "no answer in time: it may have arrived or not".to_owned();
            self.tell(News::NotSent { message: late, why });
            self.end_if_finished();
        }
        match self.phase {
            Phase::Arriving { since } if now >= since + CONNECT_TIMEOUT_MS => {
                self.open_failed(now, &OpenFailure::TimedOut);
            }
            Phase::Waiting { until } if now >= until => {
                self.phase = Phase::Arriving { since: now };
                self.actions.push_back(Action::Open);
                self.tell(News::Connecting);
            }
            Phase::Online | Phase::Leaving if now >= self.ping_at => self.ping(now),
            _ => {}
        }
        if self.phase == Phase::Online && self.refresh_at.is_some_and(|at| now >= at) {
            self.refresh_at = None;
            self.actions.push_back(Action::ReadToken);
        }
        self.pump(now);
    }

    /// Says something in time, and notices a server that says nothing.
    fn ping(&mut self, now: Millis) {
        if self.silent {
            return self.come_back(now, "the server says nothing", 0);
        }
        self.silent = true;
        self.ping_at = now + self.ping_every_ms;
        if self.phase == Phase::Online {
            self.ask(Asked::Ping, "ping", &json!({}));
        }
    }

    // What is asked.

    fn ask(&mut self, asked: Asked, method: &str, params: &Json) -> u64 {
        let id = self.calls.add(asked);
        let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.actions.push_back(Action::Send(text.to_string()));
        id
    }

    fn ask_online(&mut self, asked: Asked, method: &str) {
        if self.phase != Phase::Online {
            return self.tell(News::Refused { why: "not connected".to_owned() });
        }
        let params = asked.params();
        self.ask(asked, method, &params);
    }

    fn ask_join(&mut self, room: &str) {
        self.ask(Asked::Join { room: room.to_owned() }, "join", &json!({"room": room}));
    }

    fn ask_watch(&mut self, users: Vec<String>) {
        let params = json!({"users": users});
        self.ask(Asked::Watch { users }, "watch", &params);
    }

    /// Lets the next message go, unless a room is still being joined: it may be for there.
    fn pump(&mut self, now: Millis) {
        while self.phase == Phase::Online && !self.calls.any_join() {
            let Some(params) = self.outgoing.next_params(now) else { return };
            // The frame around the params is shorter than this.
            if params.to_string().len() + 100 > self.max_message {
                let Some(message) = self.outgoing.take_unsent() else { return };
                let why = format!("longer than {} bytes", self.max_message);
                self.tell(News::NotSent { message, why });
                self.end_if_finished();
                continue;
            }
            let id = self.ask(Asked::Send, "send", &params);
            self.outgoing.asked(id);
        }
    }

    // Coming back, and ending.

    fn come_back(&mut self, now: Millis, why: &str, at_least_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        self.calls.clear();
        self.outgoing.connection_ended();
        self.refresh_at = None;
        self.silent = false;
        let asked_back = self.bye.take().as_ref().and_then(policy::asked_back);
        let (least, most) = asked_back.unwrap_or_else(|| self.policy.window(self.failures));
        let wait_ms = self.random.between(least, most).max(at_least_ms);
        self.phase = Phase::Waiting { until: now + wait_ms };
        self.actions.push_back(Action::Close);
        if self.identity.renews {
            self.actions.push_back(Action::ReadToken);
        }
        self.tell(News::Offline { why: why.to_owned(), wait_ms });
    }

    fn end_if_finished(&mut self) {
        if self.finishing && self.outgoing.len() == 0 && self.has_arrived() {
            self.end(Ending::done());
        }
    }

    fn end(&mut self, ending: Ending) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Ended;
            self.actions.push_back(Action::Close);
            self.actions.push_back(Action::End(ending));
        }
    }

    fn tell(&mut self, news: News) {
        self.actions.push_back(Action::Tell(news));
    }
}

#[cfg(test)]
mod tests;
