//! [`Engine`]: the handle that services hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longrun_core::{Caller, Command, Execution, Fence, Operation, OperationId, Phase, Timestamp, Verb};
use longrun_store::{Commit, CommitError, Conflict, PageTokens, Store, StoreError, StoreId};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tracing::Instrument;

use crate::builder::{EngineBuilder, Settings};
use crate::driver::{Message, STORE_BACKOFF};
use crate::environment::Environment;
use crate::error::{CommandError, ReadError, Stops};
use crate::node::Node;
use crate::registry::{HoldReason, Registry};
use crate::running::{Entry, Running, Shown, Slots};
use crate::scheduler::{self, Left};
use crate::signal::Signal;
use crate::tasks::{Tasks, Token};
use crate::turns::Turns;
use crate::waiters::Waiters;

/// An engine: accepts operations, runs them, and answers about them. Cheap to clone.
///
/// When the last handle is dropped, everything that runs stops where it stands, as it would in a crash, and is taken up
/// by the next engine on the same store. [`shutdown`](Self::shutdown) is the gentle way.
///
/// Where several engines share a store, each is a node of it and answers for all: any of them shows, cancels and waits for what
/// another runs. What a node leaves others take up: at once when it was shut down, and when its lease has run out otherwise.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
    _stop: Arc<StopOnDrop>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("store", &self.inner.store).field("fence", &self.inner.fence).finish()
    }
}

/// What all tasks of an engine share.
pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) registry: Registry,
    pub(crate) settings: Settings,
    pub(crate) fence: Fence,
    pub(crate) running: Running,
    pub(crate) slots: Slots,
    pub(crate) waiters: Waiters,
    pub(crate) held: Mutex<BTreeMap<OperationId, HoldReason>>,
    /// Operations that are unfinished, those included that are about to be accepted.
    pub(crate) unfinished: AtomicU64,
    /// Operations that are counted as unfinished and may not be, because a commit had an unknown outcome and the store
    /// could not be asked. For each a task finds out.
    unsettled: Mutex<BTreeSet<OperationId>>,
    /// Operations that could not be read a moment ago. Where engines share the store they are given back instead.
    unreadable: Mutex<BTreeSet<OperationId>>,
    /// Room for requests that are being accepted.
    pub(crate) accepting: Arc<Semaphore>,
    pub(crate) fenced: AtomicBool,
    pub(crate) shutting_down: Signal,
    pub(crate) tasks: Tasks,
    pub(crate) tokens: PageTokens,
    pub(crate) turns: Arc<Turns>,
    pub(crate) node: Node,
}

/// Of the grace of a shutdown the time, at most, that a node has to tell the store that it goes.
const PARTING: Duration = Duration::from_secs(1);

struct StopOnDrop(Arc<Inner>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.shutting_down.give();
        self.0.slots.close();
        self.0.running.abort_all();
        self.0.node.abort();
    }
}

/// An operation that this build cannot work on. It is kept as it is; others go on (C18).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The operation.
    pub operation: OperationId,
    /// Why.
    pub reason: HoldReason,
}

impl Engine {
    /// Starts to build an engine on a store.
    pub fn builder(store: impl Store) -> EngineBuilder {
        EngineBuilder::new(Arc::new(store))
    }

    /// Starts to build an engine on a store that others hold too.
    pub fn builder_shared(store: Arc<dyn Store>) -> EngineBuilder {
        EngineBuilder::new(store)
    }

