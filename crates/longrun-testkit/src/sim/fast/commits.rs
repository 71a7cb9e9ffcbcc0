//! Commits: on their way to the disk, landed or lost, settled by reading back, and told when they are durable.

use longrun_core::{Command, Execution, Revision};

use super::driver::{Driver, Flight, Happened, Purpose, Reply, Told};
use super::scenario::SECOND;
use super::world::{Ev, Landed, World};
use crate::sim::coverage::{CrashPoint, Fault, Situation};
use crate::sim::invariants::answers::{check_blocked, check_cancel, check_there};
use crate::sim::invariants::commits::{check_conflict, check_settled};
use crate::sim::plant::Plant;

impl World<'_> {
    /// A commit is under way.
    pub(super) fn take_off(
        &mut self,
        op: usize,
        driver: &mut Driver,
        turns: Vec<Told>,
        happened: Vec<Happened>,
        expected: Revision,
        failures: u32,
    ) {
        let ticket = self.ticket();
        let without_rows = self.plant == Some(Plant::C7);
        driver.flight = Some(Flight {
            ticket,
            turns,
            happened,
            expected,
            landed: false,
            failed: false,
            failures,
            without_rows,
        });
        let mut latency = 50 + self.rng.below(2000);
        if self.goes_wrong(self.swarm.slow) {
            self.cov.fault(Fault::CommitSlow);
            latency = self.rng.below(8 * SECOND);
        }
        self.later(latency, op, Ev::Land(ticket));
    }

    pub(super) fn flies(&self, op: usize, ticket: u32) -> bool {
        let flight = self.ops[op].driver.as_ref().and_then(|driver| driver.flight.as_ref());
        flight.is_some_and(|flight| flight.ticket == ticket)
    }

    /// The disk takes the commit, or does not.
    pub(super) fn on_land(&mut self, op: usize, ticket: u32) {
        if !self.flies(op, ticket) || self.crash_point(CrashPoint::BeforeCommit) {
            return;
        }
        let Some(mut driver) = self.ops[op].driver.take() else { return };
        let Some(flight) = &mut driver.flight else { return };
        let mut landed = Landed::Ok;
        if self.full {
            self.cov.fault(Fault::DiskFull);
            landed = Landed::Refused;
        } else if self.goes_wrong(self.swarm.refuse) {
            self.cov.fault(Fault::CommitRefused);
            landed = Landed::Refused;
        } else if self.goes_wrong(self.swarm.unknown_lost) {
            self.name_unknown(flight, false);
            landed = Landed::Unknown;
        }
        if landed == Landed::Ok {
            landed = self.apply(op, &driver.execution, flight);
            flight.landed = landed == Landed::Ok;
            if flight.without_rows && flight.landed {
                self.later(1, op, Ev::RowsLater);
            }
            if flight.landed && self.goes_wrong(self.swarm.unknown_applied) {
                self.name_unknown(flight, true);
                landed = Landed::Unknown;
            }
        }
        flight.failed = landed != Landed::Ok;
        let durable = flight.landed;
        self.ops[op].driver = Some(driver);
        self.later(2, op, Ev::Ack(ticket, landed));
        if durable {
            self.crash_point(CrashPoint::AfterCommit);
        }
    }

    /// A planted fault: the rows of a commit follow it.
    pub(super) fn on_rows_later(&mut self, op: usize) {
        let Some(flight) = self.ops[op].driver.as_ref().and_then(|driver| driver.flight.as_ref()) else {
            return;
        };
        let turns = flight.turns.clone();
        for told in &turns {
            let verdict = self.disk.write_rows(&told.turn.rows, &told.events);
            self.judge(verdict);
        }
    }

    /// The driver learns what became of its commit.
    pub(super) fn on_ack(&mut self, op: usize, ticket: u32, landed: Landed) {
        if !self.flies(op, ticket) {
            return;
        }
        let Some(mut driver) = self.ops[op].driver.take() else { return };
        if landed == Landed::Unknown && self.plant == Some(Plant::S33) {
            return self.on_durable(op, driver);
        }
        match landed {
            Landed::Ok => self.on_durable(op, driver),
            Landed::Conflict => {
                self.judge(check_conflict(driver.purpose == Purpose::First));
                self.cov.met(Situation::ResourceBusy);
                self.refused(op, true);
            }
            Landed::Refused if driver.purpose == Purpose::First => self.refused(op, false),
            Landed::Refused | Landed::Unknown => {
                let unknown = landed == Landed::Unknown;
                let Some(flight) = &mut driver.flight else { return };
                flight.failures += 1;
                for one in &mut flight.happened {
                    // Callers do not wait for a store that is away.
                    if matches!(one.reply, Reply::Cancel | Reply::Operator) {
                        *one = Happened::quiet(Command::Resume);
                    }
                }
                let wait = (SECOND / 20) << flight.failures.min(6);
                self.later(wait, op, Ev::Settle(ticket, unknown));
                self.ops[op].driver = Some(driver);
            }
        }
    }

    /// After a commit that failed: reads back where the operation stands, and goes on from there.
    pub(super) fn on_settle(&mut self, op: usize, ticket: u32, unknown: bool) {
        if !self.flies(op, ticket) || self.crash_point(CrashPoint::Settling) {
            return;
        }
        let Some(mut driver) = self.ops[op].driver.take() else { return };
        let Some(flight) = driver.flight.take() else { return };
        let Some(record) = &self.disk.records[op] else {
            // Only a new operation can be absent, and it is known now that it was not stored.
            let first = driver.purpose == Purpose::First;
            self.judge(check_there(driver.execution.header().id, first));
            return self.refused(op, false);
        };
        let stored = match record.restore() {
            Ok(stored) => stored,
            Err(violation) => return self.fail(violation),
        };
        let happened_after_all = unknown && stored == driver.execution;
        driver.execution = stored;
        if happened_after_all {
            driver.flight = Some(flight);
            return self.on_durable(op, driver);
        }
        if self.decide(op, &mut driver, flight.happened, flight.failures) && !self.turns(op, &mut driver) {
            return;
        }
        self.ops[op].driver = Some(driver);
    }

    /// The turn is durable: now, and not before, it is told and followed.
    pub(super) fn on_durable(&mut self, op: usize, mut driver: Box<Driver>) {
        let Some(flight) = driver.flight.take() else { return };
        if self.strict {
            self.judge(check_settled(self.ops[op].story.revision, flight.expected));
        }
        driver.recovering = false;
        if driver.purpose == Purpose::First {
            self.accepted(op, &driver.execution);
            let started = !driver.execution.next(self.wall()).run.is_empty() || driver.execution.is_done();
            driver.purpose = if started { Purpose::Drive } else { Purpose::Rest };
        }
        self.answer(op, &driver.execution, &flight.happened);
        self.ops[op].driver = Some(driver);
        if !self.crash_point(CrashPoint::AfterAcknowledgement) {
            self.pump(op);
        }
    }

    /// Tells those who asked.
    pub(super) fn answer(&mut self, op: usize, execution: &Execution, happened: &[Happened]) {
        for one in happened
            .iter()
            .filter(|one| one.reply == Reply::Cancel || one.accepted && one.reply == Reply::Operator)
        {
            let story = &self.ops[op].story;
            let answer = execution.operation();
            if one.reply == Reply::Cancel {
                self.judge(check_cancel(&answer, story.is_past_no_return()));
            }
            self.tell(op, answer);
        }
    }

    /// A client gets to know how the operation stands.
    pub(super) fn tell(&mut self, op: usize, answer: longrun_core::Operation) {
        let durable = self.strict.then(|| self.ops[op].story.revision);
        if !answer.blocked().is_empty() {
            self.cov.met(Situation::Blocked);
        }
        let one = &mut self.ops[op];
        let seen = check_blocked(&one.story, &answer);
        let verdict = one.answers.told(answer, durable);
        self.judge(seen.and(verdict));
    }
}
