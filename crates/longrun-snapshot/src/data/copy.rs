//! Copying a disk into the chunk store, in pieces and over crashes.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    CHUNK_BYTES, ChunkError, ChunkFolder, Digest, DiskError, DiskId, DiskRead, Manifest, SnapshotId,
    manifest::{CHUNK_LEN, chunk_len, first_link, next_link},
};

/// The largest disk that can be copied: 16 TiB. It bounds the manifest, which is kept in memory as a whole.
pub const DISK_BYTES_MAX: u64 = 16 << 40;

/// How far a copy has come: a checkpoint. All before it is durable.
///
/// Of the same small size for any disk. Instead of a list of the chunks it has their number and the last
/// link of the chain in [`Manifest::content_hash`]; the list is read from the chunk folder at the end, and the chain
/// proves that nothing is missing, left over or exchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    disk_size: u64,
    offset: u64,
    bytes_read: u64,
    bytes_stored: u64,
    chunks: u64,
    link: Digest,
}

impl Cursor {
    fn start(disk_size: u64) -> Self {
        Self { disk_size, offset: 0, bytes_read: 0, bytes_stored: 0, chunks: 0, link: first_link(disk_size) }
    }

    /// The size of the disk in bytes: what [`Self::offset`] goes up to.
    pub fn disk_size(&self) -> u64 {
        self.disk_size
    }

    /// Everything on the disk before this offset is copied.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes read from the disk; holes are not.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// What the chunks take in the store.
    pub fn bytes_stored(&self) -> u64 {
        self.bytes_stored
    }

    /// How many chunks are stored.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    fn check(&self) -> Result<(), CopyError> {
        let between_chunks = self.offset.is_multiple_of(CHUNK_BYTES) || self.offset == self.disk_size;
        if self.offset <= self.disk_size && between_chunks {
            Ok(())
        } else {
            Err(CopyError::BadCursor { offset: self.offset, disk_size: self.disk_size })
        }
    }
}

/// What one call of [`Copier::copy_some`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyStep {
    /// The length of the chunks that were copied. Holes between them cost nothing and are not counted.
    pub copied_bytes: u64,
    /// Everything on the disk before this offset is copied. Not yet a checkpoint.
    pub offset: u64,
    /// The whole disk is copied: call [`Copier::finish`].
    pub done: bool,
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
    Chunk(#[from] ChunkError),
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
    /// The chunks in the store are not those that the cursor promises. Only a copy from the start helps.
    #[error(
        "the chunks of snapshot {snapshot} before offset {offset} of disk {disk} are not those that were stored"
    )]
    Lost {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The disk.
        disk: DiskId,
        /// How far the copy had come.
        offset: u64,
    },
    /// A call before this one failed, so it is not known what is durable. Go on from the last cursor with a new copier.
    #[error("the copy of disk {disk} has failed before; it must be resumed from its last checkpoint")]
    Failed {
        /// The disk.
        disk: DiskId,
    },
}

/// Copies one disk into one snapshot.
///
/// Call [`copy_some`](Self::copy_some) until it is done, now and then [`checkpoint`](Self::checkpoint), and at the end
/// [`finish`](Self::finish). Between the calls is the caller's time to look for a cancel, to slow down, and
/// to save the cursor. After an error, or in another process, begin again with the last saved cursor.
///
/// It holds the memory of a few chunks; only `finish` adds the list of all chunks, some 50 bytes for each.
pub struct Copier {
    disk: Box<dyn DiskRead>,
    chunks: ChunkFolder,
    snapshot: SnapshotId,
    cursor: Cursor,
    buffer: Vec<u8>,
    failed: bool,
}

impl Copier {
    /// Begins a copy, or goes on from a cursor. What was stored after the cursor is removed and will be copied again.
    pub fn new(
        disk: Box<dyn DiskRead>,
        chunks: ChunkFolder,
        snapshot: SnapshotId,
        resume: Option<Cursor>,
    ) -> Result<Self, CopyError> {
        let (id, size) = (disk.info().id.clone(), disk.info().size);
        if size > DISK_BYTES_MAX {
            return Err(CopyError::TooLarge { disk: id, size });
        }
        let cursor = resume.unwrap_or_else(|| Cursor::start(size));
        cursor.check()?;
        if cursor.disk_size != size {
            return Err(DiskError::Changed { disk: id, was: cursor.disk_size, now: size }.into());
        }
        chunks.create(&snapshot)?;
        let kept = chunks.keep_before(&snapshot, cursor.offset.div_ceil(CHUNK_BYTES))?;
        if kept != cursor.chunks {
            return Err(CopyError::Lost { snapshot, disk: id, offset: cursor.offset });
        }
        Ok(Self { disk, chunks, snapshot, cursor, buffer: vec![0; CHUNK_LEN], failed: false })
    }

