//! Blocks claimed, counted, linked, cut off and released.
//!
//! Knows chains and blocks, not what is in them.
//!
//! Invariants: 1. A block is claimed and released by compare-and-swap of its stamp; in between its
//! place is its holder's. 2. Its holder releases it only after marking it as moving; a recovery, which is
//! nobody's holder, writes no place. 3. A stamp with [`CLAIMING`] has a place of an earlier life.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::counts::Counted;
use super::place::Place;
use super::{Chain, Pool, PoolError, PoolLimits, PoolShare};
use crate::free_hints::start_of;
use crate::rows::RowId;
use crate::word::{halves, high_half, low_half};

/// Bit of a stamp whose block has no place yet. Rows have no such index.
pub(super) const CLAIMING: u64 = 1 << 31;

/// Blocks claimed and linked to one another, not yet to a chain.
#[derive(Clone, Copy, Default)]
pub(super) struct Run {
    pub(super) first: Option<u32>,
    pub(super) last: Option<u32>,
}

/// What an append needs, and the bounds of what it may have.
struct Need {
    blocks: u32,
    group: Option<(u16, u32)>,
    further: u32,
    most_further: u32,
}

impl Pool {
    /// Claims and counts the blocks with the ordinals from `from` to before `to`. They stay moving.
    pub(super) fn claim_run(
        &self,
        owner: RowId,
        from: usize,
        to: usize,
        limits: PoolLimits,
    ) -> Result<Run, PoolError> {
        if from >= to {
            return Ok(Run::default());
        }
        let ordinal =
            |number: usize| u32::try_from(number).ok().filter(|number| *number <= self.blocks);
        let (Some(from), Some(to)) = (ordinal(from), ordinal(to)) else {
            return Err(PoolError::PoolFull);
        };
        let share = |share: PoolShare| Some((self.group_of(share.group)?, share.blocks));
        let need = Need {
            blocks: to - from,
            group: limits.share.and_then(share),
            further: to - from.max(1),
            // Nothing kept: a count that a kill left too high refuses nothing.
            most_further: match limits.keep_free {
                0 => u32::MAX,
                kept => self.blocks.saturating_sub(kept),
            },
        };
        // Whom a limit refuses anyway takes no blocks away from others even for a moment.
        self.look_at_limits(&need)?;
        let group = need.group.map(|(group, _)| group);
        let mut run = Run::default();
        for ordinal in from..to {
            let Some(block) = self.claim(owner) else {
                self.release_run(run.first, owner);
                return Err(PoolError::PoolFull);
            };
            self.places[block as usize].store(Place::claimed(group, ordinal).0, Release);
            // Release: whoever sees it without the bit sees its place.
            self.stamps[block as usize].store(owner.to_bits(), Release);
            match run.last {
                Some(last) => self.set_next(last, Some(block)),
                None => run.first = Some(block),
            }
            run.last = Some(block);
        }
        match self.count(&need) {
            Ok(()) => Ok(run),
            Err(error) => {
                self.release_run(run.first, owner);
                Err(error)
            }
        }
    }

    fn look_at_limits(&self, need: &Need) -> Result<(), PoolError> {
        let full = |of, by: u32, most: u32| {
            by > 0 && self.counts.look(of).number().checked_add(by).is_none_or(|sum| sum > most)
        };
        match need.group {
            Some((group, most)) if full(Counted::Group(group), need.blocks, most) => {
                Err(PoolError::GroupFull { group, blocks: most })
            }
            _ if full(Counted::Further, need.further, need.most_further) => Err(need.kept(self)),
            _ => Ok(()),
        }
    }

    /// Counts blocks that are moving: after their places are stored, so that a recount that sees the
    /// count sees them.
    fn count(&self, need: &Need) -> Result<(), PoolError> {
        if let Some((group, most)) = need.group
            && !self.counts.add(Counted::Group(group), need.blocks, most)
        {
            return Err(PoolError::GroupFull { group, blocks: most });
        }
        if self.counts.add(Counted::Further, need.further, need.most_further) {
            return Ok(());
        }
        if let Some((group, _)) = need.group {
            self.counts.subtract(Counted::Group(group), need.blocks);
        }
        Err(need.kept(self))
    }

