//! [`FolderRate`]: how many changes a folder may have accepted, so that one leaves room for the others.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};
use longrun::ResourceId;
use longrun_snapshot::service::{Admission, Throttled};

/// After so many admissions, folders that have their whole share again are forgotten.
const FORGET_EVERY: u32 = 1024;

/// So many changes a second in each folder, and a burst of ten seconds' worth.
pub struct FolderRate {
    limiter: DefaultKeyedRateLimiter<ResourceId>,
    clock: DefaultClock,
    admissions: AtomicU32,
}

impl fmt::Debug for FolderRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FolderRate").field("folders", &self.limiter.len()).finish_non_exhaustive()
    }
}

impl FolderRate {
    /// At most so many changes a second on the average.
    pub fn per_second(changes: NonZeroU32) -> Self {
        let burst = changes.saturating_mul(NonZeroU32::MIN.saturating_add(9));
        Self {
            limiter: RateLimiter::keyed(Quota::per_second(changes).allow_burst(burst)),
            clock: DefaultClock::default(),
            admissions: AtomicU32::new(0),
        }
    }
}

impl Admission for FolderRate {
    fn admit(&self, folder: &ResourceId) -> Result<(), Throttled> {
        // Names of folders come from callers: what is remembered of them must not grow without end.
        if self.admissions.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limiter.retain_recent();
        }
        let throttled =
            |until: NotUntil<_>| Throttled { retry_after: until.wait_time_from(self.clock.now()) };
        self.limiter.check_key(folder).map_err(throttled)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn folder(id: &str) -> ResourceId {
        ResourceId::new(id).unwrap()
    }

    #[test]
    fn a_folder_that_had_its_share_waits_and_others_do_not() {
        // One in a second: the test does not take long enough for another.
        let rate = FolderRate::per_second(NonZeroU32::MIN);
        for _ in 0..10 {
            assert_eq!(rate.admit(&folder("a")), Ok(()));
        }
        let wait = rate.admit(&folder("a")).unwrap_err().retry_after;
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(rate.admit(&folder("b")), Ok(()));
    }

    #[test]
    fn folders_are_forgotten() {
        let rate = FolderRate::per_second(NonZeroU32::MAX);
        for number in 0..100 * FORGET_EVERY {
            assert_eq!(rate.admit(&folder(&format!("f{number}"))), Ok(()));
        }
        assert!(rate.limiter.len() <= 2 * FORGET_EVERY as usize, "{rate:?}");
    }
}
