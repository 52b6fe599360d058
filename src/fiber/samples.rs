//! Which of many idle stacks is looked at.

/// Numbers that follow no pattern, lest they keep step with the program's: every so many fibers may be deep.
pub(super) struct Samples(u32);

impl Samples {
    pub(super) const fn new() -> Self {
        Self(1)
    }

    /// A number less than `bound`, which must not be 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        // A linear congruential generator; its upper bits have the longer periods.
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 16) as usize % bound
    }
}
