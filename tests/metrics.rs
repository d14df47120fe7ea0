//! `GET /metrics` against the truth: what clients have counted themselves, over a reload and a kill.

use crate::support::api::Api;
use crate::support::exposition::Exposition;
use crate::support::process::{self, signal};
use crate::support::{Client, Server, wait};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

const TOML: &str = "[server]\nworkers = 2\ntask_workers = 1\n[im]\nheartbeat = \"10m\"\n\
                    [websocket]\nping_interval = \"0s\"";
const ROUNDS: usize = 25;

/// Clients that count.
#[derive(Default)]
struct Truth {
    clients: Vec<Client>,
    connections: u64,
    logins: u64,
    received: u64,
    sent: u64,
    to_others: u64,
    ends: BTreeMap<&'static str, u64>,
    /// Connections of the API, each with one request.
    asked: u64,
}

impl Truth {
    fn connect(&mut self, server: &Server) -> Client {
        let client = server.client();
        self.connections += 1;
        // `hello`.
        self.sent += 1;
        client
    }

    fn log_in(&mut self, server: &Server) {
        let mut client = self.connect(server);
        client.log_in(&format!("u{}", self.clients.len()), "d");
        self.clients.push(client);
        self.logins += 1;
        self.received += 1;
        self.sent += 1;
    }

    /// Everybody sends to the next one, and all of it comes.
    fn storm(&mut self) {
        let count = self.clients.len();
        for round in 0..ROUNDS {
            for at in 0..count {
                let to = format!("u{}", (at + 1) % count);
                let told = self.clients[at].send_to(&to, &json!(round));
                assert_eq!(told["sessions"], 1);
            }
            for client in &mut self.clients {
                assert_eq!(client.message_body(), json!(round));
            }
        }
        let messages = (ROUNDS * count) as u64;
        self.received += messages;
        self.sent += 2 * messages;
        self.to_others += messages;
    }

    fn end(&mut self, name: &'static str) {
        *self.ends.entry(name).or_default() += 1;
    }

    /// Ends the last client by a close frame of its own with this code.
    fn close_with(&mut self, code: u16, name: &'static str) {
        let mut client = self.clients.pop().expect("a client");
        // Masked by nothing.
        client.send_bytes(&[&[0x88, 0x82, 0, 0, 0, 0][..], &code.to_be_bytes()].concat());
        assert_eq!(client.expect_close().0, code);
        self.end(name);
    }

    /// The last client sends what it must not, and is told so.
    fn offend(&mut self, bytes: &[u8], code: u16, name: &'static str, messages: u64) {
        let mut client = self.clients.pop().expect("a client");
        client.send_bytes(bytes);
        assert_eq!(client.expect_close().0, code);
        self.end(name);
        self.received += messages;
        // `bye`, which is no message of another's.
        self.sent += 1;
    }

    fn read(&mut self, api: &Api) -> Exposition {
        self.asked += 1;
        let answer = api.get("/metrics");
        assert_eq!(answer.status, 200);
        Exposition::read(&answer.body)
    }

