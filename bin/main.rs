//! The command line of dunlin.
//!
//! Holds no logic that a library could hold: `cli` says what may be typed, each verb has a file, and
//! this one maps what came of it to an exit code, in one place. Knows nothing of sockets, frames or
//! users.

#![forbid(unsafe_code)]

mod bench;
mod chat;
mod check;
mod cli;
mod control;
mod duration;
#[cfg(test)]
mod examples;
mod failure;
mod keys;
mod local_time;
mod log;
mod look;
mod manual;
mod outcome;
mod random;
mod readable;
mod screen;
mod serve;
mod settings_file;
mod status;
mod stop;
mod table;
mod terminal;
mod token;
mod top;
mod trace;
mod worker_table;

use clap::Parser;
use cli::{Cli, Verb};
use dunlin_server::exit::ExitCode;
use failure::Failure;
use std::process;

fn main() -> process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => {
            // Help and version come this way too, and go to standard output.
            let _ = said.print();
            let wrong = said.use_stderr();
            return if wrong { ExitCode::BadUsage } else { ExitCode::Ok }.into();
        }
    };
    match run(&cli.verb) {
        Ok(code) => code.into(),
        Err(failure) => {
            terminal::complain(&failure);
            failure.code.into()
        }
    }
}

fn run(verb: &Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Serve(serve) => serve::run(serve),
        Verb::Check(check) => check::run(check),
        Verb::Status(status) => status::run(status),
        Verb::Top(top) => top::run(top),
        Verb::Reload(reload) => control::reload(reload),
        Verb::Stop(stop) => stop::run(stop),
        Verb::Upgrade(upgrade) => control::upgrade(upgrade),
        Verb::Balance(balance) => control::balance(balance),
        Verb::Drain(drain) => control::drain(drain),
        Verb::Trace(trace) => trace::run(trace),
        Verb::Chat(chat) => chat::run(chat),
        Verb::Bench(bench) => bench::run(bench),
        Verb::Token(token) => token::run(token),
        Verb::Completions(completions) => manual::completions(completions),
        Verb::Man(man) => manual::man(man),
    }
}
