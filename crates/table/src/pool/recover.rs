//! What kills left in the pool is found and given back, while the living go on.
//!
//! Knows nothing of processes: the caller says which rows are gone and which it holds.
//!
//! Invariants: 1. Only blocks whose owner is gone, or held by the caller, are touched. 2. Of several
//! recoveries, the one that frees a block takes it out of the counts, unless a recount did so.

use super::chains::{CLAIMING, owner_of};
use super::counts::{Count, Counted};
use super::place::Place;
use super::{Chain, Pool};
use crate::rows::RowId;

/// How often a recovery recounts when living processes are in the way, which they are for
/// some instructions at a time.
const RECOUNTS: usize = 3;

impl Pool {
    /// Frees every block whose owner is not live any more, mends the counts, and returns how many
    /// blocks were freed. For after the rows of a dead process were freed; the living may go on
    /// meanwhile.
    pub fn recover(&self, is_live: impl Fn(RowId) -> bool) -> u32 {
        let mut freed = 0;
        for block in 0..self.blocks {
            let stamp = self.stamp(block);
            match owner_of(stamp) {
                None => self.hints.restore(block),
                Some(owner) if !is_live(owner) => freed += self.release_lost(block, stamp),
                Some(_) => {}
            }
        }
        self.hints.forget_exhaustion();
        self.mend_counts();
        freed
    }

    /// Frees the blocks that an append or a free left behind when its process was killed, for rows
    /// that live on, and mends the counts: `chains_of` gives all chains of each row the caller now holds
    /// alone, `None` for all others. Returns how many were freed.
    pub fn reclaim<'a, C: IntoIterator<Item = Chain<'a>>>(
        &self,
        chains_of: impl Fn(RowId) -> Option<C>,
    ) -> u32 {
        let mut freed = 0;
        let mut kept = vec![false; self.blocks as usize];
        for block in 0..self.blocks {
            for chain in self.owner(block).and_then(&chains_of).into_iter().flatten() {
                if self.ends_of(chain).0 == Some(block) {
                    freed += self.trim(chain);
                    self.content(chain).for_each(|block| kept[block as usize] = true);
                }
            }
        }
        for block in (0..self.blocks).filter(|block| !kept[*block as usize]) {
            let stamp = self.stamp(block);
            if owner_of(stamp).is_some_and(|owner| chains_of(owner).is_some()) {
                freed += self.release_lost(block, stamp);
            }
        }
        self.mend_counts();
        freed
    }

    /// Compares the counts of groups and of further blocks with the blocks, sets right what kills left
    /// too high, and returns how many counts could not be looked at because a process was just
    /// changing them: 0, and all are right. One pass over the blocks; nobody waits for it.
    ///
    /// A block that a killed process left in the middle of being counted hinders it until
    /// [`Pool::recover`] or [`Pool::reclaim`] has freed it.
    pub fn recount(&self) -> u32 {
        // The counts before the blocks: what is counted in between is noticed at the end.
        let mut tallies: Vec<Tally> = self.counts.all().map(|of| self.tally(of)).collect();
        for block in 0..self.blocks {
            let stamp = self.stamp(block);
            // One that is being claimed will be counted when its count is seen to have changed.
            if stamp == 0 || stamp & CLAIMING != 0 {
                continue;
            }
            let place = self.place(block);
            for of in Counted::at(place) {
                if let Some(tally) = tallies.get_mut(of.number()) {
                    tally.note(place);
                }
            }
        }
        let left = tallies.iter().filter(|tally| {
            tally.moving || !self.counts.settle(tally.of, tally.seen, tally.blocks)
        });
        u32::try_from(left.count()).unwrap_or(u32::MAX)
    }

    fn mend_counts(&self) {
        for _ in 0..RECOUNTS {
            if self.recount() == 0 {
                break;
            }
        }
    }

    fn tally(&self, of: Counted) -> Tally {
        Tally { of, seen: self.counts.look(of), blocks: 0, moving: false }
    }

    /// Frees one block; what was linked to it is left alone.
    ///
    /// Another recovery may do the same, and the block have a next holder at any time. So it is freed
    /// first, which one of them does, and is counted as it was if its stamp was the same until then.
    /// A kill in between leaves the counts too high, as long as nobody counts the blocks.
    fn release_lost(&self, block: u32, stamp: u64) -> u32 {
        let place = self.place(block);
        let is_counted = stamp & CLAIMING == 0 && !place.is_moving();
        let counted: Vec<_> = Counted::at(place)
            .filter(|_| is_counted)
            .map(|of| (of, self.counts.look(of)))
            .collect();
        let freed = self.release_stamped(block, stamp);
        if freed {
            counted.into_iter().for_each(|(of, seen)| self.counts.subtract_one_since(of, seen));
        }
        u32::from(freed)
    }
}

/// What a recount finds.
struct Tally {
    of: Counted,
    seen: Count,
    blocks: u32,
    moving: bool,
}

impl Tally {
    fn note(&mut self, place: Place) {
        // Its count is about to change, or has just changed, or neither for ever.
        self.moving |= place.is_moving();
        self.blocks += u32::from(!place.is_moving());
    }
}
