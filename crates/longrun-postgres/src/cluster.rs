//! Nodes: who works on what, by the database's clock.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use longrun_core::{Fence, OperationId, Timestamp};
use longrun_store::records::FORMAT_VERSION;
use longrun_store::{Asked, Claimed, Cluster, Due, StoreError, Tidings, Wanted};
use tokio::time::Instant;

use crate::batch::{Param, count, fence, number};
use crate::conflicts;
use crate::error::unavailable;
use crate::items::{Trouble, transact};
use crate::read::id_in;
use crate::store::{PostgresStore, Shared};
use crate::values::At;

/// Operations that one transaction takes away from dead nodes.
const FREED_AT_ONCE: u64 = 10_000;
/// Rows of committers that were not used for so long go.
const COMMITTERS_KEPT: &str = "30 days";

/// Since when the database could be reached without a break.
///
/// After an outage that all nodes saw, the leases of all have run out, and the first to come back must not take the others for
/// dead: it waits until each had the time of a lease to come back too.
#[derive(Debug, Default)]
pub(crate) struct Contact(Mutex<Option<Instant>>);

impl Contact {
    fn lasts(&self) -> Duration {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert_with(Instant::now).elapsed()
    }

    /// As if it had lasted for so long.
    #[cfg(feature = "testing")]
    pub(crate) fn has_lasted(&self, time: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_sub(time);
    }

