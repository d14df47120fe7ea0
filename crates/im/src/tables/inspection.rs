//! What stands in the indexes, as a whole: for tests that want to know that nothing stays behind.

use super::{Tables, windows};
use dunlin_server::Sessions;

impl Tables {
    /// The row of each hint in the user index that names no row of its user, from the first window on.
    pub(crate) fn stale_user_hints(&self, sessions: &Sessions) -> Vec<u32> {
        let mut stale = Vec::new();
        let windows = windows(sessions.capacity());
        for window in 0..windows {
            self.users.sweep(first_hash(window, windows), |tag, row_index| {
                if !self.is_hinted(sessions, tag, row_index) {
                    stale.push(row_index);
                }
                true
            });
        }
        stale
    }

    /// How often the row of a session is hinted at as its user's.
    pub(crate) fn user_hints(&self, user: &str, row_index: u32) -> usize {
        let mut hints = 0;
        self.users.find(self.hash(user), &mut |found| hints += usize::from(found == row_index));
        hints
    }
}

/// The smallest hash whose window this is: the high bits choose it.
fn first_hash(window: u32, windows: u32) -> u64 {
    let first = (u128::from(window) << 64).div_ceil(u128::from(windows));
    let hash = u64::try_from(first).expect("the window is one of them");
    assert_eq!((u128::from(hash) * u128::from(windows)) >> 64, u128::from(window));
    hash
}
