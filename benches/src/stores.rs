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
        StoreName::Sled => metered(SledKv::open(folder, SledOptions::default())?),
        StoreName::Fjall => metered(FjallKv::open(folder, FjallOptions::default())?),
        StoreName::Redb => metered(RedbKv::open(folder, RedbOptions::default())?),
    };
    let store = match name {
        // As `KvStore::memory` does: nothing is waited for, so there is no thread.
        StoreName::Memory => KvStore::open_inline(Arc::clone(&kv), [0; 32])?,
        _ => KvStore::open(Arc::clone(&kv))?,
    };
    Ok(Opened { kv, meter, store })
}
