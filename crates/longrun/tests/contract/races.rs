//! Two engines, two commands, two moments: what happens when things meet in a store that takes its time.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use longrun::store::faulty::CommitFault;
use longrun::store::{Batch, Kv, Table};
use longrun::{
    Code, CommandError, Operation, OperationId, OperationQuery, PageRequest, Phase, SubmitError, Verb,
};
use tokio::time::Instant;

use crate::common::disk::Knobs;
use crate::common::script::{Act, Do, Fault, Manner, Script, Touch};
use crate::common::world::What;
use crate::common::{Rig, call, caller, keyed, millis, pass};

#[tokio::test(start_paused = true)]
async fn c17_a_fenced_engine_changes_nothing_and_says_so() {
    let mut rig = Rig::new().await;
    let store = rig.mount();
    rig.start_on(store.clone()).await;
    let script = Script::chain(&["a", "b"]).with("a", |act| act.run([Do::Sleep(1000), Do::Apply]));
    let accepted = rig.submit(&script).await;
    pass(10).await;
    let old = rig.start_on(store).await.unwrap();
    pass(100).await;
    let before = rig.faults.commits();
    // The old one learns of it with its next write.
    let refused = old.submit::<crate::common::script::Scripted>(&script, call()).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Fenced), "{refused:?}");
    assert!(matches!(old.cancel(accepted.id(), &caller()).await, Err(CommandError::Fenced)));
    assert!(matches!(old.sweep().await, Err(CommandError::Fenced)));
    pass(500).await;
    assert_eq!(rig.faults.commits(), before, "nothing was written");
    let done = rig.done(accepted.id()).await;
    rig.check(&done, &script);
    assert_eq!(old.get(accepted.id()).await.unwrap(), done, "it can still read");
    let tokens: Vec<_> =
        rig.world.calls_of(done.id(), What::Run, "a").iter().map(|run| run.token.epoch).collect();
    assert!(tokens[1] > tokens[0], "S31: the handler sees it");
}

#[tokio::test(start_paused = true)]
async fn c17_an_engine_that_learns_of_it_by_a_sweep_says_so_and_stops() {
    let mut rig = Rig::new().await;
    let store = rig.mount();
    let old = rig.builder(store.clone()).start().await.unwrap();
    let new = rig.builder(store).start().await.unwrap();
    rig.put(new);
    let answer = old.sweep().await;
    assert!(matches!(answer, Err(CommandError::Fenced)), "{answer:?}");
    // It does not even plan any more.
    let script = Script::chain(&["a"]).manner(Manner::Panic);
    let refused = old.submit::<crate::common::script::Scripted>(&script, call()).await;
    assert!(matches!(refused, Err(SubmitError::Fenced)), "{refused:?}");
}

/// The next owner decides the same: that is its turn, and not the former owner's commit of unknown outcome.
#[tokio::test(start_paused = true)]
async fn c17_s33_a_turn_of_the_next_owner_is_not_taken_for_the_own_commit() {
    // When the clock was set back, even the times of both turns are the same.
    for set_back in [0, 3_600_000] {
        let mut rig = Rig::stopped(|builder| builder.running_max(1));
        let store = rig.mount();
        rig.start_on(store.clone()).await;
        let act = |name| Script::new([Act::new(name).run([Do::Sleep(1000), Do::Apply])]);
        rig.submit(&act("a")).await;
        let waits = rig.submit(&act("b")).await;
        rig.time.skew(-set_back);
        // The first commit ends what runs, the second starts what has waited.
        rig.faults.fail_commit(2, CommitFault::UnknownNotApplied);
        while rig.faults.fired().unknown_not_applied == 0 {
            pass(1).await;
        }
        let old = rig.start_on(store).await.unwrap();
        let done = rig.done(waits.id()).await;
        rig.check(&done, &act("b"));
        let runs = rig.world.calls_of(done.id(), What::Run, "b");
        let epochs: Vec<_> = runs.iter().map(|run| run.token.epoch).collect();
        assert_eq!(epochs, [rig.engine().fence()], "set back by {set_back} ms");
        let refused = old.submit::<crate::common::script::Scripted>(&act("c"), call()).await;
        assert!(matches!(refused, Err(SubmitError::Fenced)), "{refused:?}");
    }
}

