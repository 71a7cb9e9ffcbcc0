//! When to try again: a pure function of policy, attempt and seed.

use std::time::Duration;

use crate::error::Invalid;
use crate::limits::DURATION_MILLIS_MAX;

/// Waiting times that double from `first` to `longest`, each spread by jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// No wait is longer than this (L4).
    pub longest: Duration,
}

impl Backoff {
    /// The wait after failure number `failures` (from 1): between half of the doubled time and all of it.
    ///
    /// `seed` picks the point in between. It differs between operations, so that those that failed together
    /// do not come back together.
    pub fn delay(&self, failures: u32, seed: u64) -> Duration {
        let doublings = failures.saturating_sub(1).min(40);
        let full = self.first.saturating_mul(2_u32.saturating_pow(doublings.min(31))).min(self.longest);
        let half = full / 2;
        let permille = u32::try_from(mix(seed ^ u64::from(failures)) % 1001).unwrap_or(0);
        half + half.saturating_mul(permille) / 1000
    }
}

/// SplitMix64's finisher: spreads the bits of a seed.
const fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// How a step is run: how long, how often, and how patiently it is undone. Part of the plan, hence durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepPolicy {
    /// How long one run, or one undo, may take before it is told to stop. 10 minutes unless said.
    pub timeout: Duration,
    /// How long it may go on after it was told to stop, before its future is dropped (C14). 5 seconds.
    pub grace: Duration,
    /// How often a run may fail with a retryable error before the operation rolls back. 5 runs in all.
    pub runs_max: u32,
    /// Waits between runs. 200 ms to 30 s.
    pub backoff: Backoff,
    /// Waits between undos, which are tried without limit (C12). 200 ms to 60 s.
    pub undo_backoff: Backoff,
    /// After so many failed undos in a row the operation shows as blocked. 5.
    pub blocked_after: u32,
}

impl Default for StepPolicy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(600),
            grace: Duration::from_secs(5),
            runs_max: 5,
            backoff: Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(30) },
            undo_backoff: Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(60) },
            blocked_after: 5,
        }
    }
}

impl StepPolicy {
    /// Checks that every duration and count lies in its range.
    pub fn check(&self) -> Result<(), Invalid> {
        let durations = [
            ("timeout", self.timeout),
            ("grace", self.grace),
            ("backoff", self.backoff.first),
            ("backoff", self.backoff.longest),
            ("undo_backoff", self.undo_backoff.first),
            ("undo_backoff", self.undo_backoff.longest),
        ];
        for (field, duration) in durations {
            let millis = duration.as_millis();
            if field != "grace" && !(1..=u128::from(DURATION_MILLIS_MAX)).contains(&millis) {
                return Err(Invalid::new(field, "must be 1 millisecond to 366 days"));
            }
            if millis > u128::from(DURATION_MILLIS_MAX) {
                return Err(Invalid::new(field, "must be at most 366 days"));
            }
        }
        for (field, backoff) in [("backoff", self.backoff), ("undo_backoff", self.undo_backoff)] {
            if backoff.first > backoff.longest {
                return Err(Invalid::new(field, "its first wait must not be longer than its longest"));
            }
        }
        if self.runs_max == 0 {
            return Err(Invalid::new("runs_max", "must be at least 1"));
        }
        if self.blocked_after == 0 {
            return Err(Invalid::new("blocked_after", "must be at least 1"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn l4_a_wait_is_bounded_and_never_below_half(failures in 1_u32..u32::MAX, seed: u64) {
            let backoff = StepPolicy::default().backoff;
            let wait = backoff.delay(failures, seed);
            prop_assert!(wait <= backoff.longest);
            prop_assert!(wait >= backoff.first / 2);
            if failures > 20 {
                prop_assert!(wait >= backoff.longest / 2);
            }
        }
    }

    /// The first that SplitMix64 gives from these seeds.
    #[test]
    fn a_seed_is_spread_as_splitmix64_does() {
        assert_eq!((mix(0), mix(1_234_567)), (0xe220_a839_7b1d_cdaf, 6_457_827_717_110_365_317));
    }

    #[test]
    fn the_default_policy_is_valid_and_bad_ones_are_named() {
        let policy = StepPolicy::default();
        assert_eq!(policy.check(), Ok(()));
        assert_eq!(StepPolicy { runs_max: 0, ..policy }.check().unwrap_err().field, "runs_max");
        assert_eq!(StepPolicy { timeout: Duration::ZERO, ..policy }.check().unwrap_err().field, "timeout");
        assert_eq!(StepPolicy { grace: Duration::MAX, ..policy }.check().unwrap_err().field, "grace");
    }
}
