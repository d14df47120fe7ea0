//! `GET /metrics`: figures of the whole server as Prometheus reads them.
//!
//! A table from names to places in the status object. Pure but for that object, which any worker makes from
//! shared memory: whichever answers, it answers for all.

use super::error::ApiError;
use super::{Call, query};
use dunlin_server::Response;
use serde_json::Value as Json;
use std::fmt::Write as _;

const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a figure does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Only grows, but for a restart.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// Where a figure stands in the status.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// At a JSON pointer.
    At(&'static str),
    /// The sum of a field over the elements of a list.
    Sum(&'static str, &'static str),
    /// A field of an object that is there for each label.
    Each(&'static str, &'static str, &'static [&'static str]),
}

use Kind::{Counter, Gauge};
use Place::{At, Each, Sum};

const OUTCOMES: &[&str] = &["ok", "unauthorized", "forbidden", "rejected", "unavailable"];

/// Name, kind, help, place. A counter's name ends in `_total`.
const METRICS: &[(&str, Kind, &str, Place)] = &[
    ("dunlin_uptime_milliseconds", Gauge, "Since the server started.", At("/uptime_ms")),
    ("dunlin_generation", Gauge, "1 and the reloads and upgrades applied.", At("/generation")),
    ("dunlin_sessions_capacity", Gauge, "Rows of the session table.", At("/sessions/capacity")),
    ("dunlin_sessions", Gauge, "Rows that are taken.", At("/sessions/used")),
    ("dunlin_sessions_logged_in", Gauge, "Sessions logged in.", At("/sessions/logged_in")),
    ("dunlin_sessions_peak", Gauge, "Most sessions at once.", At("/sessions/peak")),
    (
        "dunlin_sessions_refused_total",
        Counter,
        "Upgrades refused: table full.",
        At("/sessions/refused"),
    ),
    (
        "dunlin_sessions_lost_handling_total",
        Counter,
        "Closed with 1012.",
        At("/sessions/lost_handling"),
    ),
    (
        "dunlin_sessions_lost_writing_total",
        Counter,
        "Reset: their worker died.",
        At("/sessions/lost_writing"),
    ),
    ("dunlin_pool_blocks", Gauge, "Blocks of the receive pool.", At("/sessions/pool_blocks")),
    ("dunlin_pool_blocks_free", Gauge, "Those that are free.", At("/sessions/pool_blocks_free")),
    ("dunlin_descriptors_open", Gauge, "Open in master and workers.", At("/descriptors/open")),
    ("dunlin_shared_memory_bytes", Gauge, "The whole segment.", At("/shared_memory_bytes")),
    ("dunlin_connections", Gauge, "Connections of all workers.", Sum("/workers", "connections")),
    ("dunlin_connections_accepted_total", Counter, "Taken in.", Sum("/workers", "accepted")),
    ("dunlin_connections_closed_total", Counter, "Ended.", Sum("/workers", "closed")),
    ("dunlin_messages_received_total", Counter, "From clients.", Sum("/workers", "messages_in")),
    ("dunlin_messages_sent_total", Counter, "To clients.", Sum("/workers", "messages_out")),
    ("dunlin_received_bytes_total", Counter, "Of all connections.", Sum("/workers", "bytes_in")),
    ("dunlin_sent_bytes_total", Counter, "Of all connections.", Sum("/workers", "bytes_out")),
    (
        "dunlin_http_requests_total",
        Counter,
        "Read whole, upgrades too.",
        Sum("/workers", "requests"),
    ),
    ("dunlin_unsent_bytes", Gauge, "Output that waits.", Sum("/workers", "unsent_bytes")),
    ("dunlin_mailbox_bytes", Gauge, "Mail that waits.", Sum("/workers", "mailbox_depth")),
    ("dunlin_spilled_bytes", Gauge, "Mail for full mailboxes.", Sum("/workers", "spilled_bytes")),
    (
        "dunlin_mail_refused_total",
        Counter,
        "Mailbox and spill list full.",
        Sum("/workers", "mail_refused"),
    ),
    (
        "dunlin_slow_closed_total",
        Counter,
        "Closed: read too slowly.",
        Sum("/workers", "slow_closed"),
    ),
    ("dunlin_dropped_total", Counter, "Droppable messages dropped.", Sum("/workers", "dropped")),
    ("dunlin_violations_total", Counter, "Broken WebSocket.", Sum("/workers", "violations")),
    ("dunlin_hook_panics_total", Counter, "Hooks that panicked.", Sum("/workers", "hook_panics")),
    (
        "dunlin_worker_restarts_total",
        Counter,
        "Dead workers replaced.",
        Sum("/workers", "restarts"),
    ),
    ("dunlin_worker_resident_bytes", Gauge, "Memory of all workers.", Sum("/workers", "rss_bytes")),
    (
        "dunlin_refused_per_ip_total",
        Counter,
        "Too many of one address.",
        Sum("/workers", "refused_per_ip"),
    ),
    ("dunlin_timers_armed", Gauge, "Timers and deadlines.", At("/timer/armed")),
    ("dunlin_timers_fired_total", Counter, "Told to workers.", At("/timer/fired")),
    ("dunlin_tasks_done_total", Counter, "Ended well.", Sum("/tasks", "done")),
    ("dunlin_tasks_failed_total", Counter, "Ended otherwise.", Sum("/tasks", "failed")),
    // Every task process tells the same number: of the queue that they share.
    ("dunlin_tasks_queued", Gauge, "In the queue.", At("/tasks/0/queued")),
    ("dunlin_reloads_total", Counter, "Applied.", At("/reloads/done")),
    ("dunlin_reloads_refused_total", Counter, "Refused or failed.", At("/reloads/refused")),
    ("dunlin_upgrades_total", Counter, "Applied.", At("/upgrades/done")),
    ("dunlin_logins_total", Counter, "Logins that succeeded.", At("/auth/logins")),
    ("dunlin_tokens_refused_total", Counter, "Tokens refused.", At("/auth/refused")),
    ("dunlin_tokens_expired_total", Counter, "Sessions closed for it.", At("/auth/expired")),
    ("dunlin_api_requests_total", Counter, "By outcome.", Each("/api", "outcome", OUTCOMES)),
    ("dunlin_api_pushed_total", Counter, "Sessions that took a push.", At("/api/pushed")),
    ("dunlin_api_kicked_total", Counter, "Sessions closed by a kick.", At("/api/kicked")),
];

