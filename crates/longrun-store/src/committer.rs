//! The committer: checks commits one by one, makes them durable together, answers each by itself.
//!
//! Only one runs for a store, so nothing changes between its checks and its write. Group commit comes from the
//! disk itself: while one batch is synced the next one gathers. Nothing waits on a timer.

use std::collections::{BTreeSet, HashMap};
use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longrun_core::{
    Condition, Fence, Incarnation, ItemKey, OperationId, Orphan, ResourceId, ResourceKey, ResourceKind,
    ResourceStatus, Revision, Row, RowWrite,
};
use tokio::sync::{mpsc, oneshot};

use crate::error::{CommitError, Conflict, SharedCause, StoreError};
use crate::gate::Gate;
use crate::items::{self, Confirm, DropIf, DropSome, Dropped, Holder, Take, Taken, Unconfirm};
use crate::kv::{Batch, Cause, Direction, KeyRange, Kv, KvError, Table};
use crate::layout;
use crate::prepare::Prepared;
use crate::read;
use crate::record;
use crate::store::{Purge, Purged};

/// Commits that go into one batch at most.
const GROUP_COMMITS_MAX: usize = 1024;
/// Operations whose revision is remembered. Beyond it the memory is emptied and fills again from the store.
const TIPS_MAX: usize = 65_536;
/// Wait between attempts to reopen an engine, while commits and readings keep coming.
pub(crate) const REOPEN_WAIT: Duration = Duration::from_millis(100);

/// What the committer is asked to do.
pub(crate) enum Job {
    /// What can share a batch with others.
    Write(Work),
    TakeOver(oneshot::Sender<Result<Fence, StoreError>>),
    Purge(Fence, Purge, oneshot::Sender<Result<Purged, CommitError>>),
    /// Whether the fence is the newest.
    CheckFence(Fence, Reply<()>),
    /// Reopen the engine, if it has to be: somebody wants to read.
    Reopen(oneshot::Sender<Result<(), StoreError>>),
}

/// Something to make durable, and whom to tell.
pub(crate) enum Work {
    Turn(Box<Prepared>, Reply<()>),
    Take(Box<Take>, Reply<Vec<Taken>>),
    Confirm(Box<Confirm>, Reply<()>),
    Unconfirm(Box<Unconfirm>, Reply<()>),
    Drop(Box<DropSome>, Reply<Dropped>),
    Forget(Fence, Vec<Orphan>, Reply<()>),
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, CommitError>>;

/// What is to be told to whom, once the batch is durable.
enum Answer {
    Done(Reply<()>, Result<(), CommitError>),
    Taken(Reply<Vec<Taken>>, Result<Vec<Taken>, CommitError>),
    Dropped(Reply<Dropped>, Result<Dropped, CommitError>),
}

/// The revision of an operation, as the next commit of it must expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tip {
    Absent,
    At(Revision),
    Done,
}

pub(crate) struct Committer {
    kv: Arc<dyn Kv>,
    gate: Arc<Gate>,
    fence: Fence,
    tips: HashMap<OperationId, Tip>,
    reopen_wait: Duration,
    reopen_tried_at: Option<Instant>,
}

/// What the commits of the batch that is being gathered will have written.
#[derive(Default)]
struct Overlay {
    tips: HashMap<OperationId, Tip>,
    values: HashMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    batch: Batch,
    bytes: usize,
}

impl Committer {
    pub(crate) fn new(kv: Arc<dyn Kv>, gate: Arc<Gate>, fence: Fence, reopen_wait: Duration) -> Self {
        Self { kv, gate, fence, tips: HashMap::new(), reopen_wait, reopen_tried_at: None }
    }

