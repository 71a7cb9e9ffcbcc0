//! Creating a snapshot: copy the disk, read the copy back, show it as READY.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use longrun::{
    Code, IdPrefix, Invalid, Kind, PlanBuilder, Planned, ProgressUnit, Resource, ResourceId, ResourceStatus,
    Status, Step, StepContext, StepError, StepPolicy, StepResult, UndoContext, UndoResult, Undoable,
    async_trait,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::data::{
    self, Copier, CopyError, CopyStep, Cursor, Digest, DiskId, RateLimit, ReadBackError, SnapshotId,
};
use crate::plane::{DataPlane, copy_error, disk_code, read_back_error, step_error};
use crate::snapshot::Snapshot;

/// Bytes copied between two looks at whether to stop.
const PIECE_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes copied between two checkpoints, at most.
const CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;
/// Time between two checkpoints, at most (and a piece).
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateSnapshotRequest {
    /// The folder that the snapshot is to belong to.
    pub folder_id: ResourceId,
    /// The disk to copy.
    pub disk_id: String,
    /// The snapshot's name.
    #[serde(default)]
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What the caller learns at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateSnapshotMetadata {
    /// The snapshot that is being made.
    pub snapshot_id: ResourceId,
    /// The disk that is copied.
    pub disk_id: String,
}

/// The kind `compute.snapshot.create`.
#[derive(Clone, Debug)]
pub struct CreateSnapshot {
    plane: DataPlane,
}

impl CreateSnapshot {
    /// On a data plane.
    pub const fn new(plane: DataPlane) -> Self {
        Self { plane }
    }
}

#[async_trait]
impl Kind for CreateSnapshot {
    const NAME: &'static str = "compute.snapshot.create";
    const METADATA_TYPE: &'static str = "type.googleapis.com/yandex.cloud.compute.v1.CreateSnapshotMetadata";
    const RESPONSE_TYPE: &'static str = Snapshot::TYPE_URL;
    type Request = CreateSnapshotRequest;
    type Metadata = CreateSnapshotMetadata;
    type Response = Snapshot;

    async fn plan(&self, request: &CreateSnapshotRequest, plan: &mut PlanBuilder) -> Planned<Self> {
        let disk_id: DiskId = request
            .disk_id
            .parse()
            .map_err(|error: data::BadId| Invalid::new("disk_id", error.to_string()))?;
        let disk = look_at_disk(&self.plane, &disk_id).await?;
        let id = plan.new_id(IdPrefix::new("fd8")?);
        let snapshot = Snapshot {
            id: id.clone(),
            folder_id: request.folder_id.clone(),
            created_at: plan.now(),
            name: request.name.clone(),
            description: request.description.clone(),
            labels: request.labels.clone(),
            storage_size: 0,
            disk_size: disk.size,
            product_ids: disk.product_ids,
            status: ResourceStatus::Creating,
            source_disk_id: request.disk_id.clone(),
        };
        plan.describe("Create snapshot");
        let draft = plan.value(&snapshot);
        let copied = plan.step::<CopyDisk>(CopyInput { disk_id, snapshot_id: snapshot_id(&id)? });
        let made = plan.step::<VerifyCopy>((&copied, &draft));
        plan.create(&id, &request.folder_id, request.name.clone(), &snapshot, &made)?;
        Ok((CreateSnapshotMetadata { snapshot_id: id, disk_id: request.disk_id.clone() }, made))
    }
}

fn snapshot_id(id: &ResourceId) -> Result<SnapshotId, Status> {
    id.as_str().parse().map_err(|error: data::BadId| Status::new(Code::Internal, error.to_string()))
}

/// The disk must be there and readable before anything is accepted.
async fn look_at_disk(plane: &DataPlane, id: &DiskId) -> Result<data::DiskInfo, Status> {
    let (disks, id) = (Arc::clone(&plane.disks), id.clone());
    let opened = blocking(move || disks.open(&id).map(|disk| disk.info().clone())).await;
    let opened = opened.map_err(|error| error.status().clone())?;
    opened.map_err(|error| step_error(disk_code(&error), &error).status().clone())
}

/// Runs what blocks on tokio's blocking pool.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StepError> {
    tokio::task::spawn_blocking(work).await.map_err(StepError::from)
}

/// What `copy-disk` needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CopyInput {
    /// The disk.
    pub disk_id: DiskId,
    /// Where to copy it.
    pub snapshot_id: SnapshotId,
}

/// What `copy-disk` made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Copied {
    /// Where it is.
    pub snapshot_id: SnapshotId,
    /// The size of the disk.
    pub disk_size: u64,
    /// Bytes in the chunk store.
    pub storage_size: u64,
    /// The digest of the whole.
    pub content_hash: Digest,
}

/// The step that copies a disk into the chunk store. A long one: it saves checkpoints, and goes on from the last.
pub(crate) struct CopyDisk(pub(crate) DataPlane);

#[async_trait]
impl Step for CopyDisk {
    const NAME: &'static str = "compute.copy-disk";
    type Input = CopyInput;
    type Output = Copied;
    type Checkpoint = Cursor;

    fn policy() -> StepPolicy {
        StepPolicy { timeout: Duration::from_secs(7 * 24 * 60 * 60), ..StepPolicy::default() }
    }

