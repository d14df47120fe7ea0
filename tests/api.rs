//! The HTTP API of a running server, as a backend calls it.

use crate::support::api::Api;
use crate::support::http::{Http, get};
use crate::support::process::signal;
use crate::support::{Server, wait};
use serde_json::{Value as Json, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const TOML: &str = "[server]\nworkers = 2\ntask_workers = 0";
const KEY: &str = "0123456789abcdefghijklmnopqrstuv";

fn key_file(dir: &Path, text: &str, mode: u32) -> PathBuf {
    let path = dir.join("operators.key");
    fs::write(&path, text).expect("the test's own directory");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its own file");
    path
}

#[test]
fn the_key_is_made_for_its_owner_and_goes_with_the_server() {
    let mut server = Server::start(TOML);
    let path = server.run_dir().join("api.key");
    let made = fs::read_to_string(&path).expect("the key's file");
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o7777, 0o600);
    assert_eq!(made.trim_end().len(), 64);
    assert!(!server.dir().log().contains(made.trim_end()));
    let api = Api::of(&server);
    assert_eq!(api.read("/api/sessions"), json!({"sessions": []}));
    // The same over every way to go on.
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    assert_eq!(server.verb(&["upgrade"]).code, Some(0));
    signal("KILL", server.status().worker_pid(0));
    assert_eq!(fs::read_to_string(&path).expect("it stays"), made);
    for _ in 0..8 {
        api.read("/api/sessions");
    }
    server.signal("TERM");
    server.wait_end();
    assert!(!path.exists());
    let server = server.start_again();
    let next = fs::read_to_string(&path).expect("the next key");
    assert_ne!(next, made);
    let old = Api::new(server.address, made.trim_end());
    assert_eq!(old.get("/api/sessions").status, 401);
}

