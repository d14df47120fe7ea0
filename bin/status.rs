//! `dunlin status`: the object of the status pipe as a table for people.
//!
//! Knows the names of section 4 of the contract; what is missing is shown as `-`.

use crate::cli::Status;
use crate::failure::Failure;
use crate::settings_file::run_dir;
use crate::terminal;
use dunlin_server::control;
use dunlin_server::exit::ExitCode;
use serde_json::Value as Json;
use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

pub(crate) fn run(flags: &Status) -> Result<ExitCode, Failure> {
    let run_dir = run_dir(&flags.server);
    loop {
        let read = control::read_status(&run_dir, READ_TIMEOUT)?;
        let text = if flags.json { read } else { table(&parse(&read)?) };
        let line_end = if text.ends_with('\n') { "" } else { "\n" };
        if !flags.watch {
            terminal::print(&format!("{text}{line_end}"))?;
            return Ok(ExitCode::Ok);
        }
        let redraw = if !flags.json && io::stdout().is_terminal() { CLEAR } else { "" };
        terminal::print(&format!("{redraw}{text}{line_end}"))?;
        thread::sleep(REDRAW_EVERY);
    }
}

/// How long the server may take to write, and others before us to read.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const REDRAW_EVERY: Duration = Duration::from_secs(1);
/// Cursor to the upper left, then clear all behind it.
const CLEAR: &str = "\x1b[H\x1b[2J";

fn parse(text: &str) -> Result<Json, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::failed(format!("the status cannot be read: {error}")))
}

fn table(status: &Json) -> String {
    let mut text = String::new();
    for line in head(status) {
        text.push_str(&line);
        text.push('\n');
    }
    for rows in [workers(status), others(status)] {
        text.push('\n');
        text.push_str(&columns(&rows));
    }
    text
}

fn head(status: &Json) -> Vec<String> {
    let sessions = &status["sessions"];
    let listen = status["listen"].as_array().map(|list| list.iter().map(word).collect::<Vec<_>>());
    let mut lines = vec![
        format!(
            "dunlin {}  pid {}  {}  up {}  generation {}",
            word(&status["version"]),
            word(&status["pid"]),
            word(&status["state"]),
            status["uptime_ms"].as_u64().map_or_else(missing, duration),
            word(&status["generation"]),
        ),
        format!("listen    {}", listen.unwrap_or_default().join(" ")),
        format!("config    {}", status["config"].as_str().unwrap_or("none")),
        format!(
            "sessions  {} of {}, {} logged in, peak {}, {} refused",
            word(&sessions["used"]),
            word(&sessions["capacity"]),
            word(&sessions["logged_in"]),
            word(&sessions["peak"]),
            word(&sessions["refused"]),
        ),
    ];
    lines.extend(redis(&status["redis"]));
    lines.extend(last_reload(&status["last_reload"]));
    lines
}

fn redis(redis: &Json) -> Option<String> {
    if redis["configured"].as_bool() != Some(true) {
        return None;
    }
    let state = if redis["connected"] == true { "connected" } else { "not connected" };
    let error = redis["last_error"].as_str().map(|error| format!(": {error}"));
    Some(format!("redis     {state}{}", error.unwrap_or_default()))
}

fn last_reload(reload: &Json) -> Option<String> {
    let number = reload["seq"].as_u64().filter(|seq| *seq > 0)?;
    let outcome = match reload["error"].as_str() {
        Some(error) => error.to_owned(),
        None => format!(
            "{} handed on, {} dropped, {} ms",
            word(&reload["adopted"]),
            word(&reload["dropped"]),
            word(&reload["took_ms"]),
        ),
    };
    Some(format!("reload    {number} at {}: {outcome}", word(&reload["at"])))
}

fn workers(status: &Json) -> Vec<Vec<String>> {
    let titles = [
        "WORKER",
        "PID",
        "STATE",
        "GEN",
        "RESTARTS",
        "CONNS",
        "MSGS IN",
        "MSGS OUT",
        "BYTES IN",
        "BYTES OUT",
        "SLOW",
        "MAILBOX",
        "RSS",
        "CPU",
    ];
    let mut rows = vec![titles.map(ToOwned::to_owned).to_vec()];
    for worker in list(&status["workers"]) {
        let bytes = |name: &str| worker[name].as_u64().map_or_else(missing, size);
        let plain = |name: &str| word(&worker[name]);
        rows.push(vec![
            plain("slot"),
            plain("pid"),
            plain("state"),
            plain("generation"),
            plain("restarts"),
            plain("connections"),
            plain("messages_in"),
            plain("messages_out"),
            bytes("bytes_in"),
            bytes("bytes_out"),
            plain("slow_closed"),
            plain("mailbox_depth"),
            bytes("rss_bytes"),
            worker["cpu_ms"].as_u64().map_or_else(missing, duration),
        ]);
    }
    rows
}

