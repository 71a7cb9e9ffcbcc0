//! The free space that a commit needs before sled may see it.
//!
//! A disk that fills up under sled costs a reopen. Two calls, `fstatvfs` and `fstat`, a microsecond, spare that.

use std::fs::File;
use std::io;
use std::path::Path;

use longrun_store::{Batch, KvError};
use rustix::fs::fstatvfs;

use crate::error::DiskFull;
use crate::limits::{DB_BYTES_PER_SNAPSHOT_BYTE, SPACE_PER_BATCH_BYTE};

/// Refuses `batch` while the file system of sled's `db`, in `folder`, has less free than the reserve, the snapshot
/// of the next open and the batch's own need. With no reserve nothing is checked.
pub(crate) fn check(db: &File, folder: &Path, reserve: u64, batch: &Batch) -> Result<(), KvError> {
    if reserve == 0 {
        return Ok(());
    }
    let snapshot = db.metadata().map_or(0, |meta| meta.len() / DB_BYTES_PER_SNAPSHOT_BYTE);
    let batch = SPACE_PER_BATCH_BYTE * batch.byte_len() as u64;
    let needed = reserve.saturating_add(snapshot).saturating_add(batch);
    match free(db) {
        Some(free) if free < needed => {
            let full = DiskFull { path: folder.to_path_buf(), free, needed };
            Err(KvError::NotApplied(Box::new(io::Error::new(io::ErrorKind::StorageFull, full))))
        }
        _ => Ok(()),
    }
}

/// Bytes that are free for this user, if the file system tells. Some, in user space, answer with zeros.
fn free(file: &File) -> Option<u64> {
    let stat = fstatvfs(file).ok().filter(|stat| stat.f_blocks > 0)?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
