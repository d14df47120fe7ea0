//! What the master decides: who is started, told, replaced, given up. No I/O; `now` is passed in.
//!
//! Knows seats (places in the process table) and the lives in them; knows no descriptor and no pid.
//! Invariants: 1. A worker seat has at most one owner (`current`) and one successor. 2. The commit
//! (`Action::Commit`) is given only when nobody serves the seat: the owner rests, or is dead, and no
//! sibling stands in. 3. Before
//! the commit a failing successor changes nothing; after it, it is a crash of the seat.

mod reloading;
mod standing_in;
mod stopping;
mod upgrading;

pub(super) use reloading::Outcome;
pub(super) use standing_in::Sibling;
pub(super) use upgrading::{Arrival, SeatHandOff};

use super::seats::{Life, Phase, Seat, SeatState};
use crate::clock::Millis;
use crate::ipc::pipe::{Control, WireAdoption};
use reloading::Reload;
use std::collections::BTreeMap;
use upgrading::{Arriving, Upgrading};

/// How long a process that was told to leave may take.
const LEAVE_MS: u64 = 2_000;
/// How long before the end of the stop's time the processes that are left are killed.
const STOP_MARGIN_MS: u64 = 500;
/// Deaths in the middle of an adoption after which the seat starts empty.
const ADOPTION_DEATHS: u32 = 3;

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Input {
    /// A child has run `worker_start`.
    Prepared(Seat, u32),
    /// A child could not.
    PrepareFailed(Seat, u32, String),
    /// A worker rests, for the successor of the second generation.
    Rested(Seat, u32, u32, Option<i32>),
    /// A worker cannot rest for the successor of the second generation.
    RestFailed(Seat, u32, u32, String),
    /// A worker serves.
    Ready(Seat, u32, u32, u32),
    /// A worker has given back the slot that it stood in for, and what it left for it.
    StoodDown(Seat, u32, u16, Option<i32>),
    /// A worker wants to be replaced.
    Recycle(Seat, u32),
    /// A child has ended.
    Ended(Seat, u32),
    /// A child could not be started.
    SpawnFailed(Seat, u32, String),
    /// A reload of everything, or of the task processes only.
    Reload { tasks_only: bool },
    /// A reload of one worker. None of anything is under way.
    ReloadWorker(u16),
    /// Every process is to make way for another program.
    Upgrade,
    /// The other program could not be started.
    ExecFailed(String),
    /// A graceful stop.
    Stop,
    /// A stop now.
    StopNow,
    /// Time passes.
    Tick,
}

/// What to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// Start a process.
    Spawn(Seat, u32),
    /// Send it a control message.
    Tell(Seat, u32, Control),
    /// Kill it.
    Kill(Seat, u32),
    /// Write the owner word of a worker's seat.
    Commit(Seat, u32),
    /// The owner of a worker's seat died: mark what it was serving, before anybody reads it.
    MarkLost(Seat, u32),
    /// A process is gone and was not asked to go.
    ReportDeath(Seat, u32),
    /// Every process is up for the first time.
    AllReady,
    /// A reload is over.
    ReloadDone(Outcome),
    /// Every process has made way: start the other program in this one's place.
    Exec,
    /// A stop was asked for when it could not be, and can now.
    BeginStop,
    /// The upgrade ended before the exec, with this sentence.
    UpgradeFailed(String),
    /// This program, started by an upgrade, is up.
    Arrived(Arrival),
    /// No process is left.
    AllGone,
    /// No process could ever start: give up, with this sentence.
    GiveUp(String),
}

/// Times the master keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) handover_ms: u64,
    pub(super) stop_ms: u64,
    pub(super) task_ms: u64,
}

/// The master's mind.
#[derive(Debug)]
pub(super) struct State {
    pub(super) seats: BTreeMap<Seat, SeatState>,
    reload: Option<Reload>,
    /// One more reload was asked for while one was under way; of the task processes only?
    again: Option<bool>,
    was_ready: bool,
    stopping: Option<Millis>,
    upgrading: Option<Upgrading>,
    arriving: Option<Arriving>,
    /// Upgrades begun.
    marks: u32,
    patience: Patience,
    actions: Vec<Action>,
}

