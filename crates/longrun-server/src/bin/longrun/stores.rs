//! The stores by name: the one place of the program that knows them.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::ValueEnum;
use longrun::fjall::{FjallKv, FjallOptions};
use longrun::postgres::{PostgresOptions, PostgresStore};
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

/// Where operations and snapshots are recorded, for a service that may share it with others.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum StorePlace {
    /// In the data folder, or in memory.
    Own(StoreChoice),
    /// In a PostgreSQL at this address.
    Postgres(String),
}

impl FromStr for StorePlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        StoreChoice::from_str(text, false).map(Self::Own).map_err(|_| {
            let names: Vec<_> = StoreChoice::value_variants().iter().map(|choice| choice.name()).collect();
            format!("must be one of {}, or postgres://...", names.join(", "))
        })
    }
}

impl fmt::Debug for StorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(choice) => f.write_str(choice.name()),
            // The address may hold a password.
            Self::Postgres(_) => f.write_str("postgres"),
        }
    }
}

/// What only a database wants to know.
pub(crate) struct Sharing<'a> {
    pub(crate) schema: &'a str,
    pub(crate) lease: std::time::Duration,
    /// Certificates to know the server by, as PEM.
    pub(crate) roots: Option<&'a Path>,
    /// Without what only PostgreSQL itself is sure to have.
    pub(crate) plain: bool,
}

impl StorePlace {
    /// Opens the store, in `folder` if it has files, or makes it there.
    pub(crate) async fn open(&self, folder: &Path, sharing: Sharing<'_>) -> Result<Arc<dyn Store>> {
        let address = match self {
            Self::Own(choice) => return choice.open(folder),
            Self::Postgres(address) => address,
        };
        let mut options = PostgresOptions::new(address)
            .schema(sharing.schema)
            .lease(sharing.lease)
            .hints(!sharing.plain)
            .skip_locked(!sharing.plain);
        if let Some(path) = sharing.roots {
            let roots = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            options = options.root_certificates(roots);
        }
        let store = PostgresStore::open(options).await.context("cannot open the store in PostgreSQL")?;
        Ok(Arc::new(store))
    }
}
