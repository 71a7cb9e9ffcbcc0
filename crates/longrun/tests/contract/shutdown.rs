//! Stopping: in time, whatever the steps do, and nothing is worse for it at the next start.

use std::sync::Arc;

use longrun::{Code, CommandError, KvStore, Phase, Store, SubmitError};
use tokio::time::Instant;

use crate::common::disk::Knobs;
use crate::common::script::{Act, Do, Fault, Manner, Play, Script, Scripted};
use crate::common::world::World;
use crate::common::{Rig, call, keyed, millis, pass};

#[tokio::test(start_paused = true)]
async fn l5_shutdown_is_over_in_time_with_a_step_that_never_returns_and_the_next_start_goes_on() {
    let mut rig = Rig::new().await;
    let act = Act::new("b")
        .after(["a"])
        .runs([vec![Do::Save(7), Do::Hang], vec![Do::Apply]])
        .limits(600_000, 60_000);
    let script = Script::new([Act::new("a"), act]);
    let accepted = rig.submit(&script).await;
    pass(100).await;
    let start = Instant::now();
    assert!(!rig.engine().shutdown(millis(2000)).await);
    assert_eq!(start.elapsed(), millis(2000));
    assert!(matches!(rig.try_submit(&script, call()).await, Err(SubmitError::ShuttingDown)));
    assert_eq!(rig.get(accepted.id()).await.phase(), Phase::Pending, "reads work");
    rig.restart().await;
    let done = rig.done(accepted.id()).await;
    rig.check(&done, &script);
    assert_eq!(rig.world.runs(done.id(), "a"), 1, "C9");
}

