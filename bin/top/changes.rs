//! What happened between two looks at the status, as lines for people.
//!
//! Pure. Invariant: what is told once is not told again; between two servers only that is told.

use crate::look::Look;
use crate::readable::{counted, plain, word};
use crate::terminal::Mark;
use serde_json::Value as Json;

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Change {
    pub(super) mark: Mark,
    pub(super) words: String,
}

fn change(mark: Mark, words: impl Into<String>) -> Change {
    Change { mark, words: words.into() }
}

/// Everything that is worth a line.
pub(super) fn between(before: &Look, now: &Look) -> Vec<Change> {
    let mut changes = Vec::new();
    if before.number("/pid") != now.number("/pid") {
        changes
            .push(change(Mark::Notable, format!("another server, pid {}", word(now.at("/pid")))));
        return changes;
    }
    whole(before, now, &mut changes);
    let replacing = is_replacing(before) || is_replacing(now) || !changes.is_empty();
    for (earlier, worker) in before.workers().iter().zip(now.workers()) {
        of_worker(earlier, worker, replacing, &mut changes);
    }
    deaths_of_others(before, now, &mut changes);
    refusals(before, now, &mut changes);
    changes
}

/// Whether workers are replaced because somebody asked for it: that is told as a whole.
fn is_replacing(look: &Look) -> bool {
    matches!(look.at("/state").as_str(), Some("reloading" | "upgrading"))
}

fn whole(before: &Look, now: &Look, changes: &mut Vec<Change>) {
    for (name, done) in [("reload", "reloaded"), ("upgrade", "upgraded")] {
        let last = now.at(&format!("/last_{name}"));
        if grown(before.at(&format!("/last_{name}")), last, "seq") == 0 {
            continue;
        }
        changes.push(match last["error"].as_str() {
            Some(error) => change(Mark::Bad, format!("{name} failed: {}", plain(error))),
            None => change(
                Mark::None,
                format!(
                    "{done} in {} ms: {} handed on, {} dropped",
                    word(&last["took_ms"]),
                    word(&last["adopted"]),
                    word(&last["dropped"]),
                ),
            ),
        });
    }
    if now.at("/state") == "stopping" && before.at("/state") != "stopping" {
        changes.push(change(Mark::Notable, "the server stops"));
    }
    let moved = grown(before.at("/balance"), now.at("/balance"), "moved");
    if moved > 0 {
        changes.push(change(Mark::None, format!("{} moved", counted(moved, "connection"))));
    }
    let (was, is) = (before.at("/redis/connected"), now.at("/redis/connected"));
    if now.at("/redis/configured") == true && was != is {
        changes.push(match is == true {
            true => change(Mark::None, "redis is connected"),
            false => change(Mark::Bad, "redis is not connected"),
        });
    }
}

fn of_worker(before: &Json, now: &Json, replacing: bool, changes: &mut Vec<Change>) {
    let slot = word(&now["slot"]);
    let pids = format!("pid {}, now {}", word(&before["pid"]), word(&now["pid"]));
    if grown(before, now, "stuck_killed") > 0 {
        changes.push(change(Mark::Bad, format!("worker {slot} hung in one turn and was killed")));
    }
    if grown(before, now, "restarts") > 0 {
        changes.push(change(Mark::Bad, format!("worker {slot} died ({pids})")));
    } else if grown(before, now, "generation") > 0 && !replacing {
        changes.push(change(Mark::None, format!("worker {slot} was replaced ({pids})")));
    }
    if now["state"] == "crash_looping" && before["state"] != "crash_looping" {
        changes.push(change(Mark::Bad, format!("worker {slot} dies again and again")));
    }
    match (before["stood_in_by"].as_u64(), now["stood_in_by"].as_u64()) {
        (was, Some(other)) if was != Some(other) => {
            changes.push(change(Mark::Notable, format!("worker {other} stands in for {slot}")));
        }
        (Some(_), None) => {
            changes.push(change(Mark::None, format!("worker {slot} serves for itself again")));
        }
        _ => {}
    }
    let slow = grown(before, now, "slow_closed");
    if slow > 0 {
        let clients = counted(slow, "client");
        changes.push(change(Mark::Notable, format!("worker {slot} closed {clients}: too slow")));
    }
}

fn deaths_of_others(before: &Look, now: &Look, changes: &mut Vec<Change>) {
    let mut died = |name: String, earlier: &Json, process: &Json| {
        if grown(earlier, process, "restarts") > 0 {
            changes
                .push(change(Mark::Bad, format!("{name} died, now pid {}", word(&process["pid"]))));
        }
    };
    died("the timer process".to_owned(), before.at("/timer"), now.at("/timer"));
    for (earlier, task) in before.list("tasks").iter().zip(now.list("tasks")) {
        died(format!("task process {}", word(&task["slot"])), earlier, task);
    }
    for (earlier, process) in before.added().iter().zip(now.added()) {
        died(word(&process["name"]), earlier, process);
    }
}

/// Figures of workers that count what was refused or went wrong: name, of what, how.
const WORKER_COUNTS: [(&str, &str, &str); 8] = [
    ("refused_per_ip", "client", "refused: too many of one address"),
    ("refused_rate_per_ip", "client", "refused: one address comes too fast"),
    ("http_refused", "request", "refused: http.max_connections"),
    ("violations", "client", "closed: they broke the WebSocket protocol"),
    ("dead_closed", "client", "closed: they do not answer"),
    ("hook_panics", "hook", "panicked"),
    ("mail_refused", "mail", "refused: mailboxes are full"),
    ("pool_full", "message", "given up: the receive pool is full"),
];

