//! How a store says no. Every variant says what was being done to what, and keeps its cause.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use longrun_core::{Condition, Fence, OperationId, ResourceKey, Revision};

use crate::codec::CodecError;
use crate::kv::{Cause, KvError};
use crate::store::LedgerEntry;

/// Why a store could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached or used now. Try again when the cause is gone.
    #[error("the store is unavailable")]
    Unavailable(#[source] Cause),
    /// The stored bytes of one thing are damaged. Everything else is still there.
    #[error("the record of {subject} is damaged")]
    Corrupt {
        /// What is damaged.
        subject: String,
        /// How.
        #[source]
        cause: Cause,
    },
    /// The stored bytes of one thing were written by a newer program. They are left alone.
    #[error("the record of {subject} has format version {found}, this program reads up to {supported}")]
    FutureFormat {
        /// What it is.
        subject: String,
        /// The version it has.
        found: u16,
        /// The newest version that is understood.
        supported: u16,
    },
}

impl StoreError {
    /// A record that cannot be read.
    pub fn unreadable(subject: impl Into<String>, error: CodecError) -> Self {
        match error {
            CodecError::Future { found, supported } => {
                Self::FutureFormat { subject: subject.into(), found, supported }
            }
            error => Self::Corrupt { subject: subject.into(), cause: error.into() },
        }
    }

    /// True when the cause is a disk, or a quota, that is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Unavailable(cause) if is_full(cause.as_ref()))
    }
}

impl From<KvError> for StoreError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::NotApplied(cause) | KvError::Unknown(cause) => Self::Unavailable(cause),
            KvError::Corrupt(cause) => Self::Corrupt { subject: "the store".to_owned(), cause },
        }
    }
}

/// Why a commit did not happen, or may not have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Somebody else was first. Nothing was written; load and decide anew.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Another owner has taken over (C17). Nothing was written, and no commit with this fence will be.
    #[error("fenced: this owner has epoch {held}, the store is owned by epoch {current}")]
    Fenced {
        /// The epoch of the commit.
        held: Fence,
        /// The epoch that owns the store now.
        current: Fence,
    },
    /// A record is larger than the store takes. Nothing was written.
    #[error("a record of {bytes} bytes is too large, the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest size.
        limit: usize,
    },
    /// Nothing was written. The same commit may be tried again when the cause is gone.
    #[error("the store did not take the commit")]
    Unavailable(#[source] Cause),
    /// The commit may or may not have happened. Load the operation: its revision tells (C22).
    #[error("the outcome of the commit is unknown")]
    Unknown(#[source] Cause),
    /// What the commit is conditional on, or would change, is damaged. Trying again does not help. Nothing was written, unless
    /// the damage was met in writing: then that is unknown.
    #[error(transparent)]
    Unreadable(StoreError),
}

impl CommitError {
    /// True when the cause is a disk, or a quota, that is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Unavailable(cause) | Self::Unknown(cause) => is_full(cause.as_ref()),
            Self::Unreadable(error) => error.is_full(),
            _ => false,
        }
    }
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => Self::Unavailable(cause),
            error => Self::Unreadable(error),
        }
    }
}

/// What a commit expected and did not find.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// The operation is there, or is not there, or has moved on.
    #[error("operation {id} has revision {found:?}, expected was {expected:?}")]
    Operation {
        /// Which operation.
        id: OperationId,
        /// The revision that the commit follows; `None` when it creates the operation.
        expected: Option<Revision>,
        /// The revision that is stored; `None` when there is no operation, or when it is done.
        found: Option<Revision>,
    },
    /// The resource is there, or is not there, or has changed, or is held.
    #[error("{key} is not as it was{}", held_by(*.holder))]
    Resource {
        /// Which resource.
        key: ResourceKey,
        /// The unfinished operation that holds it, if one does.
        holder: Option<OperationId>,
        /// Whether there is such a resource.
        exists: bool,
    },
    /// Something that the operation demanded when it was to be accepted is not so.
    #[error("{0}")]
    Condition(Condition),
    /// The idempotency key was used before.
    #[error("the idempotency key belongs to operation {}", .0.operation)]
    Idempotency(LedgerEntry),
}

fn held_by(holder: Option<OperationId>) -> String {
    holder.map_or_else(String::new, |id| format!(": operation {id} holds it"))
}

/// Looks for "no space" and "over quota" along the chain of causes.
fn is_full(cause: &(dyn Error + Send + Sync + 'static)) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(cause);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            // An io::Error shows the source of its custom payload, not the payload itself.
            let inner = error.get_ref().is_some_and(is_full);
            if inner || matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                return true;
            }
        }
        next = error.source();
    }
    false
}

/// One cause for many callers: of a write that was to store something for each of them.
#[derive(Clone, Debug)]
pub struct SharedCause(Arc<dyn Error + Send + Sync>);

impl SharedCause {
    /// Takes the cause.
    pub fn new(cause: Cause) -> Self {
        Self(cause.into())
    }

    /// The cause, for one of them.
    pub fn boxed(&self) -> Cause {
        Box::new(self.clone())
    }
}

impl fmt::Display for SharedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for SharedCause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The cause itself, so that its type can be asked for.
        Some(self.0.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_recognised_behind_other_causes() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(StoreError::Unavailable(KvError::NotApplied(full.into()).into()).is_full());
        let wrapped = io::Error::other(io::Error::from(io::ErrorKind::QuotaExceeded));
        assert!(CommitError::Unknown(wrapped.into()).is_full());
        assert!(!StoreError::Unavailable("no".into()).is_full());
        assert!(!CommitError::Unavailable("no".into()).is_full());
        assert!(!CommitError::TooLarge { bytes: 2, limit: 1 }.is_full());
        let read = io::Error::from(io::ErrorKind::StorageFull);
        assert!(CommitError::Unreadable(StoreError::Unavailable(read.into())).is_full());
    }

    #[test]
    fn errors_say_who_holds_what_and_each_of_many_callers_why() {
        use longrun_core::{ResourceId, ResourceKind};
        let id = OperationId::parse("opr6hhgn2g01ti4g4n61").unwrap();
        let kind = ResourceKind::new("disk").unwrap();
        let key = ResourceKey { kind, id: ResourceId::new("a").unwrap() };
        let text = |holder| Conflict::Resource { key: key.clone(), holder, exists: true }.to_string();
        assert_eq!(text(None), format!("{key} is not as it was"));
        assert_eq!(text(Some(id)), format!("{key} is not as it was: operation {id} holds it"));
        let shared = SharedCause::new(io::Error::other("out of order").into());
        assert_eq!(shared.boxed().to_string(), "out of order");
        assert!(shared.source().unwrap().is::<io::Error>());
    }
}
