//! [`References`]: what resources share outside the store, kept alive while somebody uses it.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use longrun_core::{Incarnation, ItemKey, OperationId, Orphan, ResourceKey};
use longrun_store::{CommitError, Holder, StoreError};
use tokio::sync::oneshot;

use crate::context::Shared;
use crate::driver::Message;
use crate::engine::{Engine, Inner};

/// References that one call takes in one commit.
const TAKEN_AT_ONCE: usize = 256;
/// References that one commit drops, at most.
const DROPPED_AT_ONCE: usize = 500;

/// References to items, for a resource that the operation creates, changes or deletes.
///
/// An item is something outside the store that several resources use: a chunk of data, a layer, an address block. To use one:
/// [`take`](Self::take) a reference, and only then look whether the item is there, and make it if not, under a name that has
/// its incarnation in it. To stop using them: [`drop_all`](Self::drop_all); then remove the [`orphans`](Self::orphans), by
/// those names, and [`forget`](Self::forget) them. An item that is wanted again meanwhile begins another incarnation, so no
/// removal, however late, hits what is in use.
///
/// Every call is idempotent, durable when it returns, and refused once the run or undo that it belongs to was given up.
pub struct References {
    shared: Arc<Shared>,
    holder: ResourceKey,
}

impl fmt::Debug for References {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("References").field("holder", &self.holder).finish_non_exhaustive()
    }
}

/// Why references could not be taken or dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The run or undo that asks was given up.
    #[error("the run was given up")]
    GivenUp,
    /// The store did not take the change. Trying again does no harm.
    #[error("the store did not take a change of references")]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error("the references could not be read")]
    Read(#[from] StoreError),
}

/// What a step has its driver do between two turns: so it is over before the step counts as ended.
pub(crate) struct Errand(pub(crate) Box<dyn FnOnce(Option<Arc<Inner>>) -> BoxFuture<'static, ()> + Send>);

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Errand")
    }
}

/// The upper half of the incarnations that an operation begins.
fn mark(operation: OperationId) -> u128 {
    let digest = blake3::hash(operation.as_bytes());
    let (half, _) = digest.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
    u128::from(u64::from_be_bytes(*half))
}

impl References {
    pub(crate) const fn new(shared: Arc<Shared>, holder: ResourceKey) -> Self {
        Self { shared, holder }
    }

    /// Takes a reference to each of the items that the resource does not refer to yet, and gives the incarnations of all, in
    /// their order. Those of many items are taken in several commits.
    pub async fn take(&self, items: &[ItemKey]) -> Result<Vec<Incarnation>, ReferenceError> {
        let mut incarnations = Vec::with_capacity(items.len());
        for items in items.chunks(TAKEN_AT_ONCE) {
            let items = items.to_vec();
            let taken = self.ask(|inner, holder| {
                Box::pin(async move {
                    let random = u128::from(inner.environment.random());
                    let fresh = Incarnation(mark(holder.operation) << 64 | random);
                    Ok(inner.store.take_references(holder, items, fresh).await?)
                })
            });
            incarnations.extend(taken.await?);
        }
        Ok(incarnations)
    }

    /// Whether the incarnation was begun by this operation, in this run or in an earlier one: nobody else has made the item
    /// then. To one in 2^64 it is taken for its own by mistake.
    pub fn began(&self, incarnation: Incarnation) -> bool {
        incarnation.0 >> 64 == mark(self.shared.header.id)
    }

    /// Drops every reference that the resource has, in as many commits as it takes. Gives their number.
    pub async fn drop_all(&self) -> Result<usize, ReferenceError> {
        let mut references = 0;
        loop {
            let dropped = self.ask(|inner, holder| {
                Box::pin(async move { Ok(inner.store.drop_references(holder, DROPPED_AT_ONCE).await?) })
            });
            let dropped = dropped.await?;
            references += dropped.references;
            if !dropped.more {
                return Ok(references);
            }
        }
    }

    /// Items that lost their last reference to this operation and are not forgotten yet; at most `limit` of them.
    pub async fn orphans(&self, limit: usize) -> Result<Vec<Orphan>, ReferenceError> {
        let orphans = self.ask(move |inner, holder| {
            Box::pin(async move { Ok(inner.store.orphans(Some(holder.operation), None, limit).await?) })
        });
        orphans.await
    }

    /// Forgets orphans, once they are removed outside for good.
    pub async fn forget(&self, orphans: Vec<Orphan>) -> Result<(), ReferenceError> {
        let forgotten = self.ask(|inner, holder| {
            Box::pin(async move { Ok(inner.store.forget_orphans(holder.fence, orphans).await?) })
        });
        forgotten.await
    }

    async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(Arc<Inner>, Holder) -> BoxFuture<'static, Result<T, ReferenceError>> + Send + 'static,
    ) -> Result<T, ReferenceError> {
        let (reply, answer) = oneshot::channel();
        let (operation, resource) = (self.shared.header.id, self.holder.clone());
        let errand = Errand(Box::new(move |inner| {
            Box::pin(async move {
                let answer = match inner {
                    Some(inner) => {
                        let holder = Holder { fence: inner.fence, operation, resource };
                        what(inner, holder).await
                    }
                    None => Err(ReferenceError::GivenUp),
                };
                // Nobody waits any more if the run was dropped.
                _ = reply.send(answer);
            })
        }));
        let message = Message::Errand { step: self.shared.step, attempt: self.shared.token.attempt, errand };
        self.shared.driver.send(message).await.map_err(|_| ReferenceError::GivenUp)?;
        answer.await.unwrap_or(Err(ReferenceError::GivenUp))
    }
}

impl Engine {
    /// The incarnation of each item; `None` for one that nobody refers to. What is found outside under another incarnation is
    /// nobody's, and never will be anybody's.
    pub async fn incarnations(&self, items: &[ItemKey]) -> Result<Vec<Option<Incarnation>>, StoreError> {
        self.inner.store.incarnations(items).await
    }

    /// Orphans that nobody is left to remove, because the operation that dropped the last reference was given up by an
    /// operator: at most `limit`, after a place. Those of operations that go on are among them.
    pub async fn orphans(&self, after: Option<&Orphan>, limit: usize) -> Result<Vec<Orphan>, StoreError> {
        self.inner.store.orphans(None, after, limit).await
    }

    /// Forgets orphans, once they are removed outside for good.
    pub async fn forget_orphans(&self, orphans: Vec<Orphan>) -> Result<(), CommitError> {
        let stopped = |_| CommitError::Unavailable("the engine has stopped".into());
        let _token = self.inner.begin_write().map_err(stopped)?;
        self.inner.store.forget_orphans(self.inner.fence, orphans).await
    }
}
