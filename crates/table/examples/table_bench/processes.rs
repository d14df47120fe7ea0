//! The processes that are measured: forked once for a table, told job after job by shared words.
//!
//! Two processes work on the shared table and on the bare words, a third on its `Mutex<HashMap>`.
//! Between jobs they sleep, so that the one that is measured has a processor of its own.
//!
//! Time is that of the process's own processor clock, so that what others do in between does not
//! count. Of two processes it counts only if both were at work nearly all the time: taking turns they
//! would not be in each other's way.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use dunlin_table::Region;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, Pid};

use crate::jobs::{Job, Op, Order, Pattern, What};
use crate::options::Options;
use crate::subjects::{
    MutexHashMap, SharedTable, Subject, count, count_by_swap, is_of_words, words_of,
};
use crate::walk;

/// Operations between two looks at the clock.
const CHUNK: usize = 512;
const NAP: Duration = Duration::from_micros(200);
const CHILDREN: usize = 3;
/// The third child.
const YARDSTICK: usize = 2;
/// Done, operations, and the two times.
const CHILD_LINES: usize = 4;
const LINE_WORDS: usize = 8;
/// Low bits of an order that say which job.
const JOB_BITS: u32 = 16;
/// What wall clock and processor clock of two processes may differ by: if one of them stood still for
/// longer, the wall clock counts.
const STANDSTILL: f64 = 1.1;
/// No round is begun on a table after so long: on a machine that has little time, the bench ends too.
const TABLE_LIMIT: Duration = Duration::from_secs(25);

/// The best of all rounds.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Speed {
    pub(crate) ops_per_s: f64,
}

/// Shared words, each on a cache line of its own.
#[derive(Clone, Copy)]
struct Control {
    words: &'static [AtomicU64],
}

impl Control {
    fn line(self, number: usize) -> &'static AtomicU64 {
        &self.words[number * LINE_WORDS]
    }

    /// A number of its own for each order << 16, and the number of the job; changed by the parent.
    /// 0: nothing yet; `u64::MAX`: there is none any more.
    fn order(self) -> &'static AtomicU64 {
        self.line(0)
    }

    /// How many processes arrived at the start of any job.
    fn arrivals(self) -> &'static AtomicU64 {
        self.line(1)
    }

    fn bare_word(self) -> &'static AtomicU64 {
        self.line(2)
    }

    /// How many jobs a child has done.
    fn done(self, child: usize) -> &'static AtomicU64 {
        self.line(3 + child * CHILD_LINES)
    }

    fn operations(self, child: usize) -> &'static AtomicU64 {
        self.line(4 + child * CHILD_LINES)
    }

    /// By the wall clock.
    fn elapsed(self, child: usize) -> f64 {
        self.line(5 + child * CHILD_LINES).load(Acquire) as f64
    }

    /// By the clock of the process.
    fn busy(self, child: usize) -> f64 {
        self.line(6 + child * CHILD_LINES).load(Acquire) as f64
    }

    fn note_time(self, child: usize, elapsed: Duration, busy: Duration) {
        for (line, time) in [(5, elapsed), (6, busy)] {
            let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            self.line(line + child * CHILD_LINES).store(nanoseconds, Relaxed);
        }
    }
}

/// Measures all jobs on one table, `options.rounds` times each.
pub(crate) fn measure(
    options: &Options,
    rows: u32,
    jobs: &[Job],
) -> Result<Vec<Speed>, Box<dyn std::error::Error>> {
    let words = (3 + CHILD_LINES * CHILDREN) * LINE_WORDS;
    let control = Control { words: Region::create(words)?.words(0..words) };
    let mut table = SharedTable::create(rows)?;
    let live = rows - walk::FREE_ROWS;
    table.fill(&walk::present(0..live, Order::Sequential));
    let mut children = Vec::new();
    for number in 0..CHILDREN {
        if number == YARDSTICK && !options.yardstick {
            continue;
        }
        let mut child = Child { number, control, live, seconds: options.seconds };
        children.push((number, in_child(|| child.serve(&mut table, jobs))));
    }
    let mut best = vec![Speed::default(); jobs.len()];
    let mut orders = 0;
    let start = now();
    for round in 0..options.rounds {
        if round > 0 && start.elapsed() > TABLE_LIMIT {
            break;
        }
        for (number, (job, best)) in jobs.iter().zip(&mut best).enumerate() {
            orders += 1;
            let order = orders << JOB_BITS | number as u64;
            best.ops_per_s = best.ops_per_s.max(run(control, &children, order, job)?);
        }
    }
    control.order().store(u64::MAX, Release);
    for (_, pid) in &children {
        waitpid(*pid, None)?;
    }
    Ok(best)
}

/// Orders one job and sums up what its processes did a second.
fn run(
    control: Control,
    children: &[(usize, Pid)],
    order: u64,
    job: &Job,
) -> Result<f64, Box<dyn std::error::Error>> {
    let at_work: Vec<usize> = workers_of(job).collect();
    let before: Vec<u64> = at_work.iter().map(|child| control.done(*child).load(Acquire)).collect();
    control.arrivals().store(0, Relaxed);
    control.order().store(order, Release);
    let all_done = || {
        at_work
            .iter()
            .zip(&before)
            .all(|(child, before)| control.done(*child).load(Acquire) > *before)
    };
    while !all_done() {
        std::thread::sleep(NAP);
        for (_, pid) in children {
            let status = waitpid(*pid, Some(WaitPidFlag::WNOHANG))?;
            if status != WaitStatus::StillAlive {
                children.iter().for_each(|(_, pid)| {
                    let _ = kill(*pid, Signal::SIGKILL);
                });
                return Err(format!("a measured process ended: {status:?}").into());
            }
        }
    }
    let together = at_work.len() < 2
        || at_work.iter().all(|child| control.elapsed(*child) < STANDSTILL * control.busy(*child));
    let speed = |child: &usize| {
        let time = if together { control.busy(*child) } else { control.elapsed(*child) };
        control.operations(*child).load(Acquire) as f64 * 1e9 / time
    };
    Ok(at_work.iter().map(speed).sum())
}

