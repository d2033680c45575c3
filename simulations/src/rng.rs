//! Random numbers that are the same for ever: SplitMix64, written down here so that no
//! dependency's next version changes what a seed means.

/// What [SplitMix64](https://prng.di.unimi.it/splitmix64.c) adds at each step.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng(u64);

/// SplitMix64's finaliser: spreads every bit of `x` over all of them.
pub const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Rng {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(mix(seed ^ GAMMA))
    }

    /// A stream of its own for one purpose, so that more draws for one do not move the other.
    #[must_use]
    pub const fn fork(seed: u64, purpose: u64) -> Self {
        Self(mix(mix(seed).wrapping_add(purpose.wrapping_mul(GAMMA))))
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// A number below `n`, 0 when `n` is 0.
    pub const fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// A number from `low` to `high`, both included.
    pub const fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in so many of a thousand cases.
    pub const fn chance(&mut self, permille: u32) -> bool {
        self.below(1000) < permille as u64
    }

    /// One of a list.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len() as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        let mut rng = Rng::new(1);
        let drawn = [rng.next(), rng.next(), rng.next()];
        let mut again = Rng::new(1);
        assert_eq!(drawn, [again.next(), again.next(), again.next()]);
        assert_eq!(mix(0), 0);
        assert_eq!(mix(1), 0x5692_161d_100b_05e5);
    }
}
