//! The invariants of one operation, as code: for debug assertions, tests, simulation and fuzzing.

use super::{Attempt, Execution, State, StepState, Work};
use crate::error::Inconsistent;

impl Execution {
    /// Checks every invariant that one operation can show by itself.
    pub fn check(&self) -> Result<(), Inconsistent> {
        if self.modified_at < self.header.created_at {
            return Err(Inconsistent::new("C16: it was modified before it was created"));
        }
        match &self.state {
            State::Active(work) => work.check(),
            State::Done(finished, _)
                if finished.outcome.error().is_some() == finished.outcome.response().is_some() =>
            {
                Err(Inconsistent::new("C2: done has exactly one of error and response"))
            }
            State::Done(..) => Ok(()),
        }
    }
}

impl Work {
    fn check(&self) -> Result<(), Inconsistent> {
        let fail = |what: String| Err(Inconsistent::new(what));
        if self.sets != self.derive_sets() {
            return fail("the derived sets differ from the steps they are derived from".to_owned());
        }
        let back = self.rollback.is_some();
        if back
            && self
                .plan
                .point_of_no_return()
                .is_some_and(|step| self.steps[step.place()].attempt > Attempt(0))
        {
            return fail("it rolls back past its point of no return".to_owned());
        }
        if !back && self.sets.running.len() > usize::from(self.plan.parallel()) {
            return fail(format!("{} steps run at the same time", self.sets.running.len()));
        }
        for index in self.plan.indices() {
            let step = &self.steps[index.place()];
            let started = step.attempt > Attempt(0);
            if started == (step.state == StepState::Waiting) {
                return fail(format!("C8: step {index} has state and attempts that do not fit"));
            }
            let needs_done = |what: &dyn Fn(&StepState) -> bool| {
                self.plan.needs(index).iter().all(|on| what(&self.steps[on.place()].state))
            };
            if started && !back && !needs_done(&|state| matches!(state, StepState::Done(_))) {
                return fail(format!("S18: step {index} started before what it needs was done"));
            }
            if back && !step.is_clear() && !needs_done(&|state| matches!(state, StepState::Done(_))) {
                return fail(format!("C10: what step {index} needed was undone before it"));
            }
            if matches!(step.state, StepState::Undone) && !back {
                return fail(format!("C11: step {index} is undone and nothing rolls back"));
            }
            if !back && step.state == StepState::Failed {
                return fail(format!("C11: step {index} failed for good and nothing rolls back"));
            }
        }
        if self.sets.remaining == 0 {
            return fail("everything is settled and it is not done".to_owned());
        }
        Ok(())
    }
}
