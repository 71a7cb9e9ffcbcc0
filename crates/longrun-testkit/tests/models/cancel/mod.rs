//! The race between a cancel and the commit of the last outcome, with crashes and commits of unknown outcome.
//!
//! What follows from what is decided by the real `Execution`. The model is what is around it: clients, the driver with its inbox and
//! the ends of its steps, the commands at rest, a commit that is stored before or after anybody knows, a crash between any two of these,
//! and the outside world, in which an effect is there or is not. Two steps, one after the other.
//!
//! What may happen to a single operation in any order is visited by `longrun-core/tests/exhaustive.rs`; here it is who knows what when.

mod moves;
mod real;

use moves::Move;
use real::{Disk, Real, STEPS};
use stateright::{Model, Property};

use crate::{holds, is_refuted};

/// What this driver does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// A cancel is answered at once and kept in memory until a step ends.
    CancelInMemory,
    /// What is decided is answered before it is durable.
    AnswersBeforeDurable,
    /// What is decided is done before it is durable: the first undo begins before the decision to roll back is stored.
    ActsBeforeDurable,
    /// A commit of unknown outcome counts as one that happened.
    UnknownIsTaken,
    /// A commit of unknown outcome counts as one that did not happen: the turn is committed again.
    UnknownIsRepeated,
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cancel {
    mistake: Mistake,
    /// The step from whose start there is no way back.
    no_return: Option<usize>,
    clients: usize,
    crashes: u8,
    /// Commits that are refused or of unknown outcome.
    faults: u8,
    step_failures: u8,
    undo_failures: u8,
}

impl Cancel {
    const fn small(mistake: Mistake) -> Self {
        Self {
            mistake,
            no_return: None,
            clients: 1,
            crashes: 1,
            faults: 1,
            step_failures: 1,
            undo_failures: 1,
        }
    }
}

/// What has gone wrong so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Met {
    crashes: u8,
    /// Of these: between the commit and the answer.
    crashes_after_commit: u8,
    refused: u8,
    unknown_taken: u8,
    unknown_lost: u8,
    step_failures: u8,
    undo_failures: u8,
}

/// What a client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Asked {
    NotYet,
    /// It waits for the answer.
    Waits,
    /// Its answer was that nothing is known, or it never got one. It asks again.
    Lost,
    /// It was told the operation as it is: going forward, past its point of no return.
    GoesOn,
    /// The same: with an error.
    Cancelled,
    /// The same: with a response.
    TooLate,
}

/// A run or an undo, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Act {
    step: usize,
    undo: bool,
    number: u32,
    /// Its effect is there, or gone.
    acted: bool,
}

/// How an act ended, as its driver learns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ended {
    act: Act,
    result: Result<(), Failed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Failed {
    /// Certainly without an effect.
    NotApplied,
    MayHaveRun,
    /// It was named to run after the decision to roll back, and never began.
    NeverBegan,
}

