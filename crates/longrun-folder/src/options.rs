//! [`FolderOptions`]: what a user may choose of every store in a folder. [`Verify`]: of some.

use longrun_store::Durability;

/// Free space that a commit to a [`FolderKv`](crate::FolderKv) needs to be begun, unless [`FolderOptions::reserve_bytes`]
/// says otherwise.
pub const RESERVE_BYTES: u64 = 64 << 20;

/// What does not depend on the engine. Each store takes it by the method `folder` of its own options.
#[derive(Clone, Debug)]
pub struct FolderOptions {
    pub(crate) durability: Durability,
    pub(crate) reserve_bytes: Option<u64>,
    pub(crate) accept_loss: bool,
}

impl Default for FolderOptions {
    /// Survives the loss of power, keeps as much free as the store finds right, accepts no loss.
    fn default() -> Self {
        Self { durability: Durability::PowerLoss, reserve_bytes: None, accept_loss: false }
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
    /// That poisons nothing: reads go on, and so do commits as soon as there is room again. If the engine itself meets a
    /// full disk, a reopen is needed.
    ///
    /// The default is [`RESERVE_BYTES`], for sled 24 MiB; a tiny disk wants less. With 0 nothing is checked. Quotas are not
    /// seen.
    #[must_use]
    pub fn reserve_bytes(mut self, bytes: u64) -> Self {
        self.reserve_bytes = Some(bytes);
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

    /// How many bytes of the file system the engine is not let near, if that was said.
    pub fn chosen_reserve_bytes(&self) -> Option<u64> {
        self.reserve_bytes
    }

    /// Whether what is left of a damaged database is to be taken as the truth.
    pub fn accepts_loss(&self) -> bool {
        self.accept_loss
    }
}

/// How much of the data is checked when it is opened, in stores that leave the choice. What it finds and what it costs, the
/// store's options say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Only the number of batches, and what the engine itself looks at.
    Count,
    /// All that is in use. An open takes time in proportion to it.
    Full,
}
