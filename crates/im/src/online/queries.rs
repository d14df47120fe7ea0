//! Questions about other nodes that a worker has under way, and when it stops waiting for each.
//!
//! Pure. Invariant: a question is taken out once, by its outcome or by its time.

use super::Asker;
use dunlin_server::TaskId;
use dunlin_server::clock::Millis;
use std::collections::BTreeMap;

/// A question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Query {
    /// Who asked.
    pub(crate) asker: Asker,
    /// For whom.
    pub(crate) users: Vec<String>,
    /// When it is answered without Redis.
    pub(crate) until: Millis,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queries(BTreeMap<u64, Query>);

impl Queries {
    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A task was asked for it.
    pub(crate) fn asked(&mut self, task: TaskId, query: Query) {
        self.0.insert(task.0, query);
    }

    /// Its task is over; `None` if this worker did not ask it, or waits no longer.
    pub(crate) fn take(&mut self, task: TaskId) -> Option<Query> {
        self.0.remove(&task.0)
    }

    /// Those whose time has come.
    pub(crate) fn expire(&mut self, now: Millis) -> Vec<(TaskId, Query)> {
        let due = self.0.extract_if(.., |_, query| query.until <= now);
        due.map(|(task, query)| (TaskId(task), query)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_server::ConnId;

    #[test]
    fn a_question_is_answered_once() {
        let query = |until| Query {
            asker: Asker::session(ConnId::from_bits(7), "1"),
            users: vec!["ann".into()],
            until: Millis(until),
        };
        let mut queries = Queries::default();
        for (task, until) in [(3, 10), (4, 20), (5, 10)] {
            queries.asked(TaskId(task), query(until));
        }
        assert_eq!(queries.take(TaskId(3)), Some(query(10)));
        assert_eq!(queries.take(TaskId(3)), None);
        assert!(queries.expire(Millis(9)).is_empty());
        assert_eq!(queries.expire(Millis(10)), [(TaskId(5), query(10))]);
        assert!(queries.take(TaskId(5)).is_none() && queries.len() == 1);
    }
}
