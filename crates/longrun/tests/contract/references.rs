//! References to what resources share, and conditions on resources that an operation does not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longrun::store::conformance::verify_indexes;
use longrun::store::{CommitError, Conflict, Store};
use longrun::{
    Code, Engine, Found, IdPrefix, Incarnation, ItemId, ItemKey, Kind, Operation, PageRequest, PlanBuilder,
    Planned, ReferenceError, Resource, ResourceId, ResourceList, ResourceStatus, Status, Step, StepContext,
    StepError, StepIndex, StepPolicy, StepResult, SubmitError, UndoContext, UndoError, UndoResult, Undoable,
    Verb, async_trait,
};
use longrun_core::ResourceKind;
use serde::{Deserialize, Serialize};

use crate::common::{Rig, call, millis, pass};

/// An image: a set of layers, which it shares with others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Image {
    id: ResourceId,
    layers: BTreeSet<u8>,
}

impl Resource for Image {
    const KIND: &'static str = "test.image";
    const TYPE_URL: &'static str = "test/Image";
}

fn layer(n: u8) -> ItemKey {
    ItemKey { kind: ResourceKind::new("test.layer").unwrap(), id: ItemId::new([n]).unwrap() }
}

fn folder() -> ResourceId {
    ResourceId::new("folder").unwrap()
}

/// The layers that are there, each in the life that its name says.
type Shelf = Arc<Mutex<BTreeSet<(u8, Incarnation)>>>;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Make {
    layers: BTreeSet<u8>,
    /// What goes wrong once the layers are there.
    fails: bool,
    /// Its undo cannot be done.
    stuck: bool,
    slow: u64,
}

struct MakeImage;

#[async_trait]
impl Kind for MakeImage {
    const NAME: &'static str = "image.make";
    type Request = Make;
    type Metadata = ResourceId;
    type Response = Image;

    async fn plan(&self, request: &Make, plan: &mut PlanBuilder) -> Planned<Self> {
        let id = plan.new_id(IdPrefix::new("img")?);
        let image = Image { id: id.clone(), layers: request.layers.clone() };
        let pushed = plan.step::<Push>((image.clone(), request.clone()));
        plan.create(&id, &folder(), "", &image, &pushed)?;
        Ok((id, pushed))
    }
}

/// Makes the layers that are missing; its undo, and the step of a delete, removes those that nobody uses any more.
struct Push(Shelf);

impl Push {
    fn put(shelf: &Shelf, layers: &BTreeSet<u8>, incarnations: Vec<Incarnation>) {
        shelf.lock().unwrap().extend(layers.iter().copied().zip(incarnations));
    }
}

#[async_trait]
impl Step for Push {
    const NAME: &'static str = "push";
    type Input = (Image, Make);
    type Output = Image;
    type Checkpoint = ();

    fn policy() -> StepPolicy {
        StepPolicy { timeout: millis(5_000), grace: millis(100), ..StepPolicy::default() }
    }

    async fn run(&self, cx: &StepContext<()>, (image, make): (Image, Make)) -> StepResult<Image> {
        let references = cx.references::<Image>(&image.id)?;
        let keys: Vec<_> = image.layers.iter().map(|n| layer(*n)).collect();
        let incarnations = references.take(&keys).await?.iter().map(|taken| taken.incarnation).collect();
        tokio::time::sleep(millis(make.slow)).await;
        Self::put(&self.0, &image.layers, incarnations);
        if make.fails {
            return Err(StepError::unknown(Code::Internal, "as asked").permanent());
        }
        Ok(image)
    }

    async fn undo(
        &self,
        cx: &UndoContext,
        (image, make): (Image, Make),
        _: Undoable<Image, ()>,
    ) -> UndoResult {
        if make.stuck {
            return Err(UndoError::new(Code::Unavailable, "as asked"));
        }
        let references = cx.references::<Image>(&image.id)?;
        remove(&self.0, &references).await?;
        Ok(())
    }
}

async fn remove(shelf: &Shelf, references: &longrun::References) -> Result<(), ReferenceError> {
    references.drop_all().await?;
    loop {
        let orphans = references.orphans(2).await?;
        if orphans.is_empty() {
            return Ok(());
        }
        for orphan in &orphans {
            shelf.lock().unwrap().remove(&(orphan.item.id.as_bytes()[0], orphan.incarnation));
            tokio::time::sleep(millis(1)).await;
        }
        references.forget(orphans).await?;
    }
}

