//! Group commit: what comes while the disk is busy shares the next batch, and each is answered by itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::Instant;

use common::{Bench, Pending, queued};
use longrun_core::Condition;
use longrun_store::conformance::sample::{
    Draft, creates, deletes, operation_id, parent, resource_key, resource_kind, time,
};
use longrun_store::conformance::{begin, wait};
use longrun_store::faulty::{CommitFault, Faults, FaultyKv, Small, StallAt};
use longrun_store::{
    Commit, CommitError, Conflict, KvStore, MemoryKv, OperationQuery, Purge, Store, StoreError,
};

type Answer = Result<(), CommitError>;

/// A commit that keeps the committer busy until the stall ends.
fn busy<'a>(bench: &'a Bench, stall: &longrun_store::faulty::Stall) -> Pending<'a, Answer> {
    let (_, commit) = Draft::chain(9000, 1).accept(bench.fence);
    let first = queued(bench.store.commit(commit));
    stall.wait_reached();
    first
}

fn first_commits(bench: &Bench, numbers: std::ops::Range<u64>) -> Vec<Commit> {
    numbers
        .map(|n| Draft::chain(n, 1).with(creates(&format!("r{n}"), "folder")).accept(bench.fence).1)
        .collect()
}

#[test]
fn what_is_queued_while_a_commit_is_in_flight_goes_into_one_batch() {
    let bench = Bench::threaded();
    let before = bench.faults.commits();
    let stall = bench.faults.stall(StallAt::BeforeSync);
    let first = busy(&bench, &stall);
    let pending: Vec<_> =
        first_commits(&bench, 0..100).into_iter().map(|commit| queued(bench.store.commit(commit))).collect();
    stall.release();
    wait(first).unwrap();
    for answer in pending {
        wait(answer).unwrap();
    }
    assert_eq!(bench.faults.commits(), before + 2, "one for the first, one for all others");
    assert_eq!(bench.fired().stalls, 1);
    bench.verify();
}

#[test]
fn each_of_a_batch_is_answered_by_itself() {
    let bench = Bench::threaded();
    let mut live = bench.accept(Draft::chain(1, 2).with_key(1));
    let mut stale = live.clone();
    bench.commit(live.done(bench.fence, 0)).unwrap();

    let stall = bench.faults.stall(StallAt::BeforeSync);
    let first = busy(&bench, &stall);
    let good: Vec<_> =
        first_commits(&bench, 10..13).into_iter().map(|commit| queued(bench.store.commit(commit))).collect();
    let bad = queued(bench.store.commit(stale.checkpoint(bench.fence, 0, 1)));
    let taken = queued(bench.store.commit(Draft::chain(2, 1).with_key(1).accept(bench.fence).1));
    let fenced = queued(bench.store.commit(Draft::chain(3, 1).accept(longrun_core::Fence(77)).1));
    let last = queued(bench.store.commit(live.done(bench.fence, 1)));
    stall.release();

    wait(first).unwrap();
    for answer in good {
        wait(answer).unwrap();
    }
    assert!(matches!(wait(bad), Err(CommitError::Conflict(Conflict::Operation { .. }))));
    assert!(matches!(wait(taken), Err(CommitError::Conflict(Conflict::Idempotency(_)))));
    assert!(matches!(wait(fenced), Err(CommitError::Fenced { .. })));
    wait(last).unwrap();
    bench.verify();
}

