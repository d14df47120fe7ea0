//! Telling the backend what waits: in a task process, one at a time, in order.
//!
//! Invariants: 1. Who drains has noted so, with an end that it moves before each request; one that was
//! held up beyond it finds that another has taken its place, and stops. 2. A record is passed when its
//! fate is known, and not before. 3. How often it was tried is counted before it is: what kills the process
//! each time is given up at last.

use super::client::{Answer, Client};
use super::event::{BOOT_PAGE, Boot, Online, encode};
use super::queue::{Next, PATIENCE_MS, Record};
use super::{BootReason, Shared, Word};
use crate::app::ImApp;
use dunlin_server::Context;
use dunlin_server::clock::{self, Millis};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// For how long one task goes on: others want the process, too.
pub(crate) const BUDGET_MS: u64 = 500;
/// The same for the last one of a server that stops.
pub(crate) const LAST_BUDGET_MS: u64 = 5_000;
/// How much longer than a request who drains is left alone.
const LEASE_MARGIN_MS: u64 = 2_000;

/// How soon to look for a successor that knows the backend's new URL.
const REPLACED_MS: u64 = 500;

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Drained {
    /// Nothing is left.
    Empty,
    /// Something is, to be told after so many milliseconds.
    Later(u64),
}

/// What became of one request.
enum Told {
    /// Its fate is known: taken, or not wanted.
    Done,
    /// It is to be tried again after so long.
    Wait(u64),
}

impl ImApp {
    /// Tells what waits. Blocks.
    pub(crate) fn drain(&self, context: &Context<'_, Self>, budget_ms: u64) -> Drained {
        let Some(client) = self.backend.client(&self.config.backend) else { return Drained::Empty };
        let lease_ms = self.config.backend.timeout_ms + LEASE_MARGIN_MS;
        let shared = *self.backend.shared();
        let Some(lease) = Lease::take(shared, context.now(), lease_ms) else {
            return Drained::Later(lease_ms);
        };
        let work = Drain { app: self, context, client, shared };
        let end = context.now() + budget_ms;
        let drained = loop {
            let now = context.now();
            let wait = shared.circuit.wait_ms(now.0);
            if wait > 0 {
                break Drained::Later(wait);
            }
            if now >= end {
                break Drained::Later(0);
            }
            if !lease.extend(now, lease_ms) {
                return Drained::Later(lease_ms);
            }
            match work.tell_next() {
                None => break Drained::Empty,
                Some(Told::Done) => {}
                Some(Told::Wait(ms)) => break Drained::Later(ms),
            }
        };
        lease.give_back();
        drained
    }
}

struct Drain<'a, 'c> {
    app: &'a ImApp,
    context: &'a Context<'c, ImApp>,
    client: &'a Client,
    shared: Shared,
}

impl Drain<'_, '_> {
    /// Tells one event, or one page of a `boot`. `None`: nothing waits.
    fn tell_next(&self) -> Option<Told> {
        let next = self.shared.queue.next(self.context.now().0);
        let due = self.shared.boot_due();
        let after = self.shared.get(Word::BootAfter);
        let is_for_us = self.shared.get(Word::BootTarget) == self.app.config.backend.target_hash();
        match (next, due) {
            (Next::Record(record), Some((due, reason)))
                if is_for_us && record.position >= after =>
            {
                Some(self.tell_boot(due, reason))
            }
            (Next::Empty, Some((due, reason))) if is_for_us => Some(self.tell_boot(due, reason)),
            // The URL has changed, and this process is about to be replaced.
            (Next::Empty, Some(_)) => Some(Told::Wait(REPLACED_MS)),
            (Next::Record(record), _) => Some(self.tell_record(&record)),
            (Next::Unfilled, _) => Some(Told::Wait(PATIENCE_MS)),
            (Next::Empty, None) => None,
        }
    }

    fn tell_record(&self, record: &Record) -> Told {
        let tried = self.try_once(record.position);
        let told = self.post(record.seq, &record.bytes);
        match told {
            Told::Done => _ = self.shared.queue.pass(record),
            Told::Wait(_) if tried >= self.app.config.backend.max_attempts => {
                if self.shared.queue.pass(record) {
                    self.shared.count(Word::Dropped);
                    self.shared.event_is_lost();
                }
            }
            Told::Wait(_) => self.shared.count(Word::Retried),
        }
        told
    }

