//! The verbs that ask a running server for something, and what they say of the outcome.

use crate::cli::{Balance, Drain, Reload, ServerFlags, Upgrade};
use crate::failure::Failure;
use crate::outcome::say;
use crate::settings_file::run_dir;
use dunlin_server::control::{self, ControlAnswer, ControlRequest};
use dunlin_server::exit::ExitCode;
use serde_json::Value as Json;
use std::time::Duration;

/// `dunlin reload`.
pub(crate) fn reload(flags: &Reload) -> Result<ExitCode, Failure> {
    let request = ControlRequest::Reload { tasks: flags.tasks, worker: flags.worker };
    let answer = ask(&flags.server, &request);
    let what = match flags.worker {
        Some(worker) => format!("worker {worker} replaced"),
        None if flags.tasks => "task processes replaced".to_owned(),
        None => "reloaded".to_owned(),
    };
    say(flags.json, "reload", answer, |result| report(&what, result))
}

/// `dunlin upgrade`.
pub(crate) fn upgrade(flags: &Upgrade) -> Result<ExitCode, Failure> {
    // The server has a working directory of its own.
    let file = flags.file.as_ref().map(|file| {
        let whole = std::path::absolute(file);
        let whole = whole.map_err(|error| Failure::failed(format!("{}: {error}", file.display())));
        whole.map(|file| file.to_string_lossy().into_owned())
    });
    let request = file.transpose().map(|file| ControlRequest::Upgrade { file });
    let answer = request.and_then(|request| ask(&flags.server, &request));
    say(flags.json, "upgrade", answer, upgraded)
}

/// `dunlin balance`.
pub(crate) fn balance(flags: &Balance) -> Result<ExitCode, Failure> {
    let answer = ask(&flags.server, &ControlRequest::Balance);
    say(flags.json, "balance", answer, |result| moves("balanced", result))
}

/// `dunlin drain`.
pub(crate) fn drain(flags: &Drain) -> Result<ExitCode, Failure> {
    let answer = ask(&flags.server, &ControlRequest::Drain { worker: flags.worker });
    let what = format!("worker {} drained", flags.worker);
    say(flags.json, "drain", answer, |result| moves(&what, result))
}

/// How long the verbs wait for their outcome. A slot takes `server.handover_timeout` at worst, and
/// the server answers before this with what it has.
pub(crate) const OUTCOME_TIMEOUT: Duration = Duration::from_secs(300);

fn ask(flags: &ServerFlags, request: &ControlRequest) -> Result<ControlAnswer, Failure> {
    Ok(control::ask(&run_dir(flags), request, OUTCOME_TIMEOUT)?)
}

/// What an upgrade's report says.
fn upgraded(result: &Json) -> String {
    let what = match result["version"].as_str() {
        Some(version) => format!("upgraded to version {version}"),
        None => "upgraded".to_owned(),
    };
    let mut text = report(&what, result);
    if let Some(ms) = result["stall_ms"].as_u64() {
        text.push_str(&format!("nothing was served for {ms} ms\n"));
    }
    text
}

/// What an answer says was done, as far as it says so.
fn report(what: &str, result: &Json) -> String {
    let mut text = what.to_owned();
    if let Some(ms) = result["took_ms"].as_u64() {
        text.push_str(&format!(" in {ms} ms"));
    }
    let counts: Vec<String> =
        [("adopted", "handed on"), ("moved", "moved"), ("dropped", "dropped")]
            .into_iter()
            .filter_map(|(name, words)| {
                let count = result[name].as_u64()?;
                let plural = if count == 1 { "" } else { "s" };
                Some(format!("{count} connection{plural} {words}"))
            })
            .collect();
    if !counts.is_empty() {
        text.push_str(&format!("; {}", counts.join(", ")));
    }
    text.push('\n');
    for (name, words) in [("applied", "applied"), ("needs_restart", "needs a restart")] {
        let keys: Vec<&str> =
            result[name].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        if !keys.is_empty() {
            text.push_str(&format!("{words}: {}\n", keys.join(", ")));
        }
    }
    text
}

/// What was moved, where everybody is now, and what stayed where it was.
fn moves(what: &str, result: &Json) -> String {
    let mut text = report(what, result);
    let workers: Vec<String> = result["connections"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(slot, connections)| format!("worker {slot}: {connections}"))
        .collect();
    if !workers.is_empty() {
        text.push_str(&format!("{}\n", workers.join(", ")));
    }
    let left: Vec<String> = [
        ("unsent", "with output that its client does not take"),
        ("other", "busy or closing"),
        ("http", "plain HTTP"),
    ]
    .into_iter()
    .filter_map(|(name, words)| match result["left"][name].as_u64() {
        None | Some(0) => None,
        Some(count) => Some(format!("{count} {words}")),
    })
    .collect();
    if !left.is_empty() {
        text.push_str(&format!("not moved: {}\n", left.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn moves_say_who_is_where_and_what_stayed() {
        let result = json!({
            "moved": 7, "took_ms": 3, "connections": [2, 12],
            "left": {"http": 1, "unsent": 2, "other": 0},
        });
        assert_eq!(
            moves("worker 0 drained", &result),
            "worker 0 drained in 3 ms; 7 connections moved\nworker 0: 2, worker 1: 12\n\
             not moved: 2 with output that its client does not take, 1 plain HTTP\n"
        );
        assert_eq!(moves("balanced", &Json::Null), "balanced\n");
    }

    #[test]
    fn an_upgrade_says_which_version_runs_and_how_long_nothing_was_served() {
        let result = json!({
            "version": "0.2.0", "took_ms": 1068, "stall_ms": 27, "adopted": 3, "dropped": 0,
            "applied": [], "needs_restart": [],
        });
        assert_eq!(
            upgraded(&result),
            "upgraded to version 0.2.0 in 1068 ms; 3 connections handed on, 0 connections dropped\n\
             nothing was served for 27 ms\n"
        );
        assert_eq!(upgraded(&Json::Null), "upgraded\n");
    }

    #[test]
    fn an_outcome_says_what_the_server_said_and_no_more() {
        assert_eq!(report("balanced", &Json::Null), "balanced\n");
        let result = json!({
            "took_ms": 12, "adopted": 3, "dropped": 0,
            "applied": ["log.level"], "needs_restart": ["server.workers", "server.listen"],
        });
        assert_eq!(
            report("reloaded", &result),
            "reloaded in 12 ms; 3 connections handed on, 0 connections dropped\n\
             applied: log.level\nneeds a restart: server.workers, server.listen\n"
        );
    }
}
