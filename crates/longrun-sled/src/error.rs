//! Errors of opening, and the typed causes inside [`KvError`].

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use longrun_store::KvError;
use thiserror::Error;

/// Why a database could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another handle, in this process or in another, has the folder.
    #[error("{} is in use by another process or by another handle of this one", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The file system refused something. It may succeed later: a full disk is reported here.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Stored bytes are damaged. Restore a backup.
    #[error("{} is damaged: {what}", path.display())]
    Corrupt {
        /// The file or folder.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Acknowledged batches are missing. Restore a backup, or see [`SledOptions::accept_loss`].
    ///
    /// [`SledOptions::accept_loss`]: crate::SledOptions::accept_loss
    #[error("{} has lost acknowledged batches: at least {expected} were written, {found} are left", path.display())]
    Truncated {
        /// The folder.
        path: PathBuf,
        /// How many batches were acknowledged, at the least.
        expected: u64,
        /// How many the database holds.
        found: u64,
    },
    /// A newer version of this crate wrote the folder.
    #[error("{} has format {found}, and this version reads formats up to {supported}", path.display())]
    FutureFormat {
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this version reads.
        supported: u32,
    },
    /// A panic inside sled left half a batch in memory. The database is sound on disk and opens in a new
    /// process, but closing it in this one would write that half.
    #[error("{} cannot be reopened by this process: {cause}", path.display())]
    ProcessTainted {
        /// The folder.
        path: PathBuf,
        /// What happened.
        cause: String,
    },
}

impl OpenError {
    /// For `map_err`: an [`OpenError::Io`].
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }

    pub(crate) fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_path_buf(), what: what.into() }
    }

    /// What an error of sled means while opening.
    pub(crate) fn sled(path: &Path, error: sled::Error) -> Self {
        match error {
            sled::Error::Io(source) if !is_damage(&source) => {
                Self::Io { action: "open the sled database in", path: path.to_path_buf(), source }
            }
            other => Self::corrupt(path, format!("sled cannot open it: {other}")),
        }
    }
}

/// A batch that is larger than the engine stores well. Inside [`KvError::NotApplied`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LimitExceeded {
    /// A key is too long.
    #[error("a key has {len} bytes, the limit is {max}")]
    Key {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A value is too long.
    #[error("a value has {len} bytes, the limit is {max}")]
    Value {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The whole batch is too long.
    #[error("a batch has {len} bytes, the limit is {max}")]
    Batch {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
}

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

/// The file system has too little room to begin a commit. Inside an [`io::Error`] of kind
/// [`StorageFull`](io::ErrorKind::StorageFull), inside [`KvError::NotApplied`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the file system of {} has {free} bytes free, and a commit is begun with {needed} only", path.display())]
pub struct DiskFull {
    /// The folder.
    pub path: PathBuf,
    /// Bytes that are free for this user.
    pub free: u64,
    /// Bytes that have to be: the reserve and what the batch takes.
    pub needed: u64,
}

/// The engine refuses work since an earlier error. Inside [`KvError::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the sled store is poisoned, reopen it: {cause}")]
pub struct Poisoned {
    /// The earlier error.
    pub cause: String,
}

/// sled panicked; the panic was stopped here. Inside [`KvError::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("sled panicked: {message}")]
pub struct SledPanicked {
    /// What the panic said.
    pub message: String,
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

/// Runs a call into sled and turns a panic into a value.
///
/// What sled leaves behind a panic is not looked at again: each caller poisons the engine.
pub(crate) fn contain<T>(call: impl FnOnce() -> T) -> Result<T, SledPanicked> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| SledPanicked { message: panic_message(&*payload) })
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
