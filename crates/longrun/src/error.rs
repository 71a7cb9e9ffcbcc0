//! One error for each call, each with the `google.rpc.Code` that a service answers with.

use longrun_core::{
    Code, Condition, Invalid, OperationId, PlanError, Refusal, ResourceKey, Status, with_causes,
};
use longrun_store::{CommitError, PageTokenError, StoreError};

use crate::registry::HoldReason;

/// Why an operation was not accepted. Unless the variant says otherwise, nothing is stored, and the idempotency key is
/// still free.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// No kind of this name is registered.
    #[error("kind {0} is not registered")]
    UnknownKind(String),
    /// The request, the caller or the key breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The kind refused the request.
    #[error(transparent)]
    Refused(Status),
    /// The kind made a plan that cannot be accepted.
    #[error(transparent)]
    Plan(PlanError),
    /// The plan names a step that is not registered.
    #[error("the plan cannot be run: {0}")]
    Unrunnable(HoldReason),
    /// The kind panicked while it planned.
    #[error("kind {0} panicked while it planned")]
    PlanPanicked(String),
    /// Another unfinished operation holds the resource.
    #[error("{key} is held by operation {holder}")]
    Busy {
        /// The resource.
        key: ResourceKey,
        /// The operation in the way.
        holder: OperationId,
    },
    /// The resource that is to be created exists.
    #[error("{0} exists already")]
    Exists(ResourceKey),
    /// The resource changed while the request was planned. Try again.
    #[error("{0} has just changed")]
    Changed(ResourceKey),
    /// What the kind demanded of another resource was not so in the end. Try again.
    #[error("{0}")]
    Condition(Condition),
    /// The idempotency key was used for another request (C15).
    #[error("the idempotency key was used for another request, which is operation {0}")]
    KeyReused(OperationId),
    /// The idempotency key belongs to an operation that is no longer kept. The work is not started again (C15).
    #[error("the idempotency key belongs to operation {0}, which is done and no longer kept")]
    KeyOutlived(OperationId),
    /// As many operations are unfinished, or as many requests are being accepted, as the engine was told to take. Try
    /// again later.
    #[error("the limit of {limit} is reached, no more operations are taken now")]
    Overloaded {
        /// The limit.
        limit: u64,
    },
    /// The engine shuts down.
    #[error("the engine shuts down")]
    ShuttingDown,
    /// Another engine has taken the store over (C17).
    #[error("another engine has taken the store over")]
    Fenced,
    /// The store did not take the operation.
    #[error("the store did not take the operation")]
    Store(#[source] CommitError),
    /// The store could not be read.
    #[error("the store could not be read")]
    Read(#[from] StoreError),
    /// Whether the operation was accepted cannot be told while the store is down. Repeat the request with its
    /// idempotency key.
    #[error("whether operation {operation} was accepted is unknown")]
    Unknown {
        /// The operation, if it was.
        operation: OperationId,
        /// Why it is unknown.
        #[source]
        cause: StoreError,
    },
}

impl SubmitError {
    /// The code that a service answers with.
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownKind(_) => Code::Unimplemented,
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Refused(status) => status.code(),
            Self::Plan(error) => plan_code(error),
            Self::Unrunnable(_) | Self::PlanPanicked(_) => Code::Internal,
            Self::Busy { .. } | Self::Changed(_) | Self::Condition(_) => Code::Aborted,
            Self::Exists(_) | Self::KeyReused(_) => Code::AlreadyExists,
            Self::KeyOutlived(_) => Code::FailedPrecondition,
            Self::Overloaded { .. } => Code::ResourceExhausted,
            Self::ShuttingDown | Self::Fenced | Self::Unknown { .. } => Code::Unavailable,
            Self::Store(CommitError::TooLarge { .. }) => Code::ResourceExhausted,
            Self::Store(error) => commit_code(error),
            Self::Read(error) => store_code(error),
        }
    }

    /// As a status, causes included.
    pub fn status(&self) -> Status {
        match self {
            Self::Refused(status) => status.clone(),
            other => Status::new(other.code(), with_causes(other)),
        }
    }
}

