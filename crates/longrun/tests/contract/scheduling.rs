//! Who runs when: bounded, oldest first, nobody forgotten, nobody turning in circles.

use longrun::store::Table;
use longrun::{Code, Phase};
use tokio::time::Instant;

use crate::common::disk::Knobs;
use crate::common::script::{Act, Do, Fault, Script};
use crate::common::world::What;
use crate::common::{LONG, Rig, call, caller, millis, pass};

fn lasting(millis: u64) -> Script {
    Script::new([Act::new("a").run([Do::Sleep(millis), Do::Apply])])
}

fn starts(rig: &Rig) -> Vec<longrun::OperationId> {
    rig.world.calls().iter().filter(|call| call.what == What::Run).map(|call| call.key.operation).collect()
}

#[tokio::test(start_paused = true)]
async fn l3_the_backlog_is_durable_and_first_come_is_first_served() {
    let mut rig = Rig::with(|builder| builder.running_max(2)).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(rig.submit(&lasting(100)).await.id());
        pass(1).await;
    }
    assert_eq!(rig.world.most_at_once(What::Run), 2);
    pass(150).await;
    rig.restart().await;
    let before = starts(&rig).len();
    for id in &ids {
        rig.done(*id).await;
    }
    assert_eq!(
        starts(&rig)[before..],
        ids[before - 2..],
        "those that ran first, then the others in their order"
    );
}

#[tokio::test(start_paused = true)]
async fn l3_a_new_operation_does_not_overtake_those_that_wait_however_slow_the_store_looks() {
    for due_ms in [0, 7, 40] {
        let rig = Rig::with(|builder| builder.running_max(1)).await;
        Knobs::set(&rig.knobs.due_ms, due_ms);
        let mut ids = Vec::new();
        for _ in 0..30 {
            ids.push(rig.submit(&lasting(50)).await.id());
            pass(20).await;
        }
        for id in &ids {
            rig.done(*id).await;
        }
        assert_eq!(starts(&rig), ids, "with {due_ms} ms for a look");
    }
}

#[tokio::test(start_paused = true)]
async fn l3_what_can_go_on_at_once_does_not_wait_for_the_end_of_a_backlog_that_is_younger() {
    let rig = Rig::with(|builder| builder.running_max(1)).await;
    // It waits on disk for its next try, and is older than all others.
    let again = Act::new("a").runs([vec![Do::Apply, Do::Fail(Fault::Unknown)], vec![Do::Apply]]);
    let first = rig.submit(&Script::new([again])).await;
    pass(1).await;
    for _ in 0..600 {
        rig.submit(&lasting(100)).await;
    }
    pass(500).await;
    rig.cancel(first.id()).await;
    let began = Instant::now();
    let done = rig.done(first.id()).await;
    assert_eq!(done.error().unwrap().code(), Code::Cancelled);
    assert!(began.elapsed() < millis(1500), "{:?}", began.elapsed());
    assert!(starts(&rig).len() < 30, "the backlog is far from its end");
}

#[tokio::test(start_paused = true)]
async fn l1_a_retry_that_is_due_while_all_slots_are_taken_waits_quietly_for_one() {
    let rig = Rig::with(|builder| builder.running_max(1)).await;
    let again = Script::new([Act::new("a").runs([vec![Do::Fail(Fault::Unknown)], vec![Do::Apply]])]);
    let first = rig.submit(&again).await;
    pass(1).await;
    let second = rig.submit(&lasting(60_000)).await;
    rig.check(&rig.done(first.id()).await, &again);
    rig.check(&rig.done(second.id()).await, &lasting(60_000));
    assert!(rig.knobs.due_calls.load(std::sync::atomic::Ordering::SeqCst) < 100);
}

