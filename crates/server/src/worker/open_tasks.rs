//! Tasks that this worker has asked for and whose results have not come.
//!
//! Knows numbers only. It may forget old ones: a result can be lost, and nobody waits for ever.

use std::collections::BTreeSet;

/// Most tasks remembered; the queue of the task processes holds fewer.
const TASKS_MAX: usize = 1 << 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OpenTasks(BTreeSet<u64>);

impl OpenTasks {
    /// A task was put into the queue. Numbers grow.
    pub(super) fn asked(&mut self, task: u64) {
        self.0.insert(task);
        if self.0.len() > TASKS_MAX {
            self.0.pop_first();
        }
    }

    /// Its result has come, or it has failed.
    pub(super) fn over(&mut self, task: u64) {
        self.0.remove(&task);
    }

    /// Whether no result is awaited.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one that was asked for last.
    pub(super) fn latest(&self) -> Option<u64> {
        self.0.last().copied()
    }

    /// Whether this one, or one asked for before it, is open.
    pub(super) fn any_up_to(&self, task: Option<u64>) -> bool {
        task.is_some_and(|task| self.0.first().is_some_and(|first| *first <= task))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_up_to_one_are_awaited_and_later_ones_are_not() {
        let mut open = OpenTasks::default();
        assert!(!open.any_up_to(open.latest()));
        open.asked(3);
        open.asked(5);
        let mark = open.latest();
        open.asked(8);
        open.over(3);
        assert!(open.any_up_to(mark), "5 is open");
        open.over(5);
        assert!(!open.any_up_to(mark) && !open.is_empty());
        open.over(8);
        assert!(open.is_empty());
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut open = OpenTasks::default();
        (0..=TASKS_MAX as u64).for_each(|task| open.asked(task));
        assert_eq!(open.0.len(), TASKS_MAX);
        assert_eq!(open.latest(), Some(TASKS_MAX as u64), "the oldest is forgotten");
    }
}
