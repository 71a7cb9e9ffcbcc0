//! [`FjallOptions`]: what a user may choose.

use longrun_folder::FolderOptions;
use longrun_store::Durability;

/// fjall does not take less.
const JOURNAL_BYTES_MIN: u64 = 64 << 20;

/// How a [`FjallKv`](crate::FjallKv) is opened.
///
/// ```
/// use longrun_fjall::FjallOptions;
///
/// let options = FjallOptions::default().cache_bytes(256 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct FjallOptions {
    pub(crate) folder: FolderOptions,
    pub(crate) cache_bytes: u64,
    pub(crate) memtable_bytes: u64,
    pub(crate) journal_bytes: u64,
}

impl Default for FjallOptions {
    /// Power-loss durability, a cache of 32 MiB, 8 MiB of unflushed writes for each table, journals of 128 MiB, and 64 MiB
    /// of the disk kept free.
    fn default() -> Self {
        Self {
            folder: FolderOptions::default(),
            cache_bytes: 32 << 20,
            memtable_bytes: 8 << 20,
            journal_bytes: 128 << 20,
        }
    }
}

impl FjallOptions {
    /// The defaults, with `folder` for what does not depend on the engine.
    pub fn in_folder(folder: FolderOptions) -> Self {
        Self { folder, ..Self::default() }
    }

    /// What an acknowledged batch survives. [`Durability::Volatile`] is taken as [`Durability::ProcessCrash`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.folder = self.folder.durability(durability);
        self
    }

    /// How many bytes of blocks fjall keeps in memory, at least 1 MiB. What the kernel caches of the files comes on top and
    /// is given back when somebody needs it.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes.max(1 << 20);
        self
    }

    /// How many bytes of writes each table gathers in memory before they go to a file of its own, at least 1 MiB. Up to
    /// four times as much waits to be written. Fixed when the database is made.
    #[must_use]
    pub fn memtable_bytes(mut self, bytes: u64) -> Self {
        self.memtable_bytes = bytes.max(1 << 20);
        self
    }

    /// How many bytes of journals there may be before what holds the oldest is written to its tables, at least 64 MiB.
    /// An open after a crash reads them all.
    #[must_use]
    pub fn journal_bytes(mut self, bytes: u64) -> Self {
        self.journal_bytes = bytes.max(JOURNAL_BYTES_MIN);
        self
    }

    /// As [`FolderOptions::reserve_bytes`]. Compactions run apart from commits and may want as much as the tables they
    /// merge: give a large database a large reserve.
    #[must_use]
    pub fn reserve_bytes(mut self, bytes: u64) -> Self {
        self.folder = self.folder.reserve_bytes(bytes);
        self
    }

    /// As [`FolderOptions::accept_loss`].
    #[must_use]
    pub fn accept_loss(mut self, accept: bool) -> Self {
        self.folder = self.folder.accept_loss(accept);
        self
    }
}
