//! Every message goes to every open connection, whichever worker serves it.
//!
//! `cargo run --release --example ws_broadcast -- --workers 2`, then open two tabs.

mod support;

use clap::Parser;
use dunlin_server::{App, ConnId, Context, Message, Server};
use std::process::ExitCode;

struct Broadcast;

impl App for Broadcast {
    type PipeMessage = ();
    type Task = ();
    type TaskResult = ();

    fn message(&mut self, context: &mut Context<'_, Self>, _conn: ConnId, message: Message<'_>) {
        context.broadcast(message);
    }
}

fn main() -> ExitCode {
    let config = support::config(&support::Flags::parse(), &[]);
    Server::new(Broadcast, config).run().into()
}
