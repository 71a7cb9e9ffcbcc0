//! TODO

mod copy;
mod digest;
mod disk;
mod error;
mod files;
mod folder;
mod frame;
mod geometry;
mod id;
mod manifest;
mod name;
mod parallel;
mod rate;
mod read_back;
#[cfg(test)]
mod simulation;
mod store;

pub use copy::{BATCH_BYTES_MAX, Batch, CopyError, CopyReader, CopyWriter, Cursor, DISK_BYTES_MAX};
pub use digest::Digest;
pub use disk::{Disk, DiskError, DiskFolder, DiskInfo, DiskRead, DiskSource};
pub use error::{ChunkError, Subject};
pub use folder::ChunkFolder;
pub use geometry::CHUNK_BYTES;
pub use id::{BadId, DiskId, ID_CHARS_MAX, SnapshotId};
pub use manifest::{ManifestEntry, ManifestHeader, ManifestReader, Summary};
pub use name::{BadName, ChunkName, Incarnation, NAME_CHARS_MAX, RunName};
pub use rate::RateLimit;
pub use read_back::{
    DAMAGED_PLACES_MAX, DamagedPlace, Inspection, ReadBackError, Verdict, Verified, inspect, restore, verify,
    verify_all, verify_fresh,
};
pub use store::{BoxError, ByteStream, ChunkStore, Draft, IsLive, SweepError, Swept};
