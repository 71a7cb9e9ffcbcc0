//! What errors and panics of sled mean, and the one cause inside [`KvError`] that no other store has.

use std::io;
use std::path::Path;

use longrun_folder::{OpenError, contain};
use longrun_store::{Cause, KvError};
use thiserror::Error;

/// A value whose stored form is damaged. Inside [`KvError::Corrupt`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the value of {} in {table} is damaged: {what}", key.escape_ascii())]
pub struct DamagedValue {
    /// The table's name.
    pub table: &'static str,
    /// The key.
    pub key: Vec<u8>,
    /// What was found.
    pub what: &'static str,
}

/// Runs a call into sled while the database at `path` is opened.
pub(crate) fn opening<T>(path: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, OpenError> {
    contain(call).map_err(|panic| cannot_open(path, panic))?.map_err(|error| open_error(path, error))
}

/// What an error of sled means while opening.
pub(crate) fn open_error(path: &Path, error: sled::Error) -> OpenError {
    match error {
        sled::Error::Io(source) if !is_damage(&source) => {
            OpenError::Io { action: "open the sled database in", path: path.to_path_buf(), source }
        }
        other => cannot_open(path, other),
    }
}

/// What sled cannot open, or panics at, is damaged.
pub(crate) fn cannot_open(path: &Path, cause: impl Into<Cause>) -> OpenError {
    OpenError::damaged(path, "sled cannot open it", cause)
}

/// What an error of sled means to the caller of [`Kv`](longrun_store::Kv).
pub(crate) fn kv_error(error: sled::Error) -> KvError {
    match error {
        sled::Error::Corruption { .. } => KvError::Corrupt(Box::new(error)),
        sled::Error::Io(ref source) if is_damage(source) => KvError::Corrupt(Box::new(error)),
        // sled gives no source, and a caller wants to know a full disk from a failing one.
        sled::Error::Io(source) => KvError::Unknown(Box::new(source)),
        other => KvError::Unknown(Box::new(other)),
    }
}

/// True when the system read less, or other, than must be there.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
}
