//! [`SharedStore`]: a store in memory that engines share, with lines that can be cut.
//!
//! Any number of handles on one [`KvStore`], and beside it who works on what, as [`Cluster`] asks for. Time is what the caller
//! says it is. Each handle has a line of its own to the store, so that one engine can lose it and others not; what was cut off,
//! refused and taken away is counted.
//!
//! ```
//! use std::time::Duration;
//! use longrun_store::conformance::wait;
//! use longrun_store::shared::{Line, SharedStore};
//! use longrun_store::Store;
//!
//! let one = SharedStore::new(Duration::from_secs(3), || Duration::ZERO).unwrap();
//! let other = one.another();
//! one.set_line(Line::Cut);
//! assert!(wait(one.take_over()).is_err());
//! assert!(wait(other.take_over()).is_ok());
//! assert_eq!(one.seen().cut_off, 1);
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longrun_core::{
    Execution, Fence, Incarnation, ItemKey, KindName, Operation, OperationId, Orphan, ResourceKey, Revision,
    Row, Timestamp,
};
use tokio::sync::Notify;

use crate::cluster::{Asked, Claimed, Cluster, Tidings, Wanted};
use crate::conformance::wait;
use crate::error::{CommitError, StoreError};
use crate::items::{Dropped, Holder, Taken};
use crate::kv::{Cause, Kv};
use crate::kv_store::{KvStore, OpenError};
use crate::memory::MemoryKv;
use crate::store::{
    Author, Capabilities, Commit, Due, LedgerEntry, OperationQuery, Position, Purge, Purged, ResourceQuery,
    Slice, Store,
};

/// The line of one handle to the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Line {
    /// Everything arrives.
    #[default]
    Whole,
    /// Nothing arrives: what is asked is not done.
    Cut,
    /// No answer arrives: what is asked is done, and nobody is told.
    Mute,
}

/// What happened to a shared store so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// Commits that took effect.
    pub commits: u64,
    /// Calls that did not arrive.
    pub cut_off: u64,
    /// Calls that were done and not answered.
    pub unanswered: u64,
    /// Commits and changes of references that came with a fence that somebody else had overtaken, or nobody has.
    pub late: u64,
    /// Claims that were granted.
    pub claimed: u64,
    /// Operations that were taken away from nodes whose leases had run out.
    pub freed: u64,
    /// Operations that a node held without knowing it.
    pub strays: u64,
    /// Renewals of leases that had run out.
    pub lapsed: u64,
    /// Changes by visitors that were told to who works on the operation.
    pub told: u64,
}

/// One handle on a store that is shared.
pub struct SharedStore {
    hub: Arc<Hub>,
    own: Arc<Own>,
}

/// What every call of a handle waits for, before it arrives and before its answer does: to make it take its time.
pub type Toll = dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// What a handle has for itself.
#[derive(Default)]
struct Own {
    faults: Mutex<Faults>,
    toll: Mutex<Option<Arc<Toll>>>,
    /// Another has written.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Faults {
    line: Line,
    /// Commits from now on that are done and not answered.
    answers_lost: u32,
    /// Commits from now on of which nobody knows that they are not done.
    commits_lost: u32,
    /// Claims from now on that are done, and whose callers wait for ever.
    claims_kept: u32,
}

struct Hub {
    kv: KvStore,
    /// The one owner that the store below knows.
    fence: Fence,
    lease: Duration,
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
    state: Mutex<State>,
    witness: OnceLock<Box<Witness>>,
}

/// Sees what is stored.
type Witness = dyn Fn(&Execution) + Send + Sync;

struct State {
    epoch: Fence,
    nodes: BTreeMap<Fence, Node>,
    /// Those that are unfinished.
    operations: BTreeMap<OperationId, Owned>,
    /// Those that are done, with their last fences.
    done: BTreeMap<OperationId, Fence>,
    /// When any node was last heard of.
    heard_at: Duration,
    seen: Seen,
    handles: Vec<Arc<Own>>,
    forgets_fences: bool,
}

#[derive(Debug)]
struct Node {
    until: Duration,
    /// Operations of its own that visitors have changed.
    changed: BTreeSet<OperationId>,
}

