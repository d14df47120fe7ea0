//! Counts visitors in shared memory: right in any number of processes, whoever dies.
//!
//! `cargo run --example visitors -- --workers 2`; `docs/many-processes.md` tells what changed since
//! the example `visitors_alone`.

mod support;

use clap::Parser;
use dunlin_server::app::{AreaRequest, UpgradeRequest};
use dunlin_server::{App, ConnId, Context, Message, Server};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

struct Visitors;

impl App for Visitors {
    type PipeMessage = ();
    type Task = ();
    type TaskResult = ();

    fn areas(&self) -> Vec<AreaRequest> {
        vec![AreaRequest { name: "visitors", words: 1 }]
    }

    fn open(
        &mut self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        _request: &UpgradeRequest<'_>,
    ) {
        let Some([so_far]) = context.area("visitors") else { return };
        let number = so_far.fetch_add(1, Ordering::Relaxed) + 1;
        let here = context.table().established().count();
        let text = format!("you are visitor {number}, {here} here now");
        let _ = context.push(conn, Message::Text(&text));
    }

    fn message(&mut self, context: &mut Context<'_, Self>, _conn: ConnId, message: Message<'_>) {
        context.broadcast(message);
    }
}

fn main() -> ExitCode {
    let config = support::config(&support::Flags::parse(), &[]);
    Server::new(Visitors, config).run().into()
}
