//! The sled store of the longrun engine, with repairs.
//!
//! sled 0.34.7 is small and pure Rust, and it does not keep what it promises: its `flush` hands the log to the
//! disk without a sync, and it opens a damaged database with what is left, in silence. [`SledKv`] is a
//! [`Kv`](longrun_store::Kv) on top of it that does keep the promises of that trait.
//!
//! ```
//! use longrun_sled::{SledKv, SledOptions};
//! use longrun_store::{Batch, Kv, Table};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let kv = SledKv::open(folder.path().join("operations"), SledOptions::default())?;
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
//! | the power fails, the kernel crashes | kept, but for the residue below | batches since the last checkpoint may be lost, in silence |
//! | the medium forgets what it said it had synced | refused at open, but for the residue below | refused at open, if a checkpoint is affected |
//!
//! # What is repaired
//!
//! - **Sync.** A commit is one sled transaction, one `flush`, and one `fdatasync` through our own descriptor of
//!   sled's `db` file. Before the first read, open syncs that file, `conf`, the folders and the folder above,
//!   which also makes the name of sled's new snapshot durable; sled makes snapshots at open only.
//! - **Blobs.** sled writes large pages to files of their own, unsynced, and passes over a missing one at
//!   recovery: half a batch would be left, and a sync afterwards comes too late to prevent it. A page holds up
//!   to 20 entries however large they are, so at sled's usual segment of 512 KiB a value of 6 KiB is too much.
//!   We use segments of 8 MiB, refuse keys that could make a page too large ([`KEY_BYTES_MAX`]), and store a
//!   value above 48 KiB in parts, in a tree of their own: nothing ever goes to `blobs`. The price is space: each
//!   reopen rewrites the tail of one segment, and a database that is written for long does not get smaller than
//!   some ten segments.
//! - **Completeness.** Each batch carries a record of how many batches and which entries there are; copies of it
//!   lie outside of sled. Open compares them and, with [`Verify::Full`], reads every entry. A log that was
//!   cut, has a hole, or is of another time, is an error: [`OpenError::Truncated`] or [`OpenError::Corrupt`].
//! - **Unfinished creation.** A crash while sled makes its first files leaves some that sled does not open. A mark is
//!   put into the folder first, and taken away when all is on the medium: as long as it is there, what sled left
//!   is cleared and made anew.
//! - **Unfinished snapshots.** A kill during open leaves a file that fails each later open. It is removed first.
//! - **Errors.** After any error of a write or a sync nothing is read from memory that may not be on the medium:
//!   every call answers [`KvError::Unknown`](longrun_store::KvError::Unknown) until `reopen`, which closes sled,
//!   drops the kernel's cache of the file (after a failed sync it shows what the medium does not have) and runs
//!   the whole open path. A full disk heals this way. A `reopen` that fails may be tried again.
//! - **Full disks.** sled seldom gets that far: a commit is refused before sled sees it while the file system has
//!   less than a reserve free ([`FolderOptions::reserve_bytes`]). That poisons nothing and heals by itself.
//! - **Half batches.** If sled fails in the midst of applying a batch without knowing it, closing it would write
//!   the half. It is leaked instead, and the process cannot reopen it: [`OpenError::ProcessTainted`].
//! - **Panics** of sled, in its `Drop` too, end at our border. Not with `panic = "abort"`.
//! - **A lost wake-up.** If the write of a batch's manifest is the last to fail, sled waits for ever. A watchdog
//!   thread wakes it after half a second. `flush_async`, which can deadlock, is never called, and sled's own
//!   flusher thread is off.
//! - **Two handles.** Our lock file is taken before anything else and kept through every reopen. sled locks its `db`
//!   file too, but only after it has created and read other files, and it lets go at each close.
//!
//! # What is left
//!
//! - sled may reuse a segment when it believes its successor to be on the medium, and it believes
//!   `sync_file_range`. A segment becomes free only after a later segment's header is written, so a power
//!   failure has to meet the first batch that crosses into a reused segment. It is found at open, not healed.
//! - After a power failure the record's copies may be up to `checkpoint_every` batches old, so a medium that also
//!   lied about its syncs can drop that many batches unseen. `completeness.tail`, written without a sync,
//!   covers every other cause.
//! - How much sled writes for a batch has no hard bound: each write may make it write a whole leaf anew, and clean
//!   a segment. The reserve covers what was measured, with room; others may use the disk up between the look
//!   and the write. Then sled meets the full disk, and `reopen` is needed.
//! - sled repairs its log before we can compare: when open reports damage, sled has cut already. Keep a copy of
//!   the folder before trying anything.
//! - If a thread of sled's pool panics while it writes, sled waits for ever and the watchdog cannot tell. A read
//!   that fails with an error of the system poisons the store, since reads of sled can write too.
//! - Folders above the folder's parent are not synced when `open` creates them. Locks mean little on NFS.
//! - With `Verify::Full` open takes time in proportion to the data. sled's memory use exceeds its cache limit.

mod completeness;
mod creation;
mod error;
mod kv;
mod limits;
mod open;
mod options;
mod value;
mod watchdog;

pub use error::DamagedValue;
pub use kv::{SledKv, SledStats};
pub use limits::{BATCH_BYTES_MAX, KEY_BYTES_MAX, RESERVE_BYTES, VALUE_BYTES_MAX};
pub use longrun_folder::{
    BatchTooLarge, DiskFull, EnginePanicked, FolderOptions, OpenError, Poisoned, Verify,
};
pub use options::SledOptions;
