//! Retention removes only done operations, in bounded batches, with all that points to them (C20).

use longrun_core::Timestamp;

use super::bench::Bench;
use super::sample::{Draft, creates, operation_id, resource_key, time, updates};
use super::{StoreFixture, wait};
use crate::store::{OperationQuery, Purge, Purged};

/// S43: what is not done stays, however old, whatever it is doing.
pub fn only_what_is_done_goes(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let mut lives: Vec<_> = (1..=4).map(|n| bench.accept(Draft::chain(n, 1))).collect();
    let fence = bench.fence;
    let commit = lives[1].fails(fence, 0, true);
    bench.stored(&lives[1], commit);
    let commit = lives[2].fails(fence, 0, false);
    bench.stored(&lives[2], commit);
    let commit = lives[3].cancel(fence);
    bench.stored(&lives[3], commit);
    bench.finished(Draft::chain(9, 1), 9);
    let purge = Purge {
        only: None,
        done_until: Timestamp::MAX,
        keys_expire_at: time(0),
        now: Timestamp::MAX,
        limit: 100,
    };
    assert_eq!(wait(bench.store().purge(fence, purge)).unwrap().operations, 1);
    for live in &lives {
        bench.check(live);
    }
    assert_eq!(bench.due().len(), 4);
}

/// The bound is inclusive: what was done at it goes, what was done a microsecond later stays.
pub fn only_what_is_old_enough_goes(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.finished(Draft::chain(1, 1), 100);
    let purge = |micros: i64| {
        let at = Timestamp::from_unix_micros(time(100).unix_micros() + micros).unwrap();
        let purge = Purge { only: None, done_until: at, keys_expire_at: at, now: at, limit: 10 };
        wait(bench.store().purge(bench.fence, purge)).unwrap()
    };
    assert_eq!(purge(-1), Purged::default());
    assert!(bench.is_there(operation_id(1)));
    assert_eq!(purge(0).operations, 1);
    assert!(!bench.is_there(operation_id(1)));
}

/// One operation can be purged alone: of the others nothing changes, and one that is not done, or not there, stays or is not
/// missed.
pub fn one_operation_goes_alone(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.finished(Draft::chain(1, 1), 10);
    bench.finished(Draft::chain(2, 1).with_key(2), 10);
    bench.finished(Draft::chain(3, 1), 10);
    let live = bench.accept(Draft::chain(4, 1));
    let only = |n, done_until| {
        let id = Some(operation_id(n));
        let purge = Purge { only: id, done_until, keys_expire_at: time(500), now: time(10), limit: 10 };
        wait(bench.store().purge(bench.fence, purge)).unwrap()
    };
    assert_eq!(only(2, time(9)), Purged::default(), "it was done later");
    assert_eq!(only(2, Timestamp::MAX), Purged { operations: 1, ..Purged::default() });
    assert_eq!(only(2, Timestamp::MAX), Purged::default(), "it is gone");
    assert_eq!(only(4, Timestamp::MAX), Purged::default(), "it is not done");
    assert_eq!(only(99, Timestamp::MAX), Purged::default(), "it never was");
    assert!(!bench.is_there(operation_id(2)));
    assert!(bench.is_there(operation_id(1)) && bench.is_there(operation_id(3)));
    bench.check(&live);
}

/// An operation's age counts from when it was done, not from when it was accepted.
pub fn the_age_is_that_of_the_end(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.finished(Draft::chain(1, 1), 200);
    bench.finished(Draft::chain(2, 1), 100);
    assert_eq!(bench.purge(150, 10).operations, 1);
    assert!(bench.is_there(operation_id(1)) && !bench.is_there(operation_id(2)));
}

/// One call removes no more than it was told to, and says whether it has to be called again; the oldest go first.
pub fn a_purge_is_bounded_and_says_when_there_is_more(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for n in 0..10 {
        bench.finished(Draft::chain(n, 1).with_key(u8::try_from(n).unwrap()), 10 + i64::try_from(n).unwrap());
    }
    let mut left = 10;
    for round in 0..4 {
        let purged = bench.purge(1000, 3);
        assert_eq!(purged.operations, left.min(3), "round {round}");
        left -= purged.operations;
        assert_eq!(purged.more, left > 0, "round {round}");
        let stay: Vec<_> = ((10 - left as u64)..10).rev().map(operation_id).collect();
        assert_eq!(bench.ids(&OperationQuery::All, 100), stay);
    }
    // Keys have the same bound.
    let mut keys = 0;
    for round in 0..4 {
        let purge =
            Purge { only: None, done_until: time(0), keys_expire_at: time(0), now: Timestamp::MAX, limit: 3 };
        let purged = wait(bench.store().purge(bench.fence, purge)).unwrap();
        assert!(purged.keys <= 3);
        keys += purged.keys;
        assert_eq!(purged.more, keys < 10, "round {round}");
    }
    assert_eq!(keys, 10);
}

/// Nothing points to what was purged.
pub fn what_was_purged_is_in_no_list(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.finished(Draft::chain(1, 1).with(creates("a", "folder")).with(creates("b", "folder")), 5);
    bench.finished(Draft::chain(2, 1).with(updates(bench.row("a").unwrap())), 50);
    assert_eq!(bench.purge(10, 10).operations, 1);
    assert_eq!(bench.ids(&OperationQuery::All, 10), [operation_id(2)]);
    assert_eq!(bench.ids(&OperationQuery::OfResource(resource_key("a")), 10), [operation_id(2)]);
    assert_eq!(bench.ids(&OperationQuery::OfResource(resource_key("b")), 10), []);
    // Its id is free.
    bench.accept(Draft::chain(1, 1));
}

/// Resources do not go with the operations that made them.
pub fn rows_stay(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let row = bench.resource(1, "a", "folder");
    assert_eq!(bench.purge(1000, 10).operations, 1);
    assert_eq!(bench.row("a"), Some(row.clone()));
    assert_eq!(bench.row_ids("folder", None, 10), ["a"]);
    bench.finished(Draft::chain(2, 1).with(updates(row)), 2000);
}

/// With nothing to do it does nothing and says so.
pub fn a_purge_with_nothing_to_do_does_nothing(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    assert_eq!(bench.purge(1000, 10), Purged::default());
    bench.accept(Draft::chain(1, 1).with_key(1));
    assert_eq!(bench.purge(1000, 10), Purged::default());
}

/// A limit of 0 or of everything neither hangs nor fails.
pub fn a_limit_of_any_size_is_taken(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for n in 0..4 {
        bench.finished(Draft::chain(n, 1), 5);
    }
    assert!(bench.purge(1000, 0).operations <= 1);
    let purged = bench.purge(1000, usize::MAX);
    assert!(purged.operations >= 3 && !purged.more, "{purged:?}");
    assert_eq!(bench.ids(&OperationQuery::All, 10), []);
}

/// What was purged does not come back.
pub fn what_was_purged_stays_gone_after_a_restart(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    bench.finished(Draft::chain(1, 1).with(creates("a", "folder")).with_key(1), 5);
    bench.accept(Draft::chain(2, 1));
    bench.purge(1000, 10);
    bench.restart();
    assert_eq!(bench.ids(&OperationQuery::All, 10), [operation_id(2)]);
    assert_eq!(bench.ids(&OperationQuery::OfResource(resource_key("a")), 10), []);
}
