//! The server's own keys: what each may hold, what it is by default, and whether a reload takes it.
//!
//! Knows nothing of what they mean: `Config::from_settings` does.

use super::{ACCEPT_RATE_MAX, DRAIN_RATE_MAX, SESSIONS_MAX, TASK_WORKERS_MAX, WORKERS_MAX};
use crate::settings::{KeyKind, KeySpec};

const HOUR_MS: u64 = 3_600_000;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Every key of the server, in the order of `config/dunlin.toml`.
pub const SERVER_KEYS: &[KeySpec] = &[
    KeySpec::restart(
        "server.listen",
        KeyKind::List,
        "[\"127.0.0.1:9502\"]",
        "Addresses to listen on.",
    ),
    KeySpec::restart(
        "server.workers",
        KeyKind::Count { min: 0, max: WORKERS_MAX as u64 },
        "0",
        "Worker processes; 0 is one per core.",
    ),
    KeySpec::restart(
        "server.task_workers",
        KeyKind::Count { min: 0, max: TASK_WORKERS_MAX as u64 },
        "1",
        "Processes for work that may block.",
    ),
    KeySpec::restart(
        "server.run_dir",
        KeyKind::Path,
        "\"\"",
        "The run directory; empty finds one.",
    ),
    KeySpec::restart("server.daemonize", KeyKind::Bool, "false", "Leave the terminal once ready."),
    KeySpec::restart(
        "server.user",
        KeyKind::Text,
        "\"\"",
        "Who the server becomes where root starts it.",
    ),
    KeySpec::restart("server.group", KeyKind::Text, "\"\"", "Its group; empty is the user's own."),
    KeySpec::reload(
        "server.sandbox",
        KeyKind::Bool,
        "true",
        "Workers and timer process give up system calls that they do not need.",
    ),
    KeySpec::restart(
        "server.backlog",
        KeyKind::Count { min: 1, max: 65_535 },
        "4096",
        "Connections the kernel queues for each listener.",
    ),
    KeySpec::reload(
        "server.tcp_user_timeout",
        duration(0, HOUR_MS),
        "\"30s\"",
        "How long output may stay unacknowledged before its connection is dead; 0 is the kernel's limit.",
    ),
    KeySpec::reload(
        "server.max_connections_per_ip",
        KeyKind::Count { min: 0, max: SESSIONS_MAX },
        "0",
        "Connections of one client address (IPv6: /64); 0 is any number.",
    ),
    KeySpec::reload(
        "server.accept_rate",
        KeyKind::Count { min: 0, max: ACCEPT_RATE_MAX },
        "0",
        "Connections accepted a second; others wait in the kernel's queue; 0 is any number.",
    ),
    KeySpec::reload(
        "server.accept_rate_per_ip",
        KeyKind::Count { min: 0, max: ACCEPT_RATE_MAX },
        "0",
        "Connections a second that one client address may open; 0 is any number.",
    ),
    KeySpec::reload(
        "server.max_request",
        KeyKind::Count { min: 0, max: u64::MAX },
        "0",
        "Messages after which a worker is replaced; 0 is never.",
    ),
    KeySpec::reload(
        "server.stop_timeout",
        duration(0, HOUR_MS),
        "\"30s\"",
        "What a graceful stop may take.",
    ),
    KeySpec::reload(
        "server.drain_rate",
        KeyKind::Count { min: 0, max: DRAIN_RATE_MAX },
        "1000",
        "Clients that a stopping server tells a second; 0 is all at once.",
    ),
    KeySpec::reload(
        "server.handover_timeout",
        duration(100, HOUR_MS),
        "\"5s\"",
        "What the replacement of one process may take.",
    ),
    KeySpec::reload(
        "server.stuck_after",
        duration(1_000, HOUR_MS),
        "\"10s\"",
        "How long a worker may be busy with one turn before it is killed as stuck.",
    ),
    KeySpec::reload(
        "server.balance_above",
        KeyKind::Count { min: 0, max: 10_000 },
        "20",
        "Percent of the mean between fullest and emptiest worker before connections move; 0 is never.",
    ),
    KeySpec::reload(
        "server.balance_above_connections",
        KeyKind::Count { min: 2, max: SESSIONS_MAX },
        "100",
        "Connections between fullest and emptiest worker before connections move.",
    ),
    KeySpec::reload(
        "server.balance_rate",
        KeyKind::Count { min: 1, max: 512 },
        "50",
        "Connections moved a second where the workers are uneven.",
    ),
    KeySpec::restart(
        "server.max_timers",
        KeyKind::Count { min: 1, max: MIB },
        "4096",
        "Timers of the application that can be armed at once.",
    ),
    KeySpec::reload(
        "server.task_timeout",
        duration(100, 24 * HOUR_MS),
        "\"60s\"",
        "How long a task may run.",
    ),
    KeySpec::restart(
        "table.max_sessions",
        KeyKind::Count { min: 1, max: SESSIONS_MAX },
        "16384",
        "Rows of the session table: open connections, at most.",
    ),
    KeySpec::restart(
        "table.receive_pool",
        KeyKind::Size { min: 4 * KIB, max: 64 * GIB },
        "\"16MiB\"",
        "Shared memory for messages that have not wholly come; 4 x websocket.max_message at least.",
    ),
    KeySpec::reload(
        "websocket.max_message",
        KeyKind::Size { min: KIB, max: 64 * MIB },
        "\"1MiB\"",
        "The largest message a client may send.",
    ),
    KeySpec::reload(
        "websocket.compression",
        KeyKind::Bool,
        "false",
        "Compress messages for new clients that offer it (permessage-deflate).",
    ),
    KeySpec::reload(
        "websocket.compression_threshold",
        KeyKind::Size { min: 0, max: 64 * MIB },
        "\"1KiB\"",
        "The shortest message that is compressed.",
    ),
    KeySpec::reload(
        "websocket.compression_level",
        KeyKind::Count { min: 1, max: 9 },
        "1",
        "How hard to compress: 1 is quick, 9 is thorough.",
    ),
    KeySpec::reload(
        "websocket.receive_share",
        KeyKind::Count { min: 1, max: 100 },
        "25",
        "Percent of table.receive_pool that one client address may hold; one message at least.",
    ),
    KeySpec::reload(
        "websocket.handshake_timeout",
        duration(100, HOUR_MS),
        "\"10s\"",
        "What an upgrade may take.",
    ),
    KeySpec::reload(
        "websocket.message_timeout",
        duration(100, HOUR_MS),
        "\"60s\"",
        "What a message may take from its first byte to its last.",
    ),
    KeySpec::reload(
        "websocket.ping_interval",
        duration(0, HOUR_MS),
        "\"25s\"",
        "After how much silence a client is pinged; 0 is never.",
    ),
    KeySpec::reload(
        "websocket.send_buffer",
        KeyKind::Size { min: 4 * KIB, max: GIB },
        "\"1MiB\"",
        "Unsent output of one connection before it is closed as too slow.",
    ),
    KeySpec::reload(
        "websocket.send_buffer_total",
        KeyKind::Size { min: 8 * KIB, max: 64 * GIB },
        "\"64MiB\"",
        "Unsent output of all connections of a worker before the fattest are closed; 2 x send_buffer.",
    ),
    KeySpec::reload(
        "websocket.frames_per_turn",
        KeyKind::Count { min: 1, max: 65_536 },
        "64",
        "Frames served of one connection before the others have their turn.",
    ),
    KeySpec::reload(
        "websocket.allowed_origins",
        KeyKind::List,
        "[]",
        "Origins of browsers that may connect; none named: the server's own host, and loopback.",
    ),
    KeySpec::restart(
        "http.admin_listen",
        KeyKind::List,
        "[]",
        "Addresses for /api, /metrics and /dashboard alone; empty: they are on server.listen.",
    ),
    KeySpec::reload(
        "http.trusted_proxies",
        KeyKind::List,
        "[]",
        "Addresses and networks of proxies that tell the client's address.",
    ),
    KeySpec::reload(
        "http.max_connections",
        KeyKind::Count { min: 1, max: SESSIONS_MAX },
        "1024",
        "Connections that are not upgraded, at most.",
    ),
    KeySpec::reload(
        "http.max_body",
        KeyKind::Size { min: 0, max: 64 * MIB },
        "\"128KiB\"",
        "The largest body of a plain request.",
    ),
    KeySpec::reload(
        "log.level",
        KeyKind::Choice(&["off", "error", "warn", "info", "debug", "trace"]),
        "\"info\"",
        "What is logged.",
    ),
    KeySpec::reload(
        "log.format",
        KeyKind::Choice(&["text", "json"]),
        "\"text\"",
        "How a line looks.",
    ),
    KeySpec::reload("log.file", KeyKind::Path, "\"\"", "The log file; empty is standard error."),
];

const fn duration(min_ms: u64, max_ms: u64) -> KeyKind {
    KeyKind::Duration { min_ms, max_ms }
}
