//! [`Node`]: an engine as one of several on a store that they share.
//!
//! One task keeps the lease, gives back what this engine does not work on any more, and hears what others did. What the engine
//! holds is for the store to say, by its own clock: here it is only known when there is reason to doubt it, and then the next
//! renewal says everything that the engine believes to hold, and the answer is believed.
//!
//! | what happened | what follows |
//! |---|---|
//! | an operation is lost | its driver is dropped where it stands; the operation is left to its new owner |
//! | a visitor changed one | its driver looks at the store again |
//! | one ended that somebody waits for | they look at the store |
//! | the store is away | nothing is lost by that alone: it is asked again, and then for everything |
//! | the lease had run out | as above: what others did not take goes on |

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longrun_core::{Fence, OperationId, Timestamp};
use longrun_store::{Asked, Cluster, CommitError, StoreError, Tidings};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::driver::STORE_BACKOFF;
use crate::engine::{Inner, lock};
use crate::signal::Signal;
use crate::tasks::Tasks;

/// Between two renewals while somebody waits for what runs elsewhere, unless the store gives a hint before.
const WAITING: Duration = Duration::from_millis(150);
/// Between two renewals at least, however many hints there are.
const QUIET: Duration = Duration::from_millis(20);

/// When the scheduler is to come back to an operation that is given back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Again {
    /// At once, if it is due.
    Now,
    /// When it is due.
    At(Timestamp),
    /// When something else says so.
    Unsaid,
}

/// What an engine has to see to as a node. Of no use where the store has one owner.
#[derive(Debug)]
pub(crate) struct Node {
    /// Operations to give back, and when the scheduler is to come back to them.
    back: Mutex<VecDeque<(OperationId, Fence, Again)>>,
    /// It may hold what it does not know, or not hold what it believes.
    doubt: AtomicBool,
    /// Somebody may wait for what does not run here.
    waited: AtomicBool,
    /// Wakes the task.
    changed: Notify,
    /// Taken by who takes operations from the store, and by who tells it which are held: none is overlooked in between.
    census: tokio::sync::Mutex<()>,
    /// Everything has ended: give back what is left, and leave.
    ending: Signal,
    /// The task that keeps the lease, which outlives all others.
    tasks: Tasks,
    task: Mutex<Option<AbortHandle>>,
}

impl Node {
    pub(crate) fn new(tasks: Tasks) -> Self {
        Self {
            back: Mutex::default(),
            doubt: AtomicBool::new(false),
            waited: AtomicBool::new(false),
            changed: Notify::new(),
            census: tokio::sync::Mutex::default(),
            ending: Signal::default(),
            tasks,
            task: Mutex::default(),
        }
    }

    /// Begins to keep the lease.
    pub(crate) fn start(&self, inner: &Arc<Inner>) {
        *lock(&self.task) = Some(self.tasks.token().spawn(run(Arc::clone(inner))));
    }

    /// The operation is not worked on any more.
    fn give_back(&self, id: OperationId, fence: Fence, again: Again) {
        lock(&self.back).push_back((id, fence, again));
        self.changed.notify_one();
    }

    /// What this engine holds has to be asked.
    pub(crate) fn doubt(&self) {
        self.doubt.store(true, Ordering::SeqCst);
        self.changed.notify_one();
    }

    /// Somebody waits for what does not run here.
    pub(crate) fn note_waiter(&self) {
        self.waited.store(true, Ordering::SeqCst);
        self.changed.notify_one();
    }

    pub(crate) async fn census(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.census.lock().await
    }

    /// Leaves, once everything has ended. True when the store knows.
    pub(crate) async fn leave(&self, within: Duration) -> bool {
        self.ending.give();
        let left = tokio::time::timeout(within, self.tasks.all_ended()).await.is_ok();
        self.abort();
        left
    }

