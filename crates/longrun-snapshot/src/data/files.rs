//! Writing files so that a crash leaves the old or the new, never a part.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use super::ChunkError;

/// Makes an [`io::Error`] into a [`ChunkError`] that says what was being done to what.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ChunkError {
    move |source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ChunkError::NoSpace { action, path, source }
            }
            _ => ChunkError::Io { action, path, source },
        }
    }
}

/// Writes `target` through a temporary file in its folder: `fill` it, sync it, rename it.
///
/// The content is durable on return; the name only after [`sync_folder`]. On error `target` is as before and the
/// temporary file is gone; a crash may leave one behind.
pub(super) fn replace_file<E: From<ChunkError>>(
    target: &Path,
    fill: impl FnOnce(&File) -> Result<(), E>,
) -> Result<(), E> {
    let (temporary, file) = create_temporary(folder_of(target))?;
    let replaced = fill(&file)
        .and_then(|()| Ok(file.sync_data().map_err(failed("sync", target))?))
        .and_then(|()| Ok(fs::rename(&temporary, target).map_err(failed("rename a file to", target))?));
    if replaced.is_err() {
        // Only tidiness: whoever next begins on or removes this folder takes what is left.
        let _ = fs::remove_file(&temporary);
    }
    replaced
}

/// A new file under a name that nobody uses. Taking the next name when one is there also serves
/// processes that share the folder and happen to have the same process id.
fn create_temporary(folder: &Path) -> Result<(PathBuf, File), ChunkError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let name = format!(".{}-{}.tmp", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = folder.join(name);
        match File::create_new(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("create", &path)(error)),
        }
    }
}

/// The folder a path is in; for a bare name the current one.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), ChunkError> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(failed("sync", folder))
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_full_disk_has_its_own_name() {
        let error = |errno: Errno| failed("write", Path::new("x"))(errno.into());
        assert!(matches!(error(Errno::NOSPC), ChunkError::NoSpace { action: "write", .. }));
        assert!(matches!(error(Errno::DQUOT), ChunkError::NoSpace { .. }));
        assert!(matches!(error(Errno::IO), ChunkError::Io { .. }));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        fs::write(&target, "old").unwrap();
        let no = || ChunkError::NoSnapshot { snapshot: "s".parse().unwrap() };
        assert!(replace_file(&target, |_| Err(no())).is_err());
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