#[derive(Debug)]
struct Owned {
    fence: Fence,
    node: Option<Fence>,
    kind: KindName,
    due_at: Timestamp,
}

impl fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedStore").field("faults", &self.own.faults).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cut() -> Cause {
    "the store does not answer".into()
}

impl SharedStore {
    /// An empty store. A node keeps its lease for `lease` without a renewal, by this clock.
    pub fn new(
        lease: Duration,
        clock: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        Self::over(MemoryKv::new(), lease, clock)
    }

    /// The same over a backend, which must not fail.
    pub fn over(
        kv: impl Kv,
        lease: Duration,
        clock: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let kv = KvStore::open_inline(kv, [7; 32])?;
        let fence = wait(kv.take_over())?;
        let own = Arc::<Own>::default();
        let state = State {
            epoch: Fence(0),
            nodes: BTreeMap::new(),
            operations: BTreeMap::new(),
            done: BTreeMap::new(),
            heard_at: clock(),
            seen: Seen::default(),
            handles: vec![Arc::clone(&own)],
            forgets_fences: false,
        };
        let (clock, state) = (Box::new(clock), Mutex::new(state));
        let hub = Hub { kv, fence, lease, clock, state, witness: OnceLock::new() };
        Ok(Self { hub: Arc::new(hub), own })
    }

    /// Another handle on the same store, with a line of its own.
    #[must_use]
    pub fn another(&self) -> Self {
        let own = Arc::<Own>::default();
        lock(&self.hub.state).handles.push(Arc::clone(&own));
        Self { hub: Arc::clone(&self.hub), own }
    }

    /// Cuts the line of this handle, or mends it.
    pub fn set_line(&self, line: Line) {
        lock(&self.own.faults).line = line;
    }

    /// Has the next commits through this handle done and not answered.
    pub fn lose_answers(&self, commits: u32) {
        lock(&self.own.faults).answers_lost = commits;
    }

    /// Has the next commits through this handle not done, and not answered either.
    pub fn lose_commits(&self, commits: u32) {
        lock(&self.own.faults).commits_lost = commits;
    }

    /// Has the next claims through this handle done, and whoever makes one wait until he gives up.
    pub fn keep_claims_waiting(&self, claims: u32) {
        lock(&self.own.faults).claims_kept = claims;
    }

    /// Has every call through this handle wait.
    pub fn set_toll(
        &self,
        toll: impl Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static,
    ) {
        *lock(&self.own.toll) = Some(Arc::new(toll));
    }

    /// Shows the witness each operation as each commit leaves it, through whichever handle. It is called while the store is locked, so
    /// it must not call the store. Only the first witness is kept.
    pub fn set_witness(&self, witness: impl Fn(&Execution) + Send + Sync + 'static) {
        _ = self.hub.witness.set(Box::new(witness));
    }

    /// Lets the lease of a node run out now.
    pub fn expire(&self, node: Fence) {
        if let Some(node) = lock(&self.hub.state).nodes.get_mut(&node) {
            node.until = Duration::ZERO;
        }
    }

    /// Takes the commits of former owners from now on: a mistake that who tests with this store wants to see found (S30).
    pub fn forget_fences(&self) {
        lock(&self.hub.state).forgets_fences = true;
    }

    /// What happened to the store so far, through all its handles.
    pub fn seen(&self) -> Seen {
        lock(&self.hub.state).seen
    }

    /// Who works on an operation, and its fence, while it is unfinished.
    pub fn owner(&self, id: OperationId) -> Option<(Option<Fence>, Fence)> {
        lock(&self.hub.state).operations.get(&id).map(|owned| (owned.node, owned.fence))
    }

    async fn pay(&self) {
        let toll = lock(&self.own.toll).clone();
        if let Some(toll) = toll {
            toll().await;
        }
    }

    /// Whether what is asked arrives.
    fn arrive(&self) -> Result<(), Cause> {
        if lock(&self.own.faults).line == Line::Cut {
            lock(&self.hub.state).seen.cut_off += 1;
            return Err(cut());
        }
        Ok(())
    }

    /// Whether the answer arrives.
    fn answered(&self) -> Result<(), Cause> {
        // One that was cut in between takes the answer with it.
        if lock(&self.own.faults).line != Line::Whole {
            lock(&self.hub.state).seen.unanswered += 1;
            return Err(cut());
        }
        Ok(())
    }

