//! [`References`]: what resources share outside the store, kept alive while somebody uses it.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use longrun_core::{IdPrefix, Incarnation, ItemKey, OperationId, Orphan, ResourceKey};
use longrun_store::{CommitError, Holder, StoreError, Taken};
use tokio::sync::oneshot;

use crate::context::Shared;
use crate::driver::Message;
use crate::engine::{Engine, Inner};

/// References that one call takes, or drops by name, in one commit.
const TAKEN_AT_ONCE: usize = 256;
/// References, and resources that have some, that are read at once.
const LISTED_AT_ONCE: usize = 500;
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

impl References {
    pub(crate) const fn new(shared: Arc<Shared>, holder: ResourceKey) -> Self {
        Self { shared, holder }
    }

    /// Takes a reference to each of the items that the resource does not refer to yet, and tells of all, in their order, which
    /// life they are in and whether somebody has [confirmed](Self::confirm) that they are there. Those of many items are taken in several commits.
    pub async fn take(&self, items: &[ItemKey]) -> Result<Vec<Taken>, ReferenceError> {
        let mut all = Vec::with_capacity(items.len());
        for items in items.chunks(TAKEN_AT_ONCE) {
            let items = items.to_vec();
            let taken = self.ask(|inner, holder| {
                Box::pin(async move {
                    let random = [inner.environment.random(), inner.environment.random()];
                    let fresh = Incarnation((u128::from(random[0]) << 64) | u128::from(random[1]));
                    Ok(inner.store.take_references(holder, items, fresh).await?)
                })
            });
            all.extend(taken.await?);
        }
        Ok(all)
    }

    /// Puts on record that items, to which the resource refers, are there for good: made, durable, and found whole. Whoever
    /// takes them from now on is told so.
    pub async fn confirm(&self, items: &[(ItemKey, Incarnation)]) -> Result<(), ReferenceError> {
        for items in items.chunks(TAKEN_AT_ONCE) {
            let items = items.to_vec();
            let confirmed = self.ask(|inner, holder| {
                Box::pin(async move { Ok(inner.store.confirm_items(holder, items).await?) })
            });
            confirmed.await?;
        }
        Ok(())
    }

