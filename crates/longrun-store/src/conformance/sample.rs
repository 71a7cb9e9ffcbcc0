//! Operations for tests of stores: short to write, the same in every run.

use std::time::Duration;

use longrun_core::{
    Acceptance, Applied, Backoff, Caller, Claim, Code, Command, Execution, Fence, Header, IdPrefix, Input,
    Intent, Json, KindName, OperationId, Payload, Plan, PlanParts, Progress, ProgressUnit, ResourceId,
    ResourceKey, ResourceKind, ResourceStatus, Revision, Row, Source, Status, StepIndex, StepName,
    StepPolicy, StepReport, StepSpec, Timestamp, Verb,
};

use crate::store::{Commit, LedgerClaim};

/// Second 0 of all samples, in seconds since 1970.
const BORN: i64 = 1_600_000_000;

/// So many seconds after second 0.
pub fn time(seconds: i64) -> Timestamp {
    Timestamp::from_unix_micros((BORN + seconds) * 1_000_000).unwrap()
}

/// The id of sample number `n`. A greater number is newer.
pub fn operation_id(n: u64) -> OperationId {
    OperationId::generate(IdPrefix::new("smp").unwrap(), time(i64::try_from(n).unwrap()), n)
}

/// The key of a resource of the usual kind.
pub fn resource_key(id: &str) -> ResourceKey {
    ResourceKey { kind: resource_kind(), id: ResourceId::new(id).unwrap() }
}

/// The usual kind of resource.
pub fn resource_kind() -> ResourceKind {
    ResourceKind::new("sample.thing").unwrap()
}

/// The id of a parent.
pub fn parent(id: &str) -> ResourceId {
    ResourceId::new(id).unwrap()
}

/// JSON of a text.
pub fn json(text: &str) -> Json {
    Json::encode("sample", text).unwrap()
}

/// A typed payload of a text.
pub fn payload(text: &str) -> Payload {
    Payload::new("types.sample/Thing", json(text)).unwrap()
}

/// A caller.
pub fn caller() -> Caller {
    Caller::new("sample-caller").unwrap()
}

/// A failure.
pub fn failure(message: &str) -> Status {
    Status::new(Code::Unavailable, message).with_detail(payload("detail"))
}

/// A claim that creates a resource; when the operation is done, its body is the output of step 0.
pub fn creates(id: &str, of: &str) -> Claim {
    let intent = Intent::Create {
        parent: parent(of),
        name: format!("name of {id}"),
        body: payload("being made"),
        becomes: Source::Output(StepIndex(0)),
    };
    Claim { key: resource_key(id), intent }
}

/// A claim that changes a resource.
pub fn updates(before: Row) -> Claim {
    let intent = Intent::Update {
        name: "new name".to_owned(),
        status: ResourceStatus::Ready,
        becomes: Source::Literal(json("updated")),
        before: Box::new(before.clone()),
    };
    Claim { key: before.key, intent }
}

/// A claim that removes a resource.
pub fn deletes(before: Row) -> Claim {
    Claim { key: before.key.clone(), intent: Intent::Delete { before: Box::new(before) } }
}

/// A row that no operation holds.
pub fn row(id: &str, of: &str, revision: u64) -> Row {
    Row {
        key: resource_key(id),
        parent: parent(of),
        name: format!("name of {id}"),
        status: ResourceStatus::Ready,
        revision: Revision(revision),
        created_at: time(-100),
        modified_at: time(-50),
        operation: None,
        body: payload("before"),
    }
}

/// The digest of idempotency key number `n`.
pub fn digest(n: u8) -> [u8; 32] {
    let mut digest = [0xD1; 32];
    digest[31] = n;
    digest
}

/// The policy of every step: three runs, waits of seconds, blocked after two failed undos.
pub fn policy() -> StepPolicy {
    let seconds = Duration::from_secs;
    StepPolicy {
        runs_max: 3,
        backoff: Backoff { first: seconds(2), longest: seconds(8) },
        undo_backoff: Backoff { first: seconds(4), longest: seconds(16) },
        blocked_after: 2,
        ..StepPolicy::default()
    }
}

