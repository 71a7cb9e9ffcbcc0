//! Reading operations, rows and idempotency keys.

use longrun_core::limits::PAGE_SIZE_MAX;
use longrun_core::{Execution, Fence, Operation, OperationId, ResourceId, ResourceKey, Row, Timestamp};
use longrun_store::records;
use longrun_store::{
    Due, LedgerEntry, OperationQuery, Position, ResourceOrder, ResourceQuery, Slice, StoreError,
};

use crate::batch::{self, Param, count};
use crate::conflicts::EPOCH;
use crate::error::damaged;
use crate::schema::BEGINNING;
use crate::store::Shared;
use crate::values::At;

/// Records that are read at once: those of some operations are large.
const READ_AT_ONCE: usize = 64;
/// Places of due work that are read at once.
const DUE_AT_ONCE: usize = 10_000;
/// After every id.
const AFTER_ALL: &str = "~";

/// Head and journal, as one instant left them.
const LOAD: &str = "SELECT r.operation, r.head, ARRAY(
        SELECT j.record FROM longrun.operation_journal j WHERE j.operation = r.operation ORDER BY j.first
    ) FROM longrun.operation_records r";

pub(crate) async fn operation(shared: &Shared, id: OperationId) -> Result<Option<Execution>, StoreError> {
    let found = shared.query(&format!("{LOAD} WHERE r.operation = $1"), &[&id.as_str()]).await?;
    found.first().map(|row| execution(id, row)).transpose()
}

/// The fence of an operation, and whether it is that of its owner or, if it is done, of its last one. One that is not there has the
/// newest epoch for that.
pub(crate) async fn fence(shared: &Shared, id: OperationId) -> Result<(Fence, bool), StoreError> {
    let text = "SELECT fence, node IS NOT NULL OR done_at IS NOT NULL FROM longrun.operations WHERE id = $1";
    let mut found = shared.query(text, &[&id.as_str()]).await?;
    if found.is_empty() {
        found = shared.query(&format!("SELECT epoch, false FROM ({EPOCH}) AS newest (epoch)"), &[]).await?;
    }
    let row = found.first().ok_or_else(|| damaged("the sequence of epochs", "it has no row"))?;
    Ok((batch::fence(column(row, 0)?), column(row, 1)?))
}

fn execution(id: OperationId, row: &tokio_postgres::Row) -> Result<Execution, StoreError> {
    records::operation(id, column(row, 1)?, column::<Vec<Vec<u8>>>(row, 2)?)
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a tokio_postgres::Row,
    place: usize,
) -> Result<T, StoreError> {
    row.try_get(place).map_err(|error| damaged("a row of a table", error))
}

pub(crate) fn id_in(row: &tokio_postgres::Row, place: usize) -> Result<OperationId, StoreError> {
    OperationId::parse(column(row, place)?).map_err(|error| damaged("the id of an operation", error))
}

pub(crate) async fn due(
    shared: &Shared,
    until: Timestamp,
    after: Option<Due>,
    limit: usize,
) -> Result<Vec<Due>, StoreError> {
    // What nobody works on is in order, and may be a long backlog. What some node works on is never much.
    let text = "SELECT due_at, id FROM (
            (SELECT due_at, id FROM longrun.operations
            WHERE done_at IS NULL AND node IS NULL AND due_at <= $1 AND (due_at, id) > ($2, $3)
            ORDER BY node, due_at, id LIMIT $4)
            UNION ALL
            SELECT due_at, id FROM longrun.operations
            WHERE done_at IS NULL AND node IS NOT NULL AND due_at <= $1 AND (due_at, id) > ($2, $3)
        ) due ORDER BY due_at, id LIMIT $4";
    let mut all: Vec<Due> = Vec::new();
    loop {
        let wanted = (limit - all.len()).min(DUE_AT_ONCE);
        let last = all.last().copied().or(after);
        let (at, id) = last.as_ref().map_or((BEGINNING, ""), |due| (At(due.at), due.id.as_str()));
        let found = shared.query(text, &[&At(until), &at, &id, &count(wanted)]).await?;
        for row in &found {
            all.push(Due { at: column::<At>(row, 0)?.0, id: id_in(row, 1)? });
        }
        if found.len() < wanted || all.len() >= limit {
            return Ok(all);
        }
    }
}

pub(crate) async fn resource(shared: &Shared, key: &ResourceKey) -> Result<Option<Row>, StoreError> {
    let text = "SELECT record FROM longrun.resources WHERE kind = $1 AND id = $2";
    let found = shared.query(text, &[&key.kind.as_str(), &key.id.as_str()]).await?;
    found.first().map(|row| records::row(key, column(row, 0)?)).transpose()
}

