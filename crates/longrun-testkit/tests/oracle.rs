//! Whether the oracle of the simulation sees: each rule is broken on purpose, alone, and has to be named.
//!
//! The planted faults of `sim` show that whole histories with a mistake in them are caught, and by which rule. Here each rule in
//! `sim/invariants` is broken at least once by itself, and [`every_demand_is_broken_here`] holds that there is no other.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use longrun::{EffectKey, FencingToken};
use longrun_core::execution::{Attempt, Undoable};
use longrun_core::{
    Acceptance, Applied, Backoff, Caller, Claim, Code, Command, Event, Execution, Fence, Header, IdPrefix,
    Input, Intent, Intervention, Json, KindName, Operation, OperationId, Payload, Phase, Plan, PlanParts,
    Progress, ProgressUnit, ResourceId, ResourceKey, ResourceKind, ResourceStatus, Revision, Row, RowWrite,
    Source, Status, StepIndex, StepName, StepPolicy, StepReport, StepSpec, Timestamp, Turn, Verb,
};
use longrun_store::conformance::wait;
use longrun_store::{Batch, Commit, Direction, Due, KeyRange, Kv, KvStore, MemoryKv, Store, Table};
use longrun_testkit::sim::invariants::answers::{self, Answers, check_blocked};
use longrun_testkit::sim::invariants::calm::{self, Calm};
use longrun_testkit::sim::invariants::durable::{End, Story};
use longrun_testkit::sim::invariants::outside::{Change, Outside, Run, check_change, on_record};
use longrun_testkit::sim::invariants::rows::{Rows, check_claims, check_names, check_stored, check_write};
use longrun_testkit::sim::invariants::{Verdict, commits};

/// Names a file, in which each rule that is broken is said to be.
const BROKEN: &str = "LONGRUN_BROKEN";

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
        again_at: in_micros(150_000),
    }
}

fn interrupted(step: StepIndex) -> Event {
    Event::StepInterrupted { step, attempt: Attempt(1), interruptions: 1, again_at: t(10) }
}

fn undo_failed(step: StepIndex) -> Event {
    Event::UndoFailed { step, failures: 1, error: status(), again_at: in_micros(150_000) }
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
        story.note(revision, t(11), t(11), std::slice::from_ref(event))
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
    let Some(said) = std::env::var_os(BROKEN) else { return };
    let file = Path::new(violation.at.file()).file_name().unwrap().to_str().unwrap();
    let line = format!("{file}:{}\n", violation.at.line());
    fs::OpenOptions::new().create(true).append(true).open(said).unwrap().write_all(line.as_bytes()).unwrap();
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
    breaks("C5", story.note(Revision(5), t(11), t(11), &[succeeded(), decided()]));
}

#[test]
fn s05_a_revision_that_is_left_out_and_a_clock_that_goes_back_are_named() {
    let mut one = story();
    breaks("S5", one.note(Revision(2), t(11), t(11), &[started(A)]));
    let mut other = after(&[started(A)]);
    breaks("C16", other.note(Revision(2), t(10), t(10), &[done(A)]));
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

/// A run with this number and input.
fn run_of(attempt: u32, input: &[u8]) -> Run<'_> {
    Run { attempt, input, checkpoint: None }
}

/// Where a run of `step` begins, after these events, and the oracle is asked for its opinion.
fn run(events: &[Event], step: usize, attempt: u32, input: &[u8]) -> Verdict {
    Outside::new(2, true).run_begins(&after(events), step, &run_of(attempt, input))
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
        Outside::new(2, true).run_begins(&story, 0, &run_of(1, a.bytes()))
    });
    let mut twice = Outside::new(2, true);
    twice.run_begins(&after(&[started(A)]), 0, &run_of(1, a.bytes())).unwrap();
    breaks("S17", twice.run_begins(&after(&[started(A)]), 0, &run_of(2, a.bytes())));
    twice.run_ends(0, 2);
    breaks("S31", twice.run_begins(&after(&[started(A)]), 0, &run_of(1, a.bytes())));
    let saved = json("saved");
    let story =
        after(&[started(A), Event::Checkpoint { step: A, checkpoint: saved.clone(), progress: None }]);
    let gets = |checkpoint| {
        let run = Run { checkpoint, ..run_of(1, a.bytes()) };
        Outside::new(2, true).run_begins(&story, 0, &run)
    };
    gets(Some(&saved)).unwrap();
    breaks("C8", gets(None));
    breaks("C8", gets(Some(&a)));
    let id = accepted().0.id();
    on_record(id, Some(after(&[]))).unwrap();
    breaks("S19", on_record(id, None).map(drop));
}

