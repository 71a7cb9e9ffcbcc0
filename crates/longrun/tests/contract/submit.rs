//! Accepting: durable, atomic, once for each key, bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::join_all;
use longrun::store::{Kv, Table};
use longrun::{
    Code, Engine, IdempotencyKey, Kind, Phase, PlanBuilder, Planned, Resource, ResourceList, ResourceStatus,
    SubmitError, async_trait,
};
use longrun_core::Json;
use tokio::time::Instant;

use crate::common::script::{Act, Do, Manner, Script, Scripted, Thing, Told, Touch, folder, thing_id};
use crate::common::{Rig, call, keyed, millis, pass};

fn one() -> Script {
    Script::chain(&["a"])
}

#[tokio::test(start_paused = true)]
async fn c01_an_acknowledged_submit_survives_a_crash_at_once() {
    let mut rig = Rig::new().await;
    let accepted = rig.submit(&one()).await;
    rig.restart().await;
    let done = rig.done(accepted.id()).await;
    rig.check(&done, &one());
}

#[tokio::test(start_paused = true)]
async fn c06_the_id_is_in_the_first_answer_and_the_resource_shows_creating() {
    let rig = Rig::new().await;
    let script = Script::new([Act::new("a").run([Do::Sleep(1000), Do::Apply])]).touch(Touch::CreateNew);
    let accepted = rig.submit(&script).await;
    let told: Told = accepted.metadata().decode().unwrap();
    let id = thing_id(&told.things[0]);
    let found = rig.engine().resource::<Thing>(&id).await.unwrap().unwrap();
    assert_eq!(found.row.status, ResourceStatus::Creating);
    assert_eq!(found.row.operation, Some(accepted.id()));
    let page =
        rig.engine().list_resources::<Thing>(&ResourceList::of(folder()), &Default::default()).await.unwrap();
    assert_eq!(page.items, [found]);
    rig.done(accepted.id()).await;
    let found = rig.engine().resource::<Thing>(&id).await.unwrap().unwrap();
    assert_eq!((found.row.status, found.row.operation), (ResourceStatus::Ready, None));
    assert_eq!(found.body, Thing::new("a"));
}

#[tokio::test(start_paused = true)]
async fn c07_accept_and_end_are_one_commit_each_with_all_that_belongs_to_them() {
    let rig = Rig::new().await;
    let slow = Script::new([Act::new("a").run([Do::Sleep(10), Do::Apply])]);
    let script = slow.touch(Touch::Create("t".to_owned()));
    let (commits, accepted) = rig.commits(rig.try_submit(&script, keyed("k"))).await;
    assert_eq!(commits, 1);
    let tables = |batch: &longrun::store::Batch| {
        let mut tables: Vec<_> = batch.writes.iter().map(|write| write.table).collect();
        tables.sort();
        tables
    };
    let first = rig.faults.history().pop().unwrap();
    use Table::{
        ByCreation, ByName, ByParent, ByResource, Due, Finished, Idempotency, Operations, Resources,
    };
    let all = [Operations, Due, ByResource, Resources, ByParent, ByName, ByCreation, Idempotency];
    assert_eq!(tables(&first), all);
    rig.done(accepted.unwrap().id()).await;
    let last = rig.faults.history().pop().unwrap();
    assert_eq!(tables(&last), [Operations, Due, Finished, Resources]);
}

