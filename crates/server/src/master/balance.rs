//! Which worker gives how many of its connections to which: decisions, no I/O.
//!
//! Knows how many sessions each slot serves and whether its worker is up; `now` is passed in. What a
//! worker cannot give away stays where it is, and is counted.
//! Invariants: 1. There is one order at a time, and none is given while the server is busy with
//! something else. 2. After an order whose giver or taker was replaced, or that left connections on their
//! way, none is given for [`QUIET_MS`]: two workers must not wait for each other's connections. 3. A job
//! ends, at the latest after [`JOB_MS`].

use crate::clock::Millis;

/// The most connections of one order.
const ORDER_MAX: u64 = 512;
/// What a worker may take for an order.
const ORDER_MS: u64 = 1_000;
/// How long nothing is ordered where connections may still be on their way: longer than a mailbox waits
/// for one.
const QUIET_MS: u64 = 2_000;
/// What a job may take.
const JOB_MS: u64 = 60_000;
/// How often connections are evened out by themselves, where they are.
const AUTOMATIC_EVERY_MS: u64 = 1_000;
/// The same after an order by which nothing went.
const AUTOMATIC_AGAIN_MS: u64 = 10_000;

/// From when on the server evens connections out by itself, and how fast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Thresholds {
    /// The spread between the fullest and the emptiest, in percent of the mean; 0: never.
    pub(super) percent: u32,
    /// The spread in connections.
    pub(super) connections: u64,
    /// Connections moved a second.
    pub(super) rate: u64,
}

/// What people ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Job {
    /// Even all slots out.
    Balance,
    /// Move what this slot has to the others.
    Drain(u16),
}

/// A slot, as the scoreboard shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlotView {
    /// The generation that serves, if one does.
    pub(super) serving: Option<u32>,
    pub(super) sessions: u64,
}

/// To a worker: give so many connections to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Order {
    pub(super) id: u32,
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) count: u32,
    pub(super) within_ms: u64,
}

/// What did not go, by why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Left {
    /// Plain HTTP.
    pub(super) http: u32,
    /// With output that its client has not taken.
    pub(super) unsent: u32,
    /// Others: busy, or closing.
    pub(super) other: u32,
}

/// A worker's word that an order is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Done {
    pub(super) id: u32,
    pub(super) moved: u32,
    /// May still go, when their homes answer.
    pub(super) pending: u32,
    pub(super) left: Left,
}

/// How a job ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    pub(super) job: Job,
    pub(super) error: Option<String>,
    pub(super) moved: u64,
    /// Of the slots that gave connections away.
    pub(super) left: Left,
    pub(super) took_ms: u64,
    /// Sessions by slot, at its end.
    pub(super) connections: Vec<u64>,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Tell(Order, u32),
    Over(Outcome),
}

/// Why a job is not begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("there is only one worker")]
    OneWorker,
    #[error("there is no worker {0}: the last is {1}")]
    NoSuchWorker(u16, usize),
    #[error("connections are being moved already")]
    Busy,
}

#[derive(Debug)]
struct Running {
    order: Order,
    /// The generations of giver and taker.
    lives: [u32; 2],
}

#[derive(Debug)]
struct Work {
    job: Job,
    began: Millis,
    /// By slot: sessions, as figured from the beginning on; `None`: to be looked at.
    counts: Option<Vec<u64>>,
    /// By slot: what it could not give away, once it could give nothing.
    left: Vec<Option<Left>>,
    moved: u64,
}

/// The mind; see the module.
#[derive(Debug, Default)]
pub(super) struct Balancer {
    running: Option<Running>,
    work: Option<Work>,
    last_id: u32,
    quiet_until: Millis,
    next_automatic: Millis,
    /// The spread was too wide, and is not narrow enough yet.
    evening_out: bool,
}

