//! Seats, the places in the process table, and the lives in them.

use super::state::Sibling;
use crate::clock::Millis;
use crate::scoreboard::{ProcessRow, Scoreboard};
use crate::sessions::Writer;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::fd::RawFd;

/// A life shorter than this counts for the delay of the next start; a longer one ends the row. Whoever
/// dies later has served meanwhile, and starting anew at once costs less than not serving.
const SHORT_LIFE_MS: u64 = 250;
/// The delay after the second short life in a row; it doubles with each further one.
const DELAY_MS: u64 = 50;
/// The longest delay.
const DELAY_MAX_MS: u64 = 1_000;

/// A place in the process table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(super) enum Seat {
    /// A worker slot.
    Worker(u16),
    /// A task process, by its place.
    Task(u16),
    /// An added process, by its place; 0 is the timer process.
    Process(u16),
}

impl Seat {
    pub(super) fn is_worker(&self) -> bool {
        matches!(self, Self::Worker(_))
    }

    pub(super) fn is_task(&self) -> bool {
        matches!(self, Self::Task(_))
    }

    pub(super) fn is_process(&self) -> bool {
        matches!(self, Self::Process(_))
    }

    /// As whom a process in this seat writes rows.
    pub(super) fn writer(self, generation: u32) -> Writer {
        match self {
            Self::Worker(slot) => Writer::Worker(slot, generation),
            Self::Task(place) => Writer::Task(place, generation),
            Self::Process(place) => Writer::Process(place, generation),
        }
    }

    /// The seat's row of figures.
    pub(super) fn row(self, board: &Scoreboard) -> ProcessRow {
        match self {
            Self::Worker(slot) => board.worker(usize::from(slot)),
            Self::Task(place) => board.task(usize::from(place)),
            Self::Process(place) => board.process(usize::from(place)),
        }
    }

    pub(super) fn place(self) -> u16 {
        match self {
            Self::Worker(place) | Self::Task(place) | Self::Process(place) => place,
        }
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(slot) => write!(f, "worker {slot}"),
            Self::Task(place) => write!(f, "task process {place}"),
            Self::Process(place) => write!(f, "added process {place}"),
        }
    }
}

/// Where a life is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Started.
    Starting,
    /// Its `worker_start` is done; the seat is another's still.
    Prepared,
    /// The seat is its own; it is taking over.
    Adopting,
    /// It serves.
    Running,
    /// It serves, or rests already, for a successor.
    AskedToRest,
    /// It was told to go.
    Leaving,
}

/// One process in a seat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Life {
    pub(super) generation: u32,
    pub(super) phase: Phase,
    /// Since when it is in this phase.
    pub(super) since: Millis,
}

impl Life {
    pub(super) fn new(generation: u32, phase: Phase, since: Millis) -> Self {
        Self { generation, phase, since }
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Millis) {
        self.phase = phase;
        self.since = now;
    }
}

/// What a worker at rest left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct AtRest {
    /// The memfd with what does not lie in shared memory, if there is any.
    pub(super) memfd: Option<RawFd>,
}

/// A seat and who is in it.
#[derive(Debug, Default)]
pub(super) struct SeatState {
    /// The last generation given.
    pub(super) generation: u32,
    /// Whose the seat is.
    pub(super) current: Option<Life>,
    /// Who is to have it next.
    pub(super) successor: Option<Life>,
    /// Who had it and has not ended yet.
    pub(super) leaving: Vec<Life>,
    /// What the last owner, or a sibling, left for whoever is next; `None`: it did not rest.
    pub(super) left: Option<AtRest>,
    /// When the next start is due after a death.
    pub(super) respawn_at: Option<Millis>,
    /// How often a dead process was replaced.
    pub(super) restarts: u64,
    /// Since when it has had no worker that is ready.
    pub(super) unserved_since: Option<Millis>,
    /// Who stands in for it meanwhile.
    pub(super) sibling: Option<Sibling>,
    /// Deaths in a row in the middle of an adoption.
    pub(super) adoption_deaths: u32,
    /// The death that comes is put down to one connection, not to the adoption as a whole.
    pub(super) blamed: bool,
    /// Its connections are open, and nobody serves them: noted while the server stops.
    pub(super) orphaned: bool,
    /// Workers started while the server stops.
    pub(super) farewells: u32,
    /// Short lives in a row.
    short_lives: u32,
    /// When the last process was started.
    pub(super) started_at: Millis,
}

impl SeatState {
    pub(super) fn successor_of(&mut self, generation: u32) -> Option<&mut Life> {
        self.successor.as_mut().filter(|life| life.generation == generation)
    }

    /// Whether no process is in it, nor on its way in or out.
    pub(super) fn is_empty(&self) -> bool {
        self.current.is_none() && self.successor.is_none() && self.leaving.is_empty()
    }

    /// Every generation that has not ended.
    pub(super) fn generations(&self) -> Vec<u32> {
        self.current
            .iter()
            .chain(&self.successor)
            .chain(&self.leaving)
            .map(|life| life.generation)
            .collect()
    }

    /// Notes a death and when the next start is due: at once, or later with each further short life
    /// in a row.
    /// A life that never served is a short one.
    pub(super) fn note_death(&mut self, now: Millis, served: bool) {
        let short = !served || now.since(self.started_at) < SHORT_LIFE_MS;
        self.short_lives = if short { self.short_lives + 1 } else { 0 };
        self.respawn_at = Some(now + self.delay_ms());
    }

    /// Whether it dies again and again.
    pub(super) fn is_crash_looping(&self) -> bool {
        self.respawn_at.is_some() && self.delay_ms() > 0
    }

    fn delay_ms(&self) -> u64 {
        match self.short_lives {
            0 | 1 => 0,
            lives => (DELAY_MS << (lives - 2).min(10)).min(DELAY_MAX_MS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_with_short_lives_in_a_row_and_is_forgotten() {
        let mut seat = SeatState::default();
        let mut delays = Vec::new();
        for _ in 0..8 {
            seat.started_at = Millis(100);
            seat.note_death(Millis(200), true);
            delays.push(seat.respawn_at.expect("due").0 - 200);
        }
        assert_eq!(delays, [0, 50, 100, 200, 400, 800, 1000, 1000]);
        assert!(seat.is_crash_looping());
        seat.note_death(Millis(100 + SHORT_LIFE_MS), true);
        assert_eq!(seat.respawn_at, Some(Millis(100 + SHORT_LIFE_MS)), "at once");
        assert!(!seat.is_crash_looping());
        for _ in 0..2 {
            seat.note_death(Millis(1_000_000), false);
        }
        assert!(seat.is_crash_looping(), "however long it took to fail");
    }
}
