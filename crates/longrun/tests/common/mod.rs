//! A test rig: a disk, a world, a clock, and engines that come and go on them.

pub(crate) mod disk;
pub(crate) mod nodes;
pub(crate) mod script;
pub(crate) mod time;
pub(crate) mod world;

use std::sync::Arc;
use std::time::Duration;

use longrun::store::faulty::{Faults, FaultyKv};
use longrun::store::intercept::Intercepted;
use longrun::store::{Direction, KeyRange, Kv, MemoryKv, Table};
use longrun::{
    Call, Caller, CommandError, Engine, EngineBuilder, IdempotencyKey, KvStore, Operation, OperationId,
    Phase, Store, SubmitError,
};

use disk::{Disk, Knobs, Life, Mount, SlowStore};
use script::{Play, Script, Scripted};
use time::VirtualTime;
use world::World;

/// Long enough for everything that is to end.
pub(crate) const LONG: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) async fn pass(span: u64) {
    tokio::time::sleep(millis(span)).await;
}

pub(crate) fn caller() -> Caller {
    Caller::new("tester").unwrap()
}

pub(crate) fn call() -> Call {
    Call::by(caller())
}

pub(crate) fn keyed(key: &str) -> Call {
    call().key(IdempotencyKey::new(key).unwrap())
}

type Tune = Box<dyn Fn(EngineBuilder) -> EngineBuilder>;

pub(crate) struct Rig {
    pub(crate) disk: Disk,
    pub(crate) faults: Faults,
    pub(crate) world: Arc<World>,
    pub(crate) time: VirtualTime,
    pub(crate) knobs: Arc<Knobs>,
    pub(crate) life: Arc<Life>,
    engine: Option<Engine>,
    tune: Tune,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    /// With other settings, at every start.
    pub(crate) async fn with(tune: impl Fn(EngineBuilder) -> EngineBuilder + 'static) -> Self {
        let mut rig = Self::stopped(tune);
        rig.start().await;
        rig
    }

    /// Without an engine.
    pub(crate) fn stopped(tune: impl Fn(EngineBuilder) -> EngineBuilder + 'static) -> Self {
        let memory = Arc::new(MemoryKv::new());
        let (disk, faults) = FaultyKv::new(Arc::clone(&memory));
        let witness = KvStore::open_inline(memory, [7; 32]).unwrap();
        Self {
            disk: Arc::new(disk),
            faults,
            world: Arc::new(World::new(witness)),
            time: VirtualTime::new(),
            knobs: Arc::default(),
            life: Arc::default(),
            engine: None,
            tune: Box::new(tune),
        }
    }

    /// The disk as a store of its own life.
    pub(crate) fn mount(&mut self) -> Arc<dyn Store> {
        self.life = Arc::default();
        let mount = Mount { disk: Arc::clone(&self.disk), life: Arc::clone(&self.life) };
        let store: Arc<dyn Store> = Arc::new(KvStore::open_inline(mount, [7; 32]).unwrap());
        Arc::new(Intercepted(SlowStore { store, knobs: Arc::clone(&self.knobs) }))
    }

    /// A builder with nothing registered.
    pub(crate) fn bare(&self, store: Arc<dyn Store>) -> EngineBuilder {
        (self.tune)(Engine::builder_shared(store)).environment(self.time.clone())
    }

    pub(crate) fn builder(&self, store: Arc<dyn Store>) -> EngineBuilder {
        let (world, life) = (Arc::clone(&self.world), Arc::clone(&self.life));
        self.bare(store).kind(Scripted).step(Play { world, life })
    }

    pub(crate) async fn start(&mut self) {
        let store = self.mount();
        self.start_on(store).await;
    }

    /// An engine on this store takes the place of the one that was there, if there was one, and that goes on.
    pub(crate) async fn start_on(&mut self, store: Arc<dyn Store>) -> Option<Engine> {
        let engine = self.builder(store).start().await.unwrap();
        self.engine.replace(engine)
    }

    /// The process dies where it stands.
    pub(crate) async fn crash(&mut self) {
        self.life.kill();
        self.engine = None;
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.crash().await;
        self.start().await;
    }

    pub(crate) fn take(&mut self) -> Engine {
        self.engine.take().unwrap()
    }

