//! Deciding: a command and the time give events, or a refusal that changes nothing.
//!
//! Whatever a command was about, it ends with [`Execution::advance`]: what can start is started in the same
//! turn, and what is complete is finished. That is why an operation of S steps takes S+1 commits.

use super::{
    Applied, Attempt, Command, Event, Execution, Intervention, Step, StepReport, StepState, Verb, Work,
};
use crate::error::{Inconsistent, Invalid, Refusal};
use crate::id::{Caller, OperationId, StepIndex};
use crate::limits::{INTERRUPTIONS_FREE, INTERRUPTIONS_MAX, INTERVENTIONS_MAX, REASON_BYTES_MAX};
use crate::payload::Payload;
use crate::status::{Code, Status};
use crate::time::Timestamp;

impl Execution {
    /// Takes a command at the time `now` and appends the events that follow. After `Err` nothing has changed.
    pub fn handle(
        &mut self,
        command: &Command,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        self.take(command, now, events)?;
        self.advance(now, true, events);
        debug_assert_eq!(self.check(), Ok(()));
        Ok(())
    }

    /// The same for an operation that no driver works on: decides, but starts no step that nobody would run.
    pub fn handle_at_rest(
        &mut self,
        command: &Command,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        self.take(command, now, events)?;
        self.advance(now, false, events);
        debug_assert_eq!(self.check(), Ok(()));
        Ok(())
    }

    /// Records what the command itself means.
    fn take(&mut self, command: &Command, now: Timestamp, events: &mut Vec<Event>) -> Result<(), Refusal> {
        match command {
            Command::Adopt => self.adopt(now, events),
            Command::Resume => {}
            Command::Leave => self.leave(events),
            Command::Report { step, attempt, report } => self.report(*step, *attempt, report, now, events)?,
            Command::Checkpoint { step, attempt, checkpoint, progress } => {
                let (_, state) = self.running_step(*step, *attempt)?;
                // The entry may take the place of the one before, so it carries the progress that one told.
                let progress = progress.or(state.progress);
                let (step, checkpoint) = (*step, checkpoint.clone());
                self.record(Event::Checkpoint { step, checkpoint, progress }, events);
            }
            Command::UndoReport { step, failures, result } => {
                self.undo_report(*step, *failures, result, now, events)?;
            }
            Command::Cancel { by } => self.cancel(by, events),
            Command::Intervene { by, verb, reason } => self.intervene(by, *verb, reason, now, events)?,
        }
        Ok(())
    }

    /// Applies an event and keeps it. The only way from here to the state.
    fn record(&mut self, event: Event, events: &mut Vec<Event>) {
        self.apply(&event);
        events.push(event);
    }

    /// Starts what can start, gives up what is past its deadline, finishes what is complete.
    fn advance(&mut self, now: Timestamp, start: bool, events: &mut Vec<Event>) {
        let late = self.header.deadline.is_some_and(|deadline| self.header.has_come(deadline, now));
        let Some(work) = self.work() else { return };
        if late && work.rollback.is_none() && !work.is_past_no_return() && work.sets.remaining > 0 {
            let cause = Status::new(Code::DeadlineExceeded, "the operation was not done by its deadline");
            self.record(Event::RollbackDecided { cause, step: None }, events);
        }
        while let Some(event) = self.work().and_then(|work| work.next_event(&self.header, now, start)) {
            self.record(event, events);
        }
    }

    fn adopt(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        let Some(work) = self.work() else { return };
        // Undos that were free to begin; a run that ends here makes room for its undo only now.
        let undos = work.undos_free_at(&self.header, now);
        let running: Vec<StepIndex> = work.sets.running.iter().copied().collect();
        for step in running {
            let Some(work) = self.work() else { return };
            let interruptions = work.steps[step.place()].interruptions.saturating_add(1);
            let error = Status::new(Code::Unavailable, "the process ended while the step ran");
            let gives_up = interruptions > INTERRUPTIONS_MAX && !work.is_past_no_return();
            // Another of these runs may have decided it a moment ago.
            let event = if work.rollback.is_some() || gives_up {
                Event::StepFailed { step, may_have_run: true, error: error.clone() }
            } else {
                let attempt = work.steps[step.place()].attempt;
                let wait_until = work.wait_after_crash(step, interruptions, self.header.id, now);
                // What waits for nothing waits for the time of the acceptance: that has come on whichever clock.
                let again_at = wait_until.unwrap_or(self.header.created_at);
                Event::StepInterrupted { step, attempt, interruptions, again_at }
            };
            self.record(event, events);
            if gives_up && !self.is_rolling_back() {
                self.record(Event::RollbackDecided { cause: error, step: Some(step) }, events);
            }
        }
        self.adopt_undos(undos, now, events);
    }

