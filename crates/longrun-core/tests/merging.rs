//! Entries that take the place of the one before: the journal stays small, and says the same.
//!
//! The bench restores from its store after every turn and compares, so each turn below is also a cut: what a crash
//! right there would find.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::*;
use longrun_core::{
    Applied, Code, Command, Entry, Event, Execution, Intervention, Payload, Revision, Status, StepIndex,
    StepPolicy, StepReport, Verb, limits,
};
use proptest::prelude::*;

/// So many times something fails.
const OFTEN: u32 = 10_000;

/// JSON text of so many bytes.
fn big(bytes: usize) -> String {
    "x".repeat(bytes - 2)
}

/// One line for each entry: the revisions it stands for, and what it holds.
fn journal(bench: &Bench) -> String {
    let line = |entry: &Entry| {
        let revisions = match entry.revision.0 - entry.first.0 {
            0 => entry.first.to_string(),
            _ => format!("{}-{}", entry.first, entry.revision),
        };
        format!("{revisions}: {}\n", show_events(&entry.events, bench.now))
    };
    bench.store.journal.values().map(line).collect()
}

fn assert_small(bench: &Bench, entries: usize, bytes: usize) {
    let store = &bench.store;
    let (has, takes) = (store.journal.len(), store.journal_bytes());
    assert!(has <= entries && takes <= bytes, "{has} entries, {takes} bytes:\n{}", journal(bench));
}

#[test]
fn a_journal_stays_small_though_an_undo_fails_for_ever() {
    let mut bench = Draft::chain(2).accept();
    bench.done(0).fails(1, Applied::Unknown, false);
    for failures in 1..=OFTEN {
        bench.later(20).undo_fails(1);
        if failures % 10 == 0 {
            bench.later(20).crash();
        }
        assert_small(&bench, 4, 600);
    }
    assert_eq!(bench.live.undo_failures(s(1)), OFTEN);
    assert_eq!(bench.restored().undo_failures(s(1)), OFTEN);
    bench.drive();
    assert!(bench.live.is_done());
}

#[test]
fn a_journal_stays_small_though_every_undo_fails_for_ever() {
    let mut bench = Draft::of(&[&[], &[], &[]]).accept();
    bench.done(0).done(1).fails(2, Applied::Unknown, false);
    for _ in 0..OFTEN / 10 {
        bench.later(20);
        for step in [1, 0, 2] {
            bench.undo_fails(step);
        }
        bench.later(20).crash();
        assert_small(&bench, 5, 800);
    }
    bench.drive();
}

#[test]
fn a_journal_stays_small_though_a_run_fails_for_ever_past_the_point_of_no_return() {
    let mut bench = Draft::chain(2).no_return(0).accept();
    for failures in 1..=OFTEN {
        if failures % 3 == 0 {
            bench.saves(0, &format!("chunk {failures}"));
        }
        if failures % 10 == 0 {
            bench.crash().saves(0, "after the crash").saves(0, &format!("chunk {failures}"));
        }
        let mut events = Vec::new();
        // The end of a run and the start of the next, in one turn and in two.
        let fails = bench.reports_failure(0, "boom", Applied::Unknown, true);
        bench.live.handle(&fails, bench.now, &mut events).unwrap();
        if failures % 2 == 0 {
            bench.seal(std::mem::take(&mut events));
        }
        bench.later(10);
        bench.live.handle(&Command::Resume, bench.now, &mut events).unwrap();
        bench.seal(events);
        assert_small(&bench, 2, 500);
    }
    let runs = OFTEN + OFTEN / 10 + 1;
    assert_eq!((bench.ledger.runs(0), bench.restored().attempt(s(0)).0), (runs, runs));
    assert_eq!(bench.restored().checkpoint(s(0)), Some(&json(&format!("chunk {OFTEN}"))));
    bench.drive();
    assert_eq!(bench.live.finished().unwrap().attempts, [runs, 1]);
}

#[test]
fn a_journal_stays_small_though_a_run_kills_its_process_for_ever() {
    let mut bench = Draft::of(&[&[], &[]]).no_return(0).accept();
    for crashes in 0..OFTEN / 10 {
        bench.later(60).tell(Command::Resume).crash();
        if crashes % 100 == 0 {
            bench.later(60).tell(Command::Resume).saves(1, "alive");
        }
        assert_small(&bench, 2, 500);
    }
    bench.drive();
}

