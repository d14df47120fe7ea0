//! The names against each other, and against what is written of them elsewhere.

use super::families::families;
use super::place::{Kind, Place};
use super::text;
use serde_json::{Value as Json, json};
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

#[test]
fn names_are_those_that_prometheus_wants_and_each_stands_once() {
    let mut seen = HashSet::new();
    for family in families() {
        let name = family.name;
        assert!(seen.insert(name.clone()), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
        assert!(!name.contains("millisecond") && !name.ends_with("_ms"), "{name}: a base unit");
        assert!(family.help.ends_with('.') && !family.help.contains(['\n', '\\']), "{name}");
    }
}

fn status() -> Json {
    json!({
        "version": "1.2\"3\\",
        "state": "running",
        "uptime_ms": 5_250,
        "bounds_us": [20, 1_000_000],
        "master": {"rss_bytes": 7, "cpu_ms": 30},
        "workers": [
            {
                "slot": 0, "accepted": 2, "closed_by_code": {"1000": 1, "4002": 2}, "state": "running",
                "stood_in_by": null, "turns": {"counts": [3, 2, 1], "sum_us": 7_000_020},
                "deaths": {"killed": 1},
            },
            {"slot": 1, "accepted": 3, "closed_by_code": {"1000": 4, "none": 5}, "state": "crashed",
             "stood_in_by": 0, "turns": {"counts": [0, 0, 0], "sum_us": 0}},
            {"slot": 2},
        ],
        "processes": [{"name": "a\nb", "state": "running", "restarts": 2}],
        "api": {"ok": 1, "unauthorized": 7},
        "redis": {"configured": true, "connected": false},
        "last_reload": {"ok": null},
        "tasks": [],
    })
}

#[test]
fn figures_are_told_of_each_worker_and_of_all() {
    let text = text(&status());
    for line in [
        "# HELP dunlin_uptime_seconds Since the server started.",
        "# TYPE dunlin_uptime_seconds gauge",
        "dunlin_uptime_seconds 5.25",
        "dunlin_build_info{version=\"1.2\\\"3\\\\\"} 1",
        "# TYPE dunlin_connections_accepted_total counter",
        "dunlin_connections_accepted_total 5",
        "dunlin_worker_connections_accepted_total{worker=\"0\"} 2",
        "dunlin_worker_connections_accepted_total{worker=\"1\"} 3",
        "dunlin_worker_connections_accepted_total{worker=\"2\"} 0",
        "dunlin_connections_closed_total{code=\"1000\"} 5",
        "dunlin_connections_closed_total{code=\"4002\"} 2",
        "dunlin_connections_closed_total{code=\"4511\"} 0",
        "dunlin_connections_closed_total{code=\"none\"} 5",
        "dunlin_worker_stood_in{worker=\"0\"} 0",
        "dunlin_worker_stood_in{worker=\"1\"} 1",
        "# TYPE dunlin_turn_seconds histogram",
        "dunlin_turn_seconds_bucket{worker=\"0\",le=\"0.00002\"} 3",
        "dunlin_turn_seconds_bucket{worker=\"0\",le=\"1\"} 5",
        "dunlin_turn_seconds_bucket{worker=\"0\",le=\"+Inf\"} 6",
        "dunlin_turn_seconds_sum{worker=\"0\"} 7.00002",
        "dunlin_turn_seconds_count{worker=\"0\"} 6",
        "dunlin_process_resident_bytes{process=\"master\",role=\"master\"} 7",
        "dunlin_process_cpu_seconds_total{process=\"master\",role=\"master\"} 0.03",
        "dunlin_process_state{process=\"worker-1\",role=\"worker\",state=\"crashed\"} 1",
        "dunlin_process_state{process=\"worker-1\",role=\"worker\",state=\"running\"} 0",
        "dunlin_process_deaths_total{process=\"worker-0\",role=\"worker\",reason=\"killed\"} 1",
        "dunlin_process_deaths_total{process=\"worker-0\",role=\"worker\",reason=\"stuck\"} 0",
        "dunlin_process_restarts_total{process=\"a\\nb\",role=\"added\"} 2",
        "dunlin_api_requests_total{outcome=\"ok\"} 1",
        "dunlin_api_requests_total{outcome=\"unauthorized\"} 7",
        "dunlin_api_requests_total{outcome=\"forbidden\"} 0",
        "dunlin_redis_configured 1",
        "dunlin_redis_connected 0",
        "dunlin_server_state{state=\"running\"} 1",
        "dunlin_server_state{state=\"stopping\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    for absent in ["dunlin_tasks_queued", "dunlin_last_reload", "dunlin_rooms", "dunlin_timer_late"]
    {
        assert!(!text.contains(absent), "{absent} is not in the status");
    }
}

/// The labels of a place's samples.
fn labels(place: Place) -> Vec<&'static str> {
    match place {
        Place::At(_) | Place::Sum(..) | Place::Spread("/timer", _) => vec![],
        Place::Each(_, label, _) | Place::Info(_, label) => vec![label],
        Place::State(..) => vec!["state"],
        Place::Worker(_) | Place::Spread(..) => vec!["worker"],
        Place::Process("state") => vec!["process", "role", "state"],
        Place::Process(_) => vec!["process", "role"],
        Place::Deaths => vec!["process", "role", "reason"],
        Place::Codes => vec!["code"],
    }
}

/// The table of docs/metrics.md.
fn reference() -> String {
    let families = families();
    let summed: HashSet<&str> = families
        .iter()
        .filter(|family| matches!(family.place, Place::Sum("/workers", _)))
        .map(|family| family.name.as_str())
        .collect();
    let mut table = "| metric | kind | labels | what |\n| --- | --- | --- | --- |\n".to_owned();
    for family in &families {
        let name = &family.name;
        if summed.contains(&*name.replacen("dunlin_worker_", "dunlin_", 1))
            && !summed.contains(&**name)
        {
            // Beside the one of all workers.
            continue;
        }
        let mut names = format!("`{name}`");
        let mut labels = labels(family.place);
        if summed.contains(&**name) {
            names += &format!(", `{}`", name.replacen("dunlin_", "dunlin_worker_", 1));
            labels.push("worker (the second)");
        }
        let (kind, labels, help) = (family.kind.name(), labels.join(", "), family.help);
        table += &format!("| {names} | {kind} | {labels} | {help} |\n");
    }
    table
}

/// `DUNLIN_WRITE_REFERENCE=1 cargo test -p dunlin-im metrics` writes it.
#[test]
fn the_reference_has_every_metric_and_no_other() {
    let (path, table) = (repository("docs/metrics.md"), reference());
    let page = fs::read_to_string(&path).expect("the reference");
    let (before, rest) = page.split_once("<!-- metrics -->\n").expect("where the table begins");
    let (written, after) = rest.split_once("<!-- end -->").expect("where it ends");
    if std::env::var_os("DUNLIN_WRITE_REFERENCE").is_some() {
        let page = format!("{before}<!-- metrics -->\n{table}<!-- end -->{after}");
        return fs::write(path, page).expect("the reference");
    }
    assert_eq!(written, table, "DUNLIN_WRITE_REFERENCE=1 cargo test -p dunlin-im metrics");
}

/// Names of metrics in a text: with what they are exposed by.
fn names_in(text: &str) -> BTreeSet<String> {
    text.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_' && letter != ':')
        .filter(|word| word.starts_with("dunlin_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_the_dashboard_and_the_alerts_name_is_exposed() {
    let mut exposed = BTreeSet::new();
    for family in families() {
        match family.kind {
            Kind::Histogram => {
                exposed.extend(
                    ["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", family.name)),
                );
            }
            _ => drop(exposed.insert(family.name)),
        }
    }
    for file in ["config/grafana-dashboard.json", "config/alerts.yml"] {
        let text = fs::read_to_string(repository(file)).expect("a file of ours");
        let named = names_in(&text);
        assert!(named.len() >= 8, "{file} names {named:?}");
        let unknown: Vec<_> = named.difference(&exposed).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, which no server tells");
    }
}
