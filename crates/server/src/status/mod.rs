//! The status object of the status pipe, built from the scoreboard alone.
//!
//! Knows the names and shapes the outside relies on (section 4 of the contract). Asks no process
//! anything, so it can be told while a worker is stuck.

mod descriptor_figures;
mod process_figures;

use crate::clock;
use crate::scoreboard::{BOUNDS_US, Cell, ChildState, ProcessRow, Scoreboard, Times};
use crate::shared::Shared;
use process_figures::ProcessFigures;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::net::SocketAddr;

/// What the server as a whole is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerState {
    /// Not yet serving.
    Starting,
    /// Serving.
    Running,
    /// Serving, and replacing its processes.
    Reloading,
    /// Serving, and making way for another program, or just come in the place of one.
    Upgrading,
    /// Saying goodbye.
    Stopping,
}

impl ServerState {
    fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Reloading => "reloading",
            Self::Upgrading => "upgrading",
            Self::Stopping => "stopping",
        }
    }
}

/// How a reload went.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Its number, from 1; 0: there was none.
    pub seq: u64,
    /// When it ended, as an RFC 3339 time.
    pub at: Option<String>,
    /// Whether all processes were replaced.
    pub ok: Option<bool>,
    /// Why not.
    pub error: Option<String>,
    /// How long it took.
    pub took_ms: Option<u64>,
    /// Connections handed on.
    pub adopted: u64,
    /// Connections that could not be.
    pub dropped: u64,
    /// Changed keys that are in force now.
    #[serde(default)]
    pub applied: Vec<String>,
    /// Changed keys that wait for a restart.
    #[serde(default)]
    pub needs_restart: Vec<String>,
}

/// How an upgrade went.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct UpgradeReport {
    /// Its number, from 1; 0: there was none.
    pub seq: u64,
    /// When it ended, as an RFC 3339 time.
    pub at: Option<String>,
    /// Whether the new program serves with all its processes.
    pub ok: Option<bool>,
    /// Why not.
    pub error: Option<String>,
    /// The file that was to be started.
    pub file: Option<String>,
    /// The version its rehearsal named.
    pub version: Option<String>,
    /// How long it took, the rehearsal included.
    pub took_ms: Option<u64>,
    /// How long nothing was served: from the first rest to the last worker of the new program.
    pub stall_ms: Option<u64>,
    /// Connections handed on.
    pub adopted: u64,
    /// Connections that could not be.
    pub dropped: u64,
    /// Changed keys that are in force now.
    pub applied: Vec<String>,
    /// Changed keys that wait for a restart.
    pub needs_restart: Vec<String>,
}

/// Counts of reloads, or of upgrades.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReloadCounts {
    /// Asked for by a signal, a verb or a hook.
    pub asked: u64,
    /// Ended well.
    pub done: u64,
    /// Refused or failed.
    pub refused: u64,
}

/// What the master knows and the shared memory does not.
#[derive(Debug)]
pub struct ServerFacts<'a> {
    /// Its state.
    pub state: ServerState,
    /// The master's process id.
    pub pid: u32,
    /// Applied reloads.
    pub generation: u64,
    /// When it started, Unix milliseconds.
    pub started_at_ms: u64,
    /// The addresses listened on.
    pub listen: &'a [SocketAddr],
    /// Those for who runs the server alone.
    pub admin_listen: &'a [SocketAddr],
    /// The config file, if one was read.
    pub config: Option<String>,
    /// Upgrades and connections refused at the door by nobody's worker.
    pub reloads: ReloadCounts,
    /// The last reload.
    pub last_reload: &'a ReloadReport,
    /// Counts of upgrades.
    pub upgrades: ReloadCounts,
    /// The last upgrade.
    pub last_upgrade: &'a UpgradeReport,
}

/// What only the master knows, as it tells it to the others.
#[must_use]
pub(crate) fn told_by_master(facts: &ServerFacts<'_>) -> Json {
    let texts = |addresses: &[SocketAddr]| -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    };
    json!({
        "name": "dunlin",
        "version": env!("CARGO_PKG_VERSION"),
        "pid": facts.pid,
        "state": facts.state.name(),
        "generation": facts.generation,
        "started_at": clock::rfc3339(facts.started_at_ms),
        STARTED_AT_MS: facts.started_at_ms,
        "listen": texts(facts.listen),
        "admin_listen": texts(facts.admin_listen),
        "config": facts.config,
        "reloads": facts.reloads,
        "last_reload": facts.last_reload,
        "upgrades": facts.upgrades,
        "last_upgrade": facts.last_upgrade,
    })
}

/// Told for the reader, who knows how late it is.
const STARTED_AT_MS: &str = "started_at_ms";

