//! The contract, line by line, as far as one operation can show it by itself.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::*;
use longrun_core::execution::AcceptError;
use longrun_core::{
    Acceptance, Applied, Backoff, Code, Command, Entry, Event, Execution, Intent, Json, Phase, Plan,
    PlanError, Refusal, ResourceStatus, Revision, Source, Status, StepPolicy, StepReport, Undoable, Verb,
    limits,
};

const FINAL: bool = false;
const AGAIN: bool = true;

fn last_events(bench: &Bench) -> String {
    show_events(bench.said.last().unwrap(), bench.now)
}

#[test]
fn c02_done_has_one_of_error_and_response_and_not_done_no_response() {
    let mut bench = Draft::chain(2).accept();
    for step in [0, 1] {
        let operation = bench.live.operation();
        assert!(!operation.done() && operation.response().is_none() && operation.error().is_none());
        bench.done(step);
    }
    let operation = bench.live.operation();
    assert!(operation.done() && operation.error().is_none());
    assert_eq!(operation.response().unwrap().json(), &output(1));

    let mut bench = Draft::chain(1).accept();
    bench.fails(0, Applied::No, FINAL);
    let operation = bench.live.operation();
    assert!(operation.done() && operation.error().is_some() && operation.response().is_none());
}

#[test]
fn c02_a_response_type_that_no_response_can_have_is_not_accepted() {
    let draft = Draft::chain(1).no_return(0);
    let mut header = draft.header();
    header.response_type = "no type".into();
    let plan = Plan::new(draft.parts).unwrap();
    let refused = Execution::accept(Acceptance { header, plan, start: true }).unwrap_err();
    assert!(matches!(refused, AcceptError::Invalid(invalid) if invalid.field == "response_type"));
}

#[test]
fn c03_s08_the_first_cause_is_kept() {
    let mut bench = Draft::of(&[&[], &[], &[]]).accept();
    let first = bench.reports_failure(0, "first", Applied::Unknown, FINAL);
    let second = bench.reports_failure(1, "second", Applied::Unknown, FINAL);
    bench.tell(first).tell(second).cancel().undo_fails(0).undo_fails(1).crash();
    let operation = bench.live.operation();
    assert_eq!((operation.phase(), operation.error()), (Phase::RollingBack, Some(&error("first"))));
    bench.drive();
    assert_eq!(bench.live.operation().error(), Some(&error("first")));
    assert_eq!(bench.live.finished().unwrap().failed_step.as_ref().unwrap().as_str(), "step-0");
}

#[test]
fn c03_s08_of_two_runs_that_are_given_up_at_once_the_first_is_the_cause() {
    let mut bench = Draft::of(&[&[], &[]]).accept();
    while bench.live.phase() == Phase::Pending {
        assert!(bench.turns.len() < 100, "never given up");
        bench.later(1000).tell(Command::Resume).crash();
    }
    let decided = bench.said.concat();
    let decisions = decided.iter().filter(|event| matches!(event, Event::RollbackDecided { .. })).count();
    assert_eq!((decisions, bench.next().undo), (1, vec![s(0), s(1)]));
    bench.drive();
    assert_eq!(bench.live.finished().unwrap().failed_step.as_ref().unwrap().as_str(), "step-0");
}

#[test]
fn c04_done_with_error_only_after_every_step_that_may_have_run_is_undone() {
    // 0 done, 1 may have run, 2 certainly did not, 3 never started.
    let mut bench = Draft::of(&[&[], &[], &[], &[0, 1, 2]]).accept();
    bench.done(0).fails(2, Applied::No, AGAIN).fails(1, Applied::Unknown, FINAL);
    assert_eq!(bench.next().undo, [s(0), s(1)]);
    bench.undone(0);
    assert!(!bench.live.is_done());
    bench.undone(1);
    assert!(bench.live.is_done());
}

#[test]
fn c04_a_run_that_may_have_had_an_effect_is_undone_though_a_later_one_had_none() {
    let mut bench = Draft::chain(1).accept();
    bench.fails(0, Applied::Unknown, AGAIN).later(10).tell(Command::Resume).fails(0, Applied::No, FINAL);
    assert_eq!(bench.next().undo, [s(0)]);
    assert_eq!(bench.live.undoable(s(0)), Some(Undoable::MayHaveRun(None)));
}

#[test]
fn c04_what_an_operator_took_over_is_on_record() {
    let mut bench = Draft::chain(2).accept();
    bench.done(0).fails(1, Applied::Unknown, FINAL).undo_fails(1);
    bench.tell(verb(Verb::MarkUndone(s(1)))).undo_fails(0).tell(verb(Verb::SkipUndo(s(0))));
    let finished = bench.live.finished().unwrap();
    let verbs: Vec<Verb> = finished.interventions.iter().map(|act| act.verb).collect();
    assert_eq!(verbs, [Verb::MarkUndone(s(1)), Verb::SkipUndo(s(0))]);
    assert_eq!(
        (finished.interventions[0].reason.as_str(), finished.interventions[0].at),
        ("ticket 12", t(0))
    );
    assert!(!bench.live.operation().was_abandoned());
}

#[test]
fn c05_done_is_final() {
    let mut bench = Draft::chain(1).accept();
    bench.done(0);
    let done = bench.live.clone();
    for command in [Command::Adopt, Command::Resume, cancel()] {
        bench.at(5000).tell(command);
    }
    let step = s(0);
    let late = Command::Report { step, attempt: attempt(1), report: StepReport::Done(json("late")) };
    assert_eq!(bench.refuses(late), Refusal::Stale { step, attempt: attempt(1) });
    assert_eq!(bench.refuses(verb(Verb::Abandon)), Refusal::Done(bench.header.id));
    assert_eq!(bench.live, done);
    // Not even an empty turn, which would raise the revision.
    assert!(bench.live.seal(Vec::new(), t(5000)).is_err());
    assert_eq!(bench.live, done);
}

#[test]
fn c06_the_first_turn_shows_the_resource() {
    let bench = Draft::chain(2).claims(vec![creates("new", Source::Output(s(1)))]).accept();
    let row = &bench.store.rows[&key("new")];
    assert_eq!((row.status, row.revision.0), (ResourceStatus::Creating, 1));
    assert_eq!((row.operation, row.created_at), (Some(bench.live.id()), t(0)));
    assert_eq!(bench.live.operation().metadata(), &payload("metadata"));
    assert_eq!(bench.turns.len(), 1);
}

#[test]
fn c07_one_turn_carries_entry_rows_and_due_time() {
    let bench = Draft::chain(1).three_claims().accept();
    let turn = &bench.turns[0];
    assert_eq!((turn.entry.first.0, turn.entry.revision.0), (1, 1));
    assert_eq!(show_events(&turn.entry.events, t(0)), "start 0#1");
    assert_eq!(turn.rows.len(), 3);
    assert_eq!((turn.was_due_at, turn.due_at), (None, Some(t(0))));
    let mut bench = bench;
    bench.done(0);
    let turn = &bench.turns[1];
    assert_eq!((turn.was_due_at, turn.due_at, turn.rows.len()), (Some(t(0)), None, 3));
}

