//! The stores by name.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use longrun::KvStore;
use longrun::fjall::{FjallKv, FjallOptions};
use longrun::redb::{RedbKv, RedbOptions};
use longrun::sled::{SledKv, SledOptions};
use longrun::store::{Kv, MemoryKv};

use crate::Result;
use crate::metered::{Meter, Metered};

/// Memory for what fjall has read, in bytes. As much is given to both sides of a comparison: what these options have by themselves.
pub(crate) const FJALL_CACHE_BYTES: u64 = 32 << 20;
/// Memory for what is written to one table of fjall and not on the disk in its last form.
pub(crate) const FJALL_MEMTABLE_BYTES: u64 = 8 << 20;
/// Bytes of fjall's journals.
pub(crate) const FJALL_JOURNAL_BYTES: u64 = 128 << 20;
/// Memory for pages of redb.
pub(crate) const REDB_CACHE_BYTES: usize = 32 << 20;
/// What sled takes for the size of its cache.
pub(crate) const SLED_CACHE_BYTES: u64 = 256 << 20;

/// A store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoreName {
    /// Maps in memory: what the engine itself costs.
    Memory,
    /// sled.
    Sled,
    /// fjall.
    Fjall,
    /// redb.
    Redb,
}

impl StoreName {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Sled, Self::Fjall, Self::Redb];

    /// The name, as it is said on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sled => "sled",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
        }
    }

    /// What an acknowledged commit survives, with the options that are used here: those that the store has by itself.
    pub const fn durability(self) -> &'static str {
        match self {
            Self::Memory => "none",
            _ => "power loss",
        }
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An open backend with a meter on it, and the store made of it.
pub struct Opened {
    /// The backend, past the store.
    pub kv: Arc<dyn Kv>,
    /// What is asked of it.
    pub meter: Meter,
    /// The store.
    pub store: KvStore,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Opens the store of that name in a folder.
pub fn open(name: StoreName, folder: &Path) -> Result<Opened> {
    fn metered<K: Kv>(kv: K) -> (Arc<dyn Kv>, Meter) {
        let (kv, meter) = Metered::new(kv);
        (Arc::new(kv), meter)
    }
    let (kv, meter) = match name {
        StoreName::Memory => metered(MemoryKv::new()),
        StoreName::Sled => {
            metered(SledKv::open(folder, SledOptions::default().cache_bytes(SLED_CACHE_BYTES))?)
        }
        StoreName::Fjall => {
            let options = FjallOptions::default().cache_bytes(FJALL_CACHE_BYTES);
            let options = options.memtable_bytes(FJALL_MEMTABLE_BYTES).journal_bytes(FJALL_JOURNAL_BYTES);
            metered(FjallKv::open(folder, options)?)
        }
        StoreName::Redb => {
            metered(RedbKv::open(folder, RedbOptions::default().cache_bytes(REDB_CACHE_BYTES))?)
        }
    };
    let store = match name {
        // As `KvStore::memory` does: nothing is waited for, so there is no thread.
        StoreName::Memory => KvStore::open_inline(Arc::clone(&kv), [0; 32])?,
        _ => KvStore::open(Arc::clone(&kv))?,
    };
    Ok(Opened { kv, meter, store })
}
