//! Accepting operations.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use longrun_core::execution::AcceptError;
use longrun_core::{
    Acceptance, Caller, Claim, Condition, Execution, Header, IdPrefix, IdempotencyKey, Intent, Invalid, Json,
    KindName, Operation, OperationId, Payload, Plan, ResourceKey, Timestamp,
};
use longrun_store::{Commit, CommitError, Conflict, LedgerClaim, LedgerEntry, StoreError};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::Instrument;

use crate::driver::{self, Driver, Lease};
use crate::engine::{Engine, Inner};
use crate::error::SubmitError;
use crate::kind::{Kind, STRUCT_TYPE};
use crate::plan::PlanBuilder;
use crate::registry::{AnyKind, Draft as Sketch, fingerprint, key_digest};
use crate::tasks::Token;
use crate::turns::Turn;

/// How often a request is planned anew when its ids or its resources were taken by others in between.
const PLANS_MAX: usize = 5;

/// The same when children were added or changed by other nodes, with which it takes no turns.
const PLANS_BESIDE_OTHERS_MAX: usize = 20;

const fn plans_max(error: &SubmitError) -> usize {
    match error {
        SubmitError::Condition(Condition::Children { .. }) => PLANS_BESIDE_OTHERS_MAX,
        _ => PLANS_MAX,
    }
}

/// Who calls, and how the call is to be taken.
#[derive(Clone, Debug)]
pub struct Call {
    caller: Caller,
    key: Option<IdempotencyKey>,
    description: Option<String>,
    deadline: Option<Duration>,
}

impl Call {
    /// A call by somebody.
    pub const fn by(caller: Caller) -> Self {
        Self { caller, key: None, description: None, deadline: None }
    }

    /// Who calls.
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether it has an idempotency key.
    pub const fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// With an idempotency key: a repeat of the call gives the same operation (C15).
    #[must_use]
    pub fn key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// With a description for people; at most 256 characters.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// With a time after which the operation is given up and rolled back, unless it has passed its point of no return.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// What the call asks of the ledger, if it has a key.
    fn ledger_claim(&self, kind: &str, request: &Json) -> Result<Option<LedgerClaim>, SubmitError> {
        let Some(key) = &self.key else { return Ok(None) };
        let digest = key_digest(self.caller.as_str(), kind, key.as_str());
        Ok(Some(LedgerClaim { digest, fingerprint: fingerprint(request)? }))
    }
}

impl Engine {
    /// Plans an operation without storing it, for who stores it together with something else: in a transaction of his own, by
    /// what the store has for that. Once that is durable a node takes the operation up, as it does whatever nobody works on.
    ///
    /// Nothing is promised by a draft: whether its resources are free, what its kind demanded of others is so, and its
    /// idempotency key is still new, all that is looked at by the commit, as it is for [`submit`](Self::submit). If it is
    /// refused, [`Draft::refused`] says why; another draft may fit, and gives the earlier operation if the key was taken
    /// meanwhile. For stores that several engines share: where a store has one owner, what is stored so is found at the next
    /// look at what is due, which may be long after.
    pub async fn draft<K: Kind>(&self, request: &K::Request, call: Call) -> Result<Draft, SubmitError> {
        let request = Json::encode("request", request)?;
        let inner = &self.inner;
        let submission = match inner.submission(K::NAME, request, call).await? {
            Submitted::New(submission) => submission,
            Submitted::Before(operation) => {
                let (commit, claim, created) = (None, None, Vec::new());
                return Ok(Draft { operation, commit, claim, created, _turn: None });
            }
        };
        let prepared = inner.prepare(&submission, false).await?;
        // In a store that is shared, what was looked at is a condition of the commit.
        let turn = prepared.turn.filter(|_| inner.cluster().is_none());
        Ok(Draft {
            operation: prepared.execution.operation(),
            commit: Some(prepared.commit),
            claim: submission.ledger,
            created: prepared.created,
            _turn: turn,
        })
    }

    /// Accepts an operation: it is durable, and its resources show, when this returns (C1, C6). It runs in the background.
    pub async fn submit<K: Kind>(&self, request: &K::Request, call: Call) -> Result<Operation, SubmitError> {
        let request = Json::encode("request", request)?;
        self.submit_json(K::NAME, request, call).await
    }

