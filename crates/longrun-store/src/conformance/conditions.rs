//! A commit happens only if everything is as it expects (C17).

use longrun_core::{Condition, Revision, Row};

use super::StoreFixture;
use super::bench::Bench;
use super::sample::{
    Draft, Live, creates, deletes, operation_id, parent, resource_key, resource_kind, row, updates,
};
use crate::error::{CommitError, Conflict};
use crate::store::{Commit, LedgerEntry};

fn operation(live: &Live, expected: Option<u64>, found: Option<u64>) -> Conflict {
    Conflict::Operation { id: live.id(), expected: expected.map(Revision), found: found.map(Revision) }
}

/// Two operations never share an id.
pub fn an_operation_is_created_once(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let live = bench.accept(Draft::chain(1, 1));
    let (_, other) = Draft::chain(1, 2).accept(bench.fence);
    assert_eq!(bench.conflict(other), operation(&live, None, Some(1)));
    bench.check(&live);
}

/// A commit that follows an older revision is refused and told the newer.
pub fn a_stale_revision_is_refused(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let mut live = bench.accept(Draft::chain(1, 3));
    let mut stale = live.clone();
    for step in 0..2 {
        let commit = live.done(bench.fence, step);
        bench.stored(&live, commit);
    }
    let commit = stale.done(bench.fence, 0);
    assert_eq!(bench.conflict(commit), operation(&live, Some(1), Some(3)));
    let commit = stale.done(bench.fence, 1);
    assert_eq!(bench.conflict(commit), operation(&live, Some(2), Some(3)));
    bench.check(&live);
}

/// A commit that follows a revision which is not there yet is refused.
pub fn a_revision_from_the_future_is_refused(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let live = bench.accept(Draft::chain(1, 3));
    let mut ahead = live.clone();
    let _lost: Commit = ahead.done(bench.fence, 0);
    let commit = ahead.done(bench.fence, 1);
    assert_eq!(bench.conflict(commit), operation(&live, Some(2), Some(1)));
    bench.check(&live);
}

/// An operation that was never accepted cannot go on.
pub fn an_operation_that_is_not_there_cannot_go_on(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let (mut live, _lost) = Draft::chain(1, 2).accept(bench.fence);
    let commit = live.done(bench.fence, 0);
    assert_eq!(bench.conflict(commit), operation(&live, Some(1), None));
    assert!(!bench.is_there(live.id()));
}

/// C5: nothing changes an operation that is done.
pub fn an_operation_that_is_done_cannot_go_on(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let mut live = bench.accept(Draft::chain(1, 1));
    let mut late = live.clone();
    let commit = live.done(bench.fence, 0);
    bench.stored(&live, commit);
    for _ in 0..2 {
        let commit = late.clone().checkpoint(bench.fence, 0, 1);
        assert_eq!(bench.conflict(commit), operation(&live, Some(1), None));
        bench.restart();
    }
    // Nor does one that would be the next in order.
    let _lost: Commit = late.checkpoint(bench.fence, 0, 1);
    let commit = late.cancel(bench.fence);
    assert_eq!(bench.conflict(commit), operation(&live, Some(2), None));
    bench.check(&live);
}

/// Nor does a new operation of the same id.
pub fn an_operation_that_is_done_cannot_be_created_again(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let live = bench.finished(Draft::chain(1, 1), 9);
    let (_, again) = Draft::chain(1, 1).accept(bench.fence);
    assert_eq!(bench.conflict(again), operation(&live, None, None));
    bench.check(&live);
}

/// The same commit a second time is refused like any that comes too late: whoever does not know whether it happened
/// has to read (C22).
pub fn the_same_commit_twice_is_a_conflict(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let (mut live, first) = Draft::chain(1, 2).with_key(1).accept(bench.fence);
    bench.stored(&live, first.clone());
    bench.conflict(first);
    let second = live.done(bench.fence, 0);
    bench.stored(&live, second.clone());
    assert_eq!(bench.conflict(second), operation(&live, Some(1), Some(2)));
    let last = live.done(bench.fence, 1);
    bench.stored(&live, last.clone());
    assert_eq!(bench.conflict(last), operation(&live, Some(2), None));
    bench.check(&live);
}

/// A resource is created once.
pub fn a_row_that_exists_cannot_be_created(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.resource(1, "a", "folder");
    let (_, commit) = Draft::chain(2, 1).with(creates("a", "elsewhere")).accept(bench.fence);
    let expected = Conflict::Resource { key: resource_key("a"), holder: None, exists: true };
    assert_eq!(bench.conflict(commit), expected);
}

/// A resource that is not there is neither changed nor removed.
pub fn a_row_that_is_not_there_cannot_be_changed(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for claim in [updates(row("a", "folder", 2)), deletes(row("a", "folder", 2))] {
        let (_, commit) = Draft::chain(2, 1).with(claim).accept(bench.fence);
        let expected = Conflict::Resource { key: resource_key("a"), holder: None, exists: false };
        assert_eq!(bench.conflict(commit), expected);
    }
}

