//! Scrubbing: every complete snapshot is read, one after another, so that damage is known before the data is needed.

use std::sync::Arc;

use longrun::{Caller, Code, ResourceId, ResourceStatus, StepError, SubmitError};
use tokio::sync::mpsc;

use super::{ServiceError, SnapshotService, Verification};
use crate::data::{SnapshotId, SweepError};
use crate::plane::chunk_error;

/// What a [scrub](SnapshotService::scrub) has read and found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scrubbed {
    /// Snapshots that are whole.
    pub whole: u64,
    /// Snapshots that are damaged.
    pub damaged: u64,
    /// Findings that were news and went on record.
    pub recorded: u64,
    /// Snapshots that could not be read, or whose finding could not be put on record. The log names them.
    pub failed: u64,
}

impl SnapshotService {
    /// Verifies every READY or ERROR snapshot that has a manifest in the chunk store, one after another, as
    /// [`verify`](Self::verify) does, and puts what is news on record in the name of `caller`. Each takes its turn among copies
    /// and verifications. Asks nobody whether the caller may: it is for the operator's own program.
    ///
    /// A snapshot that cannot be read keeps no other from being read. An error ends it: the chunk store cannot be listed, or is
    /// not [its own](Self::claim_chunks). Dropping the future stops it, with what it reads at the time.
    pub async fn scrub(&self, caller: &Caller) -> Result<Scrubbed, ServiceError> {
        self.claim_chunks().await?;
        let chunks = Arc::clone(&self.plane.chunks);
        // One batch of names waits at a time. Dropping the receiver ends the listing.
        let (names, mut listed) = mpsc::channel::<Vec<SnapshotId>>(1);
        let listing = tokio::task::spawn_blocking(move || {
            chunks.snapshots(&mut |some| Ok(names.blocking_send(some.to_vec())?))
        });
        let mut scrubbed = Scrubbed::default();
        while let Some(some) = listed.recv().await {
            for snapshot in some {
                if let Err(error) = self.scrub_one(caller, &snapshot, &mut scrubbed).await {
                    tracing::warn!(%error, cause = ?error, %snapshot, "a snapshot could not be scrubbed");
                    scrubbed.failed += 1;
                }
            }
        }
        match listing.await.map_err(StepError::from)? {
            Ok(()) => Ok(scrubbed),
            Err(SweepError::Chunk(error)) => Err(chunk_error(&error).into()),
            Err(error) => Err(StepError::of(Code::Unavailable, &error).into()),
        }
    }

    async fn scrub_one(
        &self,
        caller: &Caller,
        snapshot: &SnapshotId,
        scrubbed: &mut Scrubbed,
    ) -> Result<(), ServiceError> {
        let Ok(id) = ResourceId::new(snapshot.as_str()) else { return Ok(()) };
        let found = self.engine.resource(&id).await?;
        let complete = |status| matches!(status, ResourceStatus::Ready | ResourceStatus::Error);
        let Some(found) = found.filter(|found| complete(found.row.status)) else { return Ok(()) };
        let Verification { damage, operation, unrecorded, .. } = match self.verify_found(caller, found).await
        {
            // It is gone, or has changed: what was read is not what is there.
            Err(ServiceError::Submit(SubmitError::Refused(_))) => return Ok(()),
            verified => verified?,
        };
        *(if damage.is_some() { &mut scrubbed.damaged } else { &mut scrubbed.whole }) += 1;
        scrubbed.recorded += u64::from(operation.is_some());
        unrecorded.map_or(Ok(()), |error| Err(error.into()))
    }
}
