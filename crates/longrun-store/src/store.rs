//! [`Store`]: where everything durable lives, in the engine's own words.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use longrun_core::execution::{Entry, Finished, Header};
use longrun_core::{
    Execution, Fence, Operation, OperationId, Plan, ResourceId, ResourceKey, ResourceKind, ResourceStatus,
    Revision, Row, RowWrite, Timestamp, Turn,
};

use crate::error::{CommitError, StoreError};
use crate::kv::Durability;

/// Everything one turn of an operation changes: all of it is stored, or none of it (C7).
///
/// Made from a [`Turn`] by [`Commit::new`] and only so; a store cannot be asked to write half of one.
#[derive(Clone, Debug)]
pub struct Commit {
    pub(crate) fence: Fence,
    pub(crate) header: Arc<Header>,
    pub(crate) entry: Entry,
    /// The plan, in the first commit of an operation that is not done at once.
    pub(crate) plan: Option<Arc<Plan>>,
    /// The result, in the last commit.
    pub(crate) finished: Option<Arc<Finished>>,
    pub(crate) obsolete: Vec<Revision>,
    pub(crate) rows: Vec<RowWrite>,
    pub(crate) was_due_at: Option<Timestamp>,
    pub(crate) due_at: Option<Timestamp>,
    pub(crate) ledger: Option<LedgerClaim>,
}

impl Commit {
    /// The commit of the turn that `execution` has just sealed, by the owner with this fence.
    pub fn new(execution: &Execution, turn: Turn, fence: Fence) -> Self {
        let Turn { entry, rows, was_due_at, due_at, obsolete } = turn;
        let is_first = entry.first == Revision::FIRST;
        Self {
            fence,
            header: Arc::clone(execution.header()),
            plan: execution.plan().filter(|_| is_first).cloned(),
            finished: execution.finished().cloned(),
            entry,
            obsolete,
            rows,
            was_due_at,
            due_at,
            ledger: None,
        }
    }

    /// Claims an idempotency key in the same commit. For the first commit of an operation.
    #[must_use]
    pub fn with_ledger_claim(mut self, claim: LedgerClaim) -> Self {
        self.ledger = Some(claim);
        self
    }

    /// The operation.
    pub fn operation_id(&self) -> OperationId {
        self.header.id
    }

    /// The revision that the operation has once this is stored.
    pub const fn revision(&self) -> Revision {
        self.entry.revision
    }
}

/// An idempotency key that an operation is accepted under (C15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerClaim {
    /// Digest of caller, kind and key.
    pub digest: [u8; 32],
    /// Digest of the request, to tell a repeat from another use of the key.
    pub fingerprint: [u8; 32],
}

/// What the ledger knows of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The operation that was accepted under it.
    pub operation: OperationId,
    /// Digest of its request.
    pub fingerprint: [u8; 32],
    /// When the entry goes. `None` while the operation is there.
    pub expires_at: Option<Timestamp>,
}

/// A place in the order of [`Store::due`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// When the operation is to be worked on.
    pub at: Timestamp,
    /// The operation.
    pub id: OperationId,
}

/// Which operations to list. Newest first, always.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OperationQuery {
    /// All of them.
    All,
    /// Those that create, change or delete one resource, whether it still exists or not.
    OfResource(ResourceKey),
}

/// Which resources to list: those of one kind and one parent, by id. A list of all parents cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceQuery {
    /// The kind.
    pub kind: ResourceKind,
    /// The parent.
    pub parent: ResourceId,
    /// Only those with this status.
    pub status: Option<ResourceStatus>,
}

/// Part of a list, and where the next part begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// The position after the last item; `None` when nothing follows.
    pub next: Option<Position>,
}

/// A place in a list: the key of the last item that was given out, as the store knows it. An item is never counted,
/// so that a list neither skips nor repeats when others come and go (C19).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(pub Vec<u8>);

