//! Disks to make snapshots of: a source that opens them, and the local one, a folder of raw image files.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    num::NonZeroU64,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use rustix::{
    fs::{Advice, Mode, OFlags, SeekFrom, fadvise, open, seek},
    io::Errno,
};
use serde::Deserialize;
use thiserror::Error;

use super::DiskId;

/// The longest sidecar file read.
const SIDECAR_BYTES_MAX: u64 = 64 * 1024;

/// Opens disks by id.
pub trait DiskSource: Send + Sync {
    /// Opens a disk for reading. The size in its [`DiskInfo`] holds for as long as the disk is open;
    /// see [`DiskRead::check_unchanged`].
    fn open(&self, disk: &DiskId) -> Result<Box<dyn DiskRead>, DiskError>;
}

/// An open disk.
pub trait DiskRead: Send + Sync {
    /// What is known of the disk since it was opened.
    fn info(&self) -> &DiskInfo;

    /// Fills the whole buffer from `offset`. An error leaves the buffer in any state.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError>;

    /// The first range at or after `offset` that may hold data; all before it reads as zeros.
    ///
    /// A range is never empty and never goes past the disk's size. `None`: only zeros up to the end.
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError>;

    /// Says that this range, which may hold data, is read next: a disk that can fetch it meanwhile may begin to.
    fn will_read(&self, _range: Range<u64>) {}

    /// Fails if the disk is no longer the one that was opened: gone, replaced, or of another size.
    ///
    /// A disk that shrinks reads as zeros past its new end, so what was read is to be trusted only after this.
    fn check_unchanged(&self) -> Result<(), DiskError>;
}

/// What a disk is, apart from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskInfo {
    /// Its name.
    pub id: DiskId,
    /// Its size in bytes.
    pub size: u64,
    /// Which of the things that ever had this name it is: differs once another has taken its place. Short.
    ///
    /// For a file its inode number and the time it was made: inode numbers are used again. Not its device number, which may
    /// be another after a reboot; only where the file system does not know when files were made it has to do.
    pub identity: String,
    /// Product ids that its snapshots inherit.
    pub product_ids: Vec<String>,
    /// The folder it belongs to, if it names one.
    pub folder_id: Option<String>,
}

/// Why a disk could not be opened or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiskError {
    /// There is no such disk.
    #[error("disk {disk} does not exist")]
    NotFound {
        /// The disk asked for.
        disk: DiskId,
    },
    /// There is something of that name, but no regular file; symbolic links are not followed.
    #[error("disk {disk} is not a regular file")]
    NotAFile {
        /// The disk asked for.
        disk: DiskId,
    },
    /// The image could not be opened or looked up.
    #[error("cannot open disk {disk}")]
    Open {
        /// The disk asked for.
        disk: DiskId,
        /// The cause.
        source: io::Error,
    },
    /// The file beside the image cannot be read or understood.
    #[error("cannot read the sidecar file of disk {disk}")]
    Sidecar {
        /// The disk it belongs to.
        disk: DiskId,
        /// The cause.
        source: io::Error,
    },
    /// The image could not be read.
    #[error("cannot read disk {disk} at offset {offset}")]
    Read {
        /// The disk.
        disk: DiskId,
        /// The first byte that could not be read.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// The image ended too early, though its size is what it was.
    #[error("disk {disk} ends at offset {offset}, {missing} bytes too early")]
    ShortRead {
        /// The disk.
        disk: DiskId,
        /// The first byte that is not there.
        offset: u64,
        /// How many bytes were still asked for.
        missing: u64,
    },
    /// The disk has another size than when it was opened.
    #[error("disk {disk} changed its size from {was} to {now} bytes")]
    Changed {
        /// The disk.
        disk: DiskId,
        /// Its size in bytes when the work on it began.
        was: u64,
        /// Its size in bytes now.
        now: u64,
    },
    /// Another file has taken the place of the image.
    #[error("disk {disk} was replaced by another file")]
    Replaced {
        /// The disk.
        disk: DiskId,
    },
    /// The image is gone.
    #[error("disk {disk} vanished")]
    Vanished {
        /// The disk.
        disk: DiskId,
    },
}

/// A folder of raw image files `<disk id>.raw`.
///
/// Beside an image may lie `<disk id>.json` with `product_ids` (a list) and `folder_id`, both optional. Other
/// fields are refused: a misspelt one would be lost in silence.
#[derive(Debug, Clone)]
pub struct DiskFolder {
    root: PathBuf,
}

