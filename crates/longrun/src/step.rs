//! [`Step`]: one side effect, and how to reverse it.

use std::error::Error;
use std::fmt;

use async_trait::async_trait;
use longrun_core::{Applied, Code, Status, StepPolicy, with_causes};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::{StepContext, UndoContext};

/// What steps take and give: it is stored as JSON between them.
pub trait Value: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Value for T {}

/// How a run ends: with an output, or with what is known of its failure.
pub type StepResult<T> = Result<T, StepError>;

/// How an undo ends. An error means "not yet": it will be tried again, without limit.
pub type UndoResult = Result<(), UndoError>;

/// One side effect of an operation.
///
/// A step is a value: it holds the clients and settings of the service, and is registered once under its name.
/// The same value serves many operations at the same time.
///
/// Both methods must be idempotent for one [effect key](StepContext::effect_key): after a crash the engine cannot
/// know how far a run came, so it runs it again, or undoes it, whichever way the operation goes (C8).
#[async_trait]
pub trait Step: Send + Sync + 'static {
    /// The name under which plans refer to it: 1 to 64 of `[a-z0-9._-]`, starting with a letter. Never change it
    /// while operations that use it are unfinished.
    const NAME: &'static str;
    /// Raise it when input, output or checkpoint change in a way that serde's defaults do not bridge.
    const VERSION: u32 = 1;
    /// The oldest version whose stored input this code still takes.
    const OLDEST_VERSION: u32 = 1;

    /// What it needs to know. At most 32 KiB as JSON.
    type Input: Value;
    /// What later steps need to know of it. At most 32 KiB as JSON.
    type Output: Value;
    /// How far a long run has come; `()` when it saves nothing. At most 32 KiB as JSON.
    type Checkpoint: Value;

    /// How it is run, unless a plan says otherwise.
    fn policy() -> StepPolicy {
        StepPolicy::default()
    }

    /// Does the work. Its start is on disk before this is called.
    async fn run(&self, cx: &StepContext<Self::Checkpoint>, input: Self::Input) -> StepResult<Self::Output>;

    /// Reverses a run that was done, or that may have run. Called until it returns `Ok`.
    async fn undo(
        &self,
        cx: &UndoContext,
        input: Self::Input,
        outcome: Undoable<Self::Output, Self::Checkpoint>,
    ) -> UndoResult;
}

/// What an undo knows of the run that it reverses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undoable<O, C> {
    /// The run was done, with this output.
    Done(O),
    /// The run may have had an effect, in whole, in part or not at all; this is its last checkpoint.
    MayHaveRun(Option<C>),
}

/// Why a run failed, and what is known of its effect.
///
/// `?` on any error gives the safe answer: the effect is unknown, and running again may help. Say more where you
/// know more: [`StepError::not_applied`] spares the undo, [`StepError::permanent`] spares the retries.
#[derive(Clone, Debug)]
pub struct StepError {
    pub(crate) status: Status,
    pub(crate) applied: Applied,
    pub(crate) retryable: bool,
}

impl StepError {
    /// It failed and may have had an effect. Whether it is run again depends on the code: UNAVAILABLE, UNKNOWN,
    /// ABORTED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED and INTERNAL are.
    pub fn unknown(code: Code, message: impl Into<String>) -> Self {
        Self::from_status(Status::new(code, message), Applied::Unknown)
    }

    /// It failed and certainly had no effect, so there is nothing to undo.
    pub fn not_applied(code: Code, message: impl Into<String>) -> Self {
        Self::from_status(Status::new(code, message), Applied::No)
    }

    /// An error of the service's own under a code, with all its causes. It may have had an effect.
    pub fn of(code: Code, error: &dyn Error) -> Self {
        Self::unknown(code, with_causes(error))
    }

    /// From a status with details.
    pub const fn from_status(status: Status, applied: Applied) -> Self {
        let retryable = matches!(
            status.code(),
            Code::Unavailable
                | Code::Unknown
                | Code::Aborted
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Internal
        );
        Self { status, applied, retryable }
    }

    /// Running it again will not help: the operation rolls back now.
    #[must_use]
    pub const fn permanent(mut self) -> Self {
        self.retryable = false;
        self
    }

    /// Running it again may help, whatever the code says.
    #[must_use]
    pub const fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// The error as clients will see it.
    pub const fn status(&self) -> &Status {
        &self.status
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.status, f)
    }
}

impl<E: Error> From<E> for StepError {
    fn from(error: E) -> Self {
        Self::unknown(Code::Unknown, with_causes(&error))
    }
}

/// Why an undo did not succeed this time.
#[derive(Clone, Debug)]
pub struct UndoError(pub(crate) Status);

impl UndoError {
    /// With a code and a message for the operator.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Status::new(code, message))
    }
}

impl fmt::Display for UndoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl<E: Error> From<E> for UndoError {
    fn from(error: E) -> Self {
        Self::new(Code::Unknown, with_causes(&error))
    }
}

/// What a run and its undo do alike fails alike.
impl From<StepError> for UndoError {
    fn from(error: StepError) -> Self {
        Self(error.status)
    }
}