    pub(crate) fn start(
        runtime: Handle,
        store: Arc<dyn Store>,
        environment: Arc<dyn Environment>,
        registry: Registry,
        settings: Settings,
        fence: Fence,
        left: Left,
    ) -> Self {
        let store_is_shared = store.cluster().is_some();
        let inner = Arc::new(Inner {
            node: Node::new(Tasks::on(runtime.clone())),
            tokens: PageTokens::new(store.page_secret()),
            store,
            environment,
            registry,
            accepting: Arc::new(Semaphore::new(settings.accepting_max)),
            settings,
            fence,
            running: Running::default(),
            slots: Slots::new(settings.running_max, left.unfinished > 0 || store_is_shared, left.newest),
            waiters: Waiters::default(),
            held: Mutex::default(),
            unfinished: AtomicU64::new(left.unfinished),
            unsettled: Mutex::default(),
            unreadable: Mutex::default(),
            fenced: AtomicBool::new(false),
            shutting_down: Signal::default(),
            tasks: Tasks::on(runtime),
            turns: Arc::default(),
        });
        inner.tasks.token().spawn(scheduler::run(Arc::clone(&inner)));
        if store_is_shared {
            inner.node.start(&inner);
        }
        let stop = Arc::new(StopOnDrop(Arc::clone(&inner)));
        Self { inner, _stop: stop }
    }

    /// Which store this is an engine of.
    pub fn store_id(&self) -> StoreId {
        self.inner.store.id()
    }

    /// The epoch in which the engine owns the store: higher than that of every owner before it. What lies outside and belongs
    /// to the store can be marked with it, to tell a late or an older state of the store from the newest.
    ///
    /// Where engines share the store, it is the epoch in which this one came to it as a node: see
    /// [`store_epoch`](Self::store_epoch) for that of the store.
    pub fn fence(&self) -> Fence {
        self.inner.fence
    }

    /// The newest epoch of the store, as it is now: that of the engine that came last. Where a store has one owner, that is
    /// [this one](Self::fence), as far as it knows.
    pub async fn store_epoch(&self) -> Result<Fence, StoreError> {
        match self.inner.cluster() {
            Some(cluster) => cluster.epoch().await,
            None => Ok(self.inner.fence),
        }
    }

    /// The operation as it is now.
    pub async fn get(&self, id: OperationId) -> Result<Operation, ReadError> {
        self.inner.get(id).await
    }

    /// Waits until the operation is done, or until `timeout` is over, and gives it as it is then.
    ///
    /// It is told of the end, it does not ask for it; any number of callers may wait. Where engines share a store, an end at another
    /// node is told with the next hint, and without any when the lease is renewed.
    pub async fn wait(&self, id: OperationId, timeout: Duration) -> Result<Operation, ReadError> {
        // Registered before the first look, so that an end in between is not missed.
        let ended = self.inner.waiters.register(id);
        // Of one that a driver has nothing has to be read: it shows its end before it tells of it. If it ended at another node, that is
        // told when the lease is renewed, and those who wait look again.
        let known = match self.inner.running.shown(id) {
            Shown::Operation(operation) => Some(operation),
            Shown::Committing => None,
            Shown::Nothing => {
                if self.inner.cluster().is_some() {
                    self.inner.node.note_waiter();
                }
                Some(self.inner.get(id).await?)
            }
        };
        if let Some(operation) = known.filter(Operation::done) {
            return Ok(operation);
        }
        match tokio::time::timeout(timeout, ended.notified()).await {
            Ok(Some(operation)) => Ok(operation),
            _ => self.inner.get(id).await,
        }
    }

    /// Waits until the operation is done, however long that takes.
    pub async fn wait_done(&self, id: OperationId) -> Result<Operation, ReadError> {
        loop {
            let operation = self.wait(id, Duration::from_secs(60)).await?;
            if operation.done() {
                return Ok(operation);
            }
        }
    }

    /// Cancels an operation: it is undone, and then done with error CANCELLED (C13).
    ///
    /// The answer shows the operation as it is. It is unchanged when it was done, was rolling back already, or had passed
    /// its point of no return. Durable when it returns. A caller that goes away in between leaves it cancelled or not, whole.
    pub async fn cancel(&self, id: OperationId, by: &Caller) -> Result<Operation, CommandError> {
        self.inner.command(id, Command::Cancel { by: by.clone() }).await
    }