#[tokio::test(start_paused = true)]
async fn l1_no_wake_up_is_lost_however_the_scheduler_and_the_drivers_meet() {
    // A retry is parked at every phase of a look whose every reading takes 40 ms.
    for phase in (0..450).step_by(5) {
        let rig = Rig::with(|builder| builder.running_max(4)).await;
        let again = Act::new("a").runs([vec![Do::Sleep(phase), Do::Fail(Fault::Unknown)], vec![Do::Apply]]);
        let script = Script::new([again]);
        Knobs::set(&rig.knobs.due_ms, 40);
        let accepted = rig.submit(&script).await;
        // What makes the scheduler look.
        let other = rig
            .submit(&Script::new([
                Act::new("a").runs([vec![Do::Sleep(15), Do::Fail(Fault::Unknown)], vec![Do::Apply]])
            ]))
            .await;
        for id in [accepted.id(), other.id()] {
            let done = rig.engine().wait(id, millis(5_000)).await.unwrap();
            assert!(done.done(), "forgotten when it parked at {phase} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn l1_an_operation_that_cannot_be_read_for_a_moment_is_not_forgotten() {
    for set_back_ms in [0, 3_600_000] {
        let mut rig = Rig::with(|builder| builder.running_max(1)).await;
        let accepted = rig.submit(&lasting(100)).await;
        rig.crash().await;
        Knobs::set(&rig.knobs.loads_to_fail, 3);
        rig.start().await;
        pass(100).await;
        rig.time.skew(-set_back_ms);
        pass(60_000).await;
        assert!(rig.get(accepted.id()).await.done(), "forgotten");
        rig.check_slots(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn l4_operations_that_cannot_be_read_are_tried_now_and_then_however_much_else_happens() {
    const MANY: u16 = 20;
    let mut rig = Rig::with(|builder| builder.running_max(usize::from(MANY) + 1)).await;
    let mut ids = Vec::new();
    for _ in 0..MANY {
        ids.push(rig.submit(&lasting(100)).await.id());
    }
    rig.crash().await;
    Knobs::set(&rig.knobs.load_ms, 7);
    Knobs::set(&rig.knobs.loads_to_fail, u64::MAX);
    rig.start().await;
    let begun = rig.knobs.loads.load(std::sync::atomic::Ordering::SeqCst);
    // A command at rest has the scheduler look anew, whatever comes of it.
    let stranger = longrun::OperationId::parse("opr00000000000000000").unwrap();
    for _ in 0..600 {
        _ = rig.engine().cancel(stranger, &caller()).await;
        pass(100).await;
    }
    let loads = rig.knobs.loads.load(std::sync::atomic::Ordering::SeqCst) - begun - 600;
    // At the start, and then every five seconds.
    let most = 14 * u64::from(MANY);
    assert!(loads > most / 2 && loads <= most, "{loads} loads");
    Knobs::set(&rig.knobs.loads_to_fail, 0);
    for id in ids {
        assert!(rig.done(id).await.error().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn l1_a_store_that_cannot_be_looked_through_is_asked_now_and_then_not_in_a_circle() {
    let mut rig = Rig::with(|builder| builder.running_max(1)).await;
    let accepted = rig.submit(&lasting(100)).await;
    rig.crash().await;
    rig.start().await;
    Knobs::set(&rig.knobs.dues_to_fail, 20);
    let done = rig.done(accepted.id()).await;
    rig.check(&done, &lasting(100));
    assert!(rig.knobs.due_calls.load(std::sync::atomic::Ordering::SeqCst) < 100);
}

#[tokio::test(start_paused = true)]
async fn l1_a_scheduler_that_panics_begins_anew() {
    let rig = Rig::with(|builder| builder.running_max(1)).await;
    let first = rig.submit(&lasting(100)).await;
    let waiting = rig.submit(&lasting(100)).await;
    Knobs::set(&rig.knobs.dues_to_panic, 3);
    for id in [first.id(), waiting.id()] {
        let done = rig.engine().wait(id, millis(60_000)).await.unwrap();
        assert!(done.done(), "nobody takes it up any more");
    }
    assert!(rig.knobs.due_calls.load(std::sync::atomic::Ordering::SeqCst) < 100);
    rig.check_slots(1).await;
    Knobs::set(&rig.knobs.dues_to_panic, u64::MAX);
    rig.submit(&lasting(100)).await;
    rig.submit(&lasting(100)).await;
    pass(200).await;
    assert!(rig.engine().shutdown(millis(10)).await, "it stops all the same");
}

#[tokio::test(start_paused = true)]
async fn l1_a_clock_that_moves_between_two_looks_loses_nothing() {
    for tick in [1, 100, 10_000, 150_000] {
        let rig = Rig::with(|builder| builder.running_max(2)).await;
        rig.time.tick_at_each_look(tick);
        let bad = Act::new("c").after(["a", "b"]).run([Do::Fail(Fault::NotAppliedForGood)]);
        let script = Script::new([Act::new("a").undo_fails(6), Act::new("b").undo_fails(9), bad]);
        let accepted = rig.submit(&script).await;
        let done = rig.engine().wait(accepted.id(), millis(200_000)).await.unwrap();
        assert!(done.done(), "forgotten with {tick} µs a look");
        rig.check(&done, &script);
    }
}

#[tokio::test(start_paused = true)]
async fn c16_a_clock_that_is_set_back_delays_and_forgets_nothing() {
    let rig = Rig::with(|builder| builder.running_max(1)).await;
    let again = Script::new([Act::new("a").runs([vec![Do::Fail(Fault::Unknown)], vec![Do::Apply]])]);
    let parked = rig.submit(&again).await;
    pass(10).await;
    let running = rig.submit(&lasting(1000)).await;
    let waiting = rig.submit(&lasting(1000)).await;
    rig.time.skew(-30_000);
    let start = Instant::now();
    for id in [parked.id(), running.id(), waiting.id()] {
        rig.done(id).await;
    }
    assert!(start.elapsed() < millis(120_000), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn l1_a_clock_that_is_set_back_keeps_neither_the_backlog_nor_the_recovery_waiting() {
    for restarts in [false, true] {
        for (slots, tick) in [(1, 0), (1, 7), (8, 0), (8, 7)] {
            let mut rig = Rig::with(move |builder| builder.running_max(slots)).await;
            rig.time.tick_at_each_look(tick);
            let failing =
                Script::new([Act::new("a").runs([vec![Do::Fail(Fault::Unknown)], vec![Do::Apply]])]);
            let running = rig.submit(&lasting(1000)).await;
            let waiting = rig.submit(&lasting(1000)).await;
            let parks = rig.submit(&failing).await;
            pass(10).await;
            rig.time.skew(-3_600_000);
            if restarts {
                rig.crash().await;
                // Those that cannot be read for a moment are found again.
                Knobs::set(&rig.knobs.loads_to_fail, 2);
                rig.start().await;
                pass(10).await;
            }
            let later = rig.submit(&lasting(1000)).await;
            let start = Instant::now();
            for id in [running.id(), waiting.id(), later.id()] {
                rig.done(id).await;
            }
            // With room for it, it ran and had its wait before the clock was set.
            if slots == 1 {
                rig.done(parks.id()).await;
            }
            assert!(start.elapsed() < millis(20_000), "{:?}", start.elapsed());
            let calls = rig.knobs.due_calls.load(std::sync::atomic::Ordering::SeqCst);
            assert!(calls < 100, "{calls} looks: it turns in a circle");
            rig.check_slots(slots).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn l1_one_that_waits_for_a_time_does_not_stand_before_the_backlog_when_the_clock_is_set_back() {
    let rig = Rig::with(|builder| builder.running_max(1)).await;
    let waits = Script::new([Act::new("a").runs([vec![Do::Fail(Fault::Unknown)], vec![Do::Apply]])]);
    let waits = rig.submit(&waits).await;
    pass(1).await;
    let running = rig.submit(&lasting(1000)).await;
    rig.time.skew(1000);
    let backlog = rig.submit(&lasting(1000)).await;
    rig.time.skew(-3_600_000);
    let start = Instant::now();
    for id in [running.id(), backlog.id()] {
        rig.done(id).await;
    }
    assert!(start.elapsed() < millis(3000), "{:?}", start.elapsed());
    let calls = rig.knobs.due_calls.load(std::sync::atomic::Ordering::SeqCst);
    assert!(calls < 100, "{calls} looks: it turns in a circle");
    assert!(rig.done(waits.id()).await.response().is_some(), "it has its time too");
}

#[tokio::test(start_paused = true)]
async fn waiters_wake_at_the_very_end_and_not_before() {
    let rig = Rig::new().await;
    let accepted = rig.submit(&lasting(1000)).await;
    let start = Instant::now();
    let waiters = (0..1000).map(|_| rig.engine().wait(accepted.id(), LONG));
    let answers = futures_util::future::join_all(waiters).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().done()));
    assert_eq!(start.elapsed(), millis(1000));
    // A time-out gives it as it is; an end that was missed is seen at once.
    let accepted = rig.submit(&lasting(1000)).await;
    let start = Instant::now();
    let early = rig.engine().wait(accepted.id(), millis(300)).await.unwrap();
    assert_eq!((early.done(), early.phase(), start.elapsed()), (false, Phase::Pending, millis(300)));
    let none = rig.engine().wait(accepted.id(), millis(0)).await.unwrap();
    assert!(!none.done());
    pass(1000).await;
    let start = Instant::now();
    assert!(rig.engine().wait(accepted.id(), LONG).await.unwrap().done());
    assert_eq!(start.elapsed(), millis(0));
    let nobody = longrun::OperationId::parse("opr00000000000000000").unwrap();
    assert_eq!(rig.engine().wait(nobody, LONG).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn l3_ten_thousand_operations_go_through_64_slots() {
    let rig = Rig::with(|builder| builder.running_max(64)).await;
    let script = Script::new([Act::new("a").run([Do::Sleep(10), Do::Apply])]);
    let mut ids = Vec::new();
    for _ in 0..10_000 {
        ids.push(rig.submit(&script).await.id());
    }
    for id in &ids {
        rig.done(*id).await;
    }
    assert!(rig.keys(Table::Due).is_empty());
    assert_eq!(rig.keys(Table::Finished).len(), 10_000);
    rig.check_slots(64).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_one_that_waits_on_disk() {
    let rig = Rig::with(|builder| builder.running_max(1)).await;
    rig.submit(&lasting(5000)).await;
    let late = rig.try_submit(&lasting(100), call().deadline(millis(1000))).await.unwrap();
    let done = rig.done(late.id()).await;
    assert_eq!(done.error().unwrap().code(), Code::DeadlineExceeded);
    assert_eq!(rig.world.runs(done.id(), "a"), 0);
}

#[tokio::test(start_paused = true)]
async fn s28_slots_come_back_after_every_kind_of_end() {
    let rig = Rig::with(|builder| builder.running_max(3)).await;
    let ends = [
        vec![Do::Apply],
        vec![Do::Panic],
        vec![Do::PanicWhenDropped, Do::Hang],
        vec![Do::Hang],
        vec![Do::Fail(Fault::UnknownForGood)],
        vec![Do::Apply, Do::Fail(Fault::Unknown)],
    ];
    let mut ids = Vec::new();
    for round in 0..10 {
        for end in &ends {
            let act = Act::new("a").runs([end.clone()]).limits(50 + round, 10);
            ids.push(rig.submit(&Script::new([act])).await.id());
        }
    }
    for id in ids.iter().step_by(3) {
        rig.cancel(*id).await;
    }
    for id in ids {
        rig.done(id).await;
    }
    rig.check_slots(3).await;
}
