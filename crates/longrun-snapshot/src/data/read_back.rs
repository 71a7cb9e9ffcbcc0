//! Reading a complete snapshot: to check it, or to give the disk back.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use thiserror::Error;

use super::{
    CHUNK_BYTES, ChunkError, ChunkFolder, Digest, Manifest, ManifestChunk, SnapshotId,
    chunk::is_zero,
    files::{failed, folder_of, replace_file, sync_folder},
    manifest::chunk_len,
};

/// The unit in which a restored file is sparse: what file systems allocate.
const BLOCK_LEN: usize = 4096;

/// Why a snapshot could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadBackError {
    /// The chunk store or the file system failed, or the snapshot is damaged: see [`ChunkError::is_damage`].
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The caller's `go_on` said no.
    #[error("reading snapshot {snapshot} was stopped")]
    Stopped {
        /// The snapshot.
        snapshot: SnapshotId,
    },
}

/// What [`verify`] found whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Bytes of the disk that were read and checked; the rest of it is zeros.
    pub bytes: u64,
    /// How many chunks they are in.
    pub chunks: u64,
    /// The digest of the whole: [`Manifest::content_hash`].
    pub content_hash: Digest,
}

/// Reads every chunk of a snapshot and checks it against the manifest.
///
/// `go_on` is asked before each chunk, with the offset on the disk that was reached; `false` stops.
pub fn verify(
    chunks: &ChunkFolder,
    snapshot: &SnapshotId,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<Verified, ReadBackError> {
    let manifest = chunks.read_manifest(snapshot)?;
    if let Some(stray) = stray_chunk(&manifest, &chunks.chunks(snapshot)?) {
        let why = "it is not as the manifest says";
        return Err(ChunkError::Damaged { snapshot: snapshot.clone(), chunk: stray, why }.into());
    }
    let mut bytes = 0;
    for chunk in &manifest.chunks {
        bytes += read(chunks, snapshot, &manifest, chunk, go_on)?.len() as u64;
    }
    Ok(Verified { bytes, chunks: manifest.chunks.len() as u64, content_hash: manifest.content_hash })
}

/// Gives the disk back as a sparse raw file, which takes the place of a file of that name.
///
/// The file appears whole and is durable on return; after an error there is nothing of it. `go_on`: as in [`verify`].
pub fn restore(
    chunks: &ChunkFolder,
    snapshot: &SnapshotId,
    target: &Path,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<Manifest, ReadBackError> {
    let manifest = chunks.read_manifest(snapshot)?;
    replace_file(target, |file| {
        file.set_len(manifest.disk_size).map_err(failed("set the length of", target))?;
        for chunk in &manifest.chunks {
            let plain = read(chunks, snapshot, &manifest, chunk, go_on)?;
            write_sparse(file, chunk.index * CHUNK_BYTES, &plain).map_err(failed("write", target))?;
        }
        Ok::<_, ReadBackError>(())
    })?;
    sync_folder(folder_of(target))?;
    Ok(manifest)
}

/// The first chunk that the manifest and the folder do not agree on.
fn stray_chunk(manifest: &Manifest, found: &[ManifestChunk]) -> Option<u64> {
    let both = manifest.chunks.len().min(found.len());
    let differing = (0..both).find(|&at| manifest.chunks[at] != found[at]);
    let at = differing.unwrap_or(both);
    let index = |chunks: &[ManifestChunk]| chunks.get(at).map(|chunk| chunk.index);
    [index(&manifest.chunks), index(found)].into_iter().flatten().min()
}

fn read(
    chunks: &ChunkFolder,
    snapshot: &SnapshotId,
    manifest: &Manifest,
    chunk: &ManifestChunk,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<Vec<u8>, ReadBackError> {
    if !go_on(chunk.index * CHUNK_BYTES) {
        return Err(ReadBackError::Stopped { snapshot: snapshot.clone() });
    }
    let plain = chunks.get(snapshot, chunk.index, &chunk.hash)?;
    if plain.len() != chunk_len(manifest.disk_size, chunk.index) {
        let why = "its length does not fit the disk";
        return Err(ChunkError::Damaged { snapshot: snapshot.clone(), chunk: chunk.index, why }.into());
    }
    Ok(plain)
}

/// Writes the blocks that are not all zeros, neighbours in one go.
fn write_sparse(file: &File, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    let mut at = 0;
    for run in bytes.chunks(BLOCK_LEN).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let length = run.iter().map(|block| block.len()).sum::<usize>();
        if !is_zero(run[0]) {
            file.write_all_at(&bytes[at..at + length], offset + at as u64)?;
        }
        at += length;
    }
    Ok(())
}
