//! The chunk store: a folder per snapshot, a file per chunk.
//!
//! ```text
//! <root>/<snapshot id>/<index, 16 hex digits>.chunk
//! <root>/<snapshot id>/manifest
//! <root>/<snapshot id>/.<anything>.tmp         left by a crash
//! <root>/.<snapshot id>.gone/                  being removed
//! ```

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    Digest, Manifest, ManifestChunk, SnapshotId,
    files::{failed, folder_of, replace_file, sync_folder},
    frame::{self, FRAME_LEN_MAX, HEADER_LEN},
    manifest::CHUNK_LEN,
};

const MANIFEST: &str = "manifest";
/// The longest manifest read or written: that of the largest disk, full, has 4 Mi chunks of some 120 bytes.
const MANIFEST_BYTES_MAX: u64 = 640 * 1024 * 1024;
/// How often a folder is emptied again because a writer was just adding a file to it.
const EMPTY_TRIES: usize = 10;

/// What went wrong in the chunk store.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// The file system refused.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file system or the quota is full. Trying again helps once there is space.
    #[error("no space left to {action} {path}", path = path.display())]
    NoSpace {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A chunk is not what was stored.
    #[error("chunk {chunk} of snapshot {snapshot} is damaged: {why}")]
    Damaged {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The index of the chunk.
        chunk: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A manifest is not what was written.
    #[error("the manifest of snapshot {snapshot} is damaged: {why}")]
    DamagedManifest {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong with it.
        why: String,
    },
    /// A chunk is not there.
    #[error("chunk {chunk} of snapshot {snapshot} is missing")]
    NoChunk {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The index of the chunk.
        chunk: u64,
    },
    /// A manifest is not there: the snapshot is not complete, or does not exist.
    #[error("snapshot {snapshot} has no manifest")]
    NoManifest {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// The snapshot was never created, or is removed.
    #[error("snapshot {snapshot} has no chunk folder")]
    NoSnapshot {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// What was to be stored is empty or longer than a chunk.
    #[error("chunk {chunk} of snapshot {snapshot} cannot have {length} bytes")]
    Length {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The index of the chunk.
        chunk: u64,
        /// The length asked for.
        length: usize,
    },
}

impl ChunkError {
    /// Whether the data of a complete snapshot is lost, in whole or in part. Trying again does not help.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::DamagedManifest { .. } => true,
            Self::NoChunk { .. } | Self::NoManifest { .. } | Self::NoSnapshot { .. } => true,
            Self::Io { .. } | Self::NoSpace { .. } | Self::Length { .. } => false,
        }
    }
}

/// A chunk as it lies in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredChunk {
    /// The digest of its plain bytes.
    pub hash: Digest,
    /// What it takes, header included.
    pub stored_bytes: u64,
}

/// The chunks of all snapshots, in one folder.
///
/// Threads and processes may share it. Two writers of one snapshot do not damage each other's
/// files, but the last one wins.
#[derive(Debug, Clone)]
pub struct ChunkFolder {
    root: PathBuf,
}

impl ChunkFolder {
    /// Opens the store, and creates its folder if need be (not those above it).
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ChunkError> {
        let root = root.into();
        create_folder(&root)?;
        sync_folder(folder_of(&root))?;
        Ok(Self { root })
    }

    /// Makes the place for the chunks of a snapshot. Nothing happens if it is there. Durable after [`Self::sync`].
    ///
    /// No other call makes it, so that a copy which goes on after [`Self::remove`] fails and leaves nothing behind.
    pub fn create(&self, snapshot: &SnapshotId) -> Result<(), ChunkError> {
        create_folder(&self.folder(snapshot))
    }

    /// Stores the bytes of one chunk in place of what was there. `None`: all are zeros, which takes no room.
    ///
    /// The bytes are on the medium when this returns; that they are found under this index is durable after [`Self::sync`].
    /// Storing the same again changes nothing. A reader sees the old chunk or the new one.
    pub fn put(
        &self,
        snapshot: &SnapshotId,
        chunk: u64,
        plain: &[u8],
    ) -> Result<Option<StoredChunk>, ChunkError> {
        if plain.is_empty() || plain.len() > CHUNK_LEN {
            return Err(ChunkError::Length { snapshot: snapshot.clone(), chunk, length: plain.len() });
        }
        let path = self.chunk_path(snapshot, chunk);
        if is_zero(plain) {
            remove_file(&path)?;
            return Ok(None);
        }
        let hash = Digest::of(plain);
        if let Some(frame) = read_file(&path, FRAME_LEN_MAX as u64)?
            && frame::open(&frame).is_ok_and(|(_, found)| found == hash)
        {
            return Ok(Some(StoredChunk { hash, stored_bytes: frame.len() as u64 }));
        }
        let frame = frame::seal(plain, &hash);
        replace_file(&path, |mut file| {
            file.write_all(&frame.header)
                .and_then(|()| file.write_all(&frame.payload))
                .map_err(failed("write", &path))
        })
        .map_err(|error| self.unless_removed(snapshot, error))?;
        Ok(Some(StoredChunk { hash, stored_bytes: (HEADER_LEN + frame.payload.len()) as u64 }))
    }

