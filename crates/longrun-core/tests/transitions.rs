//! The whole table: every state an operation can be in, and what each command does to it there.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::*;
use longrun_core::{
    Applied, Attempt, Blocked, Command, Entry, Event, Intervention, Revision, StepReport, Verb,
};

/// Read a block as: in this state there is this to do; each effect, and the commands that have it.
/// `again 0 maybe ~2s`: the run failed, may have had an effect, the next may start after 1 to 2 s of jitter.
const TABLE: &str = r"
    # backlog: wake at the deadline; due at once
    start 0#1 <= adopt resume leave resume-after-wait retry-now
    decide DEADLINE_EXCEEDED, rolled-back <= resume-late
    ! stale 0#0 <= done fail-none-again fail-none-final fail-maybe-again fail-maybe-final
        .. save undo-ok undo-err
    ! stale 0#1 <= done-other-run save-other-run undo-stale
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    decide CANCELLED, rolled-back <= cancel
    ! not blocked <= mark-undone mark-undone-wrong skip-undo skip-undo-wrong abandon
    ! reason <= mark-undone-no-reason abandon-no-reason

    # first step running: run 0, wake at the deadline; due at once
    interrupted 0 now, start 0#2 <= adopt leave
    - <= resume resume-after-wait retry-now
    decide DEADLINE_EXCEEDED <= resume-late
    done 0, start 1#1 <= done
    again 0 none ~2s <= fail-none-again
    failed 0 none, decide UNAVAILABLE by 0, rolled-back <= fail-none-final
    again 0 maybe ~2s <= fail-maybe-again
    failed 0 maybe, decide UNAVAILABLE by 0 <= fail-maybe-final
    ! stale 0#2 <= done-other-run save-other-run
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    saved 0 <= save
    ! stale 0#0 <= undo-ok undo-err
    ! stale 0#1 <= undo-stale
    decide CANCELLED <= cancel
    ! not blocked <= mark-undone mark-undone-wrong skip-undo skip-undo-wrong abandon
    ! reason <= mark-undone-no-reason abandon-no-reason

    # two running: run 0 1, wake at the deadline; due at once
    interrupted 0 now, interrupted 1 now, start 0#2, start 1#2 <= adopt leave
    - <= resume resume-after-wait retry-now
    decide DEADLINE_EXCEEDED <= resume-late
    done 0 <= done
    again 0 none ~2s <= fail-none-again
    failed 0 none, decide UNAVAILABLE by 0 <= fail-none-final
    again 0 maybe ~2s <= fail-maybe-again
    failed 0 maybe, decide UNAVAILABLE by 0 <= fail-maybe-final
    ! stale 0#2 <= done-other-run save-other-run
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    saved 0 <= save
    ! stale 0#0 <= undo-ok undo-err
    ! stale 0#1 <= undo-stale
    decide CANCELLED <= cancel
    ! not blocked <= mark-undone mark-undone-wrong skip-undo skip-undo-wrong abandon
    ! reason <= mark-undone-no-reason abandon-no-reason

    # waits to run again: wake ~2s; due when it wakes
    - <= adopt resume leave
    start 0#2 <= resume-after-wait
    decide DEADLINE_EXCEEDED <= resume-late
    ! stale 0#1 <= done fail-none-again fail-none-final fail-maybe-again fail-maybe-final
        .. save undo-stale
    ! stale 0#2 <= done-other-run save-other-run
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    ! stale 0#0 <= undo-ok undo-err
    decide CANCELLED <= cancel
    retry-now, start 0#2 <= retry-now
    ! not blocked <= mark-undone mark-undone-wrong skip-undo skip-undo-wrong abandon
    ! reason <= mark-undone-no-reason abandon-no-reason

    # last step running: run 1, wake at the deadline; due at once
    interrupted 1 now, start 1#2 <= adopt leave
    - <= resume resume-after-wait retry-now
    decide DEADLINE_EXCEEDED <= resume-late
    done 1, succeeded <= done
    again 1 none ~2s <= fail-none-again
    failed 1 none, decide UNAVAILABLE by 1 <= fail-none-final
    again 1 maybe ~2s <= fail-maybe-again
    failed 1 maybe, decide UNAVAILABLE by 1 <= fail-maybe-final
    ! stale 1#2 <= done-other-run save-other-run
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    saved 1 <= save
    ! stale 1#0 <= undo-ok undo-err
    ! stale 1#1 <= undo-stale
    decide CANCELLED <= cancel
    ! not blocked <= mark-undone mark-undone-wrong skip-undo skip-undo-wrong abandon
    ! reason <= mark-undone-no-reason abandon-no-reason

    # past no return: running: run 1; due at once
    interrupted 1 now, start 1#2 <= adopt leave
    - <= resume resume-after-wait resume-late cancel retry-now
    done 1, start 2#1 <= done
    again 1 none ~2s <= fail-none-again fail-none-final
    again 1 maybe ~2s <= fail-maybe-again fail-maybe-final
    ! stale 1#2 <= done-other-run save-other-run
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    saved 1 <= save
    ! stale 1#0 <= undo-ok undo-err
    ! stale 1#1 <= undo-stale
    ! not blocked <= mark-undone mark-undone-wrong skip-undo skip-undo-wrong abandon
    ! reason <= mark-undone-no-reason abandon-no-reason

    # past no return: waits: wake ~2s; due when it wakes
    - <= adopt resume leave cancel
    start 1#2 <= resume-after-wait resume-late
    ! stale 1#1 <= done fail-none-again fail-none-final fail-maybe-again fail-maybe-final
        .. save undo-stale
    ! stale 1#2 <= done-other-run save-other-run
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    ! stale 1#0 <= undo-ok undo-err
    retry-now, start 1#2 <= retry-now
    ! not blocked <= mark-undone mark-undone-wrong skip-undo skip-undo-wrong
    ! reason <= mark-undone-no-reason abandon-no-reason
    abandon <= abandon

    # past no return: blocked: wake ~4s; due when it wakes; blocked step-1 after 2 failures: boom
    - <= adopt resume leave cancel
    start 1#3 <= resume-after-wait resume-late
    ! stale 1#2 <= done fail-none-again fail-none-final fail-maybe-again fail-maybe-final
        .. save
    ! stale 1#3 <= done-other-run save-other-run
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    ! stale 1#0 <= undo-ok undo-err
    ! stale 1#1 <= undo-stale
    retry-now, start 1#3 <= retry-now
    ! not blocked <= mark-undone mark-undone-wrong skip-undo skip-undo-wrong
    ! reason <= mark-undone-no-reason abandon-no-reason
    abandon <= abandon

    # past no return: running again: run 1; due at once
    interrupted 1 now, start 1#3 <= adopt leave
    - <= resume resume-after-wait resume-late cancel retry-now
    done 1, start 2#1 <= done
    again 1 maybe ~4s <= fail-none-again fail-none-final fail-maybe-again fail-maybe-final
    ! stale 1#3 <= done-other-run save-other-run
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    saved 1 <= save
    ! stale 1#0 <= undo-ok undo-err
    ! stale 1#1 <= undo-stale
    ! not blocked <= mark-undone mark-undone-wrong skip-undo skip-undo-wrong
    ! reason <= mark-undone-no-reason abandon-no-reason
    abandon <= abandon

    # past no return: interrupted twice: run 1; due at once
    interrupted 1 ~4s <= adopt
    - <= resume resume-after-wait resume-late cancel retry-now
    interrupted 1 now, start 1#4 <= leave
    done 1, start 2#1 <= done
    again 1 maybe ~2s <= fail-none-again fail-none-final fail-maybe-again fail-maybe-final
    ! stale 1#4 <= done-other-run save-other-run
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    saved 1 <= save
    ! stale 1#0 <= undo-ok undo-err
    ! stale 1#1 <= undo-stale
    ! not blocked <= mark-undone mark-undone-wrong skip-undo skip-undo-wrong abandon
    ! reason <= mark-undone-no-reason abandon-no-reason

    # past no return: interrupted thrice: wake ~4s; due when it wakes
    - <= adopt resume leave cancel
    start 1#4 <= resume-after-wait resume-late
    ! stale 1#3 <= done fail-none-again fail-none-final fail-maybe-again fail-maybe-final
        .. save
    ! stale 1#4 <= done-other-run save-other-run
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    ! stale 1#0 <= undo-ok undo-err
    ! stale 1#1 <= undo-stale
    retry-now, start 1#4 <= retry-now
    ! not blocked <= mark-undone mark-undone-wrong skip-undo skip-undo-wrong
    ! reason <= mark-undone-no-reason abandon-no-reason
    abandon <= abandon

    # rolling back: a run still on: run 1, undo 0, stop; due at once
    failed 1 maybe, undo-interrupted 0 now <= adopt
    - <= resume resume-after-wait resume-late cancel retry-now
    undo-interrupted 0 now <= leave
    done 1 <= done
    failed 1 none <= fail-none-again fail-none-final
    failed 1 maybe <= fail-maybe-again fail-maybe-final
    ! stale 1#2 <= done-other-run save-other-run
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    saved 1 <= save
    ! stale 1#0 <= undo-ok undo-err
    ! stale 1#1 <= undo-stale
    ! not blocked <= mark-undone mark-undone-wrong skip-undo skip-undo-wrong abandon
    ! reason <= mark-undone-no-reason abandon-no-reason

    # rolling back: undoing: undo 1, stop; due at once
    undo-interrupted 1 now <= adopt leave
    - <= resume resume-after-wait resume-late cancel retry-now
    ! stale 1#1 <= done fail-none-again fail-none-final fail-maybe-again fail-maybe-final
        .. save undo-stale
    ! stale 1#2 <= done-other-run save-other-run
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    undone 1 <= undo-ok
    undo-failed 1 ~4s <= undo-err
    ! not blocked <= mark-undone mark-undone-wrong skip-undo skip-undo-wrong abandon
    ! reason <= mark-undone-no-reason abandon-no-reason

    # rolling back: undo waits: stop, wake ~4s; due when it wakes
    - <= adopt resume leave resume-after-wait resume-late cancel
    ! stale 1#1 <= done fail-none-again fail-none-final fail-maybe-again fail-maybe-final
        .. save
    ! stale 1#2 <= done-other-run save-other-run undo-stale
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    undone 1 <= undo-ok
    undo-failed 1 ~8s <= undo-err
    retry-now <= retry-now
    mark-undone 1 <= mark-undone
    ! not blocked <= mark-undone-wrong skip-undo-wrong
    ! reason <= mark-undone-no-reason abandon-no-reason
    skip-undo 1 <= skip-undo
    abandon <= abandon

    # rolling back: blocked: stop, wake ~8s; due when it wakes; blocked step-1 after 2 failures: cannot undo
    - <= adopt resume leave resume-after-wait resume-late cancel
    ! stale 1#1 <= done fail-none-again fail-none-final fail-maybe-again fail-maybe-final
        .. save
    ! stale 1#2 <= done-other-run save-other-run
    ! no step 99 <= done-no-step undo-no-step mark-undone-no-step
    undone 1 <= undo-ok
    undo-failed 1 ~16s <= undo-err
    ! stale 1#3 <= undo-stale
    retry-now <= retry-now
    mark-undone 1 <= mark-undone
    ! not blocked <= mark-undone-wrong skip-undo-wrong
    ! reason <= mark-undone-no-reason abandon-no-reason
    skip-undo 1 <= skip-undo
    abandon <= abandon

    # rolled back: nothing; due never
    - <= adopt resume leave resume-after-wait resume-late cancel
    ! stale 1#0 <= done fail-none-again fail-none-final fail-maybe-again fail-maybe-final
        .. save undo-ok undo-err
    ! stale 1#1 <= done-other-run save-other-run undo-stale
    ! stale 99#0 <= done-no-step undo-no-step
    ! is done <= retry-now mark-undone mark-undone-wrong mark-undone-no-step
        .. mark-undone-no-reason skip-undo skip-undo-wrong abandon abandon-no-reason

    # abandoned: nothing; due never
    - <= adopt resume leave resume-after-wait resume-late cancel
    ! stale 1#0 <= done fail-none-again fail-none-final fail-maybe-again fail-maybe-final
        .. save undo-ok undo-err
    ! stale 1#1 <= done-other-run save-other-run undo-stale
    ! stale 99#0 <= done-no-step undo-no-step
    ! is done <= retry-now mark-undone mark-undone-wrong mark-undone-no-step
        .. mark-undone-no-reason skip-undo skip-undo-wrong abandon abandon-no-reason

    # abandoned past no return: nothing; due never
    - <= adopt resume leave resume-after-wait resume-late cancel
    ! stale 1#0 <= done fail-none-again fail-none-final fail-maybe-again fail-maybe-final
        .. save undo-ok undo-err
    ! stale 1#1 <= done-other-run save-other-run undo-stale
    ! stale 99#0 <= done-no-step undo-no-step
    ! is done <= retry-now mark-undone mark-undone-wrong mark-undone-no-step
        .. mark-undone-no-reason skip-undo skip-undo-wrong abandon abandon-no-reason

    # succeeded: nothing; due never
    - <= adopt resume leave resume-after-wait resume-late cancel
    ! stale 1#0 <= done fail-none-again fail-none-final fail-maybe-again fail-maybe-final
        .. save undo-ok undo-err
    ! stale 1#1 <= done-other-run save-other-run undo-stale
    ! stale 99#0 <= done-no-step undo-no-step
    ! is done <= retry-now mark-undone mark-undone-wrong mark-undone-no-step
        .. mark-undone-no-reason skip-undo skip-undo-wrong abandon abandon-no-reason