    /// Copies chunks until their length comes to `budget_bytes`: at least one, if there is one left.
    pub fn copy_some(&mut self, budget_bytes: u64) -> Result<CopyStep, CopyError> {
        self.guarded(|copier| {
            let mut copied_bytes = 0;
            let mut done = false;
            while !done {
                match copier.next_chunk()? {
                    Some(index) => copied_bytes += copier.copy_chunk(index)?,
                    None => copier.cursor.offset = copier.cursor.disk_size,
                }
                done = copier.is_done();
                if copied_bytes >= budget_bytes {
                    break;
                }
            }
            // Only now is it known that what was read, and what was taken for a hole, is the disk's.
            copier.disk.check_unchanged()?;
            Ok(CopyStep { copied_bytes, offset: copier.cursor.offset, done })
        })
    }

    /// Makes all that was copied durable and tells how far it goes.
    pub fn checkpoint(&mut self) -> Result<Cursor, CopyError> {
        self.guarded(|copier| {
            copier.chunks.sync(&copier.snapshot)?;
            Ok(copier.cursor.clone())
        })
    }

    /// Copies what is left, then writes the manifest: the snapshot is complete, and durable.
    pub fn finish(&mut self) -> Result<Manifest, CopyError> {
        while !self.copy_some(u64::MAX)?.done {}
        self.guarded(|copier| {
            let info = copier.disk.info();
            let manifest = Manifest::new(info.id.clone(), info.size, copier.chunks.chunks(&copier.snapshot)?);
            if manifest.content_hash != copier.cursor.link {
                let (snapshot, disk) = (copier.snapshot.clone(), info.id.clone());
                return Err(CopyError::Lost { snapshot, disk, offset: copier.cursor.offset });
            }
            copier.chunks.write_manifest(&copier.snapshot, &manifest)?;
            Ok(manifest)
        })
    }

    /// Runs one call, unless one before has failed.
    fn guarded<T>(&mut self, call: impl FnOnce(&mut Self) -> Result<T, CopyError>) -> Result<T, CopyError> {
        if self.failed {
            return Err(CopyError::Failed { disk: self.disk.info().id.clone() });
        }
        let result = call(self);
        self.failed = result.is_err();
        result
    }

    fn is_done(&self) -> bool {
        self.cursor.offset == self.cursor.disk_size
    }

    /// The index of the next chunk that may hold data.
    fn next_chunk(&self) -> Result<Option<u64>, CopyError> {
        Ok(self.disk.next_data(self.cursor.offset)?.map(|data| data.start / CHUNK_BYTES))
    }

    /// Copies one chunk and moves the cursor behind it. Returns its length.
    fn copy_chunk(&mut self, index: u64) -> Result<u64, CopyError> {
        let length = chunk_len(self.cursor.disk_size, index);
        let (start, end) = (index * CHUNK_BYTES, index * CHUNK_BYTES + length as u64);
        let bytes_read = read_chunk(&*self.disk, start, &mut self.buffer[..length])?;
        let stored = self.chunks.put(&self.snapshot, index, &self.buffer[..length])?;

        self.cursor.bytes_read += bytes_read;
        if let Some(chunk) = stored {
            self.cursor.bytes_stored += chunk.stored_bytes;
            self.cursor.chunks += 1;
            self.cursor.link = next_link(&self.cursor.link, index, &chunk.hash);
        }
        self.cursor.offset = end;
        Ok(length as u64)
    }
}

impl fmt::Debug for Copier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copier")
            .field("disk", &self.disk.info().id)
            .field("snapshot", &self.snapshot)
            .field("cursor", &self.cursor)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Fills the buffer from the disk; holes are zeros and not read. Returns how much was read.
fn read_chunk(disk: &dyn DiskRead, start: u64, buffer: &mut [u8]) -> Result<u64, DiskError> {
    let end = start + buffer.len() as u64;
    // Where a range of data begins or ends in the buffer: within it, so the conversion cannot fail.
    let place = |offset: u64, fallback: usize| usize::try_from(offset.min(end) - start).unwrap_or(fallback);
    let mut bytes_read = 0;
    buffer.fill(0);
    let mut from = start;
    while let Some(data) = disk.next_data(from)?.filter(|data| data.start < end) {
        let part = place(data.start, 0)..place(data.end, buffer.len());
        disk.read_at(data.start, &mut buffer[part.clone()])?;
        bytes_read += part.len() as u64;
        from = data.end;
    }
    Ok(bytes_read)
}
