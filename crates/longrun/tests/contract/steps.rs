//! Running steps: started durably, recorded once, stopped in time, whatever they do.

use std::sync::{Arc, Mutex};

use longrun::{
    Call, Code, InterceptedRun, InterceptedUndo, Interceptor, Json, Kind, Phase, PlanBuilder, Planned,
    Progress, ProgressUnit, Step, StepContext, StepError, StepResult, Timestamp, UndoContext, UndoResult,
    Undoable, async_trait,
};

use crate::common::disk::Knobs;
use crate::common::script::{Act, Do, Fault, Script, Thing};
use crate::common::world::What;
use crate::common::{Rig, call, caller, millis, pass};

#[tokio::test(start_paused = true)]
async fn independent_steps_run_at_once_up_to_the_limit() {
    for (parallel, most) in [(1, 1), (3, 3), (64, 10)] {
        let rig = Rig::new().await;
        let acts = (0..10).map(|n| Act::new(&format!("a{n}")).run([Do::Sleep(100), Do::Apply])).collect();
        let mut script = Script::default().parallel(parallel);
        script.acts = acts;
        let start = tokio::time::Instant::now();
        rig.play(&script).await;
        assert_eq!(rig.world.most_at_once(What::Run), most);
        assert_eq!(start.elapsed(), millis(100 * 10_u64.div_ceil(most as u64)));
    }
}

