//! A worker's side, by its hooks, without Redis: who is asked, who is answered, and each bound.

use super::*;
use crate::config::IM_KEYS;
use dunlin_server::config::SERVER_KEYS;
use dunlin_server::settings::{Layers, Settings};
use dunlin_server::simulation::{Deed, FakeWorker};
use dunlin_server::{App, Closed, ClosedBy, TaskFailure, TimerDue};
use serde_json::{Value as Json, json};

struct House {
    app: ImApp,
    worker: FakeWorker,
}

fn app(words: &[(&'static str, &str)]) -> ImApp {
    let mut layers = Layers::default();
    layers.flag_words("redis.url", "unix:///nowhere/redis.sock", "--set");
    for (key, word) in words {
        layers.flag_words(key, word, "--set");
    }
    ImApp::new(&Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers).unwrap()).unwrap()
}

impl House {
    fn new(words: &[(&'static str, &str)]) -> Self {
        let mut app = app(words);
        let worker = FakeWorker::start(&mut app, 32);
        Self { app, worker }
    }

    /// One where Redis is there.
    fn connected(words: &[(&'static str, &str)]) -> Self {
        let house = Self::new(words);
        house.app.tables().online.note_connected();
        house
    }

    fn login(&mut self, user: &str) -> ConnId {
        let conn = self.worker.open(&mut self.app, "192.0.2.7:1".parse().unwrap(), "/ws");
        self.say(conn, "login", &json!({"user": user, "device": {"id": "here"}}));
        self.worker.take_deeds();
        conn
    }

    fn say(&mut self, conn: ConnId, method: &str, params: &Json) {
        let text = json!({"id": "a\"1", "method": method, "params": params}).to_string();
        self.app.message(&mut self.worker.context(), conn, Message::Text(&text));
    }

    fn tick(&mut self, timer: u64) {
        let due = TimerDue { payload: TICK, ticks: 1, due: Millis(0) };
        self.app.timer(&mut self.worker.context(), TimerId(timer), &due);
    }

    /// The tasks handed out since the last look, and what was pushed.
    fn deeds(&mut self) -> (Vec<(TaskId, Vec<u8>)>, Vec<Json>) {
        let (mut tasks, mut pushed) = (Vec::new(), Vec::new());
        for deed in self.worker.take_deeds() {
            match deed {
                Deed::Task { task, work } => tasks.push((task, work)),
                Deed::Push { payload, .. } => {
                    pushed.push(serde_json::from_slice(&payload).unwrap())
                }
                _ => {}
            }
        }
        (tasks, pushed)
    }

    fn found(&mut self, task: TaskId, conn: ConnId, elsewhere: Option<Vec<Vec<Entry>>>) {
        let asker = Asker::session(conn, r#""a\"1""#);
        let users = vec!["ann".to_owned(), "bob".to_owned()];
        let outcome = OnlineOutcome::Found { asker, users, elsewhere };
        let result = Ok(crate::tasks::Outcome::Online(outcome));
        self.app.finish(&mut self.worker.context(), task, result);
    }

    fn counted(&self, what: OnlineCount) -> u64 {
        self.app.tables().online.counted(what)
    }
}

fn ask() -> Json {
    json!({"users": ["ann", "bob"]})
}

fn elsewhere() -> Option<Vec<Vec<Entry>>> {
    let entry = Entry {
        session: "0000000000000001".into(),
        device: "there".into(),
        model: "M".into(),
        kind: "k".into(),
        since: 1,
        last_active: 9,
    };
    Some(vec![vec![entry.clone()], vec![entry]])
}

#[test]
fn the_answer_joins_what_is_here_and_elsewhere() {
    let mut house = House::connected(&[]);
    let conn = house.login("ann");
    house.say(conn, "presence", &ask());
    let (tasks, pushed) = house.deeds();
    assert_eq!((tasks.len(), pushed.len()), (1, 0), "the answer waits");
    house.found(tasks[0].0, conn, elsewhere());
    let (_, pushed) = house.deeds();
    let users = &pushed[0]["result"]["users"];
    assert_eq!((&pushed[0]["id"], pushed.len()), (&json!("a\"1"), 1));
    let devices: Vec<&Json> =
        users["ann"]["devices"].as_array().unwrap().iter().map(|device| &device["id"]).collect();
    assert_eq!(devices, ["here", "there"]);
    let there = json!([{"id": "there", "model": "M", "kind": "k", "last_active": 9}]);
    assert_eq!((&users["bob"]["online"], &users["bob"]["devices"]), (&json!(true), &there));
    assert!(pushed[0]["result"].get("partial").is_none());
    // A notification asks nobody.
    let text = json!({"method": "presence", "params": ask()}).to_string();
    house.app.message(&mut house.worker.context(), conn, Message::Text(&text));
    assert!(house.worker.take_deeds().is_empty());
}

#[test]
fn who_waits_too_long_is_answered_from_here_and_once() {
    let mut house = House::connected(&[("redis.timeout", "300ms")]);
    let conn = house.login("ann");
    house.say(conn, "presence", &ask());
    let (tasks, _) = house.deeds();
    house.worker.pass(299);
    house.tick(7);
    assert!(house.deeds().1.is_empty());
    house.worker.pass(1);
    house.tick(7);
    let (_, pushed) = house.deeds();
    assert_eq!(pushed.len(), 1);
    assert_eq!(pushed[0]["result"]["partial"], true);
    assert_eq!(pushed[0]["result"]["users"]["ann"]["online"], true);
    house.found(tasks[0].0, conn, elsewhere());
    assert!(house.deeds().1.is_empty(), "it is answered");
    // Nor by a successor, who remembers nothing.
    house.app.online.desk = std::cell::RefCell::default();
    house.found(tasks[0].0, conn, elsewhere());
    assert!(house.deeds().1.is_empty());
    assert_eq!(house.counted(OnlineCount::Partial), 1);
}

#[test]
fn a_successor_answers_what_its_predecessor_asked() {
    let mut house = House::connected(&[]);
    let conn = house.login("ann");
    house.say(conn, "presence", &ask());
    let (tasks, _) = house.deeds();
    house.app.online.desk = std::cell::RefCell::default();
    house.found(tasks[0].0, conn, elsewhere());
    assert_eq!(house.deeds().1.len(), 1);
}

#[test]
fn a_question_whose_task_is_lost_is_answered_from_here() {
    let mut house = House::connected(&[]);
    let conn = house.login("ann");
    house.say(conn, "presence", &ask());
    let (tasks, _) = house.deeds();
    let lost = || Err(TaskFailure::ProcessLost);
    house.app.finish(&mut house.worker.context(), tasks[0].0, lost());
    let (_, pushed) = house.deeds();
    assert_eq!((pushed.len(), &pushed[0]["result"]["partial"]), (1, &json!(true)));
    house.app.finish(&mut house.worker.context(), tasks[0].0, lost());
    assert!(house.deeds().1.is_empty());
}

#[test]
fn no_more_questions_than_may_be_are_under_way() {
    let mut house = House::connected(&[("redis.max_queries", "2")]);
    let conn = house.login("ann");
    for _ in 0..3 {
        house.say(conn, "presence", &ask());
    }
    let (tasks, pushed) = house.deeds();
    assert_eq!((tasks.len(), pushed.len()), (2, 1));
    assert_eq!(pushed[0]["result"]["partial"], true);
    house.found(tasks[0].0, conn, None);
    assert_eq!(house.deeds().1[0]["result"]["partial"], true, "Redis did not say");
    house.say(conn, "presence", &ask());
    assert_eq!(house.deeds().0.len(), 1, "there is room again");
    assert_eq!((house.counted(OnlineCount::Asked), house.counted(OnlineCount::Partial)), (3, 2));
}

#[test]
fn while_redis_is_away_nobody_waits_and_a_beat_is_tried() {
    let mut house = House::new(&[]);
    let conn = house.login("ann");
    house.say(conn, "presence", &ask());
    let (tasks, pushed) = house.deeds();
    assert!(tasks.is_empty() && pushed[0]["result"]["partial"] == true);
    house.tick(7);
    assert_eq!(house.counted(OnlineCount::Dropped), 1, "the sweep will write her");
    let (tasks, _) = house.deeds();
    assert_eq!(tasks.len(), 1, "the beat alone");
    let (task, work) = &tasks[0];
    let result = house.worker.do_task(&mut house.app, *task, work);
    house.app.finish(&mut house.worker.context(), *task, result);
    let status = house.worker.in_master(|master| house.app.status(master));
    assert_eq!(status["redis"]["configured"], true);
    assert_eq!(status["redis"]["connected"], false);
    assert!(status["redis"]["last_error"].is_string(), "{status}");
    assert_eq!(house.counted(OnlineCount::Failed), 1);
}

#[test]
fn changes_go_together_one_task_at_a_time_and_no_more_than_may_wait() {
    let mut house = House::connected(&[("redis.max_changes", "3")]);
    let conns: Vec<ConnId> = ["a", "b", "a", "c", "d", "e"].map(|user| house.login(user)).into();
    assert_eq!(house.counted(OnlineCount::Dropped), 2);
    house.tick(7);
    let (tasks, _) = house.deeds();
    assert_eq!(tasks.len(), 3, "changes, a beat, a sweep");
    let closed = Closed { code: 1000, reason: String::new(), by: ClosedBy::Client };
    house.worker.end(&mut house.app, conns[0], &closed);
    house.tick(7);
    assert!(house.deeds().0.is_empty(), "one at a time");
    let synced = || Ok(crate::tasks::Outcome::Online(OnlineOutcome::Synced));
    house.app.finish(&mut house.worker.context(), tasks[0].0, synced());
    house.tick(7);
    let (tasks, _) = house.deeds();
    assert_eq!(tasks.len(), 1);
    // Its outcome is lost: not waited for beyond a lease.
    house.login("f");
    house.worker.pass(14_999);
    house.app.tables().online.claim_beat(house.worker.context::<ImApp>().now(), 15_000, 1_000);
    house.tick(7);
    let syncs = |tasks: &[(TaskId, Vec<u8>)]| {
        tasks.iter().filter(|(_, work)| work.ends_with(b"\x01f")).count()
    };
    assert_eq!(syncs(&house.deeds().0), 0);
    house.worker.pass(1);
    house.tick(7);
    assert_eq!(syncs(&house.deeds().0), 1);
}

#[test]
fn where_many_come_at_once_a_full_task_follows_at_once() {
    let mut house = House::connected(&[]);
    let many = |house: &House, from: usize| {
        (from..from + USERS_PER_TASK).for_each(|n| house.app.note_change(&format!("u{n}")));
    };
    many(&house, 0);
    house.tick(7);
    let mut task = house.deeds().0[0].0;
    many(&house, 10_000);
    house.app.note_change("one more");
    let synced = || Ok(crate::tasks::Outcome::Online(OnlineOutcome::Synced));
    for expected in [1, 0] {
        house.app.finish(&mut house.worker.context(), task, synced());
        let (tasks, _) = house.deeds();
        assert_eq!(tasks.len(), expected, "the last one waits for the timer");
        task = tasks.first().map_or(task, |(task, _)| *task);
    }
    house.tick(7);
    assert_eq!(house.deeds().0.len(), 1);
}

#[test]
fn a_slot_has_one_timer_whatever_restarts() {
    let mut house = House::new(&[]);
    house.app.worker_start(&mut house.worker.context()).unwrap();
    let own = house.app.online.desk.borrow().tick.unwrap();
    let cleared = |house: &mut House| -> Vec<TimerId> {
        let deeds = house.worker.take_deeds().into_iter();
        deeds
            .filter_map(|deed| match deed {
                Deed::ClearTimer(timer) => Some(timer),
                _ => None,
            })
            .collect()
    };
    house.tick(own.0);
    assert_eq!(cleared(&mut house), []);
    house.tick(99);
    assert_eq!(cleared(&mut house), [own], "its predecessor's, or its successor's");
    house.tick(99);
    assert_eq!(cleared(&mut house), []);
    house.app.config.redis.url = None;
    house.tick(99);
    assert_eq!(cleared(&mut house), [TimerId(99)]);
    house.app.worker_start(&mut house.worker.context()).unwrap();
    let ticks = |deed: &Deed| matches!(deed, Deed::Arm { period_ms, .. } if *period_ms > 0);
    assert!(!house.worker.take_deeds().iter().any(ticks));
}
