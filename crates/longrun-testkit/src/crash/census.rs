//! A census: everything that a store shows, read by the ways that clients have.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use longrun::core::ResourceKind;
use longrun::{Operation, OperationId, OperationQuery, Resource, ResourceId, Row, Store};
use longrun_store::ResourceQuery;

use super::script::{PARENT, Request, Thing};

/// Rows asked for at once. Small, so that there are many pages.
const PAGE: usize = 100;

/// One operation, and what it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) operation: Operation,
    pub(crate) request: Request,
    pub(crate) thing: ResourceId,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Census {
    pub(crate) operations: BTreeMap<OperationId, Entry>,
    pub(crate) rows: BTreeMap<ResourceId, Row>,
}

impl Census {
    /// Reads all pages of both lists.
    pub(crate) async fn take(store: &dyn Store) -> anyhow::Result<Self> {
        let mut census = Self::default();
        let mut after = None;
        loop {
            let slice = store.list_operations(&OperationQuery::All, after.as_ref(), PAGE).await?;
            for operation in slice.items {
                let id = operation.id();
                let request = operation.request().decode().context("S6: a request does not decode")?;
                let thing = operation.metadata().decode().context("S6: metadata do not decode")?;
                if census.operations.insert(id, Entry { operation, request, thing }).is_some() {
                    bail!("S36: {id} is listed twice");
                }
            }
            after = slice.next;
            if after.is_none() {
                break;
            }
        }
        let query = ResourceQuery::new(ResourceKind::new(Thing::KIND)?, ResourceId::new(PARENT)?);
        loop {
            let slice = store.list_resources(&query, after.as_ref(), PAGE).await?;
            for row in slice.items {
                let id = row.key.id.clone();
                if census.rows.insert(id.clone(), row).is_some() {
                    bail!("S36: thing {id} is listed twice");
                }
            }
            after = slice.next;
            if after.is_none() {
                return Ok(census);
            }
        }
    }

    pub(crate) fn unfinished(&self) -> impl Iterator<Item = &Entry> {
        self.operations.values().filter(|entry| !entry.operation.done())
    }
}
