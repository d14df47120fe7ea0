//! A WebSocket echo server: open, message, close.
//!
//! `cargo run --release --example ws_echo -- --listen 127.0.0.1:9502 --workers 2 --greet`, then in a
//! browser's console: `s = new WebSocket("ws://127.0.0.1:9502"); s.onmessage = m => console.log(m.data)`
//! and `s.send("tea")`.

mod support;

use clap::Parser;
use dunlin_server::app::{Closed, UpgradeRequest};
use dunlin_server::{App, ConnId, Context, Message, Server};
use std::process::ExitCode;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    flags: support::Flags,
    /// Say `hello, welcome` to each client.
    #[arg(long)]
    greet: bool,
}

struct Echo {
    greet: bool,
}

impl App for Echo {
    type PipeMessage = ();
    type Task = ();
    type TaskResult = ();

    fn open(
        &mut self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        request: &UpgradeRequest<'_>,
    ) {
        tracing::info!(%conn, peer = %request.peer, path = request.http.path, "open");
        if self.greet {
            // A client that is gone already needs no greeting.
            let _ = context.push(conn, Message::Text("hello, welcome"));
        }
    }

    fn message(&mut self, context: &mut Context<'_, Self>, conn: ConnId, message: Message<'_>) {
        // A client that reads too slowly is closed by the server, not by us.
        let _ = context.push(conn, message);
    }

    fn close(&mut self, _context: &mut Context<'_, Self>, conn: ConnId, closed: &Closed) {
        tracing::info!(%conn, code = closed.code, by = ?closed.by, "close");
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = support::config(&arguments.flags, &[]);
    Server::new(Echo { greet: arguments.greet }, config).run().into()
}
