//! `dunlin stop`: the signal, as any script would send it, and then the wait, with what is left.
//!
//! Knows `stopping` of the status object; without an answer it says how long it has waited.

use crate::cli::Stop;
use crate::failure::Failure;
use crate::outcome::say;
use crate::settings_file::run_dir;
use crate::terminal;
use dunlin_server::clock;
use dunlin_server::control::{self, ControlAnswer};
use dunlin_server::exit::ExitCode;
use serde_json::{Value as Json, json};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::thread;
use std::time::Duration;

pub(crate) fn run(flags: &Stop) -> Result<ExitCode, Failure> {
    say(flags.json, "stop", stop(flags), |result| {
        format!("dunlin stopped (pid {}) in {} ms\n", result["pid"], result["took_ms"])
    })
}

fn stop(flags: &Stop) -> Result<ControlAnswer, Failure> {
    let run_dir = run_dir(&flags.server);
    let begun = clock::now();
    let pid = control::terminate(&run_dir)?;
    let limit_ms = u64::from(flags.timeout) * 1_000;
    let mut words = Words::default();
    while !control::is_gone(&run_dir, pid) {
        let waited_ms = clock::now().since(begun);
        if waited_ms >= limit_ms {
            words.end();
            let line =
                format!("the server with pid {pid} is still there after {} s", flags.timeout);
            return Err(Failure::failed(line));
        }
        words.say_if_due(&run_dir, pid, waited_ms);
        thread::sleep(LOOK_EVERY);
    }
    words.end();
    let took_ms = clock::now().since(begun);
    Ok(ControlAnswer::done(json!({ "pid": pid, "took_ms": took_ms })))
}

/// How often is looked whether the server is gone, and how often is said that it is not.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const WORD_EVERY_MS: u64 = 1_000;
/// The same on a terminal, where a line is drawn anew.
const REDRAW_EVERY_MS: u64 = 200;
/// How long a server that stops may take to say how it is.
const PROGRESS_TIMEOUT: Duration = Duration::from_millis(200);
/// Cells of the bar.
const BAR: u64 = 30;
/// To the beginning of the line, which is cleared.
const REDRAW: &str = "\r\x1b[K";

/// What is said while waiting.
#[derive(Default)]
struct Words {
    last_ms: u64,
    drawn: bool,
}

impl Words {
    fn say_if_due(&mut self, run_dir: &Path, pid: i32, waited_ms: u64) {
        let draws = io::stderr().is_terminal();
        let every_ms = if draws { REDRAW_EVERY_MS } else { WORD_EVERY_MS };
        if waited_ms < self.last_ms + every_ms {
            return;
        }
        self.last_ms = waited_ms;
        let status = control::read_status(run_dir, PROGRESS_TIMEOUT).ok();
        let status: Option<Json> = status.and_then(|text| serde_json::from_str(&text).ok());
        let stopping = status.map(|mut status| status["stopping"].take()).unwrap_or_default();
        let line = progress(&stopping, pid, waited_ms);
        if draws {
            self.drawn = true;
            terminal::draw(&format!("{REDRAW}{}{line}", bar(&stopping)));
        } else {
            terminal::complain(&line);
        }
    }

    /// What follows stands on a line of its own.
    fn end(&mut self) {
        if std::mem::take(&mut self.drawn) {
            terminal::draw(REDRAW);
        }
    }
}

fn progress(stopping: &Json, pid: i32, waited_ms: u64) -> String {
    let number = |name: &str| stopping[name].as_u64();
    let waited = waited_ms / 1_000;
    match (number("told"), number("total"), number("left"), number("left_ms")) {
        (Some(told), Some(total), Some(left), Some(left_ms)) => format!(
            "waiting for pid {pid} to stop, {waited} s: {told} of {total} clients told, \
             {left} connections left, at most {} s more",
            left_ms.div_ceil(1_000)
        ),
        _ => format!("waiting for pid {pid} to stop, {waited} s"),
    }
}

fn bar(stopping: &Json) -> String {
    let (Some(told), Some(total)) = (stopping["told"].as_u64(), stopping["total"].as_u64()) else {
        return String::new();
    };
    let full = (BAR * told.min(total)).checked_div(total).unwrap_or(BAR);
    let cells: String = (0..BAR).map(|cell| if cell < full { '#' } else { '.' }).collect();
    format!("[{cells}] ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_what_the_server_said_and_no_more() {
        assert_eq!(progress(&Json::Null, 7, 1_999), "waiting for pid 7 to stop, 1 s");
        let stopping = json!({"told": 30, "total": 100, "left": 80, "left_ms": 4_100});
        assert_eq!(
            progress(&stopping, 7, 2_000),
            "waiting for pid 7 to stop, 2 s: 30 of 100 clients told, 80 connections left, at most 5 s more"
        );
        assert_eq!(bar(&stopping), format!("[{}{}] ", "#".repeat(9), ".".repeat(21)));
        assert_eq!(bar(&Json::Null), "");
        assert_eq!(bar(&json!({"told": 0, "total": 0})), format!("[{}] ", "#".repeat(30)));
    }
}