/// The code of a plan that cannot be accepted. Which resources a plan names, how many steps it has and how large it is,
/// follows from what was asked, and so does that a resource is not in a state for it; anything else is a bug of the kind.
fn plan_code(error: &PlanError) -> Code {
    match error {
        PlanError::TooManySteps { .. }
        | PlanError::TooLarge { .. }
        | PlanError::TooManyClaims { .. }
        | PlanError::ClaimsTooLarge { .. }
        | PlanError::RepeatedClaim(_)
        | PlanError::Claim(_) => Code::InvalidArgument,
        PlanError::Status(_) => Code::FailedPrecondition,
        _ => Code::Internal,
    }
}

/// The code of a commit that did not happen, or may not have.
fn commit_code(error: &CommitError) -> Code {
    match error {
        error if error.is_full() => Code::ResourceExhausted,
        CommitError::Unreadable(error) => store_code(error),
        _ => Code::Unavailable,
    }
}

/// The code of a store's error.
fn store_code(error: &StoreError) -> Code {
    match error {
        StoreError::Corrupt { .. } => Code::DataLoss,
        StoreError::FutureFormat { .. } => Code::Unimplemented,
        _ => Code::Unavailable,
    }
}

pub(crate) fn store_status(error: &StoreError) -> Status {
    Status::new(store_code(error), with_causes(error))
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is no such operation.
    #[error("operation {0} not found")]
    NotFound(OperationId),
    /// A page token or another argument breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The page token is not one of this list.
    #[error(transparent)]
    PageToken(#[from] PageTokenError),
    /// The stored value does not decode as the type that was asked for.
    #[error(transparent)]
    Undecodable(Status),
    /// The store could not answer.
    #[error("the store could not be read")]
    Store(#[from] StoreError),
}

impl ReadError {
    /// The code that a service answers with.
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::Invalid(_) | Self::PageToken(_) => Code::InvalidArgument,
            Self::Undecodable(status) => status.code(),
            Self::Store(error) => store_code(error),
        }
    }

    /// As a status, causes included.
    pub fn status(&self) -> Status {
        Status::new(self.code(), with_causes(self))
    }
}

/// Why an operation did not take a cancel or an operator's verb.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no such operation.
    #[error("operation {0} not found")]
    NotFound(OperationId),
    /// The verb does not fit the operation as it is. The operation is unchanged.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The engine cannot work on the operation.
    #[error("operation {0} is held: {1}")]
    Held(OperationId, HoldReason),
    /// Only a done operation can be removed.
    #[error("operation {0} is not done")]
    NotDone(OperationId),
    /// The engine shuts down, and nothing works on the operation any more. It is unchanged.
    #[error("the engine shuts down")]
    ShuttingDown,
    /// Another engine has taken the store over (C17).
    #[error("another engine has taken the store over")]
    Fenced,
    /// The store did not take the change.
    #[error("the store did not take the change")]
    Store(#[source] CommitError),
    /// The store could not be read.
    #[error("the store could not be read")]
    Read(#[from] StoreError),
}

impl CommandError {
    /// The code that a service answers with.
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::Refused(Refusal::Invalid(_)) => Code::InvalidArgument,
            Self::Refused(_) | Self::Held(..) | Self::NotDone(_) => Code::FailedPrecondition,
            Self::ShuttingDown | Self::Fenced => Code::Unavailable,
            Self::Store(error) => commit_code(error),
            Self::Read(error) => store_code(error),
        }
    }

    /// As a status, causes included.
    pub fn status(&self) -> Status {
        Status::new(self.code(), with_causes(self))
    }
}

impl From<ReadError> for CommandError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound(id) => Self::NotFound(id),
            ReadError::Store(error) => Self::Read(error),
            other => Self::Read(StoreError::Unavailable(other.into())),
        }
    }
}

