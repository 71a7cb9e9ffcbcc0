//! The oracle: what was done to the outside world, told from events alone by rules written a second time.

use std::collections::BTreeSet;

use longrun_core::{Code, Event, Next, Plan, Status, StepIndex, Verb, limits};

#[derive(Clone, Debug, Default)]
struct Line {
    runs: u32,
    running: bool,
    done: bool,
    /// It may have left an effect that nobody reversed.
    effect: bool,
    undone: bool,
    /// It is to run again.
    waits: bool,
    failures: u32,
    /// In a row.
    crashes: u32,
    error: Option<Status>,
    undo_failures: u32,
    undo_crashes: u32,
}

#[derive(Clone, Debug)]
pub struct Ledger {
    lines: Vec<Line>,
    needs: Vec<BTreeSet<usize>>,
    parallel: usize,
    no_return: Option<usize>,
    pub cause: Option<Status>,
    pub ended: bool,
    pub taken_over: usize,
}

impl Ledger {
    pub fn new(plan: &Plan) -> Self {
        let parts = plan.parts();
        // From the parts, not from the plan's own edges.
        let needs = parts.steps.iter().map(|step| {
            let data = step.input.sources().iter().filter_map(longrun_core::Source::step);
            data.chain(step.after.iter().copied()).map(StepIndex::place).collect()
        });
        Self {
            lines: vec![Line::default(); parts.steps.len()],
            needs: needs.collect(),
            parallel: usize::from(parts.parallel),
            no_return: parts.point_of_no_return.map(StepIndex::place),
            cause: None,
            ended: false,
            taken_over: 0,
        }
    }

    /// Runs of a step that were started.
    pub fn runs(&self, step: u16) -> u32 {
        self.lines[usize::from(step)].runs
    }

    /// From here on it only goes forward, however often a step fails.
    pub fn is_past_no_return(&self) -> bool {
        self.no_return.is_some_and(|step| self.lines[step].runs > 0)
    }

    fn running(&self) -> usize {
        self.lines.iter().filter(|line| line.running).count()
    }

    /// Past the point of no return: the first step that fails and will run again.
    fn fails_forward(&self) -> Option<&Line> {
        let fails = |line: &&Line| line.failures > 0 || line.crashes > limits::INTERRUPTIONS_FREE;
        let waiting = self.lines.iter().filter(|line| line.waits);
        let running = self.lines.iter().filter(|line| line.running);
        waiting.chain(running).find(fails).filter(|_| self.is_past_no_return())
    }

    /// The step is to be undone, now or after a wait.
    pub fn owes_undo(&self, step: StepIndex) -> bool {
        !self.ended && self.may_undo(step.place())
    }

    /// An undo of the step may be on (C10).
    fn may_undo(&self, step: usize) -> bool {
        let used_by = |user: usize| self.needs[user].contains(&step);
        let users_gone = (0..self.lines.len())
            .filter(|&user| used_by(user))
            .all(|user| !self.lines[user].running && !self.lines[user].effect);
        let line = &self.lines[step];
        self.cause.is_some() && line.effect && !line.running && !line.undone && users_gone
    }

    fn undo(&mut self, step: usize) {
        assert!(self.may_undo(step), "C10: the undo of {step} came too early: {self:?}");
        self.lines[step].effect = false;
        self.lines[step].undone = true;
    }

    fn stop(&mut self, step: StepIndex, effect: bool) {
        let line = &mut self.lines[step.place()];
        assert!(line.running, "step {step} did not run");
        line.running = false;
        // What one run knows for certain says nothing of those before it.
        line.effect |= effect;
    }

    pub fn note(&mut self, events: &[Event]) {
        for event in events {
            assert!(!self.ended, "C5: {event:?} after the end");
            self.note_one(event);
        }
    }

