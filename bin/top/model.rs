//! What `top` knows, and what keys mean.
//!
//! Pure: looks and keys in, deeds out. Invariants: 1. Nothing is done to the server that was not asked
//! about and answered with `y`. 2. One deed at a time. 3. History and events are bounded
//! ([`HISTORY_MAX`], [`EVENTS_MAX`]).

use super::changes::{self, Change};
use crate::keys::Key;
use crate::look::{Between, Look};
use crate::terminal::Mark;
use std::collections::VecDeque;

/// Rates of each worker that are kept: as many as a wide terminal shows.
pub(super) const HISTORY_MAX: usize = 256;
/// Events that are kept.
pub(super) const EVENTS_MAX: usize = 200;

/// Something done to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deed {
    Reload,
    Balance,
    /// Replace the worker in this slot.
    Replace(u16),
    Drain(u16),
}

impl Deed {
    /// As it is asked about.
    pub(super) fn question(self) -> String {
        match self {
            Self::Reload => "re-read the config and replace every process?".to_owned(),
            Self::Balance => "even the connections out over the workers?".to_owned(),
            Self::Replace(slot) => format!("replace worker {slot}?"),
            Self::Drain(slot) => format!("move the connections of worker {slot} to the others?"),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Reload => "reload".to_owned(),
            Self::Balance => "balance".to_owned(),
            Self::Replace(slot) => format!("replacement of worker {slot}"),
            Self::Drain(slot) => format!("drain of worker {slot}"),
        }
    }
}

/// What a key asks of the shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    Quit,
    Do(Deed),
    /// Draw everything again.
    Redraw,
}

/// One thing that happened, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Event {
    /// As a time of day.
    pub(super) at: String,
    pub(super) mark: Mark,
    pub(super) words: String,
}

/// What stands on the last line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Footer {
    /// The keys there are.
    Keys,
    /// Whether to do something.
    Asking(Deed),
    /// What is being done.
    Doing(Deed),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) run_dir: String,
    pub(super) look: Option<Look>,
    pub(super) between: Option<Between>,
    /// Why there is no look now.
    pub(super) away: Option<String>,
    /// Messages a second in and out, the latest last: of all, and by slot.
    pub(super) history: VecDeque<f64>,
    pub(super) worker_history: Vec<VecDeque<f64>>,
    /// The latest first.
    pub(super) events: VecDeque<Event>,
    pub(super) selected: usize,
    pub(super) footer: Footer,
    pub(super) help: bool,
}

impl Model {
    pub(super) fn new(run_dir: String) -> Self {
        Self {
            run_dir,
            look: None,
            between: None,
            away: None,
            history: VecDeque::new(),
            worker_history: Vec::new(),
            events: VecDeque::new(),
            selected: 0,
            footer: Footer::Keys,
            help: false,
        }
    }

    /// A look at the server, or why there is none, at this time of day.
    pub(super) fn seen(&mut self, at: &str, seen: Result<Look, String>) {
        match seen {
            Ok(now) => self.seen_server(at, now),
            Err(why) => {
                if self.away.is_none() && self.look.is_some() {
                    self.note(at, Change { mark: Mark::Bad, words: why.clone() });
                }
                self.away = Some(why);
                self.between = None;
            }
        }
    }

    fn seen_server(&mut self, at: &str, now: Look) {
        if let Some(before) = self.look.take() {
            for change in changes::between(&before, &now) {
                self.note(at, change);
            }
            // Over a time in which nobody answered there is no rate.
            self.between = self.away.is_none().then(|| Between::of(&before, &now)).flatten();
        }
        self.away = None;
        self.worker_history.resize_with(now.workers().len(), VecDeque::new);
        if let Some(between) = &self.between {
            let messages = |rates: &crate::look::Rates| {
                rates.messages_in.unwrap_or(0.0) + rates.messages_out.unwrap_or(0.0)
            };
            keep(&mut self.history, messages(&between.total), HISTORY_MAX);
            for (history, rates) in self.worker_history.iter_mut().zip(&between.workers) {
                keep(history, messages(rates), HISTORY_MAX);
            }
        }
        self.selected = self.selected.min(now.workers().len().saturating_sub(1));
        self.look = Some(now);
    }

    fn note(&mut self, at: &str, change: Change) {
        let Change { mark, words } = change;
        self.events.push_front(Event { at: at.to_owned(), mark, words });
        self.events.truncate(EVENTS_MAX);
    }

    /// What came of a deed.
    pub(super) fn done(&mut self, at: &str, deed: Deed, outcome: Result<(), String>) {
        self.footer = Footer::Keys;
        // How it went stands in the status, and is seen there; a refusal does not.
        if let Err(why) = outcome {
            self.note(at, Change { mark: Mark::Bad, words: format!("{}: {why}", deed.name()) });
        }
    }

    pub(super) fn press(&mut self, key: &Key) -> Option<Order> {
        match key {
            Key::Control('c') => return Some(Order::Quit),
            Key::Control('l') => return Some(Order::Redraw),
            _ => {}
        }
        if let Footer::Asking(deed) = self.footer {
            if matches!(key, Key::Char('y' | 'Y')) {
                self.footer = Footer::Doing(deed);
                return Some(Order::Do(deed));
            }
            self.footer = Footer::Keys;
            return None;
        }
        if self.help {
            self.help = false;
            return None;
        }
        match key {
            Key::Char('q') => return Some(Order::Quit),
            Key::Char('?' | 'h') => self.help = true,
            Key::Up | Key::Char('k') => self.selected = self.selected.saturating_sub(1),
            Key::Down | Key::Char('j') => {
                let last = self.workers().saturating_sub(1);
                self.selected = (self.selected + 1).min(last);
            }
            Key::Char('r') => self.ask(Some(Deed::Reload)),
            Key::Char('b') => self.ask(Some(Deed::Balance)),
            Key::Char('w') => self.ask(self.slot().map(Deed::Replace)),
            Key::Char('d') => self.ask(self.slot().map(Deed::Drain)),
            _ => {}
        }
        None
    }