/// Why an engine begins nothing new any more.
pub(crate) enum Stops {
    Fenced,
    ShuttingDown,
}

impl From<Stops> for SubmitError {
    fn from(stops: Stops) -> Self {
        match stops {
            Stops::Fenced => Self::Fenced,
            Stops::ShuttingDown => Self::ShuttingDown,
        }
    }
}

impl From<Stops> for CommandError {
    fn from(stops: Stops) -> Self {
        match stops {
            Stops::Fenced => Self::Fenced,
            Stops::ShuttingDown => Self::ShuttingDown,
        }
    }
}

/// Why an engine could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A name or a policy breaks a rule.
    #[error("{name}: {invalid}")]
    Invalid {
        /// The kind or step, as it was registered.
        name: &'static str,
        /// The rule.
        invalid: Invalid,
    },
    /// Two of the same name.
    #[error("{what} {name} is registered twice")]
    Twice {
        /// Kind or step.
        what: &'static str,
        /// The name.
        name: &'static str,
    },
    /// A setting is out of range.
    #[error(transparent)]
    Setting(#[from] Invalid),
    /// The engine must be built inside a tokio runtime.
    #[error("there is no tokio runtime here")]
    NoRuntime,
    /// The store could not be taken over.
    #[error("the store could not be taken over")]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use longrun_core::error::IllegalStatusMove;
    use longrun_core::{ResourceId, ResourceKind, ResourceStatus};

    use super::*;

    #[test]
    fn a_plan_is_the_callers_fault_where_the_request_made_it_so_and_else_a_bug() {
        let kind = ResourceKind::new("test.thing").unwrap();
        let key = ResourceKey { kind, id: ResourceId::new("t").unwrap() };
        let moves = IllegalStatusMove { from: Some(ResourceStatus::Creating), to: None };
        let invalid = Invalid::new("name", "must be short");
        let cases = [
            (PlanError::TooManySteps { steps: 2000 }, Code::InvalidArgument),
            (PlanError::TooLarge { bytes: 1 }, Code::InvalidArgument),
            (PlanError::TooManyClaims { claims: 9 }, Code::InvalidArgument),
            (PlanError::ClaimsTooLarge { bytes: 1 }, Code::InvalidArgument),
            (PlanError::RepeatedClaim(key), Code::InvalidArgument),
            (PlanError::Claim(invalid.clone()), Code::InvalidArgument),
            (PlanError::Status(moves), Code::FailedPrecondition),
            (PlanError::BadReference { step: 1, on: 2 }, Code::Internal),
            (PlanError::Policy(invalid), Code::Internal),
        ];
        for (error, code) in cases {
            assert_eq!(SubmitError::Plan(error.clone()).code(), code, "{error}");
        }
    }

    #[test]
    fn c18_a_commit_that_met_unreadable_bytes_answers_as_a_reading_of_them_does() {
        let corrupt = || StoreError::Corrupt { subject: "x".to_owned(), cause: "damaged".into() };
        let future = || StoreError::FutureFormat { subject: "x".to_owned(), found: 9, supported: 1 };
        let errors: [(fn() -> StoreError, Code); 2] =
            [(corrupt, Code::DataLoss), (future, Code::Unimplemented)];
        for (error, code) in errors {
            assert_eq!(SubmitError::Store(CommitError::Unreadable(error())).code(), code);
            assert_eq!(CommandError::Store(CommitError::Unreadable(error())).code(), code);
            assert_eq!(ReadError::Store(error()).code(), code);
        }
        let full = || CommitError::Unavailable(std::io::Error::from(std::io::ErrorKind::StorageFull).into());
        assert_eq!(SubmitError::Store(full()).code(), Code::ResourceExhausted);
        assert_eq!(CommandError::Store(full()).code(), Code::ResourceExhausted);
    }
}
