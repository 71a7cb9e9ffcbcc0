//! How a disk is cut into chunks, and the chain that is the digest of the whole.

use super::Digest;

/// Length in bytes of a chunk; the last one of a disk may be shorter.
pub const CHUNK_BYTES: u64 = CHUNK_LEN as u64;
pub(super) const CHUNK_LEN: usize = 4 * 1024 * 1024;

/// A disk's size, and the length of the chunks it is cut into: [`CHUNK_BYTES`], but in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) disk_size: u64,
    pub(super) chunk_bytes: u64,
}

impl Geometry {
    /// `None` if no chunk can have this length.
    pub(super) fn new(disk_size: u64, chunk_bytes: u64) -> Option<Self> {
        (1..=CHUNK_BYTES).contains(&chunk_bytes).then_some(Self { disk_size, chunk_bytes })
    }

    /// Where a chunk begins.
    pub(super) fn offset(self, index: u64) -> u64 {
        index.saturating_mul(self.chunk_bytes)
    }

    /// Length of a chunk; 0 past the end of the disk.
    pub(super) fn chunk_len(self, index: u64) -> usize {
        let left = self.disk_size.saturating_sub(self.offset(index));
        usize::try_from(left.min(self.chunk_bytes)).unwrap_or(CHUNK_LEN)
    }

    /// Whether a copy can have come as far as this: between two chunks, or at the end.
    pub(super) fn is_border(self, offset: u64) -> bool {
        offset == self.disk_size || (offset < self.disk_size && offset.is_multiple_of(self.chunk_bytes))
    }

    /// The first link of the chain: the digest of a disk of zeros.
    pub(super) fn first_link(self) -> Digest {
        Digest::of_parts(&[&self.disk_size.to_le_bytes(), &self.chunk_bytes.to_le_bytes()])
    }
}

/// The link that a chunk adds to the chain.
pub(super) fn next_link(before: &Digest, index: u64, digest: &Digest) -> Digest {
    Digest::of_parts(&[before.as_bytes(), &index.to_le_bytes(), digest.as_bytes()])
}

/// Whether all bytes are zeros. In blocks, so that the compiler makes wide comparisons of it.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|block| block.iter().fold(0, |any, byte| any | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_lengths() {
        let disk = Geometry::new(2 * CHUNK_BYTES + 5, CHUNK_BYTES).unwrap();
        assert_eq!([0, 1, 2, 3, u64::MAX].map(|i| disk.chunk_len(i)), [CHUNK_LEN, CHUNK_LEN, 5, 0, 0]);
        assert_eq!(Geometry::new(1, 0), None);
        assert_eq!(Geometry::new(1, CHUNK_BYTES + 1), None);
    }

    #[test]
    fn borders() {
        let disk = Geometry::new(25, 10).unwrap();
        let borders: Vec<u64> = (0..100).filter(|&offset| disk.is_border(offset)).collect();
        assert_eq!(borders, [0, 10, 20, 25]);
    }

    #[test]
    fn zeros() {
        assert!(is_zero(&[]) && is_zero(&[0; 5000]));
        for at in [0, 4095, 4096, 4999] {
            let mut bytes = [0; 5000];
            bytes[at] = 1;
            assert!(!is_zero(&bytes));
        }
    }
}
