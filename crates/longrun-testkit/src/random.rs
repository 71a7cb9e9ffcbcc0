//! Chance that can be had again: the same seed gives the same numbers, on every machine.

/// A small generator (SplitMix64). Good enough to pick faults, and cheap enough to make one for each seed.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed ^ 0x6c6f_6e67_7275_6e21)
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`; 0 when there is none.
    pub const fn below(&mut self, bound: u64) -> u64 {
        // The bias is far below anything that a test could see.
        if bound == 0 { 0 } else { self.bits() % bound }
    }

    /// A number between two, both included.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True so many times in a thousand.
    pub const fn chance(&mut self, permille: u32) -> bool {
        // Without a draw when it cannot happen: quiet seeds are cheap.
        permille > 0 && self.below(1000) < permille as u64
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        let place = self.below(among.len() as u64);
        among[usize::try_from(place).unwrap_or(0)]
    }

    /// A rate for a swarm: off in about half of all seeds, else up to `most` in a thousand.
    pub fn rate(&mut self, most: u32) -> u32 {
        if self.chance(500) { 0 } else { u32::try_from(self.between(1, u64::from(most))).unwrap_or(most) }
    }
}