#[test]
fn two_steps_that_save_in_turn_leave_one_entry() {
    let mut bench = Draft::of(&[&[], &[], &[0, 1]]).accept();
    for chunk in 1..=1000 {
        bench.saves(0, &format!("a {chunk}")).saves(1, &format!("b {chunk}"));
        assert_small(&bench, 2, 200);
    }
    assert_text(&journal(&bench), "1: start 0#1, start 1#1 \n 2-2001: saved 0, saved 1");
    let restored = bench.restored();
    let saved = [0, 1].map(|step| restored.checkpoint(s(step)).cloned());
    assert_eq!(saved, [Some(json("a 1000")), Some(json("b 1000"))]);
    bench.drive();
}

#[test]
fn what_is_left_of_a_run_is_its_number_its_end_and_its_checkpoint() {
    let mut bench = Draft::chain(1).no_return(0).accept();
    let lines = |bench: &Bench| journal(bench).lines().skip(1).collect::<Vec<_>>().join("\n");
    bench.saves(0, "one").crash();
    assert_text(&lines(&bench), "2-3: saved 0, interrupted 0 now, start 0#2");
    bench.saves(0, "two").crash();
    assert_text(&lines(&bench), "2-5: saved 0, interrupted 0 now, start 0#3");
    bench.fails(0, Applied::No, true).later(10).tell(Command::Resume);
    assert_text(&lines(&bench), "2-7: saved 0, interrupted 0 now, start 0#3, again 0 maybe now, start 0#4");
    bench.fails(0, Applied::No, true).later(10).tell(Command::Resume);
    assert_text(&lines(&bench), "2-9: saved 0, interrupted 0 now, start 0#3, again 0 maybe now, start 0#5");
    bench.crash();
    assert_text(&lines(&bench), "2-10: saved 0, again 0 maybe now, start 0#5, interrupted 0 now, start 0#6");
    bench.saves(0, "six");
    assert_text(&lines(&bench), "2-11: again 0 maybe now, start 0#5, interrupted 0 now, start 0#6, saved 0");
    assert_eq!(bench.restored().attempt(s(0)), attempt(6));
}

#[test]
fn a_hard_event_is_never_merged_and_nothing_is_merged_across_it() {
    let mut bench = Draft::of(&[&[], &[], &[], &[0]]).accept();
    bench.saves(0, "a").saves(1, "b").done(0).saves(1, "b").saves(2, "c").cancel();
    bench.saves(1, "b").saves(2, "c").saves(1, "b").fails(2, Applied::Unknown, true).saves(1, "b");
    bench.fails(3, Applied::Unknown, true).undo_fails(2).saves(1, "b").undo_fails(3).undo_fails(2);
    bench.tell(verb(Verb::RetryNow)).undo_fails(3).undo_fails(2).undo_fails(3);
    bench
        .tell(verb(Verb::MarkUndone(s(3))))
        .undo_fails(2)
        .undo_fails(2)
        .undone(2)
        .saves(1, "b")
        .saves(1, "b");
    assert_text(
        &journal(&bench),
        "1: start 0#1, start 1#1, start 2#1
         2-3: saved 0, saved 1
         4: done 0, start 3#1
         5-6: saved 1, saved 2
         7: decide CANCELLED
         8-10: saved 2, saved 1
         11: failed 2 maybe
         12: saved 1
         13: failed 3 maybe
         14-17: saved 1, undo-failed 3 ~4s, undo-failed 2 ~8s
         18: retry-now
         19-21: undo-failed 2 ~16s, undo-failed 3 ~16s
         22: mark-undone 3
         23-24: undo-failed 2 ~16s
         25: undone 2
         26-27: saved 1",
    );
}

#[test]
fn what_fits_the_limit_is_merged_and_what_does_not_begins_a_new_entry() {
    // Each event counts 32 bytes beside its own.
    let half = MERGED_BYTES_MAX / 2 - 32;
    for (second, entries) in [(half, 2), (half + 1, 3)] {
        let mut bench = Draft::of(&[&[], &[]]).accept();
        bench.saves(0, &big(half)).saves(1, &big(second));
        assert_eq!(bench.store.journal.len(), entries, "{second}");
        assert_eq!(bench.store.journal_bytes(), half + second + 3 * 32 + 32);
    }
}

