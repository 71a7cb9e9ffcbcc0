//! [`FolderKv`]: the [`Kv`] trait on an [`Engine`] in a folder.

use std::error::Error;
use std::fmt;
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};

use longrun_store::{
    Batch, Direction, Durability, Entry, KeyRange, Kv, KvCapabilities, KvError, Table, with_causes,
};

use crate::engine::Engine;
use crate::error::{OpenError, Poisoned, contain};
use crate::files::{self, FolderLock};
use crate::limits::{BATCH_BYTES_MAX, LIMITS, VALUE_BYTES_MAX};
use crate::options::RESERVE_BYTES;
use crate::record::{self, Record, TAIL, Tail};

/// A [`Kv`] on an engine in a folder of its own. See the [crate] for what it adds to the engine.
pub struct FolderKv<E: Engine> {
    folder: PathBuf,
    options: E::Options,
    state: RwLock<State<E>>,
    counters: Counters,
    /// Held until all the rest is gone.
    _lock: FolderLock,
}

impl<E: Engine> fmt::Debug for FolderKv<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FolderKv")
            .field("engine", &E::NAME)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

enum State<E> {
    Open(Handle<E>),
    /// The last reopen failed, or is under way; the next one may succeed.
    Closed(String),
}

/// An open engine and what is known of it.
struct Handle<E> {
    engine: E,
    tail: Tail,
    /// The record of the last batch that is durable.
    last: Mutex<Record>,
    /// Set by the first error, for good.
    poison: OnceLock<String>,
}

#[derive(Default)]
struct Counters {
    batches: AtomicU64,
    bytes: AtomicU64,
}

/// What a [`FolderKv`] has done since it was opened, and its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FolderStats {
    /// Batches committed.
    pub batches: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Bytes of the files, now. Parts of them may be holes.
    pub disk_bytes: u64,
}

impl<E: Engine> FolderKv<E> {
    /// Opens the database in the folder `path`, or creates it there.
    ///
    /// Everything that was read or will be read is durable when this returns.
    pub fn open(path: impl AsRef<Path>, options: E::Options) -> Result<Self, OpenError> {
        let folder = files::create_folder(path.as_ref())?;
        let lock = FolderLock::acquire(&folder)?;
        let state = RwLock::new(State::Open(Handle::open(&folder, &options)?));
        Ok(Self { folder, options, state, counters: Counters::default(), _lock: lock })
    }

    /// What was done so far.
    pub fn stats(&self) -> FolderStats {
        FolderStats {
            batches: self.counters.batches.load(Relaxed),
            bytes: self.counters.bytes.load(Relaxed),
            disk_bytes: files::size(&self.folder),
        }
    }

    /// Runs `call` on the open engine; refuses when there is none to trust, before or after the call.
    fn with_handle<T>(&self, call: impl FnOnce(&Handle<E>) -> Result<T, KvError>) -> Result<T, KvError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let handle = match &*state {
            State::Open(handle) => handle,
            State::Closed(cause) => return Err(poisoned::<E>(cause)),
        };
        handle.check()?;
        let result = call(handle)?;
        handle.check()?;
        Ok(result)
    }

    fn durability(&self) -> Durability {
        E::folder_options(&self.options).durability
    }
}

impl<E: Engine> Kv for FolderKv<E> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.with_handle(|handle| handle.reading(|engine| engine.get(table, key)))
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        self.with_handle(|handle| {
            if range.is_empty() || limit == 0 {
                return Ok(Vec::new());
            }
            handle.reading(|engine| engine.scan(table, range, direction, limit))
        })
    }

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        self.with_handle(|handle| {
            LIMITS.check(batch).map_err(|error| KvError::NotApplied(Box::new(error)))?;
            if batch.writes.is_empty() {
                return Ok(());
            }
            let reserve = E::folder_options(&self.options).reserve_bytes.unwrap_or(RESERVE_BYTES);
            files::check_space(&self.folder, reserve, batch.byte_len())?;
            handle.apply(batch, self.durability())?;
            self.counters.batches.fetch_add(1, Relaxed);
            self.counters.bytes.fetch_add(batch.byte_len() as u64, Relaxed);
            Ok(())
        })
    }

    fn reopen(&self) -> Result<(), KvError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(handle) = mem::replace(&mut *state, State::Closed("it is being reopened".into())) {
            handle.close(&self.folder.join(E::PLACE), self.durability());
        }
        files::drop_page_cache(&self.folder.join(E::PLACE));
        match Handle::open(&self.folder, &self.options) {
            Ok(handle) => {
                *state = State::Open(handle);
                Ok(())
            }
            Err(error) => {
                *state = State::Closed(with_causes(&error));
                Err(error.into())
            }
        }
    }

    fn capabilities(&self) -> KvCapabilities {
        KvCapabilities::new(E::NAME, self.durability(), VALUE_BYTES_MAX, BATCH_BYTES_MAX)
    }
}

impl<E: Engine> Drop for FolderKv<E> {
    fn drop(&mut self) {
        let (place, durability) = (self.folder.join(E::PLACE), self.durability());
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(handle) = mem::replace(state, State::Closed("it is closed".into())) {
            handle.close(&place, durability);
        }
    }
}

