//! One trial: an operation from before it is accepted until long after it is done.

// A trial that cannot be set up is a failure of the test that asked for it.
#![allow(clippy::panic)]

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use longrun::{
    Call, Caller, Code, Engine, KvStore, Operation, OperationId, Payload, ResourceId, ResourceKey,
    ResourceStatus, Row as StoredRow, Store,
};
use longrun_store::MemoryKv;
use longrun_store::conformance::verify_indexes;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use super::Scene;
use super::fault::Strike;
use super::life::{Clock, Control, Life, Mortal, Seen, Tormentor};
use super::report::{End, Outcome};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// An operation that is not done after this long is stuck. The longest timeout of a step is 366 days, and a fault may cost one.
const STUCK_AFTER: Duration = Duration::from_secs(3 * 366 * 24 * 60 * 60);
/// How long after its end an operation is looked at again.
const LATER: Duration = Duration::from_secs(60 * 60);
/// Deaths of one trial, at most: there are no more faults in it.
const LIVES_MAX: usize = 8;

/// What is compared of a row.
#[derive(Clone, Debug, PartialEq)]
struct Seat {
    key: ResourceKey,
    found: Option<(ResourceId, String, ResourceStatus, Payload, Option<OperationId>)>,
}

impl Seat {
    fn of(key: &ResourceKey, row: Option<&StoredRow>) -> Self {
        let found = row
            .map(|row| (row.parent.clone(), row.name.clone(), row.status, row.body.clone(), row.operation));
        Self { key: key.clone(), found }
    }
}

/// How all looks that the operation may change.
#[derive(Debug, PartialEq)]
struct View<P> {
    world: P,
    rows: Vec<Seat>,
}

/// How it ends without faults.
pub(super) struct Reference<P> {
    done: View<P>,
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
    /// When it was seen to be done; or how it stands, if it is stuck.
    shown: Result<(Operation, View<P>), String>,
    /// How it looked later, and after a restart.
    later: Vec<(&'static str, Operation, View<P>)>,
    seen: Seen,
}

impl<'a, S: Scene> Trial<'a, S> {
    pub(super) fn new(scene: &'a S, planned: &[Strike]) -> Self {
        Self {
            scene,
            world: scene.world(),
            stored: Arc::new(MemoryKv::new()),
            control: Arc::new(Control::new(planned)),
        }
    }

    /// Without faults; with what is wrong even so.
    pub(super) fn reference(self) -> (Reference<S::Picture>, Seen, Vec<String>) {
        let Played { shown, later, seen, .. } = self.play();
        match shown {
            Ok((operation, done)) if operation.response().is_some() => {
                let changed =
                    later.iter().flat_map(|(when, _, view)| difference(when, &done, view)).collect();
                (Reference { done }, seen, changed)
            }
            Ok((operation, _)) => panic!("without any fault it ends with {:?}", operation.error()),
            Err(stuck) => panic!("without any fault it does not end: {stuck}"),
        }
    }

    /// Where the operation comes to.
    pub(super) fn seen(self) -> Seen {
        self.play().seen
    }

    /// Plays it and judges.
    pub(super) fn run(self, reference: &Reference<S::Picture>, all_must_fire: bool) -> Outcome {
        let (control, stored) = (Arc::clone(&self.control), Arc::clone(&self.stored));
        let Played { before, shown, later, .. } = self.play();
        let mut violations = Vec::new();
        if all_must_fire {
            let pending = control.pending();
            violations.extend(pending.iter().map(|planned| format!("{planned} never struck")));
        }
        let end = match shown {
            Err(stuck) => {
                violations.push(format!("it does not end: {stuck}"));
                None
            }
            Ok((operation, view)) => {
                let error = operation.error().map(|error| error.code());
                let (end, expected) = match error {
                    None => (End::Done, &reference.done),
                    Some(_) => (End::Undone, &before),
                };
                violations.extend(difference("when it is done", expected, &view));
                if control.was_cancelled() && error != Some(Code::Cancelled) {
                    violations.push(format!("a cancel was accepted, and it ends with {error:?}"));
                }
                for (when, operation_later, view_later) in &later {
                    violations.extend(difference(when, &view, view_later));
                    if *operation_later != operation {
                        violations.push(format!("{when} the operation has changed: {operation_later:?}"));
                    }
                }
                Some(end)
            }
        };
        violations.extend(verify_indexes(&*stored).err().into_iter().flatten());
        Outcome { end, violations }
    }

