//! Measures dunlin's WebSocket echo beside its peers and beside the least a server can do.
//!
//! All servers of a case are started and stay; each round visits them in a new random order. A server
//! with one worker has processor 0 for itself and the load generator has another one.

mod cases;
mod connect;
mod echo;
mod frames;
mod machine;
mod peer;
mod process;
mod report;

use crate::cases::{CASES, Case, Pace, What};
use crate::peer::{Peer, Places, Running, pin};
use crate::process::{Memory, Meter};
use crate::report::{Handshakes, Idle, Run};
use clap::Parser;
use mio::Poll;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// Measures WebSocket servers against each other, on loopback only.
#[derive(Parser, Debug)]
struct Arguments {
    /// Fewer cases and rounds: within two minutes.
    #[arg(long)]
    quick: bool,
    /// Only these cases, by comma; `--list` names them.
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
    /// Only these servers, by comma.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Rounds of every case.
    #[arg(long)]
    rounds: Option<usize>,
    /// Binary messages instead of text.
    #[arg(long)]
    binary: bool,
    /// Writes every single run to a file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Another build of `ws_echo` to compare with, as NAME=PATH; may be given several times.
    #[arg(long, value_name = "NAME=PATH")]
    also: Vec<String>,
    /// Names cases and servers and ends.
    #[arg(long)]
    list: bool,
    /// The `ws_echo` of dunlin.
    #[arg(long, default_value = "ws_echo")]
    ws_echo: PathBuf,
    /// The folder of the npm `ws` server.
    #[arg(long, default_value = "peers/ws")]
    ws: PathBuf,
    /// A Python that has `websockets`.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// The Python server.
    #[arg(long, default_value = "peers/websockets/server.py")]
    websockets: PathBuf,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> io::Result<()> {
    let bench = Bench::new(arguments)?;
    if arguments.list {
        CASES.iter().for_each(|case| println!("{:8} {}", case.name, case.title));
        bench.peers.iter().for_each(|peer| println!("server {}", peer.name));
        return Ok(());
    }
    let facts = machine::facts();
    machine::print(&facts);
    let (mut runs, mut idle) = (Vec::new(), Vec::new());
    for workers in [1, 2] {
        let cases = bench.cases(workers);
        if cases.is_empty() {
            continue;
        }
        let servers = bench.start(workers)?;
        for case in cases {
            let of_case = bench.run_case(&case, &servers)?;
            report::print_case(case.title, &of_case);
            runs.extend(of_case);
        }
    }
    if let Some(connections) = bench.idle_connections() {
        idle = bench.run_idle(connections)?;
        report::print_idle(&idle);
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, report::to_json(&facts, &runs, &idle).to_string())?;
    }
    Ok(())
}

struct Bench {
    places: Places,
    peers: Vec<Peer>,
    cases: Vec<Case>,
    pace: Pace,
    binary: bool,
    cpus: usize,
}

impl Bench {
    fn new(arguments: &Arguments) -> io::Result<Self> {
        let binaries = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
        let places = Places {
            binaries,
            ws_echo: arguments.ws_echo.clone(),
            ws: arguments.ws.clone(),
            python: arguments.python.clone(),
            websockets: arguments.websockets.clone(),
        };
        let mut peers = Peer::all(&places);
        known(&arguments.peers, peers.iter().map(|peer| peer.name.as_str()), "server")?;
        known(&arguments.cases, CASES.iter().map(|case| case.name), "case")?;
        peers.retain(|peer| arguments.peers.is_empty() || arguments.peers.contains(&peer.name));
        for text in &arguments.also {
            peers.push(Peer::also(text).map_err(io::Error::other)?);
        }
        let cases = CASES.into_iter().filter(|case| {
            if arguments.cases.is_empty() {
                case.quick || !arguments.quick
            } else {
                arguments.cases.iter().any(|name| name == case.name)
            }
        });
        Ok(Self {
            places,
            peers,
            cases: cases.collect(),
            pace: Pace::new(arguments.quick, arguments.rounds),
            binary: arguments.binary,
            cpus: thread::available_parallelism().map_or(1, usize::from),
        })
    }

    /// The cases with servers that stay and have so many workers.
    fn cases(&self, wanted: usize) -> Vec<Case> {
        let fits = |case: &Case| match case.what {
            What::Echo { workers, .. } => workers == wanted,
            What::Connect { .. } => wanted == 1,
            What::Idle { .. } => false,
        };
        self.cases.iter().copied().filter(fits).collect()
    }

    fn idle_connections(&self) -> Option<usize> {
        self.cases.iter().find_map(|case| match case.what {
            What::Idle { connections } => Some(connections),
            _ => None,
        })
    }

    /// Starts all servers on processor 0 (several workers: on all), and leaves the client on the last.
    fn start(&self, workers: usize) -> io::Result<Vec<Running>> {
        let apart = workers == 1 && self.cpus > 1;
        pin(apart.then_some(0), self.cpus)?;
        let mut servers = Vec::new();
        for peer in self.peers.iter().filter(|peer| workers == 1 || peer.scales()) {
            match peer.start(&self.places, workers) {
                Ok(running) => servers.push(running),
                Err(error) => eprintln!("without {}: {error}", peer.name),
            }
        }
        pin(apart.then_some(self.cpus - 1), self.cpus)?;
        Ok(servers)
    }

