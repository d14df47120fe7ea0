//! The owner's backend: what it is told, in which order, and what becomes of events when it refuses, hangs,
//! dies, or when our processes do.

use crate::support::backend::{Backend, Manner};
use crate::support::process;
use crate::support::server::{A_WHILE, Starter};
use crate::support::{Client, Server, Status, wait};
use serde_json::json;
use std::fs;
use std::net::TcpListener;

pub(crate) const SECRET: &str = "5b1de0c7a94f4e2f8c3377d6f0a1b2c4";

/// A server of two workers with this backend, and more lines in `[backend]`.
pub(crate) fn starter(backend: &Backend, more: &str) -> Starter {
    let starter = Server::configure(&config(backend, more));
    starter.dir().write_key("hush.key", &format!("{SECRET}\n"), 0o600);
    starter
}

fn config(backend: &Backend, more: &str) -> String {
    format!("[server]\nworkers = 2\n{}", backend.config(more))
}

pub(crate) fn figure(status: &Status, name: &str) -> u64 {
    status.number(&format!("/backend/{name}"))
}

pub(crate) fn task_pid(server: &Server) -> i64 {
    server.status().0["tasks"][0]["pid"].as_i64().expect("a pid")
}

#[test]
fn logins_and_their_ends_are_told_in_order() {
    let backend = Backend::start();
    let server = starter(&backend, "").start();
    assert_eq!(backend.wait_for_boot("start"), Vec::<String>::new());
    let boot = &backend.told_of("boot")[0];
    assert_eq!(boot["listen"], json!([server.address.to_string()]));
    assert_eq!((&boot["page"], &boot["seq"], &boot["boot"]), (&json!(0), &json!(1), &json!(1)));

    let mut ann = server.client();
    let device = json!({"id": "p", "model": "M", "kind": "phone"});
    let result = ann.result("login", json!({"user": "ann", "device": device}));
    let login = backend.wait_for("login", "ann");
    assert_eq!((&login["device"], &login["ip"]), (&device, &json!("127.0.0.1")));
    assert_eq!((&login["session"], &login["node"]), (&result["session"], &ann.hello["node"]));
    ann.result("logout", json!(null));
    let logout = backend.wait_for("logout", "ann");
    assert_eq!((&logout["by"], &logout["code"]), (&json!("logout"), &json!(null)));
    assert_eq!((&logout["device"], &logout["session"]), (&device, &result["session"]));
    let bob = server.client().login("bob");
    backend.wait_for("login", "bob");
    drop(bob);
    let logout = backend.wait_for("logout", "bob");
    assert_eq!((&logout["by"], &logout["code"]), (&json!("client"), &json!(1006)));

    let told = backend.told();
    let seqs: Vec<u64> = told.iter().map(crate::support::backend::Told::seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5], "in order, each once");
    assert!(told.iter().all(|told| told.headers["content-type"] == "application/json"));
    let status = server.wait_until("all sent", |status| figure(status, "sent") == 5);
    assert_eq!(status.0["backend"]["circuit"], "closed");
    assert_eq!((figure(&status, "seq"), figure(&status, "queued_bytes")), (5, 0));
    assert_eq!(status.0["backend"]["last_error"], json!(null));
}

#[test]
fn messages_are_told_where_they_are_asked_for() {
    let backend = Backend::start();
    let server = starter(&backend, "events = [\"message\"]\nqueue = \"16KiB\"").start();
    let mut ann = server.client().login("ann");
    let mut bob = server.client().login("bob");
    let sent = ann.send_to("bob", &json!({"text": "hi"}));
    let message = wait::for_some("the message", || backend.told_of("message").pop());
    assert_eq!(message["from"], json!({"user": "ann", "device": "ann-device"}));
    assert_eq!(
        (&message["to"], &message["body"]),
        (&json!({"user": "bob"}), &json!({"text": "hi"}))
    );
    assert_eq!((&message["id"], &message["sessions"]), (&sent["id"], &json!(1)));
    // One that is too long for the queue is told without its body.
    let long = "x".repeat(9_000);
    ann.send_to("bob", &json!(long));
    let message = wait::for_some("the second", || backend.told_of("message").get(1).cloned());
    assert_eq!((&message["body"], &message["omitted_bytes"]), (&json!(null), &json!(9_002)));
    assert_eq!((bob.message_body(), bob.message_body()), (json!({"text": "hi"}), json!(long)));
    assert!(backend.told_of("login").is_empty(), "it was not asked for");

    // Every third from here on.
    server.dir().write_config(&config(
        &backend,
        "events = [\"message\"]\nmessage_sample = 3\nqueue = \"16KiB\"",
    ));
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    (0..9).for_each(|n| _ = ann.send_to("bob", &json!(n)));
    wait::until("three of nine", || backend.told_of("message").len() == 5);
    wait::holds_for("not more", A_WHILE, || backend.told_of("message").len() == 5);
}

