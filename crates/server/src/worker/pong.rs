//! Answers to pings: at once while output flows, only the latest one where it does not.
//!
//! Knows that RFC 6455 (5.5.3) lets an endpoint answer only the most recent ping, and uses it for
//! clients that send pings and do not read: they cost one payload each.

use super::core::Core;
use crate::scoreboard::Cell;
use crate::websocket::FrameKind;

/// Queued output up to which every ping is answered by itself.
const PONGS_AT_ONCE_BYTES: usize = 16 << 10;

impl Core {
    /// Answers a ping, now or when the output before it is out.
    pub(super) fn answer_ping(&mut self, key: usize, payload: &[u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.writable && connection.outbox.queued_bytes() < PONGS_AT_ONCE_BYTES {
            return self.queue_control(key, FrameKind::Pong, payload);
        }
        if let Some(open) = connection.open_mut()
            && open.pong.replace(payload.to_vec()).is_some()
        {
            self.row.add(Cell::PongsSkipped, 1);
        }
    }

    /// Queues the answer that waits for the output before it, once that is out.
    pub(super) fn queue_late_pong(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !connection.outbox.is_empty() {
            return;
        }
        let Some(open) = connection.open_mut().filter(|open| open.closing.is_none()) else {
            return;
        };
        if let Some(payload) = open.pong.take() {
            self.queue_control(key, FrameKind::Pong, &payload);
        }
    }
}
