//! What is printed: a JSON object a cell for programs, a table for people.

use crate::jobs::{Job, Op, Pattern, What};
use crate::options::Options;
use crate::processes::Speed;

/// Times the speed of `Swoole\Table` that is aimed at.
const AIM: f64 = 5.0;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) job: Job,
    pub(crate) rows: u32,
    pub(crate) speed: Speed,
}

impl Cell {
    /// What one operation takes the process that does it.
    fn ns_per_op(&self) -> f64 {
        1e9 * self.job.processes as f64 / self.speed.ops_per_s
    }

    pub(crate) fn to_json(self) -> String {
        let Job { op, processes, pattern, order, what } = self.job;
        format!(
            "{{\"op\":\"{}\",\"processes\":{processes},\"pattern\":\"{}\",\"rows\":{},\
             \"ops_per_s\":{:.0},\"ns_per_op\":{:.2},\"what\":\"{}\",\"order\":\"{}\"}}",
            op.name(),
            pattern.name(),
            self.rows,
            self.speed.ops_per_s,
            self.ns_per_op(),
            what.name(),
            order.name()
        )
    }
}

pub(crate) fn begin(options: &Options) {
    if options.json {
        return;
    }
    println!(
        "Best of {} rounds of {} s, all cells interleaved; time is that of the processes' own processor \
         clocks.",
        options.rounds, options.seconds
    );
    println!("ns/op is what an operation takes the process that does it;");
    println!(
        "Mop/s is the sum of the processes. x Swoole: times Swoole\\Table through PHP (65,536 slots), \
         aimed at: {AIM}."
    );
    println!("Text columns hold 12, 32, 16 and 64 bytes. Get reads into a row that is there.\n");
}

pub(crate) fn print_table(cells: &[Cell]) {
    println!(
        "{:<13} {:>5} {:<8} {:<10} {:>8} {:<13} {:>8} {:>8} {:>9} {:>8}",
        "op", "procs", "pattern", "order", "rows", "what", "Mop/s", "ns/op", "x Swoole", "x Mutex"
    );
    for cell in cells {
        let Job { op, processes, pattern, order, what } = cell.job;
        let ratio = |to: Option<f64>| to.map_or_else(|| "-".to_owned(), |to| format!("{to:.1}"));
        let million = cell.speed.ops_per_s / 1e6;
        let swoole = swoole(&cell.job).filter(|_| what == What::Dunlin).map(|peer| million / peer);
        let mutex = yardstick(cells, cell).map(|peer| cell.speed.ops_per_s / peer);
        println!(
            "{:<13} {processes:>5} {:<8} {:<10} {:>8} {:<13} {million:>8.2} {:>8.1} {:>9} {:>8}",
            op.name(),
            pattern.name(),
            order.name(),
            cell.rows,
            what.name(),
            cell.ns_per_op(),
            ratio(swoole),
            ratio(mutex)
        );
    }
}

/// Million operations a second of `Swoole\Table`; the higher end of what was measured.
fn swoole(job: &Job) -> Option<f64> {
    let columns = match job.op {
        Op::Set => [2.2, 4.1, 3.4],
        Op::Get => [2.7, 5.3, 2.7],
        Op::GetOne => [4.8, 9.4, 4.9],
        Op::Incr => [4.6, 8.4, 4.1],
        Op::Exists => [4.6, 9.1, 4.5],
        Op::InsertDelete => [1.4, 2.5, 1.4],
        Op::Iterate if job.processes == 1 => [1.2, 1.2, 1.2],
        Op::Iterate | Op::Counter => return None,
    };
    match (job.processes, job.pattern) {
        (1, _) => Some(columns[0]),
        (_, Pattern::Disjoint) => Some(columns[1]),
        (_, Pattern::Hot) => Some(columns[2]),
    }
}

/// The same cell of the `Mutex<HashMap>`, which one process has.
fn yardstick(cells: &[Cell], cell: &Cell) -> Option<f64> {
    let same = |other: &&Cell| {
        other.job.what == What::MutexHashMap
            && cell.job.what == What::Dunlin
            && cell.job.processes == 1
            && (other.job.op, other.job.pattern, other.job.order, other.rows)
                == (cell.job.op, cell.job.pattern, cell.job.order, cell.rows)
    };
    cells.iter().find(same).map(|other| other.speed.ops_per_s)
}
