//! [`SledKv`]: the [`Kv`] trait on an open database.

use std::cell::Cell;
use std::fmt;
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use longrun_folder::{FolderLock, OpenError, Poisoned, check_space, contain, create_folder, drop_page_cache};
use longrun_store::{
    Batch, Cause, Direction, Durability, Entry, KeyRange, Kv, KvCapabilities, KvError, Table, Write,
    with_causes,
};
use sled::transaction::{
    ConflictableTransactionError, TransactionError, Transactional, TransactionalTree,
    UnabortableTransactionError,
};
use sled::{IVec, Tree};

use crate::completeness::{self, Content, Record};
use crate::error::kv_error;
use crate::limits::{self, DB_BYTES_PER_SNAPSHOT_BYTE, LIMITS, PART_BYTES};
use crate::open::{self, Engine, PROOF_KEY};
use crate::options::SledOptions;
use crate::value::{self, PARTS_TREE, Stored, Stub};
use crate::watchdog::Watchdog;

/// The engine's name.
const NAME: &str = "sled";
/// How often a value that changes under our eyes is read before commits are held back.
const READ_TRIES: usize = 8;

/// A [`Kv`] on sled. See the [crate] for what it survives.
pub struct SledKv {
    folder: PathBuf,
    options: SledOptions,
    watchdog: Watchdog,
    state: Arc<RwLock<State>>,
    counters: Counters,
    /// Held until all the rest is gone.
    _lock: FolderLock,
}

impl fmt::Debug for SledKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledKv").field("folder", &self.folder).finish_non_exhaustive()
    }
}

enum State {
    Open(Box<Handle>),
    /// The last reopen failed, or is under way; the next one may succeed.
    Closed(String),
    /// No reopen in this process can succeed. See [`OpenError::ProcessTainted`].
    Tainted(String),
}

/// An open engine and what is known of it.
struct Handle {
    engine: Engine,
    /// The record of the last batch that is durable, and of the last that `completeness` holds.
    records: Mutex<Records>,
    /// Set by the first error, for good.
    poison: OnceLock<String>,
    /// sled's memory may hold a part of a batch.
    torn: AtomicBool,
}

#[derive(Clone, Copy)]
struct Records {
    last: Record,
    filed: u64,
}

#[derive(Default)]
struct Counters {
    batches: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
}

/// What a [`SledKv`] has done since it was opened, and its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SledStats {
    /// Batches committed.
    pub batches: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Syncs issued by this crate, without those of sled.
    pub syncs: u64,
    /// Bytes of the files, now.
    pub disk_bytes: u64,
}

impl SledKv {
    /// Opens the database in the folder `path`, or creates it there.
    ///
    /// Everything that was read or will be read is durable when this returns.
    pub fn open(path: impl AsRef<Path>, options: SledOptions) -> Result<Self, OpenError> {
        // sled finds its snapshots by comparing path strings with the working directory: this one is absolute.
        let folder = create_folder(path.as_ref())?;
        let lock = FolderLock::acquire(&folder)?;
        let handle = Handle::open(&folder, &options)?;
        let state = Arc::new(RwLock::new(State::Open(Box::new(handle))));
        let watched = Arc::clone(&state);
        let watchdog = Watchdog::start(move || wake_waiters(&watched))
            .map_err(OpenError::io("start the watchdog thread of", &folder))?;
        Ok(Self { folder, options, watchdog, state, counters: Counters::default(), _lock: lock })
    }

    /// What was done so far.
    pub fn stats(&self) -> SledStats {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let sizes = files.filter_map(|file| file.metadata().ok()).filter(fs::Metadata::is_file);
        SledStats {
            batches: self.counters.batches.load(Relaxed),
            bytes: self.counters.bytes.load(Relaxed),
            syncs: self.counters.syncs.load(Relaxed),
            disk_bytes: sizes.map(|meta| meta.len()).sum(),
        }
    }

