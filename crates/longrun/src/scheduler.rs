//! The scheduler: takes up what is due, oldest first, as far as there is room, and removes what is no longer kept.
//!
//! Recovery is nothing special. Every unfinished operation has one place in the store's order of due work; after a start
//! the scheduler walks it as it always does. What runs already, and what is held, is passed over.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use longrun_core::limits::DURATION_MILLIS_MAX;
use longrun_core::{Fence, OperationId, Timestamp};
use longrun_store::{Claimed, Cluster, CommitError, Due, Purge, Purged, Store, StoreError, Wanted};
use tokio::time::Instant;
use tracing::Instrument;

use crate::driver::{self, Lease};
use crate::engine::{Held, Inner, LoadError, load_to_run, lock};
use crate::node::Again;
use crate::registry::Registry;

/// Operations taken from the order of due work at once.
const LOOK: usize = 256;
/// Operations removed in one commit.
const SWEEP: usize = 500;
/// How long a pass over what is due goes on where it rested, before another begins with what has come to the front meanwhile: a
/// backlog may have no end.
const WALK_TIME: Duration = Duration::from_secs(1);
/// How often to look for what other nodes have left, unless there is a hint before.
const POLL: Duration = Duration::from_secs(1);
/// Wait after the store could not be asked.
const STORE_WAIT: Duration = Duration::from_secs(1);

/// Runs until the engine stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    while !inner.is_shutting_down() {
        if AssertUnwindSafe(rounds(&inner)).catch_unwind().await.is_err() {
            // Nothing would be taken up any more. What it was about to do it finds by looking anew.
            tracing::error!("the scheduler panicked and begins anew");
            metrics::counter!("longrun_scheduler_panics_total").increment(1);
            _ = tokio::time::timeout(STORE_WAIT, inner.shutting_down.wait()).await;
            inner.slots.note_work();
        }
    }
}

/// So long from now; in the far future if no clock goes that far.
fn from_now(wait: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wait).unwrap_or_else(|| now + Duration::from_millis(DURATION_MILLIS_MAX))
}

async fn rounds(inner: &Arc<Inner>) {
    let mut next_sweep = from_now(inner.settings.sweep_every);
    let mut walk = None;
    while !inner.is_shutting_down() {
        let changed = inner.slots.changed.notified();
        let looked = look(inner, &mut walk).await;
        if let Err(error) = &looked {
            tracing::warn!(error = longrun_core::with_causes(error), "the order of due work cannot be read");
        }
        let wait = match inner.slots.next_due() {
            _ if looked.is_err() => Some(STORE_WAIT),
            // A backlog waits for a slot, not for the time.
            _ if inner.slots.has_backlog() => None,
            // Another node may leave something at any time.
            at if inner.cluster().is_some() => Some(at.map_or(POLL, |at| at.since(inner.now()).min(POLL))),
            // Look at the clock again every minute: it may have been set.
            at => at.map(|at| at.since(inner.now()).min(Duration::from_secs(60))),
        };
        let due = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        // `changed` comes last: an engine that is never quiet has to look at the clock too.
        tokio::select! {
            biased;
            () = inner.shutting_down.wait() => break,
            () = due => if inner.cluster().is_some() { inner.slots.note_hint() } else { inner.slots.note_work() },
            () = tokio::time::sleep_until(next_sweep) => {
                next_sweep = from_now(inner.settings.sweep_every);
                match sweep_some(inner).await {
                    // The rest has its turn when the backlog has had its own.
                    Ok((_, true)) => next_sweep = Instant::now(),
                    Ok(_) => {
                        if let Err(error) = count_anew(inner).await {
                            let error = longrun_core::with_causes(&error);
                            tracing::warn!(error, "unfinished operations could not be counted");
                        }
                    }
                    Err(error) => {
                        let error = longrun_core::with_causes(&error);
                        tracing::warn!(error, "old operations could not be removed");
                    }
                }
            }
            () = changed => {}
        }
    }
}

/// Takes up what is due, as far as there is room.
async fn look(inner: &Arc<Inner>, walk: &mut Option<Walk>) -> Result<(), StoreError> {
    if let Some(cluster) = inner.cluster() {
        while inner.slots.has_backlog() && claim(inner, cluster).await? {}
        return Ok(());
    }
    while inner.slots.has_backlog() && inner.slots.free() > 0 && !inner.is_shutting_down() {
        let mut current = match walk.take() {
            Some(current) if current.began.elapsed() < WALK_TIME => current,
            _ => Walk::begin(inner),
        };
        if !current.go_on(inner).await? {
            *walk = Some(current);
            return Ok(());
        }
    }
    Ok(())
}

