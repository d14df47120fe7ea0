//! Users whose sessions have changed and who are to be written.
//!
//! Pure, and of one worker. Invariant: never more than a given number wait, each once.

use std::collections::HashSet;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Changes(HashSet<String>);

impl Changes {
    /// One more, unless so many wait already: then it is false, and he is left to the next sweep.
    pub(crate) fn note(&mut self, user: &str, most: usize) -> bool {
        if self.0.contains(user) {
            return true;
        }
        self.0.len() < most && self.0.insert(user.to_owned())
    }

    /// Takes up to so many out.
    pub(crate) fn take(&mut self, most: usize) -> Vec<String> {
        if self.0.len() <= most {
            return self.0.drain().collect();
        }
        let taken: Vec<String> = self.0.iter().take(most).cloned().collect();
        for user in &taken {
            self.0.remove(user);
        }
        taken
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets them, and says how many they were.
    pub(crate) fn clear(&mut self) -> usize {
        let dropped = self.0.len();
        self.0.clear();
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_once_and_no_more_than_may() {
        let mut changes = Changes::default();
        assert!(changes.note("a", 2) && changes.note("b", 2));
        assert!(changes.note("a", 2), "he waits already");
        assert!(!changes.note("c", 2));
        assert_eq!(changes.len(), 2);
        assert_eq!(changes.take(1).len(), 1);
        assert!(changes.note("c", 2));
        let mut rest = changes.take(9);
        rest.sort_unstable();
        assert!(rest.contains(&"c".to_owned()) && rest.len() == 2 && changes.len() == 0);
        assert!(changes.note("d", 2));
        assert_eq!((changes.clear(), changes.clear()), (1, 0));
    }
}
