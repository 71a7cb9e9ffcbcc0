//! The data plane: what moves the bytes of a disk into a snapshot and back.
//!
//! Blocking code that knows nothing of operations; run it on a blocking pool.
//!
//! ```text
//! DiskSource --open--> DiskRead --Copier--> ChunkFolder --verify, restore--> raw file
//! ```
//!
//! [`DiskFolder`] reads raw image files, [`ChunkFolder`] keeps the chunks of each snapshot. A [`Copier`] carries
//! one into the other in bounded pieces; the [`Cursor`] it gives at a checkpoint is all that a later
//! process needs to go on. [`verify`] and [`restore`] read a finished snapshot.
//!
//! An error says what failed on what; the cause beneath it is in [`source`](std::error::Error::source).

mod chunk;
mod copy;
mod digest;
mod disk;
mod files;
mod frame;
mod id;
mod manifest;
mod rate;
mod read_back;

pub use chunk::{ChunkError, ChunkFolder, StoredChunk};
pub use copy::{Copier, CopyError, CopyStep, Cursor, DISK_BYTES_MAX};
pub use digest::Digest;
pub use disk::{Disk, DiskError, DiskFolder, DiskInfo, DiskRead, DiskSource};
pub use id::{BadId, DiskId, ID_CHARS_MAX, SnapshotId};
pub use manifest::{CHUNK_BYTES, Manifest, ManifestChunk};
pub use rate::RateLimit;
pub use read_back::{ReadBackError, Verified, restore, verify};
