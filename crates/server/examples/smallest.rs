//! The smallest server there is: it repeats what it hears. No flags; settings come from the
//! environment, such as `DUNLIN_SERVER__LISTEN=127.0.0.1:9503`.
//!
//! `cargo run --example smallest`; the page `docs/application.md` goes on from here.

use dunlin_server::config::{Config, SERVER_KEYS};
use dunlin_server::settings::{Layers, Settings};
use dunlin_server::{App, ConnId, Context, Message, Server};

struct Echo;

impl App for Echo {
    type PipeMessage = ();
    type Task = ();
    type TaskResult = ();

    fn message(&mut self, context: &mut Context<'_, Self>, conn: ConnId, message: Message<'_>) {
        // A client that went away meanwhile is no error of ours.
        let _ = context.push(conn, message);
    }
}

fn main() -> std::process::ExitCode {
    let mut layers = Layers::default();
    layers.take_environment(); // DUNLIN_SERVER__WORKERS=4
    let config = Settings::resolve(&[SERVER_KEYS], layers)
        .map_err(|error| error.to_string())
        .and_then(|settings| Config::from_settings(settings).map_err(|error| error.to_string()));
    match config {
        Ok(config) => Server::new(Echo, config).run().into(),
        Err(sentence) => {
            eprintln!("{sentence}");
            dunlin_server::exit::ExitCode::BadUsage.into()
        }
    }
}
