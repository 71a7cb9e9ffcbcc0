//! Rolling back: in reverse, for ever, in sight, and without a slot while it waits.

use longrun::{Code, Phase, ResourceStatus};
use tokio::time::Instant;

use crate::common::script::{Act, Do, Fault, Script, Thing, Touch, thing_id};
use crate::common::world::What;
use crate::common::{Rig, millis, pass};

fn failing_end(names: [&str; 3]) -> Script {
    Script::chain(&names).with(names[2], |act| act.run([Do::Apply, Do::Fail(Fault::UnknownForGood)]))
}

#[tokio::test(start_paused = true)]
async fn c10_undo_goes_in_reverse_dependency_order_and_side_by_side_where_it_may() {
    let rig = Rig::new().await;
    let slow = |name: &str| Act::new(name).undo([Do::Sleep(100), Do::Revert]);
    let bad = Act::new("e").after(["d"]).run([Do::Fail(Fault::NotAppliedForGood)]);
    let script = Script::new([
        slow("a"),
        slow("b").after(["a"]),
        slow("c").after(["a"]),
        slow("d").after(["b", "c"]),
        bad,
    ]);
    let start = Instant::now();
    let done = rig.play(&script).await;
    assert_eq!(start.elapsed(), millis(300));
    let undos: Vec<_> =
        rig.world.calls().into_iter().filter(|call| call.what == What::Undo).map(|call| call.act).collect();
    assert_eq!(undos, ["d", "b", "c", "a"]);
    assert_eq!(done.error().unwrap().code(), Code::FailedPrecondition);
}