#[test]
fn however_large_the_parts_a_merged_entry_keeps_its_limit() {
    let detail =
        || Payload::new("type.test/Detail", json(&big(limits::STATUS_DETAILS_BYTES_MAX - 100))).unwrap();
    let large =
        || Status::new(Code::Unavailable, "x".repeat(limits::STATUS_MESSAGE_BYTES_MAX)).with_detail(detail());
    let mut bench = Draft::of(&[&[], &[], &[], &[]]).no_return(0).accept();
    for round in 0..40_usize {
        for step in 0..4 {
            bench.saves(step, &big(limits::PAYLOAD_BYTES_MAX - 997 * (round % 30)));
            let run = bench.live.attempt(s(step));
            let report = StepReport::Failed { error: large(), applied: Applied::Unknown, retryable: true };
            bench.tell(Command::Report { step: s(step), attempt: run, report });
            bench.later(10).tell(Command::Resume);
        }
    }
    // The bench has checked each. Something was merged, and not all.
    let (entries, turns) = (bench.store.journal.len(), bench.turns.len());
    assert!(10 < entries && entries < turns / 2, "{entries} of {turns}");
    assert!(bench.store.journal.values().all(|entry| entry_bytes(entry) <= MERGED_BYTES_MAX));
}

#[test]
fn a_turn_larger_than_the_limit_stays_by_itself() {
    let mut bench = Draft::of(&[&[], &[], &[]]).accept();
    let mut events = Vec::new();
    for step in 0..3 {
        let (attempt, checkpoint) = (attempt(1), json(&big(30_000)));
        let save = Command::Checkpoint { step: s(step), attempt, checkpoint, progress: None };
        bench.live.handle(&save, bench.now, &mut events).unwrap();
    }
    bench.seal(events);
    bench.saves(0, &big(30_000));
    assert_eq!(bench.store.journal.len(), 3);
    // Smaller ones let it shrink to where it can be merged.
    bench.saves(0, "small").saves(1, "small");
    assert_eq!(bench.store.journal.len(), 3);
}

/// A stored journal with its last entry changed, as somebody who can write to the disk might.
fn restored_with(
    bench: &Bench,
    change: impl FnOnce(&mut Entry),
) -> Result<Execution, longrun_core::Inconsistent> {
    let mut entries: Vec<Entry> = bench.store.journal.values().cloned().collect();
    change(entries.last_mut().unwrap());
    Execution::restore(Arc::clone(&bench.header), Arc::clone(&bench.plan), entries)
}

/// An end of run 1, said to be that of another, with the counts of somebody else.
fn ends_with(run: u32, count: u32) -> [Event; 2] {
    let (step, attempt, again_at) = (s(0), attempt(run), t(5));
    [
        Event::StepFailedForNow {
            step,
            attempt,
            failures: count,
            may_have_run: true,
            error: error("x"),
            again_at,
        },
        Event::StepInterrupted { step, attempt, interruptions: count, again_at },
    ]
}

#[test]
fn c18_only_a_merged_entry_may_leave_runs_out() {
    let mut bench = Draft::chain(1).no_return(0).accept();
    bench.saves(0, "x");
    for event in ends_with(7, 1) {
        let alone = restored_with(&bench, |entry| entry.events = vec![event.clone()]);
        assert!(alone.is_err(), "run 1 was on: {event:?}");
        let merged = restored_with(&bench, |entry| {
            entry.revision = Revision(20);
            entry.events = vec![event.clone()];
        });
        assert_eq!(merged.unwrap().attempt(s(0)), attempt(7));
    }
    bench.crash().saves(0, "y");
    for event in ends_with(1, 1) {
        assert!(restored_with(&bench, |entry| entry.events.push(event)).is_err(), "run 2 was on");
    }
}