    /// Runs `call` on the open engine; refuses when there is none to trust, before or after the call.
    fn with_engine<T>(&self, call: impl FnOnce(&Handle) -> Result<T, KvError>) -> Result<T, KvError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let handle = match &*state {
            State::Open(handle) => handle,
            State::Closed(cause) | State::Tainted(cause) => return Err(poisoned(cause)),
        };
        handle.check()?;
        let result = call(handle)?;
        handle.check()?;
        Ok(result)
    }

    /// Refuses `batch` while there is less free than the reserve, the snapshot of the next open and the batch's own need.
    fn check_space(&self, handle: &Handle, batch: &Batch) -> Result<(), KvError> {
        let reserve = self.options.reserve_bytes();
        let snapshot = match reserve {
            0 => 0,
            _ => handle.engine.file.metadata().map_or(0, |meta| meta.len() / DB_BYTES_PER_SNAPSHOT_BYTE),
        };
        check_space(&self.folder, reserve.saturating_add(snapshot), batch.byte_len())
    }

    /// Writes the `completeness` file when it is k batches behind.
    fn checkpoint(&self, handle: &Handle, records: &mut Records) -> Result<(), Cause> {
        if records.last.count - records.filed < self.options.checkpoint_every {
            return Ok(());
        }
        if self.options.folder.chosen_durability() < Durability::PowerLoss {
            handle.engine.file.sync_data()?;
        }
        completeness::write_file(&self.folder, &records.last)?;
        self.counters.syncs.fetch_add(2, Relaxed);
        records.filed = records.last.count;
        Ok(())
    }
}

impl Kv for SledKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.with_engine(|handle| {
            handle.contained(|engine| match engine.tables[table.index()].get(key).map_err(kv_error)? {
                Some(stored) => handle.value(table, key, stored),
                None => Ok(None),
            })
        })
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        self.with_engine(|handle| {
            if range.is_empty() {
                return Ok(Vec::new());
            }
            handle.contained(|engine| {
                let bounds = (range.from.as_ref().map(Vec::as_slice), range.to.as_ref().map(Vec::as_slice));
                let entries = engine.tables[table.index()].range::<&[u8], _>(bounds);
                match direction {
                    Direction::Forward => handle.collect(table, entries, limit),
                    Direction::Backward => handle.collect(table, entries.rev(), limit),
                }
            })
        })
    }

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        self.with_engine(|handle| {
            LIMITS.check(batch).map_err(|error| KvError::NotApplied(Box::new(error)))?;
            if batch.writes.is_empty() {
                return Ok(());
            }
            self.check_space(handle, batch)?;
            let mut records = handle.records.lock().unwrap_or_else(PoisonError::into_inner);
            let _running = self.watchdog.commit();
            let durable = self.options.folder.chosen_durability() >= Durability::PowerLoss;
            let result = handle.apply(batch, &records.last, durable);
            records.last = result.inspect_err(|error| handle.poison(error))?;

            self.counters.batches.fetch_add(1, Relaxed);
            self.counters.bytes.fetch_add(batch.byte_len() as u64, Relaxed);
            if durable {
                self.counters.syncs.fetch_add(1, Relaxed);
                // It is a hint, as good as the last one that was written.
                let _ = handle.engine.tail.write(&records.last.encode());
            }
            // The batch is durable: that its copy outside is behind is no reason to deny it.
            if let Err(error) = self.checkpoint(handle, &mut records) {
                tracing::warn!(
                    error = &*error as &dyn std::error::Error,
                    "trying again after the next batch"
                );
            }
            Ok(())
        })
    }

    fn reopen(&self) -> Result<(), KvError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *state = match mem::replace(&mut *state, State::Closed("it is being reopened".into())) {
            State::Open(handle) => handle.close(),
            other => other,
        };
        if let State::Tainted(cause) = &*state {
            return Err(unknown(OpenError::ProcessTainted {
                path: self.folder.clone(),
                cause: cause.clone(),
            }));
        }
        drop_page_cache(&self.folder.join("db"));
        match Handle::open(&self.folder, &self.options) {
            Ok(handle) => {
                *state = State::Open(Box::new(handle));
                Ok(())
            }
            Err(error) => {
                *state = State::Closed(with_causes(&error));
                Err(error.into())
            }
        }
    }

    fn capabilities(&self) -> KvCapabilities {
        let durability = self.options.folder.chosen_durability();
        KvCapabilities::new(NAME, durability, limits::VALUE_BYTES_MAX, limits::BATCH_BYTES_MAX)
    }
}