#[test]
fn a_backend_that_fails_is_tried_again_and_told_in_order_when_it_is_back() {
    let backend = Backend::start();
    let server = starter(&backend, "").start();
    backend.wait_for_boot("start");
    backend.behave(Manner::Answer(503, String::new()));
    let ann = server.client().login("ann");
    wait::until("two attempts", || backend.told_of("login").len() >= 2);
    let status =
        server.wait_until("the circuit open", |status| status.0["backend"]["circuit"] == "open");
    assert!(status.text("/backend/last_error").contains("status 503"), "{}", status.0["backend"]);
    assert!(figure(&status, "retried") >= 4 && figure(&status, "queued_bytes") > 0);
    drop(ann);
    let _bob = server.client().login("bob");
    // What does not fit any more does not hinder anybody.
    backend.behave(Manner::take());
    assert_eq!(backend.wait_for_boot("recovered"), ["bob"]);
    let told = backend.told();
    let last_try =
        told.iter().rposition(|told| told.event() == "login" && told.json()["user"] == "ann");
    let after: Vec<(String, u64)> = told[last_try.expect("it was told")..]
        .iter()
        .map(|told| (told.event(), told.seq()))
        .collect();
    let expected = [("login", 2), ("logout", 3), ("login", 4), ("boot", 5)];
    assert_eq!(after, expected.map(|(event, seq)| (event.to_owned(), seq)));
    let status = server
        .wait_until("the circuit closed", |status| status.0["backend"]["circuit"] == "closed");
    assert_eq!((figure(&status, "dropped"), figure(&status, "queue_full")), (0, 0));
}

#[test]
fn what_the_backend_does_not_want_is_dropped_and_a_redirect_is_not_followed() {
    let backend = Backend::start();
    let server = starter(&backend, "max_attempts = 2").start();
    backend.wait_for_boot("start");
    backend.behave(Manner::Answer(422, "no".into()));
    let _ann = server.client().login("ann");
    let status = server.wait_until("one refused", |status| figure(status, "refused") == 1);
    assert_eq!((figure(&status, "queued_bytes"), figure(&status, "retried")), (0, 0));
    assert!(status.text("/backend/last_error").contains("status 422"));

    // Nobody listens there, and nobody is asked: what is refused twice is dropped.
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a listener");
    elsewhere.set_nonblocking(true).expect("a socket option");
    let location = elsewhere.local_addr().expect("an address");
    let redirect =
        format!("HTTP/1.1 307 Go\r\nLocation: http://{location}/\r\nContent-Length: 0\r\n\r\n");
    backend.behave(Manner::Raw(redirect.into_bytes()));
    let _bob = server.client().login("bob");
    server.wait_until("one dropped", |status| figure(status, "dropped") == 1);
    backend.behave(Manner::take());
    let mut online = backend.wait_for_boot("lost");
    online.sort();
    assert_eq!(online, ["ann", "bob"], "what was lost is put right");
    assert!(elsewhere.accept().is_err(), "the redirect was not followed");
}

#[test]
fn hostile_answers_are_failures_and_nothing_more() {
    let huge = format!("HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n{}", "x".repeat(200_000));
    let long_head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(100_000));
    let backend = Backend::start();
    let server = starter(&backend, "timeout = \"500ms\"\nmax_attempts = 1").start();
    backend.wait_for_boot("start");
    let mut clients: Vec<Client> = Vec::new();
    for manner in [
        Manner::Raw(b"\x00\xff garbage\r\n\r\n".to_vec()),
        Manner::Raw(huge.into_bytes()),
        Manner::Raw(long_head.into_bytes()),
        Manner::Hang,
        Manner::HangUp,
    ] {
        let before = figure(&server.status(), "dropped");
        backend.behave(manner);
        clients.push(server.client().login(&format!("user{}", clients.len())));
        server.wait_until("one more dropped", |status| figure(status, "dropped") > before);
    }
    backend.behave(Manner::take());
    wait::until("the list of all", || {
        let boots = backend.told_of("boot");
        boots.last().is_some_and(|boot| boot["online"].as_array().is_some_and(|all| all.len() == 5))
    });
    assert_eq!(clients.iter_mut().filter_map(|client| client.is_open().then_some(())).count(), 5);
    assert_eq!(server.status().number("/tasks/0/restarts"), 0);
}

