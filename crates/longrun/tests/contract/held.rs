//! C18: what this build cannot work on is kept, named and reported, and everything else goes on.

use longrun::store::{Batch, Kv, Table};
use longrun::{
    BuildError, Code, Engine, HoldReason, Kind, OperationId, PlanBuilder, Planned, Step, StepContext,
    StepResult, UndoContext, UndoResult, Undoable, Verb, async_trait,
};

use crate::common::script::{Act, Do, Fault, Play, Script, Scripted, Touch};
use crate::common::{Rig, call, caller, pass};

/// A kind and a step in two versions each: `VERSION` and everything before.
struct Aging<const VERSION: u32>;

#[async_trait]
impl<const VERSION: u32> Kind for Aging<VERSION> {
    const NAME: &'static str = "test.aging";
    const VERSION: u32 = VERSION;
    const OLDEST_VERSION: u32 = VERSION;
    type Request = ();
    type Metadata = ();
    type Response = ();

    async fn plan(&self, (): &(), plan: &mut PlanBuilder) -> Planned<Self> {
        Ok(((), plan.step::<Ages<VERSION>>(())))
    }
}

struct Ages<const VERSION: u32>;

#[async_trait]
impl<const VERSION: u32> Step for Ages<VERSION> {
    const NAME: &'static str = "ages";
    const VERSION: u32 = VERSION;
    const OLDEST_VERSION: u32 = VERSION;
    type Input = ();
    type Output = ();
    type Checkpoint = ();

    async fn run(&self, _: &StepContext<()>, (): ()) -> StepResult<()> {
        tokio::time::sleep(crate::common::millis(100)).await;
        Ok(())
    }

    async fn undo(&self, _: &UndoContext, (): (), _: Undoable<(), ()>) -> UndoResult {
        Ok(())
    }
}

async fn aging(rig: &mut Rig) -> OperationId {
    let store = rig.mount();
    let engine = rig.builder(store).kind(Aging::<1>).step(Ages::<1>).start().await.unwrap();
    let id = engine.submit::<Aging<1>>(&(), call()).await.unwrap().id();
    rig.put(engine);
    pass(10).await;
    rig.crash().await;
    id
}

fn reason_of(engine: &Engine, id: OperationId) -> HoldReason {
    engine.held().into_iter().find(|held| held.operation == id).expect("not held").reason
}

