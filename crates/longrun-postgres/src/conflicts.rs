//! Whose fault it was that a batch did not fit: each commit is looked at by itself, in the order in which a commit is checked.

use std::collections::HashMap;

use longrun_core::{Condition, OperationId, ResourceKey, Revision};
use longrun_store::records::Records;
use longrun_store::{Author, CommitError, Conflict, LedgerEntry};
use tokio_postgres::GenericClient;

use crate::batch::{self, Param};
use crate::read;
use crate::store::Shared;

/// Keeps everybody from making, changing and removing rows until the transaction ends: what a commit says of rows that are not
/// there can be relied on then, and on nothing less. It waits for the batches under way, and those that come wait for it.
pub(crate) const KEEP_ROWS: &str = "LOCK TABLE longrun.resources IN SHARE ROW EXCLUSIVE MODE";

/// Whether a commit has a condition that nothing else may be written beside.
pub(crate) fn need_to_be_alone(records: &Records) -> bool {
    records.conditions.iter().any(|condition| !matches!(condition, Condition::Ready(_)))
}

/// The resources that a commit only looks at.
pub(crate) fn must_be_ready(records: &Records) -> impl Iterator<Item = &ResourceKey> {
    records.conditions.iter().filter_map(|condition| match condition {
        Condition::Ready(key) => Some(key),
        _ => None,
    })
}

/// An operation as it is stored.
struct Found {
    revision: i64,
    done: bool,
    owned: bool,
    fence: i64,
}

/// A row as it is stored.
struct FoundRow {
    revision: i64,
    holder: Option<OperationId>,
    ready: bool,
}

/// What is stored of all that a group of commits touches.
#[derive(Default)]
struct Stored {
    nodes: Vec<i64>,
    epoch: i64,
    operations: HashMap<String, Found>,
    rows: HashMap<ResourceKey, FoundRow>,
    keys: HashMap<Vec<u8>, LedgerEntry>,
}

/// What each commit of a group is refused for; `None` for those against which nothing speaks.
pub(crate) async fn find<C: GenericClient>(
    client: &C,
    shared: &Shared,
    group: &[&Records],
) -> Result<Vec<Option<CommitError>>, tokio_postgres::Error> {
    let stored = Stored::read(client, shared, group).await?;
    let mut refused = Vec::with_capacity(group.len());
    for records in group {
        let mut error = stored.check(records);
        for condition in &records.conditions {
            if error.is_none() && !holds(client, shared, &stored, condition).await? {
                error = Some(Conflict::Condition(condition.clone()).into());
            }
        }
        refused.push(error);
    }
    Ok(refused)
}

