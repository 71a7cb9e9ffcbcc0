//! What PostgreSQL says, in the words of the store.

use std::error::Error;
use std::time::Duration;

use longrun_store::{CommitError, StoreError};
use tokio_postgres::error::SqlState;

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address is not one of a PostgreSQL server.
    #[error("the address of the database cannot be used: {0}")]
    Address(String),
    /// The name of the schema is not a plain one.
    #[error("schema: must be 1 to 48 lower-case letters, digits and '_', the first no digit, not {0:?}")]
    Schema(String),
    /// A limit is not one that makes sense.
    #[error("{field}: {rule}")]
    Limit {
        /// Which.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// The certificates of the system, or those that were named, cannot be used.
    #[error("no certificates to know the server by: {0}")]
    Certificates(String),
    /// The server could not be reached, or refused.
    #[error("the database could not be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// The tables were made by a newer program, which says that this one is too old for them.
    #[error(
        "the tables have version {found}, and programs that know less than {oldest} must not use them; this one knows {known}"
    )]
    FutureSchema {
        /// The version they have.
        found: i32,
        /// The oldest version whose programs may use them.
        oldest: i32,
        /// The version that this program knows.
        known: i32,
    },
    /// The database does not hold every text.
    #[error("the database has the encoding {0}, it must be UTF8")]
    Encoding(String),
    /// The tables are there and their first records are not.
    #[error("the tables have lost their first records")]
    Incomplete,
    /// It was not opened inside a tokio runtime.
    #[error("a tokio runtime is needed")]
    NoRuntime,
    /// The operating system gave no random bytes.
    #[error("the operating system refused: {0}")]
    System(String),
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// It said so, or the connection to it was lost.
    #[error(transparent)]
    Told(#[from] tokio_postgres::Error),
    /// It is connected and says nothing.
    #[error("the database has not answered in time")]
    Silent,
}

impl Fault {
    /// Nobody is to use the connection again: it says nothing, or its server takes no writes.
    pub(crate) fn spoils(&self) -> bool {
        matches!(self, Self::Silent) || self.is_of_a_standby()
    }

    /// The server takes no writes.
    pub(crate) fn is_of_a_standby(&self) -> bool {
        matches!(self, Self::Told(error) if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION))
    }
}

/// The server ends what takes too long, if it can. A server that has stopped, or a network that swallows all, tells nothing.
pub(crate) async fn in_time<T, E>(
    patience: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Fault>
where
    Fault: From<E>,
{
    Ok(tokio::time::timeout(patience, work).await.map_err(|_| Fault::Silent)??)
}

/// What a failed statement tells of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// It was rolled back, because something was not as the statement expects it. Look what.
    Unexpected,
    /// It was rolled back, because others were at the same rows. Try again.
    Collided,
    /// It was rolled back, because somebody holds for long what it needs.
    Blocked,
    /// It was rolled back.
    NotApplied,
    /// Nobody knows: the connection was lost.
    Unknown,
}

impl Failed {
    pub(crate) fn of(fault: &Fault) -> Self {
        match fault {
            Fault::Told(error) => Self::told(error),
            Fault::Silent => Self::Unknown,
        }
    }

    pub(crate) fn told(error: &tokio_postgres::Error) -> Self {
        let Some(state) = error.code() else {
            // Refused by the driver before it was sent, or lost with the connection: which of the two it does not say.
            return Self::Unknown;
        };
        let is_any = |states: &[SqlState]| states.contains(state);
        if is_any(&[SqlState::DIVISION_BY_ZERO, SqlState::UNIQUE_VIOLATION]) {
            Self::Unexpected
        } else if is_any(&[SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED]) {
            Self::Collided
        } else if is_any(&[SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED]) {
            Self::Blocked
        } else if state.code().starts_with("08") || state.code().starts_with("57P") || state.code() == "40003"
        {
            // A server that shuts down may have made it durable and not said so.
            Self::Unknown
        } else {
            Self::NotApplied
        }
    }
}

/// Statements that change nothing, or that can be repeated.
pub(crate) fn unavailable(error: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
    StoreError::Unavailable(error.into())
}

/// A transaction of unknown outcome, that can be repeated.
pub(crate) fn not_committed(fault: Fault) -> CommitError {
    match Failed::of(&fault) {
        Failed::Unknown => CommitError::Unknown(with_full(fault)),
        _ => CommitError::Unavailable(with_full(fault)),
    }
}

/// A full disk of the server is told as one of ours is.
pub(crate) fn with_full(fault: impl Into<Fault>) -> Box<dyn Error + Send + Sync> {
    let error = match fault.into() {
        Fault::Told(error) => error,
        silent @ Fault::Silent => return silent.into(),
    };
    if error.code() == Some(&SqlState::DISK_FULL) {
        return std::io::Error::new(std::io::ErrorKind::StorageFull, error).into();
    }
    error.into()
}

pub(crate) fn damaged(
    subject: impl Into<String>,
    cause: impl Into<Box<dyn Error + Send + Sync>>,
) -> StoreError {
    StoreError::Corrupt { subject: subject.into(), cause: cause.into() }
}