#[test]
fn s30_s31_who_works_on_an_operation_without_a_newer_token_is_named() {
    let token = |epoch, attempt| FencingToken { epoch: Fence(epoch), attempt };
    let mut outside = Outside::new(2, true);
    outside.worked_on_with(Fence(2)).unwrap();
    outside.meets(0, token(2, 1)).unwrap();
    outside.meets(1, token(2, 1)).unwrap();
    breaks("S31", outside.meets(1, token(2, 1)));
    outside.run_begins(&after(&[started(A)]), 0, &run_of(1, json("in").bytes())).unwrap();
    outside.worked_on_with(Fence(2)).unwrap();
    assert!(outside.is_left(0) && !outside.is_adopted());
    // Another takes it, and nothing of what the one before was doing is on.
    outside.worked_on_with(Fence(5)).unwrap();
    assert!(!outside.is_left(0) && outside.is_adopted());
    assert!(!outside.refuses(0, token(2, 1)) && outside.refuses(0, token(1, 9)));
    outside.meets(0, token(5, 1)).unwrap();
    breaks("S31", outside.meets(0, token(2, 2)));
    breaks("S30", outside.worked_on_with(Fence(3)));
}

#[test]
fn s30_a_run_that_two_owners_begin_is_named() {
    let token = |epoch, attempt| FencingToken { epoch: Fence(epoch), attempt };
    let mut outside = Outside::new(2, true);
    for (step, epoch, attempt) in [(0, 2, 1), (1, 3, 1), (0, 3, 2), (0, 2, 1)] {
        outside.begun_by(step, token(epoch, attempt)).unwrap();
    }
    breaks("S30", outside.clone().begun_by(0, token(3, 1)));
    breaks("S30", outside.begun_by(0, token(2, 2)));
}

#[test]
fn s27_a_call_with_another_key_is_named() {
    let key = |step| EffectKey { operation: accepted().0.id(), step };
    let mut outside = Outside::new(2, true);
    for (step, named) in [(0, A), (1, B), (0, A)] {
        outside.carries_key(step, &key(named)).unwrap();
    }
    breaks("S27", outside.carries_key(0, &key(B)));
    // One that another step carries already.
    let mut outside = Outside::new(2, true);
    outside.carries_key(0, &key(A)).unwrap();
    breaks("S27", outside.carries_key(1, &key(A)));
}

#[test]
fn s23_a_run_that_is_started_after_the_decision_is_named() {
    let (going, _) = accepted();
    let after = |before: &Execution, command: &Command| {
        let mut after = before.clone();
        after.handle(command, t(12), &mut Vec::new()).unwrap();
        after
    };
    let done =
        after(&going, &Command::Report { step: A, attempt: Attempt(1), report: StepReport::Done(json("a")) });
    let cancel = Command::Cancel { by: Caller::new("client").unwrap() };
    let (early, late) = (after(&going, &cancel), after(&done, &cancel));
    assert_eq!([&early, &late].map(|one| one.attempt(B)), [Attempt(0), Attempt(1)]);
    let mut outside = Outside::new(2, true);
    for seen in [&going, &done, &late, &late] {
        outside.sees_decision(seen).unwrap();
    }
    let mut outside = Outside::new(2, true);
    outside.sees_decision(&early).unwrap();
    breaks("S23", outside.sees_decision(&late));
}