fn workers_of(job: &Job) -> std::ops::Range<usize> {
    match job.what {
        What::MutexHashMap => YARDSTICK..YARDSTICK + 1,
        What::Dunlin | What::FetchAdd | What::CompareSwap => 0..job.processes,
    }
}

/// One measured process.
struct Child {
    number: usize,
    control: Control,
    live: u32,
    seconds: f64,
}

impl Child {
    fn serve(&mut self, table: &mut SharedTable, jobs: &[Job]) {
        // The parent may be killed.
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
        self.stay_on_one_processor();
        table.set_writer(u16::try_from(self.number + 1).unwrap_or(u16::MAX));
        let everything = walk::present(0..self.live, Order::Sequential);
        let mut map = (self.number == YARDSTICK).then(|| MutexHashMap::create(&everything));
        // Every page of the segment is mapped by a first touch, which is not to be measured.
        if map.is_none() {
            table.get(&everything);
        }
        drop(everything);
        let (mut done, mut last) = (0, 0);
        loop {
            let order = self.control.order().load(Acquire);
            if order == u64::MAX {
                return;
            }
            let job = jobs.get((order & ((1 << JOB_BITS) - 1)) as usize);
            let Some(job) =
                job.filter(|job| order != last && workers_of(job).contains(&self.number))
            else {
                std::thread::sleep(NAP);
                continue;
            };
            last = order;
            match &mut map {
                Some(map) => self.walk(job, map),
                None if is_of_words(job) => self.walk_words(job, table),
                None => self.walk(job, table),
            }
            done += 1;
            self.control.done(self.number).store(done, Release);
        }
    }

    fn walk(&self, job: &Job, subject: &mut impl Subject) {
        let keys = self.keys(job);
        let mut number = 0;
        let mut at = 0;
        self.timed(job, || {
            let until = (at + CHUNK).min(keys.len());
            let done = subject.work(job.op, &keys[at..until], number);
            at = if until == keys.len() { 0 } else { until };
            number += 1;
            done
        });
    }

    fn walk_words(&self, job: &Job, table: &SharedTable) {
        let words = words_of(job, table, &self.keys(job), self.control.bare_word());
        let mut chunks = words.chunks(CHUNK).cycle();
        let work = if job.what == What::CompareSwap { count_by_swap } else { count };
        self.timed(job, || chunks.next().map_or(0, work));
    }

    /// The keys that this process goes through.
    fn keys(&self, job: &Job) -> Vec<Box<str>> {
        let place = if self.number == YARDSTICK { 0 } else { self.number };
        match (job.op, job.pattern) {
            (Op::InsertDelete, Pattern::Hot) => vec!["one new row".into(); CHUNK],
            (Op::InsertDelete, Pattern::Disjoint) => walk::absent(place, job.order),
            (_, Pattern::Hot) => vec![walk::key(self.live / 2); CHUNK],
            (_, Pattern::Disjoint) => {
                let share = self.live / u32::try_from(job.processes).unwrap_or(1);
                let from = share * u32::try_from(place).unwrap_or(0);
                walk::present(from..from + share, job.order)
            }
        }
    }

    /// Starts together with the others of the job and works until the time is over.
    fn timed(&self, job: &Job, mut work: impl FnMut() -> u64) {
        let together = workers_of(job).len() as u64;
        work(); // warms up
        self.control.arrivals().fetch_add(1, AcqRel);
        while self.control.arrivals().load(Acquire) < together {
            std::hint::spin_loop();
        }
        let limit = Duration::from_secs_f64(self.seconds);
        let (start, busy_before) = (now(), busy());
        let mut operations = 0;
        let elapsed = loop {
            operations += work();
            let elapsed = start.elapsed();
            if elapsed >= limit {
                break elapsed;
            }
        };
        self.control.note_time(self.number, elapsed, busy() - busy_before);
        self.control.operations(self.number).store(operations, Relaxed);
    }

    /// Two processes on one processor would never be in each other's way.
    fn stay_on_one_processor(&self) {
        let mut one = CpuSet::new();
        if one.set(self.number % 2).is_ok() {
            // Where there is only one, this fails, and they take turns.
            let _ = sched_setaffinity(Pid::from_raw(0), &one);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench is about time")]
fn now() -> Instant {
    Instant::now()
}

/// How long this process has been at work.
fn busy() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Forks; the child does `work` and is gone.
#[expect(clippy::disallowed_methods, reason = "this bench is about forked processes")]
#[expect(clippy::exit, reason = "the child must not go on with its parent's work")]
#[expect(unsafe_code, reason = "fork; the process has one thread")]
fn in_child(work: impl FnOnce()) -> Pid {
    // SAFETY: there is no other thread whose locks the child could inherit.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => {
            work();
            std::process::exit(0)
        }
        Err(error) => panic!("no process can be forked: {error}"),
    }
}
