//! How the master's mind brings every process to its end for another program, and how it begins as that
//! program.
//!
//! Before the exec, in this order: a reload or recycling under way ends → task processes and added
//! processes leave, while workers serve → the timer process leaves and all workers rest at once → they
//! leave → when nobody is left, the exec. Whatever fails on the way, a worker that rests goes on, and a
//! seat that is empty is filled from what its last owner left at rest.
//! Invariants: 1. While an upgrade is under way nobody is started but the successor of a worker that
//! died before the rest. 2. `Action::Exec` is given only when no process is left. 3. After the exec no
//! failure ends the server: seats are started again as after a death.

use super::{Action, LEAVE_MS, State};
use crate::clock::Millis;
use crate::ipc::pipe::Control;
use crate::master::seats::{AtRest, Phase, Seat, SeatState};
use serde::{Deserialize, Serialize};
use std::os::fd::RawFd;

/// How long processes that were told to leave, and are killed after [`LEAVE_MS`], may still take.
const GONE_MS: u64 = 3 * LEAVE_MS;
/// How long after the exec every seat may take to come up before the upgrade is reported as not well.
const ARRIVAL_MS: u64 = 10_000;
/// The place of the timer process among the added ones: it serves as long as workers do.
const TIMER: Seat = Seat::Process(0);

/// Where an upgrade is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// A reload or an adoption is to end first.
    Waiting,
    /// Task and added processes leave.
    Draining,
    /// The timer process leaves, workers were asked to rest.
    Resting,
    /// Workers were told to leave.
    Leaving,
    /// Nobody is left.
    Gone,
}

/// An upgrade under way, up to the exec.
#[derive(Debug)]
pub(super) struct Upgrading {
    step: Step,
    /// Since when it is there.
    since: Millis,
    /// What the workers' answers are known by: no successor has such a generation.
    mark: u32,
    rest_began: Option<Millis>,
    /// Workers that wanted to be replaced meanwhile.
    recycles: Vec<(Seat, u32)>,
    /// A stop was asked for when it was too late to go back.
    stop: bool,
}

/// The beginning of a program after the exec.
#[derive(Debug)]
pub(super) struct Arriving {
    since: Millis,
    adopted: u64,
    dropped: u64,
    /// A stop was asked for: it comes when there are workers to say goodbye.
    stop: bool,
}

/// How the beginning after an exec went.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::master) struct Arrival {
    pub(in crate::master) error: Option<String>,
    pub(in crate::master) adopted: u64,
    pub(in crate::master) dropped: u64,
}

/// What is handed over of a seat.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SeatHandOff {
    pub(in crate::master) seat: Seat,
    generation: u32,
    restarts: u64,
    /// What its last owner left at rest; `None`: it died.
    pub(in crate::master) left: Option<AtRest>,
}

impl State {
    /// The mind of a master that takes another one's place: no process is there, and no death of one
    /// will end the server.
    pub(in crate::master) fn take_over(&mut self, now: Millis, seats: &[SeatHandOff], stop: bool) {
        for handed in seats {
            if let Some(state) = self.seats.get_mut(&handed.seat) {
                state.generation = handed.generation;
                state.restarts = handed.restarts;
                state.left = handed.left;
                state.unserved_since = handed.seat.is_worker().then_some(now);
            }
        }
        self.was_ready = true;
        self.arriving = Some(Arriving { since: now, adopted: 0, dropped: 0, stop });
    }

    /// What the next program has to know of the seats.
    pub(in crate::master) fn seats_to_hand_over(&self) -> Vec<SeatHandOff> {
        let hand_off = |(seat, state): (&Seat, &SeatState)| SeatHandOff {
            seat: *seat,
            generation: state.generation,
            restarts: state.restarts,
            left: state.left,
        };
        self.seats.iter().map(hand_off).collect()
    }

