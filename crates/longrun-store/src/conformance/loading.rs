//! What is loaded is what was in memory.

use longrun_core::{Command, Fence, StepIndex, Verb};

use super::bench::Bench;
use super::sample::{Draft, Live, assert_same, creates, operation_id, time};
use super::{StoreFixture, wait};
use crate::store::Commit;

type NextTurn<'a> = &'a dyn Fn(&mut Live, Fence) -> Commit;

/// Commits turn after turn; the operation loads the same after each, and at the end after a restart.
fn script(fixture: &mut dyn StoreFixture, draft: Draft, turns: &[NextTurn<'_>]) -> Live {
    let mut bench = Bench::new(fixture);
    let mut live = bench.accept(draft);
    for turn in turns {
        let commit = turn(&mut live, bench.fence);
        bench.stored(&live, commit);
    }
    bench.restart();
    bench.check(&live);
    live
}

/// What was never accepted is not there, and that is no error.
pub fn what_is_not_there_is_none(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.accept(Draft::chain(1, 1));
    assert!(wait(bench.store().load(operation_id(2))).unwrap().is_none());
}

/// An operation that succeeds.
pub fn a_success_loads_the_same_after_each_commit(fixture: &mut dyn StoreFixture) {
    let live = script(
        fixture,
        Draft::chain(1, 3).with(creates("a", "folder")),
        &[&|live, fence| live.done(fence, 0), &|live, fence| live.done(fence, 1), &|live, fence| {
            live.done(fence, 2)
        }],
    );
    assert!(live.execution.operation().response().is_some());
}

/// One whose runs fail and are made again.
pub fn retries_load_the_same_after_each_commit(fixture: &mut dyn StoreFixture) {
    let live = script(
        fixture,
        Draft::chain(1, 2),
        &[
            &|live, fence| live.fails(fence, 0, true),
            &|live, fence| {
                live.now = time(100);
                live.resume(fence)
            },
            &|live, fence| live.fails(fence, 0, true),
            &|live, fence| {
                live.turn(
                    fence,
                    &[Command::Intervene {
                        by: super::sample::caller(),
                        verb: Verb::RetryNow,
                        reason: String::new(),
                    }],
                )
            },
            &|live, fence| live.done(fence, 0),
            &|live, fence| live.done(fence, 1),
        ],
    );
    assert!(live.execution.operation().response().is_some());
}

/// One that is cancelled while it runs, and undone.
pub fn a_rollback_loads_the_same_after_each_commit(fixture: &mut dyn StoreFixture) {
    let live = script(
        fixture,
        Draft::chain(1, 3).with(creates("a", "folder")),
        &[
            &|live, fence| live.done(fence, 0),
            &|live, fence| live.checkpoint(fence, 1, 7),
            &|live, fence| live.cancel(fence),
            &|live, fence| live.fails(fence, 1, true),
            &|live, fence| live.undone(fence, 1),
            &|live, fence| live.undone(fence, 0),
        ],
    );
    assert!(live.execution.operation().error().is_some());
}

/// One whose undo keeps failing until an operator takes a hand.
pub fn a_blocked_undo_and_an_operator_load_the_same_after_each_commit(fixture: &mut dyn StoreFixture) {
    let live = script(
        fixture,
        Draft::chain(1, 3).with(creates("a", "folder")),
        &[
            &|live, fence| live.done(fence, 0),
            &|live, fence| live.done(fence, 1),
            &|live, fence| live.fails_without_effect(fence, 2),
            &|live, fence| live.undo_fails(fence, 1),
            &|live, fence| live.undo_fails(fence, 1),
            &|live, fence| {
                assert_eq!(live.execution.blocked().len(), 1);
                live.intervene(fence, Verb::SkipUndo(StepIndex(1)))
            },
            &|live, fence| live.undo_fails(fence, 0),
            &|live, fence| live.intervene(fence, Verb::MarkUndone(StepIndex(0))),
        ],
    );
    assert!(live.execution.is_done());
}

/// One whose rollback is given up.
pub fn an_abandoned_rollback_loads_the_same_after_each_commit(fixture: &mut dyn StoreFixture) {
    let live = script(
        fixture,
        Draft::chain(1, 1).with(creates("a", "folder")),
        &[
            &|live, fence| live.fails(fence, 0, false),
            &|live, fence| live.undo_fails(fence, 0),
            &|live, fence| live.intervene(fence, Verb::Abandon),
        ],
    );
    assert!(live.execution.operation().was_abandoned());
}

/// One whose process dies, going forward and rolling back.
pub fn an_adoption_loads_the_same_after_each_commit(fixture: &mut dyn StoreFixture) {
    script(
        fixture,
        Draft::wide(1, 3),
        &[
            &|live, fence| live.adopt(fence),
            &|live, fence| live.adopt(fence),
            &|live, fence| live.adopt(fence),
            &|live, fence| live.adopt(fence),
            &|live, fence| {
                live.now = time(1000);
                live.resume(fence)
            },
            &|live, fence| live.cancel(fence),
            &|live, fence| live.adopt(fence),
            &|live, fence| live.adopt(fence),
            &|live, fence| live.adopt(fence),
        ],
    );
}

/// One with steps beside each other.
pub fn parallel_steps_load_the_same_after_each_commit(fixture: &mut dyn StoreFixture) {
    let live = script(
        fixture,
        Draft::wide(1, 4).with(creates("a", "folder")).with(creates("b", "folder")),
        &[
            &|live, fence| live.done(fence, 3),
            &|live, fence| live.checkpoint(fence, 1, 1),
            &|live, fence| live.done(fence, 1),
            &|live, fence| live.fails(fence, 2, true),
            &|live, fence| live.done(fence, 0),
            &|live, fence| {
                live.now = time(100);
                live.resume(fence)
            },
            &|live, fence| live.done(fence, 2),
        ],
    );
    assert!(live.execution.is_done());
}

/// One that waits in the backlog.
pub fn an_operation_that_waits_to_start_loads_the_same(fixture: &mut dyn StoreFixture) {
    let draft = Draft { start: false, ..Draft::chain(1, 2) };
    script(fixture, draft, &[&|live, fence| live.resume(fence), &|live, fence| live.done(fence, 0)]);
}

/// One whose time runs out.
pub fn a_deadline_loads_the_same_after_each_commit(fixture: &mut dyn StoreFixture) {
    script(
        fixture,
        Draft::chain(1, 2).with_deadline(time(50)),
        &[
            &|live, fence| {
                live.now = time(50);
                live.resume(fence)
            },
            &|live, fence| live.fails(fence, 0, true),
            &|live, fence| live.undone(fence, 0),
        ],
    );
}

/// A copy of a thousand chunks leaves the last checkpoint, and the count of all.
pub fn a_checkpoint_takes_the_place_of_the_one_before(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let mut live = bench.accept(Draft::chain(1, 2));
    for n in 0..300 {
        let commit = live.checkpoint(bench.fence, 0, n);
        bench.commit(commit).unwrap();
    }
    bench.check(&live);
    bench.restart();
    bench.check(&live);
    assert_eq!(live.execution.revision().0, 301);
    // And it goes on.
    let commit = live.done(bench.fence, 0);
    bench.stored(&live, commit);
}

/// Checkpoints of two steps, and with other turns in between.
pub fn checkpoints_around_other_turns_load_the_same(fixture: &mut dyn StoreFixture) {
    let live = script(
        fixture,
        Draft::wide(1, 3),
        &[
            &|live, fence| live.checkpoint(fence, 0, 1),
            &|live, fence| live.checkpoint(fence, 0, 2),
            &|live, fence| live.checkpoint(fence, 1, 3),
            &|live, fence| live.checkpoint(fence, 0, 4),
            &|live, fence| live.checkpoint(fence, 0, 5),
            &|live, fence| live.done(fence, 2),
            &|live, fence| live.checkpoint(fence, 0, 6),
            &|live, fence| live.checkpoint(fence, 1, 7),
            &|live, fence| live.checkpoint(fence, 1, 8),
            &|live, fence| live.done(fence, 0),
            &|live, fence| live.checkpoint(fence, 1, 9),
            &|live, fence| live.done(fence, 1),
        ],
    );
    assert!(live.execution.is_done());
}

/// Recovery is the ordinary path: one that is loaded anew before each turn writes what the one in memory writes.
pub fn a_loaded_operation_goes_on_like_the_one_in_memory(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let mut live = bench.accept(Draft::chain(1, 3).with(creates("a", "folder")));
    let turns: [fn(&mut Live, Fence) -> Commit; 7] = [
        |live, fence| live.checkpoint(fence, 0, 1),
        |live, fence| live.checkpoint(fence, 0, 2),
        |live, fence| live.done(fence, 0),
        |live, fence| live.fails(fence, 1, false),
        |live, fence| live.undo_fails(fence, 1),
        |live, fence| live.undone(fence, 1),
        |live, fence| live.undone(fence, 0),
    ];
    for turn in turns {
        bench.restart();
        let mut loaded = Live { execution: bench.load(live.id()), now: live.now };
        let (expected, commit) = (turn(&mut live, bench.fence), turn(&mut loaded, bench.fence));
        assert_eq!(format!("{commit:?}"), format!("{expected:?}"));
        bench.stored(&live, commit);
        assert_same(&loaded.execution, &live.execution);
    }
    assert!(live.execution.is_done());
}

/// A journal of more entries than are read at once.
pub fn a_long_journal_loads_whole(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let mut live = bench.accept(Draft::wide(1, 2));
    for n in 0..600 {
        let commit = live.checkpoint(bench.fence, 0, n);
        bench.commit(commit).unwrap();
        // A turn in which nothing happened takes no other's place, and none takes its.
        let commit = live.resume(bench.fence);
        bench.commit(commit).unwrap();
    }
    bench.check(&live);
    bench.restart();
    bench.check(&live);
    let commit = live.done(bench.fence, 0);
    bench.stored(&live, commit);
    let commit = live.done(bench.fence, 1);
    bench.stored(&live, commit);
    assert!(live.execution.is_done());
}