pub(crate) async fn ledger(shared: &Shared, digest: &[u8; 32]) -> Result<Option<LedgerEntry>, StoreError> {
    let text = "SELECT operation, fingerprint, expires_at FROM longrun.idempotency WHERE digest = $1";
    let found = shared.query(text, &[&digest.as_slice()]).await?;
    found.first().map(ledger_entry).transpose()
}

pub(crate) fn ledger_entry(row: &tokio_postgres::Row) -> Result<LedgerEntry, StoreError> {
    let fingerprint: &[u8] = column(row, 1)?;
    let fingerprint = fingerprint.try_into().map_err(|error| damaged("an idempotency key", error))?;
    let expires_at = column::<Option<At>>(row, 2)?.map(|at| at.0);
    Ok(LedgerEntry { operation: id_in(row, 0)?, fingerprint, expires_at })
}

/// A list that is read a part at a time: its rows, and what to take each for.
struct Reading<T> {
    items: Vec<T>,
    last: Option<Position>,
    looked_at: usize,
    limit: usize,
}

impl<T> Reading<T> {
    fn after(after: Option<Position>, limit: usize) -> Self {
        Self { items: Vec::new(), last: after, looked_at: 0, limit: limit.clamp(1, PAGE_SIZE_MAX) }
    }

    /// How many to ask for: one more tells whether anything follows.
    fn wanted(&self) -> usize {
        (self.limit - self.looked_at).min(READ_AT_ONCE)
    }

    /// Takes what was found. The list, when it is at its end.
    fn take(
        &mut self,
        found: &[tokio_postgres::Row],
        position: impl Fn(&tokio_postgres::Row) -> Result<Position, StoreError>,
        item: impl Fn(&tokio_postgres::Row) -> Result<T, StoreError>,
    ) -> Result<Option<Slice<T>>, StoreError> {
        let wanted = self.wanted();
        for row in found.iter().take(wanted) {
            match item(row) {
                Ok(item) => self.items.push(item),
                Err(error) => {
                    tracing::error!(error = longrun_core::with_causes(&error), "left out of a list");
                }
            }
            self.last = Some(position(row)?);
            self.looked_at += 1;
        }
        let more = found.len() > wanted;
        if more && self.looked_at < self.limit {
            return Ok(None);
        }
        let items = std::mem::take(&mut self.items);
        Ok(Some(Slice { items, next: self.last.take().filter(|_| more) }))
    }
}

pub(crate) async fn operations(
    shared: &Shared,
    query: &OperationQuery,
    after: Option<Position>,
    limit: usize,
) -> Result<Slice<Operation>, StoreError> {
    let mut reading = Reading::after(after, limit);
    let position = |row: &tokio_postgres::Row| Ok(Position(column::<&str>(row, 0)?.as_bytes().to_vec()));
    loop {
        let before = match &reading.last {
            None => AFTER_ALL,
            Some(Position(bytes)) => std::str::from_utf8(bytes).map_err(misplaced)?,
        };
        let wanted = count(reading.wanted() + 1);
        let found = match query {
            OperationQuery::OfResource(key) => {
                let text = format!(
                    "{LOAD} JOIN longrun.operation_resources l ON l.operation = r.operation
                     WHERE l.kind = $1 AND l.id = $2 AND l.operation < $3 ORDER BY l.operation DESC LIMIT $4"
                );
                let params: [Param<'_>; 4] = [&key.kind.as_str(), &key.id.as_str(), &before, &wanted];
                shared.query(&text, &params).await?
            }
            _ => {
                let text = format!("{LOAD} WHERE r.operation < $1 ORDER BY r.operation DESC LIMIT $2");
                shared.query(&text, &[&before, &wanted]).await?
            }
        };
        let item = |row: &tokio_postgres::Row| {
            let id = id_in(row, 0)?;
            execution(id, row).map(Execution::into_operation)
        };
        if let Some(slice) = reading.take(&found, position, item)? {
            return Ok(slice);
        }
    }
}

fn misplaced(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    damaged("a position in a list", error)
}

/// Where a list of resources goes on.
enum Place {
    Id(String),
    Name(String, String),
    Creation(At, String),
}

impl Place {
    fn of(order: ResourceOrder, Position(bytes): &Position) -> Result<Self, StoreError> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(misplaced);
        match order {
            ResourceOrder::Id => Ok(Self::Id(text(bytes)?)),
            ResourceOrder::Name => {
                let (name, id) = text(bytes)?
                    .split_once('\0')
                    .map(|(name, id)| (name.to_owned(), id.to_owned()))
                    .ok_or_else(|| misplaced("it has no id"))?;
                Ok(Self::Name(name, id))
            }
            ResourceOrder::Creation => {
                let (at, id) = bytes.split_first_chunk().ok_or_else(|| misplaced("it has no time"))?;
                let at = Timestamp::from_unix_micros(i64::from_be_bytes(*at)).map_err(misplaced)?;
                Ok(Self::Creation(At(at), text(id)?))
            }
        }
    }

    fn after(order: ResourceOrder, row: &tokio_postgres::Row) -> Result<Position, StoreError> {
        let id: &str = column(row, 0)?;
        Ok(Position(match order {
            ResourceOrder::Id => id.as_bytes().to_vec(),
            ResourceOrder::Name => [column::<&str>(row, 1)?, "\0", id].concat().into_bytes(),
            ResourceOrder::Creation => {
                let at: At = column(row, 2)?;
                [&at.0.unix_micros().to_be_bytes(), id.as_bytes()].concat()
            }
        }))
    }
}

