//! Descriptors that nobody noted: opened by a worker that was killed before it could write its entry.
//!
//! Only two kinds are looked for, which only this crate opens: sockets of our listen addresses, and our
//! memfds. Such a number may also have just been opened by a living neighbour, so it is closed only if
//! it is still the same object without an entry after every other worker has finished a turn. A worker
//! that does not serve yet, or no more, has no turns to go by: what it opens (a parcel, on its way) it
//! closes at once, and [`LOOKS`] looks lie in between.

use crate::clock::Millis;
use crate::ledger::Ledger;
use crate::shared::Shared;
use crate::sys::{descriptor, socket};
use crate::wiring::Wiring;
use std::os::fd::RawFd;
use tracing::warn;

/// Looks before suspects are closed, at least. Counted, since a machine that was paused has missed them.
const LOOKS: u32 = 5;
/// The time between two looks that count, at least.
const LOOK_MS: u64 = 20;

/// A sweep that may be under way.
#[derive(Debug)]
pub(super) struct Sweep {
    ledger: Ledger,
    suspects: Vec<(RawFd, (u64, u64))>,
    /// By slot: the stamp at the beginning; `None` once the worker has finished a turn since.
    stamps: Vec<Option<u64>>,
    looks: u32,
    last_look: Millis,
}

impl Sweep {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self { ledger, suspects: Vec::new(), stamps: Vec::new(), looks: 0, last_look: Millis(0) }
    }

    /// Lists what is suspect now. Suspects of an earlier sweep are listed again.
    pub(super) fn begin(&mut self, shared: &Shared, wiring: &Wiring) {
        self.suspects = descriptor::open_numbers()
            .unwrap_or_default()
            .into_iter()
            .filter(|number| self.ledger.entry(*number).is_none())
            .filter(|number| is_ours(*number, wiring))
            .filter_map(|number| Some((number, descriptor::identity(number)?)))
            .collect();
        let workers = shared.scoreboard.workers();
        // An even stamp: it waits in its poll, and whatever it opened it has noted.
        let busy =
            |slot| Some(shared.scoreboard.worker(slot).stamp()).filter(|stamp| stamp & 1 == 1);
        self.stamps = (0..workers).map(busy).collect();
        self.looks = 0;
    }

    /// Closes what is still suspect once every worker has finished a turn.
    pub(super) fn go_on(&mut self, shared: &Shared, now: Millis) {
        if self.suspects.is_empty() || now.since(self.last_look) < LOOK_MS {
            return;
        }
        for (slot, stamp) in self.stamps.iter_mut().enumerate() {
            if *stamp != Some(shared.scoreboard.worker(slot).stamp()) {
                *stamp = None;
            }
        }
        self.looks += 1;
        self.last_look = now;
        if self.stamps.iter().any(Option::is_some) || self.looks < LOOKS {
            return;
        }
        for (number, identity) in self.suspects.drain(..) {
            let same = descriptor::identity(number) == Some(identity);
            if same && self.ledger.entry(number).is_none() {
                warn!(number, "closed a descriptor that a dead worker had not noted");
                descriptor::close(number);
            }
        }
    }

    /// Whether a sweep is under way.
    pub(super) fn is_under_way(&self) -> bool {
        !self.suspects.is_empty()
    }
}

fn is_ours(number: RawFd, wiring: &Wiring) -> bool {
    let listened_on = |port: u16| {
        let all = wiring.addresses.iter().chain(&wiring.admin_addresses);
        all.into_iter().any(|address| address.port() == port)
    };
    socket::local_port(number).is_some_and(listened_on) || descriptor::is_our_memfd(number)
}
