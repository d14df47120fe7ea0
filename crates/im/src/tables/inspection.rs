//! What stands in the indexes, as a whole: for tests that want to know that nothing stays behind.

use super::Tables;
use dunlin_server::Sessions;

impl Tables {
    /// The rows of the hints in the user index that name no row of its user.
    pub(crate) fn stale_user_hints(&self, sessions: &Sessions) -> Vec<u32> {
        let mut stale = Vec::new();
        self.users.each(&mut |tag, row_index| {
            if !self.is_hinted(sessions, tag, row_index) {
                stale.push(row_index);
            }
        });
        stale
    }

    /// How often the row of a session is hinted at as its user's.
    pub(crate) fn user_hints(&self, user: &str, row_index: u32) -> usize {
        let mut hints = 0;
        self.users.find(self.hash(user), &mut |found| hints += usize::from(found == row_index));
        hints
    }
}