#[test]
fn conditions_are_judged_by_what_the_same_batch_will_have_written() {
    let bench = Bench::threaded();
    let before = bench.faults.commits();
    let stall = bench.faults.stall(StallAt::BeforeSync);
    let first = busy(&bench, &stall);

    // A whole life in one batch: accepted, a checkpoint, the same one again, done, and one more.
    let draft = Draft::chain(1, 1).with(creates("a", "folder")).with_key(1);
    let (mut live, accept) = draft.accept(bench.fence);
    let checkpoint = live.checkpoint(bench.fence, 0, 1);
    let mut late = live.clone();
    let done = live.done(bench.fence, 0);
    let row = Draft::chain(2, 1).with(creates("a", "folder")).accept(bench.fence).1;
    let key = Draft::chain(3, 1).with_key(1).accept(bench.fence).1;
    let twice = Draft::chain(1, 2).accept(bench.fence).1;
    let all =
        [accept, checkpoint.clone(), checkpoint, row, key, twice, done, late.checkpoint(bench.fence, 0, 2)];
    let answers: Vec<_> = all.into_iter().map(|commit| queued(bench.store.commit(commit))).collect();
    stall.release();
    wait(first).unwrap();
    let answers: Vec<_> = answers.into_iter().map(wait).collect();
    let mut accepted = Vec::new();
    for (place, answer) in answers.iter().enumerate() {
        match answer {
            Ok(()) => accepted.push(place),
            Err(CommitError::Conflict(_)) => {}
            Err(other) => panic!("{place}: {other:?}"),
        }
    }
    assert_eq!(accepted, [0, 1, 6]);
    assert!(
        matches!(&answers[3], Err(CommitError::Conflict(Conflict::Resource { holder: Some(id), .. })) if *id == live.id())
    );
    assert!(
        matches!(&answers[4], Err(CommitError::Conflict(Conflict::Idempotency(entry))) if entry.operation == live.id())
    );
    assert_eq!(bench.faults.commits(), before + 2);
    assert!(bench.load(live.id()).unwrap().is_done());
    bench.verify();
}

/// Whether a commit is taken that demands that `p` has no child, when children are there by id and parent, and some go, and
/// others come, in the same batch.
#[track_caller]
fn is_childless(there: &[(&str, &str)], goes: &[&str], comes: &[(&str, &str)]) -> bool {
    let bench = Bench::threaded();
    let mut numbers = 1..;
    let mut creation = |id, of| Draft::chain(numbers.next().unwrap(), 1).with(creates(id, of));
    for (id, of) in there {
        let mut live = bench.accept(creation(id, of));
        bench.commit(live.done(bench.fence, 0)).unwrap();
    }
    let mut ends = Vec::new();
    for (n, id) in (100..).zip(goes) {
        let row = wait(bench.store.resource(&resource_key(id))).unwrap().unwrap();
        ends.push(bench.accept(Draft::chain(n, 1).with(deletes(row))));
    }
    let stall = bench.faults.stall(StallAt::BeforeSync);
    let first = busy(&bench, &stall);
    let ends = ends.iter_mut().map(|live| live.done(bench.fence, 0));
    let births = comes.iter().map(|(id, of)| creation(id, of).accept(bench.fence).1);
    let changes: Vec<_> = ends.chain(births).map(|commit| queued(bench.store.commit(commit))).collect();
    let condition = Condition::Childless { kind: resource_kind(), parent: parent("p") };
    let (_, commit) = Draft::chain(200, 1).accept(bench.fence);
    let demand = queued(bench.store.commit(commit.with_conditions(vec![condition])));
    let before = bench.faults.commits();
    stall.release();
    wait(first).unwrap();
    for change in changes {
        wait(change).unwrap();
    }
    let taken = match wait(demand) {
        Ok(()) => true,
        Err(CommitError::Conflict(Conflict::Condition(_))) => false,
        other => panic!("{other:?}"),
    };
    assert_eq!(bench.faults.commits(), before + 1, "all in one batch");
    bench.verify();
    taken
}

#[test]
fn whether_a_parent_has_children_is_judged_by_what_the_same_batch_will_have_written() {
    assert!(is_childless(&[], &[], &[("a", "q")]), "the child of another");
    assert!(!is_childless(&[], &[], &[("a", "p")]));
    assert!(is_childless(&[("a", "p")], &["a"], &[]), "its only child goes");
    assert!(is_childless(&[("a", "p"), ("b", "p")], &["a", "b"], &[]));
    assert!(!is_childless(&[("a", "p"), ("b", "p")], &["a"], &[]), "one stays");
    assert!(!is_childless(&[("a", "p"), ("b", "p")], &["b"], &[]));
    assert!(!is_childless(&[("a", "p"), ("b", "q")], &["b"], &[]), "that of another goes");
    assert!(!is_childless(&[("a", "p")], &["a"], &[("b", "p")]), "one goes, another comes");
    assert!(is_childless(&[("a", "p"), ("b", "q")], &["a"], &[("c", "q"), ("d", "pp")]));
}

