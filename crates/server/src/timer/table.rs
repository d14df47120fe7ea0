//! Armed timers in shared memory, so that neither the timer process's death nor a worker's forgets
//! one.
//!
//! Knows no clock and no process. One row per timer: a state word with a generation, then slot, due,
//! period and payload. Invariants: 1. A row is claimed by one compare-and-swap from FREE; whoever dies
//! between claim and `ARMED` leaves a row that [`TimerTable::recover`] frees. 2. A row in state ARMED
//! is complete. 3. Only who swaps the state word away from ARMED may free or fire it.

use crate::clock::Millis;
use crate::ids::{SlotId, TimerId};
use crate::packed;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest payload of a timer, in bytes.
pub const PAYLOAD_MAX: usize = 256;

const PAYLOAD_WORDS: usize = PAYLOAD_MAX / 8;
/// State, slot, due, period, payload length, payload; padded to whole cache lines.
pub(super) const ROW_WORDS: usize = 40;

const STATE: usize = 0;
const SLOT: usize = 1;
const DUE: usize = 2;
const PERIOD: usize = 3;
const LENGTH: usize = 4;
const PAYLOAD: usize = 5;

const FREE: u64 = 0;
const FILLING: u64 = 1;
const ARMED: u64 = 2;
/// A one-shot timer that was reported and waits for its worker to run it.
const REPORTED: u64 = 3;

/// An armed timer, copied out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArmedTimer {
    /// Its id.
    pub id: TimerId,
    /// The slot that armed it.
    pub slot: SlotId,
    /// When it is due next.
    pub due: Millis,
    /// Its period; 0: once.
    pub period_ms: u64,
}

/// The timer table.
#[derive(Clone, Copy, Debug)]
pub struct TimerTable {
    words: &'static [AtomicU64],
}

impl TimerTable {
    /// Words needed for so many timers.
    #[must_use]
    pub fn words_needed(timers: usize) -> usize {
        timers * ROW_WORDS
    }

    /// A table over zeroed words.
    #[must_use]
    pub fn new(words: &'static [AtomicU64]) -> Self {
        Self { words }
    }