    fn broke(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Shared {
    /// How long a lease is, in microseconds.
    fn lease_micros(&self) -> i64 {
        i64::try_from(self.options.lease.as_micros()).unwrap_or(i64::MAX)
    }

    /// Makes a node.
    pub(crate) async fn join(&self) -> Result<Fence, StoreError> {
        let text = "INSERT INTO longrun.nodes (epoch, expires_at)
            VALUES (nextval('longrun.epochs'), clock_timestamp() + $1 * interval '1 microsecond') RETURNING epoch";
        let row = self.one(text, &[&(self.lease_micros() as f64)]).await?;
        Ok(fence(row.get(0)))
    }

    async fn one(&self, text: &str, params: &[Param<'_>]) -> Result<tokio_postgres::Row, StoreError> {
        let mut found = self.query_on(self.node_client().await?, text, params).await?;
        found.pop().ok_or_else(|| StoreError::Unavailable("the database gave no answer".into()))
    }

    async fn renew(&self, node: Fence, asked: Asked) -> Result<Tidings, StoreError> {
        let lasts = self.contact.lasts();
        let renewed = match self.extend(node).await {
            Ok(lapsed) => transact!(self, node_client, |transaction| self.look_around(
                transaction,
                node,
                &asked,
                lapsed
            ))
            .map_err(unavailable),
            Err(error) => Err(error),
        };
        if renewed.is_err() {
            self.contact.broke();
        }
        let mut tidings = renewed?;
        if lasts >= self.options.lease {
            tidings.freed = self.bury().await;
        }
        Ok(tidings)
    }

    /// Extends the lease by itself, so that nothing that others do can cost it. Whether it had run out.
    async fn extend(&self, node: Fence) -> Result<bool, StoreError> {
        let text = "WITH found AS (SELECT expires_at < clock_timestamp() AS lapsed FROM longrun.nodes WHERE epoch = $1)
            INSERT INTO longrun.nodes AS n (epoch, expires_at)
            VALUES ($1, clock_timestamp() + $2 * interval '1 microsecond')
            ON CONFLICT (epoch) DO UPDATE SET expires_at = excluded.expires_at
            RETURNING coalesce((SELECT lapsed FROM found), true)";
        let params: [Param<'_>; 2] = [&number(node.0), &(self.lease_micros() as f64)];
        Ok(self.one(text, &params).await?.get(0))
    }

    /// What others did. It waits for none of them: what somebody is at is told the next time.
    async fn look_around(
        &self,
        transaction: &Transaction<'_>,
        node: Fence,
        asked: &Asked,
        lapsed: bool,
    ) -> Result<Tidings, Trouble> {
        let mut tidings = Tidings { lapsed, ..Tidings::default() };
        let epoch = number(node.0);
        let others = "SELECT count(*) > 1 FROM longrun.nodes";
        let others: bool = transaction.query_one(&self.sql(others), &[]).await?.get(0);
        self.in_company.store(others, Ordering::Relaxed);

        let ids = |rows: Vec<tokio_postgres::Row>| -> Vec<OperationId> {
            rows.iter().filter_map(|row| id_in(row, 0).ok()).collect()
        };
        // Told once: a node that does not hear the answer looks at all that it works on.
        let text = "UPDATE longrun.operations
            SET visited = false, node = CASE WHEN done_at IS NULL THEN node END
            WHERE id = ANY (ARRAY(
                SELECT id FROM longrun.operations WHERE node = $1 AND visited FOR UPDATE SKIP LOCKED
            )) RETURNING id";
        tidings.changed = ids(transaction.query(&self.sql(text), &[&epoch]).await?);
        if !asked.awaited.is_empty() {
            let awaited: Vec<_> = asked.awaited.iter().map(|id| id.as_str()).collect();
            let text = "SELECT u.id FROM unnest($1::text[]) AS u (id)
                LEFT JOIN longrun.operations o ON o.id = u.id WHERE o.id IS NULL OR o.done_at IS NOT NULL";
            tidings.ended = ids(transaction.query(&self.sql(text), &[&awaited]).await?);
        }
        if let Some(holds) = &asked.holds {
            let held: Vec<_> = holds.iter().map(|(id, _)| id.as_str()).collect();
            let fences: Vec<_> = holds.iter().map(|(_, fence)| number(fence.0)).collect();
            let text = "SELECT u.id FROM unnest($1::text[], $2::bigint[]) AS u (id, fence)
                LEFT JOIN longrun.operations o
                    ON o.id = u.id AND o.fence = u.fence AND o.node = $3 AND o.done_at IS NULL
                WHERE o.id IS NULL";
            tidings.lost = ids(transaction.query(&self.sql(text), &[&held, &fences, &epoch]).await?);
            // What it has by another claim than it says it does not know either. As a set, because a list would be looked through
            // for each.
            let text = "UPDATE longrun.operations SET node = NULL
                WHERE id = ANY (ARRAY(
                    SELECT o.id FROM longrun.operations o WHERE o.node = $1 AND o.id IN (
                        SELECT id FROM (
                            SELECT id, fence FROM longrun.operations WHERE node = $1
                            EXCEPT SELECT * FROM unnest($2::text[], $3::bigint[])
                        ) strays
                    ) FOR UPDATE SKIP LOCKED
                ))";
            transaction.execute(&self.sql(text), &[&epoch, &held, &fences]).await?;
        }
        Ok(tidings)
    }

    /// Takes away what nodes hold whose leases have run out. Gives how many operations that are.
    ///
    /// Whoever cannot be buried now, or whose operations somebody else is at, is buried by a later renewal of some node: nothing of
    /// it may cost a node its own lease.
    async fn bury(&self) -> u64 {
        let mut freed = 0;
        loop {
            match transact!(self, node_client, |transaction| self.bury_some(transaction)) {
                Ok(some) => {
                    freed += some;
                    if some < FREED_AT_ONCE {
                        return freed;
                    }
                }
                Err(error) => {
                    let error = longrun_core::with_causes(&error);
                    tracing::warn!(error, "what dead nodes hold could not be taken away");
                    return freed;
                }
            }
        }
    }

    async fn bury_some(&self, transaction: &Transaction<'_>) -> Result<u64, Trouble> {
        // One of which a batch is under way is passed over; none is taken while its row is held, or once it has gone.
        let dead =
            "SELECT epoch FROM longrun.nodes WHERE expires_at < clock_timestamp() FOR UPDATE SKIP LOCKED";
        let dead: Vec<i64> =
            transaction.query(&self.sql(dead), &[]).await?.iter().map(|row| row.get(0)).collect();
        if dead.is_empty() {
            return Ok(0);
        }
        tracing::warn!(nodes = ?dead, "the leases of nodes have run out, what they held is free");
        let text = format!(
            "DELETE FROM longrun.committers WHERE used_at < clock_timestamp() - interval '{COMMITTERS_KEPT}'"
        );
        transaction.execute(&self.sql(&text), &[]).await?;
        let text = format!(
            "UPDATE longrun.operations SET node = NULL WHERE id = ANY (ARRAY(
                SELECT id FROM longrun.operations WHERE node = ANY ($1) LIMIT {FREED_AT_ONCE} FOR UPDATE SKIP LOCKED
            ))"
        );
        let freed = transaction.execute(&self.sql(&text), &[&dead]).await?;
        let text = "DELETE FROM longrun.nodes n WHERE epoch = ANY ($1)
            AND NOT EXISTS (SELECT FROM longrun.operations o WHERE o.node = n.epoch)";
        transaction.execute(&self.sql(text), &[&dead]).await?;
        Ok(freed)
    }

    async fn claim(&self, node: Fence, wanted: Wanted) -> Result<Vec<Claimed>, StoreError> {
        let kinds: Option<Vec<_>> =
            wanted.kinds.as_ref().map(|kinds| kinds.iter().map(|kind| kind.as_str()).collect());
        let except: Vec<_> = wanted.except.iter().map(|id| id.as_str()).collect();
        // The node's row is held, so that nobody buries it meanwhile: what it took then would belong to nobody who is known.
        // `ahead`: what waits for nothing, also past the time asked for. It has an index of its own, as much else may wait there.
        let text = "WITH due AS (
                SELECT o.id FROM longrun.operations o, longrun.nodes n
                WHERE n.epoch = $1 AND o.done_at IS NULL AND o.node IS NULL AND o.due_at <= $2 AND o.format <= $6
                    AND ($3::text[] IS NULL OR o.kind = ANY ($3)) AND o.id <> ALL ($4)
                ORDER BY o.node, o.due_at, o.id LIMIT $5 FOR UPDATE OF o SKIP LOCKED FOR KEY SHARE OF n
            ), ahead AS (
                SELECT o.id FROM longrun.operations o, longrun.nodes n
                WHERE n.epoch = $1 AND o.done_at IS NULL AND o.node IS NULL AND o.due_at = o.created_at
                    AND o.created_at > $2 AND o.format <= $6 AND ($3::text[] IS NULL OR o.kind = ANY ($3)) AND o.id <> ALL ($4)
                ORDER BY o.created_at LIMIT $5 FOR UPDATE OF o SKIP LOCKED FOR KEY SHARE OF n
            ), mine AS (
                SELECT id FROM due UNION ALL SELECT id FROM ahead LIMIT $5
            )
            UPDATE longrun.operations o SET node = $1, fence = greatest($1, o.fence + 1), visited = false
            FROM mine WHERE o.id = mine.id RETURNING o.due_at, o.id, o.fence";
        let (epoch, limit) = (number(node.0), count(wanted.limit));
        let format = i32::try_from(FORMAT_VERSION).unwrap_or(i32::MAX);
        let params: [Param<'_>; 6] = [&epoch, &At(wanted.until), &kinds, &except, &limit, &format];
        let found = self.query_on(self.node_client().await?, text, &params).await?;
        let mut claimed = Vec::with_capacity(found.len());
        for row in &found {
            let due = Due { at: row.get::<_, At>(0).0, id: id_in(row, 1)? };
            claimed.push(Claimed { due, fence: fence(row.get(2)) });
        }
        claimed.sort_unstable_by_key(|claimed| claimed.due);
        Ok(claimed)
    }

    async fn release(&self, held: Vec<(OperationId, Fence)>) -> Result<(), StoreError> {
        let ids: Vec<_> = held.iter().map(|(id, _)| id.as_str()).collect();
        let fences: Vec<_> = held.iter().map(|(_, fence)| number(fence.0)).collect();
        let text = "UPDATE longrun.operations o SET node = NULL
            FROM unnest($1::text[], $2::bigint[]) AS u (id, fence)
            WHERE o.id = u.id AND o.fence = u.fence AND o.node IS NOT NULL";
        self.query_on(self.node_client().await?, text, &[&ids, &fences]).await?;
        self.news.notify_one();
        Ok(())
    }

    async fn leave(&self, node: Fence) -> Result<(), StoreError> {
        let epoch = number(node.0);
        transact!(self, node_client, |transaction| self.leave_in(transaction, epoch)).map_err(unavailable)?;
        self.news.notify_one();
        Ok(())
    }

    async fn leave_in(&self, transaction: &Transaction<'_>, epoch: i64) -> Result<u64, Trouble> {
        // Waits for the batch of the node that is under way; none is taken afterwards.
        let text = "DELETE FROM longrun.nodes WHERE epoch = $1";
        transaction.execute(&self.sql(text), &[&epoch]).await?;
        let text = "UPDATE longrun.operations SET node = NULL WHERE node = $1";
        Ok(transaction.execute(&self.sql(text), &[&epoch]).await?)
    }
}

#[async_trait]
impl Cluster for PostgresStore {
    fn lease(&self) -> Duration {
        self.shared.options.lease
    }

    async fn renew(&self, node: Fence, asked: &Asked) -> Result<Tidings, StoreError> {
        let asked = asked.clone();
        self.ask(move |shared| async move { shared.renew(node, asked).await }).await
    }

    async fn claim(&self, node: Fence, wanted: &Wanted) -> Result<Vec<Claimed>, StoreError> {
        let wanted = wanted.clone();
        self.ask(move |shared| async move { shared.claim(node, wanted).await }).await
    }

    async fn next_due(&self, until: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let text = "SELECT due_at FROM longrun.operations
            WHERE done_at IS NULL AND node IS NULL AND due_at > $1 ORDER BY node, due_at, id LIMIT 1";
        let found = self.ask(move |shared| async move { shared.query(text, &[&At(until)]).await }).await?;
        Ok(found.first().map(|row| row.get::<_, At>(0).0))
    }

    async fn release(&self, held: &[(OperationId, Fence)]) -> Result<(), StoreError> {
        let held = held.to_vec();
        self.ask(move |shared| async move { shared.release(held).await }).await
    }

    async fn leave(&self, node: Fence) -> Result<(), StoreError> {
        self.ask(move |shared| async move { shared.leave(node).await }).await
    }

    async fn changed(&self) {
        if self.shared.options.hints {
            self.shared.changed.notified().await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    async fn unfinished(&self) -> Result<u64, StoreError> {
        // The condition of the index in its own words, so that for the backlog the index alone is read.
        let text = "SELECT
            (SELECT count(*) FROM longrun.operations WHERE node IS NULL AND (done_at IS NULL OR node IS NOT NULL))
            + (SELECT count(*) FROM longrun.operations WHERE node IS NOT NULL AND done_at IS NULL)";
        let row = self.ask(move |shared| async move { shared.one(text, &[]).await }).await?;
        Ok(row.get::<_, i64>(0).try_into().unwrap_or(0))
    }

    async fn epoch(&self) -> Result<Fence, StoreError> {
        let row = self.ask(move |shared| async move { shared.one(conflicts::EPOCH, &[]).await }).await?;
        Ok(fence(row.get(0)))
    }
}
