//! The step that reads a copy back before anybody is told that it is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use longrun::{
    Code, ProgressUnit, ResourceStatus, Step, StepContext, StepError, StepPolicy, StepResult, UndoContext,
    UndoResult, Undoable, async_trait,
};

use super::{Copied, CopyDisk, StopOnDrop, stopped};
use crate::data::{self, ReadBackError};
use crate::plane::{DataPlane, read_back_error};
use crate::snapshot::Snapshot;

/// Reads back every chunk that the copy has written, and the manifest. Chunks that were in the store already were read back
/// by the copy that wrote them. It changes nothing.
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
        let (stop, reached) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let verify = {
            let (chunks, id) = (Arc::clone(&self.0.chunks), copied.snapshot_id.clone());
            let (stop, reached) = (Arc::clone(&stop), Arc::clone(&reached));
            move || {
                let began =
                    |life: &data::Incarnation| life.as_str().parse().is_ok_and(|life| references.began(life));
                data::verify_fresh(&*chunks, &id, &began, &mut |offset| {
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
