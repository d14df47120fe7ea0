//! The table of workers, as `status` and `top` show it. Pure.

use crate::look::{Between, Look, Rates};
use crate::readable::{byte_rate, or_missing, percent, rate, size, word};
use crate::table::{Cell, Column, Side};
use crate::terminal::Mark;
use serde_json::Value as Json;

/// Its columns, from the left.
pub(crate) const WORKERS: [Column; 14] = [
    column("WORKER", Side::Right, 0),
    column("PID", Side::Right, 4),
    column("STATE", Side::Left, 0),
    column("GEN", Side::Right, 3),
    column("RESTARTS", Side::Right, 2),
    column("CONNS", Side::Right, 0),
    column("IN/S", Side::Right, 0),
    column("OUT/S", Side::Right, 0),
    column("IN B/S", Side::Right, 6),
    column("OUT B/S", Side::Right, 6),
    column("SLOW", Side::Right, 5),
    column("MAILBOX", Side::Right, 1),
    column("MEM", Side::Right, 0),
    column("CPU", Side::Right, 0),
];

/// A column of a table.
pub(crate) const fn column(title: &'static str, side: Side, spare: u8) -> Column {
    Column { title, side, spare }
}

/// A row for each worker, and one for all where they are several.
pub(crate) fn workers(now: &Look, between: Option<&Between>) -> Vec<Vec<Cell>> {
    let none = Rates::default();
    let mut rows = Vec::new();
    for (slot, worker) in now.workers().iter().enumerate() {
        let rates = between.and_then(|between| between.workers.get(slot)).unwrap_or(&none);
        let mut row = vec![
            Cell::from(word(&worker["slot"])),
            word(&worker["pid"]).into(),
            state(&worker["state"]),
            word(&worker["generation"]).into(),
        ];
        row.extend(figures(|name| worker[name].as_u64(), rates));
        rows.push(row);
    }
    if rows.len() > 1 {
        let mut row = ["all", "", "", ""].map(|text| Cell::from(text.to_owned())).to_vec();
        row.extend(figures(|name| now.sum(name), between.map_or(&none, |between| &between.total)));
        rows.push(row);
    }
    rows
}

/// The cells of a worker, or of all, from RESTARTS on.
fn figures(number: impl Fn(&str) -> Option<u64>, rates: &Rates) -> Vec<Cell> {
    let plain = |name: &str| or_missing(number(name), |number| number.to_string());
    let bytes = |name: &str| or_missing(number(name), size);
    [
        plain("restarts"),
        plain("connections"),
        or_missing(rates.messages_in, rate),
        or_missing(rates.messages_out, rate),
        or_missing(rates.bytes_in, byte_rate),
        or_missing(rates.bytes_out, byte_rate),
        plain("slow_closed"),
        bytes("mailbox_depth"),
        bytes("rss_bytes"),
        or_missing(rates.cpu_percent, percent),
    ]
    .map(Cell::from)
    .to_vec()
}

/// The state of a process or of the server.
pub(crate) fn state(state: &Json) -> Cell {
    let mark = match state.as_str() {
        Some("running") => Mark::None,
        Some("crashed" | "crash_looping" | "stopped") => Mark::Bad,
        _ => Mark::Notable,
    };
    Cell { text: word(state), mark }
}