/// Takes up what no node works on, as far as there is room. True when there may be more, and room for it.
async fn claim(inner: &Arc<Inner>, cluster: &dyn Cluster) -> Result<bool, StoreError> {
    // Before the slots, which others can use while it waits.
    let census = inner.node.census().await;
    let room = Room { inner, slots: inner.slots.take_some(LOOK) };
    if room.slots == 0 || inner.is_shutting_down() {
        inner.slots.note_no_room();
        return Ok(false);
    }
    inner.slots.begin_look();
    let until = inner.now();
    let wanted = Wanted {
        until,
        limit: room.slots,
        kinds: Some(inner.registry.kinds.keys().cloned().collect()),
        except: lock(&inner.held).keys().copied().collect(),
    };
    let limit = room.slots;
    // A store that does not answer at all is away. Who does not get the answer may have got the operations.
    let claimed = tokio::time::timeout(cluster.lease(), cluster.claim(inner.fence, &wanted)).await;
    let silent = |_| Err(StoreError::Unavailable("the store does not answer".into()));
    let claimed = claimed.unwrap_or_else(silent).inspect_err(|_| inner.node.doubt())?;
    let more = claimed.len() >= limit;
    claimed.into_iter().fold(room, |room, claimed| room.fill(claimed));
    drop(census);
    if more {
        inner.slots.note_no_room();
        return Ok(true);
    }
    inner.slots.end_look_with_room(cluster.next_due(until).await?);
    Ok(false)
}

/// Slots that the scheduler has taken and not yet filled.
struct Room<'a> {
    inner: &'a Arc<Inner>,
    slots: usize,
}

impl Room<'_> {
    fn fill(mut self, claimed: Claimed) -> Self {
        let Claimed { due: Due { id, .. }, fence } = claimed;
        if !take_up(self.inner, id, fence, &mut self.slots) {
            // A command is at it, or a driver that has lost it and does not know. When that is gone, it will be said.
            self.inner.running.abort_before(id, fence);
            self.inner.give_back(id, fence, Again::Unsaid);
        }
        self
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.inner.slots.put_back(self.slots);
    }
}

/// One pass over what is due, oldest first. It rests where the room was used up.
///
/// To begin anew each time would pass over all that was taken up before: it runs still, or it has left a mark of its removal
/// with those stores that remove by marks, which is many times the work of taking up the next.
struct Walk {
    began: Instant,
    now: Timestamp,
    until: Timestamp,
    after: Option<Due>,
    /// Found, and not looked at.
    ahead: VecDeque<Due>,
    /// When the first that has to wait is due.
    waits: Option<Timestamp>,
    /// When the newest that can begin at once was accepted, of those after `now`.
    newest_seen: Timestamp,
}

impl Walk {
    fn begin(inner: &Inner) -> Self {
        // A clock that was set back shows less than the places of those that can begin at once. What waits there for a time
        // that the clock has not reached goes on waiting.
        let (newest, now) = (inner.slots.begin_look(), inner.now());
        Self {
            began: Instant::now(),
            now,
            until: newest.max(now),
            after: None,
            ahead: VecDeque::new(),
            waits: None,
            newest_seen: Timestamp::MIN,
        }
    }

    /// Goes on to the end. False when the room was used up before.
    async fn go_on(&mut self, inner: &Arc<Inner>) -> Result<bool, StoreError> {
        loop {
            if !self.take_up(inner) {
                return Ok(false);
            }
            // What runs is in the way: the oldest are usually those that run.
            let found = inner.store.due(self.until, self.after, LOOK + inner.running.len()).await?;
            let Some(last) = found.last() else { break };
            self.after = Some(*last);
            self.ahead.extend(found);
        }
        if self.waits.is_none() {
            self.waits = first_after(inner, self.until).await?;
        }
        // Unless the clock was set back behind what was passed.
        let newest = (inner.now() >= self.now).then_some(self.newest_seen);
        inner.slots.end_look(self.waits, newest);
        Ok(true)
    }

    /// Takes up those that were found. False when the room was used up before.
    fn take_up(&mut self, inner: &Arc<Inner>) -> bool {
        let now = inner.now();
        while let Some(due) = self.ahead.front() {
            if due.at > now && due.is_at_once() {
                self.newest_seen = due.at;
            }
            if !inner.is_in_hand(due.id) {
                if due.at > now && !due.is_at_once() {
                    self.waits = self.waits.or(Some(due.at));
                } else if inner.slots.take() {
                    if !take_up(inner, due.id, inner.fence, &mut 1) {
                        inner.slots.give_back();
                    }
                } else {
                    return false;
                }
            }
            self.ahead.pop_front();
        }
        true
    }
}

/// When the first operation that waits is due.
async fn first_after(inner: &Arc<Inner>, until: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let last = OperationId::parse("zzzvvvvvvvvvvvvvvvvv").ok().map(|id| Due { at: until, id });
    let next = inner.store.due(Timestamp::MAX, last, 1).await?;
    Ok(next.first().map(|due| due.at))
}