";

/// Read a line as: in this state these events may follow.
const FOLLOWS: &str = r"
    backlog: start retry-now decide-rolled-back
    first step running: done again again-later-run-of-two interrupted save save-of-two decide
        .. retry-now failed-decide
    two running: done done-wrong again again-later-run-of-two interrupted save save-wrong
        .. save-of-two decide retry-now failed-decide
    waits to run again: start decide retry-now
    last step running: again again-later-run-of-two interrupted save save-of-two decide retry-now
        .. failed-decide done-succeeded
    past no return: running: done again again-later-run-of-two interrupted save save-of-two
        .. retry-now abandon
    past no return: waits: start retry-now abandon
    past no return: blocked: start retry-now abandon
    past no return: running again: done again again-later-run-of-two interrupted save save-of-two
        .. retry-now abandon
    past no return: interrupted twice: done again again-later-run-of-two interrupted save
        .. save-of-two retry-now abandon
    past no return: interrupted thrice: start retry-now abandon
    rolling back: a run still on: done failed save save-of-two undone-wrong retry-now
        .. mark-undone-wrong abandon
    rolling back: undoing: undone undo-failed undo-interrupted undo-wait-over retry-now mark-undone
        .. skip-undo abandon
    rolling back: undo waits: undone undo-failed undo-interrupted undo-wait-over retry-now
        .. mark-undone skip-undo abandon
    rolling back: blocked: undone undo-failed undo-interrupted undo-wait-over retry-now mark-undone
        .. skip-undo abandon
    rolled back:
    abandoned:
    abandoned past no return:
    succeeded:
