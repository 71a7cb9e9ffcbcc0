//! What is on disk tells a possible story, and the story says what may be done next.

use std::time::Duration;

use longrun_core::execution::Undoable;
use longrun_core::{
    Backoff, Event, Execution, Json, Operation, Plan, Revision, Source, Status, StepIndex, StepPolicy,
    Timestamp, Verb,
};

use super::{Verdict, demand};

/// Up to so many crashes in a row a step goes on without a wait. The oracle's own copy of the core's number.
const CRASHES_FREE: u32 = 2;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a response.
    Succeeded,
    /// With an error, everything undone.
    RolledBack,
    /// With an error, given up by an operator.
    Abandoned,
}

impl End {
    /// How an operation ended; `None` if it has not.
    pub fn of(operation: &Operation) -> Option<Self> {
        operation.done().then(|| match (operation.response(), operation.was_abandoned()) {
            (Some(_), _) => Self::Succeeded,
            (None, true) => Self::Abandoned,
            (None, false) => Self::RolledBack,
        })
    }
}

/// What is durable about one step.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// The number of the last run that is on record.
    pub attempt: u32,
    /// A run is on record and has no outcome.
    pub running: bool,
    /// It failed for now so many times.
    pub failures: u32,
    /// Its process died so many times in a row while it ran.
    pub run_crashes: u32,
    /// The same, while it was undone.
    pub undo_crashes: u32,
    /// Its output.
    pub output: Option<Json>,
    /// There may be an effect that nobody reversed.
    pub effect: bool,
    /// It was undone, or taken over.
    pub undone: bool,
    /// An operator left its effect where it is.
    pub skipped: bool,
    /// Its undo failed so many times.
    pub undo_failures: u32,
    /// Before this time it is neither run nor undone.
    pub not_before: Option<Timestamp>,
    /// Its last checkpoint.
    pub checkpoint: Option<Json>,
}

/// The story of one operation, as far as it is durable.
#[derive(Clone, Debug)]
pub struct Story {
    /// Its steps.
    pub lines: Vec<Line>,
    needs: Vec<u32>,
    inputs: Vec<(bool, Vec<Source>)>,
    policies: Vec<StepPolicy>,
    parallel: u32,
    no_return: Option<usize>,
    created_at: Timestamp,
    /// Why it rolls back.
    pub cause: Option<Status>,
    /// How it ended.
    pub end: Option<End>,
    /// The revision that is durable.
    pub revision: Revision,
    /// When that was written.
    pub modified_at: Timestamp,
}

impl Story {
    /// Before anything is durable. From the parts of the plan, not from the plan's own edges.
    pub fn new(plan: &Plan, created_at: Timestamp) -> Self {
        let parts = plan.parts();
        let needs = parts.steps.iter().map(|step| {
            let data = step.input.sources().iter().filter_map(Source::step);
            data.chain(step.after.iter().copied()).fold(0, |mask, on| mask | 1 << on.0)
        });
        let inputs = parts.steps.iter().map(|step| {
            let tuple = matches!(step.input, longrun_core::Input::Tuple(_));
            (tuple, step.input.sources().to_vec())
        });
        Self {
            lines: vec![Line::default(); parts.steps.len()],
            needs: needs.collect(),
            inputs: inputs.collect(),
            policies: parts.steps.iter().map(|step| step.policy.unwrap_or_default()).collect(),
            parallel: u32::from(parts.parallel),
            no_return: parts.point_of_no_return.map(StepIndex::place),
            cause: None,
            end: None,
            revision: Revision(0),
            created_at,
            modified_at: created_at,
        }
    }

    /// Whether the step that cannot be undone has started.
    pub fn is_past_no_return(&self) -> bool {
        self.no_return.is_some_and(|step| self.lines[step].attempt > 0)
    }

    /// Everything that a step needs is done.
    pub fn needs_done(&self, step: usize) -> bool {
        self.lines
            .iter()
            .enumerate()
            .all(|(on, line)| self.needs[step] & 1 << on == 0 || line.output.is_some())
    }

