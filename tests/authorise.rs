//! The backend is asked whether a login or a join may be: what it says, and what becomes of a request when it
//! says nothing.

use crate::backend::{figure, starter, task_pid};
use crate::support::backend::{Backend, Manner};
use crate::support::server::{A_WHILE, dunlin};
use crate::support::{Client, Server, process, wait};
use serde_json::{Value as Json, json};
use std::fs;

const BOTH: &str = "authorise = [\"login\", \"join\"]\ntimeout = \"1s\"";

/// Lets in who has the ticket, mallory as eve and with a room, and into rooms but the closed one.
fn decide(asked: &Json) -> String {
    if asked["event"] != "authorise" {
        return String::new();
    }
    let verdict = match (asked["action"].as_str(), asked["user"].as_str()) {
        (Some("login"), Some("mallory")) => json!({"allow": true, "user": "eve", "rooms": ["tea"]}),
        (Some("login"), _) => {
            json!({"allow": asked["params"]["ticket"] == "gold", "reason": "no ticket"})
        }
        _ => json!({"allow": asked["room"] != "closed"}),
    };
    verdict.to_string()
}

fn login(user: &str, ticket: &str) -> Json {
    json!({"user": user, "device": {"id": "d", "model": "M", "kind": "k"}, "ticket": ticket})
}

fn reason(client: &mut Client, method: &str, params: Json) -> (i64, String) {
    client.error(method, params)
}

#[test]
fn the_backend_says_who_may_come_and_who_it_is() {
    let backend = Backend::start();
    backend.behave(Manner::Decide(decide));
    let server = starter(&backend, BOTH).start();
    let mut ann = server.client();
    assert_eq!(reason(&mut ann, "login", login("ann", "tin")), (-32003, "denied".into()));
    assert_eq!(reason(&mut ann, "sessions", json!(null)).0, -32000, "nobody is logged in");
    let result = ann.result("login", login("ann", "gold"));
    assert_eq!((&result["user"], &result["device"]), (&json!("ann"), &json!("d")));
    assert_eq!(ann.result("sessions", json!(null))["sessions"].as_array().map(Vec::len), Some(1));
    let asked = backend.told_of("authorise").pop().expect("it was asked");
    assert_eq!((&asked["action"], &asked["ip"]), (&json!("login"), &json!("127.0.0.1")));
    assert_eq!(asked["device"], json!({"id": "d", "model": "M", "kind": "k"}));
    assert_eq!((&asked["session"], &asked["seq"]), (&result["session"], &json!(null)));
    let told = backend.wait_for("login", "ann");
    assert_eq!(told["device"], json!({"id": "d", "model": "M", "kind": "k"}));

    // Another name, and a room with it.
    let mut eve = server.client();
    assert_eq!(eve.result("login", login("mallory", ""))["user"], "eve");
    assert_eq!(ann.result("join", json!({"room": "tea"})), json!({"room": "tea", "count": 2}));
    assert_eq!(reason(&mut ann, "join", json!({"room": "closed"})), (-32003, "denied".into()));
    assert_eq!(reason(&mut ann, "members", json!({"room": "closed"})).0, -32003);
    let members = ann.result("members", json!({"room": "tea"}));
    assert_eq!(members["members"].as_array().map(Vec::len), Some(2));
    let asked = backend.told_of("authorise").pop().expect("it was asked");
    assert_eq!((&asked["action"], &asked["user"]), (&json!("join"), &json!("ann")));
    // Without an id nothing is answered, and it is done all the same.
    let mut bob = server.client();
    bob.send_json(&json!({"method": "login", "params": login("bob", "gold")}));
    wait::until("bob is there", || ann.sees_online("bob"));
    let status = server.status();
    let figures = ["allowed", "denied", "unasked"].map(|name| figure(&status, name));
    assert_eq!(figures, [4, 2, 0]);
    assert_eq!(status.number("/sessions/logged_in"), 3);
}

#[test]
fn what_the_backend_does_not_say_is_refused_unless_the_config_allows_it() {
    let backend = Backend::start();
    let more = "authorise = [\"login\"]\ntimeout = \"300ms\"\nevents = []";
    let server = starter(&backend, more).start();
    backend.wait_for_boot("start");
    let unavailable = || (-32006, "backend_unavailable".to_owned());
    for manner in [
        Manner::Answer(200, "{\"allow\":\"yes\"}".into()),
        Manner::Answer(200, String::new()),
        Manner::Answer(404, "{\"allow\":true}".into()),
        Manner::Answer(500, "{\"allow\":true}".into()),
        Manner::Hang,
        Manner::HangUp,
        Manner::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{\"allow\":true".to_vec()),
    ] {
        backend.behave(manner.clone());
        let mut ann = server.client();
        assert_eq!(reason(&mut ann, "login", login("ann", "")), unavailable(), "{manner:?}");
    }
    // Nobody is asked any more once it has failed often enough.
    backend.behave(Manner::Hang);
    let mut ann = server.client();
    while server.status().0["backend"]["circuit"] != "open" {
        assert_eq!(reason(&mut ann, "login", login("ann", "")), unavailable());
    }
    let before = backend.told_of("authorise").len();
    let error = ann.call("login", login("ann", "")).expect_err("refused at once");
    assert!(error["data"]["retry_after_ms"].as_u64().is_some_and(|ms| ms >= 1_000), "{error}");
    assert_eq!(backend.told_of("authorise").len(), before);

    let allow = format!(
        "[server]\nworkers = 2\n{}",
        backend.config(&format!("{more}\nauthorise_failure = \"allow\""))
    );
    server.dir().write_config(&allow);
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    assert_eq!(ann.result("login", login("ann", ""))["user"], "ann");
    // A clear no is one under either policy, once it is there again.
    backend.behave(Manner::Answer(200, "{\"allow\":false}".into()));
    wait::until("the circuit is closed", || {
        let mut bob = server.client();
        bob.call("login", login("bob", "")).is_err_and(|error| error["data"]["reason"] == "denied")
    });
}