struct DeleteImage;

#[async_trait]
impl Kind for DeleteImage {
    const NAME: &'static str = "image.delete";
    type Request = ResourceId;
    type Metadata = ();
    type Response = ();

    async fn plan(&self, id: &ResourceId, plan: &mut PlanBuilder) -> Planned<Self> {
        let found: Option<Found<Image>> = plan.find(id).await?;
        let found = found.ok_or_else(|| Status::new(Code::NotFound, "no such image"))?;
        let removed = plan.step::<Remove>(id.clone());
        plan.point_of_no_return(&removed);
        plan.delete(&found);
        Ok(((), removed))
    }
}

struct Remove(Shelf);

#[async_trait]
impl Step for Remove {
    const NAME: &'static str = "remove";
    type Input = ResourceId;
    type Output = ();
    type Checkpoint = ();

    async fn run(&self, cx: &StepContext<()>, id: ResourceId) -> StepResult<()> {
        Ok(remove(&self.0, &cx.references::<Image>(&id)?).await?)
    }

    async fn undo(&self, _cx: &UndoContext, _id: ResourceId, _: Undoable<(), ()>) -> UndoResult {
        Ok(())
    }
}

struct Images {
    rig: Rig,
    shelf: Shelf,
    engine: Option<Engine>,
}

impl Images {
    async fn new() -> Self {
        let mut images = Self { rig: Rig::stopped(|builder| builder), shelf: Shelf::default(), engine: None };
        images.start().await;
        images
    }

    async fn start(&mut self) {
        let store = self.rig.mount();
        let builder = self.rig.bare(store).kind(MakeImage).kind(DeleteImage).kind(Relying).kind(Emptied);
        let builder = builder.step(Push(Arc::clone(&self.shelf))).step(Remove(Arc::clone(&self.shelf)));
        self.engine = Some(builder.start().await.unwrap());
    }