pub(crate) async fn resources(
    shared: &Shared,
    query: &ResourceQuery,
    after: Option<Position>,
    limit: usize,
) -> Result<Slice<Row>, StoreError> {
    let mut reading = Reading::after(after, limit);
    let (kind, parent) = (query.kind.as_str(), query.parent.as_str());
    let status = query.status.map(|status| status.to_string());
    if query.name.as_ref().is_some_and(|name| name.contains('\0')) {
        // No name has it, and the database takes no such text.
        return Ok(Slice { items: Vec::new(), next: None });
    }
    loop {
        let place = reading.last.as_ref().map(|last| Place::of(query.order, last)).transpose()?;
        let wanted = count(reading.wanted() + 1);
        let mut params: Vec<Param<'_>> = vec![&kind, &parent];
        let mut text = "SELECT id, sort_name, created_at, record FROM longrun.resources
            WHERE kind = $1 AND parent = $2"
            .to_owned();
        let mut number = 2;
        let mut next = || {
            number += 1;
            format!("${number}")
        };
        if let Some(status) = &status {
            text.push_str(&format!(" AND status = {}", next()));
            params.push(status);
        }
        if let Some(name) = &query.name {
            text.push_str(&format!(" AND name = {}", next()));
            params.push(name);
            if records::is_whole_in_order(name) {
                text.push_str(&format!(" AND sort_name = {}", next()));
                params.push(name);
            }
        }
        let (columns, direction, beyond) = match (query.order, query.descending) {
            (ResourceOrder::Id, false) => ("id", "", ">"),
            (ResourceOrder::Id, true) => ("id", " DESC", "<"),
            (ResourceOrder::Name, false) => ("sort_name", "", ">"),
            (ResourceOrder::Name, true) => ("sort_name", " DESC", "<"),
            (ResourceOrder::Creation, false) => ("created_at", "", ">"),
            (ResourceOrder::Creation, true) => ("created_at", " DESC", "<"),
        };
        match &place {
            None => {}
            Some(Place::Id(id)) => {
                text.push_str(&format!(" AND id {beyond} {}", next()));
                params.push(id);
            }
            Some(Place::Name(name, id)) => {
                text.push_str(&format!(" AND (sort_name, id) {beyond} ({}, {})", next(), next()));
                params.extend::<[Param<'_>; 2]>([name, id]);
            }
            Some(Place::Creation(at, id)) => {
                text.push_str(&format!(" AND (created_at, id) {beyond} ({}, {})", next(), next()));
                params.extend::<[Param<'_>; 2]>([at, id]);
            }
        }
        let order = if columns == "id" {
            format!("id{direction}")
        } else {
            format!("{columns}{direction}, id{direction}")
        };
        text.push_str(&format!(" ORDER BY {order} LIMIT {}", next()));
        params.push(&wanted);
        let found = shared.query(&text, &params).await?;
        let item = |row: &tokio_postgres::Row| {
            let id = ResourceId::new(column::<&str>(row, 0)?)
                .map_err(|error| damaged("the id of a resource", error))?;
            records::row(&ResourceKey { kind: query.kind.clone(), id }, column(row, 3)?)
        };
        if let Some(slice) = reading.take(&found, |row| Place::after(query.order, row), item)? {
            return Ok(slice);
        }
    }
}
