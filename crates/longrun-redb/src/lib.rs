//! redb

mod engine;
mod options;
mod unsynced;

pub use engine::Redb;
pub use longrun_folder::{
    BATCH_BYTES_MAX, BatchTooLarge, DiskFull, EnginePanicked, FolderOptions, FolderStats, KEY_BYTES_MAX,
    OpenError, Poisoned, VALUE_BYTES_MAX,
};
pub use options::{RedbOptions, Verify};

/// A [`Kv`](longrun_store::Kv) on redb. See the [crate] for what it survives.
pub type RedbKv = longrun_folder::FolderKv<Redb>;