#[test]
fn c18_a_merged_entry_with_hostile_numbers_is_held_or_works() {
    let mut bench = Draft::chain(1).no_return(0).accept();
    bench.saves(0, "x").saves(0, "y");
    let mut held = 0;
    for run in [0, 1, 2, 1 << 30, 1 << 31, u32::MAX - 2, u32::MAX - 1, u32::MAX] {
        for count in [0, 1, u32::MAX - 1, u32::MAX] {
            for event in ends_with(run, count) {
                let Ok(mut live) = restored_with(&bench, |entry| entry.events = vec![event.clone()]) else {
                    held += 1;
                    continue;
                };
                // Nothing overflows in what follows.
                for seconds in 1..10 {
                    let mut events = Vec::new();
                    let now = t(seconds * 100);
                    live.handle(&Command::Adopt, now, &mut events).unwrap();
                    live.handle(&Command::Resume, now, &mut events).unwrap();
                    let (step, attempt) = (s(0), live.attempt(s(0)));
                    let report =
                        StepReport::Failed { error: error("x"), applied: Applied::No, retryable: true };
                    _ = live.handle(&Command::Report { step, attempt, report }, now, &mut events);
                    live.seal(events, now).unwrap();
                    _ = (live.next(now), live.blocked(), live.operation(), live.due_at());
                }
            }
        }
    }
    assert_eq!(held, 8 * 5, "runs that went before, or that no operation ever comes to");

    let mut bench = Draft::chain(1).accept();
    bench.fails(0, Applied::Unknown, false).undo_fails(0).undo_fails(0);
    for count in [0, 1, u32::MAX - 1, u32::MAX] {
        let (step, again_at) = (s(0), t(5));
        for event in [
            Event::UndoFailed { step, failures: count, error: error("x"), again_at },
            Event::UndoInterrupted { step, interruptions: count, again_at: Some(again_at) },
        ] {
            let mut live = restored_with(&bench, |entry| entry.events = vec![event]).unwrap();
            for seconds in 1..10 {
                let (now, mut events) = (t(seconds * 100), Vec::new());
                live.handle(&Command::Adopt, now, &mut events).unwrap();
                let failures = live.undo_failures(s(0));
                let report = Command::UndoReport { step, failures, result: Err(error("x")) };
                live.handle(&report, now, &mut events).unwrap();
                live.seal(events, now).unwrap();
                _ = (live.next(now), live.blocked(), live.operation(), live.due_at());
            }
        }
    }
}

#[test]
fn c18_an_entry_that_cannot_have_been_merged_is_held() {
    let mut bench = Draft::chain(2).accept();
    bench.saves(0, "x");
    let wide = |entry: &mut Entry| entry.revision = Revision(9);
    assert!(restored_with(&bench, wide).is_ok());
    let no_events = |entry: &mut Entry| entry.events.clear();
    assert!(restored_with(&bench, |entry| (wide(entry), no_events(entry)).0).is_err());
    for hard in [
        Event::StepDone { step: s(0), output: output(0) },
        Event::RollbackDecided { cause: error("x"), step: None },
        Event::Intervened(Intervention {
            at: bench.now,
            by: caller("olga"),
            verb: Verb::RetryNow,
            reason: String::new(),
        }),
    ] {
        assert!(restored_with(&bench, |entry| entry.events.push(hard.clone())).is_ok());
        assert!(restored_with(&bench, |entry| (wide(entry), entry.events.push(hard.clone())).0).is_err());
    }
    for stranger in [s(1), s(2), s(u16::MAX)] {
        for mut event in ends_with(1, 1) {
            if let Event::StepFailedForNow { step, .. } | Event::StepInterrupted { step, .. } = &mut event {
                *step = stranger;
            }
            assert!(restored_with(&bench, |entry| (wide(entry), entry.events.push(event)).0).is_err());
        }
    }
}

/// What may happen again and again. The numbers pick among what is there.
#[derive(Clone, Debug)]
enum Act {
    Fail(u8, bool),
    Save(u8, u16, Option<u8>),
    UndoFail(u8),
    Resume,
    Leave,
    /// Rare, and hard.
    Done(u8),
    Undone(u8),
    RetryNow,
    Cancel,
}

/// What goes into one turn: perhaps a crash before it, then time, then acts.
#[derive(Clone, Debug)]
struct Together {
    crash: bool,
    wait: u8,
    acts: Vec<Act>,
}

fn turns() -> impl Strategy<Value = Vec<Together>> {
    let act = prop_oneof![
        12 => any::<(u8, bool)>().prop_map(|(pick, maybe)| Act::Fail(pick, maybe)),
        12 => (any::<u8>(), 2_u16..40, any::<Option<u8>>()).prop_map(|(a, b, c)| Act::Save(a, b, c)),
        2 => (any::<u8>(), 2_u16..32_000, any::<Option<u8>>()).prop_map(|(a, b, c)| Act::Save(a, b, c)),
        12 => any::<u8>().prop_map(Act::UndoFail),
        8 => Just(Act::Resume),
        4 => Just(Act::Leave),
        1 => any::<u8>().prop_map(Act::Done),
        1 => any::<u8>().prop_map(Act::Undone),
        1 => Just(Act::RetryNow),
        1 => Just(Act::Cancel),
    ];
    let together = (prop::bool::weighted(0.3), 0_u8..40, prop::collection::vec(act, 1..5));
    let together = together.prop_map(|(crash, wait, acts)| Together { crash, wait, acts });
    prop::collection::vec(together, 0..50)
}

