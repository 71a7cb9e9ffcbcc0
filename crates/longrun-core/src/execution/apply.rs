//! Applying: the only place where the state of an operation changes.
//!
//! Live, an event is applied when it is decided; restored, when it is read. Both give the same state.

use std::sync::Arc;

use super::{
    Event, Execution, Finished, Intervention, Rollback, Sets, State, Step, StepState, Undo, Verb, Work,
};
use crate::id::StepIndex;
use crate::limits::INTERVENTIONS_MAX;
use crate::operation::Outcome;
use crate::status::{Code, Status};
use crate::time::Timestamp;

impl Execution {
    /// Applies one event that was decided. Events of strangers go through [`Execution::replay`], which checks.
    pub(super) fn apply(&mut self, event: &Event) {
        let State::Active(work) = &mut self.state else { return };
        let outcome = match event {
            Event::Succeeded { response } => Outcome::Response(response.clone()),
            Event::RolledBack => Outcome::Error(work.cause()),
            Event::Intervened(Intervention { verb: Verb::Abandon, .. }) => {
                work.apply(event);
                Outcome::Abandoned(work.cause())
            }
            Event::Intervened(Intervention { verb: Verb::RetryNow, .. }) => {
                work.end_waits(self.header.created_at);
                return work.apply(event);
            }
            _ => return work.apply(event),
        };
        let finished = Arc::new(work.finish(outcome));
        let ended = std::mem::replace(&mut self.state, State::Done(finished, None));
        if let (State::Active(work), State::Done(_, kept)) = (ended, &mut self.state) {
            *kept = Some(work);
        }
    }
}

impl Work {
    /// Why it ends with an error: what made it roll back, or, past the point of no return, what keeps failing.
    fn cause(&self) -> Status {
        let rollback = self.rollback.as_ref().map(|rollback| rollback.cause.clone());
        let fails = || self.steps[self.fails_past_no_return()?.place()].last_error.clone();
        rollback.or_else(fails).unwrap_or_else(|| Status::new(Code::Aborted, "given up by an operator"))
    }

    fn finish(&mut self, outcome: Outcome) -> Finished {
        let failed = match &self.rollback {
            Some(rollback) => rollback.step,
            None => self.fails_past_no_return(),
        };
        Finished {
            outcome,
            failed_step: failed.and_then(|step| self.plan.step(step)).map(|spec| spec.name.clone()),
            attempts: self.steps.iter().map(|step| step.attempt.0).collect(),
            interventions: std::mem::take(&mut self.interventions),
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::StepStarted { step, attempt } => {
                self.sets.ready.remove(step);
                self.sets.waiting_again.remove(step);
                self.sets.running.insert(*step);
                let state = &mut self.steps[step.place()];
                state.state = StepState::Running;
                state.attempt = *attempt;
            }
            Event::StepDone { step, output } => self.step_done(*step, output.clone()),
            Event::StepFailedForNow { step, attempt, failures, may_have_run, error, again_at } => {
                let state = self.stop(*step, *may_have_run, Some(error));
                state.attempt = *attempt;
                state.failures = *failures;
                state.interruptions = 0;
                state.state = StepState::Again(*again_at);
                self.sets.waiting_again.insert(*step);
            }
            Event::StepInterrupted { step, attempt, interruptions, again_at } => {
                let state = self.stop(*step, true, None);
                state.attempt = *attempt;
                state.interruptions = *interruptions;
                state.state = StepState::Again(*again_at);
                self.sets.waiting_again.insert(*step);
            }
            Event::StepFailed { step, may_have_run, error } => {
                let state = self.stop(*step, *may_have_run, Some(error));
                state.state = StepState::Failed;
                if self.rollback.is_some() {
                    self.settled(*step);
                }
            }
            Event::Checkpoint { step, checkpoint, progress } => {
                let state = &mut self.steps[step.place()];
                state.checkpoint = Some(checkpoint.clone());
                state.progress = *progress;
                state.interruptions = 0;
            }
            Event::RollbackDecided { cause, step } => {
                self.rollback = Some(Rollback { cause: cause.clone(), step: *step });
                self.sets = self.derive_sets();
            }
            Event::Undone { step } => self.undone(*step),
            Event::UndoFailed { step, failures, error, again_at } => {
                let undo = &mut self.steps[step.place()].undo;
                undo.failures = *failures;
                undo.interruptions = 0;
                undo.again_at = Some(*again_at);
                undo.last_error = Some(error.clone());
            }
            Event::UndoInterrupted { step, interruptions, again_at } => {
                let undo = &mut self.steps[step.place()].undo;
                undo.interruptions = *interruptions;
                undo.again_at = *again_at;
            }
            Event::UndoWaitOver { step } => self.steps[step.place()].undo.again_at = None,
            Event::Intervened(intervention) => self.intervened(intervention),
            Event::Succeeded { .. } | Event::RolledBack => {}
        }
    }