    /// Reads one chunk back and checks that it is the expected one.
    pub fn get(&self, snapshot: &SnapshotId, chunk: u64, expected: &Digest) -> Result<Vec<u8>, ChunkError> {
        let frame = read_file(&self.chunk_path(snapshot, chunk), FRAME_LEN_MAX as u64)?
            .ok_or_else(|| ChunkError::NoChunk { snapshot: snapshot.clone(), chunk })?;
        let damaged = |why| ChunkError::Damaged { snapshot: snapshot.clone(), chunk, why };
        let (plain, hash) = frame::open(&frame).map_err(damaged)?;
        if hash == *expected { Ok(plain) } else { Err(damaged("it is another chunk")) }
    }

    /// Makes all that was stored for a snapshot durable.
    pub fn sync(&self, snapshot: &SnapshotId) -> Result<(), ChunkError> {
        sync_folder(&self.folder(snapshot)).map_err(|error| self.unless_removed(snapshot, error))?;
        sync_folder(&self.root)
    }

    /// The chunks of a snapshot in ascending order, as their headers have it: the bytes behind are not looked at.
    pub fn chunks(&self, snapshot: &SnapshotId) -> Result<Vec<ManifestChunk>, ChunkError> {
        let mut chunks = Vec::new();
        for (name, _) in self.files(snapshot)? {
            if let Some(index) = chunk_index(&name) {
                chunks.push(self.chunk_header(snapshot, index)?);
            }
        }
        chunks.sort_unstable_by_key(|chunk| chunk.index);
        Ok(chunks)
    }

    /// Keeps the chunks before index `end` and removes all else: later chunks, the manifest, temporary files.
    /// Returns how many chunks are kept.
    pub fn keep_before(&self, snapshot: &SnapshotId, end: u64) -> Result<u64, ChunkError> {
        let mut kept = 0;
        for (name, path) in self.files(snapshot)? {
            match chunk_index(&name) {
                Some(index) if index < end => kept += 1,
                _ => remove_file(&path)?,
            }
        }
        Ok(kept)
    }

    /// Writes the manifest of a snapshot in place of the one before. Durable on return, with all chunks
    /// stored before.
    pub fn write_manifest(&self, snapshot: &SnapshotId, manifest: &Manifest) -> Result<(), ChunkError> {
        let path = self.folder(snapshot).join(MANIFEST);
        let text = manifest.to_text().map_err(|error| failed("encode", &path)(error.into()))?;
        // The chunks first: a manifest that is there promises them.
        self.sync(snapshot)?;
        replace_file(&path, |mut file| file.write_all(text.as_bytes()).map_err(failed("write", &path)))
            .map_err(|error| self.unless_removed(snapshot, error))?;
        self.sync(snapshot)
    }

    /// Reads the manifest of a snapshot.
    pub fn read_manifest(&self, snapshot: &SnapshotId) -> Result<Manifest, ChunkError> {
        let bytes = read_file(&self.folder(snapshot).join(MANIFEST), MANIFEST_BYTES_MAX)?
            .ok_or_else(|| ChunkError::NoManifest { snapshot: snapshot.clone() })?;
        let damaged = |why| ChunkError::DamagedManifest { snapshot: snapshot.clone(), why };
        let text = std::str::from_utf8(&bytes).map_err(|error| damaged(error.to_string()))?;
        Manifest::from_text(text).map_err(damaged)
    }

