//! The envelope around every stored record, and the only place that names the encoding library.
//!
//! ```text
//! byte  0       magic, 0x4C
//! byte  1       record type, see `RecordType`
//! bytes 2..4    format version, big endian
//! bytes 4..8    length of the payload, big endian
//! bytes 8..12   CRC-32C of bytes 0..8 and of the payload, big endian
//! bytes 12..    payload: bincode 2, standard configuration, with a limit
//! ```
//!
//! bincode alone would take 88 % of all single-bit flips for another valid record, and would allocate whatever a
//! damaged length asks for. Here nothing is decoded before type, version, length and checksum fit, and nothing is
//! allocated beyond the limit.

use bincode::{BorrowDecode, Encode};

use longrun_core::limits::RECORD_BYTES_MAX;

const MAGIC: u8 = 0x4C;
const ENVELOPE_BYTES: usize = 12;

/// What a record is. Stored as its number: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum RecordType {
    /// The head of an operation, unfinished or done.
    Head = 1,
    /// A journal entry of an unfinished operation.
    Entry = 2,
    /// A resource row.
    Row = 3,
    /// An entry of the idempotency ledger.
    Ledger = 4,
    /// A number in the meta table.
    Meta = 5,
    /// An item that has references.
    Item = 6,
    /// A reference to an item.
    Reference = 7,
}

/// Why stored bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Shorter or longer than it says, or than any record is.
    #[error("its length is wrong")]
    Length,
    /// It does not start as a record of this type does.
    #[error("it is not a record of type {0:?}")]
    Type(RecordType),
    /// Some of its bits are not those that were written.
    #[error("its checksum does not match")]
    Checksum,
    /// It was written by a newer program.
    #[error("its format version {found} is newer than {supported}")]
    Future {
        /// The version it has.
        found: u16,
        /// The newest version that is understood.
        supported: u16,
    },
    /// Its checksum fits but its content does not: a bug, here or in the program that wrote it.
    #[error("its content does not decode: {0}")]
    Content(String),
}

/// What the elements of a list take in memory counts too, before they are read: the largest plan of short steps comes to
/// within 1 % of its record's limit. So the limit here is a multiple; that of the bytes themselves is their length.
const DECODED_BYTES_MAX: usize = 4 * RECORD_BYTES_MAX;

const fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODED_BYTES_MAX>()
}

/// Encodes a record. The caller checks its size against what the store takes.
pub(crate) fn encode<T: Encode>(
    record_type: RecordType,
    version: u16,
    record: &T,
) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![0; ENVELOPE_BYTES];
    bincode::encode_into_std_write(record, &mut bytes, bincode::config::standard())
        .map_err(|error| CodecError::Content(error.to_string()))?;
    let length = u32::try_from(bytes.len() - ENVELOPE_BYTES).map_err(|_| CodecError::Length)?;
    bytes[0] = MAGIC;
    bytes[1] = record_type as u8;
    bytes[2..4].copy_from_slice(&version.to_be_bytes());
    bytes[4..8].copy_from_slice(&length.to_be_bytes());
    let checksum = checksum(&bytes);
    bytes[8..12].copy_from_slice(&checksum.to_be_bytes());
    Ok(bytes)
}

/// Opens an envelope: the version and the payload, of which every bit is as it was written.
fn open(record_type: RecordType, supported: u16, bytes: &[u8]) -> Result<(u16, &[u8]), CodecError> {
    let Some((envelope, payload)) = bytes.split_first_chunk::<ENVELOPE_BYTES>() else {
        return Err(CodecError::Length);
    };
    let [magic, found_type, v0, v1, l0, l1, l2, l3, c0, c1, c2, c3] = *envelope;
    if magic != MAGIC || found_type != record_type as u8 {
        return Err(CodecError::Type(record_type));
    }
    if usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])) != Ok(payload.len()) {
        return Err(CodecError::Length);
    }
    if checksum(bytes) != u32::from_be_bytes([c0, c1, c2, c3]) {
        return Err(CodecError::Checksum);
    }
    // After the checksum: a flipped bit in the version is damage, not the future.
    let found = u16::from_be_bytes([v0, v1]);
    if found > supported {
        return Err(CodecError::Future { found, supported });
    }
    Ok((found, payload))
}

/// Decodes a record whose newest version is `supported`. `T` is the frozen form of that version.
pub(crate) fn decode<'a, T: BorrowDecode<'a, ()>>(
    record_type: RecordType,
    supported: u16,
    bytes: &'a [u8],
) -> Result<T, CodecError> {
    let (found, payload) = open(record_type, supported, bytes)?;
    if found != supported {
        // The first version has no ancestors. Later ones are read by their own frozen form, then converted.
        return Err(CodecError::Content(format!("format version {found} never was")));
    }
    let (record, used) = bincode::borrow_decode_from_slice(payload, config())
        .map_err(|error| CodecError::Content(error.to_string()))?;
    if used == payload.len() { Ok(record) } else { Err(CodecError::Length) }
}

/// Puts the length and the checksum of what is there into an envelope.
#[cfg(feature = "testing")]
pub(crate) fn reseal(bytes: &mut [u8]) {
    if let Ok(length) = u32::try_from(bytes.len().saturating_sub(ENVELOPE_BYTES))
        && bytes.len() >= ENVELOPE_BYTES
    {
        bytes[4..8].copy_from_slice(&length.to_be_bytes());
        let checksum = checksum(bytes);
        bytes[8..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Over the envelope without its checksum, and the payload.
fn checksum(bytes: &[u8]) -> u32 {
    let envelope = crc32c::crc32c(bytes.get(..8).unwrap_or_default());
    crc32c::crc32c_append(envelope, bytes.get(ENVELOPE_BYTES..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Vec<u8> {
        encode(RecordType::Meta, 1, &(7_u64, "seven")).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(u64, String), CodecError> {
        decode::<(u64, &str)>(RecordType::Meta, 1, bytes).map(|(number, name)| (number, name.to_owned()))
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let bytes = record();
        assert_eq!(read(&bytes), Ok((7, "seven".to_owned())));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_found() {
        let bytes = record();
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "length {length}");
        }
        assert_eq!(read(&[bytes, vec![0]].concat()), Err(CodecError::Length));
    }

    #[test]
    fn the_future_is_told_from_damage() {
        let newer = encode(RecordType::Meta, 2, &(7_u64, "seven")).unwrap();
        assert_eq!(read(&newer), Err(CodecError::Future { found: 2, supported: 1 }));
        let other = encode(RecordType::Row, 1, &(7_u64, "seven")).unwrap();
        assert_eq!(read(&other), Err(CodecError::Type(RecordType::Meta)));
    }

    #[test]
    fn a_length_inside_the_payload_cannot_ask_for_memory() {
        // A sealed envelope around a payload that claims a string of 2^60 bytes.
        let mut payload = vec![7, 253];
        payload.extend_from_slice(&(1_u64 << 60).to_le_bytes());
        let mut bytes = encode(RecordType::Meta, 1, &()).unwrap();
        bytes.extend_from_slice(&payload);
        bytes[4..8].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        let sum = checksum(&bytes);
        bytes[8..12].copy_from_slice(&sum.to_be_bytes());
        assert!(matches!(read(&bytes), Err(CodecError::Content(_))));
    }
}