impl Drop for SledKv {
    fn drop(&mut self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let State::Open(handle) = mem::replace(&mut *state, State::Closed("it is closed".into())) else {
            return;
        };
        let records = *handle.records.lock().unwrap_or_else(PoisonError::into_inner);
        let mut complete = handle.check().is_ok() && records.filed < records.last.count;
        if complete && self.options.folder.chosen_durability() < Durability::PowerLoss {
            complete = handle.engine.file.sync_data().is_ok();
        }
        handle.close();
        if complete && let Err(error) = completeness::write_file(&self.folder, &records.last) {
            tracing::warn!(%error, "the completeness file stays behind");
        }
    }
}

impl Handle {
    fn open(folder: &Path, options: &SledOptions) -> Result<Self, OpenError> {
        let engine = open::open(folder, options)?;
        let records = Records { last: engine.record, filed: engine.record.count };
        let (poison, torn) = (OnceLock::new(), AtomicBool::new(false));
        Ok(Self { engine, records: Mutex::new(records), poison, torn })
    }

    fn check(&self) -> Result<(), KvError> {
        self.poison.get().map_or(Ok(()), |cause| Err(poisoned(cause)))
    }

    fn poison(&self, error: &dyn std::error::Error) {
        let _ = self.poison.set(with_causes(error));
    }

    /// Runs a read. Damage concerns the entries that were read and no others; after any other error, or a
    /// panic, nothing of the engine is trusted.
    fn contained<T>(&self, read: impl FnOnce(&Engine) -> Result<T, KvError>) -> Result<T, KvError> {
        let result = contain(|| read(&self.engine)).unwrap_or_else(|panic| Err(unknown(panic)));
        result.inspect_err(|error| {
            if !matches!(error, KvError::Corrupt(_)) {
                self.poison(error);
            }
        })
    }

    /// The value of a key that was seen as `stored`.
    ///
    /// A commit may replace a value in parts, and remove the old parts, between our reads of them: then the key
    /// is read again. Only when no commit can come in between is what is missing damage.
    fn value(&self, table: Table, key: &[u8], mut stored: IVec) -> Result<Option<Vec<u8>>, KvError> {
        let tree = &self.engine.tables[table.index()];
        for _ in 0..READ_TRIES {
            if let Ok(value) = value::read(&stored, &self.engine.parts)? {
                return Ok(Some(value));
            }
            match tree.get(key).map_err(kv_error)? {
                Some(found) => stored = found,
                None => return Ok(None),
            }
        }
        let _no_commit = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        // The one that we waited for may have failed in the midst.
        self.check()?;
        let Some(stored) = tree.get(key).map_err(kv_error)? else { return Ok(None) };
        let value = value::read(&stored, &self.engine.parts)?;
        value.map(Some).map_err(|what| value::damaged(table, key, what))
    }

    fn collect(
        &self,
        table: Table,
        entries: impl Iterator<Item = sled::Result<(IVec, IVec)>>,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        let values = entries.map(|entry| {
            let (key, stored) = entry.map_err(kv_error)?;
            Ok(self.value(table, &key, stored)?.map(|value| (key.to_vec(), value)))
        });
        // An entry that was removed meanwhile does not count.
        values.filter_map(Result::transpose).take(limit).collect()
    }

    /// Applies `batch` after `last`, all or nothing, and makes it durable. Any error poisons.
    fn apply(&self, batch: &Batch, last: &Record, durable: bool) -> Result<Record, KvError> {
        let next = last.after(batch);
        // If sled fails after this is set, its memory may hold half of the batch.
        let applying = Cell::new(false);
        let applied = contain(|| self.transact(batch, next, &applying));
        if applying.get() && !matches!(applied, Ok(Ok(_))) {
            self.torn.store(true, Relaxed);
        }
        let record = applied.map_err(unknown)?.map_err(|error| match error {
            TransactionError::Storage(error) => kv_error(error),
            TransactionError::Abort(error) => error,
        })?;
        contain(|| self.engine.db.flush()).map_err(unknown)?.map_err(kv_error)?;
        if durable {
            self.engine.file.sync_data().map_err(unknown)?;
        }
        Ok(record)
    }

