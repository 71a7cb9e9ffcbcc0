//! Copying a disk into the chunk store, in pieces and over crashes.
//!
//! ```text
//! CopyReader::next_batch --Batch--> BatchHasher::hash --HashedBatch--> (the caller takes references)
//!     --> CopyWriter::store --> a durable Cursor
//! ```
//!
//! Reader, hasher and writer share nothing, so that the caller can have a batch read while it has the one before hashed, and the
//! one before that stored. No more than these three are needed at a time: this, and what the workers hold, is the memory that it
//! takes, whatever the size of the disk. The end of a copy, which reads the whole manifest, adds 16 bytes for each distinct chunk,
//! and 16 MiB at most.

mod read;
mod write;

pub use read::{BATCH_BYTES_MAX, Batch, CopyReader, HashedBatch};
pub use write::{BatchHasher, CopyWriter};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ChunkError, Digest, DiskError, DiskId, DiskInfo, RunName, SnapshotId, geometry::Geometry};

/// The largest disk that can be copied: 26 TiB. Source: the API, which has no larger ones.
pub const DISK_BYTES_MAX: u64 = 28_587_302_322_176;

/// How far a copy has come: a checkpoint. All before it is durable.
///
/// Of the same small size for any disk. The list of the chunks is in the draft of the run that gave it; the cursor has its
/// length and digest, and the last link of the chain in [`Summary::content_hash`](super::Summary::content_hash): they prove
/// that nothing in it is missing, left over or exchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    run: RunName,
    draft_bytes: u64,
    draft_digest: Digest,
    disk_identity: String,
    disk_size: u64,
    chunk_bytes: u64,
    offset: u64,
    bytes_read: u64,
    chunks: u64,
    link: Digest,
}

impl Cursor {
    /// The size of the disk in bytes: what [`Self::offset`] goes up to.
    pub fn disk_size(&self) -> u64 {
        self.disk_size
    }

    /// Everything on the disk before this offset is copied.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the whole disk is copied: call [`CopyWriter::finish`].
    pub fn is_done(&self) -> bool {
        self.offset == self.disk_size
    }

    /// Bytes read from the disk; holes are not.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// How many chunks are copied.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// The run whose draft it belongs to.
    pub fn run(&self) -> &RunName {
        &self.run
    }

    /// How the disk is cut, if the cursor can be one of a copy of this disk.
    fn check(&self, disk: &DiskInfo) -> Result<Geometry, CopyError> {
        let geometry = Geometry::new(self.disk_size, self.chunk_bytes).filter(|it| it.is_border(self.offset));
        let geometry =
            geometry.ok_or(CopyError::BadCursor { offset: self.offset, disk_size: self.disk_size })?;
        let id = || disk.id.clone();
        if self.disk_identity != disk.identity {
            return Err(DiskError::Replaced { disk: id() }.into());
        }
        if self.disk_size != disk.size {
            return Err(DiskError::Changed { disk: id(), was: self.disk_size, now: disk.size }.into());
        }
        Ok(geometry)
    }
}

/// Why a copy stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The disk failed or changed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The chunk store failed.
    #[error(transparent)]
    Chunk(ChunkError),
    /// The disk is larger than [`DISK_BYTES_MAX`].
    #[error("disk {disk} has {size} bytes, more than the {DISK_BYTES_MAX} that can be copied")]
    TooLarge {
        /// The disk.
        disk: DiskId,
        /// Its size in bytes.
        size: u64,
    },
    /// No copy can have given this cursor.
    #[error("the cursor is damaged: offset {offset} on a disk of {disk_size} bytes")]
    BadCursor {
        /// Its offset.
        offset: u64,
        /// Its disk size.
        disk_size: u64,
    },
    /// The draft in the store is not what the cursor promises. Only a copy from the start helps.
    #[error("the draft of snapshot {snapshot} is lost: {why}")]
    Lost {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The draft was taken away: the snapshot was removed, or another run has completed it. This run is to end.
    #[error("run {run} that copies to snapshot {snapshot} is not the last one any more")]
    Superseded {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The run.
        run: RunName,
    },
    /// A batch does not go on where the one before ended, or is of another disk.
    #[error("a batch from offset {found} was given where one from offset {expected} goes on")]
    OutOfOrder {
        /// Where the copy has come to.
        expected: u64,
        /// Where the batch begins.
        found: u64,
    },
    /// The caller gave no incarnation for a chunk of the batch.
    #[error("chunk {digest} has no incarnation")]
    NoIncarnation {
        /// The digest of the chunk.
        digest: Digest,
    },
    /// It was to be finished before the end of the disk.
    #[error("the copy has come to offset {offset} of {disk_size} only")]
    Unfinished {
        /// Where the copy has come to.
        offset: u64,
        /// The size of the disk in bytes.
        disk_size: u64,
    },
    /// The caller told it to stop.
    #[error("the copy to snapshot {snapshot} was stopped")]
    Stopped {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// Something panicked while a chunk was stored.
    #[error("the copy to snapshot {snapshot} panicked while it stored a chunk")]
    Panicked {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What the panic said: for the operator's logs, and not in the text.
        message: String,
    },
    /// A call before this one failed, so it is not known what is durable. Go on from the last cursor with a new writer.
    #[error("the copy to snapshot {snapshot} has failed before; it must be resumed from its last checkpoint")]
    Failed {
        /// The snapshot.
        snapshot: SnapshotId,
    },
}

impl From<ChunkError> for CopyError {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::NoDraft { snapshot, run } => Self::Superseded { snapshot, run },
            error => Self::Chunk(error),
        }
    }
}
