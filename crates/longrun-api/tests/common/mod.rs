//! Operations in every phase, made by the pure core.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::time::Duration;

use longrun_core::{
    Acceptance, Applied, Caller, Code, Command, Execution, Header, IdPrefix, Input, Json, KindName,
    Operation, OperationId, Payload, Plan, PlanParts, Progress, ProgressUnit, Source, Status, StepIndex,
    StepName, StepPolicy, StepReport, StepSpec, Timestamp, Verb,
};
use serde_json::{Value, json};

const COMPUTE: &str = "type.googleapis.com/yandex.cloud.compute.v1";
pub const STRUCT: &str = "type.googleapis.com/google.protobuf.Struct";
pub const EMPTY: &str = "type.googleapis.com/google.protobuf.Empty";

/// So many seconds after every operation here is accepted.
pub fn at(seconds: u64) -> Timestamp {
    let accepted = Timestamp::from_unix_millis(1_535_567_475_311).unwrap();
    accepted.saturating_add(Duration::from_secs(seconds))
}

pub fn payload(type_url: &str, value: &Value) -> Payload {
    Payload::encode("test", type_url, value).unwrap()
}

pub fn caller() -> Caller {
    Caller::new("ajealice").unwrap()
}

/// The snapshot that a create makes, as the service stores it.
pub fn snapshot() -> Value {
    json!({
        "id": "fd8snapshot0", "folderId": "b1gfolder", "createdAt": at(0), "name": "before-upgrade",
        "description": "nightly, žluťoučký", "labels": {"env": "prod", "team": ""},
        "storageSize": 9_007_199_254_740_993_u64, "diskSize": 10_737_418_240_u64,
        "productIds": ["f2eprod1", "f2eprod2"], "status": "READY", "sourceDiskId": "epddisk",
    })
}

/// What an operation is about.
pub struct Subject {
    pub description: &'static str,
    pub metadata: Payload,
    pub response_type: String,
    pub response: Value,
}

pub fn create() -> Subject {
    let metadata = json!({ "snapshotId": "fd8snapshot0", "diskId": "epddisk", "folderId": "b1gfolder" });
    Subject {
        description: "Create snapshot",
        metadata: payload(&format!("{COMPUTE}.CreateSnapshotMetadata"), &metadata),
        response_type: format!("{COMPUTE}.Snapshot"),
        response: snapshot(),
    }
}

pub fn update() -> Subject {
    let metadata = json!({ "snapshotId": "fd8snapshot0", "folderId": "b1gfolder" });
    let metadata = payload(&format!("{COMPUTE}.UpdateSnapshotMetadata"), &metadata);
    Subject { description: "Update snapshot", metadata, ..create() }
}

pub fn delete() -> Subject {
    let metadata = json!({ "snapshotId": "fd8snapshot0", "folderId": "b1gfolder" });
    Subject {
        description: "Delete snapshot",
        metadata: payload(&format!("{COMPUTE}.DeleteSnapshotMetadata"), &metadata),
        response_type: EMPTY.to_owned(),
        response: json!({}),
    }
}

/// Of a service that has registered no message for what it says.
pub fn unregistered() -> Subject {
    let metadata = json!({ "cake": "sacher", "layers": 2, "notes": [true, null] });
    Subject {
        description: "Bake a cake",
        metadata: payload(STRUCT, &metadata),
        response_type: "type.googleapis.com/example.Cake".to_owned(),
        response: json!("a cake"),
    }
}

/// One operation of two steps, being told what happens.
pub struct Story {
    execution: Execution,
    subject: Subject,
    now: Timestamp,
}

impl Story {
    pub fn of(subject: Subject) -> Self {
        let header = Header {
            id: OperationId::generate(IdPrefix::new("fd8").unwrap(), at(0), 7),
            kind: KindName::new("compute.snapshot.create").unwrap(),
            kind_version: 1,
            description: subject.description.to_owned(),
            created_at: at(0),
            created_by: caller(),
            request: payload(STRUCT, &json!({})),
            metadata: subject.metadata.clone(),
            response_type: subject.response_type.as_str().into(),
            resources: Vec::new(),
            deadline: None,
            idempotency: None,
        };
        let plan = Plan::new(PlanParts {
            steps: vec![
                step("copy-disk", Source::Literal(Json::encode("input", "epddisk").unwrap())),
                step("verify-copy", Source::Output(StepIndex(0))),
            ],
            output: Source::Output(StepIndex(1)),
            point_of_no_return: None,
            parallel: 1,
            claims: Vec::new(),
        });
        let acceptance = Acceptance { header, plan: plan.unwrap(), start: true };
        let (execution, _) = Execution::accept(acceptance).unwrap();
        Self { execution, subject, now: at(0) }
    }

