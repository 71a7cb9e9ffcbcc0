//! Typed sequences of commands against one operation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longrun_core::execution::Undoable;
use longrun_core::{
    Acceptance, Applied, Attempt, Caller, Code, Command, Entry, Event, Execution, Header, IdPrefix, Input,
    Json, KindName, OperationId, Payload, Plan, PlanParts, Revision, Source, Status, StepIndex, StepName,
    StepReport, StepSpec, Timestamp, Turn, Verb,
};
use longrun_testkit::sim::invariants::durable::{End, Story};

/// Bytes as decisions; zero when they run out.
struct Dice<'a>(&'a [u8]);

impl Dice<'_> {
    fn roll(&mut self, sides: u8) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first % sides.max(1)
    }
}

/// Any commands in any order keep the invariants of the operation, and what was stored restores to the same. A model in memory,
/// the oracle of the simulation, is told what happened and has to be of the same mind.
pub fn commands(data: &[u8]) {
    let mut dice = Dice(data);
    let Some((mut execution, turn)) = accept(&mut dice) else { return };
    let (header, plan) = (Arc::clone(execution.header()), execution.plan().cloned());
    let mut journal = BTreeMap::new();
    let mut story = plan.as_deref().map(|plan| Story::new(plan, header.created_at));
    tell(&mut story, &execution, &turn.entry.events, header.created_at);
    store(&mut journal, turn);
    let mut now = Timestamp::UNIX_EPOCH;
    while !dice.0.is_empty() && !execution.is_done() {
        now = now.saturating_add(Duration::from_millis(u64::from(dice.roll(255)) * 10));
        let command = command(&mut dice, &execution);
        // What a visitor asks for is decided without the driver, now and then.
        let visits = matches!(command, Command::Cancel { .. } | Command::Intervene { .. });
        let at_rest = visits && now.unix_millis() / 10 % 4 == 0;
        let handle = if at_rest { Execution::handle_at_rest } else { Execution::handle };
        let mut events = Vec::new();
        let before = execution.operation();
        if handle(&mut execution, &command, now, &mut events).is_err() {
            assert_eq!(before, execution.operation(), "a refusal changed something");
            continue;
        }
        assert_eq!(execution.check(), Ok(()));
        if events.is_empty() {
            continue;
        }
        let happened = events.clone();
        let turn = execution.seal(events, now).expect("what was decided can be sealed");
        tell(&mut story, &execution, &happened, now);
        store(&mut journal, turn);
        if let Some(plan) = plan.clone().filter(|_| !execution.is_done()) {
            let restored = Execution::restore(Arc::clone(&header), plan, journal.values().cloned());
            let restored = restored.expect("what was stored can be restored");
            assert_eq!(restored.operation(), execution.operation());
            assert_eq!(restored.next(now), execution.next(now));
            assert_eq!(restored.due_at(), execution.due_at());
        }
    }
    nothing_follows(&mut dice, &mut execution, now);
}

/// What is done stays as it is, whatever comes late (C5).
fn nothing_follows(dice: &mut Dice<'_>, execution: &mut Execution, now: Timestamp) {
    let end = execution.operation();
    while execution.is_done() && !dice.0.is_empty() {
        let mut events = Vec::new();
        let command = command(dice, execution);
        _ = execution.handle(&command, now, &mut events);
        assert_eq!((events, execution.operation()), (Vec::new(), end.clone()), "something follows the end");
    }
}

/// Tells the model of a turn, and compares what both say of the operation after it.
fn tell(story: &mut Option<Story>, execution: &Execution, happened: &[Event], now: Timestamp) {
    let Some(story) = story else { return };
    let noted = story.note(execution.revision(), execution.modified_at(), now, happened);
    noted.expect("a story that is possible");
    let operation = execution.operation();
    let end = End::of(&operation);
    assert_eq!(story.end, end);
    match (&story.cause, end) {
        // Past the point of no return nothing is rolled back: it is told why its last step failed.
        (None, Some(End::Abandoned)) => assert!(operation.error().is_some()),
        (cause, _) => assert_eq!(cause.as_ref(), operation.error()),
    }
    if end.is_some() {
        return;
    }
    let next = execution.next(Timestamp::MAX);
    assert!(next.undo.iter().all(|step| story.may_undo(step.place())));
    for (place, line) in story.lines.iter().enumerate() {
        let step = StepIndex(u16::try_from(place).expect("a few steps"));
        assert_eq!(next.run.contains(&step), line.running);
        assert_eq!(execution.attempt(step).0, line.attempt);
        match execution.undoable(step) {
            Some(Undoable::Done(output)) => assert_eq!(line.output, Some(output)),
            // What it gave is not asked for again.
            _ if line.undone => {}
            _ => assert!(line.output.is_none()),
        }
    }
}