#[test]
fn a_configured_key_rotates_by_a_reload() {
    let starter = Server::configure(TOML);
    let path = key_file(starter.dir().path(), &format!("{KEY}\n"), 0o600);
    let config = format!("{TOML}\n[http]\napi_key_file = \"{}\"", path.display());
    starter.dir().write_config(&config);
    let server = starter.start();
    assert!(!server.run_dir().join("api.key").exists(), "none is made where one is named");
    let (old, new) = (Api::new(server.address, KEY), Api::new(server.address, &KEY.to_uppercase()));
    let status = |api: &Api| api.get("/api/sessions").status;
    assert_eq!((status(&old), status(&new)), (200, 401));
    // What a reload refuses changes nothing.
    for (text, mode) in [("short", 0o600), ("", 0o600), (KEY, 0o604)] {
        key_file(server.dir().path(), text, mode);
        let ended = server.verb(&["reload"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("http.api_key_file"), "{ended:?}");
        assert!(text.is_empty() || !ended.stderr.contains(text), "{ended:?}");
        assert_eq!((status(&old), status(&new)), (200, 401));
    }
    key_file(server.dir().path(), &KEY.to_uppercase(), 0o600);
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    for _ in 0..8 {
        assert_eq!((status(&old), status(&new)), (401, 200));
    }
    // Without the key of the config the server makes one, also while it runs.
    server.dir().write_config(TOML);
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    assert_eq!((status(&old), status(&new), status(&Api::of(&server))), (401, 401, 200));
}

#[test]
fn a_start_with_a_bad_key_is_refused() {
    for (text, mode, says) in [
        ("", 0o600, "empty"),
        ("too short", 0o600, "9 bytes"),
        ("changeme-changeme-changeme-changeme", 0o600, "examples"),
        (KEY, 0o644, "chmod o-rwx"),
    ] {
        let starter = Server::configure(TOML);
        let path = key_file(starter.dir().path(), text, mode);
        starter.dir().write_config(&format!("[http]\napi_key_file = \"{}\"", path.display()));
        let line = starter.fails(2, &["http.api_key_file", says]);
        assert!(text.len() < 9 || !line.contains(text), "{line}");
        assert!(!starter.dir().run_dir().exists());
    }
    let starter = Server::configure("[http]\napi_key_file = \"nowhere.key\"");
    starter.fails(2, &["dunlin.toml:2", "http.api_key_file", "nowhere.key"]);
}

#[test]
fn a_push_reaches_a_user_on_every_worker_and_everybody_who_is_logged_in() {
    let server = Server::start(TOML);
    let api = Api::of(&server);
    let mut ann = server.client().login("ann");
    let mut other = server.client_apart_from(&mut [&mut ann]);
    other.log_in("ann", "second");
    let mut bob = server.client().login("bob");
    let mut stranger = server.client();
    let said = api.tell("/api/push", &json!({"to": {"user": "ann"}, "body": {"n": 1}}));
    assert_eq!(said["sessions"], 2);
    for client in [&mut ann, &mut other] {
        let message = client.notification("message");
        assert_eq!((&message["id"], &message["from"]), (&said["id"], &Json::Null));
        assert_eq!((&message["to"], &message["body"]), (&json!({"user": "ann"}), &json!({"n": 1})));
    }
    let said = api.tell("/api/push", &json!({"to": "all", "body": "hello"}));
    assert_eq!(said["sessions"], 3);
    for client in [&mut ann, &mut other, &mut bob] {
        let message = client.notification("message");
        assert_eq!((&message["to"], &message["body"]), (&json!("all"), &json!("hello")));
    }
    stranger.result("ping", json!({}));
    assert_eq!(stranger.unread(), 0, "who has not logged in gets nothing");
}

#[test]
fn a_kick_closes_with_4511_on_every_worker() {
    let server = Server::start(TOML);
    let api = Api::of(&server);
    let mut ann = server.client().login("ann");
    let mut other = server.client_apart_from(&mut [&mut ann]);
    other.log_in("ann", "second");
    let mut bob = server.client().login("bob");
    let kick = json!({"user": "ann", "reason": "house rules"});
    assert_eq!(api.tell("/api/kick", &kick), json!({"kicked": 2}));
    for client in [&mut ann, &mut other] {
        let (code, bye) = client.expect_close();
        let bye = bye.expect("a bye before the close");
        assert_eq!((code, &bye["code"], &bye["reconnect"]), (4511, &json!(4511), &json!(false)));
        assert_eq!(bye["reason"], "house rules");
    }
    assert!(!bob.sees_online("ann"));
    let presence = api.read("/api/presence?user=ann&user=bob");
    let online = |user: &str| presence["users"][user]["online"].clone();
    assert_eq!((online("ann"), online("bob")), (json!(false), json!(true)));
}

#[test]
fn sessions_are_listed_over_all_workers_and_through_a_death() {
    let server = Server::start(TOML);
    let api = Api::of(&server);
    let mut clients: Vec<_> = (0..12).map(|n| server.client().login(&format!("u{n}"))).collect();
    let all = || -> Vec<Json> {
        let (mut all, mut path) = (Vec::new(), "/api/sessions?limit=5".to_owned());
        loop {
            let page = api.read(&path);
            all.extend(page["sessions"].as_array().expect("a list").clone());
            let Some(cursor) = page["cursor"].as_str() else { return all };
            path = format!("/api/sessions?limit=5&cursor={cursor}");
        }
    };
    let seen = all();
    assert_eq!(seen.len(), 12);
    let one = seen.iter().find(|one| one["user"] == "u0").expect("the first of them");
    assert_eq!((&one["ip"], &one["device"]), (&json!("127.0.0.1"), &json!("u0-device")));
    assert_eq!(one["session"], clients[0].hello["session"]);
    let workers = |all: &[Json]| -> Vec<u64> {
        let mut workers: Vec<_> = all.iter().filter_map(|one| one["worker"].as_u64()).collect();
        workers.sort_unstable();
        workers.dedup();
        workers
    };
    assert!(workers(&seen).iter().all(|worker| *worker < 2));
    signal("KILL", server.status().worker_pid(0));
    wait::until("all twelve again", || all().len() == 12);
    clients[0].result("ping", json!({}));
    drop(clients);
    wait::until("nobody", || all().is_empty());
}

#[test]
fn the_status_is_that_of_the_pipe_and_metrics_are_of_all_workers() {
    let server = Server::start(TOML);
    let api = Api::of(&server);
    let _clients = [server.client().login("ann"), server.client().login("bob")];
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    let fields = |object: &Json| -> Vec<String> {
        object.as_object().expect("an object").keys().cloned().collect()
    };
    // Whichever worker answers.
    for _ in 0..8 {
        let (told, piped) = (api.read("/api/status"), server.status().0);
        assert_eq!(fields(&told), fields(&piped));
        assert_eq!(fields(&told["workers"][0]), fields(&piped["workers"][0]));
        for field in [
            "name",
            "version",
            "pid",
            "state",
            "generation",
            "started_at",
            "listen",
            "config",
            "reloads",
            "last_reload",
            "processes",
            "upgrades",
            "stopping",
        ] {
            assert_eq!(told[field], piped[field], "{field}");
        }
        assert_eq!(told["sessions"]["logged_in"], 2);
        assert!(told["uptime_ms"].as_u64() <= piped["uptime_ms"].as_u64());
    }
    assert_eq!(api.read("/api/status")["generation"], 2);
    let metric = |name: &str| -> u64 {
        let answer = api.get("/metrics");
        assert!(answer.header("content-type").is_some_and(|kind| kind.contains("version=0.0.4")));
        let mut values = answer.body.lines().filter_map(|line| line.strip_prefix(name));
        let value = values.next().unwrap_or_else(|| panic!("no {name}: {}", answer.body));
        value.trim().parse().expect("a number")
    };
    assert_eq!(metric("dunlin_sessions_logged_in "), 2);
    assert_eq!(metric("dunlin_reloads_total "), 1);
    let logins = metric("dunlin_logins_total ");
    let before = metric("dunlin_http_requests_total ");
    signal("KILL", server.status().worker_pid(1));
    server.wait_until("the next worker", |status| status.0["workers"][1]["restarts"] == 1);
    server.wait_until("both workers", |status| status.ready_workers() == 2);
    // Counters belong to the slot, and go on.
    assert_eq!(
        (
            metric("dunlin_logins_total "),
            metric("dunlin_process_restarts_total{process=\"worker-1\",role=\"worker\"} ")
        ),
        (logins, 1)
    );
    assert!(metric("dunlin_http_requests_total ") > before);
    assert_eq!(get(server.address, "/metrics").status, 401);
}

#[test]
fn every_error_is_json_also_of_what_never_became_a_request() {
    let server = Server::start(TOML);
    let api = Api::of(&server);
    let error = |answer: &crate::support::http::Answer, status: u16, reason: &str| {
        assert_eq!(answer.status, status, "{answer:?}");
        let body = answer.json();
        assert_eq!(body["error"], reason, "{answer:?}");
        assert!(body["message"].is_string(), "{answer:?}");
    };
    let anonymous = get(server.address, "/api/status");
    error(&anonymous, 401, "unauthorized");
    assert_eq!(anonymous.header("www-authenticate"), Some("Bearer"));
    error(&api.get("/api/nope"), 404, "not_found");
    error(&api.get("/api/push"), 405, "method_not_allowed");
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    error(&api.ask("POST", "/api/push", form, "to=all"), 415, "unsupported_media_type");
    error(
        &api.ask("GET", "/api/sessions", "Origin: https://evil.test\r\n", ""),
        403,
        "forbidden_origin",
    );
    error(
        &api.post("/api/push", &json!({"to": "all", "body": "x".repeat(65_536)})),
        413,
        "too_large",
    );
    for (bytes, status, reason) in [
        ("POST /api/push HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n", 413, "too_large"),
        ("POST /api/push?x HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, "bad_request"),
        (
            "POST /api/push HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            411,
            "bad_request",
        ),
        ("GET /api/%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
    ] {
        error(&Http::connect(server.address).ask(bytes), status, reason);
    }
    // An upgrade there is no WebSocket, and elsewhere errors stay plain.
    let upgrade = crate::im::upgrade_request("/api/push");
    error(&Http::connect(server.address).ask(upgrade), 401, "unauthorized");
    let plain = Http::connect(server.address).ask("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(plain.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    let counts = server.status().0["api"].clone();
    assert_eq!((&counts["unauthorized"], &counts["forbidden"]), (&json!(2), &json!(1)), "{counts}");
}

#[test]
fn a_flood_of_wrong_keys_does_not_flood_the_log() {
    let server = Server::start("[server]\nworkers = 1\ntask_workers = 0");
    let mut http = Http::connect(server.address);
    const ASKED: usize = 300;
    for _ in 0..ASKED {
        let answer = http
            .ask("GET /api/sessions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer guess\r\n\r\n");
        assert_eq!(answer.status, 401);
    }
    let log = server.dir().log();
    let lines = log.lines().filter(|line| line.contains("an API call is refused")).count();
    assert!((1..ASKED / 3).contains(&lines), "{lines} lines");
    assert!(!log.contains("guess"));
    assert_eq!(server.status().number("/api/unauthorized"), 300);
}
