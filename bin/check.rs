//! `dunlin check`: the settings a server would start with, as TOML, each with its origin.

use crate::cli::Check;
use crate::failure::Failure;
use crate::settings_file::Sources;
use crate::terminal;
use dunlin_im::ImApp;
use dunlin_server::config::Config;
use dunlin_server::exit::ExitCode;
use dunlin_server::settings::{Setting, Settings};
use std::fmt::Write;

pub(crate) fn run(flags: &Check) -> Result<ExitCode, Failure> {
    let config = Config::from_settings(Sources::new(&flags.settings)?.settings()?)?;
    // As `serve` does, so that what passes here starts there.
    let _app =
        ImApp::new(&config.settings).map_err(|error| Failure::bad_usage(error.to_string()))?;
    terminal::print(&text(&config.settings))?;
    Ok(ExitCode::Ok)
}

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
