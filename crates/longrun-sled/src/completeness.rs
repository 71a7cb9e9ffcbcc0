//! The completeness record: how the database knows that it is whole.
//!
//! sled cuts its log at the first bad record, or jumps over the rest of a damaged segment, and says nothing.
//! So every batch carries one more entry, a [`Record`], in a tree of its own: how many batches there were, a
//! hash over all of them in order, and the number and the sum of all live entries. Copies of it are kept
//! outside of sled:
//!
//! - `completeness`, replaced atomically every k batches and at a clean close. It must be there and be sound.
//! - `completeness.tail`, overwritten after every batch without a sync. It closes the gap of up to k batches
//!   for every cause but the loss of power, where it may be old or torn and is then ignored. A second sync
//!   per batch would close the rest, and would nearly halve the rate of commits.
//!
//! Both are written after the batch they name is durable, so neither can accuse a sound database.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use longrun_folder::{DecodeError, Frame, OpenError, Tail};
use longrun_store::Batch;

pub(crate) const FILE: &str = "completeness";
const FILE_NEW: &str = "completeness.new";
const TAIL: &str = "completeness.tail";
const FRAME: Frame = Frame { magic: *b"lr-sled\n", format: 1 };

/// What is known of a database after some batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Drawn at creation; files of two databases do not mix.
    pub(crate) store: u64,
    /// How many batches were committed.
    pub(crate) count: u64,
    /// Hash over all of them, in order.
    pub(crate) chain: [u8; 16],
    /// What the database holds now.
    pub(crate) content: Content,
}

/// The number and the sum of the entries of all trees but the proof's own, as they are stored: a value in parts
/// counts with its stub and each part. Independent of their order, so that a batch changes it by its own entries
/// only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    entries: u64,
    sum: u128,
}

impl Content {
    pub(crate) fn add(&mut self, tree: &str, key: &[u8], value: &[u8]) {
        self.entries = self.entries.wrapping_add(1);
        self.sum = self.sum.wrapping_add(fingerprint(tree, key, value));
    }

    pub(crate) fn sub(&mut self, tree: &str, key: &[u8], value: &[u8]) {
        self.entries = self.entries.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(fingerprint(tree, key, value));
    }
}

fn fingerprint(tree: &str, key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(tree.as_bytes());
    update_sized(&mut hasher, key);
    update_sized(&mut hasher, value);
    u128::from_le_bytes(first_half(&hasher))
}

fn update_sized(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

fn first_half(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut half = [0; 16];
    hasher.finalize_xof().fill(&mut half);
    half
}

impl Record {
    /// The record of a new database. `RandomState` is the standard library's only source of randomness, and
    /// an identifier needs no better one.
    pub(crate) fn genesis() -> Self {
        let store = RandomState::new().hash_one(std::process::id());
        Self { store, count: 0, chain: [0; 16], content: Content::default() }
    }

    /// The record after `batch`, but for its content, which takes the old values to know.
    pub(crate) fn after(&self, batch: &Batch) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.chain);
        for write in &batch.writes {
            hasher.update(write.table.name().as_bytes());
            update_sized(&mut hasher, &write.key);
            match &write.value {
                Some(value) => update_sized(hasher.update(&[1]), value),
                None => {
                    hasher.update(&[0]);
                }
            }
        }
        Self { count: self.count + 1, chain: first_half(&hasher), ..*self }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let Content { entries, sum } = self.content;
        let (store, count) = (self.store.to_le_bytes(), self.count.to_le_bytes());
        let (entries, sum) = (entries.to_le_bytes(), sum.to_le_bytes());
        FRAME.seal(&[&store[..], &count, &self.chain, &entries, &sum].concat())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = FRAME.open(bytes)?;
        let record = Self {
            store: u64::from_le_bytes(take(&mut rest)?),
            count: u64::from_le_bytes(take(&mut rest)?),
            chain: take(&mut rest)?,
            content: Content {
                entries: u64::from_le_bytes(take(&mut rest)?),
                sum: u128::from_le_bytes(take(&mut rest)?),
            },
        };
        if rest.is_empty() { Ok(record) } else { Err(DecodeError::Damaged("its record is too long")) }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (head, tail) = rest.split_first_chunk().ok_or(DecodeError::Damaged("its record is too short"))?;
    *rest = tail;
    Ok(*head)
}

/// The record in the `completeness` file, if the file is there.
pub(crate) fn read_file(folder: &Path) -> Result<Option<Record>, OpenError> {
    let path = folder.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io("read", &path)(error)),
    };
    Record::decode(&bytes).map(Some).map_err(|error| error.at(&path))
}

/// Replaces the `completeness` file, durably and atomically.
pub(crate) fn write_file(folder: &Path, record: &Record) -> Result<(), OpenError> {
    let (new, path) = (folder.join(FILE_NEW), folder.join(FILE));
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(&record.encode())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(OpenError::io("write", &path))
}

/// The record in `completeness.tail`, if it is sound.
pub(crate) fn read_tail(folder: &Path) -> Option<Record> {
    fs::read(folder.join(TAIL)).ok().and_then(|bytes| Record::decode(&bytes).ok())
}

/// Opens `completeness.tail`.
pub(crate) fn open_tail(folder: &Path) -> Result<Tail, OpenError> {
    Tail::open(&folder.join(TAIL))
}

#[cfg(test)]
mod tests {
    use longrun_store::Table;

    use super::*;

    fn sample() -> Record {
        let mut batch = Batch::default();
        batch.put(Table::Meta, b"k".to_vec(), b"v".to_vec());
        let mut record = Record { store: 7, ..Record::genesis() }.after(&batch);
        record.content.add("meta", b"k", b"v");
        record
    }

    #[test]
    fn record_survives_coding_and_every_flipped_bit_is_found() {
        let bytes = sample().encode();
        assert_eq!(Record::decode(&bytes), Ok(sample()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Record::decode(&flipped), Err(DecodeError::Damaged(_))), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Record::decode(&bytes[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn future_format_is_told_from_damage() {
        let later = Frame { format: 2, ..FRAME }.seal(b"whatever there will be");
        assert_eq!(Record::decode(&later), Err(DecodeError::Future { found: 2, supported: 1 }));
    }

    #[test]
    fn the_form_is_frozen() {
        let mut bytes = b"lr-sled\n\x01\0\0\0".to_vec();
        bytes.extend(1..=56);
        bytes.extend_from_slice(b"\xc8\x1c\xdc\x32");
        let content = Content {
            entries: u64::from_le_bytes([33, 34, 35, 36, 37, 38, 39, 40]),
            sum: u128::from_le_bytes([41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56]),
        };
        let record = Record {
            store: u64::from_le_bytes([1, 2, 3, 4, 5, 6, 7, 8]),
            count: u64::from_le_bytes([9, 10, 11, 12, 13, 14, 15, 16]),
            chain: [17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32],
            content,
        };
        assert_eq!(record.encode(), bytes);
        assert_eq!(Record::decode(&bytes), Ok(record));
    }

    #[test]
    fn content_does_not_depend_on_order() {
        let (mut one, mut two) = (Content::default(), Content::default());
        one.add("due", b"a", b"1");
        one.add("due", b"b", b"2");
        two.add("due", b"b", b"2");
        two.add("due", b"a", b"0");
        assert_ne!(one, two);
        two.sub("due", b"a", b"0");
        two.add("due", b"a", b"1");
        assert_eq!(one, two);
    }
}
