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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::{Acceptance, Header, Rollback};
    use crate::plan::{Input, Plan, PlanParts, Source, StepSpec};
    use crate::{Caller, Code, IdPrefix, Json, KindName, OperationId, Payload, Status, StepIndex, Timestamp};

    /// Two steps, the second of which uses what the first gives, and cannot be undone if `no_return`.
    fn accepted(no_return: bool) -> Execution {
        let (one, two) = (StepIndex(0), StepIndex(1));
        let literal = Source::Literal(Json::encode("x", &1).unwrap());
        let step = |source: Source| StepSpec {
            name: "step".parse().unwrap(),
            version: 1,
            input: Input::One(source),
            after: Vec::new(),
            policy: None,
        };
        let plan = Plan::new(PlanParts {
            steps: vec![step(literal.clone()), step(Source::Output(one))],
            output: literal,
            point_of_no_return: no_return.then_some(two),
            parallel: 1,
            claims: Vec::new(),
        });
        let payload = Payload::encode("x", "type.test/X", &1).unwrap();
        let header = Header {
            id: OperationId::generate(IdPrefix::new("tst").unwrap(), Timestamp::UNIX_EPOCH, 7),
            kind: KindName::new("test").unwrap(),
            kind_version: 1,
            description: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            created_by: Caller::new("alice").unwrap(),
            request: payload.clone(),
            metadata: payload,
            response_type: "type.test/X".into(),
            resources: Vec::new(),
            deadline: None,
            idempotency: None,
        };
        Execution::accept(Acceptance { header, plan: plan.unwrap(), start: true }).unwrap().0
    }

    /// What is said of an operation of which something was changed that events do not change so.
    #[track_caller]
    fn finds(no_return: bool, change: impl FnOnce(&mut Work)) -> String {
        let mut execution = accepted(no_return);
        assert_eq!(execution.check(), Ok(()));
        let State::Active(work) = &mut execution.state else { unreachable!() };
        change(work);
        work.sets = work.derive_sets();
        execution.check().unwrap_err().what
    }

    fn back(work: &mut Work) {
        work.rollback = Some(Rollback { cause: Status::new(Code::Internal, "boom"), step: None });
    }

    fn ran(work: &mut Work, step: usize, state: StepState) {
        work.steps[step].attempt = Attempt(1);
        work.steps[step].may_have_run = true;
        work.steps[step].state = state;
    }

    #[test]
    fn every_check_finds_what_it_looks_for() {
        let output = || StepState::Done(Json::encode("x", &1).unwrap());
        assert!(finds(false, |work| ran(work, 1, StepState::Running)).starts_with("2 steps run"));
        assert!(finds(false, |work| work.steps[0].attempt = Attempt(0)).starts_with("C8: step 0"));
        assert!(finds(false, |work| work.steps[0].state = StepState::Waiting).starts_with("C8: step 0"));
        assert!(finds(false, |work| ran(work, 0, StepState::Undone)).starts_with("C11: step 0 is undone"));
        assert!(finds(false, |work| ran(work, 0, StepState::Failed)).starts_with("C11: step 0 failed"));
        let early = finds(false, |work| {
            ran(work, 1, output());
        });
        assert!(early.starts_with("S18: step 1"), "{early}");
        let missing = finds(false, |work| {
            back(work);
            ran(work, 0, StepState::Undone);
            ran(work, 1, output());
        });
        assert!(missing.starts_with("C10: what step 1"), "{missing}");
        let past = finds(true, |work| {
            back(work);
            ran(work, 0, output());
            ran(work, 1, StepState::Running);
        });
        assert!(past.starts_with("it rolls back past"), "{past}");
        let over = finds(false, |work| {
            back(work);
            ran(work, 0, StepState::Undone);
        });
        assert!(over.starts_with("everything is settled"), "{over}");

        let mut execution = accepted(false);
        execution.modified_at = Timestamp::MIN;
        assert!(execution.check().unwrap_err().what.starts_with("C16"));
        let mut execution = accepted(false);
        let State::Active(work) = &mut execution.state else { unreachable!() };
        work.sets.remaining += 1;
        assert!(execution.check().unwrap_err().what.starts_with("the derived sets"));
    }
}
