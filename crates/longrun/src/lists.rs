//! Lists, in pages: what a service answers to List and ListOperations.

use std::fmt;
use std::sync::Arc;

use longrun_core::limits::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};
use longrun_core::{Invalid, Operation, ResourceId, ResourceKind, ResourceStatus, Row, Status};
use longrun_store::{OperationQuery, Position, ResourceOrder, ResourceQuery, Slice};

use crate::engine::{Engine, Inner};
use crate::error::ReadError;
use crate::kind::Resource;
use crate::plan::{Found, key};

/// Rows that one page looks at, at most, when they are filtered.
const ROWS_LOOKED_AT: usize = 10_000;
/// Readings of the store that one page makes, at most, when rows are filtered: a small page has few rows in each.
const READINGS_MAX: usize = 100;

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Items on the page: 0 for the default of 100, at most 1000.
    pub size: usize,
    /// The token from the page before; empty for the first page.
    pub token: String,
}

/// Part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items. May be fewer than were asked for although more follow.
    pub items: Vec<T>,
    /// The token for the next page; empty when nothing follows.
    pub next_token: String,
}

/// Which resources to list: those of one parent, by id, unless it says more.
#[derive(Clone)]
pub struct ResourceList {
    parent: ResourceId,
    order: ResourceOrder,
    descending: bool,
    status: Option<ResourceStatus>,
    name: Option<String>,
    filter: Option<Filter>,
}

#[derive(Clone)]
struct Filter {
    /// What the filter says: a page token belongs to one filter.
    text: String,
    holds: Arc<dyn Fn(&Row) -> bool + Send + Sync>,
}

impl fmt::Debug for ResourceList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.question())
    }
}

impl ResourceList {
    /// The resources of a parent.
    pub const fn of(parent: ResourceId) -> Self {
        Self { parent, order: ResourceOrder::Id, descending: false, status: None, name: None, filter: None }
    }

    /// In another order.
    #[must_use]
    pub const fn order(mut self, order: ResourceOrder) -> Self {
        self.order = order;
        self
    }

    /// In reverse.
    #[must_use]
    pub const fn descending(mut self, descending: bool) -> Self {
        self.descending = descending;
        self
    }

    /// Only those with a status.
    #[must_use]
    pub const fn status(mut self, status: ResourceStatus) -> Self {
        self.status = Some(status);
        self
    }

    /// Only those with a name. Found by an index, unless the order is that of creation.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Only those that a filter lets through. `text` says what it lets through, for the page tokens: the same text, the same
    /// filter. A page looks at 10,000 rows at most, in 100 readings of the store, so it may be short, or empty, although more
    /// follow.
    #[must_use]
    pub fn filter(
        mut self,
        text: impl Into<String>,
        holds: impl Fn(&Row) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.filter = Some(Filter { text: text.into(), holds: Arc::new(holds) });
        self
    }

    /// What a page token belongs to. What a caller has written stands in quotes, so that no two questions look the same.
    fn question(&self) -> String {
        let Self { parent, order, descending, status, name, filter } = self;
        let filter = filter.as_ref().map(|filter| &filter.text);
        format!("resources of {parent:?} by {order:?} {descending} with {status:?} {name:?} {filter:?}")
    }

    fn query(&self, kind: ResourceKind) -> ResourceQuery {
        ResourceQuery {
            status: self.status,
            name: self.name.clone(),
            order: self.order,
            descending: self.descending,
            ..ResourceQuery::new(kind, self.parent.clone())
        }
    }

    fn holds(&self, row: &Row) -> bool {
        self.filter.as_ref().is_none_or(|filter| (filter.holds)(row))
    }
}

impl Engine {
    /// Lists operations, newest first, as long as the [prefix of their ids](crate::EngineBuilder::operation_prefix) was never
    /// changed.
    pub async fn list_operations(
        &self,
        query: &OperationQuery,
        page: &PageRequest,
    ) -> Result<Page<Operation>, ReadError> {
        let question = operations_question(query);
        let (after, size) = self.inner.open_page(&question, page)?;
        let slice = self.inner.store.list_operations(query, after.as_ref(), size).await?;
        let items = slice.items.into_iter().map(|operation| self.inner.with_progress(operation)).collect();
        Ok(self.inner.page(&question, Slice { items, next: slice.next }))
    }

