//! The engines by their own API: durable batches with the best group commit that they have, and nothing of ours in between.
//!
//! The tables, the keys and the values are those of the engine, so that what is compared is what is done with them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use longrun::postgres::tokio_postgres::{self, Client, NoTls, Statement};
use longrun::store::{Batch, Table, Write};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::Result;
use crate::stores::{self, StoreName};

/// Batches that are made durable together, at most: as many as the engine takes.
const GROUP_MAX: usize = 1024;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A store by its own API.
pub trait Raw: Send + Sync + 'static {
    /// Writes all of it, durably, before it returns.
    fn commit(&self, writes: &[Write]) -> Result<()>;

    /// Reads one key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// The newest entries before a key, newest first.
    fn newest(&self, table: Table, before: &[u8], limit: usize) -> Result<Vec<Pair>>;
}

/// Opens the engine of that name in a folder, which must be empty.
pub async fn open(name: StoreName, folder: &Path) -> Result<Arc<dyn Raw>> {
    Ok(match name {
        StoreName::Memory => Arc::new(Memory::default()),
        StoreName::Sled => Arc::new(Sled::open(folder)?),
        StoreName::Fjall => Arc::new(Fjall::open(folder)?),
        StoreName::Redb => Arc::new(Redb::open(folder)?),
        StoreName::Postgres(address) => Arc::new(Postgres::open(&stores::server(address)?).await?),
    })
}

/// Batches that are waited for together.
#[derive(Clone, Debug)]
pub struct Group {
    sender: mpsc::Sender<(Batch, oneshot::Sender<()>)>,
    commits: Arc<AtomicU64>,
}

impl Group {
    /// Commits over an engine, in a thread of its own: whatever came while the last sync was on goes into the next.
    pub fn over(raw: Arc<dyn Raw>) -> Self {
        let (sender, mut waiting) = mpsc::channel::<(Batch, oneshot::Sender<()>)>(4 * GROUP_MAX);
        let commits = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&commits);
        std::thread::spawn(move || {
            let (mut writes, mut told) = (Vec::new(), Vec::new());
            while let Some((batch, tell)) = waiting.blocking_recv() {
                writes.extend(batch.writes);
                told.push(tell);
                while told.len() < GROUP_MAX
                    && let Ok((batch, tell)) = waiting.try_recv()
                {
                    writes.extend(batch.writes);
                    told.push(tell);
                }
                // Whoever waits learns of a failure by not being told.
                if raw.commit(&writes).is_err() {
                    return;
                }
                counter.fetch_add(1, Relaxed);
                writes.clear();
                told.drain(..).for_each(|tell| _ = tell.send(()));
            }
        });
        Self { sender, commits }
    }

    /// How many durable batches there were.
    pub fn commits(&self) -> u64 {
        self.commits.load(Relaxed)
    }

    /// Returns when the batch is durable.
    pub async fn commit(&self, batch: Batch) -> Result<()> {
        let (tell, told) = oneshot::channel();
        self.sender.send((batch, tell)).await.map_err(|_| anyhow!("the engine has failed"))?;
        told.await.context("the engine has failed")
    }
}

/// Where a value lies.
type Place = (Table, Vec<u8>);

#[derive(Debug, Default)]
struct Memory(Mutex<BTreeMap<Place, Vec<u8>>>);

impl Raw for Memory {
    fn commit(&self, writes: &[Write]) -> Result<()> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Write { table, key, value } in writes {
            match value {
                Some(value) => _ = entries.insert((*table, key.clone()), value.clone()),
                None => _ = entries.remove(&(*table, key.clone())),
            }
        }
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(entries.get(&(table, key.to_vec())).cloned())
    }

    fn newest(&self, table: Table, before: &[u8], limit: usize) -> Result<Vec<Pair>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let range = entries.range((table, Vec::new())..(table, before.to_vec()));
        Ok(range.rev().take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }
}

struct Fjall {
    db: fjall::Database,
    tables: Vec<fjall::Keyspace>,
}

impl Fjall {
    /// Makes the database, closes it and opens it again, which is how a service has it. In a new one, fjall sets aside room
    /// for its journal: a sync has only bytes to write then. In one that was closed it appends, and each sync writes the
    /// length of the file, too, which takes half as long again; until the journal has 64 MB, and a new one is begun.
    fn open(folder: &Path) -> Result<Self> {
        drop(Self::open_once(folder)?);
        Self::open_once(folder)
    }

