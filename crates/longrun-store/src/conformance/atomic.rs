//! A commit happens whole or not at all (C7).

use longrun_core::limits::{PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX};
use longrun_core::{Command, Json, OperationId, ResourceStatus, StepIndex, StepReport, Timestamp};

use super::bench::Bench;
use super::sample::{Draft, creates, deletes, digest, json, operation_id, resource_key, time, updates};
use super::{StoreFixture, wait};
use crate::error::{CommitError, Conflict};
use crate::store::{Commit, LedgerEntry, OperationQuery};

/// Everything that can be asked about the store and the things of these rules.
fn everything(bench: &Bench<'_>) -> String {
    let all = bench.operations(&OperationQuery::All, None, 1000);
    let of = |id| bench.ids(&OperationQuery::OfResource(resource_key(id)), 1000);
    let rows = bench.rows("folder", None, None, 1000);
    let keys: Vec<_> = (0..8).map(|n| wait(bench.store().ledger(&digest(n))).unwrap()).collect();
    let loaded: Vec<_> = (0..8).map(|n| wait(bench.store().load(operation_id(n))).unwrap()).collect();
    format!("{all:?}\n{:?} {:?}\n{rows:?}\n{keys:?}\n{loaded:?}\n{:?}", of("a"), of("b"), bench.due())
}

/// A commit that is refused changes nothing that anybody can see, not even after a restart.
#[track_caller]
fn refused(bench: &mut Bench<'_>, commit: Commit) -> CommitError {
    let before = everything(bench);
    let error = bench.commit(commit).unwrap_err();
    assert_eq!(everything(bench), before);
    bench.restart();
    assert_eq!(everything(bench), before);
    error
}

fn entry(operation: OperationId, n: u8) -> LedgerEntry {
    LedgerEntry { operation, fingerprint: [n; 32], expires_at: None }
}

/// C1, C6: an accepted operation is there, with the row that it creates, its idempotency key, its place among those that
/// are due and in every list, all at once.
pub fn an_accepted_operation_is_there_with_its_rows_and_its_key(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let live = bench.accept(Draft::chain(1, 2).with(creates("a", "folder")).with_key(1));
    for _ in 0..2 {
        bench.check(&live);
        let row = bench.row("a").unwrap();
        assert_eq!((row.status, row.operation), (ResourceStatus::Creating, Some(live.id())));
        assert_eq!(wait(bench.store().ledger(&digest(1))).unwrap(), Some(entry(live.id(), 1)));
        assert_eq!(bench.due().iter().map(|due| due.id).collect::<Vec<_>>(), [live.id()]);
        assert_eq!(bench.ids(&OperationQuery::All, 10), [live.id()]);
        assert_eq!(bench.ids(&OperationQuery::OfResource(resource_key("a")), 10), [live.id()]);
        assert_eq!(bench.row_ids("folder", None, 10), ["a"]);
        bench.restart();
    }
}

/// When an operation is done its resource is READY and free, in the same commit.
pub fn a_finished_operation_and_its_rows_change_together(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let live = bench.finished(Draft::chain(1, 1).with(creates("a", "folder")).with_key(1), 9);
    for _ in 0..2 {
        assert!(bench.load(live.id()).is_done());
        let row = bench.row("a").unwrap();
        assert_eq!((row.status, row.operation), (ResourceStatus::Ready, None));
        assert_eq!(row.body.json(), &json("output 0"));
        assert_eq!(bench.due(), []);
        bench.restart();
    }
}

/// When a create is rolled back, its resource is gone from everywhere, in the same commit.
pub fn a_rolled_back_operation_takes_its_rows_with_it(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let mut live = bench.accept(Draft::chain(1, 1).with(creates("a", "folder")));
    let commit = live.fails(bench.fence, 0, false);
    bench.stored(&live, commit);
    assert_eq!(bench.row("a").unwrap().status, ResourceStatus::Deleting);
    let commit = live.undone(bench.fence, 0);
    bench.stored(&live, commit);
    for _ in 0..2 {
        assert!(bench.load(live.id()).is_done());
        assert_eq!(bench.row("a"), None);
        assert_eq!(bench.row_ids("folder", None, 10), [""; 0]);
        bench.restart();
    }
}