#[test]
fn a_refusal_that_rests_on_the_same_batch_waits_until_that_is_durable() {
    let bench = Bench::threaded();
    let stall = bench.faults.stall(StallAt::BeforeSync);
    let first = busy(&bench, &stall);
    let mut winner = queued(bench.store.commit(Draft::chain(1, 1).with_key(1).accept(bench.fence).1));
    let mut loser = queued(bench.store.commit(Draft::chain(2, 1).with_key(1).accept(bench.fence).1));
    // Another stall takes the place of this one without a gap: it holds the batch of the two.
    let next = bench.faults.stall_again(stall, StallAt::BeforeSync);
    wait(first).unwrap();
    next.wait_reached();
    assert!(begin(&mut winner).is_none());
    assert!(begin(&mut loser).is_none(), "nobody may know of an operation that a crash would take back");
    next.release();
    wait(winner).unwrap();
    assert!(matches!(wait(loser), Err(CommitError::Conflict(Conflict::Idempotency(_)))));
}

#[test]
fn a_refusal_that_rests_on_a_batch_that_failed_is_unknown_too() {
    let bench = Bench::threaded();
    let stall = bench.faults.stall(StallAt::BeforeSync);
    let first = busy(&bench, &stall);
    let winner = queued(bench.store.commit(Draft::chain(1, 1).with_key(1).accept(bench.fence).1));
    let loser = queued(bench.store.commit(Draft::chain(2, 1).with_key(1).accept(bench.fence).1));
    bench.faults.fail_commit(1, CommitFault::UnknownNotApplied);
    stall.release();
    wait(first).unwrap();
    assert!(matches!(wait(winner), Err(CommitError::Unknown(_))));
    assert!(matches!(wait(loser), Err(CommitError::Unknown(_))));
    assert_eq!(bench.fired().unknown_not_applied, 1);
    // The loser may try again, and wins.
    bench.accept(Draft::chain(2, 1).with_key(1));
    bench.verify();
}

#[test]
fn a_batch_that_is_not_applied_fails_whole_and_the_next_one_goes_on() {
    for (fault, is_unknown) in [
        (CommitFault::NotApplied, false),
        (CommitFault::TakenBack, false),
        (CommitFault::UnknownNotApplied, true),
        (CommitFault::UnknownLost, true),
        (CommitFault::UnknownApplied, true),
        (CommitFault::PanicBefore, true),
        (CommitFault::PanicAfter, true),
    ] {
        let bench = Bench::threaded();
        let mut old = bench.accept(Draft::chain(500, 2));
        let stall = bench.faults.stall(StallAt::BeforeSync);
        let first = busy(&bench, &stall);
        let commits = first_commits(&bench, 0..5);
        let pending: Vec<_> =
            commits.iter().map(|commit| queued(bench.store.commit(commit.clone()))).collect();
        let turn = old.clone().done(bench.fence, 0);
        let going_on = queued(bench.store.commit(turn.clone()));
        bench.faults.fail_commit(1, fault);
        stall.release();
        wait(first).unwrap();
        for answer in pending.into_iter().chain([going_on]) {
            match wait(answer) {
                Err(CommitError::Unknown(_)) if is_unknown => {}
                Err(CommitError::Unavailable(_)) if !is_unknown => {}
                other => panic!("{fault:?}: {other:?}"),
            }
        }
        // What has happened is the same for all of the batch, and repeating tells which.
        let applied = matches!(fault, CommitFault::UnknownApplied | CommitFault::PanicAfter);
        for commit in commits.into_iter().chain([turn]) {
            match bench.commit(commit) {
                Ok(()) if !applied => {}
                Err(CommitError::Conflict(_)) if applied => {}
                other => panic!("{fault:?}: {other:?}"),
            }
        }
        old.done(bench.fence, 0);
        assert_eq!(bench.load(old.id()).unwrap().revision(), old.execution.revision());
        bench.commit(old.done(bench.fence, 1)).unwrap();
        assert_eq!(bench.faults.reopened(), u64::from(is_unknown), "{fault:?}");
        bench.verify();
    }
}

#[test]
fn a_full_disk_refuses_by_name_until_there_is_room() {
    for bench in [Bench::inline(), Bench::threaded()] {
        let live = bench.accept(Draft::chain(1, 2));
        bench.faults.set_disk_full(true);
        let commit = live.clone().done(bench.fence, 0);
        for _ in 0..3 {
            let error = bench.commit(commit.clone()).unwrap_err();
            assert!(matches!(error, CommitError::Unavailable(_)) && error.is_full(), "{error:?}");
            // Reading goes on (L8).
            assert_eq!(bench.load(live.id()).unwrap().revision(), live.execution.revision());
        }
        let error = wait(bench.store.take_over()).unwrap_err();
        assert!(error.is_full(), "{error:?}");
        bench.faults.set_disk_full(false);
        assert_eq!(bench.fired().disk_full, 4);
        assert_eq!(bench.faults.reopened(), 0, "nothing was wrong with the engine");
        // The owner who asked for a new fence did not get it, but the old one has lost its own.
        assert!(matches!(bench.commit(commit), Err(CommitError::Fenced { .. })));
        let fence = wait(bench.store.take_over()).unwrap();
        bench.commit(live.clone().done(fence, 0)).unwrap();
        bench.verify();
    }
}