    fn open_once(folder: &Path) -> Result<Self> {
        let builder = fjall::Database::builder(folder).cache_size(stores::FJALL_CACHE_BYTES);
        let db = builder.max_journaling_size(stores::FJALL_JOURNAL_BYTES).open()?;
        let options =
            || fjall::KeyspaceCreateOptions::default().max_memtable_size(stores::FJALL_MEMTABLE_BYTES);
        let open = |table: Table| db.keyspace(table.name(), options);
        let tables = Table::ALL.into_iter().map(open).collect::<fjall::Result<_>>()?;
        Ok(Self { db, tables })
    }
}

impl Raw for Fjall {
    fn commit(&self, writes: &[Write]) -> Result<()> {
        let mut batch = self.db.batch().durability(Some(fjall::PersistMode::SyncData));
        for Write { table, key, value } in writes {
            let table = &self.tables[table.index()];
            match value {
                Some(value) => batch.insert(table, key.as_slice(), value.as_slice()),
                None => batch.remove(table, key.as_slice()),
            }
        }
        Ok(batch.commit()?)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.tables[table.index()].get(key)?.map(|value| value.to_vec()))
    }

    fn newest(&self, table: Table, before: &[u8], limit: usize) -> Result<Vec<Pair>> {
        let found = self.tables[table.index()].range(..before.to_vec()).rev().take(limit);
        found
            .map(|entry| {
                let (key, value) = entry.into_inner()?;
                Ok((key.to_vec(), value.to_vec()))
            })
            .collect()
    }
}

/// One tree for each table, as the engine has them: a batch over several goes through sled's transactions. sled only hands
/// the bytes to the kernel, so the file is synced here.
struct Sled {
    db: sled::Db,
    trees: Vec<sled::Tree>,
    file: File,
}

impl Sled {
    fn open(folder: &Path) -> Result<Self> {
        let db = sled::Config::new()
            .path(folder)
            .cache_capacity(stores::SLED_CACHE_BYTES)
            .segment_size(8 << 20)
            .flush_every_ms(None)
            .open()?;
        let trees =
            Table::ALL.into_iter().map(|table| db.open_tree(table.name())).collect::<Result<_, _>>()?;
        Ok(Self { trees, file: File::open(folder.join("db"))?, db })
    }
}

impl Raw for Sled {
    fn commit(&self, writes: &[Write]) -> Result<()> {
        use sled::transaction::{ConflictableTransactionError, Transactional};
        let mut places = [usize::MAX; Table::ALL.len()];
        let mut trees = Vec::new();
        for write in writes {
            let place = &mut places[write.table.index()];
            if *place == usize::MAX {
                *place = trees.len();
                trees.push(self.trees[write.table.index()].clone());
            }
        }
        trees[..]
            .transaction(|views| {
                for Write { table, key, value } in writes {
                    let view = &views[places[table.index()]];
                    match value {
                        Some(value) => view.insert(key.as_slice(), value.as_slice())?,
                        None => view.remove(key.as_slice())?,
                    };
                }
                Ok::<_, ConflictableTransactionError<()>>(())
            })
            .map_err(|error| anyhow!("{error:?}"))?;
        self.db.flush()?;
        Ok(self.file.sync_data()?)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.trees[table.index()].get(key)?.map(|value| value.to_vec()))
    }

    fn newest(&self, table: Table, before: &[u8], limit: usize) -> Result<Vec<Pair>> {
        let found = self.trees[table.index()].range(..before.to_vec()).rev().take(limit);
        found
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(Into::into))
            .collect()
    }
}

struct Redb(redb::Database);

type Definition = redb::TableDefinition<'static, &'static [u8], &'static [u8]>;

impl Redb {
    fn open(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut builder = redb::Builder::new();
        builder.set_cache_size(stores::REDB_CACHE_BYTES);
        let db = builder.create(folder.join("raw.redb"))?;
        let write = db.begin_write()?;
        for table in Table::ALL {
            write.open_table(Definition::new(table.name()))?;
        }
        write.commit()?;
        Ok(Self(db))
    }
}

