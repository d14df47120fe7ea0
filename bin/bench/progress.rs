//! How far a run is, on the terminal of who waits for it: what runs, how long it has, how long it takes.
//!
//! Knows nothing of sockets or messages. It is drawn by who runs, in turns it takes anyway, ten times a
//! second: no thread of its own takes a core from the generator. Invariants: 1. Where there is no
//! terminal nothing is written. 2. The line is gone before anything else is printed, also when the run
//! fails or is ended by a signal.

use super::client::moment::Moment;
use crate::failure::Failure;
use crate::{screen, terminal};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::SignalFd;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// A handle of it, for everybody who runs a part; one that shows nothing costs nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    line: Option<Rc<Line>>,
}

#[derive(Debug)]
struct Line {
    bar: ProgressBar,
    signals: SignalFd,
    next: Cell<Moment>,
    plan: RefCell<Plan>,
}

/// From one drawing to the next.
const EVERY_MS: u64 = 100;
/// What the terminal shows: as wide as it is, and no colour.
const TEMPLATE: &str = "{prefix} [{wide_bar}] {msg}";

impl Progress {
    /// Of a run whose parts take so long together, unless figures are asked for as `json`.
    ///
    /// # Errors
    /// The signals that would end it cannot be caught.
    pub(super) fn begin(whole: Duration, json: bool) -> Result<Self, Failure> {
        if json || !terminal::stderr_can_draw() {
            return Ok(Self::default());
        }
        let whole_ms = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
        let bar = ProgressBar::with_draw_target(Some(whole_ms), ProgressDrawTarget::stderr());
        // The template is a constant that holds no mistake: every run on a terminal reads it.
        let style = ProgressStyle::with_template(TEMPLATE).expect("a template");
        bar.set_style(style.progress_chars("=> "));
        let now = Moment::now();
        let line = Line {
            bar,
            signals: screen::ending_signals()?,
            next: Cell::new(now),
            plan: RefCell::new(Plan::new(whole, now)),
        };
        Ok(Self { line: Some(Rc::new(line)) })
    }

    /// Something that was not planned begins, such as to connect.
    pub(super) fn waits(&self, name: &str) {
        self.starts(name, Duration::ZERO);
    }

    /// A part of the plan begins that takes so long.
    pub(super) fn starts(&self, name: &str, takes: Duration) {
        if let Some(line) = &self.line {
            let now = Moment::now();
            line.plan.borrow_mut().starts(name, takes, now);
            line.next.set(now);
        }
    }

    /// Shows how far it is, if that is due.
    pub(super) fn turn(&self, now: Moment) {
        self.turn_with(now, String::new);
    }

    /// The same, with what there is to say beside it.
    pub(super) fn turn_with(&self, now: Moment, words: impl FnOnce() -> String) {
        let Some(line) = self.line.as_ref().filter(|line| now >= line.next.get()) else { return };
        line.next.set(now.plus_ms(EVERY_MS));
        line.end_if_asked();
        let plan = line.plan.borrow();
        let words = words();
        let gap = if words.is_empty() { "" } else { "  " };
        line.bar.set_prefix(plan.name.clone());
        line.bar.set_message(format!("{}{gap}{words}", plan.words(now)));
        line.bar.set_position(u64::try_from(plan.done(now).as_millis()).unwrap_or(u64::MAX));
    }

    /// Takes it from the terminal: something is to be printed.
    pub(super) fn clear(&self) {
        if let Some(line) = &self.line {
            line.bar.finish_and_clear();
        }
    }
}

impl Line {
    /// A signal ends this program as if nobody had caught it, on a clean line.
    fn end_if_asked(&self) {
        let Ok(Some(signal)) = self.signals.read_signal() else { return };
        self.bar.finish_and_clear();
        let signal = i32::try_from(signal.ssi_signo).ok().and_then(|it| Signal::try_from(it).ok());
        if let Some(signal) = signal {
            let _ = SigSet::from(signal).thread_unblock();
            let _ = raise(signal);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// What was planned, and what of it is done.
#[derive(Debug)]
struct Plan {
    whole: Duration,
    begun: Moment,
    name: String,
    /// Of the parts before this one.
    before: Duration,
    takes: Duration,
    since: Moment,
}

impl Plan {
    fn new(whole: Duration, now: Moment) -> Self {
        let (name, none) = ("connecting".to_owned(), Duration::ZERO);
        Self { whole, begun: now, name, before: none, takes: none, since: now }
    }

    fn starts(&mut self, name: &str, takes: Duration, now: Moment) {
        self.before += self.takes;
        (self.name, self.takes, self.since) = (name.to_owned(), takes, now);
    }

    /// What of the whole is behind it.
    fn done(&self, now: Moment) -> Duration {
        (self.before + self.since.until(now).min(self.takes)).min(self.whole)
    }

    fn words(&self, now: Moment) -> String {
        let elapsed = self.begun.until(now).as_secs();
        let left = self.whole.saturating_sub(self.done(now)).as_millis().div_ceil(1_000);
        format!("{elapsed} s, about {left} s left")
    }
}

/// A part in one of its rounds.
pub(super) fn in_round(name: &str, round: u32, rounds: u32) -> String {
    if rounds == 1 { name.to_owned() } else { format!("{name}, round {round} of {rounds}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_planned_takes_time_and_nothing_of_the_plan() {
        let at = |ms: u64| Moment::default().plus_ms(ms);
        let mut plan = Plan::new(Duration::from_secs(10), at(0));
        assert_eq!((&*plan.name, &*plan.words(at(1_500))), ("connecting", "1 s, about 10 s left"));
        plan.starts("send", Duration::from_secs(4), at(2_000));
        assert_eq!(plan.done(at(3_500)), Duration::from_millis(1_500));
        assert_eq!(plan.words(at(3_500)), "3 s, about 9 s left");
        assert_eq!(plan.done(at(9_000)), Duration::from_secs(4), "it takes longer than planned");
        plan.starts("joining", Duration::ZERO, at(9_000));
        assert_eq!(plan.done(at(12_000)), Duration::from_secs(4));
        plan.starts("room", Duration::from_secs(6), at(12_000));
        assert_eq!(plan.words(at(99_000)), "99 s, about 0 s left");
    }

    #[test]
    fn rounds_are_told_where_there_are_several() {
        assert_eq!(
            (&*in_round("send", 1, 1), &*in_round("send", 2, 3)),
            ("send", "send, round 2 of 3")
        );
    }
}