fn store(journal: &mut BTreeMap<Revision, Entry>, turn: Turn) {
    journal.insert(turn.entry.first, turn.entry);
}

fn accept(dice: &mut Dice<'_>) -> Option<(Execution, Turn)> {
    let count = 1 + dice.roll(5);
    let literal = || Json::encode("input", &0).map(Source::Literal).ok();
    let mut steps = Vec::new();
    for place in 0..count {
        let earlier = (place > 0).then(|| StepIndex(u16::from(dice.roll(place))));
        let input = match earlier.filter(|_| dice.roll(2) == 0) {
            Some(step) => Source::Output(step),
            None => literal()?,
        };
        let after = earlier.filter(|_| dice.roll(3) == 0).into_iter().collect();
        steps.push(StepSpec {
            name: StepName::new("s").ok()?,
            version: 1,
            input: Input::One(input),
            after,
            policy: None,
        });
    }
    let point_of_no_return = (dice.roll(3) == 0).then_some(StepIndex(u16::from(count) - 1));
    let parallel = u16::from(1 + dice.roll(3));
    let parts = PlanParts { steps, output: literal()?, point_of_no_return, parallel, claims: Vec::new() };
    let payload = Payload::encode("request", "type.example/T", &0).ok()?;
    let header = Header {
        id: OperationId::generate(IdPrefix::new("fuz").ok()?, Timestamp::UNIX_EPOCH, 1),
        kind: KindName::new("k").ok()?,
        kind_version: 1,
        description: String::new(),
        created_at: Timestamp::UNIX_EPOCH,
        created_by: Caller::new("fuzz").ok()?,
        request: payload.clone(),
        metadata: payload,
        response_type: "type.example/T".into(),
        resources: Vec::new(),
        deadline: (dice.roll(4) == 0).then(|| Timestamp::UNIX_EPOCH.saturating_add(Duration::from_secs(5))),
        idempotency: None,
    };
    Execution::accept(Acceptance { header, plan: Plan::new(parts).ok()?, start: dice.roll(2) == 0 }).ok()
}

fn command(dice: &mut Dice<'_>, execution: &Execution) -> Command {
    let step = StepIndex(u16::from(dice.roll(6)));
    let attempt = if dice.roll(8) == 0 { Attempt(u32::from(dice.roll(4))) } else { execution.attempt(step) };
    let by = Caller::new("fuzz").expect("a valid caller");
    let error = Status::new(Code::Unavailable, "no");
    let output = Json::encode("output", &dice.roll(3)).expect("a small output");
    match dice.roll(10) {
        0 => Command::Adopt,
        1 => Command::Resume,
        2 | 3 => Command::Report { step, attempt, report: StepReport::Done(output) },
        4 => {
            let applied = if dice.roll(2) == 0 { Applied::No } else { Applied::Unknown };
            let report = StepReport::Failed { error, applied, retryable: dice.roll(2) == 0 };
            Command::Report { step, attempt, report }
        }
        5 => Command::Checkpoint { step, attempt, checkpoint: output, progress: None },
        6 | 7 => {
            let failures = execution.undo_failures(step);
            let result = if dice.roll(2) == 0 { Ok(()) } else { Err(error) };
            Command::UndoReport { step, failures, result }
        }
        8 => Command::Cancel { by },
        _ => {
            let verb = match dice.roll(4) {
                0 => Verb::RetryNow,
                1 => Verb::MarkUndone(step),
                2 => Verb::SkipUndo(step),
                _ => Verb::Abandon,
            };
            Command::Intervene { by, verb, reason: "fuzz".to_owned() }
        }
    }
}
