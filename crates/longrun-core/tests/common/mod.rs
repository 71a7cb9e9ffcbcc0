//! A workbench: one operation, a store that checks what it is given, and short words for both.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod ledger;
pub mod show;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use longrun_core::{
    Acceptance, Applied, Attempt, Backoff, Caller, Claim, Code, Command, Entry, Event, Execution, Header,
    IdPrefix, Inconsistent, Input, Intent, Json, KindName, Next, OperationId, Payload, Plan, PlanParts,
    Progress, ProgressUnit, Refusal, ResourceId, ResourceKey, ResourceKind, ResourceStatus, Revision, Row,
    Source, Status, StepIndex, StepName, StepPolicy, StepReport, StepSpec, Timestamp, Turn, Verb,
};

pub use ledger::Ledger;
pub use show::{assert_text, show_events, show_next, show_refusal, show_write};
pub use store::{MERGED_BYTES_MAX, Store, entry_bytes, repeats};

/// When every operation here is accepted.
pub const BORN: i64 = 1_000_000;
/// Seconds after which an operation with a deadline is late.
pub const DEADLINE: i64 = 1000;

/// `seconds` after the operation was accepted.
pub fn t(seconds: i64) -> Timestamp {
    Timestamp::from_unix_millis((BORN + seconds) * 1000).unwrap()
}

pub fn s(step: u16) -> StepIndex {
    StepIndex(step)
}

pub fn json(text: &str) -> Json {
    Json::encode("test", text).unwrap()
}

/// What a step gives when it is done.
pub fn output(step: u16) -> Json {
    json(&format!("out-{step}"))
}

pub fn payload(text: &str) -> Payload {
    Payload::new("type.test/Thing", json(text)).unwrap()
}

pub fn caller(name: &str) -> Caller {
    Caller::new(name).unwrap()
}

pub fn error(message: &str) -> Status {
    Status::new(Code::Unavailable, message)
}

pub fn progress(done: u64) -> Progress {
    Progress { done, total: 100, unit: ProgressUnit::Items }
}

/// Two runs, waits of 2 to 8 s between them; undos wait 4 to 16 s and show as blocked after two failures.
/// The first waits differ so that a mix-up of the two shows.
pub fn policy() -> StepPolicy {
    let seconds = Duration::from_secs;
    StepPolicy {
        runs_max: 2,
        backoff: Backoff { first: seconds(2), longest: seconds(8) },
        undo_backoff: Backoff { first: seconds(4), longest: seconds(16) },
        blocked_after: 2,
        ..StepPolicy::default()
    }
}

pub fn key(id: &str) -> ResourceKey {
    ResourceKey { kind: ResourceKind::new("test.thing").unwrap(), id: ResourceId::new(id).unwrap() }
}

/// A row as it was before the operation.
pub fn row(id: &str, revision: u64, status: ResourceStatus) -> Row {
    Row {
        key: key(id),
        parent: ResourceId::new("folder").unwrap(),
        name: format!("old {id}"),
        status,
        revision: Revision(revision),
        created_at: t(-100),
        modified_at: t(-50),
        operation: None,
        body: payload("before"),
    }
}

pub fn creates(id: &str, becomes: Source) -> Claim {
    let parent = ResourceId::new("folder").unwrap();
    let intent = Intent::Create { parent, name: format!("new {id}"), body: payload("being made"), becomes };
    Claim { key: key(id), intent }
}

pub fn updates(before: Row, becomes: Source) -> Claim {
    let (name, status) = ("changed".to_owned(), ResourceStatus::Ready);
    Claim {
        key: before.key.clone(),
        intent: Intent::Update { before: Box::new(before), name, status, becomes },
    }
}

pub fn deletes(before: Row) -> Claim {
    Claim { key: before.key.clone(), intent: Intent::Delete { before: Box::new(before) } }
}

/// A plan being written down.
#[derive(Clone, Debug)]
pub struct Draft {
    pub parts: PlanParts,
    pub deadline: Option<i64>,
    pub start: bool,
}

impl Draft {
    /// Steps and the steps whose output each uses.
    pub fn of(needs: &[&[u16]]) -> Self {
        let steps = needs.iter().enumerate().map(|(place, needs)| step_spec(place, needs)).collect();
        let output = Source::Output(s(u16::try_from(needs.len() - 1).unwrap()));
        let parts = PlanParts { steps, output, point_of_no_return: None, parallel: 8, claims: Vec::new() };
        Self { parts, deadline: None, start: true }
    }