fn small(bytes: usize) -> (KvStore, Arc<FaultyKv<MemoryKv>>, Faults) {
    let (kv, faults) = FaultyKv::new(MemoryKv::new());
    let kv = Arc::new(kv);
    let store = KvStore::open(Small::batches(Arc::clone(&kv), bytes)).unwrap();
    (store, kv, faults)
}

#[test]
fn a_group_is_split_where_the_backend_takes_no_more() {
    let (store, kv, faults) = small(8 << 10);
    let fence = wait(store.take_over()).unwrap();
    let stall = faults.stall(StallAt::BeforeSync);
    let first = queued(store.commit(Draft::chain(9000, 1).accept(fence).1));
    stall.wait_reached();
    let before = faults.commits();
    let pending: Vec<_> =
        (0..100).map(|n| queued(store.commit(Draft::chain(n, 1).accept(fence).1))).collect();
    stall.release();
    wait(first).unwrap();
    for answer in pending {
        wait(answer).unwrap();
    }
    let batches: Vec<_> = faults.history().into_iter().skip(usize::try_from(before).unwrap()).collect();
    assert!(batches.len() > 2, "{}", batches.len());
    assert!(batches.iter().all(|batch| batch.byte_len() <= 8 << 10));
    // None is small for nothing: two neighbours do not fit into one.
    for pair in batches.windows(2) {
        let next = pair[1]
            .writes
            .iter()
            .take(2)
            .map(|write| write.key.len() + write.value.as_ref().map_or(0, Vec::len));
        assert!(pair[0].byte_len() + next.sum::<usize>() > 7 << 10);
    }
    assert_eq!(wait(store.list_operations(&OperationQuery::All, None, 1000)).unwrap().items.len(), 101);
    longrun_store::conformance::verify_indexes(kv.inner()).unwrap();
}

#[test]
fn when_one_part_of_a_split_group_fails_the_others_stand() {
    let (store, kv, faults) = small(8 << 10);
    let fence = wait(store.take_over()).unwrap();
    let stall = faults.stall(StallAt::BeforeSync);
    let first = queued(store.commit(Draft::chain(9000, 1).accept(fence).1));
    stall.wait_reached();
    let pending: Vec<_> = (0..60).map(|n| queued(store.commit(Draft::chain(n, 1).accept(fence).1))).collect();
    faults.fail_commit(2, CommitFault::UnknownLost);
    stall.release();
    wait(first).unwrap();
    let answers: Vec<_> = pending.into_iter().map(wait).collect();
    let unknown = answers.iter().filter(|answer| matches!(answer, Err(CommitError::Unknown(_)))).count();
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(unknown > 0 && stored > 0 && unknown + stored == 60, "{answers:?}");
    for (n, answer) in (0..).zip(&answers) {
        assert_eq!(wait(store.load(operation_id(n))).unwrap().is_some(), answer.is_ok());
    }
    longrun_store::conformance::verify_indexes(kv.inner()).unwrap();
}

#[test]
fn a_commit_larger_than_any_batch_is_refused_and_holds_up_nobody() {
    let (store, _, faults) = small(8 << 10);
    let fence = wait(store.take_over()).unwrap();
    let stall = faults.stall(StallAt::BeforeSync);
    let first = queued(store.commit(Draft::chain(9000, 1).accept(fence).1));
    stall.wait_reached();
    let before = queued(store.commit(Draft::chain(1, 1).accept(fence).1));
    let large = queued(store.commit(Draft::wide(2, 200).accept(fence).1));
    let after = queued(store.commit(Draft::chain(3, 1).accept(fence).1));
    stall.release();
    wait(first).unwrap();
    wait(before).unwrap();
    assert!(matches!(wait(large), Err(CommitError::TooLarge { limit, .. }) if limit == 8 << 10));
    wait(after).unwrap();
}

