//! A live poll: everybody votes, everybody sees the votes. The program of `docs/own-application.md`.
//!
//! `cargo run --example poll -- --workers 2`, then in a browser's console, on a page of this server:
//! `s = new WebSocket("ws://127.0.0.1:9502/?name=ann"); s.onmessage = m => console.log(m.data)` and
//! `s.send("tea")`, `s.send("coffee")`, `s.send("save")`.

mod support;

use clap::Parser;
use dunlin_server::app::{
    Adoption, AreaRequest, Handshake, Reply, Response, StopReason, TaskFailure, UpgradeRequest,
};
use dunlin_server::context::Role;
use dunlin_server::http::Request;
use dunlin_server::ids::{RequestId, SlotId, TaskId, TimerId};
use dunlin_server::settings::{KeyKind, KeySpec};
use dunlin_server::{App, ConnId, Context, Message, Server, TimerDue};
use dunlin_table::{Column, ColumnKind};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

const CHOICES: [&str; 2] = ["tea", "coffee"];
const NAME_MAX: usize = 32;
/// How often changes are told.
const TELL_EVERY_MS: u64 = 200;
/// A client that says nothing for so long is gone.
const SILENCE_MS: u64 = 60_000;

const KEYS: &[KeySpec] = &[KeySpec {
    key: "poll.file",
    kind: KeyKind::Path,
    default: "\"poll.txt\"",
    reloadable: false,
    secret: false,
    doc: "Where results are written",
}];

struct Poll {
    file: std::path::PathBuf,
    /// What clients were told last. A worker may lose it: then they are told once more.
    told: String,
}

/// Work for a task process, and who asked for it.
#[derive(Serialize, Deserialize)]
struct Save {
    asker: ConnId,
    result: String,
}

impl Poll {
    /// Who votes for what, by what the rows of all sessions say now.
    fn result(context: &Context<'_, Self>) -> String {
        let table = context.table();
        let (Some(name), Some(choice)) = (table.column("name"), table.counter_column("choice"))
        else {
            return String::new();
        };
        let lines = CHOICES.iter().zip(1..).map(|(word, number)| {
            let chose = |conn: &ConnId| {
                let chosen = table.counter(*conn, choice);
                chosen.is_some_and(|chosen| chosen.load(Ordering::Relaxed) == number)
            };
            let rows = table.established().filter(chose).filter_map(|conn| table.read(conn));
            let mut names: Vec<String> = rows.map(|row| row.str(name).to_owned()).collect();
            names.sort();
            format!("{word}: {} ({})", names.len(), names.join(", "))
        });
        lines.collect::<Vec<_>>().join(" · ")
    }
}

/// The name in `?name=ann`, if it may be one.
fn name_of(request: &Request) -> Option<&str> {
    let name = request.query.as_deref()?.split('&').find_map(|pair| pair.strip_prefix("name="))?;
    let good = name.chars().all(char::is_alphanumeric) && !name.is_empty();
    (good && name.len() <= NAME_MAX).then_some(name)
}

impl App for Poll {
    type PipeMessage = ();
    type Task = Save;
    type TaskResult = Save;

    fn columns(&self) -> Vec<Column> {
        vec![
            Column { name: "name".into(), kind: ColumnKind::Str(NAME_MAX) },
            Column { name: "choice".into(), kind: ColumnKind::Counter },
        ]
    }

    fn areas(&self) -> Vec<AreaRequest> {
        vec![AreaRequest { name: "tick", words: 1 }]
    }

    fn worker_start(&mut self, context: &mut Context<'_, Self>) -> Result<(), String> {
        if context.role() == Role::Worker(SlotId(0)) {
            let Some([tick]) = context.area("tick") else { return Ok(()) };
            // The timer of this worker's predecessor goes on without it: there is to be one.
            context.clear_timer(TimerId(tick.load(Ordering::Relaxed)));
            let timer = context.tick(TELL_EVERY_MS, b"").map_err(|error| error.to_string())?;
            tick.store(timer.0, Ordering::Relaxed);
        }
        Ok(())
    }

