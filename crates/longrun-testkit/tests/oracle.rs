//! Whether the oracle of the simulation sees: each rule is broken on purpose, alone, and has to be named.
//!
//! The planted faults of `sim` show that whole histories with a mistake in them are caught by something. Here each rule
//! is broken at least once by itself.
#![allow(clippy::unwrap_used)]

use longrun_core::execution::{Attempt, Undoable};
use longrun_core::{
    Acceptance, Applied, Caller, Claim, Code, Command, Event, Execution, Header, IdPrefix, Input, Intent,
    Intervention, Json, KindName, Operation, OperationId, Payload, Plan, PlanParts, Progress, ProgressUnit,
    ResourceId, ResourceKey, ResourceKind, ResourceStatus, Revision, Row, RowWrite, Source, Status,
    StepIndex, StepName, StepReport, StepSpec, Timestamp, Turn, Verb,
};
use longrun_testkit::sim::invariants::Verdict;
use longrun_testkit::sim::invariants::answers::Answers;
use longrun_testkit::sim::invariants::durable::{End, Story};
use longrun_testkit::sim::invariants::outside::Outside;
use longrun_testkit::sim::invariants::rows::{Rows, check_claims, check_write};

const A: StepIndex = StepIndex(0);
const B: StepIndex = StepIndex(1);

fn t(seconds: i64) -> Timestamp {
    Timestamp::from_unix_millis(seconds * 1000).unwrap()
}

fn json(text: &str) -> Json {
    Json::encode("test", text).unwrap()
}

fn payload(text: &str) -> Payload {
    Payload::new("t/Thing", json(text)).unwrap()
}

fn status() -> Status {
    Status::new(Code::Unavailable, "it failed")
}

/// Two steps; the second uses the output of the first. One at a time.
fn parts() -> PlanParts {
    let step = |name: &str, input| StepSpec {
        name: StepName::new(name).unwrap(),
        version: 1,
        input: Input::One(input),
        after: Vec::new(),
        policy: None,
    };
    PlanParts {
        steps: vec![step("a", Source::Literal(json("in"))), step("b", Source::Output(A))],
        output: Source::Output(B),
        point_of_no_return: None,
        parallel: 1,
        claims: Vec::new(),
    }
}

fn story_of(parts: PlanParts) -> Story {
    Story::new(&Plan::new(parts).unwrap(), t(10))
}

fn story() -> Story {
    story_of(parts())
}

fn started(step: StepIndex) -> Event {
    Event::StepStarted { step, attempt: Attempt(1) }
}

fn done(step: StepIndex) -> Event {
    Event::StepDone { step, output: json("out") }
}

fn decided() -> Event {
    Event::RollbackDecided { cause: status(), step: None }
}

fn again(step: StepIndex) -> Event {
    let error = status();
    Event::StepFailedForNow {
        step,
        attempt: Attempt(1),
        failures: 1,
        may_have_run: true,
        error,
        again_at: t(20),
    }
}

fn interrupted(step: StepIndex) -> Event {
    Event::StepInterrupted { step, attempt: Attempt(1), interruptions: 1, again_at: t(20) }
}

fn undo_failed(step: StepIndex) -> Event {
    Event::UndoFailed { step, failures: 1, error: status(), again_at: t(20) }
}

fn by_operator(verb: Verb) -> Event {
    let (by, reason) = (Caller::new("operator").unwrap(), "because".to_owned());
    Event::Intervened(Intervention { at: t(11), by, verb, reason })
}

fn succeeded() -> Event {
    Event::Succeeded { response: payload("out") }
}

/// What the oracle says to events that become durable one commit each.
fn tell(story: &mut Story, events: &[Event]) -> Verdict {
    events.iter().try_for_each(|event| {
        let revision = story.revision.next();
        story.note(revision, t(11), std::slice::from_ref(event))
    })
}