#[test]
fn a_row_tells_when_it_last_changed() {
    let mut bench = Draft::chain(1).three_claims().accept();
    bench.later(7).done(0);
    let row = |id: &str| &bench.store.rows[&key(id)];
    assert_eq!((row("upd").created_at, row("upd").modified_at), (t(-100), bench.now));
    assert_eq!((row("new").created_at, row("new").modified_at), (t(0), bench.now));
}

#[test]
fn c08_s19_a_step_is_named_to_run_only_when_its_start_is_on_record() {
    let mut bench = Draft::chain(2).backlog().accept();
    assert_eq!(bench.next().run, []);
    bench.tell(Command::Resume);
    assert_eq!((last_events(&bench).as_str(), bench.next().run), ("start 0#1", vec![s(0)]));
}

#[test]
fn c08_a_crash_forward_runs_it_again_and_a_crash_backward_undoes_it() {
    let mut bench = Draft::chain(1).accept();
    bench.crash();
    assert_eq!(last_events(&bench), "interrupted 0 now, start 0#2");
    bench.cancel();
    assert_eq!(bench.next().undo, []);
    bench.crash();
    assert_eq!(last_events(&bench), "failed 0 maybe");
    assert_eq!(bench.next().undo, [s(0)]);
}

#[test]
fn c09_s17_an_output_is_recorded_once() {
    let mut bench = Draft::chain(2).accept();
    bench.done(0);
    let again = Command::Report { step: s(0), attempt: attempt(1), report: StepReport::Done(json("other")) };
    assert_eq!(bench.refuses(again), Refusal::Stale { step: s(0), attempt: attempt(1) });
    bench.crash().crash();
    assert_eq!(bench.ledger.runs(0), 1);
    assert_eq!(bench.live.input(s(1)).unwrap(), output(0));
    assert_eq!(bench.live.undoable(s(0)), Some(Undoable::Done(output(0))));
}

#[test]
fn c10_s21_a_chain_is_undone_newest_first() {
    let mut bench = Draft::chain(3).accept();
    bench.done(0).done(1).fails(2, Applied::Unknown, FINAL);
    for step in [2, 1, 0] {
        assert_eq!(bench.next().undo, [s(step)]);
        bench.crash().undone(step);
    }
    assert!(bench.live.is_done());
}

#[test]
fn c10_a_diamond_is_undone_from_its_point() {
    let mut bench = Draft::diamond().accept();
    bench.done(0).done(1).done(2).fails(3, Applied::Unknown, FINAL);
    assert_eq!(bench.next().undo, [s(3)]);
    bench.undone(3);
    assert_eq!(bench.next().undo, [s(1), s(2)]);
    bench.undone(2);
    assert_eq!(bench.next().undo, [s(1)], "2 is undone, 1 still uses the output of 0");
    bench.undone(1);
    assert_eq!(bench.next().undo, [s(0)]);
}

#[test]
fn c10_order_by_after_counts_like_data() {
    let mut draft = Draft::of(&[&[], &[]]);
    draft.parts.steps[1].after = vec![s(0)];
    let mut bench = draft.accept();
    assert_eq!(bench.next().run, [s(0)]);
    bench.done(0).fails(1, Applied::Unknown, FINAL);
    assert_eq!(bench.next().undo, [s(1)]);
}

#[test]
fn c10_a_run_still_on_keeps_what_it_uses_from_being_undone() {
    let mut bench = Draft::of(&[&[], &[0], &[0]]).accept();
    bench.done(0).fails(1, Applied::No, FINAL);
    let next = bench.next();
    assert_eq!((next.run, next.undo, next.stop), (vec![s(2)], vec![], true));
    bench.done(2);
    assert_eq!(bench.next().undo, [s(2)]);
    assert_eq!(bench.live.undoable(s(2)), Some(Undoable::Done(output(2))));
}

#[test]
fn c11_s22_the_decision_is_stored_before_an_undo_is_named() {
    let mut bench = Draft::chain(2).accept();
    bench.done(0).fails(1, Applied::Unknown, FINAL);
    assert_eq!(last_events(&bench), "failed 1 maybe, decide UNAVAILABLE by 1");
    assert_eq!(bench.restored().next(bench.now).undo, [s(1)]);
}

#[test]
fn c11_s23_no_step_starts_after_the_decision() {
    // Room for one at a time: 1 is ready all along, 0 waits to run again.
    let mut bench = Draft::of(&[&[], &[]]).parallel(1).accept();
    bench.fails(0, Applied::Unknown, AGAIN).cancel().done(1);
    bench.later(60).tell(Command::Resume).crash().tell(verb(Verb::RetryNow));
    assert_eq!((bench.ledger.runs(0), bench.ledger.runs(1)), (1, 1));
    bench.drive();
}

#[test]
fn c12_s26_a_failed_undo_waits_longer_each_time_without_limit_and_in_sight() {
    let mut bench = Draft::chain(1).accept();
    bench.fails(0, Applied::Unknown, FINAL);
    let mut waits = Vec::new();
    for failures in 1..=40 {
        bench.undo_fails(0);
        let next = bench.next();
        assert_eq!(next.undo, [], "it holds no slot while it waits");
        let wake = next.wake_at.unwrap();
        waits.push(wake.since(bench.now));
        assert_eq!(bench.live.due_at(), Some(wake));
        let blocked = bench.live.operation().blocked().to_vec();
        assert_eq!(blocked.len(), usize::from(failures >= 2));
        if let [blocked] = &*blocked {
            assert_eq!((blocked.failures, blocked.undo, blocked.again_at), (failures, true, Some(wake)));
            assert_eq!(blocked.error, error("cannot undo"));
        }
        bench.now = wake;
        assert_eq!(bench.next().undo, [s(0)]);
    }
    let seconds = Duration::from_secs;
    assert!((seconds(2)..=seconds(4)).contains(&waits[0]));
    assert!((seconds(4)..=seconds(8)).contains(&waits[1]));
    assert!(waits[2..].iter().all(|wait| (seconds(8)..=seconds(16)).contains(wait)));
    assert_eq!(bench.live.operation().phase(), Phase::RollingBack);
    bench.undone(0);
    assert_eq!(bench.live.operation().error(), Some(&error("boom")));
}

