//! Whether the backend is to be asked now: a circuit breaker in shared words.
//!
//! Knows no request. Closed: every request goes. After a failure the next waits, longer with each in a
//! row. From [`OPEN_AFTER`] failures in a row on it is open: until its time is up nobody asks, and then one
//! does (half-open), whose success closes it. Invariants: 1. The words are written by whoever asks, each
//! alone; whoever dies in between leaves a wait that ends. 2. One success closes it, whoever has it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Failures in a row that open it.
pub(crate) const OPEN_AFTER: u64 = 5;
/// The wait after the first failure, doubled with each more.
const DELAY_MS: u64 = 100;
/// The longest wait.
const DELAY_MAX_MS: u64 = 30_000;

/// How it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Every request goes.
    Closed,
    /// None goes.
    Open,
    /// One goes, to see.
    HalfOpen,
}

impl State {
    /// As the status says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// The breaker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circuit {
    /// In a row.
    failures: &'static AtomicU64,
    /// When the next request may go, in milliseconds of the monotonic clock; 0: now.
    until: &'static AtomicU64,
}

impl Circuit {
    pub(crate) fn new(failures: &'static AtomicU64, until: &'static AtomicU64) -> Self {
        Self { failures, until }
    }

    pub(crate) fn state(&self, now_ms: u64) -> State {
        match (self.is_open(), self.wait_ms(now_ms)) {
            (false, _) => State::Closed,
            (true, 0) => State::HalfOpen,
            (true, _) => State::Open,
        }
    }

    /// How long what waits has to wait, in milliseconds.
    pub(crate) fn wait_ms(&self, now_ms: u64) -> u64 {
        self.until.load(Ordering::Relaxed).saturating_sub(now_ms)
    }

    /// Whether something that cannot wait may be asked now. While it is open and its time is up one may:
    /// the others are told no for as long as that one may take.
    pub(crate) fn may_ask(&self, now_ms: u64, timeout_ms: u64) -> bool {
        if !self.is_open() {
            return true;
        }
        let until = self.until.load(Ordering::Relaxed);
        let taken = now_ms.saturating_add(timeout_ms);
        until <= now_ms
            && self
                .until
                .compare_exchange(until, taken, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// The backend has answered. True if it was open.
    pub(crate) fn succeeded(&self) -> bool {
        let failures = self.failures.swap(0, Ordering::Relaxed);
        self.until.store(0, Ordering::Relaxed);
        failures >= OPEN_AFTER
    }

    /// It has not; `random`: any bits. Gives how long to wait.
    pub(crate) fn failed(&self, now_ms: u64, random: u64) -> u64 {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let wait = delay_ms(failures, random);
        self.until.store(now_ms.saturating_add(wait), Ordering::Relaxed);
        wait
    }

    fn is_open(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= OPEN_AFTER
    }
}

/// How long to wait after so many failures in a row: doubled each time up to a bound, and shortened by a
/// random part of up to half, so that many nodes do not come back at once.
fn delay_ms(failures: u64, random: u64) -> u64 {
    let doublings = failures.saturating_sub(1).min(20);
    let whole = (DELAY_MS << doublings).min(DELAY_MAX_MS);
    whole - random % (whole / 2 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circuit() -> Circuit {
        let word = || &*Box::leak(Box::new(AtomicU64::new(0)));
        Circuit::new(word(), word())
    }

    #[test]
    fn it_opens_after_some_failures_and_one_success_closes_it() {
        let circuit = circuit();
        let mut now = 1_000;
        for _ in 1..OPEN_AFTER {
            now += circuit.failed(now, 0);
            assert_eq!(circuit.state(now), State::Closed);
            assert!(circuit.may_ask(now, 10));
        }
        let wait = circuit.failed(now, 0);
        assert_eq!((circuit.state(now), circuit.wait_ms(now)), (State::Open, wait));
        assert!(!circuit.may_ask(now, 10) && !circuit.may_ask(now + wait - 1, 10));
        now += wait;
        assert_eq!(circuit.state(now), State::HalfOpen);
        assert!(circuit.may_ask(now, 10), "one may see");
        assert!(!circuit.may_ask(now + 9, 10), "and no other meanwhile");
        assert!(circuit.may_ask(now + 10, 10), "unless that one never told");
        assert!(circuit.succeeded());
        assert_eq!((circuit.state(now), circuit.wait_ms(now)), (State::Closed, 0));
        assert!(!circuit.succeeded());
    }

    #[test]
    fn waits_grow_to_a_bound_and_are_spread() {
        let waits: Vec<u64> = (1..12).map(|failures| delay_ms(failures, 0)).collect();
        assert_eq!(
            waits,
            [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]
        );
        assert_eq!(delay_ms(u64::MAX, 0), DELAY_MAX_MS);
        for random in 0..1_000 {
            assert!((50..=100).contains(&delay_ms(1, random)));
            assert!((15_000..=30_000).contains(&delay_ms(40, random * 977)));
        }
    }
}
