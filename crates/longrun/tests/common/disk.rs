//! A disk that outlives the engine, the life of one engine on it, and a store that takes its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use longrun::store::faulty::FaultyKv;
use longrun::store::intercept::Intercept;
use longrun::store::{
    Batch, Commit, CommitError, Direction, Due, Entry, KeyRange, Kv, KvCapabilities, KvError, MemoryKv,
    Store, StoreError, Table,
};
use longrun::{OperationId, Timestamp, async_trait};
use longrun_core::{Execution, Fence};
use tokio::sync::Notify;

pub(crate) type Disk = Arc<FaultyKv<Arc<MemoryKv>>>;

/// The life of one process: from a start to its crash. After it nothing of the process has any effect.
#[derive(Debug, Default)]
pub(crate) struct Life {
    dead: AtomicBool,
    commits: AtomicU64,
    crash_at: AtomicU64,
    crash_after: AtomicBool,
    died: Notify,
}

impl Life {
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    /// The process dies in its `nth` commit from now (1 is the next): before the batch is applied, or after it.
    pub(crate) fn crash_at(&self, nth: u64, after: bool) {
        self.crash_after.store(after, Ordering::SeqCst);
        self.crash_at.store(self.commits.load(Ordering::SeqCst) + nth, Ordering::SeqCst);
    }

    pub(crate) async fn died(&self) {
        self.died.notified().await;
    }

    /// What a dead process goes on doing.
    pub(crate) async fn alive(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}

/// The disk as one process sees it.
pub(crate) struct Mount {
    pub(crate) disk: Disk,
    pub(crate) life: Arc<Life>,
}

impl Mount {
    fn check(&self) -> Result<(), KvError> {
        if self.life.is_dead() { Err(KvError::Unknown("this process is dead".into())) } else { Ok(()) }
    }
}

impl Kv for Mount {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.check()?;
        self.disk.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        self.check()?;
        self.disk.scan(table, range, direction, limit)
    }

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        self.check()?;
        let number = self.life.commits.fetch_add(1, Ordering::SeqCst) + 1;
        if number != self.life.crash_at.load(Ordering::SeqCst) {
            return self.disk.commit(batch);
        }
        if self.life.crash_after.load(Ordering::SeqCst) {
            self.disk.commit(batch)?;
        }
        self.life.kill();
        self.check()
    }

    fn reopen(&self) -> Result<(), KvError> {
        self.check()?;
        self.disk.reopen()
    }

    fn capabilities(&self) -> KvCapabilities {
        self.disk.capabilities()
    }
}

/// How long the store takes, in virtual time, and which of its readings fail.
#[derive(Debug, Default)]
pub(crate) struct Knobs {
    pub(crate) commit_ms: AtomicU64,
    /// How long the answer of a commit takes when it is done.
    pub(crate) answer_ms: AtomicU64,
    pub(crate) due_ms: AtomicU64,
    pub(crate) load_ms: AtomicU64,
    /// How long the answer of a load takes when it was read.
    pub(crate) loaded_ms: AtomicU64,
    /// Loads so far.
    pub(crate) loads: AtomicU64,
    pub(crate) loads_to_fail: AtomicU64,
    /// Questions about who owns an operation that fail.
    pub(crate) owners_to_fail: AtomicU64,
    pub(crate) dues_to_fail: AtomicU64,
    pub(crate) dues_to_panic: AtomicU64,
    pub(crate) due_calls: AtomicU64,
    pub(crate) take_overs_to_fail: AtomicU64,
}

/// More looks through the order of due work than any test needs: somebody turns in a circle.
const DUE_CALLS_MAX: u64 = 200_000;

impl Knobs {
    pub(crate) fn set(knob: &AtomicU64, value: u64) {
        knob.store(value, Ordering::SeqCst);
    }
}

async fn takes(knob: &AtomicU64) {
    let millis = knob.load(Ordering::SeqCst);
    if millis > 0 {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

fn fails(knob: &AtomicU64) -> Result<(), StoreError> {
    let spend = |left: u64| left.checked_sub(1);
    match knob.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend) {
        Ok(_) => Err(StoreError::Unavailable("injected: the reading fails".into())),
        Err(_) => Ok(()),
    }
}

/// A store with knobs, to be [intercepted](longrun::store::intercept::Intercepted).
#[derive(Debug)]
pub(crate) struct SlowStore {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) knobs: Arc<Knobs>,
}

#[async_trait]
impl Intercept for SlowStore {
    fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    async fn take_over(&self) -> Result<Fence, StoreError> {
        fails(&self.knobs.take_overs_to_fail)?;
        self.store.take_over().await
    }

    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        takes(&self.knobs.commit_ms).await;
        let result = self.store.commit(commit).await;
        takes(&self.knobs.answer_ms).await;
        result
    }

    async fn check_owner(&self, id: OperationId, fence: Fence) -> Result<(), CommitError> {
        fails(&self.knobs.owners_to_fail)?;
        self.store.check_owner(id, fence).await
    }

    async fn load(&self, id: OperationId) -> Result<Option<Execution>, StoreError> {
        self.knobs.loads.fetch_add(1, Ordering::SeqCst);
        takes(&self.knobs.load_ms).await;
        fails(&self.knobs.loads_to_fail)?;
        let result = self.store.load(id).await;
        takes(&self.knobs.loaded_ms).await;
        result
    }

    async fn due(&self, until: Timestamp, after: Option<Due>, limit: usize) -> Result<Vec<Due>, StoreError> {
        let calls = self.knobs.due_calls.fetch_add(1, Ordering::SeqCst);
        assert!(calls < DUE_CALLS_MAX, "the scheduler turns in a circle");
        fails(&self.knobs.dues_to_fail)?;
        if fails(&self.knobs.dues_to_panic).is_err() {
            std::panic::panic_any("injected: the store panics");
        }
        let result = self.store.due(until, after, limit).await;
        takes(&self.knobs.due_ms).await;
        result
    }
}
