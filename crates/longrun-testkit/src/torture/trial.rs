//! One trial: an operation from before it is accepted until long after it is done.

// A trial that cannot be set up is a failure of the test that asked for it.
#![allow(clippy::panic)]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use longrun::core::Plan;
use longrun::core::limits::PAGE_SIZE_MAX;
use longrun::{
    Call, Code, Engine, ItemKey, KvStore, Operation, OperationId, Orphan, Payload, ResourceId, ResourceKey,
    ResourceStatus, Row, StepIndex, Store,
};
use longrun_store::conformance::verify_indexes;
use longrun_store::faulty::FaultyKv;
use longrun_store::{MemoryKv, StoreError};
use serde_json::Value as JsonValue;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use super::Scene;
use super::life::{Clock, Control, Life, Tormentor, caller};
use super::report::End;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// An operation that is not done after this long counts as one that does not end. The longest timeout of a step is 366 days, and a fault
/// may cost one.
const ENDLESS_AFTER: Duration = Duration::from_secs(3 * 366 * 24 * 60 * 60);
/// How long after its end an operation is looked at again.
const LATER: Duration = Duration::from_secs(60 * 60);

/// What is compared of a row that the operation claims.
#[derive(Clone, Debug, PartialEq)]
struct RowState {
    parent: ResourceId,
    name: String,
    status: ResourceStatus,
    body: JsonValue,
    held_by: Option<OperationId>,
}

/// How all that the operation may change looks.
#[derive(Debug)]
struct View<P> {
    world: P,
    rows: Vec<(ResourceKey, Option<RowState>)>,
    /// What each of the rows refers to.
    references: Vec<(ResourceKey, Vec<ItemKey>)>,
    /// What lost its last reference to the operation, and is not forgotten.
    orphans: Vec<ItemKey>,
}

impl<P: Debug + PartialEq> View<P> {
    /// With what is outside, and the rows, as they are now.
    async fn new(
        world: P,
        rows: Vec<(ResourceKey, Option<RowState>)>,
        store: &dyn Store,
        id: OperationId,
    ) -> Self {
        let mut references = Vec::new();
        for (key, _) in &rows {
            references.push((key.clone(), references_of(store, key).await));
        }
        let orphans = orphans_of(store, id).await.into_iter();
        let mut orphans: Vec<_> = orphans.map(|orphan| orphan.item).collect();
        // They come in the order of their incarnations, which are random.
        orphans.sort();
        Self { world, rows, references, orphans }
    }

    /// What is not as expected.
    fn difference(&self, when: &str, expected: &Self) -> Vec<String> {
        let mut all = Vec::new();
        let mut differ = |what, expected: &dyn Debug, found: &dyn Debug| {
            all.push(format!("{when} {what}\n  expected: {expected:?}\n  found:    {found:?}"));
        };
        if self.world != expected.world {
            differ("the world is not as it should be", &expected.world, &self.world);
        }
        if self.rows != expected.rows {
            differ("the rows are not as they should be", &expected.rows, &self.rows);
        }
        if self.references != expected.references {
            differ("the references are not as they should be", &expected.references, &self.references);
        }
        if self.orphans != expected.orphans {
            differ("the orphans are not as they should be", &expected.orphans, &self.orphans);
        }
        all
    }
}

/// An operation, and all that it may change, at one time.
struct Moment<P> {
    operation: Operation,
    response: Option<JsonValue>,
    view: View<P>,
}

/// How it ends without faults.
pub(super) struct Reference<P> {
    before: View<P>,
    done: Moment<P>,
}

impl<P: Debug + PartialEq> Reference<P> {
    /// Nothing that is looked at differs before and after.
    pub(super) fn shows_nothing(&self) -> bool {
        self.done.view.difference("", &self.before).is_empty()
    }
}

/// A trial that has not begun.
pub(super) struct Trial<'a, S: Scene> {
    scene: &'a S,
    world: S::World,
    stored: Arc<MemoryKv>,
    control: Arc<Control>,
}

/// What became of the operation.
struct Played<P> {
    before: View<P>,
    /// When it was seen to be done; or why it is not.
    done: Result<Moment<P>, String>,
    /// An hour later, and after a restart.
    later: Vec<(&'static str, Moment<P>)>,
}

impl<'a, S: Scene> Trial<'a, S> {
    pub(super) fn new(scene: &'a S, control: &Arc<Control>) -> Self {
        Self { scene, world: scene.world(), stored: Arc::new(MemoryKv::new()), control: Arc::clone(control) }
    }