#[test]
fn c12_an_undo_can_be_taken_over_once_it_was_interrupted_more_often_than_chance_would_have_it() {
    let mut bench = Draft::chain(1).accept();
    bench.fails(0, Applied::Unknown, FINAL);
    for _ in 0..limits::INTERRUPTIONS_FREE {
        bench.crash();
        assert_eq!(bench.refuses(verb(Verb::MarkUndone(s(0)))), Refusal::NotBlocked(bench.header.id));
    }
    bench.crash().tell(verb(Verb::MarkUndone(s(0))));
    assert!(bench.live.is_done());
}

#[test]
fn c12_an_undo_that_kills_its_process_is_seen_after_so_many_times_and_not_before() {
    let mut bench = Draft::chain(1).accept();
    bench.fails(0, Applied::Unknown, FINAL);
    while bench.live.blocked().is_empty() {
        assert!(bench.turns.len() < 100, "never seen");
        bench.later(1000).crash();
    }
    assert_eq!(bench.live.blocked()[0].failures, limits::INTERRUPTIONS_MAX + 1);
}

#[test]
fn c12_an_undo_that_kills_its_process_is_seen_and_can_be_taken_over() {
    let mut bench = Draft::chain(1).accept();
    bench.fails(0, Applied::Unknown, FINAL);
    for crashes in 1..=limits::INTERRUPTIONS_MAX + 1 {
        bench.later(60).crash();
        let waits = bench.next().undo.is_empty();
        assert_eq!(waits, crashes > limits::INTERRUPTIONS_FREE, "no tight loop of crashes");
        if waits && crashes <= limits::INTERRUPTIONS_MAX {
            // Whoever takes it up when the wait is over lets it begin, and counts nothing.
            bench.now = bench.next().wake_at.unwrap();
            bench.crash();
            assert_eq!(bench.next().undo, [s(0)], "L1: it has its turn after each wait");
        }
    }
    let blocked = bench.live.blocked();
    assert_eq!((blocked.len(), blocked[0].failures), (1, limits::INTERRUPTIONS_MAX + 1));
    bench.tell(verb(Verb::MarkUndone(s(0))));
    assert!(bench.live.is_done());
}

#[test]
fn c12_an_undo_named_beside_waiting_ones_keeps_the_limit() {
    let mut bench = Draft::of(&[&[], &[], &[], &[]]).parallel(2).accept();
    bench.done(0).done(1).done(2).cancel().done(3);
    assert_eq!(bench.next().undo, [s(0), s(1)]);
    bench.undo_fails(0);
    let next = bench.next();
    assert_eq!(next.undo, [s(1), s(2)], "the one that waits leaves its place to another");
    assert!(next.wake_at.is_some());
    assert_eq!(bench.live.due_at(), Some(t(0)), "there is work at once");
}

#[test]
fn c13_cancel_wins_once() {
    let mut bench = Draft::chain(2).accept();
    bench.cancel();
    let cancelled = bench.live.clone();
    assert_eq!(bench.live.operation().error().unwrap().code(), Code::Cancelled);
    bench.cancel();
    assert_eq!((bench.live, bench.turns.len()), (cancelled, 2));
}

#[test]
fn c13_cancel_past_the_point_of_no_return_changes_nothing() {
    let mut bench = Draft::chain(2).no_return(1).accept();
    let mut early = bench.clone();
    assert_eq!(early.cancel().live.phase(), Phase::RollingBack);
    bench.done(0).cancel();
    assert_eq!((bench.live.phase(), bench.next().run), (Phase::Pending, vec![s(1)]));
    bench.done(1).cancel();
    assert!(bench.live.operation().response().is_some());
}

#[test]
fn c13_cancel_and_the_last_output_in_one_turn_go_by_their_order() {
    let bench = Draft::chain(1).accept();
    for (first, second, wins) in
        [(cancel(), bench.reports_done(0), false), (bench.reports_done(0), cancel(), true)]
    {
        let mut live = bench.live.clone();
        let mut events = Vec::new();
        live.handle(&first, t(1), &mut events).unwrap();
        live.handle(&second, t(1), &mut events).unwrap();
        live.seal(events, t(1)).unwrap();
        assert_eq!(live.operation().response().is_some(), wins);
        assert_eq!(live.check(), Ok(()));
    }
}

#[test]
fn c16_s05_time_never_goes_back() {
    let mut bench = Draft::chain(3).accept();
    bench.at(100).done(0).at(-5000).done(1);
    let operation = bench.live.operation();
    assert_eq!((operation.created_at(), operation.modified_at(), operation.revision().0), (t(0), t(100), 3));
    bench.at(101).cancel();
    assert_eq!(bench.live.modified_at(), t(101));
}

#[test]
fn c21_an_illegal_claim_is_refused_with_both_statuses() {
    let refused = |claim| {
        let draft = Draft::chain(1).claims(vec![claim]);
        Plan::new(draft.parts).unwrap_err()
    };
    let mut creating = updates(row("a", 1, ResourceStatus::Ready), Source::Literal(json("x")));
    let to = |claim: &mut longrun_core::Claim, new| {
        if let Intent::Update { status, .. } = &mut claim.intent {
            *status = new;
        }
    };
    to(&mut creating, ResourceStatus::Creating);
    let error = refused(creating.clone());
    assert_eq!(error.to_string(), "a resource cannot go from READY to CREATING");
    // In the table, but nobody would lead the resource out of it again.
    to(&mut creating, ResourceStatus::Deleting);
    assert!(matches!(refused(creating), PlanError::Claim(invalid) if invalid.field == "status"));
}

#[test]
fn s06_what_was_asked_never_changes() {
    let mut bench = Draft::chain(2).accept();
    let header = bench.header.clone();
    bench.done(0).crash().fails(1, Applied::Unknown, FINAL).drive();
    assert_eq!(**bench.live.header(), *header);
}

#[test]
fn s07_a_response_has_the_type_that_was_declared() {
    let draft = Draft::chain(1);
    let mut header = draft.header();
    header.response_type = "type.test/Made".into();
    let plan = Plan::new(draft.parts).unwrap();
    let (mut live, _) = Execution::accept(Acceptance { header, plan, start: true }).unwrap();
    turn(&mut live, &done(0));
    assert_eq!(live.operation().response().unwrap().type_url(), "type.test/Made");
}

#[test]
fn s18_a_step_starts_in_the_turn_that_records_what_it_needs() {
    let mut bench = Draft::diamond().accept();
    bench.done(0);
    assert_eq!(last_events(&bench), "done 0, start 1#1, start 2#1");
    bench.done(1);
    assert_eq!(last_events(&bench), "done 1");
    bench.done(2);
    assert_eq!(last_events(&bench), "done 2, start 3#1");
    assert_eq!(bench.live.input(s(3)).unwrap().decode::<Vec<String>>().unwrap(), ["out-1", "out-2"]);
}

#[test]
fn s20_a_step_that_never_started_is_not_undone() {
    let mut bench = Draft::chain(3).accept();
    bench.done(0).cancel().fails(1, Applied::No, FINAL).undone(0);
    assert!(bench.live.is_done());
    assert_eq!(bench.live.finished().unwrap().attempts, [1, 1, 0]);
}

