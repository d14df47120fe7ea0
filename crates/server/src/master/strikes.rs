//! What is put down to one connection: the deaths of workers that were about to take it up.
//!
//! Knows the errand a worker noted before it died. A connection that has killed [`STRIKES_MAX`] workers so
//! is closed by the next instead of adopted; if even that kills as many, it is dropped unseen.

use super::Master;
use super::seats::Seat;
use crate::app::App;
use crate::scoreboard::Errand;
use crate::sessions::{Phase, STRIKES_MAX};
use tracing::warn;

impl<A: App> Master<A> {
    /// A worker has died: if it was taking up a connection, that gets a strike.
    pub(super) fn strike(&mut self, slot: u16, generation: u32) {
        let row = self.shared.scoreboard.worker(usize::from(slot));
        if row.generation() != u64::from(generation) {
            // The row of figures is another life's: this one served no more, or not yet.
            return;
        }
        let (errand, conn) = row.errand();
        row.end_errand();
        let Some(conn) = conn else { return };
        let sessions = &self.shared.sessions;
        let lost =
            sessions.phase(conn) == Some(Phase::Lost) || sessions.strikes(conn) >= STRIKES_MAX;
        let guilty = match errand {
            Errand::Adopt | Errand::CloseLost => true,
            Errand::Close => lost,
            _ => false,
        };
        if guilty {
            let strikes = sessions.add_strike(conn);
            warn!(slot, %conn, errand = errand.name(), strikes, "a worker died taking up a connection");
            self.state.blame_connection(Seat::Worker(slot));
        }
    }
}