/// An operation that is about to be accepted.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What never changes.
    pub header: Header,
    /// The plan.
    pub parts: PlanParts,
    /// Start the first steps in the first commit.
    pub start: bool,
    /// The idempotency key to claim.
    pub ledger: Option<LedgerClaim>,
}

impl Draft {
    /// Sample number `n`: steps that follow each other.
    pub fn chain(n: u64, steps: u16) -> Self {
        Self::of(n, steps, |step| match step.checked_sub(1) {
            None => Input::One(Source::Literal(json("input"))),
            Some(before) => {
                Input::Tuple(vec![Source::Output(StepIndex(before)), Source::Literal(json("and this"))])
            }
        })
    }

    /// Sample number `n`: steps beside each other.
    pub fn wide(n: u64, steps: u16) -> Self {
        Self::of(n, steps, |_| Input::One(Source::Literal(json("input"))))
    }

    fn of(n: u64, steps: u16, input: impl Fn(u16) -> Input) -> Self {
        let id = operation_id(n);
        let spec = |step: u16| StepSpec {
            name: StepName::new(format!("step-{step}")).unwrap(),
            version: 1,
            input: input(step),
            after: Vec::new(),
            policy: Some(policy()),
        };
        let header = Header {
            id,
            kind: KindName::new("sample.make").unwrap(),
            kind_version: 3,
            description: format!("sample {n}"),
            created_at: time(i64::try_from(n).unwrap()),
            created_by: caller(),
            request: payload("request"),
            metadata: payload("metadata"),
            response_type: "types.sample/Thing".into(),
            resources: Vec::new(),
            deadline: None,
            idempotency: None,
        };
        let parts = PlanParts {
            steps: (0..steps).map(spec).collect(),
            output: Source::Output(StepIndex(steps - 1)),
            point_of_no_return: None,
            parallel: 8,
            claims: Vec::new(),
        };
        Self { header, parts, start: true, ledger: None }
    }

    /// Adds a claim.
    #[must_use]
    pub fn with(mut self, claim: Claim) -> Self {
        self.header.resources.push(claim.key.clone());
        self.parts.claims.push(claim);
        self
    }

    /// Claims idempotency key number `n`.
    #[must_use]
    pub fn with_key(mut self, n: u8) -> Self {
        self.header.idempotency = Some(digest(n));
        self.ledger = Some(LedgerClaim { digest: digest(n), fingerprint: [n; 32] });
        self
    }

    /// Gives it a deadline.
    #[must_use]
    pub fn with_deadline(mut self, at: Timestamp) -> Self {
        self.header.deadline = Some(at);
        self
    }

    /// Accepts it: the operation, and its first commit.
    pub fn accept(self, fence: Fence) -> (Live, Commit) {
        let Self { header, parts, start, ledger } = self;
        let now = header.created_at;
        let plan = Plan::new(parts).unwrap();
        let (execution, turn) = Execution::accept(Acceptance { header, plan, start }).unwrap();
        let mut commit = Commit::new(&execution, turn, fence);
        if let Some(claim) = ledger {
            commit = commit.with_ledger_claim(claim);
        }
        (Live { execution, now }, commit)
    }
}

/// An operation in memory, one commit after the other.
#[derive(Clone, Debug)]
pub struct Live {
    /// The operation.
    pub execution: Execution,
    /// The time of its next turn.
    pub now: Timestamp,
}

impl Live {
    /// Its id.
    pub fn id(&self) -> OperationId {
        self.execution.id()
    }

    /// One turn of several commands.
    pub fn turn(&mut self, fence: Fence, commands: &[Command]) -> Commit {
        let mut events = Vec::new();
        for command in commands {
            self.execution.handle(command, self.now, &mut events).unwrap();
        }
        let turn = self.execution.seal(events, self.now).unwrap();
        Commit::new(&self.execution, turn, fence)
    }

    /// Moves the clock.
    #[must_use]
    pub fn at(mut self, seconds: i64) -> Self {
        self.now = time(seconds);
        self
    }

    fn report(&self, step: u16, report: StepReport) -> Command {
        let step = StepIndex(step);
        Command::Report { step, attempt: self.execution.attempt(step), report }
    }

    /// A step is done.
    pub fn done(&mut self, fence: Fence, step: u16) -> Commit {
        let command = self.report(step, StepReport::Done(json(&format!("output {step}"))));
        self.turn(fence, &[command])
    }