/// The timer, the task processes and what an application added.
fn others(status: &Json) -> Vec<Vec<String>> {
    let row = |name: String, process: &Json, doing: String| {
        let plain = |name: &str| word(&process[name]);
        vec![name, plain("pid"), plain("state"), plain("restarts"), doing]
    };
    let titles = ["PROCESS", "PID", "STATE", "RESTARTS", "DOING"];
    let mut rows = vec![titles.map(ToOwned::to_owned).to_vec()];
    let timer = &status["timer"];
    let doing = format!("{} armed, {} fired", word(&timer["armed"]), word(&timer["fired"]));
    rows.push(row("timer".to_owned(), timer, doing));
    for task in list(&status["tasks"]) {
        let doing = format!(
            "{} queued, {} done, {} failed",
            word(&task["queued"]),
            word(&task["done"]),
            word(&task["failed"]),
        );
        rows.push(row(format!("task {}", word(&task["slot"])), task, doing));
    }
    let added = list(&status["processes"]).iter().filter(|process| process["pid"] != timer["pid"]);
    rows.extend(added.map(|process| row(word(&process["name"]), process, String::new())));
    rows
}

/// Rows with each column as wide as its widest cell. Numbers stand to the right, words to the left.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let numeric: Vec<bool> = (0..count)
        .map(|column| {
            let mut cells = rows.iter().skip(1).map(|row| &row[column]).peekable();
            cells.peek().is_some()
                && cells.all(|cell| cell.starts_with(|c: char| c == '-' || c.is_ascii_digit()))
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| match numeric[column] {
            true => format!("{cell:>width$}", width = widths[column]),
            false => format!("{cell:<width$}", width = widths[column]),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn list(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Json) -> String {
    match value {
        Json::Null => missing(),
        // A control character could redraw the operator's terminal.
        Json::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        other => other.to_string(),
    }
}

fn missing() -> String {
    "-".to_owned()
}

/// A duration in its two largest units: `2d 3h`, `3m 20s`, `310ms`.
fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", ms % 1_000 / 100),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A size in the largest unit of which there is one: `4.2MiB`.
fn size(bytes: u64) -> String {
    let (unit, factor) = match bytes {
        0..1_024 => return format!("{bytes}B"),
        1_024..1_048_576 => ("KiB", 1 << 10),
        1_048_576..1_073_741_824 => ("MiB", 1 << 20),
        _ => ("GiB", 1_u64 << 30),
    };
    format!("{}.{}{unit}", bytes / factor, bytes % factor * 10 / factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_empty_object_is_a_table_of_dashes() {
        let text = table(&json!({}));
        assert!(text.contains("pid -") && text.contains("sessions  - of -"), "{text}");
    }

    #[test]
    fn every_process_has_a_row_and_columns_line_up() {
        let worker = |slot: u64| {
            json!({"slot": slot, "pid": 100 + slot, "state": "running",
            "generation": 1, "restarts": 0, "connections": 1000 * slot, "messages_in": 5,
            "messages_out": 6, "bytes_in": 2048, "bytes_out": 9, "slow_closed": 0,
            "mailbox_depth": 0, "rss_bytes": 4_404_019, "cpu_ms": 310})
        };
        let text = table(&json!({
            "version": "0.1.0", "pid": 99, "state": "running", "uptime_ms": 12_000,
            "listen": ["127.0.0.1:9502"], "generation": 1, "config": null,
            "workers": [worker(0), worker(1)],
            "timer": {"pid": 103, "state": "running", "armed": 1, "fired": 2},
            "tasks": [{"slot": 0, "pid": 104, "state": "running"}],
            "processes": [{"name": "timer", "pid": 103}, {"name": "sampler", "pid": 105}],
        }));
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[0], "dunlin 0.1.0  pid 99  running  up 12.0s  generation 1");
        let workers: Vec<&&str> =
            rows.iter().skip_while(|row| !row.starts_with("WORKER")).collect();
        assert_eq!(workers[1].len(), workers[2].len());
        assert!(workers[1].contains("4.1MiB") && workers[2].contains("310ms"), "{text}");
        for name in ["timer ", "task 0 ", "sampler "] {
            assert_eq!(rows.iter().filter(|row| row.starts_with(name)).count(), 1, "{text}");
        }
    }

    #[test]
    fn durations_and_sizes_are_short() {
        let durations = [0, 999, 12_300, 61_000, 3_700_000, 90_000_000].map(duration);
        assert_eq!(durations, ["0ms", "999ms", "12.3s", "1m 1s", "1h 1m", "1d 1h"]);
        assert_eq!([0, 1_023, 1_536, 5 << 30].map(size), ["0B", "1023B", "1.5KiB", "5.0GiB"]);
    }
}
