//! Mistakes with references to items, which are in the engine's store and in no picture of what is outside.

use longrun::{
    Call, Caller, Engine, EngineBuilder, IdPrefix, ItemId, ItemKey, Kind, PlanBuilder, Planned, Resource,
    ResourceId, ResourceKind, ResourceStatus, Step, StepContext, StepResult, UndoContext, UndoResult,
    Undoable, async_trait,
};
use longrun_testkit::torture::{Act, Fault, Scene, torture};
use serde::{Deserialize, Serialize};

/// What is wrong with the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    Nothing,
    /// An undo leaves the reference. The row stays, so it is not a reference of what is gone.
    UndoLeavesReference,
    /// An undo drops the last reference, and forgets that what it was to has to be removed.
    UndoLeavesOrphan,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Image {
    id: ResourceId,
}

impl Resource for Image {
    const KIND: &'static str = "planted.image";
    const TYPE_URL: &'static str = "planted/Image";
}

fn layer() -> ItemKey {
    ItemKey { kind: ResourceKind::new("planted.layer").unwrap(), id: ItemId::new([1]).unwrap() }
}

/// Has no steps: what the other works on is there at once.
struct MakeImage;

#[async_trait]
impl Kind for MakeImage {
    const NAME: &'static str = "make-image";
    type Request = ();
    type Metadata = ResourceId;
    type Response = Image;

    async fn plan(&self, (): &(), plan: &mut PlanBuilder) -> Planned<Self> {
        let id = plan.new_id(IdPrefix::new("img")?);
        let image = Image { id: id.clone() };
        let made = plan.value(&image);
        plan.create(&id, &ResourceId::new("home")?, "image", &image, &made)?;
        Ok((id, made))
    }
}

struct AddLayer;

#[async_trait]
impl Kind for AddLayer {
    const NAME: &'static str = "add-layer";
    type Request = ResourceId;
    type Metadata = ();
    type Response = ();

    async fn plan(&self, id: &ResourceId, plan: &mut PlanBuilder) -> Planned<Self> {
        let found = plan.get_ready::<Image>(id).await?;
        let taken = plan.step::<TakeLayer>(id.clone());
        let same = plan.value(&found.body);
        plan.update(&found, found.row.name.clone(), ResourceStatus::Ready, &same);
        Ok(((), taken))
    }
}

struct TakeLayer(Mistake);

#[async_trait]
impl Step for TakeLayer {
    const NAME: &'static str = "take-layer";
    type Input = ResourceId;
    type Output = ();
    type Checkpoint = ();

    async fn run(&self, cx: &StepContext<()>, image: ResourceId) -> StepResult<()> {
        cx.references::<Image>(&image)?.take(&[layer()]).await?;
        Ok(())
    }

    async fn undo(&self, cx: &UndoContext, image: ResourceId, _: Undoable<(), ()>) -> UndoResult {
        let references = cx.references::<Image>(&image)?;
        if self.0 == Mistake::UndoLeavesReference {
            return Ok(());
        }
        references.drop_all().await?;
        if self.0 == Mistake::UndoLeavesOrphan {
            return Ok(());
        }
        references.forget(references.orphans(10).await?).await?;
        Ok(())
    }
}

#[async_trait]
impl Scene for Mistake {
    type Kind = AddLayer;
    type World = ();
    type Picture = ();

    fn world(&self) {}

    fn register(&self, (): &(), builder: EngineBuilder) -> EngineBuilder {
        builder.kind(MakeImage).kind(AddLayer).step(TakeLayer(*self))
    }

    async fn request(&self, (): &(), engine: &Engine) -> ResourceId {
        let call = Call::by(Caller::new("ann").unwrap());
        let accepted = engine.submit::<MakeImage>(&(), call).await.unwrap();
        accepted.metadata().decode().unwrap()
    }

    async fn look(&self, (): &()) {}
}

#[test]
fn a_step_that_drops_what_it_took_is_clean() {
    let report = torture(&Mistake::Nothing);
    report.assert_clean();
    assert_eq!(report.trials(), 3 * Fault::ALL.len());
}

#[test]
fn an_undo_that_leaves_a_reference_or_an_orphan_is_found() {
    for (mistake, what) in
        [(Mistake::UndoLeavesReference, "the references"), (Mistake::UndoLeavesOrphan, "the orphans")]
    {
        let report = torture(&mistake);
        let undos = report.rows().iter().filter(|(point, _)| point.act != Act::Run);
        let bad: usize = undos.flat_map(|(_, row)| row.ends.values()).map(|ends| ends.bad).sum();
        assert_eq!(bad, 2 * Fault::ALL.len(), "each fault leads to an undo: {report}");
        let told = format!("when it is done {what} are not as they should be");
        assert!(report.violations().iter().all(|violation| violation.what.starts_with(&told)), "{report}");
    }
}
