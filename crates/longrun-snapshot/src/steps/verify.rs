//! The step that reads a copy back before anybody is told that it is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use longrun::{
    Code, ProgressUnit, References, ResourceStatus, Step, StepContext, StepError, StepPolicy, StepResult,
    UndoContext, UndoResult, Undoable, async_trait,
};

use super::{Copied, CopyDisk, StopOnDrop, stopped};
use crate::data::{self, ManifestEntry, ManifestReader, ReadBackError, SnapshotId};
use crate::plane::{DataPlane, blocking, chunk_error, item, read_back_error};
use crate::snapshot::Snapshot;

/// Reads back every chunk that the copy has written, or found without a confirmation that somebody has read it back, and the
/// manifest; then confirms them. It changes nothing else.
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
        let references = cx.references::<Snapshot>(&draft.id)?;
        self.0.claim(cx).await?;
        let _turn = tokio::select! {
            turn = self.0.turn() => turn,
            reason = cx.stopped() => return Err(stopped(reason)),
        };
        let (stop, reached) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let verify = {
            let (chunks, id) = (Arc::clone(&self.0.chunks), copied.snapshot_id.clone());
            let (stop, reached) = (Arc::clone(&stop), Arc::clone(&reached));
            move || {
                data::verify_fresh(&*chunks, &id, &mut |offset| {
                    reached.store(offset, Ordering::Relaxed);
                    !stop.load(Ordering::Relaxed)
                })
            }
        };
        // If this run is dropped, the reading in the background is told to end too.
        let _stop_on_drop = StopOnDrop(stop);
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
            return Err(
                StepError::unknown(Code::DataLoss, "the copy reads back as something else").permanent()
            );
        }
        self.confirm(&references, &copied.snapshot_id).await?;
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

/// Chunks that are confirmed at once.
const CONFIRMED_AT_ONCE: usize = 1024;

impl VerifyCopy {
    /// Tells those who come to share the chunks that they were found whole.
    async fn confirm(&self, references: &References, snapshot: &SnapshotId) -> Result<(), StepError> {
        let (chunks, id) = (Arc::clone(&self.0.chunks), snapshot.clone());
        let opened = blocking(move || ManifestReader::open(&*chunks, &id)).await?;
        let mut reader = opened.map_err(|error| chunk_error(&error))?;
        loop {
            let (given_back, entries) = blocking(move || {
                let fresh =
                    |entry: &Result<ManifestEntry, _>| entry.as_ref().map_or(true, |entry| entry.fresh);
                let entries = reader.by_ref().filter(fresh).take(CONFIRMED_AT_ONCE);
                let entries = entries.collect::<Result<Vec<_>, data::ChunkError>>();
                (reader, entries)
            })
            .await?;
            reader = given_back;
            let entries = entries.map_err(|error| chunk_error(&error))?;
            if entries.is_empty() {
                return Ok(());
            }
            let mut found = Vec::with_capacity(entries.len());
            for ManifestEntry { name, .. } in entries {
                found.push((item(&name.digest)?, name.incarnation.as_str().parse()?));
            }
            references.confirm(&found).await?;
        }
    }
}
