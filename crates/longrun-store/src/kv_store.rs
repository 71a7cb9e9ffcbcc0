//! [`KvStore`]: a [`Store`] over any [`Kv`].

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longrun_core::limits::RECORD_BYTES_MAX;
use longrun_core::{
    Execution, Fence, Incarnation, ItemKey, Operation, OperationId, Orphan, ResourceId, ResourceKey, Row,
    Timestamp,
};
use tokio::sync::{mpsc, oneshot};

use crate::committer::{Committer, Job, REOPEN_WAIT, Work};
use crate::error::{CommitError, StoreError};
use crate::gate::{Gate, Reading};
use crate::items::{self, Confirm, DropIf, DropSome, DropWhat, Dropped, Holder, Take, Taken, Unconfirm};
use crate::kv::{Batch, Direction, KeyRange, Kv, Table};
use crate::layout::{self, FORMAT_VERSION};
use crate::memory::MemoryKv;
use crate::prepare::Prepared;
use crate::read;
use crate::record;
use crate::store::{
    Capabilities, Commit, Due, LedgerEntry, OperationQuery, Position, Purge, Purged, ResourceOrder,
    ResourceQuery, Slice, Store,
};
use crate::sync::Mutex;
use crate::sync::thread::{self, JoinHandle};
use crate::watched::Watched;

/// Commits that may wait for the committer. Beyond it, callers wait.
const QUEUE: usize = 4096;
/// Times that one reading has the backend reopened before it gives up.
const READ_REOPENS_MAX: usize = 2;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its first records cannot be read or written.
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    /// It was made by a newer program.
    #[error("the store has layout version {found}, this program reads up to {FORMAT_VERSION}")]
    FutureLayout {
        /// The version it has.
        found: u64,
    },
    /// The backend does not take records of the size that the engine writes.
    #[error("the backend takes values of {found} bytes, {RECORD_BYTES_MAX} are needed")]
    SmallValues {
        /// The largest value that it takes.
        found: usize,
    },
    /// The operating system gave no thread or no random bytes.
    #[error("the operating system refused: {0}")]
    System(String),
}

/// A full store over ordered keys: conditions, group commit, indexes and paging.
pub struct KvStore {
    kv: Arc<dyn Kv>,
    gate: Arc<Gate>,
    secret: [u8; 32],
    lane: Lane,
}

/// How commits reach the committer.
enum Lane {
    /// It has a thread of its own, which gathers what comes while the disk is busy.
    Thread { jobs: Option<mpsc::Sender<Job>>, thread: Option<JoinHandle<()>> },
    /// Whoever commits does its work. No threads: for simulation, and for stores without a disk.
    Inline(Mutex<Committer>),
}

impl fmt::Debug for KvStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvStore").field("kv", &self.kv.capabilities()).finish_non_exhaustive()
    }
}

impl KvStore {
    /// Opens a store over a backend, with a committer thread. The backend is synced from that thread alone.
    ///
    /// Dropping the store waits for the commits that are queued and for the thread, and then drops the backend: after
    /// that, the same files can be opened again.
    pub fn open(kv: impl Kv) -> Result<Self, OpenError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| OpenError::System(error.to_string()))?;
        let (store, committer) = Self::prepare(Arc::new(kv), secret, REOPEN_WAIT)?;
        let (sender, jobs) = mpsc::channel(QUEUE);
        // Ends when the store is dropped and what was queued is done.
        let thread = thread::Builder::new()
            .name("longrun-commit".to_owned())
            .spawn(move || committer.run(jobs))
            .map_err(|error| OpenError::System(error.to_string()))?;
        Ok(store(Lane::Thread { jobs: Some(sender), thread: Some(thread) }))
    }

    /// Opens a store over a backend, whose commits are done by their callers. The same calls give the same bytes:
    /// `secret`, which authenticates page tokens, is used when the store is new. No clock is asked either: a backend
    /// that has to be reopened is reopened at the next call.
    pub fn open_inline(kv: impl Kv, secret: [u8; 32]) -> Result<Self, OpenError> {
        let (store, committer) = Self::prepare(Arc::new(kv), secret, Duration::ZERO)?;
        Ok(store(Lane::Inline(Mutex::new(committer))))
    }

    /// A store in memory: real, complete, and gone with the process.
    pub fn memory() -> Result<Self, OpenError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| OpenError::System(error.to_string()))?;
        Self::open_inline(MemoryKv::new(), secret)
    }

    fn prepare(
        kv: Arc<dyn Kv>,
        secret: [u8; 32],
        reopen_wait: Duration,
    ) -> Result<(impl FnOnce(Lane) -> Self, Committer), OpenError> {
        let found = kv.capabilities().value_bytes_max;
        if found < RECORD_BYTES_MAX {
            return Err(OpenError::SmallValues { found });
        }
        let gate = Arc::new(Gate::new());
        let kv: Arc<dyn Kv> = Arc::new(Watched::new(kv, Arc::clone(&gate)));
        let (fence, secret) = first_records(kv.as_ref(), secret)?;
        let committer = Committer::new(Arc::clone(&kv), Arc::clone(&gate), fence, reopen_wait);
        Ok((move |lane| Self { kv, gate, secret, lane }, committer))
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        match &self.lane {
            Lane::Thread { jobs, .. } => jobs.as_ref()?.send(job(reply)).await.ok()?,
            Lane::Inline(committer) => {
                // A panic in a backend does not get this far.
                committer.lock().unwrap_or_else(PoisonError::into_inner).single(job(reply));
            }
        }
        answer.await.ok()
    }

    async fn drop_some(&self, drop_some: DropSome) -> Result<Dropped, CommitError> {
        let drop_some = Box::new(drop_some);
        self.ask(|reply| Job::Write(Work::Drop(drop_some, reply))).await.unwrap_or_else(silent)
    }

    async fn read<T: Send>(
        &self,
        mut read: impl FnMut(&dyn Kv, &Reading<'_>) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        for _ in 0..READ_REOPENS_MAX {
            if let Ok(result) = self.gate.read(|reading| read(self.kv.as_ref(), reading)).await {
                return result;
            }
            // There may be no commit for a long time, and whoever waits for the outcome of one reads first.
            self.ask(Job::Reopen).await.unwrap_or_else(|| Err(closed()))?;
        }
        Err(StoreError::Unavailable("the store breaks down as often as it is reopened".into()))
    }
}