    /// Removes a snapshot with all its files. Durable on return. Nothing happens if it is not there;
    /// what is half gone goes wholly.
    ///
    /// The folder is renamed first: from then on whoever still writes to it fails and cannot add to the work.
    pub fn remove(&self, snapshot: &SnapshotId) -> Result<(), ChunkError> {
        let folder = self.folder(snapshot);
        let gone = self.root.join(format!(".{snapshot}.gone"));
        remove_folder(&gone)?;
        match fs::rename(&folder, &gone) {
            Ok(()) => remove_folder(&gone)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("remove", &folder)(error)),
        }
        sync_folder(&self.root)
    }

    /// What the chunks of a snapshot take, headers included.
    pub fn stored_bytes(&self, snapshot: &SnapshotId) -> Result<u64, ChunkError> {
        let mut sum = 0;
        for (name, path) in self.files(snapshot)? {
            if chunk_index(&name).is_some() {
                sum += path.metadata().map_err(failed("look up", &path))?.len();
            }
        }
        Ok(sum)
    }

    /// The snapshots that have a folder, complete or not or half removed, in ascending order.
    pub fn list(&self) -> Result<Vec<SnapshotId>, ChunkError> {
        let mut found: Vec<SnapshotId> =
            names(&self.root)?.into_iter().filter_map(|(name, _)| snapshot_of_folder(&name)).collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn folder(&self, snapshot: &SnapshotId) -> PathBuf {
        self.root.join(snapshot.as_str())
    }

    fn chunk_path(&self, snapshot: &SnapshotId, chunk: u64) -> PathBuf {
        self.folder(snapshot).join(format!("{chunk:016x}.chunk"))
    }

    fn files(&self, snapshot: &SnapshotId) -> Result<Vec<(String, PathBuf)>, ChunkError> {
        names(&self.folder(snapshot)).map_err(|error| self.unless_removed(snapshot, error))
    }

    fn chunk_header(&self, snapshot: &SnapshotId, index: u64) -> Result<ManifestChunk, ChunkError> {
        let path = self.chunk_path(snapshot, index);
        let mut file = File::open(&path).map_err(failed("open", &path))?;
        let stored_bytes = file.metadata().map_err(failed("look up", &path))?.len();
        let mut header = [0; HEADER_LEN];
        let damaged = |why| ChunkError::Damaged { snapshot: snapshot.clone(), chunk: index, why };
        match file.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged("it is cut short"));
            }
            Err(error) => return Err(failed("read", &path)(error)),
        }
        let hash = frame::claimed_hash(&header).map_err(damaged)?;
        Ok(ManifestChunk { index, hash, stored_bytes })
    }

    /// Gives "not found" in a snapshot that is not there its proper name.
    fn unless_removed(&self, snapshot: &SnapshotId, error: ChunkError) -> ChunkError {
        match error {
            ChunkError::Io { source, .. }
                if source.kind() == io::ErrorKind::NotFound && !self.folder(snapshot).exists() =>
            {
                ChunkError::NoSnapshot { snapshot: snapshot.clone() }
            }
            other => other,
        }
    }
}

fn create_folder(path: &Path) -> Result<(), ChunkError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        created => created.map_err(failed("create", path)),
    }
}

/// The names in a folder with their paths.
fn names(folder: &Path) -> Result<Vec<(String, PathBuf)>, ChunkError> {
    fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| {
                    entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
                })
                .collect()
        })
        .map_err(failed("list", folder))
}

/// The whole file, `None` if there is none. A longer one than expected is cut, and fails its check.
fn read_file(path: &Path, length_max: u64) -> Result<Option<Vec<u8>>, ChunkError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("open", path))?,
    };
    let mut bytes = Vec::new();
    file.take(length_max + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    Ok(Some(bytes))
}

fn remove_file(path: &Path) -> Result<(), ChunkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed("remove", path)),
    }
}

/// Removes a folder and the files in it, if it is there.
fn remove_folder(folder: &Path) -> Result<(), ChunkError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match fs::remove_dir_all(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries < EMPTY_TRIES => {}
            Err(error) => return Err(failed("remove", folder)(error)),
        }
    }
}

/// Whose folder this is, in place or being removed.
fn snapshot_of_folder(name: &str) -> Option<SnapshotId> {
    let being_removed = name.strip_prefix('.').and_then(|name| name.strip_suffix(".gone"));
    being_removed.unwrap_or(name).parse().ok()
}

/// The index in the name of a chunk file; `None` for any other name.
fn chunk_index(name: &str) -> Option<u64> {
    let index = u64::from_str_radix(name.strip_suffix(".chunk")?, 16).ok()?;
    (name == format!("{index:016x}.chunk")).then_some(index)
}

/// Whether all bytes are zeros. In blocks, so that the compiler makes wide comparisons of it.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|block| block.iter().fold(0, |any, byte| any | byte) == 0)
}
