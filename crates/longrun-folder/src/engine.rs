//! [`Engine`]: what a database has to do below a [`FolderKv`](crate::FolderKv).

use std::path::Path;

use longrun_store::{Batch, Cause, Direction, Entry, KeyRange, KvError, Table};

use crate::error::OpenError;
use crate::options::FolderOptions;

/// The tables of a database of format 1, by [`Table::index`].
pub type Tables<T> = [T; Table::ALL.len()];

// An engine takes a missing table for damage. So one more table is one more format: raise `record::FORMAT`, and have
// `FolderKv` make the new table in a database whose record has the old format.
const _: () = assert!(Table::ALL.len() == 15);

/// A database engine in a place of its own: a file or a folder.
///
/// Panics are contained by the caller. `commit` is called by one thread at a time; `get` and `scan` by any number, also
/// during a `commit`. After an error of `commit`, and after an error of a reading that is not
/// [`KvError::Corrupt`], nothing is called but `close`.
pub trait Engine: Send + Sync + Sized + 'static {
    /// How it is opened.
    type Options: Clone + Send + Sync + 'static;

    /// The engine's name, for logs and reports.
    const NAME: &'static str;
    /// The name of its file or folder in the store's folder.
    const PLACE: &'static str;

    /// The options that are not the engine's own.
    fn folder_options(options: &Self::Options) -> &FolderOptions;

    /// Makes a database with every [`Table`] and with `record`, and closes it. Nobody depends on it yet: the caller
    /// syncs it and renames it to where it belongs.
    fn create(place: &Path, options: &Self::Options, record: &[u8]) -> Result<(), OpenError>;

    /// Opens a database that `create` made. A [`Table`] that is not there is damage.
    fn open(place: &Path, options: &Self::Options) -> Result<Self, OpenError>;

    /// The record of the last batch.
    fn record(&self) -> Result<Option<Vec<u8>>, KvError>;

    /// As [`Kv::get`](longrun_store::Kv::get).
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// As [`Kv::scan`](longrun_store::Kv::scan); `range` is not empty.
    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError>;

    /// Makes `batch` and `record` durable together, as [`Kv::commit`](longrun_store::Kv::commit). An error that is not
    /// [`KvError::NotApplied`] leaves the outcome open until the next `open`.
    fn commit(&self, batch: &Batch, record: &[u8]) -> Result<(), KvError>;

    /// Closes it. By the time this returns, another `open` may begin.
    fn close(self) -> Result<(), Cause>;
}
