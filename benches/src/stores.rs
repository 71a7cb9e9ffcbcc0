//! The stores by name.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{anyhow, bail};
use longrun::KvStore;
use longrun::fjall::{FjallKv, FjallOptions};
use longrun::postgres::{PostgresOptions, PostgresStore};
use longrun::redb::{RedbKv, RedbOptions};
use longrun::sled::{SledKv, SledOptions};
use longrun::store::{Kv, MemoryKv, Store};
use longrun_postgres::testing::PrivateServer;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreName {
    /// Maps in memory: what the engine itself costs.
    Memory,
    /// sled.
    Sled,
    /// fjall.
    Fjall,
    /// redb.
    Redb,
    /// PostgreSQL, at this address; none is a private server of this process, which syncs.
    Postgres(Option<&'static str>),
}

impl FromStr for StoreName {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            // One for the life of the process.
            return Ok(Self::Postgres(Some(text.to_owned().leak())));
        }
        let known = Self::ALL.into_iter().find(|name| name.name() == text);
        known.ok_or_else(|| format!("must be one of {:?}, or postgres://...", Self::ALL.map(Self::name)))
    }
}

impl StoreName {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Memory, Self::Sled, Self::Fjall, Self::Redb, Self::Postgres(None)];

    /// The name, as it is said on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sled => "sled",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
            Self::Postgres(_) => "postgres",
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
    /// The backend, past the store; none for a store that has none.
    pub kv: Option<Arc<dyn Kv>>,
    /// What is asked of the backend.
    pub meter: Meter,
    /// The store.
    pub store: Arc<dyn Store>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Opens the store of that name, in a folder if it is one that has files.
pub async fn open(name: StoreName, folder: &Path) -> Result<Opened> {
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
        StoreName::Postgres(address) => {
            return Ok(Opened::shared(postgres(address, &fresh_schema()).await?));
        }
    };
    let store = match name {
        // As `KvStore::memory` does: nothing is waited for, so there is no thread.
        StoreName::Memory => KvStore::open_inline(Arc::clone(&kv), [0; 32])?,
        _ => KvStore::open(Arc::clone(&kv))?,
    };
    Ok(Opened { kv: Some(kv), meter, store: Arc::new(store) })
}

/// PostgreSQL, in a schema that others may be in.
pub(crate) async fn postgres(address: Option<&'static str>, schema: &str) -> Result<PostgresStore> {
    Ok(PostgresStore::open(PostgresOptions::new(server(address)?).schema(schema)).await?)
}

impl Opened {
    pub(crate) fn shared(store: PostgresStore) -> Self {
        Self { kv: None, meter: Meter::default(), store: Arc::new(store) }
    }

    /// The backend, for what goes past the store.
    pub fn kv(&self) -> Result<&dyn Kv> {
        match &self.kv {
            Some(kv) => Ok(kv.as_ref()),
            None => bail!("this store cannot be filled past the engine"),
        }
    }
}

/// The address of the server to measure.
pub(crate) fn server(address: Option<&'static str>) -> Result<String> {
    static PRIVATE: OnceLock<std::result::Result<PrivateServer, String>> = OnceLock::new();
    if let Some(address) = address {
        return Ok(address.to_owned());
    }
    let started = PRIVATE.get_or_init(|| PrivateServer::start_with(&["fsync=on", "max_wal_size=4GB"]));
    started.as_ref().map(PrivateServer::address).map_err(|error| anyhow!("{error}"))
}

/// The name of a schema that nobody has used.
pub(crate) fn fresh_schema() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("bench_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