    async fn crash(&mut self) {
        self.engine = None;
        self.rig.crash().await;
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    async fn make(&self, layers: &[u8], fails: bool, slow: u64) -> Operation {
        let make = Make { layers: layers.iter().copied().collect(), fails, stuck: false, slow };
        self.engine().submit::<MakeImage>(&make, call()).await.unwrap()
    }

    async fn delete(&self, id: &ResourceId) -> Result<Operation, SubmitError> {
        self.engine().submit::<DeleteImage>(id, call()).await
    }

    async fn made(&self, layers: &[u8]) -> ResourceId {
        let operation = self.make(layers, false, 1).await;
        let done = self.engine().wait_done(operation.id()).await.unwrap();
        done.response().expect("it is made").decode::<Image>().unwrap().id
    }

    async fn all(&self) -> Vec<Found<Image>> {
        let page = PageRequest { size: 1000, token: String::new() };
        self.engine().list_resources(&ResourceList::of(folder()), &page).await.unwrap().items
    }

    fn shelved(&self) -> Vec<u8> {
        self.shelf.lock().unwrap().iter().map(|(n, _)| *n).collect()
    }

    /// What is on the shelf is what the images refer to, no more and no less.
    async fn check(&self) {
        let images = self.all().await;
        assert!(images.iter().all(|image| image.row.status == ResourceStatus::Ready));
        let used: BTreeSet<u8> = images.iter().flat_map(|image| image.body.layers.clone()).collect();
        assert_eq!(self.shelved(), used.iter().copied().collect::<Vec<_>>());
        let store = longrun::KvStore::open_inline(Arc::clone(&self.rig.disk), [7; 32]).unwrap();
        let keys: Vec<_> = used.iter().map(|n| layer(*n)).collect();
        let lives: Option<Vec<_>> = store.incarnations(&keys).await.unwrap().into_iter().collect();
        let lives: BTreeSet<_> = used.iter().copied().zip(lives.unwrap()).collect();
        assert_eq!(*self.shelf.lock().unwrap(), lives);
        let counts = verify_indexes(self.rig.disk.as_ref()).unwrap();
        assert_eq!((counts.items, counts.orphans), (used.len(), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_shared_goes_with_its_last_user() {
    let images = Images::new().await;
    let a = images.made(&[1, 2]).await;
    let b = images.made(&[2, 3]).await;
    assert_eq!(images.shelved(), [1, 2, 3]);
    let gone = images.delete(&a).await.unwrap();
    images.engine().wait_done(gone.id()).await.unwrap();
    assert_eq!(images.shelved(), [2, 3]);
    images.check().await;
    let gone = images.delete(&b).await.unwrap();
    images.engine().wait_done(gone.id()).await.unwrap();
    assert_eq!(images.shelved(), [0; 0]);
    images.check().await;
}

/// C4: what a create that fails shared with others stays, the rest goes.
#[tokio::test(start_paused = true)]
async fn c04_a_rollback_frees_exactly_what_nobody_else_uses() {
    let images = Images::new().await;
    images.made(&[1, 2]).await;
    for (fails, cancel) in [(true, false), (false, true)] {
        let operation = images.make(&[2, 3, 4], fails, 50).await;
        pass(10).await;
        if cancel {
            images.engine().cancel(operation.id(), &crate::common::caller()).await.unwrap();
        }
        let done = images.engine().wait_done(operation.id()).await.unwrap();
        assert!(done.error().is_some());
        assert_eq!(images.shelved(), [1, 2]);
        images.check().await;
    }
}

/// C4: an operator answers for what was declared undone, but its references are the engine's own, and go when it is told to look.
#[tokio::test(start_paused = true)]
async fn c04_references_of_a_resource_that_an_operator_gave_up_can_be_dropped() {
    for verb in [Verb::MarkUndone(StepIndex(0)), Verb::SkipUndo(StepIndex(0))] {
        let images = Images::new().await;
        let kept = images.made(&[1, 2]).await;
        let nothing = images.engine().drop_references_of_gone().await.unwrap();
        assert_eq!((nothing.references, nothing.unreadable), (0, 0));
        let make = Make { layers: BTreeSet::from([2, 3, 4]), fails: true, stuck: true, slow: 1 };
        let operation = images.engine().submit::<MakeImage>(&make, call()).await.unwrap();
        pass(60_000).await;
        // It is there still, and so are its references.
        assert_eq!(images.engine().drop_references_of_gone().await.unwrap().references, 0);
        let by = crate::common::caller();
        images.engine().intervene(operation.id(), &by, verb, "by hand").await.unwrap();
        let done = images.engine().wait_done(operation.id()).await.unwrap();
        assert!(done.error().is_some());
        assert_eq!(images.all().await.len(), 1);
        assert_eq!(images.engine().drop_references_of_gone().await.unwrap().references, 3);
        let orphans = images.engine().orphans(None, 10).await.unwrap();
        assert_eq!(
            orphans.iter().map(|orphan| orphan.item.clone()).collect::<Vec<_>>(),
            [layer(3), layer(4)]
        );
        for orphan in &orphans {
            images.shelf.lock().unwrap().remove(&(orphan.item.id.as_bytes()[0], orphan.incarnation));
        }
        images.engine().forget_orphans(orphans).await.unwrap();
        assert_eq!(images.engine().drop_references_of_gone().await.unwrap().references, 0);
        images.check().await;
        images.delete(&kept).await.unwrap();
    }
}

/// Creates, failures, cancels, deletes and crashes, many at a time, over a few layers.
#[tokio::test(start_paused = true)]
async fn c08_references_are_right_whatever_crashes_and_races() {
    for seed in 0..30_u64 {
        let mut state = seed;
        let mut dice = move |sides: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % sides
        };
        let mut images = Images::new().await;
        let mut known: BTreeMap<ResourceId, ()> = BTreeMap::new();
        for _ in 0..40 {
            match dice(10) {
                0..=4 => {
                    let layers: Vec<u8> = (0..6).filter(|_| dice(2) == 0).collect();
                    let operation = images.make(&layers, dice(4) == 0, dice(20)).await;
                    known.insert(operation.metadata().decode().unwrap(), ());
                    if dice(4) == 0 {
                        pass(dice(20)).await;
                        images.engine().cancel(operation.id(), &crate::common::caller()).await.unwrap();
                    }
                }
                5..=7 => {
                    let place = usize::try_from(dice(known.len().max(1) as u64)).unwrap();
                    if let Some(id) = known.keys().nth(place).cloned() {
                        // It may be held, or gone.
                        _ = images.delete(&id).await;
                    }
                }
                8 => pass(dice(30)).await,
                _ => {
                    images.crash().await;
                    images.start().await;
                }
            }
        }
        images.crash().await;
        images.start().await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        images.check().await;
    }
}

/// A step that goes on asking after its time is over.
struct Late(Arc<Mutex<Vec<bool>>>);

#[async_trait]
impl Step for Late {
    const NAME: &'static str = "late";
    type Input = ResourceId;
    type Output = Image;
    type Checkpoint = ();

    fn policy() -> StepPolicy {
        StepPolicy { timeout: millis(50), grace: millis(10), runs_max: 1, ..StepPolicy::default() }
    }

    async fn run(&self, cx: &StepContext<()>, id: ResourceId) -> StepResult<Image> {
        let references = cx.references::<Image>(&id)?;
        let given_up = Arc::clone(&self.0);
        tokio::spawn(async move {
            loop {
                let answer = references.take(&[layer(1)]).await;
                given_up.lock().unwrap().push(matches!(answer, Err(ReferenceError::GivenUp)));
                if answer.is_err() {
                    return;
                }
                tokio::time::sleep(millis(7)).await;
            }
        });
        std::future::pending().await
    }

    async fn undo(&self, cx: &UndoContext, id: ResourceId, _: Undoable<Image, ()>) -> UndoResult {
        let references = cx.references::<Image>(&id)?;
        references.drop_all().await?;
        tokio::time::sleep(millis(20)).await;
        references.forget(references.orphans(10).await?).await?;
        Ok(())
    }
}

struct MakeLate;

#[async_trait]
impl Kind for MakeLate {
    const NAME: &'static str = "image.make-late";
    type Request = ();
    type Metadata = ResourceId;
    type Response = Image;

    async fn plan(&self, (): &(), plan: &mut PlanBuilder) -> Planned<Self> {
        let id = plan.new_id(IdPrefix::new("img")?);
        let made = plan.step::<Late>(id.clone());
        let image = Image { id: id.clone(), layers: BTreeSet::new() };
        plan.create(&id, &folder(), "", &image, &made)?;
        Ok((id, made))
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_given_up_takes_nothing_more() {
    let mut rig = Rig::stopped(|builder| builder);
    let answers = Arc::default();
    let store = rig.mount();
    let builder = rig.bare(store).kind(MakeLate).step(Late(Arc::clone(&answers)));
    let engine = builder.start().await.unwrap();
    let operation = engine.submit::<MakeLate>(&(), call()).await.unwrap();
    let done = engine.wait_done(operation.id()).await.unwrap();
    assert_eq!(done.error().unwrap().code(), Code::DeadlineExceeded);
    let answers = answers.lock().unwrap().clone();
    assert!(answers.len() > 5 && answers.last() == Some(&true), "{answers:?}");
    let counts = verify_indexes(rig.disk.as_ref()).unwrap();
    assert_eq!((counts.references, counts.items, counts.orphans), (0, 0, 0));
}

/// Only for a resource that the operation holds.
#[tokio::test(start_paused = true)]
async fn references_are_refused_for_a_resource_of_others() {
    struct Stranger(Arc<Mutex<Option<ReferenceError>>>);

    #[async_trait]
    impl Step for Stranger {
        const NAME: &'static str = "stranger";
        type Input = ResourceId;
        type Output = ();
        type Checkpoint = ();

        async fn run(&self, cx: &StepContext<()>, id: ResourceId) -> StepResult<()> {
            *self.0.lock().unwrap() = cx.references::<Image>(&id)?.take(&[layer(1)]).await.err();
            Ok(())
        }

        async fn undo(&self, _: &UndoContext, _: ResourceId, _: Undoable<(), ()>) -> UndoResult {
            Ok(())
        }
    }

    struct Try;

    #[async_trait]
    impl Kind for Try {
        const NAME: &'static str = "try";
        type Request = ResourceId;
        type Metadata = ();
        type Response = ();

        async fn plan(&self, id: &ResourceId, plan: &mut PlanBuilder) -> Planned<Self> {
            Ok(((), plan.step::<Stranger>(id.clone())))
        }
    }

    let mut rig = Rig::stopped(|builder| builder);
    let refusal = Arc::default();
    let store = rig.mount();
    let engine = rig.bare(store).kind(Try).step(Stranger(Arc::clone(&refusal))).start().await.unwrap();
    let id = ResourceId::new("elsewhere").unwrap();
    let operation = engine.submit::<Try>(&id, call()).await.unwrap();
    engine.wait_done(operation.id()).await.unwrap();
    let refusal = refusal.lock().unwrap().take();
    assert!(matches!(
        refusal,
        Some(ReferenceError::Commit(CommitError::Conflict(Conflict::Resource { exists: false, .. })))
    ));
}

/// Relies on an image without holding it.
struct Relying;

#[async_trait]
impl Kind for Relying {
    const NAME: &'static str = "image.rely";
    type Request = (ResourceId, u64);
    type Metadata = ResourceId;
    type Response = Image;

    async fn plan(&self, (on, slow): &(ResourceId, u64), plan: &mut PlanBuilder) -> Planned<Self> {
        let found: Option<Found<Image>> = plan.find(on).await?;
        let found = found.ok_or_else(|| Status::new(Code::NotFound, "no such image"))?;
        if found.row.status != ResourceStatus::Ready {
            return Err(Status::new(Code::FailedPrecondition, "it is not READY"));
        }
        plan.require_ready(&found);
        tokio::time::sleep(millis(*slow)).await;
        // A child of the image.
        let id = plan.new_id(IdPrefix::new("chd")?);
        let child = Image { id: id.clone(), layers: BTreeSet::new() };
        let made = plan.value(&child);
        plan.create(&id, on, "", &child, &made)?;
        Ok((id, made))
    }
}

/// Deletes an image that has no children.
struct Emptied;

#[async_trait]
impl Kind for Emptied {
    const NAME: &'static str = "image.delete-empty";
    type Request = (ResourceId, u64);
    type Metadata = ();
    type Response = ();

    async fn plan(&self, (id, slow): &(ResourceId, u64), plan: &mut PlanBuilder) -> Planned<Self> {
        let found: Option<Found<Image>> = plan.find(id).await?;
        let found = found.ok_or_else(|| Status::new(Code::NotFound, "no such image"))?;
        if !plan.is_childless::<Image>(id).await? {
            return Err(Status::new(Code::FailedPrecondition, "it has children"));
        }
        tokio::time::sleep(millis(*slow)).await;
        plan.delete(&found);
        let nothing = plan.value(&());
        Ok(((), nothing))
    }
}

/// Whichever of them is planned first, and whichever is accepted first: a child never ends up without its parent.
#[tokio::test(start_paused = true)]
async fn c07_a_child_and_the_end_of_its_parent_exclude_each_other() {
    let images = Images::new().await;
    for (child_takes, end_takes) in [(0, 10), (10, 0), (5, 5), (20, 10), (0, 0)] {
        let parent = images.made(&[]).await;
        let (rely, empty) = ((parent.clone(), child_takes), (parent.clone(), end_takes));
        let (child, end) = tokio::join!(
            images.engine().submit::<Relying>(&rely, call()),
            images.engine().submit::<Emptied>(&empty, call()),
        );
        pass(100).await;
        let page = PageRequest::default();
        let list = ResourceList::of(parent.clone());
        let children = images.engine().list_resources::<Image>(&list, &page).await.unwrap().items.len();
        let there = images.engine().resource::<Image>(&parent).await.unwrap().is_some();
        match (child, end) {
            (Ok(_), Err(error)) => {
                assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
                assert_eq!((children, there), (1, true));
            }
            (Err(error), Ok(_)) => {
                // It saw the parent going, or gone.
                assert!(matches!(error.code(), Code::NotFound | Code::FailedPrecondition), "{error}");
                assert_eq!((children, there), (0, false));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// An operation without steps is done, with its rows, in the commit that accepts it; waiting for it is no wait.
#[tokio::test(start_paused = true)]
async fn c07_an_operation_without_steps_is_one_commit() {
    let images = Images::new().await;
    let parent = images.made(&[]).await;
    let commits = images.rig.faults.commits();
    let made = images.engine().submit::<Relying>(&(parent.clone(), 0), call()).await.unwrap();
    assert_eq!(images.rig.faults.commits(), commits + 1);
    assert!(made.done() && made.error().is_none());
    assert_eq!(images.engine().wait_done(made.id()).await.unwrap(), made);
    let child: Image = made.response().unwrap().decode().unwrap();
    let found = images.engine().resource::<Image>(&child.id).await.unwrap().unwrap();
    assert_eq!((found.row.status, found.row.operation), (ResourceStatus::Ready, None));
    verify_indexes(images.rig.disk.as_ref()).unwrap();
}