impl Drop for KvStore {
    fn drop(&mut self) {
        if let Lane::Thread { jobs, thread } = &mut self.lane {
            drop(jobs.take());
            // It has told those who asked, if it panicked.
            _ = thread.take().map(JoinHandle::join);
        }
    }
}

/// Reads, or writes, what every store has: its format, its epoch and its secret.
fn first_records(kv: &dyn Kv, secret: [u8; 32]) -> Result<(Fence, [u8; 32]), OpenError> {
    let get = |key: &[u8]| kv.get(Table::Meta, key).map_err(StoreError::from);
    let unreadable = |error| StoreError::unreadable("the store's first records", error);
    let missing = || StoreError::Corrupt {
        subject: "the store's first records".to_owned(),
        cause: "some are missing".into(),
    };
    if let Some(bytes) = get(layout::META_FORMAT)? {
        let found = record::decode_number(&bytes).map_err(unreadable)?;
        if found > FORMAT_VERSION {
            return Err(OpenError::FutureLayout { found });
        }
        let epoch = get(layout::META_EPOCH)?.ok_or_else(missing)?;
        let stored = get(layout::META_PAGE_SECRET)?.ok_or_else(missing)?;
        let epoch = record::decode_number(&epoch).map_err(unreadable)?;
        return Ok((Fence(epoch), record::decode_secret(&stored).map_err(unreadable)?));
    }
    // Only an empty store is a new one: to begin another epoch over somebody's data would let an old owner back in.
    for table in Table::ALL {
        let found =
            kv.scan(table, &KeyRange::prefix(b""), Direction::Forward, 1).map_err(StoreError::from)?;
        if !found.is_empty() {
            return Err(missing().into());
        }
    }
    let mut batch = Batch::default();
    let number = |number| record::encode_number(number).map_err(unreadable);
    batch.put(Table::Meta, layout::META_FORMAT.to_vec(), number(FORMAT_VERSION)?);
    batch.put(Table::Meta, layout::META_EPOCH.to_vec(), number(0)?);
    let sealed = record::encode_secret(&secret).map_err(unreadable)?;
    batch.put(Table::Meta, layout::META_PAGE_SECRET.to_vec(), sealed);
    kv.commit(&batch).map_err(StoreError::from)?;
    Ok((Fence(0), secret))
}

fn closed() -> StoreError {
    StoreError::Unavailable("the committer of the store has ended".into())
}

