//! [`RedbOptions`]: what a user may choose.

use longrun_folder::FolderOptions;
use longrun_store::Durability;

/// How a [`RedbKv`](crate::RedbKv) is opened.
///
/// ```
/// use longrun_redb::RedbOptions;
///
/// let options = RedbOptions::default().cache_bytes(256 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct RedbOptions {
    pub(crate) folder: FolderOptions,
    pub(crate) cache_bytes: usize,
    pub(crate) verify: Verify,
}

/// How much of the data is checked when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Only the header and the number of batches. An open takes milliseconds, after a crash too. A page that was changed
    /// since it was written is not noticed: redb reads it as it is, or panics, which poisons the store.
    Count,
    /// The checksum of every page that is in use. An open reads the whole file and takes time in proportion to it.
    Full,
}

impl Default for RedbOptions {
    /// Power-loss durability, a cache of 32 MiB, full verification, and 64 MiB of the disk kept free.
    fn default() -> Self {
        Self { folder: FolderOptions::default(), cache_bytes: 32 << 20, verify: Verify::Full }
    }
}

impl RedbOptions {
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

    /// How many bytes of pages redb keeps in memory, at least 1 MiB. What the kernel caches of the file comes on top and
    /// is given back when somebody needs it.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes.max(1 << 20);
        self
    }

    /// How much is checked at open and at reopen.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// As [`FolderOptions::reserve_bytes`].
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
