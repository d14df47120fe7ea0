//! The time of day where the reader is.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A Unix time in milliseconds as `12:01:02`, by the clock of this machine's zone.
pub(crate) fn clock_time(unix_ms: u64) -> String {
    in_zone(unix_ms, &TimeZone::system())
}

fn in_zone(unix_ms: u64, zone: &TimeZone) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    // What no calendar has is shown as what it is not.
    let Some(time) = time else { return "--:--:--".to_owned() };
    let time = zone.to_datetime(time);
    format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_zone() {
        let time = 1_795_420_862_123; // 2026-11-23T08:01:02.123Z
        let shanghai = TimeZone::fixed(jiff::tz::offset(8));
        assert_eq!(in_zone(time, &TimeZone::UTC), "08:01:02");
        assert_eq!(in_zone(time, &shanghai), "16:01:02");
        assert_eq!(in_zone(u64::MAX, &TimeZone::UTC), "--:--:--");
    }
}