impl State {
    pub(super) fn new(seats: impl IntoIterator<Item = Seat>, patience: Patience) -> Self {
        Self {
            seats: seats.into_iter().map(|seat| (seat, SeatState::default())).collect(),
            reload: None,
            again: None,
            was_ready: false,
            stopping: None,
            upgrading: None,
            arriving: None,
            marks: 0,
            patience,
            actions: Vec::new(),
        }
    }

    pub(super) fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Starts a process in every seat.
    pub(super) fn start(&mut self, now: Millis) {
        let seats: Vec<Seat> = self.seats.keys().copied().collect();
        for seat in seats {
            self.spawn(seat, now);
        }
    }

    pub(super) fn is_reloading(&self) -> bool {
        self.reload.as_ref().is_some_and(|reload| reload.outcome.by_request)
    }

    /// Whether nothing is being replaced or brought to its end.
    pub(super) fn is_quiet(&self) -> bool {
        let replacing = self.reload.is_some() || self.upgrading.is_some();
        !replacing && self.stopping.is_none() && !self.someone_stands_in()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    pub(super) fn was_ready(&self) -> bool {
        self.was_ready
    }

    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    pub(super) fn input(&mut self, now: Millis, input: Input) {
        match input {
            Input::Prepared(seat, generation) => self.prepared(now, seat, generation),
            Input::PrepareFailed(seat, generation, sentence) => {
                self.successor_failed(now, seat, generation, &sentence);
            }
            Input::Rested(seat, generation, successor, rest) => {
                self.rested(now, seat, generation, successor, rest);
            }
            Input::RestFailed(seat, generation, successor, sentence) => {
                if self.is_mark_of_upgrade(successor) {
                    self.fail_upgrade(now, &format!("{seat}: {sentence}"));
                } else if self.awaits_rest(seat, generation, successor) {
                    self.successor_failed(now, seat, successor, &sentence);
                }
            }
            Input::Ready(seat, generation, adopted, lost) => {
                self.ready(now, seat, generation, adopted, lost);
            }
            Input::StoodDown(seat, generation, slot, rest) => {
                self.stood_down(now, seat, generation, slot, rest);
            }
            Input::Recycle(seat, generation) => self.recycle(seat, generation),
            Input::Ended(seat, generation) => self.ended(now, seat, generation),
            Input::SpawnFailed(seat, generation, sentence) => {
                self.successor_failed(now, seat, generation, &sentence);
                self.ended(now, seat, generation);
            }
            Input::Reload { tasks_only } => self.ask_reload(tasks_only),
            Input::ReloadWorker(slot) => self.ask_worker_reload(slot),
            Input::Upgrade => self.begin_upgrade(now),
            Input::ExecFailed(sentence) => self.fail_upgrade(now, &sentence),
            Input::Stop => self.stop(now),
            Input::StopNow => self.stop_now(),
            Input::Tick => {}
        }
        self.tick(now);
    }

    fn spawn(&mut self, seat: Seat, now: Millis) {
        let Some(state) = self.seats.get_mut(&seat) else { return };
        state.generation += 1;
        state.respawn_at = None;
        state.started_at = now;
        let life = Life::new(state.generation, Phase::Starting, now);
        let generation = life.generation;
        state.successor = Some(life);
        self.actions.push(Action::Spawn(seat, generation));
    }

    fn prepared(&mut self, now: Millis, seat: Seat, generation: u32) {
        let Some(state) = self.seats.get_mut(&seat) else { return };
        let Some(successor) = state.successor_of(generation) else { return };
        successor.enter(Phase::Prepared, now);
        if !seat.is_worker() {
            state.current = state.successor.take();
            if let Some(life) = &mut state.current {
                life.enter(Phase::Running, now);
            }
            self.actions.push(Action::Commit(seat, generation));
            self.handed_over(seat, 0, 0);
            return;
        }
        match &mut state.current {
            Some(current) if current.phase == Phase::Running => {
                current.enter(Phase::AskedToRest, now);
                let owner = current.generation;
                self.end_duty_of(seat);
                let rest = Control::Rest { successor: generation };
                self.actions.push(Action::Tell(seat, owner, rest));
            }
            Some(_) => {}
            None => self.take_unowned(now, seat),
        }
    }

    fn rested(
        &mut self,
        now: Millis,
        seat: Seat,
        generation: u32,
        successor: u32,
        rest: Option<i32>,
    ) {
        if self.rested_for_upgrade(seat, successor, rest)
            || !self.awaits_rest(seat, generation, successor)
        {
            return;
        }
        let Some(state) = self.seats.get_mut(&seat) else { return };
        if let Some(mut old) = state.current.take() {
            old.enter(Phase::Leaving, now);
            state.leaving.push(old);
        }
        self.commit(now, seat, rest, WireAdoption::Reload);
        self.actions.push(Action::Tell(seat, generation, Control::Leave));
    }

    /// Whether an owner's answer to `Rest` is for the successor that waits. If not, that one was given
    /// up meanwhile, and the answer crossed `Resume` on the way: it must not pass for an answer to the
    /// next one's `Rest`, for the worker goes on in between.
    fn awaits_rest(&mut self, seat: Seat, generation: u32, successor: u32) -> bool {
        let Some(state) = self.seats.get_mut(&seat) else { return false };
        let awaited =
            state.successor_of(successor).is_some_and(|life| life.phase == Phase::Prepared);
        awaited && state.current.as_ref().is_some_and(|life| life.generation == generation)
    }

    /// The commit point: the successor owns the seat.
    fn commit(&mut self, now: Millis, seat: Seat, rest: Option<i32>, why: WireAdoption) {
        let Some(state) = self.seats.get_mut(&seat) else { return };
        let Some(mut life) = state.successor.take() else { return };
        let empty = state.adoption_deaths >= ADOPTION_DEATHS;
        let generation = life.generation;
        life.enter(Phase::Adopting, now);
        state.current = Some(life);
        self.actions.push(Action::Commit(seat, generation));
        self.actions.push(Action::Tell(seat, generation, Control::Commit { rest, why, empty }));
    }

    fn ready(&mut self, now: Millis, seat: Seat, generation: u32, adopted: u32, lost: u32) {
        let Some(state) = self.seats.get_mut(&seat) else { return };
        match &mut state.current {
            Some(life) if life.generation == generation => life.enter(Phase::Running, now),
            _ => return,
        }
        state.adoption_deaths = 0;
        state.unserved_since = None;
        self.handed_over(seat, u64::from(adopted), u64::from(lost));
    }

    /// A process that was to take a seat over will not.
    fn successor_failed(&mut self, now: Millis, seat: Seat, generation: u32, sentence: &str) {
        let Some(state) = self.seats.get_mut(&seat) else { return };
        if state.successor_of(generation).is_none() {
            return;
        }
        if let Some(mut life) = state.successor.take() {
            life.enter(Phase::Leaving, now);
            state.leaving.push(life);
            self.actions.push(Action::Kill(seat, generation));
        }
        let owner_rests =
            state.current.as_mut().filter(|life| matches!(life.phase, Phase::AskedToRest)).map(
                |life| {
                    life.enter(Phase::Running, now);
                    life.generation
                },
            );
        if let Some(owner) = owner_rests {
            self.actions.push(Action::Tell(seat, owner, Control::Resume));
        }
        let unserved = state.current.is_none();
        if unserved {
            state.restarts += 1;
            state.note_death(now, false);
            self.actions.push(Action::ReportDeath(seat, generation));
            if let Some(reload) = &mut self.reload {
                // Whoever is started next has the new config.
                reload.queue.retain(|waiting| *waiting != seat);
            }
        }
        if !self.was_ready && self.stopping.is_none() {
            self.actions.push(Action::GiveUp(format!("{seat} could not start: {sentence}")));
        }
        self.fail_reload(seat, sentence);
    }

    fn ended(&mut self, now: Millis, seat: Seat, generation: u32) {
        let stopping = self.stopping.is_some();
        let Some(state) = self.seats.get_mut(&seat) else { return };
        if let Some(place) = state.leaving.iter().position(|life| life.generation == generation) {
            state.leaving.remove(place);
            return;
        }
        if state.successor_of(generation).is_some() {
            self.actions.push(Action::ReportDeath(seat, generation));
            self.successor_failed(now, seat, generation, "the successor died");
            if let Some(state) = self.seats.get_mut(&seat) {
                state.leaving.retain(|life| life.generation != generation);
            }
            return;
        }
        let Some(life) = state.current.take_if(|life| life.generation == generation) else {
            return;
        };
        let asked = life.phase == Phase::Leaving;
        if seat.is_worker() {
            self.actions.push(Action::MarkLost(seat, generation));
            state.unserved_since.get_or_insert(now);
        }
        if !asked || !stopping && seat.is_worker() {
            self.actions.push(Action::ReportDeath(seat, generation));
        }
        self.sibling_ended(now, seat, generation);
        if stopping {
            return;
        }
        let Some(state) = self.seats.get_mut(&seat) else { return };
        let blamed = std::mem::take(&mut state.blamed);
        if life.phase == Phase::Adopting {
            state.adoption_deaths += u32::from(!blamed);
            self.fail_reload(seat, "the successor died while it took over");
        }
        let may_start = self.may_start(seat);
        let Some(state) = self.seats.get_mut(&seat) else { return };
        match &state.successor {
            Some(successor) if successor.phase == Phase::Prepared => {
                self.commit(now, seat, None, WireAdoption::Crash);
            }
            Some(_) => {}
            None if asked && may_start => self.spawn(seat, now),
            None if asked => {}
            None => {
                state.restarts += 1;
                state.note_death(now, life.phase != Phase::Adopting);
                self.death_in_upgrade(now, seat);
            }
        }
    }

    /// The end of a seat's owner that is to be told next is one connection's doing.
    pub(super) fn blame_connection(&mut self, seat: Seat) {
        if let Some(state) = self.seats.get_mut(&seat) {
            state.blamed = true;
        }
    }

    /// The generation that owns a seat.
    pub(super) fn owner(&self, seat: Seat) -> Option<u32> {
        self.seats.get(&seat)?.current.as_ref().map(|life| life.generation)
    }

    /// Whether somebody serves a worker's seat: its owner, or a sibling.
    pub(super) fn is_served(&self, seat: Seat) -> bool {
        self.seats
            .get(&seat)
            .is_some_and(|state| state.current.is_some() || state.sibling.is_some())
    }

    fn tick(&mut self, now: Millis) {
        self.go_on_with_arrival(now);
        if let Some(until) = self.stopping {
            if now >= until {
                self.stop_now();
            } else {
                self.say_goodbye_for_the_dead(now);
            }
            self.tell_stop(now);
            return;
        }
        let due: Vec<Seat> = self
            .seats
            .iter()
            .filter(|(seat, state)| {
                state.respawn_at.is_some_and(|at| now >= at) && self.may_start(**seat)
            })
            .map(|(seat, _)| *seat)
            .collect();
        for seat in due {
            self.spawn(seat, now);
        }
        self.lose_patience(now);
        self.stand_in_where_due(now);
        self.go_on_with_reload(now);
        self.go_on_with_upgrade(now);
        let all_up = self
            .seats
            .values()
            .all(|state| state.current.as_ref().is_some_and(|life| life.phase == Phase::Running));
        if all_up && !self.was_ready {
            self.was_ready = true;
            self.actions.push(Action::AllReady);
        }
    }

    fn lose_patience(&mut self, now: Millis) {
        let Patience { handover_ms, task_ms, .. } = self.patience;
        let mut late = Vec::new();
        for (seat, state) in &self.seats {
            for life in &state.leaving {
                if now.since(life.since) >= LEAVE_MS {
                    self.actions.push(Action::Kill(*seat, life.generation));
                }
            }
            if let Some(life) = &state.current
                && !seat.is_worker()
                && life.phase == Phase::Leaving
                && now.since(life.since) >= if seat.is_task() { task_ms } else { LEAVE_MS }
            {
                self.actions.push(Action::Kill(*seat, life.generation));
            }
            if let Some(life) = &state.current
                && life.phase == Phase::Adopting
                && now.since(life.since) >= handover_ms
            {
                self.actions.push(Action::Kill(*seat, life.generation));
            }
            if let Some(successor) = &state.successor
                && now.since(successor.since) >= handover_ms
            {
                late.push((*seat, successor.generation));
            }
        }
        for (seat, generation) in late {
            let sentence = "the handover took longer than server.handover_timeout";
            self.successor_failed(now, seat, generation, sentence);
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
