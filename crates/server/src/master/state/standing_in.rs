//! How the master's mind has a slot served whose worker does not come up: by the worker of another slot,
//! a *sibling*, until the slot's own is prepared.
//!
//! The sibling takes up the slot's connections, reads its mailbox and accepts from its listeners; it gives
//! all of it back as one that rests does.
//! Invariants: 1. A slot's mailbox has one reader at most: its owner or one sibling. From the moment that a
//! sibling is told to stand in until it says that it stood down, or is dead, nobody else is given the slot.
//! 2. A worker stands in for one slot at most. 3. What a sibling has left for the slot is given to whoever
//! is next, once.

use super::{Action, State};
use crate::clock::Millis;
use crate::ipc::pipe::{Control, WireAdoption};
use crate::master::seats::{AtRest, Phase, Seat, SeatState};

/// How long a slot waits for a worker of its own.
const PATIENCE_MS: u64 = 300;

/// Who stands in for a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::master) struct Sibling {
    pub(in crate::master) seat: Seat,
    pub(in crate::master) generation: u32,
    /// It was told to give the slot back.
    pub(in crate::master) asked_down: bool,
}

impl State {
    /// Whether the worker of some slot serves another's, too.
    pub(in crate::master) fn someone_stands_in(&self) -> bool {
        self.seats.values().any(|state| state.sibling.is_some())
    }

    /// The slots that the worker of a seat stands in for.
    pub(in crate::master) fn stood_in_by(&self, sibling: Seat) -> Vec<u16> {
        let by = |state: &SeatState| state.sibling.is_some_and(|one| one.seat == sibling);
        self.seats.iter().filter(|(_, state)| by(state)).map(|(seat, _)| seat.place()).collect()
    }

    /// Finds a sibling for each slot that has waited for long.
    pub(super) fn stand_in_where_due(&mut self, now: Millis) {
        if !self.was_ready {
            return;
        }
        let due: Vec<Seat> = self
            .seats
            .iter()
            .filter(|(seat, state)| {
                let waits = state.unserved_since.is_some_and(|at| now.since(at) >= PATIENCE_MS);
                let soon =
                    state.successor.as_ref().is_some_and(|life| life.phase == Phase::Prepared);
                let served = state.current.is_some() || state.sibling.is_some();
                seat.is_worker() && waits && !soon && !served && self.may_start(**seat)
            })
            .map(|(seat, _)| *seat)
            .collect();
        for seat in due {
            let Some((sibling, generation)) = self.sibling_for(seat) else { continue };
            let Some(state) = self.seats.get_mut(&seat) else { continue };
            let (rest, why) = taken(state.left.take());
            state.sibling = Some(Sibling { seat: sibling, generation, asked_down: false });
            let message = Control::StandIn { slot: seat.place(), rest, why };
            self.actions.push(Action::Tell(sibling, generation, message));
        }
    }

    /// The next worker, in a circle, that serves, is not about to be replaced, and stands in for nobody.
    fn sibling_for(&self, seat: Seat) -> Option<(Seat, u32)> {
        let busy = |other: Seat| {
            self.seats.values().any(|state| state.sibling.is_some_and(|one| one.seat == other))
        };
        let (before, after): (Vec<Seat>, Vec<Seat>) =
            self.seats.keys().filter(|other| other.is_worker()).partition(|other| **other <= seat);
        after.into_iter().chain(before).filter(|other| *other != seat && !busy(*other)).find_map(
            |other| {
                let life = self.seats.get(&other)?.current.as_ref()?;
                (life.phase == Phase::Running).then_some((other, life.generation))
            },
        )
    }

    /// Tells whoever stands in for a slot to give it back. False: nobody does.
    pub(super) fn ask_to_stand_down(&mut self, seat: Seat) -> bool {
        let Some(sibling) = self.seats.get_mut(&seat).and_then(|state| state.sibling.as_mut())
        else {
            return false;
        };
        if !std::mem::replace(&mut sibling.asked_down, true) {
            let message = Control::StandDown { slot: seat.place() };
            self.actions.push(Action::Tell(sibling.seat, sibling.generation, message));
        }
        true
    }

    /// Who is about to rest gives back what is not its own first.
    pub(super) fn end_duty_of(&mut self, sibling: Seat) {
        let slots = self
            .seats
            .iter()
            .filter(|(_, state)| state.sibling.is_some_and(|one| one.seat == sibling));
        let slots: Vec<Seat> = slots.map(|(seat, _)| *seat).collect();
        for seat in slots {
            self.ask_to_stand_down(seat);
        }
    }

    /// A sibling has given a slot back, or could not take it, and left this.
    pub(super) fn stood_down(
        &mut self,
        now: Millis,
        seat: Seat,
        generation: u32,
        slot: u16,
        rest: Option<i32>,
    ) {
        let given = Seat::Worker(slot);
        let Some(state) = self.seats.get_mut(&given) else { return };
        let by = |one: &mut Sibling| one.seat == seat && one.generation == generation;
        if state.sibling.take_if(by).is_none() {
            return;
        }
        state.left = Some(AtRest { memfd: rest });
        if state.successor.as_ref().is_some_and(|life| life.phase == Phase::Prepared) {
            self.take_unowned(now, given);
        }
    }

    /// The successor of a slot without an owner is prepared: it has the slot, or whoever stands in gives it
    /// back first.
    pub(super) fn take_unowned(&mut self, now: Millis, seat: Seat) {
        if self.ask_to_stand_down(seat) {
            return;
        }
        let left = self.seats.get_mut(&seat).and_then(|state| state.left.take());
        let (rest, why) = taken(left);
        self.commit(now, seat, rest, why);
    }

    /// A worker is dead: whatever slot it stood in for has died with it.
    pub(super) fn sibling_ended(&mut self, now: Millis, sibling: Seat, generation: u32) {
        let mut prepared = Vec::new();
        for (seat, state) in &mut self.seats {
            let by = |one: &mut Sibling| one.seat == sibling && one.generation == generation;
            if state.sibling.take_if(by).is_none() {
                continue;
            }
            // Not whom it was to give the slot back to: that one lives.
            let next = state.successor.as_ref().map(|life| life.generation);
            let dead = next.map_or(state.generation, |next| next.saturating_sub(1));
            self.actions.push(Action::MarkLost(*seat, dead));
            if state.successor.as_ref().is_some_and(|life| life.phase == Phase::Prepared) {
                prepared.push(*seat);
            }
        }
        if self.stopping.is_none() {
            prepared.into_iter().for_each(|seat| self.take_unowned(now, seat));
        }
    }
}

/// What whoever takes a slot is given: where a sibling has laid it down in order, nothing has died.
fn taken(left: Option<AtRest>) -> (Option<i32>, WireAdoption) {
    match left {
        Some(left) => (left.memfd, WireAdoption::GivenBack),
        None => (None, WireAdoption::Crash),
    }
}
