//! The idempotency ledger (C15).

use longrun_core::Timestamp;

use super::bench::Bench;
use super::sample::{Draft, digest, time};
use super::{StoreFixture, wait};
use crate::error::Conflict;
use crate::store::{LedgerEntry, Purge, Purged};

fn entry(bench: &Bench<'_>, n: u8) -> Option<LedgerEntry> {
    wait(bench.store().ledger(&digest(n))).unwrap()
}

fn purge(bench: &Bench<'_>, done_until: Timestamp, now: Timestamp) -> Purged {
    let purge = Purge { only: None, done_until, keys_expire_at: time(500), now, limit: 10 };
    wait(bench.store().purge(bench.fence, purge)).unwrap()
}

/// A key that nobody used is unknown, and that is no error.
pub fn a_key_that_nobody_used_is_unknown(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.accept(Draft::chain(1, 1).with_key(1));
    assert_eq!(entry(&bench, 2), None);
}

/// S35: a key names the first operation that used it and the digest of its request, whatever comes after.
pub fn a_key_names_its_first_operation_and_its_request(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let live = bench.accept(Draft::chain(1, 1).with_key(1));
    let (_, second) = Draft::chain(2, 1).with_key(1).accept(bench.fence);
    bench.conflict(second);
    let expected = Some(LedgerEntry { operation: live.id(), fingerprint: [1; 32], expires_at: None });
    for _ in 0..2 {
        assert_eq!(entry(&bench, 1), expected);
        bench.restart();
    }
    let mut live = live;
    let commit = live.done(bench.fence, 0);
    bench.stored(&live, commit);
    assert_eq!(entry(&bench, 1), expected);
}

/// The key outlives the operation for its own time, and says until when.
pub fn a_key_outlives_its_operation(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let live = bench.finished(Draft::chain(1, 1).with_key(1), 5);
    assert_eq!(purge(&bench, time(10), time(10)).operations, 1);
    assert!(!bench.is_there(live.id()));
    for _ in 0..2 {
        let expected =
            LedgerEntry { operation: live.id(), fingerprint: [1; 32], expires_at: Some(time(500)) };
        assert_eq!(entry(&bench, 1), Some(expected.clone()));
        let (_, repeat) = Draft::chain(2, 1).with_key(1).accept(bench.fence);
        assert_eq!(bench.conflict(repeat), Conflict::Idempotency(expected));
        assert_eq!(purge(&bench, time(499), time(499)).keys, 0);
        bench.restart();
    }
}

/// When its time has come the key goes, and the next to use it is the first again.
pub fn a_key_goes_when_its_time_has_come_and_is_free_again(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.finished(Draft::chain(1, 1).with_key(1), 5);
    purge(&bench, time(10), time(10));
    let purged = purge(&bench, time(10), time(500));
    assert_eq!((purged.keys, purged.more), (1, false));
    assert_eq!(entry(&bench, 1), None);
    assert_eq!(purge(&bench, time(10), time(1000)), Purged::default());
    let live = bench.finished(Draft::chain(2, 1).with_key(1), 600);
    assert_eq!(entry(&bench, 1).unwrap().operation, live.id());
    // What was known of the first use does not end the second.
    assert_eq!(purge(&bench, time(10), Timestamp::MAX), Purged::default());
    assert_eq!(entry(&bench, 1).unwrap().operation, live.id());
}

/// As long as its operation is there, done or not, the key stays.
pub fn the_key_of_an_operation_that_is_there_never_goes(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.accept(Draft::chain(1, 1).with_key(1));
    bench.finished(Draft::chain(2, 1).with_key(2), 50);
    assert_eq!(purge(&bench, time(49), Timestamp::MAX), Purged::default());
    assert!(entry(&bench, 1).is_some() && entry(&bench, 2).is_some());
}