#[test]
fn s20_nothing_is_to_be_undone_of_a_run_that_certainly_had_no_effect() {
    let mut bench = Draft::of(&[&[], &[]]).accept();
    bench.fails(0, Applied::No, FINAL);
    assert_eq!(bench.live.undoable(s(0)), None);
    assert_eq!(bench.live.undoable(s(1)), None, "it is still on");
    bench.fails(1, Applied::Unknown, FINAL);
    assert_eq!(bench.live.undoable(s(1)), Some(Undoable::MayHaveRun(None)));
}

#[test]
fn s29_the_late_result_of_a_run_that_timed_out_is_ignored() {
    let mut bench = Draft::chain(1).accept();
    let late = bench.reports_done(0);
    let timeout = Status::new(Code::DeadlineExceeded, "the run took too long");
    let report = StepReport::Failed { error: timeout, applied: Applied::Unknown, retryable: true };
    bench.tell(Command::Report { step: s(0), attempt: attempt(1), report });
    assert_eq!(bench.refuses(late.clone()), Refusal::Stale { step: s(0), attempt: attempt(1) });
    bench.later(10).tell(Command::Resume);
    assert_eq!(bench.refuses(late), Refusal::Stale { step: s(0), attempt: attempt(1) });
    assert_eq!(bench.next().run, [s(0)]);
}

#[test]
fn s29_the_late_report_of_an_undo_that_was_taken_over_is_ignored() {
    let mut bench = Draft::chain(2).accept();
    bench.done(0).fails(1, Applied::Unknown, FINAL).undo_fails(1).later(10);
    let late = bench.reports_undo(1, Err(error("late")));
    bench.tell(verb(Verb::MarkUndone(s(1))));
    assert_eq!(bench.refuses(late), Refusal::Stale { step: s(1), attempt: attempt(1) });
    assert_eq!(bench.next().undo, [s(0)]);
}

#[test]
fn s29_the_late_report_of_an_undo_that_timed_out_is_ignored() {
    let mut bench = Draft::chain(1).accept();
    bench.fails(0, Applied::Unknown, FINAL);
    let late = bench.reports_undo(0, Ok(()));
    bench.undo_fails(0);
    assert_eq!(bench.refuses(late), Refusal::Stale { step: s(0), attempt: attempt(0) });
}

#[test]
fn an_operation_of_s_steps_takes_s_and_one_turns() {
    for steps in [1, 2, 7] {
        let mut bench = Draft::chain(steps).three_claims_if(steps > 1).accept();
        bench.drive();
        assert_eq!(bench.turns.len(), usize::from(steps) + 1);
    }
}

#[test]
fn past_the_point_of_no_return_it_goes_forward_for_ever_and_in_sight() {
    let mut bench = Draft::chain(2).no_return(0).deadline().accept();
    bench.at(DEADLINE + 1).tell(Command::Resume);
    for failures in 1..=12_u32 {
        bench.fails(0, Applied::Unknown, FINAL);
        assert_eq!(bench.live.phase(), Phase::Pending);
        let blocked = bench.live.blocked();
        assert_eq!(blocked.len(), usize::from(failures >= 2));
        assert!(blocked.iter().all(|blocked| !blocked.undo && blocked.failures == failures));
        bench.later(10).tell(Command::Resume);
    }
    bench.drive();
    assert!(bench.live.operation().response().is_some());
}

#[test]
fn past_the_point_of_no_return_a_run_that_kills_its_process_is_seen() {
    let mut bench = Draft::chain(1).no_return(0).accept();
    for _ in 0..=limits::INTERRUPTIONS_MAX {
        bench.later(60).tell(Command::Resume).crash();
    }
    assert_eq!((bench.live.phase(), bench.live.blocked().len()), (Phase::Pending, 1));
    bench.tell(verb_without_reason(Verb::RetryNow));
    assert_eq!(bench.next().run, [s(0)]);
}

#[test]
fn beside_the_point_of_no_return_every_failure_is_tried_again() {
    let mut bench = Draft::of(&[&[], &[]]).no_return(0).accept();
    bench.fails(1, Applied::No, FINAL);
    assert_eq!(last_events(&bench), "again 1 none ~2s");
}

#[test]
fn a_failure_before_the_point_of_no_return_keeps_it_from_starting() {
    let mut bench = Draft::of(&[&[], &[], &[0]]).no_return(2).accept();
    bench.fails(1, Applied::No, FINAL).done(0);
    assert_eq!((bench.ledger.runs(2), bench.next().undo), (0, vec![s(0)]));
}

#[test]
fn a_poison_step_is_given_up_after_so_many_crashes() {
    let mut bench = Draft::chain(2).accept();
    bench.done(0);
    for crashes in 1..=limits::INTERRUPTIONS_MAX {
        bench.later(60).tell(Command::Resume).crash();
        assert_eq!(bench.live.phase(), Phase::Pending, "after {crashes}");
        assert_eq!(
            bench.next().run.is_empty(),
            crashes > limits::INTERRUPTIONS_FREE,
            "no tight loop of crashes"
        );
    }
    bench.later(60).tell(Command::Resume).crash();
    assert_eq!(last_events(&bench), "failed 1 maybe, decide UNAVAILABLE by 1");
    assert_eq!(bench.next().undo, [s(1)]);
}

#[test]
fn when_one_step_is_given_up_after_crashes_the_runs_beside_it_are_undone_too() {
    // 1 saves checkpoints, so it is young when 0 dies for the last time.
    let mut bench = Draft::of(&[&[], &[]]).accept();
    for _ in 0..limits::INTERRUPTIONS_MAX {
        bench.later(60).tell(Command::Resume).crash();
        bench.later(60).tell(Command::Resume).saves(1, "alive");
    }
    bench.crash();
    assert_eq!(last_events(&bench), "failed 0 maybe, decide UNAVAILABLE by 0, failed 1 maybe");
    assert_eq!(bench.next().undo, [s(0), s(1)]);
    bench.drive();
}

#[test]
fn a_checkpoint_forgives_crashes() {
    let mut bench = Draft::chain(1).accept();
    for round in 0..5 * limits::INTERRUPTIONS_MAX {
        bench.later(60).tell(Command::Resume);
        bench.saves(0, &format!("chunk {round}")).crash();
        assert_eq!(bench.next().run, [s(0)], "it runs again at once");
        assert_eq!(bench.live.checkpoint(s(0)), Some(&json(&format!("chunk {round}"))));
    }
}

