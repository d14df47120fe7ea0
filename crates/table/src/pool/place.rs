//! The word that says where a block is: in which group, the how-manieth of its chain, which comes next.
//!
//! Pure arithmetic.
//!
//! Invariant: zero is the place of a block never used, which counts nowhere.

use crate::word::{MAX_ITEMS, low_half};

/// Most owner groups of one pool: number + 1 must fit 15 bits.
pub const MAX_POOL_GROUPS: u16 = (1 << 15) - 2;
/// Most blocks of one pool: number + 1 must fit 24 bits.
pub const MAX_POOL_BLOCKS: u32 = MAX_ITEMS;

const FIELD_BITS: u32 = 24;
const FIELD_MASK: u64 = (1 << FIELD_BITS) - 1;
const GROUP_SHIFT: u32 = 2 * FIELD_BITS;
const GROUP_MASK: u64 = (1 << 15) - 1;
const MOVING: u64 = 1 << 63;

/// `moving:1 | group + 1:15 | ordinal in the chain:24 | next block + 1:24`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place(pub(super) u64);

impl Place {
    /// Of a block just claimed: moving, and followed by none.
    pub(super) fn claimed(group: Option<u16>, ordinal: u32) -> Self {
        let group = group.map_or(0, |group| u64::from(group) + 1) & GROUP_MASK;
        let ordinal = u64::from(ordinal) & FIELD_MASK;
        Self(MOVING | group << GROUP_SHIFT | ordinal << FIELD_BITS)
    }

    /// Whether a process is about to count the block, or to take it out of the counts, or died there:
    /// nobody knows then if it is counted.
    pub(super) fn is_moving(self) -> bool {
        self.0 & MOVING != 0
    }

    pub(super) fn moving(self) -> Self {
        Self(self.0 | MOVING)
    }

    pub(super) fn settled(self) -> Self {
        Self(self.0 & !MOVING)
    }

    pub(super) fn group(self) -> Option<u16> {
        let number = u16::try_from(self.0 >> GROUP_SHIFT & GROUP_MASK).unwrap_or_default();
        number.checked_sub(1)
    }

    pub(super) fn ordinal(self) -> u32 {
        low_half(self.0 >> FIELD_BITS & FIELD_MASK)
    }

    /// Whether it is not the first block of its chain.
    pub(super) fn is_further(self) -> bool {
        self.ordinal() > 0
    }

    pub(super) fn next(self) -> Option<u32> {
        low_half(self.0 & FIELD_MASK).checked_sub(1)
    }

    pub(super) fn with_next(self, next: Option<u32>) -> Self {
        Self(self.0 & !FIELD_MASK | next.map_or(0, |next| u64::from(next) + 1) & FIELD_MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_went_in() {
        for group in [None, Some(0), Some(MAX_POOL_GROUPS - 1)] {
            for (ordinal, next) in [(0, None), (7, Some(0)), (MAX_ITEMS, Some(MAX_ITEMS - 1))] {
                let place = Place::claimed(group, ordinal).with_next(next);
                assert_eq!((place.group(), place.ordinal(), place.next()), (group, ordinal, next));
                assert!(place.is_moving() && !place.settled().is_moving());
                assert_eq!(place.settled().moving(), place);
                assert_eq!(place.is_further(), ordinal > 0);
            }
        }
        assert_eq!((Place(0).group(), Place(0).ordinal(), Place(0).next()), (None, 0, None));
        assert!(!Place(0).is_moving());
    }
}
