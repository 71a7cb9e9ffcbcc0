//! [`Dice`]: what happens to processes, and when, drawn from the seed.

use std::ops::Range;
use std::time::Duration;

use crate::random::Rng;

/// [`Rng`] for times and places.
#[derive(Clone, Debug)]
pub(crate) struct Dice(Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rng::new(seed))
    }

    /// Dice of their own for a part of the run, so that one part does not shift the chance of another.
    pub(crate) fn of_part(seed: u64, number: u64) -> Self {
        Self::new(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number in the range; its start if it is empty.
    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.0.below(range.end.saturating_sub(range.start))
    }

    pub(crate) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_micros(self.within(range.start * 1000..range.end * 1000))
    }

    /// True once in `times`, on average.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.within(0..times) == 0
    }

    /// One of the items; `None` when there is none.
    pub(crate) fn take<T>(&mut self, items: &mut Vec<T>) -> Option<T> {
        let len = items.len() as u64;
        (len > 0).then(|| usize::try_from(self.within(0..len)).ok()).flatten().map(|at| items.swap_remove(at))
    }
}
