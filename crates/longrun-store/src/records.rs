//! Stored forms, for a [`Store`](crate::Store) that is not made of ordered keys: what of a [`Commit`] has to be kept as bytes,
//! and the facts beside it that such a store compares, or finds things by.

use std::sync::Arc;

use longrun_core::execution::{Entry, Finished, Header};
use longrun_core::limits::RECORD_BYTES_MAX;
use longrun_core::{
    Condition, Execution, Fence, OperationId, Plan, ResourceKey, Revision, Row, RowWrite, Timestamp,
};

use crate::codec::CodecError;
use crate::error::{CommitError, StoreError};
use crate::layout;
use crate::read;
use crate::record::{self, Head};
use crate::store::{Author, Commit, LedgerClaim};

/// The newest form of records that this program reads and writes. Records of newer forms are left alone (S34).
pub const FORMAT_VERSION: u64 = layout::FORMAT_VERSION;

/// A commit, encoded.
///
/// An unfinished operation is its head, which never changes, and the entries of its journal, each under the first revision that
/// it stands for; one that is done is its head alone, which then replaces the other.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Records {
    /// The owner's fence.
    pub fence: Fence,
    /// Who commits.
    pub author: Author,
    /// What never changes of the operation.
    pub header: Arc<Header>,
    /// The revision that the operation must have; `None` when it must not be there.
    pub expect: Option<Revision>,
    /// What the turn adds.
    pub entry: Entry,
    /// The plan, in the first commit of an operation that is not done at once.
    pub plan: Option<Arc<Plan>>,
    /// The result, in the last commit.
    pub finished: Option<Arc<Finished>>,
    /// The head, when it is new or replaced. Otherwise there is a [`journal`](Self::journal) record.
    pub head: Option<Vec<u8>>,
    /// The entry, to be kept under [its first revision](Entry::first), where it may replace another.
    pub journal: Option<Vec<u8>>,
    /// When the operation is to be worked on; `None` when it is done.
    pub due_at: Option<Timestamp>,
    /// The rows that it writes.
    pub rows: Vec<RowRecord>,
    /// The idempotency key that it claims.
    pub ledger: Option<LedgerClaim>,
    /// What must be true of other resources.
    pub conditions: Vec<Condition>,
}

/// A row to write, encoded.
#[derive(Clone, Debug)]
pub struct RowRecord {
    /// What the row must be, and what it becomes.
    pub write: RowWrite,
    /// What it becomes, as bytes; `None` when it is removed.
    pub record: Option<Vec<u8>>,
}

impl Records {
    /// Encodes a commit. Fails when a record is larger than any store has to take.
    pub fn of(commit: Commit) -> Result<Self, CommitError> {
        let Commit {
            fence,
            author,
            header,
            entry,
            plan,
            finished,
            // All of the journal goes with the end.
            obsolete: _,
            rows,
            was_due_at: _,
            due_at,
            ledger,
            conditions,
        } = commit;
        let unencodable = |error: CodecError| {
            CommitError::from(StoreError::unreadable(format!("operation {}", header.id), error))
        };
        let head = head(&header, &entry, plan.as_ref(), finished.as_ref());
        let journal = match head {
            Some(_) => None,
            None => Some(limited(record::encode_entry(&entry).map_err(unencodable)?)?),
        };
        let head = head.map(|head| limited(head.encode().map_err(unencodable)?)).transpose()?;
        let rows = rows.into_iter().map(RowRecord::of).collect::<Result<_, _>>()?;
        let expect = (entry.first != Revision::FIRST).then(|| Revision(entry.revision.0 - 1));
        Ok(Self {
            fence,
            author,
            header,
            expect,
            entry,
            plan,
            finished,
            head,
            journal,
            due_at,
            rows,
            ledger,
            conditions,
        })
    }

    /// The operation.
    pub fn operation_id(&self) -> OperationId {
        self.header.id
    }

    /// Bytes of all records.
    pub fn byte_len(&self) -> usize {
        let rows = self.rows.iter().filter_map(|row| row.record.as_ref());
        [&self.head, &self.journal].into_iter().flatten().chain(rows).map(Vec::len).sum()
    }
}

impl RowRecord {
    fn of(write: RowWrite) -> Result<Self, CommitError> {
        let encoded = |row: &Row| {
            let bytes = record::encode_row(row);
            limited(bytes.map_err(|error| StoreError::unreadable(write.key.to_string(), error))?)
        };
        let record = write.put.as_ref().map(encoded).transpose()?;
        Ok(Self { write, record })
    }
}

/// The head that a turn writes; `None` when it adds to the journal.
pub(crate) fn head(
    header: &Arc<Header>,
    entry: &Entry,
    plan: Option<&Arc<Plan>>,
    finished: Option<&Arc<Finished>>,
) -> Option<Head> {
    let header = Arc::clone(header);
    match (finished.cloned(), plan.cloned()) {
        (Some(finished), _) => {
            Some(Head::Finished { header, revision: entry.revision, modified_at: entry.at, finished })
        }
        (None, Some(plan)) => Some(Head::Active { header, plan, first: entry.clone() }),
        (None, None) => None,
    }
}

pub(crate) fn limited(record: Vec<u8>) -> Result<Vec<u8>, CommitError> {
    if record.len() <= RECORD_BYTES_MAX {
        Ok(record)
    } else {
        Err(CommitError::TooLarge { bytes: record.len(), limit: RECORD_BYTES_MAX })
    }
}

/// The operation, from its head and the entries of its journal, oldest first.
pub fn operation(
    id: OperationId,
    head: Vec<u8>,
    journal: impl IntoIterator<Item = Vec<u8>>,
) -> Result<Execution, StoreError> {
    let unreadable = |error| StoreError::unreadable(read::subject(id), error);
    let entries = journal.into_iter().map(|record| record::decode_entry(&record.into()));
    let entries = entries.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    read::restored(id, read::checked_head(id, head)?.restore(entries))
}

/// The row of a resource.
pub fn row(key: &ResourceKey, record: Vec<u8>) -> Result<Row, StoreError> {
    read::checked_row(key, record)
}

/// The name of a row as far as it counts for the order of a list: a page token has to hold it, with the id.
pub fn sort_name(row: &Row) -> &str {
    layout::sort_name(&row.name, &row.key.id)
}

/// Whether [`sort_name`] leaves the name as it is, whatever the id beside it.
pub fn is_whole_in_order(name: &str) -> bool {
    layout::is_whole_in_index(name)
}
