//! Whose a connection is, as a number of the application's: what is traced is found by it.

use super::Sessions;
use crate::ids::ConnId;

impl Sessions {
    /// Says whose a connection is, by a number of the application's: who traces that one
    /// ([`crate::App::subject`]) is told what it sends and gets. 0: nobody's.
    pub fn set_subject(&self, conn: ConnId, subject: u64) {
        self.store(conn, self.columns.subject, subject);
    }

    /// Whose a connection is; 0 if nobody's, or gone.
    pub(crate) fn subject(&self, conn: ConnId) -> u64 {
        self.word(conn, self.columns.subject).unwrap_or(0)
    }
}
