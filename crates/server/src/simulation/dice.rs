//! Chance that a seed repeats.
//!
//! Invariant: the throws follow from the seed alone.

/// Dice of one seed: splitmix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that throw what this seed says.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let word = usize::try_from(self.word() >> 1).unwrap_or_default();
        word.checked_rem(end).unwrap_or_default()
    }

    /// True once in `times` throws on average.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of several; `None` of none.
    pub fn pick<'i, T>(&mut self, items: &'i [T]) -> Option<&'i T> {
        items.get(self.below(items.len()))
    }

    /// A number below 2^`bits`, small ones as likely as large ones.
    pub fn magnitude(&mut self, bits: u32) -> u32 {
        let most = 1_usize << self.below(bits as usize + 1);
        u32::try_from(self.below(most)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_throws_the_same_again() {
        let throws = |seed| -> Vec<usize> {
            let mut dice = Dice::new(seed);
            (0..50).map(|_| dice.below(6)).collect()
        };
        assert_eq!(throws(7), throws(7));
        assert_ne!(throws(7), throws(8));
        assert!((0..6).all(|side| throws(7).contains(&side)));
        let mut dice = Dice::new(1);
        assert_eq!((dice.below(0), dice.pick::<u8>(&[])), (0, None));
        assert!((0..1_000).all(|_| dice.magnitude(4) < 16));
    }
}
