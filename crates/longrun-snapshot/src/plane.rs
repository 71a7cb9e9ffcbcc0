//! What the steps hold: the disks, the chunks, and how they are to be used.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longrun::{
    Code, Engine, Fence, ItemId, ItemKey, Status, StepContext, StepError, StoreId, UndoContext, Value,
};
use tokio::sync::{
    OnceCell, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, Semaphore,
};

use crate::data::{
    self, ChunkError, ChunkName, ChunkStore, CopyError, Digest, DiskError, DiskId, DiskInfo, DiskSource,
    Incarnation, Owner, ReadBackError, SnapshotId,
};

/// The kind of item that a chunk is.
const CHUNK_KIND: &str = "compute.chunk";

/// The data plane that a service works on. Cheap to clone.
#[derive(Clone)]
pub struct DataPlane {
    pub(crate) disks: Arc<dyn DiskSource>,
    pub(crate) chunks: Arc<dyn ChunkStore>,
    pub(crate) copy_rate: Option<NonZeroU64>,
    pub(crate) delete_grace: Duration,
    pub(crate) folder_required: bool,
    /// The store whose references keep the chunks alive, once it is known.
    owner: Option<StoreId>,
    claimed: Arc<OnceCell<()>>,
    at_work: Arc<AtWork>,
    turns: Arc<Semaphore>,
}

/// Copies, verifications and restores at the same time, unless said.
const PARALLEL: usize = 4;

impl fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPlane").field("chunks", &self.chunks).finish_non_exhaustive()
    }
}

impl DataPlane {
    /// Disks to copy from, and a place to copy to.
    pub fn new(disks: impl DiskSource + 'static, chunks: impl ChunkStore) -> Self {
        Self {
            disks: Arc::new(disks),
            chunks: Arc::new(chunks),
            copy_rate: None,
            delete_grace: Duration::ZERO,
            folder_required: false,
            owner: None,
            claimed: Arc::default(),
            at_work: Arc::default(),
            turns: Arc::new(Semaphore::new(PARALLEL)),
        }
    }

    /// Limits each copy to so many bytes per second.
    #[must_use]
    pub const fn copy_rate(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.copy_rate = Some(bytes_per_second);
        self
    }

    /// How many disks are copied, verified and given back at the same time, 4 unless this is set: each takes some 100 MiB of
    /// memory, whatever the size of its disk. Others wait for their turn.
    #[must_use]
    pub fn parallel(mut self, disks: NonZeroUsize) -> Self {
        self.turns = Arc::new(Semaphore::new(disks.get().min(Semaphore::MAX_PERMITS)));
        self
    }

    /// Refuses disks that do not say which folder they belong to. Unless this is set anybody may copy such a disk to any
    /// folder; one that names its folder can be copied there alone, in either case.
    #[must_use]
    pub const fn require_folder(mut self) -> Self {
        self.folder_required = true;
        self
    }

    /// How long a delete waits, and can be cancelled, before it begins to remove chunks. Not at all unless this is set.
    ///
    /// It counts from the delete's acceptance, over restarts. Meanwhile the delete counts as
    /// [running](longrun::EngineBuilder::running_max).
    #[must_use]
    pub const fn delete_grace(mut self, grace: Duration) -> Self {
        self.delete_grace = grace;
        self
    }

    /// Where the chunks are.
    pub fn chunks(&self) -> &Arc<dyn ChunkStore> {
        &self.chunks
    }

    /// The same plane, for a service whose references are kept in this store.
    pub(crate) fn of_store(&self, store: StoreId) -> Self {
        Self { owner: Some(store), claimed: Arc::default(), ..self.clone() }
    }

    /// Makes sure that the chunks are those of this service's store. To be asked before chunks are looked at or changed: by the
    /// references of another store, or of an older state of this one, all of them would be garbage, or missing.
    pub(crate) async fn claim(&self, epochs: &impl Epochs) -> Result<(), StepError> {
        self.claimed.get_or_try_init(|| self.claim_again(epochs)).await.copied()
    }

    /// The same before anything is removed. It is asked each time: folders may have been exchanged under a service that runs.
    pub(crate) async fn claim_again(&self, epochs: &impl Epochs) -> Result<(), StepError> {
        let Some(owner) = self.owner else { return Ok(()) };
        let owner: Owner = owner.to_string().parse()?;
        let mut epoch = epochs.newest().await?;
        loop {
            let (chunks, owner) = (Arc::clone(&self.chunks), owner.clone());
            let claimed = blocking(move || chunks.claim(&owner, epoch.0)).await?;
            let Err(error) = claimed else { return Ok(()) };
            // Another engine may have come to the store in between, and claimed the chunks.
            let before = match error {
                ChunkError::Outdated { .. } => std::mem::replace(&mut epoch, epochs.newest().await?),
                _ => epoch,
            };
            if epoch == before {
                return Err(chunk_error(&error));
            }
        }
    }

    /// What is known of a disk. It must be there and readable before anything is accepted.
    ///
    /// Of a disk whose sidecar file cannot be read nobody knows whose it is, so that it is there is told to the operator alone.
    pub(crate) async fn look_at_disk(&self, id: &DiskId) -> Result<DiskInfo, Status> {
        let (disks, id) = (Arc::clone(&self.disks), id.clone());
        let opened = tokio::task::spawn_blocking(move || disks.open(&id).map(|disk| disk.info().clone()));
        let opened = opened.await.map_err(|error| StepError::from(error).status().clone())?;
        opened.map_err(|error| match error {
            DiskError::Sidecar { ref disk, .. } => {
                tracing::error!(%error, cause = ?error, "a disk cannot be copied");
                disk_error(&DiskError::NotFound { disk: disk.clone() }).status().clone()
            }
            error => disk_error(&error).status().clone(),
        })
    }