    async fn run(&self, cx: &StepContext<Cursor>, input: CopyInput) -> StepResult<Copied> {
        let resume = cx.checkpoint()?;
        let (disks, chunks) = (Arc::clone(&self.0.disks), self.0.chunks.clone());
        let (disk_id, snapshot_id) = (input.disk_id, input.snapshot_id.clone());
        let open = move || -> Result<(Copier, u64), CopyError> {
            let disk = disks.open(&disk_id)?;
            let size = disk.info().size;
            Ok((Copier::new(disk, chunks, snapshot_id, resume)?, size))
        };
        let (copier, disk_size) = blocking(open).await?.map_err(|error| copy_error(&error))?;
        let mut copier = self.copy(cx, copier, disk_size).await?;
        let manifest = blocking(move || copier.finish()).await?.map_err(|error| copy_error(&error))?;
        Ok(Copied {
            snapshot_id: input.snapshot_id,
            disk_size: manifest.disk_size,
            storage_size: manifest.stored_bytes(),
            content_hash: manifest.content_hash,
        })
    }

    async fn undo(
        &self,
        _cx: &UndoContext,
        input: CopyInput,
        _outcome: Undoable<Copied, Cursor>,
    ) -> UndoResult {
        // Whatever a run left, in whole or in part, is in the snapshot's own place.
        let chunks = self.0.chunks.clone();
        tokio::task::spawn_blocking(move || chunks.remove(&input.snapshot_id)).await??;
        Ok(())
    }
}

impl CopyDisk {
    /// Copies piece by piece: between two pieces is the time to stop, to slow down and to save a checkpoint.
    async fn copy(
        &self,
        cx: &StepContext<Cursor>,
        mut copier: Copier,
        disk_size: u64,
    ) -> Result<Copier, StepError> {
        let began = Instant::now();
        let mut rate = self.0.copy_rate.map(|rate| RateLimit::new(rate, Duration::ZERO));
        let piece = self.0.copy_rate.map_or(PIECE_BYTES, |rate| PIECE_BYTES.min(rate.get() / 4).max(1));
        let (mut saved_at, mut unsaved) = (Instant::now(), 0);
        loop {
            let (next, step) = blocking(move || {
                let step = copier.copy_some(piece);
                (copier, step)
            })
            .await?;
            copier = next;
            let CopyStep { copied_bytes, offset, done } = step.map_err(|error| copy_error(&error))?;
            unsaved += copied_bytes;
            if !done && (unsaved >= CHECKPOINT_BYTES || saved_at.elapsed() >= CHECKPOINT_EVERY) {
                let (next, cursor) = blocking(move || {
                    let cursor = copier.checkpoint();
                    (copier, cursor)
                })
                .await?;
                copier = next;
                let cursor = cursor.map_err(|error| copy_error(&error))?;
                cx.report(cursor.offset(), disk_size, ProgressUnit::Bytes);
                cx.save(&cursor).await?;
                (saved_at, unsaved) = (Instant::now(), 0);
            } else {
                cx.report(offset, disk_size, ProgressUnit::Bytes);
            }
            if done {
                return Ok(copier);
            }
            if let Some(rate) = &mut rate {
                let pause = rate.passed(copied_bytes, began.elapsed());
                tokio::select! {
                    reason = cx.stopped() => return Err(stopped(reason)),
                    () = tokio::time::sleep(pause) => {}
                }
            }
            if let Some(reason) = cx.stop_reason() {
                return Err(stopped(reason));
            }
        }
    }
}

fn stopped(reason: longrun::Stop) -> StepError {
    StepError::unknown(Code::Aborted, format!("the copy was told to stop: {reason:?}"))
}

/// The step that reads the whole copy back before anybody is told that it is there. It changes nothing.
pub(crate) struct VerifyCopy(pub(crate) DataPlane);

#[async_trait]
impl Step for VerifyCopy {
    const NAME: &'static str = "compute.verify-copy";
    type Input = (Copied, Snapshot);
    type Output = Snapshot;
    type Checkpoint = ();

    fn policy() -> StepPolicy {
        CopyDisk::policy()
    }

    async fn run(&self, cx: &StepContext<()>, (copied, draft): (Copied, Snapshot)) -> StepResult<Snapshot> {
        let chunks = self.0.chunks.clone();
        let (stop, reached) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let id = copied.snapshot_id.clone();
        let verify = {
            let (stop, reached) = (Arc::clone(&stop), Arc::clone(&reached));
            move || {
                data::verify(&chunks, &id, &mut |offset| {
                    reached.store(offset, Ordering::Relaxed);
                    !stop.load(Ordering::Relaxed)
                })
            }
        };
        // If this run is dropped, the reading in the background is told to end too.
        let _stop_on_drop = StopOnDrop(Arc::clone(&stop));
        let mut reading = tokio::task::spawn_blocking(verify);
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        let verified: Result<_, ReadBackError> = loop {
            tokio::select! {
                result = &mut reading => break result?,
                reason = cx.stopped() => return Err(stopped(reason)),
                _ = tick.tick() => {
                    cx.report(reached.load(Ordering::Relaxed), copied.disk_size, ProgressUnit::Bytes);
                }
            }
        };
        let verified = verified.map_err(|error| read_back_error(&error))?;
        if verified.content_hash != copied.content_hash {
            return Err(StepError::unknown(Code::DataLoss, "the copy reads back as something else"));
        }
        Ok(Snapshot { status: ResourceStatus::Ready, storage_size: copied.storage_size, ..draft })
    }

    async fn undo(
        &self,
        _cx: &UndoContext,
        _input: (Copied, Snapshot),
        _outcome: Undoable<Snapshot, ()>,
    ) -> UndoResult {
        Ok(())
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
