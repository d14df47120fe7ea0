//! A hall where everybody hears everybody: what a Swoole server usually has, in one program.
//! `docs/from-swoole.md` has the same program in PHP beside it.
//!
//! `cargo run --example hall -- --workers 2 -t 2`, then in a browser's console, on a page of this
//! server: `s = new WebSocket("ws://127.0.0.1:9502/?name=ann"); s.onmessage = m => console.log(m.data)`
//! and `s.send("all hello")`, `s.send("note buy tea")`, `s.send("visits")`, `s.send("bye")`,
//! `s.send("reload")`.

mod support;

use clap::Parser;
use dunlin_server::app::{AreaRequest, Closed, Sender, StopReason, TaskFailure, UpgradeRequest};
use dunlin_server::context::{MasterContext, Role};
use dunlin_server::ids::{SlotId, TaskId, TimerId};
use dunlin_server::process::{AddedProcess, ProcessContext, ProcessEvent};
use dunlin_server::{App, ConnId, Context, Message, Server, TimerDue};
use dunlin_table::{Column, ColumnKind, Schema, Table};
use std::fs::{File, read_to_string};
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tracing::{info, warn};

const NAMES: u32 = 1_024;
const NAME_MAX: usize = 32;

struct Hall {
    /// How often each name was here, shared by all processes; laid out in `start`.
    visits: Option<Table>,
}

fn visits_schema() -> Result<Schema, String> {
    Schema::builder().int("visits").build().map_err(|error| error.to_string())
}

impl Hall {
    /// The name in the session's row.
    fn name(context: &Context<'_, Self>, conn: ConnId) -> String {
        let table = context.table();
        let row = table.column("name").zip(table.read(conn));
        row.map_or_else(String::new, |(column, row)| row.str(column).to_owned())
    }

    fn visits(&self, name: &str, by: i64) -> i64 {
        let Some(table) = &self.visits else { return 0 };
        let Some(column) = table.schema().column("visits") else { return 0 };
        table.incr(name, column, by).unwrap_or(0)
    }
}

impl App for Hall {
    type PipeMessage = String;
    type Task = (ConnId, String);
    type TaskResult = (ConnId, usize);

    fn columns(&self) -> Vec<Column> {
        vec![Column { name: "name".into(), kind: ColumnKind::Str(NAME_MAX) }]
    }

    fn areas(&self) -> Vec<AreaRequest> {
        let words =
            visits_schema().map_or(0, |schema| Table::words_needed(&schema, NAMES).unwrap_or(0));
        vec![AreaRequest { name: "visits", words }, AreaRequest { name: "tick", words: 1 }]
    }

    fn start(&mut self, master: &mut MasterContext<'_>) {
        let schema = visits_schema().ok().zip(master.areas.words("visits"));
        self.visits = schema.and_then(|(schema, words)| Table::new(schema, NAMES, words).ok());
        info!(pid = std::process::id(), "the master is here");
    }

    fn manager_start(&mut self, master: &mut MasterContext<'_>) {
        info!(listen = ?master.listen, "the first processes are forked");
    }

    fn worker_start(&mut self, context: &mut Context<'_, Self>) -> Result<(), String> {
        if context.role() == Role::Worker(SlotId(0)) {
            let Some([tick]) = context.area("tick") else { return Ok(()) };
            // The predecessor's tick goes on without it: there is to be one.
            context.clear_timer(TimerId(tick.load(Ordering::Relaxed)));
            let timer = context.tick(5_000, b"count").map_err(|error| error.to_string())?;
            tick.store(timer.0, Ordering::Relaxed);
        }
        Ok(())
    }

    fn open(
        &mut self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        request: &UpgradeRequest<'_>,
    ) {
        let query = request.http.query.as_deref().unwrap_or_default();
        let name = query.strip_prefix("name=").filter(|name| name.len() <= NAME_MAX);
        let name = name.unwrap_or("somebody");
        if let Some(column) = context.table().column("name") {
            let _ = context.table().write(conn, &[(column, name.into())]);
        }
        let visits = self.visits(name, 1);
        let _ = context.push(conn, Message::Text(&format!("welcome {name}, visit {visits}")));
        context.set_heartbeat(conn, Some(60_000));
        let _ = context.after(3_000, format!("hint {conn}").as_bytes());
    }

