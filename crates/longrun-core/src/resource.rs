//! Resource rows, and what an operation does to them.
//!
//! An operation claims the resources it creates, changes or deletes. While it is unfinished it alone may
//! write their rows, and it writes them only together with its own record (C7). Which row a claim calls for
//! at each stage is a pure function, below: the author of a service writes no rollback of rows.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{IllegalStatusMove, Inconsistent, Invalid};
use crate::id::{OperationId, ResourceId, ResourceKind, Revision};
use crate::limits::ROW_NAME_CHARS_MAX;
use crate::payload::{Json, Payload};
use crate::plan::Source;
use crate::time::Timestamp;

/// Which resource: its type and its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceKey {
    /// The type, such as `compute.snapshot`.
    pub kind: ResourceKind,
    /// The id, unique within the type.
    pub id: ResourceId,
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// Where a resource stands. The moves between them are those of [`ResourceStatus::check_move`] (C21).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ResourceStatus {
    /// Being made.
    Creating,
    /// Usable.
    Ready,
    /// Damaged, or left behind by a rollback that an operator abandoned.
    Error,
    /// Being removed.
    Deleting,
}

impl ResourceStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Creating, Self::Ready, Self::Error, Self::Deleting];

    /// The name in upper case, as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Ready => "READY",
            Self::Error => "ERROR",
            Self::Deleting => "DELETING",
        }
    }

    /// Checks a move against the table of legal moves, which is this function; `None` stands for "does not exist".
    ///
    /// Staying where it is, is no move and always allowed, except for what does not exist.
    pub const fn check_move(from: Option<Self>, to: Option<Self>) -> Result<(), IllegalStatusMove> {
        use ResourceStatus::{Creating, Deleting, Error, Ready};
        match (from, to) {
            (None, Some(Creating))
            | (Some(Creating), Some(Creating | Ready | Deleting | Error))
            | (Some(Ready), Some(Ready | Deleting | Error))
            | (Some(Error), Some(Error | Deleting | Ready))
            | (Some(Deleting), None | Some(Deleting | Ready | Error)) => Ok(()),
            _ => Err(IllegalStatusMove { from, to }),
        }
    }
}

impl fmt::Display for ResourceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A resource as users see it, with what the engine knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Which resource.
    pub key: ResourceKey,
    /// What it belongs to: a folder, a network.
    pub parent: ResourceId,
    /// Its display name; may be empty, need not be unique. At most 256 characters, none of them a control character.
    pub name: String,
    /// Where it stands.
    pub status: ResourceStatus,
    /// How often the row was written.
    pub revision: Revision,
    /// When it was created.
    pub created_at: Timestamp,
    /// When the row was last written.
    pub modified_at: Timestamp,
    /// The unfinished operation that holds it, if there is one.
    pub operation: Option<OperationId>,
    /// The resource itself.
    pub body: Payload,
}

impl Row {
    /// Bytes that the row takes, nearly.
    pub fn byte_len(&self) -> usize {
        self.key.kind.as_str().len()
            + self.key.id.as_str().len()
            + self.parent.as_str().len()
            + self.name.len()
            + self.body.byte_len()
            + 64
    }
}

/// What an operation demands of a resource that it does not hold. It is checked in the commit that accepts the operation,
/// so nothing can come in between; afterwards it may change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// The resource is there and READY.
    Ready(ResourceKey),
    /// No resource of the kind belongs to the parent, not even one that is being made or removed.
    Childless {
        /// The kind of the children.
        kind: ResourceKind,
        /// The parent.
        parent: ResourceId,
    },
    /// The resources of the kind that belong to the parent are exactly these, those included that are being made or removed, and
    /// each is as it was. What the operation itself makes does not count: it is looked at before that is written.
    Children {
        /// The kind of the children.
        kind: ResourceKind,
        /// The parent.
        parent: ResourceId,
        /// The ids, in their order, and the revisions of their rows.
        children: Vec<(ResourceId, Revision)>,
    },
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(key) => write!(f, "{key} must be READY"),
            Self::Childless { kind, parent } => write!(f, "no {kind} may belong to {parent}"),
            Self::Children { kind, parent, .. } => {
                write!(f, "every {kind} that belongs to {parent} must be as it was")
            }
        }
    }
}

/// What an operation does to one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which resource.
    pub key: ResourceKey,
    /// Create, update or delete.
    pub intent: Intent,
}

/// The three things that can be done to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Make it. It shows as CREATING at once and as READY when the operation succeeds.
    Create {
        /// What it belongs to.
        parent: ResourceId,
        /// Its display name.
        name: String,
        /// The resource while it is being made.
        body: Payload,
        /// The resource once it is made: the value of this expression.
        becomes: Source,
    },
    /// Change it. It stays as it is until the operation succeeds.
    Update {
        /// The row as it was when the operation was accepted.
        before: Box<Row>,
        /// Its new display name.
        name: String,
        /// Its new status: READY after a change or a repair, ERROR when damage was found.
        status: ResourceStatus,
        /// Its new value.
        becomes: Source,
    },
    /// Remove it. It shows as DELETING at once.
    Delete {
        /// The row as it was when the operation was accepted.
        before: Box<Row>,
    },
}