#[test]
fn a_checkpoint_takes_the_place_of_the_one_before() {
    let mut bench = Draft::of(&[&[], &[]]).accept();
    for chunk in 0..100 {
        bench.saves(0, &format!("chunk {chunk}"));
    }
    let (first, last) = (bench.turns[1].entry.first.0, &bench.turns[100].entry);
    assert_eq!((first, last.first.0, last.revision.0, bench.store.journal.len()), (2, 2, 101, 2));
    bench.saves(1, "of another").saves(0, "chunk 100").saves(0, "chunk 101");
    assert_eq!(bench.store.journal.len(), 2, "the checkpoints of both are in one entry");
    bench.crash().saves(0, "after the crash");
    assert_eq!(bench.store.journal.len(), 2, "so is a crash");
    assert_eq!(bench.restored().checkpoint(s(1)), Some(&json("of another")));
    bench.done(1).saves(0, "after the other is done");
    assert_eq!(bench.store.journal.len(), 4, "an output stays by itself");
}

#[test]
fn progress_told_once_stays_though_the_checkpoint_that_told_it_is_replaced() {
    let mut bench = Draft::chain(1).accept();
    let save =
        |progress| Command::Checkpoint { step: s(0), attempt: attempt(1), checkpoint: json("x"), progress };
    bench.tell(save(Some(progress(40)))).tell(save(None));
    assert_eq!(bench.store.journal.len(), 2);
    assert_eq!(bench.restored().operation().progress(), Some(progress(40)));
}

#[test]
fn progress_is_that_of_the_step_under_way_and_of_nothing_that_is_over() {
    let mut bench = Draft::of(&[&[], &[0], &[0]]).accept();
    let save = |bench: &mut Bench, step: u16, done| {
        let (attempt, checkpoint) = (bench.live.attempt(s(step)), json("x"));
        bench.tell(Command::Checkpoint {
            step: s(step),
            attempt,
            checkpoint,
            progress: Some(progress(done)),
        });
    };
    let shown = |bench: &Bench| bench.live.operation().progress();
    save(&mut bench, 0, 99);
    assert_eq!(shown(&bench), Some(progress(99)));
    bench.done(0);
    assert_eq!(shown(&bench), None, "a step that is done says nothing of those that run now");
    save(&mut bench, 2, 7);
    assert_eq!(shown(&bench), Some(progress(7)));
    bench.fails(2, Applied::Unknown, AGAIN);
    assert_eq!(shown(&bench), Some(progress(7)), "it goes on from there");
    bench.cancel();
    assert_eq!(shown(&bench), None, "nothing of it is true any more");
}

#[test]
fn an_undo_gets_the_last_checkpoint() {
    let mut bench = Draft::chain(1).accept();
    bench.saves(0, "half").cancel().saves(0, "more").crash();
    assert_eq!(bench.live.undoable(s(0)), Some(Undoable::MayHaveRun(Some(json("more")))));
}

#[test]
fn no_more_run_at_the_same_time_than_the_plan_says() {
    let mut bench = Draft::of(&[&[], &[], &[], &[]]).parallel(2).accept();
    assert_eq!(bench.next().run, [s(0), s(1)]);
    bench.done(1);
    assert_eq!(bench.next().run, [s(0), s(2)]);
    bench.crash();
    assert_eq!(bench.next().run, [s(0), s(2)], "those that had begun go first");
}

#[test]
fn a_step_whose_wait_is_over_but_has_no_room_wakes_nobody() {
    let mut bench = Draft::of(&[&[], &[]]).parallel(1).accept();
    bench.fails(0, Applied::No, AGAIN).later(60);
    let next = bench.next();
    assert_eq!((next.run, next.wake_at), (vec![s(1)], None));
    bench.done(1);
    assert_eq!(bench.next().run, [s(0)]);
}

#[test]
fn the_deadline_rolls_back_and_wakes_for_it() {
    let mut bench = Draft::chain(2).deadline().accept();
    bench.done(0);
    assert_eq!(bench.next().wake_at, Some(t(DEADLINE)));
    bench.at(DEADLINE - 1).tell(Command::Resume);
    assert_eq!(bench.live.phase(), Phase::Pending);
    bench.at(DEADLINE).tell(Command::Resume);
    assert_eq!(bench.live.operation().error().unwrap().code(), Code::DeadlineExceeded);
    assert!(bench.next().stop);
}

#[test]
fn the_last_output_counts_even_when_it_comes_late() {
    let mut bench = Draft::chain(1).deadline().accept();
    bench.at(DEADLINE + 1).done(0);
    assert!(bench.live.operation().response().is_some());
}

#[test]
fn a_wait_beyond_the_deadline_is_due_at_the_deadline() {
    let mut bench = Draft::chain(1).deadline().accept();
    bench.at(DEADLINE - 1).fails(0, Applied::No, AGAIN);
    let due = bench.live.due_at().unwrap();
    assert!(due <= t(DEADLINE));
    assert_eq!(bench.live.due_at(), bench.next().wake_at);
}

#[test]
fn a_step_is_run_as_often_as_its_policy_says() {
    let runs_max = 4;
    let mut bench = Draft::chain(1).policy(StepPolicy { runs_max, ..policy() }).accept();
    for _ in 1..runs_max {
        bench.fails(0, Applied::No, AGAIN);
        assert_eq!(bench.live.phase(), Phase::Pending);
        bench.later(60).tell(Command::Resume);
    }
    bench.fails(0, Applied::No, AGAIN);
    assert!(bench.live.is_done());
    assert_eq!(bench.live.finished().unwrap().attempts, [runs_max]);
}

#[test]
fn crashes_do_not_use_up_runs() {
    let mut bench = Draft::chain(1).accept();
    bench.crash().crash().fails(0, Applied::No, AGAIN);
    assert_eq!(
        last_events(&bench),
        "again 0 maybe ~2s",
        "the runs that were interrupted may have had an effect"
    );
}

#[test]
fn retry_now_ends_every_wait() {
    let backoff = Backoff { first: Duration::from_secs(3600), longest: Duration::from_secs(3600) };
    let slow = StepPolicy { backoff, undo_backoff: backoff, ..policy() };
    let mut bench = Draft::chain(1).policy(slow).accept();
    bench.fails(0, Applied::Unknown, AGAIN).later(1).tell(verb_without_reason(Verb::RetryNow));
    assert_eq!(bench.next().run, [s(0)]);
    bench.fails(0, Applied::Unknown, FINAL).undo_fails(0).later(1).tell(verb(Verb::RetryNow));
    assert_eq!(bench.next().undo, [s(0)]);
    assert_eq!(bench.live.undo_failures(s(0)), 1, "what had failed is not forgotten");
}

fn interventions(bench: &Bench) -> Vec<(Verb, String)> {
    let acts = &bench.live.finished().unwrap().interventions;
    acts.iter().map(|act| (act.verb, act.by.to_string())).collect()
}

fn retries(by: &str, reason: &str) -> Command {
    Command::Intervene { by: caller(by), verb: Verb::RetryNow, reason: reason.to_owned() }
}