#[async_trait]
impl Store for KvStore {
    async fn take_over(&self) -> Result<Fence, StoreError> {
        self.ask(Job::TakeOver).await.unwrap_or_else(|| Err(closed()))
    }

    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        let prepared = Box::new(Prepared::new(commit)?);
        self.ask(|reply| Job::Write(Work::Turn(prepared, reply))).await.unwrap_or_else(silent)
    }

    async fn check_owner(&self, _: OperationId, fence: Fence) -> Result<(), CommitError> {
        self.ask(|reply| Job::CheckFence(fence, reply)).await.unwrap_or_else(silent)
    }

    async fn load(&self, id: OperationId) -> Result<Option<Execution>, StoreError> {
        self.read(|kv, reading| read::operation(kv, id, reading)).await
    }

    async fn due(&self, until: Timestamp, after: Option<Due>, limit: usize) -> Result<Vec<Due>, StoreError> {
        self.read(|kv, _| read::due(kv, until, after, limit)).await
    }

    async fn resource(&self, key: &ResourceKey) -> Result<Option<Row>, StoreError> {
        self.read(|kv, _| read::row(kv, key)).await
    }

    async fn list_resources(
        &self,
        query: &ResourceQuery,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Slice<Row>, StoreError> {
        let list = ResourceList::of(query);
        self.read(|kv, _| {
            read::slice(kv, (list.table, &list.prefix, list.direction), after, limit, |rest, _| {
                let id = resource_id((list.id)(rest))?;
                let row = read::row(kv, &ResourceKey { kind: query.kind.clone(), id })?;
                Ok(row.filter(|row| list.holds(rest, row)))
            })
        })
        .await
    }

    async fn list_operations(
        &self,
        query: &OperationQuery,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Slice<Operation>, StoreError> {
        let (table, prefix) = match query {
            OperationQuery::All => (Table::Operations, Vec::new()),
            OperationQuery::OfResource(key) => (Table::ByResource, layout::by_resource_prefix(key)),
        };
        self.read(|kv, reading| {
            read::slice(kv, (table, &prefix, Direction::Backward), after, limit, |rest, value| {
                let id = layout::parse_operation(rest)
                    .map_err(|error| StoreError::unreadable("the index of operations", error))?;
                let found = match table {
                    Table::Operations => read::operation_of(kv, id, value, reading)?,
                    _ => read::operation(kv, id, reading)?,
                };
                Ok(found.map(Execution::into_operation))
            })
        })
        .await
    }

    async fn ledger(&self, digest: &[u8; 32]) -> Result<Option<LedgerEntry>, StoreError> {
        self.read(|kv, _| read::ledger(kv, digest)).await
    }

    async fn purge(&self, fence: Fence, purge: Purge) -> Result<Purged, CommitError> {
        self.ask(|reply| Job::Purge(fence, purge, reply)).await.unwrap_or_else(|| Err(closed().into()))
    }

    async fn take_references(
        &self,
        holder: Holder,
        items: Vec<ItemKey>,
        fresh: Incarnation,
    ) -> Result<Vec<Taken>, CommitError> {
        let take = Box::new(Take { holder, items, fresh });
        self.ask(|reply| Job::Write(Work::Take(take, reply))).await.unwrap_or_else(silent)
    }

    async fn confirm_items(
        &self,
        holder: Holder,
        items: Vec<(ItemKey, Incarnation)>,
    ) -> Result<(), CommitError> {
        let confirm = Box::new(Confirm { holder, items });
        self.ask(|reply| Job::Write(Work::Confirm(confirm, reply))).await.unwrap_or_else(silent)
    }

    async fn unconfirm_items(
        &self,
        fence: Fence,
        items: Vec<(ItemKey, Incarnation)>,
    ) -> Result<(), CommitError> {
        let unconfirm = Box::new(Unconfirm { fence, items });
        self.ask(|reply| Job::Write(Work::Unconfirm(unconfirm, reply))).await.unwrap_or_else(silent)
    }

    async fn drop_references(&self, holder: Holder, limit: usize) -> Result<Dropped, CommitError> {
        self.drop_some(DropSome { holder, what: DropWhat::First(limit), condition: DropIf::Held }).await
    }

    async fn drop_references_to(&self, holder: Holder, items: Vec<ItemKey>) -> Result<usize, CommitError> {
        let dropped = self
            .drop_some(DropSome { holder, what: DropWhat::Items(items), condition: DropIf::Held })
            .await?;
        Ok(dropped.references)
    }

    async fn drop_references_of_gone(&self, holder: Holder, limit: usize) -> Result<Dropped, CommitError> {
        self.drop_some(DropSome { holder, what: DropWhat::First(limit), condition: DropIf::ResourceGone })
            .await
    }

    async fn references(
        &self,
        of: &ResourceKey,
        after: Option<&ItemKey>,
        limit: usize,
    ) -> Result<Vec<ItemKey>, StoreError> {
        self.read(|kv, _| read::references(kv, of, after, limit)).await
    }

    async fn reference_holders(
        &self,
        after: Option<&ResourceKey>,
        limit: usize,
    ) -> Result<Vec<ResourceKey>, StoreError> {
        self.read(|kv, _| read::reference_holders(kv, after, limit)).await
    }

    async fn orphans(
        &self,
        of: Option<OperationId>,
        after: Option<&Orphan>,
        limit: usize,
    ) -> Result<Vec<Orphan>, StoreError> {
        self.read(|kv, _| read::orphans(kv, of, after, limit)).await
    }

    async fn forget_orphans(&self, fence: Fence, orphans: Vec<Orphan>) -> Result<(), CommitError> {
        self.ask(|reply| Job::Write(Work::Forget(fence, orphans, reply))).await.unwrap_or_else(silent)
    }

    async fn incarnations(&self, items: &[ItemKey]) -> Result<Vec<Option<Incarnation>>, StoreError> {
        let incarnation = |kv: &dyn Kv, key: &ItemKey| {
            let item = kv.get(Table::Items, &layout::item(key))?;
            let item = item.map(|bytes| items::decode_item(key, &bytes)).transpose()?;
            Ok(item.map(|item| item.incarnation))
        };
        self.read(|kv, _| items.iter().map(|key| incarnation(kv, key)).collect()).await
    }

    fn page_secret(&self) -> [u8; 32] {
        self.secret
    }

    fn capabilities(&self) -> Capabilities {
        let kv = self.kv.capabilities();
        Capabilities { name: kv.name, durability: kv.durability, multi_process: false }
    }
}

/// A committer that ended without an answer may have written before it did.
fn silent<T>() -> Result<T, CommitError> {
    Err(CommitError::Unknown("the committer of the store has ended".into()))
}

/// Where a list of resources is read from.
struct ResourceList<'a> {
    query: &'a ResourceQuery,
    table: Table,
    prefix: Vec<u8>,
    direction: Direction,
    id: IdIn,
}

