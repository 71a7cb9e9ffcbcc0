//! Runs a test in many schedules, the same ones each time.
//!
//! `LONGRUN_SCHEDULES=100000` is how many of each sort; by itself it is a number that takes a second or two.
#![allow(dead_code, unreachable_pub, clippy::panic, clippy::disallowed_methods)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};

const SEED: u64 = 0x10A6;
/// Priority changes of a schedule: a fault that needs no more than so many is met with a known chance.
const DEPTH: usize = 3;

fn schedules() -> usize {
    std::env::var("LONGRUN_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(2000)
}

fn run(scheduler: impl Scheduler + 'static, test: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    Runner::new(scheduler, config).run(test);
}

/// The test holds in each of many schedules. A thread that waits for ever is a failure too.
pub fn in_many_schedules(test: impl Fn() + Clone + Send + Sync + 'static) {
    run(RandomScheduler::new_from_seed(SEED, schedules()), test.clone());
    run(PctScheduler::new_from_seed(SEED, DEPTH, schedules()), test);
}

/// What a schedule says in which a thread waits and nobody will wake it.
pub const WAITS_FOR_EVER: &str = "deadlock";

/// The test has a mistake in it, which has to be found in these schedules, and to show as this.
pub fn is_found(shows_as: &str, test: impl Fn() + Clone + Send + Sync + 'static) {
    let found = catch_unwind(AssertUnwindSafe(|| in_many_schedules(test)));
    let Err(panic) = found else { panic!("not found: {shows_as}") };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    assert!(text.contains(shows_as), "found, but not as '{shows_as}': {text}");
}