/// So long after the turns of [`tell`].
fn in_micros(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(t(11).unix_micros() + micros).unwrap()
}

fn run_fails(again_at: Timestamp) -> Event {
    let (step, attempt, error) = (A, Attempt(1), status());
    Event::StepFailedForNow { step, attempt, failures: 1, may_have_run: true, error, again_at }
}

fn undo_fails(again_at: Timestamp) -> Event {
    Event::UndoFailed { step: A, failures: 1, error: status(), again_at }
}

fn starts(attempt: u32) -> Event {
    Event::StepStarted { step: A, attempt: Attempt(attempt) }
}

/// The whole wait after so many failures, in microseconds.
fn whole(backoff: Backoff, times: u32) -> i64 {
    let wait = (backoff.first * 2_u32.pow(times - 1)).min(backoff.longest);
    i64::try_from(wait.as_micros()).unwrap()
}

#[test]
fn l4_a_wait_that_is_shorter_or_longer_than_the_policy_says_is_named() {
    // That of the plans here is the default one.
    let policy = StepPolicy::default();
    let runs = (policy.backoff, run_fails as fn(Timestamp) -> Event, after(&[started(A)]));
    let undoes = (policy.undo_backoff, undo_fails as _, after(&[started(A), done(A), decided()]));
    for (backoff, fails, mut story) in [runs, undoes] {
        for times in 1..=12 {
            let whole = whole(backoff, times);
            for wait in [whole / 2, whole] {
                tell(&mut story.clone(), &[fails(in_micros(wait))]).unwrap();
            }
            for wait in [0, whole / 2 - 1, whole + 1] {
                breaks("L4", tell(&mut story.clone(), &[fails(in_micros(wait))]));
            }
            tell(&mut story, &[fails(in_micros(whole)), by_operator(Verb::RetryNow)]).unwrap();
            if story.cause.is_none() {
                tell(&mut story, &[starts(times + 1)]).unwrap();
            }
        }
    }
}

#[test]
fn l4_a_wait_after_crashes_in_a_row_that_is_not_that_of_the_policy_is_named() {
    let backoff = StepPolicy::default().undo_backoff;
    let run = |interruptions, again_at: Option<Timestamp>| Event::StepInterrupted {
        step: A,
        attempt: Attempt(1),
        interruptions,
        again_at: again_at.unwrap_or(t(10)),
    };
    let undo = |interruptions, again_at| Event::UndoInterrupted { step: A, interruptions, again_at };
    let runs = (&run as &dyn Fn(u32, Option<Timestamp>) -> Event, after(&[started(A)]));
    let undoes = (&undo as _, after(&[started(A), done(A), decided()]));
    for (stopped, mut story) in [runs, undoes] {
        for crashes in 1..=10 {
            let told = |event| tell(&mut story.clone(), &[event]);
            let wait = (crashes > 2).then(|| whole(backoff, crashes - 2));
            match wait {
                None => breaks("L4", told(stopped(crashes, Some(in_micros(1))))),
                Some(wait) => {
                    told(stopped(crashes, Some(in_micros(wait / 2)))).unwrap();
                    breaks("L4", told(stopped(crashes, None)));
                    breaks("L4", told(stopped(crashes, Some(in_micros(wait + 1)))));
                }
            }
            // A crash that is not counted, or twice.
            breaks("L4", told(stopped(crashes - 1, None)));
            breaks("L4", told(stopped(crashes + 1, wait.map(in_micros))));
            tell(&mut story, &[stopped(crashes, wait.map(in_micros)), by_operator(Verb::RetryNow)]).unwrap();
            if story.cause.is_none() {
                tell(&mut story, &[starts(crashes + 1)]).unwrap();
            }
        }
    }
}