    /// Whether a fault happens that was asked for so many times. Then nobody is answered.
    fn spend(&self, fault: impl FnOnce(&mut Faults) -> &mut u32) -> bool {
        let mut faults = lock(&self.own.faults);
        let left = fault(&mut faults);
        if *left == 0 {
            return false;
        }
        *left -= 1;
        lock(&self.hub.state).seen.unanswered += 1;
        true
    }

    /// Does something alone, as far as the line lets it.
    async fn ask<T>(
        &self,
        work: impl FnOnce(&Hub, &mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.pay().await;
        self.arrive().map_err(StoreError::Unavailable)?;
        let result = work(&self.hub, &mut lock(&self.hub.state));
        self.pay().await;
        self.answered().map_err(StoreError::Unavailable)?;
        result
    }

    /// The same for what changes something that is owned.
    async fn change<T>(
        &self,
        work: impl FnOnce(&Hub, &mut State) -> Result<T, CommitError>,
    ) -> Result<T, CommitError> {
        self.pay().await;
        self.arrive().map_err(CommitError::Unavailable)?;
        let result = {
            let mut state = lock(&self.hub.state);
            let result = work(&self.hub, &mut state);
            state.seen.late += u64::from(matches!(result, Err(CommitError::Fenced { .. })));
            result
        };
        self.pay().await;
        self.answered().map_err(CommitError::Unknown)?;
        result
    }

    async fn read<T: Send>(
        &self,
        reading: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.pay().await;
        self.arrive().map_err(StoreError::Unavailable)?;
        let result = reading.await;
        self.pay().await;
        self.answered().map_err(StoreError::Unavailable)?;
        result
    }

    /// Tells all other handles that there is something new.
    fn tell_others(&self, state: &State) {
        let others = state.handles.iter().filter(|handle| !Arc::ptr_eq(handle, &self.own));
        others.for_each(|other| other.changed.notify_one());
    }

    /// The holder as the store below knows it, if it works on its operation.
    fn checked(hub: &Hub, state: &State, holder: Holder) -> Result<Holder, CommitError> {
        if let Some(owned) = state.operations.get(&holder.operation) {
            owned.check(holder.fence)?;
        }
        Ok(Holder { fence: hub.fence, ..holder })
    }
}

impl State {
    /// A node was heard of. After a time in which none was, the store is taken to have been away, and they all have a whole
    /// lease to come back.
    fn hear(&mut self, hub: &Hub) -> Duration {
        let now = (hub.clock)();
        if now.saturating_sub(self.heard_at) >= hub.lease / 2 {
            self.nodes.values_mut().for_each(|node| node.until = node.until.max(now + hub.lease));
        }
        self.heard_at = now;
        now
    }

    /// Takes away what nodes hold whose leases have run out, and gives the number of operations.
    fn sweep(&mut self, now: Duration) -> u64 {
        self.nodes.retain(|_, node| node.until > now);
        let mut freed = 0;
        for owned in self.operations.values_mut() {
            if owned.node.is_some_and(|node| !self.nodes.contains_key(&node)) {
                owned.node = None;
                freed += 1;
            }
        }
        self.seen.freed += freed;
        freed
    }

    fn check_node(&self, node: Fence) -> Result<(), CommitError> {
        if self.nodes.contains_key(&node) {
            return Ok(());
        }
        Err(CommitError::Fenced { held: node, current: self.epoch })
    }

    /// Who may make this commit, as its author.
    fn check_author(&self, commit: &Commit) -> Result<(), CommitError> {
        let is_first = commit.entry.first == Revision::FIRST;
        match (commit.author, self.operations.get(&commit.operation_id())) {
            (Author::Owner, _) if is_first => self.check_node(commit.fence),
            (Author::Owner, Some(owned)) if !self.forgets_fences => owned.check(commit.fence),
            // It is not there, or done: its revision says so.
            (Author::Owner, _) => Ok(()),
            (Author::Visitor, _) if commit.fence.0 == 0 || commit.fence > self.epoch => {
                Err(CommitError::Fenced { held: commit.fence, current: self.epoch })
            }
            (Author::Visitor, _) => Ok(()),
        }
    }

