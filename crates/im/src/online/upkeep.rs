//! When this node's lease is renewed, when it is swept, and when Redis is tried again.
//!
//! Pure: words and the time in, a verdict out.

use dunlin_server::clock::Millis;

/// The first delay after a failure; it doubles with each further one.
const RETRY_FIRST_MS: u64 = 100;
/// The longest delay, where a third of the lease is longer.
const RETRY_MAX_MS: u64 = 5_000;
/// Keys of users outlive the lease by this: it is for those that nobody looks at.
const GARBAGE_MS: u64 = 60_000;

/// How often the lease is renewed.
pub(crate) fn beat_ms(lease_ms: u64) -> u64 {
    lease_ms / 3
}

/// After how long without being written a user's key goes away by itself.
pub(crate) fn garbage_ms(lease_ms: u64) -> u64 {
    4 * lease_ms + GARBAGE_MS
}

/// What is known of the beats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beats {
    /// Whether the last call to Redis went well.
    pub(crate) connected: bool,
    /// When a beat was last asked for; 0: never.
    pub(crate) asked: Millis,
    /// When one was last over, well or not.
    pub(crate) over: Millis,
    /// When Redis may be tried again.
    pub(crate) retry_at: Millis,
}

/// Whether a beat is due. One that was asked for and is not over is asked for again after a while: it may
/// be lost.
pub(crate) fn beat_is_due(beats: Beats, now: Millis, lease_ms: u64, timeout_ms: u64) -> bool {
    let since = now.since(beats.asked);
    if beats.asked == Millis(0) {
        return true;
    }
    if beats.asked > beats.over {
        return since >= beat_ms(lease_ms).max(2 * timeout_ms);
    }
    if beats.connected { since >= beat_ms(lease_ms) } else { now >= beats.retry_at }
}

/// How long Redis is left alone after so many failures in a row, at least 1; `random` spreads the nodes
/// over a quarter of it, up and down.
pub(crate) fn retry_delay_ms(failures: u64, lease_ms: u64, random: u64) -> u64 {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    // Never longer than until the next beat: the list is to be right one lease after the return.
    let most = beat_ms(lease_ms).min(RETRY_MAX_MS);
    let delay = (RETRY_FIRST_MS << doublings).min(most);
    delay - delay / 4 + random % (delay / 2 + 1)
}

/// Where a sweep is: first over the rows of the session table, then over the users that Redis names as this
/// node's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Nowhere: it is over.
    Rest,
    /// At this row.
    Rows(u64),
    /// At this cursor of Redis.
    Members(u64),
}

/// Bits of a place that tell the row or the cursor.
const AT_BITS: u32 = 52;
const AT_MASK: u64 = (1 << AT_BITS) - 1;

/// A step and the number of its sweep in one word, so that a late step of an earlier sweep moves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    number: u8,
    pub(crate) step: Step,
}

impl Place {
    pub(crate) fn from_word(word: u64) -> Self {
        let at = word & AT_MASK;
        let step = match word >> AT_BITS & 0xf {
            1 => Step::Rows(at),
            2 => Step::Members(at),
            _ => Step::Rest,
        };
        Self { number: word.to_be_bytes()[0], step }
    }

    pub(crate) fn to_word(self) -> u64 {
        let (kind, at) = match self.step {
            Step::Rest => (0, 0),
            Step::Rows(at) => (1, at),
            Step::Members(at) => (2, at),
        };
        u64::from(self.number) << 56 | kind << AT_BITS | at & AT_MASK
    }

    /// The beginning of the next sweep.
    pub(crate) fn next_sweep(self) -> Self {
        Self { number: self.number.wrapping_add(1), step: Step::Rows(0) }
    }

    /// The same sweep further on.
    pub(crate) fn at(self, step: Step) -> Self {
        Self { step, ..self }
    }
}

/// What is known of the sweeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweeps {
    pub(crate) place: Place,
    /// Redis may have forgotten or never heard something: do not wait for the time.
    pub(crate) wanted: bool,
    /// When the last one began.
    pub(crate) began: Millis,
    /// When a piece was last asked for.
    pub(crate) asked: Millis,
    /// When a piece was last over, well or not.
    pub(crate) over: Millis,
}

/// What is to be done about sweeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SweepDue {
    /// Nothing now.
    Nothing,
    /// Ask for the next piece.
    Next,
    /// Begin anew, and ask for the first piece.
    Begin,
}

