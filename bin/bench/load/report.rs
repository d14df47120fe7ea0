//! What a run says at its end: a table for people, or one JSON object.
//!
//! Knows what was measured; decides nothing but the words.

use super::part::{LATE_US, Part};
use crate::bench::client::faults::{Fault, Faults};
use serde_json::{Map, Value as Json, json};
use std::fmt::Write;

/// Something the run says beside its figures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Note {
    /// Its name in the JSON.
    pub(super) name: &'static str,
    pub(super) words: String,
}

/// A whole run.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) mode: &'static str,
    pub(super) parts: &'a [Part],
    pub(super) notes: &'a [Note],
    pub(super) faults: &'a Faults,
    pub(super) load_average: Option<f64>,
}

/// Quantiles that are printed, and their names.
const QUANTILES: [(f64, &str, &str); 4] = [
    (0.5, "p50", "p50_ms"),
    (0.9, "p90", "p90_ms"),
    (0.99, "p99", "p99_ms"),
    (0.999, "p99.9", "p99_9_ms"),
];

impl Report<'_> {
    /// As one object.
    pub(super) fn json(&self) -> Json {
        let broken: Vec<&str> = self.faults.broken().map(|(fault, _)| fault.name()).collect();
        let faults: Map<String, Json> = Fault::ALL
            .into_iter()
            .map(|fault| (fault.name().to_owned(), self.faults.count(fault).into()))
            .collect();
        let parts: Map<String, Json> =
            self.parts.iter().map(|part| (part.name.to_owned(), part_json(part))).collect();
        let notes: Map<String, Json> = self
            .notes
            .iter()
            .map(|note| (note.name.to_owned(), note.words.clone().into()))
            .collect();
        json!({
            "mode": self.mode, "kept": broken.is_empty(), "broken": broken, "faults": faults,
            "parts": parts, "notes": notes, "load_average": self.load_average,
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail, here and below.
        let _ = write!(text, "{:<10} {:>10} {:>12} {:>10}", "", "count", "a second", "µs server");
        for (_, name, _) in QUANTILES {
            let _ = write!(text, " {name:>9}");
        }
        let _ = writeln!(text, " {:>9}", "max ms");
        for part in self.parts {
            row(part, &mut text);
        }
        for part in self.parts {
            bottleneck(part, &mut text);
        }
        for note in self.notes {
            let _ = writeln!(text, "{:<10} {}", note.name, note.words);
        }
        if let Some(load) = self.load_average {
            let _ = writeln!(text, "{:<10} load average {load:.1} when it began", "machine");
        }
        for (fault, count) in self.faults.broken() {
            let _ = writeln!(text, "{:<10} {count} {}", "BROKEN", fault.words());
            for case in self.faults.cases(fault) {
                let _ = writeln!(text, "{:<10} - {case}", "");
            }
        }
        text
    }
}

fn row(part: &Part, text: &mut String) {
    let server = part.server_us().map_or_else(|| "-".to_owned(), |us| format!("{us:.2}"));
    let _ = write!(
        text,
        "{:<10} {:>10} {:>12.0} {server:>10}",
        part.name,
        part.count,
        part.per_second()
    );
    for (quantile, ..) in QUANTILES {
        let _ = write!(text, " {:>9.3}", ms(part.latency.value_at_quantile(quantile)));
    }
    let _ = writeln!(text, " {:>9.3}", ms(part.latency.max()));
}

fn bottleneck(part: &Part, text: &mut String) {
    let busy = part.generator_busy() * 100.0;
    let _ = write!(text, "{:<10} generator busy {busy:.0} % of a core", part.name);
    if part.workers > 0 {
        let _ = write!(text, ", {} worker(s) {:.0} %", part.workers, part.server_busy() * 100.0);
    }
    if part.late.sent > 0 {
        let (late, limit_ms) = (part.late, LATE_US / 1_000);
        let _ = write!(
            text,
            ", {} of {} sent over {limit_ms} ms late, {:.3} ms at most",
            late.times,
            late.sent,
            ms(late.longest_us)
        );
    }
    let _ = writeln!(text);
    if part.is_bound_by_generator() {
        let words = "THE GENERATOR ITSELF was the bottleneck: the server can do more than this";
        let _ = writeln!(text, "{:<10} {words}", part.name);
    }
}

fn part_json(part: &Part) -> Json {
    let mut latency: Map<String, Json> = QUANTILES
        .into_iter()
        .map(|(quantile, _, name)| {
            (name.to_owned(), ms(part.latency.value_at_quantile(quantile)).into())
        })
        .collect();
    latency.insert("max_ms".to_owned(), ms(part.latency.max()).into());
    json!({
        "unit": part.unit, "count": part.count, "per_second": rounded(part.per_second()),
        "server_cpu_us": part.server_us().map(rounded), "workers": part.workers,
        "server_busy": rounded(part.server_busy()),
        "generator_busy": rounded(part.generator_busy()),
        "generator_bound": part.is_bound_by_generator(),
        "late": {"sent": part.late.sent, "times": part.late.times, "longest_ms": ms(part.late.longest_us)},
        "latency": latency,
    })
}

/// Microseconds as milliseconds with three places.
fn ms(us: u64) -> f64 {
    rounded(f64::from(u32::try_from(us).unwrap_or(u32::MAX)) / 1_000.0)
}

fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}
