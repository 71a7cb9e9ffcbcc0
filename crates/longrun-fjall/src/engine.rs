//! fjall as an [`Engine`].

use std::borrow::Cow;
use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use fjall::{Database, DatabaseBuilder, Guard, Iter, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use longrun_folder::{Engine, FolderOptions, OpenError, Tables};
use longrun_store::{Batch, Cause, Direction, Durability, Entry, KeyRange, KvError, Table};

use crate::inspect::{self, Journals};
use crate::options::FjallOptions;

/// The keyspace of the record. Not a [`Table`], so it can meet no key of a user.
const RECORD: &str = "longrun";
const RECORD_KEY: &[u8] = b"record";

/// What the system says of files that are missing or cut; a place before the begin of a file is invalid input.
const DAMAGE: [io::ErrorKind; 4] = [
    io::ErrorKind::NotFound,
    io::ErrorKind::UnexpectedEof,
    io::ErrorKind::InvalidData,
    io::ErrorKind::InvalidInput,
];

/// fjall in a folder: a keyspace for each table, and one journal for all of them.
pub struct Fjall {
    // Dropped first: they are what keeps the database alive.
    tables: Tables<Keyspace>,
    record: Keyspace,
    db: Database,
    persist: PersistMode,
}

impl fmt::Debug for Fjall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fjall").field("persist", &self.persist).finish_non_exhaustive()
    }
}

impl Engine for Fjall {
    type Options = FjallOptions;

    const NAME: &'static str = "fjall";
    const PLACE: &'static str = "longrun.fjall";

    fn folder_options(options: &FjallOptions) -> &FolderOptions {
        &options.folder
    }

    fn create(place: &Path, options: &FjallOptions, record: &[u8]) -> Result<(), OpenError> {
        let make = || -> fjall::Result<()> {
            let db = builder(place, options).open()?;
            let keyspace_options =
                || KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes);
            for table in Table::ALL {
                db.keyspace(table.name(), keyspace_options)?;
            }
            db.keyspace(RECORD, keyspace_options)?.insert(RECORD_KEY, record)?;
            db.persist(PersistMode::SyncAll)
        };
        make().map_err(|error| open_error("create", place, error))
    }

    fn open(place: &Path, options: &FjallOptions) -> Result<Self, OpenError> {
        let accept_loss = options.folder.accepts_loss();
        // fjall heals in silence what it should not: look first, and look again.
        let journals = if accept_loss { None } else { Some(Journals::before_open(place)?) };
        let db = builder(place, options).open().map_err(|error| open_error("open", place, error))?;
        match journals {
            Some(journals) => journals.after_open(place)?,
            None => inspect::forget_cut(place)?,
        }
        let record = keyspace(&db, place, RECORD)?;
        let tables = Table::ALL.map(|table| keyspace(&db, place, table.name()));
        let tables: Vec<Keyspace> = tables.into_iter().collect::<Result<_, _>>()?;
        let tables = tables.try_into().map_err(|_| OpenError::corrupt(place, "it has other tables"))?;
        let persist = match options.folder.chosen_durability() {
            Durability::PowerLoss => PersistMode::SyncData,
            _ => PersistMode::Buffer,
        };
        Ok(Self { tables, record, db, persist })
    }

    fn record(&self) -> Result<Option<Vec<u8>>, KvError> {
        self.value(&self.record, RECORD_KEY)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.value(&self.tables[table.index()], &escape(key))
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        let bounds = (range.from.as_ref().map(|key| escape(key)), range.to.as_ref().map(|key| escape(key)));
        let found: Iter = self.db.snapshot().range(&self.tables[table.index()], bounds);
        match direction {
            Direction::Forward => collect(found, limit),
            Direction::Backward => collect(found.rev(), limit),
        }
    }

    fn commit(&self, batch: &Batch, record: &[u8]) -> Result<(), KvError> {
        let mut writes = self.db.batch().durability(Some(self.persist));
        // All writes of a batch get one number in fjall, so of two writes of a key the wrong one might win: only the
        // last goes in.
        let mut seen = HashSet::with_capacity(batch.writes.len());
        let last = batch.writes.iter().rev().filter(|write| seen.insert((write.table, &write.key)));
        for write in last {
            let (table, key) = (&self.tables[write.table.index()], escape(&write.key));
            match &write.value {
                Some(value) => writes.insert(table, &*key, value.as_slice()),
                None => writes.remove(table, &*key),
            }
        }
        writes.insert(&self.record, RECORD_KEY, record);
        // After any error fjall takes no more writes.
        writes.commit().map_err(|error| KvError::Unknown(Box::new(error)))
    }

    fn close(self) -> Result<(), Cause> {
        let synced = self.db.persist(PersistMode::SyncAll);
        drop(self);
        Ok(synced?)
    }
}