    /// An operator's act on an operation that is blocked. It is recorded with who, when and why, for
    /// [`Operation::interventions`] to tell.
    ///
    /// [`Verb::RetryNow`] also takes up an operation that is [held](Self::held): this build tries again. Where engines share the
    /// store, each holds for itself: ask the one that is to try.
    pub async fn intervene(
        &self,
        id: OperationId,
        by: &Caller,
        verb: Verb,
        reason: &str,
    ) -> Result<Operation, CommandError> {
        self.inner.command(id, Command::Intervene { by: by.clone(), verb, reason: reason.to_owned() }).await
    }

    /// Operations that this build cannot work on, as far as they were met (C18). One that is done, or that goes on since
    /// an operator had it tried again, is no longer held. Where engines share the store, they are left to other nodes, and one
    /// that ended there is no longer held from the next sweep on.
    pub fn held(&self) -> Vec<Held> {
        let held = lock(&self.inner.held);
        held.iter().map(|(&operation, reason)| Held { operation, reason: reason.clone() }).collect()
    }

    /// How many operations are unfinished: the count that [`unfinished_max`](EngineBuilder::unfinished_max) limits. It includes those
    /// about to be accepted, and those whose first commit was not answered, until it is known whether they are there. Where engines
    /// share the store, each sweep counts anew.
    pub fn unfinished(&self) -> u64 {
        self.inner.unfinished.load(Ordering::SeqCst)
    }

    /// Looks at every unfinished operation and lists those that this build cannot finish or cannot undo. Changes
    /// nothing. For use before a new version takes over.
    pub async fn preflight(&self) -> Result<Vec<Held>, ReadError> {
        let Inner { store, registry, .. } = &*self.inner;
        scheduler::preflight(store.as_ref(), registry).await.map_err(ReadError::Store)
    }

    /// Removes what is no longer kept now, instead of with the next sweep. Gives the number of operations removed.
    pub async fn sweep(&self) -> Result<usize, CommandError> {
        let _token = self.inner.begin_write()?;
        scheduler::sweep(&self.inner).await.map_err(|error| match error {
            CommitError::Fenced { .. } => CommandError::Fenced,
            error => CommandError::Store(error),
        })
    }

    /// Removes one done operation from the record now, instead of when its retention is over (C20). Its idempotency key goes on
    /// being known for its own time (C15). One that is not done is refused, and stays.
    pub async fn forget(&self, id: OperationId) -> Result<(), CommandError> {
        let operation = self.inner.find(id).await?.ok_or(CommandError::NotFound(id))?;
        if !operation.done() {
            return Err(CommandError::NotDone(id));
        }
        let _token = self.inner.begin_write()?;
        let purged = scheduler::purge(&self.inner, Some(id), operation.modified_at()).await;
        match purged {
            // Of two that forget it, one finds nothing more to do.
            Ok(_) => Ok(()),
            Err(CommitError::Fenced { .. }) => Err(CommandError::Fenced),
            Err(error) => Err(CommandError::Store(error)),
        }
    }

    /// Stops: takes no more work, lets what runs come to an end within `grace`, and leaves the rest to the next start.
    /// Returns within `grace`, whatever the steps do. True when nothing had to be left: then no task of the engine holds
    /// the store any more, and none of its handles writes to it.
    ///
    /// A step that is told to stop and ends in time, or is dropped after the grace of its own policy, is run again after the
    /// next start as if nothing had been. One that is still on when `grace` is over counts as interrupted, as in a crash.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        self.inner.shutting_down.give();
        self.inner.slots.close();
        let began = Instant::now();
        // A node has something to say at the end.
        let is_node = self.inner.cluster().is_some();
        let parting = if is_node { (grace / 5).min(PARTING) } else { Duration::ZERO };
        let ended = tokio::time::timeout(grace - parting, self.inner.tasks.all_ended()).await.is_ok();
        self.inner.running.abort_all();
        if !is_node {
            return ended;
        }
        let left = self.inner.node.leave(grace.saturating_sub(began.elapsed())).await;
        ended && left
    }
}