#[tokio::test(start_paused = true)]
async fn c10_a_failing_undo_keeps_everything_before_it() {
    let rig = Rig::new().await;
    let script = failing_end(["a", "b", "c"]).with("b", |act| act.undo_fails(4));
    let done = rig.play(&script).await;
    assert_eq!((rig.world.undos(done.id(), "b"), rig.world.undos(done.id(), "a")), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn c02_c05_done_has_exactly_one_end_and_is_final() {
    let rig = Rig::new().await;
    for (script, succeeds) in [(Script::chain(&["a", "b"]), true), (failing_end(["a", "b", "c"]), false)] {
        let slow = script.with("a", |act| act.run([Do::Sleep(100), Do::Apply]));
        let accepted = rig.submit(&slow).await;
        pass(50).await;
        let open = rig.get(accepted.id()).await;
        assert!(!open.done() && open.response().is_none() && open.error().is_none());
        let done = rig.done(accepted.id()).await;
        assert_eq!((done.response().is_some(), done.error().is_some()), (succeeds, !succeeds));
        let by = crate::common::caller();
        _ = rig.engine().cancel(done.id(), &by).await;
        _ = rig.engine().intervene(done.id(), &by, longrun::Verb::RetryNow, "").await;
        pass(100_000).await;
        assert_eq!(rig.get(done.id()).await, done);
    }
}

#[tokio::test(start_paused = true)]
async fn c03_the_first_cause_stays_whatever_fails_later() {
    let rig = Rig::new().await;
    let script =
        failing_end(["a", "b", "c"]).with("c", |act| act.undo_fails(2)).with("a", |act| act.undo_fails(6));
    let accepted = rig.submit(&script).await;
    pass(100).await;
    let rolling = rig.get(accepted.id()).await;
    assert_eq!((rolling.phase(), rolling.error().unwrap().code()), (Phase::RollingBack, Code::DataLoss));
    assert!(rolling.response().is_none() && !rolling.done());
    rig.cancel(accepted.id()).await;
    let done = rig.done(accepted.id()).await;
    assert_eq!(done.error(), rolling.error());
    rig.check(&done, &script);
}

#[tokio::test(start_paused = true)]
async fn c12_an_undo_that_fails_panics_or_hangs_is_tried_again_without_end_and_shows_as_blocked() {
    let rig = Rig::with(|builder| builder.running_max(1)).await;
    let undos = [
        vec![Do::Panic],
        vec![Do::Hang],
        vec![Do::Fail(Fault::Unknown)],
        vec![Do::Fail(Fault::Unknown)],
        vec![Do::Revert],
    ];
    let act = Act::new("a").run([Do::Apply, Do::Fail(Fault::UnknownForGood)]).undos(undos).limits(1000, 100);
    let script = Script::new([act]);
    let accepted = rig.submit(&script).await;
    pass(1000).await;
    assert!(rig.get(accepted.id()).await.blocked().is_empty());
    // Hangs from about 200 ms to 1300, then fails for the third time.
    while rig.world.undos(accepted.id(), "a") < 4 {
        pass(10).await;
    }
    let blocked = rig.get(accepted.id()).await;
    assert_eq!((blocked.done(), blocked.blocked().len()), (false, 1));
    assert!(blocked.blocked()[0].undo && blocked.blocked()[0].failures >= 3);
    rig.check(&rig.done(accepted.id()).await, &script);
    rig.check_slots(1).await;
}

#[tokio::test(start_paused = true)]
async fn c12_one_that_waits_holds_no_slot() {
    let rig = Rig::with(|builder| builder.running_max(1)).await;
    let blocked =
        Script::new([Act::new("a").run([Do::Apply, Do::Fail(Fault::UnknownForGood)]).undo_fails(30)]);
    let waiting = Script::new([Act::new("a").runs([
        vec![Do::Fail(Fault::Unknown)],
        vec![Do::Fail(Fault::Unknown)],
        vec![Do::Apply],
    ])]);
    let first = rig.submit(&blocked).await;
    let second = rig.submit(&waiting).await;
    let quick = Script::chain(&["a", "b"]);
    for _ in 0..50 {
        let start = Instant::now();
        rig.play(&quick).await;
        assert!(start.elapsed() < millis(5), "{:?}", start.elapsed());
        pass(37).await;
    }
    for (id, script) in [(first.id(), blocked), (second.id(), waiting)] {
        rig.check(&rig.done(id).await, &script);
    }
    rig.check_slots(1).await;
}

#[tokio::test(start_paused = true)]
async fn l4_waits_between_undos_grow_to_their_bound() {
    let rig = Rig::new().await;
    let script =
        Script::new([Act::new("a").run([Do::Apply, Do::Fail(Fault::UnknownForGood)]).undo_fails(20)]);
    let (commits, done) = rig.commits(rig.play(&script)).await;
    let undos = rig.world.calls_of(done.id(), What::Undo, "a");
    let waits: Vec<_> = undos.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(waits[0] >= millis(100) && waits.iter().all(|wait| *wait <= millis(10_010)));
    assert!(waits[10..].iter().all(|wait| *wait >= millis(5000)));
    // Bounded writing too: no more than two commits a try.
    assert!(commits <= 2 * 21 + 3, "{commits}");
}

/// Judged by the time of the acceptance, which the clock is behind of then, every wait would be over.
#[tokio::test(start_paused = true)]
async fn l4_s44_waits_are_kept_when_the_clock_was_set_back_before_the_acceptance() {
    for (slots, restarts, moment) in
        [(8, false, 50), (1, false, 50), (8, true, 50), (8, false, 310), (1, false, 310)]
    {
        let mut rig = Rig::with(move |builder| builder.running_max(slots)).await;
        let fails = |how| vec![Do::Sleep(100), Do::Apply, Do::Fail(how)];
        let runs = [fails(Fault::Unknown), fails(Fault::Unknown), fails(Fault::UnknownForGood)];
        let script = Script::new([Act::new("a").runs(runs).undo_fails(8)]);
        let accepted = rig.submit(&script).await;
        // Before its first end, or in its second run, which the scheduler has taken up.
        pass(moment).await;
        rig.time.skew(-3_600_000);
        let begun = Instant::now();
        if restarts {
            // Its first run has failed by then, and it waits.
            pass(100).await;
            rig.crash().await;
            rig.start().await;
        }
        let (commits, done) = rig.commits(rig.done(accepted.id())).await;
        // At least half of the first wait, of 200 ms; a run takes 100 ms.
        for (what, least) in [(What::Run, 200), (What::Undo, 100)] {
            let calls = rig.world.calls_of(done.id(), what, "a");
            let waits: Vec<_> = calls.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
            let short = waits.iter().find(|wait| **wait < millis(least));
            assert_eq!(short, None, "slots {slots}, restarts {restarts}, {what:?}: {waits:?}");
        }
        assert!(
            begun.elapsed() < millis(60_000),
            "not as long as the clock was set back: {:?}",
            begun.elapsed()
        );
        let calls = rig.knobs.due_calls.load(std::sync::atomic::Ordering::SeqCst);
        assert!(calls < 100 && commits < 40, "{calls} looks, {commits} commits");
    }
}

#[tokio::test(start_paused = true)]
async fn l4_of_many_that_wait_behind_a_clock_that_was_set_back_each_is_read_when_it_is_due() {
    const MANY: u16 = 60;
    let mut rig = Rig::with(|builder| builder.running_max(usize::from(MANY))).await;
    let fails = |how| vec![Do::Sleep(20), Do::Fail(how)];
    let script =
        Script::new([Act::new("a").runs([fails(Fault::NotApplied), fails(Fault::NotAppliedForGood)])]);
    let mut ids = Vec::new();
    for _ in 0..MANY {
        ids.push(rig.submit(&script).await.id());
    }
    rig.time.skew(-3_600_000);
    // All of them wait.
    pass(30).await;
    rig.crash().await;
    rig.start().await;
    let begun = Instant::now();
    for id in ids {
        assert!(rig.done(id).await.error().is_some());
    }
    assert!(begun.elapsed() < millis(5000), "{:?}", begun.elapsed());
    let loads = rig.knobs.loads.load(std::sync::atomic::Ordering::SeqCst);
    assert!(loads < 4 * u64::from(MANY), "{loads} loads");
}

#[tokio::test(start_paused = true)]
async fn c13_l1_what_waits_is_cancelled_at_once_also_when_the_clock_was_set_back_before_the_acceptance() {
    for restarts in [false, true] {
        let mut rig = Rig::new().await;
        let script = Script::chain(&["a", "b"]).with("b", |act| act.run([Do::Fail(Fault::NotApplied)]));
        let accepted = rig.submit(&script).await;
        pass(100).await;
        // It waits, and the scheduler has looked once more since.
        let other = rig.play(&Script::chain(&["c"])).await;
        assert!(other.error().is_none());
        rig.time.skew(-3_600_000);
        if restarts {
            rig.crash().await;
            rig.start().await;
        }
        let begun = Instant::now();
        rig.cancel(accepted.id()).await;
        let done = rig.done(accepted.id()).await;
        assert_eq!(done.error().unwrap().code(), Code::Cancelled);
        assert!(begun.elapsed() < millis(10_000), "{:?}", begun.elapsed());
        rig.check(&done, &script);
    }
}

#[tokio::test(start_paused = true)]
async fn c13_cancel_wins_or_shows_the_operation_as_it_is_and_twice_is_once() {
    let rig = Rig::new().await;
    let script = Script::chain(&["a", "b"]).with("b", |act| act.run([Do::Apply, Do::UntilStopped]));
    let accepted = rig.submit(&script).await;
    pass(100).await;
    let (one, two) = tokio::join!(rig.cancel(accepted.id()), rig.cancel(accepted.id()));
    assert_eq!(one.error(), two.error());
    let done = rig.done(accepted.id()).await;
    rig.check(&done, &script);
    assert_eq!(done.error().unwrap().code(), Code::Cancelled);
    assert_eq!(rig.cancel(done.id()).await, done, "C5");
    let finished = rig.play(&Script::chain(&["a"])).await;
    let answer = rig.cancel(finished.id()).await;
    assert!(answer == finished && answer.response().is_some());
}

#[tokio::test(start_paused = true)]
async fn c13_cancel_at_every_moment_ends_as_the_answer_said() {
    let script = Script::new([
        Act::new("a").run([Do::Sleep(10), Do::Apply, Do::Sleep(10)]),
        Act::new("b")
            .after(["a"])
            .run([Do::Sleep(10), Do::Apply, Do::Sleep(10)])
            .undo([Do::Sleep(10), Do::Revert]),
        Act::new("c").after(["b"]).run([Do::Sleep(10), Do::Apply, Do::Sleep(10)]),
    ]);
    for at in 0..70 {
        let rig = Rig::with(|builder| builder.running_max(1)).await;
        crate::common::disk::Knobs::set(&rig.knobs.commit_ms, 3);
        let script = if at % 2 == 0 { script.clone() } else { script.clone().no_return("b") };
        let accepted = rig.submit(&script).await;
        pass(at).await;
        let answer = rig.cancel(accepted.id()).await;
        let done = rig.done(accepted.id()).await;
        rig.check(&done, &script);
        let won = answer.error().is_some();
        assert_eq!(won, done.error().is_some(), "at {at} ms");
        rig.check_slots(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn past_the_point_of_no_return_it_only_goes_forward() {
    let rig = Rig::new().await;
    let often = |times| {
        let mut runs = vec![vec![Do::Fail(Fault::UnknownForGood)]; times];
        runs.push(vec![Do::Apply]);
        runs
    };
    let last = Act::new("c").after(["b"]);
    let runs: [Vec<Do>; 9] = often(8).try_into().unwrap();
    let script = Script::new([Act::new("a"), Act::new("b").after(["a"]), last.runs(runs)])
        .no_return("b")
        .touch(Touch::Create("t".to_owned()));
    let accepted = rig.submit(&script).await;
    pass(3000).await;
    let answer = rig.cancel(accepted.id()).await;
    assert_eq!((answer.phase(), answer.error()), (Phase::Pending, None));
    assert_eq!(answer.blocked().len(), 1, "it shows");
    assert!(!answer.blocked()[0].undo);
    let done = rig.done(accepted.id()).await;
    rig.check(&done, &script);
    assert!(done.response().is_some());
    assert_eq!(rig.world.undos(done.id(), "a"), 0);
}

#[tokio::test(start_paused = true)]
async fn c21_rows_move_along_their_table_and_back_to_their_before_image() {
    let rig = Rig::new().await;
    let status = async |id: &str| {
        let found = rig.engine().resource::<Thing>(&thing_id(id)).await.unwrap();
        found.map(|found| (found.row.status, found.body.text, found.row.name))
    };
    let touch = |touch| {
        failing_end(["a", "b", "c"]).with("b", |act| act.undo([Do::Sleep(500), Do::Revert])).touch(touch)
    };
    let t = || "t".to_owned();

    let failing = rig.submit(&touch(Touch::Create(t()))).await;
    pass(100).await;
    assert_eq!(status("t").await.unwrap().0, ResourceStatus::Deleting);
    rig.done(failing.id()).await;
    assert_eq!(status("t").await, None);

    rig.play(&Script::chain(&["made"]).touch(Touch::Create(t()))).await;
    let made = status("t").await.unwrap();
    assert_eq!(made.0, ResourceStatus::Ready);
    for (way, meanwhile) in
        [(Touch::Update(t()), ResourceStatus::Ready), (Touch::Delete(t()), ResourceStatus::Deleting)]
    {
        let failing = rig.submit(&touch(way)).await;
        pass(100).await;
        assert_eq!(status("t").await.unwrap().0, meanwhile);
        rig.done(failing.id()).await;
        assert_eq!(status("t").await.unwrap(), made, "C4: back at its before-image");
    }
    rig.play(&Script::chain(&["again"]).touch(Touch::Update(t()))).await;
    assert_eq!(status("t").await.unwrap(), (ResourceStatus::Ready, "again".to_owned(), "changed".to_owned()));
    rig.play(&Script::chain(&["gone"]).touch(Touch::Delete(t()))).await;
    assert_eq!(status("t").await, None);
}
