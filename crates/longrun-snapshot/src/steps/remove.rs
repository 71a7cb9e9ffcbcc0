//! The step that removes what a snapshot has in the chunk store.

use std::sync::Arc;

use longrun::{
    References, ResourceId, Step, StepContext, StepError, StepResult, UndoContext, UndoResult, Undoable,
    async_trait,
};

use crate::data::{ChunkName, SnapshotId};
use crate::plane::{DataPlane, Epochs, blocking, chunk_error, chunk_name};
use crate::snapshot::Snapshot;

/// Chunks that are removed between two looks at the store.
const REMOVED_AT_ONCE: usize = 256;

/// Removes a snapshot's manifest and every chunk that nobody else uses. There is no way back from it.
pub(crate) struct RemoveSnapshot(pub(crate) DataPlane);

#[async_trait]
impl Step for RemoveSnapshot {
    const NAME: &'static str = "compute.remove-snapshot";
    type Input = SnapshotId;
    type Output = ();
    type Checkpoint = ();

    async fn run(&self, cx: &StepContext<()>, snapshot: SnapshotId) -> StepResult<()> {
        let references = cx.references::<Snapshot>(&ResourceId::new(snapshot.as_str())?)?;
        remove(&self.0, cx, &references, &snapshot).await
    }

    async fn undo(&self, _: &UndoContext, _: SnapshotId, _: Undoable<(), ()>) -> UndoResult {
        // Behind the point of no return: never asked for.
        Ok(())
    }
}

/// Removes the manifest and the drafts, drops the references, and removes the chunks that lost their last one.
///
/// Each part can be repeated, and what a crash leaves of one the next run finds: the orphans are on record until they are
/// forgotten.
pub(super) async fn remove(
    plane: &DataPlane,
    epochs: &impl Epochs,
    references: &References,
    snapshot: &SnapshotId,
) -> Result<(), StepError> {
    plane.claim_again(epochs).await?;
    // A run that was given up may still write: what it writes must not come after this.
    let _alone = plane.remove(snapshot).await;
    let (chunks, id) = (Arc::clone(&plane.chunks), snapshot.clone());
    blocking(move || chunks.discard(&id)).await?.map_err(|error| chunk_error(&error))?;
    references.drop_all().await?;
    remove_orphans(plane, references).await
}

/// Removes the chunks that lost their last reference to this operation.
pub(super) async fn remove_orphans(plane: &DataPlane, references: &References) -> Result<(), StepError> {
    loop {
        let orphans = references.orphans(REMOVED_AT_ONCE).await?;
        if orphans.is_empty() {
            return Ok(());
        }
        let names = orphans.iter().map(|orphan| chunk_name(&orphan.item, orphan.incarnation));
        let names: Vec<ChunkName> = names.collect::<Result<_, _>>()?;
        let chunks = Arc::clone(&plane.chunks);
        blocking(move || chunks.remove(&names)).await?.map_err(|error| chunk_error(&error))?;
        references.forget(orphans).await?;
    }
}