/// One unfinished operation per resource: another is refused and told which one is in the way.
pub fn a_row_that_another_operation_holds_is_refused_with_its_holder(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let before = bench.resource(1, "a", "folder");
    let holder = bench.accept(Draft::chain(2, 1).with(updates(before.clone())));
    let held = bench.row("a").unwrap();
    for claim in [updates(before), updates(held.clone()), deletes(held), creates("a", "folder")] {
        let (_, commit) = Draft::chain(3, 1).with(claim).accept(bench.fence);
        let expected = Conflict::Resource { key: resource_key("a"), holder: Some(holder.id()), exists: true };
        assert_eq!(bench.conflict(commit), expected);
    }
}

/// A row that has changed since it was looked up is refused.
pub fn a_row_of_another_revision_is_refused(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let before = bench.resource(1, "a", "folder");
    bench.finished(Draft::chain(2, 1).with(updates(before.clone())), 9);
    let ahead = row("a", "folder", 99);
    for claim in [updates(before.clone()), deletes(before), updates(ahead)] {
        let (_, commit) = Draft::chain(3, 1).with(claim).accept(bench.fence);
        let expected = Conflict::Resource { key: resource_key("a"), holder: None, exists: true };
        assert_eq!(bench.conflict(commit), expected);
    }
}

/// When its operation is done, the resource is free for the next one; when it is gone, its id is.
pub fn a_row_that_was_given_free_can_be_claimed_again(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let first = bench.resource(1, "a", "folder");
    bench.finished(Draft::chain(2, 1).with(updates(first)), 9);
    let second = bench.row("a").unwrap();
    bench.finished(Draft::chain(3, 1).with(deletes(second)), 10);
    bench.finished(Draft::chain(4, 1).with(creates("a", "elsewhere")), 11);
    assert_eq!(bench.row("a").unwrap().parent.as_str(), "elsewhere");
    assert_eq!(bench.row_ids("folder", None, 10), [""; 0]);
    assert_eq!(bench.row_ids("elsewhere", None, 10), ["a"]);
}

/// C15: a key belongs to the first operation that was accepted under it.
pub fn a_key_that_is_taken_is_refused_with_its_first_operation(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let first = bench.accept(Draft::chain(1, 1).with_key(7));
    let expected = LedgerEntry { operation: first.id(), fingerprint: [7; 32], expires_at: None };
    let (_, commit) = Draft::chain(2, 1).with_key(7).accept(bench.fence);
    assert_eq!(bench.conflict(commit), Conflict::Idempotency(expected));
    let (_, commit) = Draft::chain(3, 1).with_key(8).accept(bench.fence);
    bench.commit(commit).unwrap();
}

/// C15: a repeat that comes too late is told of its key, not of the resource that the first one holds.
pub fn a_taken_key_is_told_before_a_busy_row(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let before = bench.resource(1, "a", "folder");
    let first = bench.accept(Draft::chain(2, 1).with(deletes(before.clone())).with_key(7));
    let (_, repeat) = Draft::chain(3, 1).with(deletes(before)).with_key(7).accept(bench.fence);
    match bench.conflict(repeat) {
        Conflict::Idempotency(entry) => assert_eq!(entry.operation, first.id()),
        other => panic!("the caller would hear {other}"),
    }
}

/// Something READY, something being made, and something that is not there: only the first is.
pub fn a_resource_that_must_be_ready_is_looked_at_in_the_commit(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.resource(1, "ready", "folder");
    bench.accept(Draft::chain(2, 1).with(creates("making", "folder")));
    for (n, id) in (3..).zip(["making", "absent"]) {
        let ready = Condition::Ready(resource_key(id));
        let (_, commit) = Draft::chain(n, 1).accept(bench.fence);
        let conflict = bench.conflict(commit.with_conditions(vec![ready.clone()]));
        assert_eq!(conflict, Conflict::Condition(ready));
        assert!(!bench.is_there(operation_id(n)));
    }
    let (live, commit) = Draft::chain(9, 1).accept(bench.fence);
    bench.stored(&live, commit.with_conditions(vec![Condition::Ready(resource_key("ready"))]));
}

/// Nothing of the kind under the parent, in whatever state it is.
pub fn a_parent_that_must_be_childless_is_looked_at_in_the_commit(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let childless = |of: &str| Condition::Childless { kind: resource_kind(), parent: parent(of) };
    let row = bench.resource(1, "child", "a");
    bench.accept(Draft::chain(2, 1).with(creates("unborn", "b")));
    for (n, of) in (3..).zip(["a", "b"]) {
        let (_, commit) = Draft::chain(n, 1).accept(bench.fence);
        let conflict = bench.conflict(commit.with_conditions(vec![childless("c"), childless(of)]));
        assert_eq!(conflict, Conflict::Condition(childless(of)));
    }
    let mut going = bench.accept(Draft::chain(5, 1).with(deletes(row)));
    let (_, commit) = Draft::chain(6, 1).accept(bench.fence);
    assert_eq!(
        bench.conflict(commit.with_conditions(vec![childless("a")])),
        Conflict::Condition(childless("a"))
    );
    let commit = going.done(bench.fence, 0);
    bench.stored(&going, commit);
    let (live, commit) = Draft::chain(7, 1).accept(bench.fence);
    bench.stored(&live, commit.with_conditions(vec![childless("a"), childless("ab")]));
}

