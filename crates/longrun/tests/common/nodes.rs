//! Engines on one store that they share: they come and go, and lose their lines to it.

use std::sync::Arc;
use std::time::Duration;

use longrun::store::Store;
use longrun::store::intercept::Intercepted;
use longrun::store::shared::{Line, SharedStore};
use longrun::{Engine, EngineBuilder, Operation, OperationId};
use tokio::time::Instant;

use super::disk::{Knobs, Life, SlowStore};
use super::script::{Play, Script, Scripted};
use super::time::VirtualTime;
use super::world::World;
use super::{LONG, call, caller, pass};

/// How long a node keeps what it has without a renewal.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

type Tune = Box<dyn Fn(EngineBuilder) -> EngineBuilder>;

pub(crate) struct Node {
    pub(crate) store: Arc<SharedStore>,
    pub(crate) time: VirtualTime,
    life: Arc<Life>,
    engine: Option<Engine>,
}

pub(crate) struct Nodes {
    pub(crate) store: SharedStore,
    pub(crate) world: Arc<World>,
    pub(crate) nodes: Vec<Node>,
    time: VirtualTime,
    tune: Tune,
}

impl Nodes {
    pub(crate) async fn new(nodes: usize) -> Self {
        Self::with(nodes, |builder| builder).await
    }

    /// With other settings, at every start.
    pub(crate) async fn with(nodes: usize, tune: impl Fn(EngineBuilder) -> EngineBuilder + 'static) -> Self {
        let start = Instant::now();
        let store = SharedStore::new(LEASE, move || start.elapsed()).unwrap();
        let world = Arc::new(World::new(store.another()));
        let mut rig =
            Self { store, world, time: VirtualTime::new(), nodes: Vec::new(), tune: Box::new(tune) };
        for _ in 0..nodes {
            rig.join().await;
        }
        rig
    }

    /// A node without an engine.
    pub(crate) fn another(&mut self) -> usize {
        let store = Arc::new(self.store.another());
        // So that no two draw the same ids.
        let time = self.time.another(self.nodes.len() as u64 + 1);
        let node = Node { store, time, life: Arc::default(), engine: None };
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// One more node.
    pub(crate) async fn join(&mut self) -> usize {
        let place = self.another();
        let builder = self.builder(place);
        self.start(place, builder).await;
        place
    }

    /// With nothing registered.
    pub(crate) fn bare(&self, node: usize) -> EngineBuilder {
        self.bare_on(node, Arc::clone(&self.nodes[node].store) as _)
    }

    fn bare_on(&self, node: usize, store: Arc<dyn Store>) -> EngineBuilder {
        (self.tune)(Engine::builder_shared(store)).environment(self.nodes[node].time.clone())
    }

    /// Whose store can be slow.
    pub(crate) fn builder_with_knobs(&self, node: usize, knobs: &Arc<Knobs>) -> EngineBuilder {
        let store = Arc::clone(&self.nodes[node].store) as _;
        let slow = Intercepted(SlowStore { store, knobs: Arc::clone(knobs) });
        self.playing(node, self.bare_on(node, Arc::new(slow)))
    }

    pub(crate) fn builder(&self, node: usize) -> EngineBuilder {
        self.playing(node, self.bare(node))
    }

    fn playing(&self, node: usize, builder: EngineBuilder) -> EngineBuilder {
        let (world, life) = (Arc::clone(&self.world), Arc::clone(&self.nodes[node].life));
        builder.kind(Scripted).step(Play { world, life })
    }

    pub(crate) async fn start(&mut self, node: usize, builder: EngineBuilder) {
        self.nodes[node].engine = Some(builder.start().await.unwrap());
    }

    pub(crate) fn engine(&self, node: usize) -> &Engine {
        self.nodes[node].engine.as_ref().unwrap()
    }

    pub(crate) fn line(&self, node: usize, line: Line) {
        self.nodes[node].store.set_line(line);
    }

    /// The process of a node dies where it stands.
    pub(crate) async fn crash(&mut self, node: usize) {
        self.nodes[node].life.kill();
        self.nodes[node].store.set_line(Line::Cut);
        self.nodes[node].engine = None;
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn submit(&self, node: usize, script: &Script) -> OperationId {
        self.engine(node).submit::<Scripted>(script, call()).await.unwrap().id()
    }

    pub(crate) async fn cancel(&self, node: usize, id: OperationId) -> Operation {
        self.engine(node).cancel(id, &caller()).await.unwrap()
    }

    /// The operation once it is done, as a node tells it. It must be, some day.
    pub(crate) async fn done(&self, node: usize, id: OperationId) -> Operation {
        let operation = self.engine(node).wait(id, LONG).await.unwrap();
        assert!(operation.done(), "never done: {operation:?}, held: {:?}", self.engine(node).held());
        operation
    }

    /// The same, and what it left in the world.
    pub(crate) async fn checked(&self, node: usize, id: OperationId, script: &Script) -> Operation {
        let operation = self.done(node, id).await;
        self.world.check(&operation, script);
        operation
    }

    /// The node that works on an operation, if one does.
    pub(crate) fn owner(&self, id: OperationId) -> Option<usize> {
        let (owner, _) = self.store.owner(id)?;
        let is_owner = |node: &Node| node.engine.as_ref().map(Engine::fence) == owner;
        owner.and_then(|_| self.nodes.iter().position(is_owner))
    }

    /// Waits until a node works on an operation.
    pub(crate) async fn owned(&self, id: OperationId) -> usize {
        for _ in 0..10_000 {
            if let Some(owner) = self.owner(id) {
                return owner;
            }
            pass(10).await;
        }
        panic!("nobody works on {id}")
    }
}
