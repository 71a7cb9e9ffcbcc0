//! The step that copies a disk into the chunk store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use longrun::{
    ItemKey, ProgressUnit, References, ResourceId, Step, StepContext, StepError, StepPolicy, StepResult,
    Taken, UndoContext, UndoResult, Undoable, async_trait,
};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedRwLockReadGuard;
use tokio::time::Instant;

use super::remove::remove_orphans;
use super::{StopOnDrop, remove, stopped};
use crate::data::{
    BATCH_BYTES_MAX, Batch, BatchHasher, ChunkError, CopyError, CopyReader, CopyWriter, Cursor, Digest,
    DigestPart, DiskId, HashedBatch, Incarnation, RateLimit, RunName, SnapshotId, Summary,
};
use crate::plane::{DataPlane, blocking, chunk_error, chunk_name, copy_error, incarnation, is_chunk, item};
use crate::snapshot::Snapshot;

/// Bytes copied between two checkpoints, at most, and a batch.
const CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;
/// Time between two checkpoints, at most, and a batch.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// What `copy-disk` needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CopyInput {
    /// The disk.
    pub(crate) disk_id: DiskId,
    /// Where to copy it.
    pub(crate) snapshot_id: SnapshotId,
}

/// What `copy-disk` made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Copied {
    /// Where it is.
    pub(crate) snapshot_id: SnapshotId,
    /// The size of the disk.
    pub(crate) disk_size: u64,
    /// Bytes in the chunk store.
    pub(crate) storage_size: u64,
    /// The digest of the whole.
    pub(crate) content_hash: Digest,
}

/// Copies a disk into the chunk store. A long step: it saves checkpoints, and goes on from the last.
///
/// ```text
/// read batch n+2   |   hash batch n+1   |   take references for batch n -> compress and write it -> checkpoint
/// ```
///
/// References come first, so that whoever removes a chunk knows of everybody who is about to use it.
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
        let references = cx.references::<Snapshot>(&ResourceId::new(input.snapshot_id.as_str())?)?;
        let token = cx.fencing_token();
        let run: RunName = format!("{}-{}", token.epoch, token.attempt).parse()?;
        let stop = Arc::new(AtomicBool::new(false));
        let _stop_on_drop = StopOnDrop(Arc::clone(&stop));
        // Before anything is done: a chunk store of another is no reason to undo, which would have to remove from it.
        let claimed = self.0.claim(cx).await;
        claimed.map_err(|error| StepError::not_applied(error.status().code(), error.status().message()))?;
        let _turn = tokio::select! {
            turn = self.0.turn() => turn,
            reason = cx.stopped() => return Err(stopped(reason)),
        };
        let at_work = self.0.write_to(&input.snapshot_id).await;
        let ends = match self.open(&at_work, &input, &run, cx.checkpoint()?).await? {
            Err(CopyError::Lost { snapshot, why }) => {
                tracing::warn!(%snapshot, why, "the copy begins anew");
                self.open(&at_work, &input, &run, None).await?
            }
            opened => opened,
        };
        let Ends { reader, writer } = ends.map_err(|error| copy_error(&error))?;
        let copy = Copy { cx, plane: &self.0, references, stop, at_work };
        let summary = copy.run(reader, writer).await?;
        if cx.attempt().0 > 1 {
            copy.drop_unused(&input.snapshot_id).await?;
        }
        Ok(Copied {
            snapshot_id: input.snapshot_id,
            disk_size: summary.disk_size,
            storage_size: summary.stored_bytes,
            content_hash: summary.content_hash,
        })
    }

    async fn undo(
        &self,
        cx: &UndoContext,
        input: CopyInput,
        _outcome: Undoable<Copied, Cursor>,
    ) -> UndoResult {
        // Whatever a run left, in whole or in part.
        let references = cx.references::<Snapshot>(&ResourceId::new(input.snapshot_id.as_str())?)?;
        Ok(remove::remove(&self.0, cx, &references, &input.snapshot_id).await?)
    }
}

/// Both ends of a copy.
struct Ends {
    reader: CopyReader,
    writer: CopyWriter,
}

