//! What the rules have in common.

use longrun_core::{Execution, Fence, OperationId, ResourceStatus, Row, Timestamp};

use super::sample::{Draft, Live, assert_same, creates, parent, resource_kind, time};
use super::{StoreFixture, wait};
use crate::cluster::Wanted;
use crate::error::{CommitError, Conflict};
use crate::store::{Commit, Due, OperationQuery, Position, Purge, Purged, ResourceQuery, Slice, Store};

/// A store that was taken over.
pub(super) struct Bench<'a> {
    fixture: &'a mut dyn StoreFixture,
    pub(super) fence: Fence,
}

impl<'a> Bench<'a> {
    pub(super) fn new(fixture: &'a mut dyn StoreFixture) -> Self {
        let fence = wait(fixture.store().take_over()).unwrap();
        Self { fixture, fence }
    }

    pub(super) fn store(&self) -> &dyn Store {
        self.fixture.store()
    }

    /// As an engine that starts anew.
    pub(super) fn restart(&mut self) {
        wait(self.fixture.reopen());
        self.fence = self.replaced();
        if let Some(cluster) = self.store().cluster() {
            let wanted = Wanted { until: Timestamp::MAX, limit: 10_000, kinds: None, except: Vec::new() };
            for claimed in wait(cluster.claim(self.fence, &wanted)).unwrap() {
                assert_eq!(claimed.fence, self.fence, "the first claim of an epoch");
            }
        }
    }

    /// Lets another owner take the place of the one with the fence of this bench.
    pub(super) fn replaced(&self) -> Fence {
        let new = wait(self.store().take_over()).unwrap();
        if let Some(cluster) = self.store().cluster() {
            wait(cluster.leave(self.fence)).unwrap();
        }
        new
    }

    pub(super) fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        wait(self.store().commit(commit))
    }

    /// Commits, and the operation is stored as it is in memory.
    #[track_caller]
    pub(super) fn stored(&self, live: &Live, commit: Commit) {
        self.commit(commit).unwrap();
        self.check(live);
    }

    #[track_caller]
    pub(super) fn check(&self, live: &Live) {
        assert_same(&self.load(live.id()), &live.execution);
    }

    #[track_caller]
    pub(super) fn conflict(&self, commit: Commit) -> Conflict {
        match self.commit(commit) {
            Err(CommitError::Conflict(conflict)) => conflict,
            other => panic!("a conflict was expected, not {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn accept(&self, draft: Draft) -> Live {
        let (live, commit) = draft.accept(self.fence);
        self.stored(&live, commit);
        live
    }

    /// Accepts it and lets step 0, the only one, be done at this time.
    #[track_caller]
    pub(super) fn finished(&self, draft: Draft, seconds: i64) -> Live {
        let mut live = self.accept(draft).at(seconds);
        let commit = live.done(self.fence, 0);
        assert!(live.execution.is_done());
        self.stored(&live, commit);
        live
    }

    /// Makes a resource that nobody holds.
    pub(super) fn resource(&self, n: u64, id: &str, of: &str) -> Row {
        self.finished(Draft::chain(n, 1).with(creates(id, of)), i64::try_from(n).unwrap() + 1);
        self.row(id).unwrap()
    }

    pub(super) fn row(&self, id: &str) -> Option<Row> {
        wait(self.store().resource(&super::sample::resource_key(id))).unwrap()
    }

    #[track_caller]
    pub(super) fn load(&self, id: OperationId) -> Execution {
        wait(self.store().load(id)).unwrap().expect("the operation is there")
    }

    pub(super) fn is_there(&self, id: OperationId) -> bool {
        wait(self.store().load(id)).unwrap().is_some()
    }

    pub(super) fn due(&self) -> Vec<Due> {
        wait(self.store().due(Timestamp::MAX, None, usize::MAX)).unwrap()
    }

    pub(super) fn operations(
        &self,
        query: &OperationQuery,
        after: Option<&Position>,
        limit: usize,
    ) -> Slice<longrun_core::Operation> {
        wait(self.store().list_operations(query, after, limit)).unwrap()
    }

    /// The ids of a whole list, page by page.
    pub(super) fn ids(&self, query: &OperationQuery, limit: usize) -> Vec<OperationId> {
        let mut ids = Vec::new();
        let mut after = None;
        loop {
            let page = self.operations(query, after.as_ref(), limit);
            assert!(page.items.len() <= limit);
            assert!(page.next.is_none() || page.next != after, "the list does not go on");
            ids.extend(page.items.iter().map(longrun_core::Operation::id));
            after = page.next;
            if after.is_none() {
                return ids;
            }
        }
    }

    pub(super) fn rows(
        &self,
        of: &str,
        status: Option<ResourceStatus>,
        after: Option<&Position>,
        limit: usize,
    ) -> Slice<Row> {
        let query = ResourceQuery { status, ..ResourceQuery::new(resource_kind(), parent(of)) };
        wait(self.store().list_resources(&query, after, limit)).unwrap()
    }

    /// The ids of all rows of a parent, page by page.
    pub(super) fn row_ids(&self, of: &str, status: Option<ResourceStatus>, limit: usize) -> Vec<String> {
        let mut ids = Vec::new();
        let mut after = None;
        loop {
            let page = self.rows(of, status, after.as_ref(), limit);
            assert!(page.items.len() <= limit);
            assert!(page.next.is_none() || page.next != after, "the list does not go on");
            ids.extend(page.items.iter().map(|row| row.key.id.to_string()));
            after = page.next;
            if after.is_none() {
                return ids;
            }
        }
    }

    pub(super) fn purge(&self, until: i64, limit: usize) -> Purged {
        let purge = Purge {
            only: None,
            done_until: time(until),
            keys_expire_at: time(1_000_000),
            now: time(until),
            limit,
        };
        wait(self.store().purge(self.fence, purge)).unwrap()
    }
}
