//! From the status object to samples: labels and values as Prometheus reads them.
//!
//! Pure. Knows the shape of the status, no name of a metric. What does not stand in the status is left out, but
//! for a member of an object that is there: that one is 0, so that a rate has a beginning.

use super::families::{DEATHS, PROCESS_STATES};
use crate::close::CLOSE_CODES;
use serde_json::Value as Json;

/// What a figure does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Only grows, but for a restart.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by how long something took.
    Histogram,
}

impl Kind {
    /// As it stands in the exposition.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What the status has; times are told in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Plain,
    Milliseconds,
    Microseconds,
}

impl Unit {
    fn told(self, value: u64) -> String {
        match self {
            Self::Plain => value.to_string(),
            Self::Milliseconds => seconds(value.saturating_mul(1_000)),
            Self::Microseconds => seconds(value),
        }
    }
}

/// Where the samples stand in the status.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// At a JSON pointer: a number, or whether.
    At(&'static str),
    /// The sum of a field over the elements of a list.
    Sum(&'static str, &'static str),
    /// Fields of an object: the label, and for each of its values the field.
    Each(&'static str, &'static str, &'static [(&'static str, &'static str)]),
    /// A word of these: 1 for the one that it is, 0 for the others.
    State(&'static str, &'static [&'static str]),
    /// 1, with a text as a label.
    Info(&'static str, &'static str),
    /// A field of each worker.
    Worker(&'static str),
    /// A field of each process.
    Process(&'static str),
    /// The deaths of each process.
    Deaths,
    /// Ended connections by close code, of all workers.
    Codes,
    /// A histogram, of each worker or of the timer process.
    Spread(&'static str, &'static str),
}

/// A line without its name: what is put behind it, the labels, the value.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Sample {
    pub(super) suffix: &'static str,
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: String,
}

impl Place {
    /// All samples of a status.
    pub(super) fn samples(self, status: &Json, unit: Unit) -> Vec<Sample> {
        let at = |pointer: &str| status.pointer(pointer);
        match self {
            Self::At(pointer) => one(at(pointer).and_then(number), unit),
            Self::Sum(list, field) => {
                let elements = at(list).and_then(Json::as_array);
                let sum = |all: &Vec<Json>| all.iter().filter_map(|one| number(&one[field])).sum();
                one(elements.map(sum), unit)
            }
            Self::Each(object, label, values) => {
                let Some(object) = at(object) else { return vec![] };
                let value = |field: &str| number(&object[field]).unwrap_or(0);
                values
                    .iter()
                    .map(|(name, field)| sample(&[(label, name)], unit.told(value(field))))
                    .collect()
            }
            Self::State(pointer, states) => {
                let Some(now) = at(pointer).and_then(Json::as_str) else { return vec![] };
                states.iter().map(|state| is_one(&[("state", state)], *state == now)).collect()
            }
            Self::Info(pointer, label) => {
                let text = at(pointer).and_then(Json::as_str);
                text.map(|text| sample(&[(label, text)], "1".into())).into_iter().collect()
            }
            Self::Worker(field) => workers(status)
                .map(|(slot, worker)| {
                    // A slot that stands in for another: whether, not which.
                    let value = match (field, &worker[field]) {
                        ("stood_in_by", by) => u64::from(!by.is_null()),
                        (_, value) => number(value).unwrap_or(0),
                    };
                    sample(&[("worker", &slot)], unit.told(value))
                })
                .collect(),
            Self::Process(field) => {
                processes(status).flat_map(|process| process.samples(field, unit)).collect()
            }
            Self::Deaths => processes(status).flat_map(|process| process.deaths()).collect(),
            Self::Codes => codes(status),
            Self::Spread("/timer", field) => {
                spread(status, &[], at("/timer").map_or(&Json::Null, |timer| &timer[field]))
            }
            Self::Spread(_, field) => workers(status)
                .flat_map(|(slot, worker)| spread(status, &[("worker", &slot)], &worker[field]))
                .collect(),
        }
    }
}

/// A process of the status.
struct Process<'s> {
    name: String,
    role: &'static str,
    figures: &'s Json,
}

impl Process<'_> {
    fn samples(&self, field: &str, unit: Unit) -> Vec<Sample> {
        let labels = [("process", &*self.name), ("role", self.role)];
        match &self.figures[field] {
            Json::String(now) => PROCESS_STATES
                .iter()
                .map(|state| is_one(&[labels[0], labels[1], ("state", state)], state == now))
                .collect(),
            value => {
                number(value).map(|value| sample(&labels, unit.told(value))).into_iter().collect()
            }
        }
    }

    fn deaths(&self) -> Vec<Sample> {
        let Some(deaths) = self.figures["deaths"].as_object() else { return vec![] };
        let count = |reason: &str| deaths.get(reason).and_then(Json::as_u64).unwrap_or(0);
        let labels = [("process", &*self.name), ("role", self.role)];
        let told = |reason: &&str| {
            sample(&[labels[0], labels[1], ("reason", reason)], count(reason).to_string())
        };
        DEATHS.iter().map(told).collect()
    }
}

fn processes(status: &Json) -> impl Iterator<Item = Process<'_>> {
    let list = |field: &str| status[field].as_array().into_iter().flatten();
    let master = Some(&status["master"]).filter(|master| master.is_object());
    let master =
        master.map(|figures| Process { name: "master".to_owned(), role: "master", figures });
    let slotted = |role: &'static str| {
        move |figures| Process { name: format!("{role}-{}", slot(figures)), role, figures }
    };
    let added = list("processes").map(|figures| Process {
        name: figures["name"].as_str().unwrap_or_default().to_owned(),
        role: "added",
        figures,
    });
    let workers = list("workers").map(slotted("worker"));
    master.into_iter().chain(workers).chain(list("tasks").map(slotted("task"))).chain(added)
}

