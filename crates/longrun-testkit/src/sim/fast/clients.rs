//! Clients and operators: they submit, look, cancel, and lend a hand.

use std::sync::Arc;

use longrun_core::{Acceptance, Command, Execution, Header, OperationId, Plan, Revision, Verb};

use super::driver::{Driver, Happened, Purpose, Reply, Told};
use super::scenario::SECOND;
use super::world::{Ev, World};
use crate::sim::coverage::{Fault, Situation};
use crate::sim::invariants::Violation;
use crate::sim::invariants::answers::check_there;
use crate::sim::invariants::durable::Story;
use crate::sim::plant::Plant;

/// Times that a client asks before it gives up.
const SUBMITS_MAX: u32 = 6;

impl World<'_> {
    pub(super) fn on_submit(&mut self, op: usize) {
        let one = &self.ops[op];
        // A crash makes the client ask again, and it may be asking already.
        let asks_later = one.asks_at > self.now;
        if one.given_up
            || one.submitting
            || asks_later
            || one.driver.is_some()
            || self.disk.records[op].is_some()
        {
            return;
        }
        if !self.up {
            return self.client_later(SECOND, op, Ev::Submit);
        }
        self.ops[op].submits += 1;
        let claims = match self.ops[op].draft.claims(self.kit, &self.disk.rows) {
            Ok(claims) => claims,
            Err(held) => {
                if held {
                    self.cov.met(Situation::ResourceBusy);
                }
                return self.refused(op, !held);
            }
        };
        let now = self.wall();
        let random = self.rng.bits();
        let kit = self.kit;
        let one = &mut self.ops[op];
        let header = Header {
            id: OperationId::generate(kit.prefix, now, random),
            kind: kit.kind.clone(),
            kind_version: 1,
            description: String::new(),
            created_at: now,
            created_by: kit.caller.clone(),
            request: kit.payload.clone(),
            metadata: kit.payload.clone(),
            response_type: kit.response_type.clone(),
            resources: claims.iter().map(|claim| claim.key.clone()).collect(),
            deadline: one.draft.deadline.map(|deadline| now.saturating_add(deadline)),
            idempotency: None,
        };
        if claims.iter().any(|claim| claim.before().is_some_and(|row| row.revision > Revision(3))) {
            self.cov.met(Situation::ResourceAgain);
        }
        let mut parts = one.draft.parts.clone();
        parts.claims = claims;
        let plan = match Plan::new(parts) {
            Ok(plan) => plan,
            // A move that the table does not allow.
            Err(_) => return self.refused(op, true),
        };
        one.story = Story::new(&plan, now);
        (one.id, one.created_at) = (Some(header.id), now);
        one.plan = Some(Arc::new(plan.clone()));
        let start = one.draft.start;
        match Execution::accept(Acceptance { header, plan, start }) {
            Ok((execution, turn)) => {
                one.submitting = true;
                let early = self.plant == Some(Plant::S9);
                let answer = early.then(|| execution.operation());
                let mut driver = Box::new(Driver::new(execution, Purpose::First));
                self.take_off(
                    op,
                    &mut driver,
                    vec![Told { events: turn.entry.events.clone(), turn, now }],
                    Vec::new(),
                    Revision::FIRST,
                    0,
                );
                self.ops[op].driver = Some(driver);
                if let Some(answer) = answer {
                    self.tell(op, answer);
                }
            }
            Err(error) => self.fail(Violation::new("accept", error.to_string())),
        }
    }

    /// The operation was not taken. The client asks again, unless that is pointless.
    pub(super) fn refused(&mut self, op: usize, finally: bool) {
        let one = &mut self.ops[op];
        one.submitting = false;
        if finally || one.submits >= SUBMITS_MAX && !self.calm {
            one.given_up = true;
        } else {
            let wait = (SECOND / 2) << one.submits.min(7);
            one.asks_at = self.now + wait;
            self.client_later(wait, op, Ev::Submit);
        }
    }

    /// The operation is durable, and its client is told.
    pub(super) fn accepted(&mut self, op: usize, execution: &Execution) {
        self.ops[op].submitting = false;
        self.tell(op, execution.operation());
    }

    /// The operation as readers see it: what the driver has made durable, else what is stored.
    fn seen(&self, op: usize) -> Option<Execution> {
        let one = &self.ops[op];
        if let Some(driver) = &one.driver {
            let shows_early = self.plant == Some(Plant::S11);
            if driver.purpose != Purpose::First
                && driver.held.is_empty()
                && (driver.flight.is_none() || shows_early)
            {
                return Some(driver.execution.clone());
            }
        }
        self.disk.records[op].as_ref()?.restore().ok()
    }

    pub(super) fn on_poll(&mut self, op: usize) {
        // A client that was not told of its operation does not know its id.
        if self.up && self.ops[op].answers.newest().is_some() {
            match (self.seen(op), self.ops[op].id) {
                (Some(seen), _) => self.tell(op, seen.operation()),
                (None, Some(id)) => self.judge(check_there(id, false)),
                (None, None) => {}
            }
        }
    }

    pub(super) fn on_cancel(&mut self, op: usize) {
        if !self.up || self.ops[op].answers.newest().is_none() {
            return;
        }
        self.cov.fault(Fault::Cancel);
        let one = &mut self.ops[op];
        let by = self.kit.caller.clone();
        let situation = match (&one.story.end, &one.story.cause) {
            (Some(_), _) => Some(Situation::CancelTooLate),
            (_, Some(_)) => Some(Situation::CancelRollingBack),
            _ if one.story.is_past_no_return() => Some(Situation::CancelPastNoReturn),
            _ if one.driver.is_none() => Some(Situation::CancelAtRest),
            _ => None,
        };
        if let Some(situation) = situation {
            self.cov.met(situation);
        }
        if self.plant == Some(Plant::S10) && self.cancel_in_memory(op) {
            return;
        }
        self.command(op, Command::Cancel { by }, Reply::Cancel);
    }

    /// A planted fault: the cancel is acknowledged, and kept in memory.
    fn cancel_in_memory(&mut self, op: usize) -> bool {
        let now = self.wall();
        let Some(driver) = &mut self.ops[op].driver else { return false };
        if driver.purpose != Purpose::Drive || driver.flight.is_some() || driver.execution.is_done() {
            return false;
        }
        let mut after = driver.execution.clone();
        let mut events = Vec::new();
        let command = Command::Cancel { by: self.kit.caller.clone() };
        if after.handle(&command, now, &mut events).is_err()
            || events.is_empty()
            || after.seal(events, now).is_err()
        {
            return false;
        }
        driver.cancel_in_memory = true;
        self.tell(op, after.operation());
        true
    }

    /// Gives a command to the operation: to its driver, else to what is stored.
    fn command(&mut self, op: usize, command: Command, reply: Reply) {
        let happened = Happened { command, reply, accepted: true };
        if let Some(driver) = &mut self.ops[op].driver {
            driver.inbox.push(happened);
            return self.pump(op);
        }
        let Some(record) = &self.disk.records[op] else { return };
        match record.restore() {
            Ok(execution) => {
                let mut driver = Box::new(Driver::new(execution, Purpose::Rest));
                driver.inbox.push(happened);
                self.at_rest(op, driver);
            }
            Err(violation) => self.fail(violation),
        }
    }

    /// An operator looks at the operation and does what helps, more or less.
    pub(super) fn on_verb(&mut self, op: usize) {
        if !self.up || self.ops[op].answers.newest().is_none() {
            return;
        }
        let step = self.ops[op].story.lines.iter().position(|line| line.undo_failures > 0 && line.effect);
        let index = longrun_core::StepIndex(u16::try_from(step.unwrap_or(0)).unwrap_or(0));
        let verb = match (self.rng.below(6), step) {
            (0, Some(_)) => Verb::Abandon,
            (1, Some(_)) => Verb::SkipUndo(index),
            (2 | 3, Some(step)) => {
                // By hand first, then on record. Rolling back is durable: nothing runs forward any more.
                self.ops[op].outside.reverse(step);
                Verb::MarkUndone(index)
            }
            (4, None) => Verb::Abandon,
            _ => Verb::RetryNow,
        };
        self.cov.fault(Fault::Operator);
        let (by, reason) = (self.kit.caller.clone(), "it has to be".to_owned());
        self.command(op, Command::Intervene { by, verb, reason }, Reply::Operator);
    }
}
