//! Words for people: results to standard output, everything else to standard error.

use crate::failure::Failure;
use std::fmt::Display;
use std::io::{self, Write};

/// Prints a text as it is.
///
/// # Errors
/// Standard output cannot be written to. A reader that has had enough (`| head`) is none.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
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