impl Stored {
    async fn read<C: GenericClient>(
        client: &C,
        shared: &Shared,
        group: &[&Records],
    ) -> Result<Self, tokio_postgres::Error> {
        let mut stored = Self::default();
        let rows = client.query(&shared.sql("SELECT epoch FROM longrun.nodes"), &[]).await?;
        stored.nodes = rows.iter().map(|row| row.get(0)).collect();
        stored.epoch = client.query_one(&shared.sql(EPOCH), &[]).await?.get(0);

        let ids: Vec<_> = group.iter().map(|records| records.header.id.as_str()).collect();
        let text = "SELECT id, revision, done_at IS NOT NULL, node IS NOT NULL, fence
            FROM longrun.operations WHERE id = ANY ($1)";
        for row in client.query(&shared.sql(text), &[&ids]).await? {
            let found =
                Found { revision: row.get(1), done: row.get(2), owned: row.get(3), fence: row.get(4) };
            stored.operations.insert(row.get(0), found);
        }

        let written = group.iter().flat_map(|records| &records.rows).map(|row| &row.write.key);
        let ready = group.iter().flat_map(|records| must_be_ready(records));
        let keys: Vec<_> = written.chain(ready).collect();
        let kinds: Vec<_> = keys.iter().map(|key| key.kind.as_str()).collect();
        let of_kinds: Vec<_> = keys.iter().map(|key| key.id.as_str()).collect();
        let text = "SELECT u.place, r.revision, r.operation, r.status = 'READY'
            FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u (kind, id, place)
            JOIN longrun.resources r ON r.kind = u.kind AND r.id = u.id";
        let params: [Param<'_>; 2] = [&kinds, &of_kinds];
        for row in client.query(&shared.sql(text), &params).await? {
            let place = usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX);
            let Some(key) = keys.get(place) else { continue };
            let holder: Option<&str> = row.get(2);
            let holder = holder.and_then(|id| OperationId::parse(id).ok());
            let found = FoundRow { revision: row.get(1), holder, ready: row.get(3) };
            stored.rows.insert((*key).clone(), found);
        }

        let digests: Vec<_> =
            group.iter().filter_map(|records| Some(records.ledger.as_ref()?.digest.as_slice())).collect();
        let text = "SELECT operation, fingerprint, expires_at, digest FROM longrun.idempotency WHERE digest = ANY ($1)";
        for row in client.query(&shared.sql(text), &[&digests]).await? {
            if let Ok(entry) = read::ledger_entry(&row) {
                stored.keys.insert(row.get(3), entry);
            }
        }
        Ok(stored)
    }

    fn check(&self, records: &Records) -> Option<CommitError> {
        let held = records.fence;
        let fence = i64::try_from(held.0).ok();
        let is_owner = records.author == Author::Owner;
        let id = records.header.id;
        let found = self.operations.get(id.as_str());
        let fenced = |current| Some(CommitError::Fenced { held, current: batch::fence(current) });
        match found {
            _ if !is_owner => {}
            None if !fence.is_some_and(|fence| self.nodes.contains(&fence)) => return fenced(self.epoch),
            // One that is to be made may be there by another's hand: that is no word on who this is.
            Some(_) if records.expect.is_none() && fence.is_some_and(|fence| self.nodes.contains(&fence)) => {
            }
            Some(found) if !(found.done || found.owned && fence == Some(found.fence)) => {
                return fenced(found.fence);
            }
            _ => {}
        }
        let revision = |number: i64| Revision(number.try_into().unwrap_or(0));
        let is = found.filter(|found| !found.done).map(|found| revision(found.revision));
        if is != records.expect || found.is_some() && records.expect.is_none() {
            return Some(Conflict::Operation { id, expected: records.expect, found: is }.into());
        }
        if let Some(claim) = &records.ledger
            && let Some(entry) = self.keys.get(claim.digest.as_slice())
        {
            return Some(Conflict::Idempotency(entry.clone()).into());
        }
        for row in &records.rows {
            let write = &row.write;
            let found = self.rows.get(&write.key);
            let is = found.map(|found| revision(found.revision));
            let holder = found.and_then(|found| found.holder);
            if is != write.expect || holder != write.holder {
                let key = write.key.clone();
                return Some(Conflict::Resource { key, holder, exists: found.is_some() }.into());
            }
        }
        None
    }
}

/// The newest epoch.
pub(crate) const EPOCH: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM longrun.epochs";

async fn holds<C: GenericClient>(
    client: &C,
    shared: &Shared,
    stored: &Stored,
    condition: &Condition,
) -> Result<bool, tokio_postgres::Error> {
    if let Condition::Ready(key) = condition {
        return Ok(stored.rows.get(key).is_some_and(|found| found.ready));
    }
    let Some((kind, parent, children)) = batch::family(condition) else { return Ok(false) };
    let text =
        format!("SELECT ({}) = $3 FROM (SELECT $1::text AS kind, $2::text AS parent) AS u", batch::CHILDREN);
    let params: [Param<'_>; 3] = [&kind, &parent, &children];
    Ok(client.query_one(&shared.sql(&text), &params).await?.get(0))
}
