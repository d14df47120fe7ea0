//! What is done to the server while the clients talk: threads of their own, one deed after the
//! other, or into each other.
//!
//! Tells the loop before a worker dies, so that no connection is seen to end before its reason is.
//! Signals go only to processes that the server's own status names.

use crate::bench::client::moment::Moment;
use crate::bench::flags::Deed;
use crate::random::{self, Random};
use dunlin_server::control::{self, ControlRequest};
use mio::Waker;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

/// What the loop is told.
#[derive(Debug)]
pub(super) enum Event {
    /// A worker is killed next.
    WorkerDies,
    Done(Outcome),
    /// No more deeds come.
    Over,
}

/// What came of a deed.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) deed: Deed,
    /// To the end of the verb; for a kill, until another process serves.
    pub(super) took_ms: u64,
    /// Why it failed.
    pub(super) problem: Option<String>,
    /// It may fail: another deed was under way meanwhile.
    pub(super) excused: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Doer {
    pub(super) run_dir: PathBuf,
    pub(super) deeds: Vec<Deed>,
    pub(super) every: Duration,
    /// So many, or as many as fit before `until`.
    pub(super) times: Option<u32>,
    pub(super) until: Moment,
    /// A deed begins though the one before is not done.
    pub(super) overlap: bool,
    pub(super) random: Random,
    pub(super) tell: Sender<Event>,
    pub(super) waker: Waker,
    pub(super) so_far: SoFar,
}

/// How many deeds were begun, and how many are over; a kill is when another process serves.
#[derive(Debug, Default)]
pub(super) struct SoFar {
    begun: AtomicU32,
    over: AtomicU32,
}

/// How long a verb may take.
const VERB_TIMEOUT: Duration = Duration::from_secs(300);
/// How long the status may take.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the place of a killed process may be empty.
const REPLACED_WITHIN_MS: u64 = 20_000;
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Deeds at once.
const UNDER_WAY_MAX: usize = 8;

impl Doer {
    /// Does them all.
    pub(super) fn run(mut self) {
        let every_us = u64::try_from(self.every.as_micros()).unwrap_or(u64::MAX);
        let (mut begun, mut due) = (0, Moment::now());
        let mut random = self.random.clone();
        let deeds = std::mem::take(&mut self.deeds);
        let doer = &self;
        thread::scope(|scope| {
            let mut under_way: Vec<ScopedJoinHandle<'_, ()>> = Vec::new();
            while !deeds.is_empty() && doer.times.is_none_or(|times| begun < times) {
                // After a deed that took longer than that the next does not follow at once.
                due = due.plus_us(every_us).max(Moment::now().plus_us(every_us / 4));
                if doer.times.is_none() && due >= doer.until {
                    break;
                }
                thread::sleep(Moment::now().until(due));
                let (deed, luck) = (deeds[random.below(deeds.len())], random.next());
                under_way.push(scope.spawn(move || doer.one(deed, luck)));
                begun += 1;
                under_way.retain(|other| !other.is_finished());
                let most = if doer.overlap { UNDER_WAY_MAX } else { 0 };
                while under_way.len() > most {
                    // One that panicked says so itself.
                    let _ = under_way.remove(0).join();
                }
            }
        });
        self.tell(Event::Over);
    }

    /// Does one, and tells what came of it.
    fn one(&self, deed: Deed, luck: u64) {
        let began = Moment::now();
        let before = self.so_far.begun.fetch_add(1, Ordering::Relaxed);
        let mut alone = self.so_far.over.load(Ordering::Relaxed) == before;
        let problem = self.perform(deed, luck).err();
        let took_ms = Moment::now().ms_since(began);
        alone &= self.so_far.begun.load(Ordering::Relaxed) == before + 1;
        self.so_far.over.fetch_add(1, Ordering::Relaxed);
        // A verb may fail because of another deed, as long as it says so.
        let excused = !alone && !deed.is_kill();
        self.tell(Event::Done(Outcome { deed, took_ms, problem, excused }));
    }

    /// If nobody listens any more, the run has failed and says so itself.
    fn tell(&self, event: Event) {
        let _ = self.tell.send(event);
        let _ = self.waker.wake();
    }

    fn perform(&self, deed: Deed, luck: u64) -> Result<(), String> {
        match deed {
            Deed::Reload => self.ask(&ControlRequest::RELOAD),
            Deed::Upgrade => self.ask(&ControlRequest::Upgrade { file: None }),
            Deed::Balance => self.ask(&ControlRequest::Balance),
            Deed::Drain => {
                let (slot, _) = self.victim("/workers", luck)?;
                let worker = u16::try_from(slot).map_err(|error| error.to_string())?;
                self.ask(&ControlRequest::Drain { worker })
            }
            Deed::KillWorker => self.kill("/workers", luck),
            Deed::KillTask => self.kill("/tasks", luck),
            Deed::KillTimer => self.kill("/timer", luck),
        }
    }

    fn ask(&self, request: &ControlRequest) -> Result<(), String> {
        let answer = control::ask(&self.run_dir, request, VERB_TIMEOUT);
        let answer = answer.map_err(|error| error.to_string())?;
        answer.outcome().map(drop)
    }

    /// Kills a running process of those at `place` in the status, and waits for the next one there.
    fn kill(&self, place: &str, luck: u64) -> Result<(), String> {
        let (index, pid) = self.victim(place, luck)?;
        if place == "/workers" {
            self.tell(Event::WorkerDies);
        }
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            // A reload replaced it in this moment.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(format!("pid {pid}: {errno}")),
        }
        let killed = Moment::now();
        loop {
            let processes = self.processes(place)?;
            let replaced = processes
                .get(index)
                .is_some_and(|process| is_running(process) && pid_of(process) != Some(pid));
            if replaced {
                return Ok(());
            }
            if Moment::now().ms_since(killed) > REPLACED_WITHIN_MS {
                return Err(format!("nobody took the place of pid {pid} in 20 s"));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// One that runs; waits for one where all are being replaced.
    fn victim(&self, place: &str, luck: u64) -> Result<(usize, i32), String> {
        let began = Moment::now();
        loop {
            let processes = self.processes(place)?;
            let running: Vec<(usize, i32)> = processes
                .iter()
                .enumerate()
                .filter(|(_, process)| is_running(process))
                .filter_map(|(index, process)| Some((index, pid_of(process)?)))
                .collect();
            if let Some(chosen) = running.get(random::below(luck, running.len())) {
                return Ok(*chosen);
            }
            if Moment::now().ms_since(began) > REPLACED_WITHIN_MS {
                return Err(format!("no process of {place} ran for 20 s"));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn processes(&self, place: &str) -> Result<Vec<Json>, String> {
        let found = status(&self.run_dir)?.pointer_mut(place).map(Json::take);
        Ok(match found.unwrap_or_default() {
            Json::Array(processes) => processes,
            one => vec![one],
        })
    }
}

/// The status of the server that lives in a run directory.
fn status(run_dir: &Path) -> Result<Json, String> {
    let text = control::read_status(run_dir, STATUS_TIMEOUT).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

fn is_running(process: &Json) -> bool {
    process["state"] == "running" && pid_of(process).is_some()
}

/// 0 and 1 are no process that a server has: signals to them would reach others.
fn pid_of(process: &Json) -> Option<i32> {
    process["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1)
}
