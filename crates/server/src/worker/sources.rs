//! What a worker waits on, made by the master before the fork and noted in the ledger then, so that no
//! kill falls between the making and the noting.
//!
//! Knows the epolls and the signal pipe; what is registered with them is the worker's. Two epolls: one
//! for service, one for rest. A resting worker waits on the second; what happens to its connections
//! meanwhile stays pending in the first, for the case that it must go on.

use crate::ledger::{DescriptorKind, Holder, Ledger};
use crate::sys::{descriptor, signals};
use mio::Poll;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};

/// See the module.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(super) service: Poll,
    pub(super) rest: Poll,
    pub(super) signals: RawFd,
    signals_in: RawFd,
}

impl Sources {
    /// Makes them, in the master, for a worker to be.
    pub(crate) fn make(ledger: Ledger, holder: Holder) -> io::Result<Self> {
        let (service, rest) = (Poll::new()?, Poll::new()?);
        let (signals, signals_in) = signals::pipe()?;
        let sources = Self { service, rest, signals, signals_in };
        for number in sources.numbers() {
            ledger.note(number, DescriptorKind::Private, holder);
        }
        Ok(sources)
    }

    /// In the master, after the fork: they are the child's. Dropped they would be closed for both.
    pub(crate) fn leave_to_child(self) {
        mem::forget(self);
    }

    /// In the master, where there is no child: closes them.
    pub(crate) fn close(self, ledger: Ledger) {
        for number in self.numbers() {
            ledger.clear(number);
        }
        for number in [self.signals, self.signals_in] {
            descriptor::close(number);
        }
    }

    /// In the child: signals that come from now on are told by the pipe.
    pub(super) fn take_signals(&self) {
        signals::wake_by(self.signals_in);
    }

    fn numbers(&self) -> [RawFd; 4] {
        [self.service.as_raw_fd(), self.rest.as_raw_fd(), self.signals, self.signals_in]
    }
}
