//! Stored records: what of the core's types goes to disk, and how it comes back.
//!
//! The forms on disk are the frozen structs of [`v1`]. A rename or a new field in the core cannot change them;
//! whoever changes what is stored adds `v2` and keeps `v1` readable for ever.

mod v1;

use std::sync::Arc;

use bytes::Bytes;
use longrun_core::execution::{Entry, Finished, Header};
use longrun_core::{Execution, Incarnation, Inconsistent, OperationId, Plan, Revision, Row, Timestamp};

use crate::codec::{self, CodecError, RecordType};
use crate::store::LedgerEntry;

const HEAD_VERSION: u16 = 1;
const ENTRY_VERSION: u16 = 1;
const ROW_VERSION: u16 = 1;
const LEDGER_VERSION: u16 = 1;
const META_VERSION: u16 = 1;
const ITEM_VERSION: u16 = 1;
const REFERENCE_VERSION: u16 = 1;

/// An item that has references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) incarnation: Incarnation,
    pub(crate) references: u64,
    pub(crate) confirmed: bool,
}

/// The head record of an operation.
#[derive(Clone, Debug)]
pub(crate) enum Head {
    /// Not done: its plan and its first entry. The others are in the journal.
    Active { header: Arc<Header>, plan: Arc<Plan>, first: Entry },
    /// Done. There is no journal.
    Finished { header: Arc<Header>, revision: Revision, modified_at: Timestamp, finished: Arc<Finished> },
}

impl Head {
    pub(crate) const fn header(&self) -> &Arc<Header> {
        match self {
            Self::Active { header, .. } | Self::Finished { header, .. } => header,
        }
    }

    /// The operation, from this and the entries of its journal, oldest first.
    pub(crate) fn restore(self, entries: Vec<Entry>) -> Result<Execution, Inconsistent> {
        match self {
            Self::Active { header, plan, first } => {
                Execution::restore(header, plan, std::iter::once(first).chain(entries))
            }
            Self::Finished { .. } if !entries.is_empty() => {
                Err(Inconsistent::new("it is done and has a journal"))
            }
            Self::Finished { header, revision, modified_at, finished } => {
                Ok(Execution::restore_finished(header, revision, modified_at, finished))
            }
        }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(RecordType::Head, HEAD_VERSION, &v1::Head::from(self))
    }

    pub(crate) fn decode(record: &Bytes) -> Result<Self, CodecError> {
        codec::decode::<v1::Head<'_>>(RecordType::Head, HEAD_VERSION, record)?
            .into_core(v1::Stored::new(record))
    }
}

pub(crate) fn encode_entry(entry: &Entry) -> Result<Vec<u8>, CodecError> {
    codec::encode(RecordType::Entry, ENTRY_VERSION, &v1::Entry::from(entry))
}

pub(crate) fn decode_entry(record: &Bytes) -> Result<Entry, CodecError> {
    codec::decode::<v1::Entry<'_>>(RecordType::Entry, ENTRY_VERSION, record)?
        .into_core(v1::Stored::new(record))
}

pub(crate) fn encode_row(row: &Row) -> Result<Vec<u8>, CodecError> {
    codec::encode(RecordType::Row, ROW_VERSION, &v1::Row::from(row))
}

pub(crate) fn decode_row(record: &Bytes) -> Result<Row, CodecError> {
    codec::decode::<v1::Row<'_>>(RecordType::Row, ROW_VERSION, record)?.into_core(v1::Stored::new(record))
}

pub(crate) fn encode_ledger(entry: &LedgerEntry) -> Result<Vec<u8>, CodecError> {
    let stored = v1::Ledger {
        operation: entry.operation.as_str(),
        fingerprint: entry.fingerprint,
        expires_at: entry.expires_at.map(Timestamp::unix_micros),
    };
    codec::encode(RecordType::Ledger, LEDGER_VERSION, &stored)
}

pub(crate) fn decode_ledger(bytes: &[u8]) -> Result<LedgerEntry, CodecError> {
    let stored: v1::Ledger<'_> = codec::decode(RecordType::Ledger, LEDGER_VERSION, bytes)?;
    Ok(LedgerEntry {
        operation: v1::checked(OperationId::parse(stored.operation))?,
        fingerprint: stored.fingerprint,
        expires_at: stored.expires_at.map(v1::time).transpose()?,
    })
}

pub(crate) fn encode_item(item: &Item) -> Result<Vec<u8>, CodecError> {
    let (incarnation, references) = (item.incarnation.0.to_be_bytes(), item.references);
    let stored = v1::Item { incarnation, references, confirmed: item.confirmed };
    codec::encode(RecordType::Item, ITEM_VERSION, &stored)
}

pub(crate) fn decode_item(bytes: &[u8]) -> Result<Item, CodecError> {
    let stored: v1::Item = codec::decode(RecordType::Item, ITEM_VERSION, bytes)?;
    if stored.references == 0 {
        return Err(CodecError::Content("it has no references".to_owned()));
    }
    Ok(Item {
        incarnation: Incarnation(u128::from_be_bytes(stored.incarnation)),
        references: stored.references,
        confirmed: stored.confirmed,
    })
}

/// A reference, or an orphan, says little beyond its key, and a key that is damaged may still name a holder: so it has a sum of its key.
pub(crate) fn encode_reference(key: &[u8], incarnation: Incarnation) -> Result<Vec<u8>, CodecError> {
    let stored =
        v1::Reference { incarnation: incarnation.0.to_be_bytes(), key_checksum: crc32c::crc32c(key) };
    codec::encode(RecordType::Reference, REFERENCE_VERSION, &stored)
}

pub(crate) fn decode_reference(key: &[u8], bytes: &[u8]) -> Result<Incarnation, CodecError> {
    let stored: v1::Reference = codec::decode(RecordType::Reference, REFERENCE_VERSION, bytes)?;
    if stored.key_checksum != crc32c::crc32c(key) {
        return Err(CodecError::Content("it lies under another key".to_owned()));
    }
    Ok(Incarnation(u128::from_be_bytes(stored.incarnation)))
}

pub(crate) fn encode_number(number: u64) -> Result<Vec<u8>, CodecError> {
    codec::encode(RecordType::Meta, META_VERSION, &number)
}

pub(crate) fn decode_number(bytes: &[u8]) -> Result<u64, CodecError> {
    codec::decode(RecordType::Meta, META_VERSION, bytes)
}

pub(crate) fn encode_secret(secret: &[u8; 32]) -> Result<Vec<u8>, CodecError> {
    codec::encode(RecordType::Meta, META_VERSION, secret)
}

pub(crate) fn decode_secret(bytes: &[u8]) -> Result<[u8; 32], CodecError> {
    codec::decode(RecordType::Meta, META_VERSION, bytes)
}