    /// Marks a block as counted and returns the next one.
    pub(super) fn settle(&self, block: u32) -> Option<u32> {
        let place = self.place(block);
        // Release: whoever sees it settled sees that it was counted.
        self.places[block as usize].store(place.settled().0, Release);
        self.next_of(place)
    }

    /// Takes the blocks from `first` on, as long as they are this owner's, out of the counts, and leaves
    /// them moving.
    fn uncount(&self, first: Option<u32>, owner: RowId) {
        let mut next = first;
        let (mut group, mut in_group, mut further) = (None, 0, 0);
        // As many steps as there are blocks: only a foreign write makes a ring.
        for _ in 0..self.blocks {
            let Some(block) = next.filter(|block| self.owner(*block) == Some(owner)) else { break };
            next = self.next(block);
            let Some(counted) = self.mark_moving(block) else { continue };
            if counted.group() != group {
                self.uncount_group(group, in_group);
                (group, in_group) = (counted.group(), 0);
            }
            in_group += 1;
            further += u32::from(counted.is_further());
        }
        self.uncount_group(group, in_group);
        self.counts.subtract(Counted::Further, further);
    }

    /// The place of a block that is counted and that the caller must take out of the counts now. `None`
    /// for one that was left moving by a kill: it may not be counted, and is never subtracted.
    fn mark_moving(&self, block: u32) -> Option<Place> {
        let place = self.place(block);
        // Release: before the subtraction.
        let marked = |place: Place| {
            let word = &self.places[block as usize];
            word.compare_exchange(place.0, place.moving().0, AcqRel, Relaxed).is_ok()
        };
        (!place.is_moving() && marked(place)).then_some(place)
    }

    fn uncount_group(&self, group: Option<u16>, blocks: u32) {
        if let Some(group) = group {
            self.counts.subtract(Counted::Group(group), blocks);
        }
    }

    fn claim(&self, owner: RowId) -> Option<u32> {
        // Owners start to search at different places, as writers do.
        let start = start_of((owner.index & 0xffff).try_into().unwrap_or_default(), self.blocks);
        while let Some(block) = self.hints.take(start) {
            if self.try_claim(block, owner) {
                return Some(block);
            }
        }
        self.claim_by_scan(owner)
    }

    fn try_claim(&self, block: u32, owner: RowId) -> bool {
        // Acquire: the last holder is done with the block.
        let stamp = &self.stamps[block as usize];
        stamp.compare_exchange(0, owner.to_bits() | CLAIMING, AcqRel, Relaxed).is_ok()
    }

    /// For when no hint leads to a free block: all are taken, or kills lost hints. Puts those back.
    #[cold]
    fn claim_by_scan(&self, owner: RowId) -> Option<u32> {
        let scan = self.hints.begin_scan()?;
        let (mut claimed, mut all_settled) = (None, true);
        for block in 0..self.blocks {
            let stamp = self.stamp(block);
            if stamp != 0 {
                all_settled &= stamp & CLAIMING == 0 && !self.place(block).is_moving();
            } else if claimed.is_some() {
                self.hints.restore(block);
            } else if self.try_claim(block, owner) {
                claimed = Some(block);
            }
        }
        // What is settled now is moving before its release is announced, and free after that.
        if claimed.is_none() && all_settled {
            self.hints.found_nothing(scan);
        }
        claimed
    }

    /// Frees a block that is moving, if it is still this owner's.
    fn release(&self, block: u32, owner: RowId) -> bool {
        self.release_stamped(block, owner.to_bits())
    }

    /// Frees a block if its stamp is still the same.
    pub(super) fn release_stamped(&self, block: u32, stamp: u64) -> bool {
        self.hints.announce();
        // Release: what we did with the block happens before its next holder's claim.
        let word = &self.stamps[block as usize];
        let freed = word.compare_exchange(stamp, 0, AcqRel, Relaxed).is_ok();
        if freed {
            self.hints.restore(block);
        }
        freed
    }