/// A commit that was refused is decided again, on what is stored by then. What the next owner has started there is his to run.
#[tokio::test(start_paused = true)]
async fn c17_s30_a_run_that_the_next_owner_has_started_is_not_begun_by_the_former() {
    for fault in [CommitFault::NotApplied, CommitFault::UnknownNotApplied] {
        let mut rig = Rig::stopped(|builder| builder);
        let store = rig.mount();
        rig.start_on(store.clone()).await;
        let script = Script::chain(&["a", "b"])
            .with("a", |act| act.runs([vec![Do::Sleep(100), Do::Apply], vec![Do::Apply]]))
            .with("b", |act| act.run([Do::Sleep(1000), Do::Apply]));
        let accepted = rig.submit(&script).await;
        let before = rig.faults.commits();
        rig.faults.fail_commit(1, fault);
        while rig.faults.commits() == before {
            pass(1).await;
        }
        let _old = rig.start_on(store).await.unwrap();
        let done = rig.done(accepted.id()).await;
        rig.check(&done, &script);
        let runs = rig.world.calls_of(done.id(), What::Run, "b");
        let epochs: Vec<_> = runs.iter().map(|run| run.token.epoch).collect();
        assert_eq!(epochs, [rig.engine().fence()], "{fault:?}");
    }
}

/// Who takes up an operation of which an undo waits has nothing to store, and would begin it without a commit when its time comes.
#[tokio::test(start_paused = true)]
async fn c17_s30_who_takes_up_what_waits_asks_whose_it_is() {
    let mut rig = Rig::stopped(|builder| builder);
    let store = rig.mount();
    rig.start_on(store.clone()).await;
    let script = Script::new([Act::new("a").run([Do::Apply, Do::Fail(Fault::UnknownForGood)]).undo_fails(5)]);
    let accepted = rig.submit(&script).await;
    pass(10).await;
    assert_eq!(rig.world.undos(accepted.id(), "a"), 1);
    // The former owner takes it up for the second try, and reads it late: by then the next one has tried, and waits.
    Knobs::set(&rig.knobs.load_ms, 1000);
    pass(250).await;
    Knobs::set(&rig.knobs.load_ms, 0);
    Knobs::set(&rig.knobs.owners_to_fail, 1);
    let old = rig.start_on(store).await.unwrap();
    let done = rig.done(accepted.id()).await;
    rig.check(&done, &script);
    assert_eq!(rig.knobs.owners_to_fail.load(Ordering::SeqCst), 0, "it has asked");
    let cancelled = old.cancel(accepted.id(), &caller()).await;
    assert!(matches!(cancelled, Err(CommandError::Fenced)), "it knows: {cancelled:?}");
}

#[tokio::test(start_paused = true)]
async fn c17_the_outcome_that_a_fenced_engine_brings_late_is_refused() {
    let mut rig = Rig::new().await;
    let store = rig.mount();
    rig.start_on(store.clone()).await;
    let script = Script::chain(&["a", "b"]).with("a", |act| act.run([Do::Sleep(1000), Do::Apply]));
    let accepted = rig.submit(&script).await;
    pass(500).await;
    let old = rig.start_on(store).await.unwrap();
    rig.cancel(accepted.id()).await;
    let done = rig.done(accepted.id()).await;
    pass(5000).await;
    assert_eq!(rig.get(accepted.id()).await, done, "C5");
    assert_eq!(done.error().unwrap().code(), Code::Cancelled);
    assert!(matches!(
        old.submit::<crate::common::script::Scripted>(&script, call()).await,
        Err(SubmitError::Fenced)
    ));
    assert!(old.shutdown(millis(100)).await, "it has stopped");
}

