//! Names for what a seed has built: the situations that a campaign counts.

use longrun_core::{Code, Command, Event, Revision, Verb};

use super::driver::{Flight, Happened, Reply};
use super::world::World;
use crate::sim::coverage::{CrashPoint, Fault, Situation};
use crate::sim::invariants::commits::check_late;
use crate::sim::invariants::durable::End;

impl World<'_> {
    pub(super) fn name_crash(&mut self, point: CrashPoint) {
        use Situation as S;
        let mut met = Vec::new();
        match point {
            CrashPoint::BeforeEffect => met.push(S::CrashStartedNotApplied),
            CrashPoint::AfterEffect => met.push(S::CrashEffectNotReported),
            CrashPoint::Recovery if self.fresh => met.push(S::CrashDuringRecovery),
            _ => {}
        }
        for one in &self.ops {
            match (one.outside.undoing(), one.outside.steps_undone()) {
                (0, _) => {}
                (_, 1) => met.push(S::CrashDuringFirstUndo),
                _ => met.push(S::CrashDuringSecondUndo),
            }
            if one.outside.places.iter().filter(|place| place.live.is_some()).count() > 1 {
                met.push(S::CrashTwoRunning);
            }
            if one.story.cause.is_some() && one.story.end.is_none() && one.outside.steps_undone() == 0 {
                met.push(S::CrashAfterDecision);
            }
            let Some(driver) = &one.driver else { continue };
            if driver.recovering && self.fresh && point != CrashPoint::Recovery {
                met.push(S::CrashDuringRecovery);
            }
            let Some(flight) = &driver.flight else { continue };
            if flight.expected == Revision::FIRST {
                met.push(if flight.landed {
                    S::CrashBeforeAcceptAnswered
                } else {
                    S::CrashBeforeAcceptDurable
                });
            }
            if flight.decides() {
                met.push(S::CrashHoldingDecision);
            }
            if flight.ends() {
                met.push(S::CrashHoldingEnd);
            }
        }
        for situation in met {
            self.cov.met(situation);
        }
    }

    pub(super) fn name_restart(&mut self, op: usize) {
        use Situation as S;
        let now = self.wall();
        let one = &self.ops[op];
        let late = one.draft.deadline.is_some_and(|deadline| one.created_at.saturating_add(deadline) <= now);
        let back = one.story.cause.is_some();
        let waits = one.story.is_waiting();
        let past = one.story.is_past_no_return();
        for (met, situation) in [
            (!back && waits, S::RestartWaitingAgain),
            (back && waits, S::RestartUndoWaiting),
            (back, S::RestartRollingBack),
            (past, S::RestartPastNoReturn),
            (late && !back, S::RestartAfterDeadline),
        ] {
            if met {
                self.cov.met(situation);
            }
        }
    }

    pub(super) fn name_end(&mut self, op: usize) {
        use Situation as S;
        let one = &self.ops[op];
        let (crashes, end) = (one.crashes, one.story.end);
        match end {
            Some(End::Succeeded) if crashes > 0 => self.cov.met(S::DoneAfterCrash),
            Some(End::RolledBack) if crashes > 1 => self.cov.met(S::UndoneAfterCrashes),
            Some(End::Abandoned) => self.cov.met(S::Abandoned),
            _ => {}
        }
    }

    /// What a turn has brought about, once it is durable.
    pub(super) fn name_turn(&mut self, op: usize, happened: &[Happened], events: &[Event]) {
        let cancelled = happened.iter().any(|one| one.reply == Reply::Cancel);
        let mut decision = false;
        for event in events {
            match event {
                Event::RollbackDecided { cause, step } => {
                    decision = true;
                    if cancelled && cause.code() == Code::Cancelled {
                        self.cov.met(Situation::CancelWins);
                    }
                    if cause.code() == Code::DeadlineExceeded && step.is_none() {
                        self.cov.fault(Fault::Deadline);
                        if self.ops[op].outside.places.iter().any(|place| place.live.is_some()) {
                            self.cov.met(Situation::DeadlineWhileRunning);
                        }
                    }
                }
                Event::RolledBack if decision => self.cov.met(Situation::DecisionAndEnd),
                Event::Succeeded { .. } if cancelled => self.cov.met(Situation::CancelWithLastOutcome),
                Event::Intervened(act) => match act.verb {
                    Verb::RetryNow => self.cov.met(Situation::RetryNow),
                    Verb::MarkUndone(_) | Verb::SkipUndo(_) => self.cov.met(Situation::TakenOver),
                    Verb::Abandon => {}
                },
                _ => {}
            }
        }
        let ended = happened.iter().any(|one| matches!(&one.command, Command::Report { .. }));
        if cancelled && decision && ended {
            self.cov.met(Situation::CancelWithLastOutcome);
        }
    }

    pub(super) fn name_late(&mut self, accepted: bool) {
        if !accepted {
            self.cov.met(Situation::LateResultRefused);
        }
        if self.strict {
            self.judge(check_late(accepted));
        }
    }

    pub(super) fn name_unknown(&mut self, flight: &Flight, applied: bool) {
        let (fault, situation) = if applied {
            (Fault::CommitUnknownApplied, Situation::UnknownApplied)
        } else {
            (Fault::CommitUnknownLost, Situation::UnknownNotApplied)
        };
        self.cov.fault(fault);
        self.cov.met(situation);
        if flight.decides() {
            self.cov.met(Situation::UnknownDecision);
        }
        if flight.expected == Revision::FIRST {
            self.cov.met(Situation::UnknownAccept);
        }
    }
}
