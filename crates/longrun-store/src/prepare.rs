//! From a [`Commit`] to bytes: done by the caller, so that the committer thread only checks and writes.

use longrun_core::{Condition, Fence, OperationId, Revision, Row, RowWrite};

use crate::codec::CodecError;
use crate::error::{CommitError, StoreError};
use crate::kv::{Batch, Table};
use crate::layout;
use crate::record;
use crate::records::{self, limited};
use crate::store::{Commit, LedgerEntry};

/// A commit as bytes, with what it is conditional on.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) id: OperationId,
    pub(crate) fence: Fence,
    /// The revision that the operation must have; `None` when it must not be there.
    pub(crate) expect: Option<Revision>,
    pub(crate) revision: Revision,
    pub(crate) done: bool,
    /// What the rows must be, without what they become: that is in the batch.
    pub(crate) rows: Vec<RowWrite>,
    pub(crate) ledger: Option<Vec<u8>>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) batch: Batch,
}

impl Prepared {
    pub(crate) fn new(commit: Commit) -> Result<Self, CommitError> {
        let Commit {
            fence,
            // Whoever commits, the store has one owner.
            author: _,
            header,
            entry,
            plan,
            finished,
            obsolete,
            rows,
            was_due_at,
            due_at,
            ledger,
            conditions,
        } = commit;
        let id = header.id;
        let (first, revision, at) = (entry.first, entry.revision, entry.at);
        let mut batch = Batch::default();
        let unencodable =
            |error: CodecError| CommitError::from(StoreError::unreadable(format!("operation {id}"), error));

        let head = records::head(&header, &entry, plan.as_ref(), finished.as_ref());
        match head {
            Some(head) => {
                batch.put(
                    Table::Operations,
                    layout::operation(id),
                    limited(head.encode().map_err(unencodable)?)?,
                );
            }
            None => {
                let bytes = limited(record::encode_entry(&entry).map_err(unencodable)?)?;
                batch.put(Table::Journal, layout::journal(id, first), bytes);
            }
        }
        for first in obsolete {
            batch.remove(Table::Journal, layout::journal(id, first));
        }
        if was_due_at != due_at {
            if let Some(at) = was_due_at {
                batch.remove(Table::Due, layout::timed(at, id));
            }
            if let Some(at) = due_at {
                batch.put(Table::Due, layout::timed(at, id), Vec::new());
            }
        }
        if finished.is_some() {
            batch.put(Table::Finished, layout::timed(at, id), Vec::new());
        }
        if first == Revision::FIRST {
            for key in &header.resources {
                batch.put(Table::ByResource, layout::by_resource(key, id), Vec::new());
            }
        }
        for write in &rows {
            put_row(&mut batch, write)?;
        }
        let ledger = match ledger {
            Some(claim) => {
                let entry = LedgerEntry { operation: id, fingerprint: claim.fingerprint, expires_at: None };
                let bytes = record::encode_ledger(&entry).map_err(unencodable)?;
                batch.put(Table::Idempotency, claim.digest.to_vec(), bytes);
                Some(claim.digest.to_vec())
            }
            None => None,
        };
        let expect = (first != Revision::FIRST).then(|| Revision(revision.0 - 1));
        Ok(Self { id, fence, expect, revision, done: finished.is_some(), rows, ledger, conditions, batch })
    }
}

/// The index entries of a row, from the row alone: so they can be verified and built anew.
pub(crate) fn index_entries(row: &Row) -> [(Table, Vec<u8>); 3] {
    [
        (Table::ByParent, layout::by_parent(&row.key, &row.parent)),
        (Table::ByName, layout::by_name(row)),
        (Table::ByCreation, layout::by_creation(row)),
    ]
}

/// The row and its index entries.
fn put_row(batch: &mut Batch, write: &RowWrite) -> Result<(), CommitError> {
    let entries = |row: &Option<Row>| row.as_ref().map_or_else(Vec::new, |row| index_entries(row).to_vec());
    let (old, new) = (entries(&write.replaces), entries(&write.put));
    for (table, entry) in old.iter().filter(|entry| !new.contains(entry)) {
        batch.remove(*table, entry.clone());
    }
    for (table, entry) in new.into_iter().filter(|entry| !old.contains(entry)) {
        batch.put(table, entry, Vec::new());
    }
    let key = layout::resource(&write.key);
    match &write.put {
        Some(row) => {
            let bytes = record::encode_row(row)
                .map_err(|error| CommitError::from(StoreError::unreadable(write.key.to_string(), error)))?;
            batch.put(Table::Resources, key, limited(bytes)?);
        }
        None => batch.remove(Table::Resources, key),
    }
    Ok(())
}
