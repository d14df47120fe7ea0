//! `dunlin bench`: load and verifiers for a server that runs already.
//!
//! Each mode has a folder. Knows the protocol as a client does; nothing of how a server works inside.

mod client;
pub(crate) mod flags;
mod survive;

use crate::failure::Failure;
use dunlin_server::exit::ExitCode;
use flags::{Bench, Mode};

/// `dunlin bench MODE`.
pub(crate) fn run(bench: &Bench) -> Result<ExitCode, Failure> {
    match &bench.mode {
        Mode::Survive(flags) => survive::run(flags),
    }
}