    /// A run failed.
    pub fn fails(&mut self, fence: Fence, step: u16, retryable: bool) -> Commit {
        let (error, applied) = (failure("the run failed"), Applied::Unknown);
        let command = self.report(step, StepReport::Failed { error, applied, retryable });
        self.turn(fence, &[command])
    }

    /// A run failed and did certainly nothing.
    pub fn fails_without_effect(&mut self, fence: Fence, step: u16) -> Commit {
        let (error, applied) = (failure("the run was refused"), Applied::No);
        let command = self.report(step, StepReport::Failed { error, applied, retryable: false });
        self.turn(fence, &[command])
    }

    /// A run saved checkpoint number `n`.
    pub fn checkpoint(&mut self, fence: Fence, step: u16, n: u64) -> Commit {
        let step = StepIndex(step);
        let command = Command::Checkpoint {
            step,
            attempt: self.execution.attempt(step),
            checkpoint: json(&format!("checkpoint {n}")),
            progress: Some(Progress { done: n, total: 1000, unit: ProgressUnit::Items }),
        };
        self.turn(fence, &[command])
    }

    /// A caller cancels it.
    pub fn cancel(&mut self, fence: Fence) -> Commit {
        self.turn(fence, &[Command::Cancel { by: caller() }])
    }

    /// The clock is looked at.
    pub fn resume(&mut self, fence: Fence) -> Commit {
        self.turn(fence, &[Command::Resume])
    }

    /// It is taken up after a crash.
    pub fn adopt(&mut self, fence: Fence) -> Commit {
        self.turn(fence, &[Command::Adopt])
    }

    /// A step is undone.
    pub fn undone(&mut self, fence: Fence, step: u16) -> Commit {
        self.undo_report(fence, step, Ok(()))
    }

    /// An undo failed.
    pub fn undo_fails(&mut self, fence: Fence, step: u16) -> Commit {
        self.undo_report(fence, step, Err(failure("the undo failed")))
    }

    fn undo_report(&mut self, fence: Fence, step: u16, result: Result<(), Status>) -> Commit {
        let step = StepIndex(step);
        let failures = self.execution.undo_failures(step);
        self.turn(fence, &[Command::UndoReport { step, failures, result }])
    }

    /// An operator steps in.
    pub fn intervene(&mut self, fence: Fence, verb: Verb) -> Commit {
        self.turn(fence, &[Command::Intervene { by: caller(), verb, reason: "because".to_owned() }])
    }
}

/// Fails when two executions differ, and says in what, if it shows: what clients see, what there is to do, what the next turn
/// writes.
pub fn assert_same(found: &Execution, expected: &Execution) {
    assert_eq!(found.header(), expected.header());
    assert_eq!(found.revision(), expected.revision());
    assert_eq!(found.modified_at(), expected.modified_at());
    assert_eq!(found.operation(), expected.operation());
    assert_eq!(found.plan(), expected.plan());
    assert_eq!(found.finished(), expected.finished());
    assert_eq!(found.due_at(), expected.due_at());
    for seconds in [-1000, 0, 10, 1000, 1_000_000] {
        assert_eq!(
            found.next(time(seconds)),
            expected.next(time(seconds)),
            "what there is to do at {seconds}"
        );
    }
    for step in expected.plan().into_iter().flat_map(|plan| plan.indices()) {
        assert_eq!(found.attempt(step), expected.attempt(step), "attempt of step {step}");
        assert_eq!(found.checkpoint(step), expected.checkpoint(step), "checkpoint of step {step}");
        assert_eq!(found.undoable(step), expected.undoable(step), "undoable of step {step}");
        assert_eq!(found.undo_failures(step), expected.undo_failures(step), "undo failures of step {step}");
        assert_eq!(found.input(step), expected.input(step), "input of step {step}");
    }
    if !expected.is_done() {
        let cancelled = |execution: &Execution| {
            let mut live = Live { execution: execution.clone(), now: time(1_000_000) };
            format!("{:?}", live.cancel(Fence(1)))
        };
        assert_eq!(cancelled(found), cancelled(expected), "what the next turn writes");
    }
    assert_eq!(found, expected);
}