    /// Lists the operations that `holds` accepts, newest first. `text` says what it accepts, for the page tokens: the same
    /// text, the same operations. A page looks at 10,000 operations at most, in 100 readings of the store, so it may be short, or
    /// empty, although more follow.
    pub async fn filter_operations(
        &self,
        query: &OperationQuery,
        page: &PageRequest,
        text: &str,
        holds: impl Fn(&Operation) -> bool + Send + Sync,
    ) -> Result<Page<Operation>, ReadError> {
        let question = format!("{} where {text}", operations_question(query));
        let (mut after, size) = self.inner.open_page(&question, page)?;
        let (mut items, mut share) = (Vec::new(), Share::default());
        loop {
            // Never more than still fit the page: what was looked at is on it, or was filtered out.
            let limit = size - items.len();
            let slice = self.inner.store.list_operations(query, after.as_ref(), limit).await?;
            let enough = share.is_used_up_by(limit);
            let found = slice.items.into_iter().filter(|operation| holds(operation));
            items.extend(found.map(|operation| self.inner.with_progress(operation)));
            after = slice.next;
            if items.len() >= size || enough || after.is_none() {
                return Ok(self.inner.page(&question, Slice { items, next: after }));
            }
        }
    }

    /// Lists resources. One that cannot be decoded is left out and reported in the log; [`resource`](Self::resource) tells
    /// why (C18).
    pub async fn list_resources<R: Resource>(
        &self,
        list: &ResourceList,
        page: &PageRequest,
    ) -> Result<Page<Found<R>>, ReadError> {
        let kind = ResourceKind::new(R::KIND)?;
        let question = format!("{kind} {}", list.question());
        let (mut after, size) = self.inner.open_page(&question, page)?;
        let query = list.query(kind);
        let decoded = |row: Row| {
            let left_out = |error: &Status| tracing::error!(%error, "left out of a list");
            Found::of(row).inspect_err(left_out).ok()
        };
        let (mut items, mut share) = (Vec::new(), Share::default());
        loop {
            // Never more than still fit the page: what was looked at is on it, or was filtered out.
            let limit = size - items.len();
            let slice = self.inner.store.list_resources(&query, after.as_ref(), limit).await?;
            let enough = share.is_used_up_by(limit);
            items.extend(slice.items.into_iter().filter(|row| list.holds(row)).filter_map(decoded));
            after = slice.next;
            // Without a condition, what was looked at is on the page.
            let picks = list.filter.is_some() || list.name.is_some() || list.status.is_some();
            if items.len() >= size || enough || !picks || after.is_none() {
                return Ok(self.inner.page(&question, Slice { items, next: after }));
            }
        }
    }

    /// A resource, if it is there.
    pub async fn resource<R: Resource>(&self, id: &ResourceId) -> Result<Option<Found<R>>, ReadError> {
        let key = key::<R>(id).map_err(ReadError::Undecodable)?;
        let row = self.inner.store.resource(&key).await?;
        row.map(Found::of).transpose().map_err(ReadError::Undecodable)
    }
}

/// What was looked at for one page.
#[derive(Default)]
struct Share {
    rows: usize,
    readings: usize,
}

impl Share {
    /// Takes one reading more, of so many rows, and tells whether a page that is not full yet has had its share.
    const fn is_used_up_by(&mut self, rows: usize) -> bool {
        self.rows += rows;
        self.readings += 1;
        self.rows >= ROWS_LOOKED_AT || self.readings >= READINGS_MAX
    }
}

/// What a page token of a list of operations belongs to.
fn operations_question(query: &OperationQuery) -> String {
    match query {
        OperationQuery::OfResource(key) => format!("operations of {key}"),
        _ => "operations".to_owned(),
    }
}

impl Inner {
    fn open_page(&self, question: &str, page: &PageRequest) -> Result<(Option<Position>, usize), ReadError> {
        let size = match page.size {
            0 => PAGE_SIZE_DEFAULT,
            size if size <= PAGE_SIZE_MAX => size,
            _ => return Err(Invalid::new("page_size", format!("must be 0 to {PAGE_SIZE_MAX}")).into()),
        };
        if page.token.is_empty() {
            return Ok((None, size));
        }
        Ok((Some(self.tokens.open(question.as_bytes(), &page.token)?), size))
    }

    fn page<T>(&self, question: &str, slice: Slice<T>) -> Page<T> {
        let token = |position| self.tokens.seal(question.as_bytes(), &position);
        Page { items: slice.items, next_token: slice.next.map(token).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_had_enough_after_so_many_rows_or_so_many_readings() {
        let mut by_rows = Share::default();
        assert!(!by_rows.is_used_up_by(1));
        assert!(!by_rows.is_used_up_by(ROWS_LOOKED_AT - 2));
        assert!(by_rows.is_used_up_by(1));
        let mut by_readings = Share::default();
        assert!((1..READINGS_MAX).all(|_| !by_readings.is_used_up_by(1)));
        assert!(by_readings.is_used_up_by(1));
    }
}
