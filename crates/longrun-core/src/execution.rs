//! [`Execution`]: the state machine behind an operation.
//!
//! ```text
//!            accept                      last step done
//! request ----------> pending -----------------------------> done (response)
//!                        | step failed for good, cancel, deadline
//!                        v
//!              failed, rolling back ------------------------> done (error)
//!                                     last step undone, or
//!                                     an operator abandons it
//! ```
//!
//! How to call it, in this order:
//!
//! 1. [`Execution::accept`] makes one from a request, [`Execution::restore`] from what was stored.
//! 2. [`Execution::handle`] takes a [`Command`] and the time, and appends the [`Event`]s that follow from it.
//!    A command that does not fit is refused and changes nothing. Several commands may go into one turn.
//! 3. [`Execution::seal`] ends the turn: it gives everything that has to be stored, in **one** commit.
//! 4. When the commit is durable, and not before, [`Execution::next`] says what there is to do.
//!    Its outcomes are the next commands. If the commit fails, throw the execution away and restore it.
//!
//! The state changes in one place, [`apply`](self), by events only; restoring is a fold of it. So `next` after a
//! crash says the same as `next` before it, and recovery is the ordinary path.

mod apply;
mod check;
mod command;
mod decide;
mod event;
mod merge;
mod next;
mod replay;
mod turn;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytestring::ByteString;

use serde::{Deserialize, Serialize};

pub use command::{Applied, Command, StepReport, Verb};
pub use event::{Event, Intervention};
pub use next::Next;
pub use turn::{Entry, Turn};

use crate::error::{Inconsistent, Invalid, Refusal};
use crate::id::{Caller, KindName, OperationId, Revision, StepIndex, StepName};
use crate::limits::{DESCRIPTION_CHARS_MAX, INTERRUPTIONS_FREE, INTERRUPTIONS_MAX, PAYLOAD_BYTES_MAX};
use crate::operation::{Operation, Outcome, Phase};
use crate::payload::{Json, Payload, Progress, check_type_url};
use crate::plan::{Plan, Source, StepSpec};
use crate::resource::{ResourceKey, Stage};
use crate::status::{Code, Status};
use crate::time::Timestamp;

/// The number of a run of a step, from 1. It is durable before the run begins, so it never repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt(pub u32);

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What never changes about an operation once it is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The id.
    pub id: OperationId,
    /// The registered type.
    pub kind: KindName,
    /// The version of the kind's code that made the plan.
    pub kind_version: u32,
    /// For people; at most 256 characters.
    pub description: String,
    /// When it was accepted, in whole milliseconds: the time in its id. As the end of a wait it stands for "at once".
    pub created_at: Timestamp,
    /// Who asked for it.
    pub created_by: Caller,
    /// What was asked.
    pub request: Payload,
    /// What the caller learns at once, such as the id of the resource being made (C6).
    pub metadata: Payload,
    /// The type of the response.
    pub response_type: ByteString,
    /// The resources it creates, changes or deletes, in the order of the plan's claims.
    pub resources: Vec<ResourceKey>,
    /// When it is to be given up, unless it has passed its point of no return.
    pub deadline: Option<Timestamp>,
    /// The digest under which the idempotency ledger knows it.
    pub idempotency: Option<[u8; 32]>,
}

impl Header {
    fn check(&self) -> Result<(), Invalid> {
        if self.description.chars().count() > DESCRIPTION_CHARS_MAX {
            let rule = format!("must be at most {DESCRIPTION_CHARS_MAX} characters");
            return Err(Invalid::new("description", rule));
        }
        for (field, payload) in [("request", &self.request), ("metadata", &self.metadata)] {
            if payload.json().bytes().len() > PAYLOAD_BYTES_MAX {
                return Err(Invalid::new(field, format!("must be at most {PAYLOAD_BYTES_MAX} bytes")));
            }
        }
        self.check_response_type()
    }

    /// Whether a time has come. That of the acceptance always has, although a clock that was set back may show less: it stands for "at
    /// once". Any other is waited for, however far back the clock was set (L4, S44).
    fn has_come(&self, time: Timestamp, now: Timestamp) -> bool {
        time <= now || time == self.created_at
    }

    /// Without it an operation that did its work could not say so.
    fn check_response_type(&self) -> Result<(), Invalid> {
        check_type_url("response_type", &self.response_type)
    }
}

