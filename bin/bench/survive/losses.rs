//! Connections that ended, and which kill each is owed to.
//!
//! Pure: `now` is passed in. A connection that a killed worker was serving is closed with 1012, or
//! reset; it may come a little later, when the successor is up. Any other end has no reason.

use crate::bench::client::connection::End;
use crate::bench::client::moment::Moment;

/// A worker that was killed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kill {
    pub(super) at: Moment,
    /// Open connections of ours when it was.
    pub(super) open: u64,
    /// Of them lost to it.
    pub(super) lost: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Losses {
    kills: Vec<Kill>,
    closed_1012: u64,
    reset: u64,
    /// Handshakes and logins that a kill cut.
    cut_connects: u64,
    unexplained: u64,
}

/// A successor that is delayed by a crash loop closes what it finds so much later.
const KILL_EXPLAINS_MS: u64 = 5_000;
/// The close code of a connection whose worker was lost.
const WORKER_LOST: u16 = 1012;

impl Losses {
    /// A worker is about to be killed.
    pub(super) fn kill(&mut self, now: Moment, open: u64) {
        self.kills.push(Kill { at: now, open, lost: 0 });
    }

    /// An open connection ended; true if a kill explains it.
    pub(super) fn lost(&mut self, now: Moment, end: End) -> bool {
        let Some(kill) = recent(&mut self.kills, now).filter(|_| explainable(end)) else {
            self.unexplained += 1;
            return false;
        };
        kill.lost += 1;
        match end {
            End::Closed(_) => self.closed_1012 += 1,
            _ => self.reset += 1,
        }
        true
    }

    /// A connection ended that was not yet logged in; true if a kill explains it. One that was not
    /// `upgraded` may end without a close frame.
    pub(super) fn cut(&mut self, now: Moment, end: End, upgraded: bool) -> bool {
        let possible = explainable(end) || (end == End::HungUp && !upgraded);
        let explained = possible && recent(&mut self.kills, now).is_some();
        self.cut_connects += u64::from(explained);
        explained
    }

    pub(super) fn kills(&self) -> &[Kill] {
        &self.kills
    }

    /// Connections lost to kills: closed with 1012, reset; and those cut before they were open.
    pub(super) fn explained(&self) -> (u64, u64, u64) {
        (self.closed_1012, self.reset, self.cut_connects)
    }

    pub(super) fn unexplained(&self) -> u64 {
        self.unexplained
    }

    /// The largest share of the open connections that one kill took, in percent.
    pub(super) fn worst_share(&self) -> f64 {
        self.kills.iter().map(Kill::share).fold(0.0, f64::max)
    }

    /// The share that a kill took on average, in percent.
    pub(super) fn mean_share(&self) -> f64 {
        let count = u32::try_from(self.kills.len()).unwrap_or(u32::MAX).max(1);
        self.kills.iter().map(Kill::share).fold(0.0, |sum, share| sum + share) / f64::from(count)
    }
}

impl Kill {
    fn share(&self) -> f64 {
        let exact = |number: u64| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        100.0 * exact(self.lost) / exact(self.open.max(1))
    }
}

fn explainable(end: End) -> bool {
    matches!(end, End::Closed(WORKER_LOST) | End::Reset)
}

fn recent(kills: &mut [Kill], now: Moment) -> Option<&mut Kill> {
    kills.last_mut().filter(|kill| now.ms_since(kill.at) <= KILL_EXPLAINS_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::default().plus_ms(ms)
    }

    #[test]
    fn a_kill_explains_what_it_can_and_for_a_while() {
        let mut losses = Losses::default();
        assert!(!losses.lost(at(0), End::Closed(1012)), "nobody was killed");
        losses.kill(at(100), 50);
        assert!(losses.lost(at(101), End::Closed(1012)) && losses.lost(at(900), End::Reset));
        assert!(losses.cut(at(900), End::Reset, true));
        assert!(!losses.cut(at(900), End::HungUp, true));
        for end in [End::Closed(1001), End::Closed(1013), End::Closed(1005), End::HungUp] {
            assert!(!losses.lost(at(101), end), "{end}");
        }
        assert!(!losses.lost(at(5_101), End::Reset), "too late");
        assert_eq!((losses.explained(), losses.unexplained()), ((1, 1, 1), 6));
        assert!(!losses.cut(at(5_101), End::HungUp, false), "too late");
        losses.kill(at(6_000), 50);
        assert!(losses.cut(at(6_001), End::HungUp, false));
        assert_eq!((losses.worst_share(), losses.mean_share()), (4.0, 2.0));
    }
}
