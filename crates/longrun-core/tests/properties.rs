//! Random plans, random commands, random damage: what must hold whatever happens.
//!
//! `PROPTEST_CASES` scales all of it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::*;
use longrun_core::{
    Applied, Command, Entry, Event, Execution, Inconsistent, ResourceStatus, Revision, Source, StepIndex,
    StepReport, Verb, limits,
};
use proptest::prelude::*;

/// An act of the world. The numbers pick among what is there, so that most acts mean something.
#[derive(Clone, Debug)]
enum Act {
    Wait(i16),
    Crash,
    CrashLoop,
    Resume,
    Leave,
    Done(u8),
    Fail(u8, bool, bool),
    Save(u8, u8, Option<u8>),
    UndoOk(u8),
    UndoErr(u8),
    Cancel,
    Verb(u8, u8),
    Stale(u8, u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (-20_i16..60).prop_map(Act::Wait),
        2 => Just(Act::Crash),
        1 => Just(Act::CrashLoop),
        2 => Just(Act::Resume),
        1 => Just(Act::Leave),
        8 => any::<u8>().prop_map(Act::Done),
        3 => any::<(u8, bool, bool)>().prop_map(|(pick, maybe, again)| Act::Fail(pick, maybe, again)),
        3 => any::<(u8, u8, Option<u8>)>().prop_map(|(pick, value, done)| Act::Save(pick, value, done)),
        4 => any::<u8>().prop_map(Act::UndoOk),
        4 => any::<u8>().prop_map(Act::UndoErr),
        1 => Just(Act::Cancel),
        2 => any::<(u8, u8)>().prop_map(|(verb, pick)| Act::Verb(verb, pick)),
        1 => any::<(u8, u8)>().prop_map(|(what, pick)| Act::Stale(what, pick)),
    ];
    prop::collection::vec(act, 0..40)
}

prop_compose! {
    fn drafts()(
        steps in 1_u16..=8,
        edges in prop::collection::vec(any::<(u16, u16, bool)>(), 0..12),
        parallel in 1_u16..=4,
        no_return in prop::option::weighted(0.3, any::<u16>()),
        late in prop::bool::weighted(0.2),
        claims in 0_usize..=3,
        value in any::<u16>(),
        backlog in prop::bool::weighted(0.2),
    ) -> Draft {
        let mut data = vec![Vec::new(); usize::from(steps)];
        let mut after = vec![Vec::new(); usize::from(steps)];
        for (step, on, is_data) in edges {
            let step = step % steps;
            if step > 0 {
                let edges = if is_data { &mut data } else { &mut after };
                edges[usize::from(step)].push(on % step);
            }
        }
        let mut draft = Draft::of(&data.iter().map(Vec::as_slice).collect::<Vec<_>>()).parallel(parallel);
        for (spec, after) in draft.parts.steps.iter_mut().zip(after) {
            spec.after = after.into_iter().map(s).collect();
        }
        draft.parts.point_of_no_return = no_return.map(|step| s(step % steps));
        let becomes = Source::Output(s(value % steps));
        draft.parts.claims = vec![
            creates("new", becomes.clone()),
            updates(row("upd", 7, ResourceStatus::Ready), becomes),
            deletes(row("del", 3, ResourceStatus::Error)),
        ];
        draft.parts.claims.truncate(claims);
        draft.deadline = late.then_some(100);
        draft.start = !backlog;
        draft
    }
}

fn pick(among: &[StepIndex], pick: u8, steps: usize) -> u16 {
    match among {
        // Nothing to report about: say something anyway.
        [] => u16::from(pick) % u16::try_from(steps + 1).unwrap(),
        some => some[usize::from(pick) % some.len()].0,
    }
}