    fn run_case(&self, case: &Case, servers: &[Running]) -> io::Result<Vec<Run>> {
        let mut runs = Vec::new();
        for _ in 0..self.pace.rounds {
            let mut order: Vec<&Running> = servers.iter().collect();
            shuffle(&mut order);
            for server in order {
                let meter = Meter::new(server.root());
                meter.wait_idle();
                let run = self.run_once(case, server, &meter);
                let run = run.map_err(|error| {
                    io::Error::other(format!("{} in {}: {error}", server.name, case.name))
                })?;
                runs.push(run);
            }
        }
        Ok(runs)
    }

    fn run_once(&self, case: &Case, server: &Running, meter: &Meter) -> io::Result<Run> {
        match case.what {
            What::Echo { connections, depth, payload_bytes, .. } => {
                let load = self.pace.load(connections, depth, payload_bytes, self.binary);
                let outcome = echo::run(server.address, &load, meter)?;
                Ok(echo_run(case, server, &outcome))
            }
            What::Connect { count, in_flight } => {
                let before = meter.read();
                let mut poll = Poll::new()?;
                let opening = connect::open(&mut poll, server.address, count, in_flight)?;
                let used = meter.read().since(&before);
                let open = opening.links.len();
                opening.links.into_iter().for_each(connect::Link::cut);
                let seconds = opening.took.as_secs_f64();
                Ok(Run {
                    case: case.name.to_owned(),
                    peer: server.name.clone(),
                    count: open as u64,
                    per_second: open as f64 / seconds,
                    server_us: used.server.as_secs_f64() * 1e6 / open.max(1) as f64,
                    client_busy: used.client.as_secs_f64() / used.wall.as_secs_f64(),
                    other_cpus: used.other_cpus(),
                    latency_us: percentiles(&opening.latency),
                    handshakes: Some(Handshakes { refused: opening.refused, slow: opening.slow }),
                })
            }
            What::Idle { .. } => Err(io::Error::other("idle connections have no rounds")),
        }
    }

    /// Memory of a fresh server without and with idle connections, one server after the other.
    fn run_idle(&self, wanted: usize) -> io::Result<Vec<Idle>> {
        let connections = wanted.min(machine::descriptors().saturating_sub(200));
        pin(None, self.cpus)?;
        let mut rows = Vec::new();
        for peer in &self.peers {
            match self.idle_of(peer, connections) {
                Ok(row) => rows.push(row),
                Err(error) => eprintln!("{} with idle connections: {error}", peer.name),
            }
        }
        Ok(rows)
    }

    fn idle_of(&self, peer: &Peer, connections: usize) -> io::Result<Idle> {
        let server = peer.start(&self.places, 1)?;
        let meter = Meter::new(server.root());
        // A first client, so that what a server makes once is there.
        let one = self.pace.load(1, 1, 20, self.binary);
        echo::run(server.address, &echo::Load { measured: Duration::ZERO, ..one }, &meter)?;
        meter.wait_idle();
        let before = Memory::of(server.root());
        let mut poll = Poll::new()?;
        let mut opening = connect::open(&mut poll, server.address, connections, 256)?;
        meter.wait_idle();
        let idle = Memory::of(server.root());
        echo::once_each(&mut poll, &mut opening.links)?;
        meter.wait_idle();
        let after = Memory::of(server.root());
        let open = opening.links.len() as f64;
        opening.links.into_iter().for_each(connect::Link::cut);
        let per = |kib: f64| kib * 1024.0 / open;
        Ok(Idle {
            peer: server.name.clone(),
            connections,
            own: per(idle.own_kib - before.own_kib),
            shared: per(idle.shared_kib - before.shared_kib),
            after_echo: per(after.own_kib + after.shared_kib - before.own_kib - before.shared_kib),
            slab: per(idle.slab_kib - before.slab_kib),
            before_kib: before.own_kib + before.shared_kib,
        })
    }
}

fn echo_run(case: &Case, server: &Running, outcome: &echo::Outcome) -> Run {
    let (messages, seconds) = (outcome.messages as f64, outcome.took.as_secs_f64());
    Run {
        case: case.name.to_owned(),
        peer: server.name.clone(),
        count: outcome.messages,
        per_second: messages / seconds,
        server_us: outcome.server_cpu.as_secs_f64() * 1e6 / messages.max(1.0),
        client_busy: outcome.client_cpu.as_secs_f64() / seconds,
        other_cpus: outcome.other_cpus,
        latency_us: percentiles(&outcome.latency),
        handshakes: None,
    }
}

fn percentiles(latency: &hdrhistogram::Histogram<u64>) -> [f64; 3] {
    [0.5, 0.99, 0.999].map(|quantile| latency.value_at_quantile(quantile) as f64 / 1e3)
}

/// Puts the servers of a round in a random order.
fn shuffle<T>(items: &mut [T]) {
    use std::hash::{BuildHasher, RandomState};
    for last in (1..items.len()).rev() {
        // A fresh `RandomState` is seeded at random.
        let random = RandomState::new().hash_one(last);
        let place = usize::try_from(random % (last as u64 + 1)).unwrap_or(0);
        items.swap(last, place);
    }
}

fn known<'n>(
    asked: &[String],
    mut there: impl Iterator<Item = &'n str> + Clone,
    what: &str,
) -> io::Result<()> {
    match asked.iter().find(|name| !there.clone().any(|known| known == *name)) {
        None => Ok(()),
        Some(name) => {
            let all: Vec<&str> = there.by_ref().collect();
            Err(io::Error::other(format!("no {what} {name:?}; there are {}", all.join(", "))))
        }
    }
}
