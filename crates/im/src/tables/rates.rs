//! Who has done how much lately: buckets of sessions in their rows, of users and addresses in cells.
//!
//! Knows where they lie and not what is allowed: that is a [`Rate`]. Invariants: 1. The buckets of a session
//! are written by the worker that serves it alone, and go with its row to the next. 2. All sessions of a user
//! share one bucket, all connections of an address (an IPv6 /64) another, over all workers. 3. A bucket that
//! is lost, with a row or to make room for another, is a full one.

use super::cells::Cells;
use crate::rate::{Failures, Patience, Rate, TooSoon};
use dunlin_server::clock::Millis;
use dunlin_server::{ConnId, Sessions};
use dunlin_table::{Column, ColumnKind, CounterId, hash_key};
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

const COLUMNS: [&str; 3] = ["im_requests", "im_bytes", "im_refusals"];
const NS_PER_US: u64 = 1_000;
const COUNTS: usize = 8;

/// A bucket of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bucket {
    /// Messages it sends.
    Requests,
    /// Their bytes.
    Bytes,
    /// How often it was refused lately.
    Refusals,
}

/// What is refused, and counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Limit {
    /// A message, beyond `im.request_rate`.
    Requests,
    /// A message, beyond `im.byte_rate`.
    Bytes,
    /// A send or signal, beyond `im.send_rate`.
    Sends,
    /// A login, beyond `im.login_rate`.
    Logins,
    /// A login or token too soon after failed ones.
    Failures,
    /// A session that was closed, beyond `im.max_refused`.
    Closed,
}

/// Handles on the buckets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    columns: [CounterId; 3],
    counts: &'static [AtomicU64],
    users: Cells,
    logins: Cells,
    failures: Cells,
    seed: u64,
}

impl Rates {
    /// The columns it adds to the session table.
    pub(crate) fn columns() -> impl Iterator<Item = Column> {
        COLUMNS.into_iter().map(|name| Column { name: name.into(), kind: ColumnKind::Counter })
    }

    /// Words for so many users and as many addresses.
    pub(crate) fn words_needed(entries: usize) -> usize {
        COUNTS + 3 * Cells::words_needed(entries)
    }

    /// Over words that were zero at first, as many as [`Rates::words_needed`] says; `None` where the
    /// session table has not [`Rates::columns`].
    pub(crate) fn new(
        sessions: &Sessions,
        entries: usize,
        words: &'static [AtomicU64],
        seed: u64,
    ) -> Option<Self> {
        let [requests, bytes, refusals] = COLUMNS.map(|name| sessions.counter_column(name));
        let (counts, words) = words.split_at_checked(COUNTS)?;
        let (users, words) = words.split_at_checked(Cells::words_needed(entries))?;
        let (logins, failures) = words.split_at_checked(Cells::words_needed(entries))?;
        let [users, logins, failures] = [users, logins, failures].map(Cells::new);
        Some(Self {
            columns: [requests?, bytes?, refusals?],
            counts,
            users,
            logins,
            failures,
            seed,
        })
    }

    /// Takes out of a bucket of a session. Two loads and a store; nothing where there is no limit.
    ///
    /// # Errors
    /// It is empty.
    pub(crate) fn take_of_session(
        &self,
        sessions: &Sessions,
        conn: ConnId,
        bucket: Bucket,
        rate: Rate,
        now: Millis,
        cost: u64,
    ) -> Result<(), TooSoon> {
        if rate.is_off() {
            return Ok(());
        }
        if let Some(word) = sessions.counter(conn, self.columns[bucket as usize]) {
            word.store(rate.take(word.load(Relaxed), now, cost)?, Relaxed);
        }
        Ok(())
    }

    /// Takes one out of a user's bucket.
    ///
    /// # Errors
    /// It is empty.
    pub(crate) fn take_of_user(&self, user: &str, rate: Rate, now: Millis) -> Result<(), TooSoon> {
        take(&self.users, hash_key(user.as_bytes(), self.seed), rate, now)
    }

    /// Takes a login out of an address's bucket.
    ///
    /// # Errors
    /// It is empty.
    pub(crate) fn take_login(&self, ip: IpAddr, rate: Rate, now: Millis) -> Result<(), TooSoon> {
        take(&self.logins, self.address(ip), rate, now)
    }

    /// Whether an address that has failed may try again.
    ///
    /// # Errors
    /// Not yet.
    pub(crate) fn may_try(
        &self,
        ip: IpAddr,
        patience: Patience,
        now: Millis,
    ) -> Result<(), TooSoon> {
        patience.permit(Failures::from_bits(self.failures.read(self.address(ip))), now)
    }

    /// Notes that an address has failed.
    pub(crate) fn note_failed(&self, ip: IpAddr, patience: Patience, now: Millis) {
        let is_idle = |bits| patience.is_forgotten(Failures::from_bits(bits), now);
        let one_more = |bits| patience.after_one_more(Failures::from_bits(bits), now).to_bits();
        let noted: Result<(), TooSoon> =
            self.failures.update(self.address(ip), is_idle, |bits| Ok(one_more(bits)));
        debug_assert_eq!(noted, Ok(()), "it never refuses");
    }

    /// Counts one more.
    pub(crate) fn count(&self, limit: Limit) {
        self.counts[limit as usize].fetch_add(1, Relaxed);
    }

    /// How many were counted since the start.
    pub(crate) fn counted(&self, limit: Limit) -> u64 {
        self.counts[limit as usize].load(Relaxed)
    }

    /// Buckets of users, and of addresses, that were forgotten to make room for others.
    pub(crate) fn evicted(&self) -> [u64; 2] {
        [self.users.evicted(), self.logins.evicted() + self.failures.evicted()]
    }

    /// What is counted for a client: an IPv6 one by its /64, which is what one client is given.
    fn address(&self, ip: IpAddr) -> u64 {
        match ip.to_canonical() {
            IpAddr::V4(ip) => hash_key(&ip.octets(), self.seed),
            IpAddr::V6(ip) => hash_key(&ip.octets()[..8], self.seed),
        }
    }
}

/// Takes one out of a bucket in a cell, which holds microseconds.
fn take(cells: &Cells, hash: u64, rate: Rate, now: Millis) -> Result<(), TooSoon> {
    if rate.is_off() {
        return Ok(());
    }
    let is_full = |full_at_us| full_at_us <= now.0.saturating_mul(1_000);
    cells.update(hash, is_full, |full_at_us: u64| {
        let full_at_ns = rate.take(full_at_us.saturating_mul(NS_PER_US), now, 1)?;
        Ok(full_at_ns.div_ceil(NS_PER_US))
    })
}
