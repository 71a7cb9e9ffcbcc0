//! The record forms of format version 1. Frozen: nothing here ever changes.
//!
//! Fields are in the order in which they are stored, variants are numbered by their place. Times are microseconds
//! since 1970, durations are milliseconds, codes are their numbers in the protocol.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bincode::{BorrowDecode, Encode};
use bytes::Bytes;
use bytestring::ByteString;
use longrun_core as domain;
use longrun_core::limits::{INTERVENTIONS_MAX, STEPS_MAX};
use longrun_core::{Attempt, Revision, StepIndex, Timestamp};

use crate::codec::CodecError;

type Decoded<T> = Result<T, CodecError>;

/// A value that breaks the rule of its type is damage that the checksum did not see.
pub(super) fn checked<T, E: Display>(result: Result<T, E>) -> Decoded<T> {
    result.map_err(|error| CodecError::Content(error.to_string()))
}

pub(super) fn time(micros: i64) -> Decoded<Timestamp> {
    checked(Timestamp::from_unix_micros(micros))
}

fn code(number: u8) -> Decoded<domain::Code> {
    domain::Code::from_number(number)
        .ok_or_else(|| CodecError::Content(format!("code {number} is not known")))
}

/// Records up to this size are shared, whatever the part.
const SHARED_BYTES: usize = 4096;
/// Larger ones are shared with parts of a share of them.
const SHARED_PARTS_MAX: usize = 8;

/// The bytes that a form was decoded from. What comes back shares them: nothing is copied, and a record is one piece of
/// memory however many names and payloads are in it.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a>(&'a Bytes);

impl<'a> Stored<'a> {
    pub(super) const fn new(record: &'a Bytes) -> Self {
        Self(record)
    }

    fn text(self, part: &str) -> Decoded<ByteString> {
        checked(ByteString::try_from(self.part(part.as_bytes())))
    }

    fn json(self, part: &[u8]) -> Decoded<domain::Json> {
        checked(domain::Json::from_stored(self.part(part)))
    }

    /// Whoever keeps a part keeps the record. So a small part of a large one is copied.
    fn part(self, part: &[u8]) -> Bytes {
        let is_small = part.len() < self.0.len() / SHARED_PARTS_MAX;
        if is_small && self.0.len() > SHARED_BYTES {
            Bytes::copy_from_slice(part)
        } else {
            self.0.slice_ref(part)
        }
    }
}

const fn steps(step: StepIndex) -> u16 {
    step.0
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Payload<'a> {
    type_url: &'a str,
    json: &'a [u8],
}

impl<'a> From<&'a domain::Payload> for Payload<'a> {
    fn from(payload: &'a domain::Payload) -> Self {
        Self { type_url: payload.type_url(), json: payload.json().bytes() }
    }
}

impl Payload<'_> {
    fn into_core(self, stored: Stored<'_>) -> Decoded<domain::Payload> {
        checked(domain::Payload::new(stored.text(self.type_url)?, stored.json(self.json)?))
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Status<'a> {
    code: u8,
    message: &'a str,
    details: Vec<Payload<'a>>,
}

impl<'a> From<&'a domain::Status> for Status<'a> {
    fn from(status: &'a domain::Status) -> Self {
        Self {
            code: status.code().number(),
            message: status.message(),
            details: status.details().iter().map(Payload::from).collect(),
        }
    }
}

impl Status<'_> {
    fn into_core(self, stored: Stored<'_>) -> Decoded<domain::Status> {
        let mut status = domain::Status::new(code(self.code)?, self.message);
        for detail in self.details {
            status = status.with_detail(detail.into_core(stored)?);
        }
        Ok(status)
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Key<'a> {
    kind: &'a str,
    id: &'a str,
}

impl<'a> From<&'a domain::ResourceKey> for Key<'a> {
    fn from(key: &'a domain::ResourceKey) -> Self {
        Self { kind: key.kind.as_str(), id: key.id.as_str() }
    }
}