#[test]
fn an_answer_finds_its_request_after_a_reload() {
    let backend = Backend::start();
    let server = starter(&backend, "authorise = [\"login\"]\ntimeout = \"2s\"").start();
    backend.wait_for_boot("start");
    backend.behave(Manner::Hang);
    let mut ann = server.client();
    ann.send_json(&json!({"id": "a", "method": "login", "params": login("ann", "")}));
    wait::until("it is asked", || !backend.told_of("authorise").is_empty());
    // One at a time; pings go on.
    assert_eq!(reason(&mut ann, "login", login("ann", "")), (-32006, "login_under_way".into()));
    ann.result("ping", json!(null));
    let reloaded = server.verb(&["reload"]);
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
    let answer = ann.response();
    assert_eq!(answer["id"], "a");
    assert_eq!(answer["error"]["data"]["reason"], "backend_unavailable", "{answer}");
    backend.behave(Manner::Decide(decide));
    wait::until("a login", || ann.call("login", login("ann", "gold")).is_ok());
}

#[test]
fn a_killed_task_process_refuses_and_a_client_that_went_is_forgotten() {
    let backend = Backend::start();
    let server = starter(&backend, "authorise = [\"login\"]\ntimeout = \"1s\"").start();
    backend.wait_for_boot("start");
    backend.behave(Manner::Hang);
    let mut ann = server.client();
    ann.send_json(&json!({"id": 7, "method": "login", "params": login("ann", "")}));
    wait::until("it is asked", || !backend.told_of("authorise").is_empty());
    process::signal("KILL", task_pid(&server));
    backend.behave(Manner::Decide(decide));
    let answer = ann.response();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32006)), "{answer}");
    assert!(ann.call("login", login("ann", "gold")).is_ok());

    // Who goes while he is asked about comes to nothing, and the next one in his row is himself.
    backend.behave(Manner::Hang);
    let asked = backend.told_of("authorise").len();
    let mut bob = server.client();
    bob.send_json(&json!({"id": 1, "method": "login", "params": login("bob", "gold")}));
    wait::until("it is asked", || backend.told_of("authorise").len() > asked);
    drop(bob);
    server.wait_until("he is gone", |status| status.number("/sessions/used") == 1);
    let mut zoe = server.client();
    wait::holds_for("zoe is nobody", A_WHILE, || !ann.sees_online("bob"));
    backend.behave(Manner::Decide(decide));
    wait::until("zoe is there", || zoe.call("login", login("zoe", "gold")).is_ok());
    assert!(!ann.sees_online("bob") && ann.sees_online("zoe"));
    assert_eq!(server.status().number("/sessions/logged_in"), 2);
}

#[test]
fn a_join_by_a_login_that_has_ended_is_refused() {
    let backend = Backend::start();
    let more = "authorise = [\"join\"]\ntimeout = \"1s\"\nauthorise_failure = \"allow\"";
    let server = starter(&backend, more).start();
    backend.wait_for_boot("start");
    let mut ann = server.client().login("ann");
    backend.wait_for("login", "ann");
    backend.behave(Manner::Hang);
    ann.send_json(&json!({"id": "j", "method": "join", "params": {"room": "tea"}}));
    wait::until("it is asked", || !backend.told_of("authorise").is_empty());
    ann.send_json(&json!({"id": "o", "method": "logout"}));
    assert_eq!(ann.response()["id"], "o");
    let answer = ann.response();
    assert_eq!(
        (&answer["id"], &answer["error"]["code"]),
        (&json!("j"), &json!(-32000)),
        "{answer}"
    );
    ann.log_in("ann", "ann-device");
    assert_eq!(ann.result("join", json!({"room": "tea"}))["count"], 1, "allowed, unasked");
}

#[test]
fn a_token_that_is_asked_about_keeps_to_its_rooms() {
    let backend = Backend::start();
    backend.behave(Manner::Answer(200, json!({"allow": true, "rooms": ["cellar"]}).to_string()));
    let starter = starter(&backend, "authorise = [\"login\"]\nevents = []");
    let toml = fs::read_to_string(starter.dir().config_file()).expect("the config");
    let auth = "\n[auth]\nmode = \"token\"\nsecret_file = \"hush.key\"\n";
    starter.dir().write_config(&(toml + auth));
    let server = starter.start();
    let mut mint = dunlin();
    mint.args(["token", "--user", "ann", "--rooms", "tea,coffee", "-c"]);
    mint.arg(server.dir().config_file()).current_dir(server.dir().path());
    let token = process::run(&mut mint).stdout.trim_end().to_owned();
    let mut ann = server.client();
    let result = ann.result("login", json!({"token": token, "device": {"id": "d"}}));
    assert_eq!(result["rooms"], json!(["tea", "coffee"]));
    assert_eq!(ann.result("members", json!({"room": "tea"}))["members"], json!(["ann"]));
    // What the backend names beyond the token is not joined, and cannot be.
    let no = (-32003, "room_not_allowed".to_owned());
    assert_eq!(reason(&mut ann, "join", json!({"room": "cellar"})), no);
    let asked = backend.told_of("authorise").pop().expect("it was asked");
    assert_eq!(asked["params"], json!(null), "a token is not shown around");
}

#[test]
fn nobody_can_be_asked_without_a_backend() {
    let alone = Server::configure("[backend]\nauthorise = [\"login\"]\n");
    alone.fails(2, &["dunlin.toml:2: backend.authorise needs backend.url"]);
}
