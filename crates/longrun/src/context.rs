//! What a step gets to know while it runs.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use longrun_core::{
    Attempt, Caller, Code, Fence, Header, Invalid, Json, KindName, OperationId, Payload, Progress,
    ProgressUnit, ResourceId, StepIndex, StepName, Timestamp,
};
use longrun_store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::driver::Message;
use crate::kind::Resource;
use crate::references::References;
use crate::step::{StepError, Value};

/// Names an effect towards outside systems: the same for every run and every undo of one step of one operation.
///
/// Hand it to what you call as its idempotency key, or derive the names of what you make from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectKey {
    /// The operation.
    pub operation: OperationId,
    /// The step.
    pub step: StepIndex,
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.operation, self.step)
    }
}

/// Grows with every owner and every run. An outside system that remembers the highest one it has seen can refuse
/// the late call of a run that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken {
    /// That of the owner: the epoch of an engine that has the store to itself, the number of the claim where engines share it.
    pub epoch: Fence,
    /// The number of the run; for undos it goes on from the last run.
    pub attempt: u32,
}

/// Why a run is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// The operation rolls back: it was cancelled, another step failed, or its deadline passed.
    RollingBack,
    /// The run took longer than its policy allows.
    TimedOut,
    /// The engine shuts down. The step will be run again after the next start, from its last checkpoint.
    ShuttingDown,
}

/// What runs and undos have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) header: Arc<Header>,
    pub(crate) step: StepIndex,
    pub(crate) step_name: StepName,
    pub(crate) token: FencingToken,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) began_at: Timestamp,
    pub(crate) checkpoint: Option<Json>,
    pub(crate) driver: mpsc::Sender<Message>,
    pub(crate) progress: Arc<Mutex<Option<Progress>>>,
    pub(crate) stop: watch::Sender<Option<Stop>>,
}

impl Shared {
    pub(crate) async fn store_epoch(&self) -> Result<Fence, StoreError> {
        match self.store.cluster() {
            Some(cluster) => cluster.epoch().await,
            // It is that of the store's only owner.
            None => Ok(self.token.epoch),
        }
    }

    pub(crate) async fn stopped(&self) -> Stop {
        let mut stop = self.stop.subscribe();
        match stop.wait_for(Option::is_some).await.map(|stop| *stop) {
            Ok(Some(reason)) => reason,
            // The sender is our own, and the value was seen to be there.
            _ => std::future::pending().await,
        }
    }
}

/// Declares what both contexts offer.
macro_rules! shared_methods {
    () => {
        /// The operation.
        pub fn operation_id(&self) -> OperationId {
            self.shared.header.id
        }

        /// The kind of the operation.
        pub fn kind(&self) -> &KindName {
            &self.shared.header.kind
        }

        /// Who asked for the operation. A step acts for this caller, not by rights of its own.
        pub fn caller(&self) -> &Caller {
            &self.shared.header.created_by
        }

        /// What the caller was told at once.
        pub fn metadata(&self) -> &Payload {
            &self.shared.header.metadata
        }

        /// The name of the step.
        pub fn step_name(&self) -> &StepName {
            &self.shared.step_name
        }

        /// Names the effect towards outside systems.
        pub fn effect_key(&self) -> EffectKey {
            EffectKey { operation: self.shared.header.id, step: self.shared.step }
        }

        /// Tells this run from earlier ones.
        pub fn fencing_token(&self) -> FencingToken {
            self.shared.token
        }

        /// The newest epoch of the store, as it is now: see [`Engine::store_epoch`](crate::Engine::store_epoch). What belongs to the
        /// store as a whole is marked with it, where the [token](Self::fencing_token) tells who works on one operation.
        pub async fn store_epoch(&self) -> Result<longrun_core::Fence, longrun_store::StoreError> {
            self.shared.store_epoch().await
        }

        /// References to items, for a resource that the operation creates, changes or deletes.
        pub fn references<R: Resource>(&self, id: &ResourceId) -> Result<References, Invalid> {
            Ok(References::new(Arc::clone(&self.shared), R::key(id)?))
        }

        /// When this run began, by the clock of the engine: what a step that waits for a time has to wait is reckoned from it.
        pub fn began_at(&self) -> Timestamp {
            self.shared.began_at
        }

        /// Resolves when it has to stop. What goes on after a grace is dropped where it stands.
        pub async fn stopped(&self) -> Stop {
            self.shared.stopped().await
        }

        /// Whether it has to stop, and why.
        pub fn stop_reason(&self) -> Option<Stop> {
            *self.shared.stop.borrow()
        }
    };
}

pub(crate) use shared_methods;

/// What a run knows, and how it reports how far it is.
pub struct StepContext<C> {
    shared: Arc<Shared>,
    checkpoint: PhantomData<fn() -> C>,
}

impl<C> fmt::Debug for StepContext<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shared, f)
    }
}

impl<C: Value> StepContext<C> {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, checkpoint: PhantomData }
    }

    shared_methods!();

    /// The number of this run, from 1.
    pub fn attempt(&self) -> Attempt {
        Attempt(self.shared.token.attempt)
    }

    /// The last checkpoint that an earlier run of this step saved.
    pub fn checkpoint(&self) -> StepCheckpoint<C> {
        match &self.shared.checkpoint {
            None => Ok(None),
            Some(json) => json.decode().map(Some).map_err(|error| {
                StepError::unknown(Code::Internal, format!("the checkpoint does not decode: {error}"))
                    .permanent()
            }),
        }
    }

    /// Saves how far the run is. Durable when it returns: a later run, or the undo, gets it (C8).
    pub async fn save(&self, checkpoint: &C) -> Result<(), StepError> {
        let checkpoint = Json::encode("checkpoint", checkpoint)
            .map_err(|error| StepError::unknown(Code::Internal, error.to_string()).permanent())?;
        let progress = *self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let (reply, saved) = oneshot::channel();
        let (step, attempt) = (self.shared.step, self.attempt());
        let message = Message::Checkpoint { step, attempt, checkpoint, progress, reply };
        let gone = || StepError::unknown(Code::Aborted, "the run was given up");
        self.shared.driver.send(message).await.map_err(|_| gone())?;
        if saved.await.unwrap_or(false) { Ok(()) } else { Err(gone()) }
    }

    /// Tells those who wait how far the run is. Not durable until the next [`save`](Self::save).
    pub fn report(&self, done: u64, total: u64, unit: ProgressUnit) {
        let progress = Progress { done, total, unit };
        *self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }
}

/// A checkpoint that may be there, and may not decode.
pub type StepCheckpoint<C> = Result<Option<C>, StepError>;

/// What an undo knows.
pub struct UndoContext {
    shared: Arc<Shared>,
}

impl fmt::Debug for UndoContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shared, f)
    }
}

impl UndoContext {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    shared_methods!();
}
