//! What a login by token costs the processor, without sockets: the whole hook (JSON, token, session
//! table, user index, answer), and the check of a token alone for each algorithm.
//!
//! ```sh
//! cargo run --release -p dunlin-im --example login_bench
//! ```
//!
//! Counts processor time of its one process, so that what else the machine does hardly matters.

use dunlin_im::auth::{Keyring, verify};
use dunlin_im::{IM_KEYS, ImApp, ImConfig};
use dunlin_server::clock::{self, cpu_ms};
use dunlin_server::config::SERVER_KEYS;
use dunlin_server::settings::{Layers, Settings};
use dunlin_server::simulation::FakeWorker;
use dunlin_server::{App, Message};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use std::hint::black_box;
use std::path::Path;

const SECRET: &str = "b7c1d04e9f2a4c55a1f06e3d8b9c7721";
const LOGINS: u32 = 200_000;
const CHECKS: u32 = 20_000;
const USERS: usize = 10_000;

fn main() {
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys");
    let line = |alg: Algorithm| {
        let file = format!("{alg:?}").to_lowercase();
        format!("kid={alg:?} alg={alg:?} file={keys}/{file}.pub.pem")
    };
    let pairs = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let mut layers = Layers::default();
    layers.environment.push(("DUNLIN_AUTH__SECRET".into(), SECRET.into()));
    layers.flag_words("auth.mode", "token", "--set");
    layers.flag_words("auth.keys", &pairs.map(line).join(","), "--set");
    layers.flag_words("table.max_sessions", &USERS.to_string(), "--set");
    let settings =
        Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers).expect("they are well formed");

    whole_logins(&settings);
    let config = ImConfig::from_settings(&settings).expect("they go together").auth;
    let keyring = Keyring::load(&config.keys).expect("the keys are good");
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let private = |alg: Algorithm| {
        let file = format!("{alg:?}").to_lowercase();
        std::fs::read(Path::new(keys).join(format!("{file}.pem"))).expect("a key of the tests")
    };
    let [rs256, es256, eddsa] = pairs.map(private);
    let pem = "a private key in PEM";
    for (alg, key) in [
        (Algorithm::HS256, secret),
        (Algorithm::RS256, EncodingKey::from_rsa_pem(&rs256).expect(pem)),
        (Algorithm::ES256, EncodingKey::from_ec_pem(&es256).expect(pem)),
        (Algorithm::EdDSA, EncodingKey::from_ed_pem(&eddsa).expect(pem)),
    ] {
        let token = token(alg, &key, "user-1");
        let began = cpu_ms();
        for _ in 0..CHECKS {
            let claims = verify(&keyring, &config, black_box(&token), clock::unix_ms());
            black_box(claims.expect("a right token"));
        }
        report(&format!("checks of {alg:?}"), CHECKS, cpu_ms() - began);
    }
}

/// Each user in turn logs in on a connection and out again, while all others are logged in.
fn whole_logins(settings: &Settings) {
    let mut app = ImApp::new(settings).expect("the settings go together");
    let capacity = u32::try_from(USERS).expect("it is small");
    let mut worker = FakeWorker::start(&mut app, capacity);
    let peer = "127.0.0.1:1".parse().expect("an address");
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let text = |user: usize| {
        let token = token(Algorithm::HS256, &secret, &format!("user-{user}"));
        let device = json!({"id": "d1", "model": "bench", "kind": "phone"});
        json!({"id": 1, "method": "login", "params": {"token": token, "device": device}})
            .to_string()
    };
    let logins: Vec<String> = (0..USERS).map(text).collect();
    let logout = json!({"id": 2, "method": "logout"}).to_string();
    let conns: Vec<_> = (0..USERS).map(|_| worker.open(&mut app, peer, "/ws")).collect();
    for (conn, login) in conns.iter().zip(&logins) {
        app.message(&mut worker.context(), *conn, Message::Text(login));
    }
    worker.take_deeds();
    let status = worker.in_master(|master| app.status(master));
    assert_eq!(status["sessions"]["logged_in"], USERS, "everybody is logged in");
    let mut logouts_ms = 0;
    let began = cpu_ms();
    for round in 0..LOGINS as usize / USERS {
        let before = cpu_ms();
        for conn in &conns {
            app.message(&mut worker.context(), *conn, Message::Text(&logout));
        }
        worker.take_deeds();
        logouts_ms += cpu_ms() - before;
        for (conn, login) in conns.iter().zip(&logins) {
            app.message(&mut worker.context(), *conn, Message::Text(login));
        }
        assert_eq!(worker.take_deeds().len(), USERS, "each is answered in round {round}");
    }
    report("whole logins with HS256", LOGINS, cpu_ms() - began - logouts_ms);
    let status = worker.in_master(|master| app.status(master));
    assert_eq!(status["sessions"]["logged_in"], USERS, "everybody is logged in");
}

fn token(alg: Algorithm, key: &EncodingKey, user: &str) -> String {
    let mut header = Header::new(alg);
    header.kid = (alg != Algorithm::HS256).then(|| format!("{alg:?}"));
    // Far beyond the clock of a fake worker, too.
    let claims = json!({"sub": user, "exp": 4_000_000_000_u64, "name": "Ann Lee"});
    jsonwebtoken::encode(&header, &claims, key).expect("it can be signed")
}

fn report(what: &str, times: u32, cpu_ms: u64) {
    let seconds = f64::from(u32::try_from(cpu_ms.max(1)).expect("it takes no days")) / 1_000.0;
    let each_us = seconds * 1_000_000.0 / f64::from(times);
    println!(
        "{what}: {:.0} a second of one core, {each_us:.1} µs each",
        f64::from(times) / seconds
    );
}
