//! Turns: what happened is decided, made durable, and only then followed by anything.

use longrun_core::{Applied, Attempt, Code, Command, Event, Status, StepReport, Timestamp};

use super::driver::{Driver, Happened, Purpose, Reply, Told};
use super::scenario::SECOND;
use super::world::{Ev, World};
use crate::sim::coverage::{CrashPoint, Situation};
use crate::sim::invariants::Violation;
use crate::sim::invariants::calm::check_goes_on;
use crate::sim::plant::Plant;

/// The longest that a driver trusts a wait: the wall clock may have been set.
pub(super) const WAIT_MAX: u64 = 60 * SECOND;

impl World<'_> {
    /// Lets the driver go on as far as it can without waiting.
    pub(super) fn pump(&mut self, op: usize) {
        let Some(mut driver) = self.ops[op].driver.take() else { return };
        let stays = driver.flight.is_some() || self.turns(op, &mut driver);
        if stays {
            self.ops[op].driver = Some(driver);
        }
    }

    /// Takes turns until a commit is under way or nothing is left to decide. False when the driver leaves.
    pub(super) fn turns(&mut self, op: usize, driver: &mut Driver) -> bool {
        loop {
            if self.violation.is_some() {
                return true;
            }
            if driver.execution.is_done() || (driver.purpose == Purpose::Rest && driver.inbox.is_empty()) {
                return self.leave(op, driver);
            }
            if driver.purpose != Purpose::Rest {
                self.begin(op, driver);
            }
            if driver.inbox.is_empty() {
                return driver.performing() || self.park(op, driver);
            }
            let happened = std::mem::take(&mut driver.inbox);
            gathered(driver, &happened);
            if !self.decide(op, driver, happened, 0) {
                return true;
            }
        }
    }

    /// The driver has nothing more to do here.
    fn leave(&mut self, op: usize, driver: &Driver) -> bool {
        for place in &mut self.ops[op].outside.places {
            (place.live, place.undoing) = (None, false);
        }
        if !driver.execution.is_done() {
            self.later(0, op, Ev::TakeUp);
        }
        false
    }

    /// Begins what is on record as started and does not run yet.
    fn begin(&mut self, op: usize, driver: &mut Driver) {
        let now = self.wall();
        // As if every wait were over.
        let seen = if self.plant == Some(Plant::S44) { Timestamp::MAX } else { now };
        let next = driver.execution.next(seen);
        for &step in &next.run {
            let attempt = driver.execution.attempt(step).0;
            let runs = driver.runs[step.place()].is_some_and(|run| run.attempt == attempt);
            if next.stop && runs {
                self.tell_to_stop(op, driver, step.place());
            } else if next.stop && self.plant != Some(Plant::S23) {
                // Its start and the decision went into one commit. It did not begin, and must not (C11).
                self.cov.met(Situation::StartAndDecision);
                let error = Status::new(Code::Aborted, "it did not begin");
                let report = StepReport::Failed { error, applied: Applied::No, retryable: false };
                let command = Command::Report { step, attempt: Attempt(attempt), report };
                driver.inbox.push(Happened::quiet(command));
            } else if !runs {
                self.begin_run(op, driver, step.place(), attempt);
            }
        }
        for &step in &next.undo {
            if driver.undos[step.place()].is_none() {
                self.begin_undo(op, driver, step.place());
            }
        }
        if std::mem::replace(&mut driver.rerun, false) {
            let done = self.ops[op].story.lines.iter().position(|line| line.output.is_some());
            if let Some(step) = done.filter(|_| !next.stop) {
                driver.rerun = true;
                self.begin_run(op, driver, step, 1);
            }
        }
        if let Some(at) = next.wake_at {
            driver.wake = self.ticket();
            let wait = u64::try_from(at.since(now).as_micros()).unwrap_or(WAIT_MAX).min(WAIT_MAX);
            self.later(wait, op, Ev::Wake(driver.wake));
        }
    }

    /// Nothing is on and nothing can begin: the order of due work brings it back. Always false: the driver leaves.
    fn park(&mut self, op: usize, driver: &Driver) -> bool {
        if driver.cancel_in_memory {
            return true;
        }
        let now = self.wall();
        let next = driver.execution.next(now);
        self.judge(check_goes_on(next.wake_at.is_some()));
        if let Some(at) = next.wake_at {
            let wait = u64::try_from(at.since(now).as_micros()).unwrap_or(WAIT_MAX).min(WAIT_MAX);
            self.later(wait, op, Ev::TakeUp);
        }
        false
    }

    /// Decides what happened. True when nothing has to be stored; else a commit is under way.
    pub(super) fn decide(
        &mut self,
        op: usize,
        driver: &mut Driver,
        mut happened: Vec<Happened>,
        failures: u32,
    ) -> bool {
        let now = self.wall();
        let mut events = Vec::new();
        if std::mem::take(&mut driver.cancel_in_memory) {
            let command = Command::Cancel { by: self.kit.caller.clone() };
            _ = driver.execution.handle(&command, now, &mut events);
        }
        for one in &mut happened {
            let handled = match driver.purpose {
                Purpose::Rest => driver.execution.handle_at_rest(&one.command, now, &mut events),
                _ => driver.execution.handle(&one.command, now, &mut events),
            };
            one.accepted = handled.is_ok();
            if one.reply == Reply::Late {
                self.name_late(one.accepted);
            }
        }
        if let Err(error) = driver.execution.check() {
            self.fail(Violation::new("check", error.to_string()));
        }
        if events.is_empty() {
            self.answer(op, &driver.execution, &happened);
            return true;
        }
        let expected = driver.execution.revision().next();
        let decided = events.iter().any(|event| matches!(event, Event::RollbackDecided { .. }));
        let mut turn = match driver.execution.seal(events.clone(), now) {
            Ok(turn) => turn,
            Err(error) => {
                self.fail(Violation::new("seal", error.to_string()));
                return true;
            }
        };
        if self.plant == Some(Plant::S19) {
            events.retain(|event| !matches!(event, Event::StepStarted { .. }));
            turn.entry.events.retain(|event| !matches!(event, Event::StepStarted { .. }));
        }
        let turn = Told { turn, events, now };
        let quiet = happened.iter().all(|one| one.reply == Reply::Nobody) && driver.purpose == Purpose::Drive;
        if self.plant == Some(Plant::S22) && decided && quiet && !driver.execution.is_done() {
            // Taken for durable; the next commit brings it to disk.
            driver.held.push(turn);
            return true;
        }
        let mut turns = std::mem::take(&mut driver.held);
        turns.push(turn);
        self.take_off(op, driver, turns, happened, expected, failures);
        if self.plant == Some(Plant::S18) && driver.purpose == Purpose::Drive {
            self.begin(op, driver);
        }
        false
    }

    pub(super) fn on_wake(&mut self, op: usize, ticket: u32) {
        let Some(driver) = &mut self.ops[op].driver else { return };
        if driver.wake == ticket && driver.flight.is_none() {
            driver.inbox.push(Happened::quiet(Command::Resume));
            self.pump(op);
        }
    }

    /// The order of due work names the operation.
    pub(super) fn on_take_up(&mut self, op: usize) {
        if self.ops[op].driver.is_some() || self.crash_point(CrashPoint::Recovery) {
            return;
        }
        let Some(record) = &self.disk.records[op] else { return };
        match record.wait_micros(self.wall()) {
            None => return,
            Some(0) => {}
            Some(wait) => return self.later(wait, op, Ev::TakeUp),
        }
        match record.restore() {
            Ok(execution) => {
                let mut driver = Box::new(Driver::new(execution, Purpose::Drive));
                driver.recovering = true;
                driver.rerun = self.plant == Some(Plant::S17);
                driver.inbox.push(Happened::quiet(Command::Adopt));
                self.adopt(op, driver);
            }
            Err(violation) => self.fail(violation),
        }
    }

    /// The first turn of a driver that does not know its runs. Nothing begins before it is durable.
    fn adopt(&mut self, op: usize, mut driver: Box<Driver>) {
        let happened = std::mem::take(&mut driver.inbox);
        if self.decide(op, &mut driver, happened, 0) && !self.turns(op, &mut driver) {
            return;
        }
        self.ops[op].driver = Some(driver);
    }

    /// Puts a command to an operation that nothing runs.
    pub(super) fn at_rest(&mut self, op: usize, driver: Box<Driver>) {
        let done = driver.execution.is_done();
        let mut driver = driver;
        let happened = std::mem::take(&mut driver.inbox);
        if self.decide(op, &mut driver, happened, 0) {
            if !done {
                self.later(0, op, Ev::TakeUp);
            }
            return;
        }
        self.ops[op].driver = Some(driver);
    }
}

/// What has returned is no longer on, once its report is gathered.
fn gathered(driver: &mut Driver, happened: &[Happened]) {
    for one in happened.iter().filter(|one| one.reply == Reply::Nobody) {
        match &one.command {
            Command::Report { step, attempt, .. } => {
                let run = &mut driver.runs[step.place()];
                if run.is_some_and(|run| run.returned && run.attempt == attempt.0) {
                    *run = None;
                }
            }
            Command::UndoReport { step, .. } => driver.undos[step.place()] = None,
            _ => {}
        }
    }
}
