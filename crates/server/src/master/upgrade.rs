//! Carrying out an upgrade: who asked, the rehearsal, the way to the exec, and the report of what came of
//! it, which the next program makes.

use super::Master;
use super::control::Waiting;
use super::hand_over::UpgradeHandOff;
use super::rehearsing::{Rehearsing, Stage};
use super::state::{Arrival, Input};
use super::supervisor;
use crate::app::App;
use crate::clock::{self, Millis};
use crate::control::ControlAnswer;
use crate::layout::Facts;
use crate::shared::Sizes;
use crate::status::{ReloadCounts, UpgradeReport};
use crate::sys::descriptor;
use crate::sys::exec::Program;
use crate::upgrade::{Purpose, Start, VARIABLE, kept_changes};
use std::ffi::OsString;
use std::io;
use tracing::{error, info, warn};

/// The directory, within the server's, where a rehearsal lives.
const REHEARSAL_DIR: &str = "next";

/// What the master knows of upgrades.
#[derive(Debug)]
pub(super) struct Upgrades {
    pub(super) counts: ReloadCounts,
    pub(super) last: UpgradeReport,
    pub(super) start: Start,
    pub(super) facts: Facts,
    pub(super) sizes: Sizes,
    /// A reload that was asked for meanwhile; of the task processes only?
    pub(super) reload_after: Option<bool>,
    pending: Option<Pending>,
    /// Rehearsals that are over and not reaped.
    ending: Vec<Rehearsing>,
}

/// An upgrade under way.
#[derive(Debug)]
pub(super) struct Pending {
    step: Step,
    file: OsString,
    version: Option<String>,
    began: Millis,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
enum Step {
    /// A reload is to end first.
    Queued,
    Rehearsing(Rehearsing),
    /// Connections that are on their way between workers are to arrive first.
    Rehearsed,
    /// Processes make way.
    MakingWay,
    /// After the exec: processes come up.
    Arriving {
        rest_began: Millis,
    },
}

impl Upgrades {
    /// None yet.
    pub(super) fn new(start: Start, facts: Facts, sizes: Sizes) -> Self {
        Self {
            counts: ReloadCounts::default(),
            last: UpgradeReport::default(),
            start,
            facts,
            sizes,
            reload_after: None,
            pending: None,
            ending: Vec::new(),
        }
    }

    /// Whether one is more than asked for.
    pub(super) fn is_under_way(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !matches!(pending.step, Step::Queued))
    }

    /// Whether there is something that nothing but time tells of.
    pub(super) fn need_ticks(&self) -> bool {
        self.pending.is_some() || !self.ending.is_empty()
    }

    /// The server ends: no rehearsal outlives it.
    pub(super) fn end_rehearsals(&mut self) {
        if let Some(Pending { step: Step::Rehearsing(rehearsing), .. }) = self.pending.take() {
            self.ending.push(rehearsing);
        }
        self.ending.drain(..).for_each(Rehearsing::end_now);
    }

    /// In the middle of the one that has brought this program here.
    pub(super) fn arrive(&mut self, handed: UpgradeHandOff) {
        let UpgradeHandOff { file, version, began, rest_began, waiting } = handed;
        let step = Step::Arriving { rest_began };
        self.pending = Some(Pending { step, file, version, began, waiting });
    }
}

impl<A: App> Master<A> {
    /// Begins an upgrade to this file, or to the one the server was started from.
    pub(super) fn begin_upgrade(&mut self, file: Option<String>, waiting: Option<Waiting>) {
        self.upgrades.counts.asked += 1;
        let file = file.map_or_else(|| self.upgrades.start.file.clone(), OsString::from);
        let waiting = waiting.into_iter().collect();
        let step = Step::Queued;
        let asked = Pending { step, file, version: None, began: self.now, waiting };
        if self.upgrades.pending.is_some() {
            return self.refuse_upgrade(asked, "an upgrade is under way already");
        }
        if self.state.is_stopping() || !self.state.was_ready() {
            let doing = if self.state.is_stopping() { "stopping" } else { "starting" };
            return self.refuse_upgrade(asked, &format!("the server is {doing}"));
        }
        self.upgrades.pending = Some(asked);
        self.go_on_with_upgrade();
    }

    /// Whether reloads have to wait; this one does, if so, and is done by whatever program runs then.
    pub(super) fn reload_waits(&mut self, tasks_only: bool) -> bool {
        let under_way = self.upgrades.is_under_way();
        if under_way {
            let both = tasks_only && self.upgrades.reload_after.unwrap_or(true);
            self.upgrades.reload_after = Some(both);
        }
        under_way
    }

    /// One step further, once a turn.
    pub(super) fn go_on_with_upgrade(&mut self) {
        self.upgrades.ending.retain_mut(|rehearsing| !rehearsing.is_over());
        let Some(mut pending) = self.upgrades.pending.take() else { return };
        if self.state.is_stopping() && !matches!(pending.step, Step::Arriving { .. }) {
            return self.refuse_upgrade(pending, "the server stops");
        }
        match &mut pending.step {
            Step::Queued if self.pending_reload.is_some() || !self.upgrades.ending.is_empty() => {}
            Step::Queued => match self.rehearse(&pending.file) {
                Ok(rehearsing) => pending.step = Step::Rehearsing(rehearsing),
                Err(sentence) => return self.refuse_upgrade(pending, &sentence),
            },
            Step::Rehearsing(rehearsing) => match rehearsing.look(self.now) {
                None => {}
                Some(Ok(version)) => {
                    info!(version, "the rehearsal of the new program went well");
                    self.end_rehearsal(&mut pending);
                    pending.version = Some(version);
                    pending.step = Step::Rehearsed;
                }
                Some(Err(sentence)) => return self.refuse_upgrade(pending, &sentence),
            },
            Step::Rehearsed if self.moves_have_ended() => {
                pending.step = Step::MakingWay;
                self.upgrades.pending = Some(pending);
                return self.input(Input::Upgrade);
            }
            Step::Rehearsed | Step::MakingWay | Step::Arriving { .. } => {}
        }
        self.upgrades.pending = Some(pending);
    }