    /// Puts on record that nothing of it is on any more, so that the next adoption finds nothing that a process which died
    /// could have interrupted. All of it may go on at once: it waits for the time of the acceptance, which has always come.
    fn leave(&mut self, events: &mut Vec<Event>) {
        let Some(work) = self.work() else { return };
        let at = self.header.created_at;
        if work.rollback.is_some() {
            // A run that was still on ends with the adoption, which counts nothing any more.
            let begun = |step: &&StepIndex| work.steps[step.place()].undo.again_at.is_none();
            let begun: Vec<StepIndex> = work.sets.undoing.iter().filter(begun).copied().collect();
            for step in begun {
                let interruptions = self.step(step).map_or(0, |step| step.undo.interruptions);
                self.record(Event::UndoInterrupted { step, interruptions, again_at: Some(at) }, events);
            }
            return;
        }
        let running: Vec<StepIndex> = work.sets.running.iter().copied().collect();
        for step in running {
            let interruptions = self.step(step).map_or(0, |step| step.interruptions);
            let attempt = self.attempt(step);
            self.record(Event::StepInterrupted { step, attempt, interruptions, again_at: at }, events);
        }
    }

    /// Whether an undo had begun when the process ended is not on record. Those that could begin at once count as
    /// interrupted, so that an undo which kills its process does not do so in a tight loop. One that had to wait has its
    /// turn now: that its wait is over goes on record first, so that a crash from here on counts.
    fn adopt_undos(&mut self, undos: Vec<StepIndex>, now: Timestamp, events: &mut Vec<Event>) {
        for step in undos {
            let Some(work) = self.work() else { return };
            let undo = &work.steps[step.place()].undo;
            if undo.again_at.is_some() {
                self.record(Event::UndoWaitOver { step }, events);
                continue;
            }
            let interruptions = undo.interruptions.saturating_add(1);
            let again_at = work.wait_after_crash(step, interruptions, self.header.id, now);
            self.record(Event::UndoInterrupted { step, interruptions, again_at }, events);
        }
    }

    fn is_rolling_back(&self) -> bool {
        self.work().is_some_and(|work| work.rollback.is_some())
    }

    /// The step, if `attempt` is its run that is still on.
    fn running_step(&self, step: StepIndex, attempt: Attempt) -> Result<(&Work, &Step), Refusal> {
        let stale = Refusal::Stale { step, attempt };
        let Some(work) = self.work() else { return Err(stale) };
        match work.steps.get(step.place()) {
            None => Err(Refusal::NoSuchStep(step)),
            Some(state) if state.state == StepState::Running && state.attempt == attempt => Ok((work, state)),
            Some(_) => Err(stale),
        }
    }

    fn report(
        &mut self,
        step: StepIndex,
        attempt: Attempt,
        report: &StepReport,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let (work, state) = self.running_step(step, attempt)?;
        let (error, applied, retryable) = match report {
            StepReport::Done(output) => {
                self.record(Event::StepDone { step, output: output.clone() }, events);
                return Ok(());
            }
            StepReport::Failed { error, applied, retryable } => (error.clone(), *applied, *retryable),
        };
        // Sticky: what this run knows for certain says nothing of the runs before it.
        let may_have_run = applied == Applied::Unknown || state.may_have_run;
        let rolling_back = work.rollback.is_some();
        let policy = work.plan.policy(step);
        let failures = state.failures.saturating_add(1);
        // Past the point of no return there is no way but forward: run it again, for ever and in sight.
        let again = (retryable && failures < policy.runs_max) || work.is_past_no_return();
        if again && !rolling_back {
            let again_at = now.saturating_add(policy.backoff.delay(failures, seed(self.header.id, step)));
            let event = Event::StepFailedForNow { step, attempt, failures, may_have_run, error, again_at };
            self.record(event, events);
            return Ok(());
        }
        self.record(Event::StepFailed { step, may_have_run, error: error.clone() }, events);
        if !rolling_back {
            self.record(Event::RollbackDecided { cause: error, step: Some(step) }, events);
        }
        Ok(())
    }

    fn undo_report(
        &mut self,
        step: StepIndex,
        failures: u32,
        result: &Result<(), Status>,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let stale = Refusal::Stale { step, attempt: Attempt(failures) };
        let Some(work) = self.work() else { return Err(stale) };
        let state = work.steps.get(step.place()).ok_or(Refusal::NoSuchStep(step))?;
        if !work.sets.undoing.contains(&step) || state.undo.failures != failures {
            return Err(stale);
        }
        let event = match result {
            Ok(()) => Event::Undone { step },
            Err(error) => {
                let backoff = work.plan.policy(step).undo_backoff;
                let failures = failures.saturating_add(1);
                let wait = backoff.delay(failures, seed(self.header.id, step));
                let again_at = now.saturating_add(wait);
                Event::UndoFailed { step, failures, error: error.clone(), again_at }
            }
        };
        self.record(event, events);
        Ok(())
    }

    /// Cancel never refuses: it shows the operation as it is (C13). It changes nothing when the operation is
    /// done, rolling back already, or past its point of no return.
    fn cancel(&mut self, by: &Caller, events: &mut Vec<Event>) {
        let Some(work) = self.work() else { return };
        if work.rollback.is_none() && !work.is_past_no_return() {
            let cause = Status::new(Code::Cancelled, format!("cancelled by {by}"));
            self.record(Event::RollbackDecided { cause, step: None }, events);
        }
    }

