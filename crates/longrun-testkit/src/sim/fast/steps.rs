//! What steps and their undos do: whatever code of strangers does, at times of its own choosing.

use longrun_core::{Applied, Attempt, Code, Command, Json, Status, StepIndex, StepReport};

use super::driver::{Driver, Happened, Reply, Run, Undo};
use super::scenario::SECOND;
use super::world::{Ev, Return, World};
use crate::sim::coverage::{CrashPoint, Fault, Situation};
use crate::sim::invariants::{Violation, outside};
use crate::sim::plant::Plant;

fn index(step: usize) -> StepIndex {
    StepIndex(u16::try_from(step).unwrap_or(0))
}

fn place(step: usize) -> u8 {
    u8::try_from(step).unwrap_or(0)
}

/// What a run gives: it tells which run it was, so that an output of another one shows.
pub(super) fn output(step: usize, attempt: u32) -> Json {
    let number = step as u64 * 1_000_000 + u64::from(attempt);
    Json::encode("output", &number).unwrap_or_else(|_| Json::array(Vec::new()))
}

pub(super) fn report(step: usize, attempt: u32, how: Return) -> StepReport {
    let failed = |applied, retryable| StepReport::Failed {
        error: Status::new(Code::Unavailable, "it failed"),
        applied,
        retryable,
    };
    match how {
        Return::Done => StepReport::Done(output(step, attempt)),
        Return::NotApplied { again } => failed(Applied::No, again),
        Return::Unknown { again } => failed(Applied::Unknown, again),
    }
}

