//! redb as an [`Engine`].

use std::path::Path;

use longrun_folder::{Engine, FolderOptions, OpenError, Verify};
use longrun_store::{Batch, Cause, Direction, Durability, Entry, KeyRange, KvError, Table, Write};
use redb::{Builder, Database, ReadableDatabase, TableDefinition, TableHandle};

use crate::options::RedbOptions;
use crate::unsynced::Unsynced;

type Definition<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;

/// The table of the record. Not a [`Table`], so it can meet no key of a user.
const RECORD: Definition<'static> = TableDefinition::new("longrun");
const RECORD_KEY: &[u8] = b"record";

/// redb in a file.
#[derive(Debug)]
pub struct Redb {
    db: Database,
}

const fn definition(table: Table) -> Definition<'static> {
    TableDefinition::new(table.name())
}

impl Engine for Redb {
    type Options = RedbOptions;

    const NAME: &'static str = "redb";
    const PLACE: &'static str = "longrun.redb";

    fn folder_options(options: &RedbOptions) -> &FolderOptions {
        &options.folder
    }

    fn create(place: &Path, options: &RedbOptions, record: &[u8]) -> Result<(), OpenError> {
        let failed = |error: redb::Error| open_error("create", place, error);
        let db = builder(options).create(place).map_err(|error| failed(error.into()))?;
        let made = || -> Result<(), redb::Error> {
            let mut write = db.begin_write()?;
            write.set_quick_repair(true);
            for table in Table::ALL {
                write.open_table(definition(table))?;
            }
            write.open_table(RECORD)?.insert(RECORD_KEY, record)?;
            write.commit()?;
            db.close()?;
            Ok(())
        };
        made().map_err(failed)
    }

    fn open(place: &Path, options: &RedbOptions) -> Result<Self, OpenError> {
        let mut builder = builder(options);
        builder.set_check_integrity_on_open(options.verify == Verify::Full);
        let opened = if options.folder.chosen_durability() < Durability::PowerLoss {
            Unsynced::open(place).and_then(|backend| builder.create_with_backend(backend))
        } else {
            builder.open(place)
        };
        let db = opened.map_err(|error| open_error("open", place, error.into()))?;
        all_tables(&db, place)?;
        Ok(Self { db })
    }

    fn record(&self) -> Result<Option<Vec<u8>>, KvError> {
        self.value(RECORD, RECORD_KEY).map_err(kv_error)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.value(definition(table), key).map_err(kv_error)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        self.entries(table, range, direction, limit).map_err(kv_error)
    }

    fn commit(&self, batch: &Batch, record: &[u8]) -> Result<(), KvError> {
        // redb does not tell whether a transaction that failed has left its memory as it was.
        self.transact(batch, record).map_err(|error| KvError::Unknown(cause(error)))
    }

    fn close(self) -> Result<(), Cause> {
        Ok(self.db.close()?)
    }
}

impl Redb {
    fn value(&self, table: Definition<'_>, key: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
        let table = self.db.begin_read()?.open_table(table)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn entries(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, redb::Error> {
        let table = self.db.begin_read()?.open_table(definition(table))?;
        let bounds = (range.from.as_ref().map(Vec::as_slice), range.to.as_ref().map(Vec::as_slice));
        let mut found = table.range::<&[u8]>(bounds)?;
        let mut entries = Vec::new();
        while entries.len() < limit {
            let next = match direction {
                Direction::Forward => found.next(),
                Direction::Backward => found.next_back(),
            };
            let Some(entry) = next else { break };
            let (key, value) = entry?;
            entries.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(entries)
    }

    fn transact(&self, batch: &Batch, record: &[u8]) -> Result<(), redb::Error> {
        let mut write = self.db.begin_write()?;
        // The state of the allocator goes with each commit: an open after a crash need not rebuild it.
        write.set_quick_repair(true);
        // Stable, so that the later write of a key stays the later one.
        let mut writes: Vec<&Write> = batch.writes.iter().collect();
        writes.sort_by_key(|write| write.table);
        for writes in writes.chunk_by(|one, other| one.table == other.table) {
            let mut table = write.open_table(definition(writes[0].table))?;
            for Write { key, value, .. } in writes {
                match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                    None => table.remove(key.as_slice())?,
                };
            }
        }
        write.open_table(RECORD)?.insert(RECORD_KEY, record)?;
        write.commit()?;
        Ok(())
    }
}

fn builder(options: &RedbOptions) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(options.cache_bytes);
    builder
}

/// A table that is not there would be made, empty, by the first write to it.
fn all_tables(db: &Database, place: &Path) -> Result<(), OpenError> {
    let names = || -> Result<Vec<String>, redb::Error> {
        Ok(db.begin_read()?.list_tables()?.map(|table| table.name().to_owned()).collect())
    };
    let names = names().map_err(|error| open_error("list the tables of", place, error))?;
    let wanted = Table::ALL.into_iter().map(Table::name).chain([RECORD.name()]);
    match wanted.into_iter().find(|wanted| !names.iter().any(|name| name == wanted)) {
        Some(missing) => Err(OpenError::corrupt(place, format!("the table {missing} is missing"))),
        None => Ok(()),
    }
}

/// What an error of redb means while opening. Of those that are left, each says that the file is not as redb left it.
fn open_error(action: &'static str, place: &Path, error: redb::Error) -> OpenError {
    match error {
        redb::Error::Io(source) => OpenError::io(action, place)(source),
        redb::Error::DatabaseAlreadyOpen => OpenError::Locked { path: place.to_path_buf() },
        other => OpenError::damaged(place, format!("redb could not {action} it"), other),
    }
}

/// What an error of redb means to a reader.
fn kv_error(error: redb::Error) -> KvError {
    match error {
        redb::Error::Corrupted(_) | redb::Error::TableDoesNotExist(_) => KvError::Corrupt(Box::new(error)),
        other => KvError::Unknown(cause(other)),
    }
}

/// redb gives no source, and a caller wants to know a full disk from a failing one.
fn cause(error: redb::Error) -> Cause {
    match error {
        redb::Error::Io(source) => Box::new(source),
        other => Box::new(other),
    }
}