    /// What is to be handed over of the upgrade, if one is on the way to its exec.
    pub(super) fn upgrade_to_hand_over(&self) -> Option<UpgradeHandOff> {
        let pending = self.upgrades.pending.as_ref()?;
        Some(UpgradeHandOff {
            file: pending.file.clone(),
            version: pending.version.clone(),
            began: pending.began,
            rest_began: self.state.rest_began()?,
            waiting: pending.waiting.clone(),
        })
    }

    /// The processes could not make way, or the program could not be started.
    pub(super) fn upgrade_failed(&mut self, sentence: &str) {
        if let Some(pending) = self.upgrades.pending.take() {
            self.refuse_upgrade(pending, sentence);
        }
    }

    /// This program has come up in another one's place.
    pub(super) fn arrived(&mut self, arrival: Arrival) {
        let Some(pending) = self.upgrades.pending.take() else { return };
        let Step::Arriving { rest_began } = pending.step else { return };
        let changes = kept_changes();
        self.generation += 1;
        let ok = arrival.error.is_none();
        if let Some(error) = &arrival.error {
            error!(%error, "the upgraded server has not all its processes");
            self.upgrades.counts.refused += 1;
        } else {
            self.upgrades.counts.done += 1;
        }
        let report = UpgradeReport {
            ok: Some(ok),
            error: arrival.error,
            stall_ms: Some(self.now.since(rest_began)),
            adopted: arrival.adopted,
            dropped: arrival.dropped,
            applied: changes.applied,
            needs_restart: changes.needs_restart,
            ..UpgradeReport::default()
        };
        self.report_upgrade(pending, report);
    }

    fn refuse_upgrade(&mut self, mut pending: Pending, sentence: &str) {
        self.upgrades.counts.refused += 1;
        self.end_rehearsal(&mut pending);
        let error = format!("{}: {sentence}; what runs goes on", pending.file.display());
        error!(%error, "the upgrade is refused");
        let error = Some(error);
        self.report_upgrade(
            pending,
            UpgradeReport { ok: Some(false), error, ..UpgradeReport::default() },
        );
    }

    fn report_upgrade(&mut self, pending: Pending, report: UpgradeReport) {
        self.upgrades.last = UpgradeReport {
            seq: self.upgrades.last.seq + 1,
            at: Some(clock::rfc3339(clock::unix_ms())),
            file: Some(pending.file.display().to_string()),
            version: pending.version,
            took_ms: Some(self.now.since(pending.began)),
            ..report
        };
        let report = &self.upgrades.last;
        let status = match &report.error {
            None => {
                let UpgradeReport { took_ms, stall_ms, adopted, dropped, .. } = report;
                let version = report.version.as_deref();
                info!(version, took_ms, stall_ms, adopted, dropped, "upgraded");
                format!("upgraded at {}", report.at.as_deref().unwrap_or_default())
            }
            Some(error) => format!("the last upgrade failed: {error}"),
        };
        supervisor::tell(supervisor::Word::Unchanged, &status);
        let answer = ControlAnswer {
            ok: report.ok == Some(true),
            error: report.error.clone(),
            result: serde_json::json!(report),
        };
        for one in pending.waiting {
            self.control.answer(one, &answer);
        }
        if self.upgrades.pending.is_none()
            && let Some(tasks_only) = self.upgrades.reload_after.take()
        {
            let waiting = std::mem::take(&mut self.next_waiting);
            self.begin_put_off_reload(tasks_only, waiting);
        }
    }

    fn rehearse(&self, file: &OsString) -> Result<Rehearsing, String> {
        check_file(file)?;
        let cannot = |error: io::Error| format!("its rehearsal cannot be started: {error}");
        let run_dir = self.run_dir.dir().path().join(REHEARSAL_DIR);
        let stage = Stage::make(self.shared.ledger).map_err(cannot)?;
        let purpose = Purpose::Rehearsal {
            report: stage.report(),
            run_dir: run_dir.clone().into_os_string(),
        };
        let memfd = match self.hand_off(purpose).write() {
            Ok(memfd) => memfd,
            Err(error) => {
                stage.close();
                return Err(cannot(error));
            }
        };
        let start = Start { file: file.clone(), ..self.upgrades.start.clone() };
        let variable = memfd.to_string();
        let started = match Program::new(file, &start.words(), (VARIABLE, &variable)) {
            Ok(program) => stage.start(&program, &[memfd, self.shared.segment], run_dir, self.now),
            Err(error) => {
                stage.close();
                Err(error)
            }
        };
        descriptor::close(memfd);
        info!(file = %file.display(), "rehearsing an upgrade");
        started.map_err(cannot)
    }

    /// Whatever is left of a rehearsal goes.
    fn end_rehearsal(&mut self, pending: &mut Pending) {
        let Step::Rehearsing(rehearsing) = std::mem::replace(&mut pending.step, Step::Rehearsed)
        else {
            return;
        };
        let output = rehearsing.output();
        if !output.is_empty() {
            warn!(%output, "the rehearsal said");
        }
        rehearsing.kill();
        self.upgrades.ending.push(rehearsing);
    }
}

/// What can be said of a file without starting it.
fn check_file(file: &OsString) -> Result<(), String> {
    match std::fs::metadata(file) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err("it is no file".to_owned()),
        Err(error) => Err(format!("it cannot be started: {error}")),
    }
}