    /// Waits for a turn to move the bytes of a disk.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    /// For as long as it is held, whoever wants to remove the snapshot waits. A run that is dropped leaves work behind on
    /// the blocking pool, and what that writes must not come after its undo.
    pub(crate) async fn write_to(&self, snapshot: &SnapshotId) -> Arc<OwnedRwLockReadGuard<()>> {
        Arc::new(self.at_work.of(snapshot).read_owned().await)
    }

    /// Waits until nobody writes to the snapshot any more.
    pub(crate) async fn remove(&self, snapshot: &SnapshotId) -> OwnedRwLockWriteGuard<()> {
        self.at_work.of(snapshot).write_owned().await
    }
}

/// Tells the newest epoch of the store whose chunks they are, as it is now: of engines that share it, none may take the chunks
/// from another, and all may take them from an older state of the store.
pub(crate) trait Epochs: Sync {
    /// Asks the store, where engines share it.
    fn newest(&self) -> impl Future<Output = Result<Fence, StepError>> + Send;
}

impl Epochs for Engine {
    async fn newest(&self) -> Result<Fence, StepError> {
        Ok(self.store_epoch().await?)
    }
}

impl<C: Value> Epochs for StepContext<C> {
    async fn newest(&self) -> Result<Fence, StepError> {
        Ok(self.store_epoch().await?)
    }
}

impl Epochs for UndoContext {
    async fn newest(&self) -> Result<Fence, StepError> {
        Ok(self.store_epoch().await?)
    }
}

/// Who works on which snapshot, in this process. Of what another does there, that lost it, the store of the chunks takes nothing
/// that would last: see [`ChunkStore::discard`].
#[derive(Debug, Default)]
struct AtWork(Mutex<BTreeMap<SnapshotId, Arc<RwLock<()>>>>);

impl AtWork {
    fn of(&self, snapshot: &SnapshotId) -> Arc<RwLock<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(snapshot.clone()).or_default())
    }
}

/// Runs what blocks on tokio's blocking pool.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StepError> {
    tokio::task::spawn_blocking(work).await.map_err(StepError::from)
}

/// A chunk as the engine's store knows it.
pub(crate) fn item(digest: &Digest) -> Result<ItemKey, longrun::Invalid> {
    Ok(ItemKey { kind: longrun::core::ResourceKind::new(CHUNK_KIND)?, id: ItemId::new(digest.as_bytes())? })
}

/// An incarnation as the chunk store knows it.
pub(crate) fn incarnation(incarnation: longrun::Incarnation) -> Result<Incarnation, data::BadName> {
    incarnation.to_string().parse()
}

/// Whether an item is a chunk: other services on the engine may have items of their own.
pub(crate) fn is_chunk(item: &ItemKey) -> bool {
    item.kind.as_str() == CHUNK_KIND
}

/// The name of the chunk that an item and an incarnation stand for.
pub(crate) fn chunk_name(item: &ItemKey, life: longrun::Incarnation) -> Result<ChunkName, StepError> {
    let digest = <[u8; 32]>::try_from(item.id.as_bytes())?;
    Ok(ChunkName::new(Digest::from_bytes(digest), incarnation(life)?))
}

/// The error of a step for a disk that fails. None of these goes away by reading again at once, but a folder may come back.
pub(crate) fn disk_error(error: &DiskError) -> StepError {
    let code = match error {
        // Too many open files, a folder that is not mounted: that may pass.
        DiskError::Open { .. } => return StepError::of(Code::Unavailable, error),
        DiskError::NotFound { .. } => Code::NotFound,
        DiskError::Changed { .. }
        | DiskError::Replaced { .. }
        | DiskError::Vanished { .. }
        | DiskError::NotAFile { .. }
        | DiskError::Sidecar { .. } => Code::FailedPrecondition,
        _ => Code::DataLoss,
    };
    StepError::of(code, error).permanent()
}

pub(crate) fn chunk_error(error: &ChunkError) -> StepError {
    let code = match error {
        ChunkError::NoSpace { .. } => Code::ResourceExhausted,
        ChunkError::Foreign { .. } | ChunkError::Unmarked { .. } | ChunkError::Outdated { .. } => {
            Code::FailedPrecondition
        }
        error if error.is_damage() => Code::DataLoss,
        _ => Code::Unavailable,
    };
    StepError::of(code, error)
}

pub(crate) fn copy_error(error: &CopyError) -> StepError {
    match error {
        CopyError::Disk(error) => disk_error(error),
        CopyError::Chunk(error) => chunk_error(error),
        CopyError::TooLarge { .. } => StepError::of(Code::FailedPrecondition, error).permanent(),
        CopyError::Stopped { .. } | CopyError::Superseded { .. } | CopyError::Failed { .. } => {
            StepError::of(Code::Aborted, error)
        }
        CopyError::Lost { .. } => StepError::of(Code::DataLoss, error).permanent(),
        _ => StepError::of(Code::Internal, error),
    }
}

pub(crate) fn read_back_error(error: &ReadBackError) -> StepError {
    match error {
        ReadBackError::Chunk(error) => chunk_error(error),
        ReadBackError::Damaged { .. } => StepError::of(Code::DataLoss, error).permanent(),
        ReadBackError::Stopped { .. } => StepError::of(Code::Aborted, error),
        _ => StepError::of(Code::Internal, error),
    }
}
