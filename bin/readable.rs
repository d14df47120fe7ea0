//! Numbers and words as people read them. Pure.

use serde_json::Value as Json;

/// What stands where nothing is known.
pub(crate) const MISSING: &str = "-";

/// A figure in its words, or what stands for none.
pub(crate) fn or_missing<T>(value: Option<T>, words: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| MISSING.to_owned(), words)
}

/// A member of a status object, on one line.
pub(crate) fn word(value: &Json) -> String {
    match value {
        Json::Null => MISSING.to_owned(),
        Json::String(text) => plain(text),
        other => other.to_string(),
    }
}

/// A text that came from elsewhere: a control character in it could redraw the operator's terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}

/// A duration in its two largest units: `2d 3h`, `3m 20s`, `310ms`.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", ms % 1_000 / 100),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A size in the largest unit of which there is one: `4.2MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let (unit, factor) = match bytes {
        0..1_024 => return format!("{bytes}B"),
        1_024..1_048_576 => ("KiB", 1 << 10),
        1_048_576..1_073_741_824 => ("MiB", 1 << 20),
        _ => ("GiB", 1_u64 << 30),
    };
    format!("{}.{}{unit}", bytes / factor, bytes % factor * 10 / factor)
}

/// So many a second, in at most five letters up to ten thousand millions: `0`, `3.2`, `410`, `12.3k`.
pub(crate) fn rate(number: f64) -> String {
    if number < 0.05 {
        "0".to_owned()
    } else if number < 9.95 {
        format!("{number:.1}")
    } else if number < 9_999.5 {
        format!("{number:.0}")
    } else if number < 999_500.0 {
        format!("{:.1}k", number / 1e3)
    } else {
        format!("{:.1}M", number / 1e6)
    }
}

/// So many bytes a second.
pub(crate) fn byte_rate(number: f64) -> String {
    // A rate is not negative; what is too large for a number of bytes is as large as it gets.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
    let bytes = number.max(0.0) as u64;
    size(bytes)
}

pub(crate) fn percent(number: f64) -> String {
    format!("{number:.0}%")
}

/// `1 connection`, `2 connections`.
pub(crate) fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_and_sizes_are_short() {
        let durations = [0, 999, 12_300, 61_000, 3_700_000, 90_000_000].map(duration);
        assert_eq!(durations, ["0ms", "999ms", "12.3s", "1m 1s", "1h 1m", "1d 1h"]);
        assert_eq!([0, 1_023, 1_536, 5 << 30].map(size), ["0B", "1023B", "1.5KiB", "5.0GiB"]);
    }

    #[test]
    fn rates_fit_into_six_letters() {
        let rates = [0.0, 0.04, 0.06, 9.94, 9.96, 999.6, 9_999.0, 9_999.6, 999_499.0, 999_501.0];
        assert_eq!(
            rates.map(rate),
            ["0", "0", "0.1", "9.9", "10", "1000", "9999", "10.0k", "999.5k", "1.0M"]
        );
        assert_eq!([-1.0, 2_048.0, 1e30].map(byte_rate), ["0B", "2.0KiB", "17179869183.9GiB"]);
        assert_eq!([0.4, 99.6, 180.0].map(percent), ["0%", "100%", "180%"]);
    }

    #[test]
    fn texts_from_elsewhere_cannot_redraw_a_terminal() {
        assert_eq!(word(&json!("a\u{1b}[2Jb\nc")), "a[2Jbc");
        assert_eq!((word(&json!(null)), word(&json!(7))), ("-".to_owned(), "7".to_owned()));
        assert_eq!(counted(1, "client") + &counted(0, " client"), "1 client0  clients");
    }
}
