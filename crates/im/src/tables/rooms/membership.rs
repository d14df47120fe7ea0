//! One word of a session's row: which room, and how far the session is with it.
//!
//! Pure. `generation of the room:32 | stage:8 | place of the room:24`; 0 for none, since no generation is 0.

use dunlin_table::RowId;

/// One life of a room: its row among the names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Room(pub(super) RowId);

impl Room {
    /// As one word, for a timer that comes back with it.
    pub(crate) fn to_bits(self) -> u64 {
        self.0.to_bits()
    }

    /// The room that [`Room::to_bits`] gave.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(RowId::from_bits(bits))
    }
}

/// How far a session is with a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// On its way in: there may be a hint or none.
    Entering,
    /// In it.
    Member,
    /// On its way out: there may be a hint or none.
    Leaving,
}

/// Such a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Membership(pub(super) u64);

const PLACE_MASK: u64 = (1 << STAGE_SHIFT) - 1;
const STAGE_SHIFT: u32 = 24;

impl Membership {
    pub(super) const NONE: Self = Self(0);

    pub(super) fn new(room: Room, stage: Stage) -> Self {
        let stage = match stage {
            Stage::Entering => 1,
            Stage::Member => 2,
            Stage::Leaving => 3,
        };
        let RowId { index, generation } = room.0;
        Self(u64::from(generation) << 32 | stage << STAGE_SHIFT | u64::from(index) & PLACE_MASK)
    }

    /// The room, in whatever stage; `None` for none.
    pub(super) fn room(self) -> Option<Room> {
        let generation = u32::try_from(self.0 >> 32).unwrap_or(0);
        let index = u32::try_from(self.0 & PLACE_MASK).unwrap_or(0);
        (generation != 0).then_some(Room(RowId { index, generation }))
    }

    /// The stage with this room; `None` if it is another room's word, or no one's.
    pub(super) fn stage_in(self, room: Room) -> Option<Stage> {
        if self.room() != Some(room) {
            return None;
        }
        match self.0 >> STAGE_SHIFT & 0xff {
            1 => Some(Stage::Entering),
            2 => Some(Stage::Member),
            // Any other can only be a foreign write: out is where it can be cleared.
            _ => Some(Stage::Leaving),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_table::MAX_ROWS;

    #[test]
    fn a_word_gives_back_what_it_was_made_of() {
        for (index, generation) in [(0, 1), (7, u32::MAX), (MAX_ROWS - 1, 2)] {
            let room = Room(RowId { index, generation });
            for stage in [Stage::Entering, Stage::Member, Stage::Leaving] {
                let word = Membership::new(room, stage);
                assert_eq!((word.room(), word.stage_in(room)), (Some(room), Some(stage)));
                let next_life = Room(RowId { index, generation: generation ^ 4 });
                assert_eq!(word.stage_in(next_life), None);
            }
        }
        assert_eq!(Membership::NONE.room(), None);
        let foreign = Membership(1 << 32 | 9 << STAGE_SHIFT | 5);
        let room = foreign.room().unwrap();
        assert_eq!(foreign.stage_in(room), Some(Stage::Leaving));
    }
}