/// The same of the server as a whole.
const COUNTS: [(&str, &str, &str, &str); 3] = [
    ("/sessions", "refused", "client", "refused: the session table is full"),
    ("/auth", "refused", "token", "refused"),
    ("/limits", "closed", "session", "closed: they went on over their rates"),
];

fn refusals(before: &Look, now: &Look, changes: &mut Vec<Change>) {
    let of_workers = WORKER_COUNTS.iter().map(|(name, thing, how)| {
        let sum = |look: &Look| look.sum(name).unwrap_or(0);
        (sum(now).saturating_sub(sum(before)), thing, how)
    });
    let of_all = COUNTS.iter().map(|(place, name, thing, how)| {
        (grown(before.at(place), now.at(place), name), thing, how)
    });
    for (count, thing, how) in of_workers.chain(of_all).filter(|(count, ..)| *count > 0) {
        changes.push(change(Mark::Notable, format!("{} {how}", counted(count, thing))));
    }
}

/// By how much a count has grown; 0 where it is not there.
fn grown(before: &Json, now: &Json, name: &str) -> u64 {
    match (before[name].as_u64(), now[name].as_u64()) {
        (Some(before), Some(now)) => now.saturating_sub(before),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status() -> Json {
        let worker = |slot: u64| {
            json!({"slot": slot, "pid": 10 + slot, "state": "running", "generation": 1,
            "restarts": 0, "stood_in_by": null, "stuck_killed": 0, "slow_closed": 0,
            "hook_panics": 0, "violations": 0})
        };
        json!({
            "pid": 1, "state": "running", "workers": [worker(0), worker(1)],
            "last_reload": {"seq": 0}, "last_upgrade": {"seq": 0}, "balance": {"moved": 0},
            "timer": {"pid": 20, "restarts": 0}, "tasks": [{"slot": 0, "pid": 21, "restarts": 0}],
            "processes": [{"name": "timer"}, {"name": "sampler", "pid": 22, "restarts": 0}],
            "sessions": {"refused": 0}, "redis": {"configured": true, "connected": true},
        })
    }

    /// The lines of what is changed in a status.
    fn lines(change: impl FnOnce(&mut Json)) -> Vec<String> {
        let before = status();
        let mut now = status();
        change(&mut now);
        let look = |status: &Json| Look::parse(&status.to_string()).unwrap();
        assert_eq!(between(&look(&now), &look(&now)), [], "nothing is told twice");
        between(&look(&before), &look(&now)).into_iter().map(|change| change.words).collect()
    }

    #[test]
    fn a_reload_is_one_line_and_a_worker_replaced_by_itself_another() {
        let reload = json!({"seq": 1, "took_ms": 9, "adopted": 7, "dropped": 0, "error": null});
        let done = lines(|now| {
            now["last_reload"] = reload;
            now["workers"][0]["generation"] = json!(2);
        });
        assert_eq!(done, ["reloaded in 9 ms: 7 handed on, 0 dropped"]);
        let failed = lines(|now| now["last_reload"] = json!({"seq": 1, "error": "no\u{1b}tea"}));
        assert_eq!(failed, ["reload failed: notea"]);
        assert_eq!(
            lines(|now| now["workers"][1]["generation"] = json!(2)),
            ["worker 1 was replaced (pid 11, now 11)"]
        );
        let reloading = lines(|now| {
            now["state"] = json!("reloading");
            now["workers"][1]["generation"] = json!(2);
        });
        assert!(reloading.is_empty(), "{reloading:?}");
    }

    #[test]
    fn deaths_name_who_it_was() {
        let dead = lines(|now| {
            now["workers"][1]["restarts"] = json!(1);
            now["workers"][1]["generation"] = json!(2);
            now["workers"][1]["pid"] = json!(33);
            now["workers"][0]["state"] = json!("crash_looping");
            now["workers"][0]["stood_in_by"] = json!(1);
            now["timer"]["restarts"] = json!(1);
            now["tasks"][0]["restarts"] = json!(2);
            now["processes"][1]["restarts"] = json!(1);
        });
        assert_eq!(
            dead,
            [
                "worker 0 dies again and again",
                "worker 1 stands in for 0",
                "worker 1 died (pid 11, now 33)",
                "the timer process died, now pid 20",
                "task process 0 died, now pid 21",
                "sampler died, now pid 22",
            ]
        );
    }

    #[test]
    fn refusals_are_counted_over_all_workers() {
        let refused = lines(|now| {
            now["workers"][0]["violations"] = json!(1);
            now["workers"][1]["violations"] = json!(2);
            now["workers"][1]["slow_closed"] = json!(1);
            now["sessions"]["refused"] = json!(1);
            now["redis"]["connected"] = json!(false);
            now["balance"]["moved"] = json!(5);
        });
        assert_eq!(
            refused,
            [
                "5 connections moved",
                "redis is not connected",
                "worker 1 closed 1 client: too slow",
                "3 clients closed: they broke the WebSocket protocol",
                "1 client refused: the session table is full",
            ]
        );
    }

    #[test]
    fn between_two_servers_only_that_is_told() {
        let other = lines(|now| {
            now["pid"] = json!(2);
            now["workers"][0]["restarts"] = json!(9);
        });
        assert_eq!(other, ["another server, pid 2"]);
    }
}
