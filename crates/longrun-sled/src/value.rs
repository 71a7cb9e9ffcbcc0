//! How a value lies in sled: whole, or in parts.
//!
//! sled writes a whole leaf at a time and splits it by its number of entries, so an entry must stay small
//! ([`WHOLE_BYTES_MAX`]). A longer value is cut: the table holds a [`Stub`], and a tree of its own holds the
//! parts. The first byte of a stored value says which it is.
//!
//! The key of a part is the batch and the write that made it, and its number. No two values share it, so a
//! reader that finds every part has parts of one value; and it is short, however long the value's key is, so
//! that removing many values removes no more bytes than it names.

use longrun_store::{KvError, Table};
use sled::Tree;

use crate::error::{DamagedValue, kv_error};
use crate::limits::{PART_BYTES, WHOLE_BYTES_MAX};

/// The tree of the parts. Not a [`Table`].
pub(crate) const PARTS_TREE: &str = "longrun-parts";
/// Bytes of a part's key.
pub(crate) const PART_KEY_BYTES: usize = 14;

const TAG_WHOLE: u8 = 0;
const TAG_PARTS: u8 = 1;

pub(crate) type PartKey = [u8; PART_KEY_BYTES];

/// What a stored value is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stored<'a> {
    Whole(&'a [u8]),
    Parts(Stub),
}

/// What a table holds of a value in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stub {
    /// The number of the batch that wrote it: [`Record::count`](crate::completeness::Record::count).
    pub(crate) batch: u64,
    /// The place of the write in its batch.
    pub(crate) write: u32,
    /// How many parts there are.
    parts: u16,
    /// Bytes of the value.
    len: u32,
    /// The value's CRC-32C.
    crc: u32,
}

/// The bytes to store for `value`, and the stub among them if it goes into parts.
pub(crate) fn encode(value: &[u8], batch: u64, write: usize) -> (Vec<u8>, Option<Stub>) {
    if value.len() <= WHOLE_BYTES_MAX {
        let mut bytes = Vec::with_capacity(1 + value.len());
        bytes.push(TAG_WHOLE);
        bytes.extend_from_slice(value);
        return (bytes, None);
    }
    let stub = Stub::new(value, batch, write);
    (stub.encode(), Some(stub))
}

/// Reads a stored value; `None` if it is none.
pub(crate) fn decode(bytes: &[u8]) -> Option<Stored<'_>> {
    match bytes.split_first()? {
        (&TAG_WHOLE, value) => Some(Stored::Whole(value)),
        (&TAG_PARTS, rest) => Stub::decode(rest).map(Stored::Parts),
        _ => None,
    }
}

impl Stub {
    #[allow(clippy::cast_possible_truncation)] // The limits of a value and a batch are far below.
    fn new(value: &[u8], batch: u64, write: usize) -> Self {
        Self {
            batch,
            write: write as u32,
            parts: value.len().div_ceil(PART_BYTES) as u16,
            len: value.len() as u32,
            crc: crc32c::crc32c(value),
        }
    }

    fn encode(self) -> Vec<u8> {
        let mut bytes = vec![TAG_PARTS];
        bytes.extend_from_slice(&self.batch.to_be_bytes());
        bytes.extend_from_slice(&self.write.to_be_bytes());
        bytes.extend_from_slice(&self.parts.to_be_bytes());
        bytes.extend_from_slice(&self.len.to_be_bytes());
        bytes.extend_from_slice(&self.crc.to_be_bytes());
        bytes
    }

    fn decode(rest: &[u8]) -> Option<Self> {
        let (batch, rest) = rest.split_first_chunk()?;
        let (write, rest) = rest.split_first_chunk()?;
        let (parts, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let crc = rest.try_into().ok()?;
        Some(Self {
            batch: u64::from_be_bytes(*batch),
            write: u32::from_be_bytes(*write),
            parts: u16::from_be_bytes(*parts),
            len: u32::from_be_bytes(*len),
            crc: u32::from_be_bytes(crc),
        })
    }

    /// The keys of the parts, in order.
    pub(crate) fn keys(self) -> impl Iterator<Item = PartKey> {
        (0..self.parts).map(move |part| {
            let mut key = [0; PART_KEY_BYTES];
            key[..8].copy_from_slice(&self.batch.to_be_bytes());
            key[8..12].copy_from_slice(&self.write.to_be_bytes());
            key[12..].copy_from_slice(&part.to_be_bytes());
            key
        })
    }

    /// Puts the value together. `Ok(Err(_))` says what is wrong with it: it was replaced since the stub was
    /// read, or it is damaged.
    pub(crate) fn read(self, parts: &Tree) -> sled::Result<Result<Vec<u8>, &'static str>> {
        let mut value = Vec::new();
        for key in self.keys() {
            match parts.get(key)? {
                Some(part) => value.extend_from_slice(&part),
                None => return Ok(Err("a part of it is missing")),
            }
        }
        let whole = value.len() as u64 == u64::from(self.len) && crc32c::crc32c(&value) == self.crc;
        Ok(if whole { Ok(value) } else { Err("its checksum is wrong") })
    }
}

/// The value that `stored` stands for. `Ok(Err(_))` as in [`Stub::read`].
pub(crate) fn read(stored: &[u8], parts: &Tree) -> Result<Result<Vec<u8>, &'static str>, KvError> {
    match decode(stored) {
        Some(Stored::Whole(value)) => Ok(Ok(value.to_vec())),
        Some(Stored::Parts(stub)) => stub.read(parts).map_err(kv_error),
        None => Ok(Err("it is neither whole nor in parts")),
    }
}

pub(crate) fn damaged(table: Table, key: &[u8], what: &'static str) -> KvError {
    KvError::Corrupt(Box::new(DamagedValue { table: table.name(), key: key.to_vec(), what }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_values_and_stubs_are_told_apart() {
        for len in [0, 1, 22, WHOLE_BYTES_MAX] {
            for byte in [TAG_WHOLE, TAG_PARTS, 2] {
                let value = vec![byte; len];
                let (bytes, stub) = encode(&value, 1, 2);
                assert_eq!((decode(&bytes), stub), (Some(Stored::Whole(&value)), None));
            }
        }
        let (bytes, stub) = encode(&vec![7; WHOLE_BYTES_MAX + 1], 1 << 40, 2);
        assert_eq!(decode(&bytes), stub.map(Stored::Parts));
        let stub = stub.unwrap();
        assert_eq!((stub.batch, stub.write, stub.parts), (1 << 40, 2, 2));
        assert!(stub.keys().is_sorted());
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), None, "length {len}");
        }
        assert_eq!(decode(&[bytes.as_slice(), &[0]].concat()), None);
        assert_eq!(decode(&[2, 0]), None);
    }
}