/// The id in a key without its prefix.
type IdIn = fn(&[u8]) -> &[u8];

impl<'a> ResourceList<'a> {
    fn of(query: &'a ResourceQuery) -> Self {
        let mut prefix = layout::by_parent_prefix(&query.kind, &query.parent);
        let (table, id): (_, IdIn) = match (query.order, &query.name) {
            (ResourceOrder::Id, None) => (Table::ByParent, |rest| rest),
            (ResourceOrder::Creation, _) => (Table::ByCreation, layout::id_after_time),
            (ResourceOrder::Name, None) => (Table::ByName, layout::id_after_name),
            // Among those of one name the order by name is that of the ids. A name that may have been cut in the index
            // is looked for in all of them.
            (ResourceOrder::Id | ResourceOrder::Name, Some(name)) if layout::is_whole_in_index(name) => {
                prefix.extend_from_slice(&layout::name_prefix(name));
                (Table::ByName, |rest| rest)
            }
            (ResourceOrder::Id, Some(_)) => (Table::ByParent, |rest| rest),
            (ResourceOrder::Name, Some(_)) => (Table::ByName, layout::id_after_name),
        };
        let direction = if query.descending { Direction::Backward } else { Direction::Forward };
        Self { query, table, prefix, direction, id }
    }

    /// Index and row are two readings: what the row says counts, in the place where it says it is.
    fn holds(&self, rest: &[u8], row: &Row) -> bool {
        let entry = match self.table {
            Table::ByName => layout::by_name(row),
            Table::ByCreation => layout::by_creation(row),
            _ => layout::by_parent(&row.key, &row.parent),
        };
        entry.strip_prefix(self.prefix.as_slice()) == Some(rest)
            && self.query.status.is_none_or(|status| status == row.status)
            && self.query.name.as_ref().is_none_or(|name| *name == row.name)
    }
}

fn resource_id(bytes: &[u8]) -> Result<ResourceId, StoreError> {
    let text = String::from_utf8_lossy(bytes);
    ResourceId::new(&*text).map_err(|error| StoreError::Corrupt {
        subject: "the index of resources".to_owned(),
        cause: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S34: who is too old for a store does not open it.
    #[test]
    fn s34_a_store_of_a_newer_format_is_not_opened() {
        let kv = MemoryKv::new();
        let (fence, secret) = first_records(&kv, [3; 32]).unwrap();
        assert_eq!(first_records(&kv, [4; 32]).unwrap(), (fence, secret));
        let mut batch = Batch::default();
        let newer = record::encode_number(FORMAT_VERSION + 1).unwrap();
        batch.put(Table::Meta, layout::META_FORMAT.to_vec(), newer);
        kv.commit(&batch).unwrap();
        let error = first_records(&kv, [3; 32]).unwrap_err();
        assert!(
            matches!(error, OpenError::FutureLayout { found } if found == FORMAT_VERSION + 1),
            "{error:?}"
        );
    }
}