    /// Every step that used this one has nothing left to undo.
    pub fn users_clear(&self, step: usize) -> bool {
        let mut users = self.needs.iter().zip(&self.lines).filter(|(needs, _)| **needs & 1 << step != 0);
        users.all(|(_, line)| !line.running && !line.effect)
    }

    /// Whether a run or an undo waits for its time.
    pub fn is_waiting(&self) -> bool {
        self.lines.iter().any(|line| line.not_before.is_some())
    }

    /// How many runs are on record without an outcome.
    pub fn running(&self) -> usize {
        self.lines.iter().filter(|line| line.running).count()
    }

    /// Whether an undo of the step may be on.
    pub fn may_undo(&self, step: usize) -> bool {
        let line = &self.lines[step];
        self.cause.is_some() && self.end.is_none() && line.effect && !line.running && self.users_clear(step)
    }

    /// The undos that have failed too often to go unseen, and how often.
    pub fn failing_undos(&self) -> Vec<(usize, u32)> {
        let lines = self.lines.iter().zip(&self.policies).enumerate();
        let failing = lines.filter(|(_, (line, policy))| line.undo_failures >= policy.blocked_after);
        failing
            .map(|(step, (line, _))| (step, line.undo_failures))
            .filter(|(step, _)| self.may_undo(*step))
            .collect()
    }

    /// What a step gets, from the outputs that are on record.
    pub fn input(&self, step: usize) -> Option<Vec<u8>> {
        let (tuple, sources) = &self.inputs[step];
        let value = |source: &Source| match source {
            Source::Literal(json) => Some(json.bytes().to_vec()),
            Source::Output(on) => self.lines[on.place()].output.as_ref().map(|json| json.bytes().to_vec()),
        };
        if !tuple {
            return value(sources.first()?);
        }
        let parts: Option<Vec<_>> = sources.iter().map(value).collect();
        Some([b"[".as_slice(), &parts?.join(&b','), b"]"].concat())
    }

    /// A turn became durable: what happened in it, not what it repeats of earlier ones. `at` is what its entry says of itself and never
    /// goes back, `now` what the clock showed when it was decided, which may.
    pub fn note(&mut self, revision: Revision, at: Timestamp, now: Timestamp, events: &[Event]) -> Verdict {
        demand(revision == self.revision.next(), "S5", || {
            format!("revision {revision} follows {}", self.revision)
        })?;
        demand(at >= self.modified_at, "C16", || "modified_at went back on disk".to_owned())?;
        demand(self.end.is_none(), "C5", || "a commit after the end".to_owned())?;
        self.revision = revision;
        self.modified_at = at;
        events.iter().try_for_each(|event| self.note_event(event, now))
    }

    /// After something went wrong so many times a step waits: as long as its policy says, doubled each time up to the longest, and
    /// no less than half of that (L4).
    fn waits_after(
        &mut self,
        step: StepIndex,
        backoff: Backoff,
        times: u32,
        now: Timestamp,
        until: Timestamp,
    ) -> Verdict {
        let wait = until.since(now);
        let doubled = |wait: Duration, _| (wait * 2).min(backoff.longest);
        let full = (1..times.min(64)).fold(backoff.first.min(backoff.longest), doubled);
        self.set_not_before(step, Some(until));
        demand(wait >= full / 2 && wait <= full, "L4", || {
            format!("step {step} waits for {wait:?} after {times}, of {:?} to {full:?}", full / 2)
        })
    }

    /// After the first crashes in a row a step goes on at once, after later ones it waits (L4). No process is stopped gently in the
    /// histories that are judged by this: that would count as no crash.
    fn waits_after_crash(
        &mut self,
        step: StepIndex,
        undo: bool,
        crashes: u32,
        now: Timestamp,
        until: Option<Timestamp>,
    ) -> Verdict {
        let at_once = until.is_none_or(|until| until == self.created_at);
        let line = &mut self.lines[step.place()];
        let known = if undo { &mut line.undo_crashes } else { &mut line.run_crashes };
        demand(crashes == *known + 1, "L4", || {
            format!("{crashes} crashes of step {step} in a row, known are {known}")
        })?;
        *known = crashes;
        let beyond = crashes.saturating_sub(CRASHES_FREE);
        if beyond > 0 {
            let backoff = self.policies[step.place()].undo_backoff;
            return self.waits_after(step, backoff, beyond, now, until.unwrap_or(now));
        }
        self.set_not_before(step, until);
        demand(at_once, "L4", || format!("step {step} waits until {until:?} after {crashes} crashes"))
    }