#[test]
fn s44_what_begins_before_its_time_is_named() {
    let until = in_micros(150_000);
    let mut run = after(&[started(A), run_fails(until)]);
    run.check_not_before(1, t(11)).unwrap();
    breaks("S44", run.check_not_before(0, t(11)));
    breaks("S44", tell(&mut run.clone(), &[starts(2)]));
    run.note(run.revision.next(), until, until, &[starts(2)]).unwrap();
    let mut undo = after(&[started(A), done(A), decided(), undo_fails(until)]);
    breaks("S44", undo.check_not_before(0, t(11)));
    breaks("S44", tell(&mut undo, &[Event::UndoWaitOver { step: A }]));
}

#[test]
fn s44_an_operator_ends_every_wait_and_the_first_crash_makes_none() {
    let waits = [started(A), run_fails(in_micros(150_000)), by_operator(Verb::RetryNow), starts(2)];
    after(&waits);
    after(&[started(A), interrupted(A), starts(2)]);
}

#[test]
fn s26_an_undo_that_fails_unseen_is_named() {
    let (accepted, turn) = accepted();
    let mut live = accepted;
    let mut story = Story::new(live.plan().unwrap(), t(10));
    story.note(turn.entry.revision, t(10), t(10), &turn.entry.events).unwrap();
    let turn_of = |live: &mut Execution, story: &mut Story, command: Command, now: Timestamp| {
        let mut events = Vec::new();
        live.handle(&command, now, &mut events).unwrap();
        live.seal(events.clone(), now).unwrap();
        story.note(story.revision.next(), now, now, &events).unwrap();
    };
    let report = StepReport::Failed { error: status(), applied: Applied::Unknown, retryable: false };
    turn_of(&mut live, &mut story, Command::Report { step: A, attempt: Attempt(1), report }, t(10));
    let blocked_after = StepPolicy::default().blocked_after;
    for failures in 0..blocked_after {
        check_blocked(&story, &live.operation()).unwrap();
        assert!(live.operation().blocked().is_empty() && story.failing_undos().is_empty());
        let now = t(1000 * (i64::from(failures) + 1));
        turn_of(&mut live, &mut story, Command::UndoReport { step: A, failures, result: Err(status()) }, now);
    }
    assert_eq!(story.failing_undos(), [(0, blocked_after)]);
    check_blocked(&story, &live.operation()).unwrap();
    // One more than is shown.
    story.lines[0].undo_failures += 1;
    breaks("S26", check_blocked(&story, &live.operation()));
    // An answer of another revision is not judged.
    story.revision = story.revision.next();
    check_blocked(&story, &live.operation()).unwrap();
}

