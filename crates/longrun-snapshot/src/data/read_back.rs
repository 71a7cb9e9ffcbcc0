//! Reading a complete snapshot: to look at it, to check it, or to give the disk back.

use std::{
    fmt,
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Mutex, PoisonError, atomic::AtomicBool},
};

use thiserror::Error;

use super::{
    ChunkError, ChunkName, ChunkStore, Digest, ManifestEntry, ManifestHeader, ManifestReader, SnapshotId,
    Subject, Summary,
    files::{failed, folder_of, replace_file, sync_folder},
    geometry::is_zero,
    manifest::exchanged,
    parallel::{Broken, in_parallel, worker_count},
};

/// The unit in which a restored file is sparse: what file systems allocate.
const BLOCK_LEN: usize = 4096;
/// How many chunks are given to the workers at a time. Each worker has one of them in memory.
const CHUNKS_AT_A_TIME: usize = 16;
/// How many damaged places [`verify_all`] lists; it counts all.
pub const DAMAGED_PLACES_MAX: usize = 1000;

/// Why a snapshot could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadBackError {
    /// The chunk store or the file system failed, or the manifest is damaged: see [`ChunkError::is_damage`].
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A chunk is damaged or missing.
    #[error("snapshot {snapshot} is damaged at {place}")]
    Damaged {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Which chunk, and why.
        place: Box<DamagedPlace>,
    },
    /// The caller's `go_on` said no.
    #[error("reading snapshot {snapshot} was stopped")]
    Stopped {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// Something panicked while a chunk was read.
    #[error("reading snapshot {snapshot} panicked")]
    Panicked {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What the panic said: for the operator's logs, and not in the text.
        message: String,
    },
}

impl ReadBackError {
    /// Whether data of the snapshot is lost, in whole or in part. Trying again does not help.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Chunk(error) => error.is_damage(),
            Self::Damaged { .. } => true,
            Self::Stopped { .. } | Self::Panicked { .. } => false,
        }
    }
}

/// A place on the disk whose bytes are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedPlace {
    /// The index of the chunk.
    pub index: u64,
    /// Where on the disk it begins.
    pub offset: u64,
    /// The chunk in the store.
    pub name: ChunkName,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for DamagedPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, offset, name, why } = self;
        write!(f, "offset {offset}: {why} (chunk {index}, {name})")
    }
}

/// What was read and found whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Bytes of the disk that were read and checked. What was not is zeros, or was not to be read.
    pub bytes: u64,
    /// How many chunks they are in.
    pub chunks: u64,
    /// The digest of the whole, from the manifest: [`Summary::content_hash`].
    pub content_hash: Digest,
}

/// What [`verify_all`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What is whole.
    pub verified: Verified,
    /// How many chunks are not.
    pub damaged: u64,
    /// The first [`DAMAGED_PLACES_MAX`] of them.
    pub places: Vec<DamagedPlace>,
}

/// What the manifest of a snapshot says, see [`inspect`].
#[derive(Debug)]
pub struct Inspection {
    /// Which disk it is of.
    pub header: ManifestHeader,
    /// What it comes to.
    pub summary: Summary,
    /// Its chunks, one by one.
    pub entries: ManifestReader,
}

/// Reads the manifest of a snapshot and checks it, the chunks apart.
pub fn inspect(chunks: &dyn ChunkStore, snapshot: &SnapshotId) -> Result<Inspection, ChunkError> {
    let summary = Summary::of_manifest(chunks, snapshot)?;
    let entries = ManifestReader::open(chunks, snapshot)?;
    Ok(Inspection { header: entries.header().clone(), summary, entries })
}