    /// Works until every sender is gone.
    pub(crate) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut group = Vec::new();
        while let Some(job) = jobs.blocking_recv() {
            let mut next = Some(job);
            while let Some(job) = next.take() {
                match job {
                    Job::Write(work) => {
                        group.push(work);
                        if group.len() < GROUP_COMMITS_MAX {
                            next = jobs.try_recv().ok();
                        }
                    }
                    other => {
                        self.commit_group(&mut group);
                        self.single(other);
                    }
                }
            }
            self.commit_group(&mut group);
        }
    }

    /// Does one job at once.
    pub(crate) fn single(&mut self, job: Job) {
        match job {
            Job::Write(work) => self.commit_group(&mut vec![work]),
            Job::TakeOver(reply) => _ = reply.send(self.take_over()),
            Job::Purge(fence, purge, reply) => _ = reply.send(self.purge(fence, &purge)),
            Job::CheckFence(fence, reply) => _ = reply.send(self.check_fence(fence)),
            Job::Reopen(reply) => _ = reply.send(self.ensure_open().map_err(StoreError::Unavailable)),
        }
    }

    fn commit_group(&mut self, group: &mut Vec<Work>) {
        if group.is_empty() {
            return;
        }
        if let Err(cause) = self.ensure_open() {
            let failure = Failure::NotApplied(SharedCause::new(cause));
            for work in group.drain(..) {
                work.refuse(failure.error()).tell(None);
            }
            return;
        }
        let bytes_max = self.kv.capabilities().batch_bytes_max;
        let mut overlay = Overlay::default();
        let mut answers = Vec::with_capacity(group.len());
        for work in group.drain(..) {
            let bytes = work.byte_len_max(bytes_max);
            let full = overlay.bytes + bytes > bytes_max || work.scans();
            if overlay.bytes > 0 && full {
                self.write(std::mem::take(&mut overlay), &mut answers);
            }
            answers.push(if bytes > bytes_max {
                work.refuse(CommitError::TooLarge { bytes, limit: bytes_max })
            } else if self.gate.is_broken() {
                work.refuse(CommitError::Unavailable("an earlier commit of the group failed".into()))
            } else {
                self.gather(work, &mut overlay, bytes_max)
            });
        }
        self.write(overlay, &mut answers);
    }

    /// Checks one piece of work against what the batch will have written, and adds it.
    fn gather(&self, work: Work, overlay: &mut Overlay, bytes_max: usize) -> Answer {
        match work {
            Work::Turn(prepared, reply) => {
                let verdict = self.check(&prepared, overlay);
                if verdict.is_ok() {
                    overlay.add_turn(*prepared);
                }
                Answer::Done(reply, verdict)
            }
            Work::Take(take, reply) => {
                let taken = self.check_holder(&take.holder, overlay).and_then(|()| {
                    let value = |table, key: &[u8], own: &Batch| match own.newest(table, key) {
                        Some(value) => Ok(value),
                        None => self.value(table, key, overlay),
                    };
                    Ok(take.perform(value)?)
                });
                Answer::Taken(
                    reply,
                    taken.map(|(batch, incarnations)| {
                        overlay.add(batch);
                        incarnations
                    }),
                )
            }
            Work::Confirm(confirm, reply) => {
                let checked = self.check_holder(&confirm.holder, overlay);
                Answer::Done(reply, checked.and_then(|()| self.mark(&confirm.items, true, overlay)))
            }
            Work::Unconfirm(unconfirm, reply) => {
                let checked = self.check_fence(unconfirm.fence);
                Answer::Done(reply, checked.and_then(|()| self.mark(&unconfirm.items, false, overlay)))
            }
            Work::Drop(drop_some, reply) => {
                let dropped = self
                    .check_dropper(&drop_some, overlay)
                    .and_then(|()| Ok(drop_some.perform(self.kv.as_ref(), bytes_max)?));
                Answer::Dropped(
                    reply,
                    dropped.map(|(batch, dropped)| {
                        overlay.add(batch);
                        dropped
                    }),
                )
            }
            Work::Forget(fence, orphans, reply) => {
                let verdict = self.check_fence(fence);
                if verdict.is_ok() {
                    let mut batch = Batch::default();
                    orphans.iter().for_each(|orphan| batch.remove(Table::Orphans, layout::orphan(orphan)));
                    overlay.add(batch);
                }
                Answer::Done(reply, verdict)
            }
        }
    }

    fn mark(
        &self,
        items: &[(ItemKey, Incarnation)],
        confirmed: bool,
        overlay: &mut Overlay,
    ) -> Result<(), CommitError> {
        let batch = items::mark(items, confirmed, |table, key| self.value(table, key, overlay))?;
        overlay.add(batch);
        Ok(())
    }

    /// Writes what was gathered and gives out the answers. A refusal may rest on a commit of the same batch, so it
    /// is given out only when the batch is durable.
    fn write(&mut self, overlay: Overlay, answers: &mut Vec<Answer>) {
        let result = if overlay.batch.writes.is_empty() { Ok(()) } else { self.apply(&overlay.batch) };
        let failure = match result {
            Ok(()) => {
                self.remember(overlay.tips);
                None
            }
            // Whose damage it is cannot be told: each looks for itself, and tries again.
            Err(KvError::Corrupt(cause)) if answers.len() > 1 => Some(Failure::of(KvError::Unknown(cause))),
            Err(error) => Some(Failure::of(error)),
        };
        answers.drain(..).for_each(|answer| answer.tell(failure.as_ref()));
    }

    /// Makes a batch durable, and keeps readers waiting meanwhile.
    fn apply(&mut self, batch: &Batch) -> Result<(), KvError> {
        self.gate.begin();
        let result = self.kv.commit(batch);
        match &result {
            Ok(()) => self.gate.settle(),
            Err(KvError::NotApplied(_)) => self.gate.refuse(),
            Err(error) => {
                tracing::error!(%error, cause = ?error.source(), "a write failed, reopening the store");
                self.gate.fail();
                // At once, so that readers and the next commits find it usable again if that is possible.
                _ = self.reopen();
            }
        }
        result
    }

    fn ensure_open(&mut self) -> Result<(), Cause> {
        if !self.gate.is_broken() {
            return Ok(());
        }
        let waits = |at: Instant| at.elapsed() < self.reopen_wait;
        if self.reopen_tried_at.is_some_and(waits) {
            return Err("the store has to be reopened after a failed write".into());
        }
        self.reopen().map_err(Cause::from)
    }

    fn reopen(&mut self) -> Result<(), KvError> {
        self.tips.clear();
        let result = self.kv.reopen();
        match &result {
            Ok(()) => {
                tracing::info!("the store is open again");
                self.reopen_tried_at = None;
                self.gate.reopen();
            }
            Err(error) => {
                tracing::warn!(%error, cause = ?error.source(), "the store could not be reopened yet");
                self.reopen_tried_at = Some(Instant::now());
            }
        }
        result
    }

    fn remember(&mut self, tips: HashMap<OperationId, Tip>) {
        if self.tips.len() + tips.len() > TIPS_MAX {
            self.tips.clear();
        }
        for (id, tip) in tips {
            match tip {
                Tip::At(_) => _ = self.tips.insert(id, tip),
                // Nobody writes to it any more.
                Tip::Done | Tip::Absent => _ = self.tips.remove(&id),
            }
        }
    }

    fn check_fence(&self, fence: Fence) -> Result<(), CommitError> {
        if fence == self.fence {
            Ok(())
        } else {
            Err(CommitError::Fenced { held: fence, current: self.fence })
        }
    }

    fn check(&self, prepared: &Prepared, overlay: &Overlay) -> Result<(), CommitError> {
        self.check_fence(prepared.fence)?;
        let tip = match overlay.tips.get(&prepared.id).or_else(|| self.tips.get(&prepared.id)) {
            Some(tip) => *tip,
            // That of a new operation: to look for what came after its head would be in vain.
            None if prepared.expect.is_none() && !read::is_there(self.kv.as_ref(), prepared.id)? => {
                Tip::Absent
            }
            None => self.read_tip(prepared.id)?,
        };
        let expected = prepared.expect.map_or(Tip::Absent, Tip::At);
        if tip != expected {
            let found = if let Tip::At(revision) = tip { Some(revision) } else { None };
            let conflict = Conflict::Operation { id: prepared.id, expected: prepared.expect, found };
            return Err(conflict.into());
        }
        // Before the rows: a repeat that loses the race wants the operation that won it, not to hear that its
        // resource is busy (C15).
        if let Some(key) = &prepared.ledger
            && let Some(bytes) = self.value(Table::Idempotency, key, overlay)?
        {
            let entry = record::decode_ledger(&bytes)
                .map_err(|error| StoreError::unreadable("an idempotency key", error))?;
            return Err(Conflict::Idempotency(entry).into());
        }
        for write in &prepared.rows {
            self.check_row(write, overlay)?;
        }
        for condition in &prepared.conditions {
            self.check_condition(condition, overlay)?;
        }
        Ok(())
    }

    fn check_condition(&self, condition: &Condition, overlay: &Overlay) -> Result<(), CommitError> {
        let holds = match condition {
            Condition::Ready(key) => {
                self.row(key, overlay)?.is_some_and(|row| row.status == ResourceStatus::Ready)
            }
            Condition::Childless { kind, parent } => self.children(kind, parent, 1, overlay)?.is_empty(),
            Condition::Children { kind, parent, children } => {
                let found = self.children(kind, parent, children.len().saturating_add(1), overlay)?;
                found.len() == children.len() && self.are_as_they_were(kind, children, &found, overlay)?
            }
            other => {
                let unknown = format!("this store cannot see whether it is so: {other}");
                return Err(CommitError::Unavailable(unknown.into()));
            }
        };
        if holds { Ok(()) } else { Err(Conflict::Condition(condition.clone()).into()) }
    }

    /// The ids of the children, in their order: the first so many, or a few more.
    fn children(
        &self,
        kind: &ResourceKind,
        parent: &ResourceId,
        most: usize,
        overlay: &Overlay,
    ) -> Result<BTreeSet<Vec<u8>>, StoreError> {
        let prefix = layout::by_parent_prefix(kind, parent);
        let written = || {
            let of_parent = overlay.values.iter();
            of_parent.filter(|((table, key), _)| *table == Table::ByParent && key.starts_with(&prefix))
        };
        let gone = written().filter(|(_, value)| value.is_none()).count();
        let limit = most.saturating_add(gone);
        let stored = self.kv.scan(Table::ByParent, &KeyRange::prefix(&prefix), Direction::Forward, limit)?;
        let id = |key: &[u8]| key.get(prefix.len()..).unwrap_or_default().to_vec();
        let mut children: BTreeSet<_> = stored.iter().map(|(key, _)| id(key)).collect();
        for ((_, key), value) in written() {
            if value.is_some() {
                children.insert(id(key))
            } else {
                children.remove(&id(key))
            };
        }
        Ok(children)
    }

    /// Whether those that were found are the ones that are meant, each with the revision that it had.
    fn are_as_they_were(
        &self,
        kind: &ResourceKind,
        children: &[(ResourceId, Revision)],
        found: &BTreeSet<Vec<u8>>,
        overlay: &Overlay,
    ) -> Result<bool, StoreError> {
        for ((id, revision), found) in children.iter().zip(found) {
            if id.as_str().as_bytes() != found {
                return Ok(false);
            }
            let row = self.row(&ResourceKey { kind: kind.clone(), id: id.clone() }, overlay)?;
            if row.is_none_or(|row| row.revision != *revision) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// References go with a resource that the operation holds: it is unfinished then, and alone.
    fn check_holder(&self, holder: &Holder, overlay: &Overlay) -> Result<(), CommitError> {
        self.check_fence(holder.fence)?;
        let row = self.row(&holder.resource, overlay)?;
        let held_by = row.as_ref().and_then(|row| row.operation);
        if held_by == Some(holder.operation) {
            return Ok(());
        }
        let key = holder.resource.clone();
        Err(Conflict::Resource { key, holder: held_by, exists: row.is_some() }.into())
    }

    fn check_dropper(&self, drop_some: &DropSome, overlay: &Overlay) -> Result<(), CommitError> {
        let DropSome { holder, condition, .. } = drop_some;
        if *condition == DropIf::Held {
            return self.check_holder(holder, overlay);
        }
        self.check_fence(holder.fence)?;
        match self.row(&holder.resource, overlay)? {
            None => Ok(()),
            Some(row) => {
                let (key, holder) = (holder.resource.clone(), row.operation);
                Err(Conflict::Resource { key, holder, exists: true }.into())
            }
        }
    }

    fn row(&self, key: &ResourceKey, overlay: &Overlay) -> Result<Option<Row>, StoreError> {
        let bytes = self.value(Table::Resources, &layout::resource(key), overlay)?;
        bytes.map(|bytes| read::checked_row(key, bytes)).transpose()
    }

    fn check_row(&self, write: &RowWrite, overlay: &Overlay) -> Result<(), CommitError> {
        let stored = self.row(&write.key, overlay)?;
        let found = stored.as_ref().map(|row| row.revision);
        let holder = stored.as_ref().and_then(|row| row.operation);
        if found == write.expect && holder == write.holder {
            return Ok(());
        }
        Err(Conflict::Resource { key: write.key.clone(), holder, exists: stored.is_some() }.into())
    }

    fn value(&self, table: Table, key: &[u8], overlay: &Overlay) -> Result<Option<Vec<u8>>, StoreError> {
        match overlay.values.get(&(table, key.to_vec())) {
            Some(value) => Ok(value.clone()),
            None => Ok(self.kv.get(table, key)?),
        }
    }

    fn read_tip(&self, id: OperationId) -> Result<Tip, StoreError> {
        Ok(match read::tip(self.kv.as_ref(), id)? {
            None => Tip::Absent,
            Some(read::StoredTip::Active(revision)) => Tip::At(revision),
            Some(read::StoredTip::Done) => Tip::Done,
        })
    }

    fn take_over(&mut self) -> Result<Fence, StoreError> {
        self.ensure_open().map_err(StoreError::Unavailable)?;
        let next = Fence(self.fence.0 + 1);
        let bytes =
            record::encode_number(next.0).map_err(|error| StoreError::unreadable("the epoch", error))?;
        let mut batch = Batch::default();
        batch.put(Table::Meta, layout::META_EPOCH.to_vec(), bytes);
        // Even if the write fails: an epoch is never handed out twice, and the old owner stays out.
        self.fence = next;
        self.apply(&batch)?;
        Ok(next)
    }

    fn purge(&mut self, fence: Fence, purge: &Purge) -> Result<Purged, CommitError> {
        self.check_fence(fence)?;
        self.ensure_open().map_err(CommitError::Unavailable)?;
        let (batch, purged) = read::purge(self.kv.as_ref(), purge)?;
        if !batch.writes.is_empty() {
            self.apply(&batch).map_err(|error| Failure::of(error).error())?;
        }
        Ok(purged)
    }
}

impl Overlay {
    fn add_turn(&mut self, prepared: Prepared) {
        let tip = if prepared.done { Tip::Done } else { Tip::At(prepared.revision) };
        self.tips.insert(prepared.id, tip);
        self.add(prepared.batch);
    }

    fn add(&mut self, batch: Batch) {
        self.bytes += batch.byte_len();
        for write in &batch.writes {
            let is_looked_up = matches!(
                write.table,
                Table::Resources | Table::ByParent | Table::Idempotency | Table::References | Table::Items
            );
            if is_looked_up {
                self.values.insert((write.table, write.key.clone()), write.value.clone());
            }
        }
        self.batch.writes.extend(batch.writes);
    }
}

impl Work {
    /// Bytes that it writes, at most.
    fn byte_len_max(&self, bytes_max: usize) -> usize {
        match self {
            Self::Turn(prepared, _) => prepared.batch.byte_len(),
            Self::Take(take, _) => take.byte_len_max(),
            Self::Confirm(confirm, _) => confirm.byte_len_max(),
            Self::Unconfirm(unconfirm, _) => unconfirm.byte_len_max(),
            Self::Drop(drop_some, _) => drop_some.byte_len_max(bytes_max),
            Self::Forget(_, orphans, _) => orphans.iter().map(|orphan| layout::orphan(orphan).len()).sum(),
        }
    }

    /// Whether it reads what others in the batch may write, without asking the batch, and so can follow nothing in it.
    const fn scans(&self) -> bool {
        matches!(self, Self::Drop(..))
    }

    fn refuse(self, error: CommitError) -> Answer {
        match self {
            Self::Turn(_, reply)
            | Self::Confirm(_, reply)
            | Self::Unconfirm(_, reply)
            | Self::Forget(_, _, reply) => Answer::Done(reply, Err(error)),
            Self::Take(_, reply) => Answer::Taken(reply, Err(error)),
            Self::Drop(_, reply) => Answer::Dropped(reply, Err(error)),
        }
    }
}

impl Answer {
    /// Tells the answer, or that the batch it was in failed.
    fn tell(self, failure: Option<&Failure>) {
        fn tell<T>(reply: Reply<T>, answer: Result<T, CommitError>, failure: Option<&Failure>) {
            // A caller that has gone away does not need the answer.
            _ = reply.send(failure.map_or(answer, |failure| Err(failure.error())));
        }
        match self {
            Self::Done(reply, answer) => tell(reply, answer, failure),
            Self::Taken(reply, answer) => tell(reply, answer, failure),
            Self::Dropped(reply, answer) => tell(reply, answer, failure),
        }
    }
}

/// A failed write, to be told to every caller whose commit was in it.
enum Failure {
    NotApplied(SharedCause),
    Unknown(SharedCause),
    Corrupt(SharedCause),
}

impl Failure {
    fn of(error: KvError) -> Self {
        match error {
            KvError::NotApplied(cause) => Self::NotApplied(SharedCause::new(cause)),
            KvError::Unknown(cause) => Self::Unknown(SharedCause::new(cause)),
            KvError::Corrupt(cause) => Self::Corrupt(SharedCause::new(cause)),
        }
    }

    fn error(&self) -> CommitError {
        match self {
            Self::NotApplied(cause) => CommitError::Unavailable(cause.boxed()),
            Self::Unknown(cause) => CommitError::Unknown(cause.boxed()),
            Self::Corrupt(cause) => CommitError::Unreadable(StoreError::Corrupt {
                subject: "the store".to_owned(),
                cause: cause.boxed(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use longrun_core::{IdPrefix, Timestamp};

    use super::*;
    use crate::memory::MemoryKv;

    #[test]
    #[cfg_attr(miri, ignore = "65,536 entries take it minutes")]
    fn l07_the_memory_of_revisions_is_bounded_and_what_is_done_leaves_it() {
        let committer =
            || Committer::new(Arc::new(MemoryKv::new()), Arc::new(Gate::new()), Fence(0), REOPEN_WAIT);
        let prefix = IdPrefix::new("opr").unwrap();
        let id = |n: usize| OperationId::generate(prefix, Timestamp::UNIX_EPOCH, n as u64);
        let tips = |numbers: std::ops::Range<usize>, tip: Tip| numbers.map(|n| (id(n), tip)).collect();
        let at = Tip::At(Revision(1));

        let mut all = committer();
        all.remember(tips(0..TIPS_MAX, at));
        assert_eq!(all.tips.len(), TIPS_MAX, "as many as there may be");
        all.remember(tips(TIPS_MAX..TIPS_MAX + 1, at));
        assert_eq!(all.tips.len(), 1, "emptied, and filled again with what is newest");

        let mut some = committer();
        some.remember(tips(0..3, at));
        some.remember(tips(1..2, Tip::Done));
        assert_eq!(some.tips.get(&id(1)), None);
        assert_eq!((some.tips.len(), some.tips.get(&id(2))), (2, Some(&at)));
    }
}
