//! How the master's mind replaces seats in their turn, and what comes of it.
//!
//! Invariant: at most one seat is under way. A seat whose process was started with the old config is
//! waited for, not left out.

use super::{Action, State};
use crate::clock::Millis;
use crate::ipc::pipe::Control;
use crate::master::seats::{Phase, Seat};
use std::collections::VecDeque;

/// How a reload ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::master) struct Outcome {
    pub(in crate::master) error: Option<String>,
    pub(in crate::master) adopted: u64,
    pub(in crate::master) dropped: u64,
    /// It was asked for by people, not by a worker that is to be recycled.
    pub(in crate::master) by_request: bool,
    /// Seats that had been replaced when it ended.
    pub(in crate::master) replaced: Vec<Seat>,
}

#[derive(Debug)]
pub(super) struct Reload {
    pub(super) queue: VecDeque<Seat>,
    pub(super) under_way: Option<Seat>,
    pub(super) outcome: Outcome,
}

impl State {
    /// Begins a reload, or notes that one more is to follow. The master puts off what is asked for during
    /// an upgrade.
    pub(super) fn ask_reload(&mut self, tasks_only: bool) {
        if self.stopping.is_some() || self.is_upgrading() {
            return;
        }
        if self.is_reloading() {
            self.again = Some(tasks_only && self.again.unwrap_or(true));
            return;
        }
        let wanted = |seat: &Seat| !tasks_only || matches!(seat, Seat::Task(_));
        let queue = self.seats.keys().copied().filter(wanted).collect();
        self.begin_reload_of(queue);
    }

    /// Begins a reload of one worker, unless there is something else under way that people asked for.
    pub(super) fn ask_worker_reload(&mut self, slot: u16) {
        if self.stopping.is_none() && !self.is_upgrading() && !self.is_reloading() {
            self.begin_reload_of(VecDeque::from([Seat::Worker(slot)]));
        }
    }

    fn begin_reload_of(&mut self, queue: VecDeque<Seat>) {
        let outcome = Outcome { by_request: true, ..Outcome::default() };
        match &mut self.reload {
            // A worker is being recycled: the rest follows.
            Some(reload) => {
                let recycled = std::mem::replace(&mut reload.queue, queue);
                let left_out = recycled.into_iter().filter(|seat| !reload.queue.contains(seat));
                let left_out: Vec<Seat> = left_out.collect();
                reload.queue.extend(left_out);
                reload.outcome = outcome;
            }
            None => self.reload = Some(Reload { queue, under_way: None, outcome }),
        }
    }

    /// Whether a reload that was asked for meanwhile is to follow, and of the task processes only.
    pub(in crate::master) fn take_again(&mut self) -> Option<bool> {
        self.again.take()
    }

    pub(super) fn recycle(&mut self, seat: Seat, generation: u32) {
        let serves = self.seats.get(&seat).is_some_and(|state| {
            state.current.as_ref().is_some_and(|life| life.generation == generation)
        });
        if !serves || self.stopping.is_some() || self.recycle_waits(seat, generation) {
            return;
        }
        match &mut self.reload {
            Some(reload) if reload.queue.contains(&seat) || reload.under_way == Some(seat) => {}
            Some(reload) => reload.queue.push_back(seat),
            None => {
                let queue = VecDeque::from([seat]);
                let outcome = Outcome::default();
                self.reload = Some(Reload { queue, under_way: None, outcome });
            }
        }
    }

    pub(super) fn handed_over(&mut self, seat: Seat, adopted: u64, dropped: u64) {
        self.note_arrived(adopted, dropped);
        if let Some(reload) = &mut self.reload
            && reload.under_way == Some(seat)
        {
            reload.under_way = None;
            reload.outcome.replaced.push(seat);
            reload.outcome.adopted += adopted;
            reload.outcome.dropped += dropped;
        }
    }

    pub(super) fn fail_reload(&mut self, seat: Seat, sentence: &str) {
        let Some(reload) = &mut self.reload else { return };
        if reload.under_way != Some(seat) {
            return;
        }
        if !reload.outcome.by_request {
            // Only a recycling: its worker asks again, the others have their turn.
            reload.under_way = None;
            return;
        }
        if let Some(mut reload) = self.reload.take() {
            reload.outcome.error = Some(format!("{seat}: {sentence}; the old generation goes on"));
            self.actions.push(Action::ReloadDone(reload.outcome));
        }
    }

    pub(super) fn go_on_with_reload(&mut self, now: Millis) {
        loop {
            let Some(reload) = &mut self.reload else { return };
            if reload.under_way.is_some() {
                return;
            }
            let Some(seat) = reload.queue.pop_front() else {
                if let Some(reload) = self.reload.take() {
                    self.actions.push(Action::ReloadDone(reload.outcome));
                }
                return;
            };
            let Some(state) = self.seats.get_mut(&seat) else { continue };
            let life = match &mut state.current {
                Some(life) if life.phase == Phase::Running && state.successor.is_none() => life,
                // Not started yet: it will be with the new config.
                None if state.successor.is_none() => continue,
                _ => {
                    // Somebody with the old config is on the way: its turn comes when it is there.
                    reload.queue.push_back(seat);
                    return;
                }
            };
            reload.under_way = Some(seat);
            if seat.is_worker() {
                self.spawn(seat, now);
            } else {
                life.enter(Phase::Leaving, now);
                self.actions.push(Action::Tell(seat, life.generation, Control::Leave));
            }
        }
    }
}