    /// What the server must say, by the names of its samples.
    fn expected(&self) -> BTreeMap<String, f64> {
        let closed = |name: &str| format!("dunlin_connections_closed_total{{code=\"{name}\"}}");
        // The one that asks is still there.
        let plain = self.asked - 1;
        let open = self.clients.len() as u64;
        let mut expected: BTreeMap<String, u64> = [
            ("dunlin_connections_accepted_total", self.connections + self.asked),
            ("dunlin_connections", open + 1),
            ("dunlin_websockets", open),
            ("dunlin_sessions", open),
            ("dunlin_sessions_logged_in", open),
            ("dunlin_logins_total", self.logins),
            ("dunlin_messages_received_total", self.received),
            ("dunlin_messages_sent_total", self.sent),
            ("dunlin_http_requests_total", self.connections + self.asked),
            ("dunlin_reloads_total", 1),
            ("dunlin_generation", 2),
            ("dunlin_last_reload_successful", 1),
            ("dunlin_violations_total", 2),
            ("dunlin_slow_closed_total", 0),
            ("dunlin_hook_panics_total", 0),
            ("dunlin_api_kicked_total", 1),
            ("dunlin_worker_generation{worker=\"0\"}", 3),
            ("dunlin_worker_generation{worker=\"1\"}", 2),
            ("dunlin_process_restarts_total{process=\"worker-0\",role=\"worker\"}", 1),
            (
                "dunlin_process_deaths_total{process=\"worker-0\",role=\"worker\",reason=\"killed\"}",
                1,
            ),
            (
                "dunlin_process_deaths_total{process=\"worker-1\",role=\"worker\",reason=\"killed\"}",
                0,
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        expected.insert(closed("none"), plain);
        for name in
            ["1000", "1001", "1002", "1003", "1005", "1006", "1007", "1012", "4511", "other"]
        {
            expected.insert(closed(name), self.ends.get(name).copied().unwrap_or(0));
        }
        // By worker, summed here.
        let ended: u64 = self.ends.values().sum();
        for (name, value) in [
            ("dunlin_connections_closed_total", ended + plain),
            ("dunlin_worker_connections_accepted_total", self.connections + self.asked),
            ("dunlin_worker_connections", open + 1),
            ("dunlin_worker_messages_received_total", self.received),
            ("dunlin_worker_messages_sent_total", self.sent),
            ("dunlin_message_latency_seconds_count", self.to_others),
            ("dunlin_process_deaths_total", 1),
        ] {
            expected.insert(format!("sum({name})"), value);
        }
        expected.into_iter().map(|(name, value)| (name, value as f64)).collect()
    }

    /// Reads until the server says what is true: what has just ended is counted a moment later.
    fn holds(&mut self, api: &Api) -> Exposition {
        let mut last = Vec::new();
        let deadline = std::time::Instant::now() + wait::DEADLINE / 2;
        loop {
            let told = self.read(api);
            last.clear();
            for (name, value) in self.expected() {
                let found = match name.strip_prefix("sum(").and_then(|name| name.strip_suffix(')'))
                {
                    Some(name) => told.sum(name),
                    None => told.value(&name),
                };
                if found != value {
                    last.push(format!("{name} is {found}, not {value}"));
                }
            }
            if last.is_empty() {
                return told;
            }
            assert!(std::time::Instant::now() < deadline, "{last:#?}");
        }
    }
}

#[test]
fn figures_equal_what_clients_have_counted_over_a_reload_and_a_kill() {
    let server = Server::start(TOML);
    let api = Api::of(&server);
    let mut truth = Truth::default();
    wait::until("clients on both workers", || {
        truth.log_in(&server);
        let status = server.status();
        truth.clients.len() >= 12
            && status.workers().iter().all(|worker| worker["sessions"].as_u64() > Some(0))
    });
    truth.storm();
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    truth.storm();
    // In no turn: nobody is being served, so nobody is lost.
    server.wait_until("quiet workers", |status| {
        status.workers().iter().all(|worker| worker["busy_ms"] == 0)
    });
    signal("KILL", server.status().worker_pid(0));
    server.wait_until("the next worker", |status| {
        status.workers()[0]["restarts"] == 1 && status.ready_workers() == 2
    });
    truth.storm();

    truth.close_with(1000, "1000");
    truth.close_with(1001, "1001");
    truth.close_with(3999, "other");
    truth.clients.pop().expect("a client").close();
    truth.end("1005");
    drop(truth.clients.pop());
    truth.end("1006");
    // Not masked; no UTF-8; binary, which is a message.
    truth.offend(&[0x81, 0x00], 1002, "1002", 0);
    truth.offend(&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007, "1007", 0);
    truth.offend(&[0x82, 0x81, 0, 0, 0, 0, 1], 1003, "1003", 1);
    let mut kicked = truth.clients.pop().expect("a client");
    let user = format!("u{}", truth.clients.len());
    assert_eq!(api.tell("/api/kick", &json!({"user": user}))["kicked"], 1);
    assert_eq!(kicked.expect_close().0, 4511);
    truth.end("4511");
    truth.asked += 1;
    // `bye`, said by another hook than one of its own.
    truth.sent += 1;
    truth.to_others += 1;

    let told = truth.holds(&api);
    assert!(told.sum("dunlin_turn_seconds_count") >= truth.received as f64 / 64.0);
    assert!(told.sum("dunlin_message_latency_seconds_sum") > 0.0);
    assert!(told.value("dunlin_uptime_seconds") < 600.0, "seconds");
    assert!(told.value("dunlin_process_resident_bytes{process=\"timer\",role=\"added\"}") > 1e5);
}

#[test]
fn timers_are_counted_by_how_late_they_were_told() {
    let server = Server::start("[im]\nlogin_timeout = \"200ms\"");
    let mut client = server.client();
    assert_eq!(client.expect_close().0, 4501);
    let told = Exposition::read(&Api::of(&server).get("/metrics").body);
    let late = told.value("dunlin_timer_late_seconds_count");
    assert!(late >= 1.0 && late == told.value("dunlin_timers_fired_total"));
    assert!(
        told.value("dunlin_timer_late_seconds_sum") < 20.0 * late,
        "late by less than a deadline"
    );
}

/// `promtool` of Debian's package `prometheus`, if it is there; `.ci/run` puts it there and says so.
fn promtool(arguments: &str, input: &str) {
    let wanted = std::env::var_os("DUNLIN_PROMTOOL");
    let program = wanted.clone().unwrap_or_else(|| "promtool".into());
    if wanted.is_none() && Command::new(&program).arg("--version").output().is_err() {
        eprintln!("promtool is not here: `promtool {arguments}` was left out; .ci/run has it");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("input");
    fs::write(&file, input).expect("a file");
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("exec \"$0\" {arguments} < \"$1\"")])
        .arg(program)
        .arg(file)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let ended = process::run(&mut command);
    // A remark about a name or a help text goes to standard error, with 3.
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{arguments}: {}", ended.stdout);
}

#[test]
fn promtool_finds_nothing_wrong_with_the_exposition() {
    let server = Server::start(TOML);
    let _ann = server.client().login("ann");
    promtool("check metrics", &Api::of(&server).get("/metrics").body);
}

#[test]
fn promtool_takes_the_alert_rules_and_they_fire_when_they_should() {
    promtool("check rules config/alerts.yml", "");
    promtool("test rules tests/prometheus/alerts.yml", "");
}