#[test]
fn what_is_as_large_as_a_batch_is_taken_and_what_fills_one_to_the_byte_shares_it() {
    let drafts = || [1, 2].map(|n| Draft::wide(n, 20));
    let bench = Bench::inline();
    for draft in drafts() {
        bench.accept(draft);
    }
    let history = bench.faults.history();
    let sizes: Vec<_> = history[history.len() - 2..].iter().map(longrun_store::Batch::byte_len).collect();
    for (limit, fits) in [(sizes[0], true), (sizes[0] - 1, false)] {
        let (store, ..) = small(limit);
        let fence = wait(store.take_over()).unwrap();
        let [draft, _] = drafts();
        match wait(store.commit(draft.accept(fence).1)) {
            Ok(()) if fits => {}
            Err(CommitError::TooLarge { bytes, .. }) if !fits && bytes == sizes[0] => {}
            other => panic!("{other:?} with {limit} of {sizes:?}"),
        }
    }
    for (limit, batches) in [(sizes[0] + sizes[1], 1), (sizes[0] + sizes[1] - 1, 2)] {
        let (store, _, faults) = small(limit);
        let fence = wait(store.take_over()).unwrap();
        let stall = faults.stall(StallAt::BeforeSync);
        let first = queued(store.commit(Draft::chain(9000, 1).accept(fence).1));
        stall.wait_reached();
        let before = faults.commits();
        let pending = drafts().map(|draft| queued(store.commit(draft.accept(fence).1)));
        stall.release();
        wait(first).unwrap();
        for answer in pending {
            wait(answer).unwrap();
        }
        assert_eq!(faults.commits() - before, batches, "{limit} of {sizes:?}");
    }
}

#[test]
fn whose_damage_stopped_a_batch_is_told_when_it_was_alone_in_it_and_unknown_else() {
    let bench = Bench::threaded();
    bench.faults.fail_commit(1, CommitFault::Corrupt);
    let alone = bench.commit(Draft::chain(1, 1).accept(bench.fence).1);
    assert!(matches!(alone, Err(CommitError::Unreadable(_))), "{alone:?}");

    let stall = bench.faults.stall(StallAt::BeforeSync);
    let first = busy(&bench, &stall);
    let commits = first_commits(&bench, 1..4);
    let pending: Vec<_> = commits.iter().map(|commit| queued(bench.store.commit(commit.clone()))).collect();
    bench.faults.fail_commit(1, CommitFault::Corrupt);
    stall.release();
    wait(first).unwrap();
    for answer in pending.into_iter().map(wait) {
        // Whoever is told that it was his holds his operation for it.
        assert!(matches!(answer, Err(CommitError::Unknown(_))), "{answer:?}");
    }
    assert_eq!(bench.fired().corrupt, 2);
    for commit in commits {
        bench.commit(commit).unwrap();
    }
    bench.verify();
}

#[test]
fn a_backend_that_cannot_be_reopened_is_not_asked_all_the_time() {
    let bench = Bench::threaded();
    bench.faults.refuse_reopens(u64::MAX);
    bench.faults.fail_commit(1, CommitFault::UnknownNotApplied);
    let began = Instant::now();
    let asked = 100;
    for n in 0..asked {
        assert!(bench.commit(Draft::chain(n, 1).accept(bench.fence).1).is_err());
    }
    // Once when it failed, and then every 100 ms at most.
    let times = 1 + u64::try_from(began.elapsed().as_millis()).unwrap() / 100;
    assert!(bench.fired().reopens <= times, "{} in {:?}", bench.fired().reopens, began.elapsed());
    // Who has time for that is served as soon as it can be.
    bench.faults.refuse_reopens(0);
    while bench.commit(Draft::chain(asked, 1).accept(bench.fence).1).is_err() {
        std::thread::yield_now();
    }
    assert_eq!(bench.faults.reopened(), 1);
}

#[test]
fn a_fence_taken_between_queued_commits_divides_them() {
    let bench = Bench::threaded();
    let stall = bench.faults.stall(StallAt::BeforeSync);
    let first = busy(&bench, &stall);
    let old = queued(bench.store.commit(Draft::chain(1, 1).accept(bench.fence).1));
    let take_over = queued(bench.store.take_over());
    let late = queued(bench.store.commit(Draft::chain(2, 1).accept(bench.fence).1));
    let next = longrun_core::Fence(bench.fence.0 + 1);
    let new = queued(bench.store.commit(Draft::chain(3, 1).accept(next).1));
    stall.release();
    wait(first).unwrap();
    wait(old).unwrap();
    assert_eq!(wait(take_over).unwrap(), next);
    assert!(matches!(wait(late), Err(CommitError::Fenced { .. })));
    wait(new).unwrap();
}