impl Inner {
    pub(crate) fn now(&self) -> Timestamp {
        self.environment.now()
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.is_given()
    }

    /// Leave to write to the store while the token is held. It is counted before the look at whether the engine stops: of
    /// a shutdown and of what begins now, one sees the other.
    pub(crate) fn begin_write(&self) -> Result<Token, Stops> {
        let token = self.tasks.token();
        if self.fenced.load(Ordering::SeqCst) {
            return Err(Stops::Fenced);
        }
        if self.is_shutting_down() { Err(Stops::ShuttingDown) } else { Ok(token) }
    }

    /// This engine has lost the store to another: nothing it does from now on would be stored.
    pub(crate) fn lose(&self) {
        if !self.fenced.swap(true, Ordering::SeqCst) {
            tracing::error!(fence = %self.fence, "another engine has taken the store over, stopping");
            self.shutting_down.give();
            self.slots.close();
        }
    }

    /// Keeps an operation as it is, and says why.
    pub(crate) fn hold(&self, id: OperationId, reason: HoldReason) {
        tracing::error!(operation = %id, %reason, "the operation is held");
        metrics::counter!("longrun_operations_held_total").increment(1);
        lock(&self.held).insert(id, reason);
    }

    pub(crate) fn unhold(&self, id: OperationId) -> bool {
        lock(&self.held).remove(&id).is_some()
    }

    /// Whether the operation is done, or is there at all, has to be found out when the store can be asked. It counts as
    /// unfinished until then.
    pub(crate) fn unsettle(self: &Arc<Self>, id: OperationId) {
        lock(&self.unsettled).insert(id);
        self.slots.note_work_on(id);
        let task = Arc::clone(self).find_out(id);
        self.tasks.token().spawn(task.in_current_span());
    }

    /// Leaves an operation alone that could not be read, until the scheduler looks at all of them again. That waits for no time of the
    /// wall clock, which may be set back meanwhile.
    pub(crate) fn look_again_later(self: &Arc<Self>, id: OperationId) {
        let mut unreadable = lock(&self.unreadable);
        let is_first = unreadable.is_empty();
        unreadable.insert(id);
        drop(unreadable);
        if !is_first {
            return;
        }
        let inner = Arc::clone(self);
        self.tasks.token().spawn(async move {
            tokio::select! {
                biased;
                () = inner.shutting_down.wait() => {}
                () = tokio::time::sleep(STORE_BACKOFF.longest) => {
                    let unreadable = std::mem::take(&mut *lock(&inner.unreadable));
                    unreadable.into_iter().for_each(|id| inner.slots.note_work_on(id));
                }
            }
        });
    }

    /// Whether the scheduler is to leave an operation alone: something is at it, it is held, or it could not be read a moment ago.
    pub(crate) fn is_in_hand(&self, id: OperationId) -> bool {
        self.running.contains(id)
            || lock(&self.held).contains_key(&id)
            || lock(&self.unreadable).contains(&id)
    }

    async fn find_out(self: Arc<Self>, id: OperationId) {
        let mut tries = 0;
        while lock(&self.unsettled).contains(&id) {
            tries += 1;
            tokio::select! {
                biased;
                () = self.shutting_down.wait() => return,
                () = tokio::time::sleep(STORE_BACKOFF.delay(tries, self.environment.random())) => {}
            }
            // Whoever works on it may be about to count its end.
            let Some(_alone) = Alone::with(&self, id) else { continue };
            match self.store.load(id).await {
                Err(StoreError::Unavailable(_)) => {}
                Ok(Some(execution)) if execution.is_done() => {
                    if self.settled(id) {
                        self.ended(&execution);
                    }
                }
                Ok(None) => {
                    if self.settled(id) {
                        self.one_less();
                    }
                }
                // It is there, and the scheduler comes to it.
                Ok(_) | Err(_) => _ = self.settled(id),
            }
        }
    }

