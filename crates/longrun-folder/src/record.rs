//! What a store knows of its batches, inside the database and beside it: the [`Record`] of a [`FolderKv`](crate::FolderKv),
//! and what every such record is made with.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::OpenError;
use crate::files;

/// The newest format this version reads, and the one it writes.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const TAIL: &str = "longrun.tail";
const FRAME: Frame = Frame { magic: *b"longrun\n", format: FORMAT };

/// What is around a record of one kind. Every format, also a future one, begins with the magic and the format number and
/// ends with the CRC-32C of what is before; so damage is told from the future. Numbers are little-endian.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// How all records of the kind begin.
    pub magic: [u8; 8],
    /// The newest format that is read, and the one that is written. The first is 1.
    pub format: u32,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They are damaged: what was found.
    Damaged(&'static str),
    /// A newer version wrote them.
    Future {
        /// Their format.
        found: u32,
        /// The newest format that is read.
        supported: u32,
    },
}

impl Frame {
    /// A record that says `content`.
    pub fn seal(&self, content: &[u8]) -> Vec<u8> {
        let mut bytes = [&self.magic, &self.format.to_le_bytes()[..], content].concat();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// What a record says.
    pub fn open<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], DecodeError> {
        let Some((body, crc)) = bytes.split_last_chunk() else {
            return Err(DecodeError::Damaged("its record is too short"));
        };
        let Some(body) = body.strip_prefix(&self.magic) else {
            return Err(DecodeError::Damaged("its record does not begin as one"));
        };
        if crc32c::crc32c(&bytes[..bytes.len() - crc.len()]) != u32::from_le_bytes(*crc) {
            return Err(DecodeError::Damaged("the checksum of its record is wrong"));
        }
        let Some((format, content)) = body.split_first_chunk() else {
            return Err(DecodeError::Damaged("its record is too short"));
        };
        match u32::from_le_bytes(*format) {
            0 => Err(DecodeError::Damaged("its record has a format that never was")),
            found if found > self.format => Err(DecodeError::Future { found, supported: self.format }),
            _ => Ok(content),
        }
    }
}

impl DecodeError {
    /// They are at `path`.
    pub fn at(self, path: &Path) -> OpenError {
        match self {
            Self::Damaged(what) => OpenError::corrupt(path, what),
            Self::Future { found, supported } => {
                OpenError::FutureFormat { path: path.to_path_buf(), found, supported }
            }
        }
    }
}

/// What is known of a database after some batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// How many batches were committed.
    pub(crate) count: u64,
}

impl Record {
    pub(crate) fn encode(self) -> Vec<u8> {
        FRAME.seal(&self.count.to_le_bytes())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let content = FRAME.open(bytes)?;
        let count = content.try_into().map_err(|_| DecodeError::Damaged("its record has another length"))?;
        Ok(Self { count: u64::from_le_bytes(count) })
    }
}

/// The record in the tail of `folder`, if there is one that can be read. It is a hint: only a future format is an error.
pub(crate) fn read_tail(folder: &Path) -> Result<Option<Record>, OpenError> {
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

/// An open file beside a database, for the record of its last batch.
#[derive(Debug)]
pub struct Tail(File);

impl Tail {
    /// Opens the file at `path`, or makes it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        files::private_file(path).map(Self)
    }

    /// Overwrites the record; not synced.
    pub fn write(&self, record: &[u8]) -> io::Result<()> {
        self.0.write_all_at(record, 0)
    }

    /// Overwrites the record, cuts what is behind it, and syncs the file.
    pub fn write_durably(&self, record: &[u8]) -> io::Result<()> {
        self.write(record)?;
        self.0.set_len(record.len() as u64)?;
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
        let later = Frame { format: 7, ..FRAME }.seal(b"whatever there will be");
        assert_eq!(Record::decode(&later), Err(DecodeError::Future { found: 7, supported: FORMAT }));
    }

    #[test]
    fn the_form_is_frozen() {
        let bytes = Record { count: 0x0102_0304_0506_0708 }.encode();
        assert_eq!(bytes, b"longrun\n\x01\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\x20\xd5\xb6\x83");
    }
}