    fn intervene(
        &mut self,
        by: &Caller,
        verb: Verb,
        reason: &str,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let id = self.header.id;
        let work = self.work().ok_or(Refusal::Done(id))?;
        if reason.len() > REASON_BYTES_MAX {
            return Err(Invalid::new("reason", format!("must be at most {REASON_BYTES_MAX} bytes")).into());
        }
        if reason.is_empty() && verb != Verb::RetryNow {
            return Err(Invalid::new("reason", "must be given").into());
        }
        // Retries make room.
        let on_record = work.interventions.iter().filter(|act| act.verb != Verb::RetryNow).count();
        if on_record >= INTERVENTIONS_MAX && matches!(verb, Verb::MarkUndone(_) | Verb::SkipUndo(_)) {
            let rule = format!("{INTERVENTIONS_MAX} acts are on record, only retry_now and abandon are left");
            return Err(Invalid::new("verb", rule).into());
        }
        let fails = |step: &StepIndex| work.steps[step.place()].undo.fails();
        match verb {
            // Nothing to hurry: nothing to record.
            Verb::RetryNow if !work.waits() => return Ok(()),
            Verb::RetryNow => {}
            Verb::MarkUndone(step) | Verb::SkipUndo(step) => {
                if work.steps.get(step.place()).is_none() {
                    return Err(Refusal::NoSuchStep(step));
                }
                if !work.sets.undoing.contains(&step) || !fails(&step) {
                    return Err(Refusal::NotBlocked(id));
                }
            }
            Verb::Abandon => {
                if !work.sets.undoing.iter().any(fails) && work.fails_past_no_return().is_none() {
                    return Err(Refusal::NotBlocked(id));
                }
            }
        }
        let intervention = Intervention { at: now, by: by.clone(), verb, reason: reason.to_owned() };
        self.record(Event::Intervened(intervention), events);
        Ok(())
    }
}

impl Work {
    /// Rolling back: undos that wait for nothing.
    fn undos_free_at(&self, header: &super::Header, now: Timestamp) -> Vec<StepIndex> {
        let free = |step: &&StepIndex| {
            self.steps[step.place()].undo.again_at.is_none_or(|at| header.has_come(at, now))
        };
        self.sets.undoing.iter().filter(free).copied().collect()
    }

    /// The next thing that follows from the state itself and from the time.
    fn next_event(&self, header: &super::Header, now: Timestamp, start: bool) -> Option<Event> {
        if self.rollback.is_some() {
            return (self.sets.remaining == 0).then_some(Event::RolledBack);
        }
        if self.sets.remaining == 0 {
            return Some(match self.response(header) {
                Ok(response) => Event::Succeeded { response },
                // Every step is done, so its value is there: a plan whose output cannot be had is not accepted.
                Err(Inconsistent { what }) => {
                    Event::RollbackDecided { cause: Status::new(Code::Internal, what), step: None }
                }
            });
        }
        if !start || !self.has_room() {
            return None;
        }
        let due = |step: &&StepIndex| match self.steps[step.place()].state {
            StepState::Again(at) => header.has_come(at, now),
            _ => false,
        };
        let step = *self.sets.waiting_again.iter().find(due).or_else(|| self.sets.ready.first())?;
        let Attempt(attempt) = self.steps[step.place()].attempt;
        Some(Event::StepStarted { step, attempt: Attempt(attempt + 1) })
    }

    fn response(&self, header: &super::Header) -> Result<Payload, Inconsistent> {
        let json = self.resolve(self.plan.output())?;
        Payload::new(header.response_type.clone(), json).map_err(|error| Inconsistent::new(error.to_string()))
    }

    /// Until when to wait, if at all, after the process died `interruptions` times in a row during one step.
    fn wait_after_crash(
        &self,
        step: StepIndex,
        interruptions: u32,
        id: OperationId,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let waits = interruptions.checked_sub(INTERRUPTIONS_FREE).filter(|waits| *waits > 0)?;
        let wait = self.plan.policy(step).undo_backoff.delay(waits, seed(id, step));
        (!wait.is_zero()).then(|| now.saturating_add(wait))
    }
}

/// Tells apart operations that failed together, without asking for randomness: FNV-1a of the id.
fn seed(id: OperationId, step: StepIndex) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ u64::from(step.0);
    id.as_bytes().iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What FNV-1a gives of the id, begun with the step's number in its offset.
    #[test]
    fn waits_are_spread_by_operation_and_step() {
        let id = OperationId::parse("fdv00000000000000000").unwrap();
        assert_eq!(seed(id, StepIndex(0)), 0xcb94_e9c6_622a_f209);
        assert_eq!(seed(id, StepIndex(3)), 0x5e77_8449_4fa2_993a);
    }
}