    /// It is known what became of the operation. True when that was not known before.
    pub(crate) fn settled(&self, id: OperationId) -> bool {
        lock(&self.unsettled).remove(&id)
    }

    async fn get(&self, id: OperationId) -> Result<Operation, ReadError> {
        self.find(id).await?.ok_or(ReadError::NotFound(id))
    }

    /// The operation as it is now, if there is one.
    pub(crate) async fn find(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        // Of one that runs here another node may know more.
        if self.cluster().is_none()
            && let Some(operation) = self.running.operation(id)
        {
            return Ok(Some(self.with_progress(operation)));
        }
        let stored = self.store.load(id).await?;
        Ok(stored.map(|execution| self.with_progress(execution.into_operation())))
    }

    pub(crate) fn with_progress(&self, operation: Operation) -> Operation {
        if operation.phase() != Phase::Pending {
            return operation;
        }
        match self.running.progress(operation.id()) {
            Some(progress) => operation.with_progress(progress),
            None => operation,
        }
    }

    /// Gives a command to the operation: to its driver when it runs, else to the store.
    async fn command(self: &Arc<Self>, id: OperationId, command: Command) -> Result<Operation, CommandError> {
        loop {
            if self.fenced.load(Ordering::SeqCst) {
                return Err(CommandError::Fenced);
            }
            if let Some(inbox) = self.running.inbox(id) {
                let (reply, answer) = oneshot::channel();
                let sent = inbox.send(Message::Command { command: command.clone(), reply }).await.is_ok();
                if let (true, Ok(answer)) = (sent, answer.await) {
                    return answer;
                }
                // The driver has just ended: what it left is in the store.
                tokio::task::yield_now().await;
                continue;
            }
            let token = self.begin_write()?;
            let (reply, answer) = oneshot::channel();
            let (inner, command) = (Arc::clone(self), command.clone());
            // In a task of its own: a caller that goes away must not leave a commit whose outcome nobody looks at.
            let task = async move { _ = reply.send(inner.command_at_rest(id, &command).await) };
            token.spawn(task.in_current_span());
            let stopped = |_| CommandError::Store(CommitError::Unknown("the engine stopped".into()));
            if let Some(answer) = answer.await.map_err(stopped)?? {
                return Ok(answer);
            }
        }
    }

    /// Changes an operation that nothing runs. `None` when somebody else was at it: look again.
    async fn command_at_rest(
        self: &Arc<Self>,
        id: OperationId,
        command: &Command,
    ) -> Result<Option<Operation>, CommandError> {
        let Some(_alone) = Alone::with(self, id) else { return Ok(None) };
        let mut execution = self.store.load(id).await?.ok_or(CommandError::NotFound(id))?;
        let now = self.now();
        let mut events = Vec::new();
        execution.handle_at_rest(command, now, &mut events)?;
        if let Command::Intervene { by, verb: Verb::RetryNow, .. } = command
            && self.unhold(id)
        {
            tracing::info!(operation = %id, %by, "the operation is not held any more, an operator has it tried again");
        }
        if events.is_empty() {
            return Ok(Some(execution.operation()));
        }
        let revision = execution.revision();
        let sealed = execution.seal(events, now);
        let turn = sealed.map_err(|error| CommandError::Held(id, HoldReason::Engine(error.to_string())))?;
        // Who works on it is told, if that is another node.
        let commit = Commit::new(&execution, turn, self.fence).by_visitor();
        match self.store.commit(commit).await {
            Ok(()) => {}
            Err(CommitError::Conflict(Conflict::Operation { .. })) => return Ok(None),
            // Its rows are not as it left them: asking again would not help.
            Err(error @ CommitError::Conflict(_)) => {
                return Err(CommandError::Held(id, HoldReason::Unreadable(error.to_string())));
            }
            Err(error @ CommitError::Fenced { .. }) => {
                return Err(match self.unless_fenced_off(error) {
                    CommitError::Fenced { .. } => CommandError::Fenced,
                    error => CommandError::Store(error),
                });
            }
            Err(CommitError::Unknown(cause)) => match self.store.load(id).await {
                Ok(Some(stored)) if stored == execution => {
                    execution = stored;
                }
                // Others have written too: what became of ours does not show. To cancel twice is to cancel once.
                Ok(Some(stored)) if stored.revision() > revision => {
                    return match command {
                        Command::Cancel { .. } => Ok(None),
                        _ => Err(CommandError::Store(CommitError::Unknown(cause))),
                    };
                }
                Ok(_) => return Err(CommandError::Store(CommitError::Unavailable(cause))),
                Err(_) => {
                    self.unsettle(id);
                    return Err(CommandError::Store(CommitError::Unknown(cause)));
                }
            },
            Err(error) => return Err(CommandError::Store(error)),
        }
        if execution.is_done() {
            self.ended(&execution);
        }
        Ok(Some(execution.operation()))
    }