impl Call<'_, '_> {
    pub(super) fn metrics(&mut self) -> Result<Response, ApiError> {
        query::parameters(self.request, &[])?;
        let text = text(&self.context.status(self.app));
        Ok(Response::with_type(200, MEDIA_TYPE, text.into_bytes()))
    }
}

/// Every figure that stands in a status; what does not is left out.
fn text(status: &Json) -> String {
    let number = |pointer: &str| status.pointer(pointer).and_then(Json::as_u64);
    let mut text = String::new();
    for (name, kind, help, place) in METRICS {
        let samples: Vec<(String, u64)> = match place {
            At(pointer) => {
                number(pointer).map(|value| (String::new(), value)).into_iter().collect()
            }
            Sum(list, field) => {
                let elements = status.pointer(list).and_then(Json::as_array);
                let values = elements.into_iter().flatten().filter_map(|one| one[field].as_u64());
                vec![(String::new(), values.sum())]
            }
            Each(object, label, values) => values
                .iter()
                .filter_map(|value| {
                    let sample = number(&format!("{object}/{value}"))?;
                    Some((format!("{{{label}=\"{value}\"}}"), sample))
                })
                .collect(),
        };
        if samples.is_empty() {
            continue;
        }
        let kind = if *kind == Counter { "counter" } else { "gauge" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::HashSet;

    #[test]
    fn names_are_those_that_prometheus_wants_and_each_stands_once() {
        let mut seen = HashSet::new();
        for (name, kind, help, _) in METRICS {
            assert!(seen.insert(name), "{name}");
            assert!(name.starts_with("dunlin_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Counter, "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}");
        }
    }

    #[test]
    fn figures_are_summed_over_all_workers() {
        let status = json!({
            "uptime_ms": 5,
            "workers": [{"accepted": 2}, {"accepted": 3}, {}],
            "api": {"ok": 1, "unauthorized": 7},
            "tasks": [],
        });
        let text = text(&status);
        for line in [
            "# HELP dunlin_uptime_milliseconds Since the server started.",
            "# TYPE dunlin_uptime_milliseconds gauge",
            "dunlin_uptime_milliseconds 5",
            "# TYPE dunlin_connections_accepted_total counter",
            "dunlin_connections_accepted_total 5",
            "dunlin_api_requests_total{outcome=\"ok\"} 1",
            "dunlin_api_requests_total{outcome=\"unauthorized\"} 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("dunlin_tasks_queued") && !text.contains("forbidden"));
    }
}