#[tokio::test(start_paused = true)]
async fn commands_meet_the_take_up_of_a_waiting_operation_at_every_moment() {
    let parked =
        Act::new("b").after(["a"]).runs([vec![Do::Apply, Do::Fail(Fault::Unknown)], vec![Do::Apply]]);
    let script = Script::new([Act::new("a"), parked.undo([Do::Sleep(5), Do::Revert])])
        .touch(Touch::Create("t".to_owned()));
    for at in 0..150 {
        let rig = Rig::with(|builder| builder.running_max(1)).await;
        for knob in [&rig.knobs.commit_ms, &rig.knobs.load_ms, &rig.knobs.loaded_ms, &rig.knobs.answer_ms] {
            Knobs::set(knob, 5);
        }
        let accepted = rig.submit(&script).await;
        pass(100 + at * 2).await;
        let fault = [
            None,
            Some(CommitFault::UnknownNotApplied),
            Some(CommitFault::UnknownApplied),
            Some(CommitFault::NotApplied),
        ][(at % 4) as usize];
        if let Some(fault) = fault {
            rig.faults.fail_commit(1 + at % 3, fault);
        }
        let commands = join_all((0..3).map(|number| {
            let (engine, id) = (rig.engine().clone(), accepted.id());
            async move {
                pass(number * 3).await;
                match number {
                    0 => engine.intervene(id, &caller(), Verb::RetryNow, "").await,
                    _ => engine.cancel(id, &caller()).await,
                }
            }
        }));
        let answers = commands.await;
        let done = rig.done(accepted.id()).await;
        rig.check(&done, &script);
        for answer in answers[1..].iter().flatten() {
            assert!(answer.error().is_some() == done.error().is_some(), "at {at}: {answer:?}");
        }
        // Spends the fault if it was not met.
        for _ in 0..3 {
            _ = rig.try_submit(&Script::chain(&["x"]), call()).await;
            pass(1000).await;
        }
        rig.check_slots(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn c11_a_cancel_at_rest_that_meets_an_unknown_commit_of_the_take_up_starts_no_step() {
    // A crash left a run on record. The cancel has read the operation when the scheduler takes it up; the adoption's
    // commit fails without a trace, and the cancel's lands on the revision that the adoption wanted.
    for delay in 0..40 {
        let mut rig = Rig::with(|builder| builder.running_max(1)).await;
        let script = Script::new([Act::new("a").run([Do::Apply, Do::Sleep(1000)])]);
        let accepted = rig.submit(&script).await;
        pass(100).await;
        rig.crash().await;
        Knobs::set(&rig.knobs.due_ms, 10);
        Knobs::set(&rig.knobs.load_ms, 5);
        Knobs::set(&rig.knobs.loaded_ms, 5);
        rig.start().await;
        rig.faults.fail_commit(1, CommitFault::UnknownNotApplied);
        pass(delay).await;
        Knobs::set(&rig.knobs.commit_ms, 3);
        let answer = rig.engine().cancel(accepted.id(), &caller()).await;
        if answer.is_err() {
            rig.cancel(accepted.id()).await;
        }
        let done = rig.done(accepted.id()).await;
        rig.check(&done, &script);
        assert_eq!(done.error().unwrap().code(), Code::Cancelled);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_meets_the_last_outcome_in_every_order() {
    for at in 90..112 {
        let rig = Rig::new().await;
        Knobs::set(&rig.knobs.commit_ms, 3);
        Knobs::set(&rig.knobs.answer_ms, 3);
        let script = Script::new([Act::new("a").run([Do::Sleep(100), Do::Apply])]);
        let accepted = rig.submit(&script).await;
        pass(at).await;
        let answer = rig.cancel(accepted.id()).await;
        let done = rig.done(accepted.id()).await;
        assert_eq!(answer.error(), done.error(), "at {at}");
        rig.check(&done, &script);
    }
}

#[tokio::test(start_paused = true)]
async fn s11_what_a_reader_was_shown_never_goes_back() {
    let rig = Rig::with(|builder| builder.running_max(1)).await;
    Knobs::set(&rig.knobs.commit_ms, 2);
    Knobs::set(&rig.knobs.answer_ms, 2);
    let script = Script::chain(&["a", "b", "c"])
        .with("b", |act| act.runs([vec![Do::Fail(Fault::Unknown)], vec![Do::Save(1), Do::Apply]]))
        .with("c", |act| act.run([Do::Apply, Do::Fail(Fault::UnknownForGood)]))
        .with("a", |act| act.undo_fails(2));
    let accepted = rig.submit(&script).await;
    let mut last = accepted;
    for turn in 0..3000 {
        let now = if turn % 2 == 0 {
            rig.get(last.id()).await
        } else {
            let all = rig.engine().list_operations(&OperationQuery::All, &Default::default()).await.unwrap();
            all.items[0].clone()
        };
        assert!(now.revision() >= last.revision() && now.modified_at() >= last.modified_at());
        assert!(now.phase() >= last.phase());
        last = now;
        if last.done() {
            break;
        }
        pass(1).await;
    }
    rig.check(&last, &script);
}

#[tokio::test(start_paused = true)]
async fn a_step_may_cancel_its_own_operation_and_end_the_engine() {
    use longrun::{
        Kind, PlanBuilder, Planned, Step, StepContext, StepResult, UndoContext, UndoResult, Undoable,
        async_trait,
    };
    use std::sync::{Arc, Mutex};

    type Handle = Arc<Mutex<Option<longrun::Engine>>>;
    struct Suicidal(Handle);
    #[async_trait]
    impl Step for Suicidal {
        const NAME: &'static str = "suicidal";
        type Input = bool;
        type Output = ();
        type Checkpoint = ();
        async fn run(&self, cx: &StepContext<()>, drops: bool) -> StepResult<()> {
            let engine = self.0.lock().unwrap().clone();
            if drops {
                drop(engine);
                self.0.lock().unwrap().take();
                return Ok(());
            }
            if let Some(engine) = engine {
                let answer = engine.cancel(cx.operation_id(), &caller()).await?;
                assert_eq!(answer.phase(), Phase::RollingBack);
            }
            Ok(())
        }
        async fn undo(&self, _: &UndoContext, _: bool, _: Undoable<(), ()>) -> UndoResult {
            Ok(())
        }
    }
    struct Suicide;
    #[async_trait]
    impl Kind for Suicide {
        const NAME: &'static str = "suicide";
        type Request = bool;
        type Metadata = ();
        type Response = ();
        async fn plan(&self, drops: &bool, plan: &mut PlanBuilder) -> Planned<Self> {
            Ok(((), plan.step::<Suicidal>(*drops)))
        }
    }

    let mut rig = Rig::stopped(|builder| builder);
    let store = rig.mount();
    let handle = Handle::default();
    let engine =
        rig.builder(store.clone()).kind(Suicide).step(Suicidal(handle.clone())).start().await.unwrap();
    *handle.lock().unwrap() = Some(engine.clone());
    let accepted = engine.submit::<Suicide>(&false, call()).await.unwrap();
    let done = engine.wait_done(accepted.id()).await.unwrap();
    assert_eq!(done.error().unwrap().code(), Code::Cancelled);
    let accepted = engine.submit::<Suicide>(&true, call()).await.unwrap();
    drop(engine);
    pass(1000).await;
    assert!(handle.lock().unwrap().is_none());
    let next = rig.builder(store).kind(Suicide).step(Suicidal(handle)).start().await.unwrap();
    assert!(next.wait_done(accepted.id()).await.unwrap().response().is_some());
}

#[tokio::test(start_paused = true)]
async fn c18_a_resource_row_that_was_tampered_with_holds_its_operation_and_nobody_else() {
    for cancels in [false, true] {
        let rig = Rig::with(|builder| builder.running_max(2)).await;
        let script = Script::new([
            Act::new("a").runs([vec![Do::Fail(Fault::Unknown)], vec![Do::Sleep(1000), Do::Apply]])
        ])
        .touch(Touch::Create("t".to_owned()));
        let accepted = rig.submit(&script).await;
        pass(20).await;
        let mut batch = Batch::default();
        batch.remove(Table::Resources, b"test.thing\0t".to_vec());
        rig.disk.inner().commit(&batch).unwrap();
        if cancels {
            let answer =
                tokio::time::timeout(millis(1000), rig.engine().cancel(accepted.id(), &caller())).await;
            assert!(answer.expect("the caller hangs").is_err());
        }
        pass(5000).await;
        assert_eq!(rig.engine().held().len(), 1);
        assert!(!rig.get(accepted.id()).await.done());
        rig.play(&Script::chain(&["a"])).await;
        rig.check_slots(2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn c15_a_repeat_during_the_first_commit_and_during_recovery_finds_its_operation() {
    let mut rig = Rig::with(|builder| builder.running_max(1)).await;
    Knobs::set(&rig.knobs.commit_ms, 50);
    let script = Script::chain(&["a", "b"]).touch(Touch::CreateNew);
    let first = rig.try_submit(&script, keyed("k"));
    let later = async {
        pass(25).await;
        rig.try_submit(&script, keyed("k")).await
    };
    let (first, later) = tokio::join!(first, later);
    let id = first.unwrap().id();
    assert_eq!(later.unwrap().id(), id);
    Knobs::set(&rig.knobs.due_ms, 20);
    rig.restart().await;
    assert_eq!(rig.try_submit(&script, keyed("k")).await.unwrap().id(), id);
    rig.check(&rig.done(id).await, &script);
    assert_eq!(rig.keys(Table::Operations).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn l6_who_waits_is_not_kept_by_a_command_for_an_operation_that_is_done_or_not_there() {
    let rig = Rig::new().await;
    let done = rig.submit(&Script::chain(&["a"])).await.id();
    rig.done(done).await;
    let missing = OperationId::parse("opr00000000000000000").unwrap();
    Knobs::set(&rig.knobs.load_ms, 40);
    for id in [done, missing] {
        // At every moment of the command, which has the operation in hand meanwhile.
        for pause in (0..100).step_by(5) {
            let (engine, by) = (rig.engine().clone(), caller());
            let command = tokio::spawn(async move { engine.cancel(id, &by).await.is_ok() });
            pass(pause).await;
            let began = Instant::now();
            let waited = rig.engine().wait(id, millis(60_000)).await;
            assert_eq!(waited.is_ok_and(|operation| operation.done()), id == done);
            assert!(began.elapsed() < millis(1000), "{:?} after {pause} ms", began.elapsed());
            assert_eq!(command.await.unwrap(), id == done);
        }
    }
}

/// Every way to ask shows the operation at least as far as whoever was answered before was told.
async fn assert_found(rig: &Rig, script: &Script, acknowledged: &Operation) {
    let (engine, id) = (rig.engine(), acknowledged.id());
    let listed = engine.list_operations(&OperationQuery::All, &PageRequest::default()).await.unwrap().items;
    for found in [
        rig.get(id).await,
        engine.wait(id, millis(0)).await.unwrap(),
        rig.try_submit(script, keyed("k")).await.unwrap(),
        listed.into_iter().find(|operation| operation.id() == id).unwrap(),
    ] {
        assert_eq!(found.id(), id);
        assert!(found.revision() >= acknowledged.revision(), "{found:?} after {acknowledged:?}");
        assert!(found.phase() >= acknowledged.phase() && found.error() == acknowledged.error());
    }
}

#[tokio::test(start_paused = true)]
async fn s38_what_was_acknowledged_is_found_by_the_next_reader() {
    // In the hands of a driver, and at rest.
    for slots in [8, 1] {
        let mut rig = Rig::with(move |builder| builder.running_max(slots)).await;
        rig.submit(&Script::new([Act::new("busy").run([Do::Sleep(600_000)]).limits(900_000, 1)])).await;
        let script = Script::chain(&["a", "b"])
            .with("a", |act| act.undo([Do::Sleep(1000), Do::Revert]))
            .with("b", |act| act.run([Do::Apply, Do::WaitForStop]));
        let accepted = rig.try_submit(&script, keyed("k")).await.unwrap();
        assert_found(&rig, &script, &accepted).await;
        pass(100).await;
        let cancelled = rig.cancel(accepted.id()).await;
        assert_eq!(cancelled.error().map(longrun::Status::code), Some(Code::Cancelled));
        assert_found(&rig, &script, &cancelled).await;
        rig.restart().await;
        assert_found(&rig, &script, &cancelled).await;
        let done = rig.done(accepted.id()).await;
        assert_found(&rig, &script, &done).await;
        rig.check(&done, &script);
    }
}

#[tokio::test(start_paused = true)]
async fn l6_an_end_that_comes_while_the_store_answers_who_waits_is_not_missed() {
    let rig = Rig::with(|builder| builder.running_max(1)).await;
    rig.submit(&Script::new([Act::new("a").run([Do::Sleep(60_000)])])).await;
    let waiting = rig.submit(&Script::chain(&["a"])).await;
    // What was read is old when it arrives.
    Knobs::set(&rig.knobs.loaded_ms, 50);
    let start = Instant::now();
    let (waited, _) = tokio::join!(rig.engine().wait(waiting.id(), millis(30_000)), async {
        pass(1).await;
        Knobs::set(&rig.knobs.loaded_ms, 0);
        rig.cancel(waiting.id()).await
    });
    assert!(waited.unwrap().done());
    assert_eq!(start.elapsed(), millis(50), "its end woke nobody");
}

#[tokio::test(start_paused = true)]
async fn waiting_is_over_when_a_cancel_at_rest_ends_the_operation() {
    let rig = Rig::with(|builder| builder.running_max(1)).await;
    rig.submit(&Script::new([Act::new("a").run([Do::Sleep(60_000)])])).await;
    let waiting = rig.submit(&Script::chain(&["a"])).await;
    let start = Instant::now();
    let (done, answer) = tokio::join!(rig.done(waiting.id()), async {
        pass(100).await;
        rig.cancel(waiting.id()).await
    });
    assert_eq!(start.elapsed(), millis(100));
    assert_eq!(done, answer);
    rig.check(&done, &Script::chain(&["a"]));
}

#[tokio::test(start_paused = true)]
async fn c13_a_cancel_at_rest_whose_caller_goes_away_is_whole_and_wakes_those_who_wait() {
    for patience in 0..12 {
        let rig = Rig::with(|builder| builder.running_max(1).unfinished_max(2)).await;
        rig.submit(&Script::new([Act::new("a").run([Do::Sleep(60_000)])])).await;
        let waiting = rig.submit(&Script::chain(&["a"])).await;
        Knobs::set(&rig.knobs.commit_ms, 5);
        Knobs::set(&rig.knobs.answer_ms, 5);
        let start = Instant::now();
        let (done, _) = tokio::join!(rig.engine().wait(waiting.id(), millis(30_000)), async {
            let by = caller();
            _ = tokio::time::timeout(millis(patience), rig.engine().cancel(waiting.id(), &by)).await;
        });
        assert_eq!(done.unwrap().error().map(longrun::Status::code), Some(Code::Cancelled), "{patience}");
        assert_eq!(start.elapsed(), millis(10), "those who waited were woken by the end");
        Knobs::set(&rig.knobs.commit_ms, 0);
        Knobs::set(&rig.knobs.answer_ms, 0);
        pass(60_000).await;
        rig.check_unfinished(2).await;
        rig.check_slots(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn c22_a_cancel_at_rest_of_unknown_outcome_is_counted_when_the_store_is_back() {
    for fault in [CommitFault::UnknownApplied, CommitFault::UnknownNotApplied] {
        let rig = Rig::with(|builder| builder.running_max(1).unfinished_max(2)).await;
        rig.submit(&Script::new([Act::new("a").run([Do::Sleep(10_000)])])).await;
        let waiting = rig.submit(&Script::chain(&["a"])).await;
        pass(1).await;
        rig.faults.fail_commit(1, fault);
        // The store stays away for a while.
        rig.faults.refuse_reopens(6);
        let by = caller();
        let (woken, answer) = tokio::join!(
            rig.engine().wait(waiting.id(), millis(300_000)),
            rig.engine().cancel(waiting.id(), &by),
        );
        let unknown = matches!(answer, Err(CommandError::Store(longrun::store::CommitError::Unknown(_))));
        assert!(unknown, "{answer:?}");
        if let Ok(operation) = woken {
            assert!(operation.done(), "nobody woke it");
        }
        let done = rig.done(waiting.id()).await;
        assert_eq!(done.error().is_some(), fault == CommitFault::UnknownApplied);
        rig.check(&done, &Script::chain(&["a"]));
        pass(20_000).await;
        rig.check_unfinished(2).await;
        rig.check_slots(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn c22_a_submit_of_unknown_outcome_is_counted_once_it_is_known() {
    for fault in [CommitFault::UnknownApplied, CommitFault::UnknownNotApplied] {
        for slots in [1, 8] {
            let rig = Rig::with(move |builder| builder.running_max(slots).unfinished_max(2)).await;
            rig.faults.fail_commit(1, fault);
            rig.faults.refuse_reopens(6);
            let lasting =
                Script::new([Act::new("a").run([Do::Sleep(100_000), Do::Apply])]).touch(Touch::CreateNew);
            let answer = rig.try_submit(&lasting, keyed("k")).await;
            assert!(matches!(answer, Err(SubmitError::Unknown { .. })), "{answer:?}");
            pass(50_000).await;
            // It runs, or it never was.
            let there = usize::from(fault == CommitFault::UnknownApplied);
            assert_eq!(rig.keys(Table::Operations).len(), there);
            if slots > 1 {
                rig.check_unfinished(2 - there).await;
            }
            pass(200_000).await;
            assert_eq!(rig.keys(Table::Finished).len(), rig.keys(Table::Operations).len());
            rig.check_unfinished(2).await;
        }
    }
}