    /// The operation that the same call, with the same idempotency key, was accepted as before. `None` if there is none: the
    /// call has no key, it was never accepted, its key is that of another request, or the operation is not kept any more.
    ///
    /// It accepts nothing and asks nothing but the ledger. So it tells a caller only of what it has itself done, which makes
    /// it the way to answer the repeat of a call for something that is not there, or no longer for this caller to see.
    pub async fn repeated<K: Kind>(
        &self,
        request: &K::Request,
        call: &Call,
    ) -> Result<Option<Operation>, SubmitError> {
        let request = Json::encode("request", request)?;
        let Some(claim) = call.ledger_claim(K::NAME, &request)? else { return Ok(None) };
        match self.inner.store.ledger(&claim.digest).await? {
            Some(entry) if entry.fingerprint == claim.fingerprint => {
                Ok(self.inner.find(entry.operation).await?)
            }
            _ => Ok(None),
        }
    }

    /// The same as [`submit`](Self::submit) with a request that is still JSON, for services that take requests by the name of their kind.
    pub async fn submit_json(&self, kind: &str, request: Json, call: Call) -> Result<Operation, SubmitError> {
        let inner = &self.inner;
        let submission = match inner.submission(kind, request, call).await? {
            Submitted::New(submission) => submission,
            Submitted::Before(operation) => return Ok(operation),
        };
        let mut plans = 0;
        loop {
            plans += 1;
            let refused = match inner.accept(&submission).await {
                Ok(operation) => return Ok(operation),
                Err(refused) => refused,
            };
            if let Some(answer) = inner.accepted_meanwhile(&submission, &refused).await {
                return answer;
            }
            match refused {
                NotAccepted::Again(error) if plans < plans_max(&error) => {}
                NotAccepted::Again(error) | NotAccepted::Finally(error) => return Err(error),
            }
        }
    }
}

/// An operation that is planned and not stored: see [`Engine::draft`].
#[derive(Debug)]
pub struct Draft {
    operation: Operation,
    commit: Option<Commit>,
    claim: Option<LedgerClaim>,
    created: Vec<ResourceKey>,
    /// Where only this engine takes turns, the turn is over when this is dropped.
    _turn: Option<Turn>,
}

impl Draft {
    /// The operation as it will be once it is stored; or as it is, if the call was accepted before.
    pub const fn operation(&self) -> &Operation {
        &self.operation
    }

    /// What is to be stored, as it is and whole. `None` if the call was accepted before, under its idempotency key.
    pub const fn commit(&self) -> Option<&Commit> {
        self.commit.as_ref()
    }

    /// Why the commit was refused, in the words of [`Engine::submit`].
    pub fn refused(&self, error: CommitError) -> SubmitError {
        match (error, &self.claim) {
            (CommitError::Conflict(Conflict::Idempotency(entry)), Some(claim))
                if entry.fingerprint != claim.fingerprint =>
            {
                SubmitError::KeyReused(entry.operation)
            }
            (CommitError::Conflict(conflict), _) => match conflicting(conflict, &self.created) {
                NotAccepted::Again(error) | NotAccepted::Finally(error) => error,
            },
            (CommitError::Unknown(cause), _) => {
                SubmitError::Unknown { operation: self.operation.id(), cause: StoreError::Unavailable(cause) }
            }
            (error, _) => SubmitError::Store(error),
        }
    }
}

/// A name from outside, fit for a message.
fn printable(name: &str) -> String {
    name.chars().take(64).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// A request that is planned, and what is to be stored of it.
struct Prepared {
    token: Token,
    execution: Execution,
    commit: Commit,
    lease: Option<Lease>,
    turn: Option<Turn>,
    created: Vec<ResourceKey>,
}

/// A request as it comes in.
enum Submitted<'a> {
    New(Submission<'a>),
    /// The operation that it was accepted as before.
    Before(Operation),
}

struct Submission<'a> {
    kind: &'a KindName,
    code: &'a Arc<dyn AnyKind>,
    request: Json,
    call: Call,
    ledger: Option<LedgerClaim>,
    admission: Arc<Admission>,
}

/// A place among the unfinished operations: taken before there is one, and given back if there never is.
struct Admission {
    inner: Arc<Inner>,
    accepted: AtomicBool,
    /// Room for one request that is planned and committed.
    _room: OwnedSemaphorePermit,
}