    /// Takes it back that items are confirmed: see [`Engine::unconfirm`].
    pub async fn unconfirm(&self, items: &[(ItemKey, Incarnation)]) -> Result<(), ReferenceError> {
        for items in items.chunks(TAKEN_AT_ONCE) {
            let items = items.to_vec();
            let unconfirmed = self.ask(|inner, _| {
                Box::pin(async move {
                    Ok(inner
                        .store
                        .unconfirm_items(inner.fence, items)
                        .await
                        .map_err(|error| inner.as_node(error))?)
                })
            });
            unconfirmed.await?;
        }
        Ok(())
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

    /// Drops the references that the resource has to items that `keep` refuses. Gives their number.
    ///
    /// For a step that ran more than once and may have taken more than its result needs.
    pub async fn drop_all_but(
        &self,
        mut keep: impl FnMut(&ItemKey) -> bool + Send,
    ) -> Result<usize, ReferenceError> {
        let (mut references, mut after) = (0, None);
        loop {
            let from: Option<ItemKey> = after.take();
            let found = self.ask(move |inner, holder| {
                Box::pin(async move {
                    Ok(inner.store.references(&holder.resource, from.as_ref(), LISTED_AT_ONCE).await?)
                })
            });
            let mut found = found.await?;
            let Some(last) = found.last().cloned() else { return Ok(references) };
            found.retain(|item| !keep(item));
            for items in found.chunks(TAKEN_AT_ONCE) {
                let items = items.to_vec();
                let dropped = self.ask(|inner, holder| {
                    Box::pin(async move { Ok(inner.store.drop_references_to(holder, items).await?) })
                });
                references += dropped.await?;
            }
            after = Some(last);
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
        let forgotten = self.ask(|inner, _| {
            Box::pin(async move {
                Ok(inner
                    .store
                    .forget_orphans(inner.fence, orphans)
                    .await
                    .map_err(|error| inner.as_node(error))?)
            })
        });
        forgotten.await
    }

    async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(Arc<Inner>, Holder) -> BoxFuture<'static, Result<T, ReferenceError>> + Send + 'static,
    ) -> Result<T, ReferenceError> {
        let (reply, answer) = oneshot::channel();
        let (operation, resource) = (self.shared.header.id, self.holder.clone());
        // With what the operation is committed.
        let fence = self.shared.token.epoch;
        let errand = Errand(Box::new(move |inner| {
            Box::pin(async move {
                let answer = match inner {
                    Some(inner) => {
                        let holder = Holder { fence, operation, resource };
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

/// What [`Engine::drop_references_of_gone`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DroppedOfGone {
    /// References that are gone.
    pub references: usize,
    /// Resources whose references cannot be read, or whose row cannot. They are left as they are, and named in the log.
    pub unreadable: usize,
}

impl Engine {
    /// Drops the references of all resources that are gone, of whatever kind. None are left by operations that end by
    /// themselves; but an operator may [declare undone](longrun_core::Verb::MarkUndone), or pass over, an undo that had them to
    /// drop. Items that so lose their last reference are then among the [orphans](Self::orphans).
    pub async fn drop_references_of_gone(&self) -> Result<DroppedOfGone, CommitError> {
        let stopped = |_| CommitError::Unavailable("the engine has stopped".into());
        let (mut dropped, mut after) = (DroppedOfGone::default(), None);
        loop {
            // For some at a time: a shutdown waits for no more.
            let _token = self.inner.begin_write().map_err(stopped)?;
            let holders = self.inner.store.reference_holders(after.as_ref(), LISTED_AT_ONCE).await;
            let holders = holders.map_err(CommitError::from)?;
            for holder in &holders {
                match self.inner.drop_if_gone(holder).await {
                    Ok(references) => dropped.references += references,
                    Err(CommitError::Unreadable(error)) => {
                        let error = longrun_core::with_causes(&error);
                        tracing::error!(%holder, error, "the references of a resource cannot be read");
                        dropped.unreadable += 1;
                    }
                    Err(error) => return Err(error),
                }
            }
            match holders.last() {
                Some(last) => after = Some(last.clone()),
                None => return Ok(dropped),
            }
        }
    }

    /// Takes it back that items are [confirmed](References::confirm), because one was found not to be there, or damaged: whoever
    /// takes one from now on has to look himself. Durable when it returns, so what is wrong outside is mended after this.
    pub async fn unconfirm(&self, items: &[(ItemKey, Incarnation)]) -> Result<(), CommitError> {
        let stopped = |_| CommitError::Unavailable("the engine has stopped".into());
        for items in items.chunks(TAKEN_AT_ONCE) {
            let _token = self.inner.begin_write().map_err(stopped)?;
            let unconfirmed = self.inner.store.unconfirm_items(self.inner.fence, items.to_vec()).await;
            unconfirmed.map_err(|error| self.inner.as_node(error))?;
        }
        Ok(())
    }

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
        let forgotten = self.inner.store.forget_orphans(self.inner.fence, orphans).await;
        forgotten.map_err(|error| self.inner.as_node(error))
    }
}

impl Inner {
    /// Drops the references of a resource, if it is gone. The store looks again with each commit: what is not there now may be
    /// made meanwhile.
    async fn drop_if_gone(&self, resource: &ResourceKey) -> Result<usize, CommitError> {
        if self.store.resource(resource).await?.is_some() {
            return Ok(0);
        }
        let prefix = IdPrefix::new("gon").map_err(|error| CommitError::Unavailable(error.into()))?;
        // Orphans are kept under the operation that dropped the last reference. There is none, so it is one that never was.
        let operation = OperationId::generate(prefix, self.now(), self.environment.random());
        let mut references = 0;
        loop {
            let holder = Holder { fence: self.fence, operation, resource: resource.clone() };
            match self.store.drop_references_of_gone(holder, DROPPED_AT_ONCE).await {
                Ok(dropped) => {
                    references += dropped.references;
                    if !dropped.more {
                        return Ok(references);
                    }
                }
                Err(CommitError::Conflict(_)) => return Ok(references),
                Err(error) => return Err(self.as_node(error)),
            }
        }
    }
}
