//! The fjall store of the longrun engine: the one for many operations a second.
//!
//! fjall 3 is a log-structured database in pure Rust: a commit is one write and one sync of a journal, and what is in the
//! journal goes to sorted tables in the background. [`FjallKv`] is a [`Kv`](longrun_store::Kv) on top of it, with a
//! keyspace for each table.
//!
//! ```
//! use longrun_fjall::{FjallKv, FjallOptions};
//! use longrun_store::{Batch, Kv, Table};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let kv = FjallKv::open(folder.path().join("operations"), FjallOptions::default())?;
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
//! | the power fails, the kernel crashes | kept | the newest batches may be lost, in silence |
//! | a file is damaged, cut or gone | refused at open, or an error at the reading, but for what is left below | the same |
//!
//! # What it costs
//!
//! - A commit: one `write` and one `fdatasync` of the journal, one `write` of the tail without a sync, and one `statvfs`.
//! - An open: the journals are read ([`FjallOptions::journal_bytes`]), every file is synced, the list of files of each
//!   table is checked. Tables are not read: their blocks carry checksums, which each reading checks.
//! - Memory: the cache, and for each table that is written to up to [`FjallOptions::memtable_bytes`], in a burst several
//!   times as much.
//! - Disk: the journals, and what was overwritten and is not yet compacted.
//!
//! # What is added to fjall
//!
//! What every store in a folder gets ([`longrun_folder`]): one handle, creation by rename, a count of the batches, poison
//! and reopen, a reserve on the disk, an end for panics. And:
//!
//! - **Readings see whole batches**: each is made through a snapshot. A keyspace alone shows the writes of a batch one by
//!   one.
//! - **The later write of a key wins.** Within a batch fjall gives all writes one number and leaves it open.
//! - **Empty keys.** fjall panics on one; they are stored with a zero in front, as are those that begin with a zero.
//! - **Damage is not healed in silence.** fjall cuts a journal at an entry that it cannot read and goes on with the next
//!   journal; deletes a table without a `current` file, and all of them without that of its table of tables; takes the
//!   list of a table's files without looking at its checksum, and deletes the files that are not in it; makes an empty
//!   table for one that is missing, and a new journal for those that are. All of that is looked for, as far as possible
//!   before fjall touches anything.
//! - **A kill in the first open** leaves a journal that fails every later one. Creation by rename makes that harmless.
//!
//! # What is left
//!
//! - After damage of a journal fjall has cut it before we can tell. Keep a copy of the folder before trying anything.
//! - If the power fails, the count beside the database may be old. A damaged end of the newest journal then looks like the
//!   batch that was being written. The oldest journal of several can be removed unseen.
//! - The size of what works in the background has no bound that we can name: a compaction on a disk that is nearly full may
//!   meet its end in spite of the reserve. Then the store is poisoned, and `reopen` is needed.
//! - If a background thread dies while a commit is held back because four memtables of a table wait to be written, fjall
//!   holds it back for ever. Commits that come later are refused.
//! - Its locks mean little on NFS.

mod engine;
mod inspect;
mod options;

pub use engine::Fjall;
pub use longrun_folder::{
    BATCH_BYTES_MAX, BatchTooLarge, DiskFull, EnginePanicked, FolderOptions, FolderStats, KEY_BYTES_MAX,
    OpenError, Poisoned, RESERVE_BYTES, VALUE_BYTES_MAX,
};
pub use options::FjallOptions;

/// A [`Kv`](longrun_store::Kv) on fjall. See the [crate] for what it survives.
pub type FjallKv = longrun_folder::FolderKv<Fjall>;