impl<E: Engine> Handle<E> {
    fn open(folder: &Path, options: &E::Options) -> Result<Self, OpenError> {
        let place = folder.join(E::PLACE);
        let accept_loss = E::folder_options(options).accept_loss;
        // First of all, so that a future format is left alone.
        let tail = record::read_tail(folder)?;
        let expected = tail.filter(|_| !accept_loss).map_or(0, |record| record.count);
        if !place.try_exists().map_err(OpenError::io("find", &place))? {
            if expected > 0 {
                return Err(OpenError::truncated(folder, expected, 0));
            }
            create::<E>(folder, &place, options)?;
        }
        let engine = contain(|| E::open(&place, options)).map_err(|panic| {
            OpenError::damaged(&place, format!("{} panicked while it was opened", E::NAME), panic)
        })??;
        let record = read_record(&engine, &place, accept_loss)?;
        if record.count < expected {
            return Err(OpenError::truncated(folder, expected, record.count));
        }
        files::sync_all(&place)?;
        let path = folder.join(TAIL);
        let tail = Tail::open(&path)?;
        tail.write_durably(&record.encode()).map_err(OpenError::io("write", &path))?;
        Ok(Self { engine, tail, last: Mutex::new(record), poison: OnceLock::new() })
    }

    fn check(&self) -> Result<(), KvError> {
        self.poison.get().map_or(Ok(()), |cause| Err(poisoned::<E>(cause)))
    }

    fn poison(&self, error: &dyn Error) {
        let _ = self.poison.set(with_causes(error));
    }

    /// Damage concerns the entries that were read and no others; after any other error, or a panic, nothing of the
    /// engine is trusted.
    fn reading<T>(&self, read: impl FnOnce(&E) -> Result<T, KvError>) -> Result<T, KvError> {
        let result =
            contain(|| read(&self.engine)).unwrap_or_else(|panic| Err(KvError::Unknown(Box::new(panic))));
        result.inspect_err(|error| {
            if !matches!(error, KvError::Corrupt(_)) {
                self.poison(error);
            }
        })
    }

    fn apply(&self, batch: &Batch, durability: Durability) -> Result<(), KvError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Record { count: last.count + 1 };
        let applied = contain(|| self.engine.commit(batch, &next.encode()))
            .unwrap_or_else(|panic| Err(KvError::Unknown(Box::new(panic))));
        applied.inspect_err(|error| {
            if !matches!(error, KvError::NotApplied(_)) {
                self.poison(error);
            }
        })?;
        *last = next;
        if durability >= Durability::PowerLoss {
            // It is a hint, as good as the last one that was written.
            let _ = self.tail.write(&next.encode());
        }
        Ok(())
    }

    /// Closes the engine, whose `Drop` may panic, and then has the tail vouch for all that is there.
    fn close(self, place: &Path, durability: Durability) {
        let sound = self.check().is_ok();
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Self { engine, tail, .. } = self;
        let closed = match contain(|| engine.close()) {
            Ok(Ok(())) => vouch(&tail, last, place, durability).map_err(|error| with_causes(&error)),
            Ok(Err(cause)) => Err(with_causes(cause.as_ref())),
            Err(panic) => Err(panic.to_string()),
        };
        if let (true, Err(cause)) = (sound, closed) {
            tracing::warn!(engine = E::NAME, cause, "the store did not close cleanly");
        }
    }
}

/// Has the tail tell of `last`, once all that it vouches for is on the medium.
fn vouch(tail: &Tail, last: Record, place: &Path, durability: Durability) -> Result<(), OpenError> {
    if durability < Durability::PowerLoss {
        files::sync_all(place)?;
    }
    tail.write_durably(&last.encode()).map_err(OpenError::io("write the tail of", place))
}

/// Makes a database beside its place, and renames it when it is complete and on the medium.
fn create<E: Engine>(folder: &Path, place: &Path, options: &E::Options) -> Result<(), OpenError> {
    let new = folder.join(format!("{}.new", E::PLACE));
    files::remove(&new)?;
    contain(|| E::create(&new, options, &Record::default().encode())).map_err(|panic| {
        OpenError::damaged(&new, format!("{} panicked while it was created", E::NAME), panic)
    })??;
    files::sync_all(&new)?;
    fs::rename(&new, place).map_err(OpenError::io("rename", &new))?;
    files::sync_all(place)?;
    // The name of the folder itself.
    folder.parent().map_or(Ok(()), |parent| {
        fs::File::open(parent).and_then(|file| file.sync_all()).map_err(OpenError::io("sync", parent))
    })
}

/// The record in the database. One that is missing or damaged is a loss.
fn read_record<E: Engine>(engine: &E, place: &Path, accept_loss: bool) -> Result<Record, OpenError> {
    let what = "its record cannot be read";
    let bytes = contain(|| engine.record())
        .map_err(|panic| OpenError::damaged(place, what, panic))?
        .map_err(|error| OpenError::damaged(place, what, error))?;
    let record = match bytes {
        Some(bytes) => Record::decode(&bytes).map_err(|error| error.at(place)),
        None => Err(OpenError::corrupt(place, "it has no record of its batches")),
    };
    match record {
        Err(OpenError::Corrupt { what, .. }) if accept_loss => {
            tracing::warn!(what, "going on without the record, as asked");
            Ok(Record::default())
        }
        other => other,
    }
}

fn poisoned<E: Engine>(cause: &str) -> KvError {
    KvError::Unknown(Box::new(Poisoned { engine: E::NAME, cause: cause.to_owned() }))
}