/// The story after these events, all of which are as they should be.
fn after(events: &[Event]) -> Story {
    let mut story = story();
    tell(&mut story, events).unwrap();
    story
}

#[track_caller]
fn breaks(rule: &str, verdict: Verdict) {
    let violation = verdict.unwrap_err();
    assert_eq!(violation.rule, rule, "{violation}");
}

#[test]
fn whole_lives_break_no_rule() {
    after(&[started(A), done(A), started(B), done(B), succeeded()]);
    let undone = |step| Event::Undone { step };
    after(&[
        started(A),
        done(A),
        started(B),
        decided(),
        done(B),
        undone(B),
        undo_failed(A),
        undone(A),
        Event::RolledBack,
    ]);
    after(&[started(A), again(A), decided(), by_operator(Verb::SkipUndo(A)), Event::RolledBack]);
    after(&[started(A), interrupted(A), decided(), by_operator(Verb::Abandon)]);
}

#[test]
fn events_that_cannot_follow_are_named() {
    let both = [started(A), done(A), started(B), done(B)];
    let rolling = [started(A), done(A), started(B), decided()];
    let undone = |step| Event::Undone { step };
    let cases: Vec<(&str, &[Event], Event)> = vec![
        ("C2", &rolling, succeeded()),
        ("C3", &rolling, decided()),
        ("C4", &both[..3], succeeded()),
        ("C4", &rolling, Event::RolledBack),
        ("S4", &both, Event::RolledBack),
        ("S4", &[], done(A)),
        ("S4", &both[..1], started(B)),
        ("S4", &[], Event::Checkpoint { step: A, checkpoint: json("x"), progress: None }),
        ("S4", &both, by_operator(Verb::Abandon)),
        ("S18", &[], started(B)),
        ("C9", &both[..2], started(A)),
        ("C8", &[], Event::StepStarted { step: A, attempt: Attempt(2) }),
        ("C10", &both, undone(B)),
        ("C10", &rolling, undone(B)),
        ("C10", &rolling, undone(A)),
        ("C10", &rolling, undo_failed(A)),
        ("C10", &rolling, Event::UndoWaitOver { step: A }),
        ("C10", &rolling, by_operator(Verb::MarkUndone(A))),
        ("C11", &rolling, again(B)),
        ("C11", &rolling, interrupted(B)),
    ];
    for (rule, before, event) in cases {
        let mut story = after(before);
        breaks(rule, tell(&mut story, &[event]));
    }
    let mut story = after(&[decided(), Event::RolledBack]);
    breaks("C5", tell(&mut story, &[decided()]));
    let mut story = after(&[decided()]);
    breaks("C11", tell(&mut story, &[started(A)]));
    // In one commit, too.
    let mut story = after(&both);
    breaks("C5", story.note(Revision(5), t(11), &[succeeded(), decided()]));
}

#[test]
fn s05_a_revision_that_is_left_out_and_a_clock_that_goes_back_are_named() {
    let mut one = story();
    breaks("S5", one.note(Revision(2), t(11), &[started(A)]));
    let mut other = after(&[started(A)]);
    breaks("C16", other.note(Revision(2), t(10), &[done(A)]));
}

#[test]
fn s04_a_rollback_past_the_point_of_no_return_is_named() {
    let mut story = story_of(PlanParts { point_of_no_return: Some(A), ..parts() });
    tell(&mut story, &[started(A)]).unwrap();
    breaks("S4", tell(&mut story, &[decided()]));
}

#[test]
fn s17_a_second_output_is_named() {
    let mut story = after(&[started(A), done(A)]);
    // As if a run were still on record.
    story.lines[0].running = true;
    breaks("S17", tell(&mut story, &[done(A)]));
}

/// Where a run of `step` begins, after these events, and the oracle is asked for its opinion.
fn run(events: &[Event], step: usize, attempt: u32, input: &[u8]) -> Verdict {
    Outside::new(2, true).run_begins(&after(events), step, attempt, input)
}

