//! Virtual time, and chance that can be repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use longrun::{Environment, Timestamp};
use tokio::time::Instant;

/// Numbers that look random: SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// From 0 to one less than `sides`.
    pub(crate) fn below(&mut self, sides: usize) -> usize {
        usize::try_from(self.next() % sides as u64).unwrap()
    }

    pub(crate) fn one_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, some: &[T]) -> Option<T> {
        (!some.is_empty()).then(|| some[self.below(some.len())].clone())
    }
}

/// Follows tokio's paused clock.
#[derive(Clone, Debug)]
pub(crate) struct VirtualTime {
    start: Instant,
    seed: Arc<AtomicU64>,
}

impl VirtualTime {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), seed: Arc::new(AtomicU64::new(1)) }
    }
}

impl Environment for VirtualTime {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.start.elapsed().as_micros()).unwrap();
        Timestamp::from_unix_micros(1_800_000_000_000_000 + elapsed).unwrap()
    }

    fn random(&self) -> u64 {
        Dice::new(self.seed.fetch_add(1, Ordering::SeqCst)).next()
    }
}