    /// Without faults.
    pub(super) fn reference(&self) -> Reference<S::Picture> {
        let Played { before, done, .. } = self.play();
        match done {
            Ok(done) if done.response.is_some() => Reference { before, done },
            Ok(done) => panic!("without any fault it ends with {:?}", done.operation.error()),
            Err(why) => panic!("without any fault it does not end: {why}"),
        }
    }

    /// Plays it and judges: how it ended, if it did, and the violations.
    pub(super) fn run(&self, reference: &Reference<S::Picture>) -> (Option<End>, Vec<String>) {
        let Played { before, done, later } = self.play();
        let mut violations = self.control.problems();
        let end = match &done {
            Err(why) => {
                violations.push(format!("it does not end: {why}"));
                None
            }
            Ok(done) => Some(self.judge(reference, &before, done, &later, &mut violations)),
        };
        violations.extend(verify_indexes(&*self.stored).err().into_iter().flatten());
        (end, violations)
    }

    fn judge(
        &self,
        reference: &Reference<S::Picture>,
        before: &View<S::Picture>,
        done: &Moment<S::Picture>,
        later: &[(&'static str, Moment<S::Picture>)],
        violations: &mut Vec<String>,
    ) -> End {
        violations.extend(before.difference("before it begins", &reference.before));
        let error = done.operation.error().map(|error| error.code());
        let (end, expected) = match error {
            None => (End::Done, &reference.done.view),
            Some(_) => (End::Undone, before),
        };
        violations.extend(done.view.difference("when it is done", expected));
        if end == End::Done && done.response != reference.done.response {
            let (expected, found) = (&reference.done.response, &done.response);
            violations.push(format!("it responds with {found:?}, and without faults with {expected:?}"));
        }
        if self.control.was_cancelled() && error != Some(Code::Cancelled) {
            violations.push(format!("a cancel was accepted, and it ends with {error:?}"));
        }
        for (when, moment) in later {
            violations.extend(moment.view.difference(when, &done.view));
            if moment.operation != done.operation {
                violations.push(format!("{when} the operation has changed: {:?}", moment.operation));
            }
        }
        end
    }

    fn play(&self) -> Played<S::Picture> {
        let (id, before, mut ended) = self.live(async |life, engine, store| {
            let request = self.prepare(&life, &engine).await;
            let world = self.scene.look(&self.world).await;
            self.control.submitting();
            let accepted = engine.submit::<S::Kind>(&request, Call::by(caller())).await;
            let id = accepted.unwrap_or_else(|error| panic!("it is refused: {error}")).id();
            let execution = store.load(id).await.ok().flatten();
            let plan = execution.as_ref().and_then(|execution| execution.plan());
            let claims = plan.map(|plan| plan.claims().to_vec()).unwrap_or_default();
            let rows = claims.iter().map(|claim| (claim.key.clone(), self.row(claim.before())));
            let before = View::new(world, rows.collect(), &*store, id).await;
            self.control.submitted(id, plan.map(|plan| run_once(plan)).unwrap_or_default());
            let ended = self.watch(&life, &engine, &*store, id, &before).await;
            (id, before, ended)
        });
        // Each fault kills at most one process.
        let ended = loop {
            match ended {
                Some(ended) => break ended,
                None => {
                    ended = self.live(async |life, engine, store| {
                        self.watch(&life, &engine, &*store, id, &before).await
                    });
                }
            }
        };
        let (done, later) = match ended {
            Ok((done, hour)) => {
                let again = self.live(async |_, engine, store| {
                    sleep(LATER).await;
                    self.moment(&engine, &*store, id, &before).await
                });
                (Ok(done), vec![("an hour later", hour), ("after a restart", again)])
            }
            Err(why) => (Err(why), Vec::new()),
        };
        Played { before, done, later }
    }

    /// A life of the process, with a runtime of its own: whatever is left of it ends with it.
    fn live<T>(&self, act: impl AsyncFnOnce(Arc<Life>, Engine, Arc<dyn Store>) -> T) -> T {
        let runtime = runtime();
        runtime.block_on(async {
            let (kv, faults) = FaultyKv::new(Arc::clone(&self.stored));
            let life = Life::begin(&self.control, faults);
            let (engine, store) = self.start(&life, kv).await;
            let result = act(Arc::clone(&life), engine, store).await;
            life.end();
            result
        })
    }

    async fn start(&self, life: &Arc<Life>, kv: FaultyKv<Arc<MemoryKv>>) -> (Engine, Arc<dyn Store>) {
        let store = KvStore::open_inline(kv, [7; 32]);
        let store: Arc<dyn Store> =
            Arc::new(store.unwrap_or_else(|error| panic!("the store does not open: {error}")));
        // The scene first: whatever it sets, the time is virtual, and faults are innermost.
        let builder = self.scene.register(&self.world, Engine::builder_shared(Arc::clone(&store)));
        let builder = builder.environment(Clock(Arc::clone(life))).sweep_every(DAY);
        let engine = builder.interceptor(Tormentor(Arc::clone(life))).start().await;
        let engine = engine.unwrap_or_else(|error| panic!("the engine does not start: {error}"));
        life.started(&engine);
        (engine, store)
    }

    async fn prepare(&self, life: &Life, engine: &Engine) -> <S::Kind as longrun::Kind>::Request {
        tokio::select! {
            biased;
            why = life.endless() => panic!("what has to be there before is not made: {why}"),
            request = timeout(ENDLESS_AFTER, self.scene.request(&self.world, engine)) => {
                request.unwrap_or_else(|_| panic!("what has to be there before is never made"))
            }
        }
    }

    /// Until the operation is done and an hour has passed. `None`: the process is dead.
    async fn watch(
        &self,
        life: &Life,
        engine: &Engine,
        store: &dyn Store,
        id: OperationId,
        before: &View<S::Picture>,
    ) -> Option<Result<(Moment<S::Picture>, Moment<S::Picture>), String>> {
        let done = async {
            match engine.wait(id, ENDLESS_AFTER).await {
                Ok(operation) if operation.done() => {
                    let done = self.moment(engine, store, id, before).await;
                    sleep(LATER).await;
                    Ok((done, self.moment(engine, store, id, before).await))
                }
                Ok(operation) => Err(format!("{operation:?}, held: {:?}", engine.held())),
                Err(error) => Err(format!("it cannot be read: {error}")),
            }
        };
        tokio::select! {
            biased;
            () = life.died() => None,
            why = life.endless() => Some(Err(why)),
            ended = done => Some(ended),
        }
    }

    async fn moment(
        &self,
        engine: &Engine,
        store: &dyn Store,
        id: OperationId,
        before: &View<S::Picture>,
    ) -> Moment<S::Picture> {
        let world = self.scene.look(&self.world).await;
        let operation = engine.get(id).await.unwrap_or_else(|error| panic!("it cannot be read: {error}"));
        let mut rows = Vec::new();
        for (key, _) in &before.rows {
            let row =
                store.resource(key).await.unwrap_or_else(|error| panic!("a row cannot be read: {error}"));
            rows.push((key.clone(), self.row(row.as_ref())));
        }
        let response = operation.response().map(|response| self.json(response));
        Moment { operation, response, view: View::new(world, rows, store, id).await }
    }

    fn row(&self, row: Option<&Row>) -> Option<RowState> {
        row.map(|row| RowState {
            parent: row.parent.clone(),
            name: row.name.clone(),
            status: row.status,
            body: self.json(&row.body),
            held_by: row.operation,
        })
    }

    fn json(&self, payload: &Payload) -> JsonValue {
        let value = payload.decode::<JsonValue>();
        let mut value = value.unwrap_or_else(|error| panic!("a payload is no JSON: {error}"));
        self.scene.normalise(&mut value);
        value
    }
}

/// The steps whose policy allows one run only.
fn run_once(plan: &Plan) -> BTreeSet<StepIndex> {
    plan.indices().filter(|step| plan.policy(*step).runs_max == 1).collect()
}

async fn references_of(store: &dyn Store, holder: &ResourceKey) -> Vec<ItemKey> {
    all("references", async |after| store.references(holder, after, PAGE_SIZE_MAX).await).await
}

async fn orphans_of(store: &dyn Store, operation: OperationId) -> Vec<Orphan> {
    all("orphans", async |after| store.orphans(Some(operation), after, PAGE_SIZE_MAX).await).await
}

/// Page after page, until one is empty. Panics where a page cannot be read: a panic of a trial is a violation of it.
async fn all<T>(what: &str, page: impl AsyncFn(Option<&T>) -> Result<Vec<T>, StoreError>) -> Vec<T> {
    let mut all = Vec::new();
    loop {
        match page(all.last()).await.unwrap_or_else(|error| panic!("{what} cannot be read: {error}")) {
            more if more.is_empty() => return all,
            more => all.extend(more),
        }
    }
}

fn runtime() -> Runtime {
    // The trial is looked at after each piece of work, so that nothing is done between the end of an operation and a look at it.
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).event_interval(1).build();
    runtime.unwrap_or_else(|error| panic!("no runtime: {error}"))
}
