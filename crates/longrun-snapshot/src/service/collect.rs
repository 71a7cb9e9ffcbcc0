//! Collection: what nobody refers to and nobody is left to remove goes.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use longrun::store::StoreError;
use longrun::{Incarnation, ItemKey, Orphan, ReadError, ResourceId, ResourceStatus, StepError};

use super::{ServiceError, SnapshotService};
use crate::data::{BoxError, ChunkName, ChunkStore, SnapshotId, SweepError, Swept};
use crate::plane::{blocking, chunk_error, chunk_name, is_chunk, item};
use crate::snapshot::Snapshot;
use crate::steps::StopOnDrop;

/// Orphans, and chunks, that a collection looks up at once.
const COLLECTED_AT_ONCE: usize = 256;

/// What a [collection](SnapshotService::collect) has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// References of snapshots that do not exist.
    pub references: usize,
    /// Chunks that had lost their last reference, and whose operation did not get to removing them.
    pub orphans: usize,
    /// What the sweep of the chunk store did.
    pub swept: Swept,
    /// Manifests and drafts of snapshots that do not exist.
    pub unknown_snapshots: usize,
    /// Snapshots that are complete and had drafts left.
    pub late_drafts: usize,
    /// Things that could not be read, asked about or removed, those of the sweep included. They are left for the next collection,
    /// and the log names each.
    pub failed: u64,
}

impl SnapshotService {
    /// Removes what nobody refers to and nobody is left to remove: what was written by a process that had been given up, what
    /// crashes left half written, and what operators left behind. Everything else may go on meanwhile.
    ///
    /// What is damaged or cannot be removed keeps nothing else from going; it is counted. An error ends it: the engine's store
    /// cannot be asked, or the chunk store is [not its own](Self::claim_chunks). Dropping the future stops it after the chunks,
    /// some thousand at most, or the snapshot that it is at.
    pub async fn collect(&self) -> Result<Collected, ServiceError> {
        self.plane.claim_again(&self.engine).await?;
        let mut collected = Collected::default();
        // First, for what is dropped here leaves orphans.
        let dropped = self.engine.drop_references_of_gone().await?;
        (collected.references, collected.failed) = (dropped.references, dropped.unreadable as u64);
        self.collect_orphans(&mut collected).await?;
        self.sweep(&mut collected).await?;
        self.collect_files(&mut collected).await?;
        Ok(collected)
    }

    async fn collect_orphans(&self, collected: &mut Collected) -> Result<(), ServiceError> {
        let mut after = None;
        loop {
            let orphans = self.engine.orphans(after.as_ref(), COLLECTED_AT_ONCE).await?;
            let Some(last) = orphans.last().cloned() else { return Ok(()) };
            let orphans: Vec<_> = orphans.into_iter().filter(|orphan| is_chunk(&orphan.item)).collect();
            let chunks = Arc::clone(&self.plane.chunks);
            let (removed, failed) = blocking(move || remove_each(&*chunks, orphans)).await?;
            collected.orphans += removed.len();
            collected.failed += failed;
            self.engine.forget_orphans(removed).await?;
            after = Some(last);
        }
    }

    async fn sweep(&self, collected: &mut Collected) -> Result<(), ServiceError> {
        let (chunks, engine) = (Arc::clone(&self.plane.chunks), self.engine.clone());
        let runtime = tokio::runtime::Handle::current();
        let stop = Arc::new(AtomicBool::new(false));
        let _stop_on_drop = StopOnDrop(Arc::clone(&stop));
        let swept = blocking(move || {
            let lives = |items: &[ItemKey]| runtime.block_on(engine.incarnations(items));
            let mut failed = 0;
            let swept = chunks.sweep(&mut |names| {
                go_on(&stop)?;
                are_live(&lives, names, &mut failed)
            });
            swept.map(|swept| Swept { failed: swept.failed + failed, ..swept })
        });
        match swept.await? {
            Ok(swept) => {
                collected.swept = swept;
                collected.failed += swept.failed;
            }
            Err(error) => collected.pass_over(error)?,
        }
        Ok(())
    }

