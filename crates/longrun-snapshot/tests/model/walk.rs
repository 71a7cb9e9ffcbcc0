//! A list that is read page by page while the world goes on.

use std::collections::BTreeSet;

use longrun::ResourceId;
use longrun_snapshot::SnapshotService;
use longrun_snapshot::service::{ListSnapshotsRequest, ServiceError};

use crate::common::caller;

pub(crate) struct Walk {
    pub(crate) request: ListSnapshotsRequest,
    /// What is there throughout, and what a change may have moved is not in it.
    pub(crate) stays: BTreeSet<ResourceId>,
    seen: BTreeSet<ResourceId>,
}

impl Walk {
    pub(crate) const fn new(request: ListSnapshotsRequest, stays: BTreeSet<ResourceId>) -> Self {
        Self { request, stays, seen: BTreeSet::new() }
    }

    /// Whether a change of its name can move a snapshot in this list, or in and out of it.
    pub(crate) fn is_by_name(&self) -> bool {
        self.request.order_by.starts_with("name") || !self.request.filter.is_empty()
    }

    /// Reads the next page. True at the end.
    pub(crate) async fn step(&mut self, service: &SnapshotService) -> Result<bool, ServiceError> {
        let page = service.list(&caller(), &self.request).await?;
        for snapshot in page.items {
            let first = self.seen.insert(snapshot.id.clone());
            // What moves may come twice; what stays may not.
            let stays = self.stays.contains(&snapshot.id);
            assert!(first || !stays, "{} came twice: {:?}", snapshot.id, self.request);
        }
        self.request.page_token = page.next_token;
        if !self.request.page_token.is_empty() {
            return Ok(false);
        }
        let skipped: Vec<_> = self.stays.difference(&self.seen).collect();
        assert!(skipped.is_empty(), "{skipped:?} did not come: {:?}", self.request);
        Ok(true)
    }
}