impl Admission {
    /// Refuses when nothing new is taken.
    fn to(inner: &Arc<Inner>) -> Result<Arc<Self>, SubmitError> {
        if inner.fenced.load(Ordering::SeqCst) {
            return Err(SubmitError::Fenced);
        }
        if inner.is_shutting_down() {
            return Err(SubmitError::ShuttingDown);
        }
        let limit = inner.settings.accepting_max as u64;
        let room = Arc::clone(&inner.accepting).try_acquire_owned();
        let room = room.map_err(|_| SubmitError::Overloaded { limit })?;
        let limit = inner.settings.unfinished_max;
        let one_more = |count: u64| (count < limit).then(|| count + 1);
        let admitted = inner.unfinished.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        admitted.map_err(|_| SubmitError::Overloaded { limit })?;
        let (inner, accepted) = (Arc::clone(inner), AtomicBool::new(false));
        Ok(Arc::new(Self { inner, accepted, _room: room }))
    }

    fn accept(&self) {
        self.accepted.store(true, Ordering::SeqCst);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.accepted.load(Ordering::SeqCst) {
            self.inner.one_less();
        }
    }
}

impl Inner {
    /// Takes a request, unless its key is known.
    async fn submission(
        self: &Arc<Self>,
        kind: &str,
        request: Json,
        call: Call,
    ) -> Result<Submitted<'_>, SubmitError> {
        let known = KindName::new(kind).ok().and_then(|name| self.registry.kinds.get_key_value(&name));
        let (name, code) = known.ok_or_else(|| SubmitError::UnknownKind(printable(kind)))?;
        let ledger = call.ledger_claim(name.as_str(), &request)?;
        if let Some(claim) = &ledger {
            // A repeat is answered even when nothing new is taken.
            if let Some(entry) = self.store.ledger(&claim.digest).await? {
                return self.repeated(&entry, claim).await.map(Submitted::Before);
            }
        }
        let admission = Admission::to(self)?;
        Ok(Submitted::New(Submission { kind: name, code, request, call, ledger, admission }))
    }

    /// Answers a request whose key was used before.
    async fn repeated(&self, entry: &LedgerEntry, claim: &LedgerClaim) -> Result<Operation, SubmitError> {
        if entry.fingerprint != claim.fingerprint {
            return Err(SubmitError::KeyReused(entry.operation));
        }
        self.find(entry.operation).await?.ok_or(SubmitError::KeyOutlived(entry.operation))
    }

    /// Answers a request that was refused, if its key was taken while it was planned: what stood in its way is then the
    /// very operation that it asks for, or what that one did (C15).
    async fn accepted_meanwhile(
        &self,
        submission: &Submission<'_>,
        refused: &NotAccepted,
    ) -> Option<Result<Operation, SubmitError>> {
        let claim = submission.ledger.as_ref()?;
        if let NotAccepted::Finally(SubmitError::Unknown { .. }) = refused {
            // Nothing refused it, and the store was asked already.
            return None;
        }
        let entry = self.store.ledger(&claim.digest).await.ok().flatten()?;
        Some(self.repeated(&entry, claim).await)
    }

    /// Plans the request and stores what comes of it.
    async fn accept(self: &Arc<Self>, submission: &Submission<'_>) -> Result<Operation, NotAccepted> {
        let prepared = self.prepare(submission, true).await?;
        let (id, created) = (prepared.execution.id(), prepared.created);
        let (reply, answer) = oneshot::channel();
        // In a task of its own: a caller that goes away must not leave an operation on disk that nobody has in mind.
        let kept = (prepared.lease, prepared.turn);
        let admission = Arc::clone(&submission.admission);
        self.spawn_first(prepared.token, prepared.commit, prepared.execution, kept, admission, reply);
        match answer.await {
            Ok(Ok(operation)) => Ok(operation),
            Ok(Err(error)) => self.not_stored(id, error, submission, &created).await,
            Err(_) => {
                let cause = StoreError::Unavailable("the engine stopped".into());
                Err(SubmitError::Unknown { operation: id, cause }.into())
            }
        }
    }

    /// Plans the request. With `here`, in a slot of this engine if one is free and nothing older waits.
    async fn prepare(
        self: &Arc<Self>,
        submission: &Submission<'_>,
        here: bool,
    ) -> Result<Prepared, SubmitError> {
        // In whole milliseconds, as its id says it: whoever sees both knows that it waits for nothing.
        let now = self.now();
        let now = Timestamp::from_unix_millis(now.unix_millis()).unwrap_or(now);
        let draft = self.plan(submission, now).await?;
        // Planning takes its time: the engine may have stopped since, and with it the task whose turn it was before.
        let token = self.begin_write().map_err(SubmitError::from)?;
        self.registry.check_steps(&draft.parts.steps).map_err(SubmitError::Unrunnable)?;
        let busy = |claim: &Claim| claim.before().and_then(|row| Some((row.key.clone(), row.operation?)));
        if let Some((key, holder)) = draft.parts.claims.iter().find_map(busy) {
            return Err(SubmitError::Busy { key, holder });
        }
        let header = self.header(submission, &draft, now)?;
        let creates = |claim: &&Claim| matches!(claim.intent, Intent::Create { .. });
        let created: Vec<_> =
            draft.parts.claims.iter().filter(creates).map(|claim| claim.key.clone()).collect();
        let plan = Plan::new(draft.parts).map_err(SubmitError::Plan)?;
        // Without a slot the operation waits on disk; without steps it needs none, and is done when it is accepted.
        let slot = here && !plan.steps().is_empty() && self.slots.take_if_nothing_waits();
        let start = slot || plan.steps().is_empty();
        let lease = slot.then(|| Lease::new(Arc::clone(self), None));
        let (execution, turn) =
            Execution::accept(Acceptance { header, plan, start }).map_err(not_acceptable)?;
        let mut commit = Commit::new(&execution, turn, self.fence).with_conditions(draft.conditions);
        if lease.is_none() {
            // It belongs to whoever takes it up.
            commit = commit.by_visitor();
        }
        if let Some(claim) = &submission.ledger {
            commit = commit.with_ledger_claim(claim.clone());
        }
        Ok(Prepared { token, execution, commit, lease, turn: draft.turn, created })
    }

    /// Asks the kind, and keeps its panics from everybody else.
    async fn plan(
        self: &Arc<Self>,
        submission: &Submission<'_>,
        now: Timestamp,
    ) -> Result<Sketch, SubmitError> {
        let builder = PlanBuilder::new(self, now, submission.call.caller.clone());
        let planned = AssertUnwindSafe(async { submission.code.plan(&submission.request, builder).await });
        let panicked = |_| SubmitError::PlanPanicked(submission.kind.to_string());
        planned.catch_unwind().await.map_err(panicked)?
    }

    fn header(
        &self,
        submission: &Submission<'_>,
        draft: &Sketch,
        now: Timestamp,
    ) -> Result<Header, SubmitError> {
        let call = &submission.call;
        let prefix = self.settings.prefix.map_or_else(|| IdPrefix::new("opr"), Ok)?;
        Ok(Header {
            id: OperationId::generate(prefix, now, self.environment.random()),
            kind: submission.kind.clone(),
            kind_version: submission.code.version(),
            description: call.description.clone().unwrap_or_else(|| draft.description.clone()),
            created_at: now,
            created_by: call.caller.clone(),
            request: Payload::new(STRUCT_TYPE, submission.request.clone())?,
            metadata: draft.metadata.clone(),
            response_type: draft.response_type.into(),
            resources: draft.parts.claims.iter().map(|claim| claim.key.clone()).collect(),
            deadline: call.deadline.map(|deadline| now.saturating_add(deadline)),
            idempotency: submission.ledger.as_ref().map(|claim| claim.digest),
        })
    }

    /// Stores a new operation, answers, and drives it if there is a slot.
    fn spawn_first(
        self: &Arc<Self>,
        token: Token,
        commit: Commit,
        execution: Execution,
        (mut lease, turn): (Option<Lease>, Option<Turn>),
        admission: Arc<Admission>,
        reply: oneshot::Sender<Result<Operation, CommitError>>,
    ) {
        let (inner, id) = (Arc::clone(self), execution.id());
        let mut entered = None;
        if let Some(lease) = &mut lease {
            entered = self.running.enter(id, Some(self.fence));
            // An id that is taken is found out by the commit.
            lease.entered = entered.as_ref().map(|_| (id, self.fence));
        }
        let entry = entered.as_ref().map(|(entry, _)| Arc::clone(entry));
        let span = tracing::info_span!("operation", %id);
        let task = async move {
            let stored = inner.store.commit(commit).await;
            let stored = inner.settle_first(id, stored).await;
            if let (Ok(()), Some((entry, _))) = (&stored, &entered) {
                entry.own();
            }
            // Whoever looks from now on sees what this operation has made.
            drop(turn);
            if let Err(error) = stored {
                drop(lease);
                if let CommitError::Unknown(_) = error {
                    // If it is there after all, it has to be found when the store is back. Until then it counts.
                    admission.accept();
                    inner.unsettle(id);
                    // And if it is this node's, it is to be given back.
                    inner.node.doubt();
                }
                _ = reply.send(Err(error));
                return;
            }
            metrics::counter!("longrun_operations_accepted_total").increment(1);
            admission.accept();
            drop(admission);
            let operation = execution.operation();
            let done = execution.is_done();
            if done {
                inner.ended(&execution);
            }
            match entered {
                Some((entry, inbox)) if !done => {
                    let driver = Driver::new(Arc::clone(&inner), entry, execution, inbox);
                    _ = reply.send(Ok(operation));
                    let due = driver::guard(&inner, id, driver.drive(false)).await;
                    if let Some(lease) = lease {
                        lease.end(due);
                    }
                }
                _ => {
                    drop(lease);
                    inner.slots.note_work_on(id);
                    _ = reply.send(Ok(operation));
                }
            }
        };
        let task = token.spawn(task.instrument(span));
        if let Some(entry) = entry {
            entry.set_task(task);
        }
    }

    /// A first commit of unknown outcome is settled by looking for the operation (C22).
    async fn settle_first(
        &self,
        id: OperationId,
        stored: Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        let Err(error @ CommitError::Unknown(_)) = stored else { return stored };
        match self.store.load(id).await {
            Ok(Some(_)) => Ok(()),
            // It is certain now that nothing was written.
            Ok(None) => Err(match error {
                CommitError::Unknown(cause) => CommitError::Unavailable(cause),
                other => other,
            }),
            Err(_) => Err(error),
        }
    }

    /// Tells the caller why a new operation was not stored, or finds the one that was stored before it.
    async fn not_stored(
        &self,
        id: OperationId,
        error: CommitError,
        submission: &Submission<'_>,
        created: &[ResourceKey],
    ) -> Result<Operation, NotAccepted> {
        Err(match (error, &submission.ledger) {
            (CommitError::Conflict(Conflict::Idempotency(entry)), Some(claim)) => {
                return Ok(self.repeated(&entry, claim).await?);
            }
            (CommitError::Conflict(conflict), _) => conflicting(conflict, created),
            (error @ CommitError::Fenced { .. }, _) => match self.unless_fenced_off(error) {
                CommitError::Fenced { .. } => SubmitError::Fenced.into(),
                error => SubmitError::Store(error).into(),
            },
            (CommitError::Unknown(cause), _) => {
                SubmitError::Unknown { operation: id, cause: StoreError::Unavailable(cause) }.into()
            }
            (error, _) => SubmitError::Store(error).into(),
        })
    }
}

