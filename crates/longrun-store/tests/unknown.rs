//! C22, S13: an outcome that is unknown is settled by reading, never by repetition.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::Bench;
use longrun_core::Revision;
use longrun_store::conformance::sample::{Draft, creates, digest, resource_key, time};
use longrun_store::conformance::wait;
use longrun_store::faulty::CommitFault;
use longrun_store::{Commit, CommitError, Conflict, KvStore, OpenError, Purge, Store, StoreError};

const UNKNOWN: [(CommitFault, bool); 5] = [
    (CommitFault::UnknownApplied, true),
    (CommitFault::UnknownNotApplied, false),
    (CommitFault::UnknownLost, false),
    (CommitFault::PanicBefore, false),
    (CommitFault::PanicAfter, true),
];

fn unknown(bench: &Bench, commit: Commit, fault: CommitFault) {
    bench.faults.fail_commit(1, fault);
    let error = bench.commit(commit).unwrap_err();
    assert!(matches!(error, CommitError::Unknown(_)), "{fault:?}: {error:?}");
}

#[test]
fn c22_loading_tells_what_became_of_a_turn_and_the_answer_stays() {
    for (fault, applied) in UNKNOWN {
        for bench in [Bench::inline(), Bench::threaded()] {
            let mut live = bench.accept(Draft::chain(1, 2).with(creates("a", "folder")));
            let mut again = live.clone();
            let commit = live.done(bench.fence, 0);
            unknown(&bench, commit.clone(), fault);
            let expected = if applied { Revision(2) } else { Revision(1) };
            for _ in 0..3 {
                assert_eq!(bench.load(live.id()).unwrap().revision(), expected, "{fault:?}");
            }
            // The same turn once more: refused if it had happened, taken if it had not. Never twice.
            match bench.commit(commit.clone()) {
                Ok(()) => assert!(!applied),
                Err(CommitError::Conflict(Conflict::Operation { found, .. })) => {
                    assert!(applied);
                    assert_eq!(found, Some(Revision(2)));
                }
                other => panic!("{fault:?}: {other:?}"),
            }
            assert!(matches!(bench.commit(commit), Err(CommitError::Conflict(_))));
            // Nor does another turn from the same point.
            let other = again.fails(bench.fence, 0, false);
            assert!(matches!(bench.commit(other), Err(CommitError::Conflict(_))));
            bench.commit(live.done(bench.fence, 1)).unwrap();
            bench.verify();
        }
    }
}

#[test]
fn c22_loading_tells_what_became_of_a_submit() {
    for (fault, applied) in UNKNOWN {
        let bench = Bench::threaded();
        let draft = Draft::chain(1, 1).with(creates("a", "folder")).with_key(1);
        let (live, commit) = draft.accept(bench.fence);
        unknown(&bench, commit.clone(), fault);
        // Together, or not at all (C7).
        assert_eq!(bench.load(live.id()).is_some(), applied);
        assert_eq!(wait(bench.store.resource(&resource_key("a"))).unwrap().is_some(), applied);
        assert_eq!(wait(bench.store.ledger(&digest(1))).unwrap().is_some(), applied);
        assert_eq!(wait(bench.store.due(time(100), None, 10)).unwrap().len(), usize::from(applied));
        bench.verify();
        assert_eq!(bench.commit(commit).is_ok(), !applied);
        bench.verify();
    }
}

#[test]
fn c22_loading_tells_what_became_of_the_end() {
    for (fault, applied) in UNKNOWN {
        let bench = Bench::threaded();
        let mut live = bench.accept(Draft::chain(1, 1).with(creates("a", "folder")));
        for n in 0..3 {
            bench.commit(live.checkpoint(bench.fence, 0, n)).unwrap();
            bench.commit(live.resume(bench.fence)).unwrap();
        }
        let commit = live.done(bench.fence, 0);
        unknown(&bench, commit.clone(), fault);
        assert_eq!(bench.load(live.id()).unwrap().is_done(), applied);
        bench.verify();
        assert_eq!(bench.commit(commit).is_ok(), !applied);
        assert!(bench.load(live.id()).unwrap().is_done());
        bench.verify();
    }
}