impl World<'_> {
    /// Begins a run: what it will do, and when, is drawn now.
    pub(super) fn begin_run(&mut self, op: usize, driver: &mut Driver, step: usize, attempt: u32) {
        let input = match driver.execution.input(index(step)) {
            Ok(input) => input,
            Err(error) => return self.fail(Violation::new("input", error.to_string())),
        };
        let one = &mut self.ops[op];
        let checkpoint = driver.execution.checkpoint(index(step));
        if checkpoint.is_some() && checkpoint == one.story.lines[step].checkpoint.as_ref() {
            self.cov.met(Situation::CheckpointReturned);
        }
        let run = outside::Run { attempt, input: input.bytes(), checkpoint };
        let verdict = one.outside.run_begins(&one.story, step, &run);
        self.judge(verdict);
        let (effect_at, ends_at, how, faults) = self.draw_run(attempt);
        let ends = self.now + ends_at;
        driver.runs[step] =
            Some(Run { attempt, told: false, barred: false, returned: false, ends_at: ends, faults });
        let step = place(step);
        if let Some(at) = effect_at {
            self.later(at, op, Ev::Effect { step, attempt });
        }
        if self.rng.chance(self.swarm.saves) {
            for _ in 0..=self.rng.below(2) {
                let at = self.rng.below(ends_at.max(1));
                self.later(at, op, Ev::Save { step, attempt });
            }
        }
        self.later(ends_at, op, Ev::Return { step, attempt, how });
    }

    /// When the effect happens, when the run returns, how, and what has gone wrong then.
    fn draw_run(&mut self, attempt: u32) -> (Option<u64>, u64, Return, [Option<Fault>; 2]) {
        let quick = self.rng.pick(&[500, 5_000, 100_000, SECOND]);
        let ends = 1 + self.rng.below(quick);
        let effect = self.rng.below(ends);
        let good = self.calm || attempt >= self.swarm.good_from;
        if good {
            return (Some(effect), ends, Return::Done, [None; 2]);
        }
        let again = !self.rng.chance(self.swarm.step_final);
        if self.rng.chance(self.swarm.step_hangs) || self.rng.chance(self.swarm.step_slow) {
            let hangs = self.rng.chance(300);
            let fault = if hangs { Fault::StepHangs } else { Fault::StepTimesOut };
            // Told to stop after 4 s, dropped half a second later, wherever it is then.
            let at = self.rng.below(6 * SECOND);
            let how = Return::Unknown { again: true };
            return ((!hangs).then_some(at), 4 * SECOND + SECOND / 2, how, [Some(fault), None]);
        }
        if self.rng.chance(self.swarm.step_panics) {
            let effect = self.rng.chance(500).then_some(effect);
            return (effect, ends, Return::Unknown { again: false }, [Some(Fault::StepPanics), None]);
        }
        if self.rng.chance(self.swarm.step_fails) {
            let for_good = (!again).then_some(Fault::StepFailsForGood);
            if self.rng.chance(self.swarm.step_after) {
                let faults = [Some(Fault::StepFailsAfter), for_good];
                return (Some(effect), ends, Return::Unknown { again }, faults);
            }
            let how =
                if self.rng.chance(500) { Return::NotApplied { again } } else { Return::Unknown { again } };
            return (None, ends, how, [Some(Fault::StepFailsBefore), for_good]);
        }
        (Some(effect), ends, Return::Done, [None; 2])
    }

    /// A run is told to stop: it stops, or goes on, or is dropped after its grace.
    pub(super) fn tell_to_stop(&mut self, op: usize, driver: &mut Driver, step: usize) {
        let Some(run) = &mut driver.runs[step] else { return };
        if run.returned || std::mem::replace(&mut run.told, true) {
            return;
        }
        self.cov.met(Situation::RollbackWaitsForRun);
        let (attempt, ends_at) = (run.attempt, run.ends_at);
        let applied = self.ops[op].outside.places[step].effect;
        let grace = SECOND / 2;
        let how = match self.rng.below(3) {
            // It knows that nothing of this run, nor of one before, is there.
            0 if !applied => {
                run.barred = true;
                Return::NotApplied { again: false }
            }
            0 | 1 => Return::Unknown { again: true },
            _ if ends_at <= self.now + grace => return,
            _ => {
                run.faults = [None; 2];
                return self.later(
                    grace,
                    op,
                    Ev::Return { step: place(step), attempt, how: Return::Unknown { again: true } },
                );
            }
        };
        run.faults = [None; 2];
        let at = self.rng.below(grace);
        self.later(at, op, Ev::Return { step: place(step), attempt, how });
    }

    fn runs(&self, op: usize, step: usize, attempt: u32) -> bool {
        let run = self.ops[op].driver.as_ref().and_then(|driver| driver.runs[step]);
        run.is_some_and(|run| run.attempt == attempt && !run.returned)
    }

    pub(super) fn on_effect(&mut self, op: usize, step: usize, attempt: u32) {
        if !self.runs(op, step, attempt) || self.crash_point(CrashPoint::BeforeEffect) {
            return;
        }
        let run = self.ops[op].driver.as_ref().and_then(|driver| driver.runs[step]);
        if run.is_some_and(|run| run.barred) {
            return;
        }
        self.ops[op].outside.effect(step);
        self.crash_point(CrashPoint::AfterEffect);
    }

    pub(super) fn on_return(&mut self, op: usize, step: usize, attempt: u32, how: Return) {
        if !self.runs(op, step, attempt) || self.crash_point(CrashPoint::BeforeReport) {
            return;
        }
        let dropped = matches!(how, Return::Unknown { again: true });
        if dropped && self.goes_wrong(self.swarm.late) {
            let after = self.rng.below(SECOND);
            self.later(after, op, Ev::Late { step: place(step), attempt });
        }
        if self.ops[op].story.is_past_no_return() && how != Return::Done {
            self.cov.met(Situation::FailsPastNoReturn);
        }
        if self.ops[op].story.cause.is_some() && how == Return::Done {
            self.cov.met(Situation::DoneAfterDecision);
        }
        let one = &mut self.ops[op];
        one.outside.run_ends(step, attempt);
        match how {
            Return::Done if one.unsure & 1 << step != 0 => self.cov.met(Situation::RunAgainAfterUnknown),
            Return::Unknown { .. } => one.unsure |= 1 << step,
            Return::Done | Return::NotApplied { .. } => {}
        }
        let Some(driver) = &mut one.driver else { return };
        if let Some(run) = &mut driver.runs[step] {
            run.returned = true;
            run.faults.iter().flatten().for_each(|fault| self.cov.fault(*fault));
        }
        let rerun = driver.rerun && one.story.lines[step].output.is_some();
        if rerun {
            driver.runs[step] = None;
        } else {
            let report = report(step, attempt, how);
            let command = Command::Report { step: index(step), attempt: Attempt(attempt), report };
            driver.inbox.push(Happened::quiet(command));
        }
        if driver.flight.is_some() {
            self.cov.met(Situation::EndedWhileCommitting);
        }
        self.pump(op);
    }

    /// The result of a run that was given up arrives after all.
    pub(super) fn on_late(&mut self, op: usize, step: usize, attempt: u32) {
        let Some(driver) = &mut self.ops[op].driver else { return };
        self.cov.fault(Fault::LateResult);
        let counts_for = match self.plant {
            Some(Plant::S29) => driver.execution.attempt(index(step)),
            _ => Attempt(attempt),
        };
        let report = StepReport::Done(output(step, attempt));
        let command = Command::Report { step: index(step), attempt: counts_for, report };
        driver.inbox.push(Happened { command, reply: Reply::Late, accepted: true });
        self.pump(op);
    }

    pub(super) fn on_save(&mut self, op: usize, step: usize, attempt: u32) {
        if !self.runs(op, step, attempt) {
            return;
        }
        let serial = self.ticket();
        let Some(driver) = &mut self.ops[op].driver else { return };
        let Ok(checkpoint) = Json::encode("checkpoint", &serial) else { return };
        let (step, attempt) = (index(step), Attempt(attempt));
        driver.inbox.push(Happened::quiet(Command::Checkpoint { step, attempt, checkpoint, progress: None }));
        self.pump(op);
    }

    /// Begins an undo.
    pub(super) fn begin_undo(&mut self, op: usize, driver: &mut Driver, step: usize) {
        let failures = driver.execution.undo_failures(index(step));
        let gets = driver.execution.undoable(index(step));
        let serial = self.ticket();
        let mut really = step;
        let in_time = self.ops[op].story.check_not_before(step, self.wall());
        self.judge(in_time);
        let one = &mut self.ops[op];
        if self.plant == Some(Plant::S21) {
            let first = one.outside.places.iter().position(|place| place.effect && place.live.is_none());
            really = first.unwrap_or(step);
        }
        let done = one.story.lines[step].output.is_some();
        self.cov.met(if done { Situation::UndoOfDone } else { Situation::UndoOfUnknown });
        let skip = self.plant == Some(Plant::S20) && !done;
        if !skip {
            let gets = if really == step { gets } else { driver.execution.undoable(index(really)) };
            let verdict = one.outside.undo_begins(&one.story, really, gets.as_ref());
            self.judge(verdict);
        }
        if self.ops[op].outside.undoing() > 1 {
            self.cov.met(Situation::TwoUndosAtOnce);
        }
        let quick = self.rng.pick(&[500, 5_000, 100_000, SECOND]);
        let ends = 1 + self.rng.below(quick);
        let reverses = self.rng.below(ends);
        let good = self.calm || failures >= self.swarm.undo_good_from;
        let (reverses, ends, fault) = if !good && self.rng.chance(self.swarm.undo_slow) {
            let at = self.rng.below(8 * SECOND);
            (Some(at), 4 * SECOND + SECOND / 2, Some(Fault::UndoTimesOut))
        } else if !good && self.rng.chance(self.swarm.undo_fails) {
            let after = self.rng.chance(400);
            let fault = if after { Fault::UndoFailsAfter } else { Fault::UndoFails };
            (after.then_some(reverses), ends, Some(fault))
        } else {
            (Some(reverses), ends, None)
        };
        driver.undos[step] = Some(Undo { failures, serial, place: really, returned: false, fault });
        let step = place(step);
        if let Some(at) = reverses.filter(|_| !skip) {
            self.later(at, op, Ev::Reverse { step, serial });
        }
        self.later(ends, op, Ev::UndoReturn { step, serial });
    }

    fn undo(&self, op: usize, step: usize, serial: u32) -> Option<Undo> {
        let undo = self.ops[op].driver.as_ref().and_then(|driver| driver.undos[step]);
        undo.filter(|undo| undo.serial == serial && !undo.returned)
    }

    pub(super) fn on_reverse(&mut self, op: usize, step: usize, serial: u32) {
        let Some(undo) = self.undo(op, step, serial) else { return };
        if self.crash_point(CrashPoint::BeforeUndo) {
            return;
        }
        self.ops[op].outside.reverse(undo.place);
        self.crash_point(CrashPoint::AfterUndo);
    }

    pub(super) fn on_undo_return(&mut self, op: usize, step: usize, serial: u32) {
        let Some(undo) = self.undo(op, step, serial) else { return };
        if self.crash_point(CrashPoint::BeforeReport) {
            return;
        }
        let one = &mut self.ops[op];
        one.outside.undo_ends(undo.place);
        let Some(driver) = &mut one.driver else { return };
        driver.undos[step] = Some(Undo { returned: true, ..undo });
        let result = match undo.fault {
            None => Ok(()),
            Some(_) => Err(Status::new(Code::Unavailable, "cannot be undone")),
        };
        undo.fault.into_iter().for_each(|fault| self.cov.fault(fault));
        let command = Command::UndoReport { step: index(step), failures: undo.failures, result };
        driver.inbox.push(Happened::quiet(command));
        self.pump(op);
    }
}
