//! The IM with one method of your own: `game.poke` pokes a user on all devices, and answers how often
//! the session has poked.
//!
//! `cargo run --release -p dunlin-im --example own_method -- --listen 127.0.0.1:9502`, then
//! `{"id":2,"method":"game.poke","params":{"user":"bob"}}` from a session that is logged in. How often
//! lies in a column of the session table: no reload and no worker's death forgets it.

#[path = "../../server/examples/support/mod.rs"]
mod support;

use clap::Parser;
use dunlin_im::protocol::{CallError, Code};
use dunlin_im::{CallContext, Extension, IM_KEYS, ImApp, read_params};
use dunlin_server::Server;
use dunlin_table::{Column, ColumnKind};
use serde_json::{Value, json, value::RawValue};
use std::{process::ExitCode, sync::atomic::Ordering};

#[derive(serde::Deserialize)]
struct Poke {
    user: String,
}

struct Game;

impl Extension for Game {
    fn columns(&self) -> Vec<Column> {
        vec![Column { name: "pokes".into(), kind: ColumnKind::Counter }]
    }

    fn methods(&self) -> &[&str] {
        &["game.poke"]
    }

    fn call(
        &self,
        caller: &mut CallContext<'_>,
        _method: &str,
        params: Option<&RawValue>,
    ) -> Result<Value, CallError> {
        let Poke { user } = read_params(params)?;
        if user == caller.user() {
            return Err(CallError::new(Code::Forbidden, "poke somebody else").because("own_user"));
        }
        let by = json!({"by": caller.user()});
        let sessions = caller.notify_user(&user, "game.poked", &by);
        let pokes = caller.counter("pokes").map_or(0, |word| word.fetch_add(1, Ordering::Relaxed));
        Ok(json!({"sessions": sessions, "pokes": pokes + 1}))
    }
}

fn main() -> ExitCode {
    let config = support::config(&support::Flags::parse(), IM_KEYS);
    match ImApp::new(&config.settings).and_then(|app| app.with_extension(Game)) {
        Ok(app) => Server::new(app, config).run().into(),
        Err(error) => {
            eprintln!("{error}");
            dunlin_server::exit::ExitCode::BadUsage.into()
        }
    }
}