impl CopyDisk {
    async fn open(
        &self,
        at_work: &Arc<OwnedRwLockReadGuard<()>>,
        input: &CopyInput,
        run: &RunName,
        resume: Option<Cursor>,
    ) -> Result<Result<Ends, CopyError>, StepError> {
        let (disks, chunks) = (Arc::clone(&self.0.disks), Arc::clone(&self.0.chunks));
        let (input, run, at_work) = (input.clone(), run.clone(), Arc::clone(at_work));
        blocking(move || {
            let _at_work = at_work;
            let reader = CopyReader::open(disks.open(&input.disk_id)?, resume.as_ref())?;
            let writer = CopyWriter::open(chunks, input.snapshot_id, run, reader.info(), resume.as_ref())?;
            Ok(Ends { reader, writer })
        })
        .await
    }
}

/// One run of a copy.
struct Copy<'a> {
    cx: &'a StepContext<Cursor>,
    plane: &'a DataPlane,
    references: References,
    stop: Arc<AtomicBool>,
    at_work: Arc<OwnedRwLockReadGuard<()>>,
}

impl Copy<'_> {
    async fn run(&self, reader: CopyReader, mut writer: CopyWriter) -> Result<Summary, StepError> {
        let disk_size = reader.info().size;
        let began = Instant::now();
        let mut rate = self.plane.copy_rate.map(|rate| RateLimit::new(rate, Duration::ZERO));
        let (mut saved_at, mut unsaved) = (Instant::now(), 0);
        let hasher = writer.hasher();
        let (mut reader, mut read) = self.read(reader).await?;
        let mut hashed = None;
        while read.is_some() || hashed.is_some() {
            // Zeros are read and not kept; holes are not read and fill up chunks.
            let passed_bytes =
                hashed.as_ref().map_or(0, |batch: &HashedBatch| batch.bytes_read().max(batch.chunk_bytes()));
            // While one batch is stored the next is hashed and the one after it read. More than these are never in memory.
            let (next, fresh, stored) =
                tokio::join!(self.read(reader), self.hash(&hasher, read), self.store(writer, hashed));
            let cursor;
            (writer, cursor) = stored?;
            unsaved += passed_bytes;
            self.cx.report(cursor.offset(), disk_size, ProgressUnit::Bytes);
            if unsaved >= CHECKPOINT_BYTES || saved_at.elapsed() >= CHECKPOINT_EVERY {
                self.cx.save(&cursor).await?;
                (saved_at, unsaved) = (Instant::now(), 0);
            }
            if let Some(rate) = &mut rate {
                let pause = rate.passed(passed_bytes, began.elapsed());
                tokio::select! {
                    reason = self.cx.stopped() => return Err(stopped(reason)),
                    () = tokio::time::sleep(pause) => {}
                }
            }
            if let Some(reason) = self.cx.stop_reason() {
                return Err(stopped(reason));
            }
            hashed = fresh?;
            (reader, read) = next?;
        }
        // A run that was given up and does not know it is refused here, before it could seal a manifest that is not the last.
        self.cx.save(writer.cursor()).await?;
        self.at_work(move || writer.finish()).await?.map_err(|error| copy_error(&error))
    }

    async fn read(&self, mut reader: CopyReader) -> Result<(CopyReader, Option<Batch>), StepError> {
        // With a limit on the rate, a batch is what passes in a quarter of a second.
        let budget = self.plane.copy_rate.map_or(BATCH_BYTES_MAX, |rate| (rate.get() / 4).max(1));
        let (reader, batch) = blocking(move || {
            let batch = reader.next_batch(budget);
            (reader, batch)
        })
        .await?;
        Ok((reader, batch.map_err(|error| copy_error(&error))?))
    }

    async fn hash(
        &self,
        hasher: &BatchHasher,
        batch: Option<Batch>,
    ) -> Result<Option<HashedBatch>, StepError> {
        let Some(batch) = batch else { return Ok(None) };
        let (hasher, stop) = (hasher.clone(), Arc::clone(&self.stop));
        let hashed = blocking(move || hasher.hash(batch, &stop)).await?;
        hashed.map(Some).map_err(|error| copy_error(&error))
    }

    async fn store(
        &self,
        mut writer: CopyWriter,
        batch: Option<HashedBatch>,
    ) -> Result<(CopyWriter, Cursor), StepError> {
        let Some(batch) = batch else {
            let cursor = writer.cursor().clone();
            return Ok((writer, cursor));
        };
        let digests: Vec<_> = batch.digests().into_iter().collect();
        let items: Vec<_> = digests.iter().map(item).collect::<Result<_, _>>()?;
        let taken = self.references.take(&items).await?;
        let confirmed = self.confirmed(&items, &taken).await?;
        let lives = taken.into_iter().map(|taken| incarnation(taken.incarnation));
        let lives: Vec<Incarnation> = lives.collect::<Result<_, _>>()?;
        let incarnations: BTreeMap<_, _> = digests.into_iter().zip(lives).collect();
        let stop = Arc::clone(&self.stop);
        let (writer, cursor) = self
            .at_work(move || {
                let trusted = |digest: &Digest| confirmed.contains(digest);
                let cursor = writer.store(&batch, &incarnations, &trusted, &stop);
                (writer, cursor)
            })
            .await?;
        Ok((writer, cursor.map_err(|error| copy_error(&error))?))
    }

    /// Of what was taken, the chunks that somebody has confirmed, and that are there.
    ///
    /// Of a chunk that is confirmed and gone, or not whole, this copy makes a new file, which nobody has read back yet. So it
    /// counts as confirmed no more, before others can find it.
    async fn confirmed(&self, items: &[ItemKey], taken: &[Taken]) -> Result<BTreeSet<Digest>, StepError> {
        let confirmed = items.iter().zip(taken).filter(|(_, taken)| taken.confirmed);
        let confirmed: Vec<_> = confirmed.map(|(item, taken)| (item.clone(), taken.incarnation)).collect();
        if confirmed.is_empty() {
            return Ok(BTreeSet::new());
        }
        let names = confirmed.iter().map(|(item, life)| chunk_name(item, *life));
        let names: Vec<_> = names.collect::<Result<_, _>>()?;
        let chunks = Arc::clone(&self.plane.chunks);
        let find = move || -> Result<Vec<_>, ChunkError> {
            names.into_iter().map(|name| Ok((name.digest, chunks.find(&name)?.is_some()))).collect()
        };
        let found = blocking(find).await?.map_err(|error| chunk_error(&error))?;
        let lost = confirmed.into_iter().zip(&found).filter(|(_, (_, there))| !there);
        let lost: Vec<_> = lost.map(|(item, _)| item).collect();
        self.references.unconfirm(&lost).await?;
        Ok(found.into_iter().filter(|(_, there)| *there).map(|(digest, _)| digest).collect())
    }

    /// Drops the references that an earlier run took and the copy does not need: the disk may have changed under its hands, or
    /// the copy begun anew.
    ///
    /// The manifest is sealed, and the cursor at its end is saved, so no run comes to another list of chunks from here.
    async fn drop_unused(&self, snapshot: &SnapshotId) -> Result<(), StepError> {
        let mut before = None;
        loop {
            let (chunks, id) = (Arc::clone(&self.plane.chunks), snapshot.clone());
            let used = blocking(move || DigestPart::of_manifest(&*chunks, &id, before)).await?;
            let Some(used) = used.map_err(|error| chunk_error(&error))? else { break };
            // What belongs to other parts is kept here, and looked at there.
            let keep = |item: &ItemKey| !is_chunk(item) || !used.lacks(item.id.as_bytes());
            self.references.drop_all_but(keep).await?;
            before = Some(used);
        }
        // Although nothing was dropped: an earlier run may have dropped them and come no further.
        self.plane.claim_again(self.cx).await?;
        remove_orphans(self.plane, &self.references).await
    }

    /// Blocking work that writes: whoever wants to remove the snapshot waits for it, even if this run is dropped.
    async fn at_work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StepError> {
        let at_work = Arc::clone(&self.at_work);
        blocking(move || {
            let _at_work = at_work;
            work()
        })
        .await
    }
}
