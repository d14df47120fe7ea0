//! Clients that come, log in and go, so many a second: what a listen queue must bear.
//!
//! They stand behind the others in `Load::clients`; a place is used again when its client has gone.

use super::load::{Client, Load};
use crate::bench::client::connection::{Connection, Stage};
use crate::bench::client::faults::Fault;
use crate::bench::client::moment::Moment;
use crate::bench::client::wire;
use crate::failure::Failure;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Storm {
    pub(super) per_second: u32,
    begun: u64,
    /// Connected, logged in and closed in good order.
    pub(super) done: u64,
    /// Microseconds from the connect to the login.
    pub(super) longest_us: u64,
    free: Vec<usize>,
    under_way: usize,
}

/// At most so many are under way; more are begun when some are done.
pub(super) const UNDER_WAY_MAX: usize = 2_000;
/// The code they close with, and must be answered with.
pub(super) const CODE: u16 = 1000;

impl Storm {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, ..Self::default() }
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// When the next is due; none if there is no storm.
    pub(super) fn due(&self, begun: Moment) -> Option<Moment> {
        let per_second = u64::from(self.per_second);
        (per_second > 0).then(|| begun.plus_us(self.begun.saturating_mul(1_000_000) / per_second))
    }
}

impl Load {
    /// Begins the connections that are due.
    pub(super) fn blow(&mut self, begun: Moment, now: Moment) -> Result<(), Failure> {
        while self.storm.due(begun).is_some_and(|due| due <= now)
            && self.storm.under_way < UNDER_WAY_MAX
        {
            self.storm.begun += 1;
            let place = self.storm.free.pop().unwrap_or_else(|| {
                self.clients.push(Client::new(true, false));
                self.clients.len() - 1
            });
            self.storm.under_way += 1;
            self.connect(place, now)?;
        }
        Ok(())
    }

    /// One of them is logged in: it goes.
    pub(super) fn go(&mut self, connection: &mut Connection, now: Moment) {
        connection.stage = Stage::Closing;
        let took_us = now.us_since(connection.began);
        self.storm.longest_us = self.storm.longest_us.max(took_us);
        let mut bytes = Vec::new();
        wire::write_close(CODE, &mut self.random, &mut bytes);
        let due = connection.outbound.earliest(now);
        connection.outbound.push(&bytes, due);
    }

    /// One of them has gone.
    pub(super) fn gone(&mut self, place: usize) {
        self.storm.under_way -= 1;
        self.storm.free.push(place);
    }

    /// The end: who is still there did not get through.
    pub(super) fn calm(&mut self) {
        for _ in 0..self.storm.under_way {
            self.faults.add(Fault::Refused, || "one of the storm never got through".to_owned());
        }
    }
}
