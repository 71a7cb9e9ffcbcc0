//! The reading half of a copy.

use std::{
    collections::BTreeSet,
    fmt, mem,
    sync::{Arc, Mutex, PoisonError},
};

use super::{CopyError, Cursor, DISK_BYTES_MAX};
use crate::data::{
    CHUNK_BYTES, Digest, DiskError, DiskInfo, DiskRead,
    geometry::{Geometry, is_zero},
};

/// The most bytes in the chunks of one [`Batch`].
pub const BATCH_BYTES_MAX: u64 = 16 << 20;

/// How many buffers are kept for the next chunks: those of three batches.
const BUFFERS_MAX: usize = 12;

const _: () = assert!(BUFFERS_MAX as u64 * CHUNK_BYTES == 3 * BATCH_BYTES_MAX);

/// Reads a disk, batch by batch. After an error it may be asked again, and reads the same batch.
pub struct CopyReader {
    disk: Box<dyn DiskRead>,
    geometry: Geometry,
    offset: u64,
    buffers: Arc<Buffers>,
}

/// Some chunks of a disk that follow each other, without those that are all zeros.
///
/// It may have no chunk at all and only say how far the zeros go. Before it is stored it is
/// [hashed](super::BatchHasher::hash).
pub struct Batch {
    pub(super) geometry: Geometry,
    pub(super) start: u64,
    pub(super) offset: u64,
    pub(super) bytes_read: u64,
    pub(super) chunks: Vec<BatchChunk>,
    buffers: Arc<Buffers>,
}

pub(super) struct BatchChunk {
    pub(super) index: u64,
    pub(super) plain: Vec<u8>,
}

/// A [`Batch`] whose chunks are known by their digests.
#[derive(Debug)]
pub struct HashedBatch {
    pub(super) batch: Batch,
    /// Those of its chunks, in their order.
    pub(super) chunk_digests: Vec<Digest>,
}

impl CopyReader {
    /// Reads a disk from its beginning, or from a cursor on: then it must be the same disk, of the same size.
    pub fn open(disk: Box<dyn DiskRead>, resume: Option<&Cursor>) -> Result<Self, CopyError> {
        Self::with_chunk_bytes(disk, resume, CHUNK_BYTES)
    }

    /// With chunks of another length.
    pub(in crate::data) fn with_chunk_bytes(
        disk: Box<dyn DiskRead>,
        resume: Option<&Cursor>,
        chunk_bytes: u64,
    ) -> Result<Self, CopyError> {
        let info = disk.info();
        if info.size > DISK_BYTES_MAX {
            return Err(CopyError::TooLarge { disk: info.id.clone(), size: info.size });
        }
        let geometry = Geometry { disk_size: info.size, chunk_bytes };
        let offset = match resume {
            Some(cursor) if cursor.check(info)? != geometry => {
                return Err(CopyError::BadCursor { offset: cursor.offset, disk_size: cursor.disk_size });
            }
            Some(cursor) => cursor.offset,
            None => 0,
        };
        Ok(Self { disk, geometry, offset, buffers: Arc::default() })
    }

    /// What is known of the disk.
    pub fn info(&self) -> &DiskInfo {
        self.disk.info()
    }

    /// Everything before this offset was read.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads on until it has looked at so many bytes of chunks, at least one chunk and at most
    /// [`BATCH_BYTES_MAX`]. Holes are not read and do not count. `None`: all was read.
    ///
    /// When it returns without an error the disk is still what it was when it was opened.
    pub fn next_batch(&mut self, budget_bytes: u64) -> Result<Option<Batch>, CopyError> {
        let mut batch = Batch {
            geometry: self.geometry,
            start: self.offset,
            offset: self.offset,
            bytes_read: 0,
            chunks: Vec::new(),
            buffers: Arc::clone(&self.buffers),
        };
        let most = budget_bytes.clamp(1, BATCH_BYTES_MAX);
        self.announce(2 * most.max(self.geometry.chunk_bytes))?;
        let mut looked_at = 0;
        while batch.offset < self.geometry.disk_size && looked_at < most {
            match self.disk.next_data(batch.offset)? {
                Some(data) => {
                    looked_at += self.read_chunk(data.start / self.geometry.chunk_bytes, &mut batch)?;
                }
                None => batch.offset = self.geometry.disk_size,
            }
        }
        // Only now is it known that what was read, and what was taken for a hole, is the disk's.
        self.disk.check_unchanged()?;
        self.offset = batch.offset;
        Ok((batch.offset > batch.start).then_some(batch))
    }

