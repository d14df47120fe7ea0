//! The status as lines of text: the server, its workers, its other processes.
//!
//! Pure. Knows the names of section 4 of the contract; what is missing is shown as `-`.

use crate::look::{Between, Look};
use crate::readable::{MISSING, byte_rate, counted, duration, or_missing, plain, rate, size, word};
use crate::table::{self, Cell, Column, Side, labelled};
use crate::terminal::{Mark, Paint};
use crate::worker_table::{WORKERS, column, state, workers};
use serde_json::Value as Json;

/// All of it, for a terminal of this width, or as wide as it is.
pub(super) fn lines(
    now: &Look,
    between: Option<&Between>,
    width: Option<usize>,
    paint: Paint,
) -> Vec<String> {
    let mut lines = vec![title(now, paint)];
    for (label, text) in head(now, between) {
        lines.extend(labelled(label, &text, width));
    }
    if let Some(text) = trouble(now) {
        let broken = labelled("trouble", &text, width);
        lines.extend(broken.into_iter().map(|line| paint.text(Mark::Notable, &line)));
    }
    lines.push(String::new());
    lines.extend(table::lines(&WORKERS, &workers(now, between), width, paint));
    lines.push(String::new());
    lines.extend(table::lines(&OTHERS, &others(now), width, paint));
    lines
}

fn title(now: &Look, paint: Paint) -> String {
    let state = state(now.at("/state"));
    format!(
        "{}  pid {}  {}  up {}  generation {}",
        paint.text(Mark::Title, &format!("dunlin {}", word(now.at("/version")))),
        word(now.at("/pid")),
        paint.text(state.mark, &state.text),
        or_missing(now.number("/uptime_ms"), duration),
        word(now.at("/generation")),
    )
}

fn head(now: &Look, between: Option<&Between>) -> Vec<(&'static str, String)> {
    let words = |name: &str| now.list(name).iter().map(word).collect::<Vec<_>>().join(" ");
    let mut head = vec![("listen", words("listen"))];
    if !now.list("admin_listen").is_empty() {
        head.push(("admin", words("admin_listen")));
    }
    head.push(("config", now.at("/config").as_str().map_or_else(|| "none".to_owned(), plain)));
    head.push((
        "sessions",
        format!(
            "{} of {}, {} logged in, peak {}, {} refused",
            word(now.at("/sessions/used")),
            word(now.at("/sessions/capacity")),
            word(now.at("/sessions/logged_in")),
            word(now.at("/sessions/peak")),
            word(now.at("/sessions/refused")),
        ),
    ));
    head.push((
        "memory",
        format!(
            "{} shared; {} of {} descriptors open",
            or_missing(now.number("/shared_memory_bytes"), size),
            word(now.at("/descriptors/open")),
            word(now.at("/descriptors/limit")),
        ),
    ));
    head.extend(redis(now.at("/redis")).map(|text| ("redis", text)));
    head.extend(last_reload(now.at("/last_reload")).map(|text| ("reload", text)));
    match between {
        Some(between) => {
            let [messages, bytes] = rates(between);
            head.extend([("rates", messages), ("traffic", bytes)]);
        }
        None => head.push(("rates", "not known: the server was started anew meanwhile".to_owned())),
    }
    head
}

fn rates(between: &Between) -> [String; 2] {
    let Between { span_ms, total, .. } = between;
    let [messages_in, messages_out, accepted] =
        [total.messages_in, total.messages_out, total.accepted].map(|one| or_missing(one, rate));
    let [bytes_in, bytes_out] =
        [total.bytes_in, total.bytes_out].map(|bytes| or_missing(bytes, byte_rate));
    [
        format!(
            "over {}, per second: {messages_in} messages in, {messages_out} out, {accepted} accepted",
            seconds(*span_ms)
        ),
        format!("{bytes_in} a second in, {bytes_out} out"),
    ]
}

/// With one digit behind the point: `0.5 s`.
fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

fn redis(redis: &Json) -> Option<String> {
    if redis["configured"].as_bool() != Some(true) {
        return None;
    }
    let state = if redis["connected"] == true { "connected" } else { "not connected" };
    // What went wrong last is kept also when it is over.
    let error = redis["last_error"].as_str().map(|error| format!("; last error: {}", plain(error)));
    Some(format!("{state}{}", error.unwrap_or_default()))
}