/// What remains of an operation when it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// The step whose failure made it roll back, if one did.
    pub failed_step: Option<StepName>,
    /// Attempts of each step, in the order of the plan.
    pub attempts: Vec<u32>,
    /// Where operators stepped in.
    pub interventions: Vec<Intervention>,
}

/// The state machine of one operation. See the [module](self) for how to call it.
///
/// Two are equal if they are the same operation in the same state. Then the same turns made both, whoever committed them, and whether
/// or not one was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    header: Arc<Header>,
    revision: Revision,
    modified_at: Timestamp,
    state: State,
    sealed: Sealed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Active(Box<Work>),
    /// The work is kept until the turn that ended it is sealed: its rows are made from it.
    Done(Arc<Finished>, Option<Box<Work>>),
}

/// What the store knows since the last turn was sealed, so that the next one can say what changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sealed {
    stage: Option<Stage>,
    due_at: Option<Timestamp>,
}

/// An operation that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Work {
    plan: Arc<Plan>,
    steps: Vec<Step>,
    /// Set when rolling back was decided; never changes afterwards (C3).
    rollback: Option<Rollback>,
    interventions: Vec<Intervention>,
    /// The last entry that was sealed, as far as the next one may take its place.
    tail: Tail,
    /// The first revisions of the journal entries that are stored beside the head record.
    journal: Vec<Revision>,
    // What follows is derived from the above and kept so that a turn costs the same in a plan of 3 steps
    // and in one of 1,000. `check` computes it anew and compares.
    sets: Sets,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rollback {
    cause: Status,
    step: Option<StepIndex>,
}

/// The newest journal entry, which the next one may take the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tail {
    first: Revision,
    /// Its events, if all of them can be [merged](merge).
    mergeable: Option<Vec<Event>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sets {
    /// Going forward: steps whose needs are met and which have not started.
    ready: BTreeSet<StepIndex>,
    /// Steps that have started and have no recorded outcome.
    running: BTreeSet<StepIndex>,
    /// Going forward: steps that wait to be run again.
    waiting_again: BTreeSet<StepIndex>,
    /// Rolling back: steps to be undone now, or again after a wait.
    undoing: BTreeSet<StepIndex>,
    /// Going forward: for each step, needs that are not done. Rolling back: for each step, steps that need it
    /// and are not clear.
    blockers: Vec<u16>,
    /// Going forward: steps that are not done. Rolling back: steps that are not clear.
    remaining: usize,
}

/// One step of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    state: StepState,
    /// The number of the last run that was started.
    attempt: Attempt,
    /// Runs that failed with a retryable error.
    failures: u32,
    /// Times in a row that the process died while it ran.
    interruptions: u32,
    /// A run may have left an effect. Sticky: a later `NotApplied` speaks of its own run only.
    may_have_run: bool,
    /// Why the last run failed.
    last_error: Option<Status>,
    checkpoint: Option<Json>,
    progress: Option<Progress>,
    undo: Undo,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum StepState {
    /// Not started.
    Waiting,
    /// Started; no outcome recorded.
    Running,
    /// Failed, to be run again at this time.
    Again(Timestamp),
    /// Its output is recorded.
    Done(Json),
    /// Failed for good.
    Failed,
    /// Undone, or taken over by an operator.
    Undone,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Undo {
    /// Undos that failed, in a row.
    failures: u32,
    /// Times in a row that the process died, perhaps in this undo.
    interruptions: u32,
    /// Not before this time.
    again_at: Option<Timestamp>,
    last_error: Option<Status>,
}

impl Undo {
    /// It failed, or its process died more often than chance would have it: an operator may take it over.
    const fn fails(&self) -> bool {
        self.failures > 0 || self.interruptions > INTERRUPTIONS_FREE
    }
}

impl Step {
    const fn new() -> Self {
        Self {
            state: StepState::Waiting,
            attempt: Attempt(0),
            failures: 0,
            interruptions: 0,
            may_have_run: false,
            last_error: None,
            checkpoint: None,
            progress: None,
            undo: Undo { failures: 0, interruptions: 0, again_at: None, last_error: None },
        }
    }

    /// Rolling back: nothing of the step is left, or can come to be.
    fn is_clear(&self) -> bool {
        match self.state {
            StepState::Waiting | StepState::Undone => true,
            StepState::Failed | StepState::Again(_) => !self.may_have_run,
            StepState::Running | StepState::Done(_) => false,
        }
    }
}

/// What an undo gets to know of the run that it reverses (C8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undoable {
    /// The step was done, with this output.
    Done(Json),
    /// The step may have run; this is its last checkpoint, if it saved one.
    MayHaveRun(Option<Json>),
}