    /// Nothing of the step may begin before this time. That of the acceptance stands for "at once".
    fn set_not_before(&mut self, step: StepIndex, until: Option<Timestamp>) {
        self.lines[step.place()].not_before = until.filter(|until| *until != self.created_at);
    }

    /// Nothing of a step begins before its time (S44).
    pub fn check_not_before(&self, step: usize, now: Timestamp) -> Verdict {
        let until = self.lines[step].not_before.unwrap_or(now);
        demand(until <= now, "S44", || {
            format!("at {now} step {step} begins, which was to wait until {until}")
        })
    }

    fn stop(&mut self, step: StepIndex, effect: bool) -> Verdict {
        let line = &mut self.lines[step.place()];
        demand(line.running, "S4", || format!("the end of a run of step {step} that did not run"))?;
        line.running = false;
        line.effect |= effect;
        Ok(())
    }

    fn note_event(&mut self, event: &Event, now: Timestamp) -> Verdict {
        let back = self.cause.is_some();
        demand(self.end.is_none(), "C5", || format!("{event:?} after the end"))?;
        match event {
            Event::StepStarted { step, attempt } => self.started(step.place(), attempt.0, now)?,
            Event::StepDone { step, output } => {
                self.stop(*step, true)?;
                let line = &mut self.lines[step.place()];
                demand(line.output.is_none(), "S17", || format!("a second output of step {step}"))?;
                line.output = Some(output.clone());
            }
            Event::StepFailedForNow { step, may_have_run, again_at, .. } => {
                demand(!back, "C11", || format!("step {step} is to run again while rolling back"))?;
                self.stop(*step, *may_have_run)?;
                let line = &mut self.lines[step.place()];
                line.failures += 1;
                line.run_crashes = 0;
                let (backoff, times) = (self.policies[step.place()].backoff, line.failures);
                self.waits_after(*step, backoff, times, now, *again_at)?;
            }
            Event::StepFailed { step, may_have_run, .. } => self.stop(*step, *may_have_run)?,
            Event::StepInterrupted { step, interruptions, again_at, .. } => {
                demand(!back, "C11", || format!("step {step} is to run again while rolling back"))?;
                self.stop(*step, true)?;
                self.waits_after_crash(*step, false, *interruptions, now, Some(*again_at))?;
            }
            Event::Checkpoint { step, checkpoint, .. } => {
                let line = &mut self.lines[step.place()];
                demand(line.running, "S4", || format!("a checkpoint of step {step}, which does not run"))?;
                line.checkpoint = Some(checkpoint.clone());
                line.run_crashes = 0;
            }
            Event::RollbackDecided { cause, .. } => {
                demand(!back, "C3", || "rolling back was decided twice".to_owned())?;
                demand(!self.is_past_no_return(), "S4", || {
                    "rollback past the point of no return".to_owned()
                })?;
                self.cause = Some(cause.clone());
                // No run waits any more, and undos have not begun to.
                self.lines.iter_mut().for_each(|line| line.not_before = None);
            }
            Event::Undone { step } => self.undone(step.place())?,
            Event::UndoFailed { step, again_at, .. } => {
                self.check_undoing(*step)?;
                let line = &mut self.lines[step.place()];
                line.undo_failures += 1;
                line.undo_crashes = 0;
                let (backoff, times) = (self.policies[step.place()].undo_backoff, line.undo_failures);
                self.waits_after(*step, backoff, times, now, *again_at)?;
            }
            Event::UndoInterrupted { step, interruptions, again_at } => {
                self.check_undoing(*step)?;
                self.waits_after_crash(*step, true, *interruptions, now, *again_at)?;
            }
            Event::UndoWaitOver { step } => {
                self.check_undoing(*step)?;
                self.check_not_before(step.place(), now)?;
                self.lines[step.place()].not_before = None;
            }
            Event::Intervened(act) => match act.verb {
                Verb::RetryNow => self.lines.iter_mut().for_each(|line| line.not_before = None),
                Verb::MarkUndone(step) => self.undone(step.place())?,
                Verb::SkipUndo(step) => {
                    self.undone(step.place())?;
                    self.lines[step.place()].skipped = true;
                }
                Verb::Abandon => {
                    let may = back || self.is_past_no_return();
                    demand(may, "S4", || "abandoned while it goes forward".to_owned())?;
                    self.end = Some(End::Abandoned);
                }
            },
            Event::Succeeded { .. } => {
                demand(!back, "C2", || "a response and an error".to_owned())?;
                let all = self.lines.iter().all(|line| line.output.is_some() && !line.undone);
                demand(all, "C4", || "done, and a step is not".to_owned())?;
                self.end = Some(End::Succeeded);
            }
            Event::RolledBack => {
                demand(back, "S4", || "rolled back without a decision".to_owned())?;
                let none = self.lines.iter().all(|line| !line.effect && !line.running);
                demand(none, "C4", || "rolled back, and a step is not undone".to_owned())?;
                self.end = Some(End::RolledBack);
            }
        }
        Ok(())
    }

