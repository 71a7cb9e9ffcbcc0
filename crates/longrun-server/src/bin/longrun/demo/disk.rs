//! Disk images for the demo, and a watch on what is read of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use longrun_snapshot::data::{DiskError, DiskFolder, DiskId, DiskInfo, DiskRead, DiskSource};

const BLOCK: usize = 64 * 1024;

/// Makes a sparse image: half of every 16 MiB is data, a third of it noise, a third text, a third repetition. Gives the
/// bytes of data.
pub(super) fn make(path: &Path, size: u64, seed: u64) -> Result<u64> {
    let stripe = 16 * 1024 * 1024;
    let mut file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    file.set_len(size)?;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut block = vec![0; BLOCK];
    let mut written = 0;
    let mut offset = 0;
    while offset < size {
        file.seek(SeekFrom::Start(offset))?;
        for place in 0..(stripe / 2) / BLOCK as u64 {
            fill(&mut block, place % 3, &mut state);
            file.write_all(&block)?;
            written += BLOCK as u64;
        }
        offset += stripe;
    }
    file.sync_all()?;
    Ok(written)
}

fn fill(block: &mut [u8], sort: u64, state: &mut u64) {
    let text = b"an operation is done when the work is finished, or the system is wholly back where it was; ";
    match sort {
        0 => {
            for word in block.chunks_mut(8) {
                // Xorshift: noise that zstd cannot make smaller.
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
            }
        }
        1 => block.iter_mut().zip(text.iter().cycle()).for_each(|(to, from)| *to = *from),
        _ => block.fill(state.to_le_bytes()[0] | 1),
    }
}

/// Cuts an image short, as a failing device would.
pub(super) fn cut(path: &Path, size: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(size).with_context(|| format!("cannot cut {}", path.display()))
}

/// Every file under a folder.
pub(super) fn files_under(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_under(&entry.path())?);
        } else {
            files.insert(entry.path());
        }
    }
    Ok(files)
}

/// Size and digest of a file.
pub(super) fn digest(path: &Path) -> Result<(u64, [u8; 32])> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; BLOCK];
    let mut size = 0;
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok((size, *hasher.finalize().as_bytes()));
        }
        hasher.update(&block[..read]);
        size += read as u64;
    }
}

/// The lowest offset that was read of each disk since the process began.
pub(super) type Lowest = Arc<Mutex<BTreeMap<DiskId, u64>>>;

/// Disks whose reads are noted.
pub(super) struct WatchedDisks {
    pub(super) disks: DiskFolder,
    pub(super) lowest: Lowest,
}

impl DiskSource for WatchedDisks {
    fn open(&self, disk: &DiskId) -> Result<Box<dyn DiskRead>, DiskError> {
        Ok(Box::new(WatchedDisk { disk: Box::new(self.disks.open(disk)?), lowest: Arc::clone(&self.lowest) }))
    }
}

struct WatchedDisk {
    disk: Box<dyn DiskRead>,
    lowest: Lowest,
}

impl DiskRead for WatchedDisk {
    fn info(&self) -> &DiskInfo {
        self.disk.info()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let mut lowest = self.lowest.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = lowest.entry(self.disk.info().id.clone()).or_insert(offset);
        *entry = offset.min(*entry);
        drop(lowest);
        self.disk.read_at(offset, buffer)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        self.disk.next_data(offset)
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        self.disk.check_unchanged()
    }
}
