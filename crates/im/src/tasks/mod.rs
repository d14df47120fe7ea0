//! What workers hand to task processes, where a call may block: one variant for each feature in [`Work`] and
//! in [`Outcome`], one line for each in `work` and `worked`.
//!
//! Knows who does what, not how. Invariants: 1. The worker that asked may have been replaced when the
//! outcome comes: an outcome says by itself whom it is for, and what a worker remembers of its tasks it can
//! lose. 2. A task may be lost (a failure tells), and its outcome too (nothing tells).

use crate::app::ImApp;
use crate::backend;
use crate::online::{OnlineOutcome, OnlineWork};
use dunlin_server::{Context, TaskFailure, TaskId};
use serde::{Deserialize, Serialize};

/// Something to do in a task process.
#[derive(Debug, Serialize, Deserialize)]
pub enum Work {
    /// For the owner's backend.
    Backend(backend::Work),
    /// For the online list in Redis.
    Online(OnlineWork),
}

/// What came of it, for the worker that asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// What waited for the owner's backend was told, as far as it could be.
    Drained(backend::Drained),
    /// Of the online list.
    Online(OnlineOutcome),
    /// The owner's backend was asked.
    Authorised(backend::Authorised),
}

impl ImApp {
    /// In a task process: does it. May block.
    pub(crate) fn work(&mut self, context: &mut Context<'_, Self>, work: Work) -> Option<Outcome> {
        match work {
            Work::Backend(work) => Some(self.work_for_backend(context, work)),
            Work::Online(work) => Some(Outcome::Online(self.online_work(context, work))),
        }
    }

    /// In a worker: a task of its slot is over.
    pub(crate) fn worked(
        &mut self,
        context: &mut Context<'_, Self>,
        task: TaskId,
        result: Result<Outcome, TaskFailure>,
    ) {
        match result {
            Ok(Outcome::Drained(drained)) => self.drained(context, drained),
            Ok(Outcome::Authorised(authorised)) => self.authorised(context, authorised),
            Err(failure) if self.drain_failed(context, task, failure) => {}
            Ok(Outcome::Online(outcome)) => self.online_worked(context, task, outcome),
            Err(failure) if self.online_lost(context, task) => {
                tracing::debug!(?task, %failure, "a task of the online list was lost");
            }
            Err(failure) => tracing::warn!(?task, %failure, "a task gave no outcome"),
        }
    }
}