impl Balancer {
    /// Begins a job.
    pub(super) fn ask(&mut self, now: Millis, job: Job, slots: usize) -> Result<(), Refused> {
        if slots < 2 {
            return Err(Refused::OneWorker);
        }
        if let Job::Drain(slot) = job
            && usize::from(slot) >= slots
        {
            return Err(Refused::NoSuchWorker(slot, slots - 1));
        }
        if self.work.is_some() {
            return Err(Refused::Busy);
        }
        let left = vec![None; slots];
        self.work = Some(Work { job, began: now, counts: None, left, moved: 0 });
        Ok(())
    }

    /// Whether the next look at the slots must be exact: a job is figured out from it.
    pub(super) fn wants_exact_views(&self) -> bool {
        self.running.is_none() && self.work.as_ref().is_some_and(|work| work.counts.is_none())
    }

    /// Whether time is to pass quickly.
    pub(super) fn is_busy(&self) -> bool {
        self.work.is_some() || self.running.is_some()
    }

    /// Time passes. `may_move`: the server is busy with nothing else.
    pub(super) fn tick(
        &mut self,
        now: Millis,
        may_move: bool,
        slots: &[SlotView],
        thresholds: &Thresholds,
    ) -> Option<Step> {
        self.give_up_if_replaced(now, slots);
        if let Some(work) = &self.work
            && now.since(work.began) >= JOB_MS
        {
            let error = format!("not done within {} s", JOB_MS / 1_000);
            return self.end(now, Some(error), slots);
        }
        if self.running.is_some() || !may_move || now < self.quiet_until {
            return None;
        }
        if self.work.is_none() {
            return self.even_out(now, slots, thresholds);
        }
        match self.plan(slots) {
            Some((from, to, count)) => self.order(slots, from, to, count),
            None => self.end(now, None, slots),
        }
    }

    /// Nothing more comes of what people asked for.
    pub(super) fn stop(&mut self, now: Millis, why: &str, slots: &[SlotView]) -> Option<Step> {
        self.end(now, Some(why.to_owned()), slots)
    }

    /// Whether no order is under way and no connection can still be between two workers.
    pub(super) fn is_settled(&self, now: Millis) -> bool {
        self.running.is_none() && now >= self.quiet_until
    }

    /// A worker has done what it was ordered.
    pub(super) fn done(&mut self, now: Millis, from: u16, done: Done) {
        let Done { id, moved, pending, left } = done;
        let ours = |running: &Running| running.order.id == id && running.order.from == from;
        let Some(Running { order, .. }) = self.running.take_if(|running| ours(running)) else {
            return;
        };
        if pending > 0 {
            // They are on their way in one direction: none may be sent in the other meanwhile.
            self.quiet_until = now + QUIET_MS;
        }
        let Some(work) = &mut self.work else {
            if moved == 0 {
                self.next_automatic = now + AUTOMATIC_AGAIN_MS;
            }
            return;
        };
        work.moved += u64::from(moved);
        if let Some(counts) = &mut work.counts {
            counts[usize::from(order.from)] = u64::from(left.unsent) + u64::from(left.other);
            counts[usize::from(order.to)] += u64::from(moved);
        }
        // Where some went others may; where none did none will.
        work.left[usize::from(order.from)] = (moved == 0 && pending == 0).then_some(left);
    }

    fn give_up_if_replaced(&mut self, now: Millis, slots: &[SlotView]) {
        let Some(Running { order, lives }) = &self.running else { return };
        let live = |slot: u16| slots.get(usize::from(slot)).and_then(|slot| slot.serving);
        if [live(order.from), live(order.to)] != [Some(lives[0]), Some(lives[1])] {
            self.running = None;
            self.quiet_until = now + QUIET_MS;
            if let Some(work) = &mut self.work {
                work.counts = None;
            }
        }
    }

