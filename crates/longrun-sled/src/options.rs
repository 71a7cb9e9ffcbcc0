//! [`SledOptions`]: what a user may choose.

use longrun_folder::{FolderOptions, Verify};

use crate::limits::RESERVE_BYTES;

/// How a [`SledKv`](crate::SledKv) is opened.
///
/// ```
/// use longrun_sled::{FolderOptions, SledOptions};
///
/// let options = SledOptions::default().cache_bytes(64 << 20);
/// // Keeps a gibibyte of the disk free.
/// let options = options.folder(FolderOptions::default().reserve_bytes(1 << 30));
/// ```
#[derive(Clone, Debug)]
pub struct SledOptions {
    pub(crate) folder: FolderOptions,
    pub(crate) cache_bytes: u64,
    pub(crate) checkpoint_every: u64,
    pub(crate) verify: Verify,
}

impl Default for SledOptions {
    /// Power-loss durability, a cache of 256 MiB, a checkpoint every 64 batches, full verification, and
    /// [`RESERVE_BYTES`] kept free.
    fn default() -> Self {
        Self {
            folder: FolderOptions::default(),
            cache_bytes: 256 << 20,
            checkpoint_every: 64,
            verify: Verify::Full,
        }
    }
}

impl SledOptions {
    /// What does not depend on the engine. Of sled, beyond what is said there:
    ///
    /// - [Durability](FolderOptions::durability): sled has nothing weaker than `ProcessCrash` that is also faster.
    /// - The [reserve](FolderOptions::reserve_bytes) is [`RESERVE_BYTES`] by default, and room for sled's snapshot, 1/64 of
    ///   its `db` file, comes on top.
    /// - When a [loss is accepted](FolderOptions::accept_loss), a long value of which a part is lost is removed.
    #[must_use]
    pub fn folder(mut self, folder: FolderOptions) -> Self {
        self.folder = folder;
        self
    }

    /// How many bytes of pages sled keeps in memory, at least 1 MiB. sled counts pages by their size on disk,
    /// so expect the process to use several times as much.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes.max(1 << 20);
        self
    }

    /// After how many batches the `completeness` file is written anew; at least 1. Each time costs two syncs.
    #[must_use]
    pub fn checkpoint_every(mut self, batches: u64) -> Self {
        self.checkpoint_every = batches.max(1);
        self
    }

    /// How much is checked at open and at reopen.
    ///
    /// - [`Verify::Count`]: only the number of batches: finds a log that was cut, not one with a hole.
    /// - [`Verify::Full`]: every entry is read and the sum of all is compared with the one that the last batch recorded.
    ///   Finds any entry that is missing, stale or changed. An open takes about 10 s for each million operations of 4
    ///   entries (against 4 s with `Count`), in proportion to their number; longer from a cold disk.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }
    /// How many bytes of the file system sled is not let near.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        self.folder.chosen_reserve_bytes().unwrap_or(RESERVE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_that_of_sled_unless_another_is_chosen() {
        let reserve = |folder| SledOptions::default().folder(folder).reserve_bytes();
        assert_eq!(reserve(FolderOptions::default().accept_loss(true)), RESERVE_BYTES);
        assert_eq!(reserve(FolderOptions::default().reserve_bytes(0)), 0);
    }
}