    /// Remembers what is done. True when others should know.
    fn committed(
        &mut self,
        id: OperationId,
        author: Author,
        fence: Fence,
        left: Option<(KindName, Timestamp)>,
    ) -> bool {
        let owner = self.operations.get(&id).and_then(|owned| owned.node);
        if let (Author::Visitor, Some(node)) = (author, owner.and_then(|node| self.nodes.get_mut(&node))) {
            node.changed.insert(id);
        }
        let Some((kind, due_at)) = left else {
            let last = self.operations.remove(&id).map_or(fence, |owned| owned.fence);
            self.done.insert(id, last);
            return true;
        };
        match self.operations.get_mut(&id) {
            Some(owned) => owned.due_at = due_at,
            None => {
                let node = (author == Author::Owner).then_some(fence);
                self.operations.insert(id, Owned { fence, node, kind, due_at });
            }
        }
        author == Author::Visitor
    }
}

impl Owned {
    /// Whether somebody with this fence works on it.
    fn check(&self, fence: Fence) -> Result<(), CommitError> {
        if self.fence == fence && self.node.is_some() {
            return Ok(());
        }
        Err(CommitError::Fenced { held: fence, current: self.fence })
    }
}

#[async_trait]
impl Cluster for SharedStore {
    fn lease(&self) -> Duration {
        self.hub.lease
    }

    async fn renew(&self, node: Fence, asked: &Asked) -> Result<Tidings, StoreError> {
        self.ask(|hub, state| {
            let mut ended = Vec::new();
            for &id in &asked.awaited {
                // Nobody commits meanwhile, so this does not wait.
                if wait(hub.kv.load(id))?.is_none_or(|execution| execution.is_done()) {
                    ended.push(id);
                }
            }
            let now = state.hear(hub);
            let until = now + hub.lease;
            let known = state.nodes.get(&node).is_some_and(|node| node.until > now);
            let own = state.nodes.entry(node).or_insert(Node { until, changed: BTreeSet::new() });
            own.until = until;
            let changed: Vec<_> = std::mem::take(&mut own.changed).into_iter().collect();
            let mut freed = state.sweep(now);
            let mut lost = Vec::new();
            if let Some(holds) = &asked.holds {
                let is_held = |id: &OperationId, fence| {
                    state
                        .operations
                        .get(id)
                        .is_some_and(|owned| owned.node == Some(node) && owned.fence == fence)
                };
                lost.extend(holds.iter().filter(|(id, fence)| !is_held(id, *fence)).map(|(id, _)| *id));
                let known: BTreeSet<_> = holds.iter().collect();
                for (id, owned) in &mut state.operations {
                    if owned.node == Some(node) && !known.contains(&(*id, owned.fence)) {
                        owned.node = None;
                        freed += 1;
                        state.seen.strays += 1;
                    }
                }
            }
            state.seen.lapsed += u64::from(!known);
            state.seen.told += changed.len() as u64;
            if freed > 0 {
                self.tell_others(state);
            }
            Ok(Tidings { lapsed: !known, changed, lost, ended, freed })
        })
        .await
    }

    async fn claim(&self, node: Fence, wanted: &Wanted) -> Result<Vec<Claimed>, StoreError> {
        let claimed = self
            .ask(|_, state| {
                if !state.nodes.contains_key(&node) {
                    return Ok(Vec::new());
                }
                let is_wanted = |id: &OperationId, owned: &Owned| {
                    owned.node.is_none()
                        && (owned.due_at <= wanted.until || Due { at: owned.due_at, id: *id }.is_at_once())
                        && wanted.kinds.as_ref().is_none_or(|kinds| kinds.contains(&owned.kind))
                        && !wanted.except.contains(id)
                };
                let free = state.operations.iter().filter(|(id, owned)| is_wanted(id, owned));
                let mut found: Vec<_> = free.map(|(&id, owned)| Due { at: owned.due_at, id }).collect();
                found.sort_unstable();
                found.truncate(wanted.limit);
                let mut claimed = Vec::new();
                for due in found {
                    if let Some(owned) = state.operations.get_mut(&due.id) {
                        owned.fence = node.max(Fence(owned.fence.0 + 1));
                        owned.node = Some(node);
                        claimed.push(Claimed { due, fence: owned.fence });
                    }
                }
                state.seen.claimed += claimed.len() as u64;
                Ok(claimed)
            })
            .await;
        if self.spend(|faults| &mut faults.claims_kept) {
            std::future::pending::<()>().await;
        }
        claimed
    }