#[test]
fn s25_s31_a_change_after_the_end_and_an_owner_who_is_refused_are_named() {
    let change = |refused, owns, ended| check_change(&Change { step: 0, refused, owns, ended });
    change(false, true, false).unwrap();
    change(false, false, false).unwrap();
    change(true, false, false).unwrap();
    change(true, false, true).unwrap();
    breaks("S25", change(false, false, true));
    breaks("S31", change(true, true, false));
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
    live.run_begins(&after(&[started(A)]), 0, &run_of(1, json("in").bytes())).unwrap();
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

/// The operation that is done, with another revision and time.
fn ended_at(revision: u64, seconds: i64) -> Operation {
    let (mut execution, _) = accepted();
    let mut events = Vec::new();
    let cancel = Command::Cancel { by: Caller::new("client").unwrap() };
    let report = StepReport::Failed { error: status(), applied: Applied::No, retryable: false };
    let report = Command::Report { step: A, attempt: Attempt(1), report };
    for command in [cancel, report] {
        execution.handle(&command, t(12), &mut events).unwrap();
    }
    execution.seal(events, t(12)).unwrap();
    let (header, finished) = (Arc::clone(execution.header()), Arc::clone(execution.finished().unwrap()));
    Execution::restore_finished(header, Revision(revision), t(seconds), finished).operation()
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
    // A phase that goes back, and one revision in two ways.
    breaks("S11", told(&[&ended_at(1, 10), &rolling]).map(drop));
    let waits = {
        let (mut execution, _) = accepted();
        let (mut events, checkpoint) = (Vec::new(), json("saved"));
        let save = Command::Checkpoint { step: A, attempt: Attempt(1), checkpoint, progress: None };
        execution.handle(&save, t(12), &mut events).unwrap();
        execution.seal(events, t(12)).unwrap();
        execution.operation()
    };
    breaks("S11", told(&[&waits, &rolling]).map(drop));
}

#[test]
fn c02_an_error_and_a_response_that_do_not_go_with_the_phase_are_named() {
    for phase in [Phase::Pending, Phase::RollingBack, Phase::Done] {
        let fits: &[(bool, bool)] = match phase {
            Phase::Pending => &[(false, false)],
            Phase::RollingBack => &[(true, false)],
            Phase::Done => &[(true, false), (false, true)],
        };
        for ends in [(false, false), (true, false), (false, true), (true, true)] {
            let verdict = answers::check_ends(phase, ends.0, ends.1);
            if fits.contains(&ends) { verdict.unwrap() } else { breaks("C2", verdict) }
        }
    }
}

#[test]
fn c16_times_that_go_back_are_named() {
    let told = |answer: Operation| Answers::default().told(answer, None);
    told(ended_at(3, 10)).unwrap();
    breaks("C16", told(ended_at(3, 9)));
    let mut answers = Answers::default();
    answers.told(ended_at(3, 12), None).unwrap();
    breaks("C16", answers.told(ended_at(4, 11), None));
}

#[test]
fn s09_s35_what_is_gone_and_what_a_key_gives_is_named() {
    let id = accepted().0.id();
    let other = OperationId::generate(IdPrefix::new("tst").unwrap(), t(10), 2);
    answers::check_there(id, true).unwrap();
    breaks("S9", answers::check_there(id, false));
    answers::check_key(id, id).unwrap();
    breaks("S35", answers::check_key(id, other));
    answers::check_key_refused(None, true, &"no").unwrap();
    answers::check_key_refused(Some(id), false, &"no").unwrap();
    breaks("S35", answers::check_key_refused(Some(id), true, &"no"));
}

#[test]
fn c13_a_cancel_that_did_nothing_is_named() {
    let [first, rolling, done] = sights();
    answers::check_cancel(&rolling, false).unwrap();
    answers::check_cancel(&done, false).unwrap();
    answers::check_cancel(&first, true).unwrap();
    breaks("C13", answers::check_cancel(&first, false));
}

#[test]
fn c19_a_list_that_repeats_or_skips_is_named() {
    let id = |random| OperationId::generate(IdPrefix::new("tst").unwrap(), t(10), random);
    let (one, two) = (id(1), id(2));
    answers::check_once(&[one, two]).unwrap();
    breaks("C19", answers::check_once(&[one, two, one]));
    answers::check_complete(&[two], &[one, two]).unwrap();
    breaks("C19", answers::check_complete(&[one, two], &[one]));
}

#[test]
fn c22_a_refusal_without_its_reason_is_named() {
    let refused = |code| answers::check_refusal("a wait", code, &[Code::Unavailable], &"no");
    refused(Code::Unavailable).unwrap();
    breaks("C22", refused(Code::Internal));
    assert_eq!(answers::answered(Ok::<_, &str>(7)), Ok(7));
    breaks("C22", answers::answered(Err::<(), _>("no")));
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

#[test]
fn c07_s42_rows_that_stay_as_they_were_after_the_end_are_named() {
    use ResourceStatus::{Creating, Deleting, Error, Ready};
    let id = accepted().0.id();
    let parent = ResourceId::new("p").unwrap();
    let create =
        Intent::Create { parent, name: "made".to_owned(), body: payload("was"), becomes: Source::Output(B) };
    let delete = Intent::Delete { before: Box::new(row(Ready, 3, None)) };
    let check = |intent: &Intent, end: Option<End>, row: Option<Row>, alone: bool| {
        let mut story = after(&[started(A), done(A), started(B), done(B)]);
        story.end = end;
        let claim = Claim { key: key(), intent: intent.clone() };
        let rows: Rows = row.into_iter().map(|row| (key(), row)).collect();
        check_stored(id, &[claim], &story, &rows, |_| alone)
    };
    let (good, bad) = (Some(End::Succeeded), Some(End::RolledBack));
    check(&create, None, Some(row(Creating, 3, Some(id))), true).unwrap();
    check(&create, good, Some(row(Ready, 4, None)), true).unwrap();
    check(&create, bad, None, true).unwrap();
    check(&delete, good, None, true).unwrap();
    check(&delete, bad, Some(row(Ready, 5, None)), true).unwrap();
    check(&delete, Some(End::Abandoned), Some(row(Error, 5, None)), true).unwrap();
    // Others have changed it since.
    check(&create, good, None, false).unwrap();
    breaks("C7", check(&create, None, None, true));
    breaks("C7", check(&create, good, Some(row(Ready, 4, Some(id))), false));
    breaks("S42", check(&create, good, Some(row(Creating, 4, None)), true));
    breaks("S42", check(&create, bad, Some(row(Ready, 4, None)), true));
    breaks("S42", check(&delete, good, Some(row(Deleting, 4, None)), true));
    breaks("S42", check(&delete, bad, None, true));
}

#[test]
fn c17_two_children_of_one_name_are_named() {
    check_names(["a", "b"].into_iter()).unwrap();
    breaks("C17", check_names(["a", "b", "a"].into_iter()));
}

#[test]
fn s12_an_index_that_does_not_go_with_its_record_is_named() {
    commits::check_due(Some(t(1)), Some(t(1))).unwrap();
    breaks("S12", commits::check_due(Some(t(1)), None));
    let kv = Arc::new(MemoryKv::new());
    let store = KvStore::open_inline(Arc::clone(&kv), [7; 32]).unwrap();
    let fence = wait(store.take_over()).unwrap();
    let (execution, turn) = accepted();
    wait(store.commit(Commit::new(&execution, turn, fence))).unwrap();
    commits::check_indexes(&*kv).unwrap();
    let due = kv.scan(Table::Due, &KeyRange::prefix(b""), Direction::Forward, 1).unwrap();
    let mut batch = Batch::default();
    batch.remove(Table::Due, due[0].0.clone());
    kv.commit(&batch).unwrap();
    breaks("S12", commits::check_indexes(&*kv));
}

#[test]
fn s14_what_is_not_restored_as_it_lived_is_named() {
    let (execution, turn) = accepted();
    let plan = execution.plan().unwrap();
    let restored = commits::restored(execution.header(), plan, std::slice::from_ref(&turn.entry)).unwrap();
    let check = |live: &Execution, due_at| commits::check_restored(&restored, live, due_at);
    check(&execution, turn.due_at).unwrap();
    breaks("S14", check(&execution, None));
    breaks("S14", check(&accepted_at(t(9)).0, turn.due_at));
    breaks("S14", commits::restored(execution.header(), plan, &[]).map(drop));
}

#[test]
fn s29_s30_what_is_taken_from_others_is_named() {
    commits::check_late(false).unwrap();
    breaks("S29", commits::check_late(true));
    commits::check_owner(true, "a checkpoint").unwrap();
    breaks("S30", commits::check_owner(false, "a checkpoint"));
    commits::check_late_undo(true).unwrap();
    breaks("S30", commits::check_late_undo(false));
    commits::check_conflict(true).unwrap();
    breaks("S30", commits::check_conflict(false));
}

#[test]
fn s33_a_commit_that_does_not_follow_is_named() {
    commits::check_follows(None, Revision::FIRST).unwrap();
    commits::check_follows(Some(Revision(3)), Revision(4)).unwrap();
    breaks("S33", commits::check_follows(None, Revision(2)));
    breaks("S33", commits::check_follows(Some(Revision(1)), Revision::FIRST));
    breaks("S33", commits::check_follows(Some(Revision(3)), Revision(5)));
    commits::check_settled(Revision(4), Revision(4)).unwrap();
    breaks("S33", commits::check_settled(Revision(3), Revision(4)));
}

#[test]
fn l1_c18_what_is_not_over_when_all_is_calm_is_named() {
    let [first, _, done] = sights();
    let second = Duration::from_secs(1);
    calm::check_time(second, second, String::new).unwrap();
    breaks("L1", calm::check_time(second * 2, second, String::new));
    calm::check_count(3, 3, "lives").unwrap();
    breaks("L1", calm::check_count(4, 3, "lives"));
    calm::check_goes_on(true).unwrap();
    breaks("L1", calm::check_goes_on(false));
    calm::check_done(std::slice::from_ref(&done)).unwrap();
    breaks("L1", calm::check_done(&[done, first]));
    calm::check_held::<&str>(&[]).unwrap();
    breaks("C18", calm::check_held(&["one"]));
    calm::check_none_counted(0).unwrap();
    breaks("L1", calm::check_none_counted(1));
}

#[test]
fn l1_only_what_waits_for_a_time_on_record_is_given_longer() {
    let at = |seconds| Due { at: t(seconds), id: accepted().0.id() };
    assert_eq!(accepted().0.id().time(), t(10));
    let (long, minutes) = (Duration::from_secs(121), Duration::from_secs(600));
    let after = |left: &[Due], now| {
        let mut calm = Calm::default();
        calm.pass(long, left, now);
        calm.check(minutes, String::new)
    };
    after(&[at(9), at(12)], t(8)).unwrap();
    // One is due; one waits for nothing; and nothing is left that would wait.
    for (left, now) in [(&[at(9), at(12)][..], t(9)), (&[at(9), at(10)], t(8)), (&[], t(8))] {
        breaks("L1", after(left, now));
    }
    let mut calm = Calm::default();
    calm.pass(long + minutes, &[at(9)], t(8));
    breaks("L1", calm.check(minutes, String::new));
}

#[test]
fn l7_one_that_is_not_counted_is_named() {
    calm::check_counted(3, 3).unwrap();
    calm::check_counted(4, 3).unwrap();
    breaks("L7", calm::check_counted(2, 3));
}

/// The text of every file in a folder of the simulation, by its name.
fn texts(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sim").join(folder);
    let text = |path: PathBuf| {
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
    };
    fs::read_dir(folder).unwrap().map(|entry| text(entry.unwrap().path())).collect()
}

/// Where something is demanded, as the file's name and the line.
fn demands() -> BTreeSet<String> {
    let mut demands = BTreeSet::new();
    for (file, text) in texts("invariants").into_iter().filter(|(file, _)| file != "mod.rs") {
        let lines = text.lines().enumerate();
        let demanding =
            lines.filter(|(_, line)| line.contains("demand(") || line.contains("Violation::new("));
        demands.extend(demanding.map(|(before, _)| format!("{file}:{}", before + 1)));
    }
    demands
}

/// The other tests of this file, once more: each says what it breaks.
#[test]
fn every_demand_is_broken_here() {
    let demands = demands();
    assert!(demands.len() > 90, "{demands:?}");
    let folder = tempfile::tempdir().unwrap();
    let said = folder.path().join("broken");
    let mut others = std::process::Command::new(std::env::current_exe().unwrap());
    others.args(["--skip", "every_demand_is_broken_here", "--quiet"]).env(BROKEN, &said);
    let ended = others.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    let said = fs::read_to_string(said).unwrap();
    let broken: BTreeSet<String> = said.lines().map(str::to_owned).collect();
    assert_eq!(demands.difference(&broken).collect::<Vec<_>>(), Vec::<&String>::new());
}

/// The simulations gather facts and judge nothing.
#[test]
fn no_rule_is_demanded_elsewhere() {
    let is_rule = |word: &&str| {
        let number = word.strip_prefix(['C', 'L', 'S']).unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    for (file, text) in ["fast", "full", "cluster"].into_iter().flat_map(texts) {
        assert_eq!(text.split('"').find(is_rule), None, "{file}");
    }
}
