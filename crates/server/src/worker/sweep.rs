//! What is due in a worker by its own clock: late requests, late goodbyes, late messages, pings, the
//! dead.
//!
//! Knows the limits in time of connections; the application's deadlines are the timer process's.
//! Nobody is closed for what did not come before what came was read.

use super::Worker;
use super::connection::{Connection, OpenStage, Stage};
use crate::app::{App, Closed, ClosedBy};
use crate::clock::Millis;
use crate::config::Config;
use crate::ids::ConnId;
use crate::scoreboard::Cell;
use crate::websocket::FrameKind;

/// How often the connections are looked through.
pub(super) const SWEEP_EVERY_MS: u64 = 250;

/// What a connection is due for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    /// The time of an HTTP request or answer is up.
    TooLate,
    /// The time of a goodbye is up.
    Gone,
    /// A message was begun and did not end in time.
    Unfinished(ConnId),
    /// It did not answer a ping.
    Dead(ConnId),
    /// It has been silent for long.
    Ping,
}

impl<A: App> Worker<'_, A> {
    pub(super) fn sweep(&mut self) {
        let now = self.core.now;
        if now < self.core.next_sweep {
            return;
        }
        self.core.next_sweep = now + SWEEP_EVERY_MS;
        // What could not be accepted for want of descriptors is told of by no further edge.
        self.core.accept_ready = self.core.life.accepting();
        self.core.gatherings.sweep();
        self.review_goodbyes();
        let config = &self.core.config;
        let connections = &self.core.connections;
        let due: Vec<(usize, Due)> = connections
            .iter()
            .filter_map(|(key, connection)| Some((key, due(connection, config, now)?)))
            .collect();
        for (key, due) in due {
            match due {
                Due::TooLate => self.http_too_late(key),
                Due::Gone => self.core.transport_lost(key),
                Due::Unfinished(conn) | Due::Dead(conn) => self.judge(key, conn),
                Due::Ping => self.ping(key),
            }
        }
    }

    /// Asks a silent client whether it is there; not behind our close frame, which a hook may have sent
    /// since the look at the clock.
    fn ping(&mut self, key: usize) {
        let open = self.core.connections.get(key).and_then(Connection::open);
        if open.is_none_or(|open| open.closing.is_some()) {
            return;
        }
        self.core.queue_control(key, FrameKind::Ping, &[]);
        let now = self.core.now;
        if let Some(open) = self.core.connections[key].open_mut() {
            open.pinged = Some(now);
        }
    }

    /// Closes a WebSocket for what did not come, if it still has not when all is read.
    fn judge(&mut self, key: usize, conn: ConnId) {
        self.read_before_judging(key, conn);
        if self.core.key_of(conn).is_none() {
            return;
        }
        let still_due = due(&self.core.connections[key], &self.core.config, self.core.now);
        let (cell, code, reason) = match still_due {
            Some(Due::Unfinished(_)) => {
                (Cell::MessageTimeouts, 1008, "a message did not come in time")
            }
            Some(Due::Dead(_)) => (Cell::DeadClosed, 1001, "a ping was not answered"),
            _ => return,
        };
        self.core.row.add(cell, 1);
        let closed = Closed { code, reason: reason.to_owned(), by: ClosedBy::Server };
        self.core.close_deaf(key, closed);
    }
}

fn due(connection: &Connection, config: &Config, now: Millis) -> Option<Due> {
    match &connection.stage {
        Stage::Http(http) => (now >= http.deadline).then_some(Due::TooLate),
        Stage::Open(open) => match &open.closing {
            Some(closing) => (now >= closing.until).then_some(Due::Gone),
            // What it has sent may not be read yet.
            None if open.arriving => None,
            None => due_open(open, now.since(connection.last_read), config, now),
        },
    }
}

fn due_open(open: &OpenStage, silent_ms: u64, config: &Config, now: Millis) -> Option<Due> {
    if open.began.is_some_and(|began| now.since(began) >= config.message_timeout_ms) {
        return Some(Due::Unfinished(open.conn));
    }
    let ping_after = config.ping_interval_ms;
    if ping_after == 0 || silent_ms < ping_after {
        return None;
    }
    match open.pinged {
        None => Some(Due::Ping),
        Some(pinged) if now.since(pinged) >= ping_after => Some(Due::Dead(open.conn)),
        Some(_) => None,
    }
}