/// What a conflict of a first commit means.
fn conflicting(conflict: Conflict, created: &[ResourceKey]) -> NotAccepted {
    match conflict {
        Conflict::Resource { key, holder: Some(holder), .. } => SubmitError::Busy { key, holder }.into(),
        // It was looked up when the plan was made, and has changed since: plan anew, and see.
        Conflict::Resource { key, exists, .. } if exists && created.contains(&key) => {
            NotAccepted::Again(SubmitError::Exists(key))
        }
        Conflict::Resource { key, .. } => NotAccepted::Again(SubmitError::Changed(key)),
        Conflict::Condition(condition) => NotAccepted::Again(SubmitError::Condition(condition)),
        // The id is taken: draw another.
        conflict => NotAccepted::Again(SubmitError::Store(conflict.into())),
    }
}

/// Why a plan was not accepted.
enum NotAccepted {
    /// The ground moved while it was made: another plan may fit.
    Again(SubmitError),
    /// Another plan would not help.
    Finally(SubmitError),
}

impl From<SubmitError> for NotAccepted {
    fn from(error: SubmitError) -> Self {
        Self::Finally(error)
    }
}

fn not_acceptable(error: AcceptError) -> SubmitError {
    match error {
        AcceptError::Invalid(invalid) => SubmitError::Invalid(invalid),
        other => SubmitError::Invalid(Invalid::new("plan", other.to_string())),
    }
}
