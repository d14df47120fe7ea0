//! When a task process is asked to tell the backend what waits: in workers.
//!
//! Invariants: 1. While something waits, a task is under way or asked for, or a timer will wake a worker
//! that asks; each of them is noted with an end, so that whoever dies with it is replaced by the next event,
//! timer or worker that starts. 2. No two tasks are asked for at one time, but for one that was given up.

use super::drain::{BUDGET_MS, LAST_BUDGET_MS};
use super::{Drained, Word, Work};
use crate::app::ImApp;
use crate::tasks::{self, Outcome};
use dunlin_server::clock::Millis;
use dunlin_server::{Context, Role, TaskFailure, TaskId};
use std::sync::atomic::Ordering;

/// What a timer's payload is that wakes us.
pub(crate) const WAKE: &[u8] = b"backend.wake";

/// How much longer than one request a task may stay away before another is asked for.
const LEASE_MARGIN_MS: u64 = 5_000;

impl ImApp {
    /// Something may wait: asks for a task, unless one is asked for or the backend is to be left alone
    /// for a while. Costs a few loads where there is nothing to do.
    pub(crate) fn drain_soon(&self, context: &mut Context<'_, Self>) {
        let shared = self.backend.shared();
        if self.config.backend.target.is_none() || !shared.is_waiting() {
            return;
        }
        let now = context.now().0;
        let (asked, wait) = (shared.word(Word::AskedUntil), shared.circuit.wait_ms(now));
        let until = asked.load(Ordering::Relaxed);
        if wait > 0 || until > now {
            self.wake_at(context, (now + wait).max(until));
            return;
        }
        let lease = now + self.config.backend.timeout_ms + LEASE_MARGIN_MS;
        if asked.compare_exchange(until, lease, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return; // Another worker was first.
        }
        match context.task(&tasks::Work::Backend(Work::Drain)) {
            Ok(TaskId(task)) => shared.set(Word::AskedTask, task),
            // No task process now: the timer asks again.
            Err(error) => tracing::debug!(%error, "no task process takes events for the backend"),
        }
        self.wake_at(context, lease);
    }

    /// In a task process: what [`Work`] asks for.
    pub(crate) fn work_for_backend(&self, context: &Context<'_, Self>, work: Work) -> Outcome {
        match work {
            Work::Drain => Outcome::Drained(self.drain(context, BUDGET_MS)),
            Work::Authorise(question) => Outcome::Authorised(self.authorise(context, question)),
        }
    }

    /// The last thing a task process does where the server stops: whoever is closed then is still told of.
    pub(crate) fn drain_last(&self, context: &Context<'_, Self>) {
        if matches!(context.role(), Role::Task(_)) && context.is_stopping() {
            self.drain(context, LAST_BUDGET_MS);
        }
    }

    /// A task that drained is over.
    pub(crate) fn drained(&self, context: &mut Context<'_, Self>, drained: Drained) {
        self.backend.shared().set(Word::AskedUntil, 0);
        match drained {
            Drained::Later(ms) if ms > 0 => self.wake_at(context, context.now().0 + ms),
            Drained::Later(_) | Drained::Empty => self.drain_soon(context),
        }
    }

    /// A task failed. If it was ours its process is gone, and what it had in hand with it.
    pub(crate) fn drain_failed(
        &self,
        context: &mut Context<'_, Self>,
        task: TaskId,
        failure: TaskFailure,
    ) -> bool {
        let shared = self.backend.shared();
        if shared.get(Word::AskedTask) != task.0 || self.config.backend.target.is_none() {
            return false;
        }
        tracing::warn!(%failure, "a task process ended while it told the backend; it is told again");
        shared.set(Word::AskedUntil, 0);
        shared.set(Word::DrainingUntil, 0);
        // It may die of what it was telling: not at once again.
        shared.circuit.failed(context.now().0, context.unix_ms());
        self.drain_soon(context);
        true
    }

    /// A timer of [`WAKE`] is due.
    pub(crate) fn woken(&self, context: &mut Context<'_, Self>) {
        let wake = self.backend.shared().word(Word::WakeAt);
        let at = wake.load(Ordering::Relaxed);
        if at <= context.now().0 {
            let _ = wake.compare_exchange(at, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.drain_soon(context);
    }

    /// Sees to it that a timer wakes a worker at that time, or before. One whose worker died before it was
    /// armed is noted all the same, and replaced once its time is over.
    fn wake_at(&self, context: &mut Context<'_, Self>, at: u64) {
        let (wake, now) = (self.backend.shared().word(Word::WakeAt), context.now().0);
        let known = wake.load(Ordering::Relaxed);
        if known > now && known <= at {
            return;
        }
        let noted = wake.compare_exchange(known, at, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if noted && let Err(error) = context.after(Millis(at).since(Millis(now)).max(1), WAKE) {
            let _ = wake.compare_exchange(at, 0, Ordering::Relaxed, Ordering::Relaxed);
            tracing::debug!(%error, "no timer for what waits for the backend: the next event asks");
        }
    }
}
