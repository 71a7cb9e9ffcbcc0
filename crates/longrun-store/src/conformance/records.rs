//! Every stored record as a value, for golden files, damage tests and fuzzing. Its form on disk is no public interface.

use bytes::Bytes;
use std::sync::Arc;

use longrun_core::execution::{Entry, Finished, Header};
use longrun_core::{Incarnation, Plan, Revision, Row, Timestamp};

use crate::codec::{CodecError, RecordType};
use crate::record::{self, Head, Item};
use crate::store::LedgerEntry;

/// The key of references in this module.
pub const REFERENCE_KEY: &[u8] = b"reference";

/// A stored record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The head of an unfinished operation.
    Active {
        /// What never changes.
        header: Arc<Header>,
        /// The plan.
        plan: Arc<Plan>,
        /// The first entry of its journal.
        first: Entry,
    },
    /// The head of an operation that is done.
    Finished {
        /// What never changes.
        header: Arc<Header>,
        /// Its last revision.
        revision: Revision,
        /// When it was done.
        modified_at: Timestamp,
        /// How it ended.
        finished: Arc<Finished>,
    },
    /// A journal entry.
    Entry(Entry),
    /// A resource row.
    Row(Row),
    /// An idempotency key.
    Ledger(LedgerEntry),
    /// A number in the meta table.
    Number(u64),
    /// The secret in the meta table.
    Secret([u8; 32]),
    /// An item that has references.
    Item {
        /// The life it is in.
        incarnation: Incarnation,
        /// How many references it has.
        references: u64,
        /// Whether it is known to be there.
        confirmed: bool,
    },
    /// A reference to an item, in this life, under the key [`REFERENCE_KEY`].
    Reference(Incarnation),
}

/// How to read a record: what its bytes do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Either head.
    Head,
    /// A journal entry.
    Entry,
    /// A resource row.
    Row,
    /// An idempotency key.
    Ledger,
    /// A number.
    Number,
    /// The secret.
    Secret,
    /// An item.
    Item,
    /// A reference.
    Reference,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Head,
        Self::Entry,
        Self::Row,
        Self::Ledger,
        Self::Number,
        Self::Secret,
        Self::Item,
        Self::Reference,
    ];

    /// The type in the envelope.
    pub const fn record_type(self) -> RecordType {
        match self {
            Self::Head => RecordType::Head,
            Self::Entry => RecordType::Entry,
            Self::Row => RecordType::Row,
            Self::Ledger => RecordType::Ledger,
            Self::Number | Self::Secret => RecordType::Meta,
            Self::Item => RecordType::Item,
            Self::Reference => RecordType::Reference,
        }
    }

    /// Decodes a stored record.
    pub fn decode(self, bytes: &[u8]) -> Result<Record, CodecError> {
        let shared = || Bytes::copy_from_slice(bytes);
        Ok(match self {
            Self::Head => match Head::decode(&shared())? {
                Head::Active { header, plan, first } => Record::Active { header, plan, first },
                Head::Finished { header, revision, modified_at, finished } => {
                    Record::Finished { header, revision, modified_at, finished }
                }
            },
            Self::Entry => Record::Entry(record::decode_entry(&shared())?),
            Self::Row => Record::Row(record::decode_row(&shared())?),
            Self::Ledger => Record::Ledger(record::decode_ledger(bytes)?),
            Self::Number => Record::Number(record::decode_number(bytes)?),
            Self::Secret => Record::Secret(record::decode_secret(bytes)?),
            Self::Item => {
                let Item { incarnation, references, confirmed } = record::decode_item(bytes)?;
                Record::Item { incarnation, references, confirmed }
            }
            Self::Reference => Record::Reference(record::decode_reference(REFERENCE_KEY, bytes)?),
        })
    }
}

impl Record {
    /// How to read it again.
    pub const fn form(&self) -> Form {
        match self {
            Self::Active { .. } | Self::Finished { .. } => Form::Head,
            Self::Entry(_) => Form::Entry,
            Self::Row(_) => Form::Row,
            Self::Ledger(_) => Form::Ledger,
            Self::Number(_) => Form::Number,
            Self::Secret(_) => Form::Secret,
            Self::Item { .. } => Form::Item,
            Self::Reference(_) => Form::Reference,
        }
    }

    /// The stored form.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        match self.clone() {
            Self::Active { header, plan, first } => Head::Active { header, plan, first }.encode(),
            Self::Finished { header, revision, modified_at, finished } => {
                Head::Finished { header, revision, modified_at, finished }.encode()
            }
            Self::Entry(entry) => record::encode_entry(&entry),
            Self::Row(row) => record::encode_row(&row),
            Self::Ledger(entry) => record::encode_ledger(&entry),
            Self::Number(number) => record::encode_number(number),
            Self::Secret(secret) => record::encode_secret(&secret),
            Self::Item { incarnation, references, confirmed } => {
                record::encode_item(&Item { incarnation, references, confirmed })
            }
            Self::Reference(incarnation) => record::encode_reference(REFERENCE_KEY, incarnation),
        }
    }
}

/// Puts the right length and checksum into an envelope, so that damage gets past them, as that of a program would.
pub fn reseal(bytes: &mut [u8]) {
    crate::codec::reseal(bytes);
}
