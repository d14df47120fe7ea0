//! Counts visitors in a field of its own: right in one process, wrong in two.
//!
//! `cargo run --example visitors_alone -- --workers 2`; the example `visitors` is how it is done, and
//! `docs/many-processes.md` tells of both.

mod support;

use clap::Parser;
use dunlin_server::app::UpgradeRequest;
use dunlin_server::{App, ConnId, Context, Message, Server};
use std::process::ExitCode;

#[derive(Default)]
struct Visitors {
    so_far: u64,
}

impl App for Visitors {
    type PipeMessage = ();
    type Task = ();
    type TaskResult = ();

    fn open(
        &mut self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        _request: &UpgradeRequest<'_>,
    ) {
        self.so_far += 1;
        let here = context.connections().len();
        let text = format!("you are visitor {}, {here} here now", self.so_far);
        let _ = context.push(conn, Message::Text(&text));
    }

    fn message(&mut self, context: &mut Context<'_, Self>, _conn: ConnId, message: Message<'_>) {
        for other in context.connections() {
            let _ = context.push(other, message);
        }
    }
}

fn main() -> ExitCode {
    let config = support::config(&support::Flags::parse(), &[]);
    Server::new(Visitors::default(), config).run().into()
}
