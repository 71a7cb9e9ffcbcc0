//! The redb store of the longrun engine: the conservative one, a single file with bounded memory and size.
//!
//! redb 4 is a copy-on-write B-tree in pure Rust, without background threads. [`RedbKv`] is a [`Kv`](longrun_store::Kv) on
//! top of it, with a table for each [`Table`](longrun_store::Table) and one transaction for each batch.
//!
//! ```
//! use longrun_redb::{RedbKv, RedbOptions};
//! use longrun_store::{Batch, Kv, Table};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let kv = RedbKv::open(folder.path().join("operations"), RedbOptions::default())?;
//! let mut batch = Batch::default();
//! batch.put(Table::Operations, b"key".to_vec(), b"value".to_vec());
//! kv.commit(&batch)?;
//! assert_eq!(kv.get(Table::Operations, b"key")?, Some(b"value".to_vec()));
//! # Ok(())
//! # }
//! ```
//!
//! # What survives what
//!
//! | after `commit` returned `Ok` | `Durability::PowerLoss` (default) | `Durability::ProcessCrash` |
//! |---|---|---|
//! | the process dies | kept | kept |
//! | the power fails, the kernel crashes | kept | anything may be lost: refused at open, if redb can tell |
//! | the file is damaged, cut or gone | refused at open, with [`Verify::Full`] | the same |
//!
//! # What it costs
//!
//! - A commit: the pages that it changes, and two `fdatasync`: with quick repair redb commits in two phases, which is what
//!   spares it the walk over the whole file after a crash. One `write` of the tail without a sync, and one `statvfs`.
//! - An open: with [`Verify::Full`], the default, the whole file is read, whether it was closed or not, which is seconds
//!   for a gigabyte; with [`Verify::Count`] milliseconds.
//! - Memory: the cache.
//! - Disk: the file grows as its content does; it reuses the space of what was removed, and does not give it back.
//!
//! # What is added to redb
//!
//! What every store in a folder gets ([`longrun_folder`]): one handle, creation by rename, a count of the batches, poison
//! and reopen, a reserve on the disk, an end for panics. And:
//!
//! - **Losses of the newest batch are seen.** If the newest of redb's two headers is damaged, it goes back to the one before;
//!   the count tells.
//! - **Pages are checked at open**, unless [`Verify::Count`] is chosen. redb itself trusts a file that was closed, and one
//!   that was quickly repaired.
//! - **A missing table** is damage. redb would make it anew with the first write.
//! - **`Durability::ProcessCrash`** writes to the kernel without a sync. redb's own `Durability::None` keeps a commit in
//!   the memory of the process.
//!
//! # What is left
//!
//! - Pages that are damaged after open are read as they are, or make redb panic, which poisons the store; the reopen then
//!   finds the damage. Records carry checksums of their own, keys do not.
//! - If the power fails, the count beside the database may be old.
//! - A commit on a disk that others fill up between the look and the write needs a `reopen`; with [`Verify::Full`] that
//!   writes too, so it succeeds only when there is room.
//! - Its locks mean little on NFS.

mod engine;
mod options;
mod unsynced;

pub use engine::Redb;
pub use longrun_folder::{
    BATCH_BYTES_MAX, BatchTooLarge, DiskFull, EnginePanicked, FolderOptions, FolderStats, KEY_BYTES_MAX,
    OpenError, Poisoned, RESERVE_BYTES, VALUE_BYTES_MAX, Verify,
};
pub use options::RedbOptions;

/// A [`Kv`](longrun_store::Kv) on redb. See the [crate] for what it survives.
pub type RedbKv = longrun_folder::FolderKv<Redb>;
