//! Runs to tables: bests, medians, ratios.
//!
//! Ratios are ratios of bests (lowest processor time of all runs of one case), because the speed of a
//! shared machine changes from second to second and the bests repeat best.

use crate::peer::Peer;
use serde_json::{Value, json};

/// One run of one server.
#[derive(Clone, Debug)]
pub struct Run {
    pub case: String,
    pub peer: String,
    /// Messages, or connects.
    pub count: u64,
    pub per_second: f64,
    pub server_us: f64,
    pub client_busy: f64,
    pub other_cpus: f64,
    /// p50, p99, p99.9 in microseconds.
    pub latency_us: [f64; 3],
    /// Connects only.
    pub handshakes: Option<Handshakes>,
}

/// What else is told of connects.
#[derive(Clone, Copy, Debug)]
pub struct Handshakes {
    /// Refused, reset, wrongly answered or not at all.
    pub refused: usize,
    /// Took over 0.9 s: a packet was lost to a full queue.
    pub slow: usize,
}

/// Idle connections of one server.
#[derive(Clone, Debug)]
pub struct Idle {
    pub peer: String,
    pub connections: usize,
    /// Bytes per connection.
    pub own: f64,
    pub shared: f64,
    pub after_echo: f64,
    pub slab: f64,
    pub before_kib: f64,
}

/// The table of one case.
pub fn print_case(title: &str, runs: &[Run]) {
    let mut peers: Vec<&str> = Vec::new();
    for run in runs {
        if !peers.contains(&run.peer.as_str()) {
            peers.push(&run.peer);
        }
    }
    let best_us =
        |peer: &str| of(runs, peer, |run| run.server_us).into_iter().fold(f64::INFINITY, f64::min);
    let limit = best_us("limit");
    let rival = peers
        .iter()
        .filter(|p| Peer::is_rival(p))
        .map(|p| best_us(p))
        .fold(f64::INFINITY, f64::min);
    peers.sort_by(|a, b| best_us(a).total_cmp(&best_us(b)));
    let connects = runs.iter().any(|run| run.handshakes.is_some());
    println!("\n### {title}\n");
    println!(
        "| server | runs | µs CPU: best | median | × limit | × best peer | {}/s best | median | p50 µs | p99 | p99.9 | client busy | other CPUs |{}",
        if connects { "connects" } else { "msg" },
        if connects { " refused | over 0.9 s |" } else { "" }
    );
    println!(
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|{}",
        if connects { "--:|--:|" } else { "" }
    );
    for peer in peers {
        let rates = of(runs, peer, |run| run.per_second);
        let microseconds = of(runs, peer, |run| run.server_us);
        let percentile = |place: usize| median(of(runs, peer, |run| run.latency_us[place]));
        print!(
            "| {peer} | {} | {:.3} | {:.3} | {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} |",
            rates.len(),
            best_us(peer),
            median(microseconds),
            ratio(best_us(peer), limit),
            ratio(best_us(peer), rival),
            rates.iter().copied().fold(0.0, f64::max),
            median(rates),
            percentile(0),
            percentile(1),
            percentile(2),
            median(of(runs, peer, |run| run.client_busy)),
            median(of(runs, peer, |run| run.other_cpus)),
        );
        if connects {
            let told = runs.iter().filter(|run| run.peer == peer).filter_map(|run| run.handshakes);
            let (refused, slow) =
                told.fold((0, 0), |sum, told| (sum.0 + told.refused, sum.1 + told.slow));
            print!(" {refused} | {slow} |");
        }
        println!();
    }
}

/// The table of idle memory.
pub fn print_idle(rows: &[Idle]) {
    let Some(first) = rows.first() else { return };
    println!("\n### Memory per idle connection, {} connections\n", first.connections);
    println!(
        "| server | Pss before KiB | B/connection: own | shared table | after one echo each: own and shared | kernel slab, both ends |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for row in rows {
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            row.peer, row.before_kib, row.own, row.shared, row.after_echo, row.slab
        );
    }
}

/// Everything as JSON.
pub fn to_json(machine: &Value, runs: &[Run], idle: &[Idle]) -> Value {
    let runs: Vec<Value> = runs
        .iter()
        .map(|run| {
            json!({
                "case": run.case, "server": run.peer, "count": run.count,
                "per_second": run.per_second, "server_cpu_us": run.server_us,
                "client_busy": run.client_busy, "other_cpus": run.other_cpus,
                "p50_us": run.latency_us[0], "p99_us": run.latency_us[1],
                "p999_us": run.latency_us[2], "refused": run.handshakes.map(|told| told.refused),
                "over_900_ms": run.handshakes.map(|told| told.slow),
            })
        })
        .collect();
    let idle: Vec<Value> = idle
        .iter()
        .map(|row| {
            json!({
                "server": row.peer, "connections": row.connections, "own_bytes": row.own,
                "shared_bytes": row.shared, "after_echo_bytes": row.after_echo,
                "slab_bytes": row.slab, "pss_before_kib": row.before_kib,
            })
        })
        .collect();
    json!({ "machine": machine, "runs": runs, "idle": idle })
}

fn of(runs: &[Run], peer: &str, value: impl Fn(&Run) -> f64) -> Vec<f64> {
    runs.iter().filter(|run| run.peer == peer).map(value).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ratio(value: f64, base: f64) -> String {
    if base.is_finite() { format!("{:.3}", value / base) } else { "-".to_owned() }
}
