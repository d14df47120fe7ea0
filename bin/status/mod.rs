//! `dunlin status`: two looks at the status pipe, and what they say as a table for people; or the JSON.
//!
//! The shell: reads, waits, draws. What is drawn is `view`'s.

mod view;

use crate::cli::Status;
use crate::failure::Failure;
use crate::look::{Between, Look};
use crate::settings_file::run_dir;
use crate::terminal::{self, Paint};
use dunlin_server::control;
use dunlin_server::exit::ExitCode;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How long the server may take to write, and others before us to read.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Between the first two looks: long enough to count in, short enough to wait for.
const FIRST_SPAN: Duration = Duration::from_millis(500);
/// Cursor to the upper left; to the end of a line, and of the screen: cleared.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

pub(crate) fn run(flags: &Status) -> Result<ExitCode, Failure> {
    let run_dir = run_dir(&flags.server);
    if flags.json {
        return json(flags, &run_dir);
    }
    let mut before = look(&run_dir)?;
    thread::sleep(if flags.watch { FIRST_SPAN.min(flags.every) } else { FIRST_SPAN });
    loop {
        let now = look(&run_dir)?;
        let between = Between::of(&before, &now);
        let is_read = show(flags.watch, &now, between.as_ref())?;
        if !flags.watch || !is_read {
            return Ok(ExitCode::Ok);
        }
        before = now;
        thread::sleep(flags.every);
    }
}

fn json(flags: &Status, run_dir: &Path) -> Result<ExitCode, Failure> {
    loop {
        let text = control::read_status(run_dir, READ_TIMEOUT)?;
        let is_read = terminal::print_to_reader(&format!("{}\n", text.trim_end()))?;
        if !flags.watch || !is_read {
            return Ok(ExitCode::Ok);
        }
        thread::sleep(flags.every);
    }
}

fn look(run_dir: &Path) -> Result<Look, Failure> {
    let text = control::read_status(run_dir, READ_TIMEOUT)?;
    Look::parse(&text).map_err(Failure::failed)
}

/// False where nobody reads it any more.
fn show(again: bool, now: &Look, between: Option<&Between>) -> Result<bool, Failure> {
    let size = terminal::size();
    let width = size.map(|(columns, _)| columns);
    let lines = view::lines(now, between, width, Paint::for_stdout());
    terminal::print_to_reader(&match size {
        Some((_, height)) if again => redrawn(lines, height),
        // Into a file, one behind the other.
        _ if again => lines.join("\n") + "\n\n",
        _ => lines.join("\n") + "\n",
    })
}

/// Over what was drawn before. What does not fit would scroll, and the next one stand elsewhere.
fn redrawn(mut lines: Vec<String>, height: usize) -> String {
    if lines.len() >= height {
        let hidden = lines.len() + 2 - height.min(lines.len());
        lines.truncate(height.saturating_sub(2));
        lines.push(format!("… {hidden} more lines: the terminal is too low"));
    }
    let text: String = lines.iter().map(|line| format!("{line}{CLEAR_LINE}\n")).collect();
    format!("{HOME}{text}{CLEAR_BELOW}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_higher_than_the_terminal_is_cut_and_says_so() {
        let lines = |count: usize| (0..count).map(|line| line.to_string()).collect::<Vec<_>>();
        assert_eq!(redrawn(lines(2), 3), "\x1b[H0\x1b[K\n1\x1b[K\n\x1b[J");
        let cut = redrawn(lines(9), 5);
        assert_eq!(cut.matches('\n').count(), 4, "the cursor stands on the last line: {cut:?}");
        assert!(cut.contains("2\x1b[K\n… 6 more lines"), "{cut:?}");
        assert!(redrawn(lines(9), 1).contains("more lines"));
    }
}