    fn transact(
        &self,
        batch: &Batch,
        next: Record,
        applying: &Cell<bool>,
    ) -> Result<Record, TransactionError<KvError>> {
        let (trees, place) = self.touched(batch);
        trees[..].transaction(|views| {
            let mut record = next;
            let content = &mut record.content;
            let (parts, proof) = (&views[trees.len() - 2], &views[trees.len() - 1]);
            for (number, write) in batch.writes.iter().enumerate() {
                let view = &views[place[write.table.index()]];
                let (name, key) = (write.table.name(), write.key.as_slice());
                let Some(value) = &write.value else {
                    if let Some(old) = view.remove(key)? {
                        content.sub(name, key, &old);
                        remove_parts(parts, write, &old, content)?;
                    }
                    continue;
                };
                let (stored, stub) = value::encode(value, next.count, number);
                if let Some(old) = view.insert(key, stored.as_slice())? {
                    content.sub(name, key, &old);
                    remove_parts(parts, write, &old, content)?;
                }
                content.add(name, key, &stored);
                if let Some(stub) = stub {
                    insert_parts(parts, stub, value, content)?;
                }
            }
            proof.insert(PROOF_KEY, record.encode())?;
            applying.set(true);
            Ok::<_, ConflictableTransactionError<KvError>>(record)
        })
    }

    /// The trees of a batch, with the parts and the proof as the last, and where each table is among them.
    fn touched(&self, batch: &Batch) -> (Vec<Tree>, [usize; Table::ALL.len()]) {
        let mut trees = Vec::with_capacity(Table::ALL.len() + 2);
        let mut place = [usize::MAX; Table::ALL.len()];
        for write in &batch.writes {
            let index = write.table.index();
            if place[index] == usize::MAX {
                place[index] = trees.len();
                trees.push(self.engine.tables[index].clone());
            }
        }
        trees.extend([self.engine.parts.clone(), self.engine.proof.clone()]);
        (trees, place)
    }

    /// Closes sled, whose `Drop` may panic.
    ///
    /// That `Drop` also writes what is in memory, and with it the half of a batch, unless sled itself knows of
    /// an error. Then it is better never to drop it.
    fn close(self: Box<Self>) -> State {
        if self.torn.load(Relaxed) && self.engine.db.context.global_error().is_ok() {
            let cause = self.poison.get().cloned().unwrap_or_default();
            tracing::error!(cause, "leaking a sled database that cannot be closed safely");
            mem::forget(self);
            return State::Tainted(cause);
        }
        match contain(|| drop(self)) {
            Ok(()) => State::Closed("it is closed".into()),
            Err(panic) => State::Closed(panic.to_string()),
        }
    }
}

/// What the watchdog does. See there.
fn wake_waiters(state: &RwLock<State>) {
    if let Ok(state) = state.try_read()
        && let State::Open(handle) = &*state
        && handle.engine.db.context.global_error().is_err()
    {
        let _ = contain(|| handle.engine.db.flush());
    }
}

/// Puts the parts of a new value in place.
fn insert_parts(
    parts: &TransactionalTree,
    stub: Stub,
    value: &[u8],
    content: &mut Content,
) -> Result<(), UnabortableTransactionError> {
    for (key, part) in stub.keys().zip(value.chunks(PART_BYTES)) {
        // There is none, unless a loss was accepted.
        if let Some(stray) = parts.insert(&key[..], part)? {
            content.sub(PARTS_TREE, &key, &stray);
        }
        content.add(PARTS_TREE, &key, part);
    }
    Ok(())
}

/// Removes the parts of the value that `old` stands for, if it has any.
fn remove_parts(
    parts: &TransactionalTree,
    write: &Write,
    old: &[u8],
    content: &mut Content,
) -> Result<(), ConflictableTransactionError<KvError>> {
    let stub = match value::decode(old) {
        Some(Stored::Whole(_)) => return Ok(()),
        Some(Stored::Parts(stub)) => stub,
        None => {
            let error = value::damaged(write.table, &write.key, "it is neither whole nor in parts");
            return Err(ConflictableTransactionError::Abort(error));
        }
    };
    for key in stub.keys() {
        // One that is missing stays in the sum, so the next open finds the damage.
        if let Some(part) = parts.remove(&key[..])? {
            content.sub(PARTS_TREE, &key, &part);
        }
    }
    Ok(())
}

fn poisoned(cause: &str) -> KvError {
    unknown(Poisoned { engine: NAME, cause: cause.to_owned() })
}

fn unknown(cause: impl Into<Cause>) -> KvError {
    KvError::Unknown(cause.into())
}

#[cfg(test)]
mod tests;