    fn handshake(
        &mut self,
        _context: &mut Context<'_, Self>,
        _id: RequestId,
        request: &UpgradeRequest<'_>,
    ) -> Handshake {
        match name_of(request.http) {
            Some(_) => Handshake::accept(),
            None => Handshake::Refuse(Response::text(400, "say who you are: /?name=ann\n")),
        }
    }

    fn open(
        &mut self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        request: &UpgradeRequest<'_>,
    ) {
        let (table, name) = (context.table(), name_of(request.http).unwrap_or_default());
        if let Some(column) = table.column("name") {
            // It fits: `handshake` has seen to that.
            let _ = table.write(conn, &[(column, name.into())]);
        }
        context.set_heartbeat(conn, Some(SILENCE_MS));
        let hello = format!("hello {name}, say one of: {}", CHOICES.join(", "));
        let _ = context.push(conn, Message::Text(&hello));
    }

    fn message(&mut self, context: &mut Context<'_, Self>, conn: ConnId, message: Message<'_>) {
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => {
                context.disconnect(conn, 1003, "text only");
                return;
            }
        };
        if let Some(at) = CHOICES.iter().position(|choice| *choice == text) {
            let column = context.table().counter_column("choice");
            if let Some(word) = column.and_then(|column| context.table().counter(conn, column)) {
                word.store(at as u64 + 1, Ordering::Relaxed);
            }
        } else if text == "save" {
            let work = Save { asker: conn, result: Self::result(context) };
            if let Err(error) = context.task(&work) {
                let _ = context.push(conn, Message::Text(&format!("not saved: {error}")));
            }
        } else {
            let _ = context.push(conn, Message::Text("say tea, coffee or save"));
        }
    }

    fn timer(&mut self, context: &mut Context<'_, Self>, _timer: TimerId, _due: &TimerDue<'_>) {
        let result = Self::result(context);
        if result != self.told {
            context.broadcast(Message::Text(&result));
            self.told = result;
        }
    }

    fn task(&mut self, _context: &mut Context<'_, Self>, _id: TaskId, work: Save) -> Option<Save> {
        // This may take its time: a task process serves no connection.
        let write = || {
            let mut file = File::options().create(true).append(true).open(&self.file)?;
            writeln!(file, "{}", work.result)?;
            file.sync_all()
        };
        match write() {
            Ok(()) => Some(work),
            Err(error) => Some(Save { result: format!("not saved: {error}"), ..work }),
        }
    }

    fn finish(
        &mut self,
        context: &mut Context<'_, Self>,
        _id: TaskId,
        done: Result<Save, TaskFailure>,
    ) {
        match done {
            Ok(Save { asker, result }) => {
                let _ = context.push(asker, Message::Text(&format!("saved: {result}")));
            }
            Err(error) => tracing::warn!(%error, "a result was not saved"),
        }
    }

    fn adopt(&mut self, context: &mut Context<'_, Self>, conn: ConnId, why: Adoption) {
        if why == Adoption::Crash {
            let text = "the process that served you has died; I go on";
            let _ = context.push(conn, Message::Text(text));
        }
    }

    fn deadline(&mut self, context: &mut Context<'_, Self>, conn: ConnId) {
        context.disconnect(conn, 4000, "silent for a minute");
    }

    fn request(
        &mut self,
        context: &mut Context<'_, Self>,
        _id: RequestId,
        request: &Request,
    ) -> Reply {
        match &*request.path {
            "/" => Reply::Now(Response::text(200, "open the console\n")),
            "/result" => Reply::Now(Response::text(200, &(Self::result(context) + "\n"))),
            _ => Reply::Now(Response::text(404, "not found\n")),
        }
    }

    fn worker_stop(&mut self, context: &mut Context<'_, Self>, reason: StopReason) {
        if reason == StopReason::Shutdown {
            for conn in context.connections() {
                let _ = context.push(conn, Message::Text("the poll is over"));
            }
        }
    }
}

fn main() -> ExitCode {
    let config = support::config(&support::Flags::parse(), KEYS);
    let Some(file) = config.settings.path("poll.file").map(ToOwned::to_owned) else {
        eprintln!("poll.file names no file");
        return dunlin_server::exit::ExitCode::BadUsage.into();
    };
    Server::new(Poll { file, told: String::new() }, config).run().into()
}
