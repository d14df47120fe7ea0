//! Timers: once, again and again, and taken back.
//!
//! `cargo run --release --example timers -- --listen 127.0.0.1:9502`, then in a browser's console:
//! `s = new WebSocket("ws://127.0.0.1:9502"); s.onmessage = m => console.log(m.data)`.
//!
//! A timer belongs to the worker's slot and lies in shared memory: it survives `kill -9` of the timer
//! process and of the worker, and what it is for stands in its payload.

mod support;

use clap::Parser;
use dunlin_server::app::{Closed, UpgradeRequest};
use dunlin_server::{App, ConnId, Context, Message, Server, TimerDue, TimerId};
use dunlin_table::{Column, ColumnKind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often each client is told the time.
const TICK_MS: u64 = 1_000;
/// After this long it has heard it often enough.
const ENOUGH_MS: u64 = 5_500;

/// What a worker remembers is gone with it; so which tick is a client's stands in the client's row.
struct Clock;

impl Clock {
    /// The client's own word in the session table; `None` if the client is gone.
    fn tick_of(context: &Context<'_, Self>, conn: ConnId) -> Option<&'static AtomicU64> {
        let column = context.table().counter_column("tick")?;
        context.table().counter(conn, column)
    }

    /// Takes the client's tick back; false if there is none any more.
    fn silence(context: &mut Context<'_, Self>, conn: ConnId) -> bool {
        let tick = Self::tick_of(context, conn).map_or(0, |word| word.swap(0, Ordering::Relaxed));
        tick != 0 && context.clear_timer(TimerId(tick))
    }
}

impl App for Clock {
    type PipeMessage = ();
    type Task = ();
    type TaskResult = ();

    fn columns(&self) -> Vec<Column> {
        vec![Column { name: "tick".into(), kind: ColumnKind::Counter }]
    }

    fn open(
        &mut self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        _request: &UpgradeRequest<'_>,
    ) {
        // The payload says what is to be done, and for whom.
        let Ok(tick) = context.tick(TICK_MS, format!("tick {conn}").as_bytes()) else { return };
        if let Some(word) = Self::tick_of(context, conn) {
            word.store(tick.0, Ordering::Relaxed);
        }
        // Where no timer is left (`server.max_timers`) the client ticks on until it goes.
        let _ = context.after(ENOUGH_MS, format!("enough {conn}").as_bytes());
    }

    fn timer(&mut self, context: &mut Context<'_, Self>, timer: TimerId, due: &TimerDue<'_>) {
        let Ok(payload) = std::str::from_utf8(due.payload) else { return };
        match payload.split_once(' ').and_then(|(what, conn)| Some((what, ConnId::parse(conn)?))) {
            Some(("tick", conn)) => {
                // More than one is due where this worker was busy, or was being replaced.
                let text = format!("tick, {} due", due.ticks);
                if context.push(conn, Message::Text(&text)).is_err() {
                    // The client went while its worker was dead: nobody has cleared it.
                    context.clear_timer(timer);
                }
            }
            Some((_, conn)) if Self::silence(context, conn) => {
                let _ = context.push(conn, Message::Text("enough"));
            }
            _ => {}
        }
    }

    fn message(&mut self, context: &mut Context<'_, Self>, conn: ConnId, _message: Message<'_>) {
        let text = if Self::silence(context, conn) { "stopped" } else { "was silent already" };
        let _ = context.push(conn, Message::Text(text));
    }

    fn close(&mut self, context: &mut Context<'_, Self>, conn: ConnId, _closed: &Closed) {
        Self::silence(context, conn);
    }
}

fn main() -> ExitCode {
    let config = support::config(&support::Flags::parse(), &[]);
    Server::new(Clock, config).run().into()
}