    fn note_one(&mut self, event: &Event) {
        match event {
            Event::StepStarted { step, attempt } => {
                assert!(self.cause.is_none(), "C11: step {step} started while rolling back");
                assert!(self.running() < self.parallel, "too many run at the same time");
                let needs_done = self.needs[step.place()].iter().all(|&on| self.lines[on].done);
                assert!(needs_done, "S18: step {step} started before what it needs was done");
                let line = &mut self.lines[step.place()];
                assert!(!line.done && !line.running, "C9: step {step} runs again");
                line.runs += 1;
                line.running = true;
                line.waits = false;
                assert_eq!(attempt.0, line.runs);
            }
            Event::StepDone { step, .. } => {
                self.stop(*step, true);
                self.lines[step.place()].done = true;
            }
            Event::StepFailedForNow { step, attempt, failures, may_have_run, error, .. } => {
                assert!(self.cause.is_none(), "C11: step {step} is to run again while rolling back");
                self.stop(*step, *may_have_run);
                let line = &mut self.lines[step.place()];
                (line.failures, line.crashes, line.waits) = (line.failures + 1, 0, true);
                line.error = Some(error.clone());
                assert_eq!((attempt.0, *failures), (line.runs, line.failures));
                assert_eq!(*may_have_run, line.effect, "sticky, so that the last one says it of all");
            }
            Event::StepFailed { step, may_have_run, .. } => {
                self.stop(*step, *may_have_run);
            }
            Event::StepInterrupted { step, attempt, interruptions, .. } => {
                assert!(self.cause.is_none(), "C11: step {step} is to run again while rolling back");
                self.stop(*step, true);
                let line = &mut self.lines[step.place()];
                // A gentle stop counts for nothing.
                assert!([line.crashes, line.crashes + 1].contains(interruptions));
                (line.crashes, line.waits) = (*interruptions, true);
                assert_eq!(attempt.0, line.runs);
            }
            Event::Checkpoint { step, .. } => {
                assert!(self.lines[step.place()].running);
                self.lines[step.place()].crashes = 0;
            }
            Event::RollbackDecided { cause, .. } => {
                assert!(self.cause.is_none(), "C3: decided twice");
                assert!(!self.is_past_no_return(), "rolls back past the point of no return");
                self.cause = Some(cause.clone());
            }
            Event::Undone { step } => self.undo(step.place()),
            Event::UndoFailed { step, failures, .. } => {
                assert!(self.may_undo(step.place()), "C10: an undo of {step} was on too early");
                let line = &mut self.lines[step.place()];
                (line.undo_failures, line.undo_crashes) = (line.undo_failures + 1, 0);
                assert_eq!(*failures, line.undo_failures);
            }
            Event::UndoInterrupted { step, interruptions, .. } => {
                assert!(self.may_undo(step.place()), "C10: an undo of {step} was on too early");
                let line = &mut self.lines[step.place()];
                assert!([line.undo_crashes, line.undo_crashes + 1].contains(interruptions));
                line.undo_crashes = *interruptions;
            }
            Event::UndoWaitOver { step } => {
                assert!(self.may_undo(step.place()), "C10: an undo of {step} was to begin too early");
            }
            Event::Intervened(intervention) => match intervention.verb {
                Verb::RetryNow => {}
                Verb::MarkUndone(step) | Verb::SkipUndo(step) => {
                    self.taken_over += 1;
                    self.undo(step.place());
                }
                Verb::Abandon => {
                    if self.cause.is_none() {
                        // 5.2: an operator gave up what could only go forward.
                        let fails = self.fails_forward().expect("nothing to give up");
                        let given_up = || Status::new(Code::Aborted, "given up by an operator");
                        self.cause = Some(fails.error.clone().unwrap_or_else(given_up));
                    }
                    self.ended = true;
                }
            },
            Event::Succeeded { .. } => {
                assert!(self.cause.is_none(), "C2: error and response");
                assert!(self.lines.iter().all(|line| line.done && !line.undone), "a step is not done");
                self.ended = true;
            }
            Event::RolledBack => {
                assert!(self.cause.is_some());
                assert!(self.lines.iter().all(|line| !line.effect && !line.running), "C4: an effect is left");
                self.ended = true;
            }
        }
    }

    /// What there is to do agrees with what was done.
    pub fn check_next(&self, next: &Next) {
        if self.ended {
            return assert_eq!(*next, Next::default(), "C5");
        }
        let running: Vec<usize> = (0..self.lines.len()).filter(|&step| self.lines[step].running).collect();
        assert_eq!(next.run.iter().map(|step| step.place()).collect::<Vec<_>>(), running);
        assert_eq!(next.stop, self.cause.is_some());
        assert!(next.undo.len() <= self.parallel);
        for step in &next.undo {
            assert!(self.may_undo(step.place()), "C10: undo of {step} named too early");
        }
        if next.stop && next.run.is_empty() && next.undo.is_empty() {
            assert!(next.wake_at.is_some(), "rolls back, with nothing to wait for");
        }
    }
}
