//! The folder itself: its lock, its syncs, its free space.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use longrun_store::KvError;
use rustix::fs::{Advice, FlockOperation, fadvise, flock, statvfs};

use crate::error::{DiskFull, OpenError};

pub(crate) const LOCK: &str = "longrun.lock";
/// What a commit needs beyond the reserve, in multiples of its batch.
const SPACE_PER_BATCH_BYTE: u64 = 4;

/// Makes the folder, for this user alone, with those above it. Its path, absolute and without links.
///
/// Its parent is not synced: that is for who opens the database in it.
pub fn create_folder(path: &Path) -> Result<PathBuf, OpenError> {
    if !path.is_dir() {
        let made = match path.parent() {
            Some(parent) => fs::create_dir_all(parent),
            None => Ok(()),
        };
        made.and_then(|()| DirBuilder::new().recursive(true).mode(0o700).create(path))
            .map_err(OpenError::io("create", path))?;
    }
    fs::canonicalize(path).map_err(OpenError::io("find", path))
}

/// Opens a file that this user alone may look into, to write it; makes it if it is not there.
pub(crate) fn private_file(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.open(path).map_err(OpenError::io("open", path))
}

/// The lock of a folder: one handle at a time. Held as long as it lives; the kernel lets go of it when the process dies.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // A child that is just being started holds the descriptor until it becomes another program: closing ours would
        // not let go of the lock.
        _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl FolderLock {
    /// Takes the lock of `folder`, or fails at once.
    pub fn acquire(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join(LOCK);
        let file = private_file(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked { path: folder.to_path_buf() }),
            Err(errno) => Err(OpenError::io("lock", &path)(io::Error::from(errno))),
        }
    }
}

/// Removes a file or a folder, if there is one.
pub(crate) fn remove(path: &Path) -> Result<(), OpenError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(OpenError::io("remove", path))
}

/// Calls `visit` for a file, or for all files and folders in a folder and for the folder itself, in this order.
///
/// What an engine removes meanwhile is passed over.
fn walk(path: &Path, visit: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let here = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            for entry in fs::read_dir(path)? {
                walk(&entry?.path(), visit)?;
            }
            visit(path)
        }
        Ok(_) => visit(path).or_else(here),
        Err(error) => here(error),
    }
}

/// Puts all that is at `path`, and its name, on the medium.
pub(crate) fn sync_all(path: &Path) -> Result<(), OpenError> {
    let sync = |path: &Path| File::open(path)?.sync_all();
    let synced = walk(path, &mut |path| sync(path)).and_then(|()| path.parent().map_or(Ok(()), sync));
    synced.map_err(OpenError::io("sync", path))
}

/// Lets the kernel forget what it caches of the files at `path`.
///
/// After a failed sync Linux keeps the pages, clean, although they are not on the medium; a reopen would read them as if
/// they were. Best effort: a page that is in use stays.
pub fn drop_page_cache(path: &Path) {
    let forgotten = walk(path, &mut |path| {
        let file = File::open(path)?;
        // Its error was reported before; what can still be written shall be.
        let _ = file.sync_data();
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        Ok(())
    });
    if let Err(error) = forgotten {
        tracing::warn!(%error, path = %path.display(), "the page cache of the store may not be dropped");
    }
}

/// Refuses a batch of `bytes` while the file system of `folder` has less free than `reserve` and what the batch takes. With
/// no reserve nothing is checked.
///
/// A disk that fills up under an engine costs a reopen. A call of `statvfs`, a microsecond, spares that.
pub fn check_space(folder: &Path, reserve: u64, bytes: usize) -> Result<(), KvError> {
    if reserve == 0 {
        return Ok(());
    }
    let needed = reserve.saturating_add(SPACE_PER_BATCH_BYTE * bytes as u64);
    match free(folder) {
        Some(free) if free < needed => {
            let full = DiskFull { path: folder.to_path_buf(), free, needed };
            Err(KvError::NotApplied(Box::new(io::Error::new(io::ErrorKind::StorageFull, full))))
        }
        _ => Ok(()),
    }
}

/// Bytes that are free for this user, if the file system tells. Some, in user space, answer with zeros.
fn free(folder: &Path) -> Option<u64> {
    let stat = statvfs(folder).ok().filter(|stat| stat.f_blocks > 0)?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes of all files at `path`.
pub(crate) fn size(path: &Path) -> u64 {
    let mut bytes = 0;
    let walked = walk(path, &mut |path| {
        let meta = fs::symlink_metadata(path)?;
        bytes += if meta.is_file() { meta.len() } else { 0 };
        Ok(())
    });
    if walked.is_err() { 0 } else { bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_dropped_is_free_though_a_child_has_its_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::acquire(folder.path()).unwrap();
        // As a child has it between its fork and its becoming another program.
        let inherited = lock.file.try_clone().unwrap();
        assert!(matches!(FolderLock::acquire(folder.path()), Err(OpenError::Locked { .. })));
        drop(lock);
        FolderLock::acquire(folder.path()).unwrap();
        drop(inherited);
    }
}
