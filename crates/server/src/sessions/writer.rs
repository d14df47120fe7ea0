//! Who writes rows, as the number that a claim in the middle of a write bears.

/// Who writes rows: no two processes that live at the same time have the same number, so that
/// recovering what a dead one held never touches what a living one fills.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writer {
    /// The worker of a slot, in this generation.
    Worker(u16, u32),
    /// A task process.
    Task(u16, u32),
    /// An added process.
    Process(u16, u32),
}

impl Writer {
    /// Predecessor and successor differ in the lowest bit; the kinds in the two highest. 0 is nobody's:
    /// the master writes no rows.
    pub(super) fn number(self) -> u16 {
        let (kind, place, generation) = match self {
            Self::Worker(slot, generation) => (1, slot, generation),
            Self::Task(place, generation) => (2, place, generation),
            Self::Process(place, generation) => (3, place, generation),
        };
        kind << 14 | (place & 0x1fff) << 1 | u16::from(generation % 2 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_living_writers_share_a_number() {
        let mut seen = std::collections::HashSet::from([0]);
        for place in 0..=1_024 {
            for generation in [7, 8] {
                for writer in [
                    Writer::Worker(place, generation),
                    Writer::Task(place, generation),
                    Writer::Process(place, generation),
                ] {
                    assert!(seen.insert(writer.number()), "{writer:?}");
                }
            }
        }
    }
}