    /// A run ended without an output.
    fn stop(&mut self, step: StepIndex, may_have_run: bool, error: Option<&Status>) -> &mut Step {
        self.sets.running.remove(&step);
        let state = &mut self.steps[step.place()];
        state.may_have_run |= may_have_run;
        if let Some(error) = error {
            state.last_error = Some(error.clone());
        }
        state
    }

    fn step_done(&mut self, step: StepIndex, output: crate::payload::Json) {
        self.sets.running.remove(&step);
        let state = &mut self.steps[step.place()];
        state.state = StepState::Done(output);
        state.may_have_run = true;
        if self.rollback.is_some() {
            return self.settled(step);
        }
        self.sets.remaining -= 1;
        let plan = Arc::clone(&self.plan);
        for &after in plan.needed_by(step) {
            let blockers = &mut self.sets.blockers[after.place()];
            *blockers -= 1;
            if *blockers == 0 {
                self.sets.ready.insert(after);
            }
        }
    }

    /// Rolling back: a run that was still on has ended, one way or the other.
    fn settled(&mut self, step: StepIndex) {
        if self.steps[step.place()].is_clear() {
            self.cleared(step);
        } else if self.sets.blockers[step.place()] == 0 {
            self.sets.undoing.insert(step);
        }
    }

    /// Rolling back: nothing of the step is left, so the steps it needed are one nearer to their own undo.
    fn cleared(&mut self, step: StepIndex) {
        self.sets.undoing.remove(&step);
        self.sets.remaining -= 1;
        let plan = Arc::clone(&self.plan);
        for &before in plan.needs(step) {
            let blockers = &mut self.sets.blockers[before.place()];
            *blockers -= 1;
            let state = &self.steps[before.place()];
            if *blockers == 0 && !state.is_clear() && state.state != StepState::Running {
                self.sets.undoing.insert(before);
            }
        }
    }

    fn undone(&mut self, step: StepIndex) {
        let state = &mut self.steps[step.place()];
        state.state = StepState::Undone;
        state.undo = Undo::default();
        self.cleared(step);
    }

    fn intervened(&mut self, intervention: &Intervention) {
        match intervention.verb {
            Verb::MarkUndone(step) | Verb::SkipUndo(step) => self.undone(step),
            // [`Execution::apply`] sees to these: it knows the time of the acceptance, and how the operation ends.
            Verb::RetryNow | Verb::Abandon => {}
        }
        self.keep(intervention);
    }

    /// Puts an act on record. A script that retries over and over must not crowd out the others: of the retries of one
    /// caller the first and the last stand for all. When the record is full retries make room, the oldest first, for what
    /// was taken over, and a retry for which there is no room is not on record.
    fn keep(&mut self, intervention: &Intervention) {
        let retries = |act: &Intervention| act.verb == Verb::RetryNow;
        if retries(intervention) {
            let mut earlier = 0;
            self.interventions.retain(|act| {
                let same = retries(act) && act.by == intervention.by;
                earlier += usize::from(same);
                !same || earlier == 1
            });
        }
        if self.interventions.len() >= INTERVENTIONS_MAX {
            match self.interventions.iter().position(retries) {
                Some(oldest) => _ = self.interventions.remove(oldest),
                None if retries(intervention) => return,
                // To abandon is always possible, and the last act there is.
                None => {}
            }
        }
        self.interventions.push(intervention.clone());
    }

    /// What waits, waits for the time of the acceptance, which has always come: whoever works on it may have another clock than
    /// whoever ended the waits.
    fn end_waits(&mut self, created_at: Timestamp) {
        for step in &mut self.steps {
            if let StepState::Again(again_at) = &mut step.state {
                *again_at = created_at;
            }
            step.undo.again_at = step.undo.again_at.map(|_| created_at);
        }
    }

    /// The sets, computed from the steps alone.
    pub(super) fn derive_sets(&self) -> Sets {
        let mut sets = Sets { blockers: vec![0; self.steps.len()], ..Sets::default() };
        let back = self.rollback.is_some();
        for index in self.plan.indices() {
            let step = &self.steps[index.place()];
            let related = if back { self.plan.needed_by(index) } else { self.plan.needs(index) };
            let open = |other: &&StepIndex| {
                let other = &self.steps[other.place()];
                if back { !other.is_clear() } else { !matches!(other.state, StepState::Done(_)) }
            };
            let blockers = related.iter().filter(open).count();
            // Fits: a plan has at most STEPS_MAX steps.
            sets.blockers[index.place()] = u16::try_from(blockers).unwrap_or(u16::MAX);
            let open = if back { !step.is_clear() } else { !matches!(step.state, StepState::Done(_)) };
            sets.remaining += usize::from(open);
            match step.state {
                StepState::Running => _ = sets.running.insert(index),
                StepState::Waiting if !back && blockers == 0 => _ = sets.ready.insert(index),
                StepState::Again(_) if !back => _ = sets.waiting_again.insert(index),
                _ if back && open && blockers == 0 => _ = sets.undoing.insert(index),
                _ => {}
            }
        }
        sets
    }
}