    /// Of those that are unfinished.
    pub(crate) fn one_less(&self) {
        _ = self.unfinished.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1));
    }

    /// An operation is done, and that is durable.
    pub(crate) fn ended(&self, execution: &Execution) {
        self.one_less();
        self.settled(execution.id());
        self.unhold(execution.id());
        let outcome = if execution.finished().is_some_and(|end| end.outcome.response().is_some()) {
            "response"
        } else {
            "error"
        };
        metrics::counter!("longrun_operations_done_total", "outcome" => outcome).increment(1);
        self.waiters.wake(execution.id(), || execution.operation());
    }

    /// Another node, or a caller there, has brought an operation to its end, and counted it.
    pub(crate) fn ended_elsewhere(&self, execution: &Execution) {
        self.settled(execution.id());
        self.unhold(execution.id());
        self.waiters.wake(execution.id(), || execution.operation());
    }

    /// Loads an operation and checks that this build can work on it.
    pub(crate) async fn load_to_run(&self, id: OperationId) -> Result<Option<Execution>, LoadError> {
        load_to_run(self.store.as_ref(), &self.registry, id).await
    }
}

/// The same for who has no engine.
pub(crate) async fn load_to_run(
    store: &dyn Store,
    registry: &Registry,
    id: OperationId,
) -> Result<Option<Execution>, LoadError> {
    let execution = match store.load(id).await {
        Ok(Some(execution)) => execution,
        Ok(None) => return Ok(None),
        Err(StoreError::Unavailable(cause)) => {
            return Err(LoadError::Unavailable(StoreError::Unavailable(cause)));
        }
        Err(error) => {
            return Err(LoadError::Hold(HoldReason::Unreadable(longrun_core::with_causes(&error))));
        }
    };
    if !execution.is_done() {
        registry.check(&execution).map_err(LoadError::Hold)?;
    }
    Ok(Some(execution))
}

/// Keeps drivers and other commands away from an operation that no driver works on, while a command changes it.
struct Alone {
    inner: Arc<Inner>,
    id: OperationId,
    /// Those who write to it wait until it is dropped, and then look again.
    _entered: (Arc<Entry>, mpsc::Receiver<Message>),
}

impl Alone {
    fn with(inner: &Arc<Inner>, id: OperationId) -> Option<Self> {
        let entered = inner.running.enter(id, None)?;
        Some(Self { inner: Arc::clone(inner), id, _entered: entered })
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.inner.running.leave(self.id);
        // It may be due now; or it was before, and was passed over meanwhile.
        self.inner.slots.note_work_on(self.id);
    }
}

pub(crate) enum LoadError {
    /// Not now.
    Unavailable(StoreError),
    /// Not with this build.
    Hold(HoldReason),
}

/// Locks what no panic leaves half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