#[test]
fn runs_that_must_not_begin_are_named() {
    let (a, b) = (json("in"), json("out"));
    run(&[started(A)], 0, 1, a.bytes()).unwrap();
    run(&[started(A), done(A), started(B)], 1, 1, b.bytes()).unwrap();
    breaks("S23", run(&[started(A), decided()], 0, 1, a.bytes()));
    breaks("S17", run(&[started(A), done(A)], 0, 1, a.bytes()));
    breaks("S17", run(&[started(A)], 0, 1, b"another"));
    breaks("S18", run(&[started(A)], 1, 1, b.bytes()));
    breaks("S19", run(&[], 0, 1, a.bytes()));
    breaks("S19", run(&[started(A)], 0, 2, a.bytes()));
    breaks("C5", {
        let mut story = after(&[started(A)]);
        story.end = Some(End::Succeeded);
        Outside::new(2, true).run_begins(&story, 0, 1, a.bytes())
    });
    let mut twice = Outside::new(2, true);
    twice.run_begins(&after(&[started(A)]), 0, 1, a.bytes()).unwrap();
    breaks("S17", twice.run_begins(&after(&[started(A)]), 0, 2, a.bytes()));
    twice.run_ends(0, 2);
    breaks("S31", twice.run_begins(&after(&[started(A)]), 0, 1, a.bytes()));
}

#[test]
fn undos_that_must_not_begin_are_named() {
    let done_a = Undoable::Done(json("out"));
    let undo = |outside: &mut Outside, events: &[Event], step: usize, gets: &Undoable| {
        outside.undo_begins(&after(events), step, Some(gets))
    };
    let both = [started(A), done(A), started(B), done(B)];
    let fresh = || Outside::new(2, true);
    undo(&mut fresh(), &[started(A), done(A), decided()], 0, &done_a).unwrap();
    breaks("S22", undo(&mut fresh(), &both, 1, &done_a));
    breaks("S20", undo(&mut fresh(), &[started(A), done(A), decided()], 1, &done_a));
    breaks("S20", undo(&mut fresh(), &[started(A), decided()], 0, &done_a));
    let mut live = fresh();
    live.run_begins(&after(&[started(A)]), 0, 1, json("in").bytes()).unwrap();
    breaks("S20", undo(&mut live, &[started(A), done(A), decided()], 0, &done_a));
    breaks("S21", undo(&mut fresh(), &[&both[..], &[decided()]].concat(), 0, &done_a));
    breaks("C8", undo(&mut fresh(), &[started(A), done(A), decided()], 0, &Undoable::MayHaveRun(None)));
    breaks("C5", {
        let mut story = after(&[started(A), done(A), decided()]);
        story.end = Some(End::RolledBack);
        fresh().undo_begins(&story, 0, Some(&done_a))
    });
}

#[test]
fn s25_what_is_missing_and_what_is_left_at_the_end_is_named() {
    let mut outside = Outside::new(2, true);
    let (mut good, mut bad) = (story(), story());
    (good.end, bad.end) = (Some(End::Succeeded), Some(End::RolledBack));
    outside.check_end(&bad).unwrap();
    breaks("S25", outside.check_end(&good));
    outside.effect(0);
    outside.effect(1);
    outside.check_end(&good).unwrap();
    breaks("S25", outside.check_end(&bad));
    outside.reverse(0);
    breaks("S25", outside.check_end(&bad));
    // What an operator left there is there.
    bad.lines[1].skipped = true;
    outside.check_end(&bad).unwrap();
}

fn accepted() -> (Execution, Turn) {
    accepted_at(t(10))
}

fn accepted_at(at: Timestamp) -> (Execution, Turn) {
    let header = Header {
        id: OperationId::generate(IdPrefix::new("tst").unwrap(), t(10), 1),
        kind: KindName::new("t.make").unwrap(),
        kind_version: 1,
        description: String::new(),
        created_at: at,
        created_by: Caller::new("client").unwrap(),
        request: payload("in"),
        metadata: payload("in"),
        response_type: "t/Thing".into(),
        resources: Vec::new(),
        deadline: None,
        idempotency: None,
    };
    Execution::accept(Acceptance { header, plan: Plan::new(parts()).unwrap(), start: true }).unwrap()
}

