//! A plant: a store whose user says "accepted" before the commit has returned.
//!
//! `crash kill` must find it. If it does not, it cannot see.

use std::sync::Arc;

use longrun::core::{Execution, Fence, Operation, OperationId, ResourceKey, Revision, Row, Timestamp};
use longrun::{Incarnation, ItemKey, OperationQuery, Orphan, async_trait};
use longrun_store::{
    Capabilities, Commit, CommitError, Dropped, Due, Holder, KvStore, LedgerEntry, Position, Purge, Purged,
    ResourceQuery, Slice, Store, StoreError, Taken,
};

use super::facts::{Fact, Teller};

#[derive(Debug)]
pub(crate) struct EarlyAck {
    store: Arc<KvStore>,
    teller: Arc<Teller>,
}

impl EarlyAck {
    pub(crate) const fn new(store: Arc<KvStore>, teller: Arc<Teller>) -> Self {
        Self { store, teller }
    }
}

#[async_trait]
impl Store for EarlyAck {
    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        if commit.revision() == Revision::FIRST {
            self.teller.tell(&Fact::Accepted { id: commit.operation_id(), key: "?".to_owned() });
        }
        self.store.commit(commit).await
    }

    async fn take_over(&self) -> Result<Fence, StoreError> {
        self.store.take_over().await
    }

    async fn check_owner(&self, id: OperationId, fence: Fence) -> Result<(), CommitError> {
        self.store.check_owner(id, fence).await
    }

    async fn load(&self, id: OperationId) -> Result<Option<Execution>, StoreError> {
        self.store.load(id).await
    }

    async fn due(&self, until: Timestamp, after: Option<Due>, limit: usize) -> Result<Vec<Due>, StoreError> {
        self.store.due(until, after, limit).await
    }

    async fn resource(&self, key: &ResourceKey) -> Result<Option<Row>, StoreError> {
        self.store.resource(key).await
    }

    async fn list_resources(
        &self,
        query: &ResourceQuery,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Slice<Row>, StoreError> {
        self.store.list_resources(query, after, limit).await
    }

    async fn list_operations(
        &self,
        query: &OperationQuery,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Slice<Operation>, StoreError> {
        self.store.list_operations(query, after, limit).await
    }

    async fn ledger(&self, digest: &[u8; 32]) -> Result<Option<LedgerEntry>, StoreError> {
        self.store.ledger(digest).await
    }

    async fn purge(&self, fence: Fence, purge: Purge) -> Result<Purged, CommitError> {
        self.store.purge(fence, purge).await
    }

    async fn take_references(
        &self,
        holder: Holder,
        items: Vec<ItemKey>,
        fresh: Incarnation,
    ) -> Result<Vec<Taken>, CommitError> {
        self.store.take_references(holder, items, fresh).await
    }

    async fn confirm_items(
        &self,
        holder: Holder,
        items: Vec<(ItemKey, Incarnation)>,
    ) -> Result<(), CommitError> {
        self.store.confirm_items(holder, items).await
    }

    async fn unconfirm_items(
        &self,
        fence: Fence,
        items: Vec<(ItemKey, Incarnation)>,
    ) -> Result<(), CommitError> {
        self.store.unconfirm_items(fence, items).await
    }

    async fn drop_references(&self, holder: Holder, limit: usize) -> Result<Dropped, CommitError> {
        self.store.drop_references(holder, limit).await
    }

    async fn drop_references_to(&self, holder: Holder, items: Vec<ItemKey>) -> Result<usize, CommitError> {
        self.store.drop_references_to(holder, items).await
    }

    async fn drop_references_of_gone(&self, holder: Holder, limit: usize) -> Result<Dropped, CommitError> {
        self.store.drop_references_of_gone(holder, limit).await
    }

    async fn references(
        &self,
        of: &ResourceKey,
        after: Option<&ItemKey>,
        limit: usize,
    ) -> Result<Vec<ItemKey>, StoreError> {
        self.store.references(of, after, limit).await
    }

    async fn reference_holders(
        &self,
        after: Option<&ResourceKey>,
        limit: usize,
    ) -> Result<Vec<ResourceKey>, StoreError> {
        self.store.reference_holders(after, limit).await
    }

    async fn orphans(
        &self,
        of: Option<OperationId>,
        after: Option<&Orphan>,
        limit: usize,
    ) -> Result<Vec<Orphan>, StoreError> {
        self.store.orphans(of, after, limit).await
    }

    async fn forget_orphans(&self, fence: Fence, orphans: Vec<Orphan>) -> Result<(), CommitError> {
        self.store.forget_orphans(fence, orphans).await
    }

    async fn incarnations(&self, items: &[ItemKey]) -> Result<Vec<Option<Incarnation>>, StoreError> {
        self.store.incarnations(items).await
    }

    fn page_secret(&self) -> [u8; 32] {
        self.store.page_secret()
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
}
