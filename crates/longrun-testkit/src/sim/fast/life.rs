//! Lives of the process: where it crashes, what a restart finds, and what a commit changes for good.

use longrun_core::{Execution, Revision};

use super::disk::Refused;
use super::driver::Flight;
use super::scenario::SECOND;
use super::world::{Ev, Landed, World};
use crate::sim::coverage::{CrashPoint, Fault};
use crate::sim::invariants::commits::check_restored;
use crate::sim::invariants::rows;

impl World<'_> {
    /// A place where the process may crash. True when it did.
    pub(super) fn crash_point(&mut self, point: CrashPoint) -> bool {
        if self.crashes_left == 0 || !self.up || self.calm {
            return false;
        }
        self.cov.visit(point);
        let crashes = self.goes_wrong(self.swarm.crash);
        if crashes {
            self.crash(point);
        }
        crashes
    }

    pub(super) fn crash(&mut self, point: CrashPoint) {
        self.crashes_left -= 1;
        self.cov.crash(point);
        self.cov.fault(Fault::Crash);
        self.name_crash(point);
        for op in 0..self.ops.len() {
            let Some(driver) = self.ops[op].driver.take() else { continue };
            self.ops[op].crashes += 1;
            if let Some(flight) = driver.flight.as_ref().filter(|flight| !flight.landed && !flight.failed) {
                // What was not acknowledged may be on disk or not.
                let keeps = self.rng.chance(500) && self.apply(op, &driver.execution, flight) == Landed::Ok;
                self.cov.fault(if keeps { Fault::CrashKeepsCommit } else { Fault::CrashLosesCommit });
            } else if driver.flight.is_none() && driver.held.is_empty() && self.plant.is_none() {
                self.compare(op, &driver.execution);
            }
        }
        for one in &mut self.ops {
            one.outside.process_died();
            one.submitting = false;
        }
        self.boot += 1;
        self.up = false;
        let delay = self.rng.pick(&[0, SECOND / 10, SECOND, 10 * SECOND]);
        self.push(self.now + delay, 0, 0, Ev::Restart);
    }

    /// What is restored says the same as what lived: recovery is the ordinary path.
    pub(super) fn compare(&mut self, op: usize, live: &Execution) {
        let Some(record) = &self.disk.records[op] else { return };
        let Ok(stored) = record.restore() else { return };
        let verdict = check_restored(&stored, live, record.due_at);
        self.judge(verdict);
    }

    /// What is stored bears out what clients were told.
    pub(super) fn check_restored(&mut self) {
        for op in 0..self.ops.len() {
            let restored = self.disk.records[op].as_ref().map(super::disk::Record::restore).transpose();
            let verdict = restored.and_then(|stored| {
                let stored = stored.map(|stored| stored.operation());
                self.ops[op].answers.check_stored(stored.as_ref())
            });
            self.judge(verdict);
        }
    }

    pub(super) fn on_restart(&mut self) {
        self.up = true;
        self.fresh = true;
        self.check_restored();
        let now = self.wall();
        for op in 0..self.ops.len() {
            let Some(record) = &self.disk.records[op] else {
                if !self.ops[op].given_up && self.ops[op].submits > 0 {
                    self.client_later(SECOND, op, Ev::Submit);
                }
                continue;
            };
            if let Some(wait) = record.wait_micros(now) {
                self.name_restart(op);
                self.later(wait, op, Ev::TakeUp);
            }
        }
    }

    /// Makes a commit durable: its turns, in order, all or none.
    pub(super) fn apply(&mut self, op: usize, execution: &Execution, flight: &Flight) -> Landed {
        let Some(plan) = self.ops[op].plan.clone() else { return Landed::Refused };
        for told in &flight.turns {
            let entry = &told.turn.entry;
            match self.disk.apply(op, execution, &plan, told, !flight.without_rows) {
                Ok(()) => {}
                Err(Refused::Row) => return Landed::Conflict,
                Err(Refused::Broken(violation)) => {
                    self.fail(violation);
                    return Landed::Refused;
                }
            }
            let noted = self.ops[op].story.note(entry.revision, entry.at, told.now, &told.events);
            // A start that is not stored, or a turn that is told twice, is a broken story by itself.
            self.judge(noted);
            self.name_turn(op, &flight.happened, &told.events);
        }
        self.cov.commits += 1;
        self.fresh = false;
        self.trace.add(flight.expected.0);
        let ended = flight.ends();
        self.check_rows(op, ended);
        if ended {
            self.cov.operations += 1;
            let one = &self.ops[op];
            let verdict = one.outside.check_end(&one.story);
            self.judge(verdict);
            self.name_end(op);
        }
        Landed::Ok
    }

    /// The rows of every operation are those of its stage, at this very moment.
    pub(super) fn check_rows(&mut self, ended: usize, at_end: bool) {
        for op in 0..self.ops.len() {
            let one = &self.ops[op];
            let (Some(plan), Some(id)) = (&one.plan, one.id) else { continue };
            if one.story.revision == Revision(0) {
                continue;
            }
            // A create that was late before it began has claimed nothing.
            let at_end = at_end && op == ended && one.story.revision > Revision::FIRST;
            let verdict = rows::check_claims(id, plan.claims(), &one.story, &self.disk.rows, at_end);
            self.judge(verdict);
        }
    }
}
