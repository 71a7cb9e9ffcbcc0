//! Creation, which a crash may cut off: sled leaves a folder then that it does not open again.
//!
//! A mark is put into a folder in which sled has nothing yet, before sled, and taken away after `completeness` is there.
//! While there is the mark and no `completeness`, nothing was ever acknowledged, and what sled has left may go. A folder
//! without the mark is never touched.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use longrun_folder::OpenError;

use crate::completeness;

const MARK: &str = "longrun.creating";
/// What sled puts into a folder, beside its snapshots.
const SLED_FILES: [&str; 3] = ["db", "conf", "blobs"];

/// Puts the mark into a folder that is about to get a database, and clears what a creation that was cut off left there.
pub(crate) fn begin(folder: &Path) -> Result<(), OpenError> {
    let exists = |name| {
        let path = folder.join(name);
        path.try_exists().map_err(OpenError::io("find", &path))
    };
    if exists(completeness::FILE)? {
        return Ok(());
    }
    if exists(MARK)? {
        tracing::warn!(folder = %folder.display(), "beginning anew a creation that was not finished");
        return clear(folder).map_err(OpenError::io("clear", folder));
    }
    for name in SLED_FILES {
        if exists(name)? {
            return Ok(());
        }
    }
    let mark = folder.join(MARK);
    let put = || File::create(&mark)?.sync_all();
    put().map_err(OpenError::io("create", &mark))?;
    sync(folder)
}

/// Takes the mark away: `completeness` is on the medium.
pub(crate) fn end(folder: &Path) -> Result<(), OpenError> {
    let mark = folder.join(MARK);
    let taken = match fs::remove_file(&mark) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other,
    };
    taken.map_err(OpenError::io("remove", &mark))?;
    sync(folder)
}

fn sync(folder: &Path) -> Result<(), OpenError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(OpenError::io("sync", folder))
}

/// Removes what is sled's.
fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !SLED_FILES.contains(&name.as_str()) && !name.starts_with("snap.") {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