#[test]
fn operators_can_retry_for_ever_and_leave_two_lines() {
    let mut bench = Draft::chain(1).accept();
    bench.fails(0, Applied::Unknown, FINAL).undo_fails(0);
    let first = bench.now.saturating_add(Duration::from_secs(1));
    for time in 0..3 * limits::INTERVENTIONS_MAX {
        bench.later(1).tell(retries("olga", &format!("time {time}")));
    }
    let last = bench.now;
    let long = "x".repeat(limits::REASON_BYTES_MAX + 1);
    let by = caller("olga");
    let refusal = bench.refuses(Command::Intervene { by, verb: Verb::Abandon, reason: long });
    assert!(matches!(refusal, Refusal::Invalid(invalid) if invalid.field == "reason"));
    let (by, reason) = (caller("olga"), "x".repeat(limits::REASON_BYTES_MAX));
    bench.later(1).tell(Command::Intervene { by, verb: Verb::Abandon, reason });
    assert!(bench.live.operation().was_abandoned());
    let acts = &bench.live.finished().unwrap().interventions;
    let told: Vec<_> = acts[..2].iter().map(|act| (act.at, act.reason.as_str())).collect();
    assert_eq!((acts.len(), told), (3, vec![(first, "time 0"), (last, "time 191")]));
}

/// As many undos that fail as there may run at the same time, and some more.
fn many_blocked() -> Bench {
    let steps = vec![&[] as &[u16]; limits::INTERVENTIONS_MAX + 2];
    let mut bench = Draft::of(&steps).parallel(limits::PARALLEL_STEPS_MAX).accept();
    bench.done(0).done(1).cancel();
    for step in 2..=65 {
        bench.fails(step, Applied::Unknown, FINAL);
    }
    for step in 0..=65 {
        bench.undo_fails(step);
    }
    bench
}

#[test]
fn c04_what_operators_did_can_be_read_before_and_after_the_end() {
    let mut bench = Draft::chain(2).accept();
    bench.done(0).fails(1, Applied::Unknown, FINAL).undo_fails(1).later(1).tell(retries("bob", "now"));
    bench.undo_fails(1).later(1).tell(verb(Verb::MarkUndone(s(1)))).undo_fails(0);
    let told = |bench: &Bench| {
        let acts = bench.live.operation().interventions().to_vec();
        acts.into_iter().map(|act| (act.at, act.by.to_string(), act.verb, act.reason)).collect::<Vec<_>>()
    };
    let mut expected = vec![
        (t(1), "bob".to_owned(), Verb::RetryNow, "now".to_owned()),
        (t(2), "olga".to_owned(), Verb::MarkUndone(s(1)), "ticket 12".to_owned()),
    ];
    assert_eq!(told(&bench), expected);
    bench.tell(verb(Verb::Abandon));
    expected.push((t(2), "olga".to_owned(), Verb::Abandon, "ticket 12".to_owned()));
    assert_eq!(told(&bench), expected);
}

#[test]
fn operators_leave_a_bounded_record_and_can_always_retry_and_abandon() {
    let mut bench = many_blocked();
    for step in 0..64 {
        bench.tell(retries("olga", "")).tell(verb(Verb::MarkUndone(s(step))));
    }
    for full in [Verb::MarkUndone(s(64)), Verb::SkipUndo(s(64))] {
        assert!(matches!(bench.refuses(verb(full)), Refusal::Invalid(invalid) if invalid.field == "verb"));
    }
    bench.undo_fails(64).undo_fails(65);
    assert_eq!(bench.next().undo, []);
    bench.later(1).tell(retries("olga", "")).tell(retries("bob", ""));
    assert_eq!(bench.next().undo, [s(64), s(65)], "told, though there is no line left to note it");
    assert_eq!(bench.live.operation().interventions().len(), limits::INTERVENTIONS_MAX);
    bench.tell(verb(Verb::Abandon));
    let acts = interventions(&bench);
    let marked = (0..64).map(|step| (Verb::MarkUndone(s(step)), "olga".to_owned()));
    assert_eq!(acts[..64], marked.collect::<Vec<_>>(), "what was taken over is all on record (C4)");
    assert_eq!(acts[64..], [(Verb::Abandon, "olga".to_owned())]);
}

#[test]
fn operators_who_retry_in_turn_crowd_out_nothing() {
    let mut bench = many_blocked();
    for time in 0..4 * limits::INTERVENTIONS_MAX {
        bench.tell(retries(["olga", "bob"][time % 2], "again"));
    }
    bench.tell(verb(Verb::MarkUndone(s(0)))).tell(retries("bob", "again"));
    for script in 0..4 * limits::INTERVENTIONS_MAX {
        bench.tell(retries(&format!("script-{script}"), "again"));
    }
    for step in 1..4 {
        bench.tell(verb(Verb::MarkUndone(s(step))));
    }
    bench.tell(verb(Verb::Abandon));
    let acts = interventions(&bench);
    assert!(acts.len() <= limits::INTERVENTIONS_MAX + 1, "{} lines", acts.len());
    let taken_over = acts.iter().filter(|(verb, _)| matches!(verb, Verb::MarkUndone(_))).count();
    assert_eq!((taken_over, acts.last().unwrap().0), (4, Verb::Abandon));
}

#[test]
fn an_operation_that_only_goes_forward_can_be_abandoned_while_it_keeps_failing() {
    let mut bench = Draft::of(&[&[], &[0], &[0]]).no_return(1).accept();
    assert!(matches!(bench.refuses(verb(Verb::Abandon)), Refusal::NotBlocked(_)));
    // Before the point of no return a failure is no reason: it can still be cancelled.
    bench.fails(0, Applied::No, AGAIN);
    assert!(matches!(bench.refuses(verb(Verb::Abandon)), Refusal::NotBlocked(_)));
    bench.later(10).tell(Command::Resume).done(0);
    assert!(matches!(bench.refuses(verb(Verb::Abandon)), Refusal::NotBlocked(_)));
    let first = bench.reports_failure(1, "first", Applied::Unknown, AGAIN);
    bench.tell(first).later(10).tell(Command::Resume);
    let last = bench.reports_failure(1, "last", Applied::No, FINAL);
    bench.tell(last).crash();
    let late = bench.reports_done(2);
    assert!(bench.live.operation().error().is_none(), "C3: it does not roll back");
    bench.tell(verb(Verb::Abandon));
    let operation = bench.live.operation();
    assert!(operation.done() && operation.was_abandoned());
    assert_eq!((operation.error(), operation.response()), (Some(&error("last")), None));
    let finished = bench.live.finished().unwrap();
    assert_eq!(finished.failed_step.as_ref().unwrap().as_str(), "step-1");
    assert_eq!((&*finished.attempts, finished.interventions.len()), (&[2, 2, 2][..], 1));
    assert!(matches!(bench.refuses(late), Refusal::Stale { .. }), "a run still on reports to nobody");
}

