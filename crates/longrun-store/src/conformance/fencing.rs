//! One owner at a time (C17).

use longrun_core::Fence;

use super::bench::Bench;
use super::sample::{Draft, creates, time};
use super::{StoreFixture, wait};
use crate::error::CommitError;
use crate::store::Purge;

/// Each owner gets a higher fence than all before, and never 0.
pub fn each_owner_gets_a_higher_fence(fixture: &mut dyn StoreFixture) {
    let mut last = Fence(0);
    for _ in 0..5 {
        let fence = wait(fixture.store().take_over()).unwrap();
        assert!(fence > last, "{fence} after {last}");
        last = fence;
    }
}

/// Also after restarts.
pub fn fences_go_on_rising_after_a_restart(fixture: &mut dyn StoreFixture) {
    let mut last = Fence(0);
    for _ in 0..4 {
        let fence = wait(fixture.store().take_over()).unwrap();
        assert!(fence > last, "{fence} after {last}");
        last = fence;
        wait(fixture.reopen());
    }
}

/// An owner who was replaced commits nothing more, whether it works on old operations or on new ones; it is told both
/// fences.
pub fn an_older_owner_commits_nothing_more(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let mut live = bench.accept(Draft::chain(1, 1));
    let new = bench.replaced();
    let (_, first) = Draft::chain(2, 1).with(creates("a", "folder")).accept(bench.fence);
    for commit in [live.checkpoint(bench.fence, 0, 1), first] {
        match bench.commit(commit) {
            Err(CommitError::Fenced { held, current }) => {
                assert_eq!(held, bench.fence);
                // Where an operation has a fence of its own, nobody may have got a new one yet.
                let shared = bench.store().cluster().is_some();
                assert!(current == new || shared, "{current} is not {new}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.load(live.id()).revision().0, 1);
}

/// It is told, if it asks.
pub fn an_older_owner_is_told_that_it_is_one(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let live = bench.accept(Draft::chain(1, 2));
    let check = |fence| wait(bench.store().check_owner(live.id(), fence));
    check(bench.fence).unwrap();
    for fence in [Fence(0), Fence(bench.fence.0 + 1), Fence(u64::MAX)] {
        let error = check(fence).unwrap_err();
        assert!(matches!(error, CommitError::Fenced { held, .. } if held == fence), "{error:?}");
    }
    bench.replaced();
    let error = check(bench.fence).unwrap_err();
    assert!(matches!(error, CommitError::Fenced { .. }), "{error:?}");
}

/// Nor does it purge.
pub fn an_older_owner_purges_nothing_more(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let live = bench.finished(Draft::chain(1, 1), 2);
    bench.replaced();
    let purge = Purge { only: None, done_until: time(9), keys_expire_at: time(9), now: time(9), limit: 9 };
    let error = wait(bench.store().purge(bench.fence, purge)).unwrap_err();
    assert!(matches!(error, CommitError::Fenced { .. }), "{error:?}");
    assert!(bench.is_there(live.id()));
}

/// A fence that nobody was given owns nothing.
pub fn a_fence_that_was_never_given_out_is_refused(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for fence in [Fence(0), Fence(bench.fence.0 + 1), Fence(u64::MAX)] {
        let (live, commit) = Draft::chain(1, 1).accept(fence);
        let error = bench.commit(commit).unwrap_err();
        assert!(matches!(error, CommitError::Fenced { .. }), "{error:?}");
        assert!(!bench.is_there(live.id()));
    }
}

/// A new owner goes on where the old one stopped.
pub fn a_new_owner_goes_on_where_the_old_one_stopped(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let mut live = bench.accept(Draft::chain(1, 2));
    let commit = live.done(bench.fence, 0);
    bench.stored(&live, commit);
    bench.restart();
    live.execution = bench.load(live.id());
    let commit = live.done(bench.fence, 1);
    bench.stored(&live, commit);
    assert!(live.execution.is_done());
}