/// Where it begins: past the point of no return, before one that is far away, or rolling back.
fn beginning(which: u8, parallel: u16) -> Bench {
    let patient = StepPolicy { runs_max: u32::MAX, ..policy() };
    let draft = Draft::of(&[&[], &[], &[], &[0, 1, 2]]).policy(patient).parallel(parallel);
    match which {
        0 => draft.no_return(0).accept(),
        1 => draft.accept(),
        _ => {
            let mut bench = draft.parallel(3).accept();
            bench.done(0).done(1).cancel();
            bench
        }
    }
}

fn command(bench: &Bench, act: &Act) -> Command {
    let next = bench.next();
    let pick = |among: &[StepIndex], by: u8| match among {
        [] => u16::from(by) % 4,
        some => some[usize::from(by) % some.len()].0,
    };
    // An undo may fail late, when it has to wait again already.
    let owed: Vec<StepIndex> = bench.plan.indices().filter(|step| bench.live.owes_undo(*step)).collect();
    match *act {
        Act::Fail(by, maybe) => {
            let applied = if maybe { Applied::Unknown } else { Applied::No };
            bench.reports_failure(pick(&next.run, by), &format!("boom {by}"), applied, true)
        }
        Act::Save(by, bytes, done) => {
            let step = s(pick(&next.run, by));
            let (attempt, checkpoint) = (bench.live.attempt(step), json(&big(usize::from(bytes))));
            let progress = done.map(|done| progress(u64::from(done)));
            Command::Checkpoint { step, attempt, checkpoint, progress }
        }
        Act::UndoFail(by) => bench.reports_undo(pick(&owed, by), Err(error(&format!("cannot {by}")))),
        Act::Resume => Command::Resume,
        Act::Leave => Command::Leave,
        Act::Done(by) => bench.reports_done(pick(&next.run, by)),
        Act::Undone(by) => bench.reports_undo(pick(&owed, by), Ok(())),
        Act::RetryNow => verb(Verb::RetryNow),
        Act::Cancel => cancel(),
    }
}

/// All of the state but how its journal is cut.
fn inner(execution: &Execution) -> String {
    let text = format!("{execution:?}");
    match (text.find(", tail: "), text.find(", sets: ")) {
        (Some(from), Some(to)) => [&text[..from], &text[to..]].concat(),
        _ => text,
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_repeats_the_merged_journal_says_the_same_at_every_cut(
        which in 0_u8..3,
        parallel in 1_u16..=3,
        turns in turns(),
    ) {
        let mut bench = beginning(which, parallel);
        for together in &turns {
            let mut events = Vec::new();
            if together.crash && !bench.live.is_done() {
                bench.live = bench.restored();
                bench.later(u64::from(together.wait));
                bench.live.handle(&Command::Adopt, bench.now, &mut events).unwrap();
            } else {
                bench.later(u64::from(together.wait));
            }
            for act in &together.acts {
                let command = command(&bench, act);
                _ = bench.live.handle(&command, bench.now, &mut events);
            }
            // Stores it, restores it, compares.
            bench.seal(events);
        }
        // Each turn in an entry of its own says the same.
        let alone = bench.turns.iter().zip(&bench.said).map(|(turn, events)| {
            let revision = turn.entry.revision;
            Entry { first: revision, revision, at: turn.entry.at, events: events.clone() }
        });
        let alone = Execution::restore(Arc::clone(&bench.header), Arc::clone(&bench.plan), alone).unwrap();
        if bench.live.is_done() {
            prop_assert_eq!(alone.operation(), bench.live.operation());
            return Ok(());
        }
        prop_assert_eq!(inner(&alone), inner(&bench.live));
        // Only a hard event, or the limit on bytes, begins a new entry.
        let hard = bench.said.iter().filter(|events| !events.iter().all(repeats)).count();
        let bytes: usize = bench.turns.iter().map(|turn| entry_bytes(&turn.entry)).sum();
        if bytes < MERGED_BYTES_MAX {
            prop_assert!(bench.store.journal.len() <= 2 + 2 * hard, "{} hard:\n{}", hard, journal(&bench));
        }
    }
}
