//! C22: a store that fails loses and invents nothing, the caller is told, and all goes on when it is back.

use std::sync::atomic::Ordering;

use longrun::store::faulty::{CommitFault, ReadFault};
use longrun::store::{CommitError, Table};
use longrun::{Code, CommandError, Phase, SubmitError};

use crate::common::disk::Knobs;
use crate::common::script::{Act, Do, Fault, Script, Touch};
use crate::common::{Rig, caller, keyed, millis, pass};

const FAULTS: [CommitFault; 7] = [
    CommitFault::NotApplied,
    CommitFault::TakenBack,
    CommitFault::UnknownApplied,
    CommitFault::UnknownNotApplied,
    CommitFault::UnknownLost,
    CommitFault::PanicBefore,
    CommitFault::PanicAfter,
];

fn total(rig: &Rig) -> u64 {
    let fired = rig.faults.fired();
    fired.not_applied
        + fired.taken_back
        + fired.unknown_applied
        + fired.unknown_not_applied
        + fired.unknown_lost
        + fired.panics
}

fn script() -> Script {
    Script::chain(&["a", "b"])
        .with("a", |act| act.run([Do::Sleep(1), Do::Apply]))
        .with("b", |act| act.run([Do::Sleep(100), Do::Apply]))
        .touch(Touch::Create("t".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn c22_a_fault_at_submit_is_told_truly() {
    for fault in FAULTS {
        for slots in [1, 8] {
            let rig = Rig::with(move |builder| builder.running_max(slots)).await;
            rig.faults.fail_commit(1, fault);
            let answer = rig.try_submit(&script(), keyed("k")).await;
            assert_eq!(total(&rig), 1, "{fault:?}");
            let kept = matches!(fault, CommitFault::UnknownApplied | CommitFault::PanicAfter);
            assert_eq!(answer.is_ok(), kept, "{fault:?}: {answer:?}");
            assert_eq!(rig.keys(Table::Operations).len(), usize::from(kept));
            if let Err(error) = answer {
                assert_eq!(error.code(), Code::Unavailable);
                assert!(
                    matches!(error, SubmitError::Store(CommitError::Unavailable(_))),
                    "it is certain: {error:?}"
                );
            }
            let accepted = rig.try_submit(&script(), keyed("k")).await.unwrap();
            rig.check(&rig.done(accepted.id()).await, &script());
            rig.check_slots(slots).await;
        }
    }
}

/// Who owns the operation is asked once more before what a commit of unknown outcome has started is run.
#[tokio::test(start_paused = true)]
async fn c22_a_commit_of_unknown_outcome_is_settled_when_the_store_says_who_owns_what() {
    let rig = Rig::new().await;
    let accepted = rig.submit(&script()).await;
    rig.faults.fail_commit(1, CommitFault::UnknownApplied);
    Knobs::set(&rig.knobs.owners_to_fail, 3);
    rig.check(&rig.done(accepted.id()).await, &script());
    assert_eq!(rig.world.runs(accepted.id(), "b"), 1);
    assert_eq!(rig.knobs.owners_to_fail.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn c22_a_submit_of_unknown_outcome_says_so_and_is_taken_up_by_itself_when_the_store_is_back() {
    for fault in [CommitFault::UnknownApplied, CommitFault::UnknownNotApplied] {
        for slots in [1, 8] {
            let rig = Rig::with(move |builder| builder.running_max(slots)).await;
            rig.faults.fail_commit(1, fault);
            // The store stays away.
            rig.faults.refuse_reopens(6);
            let answer = rig.try_submit(&script(), keyed("k")).await.unwrap_err();
            assert!(matches!(answer, SubmitError::Unknown { .. }), "{answer:?}");
            assert_eq!(answer.code(), Code::Unavailable);
            pass(60_000).await;
            let kept = fault == CommitFault::UnknownApplied;
            assert_eq!(rig.keys(Table::Finished).len(), usize::from(kept), "nobody has it in mind");
            let accepted = rig.try_submit(&script(), keyed("k")).await.unwrap();
            assert_eq!(accepted.done(), kept);
            rig.check(&rig.done(accepted.id()).await, &script());
            rig.check_slots(slots).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c22_each_fault_at_each_commit_of_an_operation_changes_nothing_in_the_end() {
    let good = script();
    let bad = script()
        .with("b", |act| act.run([Do::Apply, Do::Save(1), Do::Fail(Fault::UnknownForGood)]))
        .with("a", |act| act.undo_fails(1));
    let again = script().with("a", |act| {
        act.runs([vec![Do::Sleep(1), Do::Save(1), Do::Fail(Fault::Unknown)], vec![Do::Save(2), Do::Apply]])
    });
    for script in [good, bad, again] {
        for fault in FAULTS {
            for refused in [0, 2, 9] {
                for nth in 1.. {
                    let rig = Rig::with(|builder| builder.running_max(1).unfinished_max(2)).await;
                    let accepted = rig.submit(&script).await;
                    rig.faults.fail_commit(nth, fault);
                    rig.faults.refuse_reopens(refused);
                    let done = loop {
                        match rig.engine().wait(accepted.id(), millis(300_000)).await {
                            Ok(operation) => break operation,
                            // Away for a moment.
                            Err(error) => assert_eq!(error.code(), Code::Unavailable),
                        }
                        pass(500).await;
                    };
                    assert!(done.done(), "{fault:?} at {nth}: {done:?} {:?}", rig.engine().held());
                    rig.check(&done, &script);
                    assert_eq!(done.error().is_some(), script.acts[1].applies() && done.response().is_none());
                    if total(&rig) == 0 {
                        assert!(nth > 2, "the fault was never met");
                        break;
                    }
                    rig.check_slots(1).await;
                    rig.check_unfinished(2).await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c09_a_done_step_does_not_run_again_whatever_the_store_does() {
    for fault in FAULTS {
        for nth in 1..=2 {
            let rig = Rig::new().await;
            let accepted = rig.submit(&script()).await;
            rig.faults.fail_commit(nth, fault);
            let done = rig.done(accepted.id()).await;
            assert_eq!(total(&rig), 1);
            for act in ["a", "b"] {
                assert_eq!(rig.world.runs(done.id(), act), 1, "{fault:?} at {nth}: {act}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c22_a_fault_at_cancel_is_told_and_asking_again_helps() {
    let hanging = Script::chain(&["a", "b"]).with("b", |act| act.run([Do::Apply, Do::UntilStopped]));
    let parked = Script::chain(&["a", "b"])
        .with("b", |act| act.run([Do::Apply, Do::Fail(Fault::Unknown)]).runs_max(1000));
    for script in [hanging, parked] {
        for fault in FAULTS {
            let rig = Rig::new().await;
            let accepted = rig.submit(&script).await;
            pass(60_000).await;
            let before = rig.get(accepted.id()).await;
            rig.faults.fail_commit(1, fault);
            let answer = rig.engine().cancel(accepted.id(), &caller()).await;
            assert_eq!(total(&rig), 1);
            match &answer {
                Ok(operation) => assert_eq!(operation.error().unwrap().code(), Code::Cancelled),
                Err(CommandError::Store(CommitError::Unavailable(_))) => {
                    // Said to be certain: it is not cancelled, and goes on.
                    assert!(
                        matches!(
                            fault,
                            CommitFault::NotApplied
                                | CommitFault::TakenBack
                                | CommitFault::UnknownNotApplied
                                | CommitFault::UnknownLost
                                | CommitFault::PanicBefore
                        ),
                        "{fault:?}"
                    );
                    pass(30_000).await;
                    let now = rig.get(accepted.id()).await;
                    assert_eq!((now.phase(), now.error()), (before.phase(), None), "{fault:?}");
                }
                Err(CommandError::Store(CommitError::Unknown(_))) => {}
                Err(other) => panic!("{fault:?}: {other:?}"),
            }
            let again = rig.cancel(accepted.id()).await;
            assert_eq!(again.error().unwrap().code(), Code::Cancelled);
            rig.check(&rig.done(accepted.id()).await, &script);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c22_a_checkpoint_is_saved_once_the_store_is_back() {
    for fault in FAULTS {
        for script in [
            Script::new([Act::new("a").run([
                Do::Sleep(1),
                Do::Save(1),
                Do::Save(2),
                Do::Apply,
                Do::Save(3),
            ])]),
            Script::new([Act::new("a").run([
                Do::Sleep(1),
                Do::Apply,
                Do::Save(1),
                Do::Save(2),
                Do::Fail(Fault::UnknownForGood),
            ])]),
        ] {
            for nth in 1..=3 {
                let rig = Rig::new().await;
                let accepted = rig.submit(&script).await;
                rig.faults.fail_commit(nth, fault);
                let done = rig.done(accepted.id()).await;
                assert_eq!(total(&rig), 1);
                rig.check(&done, &script);
                assert_eq!(rig.world.runs(done.id(), "a"), 1, "{fault:?} at {nth}");
                if done.error().is_some() {
                    let undo = &rig.world.calls_of(done.id(), crate::common::world::What::Undo, "a")[0];
                    assert_eq!(undo.checkpoint, Some(2), "{fault:?} at {nth}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn l8_a_full_disk_refuses_submits_pauses_what_runs_and_lets_reads_through() {
    let rig = Rig::with(|builder| builder.running_max(2)).await;
    let script = script();
    let running = rig.submit(&script).await;
    let parked = Script::new([Act::new("a").runs([vec![Do::Fail(Fault::Unknown)], vec![Do::Apply]])]);
    let waiting = rig.submit(&parked).await;
    pass(1).await;
    rig.faults.set_disk_full(true);
    let refused = rig.try_submit(&Script::chain(&["x"]), keyed("k")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    pass(30_000).await;
    assert_eq!(rig.get(running.id()).await.phase(), Phase::Pending);
    assert!(rig.engine().list_operations(&longrun::OperationQuery::All, &Default::default()).await.is_ok());
    // Who asks for something is told, and does not wait for the disk.
    for id in [running.id(), waiting.id()] {
        let by = caller();
        let cancel = rig.engine().cancel(id, &by);
        let cancel = tokio::time::timeout(millis(10_000), cancel).await.expect("the caller hangs");
        assert_eq!(cancel.unwrap_err().code(), Code::ResourceExhausted);
    }
    assert!(rig.faults.fired().disk_full > 3);
    assert!(rig.faults.fired().disk_full < 100, "it is not asked all the time");
    rig.faults.set_disk_full(false);
    rig.check(&rig.done(running.id()).await, &script);
    rig.check(&rig.done(waiting.id()).await, &parked);
    assert_eq!(rig.world.runs(running.id(), "b"), 1);
    rig.check_slots(2).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_everything_is_waited_out() {
    for read in [ReadFault::Unavailable, ReadFault::Panic] {
        let rig = Rig::with(|builder| builder.running_max(2)).await;
        let script = script();
        let running = rig.submit(&script).await;
        let parked = Script::new([Act::new("a").runs([vec![Do::Fail(Fault::Unknown)], vec![Do::Apply]])]);
        let waiting = rig.submit(&parked).await;
        pass(1).await;
        rig.faults.set_disk_full(true);
        rig.faults.set_reads(Some(read));
        pass(100_000).await;
        assert_eq!(rig.try_submit(&script, keyed("k")).await.unwrap_err().code(), Code::Unavailable);
        rig.faults.set_disk_full(false);
        rig.faults.set_reads(None);
        rig.check(&rig.done(running.id()).await, &script);
        rig.check(&rig.done(waiting.id()).await, &parked);
        rig.check_slots(2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s13_an_outage_at_the_start_refuses_the_start_and_the_next_try_helps() {
    let mut rig = Rig::new().await;
    let accepted = rig.submit(&script()).await;
    rig.crash().await;
    let store = rig.mount();
    Knobs::set(&rig.knobs.take_overs_to_fail, 1);
    assert!(rig.builder(store.clone()).start().await.is_err());
    rig.faults.set_disk_full(true);
    assert!(rig.builder(store.clone()).start().await.is_err());
    rig.faults.set_disk_full(false);
    rig.faults.fail_commit(1, CommitFault::UnknownApplied);
    assert!(rig.builder(store.clone()).start().await.is_err());
    let engine = rig.builder(store).start().await.unwrap();
    rig.put(engine);
    rig.check(&rig.done(accepted.id()).await, &script());
}