/// The status object, without the application's part: what the master tells, and what stands in shared
/// memory. `processes` are the names of the added processes, the timer process first; `mailbox_bytes` wait
/// in each slot's mailbox. Only master and workers may ask: they have the table that the ledger is about.
#[must_use]
pub(crate) fn status(
    mut told: Json,
    processes: &[String],
    mailbox_bytes: &[u64],
    shared: &Shared,
) -> Json {
    let board = &shared.scoreboard;
    let workers: Vec<Json> = (0..board.workers())
        .map(|slot| worker(slot, &board.worker(slot), mailbox_bytes.get(slot).copied()))
        .collect();
    let tasks: Vec<Json> = (0..board.tasks()).map(|place| task(place, board)).collect();
    let processes: Vec<Json> = processes
        .iter()
        .enumerate()
        .map(|(place, name)| with(base(&board.process(place)), json!({ "name": name })))
        .collect();
    let started_at_ms = told.as_object_mut().and_then(|told| told.remove(STARTED_AT_MS));
    let started_at_ms = started_at_ms.and_then(|at| at.as_u64());
    let timer = board.process(0);
    let master = told.get("pid").and_then(Json::as_u64).map(usage);
    with(
        told,
        json!({
            "uptime_ms": started_at_ms.map(|at| clock::unix_ms().saturating_sub(at)),
            "sessions": sessions(shared),
            "descriptors": descriptor_figures::descriptors(shared.ledger),
            "traces": traces(shared),
            "workers": workers,
            "timer": with(base(&timer), json!({
                "sandboxed": timer.value(Cell::Sandboxed) != 0,
                "armed": timer.value(Cell::TimersArmed),
                "fired": timer.value(Cell::TimersFired),
                "late": spread(&timer, Times::Late),
            })),
            "tasks": tasks,
            "processes": processes,
            "shared_memory_bytes": shared.bytes,
            "bounds_us": BOUNDS_US,
            "master": master,
        }),
    )
}

/// The figures of all processes, without what only the master knows: what a hook's `stats` gives.
#[must_use]
pub fn figures(shared: &Shared) -> Json {
    let board = &shared.scoreboard;
    let workers: Vec<Json> =
        (0..board.workers()).map(|slot| worker(slot, &board.worker(slot), None)).collect();
    let tasks: Vec<Json> = (0..board.tasks()).map(|place| task(place, board)).collect();
    json!({ "sessions": sessions(shared), "workers": workers, "tasks": tasks })
}

/// Puts the members of `more` into `object`; where both are objects, members are merged.
pub fn merge(object: &mut Json, more: Json) {
    match (object, more) {
        (Json::Object(object), Json::Object(more)) => {
            for (key, value) in more {
                merge(object.entry(key).or_insert(Json::Null), value);
            }
        }
        (_, Json::Null) => {}
        (place, value) => *place = value,
    }
}

fn traces(shared: &Shared) -> Json {
    let counts = shared.traces.counts();
    json!({
        "active": shared.traces.active().count_ones(),
        "begun": shared.traces.begun(),
        "sent": counts.sent,
        "dropped": counts.dropped,
    })
}

fn sessions(shared: &Shared) -> Json {
    let board = &shared.scoreboard;
    json!({
        "capacity": shared.sessions.capacity(),
        "used": shared.sessions.used(),
        "peak": board.peak(),
        "refused": board.worker_sum(Cell::TableFull),
        "lost_handling": board.worker_sum(Cell::LostHandling),
        "lost_writing": board.worker_sum(Cell::LostWriting),
        "poisonous": board.worker_sum(Cell::Poisonous),
        "pool_blocks": shared.pool.blocks(),
        "pool_blocks_free": shared.pool.free_blocks(),
    })
}

/// What each process has.
fn base(row: &ProcessRow) -> Json {
    let pid = row.value(Cell::Pid);
    with(
        usage(pid),
        json!({
            "pid": pid,
            "state": row.state().name(),
            "restarts": row.value(Cell::Restarts),
            "deaths": {
                "killed": row.value(Cell::DeathsKilled),
                "crashed": row.value(Cell::DeathsCrashed),
                "exited": row.value(Cell::DeathsExited),
                "stuck": row.value(Cell::DeathsStuck),
            },
        }),
    )
}

/// Memory and processor time of a process.
fn usage(pid: u64) -> Json {
    let figures = ProcessFigures::of(pid);
    json!({ "rss_bytes": figures.rss_bytes, "cpu_ms": figures.cpu_ms })
}

/// A histogram: counts by the bounds of `bounds_us`, and one of what is longer; the sum of all.
fn spread(row: &ProcessRow, times: Times) -> Json {
    let spread = row.spread(times);
    json!({ "counts": spread.counts, "sum_us": spread.sum_us })
}