    fn message(&mut self, context: &mut Context<'_, Self>, conn: ConnId, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        let name = Self::name(context, conn);
        match text.split_once(' ').unwrap_or((text, "")) {
            ("all", rest) => context.broadcast(Message::Text(&format!("{name}: {rest}"))),
            ("note", rest) => {
                if let Err(error) = context.task(&(conn, format!("{name}: {rest}\n"))) {
                    warn!(%error, "a note was not taken");
                }
            }
            ("visits", _) => {
                let visits = self.visits(&name, 0);
                let _ = context.push(conn, Message::Text(&format!("visits: {visits}")));
            }
            ("bye", _) => {
                context.disconnect(conn, 1000, "bye");
            }
            ("reload", _) => context.reload(),
            _ => {
                let _ = context.push(conn, Message::Text("all, note, visits, bye or reload?"));
            }
        }
    }

    fn close(&mut self, context: &mut Context<'_, Self>, conn: ConnId, closed: &Closed) {
        info!(name = Self::name(context, conn), code = closed.code, "somebody left");
    }

    fn timer(&mut self, context: &mut Context<'_, Self>, _timer: TimerId, due: &TimerDue<'_>) {
        let payload = String::from_utf8_lossy(due.payload);
        if let Some(conn) = payload.strip_prefix("hint ").and_then(ConnId::parse) {
            // Who is gone by now is not told.
            let _ = context.push(conn, Message::Text("say: all hello"));
        } else {
            let here = context.table().established().count();
            context.broadcast(Message::Text(&format!("{here} here")));
        }
    }

    fn deadline(&mut self, context: &mut Context<'_, Self>, conn: ConnId) {
        context.disconnect(conn, 4000, "silent for a minute");
    }

    fn task(
        &mut self,
        _context: &mut Context<'_, Self>,
        _id: TaskId,
        (conn, note): (ConnId, String),
    ) -> Option<(ConnId, usize)> {
        let mut file = File::options().create(true).append(true).open("notes.txt").ok()?;
        file.write_all(note.as_bytes()).ok()?;
        Some((conn, note.len()))
    }

    fn finish(
        &mut self,
        context: &mut Context<'_, Self>,
        _id: TaskId,
        result: Result<(ConnId, usize), TaskFailure>,
    ) {
        match result {
            Ok((conn, bytes)) => {
                let _ = context.push(conn, Message::Text(&format!("noted, {bytes} bytes")));
            }
            Err(error) => warn!(%error, "a note is lost"),
        }
    }

    fn pipe_message(&mut self, context: &mut Context<'_, Self>, from: Sender, message: String) {
        info!(?from, "the load comes from the sampler");
        context.broadcast(Message::Text(&format!("load {message}")));
    }

    fn worker_stop(&mut self, context: &mut Context<'_, Self>, reason: StopReason) {
        info!(role = ?context.role(), ?reason, "a process ends");
    }

    fn shutdown(&mut self, _master: &mut MasterContext<'_>) {
        info!("everybody has ended");
    }
}

/// A process of its own: tells worker 0 the load of the machine, every five seconds.
fn sample(process: &mut ProcessContext) {
    loop {
        match process.wait(Some(Duration::from_secs(5))) {
            ProcessEvent::Timeout => {
                let load = read_to_string("/proc/loadavg").unwrap_or_default();
                let first = load.split(' ').next().unwrap_or_default().to_owned();
                process.send_pipe_message(SlotId(0), &first);
            }
            ProcessEvent::Bytes(_) => {}
            ProcessEvent::Stop | ProcessEvent::PipeEnded => return,
        }
    }
}

fn main() -> ExitCode {
    let config = support::config(&support::Flags::parse(), &[]);
    let server = Server::new(Hall { visits: None }, config);
    server.add_process(AddedProcess::new("sampler", sample)).run().into()
}
