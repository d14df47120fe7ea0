//! The ids of messages that were told, so that each is told once.

use std::collections::{HashSet, VecDeque};

/// How many are remembered: what comes twice comes within one return.
pub(crate) const SEEN_MAX: usize = 2_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// Whether it was never asked about, as far as is remembered.
    pub(crate) fn is_new(&mut self, id: &str) -> bool {
        if !self.known.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_new_once_and_memory_is_bounded() {
        let mut seen = Seen::default();
        for number in 0..3 * SEEN_MAX {
            assert!(seen.is_new(&number.to_string()));
            assert!(!seen.is_new(&number.to_string()));
        }
        assert_eq!((seen.known.len(), seen.order.len()), (SEEN_MAX, SEEN_MAX));
    }
}
