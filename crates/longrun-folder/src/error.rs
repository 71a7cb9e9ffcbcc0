//! Errors of opening, and the typed causes inside [`KvError`](longrun_store::KvError).

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use longrun_store::{Cause, KvError};
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
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Stored bytes are damaged or missing. Restore a backup.
    #[error("{} is damaged: {what}", path.display())]
    Corrupt {
        /// The file or folder.
        path: PathBuf,
        /// What was found.
        what: String,
        /// What the engine said, if it was the engine that found it.
        source: Option<Cause>,
    },
    /// Acknowledged batches are missing. Restore a backup, or see [`FolderOptions::accept_loss`].
    ///
    /// [`FolderOptions::accept_loss`]: crate::FolderOptions::accept_loss
    #[error("{} has lost acknowledged batches: at least {expected} were written, {found} are left", path.display())]
    Truncated {
        /// The folder.
        path: PathBuf,
        /// How many batches were acknowledged, at the least.
        expected: u64,
        /// How many the database holds.
        found: u64,
    },
    /// A newer version wrote the folder.
    #[error("{} has format {found}, and this version reads formats up to {supported}", path.display())]
    FutureFormat {
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this version reads.
        supported: u32,
    },
    /// A panic inside the engine, of which only sled is known, left half a batch in memory. The database is sound on disk
    /// and opens in a new process, but closing it in this one would write that half.
    #[error("{} cannot be reopened by this process: {cause}", path.display())]
    ProcessTainted {
        /// The folder.
        path: PathBuf,
        /// What happened.
        cause: String,
    },
}

impl OpenError {
    /// For `map_err`: the file system refused to `action` what is at `path`. Less bytes, or others, than must be there
    /// are damage.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                Self::damaged(path, format!("could not {action} it"), source)
            }
            _ => Self::Io { action, path: path.to_path_buf(), source },
        }
    }

    /// What is at `path` is damaged.
    pub fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_path_buf(), what: what.into(), source: None }
    }

    /// What is at `path` is damaged, as the engine found.
    pub fn damaged(path: &Path, what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Corrupt { path: path.to_path_buf(), what: what.into(), source: Some(source.into()) }
    }

    /// Of `expected` batches in `folder`, or more, `found` are left.
    pub fn truncated(folder: &Path, expected: u64, found: u64) -> Self {
        Self::Truncated { path: folder.to_path_buf(), expected, found }
    }
}

/// What a reopen that failed means to the caller of [`Kv`](longrun_store::Kv).
impl From<OpenError> for KvError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Corrupt { .. } | OpenError::Truncated { .. } => Self::Corrupt(Box::new(error)),
            other => Self::Unknown(Box::new(other)),
        }
    }
}

/// A batch that is larger than a store in a folder takes. Inside [`KvError::NotApplied`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BatchTooLarge {
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

/// The store refuses work since an earlier error. Inside [`KvError::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the {engine} store is poisoned, reopen it: {cause}")]
pub struct Poisoned {
    /// The engine's name.
    pub engine: &'static str,
    /// The earlier error.
    pub cause: String,
}

/// The engine panicked; the panic was stopped here. Inside [`KvError::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the engine panicked: {message}")]
pub struct EnginePanicked {
    /// What the panic said.
    pub message: String,
}

/// Runs a call into an engine and turns a panic into a value.
///
/// What the engine leaves behind a panic is not to be looked at again: the caller poisons it.
pub fn contain<T>(call: impl FnOnce() -> T) -> Result<T, EnginePanicked> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| EnginePanicked { message: message(&*payload) })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
