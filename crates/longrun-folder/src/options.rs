//! [`FolderOptions`]: what a user may choose of every store in a folder.

use longrun_store::Durability;

/// Free space that a commit needs to be begun, unless [`FolderOptions::reserve_bytes`] says otherwise.
const RESERVE_BYTES: u64 = 64 << 20;

/// What does not depend on the engine.
#[derive(Clone, Debug)]
pub struct FolderOptions {
    pub(crate) durability: Durability,
    pub(crate) reserve_bytes: u64,
    pub(crate) accept_loss: bool,
}

impl Default for FolderOptions {
    /// Survives the loss of power, keeps 64 MiB free, accepts no loss.
    fn default() -> Self {
        Self { durability: Durability::PowerLoss, reserve_bytes: RESERVE_BYTES, accept_loss: false }
    }
}

impl FolderOptions {
    /// What an acknowledged batch survives. [`Durability::Volatile`] is taken as [`Durability::ProcessCrash`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability.max(Durability::ProcessCrash);
        self
    }

    /// How many bytes of the file system the engine is not let near. A commit is begun only while that much is free for
    /// this user, and four times its batch; otherwise it is refused as
    /// [`NotApplied`](longrun_store::KvError::NotApplied) with an [`io::Error`](std::io::Error) of kind `StorageFull`.
    /// With 0 nothing is checked.
    #[must_use]
    pub fn reserve_bytes(mut self, bytes: u64) -> Self {
        self.reserve_bytes = bytes;
        self
    }

    /// Opens a database that is known to have lost acknowledged batches, with what is left, and takes that as the truth
    /// from then on. For an operator who has no backup; never a default.
    #[must_use]
    pub fn accept_loss(mut self, accept: bool) -> Self {
        self.accept_loss = accept;
        self
    }

    /// What an acknowledged batch survives.
    pub fn chosen_durability(&self) -> Durability {
        self.durability
    }

    /// Whether what is left of a damaged database is to be taken as the truth.
    pub fn accepts_loss(&self) -> bool {
        self.accept_loss
    }
}
