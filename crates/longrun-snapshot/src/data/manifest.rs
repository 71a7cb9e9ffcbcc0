//! The manifest: which chunks make up a snapshot.

use serde::{Deserialize, Serialize};

use super::{Digest, DiskId};

/// Length in bytes of a chunk; the last one of a disk may be shorter.
pub const CHUNK_BYTES: u64 = CHUNK_LEN as u64;
pub(super) const CHUNK_LEN: usize = 4 * 1024 * 1024;

const VERSION: u32 = 1;

/// All there is to know to give a disk back, apart from the bytes of its chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this format.
    pub version: u32,
    /// The disk that was copied.
    pub disk_id: DiskId,
    /// Its size in bytes.
    pub disk_size: u64,
    /// The length of a chunk.
    pub chunk_bytes: u64,
    /// The chunks in ascending order. What is not listed is zeros.
    pub chunks: Vec<ManifestChunk>,
    /// The digest of the whole disk: equal for equal size and bytes, wherever the file systems kept holes.
    ///
    /// It is a chain. The first link is the BLAKE3 of size and chunk length, and each chunk that is not all zeros
    /// adds a link: the BLAKE3 of the link before, its index and its hash (integers as 8 bytes, little
    /// endian). Being a chain it can be carried on after a crash from its last link alone.
    pub content_hash: Digest,
}

/// One chunk of a [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestChunk {
    /// Its place: it begins at `index * chunk_bytes`.
    pub index: u64,
    /// The digest of its plain bytes.
    pub hash: Digest,
    /// What it takes in the chunk folder.
    pub stored_bytes: u64,
}

impl Manifest {
    /// The manifest of these chunks, which are in ascending order.
    pub fn new(disk_id: DiskId, disk_size: u64, chunks: Vec<ManifestChunk>) -> Self {
        let content_hash = content_hash(disk_size, &chunks);
        Self { version: VERSION, disk_id, disk_size, chunk_bytes: CHUNK_BYTES, chunks, content_hash }
    }

    /// What all chunks take in the chunk folder.
    pub fn stored_bytes(&self) -> u64 {
        self.chunks.iter().fold(0, |sum, chunk| sum.saturating_add(chunk.stored_bytes))
    }

    /// The manifest as a line of JSON and a line with the BLAKE3 of the first.
    pub(super) fn to_text(&self) -> serde_json::Result<String> {
        let json = serde_json::to_string(self)?;
        let check = Digest::of(json.as_bytes());
        Ok(format!("{json}\n{check}\n"))
    }

    pub(super) fn from_text(text: &str) -> Result<Self, String> {
        let (json, check) = text.split_once('\n').ok_or("it is cut short")?;
        if check != format!("{}\n", Digest::of(json.as_bytes())) {
            return Err("its checksum is wrong".into());
        }
        let manifest: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.version != VERSION {
            return Err("its version is unknown");
        }
        if self.chunk_bytes != CHUNK_BYTES {
            return Err("its chunk length is unknown");
        }
        if !self.chunks.is_sorted_by(|a, b| a.index < b.index) {
            return Err("its chunks are out of order");
        }
        if self.chunks.last().is_some_and(|last| chunk_len(self.disk_size, last.index) == 0) {
            return Err("it has a chunk past the end of the disk");
        }
        if self.content_hash != content_hash(self.disk_size, &self.chunks) {
            return Err("its content hash is wrong");
        }
        Ok(())
    }
}

/// Length of the chunk `index` of a disk; 0 past its end.
pub(super) fn chunk_len(disk_size: u64, index: u64) -> usize {
    let left = disk_size.saturating_sub(index.saturating_mul(CHUNK_BYTES));
    usize::try_from(left).map_or(CHUNK_LEN, |left| left.min(CHUNK_LEN))
}

/// The first link of [`Manifest::content_hash`].
pub(super) fn first_link(disk_size: u64) -> Digest {
    Digest::of_parts(&[&disk_size.to_le_bytes(), &CHUNK_BYTES.to_le_bytes()])
}

/// The link that a chunk adds.
pub(super) fn next_link(before: &Digest, index: u64, hash: &Digest) -> Digest {
    Digest::of_parts(&[before.as_bytes(), &index.to_le_bytes(), hash.as_bytes()])
}

fn content_hash(disk_size: u64, chunks: &[ManifestChunk]) -> Digest {
    chunks.iter().fold(first_link(disk_size), |link, chunk| next_link(&link, chunk.index, &chunk.hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(indexes: &[u64]) -> Manifest {
        let chunk = |&index| ManifestChunk { index, hash: Digest::of(b"x"), stored_bytes: 65 };
        Manifest::new("d".parse().unwrap(), 3 * CHUNK_BYTES + 1, indexes.iter().map(chunk).collect())
    }

    #[test]
    fn text_round_trip() {
        for indexes in [&[][..], &[0], &[0, 2, 3]] {
            let manifest = manifest(indexes);
            assert_eq!(Manifest::from_text(&manifest.to_text().unwrap()), Ok(manifest));
        }
    }

    #[test]
    fn every_changed_byte_is_found() {
        let text = manifest(&[0, 3]).to_text().unwrap();
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] ^= 1;
            assert!(Manifest::from_text(&String::from_utf8(bad).unwrap()).is_err(), "byte {at}");
            assert!(Manifest::from_text(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |change: fn(&mut Manifest)| {
            let mut bad = manifest(&[0, 3]);
            change(&mut bad);
            Manifest::from_text(&bad.to_text().unwrap()).unwrap_err()
        };
        assert_eq!(refused(|m| m.version = 2), "its version is unknown");
        assert_eq!(refused(|m| m.chunk_bytes = 1), "its chunk length is unknown");
        assert_eq!(refused(|m| m.chunks.reverse()), "its chunks are out of order");
        assert_eq!(refused(|m| m.chunks[0].index = 3), "its chunks are out of order");
        assert_eq!(refused(|m| m.chunks[1].index = 4), "it has a chunk past the end of the disk");
        assert_eq!(refused(|m| m.disk_size -= 2), "it has a chunk past the end of the disk");
        assert_eq!(refused(|m| m.chunks[1].hash = Digest::of(b"y")), "its content hash is wrong");
    }

    #[test]
    fn chunk_lengths() {
        let size = 2 * CHUNK_BYTES + 5;
        assert_eq!([0, 1, 2, 3, u64::MAX].map(|i| chunk_len(size, i)), [CHUNK_LEN, CHUNK_LEN, 5, 0, 0]);
    }
}