    /// Ends without a word, as in a crash.
    pub(crate) fn abort(&self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

impl Inner {
    /// An operation is not worked on here any more.
    pub(crate) fn give_back(&self, id: OperationId, fence: Fence, again: Again) {
        self.node.give_back(id, fence, again);
        if self.waiters.is_awaited(id) {
            self.node.note_waiter();
        }
    }

    /// The store, if engines share it.
    pub(crate) fn cluster(&self) -> Option<&dyn Cluster> {
        self.store.cluster()
    }

    /// The store says that this engine is not what it takes itself for. Where it has one owner, that is another now; where
    /// engines share it, the node is not known any more, and becomes one again.
    pub(crate) fn is_fenced_off(&self) {
        if self.cluster().is_some() { self.node.doubt() } else { self.lose() }
    }

    /// What a node is told of something that is no turn of an operation: if it is not known any more, it becomes a node again.
    pub(crate) fn as_node(&self, error: CommitError) -> CommitError {
        if self.cluster().is_some() { self.unless_fenced_off(error) } else { error }
    }

    /// The same, and what to say to who asked for something that is no turn of an operation.
    pub(crate) fn unless_fenced_off(&self, error: CommitError) -> CommitError {
        let CommitError::Fenced { .. } = error else { return error };
        self.is_fenced_off();
        if self.cluster().is_some() { CommitError::Unavailable(Box::new(error)) } else { error }
    }
}

/// Keeps the lease until the engine ends.
async fn run(inner: Arc<Inner>) {
    let Some(cluster) = inner.cluster() else { return };
    let mut lease = Lease::new(&inner, cluster);
    while !inner.node.ending.is_given() {
        lease.give_back().await;
        let (now, at) = (Instant::now(), lease.next_at());
        if at <= now {
            lease.renew().await;
            continue;
        }
        let hint = async {
            tokio::time::sleep_until(lease.asked_at + QUIET).await;
            cluster.changed().await;
        };
        tokio::select! {
            biased;
            () = inner.node.ending.wait() => {}
            () = inner.node.changed.notified() => {}
            () = hint, if !lease.hinted && lease.failures == 0 => {
                inner.slots.note_hint();
                lease.hinted = true;
            }
            () = tokio::time::sleep_until(at) => {}
        }
    }
    lease.give_back().await;
    lease.leave().await;
}

/// A lease, as its node sees it: by a clock that only goes forward (S32).
struct Lease<'a> {
    inner: &'a Arc<Inner>,
    cluster: &'a dyn Cluster,
    length: Duration,
    /// When the last renewal began that succeeded.
    renewed_at: Instant,
    /// When the last renewal ended.
    asked_at: Instant,
    /// Renewals that failed since.
    failures: u32,
    /// How long to wait after the last of them.
    backoff: Duration,
    /// Tidings may have been lost: every driver has to look for itself.
    unheard: bool,
    /// Another node has written.
    hinted: bool,
    /// Giving back did not succeed, and is tried again then.
    back_at: Option<Instant>,
}

impl<'a> Lease<'a> {
    fn new(inner: &'a Arc<Inner>, cluster: &'a dyn Cluster) -> Self {
        let (now, length) = (Instant::now(), cluster.lease());
        Self {
            inner,
            cluster,
            length,
            renewed_at: now,
            asked_at: now,
            failures: 0,
            backoff: Duration::ZERO,
            unheard: false,
            hinted: false,
            back_at: None,
        }
    }

    /// Whether the store has to be asked what this node holds.
    fn doubts(&self) -> bool {
        self.inner.node.doubt.load(Ordering::SeqCst) || self.renewed_at.elapsed() >= self.length
    }

    /// When to renew.
    fn next_at(&self) -> Instant {
        if self.failures > 0 {
            return self.asked_at + self.backoff;
        }
        let regular = self.asked_at + self.length / 3;
        if self.hinted || self.inner.node.doubt.load(Ordering::SeqCst) {
            return self.asked_at + QUIET;
        }
        let at = if self.inner.node.waited.load(Ordering::SeqCst) {
            regular.min(self.asked_at + WAITING)
        } else {
            regular
        };
        self.back_at.map_or(at, |back| back.min(at))
    }

    /// Operations that somebody waits for and that do not run here.
    fn awaited(&self) -> Vec<OperationId> {
        self.inner.running.without(self.inner.waiters.awaited())
    }

