//! `dunlin top`: the server live on the whole terminal, with keys that reload, replace, drain and balance.
//!
//! `model` is what is seen and what keys mean, `changes` what happened between two looks, `view` how it is
//! drawn: all pure. `shell` has the terminal, the status pipe and the control socket.

mod changes;
mod model;
mod shell;
mod view;

use crate::cli::Top;
use crate::failure::Failure;
use crate::screen;
use dunlin_server::exit::ExitCode;

/// Takes the terminal until it is left.
pub(crate) fn run(flags: &Top) -> Result<ExitCode, Failure> {
    if !screen::is_there() {
        let line = "top draws on a terminal, and this is none: use dunlin status --watch";
        return Err(Failure::bad_usage(line));
    }
    shell::run(flags)
}