#[test]
fn an_unknown_purge_is_done_again() {
    for (fault, applied) in UNKNOWN {
        let bench = Bench::threaded();
        let mut live = bench.accept(Draft::chain(1, 1).with(creates("a", "folder")).with_key(1));
        bench.commit(live.done(bench.fence, 0)).unwrap();
        let purge =
            Purge { only: None, done_until: time(100), keys_expire_at: time(200), now: time(100), limit: 10 };
        bench.faults.fail_commit(1, fault);
        let error = wait(bench.store.purge(bench.fence, purge)).unwrap_err();
        assert!(matches!(error, CommitError::Unknown(_)), "{error:?}");
        bench.verify();
        assert_eq!(wait(bench.store.purge(bench.fence, purge)).unwrap().operations, usize::from(!applied));
        assert!(bench.load(live.id()).is_none());
        bench.verify();
    }
}

#[test]
fn damage_found_by_a_commit_reopens_and_is_named() {
    let bench = Bench::threaded();
    let mut live = bench.accept(Draft::chain(1, 2));
    bench.faults.fail_commit(1, CommitFault::Corrupt);
    let commit = live.done(bench.fence, 0);
    let error = bench.commit(commit.clone()).unwrap_err();
    assert!(matches!(error, CommitError::Unreadable(StoreError::Corrupt { .. })), "{error:?}");
    assert_eq!(bench.faults.reopened(), 1);
    bench.commit(commit).unwrap();
}

#[test]
fn unknown_first_records_leave_a_store_that_can_be_opened() {
    for (fault, _) in UNKNOWN {
        let (kv, faults) = longrun_store::faulty::FaultyKv::new(longrun_store::MemoryKv::new());
        let kv = Arc::new(kv);
        faults.fail_commit(1, fault);
        let error = KvStore::open_inline(Arc::clone(&kv), [1; 32]).unwrap_err();
        assert!(matches!(error, OpenError::Store(StoreError::Unavailable(_))), "{fault:?}: {error:?}");
        // A new process opens the engine anew.
        longrun_store::Kv::reopen(&kv).unwrap();
        let first = KvStore::open_inline(Arc::clone(&kv), [2; 32]).unwrap().page_secret();
        let store = KvStore::open_inline(Arc::clone(&kv), [3; 32]).unwrap();
        assert_eq!(store.page_secret(), first, "the secret is drawn once");
        assert!(wait(store.take_over()).unwrap() > longrun_core::Fence(0));
        longrun_store::conformance::verify_indexes(kv.inner()).unwrap();
    }
}

/// XF: every commit of a scenario fails once, in each way; whoever reads and goes on from what it reads ends the same.
#[test]
fn c22_a_driver_that_settles_by_reading_survives_a_fault_at_every_commit() {
    let faults = [
        CommitFault::NotApplied,
        CommitFault::TakenBack,
        CommitFault::UnknownApplied,
        CommitFault::UnknownNotApplied,
        CommitFault::UnknownLost,
        CommitFault::PanicBefore,
        CommitFault::PanicAfter,
    ];
    for fault in faults {
        let mut position = 1;
        loop {
            let bench = Bench::inline();
            bench.faults.fail_commit(position, fault);
            let before = bench.fired();
            let (first, commit) =
                Draft::chain(1, 3).with(creates("a", "folder")).with_key(1).accept(bench.fence);
            if bench.commit(commit.clone()).is_err() && bench.load(first.id()).is_none() {
                bench.commit(commit).unwrap();
            }
            let mut turns = 0;
            loop {
                let mut live = longrun_store::conformance::sample::Live {
                    execution: bench.load(first.id()).unwrap(),
                    now: time(10),
                };
                if live.execution.is_done() {
                    break;
                }
                let step = live.execution.next(time(10)).run[0].0;
                // The outcome comes with the revision that it makes; what is stored tells whether it was recorded.
                _ = bench.commit(live.done(bench.fence, step));
                turns += 1;
                assert!(turns <= 4, "{fault:?} at {position}");
                bench.verify();
            }
            assert_eq!(bench.load(first.id()).unwrap().finished().unwrap().attempts, [1, 1, 1]);
            bench.verify();
            if bench.fired() == before {
                assert_eq!(position, 5, "four commits, each failed once");
                break;
            }
            position += 1;
        }
    }
}