/// C4: an update that rolls back leaves the row as it was, but for its revision and time.
pub fn an_update_that_rolls_back_restores_the_row(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let before = bench.resource(1, "a", "folder");
    let mut live = bench.accept(Draft::chain(2, 1).with(updates(before.clone())));
    assert_eq!(bench.row("a").unwrap().operation, Some(live.id()));
    let commit = live.fails(bench.fence, 0, false);
    bench.stored(&live, commit);
    let commit = live.undone(bench.fence, 0);
    bench.stored(&live, commit);
    let after = bench.row("a").unwrap();
    assert!(after.revision > before.revision);
    let restored = longrun_core::Row { revision: before.revision, modified_at: before.modified_at, ..after };
    assert_eq!(restored, before);
    // And an update that succeeds does not.
    let before = bench.row("a").unwrap();
    bench.finished(Draft::chain(3, 1).with(updates(before)), 9);
    let row = bench.row("a").unwrap();
    assert_eq!((row.name.as_str(), row.body.json()), ("new name", &json("updated")));
}

/// A delete shows DELETING at once, and removes row and index when it is done.
pub fn a_delete_that_succeeds_removes_the_row(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let before = bench.resource(1, "a", "folder");
    let mut live = bench.accept(Draft::chain(2, 1).with(deletes(before)));
    assert_eq!(bench.row("a").unwrap().status, ResourceStatus::Deleting);
    let commit = live.done(bench.fence, 0);
    bench.stored(&live, commit);
    assert_eq!(bench.row("a"), None);
    assert_eq!(bench.row_ids("folder", None, 10), [""; 0]);
}

/// A commit whose operation has moved on writes neither rows nor anything else.
pub fn a_commit_that_is_refused_for_its_revision_writes_nothing(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let mut live = bench.accept(Draft::chain(1, 1).with(creates("a", "folder")));
    let mut winner = live.clone();
    let commit = winner.checkpoint(bench.fence, 0, 1);
    bench.stored(&winner, commit);
    // It would make the row READY.
    let commit = live.done(bench.fence, 0);
    let error = refused(&mut bench, commit);
    assert!(matches!(error, CommitError::Conflict(Conflict::Operation { .. })), "{error:?}");
}

/// A commit with one row that is not as expected writes neither the operation, nor its other rows, nor its key.
pub fn a_commit_that_is_refused_for_a_row_writes_nothing(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    bench.resource(1, "b", "folder");
    let draft = Draft::chain(2, 1).with(creates("a", "folder")).with(creates("b", "folder")).with_key(2);
    let (_, commit) = draft.accept(bench.fence);
    let error = refused(&mut bench, commit);
    assert!(matches!(error, CommitError::Conflict(Conflict::Resource { .. })), "{error:?}");
}

/// A commit whose key is taken writes neither the operation nor its rows.
pub fn a_commit_that_is_refused_for_its_key_writes_nothing(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    bench.accept(Draft::chain(1, 1).with_key(3));
    let (_, commit) = Draft::chain(2, 1).with(creates("a", "folder")).with_key(3).accept(bench.fence);
    let error = refused(&mut bench, commit);
    assert!(matches!(error, CommitError::Conflict(Conflict::Idempotency(_))), "{error:?}");
}

/// A commit of an owner who was replaced writes nothing.
pub fn a_commit_that_is_fenced_off_writes_nothing(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let old = bench.fence;
    let mut live = bench.accept(Draft::chain(1, 1).with(creates("a", "folder")));
    bench.restart();
    let error = refused(&mut bench, live.done(old, 0));
    assert!(matches!(error, CommitError::Fenced { held, .. } if held == old), "{error:?}");
    let (_, commit) = Draft::chain(2, 1).with(creates("b", "folder")).with_key(1).accept(old);
    let error = refused(&mut bench, commit);
    assert!(matches!(error, CommitError::Fenced { .. }), "{error:?}");
}

fn large(text: &str, bytes: usize) -> Json {
    Json::encode("large", &text.repeat(bytes - 2)).unwrap()
}

