//! How the fields of the protocols are packed into single words, so that each changes by one
//! compare-and-swap.
//!
//! Knows nothing of where the words lie. Everything here is pure arithmetic.
//!
//! Invariants: 1. An all-zero word is the state of memory never used: a free row, an empty link, a
//! free block. 2. A tag only grows (modulo its width); a word that was changed and changed back is
//! never equal to what it was before, until 2^39 changes later.

const _: () = assert!(usize::BITS == 64, "shared words are 64 bit, and so are their indexes");

/// Bytes of a word.
pub(crate) const WORD_BYTES: usize = size_of::<u64>();
/// Words of a cache line. Areas start on one, so that two of them never share one.
pub(crate) const LINE_WORDS: usize = 8;

/// Width of an item number in a word that also carries a tag.
const ITEM_BITS: u32 = 24;
const ITEM_MASK: u64 = (1 << ITEM_BITS) - 1;
/// One bit above the item number: the row has no value yet, or the list node is deleted.
const FLAG: u64 = 1 << ITEM_BITS;
const FLAGGED_TAG_SHIFT: u32 = ITEM_BITS + 1;

/// Most rows, or blocks, that one structure can number (number + 1 must fit 24 bits).
pub(crate) const MAX_ITEMS: u32 = (1 << ITEM_BITS) - 2;

/// A word of shared memory used as an index of this process's memory.
pub(crate) fn index_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A count or size as a word; sizes never exceed 64 bits.
pub(crate) fn word_of(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "taking the low half is what is asked for")]
pub(crate) const fn low_half(word: u64) -> u32 {
    word as u32
}

pub(crate) const fn high_half(word: u64) -> u32 {
    (word >> 32) as u32
}

pub(crate) const fn halves(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

const fn sixteen(word: u64) -> u16 {
    (word & 0xffff) as u16
}

/// What a row is, in its head word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RowState {
    Free,
    /// Somebody is making it; the head names the writer.
    Claiming,
    /// The head names the owner.
    Live,
    /// Deleted from a keyed table, still being taken out of its list; the head names the deleter.
    Dead,
}

/// Head word of a row: `generation:32 | owner or writer:16 | state:16`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head(pub(crate) u64);

impl Head {
    pub(crate) const fn new(generation: u32, holder: u16, state: RowState) -> Self {
        let state = match state {
            RowState::Free => 0,
            RowState::Claiming => 1,
            RowState::Live => 2,
            RowState::Dead => 3,
        };
        Self(halves(generation, (holder as u32) << 16 | state))
    }

    pub(crate) const fn generation(self) -> u32 {
        high_half(self.0)
    }

    pub(crate) const fn holder(self) -> u16 {
        sixteen(self.0 >> 16)
    }

    /// A number that is none of the four can only be a foreign write; it reads as `Claiming` by
    /// writer 0, which nobody touches.
    pub(crate) const fn state(self) -> RowState {
        match sixteen(self.0) {
            0 => RowState::Free,
            2 => RowState::Live,
            3 => RowState::Dead,
            _ => RowState::Claiming,
        }
    }

    pub(crate) fn is_live(self, generation: u32) -> bool {
        self.generation() == generation && self.state() == RowState::Live
    }

    /// The generation the next claim of this row gets: never 0.
    pub(crate) const fn next_generation(self) -> u32 {
        match self.generation().wrapping_add(1) {
            0 => 1,
            generation => generation,
        }
    }
}

/// A tagged reference to an item with one flag: `tag:39 | flag:1 | item + 1:24`.
///
/// As the current word of a row: its block, and whether the block's content counts (`flag` = the row
/// is vacant). As a link of a list: the next row, and whether the node holding the link is deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link(pub(crate) u64);

impl Link {
    pub(crate) const fn item(self) -> Option<u32> {
        match low_half(self.0 & ITEM_MASK) {
            0 => None,
            number => Some(number - 1),
        }
    }

    pub(crate) const fn flagged(self) -> bool {
        self.0 & FLAG != 0
    }

    /// The word that takes this one's place: the tag one higher.
    pub(crate) fn successor(self, item: Option<u32>, flagged: bool) -> Self {
        let tag = (self.0 >> FLAGGED_TAG_SHIFT).wrapping_add(1) << FLAGGED_TAG_SHIFT;
        let flag = if flagged { FLAG } else { 0 };
        Self(tag | flag | item.map_or(0, |item| u64::from(item) + 1))
    }
}

/// Stamp of a block of a row: `tag:40 | writer:16 | taken:8`. The tag grows with each claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp(pub(crate) u64);

impl Stamp {
    const TAKEN: u64 = 1;

    pub(crate) const fn is_taken(self) -> bool {
        self.0 & 0xff == Self::TAKEN
    }

    pub(crate) const fn writer(self) -> u16 {
        sixteen(self.0 >> 8)
    }

