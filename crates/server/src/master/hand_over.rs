//! Handing the server over: what the next program has to know, and the exec.
//!
//! When this is called nobody but the master is left, so the descriptor table is its own, and the exec
//! keeps it. Signals are blocked over the exec: what came before is handed over, what comes meanwhile
//! waits in the kernel until the next program has its handlers.

use super::Master;
use super::control::{ControlHandOff, Waiting};
use super::moving::BalanceFigures;
use super::state::{Input, SeatHandOff};
use super::status_pipe::StatusPipeHandOff;
use crate::app::App;
use crate::clock::Millis;
use crate::ledger::DescriptorKind;
use crate::run_dir::RunDirHandOff;
use crate::status::{ReloadCounts, ReloadReport, UpgradeReport};
use crate::sys::exec::{self, Program};
use crate::sys::{descriptor, fork, signals};
use crate::upgrade::{HandOff, Purpose, Start, VARIABLE};
use crate::wiring::Wiring;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use tracing::{error, info};

/// What the next program goes on with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Succession {
    pub(crate) wiring: Wiring,
    pub(crate) run_dir: RunDirHandOff,
    pub(super) status_pipe: StatusPipeHandOff,
    pub(super) control: ControlHandOff,
    pub(super) seats: Vec<SeatHandOff>,
    pub(super) started_at_ms: u64,
    pub(super) generation: u64,
    pub(super) reloads: ReloadCounts,
    pub(super) last_reload: ReloadReport,
    pub(super) balance: BalanceFigures,
    pub(super) upgrades: ReloadCounts,
    pub(super) last_upgrade: UpgradeReport,
    pub(crate) start: Start,
    /// Signals that came and were not acted on yet.
    pub(crate) came: signals::Came,
    /// A stop was asked for.
    pub(super) stop: bool,
    /// A reload was asked for meanwhile, of the task processes only; and by whom.
    pub(super) reload_after: Option<bool>,
    pub(super) reload_askers: Vec<Waiting>,
    pub(super) upgrade: UpgradeHandOff,
}

/// The upgrade that is under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UpgradeHandOff {
    pub(super) file: OsString,
    pub(super) version: Option<String>,
    pub(super) began: Millis,
    pub(super) rest_began: Millis,
    pub(super) waiting: Vec<Waiting>,
}

impl Succession {
    /// Every descriptor the next program finds open because of this; connections are in the ledger.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let mut all = self.wiring.all();
        all.push(self.run_dir.pid_file);
        all.extend(self.status_pipe.descriptors());
        all.extend(self.control.descriptors());
        all.extend(self.seats.iter().filter_map(|seat| seat.left.and_then(|left| left.memfd)));
        all
    }

    /// Descriptors that whoever started the server wanted it to have.
    pub(crate) fn inherited(&self) -> &[RawFd] {
        &self.start.inherited
    }
}

impl<A: App> Master<A> {
    /// Goes on with what the program before this one handed over.
    pub(super) fn take_over(&mut self, handed: Succession) {
        self.state.take_over(self.now, &handed.seats, handed.stop);
        self.started_at_ms = handed.started_at_ms;
        self.generation = handed.generation;
        self.reloads = handed.reloads;
        self.last_reload = handed.last_reload;
        self.balance_figures = handed.balance;
        self.upgrades.counts = handed.upgrades;
        self.upgrades.last = handed.last_upgrade;
        self.upgrades.reload_after = handed.reload_after;
        self.next_waiting = handed.reload_askers;
        self.upgrades.arrive(handed.upgrade);
    }

