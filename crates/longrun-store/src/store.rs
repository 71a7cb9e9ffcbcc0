//! [`Store`]: where everything durable lives, in the engine's own words.

use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;
use longrun_core::execution::{Entry, Finished, Header};
use longrun_core::{
    Condition, Execution, Fence, Incarnation, ItemKey, Operation, OperationId, Orphan, Plan, ResourceId,
    ResourceKey, ResourceKind, ResourceStatus, Revision, Row, RowWrite, Timestamp, Turn,
};

use crate::cluster::Cluster;
use crate::error::{CommitError, StoreError};
use crate::items::{Dropped, Holder, Taken};
use crate::kv::Durability;

/// Everything one turn of an operation changes: all of it is stored, or none of it (C7).
///
/// Made from a [`Turn`] by [`Commit::new`] and only so; a store cannot be asked to write half of one.
#[derive(Clone, Debug)]
pub struct Commit {
    pub(crate) fence: Fence,
    pub(crate) author: Author,
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
    pub(crate) conditions: Vec<Condition>,
}

impl Commit {
    /// The commit of the turn that `execution` has just sealed, by the owner with this fence.
    pub fn new(execution: &Execution, turn: Turn, fence: Fence) -> Self {
        let Turn { entry, rows, was_due_at, due_at, obsolete } = turn;
        let is_first = entry.first == Revision::FIRST;
        Self {
            fence,
            author: Author::Owner,
            header: Arc::clone(execution.header()),
            plan: execution.plan().filter(|_| is_first).cloned(),
            finished: execution.finished().cloned(),
            entry,
            obsolete,
            rows,
            was_due_at,
            due_at,
            ledger: None,
            conditions: Vec::new(),
        }
    }

    /// Makes it the commit of somebody who does not work on the operation: its first, and then it is left for a node to
    /// [claim](crate::Cluster::claim); or a caller's or an operator's, and then the node that works on it is told. Without
    /// meaning for a store that has one owner.
    #[must_use]
    pub const fn by_visitor(mut self) -> Self {
        self.author = Author::Visitor;
        self
    }

    /// Claims an idempotency key in the same commit. For the first commit of an operation.
    #[must_use]
    pub fn with_ledger_claim(mut self, claim: LedgerClaim) -> Self {
        self.ledger = Some(claim);
        self
    }