/// A step whose failure keeps an operation from finishing, for operators to see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocked {
    /// Its place in the plan.
    pub step: StepIndex,
    /// Its name.
    pub name: StepName,
    /// True when its undo fails; false when it is past the point of no return and its run fails.
    pub undo: bool,
    /// Failures in a row.
    pub failures: u32,
    /// The last failure.
    pub error: Status,
    /// When it is tried again; `None` when it is being tried, or can be at once.
    pub again_at: Option<Timestamp>,
}

/// Everything that makes a new operation.
#[derive(Clone, Debug)]
pub struct Acceptance {
    /// What never changes.
    pub header: Header,
    /// The plan.
    pub plan: Plan,
    /// Start the first steps in the same commit. Without it the operation waits in the backlog.
    pub start: bool,
}

impl Execution {
    /// Accepts a new operation. The turn it gives is the first one: operation, rows and first starts together.
    pub fn accept(acceptance: Acceptance) -> Result<(Self, Turn), AcceptError> {
        let Acceptance { header, plan, start } = acceptance;
        header.check()?;
        if !header.resources.iter().eq(plan.claims().iter().map(|claim| &claim.key)) {
            return Err(Invalid::new("resources", "must be those that the plan claims, in its order").into());
        }
        let now = header.created_at;
        let mut execution = Self::unstarted(Arc::new(header), Arc::new(plan));
        let mut events = Vec::new();
        if start {
            execution.handle(&Command::Resume, now, &mut events)?;
        }
        let turn = execution.seal(events, now)?;
        Ok((execution, turn))
    }

    /// Before its first turn.
    fn unstarted(header: Arc<Header>, plan: Arc<Plan>) -> Self {
        let modified_at = header.created_at;
        let work = Work::new(plan);
        let state = State::Active(Box::new(work));
        Self { header, revision: Revision(0), modified_at, state, sealed: Sealed::default() }
    }