    fn ask(&mut self, deed: Option<Deed>) {
        let can = self.look.is_some() && self.away.is_none() && self.footer == Footer::Keys;
        if let Some(deed) = deed.filter(|_| can) {
            self.footer = Footer::Asking(deed);
        }
    }

    fn slot(&self) -> Option<u16> {
        u16::try_from(self.selected).ok().filter(|slot| usize::from(*slot) < self.workers())
    }

    fn workers(&self) -> usize {
        self.look.as_ref().map_or(0, |look| look.workers().len())
    }
}

fn keep(history: &mut VecDeque<f64>, value: f64, most: usize) {
    history.push_back(value);
    while history.len() > most {
        history.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn look(pid: u64, second: u64, workers: u64) -> Look {
        let worker = |slot: u64| {
            json!({"slot": slot, "pid": 10 + slot, "state": "running", "restarts": second / 4,
                   "messages_in": 100 * second, "messages_out": 200 * second})
        };
        let workers: Vec<_> = (0..workers).map(worker).collect();
        let status = json!({"pid": pid, "uptime_ms": second * 1_000, "workers": workers});
        Look::parse(&status.to_string()).unwrap()
    }

    fn model() -> Model {
        let mut model = Model::new("/run/dunlin".to_owned());
        for second in 1..4 {
            model.seen("12:00:00", Ok(look(1, second, 2)));
        }
        model
    }

    fn press(model: &mut Model, keys: &str) -> Vec<Order> {
        keys.chars().filter_map(|key| model.press(&Key::Char(key))).collect()
    }

    #[test]
    fn nothing_is_done_that_was_not_asked_and_answered_with_y() {
        let mut model = model();
        assert_eq!(press(&mut model, "y r"), []);
        assert_eq!(model.footer, Footer::Asking(Deed::Reload));
        assert_eq!(press(&mut model, "n"), []);
        assert_eq!(model.footer, Footer::Keys);
        assert_eq!(press(&mut model, "ry"), [Order::Do(Deed::Reload)]);
        assert_eq!(press(&mut model, "by"), [], "one at a time");
        model.done("12:00:01", Deed::Reload, Ok(()));
        assert_eq!(press(&mut model, "by"), [Order::Do(Deed::Balance)]);
        model.done("12:00:02", Deed::Balance, Err("too few workers".to_owned()));
        assert_eq!(model.events[0].words, "balance: too few workers");
        assert_eq!(model.press(&Key::Control('c')), Some(Order::Quit));
        assert_eq!(press(&mut model, "q"), [Order::Quit]);
    }

    #[test]
    fn a_worker_is_chosen_and_stays_within_those_there_are() {
        let mut model = model();
        assert_eq!(press(&mut model, "jjjwy"), [Order::Do(Deed::Replace(1))]);
        model.done("12:00:00", Deed::Replace(1), Ok(()));
        model.press(&Key::Up);
        assert_eq!(press(&mut model, "kdy"), [Order::Do(Deed::Drain(0))]);
        press(&mut model, "j");
        model.seen("12:00:00", Ok(look(1, 9, 1)));
        assert_eq!(model.selected, 0);
        let mut empty = Model::new(String::new());
        assert_eq!(press(&mut empty, "jwydyry"), [], "there is nobody to do it to");
    }

    #[test]
    fn help_goes_with_any_key_which_means_nothing_else() {
        let mut model = model();
        press(&mut model, "?");
        assert!(model.help);
        assert_eq!(press(&mut model, "q"), []);
        assert!(!model.help);
    }

    #[test]
    fn a_server_that_goes_away_is_told_once_and_comes_back_without_false_rates() {
        let mut model = model();
        assert_eq!(model.history, [600.0, 600.0]);
        let told = model.events.len();
        for _ in 0..3 {
            model.seen("12:00:09", Err("no server is running in /run/dunlin".to_owned()));
        }
        assert_eq!(model.events.len(), told + 1);
        assert_eq!(model.events[0].words, "no server is running in /run/dunlin");
        assert_eq!((press(&mut model, "ry"), model.footer), (vec![], Footer::Keys));
        model.seen("12:00:10", Ok(look(2, 1, 2)));
        assert_eq!(model.events[0].words, "another server, pid 2");
        assert_eq!((model.between.is_none(), model.history.len()), (true, 2));
        model.seen("12:00:11", Ok(look(2, 2, 2)));
        assert_eq!(model.history, [600.0, 600.0, 600.0]);
        // At the beginning there is nothing to have gone.
        let mut fresh = Model::new(String::new());
        fresh.seen("12:00:00", Err("no server".to_owned()));
        assert!(fresh.events.is_empty() && fresh.away.is_some());
    }

    #[test]
    fn history_and_events_have_a_bound() {
        let mut model = Model::new(String::new());
        for second in 1..2_000 {
            model.seen("12:00:00", Ok(look(1, second, 2)));
        }
        assert_eq!(model.history.len(), HISTORY_MAX);
        assert_eq!(model.worker_history[1].len(), HISTORY_MAX);
        assert_eq!(model.events.len(), EVENTS_MAX);
    }
}
