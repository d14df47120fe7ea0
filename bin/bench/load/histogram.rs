//! How long things took, as bars for a terminal. Pure.

use hdrhistogram::Histogram;
use std::fmt::Write;

/// Cells of the longest bar.
const BAR: u64 = 40;

/// A line for each doubling of the time, from the first that anything took to the last.
pub(super) fn lines(name: &str, latency: &Histogram<u64>) -> String {
    let mut text = String::new();
    if latency.is_empty() {
        return text;
    }
    let mut counts = Vec::new();
    let (mut low, mut high) = (0, FIRST_US);
    while low <= latency.max() {
        counts.push((high, latency.count_between(low, high - 1)));
        (low, high) = (high, high * 2);
    }
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let first = counts.iter().position(|(_, count)| *count > 0).unwrap_or(0);
    for (place, (below_us, count)) in counts.into_iter().enumerate().skip(first) {
        let label = if place == first { name } else { "" };
        // What is not quite nothing is seen.
        let cells = usize::try_from((count * BAR).div_ceil(most)).unwrap_or(0);
        let bar = "█".repeat(cells);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{label:<10} < {:>9} ms {count:>10} {bar}", ms(below_us));
    }
    text
}

/// The end of the first line; bounds double from here.
const FIRST_US: u64 = 16;

/// Milliseconds with three places.
fn ms(us: u64) -> String {
    format!("{}.{:03}", us / 1_000, us % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_and_every_value_is_counted_once() {
        let mut latency = Histogram::new_with_bounds(1, 600_000_000, 3).unwrap();
        assert_eq!(lines("send", &latency), "");
        for (us, times) in [(31, 1), (40, 80), (63, 80), (64, 2), (300, 40)] {
            latency.record_n(us, times).unwrap();
        }
        let shown = lines("send", &latency);
        let rows: Vec<&str> = shown.lines().map(str::trim_end).collect();
        assert_eq!(
            rows,
            [
                "send       <     0.032 ms          1 █",
                &format!("           <     0.064 ms        160 {}", "█".repeat(40)),
                "           <     0.128 ms          2 █",
                "           <     0.256 ms          0",
                &format!("           <     0.512 ms         40 {}", "█".repeat(10)),
            ]
        );
    }

    #[test]
    fn the_longest_there_is_ends_the_table() {
        let mut latency = Histogram::new_with_bounds(1, 600_000_000, 3).unwrap();
        latency.saturating_record(u64::MAX);
        let shown = lines("send", &latency);
        assert_eq!(shown.lines().count(), 1, "{shown}");
    }
}