#[test]
fn a_purge_among_queued_commits_sees_those_before_it() {
    let bench = Bench::threaded();
    let mut live = bench.accept(Draft::chain(1, 1).with_key(1));
    let stall = bench.faults.stall(StallAt::BeforeSync);
    let first = busy(&bench, &stall);
    let done = queued(bench.store.commit(live.done(bench.fence, 0)));
    let purge =
        Purge { only: None, done_until: time(100), keys_expire_at: time(200), now: time(100), limit: 10 };
    let purged = queued(bench.store.purge(bench.fence, purge));
    let again = queued(bench.store.commit(Draft::chain(1, 1).accept(bench.fence).1));
    stall.release();
    wait(first).unwrap();
    wait(done).unwrap();
    assert_eq!(wait(purged).unwrap().operations, 1);
    wait(again).unwrap();
    assert_eq!(bench.load(live.id()).unwrap().revision().0, 1);
    bench.verify();
}

#[test]
fn a_failed_take_over_hands_out_no_fence_twice() {
    for fault in [CommitFault::NotApplied, CommitFault::UnknownApplied, CommitFault::UnknownLost] {
        let bench = Bench::inline();
        bench.faults.fail_commit(1, fault);
        assert!(matches!(wait(bench.store.take_over()), Err(StoreError::Unavailable(_))));
        let fence = wait(bench.store.take_over()).unwrap();
        assert!(fence > bench.fence);
        drop(bench.store);
        let store = KvStore::open_inline(Arc::clone(&bench.kv), [7; 32]).unwrap();
        assert!(wait(store.take_over()).unwrap() > fence);
    }
}

#[test]
fn what_is_queued_when_the_store_is_dropped_is_still_done() {
    let bench = Bench::threaded();
    let stall = bench.faults.stall(StallAt::BeforeSync);
    let mut first = busy(&bench, &stall);
    let mut pending: Vec<_> =
        first_commits(&bench, 0..20).into_iter().map(|commit| queued(bench.store.commit(commit))).collect();
    // The callers give up. What they have begun goes on (see `Store`).
    assert!(begin(&mut first).is_none() && pending.iter_mut().all(|answer| begin(answer).is_none()));
    drop((first, pending));
    let Bench { store, kv, .. } = bench;
    let ends = std::thread::spawn(move || drop(store));
    stall.release();
    ends.join().unwrap();
    // The thread is gone with the store, and with it every handle but this one: a file lock would be free.
    assert_eq!(Arc::strong_count(&kv), 1);
    let store = KvStore::open_inline(Arc::clone(&kv), [7; 32]).unwrap();
    assert_eq!(wait(store.list_operations(&OperationQuery::All, None, 1000)).unwrap().items.len(), 21);
    longrun_store::conformance::verify_indexes(kv.inner()).unwrap();
}

/// C20: a purge removes what fits into half a batch, and says that there is more.
#[test]
fn c20_a_purge_is_no_larger_than_the_backend_takes() {
    let (store, _kv, faults) = small(8 << 10);
    let fence = wait(store.take_over()).unwrap();
    for n in 0..100 {
        let (mut live, accepted) = Draft::chain(n, 1).with_key(u8::try_from(n).unwrap()).accept(fence);
        wait(store.commit(accepted)).unwrap();
        wait(store.commit(live.done(fence, 0))).unwrap();
    }
    let before = faults.commits();
    let purge =
        Purge { only: None, done_until: time(500), keys_expire_at: time(900), now: time(500), limit: 1000 };
    let mut removed = 0;
    loop {
        let purged = wait(store.purge(fence, purge)).unwrap();
        removed += purged.operations;
        if !purged.more {
            break;
        }
    }
    assert_eq!(removed, 100);
    let batches: Vec<_> = faults.history().into_iter().skip(usize::try_from(before).unwrap()).collect();
    let (last, full) = batches.split_last().unwrap();
    assert!(full.len() > 2 && last.byte_len() <= 8 << 10, "{}", full.len());
    assert!(full.iter().all(|batch| (4 << 10..=8 << 10).contains(&batch.byte_len())));
}