impl Key<'_> {
    fn into_core(self, stored: Stored<'_>) -> Decoded<domain::ResourceKey> {
        let kind = checked(domain::ResourceKind::from_shared(stored.text(self.kind)?))?;
        Ok(domain::ResourceKey { kind, id: checked(domain::ResourceId::from_shared(stored.text(self.id)?))? })
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Header<'a> {
    id: &'a str,
    kind: &'a str,
    kind_version: u32,
    description: &'a str,
    created_at: i64,
    created_by: &'a str,
    request: Payload<'a>,
    metadata: Payload<'a>,
    response_type: &'a str,
    resources: Vec<Key<'a>>,
    deadline: Option<i64>,
    idempotency: Option<[u8; 32]>,
}

impl<'a> From<&'a domain::Header> for Header<'a> {
    fn from(header: &'a domain::Header) -> Self {
        Self {
            id: header.id.as_str(),
            kind: header.kind.as_str(),
            kind_version: header.kind_version,
            description: &header.description,
            created_at: header.created_at.unix_micros(),
            created_by: header.created_by.as_str(),
            request: (&header.request).into(),
            metadata: (&header.metadata).into(),
            response_type: &header.response_type,
            resources: header.resources.iter().map(Key::from).collect(),
            deadline: header.deadline.map(Timestamp::unix_micros),
            idempotency: header.idempotency,
        }
    }
}

impl Header<'_> {
    fn into_core(self, stored: Stored<'_>) -> Decoded<domain::Header> {
        Ok(domain::Header {
            id: checked(domain::OperationId::parse(self.id))?,
            kind: checked(domain::KindName::from_shared(stored.text(self.kind)?))?,
            kind_version: self.kind_version,
            description: self.description.to_owned(),
            created_at: time(self.created_at)?,
            created_by: checked(domain::Caller::from_shared(stored.text(self.created_by)?))?,
            request: self.request.into_core(stored)?,
            metadata: self.metadata.into_core(stored)?,
            response_type: stored.text(self.response_type)?,
            resources: self.resources.into_iter().map(|one| one.into_core(stored)).collect::<Decoded<_>>()?,
            deadline: self.deadline.map(time).transpose()?,
            idempotency: self.idempotency,
        })
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) enum Source<'a> {
    Literal(&'a [u8]),
    Output(u16),
}

impl<'a> From<&'a domain::Source> for Source<'a> {
    fn from(source: &'a domain::Source) -> Self {
        match source {
            domain::Source::Literal(json) => Self::Literal(json.bytes()),
            domain::Source::Output(step) => Self::Output(step.0),
        }
    }
}

impl Source<'_> {
    fn into_core(self, stored: Stored<'_>) -> Decoded<domain::Source> {
        Ok(match self {
            Self::Literal(bytes) => domain::Source::Literal(stored.json(bytes)?),
            Self::Output(step) => domain::Source::Output(StepIndex(step)),
        })
    }
}

/// Not recursive: no stored bytes can make the decoder nest.
#[derive(Encode, BorrowDecode)]
pub(super) enum Input<'a> {
    One(Source<'a>),
    Tuple(Vec<Source<'a>>),
}

impl<'a> From<&'a domain::Input> for Input<'a> {
    fn from(input: &'a domain::Input) -> Self {
        match input {
            domain::Input::One(source) => Self::One(source.into()),
            domain::Input::Tuple(sources) => Self::Tuple(sources.iter().map(Source::from).collect()),
        }
    }
}

