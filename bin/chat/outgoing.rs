//! Messages on their way out: one at a time, each under a key, repeated until it is answered or late.
//!
//! One at a time, so that they arrive in the order they were typed also where one is refused for a
//! moment and repeated. Knows no socket and no frame.
//! Invariants: 1. At most [`WAITING_MAX`] wait. 2. A message keeps its number, and so its key, for as
//! long as it waits: a server that has it already does not send it again. 3. Only the first is asked.

use super::words::Target;
use dunlin_server::clock::Millis;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;

/// Most messages that wait for an answer.
pub(crate) const WAITING_MAX: usize = 1_000;
/// How long one may take, reconnections included. A server knows keys for five minutes.
pub(crate) const SEND_TIMEOUT_MS: u64 = 60_000;

/// A message that is not yet answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) number: u64,
    pub(crate) to: Target,
    pub(crate) text: String,
    due: Millis,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outgoing {
    waiting: VecDeque<Waiting>,
    last_number: u64,
    /// No other client has it: keys must not meet those of an earlier life on this device.
    key_base: String,
    /// The id of the request that carries the first.
    asked: Option<u64>,
    not_before: Millis,
}

impl Outgoing {
    pub(crate) fn new(key_base: String) -> Self {
        Self {
            waiting: VecDeque::new(),
            last_number: 0,
            key_base,
            asked: None,
            not_before: Millis(0),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a message; its number, or none where too many wait.
    pub(crate) fn push(&mut self, now: Millis, to: Target, text: String) -> Option<u64> {
        if self.waiting.len() >= WAITING_MAX {
            return None;
        }
        self.last_number += 1;
        let number = self.last_number;
        self.waiting.push_back(Waiting { number, to, text, due: now + SEND_TIMEOUT_MS });
        Some(number)
    }

    /// The `params` of the `send` that is due, if one is.
    pub(crate) fn next_params(&self, now: Millis) -> Option<Json> {
        let first = self.waiting.front()?;
        if self.asked.is_some() || now < self.not_before {
            return None;
        }
        let key = format!("{}-{}", self.key_base, first.number);
        Some(json!({"to": first.to.to_json(), "body": {"text": first.text}, "key": key}))
    }

    /// The first went out with this request.
    pub(crate) fn asked(&mut self, id: u64) {
        debug_assert!(self.asked.is_none() && !self.waiting.is_empty());
        self.asked = Some(id);
    }

    /// The request was answered, one way or another: the message, unless it was given up before.
    pub(crate) fn take(&mut self, id: u64) -> Option<Waiting> {
        if self.asked != Some(id) {
            return None;
        }
        self.asked = None;
        self.waiting.pop_front()
    }

    /// The first cannot be sent at all.
    pub(crate) fn take_unsent(&mut self) -> Option<Waiting> {
        debug_assert!(self.asked.is_none());
        self.waiting.pop_front()
    }

    /// The server wants the same again, later.
    pub(crate) fn again(&mut self, id: u64, not_before: Millis) {
        if self.asked == Some(id) {
            self.asked = None;
            self.not_before = not_before;
        }
    }

    /// Nothing of what was asked will be answered.
    pub(crate) fn connection_ended(&mut self) {
        self.asked = None;
        self.not_before = Millis(0);
    }

    /// Takes out the first if it has waited too long.
    pub(crate) fn take_late(&mut self, now: Millis) -> Option<Waiting> {
        if self.waiting.front()?.due > now {
            return None;
        }
        self.asked = None;
        self.waiting.pop_front()
    }

    /// When there may be something to do.
    pub(crate) fn next_due(&self) -> Option<Millis> {
        let first = self.waiting.front()?;
        let retry = Some(self.not_before).filter(|at| self.asked.is_none() && at.0 > 0);
        Some(retry.map_or(first.due, |at| at.min(first.due)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bob() -> Target {
        Target::User("bob".to_owned())
    }

    #[test]
    fn one_goes_at_a_time_and_keeps_its_key_until_it_is_answered() {
        let mut outgoing = Outgoing::new("k".to_owned());
        assert_eq!(outgoing.push(Millis(1), bob(), "a".to_owned()), Some(1));
        assert_eq!(outgoing.push(Millis(1), bob(), "b".to_owned()), Some(2));
        let first = outgoing.next_params(Millis(1)).unwrap();
        assert_eq!(first, json!({"to": {"user": "bob"}, "body": {"text": "a"}, "key": "k-1"}));
        outgoing.asked(7);
        assert_eq!(outgoing.next_params(Millis(1)), None);
        outgoing.connection_ended();
        assert_eq!(outgoing.next_params(Millis(1)), Some(first.clone()));
        outgoing.asked(8);
        assert_eq!(outgoing.take(7), None, "of the connection before");
        outgoing.again(8, Millis(50));
        assert_eq!(
            (outgoing.next_params(Millis(49)), outgoing.next_due()),
            (None, Some(Millis(50)))
        );
        assert_eq!(outgoing.next_params(Millis(50)), Some(first));
        outgoing.asked(9);
        assert_eq!(outgoing.take(9).unwrap().text, "a");
        assert_eq!(outgoing.next_params(Millis(50)).unwrap()["key"], "k-2");
    }

    #[test]
    fn nothing_waits_longer_than_its_time_and_no_more_than_the_bound() {
        let mut outgoing = Outgoing::new("k".to_owned());
        for _ in 0..WAITING_MAX {
            assert!(outgoing.push(Millis(5), bob(), "a".to_owned()).is_some());
        }
        assert_eq!(outgoing.push(Millis(5), bob(), "b".to_owned()), None);
        outgoing.asked(3);
        let late = Millis(5) + SEND_TIMEOUT_MS;
        assert_eq!(outgoing.next_due(), Some(late));
        assert_eq!(outgoing.take_late(Millis(late.0 - 1)), None);
        assert_eq!(outgoing.take_late(late).unwrap().number, 1);
        assert_eq!(outgoing.take(3), None, "its answer comes too late");
        assert_eq!(outgoing.len(), WAITING_MAX - 1);
    }
}
