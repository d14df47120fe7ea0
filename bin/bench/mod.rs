//! `dunlin bench`: load and verifiers for a server that runs already.
//!
//! Each mode has a folder. Knows the protocol as a client does; nothing of how a server works inside.

pub(crate) mod client;
pub(crate) mod flags;
mod load;
mod progress;
mod survive;

use crate::failure::Failure;
use dunlin_server::exit::ExitCode;
use flags::{Bench, Mode};

/// `dunlin bench MODE`.
pub(crate) fn run(bench: &Bench) -> Result<ExitCode, Failure> {
    match &bench.mode {
        Mode::Echo(flags) => load::echo(flags),
        Mode::Rate(flags) => load::rate(flags),
        Mode::Fanout(flags) => load::fanout(flags),
        Mode::Connect(flags) => load::connect(flags),
        Mode::Im(flags) => load::im::run(flags),
        Mode::Survive(flags) => survive::run(flags),
    }
}