";

type State = (&'static str, u16, u16, fn(Draft) -> Bench, Draft);

/// Every state, by real commands. The numbers are the step that the commands are about, and a wrong one.
fn states() -> Vec<State> {
    let chain = || Draft::chain(2).deadline();
    let wide = || Draft::of(&[&[], &[], &[0, 1]]).deadline();
    let no_return = || Draft::chain(3).no_return(1).deadline();
    vec![
        ("backlog", 0, 1, |d| d.backlog().accept(), chain()),
        ("first step running", 0, 1, Draft::accept, chain()),
        ("two running", 0, 1, Draft::accept, wide()),
        ("waits to run again", 0, 1, waiting, chain()),
        ("last step running", 1, 0, last_running, chain()),
        ("past no return: running", 1, 0, last_running, no_return()),
        ("past no return: waits", 1, 0, waiting_past_no_return, no_return()),
        ("past no return: blocked", 1, 0, blocked_past_no_return, no_return()),
        ("past no return: running again", 1, 0, running_again_past_no_return, no_return()),
        ("past no return: interrupted twice", 1, 0, |d| interrupted_past_no_return(d, 2), no_return()),
        ("past no return: interrupted thrice", 1, 0, |d| interrupted_past_no_return(d, 3), no_return()),
        ("rolling back: a run still on", 1, 0, run_still_on, wide()),
        ("rolling back: undoing", 1, 0, undoing, chain()),
        ("rolling back: undo waits", 1, 0, undo_waiting, chain()),
        ("rolling back: blocked", 1, 0, blocked, chain()),
        ("rolled back", 1, 0, rolled_back, chain()),
        ("abandoned", 1, 0, abandoned, chain()),
        ("abandoned past no return", 1, 0, abandoned_past_no_return, no_return()),
        ("succeeded", 1, 0, succeeded, chain()),
    ]
}

fn waiting(draft: Draft) -> Bench {
    let mut bench = draft.accept();
    bench.fails(0, Applied::Unknown, true);
    bench
}

fn last_running(draft: Draft) -> Bench {
    let mut bench = draft.accept();
    bench.done(0);
    bench
}

fn waiting_past_no_return(draft: Draft) -> Bench {
    let mut bench = last_running(draft);
    bench.fails(1, Applied::Unknown, true);
    bench
}

fn blocked_past_no_return(draft: Draft) -> Bench {
    let mut bench = waiting_past_no_return(draft);
    bench.later(10).tell(Command::Resume).fails(1, Applied::Unknown, true);
    bench
}

fn running_again_past_no_return(draft: Draft) -> Bench {
    let mut bench = waiting_past_no_return(draft);
    bench.later(10).tell(Command::Resume);
    bench
}

fn interrupted_past_no_return(draft: Draft, times: u32) -> Bench {
    let mut bench = last_running(draft);
    for _ in 0..times {
        bench.crash();
    }
    bench
}

fn abandoned_past_no_return(draft: Draft) -> Bench {
    let mut bench = blocked_past_no_return(draft);
    bench.tell(verb(Verb::Abandon));
    bench
}

fn run_still_on(draft: Draft) -> Bench {
    let mut bench = draft.accept();
    bench.done(0).cancel();
    bench
}

fn undoing(draft: Draft) -> Bench {
    let mut bench = last_running(draft);
    bench.fails(1, Applied::Unknown, false);
    bench
}

fn undo_waiting(draft: Draft) -> Bench {
    let mut bench = undoing(draft);
    bench.undo_fails(1);
    bench
}

fn blocked(draft: Draft) -> Bench {
    let mut bench = undo_waiting(draft);
    bench.later(10).undo_fails(1);
    bench
}

fn rolled_back(draft: Draft) -> Bench {
    let mut bench = undoing(draft);
    bench.undone(1).undone(0);
    bench
}

fn abandoned(draft: Draft) -> Bench {
    let mut bench = blocked(draft);
    bench.tell(verb(Verb::Abandon));
    bench
}

fn succeeded(draft: Draft) -> Bench {
    let mut bench = last_running(draft);
    bench.done(1);
    bench
}

type Cell = (&'static str, i64, Command);

/// Every command, with how many seconds later it comes.
fn commands(bench: &Bench, step: u16, wrong: u16) -> Vec<Cell> {
    let run = bench.live.attempt(s(step));
    let other_run = attempt(run.0 + 1);
    let done = |at| Command::Report { step: s(step), attempt: at, report: StepReport::Done(output(step)) };
    let failed = |applied, retryable| bench.reports_failure(step, "boom", applied, retryable);
    let saved = |at| {
        let (checkpoint, progress) = (json("half"), Some(progress(50)));
        Command::Checkpoint { step: s(step), attempt: at, checkpoint, progress }
    };
    let failures = bench.live.undo_failures(s(step));
    let undo = |failures, result| Command::UndoReport { step: s(step), failures, result };
    let no_step = Command::Report { step: s(99), attempt: run, report: StepReport::Done(json("x")) };
    let no_undo = Command::UndoReport { step: s(99), failures: 0, result: Ok(()) };
    vec![
        ("adopt", 0, Command::Adopt),
        ("resume", 0, Command::Resume),
        ("leave", 0, Command::Leave),
        ("resume-after-wait", 20, Command::Resume),
        ("resume-late", DEADLINE, Command::Resume),
        ("done", 0, done(run)),
        ("fail-none-again", 0, failed(Applied::No, true)),
        ("fail-none-final", 0, failed(Applied::No, false)),
        ("fail-maybe-again", 0, failed(Applied::Unknown, true)),
        ("fail-maybe-final", 0, failed(Applied::Unknown, false)),
        ("done-other-run", 0, done(other_run)),
        ("done-no-step", 0, no_step),
        ("save", 0, saved(run)),
        ("save-other-run", 0, saved(other_run)),
        ("undo-ok", 0, undo(failures, Ok(()))),
        ("undo-err", 0, undo(failures, Err(error("cannot")))),
        ("undo-stale", 0, undo(failures + 1, Ok(()))),
        ("undo-no-step", 0, no_undo),
        ("cancel", 0, cancel()),
        ("retry-now", 0, verb_without_reason(Verb::RetryNow)),
        ("mark-undone", 0, verb(Verb::MarkUndone(s(step)))),
        ("mark-undone-wrong", 0, verb(Verb::MarkUndone(s(wrong)))),
        ("mark-undone-no-step", 0, verb(Verb::MarkUndone(s(99)))),
        ("mark-undone-no-reason", 0, verb_without_reason(Verb::MarkUndone(s(step)))),
        ("skip-undo", 0, verb(Verb::SkipUndo(s(step)))),
        ("skip-undo-wrong", 0, verb(Verb::SkipUndo(s(wrong)))),
        ("abandon", 0, verb(Verb::Abandon)),
        ("abandon-no-reason", 0, verb_without_reason(Verb::Abandon)),
    ]
}

/// One state: what there is to do in it, then each effect with the commands that have it.
fn show_state(&(name, step, wrong, make, ref draft): &State) -> String {
    let bench = make(draft.clone());
    let mut effects: Vec<(String, Vec<&str>)> = Vec::new();
    for (word, later, command) in commands(&bench, step, wrong) {
        let mut bench = bench.clone();
        bench.now = if later == DEADLINE { t(DEADLINE) } else { bench.now.max(t(later)) };
        let effect = match bench.try_tell(&command) {
            Ok(events) => show_events(&events, bench.now),
            Err(refusal) => show_refusal(&refusal),
        };
        match effects.iter_mut().find(|(other, _)| *other == effect) {
            Some((_, words)) => words.push(word),
            None => effects.push((effect, vec![word])),
        }
    }
    let next = show_next(&bench.next(), bench.now, bench.header.deadline);
    let due = match bench.live.due_at() {
        None => "never",
        Some(at) if at == t(0) => "at once",
        Some(at) if bench.next().wake_at == Some(at) => "when it wakes",
        Some(_) => "?",
    };
    let blocked: String = bench.live.blocked().iter().map(show_blocked).collect();
    let mut text = format!("# {name}: {next}; due {due}{blocked}\n");
    for (effect, words) in effects {
        text += &format!("{effect} <= {}\n", words.join(" "));
    }
    text
}

fn show_blocked(blocked: &Blocked) -> String {
    format!("; blocked {} after {} failures: {}", blocked.name, blocked.failures, blocked.error.message())
}

#[test]
fn every_command_in_every_state() {
    let table: String = states().iter().map(show_state).collect();
    assert_text(&table, TABLE);
}

/// Entries with every event, and with those that come together; and whether each stands for two.
fn events(bench: &Bench, step: u16, wrong: u16) -> Vec<(&'static str, bool, Vec<Event>)> {
    let run = bench.live.attempt(s(step));
    let next = |step| attempt(bench.live.attempt(s(step)).0 + 1);
    let (at, text) = (bench.now, || error("boom"));
    let started = |step, attempt| Event::StepStarted { step: s(step), attempt };
    let done = |step| Event::StepDone { step: s(step), output: output(step) };
    let for_now = |attempt| Event::StepFailedForNow {
        step: s(step),
        attempt,
        failures: 1,
        may_have_run: true,
        error: text(),
        again_at: at,
    };
    let interrupted =
        |attempt| Event::StepInterrupted { step: s(step), attempt, interruptions: 1, again_at: at };
    let failed = Event::StepFailed { step: s(step), may_have_run: true, error: text() };
    let saved = |step| Event::Checkpoint { step: s(step), checkpoint: json("half"), progress: None };
    let decided = Event::RollbackDecided { cause: text(), step: None };
    let succeeded = Event::Succeeded { response: payload("x") };
    let undone = |step| Event::Undone { step: s(step) };
    let undo_failed = Event::UndoFailed { step: s(step), failures: 1, error: text(), again_at: at };
    let undo_interrupted = Event::UndoInterrupted { step: s(step), interruptions: 1, again_at: None };
    let act = |verb| Event::Intervened(Intervention { at, by: caller("op"), verb, reason: "why".into() });
    vec![
        ("start", false, vec![started(step, next(step))]),
        ("start-same-run", false, vec![started(step, run)]),
        ("start-wrong", false, vec![started(wrong, next(wrong))]),
        ("done", false, vec![done(step)]),
        ("done-wrong", false, vec![done(wrong)]),
        ("done-of-two", true, vec![done(step)]),
        ("failed", false, vec![failed.clone()]),
        ("again", false, vec![for_now(run)]),
        ("again-later-run", false, vec![for_now(next(step))]),
        ("again-later-run-of-two", true, vec![for_now(next(step))]),
        ("again-earlier-run-of-two", true, vec![for_now(attempt(run.0.saturating_sub(1)))]),
        ("again-no-such-run-of-two", true, vec![for_now(Attempt(1 << 31))]),
        ("interrupted", false, vec![interrupted(run)]),
        ("save", false, vec![saved(step)]),
        ("save-wrong", false, vec![saved(wrong)]),
        ("save-of-two", true, vec![saved(step)]),
        ("decide", false, vec![decided.clone()]),
        ("undone", false, vec![undone(step)]),
        ("undone-wrong", false, vec![undone(wrong)]),
        ("undo-failed", false, vec![undo_failed]),
        ("undo-interrupted", false, vec![undo_interrupted]),
        ("undo-wait-over", false, vec![Event::UndoWaitOver { step: s(step) }]),
        ("retry-now", false, vec![act(Verb::RetryNow)]),
        ("mark-undone", false, vec![act(Verb::MarkUndone(s(step)))]),
        ("mark-undone-wrong", false, vec![act(Verb::MarkUndone(s(wrong)))]),
        ("skip-undo", false, vec![act(Verb::SkipUndo(s(step)))]),
        ("abandon", false, vec![act(Verb::Abandon)]),
        ("succeeded", false, vec![succeeded.clone()]),
        ("rolled-back", false, vec![Event::RolledBack]),
        ("failed-decide", false, vec![failed.clone(), decided.clone()]),
        ("failed-decide-rolled-back", false, vec![failed, decided.clone(), Event::RolledBack]),
        ("decide-rolled-back", false, vec![decided.clone(), Event::RolledBack]),
        ("decide-twice", false, vec![decided.clone(), decided.clone()]),
        ("decide-start", false, vec![decided, started(step, next(step))]),
        ("done-succeeded", false, vec![done(step), succeeded.clone()]),
        ("done-rolled-back", false, vec![done(step), Event::RolledBack]),
        ("undone-rolled-back", false, vec![undone(step), Event::RolledBack]),
        ("undone-succeeded", false, vec![undone(step), succeeded]),
    ]
}

/// Which of them may follow in each state; with any other the journal is held.
#[test]
fn s04_c18_every_event_after_every_state() {
    let mut table = String::new();
    for (name, step, wrong, make, draft) in states() {
        let bench = make(draft);
        let goes_on = |is_for_two, events| {
            let first = bench.live.revision().next();
            let revision = if is_for_two { first.next() } else { first };
            let entry = Entry { first, revision, at: bench.live.modified_at(), events };
            bench.restored_with(|entries| entries.push(entry)).is_ok()
        };
        let words = events(&bench, step, wrong).into_iter();
        let words: Vec<_> = words
            .filter(|(_, for_two, event)| goes_on(*for_two, event.clone()))
            .map(|(word, ..)| word)
            .collect();
        table += &format!("{name}: {}\n", words.join(" "));
    }
    assert_text(&table, FOLLOWS);
}

/// How far numbers go that no operation comes to.
#[test]
fn c18_a_journal_with_numbers_beyond_all_sense_is_held() {
    let mut bench = Draft::chain(1).accept();
    bench.saves(0, "x");
    let restores =
        |revision| bench.restored_with(|entries| entries.last_mut().unwrap().revision = revision).is_ok();
    assert!(restores(Revision(1 << 62)) && !restores(Revision((1 << 62) + 1)));
}

/// For an operation that no driver works on: the same is decided, and whatever would start waits for a driver.
#[test]
fn at_rest_no_command_starts_anything_in_any_state() {
    let mut kept_from_starting = 0;
    for (name, step, wrong, make, draft) in states() {
        let bench = make(draft);
        for (word, later, command) in commands(&bench, step, wrong) {
            let (mut rests, mut works) = (bench.clone(), bench.clone());
            rests.now = if later == DEADLINE { t(DEADLINE) } else { bench.now.max(t(later)) };
            works.now = rests.now;
            let before = rests.next().run;
            let at_rest = rests.try_tell_at_rest(&command);
            let worked = works.try_tell(&command);
            assert!(rests.next().run.iter().all(|run| before.contains(run)), "{name}: {word} runs more");
            let (Ok(at_rest), Ok(worked)) = (&at_rest, &worked) else {
                assert_eq!(at_rest, worked, "{name}: {word}");
                continue;
            };
            let starts = |event: &&Event| matches!(event, Event::StepStarted { .. });
            let without_starts: Vec<&Event> = worked.iter().filter(|event| !starts(event)).collect();
            assert_eq!(at_rest.iter().collect::<Vec<_>>(), without_starts, "{name}: {word}");
            if at_rest.len() < worked.len() {
                kept_from_starting += 1;
                assert!(rests.live.due_at() <= Some(rests.now), "{name}: {word}: nobody comes for it");
            }
            // A driver that comes then finds all of it.
            rests.tell(Command::Resume);
            assert_eq!(rests.next(), works.next(), "{name}: {word}");
            assert_eq!(rests.said.concat(), works.said.concat(), "{name}: {word}");
        }
    }
    assert!(kept_from_starting > 20, "{kept_from_starting}");
}

#[test]
fn a_backlog_stays_one_whatever_is_said_to_it_at_rest() {
    let mut bench = Draft::chain(2).backlog().accept();
    for command in [Command::Adopt, Command::Resume, verb(Verb::RetryNow)] {
        assert!(bench.try_tell_at_rest(&command).is_ok());
        assert_eq!((bench.next().run, bench.live.due_at()), (vec![], Some(t(0))));
    }
    let events = bench.try_tell_at_rest(&cancel()).unwrap();
    assert_eq!(show_events(&events, bench.now), "decide CANCELLED, rolled-back");
}

/// Every path through the stages, as the writes of its turns.
fn rows(draft: Draft, play: fn(Draft) -> Bench) -> String {
    let bench = play(draft.three_claims());
    let turns = bench.turns.iter().filter(|turn| !turn.rows.is_empty());
    turns.map(|turn| turn.rows.iter().map(show_write).collect::<Vec<_>>().join(" | ") + "\n").collect()
}

#[test]
fn rows_of_a_success() {
    assert_text(
        &rows(Draft::chain(2), succeeded),
        "new: absent -> CREATING r1 held | upd: READY r7 free -> READY r8 held | del: ERROR r3 free -> DELETING r4 held
         new: CREATING r1 held -> READY r2 free | upd: READY r8 held -> READY r9 free | del: DELETING r4 held -> gone",
    );
    let rows = succeeded(Draft::chain(2).three_claims()).store.rows;
    assert_eq!(rows[&key("new")].body, longrun_core::Payload::new("type.test/Thing", output(1)).unwrap());
    assert_eq!(rows[&key("upd")].body.json(), &output(0));
    assert_eq!((&*rows[&key("new")].name, &*rows[&key("upd")].name), ("new new", "changed"));
    assert_eq!((rows[&key("new")].created_at, rows[&key("upd")].created_at), (t(0), t(-100)));
}

#[test]
fn rows_of_a_rollback() {
    assert_text(
        &rows(Draft::chain(2), rolled_back),
        "new: absent -> CREATING r1 held | upd: READY r7 free -> READY r8 held | del: ERROR r3 free -> DELETING r4 held
         new: CREATING r1 held -> DELETING r2 held
         new: DELETING r2 held -> gone | upd: READY r8 held -> READY r9 free | del: DELETING r4 held -> ERROR r5 free",
    );
}

#[test]
fn rows_of_a_cancel_before_the_first_step() {
    let play = |draft: Draft| draft.backlog().accept().cancel().clone();
    assert_text(
        &rows(Draft::chain(2), play),
        "new: absent -> CREATING r1 held | upd: READY r7 free -> READY r8 held | del: ERROR r3 free -> DELETING r4 held
         new: CREATING r1 held -> gone | upd: READY r8 held -> READY r9 free | del: DELETING r4 held -> ERROR r5 free",
    );
}

#[test]
fn rows_of_an_abandoned_rollback() {
    assert_text(
        &rows(Draft::chain(2), abandoned),
        "new: absent -> CREATING r1 held | upd: READY r7 free -> READY r8 held | del: ERROR r3 free -> DELETING r4 held
         new: CREATING r1 held -> DELETING r2 held
         new: DELETING r2 held -> ERROR r3 free | upd: READY r8 held -> ERROR r9 free | del: DELETING r4 held -> ERROR r5 free",
    );
}

/// 5.2: CREATING, READY and DELETING each may go to ERROR when an operator gives up.
#[test]
fn rows_of_an_operation_abandoned_past_its_point_of_no_return() {
    let draft = || Draft::chain(3).no_return(1);
    assert_text(
        &rows(draft(), abandoned_past_no_return),
        "new: absent -> CREATING r1 held | upd: READY r7 free -> READY r8 held | del: ERROR r3 free -> DELETING r4 held
         new: CREATING r1 held -> ERROR r2 free | upd: READY r8 held -> ERROR r9 free | del: DELETING r4 held -> ERROR r5 free",
    );
    // Those that were to be changed or removed keep what is in them, that of the new one is what it was made with.
    let rows = abandoned_past_no_return(draft().three_claims()).store.rows;
    let bodies = ["new", "upd", "del"].map(|id| rows[&key(id)].body.clone());
    assert_eq!(bodies, [payload("being made"), payload("before"), payload("before")]);
}

#[test]
fn rows_of_an_operation_that_came_too_late_are_not_touched() {
    let mut draft = Draft::chain(2).three_claims();
    draft.deadline = Some(0);
    let bench = draft.accept();
    assert!(bench.live.is_done());
    assert!(bench.turns[0].rows.is_empty());
}

/// Claims take part in no decision, and a row is written only when the stage of the operation changes.
#[test]
fn claims_change_no_decision() {
    for (name, step, wrong, make, draft) in states() {
        let (without, with) = (make(draft.clone()), make(draft.three_claims()));
        for (word, later, command) in commands(&without, step, wrong) {
            let (mut without, mut with) = (without.clone(), with.clone());
            without.later(later.unsigned_abs());
            with.later(later.unsigned_abs());
            let (before, turns) = (with.live.phase(), with.turns.len());
            assert_eq!(without.try_tell(&command), with.try_tell(&command), "{name}: {word}");
            assert_eq!(without.next(), with.next(), "{name}: {word}");
            let wrote = with.turns[turns..].iter().any(|turn| !turn.rows.is_empty());
            assert_eq!(wrote, before != with.live.phase(), "{name}: {word}");
        }
    }
}
