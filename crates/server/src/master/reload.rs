//! Carrying out a reload: the config read anew, whole or not at all, and the report of what came of it.

use super::control::Waiting;
use super::seats::Seat;
use super::state::{Input, Outcome};
use super::{Master, patience, supervisor};
use crate::app::App;
use crate::clock::{self, Millis};
use crate::config::Config;
use crate::control::ControlAnswer;
use crate::logging;
use crate::settings::Settings;
use crate::status::ReloadReport;
use std::rc::Rc;
use tracing::{error, info};

/// A reload under way.
#[derive(Debug)]
pub(super) struct Pending {
    began: Millis,
    applied: Vec<String>,
    needs_restart: Vec<String>,
    waiting: Vec<Waiting>,
    /// The config to go back to if it fails; `None` if it was not read anew.
    before: Option<Rc<Config>>,
}

impl<A: App> Master<A> {
    /// Begins a reload, or folds it into the one that follows the one under way. Whoever waits is told
    /// in the end.
    pub(super) fn begin_reload(&mut self, tasks_only: bool, waiting: Option<Waiting>) {
        self.reloads.asked += 1;
        supervisor::tell(supervisor::Word::Reloading, "reloading");
        if self.reload_waits(tasks_only) {
            self.next_waiting.extend(waiting);
            return;
        }
        if self.pending_reload.is_some() {
            self.next_waiting.extend(waiting);
            self.input(Input::Reload { tasks_only });
            return;
        }
        if self.state.is_stopping() || !self.state.was_ready() {
            let sentence = if self.state.is_stopping() { "stopping" } else { "starting" };
            self.refuse_reload(format!("the server is {sentence}"), waiting);
            return;
        }
        let before = (!tasks_only).then(|| self.config.clone());
        let changes = if tasks_only { Ok((Vec::new(), Vec::new())) } else { self.take_config() };
        match changes {
            Ok((applied, needs_restart)) => {
                // An empty list is no field of the line.
                let listed = |keys: &[String]| (!keys.is_empty()).then(|| keys.join(", "));
                let (changed, waiting_keys) = (listed(&applied), listed(&needs_restart));
                info!(applied = changed, needs_restart = waiting_keys, tasks_only, "reloading");
                self.pending_reload = Some(Pending {
                    began: self.now,
                    applied,
                    needs_restart,
                    waiting: waiting.into_iter().collect(),
                    before,
                });
                self.input(Input::Reload { tasks_only });
            }
            Err(sentence) => self.refuse_reload(sentence, waiting),
        }
    }

    /// Begins to replace one worker, with the settings there are. It is put off for nothing: what is under
    /// way may be replacing that worker already.
    pub(super) fn begin_worker_reload(&mut self, slot: u16, who: Waiting) -> Result<(), String> {
        if self.upgrades.is_under_way() || self.pending_reload.is_some() {
            return Err("a reload or an upgrade is under way: ask again when it is over".to_owned());
        }
        if self.state.is_stopping() || !self.state.was_ready() {
            let doing = if self.state.is_stopping() { "stopping" } else { "starting" };
            return Err(format!("the server is {doing}"));
        }
        if slot >= self.config.workers {
            let last = self.config.workers - 1;
            return Err(format!("there is no worker {slot}: the last is {last}"));
        }
        self.reloads.asked += 1;
        supervisor::tell(supervisor::Word::Reloading, "reloading");
        info!(slot, "reloading one worker");
        self.pending_reload = Some(Pending {
            began: self.now,
            applied: Vec::new(),
            needs_restart: Vec::new(),
            waiting: vec![who],
            before: None,
        });
        self.input(Input::ReloadWorker(slot));
        Ok(())
    }

    /// Reads the config anew and takes over what a reload may; all or nothing.
    fn take_config(&mut self) -> Result<(Vec<String>, Vec<String>), String> {
        let newer: Settings = (self.source)()?;
        let (merged, changes) = self.config.settings.reloaded(&newer);
        let config = Config::from_settings(merged.clone()).map_err(|error| error.to_string())?;
        logging::apply(&config.log).map_err(|error| error.to_string())?;
        let taken = self.hook(|app, master| app.before_reload(master, &merged));
        if let Err(sentence) = taken.unwrap_or_else(|| Err("before_reload panicked".to_owned())) {
            // The log is as it was before.
            if let Err(error) = logging::apply(&self.config.log) {
                error!(%error, "the log could not be put back");
            }
            return Err(sentence);
        }
        self.state.set_patience(patience(&config));
        self.config = Rc::new(config);
        let named = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
        Ok((named(changes.applied), named(changes.needs_restart)))
    }

