//! fjall

mod engine;
mod inspect;
mod options;

pub use engine::Fjall;
pub use longrun_folder::{
    BATCH_BYTES_MAX, BatchTooLarge, DiskFull, EnginePanicked, FolderOptions, FolderStats, KEY_BYTES_MAX,
    OpenError, Poisoned, VALUE_BYTES_MAX,
};
pub use options::FjallOptions;

/// A [`Kv`](longrun_store::Kv) on fjall. See the [crate] for what it survives.
pub type FjallKv = longrun_folder::FolderKv<Fjall>;