    pub(crate) fn put(&mut self, engine: Engine) {
        self.engine = Some(engine);
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    pub(crate) async fn try_submit(&self, script: &Script, call: Call) -> Result<Operation, SubmitError> {
        self.engine().submit::<Scripted>(script, call).await
    }

    pub(crate) async fn submit(&self, script: &Script) -> Operation {
        self.try_submit(script, call()).await.unwrap()
    }

    pub(crate) async fn get(&self, id: OperationId) -> Operation {
        self.engine().get(id).await.unwrap()
    }

    /// The operation once it is done. It must be, some day.
    pub(crate) async fn done(&self, id: OperationId) -> Operation {
        let operation = self.engine().wait(id, LONG).await.unwrap();
        assert!(operation.done(), "never done: {operation:?}, held: {:?}", self.engine().held());
        operation
    }

    /// Runs a script to its end and checks world and store.
    pub(crate) async fn play(&self, script: &Script) -> Operation {
        let accepted = self.submit(script).await;
        assert!(!accepted.done());
        let operation = self.done(accepted.id()).await;
        self.check(&operation, script);
        operation
    }

    /// Cancels, and asks again while the store is away.
    pub(crate) async fn cancel(&self, id: OperationId) -> Operation {
        for _ in 0..100 {
            match self.engine().cancel(id, &caller()).await {
                Err(CommandError::Store(_)) => pass(100).await,
                answer => return answer.unwrap(),
            }
        }
        panic!("the store is back, and yet {id} cannot be cancelled")
    }

    /// Checks what is left in the world and in the store of an operation that is done.
    pub(crate) fn check(&self, operation: &Operation, script: &Script) {
        self.world.check(operation, script);
        assert_eq!(operation.phase(), Phase::Done);
        self.check_indexes(operation.id());
    }

    fn check_indexes(&self, id: OperationId) {
        let journal = self.keys(Table::Journal);
        assert!(!journal.iter().any(|key| key.starts_with(id.as_bytes())), "C7: a journal is left");
        let due = self.keys(Table::Due);
        assert!(!due.iter().any(|key| key.ends_with(id.as_bytes())), "C7: it is still due");
        let finished = self.keys(Table::Finished).into_iter().filter(|key| key.ends_with(id.as_bytes()));
        assert_eq!(finished.count(), 1, "C7: it is finished once");
    }

    pub(crate) fn keys(&self, table: Table) -> Vec<Vec<u8>> {
        let all =
            self.disk.inner().scan(table, &KeyRange::prefix(b""), Direction::Forward, usize::MAX).unwrap();
        all.into_iter().map(|(key, _)| key).collect()
    }

    /// When everything is quiet every slot is free again: so many operations run at once, and no more.
    pub(crate) async fn check_slots(&self, slots: usize) {
        let script = Script::new([script::Act::new("slot").run([script::Do::Sleep(1000)])]);
        let mut ids = Vec::new();
        for _ in 0..=slots {
            ids.push(self.submit(&script).await.id());
        }
        pass(500).await;
        let running = ids.iter().filter(|id| self.world.runs(**id, "slot") == 1).count();
        assert_eq!(running, slots, "slots leak");
        for id in ids {
            self.done(id).await;
        }
    }

    /// The engine takes exactly `limit` more operations: none that is done is counted, and none that is unfinished is missed.
    pub(crate) async fn check_unfinished(&self, limit: usize) {
        let lasting = Script::new([script::Act::new("a").run([script::Do::Sleep(1000), script::Do::Apply])]);
        let mut ids = Vec::new();
        for _ in 0..limit {
            ids.push(self.try_submit(&lasting, call()).await.expect("one is counted that is not there").id());
        }
        let refused = self.try_submit(&lasting, call()).await;
        assert!(matches!(refused, Err(SubmitError::Overloaded { .. })), "one is there that is not counted");
        for id in ids {
            self.done(id).await;
        }
    }

    /// Kv commits that `work` takes.
    pub(crate) async fn commits<T>(&self, work: impl Future<Output = T>) -> (u64, T) {
        let before = self.faults.commits();
        let result = work.await;
        (self.faults.commits() - before, result)
    }
}
