//! Writing files so that a crash leaves the old or the new, never a part.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{ChunkError, error::Subject};

/// The end of every temporary name.
const TEMPORARY: &str = ".tmp";

/// Makes an [`io::Error`] into a [`ChunkError`] that says what was being done to what.
pub(super) fn failed<'a>(
    action: &'static str,
    what: &'a Subject,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> ChunkError + 'a {
    move |source| ChunkError::of_io(action, what.clone(), Some(path.to_owned()), source)
}

/// Writes `target` through a temporary file in its folder: `fill` it, sync it, rename it.
///
/// The content is durable on return; the name only after [`sync_folder`]. On error `target` is as before and the
/// temporary file is gone; a crash may leave one behind, and [`stem_of_temporary`] tells it by the `stem`.
pub(super) fn replace_file<E: From<ChunkError>>(
    target: &Path,
    stem: &str,
    what: &Subject,
    fill: impl FnOnce(&File) -> Result<(), E>,
) -> Result<(), E> {
    let (temporary, file) = create_temporary(folder_of(target), stem, what)?;
    let replaced = fill(&file)
        .and_then(|()| Ok(file.sync_data().map_err(failed("sync", what, target))?))
        .and_then(|()| Ok(fs::rename(&temporary, target).map_err(failed("rename", what, target))?));
    if replaced.is_err() {
        // Only tidiness: a sweep takes what is left.
        let _ = fs::remove_file(&temporary);
    }
    replaced
}

/// Writes `target` through a temporary file in its folder, unless there is such a file: of two who do so at the same time one
/// is first, and what he wrote stays.
///
/// The content is durable on return; the name only after [`sync_folder`]. A crash may leave a temporary file behind.
pub(super) fn write_new_file(
    target: &Path,
    stem: &str,
    what: &Subject,
    bytes: &[u8],
) -> Result<(), ChunkError> {
    let (temporary, mut file) = create_temporary(folder_of(target), stem, what)?;
    let written =
        file.write_all(bytes).and_then(|()| file.sync_data()).map_err(failed("write", what, target));
    // A second name, and not another one: renaming would take the place of a file that is there.
    let linked = written.and_then(|()| match fs::hard_link(&temporary, target) {
        // Somebody else was first; or he was, and his sweep took our temporary file for one that a crash left.
        Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
            Ok(())
        }
        linked => linked.map_err(failed("write", what, target)),
    });
    // Only tidiness: a sweep takes what is left.
    let _ = fs::remove_file(&temporary);
    linked
}

/// A new file under a name that nobody uses. Taking the next name when one is there also serves
/// processes that share the folder and happen to have the same process id.
fn create_temporary(folder: &Path, stem: &str, what: &Subject) -> Result<(PathBuf, File), ChunkError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".{stem}.{}-{count}{TEMPORARY}", process::id()));
        match create_private(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("create", what, &path)(error)),
        }
    }
}

/// A new file that nobody but the service's user may read: it is data of a disk. Fails if there is one.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// What a temporary file was to become; `None` if the name is no temporary one.
pub(super) fn stem_of_temporary(name: &str) -> Option<&str> {
    let (stem, _writer) = name.strip_prefix('.')?.strip_suffix(TEMPORARY)?.rsplit_once('.')?;
    Some(stem)
}

/// The folder a path is in; for a bare name the current one.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path, what: &Subject) -> Result<(), ChunkError> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(failed("sync", what, folder))
}

/// Makes a folder for the service's user alone, unless it is there. Its name is durable after [`sync_folder`] of the folder it is in.
pub(super) fn create_folder(path: &Path, what: &Subject) -> Result<(), ChunkError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        created => created.map_err(failed("create", what, path)),
    }
}

/// Removes a file. `false`: there was none.
pub(super) fn remove_file(path: &Path, what: &Subject) -> Result<bool, ChunkError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("remove", what, path)(error)),
    }
}

/// Opens a file for reading. `None`: there is none.
pub(super) fn open_file(path: &Path, what: &Subject) -> Result<Option<File>, ChunkError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("open", what, path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        fs::write(&target, "old").unwrap();
        let no = || ChunkError::NoManifest { snapshot: "s".parse().unwrap() };
        assert!(replace_file(&target, "x", &Subject::Store, |_| Err(no())).is_err());
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn temporary_names_tell_what_they_were_for() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _file) = create_temporary(folder.path(), "a-b", &Subject::Store).unwrap();
        assert_eq!(stem_of_temporary(path.file_name().unwrap().to_str().unwrap()), Some("a-b"));
        for other in ["a-b", ".a-b", "a.1-1.tmp", ".tmp", ".a.tmp.x"] {
            assert_eq!(stem_of_temporary(other), None, "{other}");
        }
    }
}
