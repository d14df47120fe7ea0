//! Every hook, in the process and the order that [`dunlin_server::App`] promises, and what becomes of
//! connections when processes are replaced or killed.
//!
//! The binary is both sides: with [`server::SERVER_OF`] in its environment it is the server of that
//! directory, else it runs the tests, each against servers of its own. `cargo test --test hooks -- WORD`
//! runs the tests whose names contain the word; `--test-threads N` sets how many run at once.
#![expect(
    clippy::disallowed_methods,
    reason = "a test is a shell: it reads clocks, and its server obeys the command to exit"
)]
#![expect(clippy::exit, reason = "its server obeys the command to exit")]

mod app;
mod client;
mod commands;
mod compression;
mod crashes;
mod deaths;
mod door;
mod flow;
mod handshakes;
mod ledger;
mod leftovers;
mod marks;
mod moves;
mod opening;
mod order;
mod place;
mod reloads;
mod runner;
mod sandbox;
mod server;
mod siblings;
mod stops;
mod talks;
mod timing;
mod upgrades;
mod vanishing;
mod wire;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(dir) = std::env::var_os(server::SERVER_OF) {
        return app::serve(place::Place::existing(Path::new(&dir)));
    }
    let tests = [
        order::TESTS,
        handshakes::TESTS,
        opening::TESTS,
        wire::TESTS,
        reloads::TESTS,
        leftovers::TESTS,
        moves::TESTS,
        talks::TESTS,
        marks::TESTS,
        crashes::TESTS,
        deaths::TESTS,
        ledger::TESTS,
        siblings::TESTS,
        flow::TESTS,
        door::TESTS,
        compression::TESTS,
        timing::TESTS,
        upgrades::TESTS,
        stops::TESTS,
        vanishing::TESTS,
        sandbox::TESTS,
    ];
    runner::run(&tests.concat())
}
