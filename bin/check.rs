//! `dunlin check`: the settings a server would start with, as TOML or as JSON, each with its origin.

use crate::cli::Check;
use crate::failure::Failure;
use crate::outcome::say;
use crate::settings_file::Sources;
use crate::terminal;
use dunlin_im::ImApp;
use dunlin_server::config::Config;
use dunlin_server::control::ControlAnswer;
use dunlin_server::exit::ExitCode;
use dunlin_server::privileges::Privileges;
use dunlin_server::settings::{Setting, Settings, Value, duration_text, size_text};
use serde_json::{Value as Json, json};
use std::fmt::Write;

pub(crate) fn run(flags: &Check) -> Result<ExitCode, Failure> {
    let checked = settings(flags);
    if flags.json {
        let answer = checked.map(|settings| ControlAnswer::done(object(&settings)));
        return say(true, "check", answer, |_| String::new());
    }
    terminal::print(&text(&checked?))?;
    Ok(ExitCode::Ok)
}

fn settings(flags: &Check) -> Result<Settings, Failure> {
    let config = Config::from_settings(Sources::new(&flags.settings)?.settings()?)?;
    Privileges::check(&config)?;
    // As `serve` does, so that what passes here starts there.
    let _app =
        ImApp::new(&config.settings).map_err(|error| Failure::bad_usage(error.to_string()))?;
    Ok(config.settings)
}

/// The file that was read, and the settings by their keys.
fn object(settings: &Settings) -> Json {
    let entries = settings.iter().map(|setting| {
        let entry = json!({ "value": value(setting), "origin": setting.origin.to_string() });
        (setting.spec.key.to_owned(), entry)
    });
    let file = settings.file().map(|file| file.display().to_string());
    json!({ "file": file, "settings": entries.collect::<serde_json::Map<_, _>>() })
}

/// Times and sizes as they are written in the file, with their units.
fn value(setting: &Setting) -> Json {
    let shown = setting.shown();
    if shown == HIDDEN {
        return json!(HIDDEN);
    }
    match &setting.value {
        Value::Count(number) => json!(number),
        Value::Bool(truth) => json!(truth),
        Value::DurationMs(ms) => json!(duration_text(*ms)),
        Value::SizeBytes(bytes) => json!(size_text(*bytes)),
        Value::Text(text) => json!(text),
        Value::List(items) => json!(items),
    }
}

/// What stands for a secret; a text of that name would stand in quotes.
const HIDDEN: &str = "***";

/// Valid TOML, a section at a time; the origins stand behind, as comments.
fn text(settings: &Settings) -> String {
    let mut sections: Vec<(&str, Vec<(String, &Setting)>)> = Vec::new();
    for setting in settings.iter() {
        let (section, name) = setting.spec.key.rsplit_once('.').unwrap_or(("", setting.spec.key));
        let line = (format!("{name} = {}", setting.shown()), setting);
        match sections.iter_mut().find(|(known, _)| *known == section) {
            Some((_, lines)) => lines.push(line),
            None => sections.push((section, vec![line])),
        }
    }
    let mut text = String::new();
    for (section, lines) in sections {
        let separator = if text.is_empty() { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{separator}[{section}]");
        for (line, setting) in lines {
            let _ = writeln!(text, "{line:<ORIGIN_COLUMN$} # {}", setting.origin);
        }
    }
    text
}

/// Where the origins stand.
const ORIGIN_COLUMN: usize = 40;
