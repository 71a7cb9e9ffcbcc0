//! The engine's errors, as every face says them.

use longrun::store::{CommitError, PageTokenError, StoreError};
use longrun::{CommandError, ReadError, SubmitError};

use crate::error::{ApiError, Reason};

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let of = |reason| Self::new(reason, error.status().message());
        match &error {
            SubmitError::Invalid(invalid) => invalid.clone().into(),
            SubmitError::Busy { holder, .. } => {
                of(Reason::OperationInTheWay).with_fact("operation", holder.as_str())
            }
            SubmitError::KeyReused(operation) => {
                of(Reason::IdempotencyKeyReused).with_fact("operation", operation.as_str())
            }
            SubmitError::KeyOutlived(operation) => {
                of(Reason::IdempotencyKeyOutlived).with_fact("operation", operation.as_str())
            }
            SubmitError::Unknown { operation, .. } => {
                of(Reason::OutcomeUnknown).with_fact("operation", operation.as_str())
            }
            SubmitError::Store(CommitError::Unknown(_)) => of(Reason::OutcomeUnknown),
            SubmitError::Store(error) if error.is_full() => of(Reason::StorageFull),
            SubmitError::Store(CommitError::Unreadable(StoreError::FutureFormat { .. }))
            | SubmitError::Read(StoreError::FutureFormat { .. }) => of(Reason::TooNew),
            other => of(Reason::of(other.code())),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Invalid(invalid) => invalid.clone().into(),
            ReadError::PageToken(error) => error.into(),
            // The same words for everybody, whoever asks.
            ReadError::NotFound(_) => Self::new(Reason::NotFound, "the operation does not exist"),
            ReadError::Store(StoreError::FutureFormat { .. }) => {
                Self::new(Reason::TooNew, error.status().message())
            }
            other => Self::new(Reason::of(other.code()), error.status().message()),
        }
    }
}

impl From<&PageTokenError> for ApiError {
    fn from(error: &PageTokenError) -> Self {
        let rule = match error {
            PageTokenError::OtherQuestion => "belongs to a list with other arguments",
            _ => "must be a token that this list has given out",
        };
        Self::new(Reason::InvalidPageToken, format!("invalid request: page_token: {rule}"))
            .with_violation("page_token", rule)
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        match &error {
            CommandError::NotFound(id) => ReadError::NotFound(*id).into(),
            CommandError::Store(CommitError::Unknown(_)) => {
                Self::new(Reason::OutcomeUnknown, error.status().message())
            }
            CommandError::Store(full) if full.is_full() => {
                Self::new(Reason::StorageFull, error.status().message())
            }
            CommandError::Read(StoreError::FutureFormat { .. }) => {
                Self::new(Reason::TooNew, error.status().message())
            }
            other => Self::new(Reason::of(other.code()), error.status().message()),
        }
    }
}