/// How far an operation has come with its claims. Each stage calls for certain rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Accepted and going forward.
    Accepted,
    /// Rolling back.
    RollingBack,
    /// Done, with a response.
    Succeeded,
    /// Done, everything undone.
    RolledBack,
    /// Done, but an operator gave up the rollback.
    Abandoned,
}

/// One write of one row, to go into the operation's own commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowWrite {
    /// Which resource.
    pub key: ResourceKey,
    /// The revision that the stored row must have; `None` when it must not exist.
    pub expect: Option<Revision>,
    /// The operation that must hold the stored row; `None` when none may.
    pub holder: Option<OperationId>,
    /// The row to store, or `None` to remove it.
    pub put: Option<Row>,
    /// The row that this replaces, for index entries; `None` when there is none.
    pub replaces: Option<Row>,
}

impl Claim {
    /// The row that was there before the operation, if there was one.
    pub fn before(&self) -> Option<&Row> {
        match &self.intent {
            Intent::Create { .. } => None,
            Intent::Update { before, .. } | Intent::Delete { before } => Some(before),
        }
    }

    /// Bytes that the claim takes, nearly.
    pub fn byte_len(&self) -> usize {
        let made = match &self.intent {
            Intent::Create { parent, name, body, becomes } => {
                parent.as_str().len() + name.len() + body.byte_len() + becomes.byte_len()
            }
            Intent::Update { name, becomes, .. } => name.len() + becomes.byte_len(),
            Intent::Delete { .. } => 0,
        };
        64 + self.key.id.as_str().len() + made + self.before().map_or(0, Row::byte_len)
    }

    /// Checks that the claim can be accepted: its names fit and its moves are in the table.
    pub(crate) fn check(&self) -> Result<(), crate::error::PlanError> {
        let (from, to, name) = match &self.intent {
            Intent::Create { name, .. } => (None, Some(ResourceStatus::Creating), Some(name)),
            Intent::Update { before, name, status, .. } => (Some(before.status), Some(*status), Some(name)),
            Intent::Delete { before } => (Some(before.status), Some(ResourceStatus::Deleting), None),
        };
        ResourceStatus::check_move(from, to)?;
        if let Intent::Update { status: ResourceStatus::Creating | ResourceStatus::Deleting, .. } =
            self.intent
        {
            // Nobody would be there to lead it out again.
            return Err(crate::error::PlanError::Claim(Invalid::new("status", "must be READY or ERROR")));
        }
        let fits =
            |name: &String| name.chars().count() <= ROW_NAME_CHARS_MAX && !name.contains(char::is_control);
        if !name.is_none_or(fits) {
            let rule =
                format!("must be at most {ROW_NAME_CHARS_MAX} characters, none of them a control character");
            return Err(crate::error::PlanError::Claim(Invalid::new("name", rule)));
        }
        match self.before() {
            Some(before) if before.key != self.key => {
                Err(crate::error::PlanError::Claim(Invalid::new("before", "must be a row of the resource")))
            }
            _ => Ok(()),
        }
    }

    /// The revision of the row while the operation is at `stage`.
    ///
    /// Each stage that shows another row adds one, so the operation knows it without reading.
    fn revision(&self, stage: Stage, skipped_rollback: bool) -> Revision {
        let before = self.before().map_or(0, |row| row.revision.0);
        let creates = matches!(self.intent, Intent::Create { .. });
        let added = match stage {
            Stage::Accepted => 1,
            Stage::RollingBack => 1 + u64::from(creates),
            Stage::Succeeded => 2,
            Stage::RolledBack | Stage::Abandoned => 2 + u64::from(creates && !skipped_rollback),
        };
        Revision(before + added)
    }