    async fn next_due(&self, until: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.ask(|_, state| {
            let free = state.operations.values().filter(|owned| owned.node.is_none());
            Ok(free.map(|owned| owned.due_at).filter(|at| *at > until).min())
        })
        .await
    }

    async fn release(&self, held: &[(OperationId, Fence)]) -> Result<(), StoreError> {
        self.ask(|_, state| {
            for (id, fence) in held {
                if let Some(owned) = state.operations.get_mut(id).filter(|owned| owned.fence == *fence)
                    && let Some(node) = owned.node.take()
                    && let Some(node) = state.nodes.get_mut(&node)
                {
                    node.changed.remove(id);
                }
            }
            self.tell_others(state);
            Ok(())
        })
        .await
    }

    async fn leave(&self, node: Fence) -> Result<(), StoreError> {
        self.ask(|_, state| {
            state.nodes.remove(&node);
            let own = state.operations.values_mut().filter(|owned| owned.node == Some(node));
            own.for_each(|owned| owned.node = None);
            self.tell_others(state);
            Ok(())
        })
        .await
    }

    async fn changed(&self) {
        self.own.changed.notified().await;
    }

    async fn unfinished(&self) -> Result<u64, StoreError> {
        self.ask(|_, state| Ok(state.operations.len() as u64)).await
    }

    async fn epoch(&self) -> Result<Fence, StoreError> {
        self.ask(|_, state| Ok(state.epoch)).await
    }
}

#[async_trait]
impl Store for SharedStore {
    async fn take_over(&self) -> Result<Fence, StoreError> {
        self.ask(|hub, state| {
            let now = state.hear(hub);
            state.epoch = Fence(state.epoch.0 + 1);
            let node = Node { until: now + hub.lease, changed: BTreeSet::new() };
            state.nodes.insert(state.epoch, node);
            Ok(state.epoch)
        })
        .await
    }

    async fn commit(&self, mut commit: Commit) -> Result<(), CommitError> {
        if self.spend(|faults| &mut faults.commits_lost) {
            return Err(CommitError::Unknown(cut()));
        }
        let result = self
            .change(|hub, state| {
                state.check_author(&commit)?;
                let (id, author, fence) = (commit.operation_id(), commit.author, commit.fence);
                let left = commit.due_at.map(|due_at| (commit.header.kind.clone(), due_at));
                commit.fence = hub.fence;
                // Whoever commits there does the work himself, so this does not wait.
                wait(hub.kv.commit(commit))?;
                // What cannot be read is shown to nobody.
                if let Some(witness) = hub.witness.get()
                    && let Ok(Some(stored)) = wait(hub.kv.load(id))
                {
                    witness(&stored);
                }
                state.seen.commits += 1;
                if state.committed(id, author, fence, left) {
                    self.tell_others(state);
                }
                Ok(())
            })
            .await;
        let whole = lock(&self.own.faults).line == Line::Whole;
        if whole && self.spend(|faults| &mut faults.answers_lost) {
            return Err(CommitError::Unknown(cut()));
        }
        result
    }

    async fn check_owner(&self, id: OperationId, fence: Fence) -> Result<(), CommitError> {
        let check = |hub: &Hub, state: &mut State| match (state.operations.get(&id), state.done.get(&id)) {
            (Some(owned), _) => Ok(owned.check(fence)),
            (_, Some(last)) if *last == fence && wait(hub.kv.load(id))?.is_some() => Ok(Ok(())),
            (_, last) => {
                let current = last.copied().unwrap_or(state.epoch);
                Ok(Err(CommitError::Fenced { held: fence, current }))
            }
        };
        self.ask(check).await?
    }

    async fn load(&self, id: OperationId) -> Result<Option<Execution>, StoreError> {
        self.read(self.hub.kv.load(id)).await
    }

    async fn due(&self, until: Timestamp, after: Option<Due>, limit: usize) -> Result<Vec<Due>, StoreError> {
        self.read(self.hub.kv.due(until, after, limit)).await
    }

