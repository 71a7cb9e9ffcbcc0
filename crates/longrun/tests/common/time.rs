//! Virtual time: follows tokio's paused clock, and can be set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use longrun::{Environment, Timestamp};
use tokio::time::Instant;

#[derive(Clone, Debug)]
pub(crate) struct VirtualTime {
    start: Instant,
    skew_micros: Arc<AtomicI64>,
    tick_micros: Arc<AtomicI64>,
    seed: Arc<AtomicU64>,
}

impl VirtualTime {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            skew_micros: Arc::default(),
            tick_micros: Arc::default(),
            seed: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Sets the wall clock forward or back. Timers do not notice.
    pub(crate) fn skew(&self, millis: i64) {
        self.skew_micros.fetch_add(millis * 1000, Ordering::SeqCst);
    }

    /// From now on the wall clock moves with each look at it, as real ones do.
    pub(crate) fn tick_at_each_look(&self, micros: i64) {
        self.tick_micros.store(micros, Ordering::SeqCst);
    }

    /// The clock of another machine, which shows the same and draws other numbers.
    pub(crate) fn another(&self, seed: u64) -> Self {
        Self {
            start: self.start,
            skew_micros: Arc::default(),
            tick_micros: Arc::default(),
            seed: Arc::new(AtomicU64::new(seed << 32)),
        }
    }

    /// From now on every id of one millisecond is the same.
    pub(crate) fn no_more_chance(&self) {
        self.seed.store(0, Ordering::SeqCst);
    }
}

impl Environment for VirtualTime {
    fn now(&self) -> Timestamp {
        let tick = self.tick_micros.load(Ordering::SeqCst);
        let skew = self.skew_micros.fetch_add(tick, Ordering::SeqCst);
        let elapsed = i64::try_from(self.start.elapsed().as_micros()).unwrap();
        Timestamp::from_unix_micros(1_800_000_000_000_000 + elapsed + skew).unwrap()
    }

    fn random(&self) -> u64 {
        let seed = &self.seed;
        if seed.load(Ordering::SeqCst) == 0 {
            return 0;
        }
        // SplitMix64.
        let mut bits = seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}
