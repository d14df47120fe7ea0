//! How the master's mind brings a server to its end: workers first, whose last words may be tasks; then
//! task processes; then the others; and whoever is late is killed.

use super::{Action, STOP_MARGIN_MS, State};
use crate::clock::Millis;
use crate::ipc::pipe::Control;
use crate::master::seats::{Phase, Seat, SeatState};

/// The part of the stop's time, its last, in which nobody is told any more and what was said is sent.
const FLUSHING_SHARE: u64 = 5;
/// How often a worker is started while the server stops, to say goodbye for one that died.
const FAREWELLS: u32 = 2;

impl State {
    pub(super) fn stop(&mut self, now: Millis) {
        if self.stopping.is_some() || self.stop_waits_for_upgrade(now) {
            return;
        }
        self.stopping = Some(now + self.patience.stop_ms);
        self.end_reload_for_stop();
        for (seat, state) in &mut self.seats {
            state.respawn_at = None;
            // A sibling says goodbye for the slot it stands in for, too.
            let spoken_for = state.current.is_some() || state.sibling.is_some();
            if let Some(mut life) = state.successor.take_if(|_| spoken_for || seat.is_process()) {
                self.actions.push(Action::Kill(*seat, life.generation));
                life.enter(Phase::Leaving, now);
                state.leaving.push(life);
            }
            if let Some(life) = &mut state.current
                && life.phase == Phase::AskedToRest
            {
                // It may rest already: then it has nothing to say goodbye with until it goes on.
                self.actions.push(Action::Tell(*seat, life.generation, Control::Resume));
                life.enter(Phase::Running, now);
            }
        }
        self.tell_stop(now);
    }

    /// Tells the next kind of process to stop: workers first, whose last words may be tasks; then task
    /// processes; then the others.
    pub(super) fn tell_stop(&mut self, now: Millis) {
        let Some(until) = self.stopping else { return };
        let (timeout_ms, tell_ms) = self.stop_times(until, now);
        for kind in [Seat::is_worker, Seat::is_task, Seat::is_process] {
            let mut any = false;
            for (seat, state) in self.seats.iter_mut().filter(|(seat, _)| kind(seat)) {
                // One that has not begun yet is to say goodbye for one that died.
                any |= !state.leaving.is_empty() || state.successor.is_some();
                let Some(life) = &mut state.current else { continue };
                any = true;
                if life.phase != Phase::Leaving {
                    life.enter(Phase::Leaving, now);
                    let stop = Control::Stop { timeout_ms, tell_ms };
                    self.actions.push(Action::Tell(*seat, life.generation, stop));
                }
            }
            if any {
                return;
            }
        }
        self.actions.push(Action::AllGone);
    }

    /// How long a process may take to leave, and a worker to tell its clients.
    fn stop_times(&self, until: Millis, now: Millis) -> (u64, u64) {
        let whole_ms = self.patience.stop_ms;
        let (margin, flushing) = (STOP_MARGIN_MS.min(whole_ms / 10), whole_ms / FLUSHING_SHARE);
        let left_ms = until.since(now);
        (left_ms.saturating_sub(margin), left_ms.saturating_sub(flushing))
    }

    /// When whoever is left is killed; `None`: the server does not stop.
    pub(in crate::master) fn stop_until(&self) -> Option<Millis> {
        self.stopping
    }

    /// Connections lie in a worker's seat; if nobody serves them when the server stops, somebody is to say
    /// goodbye to them.
    pub(in crate::master) fn note_orphans(&mut self, seat: Seat, orphaned: bool) {
        if let Some(state) = self.seats.get_mut(&seat) {
            state.orphaned = orphaned;
        }
    }

    /// Starts a worker that adopts what a dead one left and says goodbye to it, if that is worth it; and, as
    /// long as there are workers, whose last words may be tasks, a task process where there is none.
    pub(super) fn say_goodbye_for_the_dead(&mut self, now: Millis) {
        let Some(until) = self.stopping else { return };
        if self.stop_times(until, now).0 == 0 {
            return;
        }
        let lives = |state: &SeatState| state.current.is_some() || state.successor.is_some();
        let workers = self.seats.iter().any(|(seat, state)| seat.is_worker() && lives(state));
        let wanted = |seat: &Seat, state: &SeatState| {
            let wanted = match seat {
                Seat::Worker(_) => state.orphaned && state.sibling.is_none(),
                Seat::Task(_) => workers,
                Seat::Process(_) => false,
            };
            wanted && state.farewells < FAREWELLS && !lives(state)
        };
        let seats = self.seats.iter().filter(|(seat, state)| wanted(seat, state));
        let seats: Vec<Seat> = seats.map(|(seat, _)| *seat).collect();
        for seat in seats {
            if let Some(state) = self.seats.get_mut(&seat) {
                state.orphaned = false;
                state.farewells += 1;
            }
            self.spawn(seat, now);
        }
    }

    fn end_reload_for_stop(&mut self) {
        if let Some(mut reload) = self.reload.take() {
            reload.outcome.error = Some("the server stops".to_owned());
            self.actions.push(Action::ReloadDone(reload.outcome));
        }
    }

    pub(super) fn stop_now(&mut self) {
        // No time is left for anything.
        self.stopping = Some(Millis(0));
        self.drop_upgrade();
        self.end_reload_for_stop();
        for (seat, state) in &self.seats {
            for generation in state.generations() {
                self.actions.push(Action::Kill(*seat, generation));
            }
        }
    }
}