    /// Restores an unfinished operation: its header, its plan and all its journal entries, oldest first.
    pub fn restore(
        header: Arc<Header>,
        plan: Arc<Plan>,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<Self, Inconsistent> {
        header.check_response_type().map_err(|error| Inconsistent::new(error.to_string()))?;
        let mut execution = Self::unstarted(header, plan);
        for entry in entries {
            execution.replay(entry)?;
        }
        if execution.revision == Revision(0) {
            return Err(Inconsistent::new("it has no first entry"));
        }
        // Each event could follow the one before; that a turn is whole shows only at its end.
        execution.check()?;
        execution.mark_stored();
        Ok(execution)
    }

    /// Restores an operation that is done.
    pub fn restore_finished(
        header: Arc<Header>,
        revision: Revision,
        modified_at: Timestamp,
        finished: Arc<Finished>,
    ) -> Self {
        let state = State::Done(finished, None);
        let mut execution = Self { header, revision, modified_at, state, sealed: Sealed::default() };
        execution.mark_stored();
        execution
    }

    /// Takes what it says now for what the store has.
    fn mark_stored(&mut self) {
        self.sealed = Sealed { stage: Some(self.stage()), due_at: self.due_at() };
    }

    /// The id.
    pub fn id(&self) -> OperationId {
        self.header.id
    }

    /// What never changes.
    pub const fn header(&self) -> &Arc<Header> {
        &self.header
    }

    /// The revision of the last turn that was sealed.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// When the last turn was sealed.
    pub const fn modified_at(&self) -> Timestamp {
        self.modified_at
    }

    /// Pending, rolling back or done.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Active(work) if work.rollback.is_some() => Phase::RollingBack,
            State::Active(_) => Phase::Pending,
            State::Done(..) => Phase::Done,
        }
    }

    /// True when nothing will change any more (C5).
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done(..))
    }

    /// What remains of it, once it is done.
    pub const fn finished(&self) -> Option<&Arc<Finished>> {
        match &self.state {
            State::Done(finished, _) => Some(finished),
            State::Active(_) => None,
        }
    }

    /// The plan, while it is not done.
    pub const fn plan(&self) -> Option<&Arc<Plan>> {
        match &self.state {
            State::Active(work) => Some(&work.plan),
            State::Done(..) => None,
        }
    }

    fn work(&self) -> Option<&Work> {
        match &self.state {
            State::Active(work) => Some(work),
            State::Done(..) => None,
        }
    }

    fn step(&self, step: StepIndex) -> Option<&Step> {
        self.work()?.steps.get(step.place())
    }

    /// The number of the run of a step that was last started.
    pub fn attempt(&self, step: StepIndex) -> Attempt {
        self.step(step).map_or(Attempt(0), |step| step.attempt)
    }

    /// The last checkpoint that a step saved.
    pub fn checkpoint(&self, step: StepIndex) -> Option<&Json> {
        self.step(step)?.checkpoint.as_ref()
    }

    /// The input of a step, from the outputs of those it needs.
    pub fn input(&self, step: StepIndex) -> Result<Json, Inconsistent> {
        let missing = || Inconsistent::new(format!("step {step} is not in the plan"));
        let work = self.work().ok_or_else(missing)?;
        let spec = work.plan.step(step).ok_or_else(missing)?;
        spec.input.resolve(&|on| work.output(on))
    }

    /// What the undo of a step gets to know of its run.
    pub fn undoable(&self, step: StepIndex) -> Option<Undoable> {
        let step = self.step(step)?;
        match &step.state {
            StepState::Done(output) => Some(Undoable::Done(output.clone())),
            _ if step.may_have_run => Some(Undoable::MayHaveRun(step.checkpoint.clone())),
            _ => None,
        }
    }

    /// True while the step has to be undone and everything that must be undone before it is. An undo that is on and is no
    /// longer owed, because an operator took it over, has to end before another begins (C10).
    pub fn owes_undo(&self, step: StepIndex) -> bool {
        self.work().is_some_and(|work| work.sets.undoing.contains(&step))
    }

    /// Failures in a row of the undo of a step. Tells one undo from the next.
    pub fn undo_failures(&self, step: StepIndex) -> u32 {
        self.step(step).map_or(0, |step| step.undo.failures)
    }

    /// Steps that keep failing although they must not: their undo, or their run past the point of no return.
    pub fn blocked(&self) -> Vec<Blocked> {
        self.work().map(Work::blocked).unwrap_or_default()
    }

    /// The operation as clients see it.
    pub fn operation(&self) -> Operation {
        let bare = Operation::bare(Arc::clone(&self.header), self.revision, self.modified_at, self.phase());
        match &self.state {
            State::Active(work) => Operation {
                rollback_cause: work.rollback.as_ref().map(|rollback| rollback.cause.clone()),
                progress: work.progress(),
                blocked: work.blocked(),
                interventions: work.interventions.clone(),
                ..bare
            },
            State::Done(finished, _) => Operation {
                outcome: Some(finished.outcome.clone()),
                interventions: finished.interventions.clone(),
                ..bare
            },
        }
    }

    /// The same, with what it was made of: for readings, which need no more.
    pub fn into_operation(self) -> Operation {
        let Self { header, revision, modified_at, state, .. } = self;
        match state {
            State::Done(finished, None) => {
                let Finished { outcome, interventions, .. } = Arc::unwrap_or_clone(finished);
                let bare = Operation::bare(header, revision, modified_at, Phase::Done);
                Operation { outcome: Some(outcome), interventions, ..bare }
            }
            state => Self { header, revision, modified_at, state, sealed: Sealed::default() }.operation(),
        }
    }

    /// When the engine should look at it next: the time under which the store keeps it among those that are due.
    ///
    /// Work that can go on now gives the time of acceptance, so that the oldest comes first, and so that this
    /// does not change, and costs no index write, while the operation runs. Work that waits gives the end of its first wait, which may
    /// be before the acceptance if the clock was set back.
    pub fn due_at(&self) -> Option<Timestamp> {
        let work = self.work()?;
        // No clock shows this time, so what can go on at it waits for nothing.
        let next = self.next(Timestamp::MIN);
        let can_go_on = work.can_start() || !next.run.is_empty() || !next.undo.is_empty();
        // It is what `next` gives for a step that may run again at once.
        let first_wait = next.wake_at.filter(|at| !can_go_on && *at > Timestamp::MIN);
        Some(first_wait.unwrap_or(self.header.created_at))
    }
}

impl Work {
    fn new(plan: Arc<Plan>) -> Self {
        let steps = plan.indices().map(|_| Step::new()).collect();
        let mut work = Self {
            plan,
            steps,
            rollback: None,
            interventions: Vec::new(),
            tail: Tail { first: Revision::FIRST, mergeable: None },
            journal: Vec::new(),
            sets: Sets::default(),
        };
        work.sets = work.derive_sets();
        work
    }