#[tokio::test(start_paused = true)]
async fn steps_may_finish_within_the_grace_and_no_other_starts() {
    let mut rig = Rig::with(|builder| builder.running_max(1)).await;
    let script = Script::chain(&["a", "b"]).with("a", |act| act.run([Do::Sleep(500), Do::Apply]));
    let accepted = rig.submit(&script).await;
    let waiting = rig.submit(&script).await;
    pass(100).await;
    let start = Instant::now();
    assert!(rig.engine().shutdown(millis(5000)).await);
    assert_eq!(start.elapsed(), millis(400));
    assert_eq!((rig.world.runs(accepted.id(), "a"), rig.world.runs(accepted.id(), "b")), (1, 0));
    assert_eq!(rig.world.runs(waiting.id(), "a"), 0);
    rig.restart().await;
    for id in [accepted.id(), waiting.id()] {
        rig.check(&rig.done(id).await, &script);
        assert_eq!(rig.world.runs(id, "a"), 1, "C9: what was done is done");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_heeds_the_shutdown_is_not_held_to_have_failed() {
    // Its only run is spent on a shutdown; yet the operation must not roll back for that.
    for run in [vec![Do::UntilStopped], vec![Do::Apply, Do::Hang]] {
        let mut rig = Rig::new().await;
        let act = Act::new("a").runs([run, vec![Do::Apply]]).limits(60_000, 200).runs_max(1);
        let script = Script::new([act]);
        let accepted = rig.submit(&script).await;
        pass(100).await;
        assert!(rig.engine().shutdown(millis(5000)).await);
        rig.restart().await;
        let done = rig.done(accepted.id()).await;
        assert_eq!(done.error(), None, "the shutdown made it fail");
        rig.check(&done, &script);
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_during_the_shutdown_may_have_done_so_for_it_and_is_run_again() {
    let mut rig = Rig::new().await;
    let script =
        Script::new([Act::new("a").run([Do::Apply, Do::WaitForStop, Do::Fail(Fault::UnknownForGood)])]);
    let accepted = rig.submit(&script).await;
    pass(100).await;
    assert!(rig.engine().shutdown(millis(5000)).await);
    rig.restart().await;
    let done = rig.done(accepted.id()).await;
    assert_eq!(done.error().unwrap().code(), Code::DataLoss);
    rig.check(&done, &script);
}

#[tokio::test(start_paused = true)]
async fn shutdown_in_a_rollback_goes_on_with_it_at_the_next_start() {
    let mut rig = Rig::new().await;
    let undos = [vec![Do::Hang], vec![Do::Revert]];
    let bad = Act::new("b").after(["a"]).run([Do::Fail(Fault::NotAppliedForGood)]);
    let script = Script::new([Act::new("a").undos(undos).limits(60_000, 200), bad]);
    let accepted = rig.submit(&script).await;
    pass(100).await;
    assert!(rig.engine().shutdown(millis(1000)).await);
    rig.restart().await;
    rig.check(&rig.done(accepted.id()).await, &script);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_dropped_stops_and_leaves_all_to_the_next() {
    let mut rig = Rig::new().await;
    let script = Script::chain(&["a", "b"]).with("a", |act| act.run([Do::Sleep(500), Do::Apply]));
    let accepted = rig.submit(&script).await;
    pass(100).await;
    drop(rig.take());
    pass(10_000).await;
    assert_eq!(rig.world.effects(accepted.id()), [""; 0], "nothing runs on");
    rig.start().await;
    rig.check(&rig.done(accepted.id()).await, &script);
    assert_eq!(rig.world.runs(accepted.id(), "a"), 2, "C8");
}

#[tokio::test(start_paused = true)]
async fn shutdown_during_an_outage_is_over_in_time() {
    let mut rig = Rig::new().await;
    let script = Script::new([Act::new("a").run([Do::Sleep(100), Do::Apply])]);
    let accepted = rig.submit(&script).await;
    rig.faults.set_disk_full(true);
    pass(1000).await;
    let start = Instant::now();
    rig.engine().shutdown(millis(2000)).await;
    assert!(start.elapsed() <= millis(2000));
    rig.faults.set_disk_full(false);
    rig.restart().await;
    rig.check(&rig.done(accepted.id()).await, &script);
}

#[tokio::test(start_paused = true)]
async fn many_shutdowns_do_not_wear_an_operation_out() {
    let mut rig = Rig::new().await;
    let act = Act::new("a").run([Do::UntilStopped]).runs_max(2);
    let script = Script::new([act]);
    let accepted = rig.submit(&script).await;
    for round in 1..=30 {
        pass(100).await;
        assert_eq!(rig.world.runs(accepted.id(), "a"), round, "it goes on at once after each start");
        assert!(rig.engine().shutdown(millis(1000)).await);
        rig.restart().await;
    }
    assert_eq!(rig.get(accepted.id()).await.phase(), Phase::Pending);
}

#[tokio::test(start_paused = true)]
async fn many_shutdowns_do_not_wear_an_undo_out() {
    let mut rig = Rig::new().await;
    let bad = Act::new("b").after(["a"]).run([Do::Fail(Fault::NotAppliedForGood)]);
    let script = Script::new([Act::new("a").undo([Do::WaitForStop, Do::Fail(Fault::Unknown)]), bad]);
    let accepted = rig.submit(&script).await;
    for round in 1..=30 {
        pass(100).await;
        assert_eq!(rig.world.undos(accepted.id(), "a"), round, "it goes on at once after each start");
        assert!(rig.engine().shutdown(millis(1000)).await);
        rig.restart().await;
    }
    let operation = rig.get(accepted.id()).await;
    assert_eq!((operation.phase(), operation.blocked()), (Phase::RollingBack, &[][..]));
}

#[tokio::test(start_paused = true)]
async fn what_a_step_saved_while_the_store_was_slow_is_not_lost_at_a_shutdown() {
    let mut rig = Rig::new().await;
    let run = vec![Do::Save(1), Do::WaitForStop, Do::Save(2), Do::UntilStopped];
    let script = Script::new([Act::new("a").runs([run, vec![Do::Apply]])]);
    let accepted = rig.submit(&script).await;
    pass(100).await;
    assert!(rig.engine().shutdown(millis(5000)).await);
    rig.restart().await;
    rig.check(&rig.done(accepted.id()).await, &script);
    let runs = rig.world.calls_of(accepted.id(), crate::common::world::What::Run, "a");
    assert_eq!((runs.len(), runs[1].checkpoint), (2, Some(2)));
}

#[tokio::test(start_paused = true)]
async fn after_a_whole_shutdown_the_engine_writes_nothing_and_lets_go_of_the_store() {
    // What is under way when it begins: a plan, a first commit without a slot, a cancel at rest, a step.
    for at in 0..30 {
        let mut rig = Rig::stopped(|builder| builder.running_max(1));
        let store = rig.mount();
        let held = Arc::downgrade(&store);
        Knobs::set(&rig.knobs.commit_ms, 5);
        Knobs::set(&rig.knobs.answer_ms, 5);
        let engine = rig.builder(store).start().await.unwrap();
        rig.put(engine);
        let script = Script::new([Act::new("a").run([Do::Sleep(20), Do::Apply])]);
        rig.submit(&script).await;
        let waiting = rig.submit(&script).await;
        let engine = rig.engine().clone();
        let slow = script.clone().manner(Manner::Slow);
        let by = crate::common::caller();
        let stopped = async {
            pass(at).await;
            let ended = engine.shutdown(millis(60_000)).await;
            (ended, rig.faults.commits())
        };
        let ((ended, commits), planned, _, _) = tokio::join!(
            stopped,
            rig.try_submit(&slow, keyed("planned")),
            rig.try_submit(&script, keyed("at once")),
            rig.engine().cancel(waiting.id(), &by),
        );
        assert!(ended, "everything ends within the grace");
        assert!(matches!(planned, Err(SubmitError::ShuttingDown)), "{planned:?}");
        let answer = engine.cancel(waiting.id(), &by).await;
        assert!(matches!(answer, Err(CommandError::ShuttingDown)), "{answer:?}");
        assert!(matches!(engine.sweep().await, Err(CommandError::ShuttingDown)));
        assert_eq!(rig.faults.commits(), commits, "it wrote after it had stopped");
        drop((engine, rig.take()));
        assert!(held.upgrade().is_none(), "somebody still holds the store, at {at}");
    }
}

#[test]
fn after_a_whole_shutdown_nothing_holds_the_store_on_many_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for _ in 0..200 {
            let store: Arc<dyn Store> = Arc::new(KvStore::memory().unwrap());
            let held = Arc::downgrade(&store);
            let world = Arc::new(World::new(KvStore::memory().unwrap()));
            let builder = longrun::Engine::builder_shared(store).running_max(2);
            let play = Play { world, life: Arc::default() };
            let engine = builder.kind(Scripted).step(play).start().await.unwrap();
            for _ in 0..5 {
                engine.submit::<Scripted>(&Script::chain(&["a"]), call()).await.unwrap();
            }
            assert!(engine.shutdown(millis(60_000)).await);
            drop(engine);
            assert!(held.upgrade().is_none(), "somebody still holds the store");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn submits_and_cancels_that_race_with_a_shutdown_are_whole() {
    for at in 0..12 {
        let mut rig = Rig::with(|builder| builder.running_max(1)).await;
        Knobs::set(&rig.knobs.commit_ms, 5);
        let script = Script::chain(&["a", "b"]).with("b", |act| act.run([Do::Apply, Do::UntilStopped]));
        let first = rig.submit(&script).await;
        let (submitted, cancelled, _) = tokio::join!(
            async {
                pass(at).await;
                rig.try_submit(&Script::chain(&["x"]), keyed("k")).await
            },
            async {
                pass(at).await;
                rig.engine().cancel(first.id(), &crate::common::caller()).await
            },
            async {
                pass(6).await;
                rig.engine().shutdown(millis(50)).await
            },
        );
        rig.restart().await;
        if cancelled.is_err() {
            rig.cancel(first.id()).await;
        }
        let done = rig.done(first.id()).await;
        rig.check(&done, &script);
        assert!(cancelled.is_err() || done.error().is_some(), "S10: an acknowledged cancel is never lost");
        if let Ok(accepted) = submitted {
            rig.check(&rig.done(accepted.id()).await, &Script::chain(&["x"]));
        }
    }
}
