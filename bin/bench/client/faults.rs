//! Promises that can be broken, how often each was, and the first cases in words.
//!
//! Pure.

/// What must not happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    /// A message that was taken for the recipient's sessions and did not come, on an open connection.
    Lost,
    /// A request without an answer, on an open connection.
    Unanswered,
    /// A message or an answer that came twice.
    Doubled,
    /// A message that came behind a later one.
    Reordered,
    /// Bytes that are not what was sent, or not the protocol.
    Damaged,
    /// An answer that says something else than what happened.
    Untrue,
    /// A connection closed though nobody was killed, or with a code that no kill explains.
    Disconnected,
    /// A connect that was refused, reset, turned away, or never answered.
    Refused,
    /// A request that the server's rate limits refused: what was to be loaded was not.
    Limited,
    /// A deed that the server refused, or that failed.
    Deed,
    /// Presence that stayed wrong.
    Presence,
    /// An answer that took longer than --max-stall.
    Stall,
}

impl Fault {
    /// Every one, in the order of the report.
    pub(crate) const ALL: [Self; 12] = [
        Self::Disconnected,
        Self::Refused,
        Self::Lost,
        Self::Unanswered,
        Self::Doubled,
        Self::Reordered,
        Self::Damaged,
        Self::Untrue,
        Self::Limited,
        Self::Presence,
        Self::Stall,
        Self::Deed,
    ];

    /// Its name in the JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Unanswered => "unanswered",
            Self::Doubled => "doubled",
            Self::Reordered => "reordered",
            Self::Damaged => "damaged",
            Self::Untrue => "untrue",
            Self::Disconnected => "disconnected",
            Self::Refused => "refused",
            Self::Limited => "limited",
            Self::Deed => "deed",
            Self::Presence => "presence",
            Self::Stall => "stall",
        }
    }

    /// What a count of it is a count of.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Lost => "messages lost on connections that stayed open",
            Self::Unanswered => "requests never answered on connections that stayed open",
            Self::Doubled => "messages or answers doubled",
            Self::Reordered => "messages out of order",
            Self::Damaged => "messages or frames damaged",
            Self::Untrue => "answers that were not true",
            Self::Disconnected => "connections closed without a reason",
            Self::Refused => "connects refused, reset or not answered",
            Self::Limited => {
                "requests refused with -32002: raise the server's rate limits for this"
            }
            Self::Deed => "deeds refused or failed",
            Self::Presence => "answers in which presence stayed wrong after a kill",
            Self::Stall => "answers later than --max-stall",
        }
    }

    fn place(self) -> usize {
        Self::ALL.iter().position(|fault| *fault == self).unwrap_or(0)
    }
}

/// How often promises were broken.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    counts: [u64; Fault::ALL.len()],
    cases: Vec<(Fault, String)>,
}

/// Of each fault so many cases are kept in words.
const CASES_MAX: u64 = 5;

impl Faults {
    /// Counts one; `case` says which.
    pub(crate) fn add(&mut self, fault: Fault, case: impl FnOnce() -> String) {
        let count = &mut self.counts[fault.place()];
        *count += 1;
        if *count <= CASES_MAX {
            self.cases.push((fault, case()));
        }
    }

    pub(crate) fn count(&self, fault: Fault) -> u64 {
        self.counts[fault.place()]
    }

    /// Those that were counted.
    pub(crate) fn broken(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::ALL
            .into_iter()
            .map(|fault| (fault, self.count(fault)))
            .filter(|(_, count)| *count > 0)
    }

    /// The first cases of one, in words.
    pub(crate) fn cases(&self, fault: Fault) -> impl Iterator<Item = &str> {
        self.cases.iter().filter(move |(of, _)| *of == fault).map(|(_, case)| &**case)
    }
}