    /// The output of a step that is done.
    fn output(&self, step: StepIndex) -> Option<&Json> {
        match &self.steps.get(step.place())?.state {
            StepState::Done(output) => Some(output),
            _ => None,
        }
    }

    fn resolve(&self, source: &Source) -> Result<Json, Inconsistent> {
        source.resolve(&|step| self.output(step)).cloned()
    }

    /// True once the step that cannot be undone has started.
    fn is_past_no_return(&self) -> bool {
        let step = self.plan.point_of_no_return().and_then(|step| self.steps.get(step.place()));
        step.is_some_and(|step| step.attempt > Attempt(0))
    }

    /// Past the point of no return: a step that has failed and is run again, for ever.
    fn fails_past_no_return(&self) -> Option<StepIndex> {
        let fails = |step: &&StepIndex| {
            let step = &self.steps[step.place()];
            step.failures > 0 || step.interruptions > INTERRUPTIONS_FREE
        };
        let mut tried = self.sets.waiting_again.iter().chain(&self.sets.running);
        tried.find(fails).copied().filter(|_| self.is_past_no_return())
    }

    /// Something waits to be tried again.
    fn waits(&self) -> bool {
        let undo_waits = |step: &StepIndex| self.steps[step.place()].undo.again_at.is_some();
        !self.sets.waiting_again.is_empty() || self.sets.undoing.iter().any(undo_waits)
    }

    /// Going forward, with a step to start and room for it.
    fn can_start(&self) -> bool {
        self.rollback.is_none() && !self.sets.ready.is_empty() && self.has_room()
    }

    /// One more step may run at the same time.
    fn has_room(&self) -> bool {
        self.sets.running.len() < usize::from(self.plan.parallel())
    }

    const fn stage(&self) -> Stage {
        if self.rollback.is_some() { Stage::RollingBack } else { Stage::Accepted }
    }

    /// The progress of the first step that runs, or is to run again, and told one. Nothing of steps that are over, nor
    /// of a way that is being undone: it would look as if it were still true.
    fn progress(&self) -> Option<Progress> {
        let under_way = self.sets.running.union(&self.sets.waiting_again);
        under_way.filter(|_| self.rollback.is_none()).find_map(|step| self.steps[step.place()].progress)
    }

    fn blocked(&self) -> Vec<Blocked> {
        if self.rollback.is_some() {
            return self.sets.undoing.iter().filter_map(|&step| self.blocked_undo(step)).collect();
        }
        if !self.is_past_no_return() {
            return Vec::new();
        }
        let tried = self.sets.waiting_again.iter().chain(&self.sets.running);
        tried.filter_map(|&step| self.blocked_run(step)).collect()
    }

    fn blocked_undo(&self, step: StepIndex) -> Option<Blocked> {
        let undo = &self.steps[step.place()].undo;
        let is_over = undo.failures >= self.plan.policy(step).blocked_after;
        let tried = Tried { failures: undo.failures, is_over, interruptions: undo.interruptions };
        tried.blocked(self.plan.step(step)?, step, true, undo.last_error.as_ref(), undo.again_at)
    }

    fn blocked_run(&self, step: StepIndex) -> Option<Blocked> {
        let state = &self.steps[step.place()];
        let again_at = if let StepState::Again(at) = state.state { Some(at) } else { None };
        let is_over = state.failures >= self.plan.policy(step).runs_max;
        let tried = Tried { failures: state.failures, is_over, interruptions: state.interruptions };
        tried.blocked(self.plan.step(step)?, step, false, state.last_error.as_ref(), again_at)
    }
}

/// How often something was tried in vain.
struct Tried {
    failures: u32,
    /// The failures are as many as the policy lets pass unseen.
    is_over: bool,
    interruptions: u32,
}

impl Tried {
    fn blocked(
        &self,
        spec: &StepSpec,
        step: StepIndex,
        undo: bool,
        error: Option<&Status>,
        again_at: Option<Timestamp>,
    ) -> Option<Blocked> {
        let (failures, error) = if self.is_over {
            (self.failures, error?.clone())
        } else if self.interruptions > INTERRUPTIONS_MAX {
            // What kills its process leaves no error, and must not go unseen for that.
            let error = Status::new(Code::Unavailable, "the process ended again and again while it ran");
            (self.interruptions, error)
        } else {
            return None;
        };
        Some(Blocked { step, name: spec.name.clone(), undo, failures, error, again_at })
    }
}

/// Why an operation was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// A field of the header breaks its rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The first steps cannot be started.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The plan contradicts itself.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
}