fn perform(bench: &mut Bench, act: &Act) {
    let next = bench.next();
    let steps = bench.plan.steps().len();
    let command = match *act {
        Act::Wait(seconds) if seconds < 0 => {
            bench.now =
                bench.now.saturating_sub(std::time::Duration::from_secs(u64::from(seconds.unsigned_abs())));
            return;
        }
        Act::Wait(seconds) => {
            bench.later(u64::from(seconds.unsigned_abs()));
            return;
        }
        Act::Crash => {
            if !bench.live.is_done() {
                bench.live = bench.restored();
            }
            Command::Adopt
        }
        Act::CrashLoop => {
            for _ in 0..=limits::INTERRUPTIONS_MAX {
                bench.later(60);
                perform(bench, &Act::Resume);
                perform(bench, &Act::Crash);
            }
            return;
        }
        Act::Resume => Command::Resume,
        Act::Leave => Command::Leave,
        Act::Done(by) => bench.reports_done(pick(&next.run, by, steps)),
        Act::Fail(by, maybe, again) => {
            let applied = if maybe { Applied::Unknown } else { Applied::No };
            bench.reports_failure(pick(&next.run, by, steps), "boom", applied, again)
        }
        Act::Save(by, value, done) => {
            let step = s(pick(&next.run, by, steps));
            let checkpoint = json(&format!("at {value}"));
            let progress = done.map(|done| progress(u64::from(done)));
            Command::Checkpoint { step, attempt: bench.live.attempt(step), checkpoint, progress }
        }
        Act::UndoOk(by) => bench.reports_undo(pick(&next.undo, by, steps), Ok(())),
        Act::UndoErr(by) => bench.reports_undo(pick(&next.undo, by, steps), Err(error("cannot"))),
        Act::Cancel => cancel(),
        Act::Verb(which, by) => {
            let step = s(pick(&[], by, steps));
            verb(
                [Verb::RetryNow, Verb::MarkUndone(step), Verb::SkipUndo(step), Verb::Abandon]
                    [usize::from(which % 4)],
            )
        }
        Act::Stale(what, by) => {
            let step = s(pick(&[], by, steps));
            let old = attempt(bench.live.attempt(step).0.wrapping_add(1));
            match what % 3 {
                0 => Command::Report { step, attempt: old, report: StepReport::Done(json("late")) },
                1 => Command::Checkpoint { step, attempt: old, checkpoint: json("late"), progress: None },
                _ => {
                    Command::UndoReport { step, failures: bench.live.undo_failures(step) + 1, result: Ok(()) }
                }
            }
        }
    };
    // All checks are in the bench; a refusal is as good as an answer.
    _ = bench.try_tell(&command);
}

/// The operation never takes back what it said.
fn check_story(before: &Bench, after: &Bench) {
    let (old, new) = (before.live.operation(), after.live.operation());
    assert!(old.phase() <= new.phase(), "S4: from {:?} to {:?}", old.phase(), new.phase());
    assert!(old.error().is_none() || old.error() == new.error(), "C3: the error changed");
    assert_eq!(new.done(), new.error().is_some() != new.response().is_some() && new.done(), "C2");
    assert!(new.done() || new.response().is_none(), "C2");
    assert!(new.created_at() <= new.modified_at() && old.modified_at() <= new.modified_at(), "C16");
    if old.done() {
        assert_eq!(old, new, "C5");
    }
}

fn config(share: u32) -> ProptestConfig {
    // The default honours PROPTEST_CASES.
    let cases = (ProptestConfig::default().cases * share / 100).max(1);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn whatever_happens_it_holds_and_ends_when_faults_stop(draft in drafts(), acts in acts()) {
        let mut bench = draft.accept();
        for act in &acts {
            let before = bench.clone();
            perform(&mut bench, act);
            check_story(&before, &bench);
        }
        bench.drive();
        prop_assert!(bench.ledger.ended);
        let ended = bench.live.operation();
        prop_assert_eq!(ended.error(), bench.ledger.cause.as_ref());
        for act in &acts {
            perform(&mut bench, act);
        }
        prop_assert_eq!(ended, bench.live.operation());
    }

    /// How events are cut into entries decides nothing.
    #[test]
    fn the_whole_story_in_two_entries_gives_the_same_state(draft in drafts(), acts in acts()) {
        let mut bench = draft.accept();
        for act in &acts {
            perform(&mut bench, act);
        }
        let events = bench.said[1..].concat();
        let rest = Entry { first: Revision(2), revision: Revision(2), at: bench.live.modified_at(), events };
        let entries = [bench.turns[0].entry.clone(), rest];
        let restored =
            Execution::restore(Arc::clone(&bench.header), Arc::clone(&bench.plan), entries).unwrap();
        prop_assert_eq!(restored.next(bench.now), bench.live.next(bench.now));
        prop_assert_eq!(restored.finished(), bench.live.finished());
        prop_assert_eq!(restored.due_at(), bench.live.due_at());
        prop_assert_eq!(restored.blocked(), bench.live.blocked());
    }
}