impl Input<'_> {
    fn into_core(self, stored: Stored<'_>) -> Decoded<domain::Input> {
        Ok(match self {
            Self::One(source) => domain::Input::One(source.into_core(stored)?),
            Self::Tuple(sources) => domain::Input::Tuple(
                sources.into_iter().map(|one| one.into_core(stored)).collect::<Decoded<_>>()?,
            ),
        })
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Backoff {
    first_millis: u64,
    longest_millis: u64,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<domain::Backoff> for Backoff {
    fn from(backoff: domain::Backoff) -> Self {
        Self { first_millis: millis(backoff.first), longest_millis: millis(backoff.longest) }
    }
}

impl From<Backoff> for domain::Backoff {
    fn from(stored: Backoff) -> Self {
        Self {
            first: Duration::from_millis(stored.first_millis),
            longest: Duration::from_millis(stored.longest_millis),
        }
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Policy {
    timeout_millis: u64,
    grace_millis: u64,
    runs_max: u32,
    backoff: Backoff,
    undo_backoff: Backoff,
    blocked_after: u32,
}

impl From<domain::StepPolicy> for Policy {
    fn from(policy: domain::StepPolicy) -> Self {
        Self {
            timeout_millis: millis(policy.timeout),
            grace_millis: millis(policy.grace),
            runs_max: policy.runs_max,
            backoff: policy.backoff.into(),
            undo_backoff: policy.undo_backoff.into(),
            blocked_after: policy.blocked_after,
        }
    }
}

impl From<Policy> for domain::StepPolicy {
    fn from(stored: Policy) -> Self {
        Self {
            timeout: Duration::from_millis(stored.timeout_millis),
            grace: Duration::from_millis(stored.grace_millis),
            runs_max: stored.runs_max,
            backoff: stored.backoff.into(),
            undo_backoff: stored.undo_backoff.into(),
            blocked_after: stored.blocked_after,
        }
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Step<'a> {
    name: &'a str,
    version: u32,
    input: Input<'a>,
    after: Vec<u16>,
    policy: Option<Policy>,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Plan<'a> {
    steps: Vec<Step<'a>>,
    output: Source<'a>,
    point_of_no_return: Option<u16>,
    parallel: u16,
    claims: Vec<Claim<'a>>,
}

impl<'a> From<&'a domain::Plan> for Plan<'a> {
    fn from(plan: &'a domain::Plan) -> Self {
        let step = |spec: &'a domain::StepSpec| Step {
            name: spec.name.as_str(),
            version: spec.version,
            input: (&spec.input).into(),
            after: spec.after.iter().copied().map(steps).collect(),
            policy: spec.policy.map(Policy::from),
        };
        Self {
            steps: plan.steps().iter().map(step).collect(),
            output: plan.output().into(),
            point_of_no_return: plan.point_of_no_return().map(steps),
            parallel: plan.parallel(),
            claims: plan.claims().iter().map(Claim::from).collect(),
        }
    }
}

impl Plan<'_> {
    fn into_core(self, stored: Stored<'_>) -> Decoded<domain::Plan> {
        if self.steps.len() > STEPS_MAX {
            return Err(CodecError::Content("a plan has too many steps".to_owned()));
        }
        let step = |step: Step<'_>| {
            Ok(domain::StepSpec {
                name: checked(domain::StepName::from_shared(stored.text(step.name)?))?,
                version: step.version,
                input: step.input.into_core(stored)?,
                after: step.after.into_iter().map(StepIndex).collect(),
                policy: step.policy.map(domain::StepPolicy::from),
            })
        };
        checked(domain::Plan::new(domain::PlanParts {
            steps: self.steps.into_iter().map(step).collect::<Decoded<_>>()?,
            output: self.output.into_core(stored)?,
            point_of_no_return: self.point_of_no_return.map(StepIndex),
            parallel: self.parallel,
            claims: self.claims.into_iter().map(|one| one.into_core(stored)).collect::<Decoded<_>>()?,
        }))
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) enum ResourceStatus {
    Creating,
    Ready,
    Error,
    Deleting,
}

impl From<domain::ResourceStatus> for ResourceStatus {
    fn from(status: domain::ResourceStatus) -> Self {
        match status {
            domain::ResourceStatus::Creating => Self::Creating,
            domain::ResourceStatus::Ready => Self::Ready,
            domain::ResourceStatus::Error => Self::Error,
            domain::ResourceStatus::Deleting => Self::Deleting,
        }
    }
}

impl From<ResourceStatus> for domain::ResourceStatus {
    fn from(stored: ResourceStatus) -> Self {
        match stored {
            ResourceStatus::Creating => Self::Creating,
            ResourceStatus::Ready => Self::Ready,
            ResourceStatus::Error => Self::Error,
            ResourceStatus::Deleting => Self::Deleting,
        }
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Row<'a> {
    key: Key<'a>,
    parent: &'a str,
    name: &'a str,
    status: ResourceStatus,
    revision: u64,
    created_at: i64,
    modified_at: i64,
    operation: Option<&'a str>,
    body: Payload<'a>,
}

impl<'a> From<&'a domain::Row> for Row<'a> {
    fn from(row: &'a domain::Row) -> Self {
        Self {
            key: (&row.key).into(),
            parent: row.parent.as_str(),
            name: &row.name,
            status: row.status.into(),
            revision: row.revision.0,
            created_at: row.created_at.unix_micros(),
            modified_at: row.modified_at.unix_micros(),
            operation: row.operation.as_ref().map(domain::OperationId::as_str),
            body: (&row.body).into(),
        }
    }
}

impl Row<'_> {
    pub(super) fn into_core(self, stored: Stored<'_>) -> Decoded<domain::Row> {
        Ok(domain::Row {
            key: self.key.into_core(stored)?,
            parent: checked(domain::ResourceId::from_shared(stored.text(self.parent)?))?,
            name: self.name.to_owned(),
            status: self.status.into(),
            revision: Revision(self.revision),
            created_at: time(self.created_at)?,
            modified_at: time(self.modified_at)?,
            operation: self
                .operation
                .map(domain::OperationId::parse)
                .transpose()
                .map_err(|error| CodecError::Content(error.to_string()))?,
            body: self.body.into_core(stored)?,
        })
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) enum Intent<'a> {
    Create { parent: &'a str, name: &'a str, body: Payload<'a>, becomes: Source<'a> },
    Update { before: Row<'a>, name: &'a str, status: ResourceStatus, becomes: Source<'a> },
    Delete { before: Row<'a> },
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Claim<'a> {
    key: Key<'a>,
    intent: Intent<'a>,
}

impl<'a> From<&'a domain::Claim> for Claim<'a> {
    fn from(claim: &'a domain::Claim) -> Self {
        let intent = match &claim.intent {
            domain::Intent::Create { parent, name, body, becomes } => {
                Intent::Create { parent: parent.as_str(), name, body: body.into(), becomes: becomes.into() }
            }
            domain::Intent::Update { before, name, status, becomes } => Intent::Update {
                before: (&**before).into(),
                name,
                status: (*status).into(),
                becomes: becomes.into(),
            },
            domain::Intent::Delete { before } => Intent::Delete { before: (&**before).into() },
        };
        Self { key: (&claim.key).into(), intent }
    }
}

impl Claim<'_> {
    fn into_core(self, stored: Stored<'_>) -> Decoded<domain::Claim> {
        let intent = match self.intent {
            Intent::Create { parent, name, body, becomes } => domain::Intent::Create {
                parent: checked(domain::ResourceId::from_shared(stored.text(parent)?))?,
                name: name.to_owned(),
                body: body.into_core(stored)?,
                becomes: becomes.into_core(stored)?,
            },
            Intent::Update { before, name, status, becomes } => domain::Intent::Update {
                before: Box::new(before.into_core(stored)?),
                name: name.to_owned(),
                status: status.into(),
                becomes: becomes.into_core(stored)?,
            },
            Intent::Delete { before } => {
                domain::Intent::Delete { before: Box::new(before.into_core(stored)?) }
            }
        };
        Ok(domain::Claim { key: self.key.into_core(stored)?, intent })
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Progress {
    done: u64,
    total: u64,
    unit: u8,
}

impl From<domain::Progress> for Progress {
    fn from(progress: domain::Progress) -> Self {
        let unit = match progress.unit {
            domain::ProgressUnit::Bytes => 1,
            _ => 2,
        };
        Self { done: progress.done, total: progress.total, unit }
    }
}

impl Progress {
    fn into_core(self) -> Decoded<domain::Progress> {
        let unit = match self.unit {
            1 => domain::ProgressUnit::Bytes,
            2 => domain::ProgressUnit::Items,
            other => return Err(CodecError::Content(format!("progress unit {other} is not known"))),
        };
        Ok(domain::Progress { done: self.done, total: self.total, unit })
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) enum Verb {
    RetryNow,
    MarkUndone(u16),
    SkipUndo(u16),
    Abandon,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Intervention<'a> {
    at: i64,
    by: &'a str,
    verb: Verb,
    reason: &'a str,
}

impl<'a> From<&'a domain::Intervention> for Intervention<'a> {
    fn from(intervention: &'a domain::Intervention) -> Self {
        let verb = match intervention.verb {
            domain::Verb::RetryNow => Verb::RetryNow,
            domain::Verb::MarkUndone(step) => Verb::MarkUndone(step.0),
            domain::Verb::SkipUndo(step) => Verb::SkipUndo(step.0),
            domain::Verb::Abandon => Verb::Abandon,
        };
        let at = intervention.at.unix_micros();
        Self { at, by: intervention.by.as_str(), verb, reason: &intervention.reason }
    }
}

impl Intervention<'_> {
    fn into_core(self, stored: Stored<'_>) -> Decoded<domain::Intervention> {
        let verb = match self.verb {
            Verb::RetryNow => domain::Verb::RetryNow,
            Verb::MarkUndone(step) => domain::Verb::MarkUndone(StepIndex(step)),
            Verb::SkipUndo(step) => domain::Verb::SkipUndo(StepIndex(step)),
            Verb::Abandon => domain::Verb::Abandon,
        };
        let by = checked(domain::Caller::from_shared(stored.text(self.by)?))?;
        Ok(domain::Intervention { at: time(self.at)?, by, verb, reason: self.reason.to_owned() })
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) enum Event<'a> {
    StepStarted {
        step: u16,
        attempt: u32,
    },
    StepDone {
        step: u16,
        output: &'a [u8],
    },
    StepFailedForNow {
        step: u16,
        attempt: u32,
        failures: u32,
        may_have_run: bool,
        error: Status<'a>,
        again_at: i64,
    },
    StepFailed {
        step: u16,
        may_have_run: bool,
        error: Status<'a>,
    },
    StepInterrupted {
        step: u16,
        attempt: u32,
        interruptions: u32,
        again_at: i64,
    },
    Checkpoint {
        step: u16,
        checkpoint: &'a [u8],
        progress: Option<Progress>,
    },
    RollbackDecided {
        cause: Status<'a>,
        step: Option<u16>,
    },
    Undone {
        step: u16,
    },
    UndoFailed {
        step: u16,
        failures: u32,
        error: Status<'a>,
        again_at: i64,
    },
    UndoInterrupted {
        step: u16,
        interruptions: u32,
        again_at: Option<i64>,
    },
    UndoWaitOver {
        step: u16,
    },
    Intervened(Intervention<'a>),
    Succeeded {
        response: Payload<'a>,
    },
    RolledBack,
}

impl<'a> From<&'a domain::Event> for Event<'a> {
    fn from(event: &'a domain::Event) -> Self {
        use domain::Event as E;
        match event {
            E::StepStarted { step, attempt } => Self::StepStarted { step: step.0, attempt: attempt.0 },
            E::StepDone { step, output } => Self::StepDone { step: step.0, output: output.bytes() },
            E::StepFailedForNow { step, attempt, failures, may_have_run, error, again_at } => {
                Self::StepFailedForNow {
                    step: step.0,
                    attempt: attempt.0,
                    failures: *failures,
                    may_have_run: *may_have_run,
                    error: error.into(),
                    again_at: again_at.unix_micros(),
                }
            }
            E::StepFailed { step, may_have_run, error } => {
                Self::StepFailed { step: step.0, may_have_run: *may_have_run, error: error.into() }
            }
            E::StepInterrupted { step, attempt, interruptions, again_at } => Self::StepInterrupted {
                step: step.0,
                attempt: attempt.0,
                interruptions: *interruptions,
                again_at: again_at.unix_micros(),
            },
            E::Checkpoint { step, checkpoint, progress } => Self::Checkpoint {
                step: step.0,
                checkpoint: checkpoint.bytes(),
                progress: progress.map(Progress::from),
            },
            E::RollbackDecided { cause, step } => {
                Self::RollbackDecided { cause: cause.into(), step: step.map(steps) }
            }
            E::Undone { step } => Self::Undone { step: step.0 },
            E::UndoFailed { step, failures, error, again_at } => Self::UndoFailed {
                step: step.0,
                failures: *failures,
                error: error.into(),
                again_at: again_at.unix_micros(),
            },
            E::UndoInterrupted { step, interruptions, again_at } => Self::UndoInterrupted {
                step: step.0,
                interruptions: *interruptions,
                again_at: again_at.map(Timestamp::unix_micros),
            },
            E::UndoWaitOver { step } => Self::UndoWaitOver { step: step.0 },
            E::Intervened(intervention) => Self::Intervened(intervention.into()),
            E::Succeeded { response } => Self::Succeeded { response: response.into() },
            E::RolledBack => Self::RolledBack,
        }
    }
}

impl Event<'_> {
    fn into_core(self, stored: Stored<'_>) -> Decoded<domain::Event> {
        use domain::Event as E;
        Ok(match self {
            Self::StepStarted { step, attempt } => {
                E::StepStarted { step: StepIndex(step), attempt: Attempt(attempt) }
            }
            Self::StepDone { step, output } => {
                E::StepDone { step: StepIndex(step), output: stored.json(output)? }
            }
            Self::StepFailedForNow { step, attempt, failures, may_have_run, error, again_at } => {
                E::StepFailedForNow {
                    step: StepIndex(step),
                    attempt: Attempt(attempt),
                    failures,
                    may_have_run,
                    error: error.into_core(stored)?,
                    again_at: time(again_at)?,
                }
            }
            Self::StepFailed { step, may_have_run, error } => {
                E::StepFailed { step: StepIndex(step), may_have_run, error: error.into_core(stored)? }
            }
            Self::StepInterrupted { step, attempt, interruptions, again_at } => E::StepInterrupted {
                step: StepIndex(step),
                attempt: Attempt(attempt),
                interruptions,
                again_at: time(again_at)?,
            },
            Self::Checkpoint { step, checkpoint, progress } => E::Checkpoint {
                step: StepIndex(step),
                checkpoint: stored.json(checkpoint)?,
                progress: progress.map(Progress::into_core).transpose()?,
            },
            Self::RollbackDecided { cause, step } => {
                E::RollbackDecided { cause: cause.into_core(stored)?, step: step.map(StepIndex) }
            }
            Self::Undone { step } => E::Undone { step: StepIndex(step) },
            Self::UndoFailed { step, failures, error, again_at } => E::UndoFailed {
                step: StepIndex(step),
                failures,
                error: error.into_core(stored)?,
                again_at: time(again_at)?,
            },
            Self::UndoInterrupted { step, interruptions, again_at } => E::UndoInterrupted {
                step: StepIndex(step),
                interruptions,
                again_at: again_at.map(time).transpose()?,
            },
            Self::UndoWaitOver { step } => E::UndoWaitOver { step: StepIndex(step) },
            Self::Intervened(intervention) => E::Intervened(intervention.into_core(stored)?),
            Self::Succeeded { response } => E::Succeeded { response: response.into_core(stored)? },
            Self::RolledBack => E::RolledBack,
        })
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Entry<'a> {
    first: u64,
    revision: u64,
    at: i64,
    events: Vec<Event<'a>>,
}

impl<'a> From<&'a domain::Entry> for Entry<'a> {
    fn from(entry: &'a domain::Entry) -> Self {
        Self {
            first: entry.first.0,
            revision: entry.revision.0,
            at: entry.at.unix_micros(),
            events: entry.events.iter().map(Event::from).collect(),
        }
    }
}

impl Entry<'_> {
    pub(super) fn into_core(self, stored: Stored<'_>) -> Decoded<domain::Entry> {
        Ok(domain::Entry {
            first: Revision(self.first),
            revision: Revision(self.revision),
            at: time(self.at)?,
            events: self.events.into_iter().map(|one| one.into_core(stored)).collect::<Decoded<_>>()?,
        })
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) enum Outcome<'a> {
    Response(Payload<'a>),
    Error(Status<'a>),
    Abandoned(Status<'a>),
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Finished<'a> {
    outcome: Outcome<'a>,
    failed_step: Option<&'a str>,
    attempts: Vec<u32>,
    interventions: Vec<Intervention<'a>>,
}

impl<'a> From<&'a domain::Finished> for Finished<'a> {
    fn from(finished: &'a domain::Finished) -> Self {
        let outcome = match &finished.outcome {
            domain::Outcome::Response(response) => Outcome::Response(response.into()),
            domain::Outcome::Error(error) => Outcome::Error(error.into()),
            domain::Outcome::Abandoned(error) => Outcome::Abandoned(error.into()),
        };
        Self {
            outcome,
            failed_step: finished.failed_step.as_ref().map(domain::StepName::as_str),
            attempts: finished.attempts.clone(),
            interventions: finished.interventions.iter().map(Intervention::from).collect(),
        }
    }
}

impl Finished<'_> {
    fn into_core(self, stored: Stored<'_>) -> Decoded<domain::Finished> {
        // One more than the limit: an abandon is always let through.
        if self.attempts.len() > STEPS_MAX || self.interventions.len() > INTERVENTIONS_MAX + 1 {
            return Err(CodecError::Content("a finished operation is over its limits".to_owned()));
        }
        let outcome = match self.outcome {
            Outcome::Response(response) => domain::Outcome::Response(response.into_core(stored)?),
            Outcome::Error(error) => domain::Outcome::Error(error.into_core(stored)?),
            Outcome::Abandoned(error) => domain::Outcome::Abandoned(error.into_core(stored)?),
        };
        Ok(domain::Finished {
            outcome,
            failed_step: match self.failed_step {
                Some(step) => Some(checked(domain::StepName::from_shared(stored.text(step)?))?),
                None => None,
            },
            attempts: self.attempts,
            interventions: self
                .interventions
                .into_iter()
                .map(|one| one.into_core(stored))
                .collect::<Decoded<_>>()?,
        })
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) enum Head<'a> {
    Active { header: Header<'a>, plan: Plan<'a>, first: Entry<'a> },
    Finished { header: Header<'a>, revision: u64, modified_at: i64, finished: Finished<'a> },
}

impl<'a> From<&'a super::Head> for Head<'a> {
    fn from(head: &'a super::Head) -> Self {
        match head {
            super::Head::Active { header, plan, first } => {
                Self::Active { header: (&**header).into(), plan: (&**plan).into(), first: first.into() }
            }
            super::Head::Finished { header, revision, modified_at, finished } => Self::Finished {
                header: (&**header).into(),
                revision: revision.0,
                modified_at: modified_at.unix_micros(),
                finished: (&**finished).into(),
            },
        }
    }
}

impl Head<'_> {
    pub(super) fn into_core(self, stored: Stored<'_>) -> Decoded<super::Head> {
        Ok(match self {
            Self::Active { header, plan, first } => super::Head::Active {
                header: Arc::new(header.into_core(stored)?),
                plan: Arc::new(plan.into_core(stored)?),
                first: first.into_core(stored)?,
            },
            Self::Finished { header, revision, modified_at, finished } => super::Head::Finished {
                header: Arc::new(header.into_core(stored)?),
                revision: Revision(revision),
                modified_at: time(modified_at)?,
                finished: Arc::new(finished.into_core(stored)?),
            },
        })
    }
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Ledger<'a> {
    pub(super) operation: &'a str,
    pub(super) fingerprint: [u8; 32],
    pub(super) expires_at: Option<i64>,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Item {
    pub(super) incarnation: [u8; 16],
    pub(super) references: u64,
    pub(super) confirmed: bool,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Reference {
    pub(super) incarnation: [u8; 16],
    pub(super) key_checksum: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a part of a record of so many bytes keeps all of the record.
    fn shares(record: usize, part: usize) -> bool {
        let record = Bytes::from(vec![0; record]);
        let kept = Stored::new(&record).part(&record[1..=part]);
        assert_eq!(kept, record[1..=part]);
        record.as_ptr_range().contains(&kept.as_ptr())
    }

    #[test]
    fn a_small_part_of_a_large_record_is_copied_and_any_other_shared() {
        assert!(shares(SHARED_BYTES, 1));
        let large = SHARED_BYTES + SHARED_PARTS_MAX;
        assert!(!shares(large, large / SHARED_PARTS_MAX - 1));
        assert!(shares(large, large / SHARED_PARTS_MAX));
        assert!(shares(large, large / SHARED_PARTS_MAX + 1));
    }

    #[test]
    fn a_plan_may_have_as_many_steps_as_one_can_be_accepted_with() {
        let record = Bytes::from_static(b"step");
        let decoded = |steps: usize| {
            let name = std::str::from_utf8(&record).unwrap();
            let step = |_| Step {
                name,
                version: 1,
                input: Input::Tuple(Vec::new()),
                after: Vec::new(),
                policy: None,
            };
            let steps = (0..steps).map(step).collect();
            let output = Source::Output(0);
            let plan = Plan { steps, output, point_of_no_return: None, parallel: 1, claims: Vec::new() };
            plan.into_core(Stored::new(&record))
        };
        assert_eq!(decoded(STEPS_MAX).unwrap().steps().len(), STEPS_MAX);
        assert!(decoded(STEPS_MAX + 1).is_err());
    }

    #[test]
    fn a_result_may_have_as_many_lines_as_one_can_end_with() {
        let record = Bytes::from_static(b"ann");
        let decoded = |steps: usize, acts: usize| {
            let by = std::str::from_utf8(&record).unwrap();
            let status = Status { code: 1, message: by, details: Vec::new() };
            let finished = Finished {
                outcome: Outcome::Error(status),
                failed_step: None,
                attempts: vec![1; steps],
                interventions: (0..acts)
                    .map(|_| Intervention { at: 0, by, verb: Verb::RetryNow, reason: by })
                    .collect(),
            };
            finished.into_core(Stored::new(&record))
        };
        let largest = decoded(STEPS_MAX, INTERVENTIONS_MAX + 1).unwrap();
        assert_eq!((largest.attempts.len(), largest.interventions.len()), (STEPS_MAX, INTERVENTIONS_MAX + 1));
        assert!(decoded(STEPS_MAX + 1, 0).is_err() && decoded(0, INTERVENTIONS_MAX + 2).is_err());
    }
}
