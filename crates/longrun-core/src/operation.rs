//! [`Operation`]: what clients see of a mutating call, at one moment.

use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::execution::{Blocked, Header, Intervention};
use crate::id::{Caller, KindName, OperationId, Revision};
use crate::payload::{Payload, Progress};
use crate::status::Status;
use crate::time::Timestamp;

/// How far an operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Accepted; waiting or running.
    Pending,
    /// It failed or was cancelled and is being undone. `error` is set, `done` is not (C3).
    RollingBack,
    /// Finished, or undone to the last step. Nothing changes any more (C5).
    Done,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did its work.
    Response(Payload),
    /// It failed, and everything that ran or may have run was undone (C4).
    Error(Status),
    /// It failed, and an operator gave up undoing it, on record.
    Abandoned(Status),
}

impl Outcome {
    /// The response, if it succeeded.
    pub const fn response(&self) -> Option<&Payload> {
        match self {
            Self::Response(response) => Some(response),
            Self::Error(_) | Self::Abandoned(_) => None,
        }
    }

    /// The error, if it failed.
    pub const fn error(&self) -> Option<&Status> {
        match self {
            Self::Response(_) => None,
            Self::Error(error) | Self::Abandoned(error) => Some(error),
        }
    }
}

/// An operation as clients see it, at one moment. It does not follow later changes: ask again, or wait.
///
/// Serializes as the API's `Operation` in JSON, with `"done": false` written out and `error` shown as soon as the
/// operation rolls back.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    pub(crate) header: Arc<Header>,
    pub(crate) modified_at: Timestamp,
    pub(crate) revision: Revision,
    pub(crate) phase: Phase,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) rollback_cause: Option<Status>,
    pub(crate) progress: Option<Progress>,
    pub(crate) blocked: Vec<Blocked>,
    pub(crate) interventions: Vec<Intervention>,
}

impl Operation {
    /// What every operation has.
    pub(crate) const fn bare(
        header: Arc<Header>,
        revision: Revision,
        modified_at: Timestamp,
        phase: Phase,
    ) -> Self {
        Self {
            header,
            modified_at,
            revision,
            phase,
            outcome: None,
            rollback_cause: None,
            progress: None,
            blocked: Vec::new(),
            interventions: Vec::new(),
        }
    }

    /// The id.
    pub fn id(&self) -> OperationId {
        self.header.id
    }

    /// The registered type.
    pub fn kind(&self) -> &KindName {
        &self.header.kind
    }

    /// For people; may be empty.
    pub fn description(&self) -> &str {
        &self.header.description
    }

    /// When it was accepted.
    pub fn created_at(&self) -> Timestamp {
        self.header.created_at
    }

    /// Who asked for it.
    pub fn created_by(&self) -> &Caller {
        &self.header.created_by
    }

    /// When it last changed. Never before [`created_at`](Self::created_at), never goes back (C16).
    pub const fn modified_at(&self) -> Timestamp {
        self.modified_at
    }

    /// How often it was written.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// What was asked.
    pub fn request(&self) -> &Payload {
        &self.header.request
    }

    /// What the caller learned at once, such as the id of the resource being made (C6).
    pub fn metadata(&self) -> &Payload {
        &self.header.metadata
    }

    /// The resources it creates, changes or deletes.
    pub fn resources(&self) -> &[crate::resource::ResourceKey] {
        &self.header.resources
    }

    /// Pending, rolling back or done.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// True when it is finished, or the system is wholly back where it was (C2, C4).
    pub const fn done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Why it failed: the first cause (C3). Set while it rolls back, and when it is done.
    pub fn error(&self) -> Option<&Status> {
        self.outcome.as_ref().and_then(Outcome::error).or(self.rollback_cause.as_ref())
    }

    /// Its result. Set when it is done and did not fail (C2).
    pub fn response(&self) -> Option<&Payload> {
        self.outcome.as_ref().and_then(Outcome::response)
    }

    /// True when an operator gave up its rollback.
    pub const fn was_abandoned(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Abandoned(_)))
    }

    /// How far the first of its steps has come that is under way and tells it. Nothing while it rolls back.
    pub const fn progress(&self) -> Option<Progress> {
        self.progress
    }

    /// The same operation with newer progress. Progress is not durable between checkpoints.
    #[must_use]
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Steps that keep failing although they must not, for operators. Empty when nothing is wrong.
    pub fn blocked(&self) -> &[Blocked] {
        &self.blocked
    }

    /// What operators did about it: who, when, what and why, oldest first.
    ///
    /// Every step that was taken over and every abandonment is there. Of the retries of one operator the first and the
    /// last stand for all, and when the record is full ([`INTERVENTIONS_MAX`](crate::limits::INTERVENTIONS_MAX)) retries
    /// give way, the oldest first, or are left out. A retry that found nothing waiting changed nothing and is not there.
    pub fn interventions(&self) -> &[Intervention] {
        &self.interventions
    }
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let result = usize::from(self.error().is_some() || self.response().is_some());
        let mut fields = serializer.serialize_struct("Operation", 7 + result)?;
        fields.serialize_field("id", &self.header.id)?;
        fields.serialize_field("description", &self.header.description)?;
        fields.serialize_field("createdAt", &self.header.created_at)?;
        fields.serialize_field("createdBy", &self.header.created_by)?;
        fields.serialize_field("modifiedAt", &self.modified_at)?;
        fields.serialize_field("done", &self.done())?;
        fields.serialize_field("metadata", &self.header.metadata)?;
        if let Some(error) = self.error() {
            fields.serialize_field("error", error)?;
        }
        if let Some(response) = self.response() {
            fields.serialize_field("response", response)?;
        }
        fields.end()
    }
}
