//! The owner's backend through the hooks: who asks for tasks and timers, and what becomes of questions, without a
//! process and without a request.

use crate::support::{House, request, settings};
use dunlin_im::ImApp;
use dunlin_server::clock::Millis;
use dunlin_server::simulation::{Deed, FakeWorker};
use dunlin_server::{App, ConnId, Message, SlotId, TaskFailure, TaskId, TimerDue, TimerId};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// A house with a backend that nobody listens at, and the folder of its secret.
fn house(words: &[(&'static str, &str)]) -> (House, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("hush.key");
    fs::write(&secret, "5b1de0c7a94f4e2f8c3377d6f0a1b2c4").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let mut all = words.to_vec();
    let secret = secret.display().to_string();
    all.extend([("backend.url", "http://127.0.0.1:1/"), ("backend.secret_file", &*secret)]);
    (House::of(ImApp::new(&settings(&all)).unwrap(), 8), folder)
}

/// What was asked of the engine.
#[derive(Default, Debug)]
struct Asked {
    tasks: Vec<TaskId>,
    timers: Vec<(TimerId, u64, Vec<u8>)>,
    said: Vec<Value>,
}

fn asked(worker: &mut FakeWorker) -> Asked {
    let mut asked = Asked::default();
    for deed in worker.take_deeds() {
        match deed {
            Deed::Task { task, .. } => asked.tasks.push(task),
            Deed::Arm { timer, after_ms, payload, .. } => {
                asked.timers.push((timer, after_ms, payload));
            }
            Deed::Push { payload, .. } => {
                asked.said.push(serde_json::from_slice(&payload).unwrap())
            }
            _ => {}
        }
    }
    asked
}

fn say(house: &mut House, conn: ConnId, method: &str, params: Value) -> Asked {
    let text = request(method, params);
    house.app.message(&mut house.worker.context(), conn, Message::Text(&text));
    asked(&mut house.worker)
}

fn login(user: &str) -> Value {
    json!({"user": user, "device": {"id": "d"}})
}

fn backend(house: &House) -> Value {
    house.worker.in_master(|master| house.app.status(master))["backend"].clone()
}

fn fire(house: &mut House, timer: TimerId, payload: &[u8]) -> Asked {
    let due = TimerDue { payload, ticks: 1, due: Millis(0) };
    house.app.timer(&mut house.worker.context(), timer, &due);
    asked(&mut house.worker)
}

#[test]
fn one_task_is_asked_for_whatever_happens_meanwhile() {
    let (mut house, _folder) = house(&[]);
    let ann = house.open();
    let first = say(&mut house, ann, "login", login("ann"));
    assert_eq!(
        (first.tasks.len(), first.timers.len()),
        (1, 1),
        "a task, and a timer if it is lost"
    );
    for _ in 0..5 {
        let more = say(&mut house, ann, "logout", json!(null));
        assert!(more.tasks.is_empty() && more.timers.is_empty());
        say(&mut house, ann, "login", login("ann"));
    }
    assert_eq!(backend(&house)["seq"], 11);
    // It is lost without a word: the timer asks again.
    let (timer, after_ms, payload) = &first.timers[0];
    assert!(fire(&mut house, *timer, payload).tasks.is_empty(), "too early");
    house.worker.pass(*after_ms + 1);
    assert_eq!(fire(&mut house, *timer, payload).tasks.len(), 1);
}

#[test]
fn a_task_process_that_dies_telling_is_not_sent_into_it_again_at_once() {
    let (mut house, _folder) = house(&[]);
    let ann = house.open();
    let task = say(&mut house, ann, "login", login("ann")).tasks[0];
    let failure = Err(TaskFailure::ProcessLost);
    house.app.finish(&mut house.worker.context(), TaskId(task.0 + 77), failure);
    assert!(asked(&mut house.worker).timers.is_empty(), "another's task");
    let failure = Err(TaskFailure::ProcessLost);
    house.app.finish(&mut house.worker.context(), task, failure);
    let after = asked(&mut house.worker);
    assert!(after.tasks.is_empty());
    let (timer, after_ms, payload) = after.timers[0].clone();
    assert!((50..=101).contains(&after_ms), "{after_ms}");
    assert_eq!(backend(&house)["failures_in_a_row"], 1);
    house.worker.pass(after_ms + 1);
    assert_eq!(fire(&mut house, timer, &payload).tasks.len(), 1);
}

#[test]
fn nothing_is_asked_for_where_nothing_is_told() {
    let (mut house, _folder) = house(&[("backend.events", "logout")]);
    // The start itself is told, by the first worker.
    house.app.worker_start(&mut house.worker.context()).unwrap();
    assert_eq!(asked(&mut house.worker).tasks.len(), 1);
    let ann = house.open();
    let login = say(&mut house, ann, "login", login("ann"));
    assert!(login.tasks.is_empty() && login.timers.is_empty());
    say(&mut house, ann, "send", json!({"to": {"user": "ann"}, "body": 1}));
    assert_eq!(backend(&house)["seq"], 0);
}

#[test]
fn a_question_that_is_not_answered_is_by_its_guard() {
    let words = [("backend.authorise", "login"), ("backend.events", "")];
    let (mut house, _folder) = house(&words);
    let ann = house.open();
    let began = say(&mut house, ann, "login", login("ann"));
    assert!(began.said.is_empty() && began.tasks.len() == 1, "{began:?}");
    let (timer, after_ms, payload) = began.timers[0].clone();
    assert_eq!(after_ms, 5_000);
    let again = say(&mut house, ann, "login", login("ann"));
    assert_eq!(again.said[0]["error"]["data"]["reason"], "login_under_way");
    // A failure of the task alone says nothing: the guard does.
    let failure = Err(TaskFailure::TimedOut);
    house.app.finish(&mut house.worker.context(), began.tasks[0], failure);
    assert!(asked(&mut house.worker).said.is_empty());
    let over = fire(&mut house, timer, &payload);
    assert_eq!((&over.said[0]["id"], &over.said[0]["error"]["code"]), (&json!(1), &json!(-32006)));
    assert!(fire(&mut house, timer, &payload).said.is_empty(), "answered once");
    // And the session may try again.
    assert_eq!(say(&mut house, ann, "login", login("bob")).tasks.len(), 1);
}

#[test]
fn a_yes_by_default_logs_in_who_was_noted_and_not_who_was_moved_away() {
    let words = [("backend.authorise", "login"), ("backend.authorise_failure", "allow")];
    let (mut house, _folder) = house(&words);
    let (ann, bob) = (house.open(), house.open());
    let of_ann = say(&mut house, ann, "login", login("ann")).timers;
    let of_bob = say(&mut house, bob, "login", login("bob")).timers;
    let guard = |timers: &[(TimerId, u64, Vec<u8>)]| {
        let (timer, _, payload) =
            timers.iter().find(|(_, _, payload)| payload.starts_with(b"backend.ask")).unwrap();
        (*timer, payload.clone())
    };
    let (timer, payload) = guard(&of_ann);
    let over = fire(&mut house, timer, &payload);
    assert_eq!(over.said[0]["result"]["user"], "ann");
    // Bob is served by another worker than the one that asked.
    let (timer, payload) = guard(&of_bob);
    let mut sibling = house.worker.sibling(SlotId(1));
    let due = TimerDue { payload: &payload, ticks: 1, due: Millis(0) };
    house.app.timer(&mut sibling.context(), timer, &due);
    let over = asked(&mut sibling);
    assert_eq!(over.said[0]["error"]["data"]["reason"], "moved", "{over:?}");
    assert_eq!(say(&mut house, bob, "login", login("bob")).said.len(), 0, "he is asked about anew");
}