#[tokio::test(start_paused = true)]
async fn an_operation_of_s_steps_costs_s_and_1_commits() {
    let rig = Rig::new().await;
    for names in [&["a"][..], &["a", "b"], &["a", "b", "c", "d", "e"]] {
        let plain = Script::chain(names);
        let touching = plain.clone().touch(Touch::CreateNew).touch(Touch::CreateNew);
        for (place, script) in [plain, touching].iter().enumerate() {
            let key = format!("{} {place}", names.len());
            let work = async {
                let accepted = rig.try_submit(script, keyed(&key)).await.unwrap();
                rig.done(accepted.id()).await
            };
            let (commits, done) = rig.commits(work).await;
            assert_eq!(commits, names.len() as u64 + 1);
            assert_eq!(done.revision().0, commits);
            rig.check(&done, script);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c15_a_repeat_gives_the_same_operation_and_another_request_is_refused() {
    let mut rig = Rig::new().await;
    let first = rig.try_submit(&one(), keyed("k")).await.unwrap();
    assert_eq!(rig.try_submit(&one(), keyed("k")).await.unwrap().id(), first.id());
    let other = Script::chain(&["a", "b"]);
    let refused = rig.try_submit(&other, keyed("k")).await.unwrap_err();
    assert!(matches!(refused, SubmitError::KeyReused(id) if id == first.id()), "{refused}");
    assert_eq!(refused.code(), Code::AlreadyExists);
    rig.done(first.id()).await;
    rig.restart().await;
    let again = rig.try_submit(&one(), keyed("k")).await.unwrap();
    assert!(again.done() && again.id() == first.id());
    assert_eq!(rig.world.runs(first.id(), "a"), 1);
    // Another caller and no key at all are other matters.
    let caller = longrun::Caller::new("somebody else").unwrap();
    let call = longrun::Call::by(caller).key(IdempotencyKey::new("k").unwrap());
    assert_ne!(rig.try_submit(&other, call).await.unwrap().id(), first.id());
}

#[tokio::test(start_paused = true)]
async fn c15_a_hundred_racing_submits_make_one_operation() {
    for slots in [1, 64] {
        let rig = Rig::with(move |builder| builder.running_max(slots)).await;
        let script = one().touch(Touch::CreateNew);
        let racing = (0..100).map(|_| rig.try_submit(&script, keyed("k")));
        let answers: Vec<_> = join_all(racing).await.into_iter().map(|answer| answer.unwrap()).collect();
        let id = answers[0].id();
        assert!(answers.iter().all(|answer| answer.id() == id));
        rig.done(id).await;
        assert_eq!(rig.keys(Table::Operations).len(), 1);
        assert_eq!(rig.keys(Table::Resources).len(), 1);
        rig.check_slots(slots).await;
    }
}

#[tokio::test(start_paused = true)]
async fn c15_a_repeat_whose_plan_meets_what_the_first_did_gets_the_same_operation() {
    // The first is accepted while the repeat plans: the row is held by it, or was moved by it, or is gone with it.
    let touches =
        [Touch::Delete("t".to_owned()), Touch::Update("t".to_owned()), Touch::Create("t".to_owned())];
    for touch in touches {
        for lasts in [0, 300, 5000] {
            let rig = Rig::new().await;
            if !matches!(touch, Touch::Create(_)) {
                rig.play(&one().touch(Touch::Create("t".to_owned()))).await;
            }
            let script = Script::new([Act::new("a").run([Do::Sleep(lasts), Do::Apply])]).touch(touch.clone());
            let script = script.manner(Manner::Slow);
            let repeats = (0..4).map(|number| {
                let (rig, script) = (&rig, &script);
                async move {
                    pass(number * 300).await;
                    rig.try_submit(script, keyed("k")).await
                }
            });
            let answers = join_all(repeats).await;
            let ids: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap().id()).collect();
            assert!(ids.iter().all(|id| *id == ids[0]), "{touch:?} that lasts {lasts} ms");
            // Another request under the key is told so, and not that the row is held.
            let other = rig.try_submit(&one().touch(touch.clone()), keyed("k")).await.unwrap_err();
            assert!(matches!(other, SubmitError::KeyReused(id) if id == ids[0]), "{other}");
            rig.check(&rig.done(ids[0]).await, &script);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c15_a_hundred_racing_submits_make_one_operation_in_a_slow_store() {
    let rig = Rig::with(|builder| builder.running_max(4)).await;
    crate::common::disk::Knobs::set(&rig.knobs.commit_ms, 20);
    let script = one().touch(Touch::Create("t".to_owned()));
    let racing = (0..100).map(|_| rig.try_submit(&script, keyed("k")));
    let answers: Vec<_> = join_all(racing).await.into_iter().map(|answer| answer.unwrap()).collect();
    assert!(answers.iter().all(|answer| answer.id() == answers[0].id()));
    rig.done(answers[0].id()).await;
    rig.check_slots(4).await;
}

#[tokio::test(start_paused = true)]
async fn c15_c20_a_key_outlives_its_operation_for_its_own_time_and_is_then_free() {
    let hour = millis(3_600_000);
    let keep = move |builder: longrun::EngineBuilder| {
        builder.retention(hour).key_retention(hour).sweep_every(millis(60_000))
    };
    let rig = Rig::with(keep).await;
    let first = rig.try_submit(&one(), keyed("k")).await.unwrap();
    rig.done(first.id()).await;
    pass(3_600_000 + 61_000).await;
    assert_eq!(rig.engine().get(first.id()).await.unwrap_err().code(), Code::NotFound);
    let refused = rig.try_submit(&one(), keyed("k")).await.unwrap_err();
    assert!(matches!(refused, SubmitError::KeyOutlived(id) if id == first.id()), "{refused}");
    assert_eq!(rig.world.runs(first.id(), "a"), 1);
    pass(3_600_000 + 61_000).await;
    let next = rig.try_submit(&one(), keyed("k")).await.unwrap();
    assert_ne!(next.id(), first.id());
    rig.done(next.id()).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_stores_nothing_and_leaves_its_key_free() {
    let rig = Rig::with(|builder| builder.running_max(2)).await;
    let long = "x".repeat(300);
    let cases = [
        (one().manner(Manner::Refuse), Code::InvalidArgument),
        (one().manner(Manner::Panic), Code::Internal),
        (Script::default(), Code::InvalidArgument),
        (one().parallel(0), Code::Internal),
        (one().touch(Touch::Update("none".to_owned())), Code::NotFound),
        (Script::new([Act::new(&"x".repeat(40_000))]), Code::InvalidArgument),
    ];
    for (script, code) in cases {
        let (commits, refused) = rig.commits(rig.try_submit(&script, keyed("k"))).await;
        assert_eq!((refused.unwrap_err().code(), commits), (code, 0));
    }
    let refused = rig.try_submit(&one(), keyed("k").description(long)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let request = Json::encode("request", &one()).unwrap();
    let refused = rig.engine().submit_json("no\u{1b}such\nkind", request.clone(), call()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(!refused.to_string().contains(['\n', '\u{1b}']), "{refused}");
    let nested = "[".repeat(10_000) + &"]".repeat(10_000);
    for bad in ["", "{", "{}", "nul", &nested] {
        let bad = Json::from_stored(bad.to_owned().into()).unwrap();
        let refused = rig.engine().submit_json("test.scripted", bad, keyed("k")).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let accepted = rig.engine().submit_json("test.scripted", request, keyed("k")).await.unwrap();
    rig.done(accepted.id()).await;
    rig.check_slots(2).await;
}

#[tokio::test(start_paused = true)]
async fn s41_b25_a_resource_in_other_hands_refuses_with_aborted_and_the_holder() {
    let rig = Rig::new().await;
    let slow = Script::new([Act::new("a").run([Do::Sleep(1000), Do::Apply])]);
    let first = rig.submit(&slow.clone().touch(Touch::Create("t".to_owned()))).await;
    for touch in [Touch::Create("t".to_owned()), Touch::Update("t".to_owned()), Touch::Delete("t".to_owned())]
    {
        let refused = rig.try_submit(&one().touch(touch), keyed("k")).await.unwrap_err();
        assert!(matches!(&refused, SubmitError::Busy { holder, .. } if *holder == first.id()), "{refused}");
        assert_eq!(refused.code(), Code::Aborted);
    }
    rig.done(first.id()).await;
    let exists = rig.try_submit(&one().touch(Touch::Create("t".to_owned())), keyed("k")).await.unwrap_err();
    assert_eq!(exists.code(), Code::AlreadyExists);
    rig.play(&one().touch(Touch::Delete("t".to_owned()))).await;
    assert!(rig.engine().resource::<Thing>(&thing_id("t")).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_a_whole_operation_or_none() {
    // The store takes 20 ms; the caller goes away at every millisecond from before to after.
    for patience in (0..30).step_by(3) {
        let rig = Rig::with(|builder| builder.running_max(1)).await;
        crate::common::disk::Knobs::set(&rig.knobs.commit_ms, 20);
        let script = one().touch(Touch::Create("t".to_owned()));
        let submit = rig.try_submit(&script, keyed("k"));
        _ = tokio::time::timeout(millis(patience), submit).await;
        // Nobody asks for it, and yet it ends.
        pass(1000).await;
        let kept = rig.keys(Table::Operations).len();
        assert_eq!(rig.keys(Table::Finished).len(), kept, "after {patience} ms");
        assert!(rig.keys(Table::Due).is_empty());
        let repeat = rig.try_submit(&script, keyed("k")).await.unwrap();
        rig.check(&rig.done(repeat.id()).await, &script);
        assert_eq!(rig.world.runs(repeat.id(), "a"), 1);
        rig.check_slots(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_submit_that_is_polled_once_and_dropped_leaks_nothing() {
    let rig = Rig::with(|builder| builder.running_max(1)).await;
    for _ in 0..10 {
        assert!(rig.try_submit(&one(), call()).now_or_never().is_none());
    }
    pass(1000).await;
    assert_eq!(rig.keys(Table::Finished).len(), rig.keys(Table::Operations).len());
    rig.check_slots(1).await;
}

#[tokio::test(start_paused = true)]
async fn too_many_unfinished_operations_are_refused_and_the_limit_opens_again() {
    let mut rig = Rig::with(|builder| builder.running_max(1).unfinished_max(3)).await;
    let slow = Script::new([Act::new("a").run([Do::Sleep(1000), Do::Apply])]);
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(rig.try_submit(&slow, keyed(&number.to_string())).await.unwrap().id());
        pass(1).await;
    }
    for _ in 0..2 {
        let refused = rig.try_submit(&slow, keyed("more")).await.unwrap_err();
        assert!(matches!(refused, SubmitError::Overloaded { limit: 3 }), "{refused}");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        // Repeats, cancels and reads are always taken.
        assert_eq!(rig.try_submit(&slow, keyed("1")).await.unwrap().id(), ids[1]);
        assert_eq!(rig.get(ids[2]).await.phase(), Phase::Pending);
        rig.restart().await;
        pass(1).await;
    }
    assert!(rig.cancel(ids[2]).await.done(), "nothing of it ran");
    let fourth = rig.try_submit(&slow, keyed("more")).await.unwrap().id();
    for id in [ids[0], ids[1], fourth] {
        rig.done(id).await;
    }
    for number in 0..3 {
        rig.try_submit(&slow, keyed(&format!("later {number}"))).await.unwrap();
    }
    assert!(rig.try_submit(&slow, call()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_counted_as_unfinished_is_counted_once_also_during_a_slow_start() {
    let mut rig = Rig::with(|builder| builder.running_max(4).unfinished_max(6)).await;
    let slow = Script::new([Act::new("a").run([Do::Sleep(1000), Do::Apply])]);
    for _ in 0..2 {
        rig.submit(&slow).await;
    }
    rig.crash().await;
    crate::common::disk::Knobs::set(&rig.knobs.due_ms, 20);
    rig.start().await;
    for _ in 0..3 {
        rig.submit(&slow).await;
    }
    pass(5000).await;
    let accepted = join_all((0..6).map(|_| rig.try_submit(&slow, call()))).await;
    assert!(accepted.iter().all(Result::is_ok), "the count went astray");
    pass(100).await;
    assert!(rig.try_submit(&slow, call()).await.is_err(), "the limit holds");
}

#[tokio::test(start_paused = true)]
async fn racing_submits_do_not_pass_the_limit() {
    let rig = Rig::with(|builder| builder.unfinished_max(5)).await;
    crate::common::disk::Knobs::set(&rig.knobs.commit_ms, 20);
    let slow = Script::new([Act::new("a").run([Do::Sleep(1000), Do::Apply])]);
    let accepted = join_all((0..50).map(|_| rig.try_submit(&slow, call()))).await;
    assert_eq!(accepted.iter().filter(|answer| answer.is_ok()).count(), 5);
}

#[tokio::test(start_paused = true)]
async fn ids_that_collide_are_drawn_anew_or_refused_but_never_shared() {
    let rig = Rig::new().await;
    rig.time.no_more_chance();
    let slow = Script::new([Act::new("a").run([Do::Sleep(1000), Do::Apply])]);
    let first = rig.submit(&slow).await;
    let refused = rig.try_submit(&slow, call()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    pass(1).await;
    let second = rig.submit(&slow).await;
    assert_ne!(first.id(), second.id());
    for id in [first.id(), second.id()] {
        rig.done(id).await;
        assert_eq!(rig.world.runs(id, "a"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_nothing_is_over_before_it_begins() {
    let rig = Rig::with(|builder| builder.running_max(1)).await;
    let script = one().touch(Touch::Create("t".to_owned()));
    let accepted = rig.try_submit(&script, call().deadline(millis(0))).await.unwrap();
    let done = rig.done(accepted.id()).await;
    assert_eq!(done.error().unwrap().code(), Code::DeadlineExceeded);
    rig.check(&done, &script);
    assert_eq!(rig.world.runs(done.id(), "a"), 0);
    assert!(rig.disk.inner().get(Table::Resources, b"test.thing\0t").unwrap().is_none());
    rig.check_slots(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_plans_once_for_each_request_and_keeps_nobody_waiting() {
    let mut rig = Rig::stopped(|builder| builder);
    let store = rig.mount();
    let plans = Arc::new(AtomicUsize::new(0));
    let engine = rig.builder(store).kind(Counting(Arc::clone(&plans))).start().await.unwrap();
    rig.put(engine);
    let start = Instant::now();
    let slow = async {
        let accepted =
            rig.engine().submit::<Counting>(&one().manner(Manner::Slow), keyed("slow")).await.unwrap();
        (accepted, start.elapsed())
    };
    let fast = async {
        let accepted = rig.engine().submit::<Counting>(&one(), keyed("fast")).await.unwrap();
        (rig.done(accepted.id()).await, start.elapsed())
    };
    let ((slow, planned_by), (fast, done_by)) = tokio::join!(slow, fast);
    assert!(fast.done() && done_by < millis(1000), "it waited for the plan of another: {done_by:?}");
    assert!(planned_by >= millis(1000));
    assert_eq!(plans.load(Ordering::SeqCst), 2);
    rig.done(slow.id()).await;
    // A repeat is not planned.
    let again = rig.engine().submit::<Counting>(&one(), keyed("fast")).await.unwrap();
    assert_eq!((again.id(), plans.load(Ordering::SeqCst)), (fast.id(), 2));
}

/// Plans as [`Scripted`] does, and counts.
struct Counting(Arc<AtomicUsize>);

#[async_trait]
impl Kind for Counting {
    const NAME: &'static str = "test.counting";
    const RESPONSE_TYPE: &'static str = Thing::TYPE_URL;
    type Request = Script;
    type Metadata = Told;
    type Response = Thing;

    async fn plan(&self, script: &Script, plan: &mut PlanBuilder) -> Planned<Self> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let (told, last) = Kind::plan(&Scripted, script, plan).await?;
        Ok((told, last))
    }
}

/// Changes things, and while it plans lets another operation change them.
struct Overtaken(Arc<std::sync::Mutex<Option<Engine>>>);

#[async_trait]
impl Kind for Overtaken {
    const NAME: &'static str = "test.overtaken";
    const RESPONSE_TYPE: &'static str = Thing::TYPE_URL;
    type Request = Script;
    type Metadata = Told;
    type Response = Thing;

    async fn plan(&self, script: &Script, plan: &mut PlanBuilder) -> Planned<Self> {
        let planned = Kind::plan(&Scripted, script, plan).await?;
        let engine = self.0.lock().unwrap().clone();
        if let Some(engine) = engine {
            let other = one().touch(Touch::Update("t".to_owned()));
            let other = engine.submit::<Scripted>(&other, call()).await.map_err(|error| error.status())?;
            engine.wait_done(other.id()).await.map_err(|error| error.status())?;
        }
        Ok(planned)
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_moves_during_every_plan_is_answered_as_changed_and_not_as_existing() {
    let mut rig = Rig::stopped(|builder| builder);
    let store = rig.mount();
    let handle = Arc::default();
    let engine = rig.builder(store).kind(Overtaken(Arc::clone(&handle))).start().await.unwrap();
    rig.put(engine);
    rig.play(&one().touch(Touch::Create("t".to_owned()))).await;
    *handle.lock().unwrap() = Some(rig.engine().clone());
    for touch in [Touch::Update("t".to_owned()), Touch::Delete("t".to_owned())] {
        let refused = rig.engine().submit::<Overtaken>(&one().touch(touch), keyed("k")).await.unwrap_err();
        assert!(matches!(refused, SubmitError::Changed(_)), "{refused:?}");
        assert_eq!(refused.code(), Code::Aborted);
    }
    *handle.lock().unwrap() = None;
}

#[tokio::test(start_paused = true)]
async fn more_requests_at_once_than_the_engine_plans_and_commits_are_refused() {
    let rig = Rig::with(|builder| builder.accepting_max(2)).await;
    let slow = one().manner(Manner::Slow);
    for commit_ms in [0, 500] {
        crate::common::disk::Knobs::set(&rig.knobs.commit_ms, commit_ms);
        let answers = join_all((0..5).map(|_| rig.try_submit(&slow, call()))).await;
        let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!((accepted.len(), refused.len()), (2, 3));
        for refused in refused {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, SubmitError::Overloaded { limit: 2 }), "{refused}");
            assert_eq!(refused.code(), Code::ResourceExhausted);
        }
        // A caller that went away while its request was planned leaves its place.
        _ = tokio::time::timeout(millis(100), rig.try_submit(&slow, call())).await;
    }
    // Those that run do not count.
    let long = Script::new([Act::new("a").run([Do::Sleep(60_000), Do::Apply])]);
    for _ in 0..5 {
        rig.submit(&long).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_the_request_makes_impossible_is_not_answered_as_a_bug() {
    let rig = Rig::new().await;
    let twice = one().touch(Touch::Create("t".to_owned())).touch(Touch::Create("t".to_owned()));
    assert_eq!(rig.try_submit(&twice, call()).await.unwrap_err().code(), Code::InvalidArgument);
    let mut many = one();
    for number in 0..9 {
        many = many.touch(Touch::Create(format!("t{number}")));
    }
    assert_eq!(rig.try_submit(&many, call()).await.unwrap_err().code(), Code::InvalidArgument);
}