    /// Whether processes make way for another program, or come up as one.
    pub(in crate::master) fn is_upgrading(&self) -> bool {
        self.upgrading.is_some() || self.arriving.is_some()
    }

    /// When the first worker was asked to rest.
    pub(in crate::master) fn rest_began(&self) -> Option<Millis> {
        self.upgrading.as_ref().and_then(|upgrading| upgrading.rest_began)
    }

    /// Whether the next program is to stop at once.
    pub(in crate::master) fn stop_waits(&self) -> bool {
        self.upgrading.as_ref().is_some_and(|upgrading| upgrading.stop)
    }

    /// Whether a stop waits for this program's end, or for the beginning of the one that it has become.
    pub(in crate::master) fn stop_is_asked(&self) -> bool {
        self.stop_waits() || self.arriving.as_ref().is_some_and(|arriving| arriving.stop)
    }

    pub(super) fn begin_upgrade(&mut self, now: Millis) {
        if self.stopping.is_some() || self.is_upgrading() {
            return;
        }
        self.marks = self.marks.wrapping_add(1);
        self.upgrading = Some(Upgrading {
            step: Step::Waiting,
            since: now,
            mark: u32::MAX - self.marks % (1 << 16),
            rest_began: None,
            recycles: Vec::new(),
            stop: false,
        });
    }

    pub(super) fn go_on_with_upgrade(&mut self, now: Millis) {
        let Some(upgrading) = &self.upgrading else { return };
        let waited_ms = now.since(upgrading.since);
        match upgrading.step {
            Step::Waiting => self.drain(now, waited_ms),
            Step::Draining => self.ask_to_rest(now),
            Step::Resting => self.leave_together(now, waited_ms),
            Step::Leaving if self.seats.values().all(SeatState::is_empty) => {
                self.enter(Step::Gone, now);
                self.actions.push(Action::Exec);
            }
            // A process may have ended that could not be reaped yet.
            Step::Gone if waited_ms < GONE_MS => self.actions.push(Action::Exec),
            Step::Leaving | Step::Gone if waited_ms >= GONE_MS => {
                self.fail_upgrade(now, "processes that were killed have not ended");
            }
            Step::Leaving | Step::Gone => {}
        }
    }

    fn enter(&mut self, step: Step, now: Millis) {
        if let Some(upgrading) = &mut self.upgrading {
            upgrading.step = step;
            upgrading.since = now;
        }
    }

    /// Task and added processes leave: each ends what it has in hand, workers serve.
    fn drain(&mut self, now: Millis, waited_ms: u64) {
        let adopting = |state: &SeatState| {
            state.current.as_ref().is_some_and(|life| life.phase != Phase::Running)
        };
        if self.reload.is_some() {
            return self.enter(Step::Waiting, now);
        }
        if let Some((seat, _)) = self.seats.iter().find(|(_, state)| adopting(state)) {
            let seat = *seat;
            if waited_ms >= self.patience.handover_ms + LEAVE_MS {
                self.fail_upgrade(now, &format!("{seat} is not serving"));
            }
            return;
        }
        for (seat, state) in self.seats.iter_mut().filter(|(seat, _)| !seat.is_worker()) {
            state.respawn_at = None;
            if let Some(mut life) = state.successor.take() {
                life.enter(Phase::Leaving, now);
                self.actions.push(Action::Kill(*seat, life.generation));
                state.leaving.push(life);
            }
            if *seat == TIMER {
                continue;
            }
            if let Some(life) = &mut state.current {
                life.enter(Phase::Leaving, now);
                self.actions.push(Action::Tell(*seat, life.generation, Control::Leave));
            }
        }
        self.enter(Step::Draining, now);
    }