fn last_reload(reload: &Json) -> Option<String> {
    let number = reload["seq"].as_u64().filter(|seq| *seq > 0)?;
    let outcome = match reload["error"].as_str() {
        Some(error) => format!("failed: {}", plain(error)),
        None => format!(
            "{} handed on, {} dropped, {} ms",
            word(&reload["adopted"]),
            word(&reload["dropped"]),
            word(&reload["took_ms"]),
        ),
    };
    Some(format!("{number} at {}: {outcome}", word(&reload["at"])))
}

/// What has gone wrong since the start and is worth a look, if anything has.
fn trouble(now: &Look) -> Option<String> {
    let mut words = Vec::new();
    for worker in now.workers() {
        if let Some(other) = worker["stood_in_by"].as_u64() {
            words.push(format!("worker {other} stands in for {}", word(&worker["slot"])));
        }
    }
    if now.at("/redis/configured") == true && now.at("/redis/connected") != true {
        words.push("redis is not connected".to_owned());
    }
    let mut count = |count: Option<u64>, thing: &str, what: &str| {
        if let Some(count) = count.filter(|count| *count > 0) {
            words.push(format!("{} {what}", counted(count, thing)));
        }
    };
    count(now.number("/sessions/refused"), "client", "refused: the session table was full");
    count(now.sum("slow_closed"), "client", "closed: they read too slowly");
    count(now.sum("restarts"), "death", "among workers");
    count(now.sum("stuck_killed"), "worker", "killed: stuck in one turn");
    count(now.sum("hook_panics"), "hook", "panicked");
    count(now.sum("mail_refused"), "mail", "refused: mailboxes were full");
    count(now.sum("pool_full"), "message", "given up: the receive pool was full");
    (!words.is_empty()).then(|| words.join("; "))
}

const OTHERS: [Column; 5] = [
    column("PROCESS", Side::Left, 0),
    column("PID", Side::Right, 2),
    column("STATE", Side::Left, 0),
    column("RESTARTS", Side::Right, 1),
    column("DOING", Side::Left, 0),
];

