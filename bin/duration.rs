//! Times as they are typed behind a flag.

use std::time::Duration;

/// A time as in the config: `250ms`, `10s`, `5m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no time such as 250ms"))?;
    let ms = match &text[digits.len()..] {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        _ => return Err("a time has a unit: ms, s or m".to_owned()),
    };
    match ms {
        Some(ms @ 1..=TIME_MAX_MS) => Ok(Duration::from_millis(ms)),
        _ => Err("a time is from 1ms to 1440m".to_owned()),
    }
}

/// A day.
const TIME_MAX_MS: u64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_a_bound() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "0s", "10", "1h", "-1s", "1441m", "99999999999999999999s", "é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(duration("18446744073709551615s").is_err());
    }
}
