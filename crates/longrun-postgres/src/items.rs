//! References to items: what resources share outside the database.
//!
//! Each change is one transaction of a few statements, and can be repeated: see [`longrun_store`] for what it must do.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use longrun_core::limits::PAGE_SIZE_MAX;
use longrun_core::{
    Fence, Incarnation, ItemId, ItemKey, OperationId, Orphan, ResourceId, ResourceKey, ResourceKind,
};
use longrun_store::{CommitError, Conflict, Dropped, Holder, StoreError, Taken};

use crate::batch::{Param, count, fence, number};
use crate::conflicts;
use crate::error::{Failed, Fault, damaged, not_committed};
use crate::read::id_in;
use crate::store::Shared;
use crate::values::Uuid;

/// References that one call drops, at most.
const DROPS_MAX: usize = 512;
/// Times that a transaction is tried in which others were at the same rows.
const TRIES_MAX: u32 = 8;

/// Why a transaction did not go through.
pub(crate) enum Trouble {
    Refused(CommitError),
    Failed(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<CommitError> for Trouble {
    fn from(error: CommitError) -> Self {
        Self::Refused(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

/// Runs a transaction of one call, and once more when others were at the same rows.
///
/// A macro, because no closure can borrow what such a call needs and still be sent to another thread.
macro_rules! transact {
    ($shared:expr, |$transaction:ident| $call:expr) => {
        transact!($shared, client, |$transaction| $call)
    };
    ($shared:expr, $line:ident, |$transaction:ident| $call:expr) => {{
        let mut tries = 0;
        loop {
            let mut client = match $shared.$line().await {
                Ok(client) => client,
                Err(error) => break Err(error.into()),
            };
            let once = async {
                let transaction = client.transaction().await?;
                let $transaction = &transaction;
                match $call.await {
                    Ok(done) => {
                        transaction.commit().await?;
                        Ok::<_, $crate::items::Trouble>(done)
                    }
                    Err(trouble) => {
                        // When the caller is told of it nothing is locked any more, which a claim would pass over.
                        _ = transaction.rollback().await;
                        Err(trouble.into())
                    }
                }
            };
            let silent = || Err($crate::items::Trouble::Failed($crate::error::Fault::Silent));
            let once = tokio::time::timeout($shared.patience(), once).await.unwrap_or_else(|_| silent());
            if matches!(&once, Err($crate::items::Trouble::Failed(fault)) if fault.spoils()) {
                // Nobody else is to wait for it, or be refused by it.
                drop(deadpool_postgres::Object::take(client));
            }
            if let Some(ended) = $crate::items::ended(once, &mut tries) {
                break ended;
            }
        }
    }};
}
pub(crate) use transact;

/// How a transaction ended; `None` when it is to be tried again.
pub(crate) fn ended<T>(once: Result<T, Trouble>, tries: &mut u32) -> Option<Result<T, CommitError>> {
    *tries += 1;
    match once {
        Ok(done) => Some(Ok(done)),
        Err(Trouble::Refused(error)) => Some(Err(error)),
        Err(Trouble::Failed(error)) => {
            let collided = matches!(Failed::of(&error), Failed::Collided | Failed::Unexpected);
            (!collided || *tries >= TRIES_MAX).then(|| Err(not_committed(error)))
        }
    }
}

async fn rows(
    shared: &Shared,
    transaction: &Transaction<'_>,
    text: &str,
    params: &[Param<'_>],
) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
    let statement = transaction.prepare_cached(&shared.sql(text)).await?;
    transaction.query(&statement, params).await
}

/// The fence must be that of a node.
pub(crate) async fn check_node(
    shared: &Shared,
    transaction: &Transaction<'_>,
    held: Fence,
) -> Result<(), Trouble> {
    let text = "SELECT 1 FROM longrun.nodes WHERE epoch = $1 FOR KEY SHARE";
    if !rows(shared, transaction, text, &[&number(held.0)]).await?.is_empty() {
        return Ok(());
    }
    let newest = rows(shared, transaction, conflicts::EPOCH, &[]).await?;
    let current = newest.first().map_or(0, |row| row.get::<_, i64>(0));
    Err(CommitError::Fenced { held, current: fence(current) }.into())
}

/// The operation must hold the resource, and the fence must be that of its owner. Whoever asks for the same operation waits.
async fn check_holder(
    shared: &Shared,
    transaction: &Transaction<'_>,
    holder: &Holder,
) -> Result<(), Trouble> {
    let text = "SELECT fence, node IS NOT NULL FROM longrun.operations WHERE id = $1 FOR NO KEY UPDATE";
    let owner = rows(shared, transaction, text, &[&holder.operation.as_str()]).await?;
    let text = "SELECT operation FROM longrun.resources WHERE kind = $1 AND id = $2";
    let key = &holder.resource;
    let row = rows(shared, transaction, text, &[&key.kind.as_str(), &key.id.as_str()]).await?;
    let held_by =
        row.first().and_then(|row| row.get::<_, Option<&str>>(0)).and_then(|id| OperationId::parse(id).ok());
    if held_by != Some(holder.operation) {
        let conflict = Conflict::Resource { key: key.clone(), holder: held_by, exists: !row.is_empty() };
        return Err(CommitError::from(conflict).into());
    }
    let (current, owned) = owner.first().map_or((0, false), |row| (row.get(0), row.get(1)));
    if owned && current == number(holder.fence.0) {
        return Ok(());
    }
    Err(CommitError::Fenced { held: holder.fence, current: fence(current) }.into())
}

/// Items as two columns.
fn columns<'a>(items: impl IntoIterator<Item = &'a ItemKey>) -> (Vec<&'a str>, Vec<&'a [u8]>) {
    items.into_iter().map(|item| (item.kind.as_str(), item.id.as_bytes())).unzip()
}

fn item(kind: &str, id: &[u8]) -> Result<ItemKey, StoreError> {
    let kind = ResourceKind::new(kind).map_err(|error| damaged("the kind of an item", error))?;
    let id = ItemId::new(id).map_err(|error| damaged("the id of an item", error))?;
    Ok(ItemKey { kind, id })
}

pub(crate) async fn take(
    shared: &Shared,
    holder: &Holder,
    items: &[ItemKey],
    fresh: Incarnation,
) -> Result<Vec<Taken>, CommitError> {
    transact!(shared, |transaction| take_in(shared, transaction, holder, items, fresh))
}

async fn take_in(
    shared: &Shared,
    transaction: &Transaction<'_>,
    holder: &Holder,
    items: &[ItemKey],
    fresh: Incarnation,
) -> Result<Vec<Taken>, Trouble> {
    check_holder(shared, transaction, holder).await?;
    let resource = &holder.resource;
    let (of_kind, of) = (resource.kind.as_str(), resource.id.as_str());
    // In one order for everybody, so that no two wait for each other.
    let mut known: BTreeMap<&ItemKey, Option<Taken>> = items.iter().map(|item| (item, None)).collect();
    let (kinds, ids) = columns(known.keys().copied());
    let text = "SELECT f.kind, f.id, f.incarnation,
            coalesce(i.confirmed AND i.incarnation = f.incarnation, false)
        FROM unnest($3::text[], $4::bytea[]) AS u (kind, id)
        JOIN longrun.item_references f ON f.resource_kind = $1 AND f.resource_id = $2
            AND f.kind = u.kind AND f.id = u.id
        LEFT JOIN longrun.items i ON i.kind = u.kind AND i.id = u.id";
    note(&rows(shared, transaction, text, &[&of_kind, &of, &kinds, &ids]).await?, &mut known)?;
    let missing: Vec<_> = known.iter().filter(|(_, taken)| taken.is_none()).map(|(item, _)| *item).collect();
    if !missing.is_empty() {
        let (kinds, ids) = columns(missing);
        let text = "INSERT INTO longrun.items AS i (kind, id, incarnation, references_held, confirmed)
            SELECT kind, id, $3, 1, false FROM unnest($1::text[], $2::bytea[]) AS u (kind, id)
            ON CONFLICT (kind, id) DO UPDATE SET references_held = i.references_held + 1
            RETURNING kind, id, incarnation, confirmed";
        let taken = rows(shared, transaction, text, &[&kinds, &ids, &Uuid(fresh.0)]).await?;
        note(&taken, &mut known)?;
        let lives: Vec<Uuid> = taken.iter().map(|row| row.get(2)).collect();
        let kinds: Vec<&str> = taken.iter().map(|row| row.get(0)).collect();
        let ids: Vec<&[u8]> = taken.iter().map(|row| row.get(1)).collect();
        let text = "INSERT INTO longrun.item_references (resource_kind, resource_id, kind, id, incarnation)
            SELECT $1, $2, * FROM unnest($3::text[], $4::bytea[], $5::uuid[])";
        rows(shared, transaction, text, &[&of_kind, &of, &kinds, &ids, &lives]).await?;
    }
    let all = items.iter().map(|item| known.get(item).copied().flatten());
    all.collect::<Option<Vec<_>>>()
        .ok_or_else(|| damaged("an item", "it was not found where it was put").into())
}

fn note(
    rows: &[tokio_postgres::Row],
    known: &mut BTreeMap<&ItemKey, Option<Taken>>,
) -> Result<(), StoreError> {
    for row in rows {
        let incarnation = Incarnation(row.get::<_, Uuid>(2).0);
        if let Some(taken) = known.get_mut(&item(row.get(0), row.get(1))?) {
            *taken = Some(Taken { incarnation, confirmed: row.get(3) });
        }
    }
    Ok(())
}

/// Whether items, in those lives, count as confirmed.
async fn mark(
    shared: &Shared,
    transaction: &Transaction<'_>,
    items: &[(ItemKey, Incarnation)],
    confirmed: bool,
) -> Result<(), Trouble> {
    let (kinds, ids) = columns(items.iter().map(|(item, _)| item));
    let lives: Vec<_> = items.iter().map(|(_, life)| Uuid(life.0)).collect();
    let text = "UPDATE longrun.items i SET confirmed = $4
        FROM unnest($1::text[], $2::bytea[], $3::uuid[]) AS u (kind, id, incarnation)
        WHERE i.kind = u.kind AND i.id = u.id AND i.incarnation = u.incarnation AND i.confirmed <> $4";
    rows(shared, transaction, text, &[&kinds, &ids, &lives, &confirmed]).await?;
    Ok(())
}

pub(crate) async fn confirm(
    shared: &Shared,
    holder: &Holder,
    items: &[(ItemKey, Incarnation)],
) -> Result<(), CommitError> {
    transact!(shared, |transaction| confirm_in(shared, transaction, holder, items))
}

async fn confirm_in(
    shared: &Shared,
    transaction: &Transaction<'_>,
    holder: &Holder,
    items: &[(ItemKey, Incarnation)],
) -> Result<(), Trouble> {
    check_holder(shared, transaction, holder).await?;
    mark(shared, transaction, items, true).await
}

pub(crate) async fn unconfirm(
    shared: &Shared,
    fence: Fence,
    items: &[(ItemKey, Incarnation)],
) -> Result<(), CommitError> {
    transact!(shared, |transaction| unconfirm_in(shared, transaction, fence, items))
}

async fn unconfirm_in(
    shared: &Shared,
    transaction: &Transaction<'_>,
    fence: Fence,
    items: &[(ItemKey, Incarnation)],
) -> Result<(), Trouble> {
    check_node(shared, transaction, fence).await?;
    mark(shared, transaction, items, false).await
}

/// Which references of a holder to drop, and when that is right.
pub(crate) enum DropWhat {
    /// The first so many, while the operation holds the resource.
    First(usize),
    /// Those to these items, while the operation holds the resource.
    Items(Vec<ItemKey>),
    /// The first so many, while there is no such resource.
    OfGone(usize),
}

pub(crate) async fn drop_some(
    shared: &Shared,
    holder: &Holder,
    what: &DropWhat,
) -> Result<Dropped, CommitError> {
    transact!(shared, |transaction| drop_some_in(shared, transaction, holder, what))
}

async fn drop_some_in(
    shared: &Shared,
    transaction: &Transaction<'_>,
    holder: &Holder,
    what: &DropWhat,
) -> Result<Dropped, Trouble> {
    let resource = &holder.resource;
    let (of_kind, of) = (resource.kind.as_str(), resource.id.as_str());
    match what {
        DropWhat::First(_) | DropWhat::Items(_) => check_holder(shared, transaction, holder).await?,
        DropWhat::OfGone(_) => check_gone(shared, transaction, holder).await?,
    }
    let (limit, items) = match what {
        DropWhat::First(limit) | DropWhat::OfGone(limit) => ((*limit).clamp(1, DROPS_MAX), None),
        DropWhat::Items(items) => (items.len(), Some(columns(items))),
    };
    let found = match &items {
        None => {
            let text = "SELECT kind, id, incarnation FROM longrun.item_references
                WHERE resource_kind = $1 AND resource_id = $2 ORDER BY kind, id LIMIT $3";
            rows(shared, transaction, text, &[&of_kind, &of, &count(limit + 1)]).await?
        }
        Some((kinds, ids)) => {
            let text = "SELECT DISTINCT f.kind, f.id, f.incarnation FROM longrun.item_references f
                JOIN unnest($3::text[], $4::bytea[]) AS u (kind, id) ON f.kind = u.kind AND f.id = u.id
                WHERE f.resource_kind = $1 AND f.resource_id = $2";
            rows(shared, transaction, text, &[&of_kind, &of, kinds, ids]).await?
        }
    };
    let more = items.is_none() && found.len() > limit;
    let found = if more { &found[..limit] } else { &found[..] };
    let kinds: Vec<&str> = found.iter().map(|row| row.get(0)).collect();
    let ids: Vec<&[u8]> = found.iter().map(|row| row.get(1)).collect();
    let lives: Vec<Uuid> = found.iter().map(|row| row.get(2)).collect();
    // In one order for everybody, so that no two wait for each other; and nobody takes what is dropped meanwhile.
    let text = "SELECT 1 FROM longrun.items i
        JOIN unnest($1::text[], $2::bytea[], $3::uuid[]) AS u (kind, id, incarnation)
            ON i.kind = u.kind AND i.id = u.id AND i.incarnation = u.incarnation
        ORDER BY i.kind, i.id FOR UPDATE OF i";
    let lived = rows(shared, transaction, text, &[&kinds, &ids, &lives]).await?;
    if lived.len() != found.len() {
        return Err(
            damaged(format!("what {resource} refers to"), "not all of it is there, in that life").into()
        );
    }
    let text = "WITH u AS (
            SELECT * FROM unnest($1::text[], $2::bytea[]) AS u (kind, id)
        ), dropped AS (
            DELETE FROM longrun.item_references f USING u
            WHERE f.resource_kind = $3 AND f.resource_id = $4 AND f.kind = u.kind AND f.id = u.id
        ), kept AS (
            UPDATE longrun.items i SET references_held = references_held - 1 FROM u
            WHERE i.kind = u.kind AND i.id = u.id AND i.references_held > 1
        ), gone AS (
            DELETE FROM longrun.items i USING u
            WHERE i.kind = u.kind AND i.id = u.id AND i.references_held = 1
            RETURNING i.kind, i.id, i.incarnation
        )
        INSERT INTO longrun.orphans (operation, incarnation, kind, id)
        SELECT $5, incarnation, kind, id FROM gone";
    let params: [Param<'_>; 5] = [&kinds, &ids, &of_kind, &of, &holder.operation.as_str()];
    rows(shared, transaction, text, &params).await?;
    Ok(Dropped { references: found.len(), more })
}

/// There must be no such resource, and none may come meanwhile.
async fn check_gone(shared: &Shared, transaction: &Transaction<'_>, holder: &Holder) -> Result<(), Trouble> {
    check_node(shared, transaction, holder.fence).await?;
    transaction.batch_execute(&shared.sql(conflicts::KEEP_ROWS)).await?;
    let text = "SELECT operation FROM longrun.resources WHERE kind = $1 AND id = $2";
    let key = &holder.resource;
    let found = rows(shared, transaction, text, &[&key.kind.as_str(), &key.id.as_str()]).await?;
    let Some(row) = found.first() else { return Ok(()) };
    let holder = row.get::<_, Option<&str>>(0).and_then(|id| OperationId::parse(id).ok());
    Err(CommitError::from(Conflict::Resource { key: key.clone(), holder, exists: true }).into())
}

pub(crate) async fn forget(shared: &Shared, fence: Fence, orphans: &[Orphan]) -> Result<(), CommitError> {
    transact!(shared, |transaction| forget_in(shared, transaction, fence, orphans))
}

async fn forget_in(
    shared: &Shared,
    transaction: &Transaction<'_>,
    fence: Fence,
    orphans: &[Orphan],
) -> Result<(), Trouble> {
    check_node(shared, transaction, fence).await?;
    let (kinds, ids) = columns(orphans.iter().map(|orphan| &orphan.item));
    let operations: Vec<_> = orphans.iter().map(|orphan| orphan.operation.as_str()).collect();
    let lives: Vec<_> = orphans.iter().map(|orphan| Uuid(orphan.incarnation.0)).collect();
    let text = "DELETE FROM longrun.orphans o
        USING unnest($1::text[], $2::uuid[], $3::text[], $4::bytea[]) AS u (operation, incarnation, kind, id)
        WHERE o.operation = u.operation AND o.incarnation = u.incarnation AND o.kind = u.kind AND o.id = u.id";
    rows(shared, transaction, text, &[&operations, &lives, &kinds, &ids]).await?;
    Ok(())
}

pub(crate) async fn references(
    shared: &Shared,
    of: &ResourceKey,
    after: Option<&ItemKey>,
    limit: usize,
) -> Result<Vec<ItemKey>, StoreError> {
    let text = "SELECT kind, id FROM longrun.item_references
        WHERE resource_kind = $1 AND resource_id = $2 AND (kind, id) > ($3, $4) ORDER BY kind, id LIMIT $5";
    let (kind, id): (&str, &[u8]) =
        after.map_or(("", &[]), |after| (after.kind.as_str(), after.id.as_bytes()));
    let limit = count(limit.clamp(1, PAGE_SIZE_MAX));
    let found = shared.query(text, &[&of.kind.as_str(), &of.id.as_str(), &kind, &id, &limit]).await?;
    found.iter().map(|row| item(row.get(0), row.get(1))).collect()
}

pub(crate) async fn holders(
    shared: &Shared,
    after: Option<&ResourceKey>,
    limit: usize,
) -> Result<Vec<ResourceKey>, StoreError> {
    // One look into the index for each, however many references it has.
    let text = "WITH RECURSIVE holders AS (
            (SELECT resource_kind AS kind, resource_id AS id FROM longrun.item_references
             WHERE (resource_kind, resource_id) > ($1, $2) ORDER BY resource_kind, resource_id LIMIT 1)
            UNION ALL
            SELECT next.kind, next.id FROM holders h CROSS JOIN LATERAL (
                SELECT f.resource_kind AS kind, f.resource_id AS id FROM longrun.item_references f
                WHERE (f.resource_kind, f.resource_id) > (h.kind, h.id) ORDER BY f.resource_kind, f.resource_id LIMIT 1
            ) next
        )
        SELECT kind, id FROM holders LIMIT $3";
    let (kind, id) = after.map_or(("", ""), |after| (after.kind.as_str(), after.id.as_str()));
    let found = shared.query(text, &[&kind, &id, &count(limit.clamp(1, PAGE_SIZE_MAX))]).await?;
    let key = |row: &tokio_postgres::Row| {
        let kind = ResourceKind::new(row.get::<_, &str>(0))
            .map_err(|error| damaged("the kind of a resource", error))?;
        let id =
            ResourceId::new(row.get::<_, &str>(1)).map_err(|error| damaged("the id of a resource", error))?;
        Ok(ResourceKey { kind, id })
    };
    found.iter().map(key).collect()
}

pub(crate) async fn orphans(
    shared: &Shared,
    of: Option<OperationId>,
    after: Option<&Orphan>,
    limit: usize,
) -> Result<Vec<Orphan>, StoreError> {
    let limit = count(limit.clamp(1, PAGE_SIZE_MAX));
    let before_all: (&str, Uuid, &str, &[u8]) = ("", Uuid(0), "", &[]);
    let (operation, life, kind, id) = after.map_or(before_all, |orphan| {
        let item = &orphan.item;
        (orphan.operation.as_str(), Uuid(orphan.incarnation.0), item.kind.as_str(), item.id.as_bytes())
    });
    let mut text = "SELECT operation, incarnation, kind, id FROM longrun.orphans
        WHERE (operation, incarnation, kind, id) > ($1, $2, $3, $4)"
        .to_owned();
    let mut params: Vec<Param<'_>> = vec![&operation, &life, &kind, &id, &limit];
    let of = of.as_ref().map(|id| id.as_str());
    if let Some(of) = &of {
        text.push_str(" AND operation = $6");
        params.push(of);
    }
    text.push_str(" ORDER BY operation, incarnation, kind, id LIMIT $5");
    let found = shared.query(&text, &params).await?;
    let orphan = |row: &tokio_postgres::Row| {
        let incarnation = Incarnation(row.get::<_, Uuid>(1).0);
        Ok(Orphan { operation: id_in(row, 0)?, incarnation, item: item(row.get(2), row.get(3))? })
    };
    found.iter().map(orphan).collect()
}

pub(crate) async fn incarnations(
    shared: &Shared,
    items: &[ItemKey],
) -> Result<Vec<Option<Incarnation>>, StoreError> {
    let (kinds, ids) = columns(items);
    let text =
        "SELECT i.incarnation FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS u (kind, id, place)
        LEFT JOIN longrun.items i ON i.kind = u.kind AND i.id = u.id ORDER BY u.place";
    let found = shared.query(text, &[&kinds, &ids]).await?;
    Ok(found.iter().map(|row| row.get::<_, Option<Uuid>>(0).map(|life| Incarnation(life.0))).collect())
}
