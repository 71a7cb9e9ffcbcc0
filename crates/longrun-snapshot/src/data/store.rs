//! The chunk store as the rest of the data plane sees it.

use std::{error::Error, fmt, io::Read};

use thiserror::Error;

use super::{ChunkError, ChunkName, Owner, RunName, SnapshotId};

/// An error of the caller's own, from a function that it gave.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The bytes of a draft or a manifest, from the first.
pub type ByteStream = Box<dyn Read + Send>;

/// Tells of some chunks, in their order, whether they are live: see [`ChunkStore::sweep`].
pub type IsLive<'a> = dyn FnMut(&[ChunkName]) -> Result<Vec<bool>, BoxError> + 'a;

/// Keeps chunks under their names, the manifests of complete snapshots, and the drafts of those being copied.
///
/// It knows nothing of references: who holds which chunk is the caller's to know, and to know first (see the
/// [module's page](super)). Threads, processes and machines may share one store. To be correct:
///
/// * **Durable**: each method says when. "Durable" survives the loss of power, not only of the process. What is not
///   durable yet may be there or not be there afterwards, but never in part.
/// * **Seen**: what a call did is seen by all calls that begin after its return, whoever makes them.
/// * **Repeated**: every call may be made again after a crash or an error, also while another makes the same one.
pub trait ChunkStore: fmt::Debug + Send + Sync + 'static {
    /// Makes the store that of an owner, if it is empty and nobody's, and finds out whether it is this owner's; else
    /// [`ChunkError::Foreign`] or [`ChunkError::Unmarked`]. Durable on return.
    ///
    /// `epoch` grows with the owner: the highest that has claimed the store stays on record, and a lower one is refused with
    /// [`ChunkError::Outdated`]. So an older state of the owner, restored from a backup, does not take what was made since
    /// for garbage.
    ///
    /// Whoever keeps the references calls it before anything else: to another all of these chunks would be garbage. Of two
    /// who claim an empty store at the same time one gets it.
    fn claim(&self, owner: &Owner, epoch: u64) -> Result<(), ChunkError>;

    /// Stores a chunk in place of what was there under its name, and returns what it takes.
    ///
    /// `plain` are the bytes that `name.digest` is the digest of; the caller's word is taken for it, and
    /// [`get`](Self::get) finds out. A reader sees the whole chunk or none. The bytes are durable on return, that they
    /// are found under this name only after [`sync`](Self::sync).
    fn put(&self, name: &ChunkName, plain: &[u8]) -> Result<u64, ChunkError>;

    /// What a chunk takes, if it is there.
    ///
    /// Cheap: what tells the name and the length is looked at, the bytes are not. A chunk found damaged so far is not there:
    /// it is to be put again. One that is there may be not durable yet, if it was put by somebody
    /// else: [`sync`](Self::sync) makes it so.
    fn find(&self, name: &ChunkName) -> Result<Option<u64>, ChunkError>;

    /// The bytes of a chunk, checked against its digest: else [`ChunkError::Damaged`] or [`ChunkError::Missing`].
    fn get(&self, name: &ChunkName) -> Result<Vec<u8>, ChunkError>;

    /// Makes it durable that these chunks are there, whoever put them.
    fn sync(&self, names: &[ChunkName]) -> Result<(), ChunkError>;

    /// Removes chunks; those that are not there are no error. Durable on return.
    ///
    /// Only for names that have no holder left: then nobody takes them again, as a digest that comes back has
    /// another incarnation.
    fn remove(&self, names: &[ChunkName]) -> Result<(), ChunkError>;

    /// Takes a chunk that is [damaged](ChunkError::Damaged) out of use, so that the next copy that has its bytes writes it anew.
    /// Removes it, unless the store has a place for it. Durable on return.
    ///
    /// Somebody may put the chunk anew at the same time. A store that can do so leaves a chunk that is whole in its place; of
    /// one that cannot, the caller's word is taken, and the next to read the chunk finds that it is missing.
    fn quarantine(&self, name: &ChunkName) -> Result<(), ChunkError> {
        self.remove(std::slice::from_ref(name))
    }

    /// Removes what nobody holds and nobody will remove: chunks written by a run that had lost its references
    /// meanwhile, and what crashes left under temporary names.
    ///
    /// `is_live` answers for some names at a time, in their order: whether this incarnation of the digest is the one on
    /// record. It is asked after the chunk was seen, and references are taken before chunks are written,
    /// so one that is not live then never will be. Nothing is removed on a missing answer, and an error of `is_live` ends the
    /// sweep. What cannot be looked at or removed is passed over, reported in the log and counted as failed.
    /// Memory does not grow with the number of chunks. What is removed may come back after a crash, for the next sweep.
    fn sweep(&self, is_live: &mut IsLive<'_>) -> Result<Swept, SweepError>;

    /// Begins an empty draft of a run, in place of one that has its name. Durable with the draft's first
    /// [`sync`](Draft::sync).
    fn begin_draft(&self, snapshot: &SnapshotId, run: &RunName) -> Result<Box<dyn Draft>, ChunkError>;

    /// The draft of a run as it is now; it may grow meanwhile. `None`: there is none.
    fn read_draft(&self, snapshot: &SnapshotId, run: &RunName) -> Result<Option<ByteStream>, ChunkError>;

    /// Makes the draft of a run the manifest of the snapshot, in place of the one before, and removes all its other drafts.
    /// The draft is complete and was synced. Durable on return.
    ///
    /// A reader sees the manifest before or this one, whole. From the return on no run can seal a draft that it
    /// began before: it gets [`ChunkError::NoDraft`]. So does this call if another run's manifest took the place of
    /// this one meanwhile.
    fn seal(&self, snapshot: &SnapshotId, run: &RunName) -> Result<(), ChunkError>;

    /// The manifest of a snapshot. `None`: there is none.
    fn read_manifest(&self, snapshot: &SnapshotId) -> Result<Option<ByteStream>, ChunkError>;

    /// Removes the drafts of a snapshot that is complete, if there are any: a run that was given up may have begun one when the
    /// manifest was sealed already. False: there were none. For the next call, if a crash brings them back.
    fn discard_drafts(&self, snapshot: &SnapshotId) -> Result<bool, ChunkError>;

    /// Removes the manifest and all drafts of a snapshot; if there are none nothing happens. Durable on return.
    ///
    /// From then on no run can seal or go on with a draft that it began before.
    fn discard(&self, snapshot: &SnapshotId) -> Result<(), ChunkError>;

    /// Shows `see` every snapshot that has a manifest or a draft, some at a time; one that has both may come
    /// twice. An error of `see` ends it; if one of its own keeps it from showing some, it shows the others first. `see` may
    /// [`discard`](Self::discard) what it is shown.
    ///
    /// It is for finding those that nobody knows: a run that is told too late that its snapshot was removed may have
    /// begun a draft.
    fn snapshots(&self, see: &mut dyn FnMut(&[SnapshotId]) -> Result<(), BoxError>)
    -> Result<(), SweepError>;
}

/// A draft that is being written, by one run.
pub trait Draft: fmt::Debug + Send {
    /// Adds bytes at the end. Durable after [`sync`](Self::sync); after a crash before that a part of them may be there.
    fn append(&mut self, bytes: &[u8]) -> Result<(), ChunkError>;

    /// Makes all that was appended durable. [`ChunkError::NoDraft`]: the draft was removed meanwhile.
    fn sync(&mut self) -> Result<(), ChunkError>;
}

/// What a [`ChunkStore::sweep`] did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Chunks that are live.
    pub kept: u64,
    /// Chunks that were removed.
    pub removed: u64,
    /// What they took.
    pub removed_bytes: u64,
    /// Temporary files that were removed.
    pub temporaries: u64,
    /// What they took.
    pub temporary_bytes: u64,
    /// Things that are no chunks. They are left alone.
    pub strange: u64,
    /// Things that could not be looked at or not be removed, each a file or a folder. The log names them.
    pub failed: u64,
}

/// Why a sweep ended early.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SweepError {
    /// The chunk store failed.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The caller's function failed.
    #[error("the sweep of the chunk store was ended")]
    Ended(#[source] BoxError),
}