#[test]
fn a_backend_that_dies_and_comes_back_gets_what_it_missed() {
    let absent = Backend::absent();
    let server = starter(&absent, "").start();
    let _ann = server.client().login("ann");
    let status =
        server.wait_until("the circuit open", |status| status.0["backend"]["circuit"] == "open");
    assert!(status.text("/backend/last_error").contains("no connection"));
    let there = Backend::start_at(absent.address);
    there.wait_for("login", "ann");
    there.wait_for_boot("recovered");
}

#[test]
fn who_was_lost_with_a_worker_or_at_a_stop_is_told_of() {
    let backend = Backend::start();
    let mut server = starter(&backend, "").start();
    let mut ann = server.client().login("ann");
    let mut bob = server.client_apart_from(&mut [&mut ann]).login("bob");
    backend.wait_for("login", "bob");
    // Stopped in the middle of serving her: it is killed with her request in hand.
    let slot = server.worker_of(&mut ann);
    let pid = server.status().worker_pid(slot);
    process::signal("STOP", pid);
    ann.send_text(r#"{"id":99,"method":"ping"}"#);
    process::signal("KILL", pid);
    assert!(bob.is_open());
    // Whether her request was in hand or not, what she does next shows in an event of its own.
    drop(ann);
    let logout = backend.wait_for("logout", "ann");
    assert!(
        ["client", "worker_lost"].contains(&logout["by"].as_str().expect("a word")),
        "{logout}"
    );

    server.signal("TERM");
    let (code, _) = bob.expect_close();
    assert_eq!(code, 1001);
    server.wait_end();
    let logout = backend.wait_for("logout", "bob");
    assert_eq!((&logout["by"], &logout["code"]), (&json!("server"), &json!(1001)));
}

#[test]
fn a_task_process_that_is_killed_while_it_tells_loses_nothing() {
    let backend = Backend::start();
    let server = starter(&backend, "timeout = \"10s\"").start();
    backend.wait_for_boot("start");
    backend.behave(Manner::Hang);
    let _ann = server.client().login("ann");
    wait::until("it is being told", || !backend.told_of("login").is_empty());
    let pid = task_pid(&server);
    process::signal("KILL", pid);
    backend.behave(Manner::take());
    wait::until("told again", || backend.told_of("login").len() == 2);
    let again = backend.told_of("login");
    assert_eq!(again[0], again[1], "the same event by the same number");
    let status = server.wait_until("sent", |status| figure(status, "sent") == 2);
    assert_ne!(status.0["tasks"][0]["pid"], pid);
}

#[test]
fn a_full_queue_refuses_the_newest_and_the_list_puts_it_right() {
    let backend = Backend::start();
    let server = starter(&backend, "queue = \"16KiB\"").start();
    backend.wait_for_boot("start");
    backend.behave(Manner::Hang);
    let mut ann = server.client();
    // 64 slots of 256 bytes: two for each event.
    for _ in 0..40 {
        ann.log_in("ann", "device-of-ann");
        ann.result("logout", json!(null));
    }
    ann.log_in("ann", "device-of-ann");
    let status = server.wait_until("it is full", |status| figure(status, "queue_full") > 0);
    assert!(figure(&status, "queued_bytes") <= figure(&status, "queue_bytes"));
    backend.behave(Manner::take());
    assert_eq!(backend.wait_for_boot("lost"), ["ann"]);
    let told = backend.told();
    assert!(told.len() < 82, "some are missing");
    let seqs: Vec<u64> = told.iter().map(crate::support::backend::Told::seq).collect();
    let distinct: std::collections::BTreeSet<u64> = seqs.iter().copied().collect();
    let last = *distinct.last().expect("some");
    assert!(u64::try_from(distinct.len()).expect("few") < last, "the numbers tell: {seqs:?}");
}

/// More than two pages: a backend that read the first alone would forget the rest.
#[test]
fn a_boot_of_many_comes_in_pages_that_together_are_everybody() {
    const USERS: usize = 600;
    let (first, second) = (Backend::start(), Backend::start());
    let server = starter(&first, "").start();
    first.wait_for_boot("start");
    let users: Vec<_> =
        (0..USERS).map(|number| server.client().login(&format!("user-{number}"))).collect();
    server.dir().write_config(&config(&second, ""));
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    let mut online = second.wait_for_boot("reload");
    online.sort_unstable();
    online.dedup();
    assert_eq!(online.len(), USERS, "each user stands in a page");
    let told = second.told_of("boot");
    let pages: Vec<u64> = told.iter().filter_map(|page| page["page"].as_u64()).collect();
    assert!(pages.windows(2).all(|two| two[1] == two[0] || two[1] == two[0] + 1), "{pages:?}");
    assert_eq!(pages.last(), Some(&2), "{pages:?}");
    assert!(told.iter().all(|page| page["online"].as_array().is_some_and(|all| all.len() <= 250)));
    drop(users);
}

#[test]
fn a_reload_may_name_another_backend_and_a_bad_one_changes_nothing() {
    let (first, second) = (Backend::start(), Backend::start());
    let server = starter(&first, "").start();
    first.wait_for_boot("start");
    let _ann = server.client().login("ann");
    first.wait_for("login", "ann");
    server.dir().write_config(&config(&second, ""));
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    assert_eq!(second.wait_for_boot("reload"), ["ann"]);
    let _bob = server.client().login("bob");
    second.wait_for("login", "bob");
    assert_eq!(first.told_of("login").len(), 1);

    server.dir().write_config(&config(&first, "").replace("hush.key", "nowhere.key"));
    let refused = server.verb(&["reload"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("nowhere.key"), "{refused:?}");
    let _zoe = server.client().login("zoe");
    second.wait_for("login", "zoe");
}

#[test]
fn a_bad_secret_or_url_refuses_to_start() {
    let backend = Backend::start();
    let fails = |name: &str, secret: &str, mode: u32, words: &[&str]| {
        let starter = starter(&backend, "");
        starter.dir().write_key(name, secret, mode);
        starter.fails(2, words);
    };
    fails("hush.key", "short", 0o600, &["backend.secret_file", "5 bytes"]);
    fails("hush.key", "", 0o600, &["backend.secret_file", "empty"]);
    fails("hush.key", SECRET, 0o644, &["backend.secret_file", "open to every user"]);
    let url = Server::configure("[backend]\nurl = \"ftp://host/\"\nsecret_file = \"hush.key\"\n");
    url.fails(2, &["dunlin.toml:2: backend.url must be http:// or https://"]);
    let alone = Server::configure("[backend]\nurl = \"http://127.0.0.1:1/\"\n");
    alone.fails(2, &["needs backend.secret_file"]);
}

/// The code of a fence of docs/backend.md.
fn snippet(language: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/backend.md");
    let page = fs::read_to_string(path).expect("the page");
    let (_, code) = page.split_once(&format!("```{language}\n")).expect("the snippet");
    code.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_snippets_of_the_docs_take_what_we_sign_and_nothing_else() {
    let backend = Backend::start();
    let server = starter(&backend, "").start();
    let _ann = server.client().login("änn \\ \"x\"");
    let told = wait::for_some("the login", || {
        backend.told().into_iter().find(|told| told.event() == "login")
    });
    let headers = json!(told.headers);
    let capitalised: serde_json::Map<_, _> = ["Timestamp", "Sequence", "Signature"]
        .map(|name| {
            (format!("Dunlin-{name}"), headers[format!("dunlin-{}", name.to_lowercase())].clone())
        })
        .into_iter()
        .collect();
    let write = |name: &str, text: &str| {
        let path = server.dir().path().join(name);
        fs::write(&path, text).expect("a file");
        path
    };
    let body = write("body.json", &told.body);
    let python = format!(
        "{}\nimport json, sys\nsecret, headers, body = b'{SECRET}', json.loads(sys.argv[1]), open(sys.argv[2], 'rb').read()\n\
         genuine = is_genuine(secret, headers, body)\n\
         forged = [is_genuine(secret, headers, body + b' '), is_genuine(b'x' + secret, headers, body),\n\
         is_genuine(secret, headers, body, time.time() + 301)]\nprint(genuine, any(forged))",
        snippet("python")
    );
    let mut command = std::process::Command::new("python3");
    command.arg("-c").arg(python).arg(json!(capitalised).to_string()).arg(&body);
    assert_eq!(process::run(&mut command).stdout, "True False\n");
    let javascript = format!(
        "{}\nconst secret = '{SECRET}', headers = JSON.parse(process.argv[1]);\n\
         const body = require('node:fs').readFileSync(process.argv[2]);\n\
         const forged = [isGenuine(secret, headers, Buffer.concat([body, body])), isGenuine('x' + secret, headers, body),\n\
         isGenuine(secret, headers, body, Date.now() + 301000)];\n\
         console.log(isGenuine(secret, headers, body), forged.some((one) => one));",
        snippet("javascript")
    );
    let mut command = std::process::Command::new("node");
    command.arg("-e").arg(javascript).arg(headers.to_string()).arg(&body);
    assert_eq!(process::run(&mut command).stdout, "true false\n");
}