/// A record beyond the limit is refused by that name, and nothing of its commit is written.
pub fn a_record_that_is_too_large_is_refused_and_nothing_is_written(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let steps = 8 + u16::try_from(RECORD_BYTES_MAX / PAYLOAD_BYTES_MAX).unwrap();
    let mut draft = Draft::wide(1, steps).with(creates("a", "folder"));
    draft.parts.parallel = steps;
    let mut live = bench.accept(draft);
    let before = live.clone();
    let reports: Vec<_> = (0..steps)
        .map(|step| Command::Report {
            step: StepIndex(step),
            attempt: live.execution.attempt(StepIndex(step)),
            report: StepReport::Done(large("x", PAYLOAD_BYTES_MAX)),
        })
        .collect();
    // Without the last, so that it is not done and all outputs have to be kept.
    let commit = live.turn(bench.fence, &reports[1..]);
    let error = refused(&mut bench, commit);
    let is_named = matches!(error, CommitError::TooLarge { bytes, limit } if bytes > limit);
    assert!(is_named, "{error:?}");
    // The operation goes on with less.
    let mut live = before;
    let commit = live.turn(bench.fence, &reports[..1]);
    bench.stored(&live, commit);
}

/// Whatever the core accepts within its limits is stored, and read again: nothing is acknowledged and then unreadable.
pub fn the_largest_operation_that_is_accepted_can_be_read_again(fixture: &mut dyn StoreFixture) {
    use longrun_core::limits::{PLAN_BYTES_MAX, STEPS_MAX};
    use longrun_core::{Input, Intent, Payload, Source, StepName};

    let mut bench = Bench::new(fixture);
    let mut draft = Draft::wide(1, u16::try_from(STEPS_MAX).unwrap());
    let payload = || Payload::new("types.sample/Thing", large("x", PAYLOAD_BYTES_MAX)).unwrap();
    (draft.header.request, draft.header.metadata) = (payload(), payload());
    draft.parts.parallel = longrun_core::limits::PARALLEL_STEPS_MAX;
    for step in &mut draft.parts.steps {
        step.name = StepName::new("s").unwrap();
        step.input = Input::One(Source::Output(StepIndex(0)));
        step.policy = None;
    }
    // As many steps as there may be, each as short as it can be, and all that is left in literals of the first ones.
    let mut left = PLAN_BYTES_MAX - 13 * STEPS_MAX - 5;
    for step in &mut draft.parts.steps[..2] {
        let bytes = left.min(PAYLOAD_BYTES_MAX);
        step.input = Input::One(Source::Literal(large("y", bytes)));
        left -= bytes;
    }
    for n in 0..longrun_core::limits::CLAIMS_MAX {
        draft = draft.with(creates(&format!("r{n}"), "folder"));
        let Intent::Create { body, .. } = &mut draft.parts.claims[n].intent else { unreachable!() };
        *body = Payload::new("types.sample/Thing", large("z", 9 << 10)).unwrap();
    }
    let live = bench.accept(draft);
    bench.restart();
    bench.check(&live);
}

/// An operation that is too late when it is accepted is done in its first commit: stored, listed, never due.
pub fn an_operation_that_is_done_at_once_is_stored_whole(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let draft = Draft::chain(5, 2).with(creates("a", "folder")).with_key(5).with_deadline(time(4));
    let live = bench.accept(draft);
    assert!(live.execution.is_done());
    for _ in 0..2 {
        bench.check(&live);
        assert!(bench.load(live.id()).operation().error().is_some());
        assert_eq!(bench.row("a"), None);
        assert_eq!(bench.row_ids("folder", None, 10), [""; 0]);
        assert_eq!(bench.due(), []);
        assert_eq!(bench.ids(&OperationQuery::All, 10), [live.id()]);
        assert_eq!(bench.ids(&OperationQuery::OfResource(resource_key("a")), 10), [live.id()]);
        assert_eq!(wait(bench.store().ledger(&digest(5))).unwrap(), Some(entry(live.id(), 5)));
        bench.restart();
    }
    assert_eq!(bench.purge(100, 10).operations, 1);
    assert_eq!(bench.ids(&OperationQuery::All, 10), []);
    assert_eq!(wait(bench.store().due(Timestamp::MAX, None, 10)).unwrap(), []);
}
