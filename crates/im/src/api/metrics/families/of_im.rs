//! Metrics of the IM: logins, limits, rooms, presence, Redis, the backend, the API.

use super::super::place::Kind::{Counter, Gauge};
use super::super::place::Place::{At, Each, State};
use super::super::place::Unit::Plain;
use super::Row;

pub(super) const OF_IM: &[Row] = &[
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