/// Starts a driver for an operation that is in the store, in one of these slots. False when something else is at it.
fn take_up(inner: &Arc<Inner>, id: OperationId, fence: Fence, slots: &mut usize) -> bool {
    let Some((entry, inbox)) = inner.running.enter(id, Some(fence)) else { return false };
    entry.own();
    *slots -= 1;
    let lease = Lease::new(Arc::clone(inner), Some((id, fence)));
    let span = tracing::info_span!("operation", %id);
    let task = {
        let (inner, entry) = (Arc::clone(inner), Arc::clone(&entry));
        async move {
            let due = driver::guard(&inner, id, driver::take_up(&inner, &entry, id, inbox)).await;
            lease.end(due);
        }
    };
    entry.set_task(inner.tasks.token().spawn(task.instrument(span)));
    true
}

/// What a former engine left.
pub(crate) struct Left {
    /// Operations, for the limit on those that are unfinished.
    pub(crate) unfinished: u64,
    /// When the newest of those that can begin at once was accepted.
    pub(crate) newest: Timestamp,
}

pub(crate) async fn look_at_what_is_left(store: &dyn Store) -> Result<Left, StoreError> {
    if let Some(cluster) = store.cluster() {
        return Ok(Left { unfinished: cluster.unfinished().await?, newest: Timestamp::MIN });
    }
    let (mut left, mut after) = (Left { unfinished: 0, newest: Timestamp::MIN }, None);
    loop {
        let found = store.due(Timestamp::MAX, after, 1000).await?;
        left.unfinished += found.len() as u64;
        left.newest =
            found.iter().filter(|due| due.is_at_once()).map(|due| due.at).fold(left.newest, Timestamp::max);
        after = found.last().copied();
        if found.len() < 1000 {
            return Ok(left);
        }
    }
}

/// Lists the unfinished operations that this build cannot finish.
pub(crate) async fn preflight(store: &dyn Store, registry: &Registry) -> Result<Vec<Held>, StoreError> {
    let mut held = Vec::new();
    let mut after = None;
    loop {
        let found = store.due(Timestamp::MAX, after, LOOK).await?;
        let Some(last) = found.last().copied() else { return Ok(held) };
        for Due { id, .. } in found {
            match load_to_run(store, registry, id).await {
                Ok(_) => {}
                Err(LoadError::Hold(reason)) => held.push(Held { operation: id, reason }),
                Err(LoadError::Unavailable(error)) => return Err(error),
            }
        }
        after = Some(last);
    }
}

/// Removes done operations and idempotency keys that are no longer kept (C20).
pub(crate) async fn sweep(inner: &Arc<Inner>) -> Result<usize, CommitError> {
    let mut removed = 0;
    loop {
        let (some, more) = sweep_some(inner).await?;
        removed += some;
        if !more {
            return Ok(removed);
        }
    }
}

/// One commit of [`sweep`]: gives the number of operations that it removed, and whether there is more to remove.
async fn sweep_some(inner: &Arc<Inner>) -> Result<(usize, bool), CommitError> {
    let purged = purge(inner, None, inner.now().saturating_sub(inner.settings.retention)).await?;
    if purged.unreadable > 0 {
        tracing::warn!(operations = purged.unreadable, "old operations cannot be read and stay");
    }
    Ok((purged.operations, purged.more && (purged.operations > 0 || purged.keys > 0)))
}

/// Removes, in one commit, operations that were done until a time, and idempotency keys that have expired. With `only`, of the
/// operations only that one, whatever the retention says.
///
/// An engine that learns by it that it is not the owner any more loses its store.
pub(crate) async fn purge(
    inner: &Arc<Inner>,
    only: Option<OperationId>,
    done_until: Timestamp,
) -> Result<Purged, CommitError> {
    let now = inner.now();
    let keys_expire_at = now.saturating_add(inner.settings.key_retention);
    let purge = Purge { only, done_until, keys_expire_at, now, limit: SWEEP };
    inner.store.purge(inner.fence, purge).await.map_err(|error| inner.unless_fenced_off(error))
}

/// Counts what is unfinished, where others add to it, and forgets what is held of which others have seen the end.
async fn count_anew(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let Some(cluster) = inner.cluster() else { return Ok(()) };
    inner.unfinished.store(cluster.unfinished().await?, Ordering::SeqCst);
    let held: Vec<_> = lock(&inner.held).keys().copied().collect();
    for id in held {
        match inner.store.load(id).await {
            Ok(Some(execution)) if !execution.is_done() => {}
            Ok(_) => _ = inner.unhold(id),
            // What is damaged stays.
            Err(StoreError::Unavailable(cause)) => return Err(StoreError::Unavailable(cause)),
            Err(_) => {}
        }
    }
    Ok(())
}