    /// Frees the blocks linked from `first` on, as long as they are this owner's.
    pub(super) fn release_run(&self, first: Option<u32>, owner: RowId) -> u32 {
        self.uncount(first, owner);
        let mut freed = 0;
        let mut next = first;
        while let Some(block) = next {
            next = self.next(block);
            if !self.release(block, owner) {
                break;
            }
            freed += 1;
        }
        freed
    }

    /// Frees all blocks of a chain whose length is 0.
    pub(super) fn release_all(&self, chain: Chain<'_>) -> u32 {
        let (head, tail) = self.ends_of(chain);
        let owner = head.and_then(|head| self.owner(head));
        let mut freed = 0;
        if let Some(owner) = owner {
            self.uncount(head, owner);
            let mut next = head;
            while let Some(block) = next {
                next = self.next(block);
                // The chain never names a block that is not its own any more.
                chain.ends.store(ends(next, next.and(tail)), Release);
                if !self.release(block, owner) {
                    break;
                }
                freed += 1;
            }
        }
        chain.ends.store(0, Release);
        freed
    }

    /// Cuts off what an append that was killed left behind the content. Without a walk if there is
    /// nothing to cut.
    pub(super) fn trim(&self, chain: Chain<'_>) -> u32 {
        let (head, tail) = self.ends_of(chain);
        let (Some(head), Some(tail)) = (head, tail) else { return 0 };
        let Some(owner) = self.owner(head) else { return 0 };
        let keep = self.blocks_for(self.len(chain));
        let Some(last) = keep.checked_sub(1) else { return self.release_all(chain) };
        let ordinal = self.place(tail).ordinal();
        let end = if ordinal as usize == last { Some(tail) } else { self.content(chain).nth(last) };
        let Some(end) = end else { return 0 };
        let Some(first) = self.next(end) else { return 0 };
        chain.ends.store(ends(Some(head), Some(end)), Release);
        self.set_next(end, None);
        self.release_run(Some(first), owner)
    }

    /// The blocks of the content, in their order.
    pub(super) fn content(&self, chain: Chain<'_>) -> impl Iterator<Item = u32> {
        let (head, _) = self.ends_of(chain);
        let blocks = std::iter::successors(head, |block| self.next(*block));
        blocks.take(self.blocks_for(self.len(chain)))
    }

    /// First and last block. Numbers that no block has can only be a foreign write.
    pub(super) fn ends_of(&self, chain: Chain<'_>) -> (Option<u32>, Option<u32>) {
        let word = chain.ends.load(Acquire);
        let block = |half: u32| half.checked_sub(1).filter(|block| *block < self.blocks);
        (block(high_half(word)), block(low_half(word)))
    }

    pub(super) fn owner(&self, block: u32) -> Option<RowId> {
        self.stamps.get(block as usize)?;
        owner_of(self.stamp(block))
    }

    pub(super) fn stamp(&self, block: u32) -> u64 {
        self.stamps[block as usize].load(Acquire)
    }

    pub(super) fn next(&self, block: u32) -> Option<u32> {
        self.next_of(self.place(block))
    }

    pub(super) fn set_next(&self, block: u32, next: Option<u32>) {
        let place = self.place(block).with_next(next);
        self.places[block as usize].store(place.0, Release);
    }

    pub(super) fn place(&self, block: u32) -> Place {
        Place(self.places[block as usize].load(Acquire))
    }

    fn next_of(&self, place: Place) -> Option<u32> {
        place.next().filter(|next| *next < self.blocks)
    }
}

impl Need {
    fn kept(&self, pool: &Pool) -> PoolError {
        PoolError::KeptForShort { blocks: pool.blocks.saturating_sub(self.most_further) }
    }
}

/// Whose a block with this stamp is.
pub(super) fn owner_of(stamp: u64) -> Option<RowId> {
    (stamp != 0).then(|| RowId::from_bits(stamp & !CLAIMING))
}

pub(super) fn ends(head: Option<u32>, tail: Option<u32>) -> u64 {
    let number = |block: Option<u32>| block.map_or(0, |block| block + 1);
    halves(number(head), number(tail))
}
