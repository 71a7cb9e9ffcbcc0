//! [`RedbOptions`]: what a user may choose.

use longrun_folder::{FolderOptions, Verify};

/// How a [`RedbKv`](crate::RedbKv) is opened.
///
/// ```
/// use longrun_redb::{FolderOptions, RedbOptions};
///
/// let options = RedbOptions::default().cache_bytes(256 << 20);
/// // Keeps a gibibyte of the disk free.
/// let options = options.folder(FolderOptions::default().reserve_bytes(1 << 30));
/// ```
#[derive(Clone, Debug)]
pub struct RedbOptions {
    pub(crate) folder: FolderOptions,
    pub(crate) cache_bytes: usize,
    pub(crate) verify: Verify,
}

impl Default for RedbOptions {
    /// Power-loss durability, a cache of 32 MiB, full verification, and
    /// [`RESERVE_BYTES`](crate::RESERVE_BYTES), 64 MiB, of the disk kept free.
    fn default() -> Self {
        Self { folder: FolderOptions::default(), cache_bytes: 32 << 20, verify: Verify::Full }
    }
}

impl RedbOptions {
    /// What does not depend on the engine.
    #[must_use]
    pub fn folder(mut self, folder: FolderOptions) -> Self {
        self.folder = folder;
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
    ///
    /// - [`Verify::Count`]: only the header and the number of batches. An open takes milliseconds, after a crash too. A page
    ///   that was changed since it was written is not noticed: redb reads it as it is, or panics, which poisons the store.
    /// - [`Verify::Full`]: the checksum of every page that is in use. An open reads the whole file.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_keep_what_is_set_and_raise_what_is_too_small() {
        let read = |options: &RedbOptions| (options.cache_bytes, options.verify);
        assert_eq!(read(&RedbOptions::default()), (32 << 20, Verify::Full));
        let chosen = RedbOptions::default().cache_bytes(3 << 20).verify(Verify::Count);
        assert_eq!(read(&chosen.folder(FolderOptions::default())), (3 << 20, Verify::Count));
        assert_eq!(read(&RedbOptions::default().cache_bytes(0)), (1 << 20, Verify::Full));
    }
}