    async fn renew(&mut self) {
        let inner = self.inner;
        let began = Instant::now();
        let doubts = self.doubts();
        let census = if doubts { Some(inner.node.census().await) } else { None };
        if doubts {
            // Before what is held is looked at: what comes to be doubted from here on is asked for once more.
            inner.node.doubt.store(false, Ordering::SeqCst);
        }
        let holds = doubts.then(|| inner.running.holds());
        // Before the look, so that who comes in between is not forgotten.
        inner.node.waited.store(false, Ordering::SeqCst);
        let asked = Asked { awaited: self.awaited(), holds: holds.clone() };
        inner.node.waited.fetch_or(!asked.awaited.is_empty(), Ordering::SeqCst);
        self.hinted = false;
        // A store that does not answer at all is away.
        let told = tokio::time::timeout(self.length, self.cluster.renew(inner.fence, &asked)).await;
        drop(census);
        self.asked_at = Instant::now();
        match told {
            Ok(Ok(tidings)) => {
                if self.failures > 0 {
                    tracing::info!("the store is back");
                }
                (self.renewed_at, self.failures) = (began, 0);
                self.hear(&tidings, &holds.unwrap_or_default(), doubts);
            }
            Ok(Err(error)) => self.failed(&longrun_core::with_causes(&error)),
            Err(_) => self.failed("the store does not answer"),
        }
    }

    fn failed(&mut self, error: &str) {
        self.failures += 1;
        self.backoff =
            STORE_BACKOFF.delay(self.failures, self.inner.environment.random()).min(self.length / 3);
        self.unheard = true;
        self.inner.node.doubt.store(true, Ordering::SeqCst);
        tracing::warn!(error, failures = self.failures, "the lease could not be renewed, trying again");
    }

    fn hear(&mut self, tidings: &Tidings, holds: &[(OperationId, Fence)], said: bool) {
        let inner = self.inner;
        if tidings.lapsed {
            tracing::warn!(node = %inner.fence, "the lease had run out");
            metrics::counter!("longrun_leases_lapsed_total").increment(1);
            if !said {
                inner.node.doubt();
            }
        }
        for id in &tidings.lost {
            let fence = holds.iter().find(|(held, _)| held == id).map(|(_, fence)| *fence);
            if fence.is_some_and(|fence| inner.running.abort(*id, fence)) {
                tracing::warn!(operation = %id, "the operation belongs to another node now, leaving it");
                metrics::counter!("longrun_operations_lost_total").increment(1);
            }
        }
        if std::mem::take(&mut self.unheard) {
            inner.running.holds().iter().for_each(|(id, _)| inner.running.look_again(*id));
        }
        tidings.changed.iter().for_each(|id| inner.running.look_again(*id));
        tidings.ended.iter().for_each(|id| inner.waiters.look(*id));
        if tidings.freed > 0 {
            inner.slots.note_hint();
        }
    }

    /// Gives back what is not worked on any more, and then has the scheduler come back to it: before, it could not be taken.
    async fn give_back(&mut self) {
        if self.back_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let back: Vec<_> = lock(&self.inner.node.back).drain(..).collect();
        self.back_at = None;
        if back.is_empty() {
            return;
        }
        let held: Vec<_> = back.iter().map(|(id, fence, _)| (*id, *fence)).collect();
        let released = tokio::time::timeout(self.length, self.cluster.release(&held)).await;
        let released =
            released.unwrap_or_else(|_| Err(StoreError::Unavailable("the store does not answer".into())));
        if let Err(error) = released {
            let error = longrun_core::with_causes(&error);
            tracing::warn!(error, "operations could not be given back, trying again");
            let mut waiting = lock(&self.inner.node.back);
            back.into_iter().rev().for_each(|one| waiting.push_front(one));
            self.back_at = Some(Instant::now() + STORE_BACKOFF.longest.min(self.length / 3));
            return;
        }
        for (id, _, again) in back {
            match again {
                Again::Now => self.inner.slots.note_work_on(id),
                Again::At(due) => self.inner.slots.note_due(due),
                Again::Unsaid => {}
            }
        }
    }

    async fn leave(&mut self) {
        while let Err(error) = self.cluster.leave(self.inner.fence).await {
            let error = longrun_core::with_causes(&error);
            tracing::warn!(error, "the node could not leave, trying again");
            self.failures += 1;
            tokio::time::sleep(STORE_BACKOFF.delay(self.failures, self.inner.environment.random())).await;
        }
    }
}