#[tokio::test(start_paused = true)]
async fn c18_each_reason_to_hold_is_told_by_preflight_and_by_held_and_others_go_on() {
    type Build = fn(longrun::EngineBuilder) -> longrun::EngineBuilder;
    type IsRight = fn(&HoldReason) -> bool;
    let builds: [(Build, IsRight); 4] = [
        (|builder| builder.step(Ages::<1>), |reason| matches!(reason, HoldReason::UnknownKind(_))),
        (|builder| builder.kind(Aging::<1>), |reason| matches!(reason, HoldReason::UnknownStep(_))),
        (
            |builder| builder.kind(Aging::<2>).step(Ages::<1>),
            |reason| matches!(reason, HoldReason::KindVersion { version: 1, .. }),
        ),
        (
            |builder| builder.kind(Aging::<1>).step(Ages::<2>),
            |reason| matches!(reason, HoldReason::StepVersion { version: 1, .. }),
        ),
    ];
    for (build, is_right) in builds {
        let mut rig = Rig::stopped(|builder| builder.running_max(1));
        let id = aging(&mut rig).await;
        let store = rig.mount();
        let engine = build(rig.builder(store)).start().await.unwrap();
        rig.put(engine);
        let listed = rig.engine().preflight().await.unwrap();
        // A build that has not started says the same, and takes nothing over.
        let store: std::sync::Arc<dyn longrun::Store> = std::sync::Arc::new(
            longrun::KvStore::open_inline(std::sync::Arc::clone(&rig.disk), [7; 32]).unwrap(),
        );
        assert_eq!(rig.bare(store).preflight().await.unwrap().len(), listed.len());
        assert!(listed.len() == 1 && listed[0].operation == id && is_right(&listed[0].reason), "{listed:?}");
        rig.play(&Script::chain(&["a", "b"])).await;
        assert!(is_right(&reason_of(rig.engine(), id)));
        assert!(!rig.get(id).await.done(), "it can be seen");
        // A cancel is kept for the build that can.
        let answer = rig.cancel(id).await;
        assert_eq!(answer.error().unwrap().code(), Code::Cancelled);
        pass(100_000).await;
        rig.check_slots(1).await;
        // The right build finishes it.
        rig.crash().await;
        let store = rig.mount();
        let engine = rig.builder(store).kind(Aging::<1>).step(Ages::<1>).start().await.unwrap();
        rig.put(engine);
        assert_eq!(rig.done(id).await.error().unwrap().code(), Code::Cancelled);
        assert_eq!(rig.engine().preflight().await.unwrap(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn c18_a_damaged_record_is_data_loss_for_its_reader_and_nobody_else() {
    for table in [Table::Operations, Table::Journal] {
        for byte in [0, 5, 9, 40] {
            let mut rig = Rig::with(|builder| builder.running_max(1)).await;
            let script = Script::chain(&["a", "b"]).with("b", |act| act.run([Do::Hang]));
            let broken = rig.submit(&script).await;
            pass(10).await;
            rig.crash().await;
            let key = rig.keys(table).pop().unwrap();
            assert!(rig.disk.flip_stored(table, &key, byte * 8 + 3).unwrap());
            rig.start().await;
            rig.play(&Script::chain(&["a", "b"])).await;
            assert!(matches!(reason_of(rig.engine(), broken.id()), HoldReason::Unreadable(_)));
            assert_eq!(rig.engine().preflight().await.unwrap().len(), 1);
            let error = rig.engine().get(broken.id()).await.unwrap_err();
            assert!(matches!(error.code(), Code::DataLoss | Code::Unimplemented), "{error}");
            assert!(rig.engine().cancel(broken.id(), &caller()).await.is_err());
            let all = rig
                .engine()
                .list_operations(&longrun::OperationQuery::All, &Default::default())
                .await
                .unwrap();
            assert_eq!(all.items.len(), 1);
            rig.check_slots(1).await;
            rig.engine().sweep().await.unwrap();
            assert!(rig.keys(Table::Operations).len() > 1, "nothing of it is deleted");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c18_what_is_held_is_tried_again_when_an_operator_says_so_and_is_held_no_more_when_it_is_done() {
    for given_up in [false, true] {
        let rig = Rig::with(|builder| builder.running_max(1)).await;
        let act = Act::new("a").runs([vec![Do::Fail(Fault::Unknown)], vec![Do::Sleep(1000), Do::Apply]]);
        let script = Script::new([act.undo_fails(1)]).touch(Touch::Create("t".to_owned()));
        let accepted = rig.submit(&script).await;
        pass(10).await;
        // Its row is gone, so nothing that it does can be stored.
        let key = b"test.thing\0t".to_vec();
        let row = rig.disk.inner().get(Table::Resources, &key).unwrap().unwrap();
        let mut batch = Batch::default();
        batch.remove(Table::Resources, key.clone());
        rig.disk.inner().commit(&batch).unwrap();
        pass(5000).await;
        assert!(matches!(reason_of(rig.engine(), accepted.id()), HoldReason::Unreadable(_)));
        // Tried again, to no avail.
        rig.engine().intervene(accepted.id(), &caller(), Verb::RetryNow, "is it back?").await.unwrap();
        pass(5000).await;
        reason_of(rig.engine(), accepted.id());
        let mut batch = Batch::default();
        batch.put(Table::Resources, key, row);
        rig.disk.inner().commit(&batch).unwrap();
        pass(100_000).await;
        assert!(!rig.get(accepted.id()).await.done(), "it stays held until somebody says so");
        if given_up {
            rig.cancel(accepted.id()).await;
        }
        rig.engine().intervene(accepted.id(), &caller(), Verb::RetryNow, "it is back").await.unwrap();
        let done = rig.done(accepted.id()).await;
        rig.check(&done, &script);
        assert_eq!(done.error().is_some(), given_up);
        assert_eq!(rig.engine().held(), []);
        rig.check_slots(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn c18_keys_without_sense_in_the_order_of_due_work_stop_nobody() {
    let mut rig = Rig::with(|builder| builder.running_max(1)).await;
    let accepted = rig.submit(&Script::chain(&["a"])).await;
    rig.crash().await;
    let mut batch = Batch::default();
    for key in [&b""[..], b"x", &[0; 8], &[0; 28], &[255; 28], &[127; 64]] {
        batch.put(Table::Due, key.to_vec(), Vec::new());
    }
    // An operation that is not there, due since ever.
    let mut ghost = vec![0x80; 8];
    ghost.extend_from_slice(b"opr00000000000000000");
    batch.put(Table::Due, ghost, Vec::new());
    rig.disk.inner().commit(&batch).unwrap();
    rig.start().await;
    rig.done(accepted.id()).await;
    rig.play(&Script::chain(&["a"])).await;
    rig.check_slots(1).await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_together_is_refused_when_it_is_built() {
    let mut rig = Rig::stopped(|builder| builder);
    let store = rig.mount();
    let play = || Play { world: rig.world.clone(), life: rig.life.clone() };
    let build = || rig.bare(store.clone()).kind(Scripted).step(play());
    let twice = build().kind(Scripted).start().await.unwrap_err();
    assert!(matches!(twice, BuildError::Twice { what: "kind", .. }));
    let twice = build().step(play()).start().await.unwrap_err();
    assert!(matches!(twice, BuildError::Twice { what: "step", .. }));
    assert!(matches!(build().running_max(0).start().await, Err(BuildError::Setting(_))));
    assert!(matches!(
        build().sweep_every(crate::common::millis(0)).start().await,
        Err(BuildError::Setting(_))
    ));
    let too_long = [
        build().sweep_every(std::time::Duration::MAX),
        build().retention(std::time::Duration::MAX),
        build().key_retention(std::time::Duration::MAX),
        build().accepting_max(0),
        build().accepting_max(usize::MAX),
    ];
    for builder in too_long {
        assert!(matches!(builder.start().await, Err(BuildError::Setting(_))));
    }
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    let longest = build().sweep_every(366 * day).retention(100 * 366 * day).key_retention(100 * 366 * day);
    let engine = longest.start().await.unwrap();
    let accepted = engine.submit::<Scripted>(&Script::chain(&["a"]), call()).await.unwrap();
    engine.wait_done(accepted.id()).await.unwrap();
    assert_eq!(engine.sweep().await.unwrap(), 0);
    let engine = rig.bare(store.clone()).kind(Scripted).start().await.unwrap();
    let refused = engine.submit::<Scripted>(&Script::chain(&["a"]), call()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "the step is not registered: {refused}");
}

#[tokio::test(start_paused = true)]
async fn an_output_that_its_reader_cannot_take_fails_the_operation_and_undoes_the_rest() {
    struct Wrong;
    #[async_trait]
    impl Step for Wrong {
        const NAME: &'static str = "wrong";
        type Input = u64;
        type Output = u64;
        type Checkpoint = ();
        async fn run(&self, _: &StepContext<()>, input: u64) -> StepResult<u64> {
            Ok(input)
        }
        async fn undo(&self, _: &UndoContext, _: u64, _: Undoable<u64, ()>) -> UndoResult {
            Ok(())
        }
    }
    /// Serializes as something that it does not take.
    #[derive(Debug)]
    struct Liar;
    impl serde::Serialize for Liar {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str("not a number")
        }
    }
    impl<'de> serde::Deserialize<'de> for Liar {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            u64::deserialize(deserializer).map(|_| Self)
        }
    }
    struct Lies;
    #[async_trait]
    impl Step for Lies {
        const NAME: &'static str = "lies";
        type Input = u64;
        type Output = Liar;
        type Checkpoint = ();
        async fn run(&self, _: &StepContext<()>, _: u64) -> StepResult<Liar> {
            Ok(Liar)
        }
        async fn undo(&self, _: &UndoContext, _: u64, _: Undoable<Liar, ()>) -> UndoResult {
            Ok(())
        }
    }
    struct Takes;
    #[async_trait]
    impl Step for Takes {
        const NAME: &'static str = "takes";
        type Input = (Liar, u64);
        type Output = u64;
        type Checkpoint = ();
        async fn run(&self, _: &StepContext<()>, _: (Liar, u64)) -> StepResult<u64> {
            Ok(0)
        }
        async fn undo(&self, _: &UndoContext, _: (Liar, u64), _: Undoable<u64, ()>) -> UndoResult {
            Ok(())
        }
    }
    struct Lying;
    #[async_trait]
    impl Kind for Lying {
        const NAME: &'static str = "test.lying";
        type Request = u64;
        type Metadata = ();
        type Response = u64;
        async fn plan(&self, request: &u64, plan: &mut PlanBuilder) -> Planned<Self> {
            let honest = plan.step::<Wrong>(*request);
            let lies = plan.step::<Lies>(&honest);
            Ok(((), plan.step::<Takes>((&lies, &honest))))
        }
    }
    let mut rig = Rig::stopped(|builder| builder.running_max(1));
    let store = rig.mount();
    let builder = rig.builder(store).kind(Lying).step(Wrong).step(Lies).step(Takes);
    let engine = builder.start().await.unwrap();
    rig.put(engine);
    let accepted = rig.engine().submit::<Lying>(&7, call()).await.unwrap();
    pass(60_000).await;
    let stuck = rig.get(accepted.id()).await;
    assert_eq!(stuck.error().unwrap().code(), Code::Internal);
    // Its own undo cannot read the output either: it is blocked, in sight, and an operator ends it.
    assert_eq!(stuck.blocked().len(), 1);
    let verb = Verb::SkipUndo(stuck.blocked()[0].step);
    rig.engine().intervene(accepted.id(), &caller(), verb, "it did nothing").await.unwrap();
    assert!(rig.done(accepted.id()).await.error().is_some());
    rig.check_slots(1).await;
    let bad = Script::new([Act::new("a").run([Do::Fail(Fault::NotAppliedForGood)])]);
    rig.play(&bad).await;
}