/// Damage to a journal.
#[derive(Clone, Debug)]
enum Damage {
    Drop(usize),
    Swap(usize, usize),
    Repeat(usize, usize),
    DropEvent(usize, usize),
    SwapEvents(usize, usize, usize),
    RepeatEvent(usize, usize),
    Step(usize, usize, u16),
    Attempt(usize, usize, u32),
    Count(usize, usize, u32),
    Revisions(usize, u64, u64),
    Time(usize, i64),
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let place = 0_usize..60;
    let number = prop_oneof![0_u64..20, Just(u64::MAX), Just(u64::MAX - 1), Just(1 << 63)];
    let count = prop_oneof![0_u32..5, Just(u32::MAX - 1), Just(u32::MAX)];
    let damage = prop_oneof![
        place.clone().prop_map(Damage::Drop),
        (place.clone(), place.clone()).prop_map(|(a, b)| Damage::Swap(a, b)),
        (place.clone(), place.clone()).prop_map(|(a, b)| Damage::Repeat(a, b)),
        (place.clone(), place.clone()).prop_map(|(a, b)| Damage::DropEvent(a, b)),
        (place.clone(), place.clone(), place.clone()).prop_map(|(a, b, c)| Damage::SwapEvents(a, b, c)),
        (place.clone(), place.clone()).prop_map(|(a, b)| Damage::RepeatEvent(a, b)),
        (place.clone(), place.clone(), prop_oneof![0_u16..10, Just(u16::MAX)])
            .prop_map(|(a, b, c)| Damage::Step(a, b, c)),
        (place.clone(), place.clone(), count.clone()).prop_map(|(a, b, c)| Damage::Attempt(a, b, c)),
        (place.clone(), place.clone(), count).prop_map(|(a, b, c)| Damage::Count(a, b, c)),
        (place.clone(), number.clone(), number).prop_map(|(a, b, c)| Damage::Revisions(a, b, c)),
        (place, -100_i64..100).prop_map(|(a, b)| Damage::Time(a, b)),
    ];
    prop::collection::vec(damage, 1..4)
}

