//! Removing what is no longer kept (C20). Any node may, also several at once: each passes over what another is at.

use deadpool_postgres::Transaction;
use longrun_core::Fence;
use longrun_store::records;
use longrun_store::{CommitError, Purge, Purged};

use crate::batch::{Param, count};
use crate::items::{Trouble, check_node, transact};
use crate::read::id_in;
use crate::schema::BEGINNING;
use crate::store::Shared;
use crate::values::At;

/// Most operations, and most idempotency entries, that one purge removes.
const PURGE_MAX: usize = 1000;
/// Records that are read at once: some are large.
const READ_AT_ONCE: usize = 64;

pub(crate) async fn purge(shared: &Shared, fence: Fence, purge: &Purge) -> Result<Purged, CommitError> {
    transact!(shared, |transaction| purge_in(shared, transaction, fence, purge))
}

async fn purge_in(
    shared: &Shared,
    transaction: &Transaction<'_>,
    fence: Fence,
    purge: &Purge,
) -> Result<Purged, Trouble> {
    let limit = purge.limit.clamp(1, PURGE_MAX);
    check_node(shared, transaction, fence).await?;
    let mut purged = Purged::default();
    let (mut ids, mut kinds, mut of_kinds, mut links) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut digests, mut with_keys) = (Vec::new(), Vec::new());
    let (mut at, mut last) = (BEGINNING, String::new());
    let only = purge.only.as_ref().map(|id| id.as_str());
    while ids.len() < limit {
        // One is found by its id, and not among all that are old enough.
        let which = if only.is_some() { "o.id = $4" } else { "$4::text IS NULL" };
        let text = format!(
            "SELECT o.id, o.done_at, r.head FROM longrun.operations o
            JOIN longrun.operation_records r ON r.operation = o.id
            WHERE o.done_at IS NOT NULL AND o.done_at <= $1 AND (o.done_at, o.id) > ($2, $3) AND {which}
            ORDER BY o.done_at, o.id LIMIT $5 FOR UPDATE OF o SKIP LOCKED"
        );
        let wanted = count((limit - ids.len()).min(READ_AT_ONCE));
        let params: [Param<'_>; 5] = [&At(purge.done_until), &at, &last, &only, &wanted];
        let found = transaction.query(&shared.sql(&text), &params).await?;
        let Some(end) = found.last() else { break };
        (at, last) = (end.get(1), end.get(0));
        for row in &found {
            let id: &str = row.get(0);
            // What the record says of its resources and its key: without it they could not be told from those of others.
            let execution = id_in(row, 0).and_then(|id| records::operation(id, row.get(2), []));
            let Ok(execution) = execution else {
                purged.unreadable += 1;
                continue;
            };
            let header = execution.header();
            ids.push(id.to_owned());
            for key in &header.resources {
                kinds.push(key.kind.to_string());
                of_kinds.push(key.id.to_string());
                links.push(id.to_owned());
            }
            if let Some(digest) = header.idempotency {
                digests.push(digest.to_vec());
                with_keys.push(id.to_owned());
            }
        }
    }
    if !ids.is_empty() {
        let text = "WITH gone AS (
                DELETE FROM longrun.operations WHERE id = ANY ($1)
            ), records AS (
                DELETE FROM longrun.operation_records WHERE operation = ANY ($1)
            ), links AS (
                DELETE FROM longrun.operation_resources l
                USING unnest($2::text[], $3::text[], $4::text[]) AS u (kind, id, operation)
                WHERE l.kind = u.kind AND l.id = u.id AND l.operation = u.operation
            )
            UPDATE longrun.idempotency i SET expires_at = $7
            FROM unnest($5::bytea[], $6::text[]) AS u (digest, operation)
            WHERE i.digest = u.digest AND i.operation = u.operation";
        let params: [Param<'_>; 7] =
            [&ids, &kinds, &of_kinds, &links, &digests, &with_keys, &At(purge.keys_expire_at)];
        transaction.execute(&shared.sql(text), &params).await?;
    }
    let text = "DELETE FROM longrun.idempotency WHERE digest IN (
            SELECT digest FROM longrun.idempotency WHERE expires_at IS NOT NULL AND expires_at <= $1
            ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )";
    let keys = transaction.execute(&shared.sql(text), &[&At(purge.now), &count(limit)]).await?;
    purged.operations = ids.len();
    purged.keys = usize::try_from(keys).unwrap_or(usize::MAX);
    let text = "SELECT EXISTS (
            SELECT FROM longrun.operations
            WHERE done_at IS NOT NULL AND done_at <= $1 AND (done_at, id) > ($2, $3) AND $4::text IS NULL
        ) OR EXISTS (
            SELECT FROM longrun.idempotency WHERE expires_at IS NOT NULL AND expires_at <= $5
        )";
    let params: [Param<'_>; 5] = [&At(purge.done_until), &at, &last, &only, &At(purge.now)];
    purged.more = transaction.query_one(&shared.sql(text), &params).await?.get(0);
    Ok(purged)
}