    fn tell(mut self, command: &Command) -> Self {
        self.now = self.now.saturating_add(Duration::from_secs(1));
        let mut events = Vec::new();
        self.execution.handle(command, self.now, &mut events).unwrap();
        if !events.is_empty() {
            self.execution.seal(events, self.now).unwrap();
        }
        self
    }

    fn report(self, step: u16, report: StepReport) -> Self {
        let step = StepIndex(step);
        let attempt = self.execution.attempt(step);
        self.tell(&Command::Report { step, attempt, report })
    }

    pub fn copied(self, done: u64) -> Self {
        let step = StepIndex(0);
        let attempt = self.execution.attempt(step);
        let progress = Progress { done, total: 10_737_418_240, unit: ProgressUnit::Bytes };
        let checkpoint = Json::encode("checkpoint", &done).unwrap();
        self.tell(&Command::Checkpoint { step, attempt, checkpoint, progress: Some(progress) })
    }

    pub fn copy_done(self) -> Self {
        self.report(0, StepReport::Done(Json::encode("output", "copied").unwrap()))
    }

    pub fn all_done(self) -> Self {
        let response = Json::encode("output", &self.subject.response).unwrap();
        self.copy_done().report(1, StepReport::Done(response))
    }

    /// The second step fails for good, with a detail of which no message is known.
    pub fn verify_fails(self) -> Self {
        let detail = payload("type.googleapis.com/example.Sector", &json!({ "sector": 4096 }));
        let error = Status::new(Code::DataLoss, "the copy differs from the disk").with_detail(detail);
        self.report(1, StepReport::Failed { error, applied: Applied::Unknown, retryable: false })
    }

    pub fn cancel(self) -> Self {
        let by = caller();
        self.tell(&Command::Cancel { by })
    }

    /// The copy notices that it is to stop.
    pub fn copy_stops(self) -> Self {
        let error = Status::new(Code::Cancelled, "stopped");
        self.report(0, StepReport::Failed { error, applied: Applied::Unknown, retryable: true })
    }

    fn undo(mut self, step: u16, result: Result<(), Status>) -> Self {
        // Past whatever is waited between two undos.
        self.now = self.now.saturating_add(Duration::from_secs(3600));
        let step = StepIndex(step);
        let failures = self.execution.undo_failures(step);
        self.tell(&Command::Resume).tell(&Command::UndoReport { step, failures, result })
    }

    pub fn undone(self, step: u16) -> Self {
        self.undo(step, Ok(()))
    }

    pub fn undo_fails(self, step: u16) -> Self {
        self.undo(step, Err(Status::new(Code::Unavailable, "the chunk store is not there")))
    }

    pub fn abandon(self) -> Self {
        let (by, reason) = (caller(), "the disk is scrapped".to_owned());
        self.tell(&Command::Intervene { by, verb: Verb::Abandon, reason })
    }

    pub fn operation(&self) -> Operation {
        self.execution.operation()
    }
}

fn step(name: &str, input: Source) -> StepSpec {
    let policy = StepPolicy { blocked_after: 2, ..StepPolicy::default() };
    let name = StepName::new(name).unwrap();
    StepSpec { name, version: 1, input: Input::One(input), after: Vec::new(), policy: Some(policy) }
}

/// An operation in every phase, by name.
pub fn views() -> Vec<(&'static str, Operation)> {
    let create = || Story::of(create());
    let failed = || create().copy_done().verify_fails();
    let blocked = || failed().undo_fails(1).undo_fails(1);
    [
        ("pending", create()),
        ("progress", create().copied(4_294_967_297)),
        ("rolling_back", failed()),
        ("blocked", blocked()),
        ("done_error", failed().undone(1).undone(0)),
        ("abandoned", blocked().abandon()),
        ("cancelling", create().copied(4_294_967_297).cancel()),
        ("cancelled", create().copied(4_294_967_297).cancel().copy_stops().undone(0)),
        ("done_response", create().all_done()),
        ("updated", Story::of(update()).all_done()),
        ("deleting", Story::of(delete())),
        ("deleted", Story::of(delete()).all_done()),
        ("unregistered", Story::of(unregistered()).all_done()),
    ]
    .map(|(name, story)| (name, story.operation()))
    .into()
}

/// One of the [`views`].
pub fn view(name: &str) -> Operation {
    views().into_iter().find(|(found, _)| *found == name).unwrap().1
}
