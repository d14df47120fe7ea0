//! What a worker does when the unsent output of all its connections reaches
//! `websocket.send_buffer_total`: it closes those that hold most of it.
//!
//! Knows who is fattest and how they end; calls no hook. Invariants: 1. Whoever is shed holds no unsent
//! output afterwards but a goodbye. 2. Nobody is shed for output that the kernel would still take.

use super::connection::{Closing, Connection};
use super::core::{CLOSE_GRACE_MS, Core};
use crate::app::{Closed, ClosedBy};
use crate::scoreboard::Cell;
use crate::sys::socket;

/// What a frame has beside its payload, and an answer beside its body, at most about.
const HEAD_BYTES: usize = 512;

impl Core {
    /// Before output is queued: makes room for so many bytes by closing the connections that hold the
    /// most unsent output, the one this is meant for among them if it is of these.
    pub(super) fn make_output_room(&mut self, payload_bytes: usize) {
        let limit = self.config.send_buffer_total_bytes;
        let wanted = payload_bytes + HEAD_BYTES;
        if self.load.bytes() + wanted <= limit || self.shedding {
            return;
        }
        // What was only waiting for the end of the turn is nobody's slowness.
        self.flush_touched();
        let load = self.load.bytes();
        // An eighth at once, so that the next message does not look through all connections again.
        let keep = (limit - limit / 8).min(limit.saturating_sub(wanted));
        if load <= keep {
            return;
        }
        let held = self
            .connections
            .iter()
            .map(|(key, connection)| (connection.outbox.queued_bytes(), key))
            .collect();
        let fattest = fattest(held, load.saturating_sub(keep));
        self.row.add(Cell::OutputFull, 1);
        crate::limited!(
            warn,
            connections = fattest.len(),
            unsent = load,
            "websocket.send_buffer_total is reached: those that hold the most are closed with 1013"
        );
        // Goodbyes are output, too; they may go a little over.
        self.shedding = true;
        for key in fattest {
            self.shed(key);
        }
        self.shedding = false;
    }

    /// Droppable output is not queued beyond this.
    pub(super) fn output_is_high(&self) -> bool {
        let limit = self.config.send_buffer_total_bytes;
        self.load.bytes() >= limit - limit / 4
    }

    /// Closes a connection and frees what it holds: with 1013 where a close frame can be said, by a
    /// reset where half a frame is out.
    fn shed(&mut self, key: usize) {
        self.touch(key);
        self.row.add(Cell::SlowClosed, 1);
        let until = self.now + CLOSE_GRACE_MS;
        let half_out = self.connections[key].half_out;
        self.connections[key].outbox.discard();
        let closed = Closed {
            code: 1013,
            reason: "the client reads too slowly".to_owned(),
            by: ClosedBy::Server,
        };
        let open = self.connections.get(key).and_then(Connection::open);
        if !half_out && open.is_some_and(|open| open.closing.is_none()) {
            return self.close_by_engine(key, closed);
        }
        socket::reset_on_close(self.connections[key].descriptor);
        if let Some(open) = self.connections[key].open_mut() {
            // So that the application is told why, and not that the client is gone.
            open.closing.get_or_insert(Closing {
                closed,
                answered: true,
                deaf: true,
                half_closed: true,
                until,
            });
        }
        self.transport_lost(key);
    }
}

/// Whose output is to be freed, fattest first, so that `excess` bytes are.
fn fattest(mut held: Vec<(usize, usize)>, excess: usize) -> Vec<usize> {
    held.sort_unstable_by(|left, right| right.cmp(left));
    let mut freed = 0;
    held.into_iter()
        .take_while(|(bytes, _)| {
            let wanted = freed < excess && *bytes > 0;
            freed += bytes;
            wanted
        })
        .map(|(_, key)| key)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fattest_go_first_and_no_more_than_needed() {
        let held = vec![(10, 1), (0, 2), (500, 3), (30, 4), (200, 5)];
        assert_eq!(fattest(held.clone(), 1), [3]);
        assert_eq!(fattest(held.clone(), 500), [3]);
        assert_eq!(fattest(held.clone(), 501), [3, 5]);
        assert_eq!(fattest(held.clone(), 10_000), [3, 5, 4, 1], "never who holds nothing");
        assert_eq!(fattest(held, 0), [0_usize; 0]);
    }
}