/// How many connections ended by each close code, those that the master closed for a dead worker among them.
fn ends(row: &ProcessRow) -> Json {
    let mut ends: serde_json::Map<String, Json> =
        row.ends().map(|(name, count)| (name, count.into())).collect();
    let for_dead = row.value(Cell::ClosedForDead);
    if for_dead > 0 {
        let plain = ends.get("none").and_then(Json::as_u64).unwrap_or(0);
        ends.insert("none".to_owned(), (plain + for_dead).into());
    }
    Json::Object(ends)
}

fn worker(slot: usize, row: &ProcessRow, mailbox_bytes: Option<u64>) -> Json {
    with(
        with(place(slot, row), moves(row)),
        json!({
            "busy_ms": busy_ms(row),
            "connections": row.value(Cell::Connections),
            "sessions": row.value(Cell::Sessions),
            "accepted": row.value(Cell::Accepted),
            "closed": row.value(Cell::Closed) + row.value(Cell::ClosedForDead),
            "closed_by_code": ends(row),
            "turns": spread(row, Times::Turn),
            "latency": spread(row, Times::Latency),
            "messages_in": row.value(Cell::MessagesIn),
            "messages_out": row.value(Cell::MessagesOut),
            "bytes_in": row.value(Cell::BytesIn),
            "bytes_out": row.value(Cell::BytesOut),
            "slow_closed": row.value(Cell::SlowClosed),
            "unsent_bytes": row.value(Cell::UnsentBytes),
            "output_full": row.value(Cell::OutputFull),
            "dropped": row.value(Cell::Dropped),
            "mailbox_depth": mailbox_bytes.unwrap_or(0),
            "spilled_bytes": row.value(Cell::SpilledBytes),
            "mail_refused": row.value(Cell::MailRefused),
            "hook_panics": row.value(Cell::HookPanics),
            "violations": row.value(Cell::Violations),
            "http_timeouts": row.value(Cell::HttpTimeouts),
            "http_refused": row.value(Cell::HttpFull),
            "dead_closed": row.value(Cell::DeadClosed),
            "pongs_skipped": row.value(Cell::PongsSkipped),
            "turns_full": row.value(Cell::TurnsFull),
            "refused_per_ip": row.value(Cell::FullPerIp),
            "refused_rate_per_ip": row.value(Cell::TooFastPerIp),
            "accept_delayed": row.value(Cell::AcceptDelayed),
            "message_timeouts": row.value(Cell::MessageTimeouts),
            "pool_share_full": row.value(Cell::PoolShareFull),
            "pool_full": row.value(Cell::PoolFull),
            "compressed_in": row.value(Cell::CompressedIn),
            "compressed_out": row.value(Cell::CompressedOut),
            "compressions": row.value(Cell::Compressions),
            "saved_bytes": row.value(Cell::SavedBytes),
            "bombs_refused": row.value(Cell::BombsRefused),
            "requests": row.value(Cell::Requests),
            "adopted": row.value(Cell::Adopted),
        }),
    )
}

/// Connections that left their worker, for another one or for good, and their mail.
fn moves(row: &ProcessRow) -> Json {
    json!({
        "moved_in": row.value(Cell::MovedIn),
        "moved_out": row.value(Cell::MovedOut),
        "forwarded": row.value(Cell::Forwarded),
        "lost_mail": row.value(Cell::LostMail),
        "closes_delayed": row.value(Cell::ClosesDelayed),
    })
}

/// A slot and the process in it.
fn place(slot: usize, row: &ProcessRow) -> Json {
    with(
        base(row),
        json!({
            "slot": slot,
            "generation": row.generation(),
            "stood_in_by": row.value(Cell::StoodInBy).checked_sub(1),
            "stuck_killed": row.value(Cell::StuckKilled),
            "sandboxed": row.value(Cell::Sandboxed) != 0,
        }),
    )
}

fn task(place: usize, board: &Scoreboard) -> Json {
    let row = &board.task(place);
    with(
        base(row),
        json!({
            "slot": place,
            "queued": board.tasks_queued(),
            "busy": row.value(Cell::TaskInHand) != 0,
            "done": row.value(Cell::TasksDone),
            "failed": row.value(Cell::TasksFailed) + row.value(Cell::TasksFailedInside),
        }),
    )
}

/// How long the turn under way has taken; 0 while waiting.
fn busy_ms(row: &ProcessRow) -> u64 {
    if row.state() != ChildState::Running || row.stamp() & 1 == 0 {
        return 0;
    }
    clock::now().0.saturating_sub(row.value(Cell::TurnBegan))
}

fn with(mut object: Json, more: Json) -> Json {
    merge(&mut object, more);
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_goes_into_objects_and_replaces_the_rest() {
        let mut object = json!({"a": {"b": 1}, "c": 2});
        merge(&mut object, json!({"a": {"d": 3}, "c": [4], "e": null}));
        assert_eq!(object, json!({"a": {"b": 1, "d": 3}, "c": [4], "e": null}));
    }
}