    fn ask_to_rest(&mut self, now: Millis) {
        let drained = |(seat, state): (&Seat, &SeatState)| match seat {
            Seat::Worker(_) => {
                state.current.as_ref().is_none_or(|life| life.phase == Phase::Running)
            }
            seat => *seat == TIMER || state.is_empty(),
        };
        if !self.seats.iter().all(drained) {
            return;
        }
        let mark = self.upgrading.as_ref().map_or(0, |upgrading| upgrading.mark);
        // Whoever stands in for another slot gives it back first.
        let workers: Vec<Seat> = self.seats.keys().copied().filter(Seat::is_worker).collect();
        workers.into_iter().for_each(|seat| self.end_duty_of(seat));
        for (seat, state) in &mut self.seats {
            state.respawn_at = None;
            if state.current.is_some() {
                state.left = None;
            }
            if let Some(mut life) = state.successor.take() {
                life.enter(Phase::Leaving, now);
                self.actions.push(Action::Kill(*seat, life.generation));
                state.leaving.push(life);
            }
            let Some(life) = &mut state.current else { continue };
            let (phase, message) = match seat {
                Seat::Worker(_) => (Phase::AskedToRest, Control::Rest { successor: mark }),
                _ => (Phase::Leaving, Control::Leave),
            };
            life.enter(phase, now);
            self.actions.push(Action::Tell(*seat, life.generation, message));
        }
        if let Some(upgrading) = &mut self.upgrading {
            upgrading.rest_began = Some(now);
        }
        self.enter(Step::Resting, now);
    }

    /// A worker rests for the upgrade. False: it does for something else.
    pub(super) fn rested_for_upgrade(
        &mut self,
        seat: Seat,
        mark: u32,
        rest: Option<RawFd>,
    ) -> bool {
        let ours = self.upgrading.as_ref().is_some_and(|upgrading| upgrading.mark == mark);
        if ours && let Some(state) = self.seats.get_mut(&seat) {
            state.left = Some(AtRest { memfd: rest });
        }
        ours
    }

    /// Whether a worker's refusal to rest is an answer to the upgrade.
    pub(super) fn is_mark_of_upgrade(&self, mark: u32) -> bool {
        self.upgrading.as_ref().is_some_and(|upgrading| upgrading.mark == mark)
    }

    /// Once all rest, all leave.
    fn leave_together(&mut self, now: Millis, waited_ms: u64) {
        let rests = |(seat, state): (&Seat, &SeatState)| {
            !seat.is_worker() || state.current.is_none() || state.left.is_some()
        };
        if let Some((seat, _)) = self.seats.iter().find(|pair| !rests(*pair)) {
            let seat = *seat;
            if waited_ms >= self.patience.handover_ms {
                let sentence = format!("{seat} did not rest within server.handover_timeout");
                self.fail_upgrade(now, &sentence);
            }
            return;
        }
        for (seat, state) in self.seats.iter_mut().filter(|(seat, _)| seat.is_worker()) {
            if let Some(mut life) = state.current.take() {
                self.actions.push(Action::Tell(*seat, life.generation, Control::Leave));
                life.enter(Phase::Leaving, now);
                state.leaving.push(life);
            }
        }
        self.enter(Step::Leaving, now);
    }

    /// Whether somebody may be started in a seat now.
    pub(super) fn may_start(&self, seat: Seat) -> bool {
        match self.upgrading.as_ref().map(|upgrading| upgrading.step) {
            None | Some(Step::Waiting) => true,
            Some(Step::Draining) => seat.is_worker(),
            Some(Step::Resting | Step::Leaving | Step::Gone) => false,
        }
    }

    /// The owner of a worker's seat died. One that was to rest has left nothing.
    pub(super) fn death_in_upgrade(&mut self, now: Millis, seat: Seat) {
        if let Some(state) = self.seats.get_mut(&seat) {
            state.left = None;
        }
        let resting = self.upgrading.as_ref().is_some_and(|it| it.step == Step::Resting);
        if resting && seat.is_worker() {
            self.fail_upgrade(now, &format!("{seat} died when it was to rest"));
        }
    }