    /// Removes manifests and drafts of snapshots without a row, and drafts of those that are READY. A row is there before
    /// anything is written for it, and when it is READY nobody copies any more.
    async fn collect_files(&self, collected: &mut Collected) -> Result<(), ServiceError> {
        let (chunks, engine) = (Arc::clone(&self.plane.chunks), self.engine.clone());
        let runtime = tokio::runtime::Handle::current();
        let stop = Arc::new(AtomicBool::new(false));
        let _stop_on_drop = StopOnDrop(Arc::clone(&stop));
        let mut found = *collected;
        let (found, seen) = blocking(move || {
            let seen = chunks.snapshots(&mut |snapshots| {
                for snapshot in snapshots {
                    go_on(&stop)?;
                    let row = ResourceId::new(snapshot.as_str())
                        .map_err(ReadError::from)
                        .and_then(|id| runtime.block_on(engine.resource::<Snapshot>(&id)));
                    let status = match row {
                        Ok(row) => row.map(|row| row.row.status),
                        Err(ReadError::Store(StoreError::Unavailable(cause))) => return Err(cause),
                        // What is not known to be gone stays.
                        Err(error) => {
                            found.leave(&error, snapshot);
                            continue;
                        }
                    };
                    found.collect_files_of(&*chunks, snapshot, status);
                }
                Ok(())
            });
            (found, seen)
        })
        .await?;
        *collected = found;
        seen.or_else(|error| collected.pass_over(error))
    }
}

impl Collected {
    fn collect_files_of(
        &mut self,
        chunks: &dyn ChunkStore,
        snapshot: &SnapshotId,
        status: Option<ResourceStatus>,
    ) {
        let done = match status {
            None => chunks.discard(snapshot).map(|()| self.unknown_snapshots += 1),
            Some(ResourceStatus::Ready) => {
                chunks.discard_drafts(snapshot).map(|any| self.late_drafts += usize::from(any))
            }
            Some(_) => Ok(()),
        };
        if let Err(error) = done {
            self.leave(&error, snapshot);
        }
    }

    /// Leaves the files of a snapshot for the next collection.
    fn leave(&mut self, error: &dyn Error, snapshot: &SnapshotId) {
        tracing::warn!(%error, cause = ?error, %snapshot, "the files of a snapshot could not be collected");
        self.failed += 1;
    }

    /// Counts what the chunk store could not do. What the engine's store could not tell ends the collection.
    fn pass_over(&mut self, error: SweepError) -> Result<(), ServiceError> {
        match error {
            SweepError::Chunk(error) => {
                tracing::warn!(%error, cause = ?error, "a part of the chunk store could not be collected");
                self.failed += 1;
                Ok(())
            }
            error => Err(StepError::of(longrun::Code::Unavailable, &error).into()),
        }
    }
}

/// Ends work on the blocking pool that nobody waits for any more.
fn go_on(stop: &AtomicBool) -> Result<(), BoxError> {
    if stop.load(Ordering::Relaxed) { Err("the collection was given up".into()) } else { Ok(()) }
}

/// Removes the chunks of orphans. Gives those that are gone, and the number of the others, which stay on record.
fn remove_each(chunks: &dyn ChunkStore, orphans: Vec<Orphan>) -> (Vec<Orphan>, u64) {
    let remove = |some: &[Orphan]| -> Result<(), StepError> {
        let names = some.iter().map(|orphan| chunk_name(&orphan.item, orphan.incarnation));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        chunks.remove(&names).map_err(|error| chunk_error(&error))
    };
    if remove(&orphans).is_ok() {
        return (orphans, 0);
    }
    let all = orphans.len();
    let is_gone = |orphan: &Orphan| {
        let told =
            |error: &StepError| tracing::warn!(%error, item = %orphan.item, "an orphan could not be removed");
        remove(std::slice::from_ref(orphan)).inspect_err(told).is_ok()
    };
    let gone: Vec<_> = orphans.into_iter().filter(is_gone).collect();
    let failed = all - gone.len();
    (gone, failed as u64)
}

/// Tells the lives of items, as they are on record.
type Lives<'a> = dyn Fn(&[ItemKey]) -> Result<Vec<Option<Incarnation>>, StoreError> + 'a;

/// Whether each of these names is that of the life on record. One whose record cannot be read counts as live.
fn are_live(lives: &Lives<'_>, names: &[ChunkName], failed: &mut u64) -> Result<Vec<bool>, BoxError> {
    let items = names.iter().map(|name| item(&name.digest)).collect::<Result<Vec<_>, _>>()?;
    let is = |name: &ChunkName, life: Option<Incarnation>| {
        life.is_some_and(|life| life.to_string() == name.incarnation.as_str())
    };
    match lives(&items) {
        Ok(lives) => return Ok(names.iter().zip(lives).map(|(name, life)| is(name, life)).collect()),
        Err(error @ StoreError::Unavailable(_)) => return Err(error.into()),
        // One of them is damaged: each is asked for by itself.
        Err(_) => {}
    }
    let one = |(name, item): (&ChunkName, &ItemKey)| match lives(std::slice::from_ref(item)) {
        Ok(lives) => Ok(is(name, lives.into_iter().next().flatten())),
        Err(error @ StoreError::Unavailable(_)) => Err(error.into()),
        Err(error) => {
            tracing::error!(%error, chunk = %name, "the record of a chunk cannot be read");
            *failed += 1;
            Ok(true)
        }
    };
    names.iter().zip(&items).map(one).collect()
}