#[tokio::test(start_paused = true)]
async fn c09_each_step_of_a_quiet_run_runs_once() {
    let rig = Rig::new().await;
    let script = Script::new([
        Act::new("a"),
        Act::new("b").run([Do::Sleep(10), Do::Apply]),
        Act::new("c").after(["a"]),
        Act::new("d").after(["b", "c"]),
    ]);
    let done = rig.play(&script).await;
    for act in ["a", "b", "c", "d"] {
        assert_eq!(rig.world.runs(done.id(), act), 1);
    }
    let order: Vec<_> = rig.world.calls().into_iter().map(|call| call.act).collect();
    assert_eq!(order, ["a", "b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn s27_s44_a_step_that_fails_for_now_is_run_again_and_its_key_stays() {
    let rig = Rig::new().await;
    let fail = |fault| vec![Do::Apply, Do::Fail(fault)];
    let act = Act::new("a").runs([fail(Fault::Unknown), fail(Fault::NotApplied), vec![Do::Apply]]);
    let script = Script::new([act, Act::new("b").after(["a"])]);
    let done = rig.play(&script).await;
    let runs = rig.world.calls_of(done.id(), What::Run, "a");
    assert_eq!(runs.len(), 3);
    assert!(runs.iter().all(|run| run.key == runs[0].key), "S27");
    assert!(runs.is_sorted_by_key(|run| run.token) && runs[0].token != runs[1].token);
    assert!(runs[1].at - runs[0].at >= millis(100), "backoff");
    assert_eq!(done.response().unwrap().decode::<Thing>().unwrap(), Thing::new("b"));
}

#[tokio::test(start_paused = true)]
async fn c04_whatever_a_step_does_wrong_the_world_is_as_before() {
    let ends = [
        (vec![Do::Fail(Fault::NotAppliedForGood)], Code::FailedPrecondition),
        (vec![Do::Apply, Do::Fail(Fault::UnknownForGood)], Code::DataLoss),
        (vec![Do::Apply, Do::Fail(Fault::Unknown)], Code::Unavailable),
        (vec![Do::Apply, Do::Panic], Code::Internal),
        (vec![Do::Apply, Do::Hang], Code::DeadlineExceeded),
        (vec![Do::Apply, Do::PanicWhenDropped, Do::Hang], Code::DeadlineExceeded),
        (vec![Do::Apply, Do::Output(40_000)], Code::Internal),
        (vec![Do::Apply, Do::UntilStopped], Code::Aborted),
    ];
    let rig = Rig::with(|builder| builder.running_max(2)).await;
    for (run, code) in ends {
        let bad = Act::new("bad").after(["a"]).runs([run.clone()]).limits(1000, 100);
        let script = Script::new([Act::new("a"), Act::new("beside"), bad, Act::new("never").after(["bad"])]);
        let done = rig.play(&script).await;
        assert_eq!(done.error().unwrap().code(), code, "{run:?}");
        assert_eq!(rig.world.runs(done.id(), "never"), 0);
        assert_eq!(rig.world.undos(done.id(), "never"), 0);
    }
    rig.check_slots(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_certainly_did_nothing_is_not_undone() {
    let rig = Rig::new().await;
    let clean = Act::new("b").after(["a"]).run([Do::Fail(Fault::NotAppliedForGood)]);
    let done = rig.play(&Script::new([Act::new("a"), clean])).await;
    assert_eq!((rig.world.undos(done.id(), "a"), rig.world.undos(done.id(), "b")), (1, 0));
    let sticky = Act::new("b")
        .after(["a"])
        .runs([vec![Do::Fail(Fault::Unknown)], vec![Do::Fail(Fault::NotAppliedForGood)]]);
    let done = rig.play(&Script::new([Act::new("a"), sticky])).await;
    assert_eq!(rig.world.undos(done.id(), "b"), 1, "an earlier run of it may have done something");
}

#[tokio::test(start_paused = true)]
async fn s29_a_run_past_its_time_counts_as_may_have_run_and_its_late_result_is_not_heard() {
    let rig = Rig::new().await;
    let late = Act::new("a").run([Do::Sleep(5000), Do::Apply]).limits(1000, 100).runs_max(1);
    let accepted = rig.submit(&Script::new([late])).await;
    let done = rig.done(accepted.id()).await;
    assert_eq!(done.error().unwrap().code(), Code::DeadlineExceeded);
    assert_eq!(rig.world.undos(done.id(), "a"), 1);
    pass(10_000).await;
    assert_eq!(rig.world.effects(done.id()), [""; 0], "the run was dropped");
    // Within the grace it is heard.
    let late = Act::new("a").run([Do::Sleep(1050), Do::Apply]).limits(1000, 100).runs_max(1);
    assert!(rig.play(&Script::new([late])).await.response().is_some());
}

#[tokio::test(start_paused = true)]
async fn c14_a_run_sees_cancel_at_once_and_is_dropped_after_its_grace() {
    let rig = Rig::new().await;
    for (run, lasts) in [(vec![Do::Apply, Do::UntilStopped], 0), (vec![Do::Apply, Do::Hang], 300)] {
        let script = Script::new([Act::new("a").runs([run]).limits(60_000, 300)]);
        let accepted = rig.submit(&script).await;
        pass(1000).await;
        let cancelled = tokio::time::Instant::now();
        let answer = rig.cancel(accepted.id()).await;
        assert_eq!((answer.phase(), answer.done()), (Phase::RollingBack, false));
        assert_eq!(answer.error().unwrap().code(), Code::Cancelled, "C3");
        let done = rig.done(accepted.id()).await;
        assert_eq!(cancelled.elapsed(), millis(lasts));
        rig.check(&done, &script);
        assert_eq!(rig.world.undos(done.id(), "a"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn c14_a_deadline_is_seen_at_once() {
    let rig = Rig::new().await;
    let script = Script::new([Act::new("a").run([Do::Apply, Do::UntilStopped])]);
    let accepted = rig.try_submit(&script, call().deadline(millis(700))).await.unwrap();
    let start = tokio::time::Instant::now();
    let done = rig.done(accepted.id()).await;
    assert!(start.elapsed() < millis(702), "{:?}", start.elapsed());
    assert_eq!(done.error().unwrap().code(), Code::DeadlineExceeded);
    rig.check(&done, &script);
    // One that waits for its next run sees it too.
    let script = Script::new([Act::new("a").run([Do::Apply, Do::Fail(Fault::Unknown)]).runs_max(1000)]);
    let accepted = rig.try_submit(&script, call().deadline(millis(5000))).await.unwrap();
    let start = tokio::time::Instant::now();
    let done = rig.done(accepted.id()).await;
    assert!(start.elapsed() < millis(5005), "{:?}", start.elapsed());
    rig.check(&done, &script);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_comes_back_to_the_next_run_and_to_the_undo() {
    let mut rig = Rig::new().await;
    let first = vec![Do::Apply, Do::Save(1), Do::Save(2), Do::Fail(Fault::Unknown)];
    let second = vec![Do::Save(3), Do::Hang];
    let act = Act::new("a").runs([first, second.clone(), second]);
    let script = Script::new([act]);
    let accepted = rig.submit(&script).await;
    pass(1000).await;
    rig.restart().await;
    pass(1000).await;
    rig.cancel(accepted.id()).await;
    let done = rig.done(accepted.id()).await;
    rig.check(&done, &script);
    let runs: Vec<_> =
        rig.world.calls_of(done.id(), What::Run, "a").iter().map(|run| run.checkpoint).collect();
    assert_eq!(runs, [None, Some(2), Some(3)]);
    assert_eq!(rig.world.calls_of(done.id(), What::Undo, "a")[0].checkpoint, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_checkpoints_leave_one_entry() {
    let rig = Rig::new().await;
    let mut run: Vec<_> = (0..1000).map(Do::Save).collect();
    run.push(Do::Sleep(1000));
    run.push(Do::Apply);
    let script = Script::new([Act::new("a").runs([run])]);
    let accepted = rig.submit(&script).await;
    pass(500).await;
    assert_eq!(rig.keys(longrun::store::Table::Journal).len(), 1);
    let done = rig.done(accepted.id()).await;
    rig.check(&done, &script);
    assert_eq!(done.revision().0, 1002);
}

#[tokio::test(start_paused = true)]
async fn progress_shows_at_once_and_survives_with_the_next_checkpoint() {
    let mut rig = Rig::new().await;
    let run = vec![Do::Report(1, 4), Do::Save(1), Do::Report(2, 4), Do::Sleep(1000), Do::Apply];
    let accepted = rig.submit(&Script::new([Act::new("a").runs([run])])).await;
    pass(100).await;
    let items = |done| Some(Progress { done, total: 4, unit: ProgressUnit::Items });
    assert_eq!(rig.get(accepted.id()).await.progress(), items(2));
    let listed =
        rig.engine().list_operations(&longrun::OperationQuery::All, &Default::default()).await.unwrap();
    assert_eq!(listed.items[0].progress(), items(2));
    Knobs::set(&rig.knobs.load_ms, 50);
    rig.restart().await;
    assert_eq!(rig.get(accepted.id()).await.progress(), items(1));
    let done = rig.done(accepted.id()).await;
    assert!(done.response().is_some());
}

#[tokio::test(start_paused = true)]
async fn progress_of_steps_side_by_side_does_not_mix_and_goes_with_its_step() {
    let mut rig = Rig::new().await;
    let first = vec![Do::Report(1, 10), Do::Sleep(200), Do::Apply];
    // It saves while another reports, and reports nothing itself.
    let silent = vec![Do::Sleep(50), Do::Save(7), Do::Sleep(1000), Do::Apply];
    let third = vec![Do::Sleep(100), Do::Report(3, 30), Do::Save(1), Do::Sleep(500), Do::Apply];
    let last = Act::new("last").after(["first", "silent", "third"]).run([Do::Sleep(1000), Do::Apply]);
    let acts = [("first", first), ("silent", silent), ("third", third)];
    let [first, silent, third] = acts.map(|(name, run)| Act::new(name).runs([run]));
    let script = Script::new([first, silent, third, last]);
    let accepted = rig.submit(&script).await;
    let items = |done| Some(Progress { done, total: 10 * done, unit: ProgressUnit::Items });
    pass(150).await;
    assert_eq!(rig.get(accepted.id()).await.progress(), items(1), "of the first that reports");
    pass(150).await;
    assert_eq!(rig.get(accepted.id()).await.progress(), items(3), "the first is done");
    // What is stored says the same: the silent one did not take over what the first had reported.
    rig.restart().await;
    pass(10).await;
    assert_eq!(rig.get(accepted.id()).await.progress(), items(3));
    pass(1200).await;
    assert_eq!(rig.get(accepted.id()).await.progress(), None, "another step runs, and tells nothing");
    rig.check(&rig.done(accepted.id()).await, &script);

    let script = Script::new([Act::new("a")
        .run([Do::Report(5, 50), Do::Save(1), Do::Apply, Do::WaitForStop, Do::Sleep(500), Do::UntilStopped])
        .undo([Do::Sleep(500), Do::Revert])]);
    let accepted = rig.submit(&script).await;
    pass(10).await;
    assert_eq!(rig.get(accepted.id()).await.progress(), items(5));
    rig.cancel(accepted.id()).await;
    // While the run is still on, and while it is undone.
    for wait in [10, 700] {
        pass(wait).await;
        let rolling_back = rig.get(accepted.id()).await;
        assert_eq!((rolling_back.phase(), rolling_back.progress()), (Phase::RollingBack, None));
    }
    rig.done(accepted.id()).await;
}

/// Steps with large outputs that end together, one that ends early, and one that needs them all.
fn large_outputs(ends_at: u64, early_at: u64) -> Script {
    let mut script = Script::default().parallel(21);
    for n in 0..20 {
        script.acts.push(Act::new(&format!("a{n}")).run([Do::Sleep(ends_at), Do::Apply, Do::Output(30_000)]));
    }
    let mut last = Act::new("last");
    last.after = script.acts.iter().map(|act| act.name.clone()).collect();
    script.acts.push(Act::new("early").run([Do::Sleep(early_at), Do::Apply]));
    script.acts.push(last);
    script
}

#[tokio::test(start_paused = true)]
async fn many_large_outputs_at_the_same_moment_fit_their_records() {
    // They end while a commit is under way, so all of them are there for the next one.
    let rig = Rig::new().await;
    Knobs::set(&rig.knobs.commit_ms, 50);
    rig.play(&large_outputs(20, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn large_outputs_that_end_during_an_outage_fit_their_records() {
    let rig = Rig::new().await;
    let script = large_outputs(100, 10);
    let accepted = rig.submit(&script).await;
    rig.faults.set_disk_full(true);
    pass(2000).await;
    rig.faults.set_disk_full(false);
    let done = rig.done(accepted.id()).await;
    rig.check(&done, &script);
}

#[tokio::test(start_paused = true)]
async fn steps_that_save_and_end_together_do_not_block_each_other() {
    let rig = Rig::new().await;
    Knobs::set(&rig.knobs.commit_ms, 5);
    let mut script = Script::default().parallel(64);
    for n in 0..64 {
        let run: Vec<_> = (0..5).map(Do::Save).chain([Do::Apply]).collect();
        script.acts.push(Act::new(&format!("a{n}")).runs([run]));
    }
    rig.play(&script).await;
}

#[tokio::test(start_paused = true)]
async fn c16_times_never_go_back_though_the_clock_does() {
    let rig = Rig::new().await;
    let acts = ["a", "b", "c", "d"].map(|name| Act::new(name).run([Do::Sleep(1000), Do::Apply]));
    let mut script = Script::new(acts);
    for place in 1..4 {
        script.acts[place].after = vec![script.acts[place - 1].name.clone()];
    }
    let accepted = rig.submit(&script).await;
    let mut last = accepted.modified_at();
    assert_eq!(accepted.created_at(), last);
    for skew in [-5_000, 2_000, -3_600_000] {
        pass(1100).await;
        rig.time.skew(skew);
        let now = rig.get(accepted.id()).await;
        assert!(now.modified_at() >= last && now.created_at() == accepted.created_at());
        last = now.modified_at();
    }
    let done = rig.done(accepted.id()).await;
    assert!(done.modified_at() >= last);
    rig.check(&done, &script);
}

/// A step with data flow, which also looks at what it is told.
struct Join;

#[async_trait]
impl Step for Join {
    const NAME: &'static str = "join";
    type Input = (Thing, Thing);
    type Output = Thing;
    type Checkpoint = ();

    async fn run(&self, cx: &StepContext<()>, (left, right): (Thing, Thing)) -> StepResult<Thing> {
        assert_eq!(cx.caller().as_str(), "tester");
        assert_eq!(cx.kind().as_str(), "test.join");
        assert_eq!(cx.metadata().decode::<u32>().unwrap(), 7);
        Ok(Thing::new(format!("{}+{}", left.text, right.text)))
    }

    async fn undo(&self, _: &UndoContext, _: (Thing, Thing), _: Undoable<Thing, ()>) -> UndoResult {
        Ok(())
    }
}

struct Joining;

#[async_trait]
impl Kind for Joining {
    const NAME: &'static str = "test.join";
    type Request = ();
    type Metadata = u32;
    type Response = Thing;

    async fn plan(&self, (): &(), plan: &mut PlanBuilder) -> Planned<Self> {
        let one = plan.value(&Thing::new("one"));
        let two = plan.step::<Join>((&one, &one));
        plan.describe("joins");
        let three = plan.step::<Join>((&two, &one));
        Ok((7, three))
    }
}

#[tokio::test(start_paused = true)]
async fn outputs_flow_from_step_to_step_and_to_the_response() {
    let mut rig = Rig::stopped(|builder| builder);
    let store = rig.mount();
    let engine = rig.builder(store).kind(Joining).step(Join).start().await.unwrap();
    let accepted = engine.submit::<Joining>(&(), Call::by(caller())).await.unwrap();
    assert_eq!(accepted.description(), "joins");
    let done = engine.wait_done(accepted.id()).await.unwrap();
    assert_eq!(done.response().unwrap().decode::<Thing>().unwrap(), Thing::new("one+one+one"));
    assert!(done.created_at() > Timestamp::UNIX_EPOCH);
}

/// Counts runs and undos, and refuses those of one step.
#[derive(Clone, Default)]
struct Gatekeeper(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Interceptor for Gatekeeper {
    async fn run(&self, run: &InterceptedRun<'_>) -> StepResult<Json> {
        self.0.lock().unwrap().push(format!("run {}", run.effect_key().step));
        if run.effect_key().step.0 == 1 {
            return Err(StepError::not_applied(Code::ResourceExhausted, "not today").permanent());
        }
        run.call().await
    }

    async fn undo(&self, undo: &InterceptedUndo<'_>) -> UndoResult {
        let known = matches!(undo.outcome(), Undoable::Done(_));
        self.0.lock().unwrap().push(format!("undo {} done: {known}", undo.effect_key().step));
        undo.call().await
    }
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_stands_around_every_run_and_undo_and_its_answer_counts() {
    let keeper = Gatekeeper::default();
    let seen = Arc::clone(&keeper.0);
    let rig = Rig::with(move |builder| builder.interceptor(keeper.clone())).await;
    let script = Script::new([Act::new("a"), Act::new("b").after(["a"])]);
    let accepted = rig.submit(&script).await;
    let done = rig.done(accepted.id()).await;
    assert_eq!(
        done.error().map(|error| (error.code(), error.message())),
        Some((Code::ResourceExhausted, "not today"))
    );
    assert_eq!(*seen.lock().unwrap(), ["run 0", "run 1", "undo 0 done: true"]);
    assert_eq!((rig.world.runs(done.id(), "a"), rig.world.runs(done.id(), "b")), (1, 0));
    assert_eq!(rig.world.effects(done.id()), Vec::<String>::new());
}
