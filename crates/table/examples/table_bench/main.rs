//! What the operations of the shared table cost, beside `Mutex<HashMap>` in one process and a bare
//! `fetch_add`:
//! `cargo run --release -p dunlin-table --example table_bench -- --json`.
//!
//! Every cell is measured in several rounds that are interleaved with those of all other cells, and the
//! best one is printed: on a machine that others use the best is what the code can do, all else is what
//! the neighbours did. Processes are forked once for each table and start together. A processor is
//! rented and shared: compare numbers of one run only.

mod jobs;
mod options;
mod processes;
mod report;
mod subjects;
mod walk;

use options::Options;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(options) = Options::from_arguments(std::env::args().skip(1))? else {
        println!("{}", options::HELP);
        return Ok(());
    };
    report::begin(&options);
    let mut cells = Vec::new();
    for rows in options.rows.clone() {
        let jobs = jobs::all(&options, rows == options.rows[0]);
        let best = processes::measure(&options, rows, &jobs)?;
        for (job, speed) in jobs.iter().zip(best) {
            let cell = report::Cell { job: *job, rows, speed };
            if options.json {
                println!("{}", cell.to_json());
            }
            cells.push(cell);
        }
    }
    if !options.json {
        report::print_table(&cells);
    }
    Ok(())
}
