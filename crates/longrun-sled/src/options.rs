//! [`SledOptions`]: what a user may choose.

use longrun_store::Durability;

use crate::limits::RESERVE_BYTES;

/// How a [`SledKv`](crate::SledKv) is opened.
///
/// ```
/// use longrun_sled::SledOptions;
///
/// let options = SledOptions::default().cache_bytes(64 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct SledOptions {
    pub(crate) durability: Durability,
    pub(crate) cache_bytes: u64,
    pub(crate) checkpoint_every: u64,
    pub(crate) verify: Verify,
    pub(crate) reserve_bytes: u64,
    pub(crate) accept_loss: bool,
}

/// How much of the data is checked when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Only the number of batches: finds a log that was cut, not one with a hole.
    Count,
    /// Every entry is read and the sum of all is compared with the one that the last batch recorded. Finds
    /// any entry that is missing, stale or changed. An open takes about 10 s for each million operations of 4
    /// entries (against 4 s with `Count`), in proportion to their number; longer from a cold disk.
    Full,
}

impl Default for SledOptions {
    /// Power-loss durability, a cache of 256 MiB, a checkpoint every 64 batches, full verification, and
    /// [`RESERVE_BYTES`] kept free.
    fn default() -> Self {
        Self {
            durability: Durability::PowerLoss,
            cache_bytes: 256 << 20,
            checkpoint_every: 64,
            verify: Verify::Full,
            reserve_bytes: RESERVE_BYTES,
            accept_loss: false,
        }
    }
}

impl SledOptions {
    /// What an acknowledged batch survives. [`Durability::Volatile`] is taken as
    /// [`Durability::ProcessCrash`]: sled has nothing weaker that is also faster.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability.max(Durability::ProcessCrash);
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
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// How many bytes of the file system sled is not let near. A commit is begun only while that much is free for
    /// this user, and four times its batch, and room for sled's snapshot (1/64 of its `db` file). Otherwise it is
    /// refused as [`NotApplied`](longrun_store::KvError::NotApplied) with an [`io::Error`](std::io::Error) of kind
    /// `StorageFull`; reads go on, and so do commits as soon as there is room again. If sled itself meets a full
    /// disk, a reopen is needed.
    ///
    /// The default is [`RESERVE_BYTES`], 24 MiB; a tiny disk wants less. With 0 nothing is checked. Quotas are not
    /// seen.
    #[must_use]
    pub fn reserve_bytes(mut self, bytes: u64) -> Self {
        self.reserve_bytes = bytes;
        self
    }

    /// Opens a database that is known to have lost acknowledged batches, with what is left, and takes that
    /// as the truth from then on. A long value of which a part is lost is removed. For an operator who has no backup; never a default.
    #[must_use]
    pub fn accept_loss(mut self, accept: bool) -> Self {
        self.accept_loss = accept;
        self
    }
}