/// The timer, the task processes and what an application added.
fn others(now: &Look) -> Vec<Vec<Cell>> {
    let row = |name: String, process: &Json, doing: String| -> Vec<Cell> {
        vec![
            name.into(),
            word(&process["pid"]).into(),
            state(&process["state"]),
            word(&process["restarts"]).into(),
            doing.into(),
        ]
    };
    let timer = now.at("/timer");
    let doing = format!("{} armed, {} fired", word(&timer["armed"]), word(&timer["fired"]));
    let mut rows = vec![row("timer".to_owned(), timer, doing)];
    for task in now.list("tasks") {
        let busy = if task["busy"] == true { "busy; " } else { "" };
        let doing = format!(
            "{busy}{} queued, {} done, {} failed",
            word(&task["queued"]),
            word(&task["done"]),
            word(&task["failed"]),
        );
        rows.push(row(format!("task {}", word(&task["slot"])), task, doing));
    }
    let added = now.added().iter();
    rows.extend(added.map(|process| row(word(&process["name"]), process, MISSING.to_owned())));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(status: &Json, width: Option<usize>) -> Vec<String> {
        let now = Look::parse(&status.to_string()).unwrap();
        lines(&now, None, width, Paint::OFF)
    }

    fn status(workers: u64) -> Json {
        let worker = |slot: u64| {
            json!({"slot": slot, "pid": 4_000_100 + slot, "state": "running", "generation": 12,
            "restarts": 0, "connections": 1000 * slot, "messages_in": 5 * slot, "messages_out": 6,
            "bytes_in": 2048, "bytes_out": 9, "accepted": 3, "slow_closed": 0, "mailbox_depth": 0,
            "rss_bytes": 4_404_019, "cpu_ms": 310})
        };
        json!({
            "version": "0.1.0", "pid": 99, "state": "running", "uptime_ms": 12_000,
            "listen": ["127.0.0.1:9502"], "generation": 1, "config": null,
            "sessions": {"used": 1, "capacity": 2, "logged_in": 0, "peak": 1, "refused": 0},
            "workers": (0..workers).map(worker).collect::<Vec<_>>(),
            "timer": {"pid": 103, "state": "running", "restarts": 0, "armed": 1, "fired": 2},
            "tasks": [{"slot": 0, "pid": 104, "state": "running", "restarts": 0, "queued": 3,
                       "done": 20, "failed": 1, "busy": true}],
            "processes": [{"name": "timer", "pid": 103}, {"name": "sampler", "pid": 105}],
        })
    }

    #[test]
    fn an_empty_object_is_a_table_of_dashes() {
        let text = shown(&json!({}), None).join("\n");
        assert!(text.contains("pid -") && text.contains("sessions  - of -"), "{text}");
    }

    #[test]
    fn every_process_has_a_row_and_several_workers_a_sum() {
        let text = shown(&status(2), None);
        assert_eq!(text[0], "dunlin 0.1.0  pid 99  running  up 12.0s  generation 1");
        let at = text.iter().position(|line| line.starts_with("WORKER")).unwrap();
        assert!(text[at + 1].contains("4.1MiB"), "{text:#?}");
        assert!(text[at + 3].starts_with("   all") && text[at + 3].contains("8.3MiB"), "{text:#?}");
        for name in ["timer ", "task 0 ", "sampler "] {
            assert_eq!(text.iter().filter(|line| line.starts_with(name)).count(), 1, "{text:#?}");
        }
        assert!(text.iter().any(|line| line.ends_with("busy; 3 queued, 20 done, 1 failed")));
        assert!(!shown(&status(1), None).iter().any(|line| line.starts_with("   all")));
    }

    #[test]
    fn eighty_columns_are_enough_and_forty_do() {
        let mut status = status(2);
        status["workers"][0]["state"] = json!("crash_looping");
        status["workers"][0]["stood_in_by"] = json!(1);
        status["workers"][0]["restarts"] = json!(17);
        let before = Look::parse(&status.to_string()).unwrap();
        status["uptime_ms"] = json!(13_000);
        for slot in 0..2 {
            status["workers"][slot]["messages_in"] = json!(123_456);
            status["workers"][slot]["messages_out"] = json!(123_456);
            status["workers"][slot]["bytes_out"] = json!(123_456_789);
            status["workers"][slot]["cpu_ms"] = json!(1_310);
        }
        let now = Look::parse(&status.to_string()).unwrap();
        let between = Between::of(&before, &now).unwrap();
        let shown = |width| lines(&now, Some(&between), Some(width), Paint::OFF);
        for line in shown(80) {
            assert!(line.chars().count() <= 80, "{line:?}");
        }
        let text = shown(80).join("\n");
        for word in [
            "RESTARTS",
            "MAILBOX",
            "123.5k",
            "100%",
            "246.9k messages in",
            "over 1.0 s, per second",
        ] {
            assert!(text.contains(word), "{word} is missing:\n{text}");
        }
        let low = shown(40).join("\n");
        assert!(low.contains("IN/S") && !low.contains("MAILBOX") && !low.contains("GEN"), "{low}");
        assert!(shown(140).join("\n").contains("117.7MiB"), "{:#?}", shown(140));
    }

    #[test]
    fn trouble_is_named_only_where_there_is_some() {
        let mut status = status(2);
        let line = |status: &Json| {
            shown(status, None).into_iter().find(|line| line.starts_with("trouble"))
        };
        assert_eq!(line(&status), None);
        status["workers"][0]["stood_in_by"] = json!(1);
        status["workers"][1]["slow_closed"] = json!(1);
        status["sessions"]["refused"] = json!(2);
        status["redis"] = json!({"configured": true, "connected": false});
        assert_eq!(
            line(&status).unwrap(),
            "trouble   worker 1 stands in for 0; redis is not connected; 2 clients refused: the \
             session table was full; 1 client closed: they read too slowly"
        );
    }

    #[test]
    fn a_reload_and_redis_have_lines_of_their_own() {
        let mut status = status(1);
        status["last_reload"] =
            json!({"seq": 2, "at": "T", "adopted": 7, "dropped": 0, "took_ms": 31, "error": null});
        status["redis"] =
            json!({"configured": true, "connected": true, "last_error": "no\u{1b}tea"});
        let text = shown(&status, None).join("\n");
        assert!(text.contains("reload    2 at T: 7 handed on, 0 dropped, 31 ms"), "{text}");
        assert!(text.contains("redis     connected; last error: notea"), "{text}");
        status["last_reload"]["error"] = json!("a bad key");
        assert!(shown(&status, None).join("\n").contains("reload    2 at T: failed: a bad key"));
    }
}