    /// An undo of the step is on, or may be (C10).
    fn check_undoing(&self, step: StepIndex) -> Verdict {
        demand(self.may_undo(step.place()), "C10", || format!("an undo of {step} was on too early"))
    }

    fn started(&mut self, step: usize, attempt: u32, now: Timestamp) -> Verdict {
        self.check_not_before(step, now)?;
        demand(self.cause.is_none(), "C11", || format!("step {step} started while rolling back"))?;
        demand(self.running() < self.parallel as usize, "S4", || "too many steps run".to_owned())?;
        demand(self.needs_done(step), "S18", || {
            format!("step {step} started before what it needs was done")
        })?;
        let line = &mut self.lines[step];
        demand(line.output.is_none() && !line.running, "C9", || format!("step {step} starts again"))?;
        demand(attempt == line.attempt + 1, "C8", || {
            format!("run {attempt} of step {step} is out of order")
        })?;
        (line.attempt, line.running, line.not_before) = (attempt, true, None);
        Ok(())
    }

    fn undone(&mut self, step: usize) -> Verdict {
        demand(self.may_undo(step), "C10", || format!("the undo of step {step} came too early"))?;
        let line = &mut self.lines[step];
        (line.effect, line.undone, line.not_before) = (false, true, None);
        Ok(())
    }
}

impl Story {
    /// A story of nothing, until there is a plan.
    pub(crate) fn empty(steps: usize) -> Self {
        Self {
            lines: vec![Line::default(); steps],
            needs: vec![0; steps],
            inputs: Vec::new(),
            policies: Vec::new(),
            parallel: 0,
            no_return: None,
            cause: None,
            end: None,
            revision: Revision(0),
            created_at: Timestamp::MIN,
            modified_at: Timestamp::MIN,
        }
    }
}

impl Story {
    /// What an execution that was read from a disk says, for a look at `step`, if it is at one. `left` tells of the others whether
    /// anything of them is left outside: an execution does not tell steps that are undone from those that are to be.
    pub fn observed(
        plan: &Plan,
        execution: &Execution,
        step: Option<usize>,
        left: impl Fn(usize) -> bool,
    ) -> Self {
        let mut story = Self::new(plan, execution.header().created_at);
        let running = execution.next(Timestamp::MIN).run;
        for (place, line) in story.lines.iter_mut().enumerate() {
            let index = StepIndex(u16::try_from(place).unwrap_or(u16::MAX));
            let undoable = execution.undoable(index);
            line.attempt = execution.attempt(index).0;
            line.running = running.contains(&index);
            line.checkpoint = execution.checkpoint(index).cloned();
            line.effect = undoable.is_some() && (step == Some(place) || left(place));
            line.undo_failures = execution.undo_failures(index);
            if let Some(Undoable::Done(output)) = undoable {
                line.output = Some(output);
            }
        }
        let operation = execution.operation();
        story.cause = operation.error().cloned();
        story.revision = operation.revision();
        story.modified_at = operation.modified_at();
        story.end = End::of(&operation);
        story
    }
}