    /// How many timers it holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.words.len() / ROW_WORDS
    }

    /// Arms a timer. `None`: the table is full. The caller has checked the payload's length.
    #[must_use]
    pub fn arm(
        &self,
        slot: SlotId,
        due: Millis,
        period_ms: u64,
        payload: &[u8],
    ) -> Option<TimerId> {
        let payload = &payload[..payload.len().min(PAYLOAD_MAX)];
        for index in 0..self.capacity() {
            let row = self.row(index);
            let state = row[STATE].load(Ordering::Relaxed);
            if state & 0xff != FREE {
                continue;
            }
            let generation = (state >> 32).wrapping_add(1) & 0xffff_ffff;
            let filling = generation << 32 | u64::from(slot.0) << 8 | FILLING;
            if row[STATE]
                .compare_exchange(state, filling, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
            {
                continue;
            }
            row[SLOT].store(u64::from(slot.0), Ordering::Relaxed);
            row[DUE].store(due.0, Ordering::Relaxed);
            row[PERIOD].store(period_ms, Ordering::Relaxed);
            write_payload(row, payload);
            // Release: who sees ARMED sees the row.
            row[STATE].store(generation << 32 | ARMED, Ordering::Release);
            return Some(id(index, generation));
        }
        None
    }

    /// Disarms a timer. False if it is not armed (any more).
    pub fn clear(&self, timer: TimerId) -> bool {
        self.leave(timer, ARMED, FREE) || self.leave(timer, REPORTED, FREE)
    }

    /// Worker: takes a reported timer in hand to run it. Gives its payload; a one-shot timer is free
    /// afterwards. `None` if it was cleared, or is not of this slot, or was already taken.
    #[must_use]
    pub fn take(&self, timer: TimerId, slot: SlotId) -> Option<Vec<u8>> {
        let row = self.row_of(timer)?;
        let payload = self.read_armed(timer, slot)?;
        if row[PERIOD].load(Ordering::Relaxed) == 0 && !self.leave(timer, REPORTED, FREE) {
            return None;
        }
        Some(payload)
    }

    /// Timer process: all armed timers that are not reported.
    pub fn armed(&self) -> impl Iterator<Item = ArmedTimer> + '_ {
        (0..self.capacity()).filter_map(|index| {
            let row = self.row(index);
            let state = row[STATE].load(Ordering::Acquire);
            if state & 0xff != ARMED {
                return None;
            }
            Some(ArmedTimer {
                id: id(index, state >> 32),
                slot: SlotId(u16::try_from(row[SLOT].load(Ordering::Relaxed)).unwrap_or(0)),
                due: Millis(row[DUE].load(Ordering::Relaxed)),
                period_ms: row[PERIOD].load(Ordering::Relaxed),
            })
        })
    }

    /// Timer process: after a due timer was posted. A one-shot timer waits for its worker; a periodic
    /// one is due next at the first multiple of its period after `now`.
    pub fn reported(&self, timer: &ArmedTimer, now: Millis) {
        if timer.period_ms == 0 {
            self.leave(timer.id, ARMED, REPORTED);
        } else if let Some(row) = self.row_of(timer.id) {
            let next = timer.due + missed(timer, now) * timer.period_ms;
            row[DUE].store(next.0, Ordering::Relaxed);
        }
    }

    /// Master: frees rows whose arming process, of the given slot, died in between.
    pub fn recover(&self, slot: SlotId) -> usize {
        (0..self.capacity())
            .filter(|index| {
                let row = self.row(*index);
                let state = row[STATE].load(Ordering::Acquire);
                state & 0xff == FILLING
                    && state >> 8 & 0xffff == u64::from(slot.0)
                    && row[STATE]
                        .compare_exchange(
                            state,
                            state >> 32 << 32 | FREE,
                            Ordering::Release,
                            Ordering::Relaxed,
                        )
                        .is_ok()
            })
            .count()
    }

    /// Master: after a worker's death, arms again what was reported to it and may have died in its
    /// hands. A report that is still in the mailbox runs it; the second finds it taken.
    pub fn rearm(&self, slot: SlotId) {
        for index in 0..self.capacity() {
            let row = self.row(index);
            let state = row[STATE].load(Ordering::Acquire);
            if state & 0xff == REPORTED && row[SLOT].load(Ordering::Relaxed) == u64::from(slot.0) {
                self.leave(id(index, state >> 32), REPORTED, ARMED);
            }
        }
    }

    fn read_armed(&self, timer: TimerId, slot: SlotId) -> Option<Vec<u8>> {
        let row = self.row_of(timer)?;
        let before = row[STATE].load(Ordering::Acquire);
        let armed = matches!(before & 0xff, ARMED | REPORTED) && before >> 32 == timer.0 >> 32;
        if !armed || row[SLOT].load(Ordering::Relaxed) != u64::from(slot.0) {
            return None;
        }
        Some(read_payload(row))
    }

    fn leave(&self, timer: TimerId, from: u64, to: u64) -> bool {
        let generation = timer.0 >> 32;
        self.row_of(timer).is_some_and(|row| {
            row[STATE]
                .compare_exchange(
                    generation << 32 | from,
                    generation << 32 | to,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
        })
    }

    fn row_of(&self, timer: TimerId) -> Option<&'static [AtomicU64]> {
        let index = usize::try_from(timer.0 & 0xffff_ffff).ok()?;
        (index < self.capacity()).then(|| self.row(index))
    }

    fn row(&self, index: usize) -> &'static [AtomicU64] {
        &self.words[index * ROW_WORDS..(index + 1) * ROW_WORDS]
    }
}

