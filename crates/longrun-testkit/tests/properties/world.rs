//! An engine in virtual time, over a memory store that outlives it, and what is outside.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longrun::{Call, Caller, Engine, EngineBuilder, Environment, KvStore, Operation, OperationId, Timestamp};
use longrun_store::MemoryKv;
use longrun_store::conformance::verify_indexes;
use longrun_testkit::random::Rng;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::lists::Change;
use crate::service::{First, Make, Outside, Request, Then};

/// How long what is done is kept.
pub const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// Keys are known longer than any case takes.
const KEY_RETENTION: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
/// So long that it never comes: what is removed is removed when the test says so.
const NEVER: Duration = Duration::from_secs(300 * 24 * 60 * 60);

/// Goes on from engine to engine.
#[derive(Debug)]
struct Clock {
    began: Instant,
    before: Duration,
    random: Arc<Mutex<Rng>>,
}

impl Environment for Clock {
    fn now(&self) -> Timestamp {
        let born = Timestamp::from_unix_millis(1_700_000_000_000).unwrap();
        born.saturating_add(self.before + self.began.elapsed())
    }

    fn random(&self) -> u64 {
        self.random.lock().unwrap().bits()
    }
}

struct Life {
    engine: Engine,
    began: Instant,
    runtime: Runtime,
}

pub struct World {
    stored: Arc<MemoryKv>,
    outside: Arc<Outside>,
    random: Arc<Mutex<Rng>>,
    before: Duration,
    life: Option<Life>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            stored: Arc::new(MemoryKv::new()),
            outside: Arc::default(),
            random: Arc::new(Mutex::new(Rng::new(7))),
            before: Duration::ZERO,
            life: None,
        };
        world.begin();
        world
    }

    fn register(&self, builder: EngineBuilder) -> EngineBuilder {
        let outside = || Arc::clone(&self.outside);
        builder.kind(Make).step(First(outside())).step(Then(outside())).kind(Change)
    }

    fn begin(&mut self) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (engine, began) = runtime.block_on(async {
            let began = Instant::now();
            let clock = Clock { began, before: self.before, random: Arc::clone(&self.random) };
            let store = KvStore::open_inline(Arc::clone(&self.stored), [7; 32]).unwrap();
            let builder = self.register(Engine::builder(store)).environment(clock);
            let builder = builder.retention(RETENTION).key_retention(KEY_RETENTION).sweep_every(NEVER);
            (builder.start().await.unwrap(), began)
        });
        self.life = Some(Life { engine, began, runtime });
    }

    /// The process dies where it stands; another opens the store.
    pub fn crash(&mut self) {
        if let Some(Life { engine, began, runtime }) = self.life.take() {
            self.before += runtime.block_on(async move { began.elapsed() });
            drop(runtime);
            drop(engine);
        }
        self.begin();
    }

    /// Does something with the engine.
    pub fn with<T>(&self, work: impl AsyncFnOnce(&Engine) -> T) -> T {
        let life = self.life.as_ref().unwrap();
        life.runtime.block_on(work(&life.engine))
    }

    pub fn now(&self) -> Timestamp {
        let life = self.life.as_ref().unwrap();
        let born = Timestamp::from_unix_millis(1_700_000_000_000).unwrap();
        born.saturating_add(self.before + life.runtime.block_on(async { life.began.elapsed() }))
    }

    pub fn submit_and_wait(&mut self, request: &Request) -> Operation {
        self.with(async |engine| {
            let call = Call::by(Caller::new("alice").unwrap());
            let operation = engine.submit::<Make>(request, call).await.unwrap();
            engine.wait_done(operation.id()).await.unwrap()
        })
    }

    pub fn effects_of(&self, id: OperationId) -> usize {
        let effects = self.outside.effects.lock().unwrap();
        effects.values().filter(|of| **of == id.to_string()).count()
    }

    /// S12: what the indexes say is what the records say.
    pub fn verify(&self) {
        verify_indexes(self.stored.as_ref()).unwrap();
    }
}
