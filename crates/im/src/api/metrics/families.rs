//! Every metric: its name, what it is, where its samples stand in the status object.
//!
//! Knows names and places; computes nothing. `docs/metrics.md` is made of this, and tests hold the Grafana
//! dashboard and the alert rules against it.

mod of_im;
mod of_workers;

use super::place::Place::{
    self, At, Codes, Deaths, Each, Info, Process, Spread, State, Sum, Worker,
};
use super::place::{Kind, Unit};
use Kind::{Counter, Gauge, Histogram};
use Unit::{Microseconds, Milliseconds, Plain};

/// A metric and its samples.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) unit: Unit,
    pub(super) place: Place,
}

const SERVER_STATES: &[&str] = &["starting", "running", "reloading", "upgrading", "stopping"];
pub(super) const PROCESS_STATES: &[&str] =
    &["starting", "running", "resting", "stopped", "crashed", "crash_looping"];
pub(super) const DEATHS: &[&str] = &["killed", "crashed", "exited", "stuck"];

/// Name without `dunlin_`, what it is, what it tells, place.
type Row = (&'static str, Kind, &'static str, Unit, Place);

/// Of the server as a whole and of its processes.
const OF_SERVER: &[Row] = &[
    ("build_info", Gauge, "1, with the version that runs.", Plain, Info("/version", "version")),
    ("uptime_seconds", Gauge, "Since the server started.", Milliseconds, At("/uptime_ms")),
    (
        "server_state",
        Gauge,
        "1 for what the server is doing.",
        Plain,
        State("/state", SERVER_STATES),
    ),
    ("generation", Gauge, "1 and the reloads and upgrades applied.", Plain, At("/generation")),
    ("shared_memory_bytes", Gauge, "The whole segment.", Plain, At("/shared_memory_bytes")),
    // Sessions.
    ("sessions", Gauge, "Rows of the session table that are taken.", Plain, At("/sessions/used")),
    ("sessions_capacity", Gauge, "Rows of the session table.", Plain, At("/sessions/capacity")),
    ("sessions_logged_in", Gauge, "Sessions logged in.", Plain, At("/sessions/logged_in")),
    ("sessions_peak", Gauge, "Most sessions at once.", Plain, At("/sessions/peak")),
    (
        "sessions_refused_total",
        Counter,
        "Upgrades refused: table full.",
        Plain,
        At("/sessions/refused"),
    ),
    (
        "sessions_lost_total",
        Counter,
        "Sessions a worker's death has cost: told with 1012 (handling), or reset (writing).",
        Plain,
        Each("/sessions", "while", &[("handling", "lost_handling"), ("writing", "lost_writing")]),
    ),
    (
        "sessions_poisonous_total",
        Counter,
        "Those of them that had killed three workers.",
        Plain,
        At("/sessions/poisonous"),
    ),
    ("pool_blocks", Gauge, "Blocks of the receive pool.", Plain, At("/sessions/pool_blocks")),
    (
        "pool_blocks_free",
        Gauge,
        "Those of them that are free.",
        Plain,
        At("/sessions/pool_blocks_free"),
    ),
    (
        "connections_closed_total",
        Counter,
        "Connections ended, by close code; none: never was a WebSocket; other: any other code.",
        Plain,
        Codes,
    ),
    // Times.
    (
        "turn_seconds",
        Histogram,
        "How long turns of a worker's loop took.",
        Microseconds,
        Spread("/workers", "turns"),
    ),
    (
        "message_latency_seconds",
        Histogram,
        "From the turn that sent a message to the end of the turn that put it out to another client.",
        Microseconds,
        Spread("/workers", "latency"),
    ),
    (
        "timer_late_seconds",
        Histogram,
        "How late timers and deadlines were told to workers.",
        Microseconds,
        Spread("/timer", "late"),
    ),
    // Workers.
    ("worker_generation", Gauge, "Lives of the slot so far.", Plain, Worker("generation")),
    ("worker_busy_seconds", Gauge, "Time of the turn under way.", Milliseconds, Worker("busy_ms")),
    (
        "worker_stood_in",
        Gauge,
        "1 while another slot's worker serves this slot.",
        Plain,
        Worker("stood_in_by"),
    ),
    // Processes.
    ("process_state", Gauge, "1 for what the process is doing.", Plain, Process("state")),
    ("process_restarts_total", Counter, "Dead processes replaced.", Plain, Process("restarts")),
    (
        "process_deaths_total",
        Counter,
        "Deaths nobody asked for: killed by SIGKILL, crashed by another signal, exited by itself, or \
         killed by the master as stuck.",
        Plain,
        Deaths,
    ),
    ("process_resident_bytes", Gauge, "Memory of the process.", Plain, Process("rss_bytes")),
    (
        "process_cpu_seconds_total",
        Counter,
        "Processor time of the process now in the slot.",
        Milliseconds,
        Process("cpu_ms"),
    ),
    ("descriptors_open", Gauge, "Open in master and workers.", Plain, At("/descriptors/open")),
    ("descriptors_limit", Gauge, "RLIMIT_NOFILE.", Plain, At("/descriptors/limit")),
    (
        "descriptors",
        Gauge,
        "What they are; unknown or stale for long: a leak.",
        Plain,
        Each(
            "/descriptors",
            "kind",
            &[
                ("session", "sessions"),
                ("handshaking", "handshaking"),
                ("private", "private"),
                ("master", "master"),
                ("rest", "rest"),
                ("spill", "spill"),
                ("unknown", "unknown"),
                ("stale", "stale"),
            ],
        ),
    ),
    // Timer and tasks.
    ("timers_armed", Gauge, "Timers and deadlines.", Plain, At("/timer/armed")),
    ("timers_fired_total", Counter, "Told to workers.", Plain, At("/timer/fired")),
    ("tasks_done_total", Counter, "Tasks that ended well.", Plain, Sum("/tasks", "done")),
    ("tasks_failed_total", Counter, "Tasks that ended otherwise.", Plain, Sum("/tasks", "failed")),
    // Every task process tells the same number: of the queue that they share.
    ("tasks_queued", Gauge, "Tasks in the queue.", Plain, At("/tasks/0/queued")),
    ("tasks_running", Gauge, "Task processes at work.", Plain, Sum("/tasks", "busy")),
    // Reloads, upgrades, balance.
    ("reloads_total", Counter, "Reloads applied.", Plain, At("/reloads/done")),
    ("reloads_refused_total", Counter, "Reloads refused or failed.", Plain, At("/reloads/refused")),
    (
        "last_reload_successful",
        Gauge,
        "Whether the last reload was applied; not there before the first.",
        Plain,
        At("/last_reload/ok"),
    ),
    ("last_reload_seconds", Gauge, "How long it took.", Milliseconds, At("/last_reload/took_ms")),
    ("upgrades_total", Counter, "Upgrades applied.", Plain, At("/upgrades/done")),
    (
        "upgrades_refused_total",
        Counter,
        "Upgrades refused or failed.",
        Plain,
        At("/upgrades/refused"),
    ),
    (
        "last_upgrade_stall_seconds",
        Gauge,
        "How long nothing was served in the last upgrade.",
        Milliseconds,
        At("/last_upgrade/stall_ms"),
    ),
    ("balanced_total", Counter, "Sessions moved between workers.", Plain, At("/balance/moved")),
];

/// Every family, in the order of the page.
pub(super) fn families() -> Vec<Family> {
    let of_server = OF_SERVER.iter().chain(of_im::OF_IM).map(|(name, kind, help, unit, place)| {
        Family { name: format!("dunlin_{name}"), kind: *kind, help, unit: *unit, place: *place }
    });
    let of_workers = of_workers::OF_WORKERS.iter().flat_map(|(name, kind, help, field)| {
        [("dunlin_", Sum("/workers", field)), ("dunlin_worker_", Worker(field))].map(
            |(prefix, place)| Family {
                name: format!("{prefix}{name}"),
                kind: *kind,
                help,
                unit: Plain,
                place,
            },
        )
    });
    of_server.chain(of_workers).collect()
}