/// How many periods are over at `now`: the ticks that one report stands for.
pub(crate) fn missed(timer: &ArmedTimer, now: Millis) -> u64 {
    now.since(timer.due).checked_div(timer.period_ms).map_or(1, |missed| missed + 1)
}

fn id(index: usize, generation: u64) -> TimerId {
    TimerId(generation << 32 | u64::try_from(index).unwrap_or(u64::MAX) & 0xffff_ffff)
}

fn write_payload(row: &[AtomicU64], payload: &[u8]) {
    row[LENGTH].store(u64::try_from(payload.len()).unwrap_or(0), Ordering::Relaxed);
    packed::store(&row[PAYLOAD..PAYLOAD + PAYLOAD_WORDS], payload);
}

fn read_payload(row: &[AtomicU64]) -> Vec<u8> {
    let length = usize::try_from(row[LENGTH].load(Ordering::Relaxed)).unwrap_or(0).min(PAYLOAD_MAX);
    packed::load(&row[PAYLOAD..PAYLOAD + PAYLOAD_WORDS], length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(timers: usize) -> TimerTable {
        let words = TimerTable::words_needed(timers);
        TimerTable::new(Box::leak((0..words).map(|_| AtomicU64::new(0)).collect()))
    }

    const SLOT_1: SlotId = SlotId(1);

    #[test]
    fn a_one_shot_timer_is_reported_taken_once_and_free_again() {
        let table = table(1);
        let id = table.arm(SLOT_1, Millis(10), 0, b"tea").expect("free");
        assert_eq!(table.arm(SLOT_1, Millis(10), 0, b""), None, "full");
        let armed: Vec<_> = table.armed().collect();
        assert_eq!(armed.len(), 1);
        table.reported(&armed[0], Millis(11));
        assert_eq!(table.armed().count(), 0, "reported once");
        assert_eq!(table.take(id, SlotId(0)), None, "another slot's");
        assert_eq!(table.take(id, SLOT_1).as_deref(), Some(&b"tea"[..]));
        assert_eq!(table.take(id, SLOT_1), None, "taken once");
        let again = table.arm(SLOT_1, Millis(20), 0, b"").expect("free again");
        assert_ne!(again, id, "a stale id never names a new timer");
        assert!(!table.clear(id));
        assert!(table.clear(again));
    }

    #[test]
    fn a_report_that_died_with_its_worker_is_made_again_and_runs_once() {
        let table = table(1);
        let id = table.arm(SLOT_1, Millis(10), 0, b"tea").expect("free");
        let armed: Vec<_> = table.armed().collect();
        table.reported(&armed[0], Millis(10));
        table.rearm(SLOT_1);
        table.reported(&table.armed().next().expect("armed again"), Millis(11));
        assert!(table.take(id, SLOT_1).is_some());
        assert!(table.take(id, SLOT_1).is_none());
    }

    #[test]
    fn a_tick_does_not_drift_and_counts_what_it_missed() {
        let table = table(2);
        let id = table.arm(SLOT_1, Millis(100), 100, &[7; PAYLOAD_MAX]).expect("free");
        let due = table.armed().next().expect("armed");
        assert_eq!(missed(&due, Millis(100)), 1);
        assert_eq!(missed(&due, Millis(350)), 3);
        table.reported(&due, Millis(350));
        assert_eq!(table.armed().next().expect("still armed").due, Millis(400));
        assert_eq!(table.take(id, SLOT_1), Some(vec![7; PAYLOAD_MAX]));
        assert!(table.clear(id));
    }

    #[test]
    fn a_row_whose_writer_died_is_freed_by_the_master() {
        let table = table(1);
        table.row(0)[STATE].store(5 << 32 | 1 << 8 | FILLING, Ordering::Relaxed);
        assert_eq!(table.arm(SLOT_1, Millis(1), 0, b""), None);
        assert_eq!(table.recover(SlotId(2)), 0);
        assert_eq!(table.recover(SLOT_1), 1);
        assert!(table.arm(SLOT_1, Millis(1), 0, b"").is_some());
    }
}
