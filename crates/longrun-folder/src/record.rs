//! [`Record`]: how many batches there were, inside the database and beside it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::error::OpenError;

/// The newest format this version reads, and the one it writes.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const TAIL: &str = "longrun.tail";
const MAGIC: [u8; 8] = *b"longrun\n";
const LEN: usize = 24;

/// What is known of a database after some batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// How many batches were committed.
    pub count: u64,
}

/// Why bytes are not a [`Record`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    Damaged(&'static str),
    Future(u32),
}

impl DecodeError {
    pub(crate) fn at(self, path: &Path) -> OpenError {
        match self {
            Self::Damaged(what) => OpenError::corrupt(path, what),
            Self::Future(found) => {
                OpenError::FutureFormat { path: path.to_path_buf(), found, supported: FORMAT }
            }
        }
    }
}

impl Record {
    pub(crate) fn encode(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.count.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..20]);
        bytes[20..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a record. Every format, also a future one, begins with the magic and the format number and ends with the
    /// checksum of what is before; so damage is told from the future.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some((body, crc)) = bytes.split_last_chunk() else {
            return Err(DecodeError::Damaged("its record is too short"));
        };
        if !body.starts_with(&MAGIC) || crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(DecodeError::Damaged("the checksum of its record is wrong"));
        }
        let Some((format, rest)) = body[MAGIC.len()..].split_first_chunk() else {
            return Err(DecodeError::Damaged("its record is too short"));
        };
        match u32::from_le_bytes(*format) {
            FORMAT => {}
            found if found > FORMAT => return Err(DecodeError::Future(found)),
            _ => return Err(DecodeError::Damaged("its record has a format that never was")),
        }
        let count = rest.try_into().map_err(|_| DecodeError::Damaged("its record has another length"))?;
        Ok(Self { count: u64::from_le_bytes(count) })
    }
}

/// The open `longrun.tail`.
#[derive(Debug)]
pub(crate) struct Tail(File);

impl Tail {
    /// The record in the tail of `folder`, if there is one that can be read. It is a hint: only a future format is an
    /// error.
    pub(crate) fn read(folder: &Path) -> Result<Option<Record>, OpenError> {
        let path = folder.join(TAIL);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::io("read", &path)(error)),
        };
        match Record::decode(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(DecodeError::Damaged(what)) => {
                tracing::warn!(path = %path.display(), what, "what it tells is ignored");
                Ok(None)
            }
            Err(future) => Err(future.at(&path)),
        }
    }

    /// Opens it, makes it tell `record`, and syncs it.
    pub(crate) fn open(folder: &Path, record: Record) -> Result<Self, OpenError> {
        let path = folder.join(TAIL);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let tail = options.open(&path).map(Self).map_err(OpenError::io("open", &path))?;
        tail.write(record).and_then(|()| tail.sync()).map_err(OpenError::io("write", &path))?;
        Ok(tail)
    }

    /// Overwrites the record; not synced.
    pub(crate) fn write(&self, record: Record) -> io::Result<()> {
        self.0.write_all_at(&record.encode(), 0)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.set_len(LEN as u64)?;
        self.0.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_survives_coding_and_every_flipped_bit_is_found() {
        let record = Record { count: 0x0102_0304_0506_0708 };
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Ok(record));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Record::decode(&flipped), Err(DecodeError::Damaged(_))), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Record::decode(&bytes[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn future_format_is_told_from_damage() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&7_u32.to_le_bytes());
        bytes.extend_from_slice(b"whatever there will be");
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        assert_eq!(Record::decode(&bytes), Err(DecodeError::Future(7)));
    }
}
