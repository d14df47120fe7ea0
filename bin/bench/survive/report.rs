//! What a run says at its end: for people, and as one JSON object.
//!
//! Knows what was counted; decides nothing but the words.

use super::deeds::Outcome;
use super::load::Load;
use super::timing::LATE_US;
use serde_json::{Map, Value as Json, json};
use std::fmt::Write;

/// The whole run as one object.
pub(super) fn json(load: &Load, outcomes: &[Outcome], took_ms: u64) -> Json {
    let counts = load.ledger.counts();
    let (answers, late) = (load.timing.answers(), load.timing.late());
    let (closed_1012, reset, cut) = load.losses.explained();
    let (asked, wrong, wrong_us) = load.presence.counts();
    let broken: Vec<&str> = load.faults.broken().map(|(fault, _)| fault.name()).collect();
    let faults: Map<String, Json> = crate::bench::client::faults::Fault::ALL
        .into_iter()
        .map(|fault| (fault.name().to_owned(), load.faults.count(fault).into()))
        .collect();
    let ms = |us: u64| Json::from(thousandths(us));
    json!({
        "kept": broken.is_empty(), "broken": broken, "seed": load.plan.seed, "took_ms": took_ms,
        "connections": load.plan.connections, "slow": load.plan.slow, "rate": load.plan.rate,
        "deeds": deeds(outcomes),
        "faults": faults,
        "messages": {
            "sent": counts.sent, "taken": counts.taken, "not_taken": counts.not_taken,
            "delivered": counts.delivered, "in_doubt": counts.in_doubt,
        },
        "requests": counts.requests, "answers": counts.answers,
        "connects": {"count": load.connects, "longest_ms": ms(load.longest_connect_us)},
        "lost_connections": {
            "closed_1012": closed_1012, "reset": reset, "cut_while_connecting": cut,
            "unexplained": load.losses.unexplained(),
            "mean_percent_per_kill": rounded(load.losses.mean_share()),
            "most_percent_per_kill": rounded(load.losses.worst_share()),
        },
        "stall": {
            "count": answers.count, "p50_ms": ms(answers.p50), "p99_ms": ms(answers.p99),
            "p99_9_ms": ms(answers.p999), "longest_ms": ms(answers.longest),
            "longest_silence_ms": ms(load.timing.longest_silence_us()),
        },
        "storm": {"done": load.storm.done, "longest_ms": ms(load.storm.longest_us)},
        "presence": {
            "asked": asked, "wrong": wrong, "presence_wrong_ms": ms(wrong_us),
        },
        "client_late": {"longest_ms": ms(late.longest_us), "times_over_50_ms": late.times},
    })
}

/// The same for people.
pub(super) fn text(load: &Load, outcomes: &[Outcome], took_ms: u64) -> String {
    let mut lines = Lines::default();
    let plan = &load.plan;
    let (s, tenth) = (took_ms / 1_000, took_ms % 1_000 / 100);
    lines.add(
        "run",
        format!(
            "{} connections ({} slow), {} messages/s, {s}.{tenth} s, seed {}",
            plan.connections, plan.slow, plan.rate, plan.seed,
        ),
    );
    for (name, deed) in deeds(outcomes).as_object().into_iter().flatten() {
        let [times, failed] = [&deed["times"], &deed["failed"]];
        let [shortest, longest] = [&deed["shortest_ms"], &deed["longest_ms"]];
        let words = format!("{times} times, {failed} failed, took {shortest} to {longest} ms");
        lines.add(name, words);
    }
    messages(load, &mut lines);
    connections(load, &mut lines);
    stall(load, &mut lines);
    verdict(load, &mut lines);
    lines.0
}

/// Lines of a label and words.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, label: &str, words: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{label:<12} {words}");
    }
}

fn messages(load: &Load, lines: &mut Lines) {
    let counts = load.ledger.counts();
    let words = format!(
        "{} sent, {} taken, {} not taken, {} delivered, {} owed by or to connections when they closed",
        counts.sent, counts.taken, counts.not_taken, counts.delivered, counts.in_doubt,
    );
    lines.add("messages", words);
}

fn connections(load: &Load, lines: &mut Lines) {
    let (closed, reset, cut) = load.losses.explained();
    let (lost, kills) = (closed + reset, load.losses.kills().len());
    let unexplained = load.losses.unexplained();
    let words = format!(
        "{lost} lost to {kills} kills ({closed} closed with 1012, {reset} reset), {cut} more while \
         connecting, {unexplained} without a reason",
    );
    lines.add("connections", words);
    if kills > 0 {
        let (mean, most) = (load.losses.mean_share(), load.losses.worst_share());
        let words = format!("{mean:.3} % of the open connections on average, {most:.3} % at most");
        lines.add("per kill", words);
    }
    let (asked, wrong, wrong_us) = load.presence.counts();
    if asked > 0 {
        let ms = thousandths(wrong_us);
        let words =
            format!("asked {asked} times after kills, {wrong} users wrong, {ms} ms at most");
        lines.add("presence", words);
    }
    if load.plan.storm > 0 {
        let (done, ms) = (load.storm.done, thousandths(load.storm.longest_us));
        lines.add("storm", format!("{done} came and went, the longest login took {ms} ms"));
    }
}

fn stall(load: &Load, lines: &mut Lines) {
    let (answers, late) = (load.timing.answers(), load.timing.late());
    let by_us = if late.times > 0 { ", of which the client itself may be the reason" } else { "" };
    let [p50, p99, p999, longest] =
        [answers.p50, answers.p99, answers.p999, answers.longest].map(thousandths);
    let [silence, login] =
        [load.timing.longest_silence_us(), load.longest_connect_us].map(thousandths);
    let words = format!("p50 {p50} ms, p99 {p99} ms, p99.9 {p999} ms, longest {longest} ms{by_us}");
    lines.add("stall", words);
    let words = format!("{silence} ms of the whole server at most; longest login {login} ms");
    lines.add("silence", words);
    if late.times > 0 {
        let words = format!(
            "the client itself was late by {} ms at most, {} times by more than {} ms",
            thousandths(late.longest_us),
            late.times,
            LATE_US / 1_000,
        );
        lines.add("client", words);
    }
}

fn verdict(load: &Load, lines: &mut Lines) {
    for (fault, count) in load.faults.broken() {
        lines.add("BROKEN", format!("{count} {}", fault.words()));
        for case in load.faults.cases(fault) {
            lines.add("", format!("- {case}"));
        }
    }
    if load.faults.broken().next().is_none() {
        lines.add("kept", "nothing lost, doubled, out of order or damaged");
    }
}

fn deeds(outcomes: &[Outcome]) -> Json {
    let mut by_name = Map::new();
    for outcome in outcomes {
        let name = outcome.deed.name();
        let same = || outcomes.iter().filter(|other| other.deed == outcome.deed);
        by_name.entry(name).or_insert_with(|| {
            json!({
                "times": same().count(),
                "failed": same().filter(|other| other.problem.is_some()).count(),
                "shortest_ms": same().map(|other| other.took_ms).min(),
                "longest_ms": same().map(|other| other.took_ms).max(),
            })
        });
    }
    Json::Object(by_name)
}

/// Microseconds as milliseconds with two places.
fn thousandths(us: u64) -> f64 {
    rounded(f64::from(u32::try_from(us).unwrap_or(u32::MAX)) / 1_000.0)
}

fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}
