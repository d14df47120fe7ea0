//! Words for people: results to standard output, everything else to standard error; and what a terminal
//! can do that a file cannot.

use crate::failure::Failure;
use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Prints a text as it is.
///
/// # Errors
/// Standard output cannot be written to. A reader that has had enough (`| head`) is none.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_to_reader(text).map(drop)
}

/// The same for a verb that goes on: false where nobody reads it any more.
///
/// # Errors
/// Standard output cannot be written to.
pub(crate) fn print_to_reader(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::failed(format!("cannot write to standard output: {error}"))),
    }
}

/// Draws on a terminal's standard error. There is nobody to tell if that fails.
pub(crate) fn draw(text: &str) {
    let mut out = io::stderr();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints a line that begins with our name to standard error. There is nobody to tell if that fails.
pub(crate) fn complain(line: &dyn Display) {
    let _ = writeln!(io::stderr(), "dunlin: {line}");
}

/// Columns and lines of the terminal that standard output is, if it is one.
pub(crate) fn size() -> Option<(usize, usize)> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let (columns, lines) = ratatui::crossterm::terminal::size().ok()?;
    (columns > 0 && lines > 0).then_some((columns.into(), lines.into()))
}

/// Whether standard error is a terminal where a line can be drawn over and over.
pub(crate) fn stderr_can_draw() -> bool {
    io::stderr().is_terminal() && !is_dumb(|name| env::var(name).ok())
}

/// What a text is to be noticed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    /// Nothing.
    None,
    /// It names what is below or behind it.
    Title,
    /// It passes, or is worth a look.
    Notable,
    /// Somebody should act.
    Bad,
}

/// Whether marks are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// No marks.
    #[cfg(test)]
    pub(crate) const OFF: Self = Self { on: false };
    /// Marks.
    #[cfg(test)]
    pub(crate) const ON: Self = Self { on: true };

    /// For standard output: only on a terminal that can, and not where NO_COLOR is set (no-color.org).
    pub(crate) fn for_stdout() -> Self {
        Self { on: io::stdout().is_terminal() && colours_are_wanted() }
    }

    pub(crate) fn text(self, mark: Mark, text: &str) -> String {
        let code = match mark {
            Mark::Title => "1",
            Mark::Notable => "33",
            Mark::Bad => "31",
            Mark::None => return text.to_owned(),
        };
        if self.on && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Whether the environment is for colours, where there is a terminal.
pub(crate) fn colours_are_wanted() -> bool {
    are_wanted(|name| env::var(name).ok())
}

fn are_wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    let is_set = |name| variable(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && !is_dumb(variable)
}

fn is_dumb(variable: impl Fn(&str) -> Option<String>) -> bool {
    variable("TERM").is_some_and(|terminal| terminal == "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_colour_is_obeyed_and_a_dumb_terminal_spared() {
        let wanted = |pairs: &[(&str, &str)]| {
            let pairs = pairs.to_vec();
            are_wanted(|name| {
                let found = pairs.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(wanted(&[("TERM", "xterm")]) && wanted(&[]) && wanted(&[("NO_COLOR", "")]));
        assert!(!wanted(&[("NO_COLOR", "1")]) && !wanted(&[("TERM", "dumb")]));
    }

    #[test]
    fn marks_are_shown_only_where_they_are_wanted() {
        assert_eq!(Paint::OFF.text(Mark::Bad, "x"), "x");
        assert_eq!(Paint::ON.text(Mark::Notable, "x"), "\x1b[33mx\x1b[0m");
        assert_eq!(Paint::ON.text(Mark::None, "x") + &Paint::ON.text(Mark::Bad, ""), "x");
    }
}