impl Fjall {
    /// Through a snapshot, in which a batch is whole or not there; a keyspace alone would show its writes one by one.
    fn value(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let value = self.db.snapshot().get(keyspace, key).map_err(kv_error)?;
        Ok(value.map(|value| value.to_vec()))
    }
}

fn builder(place: &Path, options: &FjallOptions) -> DatabaseBuilder<Database> {
    Database::builder(place).cache_size(options.cache_bytes).max_journaling_size(options.journal_bytes)
}

/// A keyspace that has to be there; asked for by itself, fjall would make it anew, empty.
fn keyspace(db: &Database, place: &Path, name: &str) -> Result<Keyspace, OpenError> {
    if !db.keyspace_exists(name) {
        return Err(OpenError::corrupt(place, format!("the table {name} is missing")));
    }
    let opened = db.keyspace(name, KeyspaceCreateOptions::default);
    opened.map_err(|error| open_error("open a table of", place, error))
}

fn collect(found: impl Iterator<Item = Guard>, limit: usize) -> Result<Vec<Entry>, KvError> {
    let entries = found.take(limit).map(|guard| {
        let (key, value) = guard.into_inner().map_err(kv_error)?;
        Ok((unescape(&key).to_vec(), value.to_vec()))
    });
    entries.collect()
}

/// fjall takes no empty key. So that one, and those that begin with a zero, get one more zero in front, which keeps the
/// order of all.
fn escape(key: &[u8]) -> Cow<'_, [u8]> {
    match key.first() {
        None | Some(0) => Cow::Owned([&[0], key].concat()),
        Some(_) => Cow::Borrowed(key),
    }
}

fn unescape(stored: &[u8]) -> &[u8] {
    stored.strip_prefix(&[0]).unwrap_or(stored)
}

/// The system's error in an error of fjall, unless it says that bytes are missing or are others than they must be.
fn of_the_system(error: &fjall::Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return if DAMAGE.contains(&io.kind()) { None } else { Some(io) };
        }
        cause = error.source();
    }
    None
}

/// What an error of fjall means while opening.
fn open_error(action: &'static str, place: &Path, error: fjall::Error) -> OpenError {
    if matches!(error, fjall::Error::Locked) {
        return OpenError::Locked { path: place.to_path_buf() };
    }
    match of_the_system(&error) {
        Some(io) => {
            let source = io::Error::new(io.kind(), error);
            OpenError::Io { action, path: place.to_path_buf(), source }
        }
        None => OpenError::damaged(place, format!("fjall could not {action} it"), error),
    }
}

/// What an error of fjall means to a reader.
fn kv_error(error: fjall::Error) -> KvError {
    let broken = matches!(error, fjall::Error::Poisoned | fjall::Error::KeyspaceDeleted);
    if broken || of_the_system(&error).is_some() {
        KvError::Unknown(Box::new(error))
    } else {
        KvError::Corrupt(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_keys_are_never_empty_and_keep_their_order() {
        let mut keys: Vec<Vec<u8>> = vec![vec![]];
        for length in 1..4 {
            let longer = keys.iter().filter(|key| key.len() == length - 1).cloned().collect::<Vec<_>>();
            keys.extend(
                longer.iter().flat_map(|key| [0, 1, 255].map(|byte| [key.as_slice(), &[byte]].concat())),
            );
        }
        keys.sort();
        let escaped: Vec<_> = keys.iter().map(|key| escape(key)).collect();
        assert!(escaped.is_sorted_by(|one, other| one < other));
        assert!(escaped.iter().all(|key| !key.is_empty()));
        assert!(escaped.iter().zip(&keys).all(|(escaped, key)| unescape(escaped) == key));
    }

    #[test]
    fn what_the_system_refuses_is_no_damage() {
        let place = Path::new("place");
        let io = |kind: io::ErrorKind| fjall::Error::Io(kind.into());
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::StorageFull, io::ErrorKind::Other] {
            let error = open_error("open", place, io(kind));
            assert!(matches!(&error, OpenError::Io { source, .. } if source.kind() == kind), "{error}");
            assert!(matches!(kv_error(io(kind)), KvError::Unknown(_)), "{kind}");
        }
        for kind in DAMAGE {
            let error = open_error("open", place, io(kind));
            assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
            assert!(matches!(kv_error(io(kind)), KvError::Corrupt(_)), "{kind}");
        }
        assert!(matches!(open_error("open", place, fjall::Error::Locked), OpenError::Locked { .. }));
        // Neither says anything of the bytes.
        for error in [fjall::Error::Poisoned, fjall::Error::KeyspaceDeleted] {
            assert!(matches!(kv_error(error), KvError::Unknown(_)));
        }
    }
}
