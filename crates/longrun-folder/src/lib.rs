//! What stores in a folder of their own have in common.
//!
//! An embedded engine that keeps its promises, such as fjall or redb, still leaves work for whoever puts it under
//! [`Kv`](longrun_store::Kv). [`FolderKv`] does that work once, and asks little of an [`Engine`]: to be created, opened
//! and closed, to read, and to commit a batch.
//!
//! - **One handle.** The lock file is taken before anything is touched and kept through every reopen.
//! - **Creation is atomic.** A new database is made beside its place and renamed into it when it is complete and on the
//!   medium, so a kill in the midst leaves nothing that an engine would stumble over, or take for whole.
//! - **Losses are seen.** Each batch carries a record: how many batches there were. A copy of it is overwritten in
//!   `longrun.tail` after every batch, without a sync, and with one at open and at close. A database that holds fewer
//!   batches than its tail tells is refused: [`OpenError::Truncated`]. The tail is written after the batch it names is
//!   durable, so it never accuses a sound database; after a loss of power it may be old, and then it says nothing.
//! - **What is read is durable.** Open syncs every file: a process may have died between its write and its sync.
//! - **Errors poison.** After a commit of unknown outcome, and after a reading that failed for another reason than
//!   damage, every call answers [`KvError::Unknown`](longrun_store::KvError::Unknown) until `reopen`, which closes the
//!   engine, drops the kernel's cache of its files (after a failed sync it shows what the medium does not have) and runs
//!   the whole open path. A `reopen` that fails may be tried again.
//! - **Full disks.** A commit is refused before the engine sees it while the file system has less than a reserve free
//!   ([`FolderOptions::reserve_bytes`]). That poisons nothing, reads go on, and it heals by itself.
//! - **Panics** of the engine end here, in its `Drop` too. Not with `panic = "abort"`.
//!
//! An engine that takes more repairs than that, as sled does, has a [`Kv`](longrun_store::Kv) of its own, made with the
//! same parts: [`create_folder`], [`FolderLock`], [`contain`], [`check_space`], [`Limits`], [`Frame`], [`Tail`],
//! [`drop_page_cache`], and one [`OpenError`] for all.
//!
//! # What is left
//!
//! - A folder that was replaced as a whole by an older copy of it is taken for what it is: an older state.
//! - After a loss of power the tail may be old, so a medium that also lied about its syncs can drop batches unseen,
//!   unless the engine notices.
//! - Others may use the disk up between the look at the free space and the write. Quotas are not seen.
//! - Folders above the folder's parent are not synced when open creates them. Locks mean little on NFS.

mod engine;
mod error;
mod files;
mod kv;
mod limits;
mod options;
mod record;
#[cfg(feature = "testing")]
pub mod rules;

pub use engine::{Engine, Tables};
pub use error::{BatchTooLarge, DiskFull, EnginePanicked, OpenError, Poisoned, contain};
pub use files::{FolderLock, check_space, create_folder, drop_page_cache};
pub use kv::{FolderKv, FolderStats};
pub use limits::{BATCH_BYTES_MAX, KEY_BYTES_MAX, Limits, VALUE_BYTES_MAX};
pub use options::{FolderOptions, RESERVE_BYTES, Verify};
pub use record::{DecodeError, Frame, Tail};
