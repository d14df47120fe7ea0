//! How the master's mind brings a server to its end: workers first, whose last words may be tasks; then
//! task processes; then the others; and whoever is late is killed.

use super::{Action, STOP_MARGIN_MS, State};
use crate::clock::Millis;
use crate::ipc::pipe::Control;
use crate::master::seats::{Phase, Seat};

impl State {
    pub(super) fn stop(&mut self, now: Millis) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now + self.patience.stop_ms);
        self.end_reload_for_stop();
        for (seat, state) in &mut self.seats {
            state.respawn_at = None;
            if let Some(mut life) = state.successor.take() {
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
        let timeout_ms = until.since(now).saturating_sub(STOP_MARGIN_MS);
        for kind in [Seat::is_worker, Seat::is_task, Seat::is_process] {
            let mut any = false;
            for (seat, state) in self.seats.iter_mut().filter(|(seat, _)| kind(seat)) {
                any |= !state.leaving.is_empty();
                let Some(life) = &mut state.current else { continue };
                any = true;
                if life.phase != Phase::Leaving {
                    life.enter(Phase::Leaving, now);
                    let stop = Control::Stop { timeout_ms };
                    self.actions.push(Action::Tell(*seat, life.generation, stop));
                }
            }
            if any {
                return;
            }
        }
        self.actions.push(Action::AllGone);
    }

    fn end_reload_for_stop(&mut self) {
        if let Some(mut reload) = self.reload.take() {
            reload.outcome.error = Some("the server stops".to_owned());
            self.actions.push(Action::ReloadDone(reload.outcome));
        }
    }

    pub(super) fn stop_now(&mut self) {
        self.stopping.get_or_insert(Millis(0));
        self.end_reload_for_stop();
        for (seat, state) in &self.seats {
            for generation in state.generations() {
                self.actions.push(Action::Kill(*seat, generation));
            }
        }
    }
}