impl DiskFolder {
    /// The disks in this folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Opens one disk.
    pub fn open(&self, disk: &DiskId) -> Result<Disk, DiskError> {
        let path = self.root.join(format!("{disk}.raw"));
        let file = open_no_follow(&path).map_err(|errno| match errno {
            Errno::NOENT => DiskError::NotFound { disk: disk.clone() },
            Errno::LOOP => DiskError::NotAFile { disk: disk.clone() },
            _ => DiskError::Open { disk: disk.clone(), source: errno.into() },
        })?;
        let found = file.metadata().map_err(|source| DiskError::Open { disk: disk.clone(), source })?;
        if !found.is_file() {
            return Err(DiskError::NotAFile { disk: disk.clone() });
        }
        let sidecar = read_sidecar(&self.root.join(format!("{disk}.json")))
            .map_err(|source| DiskError::Sidecar { disk: disk.clone(), source })?;
        let info = DiskInfo {
            id: disk.clone(),
            size: found.len(),
            identity: identity_of(&found),
            product_ids: sidecar.product_ids,
            folder_id: sidecar.folder_id,
        };
        Ok(Disk { info, file, path })
    }
}

impl DiskSource for DiskFolder {
    fn open(&self, disk: &DiskId) -> Result<Box<dyn DiskRead>, DiskError> {
        Ok(Box::new(self.open(disk)?))
    }
}

/// An open raw image file.
#[derive(Debug)]
pub struct Disk {
    info: DiskInfo,
    file: File,
    path: PathBuf,
}

impl Disk {
    fn id(&self) -> DiskId {
        self.info.id.clone()
    }

    /// `lseek` for data or for a hole: `None` if there is none up to the end.
    fn seek(&self, offset: u64, to: SeekFrom) -> Result<Option<u64>, DiskError> {
        match seek(&self.file, to) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(errno) => Err(DiskError::Read { disk: self.id(), offset, source: errno.into() }),
        }
    }
}

impl DiskRead for Disk {
    fn info(&self) -> &DiskInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset.saturating_add(done as u64);
            match self.file.read_at(&mut buffer[done..], at) {
                Ok(0) => {
                    self.check_unchanged()?;
                    let missing = (buffer.len() - done) as u64;
                    return Err(DiskError::ShortRead { disk: self.id(), offset: at, missing });
                }
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(DiskError::Read { disk: self.id(), offset: at, source }),
            }
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        let size = self.info.size;
        if offset >= size {
            return Ok(None);
        }
        let start = match self.seek(offset, SeekFrom::Data(offset)) {
            // The file system cannot tell: all of it is data.
            Err(DiskError::Read { source, .. }) if cannot_seek_data(&source) => {
                return Ok(Some(offset..size));
            }
            found => found?,
        };
        let Some(start) = start.filter(|&start| start < size) else { return Ok(None) };
        let end = self.seek(start, SeekFrom::Hole(start))?;
        Ok(end.filter(|&end| end > start).map(|end| start..end.min(size)))
    }

    fn will_read(&self, range: Range<u64>) {
        let length = NonZeroU64::new(range.end.saturating_sub(range.start));
        // A hint. What it cannot fetch now, a read will, or will say why not.
        _ = fadvise(&self.file, range.start, length, Advice::WillNeed);
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        let failed = |source| DiskError::Open { disk: self.id(), source };
        let held = self.file.metadata().map_err(failed)?;
        if held.len() != self.info.size {
            return Err(DiskError::Changed { disk: self.id(), was: self.info.size, now: held.len() });
        }
        match self.path.symlink_metadata() {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => Ok(()),
            Ok(_) => Err(DiskError::Replaced { disk: self.id() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(DiskError::Vanished { disk: self.id() })
            }
            Err(source) => Err(failed(source)),
        }
    }
}

fn identity_of(found: &Metadata) -> String {
    let made = found.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    identity(found.dev(), found.ino(), made)
}

/// See [`DiskInfo::identity`]. `made`: since 1970.
fn identity(device: u64, inode: u64, made: Option<Duration>) -> String {
    match made {
        Some(made) => format!("{inode}@{}", made.as_nanos()),
        None => format!("{inode}:{device}"),
    }
}

fn cannot_seek_data(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP))
}

/// Opens a file for reading unless it is a symbolic link. Does not wait for the writer of a pipe.
fn open_no_follow(path: &Path) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map(File::from)
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sidecar {
    product_ids: Vec<String>,
    folder_id: Option<String>,
}

fn read_sidecar(path: &Path) -> io::Result<Sidecar> {
    let file = match open_no_follow(path) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Sidecar::default()),
        Err(errno) => return Err(errno.into()),
    };
    let mut text = Vec::new();
    let read = file.take(SIDECAR_BYTES_MAX + 1).read_to_end(&mut text)?;
    if read as u64 > SIDECAR_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("over {SIDECAR_BYTES_MAX} bytes")));
    }
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_the_same_after_a_reboot_and_another_in_its_place_is_not() {
        let made = |nanos| Some(Duration::from_nanos(nanos));
        let disk = identity(1, 17, made(5));
        assert_eq!(identity(2, 17, made(5)), disk, "the device number may change");
        for other in [identity(1, 18, made(5)), identity(1, 17, made(6)), identity(1, 17, None)] {
            assert_ne!(other, disk);
        }
        assert_ne!(identity(1, 17, None), identity(2, 17, None), "nothing better is known");
    }
}
