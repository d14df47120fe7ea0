//! A stop as the master sees it: doors that are shut, connections that a dead worker left, progress.
//!
//! Knows the figures of the workers; who is told when is theirs to decide.

use super::seats::Seat;
use super::state::Input;
use super::{Master, supervisor};
use crate::app::App;
use crate::clock::{self, Millis};
use crate::ids::SlotId;
use crate::scoreboard::Cell;
use crate::sys::socket;
use serde_json::{Value as Json, json};
use tracing::info;

/// After this time the master shuts the doors of workers that have not done so themselves.
const DOORS_SHUT_MS: u64 = 1_000;
/// How often progress is logged.
const WORD_EVERY_MS: u64 = 1_000;

/// A stop under way.
#[derive(Debug)]
pub(super) struct Stopping {
    asked_at: Millis,
    asked_at_unix_ms: u64,
    doors_shut: bool,
    next_word: Millis,
}

/// How far a stop is.
struct Progress {
    total: u64,
    told: u64,
    left: u64,
}

impl<A: App> Master<A> {
    /// Begins to stop gracefully. Asked again: nothing changes.
    pub(super) fn begin_stop(&mut self) {
        if self.state.stop_waits_for_upgrade(self.now) {
            return;
        }
        if self.stopping.is_none() {
            self.stopping = Some(Stopping {
                asked_at: self.now,
                asked_at_unix_ms: clock::unix_ms(),
                doors_shut: false,
                next_word: self.now + WORD_EVERY_MS,
            });
            info!(timeout_ms = self.config.stop_timeout_ms, "stopping");
            supervisor::tell(supervisor::Word::Stopping, "stopping");
            self.note_unserved();
        }
        self.input(Input::Stop);
    }

    /// Slots that nobody serves, no sibling either: connections may have been given to one since its worker
    /// died.
    pub(super) fn note_unserved(&mut self) {
        for slot in 0..self.config.workers {
            if !self.state.is_served(Seat::Worker(slot)) {
                self.note_orphans(slot);
            }
        }
    }

    /// A slot's worker is gone while the server stops: its door is shut, and whether its connections are
    /// still open is noted. To be called before the state hears of the death.
    pub(super) fn note_orphans(&mut self, slot: u16) {
        if self.stopping.is_none() {
            return;
        }
        self.shut_door(slot);
        let orphaned = self.shared.sessions.owned_by(SlotId(slot)).next().is_some();
        self.state.note_orphans(Seat::Worker(slot), orphaned);
    }

    /// With each turn of the loop.
    pub(super) fn go_on_stopping(&mut self) {
        let now = self.now;
        let Some(stopping) = &mut self.stopping else { return };
        let shut = !stopping.doors_shut && now.since(stopping.asked_at) >= DOORS_SHUT_MS;
        stopping.doors_shut |= shut;
        let speak = now >= stopping.next_word;
        if speak {
            stopping.next_word = now + WORD_EVERY_MS;
        }
        if shut {
            (0..self.config.workers).for_each(|slot| self.shut_door(slot));
        }
        if speak {
            let Progress { total, told, left } = self.stop_progress();
            info!(told, of = total, connections_left = left, "stopping");
        }
    }

    /// The status object's `stopping`.
    pub(super) fn stopping_status(&self) -> Json {
        let (Some(stopping), Some(until)) = (&self.stopping, self.state.stop_until()) else {
            return Json::Null;
        };
        let Progress { total, told, left } = self.stop_progress();
        let until_unix_ms = stopping.asked_at_unix_ms + until.since(stopping.asked_at);
        json!({
            "asked_at": clock::rfc3339(stopping.asked_at_unix_ms),
            "until": clock::rfc3339(until_unix_ms),
            "left_ms": until.since(self.now),
            "total": total,
            "told": told,
            "left": left,
        })
    }

    fn stop_progress(&self) -> Progress {
        let board = &self.shared.scoreboard;
        Progress {
            total: board.worker_sum(Cell::StopTotal),
            told: board.worker_sum(Cell::StopTold),
            left: board.worker_sum(Cell::Connections),
        }
    }

    fn shut_door(&self, slot: u16) {
        for listener in &self.wiring.listeners[usize::from(slot)] {
            socket::stop_listening(*listener);
        }
    }
}
