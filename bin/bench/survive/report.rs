//! What a run says at its end: for people, and as one JSON object.
//!
//! Knows what was counted; decides nothing but the words.

use super::deeds::Outcome;
use super::load::Load;
use super::timing::LATE_US;
use crate::bench::flags::Survive;
use serde_json::{Map, Value as Json, json};
use std::fmt::Write;

/// The whole run as one object.
pub(super) fn json(load: &Load, flags: &Survive, outcomes: &[Outcome], took_ms: u64) -> Json {
    let counts = load.ledger.counts();
    let (answers, late) = (load.timing.answers(), load.timing.late());
    let (closed_1012, reset, cut) = load.losses.explained();
    let (asked, wrong, wrong_us) = load.presence.counts();
    let broken: Vec<&str> = load.faults.broken().map(|(fault, _)| fault.name()).collect();
    let faults: Map<String, Json> = super::faults::Fault::ALL
        .into_iter()
        .map(|fault| (fault.name().to_owned(), load.faults.count(fault).into()))
        .collect();
    let ms = |us: u64| Json::from(thousandths(us));
    json!({
        "kept": broken.is_empty(), "broken": broken, "seed": load.plan.seed, "took_ms": took_ms,
        "connections": load.plan.connections, "slow": load.plan.slow, "rate": flags.rate,
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
pub(super) fn text(load: &Load, flags: &Survive, outcomes: &[Outcome], took_ms: u64) -> String {
    let mut text = String::new();
    let mut line = |label: &str, words: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{label:<12} {words}");
    };
    let plan = &load.plan;
    line(
        "run",
        format!(
            "{} connections ({} slow), {} messages/s, {}.{} s, seed {}",
            plan.connections,
            plan.slow,
            flags.rate,
            took_ms / 1_000,
            took_ms % 1_000 / 100,
            plan.seed,
        ),
    );
    for (name, deed) in deeds(outcomes).as_object().into_iter().flatten() {
        line(
            name,
            format!(
                "{} times, {} failed, took {} to {} ms",
                deed["times"], deed["failed"], deed["shortest_ms"], deed["longest_ms"],
            ),
        );
    }
    let counts = load.ledger.counts();
    line(
        "messages",
        format!(
            "{} sent, {} taken, {} not taken, {} delivered, {} owed by or to connections when they closed",
            counts.sent, counts.taken, counts.not_taken, counts.delivered, counts.in_doubt,
        ),
    );
    let (closed, reset, cut) = load.losses.explained();
    line(
        "connections",
        format!(
            "{} lost to {} kills ({closed} closed with 1012, {reset} reset), {cut} more while \
         connecting, {} without a reason",
            closed + reset,
            load.losses.kills().len(),
            load.losses.unexplained(),
        ),
    );
    if !load.losses.kills().is_empty() {
        line(
            "per kill",
            format!(
                "{:.3} % of the open connections on average, {:.3} % at most",
                load.losses.mean_share(),
                load.losses.worst_share(),
            ),
        );
    }
    let (asked, wrong, wrong_us) = load.presence.counts();
    if asked > 0 {
        line(
            "presence",
            format!(
                "{asked} questions after kills, {wrong} users wrong, the last of them {} ms after its reason",
                thousandths(wrong_us),
            ),
        );
    }
    if plan.storm > 0 {
        line(
            "storm",
            format!(
                "{} came and went, the longest login took {} ms",
                load.storm.done,
                thousandths(load.storm.longest_us),
            ),
        );
    }
    stall(load, &mut line);
    for (fault, count) in load.faults.broken() {
        line("BROKEN", format!("{count} {}", fault.words()));
        for case in load.faults.cases(fault) {
            line("", format!("- {case}"));
        }
    }
    if load.faults.broken().next().is_none() {
        line("kept", "nothing lost, doubled, out of order or damaged".to_owned());
    }
    text
}

fn stall(load: &Load, line: &mut impl FnMut(&str, String)) {
    let (answers, late) = (load.timing.answers(), load.timing.late());
    let by_us = if late.times > 0 { ", of which the client itself may be the reason" } else { "" };
    line(
        "stall",
        format!(
            "p50 {} ms, p99 {} ms, p99.9 {} ms, longest {} ms{by_us}; longest silence of the whole \
         server {} ms; longest login {} ms",
            thousandths(answers.p50),
            thousandths(answers.p99),
            thousandths(answers.p999),
            thousandths(answers.longest),
            thousandths(load.timing.longest_silence_us()),
            thousandths(load.longest_connect_us),
        ),
    );
    if late.times > 0 {
        line(
            "client",
            format!(
                "the client itself was late by {} ms at most, {} times by more than {} ms",
                thousandths(late.longest_us),
                late.times,
                LATE_US / 1_000,
            ),
        );
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
