//! The lock file: one handle per folder.
//!
//! sled locks its `db` file too, but only after it has created and read other files, and it lets go at each
//! close. Ours is taken before anything is touched and is kept through every reopen.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::error::OpenError;

const FILE: &str = "longrun.lock";

/// Held as long as it lives; the kernel lets go of it when the process dies.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock of `folder`, or fails at once.
    pub(crate) fn acquire(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(OpenError::io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked { path: folder.to_path_buf() }),
            Err(errno) => Err(OpenError::io("lock", &path)(io::Error::from(errno))),
        }
    }
}