    /// Makes the commit conditional on what is true of other resources. For the first commit of an operation.
    #[must_use]
    pub fn with_conditions(mut self, conditions: Vec<Condition>) -> Self {
        self.conditions = conditions;
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

/// Who commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// Who works on the operation.
    Owner,
    /// Somebody else.
    Visitor,
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

impl Due {
    /// Whether it waits for nothing: its place is then the time of its acceptance, which is also in its id. That may be later than a
    /// clock shows, if that was set back or is another node's.
    pub fn is_at_once(&self) -> bool {
        self.at == self.id.time()
    }
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

/// The order of a list of resources. Those that are equal in it are in the order of their ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResourceOrder {
    /// By id.
    #[default]
    Id,
    /// By name, byte by byte. Of a name that does not fit a page token beside the id, only its beginning counts.
    Name,
    /// By the time of creation.
    Creation,
}

/// Which resources to list: those of one kind and one parent. A list of all parents cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceQuery {
    /// The kind.
    pub kind: ResourceKind,
    /// The parent.
    pub parent: ResourceId,
    /// Only those with this status.
    pub status: Option<ResourceStatus>,
    /// Only those with this name. In the order of ids they are found without looking at others.
    pub name: Option<String>,
    /// In which order.
    pub order: ResourceOrder,
    /// Whether the order is reversed.
    pub descending: bool,
}

impl ResourceQuery {
    /// Every resource of a kind that belongs to a parent, by id.
    pub const fn new(kind: ResourceKind, parent: ResourceId) -> Self {
        Self { kind, parent, status: None, name: None, order: ResourceOrder::Id, descending: false }
    }
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
    /// Of all operations only this one. Idempotency entries go as ever.
    pub only: Option<OperationId>,
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

impl Capabilities {
    /// Of a store that is not made of a [`Kv`](crate::Kv).
    pub const fn new(name: &'static str, durability: Durability, multi_process: bool) -> Self {
        Self { name, durability, multi_process }
    }
}

/// Tells one store from all others: what lies outside and belongs to a store can be marked with it. As text: 32 hex
/// digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId([u8; 16]);

impl StoreId {
    /// From what was drawn when the store was made. The one-way function keeps that secret, and the context keeps it apart from
    /// what else is made of it.
    fn derive(secret: &[u8; 32]) -> Self {
        let derived = blake3::derive_key("longrun 2026-11 the id of a store", secret);
        let mut id = [0; 16];
        id.copy_from_slice(&derived[..16]);
        Self(id)
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where everything durable lives.
///
/// [`KvStore`](crate::KvStore) is one, over any [`Kv`](crate::Kv): that is what to implement for another embedded database. A
/// store that is made of something else, such as typed tables, gets the parts of a [`Commit`] as
/// [`Records`](crate::records::Records).
///
/// Object-safe; shared by reference among all tasks of an engine. Every method can be cancelled by dropping its
/// future: a commit that has begun then still happens or does not, whole.
#[async_trait]
pub trait Store: Debug + Send + Sync + 'static {
    /// Takes the store over: gives a fence that is higher than any before, and from now on refuses every commit
    /// with a lower one (C17). Where engines share it, as a [`Cluster`], it makes this one a node of them instead.
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

    /// Fails with [`CommitError::Fenced`] if whoever has this fence does not own the operation, or does not any more (C17).
    ///
    /// Where the store has one owner, that one owns every operation. Where engines share it, the owner is who claimed it last and has not
    /// let it go; an operation that is done stays its last owner's, and one that is not there has none.
    ///
    /// To be correct: it sees at least what every reading has seen that had returned before it was asked; and when it succeeds, nobody
    /// but who has the fence, and [visitors](crate::Author::Visitor), has written to the operation since the fence was given. So an
    /// owner tells what itself has started from what its successor has.
    async fn check_owner(&self, id: OperationId, fence: Fence) -> Result<(), CommitError>;

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

    /// At most `limit` rows, in the order that is asked for, after a position. May be fewer than `limit` although more
    /// follow.
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

    /// Takes a reference to each of the items for a resource, and tells the life that each is in. A reference that the
    /// resource has already is not taken twice. An item without references begins a new life, as `fresh`, which must
    /// never have been used before.
    ///
    /// To be correct: all of them are taken or none; only if the operation holds the resource and the fence is the newest.
    /// Durable when it returns. While a reference lasts, the incarnation of its item does not change. Repeating the
    /// call, also after [`CommitError::Unknown`], does no harm.
    async fn take_references(
        &self,
        holder: Holder,
        items: Vec<ItemKey>,
        fresh: Incarnation,
    ) -> Result<Vec<Taken>, CommitError>;

    /// Puts on record that items are there, outside, for good: whoever takes one from now on need not look. Those that live in
    /// another life by now are passed over.
    ///
    /// To be correct: under the conditions of [`take_references`](Self::take_references), and durable when it returns.
    async fn confirm_items(
        &self,
        holder: Holder,
        items: Vec<(ItemKey, Incarnation)>,
    ) -> Result<(), CommitError>;

    /// Takes it back that items are [confirmed](Self::confirm_items), because one was found not to be there, or damaged: whoever
    /// takes one from now on has to look himself. Those that live in another life by now are passed over.
    ///
    /// To be correct: only if the fence is the newest. Durable when it returns: what is wrong outside is mended after this.
    async fn unconfirm_items(
        &self,
        fence: Fence,
        items: Vec<(ItemKey, Incarnation)>,
    ) -> Result<(), CommitError>;

    /// Drops references that a resource has, at most `limit` of them; the store may drop fewer. Call it again while there
    /// are more. Items that lose their last reference so become [orphans](Self::orphans) of the operation.
    ///
    /// To be correct: under the conditions of [`take_references`](Self::take_references), and durable when it returns.
    async fn drop_references(&self, holder: Holder, limit: usize) -> Result<Dropped, CommitError>;

    /// Drops the references that a resource has to these items, and gives their number; one that it has not is no error.
    ///
    /// To be correct: all of them are dropped or none; otherwise as [`drop_references`](Self::drop_references).
    async fn drop_references_to(&self, holder: Holder, items: Vec<ItemKey>) -> Result<usize, CommitError>;

    /// Drops references of a resource that is gone, at most `limit` of them; the store may drop fewer. An operator who declares
    /// a step undone that was not may leave such.
    ///
    /// To be correct: only if there is no such resource, whoever the operation is, and the fence is the newest; otherwise as
    /// [`drop_references`](Self::drop_references).
    async fn drop_references_of_gone(&self, holder: Holder, limit: usize) -> Result<Dropped, CommitError>;

    /// At most `limit` items that a resource refers to, in a fixed order, after one.
    async fn references(
        &self,
        of: &ResourceKey,
        after: Option<&ItemKey>,
        limit: usize,
    ) -> Result<Vec<ItemKey>, StoreError>;

    /// At most `limit` resources that have references, whether they are there or not, in a fixed order, after one.
    async fn reference_holders(
        &self,
        after: Option<&ResourceKey>,
        limit: usize,
    ) -> Result<Vec<ResourceKey>, StoreError>;

    /// At most `limit` orphans that are not yet forgotten, in a fixed order, after a place: those that one operation
    /// left behind, or all.
    async fn orphans(
        &self,
        of: Option<OperationId>,
        after: Option<&Orphan>,
        limit: usize,
    ) -> Result<Vec<Orphan>, StoreError>;

    /// Forgets orphans, which are removed outside. Durable when it returns. Forgetting one that is not there does no harm.
    async fn forget_orphans(&self, fence: Fence, orphans: Vec<Orphan>) -> Result<(), CommitError>;

    /// The incarnation of each item; `None` for one without references.
    async fn incarnations(&self, items: &[ItemKey]) -> Result<Vec<Option<Incarnation>>, StoreError>;

    /// 32 bytes that were drawn when the store was made: to authenticate page tokens with, and the seed of its
    /// [`id`](Self::id).
    fn page_secret(&self) -> [u8; 32];

    /// Which store this is, of all that there are; the same for as long as it exists, and for a copy of it. Not secret.
    fn id(&self) -> StoreId {
        StoreId::derive(&self.page_secret())
    }

    /// What this store promises.
    fn capabilities(&self) -> Capabilities;

    /// Who works on what, if several engines can share this store at the same time. `None` when it has one owner: then
    /// [`take_over`](Self::take_over) shuts all others out.
    fn cluster(&self) -> Option<&dyn Cluster> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_store_is_of_its_secret_alone_and_shows_as_32_digits() {
        let [one, same, other] = [[7; 32], [7; 32], [8; 32]].map(|secret| StoreId::derive(&secret));
        assert!(one == same && one != other);
        assert_eq!(format!("{one:?}"), one.to_string());
        assert!(one.to_string().len() == 32 && one.to_string().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
