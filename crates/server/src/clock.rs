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

/// Now, on the monotonic clock, in microseconds: of the clock of [`now`], for measuring turns.
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

/// A Unix time in milliseconds as `2026-11-23T07:10:00Z`.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    format!("{}Z", to_the_second(unix_ms))
}

/// A Unix time in milliseconds as `2026-11-23T07:10:00.250Z`.
#[must_use]
pub fn rfc3339_ms(unix_ms: u64) -> String {
    format!("{}.{:03}Z", to_the_second(unix_ms), unix_ms % 1_000)
}

/// A Unix time in milliseconds as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
#[must_use]
pub fn http_date(unix_ms: u64) -> String {
    // 1970 began on a Thursday.
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let name = |names: &[&'static str], at: u64| usize::try_from(at).map_or("", |at| names[at]);
    let days = unix_ms / DAY_MS;
    let (year, month, day) = date(days);
    let (weekday, month) = (name(&WEEKDAYS, days % 7), name(&MONTHS, month - 1));
    format!("{weekday}, {day:02} {month} {year:04} {} GMT", time_of_day(unix_ms))
}

const DAY_MS: u64 = 86_400_000;

fn to_the_second(unix_ms: u64) -> String {
    let (year, month, day) = date(unix_ms / DAY_MS);
    format!("{year:04}-{month:02}-{day:02}T{}", time_of_day(unix_ms))
}

fn time_of_day(unix_ms: u64) -> String {
    let ms = unix_ms % DAY_MS;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day of a day counted from 1970-01-01. Years begin in March here, so that the leap
/// day is their last; 400 of them have 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_know_leap_days_and_the_turn_of_years() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_827_696_789, "2000-02-29T12:34:56.789Z"),
            (1_735_689_599_999, "2024-12-31T23:59:59.999Z"),
            (1_735_689_600_000, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339_ms(ms), text);
            assert_eq!(rfc3339(ms)[..19], text[..19]);
        }
    }

    #[test]
    fn http_has_a_date_of_its_own() {
        for (ms, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777_999, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_827_696_789, "Tue, 29 Feb 2000 12:34:56 GMT"),
            (1_735_689_599_999, "Tue, 31 Dec 2024 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(ms), text);
        }
    }
}