/// Reads every chunk of a snapshot and checks it against the manifest. The first damage ends it.
///
/// `go_on` is asked before each chunk, with its offset on the disk; `false` stops. Several are read at a time, so it may be
/// a few chunks ahead.
pub fn verify(
    chunks: &dyn ChunkStore,
    snapshot: &SnapshotId,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<Verified, ReadBackError> {
    Reading { chunks, snapshot, wanted: &|_| true }.verify(go_on, &mut |place| {
        Err(ReadBackError::Damaged { snapshot: snapshot.clone(), place: Box::new(place) })
    })
}

/// As [`verify`], but reads only what nobody can have read back before: the chunks that are [fresh](ManifestEntry::fresh).
pub fn verify_fresh(
    chunks: &dyn ChunkStore,
    snapshot: &SnapshotId,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<Verified, ReadBackError> {
    Reading { chunks, snapshot, wanted: &|entry| entry.fresh }.verify(go_on, &mut |place| {
        Err(ReadBackError::Damaged { snapshot: snapshot.clone(), place: Box::new(place) })
    })
}

/// As [`verify`], but goes on after damage, to find all of it.
pub fn verify_all(
    chunks: &dyn ChunkStore,
    snapshot: &SnapshotId,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<Verdict, ReadBackError> {
    find_damage(chunks, snapshot, go_on, &mut |_| {})
}

/// As [`verify_all`], and tells of every damaged place as it is found, also of those that are only counted.
pub fn find_damage(
    chunks: &dyn ChunkStore,
    snapshot: &SnapshotId,
    go_on: &mut dyn FnMut(u64) -> bool,
    tell: &mut dyn FnMut(&DamagedPlace),
) -> Result<Verdict, ReadBackError> {
    let (mut damaged, mut places) = (0, Vec::new());
    let verified = Reading { chunks, snapshot, wanted: &|_| true }.verify(go_on, &mut |place| {
        tell(&place);
        damaged += 1;
        if places.len() < DAMAGED_PLACES_MAX {
            places.push(place);
        }
        Ok(())
    })?;
    Ok(Verdict { verified, damaged, places })
}

/// Gives the disk back as a sparse raw file, which takes the place of a file of that name.
///
/// The file appears whole and is durable on return; after an error there is nothing of it. `go_on`: as in [`verify`].
pub fn restore(
    chunks: &dyn ChunkStore,
    snapshot: &SnapshotId,
    target: &Path,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<Summary, ReadBackError> {
    let summary = Summary::of_manifest(chunks, snapshot)?;
    let what = Subject::Target;
    replace_file(target, "restore", &what, |file| {
        file.set_len(summary.disk_size).map_err(failed("set the length of", &what, target))?;
        // One at a time: the file system lets no more write to one file, and has the others spin.
        let turn = Mutex::new(());
        let write = |offset, plain: &[u8]| {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            write_sparse(file, offset, plain).map_err(failed("write", &what, target))
        };
        let reading = Reading { chunks, snapshot, wanted: &|_| true };
        let read = reading.read(go_on, write, &mut |place| {
            Err(ReadBackError::Damaged { snapshot: snapshot.clone(), place: Box::new(place) })
        })?;
        // What was read is what the summary, made before, is of.
        if read.content_hash != summary.content_hash {
            return Err(exchanged(snapshot).into());
        }
        Ok::<_, ReadBackError>(())
    })?;
    sync_folder(folder_of(target), &what)?;
    Ok(summary)
}

/// Reading the chunks of one snapshot.
struct Reading<'a> {
    chunks: &'a dyn ChunkStore,
    snapshot: &'a SnapshotId,
    /// Which of them.
    wanted: &'a dyn Fn(&ManifestEntry) -> bool,
}

/// What came of one chunk: its length, or what is wrong with it.
type Read = Result<u64, &'static str>;

impl Reading<'_> {
    fn verify(
        &self,
        go_on: &mut dyn FnMut(u64) -> bool,
        damaged: &mut dyn FnMut(DamagedPlace) -> Result<(), ReadBackError>,
    ) -> Result<Verified, ReadBackError> {
        // The manifest as a whole first: no chunk is called damaged because the manifest is.
        ManifestReader::open(self.chunks, self.snapshot)?.check()?;
        self.read(go_on, |_, _| Ok(()), damaged)
    }

    /// Reads the chunks, gives the offset and bytes of each whole one to `see`, and tells `damaged` of the others.
    fn read(
        &self,
        go_on: &mut dyn FnMut(u64) -> bool,
        see: impl Fn(u64, &[u8]) -> Result<(), ChunkError> + Sync,
        damaged: &mut dyn FnMut(DamagedPlace) -> Result<(), ReadBackError>,
    ) -> Result<Verified, ReadBackError> {
        let mut entries = ManifestReader::open(self.chunks, self.snapshot)?;
        let geometry = entries.geometry();
        let (mut bytes, mut chunks) = (0, 0);
        let mut some = Vec::with_capacity(CHUNKS_AT_A_TIME);
        loop {
            some.clear();
            while some.len() < CHUNKS_AT_A_TIME
                && let Some(entry) = entries.next()
            {
                let entry = entry?;
                if !go_on(geometry.offset(entry.index)) {
                    return Err(ReadBackError::Stopped { snapshot: self.snapshot.clone() });
                }
                if (self.wanted)(&entry) {
                    some.push(entry);
                }
            }
            if some.is_empty() {
                let content_hash = entries.content_hash();
                return Ok(Verified { bytes, chunks, content_hash });
            }
            let store = self.chunks;
            let read = |entry: &ManifestEntry| {
                let (offset, length) = (geometry.offset(entry.index), geometry.chunk_len(entry.index));
                read_one(store, &entry.name, length, |plain| see(offset, plain))
            };
            let results = in_parallel(&some, worker_count(), &AtomicBool::new(false), read);
            let results = results.map_err(|broken| self.broken(broken))?;
            for (entry, result) in some.drain(..).zip(results) {
                let ManifestEntry { index, name, .. } = entry;
                match result {
                    Ok(length) => (bytes, chunks) = (bytes + length, chunks + 1),
                    Err(why) => damaged(DamagedPlace { index, offset: geometry.offset(index), name, why })?,
                }
            }
        }
    }

    fn broken(&self, broken: Broken<ChunkError>) -> ReadBackError {
        let snapshot = self.snapshot.clone();
        match broken {
            Broken::Stopped => ReadBackError::Stopped { snapshot },
            Broken::Panicked(message) => ReadBackError::Panicked { snapshot, message },
            Broken::Failed(error) => error.into(),
        }
    }
}

fn read_one(
    chunks: &dyn ChunkStore,
    name: &ChunkName,
    length: usize,
    see: impl FnOnce(&[u8]) -> Result<(), ChunkError>,
) -> Result<Read, ChunkError> {
    match chunks.get(name) {
        Ok(plain) if plain.len() == length => {
            see(&plain)?;
            Ok(Ok(length as u64))
        }
        Ok(_) => Ok(Err("its length does not fit the disk")),
        Err(ChunkError::Damaged { why, .. }) => Ok(Err(why)),
        Err(ChunkError::Missing { .. }) => Ok(Err("it is missing")),
        Err(error) => Err(error),
    }
}

/// Writes the blocks that are not all zeros, neighbours in one go.
fn write_sparse(file: &File, mut offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    let mut rest = bytes;
    while let Some(first) = rest.chunks(BLOCK_LEN).next() {
        let zero = is_zero(first);
        let same = rest.chunks(BLOCK_LEN).take_while(|block| is_zero(block) == zero);
        let (run, behind) = rest.split_at(same.map(<[u8]>::len).sum());
        if !zero {
            file.write_all_at(run, offset)?;
        }
        offset += run.len() as u64;
        rest = behind;
    }
    Ok(())
}
