//! The requests, apart from the one with a mask.

use std::collections::BTreeMap;

use longrun::PageRequest;
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::order::OrderBy;
use super::validate::{Checker, FILTER_CHARS_MAX, Limits, ORDER_BY_CHARS_MAX, Violations};

/// Asks for one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetSnapshotRequest {
    /// The snapshot; required.
    pub snapshot_id: String,
}

impl GetSnapshotRequest {
    /// Says everything that is wrong with the request.
    pub fn check(&self) -> Result<(), Violations> {
        check_id("snapshot_id", &self.snapshot_id)
    }
}

/// Asks for the snapshots of one folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListSnapshotsRequest {
    /// The folder; required.
    pub folder_id: String,
    /// Snapshots on the page: 0 for the default of 100, at most 1000.
    pub page_size: i64,
    /// The token from the page before; empty for the first page.
    pub page_token: String,
    /// Which snapshots: a [`Filter`]; empty for all.
    pub filter: String,
    /// In which order: an [`OrderBy`]; empty for the order of ids.
    pub order_by: String,
}

/// What a [`ListSnapshotsRequest`] asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotList {
    /// Which page. Its size is 1 to 1000; its token is at most 100 characters and not yet read.
    pub page: PageRequest,
    /// Which snapshots.
    pub filter: Filter,
    /// In which order.
    pub order_by: OrderBy,
}

impl ListSnapshotsRequest {
    /// What the request asks for, or everything that is wrong with it.
    pub fn check(&self, limits: Limits) -> Result<SnapshotList, Violations> {
        let mut checker = Checker::new(limits);
        checker.id("folder_id", &self.folder_id);
        let page = checker.page(self.page_size, &self.page_token);
        let filter = self.check_filter(&mut checker);
        let order_by = self.check_order_by(&mut checker);
        checker.finish(SnapshotList { page, filter, order_by })
    }

    fn check_filter(&self, checker: &mut Checker) -> Filter {
        if !checker.length("filter", &self.filter, FILTER_CHARS_MAX) {
            return Filter::default();
        }
        Filter::parse(&self.filter, checker.limits()).unwrap_or_else(|error| {
            checker.note("filter", error.to_string());
            Filter::default()
        })
    }

    fn check_order_by(&self, checker: &mut Checker) -> OrderBy {
        if !checker.length("order_by", &self.order_by, ORDER_BY_CHARS_MAX) {
            return OrderBy::default();
        }
        OrderBy::parse(&self.order_by).unwrap_or_else(|error| {
            checker.note("order_by", error.to_string());
            OrderBy::default()
        })
    }
}

/// Asks for a new snapshot of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateSnapshotRequest {
    /// The folder that the snapshot is to belong to; required.
    pub folder_id: String,
    /// The disk to copy; required.
    pub disk_id: String,
    /// The snapshot's name; may be empty.
    #[serde(default)]
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl CreateSnapshotRequest {
    /// Says everything that is wrong with the request.
    pub fn check(&self, limits: Limits) -> Result<(), Violations> {
        let mut checker = Checker::new(limits);
        checker.id("folder_id", &self.folder_id);
        checker.id("disk_id", &self.disk_id);
        checker.name(&self.name);
        checker.description(&self.description);
        checker.labels(&self.labels);
        checker.finish(())
    }
}

/// Asks for a snapshot to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteSnapshotRequest {
    /// The snapshot; required.
    pub snapshot_id: String,
}

impl DeleteSnapshotRequest {
    /// Says everything that is wrong with the request.
    pub fn check(&self) -> Result<(), Violations> {
        check_id("snapshot_id", &self.snapshot_id)
    }
}

/// Asks for the operations that worked on a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListSnapshotOperationsRequest {
    /// The snapshot; required.
    pub snapshot_id: String,
    /// Operations on the page: 0 for the default of 100, at most 1000.
    pub page_size: i64,
    /// The token from the page before; empty for the first page.
    pub page_token: String,
}

impl ListSnapshotOperationsRequest {
    /// Which page the request asks for, its size filled in, or everything that is wrong with the request.
    pub fn check(&self) -> Result<PageRequest, Violations> {
        let mut checker = Checker::new(Limits::default());
        checker.id("snapshot_id", &self.snapshot_id);
        let page = checker.page(self.page_size, &self.page_token);
        checker.finish(page)
    }
}

fn check_id(field: &str, id: &str) -> Result<(), Violations> {
    let mut checker = Checker::new(Limits::default());
    checker.id(field, id);
    checker.finish(())
}