    /// The upgrade cannot be: whoever rests goes on, and empty seats are filled from what was left.
    pub(in crate::master) fn fail_upgrade(&mut self, now: Millis, sentence: &str) {
        let Some(upgrading) = self.end_upgrade(now, sentence) else { return };
        let empty: Vec<Seat> = self
            .seats
            .iter()
            .filter(|(_, state)| {
                state.current.is_none() && state.successor.is_none() && state.respawn_at.is_none()
            })
            .map(|(seat, _)| *seat)
            .collect();
        for seat in empty {
            self.spawn(seat, now);
        }
        for (seat, generation) in upgrading.recycles {
            self.recycle(seat, generation);
        }
        if upgrading.stop {
            self.actions.push(Action::BeginStop);
        }
    }

    fn end_upgrade(&mut self, now: Millis, sentence: &str) -> Option<Upgrading> {
        let upgrading = self.upgrading.take()?;
        for (seat, state) in self.seats.iter_mut().filter(|(seat, _)| seat.is_worker()) {
            if let Some(life) = &mut state.current
                && life.phase == Phase::AskedToRest
            {
                self.actions.push(Action::Tell(*seat, life.generation, Control::Resume));
                life.enter(Phase::Running, now);
                state.left = None;
            }
        }
        self.actions.push(Action::UpgradeFailed(sentence.to_owned()));
        Some(upgrading)
    }

    /// A stop is asked for. True: it waits, since there is no way back; the next program stops when it
    /// has workers to say goodbye.
    pub(in crate::master) fn stop_waits_for_upgrade(&mut self, now: Millis) -> bool {
        if let Some(arriving) = &mut self.arriving {
            arriving.stop = true;
            return true;
        }
        match &mut self.upgrading {
            Some(upgrading) if matches!(upgrading.step, Step::Leaving | Step::Gone) => {
                upgrading.stop = true;
                true
            }
            Some(_) => {
                self.end_upgrade(now, "the server stops");
                false
            }
            None => false,
        }
    }

    /// A stop at once.
    pub(super) fn drop_upgrade(&mut self) {
        if self.upgrading.take().is_some() {
            self.actions.push(Action::UpgradeFailed("the server stops".to_owned()));
        }
        if let Some(Arriving { adopted, dropped, .. }) = self.arriving.take() {
            let error = Some("the server stops".to_owned());
            self.actions.push(Action::Arrived(Arrival { error, adopted, dropped }));
        }
    }

    /// Whether a worker's wish to be replaced has to wait.
    pub(super) fn recycle_waits(&mut self, seat: Seat, generation: u32) -> bool {
        let Some(upgrading) = &mut self.upgrading else { return false };
        if !upgrading.recycles.contains(&(seat, generation)) {
            upgrading.recycles.push((seat, generation));
        }
        true
    }

    pub(super) fn note_arrived(&mut self, adopted: u64, dropped: u64) {
        if let Some(arriving) = &mut self.arriving {
            arriving.adopted += adopted;
            arriving.dropped += dropped;
        }
    }

    /// After the exec: over when every seat serves, or it takes too long.
    pub(super) fn go_on_with_arrival(&mut self, now: Millis) {
        let Some(arriving) = &self.arriving else { return };
        let serves = |state: &SeatState| {
            state.current.as_ref().is_some_and(|life| life.phase == Phase::Running)
        };
        let late = self.seats.iter().find(|(_, state)| !serves(state)).map(|(seat, _)| *seat);
        let error = match late {
            None => None,
            Some(seat) if now.since(arriving.since) >= ARRIVAL_MS => {
                Some(format!("the new program runs, but {seat} has not come up in {ARRIVAL_MS} ms"))
            }
            Some(_) => return,
        };
        if let Some(Arriving { adopted, dropped, stop, .. }) = self.arriving.take() {
            self.actions.push(Action::Arrived(Arrival { error, adopted, dropped }));
            if stop {
                self.actions.push(Action::BeginStop);
            }
        }
    }
}
