//! A moment of the monotonic clock, to the microsecond.

use dunlin_server::clock;
use std::time::Duration;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Moment(u64);

impl Moment {
    /// Reads the clock: for shells only.
    pub(crate) fn now() -> Self {
        Self(clock::now_us())
    }

    /// So many microseconds later.
    pub(crate) fn plus_us(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }

    /// This much later.
    pub(crate) fn plus(self, more: Duration) -> Self {
        self.plus_us(u64::try_from(more.as_micros()).unwrap_or(u64::MAX))
    }

    /// So many milliseconds later.
    pub(crate) fn plus_ms(self, ms: u64) -> Self {
        self.plus_us(ms.saturating_mul(1_000))
    }

    /// Microseconds since an earlier moment; 0 if it is later.
    pub(crate) fn us_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Milliseconds since an earlier moment, cut.
    pub(crate) fn ms_since(self, earlier: Self) -> u64 {
        self.us_since(earlier) / 1_000
    }

    /// What is left to a later moment.
    pub(crate) fn until(self, later: Self) -> Duration {
        Duration::from_micros(later.us_since(self))
    }
}