fn damage(entries: &mut Vec<Entry>, damage: &Damage) -> Option<()> {
    let count = entries.len().checked_sub(1)? + 1;
    fn event(entries: &mut [Entry], at: usize, which: usize) -> Option<(&mut Vec<Event>, usize)> {
        let count = entries.len();
        let events = &mut entries[at % count].events;
        let place = which % events.len().max(1);
        (!events.is_empty()).then_some((events, place))
    }
    match *damage {
        Damage::Drop(at) => _ = entries.remove(at % count),
        Damage::Swap(a, b) => entries.swap(a % count, b % count),
        Damage::Repeat(a, b) => entries.insert(b % count, entries[a % count].clone()),
        Damage::DropEvent(at, which) => {
            let (events, place) = event(entries, at, which)?;
            events.remove(place);
        }
        Damage::SwapEvents(at, a, b) => {
            let (events, place) = event(entries, at, a)?;
            let other = b % events.len();
            events.swap(place, other);
        }
        Damage::RepeatEvent(at, which) => {
            let (events, place) = event(entries, at, which)?;
            events.insert(place, events[place].clone());
        }
        Damage::Step(at, which, new) => {
            let (events, place) = event(entries, at, which)?;
            match &mut events[place] {
                Event::StepStarted { step, .. }
                | Event::StepDone { step, .. }
                | Event::StepFailedForNow { step, .. }
                | Event::StepFailed { step, .. }
                | Event::StepInterrupted { step, .. }
                | Event::Checkpoint { step, .. }
                | Event::RollbackDecided { step: Some(step), .. }
                | Event::Undone { step }
                | Event::UndoFailed { step, .. }
                | Event::UndoInterrupted { step, .. } => *step = s(new),
                Event::Intervened(act) => act.verb = Verb::SkipUndo(s(new)),
                _ => {}
            }
        }
        Damage::Attempt(at, which, new) => {
            let (events, place) = event(entries, at, which)?;
            match &mut events[place] {
                Event::StepStarted { attempt, .. }
                | Event::StepFailedForNow { attempt, .. }
                | Event::StepInterrupted { attempt, .. } => attempt.0 = new,
                _ => {}
            }
        }
        Damage::Count(at, which, new) => {
            let (events, place) = event(entries, at, which)?;
            match &mut events[place] {
                Event::StepFailedForNow { failures: count, .. }
                | Event::StepInterrupted { interruptions: count, .. }
                | Event::UndoFailed { failures: count, .. }
                | Event::UndoInterrupted { interruptions: count, .. } => *count = new,
                _ => {}
            }
        }
        Damage::Revisions(at, first, revision) => {
            let entry = &mut entries[at % count];
            (entry.first, entry.revision) = (Revision(first), Revision(revision));
        }
        Damage::Time(at, seconds) => entries[at % count].at = t(seconds),
    }
    Some(())
}

/// A damaged journal that still reads must still work to the end.
fn drive_stranger(mut execution: Execution) {
    assert_eq!(execution.check(), Ok(()));
    let mut now = t(100_000);
    for _ in 0..200 {
        if execution.is_done() {
            return;
        }
        let next = execution.next(now);
        let command = if let Some(&step) = next.run.first() {
            let attempt = execution.attempt(step);
            Command::Report { step, attempt, report: StepReport::Done(output(step.0)) }
        } else if let Some(&step) = next.undo.first() {
            Command::UndoReport { step, failures: execution.undo_failures(step), result: Ok(()) }
        } else {
            now = next.wake_at.map_or(now, |at| at.max(now));
            Command::Resume
        };
        let mut events = Vec::new();
        execution.handle(&command, now, &mut events).unwrap();
        execution.seal(events, now).unwrap();
    }
    panic!("it does not end: {execution:?}");
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn a_damaged_journal_is_held_or_works_and_never_panics(
        draft in drafts(),
        acts in acts(),
        damages in damages(),
        cut in any::<u8>(),
        renumber in any::<bool>(),
    ) {
        let mut bench = draft.accept();
        for act in &acts {
            perform(&mut bench, act);
        }
        let mut entries: Vec<Entry> = bench.store.journal.values().cloned().collect();
        entries.truncate(1 + usize::from(cut) % entries.len());
        for one in &damages {
            _ = damage(&mut entries, one);
        }
        if renumber {
            // Let the damage through the first gate, so that the gates behind it are tried too.
            let mut number = 0;
            for entry in &mut entries {
                let stands_for = entry.revision.0.saturating_sub(entry.first.0).min(100);
                (entry.first, entry.revision) = (Revision(number + 1), Revision(number + 1 + stands_for));
                number = entry.revision.0;
                entry.at = t(0);
            }
        }
        let restored: Result<Execution, Inconsistent> =
            Execution::restore(Arc::clone(&bench.header), Arc::clone(&bench.plan), entries);
        if let Ok(execution) = restored {
            drive_stranger(execution.clone());
            let mut adopted = execution;
            let mut events = Vec::new();
            prop_assert!(adopted.handle(&Command::Adopt, t(0), &mut events).is_ok());
            drive_stranger(adopted);
        }
    }
}