/// One operation as it is at each of its revisions: it runs, it rolls back, it is done with an error.
fn sights() -> [Operation; 3] {
    let (mut execution, _) = accepted();
    let mut turn = |command: &Command| {
        let mut events = Vec::new();
        execution.handle(command, t(12), &mut events).unwrap();
        execution.seal(events, t(12)).unwrap();
        execution.operation()
    };
    let report = StepReport::Failed { error: status(), applied: Applied::No, retryable: false };
    let rolling = turn(&Command::Cancel { by: Caller::new("client").unwrap() });
    let done = turn(&Command::Report { step: A, attempt: Attempt(1), report });
    [accepted().0.operation(), rolling, done]
}

#[test]
fn s11_answers_that_go_back_are_named() {
    let [first, rolling, done] = sights();
    let told = |sights: &[&Operation]| {
        let mut answers = Answers::default();
        sights.iter().try_for_each(|sight| answers.told((*sight).clone(), None)).map(|()| answers)
    };
    let all = told(&[&first, &first, &rolling, &done, &done]).unwrap();
    all.check_stored(Some(&done)).unwrap();
    breaks("S11", told(&[&rolling, &first]).map(drop));
    breaks("S11", told(&[&done, &rolling]).map(drop));
    breaks("S11", all.check_stored(Some(&rolling)));
    breaks("S9", all.check_stored(None));
    // More than is durable.
    breaks("S11", Answers::default().told(rolling.clone(), Some(first.revision())));
    // An answer that took its time may be older than what others were told since, not than what was known before.
    let mut answers = told(&[&first, &rolling]).unwrap();
    answers.told_after(None, first.clone(), None).unwrap();
    breaks("S11", answers.told_after(Some(rolling.revision()), first, None));
}

#[test]
fn s03_s06_s08_answers_that_change_what_is_final_are_named() {
    let [first, rolling, done] = sights();
    let other = |of: &Operation, seconds: i64, error: &str| {
        // The same operation in another history: accepted at another time, or failed for another reason.
        let (mut execution, _) = accepted_at(t(seconds));
        let mut events = Vec::new();
        let report = StepReport::Failed {
            error: Status::new(Code::Internal, error),
            applied: Applied::Unknown,
            retryable: false,
        };
        execution
            .handle(&Command::Report { step: A, attempt: Attempt(1), report }, t(12), &mut events)
            .unwrap();
        execution.seal(events, t(12)).unwrap();
        assert_eq!(execution.revision(), of.revision());
        execution.operation()
    };
    let told = |before: &Operation, after: &Operation| {
        let mut answers = Answers::default();
        answers.told(before.clone(), None).unwrap();
        answers.told(after.clone(), None)
    };
    breaks("C3", told(&rolling, &other(&rolling, 10, "another reason")));
    breaks("S6", told(&first, &other(&rolling, 9, "it failed")));
    let mut stored = Answers::default();
    stored.told(done.clone(), None).unwrap();
    breaks(
        "C5",
        stored.check_stored(Some(&done.with_progress(Progress {
            done: 1,
            total: 2,
            unit: ProgressUnit::Items,
        }))),
    );
}

fn key() -> ResourceKey {
    ResourceKey { kind: ResourceKind::new("t.thing").unwrap(), id: ResourceId::new("r").unwrap() }
}

fn row(status: ResourceStatus, revision: u64, operation: Option<OperationId>) -> Row {
    Row {
        key: key(),
        parent: ResourceId::new("p").unwrap(),
        name: "was".to_owned(),
        status,
        revision: Revision(revision),
        created_at: t(1),
        modified_at: t(1),
        operation,
        body: payload("was"),
    }
}