#[test]
fn one_that_kills_its_process_past_the_point_of_no_return_can_be_abandoned() {
    let mut bench = Draft::chain(1).no_return(0).accept();
    for _ in 0..=limits::INTERRUPTIONS_FREE {
        assert!(matches!(bench.refuses(verb(Verb::Abandon)), Refusal::NotBlocked(_)));
        bench.crash();
    }
    bench.tell(verb(Verb::Abandon));
    assert_eq!(bench.live.operation().error().unwrap().code(), Code::Aborted, "no run said why");
}

#[test]
fn an_operation_whose_resources_are_not_those_of_its_plan_is_not_accepted() {
    let draft = Draft::chain(1).three_claims();
    let plan = Plan::new(draft.parts.clone()).unwrap();
    let right = draft.header();
    let mut wrong =
        vec![Vec::new(), right.resources.clone(), right.resources.clone(), right.resources.clone()];
    wrong[1].swap(0, 1);
    wrong[2].pop();
    wrong[3].push(key("other"));
    for resources in wrong {
        let header = longrun_core::Header { resources, ..right.clone() };
        let refused = Execution::accept(Acceptance { header, plan: plan.clone(), start: true }).unwrap_err();
        assert!(matches!(refused, AcceptError::Invalid(invalid) if invalid.field == "resources"));
    }
}

#[test]
fn c10_an_undo_is_owed_until_it_is_done_or_taken_over() {
    let mut bench = Draft::chain(2).accept();
    let owed = |bench: &Bench| [0, 1].map(|step| bench.live.owes_undo(s(step)));
    bench.done(0);
    assert_eq!(owed(&bench), [false, false]);
    bench.cancel();
    assert_eq!(owed(&bench), [false, false], "a run is on");
    bench.fails(1, Applied::Unknown, FINAL).undo_fails(1);
    assert_eq!(owed(&bench), [false, true], "also while it waits");
    bench.tell(verb(Verb::SkipUndo(s(1))));
    assert_eq!(owed(&bench), [true, false]);
    bench.undone(0);
    assert_eq!(owed(&bench), [false, false]);
    assert!(!bench.live.owes_undo(s(99)));
}

#[test]
fn an_abandoned_run_that_is_still_on_reports_to_nobody() {
    let mut bench = Draft::of(&[&[], &[]]).accept();
    bench.fails(0, Applied::Unknown, FINAL).undo_fails(0);
    let late = bench.reports_done(1);
    bench.tell(verb(Verb::Abandon));
    assert_eq!(bench.refuses(late), Refusal::Stale { step: s(1), attempt: attempt(1) });
}

#[test]
fn s14_adopting_twice_without_anything_in_between_counts_each_crash_once() {
    let mut bench = Draft::chain(1).accept();
    bench.later(1).crash().crash();
    assert_eq!((bench.ledger.runs(0), bench.turns.len()), (3, 3));
    bench.crash();
    assert_eq!(bench.next().run, [], "the third in a row waits");
    let waiting = bench.live.clone();
    bench.crash();
    assert_eq!(bench.live, waiting, "nothing ran, so nothing was interrupted");
}

#[test]
fn a_gentle_stop_is_no_interruption_however_often_it_happens() {
    let mut run = Draft::of(&[&[], &[]]).accept();
    let mut undo = Draft::of(&[&[], &[]]).accept();
    undo.done(0).cancel().crash();
    for stop in 0..3 * limits::INTERRUPTIONS_MAX {
        for bench in [&mut run, &mut undo] {
            let before = bench.next();
            let events = bench.try_tell_at_rest(&Command::Leave).unwrap();
            assert_eq!(events.len(), 2, "{stop}: {events:?}");
            assert_eq!(
                bench.live.due_at(),
                Some(t(0)),
                "it costs no change of its place, and is as old as before"
            );
            assert_eq!(bench.try_tell_at_rest(&Command::Leave).unwrap(), [], "once is enough");
            // A clock that was set back since does not keep it waiting.
            bench.at(-i64::from(stop)).crash();
            assert_eq!(bench.next(), before, "{stop}: it goes on at once");
        }
        assert_eq!((run.live.phase(), undo.live.blocked()), (Phase::Pending, vec![]));
        assert!(
            run.store.journal.len() <= 3 && undo.store.journal.len() <= 6,
            "they take each other's place"
        );
    }
    // What a step did before it was stopped is not known.
    run.cancel();
    assert_eq!(run.live.undoable(s(0)), Some(Undoable::MayHaveRun(None)));
    // Crashes count on from where they were.
    let mut both = Draft::chain(1).accept();
    both.crash().crash().try_tell_at_rest(&Command::Leave).unwrap();
    both.crash();
    assert_eq!(both.next().run, [s(0)]);
    both.crash();
    assert_eq!(both.next().run, [], "the third crash in a row waits");
}

#[test]
fn l4_s44_waits_are_kept_when_the_clock_was_set_back_before_the_acceptance() {
    let seconds = Duration::from_secs;
    let mut run = Draft::chain(1).accept();
    run.at(-3600).fails(0, Applied::Unknown, true);
    let mut undo = Draft::chain(2).accept();
    undo.done(0).cancel().at(-3600).fails(1, Applied::No, false).undo_fails(0);
    // The first waits of `policy()`.
    for (bench, first) in [(&mut run, 2), (&mut undo, 4)] {
        for _ in 0..2 {
            let next = bench.next();
            assert_eq!((next.run, next.undo), (vec![], vec![]));
            let wait = next.wake_at.unwrap().since(bench.now);
            assert!(wait >= seconds(first) / 2 && wait <= seconds(first), "{wait:?}");
            assert_eq!(bench.live.due_at(), next.wake_at);
            bench.crash();
        }
        bench.now = bench.next().wake_at.unwrap();
        bench.tell(Command::Resume);
        let next = bench.next();
        assert_eq!((next.run.len() + next.undo.len(), next.wake_at), (1, None));
    }
}

#[test]
fn s32_s44_what_waits_for_nothing_goes_on_whatever_the_clocks_show() {
    let hour = 3600;
    // A crash that costs no wait, found by a process that was about to stop.
    let mut crashed = Draft::chain(1).accept();
    crashed.at(hour).try_tell_at_rest(&Command::Adopt).unwrap();
    // An operator's clock is ahead.
    let mut run = Draft::chain(1).accept();
    run.fails(0, Applied::Unknown, AGAIN).at(hour).try_tell_at_rest(&verb(Verb::RetryNow)).unwrap();
    let mut undo = Draft::chain(2).accept();
    undo.done(0).cancel().fails(1, Applied::No, FINAL).undo_fails(0).at(hour);
    undo.try_tell_at_rest(&verb(Verb::RetryNow)).unwrap();
    for bench in [&mut crashed, &mut run, &mut undo] {
        assert_eq!(bench.live.due_at(), Some(t(0)));
        bench.at(-hour).tell(Command::Resume);
        let next = bench.next();
        assert!(next.run.len() + next.undo.len() > 0 && next.wake_at.is_none(), "{next:?}");
    }
}