    /// Every process has made way. Comes back only where there is one to reap first, or the other
    /// program could not be started.
    pub(super) fn exec_next(&mut self) {
        self.reap_quietly();
        if !self.children.keys().is_empty() {
            return;
        }
        let Some(upgrade) = self.upgrade_to_hand_over() else { return };
        info!(file = %upgrade.file.display(), "starting the new program in this one's place");
        let mask = match fork::block_signals() {
            Ok(mask) => mask,
            Err(error) => return self.exec_failed(&error),
        };
        let came = signals::drain(self.signals);
        let error = match self.prepare_exec(upgrade, came) {
            Ok((program, memfd)) => {
                let error = program.exec();
                descriptor::close(memfd);
                error
            }
            Err(error) => error,
        };
        self.keep_nothing_over_exec();
        signals::put_back(came);
        if let Err(error) = mask.restore() {
            error!(%error, "signals cannot be let in again");
        }
        self.exec_failed(&error);
    }

    fn exec_failed(&mut self, error: &io::Error) {
        self.state.input(self.now, Input::ExecFailed(format!("cannot be started: {error}")));
    }

    fn prepare_exec(
        &mut self,
        upgrade: UpgradeHandOff,
        came: signals::Came,
    ) -> io::Result<(Program, RawFd)> {
        let start = Start { file: upgrade.file.clone(), ..self.upgrades.start.clone() };
        let file = start.file.clone();
        let words = start.words();
        let succession = Succession {
            wiring: self.wiring.clone(),
            run_dir: self.run_dir.hand_off(),
            status_pipe: self.status_pipe.hand_off(),
            control: self.control.hand_off(),
            seats: self.state.seats_to_hand_over(),
            started_at_ms: self.started_at_ms,
            generation: self.generation,
            reloads: self.reloads,
            last_reload: self.last_reload.clone(),
            balance: self.balance_figures.clone(),
            upgrades: self.upgrades.counts,
            last_upgrade: self.upgrades.last.clone(),
            start,
            came,
            stop: self.state.stop_waits(),
            reload_after: self.upgrades.reload_after,
            reload_askers: self.next_waiting.clone(),
            upgrade,
        };
        let mut keep = succession.descriptors();
        keep.extend(succession.inherited());
        keep.extend(self.connections());
        keep.push(self.shared.segment);
        let hand_off = self.hand_off(Purpose::Succession(Box::new(succession)));
        let memfd = hand_off.write()?;
        keep.push(memfd);
        let program = Program::new(&file, &words, (VARIABLE, &memfd.to_string()));
        let ready = program.and_then(|program| exec::keep_over_exec(keep).map(|()| program));
        match ready {
            Ok(program) => Ok((program, memfd)),
            Err(error) => {
                descriptor::close(memfd);
                Err(error)
            }
        }
    }

    /// What every program that may take this one's place is told.
    pub(super) fn hand_off(&self, purpose: Purpose) -> HandOff {
        let settings = self.config.settings.iter();
        HandOff {
            facts: self.upgrades.facts.clone(),
            sizes: self.upgrades.sizes,
            segment: self.shared.segment,
            seed: self.shared.seed,
            // A secret is read anew, and nobody else's business.
            settings: settings
                .filter(|setting| !setting.spec.secret)
                .map(|setting| (setting.spec.key.to_owned(), setting.value.to_string()))
                .collect(),
            workers: self.config.workers,
            run_dir: self.run_dir.dir().path().as_os_str().to_owned(),
            purpose,
        }
    }

    /// The sockets of clients, what workers left at rest, and mail that waits.
    fn connections(&self) -> Vec<RawFd> {
        let ledger = self.shared.ledger;
        let carried = |kind| {
            matches!(
                kind,
                DescriptorKind::Session
                    | DescriptorKind::Handshaking
                    | DescriptorKind::Rest
                    | DescriptorKind::Spill
            )
        };
        (0..ledger.len())
            .filter_map(|number| RawFd::try_from(number).ok())
            .filter(|number| ledger.entry(*number).is_some_and(|entry| carried(entry.kind)))
            .filter(|number| descriptor::identity(*number).is_some())
            .collect()
    }

    /// The exec has failed: the next one, of whomever, closes everything again.
    fn keep_nothing_over_exec(&self) {
        let inherited = self.upgrades.start.inherited.iter().copied();
        if let Err(error) = exec::keep_over_exec(inherited) {
            error!(%error, "descriptors stay open over an exec");
        }
    }
}