#[test]
fn s41_a_row_that_does_not_move_along_the_table_is_named() {
    use ResourceStatus::{Creating, Error, Ready};
    let write = |put: Option<Row>| RowWrite {
        key: key(),
        expect: Some(Revision(3)),
        holder: None,
        replaces: None,
        put,
    };
    let old = row(Creating, 3, None);
    check_write(Some(&old), &write(Some(row(Ready, 4, None))), &[]).unwrap();
    check_write(Some(&old), &write(None), &[decided(), Event::RolledBack]).unwrap();
    breaks("S5", check_write(Some(&old), &write(Some(row(Ready, 5, None))), &[]));
    breaks("S41", check_write(Some(&old), &write(None), &[]));
    breaks("S41", check_write(Some(&row(Error, 3, None)), &write(Some(row(Creating, 4, None))), &[]));
    breaks("S41", check_write(None, &write(Some(row(Ready, 1, None))), &[]));
}

#[test]
fn s42_rows_that_do_not_go_with_their_operation_are_named() {
    use ResourceStatus::{Creating, Deleting, Error, Ready};
    let id = accepted().0.id();
    let parent = ResourceId::new("p").unwrap();
    let create =
        Intent::Create { parent, name: "made".to_owned(), body: payload("was"), becomes: Source::Output(B) };
    let before = || Box::new(row(Ready, 3, None));
    let update = Intent::Update {
        before: before(),
        name: "made".to_owned(),
        status: Ready,
        becomes: Source::Output(B),
    };
    let delete = Intent::Delete { before: before() };
    let check = |intent: &Intent, end: Option<End>, cause: bool, row: Option<Row>| {
        let mut story = after(&[started(A), done(A), started(B), done(B)]);
        story.cause = cause.then(status);
        story.end = end;
        let claim = Claim { key: key(), intent: intent.clone() };
        let rows: Rows = row.into_iter().map(|row| (key(), row)).collect();
        check_claims(id, &[claim], &story, &rows, true)
    };
    let made = |status| Row { name: "made".to_owned(), body: payload("out"), ..row(status, 4, None) };
    let held = |status| Some(row(status, 3, Some(id)));
    let (good, bad) = (Some(End::Succeeded), Some(End::RolledBack));

    check(&create, None, false, held(Creating)).unwrap();
    check(&create, None, true, held(Deleting)).unwrap();
    check(&update, None, false, held(Ready)).unwrap();
    check(&delete, None, false, held(Deleting)).unwrap();
    check(&create, good, false, Some(made(Ready))).unwrap();
    check(&create, bad, true, None).unwrap();
    check(&update, good, false, Some(made(Ready))).unwrap();
    check(&update, bad, true, Some(row(Ready, 5, None))).unwrap();
    check(&delete, good, false, None).unwrap();
    check(&create, Some(End::Abandoned), true, Some(row(Error, 5, None))).unwrap();

    breaks("C7", check(&create, None, false, None));
    breaks("C7", check(&create, None, false, Some(row(Creating, 3, None))));
    breaks("C7", check(&create, None, false, held(Ready)));
    breaks("C7", check(&create, None, true, held(Creating)));
    breaks("C7", check(&create, good, false, held(Ready)));
    breaks("S42", check(&create, good, false, Some(made(Creating))));
    breaks("C4", check(&create, good, false, Some(row(Ready, 4, None))));
    breaks("C4", check(&create, good, false, None));
    breaks("C4", check(&create, bad, true, Some(row(Ready, 4, None))));
    breaks("C4", check(&update, good, false, Some(row(Ready, 4, None))));
    breaks("C4", check(&update, bad, true, Some(made(Ready))));
    breaks("C4", check(&delete, good, false, Some(row(Ready, 4, None))));
    breaks("C4", check(&delete, bad, true, None));
    breaks("C4", check(&create, Some(End::Abandoned), true, Some(row(Ready, 5, None))));
}