    fn refuse_reload(&mut self, sentence: String, waiting: Option<Waiting>) {
        self.reloads.refused += 1;
        error!(%sentence, "the reload is refused, nothing has changed");
        self.last_reload = ReloadReport {
            seq: self.last_reload.seq + 1,
            at: Some(clock::rfc3339(clock::unix_ms())),
            ok: Some(false),
            error: Some(sentence),
            took_ms: Some(0),
            ..ReloadReport::default()
        };
        self.tell_reload(waiting);
    }

    /// A reload is over.
    pub(super) fn end_reload(&mut self, outcome: Outcome) {
        if !outcome.by_request {
            return;
        }
        let Some(pending) = self.pending_reload.take() else { return };
        let ok = outcome.error.is_none();
        if ok {
            self.reloads.done += 1;
            self.generation += 1;
        } else {
            self.reloads.refused += 1;
        }
        self.last_reload = ReloadReport {
            seq: self.last_reload.seq + 1,
            at: Some(clock::rfc3339(clock::unix_ms())),
            ok: Some(ok),
            error: outcome.error.clone(),
            took_ms: Some(self.now.since(pending.began)),
            adopted: outcome.adopted,
            dropped: outcome.dropped,
            // What failed is undone.
            applied: if ok { pending.applied } else { Vec::new() },
            needs_restart: pending.needs_restart,
        };
        let ReloadReport { took_ms, adopted, dropped, error, .. } = &self.last_reload;
        match error {
            None => info!(took_ms, adopted, dropped, "reloaded"),
            Some(error) => {
                error!(%error, took_ms, adopted, dropped, "the reload failed, the old settings go on");
            }
        }
        self.tell_reload(pending.waiting);
        if !ok {
            self.go_back(pending.before, &outcome.replaced);
        }
        let waiting = std::mem::take(&mut self.next_waiting);
        match self.state.take_again() {
            Some(tasks_only) if !self.state.is_stopping() => {
                self.begin_put_off_reload(tasks_only, waiting);
            }
            _ => self.answer_reload(waiting),
        }
    }

    /// Begins a reload that was asked for when it could not be.
    pub(super) fn begin_put_off_reload(&mut self, tasks_only: bool, waiting: Vec<Waiting>) {
        // Counted when it was asked for.
        self.reloads.asked -= 1;
        self.begin_reload(tasks_only, None);
        match &mut self.pending_reload {
            Some(pending) => pending.waiting.extend(waiting),
            None => self.answer_reload(waiting),
        }
    }

    /// A reload failed: the config is again what it was, also for the seats that had got the new one.
    fn go_back(&mut self, before: Option<Rc<Config>>, replaced: &[Seat]) {
        let Some(before) = before else { return };
        if let Err(error) = logging::apply(&before.log) {
            error!(%error, "the log could not be put back");
        }
        let settings = before.settings.clone();
        let undone = self.hook(|app, master| app.before_reload(master, &settings));
        if let Some(Err(sentence)) = undone {
            error!(%sentence, "the application did not take its old settings back");
        }
        self.state.set_patience(patience(&before));
        self.config = before;
        for seat in replaced {
            if let Some(generation) = self.state.owner(*seat) {
                self.state.input(self.now, Input::Recycle(*seat, generation));
            }
        }
    }

    fn tell_reload(&mut self, waiting: impl IntoIterator<Item = Waiting>) {
        self.answer_reload(waiting);
        let report = self.last_reload.clone();
        let status = match &report.error {
            None => format!("reloaded at {}", report.at.as_deref().unwrap_or_default()),
            Some(error) => format!("the last reload failed: {error}"),
        };
        supervisor::tell(supervisor::Word::Ready, &status);
        self.hook(|app, master| app.after_reload(master, &report));
    }

    fn answer_reload(&mut self, waiting: impl IntoIterator<Item = Waiting>) {
        let report = &self.last_reload;
        let answer = match (&report.ok, &report.error) {
            (Some(true), _) => ControlAnswer::done(serde_json::json!(report)),
            (_, error) => ControlAnswer {
                ok: false,
                error: Some(error.clone().unwrap_or_else(|| "the reload failed".into())),
                result: serde_json::json!(report),
            },
        };
        for one in waiting {
            self.control.answer(one, &answer);
        }
    }
}
