//! Time: milliseconds of the monotonic clock, the same in every process of one boot, and of the
//! wall clock where a protocol wants it.
//!
//! Only shells (event loops, contexts) read a clock; state takes `now`.

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::ops::Add;

/// A moment of `CLOCK_MONOTONIC` in milliseconds. Comparable between the processes of a server.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, Hash,
)]
pub struct Millis(pub u64);

impl Millis {
    /// Milliseconds from `earlier` to here; 0 if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Millis {
    type Output = Self;
    fn add(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// Now, on the monotonic clock.
#[must_use]
pub fn now() -> Millis {
    Millis(read_ms(ClockId::CLOCK_MONOTONIC))
}

/// Now, as integer Unix milliseconds.
#[must_use]
pub fn unix_ms() -> u64 {
    read_ms(ClockId::CLOCK_REALTIME)
}

/// Now, on the monotonic clock, in microseconds: for measuring turns.
#[must_use]
pub fn now_us() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000
            + u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000
    })
}

/// Processor time this process has used, in milliseconds.
#[must_use]
pub fn cpu_ms() -> u64 {
    read_ms(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn read_ms(clock: ClockId) -> u64 {
    // These clocks exist on every Linux; a zero would only make a timeout late, never early.
    clock_gettime(clock).map_or(0, |time| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000
            + u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000_000
    })
}