/// What is to be done about sweeps, while Redis is there.
pub(crate) fn sweep_due(sweeps: Sweeps, now: Millis, lease_ms: u64, timeout_ms: u64) -> SweepDue {
    let under_way = sweeps.asked > sweeps.over;
    if under_way && now.since(sweeps.asked) < beat_ms(lease_ms).max(2 * timeout_ms) {
        return SweepDue::Nothing;
    }
    if sweeps.wanted {
        return SweepDue::Begin;
    }
    match sweeps.place.step {
        Step::Rest if now.since(sweeps.began) >= lease_ms => SweepDue::Begin,
        Step::Rest => SweepDue::Nothing,
        _ => SweepDue::Next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_comes_every_third_of_the_lease_and_again_if_it_was_lost() {
        let due = |connected, asked, over, retry_at, now| {
            let (asked, over, retry_at) = (Millis(asked), Millis(over), Millis(retry_at));
            let beats = Beats { connected, asked, over, retry_at };
            beat_is_due(beats, Millis(now), 15_000, 1_000)
        };
        assert!(due(false, 0, 0, 0, 7), "the first");
        assert!(!due(true, 100, 101, 0, 5_099) && due(true, 100, 101, 0, 5_100));
        assert!(!due(true, 100, 0, 0, 5_099) && due(true, 100, 0, 0, 5_100), "lost");
        assert!(!due(false, 100, 101, 300, 299) && due(false, 100, 101, 300, 300));
        let beats =
            Beats { connected: false, asked: Millis(100), over: Millis(50), retry_at: Millis(0) };
        assert!(!beat_is_due(beats, Millis(1_099), 1_000, 500), "it may still be under way");
        assert!(beat_is_due(beats, Millis(1_100), 1_000, 500));
    }

    #[test]
    fn the_delay_doubles_up_to_a_third_of_the_lease_and_is_spread() {
        let delay = |failures, lease_ms| {
            let all = (0..1_000).map(|random| retry_delay_ms(failures, lease_ms, random));
            (all.clone().min().unwrap(), all.max().unwrap())
        };
        assert_eq!(delay(1, 15_000), (75, 125));
        assert_eq!(delay(2, 15_000), (150, 250));
        assert_eq!(delay(4, 15_000), (600, 1_000));
        assert_eq!(retry_delay_ms(60, 15_000, 0), 3_750);
        assert_eq!(retry_delay_ms(u64::MAX, 15_000, 2_500), 6_250);
        assert_eq!(delay(9, 600), (150, 250));
        assert_eq!(retry_delay_ms(99, u64::MAX, 0), 3_750);
    }

    #[test]
    fn a_place_is_one_word() {
        let mut place = Place::from_word(0);
        assert_eq!(place.step, Step::Rest);
        for n in 0..600_u64 {
            place = place.next_sweep();
            assert_eq!(place.step, Step::Rows(0));
            for step in [Step::Rest, Step::Rows(n), Step::Members(AT_MASK - n), Step::Members(0)] {
                let there = place.at(step);
                assert_eq!(Place::from_word(there.to_word()), there);
                assert_ne!(there.to_word(), place.next_sweep().at(step).to_word());
            }
        }
    }

    #[test]
    fn a_sweep_begins_each_lease_or_when_it_is_wanted_and_goes_on_by_pieces() {
        let rest = Place::from_word(0);
        let rows = rest.next_sweep();
        let due = |place, wanted, began, asked, over, now| {
            let (began, asked, over) = (Millis(began), Millis(asked), Millis(over));
            let sweeps = Sweeps { place, wanted, began, asked, over };
            sweep_due(sweeps, Millis(now), 15_000, 1_000)
        };
        assert_eq!(due(rest, false, 100, 0, 0, 15_099), SweepDue::Nothing);
        assert_eq!(due(rest, false, 100, 0, 0, 15_100), SweepDue::Begin);
        assert_eq!(due(rest, true, 100, 0, 0, 101), SweepDue::Begin);
        assert_eq!(due(rows, false, 100, 100, 101, 101), SweepDue::Next);
        assert_eq!(due(rows, false, 100, 100, 99, 5_099), SweepDue::Nothing, "under way");
        assert_eq!(due(rows, false, 100, 100, 99, 5_100), SweepDue::Next, "lost");
        assert_eq!(due(rows, true, 100, 100, 101, 102), SweepDue::Begin, "anew");
        assert_eq!(due(rows, true, 100, 100, 99, 102), SweepDue::Nothing, "not yet");
    }
}