    async fn resource(&self, key: &ResourceKey) -> Result<Option<Row>, StoreError> {
        self.read(self.hub.kv.resource(key)).await
    }

    async fn list_resources(
        &self,
        query: &ResourceQuery,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Slice<Row>, StoreError> {
        self.read(self.hub.kv.list_resources(query, after, limit)).await
    }

    async fn list_operations(
        &self,
        query: &OperationQuery,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Slice<Operation>, StoreError> {
        self.read(self.hub.kv.list_operations(query, after, limit)).await
    }

    async fn ledger(&self, digest: &[u8; 32]) -> Result<Option<LedgerEntry>, StoreError> {
        self.read(self.hub.kv.ledger(digest)).await
    }

    async fn purge(&self, fence: Fence, purge: Purge) -> Result<Purged, CommitError> {
        self.change(|hub, state| {
            state.check_node(fence)?;
            wait(hub.kv.purge(hub.fence, purge))
        })
        .await
    }

    async fn take_references(
        &self,
        holder: Holder,
        items: Vec<ItemKey>,
        fresh: Incarnation,
    ) -> Result<Vec<Taken>, CommitError> {
        self.change(|hub, state| {
            wait(hub.kv.take_references(Self::checked(hub, state, holder)?, items, fresh))
        })
        .await
    }

    async fn confirm_items(
        &self,
        holder: Holder,
        items: Vec<(ItemKey, Incarnation)>,
    ) -> Result<(), CommitError> {
        self.change(|hub, state| wait(hub.kv.confirm_items(Self::checked(hub, state, holder)?, items))).await
    }

    async fn unconfirm_items(
        &self,
        fence: Fence,
        items: Vec<(ItemKey, Incarnation)>,
    ) -> Result<(), CommitError> {
        self.change(|hub, state| {
            state.check_node(fence)?;
            wait(hub.kv.unconfirm_items(hub.fence, items))
        })
        .await
    }

    async fn drop_references(&self, holder: Holder, limit: usize) -> Result<Dropped, CommitError> {
        self.change(|hub, state| wait(hub.kv.drop_references(Self::checked(hub, state, holder)?, limit)))
            .await
    }

    async fn drop_references_to(&self, holder: Holder, items: Vec<ItemKey>) -> Result<usize, CommitError> {
        self.change(|hub, state| wait(hub.kv.drop_references_to(Self::checked(hub, state, holder)?, items)))
            .await
    }

    async fn drop_references_of_gone(&self, holder: Holder, limit: usize) -> Result<Dropped, CommitError> {
        self.change(|hub, state| {
            state.check_node(holder.fence)?;
            wait(hub.kv.drop_references_of_gone(Holder { fence: hub.fence, ..holder }, limit))
        })
        .await
    }

    async fn references(
        &self,
        of: &ResourceKey,
        after: Option<&ItemKey>,
        limit: usize,
    ) -> Result<Vec<ItemKey>, StoreError> {
        self.read(self.hub.kv.references(of, after, limit)).await
    }

    async fn reference_holders(
        &self,
        after: Option<&ResourceKey>,
        limit: usize,
    ) -> Result<Vec<ResourceKey>, StoreError> {
        self.read(self.hub.kv.reference_holders(after, limit)).await
    }

    async fn orphans(
        &self,
        of: Option<OperationId>,
        after: Option<&Orphan>,
        limit: usize,
    ) -> Result<Vec<Orphan>, StoreError> {
        self.read(self.hub.kv.orphans(of, after, limit)).await
    }

    async fn forget_orphans(&self, fence: Fence, orphans: Vec<Orphan>) -> Result<(), CommitError> {
        self.change(|hub, state| {
            state.check_node(fence)?;
            wait(hub.kv.forget_orphans(hub.fence, orphans))
        })
        .await
    }

    async fn incarnations(&self, items: &[ItemKey]) -> Result<Vec<Option<Incarnation>>, StoreError> {
        self.read(self.hub.kv.incarnations(items)).await
    }

    fn page_secret(&self) -> [u8; 32] {
        self.hub.kv.page_secret()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "shared", multi_process: true, ..self.hub.kv.capabilities() }
    }

    fn cluster(&self) -> Option<&dyn Cluster> {
        Some(self)
    }
}
