//! A limit on bytes per second. Pure: the time is an argument.

use std::{num::NonZeroU64, time::Duration};

/// Tells how long to pause so that a rate is kept.
///
/// Time is counted from any fixed instant. Up to one second's worth may go at once after a time
/// of rest; what goes beyond is paid for afterwards, so a piece of any size can pass.
#[derive(Debug, Clone)]
pub struct RateLimit {
    bytes_per_second: NonZeroU64,
    /// All that has passed is paid for at this time.
    paid_at: Duration,
    /// The latest time seen.
    seen: Duration,
}

impl RateLimit {
    const BURST: Duration = Duration::from_secs(1);

    /// A limit that begins to count at the time `now`, with nothing saved up.
    pub fn new(bytes_per_second: NonZeroU64, now: Duration) -> Self {
        Self { bytes_per_second, paid_at: now, seen: now }
    }

    /// Counts `bytes` that have just passed and returns how long to wait before the next.
    ///
    /// A time before one already seen counts as the latter: a clock set back cannot make the wait long.
    pub fn passed(&mut self, bytes: u64, now: Duration) -> Duration {
        self.seen = self.seen.max(now);
        let earliest = self.seen.saturating_sub(Self::BURST);
        self.paid_at = self.paid_at.max(earliest).saturating_add(self.cost(bytes));
        self.paid_at.saturating_sub(self.seen)
    }

    fn cost(&self, bytes: u64) -> Duration {
        let rate = self.bytes_per_second.get();
        let nanos = (u128::from(bytes % rate) * 1_000_000_000).div_ceil(u128::from(rate));
        Duration::from_secs(bytes / rate)
            .saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn limit(bytes_per_second: u64, now: Duration) -> RateLimit {
        RateLimit::new(NonZeroU64::new(bytes_per_second).unwrap(), now)
    }

    #[test]
    fn one_second_is_free_then_all_is_paid_for() {
        let mut limit = limit(1000, MS(4000));
        assert_eq!(limit.passed(1000, MS(5000)), MS(0));
        assert_eq!(limit.passed(100, MS(5000)), MS(100));
        assert_eq!(limit.passed(100, MS(5100)), MS(100));
        assert_eq!(limit.passed(5000, MS(5200)), MS(5000));
    }

    #[test]
    fn rest_gives_no_more_than_one_second() {
        let mut limit = limit(1000, MS(2000));
        assert_eq!(limit.passed(1500, MS(3_600_000)), MS(500));
    }

    #[test]
    fn a_clock_set_back_does_not_make_the_wait_long() {
        let mut limit = limit(1000, MS(60_000));
        assert_eq!(limit.passed(10, MS(1000)), MS(10));
    }

    #[test]
    fn any_number_is_fine() {
        let mut slow = limit(1, Duration::ZERO);
        assert!(slow.passed(u64::MAX, Duration::ZERO) > MS(0));
        slow.passed(u64::MAX, Duration::MAX);
        let mut fast = limit(u64::MAX, Duration::ZERO);
        assert!(fast.passed(u64::MAX, Duration::ZERO) <= MS(1000));
        assert_eq!(fast.passed(0, MS(2000)), MS(0));
    }

    /// Whoever waits as told keeps the rate over any time, whatever the size of the pieces.
    #[test]
    fn the_rate_is_kept() {
        for piece in [1, 7, 999, 4096, 100_000] {
            let mut limit = limit(4096, Duration::ZERO);
            let (mut now, mut total) = (Duration::ZERO, 0);
            while now < Duration::from_secs(1000) {
                now += limit.passed(piece, now);
                total += piece;
            }
            let most = 4096 * 1001 + piece;
            assert!(total <= most && total + 2 * 4096 > now.as_secs() * 4096, "{piece}: {total} in {now:?}");
        }
    }
}