impl Raw for Redb {
    fn commit(&self, writes: &[Write]) -> Result<()> {
        let mut transaction = self.0.begin_write()?;
        // As the adapter does it: an open after a crash need not read the whole file then.
        transaction.set_quick_repair(true);
        let mut writes: Vec<&Write> = writes.iter().collect();
        writes.sort_by_key(|write| write.table);
        for writes in writes.chunk_by(|one, other| one.table == other.table) {
            let mut table = transaction.open_table(Definition::new(writes[0].table.name()))?;
            for Write { key, value, .. } in writes {
                match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                    None => table.remove(key.as_slice())?,
                };
            }
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        use redb::ReadableDatabase;
        let table = self.0.begin_read()?.open_table(Definition::new(table.name()))?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn newest(&self, table: Table, before: &[u8], limit: usize) -> Result<Vec<Pair>> {
        use redb::ReadableDatabase;
        let table = self.0.begin_read()?.open_table(Definition::new(table.name()))?;
        let mut entries = Vec::new();
        for entry in table.range::<&[u8]>(..before)?.rev().take(limit) {
            let (key, value) = entry?;
            entries.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(entries)
    }
}

/// One table with the keys and values of all, and one statement for each batch.
struct Postgres {
    client: Client,
    put: Statement,
    remove: Statement,
    runtime: Handle,
}

impl Postgres {
    async fn open(address: &str) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(address, NoTls).await?;
        tokio::spawn(connection);
        let schema = stores::fresh_schema();
        let tables = format!(
            "CREATE SCHEMA {schema}; SET search_path = {schema};
             CREATE TABLE pairs (kind smallint, key bytea, value bytea NOT NULL, PRIMARY KEY (kind, key));
             SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off;
             SET plan_cache_mode = force_generic_plan"
        );
        client.batch_execute(&tables).await?;
        let put = "INSERT INTO pairs SELECT * FROM unnest($1::smallint[], $2::bytea[], $3::bytea[])
            ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value";
        let remove = "DELETE FROM pairs p USING unnest($1::smallint[], $2::bytea[]) AS u (kind, key)
            WHERE p.kind = u.kind AND p.key = u.key";
        // One statement, and so one round trip: the removals go with the rest.
        let both = format!("WITH removed AS ({}) {put}", remove.replace("$1", "$4").replace("$2", "$5"));
        let (put, remove) = (client.prepare(put).await?, client.prepare(&both).await?);
        Ok(Self { client, put, remove, runtime: Handle::current() })
    }
}

fn number(table: Table) -> i16 {
    Table::ALL.iter().position(|known| *known == table).and_then(|place| place.try_into().ok()).unwrap_or(-1)
}

impl Raw for Postgres {
    fn commit(&self, writes: &[Write]) -> Result<()> {
        // A statement must not touch a row twice.
        let last: BTreeMap<_, _> =
            writes.iter().map(|write| ((number(write.table), &write.key), &write.value)).collect();
        let (mut kinds, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (mut gone_kinds, mut gone_keys) = (Vec::new(), Vec::new());
        for ((kind, key), value) in last {
            match value {
                Some(value) => {
                    kinds.push(kind);
                    keys.push(key);
                    values.push(value);
                }
                None => {
                    gone_kinds.push(kind);
                    gone_keys.push(key);
                }
            }
        }
        let write = async {
            if gone_keys.is_empty() {
                self.client.execute(&self.put, &[&kinds, &keys, &values]).await
            } else {
                self.client.execute(&self.remove, &[&kinds, &keys, &values, &gone_kinds, &gone_keys]).await
            }
        };
        self.runtime.block_on(write)?;
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let text = "SELECT value FROM pairs WHERE kind = $1 AND key = $2";
        let found = tokio::task::block_in_place(|| {
            self.runtime.block_on(self.client.query_opt(text, &[&number(table), &key]))
        })?;
        Ok(found.map(|row| row.get(0)))
    }

    fn newest(&self, table: Table, before: &[u8], limit: usize) -> Result<Vec<Pair>> {
        let text = "SELECT key, value FROM pairs WHERE kind = $1 AND key < $2 ORDER BY key DESC LIMIT $3";
        let limit = i64::try_from(limit)?;
        let found = tokio::task::block_in_place(|| {
            self.runtime.block_on(self.client.query(text, &[&number(table), &before, &limit]))
        })?;
        Ok(found.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}
