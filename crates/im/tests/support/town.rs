//! A server of several workers in a test's hand: each with an application of its own, as processes have
//! it, with timers that come due and notifications that may come late or not at all.

use super::{request, small_settings};
use dunlin_im::ImApp;
use dunlin_server::simulation::{Deed, FakeWorker};
use dunlin_server::{App, Closed, ClosedBy, ConnId, Message, SlotId, TimerDue, TimerId};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(crate) struct Town {
    words: Vec<(&'static str, String)>,
    pub(crate) workers: Vec<(ImApp, FakeWorker)>,
    /// Who serves a connection.
    homes: BTreeMap<ConnId, usize>,
    /// Notifications that have arrived and were not taken.
    inbox: BTreeMap<ConnId, Vec<Value>>,
    answers: BTreeMap<ConnId, Vec<Value>>,
    /// What is on its way, while `hold` is set.
    held: Vec<(ConnId, Value)>,
    pub(crate) hold: bool,
    /// When a timer is due, in which worker, what it carries.
    timers: Vec<(u64, usize, Vec<u8>)>,
    pub(crate) clock: u64,
    /// Connections that were closed by a worker, and with which code.
    pub(crate) closed: Vec<(ConnId, u16)>,
}

impl Town {
    pub(crate) fn new(workers: u16, words: &[(&'static str, &str)]) -> Self {
        let mut words: Vec<(&'static str, String)> =
            words.iter().map(|(key, word)| (*key, (*word).to_owned())).collect();
        if words.iter().all(|(key, _)| *key != "table.max_sessions") {
            words.push(("table.max_sessions", "64".into()));
        }
        let mut app = application(&words);
        let capacity = words.iter().find(|(key, _)| *key == "table.max_sessions");
        let capacity = capacity.expect("pushed above").1.parse().expect("a number");
        let first = FakeWorker::start(&mut app, capacity);
        let mut town = Self {
            words,
            workers: vec![(app, first)],
            homes: BTreeMap::new(),
            inbox: BTreeMap::new(),
            answers: BTreeMap::new(),
            held: Vec::new(),
            hold: false,
            timers: Vec::new(),
            clock: 0,
            closed: Vec::new(),
        };
        for slot in 1..workers {
            let app = town.process();
            let worker = town.workers[0].1.sibling(SlotId(slot));
            town.workers.push((app, worker));
        }
        for worker in 0..town.workers.len() {
            town.begin(worker);
        }
        town.pass(1);
        town
    }

    /// A connection to a worker.
    pub(crate) fn open(&mut self, worker: usize) -> ConnId {
        let (app, fake) = &mut self.workers[worker];
        let conn = fake.open(app, "192.0.2.7:4711".parse().unwrap(), "/ws");
        fake.take_deeds();
        self.homes.insert(conn, worker);
        conn
    }

    /// A connection that is logged in.
    pub(crate) fn login(&mut self, worker: usize, user: &str, device: &str) -> ConnId {
        let conn = self.open(worker);
        let answer = self.call(conn, "login", json!({"user": user, "device": {"id": device}}));
        assert!(answer["result"].is_object(), "{answer}");
        conn
    }

    /// A request and its answer.
    pub(crate) fn call(&mut self, conn: ConnId, method: &str, params: Value) -> Value {
        self.say(conn, method, params);
        self.collect(None);
        let answers = self.answers.remove(&conn).unwrap_or_default();
        assert_eq!(answers.len(), 1, "{method}: {answers:?}");
        answers.into_iter().next().unwrap()
    }

    /// The states that `watch`, `unwatch` or `presence` answers.
    pub(crate) fn ask(&mut self, conn: ConnId, method: &str, users: &[&str]) -> Value {
        let answer = self.call(conn, method, json!({"users": users}));
        assert!(answer["result"].is_object(), "{answer}");
        answer["result"]["users"].clone()
    }

    /// Code and reason of a request that is refused.
    pub(crate) fn refused(&mut self, conn: ConnId, method: &str, params: Value) -> (i64, String) {
        let answer = self.call(conn, method, params);
        let error = &answer["error"];
        let reason = error["data"]["reason"].as_str().unwrap_or_else(|| panic!("{answer}"));
        (error["code"].as_i64().unwrap(), reason.to_owned())
    }

    /// The `presence` notifications a connection got since it was last asked.
    pub(crate) fn news(&mut self, conn: ConnId) -> Vec<Value> {
        let mut news = self.inbox.remove(&conn).unwrap_or_default();
        news.retain(|said| said["method"] == "presence");
        news.into_iter().map(|mut said| said["params"].take()).collect()
    }

    /// The same in short: who, and on which devices.
    pub(crate) fn told(&mut self, conn: ConnId) -> Vec<(String, Vec<String>)> {
        self.news(conn).iter().map(short).collect()
    }

    /// A connection ends.
    pub(crate) fn close(&mut self, conn: ConnId, by: ClosedBy) {
        self.close_quietly(conn, by);
        self.collect(None);
    }

    /// The worker of a connection dies while it serves it, and its successor closes it.
    pub(crate) fn lose(&mut self, conn: ConnId) {
        let worker = self.homes[&conn];
        self.workers[worker].1.lose(conn);
        self.replace(worker);
        self.close(conn, ClosedBy::WorkerLost);
        self.pass(1);
    }

    /// A worker does something and dies before any of its mail has left; its successor begins.
    pub(crate) fn die_over(&mut self, worker: usize, deed: impl FnOnce(&mut Self)) {
        deed(self);
        self.collect(Some(worker));
        self.replace(worker);
        self.pass(1);
    }

    /// `close` without what it leads to.
    pub(crate) fn close_quietly(&mut self, conn: ConnId, by: ClosedBy) {
        let (app, fake) = &mut self.workers[self.homes[&conn]];
        fake.end(app, conn, &Closed { code: 1006, reason: String::new(), by });
        self.inbox.remove(&conn);
        self.homes.remove(&conn);
    }

    /// `message` without what it leads to.
    pub(crate) fn say(&mut self, conn: ConnId, method: &str, params: Value) {
        let (app, fake) = &mut self.workers[self.homes[&conn]];
        fake.touch(conn);
        let text = request(method, params);
        app.message(&mut fake.context(), conn, Message::Text(&text));
    }

    /// A new process in a worker's place, which knows nothing but what is shared.
    pub(crate) fn replace(&mut self, worker: usize) {
        self.workers[worker].0 = self.process();
        self.begin(worker);
    }

    /// Time passes, and timers come due.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.clock + ms;
        loop {
            let due = self.timers.iter().map(|timer| timer.0).min().filter(|due| *due <= end);
            let step = due.unwrap_or(end).saturating_sub(self.clock);
            self.clock += step;
            self.workers.iter_mut().for_each(|(_, fake)| fake.pass(step));
            let Some(due) = due else { return };
            let place = self.timers.iter().position(|timer| timer.0 == due).unwrap();
            self.fire(place);
            self.collect(None);
        }
    }

    /// The next timer of a worker comes, if it has one, and the worker dies over it.
    pub(crate) fn die_over_timer(&mut self, worker: usize) {
        let mine = self.timers.iter().enumerate().filter(|(_, timer)| timer.1 == worker);
        let Some((place, _)) = mine.min_by_key(|(_, timer)| timer.0) else { return };
        let wait = self.timers[place].0.saturating_sub(self.clock);
        // Those of others that were due before are late.
        self.clock += wait;
        self.workers.iter_mut().for_each(|(_, fake)| fake.pass(wait));
        self.die_over(worker, |town| town.fire(place));
    }

    /// What was held back arrives, the last first.
    pub(crate) fn release_reversed(&mut self) {
        self.hold = false;
        for (conn, said) in std::mem::take(&mut self.held).into_iter().rev() {
            self.inbox.entry(conn).or_default().push(said);
        }
    }

    /// Answers that were not asked for by `call`.
    pub(crate) fn forget_answers(&mut self) {
        self.answers.clear();
    }

    pub(crate) fn timers(&self) -> usize {
        self.timers.len()
    }

    /// `presence` of the status.
    pub(crate) fn status(&self, name: &str) -> u64 {
        let (app, fake) = &self.workers[0];
        fake.in_master(|master| app.status(master))["presence"][name].as_u64().expect("a number")
    }

    /// Takes in what the workers did; what the `dead` one had said to others is lost.
    pub(crate) fn collect(&mut self, dead: Option<usize>) {
        for worker in 0..self.workers.len() {
            for deed in self.workers[worker].1.take_deeds() {
                match deed {
                    Deed::Push { .. } if dead == Some(worker) => {}
                    Deed::Push { conn, payload, .. } => self.deliver(conn, &payload),
                    Deed::Disconnect { conn, code, .. } => self.closed.push((conn, code)),
                    Deed::Arm { after_ms, payload, .. } => {
                        self.timers.push((self.clock + after_ms, worker, payload));
                    }
                    other => panic!("the application has no business with {other:?}"),
                }
            }
        }
    }

    fn deliver(&mut self, conn: ConnId, payload: &[u8]) {
        let said: Value = serde_json::from_slice(payload).expect("we send JSON");
        if said.get("method").is_none() {
            self.answers.entry(conn).or_default().push(said);
        } else if self.hold {
            self.held.push((conn, said));
        } else {
            self.inbox.entry(conn).or_default().push(said);
        }
    }

    fn fire(&mut self, place: usize) {
        let (due, worker, payload) = self.timers.remove(place);
        let (app, fake) = &mut self.workers[worker];
        let due = TimerDue { payload: &payload, ticks: 1, due: dunlin_server::clock::Millis(due) };
        app.timer(&mut fake.context(), TimerId(1), &due);
    }

    fn process(&self) -> ImApp {
        let mut app = application(&self.words);
        if let Some((_, first)) = self.workers.first() {
            first.in_master(|master| app.start(master));
        }
        app
    }

    fn begin(&mut self, worker: usize) {
        let (app, fake) = &mut self.workers[worker];
        app.worker_start(&mut fake.context()).expect("a worker starts");
        self.collect(None);
    }
}

/// Who a state is of, and on which devices he is.
pub(crate) fn short(state: &Value) -> (String, Vec<String>) {
    let devices = devices(state);
    assert_eq!(state["online"], !devices.is_empty(), "{state}");
    (state["user"].as_str().unwrap_or_default().to_owned(), devices)
}

pub(crate) fn devices(state: &Value) -> Vec<String> {
    let ids = state["devices"].as_array().expect("a list").iter();
    let mut ids: Vec<String> = ids.map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    ids.sort_unstable();
    ids
}

fn application(words: &[(&'static str, String)]) -> ImApp {
    let words: Vec<(&'static str, &str)> =
        words.iter().map(|(key, word)| (*key, &**word)).collect();
    ImApp::new(&small_settings(&words)).expect("the settings go together")
}
