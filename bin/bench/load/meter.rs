//! Processor time: of a server's workers, and of this program.

use crate::bench::client::moment::Moment;
use crate::failure::Failure;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value as Json;
use std::fs;
use std::time::Duration;

/// Reads the clocks of a server's workers and of this process.
#[derive(Debug)]
pub(super) struct Meter {
    /// Empty where the server's status is not at hand.
    workers: Vec<ClockId>,
}

/// One reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    at: Moment,
    workers: Duration,
    generator: Duration,
}

/// The difference of two readings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    pub(super) wall: Duration,
    pub(super) workers: Duration,
    pub(super) generator: Duration,
}

impl Meter {
    /// A meter of the workers that a status names; of none without one.
    ///
    /// # Errors
    /// The status is no JSON.
    pub(super) fn new(status: Option<&str>) -> Result<Self, Failure> {
        let status: Json = serde_json::from_str(status.unwrap_or("{}"))
            .map_err(|error| Failure::failed(format!("the status cannot be read: {error}")))?;
        let pids = status["workers"].as_array().into_iter().flatten();
        let pids = pids.filter_map(|worker| i32::try_from(worker["pid"].as_i64()?).ok());
        Ok(Self {
            workers: pids.filter_map(|pid| clock_getcpuclockid(Pid::from_raw(pid)).ok()).collect(),
        })
    }

    /// How many workers it knows.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// What was used up to now. A worker that is gone counts as 0 from then on.
    pub(super) fn read(&self) -> Reading {
        Reading {
            at: Moment::now(),
            workers: self.workers.iter().map(|clock| value(*clock)).sum(),
            generator: value(ClockId::CLOCK_PROCESS_CPUTIME_ID),
        }
    }
}

impl Reading {
    pub(super) fn since(&self, earlier: &Self) -> Used {
        Used {
            wall: earlier.at.until(self.at),
            workers: self.workers.saturating_sub(earlier.workers),
            generator: self.generator.saturating_sub(earlier.generator),
        }
    }
}

impl Used {
    pub(super) fn add(&mut self, more: &Self) {
        self.wall += more.wall;
        self.workers += more.workers;
        self.generator += more.generator;
    }
}

fn value(clock: ClockId) -> Duration {
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

/// The mean number of tasks that ran or wanted to in the last minute, on the whole machine.
pub(super) fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}
