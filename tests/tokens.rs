//! The token mode of the real binary: what starts, who gets in, rotation by reload, and the end of a token.

use crate::support::dir::Dir;
use crate::support::process::{self, Ended};
use crate::support::server::{Starter, dunlin};
use crate::support::{Client, Server, wait};
use serde_json::{Value as Json, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

const SECRET: &str = "0f8d2c7be1a94635bb0d7c51e6a2f394";
const NEXT_SECRET: &str = "the next secret, as long as the one before it";

/// A server of two workers in token mode by the secret in `token.key`, with more lines in `[auth]`.
fn starter(auth: &str) -> Starter {
    let starter = Server::configure("");
    starter.dir().write_key("token.key", SECRET, 0o600);
    configure(starter.dir(), &format!("secret_file = \"token.key\"\n{auth}"));
    starter
}

fn configure(dir: &Dir, auth: &str) {
    dir.write_config(&format!("[server]\nworkers = 2\n[auth]\nmode = \"token\"\n{auth}\n"));
}

/// `dunlin token` by the config file of this directory.
fn token_command(dir: &Dir, flags: &[&str]) -> Ended {
    let mut command = dunlin();
    command.arg("token").arg("-c").arg(dir.config_file()).args(flags).current_dir(dir.path());
    process::run(&mut command)
}

/// A token by the config file of this directory.
pub(crate) fn mint(dir: &Dir, flags: &[&str]) -> String {
    let ended = token_command(dir, flags);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{ended:?}");
    ended.stdout.trim_end().to_owned()
}

fn login(client: &mut Client, token: &str, device: &str) -> Result<Json, Json> {
    client.call("login", json!({"token": token, "device": {"id": device}}))
}

fn reason(outcome: Result<Json, Json>) -> String {
    let error = outcome.expect_err("it must be refused");
    error["data"]["reason"].as_str().expect("a reason").to_owned()
}

#[test]
fn who_has_a_token_is_who_it_says() {
    let server = starter("").start();
    let mut ann = server.client();
    let token = mint(server.dir(), &["--user", "ann", "--ttl", "600", "--rooms", "tea,coffee"]);
    let result = login(&mut ann, &token, "p").expect("a login");
    assert_eq!((&result["user"], &result["device"]), (&json!("ann"), &json!("p")));
    let left =
        result["expires"].as_u64().expect("a time") - result["time"].as_u64().expect("a time");
    assert!((590_000..=600_000).contains(&left), "{left}");
    let mut bob = server.client();
    let bound = mint(server.dir(), &["--user", "bob", "--device", "desk"]);
    assert_eq!(reason(login(&mut bob, &bound, "phone")), "wrong_device");
    login(&mut bob, &bound, "desk").expect("a login");
    assert_eq!(bob.send_to("ann", &json!("hello"))["sessions"], 1);
    assert_eq!(ann.message_body(), "hello");
    let auth = &server.status().0["auth"];
    assert_eq!(*auth, json!({"mode": "token", "keys": 1, "logins": 2, "refused": 1, "expired": 0}));
}

#[test]
fn who_has_none_or_a_bad_one_stays_out_and_is_closed_after_five() {
    let server = starter("").start();
    let mut client = server.client();
    let good = mint(server.dir(), &["--user", "ann"]);
    let by_name = client.error("login", json!({"user": "ann", "device": {"id": "p"}}));
    assert_eq!(by_name, (-32602, "invalid_params".into()));
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let flipped: String = signature.chars().rev().collect();
    let huge = "x".repeat(1_000_000);
    assert_eq!(reason(login(&mut client, &huge, "p")), "invalid_params");
    for token in ["", "a.b.c", &format!("{message}."), &format!("{message}.{flipped}")] {
        assert_eq!(reason(login(&mut client, token, "p")), "auth_failed", "{token}");
    }
    assert_eq!(client.error("sessions", json!({})).1, "login_required");
    assert_eq!(reason(login(&mut client, "d.e.f", "p")), "auth_failed");
    let (code, bye) = client.expect_close();
    assert_eq!((code, &bye.expect("a bye")["reconnect"]), (4502, &json!(false)));
    let mut client = server.client();
    let late = mint(server.dir(), &["--user", "ann", "--ttl", "1"]);
    // Its end is told in whole seconds; the leeway of the server is five.
    thread::sleep(Duration::from_millis(1_100));
    login(&mut client, &late, "p").expect("a login within the leeway");
    let log = server.dir().log();
    assert!(log.contains("a token was refused"), "{log}");
    for secret in [SECRET, &*good, &*flipped, "a.b.c"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn a_reload_rotates_keys_and_a_bad_key_changes_nothing() {
    let starter = starter("");
    let dir = starter.dir().path().to_owned();
    let server = starter.start();
    let old = mint(server.dir(), &["--user", "ann"]);
    let mut ann = server.client();
    login(&mut ann, &old, "p").expect("a login");
    let both = "keys = [\"kid=b alg=HS256 file=b.key\"]\nsecret_file = \"token.key\"";
    server.dir().write_key("b.key", NEXT_SECRET, 0o644);
    configure(server.dir(), both);
    let refused = server.verb(&["reload"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("b.key is open to every user"), "{refused:?}");
    login(&mut server.client(), &old, "q").expect("nothing has changed");
    fs::set_permissions(dir.join("b.key"), fs::Permissions::from_mode(0o600)).expect("its mode");
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    let new = mint(server.dir(), &["--user", "ann", "--kid", "b"]);
    for token in [&old, &new] {
        login(&mut server.client(), token, "r").expect("both keys are good");
    }
    configure(server.dir(), "keys = [\"kid=b alg=HS256 file=b.key\"]");
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    assert_eq!(reason(login(&mut server.client(), &old, "r")), "auth_failed");
    login(&mut server.client(), &new, "r").expect("the new key is good");
    // A key rewritten in place, by the same name.
    server.dir().write_key("b.key", SECRET, 0o600);
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    assert_eq!(reason(login(&mut server.client(), &new, "r")), "auth_failed");
    // Who is in stays in.
    assert_eq!(ann.result("sessions", json!({}))["sessions"][0]["device"], "p");
}

/// Says something every few milliseconds until shortly before the session's end, then reads to the close.
fn busy_to_the_end(client: &mut Client, login: &Json, began: Instant, after_ms: u64) {
    let time = |name: &str| login[name].as_u64().expect("a time");
    let end = Duration::from_millis(time("expires") + after_ms - time("time"));
    while began.elapsed() + Duration::from_millis(50) < end {
        client.ping_frame();
        client.result("ping", json!({}));
        thread::sleep(Duration::from_millis(5));
    }
    let (code, bye) = client.expect_close();
    let took = began.elapsed();
    assert_eq!((code, &bye.expect("a bye")["reason"]), (4502, &json!("the token has expired")));
    let late = Duration::from_millis(1_500);
    assert!(took + Duration::from_millis(20) >= end && took < end + late, "{took:?}, not {end:?}");
    eprintln!("closed {} ms after its end", took.saturating_sub(end).as_millis());
}

#[test]
fn a_busy_session_ends_with_its_token_over_a_reload_and_a_killed_worker() {
    let server = starter("leeway = \"0s\"\nexpiry_grace = \"300ms\"").start();
    let token = mint(server.dir(), &["--user", "ann", "--ttl", "3"]);
    let other = mint(server.dir(), &["--user", "bob", "--ttl", "60"]);
    let mut ann = server.client();
    let began = Instant::now();
    let login_of_ann = login(&mut ann, &token, "p").expect("a login");
    let mut bob = server.client();
    login(&mut bob, &other, "p").expect("a login");
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    server.kill_worker_of(&mut ann);
    server.wait_until("both workers serve", |status| status.ready_workers() == 2);
    busy_to_the_end(&mut ann, &login_of_ann, began, 300);
    assert!(!bob.sees_online("ann"));
    server.wait_until("it is counted", |status| status.number("/auth/expired") == 1);
}

#[test]
fn a_refresh_lets_a_session_go_on() {
    let server = starter("leeway = \"0s\"\nexpiry_grace = \"500ms\"").start();
    let token = |user, ttl| mint(server.dir(), &["--user", user, "--ttl", ttl]);
    let mut ann = server.client();
    login(&mut ann, &token("ann", "1"), "p").expect("a login");
    let refused = ann.error("refresh", json!({"token": token("bob", "60")}));
    assert_eq!(refused, (-32003, "wrong_user".into()));
    let began = Instant::now();
    let expires = ann.result("refresh", json!({"token": token("ann", "3")}))["expires"].clone();
    let time = ann.result("ping", json!({}))["time"].clone();
    busy_to_the_end(&mut ann, &json!({"expires": expires, "time": time}), began, 500);
}

#[test]
fn no_server_starts_with_a_secret_that_does_not_keep() {
    let table = [
        (
            "token.key",
            "secret",
            0o600,
            "secret_file = \"token.key\"",
            "auth.secret_file: the secret has 6 bytes",
        ),
        (
            "token.key",
            "",
            0o600,
            "secret_file = \"token.key\"",
            "auth.secret_file: the secret is empty",
        ),
        (
            "token.key",
            SECRET,
            0o644,
            "secret_file = \"token.key\"",
            "auth.secret_file: token.key is open to",
        ),
        (
            "other.key",
            SECRET,
            0o600,
            "secret_file = \"token.key\"",
            "auth.secret_file: cannot read token.key",
        ),
        (
            "token.key",
            SECRET,
            0o600,
            "keys = [\"kid=a alg=RS256 file=token.key\"]",
            "auth.keys, key a: this is no public key",
        ),
        (
            "token.key",
            SECRET,
            0o600,
            "keys = [\"kid=a alg=HS512 file=token.key\"]",
            "auth.keys: key 1 has an alg that is none",
        ),
        ("token.key", SECRET, 0o600, "", "auth.mode = \"token\" needs a key"),
        (
            "token.key",
            SECRET,
            0o600,
            "secret = \"0f8d2c7be1a94635bb0d7c51e6a2f394\"",
            "auth.secret is taken from the environment only",
        ),
    ];
    for (name, text, mode, auth, words) in table {
        let starter = Server::configure("");
        starter.dir().write_key(name, text, mode);
        configure(starter.dir(), auth);
        let line = starter.fails(2, &["dunlin.toml:", words]);
        assert!(!line.contains(SECRET), "{line}");
        assert!(!starter.dir().run_dir().exists());
    }
    for (variable, words) in [("", "auth.secret: the secret is empty"), ("changeme", "8 bytes")] {
        let starter = Server::configure("[auth]\nmode = \"token\"\n");
        starter.env("DUNLIN_AUTH__SECRET", variable).fails(2, &["DUNLIN_AUTH__SECRET", words]);
    }
    let flag = Server::configure("").args(&["--set", &format!("auth.secret={SECRET}")]);
    let line = flag.fails(2, &["auth.secret is a secret", "auth.secret_file"]);
    assert!(!line.contains(SECRET), "{line}");
}

#[test]
fn a_secret_from_the_environment_serves_and_is_shown_nowhere() {
    let toml = "[server]\nworkers = 1\n[auth]\nmode = \"token\"\n";
    let starter = Server::configure(toml).env("DUNLIN_AUTH__SECRET", SECRET);
    let dir = starter.dir();
    let run = |verb: &str, flags: &[&str]| {
        let mut command = dunlin();
        command.arg(verb).arg("-c").arg(dir.config_file()).args(flags);
        process::run(command.env("DUNLIN_AUTH__SECRET", SECRET))
    };
    let token = run("token", &["--user", "ann"]).stdout.trim_end().to_owned();
    let shown = run("check", &[]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("secret = ***") && !shown.stdout.contains(SECRET), "{shown:?}");
    let server = starter.start();
    login(&mut server.client(), &token, "p").expect("a login");
    assert!(!server.status().0.to_string().contains(SECRET));
    assert!(!server.dir().log().contains(SECRET));
}

#[test]
fn a_token_that_would_be_expired_at_once_is_refused() {
    let dir = Dir::new();
    dir.write_config("");
    let ended = token_command(&dir, &["--user", "ann", "--ttl", "0"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    assert!(ended.stderr.starts_with("dunlin: --ttl is 0"), "{ended:?}");
}

#[test]
fn a_token_is_minted_only_by_a_key_that_can() {
    let dir = Dir::new();
    dir.write_config("");
    let fails = |flags: &[&str], words: &str| {
        let ended = token_command(&dir, flags);
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
    };
    fails(&["--user", "ann"], "no signing key is configured");
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/im/tests/keys");
    let private = fs::read_to_string(format!("{keys}/eddsa.pem")).expect("a key of the tests");
    dir.write_key("d.pem", &private, 0o600);
    dir.write_key("open.pem", &private, 0o604);
    let line =
        |kid: &str, sign: &str| format!("\"kid={kid} alg=EdDSA file={keys}/eddsa.pub.pem{sign}\"");
    let lines = [line("a", ""), line("b", " sign=open.pem"), line("c", " sign=d.pem")].join(", ");
    configure(&dir, &format!("keys = [{lines}]"));
    fails(&["--user", "ann", "--kid", "x"], "auth.keys has no key x");
    fails(&["--user", "ann", "--kid", "a"], "the key a cannot sign");
    fails(&["--user", "ann", "--kid", "b"], "open.pem is open to every user");
    fails(&["--user", ""], "--user is no name: it must not be empty");
    fails(&["--user", "ann", "--device", &"x".repeat(65)], "--device is no name");
    fails(&["--user", "ann", "--ttl", "long"], "--ttl");
    let minted = mint(&dir, &["--user", "ann", "--kid", "c"]);
    assert_eq!(minted.split('.').count(), 3);
}

#[test]
fn one_device_means_one_on_whichever_worker() {
    let server = Server::start("[server]\nworkers = 2\n[im]\ndevices = \"one\"");
    let mut first = server.client();
    first.log_in("ann", "p1");
    let mut second = server.client_apart_from(&mut [&mut first]);
    second.log_in("ann", "p2");
    let (code, bye) = first.expect_close();
    assert_eq!((code, &bye.expect("a bye")["reconnect"]), (4510, &json!(false)));
    // The same device again, from the other worker: the new one stays.
    let mut again = server.client_apart_from(&mut [&mut second]);
    again.log_in("ann", "p2");
    assert_eq!(second.expect_close().0, 4510);
    wait::until("only the last is there", || {
        again.result("sessions", json!({}))["sessions"].as_array().is_some_and(|all| all.len() == 1)
    });
    assert!(again.sees_online("ann"));
}