    pub(crate) const fn tag(self) -> u64 {
        self.0 >> ITEM_BITS
    }

    pub(crate) fn claimed(self, writer: u16) -> Self {
        Self(self.tag().wrapping_add(1) << ITEM_BITS | u64::from(writer) << 8 | Self::TAKEN)
    }

    pub(crate) const fn freed(self) -> Self {
        Self(self.tag() << ITEM_BITS)
    }
}

/// Deadline word of a row: `life:20 | milliseconds:44`, the life being the low bits of the generation.
///
/// The word of an earlier life is equal to that of a later one only after 2^20 lives of the row, and
/// then only if the deadlines are the same to the millisecond.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Due(pub(crate) u64);

const DUE_BITS: u32 = 44;
const SWEPT: u64 = (1 << DUE_BITS) - 1;
/// The latest deadline there is, in milliseconds: 557 years. What is later is taken for it.
pub const MAX_DEADLINE: u64 = SWEPT - 1;

impl Due {
    pub(crate) fn new(generation: u32, at: u64) -> Self {
        Self(u64::from(generation) << DUE_BITS | at.min(MAX_DEADLINE))
    }

    /// 0: none.
    pub(crate) const fn at(self) -> u64 {
        self.0 & SWEPT
    }

    pub(crate) fn is_of(self, generation: u32) -> bool {
        self.0 >> DUE_BITS == u64::from(generation) << DUE_BITS >> DUE_BITS
    }

    pub(crate) const fn is_swept(self) -> bool {
        self.at() == SWEPT
    }

    /// Whether a sweep at `now` has something to do here.
    pub(crate) const fn is_due(self, now: u64) -> bool {
        self.at() != 0 && (self.at() <= now || self.is_swept())
    }

    /// The same life, taken by a sweep.
    pub(crate) const fn swept(self) -> Self {
        Self(self.0 | SWEPT)
    }

    /// The same life without a deadline.
    pub(crate) const fn without(self) -> Self {
        Self(self.0 & !SWEPT)
    }
}

/// One life of one block: `tag:40 | block + 1:24`, 0 for none. Says which claim is meant, so that a
/// late release never frees the block from its next holder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Life(pub(crate) u64);

impl Life {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn new(block: u32, stamp: Stamp) -> Self {
        Self(stamp.tag() << ITEM_BITS | (u64::from(block) + 1))
    }

    pub(crate) const fn block(self) -> Option<u32> {
        Link(self.0 & ITEM_MASK).item()
    }

    pub(crate) const fn is_of(self, stamp: Stamp) -> bool {
        stamp.is_taken() && self.0 >> ITEM_BITS == stamp.tag()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_unused_memory() {
        assert_eq!(Head(0).state(), RowState::Free);
        assert_eq!(Link(0).item(), None);
        assert!(!Link(0).flagged());
        assert!(!Stamp(0).is_taken());
        assert_eq!(Life::NONE.block(), None);
    }

    #[test]
    fn fields_come_back_as_they_went_in() {
        let head = Head::new(u32::MAX, 0xabcd, RowState::Live);
        assert_eq!((head.generation(), head.holder()), (u32::MAX, 0xabcd));
        assert!(head.is_live(u32::MAX) && !head.is_live(1));
        assert_eq!(head.next_generation(), 1, "0 is no generation");

        let link = Link(0).successor(Some(MAX_ITEMS), true);
        assert_eq!((link.item(), link.flagged()), (Some(MAX_ITEMS), true));
        assert_ne!(link.successor(Some(1), false).successor(Some(MAX_ITEMS), true), link);

        let stamp = Stamp(0).claimed(7);
        assert_eq!((stamp.writer(), stamp.tag(), stamp.is_taken()), (7, 1, true));
        assert_eq!(stamp.freed().claimed(9).tag(), 2);
        let life = Life::new(MAX_ITEMS, stamp);
        assert_eq!(life.block(), Some(MAX_ITEMS));
        assert!(life.is_of(stamp) && !life.is_of(stamp.freed()));
        assert!(!life.is_of(stamp.freed().claimed(7)), "another life of the same block");

        let due = Due::new(u32::MAX, u64::MAX);
        assert_eq!((due.at(), due.is_swept()), (MAX_DEADLINE, false), "no deadline is the mark");
        assert!(due.is_of(u32::MAX) && !due.is_of(u32::MAX - 1) && due.is_due(u64::MAX));
        assert!(due.swept().is_swept() && due.swept().is_due(0) && due.swept().is_of(u32::MAX));
        assert!(!due.without().is_due(u64::MAX) && due.without().is_of(u32::MAX));
        assert!(Due::new(7, 5).is_due(5) && !Due::new(7, 5).is_due(4) && !Due::new(7, 5).is_of(0));
    }
}
