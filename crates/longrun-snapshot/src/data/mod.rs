//! The data plane: what moves the bytes of a disk into a snapshot and back.
//!
//! Blocking code that knows nothing of operations; run it on a blocking pool.
//!
//! ```text
//! DiskSource --open--> DiskRead --CopyReader--> Batch --CopyWriter--> ChunkStore --verify, restore--> raw file
//! ```
//!
//! [`DiskFolder`] reads raw image files, [`ChunkFolder`] keeps the chunks. A [`CopyReader`] and a [`CopyWriter`] carry one into
//! the other batch by batch; the [`Cursor`] that each batch gives is all that a later process needs to go on.
//! [`verify`], [`restore`] and [`inspect`] read a finished snapshot.
//!
//! An error says what failed on what, by name: its text can be shown to users. The cause beneath it is in
//! [`source`](std::error::Error::source), and the path on the server only in its `Debug` form.
//!
//! # What lies where
//!
//! ```text
//! <root>/chunks/<first 2 hex digits>/<digest>-<incarnation>   a chunk, framed and compressed
//! <root>/manifests/<snapshot id>                              which chunks make up a complete snapshot
//! <root>/drafts/<snapshot id>/<run>                           the same, as far as a run has come
//! <root>/owner                                                whose all this is
//! ```
//!
//! Chunks are named by their content, so that a chunk that occurs again, in the same snapshot or another, is there already. All
//! snapshots share one folder, and so may all nodes that have their references in one store: it is the [owner](Owner) of the
//! folder, and [claims](ChunkStore::claim) it before anything else.
//!
//! # The life of a chunk
//!
//! Who holds which chunk is known to the caller, who keeps it where commits are atomic and durable. A digest has a record there
//! from its first holder to its last, and the record has an [`Incarnation`]: a text that is never used again.
//!
//! * **Create**: for each batch the caller *first* takes references to its digests, durably. This tells the incarnations, and
//!   [`CopyWriter::store`] then looks whether `<digest>-<incarnation>` is there, and writes it if not.
//! * **Delete, roll back**: the caller first drops the references, durably, and learns which names have no holder left. It
//!   [removes](ChunkStore::remove) these files, and then forgets the names.
//!
//! References come first because a file cannot be created or removed in one commit with a row. So there are times when one is
//! there and the other is not, and this order leaves only the harmless ones: a reference without its file, which is written
//! before a manifest names it, and a file without a reference, which is rubbish. The incarnation keeps them harmless. Without
//! it a digest might be dropped by its last holder and taken again by another before the file was removed, and the
//! removal would hit a chunk that is in use. With it the new holder has another file, a removal may come
//! as late as it likes, and a file whose incarnation is not the one on record is rubbish for ever: whoever sees it may remove it.
//!
//! # What a crash leaves
//!
//! | crash after | what is there | who cleans |
//! |---|---|---|
//! | a claim in part | a temporary file, perhaps with the mark beside it | [`sweep`](ChunkStore::sweep) |
//! | references taken | references without files | the rollback drops them; going on writes the files |
//! | a chunk in part | a temporary file | [`sweep`](ChunkStore::sweep) |
//! | a chunk written, its name not synced | the file or not; no draft names it | going on finds it, or writes it again |
//! | chunks synced, the draft not | files that no draft names, but held | going on finds them; the rollback removes them |
//! | the draft synced, the cursor not saved | a draft that is longer than the saved cursor says | going on takes the part that the cursor promises |
//! | the run, going on in another | drafts of two runs | [`finish`](CopyWriter::finish), or the rollback's [`discard`](ChunkStore::discard) |
//! | the draft made the manifest | a manifest, perhaps with drafts beside it | going on takes the manifest for the draft, and finishes again |
//! | references dropped | files without references, whose names the caller keeps | the removal goes on with these names |
//! | some files removed | the rest of them | the removal goes on; those that are gone are no error |
//! | files removed, names not forgotten | names without files | the same |
//! | `discard` in part | a manifest without drafts, or drafts under a name that nobody looks for | `discard` again |
//!
//! A run that was taken for dead may do any of this later. It cannot take references, so it writes only files that are held
//! by its snapshot (which is right) or are of dead incarnations (`sweep`), drafts of its own (`finish`, `discard`), and perhaps
//! a draft of a snapshot that is gone, or complete: the caller [finds](ChunkStore::snapshots) and
//! [discards](ChunkStore::discard_drafts) those.

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
mod text;

pub use copy::{
    BATCH_BYTES_MAX, Batch, BatchHasher, CopyError, CopyReader, CopyWriter, Cursor, DISK_BYTES_MAX,
    HashedBatch,
};
pub use digest::Digest;
pub use disk::{Disk, DiskError, DiskFolder, DiskInfo, DiskRead, DiskSource};
pub use error::{ChunkError, Subject};
pub use folder::ChunkFolder;
pub use geometry::CHUNK_BYTES;
pub use id::{BadId, DiskId, ID_CHARS_MAX, SnapshotId};
pub use manifest::{DigestPart, ManifestEntry, ManifestHeader, ManifestReader, Summary};
pub use name::{BadName, ChunkName, Incarnation, NAME_CHARS_MAX, Owner, RunName};
pub use rate::RateLimit;
pub use read_back::{
    DAMAGED_PLACES_MAX, DamagedPlace, Inspection, ReadBackError, Verdict, Verified, find_damage, inspect,
    restore, verify, verify_all, verify_fresh,
};
pub use store::{BoxError, ByteStream, ChunkStore, Draft, IsLive, SweepError, Swept};