    /// Says which so many bytes of data will be read: this batch, of which most is there by now, and the one after it. So the disk
    /// is busy while nobody reads, however long others take to hash and store.
    fn announce(&self, bytes: u64) -> Result<(), DiskError> {
        let (mut at, mut left) = (self.offset, bytes);
        while left > 0
            && let Some(data) = self.disk.next_data(at)?
        {
            let end = data.end.min(data.start.saturating_add(left));
            self.disk.will_read(data.start..end);
            (at, left) = (end, left.saturating_sub(end.saturating_sub(data.start)));
        }
        Ok(())
    }

    /// Adds one chunk to a batch, unless it is all zeros. Returns its length.
    fn read_chunk(&self, index: u64, batch: &mut Batch) -> Result<u64, DiskError> {
        let start = self.geometry.offset(index);
        let mut plain = self.buffers.take(self.geometry.chunk_len(index));
        let read = read_sparse(&*self.disk, start, &mut plain);
        let length = plain.len() as u64;
        match read {
            Ok(bytes_read) => batch.bytes_read += bytes_read,
            Err(error) => {
                self.buffers.give(plain);
                return Err(error);
            }
        }
        if is_zero(&plain) {
            self.buffers.give(plain);
        } else {
            batch.chunks.push(BatchChunk { index, plain });
        }
        batch.offset = start + length;
        Ok(length)
    }
}

impl fmt::Debug for CopyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyReader")
            .field("disk", self.disk.info())
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl Batch {
    /// Everything on the disk before this offset is read, in this batch or before.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes read from the disk for it.
    pub const fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The length of its chunks.
    pub fn chunk_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.plain.len() as u64).sum()
    }
}

impl HashedBatch {
    /// Bytes read from the disk for it.
    pub const fn bytes_read(&self) -> u64 {
        self.batch.bytes_read()
    }

    /// The length of its chunks.
    pub fn chunk_bytes(&self) -> u64 {
        self.batch.chunk_bytes()
    }

    /// The digests of its chunks, each once: what references are to be taken for before it is stored.
    pub fn digests(&self) -> BTreeSet<Digest> {
        self.chunk_digests.iter().copied().collect()
    }

    /// Its chunks, each with its digest.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (Digest, &BatchChunk)> {
        self.chunk_digests.iter().copied().zip(&self.batch.chunks)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for chunk in mem::take(&mut self.chunks) {
            self.buffers.give(chunk.plain);
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("start", &self.start)
            .field("offset", &self.offset)
            .field("bytes_read", &self.bytes_read)
            .field("chunks", &self.chunks.len())
            .finish_non_exhaustive()
    }
}

/// Buffers that were used before.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// A buffer of this length with anything in it.
    fn take(&self, length: usize) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = kept.unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }

    fn give(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < BUFFERS_MAX {
            kept.push(buffer);
        }
    }
}

/// Fills the buffer from the disk; holes are zeros and not read. Returns how much was read.
fn read_sparse(disk: &dyn DiskRead, start: u64, buffer: &mut [u8]) -> Result<u64, DiskError> {
    let end = start + buffer.len() as u64;
    let mut bytes_read = 0;
    // What is left of the buffer, and where on the disk it begins.
    let (mut rest, mut at) = (buffer, start);
    while let Some(data) = disk.next_data(at)?.filter(|data| data.start < end) {
        let (hole, from_data) = split(rest, data.start.saturating_sub(at));
        hole.fill(0);
        let (part, behind) = split(from_data, data.end.min(end).saturating_sub(data.start));
        disk.read_at(data.start, part)?;
        bytes_read += part.len() as u64;
        (rest, at) = (behind, data.end);
    }
    rest.fill(0);
    Ok(bytes_read)
}

/// Splits a buffer; in one that is shorter the second part is empty.
fn split(buffer: &mut [u8], at: u64) -> (&mut [u8], &mut [u8]) {
    let at = usize::try_from(at).unwrap_or(usize::MAX).min(buffer.len());
    buffer.split_at_mut(at)
}
