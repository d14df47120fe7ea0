//! When messages are sent: each behind the answer to one before it, or by the clock.
//!
//! By the clock, a message's time begins when it was due, however late it was sent: a server that
//! stalls makes all that is due meanwhile late, and cannot hide it (coordinated omission).

use super::meter::Meter;
use super::net::{Net, Talk};
use super::part::{Late, Part};
use crate::bench::client::moment::Moment;
use crate::failure::Failure;
use std::time::Duration;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// So many messages of each sender are under way at once.
    Closed { depth: u32 },
    /// So many a second, of all senders together.
    Open { rate: u32 },
}

/// Messages of one kind, and what is owed for them.
pub(super) trait Traffic: Talk {
    /// Connections that send: the first so many.
    fn senders(&self) -> usize;
    /// Sends one message that is due at `due`.
    fn send(&mut self, net: &mut Net, link: usize, due: Moment);
    /// Whether a message that is done is followed by another one.
    fn go_on(&mut self, on: bool);
    /// What is still to come.
    fn owed(&self) -> u64;
    /// Says what was owed and did not come.
    fn settle(&mut self, net: &mut Net);
    /// What was measured since this was last called.
    fn take(&mut self) -> Part;
}

/// What is sent before anything is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) warm_up: Duration,
    pub(super) measured: Duration,
}

impl Times {
    /// A run of this length, of which the first part is not measured.
    pub(super) fn of(whole: Duration) -> Self {
        let warm_up = (whole / 5).min(Duration::from_secs(1));
        Self { warm_up, measured: whole - warm_up }
    }
}

/// Nothing came for so long: what is owed will not come.
const SILENCE_MS: u64 = 5_000;

/// One round: sends for as long as it was told, waits for what is owed, and gives what was measured.
///
/// # Errors
/// Polling fails.
pub(super) fn round(
    net: &mut Net,
    traffic: &mut impl Traffic,
    pace: Pace,
    times: Times,
    meter: &Meter,
) -> Result<Part, Failure> {
    let begun = Moment::now();
    let mut clock = Clock { begun, sent: 0, senders: traffic.senders(), pace };
    // What came of an earlier round says nothing of this one.
    (net.now, net.heard_at) = (begun, begun);
    if let Pace::Closed { depth } = pace {
        traffic.go_on(true);
        for link in 0..traffic.senders() {
            (0..depth).for_each(|_| traffic.send(net, link, begun));
        }
    }
    let mut late = Late::default();
    clock.run(net, traffic, begun.plus(times.warm_up), &mut late)?;
    traffic.take();
    late = Late::default();
    let before = meter.read();
    clock.run(net, traffic, begun.plus(times.warm_up + times.measured), &mut late)?;
    let used = meter.read().since(&before);
    let mut part = traffic.take();
    (part.used, part.workers, part.late) = (used, meter.workers(), late);
    traffic.go_on(false);
    net.heard_at = Moment::now();
    while traffic.owed() > 0 && !net.is_broken() {
        let until = Moment::now().plus_ms(10);
        net.turn(until, traffic)?;
        if net.now.ms_since(net.heard_at) > SILENCE_MS {
            break;
        }
    }
    traffic.settle(net);
    Ok(part)
}

struct Clock {
    begun: Moment,
    sent: u64,
    senders: usize,
    pace: Pace,
}

impl Clock {
    /// Serves until a moment, or until a promise is broken.
    fn run(
        &mut self,
        net: &mut Net,
        traffic: &mut impl Traffic,
        end: Moment,
        late: &mut Late,
    ) -> Result<(), Failure> {
        loop {
            let now = Moment::now();
            if now >= end || net.is_broken() {
                return Ok(());
            }
            if traffic.owed() > 0 && now.ms_since(net.heard_at) > SILENCE_MS {
                return Ok(());
            }
            net.now = now;
            while let Some(due) = self.due().filter(|due| *due <= now) {
                let link = usize::try_from(self.sent).unwrap_or(0) % self.senders.max(1);
                self.sent += 1;
                late.sent(due, now);
                traffic.send(net, link, due);
            }
            let until = self.due().map_or(end, |due| due.min(end));
            net.turn(until, traffic)?;
        }
    }

    /// When the next message is due; `None` where the clock has no say.
    fn due(&self) -> Option<Moment> {
        match self.pace {
            Pace::Closed { .. } => None,
            Pace::Open { rate } => {
                Some(self.begun.plus_us(self.sent.saturating_mul(1_000_000) / u64::from(rate)))
            }
        }
    }
}
