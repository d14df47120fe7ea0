//! What can only be judged when all is over: what the server said it could not do, and deeds that never
//! came about.
//!
//! Knows what was asked for and what came of it. Without it a server that takes nothing would lose nothing.

use super::body::Name;
use super::deeds::Outcome;
use crate::bench::client::connection::LifeId;
use crate::bench::client::faults::{Fault, Faults};
use crate::bench::flags::Deed;
use std::collections::HashSet;

/// Answers that a recipient has no session, kept until it is known whether that was so.
#[derive(Debug, Default)]
pub(super) struct Absences {
    said: Vec<Name>,
}

impl Absences {
    /// The server says that nobody is there to take this message.
    pub(super) fn note(&mut self, name: Name) {
        self.said.push(name);
    }

    /// A message came: if it was denied, that is known already.
    pub(super) fn came(&mut self, name: Name) {
        self.said.retain(|said| *said != name);
    }

    /// Whoever is open in the end was open all the time.
    pub(super) fn judge(&self, open: &HashSet<LifeId>, faults: &mut Faults) {
        for name in self.said.iter().filter(|name| open.contains(&name.to)) {
            faults.add(Fault::Untrue, || {
                format!("{name:?}: nobody there, it was said, and the recipient was open")
            });
        }
    }
}

/// So often another deed may have come in between, until it is no luck any more: an upgrade that is asked for
/// beside others ends each balance and drain under way.
const TRIES_BEFORE_NEVER: usize = 6;

/// Each kind of deed that was asked for was done at least once, if it was tried often; and any was.
pub(super) fn judge_deeds(asked: &[Deed], outcomes: &[Outcome], faults: &mut Faults) {
    let any_done = outcomes.iter().any(|outcome| outcome.problem.is_none());
    for (place, deed) in asked.iter().enumerate() {
        let tried = outcomes.iter().filter(|outcome| outcome.deed == *deed);
        let tried: Vec<_> = tried.collect();
        let done = tried.iter().any(|outcome| outcome.problem.is_none());
        // Where one is chosen each time, not every kind need have had its turn.
        let unlucky = any_done && tried.len() < TRIES_BEFORE_NEVER;
        if done || asked[..place].contains(deed) || unlucky {
            continue;
        }
        faults.add(Fault::Deed, || format!("{}: it was never done", deed.name()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(to: u32) -> Name {
        Name { from: LifeId(1), to: LifeId(to), number: 0 }
    }

    fn count(faults: &Faults) -> u64 {
        faults.broken().map(|(_, count)| count).sum()
    }

    #[test]
    fn who_was_open_to_the_end_was_not_absent() {
        let mut absences = Absences::default();
        absences.note(name(7));
        absences.note(name(8));
        let mut faults = Faults::default();
        absences.judge(&HashSet::from([LifeId(8), LifeId(9)]), &mut faults);
        assert_eq!(count(&faults), 1);
    }

    #[test]
    fn a_deed_that_never_came_about_breaks_the_run() {
        let outcome = |deed, problem: Option<&str>| Outcome {
            deed,
            took_ms: 1,
            problem: problem.map(str::to_owned),
            excused: true,
        };
        let judged = |asked: &[Deed], outcomes: &[Outcome]| {
            let mut faults = Faults::default();
            judge_deeds(asked, outcomes, &mut faults);
            count(&faults)
        };
        let (failed, done) = (outcome(Deed::Upgrade, Some("no")), outcome(Deed::Reload, None));
        assert_eq!(judged(&[Deed::Upgrade], &[failed.clone(), failed.clone()]), 1);
        let once = [failed.clone(), done.clone()];
        assert_eq!(judged(&[Deed::Upgrade, Deed::Reload], &once), 0, "another came in between");
        let mut often = vec![failed; TRIES_BEFORE_NEVER];
        often.push(done.clone());
        assert_eq!(judged(&[Deed::Upgrade, Deed::Reload], &often), 1, "it always failed");
        assert_eq!(judged(&[Deed::Upgrade, Deed::Reload], &[done]), 0, "it had no turn");
        assert_eq!(judged(&[Deed::Reload], &[]), 1, "nothing was done at all");
    }
}
