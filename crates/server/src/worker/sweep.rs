//! What is due in a worker by its own clock: late requests, late goodbyes, pings.
//!
//! Knows the limits in time of connections; the application's deadlines are the timer process's.

use super::Worker;
use super::connection::Stage;
use crate::app::App;
use crate::websocket::FrameKind;

/// How often the connections are looked through.
pub(super) const SWEEP_EVERY_MS: u64 = 250;

/// What a connection is due for.
enum Due {
    TooLate,
    Gone,
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
        let ping_after = self.core.config.ping_interval_ms;
        let due: Vec<(usize, Due)> = self
            .core
            .connections
            .iter()
            .filter_map(|(key, connection)| {
                let silent_ms = now.since(connection.last_read);
                let due = match &connection.stage {
                    Stage::Http(http) if now >= http.deadline => Due::TooLate,
                    Stage::Open(open) => match &open.closing {
                        Some(closing) if now >= closing.until => Due::Gone,
                        None if ping_after > 0 && silent_ms >= ping_after && !open.pinged => {
                            Due::Ping
                        }
                        _ => return None,
                    },
                    Stage::Http(_) => return None,
                };
                Some((key, due))
            })
            .collect();
        for (key, due) in due {
            match due {
                Due::TooLate => self.http_too_late(key),
                Due::Gone => self.core.transport_lost(key),
                Due::Ping => {
                    self.core.queue_control(key, FrameKind::Ping, &[]);
                    if let Some(open) = self.core.connections[key].open_mut() {
                        open.pinged = true;
                    }
                }
            }
        }
    }
}
