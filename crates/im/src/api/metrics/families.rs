//! Every metric: its name, what it is, where its samples stand in the status object.
//!
//! Knows names and places; computes nothing. `docs/metrics.md` is made of this, and tests hold the Grafana
//! dashboard and the alert rules against it.

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

/// What each worker counts: the end of both names (`dunlin_…` of all workers, `dunlin_worker_…` of each), what it
/// is, its field in `workers[]`.
const OF_WORKERS: &[(&str, Kind, &str, &str)] = &[
    ("connections", Gauge, "Open connections, plain HTTP among them.", "connections"),
    ("websockets", Gauge, "Open WebSockets.", "sessions"),
    ("connections_accepted_total", Counter, "TCP connections taken in.", "accepted"),
    ("messages_received_total", Counter, "WebSocket messages from clients.", "messages_in"),
    ("messages_sent_total", Counter, "WebSocket messages to clients.", "messages_out"),
    ("received_bytes_total", Counter, "Bytes from clients.", "bytes_in"),
    ("sent_bytes_total", Counter, "Bytes to clients.", "bytes_out"),
    ("http_requests_total", Counter, "Plain requests and upgrades read whole.", "requests"),
    ("unsent_bytes", Gauge, "Output that clients have not taken yet.", "unsent_bytes"),
    ("output_full_total", Counter, "Times websocket.send_buffer_total was reached.", "output_full"),
    ("slow_closed_total", Counter, "Connections closed with 1013: read too slowly.", "slow_closed"),
    ("dropped_total", Counter, "Droppable messages dropped for slow readers.", "dropped"),
    ("mailbox_bytes", Gauge, "Mail that waits in mailboxes.", "mailbox_depth"),
    ("spilled_bytes", Gauge, "Mail that waits for full mailboxes.", "spilled_bytes"),
    ("mail_refused_total", Counter, "Mail refused: mailbox and spill list full.", "mail_refused"),
    ("forwarded_total", Counter, "Recipients of mail sent on to who serves them.", "forwarded"),
    ("lost_mail_closed_total", Counter, "Sessions closed since mail was lost.", "lost_mail"),
    ("hook_panics_total", Counter, "Hooks that panicked.", "hook_panics"),
    ("violations_total", Counter, "Clients that broke the WebSocket protocol.", "violations"),
    ("http_timeouts_total", Counter, "Requests or answers not there in time.", "http_timeouts"),
    ("http_refused_total", Counter, "Turned away at http.max_connections.", "http_refused"),
    ("refused_per_ip_total", Counter, "Turned away: too many of one address.", "refused_per_ip"),
    (
        "refused_rate_per_ip_total",
        Counter,
        "Turned away: too fast from one address.",
        "refused_rate_per_ip",
    ),
    (
        "accept_delayed_total",
        Counter,
        "Times server.accept_rate held newcomers back.",
        "accept_delayed",
    ),
    ("dead_closed_total", Counter, "Closed as dead: no pong, no acknowledgement.", "dead_closed"),
    ("pongs_skipped_total", Counter, "Pings answered by a later pong only.", "pongs_skipped"),
    ("turns_full_total", Counter, "Times a share of a turn was used up.", "turns_full"),
    ("closes_delayed_total", Counter, "Turns that left closes to the next.", "closes_delayed"),
    (
        "message_timeouts_total",
        Counter,
        "Messages begun and not ended in time.",
        "message_timeouts",
    ),
    ("pool_full_total", Counter, "Messages given up: receive pool full.", "pool_full"),
    ("pool_share_full_total", Counter, "The same for one address's share.", "pool_share_full"),
    ("compressed_received_total", Counter, "Compressed messages received.", "compressed_in"),
    ("compressed_sent_total", Counter, "Messages sent compressed.", "compressed_out"),
    ("compressions_total", Counter, "Runs of the compressor.", "compressions"),
    ("compression_saved_bytes_total", Counter, "Bytes that compression saved.", "saved_bytes"),
    ("bombs_refused_total", Counter, "Messages that inflate too far, refused.", "bombs_refused"),
    ("sessions_adopted_total", Counter, "Sessions taken over from predecessors.", "adopted"),
    ("sessions_moved_in_total", Counter, "Sessions taken up from other slots.", "moved_in"),
    ("sessions_moved_out_total", Counter, "Sessions given to other slots.", "moved_out"),
];