    /// The row that the claim calls for at `stage`; `None` when it calls for none.
    fn row(
        &self,
        stage: Stage,
        skipped_rollback: bool,
        cx: &RowContext<'_>,
    ) -> Result<Option<Row>, Inconsistent> {
        let finished = matches!(stage, Stage::Succeeded | Stage::RolledBack | Stage::Abandoned);
        let shared = |row: Row, status, name: &str, body| Row {
            status,
            name: name.to_owned(),
            body,
            revision: self.revision(stage, skipped_rollback),
            modified_at: cx.now,
            operation: (!finished).then_some(cx.operation),
            ..row
        };
        let row = match (&self.intent, stage) {
            (Intent::Create { .. }, Stage::RolledBack) | (Intent::Delete { .. }, Stage::Succeeded) => None,
            (Intent::Create { parent, name, body, becomes }, stage) => {
                let status = match stage {
                    Stage::Accepted => ResourceStatus::Creating,
                    Stage::Succeeded => ResourceStatus::Ready,
                    Stage::RollingBack | Stage::RolledBack => ResourceStatus::Deleting,
                    Stage::Abandoned => ResourceStatus::Error,
                };
                let body = if stage == Stage::Succeeded { cx.value(body, becomes)? } else { body.clone() };
                Some(Row {
                    key: self.key.clone(),
                    parent: parent.clone(),
                    name: name.clone(),
                    status,
                    revision: self.revision(stage, skipped_rollback),
                    created_at: cx.created_at,
                    modified_at: cx.now,
                    operation: (!finished).then_some(cx.operation),
                    body,
                })
            }
            (Intent::Update { before, name, status, becomes }, Stage::Succeeded) => {
                let body = cx.value(&before.body, becomes)?;
                Some(shared((**before).clone(), *status, name, body))
            }
            (Intent::Update { before, .. } | Intent::Delete { before }, stage) => {
                let deletes = matches!(self.intent, Intent::Delete { .. });
                let status = match stage {
                    Stage::Abandoned => ResourceStatus::Error,
                    Stage::Accepted | Stage::RollingBack if deletes => ResourceStatus::Deleting,
                    _ => before.status,
                };
                Some(shared((**before).clone(), status, &before.name, before.body.clone()))
            }
        };
        Ok(row)
    }

    /// The write that takes the row from one stage to another; `None` when the row stays as it is.
    pub(crate) fn write(
        &self,
        from: Option<Stage>,
        to: Stage,
        cx: &RowContext<'_>,
    ) -> Result<Option<RowWrite>, Inconsistent> {
        let skipped = from != Some(Stage::RollingBack);
        let Some(from) = from else {
            if to == Stage::RolledBack {
                // It was too late before it began: nothing was claimed.
                return Ok(None);
            }
            return Ok(Some(RowWrite {
                key: self.key.clone(),
                expect: self.before().map(|row| row.revision),
                holder: None,
                put: self.row(to, skipped, cx)?,
                replaces: self.before().cloned(),
            }));
        };
        let shows_the_same = to == Stage::RollingBack && !matches!(self.intent, Intent::Create { .. });
        if from == to || shows_the_same {
            return Ok(None);
        }
        let replaces = self.row(from, skipped, cx)?;
        let put = self.row(to, skipped, cx)?;
        let status = |row: &Option<Row>| row.as_ref().map(|row| row.status);
        // A create that is cancelled before its first step goes straight from CREATING to nothing. Nobody
        // could have seen it DELETING, but the table says that is the way it went.
        let passed = match (from, to, &self.intent) {
            (Stage::Accepted, Stage::RolledBack, Intent::Create { .. }) => Some(ResourceStatus::Deleting),
            _ => status(&replaces),
        };
        ResourceStatus::check_move(passed, status(&put))
            .map_err(|error| Inconsistent::new(error.to_string()))?;
        Ok(Some(RowWrite {
            key: self.key.clone(),
            expect: Some(self.revision(from, skipped)),
            holder: Some(cx.operation),
            put,
            replaces,
        }))
    }
}

/// What rows are made of, beside their claim.
pub(crate) struct RowContext<'a> {
    pub(crate) operation: OperationId,
    pub(crate) created_at: Timestamp,
    pub(crate) now: Timestamp,
    /// The value of an expression, from the outputs of the steps.
    pub(crate) resolve: &'a dyn Fn(&Source) -> Result<Json, Inconsistent>,
}

impl RowContext<'_> {
    /// A new body with the type of an old one.
    fn value(&self, like: &Payload, source: &Source) -> Result<Payload, Inconsistent> {
        let json = (self.resolve)(source)?;
        Payload::new(like.type_url(), json).map_err(|error| Inconsistent::new(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::ResourceStatus::{self, Creating, Deleting, Error, Ready};

    #[test]
    fn c21_status_moves_only_along_the_table() {
        let legal: &[(Option<ResourceStatus>, Option<ResourceStatus>)] = &[
            (None, Some(Creating)),
            (Some(Creating), Some(Ready)),
            (Some(Creating), Some(Deleting)),
            (Some(Creating), Some(Error)),
            (Some(Ready), Some(Deleting)),
            (Some(Ready), Some(Error)),
            (Some(Error), Some(Deleting)),
            (Some(Error), Some(Ready)),
            (Some(Deleting), None),
            (Some(Deleting), Some(Ready)),
            (Some(Deleting), Some(Error)),
        ];
        let all: Vec<_> = ResourceStatus::ALL.into_iter().map(Some).chain([None]).collect();
        for &from in &all {
            for &to in &all {
                let stays = from == to && from.is_some();
                let verdict = ResourceStatus::check_move(from, to);
                assert_eq!(verdict.is_ok(), stays || legal.contains(&(from, to)), "{from:?} -> {to:?}");
                if let Err(error) = verdict {
                    assert_eq!((error.from, error.to), (from, to));
                }
            }
        }
    }
}
