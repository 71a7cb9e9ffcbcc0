//! The stores by name: the one place of the program that knows them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::ValueEnum;
use longrun::fjall::{FjallKv, FjallOptions};
use longrun::redb::{RedbKv, RedbOptions};
use longrun::sled::{SledKv, SledOptions};
use longrun::{KvStore, Store};

/// Where operations and snapshots are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreChoice {
    /// On disk; survives a kill and a loss of power
    Sled,
    /// The same; for many operations a second
    Fjall,
    /// The same; in one file, with little memory
    Redb,
    /// In memory; gone when the program ends
    Memory,
}

impl StoreChoice {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
            Self::Memory => "memory",
        }
    }

    /// Opens the store in `folder`, or makes it there.
    pub(crate) fn open(self, folder: &Path) -> Result<Arc<dyn Store>> {
        let context = || format!("cannot open the store in {}", folder.display());
        let store = match self {
            Self::Memory => KvStore::memory(),
            Self::Sled => KvStore::open(SledKv::open(folder, SledOptions::default()).with_context(context)?),
            Self::Fjall => {
                KvStore::open(FjallKv::open(folder, FjallOptions::default()).with_context(context)?)
            }
            Self::Redb => KvStore::open(RedbKv::open(folder, RedbOptions::default()).with_context(context)?),
        };
        Ok(Arc::new(store.with_context(context)?))
    }
}