/// What goes to the store, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Commit {
    /// What the store has afterwards. `None` when it could not be read: only a mistake leads there.
    disk: Option<Disk>,
    live: Real,
    /// It is stored. Nobody knows yet.
    stored: bool,
    /// Those who wait for it.
    clients: Vec<usize>,
    /// What it was decided from, to be decided anew if it comes to nothing.
    ended: Vec<Ended>,
    /// The adoption is in it.
    adopts: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Driver {
    live: Real,
    adopted: bool,
    acts: Vec<Act>,
    ended: Vec<Ended>,
    inbox: Vec<usize>,
    commit: Option<Box<Commit>>,
    /// Only where a cancel is kept in memory.
    cancelled: bool,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Process {
    Down,
    /// Up, and nothing works on the operation.
    Rests,
    /// The first commit is under way.
    Accepts(Box<Commit>),
    /// A command at rest is.
    Commands(Box<Commit>),
    Drives(Box<Driver>),
    /// The driver has given up; only a mistake leads there.
    Holds,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    process: Process,
    disk: Option<Disk>,
    /// Which effects are there.
    world: [bool; STEPS],
    submit: Asked,
    cancels: Vec<Asked>,
    /// The clock: it moves when there is nothing else to do than to wait.
    now: longrun_core::Timestamp,
    met: Met,
    /// A step began after a client knew that the operation is cancelled.
    began_after_cancel: bool,
    /// What was done has changed.
    ended_twice: bool,
}

impl State {
    fn is_cancelled_for_a_client(&self) -> bool {
        self.cancels.contains(&Asked::Cancelled)
    }
}

impl Model for Cancel {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            process: Process::Rests,
            disk: None,
            world: [false; STEPS],
            submit: Asked::NotYet,
            cancels: vec![Asked::NotYet; self.clients],
            now: real::born(),
            met: Met::default(),
            began_after_cancel: false,
            ended_twice: false,
        }]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        self.all_moves(state, moves);
    }

    fn next_state(&self, before: &State, action: Move) -> Option<State> {
        let mut state = before.clone();
        self.make(&mut state, action);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_END, |_, state: &State| {
                let operation = state.disk.as_ref().map(|disk| disk.read().operation());
                let one = operation.is_none_or(|operation| {
                    let ends =
                        u8::from(operation.response().is_some()) + u8::from(operation.error().is_some());
                    if operation.done() { ends == 1 } else { operation.response().is_none() }
                });
                one && !state.ended_twice
            }),
            Property::always(NO_START, |_, state: &State| !state.began_after_cancel),
            Property::always(ALL_OR_NOTHING, |_, state: &State| {
                let done = state.disk.as_ref().filter(|disk| disk.is_done());
                done.is_none_or(|disk| {
                    let wanted = disk.read().operation().response().is_some();
                    state.world.iter().all(|effect| *effect == wanted)
                })
            }),
            Property::always(NOTHING_LOST, |_, state: &State| {
                let operation = state.disk.as_ref().map(|disk| disk.read().operation());
                let known = |asked: &Asked| match (asked, &operation) {
                    (Asked::NotYet | Asked::Waits | Asked::Lost, _) => true,
                    (Asked::GoesOn, Some(operation)) => operation.error().is_none(),
                    (Asked::Cancelled, Some(operation)) => operation.error().is_some(),
                    (Asked::TooLate, Some(operation)) => operation.response().is_some(),
                    (_, None) => false,
                };
                let accepted = !matches!(state.submit, Asked::GoesOn) || operation.is_some();
                accepted && state.cancels.iter().all(known)
            }),
            Property::always(ENDS, |model: &Self, state: &State| {
                let mut moves = Vec::new();
                model.all_moves(state, &mut moves);
                let answered = |asked: &Asked| !matches!(asked, Asked::Waits | Asked::Lost);
                let ended = state.disk.as_ref().is_some_and(Disk::is_done);
                !moves.is_empty() || (ended && state.cancels.iter().all(answered))
            }),
            Property::sometimes(
                "a cancel comes past the point of no return",
                |model: &Self, state: &State| {
                    model.no_return.is_none() || state.cancels.contains(&Asked::GoesOn)
                },
            ),
            Property::sometimes(
                "a cancel wins while the last outcome is there already",
                |model: &Self, state: &State| {
                    let Process::Drives(driver) = &state.process else { return model.no_return.is_some() };
                    let last = |ended: &Ended| ended.act.step == STEPS - 1 && ended.result.is_ok();
                    state.is_cancelled_for_a_client()
                        && driver.ended.iter().any(|one| !one.act.undo && last(one))
                },
            ),
            Property::sometimes("a cancel comes too late", |_, state: &State| {
                state.cancels.contains(&Asked::TooLate)
            }),
            Property::sometimes("a cancel waits for the commit of the end", |_, state: &State| {
                let Process::Drives(driver) = &state.process else { return false };
                driver.commit.as_ref().is_some_and(|commit| commit.live.execution().is_done())
                    && !driver.inbox.is_empty()
            }),
            Property::sometimes("a cancel at rest wins after a crash", |_, state: &State| {
                matches!(state.process, Process::Rests)
                    && state.met.crashes > 0
                    && state.is_cancelled_for_a_client()
            }),
            Property::sometimes("an unknown commit happened", |_, state: &State| state.met.unknown_taken > 0),
            Property::sometimes("an unknown commit did not happen", |_, state: &State| {
                state.met.unknown_lost > 0
            }),
            Property::sometimes(
                "a crash between the commit of a cancel and its answer",
                |_, state: &State| {
                    let error =
                        state.disk.as_ref().is_some_and(|disk| disk.read().operation().error().is_some());
                    state.met.crashes_after_commit > 0 && error && state.cancels.contains(&Asked::Lost)
                },
            ),
            Property::sometimes("a crash when only some effects are undone", |_, state: &State| {
                let error = state.disk.as_ref().is_some_and(|disk| disk.read().operation().error().is_some());
                state.process == Process::Down && error && state.world == [true, false]
            }),
        ]
    }
}

const ONE_END: &str = "C2, C5: it has exactly one end";
const NO_START: &str = "S24: after an acknowledged cancel no step starts";
const ALL_OR_NOTHING: &str = "S25: a response with every effect, an error with none";
const NOTHING_LOST: &str = "S9, S10: nothing that was acknowledged is lost";
const ENDS: &str = "L1: it ends, and everybody is answered";

#[test]
fn s24_s33_a_cancel_and_the_last_outcome_make_one_end() {
    let right = || Cancel::small(Mistake::None);
    holds("cancel", Cancel { faults: 2, ..right() });
    holds("cancel by two clients", Cancel { clients: 2, step_failures: 0, undo_failures: 0, ..right() });
    holds("cancel, two crashes", Cancel { crashes: 2, step_failures: 0, undo_failures: 0, ..right() });
}

#[test]
fn s24_a_cancel_past_the_point_of_no_return_is_answered_by_what_happens() {
    holds("cancel past no return", Cancel { no_return: Some(STEPS - 1), ..Cancel::small(Mistake::None) });
}

#[test]
#[ignore = "a minute in a release build"]
fn s24_s33_two_clients_cancel_through_two_crashes_and_two_faults() {
    holds("cancel, large", Cancel { clients: 2, crashes: 2, faults: 2, ..Cancel::small(Mistake::None) });
}

#[test]
fn s24_a_cancel_that_is_kept_in_memory_only_is_refuted() {
    is_refuted("cancel in memory", Cancel::small(Mistake::CancelInMemory), NOTHING_LOST);
    is_refuted("cancel in memory", Cancel::small(Mistake::CancelInMemory), NO_START);
}

#[test]
fn s24_an_answer_before_the_commit_is_refuted() {
    is_refuted("answers before the commit", Cancel::small(Mistake::AnswersBeforeDurable), NOTHING_LOST);
}

#[test]
fn s22_an_undo_before_the_decision_is_durable_is_refuted() {
    is_refuted("acts before the commit", Cancel::small(Mistake::ActsBeforeDurable), ALL_OR_NOTHING);
}

#[test]
fn s33_an_unknown_outcome_taken_for_success_is_refuted() {
    is_refuted("unknown is taken", Cancel::small(Mistake::UnknownIsTaken), NOTHING_LOST);
}

#[test]
fn s33_an_unknown_outcome_that_is_repeated_blindly_is_refuted() {
    is_refuted("unknown is repeated", Cancel::small(Mistake::UnknownIsRepeated), ENDS);
}