#[test]
fn crashes_count_in_a_row_and_a_failure_that_was_reported_ends_the_row() {
    let mut run = Draft::chain(1).accept();
    run.crash().crash().fails(0, Applied::No, AGAIN).later(10).tell(Command::Resume).crash();
    assert_eq!(run.next().run, [s(0)], "the first in its row, so it does not wait");

    let mut undo = Draft::chain(1).accept();
    undo.fails(0, Applied::Unknown, FINAL).crash().crash().undo_fails(0).later(10).crash();
    assert_eq!(undo.next().undo, [s(0)]);
}

#[test]
fn what_waits_has_the_end_of_its_wait_as_its_place_also_before_its_acceptance() {
    let mut bench = Draft::chain(1).accept();
    assert_eq!(bench.live.due_at(), Some(t(0)));
    bench.at(-5000).fails(0, Applied::No, AGAIN);
    let place = bench.live.due_at().unwrap();
    assert!(place > t(-5000) && place < t(0), "{place}");
    bench.at(10).tell(Command::Resume);
    assert_eq!(bench.live.due_at(), Some(t(0)));
}

#[test]
fn rows_count_their_writes_when_one_turn_goes_through_two_stages() {
    let mut bench = Draft::chain(1).three_claims().accept();
    let fails = bench.reports_failure(0, "boom", Applied::Unknown, FINAL);
    let undo = Command::UndoReport { step: s(0), failures: 0, result: Err(error("cannot undo")) };
    let mut events = Vec::new();
    for command in [fails, undo, verb(Verb::Abandon)] {
        bench.live.handle(&command, t(1), &mut events).unwrap();
    }
    let turn = bench.live.seal(events, t(1)).unwrap();
    bench.store.commit(&turn);
    bench.store.check_done(&bench.plan, &bench.live.operation());
}

/// A journal whose events are each well formed, and which no operation can have written. Gives what is told of it.
#[track_caller]
fn is_held(bench: &Bench, change: impl FnOnce(&mut Vec<Entry>)) -> String {
    bench.restored_with(change).unwrap_err().what
}

#[test]
fn c18_an_impossible_journal_is_held() {
    let last = |entries: &mut Vec<Entry>| entries.pop().unwrap();
    let mut bench = Draft::chain(2).accept();
    bench.done(0).fails(1, Applied::Unknown, FINAL);
    is_held(&bench, Vec::clear);
    is_held(&bench, |entries| _ = entries.remove(1));
    is_held(&bench, |entries| _ = entries.last_mut().unwrap().events.pop());
    is_held(&bench, |entries| entries.last_mut().unwrap().events.push(Event::RolledBack));
    is_held(&bench, |entries| entries.last_mut().unwrap().at = t(-1));
    is_held(&bench, |entries| entries.last_mut().unwrap().revision = Revision(4));
    is_held(&bench, |entries| {
        let entry = last(entries);
        entries.push(Entry { revision: Revision(2), ..entry });
    });

    let mut bench = Draft::chain(2).no_return(1).accept();
    bench.done(0);
    let decide = Event::RollbackDecided { cause: error("boom"), step: None };
    is_held(&bench, |entries| entries.last_mut().unwrap().events.push(decide));
    let early = Event::Succeeded { response: payload("x") };
    is_held(&bench, |entries| entries.last_mut().unwrap().events.push(early));

    let mut bench = Draft::chain(1).accept();
    bench.saves(0, "x");
    is_held(&bench, |entries| entries.last_mut().unwrap().revision = Revision(u64::MAX));
}

#[test]
fn s04_a_journal_in_which_a_step_starts_after_the_decision_is_held() {
    let mut bench = Draft::chain(2).accept();
    bench.fails(0, Applied::Unknown, FINAL);
    let started = Event::StepStarted { step: s(1), attempt: attempt(1) };
    let held = is_held(&bench, |entries| entries.last_mut().unwrap().events.push(started));
    assert_eq!(held, "the start of a step cannot follow");
}

/// Pending, rolling back, done: whatever is said meanwhile, and whatever crashes.
#[test]
fn s04_the_phase_never_goes_back() {
    let mut bench = Draft::of(&[&[], &[], &[0, 1]]).accept();
    bench.done(0).fails(1, Applied::Unknown, FINAL).undo_fails(0).undo_fails(1);
    for command in [
        verb(Verb::RetryNow),
        Command::Adopt,
        Command::Resume,
        Command::Leave,
        cancel(),
        verb(Verb::RetryNow),
    ] {
        bench.later(60).tell(command).crash();
        let operation = bench.live.operation();
        assert_eq!((operation.phase(), operation.error()), (Phase::RollingBack, Some(&error("boom"))));
    }
    bench.drive();
    for command in [Command::Adopt, Command::Resume, Command::Leave, cancel()] {
        bench.later(60).tell(command).crash();
        assert_eq!(bench.live.phase(), Phase::Done);
    }
}

/// 1,000 steps: the turns are counted, and the test would take minutes if a turn cost what the plan is long
/// squared.
fn thousand() -> Execution {
    let mut draft = Draft::chain(1000).three_claims();
    for step in &mut draft.parts.steps {
        step.policy = None;
    }
    let header = draft.header();
    let plan = Plan::new(draft.parts).unwrap();
    Execution::accept(Acceptance { header, plan, start: true }).unwrap().0
}

fn turn(live: &mut Execution, command: &Command) -> Vec<Event> {
    let mut events = Vec::new();
    live.handle(command, t(1), &mut events).unwrap();
    live.seal(events, t(1)).unwrap().entry.events
}

fn done(step: u16) -> Command {
    Command::Report {
        step: s(step),
        attempt: attempt(1),
        report: StepReport::Done(Json::encode("x", &1).unwrap()),
    }
}

#[test]
fn a_thousand_steps_forward_and_back() {
    let mut forward = thousand();
    for step in 0..999 {
        assert_eq!(turn(&mut forward, &done(step)).len(), 2, "bytes per turn do not grow");
    }
    let mut back = forward.clone();
    turn(&mut forward, &done(999));
    assert_eq!((forward.is_done(), forward.revision().0), (true, 1001));

    turn(&mut back, &cancel());
    turn(&mut back, &done(999));
    for step in (0..1000).rev() {
        assert_eq!(back.next(t(1)).undo, [s(step)]);
        turn(&mut back, &Command::UndoReport { step: s(step), failures: 0, result: Ok(()) });
    }
    assert_eq!((back.is_done(), back.revision().0), (true, 2002));
}