    fn order(&mut self, slots: &[SlotView], from: usize, to: usize, count: u64) -> Option<Step> {
        let lives = [slots[from].serving?, slots[to].serving?];
        self.last_id = self.last_id.wrapping_add(1);
        let order = Order {
            id: self.last_id,
            from: u16::try_from(from).ok()?,
            to: u16::try_from(to).ok()?,
            count: u32::try_from(count.min(ORDER_MAX)).ok()?,
            within_ms: ORDER_MS,
        };
        self.running = Some(Running { order, lives });
        Some(Step::Tell(order, lives[0]))
    }

    /// Who gives how many to whom next; `None`: the job is done.
    fn plan(&mut self, slots: &[SlotView]) -> Option<(usize, usize, u64)> {
        let work = self.work.as_mut()?;
        let counts = work.counts.get_or_insert_with(|| slots.iter().map(|s| s.sessions).collect());
        let serving = |slot: &usize| slots[*slot].serving.is_some();
        let takers = || (0..slots.len()).filter(serving);
        match work.job {
            Job::Balance => {
                let to = takers().min_by_key(|slot| counts[*slot])?;
                let from = takers()
                    .filter(|slot| work.left[*slot].is_none())
                    .max_by_key(|slot| counts[*slot])?;
                let all: u64 = takers().map(|slot| counts[slot]).sum();
                let slots = u64::try_from(takers().count()).unwrap_or(1).max(1);
                // No more than brings one of the two to the mean.
                let over = counts[from].saturating_sub(all / slots);
                let under = all.div_ceil(slots).saturating_sub(counts[to]);
                let uneven = counts[from] > counts[to] + 1;
                uneven.then_some((from, to, over.min(under).max(1)))
            }
            Job::Drain(from) => {
                let from = usize::from(from);
                let others: Vec<usize> = takers().filter(|slot| *slot != from).collect();
                let to = *others.iter().min_by_key(|slot| counts[**slot])?;
                if !serving(&from) || work.left[from].is_some() || counts[from] == 0 {
                    return None;
                }
                let all: u64 = counts[from] + others.iter().map(|slot| counts[*slot]).sum::<u64>();
                let level = all.div_ceil(u64::try_from(others.len()).unwrap_or(1));
                let count = level.saturating_sub(counts[to]).max(1);
                Some((from, to, count.min(counts[from])))
            }
        }
    }

    /// By the thresholds: a second's worth from the fullest to the emptiest, from where the spread is too
    /// wide until it is half of that.
    fn even_out(
        &mut self,
        now: Millis,
        slots: &[SlotView],
        thresholds: &Thresholds,
    ) -> Option<Step> {
        if thresholds.percent == 0 || now < self.next_automatic {
            return None;
        }
        self.next_automatic = now + AUTOMATIC_EVERY_MS;
        let serving = || (0..slots.len()).filter(|slot| slots[*slot].serving.is_some());
        let from = serving().max_by_key(|slot| slots[*slot].sessions)?;
        let to = serving().min_by_key(|slot| slots[*slot].sessions)?;
        let spread = slots[from].sessions - slots[to].sessions;
        let all: u64 = serving().map(|slot| slots[slot].sessions).sum();
        let mean = all / u64::try_from(serving().count()).unwrap_or(1).max(1);
        let wide = (mean * u64::from(thresholds.percent) / 100).max(thresholds.connections).max(2);
        self.evening_out = spread > if self.evening_out { wide / 2 } else { wide };
        if !self.evening_out {
            return None;
        }
        self.order(slots, from, to, thresholds.rate.min(spread / 2).max(1))
    }

    fn end(&mut self, now: Millis, error: Option<String>, slots: &[SlotView]) -> Option<Step> {
        let work = self.work.take()?;
        let mut all = Left::default();
        for left in work.left.iter().flatten() {
            all.http += left.http;
            all.unsent += left.unsent;
            all.other += left.other;
        }
        let connections =
            work.counts.unwrap_or_else(|| slots.iter().map(|slot| slot.sessions).collect());
        Some(Step::Over(Outcome {
            job: work.job,
            error,
            moved: work.moved,
            left: all,
            took_ms: now.since(work.began),
            connections,
        }))
    }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
