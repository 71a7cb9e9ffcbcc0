//! [`Cluster`]: who works on what, in a store that several engines share at the same time.
//!
//! Each engine is a *node*. It joins by [`Store::take_over`](crate::Store::take_over), which gives it an epoch, and keeps
//! its lease by [`renew`](Cluster::renew). What nobody works on it takes by [`claim`](Cluster::claim), and a claim gives the
//! operation a higher fence than all that it had: so of two nodes that believe to work on one operation, the store takes the
//! commits of the later one only (C17), and what lies outside can tell them apart by the same number.
//!
//! | what | the operation belongs to | its fence |
//! |---|---|---|
//! | first commit of an owner | its node | the node's epoch |
//! | first commit of a visitor | nobody | the node's epoch |
//! | claim | the node that claims | its epoch, or one more than before if that is higher |
//! | commit of the owner | as before; nobody once it is done | the same |
//! | commit of a visitor | as before, and its owner is told | the same |
//! | release, leave, the lease of its node has run out | nobody | the same, but nobody has it |
//!
//! Leases are judged by the store's clock alone: no two clocks are ever compared (S32).

use std::time::Duration;

use async_trait::async_trait;
use longrun_core::{Fence, KindName, OperationId, Timestamp};

use crate::error::StoreError;
use crate::store::Due;

/// What engines need of a store that they share.
///
/// Every method can be cancelled by dropping its future. One that fails has happened or has not: what a node holds without
/// knowing it, as the answer to a claim was lost, is freed when it next says what it [holds](Asked::holds).
#[async_trait]
pub trait Cluster: Send + Sync {
    /// How long a node keeps what it works on without a renewal.
    fn lease(&self) -> Duration;

    /// Extends the lease of a node, takes away what nodes hold whose leases have run out, and tells what others did. One that is
    /// not known any more is a node again, and has lost everything.
    ///
    /// To be correct: after an outage of the store that all saw, a node is not taken for dead before it had a whole lease to
    /// come back.
    async fn renew(&self, node: Fence, asked: &Asked) -> Result<Tidings, StoreError>;

    /// Takes unfinished operations that nobody works on, oldest first: they belong to the node from now on. A node that is not
    /// known any more gets nothing.
    ///
    /// To be correct: of two nodes that claim, at most one gets an operation, and after its claim no commit with an earlier
    /// fence is taken. Durable when it returns.
    async fn claim(&self, node: Fence, wanted: &Wanted) -> Result<Vec<Claimed>, StoreError>;

    /// When the first operation is due, after `until`, that nobody works on.
    async fn next_due(&self, until: Timestamp) -> Result<Option<Timestamp>, StoreError>;

    /// Gives operations back that the node does not work on any more. Those that belong to others by now are passed over.
    async fn release(&self, held: &[(OperationId, Fence)]) -> Result<(), StoreError>;

    /// Ends a node: what it holds belongs to nobody, and nothing that it commits as an owner is taken any more.
    async fn leave(&self, node: Fence) -> Result<(), StoreError>;

    /// Over when another node may have written something. A hint: it may be late, or never come.
    async fn changed(&self);

    /// How many operations are unfinished, nearly.
    async fn unfinished(&self) -> Result<u64, StoreError>;

    /// The newest epoch that a node was given: the age of the store.
    async fn epoch(&self) -> Result<Fence, StoreError>;
}

/// What a node wants to know with its renewal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Operations whose ends somebody at this node waits for.
    pub awaited: Vec<OperationId>,
    /// Everything that it works on, with the fences of its claims, when it has to fear that some was taken away, or that it
    /// holds some that it does not know: that is freed, also when it works on the operation by an earlier claim. `None` when it
    /// is sure of both.
    pub holds: Option<Vec<(OperationId, Fence)>>,
}

/// What a node learns with its renewal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tidings {
    /// The lease had run out: what the node worked on may belong to others. It has a new one.
    pub lapsed: bool,
    /// Operations of the node that visitors have changed. Told once: after a renewal that failed the node looks at all.
    pub changed: Vec<OperationId>,
    /// Of what it [holds](Asked::holds): what does not belong to it, or is done.
    pub lost: Vec<OperationId>,
    /// Of those [awaited](Asked::awaited): those that are done, or gone.
    pub ended: Vec<OperationId>,
    /// Operations that were taken away from nodes that are gone, and wait to be claimed.
    pub freed: u64,
}

/// What a node wants to work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Due at or before this time, or at that of its acceptance: such work waits for nothing, and the clock of the node that accepted
    /// it may be ahead of others (S32).
    pub until: Timestamp,
    /// At most so many.
    pub limit: usize,
    /// Only of these kinds, if it says any: a node leaves alone what it does not know (S34).
    pub kinds: Option<Vec<KindName>>,
    /// But these.
    pub except: Vec<OperationId>,
}

/// An operation that belongs to the node that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Which, and when it was due.
    pub due: Due,
    /// With what the node commits it.
    pub fence: Fence,
}