    /// One step after the other.
    pub fn chain(steps: u16) -> Self {
        let needs: Vec<Vec<u16>> = (0..steps).map(|step| step.checked_sub(1).into_iter().collect()).collect();
        Self::of(&needs.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// 0, then 1 and 2 beside each other, then 3.
    pub fn diamond() -> Self {
        Self::of(&[&[], &[0], &[0], &[1, 2]])
    }

    pub fn no_return(mut self, step: u16) -> Self {
        self.parts.point_of_no_return = Some(s(step));
        self
    }

    pub fn parallel(mut self, parallel: u16) -> Self {
        self.parts.parallel = parallel;
        self
    }

    pub fn deadline(mut self) -> Self {
        self.deadline = Some(DEADLINE);
        self
    }

    pub fn claims(mut self, claims: Vec<Claim>) -> Self {
        self.parts.claims = claims;
        self
    }

    /// One of each: `new` is created, `upd` changed, `del` deleted.
    pub fn three_claims(self) -> Self {
        let last = self.parts.output.clone();
        self.claims(vec![
            creates("new", last),
            updates(row("upd", 7, ResourceStatus::Ready), Source::Output(s(0))),
            deletes(row("del", 3, ResourceStatus::Error)),
        ])
    }

    pub fn three_claims_if(self, wanted: bool) -> Self {
        if wanted { self.three_claims() } else { self }
    }

    pub fn policy(mut self, policy: StepPolicy) -> Self {
        for step in &mut self.parts.steps {
            step.policy = Some(policy);
        }
        self
    }

    /// Accepted, but nothing starts yet.
    pub fn backlog(mut self) -> Self {
        self.start = false;
        self
    }

    pub fn header(&self) -> Header {
        Header {
            id: OperationId::generate(IdPrefix::new("tst").unwrap(), t(0), 7),
            kind: KindName::new("test.make").unwrap(),
            kind_version: 1,
            description: "a test".to_owned(),
            created_at: t(0),
            created_by: caller("alice"),
            request: payload("request"),
            metadata: payload("metadata"),
            response_type: "type.test/Thing".into(),
            resources: self.parts.claims.iter().map(|claim| claim.key.clone()).collect(),
            deadline: self.deadline.map(t),
            idempotency: None,
        }
    }

    pub fn accept(self) -> Bench {
        Bench::new(self)
    }
}

fn step_spec(place: usize, needs: &[u16]) -> StepSpec {
    let input = match needs {
        [] => Input::One(Source::Literal(json("given"))),
        [one] => Input::One(Source::Output(s(*one))),
        many => Input::Tuple(many.iter().map(|&on| Source::Output(s(on))).collect()),
    };
    let name = StepName::new(format!("step-{place}")).unwrap();
    StepSpec { name, version: 1, input, after: Vec::new(), policy: Some(policy()) }
}

type Handle = fn(&mut Execution, &Command, Timestamp, &mut Vec<Event>) -> Result<(), Refusal>;

/// One operation, live and stored. Every command that is told to it is followed by all checks we have.
#[derive(Clone)]
pub struct Bench {
    pub header: Arc<Header>,
    pub plan: Arc<Plan>,
    pub live: Execution,
    pub store: Store,
    pub ledger: Ledger,
    pub turns: Vec<Turn>,
    /// What was decided for each turn. The entry of a turn may hold less, or what earlier turns left in it.
    pub said: Vec<Vec<Event>>,
    pub now: Timestamp,
}

impl Bench {
    fn new(draft: Draft) -> Self {
        let (header, start) = (draft.header(), draft.start);
        let plan = Plan::new(draft.parts).unwrap();
        let acceptance = Acceptance { header: header.clone(), plan: plan.clone(), start };
        let (live, turn) = Execution::accept(acceptance).unwrap();
        let mut bench = Self {
            header: Arc::new(header),
            store: Store::new(&plan),
            ledger: Ledger::new(&plan),
            plan: Arc::new(plan),
            live,
            turns: Vec::new(),
            said: Vec::new(),
            now: t(0),
        };
        let events = turn.entry.events.clone();
        bench.commit(turn, events);
        bench
    }

    /// Sets the clock, which may go back.
    pub fn at(&mut self, seconds: i64) -> &mut Self {
        self.now = t(seconds);
        self
    }

    pub fn later(&mut self, seconds: u64) -> &mut Self {
        self.now = self.now.saturating_add(Duration::from_secs(seconds));
        self
    }

    /// Gives a command, stores the turn, and checks that what is stored is what lives.
    pub fn try_tell(&mut self, command: &Command) -> Result<Vec<Event>, Refusal> {
        let rest = self.resting(command);
        let verdict = self.try_give(command, Execution::handle);
        match (rest, &verdict) {
            (Ok((first, then)), Ok(events)) => {
                assert_eq!(
                    [first, then].concat(),
                    *events,
                    "a rest before the start changes what is decided"
                );
            }
            (Err(rest), Err(refusal)) => assert_eq!(rest, *refusal),
            (rest, verdict) => panic!("{command:?} gave {verdict:?}, and {rest:?} at rest"),
        }
        verdict
    }

    /// The same for an operation that no driver works on.
    pub fn try_tell_at_rest(&mut self, command: &Command) -> Result<Vec<Event>, Refusal> {
        self.try_give(command, Execution::handle_at_rest)
    }

    /// What a command gives at rest, and what a driver that comes then adds.
    fn resting(&self, command: &Command) -> Result<(Vec<Event>, Vec<Event>), Refusal> {
        let (mut live, mut first, mut then) = (self.live.clone(), Vec::new(), Vec::new());
        live.handle_at_rest(command, self.now, &mut first)?;
        let starts = |event: &Event| matches!(event, Event::StepStarted { .. });
        assert!(!first.iter().any(starts), "{command:?} at rest: {first:?}");
        live.handle(&Command::Resume, self.now, &mut then)?;
        Ok((first, then))
    }

    fn try_give(&mut self, command: &Command, handle: Handle) -> Result<Vec<Event>, Refusal> {
        let before = self.live.clone();
        let mut events = Vec::new();
        let verdict = handle(&mut self.live, command, self.now, &mut events);
        if let Err(refusal) = verdict {
            assert!(events.is_empty(), "refused, with events: {events:?}");
            assert_eq!(before, self.live, "refused, yet changed: {command:?}");
            return Err(refusal);
        }
        if events.is_empty() {
            assert_eq!(before, self.live, "no event, yet changed: {command:?}");
            return Ok(events);
        }
        self.seal(events.clone());
        Ok(events)
    }

    /// Ends a turn of one or several commands.
    pub fn seal(&mut self, events: Vec<Event>) {
        if !events.is_empty() {
            let turn = self.live.seal(events.clone(), self.now).unwrap();
            self.commit(turn, events);
        }
    }

    pub fn tell(&mut self, command: Command) -> &mut Self {
        if let Err(refusal) = self.try_tell(&command) {
            panic!("{command:?} was refused: {refusal}");
        }
        self
    }

    pub fn refuses(&mut self, command: Command) -> Refusal {
        match self.try_tell(&command) {
            Err(refusal) => refusal,
            Ok(events) => panic!("{command:?} gave {events:?}"),
        }
    }

    fn commit(&mut self, turn: Turn, events: Vec<Event>) {
        let replaced = self.store.journal.get(&turn.entry.first).cloned();
        self.store.commit(&turn);
        self.ledger.note(&events);
        assert_eq!(self.live.check(), Ok(()));
        self.check_merged(&turn.entry, replaced.as_ref(), &events);
        self.said.push(events);
        self.turns.push(turn);
        self.check_restored();
        self.ledger.check_next(&self.live.next(self.now));
        for step in self.plan.indices() {
            assert_eq!(self.live.owes_undo(step), self.ledger.owes_undo(step), "undo of {step}");
        }
        self.check_due();
        if self.live.is_done() {
            self.store.check_done(&self.plan, &self.live.operation());
        }
    }

    /// An entry takes the place of the one before only when nothing but what repeats happened in both.
    fn check_merged(&self, entry: &Entry, replaced: Option<&Entry>, events: &[Event]) {
        let Some(replaced) = replaced else {
            return assert_eq!(entry.events, events, "by itself, it is the turn");
        };
        assert!(entry.first > Revision::FIRST, "the first entry is part of the head record");
        let both: Vec<&Event> = replaced.events.iter().chain(events).collect();
        assert!(both.iter().all(|event| repeats(event)), "merged across a hard event: {both:?}");
        assert!(!events.is_empty() && !replaced.events.is_empty());
        assert!(entry_bytes(entry) <= MERGED_BYTES_MAX, "{} bytes merged", entry_bytes(entry));
        assert!(entry.events.iter().all(|event| both.contains(&event)), "an event that nobody decided");
        assert_eq!(entry.events.last(), events.last(), "the newest is always needed");
    }

    /// What the store holds gives the same operation.
    fn check_restored(&self) {
        let restored = self.restored();
        assert_eq!(restored.operation(), self.live.operation());
        for at in [Timestamp::MIN, self.now, Timestamp::MAX] {
            assert_eq!(restored.next(at), self.live.next(at));
        }
        assert_eq!(restored.due_at(), self.live.due_at());
        for step in self.plan.indices() {
            assert_eq!(restored.checkpoint(step), self.live.checkpoint(step));
            assert_eq!(restored.input(step), self.live.input(step));
            assert_eq!(restored.undoable(step), self.live.undoable(step));
            assert_eq!(restored.undo_failures(step), self.live.undo_failures(step));
        }
        assert_eq!(restored, self.live);
        // Of an end the store keeps no more than this.
        if let Some(finished) = restored.finished() {
            let (header, revision, at) = (&self.header, restored.revision(), restored.modified_at());
            let read = Execution::restore_finished(Arc::clone(header), revision, at, Arc::clone(finished));
            assert_eq!(read, self.live);
        }
    }

    pub fn restored(&self) -> Execution {
        self.restored_with(|_| {}).unwrap()
    }

    /// From a journal that was changed.
    pub fn restored_with(&self, change: impl FnOnce(&mut Vec<Entry>)) -> Result<Execution, Inconsistent> {
        let mut entries = self.store.journal.values().cloned().collect();
        change(&mut entries);
        Execution::restore(Arc::clone(&self.header), Arc::clone(&self.plan), entries)
    }

    /// At the time under which the store keeps it there is something to do, and just before there is not.
    fn check_due(&self) {
        let Some(due) = self.live.due_at() else {
            return assert!(self.live.is_done(), "not done and never due");
        };
        assert!(self.has_work_at(due), "nothing to do when due at {due}");
        if due != self.header.created_at {
            assert!(!self.has_work_at(due.saturating_sub(Duration::from_micros(1))), "due too late: {due}");
        }
        // A wake-up in the past must have an effect, else a driver that obeys it never sleeps.
        if self.live.next(self.now).wake_at.is_some_and(|at| at <= self.now) {
            assert!(!self.resumed_at(self.now).is_empty(), "woken for nothing");
        }
    }

    fn has_work_at(&self, at: Timestamp) -> bool {
        let next = self.live.next(at);
        !next.run.is_empty() || !next.undo.is_empty() || !self.resumed_at(at).is_empty()
    }

    fn resumed_at(&self, at: Timestamp) -> Vec<Event> {
        let mut events = Vec::new();
        self.live.clone().handle(&Command::Resume, at, &mut events).unwrap();
        events
    }

    /// The process dies and another takes the operation up.
    pub fn crash(&mut self) -> &mut Self {
        self.live = self.restored();
        self.tell(Command::Adopt)
    }

    pub fn next(&self) -> Next {
        self.live.next(self.now)
    }

    pub fn done(&mut self, step: u16) -> &mut Self {
        let command = self.reports_done(step);
        self.tell(command)
    }

    pub fn fails(&mut self, step: u16, applied: Applied, retryable: bool) -> &mut Self {
        let command = self.reports_failure(step, "boom", applied, retryable);
        self.tell(command)
    }

    pub fn undone(&mut self, step: u16) -> &mut Self {
        let command = self.reports_undo(step, Ok(()));
        self.tell(command)
    }

    pub fn undo_fails(&mut self, step: u16) -> &mut Self {
        let command = self.reports_undo(step, Err(error("cannot undo")));
        self.tell(command)
    }

    pub fn cancel(&mut self) -> &mut Self {
        self.tell(cancel())
    }

    pub fn saves(&mut self, step: u16, checkpoint: &str) -> &mut Self {
        let attempt = self.live.attempt(s(step));
        let checkpoint = json(checkpoint);
        self.tell(Command::Checkpoint { step: s(step), attempt, checkpoint, progress: None })
    }

    pub fn reports_done(&self, step: u16) -> Command {
        let attempt = self.live.attempt(s(step));
        Command::Report { step: s(step), attempt, report: StepReport::Done(output(step)) }
    }

    pub fn reports_failure(&self, step: u16, why: &str, applied: Applied, retryable: bool) -> Command {
        let attempt = self.live.attempt(s(step));
        let report = StepReport::Failed { error: error(why), applied, retryable };
        Command::Report { step: s(step), attempt, report }
    }

    pub fn reports_undo(&self, step: u16, result: Result<(), Status>) -> Command {
        Command::UndoReport { step: s(step), failures: self.live.undo_failures(s(step)), result }
    }

    /// Everything succeeds from now on. Gives the number of turns it took.
    pub fn drive(&mut self) -> usize {
        let turns = self.turns.len();
        let bound = 4 * self.plan.steps().len() + 8;
        for _ in 0..bound {
            if self.live.is_done() {
                return self.turns.len() - turns;
            }
            let next = self.next();
            if let Some(&StepIndex(step)) = next.run.first() {
                self.done(step);
            } else if let Some(&StepIndex(step)) = next.undo.first() {
                self.undone(step);
            } else {
                self.now = next.wake_at.map_or(self.now, |at| at.max(self.now));
                self.tell(Command::Resume);
            }
        }
        panic!("not done after {bound} turns: {:?}", self.live);
    }
}

pub fn cancel() -> Command {
    Command::Cancel { by: caller("alice") }
}

pub fn verb(verb: Verb) -> Command {
    Command::Intervene { by: caller("olga"), verb, reason: "ticket 12".to_owned() }
}

pub fn verb_without_reason(verb: Verb) -> Command {
    Command::Intervene { by: caller("olga"), verb, reason: String::new() }
}

pub fn attempt(number: u32) -> Attempt {
    Attempt(number)
}