    /// How often what lies there is tried, this time among them.
    fn try_once(&self, position: u64) -> u64 {
        // Positions begin at 0, words too.
        if self.shared.get(Word::TriedPosition) != position + 1 {
            self.shared.set(Word::Tried, 0);
            self.shared.set(Word::TriedPosition, position + 1);
        }
        self.shared.word(Word::Tried).fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Tells the next page of who is online.
    fn tell_boot(&self, due: u64, reason: BootReason) -> Told {
        let shared = self.shared;
        // Of an earlier one: this one begins.
        let this = due >> 8 << 32;
        let of_this = |word| shared.get(word).checked_sub(this).filter(|n| n >> 32 == 0);
        let tried = of_this(Word::BootTried).unwrap_or(0) + 1;
        shared.set(Word::BootTried, this | tried);
        let page = of_this(Word::BootPage).unwrap_or(0);
        let row = of_this(Word::BootRow).filter(|_| page > 0).unwrap_or(0);
        let stamp = self.app.stamp(self.context);
        if page == 0 {
            shared.set(Word::BootFirst, stamp.seq);
            // Before the rows are read: what is lost from here on may be missing in them.
            shared.word(Word::Lossy).store(0, Ordering::SeqCst);
        }
        let (online, next_row) = self.online_from(row);
        let boot = Boot {
            reason: reason.name(),
            listen: &self.app.listen,
            boot: shared.get(Word::BootFirst),
            page,
            more: next_row.is_some(),
            online,
        };
        let told = self.post(stamp.seq, encode(stamp, &boot).as_bytes());
        match (&told, next_row) {
            (Told::Done, Some(next)) => {
                shared.set(Word::BootRow, this | next);
                shared.set(Word::BootPage, this | (page + 1));
                shared.set(Word::BootTried, this);
            }
            (Told::Done, None) => shared.boot_is_done(due),
            // Events behind it wait no longer; the next follows when the backend answers again.
            (Told::Wait(_), _) if tried >= self.app.config.backend.max_attempts => {
                shared.count(Word::Dropped);
                shared.boot_is_done(due);
            }
            (Told::Wait(_), _) => shared.count(Word::Retried),
        }
        told
    }

    /// Sessions that are logged in, from a row on, and the row to go on at.
    fn online_from(&self, first: u64) -> (Vec<Online>, Option<u64>) {
        let mut online = Vec::new();
        let table = self.context.table();
        let first = u32::try_from(first).unwrap_or(u32::MAX);
        for row in first..table.capacity() {
            if online.len() == BOOT_PAGE {
                return (online, Some(u64::from(row)));
            }
            let Some(conn) = table.established_at(row) else { continue };
            let account = self.app.tables().account(table, conn);
            online.extend(account.map(|account| Online {
                user: account.user,
                device: account.device,
                session: conn.to_string(),
            }));
        }
        (online, None)
    }

    fn post(&self, seq: u64, body: &[u8]) -> Told {
        let answer = self.client.post(Some(seq), self.context.unix_ms(), body);
        let shared = self.shared;
        match answer {
            Answer::Taken(_) => shared.count(Word::Sent),
            Answer::Unwanted(status) => {
                shared.count(Word::Refused);
                self.app.note_failure(super::client::Failure::Status(status));
            }
            Answer::Failed(failure) => {
                self.app.note_failure(failure);
                let random = getrandom::u64().unwrap_or(seq);
                return Told::Wait(shared.circuit.failed(self.context.now().0, random));
            }
        }
        self.app.backend_answers();
        Told::Done
    }
}

impl ImApp {
    /// The backend has answered.
    pub(super) fn backend_answers(&self) {
        let shared = self.backend.shared();
        if shared.circuit.succeeded() {
            tracing::info!("the backend answers again");
            shared.boot_is_due(BootReason::Recovered);
        }
    }

    /// For the status and the log.
    pub(super) fn note_failure(&self, failure: super::client::Failure) {
        let shared = self.backend.shared();
        shared.set(Word::LastError, failure.to_word());
        shared.set(Word::LastErrorAt, clock::unix_ms());
        let why = super::client::Failure::text(failure.to_word()).unwrap_or_default();
        dunlin_server::limited!(warn, %why, "a request to the backend failed");
    }
}

/// The right to drain, for a while.
struct Lease {
    shared: Shared,
    own: u64,
}

impl Lease {
    fn take(shared: Shared, now: Millis, lease_ms: u64) -> Option<Self> {
        let now = now.0;
        let until = shared.word(Word::DrainingUntil);
        let seen = until.load(Ordering::Relaxed);
        let free = seen <= now
            && until
                .compare_exchange(seen, now + lease_ms, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        if !free {
            return None;
        }
        // Who holds it is told apart by a number nobody has had.
        let own = shared.word(Word::Drainer).fetch_add(1, Ordering::AcqRel) + 1;
        Some(Self { shared, own })
    }

    /// False: another has it.
    fn extend(&self, now: Millis, lease_ms: u64) -> bool {
        let is_own = self.shared.word(Word::Drainer).load(Ordering::Acquire) == self.own;
        if is_own {
            self.shared.set(Word::DrainingUntil, now.0 + lease_ms);
        }
        is_own
    }

    fn give_back(&self) {
        if self.shared.word(Word::Drainer).load(Ordering::Acquire) == self.own {
            self.shared.set(Word::DrainingUntil, 0);
        }
    }
}
