//! [`Intercepted`]: any store, of which a test does some calls itself.
//!
//! ```
//! use longrun_store::intercept::{Intercept, Intercepted};
//! use longrun_store::{Commit, CommitError, KvStore, Store};
//!
//! #[derive(Debug)]
//! struct ReadOnly(KvStore);
//!
//! #[async_trait::async_trait]
//! impl Intercept for ReadOnly {
//!     fn store(&self) -> &dyn Store {
//!         &self.0
//!     }
//!
//!     async fn commit(&self, _: Commit) -> Result<(), CommitError> {
//!         Err(CommitError::Unavailable("nothing is written here".into()))
//!     }
//! }
//!
//! let store = Intercepted(ReadOnly(KvStore::memory().unwrap()));
//! // What is not intercepted, the store below answers.
//! assert_eq!(store.page_secret(), store.0.0.page_secret());
//! ```

use std::fmt::Debug;

use async_trait::async_trait;
use longrun_core::{
    Execution, Fence, Incarnation, ItemKey, Operation, OperationId, Orphan, ResourceKey, Row, Timestamp,
};

use crate::cluster::Cluster;
use crate::error::{CommitError, StoreError};
use crate::items::{Dropped, Holder, Taken};
use crate::store::{
    Capabilities, Commit, Due, LedgerEntry, OperationQuery, Position, Purge, Purged, ResourceQuery, Slice,
    Store,
};

/// What becomes of the calls that an engine lives by. Those that are not written out go to the store below, as all others do.
#[async_trait]
pub trait Intercept: Debug + Send + Sync + 'static {
    /// The store below.
    fn store(&self) -> &dyn Store;

    /// Instead of [`Store::take_over`].
    async fn take_over(&self) -> Result<Fence, StoreError> {
        self.store().take_over().await
    }

    /// Instead of [`Store::commit`].
    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        self.store().commit(commit).await
    }

    /// Instead of [`Store::check_owner`].
    async fn check_owner(&self, id: OperationId, fence: Fence) -> Result<(), CommitError> {
        self.store().check_owner(id, fence).await
    }

    /// Instead of [`Store::load`].
    async fn load(&self, id: OperationId) -> Result<Option<Execution>, StoreError> {
        self.store().load(id).await
    }

    /// Instead of [`Store::due`].
    async fn due(&self, until: Timestamp, after: Option<Due>, limit: usize) -> Result<Vec<Due>, StoreError> {
        self.store().due(until, after, limit).await
    }
}

/// A store with some of its calls intercepted.
#[derive(Debug)]
pub struct Intercepted<I>(pub I);

#[async_trait]
impl<I: Intercept> Store for Intercepted<I> {
    async fn take_over(&self) -> Result<Fence, StoreError> {
        self.0.take_over().await
    }

    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        self.0.commit(commit).await
    }

    async fn check_owner(&self, id: OperationId, fence: Fence) -> Result<(), CommitError> {
        self.0.check_owner(id, fence).await
    }

    async fn load(&self, id: OperationId) -> Result<Option<Execution>, StoreError> {
        self.0.load(id).await
    }

    async fn due(&self, until: Timestamp, after: Option<Due>, limit: usize) -> Result<Vec<Due>, StoreError> {
        self.0.due(until, after, limit).await
    }

    async fn resource(&self, key: &ResourceKey) -> Result<Option<Row>, StoreError> {
        self.0.store().resource(key).await
    }

    async fn list_resources(
        &self,
        query: &ResourceQuery,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Slice<Row>, StoreError> {
        self.0.store().list_resources(query, after, limit).await
    }

    async fn list_operations(
        &self,
        query: &OperationQuery,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Slice<Operation>, StoreError> {
        self.0.store().list_operations(query, after, limit).await
    }

    async fn ledger(&self, digest: &[u8; 32]) -> Result<Option<LedgerEntry>, StoreError> {
        self.0.store().ledger(digest).await
    }

    async fn purge(&self, fence: Fence, purge: Purge) -> Result<Purged, CommitError> {
        self.0.store().purge(fence, purge).await
    }

    async fn take_references(
        &self,
        holder: Holder,
        items: Vec<ItemKey>,
        fresh: Incarnation,
    ) -> Result<Vec<Taken>, CommitError> {
        self.0.store().take_references(holder, items, fresh).await
    }

    async fn confirm_items(
        &self,
        holder: Holder,
        items: Vec<(ItemKey, Incarnation)>,
    ) -> Result<(), CommitError> {
        self.0.store().confirm_items(holder, items).await
    }

    async fn unconfirm_items(
        &self,
        fence: Fence,
        items: Vec<(ItemKey, Incarnation)>,
    ) -> Result<(), CommitError> {
        self.0.store().unconfirm_items(fence, items).await
    }

    async fn drop_references(&self, holder: Holder, limit: usize) -> Result<Dropped, CommitError> {
        self.0.store().drop_references(holder, limit).await
    }

    async fn drop_references_to(&self, holder: Holder, items: Vec<ItemKey>) -> Result<usize, CommitError> {
        self.0.store().drop_references_to(holder, items).await
    }

    async fn drop_references_of_gone(&self, holder: Holder, limit: usize) -> Result<Dropped, CommitError> {
        self.0.store().drop_references_of_gone(holder, limit).await
    }

    async fn references(
        &self,
        of: &ResourceKey,
        after: Option<&ItemKey>,
        limit: usize,
    ) -> Result<Vec<ItemKey>, StoreError> {
        self.0.store().references(of, after, limit).await
    }

    async fn reference_holders(
        &self,
        after: Option<&ResourceKey>,
        limit: usize,
    ) -> Result<Vec<ResourceKey>, StoreError> {
        self.0.store().reference_holders(after, limit).await
    }

    async fn orphans(
        &self,
        of: Option<OperationId>,
        after: Option<&Orphan>,
        limit: usize,
    ) -> Result<Vec<Orphan>, StoreError> {
        self.0.store().orphans(of, after, limit).await
    }

    async fn forget_orphans(&self, fence: Fence, orphans: Vec<Orphan>) -> Result<(), CommitError> {
        self.0.store().forget_orphans(fence, orphans).await
    }

    async fn incarnations(&self, items: &[ItemKey]) -> Result<Vec<Option<Incarnation>>, StoreError> {
        self.0.store().incarnations(items).await
    }

    fn page_secret(&self) -> [u8; 32] {
        self.0.store().page_secret()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.store().capabilities()
    }

    fn cluster(&self) -> Option<&dyn Cluster> {
        self.0.store().cluster()
    }
}
