//! A small seeded random generator (SplitMix64): the same seed gives the same numbers on every machine.

/// A stream of pseudo-random numbers.
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// A stream that starts at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A random seed, from the clock and the process id, so that parallel processes differ.
    #[must_use]
    pub fn arbitrary() -> u64 {
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |passed| {
                u64::from(passed.subsec_nanos()) ^ passed.as_secs().rotate_left(32)
            });
        Self(nanos ^ u64::from(std::process::id()).rotate_left(17)).next_u64() % 1_000_000_000
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..limit`; 0 if `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 {
            0
        } else {
            self.next_u64() % limit
        }
    }

    /// An index into a list of `len` items; 0 if it is empty.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(u64::try_from(len).unwrap_or(u64::MAX))).unwrap_or(0)
    }

    /// An independent stream: it does not depend on how much of this one is used later.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_streams() {
        let (mut one, mut two) = (Seed::new(7), Seed::new(7));
        for _ in 0..100 {
            assert_eq!(one.next_u64(), two.next_u64());
        }
        assert_ne!(Seed::new(7).next_u64(), Seed::new(8).next_u64());
    }

    #[test]
    fn stays_below_its_limit() {
        let mut seed = Seed::new(1);
        let seen: std::collections::BTreeSet<_> = (0..200).map(|_| seed.below(5)).collect();
        assert_eq!(seen, (0..5).collect());
        assert_eq!(seed.below(0), 0);
    }
}
