//! Waiting for what will be, with a deadline: the one place where a test sleeps.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take. Far more than it does, since the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Looks until there is something; panics at the deadline.
pub(crate) fn for_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// Looks until it is so; panics at the deadline. Gives how long it took.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    for_some(what, || so().then_some(()));
    began.elapsed()
}

/// Asserts that it stays so for a while: for promises that something does *not* happen.
pub(crate) fn holds_for(what: &str, time: Duration, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < time {
        assert!(so(), "it did not stay so: {what}");
        thread::sleep(LOOK_EVERY);
    }
}