fn workers(status: &Json) -> impl Iterator<Item = (String, &Json)> {
    status["workers"].as_array().into_iter().flatten().map(|worker| (slot(worker), worker))
}

fn slot(figures: &Json) -> String {
    figures["slot"].as_u64().unwrap_or(0).to_string()
}

/// The codes that are always there, so that a rate has a beginning, and whatever else was counted.
fn codes(status: &Json) -> Vec<Sample> {
    let rfc = (1000..=1014).filter(|code| *code != 1004);
    let mut counts: Vec<(String, u64)> = rfc
        .chain(CLOSE_CODES.iter().copied())
        .map(|code| code.to_string())
        .chain(["none", "other"].map(str::to_owned))
        .map(|name| (name, 0))
        .collect();
    let by_worker = workers(status).filter_map(|(_, worker)| worker["closed_by_code"].as_object());
    for (name, count) in by_worker.flatten() {
        let more = count.as_u64().unwrap_or(0);
        match counts.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += more,
            None => counts.push((name.clone(), more)),
        }
    }
    counts.into_iter().map(|(name, count)| sample(&[("code", &name)], count.to_string())).collect()
}

/// A histogram of the status: counts by bound, and the sum.
fn spread(status: &Json, labels: &[(&'static str, &str)], spread: &Json) -> Vec<Sample> {
    let (Some(bounds), Some(counts)) =
        (status["bounds_us"].as_array(), spread["counts"].as_array())
    else {
        return vec![];
    };
    let bounds = bounds.iter().filter_map(Json::as_u64).map(seconds);
    let mut so_far = 0;
    let mut samples: Vec<Sample> = bounds
        .chain(["+Inf".to_owned()])
        .zip(counts)
        .map(|(bound, count)| {
            so_far += count.as_u64().unwrap_or(0);
            let labels = [labels, &[("le", &bound)]].concat();
            Sample { suffix: "_bucket", ..sample(&labels, so_far.to_string()) }
        })
        .collect();
    let sum = seconds(spread["sum_us"].as_u64().unwrap_or(0));
    samples.push(Sample { suffix: "_sum", ..sample(labels, sum) });
    samples.push(Sample { suffix: "_count", ..sample(labels, so_far.to_string()) });
    samples
}

fn number(value: &Json) -> Option<u64> {
    value.as_u64().or_else(|| value.as_bool().map(u64::from))
}

fn one(value: Option<u64>, unit: Unit) -> Vec<Sample> {
    value.map(|value| sample(&[], unit.told(value))).into_iter().collect()
}

fn is_one(labels: &[(&'static str, &str)], yes: bool) -> Sample {
    sample(labels, u64::from(yes).to_string())
}

fn sample(labels: &[(&'static str, &str)], value: String) -> Sample {
    let labels = labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect();
    Sample { suffix: "", labels, value }
}

/// Microseconds as seconds, exactly.
fn seconds(us: u64) -> String {
    let (whole, fraction) = (us / 1_000_000, us % 1_000_000);
    let text = format!("{whole}.{fraction:06}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_seconds_to_the_last_digit() {
        for (us, text) in [
            (0, "0"),
            (20, "0.00002"),
            (1_000_000, "1"),
            (1_500_000, "1.5"),
            (10_000_000, "10"),
            (u64::MAX, "18446744073709.551615"),
        ] {
            assert_eq!(seconds(us), text);
        }
        assert_eq!(Unit::Milliseconds.told(1_234), "1.234");
        assert_eq!(Unit::Plain.told(1_234), "1234");
    }
}
