//! What a tree of processes uses: processor time to the nanosecond, and memory.

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::fs;
use std::time::{Duration, Instant};

/// Reads the clocks of a server's processes and of this one.
pub struct Meter {
    clocks: Vec<ClockId>,
}

/// One reading.
pub struct Reading {
    at: Instant,
    server: Duration,
    client: Duration,
    machine: Duration,
}

/// The difference of two readings.
pub struct Used {
    pub wall: Duration,
    pub server: Duration,
    pub client: Duration,
    machine: Duration,
}

impl Meter {
    /// A meter of a process and all its descendants, as they are now.
    pub fn new(root: u32) -> Self {
        let pids = tree(root);
        Self { clocks: pids.into_iter().filter_map(clock).collect() }
    }

    /// What was used up to now.
    pub fn read(&self) -> Reading {
        Reading {
            at: Instant::now(),
            server: self.server(),
            client: value(ClockId::CLOCK_PROCESS_CPUTIME_ID),
            machine: machine_busy(),
        }
    }

    /// Processor time of the server.
    pub fn server(&self) -> Duration {
        self.clocks.iter().map(|clock| value(*clock)).sum()
    }

    /// Waits until the server has nothing left to do, 3 s at most.
    pub fn wait_idle(&self) {
        let end = Instant::now() + Duration::from_secs(3);
        let mut before = self.server();
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
            let now = self.server();
            if now - before < Duration::from_micros(300) {
                return;
            }
            before = now;
        }
    }
}

impl Reading {
    pub fn since(&self, earlier: &Self) -> Used {
        Used {
            wall: self.at - earlier.at,
            server: self.server.saturating_sub(earlier.server),
            client: self.client.saturating_sub(earlier.client),
            machine: self.machine.saturating_sub(earlier.machine),
        }
    }
}

impl Used {
    /// Processors that neither server nor client kept busy, but others did. From ticks of 10 ms.
    pub fn other_cpus(&self) -> f64 {
        let others = self.machine.as_secs_f64() - (self.server + self.client).as_secs_f64();
        (others / self.wall.as_secs_f64()).max(0.0)
    }
}

/// Memory of a tree of processes in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Proportional set size without shared memory: anonymous and of files.
    pub own_kib: f64,
    /// Proportional set size of shared memory that was touched.
    pub shared_kib: f64,
    /// The kernel's slab, of the whole machine.
    pub slab_kib: f64,
}

impl Memory {
    pub fn of(root: u32) -> Self {
        let mut memory = Self { slab_kib: slab_kib(), ..Self::default() };
        for pid in tree(root) {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            memory.own_kib += field(&text, "Pss_Anon:") + field(&text, "Pss_File:");
            memory.shared_kib += field(&text, "Pss_Shmem:");
        }
        memory
    }
}

/// A process and its descendants.
pub fn tree(root: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // Behind the name, which may hold anything: state, parent.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let of = found[at];
        found.extend(all.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

fn clock(pid: u32) -> Option<ClockId> {
    clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok()
}

/// Zero for a process that is gone.
fn value(clock: ClockId) -> Duration {
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

/// Busy time of all processors since the machine started.
fn machine_busy() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|figure| figure.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|place| ticks.get(*place)).sum();
    Duration::from_millis(busy * 10)
}

fn slab_kib() -> f64 {
    field(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "Slab:")
}

fn field(text: &str, name: &str) -> f64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}