const SERVER_STATES: &[&str] = &["starting", "running", "reloading", "upgrading", "stopping"];
pub(super) const PROCESS_STATES: &[&str] =
    &["starting", "running", "resting", "stopped", "crashed", "crash_looping"];
pub(super) const DEATHS: &[&str] = &["killed", "crashed", "exited", "stuck"];

/// Everything else: name, what it is, place.
const OF_SERVER: &[(&str, Kind, &str, Unit, Place)] = &[
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
    // Logins and limits.
    ("logins_total", Counter, "Logins that succeeded.", Plain, At("/auth/logins")),
    ("tokens_refused_total", Counter, "Tokens refused.", Plain, At("/auth/refused")),
    (
        "tokens_expired_total",
        Counter,
        "Sessions closed since their token had expired.",
        Plain,
        At("/auth/expired"),
    ),
    (
        "rate_limited_total",
        Counter,
        "What was refused by rates.",
        Plain,
        Each(
            "/limits",
            "limit",
            &[
                ("requests", "requests"),
                ("bytes", "bytes"),
                ("sends", "sends"),
                ("logins", "logins"),
                ("failed_logins", "failed_logins"),
            ],
        ),
    ),
    (
        "rate_limited_closed_total",
        Counter,
        "Sessions closed that went on over their rates.",
        Plain,
        At("/limits/closed"),
    ),
    (
        "rate_entries_evicted_total",
        Counter,
        "Forgotten for others: im.rate_entries are too few.",
        Plain,
        Each("/limits", "of", &[("users", "users_evicted"), ("addresses", "addresses_evicted")]),
    ),
    // Idempotency.
    ("idempotency_keys", Gauge, "Keys of send that are kept.", Plain, At("/idempotency/kept")),
    (
        "idempotency_capacity",
        Gauge,
        "Places for them: im.idempotency_entries.",
        Plain,
        At("/idempotency/capacity"),
    ),
    (
        "idempotency_total",
        Counter,
        "Sends with a known key: answered with the first result, sent again after a death, refused; \
         and keys dropped early.",
        Plain,
        Each(
            "/idempotency",
            "outcome",
            &[
                ("repeated", "repeated"),
                ("sent_again", "sent_again"),
                ("reused", "reused"),
                ("dropped", "dropped"),
            ],
        ),
    ),
    // Rooms and presence.
    ("rooms", Gauge, "Rooms with anybody in them.", Plain, At("/rooms/used")),
    ("rooms_capacity", Gauge, "table.rooms.", Plain, At("/rooms/capacity")),
    ("room_members", Gauge, "Memberships of all sessions.", Plain, At("/rooms/members")),
    (
        "room_members_capacity",
        Gauge,
        "table.room_members, about.",
        Plain,
        At("/rooms/members_capacity"),
    ),
    (
        "joins_refused_total",
        Counter,
        "Joins refused, by the bound that was reached.",
        Plain,
        Each(
            "/rooms",
            "reason",
            &[
                ("too_many_rooms", "refused_too_many_rooms"),
                ("room_full", "refused_room_full"),
                ("rooms_full", "refused_rooms_full"),
                ("members_full", "refused_members_full"),
            ],
        ),
    ),
    ("watches", Gauge, "Watches of users.", Plain, At("/presence/watches")),
    ("watches_capacity", Gauge, "Places for them.", Plain, At("/presence/watches_capacity")),
    (
        "watches_refused_total",
        Counter,
        "Calls of watch refused: no place.",
        Plain,
        At("/presence/watches_refused"),
    ),
    ("presence_told_total", Counter, "Presence notifications sent.", Plain, At("/presence/told")),
    (
        "presence_untold_total",
        Counter,
        "Those no mailbox took; tried again.",
        Plain,
        At("/presence/untold"),
    ),
    (
        "presence_without_timer_total",
        Counter,
        "Times no timer was left for presence.",
        Plain,
        At("/presence/without_timer"),
    ),
    (
        "presence_healed_total",
        Counter,
        "Changes looked after for a dead worker.",
        Plain,
        At("/presence/healed"),
    ),
    ("last_seen", Gauge, "Users of whom last_seen is kept.", Plain, At("/presence/last_seen")),
    ("last_seen_capacity", Gauge, "table.last_seen.", Plain, At("/presence/last_seen_capacity")),
    // Redis.
    ("redis_configured", Gauge, "1 with redis.url.", Plain, At("/redis/configured")),
    (
        "redis_connected",
        Gauge,
        "1: the last call went well, not longer ago than a lease.",
        Plain,
        At("/redis/connected"),
    ),
    (
        "redis_connections_total",
        Counter,
        "Connections made to Redis.",
        Plain,
        At("/redis/connections_made"),
    ),
    (
        "redis_failures_total",
        Counter,
        "Calls and connects that failed.",
        Plain,
        At("/redis/failed"),
    ),
    (
        "redis_users_written_total",
        Counter,
        "Users written, with sessions (online) or without (offline).",
        Plain,
        Each("/redis", "as", &[("online", "written"), ("offline", "cleared")]),
    ),
    (
        "redis_changes_dropped_total",
        Counter,
        "Changes left to the next sweep.",
        Plain,
        At("/redis/dropped"),
    ),
    ("redis_sweeps_total", Counter, "Sweeps ended.", Plain, At("/redis/sweeps")),
    ("redis_buried_total", Counter, "Entries of dead nodes removed.", Plain, At("/redis/buried")),
    ("redis_questions_total", Counter, "Questions about other nodes.", Plain, At("/redis/asked")),
    (
        "redis_questions_partial_total",
        Counter,
        "Those answered from this node alone.",
        Plain,
        At("/redis/partial"),
    ),
    // Backend.
    ("backend_configured", Gauge, "1 with backend.url.", Plain, At("/backend/configured")),
    (
        "backend_circuit",
        Gauge,
        "1 for the state of the circuit; open: the backend is left alone.",
        Plain,
        State("/backend/circuit", &["closed", "open", "half_open"]),
    ),
    (
        "backend_failures_in_a_row",
        Gauge,
        "Failures since the last success.",
        Plain,
        At("/backend/failures_in_a_row"),
    ),
    ("backend_events_total", Counter, "Events numbered so far.", Plain, At("/backend/seq")),
    ("backend_queued_bytes", Gauge, "Events that wait.", Plain, At("/backend/queued_bytes")),
    ("backend_queue_bytes", Gauge, "backend.queue.", Plain, At("/backend/queue_bytes")),
    (
        "backend_requests_total",
        Counter,
        "Requests with events: taken, tried again, refused (4xx), given up.",
        Plain,
        Each(
            "/backend",
            "outcome",
            &[
                ("sent", "sent"),
                ("retried", "retried"),
                ("refused", "refused"),
                ("dropped", "dropped"),
            ],
        ),
    ),
    (
        "backend_events_lost_total",
        Counter,
        "Events not told: queue full, or lost with the worker that wrote them down.",
        Plain,
        Each("/backend", "reason", &[("queue_full", "queue_full"), ("death", "lost")]),
    ),
    (
        "backend_questions_total",
        Counter,
        "Questions, by the answer; unasked: none came.",
        Plain,
        Each(
            "/backend",
            "answer",
            &[("allowed", "allowed"), ("denied", "denied"), ("unasked", "unasked")],
        ),
    ),
    // The API.
    (
        "api_requests_total",
        Counter,
        "Requests to the HTTP API, by outcome.",
        Plain,
        Each(
            "/api",
            "outcome",
            &[
                ("ok", "ok"),
                ("unauthorized", "unauthorized"),
                ("forbidden", "forbidden"),
                ("rejected", "rejected"),
                ("unavailable", "unavailable"),
            ],
        ),
    ),
    ("api_pushed_total", Counter, "Sessions that took a push.", Plain, At("/api/pushed")),
    ("api_kicked_total", Counter, "Sessions closed by a kick.", Plain, At("/api/kicked")),
];

/// Every family, in the order of the page.
pub(super) fn families() -> Vec<Family> {
    let of_server = OF_SERVER.iter().map(|(name, kind, help, unit, place)| Family {
        name: format!("dunlin_{name}"),
        kind: *kind,
        help,
        unit: *unit,
        place: *place,
    });
    let of_workers = OF_WORKERS.iter().flat_map(|(name, kind, help, field)| {
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
