//! What operators do about an operation that cannot be undone, and that it is on record.

use longrun::{Code, CommandError, Operation, ResourceStatus, StepIndex, Verb};
use longrun_core::Refusal;

use crate::common::script::{Act, Do, Fault, Script, Thing, Touch, thing_id};
use crate::common::{Rig, caller, pass};

/// `a` is fine, the undo of `b` never succeeds, `c` fails.
fn stuck() -> Script {
    Script::new([
        Act::new("a"),
        Act::new("b").after(["a"]).undo([Do::Fail(Fault::Unknown)]),
        Act::new("c").after(["b"]).run([Do::Fail(Fault::NotAppliedForGood)]),
    ])
}

async fn intervene(rig: &Rig, operation: &Operation, verb: Verb) -> Result<Operation, CommandError> {
    rig.engine().intervene(operation.id(), &caller(), verb, "by hand").await
}

#[tokio::test(start_paused = true)]
async fn marking_undone_and_skipping_go_on_with_the_rest() {
    for verb in [Verb::MarkUndone(StepIndex(1)), Verb::SkipUndo(StepIndex(1))] {
        let rig = Rig::with(|builder| builder.running_max(1)).await;
        let accepted = rig.submit(&stuck()).await;
        pass(60_000).await;
        assert_eq!(rig.get(accepted.id()).await.blocked().len(), 1);
        intervene(&rig, &accepted, verb).await.unwrap();
        let done = rig.done(accepted.id()).await;
        assert_eq!(rig.world.undos(done.id(), "a"), 1);
        assert_eq!(rig.world.effects(done.id()), ["b"], "the operator answers for it");
        assert_eq!(done.error().unwrap().code(), Code::FailedPrecondition);
        assert!(!done.was_abandoned());
        rig.check_slots(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn abandoning_ends_it_and_leaves_its_resources_in_error() {
    let rig = Rig::new().await;
    let accepted = rig.submit(&stuck().touch(Touch::Create("t".to_owned()))).await;
    pass(60_000).await;
    let done = intervene(&rig, &accepted, Verb::Abandon).await.unwrap();
    assert!(done.done() && done.was_abandoned());
    assert_eq!(rig.done(accepted.id()).await, done);
    let found = rig.engine().resource::<Thing>(&thing_id("t")).await.unwrap().unwrap();
    assert_eq!((found.row.status, found.row.operation), (ResourceStatus::Error, None));
    let calls = rig.world.calls().len();
    pass(1_000_000).await;
    assert_eq!(rig.world.calls().len(), calls, "C5: nothing happens any more");
    assert!(matches!(
        intervene(&rig, &accepted, Verb::Abandon).await.unwrap_err(),
        CommandError::Refused(Refusal::Done(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn retrying_now_does_not_wait() {
    let rig = Rig::new().await;
    let script = stuck().with("b", |act| act.undo_fails(30));
    let accepted = rig.submit(&script).await;
    pass(60_000).await;
    let before = rig.world.undos(accepted.id(), "b");
    for more in 1..=2 {
        rig.engine().intervene(accepted.id(), &caller(), Verb::RetryNow, "").await.unwrap();
        pass(1).await;
        assert_eq!(rig.world.undos(accepted.id(), "b"), before + more);
    }
    rig.check(&rig.done(accepted.id()).await, &script);
    // Forward too.
    let script = Script::new([Act::new("a").runs([vec![Do::Fail(Fault::Unknown)], vec![Do::Apply]])]);
    let accepted = rig.submit(&script).await;
    pass(1).await;
    rig.engine().intervene(accepted.id(), &caller(), Verb::RetryNow, "").await.unwrap();
    pass(1).await;
    assert!(rig.get(accepted.id()).await.done());
}

#[tokio::test(start_paused = true)]
async fn a_verb_that_does_not_fit_is_refused_and_changes_nothing() {
    let rig = Rig::new().await;
    let script = Script::chain(&["a", "b"]).with("b", |act| act.run([Do::Sleep(1000), Do::Apply]));
    let accepted = rig.submit(&script).await;
    pass(100).await;
    let before = rig.get(accepted.id()).await;
    for verb in [Verb::MarkUndone(StepIndex(0)), Verb::SkipUndo(StepIndex(7)), Verb::Abandon] {
        let refused = intervene(&rig, &accepted, verb).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    }
    let refused = rig.engine().intervene(accepted.id(), &caller(), Verb::RetryNow, &"x".repeat(513)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    let nobody = longrun::OperationId::parse("opr00000000000000000").unwrap();
    let refused = rig.engine().intervene(nobody, &caller(), Verb::RetryNow, "").await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(rig.engine().cancel(nobody, &caller()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(rig.get(accepted.id()).await, before);
    rig.check(&rig.done(accepted.id()).await, &script);
}

#[tokio::test(start_paused = true)]
async fn the_late_report_of_an_undo_that_an_operator_took_over_is_not_heard() {
    let rig = Rig::with(|builder| builder.running_max(2)).await;
    let slow = [vec![Do::Fail(Fault::Unknown)], vec![Do::Sleep(5000), Do::Fail(Fault::Unknown)]];
    let script =
        stuck().with("b", |act| act.undos(slow)).with("a", |act| act.undo([Do::Sleep(20_000), Do::Revert]));
    let accepted = rig.submit(&script).await;
    pass(1000).await;
    assert_eq!(rig.world.undos(accepted.id(), "b"), 2, "it is under way");
    intervene(&rig, &accepted, Verb::MarkUndone(StepIndex(1))).await.unwrap();
    let done = rig.done(accepted.id()).await;
    assert_eq!((rig.world.undos(done.id(), "b"), rig.world.undos(done.id(), "a")), (2, 1));
    assert_eq!(rig.engine().held(), []);
    rig.check_slots(2).await;
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_waits_takes_verbs_at_rest_and_from_a_step_of_its_own() {
    let rig = Rig::with(|builder| builder.running_max(1)).await;
    let accepted = rig.submit(&stuck()).await;
    pass(60_000).await;
    // Many at once: each is recorded once, whoever runs.
    let verbs = (0..10).map(|_| intervene(&rig, &accepted, Verb::RetryNow));
    let answers = futures_util::future::join_all(verbs).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let mut revisions: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().revision()).collect();
    revisions.dedup();
    assert!(revisions.is_sorted());
    intervene(&rig, &accepted, Verb::Abandon).await.unwrap();
    assert!(rig.done(accepted.id()).await.was_abandoned());
    rig.check_slots(1).await;
}