/// A child that needs its parent and the end of a parent that has no child cannot both be accepted, in either order, nor
/// at the same time.
pub fn of_a_child_and_the_end_of_its_parent_one_is_refused(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for round in 0..8 {
        let n = round * 10;
        let id = format!("p{round}");
        let row = bench.resource(n + 1, &id, "folder");
        let (_, child) = Draft::chain(n + 2, 1).with(creates(&format!("c{round}"), &id)).accept(bench.fence);
        let child = child.with_conditions(vec![Condition::Ready(resource_key(&id))]);
        let (_, end) = Draft::chain(n + 3, 1).with(deletes(row)).accept(bench.fence);
        let end =
            end.with_conditions(vec![Condition::Childless { kind: resource_kind(), parent: parent(&id) }]);
        let results = std::thread::scope(|scope| {
            let bench = &bench;
            let threads = [child, end].map(|commit| scope.spawn(move || bench.commit(commit)));
            threads.map(|thread| thread.join().unwrap())
        });
        let refused = |result: &Result<(), CommitError>| {
            matches!(result, Err(CommitError::Conflict(Conflict::Condition(_))))
        };
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert_eq!(results.iter().filter(|result| refused(result)).count(), 1, "{results:?}");
    }
}

fn children(of: &str, rows: &[Row]) -> Condition {
    let children = rows.iter().map(|row| (row.key.id.clone(), row.revision)).collect();
    Condition::Children { kind: resource_kind(), parent: parent(of), children }
}

/// The children of a parent, and no others, each as it was: one more, one less, one of another parent, and one that has changed
/// are refused. What the operation makes itself does not count.
pub fn children_that_must_be_as_they_were_are_looked_at_in_the_commit(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let rows = [bench.resource(1, "a", "p"), bench.resource(2, "b", "p")];
    let other = bench.resource(3, "a-of-another", "q");
    let changed = Row { revision: rows[1].revision.next(), ..rows[1].clone() };
    let wrong: [&[Row]; 6] = [
        &[],
        &rows[..1],
        &rows[1..],
        &[rows[0].clone(), changed],
        &[rows[0].clone(), rows[1].clone(), other.clone()],
        &[rows[0].clone(), other.clone()],
    ];
    for (n, wrong) in (10..).zip(wrong) {
        let (_, commit) = Draft::chain(n, 1).accept(bench.fence);
        let condition = children("p", wrong);
        assert_eq!(
            bench.conflict(
                commit.with_conditions(vec![children("q", std::slice::from_ref(&other)), condition.clone()])
            ),
            Conflict::Condition(condition)
        );
        assert!(!bench.is_there(operation_id(n)));
    }
    // One that is being made is one, as soon as it shows, and one that is being removed is not what it was.
    let (live, commit) = Draft::chain(20, 1).with(creates("c", "p")).accept(bench.fence);
    bench.stored(&live, commit.with_conditions(vec![children("p", &rows), children("none", &[])]));
    let (_, commit) = Draft::chain(21, 1).accept(bench.fence);
    bench.conflict(commit.with_conditions(vec![children("p", &rows)]));
    bench.accept(Draft::chain(22, 1).with(deletes(rows[0].clone())));
    let made = bench.row("c").unwrap();
    let (_, commit) = Draft::chain(23, 1).accept(bench.fence);
    bench.conflict(
        commit.with_conditions(vec![children("p", &[rows[0].clone(), rows[1].clone(), made.clone()])]),
    );
    let now = [bench.row("a").unwrap(), rows[1].clone(), made];
    let (live, commit) = Draft::chain(24, 1).accept(bench.fence);
    bench.stored(&live, commit.with_conditions(vec![children("p", &now)]));
}

/// Of many that rely on the same children and add one, at the same time, one is accepted.
pub fn of_racing_children_that_rely_on_there_being_no_other_one_is_accepted(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for round in 0..8 {
        let of = format!("p{round}");
        let commits = (0..4).map(|n| {
            let draft = Draft::chain(round * 10 + n + 1, 1).with(creates(&format!("c{round}-{n}"), &of));
            draft.accept(bench.fence).1.with_conditions(vec![children(&of, &[])])
        });
        let commits: Vec<_> = commits.collect();
        let results: Vec<_> = std::thread::scope(|scope| {
            let bench = &bench;
            let threads: Vec<_> =
                commits.into_iter().map(|commit| scope.spawn(move || bench.commit(commit))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let refused = |result: &Result<(), CommitError>| {
            matches!(result, Err(CommitError::Conflict(Conflict::Condition(_))))
        };
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert_eq!(results.iter().filter(|result| refused(result)).count(), 3, "{results:?}");
    }
}
