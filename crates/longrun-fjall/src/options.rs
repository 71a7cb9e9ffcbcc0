//! [`FjallOptions`]: what a user may choose.

use longrun_folder::FolderOptions;

/// fjall does not take less.
const JOURNAL_BYTES_MIN: u64 = 64 << 20;

/// How a [`FjallKv`](crate::FjallKv) is opened.
///
/// ```
/// use longrun_fjall::{FjallOptions, FolderOptions};
///
/// let options = FjallOptions::default().cache_bytes(256 << 20);
/// // Keeps a gibibyte of the disk free.
/// let options = options.folder(FolderOptions::default().reserve_bytes(1 << 30));
/// ```
#[derive(Clone, Debug)]
pub struct FjallOptions {
    pub(crate) folder: FolderOptions,
    pub(crate) cache_bytes: u64,
    pub(crate) memtable_bytes: u64,
    pub(crate) journal_bytes: u64,
}

impl Default for FjallOptions {
    /// Power-loss durability, a cache of 32 MiB, 8 MiB of unflushed writes for each table, journals of 128 MiB, and
    /// [`RESERVE_BYTES`](crate::RESERVE_BYTES), 64 MiB, of the disk kept free.
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
    /// What does not depend on the engine. Compactions run apart from commits and may want as much room as the tables they
    /// merge: give a large database a large [reserve](FolderOptions::reserve_bytes).
    #[must_use]
    pub fn folder(mut self, folder: FolderOptions) -> Self {
        self.folder = folder;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_keep_what_is_set_and_raise_what_is_too_small() {
        let read =
            |options: &FjallOptions| (options.cache_bytes, options.memtable_bytes, options.journal_bytes);
        assert_eq!(read(&FjallOptions::default()), (32 << 20, 8 << 20, 128 << 20));
        let chosen =
            FjallOptions::default().cache_bytes(3 << 20).memtable_bytes(2 << 20).journal_bytes(99 << 20);
        assert_eq!(read(&chosen.folder(FolderOptions::default())), (3 << 20, 2 << 20, 99 << 20));
        let least = FjallOptions::default().journal_bytes(0).memtable_bytes(0).cache_bytes(0);
        assert_eq!(read(&least), (1 << 20, 1 << 20, 64 << 20));
    }
}