    fn play(self) -> Played<S::Picture> {
        let runtime = runtime();
        let life = runtime.block_on(async { Life::begin(&self.control) });
        let (id, before, first) = runtime.block_on(async {
            let (engine, store) = self.start(&life).await;
            let request = self.scene.request(&self.world, &engine).await;
            let world = self.scene.look(&self.world);
            let call = Call::by(caller());
            self.control.submitting();
            let accepted = engine.submit::<S::Kind>(&request, call).await;
            let id = accepted.unwrap_or_else(|error| panic!("it is refused: {error}")).id();
            let claims = store.load(id).await.ok().flatten();
            let claims = claims.as_ref().and_then(|it| it.plan()).map(|plan| plan.claims().to_vec());
            let rows = claims.unwrap_or_default();
            let rows = rows.iter().map(|claim| Seat::of(&claim.key, claim.before())).collect();
            let before = View { world, rows };
            self.control.submitted(id);
            let first = self.watch(&life, &engine, &store, id, &before.rows).await;
            life.end();
            (id, before, first)
        });
        drop(runtime);
        let mut ended = first;
        for _ in 0..LIVES_MAX {
            if ended.is_some() {
                break;
            }
            ended = self
                .live(async |life, engine, store| self.watch(&life, &engine, &store, id, &before.rows).await);
        }
        let (shown, mut later) = match ended {
            Some(Ok((operation, view, hour))) => (Ok((operation, view)), vec![("an hour later", hour)]),
            Some(Err(stuck)) => (Err(stuck), Vec::new()),
            None => (Err("the process dies again and again".to_owned()), Vec::new()),
        };
        if shown.is_ok() {
            let again = self.live(async |_, engine, store| {
                sleep(LATER).await;
                self.view(&engine, &store, id, &before.rows).await
            });
            later.push(("after a restart", again));
        }
        let later = later.into_iter().map(|(when, (operation, view))| (when, operation, view)).collect();
        Played { before, shown, later, seen: self.control.seen() }
    }

    /// Another life, with a runtime of its own: whatever is left of it ends with it.
    fn live<T>(&self, act: impl AsyncFnOnce(Arc<Life>, Engine, Arc<dyn Store>) -> T) -> T {
        let runtime = runtime();
        runtime.block_on(async {
            let life = Life::begin(&self.control);
            let (engine, store) = self.start(&life).await;
            let result = act(Arc::clone(&life), engine, store).await;
            life.end();
            result
        })
    }

    async fn start(&self, life: &Arc<Life>) -> (Engine, Arc<dyn Store>) {
        let kv = Mortal { stored: Arc::clone(&self.stored), life: Arc::clone(life) };
        let store = KvStore::open_inline(kv, [7; 32]);
        let store: Arc<dyn Store> =
            Arc::new(store.unwrap_or_else(|error| panic!("the store does not open: {error}")));
        let builder = Engine::builder_shared(Arc::clone(&store))
            .environment(Clock(Arc::clone(life)))
            .sweep_every(DAY)
            .interceptor(Tormentor(Arc::clone(life)));
        let engine = self.scene.register(&self.world, builder).start().await;
        let engine = engine.unwrap_or_else(|error| panic!("the engine does not start: {error}"));
        life.started(&engine);
        (engine, store)
    }

    /// Until the operation is done and an hour has passed, or the process is dead: `None`.
    async fn watch(
        &self,
        life: &Life,
        engine: &Engine,
        store: &Arc<dyn Store>,
        id: OperationId,
        rows: &[Seat],
    ) -> Option<Result<(Operation, View<S::Picture>, (Operation, View<S::Picture>)), String>> {
        let done = async {
            match engine.wait(id, STUCK_AFTER).await {
                Ok(operation) if operation.done() => {
                    let (operation, view) = self.view(engine, store, id, rows).await;
                    sleep(LATER).await;
                    Ok((operation, view, self.view(engine, store, id, rows).await))
                }
                Ok(operation) => Err(format!("{operation:?}")),
                Err(error) => Err(format!("it cannot be read: {error}")),
            }
        };
        tokio::select! {
            biased;
            () = life.died() => None,
            stuck = life.stuck() => Some(Err(stuck)),
            ended = done => Some(ended),
        }
    }

    async fn view(
        &self,
        engine: &Engine,
        store: &Arc<dyn Store>,
        id: OperationId,
        rows: &[Seat],
    ) -> (Operation, View<S::Picture>) {
        let operation = engine.get(id).await.unwrap_or_else(|error| panic!("it is gone: {error}"));
        let world = self.scene.look(&self.world);
        let mut seats = Vec::new();
        for Seat { key, .. } in rows {
            let row = store.resource(key).await.unwrap_or_else(|error| panic!("a row is gone: {error}"));
            seats.push(Seat::of(key, row.as_ref()));
        }
        (operation, View { world, rows: seats })
    }
}

/// What differs.
fn difference<P: Debug + PartialEq>(when: &str, expected: &View<P>, found: &View<P>) -> Vec<String> {
    let mut all = Vec::new();
    if expected.world != found.world {
        let (expected, found) = (&expected.world, &found.world);
        all.push(format!(
            "{when} the world is not as it should be\n  expected: {expected:?}\n  found:    {found:?}"
        ));
    }
    if expected.rows != found.rows {
        let (expected, found) = (&expected.rows, &found.rows);
        all.push(format!(
            "{when} the rows are not as they should be\n  expected: {expected:?}\n  found:    {found:?}"
        ));
    }
    all
}

fn caller() -> Caller {
    Caller::new("torture").unwrap_or_else(|error| panic!("{error}"))
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap_or_else(|error| panic!("no runtime: {error}"))
}