/// What may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Operations that were done at or before this time.
    pub done_until: Timestamp,
    /// When the idempotency entries of those operations are to go.
    pub keys_expire_at: Timestamp,
    /// The time that decides which idempotency entries go now.
    pub now: Timestamp,
    /// Most operations, and most idempotency entries, to remove in this call. The store may remove fewer.
    pub limit: usize,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Operations.
    pub operations: usize,
    /// Idempotency entries.
    pub keys: usize,
    /// Operations and idempotency entries that were due to go but cannot be read. They stay.
    pub unreadable: usize,
    /// There may be more to remove.
    pub more: bool,
}

/// What a store promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Its name, for logs and reports.
    pub name: &'static str,
    /// What an acknowledged commit survives.
    pub durability: Durability,
    /// Other processes may own operations in it at the same time.
    pub multi_process: bool,
}

/// Where everything durable lives.
///
/// Object-safe; shared by reference among all tasks of an engine. Every method can be cancelled by dropping its
/// future: a commit that has begun then still happens or does not, whole.
#[async_trait]
pub trait Store: Debug + Send + Sync + 'static {
    /// Takes the store over: gives a fence that is higher than any before, and from now on refuses every commit
    /// with a lower one (C17).
    ///
    /// Durable when it returns. Called once by each engine, before anything else.
    async fn take_over(&self) -> Result<Fence, StoreError>;

    /// Makes a turn durable.
    ///
    /// To be correct: all of it happens or none; it happens only if the operation has the revision that the turn
    /// follows, each row is held as the turn expects, the idempotency key is free, and the fence is the newest.
    /// After `Ok` it survives what [`Capabilities::durability`] names, and every later read, by anybody, sees it;
    /// no read sees it before it is durable. After [`CommitError::Unknown`] it happened or it did not: reading
    /// the operation tells, and the answer does not change later.
    async fn commit(&self, commit: Commit) -> Result<(), CommitError>;

    /// The operation, as its newest durable commit left it.
    ///
    /// To be correct: also while commits for it are under way; then it is as before or as after one of them.
    async fn load(&self, id: OperationId) -> Result<Option<Execution>, StoreError>;

    /// At most `limit` unfinished operations that are due at or before `until`, oldest first, after a place.
    ///
    /// To be correct: every unfinished operation has exactly one place. Those that run keep theirs.
    async fn due(&self, until: Timestamp, after: Option<Due>, limit: usize) -> Result<Vec<Due>, StoreError>;

    /// A resource row.
    async fn resource(&self, key: &ResourceKey) -> Result<Option<Row>, StoreError>;

    /// At most `limit` rows, ascending by id, after a position. May be fewer than `limit` although more follow.
    ///
    /// To be correct: a row that cannot be read is left out and reported in the log; [`resource`](Self::resource)
    /// tells why. It never keeps the others from being listed (C18).
    async fn list_resources(
        &self,
        query: &ResourceQuery,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Slice<Row>, StoreError>;

    /// At most `limit` operations, newest first, after a position. May be fewer than `limit` although more follow.
    ///
    /// To be correct: an operation that cannot be read is left out and reported in the log; [`load`](Self::load)
    /// tells why. It never keeps the others from being listed (C18).
    async fn list_operations(
        &self,
        query: &OperationQuery,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Slice<Operation>, StoreError>;

    /// What the ledger knows of an idempotency key.
    async fn ledger(&self, digest: &[u8; 32]) -> Result<Option<LedgerEntry>, StoreError>;

    /// Removes done operations that are old enough, with all their index entries, and idempotency entries that
    /// have expired (C20). In one commit, of bounded size: call it again while there is more.
    async fn purge(&self, fence: Fence, purge: Purge) -> Result<Purged, CommitError>;

    /// 32 bytes that were drawn when the store was made, to authenticate page tokens with.
    fn page_secret(&self) -> [u8; 32];

    /// What this store promises.
    fn capabilities(&self) -> Capabilities;
}
